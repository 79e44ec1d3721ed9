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
#include "common/pure/mem.h"
#include "orchestrator/gateway/api.h"
#include "orchestrator/gateway/auth.h"
#include "orchestrator/gateway/bulk.h"
#include "orchestrator/gateway/command.h"
#include "orchestrator/gateway/content.h"
#include "orchestrator/gateway/describe.h"
#include "orchestrator/gateway/follow.h"
#include "orchestrator/gateway/packages.h"
#include "orchestrator/gateway/tls.h"
#include "orchestrator/gateway/work.h"

/* Reads, log batches and followers beside each other; each is a PostgreSQL backend of 10 MiB. */
#define DB_CONNECTIONS 4

static const struct config_option options[] = {
    {"link", CONFIG_TEXT, NULL, 0, 0, false, "FILE",
     "link file that the orchestrator wrote (STATE/gateway.link there); required"},
    {"bind", CONFIG_TEXT, "https://0.0.0.0:7443", 0, 0, false, "URL",
     "where to serve HTTPS; port 0 picks one; http:// on loopback only"},
    {"bulk-bind", CONFIG_TEXT, "tcp://0.0.0.0:7444", 0, 0, false, "ENDPOINT",
     "where workers bring logs and fetch files"},
    {"url", CONFIG_TEXT, NULL, 0, 0, false, "URL",
     "public URL of this gateway; default https://HOST:PORT"},
    {"bulk-url", CONFIG_TEXT, NULL, 0, 0, false, "ENDPOINT",
     "public endpoint of the bulk channel; default tcp://HOST:PORT with the host of url"},
    {"state", CONFIG_TEXT, NULL, 0, 0, false, "DIR",
     "certificates and keys; default /var/lib/sheaf/gateway, or under XDG_STATE_HOME"},
    {"store", CONFIG_TEXT, NULL, 0, 0, false, "DIR", "content store; default STATE/store"},
    {"packages", CONFIG_TEXT, NULL, 0, 0, false, "DIR",
     "where the worker's package is that /join.sh installs; default ../share/sheaf/packages from "
     "this program"},
    {"tls-cert", CONFIG_TEXT, NULL, 0, 0, false, "FILE",
     "certificate chain of your own (PEM) instead of the local CA"},
    {"tls-key", CONFIG_TEXT, NULL, 0, 0, false, "FILE", "its private key"},
    {"san", CONFIG_TEXT, NULL, 0, 0, false, "NAMES",
     "further names and addresses for the certificate, separated by commas"},
    {"max-connections", CONFIG_INT, "1024", 16, 65536, false, "N", "HTTP connections at once"},
    {"log-level", CONFIG_TEXT, "info", 0, 0, false, "LEVEL", "debug, info, warn or error"},
    {NULL, CONFIG_TEXT, NULL, 0, 0, false, NULL, NULL},
};

