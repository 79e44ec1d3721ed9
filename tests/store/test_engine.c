/* Decide, commit, act: the engine with the real core on a real PostgreSQL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "common/io/clock.h"
#include "common/pure/mem.h"
#include "orchestrator/store/engine.h"
#include "tests/store/support_db.h"
#include "tests/store/support_rows.h"

#define MAX_REPLIES 600

struct told {
    bool here;
    enum err_code code;
    struct uuid object;
    bool replayed;
    uint64_t seq;
};

struct place {
    struct db db;
    struct event_base *base;
    struct store *store;
    struct engine *engine;
    PGconn *owner;
    struct told told[MAX_REPLIES]; /* by request */
    uint32_t replies;
    uint32_t commits;
    uint32_t reloads;
    bool deposed;
    bool taken; /* what post() posted last */
    bool look;  /* each reply's object must be in table project when the reply is given */
    uint64_t next_request;
};

static void on_effect(const struct effect *effect, uint64_t seq, void *arg)
{
    struct place *place = arg;
    char uid[UUID_TEXT];
    char sql[160];

    if (effect->kind != FX_REPLY)
        return;
    assert_in_range(effect->reply.request, 1, MAX_REPLIES - 1);
    struct told *told = &place->told[effect->reply.request];
    assert_false(told->here);
    *told = (struct told){true, effect->reply.err.code, effect->reply.object,
                          effect->reply.replayed, seq};
    place->replies++;
    if (!place->look || told->code != ERR_NONE)
        return;
    uuid_format(&told->object, uid);
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM project WHERE uid = '%s'", uid);
    assert_string_equal(db_value(place->owner, sql), "1");
}

static void on_commit(const struct row *rows, uint32_t row_count, uint64_t seq, void *arg)
{
    struct place *place = arg;

    assert_non_null(rows);
    assert_true(row_count > 0);
    assert_int_equal(seq, store_change_seq(place->store));
    place->commits++;
}

static void on_deposed(void *arg)
{
    struct place *place = arg;

    place->deposed = true;
}

static void on_reload(const struct world *world, void *arg)
{
    struct place *place = arg;

    assert_non_null(world);
    place->reloads++;
}

static void spin(struct place *place, int milliseconds)
{
    const struct timeval limit = {.tv_sec = milliseconds / 1000,
                                  .tv_usec = milliseconds % 1000 * 1000};

    (void)event_base_loopexit(place->base, &limit);
    (void)event_base_dispatch(place->base);
}

static void await_replies(struct place *place, uint32_t count)
{
    for (int i = 0; i < 1000 && place->replies < count; i++)
        spin(place, 20);
    if (place->replies != count)
        fail_msg("%u replies, not %u", place->replies, count);
}

static void start(struct place *place)
{
    struct err err = {0};
    const struct engine_hooks hooks = {on_effect, on_commit, on_deposed, on_reload, place};

    place->base = event_base_new();
    if (store_open(place->base, place->db.orchestrator, &place->store, &err) != 0
        || engine_new(place->base, place->store, &hooks, &place->engine, &err) != 0)
        fail_msg("%s", err.text);
    engine_set_paranoid(place->engine, true);
}

static void stop(struct place *place)
{
    engine_free(place->engine);
    store_close(place->store);
    event_base_free(place->base);
}

static struct place *place_open(void)
{
    struct place *place = mem_new(1, sizeof(*place));

    place->db = db_fresh(true);
    place->owner = db_connect(place->db.owner);
    start(place);
    return place;
}

static void place_close(struct place *place)
{
    stop(place);
    PQfinish(place->owner);
    free(place);
}

/* Posts a system event; returns its request. */
static uint64_t post(struct place *place, struct event_box *box)
{
    box->event.caller.system = true;
    box->event.caller.request = ++place->next_request;
    place->taken = engine_post(place->engine, box);
    return place->next_request;
}

static void release(void *memory)
{
    free(memory);
}

static struct event_box *project_box(const char *name, struct uuid uid)
{
    struct event_box *box = event_box_new(EV_PROJECT_CREATE);

    box->memory = mem_strdup(name);
    box->release = release;
    box->event.named.name = box->memory;
    box->event.named.uid = uid;
    box->bytes = box->memory;
    box->bytes_length = (uint32_t)strlen(name);
    return box;
}

static uint64_t post_project(struct place *place, const char *name)
{
    return post(place, project_box(name, uuid_new()));
}

