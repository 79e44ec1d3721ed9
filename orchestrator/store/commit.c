/*
 * The committing connection: one batch, one transaction, one pipeline.
 *
 *   IDLE → SENDING → IDLE (done)
 *                  → ROLLBACK → IDLE (refused)
 *   any  → WAITING → CONNECTING → PREPARING → what became of the batch is read back → IDLE
 *
 * After a mid-pipeline error the session stays in its aborted transaction, so ROLLBACK is sent.
 * After a lost connection the old backend may still be at work: the read-back takes the lock that
 * the batch takes first, and changes the session number that the batch's fence compares. So either
 * the batch is in, or it never will be.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "orchestrator/store/store_private.h"

#define BACK_OFF_FIRST_MS 20u
#define BACK_OFF_MAX_MS   2000u
#define CONNECT_LIMIT_S   10

static void on_socket(evutil_socket_t fd, short what, void *arg);
static void on_timer(evutil_socket_t fd, short what, void *arg);

/* -- the end of a batch -------------------------------------------------------------------------
 */

static void report(struct store *store, enum commit_outcome outcome, const struct err *err)
{
    store_on_commit_f on_commit = store->on_commit;
    void *arg = store->arg;
    struct err cause = err != NULL ? *err : (struct err){0};

    store->on_commit = NULL;
    store->sent = false;
    store->failed = false;
    store->phase = STORE_IDLE;
    /* The callback may send the next batch at once. */
    on_commit(outcome, store->at.change_seq, &cause, arg);
}

static void report_done(struct store *store)
{
    store->at = store->next;
    store->last_commit_us = clock_mono_us() - store->sent_us;
    report(store, COMMIT_DONE, NULL);
}

/* -- losing and finding the server --------------------------------------------------------------
 */

static void watch_end(struct store *store)
{
    if (store->readable != NULL)
        event_free(store->readable);
    if (store->writable != NULL)
        event_free(store->writable);
    store->readable = NULL;
    store->writable = NULL;
}

static void timer_start(struct store *store, uint32_t milliseconds)
{
    struct timeval after = {.tv_sec = milliseconds / 1000,
                            .tv_usec = (suseconds_t)(milliseconds % 1000) * 1000};

    BUG_ON(event_add(store->timer, &after) != 0);
}

static void lose(struct store *store, const char *what)
{
    log_warn("store", "connection-lost", "what=%s phase=%d batch_in_flight=%d error=" LOG_Q, what,
             (int)store->phase, store->on_commit != NULL && store->sent,
             store->connection != NULL ? PQerrorMessage(store->connection) : "");
    watch_end(store);
    PQfinish(store->connection);
    store->connection = NULL;
    store->phase = STORE_WAITING;
    timer_start(store, store->back_off_ms);
    store->back_off_ms *= 2;
    if (store->back_off_ms > BACK_OFF_MAX_MS)
        store->back_off_ms = BACK_OFF_MAX_MS;
}

static bool watch_begin(struct store *store)
{
    int fd = PQsocket(store->connection);

    store->readable = event_new(store->base, fd, EV_READ | EV_PERSIST, on_socket, store);
    store->writable = event_new(store->base, fd, EV_WRITE, on_socket, store);
    return fd >= 0 && store->readable != NULL && store->writable != NULL
           && event_add(store->readable, NULL) == 0;
}

static void flush(struct store *store)
{
    int left = PQflush(store->connection);

    if (left < 0)
        lose(store, "flush");
    else if (left > 0)
        BUG_ON(event_add(store->writable, NULL) != 0);
}

/* -- sending ------------------------------------------------------------------------------------
 */

static bool send_values(struct store *store, const char *name, int count,
                        const struct column_params *params)
{
    return PQsendQueryPrepared(store->connection, name, count, params->value, params->length,
                               params->format, 0)
           == 1;
}

