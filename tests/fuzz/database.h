#ifndef SHEAF_TESTS_FUZZ_DATABASE_H
#define SHEAF_TESTS_FUZZ_DATABASE_H

/* Stands where the gateway asks PostgreSQL (ld --wrap=db_ask): what is asked waits for an answer.
 */
#include "orchestrator/gateway/db.h"

#define WAITING_MAX 64

struct waiting {
    db_on_done_f on_done;
    uint64_t call;
    void *arg;
    uint32_t count;
};

static struct waiting waiting[WAITING_MAX];
static uint32_t waiting_count;

void __wrap_db_ask(struct db *db, const struct db_sight *sight, struct db_args *args,
                   uint32_t count, db_on_done_f on_done, uint64_t call, void *arg);
void __wrap_db_ask(struct db *db, const struct db_sight *sight, struct db_args *args,
                   uint32_t count, db_on_done_f on_done, uint64_t call, void *arg)
{
    (void)db;
    (void)sight;
    for (uint32_t i = 0; i < count; i++)
        db_args_fini(&args[i]);
    BUG_ON(waiting_count == WAITING_MAX);
    waiting[waiting_count++] = (struct waiting){on_done, call, arg, count};
}

/* No row, or one of texts that are an id or 0. */
static PGresult *database_rows(bool found)
{
    static char id[] = "01010101-0101-4101-8101-010101010101";
    static char zero[] = "0";
    PGresult *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc columns[8];

    for (int i = 0; i < 8; i++)
        columns[i] = (PGresAttDesc){.name = zero};
    BUG_ON(PQsetResultAttrs(rows, 8, columns) == 0);
    for (int i = 0; found && i < 8; i++)
        BUG_ON(PQsetvalue(rows, 0, i, i % 3 == 0 ? id : zero, i % 3 == 0 ? 36 : 1) == 0);
    return rows;
}

/* All that waits, and what is asked meanwhile. */
static void database_answer(bool found)
{
    PGresult *rows = database_rows(found);
    PGresult *results[WAITING_MAX];

    for (uint32_t i = 0; i < WAITING_MAX; i++)
        results[i] = rows;
    while (waiting_count > 0) {
        struct waiting one = waiting[--waiting_count];
        one.on_done(NULL, results, one.count, one.call, one.arg);
    }
    PQclear(rows);
}

#endif
