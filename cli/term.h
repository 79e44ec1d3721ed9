#ifndef SHEAF_CLI_TERM_H
#define SHEAF_CLI_TERM_H

/* The terminal: width, colour, questions, Ctrl-C. Progress goes to stderr, results to stdout. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/pure/buf.h"

enum output_format {
    OUTPUT_TABLE,
    OUTPUT_WIDE,
    OUTPUT_JSON,
    OUTPUT_YAML,
    OUTPUT_JSONL,
    OUTPUT_NAME,
};

/* Settings of this run, from the global options and the environment. Set once by command_parse. */
struct term {
    enum output_format format;
    bool color;     /* stdout */
    bool color_err; /* stderr */
    bool progress;  /* stderr is a terminal */
    bool no_headers;
    bool yes;
    unsigned width;           /* of stdout; 0 = not a terminal: never cut */
    const char *context;      /* --context, or NULL */
    const char *project;      /* --project, or NULL */
    volatile int interrupted; /* SIGINT came */
};
extern struct term term;

bool term_format_parse(const char *name, enum output_format *ret_format);
/* color: "auto", "always" or "never". Reads NO_COLOR and CLICOLOR_FORCE. */
void term_init(const char *color);
/* The last word on standard output: code, or EXIT_USAGE when it could not be written (disk full). A
 * reader that left is no failure of ours. */
int term_finish(int code);
/* Nobody reads standard output any more. */
bool term_reader_left(void);
/* From here on Ctrl-C sets term.interrupted instead of ending the program. */
void term_catch_interrupt(void);

enum tone { TONE_PLAIN, TONE_GOOD, TONE_BAD, TONE_BUSY, TONE_DIM, TONE_BOLD };
/* Escape sequence to begin and end a tone; "" without colour. State is never told by colour alone.
 */
const char *tone_on(enum tone tone, bool color);
const char *tone_off(enum tone tone, bool color);
/* How a job or node state looks. */
enum tone tone_of_state(const char *state);
const char *symbol_of_state(const char *state); /* "●", "✓", "✗", … */

/*
 * Prints what a stranger's program wrote. On a terminal its control characters are shown (\x1b), so
 * that it cannot move the cursor, change the title or answer for the person who looks; \n, \t and
 * \r (progress bars) do what they say.
 */
void term_put(FILE *file, const char *text, size_t length);
/* The same as text that is shown: appends to out. */
void term_escape(const char *text, size_t length, struct buf *out);

/* Asks y/N on the terminal. True with --yes; false when there is no terminal to ask on. */
bool term_confirm(const char *question);
/* One line on stderr that the next one replaces (on a terminal), else nothing. */
void term_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
void term_status_clear(void);

#endif
