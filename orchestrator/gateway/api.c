#include "orchestrator/gateway/api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <sys/queue.h>

#include "common/io/clock.h"
#include "common/io/json.h"
#include "common/pure/mem.h"
#include "common/pure/utf8.h"
#include "orchestrator/gateway/command.h"
#include "orchestrator/gateway/cursor.h"
#include "orchestrator/gateway/limit.h"
#include "orchestrator/gateway/number.h"

#define LIMIT_DEFAULT 50
#define LIMIT_MAX     200
/* Longer text filters match nothing that exists. */
#define FILTER_MAX 128
/* Said of what does not exist and of what is another's: nobody can tell which. */
#define NOT_THERE "nothing with this id that you may see"

const struct caller *call_caller(const struct http_call *call)
{
    return call->caller;
}

const struct route *call_route(const struct http_call *call)
{
    return call->route;
}

/* -- dispatch ------------------------------------------------------------------------------- */

static void params_free(char *params[HTTP_MAX_PARAMS])
{
    for (int i = 0; i < HTTP_MAX_PARAMS; i++) {
        free(params[i]);
        params[i] = NULL;
    }
}

uint64_t api_body_limit(const struct guard *head, void *gateway)
{
    char *params[HTTP_MAX_PARAMS] = {NULL};
    char allow[64];
    const char *target = guard_target(head);
    char *path = mem_dup(target, strcspn(target, "?"));
    const struct route *route =
        route_match(gateway_routes, guard_method(head), path, params, allow);

    (void)gateway;
    params_free(params);
    free(path);
    return route != NULL && route->max_body != 0 ? route->max_body : ROUTE_BODY;
}

/* A token has its own rate, wherever it comes from. */
static void handle(struct gateway *gateway, struct http_call *call)
{
    const struct caller *caller = call_caller(call);
    uint32_t retry_s = caller == NULL ? 0
                                      : limiter_take(gateway->rates, &caller->token,
                                                     sizeof(caller->token), 1, clock_mono_us());

    if (retry_s > 0)
        http_too_many(call, "your token", retry_s);
    else
        call_route(call)->handle(gateway, call);
}

/* {id} is the one parameter with a fixed form everywhere: check it before anybody is asked. */
static bool id_is_valid(const struct route *route, const struct http_call *call)
{
    struct uuid id;

    return strstr(route->pattern, "/{id}") == NULL || uuid_parse(call->param[0], &id) == 0;
}

static bool is_known_method(const char *method)
{
    static const char *const methods[] = {"GET",  "POST",  "PUT",     "DELETE",
                                          "HEAD", "PATCH", "OPTIONS", "TRACE"};

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(methods[i], method) == 0)
            return true;
    }
    return false;
}

/* Query parameters of handlers that read their own, separated by spaces. */
static const char *own_params(const struct route *route)
{
    if (route->handle == api_job_logs)
        return "rank stream follow";
    if (route->handle == api_output)
        return "path";
    return route->handle == api_upload_begin || route->handle == api_upload_part
                   || route->handle == api_upload_commit
               ? "project"
               : "";
}

/* The names that a route takes, for comparing and for telling. */
static void params_of(const struct route *route, struct buf *out)
{
    static const char *const names[] = {[PARAM_LIMIT] = "limit",
                                        [PARAM_CURSOR] = "cursor",
                                        [PARAM_STATE] = "state",
                                        [PARAM_NAME] = "name"};
    const uint8_t *params = query_get(route->query)->params;

    buf_puts(out, own_params(route));
    for (int i = 0; route->fill == NULL && params[i] != PARAM_END; i++) {
        if (params[i] < sizeof(names) / sizeof(names[0]) && names[params[i]] != NULL)
            buf_printf(out, "%s%s", out->length > 0 ? " " : "", names[params[i]]);
    }
}

static bool has_word(const char *words, const char *word)
{
    size_t length = strlen(word);

    while (*words != '\0') {
        size_t next = strcspn(words, " ");
        if (next == length && memcmp(words, word, length) == 0)
            return true;
        words += next + (words[next] == ' ');
    }
    return false;
}

