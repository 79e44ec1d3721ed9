/* The control session's side: hello, orders in, durable messages out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "common/io/clock.h"
#include "common/io/json.h"
#include "common/io/log.h"
#include "common/io/spec_json.h"
#include "common/pure/mem.h"
#include "common/pure/units.h"
#include "worker/core/agent_private.h"

/* -- out --------------------------------------------------------------------------------------- */

/* Durable messages go out in order, each once per session; what is lost comes with the next one. */
void agent_pump(struct agent *agent)
{
    uint32_t count = keep_message_count(agent->keep);

    if (!agent->session || !session_is_up(agent->session))
        return;
    for (uint32_t i = 0; i < count; i++) {
        const struct keep_message *message = keep_message_at(agent->keep, i);

        if (message->seq <= agent->sent_seq)
            continue;
        if (!session_send_again(agent->session, message->bytes, message->size))
            return;
        agent->sent_seq = message->seq;
    }
}

void agent_notice(struct agent *agent, const char *verb, uint32_t device, bool foreign,
                  micro_t price, const char *detail)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__NodeNotice notice = SHEAF__NODE_NOTICE__INIT;
    char verb_text[16];
    char detail_text[256];

    snprintf(verb_text, sizeof(verb_text), "%s", verb);
    snprintf(detail_text, sizeof(detail_text), "%s", detail);
    notice.verb = verb_text;
    notice.device = device;
    notice.foreign = foreign;
    notice.price_micro = price;
    notice.detail = detail_text;
    envelope.body_case = SHEAF__ENVELOPE__BODY_NOTICE;
    envelope.notice = &notice;
    agent_message(agent, &envelope);
    log_info("node", "notice", "verb=%s device=%u foreign=%d", verb, device, foreign);
}

/* -- hello ------------------------------------------------------------------------------------- */

struct hello {
    Sheaf__Hello wire;
    Sheaf__HeldTask task[TASKS_MAX];
    Sheaf__HeldTask *pointer[TASKS_MAX];
    char state[TASKS_MAX][16];
};

static void hello_tasks(struct agent *agent, struct hello *hello)
{
    for (uint32_t i = 0; i < agent->tasks.count; i++) {
        const struct rank_task *task = &agent->tasks.task[i];
        Sheaf__HeldTask *wire = &hello->task[hello->wire.n_tasks];

        if (task->forgotten)
            continue;
        sheaf__held_task__init(wire);
        wire->attempt = task->id.attempt;
        wire->term = task->id.term;
        wire->epoch = task->id.epoch;
        wire->rank = task->id.rank;
        snprintf(hello->state[i], sizeof(hello->state[i]), "%s",
                 task_phase_rank_state(task->phase));
        wire->state = hello->state[i];
        wire->exit_code = task->exit_code;
        hello->pointer[hello->wire.n_tasks++] = wire;
    }
    hello->wire.tasks = hello->pointer;
}

static void on_connect(Sheaf__Envelope *envelope, void *arg)
{
    static struct hello hello; /* lives until the session has encoded it; one loop, one session */
    struct agent *agent = arg;
    const struct keep_counters *counters = keep_counters(agent->keep);
    struct claim_facts facts = {.settings = agent->settings,
                                .owner = &agent->owner,
                                .host = agent->host,
                                .machine = agent->node.machine,
                                .address = agent->address,
                                .runtime = agent->runtimes};

    for (uint32_t i = 0; i < agent->host->device_count; i++)
        facts.offered[i] = agent_device_offered(agent, i);
    claim_make(&facts, &agent->claim);
    memset(&hello, 0, sizeof(hello));
    sheaf__hello__init(&hello.wire);
    hello.wire.protocol_min = 1;
    hello.wire.protocol_max = 1;
    hello.wire.node.data = agent->node.node.bytes;
    hello.wire.node.len = sizeof(agent->node.node.bytes);
    hello.wire.boot = counters->boot;
    hello.wire.claim = &agent->claim.wire;
    hello.wire.next_seq = counters->acked_seq + 1;
    hello_tasks(agent, &hello);
    agent->sent_seq = counters->acked_seq;
    envelope->body_case = SHEAF__ENVELOPE__BODY_HELLO;
    envelope->hello = &hello.wire;
}

