/* Opening and closing: two connections, one that commits and one that reads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "orchestrator/store/migrate.h"
#include "orchestrator/store/store_private.h"

/* Followers of the change table that are further behind read everything anew. */
#define CHANGES_KEPT "1000000"
/* A key is promised for a day; kept a week. */
#define IDEM_KEPT_US "604800000000"
/* NULLS NOT DISTINCT, and pipelines as we use them. */
#define OLDEST_SERVER 150000

/* -- connections --------------------------------------------------------------------------------
 */

/*
 * Time-outs bound every wait of ours: a statement that hangs on a lock, a peer that vanished
 * without a word. They come last, so that they stand above the connection string's own.
 */
static const char *const KEYWORDS[] = {
    "dbname",           "fallback_application_name",
    "options",          "connect_timeout",
    "keepalives_idle",  "keepalives_interval",
    "keepalives_count", "tcp_user_timeout",
    "client_encoding",  NULL,
};
static const char OPTIONS[] =
    "-c statement_timeout=60000 -c lock_timeout=30000"
    " -c idle_in_transaction_session_timeout=60000 -c tcp_user_timeout=15000"
    " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=2"
    " -c plan_cache_mode=force_generic_plan"
    " -c search_path=public -c timezone=UTC -c default_transaction_isolation=read\\ committed";

static void connection_values(const char *conninfo, const char *values[])
{
    const char *const fixed[] = {
        conninfo, "sheaf-orchestrator", OPTIONS, "10", "5", "5", "2", "15000", "UTF8", NULL};

    memcpy(values, fixed, sizeof(fixed));
}

static void drop_notice(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result;
}

void store_quiet(PGconn *connection)
{
    if (connection != NULL)
        (void)PQsetNoticeReceiver(connection, drop_notice, NULL);
}

PGconn *store_connect(const char *conninfo)
{
    const char *values[sizeof(KEYWORDS) / sizeof(KEYWORDS[0])];

    connection_values(conninfo, values);
    PGconn *connection = PQconnectdbParams(KEYWORDS, values, 1);
    store_quiet(connection);
    return connection;
}

PGconn *store_connect_start(const char *conninfo)
{
    const char *values[sizeof(KEYWORDS) / sizeof(KEYWORDS[0])];

    connection_values(conninfo, values);
    PGconn *connection = PQconnectStartParams(KEYWORDS, values, 1);
    store_quiet(connection);
    return connection;
}

int store_run(PGconn *connection, const char *sql, struct err *err)
{
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    int failed = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK
                     ? 0
                     : store_result_error(result, err);

    PQclear(result);
    return failed;
}

int store_reader_ready(struct store *store, struct err *err)
{
    if (PQstatus(store->reader) == CONNECTION_OK)
        return 0;
    PQfinish(store->reader);
    store->reader = store_connect(store->conninfo);
    if (PQstatus(store->reader) != CONNECTION_OK)
        return store_connection_error(store->reader, err);
    return 0;
}

/* -- checks at the door -------------------------------------------------------------------------
 */

int store_server_check(PGconn *connection, struct err *err)
{
    static const char SQL[] =
        "SELECT current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',"
        " current_setting('synchronous_commit') <> 'off',"
        " current_setting('server_encoding') = 'UTF8', NOT pg_is_in_recovery()";
    static const char *const WHAT[] = {
        "fsync is off: commits would not be durable",
        "full_page_writes is off: a crash could tear pages",
        "synchronous_commit is off: commits would not be durable",
        "the database's encoding is not UTF8",
        "the server is a standby",
    };

    int version = PQserverVersion(connection);
    if (version < OLDEST_SERVER)
        return err_set(err, ERR_DATABASE, "the server is PostgreSQL %d.%d, 15 is wanted at least",
                       version / 10000, version % 10000);
    PGresult *result = PQexec(connection, SQL);
    int failed = PQresultStatus(result) == PGRES_TUPLES_OK ? 0 : store_result_error(result, err);
    for (int i = 0; failed == 0 && i < (int)(sizeof(WHAT) / sizeof(WHAT[0])); i++) {
        if (PQgetvalue(result, 0, i)[0] != 't')
            failed = err_set(err, ERR_DATABASE, "%s", WHAT[i]);
    }
    PQclear(result);
    return failed;
}

static uint64_t value_u64(const PGresult *result, int row, int column)
{
    return strtoull(PQgetvalue(result, row, column), NULL, 10);
}

