/*
 * The worker around its task machine: journal before action, a session that begins anew with each
 * doubt, tasks found again after a crash. The order of things is the product's (agent.c): step,
 * record, commit, send, perform.
 */
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "tests/sim/sim_private.h"

#define WELCOME_US   (5 * SIM_SECOND)
#define SILENCE_US   (300 * SIM_SECOND)
#define BACKOFF_MIN  (100 * SIM_MS)
#define BACKOFF_MAX  (10 * SIM_SECOND)
#define HEARTBEAT_US (5 * SIM_SECOND)
#define ORDER_LIFE   (5 * SIM_MINUTE)
#define RECEIPT_US   (60 * SIM_SECOND)
#define USAGE_US     (20 * SIM_SECOND)
#define NOTICE_US    (10 * SIM_SECOND)

static struct call call_of(const struct worker *worker,
                           void (*run)(struct sim *, const struct call *))
{
    return (struct call){.run = run, .node = worker->index, .generation = worker->generation};
}

/* The worker that a timer is for; NULL when that start is over. */
static struct worker *caller(struct sim *sim, const struct call *call)
{
    struct worker *worker = &sim->worker[call->node];

    return worker->up && worker->generation == call->generation ? worker : NULL;
}

struct node_claim worker_claim(const struct worker *worker)
{
    struct node_claim claim = {
        .country = "DE",
        .runtime = "sim",
        .version = "0.1",
        .port_low = 20000,
        .port_high = 20100,
        .probe_port = 19999,
        .cpu_milli = 16000,
        .memory_mib = 65536,
        .disk_mib = 1000000,
        .price = MICRO_PER_UNIT * (1 + (micro_t)worker->index % 3),
        .notice_s = 15,
        .device_count = SIM_MAX_DEVICES,
    };

    memcpy(claim.name, "node-a", 7);
    claim.name[5] = (char)('a' + worker->index);
    memcpy(claim.region, "eu-0", 5);
    claim.region[3] = (char)('0' + worker->index % 3);
    memcpy(claim.address, "10.0.0.1", 9);
    claim.address[7] = (char)('1' + worker->index);
    for (uint32_t i = 0; i < SIM_MAX_DEVICES; i++) {
        struct claim_device *device = &claim.device[i];
        memcpy(device->uuid, "GPU-a-0", 8);
        device->uuid[4] = (char)('a' + worker->index);
        device->uuid[6] = (char)('0' + i);
        memcpy(device->model, "RTX 4090", 9);
        memcpy(device->vendor, "nvidia", 7);
        device->memory_mib = 24000;
        device->offered = true;
    }
    return claim;
}

/* -- the journal ---------------------------------------------------------------------------------
 */

static void save_task(struct journal *journal, const struct rank_task *task)
{
    struct rank_task *saved = tasks_find(&journal->tasks, task->id.attempt, task->id.epoch);

    if (saved != NULL)
        *saved = *task;
    else
        BUG_ON(!tasks_restore(&journal->tasks, task));
    tasks_fence(&journal->tasks, task->job, task->id.epoch);
}

static void drop_task(struct journal *journal, const struct task_id *id)
{
    struct rank_task *saved = tasks_find(&journal->tasks, id->attempt, id->epoch);

    if (saved != NULL)
        *saved = journal->tasks.task[--journal->tasks.count];
    for (uint32_t i = 0; i < journal->order_count; i++) {
        if (journal->order[i].id.attempt == id->attempt && journal->order[i].id.epoch == id->epoch)
            journal->order[i--] = journal->order[--journal->order_count];
    }
}

static void keep_order(struct worker *worker, const struct task_id *id, bool go)
{
    struct journal *journal = &worker->journal;
    uint32_t i = 0;

    while (
        i < journal->order_count
        && (journal->order[i].id.attempt != id->attempt || journal->order[i].id.epoch != id->epoch))
        i++;
    if (i == journal->order_count) {
        BUG_ON(i == TASKS_MAX);
        journal->order_count++;
        journal->order[i].id = *id;
        journal->order[i].ranks = (uint32_t)worker->order_ranks;
        journal->order[i].go = false;
    }
    journal->order[i].go |= go;
}

