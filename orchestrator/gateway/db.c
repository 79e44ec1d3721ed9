#include "orchestrator/gateway/db.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/hash.h"
#include "common/io/log.h"
#include "common/pure/map.h"
#include "common/pure/mem.h"

#define MAX_QUEUE        2048 /* requests; at 5 ms each more than anybody waits for */
#define MAX_ARG_BYTES    ((size_t)4 << 20)
#define WAIT_US          ((int64_t)8000000) /* a queued request is given up after this */
#define DOWN_US          ((int64_t)2000000) /* without a connection: a restart of it takes less */
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS   5000

/* Its first statement tells the database the request's sight; the asker knows of the others. */
struct request {
    struct request *next;
    struct request *same;     /* asked the same meanwhile: answered by this one's result */
    uint8_t key[SHA256_SIZE]; /* of what is asked and for whom; zeros = not to be shared */
    bool shared;
    struct db_sight sight;
    struct db_args *args;
    uint32_t count;
    db_on_done_f on_done;
    uint64_t call;
    void *arg;
    int64_t since_us;
    bool retried;
    /* While running: */
    PGresult **results;
    uint32_t done;
    bool preparing; /* the next result belongs to the prepare of statement `done` */
    struct err err;
};

enum link_state {
    LINK_DOWN,
    LINK_CONNECTING,
    LINK_IDLE,
    LINK_BUSY,
};

struct link {
    struct db *db;
    PGconn *pg;
    struct event *event;
    struct event *timer;
    enum link_state state;
    int backoff_ms;
    bool prepared[QUERY_COUNT];
    bool asked[QUERY_COUNT]; /* prepare sent within the running request */
    struct db_sight sight;   /* of the session, when it is known */
    bool sighted;
    struct request *request;
};

struct db {
    struct event_base *base;
    char *conninfo;
    struct link *links;
    uint32_t link_count;
    struct request *first;
    struct request *last;
    struct map waiting; /* key → request in the queue */
    struct map running; /* key → request on a link */
    struct event *sweep;
    struct event *soon; /* dispatch, behind whatever else this turn asks */
    int64_t down_us;    /* since when no connection is up; 0 = one is */
    struct db_counters counters;
    bool closing;
};

/* -- arguments ------------------------------------------------------------------------------ */

void db_args_init(struct db_args *args, enum query_id query)
{
    memset(args, 0, sizeof(*args));
    args->query = query;
    buf_init(&args->bytes, MAX_ARG_BYTES);
}

void db_args_fini(struct db_args *args)
{
    buf_fini(&args->bytes);
}

static void add(struct db_args *args, const void *bytes, size_t size, bool binary)
{
    BUG_ON(args->count == DB_MAX_ARGS);
    args->arg[args->count].offset = args->bytes.length;
    args->arg[args->count].length = (int)size;
    args->arg[args->count].binary = binary;
    args->count++;
    buf_append(&args->bytes, bytes, size);
    if (!binary)
        buf_append(&args->bytes, "", 1);
}

void db_add_null(struct db_args *args)
{
    BUG_ON(args->count == DB_MAX_ARGS);
    args->arg[args->count++].null = true;
}

void db_add_text(struct db_args *args, const char *text)
{
    if (text == NULL)
        db_add_null(args);
    else
        add(args, text, strlen(text), false);
}

void db_add_int(struct db_args *args, int64_t value)
{
    char text[32];

    snprintf(text, sizeof(text), "%" PRId64, value);
    add(args, text, strlen(text), false);
}

void db_add_bytes(struct db_args *args, const void *bytes, size_t size)
{
    add(args, bytes, size, true);
}

const char *db_text(const PGresult *result)
{
    if (result == NULL || PQntuples(result) == 0 || PQgetisnull(result, 0, 0))
        return NULL;
    return PQgetvalue(result, 0, 0);
}

int64_t db_int(const PGresult *result, int row, int column)
{
    return PQgetisnull(result, row, column) ? 0
                                            : strtoll(PQgetvalue(result, row, column), NULL, 10);
}

/* -- requests ------------------------------------------------------------------------------- */

/*
 * A read that is asked while the same one waits joins it: one execution answers all. It never joins
 * one that runs: an answer is not older than its question. Whoever asks what is running waits for
 * its end, so that a crowd costs two executions, not one each.
 */
