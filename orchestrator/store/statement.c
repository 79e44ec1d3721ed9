/* Every statement of the committing connection, prepared under these names. */
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
    {STATEMENT_JOURNAL,
     "INSERT INTO journal (seq, at_us, kind, policy_version, bytes) VALUES ($1, $2, $3, $4, $5)",
     5,
     {INT8, INT8, TEXT, INT8, BYTEA}},
    {STATEMENT_CHANGE_JOB,
     "INSERT INTO change (seq, batch, kind, object)"
     " SELECT $1, $2, 'job', uid FROM job WHERE id = $3",
     3,
     {INT8, INT8, INT8}},
    {STATEMENT_CHANGE_GANG,
     "INSERT INTO change (seq, batch, kind, object)"
     " SELECT $1, $2, 'job', j.uid FROM attempt a JOIN job j ON j.id = a.job WHERE a.id = $3",
     3,
     {INT8, INT8, INT8}},
    {STATEMENT_CHANGE_NODE,
     "INSERT INTO change (seq, batch, kind, object)"
     " SELECT $1, $2, 'node', uid FROM node WHERE id = $3",
     3,
     {INT8, INT8, INT8}},
    {STATEMENT_CHANGE_ACCOUNT,
     "INSERT INTO change (seq, batch, kind, object)"
     " SELECT $1, $2, 'account', uid FROM account WHERE id = $3",
     3,
     {INT8, INT8, INT8}},
    /* Waits for a batch that is still landing, and keeps one that has not begun from landing. */
    {STATEMENT_READ_BACK,
     "UPDATE control SET session = session + 1 WHERE term = $1 RETURNING session, batch",
     1,
     {INT8}},
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
    /* The newest of each node: a worker repeats what it was not told is committed. */
    [ROW_RECEIPT] = " WHERE (node, seq) IN (SELECT id, (SELECT max(seq) FROM receipt WHERE"
                    " receipt.node = node.id) FROM node WHERE state <> 'gone')",
};

char *statement_write_name(enum row_kind kind, char out[STATEMENT_TEXT])
{
    snprintf(out, STATEMENT_TEXT, "w_%s", row_table(kind));
    return out;
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

void statement_write_sql(enum row_kind kind, struct buf *out)
{
    struct columns columns = columns_of(kind);
    uint32_t count = columns.count;

    buf_printf(out, "INSERT INTO \"%s\" (", row_table(kind));
    append_names(&columns, false, out);
    if (kind == ROW_TRANSFER) {
        buf_puts(out, ", prev_hash, hash");
        count += 2;
    }
    buf_puts(out, ") VALUES (");
    for (uint32_t i = 0; i < count; i++)
        buf_printf(out, "%s$%u", i > 0 ? ", " : "", i + 1);
    buf_puts(out, ")");
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

static bool write_statement(enum row_kind kind, statement_f f, void *arg)
{
    struct columns columns = columns_of(kind);
    char name[STATEMENT_TEXT];
    Oid types[COLUMN_MAX + 2];
    struct buf sql;

    for (uint32_t i = 0; i < columns.count; i++)
        types[i] = column_oid(columns.column[i].type);
    int count = (int)columns.count;
    if (kind == ROW_TRANSFER) {
        types[count++] = BYTEA;
        types[count++] = BYTEA;
    }
    buf_init(&sql, 0);
    statement_write_sql(kind, &sql);
    bool good = f(statement_write_name(kind, name), sql.data, count, types, arg);
    buf_fini(&sql);
    return good;
}

bool statement_each(statement_f f, void *arg)
{
    for (size_t i = 0; i < sizeof(FIXED) / sizeof(FIXED[0]); i++) {
        if (!f(FIXED[i].name, FIXED[i].sql, FIXED[i].count, FIXED[i].types, arg))
            return false;
    }
    for (enum row_kind kind = 0; kind < ROW_KIND_COUNT; kind++) {
        /* The control row is written by the batch itself. */
        if (kind != ROW_CONTROL && !write_statement(kind, f, arg))
            return false;
    }
    return true;
}
