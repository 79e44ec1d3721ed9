/* Uploads in parts, their commit, and outputs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/json.h"
#include "common/pure/mem.h"
#include "common/pure/utf8.h"
#include "orchestrator/gateway/api.h"
#include "orchestrator/gateway/command.h"
#include "orchestrator/gateway/content.h"
#include "orchestrator/gateway/download.h"
#include "orchestrator/gateway/number.h"
#include "orchestrator/gateway/work.h"

/* -- whose upload --------------------------------------------------------------------------- */

/*
 * Uploads belong to a project: the caller's, or for an operator the one named. The database says
 * its name and whether it has this content already.
 */
static int ask_content(struct gateway *gateway, struct http_call *call, const char *project,
                       const uint8_t sha256[SHA256_SIZE], db_on_done_f on_done)
{
    const struct caller *caller = call_caller(call);
    bool own = *project == '\0' || strcmp(project, caller->project_name) == 0;
    struct db_args args;

    if (!own && !caller_sees_all(caller))
        return -ERR_NOT_FOUND;
    db_args_init(&args, QUERY_CONTENT_HAS);
    db_add_text(&args, project);
    if (own && caller->project != 0)
        db_add_int(&args, caller->project);
    else
        db_add_null(&args);
    db_add_bytes(&args, sha256, SHA256_SIZE);
    db_add_text(&args, caller_sees_all(caller) ? "t" : "f");
    api_ask(gateway, call, &args, on_done, gateway);
    return 0;
}

/* An upload on its way through the database, the work thread and the orchestrator. */
struct upload {
    struct work_item item;
    struct gateway *gateway;
    uint64_t call;
    char project[ROW_NAME];
    struct content_key key;
    uint8_t credential[SHA256_SIZE];
};

static void state_free(struct http_call *call)
{
    free(call->state);
}

static int upload_read(const struct http_call *call, const char *sha256, const json_t *body,
                       struct upload **ret_upload, struct err *err)
{
    struct upload upload = {.call = call->id};
    const json_t *size = json_object_get(body, "size");
    const char *project;
    int rc = api_text_field(body, "project", false, &project, err);

    if (rc == 0
        && (sha256 == NULL || strlen(sha256) != 64
            || hex_parse(sha256, SHA256_SIZE, upload.key.sha256) != 0))
        rc = err_set_at(err, ERR_INVALID_TYPE, "/sha256", "sha256 is not 64 hex digits");
    if (rc == 0 && size == NULL)
        rc = err_set_at(err, ERR_FIELD_MISSING, "/size", "size is missing");
    if (rc == 0 && (!json_is_integer(size) || json_integer_value(size) < 0))
        rc = err_set_at(err, ERR_INVALID_TYPE, "/size", "size is not a number of bytes");
    if (rc == 0 && (uint64_t)json_integer_value(size) > CONTENT_MAX)
        rc = err_set_at(err, ERR_BODY_TOO_LARGE, "/size", "content is at most 4 GiB");
    if (rc == 0 && strlen(project) >= sizeof(upload.project))
        rc = err_set_at(err, ERR_INVALID_NAME, "/project", "no such project");
    if (rc != 0)
        return rc;
    snprintf(upload.project, sizeof(upload.project), "%s", project);
    upload.key.size = (uint64_t)json_integer_value(size);
    memcpy(upload.credential, call_caller(call)->hash, SHA256_SIZE);
    struct upload *kept = mem_new(1, sizeof(*kept));
    *kept = upload;
    *ret_upload = kept;
    return 0;
}

/* What begins and what commits an upload says the same. *ret_body is to be released either way. */
static int upload_body(struct http_call *call, json_t **ret_body, struct err *err)
{
    static const char *const fields[] = {"sha256", "size", "project", NULL};
    int rc = api_body(call, ret_body, err);

    return rc == 0 ? api_only_fields(*ret_body, fields, err) : rc;
}

/* Reads the upload and asks the database about it; `on_done` goes on. */
static int upload_ask(struct gateway *gateway, struct http_call *call, const char *sha256,
                      const json_t *body, db_on_done_f on_done, struct err *err)
{
    struct upload *upload = NULL;
    int rc = upload_read(call, sha256, body, &upload, err);

    if (rc != 0)
        return rc;
    call->state = upload;
    call->on_end = state_free;
    if (ask_content(gateway, call, upload->project, upload->key.sha256, on_done) != 0)
        return err_set(err, ERR_NOT_FOUND, "no such project");
    return 0;
}

/* The owner in the store's names. */
static void key_owner(struct content_key *key, const char *project)
{
    uint8_t hash[SHA256_SIZE];
    char hex[SHA256_HEX];

    sha256(project, strlen(project), hash);
    snprintf(key->owner, sizeof(key->owner), "p-%.32s", hex_format(hash, SHA256_SIZE, hex));
}

