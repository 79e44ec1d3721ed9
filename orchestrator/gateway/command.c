#include "orchestrator/gateway/command.h"

#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/log.h"
#include "common/io/loop.h"
#include "common/pure/map.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/bulk.h"
#include "orchestrator/gateway/db.h"

#define ANSWER_US   ((int64_t)15000000) /* then the caller is told to ask again */
#define MAX_WAITING 1024u               /* commands without an answer */
#define TICK_S      2
#define ALIVE_US    ((int64_t)8000000) /* since the last answer: three ticks and a bit */
#define HELLO_US    ((int64_t)30000000)
#define COMMAND_MAX FRAME_MAX

struct waiting {
    uint64_t request;
    command_on_reply_f on_reply;
    uint64_t call;
    void *arg;
    int64_t until_us;
    bool refused; /* never sent: told on the next turn */
};

struct command_link {
    struct gateway *gateway;
    struct command_hooks hooks;
    struct zsock *commands;
    struct zsock *hints;
    struct event *tick;
    struct event *soon;
    struct map waiting; /* request → struct waiting */
    uint64_t next_request;
    int64_t heard_us; /* monotonic; 0 = never */
    int64_t hello_us; /* when the last was sent */
    bool greeted;     /* hello was answered in this term */
    int64_t term;
    struct command_counters counters;
};

static void waiting_end(struct command_link *link, struct waiting *waiting, const struct err *err,
                        const Sheaf__CommandReply *reply)
{
    map_remove_id(&link->waiting, waiting->request);
    waiting->on_reply(err, reply, waiting->call, waiting->arg);
    free(waiting);
}

void command_send(struct command_link *link, Sheaf__Command *command, command_on_reply_f on_reply,
                  uint64_t call, void *arg)
{
    struct waiting *waiting = mem_new(1, sizeof(*waiting));
    struct buf bytes;

    buf_init(&bytes, COMMAND_MAX);
    command->protocol = 1;
    command->request = ++link->next_request;
    frame_encode(&command->base, &bytes);
    waiting->request = command->request;
    waiting->on_reply = on_reply;
    waiting->call = call;
    waiting->arg = arg;
    waiting->until_us = clock_mono_us() + ANSWER_US;
    /* For a caller: not into a queue of a link that is down, to be done when nobody waits. */
    waiting->refused = link->waiting.count >= MAX_WAITING || bytes.full
                       || (call != 0 && !command_link_is_up(link))
                       || zsock_send(link->commands, NULL, 0, bytes.data, bytes.length) != 0;
    map_put_id(&link->waiting, waiting->request, waiting);
    link->counters.sent++;
    if (waiting->refused)
        event_active(link->soon, EV_TIMEOUT, 0);
    buf_fini(&bytes);
}

static void on_command_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct command_link *link = arg;
    struct frame_arena arena;

    (void)socket;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    Sheaf__CommandReply *reply = NULL;
    if (message->count == 1 && !message->too_many) {
        union {
            ProtobufCMessage *in;
            Sheaf__CommandReply *out;
        } cast = {.in = frame_decode(&sheaf__command_reply__descriptor, message->frame[0],
                                     message->size[0], &arena)};
        reply = cast.out;
    }
    if (reply == NULL) {
        log_warn("command", "decode", "size=%zu", message->count > 0 ? message->size[0] : 0);
    } else {
        struct waiting *waiting = map_get_id(&link->waiting, reply->request);
        if (link->heard_us == 0)
            log_info("command", "up", "endpoint=%s", link->gateway->link.orchestrator);
        link->heard_us = clock_mono_us();
        link->counters.answered++;
        if (waiting != NULL)
            waiting_end(link, waiting, NULL, reply);
    }
    frame_arena_fini(&arena);
}

static void on_hint_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct command_link *link = arg;
    struct frame_arena arena;

    (void)socket;
    if (message->count != 1 || message->too_many)
        return;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    union {
        ProtobufCMessage *in;
        Sheaf__ChangeHint *out;
    } cast = {.in = frame_decode(&sheaf__change_hint__descriptor, message->frame[0],
                                 message->size[0], &arena)};
    if (cast.out != NULL) {
        link->counters.hints++;
        link->hooks.on_hint(cast.out, link->hooks.arg);
    }
    frame_arena_fini(&arena);
}

