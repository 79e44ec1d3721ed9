#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/config.h"
#include "common/io/fs.h"

static const struct config_option options[] = {
    {"state", CONFIG_TEXT, NULL, 0, 0, false, "DIR", "state folder"},
    {"port", CONFIG_INT, "7000", 0, 65535, false, "PORT", "where to listen"},
    {"verbose", CONFIG_BOOL, "false", 0, 0, CONFIG_RELOAD, NULL, "say more"},
    {"cache-size", CONFIG_BYTES, "64MiB", 0, 0, CONFIG_RELOAD, "SIZE", "kept in memory"},
    {"lost-after", CONFIG_DURATION, "120s", 1000000, 600000000, false, "TIME", "until lost"},
    {"price", CONFIG_MONEY, "0.50", 0, 0, false, "AMOUNT", "per hour"},
    {"label", CONFIG_TEXT, "none", 0, 0, CONFIG_RELOAD, "TEXT", "shown"},
    {"password", CONFIG_TEXT, "hunter2", 0, 0, CONFIG_SECRET, "TEXT", "of the database"},
    {0},
};

struct fixture {
    struct config *config;
    char path[64];
    struct err err;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    snprintf(f->path, sizeof(f->path), "/tmp/sheaf-config-XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    close(fd);
    f->config = config_new(options, "SHEAF_T");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    config_free(f->config);
    unlink(f->path);
    unsetenv("SHEAF_T_PORT");
    unsetenv("SHEAF_T_CACHE_SIZE");
    unsetenv("SHEAF_T_CONFIG");
    unsetenv("SHEAF_T_VERBOSE");
    free(f);
    return 0;
}

static void write_file(struct fixture *f, const char *text)
{
    assert_int_equal(fs_write(f->path, text, strlen(text), 0644, NULL), 0);
}

static void test_defaults_hold_until_something_is_said(void **state)
{
    struct fixture *f = *state;
    int argc = 1;
    char program[] = "program";
    char *argv[] = {program, NULL};

    assert_int_equal(config_load(f->config, &argc, argv, &f->err), 0);
    assert_null(config_text(f->config, "state"));
    assert_int_equal(config_int(f->config, "port"), 7000);
    assert_false(config_bool(f->config, "verbose"));
    assert_int_equal(config_int(f->config, "cache-size"), 64 << 20);
    assert_int_equal(config_int(f->config, "lost-after"), 120000000);
    assert_int_equal(config_int(f->config, "price"), 500000);
    assert_false(config_is_set(f->config, "port"));
}

static void test_flag_beats_environment_beats_file_beats_default(void **state)
{
    struct fixture *f = *state;
    char program[] = "program";
    char flag[] = "--port=4";
    char config[] = "--config";
    char *argv[] = {program, flag, config, f->path, NULL};
    int argc = 4;

    write_file(f, "port: 2\ncache-size: 2MiB\nlost-after: 2s\nverbose: true\n");
    setenv("SHEAF_T_PORT", "3", 1);
    setenv("SHEAF_T_CACHE_SIZE", "3MiB", 1);
    assert_int_equal(config_load(f->config, &argc, argv, &f->err), 0);
    assert_int_equal(argc, 1);
    assert_null(argv[1]);
    assert_int_equal(config_int(f->config, "port"), 4);
    assert_int_equal(config_int(f->config, "cache-size"), 3 << 20);
    assert_int_equal(config_int(f->config, "lost-after"), 2000000);
    assert_int_equal(config_int(f->config, "price"), 500000);
    assert_true(config_bool(f->config, "verbose"));
    assert_true(config_is_set(f->config, "lost-after"));
}

static void test_the_environment_may_name_the_file(void **state)
{
    struct fixture *f = *state;
    char program[] = "program";
    char *argv[] = {program, NULL};
    int argc = 1;

    write_file(f, "port: 2\n");
    setenv("SHEAF_T_CONFIG", f->path, 1);
    assert_int_equal(config_load(f->config, &argc, argv, &f->err), 0);
    assert_int_equal(config_int(f->config, "port"), 2);
}

static void test_what_it_does_not_know_stays_in_order(void **state)
{
    struct fixture *f = *state;
    char words[][16] = {"program", "run",       "--no-verbose", "--other", "x",  "--port",
                        "9",       "--no-such", "--",           "--port",  "10", "-v"};
    char *argv[13] = {0};
    int argc = 12;

    for (int i = 0; i < argc; i++)
        argv[i] = words[i];
    assert_int_equal(config_load_args(f->config, &argc, argv, &f->err), 0);
    static const char *const left[] = {"program", "run",    "--other", "x", "--no-such",
                                       "--",      "--port", "10",      "-v"};
    assert_int_equal(argc, 9);
    for (int i = 0; i < argc; i++)
        assert_string_equal(argv[i], left[i]);
    assert_null(argv[9]);
    assert_int_equal(config_int(f->config, "port"), 9);
    assert_false(config_bool(f->config, "verbose"));
    assert_true(config_is_set(f->config, "verbose"));
}

static void test_errors_in_a_file_name_file_line_and_key(void **state)
{
    static const struct {
        const char *text;
        const char *says; /* after the path */
        const char *key;
    } cases[] = {
        {"state: x\nprot: 5\n", ":2:prot: unknown key; did you mean port?", "prot"},
        {"xyzzy: 5\n", ":1:xyzzy: unknown key", "xyzzy"},
        {"\nport: many\n", ":2:port: not a whole number: many", "port"},
        {"port: 70000\n", ":1:port: out of range (0 to 65535): 70000", "port"},
        {"cache-size: 64\n", ":1:cache-size: not a size with a unit", "cache-size"},
        {"lost-after: 1h\n", ":1:lost-after: out of range", "lost-after"},
        {"price: -1\n", ":1:price: not a decimal", "price"},
        {"verbose: maybe\n", ":1:verbose: not true or false: maybe", "verbose"},
        {"state: [a, b]\n", ":1:state: one value is wanted", "state"},
        {"state: x\nstate: y\n", ":2:1: this key stands twice", ""},
        {"state: &a x\n", ":1:8: anchors are refused", ""},
        {"- a\n", ":1: key: value lines are wanted", ""},
        {"state: x\n\tport: 5\n", ":2:", ""},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char wanted[160];
        f->err = (struct err){0};
        write_file(f, cases[i].text);
        snprintf(wanted, sizeof(wanted), "%s%s", f->path, cases[i].says);
        int rc = config_load_file(f->config, f->path, &f->err);
        if (rc != -ERR_CONFIG_INVALID || strncmp(f->err.text, wanted, strlen(wanted)) != 0
            || strcmp(f->err.pointer, cases[i].key) != 0)
            fail_msg("%s gave %s (%s)", cases[i].text, f->err.text, f->err.pointer);
    }
    assert_int_equal(config_load_file(f->config, "/nonexistent/x.yaml", &f->err),
                     -ERR_CONFIG_INVALID);
    assert_non_null(strstr(f->err.text, "/nonexistent/x.yaml"));
}

static void test_a_file_may_say_nothing(void **state)
{
    static const char *const texts[] = {"", "# only a comment\n", "port:\n", "{}\n"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        write_file(f, texts[i]);
        assert_int_equal(config_load_file(f->config, f->path, &f->err), 0);
        assert_int_equal(config_int(f->config, "port"), 7000);
    }
}

static void test_errors_elsewhere_name_the_place(void **state)
{
    struct fixture *f = *state;
    char program[] = "program";
    char bare[] = "--port";
    char bad[] = "--port=x";
    char *argv[] = {program, bare, NULL};
    int argc = 2;

    assert_int_equal(config_load_args(f->config, &argc, argv, &f->err), -ERR_USAGE);
    assert_non_null(strstr(f->err.text, "--port needs a value"));
    argv[1] = bad;
    argc = 2;
    assert_int_equal(config_load_args(f->config, &argc, argv, &f->err), -ERR_USAGE);
    assert_non_null(strstr(f->err.text, "--port:port: not a whole number"));
    setenv("SHEAF_T_PORT", "0x5", 1);
    assert_int_equal(config_load_env(f->config, &f->err), -ERR_CONFIG_INVALID);
    assert_non_null(strstr(f->err.text, "SHEAF_T_PORT"));
}

static void test_print_tells_origins_and_no_secret(void **state)
{
    struct fixture *f = *state;
    struct config *again = config_new(options, "SHEAF_T");
    struct buf out;

    buf_init(&out, 0);
    write_file(f, "port: 2\nstate: 'a \"b\"'\npassword: swordfish\n");
    assert_int_equal(config_load_file(f->config, f->path, &f->err), 0);
    config_print(f->config, &out);
    assert_null(strstr(out.data, "swordfish"));
    assert_null(strstr(out.data, "hunter2"));
    assert_non_null(strstr(out.data, "password: \"***\" # /tmp/"));
    assert_non_null(strstr(out.data, "cache-size: 64MiB # default"));
    /* What is printed can be read. */
    write_file(f, out.data);
    assert_int_equal(config_load_file(again, f->path, &f->err), 0);
    assert_int_equal(config_int(again, "port"), 2);
    assert_string_equal(config_text(again, "state"), "a \"b\"");
    buf_clear(&out);
    config_help(f->config, &out);
    assert_null(strstr(out.data, "hunter2"));
    assert_non_null(strstr(out.data, "--cache-size SIZE"));
    assert_non_null(strstr(out.data, "($SHEAF_T_CACHE_SIZE)"));
    assert_non_null(strstr(out.data, "--[no-]verbose"));
    buf_fini(&out);
    config_free(again);
}

static void test_what_was_kept_stands_between_default_and_file(void **state)
{
    static const char *const skip[] = {"state", NULL};
    struct fixture *f = *state;
    struct config *again = config_new(options, "SHEAF_T");
    char kept[80];

    snprintf(kept, sizeof(kept), "%s.kept", f->path);
    assert_int_equal(config_load_saved(again, kept, &f->err), 0);
    write_file(f, "port: 2\nprice: '0.70'\nstate: /x\npassword: swordfish\n");
    assert_int_equal(config_load_file(f->config, f->path, &f->err), 0);
    assert_int_equal(config_save(f->config, skip, kept, &f->err), 0);
    assert_int_equal(config_load_saved(again, kept, &f->err), 0);
    assert_int_equal(config_int(again, "port"), 2);
    assert_int_equal(config_int(again, "price"), 700000);
    assert_null(config_text(again, "state"));
    assert_string_equal(config_text(again, "password"), "hunter2");
    write_file(f, "port: 3\n");
    assert_int_equal(config_load_file(again, f->path, &f->err), 0);
    assert_int_equal(config_load_saved(again, kept, &f->err), 0);
    assert_int_equal(config_int(again, "port"), 3);
    unlink(kept);
    config_free(again);
}

/* -- reading again -------------------------------------------------------------------------- */

struct look {
    int64_t cache;
    const char *refuse; /* key; NULL = agree */
};

static int look_at(const struct config *fresh, void *arg, struct err *err)
{
    struct look *look = arg;

    look->cache = config_int(fresh, "cache-size");
    if (look->refuse == NULL)
        return 0;
    return err_set_at(err, ERR_CONFIG_INVALID, look->refuse, "not to our liking");
}

static void test_a_reload_takes_over_what_may_change(void **state)
{
    struct fixture *f = *state;
    struct look look = {0};
    struct config_reload reload = {look_at, &look};
    char program[] = "program";
    char flag[] = "--cache-size=5MiB";
    char config[] = "--config";
    char *argv[] = {program, flag, config, f->path, NULL};
    int argc = 4;

    write_file(f, "port: 2\nlabel: first\n");
    assert_int_equal(config_load(f->config, &argc, argv, &f->err), 0);
    write_file(f, "port: 3\nlabel: second\nverbose: true\ncache-size: 9MiB\n");
    assert_int_equal(config_reload(f->config, &reload, &f->err), 0);
    assert_string_equal(config_text(f->config, "label"), "second");
    assert_true(config_bool(f->config, "verbose"));
    assert_int_equal(config_int(f->config, "port"), 2);             /* waits for a restart */
    assert_int_equal(config_int(f->config, "cache-size"), 5 << 20); /* said by a flag */
    assert_int_equal(look.cache, 5 << 20);
    /* A key that is gone has its default again. */
    write_file(f, "port: 2\n");
    assert_int_equal(config_reload(f->config, &reload, &f->err), 0);
    assert_string_equal(config_text(f->config, "label"), "none");
    assert_false(config_is_set(f->config, "label"));
    assert_false(config_bool(f->config, "verbose"));
}

static void test_a_reload_that_is_refused_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct look look = {0};
    struct config_reload reload = {look_at, &look};
    char wanted[96];

