#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/pure/mem.h"
#include "worker/network/network_private.h"

/*
 * A link is measured in two steps. Warm-up: unnumbered probes every WARM_STEP_US until the first
 * echo, since the peer may get its order a moment later than we, and address resolution or a NAT
 * delays the first packet; those do not count. Then the samples, spread over SPREAD_US, which do.
 */
#define MAX_SAMPLES  100u
#define SPREAD_US    1000000
#define TICK_US      5000
#define WARM_STEP_US 100000
#define WARM_MAX_US  2000000
#define ECHO_MAX_US  1000000 /* after the last sample: a link slower than that is of no use */
/* Number of a warm-up probe; samples are 0 .. MAX_SAMPLES - 1. */
#define WARM_SAMPLE UINT32_MAX

struct target {
    struct measure *measure;
    struct probe_peer peer;
    struct sockaddr_storage address;
    socklen_t address_size; /* 0 = not an address */
    uint8_t key_id[PACKET_KEY_ID];
    bool warm;
    bool udp_done;
    bool reach_done;
    bool reached;
    struct reach *reach;
    int64_t last_us; /* of the last probe sent */
    uint32_t sent;
    uint32_t received;
    int64_t *sent_mono_us; /* `samples` of each */
    int64_t *sent_wall_us;
    uint32_t *rtt_us; /* 0 = none yet */
};

struct measure {
    struct network *network;
    struct measure *next;
    struct target *target;
    uint32_t count;
    uint32_t samples;
    int64_t spacing_us; /* between two samples to one peer */
    uint64_t nonce;
    int64_t began_us;
    struct event *tick;
    network_on_samples_f on_samples;
    void *arg;
};

static void measure_free(struct measure *measure)
{
    for (uint32_t i = 0; i < measure->count; i++) {
        reach_free(measure->target[i].reach);
        free(measure->target[i].sent_mono_us);
        free(measure->target[i].sent_wall_us);
        free(measure->target[i].rtt_us);
    }
    if (measure->tick != NULL)
        event_free(measure->tick);
    free(measure->target);
    free(measure);
}

void measure_free_all(struct network *network)
{
    while (network->running != NULL) {
        struct measure *measure = network->running;
        network->running = measure->next;
        measure_free(measure);
    }
}

/* -- the result ------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
    const uint32_t *left = a;
    const uint32_t *right = b;

    return (*left > *right) - (*left < *right);
}

/* Nearest rank (the smallest value that `percent` of them do not exceed). */
static uint32_t rank_of(const uint32_t *sorted, uint32_t count, uint32_t percent)
{
    return sorted[(count * percent + 99) / 100 - 1];
}

static void summarize(const struct target *target, uint32_t samples, struct probe_sample *out)
{
    uint32_t rtt[MAX_SAMPLES];
    uint32_t count = 0;

    memset(out, 0, sizeof(*out));
    out->node = target->peer.node;
    out->reach = target->reached;
    out->loss_ppm = 1000000;
    for (uint32_t i = 0; i < samples; i++) {
        if (target->rtt_us[i] != 0)
            rtt[count++] = target->rtt_us[i];
    }
    if (count == 0)
        return;
    qsort(rtt, count, sizeof(rtt[0]), by_value);
    out->rtt_p50_us = rank_of(rtt, count, 50);
    out->rtt_p95_us = rank_of(rtt, count, 95);
    out->loss_ppm = (uint32_t)((uint64_t)(target->sent - count) * 1000000 / target->sent);
}

static void start_next(struct network *network);

/* Nothing of the network is touched after the callback, which may free it. */
static void measure_finish(struct measure *measure)
{
    struct probe_sample *samples = mem_new(measure->count + 1, sizeof(*samples));
    struct network *network = measure->network;

    for (uint32_t i = 0; i < measure->count; i++)
        summarize(&measure->target[i], measure->samples, &samples[i]);
    network->running = measure->next;
    start_next(network);
    measure->on_samples(samples, measure->count, measure->arg);
    free(samples);
    measure_free(measure);
}

/* -- sending --------------------------------------------------------------------------------- */

static void send_probe(struct target *target, uint32_t sample, int64_t now)
{
    struct measure *measure = target->measure;
    struct packet packet = {.direction = PACKET_REQUEST,
                            .transport = PACKET_UDP,
                            .nonce = measure->nonce,
                            .sample = sample};
    uint8_t bytes[PACKET_SIZE];

    memcpy(packet.key_id, target->key_id, PACKET_KEY_ID);
    packet_encode(&packet, target->peer.key, bytes);
    target->last_us = now;
    if (sample != WARM_SAMPLE) {
        target->sent_wall_us[sample] = clock_wall_us();
        target->sent_mono_us[sample] = clock_mono_us();
    }
    /* What the kernel refuses is lost, like what the network drops. */
    (void)sendto(measure->network->udp, bytes, sizeof(bytes), MSG_DONTWAIT,
                 (const struct sockaddr *)&target->address, target->address_size);
}

