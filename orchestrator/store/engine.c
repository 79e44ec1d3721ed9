/*
 * The turn: post → decide → commit → act.
 *
 * Two turns exist: one accumulates, one is in flight. The world is ahead of the database by both,
 * which nobody outside may see; so the effects of a turn wait for its commit, and those of a turn
 * without rows for the commit of the turn before it.
 *
 * Recovery drops the world and both turns. Their boxes go back to the head of the queue, and while
 * `alone` counts them each is decided in a transaction of its own.
 */
#include "orchestrator/store/engine.h"

#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/pure/mem.h"

/* Boxes decided before the loop gets its turn again: about 10 ms of decisions. */
#define TURN_EVENTS 256u
/* Boxes of one accumulating batch; the rest stays in the queue while a commit is slow. */
#define BATCH_EVENTS 4096u
/* Placement attempts of one queue pass, and the uuids it may need: one for each attempt. */
#define SCHEDULE_BUDGET 8u
#define SCHEDULE_FRESH  SCHEDULE_BUDGET
/* After the database refused us for reasons of its own, or a clock event was quarantined. */
#define PAUSE_FIRST_MS 100u
#define PAUSE_MAX_MS   10000u
#define PENALTY_US     ((usec_t)5000000)

struct box_list {
    struct event_box *head;
    struct event_box *tail;
    uint32_t count;
};

struct turn {
    struct world_out out;
    struct box_list boxes;
    struct journal_entry *journal;
    uint32_t journal_count;
    uint32_t journal_capacity;
    bool alone; /* one event or one queue pass, decided on a world just reloaded */
};

struct engine {
    struct event_base *base;
    struct store *store;
    struct engine_hooks hooks;
    struct world *world;
    struct policy policy;
    bool policy_given; /* engine_set_policy() was called: a reload keeps it */
    usec_t now;

    struct box_list queue;
    struct turn turn[2];
    struct turn *filling;
    struct turn *flying; /* NULL = none in flight */

    struct event *wake; /* activated by engine_post */
    struct event *tick;
    struct event *pause; /* reload after a failure */
    uint32_t pause_ms;
    uint32_t alone; /* boxes at the head to be decided one per transaction */
    bool schedule_wanted;
    usec_t schedule_from; /* not before: the last pass alone was refused */
    usec_t tick_from;
    bool tick_queued;
    bool careful; /* the next queue pass gets a transaction of its own */
    bool paused;  /* the world is stale until the reload */
    bool deposed;
    bool paranoid;
    struct engine_counters counters;
};

static void submit(struct engine *engine);

/* -- boxes --------------------------------------------------------------------------------------
 */

struct event_box *event_box_new(enum event_kind kind)
{
    struct event_box *box = mem_new(1, sizeof(*box));

    box->event.kind = kind;
    return box;
}

void event_box_free(struct event_box *box)
{
    if (box == NULL)
        return;
    if (box->release != NULL)
        box->release(box->memory);
    free(box);
}

static void list_append(struct box_list *list, struct event_box *box)
{
    box->next = NULL;
    if (list->tail != NULL)
        list->tail->next = box;
    else
        list->head = box;
    list->tail = box;
    list->count++;
}

static struct event_box *list_take(struct box_list *list)
{
    struct event_box *box = list->head;

    if (box == NULL)
        return NULL;
    list->head = box->next;
    if (list->head == NULL)
        list->tail = NULL;
    list->count--;
    box->next = NULL;
    return box;
}

/* Moves all of `from` before what is in `to`. */
static void list_prepend(struct box_list *to, struct box_list *from)
{
    if (from->head == NULL)
        return;
    from->tail->next = to->head;
    if (to->tail == NULL)
        to->tail = from->tail;
    to->head = from->head;
    to->count += from->count;
    *from = (struct box_list){0};
}

static void list_free(struct box_list *list)
{
    struct event_box *box;

    while ((box = list_take(list)) != NULL)
        event_box_free(box);
}

/* -- turns --------------------------------------------------------------------------------------
 */

