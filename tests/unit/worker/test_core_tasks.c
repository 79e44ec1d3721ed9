/* The task machine: every (phase, event) pair, fencing, repeats, devices, time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/core/tasks.h"

static const uint8_t job_a[16] = {1};
static const uint8_t job_b[16] = {2};
static const uint8_t uid[16] = {9};
static const uint32_t device_0[] = {0};

static struct tasks *tasks_new(void)
{
    struct tasks *tasks = calloc(1, sizeof(*tasks));

    assert_non_null(tasks);
    tasks_init(tasks);
    return tasks;
}

static struct task_event event_of(enum task_event_kind kind, uint64_t attempt, uint32_t epoch)
{
    struct task_event event = {.kind = kind,
                               .id = {.attempt = attempt, .term = 1, .epoch = epoch, .rank = 0},
                               .job = job_a,
                               .attempt_uid = uid,
                               .device = device_0,
                               .device_count = 1};

    if (kind == TASK_EV_FAILED)
        event.reason = ERR_IO;
    if (kind == TASK_EV_OUTPUTS_LOST)
        event.class = FAIL_PROVIDER;
    if (kind == TASK_EV_PREPARED)
        event.port = 7700;
    if (kind == TASK_EV_RECLAIM)
        event.notice_us = 1000;
    return event;
}

/* Brings attempt 5 of job_a into a phase. */
static void drive(struct tasks *tasks, enum task_phase phase)
{
    static const enum task_event_kind way[] = {TASK_EV_PREPARE, TASK_EV_FETCHED, TASK_EV_PREPARED,
                                               TASK_EV_GO,      TASK_EV_STARTED, TASK_EV_EXITED,
                                               TASK_EV_OUTPUTS, TASK_EV_LOGS};
    static const unsigned steps[TASK_PHASE_COUNT] = {1, 2, 3, 4, 5, 6, 8, 1};
    struct task_actions out = {0};

    for (unsigned i = 0; i < steps[phase]; i++) {
        struct task_event event = event_of(way[i], 5, 3);

        tasks_step(tasks, &event, 100, &out);
    }
    if (phase == TASK_PHASE_REFUSED) {
        struct task_event event = event_of(TASK_EV_FAILED, 5, 3);

        tasks_step(tasks, &event, 100, &out);
    }
    task_actions_fini(&out);
    assert_int_equal(tasks_find(tasks, 5, 3)->phase, phase);
}

/* "news:ready save kill …" of the actions. */
static void write_actions(const struct task_actions *out, char text[512])
{
    static const char *const names[TASK_ACT_COUNT] = {"save",  "drop",    "news",    "receipt",
                                                      "fetch", "prepare", "release", "stop",
                                                      "kill",  "collect", "clean"};
    size_t used = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < out->count; i++) {
        const struct task_action *action = &out->item[i];

        used += (size_t)snprintf(text + used, 512 - used, "%s%s%s%s", i ? " " : "",
                                 names[action->kind], action->kind == TASK_ACT_NEWS ? ":" : "",
                                 action->kind == TASK_ACT_NEWS ? rank_news_name(action->news) : "");
    }
}

struct move {
    const char *to; /* phase, "gone", or NULL = unchanged */
    const char *actions;
};

#define FETCHING   [TASK_PHASE_FETCHING]
#define PREPARING  [TASK_PHASE_PREPARING]
#define READY      [TASK_PHASE_READY]
#define RELEASED   [TASK_PHASE_RELEASED]
#define STARTED    [TASK_PHASE_STARTED]
#define COLLECTING [TASK_PHASE_COLLECTING]
#define DONE       [TASK_PHASE_DONE]
#define REFUSED    [TASK_PHASE_REFUSED]

