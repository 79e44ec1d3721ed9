#include "orchestrator/gateway/http.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/pure/map.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/limit.h"
#include "orchestrator/gateway/problem.h"

/* Seconds: defaults of struct http_times. */
#define HEAD_S    10
#define IDLE_S    60
#define WRITE_S   60 /* a client that takes nothing for so long is gone, whatever TCP believes */
#define LINGER_S  2
#define BODY_RATE ((size_t)1 << 10) /* bytes per second at least */
/* Connections beyond a cap that are kept until their first head, to be told why they are refused.
 */
#define TOLD_MAX 64u
/* A new connection in requests: a TLS handshake is about so much more work. */
#define CONNECT_COST 10u
#define TOLD_AFTER_S 2u /* Retry-After where nobody knows better */
/* Unread bytes behind the current request: enough for pipelining, and EOF is still seen. */
#define READ_AHEAD ((size_t)128 << 10)
/* Bodies of all connections together; beyond it new bodies are told to retry. */
#define BODIES_MAX ((size_t)512 << 20)

enum conn_phase {
    CONN_IDLE,
    CONN_HEAD,
    CONN_BODY,
    CONN_BUSY,   /* a call is being answered */
    CONN_LINGER, /* answered; reading on so that a reset does not eat the answer */
};

struct http_conn {
    struct http_server *server;
    struct http_conn *prev;
    struct http_conn *next;
    struct bufferevent *bev;
    struct event *timer;
    struct event *reap;
    struct guard guard;
    enum conn_phase phase;
    struct http_call_private *call;
    struct buf body;
    uint64_t body_limit;
    size_t body_at_tick;
    size_t lingered;
    bool finishing; /* close once everything is written */
    bool dead;
    enum err_code beyond; /* a cap or a rate: refused at its first head */
    uint8_t address[16];
    char peer[64];
};

struct http_call_private {
    struct http_call open; /* first: the public part */
    struct http_conn *conn;
    struct buf headers;
    bool head_only; /* HEAD */
    bool begun;
    bool chunked;
    bool ended;
    bool no_store;
    bool retry_said; /* Retry-After is among the headers */
    uint64_t left;   /* of a sized stream */
};

/* Connections of one address. */
struct http_peer {
    uint32_t connections;
};

struct http_server {
    struct http_options options;
    struct evconnlistener *listener;
    struct http_conn *conns; /* newest first */
    struct map calls;        /* id → call */
    uint64_t next_call;
    size_t bodies;         /* bytes held in request bodies */
    struct map peers;      /* address → struct http_peer */
    struct limiter *rates; /* of addresses */
    uint32_t told;         /* connections with `beyond` */
    struct http_counters counters;
};

static struct http_call_private *private_of(const struct http_call *call)
{
    union {
        const struct http_call *in;
        struct http_call_private *out;
    } cast = {.in = call};

    return cast.out;
}

/* -- connections ---------------------------------------------------------------------------- */

static void conn_phase_set(struct http_conn *conn, enum conn_phase phase)
{
    const struct http_times *times = &conn->server->options.times;
    const uint32_t seconds[] = {
        [CONN_IDLE] = times->idle, [CONN_HEAD] = times->head, [CONN_BODY] = times->head,
        [CONN_BUSY] = 0,           [CONN_LINGER] = LINGER_S,
    };

    conn->phase = phase;
    if (seconds[phase] == 0) {
        evtimer_del(conn->timer);
        return;
    }
    struct timeval after = {.tv_sec = seconds[phase]};
    evtimer_add(conn->timer, &after);
}

static void body_drop(struct http_conn *conn)
{
    conn->server->bodies -= conn->body.length;
    buf_fini(&conn->body);
}

static void call_free(struct http_call_private *call)
{
    struct http_server *server = call->conn->server;

    map_remove_id(&server->calls, call->open.id);
    if (call->open.on_end != NULL)
        call->open.on_end(&call->open);
    server->bodies -= call->open.body.length;
    buf_fini(&call->open.body);
    buf_fini(&call->headers);
    evhttp_clear_headers(&call->open.query);
    free(call->open.path);
    free(call->open.caller);
    for (int i = 0; i < HTTP_MAX_PARAMS; i++)
        free(call->open.param[i]);
    call->conn->call = NULL;
    free(call);
}

