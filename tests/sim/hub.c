/*
 * The orchestrator around its core: queue, turns, one commit in flight, effects after it, and
 * crashes at every seam of that. Sessions, liveness and link news are the product's own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "tests/sim/sim_private.h"

#define HEARTBEAT_US (5 * SIM_SECOND)
#define GRACE_US     (30 * SIM_SECOND)
#define TICK_US      SIM_SECOND /* the product ticks faster; a node is silent a little later here */
#define STALL_US     (2 * SIM_SECOND)
#define BUDGET       8u
#define FRESH        64u

static void hub_wake(struct sim *sim);

/* -- boxes ------------------------------------------------------------------------------------- */

struct box *box_new(enum event_kind kind)
{
    struct box *box = mem_new(1, sizeof(*box));

    box->event.kind = kind;
    return box;
}

static void make_fresh(struct sim *sim, struct box *box)
{
    for (size_t i = 0; i < sizeof(box->event.fresh) / sizeof(box->event.fresh[0]); i++)
        box->event.fresh[i] = sim_uuid(sim);
}

void hub_post(struct sim *sim, struct box *box)
{
    struct hub *hub = &sim->hub;

    if (!hub->up) {
        free(box);
        return;
    }
    make_fresh(sim, box);
    box->next = NULL;
    if (hub->tail != NULL)
        hub->tail->next = box;
    else
        hub->head = box;
    hub->tail = box;
    hub_wake(sim);
}

static struct box *take(struct hub *hub)
{
    struct box *box = hub->head;

    if (box != NULL) {
        hub->head = box->next;
        if (hub->head == NULL)
            hub->tail = NULL;
    }
    return box;
}

static void post_node(struct sim *sim, enum event_kind kind, uint64_t node)
{
    struct box *box = box_new(kind);

    box->event.node.node = node;
    hub_post(sim, box);
}

/* -- what goes out -------------------------------------------------------------------------------
 */

static struct worker *worker_of(struct sim *sim, uint64_t node)
{
    for (uint32_t i = 0; i < sim->worker_count; i++) {
        if (sim->worker[i].node == node)
            return &sim->worker[i];
    }
    BUG_ON(true); /* every node of the simulated fleet is a worker's */
    return NULL;
}

static void send_msg(struct sim *sim, const struct session *session, struct msg *msg)
{
    struct worker *worker = worker_of(sim, session->node);

    memcpy(&msg->peer, session->peer, sizeof(msg->peer));
    memcpy(&msg->nonce, session->nonce, sizeof(msg->nonce));
    msg->ack = session->acked;
    net_to_worker(sim, worker, msg);
}

static void fill_order(struct msg_order *out, const struct order *order)
{
    out->kind = order->kind;
    out->id = (struct task_id){order->attempt, order->term, order->epoch, order->rank};
    out->job = order->job_uid;
    out->attempt = order->attempt_uid;
    out->reason = order->reason;
    out->ranks = order->ranks;
    out->device_count = order->device_count;
    memcpy(out->device, order->device, sizeof(out->device));
    for (uint32_t i = 0; i < order->peer_count && i < SIM_MAX_PEERS; i++)
        out->peer[out->peer_count++] = order->peers[i].node;
}

static void send_order(struct sim *sim, const struct order *order)
{
    const struct session *session = sessions_of(sim->hub.sessions, order->node);
    struct msg *msg;

    sim_note(sim, order_kind_name(order->kind), order->node, order->attempt, order->epoch,
             order->rank);
    if (session == NULL || !session->open)
        return;
    msg = msg_new(MSG_ORDER, worker_of(sim, order->node)->index);
    fill_order(&msg->order, order);
    send_msg(sim, session, msg);
}

static void send_plain(struct sim *sim, uint64_t node, enum msg_kind kind)
{
    const struct session *session = sessions_of(sim->hub.sessions, node);
    const struct node_row *row = world_node(sim->hub.world, node);
    struct msg *msg;

    if (session == NULL || !session->open || row == NULL)
        return;
    msg = msg_new(kind, worker_of(sim, node)->index);
    if (kind == MSG_STATUS)
        msg->draining = row->state == NODE_DRAINING || row->state == NODE_DRAINED;
    send_msg(sim, session, msg);
}