static void target_step(struct target *target, int64_t now)
{
    struct measure *measure = target->measure;

    if (target->udp_done)
        return;
    if (!target->warm) {
        if (target->address_size == 0 || now - measure->began_us > WARM_MAX_US)
            target->udp_done = true;
        else if (now - target->last_us >= WARM_STEP_US)
            send_probe(target, WARM_SAMPLE, now);
    } else if (target->sent < measure->samples) {
        if (target->sent == 0 || now - target->last_us >= measure->spacing_us)
            send_probe(target, target->sent++, now);
    } else if (target->received == target->sent || now - target->last_us > ECHO_MAX_US) {
        target->udp_done = true;
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct measure *measure = arg;
    int64_t now = clock_mono_us();
    bool done = true;

    (void)fd;
    (void)what;
    for (uint32_t i = 0; i < measure->count; i++) {
        target_step(&measure->target[i], now);
        done = done && measure->target[i].udp_done && measure->target[i].reach_done;
    }
    if (done)
        measure_finish(measure);
}

/* -- receiving ------------------------------------------------------------------------------- */

void measure_echo(struct network *network, const uint8_t bytes[PACKET_SIZE],
                  const struct packet *packet, int64_t stamp_us)
{
    struct measure *measure = network->running;
    struct target *target = NULL;
    int64_t rtt;
    int64_t by_kernel;

    if (measure == NULL || packet->nonce != measure->nonce)
        return;
    for (uint32_t i = 0; i < measure->count && target == NULL; i++) {
        if (memcmp(measure->target[i].key_id, packet->key_id, PACKET_KEY_ID) == 0)
            target = &measure->target[i];
    }
    if (target == NULL || !packet_is_genuine(bytes, target->peer.key))
        return;
    target->warm = true;
    if (packet->sample >= target->sent || target->rtt_us[packet->sample] != 0)
        return;
    rtt = clock_mono_us() - target->sent_mono_us[packet->sample];
    /* The kernel's stamp leaves out the time that we were busy, but its clock may be set. */
    by_kernel = stamp_us - target->sent_wall_us[packet->sample];
    if (stamp_us != 0 && by_kernel > 0 && by_kernel < rtt)
        rtt = by_kernel;
    target->rtt_us[packet->sample] = rtt < 1 ? 1 : (uint32_t)rtt;
    target->received++;
}

/* -- starting -------------------------------------------------------------------------------- */

static void on_reach(bool reached, void *arg)
{
    struct target *target = arg;

    target->reached = reached;
    target->reach_done = true;
}

static void start_next(struct network *network)
{
    struct measure *measure = network->running;

    if (measure == NULL)
        return;
    measure->began_us = clock_mono_us();
    random_bytes(&measure->nonce, sizeof(measure->nonce));
    for (uint32_t i = 0; i < measure->count; i++) {
        struct target *target = &measure->target[i];
        target->last_us = measure->began_us - WARM_STEP_US;
        target->reach_done = target->peer.tcp_port == 0;
        if (!target->reach_done)
            target->reach = reach_new(network, &target->peer, on_reach, target);
    }
    measure->tick = event_new(network->base, -1, EV_PERSIST, on_tick, measure);
    BUG_ON(measure->tick == NULL);
    event_add(measure->tick, &(struct timeval){.tv_usec = TICK_US});
    event_active(measure->tick, EV_TIMEOUT, 0);
}

static void target_init(struct measure *measure, struct target *target,
                        const struct probe_peer *peer)
{
    target->measure = measure;
    target->peer = *peer;
    target->peer.address[sizeof(target->peer.address) - 1] = '\0';
    if (!network_resolve(target->peer.address, peer->udp_port, measure->network->family,
                         &target->address, &target->address_size))
        target->address_size = 0;
    packet_key_id(peer->key, target->key_id);
    target->sent_mono_us = mem_new(measure->samples, sizeof(*target->sent_mono_us));
    target->sent_wall_us = mem_new(measure->samples, sizeof(*target->sent_wall_us));
    target->rtt_us = mem_new(measure->samples, sizeof(*target->rtt_us));
}

void network_measure(struct network *network, const struct probe_peer *peers, uint32_t count,
                     uint32_t samples, network_on_samples_f on_samples, void *arg)
{
    struct measure *measure = mem_new(1, sizeof(*measure));
    struct measure **end = &network->running;

    measure->network = network;
    measure->count = count < PROBE_MAX_PEERS ? count : PROBE_MAX_PEERS;
    measure->samples = samples == 0 ? 1 : samples < MAX_SAMPLES ? samples : MAX_SAMPLES;
    /* Half a tick less, so that a tick that comes a little early does not miss its turn. */
    measure->spacing_us = SPREAD_US / measure->samples - TICK_US / 2;
    measure->on_samples = on_samples;
    measure->arg = arg;
    measure->target = mem_new(measure->count + 1, sizeof(*measure->target));
    for (uint32_t i = 0; i < measure->count; i++)
        target_init(measure, &measure->target[i], &peers[i]);
    while (*end != NULL)
        end = &(*end)->next;
    *end = measure;
    if (network->running == measure)
        start_next(network);
}
