/* Bad input that comes as SQL: another schema, an operator's own hand, settings out of bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/io/fs.h"
#include "orchestrator/store/migrate.h"
#include "orchestrator/store/policy_json.h"
#include "tests/store/support_place.h"

/* Fingerprint of what a refused start or statement must not have touched. */
static void remember(PGconn *owner, char out[64])
{
    snprintf(out, 64, "%s",
             db_value(owner, "SELECT md5(string_agg(t, '|')) FROM ("
                             "SELECT schema_version::text AS t FROM schema_version"
                             " UNION ALL SELECT control::text FROM control"
                             " UNION ALL SELECT account::text FROM account"
                             " UNION ALL SELECT transfer::text FROM transfer"
                             " UNION ALL SELECT job::text FROM job"
                             " UNION ALL SELECT policy::text FROM policy ORDER BY 1) x"));
}

static void start_is_refused(const struct place *place, const char *text)
{
    struct store *store = NULL;
    struct err err = {0};
    char before[64];
    char after[64];

    remember(place->owner, before);
    assert_int_equal(store_open(NULL, place->db.orchestrator, &store, &err), -ERR_SCHEMA_VERSION);
    assert_null(store);
    if (strcmp(err.text, text) != 0)
        fail_msg("%s, not: %s", err.text, text);
    remember(place->owner, after);
    assert_string_equal(after, before);
}

static void c13_a_start_on_another_schema_names_both_versions_and_changes_nothing(void **state)
{
    extern const struct embed_file sql_migrations[];
    uint32_t ours = migrations_count(sql_migrations);
    struct err err = {0};
    char wanted[128];

    (void)state;
    struct place place = place_make();
    /* newer: neither a start nor a migration goes back */
    db_run(place.owner, "INSERT INTO schema_version VALUES (99, '0099_future.sql', '\\x00', 1)");
    snprintf(wanted, sizeof(wanted), "the database has schema version 99, this program needs %u",
             ours);
    start_is_refused(&place, wanted);
    assert_int_equal(store_migrate_up(place.db.owner, &err), -ERR_SCHEMA_VERSION);
    assert_string_equal(err.text, wanted);
    db_run(place.owner, "DELETE FROM schema_version WHERE version = 99");
    /* older: a start migrates nothing of a database that is not its own */
    db_run(place.owner, "DELETE FROM schema_version WHERE version > 1");
    snprintf(wanted, sizeof(wanted), "the database has schema version 1, this program needs %u",
             ours);
    start_is_refused(&place, wanted);
    PQfinish(place.owner);
}

static void c14_sql_by_hand_meets_a_named_rule(void **state)
{
    static const struct refusal refusals[] = {
        {"INSERT INTO lease_slot SELECT 99, slot, true FROM lease_slot", "23505",
         "lease_slot_one_live"},
        {"INSERT INTO attempt SELECT 98, gen_random_uuid(), job, term, epoch + 1, state, reason,"
         " class, \"then\", diameter_us, price, created_us FROM attempt",
         "23505", "attempt_one_live"},
        {"UPDATE account SET balance = -1 WHERE purpose = 'available'", "23514",
         "account_balance_not_negative"},
        {"UPDATE account SET balance = balance + 1000000 WHERE purpose = 'earned'", "SF004",
         "account_follows_transfers"},
        {"UPDATE transfer SET amount = amount + 1", "SF002", "append_only"},
        {"DELETE FROM transfer", "SF002", "append_only"},
        {"TRUNCATE transfer CASCADE", "SF002", "append_only"},
        {"UPDATE job_event SET to_state = 'succeeded'", "SF002", "append_only"},
        {"UPDATE job SET state = 'running' WHERE id = 300", "SF003", "job_state_final"},
        {"UPDATE job SET state = 'succeeded' WHERE id <> 300", "23514", "job_final_is_settled"},
        {"INSERT INTO job_event VALUES (900, 300, NULL, 1, 'cancelled', 'running', NULL, 'none',"
         " '')",
         "23514", "job_event_legal_move"},
        {"UPDATE node SET price = NULL", "23514", "money_given"},
        {"UPDATE node SET price = -1", "23514", "node_price"},
        {"UPDATE lease SET earned = NULL", "23514", "money_given"},
        {"UPDATE lease SET price = price + 1", "SF003", "lease_terms_frozen"},
        {"UPDATE account SET balance = NULL", "23514", "money_given"},
        {"INSERT INTO transfer VALUES (200, 'EUR', 7, 8, NULL, 'deposit', NULL, NULL, NULL, 1, '',"
         " sha256('a'), sha256('b'))",
         "23514", "money_given"},
        {"INSERT INTO transfer VALUES (200, 'EUR', 7, 8, 5, 'bonus', NULL, NULL, NULL, 1, '',"
         " sha256('a'), sha256('b'))",
         "23514", "transfer_kind_check"},
        {"UPDATE job SET state = 'unheard-of'", "23514", "job_state_check"},
        {"SELECT fence(0, 0)", "SF001", "fence"},
    };
    char before[64];
    char after[64];

    (void)state;
    struct place place = place_make();
    db_run(place.owner,
           "INSERT INTO job SELECT 300, gen_random_uuid(), project, token, name, 'cancelled',"
           " conditions, reason, class, detail, spec, spec_sha256, 0, charged, hold, epoch,"
           " attempts, NULL, policy_version, created_us, queued_us, not_before_us, state_us, 5,"
           " exit_code, why FROM job");
    remember(place.owner, before);
    REFUSE_ALL(place.owner, refusals);
    remember(place.owner, after);
    assert_string_equal(after, before);
    PQfinish(place.owner);
}