static void request_share(struct request *request)
{
    request->shared = request->count == 2 && query_reads(request->args[1].query);
    if (!request->shared)
        return;
    struct sha256_stream *stream = sha256_stream_new();
    for (uint32_t k = 0; k < request->count; k++) {
        const struct db_args *args = &request->args[k];
        sha256_stream_add(stream, &args->query, sizeof(args->query));
        for (uint32_t i = 0; i < args->count; i++) {
            int length = args->arg[i].null ? -1 : args->arg[i].length;
            sha256_stream_add(stream, &length, sizeof(length));
            if (length > 0)
                sha256_stream_add(stream, args->bytes.data + args->arg[i].offset, (size_t)length);
        }
    }
    sha256_stream_end(stream, request->key);
    sha256_stream_free(stream);
}

static void waiting_enter(struct db *db, struct request *request)
{
    if (request->shared)
        map_put(&db->waiting, request->key, SHA256_SIZE, request);
}

static void running_leave(struct db *db, const struct request *request)
{
    if (request->shared)
        (void)map_remove(&db->running, request->key, SHA256_SIZE);
}

static void waiting_leave(struct db *db, const struct request *request)
{
    if (request->shared && map_get(&db->waiting, request->key, SHA256_SIZE) == request)
        (void)map_remove(&db->waiting, request->key, SHA256_SIZE);
}

static void request_free(struct request *request)
{
    for (uint32_t i = 0; i < request->count; i++) {
        db_args_fini(&request->args[i]);
        PQclear(request->results[i]);
    }
    free(request->args);
    free(request->results);
    free(request);
}

static void request_end(struct db *db, struct request *request)
{
    bool failed = request->err.code != ERR_NONE;

    if (failed)
        db->counters.failed++;
    for (struct request *one = request; one != NULL && !db->closing; one = one->same)
        one->on_done(failed ? &request->err : NULL, request->results + 1, request->count - 1,
                     one->call, one->arg);
    while (request != NULL) {
        struct request *same = request->same;
        request_free(request);
        request = same;
    }
}

static void dispatch(struct db *db);
static void link_down(struct link *link, const char *why);

const struct db_sight db_sight_own = {.all = true};

static void add_id_or_empty(struct db_args *args, int64_t id)
{
    if (id == 0)
        db_add_text(args, "");
    else
        db_add_int(args, id);
}

static void sight_args(const struct db_sight *sight, struct db_args *ret_args)
{
    db_args_init(ret_args, QUERY_SIGHT);
    db_add_text(ret_args, sight->all ? "t" : "");
    add_id_or_empty(ret_args, sight->project);
    add_id_or_empty(ret_args, sight->provider);
}

void db_ask(struct db *db, const struct db_sight *sight, struct db_args *args, uint32_t count,
            db_on_done_f on_done, uint64_t call, void *arg)
{
    struct request *request = mem_new(1, sizeof(*request));

    request->sight = *sight;
    request->args = mem_new((size_t)count + 1, sizeof(*args));
    sight_args(sight, &request->args[0]);
    memcpy(request->args + 1, args, count * sizeof(*args));
    for (uint32_t i = 0; i < count; i++) {
        BUG_ON(args[i].bytes.full);
        db_args_init(&args[i], args[i].query);
    }
    request->count = count + 1;
    request->results = mem_new(request->count, sizeof(PGresult *));
    request->on_done = on_done;
    request->call = call;
    request->arg = arg;
    request->since_us = clock_mono_us();
    db->counters.requests++;
    request_share(request);
    struct request *first =
        request->shared ? map_get(&db->waiting, request->key, SHA256_SIZE) : NULL;
    if (first != NULL) {
        request->same = first->same;
        first->same = request;
        db->counters.shared++;
        return;
    }
    waiting_enter(db, request);
    /* Beyond the queue's bound the sweep answers it on the next turn: never from in here. */
    if (db->counters.queued >= MAX_QUEUE)
        request->since_us -= WAIT_US;
    if (db->last != NULL)
        db->last->next = request;
    else
        db->first = request;
    db->last = request;
    db->counters.queued++;
    if (db->counters.queued > MAX_QUEUE)
        event_active(db->sweep, EV_TIMEOUT, 0);
    event_active(db->soon, EV_TIMEOUT, 0);
}

/* The first that does not run already; NULL if there is none. */
static struct request *take_next(struct db *db)
{
    struct request *before = NULL;
    struct request *request = db->first;

