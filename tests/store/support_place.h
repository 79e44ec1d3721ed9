#ifndef SHEAF_TESTS_STORE_SUPPORT_PLACE_H
#define SHEAF_TESTS_STORE_SUPPORT_PLACE_H

/* A database with the fixture in it, and statements that it must refuse by name. */
#include "tests/store/support_db.h"
#include "tests/store/support_rows.h"

/* The owner's connection: rights are no help here. The caller finishes it. */
struct place {
    struct db db;
    PGconn *owner;
};
struct place place_make(void);

struct refusal {
    const char *sql;
    const char *sqlstate;
    const char *constraint;
};
void refuse_all(PGconn *connection, const struct refusal *refusals, size_t count);
#define REFUSE_ALL(connection, list) refuse_all(connection, list, sizeof(list) / sizeof(list[0]))

#endif
