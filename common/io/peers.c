#include "common/io/peers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/pure/mem.h"

/* A sender on loopback brings 5 to 10 MiB in this time. */
#define SWEEP_MS 20
/* Of thousands of connections a sweep takes milliseconds: at most a fiftieth of one processor. */
#define SWEEP_SHARE    50
#define SWEEP_LIMIT_MS 250
/*
 * Added to the bytes of each delivered message: framing, encryption, and the heartbeats between it
 * and the one before. Too much is harmless, because a connection is one stream: what came before a
 * delivered message was delivered too, and nothing can be kept from before it.
 */
#define MESSAGE_EXTRA 1024
#define MAX_CUTS      64
#define EVENT_FRAME   256

/* A connection, by its fd. The cookie tells a reused fd from its predecessor; 0: none here. */
struct peer {
    uint64_t cookie;
    uint64_t received;
    uint64_t delivered;
    int64_t since_us; /* the last message, or the first sight */
    bool ended;
    char user_id[PEERS_USER_ID];
};

struct peers {
    struct peers_limits limits;
    void *monitor; /* PAIR; of the thread alone once it runs */
    int stop_fd;
    int cut_fd;
    pthread_t thread;
    atomic_uint port;
    pthread_mutex_t lock;
    struct peer *by_fd;
    uint32_t fd_count;
    uint32_t live;
    struct peers_cut cuts[MAX_CUTS]; /* ring */
    uint32_t cut_first;
    uint32_t cut_count;
};

/* -- what the kernel knows ------------------------------------------------------------------- */

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);

    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

static unsigned port_of(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
    if (address->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
    return 0;
}

/* Whether this is a connection that our listener made: its own end is the bound port. */
static bool is_accepted(int fd, unsigned port)
{
    struct sockaddr_storage own = {0};
    socklen_t size = sizeof(own);

    return port != 0 && getsockname(fd, (struct sockaddr *)&own, &size) == 0
           && port_of(&own) == port;
}

static bool received_of(int fd, uint64_t *ret_bytes)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return false;
    *ret_bytes = info.tcpi_bytes_received;
    return true;
}

static void address_of(int fd, char out[PEERS_ADDRESS])
{
    struct sockaddr_storage other = {0};
    socklen_t size = sizeof(other);
    char host[INET6_ADDRSTRLEN] = "";
    const void *bytes = &((const struct sockaddr_in *)(const void *)&other)->sin_addr;

    if (getpeername(fd, (struct sockaddr *)&other, &size) != 0)
        return;
    if (other.ss_family == AF_INET6)
        bytes = &((const struct sockaddr_in6 *)(const void *)&other)->sin6_addr;
    if (inet_ntop(other.ss_family, bytes, host, sizeof(host)) != NULL)
        snprintf(out, PEERS_ADDRESS, "%s:%u", host, port_of(&other));
}

/*
 * libzmq owns the fd and may close it at any moment, and another may get its number: a copy keeps
 * the socket while it is looked at, so that nobody else's connection is ever ended.
 */
static bool shut(int fd, uint64_t cookie, char address[PEERS_ADDRESS])
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    bool same = copy >= 0 && cookie_of(copy) == cookie;

    if (same) {
        address_of(copy, address);
        (void)shutdown(copy, SHUT_RDWR);
    }
    if (copy >= 0)
        close(copy);
    return same;
}

/* -- the table; the lock is held ------------------------------------------------------------- */

static void forget(struct peers *peers, struct peer *peer)
{
    if (peer->cookie != 0)
        peers->live--;
    *peer = (struct peer){0};
}

/* The entry of the connection that has this fd now; NULL when it is none of ours. */
static struct peer *find(struct peers *peers, int fd, unsigned port)
{
    uint64_t cookie = cookie_of(fd);
    uint32_t index = (uint32_t)fd;

    if (fd < 0 || cookie == 0)
        return NULL;
    if (index < peers->fd_count && peers->by_fd[index].cookie == cookie)
        return &peers->by_fd[index];
    if (!is_accepted(fd, port))
        return NULL;
    if (index >= peers->fd_count) {
        uint32_t count = index + 64;
        peers->by_fd = mem_resize(peers->by_fd, count, sizeof(*peers->by_fd));
        memset(peers->by_fd + peers->fd_count, 0,
               (count - peers->fd_count) * sizeof(*peers->by_fd));
        peers->fd_count = count;
    }
    forget(peers, &peers->by_fd[index]);
    peers->by_fd[index].cookie = cookie;
    peers->by_fd[index].since_us = clock_mono_us();
    peers->live++;
    return &peers->by_fd[index];
}

