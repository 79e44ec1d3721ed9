#include "tests/support/world/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"

#define BENCH_START ((usec_t)1700000000 * 1000000)

/* -- steps ----------------------------------------------------------------------------------- */

struct uuid bench_uuid(struct bench *bench)
{
    uint8_t random[10];
    uint64_t count = ++bench->uuid_count;

    for (size_t i = 0; i < sizeof(random); i++)
        random[i] = (uint8_t)(i < 8 ? count >> (8 * (7 - i)) : 0);
    return uuid_make((uint64_t)(bench->now / 1000), random);
}

static void keep(struct bench *bench)
{
    struct err err;

    for (uint32_t i = 0; i < bench->out.row_count; i++)
        shadow_put(&bench->shadow, &bench->out.rows[i]);
    if (bench->quiet || world_check(bench->world, &err) == 0)
        return;
    err_bug("world_check", 0, err.text);
}

void bench_step(struct bench *bench, struct event *event)
{
    for (size_t i = 0; i < 4; i++)
        event->fresh[i] = bench_uuid(bench);
    world_out_clear(&bench->out);
    world_step(bench->world, event, bench->now, bench->term, &bench->policy, &bench->out);
    keep(bench);
}

struct reply bench_reply(const struct bench *bench)
{
    for (uint32_t i = 0; i < bench->out.effect_count; i++) {
        if (bench->out.effects[i].kind == FX_REPLY)
            return bench->out.effects[i].reply;
    }
    return (struct reply){.err = {.code = ERR_MAX}};
}

struct reply bench_command(struct bench *bench, struct event *event, const uint8_t token[32])
{
    event->caller.request = 1;
    event->caller.system = token == NULL;
    if (token != NULL)
        memcpy(event->caller.token_hash, token, 32);
    bench_step(bench, event);
    return bench_reply(bench);
}

bool bench_schedule(struct bench *bench)
{
    struct uuid fresh[8];

    for (size_t i = 0; i < 8; i++)
        fresh[i] = bench_uuid(bench);
    world_out_clear(&bench->out);
    bool more = world_schedule(bench->world, bench->now, bench->term, &bench->policy, 8, fresh, 8,
                               &bench->out);
    keep(bench);
    return more;
}

void bench_wait(struct bench *bench, usec_t span)
{
    usec_t end = bench->now + span;
    unsigned turns = 0;

    for (;;) {
        usec_t due = world_next_deadline(bench->world, &bench->policy);
        if (due == 0 || due > end)
            break;
        if (due > bench->now) {
            bench->now = due;
            turns = 0;
        }
        if (++turns > 50)
            err_bug("bench_wait", 0, "a deadline does not move");
        bench_step(bench, &(struct event){.kind = EV_TICK});
    }
    bench->now = end;
}

static void need(struct reply reply)
{
    if (reply.err.code != ERR_NONE)
        err_bug("bench", (int)reply.err.code, reply.err.text);
}

static void make_token(struct bench *bench, enum role role, const char *project, uint8_t hash[32])
{
    struct event event = {.kind = EV_TOKEN_CREATE};

    event.token.uid = bench_uuid(bench);
    event.token.role = role;
    event.token.project = project;
    memset(hash, (int)role + 1, 32);
    memcpy(event.token.hash, hash, 32);
    need(bench_command(bench, &event, NULL));
}

void bench_init(struct bench *bench)
{
    struct event event;

    memset(bench, 0, sizeof(*bench));
    bench->world = world_new();
    world_out_init(&bench->out);
    shadow_init(&bench->shadow);
    policy_default(&bench->policy);
    bench->now = BENCH_START;
    bench->term = 3;
    bench->spec = "{\"version\":1}";
    bench->ask = (struct job_ask){
        .nodes = 1,
        .gpus_per_node = 1,
        .max_total = 10 * BENCH_UNIT,
        .max_duration_us = 3600 * 1000000ul,
        .stop_duration_us = 10 * 1000000ul,
        .max_attempts = 3,
        .retry_on = 1u << FAIL_CAPACITY | 1u << FAIL_INTERRUPTION | 1u << FAIL_HARDWARE
                    | 1u << FAIL_PROVIDER | 1u << FAIL_UNREACHABLE | 1u << FAIL_PLATFORM,
    };
    event = (struct event){.kind = EV_PROJECT_CREATE, .named = {.name = "lab"}};
    event.named.uid = bench_uuid(bench);
    need(bench_command(bench, &event, NULL));
    make_token(bench, ROLE_TENANT, "lab", bench->tenant);
    make_token(bench, ROLE_OPERATOR, NULL, bench->operator_);
    make_token(bench, ROLE_GATEWAY, NULL, bench->gateway);
    event =
        (struct event){.kind = EV_DEPOSIT,
                       .deposit = {.project = "lab", .asset = "USD", .amount = 1000 * BENCH_UNIT}};
    event.deposit.uid = bench_uuid(bench);
    need(bench_command(bench, &event, bench->operator_));
    event = (struct event){.kind = EV_JOIN_TOKEN_CREATE};
    event.token.uid = bench_uuid(bench);
    event.token.spare_uid = bench_uuid(bench);
    event.token.provider = "home";
    event.token.uses = 1000;
    memset(bench->join, 0x77, 32);
    memcpy(event.token.hash, bench->join, 32);
    need(bench_command(bench, &event, bench->operator_));
}

