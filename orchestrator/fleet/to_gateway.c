#include "orchestrator/fleet/to_gateway.h"

#include <stdlib.h>
#include <string.h>

#include "common/io/frame.h"
#include "common/io/json.h"
#include "orchestrator/fleet/wire.h"
#include "orchestrator/store/why_json.h"

/* -- bodies ---------------------------------------------------------------------------------- */

/* Null: placed now, or nobody can say. */
static json_t *plan_earliest_json(const struct reply *reply)
{
    const struct earliest *earliest = reply->earliest;
    json_t *value;

    if (earliest == NULL)
        return json_null();
    value = json_object();
    json_object_set_new(value, "at", json_time(earliest->at_us));
    json_object_set_new(value, "price", json_money(earliest->price));
    json_object_set_new(value, "diameter_us", json_integer(earliest->diameter_us));
    return value;
}

static json_t *body_plan(const struct reply *reply, const struct answer_facts *facts)
{
    json_t *body = json_object();

    json_object_set_new(body, "why", reply->why ? why_to_json(reply->why) : json_null());
    json_object_set_new(body, "earliest", plan_earliest_json(reply));
    json_object_set_new(body, "hold", json_money(reply->amount));
    json_object_set_new(body, "currency", json_string(facts->asset));
    return body;
}

/* A replay knows no secret any more: it was told once and is stored as a hash alone. */
static json_t *body_token(const struct reply *reply, const struct command_note *note)
{
    json_t *body = json_object();

    json_object_set_new(body, "id", json_uuid(reply->object.bytes));
    json_object_set_new(body, "secret", reply->replayed ? json_null() : json_string(note->secret));
    json_object_set_new(body, "expires_us", json_integer(note->expires_us));
    return body;
}

static json_t *body_join_token(const struct reply *reply, const struct command_note *note,
                               const struct answer_facts *facts)
{
    json_t *body = body_token(reply, note);

    json_object_set_new(body, "server_key", json_hex(facts->server_key, 32));
    json_object_set_new(body, "sign_key", json_hex(facts->sign_key, 32));
    return body;
}

static json_t *body_enrol(const struct reply *reply, const struct answer_facts *facts)
{
    json_t *body = json_object();
    json_t *control = json_array();

    for (uint32_t i = 0; i < facts->control_count; i++)
        json_array_append_new(control, json_string(facts->control[i]));
    json_object_set_new(body, "node", json_uuid(reply->object.bytes));
    json_object_set_new(body, "control", control);
    return body;
}

/* NULL: code, object and amount say it all. */
static json_t *reply_body(const struct reply *reply, const struct command_note *note,
                          const struct answer_facts *facts)
{
    if (reply->why)
        return body_plan(reply, facts);
    if (reply->err.code != ERR_NONE)
        return NULL;
    if (note->kind == EV_TOKEN_CREATE)
        return body_token(reply, note);
    if (note->kind == EV_JOIN_TOKEN_CREATE)
        return body_join_token(reply, note, facts);
    if (note->kind == EV_NODE_ENROL)
        return body_enrol(reply, facts);
    return NULL;
}

void to_gateway_reply(uint64_t gateway_request, const struct reply *reply,
                      const struct command_note *note, const struct answer_facts *facts,
                      uint64_t seq, struct buf *out)
{
    Sheaf__CommandReply wire = SHEAF__COMMAND_REPLY__INIT;
    json_t *body = reply_body(reply, note, facts);
    char *text = body ? json_write(body) : NULL;

    wire.request = gateway_request;
    wire.code = wire_text(err_slug(reply->err.code));
    wire.pointer = wire_text(reply->err.pointer);
    wire.detail = wire_text(reply->err.text);
    if (!uuid_is_nil(&reply->object))
        wire.object = wire_bytes(reply->object.bytes, sizeof(reply->object.bytes));
    wire.replayed = reply->replayed;
    wire.amount_micro = reply->amount;
    wire.commit = seq;
    if (text)
        wire.body_json = wire_bytes(text, strlen(text));
    frame_encode(&wire.base, out);
    if (text)
        explicit_bzero(text, strlen(text)); /* it may hold a secret */
    free(text);
    json_decref(body);
}