static uint64_t held(const struct peer *peer)
{
    return peer->ended ? 0 : peer->received - peer->delivered;
}

static void cut(struct peers *peers, int fd)
{
    struct peer *peer = &peers->by_fd[fd];
    struct peers_cut *note;
    uint64_t one = 1;
    char address[PEERS_ADDRESS] = "";

    if (!shut(fd, peer->cookie, address)) {
        forget(peers, peer);
        return;
    }
    if (peers->cut_count < MAX_CUTS) { /* a log that nobody reads so fast */
        note = &peers->cuts[(peers->cut_first + peers->cut_count++) % MAX_CUTS];
        *note = (struct peers_cut){.held = held(peer), .age_us = clock_mono_us() - peer->since_us};
        memcpy(note->user_id, peer->user_id, sizeof(note->user_id));
        memcpy(note->address, address, sizeof(note->address));
    }
    peer->ended = true;
    (void)!write(peers->cut_fd, &one, sizeof(one));
}

/* Brings the counts up to date; the bytes of all. */
static uint64_t measure(struct peers *peers)
{
    uint64_t all = 0;

    for (uint32_t fd = 0; fd < peers->fd_count; fd++) {
        struct peer *peer = &peers->by_fd[fd];
        if (peer->cookie == 0)
            continue;
        if (!received_of((int)fd, &peer->received)) {
            forget(peers, peer);
            continue;
        }
        if (peer->delivered > peer->received)
            peer->delivered = peer->received;
        all += held(peer);
    }
    return all;
}

static struct peer *largest(const struct peers *peers)
{
    struct peer *most = NULL;

    for (uint32_t fd = 0; fd < peers->fd_count; fd++) {
        struct peer *peer = &peers->by_fd[fd];
        if (peer->cookie != 0 && (most == NULL || held(peer) > held(most)))
            most = peer;
    }
    return most;
}

static void sweep(struct peers *peers)
{
    uint64_t all = measure(peers);

    for (uint32_t fd = 0; fd < peers->fd_count; fd++) {
        struct peer *peer = &peers->by_fd[fd];
        if (peer->cookie != 0 && held(peer) > peers->limits.one) {
            all -= held(peer);
            cut(peers, (int)fd);
        }
    }
    while (peers->limits.all != 0 && all > peers->limits.all) {
        struct peer *most = largest(peers);
        if (most == NULL || held(most) <= peers->limits.spare)
            break;
        all -= held(most);
        cut(peers, (int)(most - peers->by_fd));
    }
}

/* -- the thread ------------------------------------------------------------------------------ */

/* An event is two frames: its number and the fd, then our own end's address. */
static bool take_event(struct peers *peers)
{
    uint8_t number[EVENT_FRAME];
    char endpoint[EVENT_FRAME];
    int size = zmq_recv(peers->monitor, number, sizeof(number), ZMQ_DONTWAIT);
    int length;
    int32_t fd;

    if (size < 0)
        return false;
    length = zmq_recv(peers->monitor, endpoint, sizeof(endpoint) - 1, ZMQ_DONTWAIT);
    if (size < 6 || length <= 0 || length >= (int)sizeof(endpoint))
        return true;
    endpoint[length] = '\0';
    memcpy(&fd, number + 2, sizeof(fd));
    const char *colon = strrchr(endpoint, ':');
    if (colon != NULL)
        (void)find(peers, fd, (unsigned)strtoul(colon + 1, NULL, 10));
    return true;
}

/* How long to sleep until the next sweep; -1 while nobody is connected. */
static int look(struct peers *peers)
{
    int64_t began_us = clock_mono_us();
    int64_t pause_ms;
    uint32_t live;

    pthread_mutex_lock(&peers->lock);
    while (take_event(peers))
        ;
    sweep(peers);
    live = peers->live;
    pthread_mutex_unlock(&peers->lock);
    if (live == 0)
        return -1;
    pause_ms = (clock_mono_us() - began_us) * SWEEP_SHARE / 1000;
    if (pause_ms > SWEEP_LIMIT_MS)
        pause_ms = SWEEP_LIMIT_MS;
    return pause_ms < SWEEP_MS ? SWEEP_MS : (int)pause_ms;
}

static void *run(void *arg)
{
    struct peers *peers = arg;
    int pause_ms = -1;

    for (;;) {
        zmq_pollitem_t items[] = {
            {.fd = peers->stop_fd, .events = ZMQ_POLLIN},
            {.socket = peers->monitor, .events = ZMQ_POLLIN},
        };
        if (zmq_poll(items, pause_ms < 0 ? 2 : 1, pause_ms) < 0 && zmq_errno() != EINTR)
            break;
        if ((items[0].revents & ZMQ_POLLIN) != 0)
            break;
        pause_ms = look(peers);
    }
    zmq_close(peers->monitor);
    return NULL;
}

