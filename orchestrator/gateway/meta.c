/* What the process says of itself: health, readiness, metrics, version, the API's description. */
#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/json.h"
#include "orchestrator/gateway/api.h"
#include "orchestrator/gateway/bulk.h"
#include "orchestrator/gateway/command.h"
#include "orchestrator/gateway/content.h"
#include "orchestrator/gateway/follow.h"
#include "orchestrator/gateway/metric.h"
#include "orchestrator/gateway/problem.h"
#include "orchestrator/gateway/retention.h"
#include "orchestrator/gateway/work.h"

void api_healthz(struct gateway *gateway, struct http_call *call)
{
    (void)gateway;
    api_json(call, 200, json_pack("{s:s}", "status", "ok"));
}

void api_readyz(struct gateway *gateway, struct http_call *call)
{
    bool database = db_is_up(gateway->db);
    bool orchestrator = command_link_is_up(gateway->commands);

    if (database && orchestrator) {
        api_json(call, 200,
                 json_pack("{s:s,s:b,s:b}", "status", "ready", "database", 1, "orchestrator", 1));
        return;
    }
    http_problemf(call, ERR_UNAVAILABLE, "database: %s, orchestrator: %s",
                  database ? "up" : "no connection",
                  orchestrator ? "up" : "no answer in the last seconds");
}

void api_version(struct gateway *gateway, struct http_call *call)
{
    char started[32];

    api_json(call, 200,
             json_pack("{s:s,s:s,s:s,s:s}", "name", "sheaf-gateway", "version", SHEAF_VERSION,
                       "api", "v1", "started_at", clock_format(gateway->started_us, started)));
}

void api_openapi(struct gateway *gateway, struct http_call *call)
{
    http_reply(call, 200, "application/json", gateway->openapi, strlen(gateway->openapi));
}

/* Where the type of a problem document leads. */
void api_error(struct gateway *gateway, struct http_call *call)
{
    enum err_code code = err_from_slug(call->param[0]);

    (void)gateway;
    if (code == ERR_NONE) {
        http_problemf(call, ERR_NOT_FOUND, "there is no such code");
        return;
    }
    char *text = problem_explain(code);
    http_reply(call, 200, "text/plain; charset=utf-8", text, strlen(text));
    free(text);
}

void api_ca(struct gateway *gateway, struct http_call *call)
{
    if (gateway->ca_pem == NULL)
        http_problemf(call, ERR_NOT_FOUND, "this gateway serves no TLS");
    else
        http_reply(call, 200, "application/x-pem-file", gateway->ca_pem, strlen(gateway->ca_pem));
}

/* -- metrics -------------------------------------------------------------------------------- */

struct sample {
    const char *name;
    const char *type;
    const char *help;
    uint64_t value;
};

static void metrics_http(struct gateway *gateway, struct buf *out)
{
    static const char *const classes[6] = {"?", "1xx", "2xx", "3xx", "4xx", "5xx"};
    struct http_counters http = http_counters(gateway->http);
    const char *name = "sheaf_gateway_http_answers_total";

    metric_head(out, name, "counter", "Answers by class of status.");
    for (int i = 2; i < 6; i++)
        metric_value(out, name, "class", classes[i], http.by_class[i]);
    const struct sample samples[] = {
        {"sheaf_gateway_http_connections_total", "counter", "Connections accepted.",
         http.connections},
        {"sheaf_gateway_http_connections", "gauge", "Connections open now.", http.open},
        {"sheaf_gateway_http_refused_total", "counter", "Connections beyond the cap.",
         http.refused},
        {"sheaf_gateway_http_limited_total", "counter",
         "Requests beyond the rate of their address or token.", http.limited},
        {"sheaf_gateway_http_framing_total", "counter", "Requests refused by the framing guard.",
         http.framing},
        {"sheaf_gateway_http_gone_total", "counter", "Clients that left before their answer ended.",
         http.gone},
        {"sheaf_gateway_streams", "gauge", "Followers of events and logs.",
         follow_count(gateway->follow)},
    };
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        metric_head(out, samples[i].name, samples[i].type, samples[i].help);
        metric_value(out, samples[i].name, NULL, NULL, samples[i].value);
    }
}

