/*
 * Every statement of the committing connection, prepared under these names.
 *
 * What comes in numbers is written several rows at a time: most of what PostgreSQL spends on a row
 * it spends on the statement (the plan's start, the CHECK constraints read from the catalogue).
 */
#include <stdio.h>
#include <string.h>

#include "orchestrator/store/store_private.h"

#define INT8  20u
#define TEXT  25u
#define BYTEA 17u

struct statement {
    const char *name;
    const char *sql;
    int count;
    Oid types[6];
};

static const struct statement FIXED[] = {
    {STATEMENT_BEGIN, "BEGIN", 0, {0}},
    {STATEMENT_COMMIT, "COMMIT", 0, {0}},
    {STATEMENT_ROLLBACK, "ROLLBACK", 0, {0}},
    {STATEMENT_FENCE, "SELECT fence($1, $2)", 2, {INT8, INT8}},
    {STATEMENT_CONTROL,
     "UPDATE control SET batch = $1, change_seq = $2, journal_seq = $3,"
     " now_us = greatest(now_us, $4), next_id = greatest(next_id, $5)",
     5,
     {INT8, INT8, INT8, INT8, INT8}},
    /* Waits for a batch that is still landing, and keeps one that has not begun from landing. */
    {STATEMENT_READ_BACK,
     "UPDATE control SET session = session + 1 WHERE term = $1 RETURNING session, batch",
     1,
     {INT8}},
};

/* Inserts of 1…STATEMENT_ROWS rows; "?" stands for the next parameter. */
struct insert {
    const char *name;
    const char *head;
    const char *row;
    int count; /* parameters of a row */
    Oid types[6];
};

#define INTO_CHANGE "INSERT INTO change (seq, batch, kind, object) VALUES "

static const struct insert INSERTS[] = {
    {STATEMENT_JOURNAL,
     "INSERT INTO journal (seq, at_us, kind, policy_version, bytes) VALUES ",
     "(?, ?, ?, ?, ?)",
     5,
     {INT8, INT8, TEXT, INT8, BYTEA}},
    {STATEMENT_CHANGE_JOB,
     INTO_CHANGE,
     "(?, ?, 'job', (SELECT uid FROM job WHERE id = ?))",
     3,
     {INT8, INT8, INT8}},
    {STATEMENT_CHANGE_GANG,
     INTO_CHANGE,
     "(?, ?, 'job', (SELECT j.uid FROM attempt a JOIN job j ON j.id = a.job WHERE a.id = ?))",
     3,
     {INT8, INT8, INT8}},
    {STATEMENT_CHANGE_NODE,
     INTO_CHANGE,
     "(?, ?, 'node', (SELECT uid FROM node WHERE id = ?))",
     3,
     {INT8, INT8, INT8}},
    {STATEMENT_CHANGE_ACCOUNT,
     INTO_CHANGE,
     "(?, ?, 'account', (SELECT uid FROM account WHERE id = ?))",
     3,
     {INT8, INT8, INT8}},
};

/* A start needs what lives: the world keeps nothing else. */
#define LIVE_JOBS     "state NOT IN ('succeeded', 'failed', 'cancelled', 'expired', 'rejected')"
#define LIVE_ATTEMPTS "attempt IN (SELECT id FROM attempt WHERE state <> 'ended')"

static const char *const LOAD_WHERE[ROW_KIND_COUNT] = {
    [ROW_JOB] = " WHERE " LIVE_JOBS,
    [ROW_ATTEMPT] = " WHERE state <> 'ended'",
    [ROW_RANK] = " WHERE " LIVE_ATTEMPTS,
    [ROW_LEASE] = " WHERE " LIVE_ATTEMPTS,
    [ROW_LEASE_SLOT] = " WHERE live OR lease IN (SELECT id FROM lease WHERE " LIVE_ATTEMPTS ")",
    [ROW_JOB_OUTPUT] = " WHERE " LIVE_ATTEMPTS,
    /* The newest of each node, by the index of (node, seq): one sent again is known by it. */
    [ROW_RECEIPT] = " WHERE id IN (SELECT newest.id FROM node n CROSS JOIN LATERAL (SELECT r.id"
                    " FROM receipt r WHERE r.node = n.id ORDER BY r.seq DESC LIMIT 1) newest)",
};

uint32_t statement_rows(enum row_kind kind)
{
    switch ((int)kind) {
    case ROW_ACCOUNT:
    case ROW_JOB:
    case ROW_ATTEMPT:
    case ROW_RANK:
    case ROW_LEASE:
    case ROW_LEASE_SLOT:
    case ROW_TRANSFER:
    case ROW_JOB_EVENT:
    case ROW_RECEIPT:
    case ROW_JOB_OUTPUT:
    case ROW_IDEM:
        return STATEMENT_ROWS;
    default:
        return 1;
    }
}

char *statement_name(const char *base, uint32_t rows, char out[STATEMENT_TEXT])
{
    snprintf(out, STATEMENT_TEXT, "%s_%u", base, rows);
    return out;
}

char *statement_write_name(enum row_kind kind, uint32_t rows, char out[STATEMENT_TEXT])
{
    snprintf(out, STATEMENT_TEXT, "w_%s_%u", row_table(kind), rows);
    return out;
}