struct start {
    struct config *config;
    char state[FS_PATH];
    char store[FS_PATH];
    char host[256]; /* public host name */
    char ca_path[512];
    char bind[256];
    SSL_CTX *tls;
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

static int check_options(const struct start *start, struct err *err)
{
    enum log_level level;
    const struct config *config = start->config;

    if (config_text(config, "link") == NULL)
        return err_set_at(err, ERR_CONFIG_INVALID, "link",
                          "link is required: the orchestrator writes it as STATE/gateway.link");
    if (!log_level_parse(config_text(config, "log-level"), &level))
        return err_set_at(err, ERR_CONFIG_INVALID, "log-level", "not debug, info, warn or error");
    if ((config_text(config, "tls-cert") == NULL) != (config_text(config, "tls-key") == NULL))
        return err_set_at(err, ERR_CONFIG_INVALID, "tls-cert", "tls-cert and tls-key go together");
    const char *url = config_text(config, "url");
    if (url != NULL && strncmp(url, "https://", 8) != 0
        && strncmp(url, "http://127.0.0.1", 16) != 0)
        return err_set_at(err, ERR_CONFIG_INVALID, "url", "url does not start with https://");
    if (url != NULL && strlen(url) >= GATEWAY_TEXT)
        return err_set_at(err, ERR_CONFIG_INVALID, "url", "url is too long");
    return 0;
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

static int make_tls(struct start *start, struct gateway *gateway, struct err *err)
{
    struct tls_names names = {0};
    char host[256] = "";
    const char *san = config_text(start->config, "san");
    char *list = mem_strdup(san != NULL ? san : "");
    struct buf pem;

    if (strncmp(start->bind, "http://", 7) == 0) {
        free(list);
        return 0;
    }
    if (config_is_set(start->config, "tls-cert")) {
        free(list);
        return tls_own(config_text(start->config, "tls-cert"),
                       config_text(start->config, "tls-key"), &start->tls, gateway->ca_sha256, err);
    }
    add_name(&names, "localhost");
    add_name(&names, "127.0.0.1");
    if (gethostname(host, sizeof(host) - 1) == 0)
        add_name(&names, host);
    add_name(&names, start->host);
    char *rest = list;
    for (char *name = strsep(&rest, ", "); name != NULL; name = strsep(&rest, ", "))
        add_name(&names, name);
    int rc = tls_local(start->state, &names, &start->tls, start->ca_path, gateway->ca_sha256, err);
    free(list);
    if (rc != 0)
        return rc;
    buf_init(&pem, 65536);
    rc = fs_read(start->ca_path, 65536, &pem, err);
    if (rc == 0)
        gateway->ca_pem = buf_take(&pem);
    buf_fini(&pem);
    return rc;
}

/* -- starting ------------------------------------------------------------------------------- */

static void on_hint(const Sheaf__ChangeHint *hint, void *arg)
{
    struct gateway *gateway = arg;
    struct uuid job;

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

static int start_sockets(const struct start *start, struct gateway *gateway, char bulk_bound[128],
                         char http_bound[128], struct err *err)
{
    const struct config *config = start->config;
    struct http_options http = {
        .base = gateway->base,
        .tls = start->tls,
        .max_connections = (uint32_t)config_int(config, "max-connections"),
        .hooks = {.body_limit = api_body_limit, .on_call = api_on_call, .arg = gateway},
    };
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
                 start->tls != NULL ? "https" : "http", six ? "[" : "", start->host, six ? "]" : "",
                 port_of(http_bound));
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
    char bulk_bound[128] = "";
    char http_bound[128] = "";
    char hex[SHA256_HEX];
    int rc = bulk_identity(start, gateway, err);

    gateway->auth = auth_new(gateway);
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
        rc = make_tls(start, gateway, err);
    if (rc == 0)
        gateway->packages = packages_new(config_text(start->config, "packages"), err);
    if (rc != 0 || gateway->packages == NULL)
        return rc != 0 ? rc : -ERR_CONFIG_INVALID;
    if (start->tls != NULL)
        tls_pin(start->tls, gateway->pin);
    gateway->db = db_new(gateway->base, gateway->link.database, DB_CONNECTIONS);
    rc = start_sockets(start, gateway, bulk_bound, http_bound, err);
    if (rc == 0)
        rc = command_link_new(gateway, &hooks, &gateway->commands, err);
    if (rc != 0)
        return rc;
    log_info("main", "ready", "url=%s bound=%s bulk=%s bulk_bound=%s", gateway->url, http_bound,
             gateway->bulk_url, bulk_bound);
    printf("sheaf-gateway ready https=%s bulk=%s ca=%s sha256=%s\n", gateway->url,
           gateway->bulk_url, start->ca_path[0] != '\0' ? start->ca_path : "-",
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
    event_add(terminate, NULL);
    event_add(interrupt, NULL);
    struct notify *notify = notify_new(gateway.base);
    rc = start_parts(start, &gateway, err);
    if (rc == 0) {
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
    bulk_free(gateway.bulk);
    follow_free(gateway.follow);
    auth_free(gateway.auth);
    content_free(gateway.content);
    packages_free(gateway.packages);
    free(gateway.ca_pem);
    free(gateway.openapi);
    free(gateway.reasons);
    free(gateway.scopes);
    event_free(terminate);
    event_free(interrupt);
    event_base_free(gateway.base);
    zmq_ctx_term(gateway.zmq);
    SSL_CTX_free(start->tls);
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
    struct buf out;

    buf_init(&out, 0);
    manpage_write(&page, &out);
    fputs(out.data, stdout);
    buf_fini(&out);
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
    fprintf(stderr, "sheaf-gateway: %s\n", err->text[0] != '\0' ? err->text : err_slug(err->code));
    return err->code == ERR_CONFIG_INVALID || err->code == ERR_USAGE ? 2 : 1;
}

static int command_line(struct start *start, int argc, char **argv)
{
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
    if (config_load(start->config, &argc, argv, &err) != 0)
        return complain(&err);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--check-config") != 0 && strcmp(argv[i], "--print-config") != 0) {
            fprintf(stderr, "sheaf-gateway: unknown argument %s (--help)\n", argv[i]);
            return 2;
        }
    }
    if (print)
        return print_config(start->config);
    if (check_options(start, &err) != 0 || take_folders(start, &err) != 0)
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
    int rc = command_line(&start, argc, argv);

    config_free(start.config);
    return rc;
}
