/* The environment of each launch mode, and log pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "worker/core/logs.h"
#include "worker/core/rank_env.h"
#include "worker/core/settings.h"

static const char *get(const struct spec_texts *env, const char *name)
{
    size_t length = strlen(name);

    for (uint32_t i = 0; i < env->count; i++) {
        if (strncmp(env->items[i], name, length) == 0 && env->items[i][length] == '=')
            return env->items[i] + length + 1;
    }
    return NULL;
}

static void make_plan(const struct job_spec *spec, struct runtime_plan *plan)
{
    struct rank_plan rank = {.spec = spec,
                             .job_id = "0192",
                             .job_name = "ddp",
                             .project = "lab",
                             .epoch = 3,
                             .rank = 1,
                             .ranks = 4,
                             .device_count = 2,
                             .vram_mib = 24000,
                             .address = "10.0.0.2",
                             .interface = "eth1"};

    memset(plan, 0, sizeof(*plan));
    rank_env_prepare(&rank, plan);
}

static void test_common_environment(void **state)
{
    static const char *const pairs[][2] = {
        {"SHEAF_JOB_ID", "0192"},
        {"SHEAF_JOB_NAME", "ddp"},
        {"SHEAF_PROJECT", "lab"},
        {"SHEAF_ATTEMPT", "2"},
        {"SHEAF_EPOCH", "3"},
        {"SHEAF_NODES_NUM", "4"},
        {"SHEAF_NODE_RANK", "1"},
        {"SHEAF_NODE_IP", "10.0.0.2"},
        {"SHEAF_GPUS_NUM", "8"},
        {"SHEAF_GPUS_PER_NODE", "2"},
        {"SHEAF_VRAM_MIB", "24000"},
        {"NNODES", "4"},
        {"NODE_RANK", "1"},
        {"GLOO_SOCKET_IFNAME", "eth1"},
        {"MINE", "x=y"},
        {"NCCL_SOCKET_IFNAME", "ib0"}, /* the tenant's word */
    };
    struct job_spec spec;
    struct runtime_plan plan;

    (void)state;
    spec_init(&spec);
    spec_texts_add(&spec.env, "MINE=x=y");
    spec_texts_add(&spec.env, "NCCL_SOCKET_IFNAME=ib0");
    make_plan(&spec, &plan);
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        assert_non_null(get(&plan.env, pairs[i][0]));
        assert_string_equal(get(&plan.env, pairs[i][0]), pairs[i][1]);
    }
    rank_env_fini_procs(&plan);
    spec_fini(&spec);
}

