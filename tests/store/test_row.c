/* Every kind of row goes in and comes back byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/store/support_db.h"
#include "tests/store/support_rows.h"

struct look {
    const struct fixture *fixture;
    enum row_kind kind;
    uint32_t found;
};

static void compare_pointed(const struct row *wanted, struct row *got)
{
    if (got->kind == ROW_JOB) {
        assert_string_equal(got->job.spec, wanted->job.spec);
        assert_memory_equal(got->job.ask, wanted->job.ask, sizeof(*got->job.ask));
        if (wanted->job.why == NULL)
            assert_null(got->job.why);
        else
            assert_memory_equal(got->job.why, wanted->job.why, sizeof(*got->job.why));
        got->job.spec = wanted->job.spec;
        got->job.ask = wanted->job.ask;
        got->job.why = wanted->job.why;
    }
    if (got->kind == ROW_RECEIPT) {
        assert_int_equal(got->receipt.bytes_length, wanted->receipt.bytes_length);
        assert_memory_equal(got->receipt.bytes, wanted->receipt.bytes, got->receipt.bytes_length);
        got->receipt.bytes = wanted->receipt.bytes;
    }
}

static void on_row(const struct row *row, void *arg)
{
    struct look *look = arg;
    struct row_key key = row_key(row);

    assert_int_equal(row->kind, look->kind);
    for (uint32_t i = 0; i < look->fixture->count; i++) {
        const struct row *wanted = &look->fixture->row[i];
        struct row_key other = row_key(wanted);
        if (wanted->kind != row->kind || other.high != key.high || other.low != key.low)
            continue;
        struct row got = *row;
        compare_pointed(wanted, &got);
        if (memcmp(&got, wanted, sizeof(got)) != 0)
            fail_msg("a row of %s came back different", row_table(row->kind));
        look->found++;
    }
}

static void compare_all(const char *conninfo, const struct fixture *fixture)
{
    struct err err = {0};
    PGconn *connection = db_connect(conninfo);

    for (enum row_kind kind = 0; kind < ROW_KIND_COUNT; kind++) {
        struct look look = {.fixture = fixture, .kind = kind};
        uint32_t wanted = 0;
        for (uint32_t i = 0; i < fixture->count; i++)
            wanted += fixture->row[i].kind == kind;
        assert_true(wanted > 0);
        if (store_each(connection, kind, true, on_row, &look, &err) != 0)
            fail_msg("%s: %s", row_table(kind), err.text);
        if (look.found != wanted)
            fail_msg("%s: %u rows of %u came back", row_table(kind), look.found, wanted);
    }
    PQfinish(connection);
}

static void each_kind_round_trips(void **state)
{
    (void)state;
    struct db db = db_fresh(true);
    struct bench bench;
    struct fixture fixture;
    bench_open(&bench, db.orchestrator);
    fixture_init(&fixture);
    if (bench_commit(&bench, fixture.row, fixture.count) != COMMIT_DONE)
        fail_msg("%s", bench.err.text);
    compare_all(db.owner, &fixture);
    bench_close(&bench);
    fixture_fini(&fixture);
}

/* The same keys with other values: each non-append kind is an upsert of the whole row. */
static void each_kind_is_overwritten_whole(void **state)
{
    (void)state;
    struct db db = db_fresh(true);
    struct bench bench;
    struct fixture fixture;
    bench_open(&bench, db.orchestrator);
    fixture_init(&fixture);
    assert_int_equal(bench_commit(&bench, fixture.row, fixture.count), COMMIT_DONE);

    struct row *node = fixture_row(&fixture, ROW_NODE);
    node->node.state = NODE_DRAINED;
    node->node.reason = ERR_NONE;
    node->node.conditions = 0;
    node->node.boot = 0;
    node->node.seen_us = FIXTURE_NOW + 1;
    memset(node->node.detail, 0, sizeof(node->node.detail));
    struct row *job = fixture_row(&fixture, ROW_JOB);
    job->job.why = NULL;
    job->job.token = 0;
    job->job.reason = ERR_NONE;
    job->job.class = FAIL_NONE;
    job->job.exit_code = INT32_MAX;
    struct row *attempt = fixture_row(&fixture, ROW_ATTEMPT);
    attempt->attempt.then = JOB_CANCELLED;
    attempt->attempt.state = ATTEMPT_STOPPING;
    struct row *token = fixture_row(&fixture, ROW_TOKEN);
    token->token.expires_us = 0;
    token->token.revoked_us = FIXTURE_NOW;
    struct row *idem = fixture_row(&fixture, ROW_IDEM);
    idem->idem.code = ERR_NONE;
    memset(&idem->idem.object, 0, sizeof(idem->idem.object));
    for (uint32_t i = 0; i < fixture.count; i++) {
        const struct row *row = &fixture.row[i];
        if (!row_is_append(row->kind) && bench_commit(&bench, row, 1) != COMMIT_DONE)
            fail_msg("%s: %s", row_table(row->kind), bench.err.text);
    }
    compare_all(db.owner, &fixture);
    bench_close(&bench);
    fixture_fini(&fixture);
}