static void peer_enter(struct http_server *server, const uint8_t address[16])
{
    struct http_peer *peer = map_get(&server->peers, address, 16);

    if (peer == NULL) {
        peer = mem_new(1, sizeof(*peer));
        map_put(&server->peers, address, 16, peer);
    }
    peer->connections++;
}

static void peer_leave(struct http_server *server, const uint8_t address[16])
{
    struct http_peer *peer = map_get(&server->peers, address, 16);

    if (--peer->connections > 0)
        return;
    (void)map_remove(&server->peers, address, 16);
    free(peer);
}

/* The connection is over; freed on the next turn, because its callbacks may be on the stack. */
static void conn_kill(struct http_conn *conn)
{
    if (conn->dead)
        return;
    conn->dead = true;
    bufferevent_disable(conn->bev, EV_READ | EV_WRITE);
    evtimer_del(conn->timer);
    if (conn->call != NULL)
        call_free(conn->call);
    event_active(conn->reap, EV_TIMEOUT, 0);
}

static void conn_free(struct http_conn *conn)
{
    struct http_server *server = conn->server;

    if (conn->call != NULL)
        call_free(conn->call);
    if (conn->prev != NULL)
        conn->prev->next = conn->next;
    else
        server->conns = conn->next;
    if (conn->next != NULL)
        conn->next->prev = conn->prev;
    server->counters.open--;
    server->told -= conn->beyond != ERR_NONE;
    peer_leave(server, conn->address);
    event_free(conn->timer);
    event_free(conn->reap);
    body_drop(conn);
    guard_fini(&conn->guard);
    bufferevent_free(conn->bev);
    free(conn);
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    conn_free(arg);
}

/* Everything is written: tell the peer that no more comes, and read on for a moment. */
static void conn_finish(struct http_conn *conn)
{
    SSL *tls = bufferevent_openssl_get_ssl(conn->bev);

    if (tls != NULL)
        (void)SSL_shutdown(tls);
    (void)shutdown(bufferevent_getfd(conn->bev), SHUT_WR);
    conn_phase_set(conn, CONN_LINGER);
}

static size_t conn_waiting(const struct http_conn *conn)
{
    return evbuffer_get_length(bufferevent_get_output(conn->bev));
}

/* The call is answered: on to the next request, or to the end. */
static void conn_next(struct http_conn *conn, bool close)
{
    if (conn->dead)
        return;
    if (close || conn->guard.close) {
        conn->finishing = true;
        conn_phase_set(conn, CONN_LINGER);
        if (conn_waiting(conn) == 0)
            conn_finish(conn);
        else
            evtimer_del(conn->timer); /* the write time-out rules while bytes wait */
        return;
    }
    guard_next(&conn->guard);
    conn_phase_set(conn, CONN_IDLE);
    if (evbuffer_get_length(bufferevent_get_input(conn->bev)) > 0)
        bufferevent_trigger(conn->bev, EV_READ, BEV_TRIG_DEFER_CALLBACKS);
}

/* -- calls ---------------------------------------------------------------------------------- */

static struct http_call_private *call_new(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    struct http_call_private *call = mem_new(1, sizeof(*call));

    call->conn = conn;
    call->open.id = ++server->next_call;
    call->open.request = uuid_new();
    call->open.method = "";
    call->open.head = &conn->guard;
    call->open.began_us = clock_mono_us();
    call->no_store = true;
    memcpy(call->open.peer, conn->peer, sizeof(conn->peer));
    TAILQ_INIT(&call->open.query);
    call->open.body = conn->body;
    buf_init(&conn->body, 0);
    map_put_id(&server->calls, call->open.id, call);
    conn->call = call;
    conn_phase_set(conn, CONN_BUSY);
    server->counters.calls++;
    return call;
}

static bool texts_are_clean(const struct evkeyvalq *query)
{
    const struct evkeyval *pair;

    TAILQ_FOREACH(pair, query, next)
    {
        for (const char *c = pair->value; *c != '\0'; c++) {
            if ((unsigned char)*c < ' ' || *c == 0x7f)
                return false;
        }
    }
    return true;
}