static void turn_clear(struct turn *turn)
{
    world_out_clear(&turn->out);
    list_free(&turn->boxes);
    turn->journal_count = 0;
    turn->alone = false;
}

static void turn_fini(struct turn *turn)
{
    turn_clear(turn);
    world_out_fini(&turn->out);
    free(turn->journal);
}

static bool turn_is_empty(const struct turn *turn)
{
    return turn->boxes.count == 0 && turn->out.row_count == 0 && turn->out.effect_count == 0;
}

static void turn_journal(struct engine *engine, struct turn *turn, enum event_kind kind,
                         const struct event_box *box)
{
    if (turn->journal_count == turn->journal_capacity) {
        turn->journal_capacity = turn->journal_capacity != 0 ? 2 * turn->journal_capacity : 64;
        turn->journal = mem_resize(turn->journal, turn->journal_capacity, sizeof(*turn->journal));
    }
    turn->journal[turn->journal_count++] = (struct journal_entry){
        .now_us = engine->now,
        .kind = kind,
        .policy_version = engine->policy.version,
        .bytes = box != NULL ? box->bytes : NULL,
        .bytes_length = box != NULL ? box->bytes_length : 0,
    };
}

/* -- answers that need no decision --------------------------------------------------------------
 */

static void refuse(struct engine *engine, const struct event_box *box, enum err_code code,
                   const char *text)
{
    struct effect effect = {.kind = FX_REPLY};

    if (box->event.caller.request == 0)
        return;
    effect.reply.request = box->event.caller.request;
    (void)err_set(&effect.reply.err, code, "%s", text);
    engine->hooks.on_effect(&effect, 0, engine->hooks.arg);
}

/* Whoever waits is refused; what nobody waits for stays in the list, unless all = true. */
static void refuse_list(struct engine *engine, struct box_list *list, bool all, enum err_code code,
                        const char *text)
{
    struct box_list kept = {0};
    struct event_box *box;

    while ((box = list_take(list)) != NULL) {
        refuse(engine, box, code, text);
        if (!all && box->event.caller.request == 0)
            list_append(&kept, box);
        else
            event_box_free(box);
    }
    *list = kept;
}

/* -- deciding -----------------------------------------------------------------------------------
 */

static void check_world(struct engine *engine)
{
    struct err err;

    if (!engine->paranoid || world_check(engine->world, &err) == 0)
        return;
    log_error("engine", "invariant", "rule=" LOG_Q, err.text);
    BUG_ON(true);
}

static void advance_clock(struct engine *engine)
{
    usec_t wall = clock_wall_us();

    if (wall > engine->now)
        engine->now = wall;
}

/* A key may be answered by a row that is not committed yet. The newest one counts. */
static bool idem_in_turn(const struct turn *turn, const struct idem_row *like,
                         struct idem_row *ret_row)
{
    if (turn == NULL)
        return false;
    for (uint32_t i = turn->out.row_count; i > 0; i--) {
        const struct row *row = &turn->out.rows[i - 1];
        if (row->kind == ROW_IDEM && row->idem.token == like->token
            && strcmp(row->idem.key, like->key) == 0) {
            *ret_row = row->idem;
            return true;
        }
    }
    return false;
}

/* Attaches the cold row of a keyed command. */
static int attach_idem(struct engine *engine, struct event_box *box, struct err *err)
{
    struct caller *caller = &box->event.caller;
    struct idem_row like = {0};
    bool found = false;

    caller->idem = NULL;
    if (caller->key[0] == '\0')
        return 0;
    const struct token_row *token = world_token(engine->world, caller->token_hash);
    if (token == NULL && !caller->system)
        return 0;
    like.token = token != NULL ? token->id : 0;
    memcpy(like.key, caller->key, sizeof(like.key));
    found = idem_in_turn(engine->filling, &like, &box->idem)
            || idem_in_turn(engine->flying, &like, &box->idem);
    if (!found) {
        int failed = store_idem(engine->store, like.token, like.key, &box->idem, &found, err);
        if (failed != 0)
            return failed;
    }
    if (found)
        caller->idem = &box->idem;
    return 0;
}