static void a_number_too_large_is_refused_not_cut(void **state)
{
    (void)state;
    struct db db = db_fresh(true);
    struct bench bench;
    struct fixture fixture;
    bench_open(&bench, db.orchestrator);
    fixture_init(&fixture);
    fixture_row(&fixture, ROW_CONTENT)->content.size = UINT64_MAX;
    assert_int_equal(bench_commit(&bench, fixture.row, fixture.count), COMMIT_DIVERGED);
    assert_non_null(strstr(bench.err.text, "content_size_check"));
    fixture_row(&fixture, ROW_CONTENT)->content.size = 1;
    fixture_row(&fixture, ROW_LINK)->link.loss_ppm = UINT32_MAX;
    assert_int_equal(bench_commit(&bench, fixture.row, fixture.count), COMMIT_DIVERGED);
    assert_non_null(strstr(bench.err.text, "22003"));
    bench_close(&bench);
    fixture_fini(&fixture);
}

static void text_that_is_no_utf8_is_refused(void **state)
{
    (void)state;
    struct db db = db_fresh(true);
    struct bench bench;
    bench_open(&bench, db.orchestrator);
    struct row row = {.kind = ROW_PROJECT,
                      .project = {.id = 7, .uid = test_uuid(7), .created_us = FIXTURE_NOW}};
    memcpy(row.project.name, "\xff\xfe", 2);
    assert_int_equal(bench_commit(&bench, &row, 1), COMMIT_DIVERGED);
    assert_non_null(strstr(bench.err.text, "22021"));
    bench_close(&bench);
}

static void an_unknown_name_in_a_table_is_no_row(void **state)
{
    (void)state;
    struct db db = db_fresh(true);
    struct err err = {0};
    struct look look = {0};
    PGconn *owner = db_connect(db.owner);
    db_run(owner, "ALTER DOMAIN reason DROP CONSTRAINT reason_check");
    db_run(owner, "INSERT INTO idem VALUES (1, 'k', sha256(''), 'no-such-slug', NULL, 1)");
    assert_int_equal(store_each(owner, ROW_IDEM, true, on_row, &look, &err), -ERR_STATE_CORRUPT);
    assert_string_equal(err.text, "table idem, column code holds no such value");
    PQfinish(owner);
}