/* A credential is told apart first: what else is wrong with the request matters less. */
static int check_params(const struct http_call *call, const struct route *route, struct err *err)
{
    static const char *const secrets =
        "token access_token api_key apikey key secret password authorization credential";
    const struct evkeyval *pair;
    struct buf allowed;
    int rc = 0;

    TAILQ_FOREACH(pair, &call->query, next)
    {
        if (has_word(secrets, pair->key))
            return err_set(err, ERR_CREDENTIAL_IN_URL, "URLs end up in logs: treat it as leaked");
    }
    buf_init(&allowed, 0);
    params_of(route, &allowed);
    const char *names = allowed.length > 0 ? allowed.data : "";
    TAILQ_FOREACH(pair, &call->query, next)
    {
        const char *first = http_query(call, pair->key);
        if (rc == 0 && (!has_word(names, pair->key) || first != pair->value))
            rc = err_set_at(err, ERR_INVALID_PARAMETER, pair->key,
                            "%.40s is unknown here or appears twice; there are: %s", pair->key,
                            *names != '\0' ? names : "none");
    }
    buf_fini(&allowed);
    return rc;
}

static bool is_encoded(const struct http_call *call)
{
    const char *coding = http_field(call, "Content-Encoding");

    return coding != NULL && strcasecmp(coding, "identity") != 0;
}

void api_on_call(struct http_call *call, void *arg)
{
    struct err err = {0};

    struct gateway *gateway = arg;
    char allow[64];
    const struct route *route =
        route_match(gateway_routes, call->method, call->path, call->param, allow);

    if (!is_known_method(call->method)) {
        http_problemf(call, ERR_METHOD_UNKNOWN, "%.16s", call->method);
        return;
    }
    if (route == NULL && allow[0] != '\0') {
        http_header(call, "Allow", allow);
        http_problemf(call, ERR_METHOD_NOT_ALLOWED, "%s is not served here", call->method);
        return;
    }
    if (route == NULL) {
        http_problemf(call, ERR_NOT_FOUND, "no such path");
        return;
    }
    call->route = route;
    if (check_params(call, route, &err) != 0) {
        http_problem(call, &err);
        return;
    }
    if (!id_is_valid(route, call)) {
        http_problemf(call, ERR_INVALID_ID, "the id in the path");
        return;
    }
    if (is_encoded(call)) {
        http_problemf(call, ERR_UNSUPPORTED_MEDIA, "Content-Encoding: bodies are sent as they are");
        return;
    }
    if (route->scope == 0)
        handle(gateway, call);
    else
        auth_check(gateway->auth, call, route->scope, handle);
}

/* -- bodies --------------------------------------------------------------------------------- */

void api_json(struct http_call *call, int status, json_t *value)
{
    char *text = json_write(value);

    json_decref(value);
    http_reply(call, status, "application/json", text, strlen(text));
    free(text);
}

/* "application/json", also with charset=utf-8 behind it, which says nothing new (RFC 8259 §11). */
static bool is_json(const char *type)
{
    if (strncasecmp(type, "application/json", 16) != 0)
        return false;
    type += 16;
    type += strspn(type, " \t");
    if (*type == '\0')
        return true;
    if (*type != ';')
        return false;
    type++;
    type += strspn(type, " \t");
    return strcasecmp(type, "charset=utf-8") == 0 || strcasecmp(type, "charset=\"utf-8\"") == 0;
}

int api_body(const struct http_call *call, json_t **ret_body, struct err *err)
{
    const char *type = http_field(call, "Content-Type");

    if (call->body.length == 0) {
        *ret_body = json_object();
        return 0;
    }
    if (type == NULL || !is_json(type))
        return err_set(err, ERR_UNSUPPORTED_MEDIA, "Content-Type is not application/json in UTF-8");
    json_t *body;
    int rc = json_read(call->body.data, call->body.length, &body, err);
    if (rc != 0)
        return rc;
    if (!json_is_object(body)) {
        json_decref(body);
        return err_set(err, ERR_INVALID_TYPE, "the body is not a JSON object");
    }
    *ret_body = body;
    return 0;
}