static void decide(struct engine *engine, struct event_box *box)
{
    struct turn *turn = engine->filling;
    uint32_t rows = turn->out.row_count;
    struct err err;

    advance_clock(engine);
    if (box->event.kind == EV_TICK)
        engine->tick_queued = false;
    if (attach_idem(engine, box, &err) != 0) {
        refuse(engine, box, ERR_DATABASE, err.text);
        event_box_free(box);
        return;
    }
    engine->counters.events++;
    world_step(engine->world, &box->event, engine->now, store_term(engine->store), &engine->policy,
               &turn->out);
    check_world(engine);
    if (turn->out.row_count != rows)
        turn_journal(engine, turn, box->event.kind, box);
    list_append(&turn->boxes, box);
    engine->schedule_wanted = true;
}

/* One draw for all of them: a pass must not cost milliseconds of randomness. */
static void make_fresh(struct uuid fresh[SCHEDULE_FRESH])
{
    uint8_t chance[SCHEDULE_FRESH][10];
    uint64_t ms = (uint64_t)clock_wall_us() / 1000;

    random_bytes(chance, sizeof(chance));
    for (uint32_t i = 0; i < SCHEDULE_FRESH; i++)
        fresh[i] = uuid_make(ms, chance[i]);
}

static void schedule(struct engine *engine)
{
    struct turn *turn = engine->filling;
    uint32_t rows = turn->out.row_count;
    struct uuid fresh[SCHEDULE_FRESH];

    advance_clock(engine);
    if (engine->now < engine->schedule_from)
        return;
    make_fresh(fresh);
    engine->schedule_wanted =
        world_schedule(engine->world, engine->now, store_term(engine->store), &engine->policy,
                       SCHEDULE_BUDGET, fresh, SCHEDULE_FRESH, &turn->out);
    check_world(engine);
    if (turn->out.row_count == rows)
        return;
    turn_journal(engine, turn, EV_KIND_COUNT, NULL);
}

static void arm_tick(struct engine *engine)
{
    usec_t due = world_next_deadline(engine->world, &engine->policy);

    (void)event_del(engine->tick);
    if (engine->schedule_wanted && engine->schedule_from > engine->now
        && (due == 0 || due > engine->schedule_from))
        due = engine->schedule_from;
    if (due == 0 || engine->tick_queued)
        return;
    if (due < engine->tick_from)
        due = engine->tick_from;
    usec_t wait = due > engine->now ? due - engine->now : 0;
    struct timeval after = {.tv_sec = wait / 1000000, .tv_usec = wait % 1000000};
    BUG_ON(event_add(engine->tick, &after) != 0);
}

/* In the next turn of the loop: an event that activates itself would starve the sockets. */
static void wake(struct engine *engine)
{
    static const struct timeval at_once = {0, 0};

    if (event_pending(engine->wake, EV_TIMEOUT, NULL) == 0)
        BUG_ON(event_add(engine->wake, &at_once) != 0);
}

/* One at a time, each alone with its transaction, until the replay is through. */
static void decide_alone(struct engine *engine)
{
    while (engine->alone > 0 && engine->flying == NULL && engine->queue.head != NULL) {
        engine->alone--;
        engine->filling->alone = true;
        decide(engine, list_take(&engine->queue));
        submit(engine);
    }
}

/* After a divergence: were it the queue pass that the database refuses, no event is blamed. */
static void schedule_alone(struct engine *engine)
{
    if (engine->flying != NULL || !turn_is_empty(engine->filling))
        return;
    engine->careful = false;
    if (!engine->schedule_wanted)
        return;
    engine->filling->alone = true;
    schedule(engine);
    submit(engine);
}

