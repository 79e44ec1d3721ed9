/* sheaf-gateway: the edge. Options, certificates, sockets, the loop, and a clean end. */
#include <event2/event.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/config.h"
#include "common/io/fs.h"
#include "common/io/log.h"
#include "common/io/loop.h"
#include "common/io/manpage.h"
#include "common/io/notify.h"
#include "common/io/process.h"
#include "common/pure/exit_code.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/api.h"
#include "orchestrator/gateway/auth.h"
#include "orchestrator/gateway/bulk.h"
#include "orchestrator/gateway/command.h"
#include "orchestrator/gateway/content.h"
#include "orchestrator/gateway/describe.h"
#include "orchestrator/gateway/follow.h"
#include "orchestrator/gateway/limit.h"
#include "orchestrator/gateway/packages.h"
#include "orchestrator/gateway/retention.h"
#include "orchestrator/gateway/tls.h"
#include "orchestrator/gateway/work.h"

/* Reads, log batches and followers beside each other; each is a PostgreSQL backend of 10 MiB. */
#define DB_CONNECTIONS 4

static const struct config_option options[] = {
    {"link", CONFIG_TEXT, NULL, 0, 0, 0, "FILE",
     "link file that the orchestrator wrote (STATE/gateway.link there); required"},
    {"bind", CONFIG_TEXT, "https://0.0.0.0:7443", 0, 0, 0, "URL",
     "where to serve HTTPS; port 0 picks one; http:// on loopback only"},
    {"bulk-bind", CONFIG_TEXT, "tcp://0.0.0.0:7444", 0, 0, 0, "ENDPOINT",
     "where workers bring logs and fetch files"},
    {"url", CONFIG_TEXT, NULL, 0, 0, 0, "URL",
     "public URL of this gateway; default https://HOST:PORT"},
    {"bulk-url", CONFIG_TEXT, NULL, 0, 0, 0, "ENDPOINT",
     "public endpoint of the bulk channel; default tcp://HOST:PORT with the host of url"},
    {"state", CONFIG_TEXT, NULL, 0, 0, 0, "DIR",
     "certificates and keys; default /var/lib/sheaf/gateway, or under XDG_STATE_HOME"},
    {"store", CONFIG_TEXT, NULL, 0, 0, 0, "DIR", "content store; default STATE/store"},
    {"packages", CONFIG_TEXT, NULL, 0, 0, 0, "DIR",
     "where the worker's package is that /join.sh installs; default ../share/sheaf/packages from "
     "this program"},
    {"tls-cert", CONFIG_TEXT, NULL, 0, 0, CONFIG_RELOAD, "FILE",
     "certificate chain of your own (PEM) instead of the local CA"},
    {"tls-key", CONFIG_TEXT, NULL, 0, 0, CONFIG_RELOAD, "FILE", "its private key"},
    {"san", CONFIG_TEXT, NULL, 0, 0, CONFIG_RELOAD, "NAMES",
     "further names and addresses for the certificate, separated by commas"},
    {"max-connections", CONFIG_INT, "1024", 16, 65536, CONFIG_RELOAD, "N",
     "HTTP connections at once"},
    {"retention", CONFIG_DURATION, "720h", INT64_C(1000000), INT64_C(315360000000000), 0, "TIME",
     "how long logs and outputs of ended jobs, and files that no job uses, are kept; 720h is 30 "
     "days"},
    {"max-per-address", CONFIG_INT, "256", 0, 65536, CONFIG_RELOAD, "N",
     "HTTP connections of one address (IPv6: /64) at once; 0 = as many as there are"},
    {"rate-per-address", CONFIG_INT, "2000", 0, 1000000, CONFIG_RELOAD, "N",
     "requests per second of one address, a new connection counting ten; 0 = no limit"},
    {"rate-per-token", CONFIG_INT, "1000", 0, 1000000, CONFIG_RELOAD, "N",
     "requests per second with one token; 0 = no limit"},
    {"head-timeout", CONFIG_DURATION, "10s", 1000000, 600000000, CONFIG_RELOAD, "TIME",
     "a request's head must come within it, then 1 KiB of body per second"},
    {"idle-timeout", CONFIG_DURATION, "60s", 1000000, 3600000000, CONFIG_RELOAD, "TIME",
     "how long a connection is kept between two requests"},
    {"write-timeout", CONFIG_DURATION, "60s", 1000000, 3600000000, CONFIG_RELOAD, "TIME",
     "a client that takes no byte of its answer for so long is dropped"},
    {"hsts", CONFIG_BOOL, "false", 0, 0, CONFIG_RELOAD, NULL,
     "tell browsers to use HTTPS alone for this name; not with the local CA"},
    {"log-level", CONFIG_TEXT, "info", 0, 0, CONFIG_RELOAD, "LEVEL", "debug, info, warn or error"},
    {NULL, CONFIG_TEXT, NULL, 0, 0, 0, NULL, NULL},
};