int api_only_fields(const json_t *body, const char *const *names, struct err *err)
{
    union {
        const json_t *in;
        json_t *out;
    } cast = {.in = body}; /* jansson's iterators are not const */
    const char *key;
    json_t *value;
    char pointer[96];

    json_object_foreach(cast.out, key, value)
    {
        size_t i = 0;
        while (names[i] != NULL && strcmp(names[i], key) != 0)
            i++;
        if (names[i] == NULL) {
            snprintf(pointer, sizeof(pointer), "/%s", key);
            return err_set_at(err, ERR_UNKNOWN_FIELD, pointer, "%.80s is not a field here", key);
        }
    }
    return 0;
}

int api_text_field(const json_t *body, const char *key, bool required, const char **ret_text,
                   struct err *err)
{
    const json_t *value = json_object_get(body, key);
    char pointer[96];

    snprintf(pointer, sizeof(pointer), "/%s", key);
    if (value == NULL || json_is_null(value)) {
        if (required)
            return err_set_at(err, ERR_FIELD_MISSING, pointer, "%s is missing", key);
        *ret_text = "";
        return 0;
    }
    if (!json_is_string(value))
        return err_set_at(err, ERR_INVALID_TYPE, pointer, "%s is not a text", key);
    if (json_string_length(value) > 255)
        return err_set_at(err, ERR_OUT_OF_RANGE, pointer, "%s is longer than 255 bytes", key);
    *ret_text = json_string_value(value);
    return 0;
}

int api_int_field(const json_t *body, const char *key, int64_t max, int64_t *ret_value,
                  struct err *err)
{
    const json_t *value = json_object_get(body, key);
    char pointer[96];

    snprintf(pointer, sizeof(pointer), "/%s", key);
    if (value == NULL || json_is_null(value))
        return 0;
    if (!json_is_integer(value))
        return err_set_at(err, ERR_INVALID_TYPE, pointer, "%s is not a whole number", key);
    if (json_integer_value(value) < 0 || json_integer_value(value) > max)
        return err_set_at(err, ERR_OUT_OF_RANGE, pointer, "%s is not in 0..%lld", key,
                          (long long)max);
    *ret_value = json_integer_value(value);
    return 0;
}

/* -- queries -------------------------------------------------------------------------------- */

static int add_limit(struct db_args *args, const struct http_call *call, struct err *err)
{
    const char *text = http_query(call, "limit");
    uint64_t limit = LIMIT_DEFAULT;

    if (text != NULL && (!number_read(text, 3, &limit) || limit < 1 || limit > LIMIT_MAX))
        return err_set_at(err, ERR_INVALID_LIMIT, "limit", "limit is not in 1..%d", LIMIT_MAX);
    db_add_int(args, (int64_t)limit);
    return 0;
}

/* Which list, as whom: what a cursor is bound to. */
static void list_identity(const struct http_call *call, struct buf *out)
{
    const struct caller *caller = call_caller(call);
    const char *state = http_query(call, "state");
    const char *name = http_query(call, "name");

    buf_printf(out, "%s\n%d %lld %lld\n%s\n%s", call->path,
               caller != NULL && caller_sees_all(caller),
               caller != NULL ? (long long)caller->project : 0,
               caller != NULL ? (long long)caller->provider : 0, state != NULL ? state : "",
               name != NULL ? name : "");
}

static int add_cursor(struct db_args *args, const struct gateway *gateway,
                      const struct http_call *call, struct err *err)
{
    const char *text = http_query(call, "cursor");
    uint64_t key = 0;
    struct buf list;

    if (text == NULL) {
        db_add_null(args);
        return 0;
    }
    buf_init(&list, 0);
    list_identity(call, &list);
    bool good = cursor_parse(gateway->cursor_secret, list.data, list.length, text, &key);
    buf_fini(&list);
    if (!good)
        return err_set_at(err, ERR_INVALID_CURSOR, "cursor", "not a cursor of this list");
    db_add_int(args, (int64_t)key);
    return 0;
}

/*
 * PAGE()'s text, "last key in hex, or nothing" SPACE "items", as the answer; in pieces, because the
 * items may be long and are copied often enough.
 */
