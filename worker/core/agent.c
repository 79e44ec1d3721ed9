#include "worker/core/agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "proto/receipt.pb-c.h"
#include "worker/core/agent_private.h"

#define RECEIPT_EVERY_S 60
#define JOIN_DEADLINE_S 300
/* For a first word of the orchestrator that is to be left. */
#define LEAVE_DEADLINE_S 30

void agent_end(struct agent *agent, int rc, const struct err *err)
{
    if (agent->rc == 0)
        agent->rc = rc;
    if (err && agent->err.code == ERR_NONE)
        agent->err = *err;
    event_base_loopbreak(agent->base);
}

struct agent_task *agent_task_find(const struct agent *agent, uint64_t attempt, uint32_t epoch)
{
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        struct agent_task *task = agent->task[i];

        if (task && !task->gone && task->id.attempt == attempt && task->id.epoch == epoch)
            return task;
    }
    return NULL;
}

void agent_refresh_closed(struct agent *agent)
{
    if (agent->leaving || agent->draining)
        agent->tasks.closed = ERR_NODE_DRAINED;
    else if (agent->owner.paused)
        agent->tasks.closed = ERR_OWNER_RECLAIMED;
    else if (keep_message_count(agent->keep) >= KEEP_MAX_OUTBOX)
        agent->tasks.closed = ERR_TOO_MANY;
    else
        agent->tasks.closed = ERR_NONE;
}

/* -- durable messages -------------------------------------------------------------------------- */

void agent_message(struct agent *agent, Sheaf__Envelope *envelope)
{
    struct buf bytes;

    envelope->seq = keep_message_next_seq(agent->keep);
    buf_init(&bytes, FRAME_MAX);
    frame_encode(&envelope->base, &bytes);
    BUG_ON(bytes.full);
    (void)keep_message_add(agent->keep, bytes.data, bytes.length);
    buf_fini(&bytes);
}

void agent_commit(struct agent *agent)
{
    struct err err = {0};

    if (keep_commit(agent->keep, &err) != 0) {
        /* What is not on the disk must not be acted on; a restart finds what was. */
        log_error("agent", "journal", "detail=" LOG_Q, err.text);
        agent_end(agent, -(int)err.code, &err);
        return;
    }
    agent_pump(agent);
}

static char *borrow_text(char *text)
{
    return text;
}

static void add_news(struct agent *agent, const struct task_action *action)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__TaskEvent wire = SHEAF__TASK_EVENT__INIT;
    char news[16];
    char reason[64];
    char class[32];
    char detail[256];

    snprintf(news, sizeof(news), "%s", rank_news_name(action->news));
    snprintf(reason, sizeof(reason), "%s", err_slug(action->reason));
    snprintf(class, sizeof(class), "%s",
             action->class == FAIL_NONE ? "" : fail_class_name(action->class));
    snprintf(detail, sizeof(detail), "%s", action->detail);
    wire.attempt = action->id.attempt;
    wire.term = action->id.term;
    wire.epoch = action->id.epoch;
    wire.rank = action->id.rank;
    wire.news = borrow_text(news);
    wire.exit_code = action->exit_code;
    wire.reason = borrow_text(reason);
    wire.fail_class = borrow_text(class);
    wire.detail = borrow_text(detail);
    wire.port = action->port;
    envelope.body_case = SHEAF__ENVELOPE__BODY_TASK_EVENT;
    envelope.task_event = &wire;
    agent_message(agent, &envelope);
    log_info("task", "news",
             "attempt=%llu epoch=%u rank=%u news=%s exit=%d reason=%s detail=" LOG_Q,
             (unsigned long long)action->id.attempt, action->id.epoch, action->id.rank, news,
             action->exit_code, reason, detail);
}

