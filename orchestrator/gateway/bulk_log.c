/* Log pieces: who may write them, stored in batches, acknowledged after the commit. */
#include <stdlib.h>
#include <string.h>

#include "common/io/log.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/bulk_private.h"
#include "orchestrator/gateway/follow.h"

#define BATCH_PIECES 64
#define BATCH_BYTES  ((size_t)4 << 20)
#define RETRY_S      1
/* Attempts that a session is remembered to write for; a node runs far fewer at once. */
#define RANKS_MAX 256u

struct piece {
    struct piece *next;
    uint64_t session;
    uint8_t attempt[16];
    uint32_t rank;
    uint32_t stream;
    uint64_t seq;
    int64_t at_us;
    uint32_t raw_size;
    bool last;
    int64_t day;
    struct uuid job;
    size_t size;
    uint8_t data[];
};

struct pieces {
    struct piece *first;
    struct piece **last;
};

/* What the database said of a node's part in an attempt. */
struct bulk_rank {
    uint8_t attempt[16]; /* its key */
    bool known;
    bool allowed;
    uint32_t first; /* process ranks it may write for */
    uint32_t count;
    int64_t day;
    struct uuid job;
    struct pieces waiting; /* until known */
};

struct log_batch {
    struct bulk *bulk;
    struct pieces todo;
    struct pieces sent; /* in flight */
    uint32_t sent_count;
    bool one_by_one; /* the last batch was refused: find the piece at fault */
    struct event *retry;
};

static void pieces_init(struct pieces *pieces)
{
    pieces->first = NULL;
    pieces->last = &pieces->first;
}

static void pieces_put(struct pieces *pieces, struct piece *piece)
{
    piece->next = NULL;
    *pieces->last = piece;
    pieces->last = &piece->next;
}

static struct piece *pieces_take(struct pieces *pieces)
{
    struct piece *piece = pieces->first;

    if (piece != NULL) {
        pieces->first = piece->next;
        if (pieces->first == NULL)
            pieces->last = &pieces->first;
    }
    return piece;
}

static void pieces_free(struct pieces *pieces)
{
    for (struct piece *piece = pieces_take(pieces); piece != NULL; piece = pieces_take(pieces))
        free(piece);
}

/* -- storing -------------------------------------------------------------------------------- */

static void flush(struct log_batch *logs);

/* Stored, or given up: the worker may forget it and send as much again. */
static void settle(struct log_batch *logs, struct piece *piece)
{
    struct bulk *bulk = logs->bulk;
    struct bulk_session *session = bulk_session_find(bulk, piece->session);
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__LogAck ack = SHEAF__LOG_ACK__INIT;

    if (session != NULL) {
        ack.attempt_uid = (ProtobufCBinaryData){sizeof(piece->attempt), piece->attempt};
        ack.rank = piece->rank;
        ack.stream = piece->stream;
        ack.seq = piece->seq;
        message.body_case = SHEAF__BULK__BODY_LOG_ACK;
        message.log_ack = &ack;
        (void)bulk_send(bulk, session, &message);
        bulk_give_credit(bulk, session, piece->size);
    }
    free(piece);
}

static void settle_all(struct log_batch *logs, bool stored)
{
    struct uuid woken = {{0}};

    for (struct piece *piece = pieces_take(&logs->sent); piece != NULL;
         piece = pieces_take(&logs->sent)) {
        struct uuid job = piece->job;
        if (stored) {
            logs->bulk->counters.pieces++;
            logs->bulk->counters.piece_bytes += piece->size;
        }
        settle(logs, piece);
        if (stored && uuid_compare(&job, &woken) != 0) {
            woken = job;
            follow_wake(logs->bulk->gateway->follow, &job);
        }
    }
    logs->sent_count = 0;
}

/* Classes 08, 40, 53, 57: the database is in trouble, not the piece. */
static bool is_passing(const struct err *err)
{
    static const char *const classes[] = {"08", "25", "40", "53", "57"};

    if (err->code == ERR_UNAVAILABLE)
        return true;
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (strncmp(err->text, classes[i], 2) == 0)
            return true;
    }
    return false;
}

/* Back to the front of the queue, in order. */
static void put_back(struct log_batch *logs)
{
    if (logs->sent.first == NULL)
        return;
    *logs->sent.last = logs->todo.first;
    if (logs->todo.first == NULL)
        logs->todo.last = logs->sent.last;
    logs->todo.first = logs->sent.first;
    pieces_init(&logs->sent);
    logs->sent_count = 0;
}

