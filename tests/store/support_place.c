#include "tests/store/support_place.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/store/support_outside.h"
#include "tests/store/support_rows.h"

struct place place;

int place_setup(void **state)
{
    struct bench bench;
    struct fixture fixture;
    int rc = db_group_setup(state);

    if (rc != 0)
        return rc;
    place.db = db_fresh(true);
    bench_open(&bench, place.db.orchestrator);
    fixture_init(&fixture);
    if (bench_commit(&bench, fixture.row, fixture.count) != COMMIT_DONE)
        fail_msg("%s", bench.err.text);
    bench_close(&bench);
    fixture_fini(&fixture);
    place.owner = db_connect(place.db.owner);
    place.gateway = db_connect(place.db.gateway);
    db_run(place.owner, "UPDATE token SET \"user\" = (SELECT id FROM app_user)");
    db_run(place.owner, "INSERT INTO log_piece"
                        " SELECT 1, uid, 0, 1, 0, 1, 1, true, 'x' FROM attempt");
    db_run(place.owner, "INSERT INTO job_event SELECT 900, job, id, created_us, 'queued',"
                        " 'preparing', NULL, 'none', '' FROM attempt");
    return 0;
}

int place_teardown(void **state)
{
    PQfinish(place.owner);
    PQfinish(place.gateway);
    return db_group_teardown(state);
}

const char *place_gateway(void)
{
    return place.db.gateway;
}

const char *place_value(const char *sql)
{
    return db_value(place.owner, sql);
}
