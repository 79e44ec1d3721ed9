/* Reads of a start: rows into a world, the active policy, one cold row. Blocking. */
#include <stdlib.h>
#include <string.h>

#include "common/io/json.h"
#include "common/io/spec_json.h"
#include "orchestrator/store/policy_json.h"
#include "orchestrator/store/store_private.h"
#include "orchestrator/store/why_json.h"

/* -- one kind of rows ---------------------------------------------------------------------------
 */

/* What a job row points to beside its own texts. */
struct job_memory {
    struct job_spec spec;
    struct why why;
};

static int job_attach(const PGresult *result, int index, struct row *row, struct job_memory *memory,
                      struct err *err)
{
    struct err cause;
    struct columns columns = columns_of(ROW_JOB);
    int why_column = (int)columns.count - 1;

    spec_init(&memory->spec);
    if (spec_parse(row->job.spec, strlen(row->job.spec), &memory->spec, &cause) != 0)
        return err_set(err, ERR_STATE_CORRUPT, "job %llu: its spec is refused: %s",
                       (unsigned long long)row->job.id, cause.text);
    row->job.ask = &memory->spec.ask;
    BUG_ON(columns.column[why_column].type != COLUMN_WHY);
    if (PQgetisnull(result, index, why_column))
        return 0;
    json_t *value = NULL;
    if (json_read(PQgetvalue(result, index, why_column),
                  (size_t)PQgetlength(result, index, why_column), &value, &cause)
        != 0)
        return err_set(err, ERR_STATE_CORRUPT, "job %llu: why is no JSON: %s",
                       (unsigned long long)row->job.id, cause.text);
    why_from_json(value, &memory->why);
    json_decref(value);
    row->job.why = &memory->why;
    return 0;
}

/* memory is NULL for kinds other than jobs. */
static int row_read(const PGresult *result, int index, enum row_kind kind,
                    struct job_memory *memory, store_on_row_f on_row, void *arg, struct err *err)
{
    struct row row;

    int failed = columns_decode(result, index, kind, &row, err);
    if (failed != 0)
        return failed;
    if (memory != NULL) {
        failed = job_attach(result, index, &row, memory, err);
        if (failed == 0)
            on_row(&row, arg);
        spec_fini(&memory->spec);
        return failed;
    }
    on_row(&row, arg);
    return 0;
}

int store_each(PGconn *connection, enum row_kind kind, bool all, store_on_row_f on_row, void *arg,
               struct err *err)
{
    struct job_memory *memory = kind == ROW_JOB ? malloc(sizeof(*memory)) : NULL;
    struct buf sql;
    int failed = 0;

    buf_init(&sql, 0);
    statement_load_sql(kind, all, &sql);
    if (PQsendQueryParams(connection, sql.data, 0, NULL, NULL, NULL, NULL, 1) != 1)
        failed = store_connection_error(connection, err);
    else
        (void)PQsetSingleRowMode(connection);
    PGresult *result;
    while ((result = PQgetResult(connection)) != NULL) {
        ExecStatusType status = PQresultStatus(result);
        if (failed == 0 && status == PGRES_SINGLE_TUPLE)
            failed = row_read(result, 0, kind, memory, on_row, arg, err);
        else if (failed == 0 && status != PGRES_TUPLES_OK)
            failed = store_result_error(result, err);
        PQclear(result);
    }
    buf_fini(&sql);
    free(memory);
    return failed;
}

/* -- policy -------------------------------------------------------------------------------------
 */

static int policy_write_default(PGconn *connection, struct err *err)
{
    static const char SQL[] = "INSERT INTO policy (version, settings, created_us, active)"
                              " VALUES (1, $1, (extract(epoch FROM now()) * 1000000)::bigint, true)"
                              " ON CONFLICT DO NOTHING";
    struct policy policy;

    policy_default(&policy);
    json_t *value = policy_to_json(&policy);
    char *text = json_write(value);
    json_decref(value);
    const char *values[] = {text};
    PGresult *result = PQexecParams(connection, SQL, 1, NULL, values, NULL, NULL, 0);
    int failed = PQresultStatus(result) == PGRES_COMMAND_OK ? 0 : store_result_error(result, err);
    PQclear(result);
    free(text);
    return failed;
}

