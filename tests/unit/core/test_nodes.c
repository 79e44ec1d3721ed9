/* Joining, proving, silence, loss, drain and the owner's own use. */
#include "tests/unit/core/support_cmocka.h"

#include <string.h>

#include "tests/support/world/bench.h"

static struct bench bench;

static int setup(void **state)
{
    (void)state;
    bench_init(&bench);
    return 0;
}

static int teardown(void **state)
{
    struct err err = {0};

    (void)state;
    if (shadow_check_money(&bench.shadow, &err) < 0)
        fail_msg("%s", err.text);
    bench_fini(&bench);
    return 0;
}

static const struct node_row *row_of(uint32_t index)
{
    return world_node(bench.world, bench.node[index]);
}

static uint32_t count_effects(enum effect_kind kind)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < bench.out.effect_count; i++)
        count += bench.out.effects[i].kind == kind;
    return count;
}

static struct uuid running(uint32_t nodes)
{
    for (uint32_t i = 0; i < nodes; i++)
        bench_node(&bench, 1, 24576);
    bench_mesh(&bench, 0, 500);
    struct uuid job = bench_submit(&bench, nodes, 1).object;
    bench_run(&bench, &job);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RUNNING);
    return job;
}

static void set(uint32_t index, enum node_verb verb)
{
    struct event event = {.kind = EV_NODE_SET, .node_set = {.verb = verb}};

    event.node_set.id = bench.node[index];
    bench_step(&bench, &event);
}

static void test_join_probe_ready(void **state)
{
    (void)state;
    struct node_claim claim = bench_claim(0, 2, 8192);
    bench_enrol(&bench, &claim);
    assert_int_equal(row_of(0)->state, NODE_JOINING);
    assert_int_equal(count_effects(FX_NODE_KEYS), 1);
    bench_hello(&bench, 0, &claim);
    assert_int_equal(row_of(0)->state, NODE_PROBING);
    assert_int_equal(bench_orders(&bench, ORDER_SELFTEST, 0), 2);
    assert_int_equal(count_effects(FX_WELCOME), 1);
    bench_selftest(&bench, 0, 0, true, 8000);
    assert_int_equal(row_of(0)->state, NODE_PROBING);
    bench_selftest(&bench, 0, 1, true, 8000);
    assert_int_equal(row_of(0)->state, NODE_READY);
    assert_int_equal(world_device(bench.world, bench.node[0], 1)->tier, TIER_MEASURED);
    assert_int_equal(world_device(bench.world, bench.node[0], 1)->measured_mib, 8000);
    bench_hello(&bench, 0, &claim); /* again: it stays proven */
    assert_int_equal(bench_orders(&bench, ORDER_SELFTEST, 0), 0);
    assert_int_equal(row_of(0)->state, NODE_READY);
    claim.device[1].memory_mib = 16384; /* another card, or a larger claim: proven anew */
    bench_hello(&bench, 0, &claim);
    assert_int_equal(bench_orders(&bench, ORDER_SELFTEST, 0), 1);
    assert_int_equal(world_device(bench.world, bench.node[0], 1)->tier, TIER_CLAIMED);
}

static void test_failed_selftest_is_never_placed(void **state)
{
    (void)state;
    struct node_claim claim = bench_claim(0, 1, 49152);
    bench_enrol(&bench, &claim);
    bench_hello(&bench, 0, &claim);
    assert_int_equal(bench_orders(&bench, ORDER_SELFTEST, 0), 1);
    bench_selftest(&bench, 0, 0, false, 24576);
    assert_int_equal(row_of(0)->state, NODE_PROBING);
    assert_int_equal(row_of(0)->reason, ERR_SELFTEST_FAILED);
    assert_int_equal(count_effects(FX_NODE_STATUS), 1); /* who joins waits for it */
    assert_int_equal(world_device(bench.world, bench.node[0], 0)->tier, TIER_CLAIMED);
    assert_int_equal(world_device(bench.world, bench.node[0], 0)->measured_mib, 0);
    struct uuid job = bench_submit(&bench, 1, 1).object;
    bench_schedule(&bench);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_QUEUED);
    struct world_counts counts;
    world_count(bench.world, &counts);
    assert_int_equal(counts.measured_mib, 0);
    bench_wait(&bench, 3600 * BENCH_SECOND); /* not again by itself */
    assert_int_equal(bench_orders(&bench, ORDER_SELFTEST, 0), 0);
    assert_int_equal(row_of(0)->reason, ERR_SELFTEST_FAILED);
    bench_hello(&bench, 0, &claim);
    assert_int_equal(bench_orders(&bench, ORDER_SELFTEST, 0), 1);
}

