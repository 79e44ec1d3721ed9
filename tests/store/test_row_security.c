/*
 * The second wall (sql/0004_row_security.sql): with the gateway's own statements and their filter
 * switched off, a caller still finds nothing of others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/gateway/queries.h"
#include "tests/store/support_place.h"
#include "tests/store/support_rows.h"

#define SCOPES  "{\"jobs:read\": 1}"
#define REASONS "{}"

/* What a gateway says before a request: $1 to $3 of QUERY_SIGHT. */
struct sight {
    const char *all;
    long long project;
    long long provider;
};

/* The fixture's tenant and provider are the ones to be protected; the foreign have no rows. */
static const struct sight nobody = {"", 0, 0};
static const struct sight foreign = {"", 7001, 7002};
static const struct sight tenant = {"", FIXTURE_PROJECT, 0};
static const struct sight provider = {"", 0, FIXTURE_PROVIDER};
static const struct sight everyone = {"t", 0, 0};

/* Begins a transaction with this sight. */
static void look_as(const struct sight *sight)
{
    char project[24];
    char owner[24];
    const char *values[] = {sight->all, project, owner};

    snprintf(project, sizeof(project), "%lld", sight->project);
    snprintf(owner, sizeof(owner), "%lld", sight->provider);
    if (sight->project == 0)
        project[0] = '\0';
    if (sight->provider == 0)
        owner[0] = '\0';
    db_run(shared_gateway, "ROLLBACK");
    db_run(shared_gateway, "BEGIN");
    PGresult *result =
        PQexecParams(shared_gateway, query_get(QUERY_SIGHT)->sql, 3, NULL, values, NULL, NULL, 0);
    assert_int_equal(PQresultStatus(result), PGRES_TUPLES_OK);
    PQclear(result);
}

static long long count_as(const struct sight *sight, const char *table)
{
    char sql[96];

    look_as(sight);
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s", table);
    return strtoll(db_value(shared_gateway, sql), NULL, 10);
}

/* -- tables ----------------------------------------------------------------------------------- */

static void each_table_shows_a_party_its_own(void **state)
{
    static const struct {
        const char *table;
        long long tenant;
        long long provider;
    } rows[] = {
        {"project", 1, 0},    {"token", 1, 0},     {"join_token", 0, 1}, {"app_user", 1, 0},
        {"account", 2, 1},    {"transfer", 4, 1},  {"job", 1, 0},        {"attempt", 1, 0},
        {"gang_rank", 1, 1},  {"lease", 1, 1},     {"job_event", 2, 0},  {"content", 1, 0},
        {"job_output", 1, 0}, {"log_piece", 1, 0},
    };
    char sql[96];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *table = rows[i].table;
        snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s", table);
        long long there = strtoll(db_value(shared_place.owner, sql), NULL, 10);
        assert_true(there > 0);
        if (count_as(&nobody, table) != 0 || count_as(&foreign, table) != 0)
            fail_msg("%s: rows of others are seen", table);
        if (count_as(&everyone, table) != there)
            fail_msg("%s: not all rows are seen by who sees all", table);
        if (count_as(&tenant, table) != rows[i].tenant)
            fail_msg("%s: the tenant sees %lld", table, count_as(&tenant, table));
        if (count_as(&provider, table) != rows[i].provider)
            fail_msg("%s: the provider sees %lld", table, count_as(&provider, table));
    }
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM pg_class WHERE relrowsecurity");
    assert_int_equal(strtol(db_value(shared_place.owner, sql), NULL, 10),
                     sizeof(rows) / sizeof(rows[0]));
}

/* A later table or partition that hangs on a tenant's must be walled in, or not be granted. */
static void no_readable_table_of_a_tenant_stands_outside(void **state)
{
    (void)state;
    assert_string_equal(
        db_value(shared_place.owner,
                 "SELECT coalesce(string_agg(DISTINCT c.relname, ' '), '') FROM pg_class c"
                 " JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped"
                 " WHERE c.relkind IN ('r', 'p') AND NOT c.relrowsecurity"
                 " AND a.attname IN ('project', 'job', 'attempt', 'token', 'user', 'account')"
                 " AND has_table_privilege('sheaf_gateway', c.oid, 'SELECT')"),
        "");
    db_run(shared_gateway, "ROLLBACK");
    db_refused(shared_gateway, "SELECT * FROM log_piece_default", "42501", NULL);
    db_refused(shared_gateway, "SELECT * FROM job_event_default", "42501", NULL);
    db_refused(shared_gateway, "SELECT * FROM receipt", "42501", NULL);
    db_refused(shared_gateway, "SELECT * FROM ledger_verify()", "42501", NULL);
}

static void a_gateway_writes_only_for_itself(void **state)
{
    static const char insert[] = "INSERT INTO log_piece SELECT 2, gen_random_uuid(), 0, 1, 0, 1, 1,"
                                 " true, 'x'";
    (void)state;
    look_as(&tenant);
    db_refused(shared_gateway, insert, "42501", NULL);
    look_as(&everyone);
    db_run(shared_gateway, insert);
    db_run(shared_gateway, "ROLLBACK");
}

/* -- the gateway's statements with the first wall open ---------------------------------------- */

