/* What the worker keeps comes back the same after any end, and belongs to one machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/core/checks.h"
#include "worker/core/home.h"
#include "worker/core/keep.h"

struct fixture {
    char root[64];
    struct settings settings;
    struct tasks *tasks;
    struct keep *keep;
};

static void reopen(struct fixture *fixture)
{
    struct err err = {0};

    keep_close(fixture->keep);
    fixture->keep = NULL;
    tasks_init(fixture->tasks);
    assert_int_equal(keep_open(fixture->root, fixture->tasks, &fixture->keep, &err), 0);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    snprintf(fixture->root, sizeof(fixture->root), "/tmp/sheaf-keep-XXXXXX");
    if (!mkdtemp(fixture->root))
        return -1;
    snprintf(fixture->settings.state, sizeof(fixture->settings.state), "%s", fixture->root);
    snprintf(fixture->settings.machine_id, sizeof(fixture->settings.machine_id), "%s/machine-id",
             fixture->root);
    fixture->tasks = calloc(1, sizeof(*fixture->tasks));
    reopen(fixture);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    keep_close(fixture->keep);
    free(fixture->tasks);
    (void)!fs_remove_tree(fixture->root, NULL);
    free(fixture);
    return 0;
}

static struct rank_task task_of(uint64_t attempt)
{
    struct rank_task task = {.id = {attempt, 2, 3, 1},
                             .job = {4},
                             .attempt_uid = {5},
                             .device = {0, 3},
                             .device_count = 2,
                             .phase = TASK_PHASE_STARTED,
                             .used_ms = 123456,
                             .port = 7701,
                             .exit_code = 143,
                             .reason = ERR_RANK_FAILED,
                             .class = FAIL_USER,
                             .detail = "why"};

    return task;
}

static void test_tasks_orders_and_counters_come_back(void **state)
{
    struct fixture *fixture = *state;
    struct rank_task task = task_of(9);
    const struct keep_task *kept;
    uint64_t boot = keep_counters(fixture->keep)->boot;

    keep_task_save(fixture->keep, &task);
    keep_task_order(fixture->keep, 9, 3, false, "prepare", 7);
    keep_task_order(fixture->keep, 9, 3, true, "go", 2);
    assert_int_equal(keep_receipt_next(fixture->keep), 1);
    assert_int_equal(keep_receipt_next(fixture->keep), 2);
    assert_int_equal(keep_commit(fixture->keep, NULL), 0);
    for (int i = 0; i < 3; i++) { /* replay of a rewrite of a replay */
        reopen(fixture);
        assert_int_equal(keep_counters(fixture->keep)->boot, boot + 1 + (uint64_t)i);
        assert_int_equal(fixture->tasks->count, 1);
        assert_memory_equal(&fixture->tasks->task[0], &task, sizeof(task));
        kept = keep_task_find(fixture->keep, 9, 3);
        assert_non_null(kept);
        assert_int_equal(kept->prepare_size, 7);
        assert_memory_equal(kept->prepare, "prepare", 7);
        assert_memory_equal(kept->go, "go", 2);
    }
    assert_int_equal(keep_receipt_next(fixture->keep), 3); /* a number is never used again */
}

static void test_dropped_tasks_leave_their_fence(void **state)
{
    struct fixture *fixture = *state;
    struct rank_task task = task_of(9);
    struct task_event event = {.kind = TASK_EV_PREPARE,
                               .id = {10, 2, 3, 0},
                               .job = task.job,
                               .attempt_uid = task.attempt_uid};
    struct task_actions out = {0};

    keep_task_save(fixture->keep, &task);
    keep_task_order(fixture->keep, 9, 3, false, "prepare", 7);
    keep_task_drop(fixture->keep, 9, 3);
    assert_int_equal(keep_commit(fixture->keep, NULL), 0);
    for (int i = 0; i < 2; i++) {
        reopen(fixture);
        assert_int_equal(fixture->tasks->count, 0);
        assert_null(keep_task_find(fixture->keep, 9, 3));
    }
    tasks_step(fixture->tasks, &event, 0, &out);
    assert_int_equal(out.count, 1);
    assert_int_equal(out.item[0].reason, ERR_WIRE_FENCE);
    task_actions_fini(&out);
}

static void test_messages_stay_until_acknowledged(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(keep_message_add(fixture->keep, "one", 3), 1);
    assert_int_equal(keep_message_add(fixture->keep, "two", 3), 2);
    assert_int_equal(keep_message_add(fixture->keep, "three", 5), 3);
    keep_message_ack(fixture->keep, 1);
    keep_message_ack(fixture->keep, 99); /* nothing of ours: not believed */
    assert_int_equal(keep_commit(fixture->keep, NULL), 0);
    reopen(fixture);
    assert_int_equal(keep_message_count(fixture->keep), 2);
    assert_int_equal(keep_message_at(fixture->keep, 0)->seq, 2);
    assert_memory_equal(keep_message_at(fixture->keep, 1)->bytes, "three", 5);
    keep_message_ack(fixture->keep, 3);
    assert_int_equal(keep_commit(fixture->keep, NULL), 0);
    reopen(fixture);
    assert_int_equal(keep_message_count(fixture->keep), 0);
    assert_int_equal(keep_message_next_seq(fixture->keep), 4);
    assert_int_equal(keep_counters(fixture->keep)->acked_seq, 3);
}

