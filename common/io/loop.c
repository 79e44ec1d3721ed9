#include "common/io/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/io/zap_private.h"
#include "common/pure/mem.h"

/* Messages delivered before other events get a turn: about a millisecond of handlers. */
#define TURN_BUDGET        64
#define DEFAULT_HIGH_WATER 1000
#define HANDSHAKE_MS       5000
#define HEARTBEAT_MS       5000
#define HEARTBEAT_LIMIT_MS 15000
#define RECONNECT_FIRST_MS 100
#define RECONNECT_LIMIT_MS 10000
#define ENDPOINT_TEXT      128

struct zsock {
    struct event_base *base;
    void *context;
    void *handle;  /* the ZeroMQ socket */
    void *monitor; /* PAIR; refusals of a CURVE client's handshake. NULL for others */
    bool refused;
    zsock_on_message_f on_message;
    void *arg;
    struct event *readable; /* on ZMQ_FD, which is edge-triggered */
    struct event *again;    /* zero timer: there is more, but others go first */
    struct peers *peers;    /* watched servers */
    struct event *cuts;     /* … which ended a connection */
    struct zsock_options options;
    struct curve_pair server;
    struct curve_pair client;
    uint8_t server_key[KEY_SIZE];
    char *zap_domain; /* owned */
    char *subscribe;  /* owned */
    bool delivering;  /* inside on_message */
    bool freed;       /* zsock_free was called there */
};

struct event_base *loop_new(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct event_base *base;

    BUG_ON(sigaction(SIGPIPE, &ignore, NULL) != 0);
    base = event_base_new();
    BUG_ON(base == NULL);
    return base;
}

static bool is_readable(const struct zsock *socket)
{
    int events = 0;
    size_t size = sizeof(events);

    if (zmq_getsockopt(socket->handle, ZMQ_EVENTS, &events, &size) != 0)
        return false;
    return (events & ZMQ_POLLIN) != 0;
}

static void come_back(struct zsock *socket)
{
    static const struct timeval now = {0, 0};

    BUG_ON(event_add(socket->again, &now) != 0);
}