static void reply_page(const struct gateway *gateway, struct http_call *call, const char *text)
{
    static const char head[] = "{\"items\":";
    char tail[CURSOR_TEXT + 32] = ",\"next_cursor\":null}";
    char cursor[CURSOR_TEXT];
    uint64_t key = 0;
    struct buf list;

    if (number_take(&text, 16, 16, &key)) {
        buf_init(&list, 0);
        list_identity(call, &list);
        snprintf(tail, sizeof(tail), ",\"next_cursor\":\"%s\"}",
                 cursor_format(gateway->cursor_secret, list.data, list.length, key, cursor));
        buf_fini(&list);
    }
    size_t size = strlen(++text);
    http_stream_begin(call, 200, "application/json", sizeof(head) - 1 + size + strlen(tail));
    http_stream_write(call, head, sizeof(head) - 1);
    http_stream_write(call, text, size);
    http_stream_write(call, tail, strlen(tail));
    http_stream_end(call);
}

static int add_filter(struct db_args *args, const struct http_call *call, const char *key,
                      struct err *err)
{
    const char *text = http_query(call, key);

    if (text != NULL && (strlen(text) > FILTER_MAX || !utf8_is_valid(text, strlen(text))))
        return err_set_at(err, ERR_INVALID_ENCODING, key, "%s is too long or not UTF-8", key);
    db_add_text(args, text);
    return 0;
}

static void add_or_null(struct db_args *args, int64_t id)
{
    if (id == 0)
        db_add_null(args);
    else
        db_add_int(args, id);
}

void api_add_sight(struct db_args *args, const struct http_call *call)
{
    db_add_text(args, caller_sees_all(call_caller(call)) ? "t" : "f");
    add_or_null(args, call_caller(call)->project);
}

void api_ask(struct gateway *gateway, const struct http_call *call, struct db_args *args,
             db_on_done_f on_done, void *arg)
{
    const struct caller *caller = call_caller(call);
    struct db_sight sight = {0};

    if (caller != NULL)
        sight = (struct db_sight){
            .all = caller_sees_all(caller),
            .project = caller->project,
            .provider = caller->provider,
        };
    db_ask(gateway->db, &sight, args, 1, on_done, call->id, arg);
}

static int add_param(struct db_args *args, enum query_param param, const struct gateway *gateway,
                     const struct http_call *call, const struct uuid *object, struct err *err)
{
    const struct caller *caller = call_caller(call);

    switch (param) {
    case PARAM_ALL:
        db_add_text(args, caller != NULL && caller_sees_all(caller) ? "t" : "f");
        return 0;
    case PARAM_PROJECT:
        add_or_null(args, caller->project);
        return 0;
    case PARAM_PROVIDER:
        add_or_null(args, caller->provider);
        return 0;
    case PARAM_TOKEN:
        db_add_int(args, caller->token);
        return 0;
    case PARAM_OBJECT:
        db_add_bytes(args, object->bytes, sizeof(object->bytes));
        return 0;
    case PARAM_LIMIT:
        return add_limit(args, call, err);
    case PARAM_CURSOR:
        return add_cursor(args, gateway, call, err);
    case PARAM_STATE:
        return add_filter(args, call, "state", err);
    case PARAM_NAME:
        return add_filter(args, call, "name", err);
    case PARAM_REASONS:
        db_add_text(args, gateway->reasons);
        return 0;
    case PARAM_SCOPES:
        db_add_text(args, gateway->scopes);
        return 0;
    case PARAM_END:
        break;
    }
    BUG_ON(true);
}

static int query_fill(struct db_args *args, enum query_id id, const struct gateway *gateway,
                      const struct http_call *call, const struct uuid *object, struct err *err)
{
    const struct query *query = query_get(id);

    db_args_init(args, id);
    for (int i = 0; query->params[i] != PARAM_END; i++) {
        int rc = add_param(args, (enum query_param)query->params[i], gateway, call, object, err);
        if (rc != 0) {
            db_args_fini(args);
            return rc;
        }
    }
    return 0;
}

static bool is_page(enum query_id id)
{
    const uint8_t *params = query_get(id)->params;

    while (*params != PARAM_END && *params != PARAM_CURSOR)
        params++;
    return *params == PARAM_CURSOR;
}

