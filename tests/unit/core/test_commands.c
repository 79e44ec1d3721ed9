/* Who may do what, and what a repeated request gets. */
#include "tests/unit/core/support_cmocka.h"

#include <stdio.h>
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
    (void)state;
    bench_fini(&bench);
    return 0;
}

static void make_project(const char *name)
{
    struct event event = {.kind = EV_PROJECT_CREATE, .named = {.name = name}};

    event.named.uid = bench_uuid(&bench);
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_NONE);
}

static struct reply make_token(enum role role, const char *project, const char *provider,
                               uint8_t seed, uint32_t scopes, usec_t expires_us)
{
    struct event event = {.kind = EV_TOKEN_CREATE};

    event.token.uid = bench_uuid(&bench);
    event.token.spare_uid = bench_uuid(&bench);
    event.token.role = role;
    event.token.project = project;
    event.token.provider = provider;
    event.token.scopes = scopes;
    event.token.expires_us = expires_us;
    memset(event.token.hash, seed, 32);
    return bench_command(&bench, &event, bench.operator_);
}

static enum err_code cancel_with(const uint8_t token[32], struct uuid job)
{
    struct event event = {.kind = EV_JOB_CANCEL, .cancel = {job}};

    return bench_command(&bench, &event, token).err.code;
}

static void test_tokens_are_needed_known_alive_and_scoped(void **state)
{
    (void)state;
    uint8_t token[32] = {0};
    struct uuid job = bench_submit(&bench, 1, 1).object;

    assert_int_equal(cancel_with(token, job), ERR_AUTH_REQUIRED);
    memset(token, 0x55, 32);
    assert_int_equal(cancel_with(token, job), ERR_TOKEN_INVALID);
    struct uuid uid = make_token(ROLE_TENANT, "lab", NULL, 0x55, SCOPE_JOBS_READ, 0).object;
    assert_int_equal(cancel_with(token, job), ERR_SCOPE_MISSING);
    memset(token, 0x56, 32);
    make_token(ROLE_TENANT, "lab", NULL, 0x56, 0, bench.now + 5);
    bench.now += 5;
    assert_int_equal(cancel_with(token, job), ERR_TOKEN_INVALID);
    memset(token, 0x57, 32);
    uid = make_token(ROLE_TENANT, "lab", NULL, 0x57, 0, 0).object;
    struct event event = {.kind = EV_TOKEN_REVOKE, .revoke = {uid}};
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_NONE);
    assert_int_equal(cancel_with(token, job), ERR_TOKEN_INVALID);
    assert_int_equal(cancel_with(bench.tenant, job), ERR_NONE);
}

static void test_token_bounds(void **state)
{
    (void)state;
    assert_int_equal(make_token(ROLE_TENANT, "lab", NULL, 0x60, SCOPE_ADMIN, 0).err.code,
                     ERR_OUT_OF_RANGE);
    assert_int_equal(make_token(ROLE_TENANT, NULL, NULL, 0x60, 0, 0).err.code, ERR_FIELD_MISSING);
    assert_int_equal(make_token(ROLE_TENANT, "nobody", NULL, 0x60, 0, 0).err.code, ERR_NOT_FOUND);
    assert_int_equal(make_token(ROLE_PROVIDER, NULL, NULL, 0x60, 0, 0).err.code, ERR_FIELD_MISSING);
    assert_int_equal(make_token(ROLE_PROVIDER, NULL, "newcomer", 0x60, 0, 0).err.code, ERR_NONE);
    assert_non_null(provider_by_name(bench.world, "newcomer"));
    assert_int_equal(make_token(ROLE_PROVIDER, NULL, "newcomer", 0x60, 0, 0).err.code,
                     ERR_ALREADY_EXISTS);
}

static void test_foreign_objects_do_not_exist(void **state)
{
    (void)state;
    uint8_t other[32];

    make_project("other");
    make_token(ROLE_TENANT, "other", NULL, 0x61, 0, 0);
    memset(other, 0x61, 32);
    struct uuid job = bench_submit(&bench, 1, 1).object;
    assert_int_equal(cancel_with(other, job), ERR_NOT_FOUND);
    assert_int_equal(cancel_with(bench.tenant, job), ERR_NONE);
    assert_int_equal(cancel_with(other, job), ERR_NOT_FOUND); /* ended: no difference */
    struct event event = {.kind = EV_PLAN, .plan = {"lab", &bench.ask, NULL}};
    assert_int_equal(bench_command(&bench, &event, other).err.code, ERR_NOT_FOUND);
    event = (struct event){.kind = EV_CONTENT_ADD, .content = {.project = "lab"}};
    assert_int_equal(bench_command(&bench, &event, other).err.code, ERR_NOT_FOUND);
    struct ev_submit submit = {.name = "x", .project = "lab", .spec = "{}", .ask = &bench.ask};
    event = (struct event){.kind = EV_JOB_SUBMIT, .submit = submit};
    event.submit.uid = bench_uuid(&bench);
    assert_int_equal(bench_command(&bench, &event, other).err.code, ERR_NOT_FOUND);
}

