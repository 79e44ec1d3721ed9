/* Inputs kept on a worker: bound by size, oldest use first, never what a task uses. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/fs.h"
#include "common/pure/id.h"
#include "worker/core/cache.h"

static char folder[64];

static const char *path_of(uint8_t number)
{
    static char path[FS_PATH];
    uint8_t hash[SHA256_SIZE] = {number};
    char hex[SHA256_HEX];

    assert_int_equal(fs_path(path, "%s/%s", folder, hex_format(hash, SHA256_SIZE, hex)), 0);
    return path;
}

/* 100 bytes, last used `number` seconds after 1970. */
static void make(uint8_t number)
{
    static const char bytes[100];
    const struct timespec at[2] = {{number, 0}, {number, 0}};

    assert_int_equal(fs_write(path_of(number), bytes, sizeof(bytes), 0600, NULL), 0);
    assert_int_equal(utimensat(AT_FDCWD, path_of(number), at, 0), 0);
}

static bool is_there(uint8_t number)
{
    return access(path_of(number), F_OK) == 0;
}

static bool is_used(const uint8_t sha256[SHA256_SIZE], void *arg)
{
    const uint8_t *used = arg;

    return used && sha256[0] == *used;
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/sheaf-cache-XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (uint8_t i = 1; i <= 4; i++)
        make(i);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return fs_remove_tree(folder, NULL);
}

static void test_what_was_used_longest_ago_goes_first(void **state)
{
    (void)state;
    cache_touch(path_of(1));
    struct cache_use left = cache_trim(folder, 250, is_used, NULL);
    assert_int_equal(left.bytes, 200);
    assert_int_equal(left.files, 2);
    assert_true(is_there(1));
    assert_false(is_there(2));
    assert_false(is_there(3));
    assert_true(is_there(4));
}

static void test_what_a_task_uses_stays_whatever_the_limit(void **state)
{
    uint8_t used = 1;

    (void)state;
    struct cache_use left = cache_trim(folder, 0, is_used, &used);
    assert_int_equal(left.bytes, 100);
    assert_true(is_there(1));
    assert_int_equal(cache_trim(folder, 0, is_used, NULL).files, 0);
}

static void test_within_the_limit_nothing_goes(void **state)
{
    char stray[FS_PATH];

    (void)state;
    assert_int_equal(fs_path(stray, "%s/note.txt", folder), 0);
    assert_int_equal(fs_write(stray, "x", 1, 0600, NULL), 0);
    assert_int_equal(cache_trim(folder, 400, is_used, NULL).files, 4);
    assert_int_equal(cache_measure(folder).bytes, 400);
    assert_int_equal(cache_trim(folder, 0, is_used, NULL).files, 0);
    assert_int_equal(access(stray, F_OK), 0); /* not ours */
    assert_int_equal(cache_measure("/no/such/folder").files, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_was_used_longest_ago_goes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_a_task_uses_stays_whatever_the_limit, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_within_the_limit_nothing_goes, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