/* The whole machine: what is not listed changes nothing and does nothing. */
static const struct move table[TASK_EV_COUNT][TASK_PHASE_COUNT] = {
    [TASK_EV_PREPARE] = {FETCHING = {NULL, "news:preparing"}, PREPARING = {NULL, "news:preparing"},
                         READY = {NULL, "news:ready"}, RELEASED = {NULL, "news:ready"},
                         STARTED = {NULL, "news:started"}, COLLECTING = {NULL, "news:exited"},
                         DONE = {NULL, "news:done"}, REFUSED = {NULL, "news:refused"}},
    [TASK_EV_GO] = {FETCHING = {NULL, "news:preparing"}, PREPARING = {NULL, "news:preparing"},
                    READY = {"released", "save release"}, RELEASED = {NULL, "news:ready"},
                    STARTED = {NULL, "news:started"}, COLLECTING = {NULL, "news:exited"},
                    DONE = {NULL, "news:done"}, REFUSED = {NULL, "news:refused"}},
    [TASK_EV_STOP] = {FETCHING = {"done", "save news:exited save clean news:done"},
                      PREPARING = {NULL, "save kill"}, READY = {NULL, "save kill"},
                      RELEASED = {NULL, "save stop"}, STARTED = {NULL, "save stop"},
                      COLLECTING = {NULL, "news:exited"}, DONE = {NULL, "news:done"},
                      REFUSED = {NULL, "news:refused"}},
    [TASK_EV_FORGET] = {FETCHING = {"gone", "clean drop"}, PREPARING = {NULL, "save kill"},
                        READY = {NULL, "save kill"}, RELEASED = {NULL, "save kill"},
                        STARTED = {NULL, "save kill"}, COLLECTING = {"gone", "clean drop"},
                        DONE = {"gone", "clean drop"}, REFUSED = {"gone", "clean drop"}},
    [TASK_EV_PROGRESS] = {FETCHING = {NULL, "news:progress"}},
    [TASK_EV_FETCHED] = {FETCHING = {"preparing", "save prepare"}},
    [TASK_EV_PREPARED] = {PREPARING = {"ready", "save news:ready"}},
    [TASK_EV_FAILED] = {FETCHING = {"refused", "save news:refused clean"},
                        PREPARING = {"refused", "save news:refused clean"},
                        READY = {NULL, "save kill"}, RELEASED = {NULL, "save kill"}},
    [TASK_EV_STARTED] = {RELEASED = {"started", "save receipt news:started"}},
    [TASK_EV_EXITED] = {PREPARING = {"refused", "save news:refused clean"},
                        READY = {"done", "save news:exited save clean news:done"},
                        RELEASED = {"collecting", "save receipt news:exited collect"},
                        STARTED = {"collecting", "save receipt news:exited collect"}},
    [TASK_EV_OUTPUTS_LOST] = {COLLECTING = {NULL, "save"}},
    [TASK_EV_LOST] = {PREPARING = {"refused", "save news:refused clean"},
                      READY = {"done", "save news:exited save clean news:done"},
                      RELEASED = {"collecting", "save receipt news:exited collect"},
                      STARTED = {"collecting", "save receipt news:exited collect"}},
    [TASK_EV_RECLAIM] = {FETCHING = {"refused", "save news:refused clean"},
                         PREPARING = {NULL, "save kill"}, READY = {NULL, "save kill"},
                         RELEASED = {NULL, "save"}, STARTED = {NULL, "save"}},
};

static void test_every_phase_meets_every_event(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < TASK_EV_COUNT; kind++) {
        for (unsigned phase = 0; phase < TASK_PHASE_COUNT; phase++) {
            const struct move *move = &table[kind][phase];
            const char *to = move->to ? move->to : task_phase_name((enum task_phase)phase);
            struct task_event event = event_of((enum task_event_kind)kind, 5, 3);
            struct tasks *tasks = tasks_new();
            struct task_actions out = {0};
            const struct rank_task *task;
            char text[512];

            drive(tasks, (enum task_phase)phase);
            tasks_step(tasks, &event, 200, &out);
            write_actions(&out, text);
            task = tasks_find(tasks, 5, 3);
            if (strcmp(text, move->actions ? move->actions : "") != 0
                || strcmp(to, task ? task_phase_name(task->phase) : "gone") != 0)
                fail_msg("event %u in phase %s: to %s, did '%s', wanted %s, '%s'", kind,
                         task_phase_name((enum task_phase)phase),
                         task ? task_phase_name(task->phase) : "gone", text, to,
                         move->actions ? move->actions : "");
            task_actions_fini(&out);
            free(tasks);
        }
    }
}

static struct task_actions step(struct tasks *tasks, struct task_event event, int64_t now_us)
{
    struct task_actions out = {0};