static void on_welcome(const Sheaf__Welcome *welcome, void *arg)
{
    struct agent *agent = arg;
    struct bulk_gateway gateways[BULK_MAX_GATEWAYS] = {0};
    uint32_t count = 0;

    if (welcome->sign_key.len != KEY_SIZE
        || !bytes_equal(welcome->sign_key.data, agent->trust.sign_key, KEY_SIZE))
        log_error("session", "sign-key", "detail=" LOG_Q,
                  "the orchestrator signs with another key than the one pinned at join; its orders "
                  "are refused. If the operator confirms the change: leave and join again");
    for (size_t i = 0; i < welcome->n_gateways && count < BULK_MAX_GATEWAYS; i++) {
        const Sheaf__Gateway *gateway = welcome->gateways[i];

        if (gateway->curve_key.len != KEY_SIZE
            || strlen(gateway->bulk) >= sizeof(gateways[0].endpoint)
            || strncmp(gateway->bulk, "tcp://", 6) != 0)
            continue;
        snprintf(gateways[count].endpoint, sizeof(gateways[0].endpoint), "%s", gateway->bulk);
        memcpy(gateways[count++].key, gateway->curve_key.data, KEY_SIZE);
    }
    log_info("session", "up", "term=%u heartbeat_ms=%u gateways=%u", welcome->term,
             welcome->heartbeat_ms, count);
    bulk_set_gateways(agent->bulk, gateways, count);
    if (agent->leaving && agent->leave_seq == 0 && agent->mode == AGENT_LEAVE)
        agent_notice(agent, "drain", 0, false, 0, "leave");
    agent_commit(agent);
    agent_leave_step(agent);
}

static void on_closed(const char *code, const char *detail, void *arg)
{
    struct agent *agent = arg;
    struct err err = {0};

    agent->status.known = false;
    log_warn("session", "closed", "code=%s detail=" LOG_Q, code, detail);
    if (agent->mode == AGENT_RUN || strcmp(code, "unreachable") == 0)
        return;
    if (strcmp(code, "wrong-state") != 0 && strcmp(code, "bye") != 0) {
        (void)err_set(&err, err_from_slug(code), "%s", detail);
        agent_end(agent, err.code != ERR_NONE ? -(int)err.code : -ERR_INTERNAL, &err);
    }
}

static void on_ack(uint64_t seq, void *arg)
{
    struct agent *agent = arg;
    uint64_t before = keep_counters(agent->keep)->acked_seq;
    struct err err = {0};

    keep_message_ack(agent->keep, seq);
    if (keep_counters(agent->keep)->acked_seq == before)
        return;
    /* Lost, it is only acknowledged again: no wait for the disk. */
    if (keep_flush(agent->keep, &err) != 0) {
        log_error("agent", "journal", "detail=" LOG_Q, err.text);
        agent_end(agent, -(int)err.code, &err);
        return;
    }
    agent_refresh_closed(agent);
    agent_leave_step(agent);
}

static void on_heartbeat(Sheaf__Heartbeat *heartbeat, void *arg)
{
    static Sheaf__DeviceSample samples[DEVICES_MAX];
    static Sheaf__DeviceSample *pointers[DEVICES_MAX];
    struct agent *agent = arg;
    struct sysinfo info;

    if (sysinfo(&info) == 0) {
        heartbeat->load_milli = (uint32_t)((info.loads[0] * 1000) >> SI_LOAD_SHIFT);
        heartbeat->memory_free_mib = (uint32_t)((uint64_t)info.freeram * info.mem_unit / MIB);
    }
    heartbeat->disk_free_mib = (uint32_t)(fs_free_bytes(agent->settings->state) / MIB & UINT32_MAX);
    for (uint32_t i = 0; i < agent->sample_count; i++) {
        const struct device_usage *usage = &agent->sample[i];

        sheaf__device_sample__init(&samples[i]);
        samples[i].ordinal = usage->device;
        samples[i].memory_used_mib = usage->memory_used_mib;
        samples[i].utilisation_pct = usage->utilisation_pct;
        samples[i].temperature_c = usage->temperature_c;
        samples[i].power_w = usage->power_w;
        pointers[i] = &samples[i];
    }
    heartbeat->devices = pointers;
    heartbeat->n_devices = agent->sample_count;
}

/* -- orders ------------------------------------------------------------------------------------ */

