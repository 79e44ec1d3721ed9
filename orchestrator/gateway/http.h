#ifndef SHEAF_ORCHESTRATOR_GATEWAY_HTTP_H
#define SHEAF_ORCHESTRATOR_GATEWAY_HTTP_H

/*
 * The accept layer: TCP or TLS connections, the framing guard over their bytes, one call at a time
 * per connection, answers whole or streamed. It owns connection caps, slow senders, framing errors
 * as problem documents, and a client's departure. Knows no routes, no SQL and no JSON but problems.
 *
 * A call is named by its id: whoever continues later (a query, a command) asks http_call_find() and
 * gets NULL when the client has left.
 */
#include <event2/event.h>
#include <event2/keyvalq_struct.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"
#include "common/pure/id.h"
#include "orchestrator/gateway/guard.h"

struct http_server;
struct http_call;

struct http_hooks {
    /* At the head: how many body bytes this request may have. */
    uint64_t (*body_limit)(const struct guard *head, void *arg);
    /* The request is whole. Answer now or later; exactly one answer. */
    void (*on_call)(struct http_call *call, void *arg);
    void *arg;
};

#define HTTP_MAX_PARAMS 3

/* Fields up to `state` are the server's; the rest is whoever handles the call's. */
struct http_call {
    uint64_t id;
    struct uuid request;    /* shown to the client; names the call in logs */
    const char *method;     /* HEAD is shown as GET */
    char *path;             /* percent-decoded, without query */
    struct evkeyvalq query; /* decoded */
    struct buf body;        /* read it, leave it: its length is accounted for */
    struct guard *head;
    char peer[64]; /* address, for logs */
    int64_t began_us;
    /* A stream has room again (less than HTTP_STREAM_ROOM bytes wait). */
    void (*on_room)(struct http_call *call);
    /* The call is over, answered or not: drop what belongs to it. Called once. */
    void (*on_end)(struct http_call *call);
    void *state;                  /* of the handler; freed by on_end */
    char *param[HTTP_MAX_PARAMS]; /* path parameters in order, set by the router; owned */
    const void *route;
    void *caller; /* who asks, set by auth; malloc'd, freed with the call */
};

#define HTTP_STREAM_ROOM ((size_t)256 << 10)

/* Seconds; 0 = the default in braces. */
struct http_times {
    uint32_t head; /* {10} for a head, TLS handshake included; then 1 KiB/s of body, looked at after
                      each such time */
    uint32_t idle; /* {60} between two requests */
    uint32_t write; /* {60} without a byte taken */
};

struct http_options {
    struct event_base *base;
    SSL_CTX *tls; /* NULL = plain text, for tests on loopback */
    uint32_t max_connections;
    uint32_t max_per_address;  /* connections; 0 = as many as there are */
    uint32_t rate_per_address; /* requests per second, a connection counting ten; 0 = no limit */
    bool hsts;                 /* tell browsers to use HTTPS alone from now on */
    struct http_times times;
    struct http_hooks hooks;
};

/* "https://0.0.0.0:7443", "http://127.0.0.1:0". ret_url (≥ 128 bytes) says what was bound. */
int http_server_new(const struct http_options *options, const char *bind, char *ret_url,
                    struct http_server **ret_server, struct err *err) SHEAF_MUST_USE;
void http_server_free(struct http_server *server);
/* For connections to come; tls is kept by those that use it, and not taken from the caller. */
void http_server_reload(struct http_server *server, SSL_CTX *tls, uint32_t max_connections);

struct http_call *http_call_find(struct http_server *server, uint64_t id);
const char *http_field(const struct http_call *call, const char *name);
/* Value of a query parameter; NULL if absent. */
const char *http_query(const struct http_call *call, const char *key);

/* 429 with Retry-After: too many requests of `who`. Ends the call. */
void http_too_many(struct http_call *call, const char *who, uint32_t retry_s);

/* Adds a header to the answer to come. Values are ours or checked: no CR, LF. */
void http_header(struct http_call *call, const char *name, const char *value);
/* The whole answer. Ends the call: it must not be used afterwards. */
void http_reply(struct http_call *call, int status, const char *type, const void *body,
                size_t size);
/* A problem document. Ends the call. */
void http_problem(struct http_call *call, const struct err *err);
void http_problemf(struct http_call *call, enum err_code code, const char *format, ...)
    SHEAF_PRINTF(3, 4);

#define HTTP_UNKNOWN_SIZE UINT64_MAX
/* Head of an answer whose body comes in pieces; size may be HTTP_UNKNOWN_SIZE. */
void http_stream_begin(struct http_call *call, int status, const char *type, uint64_t size);
void http_stream_write(struct http_call *call, const void *bytes, size_t size);
/* Bytes that the client has not taken yet. */
size_t http_stream_waiting(const struct http_call *call);
/* Ends the call. */
void http_stream_end(struct http_call *call);
/* Ends the call and closes the connection in mid-body, so that the client sees that it is cut. */
void http_stream_abort(struct http_call *call);
bool http_is_streaming(const struct http_call *call);

struct http_counters {
    uint64_t connections;
    uint64_t open;
    uint64_t refused; /* connections beyond a cap, told so or not */
    uint64_t limited; /* requests beyond the rate of their address or token */
    uint64_t framing; /* refused by the guard */
    uint64_t gone;    /* clients that left before their answer */
    uint64_t calls;
    uint64_t by_class[6]; /* answers by status / 100 */
};
struct http_counters http_counters(const struct http_server *server);

#endif
