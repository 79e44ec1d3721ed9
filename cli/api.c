#include "cli/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/context.h"
#include "cli/term.h"
#include "common/io/clock.h"
#include "common/io/json.h"
#include "common/pure/utf8.h"

#define TRIES           3
#define CALL_TIMEOUT_MS 60000
#define BODY_SHOWN      200
#define PAGE_LIMIT      200
#define PAGES_MAX       500 /* 100,000 rows: more than a terminal is for */

int api_open(struct httpc *ret_client, struct err *err)
{
    const char *url = getenv("SHEAF_URL");
    const char *token = getenv("SHEAF_TOKEN");
    const char *ca = getenv("SHEAF_CA");
    struct httpc client = {0};
    struct context context = {0};

    if (url == NULL || url[0] == '\0' || term.context != NULL) {
        int rc = context_load(term.context, &context, err);
        if (rc < 0)
            return rc;
        url = context.url;
        ca = context.ca_file;
        if (token == NULL || token[0] == '\0' || term.context != NULL)
            token = context.token;
    }
    snprintf(client.url, sizeof(client.url), "%s", url);
    snprintf(client.ca_file, sizeof(client.ca_file), "%s", ca ? ca : "");
    snprintf(client.token, sizeof(client.token), "%s", token ? token : "");
    *ret_client = client;
    return 0;
}

/* The first bytes of what came, made harmless: the err's reader is a terminal. */
static int unexpected(const struct httpc_response *response, struct err *err)
{
    size_t length = response->body.length < BODY_SHOWN ? response->body.length : BODY_SHOWN;
    struct buf shown;

    buf_init(&shown, 0);
    utf8_show(response->body.data ? response->body.data : "", length, &shown);
    err_set(err, ERR_UNEXPECTED_RESPONSE, "HTTP %ld %.40s: %s", response->status,
            response->content_type, shown.data ? shown.data : "nothing");
    buf_fini(&shown);
    return -ERR_UNEXPECTED_RESPONSE;
}

int api_problem(const struct httpc_response *response, struct err *err)
{
    json_t *problem;
    struct err ignored;
    const char *body = response->body.data ? response->body.data : "";

    if (json_read(body, response->body.length, &problem, &ignored) < 0)
        return unexpected(response, err);
    if (!json_is_object(problem)) {
        json_decref(problem);
        return unexpected(response, err);
    }
    const char *slug = json_text(problem, "code");
    const char *detail = json_text(problem, "detail");
    enum err_code code = slug ? err_from_slug(slug) : ERR_NONE;
    const json_t *first = json_array_get(json_object_get(problem, "errors"), 0);
    const char *pointer = first ? json_text(first, "pointer") : NULL;
    int rc;
    if (code == ERR_NONE)
        rc = err_set(err, ERR_UNEXPECTED_RESPONSE, "HTTP %ld: %s", response->status,
                     detail ? detail : "");
    else
        rc = err_set_at(err, code, pointer ? pointer : "", "%s", detail ? detail : "");
    json_decref(problem);
    return rc;
}

static int response_to_json(const struct httpc_response *response, json_t **ret_value,
                            struct err *err)
{
    if (response->status < 200 || response->status > 299)
        return api_problem(response, err);
    if (response->status == 204 || response->body.length == 0) {
        *ret_value = NULL;
        return 0;
    }
    struct err inner;
    json_t *value = NULL;
    if (json_read(response->body.data, response->body.length, &value, &inner) < 0)
        return unexpected(response, err);
    /* Every answer of the API is an object. */
    if (!json_is_object(value)) {
        json_decref(value);
        return unexpected(response, err);
    }
    *ret_value = value;
    return 0;
}

/* Half a second, one, …: between tries of the same call, unless Ctrl-C comes. */
static void pause_before_retry(int try)
{
    struct timespec wait = {.tv_sec = try / 2, .tv_nsec = try % 2 * 500000000L};

    nanosleep(&wait, NULL);
}