/* A name in a log leads to a line that explains it. */
static void every_rule_is_explained(void **state)
{
    struct buf page;
    struct err err = {0};

    (void)state;
    struct db db = db_fresh(true);
    PGconn *owner = db_connect(db.owner);
    buf_init(&page, 0);
    if (fs_read(SHEAF_ROOT "/sql/README.md", 1 << 20, &page, &err) != 0)
        fail_msg("%s", err.text);
    PGresult *names = db_query(
        owner, "SELECT conname FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace"
               " WHERE n.nspname = 'public' AND conname !~ '_(check|pkey|fkey|key)[0-9]*$'"
               " UNION SELECT indexrelid::regclass::text FROM pg_index"
               " WHERE indisunique AND indpred IS NOT NULL"
               " UNION SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname NOT IN"
               " ('transfer_post', 'append_only_truncate')");
    assert_true(PQntuples(names) > 40);
    for (int i = 0; i < PQntuples(names); i++) {
        char cell[96];
        snprintf(cell, sizeof(cell), "`%s`", PQgetvalue(names, i, 0));
        if (strstr(page.data, cell) == NULL)
            fail_msg("sql/README.md does not explain %s", cell);
    }
    PQclear(names);
    PQfinish(owner);
    buf_fini(&page);
}

/* -- settings --------------------------------------------------------------------------------- */

struct bound {
    const char *name;
    const char *constraint;
    int64_t least;
    int64_t most;
};

#define S INT64_C(1000000)
#define H (3600 * S)
#define D (24 * H)
static const struct bound bounds[] = {
    {"fee_ppm", "policy_fee_ppm_0_to_1000000", 0, 1000000},
    {"lost_after_us", "policy_lost_after_1s_to_1d", S, D},
    {"prepare_timeout_us", "policy_prepare_timeout_1s_to_1d", S, D},
    {"prepare_progress_us", "policy_prepare_progress_1s_to_1d", S, D},
    {"start_timeout_us", "policy_start_timeout_1s_to_1d", S, D},
    {"output_timeout_us", "policy_output_timeout_1s_to_7d", S, 7 * D},
    {"settle_every_us", "policy_settle_every_1s_to_1h", S, H},
    {"backoff_first_us", "policy_backoff_first_100ms_to_1h", S / 10, H},
    {"backoff_max_us", "policy_backoff_max_1d_at_most", 0, D}, /* not below backoff_first */
    {"resend_after_us", "policy_resend_after_1s_to_5m", S, 300 * S},
    {"mass_silence_min", "policy_mass_silence_min_1_or_more", 1, UINT32_MAX},
    {"mass_silence_window_us", "policy_mass_silence_window_1s_to_1h", S, H},
    {"mass_silence_hold_us", "policy_mass_silence_hold_0_to_1d", 0, D},
    {"link_max_age_us", "policy_link_max_age_1m_to_30d", 60 * S, 30 * D},
    {"probe_every_us", "policy_probe_every_1s_to_1d", S, D},
};

