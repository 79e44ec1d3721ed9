#ifndef SHEAF_COMMON_IO_LOOP_H
#define SHEAF_COMMON_IO_LOOP_H

/*
 * One libevent base per thread, and the adaptor that brings ZeroMQ sockets into it. ZMQ_FD is
 * edge-triggered: the adaptor re-reads ZMQ_EVENTS at start, after every wake-up and after every
 * send through zsock_send, and delivers at most `budget` messages a turn before yielding.
 */
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/io/keys.h"
#include "common/io/peers.h"
#include "common/pure/err.h"

struct event_base;

/* A base with SIGPIPE ignored. */
struct event_base *loop_new(void);

struct zsock;

#define ZSOCK_MAX_FRAMES 4

/* One received message; frames are valid during the call alone. */
struct zmsg {
    const uint8_t *frame[ZSOCK_MAX_FRAMES];
    size_t size[ZSOCK_MAX_FRAMES];
    uint32_t count; /* frames beyond ZSOCK_MAX_FRAMES set `too_many` and are dropped */
    bool too_many;
    const char *user_id; /* ZAP User-Id (hex of the CURVE key) or "" */
    const char *peer;    /* Peer-Address, for logs */
};

typedef void (*zsock_on_message_f)(struct zsock *socket, const struct zmsg *message, void *arg);
/* A connection was ended because it held too much; on the loop's thread, after the fact. */
typedef void (*zsock_on_cut_f)(struct zsock *socket, const struct peers_cut *cut, void *arg);

struct zsock_options {
    int type;                        /* ZMQ_ROUTER, ZMQ_DEALER, … */
    const struct curve_pair *server; /* CURVE server with this pair, or */
    const struct curve_pair *client; /* CURVE client with this pair */
    const uint8_t *server_key;       /* … to this server */
    const char *zap_domain;          /* servers */
    size_t max_frame;                /* ZMQ_MAXMSGSIZE */
    int high_water;                  /* both directions, messages; 0 = 1000 */
    const char *subscribe;           /* ZMQ_SUB prefix; NULL = none */
    struct peers_limits held;        /* servers: bytes of unfinished messages; 0 = unwatched */
    zsock_on_cut_f on_cut;           /* may be NULL */
};

/*
 * Sockets get: LINGER 0, HANDSHAKE_IVL 5 s, heartbeats 5 s / 15 s, ROUTER_MANDATORY on ROUTERs,
 * random routing ids, RECONNECT_IVL 100 ms … 10 s. A CURVE server without a ZAP handler in its
 * context is refused (ERR_INTERNAL): libzmq would let everybody in.
 */
int zsock_new(struct event_base *base, void *zmq_context, const struct zsock_options *options,
              zsock_on_message_f on_message, void *arg, struct zsock **ret_socket,
              struct err *err) SHEAF_MUST_USE;
/* endpoint with port 0 or "*" is resolved; ret_endpoint (≥ 128 bytes, may be NULL) says which. */
int zsock_bind(struct zsock *socket, const char *endpoint, char *ret_endpoint,
               struct err *err) SHEAF_MUST_USE;
int zsock_connect(struct zsock *socket, const char *endpoint, struct err *err) SHEAF_MUST_USE;
/*
 * Drops the connection and all queued messages, then connects anew. A lost connection comes back by
 * itself; one that ZAP refused does not: libzmq gives up for good, so a client that hears nothing
 * for a while calls this. zsock_was_refused says whether ZAP was why.
 */
int zsock_reconnect(struct zsock *socket, const char *endpoint, struct err *err) SHEAF_MUST_USE;
/* CURVE clients: the server refused our key since the last (re)connect: it is not enrolled there.
 */
bool zsock_was_refused(struct zsock *socket);
/*
 * Never blocks. peer NULL for DEALER, PUB; the identity frame for ROUTER. 0, or -ERR_UNREACHABLE
 * (unknown peer), -ERR_TOO_MANY (its queue is full): the message was not taken.
 */
int zsock_send(struct zsock *socket, const void *peer, size_t peer_size, const void *bytes,
               size_t size) SHEAF_MUST_USE;
/*
 * Ends the connections of a watched server that spoke under this user id; how many. Their peers
 * come back unless ZAP refuses them, and what they sent before may still be delivered.
 */
uint32_t zsock_end_peer(struct zsock *socket, const char *user_id);
void zsock_free(struct zsock *socket);
/* As zsock_free, but what was sent last may still leave: zmq_ctx_term waits up to `ms` for it. */
void zsock_free_linger(struct zsock *socket, int ms);

/*
 * ZAP handler of a context, on a thread of its own; must exist before the first CURVE server. It
 * answers from memory alone: a set of public keys per domain.
 */
struct zap;
struct zap *zap_new(void *zmq_context);
void zap_allow(struct zap *zap, const char *domain, const uint8_t key[KEY_SIZE]);
void zap_deny(struct zap *zap, const char *domain, const uint8_t key[KEY_SIZE]);
/* Refuses the key until so much later, then takes it again; nothing for one that is not allowed. */
void zap_suspend(struct zap *zap, const char *domain, const uint8_t key[KEY_SIZE], int64_t us);
bool zap_is_allowed(struct zap *zap, const char *domain, const uint8_t key[KEY_SIZE]);
/* Handshakes refused since start. */
uint64_t zap_refused(struct zap *zap);
void zap_free(struct zap *zap);

#endif
