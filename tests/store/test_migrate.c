/* The embedded server and migrations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "orchestrator/store/migrate.h"
#include "tests/store/support_db.h"

extern const struct embed_file sql_migrations[];

static struct err err;

static void assert_all_applied(PGconn *owner)
{
    char count[16];

    snprintf(count, sizeof(count), "%u", migrations_count(sql_migrations));
    assert_string_equal(db_value(owner, "SELECT count(*) FROM schema_version"), count);
}

static void up_from_empty_then_again_changes_nothing(void **state)
{
    (void)state;
    struct db db = db_fresh(false);
    assert_int_equal(store_migrate_up(db.owner, &err), 0);
    PGconn *owner = db_connect(db.owner);
    assert_all_applied(owner);
    char first[32];
    snprintf(first, sizeof(first), "%s",
             db_value(owner, "SELECT sum(applied_us) FROM schema_version"));
    assert_int_equal(store_migrate_up(db.owner, &err), 0);
    assert_string_equal(db_value(owner, "SELECT sum(applied_us) FROM schema_version"), first);
    PQfinish(owner);
}

static void status_tells_pending_and_applied(void **state)
{
    (void)state;
    struct db db = db_fresh(false);
    struct buf out;
    buf_init(&out, 0);
    assert_int_equal(store_migrate_status(db.owner, &out, &err), 0);
    assert_non_null(strstr(out.data, "0001_first_light.sql  pending"));
    assert_int_equal(store_migrate_up(db.owner, &err), 0);
    buf_clear(&out);
    assert_int_equal(store_migrate_status(db.owner, &out, &err), 0);
    assert_null(strstr(out.data, "pending"));
    assert_non_null(strstr(out.data, "checksum ok"));
    buf_fini(&out);
}

static void another_checksum_is_refused(void **state)
{
    (void)state;
    struct db db = db_fresh(true);
    PGconn *owner = db_connect(db.owner);
    db_run(owner, "UPDATE schema_version SET sha256 = sha256('other')");
    assert_int_equal(store_migrate_up(db.owner, &err), -ERR_SCHEMA_VERSION);
    assert_non_null(strstr(err.text, "0001_first_light.sql"));
    PQfinish(owner);
}

static void a_newer_database_is_refused(void **state)
{
    (void)state;
    struct db db = db_fresh(true);
    PGconn *owner = db_connect(db.owner);
    db_run(owner, "INSERT INTO schema_version VALUES (99, '0099_future.sql', '\\x00', 1)");
    assert_int_equal(store_migrate_up(db.owner, &err), -ERR_SCHEMA_VERSION);
    struct store *store = NULL;
    assert_int_equal(store_open(NULL, db.orchestrator, &store, &err), -ERR_SCHEMA_VERSION);
    assert_null(store);
    PQfinish(owner);
}

static void an_empty_database_is_refused_by_open(void **state)
{
    (void)state;
    struct db db = db_fresh(false);
    struct store *store = NULL;
    assert_int_equal(store_open(NULL, db.orchestrator, &store, &err), -ERR_SCHEMA_VERSION);
}

/* Many starts at once: the lock makes them one after the other, each migration once. */
static void concurrent_starts_are_serialised(void **state)
{
    enum { STARTS = 4 };
    (void)state;
    struct db db = db_fresh(false);
    pid_t child[STARTS];
    for (int i = 0; i < STARTS; i++) {
        child[i] = fork();
        assert_true(child[i] >= 0);
        if (child[i] == 0)
            _exit(store_migrate_up(db.owner, &err) == 0 ? 0 : 1);
    }
    for (int i = 0; i < STARTS; i++) {
        int status = -1;
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_int_equal(status, 0);
    }
    PGconn *owner = db_connect(db.owner);
    assert_all_applied(owner);
    PQfinish(owner);
}