static void allow(struct sim *sim, const struct node_row *node)
{
    struct hub *hub = &sim->hub;

    (void)sessions_allow(hub->sessions, node->id, &node->uid, node->curve_key);
    if (node->state != NODE_JOINING)
        liveness_watch(hub->liveness, node->id, (node->conditions & NODE_UNKNOWN) != 0);
}

static void do_keys(struct sim *sim, uint64_t node, const uint8_t key[32], bool live)
{
    struct hub *hub = &sim->hub;
    const struct node_row *row = world_node(hub->world, node);

    if (live && row != NULL) {
        allow(sim, row);
        return;
    }
    (void)sessions_revoke(hub->sessions, key);
    liveness_forget(hub->liveness, node);
    links_forget(hub->links, node);
}

static void perform(struct sim *sim, const struct effect *effect)
{
    struct session *session;

    switch (effect->kind) {
    case FX_ORDER:
        send_order(sim, &effect->order);
        break;
    case FX_REPLY:
        actors_reply(sim, &effect->reply);
        break;
    case FX_NODE_KEYS:
        do_keys(sim, effect->keys.node, effect->keys.curve_key, effect->keys.live);
        break;
    case FX_ACK:
        session = sessions_of(sim->hub.sessions, effect->node.node);
        if (session != NULL && session_ack(session, effect->node.seq))
            send_plain(sim, effect->node.node, MSG_ACK);
        break;
    case FX_WELCOME:
        send_plain(sim, effect->node.node, MSG_WELCOME);
        break;
    case FX_NODE_STATUS:
        send_plain(sim, effect->node.node, MSG_STATUS);
        break;
    }
}

/* -- the turn ------------------------------------------------------------------------------------
 */

/* False when the program died on the way. */
static bool act(struct sim *sim, struct hub_turn *turn)
{
    uint64_t generation = sim->hub.generation;
    uint32_t count = turn->out.effect_count;
    uint32_t last = UINT32_MAX;

    if (!sim->quiet && count > 0 && chance_ppm(sim, sim->weather.hub_crash_ppm))
        last = (uint32_t)chance(sim, count + 1);
    if (sim->options.plant != PLANT_ACT_EARLY) {
        for (uint32_t i = 0; i < count && i < last; i++)
            perform(sim, &turn->out.effects[i]);
    }
    if (last != UINT32_MAX)
        hub_crash(sim);
    if (sim->hub.generation != generation)
        return false;
    world_out_clear(&turn->out);
    turn->boxes = 0;
    return true;
}

static bool is_empty(const struct hub_turn *turn)
{
    return turn->boxes == 0 && turn->out.row_count == 0 && turn->out.effect_count == 0;
}

static void hub_committed(struct sim *sim, const struct call *call);

static void submit(struct sim *sim)
{
    struct hub *hub = &sim->hub;
    struct hub_turn *turn = hub->filling;

    if (hub->flying != NULL || is_empty(turn))
        return;
    hub->filling = turn == &hub->turn[0] ? &hub->turn[1] : &hub->turn[0];
    if (sim->options.plant == PLANT_ACT_EARLY) {
        for (uint32_t i = 0; i < turn->out.effect_count; i++)
            perform(sim, &turn->out.effects[i]);
    }
    if (turn->out.row_count == 0) {
        (void)act(sim, turn);
        return;
    }
    bool slow = !sim->quiet && chance_ppm(sim, sim->weather.slow_commit_ppm);
    hub->flying = turn;
    sim_after(sim, chance_span(sim, SIM_MS, slow ? 5 * SIM_SECOND : 15 * SIM_MS),
              (struct call){.run = hub_committed, .generation = hub->generation});
}

static void hub_committed(struct sim *sim, const struct call *call)
{
    struct hub *hub = &sim->hub;
    struct hub_turn *turn = hub->flying;
    uint32_t count;

    if (!hub->up || hub->generation != call->generation)
        return;
    if (!sim->quiet && chance_ppm(sim, sim->weather.hub_crash_ppm)) {
        hub_crash(sim); /* before the commit: as if nothing had been decided */
        return;
    }
    count = turn->out.row_count;
    if (sim->options.plant == PLANT_HALF_BATCH && chance(sim, 20) == 0)
        count /= 2;
    store_commit(sim, turn->out.rows, count);
    if (sim->options.plant == PLANT_COMMIT_TWICE && chance(sim, 100) == 0)
        store_commit(sim, turn->out.rows, count);
    if (!sim->quiet && chance_ppm(sim, sim->weather.hub_crash_ppm)) {
        hub_crash(sim); /* between commit and effects */
        return;
    }
    hub->flying = NULL;
    if (!act(sim, turn))
        return;
    submit(sim);
    if (hub->up)
        hub_wake(sim);
}