/* What is served on HTTPS; made anew by a reload. */
struct certificates {
    SSL_CTX *tls; /* NULL: plain HTTP on loopback */
    char ca_path[512];
    char *ca_pem; /* what clients pin; NULL without TLS */
    uint8_t ca_sha256[SHA256_SIZE];
};

struct start {
    struct config *config;
    char state[FS_PATH];
    char store[FS_PATH];
    char host[256]; /* public host name */
    char bind[256];
    struct certificates now;
    struct gateway *gateway; /* while it runs */
    int lock;
};

/* -- options -------------------------------------------------------------------------------- */

static int take_folders(struct start *start, struct err *err)
{
    const char *state = config_text(start->config, "state");
    const char *store = config_text(start->config, "store");
    const char *home = getenv("HOME");
    const char *xdg = getenv("XDG_STATE_HOME");
    int rc;

    if (state != NULL)
        rc = fs_path(start->state, "%s", state);
    else if (geteuid() == 0)
        rc = fs_path(start->state, "/var/lib/sheaf/gateway");
    else if (xdg != NULL && *xdg == '/')
        rc = fs_path(start->state, "%s/sheaf/gateway", xdg);
    else
        rc = fs_path(start->state, "%s/.local/state/sheaf/gateway", home != NULL ? home : "");
    if (rc == 0)
        rc = store != NULL ? fs_path(start->store, "%s", store)
                           : fs_path(start->store, "%s/store", start->state);
    return rc != 0 ? err_set_at(err, ERR_CONFIG_INVALID, "state", "the path is too long") : 0;
}

/* "https://name:7443" → "name"; brackets of an IPv6 address are cut off. */
static bool host_of(const char *url, char *out, size_t size)
{
    const char *at = strstr(url, "://");
    if (at == NULL)
        return false;
    at += 3;
    size_t length = at[0] == '[' ? strcspn(at + 1, "]") : strcspn(at, ":/");
    at += at[0] == '[';
    if (length == 0 || length >= size)
        return false;
    memcpy(out, at, length);
    out[length] = '\0';
    return true;
}

static void take_host(struct start *start)
{
    const char *url = config_text(start->config, "url");

    if (url != NULL && host_of(url, start->host, sizeof(start->host)))
        return;
    /* Bound to one address: that is what others see; to all of them: our name. */
    if (host_of(config_text(start->config, "bind"), start->host, sizeof(start->host))
        && strcmp(start->host, "0.0.0.0") != 0 && strcmp(start->host, "::") != 0
        && strcmp(start->host, "*") != 0)
        return;
    if (gethostname(start->host, sizeof(start->host)) != 0)
        snprintf(start->host, sizeof(start->host), "localhost");
    start->host[sizeof(start->host) - 1] = '\0';
}

static int check_options(const struct config *config, struct err *err)
{
    static const char *const listening[] = {"bind", "bulk-bind", NULL};
    enum log_level level;

    if (config_text(config, "link") == NULL)
        return config_refuse(config, "link", err,
                             "is required: the orchestrator writes it as STATE/gateway.link");
    if (!log_level_parse(config_text(config, "log-level"), &level))
        return config_refuse(config, "log-level", err, "not debug, info, warn or error");
    if ((config_text(config, "tls-cert") == NULL) != (config_text(config, "tls-key") == NULL))
        return config_refuse(config, "tls-cert", err, "tls-cert and tls-key go together");
    const char *url = config_text(config, "url");
    if (url != NULL && strncmp(url, "https://", 8) != 0
        && strncmp(url, "http://127.0.0.1", 16) != 0)
        return config_refuse(config, "url", err, "does not start with https://");
    if (url != NULL && strlen(url) >= GATEWAY_TEXT)
        return config_refuse(config, "url", err, "is too long");
    int rc = config_check_ports(config, listening, err);
    if (rc == 0)
        rc = config_check_fixed(config, "bind", "url", err);
    if (rc == 0)
        rc = config_check_fixed(config, "bulk-bind", "bulk-url", err);
    return rc;
}

