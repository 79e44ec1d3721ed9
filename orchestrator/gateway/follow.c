#include "orchestrator/gateway/follow.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "common/io/clock.h"
#include "common/io/json.h"
#include "common/pure/mem.h"
#include "common/pure/spec.h"
#include "orchestrator/gateway/api.h"
#include "orchestrator/gateway/number.h"
#include "orchestrator/gateway/sse.h"

#define PIECE_MAX    ((size_t)256 << 10) /* bulk.proto: raw bytes of one log piece */
#define PAGE_PIECES  32                  /* per query: 8 MiB at worst */
#define PAGE_EVENTS  100                 /* as in QUERY_EVENTS_AFTER */
#define HEARTBEAT_US ((int64_t)15000000)
/* Pieces that came in through another gateway wake nobody here: look after this time. */
#define POLL_US ((int64_t)5000000)
/* After an attempt is over the last pieces of a rank that was lost may still travel. A stream with
 * pieces says when it ends; one without has ended when its rank has delivered. */
#define GRACE_US ((int64_t)5000000)
/* A gang's process ranks x 2 streams; more are followed with ?rank=. */
#define CURSORS_MAX (2u * SPEC_MAX_NODES * SPEC_MAX_GPUS_PER_NODE)

enum follower_kind {
    FOLLOW_EVENTS,
    FOLLOW_LOGS,
};

struct follower {
    struct follow *follow;
    struct follower *prev;
    struct follower *next;
    uint64_t call;
    struct uuid job;
    char state[16]; /* of the job, as last read */
    int64_t wrote_us;
    int64_t asked_us;
    int64_t after; /* events: last id sent */
    /* Logs: */
    int64_t rank;   /* filter; -1 = all */
    uint64_t epoch; /* wanted next, or being read */
    int64_t day;
    int64_t over_us;
    struct log_cursor *cursors;
    char *resume;
    struct uuid attempt;
    uint32_t cursor_count;
    uint32_t stream; /* filter; 0 = both */
    enum follower_kind kind;
    bool reading; /* attempt, day and cursors are those of epoch */
    bool over;    /* that attempt is */
    bool stored;  /* so are all its pieces: every rank delivered */
    /* Both: */
    bool final; /* the job is */
    bool swept; /* its logs were deleted, and that was said */
    bool plain; /* text/plain: bytes as they are */
    bool tail;  /* stay after what is there */
    bool asking;
    bool woken;   /* while asking */
    bool stalled; /* the client has enough to read */
};

struct follow {
    struct gateway *gateway;
    struct follower *first;
    uint64_t count;
    struct event *tick;
};

static void pump(struct follower *follower, struct http_call *call);

/* -- writing -------------------------------------------------------------------------------- */

static void write_buf(struct follower *follower, struct http_call *call, struct buf *buf)
{
    http_stream_write(call, buf->data, buf->length);
    buf_fini(buf);
    follower->wrote_us = clock_mono_us();
}

static void write_event(struct follower *follower, struct http_call *call, const char *event,
                        const char *id, json_t *data)
{
    struct buf buf;
    char *text = json_write(data);

    json_decref(data);
    buf_init(&buf, 0);
    sse_event(&buf, event, id, text);
    free(text);
    write_buf(follower, call, &buf);
}

/* First answer of the database: the job exists and is the caller's to see. */
static void begin(struct follower *follower, struct http_call *call)
{
    if (http_is_streaming(call))
        return;
    http_stream_begin(call, 200, follower->plain ? "text/plain; charset=utf-8" : SSE_TYPE,
                      HTTP_UNKNOWN_SIZE);
    follower->wrote_us = clock_mono_us();
}

static void finish(struct follower *follower, struct http_call *call)
{
    if (!follower->plain)
        write_event(follower, call, "end", NULL, json_pack("{s:s}", "state", follower->state));
    http_stream_end(call);
}

static void take_state(struct follower *follower, const char *state)
{
    snprintf(follower->state, sizeof(follower->state), "%s", state);
    follower->final = job_state_is_final(job_state_parse(state));
}

/* -- events --------------------------------------------------------------------------------- */

static void take_events(struct follower *follower, struct http_call *call, const PGresult *rows)
{
    int count = PQntuples(rows);

    take_state(follower, PQgetvalue(rows, 0, 0));
    begin(follower, call);
    for (int i = 0; i < count && !PQgetisnull(rows, i, 1); i++) {
        struct buf buf;
        buf_init(&buf, 0);
        sse_event(&buf, "state", PQgetvalue(rows, i, 1), PQgetvalue(rows, i, 2));
        write_buf(follower, call, &buf);
        follower->after = db_int(rows, i, 1);
    }
    if (count >= PAGE_EVENTS)
        follower->woken = true;
    else if (follower->final)
        finish(follower, call);
}

