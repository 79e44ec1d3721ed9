#ifndef SHEAF_WORKER_NETWORK_NETWORK_PRIVATE_H
#define SHEAF_WORKER_NETWORK_NETWORK_PRIVATE_H

/* Shared by the responder (network.c), the prober (measure.c) and the TCP test (reach.c). */
#include <sys/socket.h>

#include "worker/network/network.h"
#include "worker/network/packet.h"

/*
 * Answers to one peer: twice what a peer that follows the rules asks for (NETWORK_MAX_SAMPLES in a
 * second, warm-up and TCP test), so that a stolen key makes us a source of 20 KiB/s at most.
 */
#define ANSWERS_PER_S 240u
#define ANSWERS_BURST 240u

/* A peer that we answer. */
struct known {
    uint8_t key_id[PACKET_KEY_ID];
    uint8_t key[SHA256_SIZE];
    uint32_t tokens; /* answers left */
    int64_t refilled_us;
};

struct measure;
struct listener;

struct network {
    struct event_base *base;
    int udp;
    int family; /* AF_INET or AF_INET6 */
    struct event *on_udp;
    struct listener *listener; /* NULL without port_high */
    struct known known[PROBE_MAX_PEERS];
    uint32_t known_count;
    struct measure *running; /* and those that wait, in order */
};

/*
 * The key for an answer to a genuine request, and one answer taken from the peer's allowance; NULL
 * when nobody knows the key, the MAC is wrong or the allowance is spent.
 */
const uint8_t *network_answer_key(struct network *network, const uint8_t bytes[PACKET_SIZE],
                                  const struct packet *packet);
/* Numeric address and port. family AF_UNSPEC takes both. False for anything else. */
bool network_resolve(const char *address, uint32_t port, int family,
                     struct sockaddr_storage *ret_address, socklen_t *ret_size);

/* -- measure.c ------------------------------------------------------------------------------- */
/* An echo came. stamp_us: wall clock of its arrival by the kernel, or 0. */
void measure_echo(struct network *network, const uint8_t bytes[PACKET_SIZE],
                  const struct packet *packet, int64_t stamp_us);
void measure_free_all(struct network *network);

/* -- reach.c --------------------------------------------------------------------------------- */
int listener_new(struct network *network, const char *address, uint32_t port,
                 struct listener **ret_listener, struct err *err) SHEAF_MUST_USE;
void listener_free(struct listener *listener);

/*
 * Connects and exchanges one packet, again and again until REACH_DEADLINE_S: the peer may learn
 * our key a moment later than we. Calls back once, never from within reach_new.
 */
#define REACH_DEADLINE_S 3
struct reach;
typedef void (*reach_on_end_f)(bool reached, void *arg);
struct reach *reach_new(struct network *network, const struct probe_peer *peer,
                        reach_on_end_f on_end, void *arg);
void reach_free(struct reach *reach);

#endif