static uint64_t post_deposit(struct place *place, const char *project, micro_t amount,
                             const char *key)
{
    struct event_box *box = event_box_new(EV_DEPOSIT);

    box->memory = mem_strdup(project);
    box->release = release;
    box->event.deposit.uid = uuid_new();
    box->event.deposit.project = box->memory;
    box->event.deposit.amount = amount;
    box->event.deposit.memo = "";
    memcpy(box->event.deposit.asset, engine_policy(place->engine)->asset,
           sizeof(box->event.deposit.asset));
    if (key != NULL)
        memcpy(box->event.caller.key, key, strlen(key));
    return post(place, box);
}

static void assert_value(struct place *place, const char *sql, const char *wanted)
{
    const char *got = db_value(place->owner, sql);

    if (strcmp(got, wanted) != 0)
        fail_msg("%s: %s, not %s", sql, got, wanted);
}

/* -- order ------------------------------------------------------------------------------------ */

static void a_reply_is_given_when_its_change_is_committed(void **state)
{
    (void)state;
    struct place *place = place_open();
    char name[24];
    place->look = true;
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "project-%d", i);
        post_project(place, name);
        if (i % 7 == 0)
            spin(place, 1);
    }
    await_replies(place, 200);
    for (uint64_t i = 1; i <= 200; i++)
        assert_int_equal(place->told[i].code, ERR_NONE);
    assert_value(place, "SELECT count(*) FROM project", "200");
    assert_value(place, "SELECT count(*) FROM journal WHERE kind = 'project_create'", "200");
    assert_true(engine_counters(place->engine).events >= 200);
    place_close(place);
}

static void events_of_a_turn_share_a_transaction(void **state)
{
    (void)state;
    struct place *place = place_open();
    char name[24];
    spin(place, 100);
    uint64_t before = engine_counters(place->engine).commits;
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "p%d", i);
        post_project(place, name);
    }
    await_replies(place, 500);
    uint64_t commits = engine_counters(place->engine).commits - before;
    assert_in_range(commits, 1, 4);
    assert_int_equal(place->commits, engine_counters(place->engine).commits);
    /* the journal has them in the order in which they came */
    assert_value(place,
                 "SELECT count(*) FROM journal a JOIN journal b ON b.seq > a.seq"
                 " WHERE a.kind = 'project_create' AND b.kind = 'project_create'"
                 " AND substr(encode(a.bytes, 'escape'), 2)::int"
                 " > substr(encode(b.bytes, 'escape'), 2)::int",
                 "0");
    place_close(place);
}

/* A refusal rests on what was decided before it, so it waits for that commit, too. */
static void a_refusal_follows_what_it_rests_on(void **state)
{
    (void)state;
    struct place *place = place_open();
    spin(place, 100);
    db_run(place->owner, "BEGIN");
    db_run(place->owner, "SELECT 1 FROM control FOR UPDATE");
    uint64_t first = post_project(place, "same");
    spin(place, 50);
    uint64_t second = post_project(place, "same");
    spin(place, 100);
    assert_int_equal(place->replies, 0);
    db_run(place->owner, "ROLLBACK");
    await_replies(place, 2);
    assert_int_equal(place->told[first].code, ERR_NONE);
    assert_int_equal(place->told[second].code, ERR_ALREADY_EXISTS);
    place_close(place);
}

/* -- divergence ------------------------------------------------------------------------------- */

/*
 * A project that the world does not know has the UUID of one that is asked for: the core cannot
 * see it, the unique index does. Exactly this event is set aside.
 */
static void what_the_database_refuses_is_set_aside_alone(void **state)
{
    (void)state;
    struct place *place = place_open();
    struct uuid taken = uuid_new();
    char uid[UUID_TEXT];
    char sql[160];
    char name[24];
    spin(place, 100);
    uuid_format(&taken, uid);
    snprintf(sql, sizeof(sql), "INSERT INTO project VALUES (900000, '%s', 'planted', 1)", uid);
    db_run(place->owner, sql);
    uint64_t bad = 0;
    for (int i = 0; i < 9; i++) {
        snprintf(name, sizeof(name), "p%d", i);
        if (i == 4)
            bad = post(place, project_box(name, taken));
        else
            post_project(place, name);
    }
    await_replies(place, 9);
    for (uint64_t i = 1; i <= 9; i++)
        assert_int_equal(place->told[i].code, i == bad ? ERR_INTERNAL : ERR_NONE);
    assert_value(place, "SELECT string_agg(name, ' ' ORDER BY name) FROM project",
                 "p0 p1 p2 p3 p5 p6 p7 p8 planted");
    assert_value(place, "SELECT count(*) FROM journal WHERE kind = 'project_create'", "8");
    assert_int_equal(engine_counters(place->engine).quarantined, 1);
    /* dropped for the batch and again for the one that fails alone */
    assert_int_equal(engine_counters(place->engine).reloads, 2);
    assert_int_equal(place->reloads, 2);
    /* life goes on, and the planted row is known now */
    uint64_t again = post_project(place, "planted");
    uint64_t more = post_project(place, "more");
    await_replies(place, 11);
    assert_int_equal(place->told[again].code, ERR_ALREADY_EXISTS);
    assert_int_equal(place->told[more].code, ERR_NONE);
    assert_int_equal(engine_counters(place->engine).quarantined, 1);
    place_close(place);
}