static uint32_t kept_ranks(const struct worker *worker, const struct task_id *id)
{
    const struct journal *journal = &worker->journal;

    for (uint32_t i = 0; i < journal->order_count; i++) {
        if (journal->order[i].id.attempt == id->attempt && journal->order[i].id.epoch == id->epoch)
            return journal->order[i].ranks;
    }
    return 0;
}

static struct msg *add_message(struct worker *worker, enum msg_kind kind)
{
    struct journal *journal = &worker->journal;
    struct msg *msg = msg_new(kind, worker->index);

    BUG_ON(journal->outbox_count == SIM_MAX_OUTBOX);
    msg->seq = ++journal->out_seq;
    journal->outbox[journal->outbox_count++] = msg;
    return msg;
}

static void take_ack(struct worker *worker, uint64_t seq)
{
    struct journal *journal = &worker->journal;
    uint32_t gone = 0;

    if (seq <= journal->acked_seq || seq > journal->out_seq)
        return;
    while (gone < journal->outbox_count && journal->outbox[gone]->seq <= seq)
        free(journal->outbox[gone++]);
    journal->outbox_count -= gone;
    memmove(journal->outbox, journal->outbox + gone,
            journal->outbox_count * sizeof(journal->outbox[0]));
    journal->acked_seq = seq;
}

static void pump(struct sim *sim, struct worker *worker)
{
    for (uint32_t i = 0; i < worker->journal.outbox_count && worker->session_up; i++) {
        const struct msg *msg = worker->journal.outbox[i];
        if (msg->seq <= worker->sent_seq)
            continue;
        net_to_hub(sim, worker, (struct msg *)mem_dup(msg, sizeof(*msg)));
        worker->sent_seq = msg->seq;
    }
}

static void add_receipt(struct sim *sim, struct worker *worker)
{
    struct msg_receipt receipt = {.count = 0};

    for (uint32_t i = 0; i < worker->tasks.count; i++) {
        struct rank_task *task = &worker->tasks.task[i];
        const struct process *process = process_find(worker, &task->id);
        if (process != NULL && task->phase >= TASK_PHASE_RELEASED
            && task->phase <= TASK_PHASE_STARTED && task->used_ms < process_used_ms(sim, process))
            task->used_ms = process_used_ms(sim, process);
        if (task->phase < TASK_PHASE_RELEASED || task->phase == TASK_PHASE_REFUSED)
            continue;
        receipt.line[receipt.count].id = task->id;
        receipt.line[receipt.count++].used_ms =
            sim->options.plant == PLANT_OVERCLAIM ? 2 * task->used_ms : task->used_ms;
    }
    if (receipt.count == 0)
        return;
    receipt.seq = ++worker->journal.receipt_seq;
    add_message(worker, MSG_RECEIPT)->receipt = receipt;
}

static void record(struct sim *sim, struct worker *worker, const struct task_action *action)
{
    const struct process *process = process_find(worker, &action->id);
    const struct rank_task *task;

    switch (action->kind) {
    case TASK_ACT_SAVE:
        task = tasks_find(&worker->tasks, action->id.attempt, action->id.epoch);
        if (task != NULL)
            save_task(&worker->journal, task);
        break;
    case TASK_ACT_DROP:
        drop_task(&worker->journal, &action->id);
        break;
    case TASK_ACT_NEWS:
        add_message(worker, MSG_NEWS)->news = (struct msg_news){
            action->id,     action->news,  action->exit_code,
            action->reason, action->class, action->port,
        };
        if (action->news == RANK_NEWS_EXITED && process != NULL && process->state == PROCESS_EXITED)
            truth_told(sim, process);
        break;
    case TASK_ACT_RECEIPT:
        add_receipt(sim, worker);
        break;
    case TASK_ACT_FETCH:
        keep_order(worker, &action->id, false);
        break;
    case TASK_ACT_RELEASE:
        keep_order(worker, &action->id, true);
        break;
    case TASK_ACT_PREPARE:
    case TASK_ACT_STOP:
    case TASK_ACT_KILL:
    case TASK_ACT_COLLECT:
    case TASK_ACT_CLEAN:
    case TASK_ACT_COUNT:
        break;
    }
}

