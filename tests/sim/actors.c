/* Tenants who repeat themselves, owners who want their machines back, and misfortune. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim_private.h"

#define FAULTS_US     (25 * SIM_MINUTE)
#define CANCEL_BIT    ((uint64_t)1 << 32)
#define MIN_SURVIVORS 4u /* what the largest gang needs comes back in the end */

/* -- set-up -------------------------------------------------------------------------------------
 */

static struct box *command(enum event_kind kind)
{
    struct box *box = box_new(kind);

    box->event.caller.system = true;
    return box;
}

static void make_token(struct sim *sim, enum role role, const char *project, uint8_t hash[32])
{
    struct box *box = command(EV_TOKEN_CREATE);

    box->event.token.uid = sim_uuid(sim);
    box->event.token.role = role;
    box->event.token.project = project;
    memset(hash, (int)role + 1, 32);
    memcpy(box->event.token.hash, hash, 32);
    (void)hub_command(sim, box);
}

static void enrol(struct sim *sim, const uint8_t join[32])
{
    struct worker *worker = &sim->worker[sim->worker_count];
    struct box *box = box_new(EV_NODE_ENROL);

    worker->index = sim->worker_count++;
    worker->uid = sim_uuid(sim);
    memset(worker->key, (int)worker->index + 1, sizeof(worker->key));
    tasks_init(&worker->journal.tasks);
    box->claim = worker_claim(worker);
    box->event.enrol.uid = worker->uid;
    box->event.enrol.claim = &box->claim;
    memcpy(box->event.enrol.join_hash, join, 32);
    memcpy(box->event.enrol.curve_key, worker->key, 32);
    memset(box->event.enrol.machine, (int)worker->index + 101, 32);
    (void)hub_command(sim, box);
    worker->node = world_node_by_curve(sim->hub.world, worker->key)->id;
}

void actors_setup(struct sim *sim)
{
    uint8_t join[32];
    uint32_t nodes = MIN_SURVIVORS + (uint32_t)chance(sim, SIM_MAX_NODES - MIN_SURVIVORS + 1);
    struct box *box = command(EV_PROJECT_CREATE);

    box->event.named.uid = sim_uuid(sim);
    box->event.named.name = "lab";
    (void)hub_command(sim, box);
    make_token(sim, ROLE_TENANT, "lab", sim->tenant);
    make_token(sim, ROLE_OPERATOR, NULL, sim->operator_);
    box = command(EV_DEPOSIT);
    box->event.deposit =
        (struct ev_deposit){.uid = sim_uuid(sim),
                            .project = "lab",
                            .asset = "USD",
                            .amount = (micro_t)(20 + chance(sim, 200)) * MICRO_PER_UNIT};
    (void)hub_command(sim, box);
    memset(join, 0x77, sizeof(join));
    box = command(EV_JOIN_TOKEN_CREATE);
    box->event.token.uid = sim_uuid(sim);
    box->event.token.spare_uid = sim_uuid(sim);
    box->event.token.provider = "home";
    box->event.token.uses = SIM_MAX_NODES;
    memcpy(box->event.token.hash, join, sizeof(join));
    (void)hub_command(sim, box);
    for (uint32_t i = 0; i < nodes; i++)
        enrol(sim, join);
}

/* -- tenants -------------------------------------------------------------------------------------
 */

static void post_submit(struct sim *sim, uint32_t index)
{
    const struct sim_job *job = &sim->job[index];
    struct box *box = box_new(EV_JOB_SUBMIT);
    struct event *event = &box->event;

    box->ask = job->ask;
    memcpy(box->spec, job->spec, sizeof(box->spec));
    snprintf(box->name, sizeof(box->name), "job-%u", index);
    event->caller.request = index + 1;
    memcpy(event->caller.token_hash, sim->tenant, 32);
    snprintf(event->caller.key, sizeof(event->caller.key), "key-%u", index);
    memset(event->caller.body_hash, (int)index + 1, 32);
    event->submit.uid = sim_uuid(sim); /* of this request: the first one that commits stands */
    event->submit.name = box->name;
    event->submit.spec = box->spec;
    event->submit.ask = &box->ask;
    hub_post(sim, box);
}

static void submit(struct sim *sim, const struct call *call)
{
    uint32_t index = (uint32_t)call->a;

    if (sim->job[index].acked || sim->job[index].refused)
        return;
    post_submit(sim, index);
    if (chance(sim, 4) == 0)
        post_submit(sim, index);
    sim_after(sim, chance_span(sim, 500 * SIM_MS, 15 * SIM_SECOND), *call);
}

static void cancel(struct sim *sim, const struct call *call)
{
    const struct sim_job *job = &sim->job[call->a];
    struct box *box;

    if (!job->wants_cancel)
        return;
    box = box_new(EV_JOB_CANCEL);
    box->event.caller.request = (call->a + 1) | CANCEL_BIT;
    memcpy(box->event.caller.token_hash, sim->tenant, 32);
    box->event.cancel.job = job->uid;
    hub_post(sim, box);
    sim_after(sim, chance_span(sim, SIM_SECOND, 15 * SIM_SECOND), *call);
}