void to_gateway_error(uint64_t gateway_request, const struct err *err, struct buf *out)
{
    Sheaf__CommandReply wire = SHEAF__COMMAND_REPLY__INIT;

    wire.request = gateway_request;
    wire.code = wire_text(err_slug(err->code));
    wire.pointer = wire_text(err->pointer);
    wire.detail = wire_text(err->text);
    frame_encode(&wire.base, out);
}

/* -- hints ----------------------------------------------------------------------------------- */

/* Jobs that the rows of a batch name, and whether some job is named by its number alone. */
struct touched {
    uint64_t id[HINT_MAX_JOBS];
    ProtobufCBinaryData uid[HINT_MAX_JOBS];
    uint32_t count;
    bool all;
    bool any;
    bool nodes;
};

static bool touched_has(const struct touched *touched, uint64_t job)
{
    for (uint32_t i = 0; i < touched->count; i++) {
        if (touched->id[i] == job)
            return true;
    }
    return false;
}

static void touch_job(struct touched *touched, const struct job_row *job)
{
    touched->any = true;
    if (touched_has(touched, job->id))
        return;
    if (touched->count == HINT_MAX_JOBS) {
        touched->all = true;
        return;
    }
    touched->id[touched->count] = job->id;
    touched->uid[touched->count++] = wire_bytes(job->uid.bytes, sizeof(job->uid.bytes));
}

/* The job's number that a row belongs to; 0 = none, ~0 = some job that the row does not name. */
static uint64_t row_job(const struct row *row)
{
    switch (row->kind) {
    case ROW_JOB_EVENT:
        return row->job_event.job;
    case ROW_ATTEMPT:
        return row->attempt.job;
    case ROW_JOB_OUTPUT:
        return row->job_output.job;
    case ROW_RANK:
        return UINT64_MAX;
    case ROW_TRANSFER:
        return row->transfer.job;
    case ROW_CONTROL:
    case ROW_PROJECT:
    case ROW_PROVIDER:
    case ROW_USER:
    case ROW_TOKEN:
    case ROW_JOIN_TOKEN:
    case ROW_ACCOUNT:
    case ROW_NODE:
    case ROW_NODE_EVENT:
    case ROW_DEVICE:
    case ROW_SLOT:
    case ROW_LINK:
    case ROW_JOB:
    case ROW_LEASE:
    case ROW_LEASE_SLOT:
    case ROW_RECEIPT:
    case ROW_CONTENT:
    case ROW_IDEM:
    case ROW_KIND_COUNT:
        return 0;
    }
    return 0;
}

/* Rows that nobody reads in passing; each would be a hint per probe, receipt or command. */
static bool is_quiet_row(enum row_kind kind)
{
    return kind == ROW_CONTROL || kind == ROW_LINK || kind == ROW_RECEIPT || kind == ROW_IDEM;
}

static bool is_node_row(enum row_kind kind)
{
    return kind == ROW_NODE || kind == ROW_NODE_EVENT || kind == ROW_DEVICE;
}

/* What a gateway remembers of its callers. */
static bool is_token_row(enum row_kind kind)
{
    return kind == ROW_TOKEN || kind == ROW_PROJECT || kind == ROW_PROVIDER || kind == ROW_USER;
}

bool to_gateway_hint(const struct row *rows, uint32_t row_count, uint64_t seq, struct buf *out)
{
    Sheaf__ChangeHint hint = SHEAF__CHANGE_HINT__INIT;
    struct touched touched = {0};

    for (uint32_t i = 0; i < row_count; i++) {
        if (rows[i].kind == ROW_JOB)
            touch_job(&touched, &rows[i].job);
        touched.nodes |= is_node_row(rows[i].kind);
        hint.tokens |= is_token_row(rows[i].kind);
        touched.any |= !is_quiet_row(rows[i].kind);
    }
    for (uint32_t i = 0; i < row_count; i++) {
        uint64_t job = row_job(&rows[i]);

        if (job == 0)
            continue;
        touched.any = true;
        /* A rank names no job: one job in the batch is it, several or none are a guess. */
        if (job == UINT64_MAX ? touched.count != 1 : !touched_has(&touched, job))
            touched.all = true;
    }
    if (!touched.any)
        return false;
    hint.seq = seq;
    hint.nodes = touched.nodes;
    hint.all = touched.all;
    if (!touched.all) {
        hint.jobs = touched.uid;
        hint.n_jobs = touched.count;
    }
    frame_encode(&hint.base, out);
    return true;
}