static void test_launch_modes(void **state)
{
    static const struct {
        enum launch launch;
        uint32_t processes;
        const char *rank[2];
        const char *world;
        const char *local[2];
        uint32_t log_rank[2];
    } cases[] = {
        {LAUNCH_NODE, 1, {"1", NULL}, "4", {NULL, NULL}, {1, 0}},
        {LAUNCH_DEVICE, 2, {"2", "3"}, "8", {"0", "1"}, {2, 3}},
        {LAUNCH_NONE, 1, {NULL, NULL}, NULL, {NULL, NULL}, {1, 0}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct job_spec spec;
        struct runtime_plan plan;

        spec_init(&spec);
        spec.launch = cases[i].launch;
        make_plan(&spec, &plan);
        assert_int_equal(plan.proc_count, cases[i].processes);
        for (uint32_t k = 0; k < plan.proc_count; k++) {
            const struct spec_texts *env = &plan.proc[k].env;
            const char *want[] = {cases[i].rank[k], cases[i].world, cases[i].local[k]};
            const char *got[] = {get(env, "RANK"), get(env, "WORLD_SIZE"), get(env, "LOCAL_RANK")};

            assert_int_equal(plan.proc[k].rank, cases[i].log_rank[k]);
            for (size_t n = 0; n < 3; n++) {
                if (want[n])
                    assert_string_equal(got[n], want[n]);
                else
                    assert_null(got[n]);
            }
        }
        assert_null(get(&plan.env, "RANK"));
        assert_null(get(&plan.env, "WORLD_SIZE"));
        rank_env_fini_procs(&plan);
        spec_fini(&spec);
    }
}

static void test_environment_of_the_barrier(void **state)
{
    static const char *const address[] = {"10.0.0.1", "10.0.0.2", "10.0.0.3"};
    static const uint32_t port[] = {7701, 7702, 7703};
    static const uint32_t pairs[] = {0, 1, 2, 1, 0, 3, 2, 3, 0};
    struct rank_go go = {address, port, 3, 2400000};
    struct spec_texts env = {0};
    char *text;

    (void)state;
    rank_env_go(&go, &env);
    assert_string_equal(get(&env, "SHEAF_NODES_IPS"), "10.0.0.1\n10.0.0.2\n10.0.0.3");
    assert_string_equal(get(&env, "MASTER_ADDR"), "10.0.0.1");
    assert_string_equal(get(&env, "MASTER_PORT"), "7701");
    assert_string_equal(get(&env, "SHEAF_PRICE_HOUR"), "2.40");
    assert_string_equal(get(&env, "SHEAF_RANK_WEIGHT"), "1,1,1");
    assert_non_null(get(&env, "SHEAF_PAIR_RTT_FILE"));
    text = rank_env_pair_json(pairs, 3);
    assert_string_equal(text, "{\"ranks\":3,\"unit\":\"us\",\"rtt\":[[0,1,2],[1,0,3],[2,3,0]]}\n");
    free(text);
    spec_texts_fini(&env);
}

/* -- log pieces -------------------------------------------------------------------------------- */

static void test_pieces_cover_the_file_once(void **state)
{
    static const uint64_t sizes[] = {0, 1, 1, 700, LOGS_MAX_PIECE + 700, 800000, 800001, 800001};
    struct log_stream stream = {0};
    struct log_cut cut;
    uint64_t next = 0;
    uint64_t seq = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        bool ended = i + 1 == sizeof(sizes) / sizeof(sizes[0]);

        while (log_stream_cut(&stream, sizes[i], ended, 5, &cut)) {
            assert_int_equal(cut.seq, seq++);
            assert_int_equal(cut.offset, next);
            assert_true(cut.size <= LOGS_MAX_PIECE);
            next += cut.size;
            assert_int_equal(cut.last, ended && next == sizes[i]);
        }
        assert_int_equal(next, sizes[i]);
    }
    assert_true(stream.closed);
    assert_false(log_stream_done(&stream));
    log_stream_ack(&stream, seq - 1);
    assert_true(log_stream_done(&stream));
    assert_false(log_stream_cut(&stream, 900000, true, 5, &cut)); /* nothing after the last */
}

static void test_silence_has_no_piece(void **state)
{
    struct log_stream stream = {0};
    struct log_cut cut;

    (void)state;
    assert_false(log_stream_cut(&stream, 0, false, 5, &cut));
    assert_false(log_stream_done(&stream));
    assert_false(log_stream_cut(&stream, 0, true, 5, &cut));
    assert_true(log_stream_done(&stream));
    assert_null(log_stream_next(&stream));
}

static void test_window_is_bounded_and_opens_by_acks(void **state)
{
    struct log_stream stream = {0};
    struct log_cut cut;
    uint32_t count = 0;

    (void)state;
    while (log_stream_cut(&stream, 100 * (uint64_t)LOGS_MAX_PIECE, false, 5, &cut))
        count++;
    assert_int_equal(count, LOGS_MAX_IN_FLIGHT);
    log_stream_ack(&stream, 2);
    for (count = 0; log_stream_cut(&stream, 100 * (uint64_t)LOGS_MAX_PIECE, false, 5, &cut);)
        count++;
    assert_int_equal(count, 3);
}

static void test_a_new_session_sends_what_is_not_acknowledged(void **state)
{
    struct log_stream stream = {0};
    struct log_cut cut;

    (void)state;
    for (uint64_t size = 10; size <= 30; size += 10)
        assert_true(log_stream_cut(&stream, size, false, 5, &cut));
    for (int i = 0; i < 3; i++)
        log_stream_sent(&stream);
    assert_null(log_stream_next(&stream));
    log_stream_ack(&stream, 0);
    assert_null(log_stream_next(&stream));
    log_stream_rewind(&stream);
    assert_int_equal(log_stream_next(&stream)->seq, 1);
    assert_int_equal(log_stream_next(&stream)->offset, 10);
    assert_int_equal(log_stream_next(&stream)->size, 10);
}

