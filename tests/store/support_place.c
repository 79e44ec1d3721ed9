#include "tests/store/support_place.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

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
