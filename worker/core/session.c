#include "worker/core/session.h"

#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/io/loop.h"
#include "common/pure/mem.h"

#define SESSION_PROTOCOL 1u
/* A welcome that does not come in this time: try the next endpoint. */
#define WELCOME_US INT64_C(5000000)
/* Every heartbeat is answered: so many without an answer, and at least so long, and it is dead. */
#define SILENCE_BEATS  3
#define SILENCE_MIN_US INT64_C(5000000)
/* For the goodbye to leave. */
#define LINGER_MS       500
#define BACKOFF_MIN_MS  100u
#define BACKOFF_MAX_MS  10000u
#define HEARTBEAT_MIN   500u
#define HEARTBEAT_MAX   60000u
#define HEARTBEAT_START 5000u

struct session {
    struct zsock *socket;
    struct event *timer; /* welcome deadline, back-off or heartbeat */
    const struct session_options *options;
    struct session_hooks hooks;
    uint32_t endpoint; /* index of the one in use */
    uint8_t id[8];
    bool hello_sent;
    bool up;
    uint32_t backoff_ms;
    uint32_t heartbeat_ms;
    uint32_t term;     /* newest leadership that welcomed us */
    uint64_t seen_seq; /* newest durable message of the other side */
    int64_t heard_us;
    int64_t hello_us;
};

static void arm(struct session *session, uint32_t ms)
{
    struct timeval wait = {.tv_sec = (long)(ms / 1000), .tv_usec = (long)(ms % 1000) * 1000};

    evtimer_add(session->timer, &wait);
}

bool session_is_up(const struct session *session)
{
    return session->up;
}

int64_t session_heard_us(const struct session *session)
{
    return session->heard_us;
}

static bool send_envelope(struct session *session, Sheaf__Envelope *envelope)
{
    struct buf bytes;
    int rc;

    envelope->protocol = SESSION_PROTOCOL;
    envelope->session.data = session->id;
    envelope->session.len = sizeof(session->id);
    envelope->ack = session->seen_seq;
    buf_init(&bytes, FRAME_MAX);
    frame_encode(&envelope->base, &bytes);
    rc =
        bytes.full ? -ERR_TOO_MANY : zsock_send(session->socket, NULL, 0, bytes.data, bytes.length);
    buf_fini(&bytes);
    return rc == 0;
}

bool session_send(struct session *session, Sheaf__Envelope *envelope)
{
    return session->up && send_envelope(session, envelope);
}

bool session_send_again(struct session *session, const uint8_t *bytes, size_t size)
{
    Sheaf__Envelope head = SHEAF__ENVELOPE__INIT;
    struct buf whole;
    int rc;

    if (!session->up)
        return false;
    head.protocol = SESSION_PROTOCOL;
    head.session.data = session->id;
    head.session.len = sizeof(session->id);
    head.ack = session->seen_seq;
    buf_init(&whole, FRAME_MAX);
    buf_append(&whole, bytes, size);
    frame_encode(&head.base, &whole);
    rc =
        whole.full ? -ERR_TOO_MANY : zsock_send(session->socket, NULL, 0, whole.data, whole.length);
    buf_fini(&whole);
    return rc == 0;
}

static void send_hello(struct session *session)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;

    random_bytes(session->id, sizeof(session->id));
    session->seen_seq = 0;
    session->hooks.on_connect(&envelope, session->hooks.arg);
    session->hello_sent = send_envelope(session, &envelope);
    session->hello_us = clock_mono_us();
    arm(session, (uint32_t)(WELCOME_US / 1000));
}

static void dial(struct session *session)
{
    struct err err = {0};
    const char *endpoint = session->options->endpoint[session->endpoint];

    if (zsock_reconnect(session->socket, endpoint, &err) != 0)
        log_warn("session", "dial", "endpoint=%s detail=" LOG_Q, endpoint, err.text);
    send_hello(session);
}

