#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/fs.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/content.h"

static const char *store_folder;

struct world {
    char folder[64];
    struct content *content;
};

static int set_up(void **state)
{
    struct world *world = mem_new(1, sizeof(*world));

    snprintf(world->folder, sizeof(world->folder), "/tmp/sheaf-content-XXXXXX");
    if (mkdtemp(world->folder) == NULL || content_new(world->folder, &world->content, NULL) != 0)
        return -1;
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;

    content_free(world->content);
    int rc = fs_remove_tree(world->folder, NULL);
    free(world);
    return rc;
}

static struct content_key key_of(const char *owner, const void *bytes, size_t size)
{
    struct content_key key = {.size = size};

    snprintf(key.owner, sizeof(key.owner), "%s", owner);
    sha256(bytes, size, key.sha256);
    return key;
}

static uint32_t begin(struct content *content, const struct content_key *key, uint8_t *parts)
{
    uint32_t count = 0;

    assert_int_equal(content_begin(content, key, parts, &count, NULL), 0);
    return count;
}

static void assert_stored(const struct content *content, const struct content_key *key,
                          const char *bytes)
{
    uint64_t size = 0;
    int fd = -1;
    char *read_back = mem_new(key->size + 1, 1);

    assert_true(content_has(content, key->sha256, &size));
    assert_int_equal(size, key->size);
    assert_int_equal(content_open(content, key->sha256, &fd, &size, NULL), 0);
    assert_int_equal(pread(fd, read_back, key->size, 0), key->size);
    assert_memory_equal(read_back, bytes, key->size);
    close(fd);
    free(read_back);
}

static void test_parts_in_any_order_become_content(void **state)
{
    struct world *world = *state;
    size_t size = 2 * CONTENT_PART + 100;
    char *bytes = mem_new(size, 1);
    static uint8_t parts[CONTENT_MAX_PARTS];
    uint64_t stored;

    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(i * 31 + i / 977);
    struct content_key key = key_of("p-1", bytes, size);
    assert_int_equal(begin(world->content, &key, parts), 3);
    assert_int_equal(parts[0] + parts[1] + parts[2], 0);
    assert_int_equal(content_put_part(world->content, &key, 2, bytes + 2 * CONTENT_PART, 100, NULL),
                     0);
    assert_int_equal(content_put_part(world->content, &key, 0, bytes, CONTENT_PART, NULL), 0);
    assert_int_equal(content_seal(world->content, &key, true, NULL), -ERR_STATE_CONFLICT);
    assert_false(content_has(world->content, key.sha256, &stored));

    /* Resume, as after a restart: what is there is known. */
    struct content *again = NULL;
    assert_int_equal(content_new(world->folder, &again, NULL), 0);
    assert_int_equal(begin(again, &key, parts), 3);
    assert_int_equal(parts[0], 1);
    assert_int_equal(parts[1], 0);
    assert_int_equal(parts[2], 1);
    assert_int_equal(content_put_part(again, &key, 1, bytes + CONTENT_PART, CONTENT_PART, NULL), 0);
    assert_int_equal(content_put_part(again, &key, 1, bytes + CONTENT_PART, CONTENT_PART, NULL), 0);
    assert_int_equal(content_seal(again, &key, true, NULL), 0);
    assert_stored(again, &key, bytes);
    content_free(again);
    free(bytes);
}

static void test_wrong_bytes_never_become_content(void **state)
{
    struct world *world = *state;
    static uint8_t parts[CONTENT_MAX_PARTS];
    struct content_key key = key_of("p-1", "right", 5);
    uint64_t size;

    assert_int_equal(begin(world->content, &key, parts), 1);
    assert_int_equal(content_put_part(world->content, &key, 0, "wrong", 5, NULL), 0);
    assert_int_equal(content_seal(world->content, &key, true, NULL), -ERR_HASH_MISMATCH);
    assert_false(content_has(world->content, key.sha256, &size));
    /* The upload is gone: it begins anew. */
    assert_int_equal(content_seal(world->content, &key, true, NULL), -ERR_NOT_FOUND);
    assert_int_equal(begin(world->content, &key, parts), 1);
    assert_int_equal(parts[0], 0);
}

