#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"
#include "common/pure/id.h"
#include "common/pure/map.h"
#include "common/pure/money.h"
#include "common/pure/units.h"

static void test_error_table_has_unique_slugs_and_numbers(void **state)
{
    (void)state;
    for (size_t i = 0; err_row(i) != NULL; i++) {
        const struct err_info *row = err_row(i);
        assert_int_equal(err_from_slug(row->slug), row->code);
        assert_ptr_equal(err_info(row->code), row);
        assert_true(row->hint[0] != '\0');
    }
}

static void test_money_reads_decimals_exactly(void **state)
{
    static const struct {
        const char *text;
        micro_t amount; /* -1 = refused */
    } cases[] = {
        {"2.40", 2400000},    {"0", 0},
        {"0.000001", 1},      {"900", 900000000},
        {"1.2345678", -1},    {"", -1},
        {".5", -1},           {"5.", -1},
        {"-1", -1},           {"1e3", -1},
        {"1 ", -1},           {"1000000000", MICRO_MAX},
        {"1000000000.1", -1}, {"99999999999999999999", -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        micro_t amount = -1;
        int rc = money_parse(cases[i].text, &amount);
        assert_int_equal(amount, cases[i].amount);
        assert_int_equal(rc, cases[i].amount < 0 ? -ERR_INVALID_AMOUNT : 0);
    }
}

static void test_money_formats_two_to_six_places(void **state)
{
    char text[MONEY_TEXT];

    (void)state;
    assert_string_equal(money_format(2400000, text), "2.40");
    assert_string_equal(money_format(-1, text), "-0.000001");
    assert_string_equal(money_format(1234500, text), "1.2345");
    assert_string_equal(money_format(INT64_MIN, text), "-9223372036854.775808");
}

static void test_cumulative_bill_never_drifts(void **state)
{
    micro_t rate = 1999999; /* per hour, does not divide */
    micro_t sum = 0;

    (void)state;
    for (uint64_t ms = 0; ms < 3600000; ms += 777)
        sum += money_bill(rate, ms + 777) - money_bill(rate, ms);
    assert_int_equal(sum, money_bill(rate, (3600000 + 776) / 777 * 777));
    assert_int_equal(money_bill(rate, 3600000), rate);
    assert_true(money_hold(rate, 1) >= money_bill(rate, 1));
    assert_int_equal(money_bill(MICRO_MAX, UINT64_MAX), MICRO_MAX);
}

static void test_quantities_need_a_unit(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
        int rc;
    } cases[] = {
        {"24GB", 24000000000u, 0},          {"80GiB", (uint64_t)80 << 30, 0},
        {"1.5GiB", 1610612736u, 0},         {"0", 0, 0},
        {"80", 0, -ERR_INVALID_QUANTITY},   {"80 GB", 0, -ERR_INVALID_QUANTITY},
        {"80gb", 0, -ERR_INVALID_QUANTITY}, {"1e3GiB", 0, -ERR_INVALID_QUANTITY},
        {"-1GB", 0, -ERR_INVALID_QUANTITY}, {"99999999999TB", 0, -ERR_INVALID_QUANTITY},
        {"0.5B", 0, -ERR_INVALID_QUANTITY},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 0;
        assert_int_equal(units_parse_bytes(cases[i].text, &bytes), cases[i].rc);
        assert_int_equal(bytes, cases[i].bytes);
    }
    uint64_t us = 0;
    assert_int_equal(units_parse_duration("2.5ms", &us), 0);
    assert_int_equal(us, 2500);
    assert_int_equal(units_parse_duration("5 fortnights", &us), -ERR_INVALID_QUANTITY);
}

static void test_uuid_is_version_7_and_round_trips(void **state)
{
    static const uint8_t random[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    char text[UUID_TEXT];
    struct uuid id = uuid_make(1700000000000u, random);
    struct uuid back;

    (void)state;
    uuid_format(&id, text);
    assert_int_equal(text[14], '7');
    assert_int_equal(uuid_parse(text, &back), 0);
    assert_int_equal(uuid_compare(&id, &back), 0);
    assert_int_equal(uuid_parse("not-a-uuid", &back), -ERR_INVALID_ID);
    assert_int_equal(uuid_parse("0190163d-8694-739b-aea5-966c26f8ad9", &back), -ERR_INVALID_ID);
}

static void test_map_survives_many_puts_and_removals(void **state)
{
    struct map map;
    static char values[2000];

    (void)state;
    map_init(&map);
    for (uint64_t i = 0; i < 2000; i++)
        map_put_id(&map, i * 7919, &values[i]);
    for (uint64_t i = 0; i < 2000; i += 3)
        assert_ptr_equal(map_remove_id(&map, i * 7919), &values[i]);
    for (uint64_t i = 0; i < 2000; i++)
        assert_ptr_equal(map_get_id(&map, i * 7919), i % 3 == 0 ? NULL : &values[i]);
    assert_int_equal(map.count, 2000 - 667);
    map_fini(&map);
}

static void test_buf_keeps_its_limit(void **state)
{
    struct buf buf;

    (void)state;
    buf_init(&buf, 10);
    buf_puts(&buf, "12345");
    buf_printf(&buf, "%s", "678901");
    assert_true(buf.full);
    assert_string_equal(buf.data, "1234567890");
    buf_drop(&buf, 9);
    assert_string_equal(buf.data, "0");
    buf_fini(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_table_has_unique_slugs_and_numbers),
        cmocka_unit_test(test_money_reads_decimals_exactly),
        cmocka_unit_test(test_money_formats_two_to_six_places),
        cmocka_unit_test(test_cumulative_bill_never_drifts),
        cmocka_unit_test(test_quantities_need_a_unit),
        cmocka_unit_test(test_uuid_is_version_7_and_round_trips),
        cmocka_unit_test(test_map_survives_many_puts_and_removals),
        cmocka_unit_test(test_buf_keeps_its_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