/* The batch behind the refused one rests on it: it is decided anew, in order. */
static void the_batch_behind_is_decided_anew(void **state)
{
    (void)state;
    struct place *place = place_open();
    struct uuid taken = uuid_new();
    char uid[UUID_TEXT];
    char sql[160];
    spin(place, 100);
    uuid_format(&taken, uid);
    snprintf(sql, sizeof(sql), "INSERT INTO project VALUES (900000, '%s', 'planted', 1)", uid);
    db_run(place->owner, sql);
    db_run(place->owner, "BEGIN");
    db_run(place->owner, "SELECT 1 FROM control FOR UPDATE");
    uint64_t bad = post(place, project_box("atlas", taken));
    spin(place, 50);
    /* decided while the first is in flight: refused then, right after the reload */
    uint64_t good = post_project(place, "atlas");
    uint64_t money = post_deposit(place, "atlas", 5000000, NULL);
    spin(place, 50);
    db_run(place->owner, "ROLLBACK");
    await_replies(place, 3);
    assert_int_equal(place->told[bad].code, ERR_INTERNAL);
    assert_int_equal(place->told[good].code, ERR_NONE);
    assert_int_equal(place->told[money].code, ERR_NONE);
    assert_value(place, "SELECT count(*) FROM transfer", "1");
    assert_value(place, "SELECT chain FROM ledger_verify()", "ok");
    place_close(place);
}

/* A transfer that somebody else wrote: the chain is read anew with the world. */
static void a_foreign_link_in_the_chain_is_taken_up(void **state)
{
    (void)state;
    struct place *place = place_open();
    post_project(place, "atlas");
    post_deposit(place, "atlas", 1000000, NULL);
    await_replies(place, 2);
    db_run(place->owner, "ALTER TABLE transfer DISABLE TRIGGER append_only");
    db_run(place->owner, "BEGIN");
    db_run(place->owner,
           "INSERT INTO transfer SELECT 800000, asset, debit, credit, 7, 'deposit', NULL, NULL,"
           " NULL, 1, '', hash, sha256('') FROM transfer");
    db_run(place->owner, "UPDATE transfer t SET hash = sha256(prev_hash || transfer_canon(t))"
                         " WHERE id = 800000");
    db_run(place->owner, "UPDATE account SET balance = posted");
    db_run(place->owner, "UPDATE control SET next_id = 800001");
    db_run(place->owner, "COMMIT");
    uint64_t next = post_deposit(place, "atlas", 2000000, NULL);
    await_replies(place, 3);
    assert_int_equal(place->told[next].code, ERR_NONE);
    assert_int_equal(engine_counters(place->engine).quarantined, 0);
    assert_value(place, "SELECT chain || transfers || accounts_off FROM ledger_verify()", "ok30");
    assert_value(place, "SELECT balance FROM account WHERE purpose = 'available'", "3000007");
    place_close(place);
}

/* -- failures --------------------------------------------------------------------------------- */

static void a_database_that_refuses_is_told_to_callers(void **state)
{
    (void)state;
    struct place *place = place_open();
    spin(place, 100);
    db_run(place->owner, "REVOKE INSERT ON project FROM sheaf_orchestrator");
    uint64_t refused = post_project(place, "one");
    await_replies(place, 1);
    assert_int_equal(place->told[refused].code, ERR_DATABASE);
    db_run(place->owner, "GRANT INSERT ON project TO sheaf_orchestrator");
    uint64_t fine = post_project(place, "one");
    await_replies(place, 2);
    assert_int_equal(place->told[fine].code, ERR_NONE);
    assert_int_equal(engine_counters(place->engine).quarantined, 0);
    place_close(place);
}