static void check(struct sim *sim)
{
    struct err err;

    if (world_check(sim->hub.world, &err) != 0)
        sim_break(sim, "world: %s", err.text);
}

/* A keyed command sees what was decided under its key, committed or not. */
static bool idem_in_turn(const struct hub_turn *turn, const struct idem_row *like,
                         struct idem_row *ret_row)
{
    for (uint32_t i = turn != NULL ? turn->out.row_count : 0; i > 0; i--) {
        const struct row *row = &turn->out.rows[i - 1];
        if (row->kind == ROW_IDEM && row->idem.token == like->token
            && strcmp(row->idem.key, like->key) == 0) {
            *ret_row = row->idem;
            return true;
        }
    }
    return false;
}

static void attach_idem(struct sim *sim, struct box *box)
{
    struct caller *caller = &box->event.caller;
    const struct token_row *token = world_token(sim->hub.world, caller->token_hash);
    struct idem_row like = {.token = token != NULL ? token->id : 0};
    const struct row *stored;

    if (caller->key[0] == '\0')
        return;
    memcpy(like.key, caller->key, sizeof(like.key));
    stored = store_idem(&sim->store, &like);
    if (idem_in_turn(sim->hub.filling, &like, &box->idem)
        || idem_in_turn(sim->hub.flying, &like, &box->idem)) {
        caller->idem = &box->idem;
    } else if (stored != NULL) {
        box->idem = stored->idem;
        caller->idem = &box->idem;
    }
}

static void decide(struct sim *sim, struct box *box)
{
    struct hub *hub = &sim->hub;

    if (sim->now > hub->now)
        hub->now = sim->now;
    if (box->event.kind == EV_TICK)
        hub->tick_queued = false;
    attach_idem(sim, box);
    sim_note(sim, event_kind_name(box->event.kind), box->event.ack_node, box->event.ack_seq, 0, 0);
    world_step(hub->world, &box->event, hub->now, hub->term, &hub->policy, &hub->filling->out);
    hub->filling->boxes++;
    hub->schedule_wanted = true;
    check(sim);
    free(box);
}

static void schedule(struct sim *sim)
{
    struct hub *hub = &sim->hub;
    struct uuid fresh[FRESH];

    for (uint32_t i = 0; i < FRESH; i++)
        fresh[i] = sim_uuid(sim);
    if (sim->now > hub->now)
        hub->now = sim->now;
    hub->schedule_wanted = world_schedule(hub->world, hub->now, hub->term, &hub->policy, BUDGET,
                                          fresh, FRESH, &hub->filling->out);
    check(sim);
}

static void hub_ticked(struct sim *sim, const struct call *call)
{
    struct hub *hub = &sim->hub;

    if (!hub->up || hub->generation != call->generation || hub->tick_number != call->a
        || hub->tick_queued)
        return;
    hub->tick_queued = true;
    hub_post(sim, box_new(EV_TICK));
}

static void arm_tick(struct sim *sim)
{
    struct hub *hub = &sim->hub;
    usec_t due = world_next_deadline(hub->world, &hub->policy);

    hub->tick_number++;
    if (due == 0 || hub->tick_queued)
        return;
    sim_after(
        sim, due > sim->now ? due - sim->now : 0,
        (struct call){.run = hub_ticked, .generation = hub->generation, .a = hub->tick_number});
}

static void hub_woke(struct sim *sim, const struct call *call)
{
    struct hub *hub = &sim->hub;
    struct box *box;

    if (!hub->up || hub->generation != call->generation)
        return;
    hub->wake_due = false;
    while ((box = take(hub)) != NULL && !sim->broken)
        decide(sim, box);
    if (hub->schedule_wanted && !sim->broken)
        schedule(sim);
    submit(sim);
    if (!hub->up || sim->broken)
        return;
    if (hub->schedule_wanted)
        hub_wake(sim);
    arm_tick(sim);
}

