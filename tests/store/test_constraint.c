/* What no program may do, refused by PostgreSQL itself, each by its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/store/support_place.h"

static void slots_gangs_and_keys(void **state)
{
    static const struct refusal refusals[] = {
        /* one slot, two live leases */
        {"INSERT INTO lease_slot SELECT 99, slot, true FROM lease_slot", "23505",
         "lease_slot_one_live"},
        /* a job with two living attempts */
        {"INSERT INTO attempt SELECT 98, gen_random_uuid(), job, term, epoch + 1, state, reason,"
         " class, \"then\", diameter_us, price, created_us FROM attempt",
         "23505", "attempt_one_live"},
        {"INSERT INTO attempt SELECT 98, gen_random_uuid(), job, term, epoch, 'ended', reason,"
         " class, \"then\", diameter_us, price, created_us FROM attempt",
         "23505", "attempt_epoch_unique"},
        {"UPDATE node SET machine = (SELECT machine FROM node ORDER BY id LIMIT 1)", "23505",
         "node_machine_unique"},
        {"UPDATE node SET name = 'same'", "23505", "node_name_unique"},
        {"INSERT INTO project VALUES (97, gen_random_uuid(), 'atlas', 1)", "23505",
         "project_name_unique"},
        {"UPDATE link SET a = b, b = a", "23514", "link_ordered"},
        {"UPDATE job SET state = 'unheard-of'", "23514", "job_state_check"},
        {"UPDATE job SET reason = 'No Slug'", "23514", "reason_check"},
        {"UPDATE node SET reason = '', curve_key = 'short'", "23514", "reason_check"},
        {"INSERT INTO content SELECT 96, project, sha256, size, created_us FROM content", "23505",
         "content_unique"},
        {"INSERT INTO receipt SELECT 96, node, seq, at_us, bytes, signature FROM receipt", "23505",
         "receipt_seq_unique"},
        {"INSERT INTO policy VALUES (1, '{}', 1, true), (2, '{}', 1, true)", "23505",
         "policy_one_active"},
        {"INSERT INTO control VALUES (false)", "23514", "control_one_check"},
        {"INSERT INTO control DEFAULT VALUES", "23505", "control_pkey"},
    };
    (void)state;
    struct place place = place_make();
    REFUSE_ALL(place.owner, refusals);
    PQfinish(place.owner);
}

/* A freed slot may be taken again, in the same transaction too. */
static void a_released_slot_may_be_leased(void **state)
{
    (void)state;
    struct place place = place_make();
    db_run(place.owner, "UPDATE lease_slot SET live = false");
    db_refused(place.owner, "UPDATE lease_slot SET live = true", "SF002", NULL);
    PQfinish(place.owner);
}

static void the_ledger(void **state)
{
    static const struct refusal refusals[] = {
        {"INSERT INTO transfer VALUES (200, 'EUR', 7, 7, 1, 'deposit', NULL, NULL, NULL, 1, '',"
         " sha256('a'), sha256('b'))",
         "23514", "transfer_two_accounts"},
        {"INSERT INTO transfer VALUES (200, 'EUR', 7, 8, 0, 'deposit', NULL, NULL, NULL, 1, '',"
         " sha256('a'), sha256('b'))",
         "23514", "transfer_amount_positive"},
        {"INSERT INTO transfer VALUES (200, 'EUR', 7, 8, -5, 'deposit', NULL, NULL, NULL, 1, '',"
         " sha256('a'), sha256('b'))",
         "23514", "transfer_amount_positive"},
        /* an account that does not exist, and one of another asset */
        {"INSERT INTO transfer VALUES (200, 'EUR', 7, 999, 5, 'deposit', NULL, NULL, NULL, 1, '',"
         " sha256('a'), sha256('b'))",
         "SF004", "transfer_sum_zero"},
        {"INSERT INTO transfer VALUES (200, 'USD', 7, 8, 5, 'deposit', NULL, NULL, NULL, 1, '',"
         " sha256('a'), sha256('b'))",
         "SF004", "transfer_sum_zero"},
        /* a fork of the chain: two rows after the same one */
        {"INSERT INTO transfer SELECT 200, asset, debit, credit, amount, kind, job, lease, hold,"
         " at_us, memo, prev_hash, sha256('b') FROM transfer ORDER BY id LIMIT 1",
         "23505", "transfer_chain_unique"},
        /* a transfer that no balance follows, and a balance that no transfer explains */
        {"INSERT INTO transfer VALUES (200, 'EUR', 7, 8, 5, 'hold', NULL, NULL, NULL, 1, '',"
         " sha256('a'), sha256('b'))",
         "SF004", "account_follows_transfers"},
        {"UPDATE account SET balance = balance + 1 WHERE purpose = 'available'", "SF004",
         "account_follows_transfers"},
        {"UPDATE account SET balance = -1 WHERE purpose = 'escrow'", "23514",
         "account_balance_not_negative"},
        {"INSERT INTO account (id, uid, project, purpose, asset, balance)"
         " VALUES (201, gen_random_uuid(), 1, 'available', 'EUR', 0)",
         "23505", "account_unique"},
        {"INSERT INTO account (id, uid, purpose, asset, balance)"
         " VALUES (201, gen_random_uuid(), 'fees', 'EUR', 0)",
         "23505", "account_unique"},
        {"INSERT INTO account (id, uid, project, provider, purpose, asset, balance)"
         " VALUES (201, gen_random_uuid(), 1, 2, 'stake', 'EUR', 0)",
         "23514", "account_one_owner"},
        {"UPDATE job SET held = -1", "23514", "job_held_not_negative"},
        {"UPDATE job SET state = 'succeeded'", "23514", "job_final_is_settled"},
    };
    (void)state;
    struct place place = place_make();
    REFUSE_ALL(place.owner, refusals);
    PQfinish(place.owner);
}

