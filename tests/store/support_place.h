#ifndef SHEAF_TESTS_STORE_SUPPORT_PLACE_H
#define SHEAF_TESTS_STORE_SUPPORT_PLACE_H

/*
 * One database with the fixture in it for a whole test program: a tenant and a provider with rows
 * in every table that is theirs.
 */
#include "tests/store/support_db.h"

/* cmocka group set-up and tear-down; in place of those of support_db.h. */
int place_setup(void **state);
int place_teardown(void **state);

struct place {
    struct db db;
    PGconn *owner;
    PGconn *gateway;
};
extern struct place place;

#endif