    tasks_step(tasks, &event, now_us, &out);
    return out;
}

static const struct task_action *find_news(const struct task_actions *out, enum rank_news news)
{
    for (uint32_t i = 0; i < out->count; i++) {
        if (out->item[i].kind == TASK_ACT_NEWS && out->item[i].news == news)
            return &out->item[i];
    }
    return NULL;
}

static void test_both_deliveries_make_it_done(void **state)
{
    static const enum task_event_kind orders[2][2] = {{TASK_EV_OUTPUTS, TASK_EV_LOGS},
                                                      {TASK_EV_LOGS, TASK_EV_OUTPUTS}};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct tasks *tasks = tasks_new();
        struct task_actions out;

        drive(tasks, TASK_PHASE_COLLECTING);
        out = step(tasks, event_of(orders[i][0], 5, 3), 200);
        assert_int_equal(out.count, 0);
        out = step(tasks, event_of(orders[i][1], 5, 3), 200);
        assert_non_null(find_news(&out, RANK_NEWS_DONE));
        task_actions_fini(&out);
        free(tasks);
    }
}

static void test_older_epoch_is_refused_with_fence(void **state)
{
    struct tasks *tasks = tasks_new();
    const struct task_action *news;
    struct task_actions out;

    (void)state;
    drive(tasks, TASK_PHASE_STARTED);
    out = step(tasks, event_of(TASK_EV_PREPARE, 4, 2), 200);
    news = find_news(&out, RANK_NEWS_REFUSED);
    assert_non_null(news);
    assert_int_equal(news->reason, ERR_WIRE_FENCE);
    assert_int_equal(news->id.epoch, 2);
    assert_int_equal(tasks_find(tasks, 5, 3)->phase, TASK_PHASE_STARTED);
    task_actions_fini(&out);
    /* Also after the newer one is forgotten. */
    drive(tasks, TASK_PHASE_STARTED);
    out = step(tasks, event_of(TASK_EV_EXITED, 5, 3), 200);
    task_actions_fini(&out);
    out = step(tasks, event_of(TASK_EV_FORGET, 5, 3), 200);
    task_actions_fini(&out);
    assert_null(tasks_find(tasks, 5, 3));
    out = step(tasks, event_of(TASK_EV_PREPARE, 5, 3), 200);
    news = find_news(&out, RANK_NEWS_REFUSED);
    assert_non_null(news);
    assert_int_equal(news->reason, ERR_WIRE_FENCE);
    assert_int_equal(tasks->count, 0);
    task_actions_fini(&out);
    free(tasks);
}

static void test_lower_epoch_of_the_same_attempt_is_refused(void **state)
{
    static const enum task_event_kind kinds[] = {TASK_EV_GO, TASK_EV_STOP};
    struct tasks *tasks = tasks_new();

    (void)state;
    drive(tasks, TASK_PHASE_STARTED);
    for (size_t i = 0; i < 2; i++) {
        struct task_actions out = step(tasks, event_of(kinds[i], 5, 2), 200);
        const struct task_action *news = find_news(&out, RANK_NEWS_REFUSED);

        assert_int_equal(out.count, 1);
        assert_non_null(news);
        assert_int_equal(news->reason, ERR_WIRE_FENCE);
        task_actions_fini(&out);
    }
    assert_false(tasks_find(tasks, 5, 3)->stopping);
    free(tasks);
}

static void test_newer_epoch_kills_the_older_and_waits_for_its_devices(void **state)
{
    struct tasks *tasks = tasks_new();
    struct task_actions out;
    char text[512];

    (void)state;
    drive(tasks, TASK_PHASE_STARTED);
    out = step(tasks, event_of(TASK_EV_PREPARE, 6, 4), 200);
    write_actions(&out, text);
    assert_string_equal(text, "save kill save news:preparing fetch");
    task_actions_fini(&out);
    out = step(tasks, event_of(TASK_EV_FETCHED, 6, 4), 200);
    assert_int_equal(out.count, 0); /* the device is not free yet */
    out = step(tasks, event_of(TASK_EV_EXITED, 5, 3), 200);
    write_actions(&out, text);
    assert_string_equal(text, "clean drop save prepare");
    assert_null(tasks_find(tasks, 5, 3));
    task_actions_fini(&out);
    free(tasks);
}