static void test_a_device_that_fails_beside_a_good_one(void **state)
{
    (void)state;
    struct node_claim claim = bench_claim(0, 2, 8192);
    bench_enrol(&bench, &claim);
    bench_hello(&bench, 0, &claim);
    bench_selftest(&bench, 0, 0, false, 0);
    assert_int_equal(row_of(0)->reason, ERR_SESSION_STARTED); /* the other is still at it */
    bench_selftest(&bench, 0, 1, true, 8000);
    assert_int_equal(row_of(0)->state, NODE_READY);
    assert_int_equal(world_device(bench.world, bench.node[0], 0)->tier, TIER_CLAIMED);
}

static struct reply enrol_as(uint8_t machine, uint8_t key, const uint8_t join[32])
{
    static struct node_claim claim;
    struct event event = {.kind = EV_NODE_ENROL};

    claim = bench_claim(0, 1, 8192);
    event.caller.request = 1;
    event.enrol.uid = bench_uuid(&bench);
    event.enrol.claim = &claim;
    memcpy(event.enrol.join_hash, join, 32);
    memset(event.enrol.machine, machine, 32);
    memset(event.enrol.curve_key, key, 32);
    bench_step(&bench, &event);
    return bench_reply(&bench);
}

static void test_enrolment(void **state)
{
    (void)state;
    uint8_t join[32];
    struct event event = {.kind = EV_JOIN_TOKEN_CREATE};
    event.token.provider = "home";
    event.token.uses = 1;
    event.token.uid = bench_uuid(&bench);
    memset(event.token.hash, 0x99, 32);
    memset(join, 0x99, 32);
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_NONE);

    struct reply first = enrol_as(1, 1, join);
    assert_int_equal(first.err.code, ERR_NONE);
    struct reply again = enrol_as(1, 1, join); /* a retry with the spent token */
    assert_int_equal(again.err.code, ERR_NONE);
    assert_memory_equal(&again.object, &first.object, sizeof(first.object));
    assert_int_equal(enrol_as(2, 2, join).err.code, ERR_JOIN_TOKEN_SPENT);
    assert_int_equal(enrol_as(1, 2, bench.join).err.code, ERR_UUID_CONFLICT);
    assert_int_equal(enrol_as(2, 1, bench.join).err.code, ERR_UUID_CONFLICT);
    assert_int_equal(enrol_as(3, 3, bench.join).err.code, ERR_NONE);
    uint8_t key[32];
    memset(key, 3, 32);
    assert_string_equal(world_node_by_curve(bench.world, key)->name, "node-0-2");
    memset(join, 0x98, 32);
    assert_int_equal(enrol_as(4, 4, join).err.code, ERR_TOKEN_INVALID);
    bench.now += 2 * 86400 * BENCH_SECOND;
    assert_int_equal(enrol_as(4, 4, bench.join).err.code, ERR_JOIN_TOKEN_SPENT);
}

