#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/io/clock.h"
#include "common/pure/mem.h"
#include "worker/network/network_private.h"

/* Strangers may connect too: few at a time, and not for long. */
#define MAX_VISITORS     64u
#define VISITOR_SECONDS  2
#define RETRY_US         250000
#define LISTENER_BACKLOG 64

/* -- answering ------------------------------------------------------------------------------- */

struct visitor {
    struct listener *listener;
    struct visitor *next;
    struct bufferevent *stream;
    struct event *deadline;
};

struct listener {
    struct network *network;
    struct evconnlistener *socket;
    struct visitor *visitors;
    uint32_t count;
};

static void visitor_close(struct visitor *visitor)
{
    bufferevent_free(visitor->stream);
    event_free(visitor->deadline);
    free(visitor);
}

static void visitor_free(struct visitor *visitor)
{
    struct visitor **at = &visitor->listener->visitors;

    while (*at != visitor)
        at = &(*at)->next;
    *at = visitor->next;
    visitor->listener->count--;
    visitor_close(visitor);
}

static void on_visitor_event(struct bufferevent *stream, short what, void *arg)
{
    (void)stream;
    (void)what;
    visitor_free(arg);
}

static void on_visitor_bytes(struct bufferevent *stream, void *arg)
{
    struct visitor *visitor = arg;
    struct evbuffer *input = bufferevent_get_input(stream);
    uint8_t bytes[PACKET_SIZE];
    struct packet packet;
    const uint8_t *key = NULL;

    if (evbuffer_get_length(input) < PACKET_SIZE)
        return;
    if (evbuffer_remove(input, bytes, sizeof(bytes)) == (int)sizeof(bytes)
        && packet_decode(bytes, sizeof(bytes), &packet) && packet.direction == PACKET_REQUEST
        && packet.transport == PACKET_TCP)
        key = network_answer_key(visitor->listener->network, bytes, &packet);
    if (key == NULL) {
        visitor_free(visitor);
        return;
    }
    packet.direction = PACKET_ECHO;
    packet_encode(&packet, key, bytes);
    (void)bufferevent_write(stream, bytes, sizeof(bytes));
    /* One answer each. The asker closes; what else it sends stops at the watermark. */
    bufferevent_setcb(stream, NULL, NULL, on_visitor_event, visitor);
}

static void on_visitor_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    visitor_free(arg);
}

static void on_visitor(struct evconnlistener *socket, evutil_socket_t fd, struct sockaddr *address,
                       int size, void *arg)
{
    struct listener *listener = arg;
    struct visitor *visitor;

    (void)socket;
    (void)address;
    (void)size;
    if (listener->count == MAX_VISITORS) {
        evutil_closesocket(fd);
        return;
    }
    visitor = mem_new(1, sizeof(*visitor));
    visitor->listener = listener;
    visitor->next = listener->visitors;
    listener->visitors = visitor;
    listener->count++;
    visitor->stream = bufferevent_socket_new(listener->network->base, fd, BEV_OPT_CLOSE_ON_FREE);
    visitor->deadline = event_new(listener->network->base, -1, 0, on_visitor_deadline, visitor);
    BUG_ON(visitor->stream == NULL || visitor->deadline == NULL);
    event_add(visitor->deadline, &(struct timeval){.tv_sec = VISITOR_SECONDS});
    bufferevent_setcb(visitor->stream, on_visitor_bytes, NULL, on_visitor_event, visitor);
    bufferevent_setwatermark(visitor->stream, EV_READ, PACKET_SIZE, (size_t)PACKET_SIZE * 4);
    bufferevent_enable(visitor->stream, EV_READ | EV_WRITE);
}

int listener_new(struct network *network, const char *address, uint32_t port,
                 struct listener **ret_listener, struct err *err)
{
    struct listener *listener;
    struct sockaddr_storage local;
    struct evconnlistener *socket;
    socklen_t size;

    if (!network_resolve(address, port, AF_UNSPEC, &local, &size))
        return err_set(err, ERR_IO, "not a numeric address and port: %.64s %u", address, port);
    listener = mem_new(1, sizeof(*listener));
    listener->network = network;
    socket =
        evconnlistener_new_bind(network->base, on_visitor, listener,
                                LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                LISTENER_BACKLOG, (struct sockaddr *)&local, (int)size);
    if (socket == NULL) {
        free(listener);
        return err_set(err, ERR_IO, "task port %u: %s", port, strerror(errno));
    }
    listener->socket = socket;
    *ret_listener = listener;
    return 0;
}