static json_t *upload_json(const struct content_key *key, const uint8_t *parts, uint32_t count,
                           bool done)
{
    json_t *received = json_array();

    for (uint32_t i = 0; i < count; i++) {
        if (parts[i] != 0)
            json_array_append_new(received, json_integer(i));
    }
    return json_pack("{s:o,s:I,s:I,s:o,s:b}", "sha256", json_hex(key->sha256, SHA256_SIZE), "size",
                     (json_int_t)key->size, "part_size", (json_int_t)CONTENT_PART, "received",
                     received, "done", done);
}

/* -- begin ---------------------------------------------------------------------------------- */

static void on_begin(const struct err *err, PGresult *const *results, uint32_t count, uint64_t id,
                     void *arg)
{
    struct gateway *gateway = arg;
    struct http_call *call = http_call_find(gateway->http, id);
    static uint8_t parts[CONTENT_MAX_PARTS];
    uint32_t part_count = 0;
    struct err why = {0};
    uint64_t size = 0;

    (void)count;
    if (call == NULL)
        return;
    struct upload *upload = call->state;
    if (err != NULL) {
        http_problem(call, err);
        return;
    }
    if (PQntuples(results[0]) == 0) {
        http_problemf(call, ERR_NOT_FOUND, "no such project, or the token has none");
        return;
    }
    key_owner(&upload->key, PQgetvalue(results[0], 0, 0));
    /* Named by this project and in this store: nothing to send. Both must hold. */
    if (!PQgetisnull(results[0], 0, 1)
        && content_has(gateway->content, upload->key.sha256, &size)) {
        upload->key.size = size;
        content_use(gateway->content, upload->key.sha256);
        api_json(call, 200, upload_json(&upload->key, parts, 0, true));
        return;
    }
    if (content_begin(gateway->content, &upload->key, parts, &part_count, &why) != 0)
        http_problem(call, &why);
    else
        api_json(call, 200, upload_json(&upload->key, parts, part_count, false));
}

void api_upload_begin(struct gateway *gateway, struct http_call *call)
{
    struct err err = {0};
    json_t *body = NULL;
    int rc = upload_body(call, &body, &err);

    if (rc == 0)
        rc = upload_ask(gateway, call, json_text(body, "sha256"), body, on_begin, &err);
    if (rc != 0)
        http_problem(call, &err);
    json_decref(body);
}

/* -- parts ---------------------------------------------------------------------------------- */

void api_upload_part(struct gateway *gateway, struct http_call *call)
{
    const struct caller *caller = call_caller(call);
    const char *project = http_query(call, "project");
    struct content_key key = {.size = 0};
    struct err err = {0};
    uint64_t part = 0;

    if (strlen(call->param[0]) != 64 || hex_parse(call->param[0], SHA256_SIZE, key.sha256) != 0) {
        http_problemf(call, ERR_NOT_FOUND, "no such upload");
        return;
    }
    if (!number_read(call->param[1], 5, &part)) {
        http_problemf(call, ERR_OUT_OF_RANGE, "the part is not a number from 0");
        return;
    }
    if (project == NULL || !caller_sees_all(caller))
        project = caller->project_name;
    key_owner(&key, project);
    if (content_put_part(gateway->content, &key, (uint32_t)part, call->body.data, call->body.length,
                         &err)
        != 0)
        http_problem(call, &err);
    else
        http_reply(call, 204, NULL, NULL, 0);
}

/* -- commit --------------------------------------------------------------------------------- */

static void on_added(const struct err *err, const Sheaf__CommandReply *reply, uint64_t id,
                     void *arg)
{
    struct gateway *gateway = arg;
    struct http_call *call = http_call_find(gateway->http, id);
    struct err refused;

    if (call == NULL)
        return;
    const struct upload *upload = call->state;
    if (err != NULL) {
        http_problem(call, err);
    } else if (reply->code[0] != '\0') {
        api_reply_error(reply, &refused);
        http_problem(call, &refused);
    } else {
        api_json(call, 201, upload_json(&upload->key, NULL, 0, true));
    }
}

static void add_content(struct gateway *gateway, struct http_call *call)
{
    struct upload *upload = call->state;
    Sheaf__Command command = SHEAF__COMMAND__INIT;
    Sheaf__AddContent body = SHEAF__ADD_CONTENT__INIT;

    body.project = upload->project;
    body.sha256 = (ProtobufCBinaryData){SHA256_SIZE, upload->key.sha256};
    body.size = upload->key.size;
    command.credential = (ProtobufCBinaryData){SHA256_SIZE, upload->credential};
    command.what_case = SHEAF__COMMAND__WHAT_CONTENT;
    command.content = &body;
    command_send(gateway->commands, &command, on_added, call->id, gateway);
}

static int run_seal(struct work_item *item, struct err *err)
{
    const struct upload *upload = (const struct upload *)item; /* its first member */

    return content_seal(upload->gateway->content, &upload->key, true, err);
}

