#include "orchestrator/gateway/bulk.h"

#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/bulk_private.h"
#include "orchestrator/gateway/command.h"

#define DOMAIN "bulk"
/* Keys are read at hints; this often in case a hint was lost. */
#define TICK_S  30
#define FIRST_S 2 /* until they were read once */
/* A worker that says nothing for so long must greet again. */
#define SESSION_IDLE_US ((int64_t)900000000)
/* Messages in either direction per peer: far more than credit allows. */
#define HIGH_WATER 1000
/*
 * Bytes that may have come and not be delivered, of one connection and of all. A worker within its
 * credit holds BULK_CREDIT at most, and is never ended for what all hold.
 */
#define HELD_ONE   (2 * BULK_CREDIT)
#define HELD_ALL   ((uint64_t)64 << 20)
#define HELD_SPARE (BULK_CREDIT + BULK_CREDIT / 4)
/* A key that flooded may not connect for so long. */
#define FLOOD_US ((int64_t)60000000)

/* -- sessions ------------------------------------------------------------------------------- */

struct bulk_session *bulk_session_find(struct bulk *bulk, uint64_t id)
{
    return map_get_id(&bulk->sessions, id);
}

static void session_end(struct bulk *bulk, struct bulk_session *session)
{
    map_remove_id(&bulk->sessions, session->id);
    map_remove(&bulk->by_key, session->key, KEY_SIZE);
    bulk_files_end(session);
    bulk_logs_end(session);
    free(session);
}

bool bulk_send(struct bulk *bulk, struct bulk_session *session, Sheaf__Bulk *message)
{
    struct buf bytes;

    message->protocol = 1;
    buf_init(&bytes, BULK_FRAME);
    frame_encode(&message->base, &bytes);
    BUG_ON(bytes.full);
    int rc = zsock_send(bulk->socket, session->identity, session->identity_size, bytes.data,
                        bytes.length);
    buf_fini(&bytes);
    return rc == 0;
}

void bulk_error(struct bulk *bulk, struct bulk_session *session, enum err_code code,
                const char *detail, const uint8_t *sha256)
{
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__BulkError error = SHEAF__BULK_ERROR__INIT;
    union {
        const char *in;
        char *out;
    } slug = {.in = err_slug(code)}, text = {.in = detail};
    union {
        const uint8_t *in;
        uint8_t *out;
    } hash = {.in = sha256};

    bulk->counters.refused++;
    error.code = slug.out;
    error.detail = text.out;
    if (sha256 != NULL)
        error.sha256 = (ProtobufCBinaryData){SHA256_SIZE, hash.out};
    message.body_case = SHEAF__BULK__BODY_ERROR;
    message.error = &error;
    (void)bulk_send(bulk, session, &message);
}

void bulk_give_credit(struct bulk *bulk, struct bulk_session *session, uint64_t bytes)
{
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__BulkCredit credit = SHEAF__BULK_CREDIT__INIT;

    if (bytes == 0)
        return;
    session->credit_in += bytes;
    credit.bytes = bytes;
    message.body_case = SHEAF__BULK__BODY_CREDIT;
    message.credit = &credit;
    (void)bulk_send(bulk, session, &message);
}

/* A session begins, or begins again on a new connection: the newest one counts. */
static void on_hello(struct bulk *bulk, const uint8_t key[KEY_SIZE], const struct zmsg *raw,
                     const Sheaf__BulkHello *hello)
{
    struct bulk_session *session = map_get(&bulk->by_key, key, KEY_SIZE);
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__BulkWelcome welcome = SHEAF__BULK_WELCOME__INIT;

    if (session != NULL)
        session_end(bulk, session);
    session = mem_new(1, sizeof(*session));
    session->id = ++bulk->next_id;
    memcpy(session->key, key, KEY_SIZE);
    memcpy(session->identity, raw->frame[0], raw->size[0]);
    session->identity_size = raw->size[0];
    session->heard_us = clock_mono_us();
    session->credit_out = hello->credit;
    session->credit_in = BULK_CREDIT;
    map_init(&session->ranks);
    map_put_id(&bulk->sessions, session->id, session);
    map_put(&bulk->by_key, session->key, KEY_SIZE, session);
    welcome.credit = BULK_CREDIT;
    message.body_case = SHEAF__BULK__BODY_WELCOME;
    message.welcome = &welcome;
    (void)bulk_send(bulk, session, &message);
}