/* -- certificates --------------------------------------------------------------------------- */

static bool name_is_new(const struct tls_names *names, const char *name)
{
    for (uint32_t i = 0; i < names->count; i++) {
        if (strcmp(names->name[i], name) == 0)
            return false;
    }
    return *name != '\0'
           && strspn(name, "0123456789abcdefghijklmnopqrstuvwxyz"
                           "ABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:*")
                  == strlen(name);
}

static void add_name(struct tls_names *names, const char *name)
{
    if (names->count < TLS_MAX_NAMES && name_is_new(names, name))
        names->name[names->count++] = name;
}

static void certificates_fini(struct certificates *certificates)
{
    SSL_CTX_free(certificates->tls);
    free(certificates->ca_pem);
    *certificates = (struct certificates){0};
}

/* Under the local CA, for every name that this gateway may be called by. */
static int make_local(const struct start *start, const char *san, struct certificates *made,
                      struct err *err)
{
    struct tls_names names = {0};
    char host[256] = "";
    char *list = mem_strdup(san != NULL ? san : "");
    struct buf pem;

    add_name(&names, "localhost");
    add_name(&names, "127.0.0.1");
    if (gethostname(host, sizeof(host) - 1) == 0)
        add_name(&names, host);
    add_name(&names, start->host);
    char *rest = list;
    for (char *name = strsep(&rest, ", "); name != NULL; name = strsep(&rest, ", "))
        add_name(&names, name);
    int rc = tls_local(start->state, &names, &made->tls, made->ca_path, made->ca_sha256, err);
    free(list);
    if (rc != 0)
        return rc;
    buf_init(&pem, 65536);
    rc = fs_read(made->ca_path, 65536, &pem, err);
    if (rc == 0)
        made->ca_pem = buf_take(&pem);
    buf_fini(&pem);
    return rc;
}

static int make_certificates(const struct start *start, const struct config *config,
                             struct certificates *ret_made, struct err *err)
{
    struct certificates made = {0};
    int rc = 0;

    if (strncmp(start->bind, "http://", 7) == 0)
        rc = 0;
    else if (config_is_set(config, "tls-cert"))
        rc = tls_own(config_text(config, "tls-cert"), config_text(config, "tls-key"), &made.tls,
                     &made.ca_pem, made.ca_sha256, err);
    else
        rc = make_local(start, config_text(config, "san"), &made, err);
    if (rc == 0)
        *ret_made = made;
    else
        certificates_fini(&made);
    return rc;
}

/* Connections that are open keep what they began with. */
static void use_certificates(struct start *start, struct certificates *made)
{
    struct gateway *gateway = start->gateway;
    struct certificates old = start->now;

    start->now = *made;
    gateway->ca_pem = made->ca_pem;
    memcpy(gateway->ca_sha256, made->ca_sha256, SHA256_SIZE);
    if (made->tls != NULL)
        tls_pin(made->tls, gateway->pin);
    certificates_fini(&old);
}

/* -- starting ------------------------------------------------------------------------------- */

static void on_hint(const Sheaf__ChangeHint *hint, void *arg)
{
    struct gateway *gateway = arg;
    struct uuid job;

    if (hint->tokens)
        auth_forget(gateway->auth);
    if (hint->nodes || hint->all)
        bulk_refresh(gateway->bulk);
    if (hint->all)
        follow_wake(gateway->follow, NULL);
    for (size_t i = 0; i < hint->n_jobs && !hint->all; i++) {
        if (hint->jobs[i].len != sizeof(job.bytes))
            continue;
        memcpy(job.bytes, hint->jobs[i].data, sizeof(job.bytes));
        follow_wake(gateway->follow, &job);
    }
}

static const char *port_of(const char *endpoint)
{
    const char *colon = strrchr(endpoint, ':');

    return colon != NULL ? colon + 1 : "";
}

static int bulk_identity(const struct start *start, struct gateway *gateway, struct err *err)
{
    struct identity identity;
    char path[FS_PATH];

    if (fs_path(path, "%s/bulk.keys", start->state) != 0)
        return err_set(err, ERR_IO, "the state folder's path is too long");
    int rc = identity_load_or_make(path, &identity, err);
    if (rc == 0)
        gateway->bulk_pair = identity.curve;
    return rc;
}