static void on_queried(const struct err *err, PGresult *const *results, uint32_t count, uint64_t id,
                       void *arg)
{
    struct gateway *gateway = arg;
    struct http_call *call = http_call_find(gateway->http, id);

    (void)count;
    if (call == NULL)
        return;
    const char *text = err == NULL ? db_text(results[0]) : NULL;
    if (err != NULL)
        http_problem(call, err);
    else if (text == NULL)
        http_problemf(call, ERR_NOT_FOUND, NOT_THERE);
    else if (is_page(call_route(call)->query))
        reply_page(gateway, call, text);
    else
        http_reply(call, 200, "application/json", text, strlen(text));
}

/* Runs the route's own query. */
static void query_run(struct gateway *gateway, struct http_call *call, db_on_done_f on_done)
{
    struct uuid object = {{0}};
    struct db_args args;
    struct err err = {0};

    if (call->param[0] != NULL && uuid_parse(call->param[0], &object) != 0) {
        http_problemf(call, ERR_INVALID_ID, "the id in the path");
        return;
    }
    if (db_is_down(gateway->db)) {
        http_problemf(call, ERR_UNAVAILABLE, "the database is not reached");
        return;
    }
    if (query_fill(&args, call_route(call)->query, gateway, call, &object, &err) != 0) {
        http_problem(call, &err);
        return;
    }
    api_ask(gateway, call, &args, on_done, gateway);
}

void api_query(struct gateway *gateway, struct http_call *call)
{
    query_run(gateway, call, on_queried);
}

/* -- commands ------------------------------------------------------------------------------- */

void api_reply_error(const Sheaf__CommandReply *reply, struct err *ret_err)
{
    enum err_code code = err_from_slug(reply->code);

    if (code == ERR_DATABASE) /* whose database, and which part of it, is no caller's concern */
        code = ERR_UNAVAILABLE;
    memset(ret_err, 0, sizeof(*ret_err));
    (void)err_set_at(ret_err, code != ERR_NONE ? code : ERR_INTERNAL, reply->pointer, "%s",
                     reply->detail);
}

static void done_free(struct http_call *call)
{
    struct command_done *done = call->state;

    if (done->in_flight != NULL)
        (void)map_remove(done->in_flight, done->key_hash, SHA256_SIZE);
    json_decref(done->body);
    json_decref(done->request);
    free(done);
}

/* The object as it is now, with what only the reply knows (a secret) put beside it. */
static void on_reread(const struct err *err, PGresult *const *results, uint32_t count, uint64_t id,
                      void *arg)
{
    struct gateway *gateway = arg;
    struct http_call *call = http_call_find(gateway->http, id);

    (void)count;
    if (call == NULL)
        return;
    const struct command_done *done = call->state;
    const struct route *route = call_route(call);
    const char *text = err == NULL ? db_text(results[0]) : NULL;
    json_t *object = text != NULL ? json_loads(text, 0, NULL) : NULL;
    char uid[UUID_TEXT];

    /* It is committed: a failed re-read takes nothing back. Say at least what it is. */
    if (object == NULL) {
        object = json_object();
        json_object_set_new(object, "id", json_string(uuid_format(&done->object, uid)));
    }
    if (done->body != NULL && (route->flags & ROUTE_WRAPPED) != 0)
        json_object_set(object, "secret", json_object_get(done->body, "secret"));
    api_json(call, route->status != 0 ? route->status : 200, object);
}

static void reread(struct gateway *gateway, struct http_call *call)
{
    const struct command_done *done = call->state;
    struct db_args args;
    struct err err = {0};

    if (query_fill(&args, call_route(call)->query, gateway, call, &done->object, &err) != 0) {
        http_problem(call, &err);
        return;
    }
    api_ask(gateway, call, &args, on_reread, gateway);
}

static json_t *compose(const struct gateway *gateway, const struct http_call *call, struct err *err)
{
    const struct command_done *done = call->state;
    const struct route *route = call_route(call);
    char uid[UUID_TEXT];

    if (route->fill == fill_plan)
        return compose_plan(gateway, done, err);
    if (route->fill == fill_join_token)
        return compose_join_token(gateway, done, err);
    json_t *answer = route->fill == fill_deposit ? json_deep_copy(done->request) : json_object();
    if (!uuid_is_nil(&done->object))
        json_object_set_new(answer, "id", json_string(uuid_format(&done->object, uid)));
    if (done->body != NULL)
        json_object_update(answer, done->body);
    return answer;
}