static void test_unknown_degrades_lost_recovers(void **state)
{
    (void)state;
    struct uuid job = running(2);
    bench_node_event(&bench, EV_NODE_SILENT, 1);
    assert_int_equal(row_of(1)->conditions, NODE_UNKNOWN);
    const struct job *live = bench_job(&bench, &job);
    assert_int_equal(live->row.state, JOB_RUNNING);
    assert_int_equal(live->row.conditions, JOB_DEGRADED);
    bench_node_event(&bench, EV_NODE_BACK, 1);
    assert_int_equal(live->row.conditions, 0);
    bench_wait(&bench, 300 * BENCH_SECOND);
    assert_int_equal(live->row.state, JOB_RUNNING);
    bench_node_event(&bench, EV_NODE_SILENT, 1);
    bench_wait(&bench, 119 * BENCH_SECOND);
    assert_int_equal(live->row.state, JOB_RUNNING);
    bench_wait(&bench, 2 * BENCH_SECOND);
    assert_int_equal(row_of(1)->conditions, NODE_UNKNOWN | NODE_LOST);
    assert_int_equal(live->row.state, JOB_RECOVERING);
    assert_int_equal(live->row.reason, ERR_NODE_LOST);
    assert_int_equal(live->row.class, FAIL_UNREACHABLE);
    bench_all(&bench, &job, TASK_DONE, 143);
    assert_int_equal(live->row.state, JOB_QUEUED);
    bench_wait(&bench, 20 * BENCH_SECOND);
    bench_schedule(&bench);
    assert_int_equal(live->row.state, JOB_QUEUED); /* the lost node takes nothing */
    bench_node_event(&bench, EV_NODE_BACK, 1);
    assert_int_equal(bench_orders(&bench, ORDER_FORGET, bench.node[1]), 1); /* its old task */
    bench_schedule(&bench);
    assert_int_equal(live->row.state, JOB_PREPARING);
    assert_int_equal(live->row.epoch, 2);
}

/* A machine that vanishes without a word is not waited for as one that makes no progress. */
static void test_silence_before_the_start_ends_the_gang(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++)
        bench_node(&bench, 1, 24576);
    bench_mesh(&bench, 0, 500);
    struct uuid job = bench_submit(&bench, 2, 1).object;
    bench_schedule(&bench);
    const struct job *live = bench_job(&bench, &job);
    assert_int_equal(live->row.state, JOB_PREPARING);
    bench_task(&bench, live->attempt->rank[0], TASK_READY, 0);
    bench_node_event(&bench, EV_NODE_SILENT, 1);
    assert_int_equal(live->row.state, JOB_RECOVERING);
    assert_int_equal(live->row.reason, ERR_NODE_LOST);
    assert_int_equal(live->row.class, FAIL_UNREACHABLE);
    assert_int_equal(live->attempt->rank[1]->row.state, RANK_LOST);
    bench_task(&bench, live->attempt->rank[0], TASK_DONE, 143);
    assert_int_equal(live->row.state, JOB_QUEUED);
    bench_node_event(&bench, EV_NODE_BACK, 1); /* it had the order: it is told to forget it */
    assert_int_equal(bench_orders(&bench, ORDER_FORGET, bench.node[1]), 1);
}

static void test_mass_silence_is_ours(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 6; i++)
        bench_node(&bench, 1, 8192);
    bench_mesh(&bench, 0, 500);
    struct uuid job = bench_submit(&bench, 6, 1).object;
    bench_run(&bench, &job);
    for (uint32_t i = 0; i < 5; i++)
        bench_node_event(&bench, EV_NODE_SILENT, i);
    bench_wait(&bench, 590 * BENCH_SECOND);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RUNNING);
    for (uint32_t i = 0; i < 4; i++)
        bench_node_event(&bench, EV_NODE_BACK, i);
    bench_wait(&bench, 20 * BENCH_SECOND);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RECOVERING);
    assert_int_equal(row_of(4)->conditions, NODE_UNKNOWN | NODE_LOST);
    assert_int_equal(row_of(0)->conditions, 0);
}

static void test_downtime_is_not_silence(void **state)
{
    (void)state;
    struct uuid job = running(2);
    bench_node_event(&bench, EV_NODE_SILENT, 1);
    struct world *rebuilt = shadow_load(&bench.shadow);
    world_free(bench.world);
    bench.world = rebuilt;
    bench.now += 1800 * BENCH_SECOND; /* we were down for half an hour */
    bench_step(&bench, &(struct event){.kind = EV_BOOT});
    assert_int_equal(count_effects(FX_NODE_KEYS), 2);
    bench_wait(&bench, 119 * BENCH_SECOND);
    assert_int_equal(row_of(1)->conditions, NODE_UNKNOWN);
    assert_int_equal(bench_job(&bench, &job)->row.conditions, JOB_DEGRADED);
}