static void decide_turn(struct engine *engine)
{
    for (uint32_t i = 0; i < TURN_EVENTS && engine->queue.head != NULL
                         && engine->filling->boxes.count < BATCH_EVENTS;
         i++)
        decide(engine, list_take(&engine->queue));
    if (engine->queue.head == NULL && engine->schedule_wanted && !engine->careful
        && engine->filling->boxes.count < BATCH_EVENTS)
        schedule(engine);
    if (engine->flying == NULL)
        submit(engine);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct engine *engine = arg;

    (void)fd;
    (void)what;
    if (engine->deposed || engine->paused)
        return;
    if (engine->alone > 0) {
        decide_alone(engine);
        if (engine->alone > 0)
            return;
    }
    if (engine->careful)
        schedule_alone(engine);
    decide_turn(engine);
    bool room = engine->filling->boxes.count < BATCH_EVENTS;
    bool pass = engine->schedule_wanted && !engine->careful && engine->now >= engine->schedule_from;
    if (room && (engine->queue.head != NULL || pass))
        wake(engine);
    arm_tick(engine);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct engine *engine = arg;

    (void)fd;
    (void)what;
    if (engine->tick_queued || engine->deposed)
        return;
    engine->tick_queued = true;
    (void)engine_post(engine, event_box_new(EV_TICK)); /* never refused but when deposed */
}

/* -- acting -------------------------------------------------------------------------------------
 */

static void act(struct engine *engine, struct turn *turn, uint64_t seq)
{
    for (uint32_t i = 0; i < turn->out.effect_count; i++)
        engine->hooks.on_effect(&turn->out.effects[i], seq, engine->hooks.arg);
    if (turn->out.row_count > 0 && engine->hooks.on_commit != NULL)
        engine->hooks.on_commit(turn->out.rows, turn->out.row_count, seq, engine->hooks.arg);
    turn_clear(turn);
}

static void count_commit(struct engine *engine, const struct turn *turn)
{
    usec_t took = store_last_commit_us(engine->store);

    engine->counters.commits++;
    engine->counters.rows += turn->out.row_count;
    engine->counters.commit_us_sum += took;
    if (took > engine->counters.commit_us_max)
        engine->counters.commit_us_max = took;
}

/* -- recovery -----------------------------------------------------------------------------------
 */

static void start_pause(struct engine *engine)
{
    struct timeval after = {.tv_sec = engine->pause_ms / 1000,
                            .tv_usec = (suseconds_t)(engine->pause_ms % 1000) * 1000};

    engine->paused = true;
    engine->pause_ms = 2 * engine->pause_ms < PAUSE_MAX_MS ? 2 * engine->pause_ms : PAUSE_MAX_MS;
    BUG_ON(event_add(engine->pause, &after) != 0);
}

/* The world anew from the tables, and EV_BOOT before everything else. */
static int reload(struct engine *engine, struct err *err)
{
    struct world *world = world_new();
    struct policy policy;
    usec_t now = 0;

    int failed = store_load(engine->store, world, &policy, &now, err);
    if (failed != 0) {
        world_free(world);
        return failed;
    }
    world_free(engine->world);
    engine->world = world;
    if (!engine->policy_given)
        engine->policy = policy;
    if (now > engine->now)
        engine->now = now;
    engine->tick_queued = false;
    engine->schedule_wanted = true;
    struct box_list boot = {0};
    struct event_box *box = event_box_new(EV_BOOT);
    for (size_t i = 0; i < sizeof(box->event.fresh) / sizeof(box->event.fresh[0]); i++)
        box->event.fresh[i] = uuid_new();
    list_append(&boot, box);
    list_prepend(&engine->queue, &boot);
    return 0;
}

/* It comes anew with the reload. */
static void drop_boot(struct box_list *list)
{
    struct box_list kept = {0};
    struct event_box *box;

    while ((box = list_take(list)) != NULL) {
        if (box->event.kind == EV_BOOT)
            event_box_free(box);
        else
            list_append(&kept, box);
    }
    *list = kept;
}

