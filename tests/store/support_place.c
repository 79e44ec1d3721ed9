#include "tests/store/support_place.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/store/support_outside.h"

struct place shared_place;
PGconn *shared_gateway;

struct place place_make(void)
{
    struct place place = {.db = db_fresh(true)};
    struct bench bench;
    struct fixture fixture;

    bench_open(&bench, place.db.orchestrator);
    fixture_init(&fixture);
    if (bench_commit(&bench, fixture.row, fixture.count) != COMMIT_DONE)
        fail_msg("%s", bench.err.text);
    bench_close(&bench);
    fixture_fini(&fixture);
    place.owner = db_connect(place.db.owner);
    return place;
}

void refuse_all(PGconn *connection, const struct refusal *refusals, size_t count)
{
    for (size_t i = 0; i < count; i++)
        db_refused(connection, refusals[i].sql, refusals[i].sqlstate, refusals[i].constraint);
}

int place_setup(void **state)
{
    int rc = db_group_setup(state);

    if (rc != 0)
        return rc;
    shared_place = place_make();
    shared_gateway = db_connect(shared_place.db.gateway);
    db_run(shared_place.owner, "UPDATE token SET \"user\" = (SELECT id FROM app_user)");
    db_run(shared_place.owner, "INSERT INTO log_piece"
                               " SELECT 1, uid, 0, 1, 0, 1, 1, true, 'x' FROM attempt");
    db_run(shared_place.owner, "INSERT INTO job_event SELECT 900, job, id, created_us, 'queued',"
                               " 'preparing', NULL, 'none', '' FROM attempt");
    return 0;
}

int place_teardown(void **state)
{
    PQfinish(shared_place.owner);
    PQfinish(shared_gateway);
    return db_group_teardown(state);
}

const char *place_gateway(void)
{
    return shared_place.db.gateway;
}

const char *place_value(const char *sql)
{
    return db_value(shared_place.owner, sql);
}