/* Ends the session and dials again after a while; each failure in a row waits longer. */
static void end(struct session *session, const char *code, const char *detail)
{
    bool was_up = session->up;
    uint8_t chance;

    session->up = false;
    session->hello_sent = false;
    if (was_up)
        session->backoff_ms = BACKOFF_MIN_MS;
    else
        session->backoff_ms =
            session->backoff_ms * 2 < BACKOFF_MAX_MS ? session->backoff_ms * 2 : BACKOFF_MAX_MS;
    session->endpoint = (session->endpoint + 1) % session->options->endpoint_count;
    random_bytes(&chance, 1);
    arm(session, session->backoff_ms + session->backoff_ms * chance / 512);
    session->hooks.on_closed(code, detail, session->hooks.arg);
}

static void no_answer(struct session *session)
{
    if (zsock_was_refused(session->socket))
        end(session, "not-enrolled",
            "the orchestrator does not know this machine's key: it left or was removed there, or "
            "this state folder is not the one that joined; fix: sheaf-worker join TOKEN with a new "
            "--state");
    else
        end(session, "unreachable", "no answer to hello");
}

static int64_t silence_us(const struct session *session)
{
    int64_t beats_us = (int64_t)session->heartbeat_ms * 1000 * SILENCE_BEATS;

    return beats_us > SILENCE_MIN_US ? beats_us : SILENCE_MIN_US;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct session *session = arg;
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__Heartbeat heartbeat = SHEAF__HEARTBEAT__INIT;
    int64_t now_us = clock_mono_us();

    (void)fd;
    (void)what;
    if (!session->up) {
        if (session->hello_sent)
            no_answer(session);
        else
            dial(session);
        return;
    }
    if (now_us - session->heard_us > silence_us(session)) {
        end(session, "unreachable", "the orchestrator is silent");
        return;
    }
    heartbeat.sent_us = (uint64_t)clock_wall_us();
    session->hooks.on_heartbeat(&heartbeat, session->hooks.arg);
    envelope.body_case = SHEAF__ENVELOPE__BODY_HEARTBEAT;
    envelope.heartbeat = &heartbeat;
    (void)send_envelope(session, &envelope); /* a full queue means nobody reads: silence follows */
    arm(session, session->heartbeat_ms);
}

static void on_welcome(struct session *session, const Sheaf__Welcome *welcome)
{
    uint32_t ms = welcome->heartbeat_ms;

    if (welcome->protocol != SESSION_PROTOCOL) {
        end(session, "protocol-version", "the orchestrator speaks another protocol version");
        return;
    }
    if (welcome->term < session->term) {
        end(session, "fence", "an orchestrator that was deposed answers here");
        return;
    }
    session->term = welcome->term;
    session->up = true;
    session->backoff_ms = BACKOFF_MIN_MS;
    if (ms < HEARTBEAT_MIN || ms > HEARTBEAT_MAX)
        ms = HEARTBEAT_START;
    session->heartbeat_ms = ms;
    arm(session, ms);
    session->hooks.on_ack(welcome->committed_seq, session->hooks.arg);
    session->hooks.on_welcome(welcome, session->hooks.arg);
}

static void on_error(struct session *session, const Sheaf__ErrorReply *error)
{
    log_warn("session", "error", "code=%s seq=%llu close=%d detail=" LOG_Q, error->code,
             (unsigned long long)error->ref_seq, error->close, error->detail);
    /* An orchestrator that restarted does not know this session: begin another. */
    if (error->close || strcmp(error->code, "wrong-state") == 0)
        end(session, error->code, error->detail);
}