static void set_u64(struct column_params *params, int i, uint64_t value)
{
    uint64_t wire = htobe64(value);

    memcpy(params->scratch[i], &wire, sizeof(wire));
    params->value[i] = (const char *)params->scratch[i];
    params->length[i] = sizeof(wire);
    params->format[i] = 1;
}

static void set_bytes(struct column_params *params, int i, const void *bytes, size_t length)
{
    params->value[i] = bytes != NULL ? bytes : "";
    params->length[i] = (int)length;
    params->format[i] = 1;
}

static bool send_plain(struct store *store, const char *name)
{
    return PQsendQueryPrepared(store->connection, name, 0, NULL, NULL, NULL, 0) == 1;
}

static bool send_fence(struct store *store)
{
    struct column_params params;

    set_u64(&params, 0, store->term);
    set_u64(&params, 1, store->session);
    return send_values(store, STATEMENT_FENCE, 2, &params);
}

/* The parameters of one statement of several rows, which borrows them. */
struct values {
    const char *value[STATEMENT_ROWS * (COLUMN_MAX + 2)];
    int length[STATEMENT_ROWS * (COLUMN_MAX + 2)];
    int format[STATEMENT_ROWS * (COLUMN_MAX + 2)];
    int count;
};

static void values_add(struct values *values, const struct column_params *params, int count)
{
    for (int i = 0; i < count; i++) {
        values->value[values->count] = params->value[i];
        values->length[values->count] = params->length[i];
        values->format[values->count++] = params->format[i];
    }
}

static bool values_send(struct store *store, const char *name, const struct values *values)
{
    return PQsendQueryPrepared(store->connection, name, values->count, values->value,
                               values->length, values->format, 0)
           == 1;
}

/* Rows of one kind, at most statement_rows() of them. */
static bool send_rows(struct store *store, const struct row *const *rows, uint32_t count)
{
    enum row_kind kind = rows[0]->kind;
    struct column_params params[STATEMENT_ROWS];
    uint8_t hashes[STATEMENT_ROWS][2][SHA256_SIZE];
    struct values values = {.count = 0};
    char name[STATEMENT_TEXT];

    for (uint32_t i = 0; i < count; i++) {
        int width = (int)columns_of(kind).count;
        columns_encode(rows[i], &params[i]);
        if (kind == ROW_TRANSFER) {
            chain_add(&store->next.chain, &rows[i]->transfer, hashes[i][0], hashes[i][1]);
            set_bytes(&params[i], width++, hashes[i][0], SHA256_SIZE);
            set_bytes(&params[i], width++, hashes[i][1], SHA256_SIZE);
        }
        values_add(&values, &params[i], width);
    }
    bool good = values_send(store, statement_write_name(kind, count, name), &values);
    for (uint32_t i = 0; i < count; i++)
        column_params_fini(&params[i]);
    return good;
}

static bool send_all_rows(struct store *store, const struct batch_plan *plan)
{
    bool good = true;

    for (uint32_t i = 0; good && i < plan->row_count;) {
        enum row_kind kind = plan->rows[i]->kind;
        uint32_t count = 1;
        while (i + count < plan->row_count && plan->rows[i + count]->kind == kind
               && count < statement_rows(kind))
            count++;
        good = send_rows(store, plan->rows + i, count);
        i += count;
    }
    return good;
}

/* Changes of one statement, at most STATEMENT_ROWS of them. */
static bool send_changes(struct store *store, const struct change_target *targets, uint32_t count)
{
    struct column_params params[STATEMENT_ROWS];
    struct values values = {.count = 0};
    char name[STATEMENT_TEXT];

    for (uint32_t i = 0; i < count; i++) {
        set_u64(&params[i], 0, ++store->next.change_seq);
        set_u64(&params[i], 1, store->next.batch);
        set_u64(&params[i], 2, targets[i].id);
        values_add(&values, &params[i], 3);
    }
    return values_send(store, statement_name(targets[0].statement, count, name), &values);
}