/* The default settings with one of them changed, as SQL; core says what the program thinks. */
static void try_setting(PGconn *owner, const char *name, const char *json, const char *constraint)
{
    struct policy policy;
    struct err err = {0};
    char sql[2048];

    policy_default(&policy);
    json_t *settings = policy_to_json(&policy);
    json_object_set_new(settings, name, json_loads(json, JSON_DECODE_ANY, NULL));
    char *text = json_dumps(settings, JSON_COMPACT);
    int core = policy_from_json(settings, "7", &policy, &err);
    snprintf(sql, sizeof(sql), "INSERT INTO policy VALUES (7, '%s', 1, false)", text);
    db_run(owner, "BEGIN");
    if (constraint == NULL)
        db_run(owner, sql);
    else
        db_refused(owner, sql, "23514", constraint);
    db_run(owner, "ROLLBACK");
    /* the program and the database draw the line in the same place */
    if ((core == 0) != (constraint == NULL))
        fail_msg("%s = %s: the core says %s", name, json, core == 0 ? "yes" : err.text);
    free(text);
    json_decref(settings);
}

static void c15_a_setting_out_of_bounds_meets_a_rule_that_names_them(void **state)
{
    char number[32];

    (void)state;
    struct db db = db_fresh(true);
    PGconn *owner = db_connect(db.owner);
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        const struct bound *bound = &bounds[i];
        bool first = strcmp(bound->name, "backoff_first_us") == 0; /* each bounds the other */
        bool max = strcmp(bound->name, "backoff_max_us") == 0;
        snprintf(number, sizeof(number), "%lld", (long long)bound->least);
        if (!max)
            try_setting(owner, bound->name, number, NULL);
        snprintf(number, sizeof(number), "%lld", (long long)bound->least - 1);
        if (!max)
            try_setting(owner, bound->name, number, bound->constraint);
        snprintf(number, sizeof(number), "%lld", (long long)bound->most);
        if (!first)
            try_setting(owner, bound->name, number, NULL);
        snprintf(number, sizeof(number), "%lld", (long long)bound->most + 1);
        if (!first)
            try_setting(owner, bound->name, number, bound->constraint);
        try_setting(owner, bound->name, "\"60\"", bound->constraint);
        if (!max)
            try_setting(owner, bound->name, "60000000.5", bound->constraint);
        try_setting(owner, bound->name, "null", bound->constraint);
    }
    try_setting(owner, "backoff_max_us", "9999999", "policy_backoff_first_up_to_max");
    try_setting(owner, "backoff_max_us", "10000000", NULL);
    db_refused(owner, "INSERT INTO policy VALUES (7, '[]', 1, false)", "23514",
               "policy_settings_is_object");
    PQfinish(owner);
}

static void every_setting_has_its_bounds(void **state)
{
    struct policy policy;
    const char *name;
    json_t *value;

    (void)state;
    policy_default(&policy);
    json_t *settings = policy_to_json(&policy);
    json_object_foreach(settings, name, value)
    {
        bool found = strcmp(name, "asset") == 0;
        for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++)
            found = found || strcmp(bounds[i].name, name) == 0;
        if (!found)
            fail_msg("%s has no rule in the database", name);
    }
    json_decref(settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(c13_a_start_on_another_schema_names_both_versions_and_changes_nothing),
        cmocka_unit_test(c14_sql_by_hand_meets_a_named_rule),
        cmocka_unit_test(every_rule_is_explained),
        cmocka_unit_test(c15_a_setting_out_of_bounds_meets_a_rule_that_names_them),
        cmocka_unit_test(every_setting_has_its_bounds),
    };

    return cmocka_run_group_tests_name("door", tests, db_group_setup, db_group_teardown);
}