/* -- sockets -------------------------------------------------------------------------------- */

static int sockets_open(struct command_link *link, struct err *err)
{
    struct gateway *gateway = link->gateway;
    struct zsock_options options = {
        .type = ZMQ_DEALER,
        .client = &gateway->link.curve,
        .server_key = gateway->link.server_key,
        .max_frame = COMMAND_MAX,
        .high_water = (int)MAX_WAITING,
    };
    struct zsock *commands = NULL;
    struct zsock *hints = NULL;

    int rc =
        zsock_new(gateway->base, gateway->zmq, &options, on_command_message, link, &commands, err);
    if (rc == 0)
        rc = zsock_connect(commands, gateway->link.orchestrator, err);
    options.type = ZMQ_SUB;
    options.subscribe = "";
    if (rc == 0)
        rc = zsock_new(gateway->base, gateway->zmq, &options, on_hint_message, link, &hints, err);
    if (rc == 0)
        rc = zsock_connect(hints, gateway->link.hints, err);
    if (rc != 0) {
        zsock_free(commands);
        zsock_free(hints);
        return rc;
    }
    zsock_free(link->commands);
    zsock_free(link->hints);
    link->commands = commands;
    link->hints = hints;
    return 0;
}

/* A restarted orchestrator may have other ports or keys: its link file says so. */
static void link_refresh(struct command_link *link)
{
    struct gateway *gateway = link->gateway;
    struct gateway_link now = {0};
    struct err err = {0};

    if (gateway_link_load(gateway->link_path, &now, &err) != 0) {
        log_warn("command", "link", "detail=" LOG_Q, err.text);
        return;
    }
    if (memcmp(&now, &gateway->link, sizeof(now)) == 0)
        return;
    struct gateway_link old = gateway->link;
    gateway->link = now;
    if (sockets_open(link, &err) != 0) {
        log_warn("command", "link", "detail=" LOG_Q, err.text);
        gateway->link = old;
        return;
    }
    sha256(now.token, strlen(now.token), gateway->token_hash);
    db_set_conninfo(gateway->db, now.database);
    log_info("command", "link", "endpoint=%s", now.orchestrator);
}

/* Refused by ZAP: libzmq has given up, though the orchestrator may know our key by now. */
static void link_retry(struct command_link *link)
{
    const struct gateway_link *to = &link->gateway->link;
    struct err err = {0};

    if (!zsock_was_refused(link->commands) && !zsock_was_refused(link->hints))
        return;
    log_warn("command", "refused", "endpoint=%s", to->orchestrator);
    if (zsock_reconnect(link->commands, to->orchestrator, &err) != 0
        || zsock_reconnect(link->hints, to->hints, &err) != 0)
        log_warn("command", "reconnect", "detail=" LOG_Q, err.text);
}

/* -- greeting ------------------------------------------------------------------------------- */

static void on_greeted(const struct err *err, const Sheaf__CommandReply *reply, uint64_t call,
                       void *arg)
{
    struct command_link *link = arg;

    (void)call;
    if (err != NULL)
        return;
    if (reply->code[0] != '\0') {
        log_error("command", "hello", "code=%s detail=" LOG_Q, reply->code, reply->detail);
        return;
    }
    link->greeted = true;
}

static void greet(struct command_link *link)
{
    struct gateway *gateway = link->gateway;
    /* Workers come as soon as they hear of us, and libzmq never retries a key that was refused. */
    if (!bulk_is_ready(gateway->bulk))
        return;
    Sheaf__Command command = SHEAF__COMMAND__INIT;
    Sheaf__GatewayHello hello = SHEAF__GATEWAY_HELLO__INIT;
    char *bulk[1] = {gateway->bulk_url};

    hello.url = gateway->url;
    hello.bulk = bulk;
    hello.n_bulk = 1;
    hello.bulk_key = (ProtobufCBinaryData){KEY_SIZE, gateway->bulk_pair.public_key};
    hello.ca_sha256 = (ProtobufCBinaryData){SHA256_SIZE, gateway->ca_sha256};
    command.credential = (ProtobufCBinaryData){SHA256_SIZE, gateway->token_hash};
    command.what_case = SHEAF__COMMAND__WHAT_HELLO;
    command.hello = &hello;
    link->hello_us = clock_mono_us();
    command_send(link, &command, on_greeted, 0, link);
}