/* A whole request: decode its target and hand it over. */
static void conn_call(struct http_conn *conn)
{
    struct http_call_private *call = call_new(conn);
    const char *method = guard_method(&conn->guard);
    const char *target = guard_target(&conn->guard);
    const char *query = strchr(target, '?');
    char *raw = query != NULL ? mem_dup(target, (size_t)(query - target)) : mem_strdup(target);

    call->head_only = strcmp(method, "HEAD") == 0;
    call->open.method = call->head_only ? "GET" : method;
    call->open.path = evhttp_uridecode(raw, 0, NULL);
    free(raw);
    if (call->open.path == NULL
        || (query != NULL && query[1] != '\0'
            && evhttp_parse_query_str(query + 1, &call->open.query) != 0)
        || !texts_are_clean(&call->open.query)) {
        http_problemf(&call->open, ERR_INVALID_PATH, "the query is not key=value&…");
        return;
    }
    uint32_t retry_s =
        limiter_take(conn->server->rates, conn->address, sizeof(conn->address), 1, clock_mono_us());
    if (retry_s > 0) {
        http_too_many(&call->open, "your address", retry_s);
        return;
    }
    conn->server->options.hooks.on_call(&call->open, conn->server->options.hooks.arg);
}

/* Refused before it became a call. */
static void conn_refuse(struct http_conn *conn, const struct err *err)
{
    if (conn->beyond == ERR_NONE)
        conn->server->counters.framing++;
    conn->guard.close = true;
    http_problem(&call_new(conn)->open, err);
}

static void conn_head(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    struct err err = {0};

    if (conn->beyond != ERR_NONE) {
        (void)err_set(&err, conn->beyond, "%s",
                      conn->beyond == ERR_RATE_LIMITED ? "too many connections of your address"
                                                       : "too many connections");
        conn_refuse(conn, &err);
        return;
    }
    conn->body_limit = GUARD_MAX_BODY;
    if (server->options.hooks.body_limit != NULL)
        conn->body_limit =
            server->options.hooks.body_limit(&conn->guard, server->options.hooks.arg);
    if (guard_limit_body(&conn->guard, conn->body_limit) != 0) {
        conn_refuse(conn, &conn->guard.err);
        return;
    }
    if (server->bodies + conn->guard.length > BODIES_MAX) {
        (void)err_set(&err, ERR_UNAVAILABLE, "too many uploads at once");
        conn_refuse(conn, &err);
        return;
    }
    buf_init(&conn->body, (size_t)conn->body_limit);
    conn->body_at_tick = 0;
    conn_phase_set(conn, CONN_BODY);
    if (conn->guard.expect && conn->guard.state != GUARD_AT_END)
        bufferevent_write(conn->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

/* One step of the guard over what has come. False: nothing to do until more comes. */
static bool conn_step(struct http_conn *conn)
{
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    struct evbuffer_iovec piece = {0};
    const uint8_t *body;
    size_t used;
    size_t size;

    if (evbuffer_get_length(input) > 0)
        evbuffer_peek(input, -1, NULL, &piece, 1);
    if (conn->phase == CONN_IDLE && piece.iov_len > 0)
        conn_phase_set(conn, CONN_HEAD);
    enum guard_verdict verdict =
        guard_read(&conn->guard, piece.iov_base, piece.iov_len, &used, &body, &size);
    if (verdict == GUARD_BODY) {
        buf_append(&conn->body, body, size);
        conn->server->bodies += size;
    }
    evbuffer_drain(input, used);
    if (verdict == GUARD_HEAD)
        conn_head(conn);
    else if (verdict == GUARD_DONE)
        conn_call(conn);
    else if (verdict == GUARD_BAD)
        conn_refuse(conn, &conn->guard.err);
    return verdict != GUARD_MORE || evbuffer_get_length(input) > 0;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct http_conn *conn = arg;
    struct evbuffer *input = bufferevent_get_input(bev);

    if (conn->phase == CONN_LINGER) {
        conn->lingered += evbuffer_get_length(input);
        evbuffer_drain(input, evbuffer_get_length(input));
        if (conn->lingered > GUARD_MAX_BODY)
            conn_kill(conn);
        return;
    }
    while (!conn->dead && conn->phase < CONN_BUSY && conn_step(conn))
        continue;
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct http_conn *conn = arg;

    (void)bev;
    if (conn->dead)
        return;
    if (conn->finishing && conn_waiting(conn) == 0) {
        conn_finish(conn);
        return;
    }
    if (conn->call != NULL && conn->call->begun && conn->call->open.on_room != NULL
        && conn_waiting(conn) < HTTP_STREAM_ROOM)
        conn->call->open.on_room(&conn->call->open);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct http_conn *conn = arg;

    (void)bev;
    if (conn->dead || (what & BEV_EVENT_CONNECTED) != 0)
        return;
    if ((what & BEV_EVENT_EOF) != 0 && conn->finishing && conn_waiting(conn) > 0)
        return; /* it only closed its half: the answer still goes out */
    if (conn->call != NULL)
        conn->server->counters.gone++;
    conn_kill(conn);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct http_conn *conn = arg;
    struct err err = {0};

    (void)fd;
    (void)what;
    size_t due = BODY_RATE * conn->server->options.times.head;
    if (conn->phase == CONN_BODY && conn->body.length >= conn->body_at_tick + due) {
        conn->body_at_tick = conn->body.length;
        conn_phase_set(conn, CONN_BODY);
        return;
    }
    /* Nothing was said, or the handshake never ended: nobody to answer to. */
    if (conn->phase == CONN_IDLE || conn->phase == CONN_LINGER || guard_is_idle(&conn->guard)) {
        conn_kill(conn);
        return;
    }
    (void)err_set(&err, ERR_REQUEST_TIMEOUT, "the %s did not come in time",
                  conn->phase == CONN_HEAD ? "head" : "body");
    conn_refuse(conn, &err);
}

/* -- accepting ------------------------------------------------------------------------------ */

static void peer_format(const struct sockaddr *address, char out[64])
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof(v4));
        inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof(v6));
        inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
    }
    snprintf(out, 64, "%s", host);
}