static void *open_monitor(void *zmq_context, void *handle)
{
    static atomic_uint next;
    char endpoint[64];
    int no_linger = 0;
    void *monitor;

    snprintf(endpoint, sizeof(endpoint), "inproc://sheaf.peers.%u", atomic_fetch_add(&next, 1));
    if (zmq_socket_monitor(handle, endpoint, ZMQ_EVENT_ACCEPTED) != 0)
        return NULL;
    monitor = zmq_socket(zmq_context, ZMQ_PAIR);
    if (monitor == NULL)
        return NULL;
    zmq_setsockopt(monitor, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    if (zmq_connect(monitor, endpoint) == 0)
        return monitor;
    zmq_close(monitor);
    return NULL;
}

/* -- for the loop's thread ------------------------------------------------------------------- */

struct peers *peers_new(void *zmq_context, void *handle, const struct peers_limits *limits)
{
    void *monitor = open_monitor(zmq_context, handle);
    struct peers *peers;
    sigset_t all;
    sigset_t before;

    if (monitor == NULL)
        return NULL;
    peers = mem_new(1, sizeof(*peers));
    peers->limits = *limits;
    peers->monitor = monitor;
    peers->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    peers->cut_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    BUG_ON(peers->stop_fd < 0 || peers->cut_fd < 0);
    BUG_ON(pthread_mutex_init(&peers->lock, NULL) != 0);
    /* Signals belong to the thread of the loop. */
    sigfillset(&all);
    BUG_ON(pthread_sigmask(SIG_SETMASK, &all, &before) != 0);
    BUG_ON(pthread_create(&peers->thread, NULL, run, peers) != 0);
    BUG_ON(pthread_sigmask(SIG_SETMASK, &before, NULL) != 0);
    return peers;
}

void peers_free(struct peers *peers)
{
    uint64_t one = 1;

    if (peers == NULL)
        return;
    BUG_ON(write(peers->stop_fd, &one, sizeof(one)) != sizeof(one));
    pthread_join(peers->thread, NULL);
    pthread_mutex_destroy(&peers->lock);
    close(peers->stop_fd);
    close(peers->cut_fd);
    free(peers->by_fd);
    free(peers);
}

void peers_bound(struct peers *peers, const char *endpoint)
{
    const char *colon = strrchr(endpoint, ':');

    if (strncmp(endpoint, "tcp://", 6) == 0 && colon != NULL)
        atomic_store(&peers->port, (unsigned)strtoul(colon + 1, NULL, 10));
}

void peers_delivered(struct peers *peers, int fd, const char *user_id, uint64_t bytes)
{
    struct peer *peer;

    pthread_mutex_lock(&peers->lock);
    peer = find(peers, fd, atomic_load(&peers->port));
    if (peer != NULL) {
        peer->delivered += bytes + MESSAGE_EXTRA;
        peer->since_us = clock_mono_us();
        snprintf(peer->user_id, sizeof(peer->user_id), "%s", user_id);
    }
    pthread_mutex_unlock(&peers->lock);
}

uint32_t peers_end(struct peers *peers, const char *user_id)
{
    char address[PEERS_ADDRESS];
    uint32_t count = 0;

    pthread_mutex_lock(&peers->lock);
    for (uint32_t fd = 0; fd < peers->fd_count; fd++) {
        struct peer *peer = &peers->by_fd[fd];
        if (peer->cookie == 0 || peer->ended || strcmp(peer->user_id, user_id) != 0)
            continue;
        peer->ended = shut((int)fd, peer->cookie, address);
        count += peer->ended ? 1 : 0;
    }
    pthread_mutex_unlock(&peers->lock);
    return count;
}

int peers_fd(const struct peers *peers)
{
    return peers->cut_fd;
}

bool peers_next_cut(struct peers *peers, struct peers_cut *ret_cut)
{
    uint64_t drained;
    bool some;

    pthread_mutex_lock(&peers->lock);
    some = peers->cut_count > 0;
    if (some) {
        *ret_cut = peers->cuts[peers->cut_first];
        peers->cut_first = (peers->cut_first + 1) % MAX_CUTS;
        peers->cut_count--;
    } else {
        (void)!read(peers->cut_fd, &drained, sizeof(drained));
    }
    pthread_mutex_unlock(&peers->lock);
    return some;
}