static bool send_all_changes(struct store *store, const struct batch_plan *plan)
{
    bool good = true;

    for (uint32_t i = 0; good && i < plan->change_count;) {
        const struct change_target *first = &plan->changes[i];
        uint32_t count = 1;
        while (i + count < plan->change_count && first[count].statement == first->statement
               && count < STATEMENT_ROWS)
            count++;
        good = send_changes(store, first, count);
        i += count;
    }
    return good;
}

/* At most STATEMENT_ROWS entries. */
static bool send_entries(struct store *store, const struct journal_entry *entries, uint32_t count)
{
    struct column_params params[STATEMENT_ROWS];
    struct values values = {.count = 0};
    char name[STATEMENT_TEXT];

    for (uint32_t i = 0; i < count; i++) {
        const struct journal_entry *entry = &entries[i];
        const char *kind = entry->kind < EV_KIND_COUNT ? event_kind_name(entry->kind) : "schedule";
        set_u64(&params[i], 0, ++store->next.journal_seq);
        set_u64(&params[i], 1, (uint64_t)entry->now_us);
        set_bytes(&params[i], 2, kind, strlen(kind));
        set_u64(&params[i], 3, entry->policy_version);
        set_bytes(&params[i], 4, entry->bytes, entry->bytes_length);
        values_add(&values, &params[i], 5);
    }
    return values_send(store, statement_name(STATEMENT_JOURNAL, count, name), &values);
}

static bool send_journal(struct store *store, const struct batch *batch)
{
    bool good = true;

    for (uint32_t i = 0; good && i < batch->journal_count; i += STATEMENT_ROWS) {
        uint32_t left = batch->journal_count - i;
        good =
            send_entries(store, batch->journal + i, left < STATEMENT_ROWS ? left : STATEMENT_ROWS);
    }
    return good;
}

static bool send_control(struct store *store, uint64_t next_id)
{
    struct column_params params;

    set_u64(&params, 0, store->next.batch);
    set_u64(&params, 1, store->next.change_seq);
    set_u64(&params, 2, store->next.journal_seq);
    set_u64(&params, 3, (uint64_t)store->next.now_us);
    set_u64(&params, 4, next_id);
    return send_values(store, STATEMENT_CONTROL, 5, &params);
}

static bool send_all(struct store *store, const struct batch_plan *plan)
{
    return send_plain(store, STATEMENT_BEGIN) && send_fence(store) && send_all_rows(store, plan)
           && send_all_changes(store, plan) && send_journal(store, &store->batch)
           && send_control(store, plan->next_id) && send_plain(store, STATEMENT_COMMIT)
           && PQpipelineSync(store->connection) == 1;
}

static void send_batch(struct store *store)
{
    struct batch_plan plan;

    batch_plan_init(&plan, &store->batch);
    store->next = store->at;
    store->next.batch++;
    if (plan.now_us > store->next.now_us)
        store->next.now_us = plan.now_us;
    store->phase = STORE_SENDING;
    store->sent = true;
    store->failed = false;
    store->sent_us = clock_mono_us();
    bool good = send_all(store, &plan);
    batch_plan_fini(&plan);
    if (good)
        flush(store);
    else
        lose(store, "send");
}

static void send_rollback(struct store *store)
{
    store->phase = STORE_ROLLBACK;
    if (send_plain(store, STATEMENT_ROLLBACK) && PQpipelineSync(store->connection) == 1)
        flush(store);
    else
        lose(store, "rollback");
}

/* -- a new connection ---------------------------------------------------------------------------
 */

static bool send_prepare(const char *name, const char *sql, int count, const Oid *types, void *arg)
{
    return PQsendPrepare(arg, name, sql, count, types) == 1;
}

static bool send_read_back(struct store *store)
{
    struct column_params params;

    set_u64(&params, 0, store->term);
    return send_values(store, STATEMENT_READ_BACK, 1, &params);
}

