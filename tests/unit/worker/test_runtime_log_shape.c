/* What is kept of a process's output: the bounds, and that every cut is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/pure/mem.h"
#include "worker/runtime/log_shape.h"

#define SECOND ((int64_t)1000000)

static struct log_budget budget;
static struct log_shape shape;
static struct buf out;

static int setup(void **state)
{
    (void)state;
    budget.left = (uint64_t)64 << 20;
    log_shape_init(&shape, &budget);
    buf_init(&out, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_fini(&out);
    return 0;
}

static void add(const char *text, int64_t now_us)
{
    log_shape_add(&shape, text, strlen(text), now_us, &out);
}

static const char *text(void)
{
    return out.data ? out.data : "";
}

static uint32_t count(const char *needle)
{
    uint32_t found = 0;

    for (const char *at = strstr(text(), needle); at != NULL; at = strstr(at + 1, needle))
        found++;
    return found;
}

static void test_output_passes_as_it_comes(void **state)
{
    (void)state;
    add("Epoch 1", SECOND);
    assert_string_equal(text(), "Epoch 1"); /* no newline yet: a prompt is seen at once */
    add(" done\n10%\r20%\r\n\n", SECOND);
    add("last", SECOND);
    log_shape_end(&shape, &out);
    assert_string_equal(text(), "Epoch 1 done\n10%\r20%\r\n\nlast");
}

/* However the pipe cuts it: the same is kept. */
static void test_a_long_line_is_cut_and_the_next_is_whole(void **state)
{
    size_t size = (size_t)10 << 20;
    char *line = mem_new(size + 8, 1);

    memset(line, 'x', size);
    memcpy(line + size, "\nnext\n", 7);
    (void)state;
    for (size_t step = 1000; step < 3 * size; step = step * 37 + 1) {
        buf_clear(&out);
        log_shape_init(&shape, &budget);
        for (size_t at = 0; at < size + 6; at += step) {
            size_t left = size + 6 - at;
            log_shape_add(&shape, line + at, left < step ? left : step, SECOND, &out);
        }
        assert_int_equal(strspn(text(), "x"), LOG_SHAPE_LINE);
        assert_string_equal(text() + LOG_SHAPE_LINE, " [sheaf: line cut at 16 KiB]\nnext\n");
    }
    free(line);
}

static void test_progress_bars_are_not_one_long_line(void **state)
{
    (void)state;
    for (int i = 0; i < 3000; i++)
        add("progress\r", i * SECOND);
    assert_int_equal(out.length, 3000 * 9);
}

/* 10,000 lines a second for 20 s: a fifth is kept, every gap is told, the sum is right. */
static void test_a_flood_is_throttled_with_gaps(void **state)
{
    uint64_t kept;
    uint64_t told = 0;

    (void)state;
    for (int i = 0; i < 200000; i++)
        add("spam\n", SECOND + i * 100);
    log_shape_end(&shape, &out);
    kept = count("spam\n");
    assert_in_range(kept, LOG_SHAPE_BURST, LOG_SHAPE_BURST + 20 * LOG_SHAPE_RATE);
    assert_in_range(count("[sheaf: gap: "), 5, 40); /* and the markers are no flood */
    for (const char *at = strstr(text(), "gap: "); at != NULL; at = strstr(at + 1, "gap: "))
        told += strtoull(at + 5, NULL, 10);
    assert_int_equal(kept + told, 200000);
    /* Who prints at that rate no more is heard at once. */
    buf_clear(&out);
    add("calm\n", 60 * SECOND);
    assert_string_equal(text(), "calm\n");
}

static void test_the_budget_is_one_for_all_streams(void **state)
{
    struct log_shape other;
    char line[1001];

    (void)state;
    memset(line, 'y', 999);
    memcpy(line + 999, "\n", 2);
    budget.left = 2500;
    log_shape_init(&other, &budget);
    for (int i = 0; i < 5; i++)
        add(line, SECOND);
    assert_int_equal(budget.left, 0);
    assert_int_equal(count("truncated"), 1);
    assert_in_range(out.length, 2500, 2600);
    buf_clear(&out);
    log_shape_add(&other, "error\n", 6, SECOND, &out);
    log_shape_add(&other, "error\n", 6, SECOND, &out);
    log_shape_end(&other, &out);
    assert_int_equal(count("error"), 0);
    assert_int_equal(count("truncated"), 1);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_output_passes_as_it_comes),
        CASE(test_a_long_line_is_cut_and_the_next_is_whole),
        CASE(test_progress_bars_are_not_one_long_line),
        CASE(test_a_flood_is_throttled_with_gaps),
        CASE(test_the_budget_is_one_for_all_streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
