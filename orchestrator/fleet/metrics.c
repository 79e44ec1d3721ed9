#include "orchestrator/fleet/metrics.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/pure/mem.h"

#define METRICS_HOST       64
#define METRICS_TIMEOUT_S  10
#define METRICS_MAX_HEADER 8192
#define METRICS_MAX_BYTES  ((size_t)1 << 18)

struct metrics {
    struct evhttp *http;
    metrics_collect_f collect;
    void *arg;
};

/* -- text ------------------------------------------------------------------------------------ */

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP sheaf_%s %s\n# TYPE sheaf_%s %s\n", name, help, name, type);
}

static void counter(struct buf *out, const char *name, const char *help, uint64_t value)
{
    head(out, name, "counter", help);
    buf_printf(out, "sheaf_%s %" PRIu64 "\n", name, value);
}

static void gauge(struct buf *out, const char *name, const char *help, uint64_t value)
{
    head(out, name, "gauge", help);
    buf_printf(out, "sheaf_%s %" PRIu64 "\n", name, value);
}

/* Microseconds as seconds, exactly. */
static void seconds(struct buf *out, const char *name, const char *type, const char *help,
                    int64_t us)
{
    head(out, name, type, help);
    buf_printf(out, "sheaf_%s %" PRId64 ".%06" PRId64 "\n", name, us / 1000000, us % 1000000);
}

static void write_world(const struct world_counts *world, struct buf *out)
{
    head(out, "nodes", "gauge", "Nodes by state.");
    for (int i = 0; i < NODE_STATE_COUNT; i++)
        buf_printf(out, "sheaf_nodes{state=\"%s\"} %" PRIu32 "\n",
                   node_state_name((enum node_state)i), world->nodes_by_state[i]);
    gauge(out, "nodes_unknown", "Nodes that missed their heartbeats.", world->nodes_unknown);
    head(out, "jobs", "gauge", "Jobs by state; ended ones since the start.");
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        buf_printf(out, "sheaf_jobs{state=\"%s\"} %" PRIu32 "\n", job_state_name((enum job_state)i),
                   world->jobs_by_state[i]);
    gauge(out, "slots", "Slots of all nodes.", world->slots);
    gauge(out, "slots_leased", "Slots under a live lease.", world->slots_leased);
    gauge(out, "measured_mebibytes", "Device memory that passed a self-test.", world->measured_mib);
}

static void write_engine(const struct engine_counters *engine, struct buf *out)
{
    counter(out, "events_total", "Events decided.", engine->events);
    counter(out, "commits_total", "Batches committed.", engine->commits);
    counter(out, "rows_total", "Rows written.", engine->rows);
    counter(out, "reloads_total", "Worlds dropped and loaded again.", engine->reloads);
    counter(out, "quarantined_total", "Events that could not be committed.", engine->quarantined);
    seconds(out, "commit_seconds_total", "counter", "Time spent in commits.",
            engine->commit_us_sum);
    seconds(out, "commit_seconds_max", "gauge", "Slowest commit.", engine->commit_us_max);
}

static void write_fleet(const struct fleet_counters *fleet, struct buf *out)
{
    gauge(out, "sessions", "Workers connected.", fleet->sessions);
    gauge(out, "silent", "Watched nodes without a sign of life.", fleet->silent);
    counter(out, "worker_messages_total", "Messages of workers.", fleet->worker_messages);
    counter(out, "worker_dropped_total", "Messages of revoked or muted keys.",
            fleet->worker_dropped);
    counter(out, "worker_wrong_total", "Messages that could not be decoded.", fleet->worker_wrong);
    counter(out, "worker_refused_total", "Messages answered with an error.", fleet->worker_refused);
    counter(out, "links_kept_back_total", "Link samples that were no news.",
            fleet->links_kept_back);
    counter(out, "orders_total", "Orders sent.", fleet->orders);
    counter(out, "orders_unsent_total", "Orders to workers that were away.", fleet->orders_unsent);
    counter(out, "commands_total", "Commands of gateways.", fleet->commands);
    counter(out, "commands_refused_total", "Commands refused before the core.",
            fleet->commands_refused);
    gauge(out, "commands_waiting", "Commands in work.", fleet->waiting);
    counter(out, "hints_total", "Change hints published.", fleet->hints);
    counter(out, "zap_refused_total", "CURVE handshakes refused.", fleet->zap_refused);
    counter(out, "worker_floods_total", "Connections ended over a message that did not end.",
            fleet->worker_floods);
    gauge(out, "workers_skewed", "Workers whose clock is more than 30 s off.", fleet->skewed);
    seconds(out, "loop_lag_seconds_max", "gauge", "Worst loop lag since the last scrape.",
            fleet->lag_us_max);
}

void metrics_write(const struct metrics_facts *facts, struct buf *out)
{
    write_world(&facts->world, out);
    write_engine(&facts->engine, out);
    write_fleet(&facts->fleet, out);
    gauge(out, "term", "Leadership term.", facts->term);
    gauge(out, "resident_bytes", "Resident memory.", facts->resident_bytes);
    gauge(out, "config_reload_failed",
          "1 when the configuration read at the last SIGHUP was refused: the old one holds.",
          facts->reload_failed);
    seconds(out, "up_seconds", "gauge", "Time since the start.", facts->up_us);
}

