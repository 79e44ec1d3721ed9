/* Devices and links: foreign use, self-tests, probes of peers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "worker/core/agent_private.h"

/* Desktops keep some memory of a card for themselves; a job of somebody else takes more. */
#define FOREIGN_MIB 256u
/* Samples in a row without foreign use before a device is offered again. */
#define FOREIGN_CLEAN     2u
#define USAGE_MAX_PIDS    4096u
#define PROBE_MAX_SAMPLES 64u

bool agent_device_offered(const struct agent *agent, uint32_t ordinal)
{
    return ordinal < agent->host->device_count && claim_is_listed(agent->settings, ordinal)
           && !agent->foreign[ordinal];
}

/* -- foreign use ------------------------------------------------------------------------------- */

static void tell_tasks(struct agent *agent, uint32_t device, bool foreign)
{
    struct task_id ids[TASKS_MAX];
    uint32_t count = 0;

    for (uint32_t i = 0; i < agent->tasks.count; i++) {
        const struct rank_task *task = &agent->tasks.task[i];

        for (uint32_t k = 0; k < task->device_count; k++) {
            if (task->device[k] == device) {
                ids[count++] = task->id;
                break;
            }
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        struct task_event event = {.kind = foreign ? TASK_EV_RECLAIM : TASK_EV_RELENT,
                                   .id = ids[i],
                                   .detail = "a process of the owner uses the device",
                                   .notice_us = clock_mono_us()
                                                + (int64_t)agent->settings->notice_s * 1000000};

        agent_event(agent, &event);
    }
}

static void set_foreign(struct agent *agent, uint32_t device, bool foreign)
{
    char detail[64];

    agent->foreign[device] = foreign;
    snprintf(detail, sizeof(detail), "device %u is %s by another process", device,
             foreign ? "used" : "no longer used");
    agent_notice(agent, "device-use", device, foreign, 0, detail);
    agent_commit(agent);
    tell_tasks(agent, device, foreign);
}

static void on_usage(const struct device_usage *usage, uint32_t count, const struct err *err,
                     void *arg)
{
    struct agent *agent = arg;

    devices_job_free(agent->usage_job);
    agent->usage_job = NULL;
    if (!usage) {
        log_debug("devices", "usage", "detail=" LOG_Q, err ? err->text : "");
        return;
    }
    agent->sample_count = 0;
    for (uint32_t i = 0; i < count && i < DEVICES_MAX; i++) {
        uint32_t device = usage[i].device;
        bool foreign = usage[i].foreign_mib > FOREIGN_MIB;

        if (device >= agent->host->device_count)
            continue;
        agent->sample[agent->sample_count++] = usage[i];
        agent->foreign_clean[device] =
            foreign
                ? 0
                : (uint8_t)(agent->foreign_clean[device] + (agent->foreign_clean[device] < 255));
        if (foreign && !agent->foreign[device])
            set_foreign(agent, device, true);
        else if (agent->foreign[device] && agent->foreign_clean[device] >= FOREIGN_CLEAN)
            set_foreign(agent, device, false);
    }
}

static void on_usage_time(evutil_socket_t fd, short what, void *arg)
{
    struct agent *agent = arg;
    int *pids;
    uint32_t count = 0;
    struct err err = {0};

    (void)fd;
    (void)what;
    if (agent->usage_job || agent->selftest_job)
        return; /* a self-test is ours and would look foreign */
    pids = mem_new(USAGE_MAX_PIDS, sizeof(pids[0]));
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        const struct agent_task *task = agent->task[i];

        if (task && task->run)
            count += runtime_pids(task->run, pids + count, USAGE_MAX_PIDS - count);
    }
    if (devices_usage(agent->base, pids, count, on_usage, agent, &agent->usage_job, &err) != 0)
        log_warn("devices", "usage", "detail=" LOG_Q, err.text);
    free(pids);
}

/*
 * Notices of the last start that nobody acknowledged follow our hello, which offers every device
 * again: the newest word has to be this start's, which has seen no foreign process yet.
 */
static void retract_notices(struct agent *agent)
{
    if (keep_message_count(agent->keep) == 0)
        return;
    for (uint32_t i = 0; i < agent->host->device_count; i++) {
        if (agent->host->device[i].gpu && claim_is_listed(agent->settings, i))
            agent_notice(agent, "device-use", i, false, 0, "the worker started anew");
    }
    agent_commit(agent);
}

static struct timeval usage_wait(const struct agent *agent)
{
    int64_t us = (int64_t)agent->settings->usage_every_us;

    return (struct timeval){.tv_sec = (long)(us / 1000000), .tv_usec = (long)(us % 1000000)};
}

void agent_usage_again(struct agent *agent)
{
    struct timeval wait = usage_wait(agent);

    BUG_ON(agent->usage && event_add(agent->usage, &wait) != 0);
}

