#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/loop.h"
#include "common/io/zap_private.h"
#include "common/pure/id.h"
#include "common/pure/map.h"
#include "common/pure/mem.h"

#define MAX_DOMAINS    8 /* worker, gateway, bulk …: one per kind of server socket */
#define REQUEST_FRAMES 7 /* version, id, domain, address, routing id, mechanism, key */
#define FRAME_SIZE     255

struct zap {
    void *socket; /* REP; of the thread alone once it runs */
    int stop_fd;  /* eventfd */
    pthread_t thread;
    pthread_mutex_t lock;
    struct map keys; /* key bytes + domain number → struct grant */
    char *domains[MAX_DOMAINS];
    uint32_t domain_count;
    atomic_uint_fast64_t refused;
};

struct grant {
    int64_t from_us; /* monotonic; refused before */
};

/* A map key: the public key, then the number of the domain. */
struct entry {
    uint8_t bytes[KEY_SIZE + sizeof(uint32_t)];
};

_Static_assert(sizeof(struct entry) <= MAP_MAX_KEY, "a key and a domain fit a map key");

bool zap_is_present(void *zmq_context)
{
    void *probe = zmq_socket(zmq_context, ZMQ_REP);
    bool present;

    if (probe == NULL)
        return false;
    present = zmq_bind(probe, ZAP_ENDPOINT) != 0 && zmq_errno() == EADDRINUSE;
    if (!present)
        zmq_unbind(probe, ZAP_ENDPOINT);
    zmq_close(probe);
    return present;
}

/* MAX_DOMAINS when it is unknown. The lock is held. */
static uint32_t find_domain(const struct zap *zap, const char *domain, size_t length)
{
    for (uint32_t i = 0; i < zap->domain_count; i++) {
        if (strlen(zap->domains[i]) == length && memcmp(zap->domains[i], domain, length) == 0)
            return i;
    }
    return MAX_DOMAINS;
}

static struct entry entry_of(uint32_t domain, const uint8_t *key)
{
    struct entry entry;

    memcpy(entry.bytes, key, KEY_SIZE);
    memcpy(entry.bytes + KEY_SIZE, &domain, sizeof(domain));
    return entry;
}

static bool is_allowed(struct zap *zap, const char *domain, size_t length, const uint8_t *key)
{
    bool allowed = false;

    pthread_mutex_lock(&zap->lock);
    uint32_t number = find_domain(zap, domain, length);
    if (number < MAX_DOMAINS) {
        struct entry entry = entry_of(number, key);
        const struct grant *grant = map_get(&zap->keys, entry.bytes, sizeof(entry.bytes));
        allowed = grant != NULL && clock_mono_us() >= grant->from_us;
    }
    pthread_mutex_unlock(&zap->lock);
    return allowed;
}

struct request {
    uint8_t frame[REQUEST_FRAMES][FRAME_SIZE];
    size_t size[REQUEST_FRAMES];
    uint32_t count; /* all frames that came, also those beyond the array */
};

static bool receive_request(void *socket, struct request *ret)
{
    int more = 1;
    size_t more_size = sizeof(more);

    *ret = (struct request){0};
    while (more) {
        uint8_t extra[FRAME_SIZE];
        uint8_t *into = ret->count < REQUEST_FRAMES ? ret->frame[ret->count] : extra;
        int size = zmq_recv(socket, into, FRAME_SIZE, 0);
        if (size < 0)
            return false;
        if (ret->count < REQUEST_FRAMES) /* a longer frame matches nothing of ours */
            ret->size[ret->count] = (size_t)size;
        ret->count++;
        if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_size) != 0)
            return false;
    }
    return true;
}

static bool frame_is(const struct request *request, uint32_t index, const char *text)
{
    return request->size[index] == strlen(text)
           && memcmp(request->frame[index], text, strlen(text)) == 0;
}

static void answer(struct zap *zap)
{
    enum { VERSION, ID, DOMAIN, ADDRESS, ROUTING, MECHANISM, KEY };
    struct request request;
    char user_id[2 * KEY_SIZE + 1] = "";
    bool allowed = false;

    if (!receive_request(zap->socket, &request))
        return;
    if (request.count == REQUEST_FRAMES && frame_is(&request, VERSION, "1.0")
        && frame_is(&request, MECHANISM, "CURVE") && request.size[KEY] == KEY_SIZE
        && request.size[DOMAIN] <= FRAME_SIZE)
        allowed = is_allowed(zap, (const char *)request.frame[DOMAIN], request.size[DOMAIN],
                             request.frame[KEY]);
    if (allowed)
        hex_format(request.frame[KEY], KEY_SIZE, user_id);
    else
        atomic_fetch_add(&zap->refused, 1);
    size_t id_size = request.size[ID] <= FRAME_SIZE ? request.size[ID] : 0;
    const char *status = allowed ? "200" : "400";
    const char *text = allowed ? "" : "not enrolled";
    /* A failed send means that the context ends; the poll sees it next. */
    (void)zmq_send(zap->socket, "1.0", 3, ZMQ_SNDMORE);
    (void)zmq_send(zap->socket, request.frame[ID], id_size, ZMQ_SNDMORE);
    (void)zmq_send(zap->socket, status, 3, ZMQ_SNDMORE);
    (void)zmq_send(zap->socket, text, strlen(text), ZMQ_SNDMORE);
    (void)zmq_send(zap->socket, user_id, strlen(user_id), ZMQ_SNDMORE);
    (void)zmq_send(zap->socket, "", 0, 0);
}