    while (request != NULL && request->shared
           && map_get(&db->running, request->key, SHA256_SIZE) != NULL) {
        before = request;
        request = request->next;
    }
    if (request == NULL)
        return NULL;
    if (before != NULL)
        before->next = request->next;
    else
        db->first = request->next;
    if (db->last == request)
        db->last = before;
    request->next = NULL;
    db->counters.queued--;
    waiting_leave(db, request);
    return request;
}

/* Queued for too long: nobody waits any more. */
static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct db *db = arg;
    int64_t now_us = clock_mono_us();
    struct request *late = NULL;
    struct request **tail = &late;
    struct request **at = &db->first;
    struct timeval second = {.tv_sec = 1};

    (void)fd;
    (void)what;
    db->last = NULL;
    while (*at != NULL) {
        struct request *request = *at;
        if (now_us - request->since_us >= WAIT_US) {
            *at = request->next;
            request->next = NULL;
            *tail = request;
            tail = &request->next;
            db->counters.queued--;
            waiting_leave(db, request);
        } else {
            db->last = request;
            at = &request->next;
        }
    }
    evtimer_add(db->sweep, &second);
    while (late != NULL) {
        struct request *next = late->next;
        (void)err_set(&late->err, ERR_UNAVAILABLE, "the database does not answer in time");
        request_end(db, late);
        late = next;
    }
}

/* -- one connection ------------------------------------------------------------------------- */

static bool send_statement(struct link *link, struct db_args *args)
{
    const struct query *query = query_get(args->query);
    const char *values[DB_MAX_ARGS];
    int lengths[DB_MAX_ARGS];
    int formats[DB_MAX_ARGS];

    if (!link->prepared[args->query] && !link->asked[args->query]) {
        if (!PQsendPrepare(link->pg, query->name, query->sql, 0, NULL))
            return false;
        link->asked[args->query] = true;
    }
    /* An empty binary value still needs a pointer, or it would be a null. */
    const char *bytes = args->bytes.data == NULL ? "" : args->bytes.data;
    for (uint32_t i = 0; i < args->count; i++) {
        values[i] = args->arg[i].null ? NULL : bytes + args->arg[i].offset;
        lengths[i] = args->arg[i].length;
        formats[i] = args->arg[i].binary;
    }
    return PQsendQueryPrepared(link->pg, query->name, (int)args->count, values, lengths, formats,
                               0);
}

static void link_watch(struct link *link, short what)
{
    event_del(link->event);
    event_assign(link->event, link->db->base, PQsocket(link->pg), (short)(what | EV_PERSIST),
                 event_get_callback(link->event), link);
    event_add(link->event, NULL);
}

static bool link_flush(struct link *link)
{
    int rc = PQflush(link->pg);

    if (rc < 0)
        return false;
    link_watch(link, rc == 1 ? EV_READ | EV_WRITE : EV_READ);
    return true;
}

static bool link_has_sight(const struct link *link, const struct db_sight *sight)
{
    return link->sighted && link->sight.all == sight->all && link->sight.project == sight->project
           && link->sight.provider == sight->provider;
}

static void link_start(struct link *link, struct request *request)
{
    bool sent = true;

    link->request = request;
    if (request->shared)
        map_put(&link->db->running, request->key, SHA256_SIZE, request);
    link->state = LINK_BUSY;
    memset(link->asked, 0, sizeof(link->asked));
    /* A caller's requests follow each other: what the session knows is not said again. */
    request->done = link_has_sight(link, &request->sight) ? 1 : 0;
    link->sighted = false;
    for (uint32_t i = request->done; i < request->count && sent; i++)
        sent = send_statement(link, &request->args[i]);
    request->preparing = link->asked[request->args[request->done].query];
    if (!sent || !PQpipelineSync(link->pg) || !link_flush(link))
        link_down(link, PQerrorMessage(link->pg));
}

/* An idle connection for this sight, at best one that has it; NULL when all are busy. */
static struct link *link_for(struct db *db, const struct db_sight *sight)
{
    struct link *idle = NULL;

    for (uint32_t i = 0; i < db->link_count; i++) {
        struct link *link = &db->links[i];
        if (link->state != LINK_IDLE)
            continue;
        if (link_has_sight(link, sight))
            return link;
        idle = link;
    }
    return idle;
}

static void dispatch(struct db *db)
{
    struct request *request;

    while (db->first != NULL && link_for(db, &db->first->sight) != NULL
           && (request = take_next(db)) != NULL)
        link_start(link_for(db, &request->sight), request);
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    dispatch(arg);
}

