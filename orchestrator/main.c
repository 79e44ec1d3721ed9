/* sheaf-orchestrator: reads options, opens what it needs in order, runs one loop, closes it. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/io/manpage.h"
#include "common/io/notify.h"
#include "common/io/process.h"
#include "common/pure/exit_code.h"
#include "orchestrator/fleet/fleet.h"
#include "orchestrator/fleet/link_file.h"
#include "orchestrator/fleet/metrics.h"
#include "orchestrator/fleet/setup.h"

/* A clean stop waits this long for the commit in flight; its effects come again after a start. */
#define STOP_WAIT_US ((int64_t)5000000)

struct program {
    struct config *config;
    char state[FS_PATH];
    char gateways_path[FS_PATH];
    int lock_fd;
    bool embedded;
    char orchestrator_db[CONNINFO_TEXT];
    char gateway_db[CONNINFO_TEXT];
    struct identity identity;
    struct link_file link;
    struct event_base *base;
    struct notify *notify;
    void *zmq;
    struct zap *zap;
    struct store *store;
    struct fleet *fleet;
    struct engine *engine;
    struct metrics *metrics;
    char metrics_endpoint[ENDPOINT_TEXT];
    struct event *on_term;
    struct event *on_int;
    struct event *on_hup;
    struct policy stored; /* before the options that stand above it */
    bool reload_failed;
    int64_t started_us;
    uint32_t tokens_missing; /* READY is said when none is */
    bool serving;
    bool deposed;
    bool failed;
};

static bool is_set(const struct program *program, const char *key)
{
    const char *text = config_text(program->config, key);

    return text && text[0];
}

/* -- files of the state folder --------------------------------------------------------------- */

static int state_path(const struct program *program, const char *name, char out[FS_PATH],
                      struct err *err)
{
    if (fs_path(out, "%s/%s", program->state, name))
        return err_set(err, ERR_IO, "the path of the state folder is too long");
    return 0;
}

/* Passing through, not listing: PostgreSQL of another user, or a gateway, has its socket below. */
static mode_t state_mode(const struct program *program)
{
    return geteuid() == 0 ? 0711 : config_bool(program->config, "share-link") ? 0710 : 0700;
}

static int open_state(struct program *program, struct err *err)
{
    char path[FS_PATH];
    int rc;

    if ((rc = setup_state(program->config, program->state, err))
        || (rc = fs_mkdir(program->state, state_mode(program), err))
        || (rc = state_path(program, "lock", path, err))
        || (rc = fs_lock(path, &program->lock_fd, err))
        || (rc = state_path(program, "identity", path, err))
        || (rc = identity_load_or_make(path, &program->identity, err))
        || (rc = state_path(program, "gateway.link", path, err)))
        return rc;
    return link_file_load_or_make(path, &program->link, err);
}

static int write_link(struct program *program, struct err *err)
{
    const struct fleet_endpoints *endpoints = fleet_endpoints(program->fleet);
    char command[ENDPOINT_TEXT];
    char hints[ENDPOINT_TEXT];
    char path[FS_PATH];
    struct link_facts facts = {
        .orchestrator = command,
        .hints = hints,
        .server_key = program->identity.curve.public_key,
        .sign_key = program->identity.sign.public_key,
        .database = program->gateway_db,
        .mode = config_bool(program->config, "share-link") ? 0640 : 0600,
    };
    int rc = state_path(program, "gateway.link", path, err);

    if (rc)
        return rc;
    endpoint_public(endpoints->command, command);
    endpoint_public(endpoints->hints, hints);
    return link_file_write(path, &program->link, &facts, err);
}

/* -- database -------------------------------------------------------------------------------- */

static int take_conninfo(const struct program *program, const char *key, char out[CONNINFO_TEXT],
                         struct err *err)
{
    const char *text = config_text(program->config, key);

    if (strlen(text) >= CONNINFO_TEXT)
        return err_set_at(err, ERR_CONFIG_INVALID, key, "%s is too long", key);
    snprintf(out, CONNINFO_TEXT, "%s", text);
    return 0;
}

static int open_embedded(struct program *program, struct embedded_database *database,
                         struct err *err)
{
    int rc = embedded_start(program->state, config_text(program->config, "run-as"), database, err);

