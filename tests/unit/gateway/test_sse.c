#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/pure/utf8.h"
#include "orchestrator/gateway/sse.h"

static void test_an_event_is_framed_line_by_line(void **state)
{
    static const struct {
        const char *event;
        const char *id;
        const char *data;
        const char *wanted;
    } rows[] = {
        {"log", "1.0.1.7", "{}", "event: log\nid: 1.0.1.7\ndata: {}\n\n"},
        {NULL, NULL, "x", "data: x\n\n"},
        {"end", NULL, "", "event: end\ndata: \n\n"},
        {NULL, "3", "a\nb\r\nc\rd", "id: 3\ndata: a\ndata: b\ndata: c\ndata: d\n\n"},
        {NULL, NULL, "a\n", "data: a\ndata: \n\n"},
    };
    struct buf out;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        buf_init(&out, 0);
        sse_event(&out, rows[i].event, rows[i].id, rows[i].data);
        assert_string_equal(out.data, rows[i].wanted);
        buf_fini(&out);
    }
    buf_init(&out, 0);
    sse_comment(&out);
    assert_int_equal(out.data[0], ':');
    assert_string_equal(out.data + out.length - 2, "\n\n");
    buf_fini(&out);
}

static void test_program_output_becomes_utf8_wherever_it_is_cut(void **state)
{
    static const struct {
        const char *bytes;
        size_t length;
        const char *wanted;
    } rows[] = {
        {"plain\n", 6, "plain\n"},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"a\0b", 3,
         "a\xef\xbf\xbd"
         "b"},
        {"\xff\xfe", 2, "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\xaf", 2, "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82x", 3, "\xef\xbf\xbdx"},
        {"\xc3\xc3\xa9", 3, "\xef\xbf\xbd\xc3\xa9"},
        {"\xf4\x90\x80\x80", 4, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    struct buf out;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (size_t cut = 0; cut <= rows[i].length; cut++) {
            struct sse_carry carry = {.length = 0};
            buf_init(&out, 0);
            sse_text(&carry, rows[i].bytes, cut, &out);
            assert_true(utf8_is_valid(out.data != NULL ? out.data : "", out.length));
            sse_text(&carry, rows[i].bytes + cut, rows[i].length - cut, &out);
            assert_string_equal(out.data, rows[i].wanted);
            assert_int_equal(carry.length, 0);
            buf_fini(&out);
        }
    }
}

static void test_a_log_id_brings_every_stream_back_to_its_place(void **state)
{
    struct log_cursor cursors[4] = {
        {.rank = 0, .stream = 1, .next = 5},
        {.rank = 0, .stream = 2, .next = 0},
        {.rank = 1, .stream = 1, .next = 12},
        {.rank = 1, .stream = 2, .next = 1},
    };
    struct log_cursor again[4] = {
        {.rank = 0, .stream = 1},
        {.rank = 0, .stream = 2},
        {.rank = 1, .stream = 1},
        {.rank = 1, .stream = 2},
    };
    struct buf id;
    uint64_t epoch = 0;

    (void)state;
    buf_init(&id, 0);
    sse_log_id(&id, 3, cursors, 4, 2);
    assert_string_equal(id.data, "3.1.1.11,0.1.4,1.2.0");
    assert_true(sse_log_epoch(id.data, &epoch));
    assert_int_equal(epoch, 3);
    sse_log_resume(id.data, again, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(again[i].next, cursors[i].next);
    buf_fini(&id);
}

static void test_a_log_id_of_one_stream_is_four_numbers(void **state)
{
    struct log_cursor cursor = {.rank = 7, .stream = 2, .next = 1};
    struct buf id;

    (void)state;
    buf_init(&id, 0);
    sse_log_id(&id, 1, &cursor, 1, 0);
    assert_string_equal(id.data, "1.7.2.0");
    buf_fini(&id);
}

static void test_ids_that_are_not_ours_are_refused(void **state)
{
    static const char *const ids[] = {"", "x", "1", "1.2", "1.2.1", "-1.0.1.0", ".1.1.1", "1..1.1"};
    uint64_t epoch;

    (void)state;
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        assert_false(sse_log_epoch(ids[i], &epoch));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_event_is_framed_line_by_line),
        cmocka_unit_test(test_program_output_becomes_utf8_wherever_it_is_cut),
        cmocka_unit_test(test_a_log_id_brings_every_stream_back_to_its_place),
        cmocka_unit_test(test_a_log_id_of_one_stream_is_four_numbers),
        cmocka_unit_test(test_ids_that_are_not_ours_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
