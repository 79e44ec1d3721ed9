#ifndef SHEAF_TESTS_STORE_SUPPORT_PLACE_H
#define SHEAF_TESTS_STORE_SUPPORT_PLACE_H

/* A database with the fixture in it: a tenant and a provider with rows in every table of theirs. */
#include "tests/store/support_db.h"
#include "tests/store/support_rows.h"

/* The owner's connection: rights are no help here. The caller finishes it. */
struct place {
    struct db db;
    PGconn *owner;
};
struct place place_make(void);

/* Statements that must be refused by name. */
struct refusal {
    const char *sql;
    const char *sqlstate;
    const char *constraint;
};
void refuse_all(PGconn *connection, const struct refusal *refusals, size_t count);
#define REFUSE_ALL(connection, list) refuse_all(connection, list, sizeof(list) / sizeof(list[0]))

/* One place for a whole test program, with a log piece and an event beside. place_setup and
 * place_teardown are cmocka's group set-up and tear-down, in place of those of support_db.h. */
extern struct place shared_place;
extern PGconn *shared_gateway; /* as role sheaf_gateway */
int place_setup(void **state);
int place_teardown(void **state);

#endif