/* What the core could not know: whether the order makes sense on this machine. */
static void check_prepare(const struct agent *agent, const Sheaf__Prepare *prepare,
                          struct task_event *event, struct err *err)
{
    struct job_spec spec = {0};

    event->class = FAIL_PLATFORM;
    if (prepare->n_devices == 0 || prepare->n_devices > SPEC_MAX_GPUS_PER_NODE
        || prepare->ranks == 0 || prepare->ranks > SPEC_MAX_NODES
        || event->id.rank >= prepare->ranks) {
        event->reason = ERR_WIRE_ORDER;
        (void)err_set(err, ERR_WIRE_ORDER, "devices or ranks out of range");
    } else if (spec_parse(prepare->spec_json.data, prepare->spec_json.len, &spec, err) != 0) {
        event->reason = err->code;
    }
    spec_fini(&spec);
    for (size_t i = 0; event->reason == ERR_NONE && i < prepare->n_devices; i++) {
        uint32_t device = prepare->devices[i];

        if (device < agent->host->device_count && agent_device_offered(agent, device))
            continue;
        event->class = FAIL_CAPACITY;
        event->reason = device < agent->host->device_count ? ERR_FOREIGN_PROCESS : ERR_DEVICE_GONE;
        (void)err_set(err, event->reason, "device %u is not offered here", device);
    }
    if (event->reason != ERR_NONE)
        event->detail = err->text;
    else
        event->class = FAIL_NONE;
}

static void on_prepare(struct agent *agent, const Sheaf__Order *order, struct task_event *event)
{
    const Sheaf__Prepare *prepare = order->prepare;
    struct err err = {0};

    if (prepare->job_uid.len != 16 || prepare->attempt_uid.len != 16) {
        log_warn("order", "refused", "attempt=%llu detail=" LOG_Q,
                 (unsigned long long)order->attempt, "ids of wrong size");
        return;
    }
    event->kind = TASK_EV_PREPARE;
    event->job = prepare->job_uid.data;
    event->attempt_uid = prepare->attempt_uid.data;
    event->device = prepare->devices;
    event->device_count =
        (uint32_t)(prepare->n_devices < SPEC_MAX_GPUS_PER_NODE ? prepare->n_devices
                                                               : SPEC_MAX_GPUS_PER_NODE);
    check_prepare(agent, prepare, event, &err);
    agent_event(agent, event);
    event->detail = NULL; /* it was err's */
}

static void dispatch(struct agent *agent, const Sheaf__Order *order)
{
    struct task_event event = {
        .id = {order->attempt, order->term, order->epoch, order->rank},
    };

    switch (order->what_case) {
    case SHEAF__ORDER__WHAT_PREPARE:
        on_prepare(agent, order, &event);
        break;
    case SHEAF__ORDER__WHAT_GO:
        event.kind = TASK_EV_GO;
        agent_event(agent, &event);
        break;
    case SHEAF__ORDER__WHAT_STOP:
        event.kind = TASK_EV_STOP;
        event.reason = err_from_slug(order->stop->reason);
        agent_event(agent, &event);
        break;
    case SHEAF__ORDER__WHAT_FORGET:
        event.kind = TASK_EV_FORGET;
        agent_event(agent, &event);
        break;
    case SHEAF__ORDER__WHAT_SELFTEST:
        agent_selftest_order(agent, order->selftest);
        break;
    case SHEAF__ORDER__WHAT_PROBE:
        agent_probe_order(agent, order->probe);
        break;
    case SHEAF__ORDER__WHAT__NOT_SET:
    case _SHEAF__ORDER__WHAT__CASE_IS_INT_SIZE:
        break;
    }
}

/* An order that was not believed is answered, but nothing in it is used. */
static void report_refusal(struct agent *agent, const struct err *err)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__ErrorReply reply = SHEAF__ERROR_REPLY__INIT;
    char code[64];
    char detail[256];

    snprintf(code, sizeof(code), "%s", err_slug(err->code));
    snprintf(detail, sizeof(detail), "%s", err->text);
    reply.code = code;
    reply.detail = detail;
    envelope.body_case = SHEAF__ENVELOPE__BODY_ERROR;
    envelope.error = &reply;
    (void)session_send(agent->session, &envelope);
}

