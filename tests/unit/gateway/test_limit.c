#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/gateway/cursor.h"
#include "orchestrator/gateway/limit.h"

#define SECOND INT64_C(1000000)

static uint32_t take(struct limiter *limiter, const char *key, uint32_t cost, int64_t now_us)
{
    return limiter_take(limiter, key, strlen(key), cost, now_us);
}

static void test_a_bucket_holds_one_second_and_fills_steadily(void **state)
{
    struct limiter *limiter = limiter_new(100);

    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(take(limiter, "a", 1, SECOND), 0);
    assert_int_equal(take(limiter, "a", 1, SECOND), 1);
    assert_int_equal(take(limiter, "b", 1, SECOND), 0); /* another's bucket is another */
    assert_int_equal(take(limiter, "a", 1, SECOND + 9999), 1);
    assert_int_equal(take(limiter, "a", 1, SECOND + 10000), 0);
    assert_int_equal(take(limiter, "a", 1, SECOND + 10000), 1);
    for (int i = 0; i < 100; i++)
        assert_int_equal(take(limiter, "a", 1, 9 * SECOND), 0); /* no more than one second's */
    assert_int_equal(take(limiter, "a", 1, 9 * SECOND), 1);
    limiter_free(limiter);
}

static void test_dear_requests_take_more_and_are_never_refused_for_ever(void **state)
{
    struct limiter *limiter = limiter_new(5);

    (void)state;
    assert_int_equal(take(limiter, "a", 10, SECOND), 0); /* more than the bucket, from a full one */
    assert_int_equal(take(limiter, "a", 1, SECOND), 2);
    assert_int_equal(take(limiter, "a", 10, SECOND), 3);
    assert_int_equal(take(limiter, "a", 10, 3 * SECOND), 0);
    limiter_free(limiter);
}

static void test_no_rate_is_no_limit(void **state)
{
    struct limiter *limiter = limiter_new(0);

    (void)state;
    for (int i = 0; i < 100000; i++)
        assert_int_equal(take(limiter, "a", 1, 0), 0);
    assert_int_equal(limiter_keys(limiter), 0);
    limiter_free(limiter);
}

static void test_the_table_is_bounded_and_forgets_full_buckets(void **state)
{
    struct limiter *limiter = limiter_new(100);
    char key[16];
    uint32_t refused = 0;

    (void)state;
    for (int i = 0; i < 100000; i++) {
        snprintf(key, sizeof(key), "%d", i);
        refused += take(limiter, key, 1, SECOND) > 0;
    }
    assert_in_range(limiter_keys(limiter), 1, 32768);
    /* Strangers beyond it share a bucket; whoever is known keeps their own. */
    assert_true(refused > 0);
    assert_int_equal(take(limiter, "1", 1, SECOND), 0);
    assert_int_equal(take(limiter, "new", 1, 5 * SECOND), 0);
    assert_int_equal(limiter_keys(limiter), 1);
    limiter_free(limiter);
}

static void test_a_cursor_is_good_for_its_own_list_alone(void **state)
{
    static const uint8_t secret[CURSOR_KEY] = {1, 2, 3};
    static const uint8_t other[CURSOR_KEY] = {1, 2, 4};
    char text[CURSOR_TEXT];
    uint64_t key = 0;

    (void)state;
    (void)cursor_format(secret, "jobs of 1", 9, 77, text);
    assert_int_equal(strlen(text), CURSOR_TEXT - 1);
    assert_true(cursor_parse(secret, "jobs of 1", 9, text, &key));
    assert_int_equal(key, 77);
    assert_false(cursor_parse(secret, "jobs of 2", 9, text, &key));
    assert_false(cursor_parse(other, "jobs of 1", 9, text, &key));
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
        char was = text[i];
        text[i] = was == '0' ? '1' : '0';
        assert_false(cursor_parse(secret, "jobs of 1", 9, text, &key));
        text[i] = '\0';
        assert_false(cursor_parse(secret, "jobs of 1", 9, text, &key));
        text[i] = was;
    }
    assert_false(cursor_parse(secret, "jobs of 1", 9, "", &key));
    (void)cursor_format(secret, "x", 1, (uint64_t)INT64_MAX + 1, text);
    assert_false(cursor_parse(secret, "x", 1, text, &key)); /* no key of a row */
    assert_int_equal(key, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_bucket_holds_one_second_and_fills_steadily),
        cmocka_unit_test(test_dear_requests_take_more_and_are_never_refused_for_ever),
        cmocka_unit_test(test_no_rate_is_no_limit),
        cmocka_unit_test(test_the_table_is_bounded_and_forgets_full_buckets),
        cmocka_unit_test(test_a_cursor_is_good_for_its_own_list_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