uint64_t metrics_resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    uint64_t pages = 0;
    char line[128] = "";
    const char *at;

    if (file == NULL)
        return 0;
    /* "size resident …", in pages. */
    at = fgets(line, sizeof(line), file) ? strchr(line, ' ') : NULL;
    for (at = at ? at + 1 : line; *at >= '0' && *at <= '9'; at++)
        pages = pages * 10 + (uint64_t)(*at - '0');
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* -- HTTP ------------------------------------------------------------------------------------ */

static void send_text(struct evhttp_request *request, int status, const char *type,
                      const struct buf *text)
{
    struct evbuffer *body = evbuffer_new();

    BUG_ON(body == NULL || evbuffer_add(body, text->data, text->length) != 0);
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", type);
    evhttp_send_reply(request, status, NULL, body);
    evbuffer_free(body);
}

static void on_metrics(struct evhttp_request *request, void *arg)
{
    struct metrics *metrics = arg;
    struct metrics_facts facts = {0};
    struct buf text;

    buf_init(&text, METRICS_MAX_BYTES);
    metrics->collect(&facts, metrics->arg);
    metrics_write(&facts, &text);
    send_text(request, 200, "text/plain; version=0.0.4; charset=utf-8", &text);
    buf_fini(&text);
}

static void on_health(struct evhttp_request *request, void *arg)
{
    struct metrics *metrics = arg;
    struct metrics_facts facts = {0};
    bool well = metrics->collect(&facts, metrics->arg);
    struct buf text;

    buf_init(&text, METRICS_MAX_BYTES);
    buf_puts(&text, well ? "ok\n" : "not serving\n");
    send_text(request, well ? 200 : 503, "text/plain; charset=utf-8", &text);
    buf_fini(&text);
}

/* HOST:PORT, the last colon divides. */
static int split(const char *endpoint, char host[METRICS_HOST], uint16_t *ret_port, struct err *err)
{
    const char *colon = strrchr(endpoint, ':');
    unsigned port = 0;

    if (colon == NULL || colon == endpoint || colon[1] == 0
        || (size_t)(colon - endpoint) >= METRICS_HOST)
        return err_set(err, ERR_CONFIG_INVALID, "%s is not HOST:PORT", endpoint);
    for (const char *at = colon + 1; *at; at++) {
        if (*at < '0' || *at > '9' || port > 65535)
            return err_set(err, ERR_CONFIG_INVALID, "%s is not HOST:PORT", endpoint);
        port = port * 10 + (unsigned)(*at - '0');
    }
    if (port > 65535)
        return err_set(err, ERR_CONFIG_INVALID, "%s is not HOST:PORT", endpoint);
    snprintf(host, METRICS_HOST, "%.*s", (int)(colon - endpoint), endpoint);
    *ret_port = (uint16_t)port;
    return 0;
}

static uint16_t bound_port(struct evhttp_bound_socket *socket)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    uint16_t port = 0;

    if (getsockname(evhttp_bound_socket_get_fd(socket), (struct sockaddr *)&address, &size) != 0)
        return 0;
    if (address.ss_family == AF_INET)
        memcpy(&port, (const char *)&address + offsetof(struct sockaddr_in, sin_port), 2);
    else
        memcpy(&port, (const char *)&address + offsetof(struct sockaddr_in6, sin6_port), 2);
    return ntohs(port);
}

int metrics_new(struct event_base *base, const char *endpoint, metrics_collect_f collect, void *arg,
                char ret_endpoint[ENDPOINT_TEXT], struct metrics **ret_metrics, struct err *err)
{
    struct evhttp_bound_socket *socket;
    struct metrics *metrics;
    char host[METRICS_HOST];
    uint16_t port = 0;
    int rc = split(endpoint, host, &port, err);

    if (rc)
        return rc;
    metrics = mem_new(1, sizeof(*metrics));
    metrics->collect = collect;
    metrics->arg = arg;
    metrics->http = evhttp_new(base);
    BUG_ON(metrics->http == NULL);
    evhttp_set_allowed_methods(metrics->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_max_headers_size(metrics->http, METRICS_MAX_HEADER);
    evhttp_set_max_body_size(metrics->http, METRICS_MAX_HEADER);
    evhttp_set_timeout(metrics->http, METRICS_TIMEOUT_S);
    evhttp_set_cb(metrics->http, "/metrics", on_metrics, metrics);
    evhttp_set_cb(metrics->http, "/healthz", on_health, metrics);
    socket = evhttp_bind_socket_with_handle(metrics->http, host, port);
    if (socket == NULL) {
        metrics_free(metrics);
        return err_set(err, ERR_IO, "cannot listen on %s", endpoint);
    }
    snprintf(ret_endpoint, ENDPOINT_TEXT, "%s:%u", host, bound_port(socket));
    *ret_metrics = metrics;
    return 0;
}

void metrics_free(struct metrics *metrics)
{
    if (metrics == NULL)
        return;
    evhttp_free(metrics->http);
    free(metrics);
}