static void hub_wake(struct sim *sim)
{
    struct hub *hub = &sim->hub;

    if (hub->wake_due)
        return;
    hub->wake_due = true;
    sim_after(sim, chance_span(sim, 20, 500),
              (struct call){.run = hub_woke, .generation = hub->generation});
}

/* -- what comes in -------------------------------------------------------------------------------
 */

static void answer_error(struct sim *sim, struct session *session, const struct msg *msg)
{
    struct msg *error;

    if (!session_may_answer(session, sim->now))
        return;
    error = msg_new(MSG_ERROR, msg->node);
    error->peer = msg->peer;
    error->nonce = msg->nonce;
    net_to_worker(sim, &sim->worker[msg->node], error);
}

static void note_life(struct sim *sim, const struct session *session)
{
    if (liveness_seen(sim->hub.liveness, session->node))
        post_node(sim, EV_NODE_BACK, session->node);
}

static void take_hello(struct sim *sim, struct session *session, const struct msg *msg)
{
    const struct worker *worker = &sim->worker[msg->node];
    const struct session_hello hello = {
        .peer = (const uint8_t *)&msg->peer,
        .peer_size = sizeof(msg->peer),
        .nonce = (const uint8_t *)&msg->nonce,
        .nonce_size = sizeof(msg->nonce),
        .protocol_min = 1,
        .protocol_max = 1,
        .node = worker->uid.bytes,
        .node_size = sizeof(worker->uid.bytes),
        .boot = msg->hello.boot,
        .next_seq = msg->hello.next_seq,
    };
    struct box *box;
    struct err err;

    if (session_check_hello(session, &hello, &err) != 0) {
        answer_error(sim, session, msg);
        return;
    }
    session_open(session, &hello);
    box = box_new(EV_NODE_HELLO);
    box->claim = worker_claim(worker);
    box->claim.paused = msg->hello.paused;
    for (uint32_t i = 0; i < SIM_MAX_DEVICES; i++)
        box->claim.device[i].offered = msg->hello.offered[i];
    box->event.hello.node = session->node;
    box->event.hello.boot = msg->hello.boot;
    box->event.hello.claim = &box->claim;
    box->event.hello.task_count = msg->hello.task_count;
    memcpy(box->event.hello.task, msg->hello.task, sizeof(msg->hello.task));
    hub_post(sim, box);
    note_life(sim, session);
}

static struct box *box_of(const struct session *session, const struct msg *msg,
                          enum event_kind kind)
{
    struct box *box = box_new(kind);

    if (msg->seq != 0) {
        box->event.ack_node = session->node;
        box->event.ack_seq = msg->seq;
    }
    return box;
}

static void take_news(struct sim *sim, const struct session *session, const struct msg *msg)
{
    struct box *box = box_of(session, msg, EV_TASK);
    const struct msg_news *news = &msg->news;

    box->event.task = (struct ev_task){
        .node = session->node,
        .attempt = news->id.attempt,
        .term = news->id.term,
        .epoch = news->id.epoch,
        .rank = news->id.rank,
        .news = task_news_parse(rank_news_name(news->news)),
        .exit_code = news->exit_code,
        .reason = news->reason,
        .class = news->class,
        .port = news->port,
        .detail = "",
    };
    sim_note(sim, rank_news_name(news->news), session->node, news->id.attempt, news->id.rank,
             (uint64_t)news->exit_code);
    hub_post(sim, box);
    if (sim->options.plant == PLANT_EARLY_GO && news->news == RANK_NEWS_READY) {
        const struct row *rank = store_get(&sim->store, ROW_ATTEMPT, news->id.attempt);
        struct order go = {.kind = ORDER_GO,
                           .node = session->node,
                           .attempt = news->id.attempt,
                           .term = news->id.term,
                           .epoch = news->id.epoch,
                           .rank = news->id.rank};
        if (rank != NULL)
            send_order(sim, &go);
    }
}