/* Bytes of pieces are taken from the credit; false when the worker had none left. */
static bool take_credit(struct bulk *bulk, struct bulk_session *session, size_t size)
{
    if (size <= session->credit_in) {
        session->credit_in -= size;
        return true;
    }
    bulk_error(bulk, session, ERR_TOO_MANY, "more bytes than the credit given", NULL);
    return false;
}

static void on_session_message(struct bulk *bulk, struct bulk_session *session,
                               const Sheaf__Bulk *message)
{
    switch (message->body_case) {
    case SHEAF__BULK__BODY_CREDIT:
        /* Saturating: a peer's sum must not wrap. */
        session->credit_out = message->credit->bytes > UINT64_MAX / 2 - session->credit_out
                                  ? UINT64_MAX / 2
                                  : session->credit_out + message->credit->bytes;
        if (bulk_fetch_go(bulk, session))
            event_active(bulk->more, EV_TIMEOUT, 0);
        break;
    case SHEAF__BULK__BODY_LOG:
        if (take_credit(bulk, session, message->log->data.len))
            bulk_on_log(bulk, session, message->log);
        break;
    case SHEAF__BULK__BODY_FETCH:
        bulk_on_fetch(bulk, session, message->fetch);
        break;
    case SHEAF__BULK__BODY_PUT:
        bulk_on_put(bulk, session, message->put);
        break;
    case SHEAF__BULK__BODY_PIECE:
        if (take_credit(bulk, session, message->piece->data.len))
            bulk_on_piece(bulk, session, message->piece);
        break;
    case SHEAF__BULK__BODY_ERROR:
        log_warn("bulk", "peer-error", "code=" LOG_Q " detail=" LOG_Q, message->error->code,
                 message->error->detail);
        break;
    case SHEAF__BULK__BODY__NOT_SET:
    case SHEAF__BULK__BODY_HELLO:
    case SHEAF__BULK__BODY_WELCOME:
    case SHEAF__BULK__BODY_LOG_ACK:
    case SHEAF__BULK__BODY_PUT_STATE:
    case _SHEAF__BULK__BODY__CASE_IS_INT_SIZE:
    default:
        bulk_error(bulk, session, ERR_WIRE_UNKNOWN_TYPE, "not expected from a worker", NULL);
        break;
    }
}

/* No session: the gateway may be new, or the worker's greeting got lost. Ask for it. */
static void ask_hello(struct bulk *bulk, const struct zmsg *raw)
{
    struct bulk_session nobody = {.identity_size = raw->size[0]};

    memcpy(nobody.identity, raw->frame[0], raw->size[0]);
    bulk_error(bulk, &nobody, ERR_WIRE_STATE, "say hello first", NULL);
}

static void on_decoded(struct bulk *bulk, const uint8_t key[KEY_SIZE], const struct zmsg *raw,
                       const Sheaf__Bulk *message)
{
    struct bulk_session *session = map_get(&bulk->by_key, key, KEY_SIZE);

    if (message->body_case == SHEAF__BULK__BODY_HELLO) {
        on_hello(bulk, key, raw, message->hello);
        return;
    }
    if (session == NULL || session->identity_size != raw->size[0]
        || memcmp(session->identity, raw->frame[0], raw->size[0]) != 0) {
        ask_hello(bulk, raw);
        return;
    }
    session->heard_us = clock_mono_us();
    on_session_message(bulk, session, message);
}