/* Text of a parameter; the caller's rights are said to be those of an operator. */
static const char *param_text(enum query_param param, const char *object)
{
    switch (param) {
    case PARAM_ALL:
        return "t";
    case PARAM_TOKEN:
        return "4"; /* FIXTURE_TOKEN */
    case PARAM_OBJECT:
        return object;
    case PARAM_LIMIT:
        return "200";
    case PARAM_REASONS:
        return REASONS;
    case PARAM_SCOPES:
        return SCOPES;
    case PARAM_PROJECT:
    case PARAM_PROVIDER:
    case PARAM_CURSOR:
    case PARAM_STATE:
    case PARAM_NAME:
    case PARAM_END:
        break;
    }
    return NULL;
}

/* The answer as one text; "" when there is no row. Overwritten by the next call. */
static const char *answer_as(const struct sight *sight, enum query_id id, const char *object)
{
    static char text[65536];
    const struct query *query = query_get(id);
    const char *values[QUERY_MAX_PARAMS] = {NULL};
    int count = 0;

    for (; query->params[count] != PARAM_END; count++)
        values[count] = param_text((enum query_param)query->params[count], object);
    look_as(sight);
    PGresult *result = PQexecParams(shared_gateway, query->sql, count, NULL, values, NULL, NULL, 0);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", query->name, PQresultErrorMessage(result));
    snprintf(text, sizeof(text), "%s", PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    return text;
}

/* Ids and names of the fixture's tenant; a provider's node is no secret within the pool. */
static bool tells_of_the_tenant(const char *text)
{
    static const char sql[] =
        "SELECT uid::text FROM job UNION SELECT uid::text FROM attempt"
        " UNION SELECT uid::text FROM lease UNION SELECT uid::text FROM token"
        " UNION SELECT uid::text FROM account UNION SELECT uid::text FROM project"
        " UNION SELECT uid::text FROM join_token UNION SELECT uid::text FROM app_user"
        " UNION SELECT '\"' || name || '\"' FROM project"
        " UNION SELECT '\"' || name || '\"' FROM app_user"
        " UNION SELECT encode(sha256, 'hex') FROM job_output";
    PGresult *words = db_query(shared_place.owner, sql);
    bool found = false;

    assert_true(PQntuples(words) > 10);
    for (int i = 0; i < PQntuples(words); i++)
        found |= strstr(text, PQgetvalue(words, i, 0)) != NULL;
    PQclear(words);
    return found;
}

static void no_statement_tells_of_others(void **state)
{
    static const char *const objects[] = {
        "SELECT uid FROM job",     "SELECT uid FROM account WHERE purpose = 'escrow'",
        "SELECT uid FROM token",   "SELECT uid FROM node WHERE id IN (SELECT node FROM lease)",
        "SELECT uid FROM project", "SELECT uid FROM app_user",
    };

    (void)state;
    for (enum query_id id = QUERY_JOBS; id < QUERY_SUMMARY; id++) {
        bool told = false;
        for (size_t i = 0; i < sizeof(objects) / sizeof(objects[0]); i++) {
            char object[40];
            snprintf(object, sizeof(object), "%s", db_value(shared_place.owner, objects[i]));
            if (tells_of_the_tenant(answer_as(&nobody, id, object))
                || tells_of_the_tenant(answer_as(&foreign, id, object)))
                fail_msg("%s tells: %s", query_get(id)->name, answer_as(&foreign, id, object));
            told |= tells_of_the_tenant(answer_as(&everyone, id, object));
        }
        if (!told && id != QUERY_OFFERS && id != QUERY_PAIRS)
            fail_msg("%s tells nothing even to an operator", query_get(id)->name);
    }
}

static void a_party_is_told_what_it_needs(void **state)
{
    char account[40];
    char node[40];
    char job[40];

    (void)state;
    snprintf(job, sizeof(job), "%s", db_value(shared_place.owner, "SELECT uid FROM job"));
    snprintf(account, sizeof(account), "%s",
             db_value(shared_place.owner, "SELECT uid FROM account WHERE purpose = 'earned'"));
    snprintf(
        node, sizeof(node), "%s",
        db_value(shared_place.owner, "SELECT uid FROM node WHERE id IN (SELECT node FROM lease)"));
    /* The job that earned it, the kind of the other side; the lease's job on its own node. */
    assert_non_null(strstr(answer_as(&provider, QUERY_LEDGER, account), job));
    assert_non_null(strstr(answer_as(&provider, QUERY_LEDGER, account), "\"escrow\""));
    assert_non_null(strstr(answer_as(&provider, QUERY_NODE, node), job));
    assert_string_equal(answer_as(&provider, QUERY_JOB, job), "");
    /* A tenant's bill has its lines and balances. */
    assert_non_null(strstr(answer_as(&tenant, QUERY_JOB_COST, job), "\"balanced\" : true"));
    assert_non_null(strstr(answer_as(&tenant, QUERY_JOB_COST, job), "\"rank\""));
    assert_non_null(strstr(answer_as(&tenant, QUERY_JOB, job), "\"ranks\" : [{"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_table_shows_a_party_its_own),
        cmocka_unit_test(no_readable_table_of_a_tenant_stands_outside),
        cmocka_unit_test(a_gateway_writes_only_for_itself),
        cmocka_unit_test(no_statement_tells_of_others),
        cmocka_unit_test(a_party_is_told_what_it_needs),
    };

    return cmocka_run_group_tests_name("row_security", tests, place_setup, place_teardown);
}