static void test_a_second_commit_is_the_first_again(void **state)
{
    struct world *world = *state;
    static uint8_t parts[CONTENT_MAX_PARTS];
    struct content_key key = key_of("p-1", "bytes", 5);
    struct content_key other = key_of("p-2", "bytes", 5);

    begin(world->content, &key, parts);
    assert_int_equal(content_put_part(world->content, &key, 0, "bytes", 5, NULL), 0);
    assert_int_equal(content_seal(world->content, &key, true, NULL), 0);
    assert_int_equal(content_seal(world->content, &key, true, NULL), 0);
    assert_stored(world->content, &key, "bytes");
    begin(world->content, &key, parts);
    assert_int_equal(parts[0], 1);
    /* Another project must bring the bytes itself; then there is still one copy. */
    begin(world->content, &other, parts);
    assert_int_equal(parts[0], 0);
    assert_int_equal(content_seal(world->content, &other, true, NULL), -ERR_STATE_CONFLICT);
    assert_int_equal(content_put_part(world->content, &other, 0, "bytes", 5, NULL), 0);
    assert_int_equal(content_seal(world->content, &other, true, NULL), 0);
    assert_stored(world->content, &other, "bytes");
}

static void test_bounds_of_parts_are_kept(void **state)
{
    struct world *world = *state;
    static uint8_t parts[CONTENT_MAX_PARTS];
    struct content_key key = key_of("p-1", "12345", 5);
    struct content_key huge = key_of("p-1", "x", 1);
    uint32_t count;

    assert_int_equal(content_put_part(world->content, &key, 0, "12345", 5, NULL), -ERR_NOT_FOUND);
    begin(world->content, &key, parts);
    assert_int_equal(content_put_part(world->content, &key, 0, "1234", 4, NULL), -ERR_OUT_OF_RANGE);
    assert_int_equal(content_put_part(world->content, &key, 0, "123456", 6, NULL),
                     -ERR_OUT_OF_RANGE);
    assert_int_equal(content_put_part(world->content, &key, 1, "1", 1, NULL), -ERR_OUT_OF_RANGE);
    assert_int_equal(content_put_part(world->content, &key, UINT32_MAX, "1", 1, NULL),
                     -ERR_OUT_OF_RANGE);
    huge.size = CONTENT_MAX + 1;
    assert_int_equal(content_begin(world->content, &huge, parts, &count, NULL),
                     -ERR_BODY_TOO_LARGE);
    huge.size = UINT64_MAX;
    assert_int_equal(content_begin(world->content, &huge, parts, &count, NULL),
                     -ERR_BODY_TOO_LARGE);
}

static void test_another_size_under_the_same_hash_starts_anew(void **state)
{
    struct world *world = *state;
    static uint8_t parts[CONTENT_MAX_PARTS];
    struct content_key key = key_of("p-1", "12345", 5);

    begin(world->content, &key, parts);
    assert_int_equal(content_put_part(world->content, &key, 0, "12345", 5, NULL), 0);
    key.size = 4;
    begin(world->content, &key, parts);
    assert_int_equal(parts[0], 0);
}

static void test_empty_content_is_content(void **state)
{
    struct world *world = *state;
    static uint8_t parts[CONTENT_MAX_PARTS];
    struct content_key key = key_of("p-1", "", 0);

    assert_int_equal(begin(world->content, &key, parts), 0);
    assert_int_equal(content_seal(world->content, &key, true, NULL), 0);
    assert_stored(world->content, &key, "");
}

static void test_a_stream_resumes_where_it_was(void **state)
{
    struct world *world = *state;
    struct content_key key = key_of("a-1", "hello world", 11);
    uint64_t offset = 99;
    int fd = -1;

    assert_int_equal(content_stream(world->content, &key, &offset, &fd, NULL), 0);
    assert_int_equal(offset, 0);
    assert_int_equal(content_append(fd, &key, 0, "hello ", 6, NULL), 0);
    close(fd);
    assert_int_equal(content_stream(world->content, &key, &offset, &fd, NULL), 0);
    assert_int_equal(offset, 6);
    assert_int_equal(content_append(fd, &key, 6, "world!", 6, NULL), -ERR_OUT_OF_RANGE);
    assert_int_equal(content_append(fd, &key, UINT64_MAX, "w", 1, NULL), -ERR_OUT_OF_RANGE);
    assert_int_equal(content_append(fd, &key, 6, "world", 5, NULL), 0);
    close(fd);
    assert_int_equal(content_seal(world->content, &key, false, NULL), 0);
    assert_stored(world->content, &key, "hello world");
}