static uint32_t seconds(const struct config *config, const char *key)
{
    return (uint32_t)(config_int(config, key) / 1000000);
}

static struct http_options http_options_of(const struct start *start, struct gateway *gateway)
{
    const struct config *config = start->config;

    return (struct http_options){
        .base = gateway->base,
        .tls = start->now.tls,
        .max_connections = (uint32_t)config_int(config, "max-connections"),
        .max_per_address = (uint32_t)config_int(config, "max-per-address"),
        .rate_per_address = (uint32_t)config_int(config, "rate-per-address"),
        .hsts = config_bool(config, "hsts"),
        .times = {.head = seconds(config, "head-timeout"),
                  .idle = seconds(config, "idle-timeout"),
                  .write = seconds(config, "write-timeout")},
        .hooks = {.body_limit = api_body_limit, .on_call = api_on_call, .arg = gateway},
    };
}

static int start_sockets(const struct start *start, struct gateway *gateway, char bulk_bound[128],
                         char http_bound[128], struct err *err)
{
    const struct config *config = start->config;
    struct http_options http = http_options_of(start, gateway);
    const char *url = config_text(config, "url");
    const char *bulk_url = config_text(config, "bulk-url");
    bool six = strchr(start->host, ':') != NULL;
    int rc = bulk_new(gateway, config_text(config, "bulk-bind"), bulk_bound, &gateway->bulk, err);

    if (rc == 0)
        rc = http_server_new(&http, start->bind, http_bound, &gateway->http, err);
    if (rc != 0)
        return rc;
    if (url != NULL)
        snprintf(gateway->url, sizeof(gateway->url), "%s", url);
    else
        snprintf(gateway->url, sizeof(gateway->url), "%s://%s%.200s%s:%s",
                 start->now.tls != NULL ? "https" : "http", six ? "[" : "", start->host,
                 six ? "]" : "", port_of(http_bound));
    size_t length = strlen(gateway->url);
    if (length > 0 && gateway->url[length - 1] == '/')
        gateway->url[length - 1] = '\0';
    if (bulk_url != NULL)
        snprintf(gateway->bulk_url, sizeof(gateway->bulk_url), "%s", bulk_url);
    else
        snprintf(gateway->bulk_url, sizeof(gateway->bulk_url), "tcp://%s%.200s%s:%s",
                 six ? "[" : "", start->host, six ? "]" : "", port_of(bulk_bound));
    return 0;
}

static int start_parts(struct start *start, struct gateway *gateway, struct err *err)
{
    struct command_hooks hooks = {.on_hint = on_hint, .arg = gateway};
    struct certificates made = {0};
    char bulk_bound[128] = "";
    char http_bound[128] = "";
    char hex[SHA256_HEX];
    int rc = bulk_identity(start, gateway, err);

    gateway->auth = auth_new(gateway);
    gateway->rates = limiter_new((uint32_t)config_int(start->config, "rate-per-token"));
    map_init(&gateway->in_flight);
    /* Stable over restarts, and the same in every gateway with this link. */
    hmac_sha256(gateway->link.token, strlen(gateway->link.token), "cursor", 6,
                gateway->cursor_secret);
    gateway->follow = follow_new(gateway);
    gateway->reasons = api_reasons();
    gateway->scopes = api_scopes();
    if (rc == 0)
        rc = describe_json(&gateway->openapi, err);
    if (rc == 0)
        rc = content_new(start->store, &gateway->content, err);
    if (rc == 0)
        rc = work_new(gateway->base, &gateway->work, err);
    if (rc == 0)
        rc = make_certificates(start, start->config, &made, err);
    if (rc != 0)
        return rc;
    use_certificates(start, &made);
    gateway->packages = packages_new(config_text(start->config, "packages"), err);
    if (gateway->packages == NULL)
        return -ERR_CONFIG_INVALID;
    gateway->db = db_new(gateway->base, gateway->link.database, DB_CONNECTIONS);
    gateway->retention = retention_new(gateway, config_int(start->config, "retention"));
    rc = start_sockets(start, gateway, bulk_bound, http_bound, err);
    if (rc == 0)
        rc = command_link_new(gateway, &hooks, &gateway->commands, err);
    if (rc != 0)
        return rc;
    log_info("main", "ready", "url=%s bound=%s bulk=%s bulk_bound=%s", gateway->url, http_bound,
             gateway->bulk_url, bulk_bound);
    printf("sheaf-gateway ready https=%s bulk=%s ca=%s sha256=%s\n", gateway->url,
           gateway->bulk_url, start->now.ca_path[0] != '\0' ? start->now.ca_path : "-",
           hex_format(gateway->ca_sha256, SHA256_SIZE, hex));
    fflush(stdout);
    return 0;
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    struct event_base *base = arg;

    (void)what;
    log_info("main", "stop", "signal=%d", (int)number);
    event_base_loopbreak(base);
}