/* -- actions --------------------------------------------------------------------------------------
 */

static void tell(struct sim *sim, const struct call *call)
{
    struct worker *worker = caller(sim, call);
    struct task_event event = {.kind = (enum task_event_kind)(call->b >> 32),
                               .id = {.attempt = call->a, .epoch = (uint32_t)call->b}};
    const struct rank_task *task;

    if (worker == NULL)
        return;
    task = tasks_find(&worker->tasks, call->a, (uint32_t)call->b);
    if (task == NULL)
        return;
    event.id = task->id;
    if (event.kind == TASK_EV_FAILED) {
        event.reason = ERR_NODE_REFUSED;
        event.class = FAIL_PROVIDER;
    }
    worker_task_event(sim, worker, &event);
}

static void tell_later(struct sim *sim, const struct worker *worker, const struct task_id *id,
                       enum task_event_kind kind, usec_t span)
{
    struct call call = call_of(worker, tell);

    call.a = id->attempt;
    call.b = (uint64_t)kind << 32 | id->epoch;
    sim_after(sim, span, call);
}

static bool fails(struct sim *sim)
{
    return !sim->quiet && chance_ppm(sim, sim->weather.refuse_ppm);
}

static void do_fetch(struct sim *sim, struct worker *worker, const struct task_id *id)
{
    usec_t longest = chance(sim, 8) == 0 ? 60 * SIM_SECOND : 3 * SIM_SECOND;
    usec_t span = chance_span(sim, 10 * SIM_MS, longest);

    tell_later(sim, worker, id, fails(sim) ? TASK_EV_FAILED : TASK_EV_FETCHED, span);
}

static void do_prepare(struct sim *sim, struct worker *worker, const struct task_id *id)
{
    const struct rank_task *task = tasks_find(&worker->tasks, id->attempt, id->epoch);

    if (task == NULL || task->phase != TASK_PHASE_PREPARING || process_find(worker, id) != NULL)
        return;
    if (fails(sim))
        tell_later(sim, worker, id, TASK_EV_FAILED, 0);
    else
        process_make(sim, worker, task, kept_ranks(worker, id));
}

static void do_collect(struct sim *sim, struct worker *worker, const struct task_id *id)
{
    /* Now and then nobody takes the outputs: the worker gives up by itself. */
    if (!fails(sim))
        tell_later(sim, worker, id, TASK_EV_OUTPUTS,
                   chance_span(sim, 100 * SIM_MS, 20 * SIM_SECOND));
    tell_later(sim, worker, id, TASK_EV_LOGS, chance_span(sim, 100 * SIM_MS, 5 * SIM_SECOND));
}

static void perform(struct sim *sim, struct worker *worker, const struct task_action *action)
{
    struct process *process = process_find(worker, &action->id);

    sim_note(sim, "perform", worker->index, action->kind, action->id.attempt,
             process != NULL ? process->state : 9);
    switch (action->kind) {
    case TASK_ACT_FETCH:
        do_fetch(sim, worker, &action->id);
        break;
    case TASK_ACT_PREPARE:
        do_prepare(sim, worker, &action->id);
        break;
    case TASK_ACT_RELEASE:
        if (process != NULL)
            process_release(sim, worker, process);
        break;
    case TASK_ACT_STOP:
    case TASK_ACT_KILL:
        if (process != NULL)
            process_stop(sim, worker, process, action->kind == TASK_ACT_KILL);
        break;
    case TASK_ACT_COLLECT:
        do_collect(sim, worker, &action->id);
        break;
    case TASK_ACT_CLEAN:
        if (process != NULL)
            process_clean(sim, worker, process);
        break;
    case TASK_ACT_SAVE:
    case TASK_ACT_DROP:
    case TASK_ACT_NEWS:
    case TASK_ACT_RECEIPT:
    case TASK_ACT_COUNT:
        break;
    }
}