static void a_lost_connection_is_nobodys_business(void **state)
{
    (void)state;
    struct place *place = place_open();
    char name[24];
    PGconn *admin = db_admin(&place->db);
    place->look = true;
    for (int i = 0; i < 30; i++) {
        snprintf(name, sizeof(name), "p%d", i);
        post_project(place, name);
        spin(place, i % 3);
        if (i % 5 == 4)
            db_run(admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                          " WHERE datname = current_database()"
                          " AND usename = 'sheaf_orchestrator'");
    }
    await_replies(place, 30);
    for (uint64_t i = 1; i <= 30; i++)
        assert_int_equal(place->told[i].code, ERR_NONE);
    assert_value(place, "SELECT count(*) FROM project", "30");
    assert_value(place, "SELECT count(*) FROM journal WHERE kind = 'project_create'", "30");
    assert_int_equal(engine_counters(place->engine).reloads, 0);
    PQfinish(admin);
    place_close(place);
}

static void a_deposed_engine_decides_nothing_more(void **state)
{
    (void)state;
    struct place *place = place_open();
    struct bench second;
    spin(place, 100);
    bench_open(&second, place->db.orchestrator);
    uint64_t one = post_project(place, "one");
    await_replies(place, 1);
    assert_int_equal(place->told[one].code, ERR_DEPOSED);
    assert_true(place->deposed);
    uint64_t two = post_project(place, "two");
    await_replies(place, 2);
    assert_int_equal(place->told[two].code, ERR_DEPOSED);
    assert_value(place, "SELECT count(*) FROM project", "0");
    bench_close(&second);
    place_close(place);
}

/* -- restart ---------------------------------------------------------------------------------- */

static void a_restart_knows_what_was_committed(void **state)
{
    (void)state;
    struct place *place = place_open();
    post_project(place, "atlas");
    post_deposit(place, "atlas", 5000000, "key-1");
    await_replies(place, 2);
    struct uuid first = place->told[2].object;
    stop(place);
    start(place);
    assert_int_equal(store_term(place->store), 2);
    uint64_t again = post_project(place, "atlas");
    uint64_t replay = post_deposit(place, "atlas", 5000000, "key-1");
    await_replies(place, 4);
    assert_int_equal(place->told[again].code, ERR_ALREADY_EXISTS);
    assert_int_equal(place->told[replay].code, ERR_NONE);
    assert_true(place->told[replay].replayed);
    assert_memory_equal(&place->told[replay].object, &first, sizeof(first));
    assert_value(place, "SELECT count(*) FROM transfer", "1");
    place_close(place);
}

/* The same key twice in one turn: the second is a replay of what is not committed yet. */
static void a_key_is_replayed_before_its_commit(void **state)
{
    (void)state;
    struct place *place = place_open();
    post_project(place, "atlas");
    uint64_t first = post_deposit(place, "atlas", 5000000, "key-1");
    uint64_t second = post_deposit(place, "atlas", 5000000, "key-1");
    await_replies(place, 3);
    assert_false(place->told[first].replayed);
    assert_true(place->told[second].replayed);
    assert_memory_equal(&place->told[first].object, &place->told[second].object,
                        sizeof(struct uuid));
    assert_value(place, "SELECT count(*) FROM transfer", "1");
    place_close(place);
}