static uint32_t receipt_lines(struct agent *agent, Sheaf__ReceiptLine *lines,
                              Sheaf__ReceiptLine **pointers)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < agent->tasks.count; i++) {
        struct rank_task *task = &agent->tasks.task[i];
        struct agent_task *shell = agent_task_find(agent, task->id.attempt, task->id.epoch);
        Sheaf__ReceiptLine *line = &lines[count];

        if (shell && shell->run && task->phase >= TASK_PHASE_RELEASED
            && task->phase <= TASK_PHASE_STARTED) {
            uint64_t used_ms = runtime_used_ms(shell->run);

            if (task->used_ms < used_ms)
                task->used_ms = used_ms;
        }
        if (task->phase < TASK_PHASE_RELEASED || task->phase == TASK_PHASE_REFUSED)
            continue;
        sheaf__receipt_line__init(line);
        line->attempt = task->id.attempt;
        line->term = task->id.term;
        line->epoch = task->id.epoch;
        line->rank = task->id.rank;
        line->used_ms = task->used_ms;
        line->final = task->phase >= TASK_PHASE_COLLECTING;
        pointers[count++] = line;
    }
    return count;
}

static void add_receipt(struct agent *agent)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__SignedReceipt outer = SHEAF__SIGNED_RECEIPT__INIT;
    Sheaf__Receipt receipt = SHEAF__RECEIPT__INIT;
    Sheaf__ReceiptLine lines[TASKS_MAX];
    Sheaf__ReceiptLine *pointers[TASKS_MAX];
    uint8_t signature[SIGNATURE_SIZE];
    struct buf bytes;

    receipt.n_lines = receipt_lines(agent, lines, pointers);
    receipt.lines = pointers;
    if (receipt.n_lines == 0)
        return;
    receipt.node.data = agent->node.node.bytes;
    receipt.node.len = sizeof(agent->node.node.bytes);
    receipt.seq = keep_receipt_next(agent->keep);
    receipt.at_us = (uint64_t)clock_wall_us();
    buf_init(&bytes, FRAME_MAX);
    frame_encode(&receipt.base, &bytes);
    sign_bytes(&agent->identity.sign, SIGN_DOMAIN_RECEIPT, bytes.data, bytes.length, signature);
    outer.receipt.data = (uint8_t *)bytes.data;
    outer.receipt.len = bytes.length;
    outer.signature.data = signature;
    outer.signature.len = sizeof(signature);
    envelope.body_case = SHEAF__ENVELOPE__BODY_RECEIPT;
    envelope.receipt = &outer;
    agent_message(agent, &envelope);
    buf_fini(&bytes);
}

/* -- a step ------------------------------------------------------------------------------------ */