static void history_is_append_only(void **state)
{
    static const char *const tables[] = {"transfer", "job_event", "node_event", "receipt",
                                         "journal"};
    (void)state;
    struct place place = place_make();
    char sql[128];

    db_run(place.owner, "INSERT INTO journal VALUES (900, 1, 'tick', 1, '')");
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        snprintf(sql, sizeof(sql), "UPDATE %s SET at_us = at_us", tables[i]);
        db_refused(place.owner, sql, "SF002", "append_only");
        snprintf(sql, sizeof(sql), "DELETE FROM %s", tables[i]);
        db_refused(place.owner, sql, "SF002", "append_only");
        snprintf(sql, sizeof(sql), "TRUNCATE %s CASCADE", tables[i]);
        db_refused(place.owner, sql, "SF002", "append_only");
    }
    /* nor behind the back of the parent table */
    db_refused(place.owner, "TRUNCATE job_event_default", "SF002", "append_only");
    db_refused(place.owner, "DELETE FROM journal_default", "SF002", "append_only");
    PQfinish(place.owner);
}

static void final_states_are_final(void **state)
{
    static const struct refusal refusals[] = {
        {"UPDATE job SET state = 'running' WHERE id = 300", "SF003", "job_state_final"},
        {"UPDATE job SET state = 'failed' WHERE id = 300", "SF003", "job_state_final"},
        {"UPDATE attempt SET state = 'running' WHERE id = 301", "SF003", "attempt_state_final"},
        {"UPDATE gang_rank SET state = 'started'", "SF003", "gang_rank_state_final"},
        {"UPDATE node SET state = 'ready'", "SF003", "node_state_final"},
        {"UPDATE lease SET price = price + 1", "SF003", "lease_terms_frozen"},
        {"UPDATE lease SET billed_ms = billed_ms - 1", "SF003", "lease_terms_frozen"},
        {"UPDATE lease SET ended_us = NULL", "SF003", "lease_terms_frozen"},
    };
    (void)state;
    struct place place = place_make();
    db_run(place.owner,
           "INSERT INTO job SELECT 300, gen_random_uuid(), project, token, name, 'cancelled',"
           " conditions, reason, class, detail, spec, spec_sha256, 0, charged, hold, epoch,"
           " attempts, NULL, policy_version, created_us, queued_us, not_before_us, state_us, 5,"
           " exit_code, why FROM job");
    db_run(place.owner,
           "INSERT INTO attempt SELECT 301, gen_random_uuid(), 300, term, epoch, 'ended', reason,"
           " class, \"then\", diameter_us, price, created_us FROM attempt");
    db_run(place.owner, "UPDATE gang_rank SET state = 'lost'");
    db_run(place.owner, "UPDATE node SET state = 'gone'");
    db_run(place.owner, "UPDATE lease SET ended_us = 5");
    REFUSE_ALL(place.owner, refusals);
    /* what is no move is no offence */
    db_run(place.owner, "UPDATE job SET detail = 'x' WHERE id = 300");
    PQfinish(place.owner);
}

/* Every pair of states: the database takes a move exactly when the core's table has it. */
static void job_moves_are_those_of_the_core(void **state)
{
    (void)state;
    struct place place = place_make();
    char sql[256];

    for (enum job_state from = 0; from < JOB_STATE_COUNT; from++) {
        for (enum job_state to = 0; to < JOB_STATE_COUNT; to++) {
            snprintf(sql, sizeof(sql),
                     "INSERT INTO job_event VALUES (%d, %d, NULL, 1, '%s', '%s', NULL, 'none', '')",
                     400 + (int)from * 20 + (int)to, FIXTURE_JOB, job_state_name(from),
                     job_state_name(to));
            if (from == to || job_may_move(from, to))
                db_run(place.owner, sql);
            else
                db_refused(place.owner, sql, "23514", "job_event_legal_move");
        }
    }
    db_refused(place.owner,
               "INSERT INTO job_event VALUES (399, 16, NULL, 1, NULL, 'running', NULL, 'none', '')",
               "23514", "job_event_legal_move");
    PQfinish(place.owner);
}