static void deliver(struct session *session, const Sheaf__Envelope *envelope)
{
    switch (envelope->body_case) {
    case SHEAF__ENVELOPE__BODY_WELCOME:
        if (!session->up)
            on_welcome(session, envelope->welcome);
        else /* the gateways moved */
            session->hooks.on_welcome(envelope->welcome, session->hooks.arg);
        break;
    case SHEAF__ENVELOPE__BODY_ORDER:
        if (session->up)
            session->hooks.on_order(envelope->order, session->hooks.arg);
        break;
    case SHEAF__ENVELOPE__BODY_STATUS:
        if (session->up)
            session->hooks.on_status(envelope->status, session->hooks.arg);
        break;
    case SHEAF__ENVELOPE__BODY_ERROR:
        on_error(session, envelope->error);
        break;
    case SHEAF__ENVELOPE__BODY_BYE:
        end(session, "bye", envelope->bye->reason);
        break;
    case SHEAF__ENVELOPE__BODY_ONLY_ACK:
        break;
    case SHEAF__ENVELOPE__BODY__NOT_SET:
    case SHEAF__ENVELOPE__BODY_HELLO:
    case SHEAF__ENVELOPE__BODY_HEARTBEAT:
    case SHEAF__ENVELOPE__BODY_TASK_EVENT:
    case SHEAF__ENVELOPE__BODY_RECEIPT:
    case SHEAF__ENVELOPE__BODY_LINKS:
    case SHEAF__ENVELOPE__BODY_SELFTEST:
    case SHEAF__ENVELOPE__BODY_NOTICE:
    case _SHEAF__ENVELOPE__BODY__CASE_IS_INT_SIZE:
        log_warn("session", "unknown-type", "body=%d", (int)envelope->body_case);
        break;
    }
}

static void on_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct session *session = arg;
    struct frame_arena arena;
    Sheaf__Envelope *envelope;

    (void)socket;
    if (message->count != 1 || message->too_many) {
        log_warn("session", "bad-envelope", "frames=%u", message->count);
        return;
    }
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    envelope = (Sheaf__Envelope *)frame_decode(&sheaf__envelope__descriptor, message->frame[0],
                                               message->size[0], &arena);
    if (!envelope) {
        log_warn("session", "decode", "bytes=%zu", message->size[0]);
    } else if (envelope->session.len == sizeof(session->id)
               && memcmp(envelope->session.data, session->id, sizeof(session->id)) == 0) {
        session->heard_us = clock_mono_us();
        if (session->up && envelope->ack > 0)
            session->hooks.on_ack(envelope->ack, session->hooks.arg);
        if (envelope->seq > session->seen_seq)
            session->seen_seq = envelope->seq;
        deliver(session, envelope);
    } else {
        log_debug("session", "stale", "body=%d", (int)envelope->body_case);
    }
    frame_arena_fini(&arena);
}

int session_new(struct event_base *base, void *zmq_context, const struct session_options *options,
                const struct session_hooks *hooks, struct session **ret_session, struct err *err)
{
    struct session *session = mem_new(1, sizeof(*session));
    struct zsock_options socket = {.type = ZMQ_DEALER,
                                   .client = options->client,
                                   .server_key = options->server_key,
                                   .max_frame = FRAME_MAX};
    int rc;

    session->options = options;
    session->hooks = *hooks;
    session->backoff_ms = BACKOFF_MIN_MS;
    session->timer = evtimer_new(base, on_timer, session);
    BUG_ON(!session->timer);
    rc = zsock_new(base, zmq_context, &socket, on_message, session, &session->socket, err);
    if (rc == 0)
        rc = zsock_connect(session->socket, options->endpoint[0], err);
    if (rc != 0) {
        session_free(session);
        return rc;
    }
    send_hello(session);
    *ret_session = session;
    return 0;
}

static void say_bye(struct session *session)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__Bye bye = SHEAF__BYE__INIT;
    char reason[] = "the worker ends";

    bye.reason = reason;
    envelope.body_case = SHEAF__ENVELOPE__BODY_BYE;
    envelope.bye = &bye;
    (void)send_envelope(session, &envelope); /* lost: three heartbeats tell the same */
}

void session_free(struct session *session)
{
    if (!session)
        return;
    if (session->up)
        say_bye(session);
    if (session->timer)
        event_free(session->timer);
    zsock_free_linger(session->socket, session->up ? LINGER_MS : 0);
    free(session);
}