/* A world with everything in it is loaded and booted, and its invariants hold (paranoid). */
static void a_full_world_is_loaded(void **state)
{
    (void)state;
    struct place *place = place_open();
    struct bench bench;
    struct fixture fixture;
    stop(place);
    bench_open(&bench, place->db.orchestrator);
    fixture_init(&fixture);
    /* it has run for as long as it was billed; its escrow lasts for days */
    usec_t since = clock_wall_us() - 12001 * (usec_t)1000000;
    fixture_row(&fixture, ROW_LEASE)->lease.meter_from_us = since;
    fixture_row(&fixture, ROW_ATTEMPT)->attempt.running_us = since;
    fixture_row(&fixture, ROW_NODE)->node.conditions = 0; /* its owner is not at it */
    assert_int_equal(bench_commit(&bench, fixture.row, fixture.count), COMMIT_DONE);
    bench_close(&bench);
    fixture_fini(&fixture);
    start(place);
    spin(place, 200);
    assert_int_equal(engine_counters(place->engine).quarantined, 0);
    assert_int_equal(engine_counters(place->engine).reloads, 0);
    const struct node_row *node = world_node(engine_world(place->engine), FIXTURE_NODE_A);
    assert_non_null(node);
    assert_string_equal(node->name, "atlas-1");
    const struct device_row *device = world_device(engine_world(place->engine), FIXTURE_NODE_A, 0);
    assert_non_null(device);
    assert_int_equal(device->measured_mib, 24100);
    struct world_counts counts;
    world_count(engine_world(place->engine), &counts);
    assert_int_equal(counts.jobs_by_state[JOB_RUNNING], 1);
    assert_int_equal(counts.slots_leased, 1);
    /* A receipt that the worker sends again is known by its number, not refused by a constraint. */
    struct event_box *again = event_box_new(EV_RECEIPT);
    again->event.receipt.node = FIXTURE_NODE_A;
    again->event.receipt.seq = 9;
    assert_true(engine_post(place->engine, again));
    spin(place, 200);
    assert_int_equal(engine_counters(place->engine).quarantined, 0);
    assert_int_equal(engine_counters(place->engine).reloads, 0);
    place_close(place);
}

/* What may be dropped is dropped before its sender's eyes; the clocks are not. */
static void a_full_queue_says_what_it_drops(void **state)
{
    (void)state;
    struct place *place = place_open();
    struct event_box *box;

    for (uint32_t i = 0; i < ENGINE_QUEUE_MAX; i++) {
        box = event_box_new(EV_NODE_BACK);
        assert_true(engine_post(place->engine, box));
    }
    box = event_box_new(EV_TASK);
    box->event.ack_node = FIXTURE_NODE_A;
    box->event.ack_seq = 1;
    assert_false(engine_post(place->engine, box));
    assert_false(engine_post(place->engine, event_box_new(EV_NODE_HELLO)));
    post(place, project_box("late", uuid_new()));
    assert_false(place->taken);
    assert_int_equal(place->replies, 1);
    assert_true(engine_post(place->engine, event_box_new(EV_NODE_SILENT)));
    place_close(place);
}

static void policy_is_stored_and_bounded(void **state)
{
    (void)state;
    struct place *place = place_open();
    struct err err = {0};
    assert_value(place, "SELECT version || ' ' || active FROM policy", "1 true");
    assert_int_equal(engine_policy(place->engine)->version, 1);
    stop(place);
    db_run(place->owner, "UPDATE policy SET active = false");
    db_run(place->owner, "INSERT INTO policy SELECT 2, jsonb_set(settings, '{fee_ppm}', '70000'),"
                         " 1, true FROM policy");
    start(place);
    assert_int_equal(engine_policy(place->engine)->version, 2);
    assert_int_equal(engine_policy(place->engine)->fee_ppm, 70000);
    struct world *world = world_new();
    struct policy policy;
    usec_t now;
    db_run(place->owner, "UPDATE policy SET settings = settings || '{\"no_such\": 1}'");
    assert_int_equal(store_load(place->store, world, &policy, &now, &err), -ERR_UNKNOWN_FIELD);
    db_run(place->owner, "UPDATE policy SET settings = settings - 'no_such'"
                         " || '{\"asset\": \"\"}'");
    assert_int_equal(store_load(place->store, world, &policy, &now, &err), -ERR_OUT_OF_RANGE);
    world_free(world);
    place_close(place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reply_is_given_when_its_change_is_committed),
        cmocka_unit_test(events_of_a_turn_share_a_transaction),
        cmocka_unit_test(a_refusal_follows_what_it_rests_on),
        cmocka_unit_test(what_the_database_refuses_is_set_aside_alone),
        cmocka_unit_test(the_batch_behind_is_decided_anew),
        cmocka_unit_test(a_foreign_link_in_the_chain_is_taken_up),
        cmocka_unit_test(a_database_that_refuses_is_told_to_callers),
        cmocka_unit_test(a_lost_connection_is_nobodys_business),
        cmocka_unit_test(a_deposed_engine_decides_nothing_more),
        cmocka_unit_test(a_restart_knows_what_was_committed),
        cmocka_unit_test(a_key_is_replayed_before_its_commit),
        cmocka_unit_test(a_full_world_is_loaded),
        cmocka_unit_test(a_full_queue_says_what_it_drops),
        cmocka_unit_test(policy_is_stored_and_bounded),
    };

    return cmocka_run_group_tests_name("engine", tests, db_group_setup, db_group_teardown);
}