static void on_sealed(struct work_item *item, int rc, const struct err *err)
{
    struct upload *upload = (struct upload *)item;
    struct gateway *gateway = upload->gateway;
    struct http_call *call = http_call_find(gateway->http, upload->call);

    if (call != NULL && rc != 0)
        http_problem(call, err);
    else if (call != NULL)
        add_content(gateway, call);
    free(upload);
}

static void on_commit_known(const struct err *err, PGresult *const *results, uint32_t count,
                            uint64_t id, void *arg)
{
    struct gateway *gateway = arg;
    struct http_call *call = http_call_find(gateway->http, id);
    uint64_t size;

    (void)count;
    if (call == NULL)
        return;
    struct upload *upload = call->state;
    if (err != NULL) {
        http_problem(call, err);
        return;
    }
    if (PQntuples(results[0]) == 0) {
        http_problemf(call, ERR_NOT_FOUND, "no such project, or the token has none");
        return;
    }
    snprintf(upload->project, sizeof(upload->project), "%s", PQgetvalue(results[0], 0, 0));
    key_owner(&upload->key, upload->project);
    /* Committed before, and the answer got lost: the same again. */
    if (!PQgetisnull(results[0], 0, 1) && content_has(gateway->content, upload->key.sha256, &size)
        && size == upload->key.size) {
        content_use(gateway->content, upload->key.sha256);
        add_content(gateway, call);
        return;
    }
    /* The thread's copy: the call may end before it. */
    struct upload *copy = mem_new(1, sizeof(*copy));
    *copy = *upload;
    copy->gateway = gateway;
    copy->item = (struct work_item){.run = run_seal, .on_done = on_sealed};
    if (!work_post(gateway->work, &copy->item)) {
        free(copy);
        http_problemf(call, ERR_UNAVAILABLE, "too many uploads are being checked");
    }
}

/* The size is in the body again, so that a commit needs nothing remembered; else the store knows.
 */
static void size_known(struct gateway *gateway, struct http_call *call, json_t *body)
{
    const char *hex = call->param[0];
    struct content_key key = {.size = 0};

    key_owner(&key, call_caller(call)->project_name);
    if (strlen(hex) == 64 && hex_parse(hex, SHA256_SIZE, key.sha256) == 0
        && (content_upload_size(gateway->content, &key)
            || content_has(gateway->content, key.sha256, &key.size)))
        json_object_set_new(body, "size", json_integer((json_int_t)key.size));
}

void api_upload_commit(struct gateway *gateway, struct http_call *call)
{
    struct err err = {0};
    json_t *body = NULL;
    int rc = upload_body(call, &body, &err);

    if (rc == 0 && json_object_get(body, "size") == NULL)
        size_known(gateway, call, body);
    if (rc == 0)
        rc = upload_ask(gateway, call, call->param[0], body, on_commit_known, &err);
    if (rc != 0)
        http_problem(call, &err);
    json_decref(body);
}

/* -- outputs -------------------------------------------------------------------------------- */

static void send_output(struct gateway *gateway, struct http_call *call, const char *hex)
{
    struct download_file file = {.fd = -1, .type = "application/zstd", .sha256 = hex};
    uint8_t sha256[SHA256_SIZE];
    struct err err = {0};

    if (hex_parse(hex, SHA256_SIZE, sha256) != 0
        || content_open(gateway->content, sha256, &file.fd, &file.size, &err) != 0) {
        if (err.code == ERR_NOT_FOUND) /* it was here when the row was written */
            (void)err_set(&err, ERR_NOT_FOUND,
                          "the output was deleted: its time is over (sheaf-gateway --retention)");
        http_problem(call, &err);
    } else {
        download_send(call, &file);
    }
}

static void on_output(const struct err *err, PGresult *const *results, uint32_t count, uint64_t id,
                      void *arg)
{
    struct gateway *gateway = arg;
    struct http_call *call = http_call_find(gateway->http, id);

    (void)count;
    if (call == NULL)
        return;
    if (err != NULL)
        http_problem(call, err);
    else if (PQntuples(results[0]) == 0)
        http_problemf(call, ERR_NOT_FOUND, "no such output");
    else
        send_output(gateway, call, PQgetvalue(results[0], 0, 0));
}

void api_output(struct gateway *gateway, struct http_call *call)
{
    const char *path = http_query(call, "path");
    struct uuid job;
    struct db_args args;
    uint64_t value = 0;

    if (!number_read(call->param[1], 5, &value) || uuid_parse(call->param[0], &job) != 0
        || (path != NULL
            && (strlen(path) >= SPEC_PATH_TEXT || !utf8_is_valid(path, strlen(path))))) {
        http_problemf(call, ERR_NOT_FOUND, "no such output");
        return;
    }
    db_args_init(&args, QUERY_OUTPUT_FILE);
    api_add_sight(&args, call);
    db_add_bytes(&args, job.bytes, sizeof(job.bytes));
    db_add_int(&args, (int64_t)value);
    db_add_text(&args, path);
    api_ask(gateway, call, &args, on_output, gateway);
}