/* Makes an action's record; what the order of the step said is kept with the task that took it. */
static void record(struct agent *agent, const struct task_action *action)
{
    struct rank_task *task;

    switch (action->kind) {
    case TASK_ACT_SAVE:
        task = tasks_find(&agent->tasks, action->id.attempt, action->id.epoch);
        if (task)
            keep_task_save(agent->keep, task);
        break;
    case TASK_ACT_DROP:
        keep_task_drop(agent->keep, action->id.attempt, action->id.epoch);
        break;
    case TASK_ACT_NEWS:
        add_news(agent, action);
        break;
    case TASK_ACT_RECEIPT:
        add_receipt(agent);
        break;
    case TASK_ACT_FETCH:
    case TASK_ACT_RELEASE:
        if (agent->order_bytes)
            keep_task_order(agent->keep, action->id.attempt, action->id.epoch,
                            action->kind == TASK_ACT_RELEASE, agent->order_bytes,
                            agent->order_size);
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

static void step(struct agent *agent, const struct task_event *event)
{
    struct task_actions actions = {0};

    tasks_step(&agent->tasks, event, clock_mono_us(), &actions);
    for (uint32_t i = 0; i < actions.count; i++)
        record(agent, &actions.item[i]);
    if (actions.count > 0)
        agent_commit(agent);
    if (agent->rc == 0) {
        for (uint32_t i = 0; i < actions.count; i++)
            agent_perform(agent, &actions.item[i]);
    }
    task_actions_fini(&actions);
}

void agent_event(struct agent *agent, const struct task_event *event)
{
    struct agent_event *queued;

    if (agent->stepping) { /* caused by an action of the step that runs */
        BUG_ON(agent->event_count == AGENT_MAX_EVENTS || event->kind == TASK_EV_PREPARE);
        queued = &agent->event[(agent->event_first + agent->event_count++) % AGENT_MAX_EVENTS];
        queued->event = *event;
        snprintf(queued->detail, sizeof(queued->detail), "%s", event->detail ? event->detail : "");
        queued->event.detail = queued->detail;
        return;
    }
    agent->stepping = true;
    step(agent, event);
    agent->order_bytes = NULL;
    while (agent->event_count > 0) {
        struct agent_event next = agent->event[agent->event_first];

        agent->event_first = (agent->event_first + 1) % AGENT_MAX_EVENTS;
        agent->event_count--;
        next.event.detail = next.detail;
        step(agent, &next.event);
    }
    agent->stepping = false;
    agent_refresh_closed(agent);
    agent_leave_step(agent);
}

/* -- timers ------------------------------------------------------------------------------------ */

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    struct agent *agent = arg;

    (void)what;
    log_info("agent", "signal", "number=%d tasks=%u", (int)fd, tasks_live(&agent->tasks));
    event_base_loopbreak(agent->base);
}

static int check_reload(const struct config *fresh, void *arg, struct err *err)
{
    return settings_read(fresh, arg, err);
}

static void on_reload(evutil_socket_t fd, short what, void *arg)
{
    struct agent *agent = arg;
    struct settings *fresh = mem_new(1, sizeof(*fresh));
    struct config_reload reload = {check_reload, fresh};
    struct err err = {0};

    (void)fd;
    (void)what;
    if (agent->config && config_reload(agent->config, &reload, &err) == 0) {
        settings_take(&agent->kept, fresh);
        log_open("sheaf-worker", agent->kept.log);
        agent_usage_again(agent);
    }
    free(fresh);
}

/* Jobs without a word from the orchestrator for orphan-ttl: the owner's policy decides. */
static void check_orphans(struct agent *agent, int64_t now_us)
{
    int64_t heard_us = session_heard_us(agent->session);

    if (!agent->settings->orphan_stop || heard_us == 0
        || now_us - heard_us < (int64_t)agent->settings->orphan_ttl_us)
        return;
    for (uint32_t i = agent->tasks.count; i-- > 0;) {
        const struct rank_task *task = &agent->tasks.task[i];
        struct task_event event = {.kind = TASK_EV_STOP,
                                   .id = task->id,
                                   .reason = ERR_UNREACHABLE,
                                   .detail = "no word from the orchestrator; orphan-policy: stop"};

        if (task->phase <= TASK_PHASE_STARTED && !task->stopping)
            agent_event(agent, &event);
    }
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
    struct agent *agent = arg;
    struct task_event event = {.kind = TASK_EV_TICK};
    int64_t now_us = clock_mono_us();

    (void)fd;
    (void)what;
    if (agent->tasks.count == 0)
        return;
    agent_event(agent, &event);
    check_orphans(agent, now_us);
    agent_progress(agent);
    agent_logs_pump(agent, agent->notify_fd < 0);
}

static void on_receipt(evutil_socket_t fd, short what, void *arg)
{
    struct agent *agent = arg;
    bool running = false;

    (void)fd;
    (void)what;
    for (uint32_t i = 0; i < agent->tasks.count; i++)
        running |= agent->tasks.task[i].phase == TASK_PHASE_STARTED;
    /* They are cumulative: while nobody takes them, the newest one will do. */
    if (!running || keep_message_count(agent->keep) > KEEP_MAX_OUTBOX / 2)
        return;
    add_receipt(agent);
    agent_commit(agent);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct agent *agent = arg;
    struct err err = {0};

    (void)fd;
    (void)what;
    if (agent->mode == AGENT_LEAVE && agent->status.known)
        return; /* it was heard: jobs may take their time to end */
    (void)err_set(&err, ERR_TIMEOUT, "%s",
                  session_is_up(agent->session)
                      ? "no self-test within five minutes; sheaf-worker run goes on with it"
                      : "no answer from the orchestrator; check that its port can be reached");
    agent_end(agent, -ERR_TIMEOUT, &err);
}

static struct event *every(struct agent *agent, int64_t us, event_callback_fn on_time)
{
    struct timeval wait = {.tv_sec = (long)(us / 1000000), .tv_usec = (long)(us % 1000000)};
    struct event *event = event_new(agent->base, -1, EV_PERSIST, on_time, agent);

    BUG_ON(!event || event_add(event, &wait) != 0);
    return event;
}

/* -- life -------------------------------------------------------------------------------------- */

static void find_interface(const char *address, char out[16])
{
    struct ifaddrs *list = NULL;
    char text[64];

    if (getifaddrs(&list) != 0)
        return;
    for (struct ifaddrs *at = list; at; at = at->ifa_next) {
        const void *bytes = NULL;

        if (!at->ifa_addr)
            continue;
        if (at->ifa_addr->sa_family == AF_INET)
            bytes = &((const struct sockaddr_in *)(const void *)at->ifa_addr)->sin_addr;
        else if (at->ifa_addr->sa_family == AF_INET6)
            bytes = &((const struct sockaddr_in6 *)(const void *)at->ifa_addr)->sin6_addr;
        if (bytes && inet_ntop(at->ifa_addr->sa_family, bytes, text, sizeof(text))
            && strcmp(text, address) == 0) {
            snprintf(out, 16, "%s", at->ifa_name);
            break;
        }
    }
    freeifaddrs(list);
}

/* The host part of "tcp://host:port". */
static void endpoint_host(const char *endpoint, char out[128])
{
    const char *host = strstr(endpoint, "://");
    const char *end;

    host = host ? host + 3 : endpoint;
    host += *host == '[';
    end = strrchr(host, ':');
    if (end && end > host && end[-1] == ']')
        end--;
    snprintf(out, 128, "%.*s", end ? (int)(end - host) : (int)strlen(host), host);
}

static int find_address(struct agent *agent, struct err *err)
{
    char host[128];

    if (agent->settings->address[0]) {
        snprintf(agent->address, sizeof(agent->address), "%s", agent->settings->address);
        find_interface(agent->address, agent->interface);
        return 0;
    }
    endpoint_host(agent->node.control[0], host);
    return network_local_address(host, agent->address, agent->interface, err);
}

static int open_state(struct agent *agent, struct err *err)
{
    char path[FS_PATH];
    int rc;

    rc = home_open(agent->settings, err);
    if (rc == 0)
        rc = settings_path(agent->settings, "lock", path, err);
    if (rc == 0)
        rc = fs_lock(path, &agent->lock_fd, err);
    if (rc == 0)
        rc = home_load(agent->settings, &agent->node, err);
    if (rc == 0)
        rc = settings_path(agent->settings, "identity", path, err);
    if (rc == 0)
        rc = identity_load(path, &agent->identity, err);
    if (rc == 0)
        rc = home_load_owner(agent->settings, &agent->owner, err);
    if (rc == 0)
        rc = find_address(agent, err);
    if (rc == 0)
        rc = keep_open(agent->settings->state, &agent->tasks, &agent->keep, err);
    if (rc != 0)
        return rc;
    memcpy(agent->trust.sign_key, agent->node.sign_key, KEY_SIZE);
    memcpy(agent->trust.worker_key, agent->identity.curve.public_key, KEY_SIZE);
    return 0;
}

static void on_bulk_up(void *arg)
{
    struct agent *agent = arg;

    transfers_up(agent->transfers);
    agent_logs_rewind(agent);
    agent_logs_pump(agent, false);
}

static void on_bulk_credit(void *arg)
{
    struct agent *agent = arg;

    agent_logs_pump(agent, false);
    transfers_credit(agent->transfers);
}

static void on_bulk_message(const Sheaf__Bulk *message, void *arg)
{
    struct agent *agent = arg;

    if (message->body_case == SHEAF__BULK__BODY_LOG_ACK)
        agent_logs_ack(agent, message->log_ack);
    else
        transfers_message(agent->transfers, message);
}

static int open_parts(struct agent *agent, struct err *err)
{
    const struct settings *settings = agent->settings;
    struct bulk_hooks hooks = {on_bulk_up, on_bulk_credit, on_bulk_message, agent};
    int rc;

    agent->background = background_new(agent->base);
    rc = runtime_new(agent->base, settings->state, settings->unsafe_process, &agent->runtime, err);
    if (rc != 0)
        return rc;
    agent_images_open(agent);
    rc = network_new(agent->base, agent->address, settings->probe_port, settings->port_high,
                     &agent->network, &agent->probe_port, err);
    if (rc != 0)
        return rc;
    agent->zmq = zmq_ctx_new();
    BUG_ON(!agent->zmq);
    agent->bulk =
        bulk_new(agent->base, agent->zmq, &agent->identity.curve, &agent->node.node, &hooks);
    agent->transfers = transfers_new(agent->base, agent->bulk);
    agent_logs_init(agent);
    return agent_control_open(agent, err);
}

static void start_timers(struct agent *agent)
{
    static const int signals[3] = {SIGTERM, SIGINT, SIGHUP};

    for (size_t i = 0; i < 3; i++) {
        agent->signals[i] = evsignal_new(agent->base, signals[i],
                                         signals[i] == SIGHUP ? on_reload : on_signal, agent);
        BUG_ON(!agent->signals[i] || event_add(agent->signals[i], NULL) != 0);
    }
    agent->second = every(agent, 1000000, on_second);
    agent->receipt = every(agent, INT64_C(1000000) * RECEIPT_EVERY_S, on_receipt);
    if (agent->mode != AGENT_RUN)
        agent->deadline = every(
            agent,
            INT64_C(1000000) * (agent->mode == AGENT_JOIN ? JOIN_DEADLINE_S : LEAVE_DEADLINE_S),
            on_deadline);
    agent_usage_start(agent);
}

static int open_session(struct agent *agent, struct err *err)
{
    struct session_hooks hooks;

    agent->session_options.endpoint = (const char(*)[128])agent->node.control;
    agent->session_options.endpoint_count = agent->node.control_count;
    agent->session_options.server_key = agent->node.server_key;
    agent->session_options.client = &agent->identity.curve;
    agent_session_hooks(agent, &hooks);
    return session_new(agent->base, agent->zmq, &agent->session_options, &hooks, &agent->session,
                       err);
}

static void agent_close(struct agent *agent)
{
    struct event *events[] = {agent->signals[0], agent->signals[1], agent->signals[2],
                              agent->second,     agent->receipt,    agent->usage,
                              agent->deadline};

    agent_control_close(agent);
    background_free(agent->background);
    agent_images_close(agent);
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i])
            event_free(events[i]);
    }
    devices_job_free(agent->usage_job);
    devices_job_free(agent->selftest_job);
    agent_logs_fini(agent);
    transfers_free(agent->transfers);
    bulk_free(agent->bulk);
    session_free(agent->session);
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        agent_task_free(agent->task[i]);
        agent->task[i] = NULL;
    }
    if (agent->network)
        network_free(agent->network);
    if (agent->runtime)
        runtime_free(agent->runtime);
    if (agent->zmq)
        zmq_ctx_term(agent->zmq);
    keep_close(agent->keep);
    notify_free(agent->manager);
    if (agent->base)
        event_base_free(agent->base);
    if (agent->lock_fd >= 0)
        close(agent->lock_fd);
}

