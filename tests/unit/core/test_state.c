#include "tests/unit/core/support_cmocka.h"

#include <stdio.h>
#include <string.h>

#include "orchestrator/core/event.h"
#include "orchestrator/core/row.h"
#include "orchestrator/core/state.h"

/* The tables written out once more, by hand and by name, so that a slip in one of them shows. */
static const char *const job_pairs[] = {
    "queued>preparing",
    "queued>suspended",
    "queued>failed",
    "queued>cancelled",
    "queued>expired",
    "preparing>starting",
    "preparing>recovering",
    "preparing>preempting",
    "preparing>stopping",
    "starting>running",
    "starting>recovering",
    "starting>preempting",
    "starting>stopping",
    "running>recovering",
    "running>preempting",
    "running>stopping",
    "recovering>queued",
    "recovering>preparing",
    "recovering>stopping",
    "recovering>failed",
    "recovering>cancelled",
    "recovering>expired",
    "preempting>queued",
    "preempting>suspended",
    "preempting>recovering",
    "preempting>stopping",
    "suspended>queued",
    "suspended>cancelled",
    "suspended>expired",
    "stopping>recovering",
    "stopping>succeeded",
    "stopping>failed",
    "stopping>cancelled",
    "stopping>expired",
    NULL,
};
static const char *const attempt_pairs[] = {
    "preparing>starting",
    "preparing>stopping",
    "starting>running",
    "starting>stopping",
    "running>stopping",
    "stopping>ended",
    NULL,
};
static const char *const rank_pairs[] = {
    "assigned>preparing", "assigned>ready",    "assigned>started",
    "assigned>exited",    "assigned>done",     "assigned>lost",
    "preparing>ready",    "preparing>started", "preparing>exited",
    "preparing>done",     "preparing>lost",    "ready>started",
    "ready>exited",       "ready>done",        "ready>lost",
    "started>exited",     "started>done",      "started>lost",
    "exited>done",        "exited>lost",       NULL,
};
static const char *const node_pairs[] = {
    "joining>probing",  "joining>gone",     "probing>ready",
    "probing>draining", "probing>drained",  "probing>gone",
    "ready>probing",    "ready>draining",   "ready>drained",
    "ready>gone",       "draining>probing", "draining>ready",
    "draining>drained", "draining>gone",    "drained>probing",
    "drained>ready",    "drained>gone",     NULL,
};

static bool listed(const char *const *pairs, const char *from, const char *to)
{
    char pair[64];

    snprintf(pair, sizeof(pair), "%s>%s", from, to);
    for (; *pairs != NULL; pairs++) {
        if (strcmp(*pairs, pair) == 0)
            return true;
    }
    return false;
}