static void metrics_rest(struct gateway *gateway, struct buf *out)
{
    struct db_counters db = db_counters(gateway->db);
    struct command_counters commands = command_counters(gateway->commands);
    struct bulk_counters bulk = bulk_counters(gateway->bulk);
    const struct sample samples[] = {
        {"sheaf_gateway_config_reload_failed", "gauge",
         "1 when the configuration read at the last SIGHUP was refused: the old one holds.",
         gateway->reload_failed},
        {"sheaf_gateway_db_up", "gauge", "Database connections open.", db.up},
        {"sheaf_gateway_db_requests_total", "counter", "Requests to the database.", db.requests},
        {"sheaf_gateway_db_shared_total", "counter",
         "Requests answered by the execution of another.", db.shared},
        {"sheaf_gateway_db_failed_total", "counter", "Requests that failed.", db.failed},
        {"sheaf_gateway_db_queued", "gauge", "Requests waiting for a connection.", db.queued},
        {"sheaf_gateway_orchestrator_up", "gauge", "1 when the orchestrator answers.",
         command_link_is_up(gateway->commands)},
        {"sheaf_gateway_commands_total", "counter", "Commands sent.", commands.sent},
        {"sheaf_gateway_commands_timed_out_total", "counter", "Commands without an answer.",
         commands.timed_out},
        {"sheaf_gateway_commands_waiting", "gauge", "Commands waiting for an answer.",
         commands.waiting},
        {"sheaf_gateway_hints_total", "counter", "Hints of commits.", commands.hints},
        {"sheaf_gateway_bulk_sessions", "gauge", "Workers on the bulk channel.", bulk.sessions},
        {"sheaf_gateway_bulk_keys", "gauge", "Keys that may connect to it.", bulk.keys},
        {"sheaf_gateway_bulk_handshakes_refused_total", "counter", "Foreign keys refused.",
         bulk.handshakes_refused},
        {"sheaf_gateway_bulk_floods_total", "counter",
         "Connections ended over a message that did not end.", bulk.floods},
        {"sheaf_gateway_log_pieces_total", "counter", "Log pieces stored.", bulk.pieces},
        {"sheaf_gateway_log_bytes_total", "counter", "Bytes of log pieces stored, compressed.",
         bulk.piece_bytes},
        {"sheaf_gateway_file_bytes_out_total", "counter", "Bytes of files sent to workers.",
         bulk.file_bytes_out},
        {"sheaf_gateway_file_bytes_in_total", "counter", "Bytes of outputs received.",
         bulk.file_bytes_in},
        {"sheaf_gateway_outputs_total", "counter", "Outputs stored.", bulk.outputs},
        {"sheaf_gateway_retention_steps_total", "counter", "Batches of old log pieces deleted.",
         retention_counters(gateway->retention).steps},
        {"sheaf_gateway_retention_contents_total", "counter", "Old contents deleted.",
         retention_counters(gateway->retention).contents},
        {"sheaf_gateway_bulk_refused_total", "counter", "Bulk messages refused.", bulk.refused},
        {"sheaf_gateway_content_free_bytes", "gauge", "Free bytes on the content store's disk.",
         content_free_bytes(gateway->content)},
        {"sheaf_gateway_work_waiting", "gauge", "Uploads being checked.",
         work_waiting(gateway->work)},
    };
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        metric_head(out, samples[i].name, samples[i].type, samples[i].help);
        metric_value(out, samples[i].name, NULL, NULL, samples[i].value);
    }
}

void api_metrics(struct gateway *gateway, struct http_call *call)
{
    struct buf out;

    buf_init(&out, 0);
    metric_head(&out, "sheaf_gateway_build_info", "gauge", "Always 1; the version is the label.");
    metric_value(&out, "sheaf_gateway_build_info", "version", SHEAF_VERSION, 1);
    metrics_http(gateway, &out);
    metrics_rest(gateway, &out);
    http_reply(call, 200, METRIC_TYPE, out.data, out.length);
    buf_fini(&out);
}