static void test_log_bounds_come_back(void **state)
{
    struct fixture *fixture = *state;
    struct rank_task task = task_of(9);
    struct keep_task *kept;
    struct keep_stream *stream;
    struct log_stream before;
    struct log_cut cut;

    keep_task_save(fixture->keep, &task);
    keep_task_order(fixture->keep, 9, 3, false, "prepare", 7);
    kept = keep_task_find(fixture->keep, 9, 3);
    stream = keep_task_stream(fixture->keep, kept, 1, 2);
    for (uint64_t size = 10; size <= 40; size += 10) {
        assert_true(log_stream_cut(&stream->log, size, size == 40, 77, &cut));
        keep_log_cut(fixture->keep, kept, stream, &cut);
    }
    log_stream_ack(&stream->log, 1);
    keep_log_ack(fixture->keep, kept, stream, 1);
    before = stream->log;
    assert_int_equal(keep_flush(fixture->keep, NULL), 0);
    for (int i = 0; i < 3; i++) {
        reopen(fixture);
        kept = keep_task_find(fixture->keep, 9, 3);
        stream = keep_task_stream(fixture->keep, kept, 1, 2);
        assert_int_equal(stream->log.flight_count, 2);
        assert_memory_equal(stream->log.flight, before.flight, 2 * sizeof(before.flight[0]));
        assert_int_equal(stream->log.next_seq, 4);
        assert_int_equal(stream->log.next_offset, 40);
        assert_true(stream->log.closed);
    }
    log_stream_ack(&stream->log, 3);
    keep_log_ack(fixture->keep, kept, stream, 3);
    assert_int_equal(keep_flush(fixture->keep, NULL), 0);
    for (int i = 0; i < 2; i++) {
        reopen(fixture);
        kept = keep_task_find(fixture->keep, 9, 3);
        stream = keep_task_stream(fixture->keep, kept, 1, 2);
        assert_true(log_stream_done(&stream->log));
        assert_int_equal(stream->log.next_seq, 4);
    }
}

/* -- the state folder -------------------------------------------------------------------------- */

static void write_machine(struct fixture *fixture, const char *id)
{
    assert_int_equal(fs_write(fixture->settings.machine_id, id, strlen(id), 0644, NULL), 0);
}

static void test_a_copied_folder_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct node_file node = {.control_count = 1, .joined_us = 5};
    struct node_file back;
    struct err err = {0};

    write_machine(fixture, "0123456789abcdef0123456789abcdef\n");
    assert_int_equal(home_load(&fixture->settings, &back, &err), -ERR_NOT_ENROLLED);
    assert_int_equal(home_machine(&fixture->settings, node.machine, &err), 0);
    node.node.bytes[3] = 7;
    snprintf(node.name, sizeof(node.name), "n1");
    snprintf(node.url, sizeof(node.url), "https://example.org");
    snprintf(node.control[0], sizeof(node.control[0]), "tcp://127.0.0.1:7000");
    memset(node.server_key, 1, KEY_SIZE);
    memset(node.sign_key, 2, KEY_SIZE);
    assert_int_equal(home_save(&fixture->settings, &node, &err), 0);
    assert_int_equal(home_load(&fixture->settings, &back, &err), 0);
    assert_memory_equal(&back, &node, sizeof(node));
    write_machine(fixture, "another-machine-of-the-same-owner\n");
    assert_int_equal(home_load(&fixture->settings, &back, &err), -ERR_STATE_CORRUPT);
    assert_non_null(strstr(err.text, "another machine"));
    assert_non_null(strstr(err.text, "--state"));
}

static void test_the_owner_s_wishes_are_kept(void **state)
{
    struct fixture *fixture = *state;
    struct owner_file owner = {.paused = true, .has_price = true, .price = 123456};
    struct owner_file back;
    struct err err = {0};

    assert_int_equal(home_load_owner(&fixture->settings, &back, &err), 0);
    assert_false(back.paused);
    assert_int_equal(home_save_owner(&fixture->settings, &owner, &err), 0);
    assert_int_equal(home_load_owner(&fixture->settings, &back, &err), 0);
    assert_true(back.paused);
    assert_int_equal(back.price, 123456);
}

static void test_inbound_is_none_behind_a_private_address(void **state)
{
    static const struct {
        const char *address;
        const char *control;
        bool none;
    } cases[] = {
        {"192.168.1.5", "203.0.113.7", true},    {"10.9.8.7", "pool.example.org", true},
        {"172.16.0.1", "203.0.113.7", true},     {"172.32.0.1", "203.0.113.7", false},
        {"100.64.1.1", "203.0.113.7", true},     {"100.128.1.1", "203.0.113.7", false},
        {"198.51.100.4", "203.0.113.7", false},  {"10.9.8.7", "10.9.8.1", false},
        {"127.0.0.1", "127.0.0.1", false},       {"fd00::5", "2001:db8::1", true},
        {"2001:db8:1::5", "2001:db8::1", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if ((checks_inbound(cases[i].address, cases[i].control) != NULL) != cases[i].none)
            fail_msg("%s seen from %s", cases[i].address, cases[i].control);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tasks_orders_and_counters_come_back, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_dropped_tasks_leave_their_fence, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_messages_stay_until_acknowledged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_log_bounds_come_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_copied_folder_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_owner_s_wishes_are_kept, set_up, tear_down),
        cmocka_unit_test(test_inbound_is_none_behind_a_private_address),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