static void hello_with_claim(uint32_t index, const struct rank *held,
                             const struct node_claim *claim)
{
    struct event event = {.kind = EV_NODE_HELLO};

    event.hello.node = bench.node[index];
    event.hello.claim = claim;
    if (held != NULL) {
        event.hello.task_count = 1;
        event.hello.task[0] = (struct held_task){
            .attempt = held->row.attempt,
            .term = held->attempt->row.term,
            .epoch = held->attempt->row.epoch,
            .rank = held->row.rank,
            .state = RANK_STARTED,
        };
    }
    bench_step(&bench, &event);
}

static void hello_with(uint32_t index, const struct rank *held)
{
    struct node_claim claim = bench_claim(index, 1, 24576);

    hello_with_claim(index, held, &claim);
}

static void test_hello_reconciles(void **state)
{
    (void)state;
    struct uuid job = running(2);
    const struct job *live = bench_job(&bench, &job);
    uint32_t on = live->attempt->rank[0]->row.node == bench.node[0] ? 0 : 1;
    hello_with(0, live->attempt->rank[on]); /* a restarted worker found its task */
    assert_int_equal(live->row.state, JOB_RUNNING);
    assert_int_equal(bench_orders(&bench, ORDER_FORGET, 0), 0);
    struct rank stale = *live->attempt->rank[on];
    struct attempt old = *live->attempt;
    old.row.epoch = 0;
    stale.attempt = &old;
    hello_with(0, &stale); /* holds an old epoch, and so no longer the live one */
    assert_true(bench_orders(&bench, ORDER_FORGET, bench.node[0]) >= 1);
    assert_int_equal(live->row.state, JOB_RECOVERING);
    assert_int_equal(live->row.reason, ERR_TASK_LOST);
    assert_int_equal(live->row.class, FAIL_PROVIDER);
    assert_int_equal(bench_orders(&bench, ORDER_STOP, bench.node[1]), 1);
}

static void test_hello_repeats_what_stands(void **state)
{
    (void)state;
    bench_node(&bench, 1, 24576);
    struct uuid job = bench_submit(&bench, 1, 1).object;
    bench_schedule(&bench);
    hello_with(0, NULL);
    assert_int_equal(bench_orders(&bench, ORDER_PREPARE, 0), 1);
    bench_all(&bench, &job, TASK_READY, 0);
    hello_with(0, bench_job(&bench, &job)->attempt->rank[0]);
    assert_int_equal(bench_orders(&bench, ORDER_GO, 0), 1);
    bench_all(&bench, &job, TASK_STARTED, 0);
    bench_cancel(&bench, &job);
    hello_with(0, bench_job(&bench, &job)->attempt->rank[0]);
    assert_int_equal(bench_orders(&bench, ORDER_STOP, 0), 1);
    hello_with(0, NULL); /* it stopped and lost its journal */
    assert_int_equal(bench_job_row(&bench, &job)->state, JOB_CANCELLED);
}

static void test_drain_waits_for_its_work(void **state)
{
    (void)state;
    struct uuid job = running(1);
    set(0, NODE_DRAIN);
    assert_int_equal(row_of(0)->state, NODE_DRAINING);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RUNNING);
    struct uuid next = bench_submit(&bench, 1, 1).object;
    bench_schedule(&bench);
    assert_int_equal(bench_job(&bench, &next)->row.reason, ERR_NO_NODES);
    bench_all(&bench, &job, TASK_DONE, 0);
    assert_int_equal(row_of(0)->state, NODE_DRAINED);
    set(0, NODE_UNDRAIN);
    assert_int_equal(row_of(0)->state, NODE_READY);
    bench_schedule(&bench);
    assert_int_equal(bench_job(&bench, &next)->row.state, JOB_PREPARING);
}

static void test_pause_gives_notice(void **state)
{
    (void)state;
    struct uuid job = running(1);
    set(0, NODE_PAUSE);
    assert_int_equal(row_of(0)->conditions, NODE_PAUSED);
    bench_wait(&bench, 29 * BENCH_SECOND);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RUNNING);
    bench_wait(&bench, 2 * BENCH_SECOND);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RECOVERING);
    assert_int_equal(bench_job(&bench, &job)->row.reason, ERR_OWNER_RECLAIMED);
    assert_int_equal(bench_job(&bench, &job)->row.class, FAIL_INTERRUPTION);
    bench_all(&bench, &job, TASK_DONE, 143);
    bench_wait(&bench, 20 * BENCH_SECOND);
    bench_schedule(&bench);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_QUEUED);
    set(0, NODE_RESUME);
    bench_schedule(&bench);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_PREPARING);
}