/* -- a step ---------------------------------------------------------------------------------------
 */

static void refresh_closed(struct worker *worker)
{
    if (worker->draining)
        worker->tasks.closed = ERR_NODE_DRAINED;
    else if (worker->journal.paused)
        worker->tasks.closed = ERR_OWNER_RECLAIMED;
    else if (worker->journal.outbox_count >= SIM_MAX_OUTBOX / 2)
        worker->tasks.closed = ERR_TOO_MANY;
    else
        worker->tasks.closed = ERR_NONE;
}

void worker_task_event(struct sim *sim, struct worker *worker, const struct task_event *event)
{
    struct task_actions actions = {0};
    uint64_t generation = worker->generation;
    uint32_t last = UINT32_MAX;

    if (!worker->up)
        return;
    tasks_step(&worker->tasks, event, sim->now, &actions);
    if (!sim->quiet && actions.count > 0 && chance_ppm(sim, sim->weather.worker_crash_ppm)) {
        last = (uint32_t)chance(sim, actions.count + 2);
        if (last == actions.count + 1) { /* before the journal is written */
            task_actions_fini(&actions);
            worker_crash(sim, worker);
            return;
        }
    }
    for (uint32_t i = 0; i < actions.count; i++)
        record(sim, worker, &actions.item[i]);
    pump(sim, worker);
    for (uint32_t i = 0; i < actions.count && i < last && worker->generation == generation; i++)
        perform(sim, worker, &actions.item[i]);
    task_actions_fini(&actions);
    if (last != UINT32_MAX)
        worker_crash(sim, worker);
    else
        refresh_closed(worker);
}

/* -- the session ----------------------------------------------------------------------------------
 */

static void dial(struct sim *sim, struct worker *worker);

static void redial(struct sim *sim, const struct call *call)
{
    struct worker *worker = caller(sim, call);

    if (worker != NULL && call->a == worker->dial_number)
        dial(sim, worker);
}

static void session_end(struct sim *sim, struct worker *worker)
{
    struct call call = call_of(worker, redial);

    if (worker->session_up)
        worker->backoff_us = BACKOFF_MIN;
    else if (worker->backoff_us * 2 < BACKOFF_MAX)
        worker->backoff_us *= 2;
    else
        worker->backoff_us = BACKOFF_MAX;
    worker->session_up = false;
    call.a = ++worker->dial_number;
    sim_after(sim, worker->backoff_us + chance_span(sim, 0, worker->backoff_us / 2), call);
}

static void no_welcome(struct sim *sim, const struct call *call)
{
    struct worker *worker = caller(sim, call);

    if (worker != NULL && call->a == worker->dial_number && !worker->session_up)
        session_end(sim, worker);
}

static void dial(struct sim *sim, struct worker *worker)
{
    struct msg *msg = msg_new(MSG_HELLO, worker->index);
    struct call call = call_of(worker, no_welcome);

    net_break(sim, worker);
    worker->nonce = ++sim->numbers;
    worker->session_up = false;
    worker->sent_seq = worker->journal.acked_seq;
    msg->hello.boot = worker->journal.boot;
    msg->hello.next_seq = worker->journal.acked_seq + 1;
    msg->hello.paused = worker->journal.paused;
    for (uint32_t i = 0; i < SIM_MAX_DEVICES; i++)
        msg->hello.offered[i] = !worker->foreign[i];
    for (uint32_t i = 0; i < worker->tasks.count; i++) {
        const struct rank_task *task = &worker->tasks.task[i];
        if (task->forgotten)
            continue;
        msg->hello.task[msg->hello.task_count++] = (struct held_task){
            task->id.attempt,
            task->id.term,
            task->id.epoch,
            task->id.rank,
            rank_state_parse(task_phase_rank_state(task->phase)),
            task->exit_code,
        };
    }
    net_to_hub(sim, worker, msg);
    call.a = ++worker->dial_number;
    sim_after(sim, WELCOME_US, call);
}

