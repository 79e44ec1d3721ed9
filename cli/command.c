#include "cli/command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/term.h"
#include "common/pure/mem.h"
#include "common/pure/nearest.h"
#include "common/pure/utf8.h"

const char *args_get(const struct args *args, const char *name)
{
    for (int i = 0; i < OPTION_MAX && args->command->options[i].name != NULL; i++) {
        if (strcmp(args->command->options[i].name, name) == 0)
            return args->value[i];
    }
    err_bug(__FILE__, __LINE__, name);
}

bool args_has(const struct args *args, const char *name)
{
    return args_get(args, name) != NULL;
}

int args_int(const struct args *args, const char *name, long min, long max, long fallback,
             long *ret_value, struct err *err)
{
    const char *text = args_get(args, name);
    char *end;

    if (text == NULL) {
        *ret_value = fallback;
        return 0;
    }
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || *text == '\0' || *end != '\0' || value < min || value > max)
        return err_set(err, ERR_USAGE, "--%s wants a whole number from %ld to %ld, not '%s'", name,
                       min, max, text);
    *ret_value = value;
    return 0;
}

/* Longest match first: "admin project ls" before "admin". Returns the words it used. */
static int find_command(int argc, char **argv, const struct command **ret_command)
{
    for (int words = argc < 3 ? argc : 3; words >= 1; words--) {
        char name[96];
        snprintf(name, sizeof(name), "%.30s%s%.30s%s%.30s", argv[0], words > 1 ? " " : "",
                 words > 1 ? argv[1] : "", words > 2 ? " " : "", words > 2 ? argv[2] : "");
        for (const struct command *c = commands; c->name != NULL; c++) {
            if (strcmp(c->name, name) == 0) {
                *ret_command = c;
                return words;
            }
        }
    }
    return 0;
}

#define NAME_MAX_WORDS 128 /* verbs, or options of one verb and global ones */

static int unknown_command(int argc, char **argv, struct err *err)
{
    const char *names[NAME_MAX_WORDS];
    size_t count = 0;
    size_t length = strlen(argv[0]);
    struct buf family;

    buf_init(&family, 160);
    for (const struct command *c = commands; c->name != NULL && count < NAME_MAX_WORDS; c++) {
        if (strncmp(c->name, argv[0], length) == 0 && c->name[length] == ' ')
            buf_printf(&family, "%s%s", family.length ? ", " : "", c->name);
        names[count++] = c->name;
    }
    const char *nearest = nearest_word(argv[0], names, count);
    if (family.length > 0) {
        err_set(err, ERR_USAGE, "'%s%s%s' is no command; there are: %s", argv[0],
                argc > 1 ? " " : "", argc > 1 ? argv[1] : "", family.data);
    } else if (nearest != NULL) {
        err_set(err, ERR_USAGE, "'%s' is no command; did you mean '%s'?", argv[0], nearest);
    } else {
        err_set(err, ERR_USAGE, "'%s' is no command; 'sheaf help' lists them", argv[0]);
    }
    buf_fini(&family);
    return -ERR_USAGE;
}

static const struct option_row globals[] = {
    {"output", 'o', "FORMAT", "table, wide, json, yaml, jsonl or name"},
    {"context", 0, "NAME", "server to talk to (sheaf context)"},
    {"project", 'p', "NAME", "project, where the token allows several"},
    {"yes", 'y', NULL, "answer yes to every question"},
    {"color", 0, "WHEN", "auto, always or never"},
    {"no-headers", 0, NULL, "tables without their first line"},
    {"help", 'h', NULL, "what this command does"},
};
#define GLOBAL_COUNT (sizeof(globals) / sizeof(globals[0]))

struct parse {
    const char *global[GLOBAL_COUNT];
    struct args args;
};

/* What is wrong with the line, and how it is written. */
SHEAF_PRINTF(3, 4)
static int refuse_line(const struct command *command, struct err *err, const char *format, ...)
{
    struct buf text;
    va_list args;

    buf_init(&text, sizeof(err->text) - 1);
    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    if (command != NULL)
        buf_printf(&text, "; usage: sheaf %s %s", command->name, command->usage);
    err_set(err, ERR_USAGE, "%s", text.data != NULL ? text.data : "");
    buf_fini(&text);
    return -ERR_USAGE;
}

static const struct option_row *row_by_name(const struct option_row *rows, size_t count,
                                            const char *name, size_t length)
{
    for (size_t i = 0; i < count && rows[i].name != NULL; i++) {
        if (strlen(rows[i].name) == length && strncmp(rows[i].name, name, length) == 0)
            return &rows[i];
    }
    return NULL;
}

static const struct option_row *row_by_letter(const struct option_row *rows, size_t count,
                                              char letter)
{
    for (size_t i = 0; i < count && rows[i].name != NULL; i++) {
        if (rows[i].letter == letter)
            return &rows[i];
    }
    return NULL;
}

static int unknown_option(const struct command *command, const char *word, struct err *err)
{
    const char *names[NAME_MAX_WORDS];
    size_t count = 0;
    char plain[64];

    snprintf(plain, sizeof(plain), "%.*s", (int)strcspn(word, "="), word);
    for (size_t i = 0; i < GLOBAL_COUNT; i++)
        names[count++] = globals[i].name;
    for (int i = 0; command != NULL && i < OPTION_MAX && command->options[i].name != NULL; i++)
        names[count++] = command->options[i].name;
    const char *nearest = nearest_word(plain + strspn(plain, "-"), names, count);
    return refuse_line(command, err, "unknown option '%s'%s%s%s", plain,
                       nearest ? "; did you mean '--" : "", nearest ? nearest : "",
                       nearest ? "'?" : "");
}