    if (rc)
        return rc;
    program->embedded = true;
    printf("database: private PostgreSQL in %s (%s; use --database for another)\n", program->state,
           database->made      ? "made now"
           : database->adopted ? "was running"
                               : "started");
    fflush(stdout);
    return 0;
}

static int open_database(struct program *program, struct err *err)
{
    struct embedded_database database;
    int rc;

    if (is_set(program, "database")) {
        rc = take_conninfo(program, "database", program->orchestrator_db, err);
        if (rc)
            return rc;
        return take_conninfo(program, "gateway-database", program->gateway_db, err);
    }
    if ((rc = open_embedded(program, &database, err))
        || (rc = store_migrate_up(database.owner, err)))
        return rc;
    snprintf(program->orchestrator_db, CONNINFO_TEXT, "%s", database.orchestrator);
    snprintf(program->gateway_db, CONNINFO_TEXT, "%s",
             config_bool(program->config, "share-link") ? database.gateway_elsewhere
                                                        : database.gateway);
    return 0;
}

/* The connection string for migrations; the embedded server is started for it. */
static int owner_conninfo(struct program *program, char out[CONNINFO_TEXT], struct err *err)
{
    struct embedded_database database;
    int rc;

    if (is_set(program, "owner-database"))
        return take_conninfo(program, "owner-database", out, err);
    if (is_set(program, "database"))
        return take_conninfo(program, "database", out, err);
    if ((rc = open_embedded(program, &database, err)))
        return rc;
    snprintf(out, CONNINFO_TEXT, "%s", database.owner);
    return 0;
}

/* -- tokens of the set-up -------------------------------------------------------------------- */

static void say_ready(struct program *program)
{
    const struct fleet_endpoints *endpoints = fleet_endpoints(program->fleet);

    program->serving = true;
    printf("sheaf-orchestrator ready worker=%s command=%s hints=%s metrics=http://%s\n",
           endpoints->worker, endpoints->command, endpoints->hints, program->metrics_endpoint);
    fflush(stdout);
    notify_ready(program->notify, endpoints->worker);
}

static void stop_failed(struct program *program, const struct err *err)
{
    fprintf(stderr, "sheaf-orchestrator: %s: %s\n", err_slug(err->code), err->text);
    program->failed = true;
    event_base_loopbreak(program->base);
}

static void token_done(struct program *program)
{
    if (--program->tokens_missing == 0)
        say_ready(program);
}

static void on_gateway_token(const struct err *err, const char *secret, void *arg)
{
    (void)secret;
    if (err->code != ERR_NONE)
        stop_failed(arg, err);
    else
        token_done(arg);
}

/*
 * The token is told first and the mark written then: a crash in between makes another token at the
 * next start, never none.
 */
static int tell_operator(struct program *program, const char *secret, struct err *err)
{
    const char *file = config_text(program->config, "operator-token-file");
    static const char mark[] = "the first operator token was told; remove this to get another\n";
    char line[SECRET_TEXT + 2];
    char path[FS_PATH];
    int rc;

    if (file && file[0]) {
        snprintf(line, sizeof(line), "%s\n", secret);
        rc = fs_write(file, line, strlen(line), 0600, err);
        explicit_bzero(line, sizeof(line));
        if (rc)
            return rc;
    } else {
        printf("operator token (shown once): %s\n", secret);
        fflush(stdout);
    }
    if ((rc = state_path(program, "operator.told", path, err)))
        return rc;
    return fs_write(path, mark, sizeof(mark) - 1, 0600, err);
}

static void on_operator_token(const struct err *err, const char *secret, void *arg)
{
    struct program *program = arg;
    struct err disk = {0};

    if (err->code != ERR_NONE)
        stop_failed(program, err);
    else if (tell_operator(program, secret, &disk))
        stop_failed(program, &disk);
    else
        token_done(program);
}