int agent_run(const struct settings *settings, struct config *config, const struct host_info *host,
              enum agent_mode mode, struct err *err)
{
    struct agent *agent = mem_new(1, sizeof(*agent));
    int rc;

    agent->kept = *settings;
    agent->settings = &agent->kept;
    agent->config = config;
    agent->host = host;
    agent->mode = mode;
    agent->lock_fd = -1;
    agent->notify_fd = -1;
    agent->leaving = mode == AGENT_LEAVE;
    tasks_init(&agent->tasks);
    agent->base = loop_new();
    agent->manager = notify_new(agent->base);
    rc = open_state(agent, err);
    if (rc == 0)
        rc = open_parts(agent, err);
    if (rc == 0)
        rc = open_session(agent, err);
    if (rc == 0) {
        start_timers(agent);
        agent_refresh_closed(agent);
        agent_resume(agent);
        /* Whether the orchestrator answers is the network's affair, no reason to start us anew. */
        notify_ready(agent->manager, "waiting for the orchestrator");
        log_info("agent", "start", "node=%s address=%s interface=%s boot=%llu tasks=%u runtime=%s",
                 agent->node.name, agent->address, agent->interface,
                 (unsigned long long)keep_counters(agent->keep)->boot, agent->tasks.count,
                 agent->runtimes);
        event_base_dispatch(agent->base);
        notify_stopping(agent->manager);
        rc = agent->rc;
        if (rc != 0 && err)
            *err = agent->err;
        log_info("agent", "end", "rc=%d tasks=%u", rc, tasks_live(&agent->tasks));
    }
    agent_close(agent);
    free(agent);
    return rc;
}