static void take_receipt(struct sim *sim, const struct session *session, const struct msg *msg)
{
    static const uint8_t bytes[] = "receipt";
    struct box *box = box_of(session, msg, EV_RECEIPT);
    struct ev_receipt *receipt = &box->event.receipt;

    receipt->node = session->node;
    receipt->seq = msg->receipt.seq;
    receipt->bytes = bytes;
    receipt->bytes_length = sizeof(bytes);
    for (uint32_t i = 0; i < msg->receipt.count; i++) {
        const struct task_id *id = &msg->receipt.line[i].id;
        receipt->line[receipt->line_count].attempt = id->attempt;
        receipt->line[receipt->line_count].term = id->term;
        receipt->line[receipt->line_count].epoch = id->epoch;
        receipt->line[receipt->line_count].rank = id->rank;
        receipt->line[receipt->line_count++].used_ms = msg->receipt.line[i].used_ms;
    }
    hub_post(sim, box);
}

static void take_notice(struct sim *sim, const struct session *session, const struct msg *msg)
{
    const struct msg_notice *notice = &msg->notice;
    struct box *box = box_of(session, msg, notice->device_use ? EV_DEVICE_USE : EV_NODE_SET);

    if (notice->device_use) {
        box->event.device_use =
            (struct ev_device_use){session->node, notice->device, notice->foreign};
    } else {
        box->event.node_set.id = session->node;
        box->event.node_set.verb = notice->verb;
        box->event.node_set.reason = "owner";
    }
    hub_post(sim, box);
}

static void take_links(struct sim *sim, const struct session *session, const struct msg *msg)
{
    for (uint32_t i = 0; i < msg->links.count; i++) {
        struct ev_link link = msg->links.link[i];
        struct box *box;

        link.from = session->node;
        if (world_node(sim->hub.world, link.to) == NULL
            || !links_news(sim->hub.links, &link, sim->now, sim->hub.policy.link_max_age_us))
            continue;
        box = box_new(EV_LINK);
        box->event.link = link;
        hub_post(sim, box);
    }
}

static void take_body(struct sim *sim, const struct session *session, const struct msg *msg)
{
    struct box *box;

    if (msg->kind == MSG_NEWS) {
        take_news(sim, session, msg);
    } else if (msg->kind == MSG_RECEIPT) {
        take_receipt(sim, session, msg);
    } else if (msg->kind == MSG_NOTICE) {
        take_notice(sim, session, msg);
    } else if (msg->kind == MSG_LINKS) {
        take_links(sim, session, msg);
    } else if (msg->kind == MSG_SELFTEST) {
        box = box_of(session, msg, EV_SELFTEST);
        box->event.selftest = (struct ev_selftest){.node = session->node,
                                                   .device = msg->device,
                                                   .passed = true,
                                                   .measured_mib = 24000,
                                                   .matmul_gflops = 1000,
                                                   .copy_mib_s = 1000};
        hub_post(sim, box);
    }
}

void hub_receive(struct sim *sim, const struct msg *msg)
{
    struct session *session =
        sessions_arrive(sim->hub.sessions, sim->worker[msg->node].key, sim->now);
    enum session_fate fate;
    struct err err;

    if (session == NULL)
        return;
    if (msg->kind == MSG_HELLO) {
        take_hello(sim, session, msg);
        return;
    }
    fate = session_message(session, (const uint8_t *)&msg->peer, sizeof(msg->peer),
                           (const uint8_t *)&msg->nonce, sizeof(msg->nonce), msg->seq, &err);
    if (fate == SESSION_REFUSE) {
        answer_error(sim, session, msg);
        return;
    }
    note_life(sim, session);
    if (fate == SESSION_ACKED)
        send_plain(sim, session->node, MSG_ACK);
    else
        take_body(sim, session, msg);
}

/* -- life ----------------------------------------------------------------------------------------
 */

static void on_silent(uint64_t node, void *arg)
{
    post_node(arg, EV_NODE_SILENT, node);
}

static void hub_second(struct sim *sim, const struct call *call)
{
    struct hub *hub = &sim->hub;

    if (!hub->up || hub->generation != call->generation)
        return;
    liveness_tick(hub->liveness, sim->now, on_silent, sim);
    sim_after(sim, TICK_US, *call);
}

static void allow_node(const struct node_row *node, void *arg)
{
    if (node->state != NODE_GONE)
        allow(arg, node);
}

