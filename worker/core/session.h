#ifndef SHEAF_WORKER_CORE_SESSION_H
#define SHEAF_WORKER_CORE_SESSION_H

/*
 * The control session with the orchestrator: dials out, says hello, heartbeats, and dials again
 * with back-off when it is refused, closed or met with silence. Carries messages; what is durable
 * and what they mean is the agent's.
 */
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/io/frame.h"
#include "common/io/keys.h"
#include "proto/worker.pb-c.h"

struct session;

struct session_hooks {
    /* Fills a hello; what it points to must live until the call returns. */
    void (*on_connect)(Sheaf__Envelope *envelope, void *arg);
    void (*on_welcome)(const Sheaf__Welcome *welcome, void *arg);
    void (*on_closed)(const char *code, const char *detail, void *arg);
    void (*on_ack)(uint64_t seq, void *arg);
    void (*on_order)(const Sheaf__SignedOrder *order, void *arg);
    void (*on_status)(const Sheaf__NodeStatus *status, void *arg);
    void (*on_heartbeat)(Sheaf__Heartbeat *heartbeat, void *arg); /* fill one */
    void *arg;
};

struct session_options {
    const char (*endpoint)[128];
    uint32_t endpoint_count;
    const uint8_t *server_key;
    const struct curve_pair *client;
};

/* Options are borrowed for the session's life. */
int session_new(struct event_base *base, void *zmq_context, const struct session_options *options,
                const struct session_hooks *hooks, struct session **ret_session,
                struct err *err) SHEAF_MUST_USE;
/* Says goodbye, so that no work is sent to a worker that is not there. */
void session_free(struct session *session);
/* Between a welcome and its end. */
bool session_is_up(const struct session *session);
/* Microseconds (monotonic) of the last message from the orchestrator; 0 = none yet. */
int64_t session_heard_us(const struct session *session);
/* Sends an envelope whose protocol, session and ack it sets. False when the session is not up or
 * its queue is full: durable ones stay in the keep. */
bool session_send(struct session *session, Sheaf__Envelope *envelope);
/* Sends an encoded envelope again (protobuf: appended fields override earlier ones). */
bool session_send_again(struct session *session, const uint8_t *bytes, size_t size);

#endif