#define ALL_PAIRS(name_, count_, pairs_)                                                           \
    static void test_##name_##_moves(void **state)                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        for (unsigned from = 0; from < (count_); from++) {                                         \
            const char *a = name_##_state_name((enum name_##_state)from);                          \
            assert_int_equal(name_##_state_parse(a), from);                                        \
            for (unsigned to = 0; to < (count_); to++) {                                           \
                const char *b = name_##_state_name((enum name_##_state)to);                        \
                bool may = name_##_may_move((enum name_##_state)from, (enum name_##_state)to);     \
                assert_int_equal(may, listed(pairs_, a, b));                                       \
            }                                                                                      \
            assert_false(                                                                          \
                name_##_may_move((enum name_##_state)from, (enum name_##_state)(count_)));         \
        }                                                                                          \
        assert_int_equal(name_##_state_parse("no-such"), (count_));                                \
    }

ALL_PAIRS(job, JOB_STATE_COUNT, job_pairs)
ALL_PAIRS(attempt, ATTEMPT_STATE_COUNT, attempt_pairs)
ALL_PAIRS(rank, RANK_STATE_COUNT, rank_pairs)
ALL_PAIRS(node, NODE_STATE_COUNT, node_pairs)

static void test_final_is_final(void **state)
{
    (void)state;
    for (unsigned from = 0; from < JOB_STATE_COUNT; from++) {
        unsigned exits = 0;
        for (unsigned to = 0; to < JOB_STATE_COUNT; to++)
            exits += job_may_move((enum job_state)from, (enum job_state)to);
        assert_int_equal(job_state_is_final((enum job_state)from), exits == 0);
    }
    assert_false(job_state_is_final(JOB_STATE_COUNT));
}

static void test_every_name_parses_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < TIER_COUNT; i++)
        assert_int_equal(tier_parse(tier_name((enum tier)i)), i);
    for (unsigned i = 0; i < DEVICE_CLASS_COUNT; i++)
        assert_int_equal(device_class_parse(device_class_name((enum device_class)i)), i);
    for (unsigned i = 0; i < ROLE_COUNT; i++)
        assert_int_equal(role_parse(role_name((enum role)i)), i);
    for (unsigned i = 0; i < PURPOSE_COUNT; i++)
        assert_int_equal(account_purpose_parse(account_purpose_name((enum account_purpose)i)), i);
    for (unsigned i = 0; i < TRANSFER_COUNT; i++)
        assert_int_equal(transfer_kind_parse(transfer_kind_name((enum transfer_kind)i)), i);
    for (unsigned i = 0; i < SLOT_KIND_COUNT; i++)
        assert_int_equal(slot_kind_parse(slot_kind_name((enum slot_kind)i)), i);
    for (unsigned i = 0; i < NODE_VERB_COUNT; i++)
        assert_int_equal(node_verb_parse(node_verb_name((enum node_verb)i)), i);
    for (unsigned i = 0; i < TASK_NEWS_COUNT; i++)
        assert_int_equal(task_news_parse(task_news_name((enum task_news)i)), i);
    for (unsigned i = 0; i < ORDER_KIND_COUNT; i++)
        assert_true(order_kind_name((enum order_kind)i)[0] != '\0');
    for (unsigned i = 0; i < EV_KIND_COUNT; i++)
        assert_true(event_kind_name((enum event_kind)i)[0] != '\0');
    for (uint32_t bit = 1; bit <= SCOPE_ADMIN; bit <<= 1)
        assert_int_equal(scope_parse(scope_name((enum scope)bit)), bit);
    assert_null(scope_name((enum scope)3));
    assert_int_equal(scope_parse("nothing"), 0);
}

static void test_every_kind_has_its_table(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROW_KIND_COUNT; i++) {
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(row_table((enum row_kind)i), row_table((enum row_kind)j));
    }
    assert_string_equal(row_table(ROW_USER), "app_user");
    assert_string_equal(row_table(ROW_RANK), "gang_rank");
    assert_true(row_is_append(ROW_TRANSFER));
    assert_false(row_is_append(ROW_JOB));
}

static void test_keys_tell_rows_apart(void **state)
{
    (void)state;
    struct row a = {.kind = ROW_LEASE_SLOT, .lease_slot = {.lease = 1, .slot = 2}};
    struct row b = {.kind = ROW_LEASE_SLOT, .lease_slot = {.lease = 2, .slot = 1}};
    struct row_key x = row_key(&a);
    struct row_key y = row_key(&b);
    assert_memory_not_equal(&x, &y, sizeof(x));

    struct row c = {.kind = ROW_IDEM, .idem = {.token = 1, .key = "one"}};
    struct row d = {.kind = ROW_IDEM, .idem = {.token = 1, .key = "two"}};
    x = row_key(&c);
    y = row_key(&d);
    assert_memory_not_equal(&x, &y, sizeof(x));
    d = c;
    d.idem.at_us = 9;
    y = row_key(&d);
    assert_memory_equal(&x, &y, sizeof(x));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job_moves),
        cmocka_unit_test(test_attempt_moves),
        cmocka_unit_test(test_rank_moves),
        cmocka_unit_test(test_node_moves),
        cmocka_unit_test(test_final_is_final),
        cmocka_unit_test(test_every_name_parses_back),
        cmocka_unit_test(test_every_kind_has_its_table),
        cmocka_unit_test(test_keys_tell_rows_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