int api_call(const struct httpc *client, const char *method, const char *path, const json_t *body,
             const char *key, json_t **ret_value, struct err *err)
{
    char made[UUID_TEXT];
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    bool safe = strcmp(method, "GET") == 0 || key != NULL;
    int rc = -ERR_UNREACHABLE;

    if (key != NULL && key[0] == '\0') {
        struct uuid id = uuid_new();
        key = uuid_format(&id, made);
    }
    for (int try = 1; try <= TRIES; try++) {
        struct httpc_response response = {0};
        const struct httpc_request request = {
            .method = method,
            .path = path,
            .content_type = text ? "application/json" : NULL,
            .body = text,
            .body_size = text ? strlen(text) : 0,
            .idempotency_key = key,
            .accept = "application/json",
            .timeout_ms = CALL_TIMEOUT_MS,
            .interrupted = &term.interrupted,
        };
        struct err failure = {0};
        rc = httpc_do(client, &request, &response, &failure);
        long status = rc == 0 ? response.status : 0;
        if (rc == 0)
            rc = response_to_json(&response, ret_value, &failure);
        httpc_response_fini(&response);
        if (rc < 0 && err != NULL)
            *err = failure;
        bool again = rc == -ERR_UNREACHABLE || rc == -ERR_TIMEOUT || status == 503;
        if (rc == 0 || !again || !safe || term.interrupted)
            break;
        if (try < TRIES)
            pause_before_retry(try);
    }
    free(text);
    return rc;
}

int api_list(const struct httpc *client, const char *path, json_t **ret_items, struct err *err)
{
    json_t *all = json_array();
    char cursor[512] = "";
    int rc = 0;

    for (int page = 0; page < PAGES_MAX; page++) {
        char query[1024];
        json_t *answer = NULL;
        snprintf(query, sizeof(query), "%s%climit=%d%s%s", path, strchr(path, '?') ? '&' : '?',
                 PAGE_LIMIT, cursor[0] ? "&cursor=" : "", cursor);
        rc = api_call(client, "GET", query, NULL, NULL, &answer, err);
        if (rc < 0)
            break;
        if (json_array_extend(all, json_object_get(answer, "items")) != 0) {
            json_decref(answer);
            rc = err_set(err, ERR_UNEXPECTED_RESPONSE, "a list without items");
            break;
        }
        const char *next = json_text(answer, "next_cursor");
        snprintf(cursor, sizeof(cursor), "%s", next ? next : "");
        json_decref(answer);
        if (cursor[0] == '\0')
            break;
    }
    if (rc < 0) {
        json_decref(all);
        return rc;
    }
    *ret_items = all;
    return 0;
}

/* Names are [a-z0-9-], so that they go into a URL as they are. */
static bool plain_word(const char *word)
{
    return word[0] != '\0'
           && word[strspn(word,
                          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")]
                  == '\0';
}

int api_job(const struct httpc *client, const char *id_or_name, json_t **ret_job, struct err *err)
{
    struct uuid id;
    char path[256];
    json_t *answer = NULL;

    if (!plain_word(id_or_name) || strlen(id_or_name) > 64)
        return err_set(err, ERR_NOT_FOUND, "'%.64s' is neither a job id nor a name", id_or_name);
    if (uuid_parse(id_or_name, &id) == 0) {
        snprintf(path, sizeof(path), "/api/v1/jobs/%s", id_or_name);
        return api_call(client, "GET", path, NULL, NULL, ret_job, err);
    }
    snprintf(path, sizeof(path), "/api/v1/jobs?limit=1&name=%s", id_or_name);
    int rc = api_call(client, "GET", path, NULL, NULL, &answer, err);
    if (rc < 0)
        return rc;
    const json_t *first = json_array_get(json_object_get(answer, "items"), 0);
    const char *uuid = first ? json_text(first, "id") : NULL;
    if (uuid == NULL) {
        json_decref(answer);
        return err_set(err, ERR_NOT_FOUND, "no job named '%s'; see: sheaf ps --all", id_or_name);
    }
    snprintf(path, sizeof(path), "/api/v1/jobs/%s", uuid);
    json_decref(answer);
    return api_call(client, "GET", path, NULL, NULL, ret_job, err);
}

int api_node(const struct httpc *client, const char *id_or_name, json_t **ret_node, struct err *err)
{
    struct uuid id;
    char path[256];
    json_t *items;
    size_t i;
    json_t *item;

    if (uuid_parse(id_or_name, &id) == 0) {
        snprintf(path, sizeof(path), "/api/v1/nodes/%s", id_or_name);
        return api_call(client, "GET", path, NULL, NULL, ret_node, err);
    }
    int rc = api_list(client, "/api/v1/nodes", &items, err);
    if (rc < 0)
        return rc;
    path[0] = '\0';
    json_array_foreach(items, i, item)
    {
        const char *name = json_text(item, "name");
        if (name != NULL && strcmp(name, id_or_name) == 0)
            snprintf(path, sizeof(path), "/api/v1/nodes/%s", json_text(item, "id"));
    }
    json_decref(items);
    if (path[0] == '\0')
        return err_set(err, ERR_NOT_FOUND, "no node named '%s'; see: sheaf node ls", id_or_name);
    return api_call(client, "GET", path, NULL, NULL, ret_node, err);
}

/* One finished line of an event stream. */
static bool sse_line(struct sse_parser *parser,
                     bool (*on_event)(const struct sse_event *event, void *arg), void *arg)
{
    const char *line = parser->line.data ? parser->line.data : "";

    if (line[0] == '\0') {
        bool more = true;
        if (parser->data.length > 0) {
            const struct sse_event event = {
                .event = parser->event[0] ? parser->event : "message",
                .id = parser->id,
                .data = parser->data.data,
            };
            more = on_event(&event, arg);
        }
        buf_clear(&parser->data);
        parser->event[0] = '\0';
        return more;
    }
    size_t length = strcspn(line, ":");
    const char *value = line + length + (line[length] == ':');
    value += *value == ' ';
    if (length == 5 && strncmp(line, "event", 5) == 0) {
        snprintf(parser->event, sizeof(parser->event), "%s", value);
    } else if (length == 2 && strncmp(line, "id", 2) == 0) {
        snprintf(parser->id, sizeof(parser->id), "%s", value);
    } else if (length == 4 && strncmp(line, "data", 4) == 0) {
        buf_printf(&parser->data, "%s%s", parser->data.length ? "\n" : "", value);
    }
    return true;
}

bool sse_feed(struct sse_parser *parser, const char *bytes, size_t size,
              bool (*on_event)(const struct sse_event *event, void *arg), void *arg)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] == '\r')
            continue;
        if (bytes[i] != '\n') {
            buf_append(&parser->line, bytes + i, 1);
            continue;
        }
        bool more = sse_line(parser, on_event, arg);
        buf_clear(&parser->line);
        if (!more)
            return false;
    }
    return true;
}

