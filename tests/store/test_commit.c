/* One batch, one transaction, whatever becomes of the connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

#include "tests/store/support_db.h"
#include "tests/store/support_rows.h"

static struct row project_row(uint64_t id, const char *name)
{
    struct row row = {.kind = ROW_PROJECT,
                      .project = {.id = id, .uid = test_uuid((uint8_t)id), .created_us = 1}};

    memcpy(row.project.name, name, strlen(name));
    return row;
}

static void assert_value(PGconn *connection, const char *sql, const char *wanted)
{
    const char *got = db_value(connection, sql);

    if (strcmp(got, wanted) != 0)
        fail_msg("%s: %s, not %s", sql, got, wanted);
}

/* Waits until a query says "t". The other side works meanwhile; there is no event to wait for. */
static void await(PGconn *connection, const char *sql)
{
    for (int i = 0; i < 1000; i++) {
        if (strcmp(db_value(connection, sql), "t") == 0)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    fail_msg("never true: %s", sql);
}

/* A fresh database, its store and an owner's connection. */
struct place {
    struct db db;
    struct bench bench;
    PGconn *owner;
};

static void place_open(struct place *place)
{
    place->db = db_fresh(true);
    bench_open(&place->bench, place->db.orchestrator);
    place->owner = db_connect(place->db.owner);
}

static void place_close(struct place *place)
{
    bench_close(&place->bench);
    PQfinish(place->owner);
}

/* -- what a batch is -------------------------------------------------------------------------- */

static void a_batch_writes_journal_changes_and_control(void **state)
{
    (void)state;
    struct place place;
    struct fixture fixture;
    place_open(&place);
    fixture_init(&fixture);
    const struct journal_entry journal[] = {
        {FIXTURE_NOW - 1, EV_DEPOSIT, 1, (const uint8_t *)"abc", 3},
        {FIXTURE_NOW + 7, EV_TICK, 1, NULL, 0},
    };
    const struct batch batch = {fixture.row, fixture.count, journal, 2};
    bench_send(&place.bench, &batch);
    assert_true(store_busy(place.bench.store));
    assert_int_equal(bench_wait(&place.bench), COMMIT_DONE);
    assert_false(store_busy(place.bench.store));
    assert_value(place.owner, "SELECT batch FROM control", "1");
    char sql[64];
    snprintf(sql, sizeof(sql), "SELECT next_id = %d FROM control", FIXTURE_NEXT);
    assert_value(place.owner, sql, "t");
    assert_value(place.owner, "SELECT now_us FROM control", "1790000000000007");
    assert_value(place.owner,
                 "SELECT string_agg(kind || encode(bytes, 'escape'), ' ' ORDER BY seq)"
                 " FROM journal",
                 "depositabc tick");
    /* one job (also by its rank and lease), two nodes, five accounts, each once */
    assert_value(place.owner,
                 "SELECT string_agg(kind || n, ' ' ORDER BY kind) FROM"
                 " (SELECT kind, count(DISTINCT object) AS n FROM change GROUP BY kind) AS c",
                 "account5 job1 node2");
    assert_value(place.owner, "SELECT max(seq) = (SELECT change_seq FROM control) FROM change",
                 "t");
    snprintf(sql, sizeof(sql), "SELECT max(seq) = %llu FROM change",
             (unsigned long long)place.bench.seq);
    assert_value(place.owner, sql, "t");
    assert_int_equal(store_change_seq(place.bench.store), place.bench.seq);
    assert_true(store_last_commit_us(place.bench.store) > 0);
    fixture_fini(&fixture);
    place_close(&place);
}

static void the_last_of_a_key_wins(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    const struct row rows[] = {project_row(1, "one"), project_row(2, "two"), project_row(1, "uno")};
    assert_int_equal(bench_commit(&place.bench, rows, 3), COMMIT_DONE);
    assert_value(place.owner, "SELECT string_agg(name, ' ' ORDER BY id) FROM project", "uno two");
    place_close(&place);
}

/* A slot goes from one lease to the next within a batch, in whatever order the rows were made. */
static void releases_are_written_before_grants(void **state)
{
    (void)state;
    struct place place;
    struct fixture fixture;
    place_open(&place);
    fixture_init(&fixture);
    assert_int_equal(bench_commit(&place.bench, fixture.row, fixture.count), COMMIT_DONE);
    struct row rows[6] = {
        {.kind = ROW_LEASE_SLOT, .lease_slot = {FIXTURE_LEASE + 100, FIXTURE_SLOT, true}},
        *fixture_row(&fixture, ROW_LEASE),
        *fixture_row(&fixture, ROW_RANK),
        *fixture_row(&fixture, ROW_ATTEMPT),
        *fixture_row(&fixture, ROW_ATTEMPT),
        {.kind = ROW_LEASE_SLOT, .lease_slot = {FIXTURE_LEASE, FIXTURE_SLOT, false}},
    };
    rows[1].lease.id += 100;
    rows[1].lease.uid = test_uuid(201);
    rows[1].lease.attempt += 100;
    rows[1].lease.rank += 100;
    rows[2].rank.id += 100;
    rows[2].rank.attempt += 100;
    rows[3].attempt.id += 100;
    rows[3].attempt.uid = test_uuid(202);
    rows[3].attempt.epoch++;
    rows[4].attempt.state = ATTEMPT_ENDED;
    if (bench_commit(&place.bench, rows, 6) != COMMIT_DONE)
        fail_msg("%s", place.bench.err.text);
    assert_value(place.owner, "SELECT lease FROM lease_slot WHERE live", "119");
    fixture_fini(&fixture);
    place_close(&place);
}

static void two_idempotency_keys_of_one_token_are_two_rows(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    struct row rows[2] = {{.kind = ROW_IDEM, .idem = {.token = 1, .key = "a", .at_us = 1}},
                          {.kind = ROW_IDEM, .idem = {.token = 1, .key = "b", .at_us = 1}}};
    assert_int_equal(bench_commit(&place.bench, rows, 2), COMMIT_DONE);
    assert_value(place.owner, "SELECT count(*) FROM idem", "2");
    place_close(&place);
}

/* A batch larger than any socket buffer: both sides write at once. */
static void a_large_batch_does_not_lock_up(void **state)
{
    enum { COUNT = 20000 };
    (void)state;
    struct place place;
    place_open(&place);
    struct row *rows = calloc(COUNT, sizeof(*rows));
    for (uint32_t i = 0; i < COUNT; i++) {
        rows[i].kind = ROW_IDEM;
        rows[i].idem = (struct idem_row){.token = i + 1, .key = "key", .at_us = 1};
    }
    assert_int_equal(bench_commit(&place.bench, rows, COUNT), COMMIT_DONE);
    assert_value(place.owner, "SELECT count(*) FROM idem", "20000");
    free(rows);
    place_close(&place);
}

static void the_chain_goes_on_over_batches_and_opens(void **state)
{
    (void)state;
    struct place place;
    struct fixture fixture;
    place_open(&place);
    fixture_init(&fixture);
    assert_int_equal(bench_commit(&place.bench, fixture.row, fixture.count), COMMIT_DONE);
    for (uint64_t i = 0; i < 4; i++) {
        if (i == 2) {
            bench_close(&place.bench);
            bench_open(&place.bench, place.db.orchestrator);
        }
        struct row rows[3] = {*fixture_row(&fixture, ROW_TRANSFER)};
        rows[0].transfer.id = 300 + i;
        rows[0].transfer.amount = 1;
        uint32_t accounts = 0;
        for (uint32_t k = 0; k < fixture.count; k++) {
            struct row *row = &fixture.row[k];
            if (row->kind != ROW_ACCOUNT
                || (row->account.id != FIXTURE_EXTERNAL && row->account.id != FIXTURE_AVAILABLE))
                continue;
            row->account.balance += row->account.id == FIXTURE_EXTERNAL ? -1 : 1;
            rows[++accounts] = *row;
        }
        if (bench_commit(&place.bench, rows, 3) != COMMIT_DONE)
            fail_msg("%s", place.bench.err.text);
    }
    assert_value(place.owner, "SELECT chain || transfers || balance_sum FROM ledger_verify()",
                 "ok80");
    fixture_fini(&fixture);
    place_close(&place);
}

/* -- refusals --------------------------------------------------------------------------------- */

static void a_constraint_rolls_all_of_it_back(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    db_run(place.owner, "INSERT INTO project VALUES (90, gen_random_uuid(), 'planted', 1)");
    const struct row rows[] = {project_row(1, "one"), project_row(2, "planted"),
                               project_row(3, "three")};
    assert_int_equal(bench_commit(&place.bench, rows, 3), COMMIT_DIVERGED);
    assert_non_null(strstr(place.bench.err.text, "23505"));
    assert_non_null(strstr(place.bench.err.text, "project_name_unique"));
    assert_int_equal(place.bench.err.code, ERR_DATABASE);
    assert_value(place.owner, "SELECT count(*) FROM project", "1");
    assert_value(place.owner, "SELECT batch FROM control", "0");
    /* the session is of use again */
    assert_int_equal(bench_commit(&place.bench, rows, 1), COMMIT_DONE);
    assert_value(place.owner, "SELECT batch FROM control", "1");
    place_close(&place);
}

/* Deferred constraints speak at COMMIT, when all statements seemed fine. */
static void a_refusal_at_commit_is_a_divergence_too(void **state)
{
    (void)state;
    struct place place;
    struct fixture fixture;
    place_open(&place);
    fixture_init(&fixture);
    fixture_row(&fixture, ROW_JOB)->job.attempt = 4711;
    assert_int_equal(bench_commit(&place.bench, fixture.row, fixture.count), COMMIT_DIVERGED);
    assert_non_null(strstr(place.bench.err.text, "job_attempt_fkey"));
    fixture_row(&fixture, ROW_JOB)->job.attempt = FIXTURE_ATTEMPT;
    fixture_row(&fixture, ROW_ACCOUNT)->account.balance--;
    assert_int_equal(bench_commit(&place.bench, fixture.row, fixture.count), COMMIT_DIVERGED);
    assert_non_null(strstr(place.bench.err.text, "account_follows_transfers"));
    fixture_row(&fixture, ROW_ACCOUNT)->account.balance++;
    assert_int_equal(bench_commit(&place.bench, fixture.row, fixture.count), COMMIT_DONE);
    assert_value(place.owner, "SELECT chain FROM ledger_verify()", "ok");
    fixture_fini(&fixture);
    place_close(&place);
}

static void trouble_of_the_database_itself_is_a_failure(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    const struct row row = project_row(1, "one");
    db_run(place.owner, "REVOKE INSERT ON project FROM sheaf_orchestrator");
    assert_int_equal(bench_commit(&place.bench, &row, 1), COMMIT_FAILED);
    db_run(place.owner, "GRANT INSERT ON project TO sheaf_orchestrator");
    assert_int_equal(bench_commit(&place.bench, &row, 1), COMMIT_DONE);
    place_close(&place);
}

static void outcomes_follow_the_sqlstate(void **state)
{
    static const struct {
        const char *sqlstate;
        enum commit_outcome outcome;
    } cases[] = {
        {"SF001", COMMIT_DEPOSED},  {"SF002", COMMIT_DIVERGED}, {"SF003", COMMIT_DIVERGED},
        {"SF004", COMMIT_DIVERGED}, {"SF005", COMMIT_FAILED},   {"23505", COMMIT_DIVERGED},
        {"23514", COMMIT_DIVERGED}, {"22021", COMMIT_DIVERGED}, {"53100", COMMIT_FAILED},
        {"53200", COMMIT_FAILED},   {"57014", COMMIT_FAILED},   {"55P03", COMMIT_FAILED},
        {"40P01", COMMIT_FAILED},   {"25006", COMMIT_FAILED},   {"58030", COMMIT_FAILED},
        {"57P01", COMMIT_LOST},     {"57P02", COMMIT_LOST},     {"08006", COMMIT_LOST},
        {NULL, COMMIT_LOST},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(store_outcome(cases[i].sqlstate), cases[i].outcome);
}

/* -- leadership ------------------------------------------------------------------------------- */

static void a_second_leader_deposes_the_first(void **state)
{
    (void)state;
    struct place place;
    struct bench second;
    place_open(&place);
    const struct row one = project_row(1, "one");
    const struct row two = project_row(2, "two");
    assert_int_equal(store_term(place.bench.store), 1);
    assert_int_equal(bench_commit(&place.bench, &one, 1), COMMIT_DONE);
    bench_open(&second, place.db.orchestrator);
    assert_int_equal(store_term(second.store), 2);
    assert_int_equal(bench_commit(&place.bench, &two, 1), COMMIT_DEPOSED);
    assert_int_equal(place.bench.err.code, ERR_DEPOSED);
    assert_value(place.owner, "SELECT count(*) FROM project", "1");
    assert_value(place.owner, "SELECT batch FROM control", "1");
    assert_int_equal(bench_commit(&second, &two, 1), COMMIT_DONE);
    assert_value(place.owner, "SELECT batch FROM control", "2");
    bench_close(&second);
    place_close(&place);
}

/* A deposed leader that lost its connection learns it by the read-back. */
static void a_deposed_leader_learns_it_when_it_is_back(void **state)
{
    (void)state;
    struct place place;
    struct bench second;
    place_open(&place);
    const struct row row = project_row(1, "one");
    bench_open(&second, place.db.orchestrator);
    db_run(place.owner, "SELECT 1");
    assert_int_equal(shutdown(PQsocket(place.bench.store->connection), SHUT_RDWR), 0);
    assert_int_equal(bench_commit(&place.bench, &row, 1), COMMIT_DEPOSED);
    assert_value(place.owner, "SELECT count(*) FROM project", "0");
    bench_close(&second);
    place_close(&place);
}

/* -- lost connections ------------------------------------------------------------------------- */

#define WAITS_AT_FENCE                                                                             \
    "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()"                 \
    " AND wait_event_type = 'Lock' AND query LIKE '%fence%'"
#define KILL_COMMITTER                                                                             \
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"    \
    " AND usename = 'sheaf_orchestrator' AND query LIKE '%fence%'"

static void killed_before_the_commit_nothing_is_in(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    PGconn *admin = db_admin(&place.db);
    const struct row row = project_row(1, "one");
    const struct batch batch = {.rows = &row, .row_count = 1};
    db_run(place.owner, "BEGIN");
    db_run(place.owner, "SELECT 1 FROM control FOR UPDATE");
    bench_send(&place.bench, &batch);
    bench_spin(&place.bench, 20);
    await(admin, WAITS_AT_FENCE);
    assert_value(admin, KILL_COMMITTER, "t");
    db_run(place.owner, "ROLLBACK");
    assert_int_equal(bench_wait(&place.bench), COMMIT_LOST);
    assert_value(place.owner, "SELECT count(*) FROM project", "0");
    /* the same batch again is in once */
    assert_int_equal(bench_commit(&place.bench, &row, 1), COMMIT_DONE);
    assert_value(place.owner, "SELECT count(*) FROM project", "1");
    assert_value(place.owner, "SELECT batch FROM control", "1");
    PQfinish(admin);
    place_close(&place);
}

/* The commit is in, its answer never arrives: read back, known, not doubled. */
static void killed_after_the_commit_it_is_in(void **state)
{
    (void)state;
    struct place place;
    struct fixture fixture;
    char bytes[65536];
    place_open(&place);
    fixture_init(&fixture);
    PGconn *admin = db_admin(&place.db);
    const struct batch batch = {.rows = fixture.row, .row_count = fixture.count};
    bench_send(&place.bench, &batch);
    /* the loop does not run: the answers pile up in the socket, and are thrown away here */
    await(place.owner, "SELECT batch = 1 FROM control");
    int fd = PQsocket(place.bench.store->connection);
    await(admin, "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = ("
                 "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                 " AND usename = 'sheaf_orchestrator' ORDER BY state_change DESC LIMIT 1)");
    while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        ;
    assert_int_equal(shutdown(fd, SHUT_RDWR), 0);
    assert_false(place.bench.done);
    assert_int_equal(bench_wait(&place.bench), COMMIT_DONE);
    assert_true(place.bench.seq > 0);
    assert_value(place.owner, "SELECT batch FROM control", "1");
    assert_value(place.owner, "SELECT count(*) FROM transfer", "4");
    assert_value(place.owner, "SELECT chain FROM ledger_verify()", "ok");
    /* and the next one follows */
    const struct row row = project_row(77, "next");
    assert_int_equal(bench_commit(&place.bench, &row, 1), COMMIT_DONE);
    assert_value(place.owner, "SELECT batch FROM control", "2");
    fixture_fini(&fixture);
    PQfinish(admin);
    place_close(&place);
}

/* We are cut off while the old backend is still at work: its commit lands before our read-back. */
static void a_commit_that_lands_late_is_known(void **state)
{
    (void)state;
    struct place place;
    place_open(&place);
    PGconn *admin = db_admin(&place.db);
    const struct row row = project_row(1, "one");
    const struct batch batch = {.rows = &row, .row_count = 1};
    db_run(place.owner, "BEGIN");
    db_run(place.owner, "SELECT 1 FROM control FOR UPDATE");
    bench_send(&place.bench, &batch);
    bench_spin(&place.bench, 20);
    await(admin, WAITS_AT_FENCE);
    assert_int_equal(shutdown(PQsocket(place.bench.store->connection), SHUT_RDWR), 0);
    for (int i = 0; i < 100 && place.bench.store->phase != STORE_PREPARING; i++)
        bench_spin(&place.bench, 20);
    assert_int_equal(place.bench.store->phase, STORE_PREPARING);
    db_run(place.owner, "ROLLBACK");
    /* which of the two gets the lock first is PostgreSQL's choice; both ways are exact */
    enum commit_outcome outcome = bench_wait(&place.bench);
    assert_true(outcome == COMMIT_DONE || outcome == COMMIT_LOST);
    assert_value(place.owner, "SELECT count(*)::text FROM project",
                 outcome == COMMIT_DONE ? "1" : "0");
    if (outcome == COMMIT_LOST)
        assert_int_equal(bench_commit(&place.bench, &row, 1), COMMIT_DONE);
    assert_value(place.owner, "SELECT count(*) FROM project", "1");
    assert_value(place.owner, "SELECT batch FROM control", "1");
    PQfinish(admin);
    place_close(&place);
}

/* After the read-back said "not in", what the old connection still holds can never come in. */
static void a_given_up_connection_is_fenced(void **state)
{
    (void)state;
    struct place place;
    char sql[96];
    place_open(&place);
    uint64_t session = place.bench.store->session;
    assert_int_equal(shutdown(PQsocket(place.bench.store->connection), SHUT_RDWR), 0);
    for (int i = 0; i < 200 && place.bench.store->session == session; i++)
        bench_spin(&place.bench, 20);
    assert_int_equal(place.bench.store->session, session + 1);
    snprintf(sql, sizeof(sql), "SELECT fence(1, %llu)", (unsigned long long)session);
    db_refused(place.owner, sql, "SF005", "fence");
    place_close(&place);
}

static void a_batch_sent_while_the_server_is_down_waits(void **state)
{
    (void)state;
    struct err err = {0};
    struct embedded_database again;
    struct place place;
    place_open(&place);
    const struct row row = project_row(1, "one");
    const struct batch batch = {.rows = &row, .row_count = 1};
    PQfinish(place.owner);
    place.owner = NULL;
    assert_int_equal(embedded_stop(db_folder, "postgres", &err), 0);
    bench_spin(&place.bench, 100);
    bench_send(&place.bench, &batch);
    bench_spin(&place.bench, 300);
    assert_false(place.bench.done);
    assert_int_equal(embedded_start(db_folder, "postgres", &again, &err), 0);
    assert_int_equal(bench_wait(&place.bench), COMMIT_DONE);
    place.owner = db_connect(place.db.owner);
    assert_value(place.owner, "SELECT count(*) FROM project", "1");
    /* the reading connection, too, finds its way */
    struct idem_row idem;
    bool found;
    assert_int_equal(store_idem(place.bench.store, 1, "k", &idem, &found, &err), 0);
    place_close(&place);
}

/* -- at the door ------------------------------------------------------------------------------ */

static void an_unsafe_server_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct store *store = NULL;
    struct db db = db_fresh(true);
    char conninfo[CONNINFO_TEXT + 64];
    PGconn *owner = db_connect(db.owner);
    char sql[96];
    snprintf(sql, sizeof(sql), "ALTER DATABASE %s SET synchronous_commit = off", db.name);
    db_run(owner, sql);
    assert_int_equal(store_open(NULL, db.orchestrator, &store, &err), -ERR_DATABASE);
    assert_non_null(strstr(err.text, "synchronous_commit"));
    snprintf(conninfo, sizeof(conninfo), "%s password=wrong passfile=/nowhere", db.orchestrator);
    assert_int_equal(store_open(NULL, conninfo, &store, &err), -ERR_DATABASE);
    assert_null(strstr(err.text, "wrong"));
    assert_null(store);
    PQfinish(owner);
}

/* A setting of the whole server; sessions that begin later have it. */
static void set_server(PGconn *admin, const char *name, const char *value)
{
    char sql[96];
    char ask[64];

    snprintf(sql, sizeof(sql), "ALTER SYSTEM SET %s = %s", name, value);
    db_run(admin, sql);
    db_run(admin, "SELECT pg_reload_conf()");
    snprintf(ask, sizeof(ask), "SHOW %s", name);
    for (int i = 0; i < 500 && strcmp(db_value(admin, ask), value) != 0; i++)
        db_run(admin, "SELECT pg_sleep(0.01)");
    assert_string_equal(db_value(admin, ask), value);
}

static void test_pitfall_a_server_that_forgets_commits_is_refused(void **state)
{
    static const char *const settings[] = {"fsync", "full_page_writes"};
    (void)state;
    struct db db = db_fresh(true);
    PGconn *admin = db_admin(&db);

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        struct err err = {0};
        struct store *store = NULL;
        set_server(admin, settings[i], "off");
        int rc = store_open(NULL, db.orchestrator, &store, &err);
        set_server(admin, settings[i], "on");
        assert_int_equal(rc, -ERR_DATABASE);
        assert_non_null(strstr(err.text, settings[i]));
        assert_null(store);
    }
    PQfinish(admin);
}

