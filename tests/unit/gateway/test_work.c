/* The work thread: what runs there comes back on the loop, once and in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdlib.h>

#include "orchestrator/gateway/work.h"

#define ITEMS 300u /* more than may wait */
#define SOME  200u

struct sum {
    struct work_item item; /* first: the hooks get its address */
    struct bench *bench;
    uint64_t of;
    uint64_t result;
    pthread_t ran_on;
};

struct bench {
    struct event_base *base;
    struct work *work;
    struct sum sums[ITEMS];
    unsigned done;
};

static int run_sum(struct work_item *item, struct err *err)
{
    struct sum *sum = (struct sum *)(void *)item;

    sum->ran_on = pthread_self();
    for (uint64_t i = 1; i <= sum->of; i++)
        sum->result += i;
    return sum->of % 2 == 0 ? 0 : err_set(err, ERR_IO, "odd %u", (unsigned)sum->of);
}

static void on_sum(struct work_item *item, int rc, const struct err *err)
{
    struct sum *sum = (struct sum *)(void *)item;
    struct bench *bench = sum->bench;

    assert_ptr_equal(sum, &bench->sums[bench->done]);
    assert_int_equal(sum->result, sum->of * (sum->of + 1) / 2);
    assert_int_equal(rc, sum->of % 2 == 0 ? 0 : -ERR_IO);
    assert_int_equal(err->code, sum->of % 2 == 0 ? ERR_NONE : ERR_IO);
    assert_false(pthread_equal(sum->ran_on, pthread_self()));
    if (++bench->done == SOME)
        event_base_loopbreak(bench->base);
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof(*bench));

    bench->base = event_base_new();
    for (unsigned i = 0; i < ITEMS; i++) {
        bench->sums[i].item.run = run_sum;
        bench->sums[i].item.on_done = on_sum;
        bench->sums[i].bench = bench;
        bench->sums[i].of = 1000 + i;
    }
    *state = bench;
    return work_new(bench->base, &bench->work, NULL);
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    work_free(bench->work);
    event_base_free(bench->base);
    free(bench);
    return 0;
}

static void test_results_come_back_on_the_loop_in_order(void **state)
{
    struct bench *bench = *state;

    for (unsigned i = 0; i < SOME; i++)
        assert_true(work_post(bench->work, &bench->sums[i].item));
    assert_int_equal(work_waiting(bench->work), SOME);
    assert_true(event_base_dispatch(bench->base) >= 0);
    assert_int_equal(bench->done, SOME);
    assert_int_equal(work_waiting(bench->work), 0);
}

static void test_a_full_queue_refuses(void **state)
{
    struct bench *bench = *state;
    unsigned taken = 0;

    /* None is told before the loop turns: all of them count. */
    while (taken < ITEMS && work_post(bench->work, &bench->sums[taken].item))
        taken++;
    assert_int_equal(taken, 256);
    assert_int_equal(work_waiting(bench->work), 256);
}

static void test_freed_with_items_left_it_tells_none(void **state)
{
    struct bench *bench = *state;

    for (unsigned i = 0; i < SOME; i++)
        assert_true(work_post(bench->work, &bench->sums[i].item));
    work_free(bench->work);
    bench->work = NULL;
    assert_int_equal(bench->done, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_results_come_back_on_the_loop_in_order, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_full_queue_refuses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_freed_with_items_left_it_tells_none, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