static void test_unknown_content_is_not_found(void **state)
{
    struct world *world = *state;
    uint8_t hash[SHA256_SIZE] = {1};
    uint64_t size;
    int fd;

    assert_false(content_has(world->content, hash, &size));
    assert_int_equal(content_open(world->content, hash, &fd, &size, NULL), -ERR_NOT_FOUND);
}

/* Stores `number` as content that was used last `age_s` ago; its hash. */
static struct content_key store_aged(struct content *content, unsigned number, int64_t age_s)
{
    char bytes[16];
    int length = snprintf(bytes, sizeof(bytes), "content %u", number);
    struct content_key key = key_of("a-1", bytes, (size_t)length);
    char path[160];
    char hex[SHA256_HEX];
    uint64_t offset;
    int fd;

    assert_int_equal(content_stream(content, &key, &offset, &fd, NULL), 0);
    assert_int_equal(content_append(fd, &key, 0, bytes, key.size, NULL), 0);
    close(fd);
    assert_int_equal(content_seal(content, &key, false, NULL), 0);
    hex_format(key.sha256, SHA256_SIZE, hex);
    struct timespec at = {.tv_sec = time(NULL) - age_s};
    const struct timespec times[2] = {at, at};
    snprintf(path, sizeof(path), "%s/objects/%.2s/%s", store_folder, hex, hex);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    return key;
}

static bool is_listed(const struct content *content, const uint8_t *sha256, int64_t cut_us)
{
    struct content_old old = {.count = 0};

    do {
        content_list_old(content, sha256[0], cut_us, &old);
        for (uint32_t i = 0; i < old.count; i++) {
            if (memcmp(old.sha256[i], sha256, SHA256_SIZE) == 0)
                return true;
        }
    } while (old.count == CONTENT_OLD_MAX);
    return false;
}

static void test_only_what_was_not_used_for_long_goes(void **state)
{
    struct world *world = *state;
    int64_t cut_us = ((int64_t)time(NULL) - 100) * 1000000;
    uint64_t size;

    store_folder = world->folder;
    struct content_key old = store_aged(world->content, 1, 200);
    struct content_key fresh = store_aged(world->content, 2, 0);
    struct content_key used = store_aged(world->content, 3, 200);
    struct content_key again = store_aged(world->content, 4, 200);
    assert_true(is_listed(world->content, old.sha256, cut_us));
    assert_false(is_listed(world->content, fresh.sha256, cut_us));
    assert_true(is_listed(world->content, used.sha256, cut_us));
    /* Between being found old and being removed: somebody counts on it. */
    content_use(world->content, used.sha256);
    store_aged(world->content, 4, 0);
    assert_true(content_remove(world->content, old.sha256, cut_us));
    assert_false(content_remove(world->content, old.sha256, cut_us));
    assert_false(content_remove(world->content, fresh.sha256, cut_us));
    assert_false(content_remove(world->content, used.sha256, cut_us));
    assert_false(content_remove(world->content, again.sha256, cut_us));
    assert_false(content_has(world->content, old.sha256, &size));
    assert_true(content_has(world->content, used.sha256, &size));
    assert_stored(world->content, &again, "content 4");
}

/* More than one list of them, in one folder: each comes once. */
static void test_old_content_is_listed_in_pieces(void **state)
{
    struct world *world = *state;
    struct content_old old = {.count = 0};
    char path[160];
    uint32_t seen = 0;
    uint8_t last[SHA256_SIZE] = {0};

    snprintf(path, sizeof(path), "%s/objects/07", world->folder);
    assert_int_equal(fs_mkdir(path, 0700, NULL), 0);
    for (unsigned i = 0; i < 150; i++) {
        snprintf(path, sizeof(path), "%s/objects/07/07%062x", world->folder, i * 77 % 150);
        assert_int_equal(fs_write(path, "x", 1, 0600, NULL), 0);
    }
    do {
        content_list_old(world->content, 7, INT64_MAX, &old);
        for (uint32_t i = 0; i < old.count; i++) {
            assert_true(memcmp(old.sha256[i], last, SHA256_SIZE) > 0);
            memcpy(last, old.sha256[i], SHA256_SIZE);
            seen++;
        }
    } while (old.count > 0);
    assert_int_equal(seen, 150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_parts_in_any_order_become_content, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_bytes_never_become_content, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_second_commit_is_the_first_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounds_of_parts_are_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_size_under_the_same_hash_starts_anew, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_empty_content_is_content, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stream_resumes_where_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_content_is_not_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_only_what_was_not_used_for_long_goes, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_old_content_is_listed_in_pieces, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