/* Class cpu has no telemetry that could tell whose memory it is: no child is started for it. */
void agent_usage_start(struct agent *agent)
{
    const struct settings *settings = agent->settings;
    struct timeval wait = usage_wait(agent);
    bool any = false;

    for (uint32_t i = 0; i < agent->host->device_count; i++)
        any |= agent->host->device[i].gpu && claim_is_listed(settings, i);
    if (!any)
        return;
    retract_notices(agent);
    agent->usage = event_new(agent->base, -1, EV_PERSIST, on_usage_time, agent);
    BUG_ON(!agent->usage || event_add(agent->usage, &wait) != 0);
}

/* -- self-tests
 * ------------------------------------------------------------------------------------------- */

static void selftest_next(struct agent *agent);

static void selftest_message(struct agent *agent, uint32_t device)
{
    const struct selftest_result *result = &agent->selftest[device].result;
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__SelfTestResult wire = SHEAF__SELF_TEST_RESULT__INIT;
    uint64_t sums[16];
    char failure[128];

    memcpy(sums, result->chunk_sum, sizeof(sums));
    snprintf(failure, sizeof(failure), "%s", result->failure);
    wire.device = device;
    wire.seed = agent->selftest[device].seed;
    wire.memory_mib = result->memory_mib;
    wire.chunk_sums = sums;
    wire.n_chunk_sums = sizeof(sums) / sizeof(sums[0]);
    wire.matmul_gflops = result->matmul_gflops;
    wire.matmul_sum = result->matmul_sum;
    wire.copy_mib_s = result->copy_mib_s;
    wire.failure = failure;
    envelope.body_case = SHEAF__ENVELOPE__BODY_SELFTEST;
    envelope.selftest = &wire;
    agent_message(agent, &envelope);
    agent_commit(agent);
}

static void on_selftest(const struct selftest_result *result, const struct err *err, void *arg)
{
    struct agent *agent = arg;
    uint32_t device = agent->selftest_device;
    struct agent_selftest *test = &agent->selftest[device];

    devices_job_free(agent->selftest_job);
    agent->selftest_job = NULL;
    test->wanted = false;
    if (result) {
        test->result = *result;
    } else {
        memset(&test->result, 0, sizeof(test->result));
        snprintf(test->result.failure, sizeof(test->result.failure), "%.127s",
                 err ? err->text : "the self-test did not run");
    }
    test->has_result = true;
    log_info("devices", "selftest",
             "device=%u memory_mib=%u gflops=%u copy_mib_s=%u failure=" LOG_Q, device,
             test->result.memory_mib, test->result.matmul_gflops, test->result.copy_mib_s,
             test->result.failure);
    if (agent->mode == AGENT_JOIN) {
        printf(
            "  device %u: self-test %s%s: %u MiB filled and read back, %u Gop/s, copy %u MiB/s\n",
            device, test->result.failure[0] ? "failed: " : "done", test->result.failure,
            test->result.memory_mib, test->result.matmul_gflops, test->result.copy_mib_s);
        fflush(stdout);
    }
    selftest_message(agent, device);
    selftest_next(agent);
}

static void selftest_next(struct agent *agent)
{
    struct err err = {0};

    for (uint32_t i = 0; i < agent->host->device_count && !agent->selftest_job; i++) {
        if (!agent->selftest[i].wanted)
            continue;
        agent->selftest_device = i;
        if (tasks_use_device(&agent->tasks, i)) {
            (void)err_set(&err, ERR_STATE_CONFLICT, "a task uses the device");
            on_selftest(NULL, &err, agent);
            return;
        }
        if (devices_selftest(agent->base, &agent->host->device[i], agent->selftest[i].seed,
                             on_selftest, agent, &agent->selftest_job, &err)
            != 0) {
            on_selftest(NULL, &err, agent);
            return;
        }
    }
}

void agent_selftest_order(struct agent *agent, const Sheaf__SelfTest *order)
{
    struct agent_selftest *test;

    if (order->device >= agent->host->device_count) {
        log_warn("devices", "selftest", "device=%u detail=" LOG_Q, order->device, "no such device");
        return;
    }
    test = &agent->selftest[order->device];
    if (test->seed == order->seed && test->wanted)
        return; /* it is on its way */
    if (test->seed == order->seed && test->has_result) {
        /* Asked again: the answer is lost only if nothing of it waits to be sent. */
        if (keep_message_count(agent->keep) == 0)
            selftest_message(agent, order->device);
        return;
    }
    if (agent->selftest_job && agent->selftest_device == order->device) {
        devices_job_free(agent->selftest_job); /* of an older seed */
        agent->selftest_job = NULL;
    }
    test->seed = order->seed;
    test->wanted = true;
    test->has_result = false;
    selftest_next(agent);
}

/* -- links ------------------------------------------------------------------------------------- */

static struct agent_link *link_of(struct agent *agent, uint64_t node)
{
    struct agent_link *link;