static void begin_preparing(struct store *store)
{
    watch_end(store);
    BUG_ON(event_del(store->timer) != 0);
    store->phase = STORE_PREPARING;
    store->read_back_led = false;
    bool good = watch_begin(store) && PQsetnonblocking(store->connection, 1) == 0
                && PQenterPipelineMode(store->connection) == 1
                && statement_each(send_prepare, store->connection) && send_read_back(store)
                && PQpipelineSync(store->connection) == 1;
    if (good)
        flush(store);
    else
        lose(store, "prepare");
}

static void poll_connect(struct store *store)
{
    PostgresPollingStatusType status = PQconnectPoll(store->connection);

    if (status == PGRES_POLLING_OK) {
        begin_preparing(store);
        return;
    }
    if (status == PGRES_POLLING_FAILED) {
        lose(store, "connect");
        return;
    }
    /* The socket may be another one after each step. */
    watch_end(store);
    short wanted = status == PGRES_POLLING_READING ? EV_READ : EV_WRITE;
    store->readable = event_new(store->base, PQsocket(store->connection), wanted, on_socket, store);
    if (store->readable == NULL || event_add(store->readable, NULL) != 0)
        lose(store, "connect");
}

static void begin_connecting(struct store *store)
{
    store->phase = STORE_CONNECTING;
    store->connection = store_connect_start(store->conninfo);
    timer_start(store, CONNECT_LIMIT_S * 1000);
    if (PQstatus(store->connection) == CONNECTION_BAD) {
        lose(store, "connect");
        return;
    }
    /* libpq wants a first wait for writing. */
    store->readable =
        event_new(store->base, PQsocket(store->connection), EV_WRITE, on_socket, store);
    if (store->readable == NULL || event_add(store->readable, NULL) != 0)
        lose(store, "connect");
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct store *store = arg;

    (void)fd;
    (void)what;
    if (store->phase == STORE_CONNECTING)
        lose(store, "connect timed out");
    else if (store->phase == STORE_WAITING)
        begin_connecting(store);
}

/* The read-back is here: the fate of the batch that was in flight is certain now. */
static void resolve(struct store *store)
{
    store->back_off_ms = BACK_OFF_FIRST_MS;
    store->phase = STORE_IDLE;
    store->session = store->read_back_session;
    log_info("store", "reconnected", "term=%u led=%d batch=%llu", store->term, store->read_back_led,
             (unsigned long long)store->read_back_batch);
    if (store->on_commit == NULL)
        return;
    struct err err;
    if (!store->read_back_led) {
        (void)err_set(&err, ERR_DEPOSED, "term %u was deposed", store->term);
        report(store, COMMIT_DEPOSED, &err);
    } else if (!store->sent) {
        send_batch(store);
    } else if (store->failed) {
        report(store, store->outcome, &store->err);
    } else if (store->read_back_batch == store->next.batch) {
        report_done(store);
    } else if (store->read_back_batch != store->at.batch) {
        /* Not ours to repair: an operator restored another state under us. */
        (void)err_set(&err, ERR_DATABASE, "the database is at batch %llu, not at %llu",
                      (unsigned long long)store->read_back_batch,
                      (unsigned long long)store->at.batch);
        report(store, COMMIT_FAILED, &err);
    } else {
        (void)err_set(&err, ERR_DATABASE, "connection lost before the commit");
        report(store, COMMIT_LOST, &err);
    }
}

/* -- receiving ----------------------------------------------------------------------------------
 */

static void take_read_back(struct store *store, const PGresult *result)
{
    store->read_back_led = PQntuples(result) == 1;
    if (!store->read_back_led)
        return;
    store->read_back_session = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
    store->read_back_batch = strtoull(PQgetvalue(result, 0, 1), NULL, 10);
}