static void heartbeat(struct sim *sim, const struct call *call)
{
    struct worker *worker = caller(sim, call);

    if (worker == NULL)
        return;
    sim_after(sim, HEARTBEAT_US, *call);
    if (!worker->session_up)
        return;
    if (sim->now - worker->heard_us > SILENCE_US)
        session_end(sim, worker);
    else
        net_to_hub(sim, worker, msg_new(MSG_HEARTBEAT, worker->index));
}

/* -- orders
 * ---------------------------------------------------------------------------------------- */

static void refuse_busy(const struct worker *worker, const struct msg_order *order,
                        struct task_event *event)
{
    for (uint32_t i = 0; i < order->device_count; i++) {
        if (order->device[i] < SIM_MAX_DEVICES && !worker->foreign[order->device[i]])
            continue;
        event->reason = ERR_FOREIGN_PROCESS;
        event->class = FAIL_CAPACITY;
    }
}

static void task_order(struct sim *sim, struct worker *worker, const struct msg_order *order)
{
    struct task_event event = {.id = order->id, .reason = order->reason};

    sim_note(sim, "order", worker->index, order->kind, order->id.attempt, order->id.epoch);

    if (sim->options.plant == PLANT_NO_FENCE) {
        worker->tasks.fence_count = 0;
        worker->tasks.fence_next = 0;
        if (order->kind == ORDER_FORGET)
            return;
    }
    if (order->kind == ORDER_PREPARE) {
        event = (struct task_event){.kind = TASK_EV_PREPARE,
                                    .id = order->id,
                                    .job = order->job.bytes,
                                    .attempt_uid = order->attempt.bytes,
                                    .device = order->device,
                                    .device_count = order->device_count};
        refuse_busy(worker, order, &event);
        worker->order_ranks = order->ranks;
    } else if (order->kind == ORDER_GO) {
        event.kind = TASK_EV_GO;
    } else {
        event.kind = order->kind == ORDER_STOP ? TASK_EV_STOP : TASK_EV_FORGET;
    }
    worker_task_event(sim, worker, &event);
}

static void tested(struct sim *sim, const struct call *call)
{
    struct worker *worker = caller(sim, call);

    if (worker == NULL)
        return;
    worker->testing[call->a] = false;
    add_message(worker, MSG_SELFTEST)->device = (uint32_t)call->a;
    pump(sim, worker);
}

/* The same path both ways; a host that is down or cut off answers nobody. */
static struct ev_link measure(struct sim *sim, const struct worker *worker,
                              const struct worker *peer)
{
    uint64_t low = worker->index < peer->index ? worker->index : peer->index;
    uint64_t high = worker->index < peer->index ? peer->index : worker->index;
    bool near = low % 3 == high % 3;
    uint32_t base = (uint32_t)(chance_of(sim, low, high, 7) % (near ? 1500 : 60000));
    struct ev_link link = {.to = peer->node};

    if (!peer->up || peer->vanished) {
        link.loss_ppm = PPM;
        return link;
    }
    link.rtt_p50_us = 300 + base;
    link.rtt_p95_us = link.rtt_p50_us + (uint32_t)chance(sim, 150);
    link.reach = true;
    return link;
}