static void submitted(struct sim *sim, uint32_t index, const struct reply *reply)
{
    struct sim_job *job = &sim->job[index];

    if (reply->err.code == ERR_INSUFFICIENT_FUNDS) {
        job->refused = !job->acked;
        return;
    }
    if (reply->err.code != ERR_NONE) {
        sim_break(sim, "not forgotten: job %u is refused: %s", index, reply->err.text);
        return;
    }
    if (store_job(&sim->store, &reply->object) == NULL)
        sim_break(sim, "not forgotten: job %u is acknowledged and not committed", index);
    if (job->acked && uuid_compare(&job->uid, &reply->object) != 0)
        sim_break(sim, "not forgotten: one key of job %u made two jobs", index);
    sim->counters.replayed += reply->replayed;
    if (job->acked)
        return;
    job->acked = true;
    job->refused = false;
    job->uid = reply->object;
    job->acked_us = sim->now;
    sim_note(sim, "acknowledged", index, reply->replayed, 0, 0);
    if (chance(sim, 5) == 0) {
        job->wants_cancel = true;
        sim_after(sim, chance_span(sim, 0, 3 * SIM_MINUTE),
                  (struct call){.run = cancel, .a = index});
    }
}

void actors_reply(struct sim *sim, const struct reply *reply)
{
    uint32_t index = (uint32_t)(reply->request & ~CANCEL_BIT) - 1;

    if (!sim->quiet && chance_ppm(sim, sim->weather.reply_lost_ppm))
        return;
    if ((reply->request & CANCEL_BIT) != 0)
        sim->job[index].wants_cancel = false;
    else
        submitted(sim, index, reply);
}

static void make_job(struct sim *sim, uint32_t index)
{
    struct sim_job *job = &sim->job[index];

    /* One statement per draw: initialisers have no order. */
    job->feasible = chance(sim, 8) != 0;
    job->rich = chance(sim, 5) != 0;
    job->ask.nodes = 1 + (uint32_t)chance(sim, SIM_MAX_GANG);
    job->ask.gpus_per_node = 1 + (uint32_t)chance(sim, SIM_MAX_DEVICES);
    job->ask.gpu_memory = job->feasible ? 0 : (uint64_t)1 << 40;
    job->ask.max_total = job->rich ? SIM_RICH : (micro_t)(20000 + chance(sim, 400000));
    job->ask.max_duration_us = (uint64_t)(3 * SIM_MINUTE);
    job->ask.stop_duration_us = (uint64_t)(10 * SIM_SECOND);
    job->ask.queue_timeout_us = job->feasible ? 0 : (uint64_t)(10 * SIM_MINUTE);
    job->ask.priority = (uint32_t)chance(sim, 3) * 10;
    job->ask.max_attempts = 1 + (uint32_t)chance(sim, 5);
    job->ask.retry_on = 1u << FAIL_CAPACITY | 1u << FAIL_INTERRUPTION | 1u << FAIL_HARDWARE
                        | 1u << FAIL_PROVIDER | 1u << FAIL_UNREACHABLE | 1u << FAIL_PLATFORM;
    if (chance(sim, 6) == 0)
        job->ask.retry_on |= 1u << FAIL_USER;
    snprintf(job->spec, sizeof(job->spec), "{\"n\":%u,\"g\":%u,\"m\":%llu,\"b\":%lld,\"a\":%u}",
             job->ask.nodes, job->ask.gpus_per_node, (unsigned long long)job->ask.gpu_memory,
             (long long)job->ask.max_total, job->ask.max_attempts);
}

/* -- misfortune -----------------------------------------------------------------------------------
 */

static void uncut(struct sim *sim, const struct call *call)
{
    struct worker *worker = &sim->worker[call->node];

    if (!worker->cut || worker->generation != call->generation)
        return;
    worker->cut = false;
    net_break(sim, worker);
}

static void cut(struct sim *sim, struct worker *worker, usec_t span)
{
    worker->cut = true;
    net_break(sim, worker);
    sim_note(sim, "cut", worker->index, (uint64_t)span, 0, 0);
    sim_after(sim, span,
              (struct call){.run = uncut, .node = worker->index, .generation = worker->generation});
}

static void reboot(struct sim *sim, struct worker *worker)
{
    sim->counters.reboots++;
    sim_note(sim, "reboot", worker->index, 0, 0, 0);
    process_power_off(sim, worker);
    worker_crash(sim, worker);
}

