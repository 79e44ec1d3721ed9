#ifndef SHEAF_WORKER_NETWORK_NETWORK_H
#define SHEAF_WORKER_NETWORK_NETWORK_H

/*
 * Measures links to peers: round trips over one UDP port, and TCP reachability of the task port
 * range. The responder echoes only packets with a valid HMAC under the pair key that the
 * orchestrator gave both sides, never more bytes than it got, so that it cannot amplify.
 */
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/io/hash.h"
#include "common/pure/err.h"

#define PROBE_MAX_PEERS 256

struct probe_peer {
    uint64_t node;
    char address[64];
    uint32_t udp_port;
    uint32_t tcp_port; /* 0 = no TCP test */
    uint8_t key[SHA256_SIZE];
};

struct probe_sample {
    uint64_t node;
    uint32_t rtt_p50_us; /* 0 = no answer */
    uint32_t rtt_p95_us;
    uint32_t loss_ppm;
    bool reach;
};
typedef void (*network_on_samples_f)(const struct probe_sample *samples, uint32_t count, void *arg);

struct network;

/*
 * Opens the UDP responder on address:port (port 0 = any; ret_port says which). The TCP side of the
 * test listens on port_high of the task range for as long as no task uses it.
 */
int network_new(struct event_base *base, const char *address, uint32_t udp_port, uint32_t port_high,
                struct network **ret_network, uint32_t *ret_port, struct err *err) SHEAF_MUST_USE;
void network_free(struct network *network);
/* Peers that we answer (their keys); replaces the former set. */
void network_set_peers(struct network *network, const struct probe_peer *peers, uint32_t count);
/*
 * Sends `samples` probes to each peer (spread over ~1 s, all peers in parallel), tries TCP, then
 * calls back once. A second call while one runs is queued.
 */
void network_measure(struct network *network, const struct probe_peer *peers, uint32_t count,
                     uint32_t samples, network_on_samples_f on_samples, void *arg);
/* Address of ours that routes to `server`, and the interface that holds it. ERR_IO. */
int network_local_address(const char *server, char ret_address[64], char ret_interface[16],
                          struct err *err) SHEAF_MUST_USE;

#endif