static void on_pinged(const struct err *err, const Sheaf__CommandReply *reply, uint64_t call,
                      void *arg)
{
    (void)err;
    (void)reply;
    (void)call;
    (void)arg; /* heard_us was set: that is all */
}

void command_link_greet(struct command_link *link)
{
    if (link != NULL)
        greet(link);
}

static void ping(struct command_link *link)
{
    Sheaf__Command command = SHEAF__COMMAND__INIT;
    Sheaf__Ping body = SHEAF__PING__INIT;

    command.credential = (ProtobufCBinaryData){SHA256_SIZE, link->gateway->token_hash};
    command.what_case = SHEAF__COMMAND__WHAT_PING;
    command.ping = &body;
    command_send(link, &command, on_pinged, 0, link);
}

/* Another term: an orchestrator that does not know us, however quickly it came. */
static void on_term(const struct err *err, PGresult *const *results, uint32_t count, uint64_t call,
                    void *arg)
{
    struct command_link *link = arg;

    (void)count;
    (void)call;
    if (err != NULL || PQntuples(results[0]) == 0)
        return;
    int64_t term = db_int(results[0], 0, 0);
    if (term != link->term) {
        link->term = term;
        link->greeted = false;
        greet(link);
    }
}

static void expire(struct command_link *link, int64_t now_us)
{
    struct err err = {0};

    (void)err_set(&err, ERR_UNAVAILABLE, "the orchestrator does not answer");
    for (uint32_t i = link->waiting.count; i-- > 0;) {
        /* Callbacks may send, but never remove another one. */
        if (i >= link->waiting.count)
            continue;
        struct waiting *waiting = map_at(&link->waiting, i);
        if (!waiting->refused && waiting->until_us > now_us)
            continue;
        link->counters.timed_out++;
        waiting_end(link, waiting, &err, NULL);
    }
}

bool command_link_is_up(const struct command_link *link)
{
    return link->heard_us != 0 && clock_mono_us() - link->heard_us < ALIVE_US;
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    expire(arg, clock_mono_us());
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct command_link *link = arg;
    int64_t now_us = clock_mono_us();
    struct timeval again = {.tv_sec = TICK_S};
    struct db_args args;

    (void)fd;
    (void)what;
    evtimer_add(link->tick, &again);
    expire(link, now_us);
    if (!command_link_is_up(link)) {
        link->greeted = false;
        link_refresh(link);
        link_retry(link);
    }
    int64_t since_us = now_us - link->hello_us;
    if (bulk_is_ready(link->gateway->bulk) && (!link->greeted || since_us >= HELLO_US))
        greet(link);
    else
        ping(link);
    db_args_init(&args, QUERY_TERM);
    db_ask(link->gateway->db, &db_sight_own, &args, 1, on_term, 0, link);
}

int command_link_new(struct gateway *gateway, const struct command_hooks *hooks,
                     struct command_link **ret_link, struct err *err)
{
    struct command_link *link = mem_new(1, sizeof(*link));
    struct timeval now = {0};

    link->gateway = gateway;
    link->hooks = *hooks;
    map_init(&link->waiting);
    link->tick = evtimer_new(gateway->base, on_tick, link);
    link->soon = evtimer_new(gateway->base, on_soon, link);
    int rc = sockets_open(link, err);
    if (rc != 0) {
        command_link_free(link);
        return rc;
    }
    greet(link);
    evtimer_add(link->tick, &now);
    *ret_link = link;
    return 0;
}

void command_link_free(struct command_link *link)
{
    if (link == NULL)
        return;
    zsock_free(link->commands);
    zsock_free(link->hints);
    event_free(link->tick);
    event_free(link->soon);
    for (uint32_t i = 0; i < link->waiting.count; i++)
        free(map_at(&link->waiting, i));
    map_fini(&link->waiting);
    free(link);
}

struct command_counters command_counters(const struct command_link *link)
{
    struct command_counters counters = link->counters;

    counters.waiting = link->waiting.count;
    return counters;
}
