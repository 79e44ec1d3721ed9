#include "tests/store/support_db.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/io/fs.h"
#include "common/io/log.h"
#include "orchestrator/store/store_private.h"

#define RUN_AS "postgres"

struct embedded_database db_cluster;
char db_folder[64];

static void must(int result, const struct err *err)
{
    if (result != 0)
        fail_msg("%s", err->text);
}

int db_group_setup(void **state)
{
    struct err err = {0};

    (void)state;
    log_open("test", LOG_ERROR_LEVEL);
    snprintf(db_folder, sizeof(db_folder), "/tmp/sheaf-store-XXXXXX");
    if (mkdtemp(db_folder) == NULL || chmod(db_folder, 0755) != 0)
        return -1;
    if (embedded_start(db_folder, RUN_AS, &db_cluster, &err) != 0
        || store_migrate_up(db_cluster.owner, &err) != 0) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

int db_group_teardown(void **state)
{
    struct err err = {0};

    (void)state;
    if (embedded_stop(db_folder, RUN_AS, &err) != 0 || fs_remove_tree(db_folder, &err) != 0)
        print_error("%s\n", err.text);
    return 0;
}

static void rename_database(const char *conninfo, const char *name, char out[CONNINFO_TEXT])
{
    const char *at = strstr(conninfo, "dbname=sheaf ");

    assert_non_null(at);
    snprintf(out, CONNINFO_TEXT, "%.*sdbname=%s %s", (int)(at - conninfo), conninfo, name,
             at + strlen("dbname=sheaf "));
}

struct db db_fresh(bool migrated)
{
    static unsigned number;
    struct db db;
    char admin[CONNINFO_TEXT];
    char sql[128];

    snprintf(db.name, sizeof(db.name), "t%u", ++number);
    snprintf(admin, sizeof(admin),
             "host='%s/database/run' dbname=postgres user=sheaf_admin"
             " passfile='%s/database/sheaf_admin.pass'",
             db_folder, db_folder);
    PGconn *connection = db_connect(admin);
    snprintf(sql, sizeof(sql), "CREATE DATABASE %s OWNER sheaf_owner TEMPLATE %s", db.name,
             migrated ? "sheaf" : "template0");
    db_run(connection, sql);
    PQfinish(connection);
    rename_database(db_cluster.owner, db.name, db.owner);
    rename_database(db_cluster.orchestrator, db.name, db.orchestrator);
    rename_database(db_cluster.gateway, db.name, db.gateway);
    return db;
}

PGconn *db_connect(const char *conninfo)
{
    struct err err = {0};
    PGconn *connection = PQconnectdb(conninfo);

    store_quiet(connection);
    if (PQstatus(connection) != CONNECTION_OK)
        must(store_connection_error(connection, &err), &err);
    return connection;
}

PGresult *db_query(PGconn *connection, const char *sql)
{
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);

    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        fail_msg("%s: %s", sql, PQresultErrorMessage(result));
    return result;
}

void db_run(PGconn *connection, const char *sql)
{
    PQclear(db_query(connection, sql));
}

const char *db_value(PGconn *connection, const char *sql)
{
    static char text[4096];
    PGresult *result = db_query(connection, sql);

    assert_true(PQntuples(result) > 0);
    snprintf(text, sizeof(text), "%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    return text;
}

void db_refused(PGconn *connection, const char *sql, const char *sqlstate, const char *constraint)
{
    PGresult *result = PQexec(connection, sql);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *name = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);

    if (state == NULL)
        fail_msg("not refused: %s", sql);
    if (strcmp(state, sqlstate) != 0)
        fail_msg("%s: refused with %s, not %s: %s", sql, state, sqlstate,
                 PQresultErrorMessage(result));
    if (constraint != NULL && (name == NULL || strcmp(name, constraint) != 0))
        fail_msg("%s: refused by %s, not %s", sql, name != NULL ? name : "-", constraint);
    PQclear(result);
}