/* What an address is counted by: IPv4 whole, IPv6 by its /64, which is one customer's. */
static void address_key(const struct sockaddr *address, uint8_t out[16])
{
    memset(out, 0, 16);
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof(v4));
        memcpy(out + 12, &v4.sin_addr, 4);
        memset(out + 10, 0xff, 2);
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof(v6));
        memcpy(out, &v6.sin6_addr, IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) ? 16 : 8);
    }
}

/*
 * Full: an idle connection makes room, the one that waited longest for its next request; of this
 * address when the address is what is full.
 */
static bool make_room(struct http_server *server, const uint8_t *address)
{
    struct http_conn *oldest = NULL;

    for (struct http_conn *conn = server->conns; conn != NULL; conn = conn->next) {
        if (conn->phase == CONN_IDLE && !conn->dead
            && (address == NULL || memcmp(conn->address, address, sizeof(conn->address)) == 0))
            oldest = conn;
    }
    if (oldest == NULL)
        return false;
    conn_kill(oldest);
    return true;
}

/* ERR_NONE: welcome. */
static enum err_code admit(struct http_server *server, const uint8_t address[16])
{
    const struct http_options *options = &server->options;
    const struct http_peer *peer = map_get(&server->peers, address, 16);

    if (limiter_take(server->rates, address, 16, CONNECT_COST, clock_mono_us()) > 0)
        return ERR_RATE_LIMITED;
    if (peer != NULL && options->max_per_address > 0
        && peer->connections >= options->max_per_address && !make_room(server, address))
        return ERR_RATE_LIMITED;
    if (server->counters.open >= options->max_connections && !make_room(server, NULL))
        return ERR_UNAVAILABLE;
    return ERR_NONE;
}

static struct bufferevent *wrap(struct http_server *server, evutil_socket_t fd)
{
    int flags = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;