static void note_error(struct request *request, const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

    if (request->err.code != ERR_NONE)
        return;
    /* 57P: it is being stopped, or starts (PostgreSQL, appendix A): not about what was asked. */
    enum err_code code =
        state != NULL && strncmp(state, "57P", 3) == 0 ? ERR_UNAVAILABLE : ERR_DATABASE;
    (void)err_set(&request->err, code, "%s %s", state != NULL ? state : "",
                  text != NULL ? text : PQresultErrorMessage(result));
    log_error(
        "db", "refused", "query=%s detail=" LOG_Q,
        query_get(request->args[request->done < request->count ? request->done : 0].query)->name,
        request->err.text);
}

/* One result of the running request. True when it was the last: the sync point. */
static bool take_result(struct link *link, PGresult *result)
{
    struct request *request = link->request;
    ExecStatusType status = PQresultStatus(result);

    if (status == PGRES_PIPELINE_SYNC) {
        PQclear(result);
        return true;
    }
    if (status == PGRES_FATAL_ERROR)
        note_error(request, result);
    if (request->preparing || request->done >= request->count) {
        if (status == PGRES_COMMAND_OK && request->done < request->count)
            link->prepared[request->args[request->done].query] = true;
        PQclear(result);
        return false;
    }
    PQclear(request->results[request->done]);
    request->results[request->done] = result;
    return false;
}

/* A null marks the end of one command's results: on to the next. */
static void next_command(struct link *link)
{
    struct request *request = link->request;

    if (request->preparing) {
        request->preparing = false;
        link->asked[request->args[request->done].query] = false;
        return;
    }
    request->done++;
    if (request->done < request->count)
        request->preparing = link->asked[request->args[request->done].query];
}

static void link_finish(struct link *link)
{
    struct db *db = link->db;
    struct request *request = link->request;

    link->request = NULL;
    link->state = LINK_IDLE;
    running_leave(db, request);
    /* A request that failed was rolled back, its sight with it: then the session's is not known. */
    link->sighted = request->err.code == ERR_NONE;
    link->sight = request->sight;
    request_end(db, request);
    dispatch(db);
}

static void link_read(struct link *link)
{
    if (!PQconsumeInput(link->pg)) {
        link_down(link, PQerrorMessage(link->pg));
        return;
    }
    while (link->state == LINK_BUSY && !PQisBusy(link->pg)) {
        PGresult *result = PQgetResult(link->pg);
        if (result == NULL) {
            if (PQstatus(link->pg) == CONNECTION_BAD) {
                link_down(link, "connection lost");
                return;
            }
            next_command(link);
        } else if (take_result(link, result)) {
            link_finish(link);
        }
    }
    if (PQstatus(link->pg) == CONNECTION_BAD)
        link_down(link, PQerrorMessage(link->pg));
}

static void link_up(struct link *link)
{
    if (!PQenterPipelineMode(link->pg)) {
        link_down(link, PQerrorMessage(link->pg));
        return;
    }
    link->state = LINK_IDLE;
    link->backoff_ms = BACKOFF_FIRST_MS;
    link->db->counters.up++;
    link->db->down_us = 0;
    link->db->counters.connects++;
    (void)PQsetnonblocking(link->pg, 1);
    evtimer_del(link->timer);
    link_watch(link, EV_READ);
    dispatch(link->db);
}

static void link_poll(struct link *link)
{
    switch (PQconnectPoll(link->pg)) {
    case PGRES_POLLING_READING:
        link_watch(link, EV_READ);
        break;
    case PGRES_POLLING_WRITING:
        link_watch(link, EV_WRITE);
        break;
    case PGRES_POLLING_OK:
        link_up(link);
        break;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
    default:
        link_down(link, PQerrorMessage(link->pg));
        break;
    }
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct link *link = arg;

    (void)fd;
    if (link->state == LINK_CONNECTING) {
        link_poll(link);
        return;
    }
    if ((what & EV_WRITE) != 0 && !link_flush(link)) {
        link_down(link, PQerrorMessage(link->pg));
        return;
    }
    if ((what & EV_READ) != 0)
        link_read(link);
}

static void link_connect(struct link *link)
{
    const char *keys[] = {"dbname", "application_name", "connect_timeout", "options", NULL};
    const char *values[] = {link->db->conninfo, "sheaf-gateway", "5",
                            "-c statement_timeout=15s -c timezone=UTC", NULL};
    struct timeval timeout = {.tv_sec = 10};

    link->pg = PQconnectStartParams(keys, values, 1);
    link->state = LINK_CONNECTING;
    if (link->pg == NULL || PQstatus(link->pg) == CONNECTION_BAD) {
        link_down(link, link->pg != NULL ? PQerrorMessage(link->pg) : "out of memory");
        return;
    }
    evtimer_add(link->timer, &timeout);
    link_watch(link, EV_WRITE);
}

