/* One connection of the gateway, asked for one party after the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/io/loop.h"
#include "orchestrator/gateway/db.h"
#include "tests/store/support_outside.h"

static const struct db_sight nobody = {0};

struct asked {
    struct event_base *base;
    struct db *db;
    int rows;
    uint32_t left;
};

static void on_asked(const struct err *err, PGresult *const *results, uint32_t count, uint64_t call,
                     void *arg)
{
    struct asked *asked = arg;

    (void)call;
    assert_int_equal(count, 1);
    asked->rows = err != NULL ? -1 : PQntuples(results[0]);
    if (--asked->left == 0)
        event_base_loopbreak(asked->base);
}

/* Asks for the fixture's job with the caller's rights said to be an operator's. */
static void ask(struct asked *asked, const struct db_sight *sight, const char *after)
{
    struct db_args args;

    db_args_init(&args, QUERY_EVENTS_AFTER);
    db_add_text(&args, "t");
    db_add_null(&args);
    db_add_text(&args, place_value("SELECT uid FROM job"));
    db_add_text(&args, after);
    db_add_text(&args, "{}");
    asked->left++;
    db_ask(asked->db, sight, &args, 1, on_asked, 0, asked);
}

/* Rows seen; -1 when the statement failed. */
static int seen(struct asked *asked, const struct db_sight *sight)
{
    ask(asked, sight, "0");
    event_base_dispatch(asked->base);
    return asked->rows;
}

static void fail_once(struct asked *asked, const struct db_sight *sight)
{
    ask(asked, sight, "no number");
    event_base_dispatch(asked->base);
    assert_int_equal(asked->rows, -1);
}

static void no_request_sees_with_the_eyes_of_the_one_before(void **state)
{
    struct asked asked = {.base = loop_new()};
    struct db_sight tenant = {.project = strtoll(place_value("SELECT project FROM job"), NULL, 10)};
    struct db_sight foreign = {.project = tenant.project + 7000};
    const struct db_sight *const sights[] = {&nobody, &tenant, &foreign, &db_sight_own};
    const int rows[] = {0, 2, 0, 2};

    (void)state;
    asked.db = db_new(asked.base, place_gateway(), 1);
    /* Every one after every one; after itself; after itself or another whose request failed. */
    for (int before = 0; before < 4; before++) {
        for (int now = 0; now < 4; now++) {
            assert_int_equal(seen(&asked, sights[before]), rows[before]);
            assert_int_equal(seen(&asked, sights[now]), rows[now]);
            assert_int_equal(seen(&asked, sights[now]), rows[now]);
            assert_int_equal(seen(&asked, sights[before]), rows[before]);
            fail_once(&asked, sights[now]);
            assert_int_equal(seen(&asked, sights[before]), rows[before]);
            fail_once(&asked, sights[now]);
            assert_int_equal(seen(&asked, sights[now]), rows[now]);
        }
    }
    db_free(asked.db);
    event_base_free(asked.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_request_sees_with_the_eyes_of_the_one_before),
    };

    return cmocka_run_group_tests_name("sight", tests, place_setup, place_teardown);
}