/* -- the status page ------------------------------------------------------------------------ */

static void page_counts(struct buf *out, const char *title, const json_t *counts)
{
    union {
        const json_t *in;
        json_t *out;
    } cast = {.in = counts}; /* jansson's iterators are not const */
    const char *key;
    json_t *value;

    buf_printf(out, "<h2>%s</h2>\n", title);
    if (json_object_size(counts) == 0) {
        buf_puts(out, "<p>none</p>\n");
        return;
    }
    buf_puts(out, "<table>\n<tr><th scope=\"col\">State</th><th scope=\"col\">Count</th></tr>\n");
    json_object_foreach(cast.out, key, value)
    {
        buf_puts(out, "<tr><td>");
        html_text(out, key);
        buf_printf(out, "</td><td>%lld</td></tr>\n", (long long)json_integer_value(value));
    }
    buf_puts(out, "</table>\n");
}

static void page_write(const struct gateway *gateway, const json_t *summary, struct buf *out)
{
    char now[32];

    buf_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width\">\n"
                  "<title>Sheaf</title>\n</head>\n<body>\n<h1>Sheaf</h1>\n<p>");
    html_text(out, gateway->url);
    buf_printf(out, " &middot; version %s &middot; %s</p>\n", SHEAF_VERSION,
               clock_format(clock_wall_us(), now));
    buf_printf(out, "<p>Database: %s. Orchestrator: %s.</p>\n",
               db_is_up(gateway->db) ? "up" : "<strong>down</strong>",
               command_link_is_up(gateway->commands) ? "up" : "<strong>no answer</strong>");
    if (summary != NULL) {
        page_counts(out, "Nodes", json_object_get(summary, "nodes"));
        buf_printf(out,
                   "<p>%lld proven devices on ready nodes, %lld leased now; %lld nodes silent."
                   "</p>\n",
                   (long long)json_integer_value(json_object_get(summary, "devices")),
                   (long long)json_integer_value(json_object_get(summary, "leased")),
                   (long long)json_integer_value(json_object_get(summary, "unknown")));
        page_counts(out, "Jobs", json_object_get(summary, "jobs"));
    }
    buf_puts(out, "<p><a href=\"/openapi.json\">API</a> &middot; <a href=\"/metrics\">metrics</a>"
                  " &middot; <a href=\"/readyz\">readiness</a> &middot; <a href=\"/ca.pem\">CA"
                  " certificate</a></p>\n</body>\n</html>\n");
}

static void page_answer(struct gateway *gateway, struct http_call *call, const json_t *summary)
{
    struct buf out;

    buf_init(&out, 0);
    page_write(gateway, summary, &out);
    http_header(call, "Content-Security-Policy",
                "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    http_header(call, "Referrer-Policy", "no-referrer");
    http_reply(call, 200, "text/html; charset=utf-8", out.data, out.length);
    buf_fini(&out);
}

static void on_summary(const struct err *err, PGresult *const *results, uint32_t count, uint64_t id,
                       void *arg)
{
    struct gateway *gateway = arg;
    struct http_call *call = http_call_find(gateway->http, id);

    (void)count;
    if (call == NULL)
        return;
    const char *text = err == NULL ? db_text(results[0]) : NULL;
    json_t *summary = text != NULL ? json_loads(text, 0, NULL) : NULL;
    page_answer(gateway, call, summary);
    json_decref(summary);
}

void api_page(struct gateway *gateway, struct http_call *call)
{
    struct db_args args;

    /* Without a database the page still says so. */
    if (!db_is_up(gateway->db)) {
        page_answer(gateway, call, NULL);
        return;
    }
    db_args_init(&args, QUERY_SUMMARY);
    db_ask(gateway->db, &db_sight_own, &args, 1, on_summary, call->id, gateway);
}