/* The first error of a pipeline is the one that counts. False: the connection is of no use. */
static bool take_error(struct store *store, const PGresult *result)
{
    enum commit_outcome outcome = store_outcome(PQresultErrorField(result, PG_DIAG_SQLSTATE));

    if (outcome == COMMIT_LOST)
        return false;
    if (store->phase == STORE_PREPARING) {
        struct err err;
        (void)store_result_error(result, &err);
        log_error("store", "prepare-failed", "error=" LOG_Q, err.text);
        return false;
    }
    if (store->phase == STORE_SENDING && !store->failed) {
        store->failed = true;
        store->outcome = outcome;
        (void)store_result_error(result, &store->err);
    }
    return true;
}

/* The end of a pipeline. */
static void take_sync(struct store *store)
{
    if (store->phase == STORE_PREPARING)
        resolve(store);
    else if (store->phase == STORE_ROLLBACK)
        report(store, store->outcome, &store->err);
    else if (store->failed)
        send_rollback(store);
    else
        report_done(store);
}

/* What one result asks of the loop below. */
enum taken {
    TAKEN_MORE,
    TAKEN_SYNC,
    TAKEN_BROKEN,
};

static enum taken take_result(struct store *store, PGresult *result)
{
    enum taken taken = TAKEN_MORE;

    switch ((int)PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
        taken = TAKEN_SYNC;
        break;
    case PGRES_TUPLES_OK:
        if (store->phase == STORE_PREPARING)
            take_read_back(store, result);
        break;
    case PGRES_COMMAND_OK:
    case PGRES_PIPELINE_ABORTED:
    case PGRES_NONFATAL_ERROR:
        break;
    default:
        if (!take_error(store, result))
            taken = TAKEN_BROKEN;
        break;
    }
    PQclear(result);
    return taken;
}

/* Takes results until the end of the pipeline or until nothing more is here. */
static void drain(struct store *store)
{
    bool was_null = false;

    while (!PQisBusy(store->connection)) {
        PGresult *result = PQgetResult(store->connection);
        if (result == NULL) {
            /* One NULL ends each query; two in a row: there is nothing to come. */
            if (was_null)
                break;
            was_null = true;
            continue;
        }
        was_null = false;
        enum taken taken = take_result(store, result);
        if (taken == TAKEN_BROKEN) {
            lose(store, "refused");
            return;
        }
        if (taken == TAKEN_SYNC) {
            take_sync(store);
            return;
        }
    }
    if (PQstatus(store->connection) == CONNECTION_BAD)
        lose(store, "closed");
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct store *store = arg;

    (void)fd;
    if (store->phase == STORE_CONNECTING) {
        poll_connect(store);
        return;
    }
    if ((what & EV_READ) != 0 && PQconsumeInput(store->connection) != 1) {
        /* The last words may still be in the buffer; they do not change what must be done. */
        lose(store, "read");
        return;
    }
    if ((what & EV_WRITE) != 0) {
        flush(store);
        if (store->connection == NULL)
            return;
    }
    drain(store);
}

/* -- doors --------------------------------------------------------------------------------------
 */

int store_commit_setup(struct store *store, struct err *err)
{
    store->back_off_ms = BACK_OFF_FIRST_MS;
    store->timer = event_new(store->base, -1, 0, on_timer, store);
    if (store->timer == NULL || !watch_begin(store) || PQsetnonblocking(store->connection, 1) != 0
        || PQenterPipelineMode(store->connection) != 1)
        return err_set(err, ERR_DATABASE, "the connection cannot be watched");
    return 0;
}

void store_commit_teardown(struct store *store)
{
    watch_end(store);
    if (store->timer != NULL)
        event_free(store->timer);
    store->timer = NULL;
}

void store_commit(struct store *store, const struct batch *batch, store_on_commit_f on_commit,
                  void *arg)
{
    BUG_ON(store->on_commit != NULL || on_commit == NULL);
    store->batch = *batch;
    store->on_commit = on_commit;
    store->arg = arg;
    store->sent = false;
    if (store->phase == STORE_IDLE)
        send_batch(store);
}