void bulk_on_message(struct zsock *socket, const struct zmsg *raw, void *arg)
{
    struct bulk *bulk = arg;
    struct frame_arena arena;
    uint8_t key[KEY_SIZE];

    (void)socket;
    /* A revoked key's frames are dropped at once, also those that came before its connection ended.
     */
    if (strlen(raw->user_id) != 2 * (size_t)KEY_SIZE || hex_parse(raw->user_id, KEY_SIZE, key) != 0
        || map_get(&bulk->keys, key, KEY_SIZE) == NULL || raw->count != 2 || raw->too_many
        || raw->size[0] > sizeof(((struct bulk_session *)NULL)->identity)) {
        bulk->counters.refused++;
        return;
    }
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    union {
        ProtobufCMessage *in;
        Sheaf__Bulk *out;
    } cast = {.in = frame_decode(&sheaf__bulk__descriptor, raw->frame[1], raw->size[1], &arena)};
    if (cast.out != NULL)
        on_decoded(bulk, key, raw, cast.out);
    else
        bulk->counters.refused++;
    frame_arena_fini(&arena);
}

static void on_more(evutil_socket_t fd, short what, void *arg)
{
    struct bulk *bulk = arg;
    bool more = false;

    (void)fd;
    (void)what;
    for (uint32_t i = 0; i < bulk->sessions.count; i++)
        more |= bulk_fetch_go(bulk, map_at(&bulk->sessions, i));
    if (more)
        event_active(bulk->more, EV_TIMEOUT, 0);
}

/* -- keys ----------------------------------------------------------------------------------- */

static void keys_replace(struct bulk *bulk, const PGresult *rows)
{
    struct map fresh;
    uint8_t key[KEY_SIZE];
    char user_id[2 * KEY_SIZE + 1];

    map_init(&fresh);
    for (int i = 0; i < PQntuples(rows); i++) {
        if (hex_parse(PQgetvalue(rows, i, 0), KEY_SIZE, key) != 0)
            continue;
        map_put(&fresh, key, KEY_SIZE, bulk);
        if (map_get(&bulk->keys, key, KEY_SIZE) == NULL)
            zap_allow(bulk->zap, DOMAIN, key);
    }
    for (uint32_t i = 0; i < bulk->keys.count; i++) {
        const struct map_entry *entry = &bulk->keys.entries[i];
        if (map_get(&fresh, entry->key, KEY_SIZE) != NULL)
            continue;
        zap_deny(bulk->zap, DOMAIN, entry->key);
        zsock_end_peer(bulk->socket, hex_format(entry->key, KEY_SIZE, user_id));
        struct bulk_session *session = map_get(&bulk->by_key, entry->key, KEY_SIZE);
        if (session != NULL)
            session_end(bulk, session);
    }
    map_fini(&bulk->keys);
    bulk->keys = fresh;
    bulk->counters.keys = fresh.count;
}

static void on_keys(const struct err *err, PGresult *const *results, uint32_t count, uint64_t call,
                    void *arg)
{
    struct bulk *bulk = arg;

    (void)count;
    (void)call;
    bulk->refreshing = false;
    bool again = bulk->refresh_again;
    bulk->refresh_again = false;
    if (err != NULL) {
        log_warn("bulk", "keys", "detail=" LOG_Q, err->text); /* the next tick asks again */
        return;
    }
    keys_replace(bulk, results[0]);
    if (!bulk->ready) {
        bulk->ready = true;
        command_link_greet(bulk->gateway->commands);
    }
    if (again)
        bulk_refresh(bulk);
}

bool bulk_is_ready(const struct bulk *bulk)
{
    return bulk->ready;
}

