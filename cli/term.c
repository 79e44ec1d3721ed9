#include "cli/term.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/pure/exit_code.h"

struct term term;

bool term_format_parse(const char *name, enum output_format *ret_format)
{
    static const char *const names[] = {"table", "wide", "json", "yaml", "jsonl", "name"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], name) == 0) {
            *ret_format = (enum output_format)i;
            return true;
        }
    }
    return false;
}

/* A terminal that knows more than to go on. */
static bool is_able(int fd)
{
    const char *kind = getenv("TERM");

    return isatty(fd) && kind != NULL && kind[0] != '\0' && strcmp(kind, "dumb") != 0;
}

static bool wants_color(int fd, const char *color)
{
    const char *force = getenv("CLICOLOR_FORCE");
    const char *none = getenv("NO_COLOR");

    if (strcmp(color, "always") == 0)
        return true;
    if (strcmp(color, "never") == 0 || (none != NULL && none[0] != '\0'))
        return false;
    if (force != NULL && force[0] != '\0' && strcmp(force, "0") != 0)
        return true;
    return is_able(fd);
}

void term_init(const char *color)
{
    struct winsize size = {0};

    term.color = wants_color(STDOUT_FILENO, color);
    term.color_err = wants_color(STDERR_FILENO, color);
    /* A line that is written over needs a terminal that can. */
    term.progress = is_able(STDERR_FILENO);
    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
        term.width = size.ws_col;
}

bool term_reader_left(void)
{
    struct pollfd poll_out = {.fd = STDOUT_FILENO};

    return poll(&poll_out, 1, 0) == 1 && (poll_out.revents & POLLERR) != 0;
}

int term_finish(int code)
{
    bool failed = fflush(stdout) != 0;
    int saved = errno;

    if (!failed && !ferror(stdout))
        return code;
    if ((failed && saved == EPIPE) || term_reader_left())
        return code;
    fprintf(stderr, "error: standard output could not be written%s%s\n", failed ? ": " : "",
            failed ? strerror(saved) : "");
    return code == EXIT_OK ? EXIT_USAGE : code;
}

static void on_interrupt(int number)
{
    (void)number;
    term.interrupted = 1;
}

void term_catch_interrupt(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGALRM, &action, NULL); /* a deadline ends a stream the same way */
}

const char *tone_on(enum tone tone, bool color)
{
    static const char *const codes[] = {"",         "\033[32m", "\033[31m",
                                        "\033[33m", "\033[2m",  "\033[1m"};

    return color ? codes[tone] : "";
}

const char *tone_off(enum tone tone, bool color)
{
    return color && tone != TONE_PLAIN ? "\033[0m" : "";
}

struct look {
    const char *state;
    enum tone tone;
    const char *symbol;
};

static const struct look looks[] = {
    {"queued", TONE_DIM, "○"},    {"preparing", TONE_BUSY, "◔"},  {"starting", TONE_BUSY, "◑"},
    {"running", TONE_GOOD, "●"},  {"recovering", TONE_BUSY, "↻"}, {"preempting", TONE_BUSY, "◐"},
    {"suspended", TONE_DIM, "‖"}, {"stopping", TONE_BUSY, "◕"},   {"succeeded", TONE_GOOD, "✓"},
    {"failed", TONE_BAD, "✗"},    {"cancelled", TONE_DIM, "⊘"},   {"expired", TONE_BAD, "⌛"},
    {"rejected", TONE_BAD, "✗"},  {"ready", TONE_GOOD, "●"},      {"joining", TONE_BUSY, "◔"},
    {"probing", TONE_BUSY, "◑"},  {"draining", TONE_BUSY, "◐"},   {"drained", TONE_DIM, "‖"},
    {"gone", TONE_DIM, "⊘"},      {"exited", TONE_DIM, "◕"},      {"done", TONE_GOOD, "✓"},
    {"lost", TONE_BAD, "✗"},      {"assigned", TONE_DIM, "○"},    {"started", TONE_GOOD, "●"},
};

static const struct look *look_of(const char *state)
{
    static const struct look plain = {"", TONE_PLAIN, "·"};

    for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++) {
        if (strcmp(looks[i].state, state) == 0)
            return &looks[i];
    }
    return &plain;
}

enum tone tone_of_state(const char *state)
{
    return look_of(state)->tone;
}

const char *symbol_of_state(const char *state)
{
    return look_of(state)->symbol;
}

bool term_confirm(const char *question)
{
    char answer[16];

    if (term.yes)
        return true;
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return false;
    fprintf(stderr, "%s [y/N] ", question);
    fflush(stderr);
    if (fgets(answer, sizeof(answer), stdin) == NULL)
        return false;
    return answer[0] == 'y' || answer[0] == 'Y';
}

void term_status(const char *format, ...)
{
    va_list args;

    if (!term.progress)
        return;
    fputs("\r\033[K", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fflush(stderr);
}

void term_status_clear(void)
{
    if (term.progress) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}

/* Length of the control character at `text`, 0 for anything else: C0, DEL, and C1 in UTF-8. */
static size_t control_length(const char *text, size_t length)
{
    unsigned char first = (unsigned char)text[0];

    if (first == '\n' || first == '\t' || first == '\r')
        return 0;
    if (first < 0x20 || first == 0x7f)
        return 1;
    if (first == 0xc2 && length > 1 && (unsigned char)text[1] >= 0x80
        && (unsigned char)text[1] <= 0x9f)
        return 2;
    return 0;
}

void term_escape(const char *text, size_t length, struct buf *out)
{
    size_t plain = 0;

    for (size_t i = 0; i < length;) {
        size_t control = control_length(text + i, length - i);

        if (control == 0) {
            i++;
            continue;
        }
        buf_append(out, text + plain, i - plain);
        buf_printf(out, "\\x%02x", (unsigned char)text[i + control - 1]);
        i += control;
        plain = i;
    }
    buf_append(out, text + plain, length - plain);
}

void term_put(FILE *file, const char *text, size_t length)
{
    struct buf shown;

    if (!isatty(fileno(file))) {
        (void)fwrite(text, 1, length, file);
        return;
    }
    buf_init(&shown, 0);
    term_escape(text, length, &shown);
    (void)fwrite(shown.data, 1, shown.length, file);
    buf_fini(&shown);
}