/* The names that C writes are the names that SQL allows: every value of every closed list. */
static void closed_lists_are_the_same_in_c_and_sql(void **state)
{
    (void)state;
    struct db db = db_fresh(true);
    PGconn *owner = db_connect(db.owner);
    char sql[1024];

    for (enum row_kind kind = 0; kind < ROW_KIND_COUNT; kind++) {
        struct columns columns = columns_of(kind);
        for (uint32_t i = 0; i < columns.count; i++) {
            const struct column *column = &columns.column[i];
            for (int v = 0; column->names != NULL && v < column->names->count; v++) {
                snprintf(sql, sizeof(sql),
                         "SELECT count(*) FROM information_schema.domain_constraints d"
                         " JOIN information_schema.columns c USING (domain_name)"
                         " JOIN information_schema.check_constraints k USING (constraint_name)"
                         " WHERE c.table_name = '%s' AND c.column_name = '%s'"
                         " AND k.check_clause LIKE '%%''%s''%%'",
                         row_table(kind), column->name, column->names->name(v));
                if (strcmp(db_value(owner, sql), "1") != 0)
                    fail_msg("%s.%s: SQL does not know %s", row_table(kind), column->name,
                             column->names->name(v));
            }
        }
    }
    PQfinish(owner);
}

/* Columns of each table and of each descriptor are the same set, but for the store's own. */
static void tables_and_descriptors_agree(void **state)
{
    static const char OWN[] =
        " posted prev_hash hash term session batch change_seq journal_seq one ";
    (void)state;
    struct db db = db_fresh(true);
    PGconn *owner = db_connect(db.owner);
    char sql[1024];

    for (enum row_kind kind = 0; kind < ROW_KIND_COUNT; kind++) {
        struct columns columns = columns_of(kind);
        snprintf(sql, sizeof(sql),
                 "SELECT column_name FROM information_schema.columns WHERE table_name = '%s'",
                 row_table(kind));
        PGresult *result = db_query(owner, sql);
        uint32_t matched = 0;
        for (int i = 0; i < PQntuples(result); i++) {
            const char *name = PQgetvalue(result, i, 0);
            char padded[72];
            bool known = false;
            snprintf(padded, sizeof(padded), " %s ", name);
            for (uint32_t k = 0; k < columns.count; k++)
                known = known || strcmp(columns.column[k].name, name) == 0;
            matched += known;
            bool own = (kind == ROW_CONTROL || kind == ROW_ACCOUNT || kind == ROW_TRANSFER)
                       && strstr(OWN, padded) != NULL;
            if (!known && !own)
                fail_msg("%s.%s is in no descriptor", row_table(kind), name);
        }
        assert_int_equal(matched, columns.count);
        PQclear(result);
    }
    PQfinish(owner);
}

static void a_cold_reply_is_found_by_token_and_key(void **state)
{
    (void)state;
    struct db db = db_fresh(true);
    struct bench bench;
    struct fixture fixture;
    struct err err = {0};
    struct idem_row row;
    bool found = true;
    bench_open(&bench, db.orchestrator);
    fixture_init(&fixture);
    assert_int_equal(store_idem(bench.store, FIXTURE_TOKEN, "key-1", &row, &found, &err), 0);
    assert_false(found);
    assert_int_equal(bench_commit(&bench, fixture.row, fixture.count), COMMIT_DONE);
    assert_int_equal(store_idem(bench.store, FIXTURE_TOKEN, "key-1", &row, &found, &err), 0);
    assert_true(found);
    assert_memory_equal(&row, &fixture_row(&fixture, ROW_IDEM)->idem, sizeof(row));
    assert_int_equal(store_idem(bench.store, FIXTURE_TOKEN + 1, "key-1", &row, &found, &err), 0);
    assert_false(found);
    bench_close(&bench);
    fixture_fini(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_round_trips),
        cmocka_unit_test(each_kind_is_overwritten_whole),
        cmocka_unit_test(a_number_too_large_is_refused_not_cut),
        cmocka_unit_test(text_that_is_no_utf8_is_refused),
        cmocka_unit_test(an_unknown_name_in_a_table_is_no_row),
        cmocka_unit_test(closed_lists_are_the_same_in_c_and_sql),
        cmocka_unit_test(tables_and_descriptors_agree),
        cmocka_unit_test(a_cold_reply_is_found_by_token_and_key),
    };

    return cmocka_run_group_tests_name("row", tests, db_group_setup, db_group_teardown);
}