static int make_tokens(struct program *program, struct err *err)
{
    char secret[SECRET_TEXT];
    uint8_t hash[SHA256_SIZE];
    char path[FS_PATH];
    int rc = state_path(program, "operator.told", path, err);

    if (rc)
        return rc;
    program->tokens_missing = 1; /* this function itself, so that READY is said once and last */
    sha256(program->link.token, strlen(program->link.token), hash);
    if (world_token(engine_world(program->engine), hash) == NULL) {
        program->tokens_missing++;
        fleet_make_token(program->fleet, ROLE_GATEWAY, program->link.token, on_gateway_token,
                         program);
    }
    if (access(path, F_OK) != 0) {
        program->tokens_missing++;
        secret_make("sht_", secret);
        fleet_make_token(program->fleet, ROLE_OPERATOR, secret, on_operator_token, program);
        explicit_bzero(secret, sizeof(secret));
    }
    token_done(program);
    return 0;
}

/* -- serving --------------------------------------------------------------------------------- */

static bool collect(struct metrics_facts *facts, void *arg)
{
    struct program *program = arg;

    world_count(engine_world(program->engine), &facts->world);
    facts->engine = engine_counters(program->engine);
    facts->fleet = fleet_counters(program->fleet);
    facts->term = store_term(program->store);
    facts->resident_bytes = metrics_resident_bytes();
    facts->up_us = clock_mono_us() - program->started_us;
    facts->reload_failed = program->reload_failed;
    return program->serving && !program->deposed;
}

static void on_deposed(void *arg)
{
    struct program *program = arg;

    log_error("main", "deposed", "term=%" PRIu32, store_term(program->store));
    program->deposed = true;
    event_base_loopbreak(program->base);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    struct program *program = arg;

    (void)what;
    log_info("main", "stopping", "signal=%d", (int)number);
    program->serving = false;
    event_base_loopbreak(program->base);
}

/* -- SIGHUP ---------------------------------------------------------------------------------- */

struct reloading {
    const struct program *program;
    struct policy policy;
};

static int check_reload(const struct config *fresh, void *arg, struct err *err)
{
    struct reloading *reloading = arg;
    int rc = setup_check(fresh, err);

    reloading->policy = reloading->program->stored;
    return rc ? rc : setup_policy(fresh, &reloading->policy, err);
}

/* Between two turns: what is decided next, is decided by the new policy. */
static void on_reload(evutil_socket_t number, short what, void *arg)
{
    struct program *program = arg;
    struct reloading reloading = {.program = program};
    struct config_reload reload = {check_reload, &reloading};
    enum log_level level = LOG_INFO_LEVEL;
    struct err err = {0};

    (void)number;
    (void)what;
    program->reload_failed = config_reload(program->config, &reload, &err) != 0;
    if (program->reload_failed)
        return;
    engine_set_policy(program->engine, &reloading.policy);
    engine_set_paranoid(program->engine, config_bool(program->config, "paranoid"));
    (void)log_level_parse(config_text(program->config, "log-level"), &level);
    log_open("sheaf-orchestrator", level);
}

static int open_loop(struct program *program, struct err *err)
{
    program->base = loop_new();
    program->notify = notify_new(program->base);
    program->zmq = zmq_ctx_new();
    program->zap = program->zmq ? zap_new(program->zmq) : NULL;
    if (program->zap == NULL)
        return err_set(err, ERR_INTERNAL, "no ZeroMQ context: %s", zmq_strerror(zmq_errno()));
    program->on_term = evsignal_new(program->base, SIGTERM, on_signal, program);
    program->on_int = evsignal_new(program->base, SIGINT, on_signal, program);
    BUG_ON(program->on_term == NULL || event_add(program->on_term, NULL) != 0);
    BUG_ON(program->on_int == NULL || event_add(program->on_int, NULL) != 0);
    program->on_hup = evsignal_new(program->base, SIGHUP, on_reload, program);
    BUG_ON(program->on_hup == NULL);
    return 0;
}

static int open_fleet(struct program *program, struct err *err)
{
    struct fleet_options options = {
        .base = program->base,
        .zmq = program->zmq,
        .zap = program->zap,
        .identity = &program->identity,
        .worker_bind = config_text(program->config, "worker-bind"),
        .command_bind = config_text(program->config, "command-bind"),
        .hint_bind = config_text(program->config, "hint-bind"),
        .advertise = config_text(program->config, "advertise"),
        .gateways_path = program->gateways_path,
        .term = store_term(program->store),
        .heartbeat_us = config_int(program->config, "heartbeat"),
        .on_deposed = on_deposed,
        .arg = program,
    };
    struct engine_hooks hooks;
    struct policy policy;
    int rc = state_path(program, "gateways.json", program->gateways_path, err);

    if (rc)
        return rc;
    memcpy(options.gateway_key, program->link.curve.public_key, KEY_SIZE);
    program->fleet = fleet_new(&options);
    hooks = fleet_hooks(program->fleet);
    rc = engine_new(program->base, program->store, &hooks, &program->engine, err);
    if (rc)
        return rc;
    program->stored = *engine_policy(program->engine);
    policy = program->stored;
    if ((rc = setup_policy(program->config, &policy, err)))
        return rc;
    engine_set_policy(program->engine, &policy);
    engine_set_paranoid(program->engine, config_bool(program->config, "paranoid"));
    return fleet_open(program->fleet, program->engine, err);
}