void bench_fini(struct bench *bench)
{
    world_free(bench->world);
    world_out_fini(&bench->out);
    shadow_fini(&bench->shadow);
}

/* -- nodes ----------------------------------------------------------------------------------- */

struct node_claim bench_claim(uint32_t number, uint32_t devices, uint32_t mib)
{
    struct node_claim claim = {
        .country = "DE",
        .runtime = "bwrap",
        .version = "0.1",
        .port_low = 20000,
        .port_high = 20100,
        .probe_port = 19999,
        .cpu_milli = 16000,
        .memory_mib = 65536,
        .disk_mib = 1000000,
        .price = BENCH_UNIT,
        .notice_s = 30,
        .device_count = devices,
    };

    snprintf(claim.name, sizeof(claim.name), "node-%u", number);
    snprintf(claim.region, sizeof(claim.region), "eu-%u", number % 3);
    snprintf(claim.address, sizeof(claim.address), "10.0.0.%u", number + 1);
    for (uint32_t i = 0; i < devices; i++) {
        struct claim_device *device = &claim.device[i];
        snprintf(device->uuid, sizeof(device->uuid), "GPU-%u-%u", number, i);
        snprintf(device->model, sizeof(device->model), "RTX 4090");
        snprintf(device->vendor, sizeof(device->vendor), "nvidia");
        device->class = DEVICE_GPU;
        device->memory_mib = mib;
        device->offered = true;
    }
    return claim;
}

uint32_t bench_enrol(struct bench *bench, const struct node_claim *claim)
{
    struct event event = {.kind = EV_NODE_ENROL};
    uint32_t index = bench->node_count++;

    event.caller.request = 1;
    event.enrol.uid = bench_uuid(bench);
    event.enrol.claim = claim;
    memcpy(event.enrol.join_hash, bench->join, 32);
    memset(event.enrol.curve_key, (int)index + 1, 32);
    memset(event.enrol.machine, (int)index + 101, 32);
    bench_step(bench, &event);
    need(bench_reply(bench));
    const struct node_row *row = world_node_by_curve(bench->world, event.enrol.curve_key);
    bench->node[index] = row->id;
    return index;
}

void bench_hello(struct bench *bench, uint32_t index, const struct node_claim *claim)
{
    struct event event = {.kind = EV_NODE_HELLO};

    event.hello.node = bench->node[index];
    event.hello.boot = 1;
    event.hello.claim = claim;
    bench_step(bench, &event);
}

void bench_selftest(struct bench *bench, uint32_t index, uint32_t device, bool passed, uint32_t mib)
{
    struct event event = {.kind = EV_SELFTEST};

    event.selftest = (struct ev_selftest){
        .node = bench->node[index], .device = device, .passed = passed, .measured_mib = mib};
    bench_step(bench, &event);
}

uint32_t bench_node(struct bench *bench, uint32_t devices, uint32_t mib)
{
    struct node_claim claim = bench_claim(bench->node_count, devices, mib);
    uint32_t index = bench_enrol(bench, &claim);

    bench_hello(bench, index, &claim);
    for (uint32_t i = 0; i < devices; i++)
        bench_selftest(bench, index, i, true, mib);
    return index;
}

void bench_link(struct bench *bench, uint32_t a, uint32_t b, uint32_t rtt_us, bool reach)
{
    for (int i = 0; i < 2; i++) {
        struct event event = {.kind = EV_LINK};
        event.link = (struct ev_link){
            .from = bench->node[i == 0 ? a : b],
            .to = bench->node[i == 0 ? b : a],
            .rtt_p50_us = rtt_us,
            .rtt_p95_us = rtt_us,
            .reach = reach,
        };
        bench_step(bench, &event);
    }
}

void bench_mesh(struct bench *bench, uint32_t first, uint32_t rtt_us)
{
    for (uint32_t a = first; a < bench->node_count; a++) {
        for (uint32_t b = a + 1; b < bench->node_count; b++)
            bench_link(bench, a, b, rtt_us, true);
    }
}

