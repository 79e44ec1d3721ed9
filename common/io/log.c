#include "common/io/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/pure/buf.h"

/* Longer lines are cut: one write(2) of a line must stay whole among other writers of the pipe. */
#define MAX_LINE 4096

static struct {
    const char *program;
    enum log_level level;
} sink = {"sheaf", LOG_INFO_LEVEL};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_open(const char *program, enum log_level level)
{
    sink.program = program;
    sink.level = level;
}

bool log_level_parse(const char *name, enum log_level *ret_level)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

/* Nothing foreign can end the value, the line, or speak to a terminal. */
static void escape(struct buf *line, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            buf_printf(line, "\\%c", c);
        else if (c == '\n')
            buf_puts(line, "\\n");
        else if (c < 0x20 || c == 0x7f)
            buf_printf(line, "\\x%02x", c);
        else
            buf_append(line, &text[i], 1);
    }
}

/* A text that is not inside LOG_Q gets quotes of its own where logfmt needs them. */
static void put_text(struct buf *line, const char *text, size_t length, bool quoted)
{
    bool plain = true;

    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f)
            plain = false;
    }
    if (quoted || plain) {
        escape(line, text, length);
        return;
    }
    buf_puts(line, "\"");
    escape(line, text, length);
    buf_puts(line, "\"");
}

/* One parsed conversion of a format. */
struct conversion {
    bool zero;
    int width;
    int precision; /* -1 = none */
    int size;      /* -2 hh, -1 h, 0, 1 l, 2 ll, 3 z, 4 j, 5 t */
    char type;
};

static const char *parse_size(const char *at, struct conversion *ret)
{
    for (;; at++) {
        switch (*at) {
        case 'h':
            ret->size--;
            break;
        case 'l':
            ret->size++;
            break;
        case 'z':
            ret->size = 3;
            break;
        case 'j':
            ret->size = 4;
            break;
        case 't':
            ret->size = 5;
            break;
        default:
            return at;
        }
    }
}

/* The list travels in a struct so that helpers may take from it (C17 §7.16). */
struct arguments {
    va_list list;
};

static const char *parse_conversion(const char *at, struct arguments *args, struct conversion *ret)
{
    *ret = (struct conversion){.precision = -1};
    for (; *at == '0' || *at == '-' || *at == '+' || *at == ' ' || *at == '#'; at++)
        ret->zero |= *at == '0';
    if (*at == '*') {
        ret->width = va_arg(args->list, int);
        at++;
    }
    for (; *at >= '0' && *at <= '9'; at++)
        ret->width = ret->width * 10 + (*at - '0');
    if (*at == '.') {
        at++;
        ret->precision = 0;
        if (*at == '*') {
            ret->precision = va_arg(args->list, int);
            at++;
        }
        for (; *at >= '0' && *at <= '9'; at++)
            ret->precision = ret->precision * 10 + (*at - '0');
    }
    at = parse_size(at, ret);
    ret->type = *at;
    return *at == '\0' ? at : at + 1;
}

static intmax_t take_signed(struct arguments *args, int size)
{
    /* NOLINTBEGIN(bugprone-branch-clone): distinct types that are equal on this machine */
    switch (size) {
    case 1:
        return va_arg(args->list, long);
    case 2:
        return va_arg(args->list, long long);
    case 3:
        return va_arg(args->list, ssize_t);
    case 4:
        return va_arg(args->list, intmax_t);
    case 5:
        return va_arg(args->list, ptrdiff_t);
    default:
        return va_arg(args->list, int);
    }
    /* NOLINTEND(bugprone-branch-clone) */
}

static uintmax_t take_unsigned(struct arguments *args, int size)
{
    /* NOLINTBEGIN(bugprone-branch-clone): as above */
    switch (size) {
    case 1:
        return va_arg(args->list, unsigned long);
    case 2:
        return va_arg(args->list, unsigned long long);
    case 3:
        return va_arg(args->list, size_t);
    case 4:
        return va_arg(args->list, uintmax_t);
    case 5:
        return (uintmax_t)va_arg(args->list, ptrdiff_t);
    default:
        return va_arg(args->list, unsigned);
    }
    /* NOLINTEND(bugprone-branch-clone) */
}

static void put_unsigned(struct buf *line, const struct conversion *how, uintmax_t value)
{
    bool hex = how->type == 'x' || how->type == 'X';

    if (how->zero && hex)
        buf_printf(line, "%0*jx", how->width, value);
    else if (how->zero)
        buf_printf(line, "%0*ju", how->width, value);
    else if (hex)
        buf_printf(line, "%*jx", how->width, value);
    else
        buf_printf(line, "%*ju", how->width, value);
}

static void put_conversion(struct buf *line, const struct conversion *how, struct arguments *args)
{
    switch (how->type) {
    case 'd':
    case 'i': {
        intmax_t value = take_signed(args, how->size);
        if (how->zero)
            buf_printf(line, "%0*jd", how->width, value);
        else
            buf_printf(line, "%*jd", how->width, value);
        break;
    }
    case 'u':
    case 'x':
    case 'X':
        put_unsigned(line, how, take_unsigned(args, how->size));
        break;
    case 'c': {
        char c = (char)va_arg(args->list, int);
        put_text(line, &c, 1, false);
        break;
    }
    case 'f':
    case 'g':
    case 'e':
        buf_printf(line, "%.*f", how->precision < 0 ? 6 : how->precision,
                   va_arg(args->list, double));
        break;
    case 'p':
        buf_printf(line, "%p", va_arg(args->list, void *));
        break;
    case 's': {
        const char *text = va_arg(args->list, const char *);
        if (text == NULL)
            text = "(null)";
        size_t length = how->precision < 0 ? strlen(text) : strnlen(text, (size_t)how->precision);
        bool quoted = line->length > 0 && line->data[line->length - 1] == '"';
        put_text(line, text, length, quoted);
        break;
    }
    case '%':
        buf_puts(line, "%");
        break;
    default:
        err_bug(__FILE__, __LINE__, "conversion that the log does not know");
    }
}

static void put_pairs(struct buf *line, const char *format, struct arguments *args)
{
    const char *at = format;

    while (*at != '\0') {
        size_t plain = strcspn(at, "%");
        buf_append(line, at, plain);
        at += plain;
        if (*at == '%') {
            struct conversion how;
            at = parse_conversion(at + 1, args, &how);
            put_conversion(line, &how, args);
        }
    }
}

void log_at(enum log_level level, const char *module, const char *event, const char *format, ...)
{
    struct arguments args;
    struct buf line;
    char when[32];

    if (level < sink.level)
        return;
    buf_init(&line, MAX_LINE);
    buf_printf(&line, "time=%s level=%s program=%s module=%s event=%s ",
               clock_format(clock_wall_us(), when), level_names[level], sink.program, module,
               event);
    va_start(args.list, format);
    put_pairs(&line, format, &args);
    va_end(args.list);
    if (line.full)
        line.length -= sizeof(" cut=true");
    while (line.length > 0 && line.data[line.length - 1] == ' ')
        line.length--;
    if (line.full) {
        line.full = false;
        buf_puts(&line, " cut=true");
    }
    line.limit = 0;
    buf_puts(&line, "\n");
    /* Nobody could be told that the log cannot be written. */
    if (write(STDERR_FILENO, line.data, line.length) < 0) {
    }
    buf_fini(&line);
}