/* Stores one option; uses the next word as its value where the row wants one. */
static int take_option(struct parse *parse, char **argv, int argc, int *at, struct err *err)
{
    const struct command *command = parse->args.command;
    char *word = argv[*at];
    const struct option_row *row;
    const char *value = NULL;
    bool global = true;

    if (word[1] == '-') {
        size_t length = strcspn(word + 2, "=");
        row = row_by_name(globals, GLOBAL_COUNT, word + 2, length);
        if (row == NULL && command != NULL) {
            row = row_by_name(command->options, OPTION_MAX, word + 2, length);
            global = false;
        }
        if (word[2 + length] == '=')
            value = word + 2 + length + 1;
    } else {
        row = row_by_letter(globals, GLOBAL_COUNT, word[1]);
        if (row == NULL && command != NULL) {
            row = row_by_letter(command->options, OPTION_MAX, word[1]);
            global = false;
        }
        if (word[2] != '\0')
            value = word + 2;
    }
    if (row == NULL)
        return unknown_option(command, word, err);
    if (row->metavar == NULL && value != NULL)
        return refuse_line(command, err, "--%s takes no value", row->name);
    if (row->metavar != NULL && value == NULL) {
        if (*at + 1 >= argc)
            return refuse_line(command, err, "--%s wants %s", row->name, row->metavar);
        value = argv[++*at];
    }
    if (row->metavar != NULL && value[0] == '\0')
        return refuse_line(command, err, "--%s wants %s, not nothing", row->name, row->metavar);
    if (global)
        parse->global[row - globals] = value ? value : "";
    else
        parse->args.value[row - command->options] = value ? value : "";
    return 0;
}

static int apply_globals(const struct parse *parse, struct err *err)
{
    const char *format = parse->global[0];
    const char *color = parse->global[4] ? parse->global[4] : "auto";

    if (format != NULL && !term_format_parse(format, &term.format))
        return err_set(err, ERR_USAGE, "-o wants table, wide, json, yaml, jsonl or name, not '%s'",
                       format);
    if (strcmp(color, "auto") != 0 && strcmp(color, "always") != 0 && strcmp(color, "never") != 0)
        return err_set(err, ERR_USAGE, "--color wants auto, always or never, not '%s'", color);
    term.context = parse->global[1];
    term.project = parse->global[2];
    term.yes = parse->global[3] != NULL;
    term.no_headers = parse->global[5] != NULL;
    term_init(color);
    return 0;
}

static int check_words(const struct args *args, struct err *err)
{
    const struct command *c = args->command;

    if (args->word_count < c->min_words)
        return refuse_line(c, err, "%s: something is missing", c->name);
    if (c->max_words >= 0 && args->word_count > c->max_words)
        return refuse_line(c, err, "%s: '%.80s' is too much", c->name, args->words[c->max_words]);
    if (args->rest != NULL && !c->rest)
        return refuse_line(c, err, "%s takes nothing after --", c->name);
    return 0;
}

/* Words of the command line until the verb is known, then its options. */
static int parse_words(int argc, char **argv, struct parse *parse, struct err *err)
{
    struct args *args = &parse->args;
    int rc;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            args->rest = argv + i + 1;
            args->rest_count = argc - i - 1;
            break;
        }
        if (argv[i][0] == '-' && argv[i][1] != '\0') {
            rc = take_option(parse, argv, argc, &i, err);
            if (rc < 0)
                return rc;
        } else if (args->command == NULL) {
            int used = find_command(argc - i, argv + i, &args->command);
            if (used == 0)
                return unknown_command(argc - i, argv + i, err);
            i += used - 1;
        } else {
            args->words[args->word_count++] = argv[i];
        }
    }
    return 0;
}

int command_parse(int argc, char **argv, struct args *ret_args, struct err *err)
{
    struct parse parse = {0};
    int rc;

    parse.args.words = mem_new((size_t)argc + 1, sizeof(char *));
    rc = parse_words(argc, argv, &parse, err);
    if (rc == 0)
        rc = apply_globals(&parse, err);
    bool help = parse.global[6] != NULL;
    if (rc == 0 && parse.args.command != NULL && !help)
        rc = check_words(&parse.args, err);
    if (rc < 0) {
        args_fini(&parse.args);
        return rc;
    }
    if (help && parse.args.command != NULL) {
        struct buf text;
        buf_init(&text, 0);
        help_command(parse.args.command, &text);
        fputs(text.data, stdout);
        buf_fini(&text);
        exit(EXIT_OK);
    }
    *ret_args = parse.args;
    return 0;
}

void args_fini(struct args *args)
{
    free(args->words);
    *args = (struct args){0};
}

static void print_shown(const char *before, const char *text)
{
    struct buf shown;

    buf_init(&shown, 0);
    utf8_show(text, strlen(text), &shown);
    fprintf(stderr, "%s%s", before, shown.data != NULL ? shown.data : "");
    buf_fini(&shown);
}

int command_fail(const struct err *err)
{
    const struct err_info *info = err_info(err->code);

    term_status_clear();
    if (err->code == ERR_INTERRUPTED)
        return EXIT_INTERRUPTED;
    fprintf(stderr, "%serror:%s %s", tone_on(TONE_BAD, term.color_err),
            tone_off(TONE_BAD, term.color_err), info->title);
    /* Parts of it may be a server's words. */
    if (err->pointer[0] != '\0')
        print_shown(" at ", err->pointer);
    if (err->text[0] != '\0' && strcmp(err->text, info->title) != 0)
        print_shown(": ", err->text);
    fprintf(stderr, " (%s)\n  next: %s\n", info->slug, info->hint);
    return exit_code_of(err->code);
}