static void test_pitfall_another_encoding_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct store *store = NULL;
    struct db db = db_fresh(true);
    char conninfo[CONNINFO_TEXT + 64];
    PGconn *admin = db_admin(&db);

    db_run(admin, "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C'"
                  " LC_CTYPE 'C'");
    snprintf(conninfo, sizeof(conninfo), "%s dbname=latin", db.orchestrator);
    assert_int_equal(store_open(NULL, conninfo, &store, &err), -ERR_DATABASE);
    assert_non_null(strstr(err.text, "UTF8"));
    assert_null(store);
    PQfinish(admin);
}

/* 151,184 transfers of a plain balance UPDATE once made 151 units vanish: from self-transfers. */
static void test_pitfall_a_transfer_to_itself_is_refused(void **state)
{
    (void)state;
    struct db db = db_fresh(true);
    PGconn *owner = db_connect(db.owner);

    db_refused(owner,
               "INSERT INTO transfer VALUES (1, 'EUR', 7, 7, 1, 'deposit', NULL, NULL, NULL, 1, '',"
               " sha256('a'), sha256('b'))",
               "23514", "transfer_two_accounts");
    PQfinish(owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_writes_journal_changes_and_control),
        cmocka_unit_test(the_last_of_a_key_wins),
        cmocka_unit_test(releases_are_written_before_grants),
        cmocka_unit_test(two_idempotency_keys_of_one_token_are_two_rows),
        cmocka_unit_test(a_large_batch_does_not_lock_up),
        cmocka_unit_test(the_chain_goes_on_over_batches_and_opens),
        cmocka_unit_test(a_constraint_rolls_all_of_it_back),
        cmocka_unit_test(a_refusal_at_commit_is_a_divergence_too),
        cmocka_unit_test(trouble_of_the_database_itself_is_a_failure),
        cmocka_unit_test(outcomes_follow_the_sqlstate),
        cmocka_unit_test(a_second_leader_deposes_the_first),
        cmocka_unit_test(a_deposed_leader_learns_it_when_it_is_back),
        cmocka_unit_test(killed_before_the_commit_nothing_is_in),
        cmocka_unit_test(killed_after_the_commit_it_is_in),
        cmocka_unit_test(a_commit_that_lands_late_is_known),
        cmocka_unit_test(a_given_up_connection_is_fenced),
        cmocka_unit_test(a_batch_sent_while_the_server_is_down_waits),
        cmocka_unit_test(an_unsafe_server_is_refused),
        cmocka_unit_test(test_pitfall_a_server_that_forgets_commits_is_refused),
        cmocka_unit_test(test_pitfall_another_encoding_is_refused),
        cmocka_unit_test(test_pitfall_a_transfer_to_itself_is_refused),
    };

    return cmocka_run_group_tests_name("commit", tests, db_group_setup, db_group_teardown);
}