static void on_stored(const struct err *err, PGresult *const *results, uint32_t count,
                      uint64_t call, void *arg)
{
    struct log_batch *logs = arg;
    struct timeval wait = {.tv_sec = RETRY_S};

    (void)results;
    (void)count;
    (void)call;
    if (err == NULL) {
        logs->one_by_one = false;
        settle_all(logs, true);
    } else if (is_passing(err)) {
        put_back(logs);
        evtimer_add(logs->retry, &wait);
        return;
    } else if (logs->sent_count == 1) {
        log_error("bulk", "piece-dropped", "detail=" LOG_Q, err->text);
        settle_all(logs, false);
    } else {
        logs->one_by_one = true;
        put_back(logs);
    }
    flush(logs);
}

static void piece_args(const struct piece *piece, struct db_args *args)
{
    db_args_init(args, QUERY_LOG_INSERT);
    db_add_int(args, piece->day);
    db_add_bytes(args, piece->attempt, sizeof(piece->attempt));
    db_add_int(args, (int64_t)piece->rank);
    db_add_int(args, (int64_t)piece->stream);
    db_add_int(args, (int64_t)piece->seq);
    db_add_int(args, piece->at_us);
    db_add_int(args, (int64_t)piece->raw_size);
    db_add_text(args, piece->last ? "t" : "f");
    db_add_bytes(args, piece->data, piece->size);
}

static void flush(struct log_batch *logs)
{
    struct db_args args[BATCH_PIECES];
    size_t bytes = 0;
    uint32_t limit = logs->one_by_one ? 1 : BATCH_PIECES;

    if (logs->sent.first != NULL || evtimer_pending(logs->retry, NULL))
        return;
    while (logs->todo.first != NULL && logs->sent_count < limit && bytes < BATCH_BYTES) {
        struct piece *piece = pieces_take(&logs->todo);
        piece_args(piece, &args[logs->sent_count++]);
        bytes += piece->size;
        pieces_put(&logs->sent, piece);
    }
    if (logs->sent_count > 0)
        db_ask(logs->bulk->gateway->db, &db_sight_own, args, logs->sent_count, on_stored, 0, logs);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    flush(arg);
}

struct log_batch *log_batch_new(struct bulk *bulk)
{
    struct log_batch *logs = mem_new(1, sizeof(*logs));

    logs->bulk = bulk;
    pieces_init(&logs->todo);
    pieces_init(&logs->sent);
    logs->retry = evtimer_new(bulk->gateway->base, on_retry, logs);
    return logs;
}

void log_batch_free(struct log_batch *logs)
{
    if (logs == NULL)
        return;
    event_free(logs->retry);
    pieces_free(&logs->todo);
    pieces_free(&logs->sent);
    free(logs);
}

/* -- who may write what --------------------------------------------------------------------- */

static void admit(struct bulk *bulk, struct bulk_session *session, const struct bulk_rank *rank,
                  struct piece *piece)
{
    if (!rank->allowed || piece->rank < rank->first || piece->rank - rank->first >= rank->count) {
        bulk_error(bulk, session, ERR_NOT_FOUND, "a log of a rank that is not yours", NULL);
        bulk_give_credit(bulk, session, piece->size);
        free(piece);
        return;
    }
    piece->day = rank->day;
    piece->job = rank->job;
    pieces_put(&bulk->logs->todo, piece);
}

/* Columns of QUERY_BULK_RANK: node uid, rank, day, job uid, epoch, gpus, launch. */
static void rank_read(struct bulk_rank *rank, const PGresult *row)
{
    rank->known = true;
    rank->allowed = PQntuples(row) == 1 && uuid_parse(PQgetvalue(row, 0, 3), &rank->job) == 0;
    if (!rank->allowed)
        return;
    rank->first = (uint32_t)db_int(row, 0, 1);
    rank->count = 1;
    rank->day = db_int(row, 0, 2);
    if (strcmp(PQgetvalue(row, 0, 6), "device") == 0) {
        rank->count = (uint32_t)db_int(row, 0, 5);
        rank->first *= rank->count;
    }
}

struct rank_lookup {
    struct bulk *bulk;
    uint8_t attempt[16];
};