static void test_device_in_use_is_refused(void **state)
{
    struct tasks *tasks = tasks_new();
    struct task_event event = event_of(TASK_EV_PREPARE, 8, 1);
    const struct task_action *news;
    struct task_actions out;

    (void)state;
    drive(tasks, TASK_PHASE_STARTED);
    event.job = job_b;
    out = step(tasks, event, 200);
    news = find_news(&out, RANK_NEWS_REFUSED);
    assert_non_null(news);
    assert_int_equal(news->reason, ERR_NODE_REFUSED);
    assert_int_equal(news->class, FAIL_CAPACITY);
    task_actions_fini(&out);
    free(tasks);
}

static void test_closed_worker_refuses(void **state)
{
    struct tasks *tasks = tasks_new();
    const struct task_action *news;
    struct task_actions out;

    (void)state;
    tasks->closed = ERR_OWNER_RECLAIMED;
    out = step(tasks, event_of(TASK_EV_PREPARE, 5, 3), 200);
    news = find_news(&out, RANK_NEWS_REFUSED);
    assert_non_null(news);
    assert_int_equal(news->reason, ERR_OWNER_RECLAIMED);
    assert_int_equal(news->class, FAIL_INTERRUPTION);
    task_actions_fini(&out);
    free(tasks);
}

static void test_orders_for_unknown_tasks_are_answered(void **state)
{
    struct tasks *tasks = tasks_new();
    const struct task_action *news;
    struct task_actions out;

    (void)state;
    out = step(tasks, event_of(TASK_EV_GO, 7, 1), 200);
    news = find_news(&out, RANK_NEWS_REFUSED);
    assert_non_null(news);
    assert_int_equal(news->reason, ERR_TASK_LOST);
    task_actions_fini(&out);
    out = step(tasks, event_of(TASK_EV_STOP, 7, 1), 200);
    news = find_news(&out, RANK_NEWS_DONE);
    assert_non_null(news);
    assert_int_not_equal(news->exit_code, 0);
    task_actions_fini(&out);
    out = step(tasks, event_of(TASK_EV_FORGET, 7, 1), 200);
    assert_int_equal(out.count, 0);
    free(tasks);
}

static void test_exit_reasons(void **state)
{
    static const struct {
        int32_t code;
        bool oom;
        bool broken;
        enum err_code reason;
        enum fail_class class;
    } cases[] = {
        {0, false, false, ERR_COMPLETED, FAIL_NONE},
        {3, false, false, ERR_RANK_FAILED, FAIL_USER},
        {137, true, false, ERR_RANK_FAILED, FAIL_USER},
        {125, false, true, ERR_NODE_REFUSED, FAIL_PROVIDER},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tasks *tasks = tasks_new();
        struct task_event event = event_of(TASK_EV_EXITED, 5, 3);
        const struct task_action *news;
        struct task_actions out;

        drive(tasks, TASK_PHASE_STARTED);
        event.exit_code = cases[i].code;
        event.oom = cases[i].oom;
        event.broken = cases[i].broken;
        out = step(tasks, event, 200);
        news = find_news(&out, RANK_NEWS_EXITED);
        assert_non_null(news);
        assert_int_equal(news->exit_code, cases[i].code);
        assert_int_equal(news->reason, cases[i].reason);
        assert_int_equal(news->class, cases[i].class);
        task_actions_fini(&out);
        free(tasks);
    }
}

static void test_stop_keeps_its_reason(void **state)
{
    struct tasks *tasks = tasks_new();
    struct task_event stop = event_of(TASK_EV_STOP, 5, 3);
    struct task_event gone = event_of(TASK_EV_EXITED, 5, 3);
    const struct task_action *news;
    struct task_actions out;

    (void)state;
    drive(tasks, TASK_PHASE_STARTED);
    stop.reason = ERR_CANCELLED_BY_USER;
    out = step(tasks, stop, 200);
    task_actions_fini(&out);
    gone.exit_code = 143;
    out = step(tasks, gone, 200);
    news = find_news(&out, RANK_NEWS_EXITED);
    assert_non_null(news);
    assert_int_equal(news->reason, ERR_CANCELLED_BY_USER);
    assert_int_equal(news->exit_code, 143);
    task_actions_fini(&out);
    free(tasks);
}