    write_file(f, "label: first\n");
    assert_int_equal(config_load_file(f->config, f->path, &f->err), 0);
    write_file(f, "label: second\ncache-size: 5 apples\n");
    assert_int_equal(config_reload(f->config, &reload, &f->err), -ERR_CONFIG_INVALID);
    snprintf(wanted, sizeof(wanted), "%s:2:cache-size: ", f->path);
    assert_ptr_equal(strstr(f->err.text, wanted), f->err.text);
    assert_string_equal(config_text(f->config, "label"), "first");
    /* The program's own objection names the place, too. */
    write_file(f, "verbose: true\n\nlabel: second\n");
    look.refuse = "label";
    assert_int_equal(config_reload(f->config, &reload, &f->err), -ERR_CONFIG_INVALID);
    snprintf(wanted, sizeof(wanted), "%s:3:label: not to our liking", f->path);
    assert_string_equal(f->err.text, wanted);
    assert_string_equal(config_text(f->config, "label"), "first");
    assert_false(config_bool(f->config, "verbose"));
    /* Neither does a file that is gone. */
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(config_reload(f->config, &reload, &f->err), -ERR_CONFIG_INVALID);
    assert_string_equal(config_text(f->config, "label"), "first");
}

static void test_secrets_do_not_stay_where_they_were_said(void **state)
{
    struct fixture *f = *state;
    char program[] = "program";
    char joined[] = "--password=swordfish";
    char apart[] = "--password";
    char value[] = "sesame";
    char label[] = "--label=plain";
    char *argv[] = {program, joined, label, apart, value, NULL};
    int argc = 5;

    setenv("SHEAF_T_PASSWORD", "tell-no-one", 1);
    const char *environment = getenv("SHEAF_T_PASSWORD");
    assert_int_equal(config_load(f->config, &argc, argv, &f->err), 0);
    assert_string_equal(config_text(f->config, "password"), "sesame");
    assert_string_equal(joined, "--password=*********");
    assert_string_equal(value, "******");
    assert_string_equal(label, "--label=plain");
    assert_string_equal(environment, "***********");
    assert_null(getenv("SHEAF_T_PASSWORD"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_was_kept_stands_between_default_and_file, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_defaults_hold_until_something_is_said, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_flag_beats_environment_beats_file_beats_default,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_environment_may_name_the_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_it_does_not_know_stays_in_order, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_errors_in_a_file_name_file_line_and_key, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_reload_takes_over_what_may_change, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_reload_that_is_refused_changes_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_secrets_do_not_stay_where_they_were_said, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_may_say_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_errors_elsewhere_name_the_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_print_tells_origins_and_no_secret, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