static void test_foreign_process_withdraws_the_device(void **state)
{
    (void)state;
    struct uuid job = running(1);
    struct event event = {.kind = EV_DEVICE_USE};
    event.device_use = (struct ev_device_use){.node = bench.node[0], .foreign = true};
    bench_step(&bench, &event);
    assert_false(world_device(bench.world, bench.node[0], 0)->offered);
    bench_wait(&bench, 20 * BENCH_SECOND);
    event.device_use.foreign = false; /* it went away in time */
    bench_step(&bench, &event);
    bench_wait(&bench, 60 * BENCH_SECOND);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RUNNING);
    event.device_use.foreign = true;
    bench_step(&bench, &event);
    bench_wait(&bench, 31 * BENCH_SECOND);
    assert_int_equal(bench_job(&bench, &job)->row.reason, ERR_OWNER_RECLAIMED);
}

static void test_leaving(void **state)
{
    (void)state;
    struct uuid job = running(1);
    struct event event = {.kind = EV_NODE_SET, .node_set = {.verb = NODE_LEAVE}};
    event.node_set.node = row_of(0)->uid;
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_STATE_CONFLICT);
    set(0, NODE_LEAVE); /* the worker itself: nobody can hold it */
    assert_int_equal(row_of(0)->state, NODE_GONE);
    assert_int_equal(count_effects(FX_NODE_KEYS), 1);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_QUEUED);
    assert_null(world_node_by_curve(bench.world, row_of(0)->curve_key));
    struct node_claim claim = bench_claim(0, 1, 24576);
    bench_hello(&bench, 0, &claim);
    assert_int_equal(row_of(0)->state, NODE_GONE);
    bench.node_count = 0; /* the machine may come again as another node */
    bench_enrol(&bench, &claim);
    assert_int_equal(row_of(0)->state, NODE_JOINING);
}

static void test_a_revoked_node_is_gone_and_its_work_lost(void **state)
{
    (void)state;
    struct uuid job = running(2);
    struct event event = {.kind = EV_NODE_SET, .node_set = {.verb = NODE_REVOKE}};

    event.node_set.reason = "stolen key";
    set(0, NODE_REVOKE); /* not the node's own to ask for */
    assert_int_equal(row_of(0)->state, NODE_READY);
    event.node_set.node = row_of(0)->uid;
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_NONE);
    assert_int_equal(row_of(0)->state, NODE_GONE);
    assert_int_equal(row_of(0)->reason, ERR_NODE_REVOKED);
    assert_string_equal(row_of(0)->detail, "stolen key");
    assert_int_equal(count_effects(FX_NODE_KEYS), 1);
    assert_int_equal(bench_job(&bench, &job)->row.reason, ERR_NODE_LOST);
    assert_int_equal(bench_job(&bench, &job)->row.class, FAIL_PROVIDER);
    assert_int_equal(row_of(1)->state, NODE_READY); /* the other one is told to stop */
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_STATE_CONFLICT);
}

static void test_an_offence_is_an_event_and_nothing_else(void **state)
{
    (void)state;
    struct uuid job = running(1);
    struct event event = {.kind = EV_NODE_OFFENCE};

    event.offence = (struct ev_offence){bench.node[0], ERR_WIRE_IDENTITY, "another's name"};
    bench_step(&bench, &event);
    assert_int_equal(row_of(0)->state, NODE_READY);
    assert_int_equal(row_of(0)->conditions, 0);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RUNNING);
    assert_int_equal(bench.out.effect_count, 0);
    uint32_t told = 0;
    for (uint32_t i = 0; i < bench.out.row_count; i++)
        told += bench.out.rows[i].kind == ROW_NODE_EVENT
                && bench.out.rows[i].node_event.reason == ERR_WIRE_IDENTITY;
    assert_int_equal(told, 1);
}

