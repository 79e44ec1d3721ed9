#ifndef SHEAF_CLI_COMMAND_H
#define SHEAF_CLI_COMMAND_H

/*
 * The command table: one row per verb. Help, man page and completion are made from it, so that they
 * cannot disagree with what runs. Exit codes are part of the interface.
 */
#include <stdbool.h>
#include <stddef.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"
#include "common/pure/exit_code.h"

#define OPTION_MAX 16

struct option_row {
    const char *name;    /* "rank": --rank */
    char letter;         /* 'f' or 0 */
    const char *metavar; /* NULL = a switch */
    const char *help;
};

/* Parsed command line of one verb. Values are borrowed from argv; NULL = not given, "" = a switch.
 */
struct args {
    const struct command *command;
    const char *value[OPTION_MAX]; /* by index in command->options */
    char **words;                  /* positional */
    int word_count;
    char **rest; /* after "--"; NULL = no "--" */
    int rest_count;
};

struct command {
    const char *name;  /* "node drain": up to three words */
    const char *group; /* heading in the help */
    const char *usage; /* "JOB [--rank N]" */
    const char *summary;
    const char *detail; /* paragraphs for --help and the man page; NULL = none */
    struct option_row options[OPTION_MAX];
    int min_words;
    int max_words;        /* -1 = any */
    bool rest;            /* takes words after "--" */
    const char *complete; /* what a word is: "job", "node", "file", or NULL */
    int (*run)(const struct args *args);
};

extern const struct command commands[]; /* ended by a NULL name */

/* Value of an option; NULL when absent. BUG for a name that is not in the row. */
const char *args_get(const struct args *args, const char *name);
bool args_has(const struct args *args, const char *name);
/* A whole number in [min, max], or fallback when absent. ERR_USAGE. */
int args_int(const struct args *args, const char *name, long min, long max, long fallback,
             long *ret_value, struct err *err) SHEAF_MUST_USE;

/* Global options (-o, --context, …) and the verb; then its options. ERR_USAGE with a suggestion. */
int command_parse(int argc, char **argv, struct args *ret_args, struct err *err) SHEAF_MUST_USE;
void args_fini(struct args *args);

/* The 12-line first help; the full list; one verb; the man page (roff); bash completion. */
void help_first(struct buf *out);
void help_all(struct buf *out);
void help_command(const struct command *command, struct buf *out);
void help_man(struct buf *out);
void help_completion_bash(struct buf *out);

/* Reports err on stderr as what, why, next step; returns the exit code for it. */
int command_fail(const struct err *err);

#endif