/* Back-off over while down; connecting for too long otherwise. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct link *link = arg;

    (void)fd;
    (void)what;
    if (link->state == LINK_DOWN)
        link_connect(link);
    else if (link->state == LINK_CONNECTING)
        link_down(link, "connecting took too long");
}

/* The request in flight is asked once more elsewhere: reads, and inserts that do nothing twice. */
static void request_again(struct db *db, struct request *request)
{
    if (request->retried) {
        (void)err_set(&request->err, ERR_UNAVAILABLE, "the connection to the database was lost");
        request_end(db, request);
        return;
    }
    request->retried = true;
    request->err.code = ERR_NONE;
    for (uint32_t i = 0; i < request->count; i++) {
        PQclear(request->results[i]);
        request->results[i] = NULL;
    }
    request->next = db->first;
    db->first = request;
    if (db->last == NULL)
        db->last = request;
    db->counters.queued++;
    if (map_get(&db->waiting, request->key, SHA256_SIZE) == NULL)
        waiting_enter(db, request);
}

static void link_down(struct link *link, const char *why)
{
    struct db *db = link->db;
    struct request *request = link->request;
    struct timeval wait = {.tv_sec = link->backoff_ms / 1000,
                           .tv_usec = (suseconds_t)(link->backoff_ms % 1000) * 1000};

    if (!db->closing)
        log_warn("db", "down", "detail=" LOG_Q, why);
    if (link->state == LINK_IDLE || link->state == LINK_BUSY)
        db->counters.up--;
    if (db->counters.up == 0 && db->down_us == 0)
        db->down_us = clock_mono_us();
    event_del(link->event);
    PQfinish(link->pg);
    link->pg = NULL;
    link->state = LINK_DOWN;
    link->sighted = false;
    link->request = NULL;
    memset(link->prepared, 0, sizeof(link->prepared));
    link->backoff_ms =
        link->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : link->backoff_ms * 2;
    evtimer_add(link->timer, &wait);
    if (request != NULL) {
        running_leave(db, request);
        request_again(db, request);
    }
}

/* -- the pool ------------------------------------------------------------------------------- */

struct db *db_new(struct event_base *base, const char *conninfo, uint32_t connections)
{
    struct db *db = mem_new(1, sizeof(*db));
    struct timeval second = {.tv_sec = 1};

    db->base = base;
    map_init(&db->waiting);
    map_init(&db->running);
    db->down_us = clock_mono_us();
    db->conninfo = mem_strdup(conninfo);
    db->links = mem_new(connections, sizeof(*db->links));
    db->link_count = connections;
    db->sweep = evtimer_new(base, on_sweep, db);
    db->soon = evtimer_new(base, on_soon, db);
    evtimer_add(db->sweep, &second);
    for (uint32_t i = 0; i < connections; i++) {
        struct link *link = &db->links[i];
        link->db = db;
        link->backoff_ms = BACKOFF_FIRST_MS;
        link->event = event_new(base, -1, 0, on_socket, link);
        link->timer = evtimer_new(base, on_timer, link);
        link_connect(link);
    }
    return db;
}

void db_free(struct db *db)
{
    if (db == NULL)
        return;
    db->closing = true;
    for (uint32_t i = 0; i < db->link_count; i++) {
        struct link *link = &db->links[i];
        event_free(link->event);
        event_free(link->timer);
        PQfinish(link->pg);
        if (link->request != NULL) {
            running_leave(db, link->request);
            request_end(db, link->request);
        }
    }
    while (db->first != NULL)
        request_end(db, take_next(db));
    map_fini(&db->waiting);
    map_fini(&db->running);
    event_free(db->sweep);
    event_free(db->soon);
    free(db->links);
    free(db->conninfo);
    free(db);
}

void db_set_conninfo(struct db *db, const char *conninfo)
{
    free(db->conninfo);
    db->conninfo = mem_strdup(conninfo);
}

bool db_is_down(const struct db *db)
{
    return db->down_us != 0 && clock_mono_us() - db->down_us >= DOWN_US;
}

bool db_is_up(const struct db *db)
{
    return db->counters.up > 0;
}

struct db_counters db_counters(const struct db *db)
{
    return db->counters;
}