    if (server->options.tls == NULL)
        return bufferevent_socket_new(server->options.base, fd, flags);
    SSL *tls = SSL_new(server->options.tls);
    if (tls == NULL)
        return NULL;
    struct bufferevent *bev = bufferevent_openssl_socket_new(server->options.base, fd, tls,
                                                             BUFFEREVENT_SSL_ACCEPTING, flags);
    if (bev == NULL)
        SSL_free(tls);
    else
        bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

static void conn_new(struct http_server *server, struct bufferevent *bev, const uint8_t key[16],
                     const struct sockaddr *address, enum err_code beyond)
{
    struct timeval stuck = {.tv_sec = server->options.times.write};
    struct http_conn *conn = mem_new(1, sizeof(*conn));

    conn->server = server;
    conn->bev = bev;
    conn->beyond = beyond;
    memcpy(conn->address, key, sizeof(conn->address));
    conn->timer = evtimer_new(server->options.base, on_timer, conn);
    conn->reap = evtimer_new(server->options.base, on_reap, conn);
    guard_init(&conn->guard);
    buf_init(&conn->body, 0);
    peer_format(address, conn->peer);
    conn->next = server->conns;
    if (conn->next != NULL)
        conn->next->prev = conn;
    server->conns = conn;
    server->counters.open++;
    server->told += beyond != ERR_NONE;
    peer_enter(server, key);
    conn_phase_set(conn, CONN_HEAD);
    bufferevent_setcb(bev, on_read, on_write, on_event, conn);
    bufferevent_setwatermark(bev, EV_READ, 0, READ_AHEAD);
    bufferevent_setwatermark(bev, EV_WRITE, HTTP_STREAM_ROOM / 2, 0);
    bufferevent_set_timeouts(bev, NULL, &stuck);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int length, void *arg)
{
    struct http_server *server = arg;
    uint8_t key[16];
    int one = 1;

    (void)listener;
    (void)length;
    address_key(address, key);
    server->counters.connections++;
    enum err_code beyond = admit(server, key);
    server->counters.refused += beyond != ERR_NONE;
    struct bufferevent *bev =
        beyond == ERR_NONE || server->told < TOLD_MAX ? wrap(server, fd) : NULL;
    if (bev == NULL) {
        evutil_closesocket(fd);
        return;
    }
    /* Without it small answers wait 40 ms for an acknowledgement: 85x slower (measured). */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    conn_new(server, bev, key, address, beyond);
}

static int split_bind(const char *bind, bool tls, char host[128], char port[8], struct err *err)
{
    const char *scheme = tls ? "https://" : "http://";
    const char *rest = bind + strlen(scheme);

    if (strncmp(bind, scheme, strlen(scheme)) != 0)
        return err_set_at(err, ERR_CONFIG_INVALID, "bind", "%s does not start with %s", bind,
                          scheme);
    const char *colon = strrchr(rest, ':');
    if (colon == NULL || colon == rest || strlen(colon + 1) == 0 || strlen(colon + 1) > 5
        || colon - rest >= 128)
        return err_set_at(err, ERR_CONFIG_INVALID, "bind", "%s is not %sHOST:PORT", bind, scheme);
    size_t length = (size_t)(colon - rest);
    if (rest[0] == '[' && rest[length - 1] == ']') {
        rest++;
        length -= 2;
    }
    memcpy(host, rest, length);
    host[length] = '\0';
    snprintf(port, 8, "%s", colon + 1);
    return 0;
}

static void bound_url(const struct http_server *server, char *ret_url)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    char host[64] = "";
    char port[8] = "";
    union {
        struct sockaddr_storage *in;
        struct sockaddr *out;
    } cast = {.in = &address};

    (void)getsockname(evconnlistener_get_fd(server->listener), cast.out, &size);
    (void)getnameinfo(cast.out, size, host, sizeof(host), port, sizeof(port),
                      NI_NUMERICHOST | NI_NUMERICSERV);
    bool six = address.ss_family == AF_INET6;
    snprintf(ret_url, 128, "%s://%s%s%s:%s", server->options.tls != NULL ? "https" : "http",
             six ? "[" : "", host, six ? "]" : "", port);
}

static void times_default(struct http_times *times)
{
    if (times->head == 0)
        times->head = HEAD_S;
    if (times->idle == 0)
        times->idle = IDLE_S;
    if (times->write == 0)
        times->write = WRITE_S;
}