static void test_notice_then_interruption(void **state)
{
    struct tasks *tasks = tasks_new();
    struct task_event reclaim = event_of(TASK_EV_RECLAIM, 5, 3);
    struct task_event tick = {.kind = TASK_EV_TICK};
    struct task_event gone = event_of(TASK_EV_EXITED, 5, 3);
    const struct task_action *news;
    struct task_actions out;
    char text[512];

    (void)state;
    drive(tasks, TASK_PHASE_STARTED);
    reclaim.notice_us = 5000;
    out = step(tasks, reclaim, 200);
    task_actions_fini(&out);
    out = step(tasks, tick, 4999);
    assert_int_equal(out.count, 0);
    out = step(tasks, tick, 5000);
    write_actions(&out, text);
    assert_string_equal(text, "save stop");
    task_actions_fini(&out);
    gone.exit_code = 143;
    out = step(tasks, gone, 6000);
    news = find_news(&out, RANK_NEWS_EXITED);
    assert_non_null(news);
    assert_int_equal(news->reason, ERR_OWNER_RECLAIMED);
    assert_int_equal(news->class, FAIL_INTERRUPTION);
    task_actions_fini(&out);
    free(tasks);
}

static void test_relent_ends_the_notice(void **state)
{
    struct tasks *tasks = tasks_new();
    struct task_event reclaim = event_of(TASK_EV_RECLAIM, 5, 3);
    struct task_event tick = {.kind = TASK_EV_TICK};
    struct task_actions out;

    (void)state;
    drive(tasks, TASK_PHASE_STARTED);
    reclaim.notice_us = 5000;
    out = step(tasks, reclaim, 200);
    task_actions_fini(&out);
    out = step(tasks, event_of(TASK_EV_RELENT, 5, 3), 300);
    task_actions_fini(&out);
    out = step(tasks, tick, 9000);
    assert_int_equal(out.count, 0);
    free(tasks);
}

static void test_time_ends_collecting_and_lingering(void **state)
{
    struct tasks *tasks = tasks_new();
    struct task_event tick = {.kind = TASK_EV_TICK};
    struct task_actions out;

    (void)state;
    drive(tasks, TASK_PHASE_COLLECTING);
    out = step(tasks, tick, 100 + TASKS_COLLECT_US - 1);
    assert_int_equal(out.count, 0);
    out = step(tasks, tick, 100 + TASKS_COLLECT_US);
    assert_non_null(find_news(&out, RANK_NEWS_DONE));
    assert_int_equal(find_news(&out, RANK_NEWS_DONE)->reason, ERR_OUTPUT_LOST);
    assert_int_equal(find_news(&out, RANK_NEWS_DONE)->class, FAIL_PROVIDER);
    task_actions_fini(&out);
    out = step(tasks, tick, 100 + TASKS_COLLECT_US + TASKS_LINGER_US);
    assert_int_equal(tasks->count, 0);
    task_actions_fini(&out);
    free(tasks);
}

/* Logs go on; a rank that failed by itself keeps its reason. */
static void test_lost_outputs_are_told_with_the_end(void **state)
{
    for (int failed = 0; failed < 2; failed++) {
        struct tasks *tasks = tasks_new();
        struct task_event ended = event_of(TASK_EV_EXITED, 5, 3);
        const struct task_action *done;
        struct task_actions out;

        (void)state;
        drive(tasks, TASK_PHASE_STARTED);
        ended.exit_code = failed;
        out = step(tasks, ended, 200);
        task_actions_fini(&out);
        out = step(tasks, event_of(TASK_EV_OUTPUTS_LOST, 5, 3), 300);
        assert_null(find_news(&out, RANK_NEWS_DONE));
        task_actions_fini(&out);
        out = step(tasks, event_of(TASK_EV_LOGS, 5, 3), 400);
        done = find_news(&out, RANK_NEWS_DONE);
        assert_non_null(done);
        assert_int_equal(done->reason, failed ? ERR_RANK_FAILED : ERR_OUTPUT_LOST);
        assert_int_equal(done->class, failed ? FAIL_USER : FAIL_PROVIDER);
        task_actions_fini(&out);
        free(tasks);
    }
}