static void test_a_second_owner_of_a_uuid_is_frozen(void **state)
{
    (void)state;
    struct uuid job = running(1);
    struct node_claim claim = bench_claim(1, 1, 24576);

    memcpy(claim.device[0].uuid, world_device(bench.world, bench.node[0], 0)->uuid,
           sizeof(claim.device[0].uuid));
    bench_enrol(&bench, &claim);
    assert_int_equal(row_of(1)->conditions, NODE_QUARANTINED);
    assert_int_equal(row_of(1)->reason, ERR_UUID_CONFLICT);
    bench_hello(&bench, 1, &claim); /* a hello does not thaw it */
    assert_int_equal(row_of(1)->conditions, NODE_QUARANTINED);
    assert_int_equal(row_of(0)->conditions, 0);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RUNNING);
    claim = bench_claim(1, 1, 24576); /* its own device, after all */
    bench_hello(&bench, 1, &claim);
    assert_int_equal(row_of(1)->conditions, 0);
}

static void test_a_leased_device_that_shrank_ends_its_gang(void **state)
{
    (void)state;
    struct uuid job = running(1);
    struct node_claim claim = bench_claim(0, 1, 8192);
    const struct rank *held = bench_job(&bench, &job)->attempt->rank[0];

    hello_with_claim(0, held, &claim);
    assert_int_equal(bench_job(&bench, &job)->row.reason, ERR_DEVICE_GONE);
    assert_int_equal(bench_job(&bench, &job)->row.class, FAIL_HARDWARE);
    assert_int_equal(world_device(bench.world, bench.node[0], 0)->tier, TIER_CLAIMED);
}

static void test_small_fleet_is_probed_as_a_mesh(void **state)
{
    (void)state;
    bench_node(&bench, 1, 8192);
    assert_int_equal(bench_orders(&bench, ORDER_PROBE, 0), 0);
    bench_node(&bench, 1, 8192);
    assert_int_equal(bench_orders(&bench, ORDER_PROBE, 0), 2); /* both ends, at once */
    bench_node(&bench, 1, 8192);
    assert_int_equal(bench_orders(&bench, ORDER_PROBE, bench.node[2]), 1);
    for (uint32_t i = 0; i < bench.out.effect_count; i++) {
        const struct order *order = &bench.out.effects[i].order;
        if (bench.out.effects[i].kind == FX_ORDER && order->node == bench.node[2]) {
            assert_int_equal(order->peer_count, 2);
            assert_int_equal(order->peers[0].port, 19999);
            assert_int_equal(order->peers[0].port_high, 20100);
        }
    }
    bench_mesh(&bench, 0, 500);
    bench.now += bench.policy.probe_every_us;
    bench_step(&bench, &(struct event){.kind = EV_TICK});
    assert_int_equal(bench_orders(&bench, ORDER_PROBE, 0), 3);
    bench_step(&bench, &(struct event){.kind = EV_TICK});
    assert_int_equal(bench_orders(&bench, ORDER_PROBE, 0), 0);
}

/* `run` follows on `join` within a second, and the order to the former is lost. */
static void test_new_session_is_asked_again(void **state)
{
    (void)state;
    struct node_claim claim = bench_claim(0, 1, 8192);
    bench_node(&bench, 1, 8192);
    bench_node(&bench, 1, 8192);
    bench_node_event(&bench, EV_NODE_BYE, 0);
    bench.now += BENCH_SECOND;
    bench_hello(&bench, 0, &claim);
    assert_int_equal(bench_orders(&bench, ORDER_PROBE, bench.node[0]), 1);
    assert_int_equal(bench_orders(&bench, ORDER_PROBE, bench.node[1]), 1); /* it answers, too */
    bench_mesh(&bench, 0, 500);
    bench_hello(&bench, 0, &claim);
    assert_int_equal(bench_orders(&bench, ORDER_PROBE, 0), 0); /* measured: nothing is lost */
}