static void test_nodes_belong_to_their_provider(void **state)
{
    (void)state;
    uint8_t home[32];
    uint8_t foreign[32];

    make_token(ROLE_PROVIDER, NULL, "home", 0x62, 0, 0);
    make_token(ROLE_PROVIDER, NULL, "away", 0x63, 0, 0);
    memset(home, 0x62, 32);
    memset(foreign, 0x63, 32);
    uint32_t node = bench_node(&bench, 1, 8192);
    struct event event = {.kind = EV_NODE_SET, .node_set = {.verb = NODE_DRAIN}};
    event.node_set.node = world_node(bench.world, bench.node[node])->uid;
    struct event copy = event;
    assert_int_equal(bench_command(&bench, &event, foreign).err.code, ERR_NOT_FOUND);
    event = copy;
    assert_int_equal(bench_command(&bench, &event, bench.tenant).err.code, ERR_SCOPE_MISSING);
    event = copy;
    assert_int_equal(bench_command(&bench, &event, home).err.code, ERR_NONE);
    assert_int_equal(world_node(bench.world, bench.node[node])->state, NODE_DRAINED);
    assert_int_equal(world_node(bench.world, bench.node[node])->reason, ERR_OWNER_REQUEST);
    event = (struct event){.kind = EV_JOIN_TOKEN_CREATE};
    event.token.provider = "away";
    event.token.uses = 1;
    event.token.uid = bench_uuid(&bench);
    memset(event.token.hash, 0x64, 32);
    assert_int_equal(bench_command(&bench, &event, home).err.code, ERR_NOT_FOUND);
    assert_int_equal(bench_command(&bench, &event, foreign).err.code, ERR_NONE);
}

static struct reply keyed(const char *key, uint8_t body, const struct idem_row *cold)
{
    struct event event = {.kind = EV_JOB_SUBMIT};

    snprintf(event.caller.key, sizeof(event.caller.key), "%s", key);
    memset(event.caller.body_hash, body, 32);
    event.caller.idem = cold;
    event.submit = (struct ev_submit){.name = "x", .spec = "{}", .ask = &bench.ask};
    event.submit.uid = bench_uuid(&bench);
    return bench_command(&bench, &event, bench.tenant);
}

static void test_same_key_same_answer(void **state)
{
    (void)state;
    struct reply first = keyed("k1", 1, NULL);
    assert_int_equal(first.err.code, ERR_NONE);
    assert_false(first.replayed);
    struct reply again = keyed("k1", 1, NULL);
    assert_true(again.replayed);
    assert_int_equal(again.err.code, ERR_NONE);
    assert_memory_equal(&again.object, &first.object, sizeof(first.object));
    assert_int_equal(bench.out.row_count, 0);
    assert_int_equal(keyed("k1", 2, NULL).err.code, ERR_IDEMPOTENCY_REUSED);
    assert_int_equal(keyed("k2", 2, NULL).err.code, ERR_NONE);
    assert_int_equal(bench_balance(&bench, PURPOSE_ESCROW), 20 * BENCH_UNIT);
}

static void test_cold_key_is_attached(void **state)
{
    (void)state;
    struct idem_row cold = {.key = "old", .object = bench_uuid(&bench)};
    memset(cold.body_hash, 9, 32);
    cold.token = world_token(bench.world, bench.tenant)->id;
    struct reply reply = keyed("old", 9, &cold);
    assert_true(reply.replayed);
    assert_memory_equal(&reply.object, &cold.object, sizeof(cold.object));
    assert_int_equal(keyed("old", 8, &cold).err.code, ERR_IDEMPOTENCY_REUSED);
    cold.token++; /* somebody else's key of the same name */
    assert_false(keyed("old", 9, &cold).replayed);
}