/* Reads all frames of one message; keeps the first ZSOCK_MAX_FRAMES. False: there was none. */
static bool receive(struct zsock *socket, zmq_msg_t *frames, struct zmsg *ret_message)
{
    struct zmsg message = {.user_id = "", .peer = ""};
    uint64_t bytes = 0;
    bool more = true;

    for (uint32_t i = 0; more; i++) {
        zmq_msg_t extra;
        zmq_msg_t *frame = i < ZSOCK_MAX_FRAMES ? &frames[i] : &extra;
        zmq_msg_init(frame);
        if (zmq_msg_recv(frame, socket->handle, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(frame);
            /* Frames of one message arrive together; only the first may be missing. */
            for (uint32_t k = 0; k < message.count; k++)
                zmq_msg_close(&frames[k]);
            return false;
        }
        more = zmq_msg_more(frame) != 0;
        bytes += zmq_msg_size(frame);
        if (frame == &extra) {
            message.too_many = true;
            zmq_msg_close(&extra);
            continue;
        }
        message.frame[i] = zmq_msg_data(frame);
        message.size[i] = zmq_msg_size(frame);
        message.count = i + 1;
    }
    /* Properties of the connection are on each frame but the identity that a ROUTER puts first. */
    zmq_msg_t *last = &frames[message.count - 1];
    const char *user_id = zmq_msg_gets(last, "User-Id");
    const char *peer = zmq_msg_gets(last, "Peer-Address");
    if (user_id != NULL)
        message.user_id = user_id;
    if (peer != NULL)
        message.peer = peer;
    if (socket->peers != NULL)
        peers_delivered(socket->peers, zmq_msg_get(last, ZMQ_SRCFD), message.user_id, bytes);
    *ret_message = message;
    return true;
}

/* Without it a client could not tell a refused key from a server that is away. */
static int open_monitor(struct zsock *socket)
{
    static atomic_uint next;
    char endpoint[ENDPOINT_TEXT];
    int no_linger = 0;

    snprintf(endpoint, sizeof(endpoint), "inproc://sheaf.monitor.%u", atomic_fetch_add(&next, 1));
    if (zmq_socket_monitor(socket->handle, endpoint, ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) != 0)
        return -1;
    socket->monitor = zmq_socket(socket->context, ZMQ_PAIR);
    if (socket->monitor == NULL)
        return -1;
    zmq_setsockopt(socket->monitor, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    return zmq_connect(socket->monitor, endpoint);
}

bool zsock_was_refused(struct zsock *socket)
{
    char frame[256];

    /* An event is two frames: number and value, then the address. */
    while (socket->monitor != NULL
           && zmq_recv(socket->monitor, frame, sizeof(frame), ZMQ_DONTWAIT) >= 0)
        socket->refused = true;
    return socket->refused;
}

static void on_cuts(evutil_socket_t fd, short what, void *arg)
{
    struct zsock *socket = arg;
    struct peers_cut cut;

    (void)fd;
    (void)what;
    while (peers_next_cut(socket->peers, &cut)) {
        if (socket->options.on_cut != NULL)
            socket->options.on_cut(socket, &cut, socket->arg);
    }
}

static int watch_peers(struct zsock *socket)
{
    socket->peers = peers_new(socket->context, socket->handle, &socket->options.held);
    if (socket->peers == NULL)
        return -1;
    socket->cuts =
        event_new(socket->base, peers_fd(socket->peers), EV_READ | EV_PERSIST, on_cuts, socket);
    BUG_ON(socket->cuts == NULL || event_add(socket->cuts, NULL) != 0);
    return 0;
}

uint32_t zsock_end_peer(struct zsock *socket, const char *user_id)
{
    return socket->peers != NULL ? peers_end(socket->peers, user_id) : 0;
}

static void close_handle(void *handle, void *monitor)
{
    if (monitor != NULL) {
        zmq_socket_monitor(handle, NULL, 0);
        zmq_close(monitor);
    }
    if (handle != NULL)
        zmq_close(handle);
}

static void destroy(struct zsock *socket)
{
    if (socket->readable != NULL)
        event_free(socket->readable);
    if (socket->again != NULL)
        event_free(socket->again);
    if (socket->cuts != NULL)
        event_free(socket->cuts);
    if (socket->peers != NULL) {
        zmq_socket_monitor(socket->handle, NULL, 0);
        peers_free(socket->peers);
    }
    close_handle(socket->handle, socket->monitor);
    free(socket->zap_domain);
    free(socket->subscribe);
    free(socket);
}

static void deliver(struct zsock *socket)
{
    zmq_msg_t frames[ZSOCK_MAX_FRAMES];
    struct zmsg message;

    if (socket->delivering)
        return; /* a handler runs a nested loop: its caller goes on where it is */
    for (int i = 0; i < TURN_BUDGET; i++) {
        if (!is_readable(socket) || !receive(socket, frames, &message))
            return;
        socket->delivering = true;
        socket->on_message(socket, &message, socket->arg);
        socket->delivering = false;
        for (uint32_t k = 0; k < message.count; k++)
            zmq_msg_close(&frames[k]);
        if (socket->freed) {
            destroy(socket);
            return;
        }
    }
    come_back(socket);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    deliver(arg);
}

static int set_int(void *handle, int option, int value)
{
    return zmq_setsockopt(handle, option, &value, sizeof(value));
}

static int set_curve(const struct zsock *socket)
{
    void *handle = socket->handle;
    int rc = 0;

    if (socket->options.server != NULL) {
        rc |= set_int(handle, ZMQ_CURVE_SERVER, 1);
        rc |= zmq_setsockopt(handle, ZMQ_CURVE_SECRETKEY, socket->server.secret_key, KEY_SIZE);
        rc |=
            zmq_setsockopt(handle, ZMQ_ZAP_DOMAIN, socket->zap_domain, strlen(socket->zap_domain));
    }
    if (socket->options.client != NULL) {
        rc |= zmq_setsockopt(handle, ZMQ_CURVE_SERVERKEY, socket->server_key, KEY_SIZE);
        rc |= zmq_setsockopt(handle, ZMQ_CURVE_PUBLICKEY, socket->client.public_key, KEY_SIZE);
        rc |= zmq_setsockopt(handle, ZMQ_CURVE_SECRETKEY, socket->client.secret_key, KEY_SIZE);
    }
    return rc;
}

static int set_options(const struct zsock *socket)
{
    const struct zsock_options *options = &socket->options;
    int high_water = options->high_water > 0 ? options->high_water : DEFAULT_HIGH_WATER;
    int64_t max_frame = options->max_frame > 0 ? (int64_t)options->max_frame : -1;
    void *handle = socket->handle;
    int rc = 0;

    rc |= set_int(handle, ZMQ_LINGER, 0);
    rc |= set_int(handle, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    rc |= set_int(handle, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
    rc |= set_int(handle, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_LIMIT_MS);
    rc |= set_int(handle, ZMQ_HEARTBEAT_TTL, HEARTBEAT_LIMIT_MS);
    rc |= set_int(handle, ZMQ_RECONNECT_IVL, RECONNECT_FIRST_MS);
    rc |= set_int(handle, ZMQ_RECONNECT_IVL_MAX, RECONNECT_LIMIT_MS);
    rc |= set_int(handle, ZMQ_SNDHWM, high_water);
    rc |= set_int(handle, ZMQ_RCVHWM, high_water);
    rc |= zmq_setsockopt(handle, ZMQ_MAXMSGSIZE, &max_frame, sizeof(max_frame));
    if (options->type == ZMQ_ROUTER)
        rc |= set_int(handle, ZMQ_ROUTER_MANDATORY, 1);
    if (socket->subscribe != NULL)
        rc |= zmq_setsockopt(handle, ZMQ_SUBSCRIBE, socket->subscribe, strlen(socket->subscribe));
    return rc | set_curve(socket);
}

/* Makes the ZeroMQ socket and its event. On failure nothing is left. */
static int open_handle(struct zsock *socket, struct err *err)
{
    int fd = -1;
    size_t size = sizeof(fd);

    socket->monitor = NULL;
    socket->refused = false;
    socket->handle = zmq_socket(socket->context, socket->options.type);
    if (socket->handle == NULL)
        return err_set(err, ERR_IO, "cannot make a socket: %s", zmq_strerror(zmq_errno()));
    if (set_options(socket) != 0 || (socket->options.client != NULL && open_monitor(socket) != 0)
        || zmq_getsockopt(socket->handle, ZMQ_FD, &fd, &size) != 0
        || (socket->options.held.one > 0 && watch_peers(socket) != 0)) {
        int rc = err_set(err, ERR_INTERNAL, "socket option: %s", zmq_strerror(zmq_errno()));
        close_handle(socket->handle, socket->monitor);
        socket->handle = NULL;
        socket->monitor = NULL;
        return rc;
    }
    socket->readable = event_new(socket->base, fd, EV_READ | EV_PERSIST, on_event, socket);
    BUG_ON(socket->readable == NULL || event_add(socket->readable, NULL) != 0);
    come_back(socket);
    return 0;
}

int zsock_new(struct event_base *base, void *zmq_context, const struct zsock_options *options,
              zsock_on_message_f on_message, void *arg, struct zsock **ret_socket, struct err *err)
{
    if (options->server != NULL && !zap_is_present(zmq_context))
        return err_set(err, ERR_INTERNAL,
                       "a CURVE server without a ZAP handler would let everybody in");
    if (options->server != NULL && (options->zap_domain == NULL || options->zap_domain[0] == '\0'))
        return err_set(err, ERR_INTERNAL, "a CURVE server needs a ZAP domain");
    if (options->client != NULL && options->server_key == NULL)
        return err_set(err, ERR_INTERNAL, "a CURVE client needs the server's key");
    struct zsock *socket = mem_new(1, sizeof(*socket));
    socket->base = base;
    socket->context = zmq_context;
    socket->on_message = on_message;
    socket->arg = arg;
    socket->options = *options;
    if (options->server != NULL) {
        socket->server = *options->server;
        socket->zap_domain = mem_strdup(options->zap_domain);
    }
    if (options->client != NULL) {
        socket->client = *options->client;
        memcpy(socket->server_key, options->server_key, KEY_SIZE);
    }
    if (options->subscribe != NULL)
        socket->subscribe = mem_strdup(options->subscribe);
    socket->again = evtimer_new(base, on_event, socket);
    BUG_ON(socket->again == NULL);
    int rc = open_handle(socket, err);
    if (rc != 0) {
        destroy(socket);
        return rc;
    }
    *ret_socket = socket;
    return 0;
}

int zsock_bind(struct zsock *socket, const char *endpoint, char *ret_endpoint, struct err *err)
{
    char bound[ENDPOINT_TEXT];
    size_t size = sizeof(bound);

    if (zmq_bind(socket->handle, endpoint) != 0
        || zmq_getsockopt(socket->handle, ZMQ_LAST_ENDPOINT, bound, &size) != 0)
        return err_set(err, ERR_IO, "cannot listen on %s: %s", endpoint, zmq_strerror(zmq_errno()));
    if (ret_endpoint != NULL)
        memcpy(ret_endpoint, bound, size);
    if (socket->peers != NULL)
        peers_bound(socket->peers, bound);
    return 0;
}

int zsock_connect(struct zsock *socket, const char *endpoint, struct err *err)
{
    if (zmq_connect(socket->handle, endpoint) != 0)
        return err_set(err, ERR_USAGE, "cannot connect to %s: %s", endpoint,
                       zmq_strerror(zmq_errno()));
    return 0;
}

int zsock_reconnect(struct zsock *socket, const char *endpoint, struct err *err)
{
    struct event *old_event = socket->readable;
    void *old_handle = socket->handle;
    void *old_monitor = socket->monitor;
    int rc = open_handle(socket, err);

    if (rc != 0) {
        socket->readable = old_event;
        socket->handle = old_handle;
        socket->monitor = old_monitor;
        return rc;
    }
    event_free(old_event);
    close_handle(old_handle, old_monitor);
    return zsock_connect(socket, endpoint, err);
}

int zsock_send(struct zsock *socket, const void *peer, size_t peer_size, const void *bytes,
               size_t size)
{
    int rc = 0;

    if (peer != NULL)
        rc = zmq_send(socket->handle, peer, peer_size, ZMQ_DONTWAIT | ZMQ_SNDMORE);
    if (rc >= 0)
        rc = zmq_send(socket->handle, bytes, size, ZMQ_DONTWAIT);
    int error = rc < 0 ? zmq_errno() : 0;
    /* Sending reads the wake-up of a message that came meanwhile: nobody else would see it. */
    if (is_readable(socket))
        come_back(socket);
    if (error == 0)
        return 0;
    return error == EHOSTUNREACH ? -ERR_UNREACHABLE : -ERR_TOO_MANY;
}

void zsock_free_linger(struct zsock *socket, int ms)
{
    if (socket != NULL)
        zmq_setsockopt(socket->handle, ZMQ_LINGER, &ms, sizeof(ms));
    zsock_free(socket);
}

void zsock_free(struct zsock *socket)
{
    if (socket == NULL)
        return;
    if (socket->delivering) {
        socket->freed = true;
        return;
    }
    destroy(socket);
}