static void hub_start(struct sim *sim)
{
    struct hub *hub = &sim->hub;
    const struct row *control = store_get(&sim->store, ROW_CONTROL, 0);
    const struct liveness_options liveness = {
        .silent_after_us = 3 * HEARTBEAT_US, .boot_grace_us = GRACE_US, .stall_us = STALL_US};

    hub->up = true;
    hub->up_us = sim->now;
    hub->term++;
    hub->world = store_load(sim);
    hub->sessions = sessions_new();
    hub->liveness = liveness_new(&liveness);
    hub->links = links_new();
    hub->schedule_wanted = true;
    hub->wake_due = false;
    hub->tick_queued = false;
    if (control != NULL && control->control.now_us > hub->now)
        hub->now = control->control.now_us;
    world_each_node(hub->world, allow_node, sim);
    sim_note(sim, "hub-start", hub->term, sim->store.count, 0, 0);
    hub_post(sim, box_new(EV_BOOT));
    sim_after(sim, TICK_US, (struct call){.run = hub_second, .generation = hub->generation});
}

static void hub_restart(struct sim *sim, const struct call *call)
{
    (void)call;
    hub_start(sim);
}

static void drop_all(struct hub *hub)
{
    struct box *box;

    while ((box = take(hub)) != NULL)
        free(box);
    for (uint32_t i = 0; i < 2; i++) {
        world_out_clear(&hub->turn[i].out);
        hub->turn[i].boxes = 0;
    }
    hub->filling = &hub->turn[0];
    hub->flying = NULL;
    world_free(hub->world);
    sessions_free(hub->sessions);
    liveness_free(hub->liveness);
    links_free(hub->links);
    hub->world = NULL;
    hub->sessions = NULL;
    hub->liveness = NULL;
    hub->links = NULL;
}

void hub_crash(struct sim *sim)
{
    struct hub *hub = &sim->hub;
    usec_t down;

    sim->counters.hub_crashes++;
    sim_note(sim, "hub-crash", hub->term, 0, 0, 0);
    hub->up = false;
    hub->generation++;
    drop_all(hub);
    for (uint32_t i = 0; i < sim->worker_count; i++)
        net_break(sim, &sim->worker[i]);
    down = chance(sim, 4) == 0 ? chance_span(sim, SIM_SECOND, 3 * SIM_MINUTE)
                               : chance_span(sim, 50 * SIM_MS, 5 * SIM_SECOND);
    sim_after(sim, down, (struct call){.run = hub_restart});
}

struct reply hub_command(struct sim *sim, struct box *box)
{
    struct hub *hub = &sim->hub;
    struct world_out out;
    struct reply reply = {.err = {.code = ERR_MAX}};

    world_out_init(&out);
    box->event.caller.request = 1;
    make_fresh(sim, box);
    hub->now = sim->now;
    world_step(hub->world, &box->event, hub->now, hub->term, &hub->policy, &out);
    store_commit(sim, out.rows, out.row_count);
    for (uint32_t i = 0; i < out.effect_count; i++) {
        if (out.effects[i].kind == FX_REPLY)
            reply = out.effects[i].reply;
        else if (hub->sessions != NULL)
            perform(sim, &out.effects[i]);
    }
    BUG_ON(reply.err.code != ERR_NONE);
    world_out_fini(&out);
    free(box);
    return reply;
}

void hub_init(struct sim *sim)
{
    struct hub *hub = &sim->hub;

    world_out_init(&hub->turn[0].out);
    world_out_init(&hub->turn[1].out);
    hub->filling = &hub->turn[0];
    policy_default(&hub->policy);
    hub->policy.lost_after_us = chance_span(sim, 30 * SIM_SECOND, 120 * SIM_SECOND);
    hub->policy.output_timeout_us = chance_span(sim, 5 * SIM_MINUTE, 15 * SIM_MINUTE);
    hub->policy.mass_silence_hold_us = chance_span(sim, SIM_MINUTE, 5 * SIM_MINUTE);
    hub_start(sim);
}

void hub_fini(struct sim *sim)
{
    drop_all(&sim->hub);
    world_out_fini(&sim->hub.turn[0].out);
    world_out_fini(&sim->hub.turn[1].out);
}