int http_server_new(const struct http_options *options, const char *bind, char *ret_url,
                    struct http_server **ret_server, struct err *err)
{
    char host[128];
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int rc = split_bind(bind, options->tls != NULL, host, port, err);

    if (rc != 0)
        return rc;
    if (options->tls == NULL && strncmp(host, "127.", 4) != 0 && strcmp(host, "::1") != 0)
        return err_set_at(err, ERR_CONFIG_INVALID, "bind", "http is for loopback alone");
    rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0)
        return err_set_at(err, ERR_CONFIG_INVALID, "bind", "%s: %s", bind, gai_strerror(rc));
    struct http_server *server = mem_new(1, sizeof(*server));
    server->options = *options;
    times_default(&server->options.times);
    server->rates = limiter_new(options->rate_per_address);
    map_init(&server->peers);
    map_init(&server->calls);
    server->listener =
        evconnlistener_new_bind(options->base, on_accept, server,
                                LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                1024, found->ai_addr, (int)found->ai_addrlen);
    freeaddrinfo(found);
    if (server->listener == NULL) {
        limiter_free(server->rates);
        free(server);
        return err_set(err, ERR_IO, "cannot listen on %s: %s", bind, strerror(errno));
    }
    bound_url(server, ret_url);
    *ret_server = server;
    return 0;
}

void http_server_free(struct http_server *server)
{
    if (server == NULL)
        return;
    evconnlistener_free(server->listener);
    struct http_conn *next;
    for (struct http_conn *conn = server->conns; conn != NULL; conn = next) {
        next = conn->next;
        conn_free(conn);
    }
    map_fini(&server->calls);
    map_fini(&server->peers);
    limiter_free(server->rates);
    free(server);
}

void http_server_reload(struct http_server *server, SSL_CTX *tls, uint32_t max_connections)
{
    server->options.tls = tls;
    server->options.max_connections = max_connections;
}

struct http_counters http_counters(const struct http_server *server)
{
    return server->counters;
}

/* -- questions of handlers ------------------------------------------------------------------ */

struct http_call *http_call_find(struct http_server *server, uint64_t id)
{
    return map_get_id(&server->calls, id);
}

const char *http_field(const struct http_call *call, const char *name)
{
    return guard_field(call->head, name);
}

const char *http_query(const struct http_call *call, const char *key)
{
    return evhttp_find_header(&call->query, key);
}

/* -- answers -------------------------------------------------------------------------------- */

static const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "Unknown";
}

void http_header(struct http_call *open, const char *name, const char *value)
{
    struct http_call_private *call = private_of(open);

    if (strcmp(name, "Cache-Control") == 0)
        call->no_store = false;
    if (strcmp(name, "Retry-After") == 0)
        call->retry_said = true;
    buf_printf(&call->headers, "%s: %s\r\n", name, value);
}

static void write_head(struct http_call_private *call, int status, const char *type, uint64_t size)
{
    struct http_conn *conn = call->conn;
    struct evbuffer *out = bufferevent_get_output(conn->bev);
    char date[64];
    char id[UUID_TEXT];
    bool sized = size != HTTP_UNKNOWN_SIZE;

    if (!sized && conn->guard.minor_zero)
        conn->guard.close = true; /* the end of the connection is the end of the body */
    evutil_date_rfc1123(date, sizeof(date), NULL);
    evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\nRequest-Id: %s\r\n", status,
                        status_text(status), date, uuid_format(&call->open.request, id));
    if (type != NULL)
        evbuffer_add_printf(out, "Content-Type: %s\r\nX-Content-Type-Options: nosniff\r\n", type);
    if (call->no_store)
        evbuffer_add_printf(out, "Cache-Control: no-store\r\n");
    if (conn->server->options.hsts)
        evbuffer_add_printf(out, "Strict-Transport-Security: max-age=31536000\r\n");
    if (sized && status != 204 && status != 304)
        evbuffer_add_printf(out, "Content-Length: %llu\r\n", (unsigned long long)size);
    call->chunked = !sized && !conn->guard.minor_zero;
    if (call->chunked)
        evbuffer_add_printf(out, "Transfer-Encoding: chunked\r\n");
    if (conn->guard.close)
        evbuffer_add_printf(out, "Connection: close\r\n");
    else if (conn->guard.minor_zero)
        evbuffer_add_printf(out, "Connection: keep-alive\r\n");
    evbuffer_add(out, call->headers.data, call->headers.length);
    evbuffer_add(out, "\r\n", 2);
    call->begun = true;
    conn->server->counters.by_class[status / 100 % 6]++;
    log_debug("http", "answer", "request=%s peer=%s method=%s path=" LOG_Q " status=%d us=%lld", id,
              conn->peer, call->open.method, call->open.path != NULL ? call->open.path : "", status,
              (long long)(clock_mono_us() - call->open.began_us));
}

