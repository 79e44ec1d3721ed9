#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/api.h"
#include "cli/command.h"
#include "cli/table.h"
#include "cli/term.h"

#define MAX_WORDS 16

/* Parses a command line given as words separated by spaces. */
static int parse(const char *line, struct args *ret_args, struct err *err)
{
    static char text[512];
    static char *argv[MAX_WORDS + 1];
    int argc = 0;
    char *save = NULL;

    snprintf(text, sizeof(text), "sheaf %s", line);
    for (char *word = strtok_r(text, " ", &save); word != NULL && argc < MAX_WORDS;
         word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    argv[argc] = NULL;
    return command_parse(argc, argv, ret_args, err);
}

static void test_the_longest_verb_wins(void **state)
{
    static const struct {
        const char *line;
        const char *verb;
        int words;
    } cases[] = {
        {"ps", "ps", 0},
        {"node ls", "node ls", 0},
        {"node drain n1 --reason=fan", "node drain", 1},
        {"admin project create demo", "admin project create", 1},
        {"-o json show abc", "show", 1},
        {"get abc --rank 2 out", "get", 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct args args;
        struct err err;
        assert_int_equal(parse(cases[i].line, &args, &err), 0);
        assert_string_equal(args.command->name, cases[i].verb);
        assert_int_equal(args.word_count, cases[i].words);
        args_fini(&args);
    }
}

static void test_a_wrong_word_is_refused_with_the_nearest_right_one(void **state)
{
    static const struct {
        const char *line;
        const char *says;
    } cases[] = {
        {"aply", "apply"},
        {"node", "node ls"},
        {"logs x --rnak 1", "rank"},
        {"logs", "usage: sheaf logs"},
        {"ps extra", "too much"},
        {"ps -o xml", "table"},
        {"wait x --timeout", "TIME"},
        {"ps --all=yes", "takes no value"},
        {"logs x --rank=", "not nothing"},
        {"show x -- y", "takes nothing after"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct args args;
        struct err err;
        assert_int_equal(parse(cases[i].line, &args, &err), -ERR_USAGE);
        assert_non_null(strstr(err.text, cases[i].says));
    }
}

static void test_words_after_two_dashes_are_the_command(void **state)
{
    struct args args;
    struct err err;

    (void)state;
    assert_int_equal(parse("run --nodes 4 --gpu 24GB:2 -- python train.py --lr 1", &args, &err), 0);
    assert_int_equal(args.rest_count, 4);
    assert_string_equal(args.rest[2], "--lr");
    assert_string_equal(args_get(&args, "nodes"), "4");
    args_fini(&args);
}

static void test_every_verb_has_help_and_stands_in_man_page_and_completion(void **state)
{
    struct buf man;
    struct buf completion;

    (void)state;
    buf_init(&man, 0);
    buf_init(&completion, 0);
    help_man(&man);
    help_completion_bash(&completion);
    for (const struct command *c = commands; c->name != NULL; c++) {
        char line[128];
        assert_non_null(c->run);
        assert_true(strlen(c->summary) > 5);
        snprintf(line, sizeof(line), ".SS \"sheaf %s ", c->name);
        assert_non_null(strstr(man.data, line));
        snprintf(line, sizeof(line), "%s|", c->name);
        assert_non_null(strstr(completion.data, line));
    }
    buf_fini(&man);
    buf_fini(&completion);
}

static void test_exit_codes_follow_the_error(void **state)
{
    (void)state;
    assert_int_equal(exit_code_of(ERR_INSUFFICIENT_FUNDS), EXIT_FUNDS);
    assert_int_equal(exit_code_of(ERR_NOT_FOUND), EXIT_NOT_FOUND);
    assert_int_equal(exit_code_of(ERR_UNKNOWN_FIELD), EXIT_USAGE);
    assert_int_equal(exit_code_of(ERR_ALREADY_TERMINAL), EXIT_REFUSED);
    assert_int_equal(exit_code_of(ERR_UNREACHABLE), EXIT_UNREACHABLE);
    assert_int_equal(exit_code_of(ERR_TOKEN_INVALID), EXIT_AUTH);
    assert_int_equal(exit_code_of(ERR_NETWORK_TOO_FAR), EXIT_CAPACITY);
}

struct seen {
    char events[256];
};

static bool collect(const struct sse_event *event, void *arg)
{
    struct seen *seen = arg;
    size_t used = strlen(seen->events);

    snprintf(seen->events + used, sizeof(seen->events) - used, "[%s %s %s]", event->event,
             event->id, event->data);
    return strcmp(event->event, "end") != 0;
}

static void test_an_event_stream_reads_the_same_however_it_is_cut(void **state)
{
    static const char stream[] = ": hello\n\nid: 7\nevent: log\ndata: a\ndata: b\n\n"
                                 "data:c\r\n\r\nevent: end\ndata: {}\n\nevent: late\ndata: x\n\n";
    static const char expected[] = "[log 7 a\nb][message 7 c][end 7 {}]";

    (void)state;
    for (size_t cut = 0; cut < sizeof(stream) - 1; cut++) {
        struct sse_parser parser = {0};
        struct seen seen = {""};
        bool more = sse_feed(&parser, stream, cut, collect, &seen);
        if (more)
            sse_feed(&parser, stream + cut, sizeof(stream) - 1 - cut, collect, &seen);
        assert_string_equal(seen.events, expected);
        buf_fini(&parser.line);
        buf_fini(&parser.data);
    }
}

static void test_cells_show_units_ages_and_lists(void **state)
{
    static const struct {
        struct column column;
        const char *text;
    } cases[] = {
        {{"", "rtt", CELL_RTT, false, false}, "2.1 ms"},
        {{"", "mib", CELL_MIB, false, false}, "1 GiB"},
        {{"", "list", CELL_LIST, false, false}, "a,b"},
        {{"", "deep.name", CELL_TEXT, false, false}, "x"},
        {{"", "absent", CELL_TEXT, false, false}, "-"},
        {{"", "id", CELL_ID, false, false}, "01935b2c-1d5e"},
        {{"", "yes", CELL_BOOL, false, false}, "yes"},
    };
    json_t *object =
        json_pack("{s:i, s:i, s:[s, s], s:{s:s}, s:s, s:b}", "rtt", 2100, "mib", 1024, "list", "a",
                  "b", "deep", "name", "x", "id", "01935b2c-1d5e-7000-8000-000000000000", "yes", 1);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf buf;
        buf_init(&buf, 0);
        cell_format(object, &cases[i].column, false, &buf);
        assert_string_equal(buf.data, cases[i].text);
        buf_fini(&buf);
    }
    json_decref(object);
    assert_int_equal(time_parse("1970-01-02T00:00:01.250Z"), 86401250000LL);
}

static void test_long_text_is_wrapped_to_the_terminal(void **state)
{
    static const struct {
        const char *text;
        unsigned width;
        const char *wrapped;
    } cases[] = {
        {"one two  three", 0, "  one two three\n"},
        {"one two three", 9, "  one two\n  three\n"},
        {"é é é", 5, "  é é\n  é\n"},
        {"unbreakable x", 6, "  unbreakable\n  x\n"},
        {"", 10, "\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf buf;
        buf_init(&buf, 0);
        text_wrap(cases[i].text, 2, cases[i].width, &buf);
        assert_string_equal(buf.data, cases[i].wrapped);
        buf_fini(&buf);
    }
}

/* What a job prints must not steer the terminal of who looks at it. */
static void test_control_characters_are_shown(void **state)
{
    static const struct {
        const char *text;
        const char *shown;
    } cases[] = {
        {"plain\ttext\r\n", "plain\ttext\r\n"},     {"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"},
        {"\x1b]0;title\x07", "\\x1b]0;title\\x07"}, {"back\x08space\x7f", "back\\x08space\\x7f"},
        {"c1 \xc2\x9b\x32J", "c1 \\x9b\x32J"},      {"é \xc2\xa0 ok \xc2", "é \xc2\xa0 ok \xc2"},
    };
    struct buf out;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        buf_init(&out, 0);
        term_escape(cases[i].text, strlen(cases[i].text), &out);
        assert_string_equal(out.data, cases[i].shown);
        buf_fini(&out);
    }
    buf_init(&out, 0);
    term_escape("a\0b", 3, &out);
    assert_string_equal(out.data, "a\\x00b");
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_longest_verb_wins),
        cmocka_unit_test(test_a_wrong_word_is_refused_with_the_nearest_right_one),
        cmocka_unit_test(test_words_after_two_dashes_are_the_command),
        cmocka_unit_test(test_every_verb_has_help_and_stands_in_man_page_and_completion),
        cmocka_unit_test(test_exit_codes_follow_the_error),
        cmocka_unit_test(test_an_event_stream_reads_the_same_however_it_is_cut),
        cmocka_unit_test(test_cells_show_units_ages_and_lists),
        cmocka_unit_test(test_long_text_is_wrapped_to_the_terminal),
        cmocka_unit_test(test_control_characters_are_shown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