static void test_refusal_is_not_remembered(void **state)
{
    (void)state;
    bench.ask.max_total = 2000 * BENCH_UNIT;
    assert_int_equal(keyed("k", 1, NULL).err.code, ERR_INSUFFICIENT_FUNDS);
    struct event event = {
        .kind = EV_DEPOSIT,
        .deposit = {.project = "lab", .asset = "USD", .amount = 1000 * BENCH_UNIT}};
    event.deposit.uid = bench_uuid(&bench);
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_NONE);
    struct reply reply = keyed("k", 1, NULL);
    assert_int_equal(reply.err.code, ERR_NONE);
    assert_false(reply.replayed);
}

static void test_old_keys_fall_out_of_memory(void **state)
{
    (void)state;
    struct row row = {.kind = ROW_IDEM, .idem = {.token = 1}};
    for (uint32_t i = 0; i < WORLD_IDEM_MAX + 10; i++) {
        snprintf(row.idem.key, sizeof(row.idem.key), "key-%u", i);
        world_apply(bench.world, &row);
    }
    assert_int_equal(bench.world->idem_by_key.count, WORLD_IDEM_MAX);
}

static void test_inputs_must_be_there(void **state)
{
    (void)state;
    uint8_t contents[2][32];
    struct event event = {.kind = EV_JOB_SUBMIT};

    memset(contents, 5, sizeof(contents));
    contents[1][0] = 6;
    event.submit = (struct ev_submit){.name = "x",
                                      .spec = "{}",
                                      .ask = &bench.ask,
                                      .contents = (const uint8_t(*)[32])contents,
                                      .content_count = 2};
    event.submit.uid = bench_uuid(&bench);
    struct event copy = event;
    assert_int_equal(bench_command(&bench, &event, bench.tenant).err.code, ERR_INPUT_UNAVAILABLE);
    for (int i = 0; i < 2; i++) {
        struct event add = {.kind = EV_CONTENT_ADD, .content = {.size = 10}};
        memcpy(add.content.sha256, contents[i], 32);
        assert_int_equal(bench_command(&bench, &add, bench.tenant).err.code, ERR_NONE);
        assert_int_equal(bench_command(&bench, &add, bench.tenant).err.code, ERR_NONE);
        event = copy;
        enum err_code code = bench_command(&bench, &event, bench.tenant).err.code;
        assert_int_equal(code, i == 0 ? ERR_INPUT_UNAVAILABLE : ERR_NONE);
    }
}

static void test_plan_changes_nothing(void **state)
{
    (void)state;
    bench_node(&bench, 1, 8192);
    struct event event = {.kind = EV_PLAN, .plan = {NULL, &bench.ask, NULL}};
    struct reply reply = bench_command(&bench, &event, bench.tenant);
    assert_int_equal(reply.err.code, ERR_NONE);
    assert_int_equal(bench.out.row_count, 0);
    assert_true(reply.why->placed);
    assert_int_equal(reply.amount, 10 * BENCH_UNIT);
    bench.ask.nodes = 3;
    reply = bench_command(&bench, &event, bench.tenant);
    assert_int_equal(reply.err.code, ERR_NONE);
    assert_false(reply.why->placed);
    assert_int_equal(reply.why->code, ERR_NO_SUCH_CAPACITY);
}

static void test_fail_fast_is_refused_with_the_reason_it_would_wait_for(void **state)
{
    (void)state;
    micro_t before = bench_balance(&bench, PURPOSE_AVAILABLE);
    struct event event = {.kind = EV_JOB_SUBMIT};
    event.submit = (struct ev_submit){.name = "x", .spec = "{}", .ask = &bench.ask};
    event.submit.uid = bench_uuid(&bench);
    bench.ask.fail_fast = true;
    struct event copy = event;
    struct reply reply = bench_command(&bench, &event, bench.tenant);
    assert_int_equal(reply.err.code, ERR_NO_NODES);
    assert_string_equal(reply.err.pointer, "/fail_fast");
    assert_int_equal(bench.out.row_count, 0);
    assert_int_equal(bench_balance(&bench, PURPOSE_AVAILABLE), before);
    bench_node(&bench, 1, 8192);
    event = copy;
    assert_int_equal(bench_command(&bench, &event, bench.tenant).err.code, ERR_NONE);
}