struct follow {
    struct sse_parser parser;
    bool (*on_event)(const struct sse_event *event, void *arg);
    void *arg;
    bool ended;
};

static bool follow_event(const struct sse_event *event, void *arg)
{
    struct follow *follow = arg;
    bool more = follow->on_event(event, follow->arg);

    if (!more || strcmp(event->event, "end") == 0)
        follow->ended = true;
    return !follow->ended;
}

static bool follow_data(const char *bytes, size_t size, void *arg)
{
    struct follow *follow = arg;

    /* Whatever comes, be it a sign of life alone: nobody is told any more. */
    if (ferror(stdout) || term_reader_left()) {
        follow->ended = true;
        return false;
    }
    return sse_feed(&follow->parser, bytes, size, follow_event, follow);
}

int api_follow(const struct httpc *client, const char *path, const char *after,
               bool (*on_event)(const struct sse_event *event, void *arg), void *arg,
               struct err *err)
{
    struct follow follow = {.on_event = on_event, .arg = arg};
    int failures = 0;
    int rc = 0;

    buf_init(&follow.parser.line, 1 << 20);
    buf_init(&follow.parser.data, 1 << 20);
    snprintf(follow.parser.id, sizeof(follow.parser.id), "%s", after ? after : "");
    while (!follow.ended && !term.interrupted) {
        struct httpc_response response = {0};
        const struct httpc_request request = {
            .method = "GET",
            .path = path,
            .accept = "text/event-stream",
            .last_event_id = follow.parser.id[0] ? follow.parser.id : NULL,
            .on_data = follow_data,
            .arg = &follow,
            .interrupted = &term.interrupted,
        };
        buf_clear(&follow.parser.line);
        buf_clear(&follow.parser.data);
        rc = httpc_do(client, &request, &response, err);
        long status = rc == 0 ? response.status : 0;
        if (rc == 0 && status != 200)
            rc = api_problem(&response, err);
        httpc_response_fini(&response);
        bool again = rc == 0 || rc == -ERR_UNREACHABLE || rc == -ERR_TIMEOUT || status == 503;
        if (follow.ended || !again)
            break;
        /* A stream that lived says the server is well; one that never does gives up. */
        failures = status == 200 ? 0 : failures + 1;
        if (failures > 20)
            break;
        pause_before_retry(1);
    }
    buf_fini(&follow.parser.line);
    buf_fini(&follow.parser.data);
    if (follow.ended)
        return 0;
    if (term.interrupted)
        return err_set(err, ERR_INTERRUPTED, "interrupted");
    return rc;
}