static void command_answer(struct gateway *gateway, struct http_call *call)
{
    const struct command_done *done = call->state;
    const struct route *route = call_route(call);
    char location[96];
    char uid[UUID_TEXT];
    struct err err = {0};

    if (done->replayed)
        http_header(call, "Idempotency-Replayed", "true");
    if (route->status == 201 && route->query != QUERY_NONE) {
        snprintf(location, sizeof(location), "%s/%s", route->pattern,
                 uuid_format(&done->object, uid));
        http_header(call, "Location", location);
    }
    if (route->query != QUERY_NONE) {
        reread(gateway, call);
        return;
    }
    if (route->status == 204) {
        http_reply(call, 204, NULL, NULL, 0);
        return;
    }
    json_t *answer = compose(gateway, call, &err);
    if (answer == NULL)
        http_problem(call, &err);
    else
        api_json(call, route->status != 0 ? route->status : 200, answer);
}

/* Cancelling what has ended: a conflict that gives its state; 404 when it is not there to be seen.
 */
static void on_ended_job(const struct err *err, PGresult *const *results, uint32_t count,
                         uint64_t id, void *arg)
{
    const struct gateway *gateway = arg;
    struct http_call *call = http_call_find(gateway->http, id);

    (void)count;
    if (call == NULL)
        return;
    const char *text = err == NULL ? db_text(results[0]) : NULL;
    json_t *job = text != NULL ? json_loads(text, 0, NULL) : NULL;
    const char *state = json_text(job, "state");
    if (err != NULL)
        http_problem(call, err);
    else if (state == NULL)
        http_problemf(call, ERR_NOT_FOUND, NOT_THERE);
    else
        http_problemf(call, ERR_ALREADY_TERMINAL, "the job is %s", state);
    json_decref(job);
}

static void on_commanded(const struct err *err, const Sheaf__CommandReply *reply, uint64_t id,
                         void *arg)
{
    struct gateway *gateway = arg;
    struct http_call *call = http_call_find(gateway->http, id);
    struct err refused;

    if (call == NULL)
        return; /* what it changed, the hint tells */
    if ((call_route(call)->flags & ROUTE_TOKENS) != 0)
        auth_forget(gateway->auth);
    if (reply == NULL) {
        http_problem(call, err);
        return;
    }
    const struct route *route = call_route(call);
    bool planned = route->fill == fill_plan && reply->body_json.len > 0;
    if (reply->code[0] != '\0' && !planned) {
        api_reply_error(reply, &refused);
        /* A core that was restarted no longer knows ended jobs; the table does. */
        if (route->fill == fill_cancel
            && (refused.code == ERR_ALREADY_TERMINAL || refused.code == ERR_NOT_FOUND))
            query_run(gateway, call, on_ended_job);
        else
            http_problem(call, &refused);
        return;
    }
    struct command_done *done = call->state;
    if (reply->object.len == sizeof(done->object.bytes))
        memcpy(done->object.bytes, reply->object.data, sizeof(done->object.bytes));
    done->replayed = reply->replayed;
    done->amount = reply->amount_micro;
    if (reply->body_json.len > 0)
        done->body = json_loadb((const char *)reply->body_json.data, reply->body_json.len, 0, NULL);
    command_answer(gateway, call);
}

/* Hash of what is asked: path and canonical JSON, so that white space makes no other request. */
static void body_hash(const struct http_call *call, const json_t *body, uint8_t out[SHA256_SIZE])
{
    struct sha256_stream *stream = sha256_stream_new();
    char *text = json_write_canonical(body);

    sha256_stream_add(stream, call->path, strlen(call->path) + 1);
    sha256_stream_add(stream, text, strlen(text));
    sha256_stream_end(stream, out);
    sha256_stream_free(stream);
    free(text);
}