static void what_does_not_exist_is_no_parent(void **state)
{
    static const struct refusal refusals[] = {
        {"UPDATE job SET attempt = 999", "23503", NULL},
        {"UPDATE job SET hold = 999", "23503", NULL},
        {"INSERT INTO lease_slot VALUES (999, 999, false)", "23503", NULL},
        {"UPDATE device SET node = 999", "23503", NULL},
        {"INSERT INTO job_event VALUES (1, 999, NULL, 1, NULL, 'queued', NULL, 'none', '')",
         "23503", NULL},
    };
    (void)state;
    struct place place = place_make();
    REFUSE_ALL(place.owner, refusals);
    PQfinish(place.owner);
}

static void each_role_does_its_own_and_nothing_else(void **state)
{
    static const struct refusal gateway_refusals[] = {
        {"INSERT INTO project VALUES (500, gen_random_uuid(), 'x', 1)", "42501", NULL},
        {"UPDATE account SET balance = 1", "42501", NULL},
        {"DELETE FROM log_piece", "42501", NULL},
        {"UPDATE log_piece SET seq = 2", "42501", NULL},
        {"TRUNCATE log_piece", "42501", NULL},
        {"SELECT fence(1, 1)", "42501", NULL},
        {"SELECT partitions_prepare(1)", "42501", NULL},
        {"CREATE TABLE mine (id int)", "42501", NULL},
    };
    static const struct refusal orchestrator_refusals[] = {
        {"UPDATE transfer SET amount = 1", "42501", NULL},
        {"UPDATE account SET posted = 1", "42501", NULL},
        {"DELETE FROM job", "42501", NULL},
        {"DELETE FROM journal", "42501", NULL},
        {"TRUNCATE job_event", "42501", NULL},
        {"INSERT INTO log_piece VALUES (1, gen_random_uuid(), 0, 1, 1, 1, 1, false, '')", "42501",
         NULL},
        {"INSERT INTO control VALUES (true)", "42501", NULL},
        {"DELETE FROM control", "42501", NULL},
        {"CREATE TABLE mine (id int)", "42501", NULL},
        {"ALTER TABLE transfer DISABLE TRIGGER ALL", "42501", NULL},
    };
    (void)state;
    struct place place = place_make();
    PGconn *gateway = db_connect(place.db.gateway);
    PGconn *orchestrator = db_connect(place.db.orchestrator);

    REFUSE_ALL(gateway, gateway_refusals);
    REFUSE_ALL(orchestrator, orchestrator_refusals);
    db_run(gateway, "SET sheaf.sees_all = 't'");
    db_run(gateway, "INSERT INTO log_piece VALUES"
                    " (20717, '00000000-0000-7000-8000-000000000001', 0, 1, 1, 1, 1, false, 'x')");
    db_refused(gateway,
               "INSERT INTO log_piece VALUES"
               " (20717, '00000000-0000-7000-8000-000000000001', 0, 1, 1, 1, 1, false, 'x')",
               "23505", NULL);
    assert_string_equal(db_value(gateway, "SELECT count(*) FROM token"), "1");
    assert_string_equal(db_value(orchestrator, "SELECT chain FROM ledger_verify()"), "ok");
    PQfinish(gateway);
    PQfinish(orchestrator);
    PQfinish(place.owner);
}

/* -- the chain -------------------------------------------------------------------------------- */

static void the_ledger_verifies(void **state)
{
    (void)state;
    struct place place = place_make();
    PGresult *result = db_query(place.owner, "SELECT * FROM ledger_verify()");
    assert_int_equal(PQntuples(result), 1);
    assert_string_equal(PQgetvalue(result, 0, 0), "EUR");
    assert_string_equal(PQgetvalue(result, 0, 1), "4");
    assert_string_equal(PQgetvalue(result, 0, 2), "0");
    assert_string_equal(PQgetvalue(result, 0, 3), "0");
    assert_string_equal(PQgetvalue(result, 0, 4), "ok");
    PQclear(result);
    PQfinish(place.owner);
}