void listener_free(struct listener *listener)
{
    if (listener == NULL)
        return;
    for (struct visitor *at = listener->visitors, *next; at != NULL; at = next) {
        next = at->next;
        visitor_close(at);
    }
    evconnlistener_free(listener->socket);
    free(listener);
}

/* -- asking ---------------------------------------------------------------------------------- */

struct reach {
    struct network *network;
    struct probe_peer peer;
    uint64_t nonce;
    int64_t began_us;
    struct bufferevent *stream;
    struct event *retry;
    struct event *deadline;
    reach_on_end_f on_end;
    void *arg;
};

static void reach_stop(struct reach *reach)
{
    if (reach->stream != NULL)
        bufferevent_free(reach->stream);
    reach->stream = NULL;
}

static void reach_end(struct reach *reach, bool reached)
{
    reach_stop(reach);
    event_del(reach->retry);
    event_del(reach->deadline);
    reach->on_end(reached, reach->arg);
}

/* Refused, closed, or not the peer: once more after a while, as long as the deadline allows. */
static void reach_again(struct reach *reach)
{
    reach_stop(reach);
    event_add(reach->retry, &(struct timeval){.tv_usec = RETRY_US});
}

static void on_reach_bytes(struct bufferevent *stream, void *arg)
{
    struct reach *reach = arg;
    struct packet packet;
    uint8_t bytes[PACKET_SIZE];

    if (evbuffer_get_length(bufferevent_get_input(stream)) < PACKET_SIZE)
        return;
    if (bufferevent_read(stream, bytes, sizeof(bytes)) == sizeof(bytes)
        && packet_decode(bytes, sizeof(bytes), &packet) && packet.direction == PACKET_ECHO
        && packet.transport == PACKET_TCP && packet.nonce == reach->nonce
        && packet_is_genuine(bytes, reach->peer.key))
        reach_end(reach, true);
    else
        reach_again(reach);
}

static void on_reach_event(struct bufferevent *stream, short what, void *arg)
{
    struct reach *reach = arg;
    struct packet packet = {
        .direction = PACKET_REQUEST, .transport = PACKET_TCP, .nonce = reach->nonce};
    uint8_t bytes[PACKET_SIZE];

    if ((what & BEV_EVENT_CONNECTED) == 0) {
        reach_again(reach);
        return;
    }
    packet_key_id(reach->peer.key, packet.key_id);
    packet_encode(&packet, reach->peer.key, bytes);
    (void)bufferevent_write(stream, bytes, sizeof(bytes));
}

static void on_reach_start(evutil_socket_t fd, short what, void *arg)
{
    struct reach *reach = arg;
    struct sockaddr_storage address;
    socklen_t size;

    (void)fd;
    (void)what;
    if (!network_resolve(reach->peer.address, reach->peer.tcp_port, AF_UNSPEC, &address, &size)) {
        reach_end(reach, false);
        return;
    }
    reach->stream = bufferevent_socket_new(reach->network->base, -1, BEV_OPT_CLOSE_ON_FREE);
    BUG_ON(reach->stream == NULL);
    bufferevent_setcb(reach->stream, on_reach_bytes, NULL, on_reach_event, reach);
    bufferevent_setwatermark(reach->stream, EV_READ, PACKET_SIZE, (size_t)PACKET_SIZE * 4);
    bufferevent_enable(reach->stream, EV_READ | EV_WRITE);
    if (bufferevent_socket_connect(reach->stream, (struct sockaddr *)&address, (int)size) != 0)
        reach_again(reach);
}

static void on_reach_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    reach_end(arg, false);
}

struct reach *reach_new(struct network *network, const struct probe_peer *peer,
                        reach_on_end_f on_end, void *arg)
{
    struct reach *reach = mem_new(1, sizeof(*reach));

    reach->network = network;
    reach->peer = *peer;
    reach->on_end = on_end;
    reach->arg = arg;
    random_bytes(&reach->nonce, sizeof(reach->nonce));
    reach->retry = event_new(network->base, -1, 0, on_reach_start, reach);
    reach->deadline = event_new(network->base, -1, 0, on_reach_deadline, reach);
    BUG_ON(reach->retry == NULL || reach->deadline == NULL);
    event_add(reach->retry, &(struct timeval){0});
    event_add(reach->deadline, &(struct timeval){.tv_sec = REACH_DEADLINE_S});
    return reach;
}

void reach_free(struct reach *reach)
{
    if (reach == NULL)
        return;
    reach_stop(reach);
    event_free(reach->retry);
    event_free(reach->deadline);
    free(reach);
}