    for (uint32_t i = 0; i < agent->link_count; i++) {
        if (agent->link[i].node == node)
            return &agent->link[i];
    }
    /* Full: the oldest entry makes room; what is reported does not depend on this list. */
    link = &agent->link[agent->link_count < PROBE_MAX_PEERS ? agent->link_count++ : 0];
    memset(link, 0, sizeof(*link));
    link->node = node;
    return link;
}

static const struct probe_peer *peer_of(const struct agent *agent, uint64_t node)
{
    for (uint32_t i = 0; i < agent->peer_count; i++) {
        if (agent->peer[i].node == node)
            return &agent->peer[i];
    }
    return NULL;
}

static void note_sample(struct agent *agent, const struct probe_sample *sample,
                        Sheaf__LinkSample *wire)
{
    const struct probe_peer *peer = peer_of(agent, sample->node);
    struct agent_link *link = link_of(agent, sample->node);
    const char *address = peer ? peer->address : "";
    uint32_t port = peer ? peer->udp_port : 0;
    const char *name = agent->peer_name[peer ? peer - agent->peer : 0];

    snprintf(link->address, sizeof(link->address), "%s", address);
    link->rtt_p50_us =
        settings_rtt(agent->settings, peer ? name : "", address, port, sample->rtt_p50_us);
    link->rtt_p95_us =
        settings_rtt(agent->settings, peer ? name : "", address, port, sample->rtt_p95_us);
    link->declared = link->rtt_p50_us != sample->rtt_p50_us;
    link->loss_ppm = sample->loss_ppm;
    link->reach = sample->reach;
    wire->peer = sample->node;
    wire->rtt_p50_us = link->rtt_p50_us;
    wire->rtt_p95_us = link->rtt_p95_us;
    wire->loss_ppm = link->loss_ppm;
    wire->reach = link->reach;
}

static void on_samples(const struct probe_sample *samples, uint32_t count, void *arg)
{
    struct agent *agent = arg;
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__LinkReport report = SHEAF__LINK_REPORT__INIT;
    Sheaf__LinkSample *wire;
    Sheaf__LinkSample **pointers;

    if (count == 0 || count > PROBE_MAX_PEERS)
        return;
    wire = mem_new(count, sizeof(wire[0]));
    pointers = mem_new(count, sizeof(pointers[0]));
    for (uint32_t i = 0; i < count; i++) {
        sheaf__link_sample__init(&wire[i]);
        note_sample(agent, &samples[i], &wire[i]);
        pointers[i] = &wire[i];
    }
    report.links = pointers;
    report.n_links = count;
    envelope.body_case = SHEAF__ENVELOPE__BODY_LINKS;
    envelope.links = &report;
    (void)session_send(agent->session, &envelope); /* the next one supersedes it */
    free(pointers);
    free(wire);
}

/* Adds or replaces a peer that we answer. */
static struct probe_peer *keep_peer(struct agent *agent, const Sheaf__Peer *wire)
{
    struct probe_peer *peer = NULL;
    uint32_t index;

    for (index = 0; index < agent->peer_count && !peer; index++) {
        if (agent->peer[index].node == wire->node)
            peer = &agent->peer[index];
    }
    if (!peer) { /* full: the longest known one goes */
        if (agent->peer_count == PROBE_MAX_PEERS) {
            memmove(agent->peer, agent->peer + 1, (PROBE_MAX_PEERS - 1) * sizeof(agent->peer[0]));
            memmove(agent->peer_name, agent->peer_name + 1,
                    (PROBE_MAX_PEERS - 1) * sizeof(agent->peer_name[0]));
            agent->peer_count--;
        }
        peer = &agent->peer[agent->peer_count++];
    }
    peer->node = wire->node;
    snprintf(peer->address, sizeof(peer->address), "%.63s", wire->address);
    peer->udp_port = wire->port;
    peer->tcp_port = wire->port_high;
    memcpy(peer->key, wire->pair_key.data, SHA256_SIZE);
    snprintf(agent->peer_name[peer - agent->peer], sizeof(agent->peer_name[0]), "%.63s",
             wire->name);
    return peer;
}

void agent_probe_order(struct agent *agent, const Sheaf__Probe *order)
{
    struct probe_peer *peers = mem_new(PROBE_MAX_PEERS, sizeof(peers[0]));
    uint32_t samples = order->samples;
    uint32_t count = 0;

    if (samples == 0 || samples > PROBE_MAX_SAMPLES)
        samples = samples == 0 ? 10 : PROBE_MAX_SAMPLES;
    for (size_t i = 0; i < order->n_peers && count < PROBE_MAX_PEERS; i++) {
        const Sheaf__Peer *wire = order->peers[i];

        if (wire->pair_key.len != SHA256_SIZE || wire->port == 0 || wire->port > 65535
            || wire->port_high > 65535)
            continue;
        peers[count++] = *keep_peer(agent, wire);
    }
    network_set_peers(agent->network, agent->peer, agent->peer_count);
    if (count > 0)
        network_measure(agent->network, peers, count, samples, on_samples, agent);
    free(peers);
}