/* Lets the commit in flight come home, so that its outcome is told. */
static void drain(struct program *program)
{
    int64_t until_us = clock_mono_us() + STOP_WAIT_US;

    while (!program->deposed && store_busy(program->store) && clock_mono_us() < until_us) {
        if (event_base_loop(program->base, EVLOOP_ONCE) != 0)
            return;
    }
}

static void close_all(struct program *program)
{
    struct err err = {0};

    metrics_free(program->metrics);
    fleet_free(program->fleet);
    engine_free(program->engine);
    store_close(program->store);
    if (program->on_term)
        event_free(program->on_term);
    if (program->on_int)
        event_free(program->on_int);
    if (program->on_hup)
        event_free(program->on_hup);
    notify_free(program->notify);
    zap_free(program->zap);
    if (program->zmq)
        zmq_ctx_term(program->zmq);
    if (program->base)
        event_base_free(program->base);
    if (program->embedded && !config_bool(program->config, "keep-database")
        && embedded_stop(program->state, config_text(program->config, "run-as"), &err))
        fprintf(stderr, "sheaf-orchestrator: the database did not stop: %s\n", err.text);
    explicit_bzero(&program->identity, sizeof(program->identity));
    explicit_bzero(&program->link, sizeof(program->link));
    if (program->lock_fd >= 0)
        close(program->lock_fd);
    config_free(program->config);
}

static int serve(struct program *program, struct err *err)
{
    int rc;

    program->started_us = clock_mono_us();
    if ((rc = open_state(program, err)) || (rc = open_database(program, err))
        || (rc = open_loop(program, err))
        || (rc = store_open(program->base, program->orchestrator_db, &program->store, err))
        || (rc = open_fleet(program, err))
        || (rc = metrics_new(program->base, config_text(program->config, "metrics-bind"), collect,
                             program, program->metrics_endpoint, &program->metrics, err))
        || (rc = write_link(program, err)) || (rc = make_tokens(program, err)))
        return rc;
    BUG_ON(event_add(program->on_hup, NULL) != 0);
    if (!program->failed)
        event_base_dispatch(program->base);
    notify_stopping(program->notify);
    drain(program);
    if (program->deposed)
        return err_set(err, ERR_DEPOSED, "another orchestrator leads on this database");
    if (program->failed)
        return err_set(err, ERR_INTERNAL, "the set-up failed");
    log_info("main", "stopped", "term=%" PRIu32, store_term(program->store));
    return 0;
}

/* -- verbs ----------------------------------------------------------------------------------- */

static int migrate(struct program *program, const char *verb, struct err *err)
{
    char conninfo[CONNINFO_TEXT];
    char path[FS_PATH];
    struct buf text;
    int rc;

    if ((rc = setup_state(program->config, program->state, err)))
        return rc;
    if (!is_set(program, "database") && !is_set(program, "owner-database")
        && ((rc = fs_mkdir(program->state, state_mode(program), err))
            || (rc = state_path(program, "lock", path, err))
            || (rc = fs_lock(path, &program->lock_fd, err))))
        return rc;
    if ((rc = owner_conninfo(program, conninfo, err)))
        return rc;
    if (strcmp(verb, "up") == 0 && (rc = store_migrate_up(conninfo, err)))
        return rc;
    buf_init(&text, 0);
    rc = store_migrate_status(conninfo, &text, err);
    if (rc == 0)
        fputs(text.data ? text.data : "", stdout);
    buf_fini(&text);
    return rc;
}