/* The template of a row so many times, with the parameters numbered. */
static void append_rows(const char *row, uint32_t rows, struct buf *out)
{
    uint32_t number = 0;

    for (uint32_t i = 0; i < rows; i++) {
        if (i > 0)
            buf_puts(out, ", ");
        for (const char *at = row; *at != '\0'; at++) {
            if (*at == '?')
                buf_printf(out, "$%u", ++number);
            else
                buf_append(out, at, 1);
        }
    }
}

static void append_names(const struct columns *columns, bool keys_only, struct buf *out)
{
    const char *comma = "";

    for (uint32_t i = 0; i < columns->count; i++) {
        if (keys_only && !columns->column[i].key)
            continue;
        buf_printf(out, "%s\"%s\"", comma, columns->column[i].name);
        comma = ", ";
    }
}

static void append_update(const struct columns *columns, struct buf *out)
{
    const char *comma = "";

    buf_puts(out, " ON CONFLICT (");
    append_names(columns, true, out);
    buf_puts(out, ") DO UPDATE SET ");
    for (uint32_t i = 0; i < columns->count; i++) {
        if (columns->column[i].key)
            continue;
        buf_printf(out, "%s\"%s\" = excluded.\"%s\"", comma, columns->column[i].name,
                   columns->column[i].name);
        comma = ", ";
    }
}

void statement_write_sql(enum row_kind kind, uint32_t rows, struct buf *out)
{
    struct columns columns = columns_of(kind);
    uint32_t count = columns.count;
    char row[3 * (COLUMN_MAX + 2) + 1];
    size_t used = 0;

    buf_printf(out, "INSERT INTO \"%s\" (", row_table(kind));
    append_names(&columns, false, out);
    if (kind == ROW_TRANSFER) {
        buf_puts(out, ", prev_hash, hash");
        count += 2;
    }
    buf_puts(out, ") VALUES ");
    for (uint32_t i = 0; i < count; i++)
        used += (size_t)snprintf(row + used, sizeof(row) - used, i > 0 ? ",?" : "(?");
    snprintf(row + used, sizeof(row) - used, ")");
    append_rows(row, rows, out);
    if (!row_is_append(kind))
        append_update(&columns, out);
}

void statement_load_sql(enum row_kind kind, bool all, struct buf *out)
{
    struct columns columns = columns_of(kind);

    buf_puts(out, "SELECT ");
    for (uint32_t i = 0; i < columns.count; i++) {
        const struct column *column = &columns.column[i];
        const char *cast = "";
        if (column_oid(column->type) == INT8)
            cast = "::bigint";
        else if (column->type == COLUMN_WHY)
            cast = "::text";
        buf_printf(out, "%s\"%s\"%s", i > 0 ? ", " : "", column->name, cast);
    }
    buf_printf(out, " FROM \"%s\"", row_table(kind));
    if (!all && LOAD_WHERE[kind] != NULL)
        buf_puts(out, LOAD_WHERE[kind]);
    if (kind == ROW_CONTROL)
        return;
    buf_puts(out, " ORDER BY ");
    append_names(&columns, true, out);
}

static bool write_statement(enum row_kind kind, uint32_t rows, statement_f f, void *arg)
{
    struct columns columns = columns_of(kind);
    char name[STATEMENT_TEXT];
    Oid types[STATEMENT_ROWS * (COLUMN_MAX + 2)];
    int count = 0;
    struct buf sql;

    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t i = 0; i < columns.count; i++)
            types[count++] = column_oid(columns.column[i].type);
        if (kind == ROW_TRANSFER) {
            types[count++] = BYTEA;
            types[count++] = BYTEA;
        }
    }
    buf_init(&sql, 0);
    statement_write_sql(kind, rows, &sql);
    bool good = f(statement_write_name(kind, rows, name), sql.data, count, types, arg);
    buf_fini(&sql);
    return good;
}

static bool insert_statement(const struct insert *insert, uint32_t rows, statement_f f, void *arg)
{
    char name[STATEMENT_TEXT];
    Oid types[STATEMENT_ROWS * 6];
    int count = 0;
    struct buf sql;

    for (uint32_t row = 0; row < rows; row++) {
        for (int i = 0; i < insert->count; i++)
            types[count++] = insert->types[i];
    }
    buf_init(&sql, 0);
    buf_puts(&sql, insert->head);
    append_rows(insert->row, rows, &sql);
    bool good = f(statement_name(insert->name, rows, name), sql.data, count, types, arg);
    buf_fini(&sql);
    return good;
}

bool statement_each(statement_f f, void *arg)
{
    for (size_t i = 0; i < sizeof(FIXED) / sizeof(FIXED[0]); i++) {
        if (!f(FIXED[i].name, FIXED[i].sql, FIXED[i].count, FIXED[i].types, arg))
            return false;
    }
    for (size_t i = 0; i < sizeof(INSERTS) / sizeof(INSERTS[0]); i++) {
        for (uint32_t rows = 1; rows <= STATEMENT_ROWS; rows++) {
            if (!insert_statement(&INSERTS[i], rows, f, arg))
                return false;
        }
    }
    for (enum row_kind kind = 0; kind < ROW_KIND_COUNT; kind++) {
        /* The control row is written by the batch itself. */
        if (kind == ROW_CONTROL)
            continue;
        for (uint32_t rows = 1; rows <= statement_rows(kind); rows++) {
            if (!write_statement(kind, rows, f, arg))
                return false;
        }
    }
    return true;
}