/* Both turns back to the head of the queue, in the order of their decisions. */
static void take_back(struct engine *engine)
{
    struct box_list back = {0};
    struct turn *flying = engine->flying;

    engine->flying = NULL;
    list_prepend(&back, &engine->filling->boxes);
    turn_clear(engine->filling);
    if (flying != NULL) {
        list_prepend(&back, &flying->boxes);
        turn_clear(flying);
    }
    drop_boot(&back);
    engine->alone += back.count;
    list_prepend(&engine->queue, &back);
}

static void reload_or_pause(struct engine *engine)
{
    struct err err;

    engine->counters.reloads++;
    if (reload(engine, &err) != 0) {
        log_error("engine", "reload-failed", "error=" LOG_Q, err.text);
        start_pause(engine);
        return;
    }
    engine->alone++; /* EV_BOOT, too */
    engine->paused = false;
    if (engine->hooks.on_reload != NULL)
        engine->hooks.on_reload(engine->world, engine->hooks.arg);
    wake(engine);
}

static void on_pause(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    reload_or_pause(arg);
}

/* Sets aside what the database refuses. False: it will come again at once, so wait a while. */
static bool quarantine(struct engine *engine, const struct err *cause)
{
    struct event_box *box = list_take(&engine->flying->boxes);

    engine->counters.quarantined++;
    advance_clock(engine);
    if (box == NULL) {
        log_error("engine", "quarantine", "event=schedule error=" LOG_Q, cause->text);
        engine->schedule_from = engine->now + PENALTY_US;
        return true;
    }
    enum event_kind kind = box->event.kind;
    log_error("engine", "quarantine", "event=%s error=" LOG_Q, event_kind_name(kind), cause->text);
    if (kind == EV_TICK)
        engine->tick_from = engine->now + PENALTY_US;
    refuse(engine, box, ERR_INTERNAL, "this request was set aside: the database refused its rows");
    event_box_free(box);
    return kind != EV_BOOT;
}

static void diverged(struct engine *engine, const struct err *cause)
{
    bool at_once = true;

    log_error("engine", "diverged", "events=%u error=" LOG_Q, engine->flying->boxes.count,
              cause->text);
    if (engine->flying->alone)
        at_once = quarantine(engine, cause);
    take_back(engine);
    engine->careful = true;
    if (at_once)
        reload_or_pause(engine);
    else
        start_pause(engine);
}

static void failed(struct engine *engine, const struct err *cause)
{
    log_error("engine", "commit-failed", "events=%u error=" LOG_Q, engine->flying->boxes.count,
              cause->text);
    take_back(engine);
    engine->alone = 0;
    refuse_list(engine, &engine->queue, false, ERR_DATABASE, "the database refuses to commit");
    start_pause(engine);
}

static void deposed(struct engine *engine, const struct err *cause)
{
    log_error("engine", "deposed", "error=" LOG_Q, cause->text);
    engine->deposed = true;
    take_back(engine);
    engine->alone = 0;
    (void)event_del(engine->tick);
    refuse_list(engine, &engine->queue, true, ERR_DEPOSED, "another orchestrator leads");
    if (engine->hooks.on_deposed != NULL)
        engine->hooks.on_deposed(engine->hooks.arg);
}

/* -- committing ---------------------------------------------------------------------------------
 */

static void on_commit(enum commit_outcome outcome, uint64_t seq, const struct err *err, void *arg);

static void send_flying(struct engine *engine)
{
    const struct turn *turn = engine->flying;
    const struct batch batch = {
        .rows = turn->out.rows,
        .row_count = turn->out.row_count,
        .journal = turn->journal,
        .journal_count = turn->journal_count,
    };

    store_commit(engine->store, &batch, on_commit, engine);
}

/* The filling turn flies; one without rows has nothing to wait for. */
static void submit(struct engine *engine)
{
    struct turn *turn = engine->filling;

    BUG_ON(engine->flying != NULL);
    if (turn_is_empty(turn)) {
        turn->alone = false;
        return;
    }
    engine->filling = turn == &engine->turn[0] ? &engine->turn[1] : &engine->turn[0];
    if (turn->out.row_count == 0) {
        act(engine, turn, store_change_seq(engine->store));
        return;
    }
    engine->flying = turn;
    send_flying(engine);
}

