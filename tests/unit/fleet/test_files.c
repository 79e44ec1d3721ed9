/* What the program keeps, reads and shows: link file, options over policy, metrics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/fs.h"
#include "common/io/yaml.h"
#include "orchestrator/fleet/gateways.h"
#include "orchestrator/fleet/link_file.h"
#include "orchestrator/fleet/metrics.h"
#include "orchestrator/fleet/setup.h"

static char folder[64];
static char path[96];

static int open_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/sheaf-files-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/file", folder);
    return 0;
}

static int close_folder(void **state)
{
    struct err err = {0};

    (void)state;
    return fs_remove_tree(folder, &err);
}

static void test_link_file_keeps_key_and_token_over_restarts(void **state)
{
    static const uint8_t server_key[32] = {1}, sign_key[32] = {2};
    struct link_facts facts = {"tcp://127.0.0.1:1",
                               "tcp://127.0.0.1:2",
                               server_key,
                               sign_key,
                               "host='/run dir' user=sheaf_gateway",
                               0600};
    struct link_file first = {0}, again = {0};
    struct stat status;
    json_t *value = NULL;
    struct buf text;
    struct err err = {0};

    (void)state;
    assert_int_equal(link_file_load_or_make(path, &first, &err), 0);
    assert_memory_equal(first.token, "shg_", 4);
    assert_int_equal(link_file_write(path, &first, &facts, &err), 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(link_file_load_or_make(path, &again, &err), 0);
    assert_string_equal(first.token, again.token);
    assert_memory_equal(&first.curve, &again.curve, sizeof(first.curve));
    buf_init(&text, 0);
    assert_int_equal(fs_read(path, YAML_MAX_BYTES, &text, &err), 0);
    assert_int_equal(yaml_read(text.data, text.length, &value, NULL, &err), 0);
    assert_string_equal(json_text(value, "database"), facts.database);
    assert_string_equal(json_text(value, "hints"), facts.hints);
    json_decref(value);
    buf_fini(&text);
}

static void test_damaged_files_are_refused_not_replaced(void **state)
{
    struct gateways gateways = {.count = 3};
    struct link_file link = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(fs_write(path, "token: shg_x\n", 13, 0600, &err), 0);
    assert_int_equal(link_file_load_or_make(path, &link, &err), -ERR_STATE_CORRUPT);
    assert_int_equal(gateways_load(&gateways, path, &err), -ERR_MALFORMED_JSON);
    assert_int_equal(fs_write(path, "[{\"url\":\"x\"}]", 13, 0600, &err), 0);
    assert_int_equal(gateways_load(&gateways, path, &err), -ERR_STATE_CORRUPT);
    assert_int_equal(gateways.count, 3); /* untouched */
}

static struct config *config_of(int argc, char **argv)
{
    struct config *config = config_new(setup_options, "SHEAF_FLEET_TEST");
    struct err err = {0};

    if (config_load_args(config, &argc, argv, &err) != 0)
        fail_msg("%s", err.text);
    return config;
}

static void test_options_lie_over_the_stored_policy(void **state)
{
    char *argv[] = {(char[]){"x"}, (char[]){"--lost-after=30s"}, (char[]){"--fee-ppm=50000"}, NULL};
    struct config *config = config_of(3, argv);
    struct policy stored, policy;
    struct err err = {0};

    (void)state;
    policy_default(&stored);
    stored.version = 9;
    policy = stored;
    assert_int_equal(setup_policy(config, &policy, &err), 0);
    assert_int_equal(policy.lost_after_us, 30000000);
    assert_int_equal(policy.fee_ppm, 50000);
    assert_int_equal(policy.version, 9);
    assert_int_equal(policy.settle_every_us, stored.settle_every_us);
    config_free(config);
}

static void test_options_are_checked_together(void **state)
{
    static const struct {
        const char *option;
        int rc;
    } cases[] = {
        {"--log-level=debug", 0},
        {"--log-level=loud", -ERR_CONFIG_INVALID},
        {"--worker-bind=10.0.0.1:1", -ERR_CONFIG_INVALID},
        {"--advertise=tcp://a:1,tcp://b:2", 0},
        {"--advertise=a:1", -ERR_CONFIG_INVALID},
        {"--database=host=/x", -ERR_CONFIG_INVALID}, /* the gateways' is missing */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char option[64];
        char *argv[] = {(char[]){"x"}, option, NULL};
        struct config *config;
        struct err err = {0};

        snprintf(option, sizeof(option), "%s", cases[i].option);
        config = config_of(2, argv);
        if (setup_check(config, &err) != cases[i].rc)
            fail_msg("%s: %s", cases[i].option, err.text);
        config_free(config);
    }
}

static void test_metrics_are_an_exposition(void **state)
{
    struct metrics_facts facts = {0};
    char *line, *rest;
    struct buf text;
    int samples = 0;

    (void)state;
    facts.world.jobs_by_state[JOB_RUNNING] = 4;
    facts.engine.commit_us_sum = 1500000;
    facts.fleet.zap_refused = 3;
    buf_init(&text, 0);
    metrics_write(&facts, &text);
    assert_non_null(strstr(text.data, "\nsheaf_jobs{state=\"running\"} 4\n"));
    assert_non_null(strstr(text.data, "\nsheaf_commit_seconds_total 1.500000\n"));
    assert_non_null(strstr(text.data, "\nsheaf_zap_refused_total 3\n"));
    for (line = strtok_r(text.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (line[0] == '#')
            continue;
        assert_memory_equal(line, "sheaf_", 6);
        assert_int_equal(strspn(strrchr(line, ' ') + 1, "0123456789."),
                         strlen(strrchr(line, ' ') + 1));
        samples++;
    }
    assert_true(samples > 40);
    buf_fini(&text);
    assert_true(metrics_resident_bytes() > 1000000);
}

#define FOLDER(test) cmocka_unit_test_setup_teardown(test, open_folder, close_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER(test_link_file_keeps_key_and_token_over_restarts),
        FOLDER(test_damaged_files_are_refused_not_replaced),
        cmocka_unit_test(test_options_lie_over_the_stored_policy),
        cmocka_unit_test(test_options_are_checked_together),
        cmocka_unit_test(test_metrics_are_an_exposition),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