static void probed(struct sim *sim, const struct call *call)
{
    struct worker *worker = caller(sim, call);
    struct msg *msg = call->msg;

    if (worker == NULL || !worker->session_up) {
        free(msg);
        return;
    }
    for (uint32_t i = 0; i < msg->links.count; i++) {
        for (uint32_t k = 0; k < sim->worker_count; k++) {
            if (sim->worker[k].node == msg->links.link[i].to)
                msg->links.link[i] = measure(sim, worker, &sim->worker[k]);
        }
    }
    net_to_hub(sim, worker, msg);
}

static void node_order(struct sim *sim, struct worker *worker, const struct msg_order *order)
{
    struct call call;

    if (order->kind == ORDER_SELFTEST) {
        uint32_t device = order->device[0];
        if (device >= SIM_MAX_DEVICES || worker->testing[device])
            return;
        worker->testing[device] = true;
        call = call_of(worker, tested);
        call.a = device;
        sim_after(sim, chance_span(sim, SIM_SECOND, 20 * SIM_SECOND), call);
        return;
    }
    call = call_of(worker, probed);
    call.msg = msg_new(MSG_LINKS, worker->index);
    for (uint32_t i = 0; i < order->peer_count; i++)
        call.msg->links.link[call.msg->links.count++].to = order->peer[i];
    sim_after(sim, chance_span(sim, SIM_SECOND, 3 * SIM_SECOND), call);
}

void worker_receive(struct sim *sim, struct worker *worker, const struct msg *msg)
{
    if (msg->nonce != worker->nonce)
        return;
    worker->heard_us = sim->now;
    if (worker->session_up && msg->ack > 0)
        take_ack(worker, msg->ack);
    if (msg->kind == MSG_WELCOME && !worker->session_up) {
        worker->session_up = true;
        worker->session_us = sim->now;
        worker->backoff_us = BACKOFF_MIN;
        take_ack(worker, msg->ack);
        pump(sim, worker);
    } else if (msg->kind == MSG_ORDER && worker->session_up
               && sim->now - msg->sent_us < ORDER_LIFE) {
        if (msg->order.kind == ORDER_SELFTEST || msg->order.kind == ORDER_PROBE)
            node_order(sim, worker, &msg->order);
        else
            task_order(sim, worker, &msg->order);
    } else if (msg->kind == MSG_STATUS && worker->session_up) {
        worker->draining = msg->draining;
        refresh_closed(worker);
    } else if (msg->kind == MSG_ERROR) {
        session_end(sim, worker);
    }
}

/* -- the owner
 * -------------------------------------------------------------------------------------- */

void worker_notice(struct sim *sim, struct worker *worker, enum node_verb verb)
{
    if (!worker->up)
        return;
    sim_note(sim, node_verb_name(verb), worker->index, 0, 0, 0);
    add_message(worker, MSG_NOTICE)->notice = (struct msg_notice){.verb = verb};
    pump(sim, worker);
}

static void reclaim(struct sim *sim, struct worker *worker, uint32_t device, bool wanted)
{
    struct task_id ids[TASKS_MAX];
    uint32_t count = 0;

    for (uint32_t i = 0; i < worker->tasks.count; i++) {
        const struct rank_task *task = &worker->tasks.task[i];
        bool uses = device == SIM_MAX_DEVICES;
        for (uint32_t k = 0; k < task->device_count; k++)
            uses = uses || task->device[k] == device;
        if (uses)
            ids[count++] = task->id;
    }
    for (uint32_t i = 0; i < count; i++) {
        worker_task_event(sim, worker,
                          &(struct task_event){
                              .kind = wanted ? TASK_EV_RECLAIM : TASK_EV_RELENT,
                              .id = ids[i],
                              .notice_us = sim->now + NOTICE_US,
                          });
    }
}

void worker_pause(struct sim *sim, struct worker *worker, bool now)
{
    if (!worker->up || worker->journal.paused)
        return;
    worker->journal.paused = true;
    refresh_closed(worker);
    worker_notice(sim, worker, NODE_PAUSE);
    if (now)
        reclaim(sim, worker, SIM_MAX_DEVICES, true);
}