static int take_key(struct http_call *call, struct command_draft *draft, struct err *err)
{
    const char *key = http_field(call, "Idempotency-Key");
    union {
        const char *in;
        char *out;
    } cast = {.in = key};

    if ((key == NULL || *key == '\0') && (call_route(call)->flags & ROUTE_KEYED) != 0)
        return err_set(err, ERR_IDEMPOTENCY_MISSING, "%s needs one", call->path);
    if (key == NULL || *key == '\0')
        return 0;
    if (strlen(key) > 127 || !utf8_is_valid(key, strlen(key)))
        return err_set(err, ERR_OUT_OF_RANGE, "Idempotency-Key is longer than 127 bytes");
    draft->command.idempotency_key = cast.out;
    return 0;
}

static int draft_make(struct http_call *call, struct command_draft *draft, struct err *err)
{
    int rc = api_body(call, &draft->body, err);

    if (rc == 0)
        rc = take_key(call, draft, err);
    if (rc == 0)
        rc = call_route(call)->fill(call, draft, err);
    return rc;
}

static void key_enter(struct gateway *gateway, struct command_done *done)
{
    done->in_flight = &gateway->in_flight;
    map_put(done->in_flight, done->key_hash, SHA256_SIZE, done);
}

/* Whether the same caller waits for an answer under the same key now; ret_hash names the two. */
static bool is_in_flight(const struct gateway *gateway, const char *key,
                         const uint8_t credential[SHA256_SIZE], uint8_t ret_hash[SHA256_SIZE])
{
    hmac_sha256(credential, SHA256_SIZE, key, strlen(key), ret_hash);
    return map_get(&gateway->in_flight, ret_hash, SHA256_SIZE) != NULL;
}

void api_command(struct gateway *gateway, struct http_call *call)
{
    struct command_draft draft = {.command = SHEAF__COMMAND__INIT};
    struct err err = {0};
    uint8_t hash[SHA256_SIZE];
    uint8_t credential[SHA256_SIZE];
    uint8_t key_hash[SHA256_SIZE] = {0};

    buf_init(&draft.claim, ROUTE_BODY);
    if (call_caller(call) != NULL)
        memcpy(credential, call_caller(call)->hash, SHA256_SIZE);
    else if (!auth_bearer(call, credential))
        memset(credential, 0, sizeof(credential));
    int rc = draft_make(call, &draft, &err);
    const char *key = rc == 0 ? draft.command.idempotency_key : "";
    if (rc == 0 && *key != '\0' && is_in_flight(gateway, key, credential, key_hash))
        rc = err_set(&err, ERR_REQUEST_IN_PROGRESS, "it is not answered yet");
    if (rc != 0) {
        http_problem(call, &err);
    } else {
        struct command_done *done = mem_new(1, sizeof(*done));
        done->request = json_incref(draft.body);
        memcpy(done->currency, draft.currency, sizeof(done->currency));
        memcpy(done->key_hash, key_hash, SHA256_SIZE);
        if (*key != '\0')
            key_enter(gateway, done);
        call->state = done;
        call->on_end = done_free;
        body_hash(call, draft.body, hash);
        draft.command.body_hash = (ProtobufCBinaryData){SHA256_SIZE, hash};
        draft.command.credential = (ProtobufCBinaryData){SHA256_SIZE, credential};
        command_send(gateway->commands, &draft.command, on_commanded, call->id, gateway);
    }
    json_decref(draft.body);
    free(draft.text);
    buf_fini(&draft.claim);
}

/* -- constants that the queries take -------------------------------------------------------- */

char *api_reasons(void)
{
    json_t *reasons = json_object();
    const struct err_info *row;

    for (size_t i = 0; (row = err_row(i)) != NULL; i++)
        json_object_set_new(reasons, row->slug, json_pack("[ss]", row->title, row->hint));
    char *text = json_write(reasons);
    json_decref(reasons);
    return text;
}

char *api_scopes(void)
{
    json_t *scopes = json_object();

    for (uint32_t bit = SCOPE_JOBS_READ; bit <= SCOPE_ADMIN; bit <<= 1)
        json_object_set_new(scopes, scope_name((enum scope)bit), json_integer((json_int_t)bit));
    char *text = json_write(scopes);
    json_decref(scopes);
    return text;
}