static void on_rank(const struct err *err, PGresult *const *results, uint32_t count, uint64_t id,
                    void *arg)
{
    struct rank_lookup *lookup = arg;
    struct bulk *bulk = lookup->bulk;
    struct bulk_session *session = bulk_session_find(bulk, id);
    struct bulk_rank *rank = session != NULL ? map_get(&session->ranks, lookup->attempt, 16) : NULL;

    (void)count;
    if (rank != NULL && err == NULL) {
        rank_read(rank, results[0]);
        for (struct piece *piece = pieces_take(&rank->waiting); piece != NULL;
             piece = pieces_take(&rank->waiting))
            admit(bulk, session, rank, piece);
        /* "Not yours" may be too early: the next piece asks again. */
        if (!rank->allowed)
            free(map_remove(&session->ranks, lookup->attempt, 16));
        flush(bulk->logs);
    } else if (rank != NULL) {
        struct db_args args;
        db_args_init(&args, QUERY_BULK_RANK);
        db_add_bytes(&args, lookup->attempt, 16);
        db_add_bytes(&args, session->key, KEY_SIZE);
        db_ask(bulk->gateway->db, &db_sight_own, &args, 1, on_rank, id, lookup);
        return;
    }
    free(lookup);
}

static struct bulk_rank *rank_ask(struct bulk *bulk, struct bulk_session *session,
                                  const uint8_t attempt[16])
{
    struct bulk_rank *rank = mem_new(1, sizeof(*rank));
    struct rank_lookup *lookup = mem_new(1, sizeof(*lookup));
    struct db_args args;

    pieces_init(&rank->waiting);
    memcpy(rank->attempt, attempt, sizeof(rank->attempt));
    map_put(&session->ranks, attempt, 16, rank);
    lookup->bulk = bulk;
    memcpy(lookup->attempt, attempt, 16);
    db_args_init(&args, QUERY_BULK_RANK);
    db_add_bytes(&args, attempt, 16);
    db_add_bytes(&args, session->key, KEY_SIZE);
    db_ask(bulk->gateway->db, &db_sight_own, &args, 1, on_rank, session->id, lookup);
    return rank;
}

static bool piece_is_sane(const Sheaf__LogPiece *piece)
{
    return piece->attempt_uid.len == 16 && piece->stream >= 1 && piece->stream <= 2
           && piece->rank < SPEC_MAX_NODES * SPEC_MAX_GPUS_PER_NODE && piece->seq < INT64_MAX
           && piece->at_us < INT64_MAX && piece->raw_size <= BULK_PIECE
           && piece->data.len <= BULK_PACKED;
}

/*
 * Forgets what can be asked anew. A rank that is being asked for stays: its pieces wait here, and
 * their sender has no reason to send them again. False: there is still no room.
 */
static bool ranks_make_room(struct bulk_session *session)
{
    for (uint32_t i = session->ranks.count; i-- > 0;) {
        struct bulk_rank *rank = map_at(&session->ranks, i);
        if (rank->known)
            free(map_remove(&session->ranks, rank->attempt, sizeof(rank->attempt)));
    }
    return session->ranks.count < RANKS_MAX;
}

void bulk_on_log(struct bulk *bulk, struct bulk_session *session, const Sheaf__LogPiece *log)
{
    if (!piece_is_sane(log)) {
        bulk_error(bulk, session, ERR_OUT_OF_RANGE, "a log piece beyond its bounds", NULL);
        bulk_give_credit(bulk, session, log->data.len);
        return;
    }
    struct piece *piece = mem_new(1, sizeof(*piece) + log->data.len);
    piece->session = session->id;
    memcpy(piece->attempt, log->attempt_uid.data, 16);
    piece->rank = log->rank;
    piece->stream = log->stream;
    piece->seq = log->seq;
    piece->at_us = (int64_t)log->at_us;
    piece->raw_size = log->raw_size;
    piece->last = log->last;
    piece->size = log->data.len;
    if (log->data.len > 0)
        memcpy(piece->data, log->data.data, log->data.len);
    struct bulk_rank *rank = map_get(&session->ranks, piece->attempt, 16);
    if (rank == NULL) {
        if (session->ranks.count >= RANKS_MAX && !ranks_make_room(session)) {
            /* The worker redials, and sends all that was not acknowledged. */
            bulk_error(bulk, session, ERR_TOO_MANY, "logs of too many ranks at once", NULL);
            bulk_give_credit(bulk, session, piece->size);
            free(piece);
            return;
        }
        rank = rank_ask(bulk, session, piece->attempt);
    }
    if (!rank->known) {
        pieces_put(&rank->waiting, piece);
        return;
    }
    admit(bulk, session, rank, piece);
    flush(bulk->logs);
}

void bulk_logs_end(struct bulk_session *session)
{
    for (uint32_t i = 0; i < session->ranks.count; i++) {
        struct bulk_rank *rank = map_at(&session->ranks, i);
        pieces_free(&rank->waiting);
        free(rank);
    }
    map_fini(&session->ranks);
    map_init(&session->ranks);
}