/* -- SIGHUP --------------------------------------------------------------------------------- */

struct reloading {
    const struct start *start;
    struct certificates made;
};

static int check_reload(const struct config *fresh, void *arg, struct err *err)
{
    struct reloading *reloading = arg;
    int rc = check_options(fresh, err);

    return rc != 0 ? rc : make_certificates(reloading->start, fresh, &reloading->made, err);
}

/* The certificates are made anew even where their paths did not change: the files may have. */
static void on_reload(evutil_socket_t number, short what, void *arg)
{
    struct start *start = arg;
    struct gateway *gateway = start->gateway;
    struct reloading reloading = {.start = start};
    struct config_reload reload = {check_reload, &reloading};
    enum log_level level = LOG_INFO_LEVEL;
    struct err err = {0};
    char hex[SHA256_HEX];

    (void)number;
    (void)what;
    gateway->reload_failed = config_reload(start->config, &reload, &err) != 0;
    if (gateway->reload_failed)
        return;
    use_certificates(start, &reloading.made);
    struct http_options http = http_options_of(start, gateway);
    http_server_reload(gateway->http, &http);
    limiter_set(gateway->rates, (uint32_t)config_int(start->config, "rate-per-token"));
    (void)log_level_parse(config_text(start->config, "log-level"), &level);
    log_open("sheaf-gateway", level);
    command_link_greet(gateway->commands); /* with the fingerprint that new join tokens carry */
    log_info("main", "certificates", "sha256=%s", hex_format(gateway->ca_sha256, SHA256_SIZE, hex));
}

/* As many files as the hard limit gives: connections, uploads, sockets. */
static void raise_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Made, and from here on named absolutely: others are told paths in it. */
static int make_state(struct start *start, struct err *err)
{
    char *absolute;
    int rc = fs_mkdir(start->state, 0700, err);

    if (rc != 0)
        return rc;
    absolute = realpath(start->state, NULL);
    if (absolute == NULL || fs_path(start->state, "%s", absolute) != 0)
        rc = err_set(err, ERR_IO, "%s cannot be resolved", start->state);
    free(absolute);
    return rc;
}

static int run(struct start *start, struct err *err)
{
    struct gateway gateway = {.started_us = clock_wall_us()};
    char lock[FS_PATH];

    snprintf(gateway.link_path, sizeof(gateway.link_path), "%s",
             config_text(start->config, "link"));
    snprintf(start->bind, sizeof(start->bind), "%s", config_text(start->config, "bind"));
    int rc = gateway_link_load(gateway.link_path, &gateway.link, err);
    if (rc == 0)
        rc = make_state(start, err);
    if (rc == 0 && fs_path(lock, "%s/lock", start->state) != 0)
        rc = err_set(err, ERR_IO, "the state folder's path is too long");
    if (rc == 0)
        rc = fs_lock(lock, &start->lock, err);
    if (rc != 0)
        return rc;
    raise_limits();
    sha256(gateway.link.token, strlen(gateway.link.token), gateway.token_hash);
    gateway.base = loop_new();
    gateway.zmq = zmq_ctx_new();
    struct event *terminate = evsignal_new(gateway.base, SIGTERM, on_signal, gateway.base);
    struct event *interrupt = evsignal_new(gateway.base, SIGINT, on_signal, gateway.base);
    struct event *hangup = evsignal_new(gateway.base, SIGHUP, on_reload, start);
    start->gateway = &gateway;
    event_add(terminate, NULL);
    event_add(interrupt, NULL);
    struct notify *notify = notify_new(gateway.base);
    rc = start_parts(start, &gateway, err);
    if (rc == 0) {
        event_add(hangup, NULL);
        notify_ready(notify, gateway.url);
        event_base_dispatch(gateway.base);
    }
    notify_stopping(notify);
    notify_free(notify);
    /* The thread first: it reads the content store. Then whoever calls others back. */
    work_free(gateway.work);
    http_server_free(gateway.http);
    command_link_free(gateway.commands);
    db_free(gateway.db);
    retention_free(gateway.retention);
    bulk_free(gateway.bulk);
    follow_free(gateway.follow);
    auth_free(gateway.auth);
    limiter_free(gateway.rates);
    map_fini(&gateway.in_flight);
    content_free(gateway.content);
    packages_free(gateway.packages);
    free(gateway.openapi);
    free(gateway.reasons);
    free(gateway.scopes);
    event_free(terminate);
    event_free(interrupt);
    event_free(hangup);
    event_base_free(gateway.base);
    zmq_ctx_term(gateway.zmq);
    certificates_fini(&start->now);
    start->gateway = NULL;
    close(start->lock);
    return rc;
}