/* -- logs ----------------------------------------------------------------------------------- */

static void cursors_make(struct follower *follower, uint32_t processes)
{
    uint32_t first = follower->rank >= 0 ? (uint32_t)follower->rank : 0;
    uint32_t ranks = follower->rank >= 0 ? 1 : processes;
    uint32_t count = 0;

    free(follower->cursors);
    follower->cursors = mem_new((size_t)ranks * 2 + 1, sizeof(*follower->cursors));
    for (uint32_t rank = first; rank < first + ranks; rank++) {
        for (uint32_t stream = 1; stream <= 2; stream++) {
            if (follower->stream != 0 && follower->stream != stream)
                continue;
            follower->cursors[count].rank = rank;
            follower->cursors[count].stream = stream;
            count++;
        }
    }
    follower->cursor_count = count;
    if (follower->resume != NULL)
        sse_log_resume(follower->resume, follower->cursors, count);
    free(follower->resume);
    follower->resume = NULL;
}

static struct log_cursor *cursor_find(struct follower *follower, uint32_t rank, uint32_t stream,
                                      uint32_t *ret_index)
{
    for (uint32_t i = 0; i < follower->cursor_count; i++) {
        if (follower->cursors[i].rank == rank && follower->cursors[i].stream == stream) {
            *ret_index = i;
            return &follower->cursors[i];
        }
    }
    return NULL;
}

static void write_gap(struct follower *follower, struct http_call *call,
                      const struct log_cursor *cursor, uint64_t to)
{
    if (follower->plain)
        return;
    write_event(follower, call, "gap", NULL,
                json_pack("{s:I,s:s,s:I,s:I}", "rank", (json_int_t)cursor->rank, "stream",
                          cursor->stream == 1 ? "stdout" : "stderr", "from",
                          (json_int_t)cursor->next, "to", (json_int_t)to));
}

static void write_piece(struct follower *follower, struct http_call *call, uint32_t index,
                        int64_t at_us, const uint8_t *bytes, size_t size)
{
    struct log_cursor *cursor = &follower->cursors[index];
    struct buf text;
    struct buf id;

    if (follower->plain) {
        http_stream_write(call, bytes, size);
        follower->wrote_us = clock_mono_us();
        return;
    }
    buf_init(&text, 0);
    buf_init(&id, 0);
    sse_text(&cursor->carry, bytes, size, &text);
    if (text.length > 0) {
        sse_log_id(&id, follower->epoch, follower->cursors, follower->cursor_count, index);
        write_event(follower, call, "log", id.data,
                    json_pack("{s:o,s:I,s:s,s:s%,s:I}", "at", json_time(at_us), "rank",
                              (json_int_t)cursor->rank, "stream",
                              cursor->stream == 1 ? "stdout" : "stderr", "text", text.data,
                              text.length, "attempt", (json_int_t)follower->epoch));
    }
    buf_fini(&text);
    buf_fini(&id);
}

/* One row of QUERY_LOG_PAGE: rank, stream, seq, at_us, raw_size, last, data. */
static void take_piece(struct follower *follower, struct http_call *call, const PGresult *rows,
                       int i)
{
    static uint8_t raw[PIECE_MAX];
    uint32_t index;
    uint64_t seq = (uint64_t)db_int(rows, i, 2);
    struct log_cursor *cursor =
        cursor_find(follower, (uint32_t)db_int(rows, i, 0), (uint32_t)db_int(rows, i, 1), &index);

    if (cursor == NULL || seq < cursor->next)
        return;
    if (seq > cursor->next)
        write_gap(follower, call, cursor, seq - 1);
    size_t packed_size = 0;
    union {
        char *in;
        const unsigned char *out;
    } field = {.in = PQgetvalue(rows, i, 6)};
    unsigned char *packed = PQunescapeBytea(field.out, &packed_size);
    size_t size = packed != NULL && packed_size > 0
                      ? ZSTD_decompress(raw, sizeof(raw), packed, packed_size)
                      : 0;
    cursor->next = seq;
    if (ZSTD_isError(size))
        write_gap(follower, call, cursor, seq);
    cursor->next = seq + 1;
    if (!ZSTD_isError(size) && size > 0)
        write_piece(follower, call, index, db_int(rows, i, 3), raw, size);
    if (PQgetvalue(rows, i, 5)[0] == 't')
        cursor->last = true;
    PQfreemem(packed);
}