static void vanish(struct sim *sim, struct worker *worker)
{
    uint32_t left = 0;

    for (uint32_t i = 0; i < sim->worker_count; i++)
        left += !sim->worker[i].vanished;
    if (left <= MIN_SURVIVORS || chance(sim, 3) != 0)
        return;
    sim->counters.vanished++;
    worker->vanished = true;
    sim_note(sim, "vanish", worker->index, 0, 0, 0);
    process_power_off(sim, worker);
    worker_crash(sim, worker);
}

static void unbusy(struct sim *sim, const struct call *call)
{
    sim->worker[call->node].busy[call->a] = false;
}

static void unpause(struct sim *sim, const struct call *call)
{
    worker_resume(sim, &sim->worker[call->node]);
}

static void undrain(struct sim *sim, const struct call *call)
{
    worker_notice(sim, &sim->worker[call->node], NODE_UNDRAIN);
}

static void owner_acts(struct sim *sim, struct worker *worker, uint64_t what)
{
    struct call call = {.node = worker->index, .a = chance(sim, SIM_MAX_DEVICES)};
    usec_t span = chance_span(sim, 5 * SIM_SECOND, 3 * SIM_MINUTE);

    sim->counters.pauses++;
    if (what == 0) {
        worker_pause(sim, worker, chance(sim, 2) == 0);
        call.run = unpause;
    } else if (what == 1) {
        worker->busy[call.a] = true;
        call.run = unbusy;
    } else {
        worker_notice(sim, worker, NODE_DRAIN);
        call.run = undrain;
    }
    sim_after(sim, span, call);
}

static void misfortune(struct sim *sim, const struct call *call)
{
    struct worker *worker = &sim->worker[chance(sim, sim->worker_count)];
    uint64_t dice = chance(sim, 100);
    usec_t span = chance(sim, 3) == 0 ? chance_span(sim, SIM_MINUTE, 5 * SIM_MINUTE)
                                      : chance_span(sim, SIM_SECOND, 40 * SIM_SECOND);

    if (sim->quiet)
        return;
    sim_after(sim, chance_span(sim, SIM_SECOND, (usec_t)call->a), *call);
    if (worker->vanished)
        return;
    if (dice < 20)
        net_break(sim, worker);
    else if (dice < 40 && !worker->cut)
        cut(sim, worker, span);
    else if (dice < 55)
        worker_crash(sim, worker);
    else if (dice < 62)
        reboot(sim, worker);
    else if (dice < 68)
        vanish(sim, worker);
    else if (dice < 92)
        owner_acts(sim, worker, dice % 3);
    else if (dice < 96 && sim->hub.up)
        hub_crash(sim);
    else if (dice >= 98) {
        for (uint32_t i = 0; i < sim->worker_count; i++) {
            if (!sim->worker[i].vanished && !sim->worker[i].cut && chance(sim, 4) != 0)
                cut(sim, &sim->worker[i], span);
        }
    }
}

/* -- the quiet tail
 * --------------------------------------------------------------------------------
 */

/* Owners may be away when the faults end: asked until they are back. */
static void settle(struct sim *sim, const struct call *call)
{
    for (uint32_t i = 0; i < sim->worker_count; i++) {
        struct worker *worker = &sim->worker[i];
        if (worker->vanished)
            continue;
        worker_resume(sim, worker);
        if (worker->draining)
            worker_notice(sim, worker, NODE_UNDRAIN);
    }
    sim_after(sim, 30 * SIM_SECOND, *call);
}

static void calm(struct sim *sim, const struct call *call)
{
    (void)call;
    sim->quiet = true;
    sim->calm_us = sim->now;
    sim_note(sim, "calm", 0, 0, 0, 0);
    for (uint32_t i = 0; i < sim->worker_count; i++) {
        struct worker *worker = &sim->worker[i];
        memset(worker->busy, 0, sizeof(worker->busy));
        if (worker->cut) {
            worker->cut = false;
            net_break(sim, worker);
        }
    }
    sim_after(sim, SIM_SECOND, (struct call){.run = settle});
}

static void start(struct sim *sim, const struct call *call)
{
    worker_start(sim, &sim->worker[call->node]);
}

void actors_start(struct sim *sim)
{
    static const usec_t paces[] = {10 * SIM_SECOND, 30 * SIM_SECOND, 90 * SIM_SECOND};

    for (uint32_t i = 0; i < sim->worker_count; i++)
        sim_after(sim, chance_span(sim, 0, 30 * SIM_SECOND),
                  (struct call){.run = start, .node = i});
    sim->job_count = 6 + (uint32_t)chance(sim, SIM_MAX_JOBS - 6 + 1);
    for (uint32_t i = 0; i < sim->job_count; i++) {
        make_job(sim, i);
        sim_after(sim, chance_span(sim, 0, FAULTS_US - 2 * SIM_MINUTE),
                  (struct call){.run = submit, .a = i});
    }
    sim_after(sim, SIM_MINUTE,
              (struct call){.run = misfortune, .a = (uint64_t)paces[chance(sim, 3)]});
    sim_after(sim, FAULTS_US, (struct call){.run = calm});
}