static void committed(struct engine *engine, uint64_t seq)
{
    struct turn *turn = engine->flying;

    engine->flying = NULL;
    engine->pause_ms = PAUSE_FIRST_MS;
    count_commit(engine, turn);
    act(engine, turn, seq);
    if (engine->alone == 0)
        submit(engine);
    wake(engine);
}

static void on_commit(enum commit_outcome outcome, uint64_t seq, const struct err *err, void *arg)
{
    struct engine *engine = arg;

    switch (outcome) {
    case COMMIT_DONE:
        committed(engine, seq);
        break;
    case COMMIT_LOST: /* known not to be in: the same rows again */
        send_flying(engine);
        break;
    case COMMIT_DIVERGED:
        diverged(engine, err);
        break;
    case COMMIT_FAILED:
        failed(engine, err);
        break;
    case COMMIT_DEPOSED:
        deposed(engine, err);
        break;
    }
}

/* -- doors --------------------------------------------------------------------------------------
 */

int engine_new(struct event_base *base, struct store *store, const struct engine_hooks *hooks,
               struct engine **ret_engine, struct err *err)
{
    struct engine *engine = mem_new(1, sizeof(*engine));

    engine->base = base;
    engine->store = store;
    engine->hooks = *hooks;
    engine->filling = &engine->turn[0];
    engine->pause_ms = PAUSE_FIRST_MS;
    world_out_init(&engine->turn[0].out);
    world_out_init(&engine->turn[1].out);
    engine->wake = event_new(base, -1, 0, on_wake, engine);
    engine->tick = event_new(base, -1, 0, on_tick, engine);
    engine->pause = event_new(base, -1, 0, on_pause, engine);
    BUG_ON(engine->wake == NULL || engine->tick == NULL || engine->pause == NULL);
    int failure = reload(engine, err);
    if (failure != 0) {
        engine_free(engine);
        return failure;
    }
    wake(engine);
    *ret_engine = engine;
    return 0;
}

void engine_free(struct engine *engine)
{
    if (engine == NULL)
        return;
    event_free(engine->wake);
    event_free(engine->tick);
    event_free(engine->pause);
    turn_fini(&engine->turn[0]);
    turn_fini(&engine->turn[1]);
    list_free(&engine->queue);
    world_free(engine->world);
    free(engine);
}

/* Who sent it waits for an answer or sends it again; the rest is few and stays. */
static bool may_refuse(const struct event_box *box)
{
    return box->event.caller.request != 0 || box->event.ack_node != 0
           || box->event.kind == EV_NODE_HELLO;
}

bool engine_post(struct engine *engine, struct event_box *box)
{
    if (engine->deposed) {
        refuse(engine, box, ERR_DEPOSED, "another orchestrator leads");
        event_box_free(box);
        return false;
    }
    if (engine->queue.count >= ENGINE_QUEUE_MAX && may_refuse(box)) {
        refuse(engine, box, ERR_UNAVAILABLE, "too many requests wait for the database");
        event_box_free(box);
        return false;
    }
    for (size_t i = 0; i < sizeof(box->event.fresh) / sizeof(box->event.fresh[0]); i++)
        box->event.fresh[i] = uuid_new();
    list_append(&engine->queue, box);
    wake(engine);
    return true;
}

const struct world *engine_world(const struct engine *engine)
{
    return engine->world;
}

const struct policy *engine_policy(const struct engine *engine)
{
    return &engine->policy;
}

void engine_set_policy(struct engine *engine, const struct policy *policy)
{
    engine->policy = *policy;
    engine->policy_given = true;
}

void engine_set_paranoid(struct engine *engine, bool paranoid)
{
    engine->paranoid = paranoid;
}

struct engine_counters engine_counters(const struct engine *engine)
{
    return engine->counters;
}