static bool streams_ended(const struct follower *follower)
{
    if (follower->stored)
        return true;
    for (uint32_t i = 0; i < follower->cursor_count; i++) {
        if (!follower->cursors[i].last)
            return false;
    }
    return true;
}

/* All that is stored of this attempt was sent. Is it all that will ever be? */
static void page_ended(struct follower *follower)
{
    int64_t now_us = clock_mono_us();

    if (follower->over && follower->over_us == 0)
        follower->over_us = now_us;
    bool done = !follower->tail || (follower->over && streams_ended(follower))
                || (follower->over && now_us - follower->over_us >= GRACE_US);
    if (done) {
        follower->epoch++;
        follower->reading = false;
        follower->woken = true;
    }
}

static void take_page(struct follower *follower, struct http_call *call, const PGresult *rows)
{
    int count = PQntuples(rows);

    for (int i = 0; i < count; i++)
        take_piece(follower, call, rows, i);
    if (count >= PAGE_PIECES)
        follower->woken = true;
    else
        page_ended(follower);
}

/* Nothing will come, and there was something: that is said once. */
static void tell_swept(struct follower *follower, struct http_call *call)
{
    static const char text[] = "[sheaf: gap: the log was deleted, its time is over]\n";

    if (follower->swept)
        return;
    follower->swept = true;
    if (follower->plain)
        http_stream_write(call, text, sizeof(text) - 1);
    else
        write_event(follower, call, "gap", NULL,
                    json_pack("{s:s}", "detail", "the log was deleted, its time is over"));
}

static void take_log_job(struct follower *follower, struct http_call *call, const PGresult *row)
{
    take_state(follower, PQgetvalue(row, 0, 0));
    begin(follower, call);
    if (PQgetvalue(row, 0, 8)[0] == 't')
        tell_swept(follower, call);
    if (PQgetisnull(row, 0, 1)) { /* no attempt from here on */
        if (follower->final || !follower->tail)
            finish(follower, call);
        return;
    }
    uint64_t epoch = (uint64_t)db_int(row, 0, 1);
    follower->over = PQgetvalue(row, 0, 4)[0] == 't';
    follower->stored = PQgetvalue(row, 0, 9)[0] == 't';
    if (!follower->reading || epoch != follower->epoch) {
        if (epoch != follower->epoch) {
            free(follower->resume);
            follower->resume = NULL;
        }
        uint64_t processes = (uint64_t)db_int(row, 0, 5);
        if (strcmp(PQgetvalue(row, 0, 7), "device") == 0)
            processes *= (uint64_t)db_int(row, 0, 6);
        follower->epoch = epoch;
        follower->day = db_int(row, 0, 3);
        follower->over_us = 0;
        follower->reading = uuid_parse(PQgetvalue(row, 0, 2), &follower->attempt) == 0;
        cursors_make(follower, processes > CURSORS_MAX / 2 ? CURSORS_MAX / 2 : (uint32_t)processes);
    }
}

/* -- asking --------------------------------------------------------------------------------- */

static void on_answer(struct follower *follower, struct http_call *call, const struct err *err,
                      const PGresult *rows,
                      void (*take)(struct follower *, struct http_call *, const PGresult *),
                      bool may_be_empty)
{
    uint64_t id = follower->call;
    struct http_server *http = follower->follow->gateway->http;

    follower->asking = false;
    if (err != NULL && !http_is_streaming(call)) {
        http_problem(call, err);
        return;
    }
    if (err != NULL)
        return; /* the next tick asks again */
    if (PQntuples(rows) == 0 && !may_be_empty) {
        if (http_is_streaming(call))
            http_stream_abort(call);
        else
            http_problemf(call, ERR_NOT_FOUND, "no job with this id that you may see");
        return;
    }
    take(follower, call, rows);
    /* It may be over now, and with it the follower. */
    call = http_call_find(http, id);
    if (call != NULL && follower->woken)
        pump(follower, call);
}

#define ON_ROWS(name, take, may_be_empty)                                                          \
    static void name(const struct err *err, PGresult *const *results, uint32_t count, uint64_t id, \
                     void *arg)                                                                    \
    {                                                                                              \
        struct follow *follow = arg;                                                               \
        struct http_call *call = http_call_find(follow->gateway->http, id);                        \
        (void)count;                                                                               \
        if (call != NULL)                                                                          \
            on_answer(call->state, call, err, results[0], take, may_be_empty);                     \
    }
ON_ROWS(on_events, take_events, false)
ON_ROWS(on_page, take_page, true)