static void test_another_money_is_refused(void **state)
{
    static const struct {
        const char *currency;
        enum err_code code;
    } rows[] = {{"EUR", ERR_INVALID_AMOUNT}, {"USD", ERR_NONE}, {NULL, ERR_NONE}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct event event = {.kind = EV_PLAN, .plan = {NULL, &bench.ask, rows[i].currency}};
        assert_int_equal(bench_command(&bench, &event, bench.tenant).err.code, rows[i].code);
        event = (struct event){.kind = EV_JOB_SUBMIT};
        event.submit = (struct ev_submit){
            .name = "x", .spec = "{}", .ask = &bench.ask, .currency = rows[i].currency};
        event.submit.uid = bench_uuid(&bench);
        assert_int_equal(bench_command(&bench, &event, bench.tenant).err.code, rows[i].code);
    }
}

static void test_names_are_unique(void **state)
{
    (void)state;
    const enum event_kind kinds[] = {EV_PROJECT_CREATE, EV_PROVIDER_CREATE, EV_USER_CREATE};
    for (size_t i = 0; i < 3; i++) {
        struct event event = {.kind = kinds[i], .named = {.name = "x", .role = ROLE_TENANT}};
        event.named.uid = bench_uuid(&bench);
        struct event copy = event;
        assert_int_equal(bench_command(&bench, &event, bench.tenant).err.code, ERR_SCOPE_MISSING);
        event = copy;
        assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_NONE);
        event = copy;
        assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code,
                         ERR_ALREADY_EXISTS);
        event = copy;
        event.named.name = "";
        assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_INVALID_NAME);
    }
}

static const struct earliest *earliest_of(uint32_t nodes)
{
    struct event event = {.kind = EV_PLAN, .plan = {NULL, &bench.ask}};
    static struct earliest told;

    bench.ask.nodes = nodes;
    struct reply reply = bench_command(&bench, &event, bench.tenant);
    assert_int_equal(reply.err.code, ERR_NONE);
    if (reply.why->placed)
        assert_null(reply.earliest);
    if (reply.earliest != NULL)
        told = *reply.earliest;
    return reply.earliest != NULL ? &told : NULL;
}

/* By the ends of what runs now; what has no end, and what others wait for, has no answer. */
static void test_a_plan_says_when_it_fits_at_the_latest(void **state)
{
    const struct earliest *earliest;
    usec_t grace;

    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        bench_node(&bench, 1, 24576);
    bench_mesh(&bench, 0, 700);
    bench.ask.gpus_per_node = 1;
    bench.ask.max_duration_us = (uint64_t)(600 * BENCH_SECOND);
    struct uuid first = bench_submit(&bench, 1, 1).object;
    bench_run(&bench, &first);
    usec_t began = bench_job(&bench, &first)->attempt->row.running_us;
    bench.ask.max_duration_us = (uint64_t)(60 * BENCH_SECOND);
    struct uuid second = bench_submit(&bench, 1, 1).object;
    bench_run(&bench, &second);
    usec_t later = bench_job(&bench, &second)->attempt->row.running_us;
    grace = (usec_t)bench.ask.stop_duration_us + 30 * BENCH_SECOND + bench.policy.output_timeout_us;
    assert_null(earliest_of(1)); /* it fits now */
    earliest = earliest_of(2);
    assert_non_null(earliest);
    assert_int_equal(earliest->at_us, later + 60 * BENCH_SECOND + grace);
    assert_int_equal(earliest->diameter_us, 700);
    assert_true(earliest->price > 0);
    earliest = earliest_of(3);
    assert_non_null(earliest);
    assert_int_equal(earliest->at_us, began + 600 * BENCH_SECOND + grace);
    assert_null(earliest_of(4)); /* never: there are three */
    struct uuid waits = bench_submit(&bench, 3, 1).object;
    assert_null(earliest_of(2)); /* that one may be first */
    bench_cancel(&bench, &waits);
    assert_non_null(earliest_of(2));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_tokens_are_needed_known_alive_and_scoped),
        CASE(test_token_bounds),
        CASE(test_foreign_objects_do_not_exist),
        CASE(test_nodes_belong_to_their_provider),
        CASE(test_same_key_same_answer),
        CASE(test_cold_key_is_attached),
        CASE(test_refusal_is_not_remembered),
        CASE(test_old_keys_fall_out_of_memory),
        CASE(test_inputs_must_be_there),
        CASE(test_plan_changes_nothing),
        CASE(test_fail_fast_is_refused_with_the_reason_it_would_wait_for),
        CASE(test_another_money_is_refused),
        CASE(test_a_plan_says_when_it_fits_at_the_latest),
        CASE(test_names_are_unique),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