static void *run(void *arg)
{
    struct zap *zap = arg;

    for (;;) {
        zmq_pollitem_t items[] = {
            {.socket = zap->socket, .events = ZMQ_POLLIN},
            {.fd = zap->stop_fd, .events = ZMQ_POLLIN},
        };
        if (zmq_poll(items, 2, -1) < 0) {
            if (zmq_errno() == EINTR)
                continue;
            break;
        }
        if ((items[1].revents & ZMQ_POLLIN) != 0)
            break;
        if ((items[0].revents & ZMQ_POLLIN) != 0)
            answer(zap);
    }
    zmq_close(zap->socket);
    return NULL;
}

struct zap *zap_new(void *zmq_context)
{
    void *socket = zmq_socket(zmq_context, ZMQ_REP);
    int no_linger = 0;
    sigset_t all;
    sigset_t before;

    BUG_ON(socket == NULL);
    zmq_setsockopt(socket, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    if (zmq_bind(socket, ZAP_ENDPOINT) != 0) {
        zmq_close(socket);
        return NULL;
    }
    struct zap *zap = mem_new(1, sizeof(*zap));
    zap->socket = socket;
    zap->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    BUG_ON(zap->stop_fd < 0);
    map_init(&zap->keys);
    BUG_ON(pthread_mutex_init(&zap->lock, NULL) != 0);
    /* Signals belong to the thread of the loop. */
    sigfillset(&all);
    BUG_ON(pthread_sigmask(SIG_SETMASK, &all, &before) != 0);
    BUG_ON(pthread_create(&zap->thread, NULL, run, zap) != 0);
    BUG_ON(pthread_sigmask(SIG_SETMASK, &before, NULL) != 0);
    return zap;
}

void zap_allow(struct zap *zap, const char *domain, const uint8_t key[KEY_SIZE])
{
    pthread_mutex_lock(&zap->lock);
    uint32_t number = find_domain(zap, domain, strlen(domain));
    if (number == MAX_DOMAINS) {
        BUG_ON(zap->domain_count == MAX_DOMAINS);
        number = zap->domain_count++;
        zap->domains[number] = mem_strdup(domain);
    }
    struct entry entry = entry_of(number, key);
    if (map_get(&zap->keys, entry.bytes, sizeof(entry.bytes)) == NULL)
        map_put(&zap->keys, entry.bytes, sizeof(entry.bytes), mem_new(1, sizeof(struct grant)));
    pthread_mutex_unlock(&zap->lock);
}

void zap_deny(struct zap *zap, const char *domain, const uint8_t key[KEY_SIZE])
{
    pthread_mutex_lock(&zap->lock);
    uint32_t number = find_domain(zap, domain, strlen(domain));
    if (number < MAX_DOMAINS) {
        struct entry entry = entry_of(number, key);
        free(map_remove(&zap->keys, entry.bytes, sizeof(entry.bytes)));
    }
    pthread_mutex_unlock(&zap->lock);
}

void zap_suspend(struct zap *zap, const char *domain, const uint8_t key[KEY_SIZE], int64_t us)
{
    pthread_mutex_lock(&zap->lock);
    uint32_t number = find_domain(zap, domain, strlen(domain));
    if (number < MAX_DOMAINS) {
        struct entry entry = entry_of(number, key);
        struct grant *grant = map_get(&zap->keys, entry.bytes, sizeof(entry.bytes));
        if (grant != NULL)
            grant->from_us = clock_mono_us() + us;
    }
    pthread_mutex_unlock(&zap->lock);
}

bool zap_is_allowed(struct zap *zap, const char *domain, const uint8_t key[KEY_SIZE])
{
    return is_allowed(zap, domain, strlen(domain), key);
}

uint64_t zap_refused(struct zap *zap)
{
    return atomic_load(&zap->refused);
}

void zap_free(struct zap *zap)
{
    uint64_t one = 1;

    if (zap == NULL)
        return;
    BUG_ON(write(zap->stop_fd, &one, sizeof(one)) != sizeof(one));
    pthread_join(zap->thread, NULL);
    close(zap->stop_fd);
    pthread_mutex_destroy(&zap->lock);
    for (uint32_t i = 0; i < zap->domain_count; i++)
        free(zap->domains[i]);
    for (uint32_t i = 0; i < zap->keys.count; i++)
        free(map_at(&zap->keys, i));
    map_fini(&zap->keys);
    free(zap);
}