/* Whoever gets past triggers and rights is found by whoever recomputes. */
static void a_changed_byte_is_found(void **state)
{
    static const struct {
        const char *sql;
        const char *chain;
        bool sums;
    } cases[] = {
        {"UPDATE transfer SET memo = 'grösse' WHERE id = 21", "broken at transfer 21", true},
        {"UPDATE transfer SET at_us = at_us + 1 WHERE id = 22", "broken at transfer 22", true},
        {"UPDATE transfer SET lease = NULL WHERE id = 22", "broken at transfer 22", true},
        {"UPDATE transfer SET kind = 'release' WHERE id = 23", "broken at transfer 23", true},
        {"UPDATE transfer SET hash = set_byte(hash, 31, get_byte(hash, 31) # 1) WHERE id = 21",
         "broken at transfer 21", true},
        {"DELETE FROM transfer WHERE id = 22", "broken at transfer 23", false},
        {"UPDATE transfer SET amount = amount + 1 WHERE id = 20", "broken at transfer 20", false},
    };
    (void)state;
    struct place place = place_make();

    db_run(place.owner, "ALTER TABLE transfer DISABLE TRIGGER USER");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        db_run(place.owner, "BEGIN");
        db_run(place.owner, cases[i].sql);
        assert_string_equal(db_value(place.owner, "SELECT chain FROM ledger_verify()"),
                            cases[i].chain);
        assert_string_equal(db_value(place.owner, "SELECT accounts_off = 0 FROM ledger_verify()"),
                            cases[i].sums ? "t" : "f");
        db_run(place.owner, "ROLLBACK");
    }
    PQfinish(place.owner);
}

/* docs/ledger.md: SQL and C write the same canonical bytes, whatever the values. */
static void canonical_bytes_are_the_same_in_c_and_sql(void **state)
{
    (void)state;
    struct place place = place_make();
    struct fixture fixture;
    struct buf bytes;
    char hex[1024];
    char sql[128];

    fixture_init(&fixture);
    for (uint32_t i = 0; i < fixture.count; i++) {
        if (fixture.row[i].kind != ROW_TRANSFER)
            continue;
        buf_init(&bytes, 0);
        transfer_canon(&fixture.row[i].transfer, &bytes);
        assert_true(bytes.length < sizeof(hex) / 2);
        hex_format(bytes.data, bytes.length, hex);
        buf_fini(&bytes);
        snprintf(sql, sizeof(sql),
                 "SELECT encode(transfer_canon(t), 'hex') FROM transfer t"
                 " WHERE id = %u",
                 (unsigned)fixture.row[i].transfer.id);
        assert_string_equal(db_value(place.owner, sql), hex);
    }
    fixture_fini(&fixture);
    PQfinish(place.owner);
}

static void partitions_take_their_month(void **state)
{
    (void)state;
    struct place place = place_make();
    /* 2026-12-15: makes December and January, twice is once */
    db_run(place.owner, "SELECT partitions_prepare(1797292800000000)");
    db_run(place.owner, "SELECT partitions_prepare(1797292800000000)");
    db_run(place.owner, "INSERT INTO journal VALUES (901, 1797292800000000, 'tick', 1, '')");
    assert_string_equal(
        db_value(place.owner, "SELECT tableoid::regclass FROM journal WHERE seq = 901"),
        "journal_202612");
    db_refused(place.owner, "TRUNCATE journal_202612", "SF002", "append_only");
    db_refused(place.owner, "DELETE FROM journal_202612", "SF002", "append_only");
    db_run(place.owner, "INSERT INTO log_piece VALUES"
                        " (20802, gen_random_uuid(), 0, 1, 1, 1, 1, false, 'x')");
    assert_string_equal(db_value(place.owner, "SELECT tableoid::regclass FROM log_piece"),
                        "log_piece_202612");
    /* a month that has rows in the default partition stays there */
    db_run(place.owner, "INSERT INTO journal VALUES (902, 1805000000000000, 'tick', 1, '')");
    db_run(place.owner, "SELECT partitions_prepare(1805000000000000)");
    assert_string_equal(db_value(place.owner, "SELECT to_regclass('journal_202703') IS NULL"), "t");
    assert_string_equal(db_value(place.owner, "SELECT to_regclass('job_event_202703') IS NULL"),
                        "f");
    PQfinish(place.owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_gangs_and_keys),
        cmocka_unit_test(a_released_slot_may_be_leased),
        cmocka_unit_test(the_ledger),
        cmocka_unit_test(history_is_append_only),
        cmocka_unit_test(final_states_are_final),
        cmocka_unit_test(job_moves_are_those_of_the_core),
        cmocka_unit_test(what_does_not_exist_is_no_parent),
        cmocka_unit_test(each_role_does_its_own_and_nothing_else),
        cmocka_unit_test(the_ledger_verifies),
        cmocka_unit_test(a_changed_byte_is_found),
        cmocka_unit_test(canonical_bytes_are_the_same_in_c_and_sql),
        cmocka_unit_test(partitions_take_their_month),
    };

    return cmocka_run_group_tests_name("constraint", tests, db_group_setup, db_group_teardown);
}