static void test_used_time_never_decreases(void **state)
{
    struct tasks *tasks = tasks_new();
    struct task_event gone = event_of(TASK_EV_EXITED, 5, 3);
    struct task_actions out;

    (void)state;
    drive(tasks, TASK_PHASE_STARTED);
    tasks_find(tasks, 5, 3)->used_ms = 9000;
    gone.used_ms = 4000;
    out = step(tasks, gone, 200);
    assert_int_equal(tasks_find(tasks, 5, 3)->used_ms, 9000);
    task_actions_fini(&out);
    free(tasks);
}

static void test_table_is_bounded(void **state)
{
    struct tasks *tasks = tasks_new();
    const struct task_action *news;
    struct task_actions out;
    uint8_t job[16] = {0};

    (void)state;
    for (uint32_t i = 0; i <= TASKS_MAX; i++) {
        struct task_event event = event_of(TASK_EV_PREPARE, 100 + i, 1);

        job[0] = (uint8_t)(10 + i);
        event.job = job;
        event.device_count = 0;
        out = step(tasks, event, 100);
        news = find_news(&out, RANK_NEWS_REFUSED);
        if (i < TASKS_MAX) {
            assert_null(news);
        } else {
            assert_non_null(news);
            assert_int_equal(news->reason, ERR_TOO_MANY);
        }
        task_actions_fini(&out);
    }
    assert_int_equal(tasks->count, TASKS_MAX);
    free(tasks);
}

static void test_fences_are_a_ring(void **state)
{
    struct tasks *tasks = tasks_new();
    uint8_t job[16] = {0};

    (void)state;
    for (uint32_t i = 0; i < TASKS_MAX_FENCES + 5; i++) {
        memcpy(job, &i, sizeof(i));
        tasks_fence(tasks, job, 7);
    }
    assert_int_equal(tasks->fence_count, TASKS_MAX_FENCES);
    assert_int_equal(tasks->fence_next, 5);
    tasks_fence(tasks, job, 3); /* never down */
    for (uint32_t i = 0; i < tasks->fence_count; i++)
        assert_int_equal(tasks->fence[i].epoch, 7);
    free(tasks);
}

/* The machine was up for days before the worker restarted: its clock says nothing of the wait. */
static void test_waits_begin_anew_after_a_start(void **state)
{
    struct tasks *before = tasks_new();
    struct tasks *after = tasks_new();
    const int64_t now = 100 * TASKS_COLLECT_US;
    struct task_actions out;

    (void)state;
    drive(before, TASK_PHASE_COLLECTING);
    assert_true(tasks_restore(after, tasks_find(before, 5, 3)));
    tasks_resume(after, now);
    out = step(after, event_of(TASK_EV_TICK, 0, 0), now + 1000000);
    assert_int_equal(out.count, 0);
    out = step(after, event_of(TASK_EV_TICK, 0, 0), now + TASKS_COLLECT_US);
    assert_non_null(find_news(&out, RANK_NEWS_DONE));
    task_actions_fini(&out);
    free(before);
    free(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waits_begin_anew_after_a_start),
        cmocka_unit_test(test_every_phase_meets_every_event),
        cmocka_unit_test(test_both_deliveries_make_it_done),
        cmocka_unit_test(test_older_epoch_is_refused_with_fence),
        cmocka_unit_test(test_lower_epoch_of_the_same_attempt_is_refused),
        cmocka_unit_test(test_newer_epoch_kills_the_older_and_waits_for_its_devices),
        cmocka_unit_test(test_device_in_use_is_refused),
        cmocka_unit_test(test_closed_worker_refuses),
        cmocka_unit_test(test_orders_for_unknown_tasks_are_answered),
        cmocka_unit_test(test_exit_reasons),
        cmocka_unit_test(test_stop_keeps_its_reason),
        cmocka_unit_test(test_notice_then_interruption),
        cmocka_unit_test(test_relent_ends_the_notice),
        cmocka_unit_test(test_time_ends_collecting_and_lingering),
        cmocka_unit_test(test_lost_outputs_are_told_with_the_end),
        cmocka_unit_test(test_used_time_never_decreases),
        cmocka_unit_test(test_table_is_bounded),
        cmocka_unit_test(test_fences_are_a_ring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
