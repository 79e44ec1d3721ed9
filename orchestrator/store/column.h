#ifndef SHEAF_ORCHESTRATOR_STORE_COLUMN_H
#define SHEAF_ORCHESTRATOR_STORE_COLUMN_H

/*
 * One const table of columns per row kind: what writes a row and what reads it back. A new field is
 * one line here, one in row.h and one in a migration. Values travel in PostgreSQL's binary formats.
 */
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/err.h"
#include "orchestrator/core/row.h"

enum column_type {
    COLUMN_I64,       /* int64_t, micro_t */
    COLUMN_I64_NULL,  /* int64_t, uint64_t: ids and times, 0 = NULL */
    COLUMN_U64,       /* beyond INT64_MAX turns negative, which the table's CHECK refuses */
    COLUMN_U32,       /* uint32_t */
    COLUMN_I32,       /* int32_t */
    COLUMN_BOOL,      /* bool */
    COLUMN_UUID,      /* struct uuid */
    COLUMN_UUID_NULL, /* nil = NULL */
    COLUMN_BYTES,     /* uint8_t[size] */
    COLUMN_BYTES_PTR, /* const uint8_t *, length in the uint32_t at offset2 */
    COLUMN_TEXT,      /* char[size] */
    COLUMN_TEXT_PTR,  /* const char * */
    COLUMN_ENUM,      /* int-sized enum by its names */
    COLUMN_ENUM_NULL, /* the count constant = NULL */
    COLUMN_REASON,    /* enum err_code or uint32_t by slug, ERR_NONE = NULL */
    COLUMN_WHY,       /* const struct why *, NULL = NULL */
};

struct column_names {
    const char *(*name)(int value);
    int (*parse)(const char *name); /* the count constant for an unknown name */
    int count;
};

struct column {
    const char *name;
    enum column_type type;
    bool key;        /* part of the conflict target */
    uint16_t offset; /* in struct row */
    uint16_t offset2;
    uint16_t size;
    const struct column_names *names;
};

struct columns {
    const struct column *column;
    uint32_t count;
};
#define COLUMN_MAX 40

struct columns columns_of(enum row_kind kind);

/* The parameters of one row; values point into the row and into itself. */
struct column_params {
    const char *value[COLUMN_MAX];
    int length[COLUMN_MAX];
    int format[COLUMN_MAX];
    uint8_t scratch[COLUMN_MAX][8];
    char *owned; /* the one column that is built (why) */
};
void columns_encode(const struct row *row, struct column_params *params);
void column_params_fini(struct column_params *params);
Oid column_oid(enum column_type type);

/*
 * Reads row `index` of a binary result that selects the kind's columns in table order. Texts behind
 * pointers are borrowed from the result; ret_row->job.ask and .why are left NULL (load.c).
 * ERR_STATE_CORRUPT names table and column.
 */
int columns_decode(const PGresult *result, int index, enum row_kind kind, struct row *ret_row,
                   struct err *err) SHEAF_MUST_USE;

#endif