static void test_unanswered_probe_backs_off(void **state)
{
    (void)state;
    bench_node(&bench, 1, 8192);
    bench_node(&bench, 1, 8192);
    for (usec_t wait = 5 * BENCH_SECOND; wait <= 40 * BENCH_SECOND; wait *= 2) {
        bench_link(&bench, 0, 1, 0, false); /* lost on the way: an answer that tells nothing */
        bench.now += wait - 1;
        bench_step(&bench, &(struct event){.kind = EV_TICK});
        assert_int_equal(bench_orders(&bench, ORDER_PROBE, 0), 0);
        bench.now += 1;
        assert_true(world_next_deadline(bench.world, &bench.policy) <= bench.now);
        bench_step(&bench, &(struct event){.kind = EV_TICK});
        assert_int_equal(bench_orders(&bench, ORDER_PROBE, 0), 2);
    }
    bench_mesh(&bench, 0, 500);
    bench.now += 60 * BENCH_SECOND;
    bench_step(&bench, &(struct event){.kind = EV_TICK});
    assert_int_equal(bench_orders(&bench, ORDER_PROBE, 0), 0);
}

static void test_old_links_are_unmeasured(void **state)
{
    (void)state;
    bench_node(&bench, 1, 8192);
    bench_node(&bench, 1, 8192);
    bench_link(&bench, 0, 1, 500, true);
    bench_wait(&bench, bench.policy.link_max_age_us);
    struct uuid job = bench_submit(&bench, 2, 1).object;
    bench_schedule(&bench);
    assert_int_equal(bench_job(&bench, &job)->row.reason, ERR_NETWORK_UNMEASURED);
}

static void test_links_need_both_ends(void **state)
{
    (void)state;
    bench_node(&bench, 1, 8192);
    bench_node(&bench, 1, 8192);
    struct event event = {.kind = EV_LINK};
    event.link = (struct ev_link){.from = bench.node[0],
                                  .to = bench.node[1],
                                  .rtt_p50_us = 400,
                                  .rtt_p95_us = 500,
                                  .reach = true};
    bench_step(&bench, &event);
    struct uuid job = bench_submit(&bench, 2, 1).object;
    bench_schedule(&bench);
    assert_int_equal(bench_job(&bench, &job)->row.reason, ERR_NETWORK_UNMEASURED);
    event.link.from = bench.node[1];
    event.link.to = bench.node[0];
    event.link.rtt_p95_us = 700;
    event.link.reach = false; /* one way only */
    bench_step(&bench, &event);
    bench_schedule(&bench);
    assert_int_equal(bench_job(&bench, &job)->row.reason, ERR_PEERS_UNREACHABLE);
    event.link.reach = true;
    bench_step(&bench, &event);
    bench_schedule(&bench);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_PREPARING);
    assert_int_equal(bench_job(&bench, &job)->attempt->row.diameter_us, 700);
}

static void test_a_worker_is_acknowledged_after_its_news(void **state)
{
    (void)state;
    struct uuid job = running(1);
    struct event event = {.kind = EV_TASK, .ack_node = bench.node[0], .ack_seq = 42};
    event.task = (struct ev_task){.node = bench.node[0], .attempt = 999999};
    bench_step(&bench, &event);
    assert_int_equal(count_effects(FX_ACK), 1);
    (void)job;
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_join_probe_ready),
        CASE(test_failed_selftest_is_never_placed),
        CASE(test_a_device_that_fails_beside_a_good_one),
        CASE(test_enrolment),
        CASE(test_unknown_degrades_lost_recovers),
        CASE(test_silence_before_the_start_ends_the_gang),
        CASE(test_mass_silence_is_ours),
        CASE(test_downtime_is_not_silence),
        CASE(test_hello_reconciles),
        CASE(test_hello_repeats_what_stands),
        CASE(test_drain_waits_for_its_work),
        CASE(test_pause_gives_notice),
        CASE(test_foreign_process_withdraws_the_device),
        CASE(test_leaving),
        CASE(test_a_revoked_node_is_gone_and_its_work_lost),
        CASE(test_an_offence_is_an_event_and_nothing_else),
        CASE(test_a_second_owner_of_a_uuid_is_frozen),
        CASE(test_a_leased_device_that_shrank_ends_its_gang),
        CASE(test_small_fleet_is_probed_as_a_mesh),
        CASE(test_new_session_is_asked_again),
        CASE(test_unanswered_probe_backs_off),
        CASE(test_old_links_are_unmeasured),
        CASE(test_links_need_both_ends),
        CASE(test_a_worker_is_acknowledged_after_its_news),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