static void on_order(const Sheaf__SignedOrder *signed_order, void *arg)
{
    struct agent *agent = arg;
    struct frame_arena arena;
    Sheaf__Order *order = NULL;
    struct err err = {0};

    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    if (order_open(&agent->trust, signed_order, clock_wall_us(), &arena, &order, &err) != 0) {
        log_warn("order", "refused", "code=%s detail=" LOG_Q, err_slug(err.code), err.text);
        report_refusal(agent, &err);
    } else {
        log_debug("order", "take", "kind=%s attempt=%llu epoch=%u rank=%u", order_name(order),
                  (unsigned long long)order->attempt, order->epoch, order->rank);
        agent->order_bytes = signed_order->order.data;
        agent->order_size = signed_order->order.len;
        dispatch(agent, order);
        agent->order_bytes = NULL;
    }
    frame_arena_fini(&arena);
}

/* -- status ------------------------------------------------------------------------------------ */

static void status_devices(struct agent *agent, const Sheaf__NodeStatus *wire)
{
    for (size_t i = 0; i < wire->n_devices; i++) {
        const Sheaf__DeviceStatus *device = wire->devices[i];

        if (device->ordinal >= DEVICES_MAX)
            continue;
        snprintf(agent->status.tier[device->ordinal], sizeof(agent->status.tier[0]), "%s",
                 device->tier);
        agent->status.measured_mib[device->ordinal] = device->measured_mib;
    }
}

/* A join is over when the orchestrator has judged: ready, or a failed self-test. */
static void judge_join(struct agent *agent)
{
    struct err err = {0};

    if (agent->mode != AGENT_JOIN)
        return;
    if (strcmp(agent->status.reason, "selftest-failed") == 0) {
        (void)err_set(&err, ERR_SELFTEST_FAILED, "%s", agent->status.detail);
        agent_end(agent, -ERR_SELFTEST_FAILED, &err);
        return;
    }
    if (strcmp(agent->status.state, "joining") == 0 || strcmp(agent->status.state, "probing") == 0)
        return;
    for (uint32_t i = 0; i < agent->host->device_count; i++) {
        if (agent_device_offered(agent, i))
            printf("  device %u: tier %s, %u MiB measured\n", i,
                   agent->status.tier[i][0] ? agent->status.tier[i] : "claimed",
                   agent->status.measured_mib[i]);
    }
    fflush(stdout);
    agent_end(agent, 0, NULL);
}

static void on_status(const Sheaf__NodeStatus *wire, void *arg)
{
    struct agent *agent = arg;
    struct agent_status *status = &agent->status;
    char before[24];

    snprintf(before, sizeof(before), "%s", status->state);
    status->known = true;
    snprintf(status->state, sizeof(status->state), "%s", wire->state);
    snprintf(status->reason, sizeof(status->reason), "%s", wire->reason);
    snprintf(status->detail, sizeof(status->detail), "%s", wire->detail);
    status->conditions[0] = '\0';
    for (size_t i = 0; i < wire->n_conditions; i++) {
        size_t used = strlen(status->conditions);

        snprintf(status->conditions + used, sizeof(status->conditions) - used, "%s%s",
                 used ? "," : "", wire->conditions[i]);
    }
    status->price = wire->price_micro;
    status_devices(agent, wire);
    if (strcmp(before, status->state) != 0)
        log_info("node", "state", "from=%s to=%s reason=%s detail=" LOG_Q,
                 before[0] ? before : "none", status->state, status->reason, status->detail);
    agent->draining =
        strcmp(status->state, "draining") == 0 || strcmp(status->state, "drained") == 0;
    agent_refresh_closed(agent);
    if (!agent->announced && agent->mode == AGENT_RUN) {
        printf("sheaf-worker ready node=%s state=%s\n", agent->node.name, status->state);
        fflush(stdout);
        agent->announced = true;
    }
    if (strcmp(before, status->state) != 0)
        notify_status(agent->manager, status->state);
    judge_join(agent);
    agent_leave_step(agent);
}

void agent_session_hooks(struct agent *agent, struct session_hooks *hooks)
{
    hooks->on_connect = on_connect;
    hooks->on_welcome = on_welcome;
    hooks->on_closed = on_closed;
    hooks->on_ack = on_ack;
    hooks->on_order = on_order;
    hooks->on_status = on_status;
    hooks->on_heartbeat = on_heartbeat;
    hooks->arg = agent;
}
