#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/pure/mem.h"
#include "worker/network/network_private.h"

/* Datagrams handled before other events get their turn. */
#define DATAGRAMS_PER_TURN 64

bool network_resolve(const char *address, uint32_t port, int family,
                     struct sockaddr_storage *ret_address, socklen_t *ret_size)
{
    struct addrinfo hints = {.ai_family = family,
                             .ai_socktype = SOCK_DGRAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[16];

    if (family == AF_INET6)
        hints.ai_flags |= AI_V4MAPPED;
    snprintf(service, sizeof(service), "%u", port);
    if (port > UINT16_MAX || getaddrinfo(address, service, &hints, &found) != 0)
        return false;
    memcpy(ret_address, found->ai_addr, found->ai_addrlen);
    *ret_size = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

/* -- answering ------------------------------------------------------------------------------- */

static bool take_token(struct known *known)
{
    int64_t now = clock_mono_us();
    int64_t gained = (now - known->refilled_us) * ANSWERS_PER_S / 1000000;

    if (gained > 0) {
        known->tokens = gained > ANSWERS_BURST - known->tokens ? ANSWERS_BURST
                                                               : known->tokens + (uint32_t)gained;
        known->refilled_us = now;
    }
    if (known->tokens == 0)
        return false;
    known->tokens--;
    return true;
}

const uint8_t *network_answer_key(struct network *network, const uint8_t bytes[PACKET_SIZE],
                                  const struct packet *packet)
{
    for (uint32_t i = 0; i < network->known_count; i++) {
        struct known *known = &network->known[i];
        if (memcmp(known->key_id, packet->key_id, PACKET_KEY_ID) == 0)
            return packet_is_genuine(bytes, known->key) && take_token(known) ? known->key : NULL;
    }
    return NULL;
}

static void answer(struct network *network, const uint8_t *bytes, const struct packet *request,
                   const struct sockaddr_storage *from, socklen_t from_size)
{
    const uint8_t *key = network_answer_key(network, bytes, request);
    struct packet echo = *request;
    uint8_t out[PACKET_SIZE];

    if (key == NULL)
        return;
    echo.direction = PACKET_ECHO;
    packet_encode(&echo, key, out);
    /* A full socket drops it, as the network would. */
    (void)sendto(network->udp, out, sizeof(out), 0, (const struct sockaddr *)from, from_size);
}

static int64_t arrival_us(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(c), sizeof(stamp));
            return (int64_t)stamp.tv_sec * 1000000 + stamp.tv_nsec / 1000;
        }
    }
    return 0;
}

/* False when there was nothing to read. */
static bool receive_one(struct network *network)
{
    uint8_t bytes[PACKET_SIZE + 1]; /* one more, so that a longer one is seen to be longer */
    struct sockaddr_storage from;
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof(bytes)};
    union {
        char room[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_name = &from,
                             .msg_namelen = sizeof(from),
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof(control.room)};
    struct packet packet;
    ssize_t size = recvmsg(network->udp, &message, MSG_DONTWAIT);

    if (size < 0)
        return errno == EINTR || errno == ECONNREFUSED;
    if (!packet_decode(bytes, (size_t)size, &packet) || packet.transport != PACKET_UDP)
        return true;
    if (packet.direction == PACKET_REQUEST)
        answer(network, bytes, &packet, &from, message.msg_namelen);
    else
        measure_echo(network, bytes, &packet, arrival_us(&message));
    return true;
}

static void on_udp_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    for (int i = 0; i < DATAGRAMS_PER_TURN && receive_one(arg); i++)
        ;
}

/* -- life ------------------------------------------------------------------------------------ */

static int open_udp(struct network *network, const char *address, uint32_t port, uint32_t *ret_port,
                    struct err *err)
{
    struct sockaddr_storage local;
    socklen_t size;
    char service[8];

    if (!network_resolve(address, port, AF_UNSPEC, &local, &size))
        return err_set(err, ERR_IO, "not a numeric address and port: %.64s %u", address, port);
    network->family = local.ss_family;
    network->udp = socket(local.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (network->udp < 0)
        return err_set(err, ERR_IO, "probe socket: %s", strerror(errno));
    (void)setsockopt(network->udp, SOL_SOCKET, SO_TIMESTAMPNS, &(int){1}, sizeof(int));
    if (bind(network->udp, (const struct sockaddr *)&local, size) != 0)
        return err_set(err, ERR_IO, "probe port %u: %s", port, strerror(errno));
    size = sizeof(local);
    if (getsockname(network->udp, (struct sockaddr *)&local, &size) != 0
        || getnameinfo((const struct sockaddr *)&local, size, NULL, 0, service, sizeof(service),
                       NI_NUMERICSERV | NI_DGRAM)
               != 0)
        return err_set(err, ERR_IO, "probe port: %s", strerror(errno));
    *ret_port = (uint32_t)strtoul(service, NULL, 10);
    return 0;
}

int network_new(struct event_base *base, const char *address, uint32_t udp_port, uint32_t port_high,
                struct network **ret_network, uint32_t *ret_port, struct err *err)
{
    struct network *network = mem_new(1, sizeof(*network));
    const char *local = address != NULL && address[0] != '\0' ? address : "0.0.0.0";
    uint32_t port = 0;
    int rc;

    network->base = base;
    network->udp = -1;
    rc = open_udp(network, local, udp_port, &port, err);
    if (rc == 0 && port_high != 0)
        rc = listener_new(network, local, port_high, &network->listener, err);
    if (rc != 0) {
        network_free(network);
        return rc;
    }
    network->on_udp = event_new(base, network->udp, EV_READ | EV_PERSIST, on_udp_event, network);
    BUG_ON(network->on_udp == NULL || event_add(network->on_udp, NULL) != 0);
    *ret_network = network;
    *ret_port = port;
    return 0;
}

void network_free(struct network *network)
{
    if (network == NULL)
        return;
    measure_free_all(network);
    listener_free(network->listener);
    if (network->on_udp != NULL)
        event_free(network->on_udp);
    if (network->udp >= 0)
        close(network->udp);
    free(network);
}

static const struct known *find_known(const struct known *known, uint32_t count,
                                      const uint8_t key_id[PACKET_KEY_ID])
{
    for (uint32_t i = 0; i < count; i++) {
        if (memcmp(known[i].key_id, key_id, PACKET_KEY_ID) == 0)
            return &known[i];
    }
    return NULL;
}

void network_set_peers(struct network *network, const struct probe_peer *peers, uint32_t count)
{
    struct known *former = mem_new(PROBE_MAX_PEERS, sizeof(*former));
    uint32_t former_count = network->known_count;

    memcpy(former, network->known, sizeof(network->known));
    if (count > PROBE_MAX_PEERS)
        count = PROBE_MAX_PEERS;
    for (uint32_t i = 0; i < count; i++) {
        struct known fresh = {.tokens = ANSWERS_BURST, .refilled_us = clock_mono_us()};
        const struct known *old;
        packet_key_id(peers[i].key, fresh.key_id);
        memcpy(fresh.key, peers[i].key, SHA256_SIZE);
        old = find_known(former, former_count, fresh.key_id);
        network->known[i] = old != NULL ? *old : fresh; /* allowances go on */
    }
    network->known_count = count;
    free(former);
}
