#ifndef SHEAF_TESTS_STORE_SUPPORT_DB_H
#define SHEAF_TESTS_STORE_SUPPORT_DB_H

/*
 * A throwaway PostgreSQL of this test program, and a fresh copy of the migrated database per test.
 * Nothing is shared with other test programs.
 */
#include <libpq-fe.h>

#include "orchestrator/store/store.h"

/* cmocka group set-up and tear-down. */
int db_group_setup(void **state);
int db_group_teardown(void **state);

extern struct embedded_database db_cluster;
extern char db_folder[64];

/* Connection strings of one test's own database. */
struct db {
    char name[32];
    char owner[CONNINFO_TEXT];
    char orchestrator[CONNINFO_TEXT];
    char gateway[CONNINFO_TEXT];
};
/* A copy of the migrated database; migrated = false: an empty one of the owner's. */
struct db db_fresh(bool migrated);

/* Connected or the test fails. */
PGconn *db_connect(const char *conninfo);
/* One statement that must succeed; the caller clears the result. */
PGresult *db_query(PGconn *connection, const char *sql);
void db_run(PGconn *connection, const char *sql);
/* First column of the first row of a query, copied; freed by the next call. */
const char *db_value(PGconn *connection, const char *sql);
/* Runs sql, which must fail; checks SQLSTATE and constraint (NULL = any). */
void db_refused(PGconn *connection, const char *sql, const char *sqlstate, const char *constraint);

#endif
