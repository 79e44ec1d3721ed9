#ifndef SHEAF_CLI_TABLE_H
#define SHEAF_CLI_TABLE_H

/*
 * Lists of JSON objects as aligned tables, or in the machine formats of -o. A column is a path into
 * the object and a way to print it; the same rows serve every format.
 */
#include <jansson.h>
#include <stdbool.h>

#include "common/pure/buf.h"

enum cell {
    CELL_TEXT,
    CELL_NUMBER,
    CELL_MONEY, /* decimal string, right aligned */
    CELL_AGE,   /* RFC 3339 → "3m" */
    CELL_STATE, /* symbol and tone */
    CELL_MIB,   /* "24 GB"-like */
    CELL_RTT,   /* microseconds → "2.1 ms" */
    CELL_BOOL,
    CELL_ID,   /* first 13 characters of a UUID, whole with -o wide */
    CELL_LIST, /* array of texts, joined by "," */
};

struct column {
    const char *header;
    const char *key; /* "spec.nodes": dots walk objects */
    enum cell cell;
    bool wide; /* only with -o wide */
    bool name; /* what -o name prints */
};

/* Prints per term.format. columns ends with a NULL header. empty is what a table says of no rows.
 */
void table_print(const json_t *items, const struct column *columns, const char *empty);
/* One object in the machine formats; false when the format is a table (then the caller draws). */
bool table_machine(const json_t *object, const char *name_key);
/* Text of one cell, without colour. */
void cell_format(const json_t *object, const struct column *column, bool wide, struct buf *out);
/* Breaks text at blanks into lines of `width` columns, each indented; width 0 = one line. Ends with
 * a line feed. A word longer than a line stands alone.
 */
void text_wrap(const char *text, unsigned indent, unsigned width, struct buf *out);
/* Value at a dotted path; NULL if absent. */
const json_t *json_at(const json_t *object, const char *path);
/* Text at a dotted path; "" if absent or null. */
const char *json_text_at(const json_t *object, const char *path);
json_int_t json_int_at(const json_t *object, const char *path);
/* "3m ago"-style age of an RFC 3339 time; "-" for null. */
void age_format(const char *time, struct buf *out);
/* Microseconds since 1970 of an RFC 3339 UTC time; 0 for anything else. */
long long time_parse(const char *time);

#endif