void bench_node_event(struct bench *bench, enum event_kind kind, uint32_t index)
{
    bench_step(bench, &(struct event){.kind = kind, .node = {bench->node[index]}});
}

/* -- jobs ------------------------------------------------------------------------------------ */

struct reply bench_submit(struct bench *bench, uint32_t nodes, uint32_t gpus)
{
    struct event event = {.kind = EV_JOB_SUBMIT};
    struct job_ask ask = bench->ask;

    ask.nodes = nodes;
    ask.gpus_per_node = gpus;
    event.submit.uid = bench_uuid(bench);
    event.submit.name = "train";
    event.submit.spec = bench->spec;
    event.submit.ask = &ask;
    return bench_command(bench, &event, bench->tenant);
}

struct job *bench_job(const struct bench *bench, const struct uuid *uid)
{
    return map_get(&bench->world->job_by_uid, uid, sizeof(*uid));
}

void bench_task(struct bench *bench, const struct rank *rank, enum task_news news, int exit_code)
{
    struct event event = {.kind = EV_TASK};

    event.task = (struct ev_task){
        .node = rank->row.node,
        .attempt = rank->row.attempt,
        .term = rank->attempt->row.term,
        .epoch = rank->attempt->row.epoch,
        .rank = rank->row.rank,
        .news = news,
        .exit_code = exit_code,
        .port = news == TASK_READY ? 20000 + rank->row.rank : 0,
    };
    bench_step(bench, &event);
}

void bench_all(struct bench *bench, const struct uuid *uid, enum task_news news, int exit_code)
{
    const struct job *job = bench_job(bench, uid);
    uint32_t count = job != NULL && job->attempt != NULL ? job->attempt->rank_count : 0;

    for (uint32_t i = 0; i < count; i++) {
        job = bench_job(bench, uid);
        if (job == NULL || job->attempt == NULL)
            return;
        if (!rank_is_final(job->attempt->rank[i]))
            bench_task(bench, job->attempt->rank[i], news, exit_code);
    }
}

void bench_run(struct bench *bench, const struct uuid *uid)
{
    while (bench_schedule(bench))
        ;
    bench_all(bench, uid, TASK_PREPARING, 0);
    bench_all(bench, uid, TASK_READY, 0);
    bench_all(bench, uid, TASK_STARTED, 0);
}

void bench_receipt(struct bench *bench, uint32_t index, const struct uuid *uid, uint64_t used_ms)
{
    const struct job *job = bench_job(bench, uid);
    struct event event = {.kind = EV_RECEIPT};
    static uint64_t seq;

    event.receipt.node = bench->node[index];
    event.receipt.seq = ++seq;
    event.receipt.bytes = (const uint8_t *)"receipt";
    event.receipt.bytes_length = 7;
    event.receipt.line_count = 1;
    event.receipt.line[0].attempt = job->attempt->row.id;
    event.receipt.line[0].term = job->attempt->row.term;
    event.receipt.line[0].epoch = job->attempt->row.epoch;
    event.receipt.line[0].used_ms = used_ms;
    bench_step(bench, &event);
}

struct reply bench_cancel(struct bench *bench, const struct uuid *uid)
{
    struct event event = {.kind = EV_JOB_CANCEL, .cancel = {*uid}};

    return bench_command(bench, &event, bench->tenant);
}

uint32_t bench_orders(const struct bench *bench, enum order_kind kind, uint64_t node)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < bench->out.effect_count; i++) {
        const struct effect *effect = &bench->out.effects[i];
        count += effect->kind == FX_ORDER && effect->order.kind == kind
                 && (node == 0 || effect->order.node == node);
    }
    return count;
}

/* Of project lab, provider home, or the operator. */
micro_t bench_balance(const struct bench *bench, enum account_purpose purpose)
{
    uint64_t project = 0;
    uint64_t provider = 0;

    if (purpose == PURPOSE_AVAILABLE || purpose == PURPOSE_ESCROW)
        project = project_by_name(bench->world, "lab")->row.id;
    if (purpose == PURPOSE_EARNED)
        provider = provider_by_name(bench->world, "home")->id;
    const struct account_row *account =
        account_find(bench->world, project, provider, purpose, "USD");
    return account != NULL ? account->balance : 0;
}

const struct job_row *bench_job_row(const struct bench *bench, const struct uuid *uid)
{
    for (uint32_t i = bench->shadow.count; i-- > 0;) {
        const struct row *row = &bench->shadow.rows[i];
        if (row->kind == ROW_JOB && uuid_compare(&row->job.uid, uid) == 0)
            return &row->job;
    }
    return NULL;
}