/* Waits for a batch of the old leader that is still landing; every later one is refused. */
static int lead(struct store *store, struct err *err)
{
    static const char SQL[] = "UPDATE control SET term = term + 1, session = session + 1"
                              " RETURNING term, session, batch, change_seq, journal_seq, now_us";
    PGresult *result = PQexec(store->connection, SQL);
    int failed = 0;

    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        failed = store_result_error(result, err);
    else if (PQntuples(result) != 1)
        failed = err_set(err, ERR_STATE_CORRUPT, "table control has no row");
    else {
        store->term = (uint32_t)value_u64(result, 0, 0);
        store->session = value_u64(result, 0, 1);
        store->at.batch = value_u64(result, 0, 2);
        store->at.change_seq = value_u64(result, 0, 3);
        store->at.journal_seq = value_u64(result, 0, 4);
        store->at.now_us = (usec_t)value_u64(result, 0, 5);
    }
    PQclear(result);
    return failed;
}

int store_chains_read(PGconn *connection, struct chain *ret_chain, struct err *err)
{
    static const char SQL[] = "SELECT DISTINCT ON (asset) asset, encode(hash, 'hex') FROM transfer"
                              " ORDER BY asset, id DESC";
    struct chain chain = {0};
    PGresult *result = PQexec(connection, SQL);
    int failed = PQresultStatus(result) == PGRES_TUPLES_OK ? 0 : store_result_error(result, err);

    if (failed == 0 && PQntuples(result) > CHAIN_MAX_ASSETS)
        failed = err_set(err, ERR_TOO_MANY, "more than %u assets", CHAIN_MAX_ASSETS);
    for (int i = 0; failed == 0 && i < PQntuples(result); i++) {
        struct chain_head *head = chain_head(&chain, PQgetvalue(result, i, 0));
        if (hex_parse(PQgetvalue(result, i, 1), SHA256_SIZE, head->hash) != 0)
            failed = err_set(err, ERR_STATE_CORRUPT, "hash of the last transfer");
    }
    if (failed == 0)
        *ret_chain = chain;
    PQclear(result);
    return failed;
}

/* Partitions for the months to come; history beyond its promise goes. */
static int housekeeping(struct store *store, struct err *err)
{
    char now[24];
    const char *values[] = {now};

    snprintf(now, sizeof(now), "%lld", (long long)clock_wall_us());
    PGresult *result =
        PQexecParams(store->connection, "SELECT partitions_prepare($1::text::bigint)", 1, NULL,
                     values, NULL, NULL, 0);
    int failed = PQresultStatus(result) == PGRES_TUPLES_OK ? 0 : store_result_error(result, err);
    PQclear(result);
    if (failed == 0)
        failed = store_run(store->connection,
                           "DELETE FROM change WHERE seq <="
                           " (SELECT change_seq - " CHANGES_KEPT " FROM control)",
                           err);
    if (failed == 0)
        failed = store_run(store->connection,
                           "DELETE FROM idem WHERE at_us <"
                           " (SELECT now_us - " IDEM_KEPT_US " FROM control)",
                           err);
    return failed;
}

static bool prepare_now(const char *name, const char *sql, int count, const Oid *types, void *arg)
{
    PGconn *connection = arg;
    PGresult *result = PQprepare(connection, name, sql, count, types);
    bool good = PQresultStatus(result) == PGRES_COMMAND_OK;

    PQclear(result);
    return good;
}

/* -- doors --------------------------------------------------------------------------------------
 */

static int open_checked(struct store *store, struct err *err)
{
    store->connection = store_connect(store->conninfo);
    store->reader = store_connect(store->conninfo);
    if (PQstatus(store->connection) != CONNECTION_OK)
        return store_connection_error(store->connection, err);
    if (PQstatus(store->reader) != CONNECTION_OK)
        return store_connection_error(store->reader, err);
    int failed = store_server_check(store->connection, err);
    if (failed == 0)
        failed = store_schema_check(store->connection, err);
    if (failed == 0 && !statement_each(prepare_now, store->connection))
        failed = store_connection_error(store->connection, err);
    if (failed == 0)
        failed = housekeeping(store, err);
    if (failed == 0)
        failed = lead(store, err);
    if (failed == 0)
        failed = store_chains_read(store->connection, &store->at.chain, err);
    return failed;
}

int store_open(struct event_base *base, const char *conninfo, struct store **ret_store,
               struct err *err)
{
    struct store *store = mem_new(1, sizeof(*store));

    store->base = base;
    store->conninfo = mem_strdup(conninfo);
    int failed = open_checked(store, err);
    if (failed == 0)
        failed = store_commit_setup(store, err);
    if (failed != 0) {
        store_close(store);
        return failed;
    }
    *ret_store = store;
    return 0;
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    store_commit_teardown(store);
    PQfinish(store->connection);
    PQfinish(store->reader);
    free(store->conninfo);
    free(store);
}

uint32_t store_term(const struct store *store)
{
    return store->term;
}

bool store_busy(const struct store *store)
{
    return store->on_commit != NULL;
}

uint64_t store_change_seq(const struct store *store)
{
    return store->at.change_seq;
}

usec_t store_last_commit_us(const struct store *store)
{
    return store->last_commit_us;
}