/* -- the command line ----------------------------------------------------------------------- */

static int print_help(const struct config *config)
{
    struct buf out;

    buf_init(&out, 0);
    buf_puts(&out, "usage: sheaf-gateway [--config FILE] --link FILE [OPTION…]\n"
                   "       sheaf-gateway --check-config | --print-config | --help | --version\n\n"
                   "Serves the API over HTTPS and the bulk channel to workers.\n\n");
    config_help(config, &out);
    fputs(out.data, stdout);
    buf_fini(&out);
    return 0;
}

static int print_man(void)
{
    const struct manpage page = {
        .name = "sheaf-gateway",
        .summary = "serve a Sheaf pool over HTTPS, and the bulk channel to its workers",
        .usage = "sheaf-gateway [--config FILE] --link FILE [OPTION…]\n"
                 "sheaf-gateway --check-config | --print-config | --help | --version",
        .text = "The edge of a pool: API, streams, content store, join script and the worker's\n"
                "package. It reads the database and passes commands on to the orchestrator;\n"
                "it decides nothing.",
        .files = "/etc/sheaf/gateway.yaml    settings\n"
                 "/var/lib/sheaf/gateway     certificates, keys, content store\n"
                 "/usr/share/sheaf/packages  what /packages/ serves",
        .options = options,
    };

    manpage_print(&page);
    return 0;
}

static int print_config(const struct config *config)
{
    struct buf out;

    buf_init(&out, 0);
    config_print(config, &out);
    fputs(out.data, stdout);
    buf_fini(&out);
    return 0;
}

static bool has_flag(int argc, char **argv, const char *flag)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], flag) == 0)
            return true;
    }
    return false;
}

static int complain(const struct err *err)
{
    fprintf(stderr, "sheaf-gateway: %s: %s\n  next: %s\n", err_slug(err->code), err->text,
            err_info(err->code)->hint);
    return (int)exit_code_of(err->code);
}

static int command_line(struct start *start, int argc, char **argv)
{
    static const char *const flags[] = {"--help",         "--man",          "-h", "--version",
                                        "--check-config", "--print-config", NULL};
    struct err err = {0};
    enum log_level level = LOG_INFO_LEVEL;

    if (has_flag(argc, argv, "--help") || has_flag(argc, argv, "-h"))
        return print_help(start->config);
    if (has_flag(argc, argv, "--man"))
        return print_man();
    if (has_flag(argc, argv, "--version")) {
        puts("sheaf-gateway " SHEAF_VERSION);
        return 0;
    }
    bool check = has_flag(argc, argv, "--check-config");
    bool print = has_flag(argc, argv, "--print-config");
    if (config_load(start->config, &argc, argv, &err) != 0
        || config_check_words(start->config, argc, argv, flags, &err) != 0)
        return complain(&err);
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            (void)err_set(&err, ERR_USAGE, "there is no word %s; --help lists the options",
                          argv[i]);
            return complain(&err);
        }
    }
    if (print)
        return print_config(start->config);
    if (check_options(start->config, &err) != 0 || take_folders(start, &err) != 0)
        return complain(&err);
    if (check) {
        puts("ok");
        return 0;
    }
    take_host(start);
    (void)log_level_parse(config_text(start->config, "log-level"), &level);
    log_open("sheaf-gateway", level);
    return run(start, &err) != 0 ? complain(&err) : 0;
}

int main(int argc, char **argv)
{
    struct start start = {.config = config_new(options, "SHEAF_GATEWAY"), .lock = -1};
    fs_guard_streams();
    process_keep_secrets();
    int rc = command_line(&start, argc, argv);

    config_free(start.config);
    return rc;
}