static void print_help(const struct config *config)
{
    struct buf text;

    buf_init(&text, 0);
    buf_puts(&text, "usage: sheaf-orchestrator [run] [OPTION…]\n"
                    "       sheaf-orchestrator migrate up|status [OPTION…]\n"
                    "       sheaf-orchestrator --check-config | --print-config | --version\n\n"
                    "Decides, commits and orders; one per database leads.\n\noptions:\n"
                    "  --config FILE               YAML file of the same keys\n");
    config_help(config, &text);
    fputs(text.data, stdout);
    buf_fini(&text);
}

static int print_man(void)
{
    const struct manpage page = {
        .name = "sheaf-orchestrator",
        .summary = "decide what runs where in a Sheaf pool, and keep its books",
        .usage = "sheaf-orchestrator [run] [OPTION…]\n"
                 "sheaf-orchestrator migrate up|status [OPTION…]\n"
                 "sheaf-orchestrator --check-config | --print-config | --help | --version",
        .text = "Decides, commits and orders; one per database leads. Without --database it makes\n"
                "a private PostgreSQL in its state folder.",
        .files = "/etc/sheaf/orchestrator.yaml               settings\n"
                 "/var/lib/sheaf/orchestrator                keys, private PostgreSQL\n"
                 "/var/lib/sheaf/orchestrator/gateway.link   what a gateway needs: keep it secret",
        .options = setup_options,
    };

    manpage_print(&page);
    return EXIT_OK;
}

static int print_config(const struct config *config)
{
    struct buf text;

    buf_init(&text, 0);
    config_print(config, &text);
    fputs(text.data, stdout);
    buf_fini(&text);
    return EXIT_OK;
}

static int exit_code(int rc)
{
    /* To us it is no outage: somebody else leads, and a restart would not help. */
    return rc == -ERR_DEPOSED ? EXIT_REFUSED : (int)exit_code_of((enum err_code) - rc);
}

static int run_verb(struct program *program, int argc, char **argv, struct err *err)
{
    enum log_level level = LOG_INFO_LEVEL;
    int rc = setup_check(program->config, err);

    if (rc)
        return rc;
    if (!log_level_parse(config_text(program->config, "log-level"), &level))
        return config_refuse(program->config, "log-level", err, "debug, info, warn or error");
    log_open("sheaf-orchestrator", level);
    if (argc == 1 || (argc == 2 && strcmp(argv[1], "run") == 0))
        return serve(program, err);
    if (argc == 3 && strcmp(argv[1], "migrate") == 0
        && (strcmp(argv[2], "up") == 0 || strcmp(argv[2], "status") == 0))
        return migrate(program, argv[2], err);
    return err_set(err, ERR_USAGE, "unknown words on the command line; see --help");
}

int main(int argc, char **argv)
{
    static const char *const flags[] = {"--help",         "--man",          "-h", "--version",
                                        "--check-config", "--print-config", NULL};
    struct program program = {.lock_fd = -1};
    const char *word;
    struct err err = {0};
    int code;
    int rc;

    fs_guard_streams();
    process_keep_secrets();
    program.config = config_new(setup_options, "SHEAF_ORCHESTRATOR");
    rc = config_load(program.config, &argc, argv, &err);
    if (rc == 0)
        rc = config_check_words(program.config, argc, argv, flags, &err);
    word = argc > 1 ? argv[1] : "";
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        print_help(program.config);
        code = EXIT_OK;
    } else if (strcmp(word, "--man") == 0) {
        code = print_man();
    } else if (strcmp(word, "--version") == 0) {
        printf("sheaf-orchestrator %s\n", SHEAF_VERSION);
        code = EXIT_OK;
    } else if (rc == 0 && strcmp(word, "--print-config") == 0) {
        code = print_config(program.config);
    } else if (rc == 0 && strcmp(word, "--check-config") == 0) {
        rc = setup_check(program.config, &err);
        if (rc == 0)
            puts("configuration ok");
        code = exit_code(rc);
    } else {
        if (rc == 0)
            rc = run_verb(&program, argc, argv, &err);
        code = exit_code(rc);
    }
    if (code != EXIT_OK)
        fprintf(stderr, "sheaf-orchestrator: %s: %s\n  next: %s\n", err_slug(err.code), err.text,
                err_info(err.code)->hint);
    close_all(&program);
    return code;
}