static void ask_page(struct follower *follower, const struct http_call *call)
{
    struct db_args args;
    struct buf list[3];

    for (int i = 0; i < 3; i++) {
        buf_init(&list[i], 0);
        buf_puts(&list[i], "{");
    }
    const char *comma = "";
    for (uint32_t i = 0; i < follower->cursor_count; i++) {
        const struct log_cursor *cursor = &follower->cursors[i];
        if (cursor->last)
            continue;
        buf_printf(&list[0], "%s%u", comma, cursor->rank);
        buf_printf(&list[1], "%s%u", comma, cursor->stream);
        buf_printf(&list[2], "%s%" PRIu64, comma, cursor->next);
        comma = ",";
    }
    db_args_init(&args, QUERY_LOG_PAGE);
    db_add_int(&args, follower->day);
    db_add_bytes(&args, follower->attempt.bytes, sizeof(follower->attempt.bytes));
    for (int i = 0; i < 3; i++) {
        buf_puts(&list[i], "}");
        db_add_text(&args, list[i].data);
        buf_fini(&list[i]);
    }
    db_add_int(&args, PAGE_PIECES);
    follower->asking = true;
    api_ask(follower->follow->gateway, call, &args, on_page, follower->follow);
}

static void on_log_job(const struct err *err, PGresult *const *results, uint32_t count, uint64_t id,
                       void *arg)
{
    struct follow *follow = arg;
    struct http_call *call = http_call_find(follow->gateway->http, id);

    (void)count;
    if (call == NULL)
        return;
    struct follower *follower = call->state;
    bool woken = follower->woken; /* its page comes first, or a busy job would never be read */
    follower->woken = false;
    on_answer(follower, call, err, results[0], take_log_job, false);
    call = http_call_find(follow->gateway->http, id);
    if (call == NULL || err != NULL)
        return;
    follower->woken = woken;
    if (follower->reading)
        ask_page(follower, call);
    else if (woken)
        pump(follower, call);
}

static void ask(struct follower *follower, struct http_call *call)
{
    struct gateway *gateway = follower->follow->gateway;
    struct db_args args;

    db_args_init(&args, follower->kind == FOLLOW_EVENTS ? QUERY_EVENTS_AFTER : QUERY_LOG_JOB);
    api_add_sight(&args, call);
    db_add_bytes(&args, follower->job.bytes, sizeof(follower->job.bytes));
    if (follower->kind == FOLLOW_EVENTS) {
        db_add_int(&args, follower->after);
        db_add_text(&args, gateway->reasons);
    } else {
        db_add_int(&args, (int64_t)follower->epoch);
    }
    follower->asking = true;
    api_ask(gateway, call, &args, follower->kind == FOLLOW_EVENTS ? on_events : on_log_job,
            follower->follow);
}

/* Asks for what is new, unless it is asking already or the client has not read the last. */
static void pump(struct follower *follower, struct http_call *call)
{
    if (follower->asking) {
        follower->woken = true;
        return;
    }
    follower->woken = false;
    if (http_is_streaming(call) && http_stream_waiting(call) >= HTTP_STREAM_ROOM) {
        follower->stalled = true;
        return;
    }
    follower->stalled = false;
    follower->asked_us = clock_mono_us();
    ask(follower, call);
}

static void on_room(struct http_call *call)
{
    struct follower *follower = call->state;

    if (follower->stalled)
        pump(follower, call);
}

/* -- followers ------------------------------------------------------------------------------ */

static void follower_free(struct http_call *call)
{
    struct follower *follower = call->state;

    if (follower->prev != NULL)
        follower->prev->next = follower->next;
    else
        follower->follow->first = follower->next;
    if (follower->next != NULL)
        follower->next->prev = follower->prev;
    follower->follow->count--;
    free(follower->cursors);
    free(follower->resume);
    free(follower);
}

static struct follower *follower_new(struct gateway *gateway, struct http_call *call,
                                     enum follower_kind kind)
{
    struct follower *follower = mem_new(1, sizeof(*follower));
    struct follow *follow = gateway->follow;

    follower->follow = follow;
    follower->kind = kind;
    follower->call = call->id;
    follower->rank = -1;
    follower->tail = true;
    if (uuid_parse(call->param[0], &follower->job) != 0)
        BUG_ON(true); /* the router has checked it */
    follower->next = follow->first;
    if (follower->next != NULL)
        follower->next->prev = follower;
    follow->first = follower;
    follow->count++;
    call->state = follower;
    call->on_end = follower_free;
    call->on_room = on_room;
    return follower;
}