void worker_resume(struct sim *sim, struct worker *worker)
{
    if (!worker->up || !worker->journal.paused)
        return;
    worker->journal.paused = false;
    refresh_closed(worker);
    worker_notice(sim, worker, NODE_RESUME);
}

static void look_at_devices(struct sim *sim, const struct call *call)
{
    struct worker *worker = caller(sim, call);

    if (worker == NULL)
        return;
    sim_after(sim, USAGE_US, *call);
    for (uint32_t i = 0; i < SIM_MAX_DEVICES && caller(sim, call) != NULL; i++) {
        if (worker->busy[i] == worker->foreign[i])
            continue;
        worker->foreign[i] = worker->busy[i];
        add_message(worker, MSG_NOTICE)->notice =
            (struct msg_notice){.device_use = true, .device = i, .foreign = worker->foreign[i]};
        pump(sim, worker);
        reclaim(sim, worker, i, worker->foreign[i]);
    }
}

/* -- life
 * --------------------------------------------------------------------------------------------
 */

static void second(struct sim *sim, const struct call *call)
{
    struct worker *worker = caller(sim, call);
    struct call again = *call;

    if (worker == NULL)
        return;
    again.a++;
    sim_after(sim, SIM_SECOND, again);
    if (worker->tasks.count == 0)
        return;
    worker_task_event(sim, worker, &(struct task_event){.kind = TASK_EV_TICK});
    for (uint32_t i = 0; call->a % 10 == 0 && caller(sim, call) != NULL && i < worker->tasks.count;
         i++) {
        const struct rank_task *task = &worker->tasks.task[i];
        if (task->phase == TASK_PHASE_FETCHING && !task->fetched)
            worker_task_event(sim, worker,
                              &(struct task_event){.kind = TASK_EV_PROGRESS, .id = task->id});
    }
}

static void minute(struct sim *sim, const struct call *call)
{
    struct worker *worker = caller(sim, call);
    bool running = false;

    if (worker == NULL)
        return;
    sim_after(sim, RECEIPT_US, *call);
    for (uint32_t i = 0; i < worker->tasks.count; i++)
        running |= worker->tasks.task[i].phase == TASK_PHASE_STARTED;
    if (!running || worker->journal.outbox_count > SIM_MAX_OUTBOX / 4)
        return;
    add_receipt(sim, worker);
    pump(sim, worker);
}

/* What the supervisor says to a worker that found it again. */
static void adopt(struct sim *sim, struct worker *worker, const struct task_id *id)
{
    const struct rank_task *task = tasks_find(&worker->tasks, id->attempt, id->epoch);
    struct process *process = process_find(worker, id);
    struct task_event event = {.id = *id};

    if (process == NULL) {
        event.kind = TASK_EV_LOST;
        worker_task_event(sim, worker, &event);
        return;
    }
    if (task->phase == TASK_PHASE_RELEASED)
        process_release(sim, worker, process);
    if (task->forgotten || task->stopping)
        process_stop(sim, worker, process, task->forgotten || task->phase <= TASK_PHASE_READY);
    if (process->state == PROCESS_MAKING)
        return;
    event.kind = TASK_EV_PREPARED;
    event.port = 20000 + id->rank;
    worker_task_event(sim, worker, &event);
    if (process->run_from != 0) {
        event.kind = TASK_EV_STARTED;
        worker_task_event(sim, worker, &event);
    }
    if (process->state == PROCESS_EXITED) {
        event.kind = TASK_EV_EXITED;
        event.exit_code = process->exit_code;
        event.used_ms = process_used_ms(sim, process);
        worker_task_event(sim, worker, &event);
    }
}