static void test_restored_bounds_are_the_same(void **state)
{
    struct log_stream first = {0};
    struct log_stream second = {0};
    struct log_cut cut;

    (void)state;
    for (uint64_t size = 10; size <= 30; size += 10) {
        assert_true(log_stream_cut(&first, size, size == 30, 5, &cut));
        log_stream_restore(&second, &cut);
    }
    cut.seq = 9; /* out of order: not believed */
    log_stream_restore(&second, &cut);
    assert_memory_equal(&first, &second, sizeof(first));
}

/* -- settings ---------------------------------------------------------------------------------- */

static int read_settings(const char *key, const char *value, struct settings *settings,
                         struct err *err)
{
    struct config *config = config_new(settings_options(), "SHEAF_WORKER");
    char flag[64];
    char text[256];
    char program[] = "w";
    char *argv[] = {program, flag, text, NULL};
    int argc = key ? 3 : 1;
    int rc;

    snprintf(flag, sizeof(flag), "--%s", key ? key : "");
    snprintf(text, sizeof(text), "%s", value ? value : "");
    rc = config_load_args(config, &argc, argv, err);
    if (rc == 0)
        rc = settings_read(config, settings, err);
    config_free(config);
    return rc;
}

static void test_bad_settings_name_their_key(void **state)
{
    static const char *const cases[][2] = {
        {"port-range", "7700"},       {"port-range", "9-9"},   {"port-range", "1-70000"},
        {"port-range", "7700-7799x"}, {"country", "de"},       {"country", "DEU"},
        {"name", "Not Valid"},        {"devices", "0,,1"},     {"devices", "x"},
        {"unsafe-runtime", "bwrap"},  {"declared-rtt", "a"},   {"declared-rtt", "a=1x"},
        {"declared-rtt", "=5"},       {"orphan-policy", "no"}, {"log-level", "loud"},
        {"state", "relative/path"},
    };
    struct settings settings;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = {0};

        if (read_settings(cases[i][0], cases[i][1], &settings, &err) != -ERR_CONFIG_INVALID)
            fail_msg("--%s %s was taken", cases[i][0], cases[i][1]);
        assert_non_null(strstr(err.text, cases[i][0]));
    }
}

static void test_declared_rtt_only_raises(void **state)
{
    struct settings settings;
    struct err err = {0};

    (void)state;
    assert_int_equal(read_settings("declared-rtt", "far=80000,127.0.0.1:7810=40000,10.1.2.3=900",
                                   &settings, &err),
                     0);
    assert_int_equal(settings.declared_count, 3);
    assert_int_equal(settings_rtt(&settings, "far", "127.0.0.1", 1, 50), 80000);
    assert_int_equal(settings_rtt(&settings, "", "127.0.0.1", 7810, 50), 40000);
    assert_int_equal(settings_rtt(&settings, "", "127.0.0.1", 7811, 50), 50);
    assert_int_equal(settings_rtt(&settings, "", "10.1.2.3", 7811, 50), 900);
    assert_int_equal(settings_rtt(&settings, "", "10.1.2.3", 7811, 1000), 1000);
    assert_int_equal(settings_rtt(&settings, "far", "127.0.0.1", 1, 0), 0); /* no answer stays */
}

static void test_defaults_are_valid(void **state)
{
    struct settings settings;
    struct err err = {0};

    (void)state;
    assert_int_equal(read_settings(NULL, NULL, &settings, &err), 0);
    assert_true(name_is_valid(settings.name));
    assert_int_equal(settings.port_low, 7700);
    assert_int_equal(settings.port_high, 7799);
    assert_int_equal(settings.probe_port, 7800);
    assert_false(settings.unsafe_process);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_common_environment),
        cmocka_unit_test(test_launch_modes),
        cmocka_unit_test(test_environment_of_the_barrier),
        cmocka_unit_test(test_pieces_cover_the_file_once),
        cmocka_unit_test(test_silence_has_no_piece),
        cmocka_unit_test(test_window_is_bounded_and_opens_by_acks),
        cmocka_unit_test(test_a_new_session_sends_what_is_not_acknowledged),
        cmocka_unit_test(test_restored_bounds_are_the_same),
        cmocka_unit_test(test_bad_settings_name_their_key),
        cmocka_unit_test(test_declared_rtt_only_raises),
        cmocka_unit_test(test_defaults_are_valid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