void follow_wake(struct follow *follow, const struct uuid *job)
{
    struct follower *next;

    for (struct follower *follower = follow->first; follower != NULL; follower = next) {
        struct http_call *call = http_call_find(follow->gateway->http, follower->call);
        next = follower->next;
        if (call != NULL && (job == NULL || uuid_compare(job, &follower->job) == 0))
            pump(follower, call);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct follow *follow = arg;
    struct timeval second = {.tv_sec = 1};
    int64_t now_us = clock_mono_us();
    struct follower *next;

    (void)fd;
    (void)what;
    evtimer_add(follow->tick, &second);
    for (struct follower *follower = follow->first; follower != NULL; follower = next) {
        struct http_call *call = http_call_find(follow->gateway->http, follower->call);
        next = follower->next;
        if (call == NULL)
            continue;
        if (!follower->plain && http_is_streaming(call) && !follower->stalled
            && now_us - follower->wrote_us >= HEARTBEAT_US) {
            struct buf buf;
            buf_init(&buf, 0);
            sse_comment(&buf);
            write_buf(follower, call, &buf);
        }
        if (!follower->asking
            && (now_us - follower->asked_us >= POLL_US
                || (follower->over_us != 0 && now_us - follower->over_us >= GRACE_US)))
            pump(follower, call);
    }
}

struct follow *follow_new(struct gateway *gateway)
{
    struct follow *follow = mem_new(1, sizeof(*follow));
    struct timeval second = {.tv_sec = 1};

    follow->gateway = gateway;
    follow->tick = evtimer_new(gateway->base, on_tick, follow);
    evtimer_add(follow->tick, &second);
    return follow;
}

void follow_free(struct follow *follow)
{
    if (follow == NULL)
        return;
    event_free(follow->tick);
    free(follow);
}

uint64_t follow_count(const struct follow *follow)
{
    return follow->count;
}

/* -- handlers ------------------------------------------------------------------------------- */

static bool wants_stream(const struct http_call *call)
{
    const char *accept = http_field(call, "Accept");

    return accept != NULL && strstr(accept, "text/event-stream") != NULL;
}

void api_job_events(struct gateway *gateway, struct http_call *call)
{
    const char *last = http_field(call, "Last-Event-ID");
    uint64_t after = 0;

    if (!wants_stream(call)) {
        api_query(gateway, call);
        return;
    }
    if (last != NULL && *last != '\0' && !number_read(last, 18, &after)) {
        http_problemf(call, ERR_INVALID_CURSOR, "Last-Event-ID is no id of ours");
        return;
    }
    struct follower *follower = follower_new(gateway, call, FOLLOW_EVENTS);
    follower->after = (int64_t)after;
    pump(follower, call);
}

static int log_filters(struct http_call *call, int64_t *ret_rank, uint32_t *ret_stream,
                       struct err *err)
{
    const char *rank = http_query(call, "rank");
    const char *stream = http_query(call, "stream");
    uint64_t value;

    if (rank != NULL && *rank != '\0') {
        if (!number_read(rank, 5, &value))
            return err_set_at(err, ERR_OUT_OF_RANGE, "rank", "rank is not a number");
        *ret_rank = (int64_t)value;
    }
    if (stream != NULL && *stream != '\0') {
        *ret_stream = strcmp(stream, "stdout") == 0 ? 1 : strcmp(stream, "stderr") == 0 ? 2 : 0;
        if (*ret_stream == 0)
            return err_set_at(err, ERR_OUT_OF_RANGE, "stream", "stream is stdout or stderr");
    }
    return 0;
}

void api_job_logs(struct gateway *gateway, struct http_call *call)
{
    const char *last = http_field(call, "Last-Event-ID");
    const char *tail = http_query(call, "follow");
    struct err err = {0};
    int64_t rank = -1;
    uint32_t stream = 0;
    uint64_t epoch = 0;

    int rc = log_filters(call, &rank, &stream, &err);
    if (rc == 0 && last != NULL && *last != '\0' && !sse_log_epoch(last, &epoch))
        rc = err_set(&err, ERR_INVALID_CURSOR, "Last-Event-ID is no id of ours");
    if (rc != 0) {
        http_problem(call, &err);
        return;
    }
    struct follower *follower = follower_new(gateway, call, FOLLOW_LOGS);
    follower->rank = rank;
    follower->stream = stream;
    follower->plain = !wants_stream(call);
    follower->tail = tail != NULL && strcmp(tail, "0") != 0 && strcmp(tail, "false") != 0;
    follower->epoch = epoch;
    if (last != NULL && *last != '\0')
        follower->resume = mem_strdup(last);
    pump(follower, call);
}