static void resume(struct sim *sim, struct worker *worker)
{
    struct task_id ids[TASKS_MAX];
    enum task_phase phases[TASKS_MAX];
    uint32_t count = worker->tasks.count;
    uint64_t generation = worker->generation;

    for (uint32_t i = 0; i < count; i++) {
        ids[i] = worker->tasks.task[i].id;
        phases[i] = worker->tasks.task[i].phase;
    }
    for (uint32_t i = 0; i < count && worker->generation == generation; i++) {
        if (tasks_find(&worker->tasks, ids[i].attempt, ids[i].epoch) == NULL)
            continue;
        if (phases[i] == TASK_PHASE_FETCHING)
            do_fetch(sim, worker, &ids[i]);
        else if (phases[i] >= TASK_PHASE_PREPARING && phases[i] <= TASK_PHASE_STARTED)
            adopt(sim, worker, &ids[i]);
        else if (phases[i] == TASK_PHASE_COLLECTING)
            do_collect(sim, worker, &ids[i]);
    }
}

static void read_journal(struct sim *sim, struct worker *worker)
{
    struct journal *journal = &worker->journal;

    if (sim->options.plant == PLANT_AMNESIA)
        tasks_init(&journal->tasks);
    tasks_init(&worker->tasks);
    for (uint32_t i = 0; i < journal->tasks.fence_count; i++)
        tasks_fence(&worker->tasks, journal->tasks.fence[i].job, journal->tasks.fence[i].epoch);
    for (uint32_t i = 0; i < journal->tasks.count; i++)
        BUG_ON(!tasks_restore(&worker->tasks, &journal->tasks.task[i]));
    tasks_resume(&worker->tasks, sim->now);
}

/* This start's word on devices comes after what the last one still had to say. */
static void retract_notices(struct worker *worker)
{
    for (uint32_t i = 0; i < SIM_MAX_DEVICES && worker->journal.outbox_count > 0; i++)
        add_message(worker, MSG_NOTICE)->notice =
            (struct msg_notice){.device_use = true, .device = i};
}

void worker_start(struct sim *sim, struct worker *worker)
{
    if (worker->up || worker->vanished)
        return;
    worker->up = true;
    worker->generation++;
    worker->journal.boot++;
    worker->backoff_us = BACKOFF_MIN;
    worker->draining = false;
    worker->heard_us = sim->now;
    memset(worker->foreign, 0, sizeof(worker->foreign));
    memset(worker->testing, 0, sizeof(worker->testing));
    sim_note(sim, "worker-start", worker->index, worker->journal.boot, worker->journal.tasks.count,
             worker->journal.outbox_count);
    read_journal(sim, worker);
    retract_notices(worker);
    refresh_closed(worker);
    sim_after(sim, HEARTBEAT_US, call_of(worker, heartbeat));
    sim_after(sim, SIM_SECOND, call_of(worker, second));
    sim_after(sim, RECEIPT_US, call_of(worker, minute));
    sim_after(sim, chance_span(sim, 0, USAGE_US), call_of(worker, look_at_devices));
    uint64_t generation = worker->generation;
    resume(sim, worker);
    if (worker->generation == generation)
        dial(sim, worker);
}

static void restart(struct sim *sim, const struct call *call)
{
    worker_start(sim, &sim->worker[call->node]);
}

void worker_crash(struct sim *sim, struct worker *worker)
{
    usec_t down = chance(sim, 3) == 0 ? chance_span(sim, SIM_SECOND, 3 * SIM_MINUTE)
                                      : chance_span(sim, 50 * SIM_MS, 5 * SIM_SECOND);

    if (!worker->up)
        return;
    sim->counters.worker_crashes++;
    sim_note(sim, "worker-crash", worker->index, 0, 0, 0);
    worker->up = false;
    worker->session_up = false;
    worker->generation++;
    net_break(sim, worker);
    if (!worker->vanished)
        sim_after(sim, down, (struct call){.run = restart, .node = worker->index});
}

void worker_fini(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->journal.outbox_count; i++)
        free(worker->journal.outbox[i]);
}