static int policy_read(PGconn *connection, struct policy *ret_policy, struct err *err)
{
    static const char SQL[] = "SELECT settings::text, version::text FROM policy WHERE active";
    struct policy policy;
    json_t *value = NULL;

    int failed = policy_write_default(connection, err);
    if (failed != 0)
        return failed;
    PGresult *result = PQexec(connection, SQL);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        failed = store_result_error(result, err);
    else if (PQntuples(result) != 1)
        failed = err_set(err, ERR_STATE_CORRUPT, "no active policy");
    else
        failed =
            json_read(PQgetvalue(result, 0, 0), (size_t)PQgetlength(result, 0, 0), &value, err);
    if (failed == 0)
        failed = policy_from_json(value, PQgetvalue(result, 0, 1), &policy, err);
    if (failed == 0)
        *ret_policy = policy;
    json_decref(value);
    PQclear(result);
    return failed;
}

/* -- doors --------------------------------------------------------------------------------------
 */

struct load {
    struct world *world;
    usec_t now_us;
};

static void load_row(const struct row *row, void *arg)
{
    struct load *load = arg;

    if (row->kind == ROW_CONTROL)
        load->now_us = row->control.now_us;
    world_apply(load->world, row);
}

/* History and cold rows are no part of the world. */
static bool kind_is_loaded(enum row_kind kind)
{
    return kind != ROW_NODE_EVENT && kind != ROW_JOB_EVENT && kind != ROW_TRANSFER
           && kind != ROW_IDEM;
}

static int load_all(struct store *store, struct load *load, struct policy *ret_policy,
                    struct err *err)
{
    int failed = policy_read(store->reader, ret_policy, err);

    for (enum row_kind kind = 0; failed == 0 && kind < ROW_KIND_COUNT; kind++) {
        if (kind_is_loaded(kind))
            failed = store_each(store->reader, kind, false, load_row, load, err);
    }
    return failed;
}

int store_load(struct store *store, struct world *world, struct policy *ret_policy, usec_t *ret_now,
               struct err *err)
{
    struct load load = {.world = world};
    struct policy policy;
    struct chain chain;

    BUG_ON(store_busy(store));
    int failed = store_reader_ready(store, err);
    if (failed == 0)
        failed = store_run(store->reader, "BEGIN ISOLATION LEVEL REPEATABLE READ", err);
    if (failed != 0)
        return failed;
    failed = load_all(store, &load, &policy, err);
    if (failed == 0)
        failed = store_chains_read(store->reader, &chain, err);
    struct err ignored;
    int ended =
        store_run(store->reader, failed == 0 ? "COMMIT" : "ROLLBACK", failed == 0 ? err : &ignored);
    if (failed == 0)
        failed = ended;
    if (failed != 0)
        return failed;
    store->at.chain = chain;
    *ret_policy = policy;
    *ret_now = load.now_us;
    return 0;
}

static int idem_read(PGconn *connection, const char *sql, uint64_t token, const char *key,
                     struct idem_row *ret_row, bool *ret_found, struct err *err)
{
    struct row row = {.kind = ROW_IDEM};
    struct column_params params;

    row.idem.token = token;
    memcpy(row.idem.key, key, strnlen(key, sizeof(row.idem.key) - 1));
    columns_encode(&row, &params);
    static const Oid types[] = {20, 25};
    PGresult *result =
        PQexecParams(connection, sql, 2, types, params.value, params.length, params.format, 1);
    column_params_fini(&params);
    int failed = PQresultStatus(result) == PGRES_TUPLES_OK ? 0 : store_result_error(result, err);
    bool found = failed == 0 && PQntuples(result) == 1;
    if (found)
        failed = columns_decode(result, 0, ROW_IDEM, &row, err);
    if (failed == 0) {
        *ret_found = found;
        if (found)
            *ret_row = row.idem;
    }
    PQclear(result);
    return failed;
}

int store_idem(struct store *store, uint64_t token, const char *key, struct idem_row *ret_row,
               bool *ret_found, struct err *err)
{
    static const char SQL[] = "SELECT token, key, body_hash, code, object, at_us::bigint FROM idem"
                              " WHERE token = $1 AND key = $2";

    int failed = store_reader_ready(store, err);
    if (failed == 0)
        failed = idem_read(store->reader, SQL, token, key, ret_row, ret_found, err);
    /* The reader may have died unnoticed while it was idle: once more on a fresh one. */
    if (failed != 0 && PQstatus(store->reader) != CONNECTION_OK
        && store_reader_ready(store, err) == 0)
        failed = idem_read(store->reader, SQL, token, key, ret_row, ret_found, err);
    return failed;
}