void bulk_refresh(struct bulk *bulk)
{
    struct db_args args;

    if (bulk->refreshing) {
        bulk->refresh_again = true; /* what is being read may be older than this call */
        return;
    }
    bulk->refreshing = true;
    db_args_init(&args, QUERY_NODE_KEYS);
    db_ask(bulk->gateway->db, &db_sight_own, &args, 1, on_keys, 0, bulk);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct bulk *bulk = arg;
    struct timeval again = {.tv_sec = bulk->ready ? TICK_S : FIRST_S};
    int64_t now_us = clock_mono_us();

    (void)fd;
    (void)what;
    evtimer_add(bulk->tick, &again);
    bulk_refresh(bulk);
    for (uint32_t i = bulk->sessions.count; i-- > 0;) {
        struct bulk_session *session = map_at(&bulk->sessions, i);
        if (now_us - session->heard_us > SESSION_IDLE_US)
            session_end(bulk, session);
    }
}

/* A connection that did not end its message was ended; its key stays out for a minute. */
static void on_flood(struct zsock *socket, const struct peers_cut *cut, void *arg)
{
    struct bulk *bulk = arg;
    struct bulk_session *session = NULL;
    uint8_t key[KEY_SIZE];

    if (cut->age_us > PEERS_IDLE_US)
        return; /* heartbeats of days; it comes back */
    bulk->counters.floods++;
    log_warn("bulk", "flood", "key=%.16s address=%s bytes=%llu", cut->user_id, cut->address,
             (unsigned long long)cut->held);
    if (hex_parse(cut->user_id, KEY_SIZE, key) != 0)
        return;
    zap_suspend(bulk->zap, DOMAIN, key, FLOOD_US);
    zsock_end_peer(socket, cut->user_id); /* its other connections */
    session = map_get(&bulk->by_key, key, KEY_SIZE);
    if (session != NULL)
        session_end(bulk, session);
}

/* -- life ----------------------------------------------------------------------------------- */

int bulk_new(struct gateway *gateway, const char *bind, char *ret_endpoint, struct bulk **ret_bulk,
             struct err *err)
{
    struct bulk *bulk = mem_new(1, sizeof(*bulk));
    struct zsock_options options = {
        .type = ZMQ_ROUTER,
        .server = &gateway->bulk_pair,
        .zap_domain = DOMAIN,
        .max_frame = BULK_FRAME,
        .high_water = HIGH_WATER,
        .held = {.one = HELD_ONE, .all = HELD_ALL, .spare = HELD_SPARE},
        .on_cut = on_flood,
    };
    struct timeval now = {0};

    bulk->gateway = gateway;
    map_init(&bulk->keys);
    map_init(&bulk->sessions);
    map_init(&bulk->by_key);
    bulk->zap = zap_new(gateway->zmq); /* before any bind, or libzmq lets everybody in */
    bulk->tick = evtimer_new(gateway->base, on_tick, bulk);
    bulk->more = evtimer_new(gateway->base, on_more, bulk);
    bulk->logs = log_batch_new(bulk);
    int rc =
        zsock_new(gateway->base, gateway->zmq, &options, bulk_on_message, bulk, &bulk->socket, err);
    if (rc == 0)
        rc = zsock_bind(bulk->socket, bind, ret_endpoint, err);
    if (rc != 0) {
        bulk_free(bulk);
        return rc;
    }
    evtimer_add(bulk->tick, &now);
    *ret_bulk = bulk;
    return 0;
}

void bulk_free(struct bulk *bulk)
{
    if (bulk == NULL)
        return;
    while (bulk->sessions.count > 0)
        session_end(bulk, map_at(&bulk->sessions, 0));
    zsock_free(bulk->socket);
    zap_free(bulk->zap);
    event_free(bulk->tick);
    event_free(bulk->more);
    log_batch_free(bulk->logs);
    map_fini(&bulk->keys);
    map_fini(&bulk->sessions);
    map_fini(&bulk->by_key);
    free(bulk);
}

struct bulk_counters bulk_counters(const struct bulk *bulk)
{
    struct bulk_counters counters = bulk->counters;

    counters.sessions = bulk->sessions.count;
    counters.handshakes_refused = zap_refused(bulk->zap);
    return counters;
}