static void call_end(struct http_call_private *call, bool close)
{
    struct http_conn *conn = call->conn;

    call_free(call);
    conn_next(conn, close);
}

void http_reply(struct http_call *open, int status, const char *type, const void *body, size_t size)
{
    struct http_call_private *call = private_of(open);

    BUG_ON(call->begun);
    write_head(call, status, type, size);
    if (!call->head_only && size > 0)
        bufferevent_write(call->conn->bev, body, size);
    call_end(call, false);
}

void http_problem(struct http_call *call, const struct err *err)
{
    char *text = problem_format(err, &call->request);
    int status = problem_status(err->code);
    char retry[16];

    if (status == 401)
        http_header(call, "WWW-Authenticate", "Bearer realm=\"sheaf\"");
    if (err_info(err->code)->retryable && (status == 409 || status == 429 || status == 503)
        && !private_of(call)->retry_said) {
        snprintf(retry, sizeof(retry), "%u", TOLD_AFTER_S);
        http_header(call, "Retry-After", retry);
    }
    if (status == 500)
        log_error("http", "internal", "path=" LOG_Q " detail=" LOG_Q,
                  call->path != NULL ? call->path : "", err->text);
    http_reply(call, status, PROBLEM_TYPE, text, strlen(text));
    free(text);
}

void http_problemf(struct http_call *call, enum err_code code, const char *format, ...)
{
    struct err err = {.code = code};
    va_list args;

    va_start(args, format);
    vsnprintf(err.text, sizeof(err.text), format, args);
    va_end(args);
    http_problem(call, &err);
}

void http_too_many(struct http_call *call, const char *who, uint32_t retry_s)
{
    char seconds[16];

    private_of(call)->conn->server->counters.limited++;
    snprintf(seconds, sizeof(seconds), "%u", retry_s);
    http_header(call, "Retry-After", seconds);
    http_problemf(call, ERR_RATE_LIMITED, "too many requests of %s; again in %u s", who, retry_s);
}

void http_stream_begin(struct http_call *open, int status, const char *type, uint64_t size)
{
    struct http_call_private *call = private_of(open);

    BUG_ON(call->begun);
    write_head(call, status, type, size);
    call->left = size;
}

void http_stream_write(struct http_call *open, const void *bytes, size_t size)
{
    struct http_call_private *call = private_of(open);
    struct evbuffer *out = bufferevent_get_output(call->conn->bev);

    BUG_ON(!call->begun);
    if (call->head_only || size == 0)
        return;
    if (call->chunked)
        evbuffer_add_printf(out, "%zx\r\n", size);
    evbuffer_add(out, bytes, size);
    if (call->chunked)
        evbuffer_add(out, "\r\n", 2);
    if (call->left != HTTP_UNKNOWN_SIZE) {
        BUG_ON(size > call->left);
        call->left -= size;
    }
}

size_t http_stream_waiting(const struct http_call *open)
{
    return conn_waiting(private_of(open)->conn);
}

bool http_is_streaming(const struct http_call *open)
{
    return private_of(open)->begun;
}

void http_stream_end(struct http_call *open)
{
    struct http_call_private *call = private_of(open);

    if (call->chunked && !call->head_only)
        bufferevent_write(call->conn->bev, "0\r\n\r\n", 5);
    call_end(call, call->left != HTTP_UNKNOWN_SIZE && call->left > 0 && !call->head_only);
}

void http_stream_abort(struct http_call *open)
{
    conn_kill(private_of(open)->conn);
}
