#include "common/pure/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/utf8.h"

static const struct err_info rows[] = {
#define ERR(symbol, slug, number, http, actor, retry, title, hint)                                 \
    {ERR_##symbol, http, ERR_ACTOR_##actor, retry, slug, title, hint},
#include "common/pure/err_table.h"
#undef ERR
};

static const size_t row_count = sizeof(rows) / sizeof(rows[0]);

SHEAF_PRINTF(4, 0)
static void fill(struct err *err, enum err_code code, const char *pointer, const char *format,
                 va_list args)
{
    if (err == NULL)
        return;
    err->code = code;
    snprintf(err->pointer, sizeof(err->pointer), "%s", pointer);
    vsnprintf(err->text, sizeof(err->text), format, args);
    /* Both travel in JSON, also when a foreign text was cut inside a character. */
    utf8_repair(err->pointer);
    utf8_repair(err->text);
}

int err_set(struct err *err, enum err_code code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fill(err, code, "", format, args);
    va_end(args);
    return -(int)code;
}

int err_set_at(struct err *err, enum err_code code, const char *pointer, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fill(err, code, pointer, format, args);
    va_end(args);
    return -(int)code;
}

const struct err_info *err_info(enum err_code code)
{
    for (size_t i = 0; i < row_count; i++) {
        if (rows[i].code == code)
            return &rows[i];
    }
    return &rows[0];
}

enum err_code err_from_slug(const char *slug)
{
    for (size_t i = 0; i < row_count; i++) {
        if (strcmp(rows[i].slug, slug) == 0)
            return rows[i].code;
    }
    return ERR_NONE;
}

const char *err_slug(enum err_code code)
{
    return code == ERR_NONE ? "" : err_info(code)->slug;
}

const char *err_actor_name(enum err_actor actor)
{
    static const char *const names[] = {"none", "tenant", "provider", "operator", "platform"};

    return (size_t)actor < sizeof(names) / sizeof(names[0]) ? names[actor] : "none";
}

const struct err_info *err_row(size_t index)
{
    return index < row_count ? &rows[index] : NULL;
}

void err_bug(const char *file, int line, const char *what)
{
    fprintf(stderr, "BUG: %s:%d: %s\n", file, line, what);
    abort();
}