/* One that fails leaves nothing of itself, and those before it stay. */
static void a_failing_migration_leaves_nothing(void **state)
{
    static const unsigned char good[] = "CREATE TABLE kept (id int); SELECT 1";
    static const unsigned char bad[] = "CREATE TABLE lost (id int); SELECT 1/0";
    static const struct embed_file files[] = {
        {"0001_good.sql", good, good + sizeof(good) - 1},
        {"0002_bad.sql", bad, bad + sizeof(bad) - 1},
        {NULL, NULL, NULL},
    };
    (void)state;
    struct db db = db_fresh(false);
    assert_int_equal(migrations_up(files, db.owner, &err), -ERR_DATABASE);
    assert_non_null(strstr(err.text, "0002_bad.sql"));
    assert_non_null(strstr(err.text, "division by zero"));
    PGconn *owner = db_connect(db.owner);
    assert_string_equal(db_value(owner, "SELECT to_regclass('kept') IS NOT NULL"), "t");
    assert_string_equal(db_value(owner, "SELECT to_regclass('lost') IS NULL"), "t");
    assert_string_equal(db_value(owner, "SELECT count(*) FROM schema_version"), "1");
    PQfinish(owner);
}

static void migrations_are_numbered_from_one(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < migrations_count(sql_migrations); i++) {
        char number[16];
        snprintf(number, sizeof(number), "%04u_", i + 1);
        assert_memory_equal(sql_migrations[i].name, number, 5);
    }
}

static void a_running_server_is_adopted(void **state)
{
    (void)state;
    struct embedded_database again;
    assert_true(db_cluster.made);
    assert_false(db_cluster.adopted);
    assert_int_equal(embedded_start(db_folder, "postgres", &again, &err), 0);
    assert_false(again.made);
    assert_true(again.adopted);
    assert_string_equal(again.owner, db_cluster.owner);
}

static void a_stopped_server_starts_again_with_its_data(void **state)
{
    (void)state;
    struct embedded_database again;
    assert_int_equal(embedded_stop(db_folder, "postgres", &err), 0);
    assert_int_equal(embedded_stop(db_folder, "postgres", &err), 0);
    assert_int_equal(embedded_start(db_folder, "postgres", &again, &err), 0);
    assert_false(again.made);
    assert_false(again.adopted);
    PGconn *owner = db_connect(again.owner);
    assert_all_applied(owner);
    assert_string_equal(db_value(owner, "SELECT current_setting('data_checksums')"), "on");
    assert_string_equal(db_value(owner, "SELECT current_setting('listen_addresses')"), "");
    PQfinish(owner);
}

static void a_path_too_long_for_a_socket_is_refused(void **state)
{
    (void)state;
    char path[256];
    struct embedded_database database;
    snprintf(path, sizeof(path), "%s/%0100d", db_folder, 1);
    assert_int_equal(embedded_start(path, "postgres", &database, &err), -ERR_IO);
    assert_non_null(strstr(err.text, "socket"));
}

static void an_unreachable_folder_is_named(void **state)
{
    (void)state;
    char path[160];
    char state_path[192];
    struct embedded_database database;
    if (geteuid() != 0)
        skip();
    snprintf(path, sizeof(path), "%s/closed", db_folder);
    snprintf(state_path, sizeof(state_path), "%s/state", path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(embedded_start(state_path, "postgres", &database, &err), -ERR_IO);
    assert_non_null(strstr(err.text, "cannot reach"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(up_from_empty_then_again_changes_nothing),
        cmocka_unit_test(status_tells_pending_and_applied),
        cmocka_unit_test(another_checksum_is_refused),
        cmocka_unit_test(a_newer_database_is_refused),
        cmocka_unit_test(an_empty_database_is_refused_by_open),
        cmocka_unit_test(concurrent_starts_are_serialised),
        cmocka_unit_test(a_failing_migration_leaves_nothing),
        cmocka_unit_test(migrations_are_numbered_from_one),
        cmocka_unit_test(a_running_server_is_adopted),
        cmocka_unit_test(a_stopped_server_starts_again_with_its_data),
        cmocka_unit_test(a_path_too_long_for_a_socket_is_refused),
        cmocka_unit_test(an_unreachable_folder_is_named),
    };

    return cmocka_run_group_tests_name("migrate", tests, db_group_setup, db_group_teardown);
}
