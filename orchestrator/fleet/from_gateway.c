#include "orchestrator/fleet/from_gateway.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/hash.h"
#include "common/io/keys.h"
#include "common/io/spec_json.h"
#include "common/pure/mem.h"
#include "orchestrator/fleet/from_worker.h"
#include "orchestrator/fleet/text.h"

#define COMMAND_TEXTS 3

/* Everything that the event of a command may point to. */
struct command_memory {
    struct job_spec spec;
    char *json;
    uint8_t (*contents)[32];
    struct node_claim claim;
    char text[COMMAND_TEXTS][SPEC_PATH_TEXT];
};

struct conversion {
    const Sheaf__Command *command;
    int64_t now_us;
    struct event *event;
    struct command_memory *memory;
    struct command_note *note;
    struct err *err;
};

static void command_release(void *memory)
{
    struct command_memory *command = memory;

    spec_fini(&command->spec);
    free(command->json);
    free(command->contents);
    free(command);
}

/* -- fields ---------------------------------------------------------------------------------------
 */

static int take_uuid(const ProtobufCBinaryData *bytes, const char *pointer, struct uuid *out,
                     struct err *err)
{
    if (bytes->len != sizeof(out->bytes))
        return err_set_at(err, ERR_INVALID_ID, pointer, "not a UUID");
    memcpy(out->bytes, bytes->data, sizeof(out->bytes));
    return 0;
}

static int take_32(const ProtobufCBinaryData *bytes, const char *pointer, uint8_t out[32],
                   struct err *err)
{
    if (bytes->len != 32)
        return err_set_at(err, ERR_OUT_OF_RANGE, pointer, "has to be 32 bytes");
    memcpy(out, bytes->data, 32);
    return 0;
}

/* A name that may be left out. */
static int take_name(const char *name, const char *pointer, bool required, char *out,
                     struct err *err)
{
    if (name[0] == 0 && required)
        return err_set_at(err, ERR_FIELD_MISSING, pointer, "a name is required");
    if (name[0] && !name_is_valid(name))
        return err_set_at(err, ERR_INVALID_NAME, pointer,
                          "1-63 of a-z 0-9 -, starting with a letter");
    snprintf(out, SPEC_PATH_TEXT, "%s", name);
    return 0;
}

static int take_text(const char *text, const char *pointer, size_t size, char *out, struct err *err)
{
    if (!text_is_clean(text, size))
        return err_set_at(err, ERR_OUT_OF_RANGE, pointer,
                          "at most %zu bytes of UTF-8 without control characters", size - 1);
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

/* -- jobs -----------------------------------------------------------------------------------------
 */

static int take_spec(struct conversion *at, const ProtobufCBinaryData *json)
{
    struct command_memory *memory = at->memory;
    json_t *value;
    int rc;

    if (json->len == 0 || json->len > SPEC_MAX_TEXT_BYTES)
        return err_set(at->err, ERR_BODY_TOO_LARGE, "a job file has 1 to %d bytes",
                       SPEC_MAX_TEXT_BYTES);
    rc = spec_parse(json->data, json->len, &memory->spec, at->err);
    if (rc)
        return rc;
    value = spec_to_json(&memory->spec);
    memory->json = json_write_canonical(value);
    json_decref(value);
    return 0;
}

static int convert_submit(struct conversion *at)
{
    struct ev_submit *out = &at->event->submit;
    struct command_memory *memory = at->memory;
    int rc = take_spec(at, &at->command->submit->spec_json);

    if (rc == 0)
        rc = spec_check_packed(&memory->spec, at->err);
    if (rc)
        return rc;
    out->content_count = spec_content_count(&memory->spec);
    memory->contents = mem_new(out->content_count, sizeof(*memory->contents));
    for (uint32_t i = 0; i < out->content_count; i++)
        memcpy(memory->contents[i], spec_content(&memory->spec, i), 32);
    out->uid = uuid_new();
    out->name = memory->spec.name;
    out->project = memory->spec.project;
    out->currency = memory->spec.currency;
    out->spec = memory->json;
    sha256(memory->json, strlen(memory->json), out->spec_sha256);
    out->ask = &memory->spec.ask;
    out->contents = (void *)memory->contents;
    return 0;
}

static int convert_plan(struct conversion *at)
{
    int rc = take_spec(at, &at->command->plan->spec_json);

    at->event->plan.project = at->memory->spec.project;
    at->event->plan.ask = &at->memory->spec.ask;
    at->event->plan.currency = at->memory->spec.currency;
    return rc;
}

static int convert_cancel(struct conversion *at)
{
    return take_uuid(&at->command->cancel->job, "job", &at->event->cancel.job, at->err);
}

/* -- people and their tokens ----------------------------------------------------------------- */

static int convert_named(struct conversion *at, const Sheaf__NewNamed *named)
{
    struct ev_named *out = &at->event->named;
    int rc = take_name(named->name, "/name", true, at->memory->text[0], at->err);

    if (rc)
        return rc;
    out->uid = uuid_new();
    out->name = at->memory->text[0];
    out->role = ROLE_TENANT;
    if (at->event->kind != EV_USER_CREATE || named->role[0] == 0)
        return 0;
    out->role = role_parse(named->role);
    if (out->role == ROLE_COUNT)
        return err_set_at(at->err, ERR_OUT_OF_RANGE, "/role", "unknown role");
    return 0;
}

static int take_scopes(const Sheaf__NewToken *wire, uint32_t *ret_scopes, struct err *err)
{
    uint32_t scopes = 0;

    for (size_t i = 0; i < wire->n_scopes; i++) {
        uint32_t scope = scope_parse(wire->scopes[i]);

        if (scope == 0)
            return err_set_at(err, ERR_OUT_OF_RANGE, "/scopes", "unknown scope");
        scopes |= scope;
    }
    *ret_scopes = scopes;
    return 0;
}

/* Secret, hash and shown prefix of a new token. */
static void make_secret(const char *prefix, char secret[SECRET_TEXT], struct ev_token *out)
{
    if (secret[0] == 0)
        secret_make(prefix, secret);
    sha256(secret, strlen(secret), out->hash);
    snprintf(out->prefix, sizeof(out->prefix), "%.12s", secret);
    out->uid = uuid_new();
    out->spare_uid = uuid_new();
}

static int take_token_names(struct conversion *at, const Sheaf__NewToken *wire,
                            struct ev_token *out)
{
    int rc;

    if ((rc = take_name(wire->project, "/project", false, at->memory->text[0], at->err))
        || (rc = take_name(wire->provider, "/provider", false, at->memory->text[1], at->err))
        || (rc = take_name(wire->user, "/user", false, at->memory->text[2], at->err)))
        return rc;
    out->project = at->memory->text[0];
    out->provider = at->memory->text[1];
    out->user = at->memory->text[2];
    return 0;
}

static int convert_token(struct conversion *at)
{
    const Sheaf__NewToken *wire = at->command->token;
    struct ev_token *out = &at->event->token;
    int rc = take_token_names(at, wire, out);

    if (rc || (rc = take_scopes(wire, &out->scopes, at->err)))
        return rc;
    out->role = role_parse(wire->role);
    if (wire->role[0] == 0)
        out->role = wire->provider[0] ? ROLE_PROVIDER : ROLE_TENANT;
    if (out->role == ROLE_COUNT)
        return err_set_at(at->err, ERR_OUT_OF_RANGE, "/role", "unknown role");
    if (wire->ttl_s > COMMAND_MAX_TTL_S)
        return err_set_at(at->err, ERR_OUT_OF_RANGE, "/ttl_s", "ten years at most");
    if (wire->ttl_s)
        out->expires_us = at->now_us + (usec_t)wire->ttl_s * 1000000;
    make_secret(out->role == ROLE_GATEWAY ? "shg_" : "sht_", at->note->secret, out);
    at->note->expires_us = out->expires_us;
    return 0;
}

static int convert_join_token(struct conversion *at)
{
    const Sheaf__NewToken *wire = at->command->join_token;
    uint64_t ttl_s = wire->ttl_s ? wire->ttl_s : COMMAND_JOIN_TTL_S;
    struct ev_token *out = &at->event->token;
    int rc = take_token_names(at, wire, out);

    if (rc)
        return rc;
    if (ttl_s > COMMAND_MAX_TTL_S)
        return err_set_at(at->err, ERR_OUT_OF_RANGE, "/ttl_s", "ten years at most");
    if (wire->uses > COMMAND_MAX_JOIN_USES)
        return err_set_at(at->err, ERR_OUT_OF_RANGE, "/uses", "at most %u", COMMAND_MAX_JOIN_USES);
    out->role = ROLE_PROVIDER;
    out->uses = wire->uses ? wire->uses : 1;
    out->expires_us = at->now_us + (usec_t)ttl_s * 1000000;
    make_secret("shj_", at->note->secret, out);
    at->note->expires_us = out->expires_us;
    return 0;
}

static int convert_revoke(struct conversion *at)
{
    return take_uuid(&at->command->revoke->token, "token", &at->event->revoke.token, at->err);
}

static int convert_deposit(struct conversion *at)
{
    const Sheaf__Deposit *wire = at->command->deposit;
    struct ev_deposit *out = &at->event->deposit;
    int rc;

    if ((rc = take_name(wire->project, "/project", true, at->memory->text[0], at->err))
        || (rc = take_text(wire->memo, "/memo", ROW_NAME, at->memory->text[1], at->err))
        || (rc = take_text(wire->asset, "/asset", sizeof(out->asset), out->asset, at->err)))
        return rc;
    if (wire->amount_micro <= 0 || wire->amount_micro > MICRO_MAX)
        return err_set_at(at->err, ERR_INVALID_AMOUNT, "/amount", "more than zero, at most 10^9");
    out->uid = uuid_new();
    out->project = at->memory->text[0];
    out->memo = at->memory->text[1];
    out->amount = wire->amount_micro;
    return 0;
}

/* -- nodes and contents ---------------------------------------------------------------------- */

static int enrol_claim(const ProtobufCBinaryData *bytes, struct node_claim *out, struct err *err)
{
    struct frame_arena arena;
    const Sheaf__Claim *claim;
    int rc;

    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    claim = (const Sheaf__Claim *)(const void *)frame_decode(&sheaf__claim__descriptor, bytes->data,
                                                             bytes->len, &arena);
    rc = claim ? from_worker_claim(claim, out, err)
               : err_set_at(err, ERR_WIRE_DECODE, "/claim", "the claim could not be decoded");
    frame_arena_fini(&arena);
    return rc;
}

static int convert_enrol(struct conversion *at)
{
    const Sheaf__Enrol *wire = at->command->enrol;
    struct ev_enrol *out = &at->event->enrol;
    uint8_t signed_bytes[COMMAND_JOIN_PROOF_LEN];
    int rc;

    if ((rc = take_32(&wire->curve_key, "/curve_key", out->curve_key, at->err))
        || (rc = take_32(&wire->sign_key, "/sign_key", out->sign_key, at->err))
        || (rc = take_32(&wire->machine, "/machine", out->machine, at->err)))
        return rc;
    memcpy(out->join_hash, at->event->caller.token_hash, sizeof(out->join_hash));
    memcpy(signed_bytes, out->curve_key, 32);
    memcpy(signed_bytes + 32, out->join_hash, 32);
    if (wire->proof.len != SIGNATURE_SIZE
        || !sign_verify(out->sign_key, SIGN_DOMAIN_ENROL, signed_bytes, sizeof(signed_bytes),
                        wire->proof.data))
        return err_set_at(at->err, ERR_WIRE_SIGNATURE, "/proof",
                          "the proof is not signed by sign_key");
    if ((rc = enrol_claim(&wire->claim, &at->memory->claim, at->err)))
        return rc;
    out->uid = uuid_new();
    out->claim = &at->memory->claim;
    return 0;
}

static int convert_node_set(struct conversion *at)
{
    const Sheaf__NodeSet *wire = at->command->node_set;
    struct ev_node_set *out = &at->event->node_set;
    int rc;

    if ((rc = take_uuid(&wire->node, "node", &out->node, at->err))
        || (rc = take_text(wire->reason, "/reason", ROW_DETAIL, at->memory->text[0], at->err)))
        return rc;
    out->verb = node_verb_parse(wire->verb);
    if (out->verb == NODE_VERB_COUNT)
        return err_set_at(at->err, ERR_OUT_OF_RANGE, "verb", "unknown verb");
    if (wire->price_micro < 0 || wire->price_micro > MICRO_MAX)
        return err_set_at(at->err, ERR_INVALID_AMOUNT, "/price", "out of range");
    out->reason = at->memory->text[0];
    out->price = wire->price_micro;
    return 0;
}

static int convert_content(struct conversion *at)
{
    const Sheaf__AddContent *wire = at->command->content;
    struct ev_content *out = &at->event->content;
    int rc;

    if ((rc = take_name(wire->project, "/project", false, at->memory->text[0], at->err))
        || (rc = take_32(&wire->sha256, "/sha256", out->sha256, at->err)))
        return rc;
    if (wire->size > COMMAND_MAX_OUTPUT)
        return err_set_at(at->err, ERR_OUT_OF_RANGE, "/size", "too large");
    out->project = at->memory->text[0];
    out->size = wire->size;
    return 0;
}

static int convert_output(struct conversion *at)
{
    const Sheaf__OutputStored *wire = at->command->output;
    struct ev_output *out = &at->event->output;
    int rc;

    if ((rc = take_uuid(&wire->attempt_uid, "attempt", &out->attempt, at->err))
        || (rc = take_32(&wire->sha256, "sha256", out->sha256, at->err))
        || (rc = take_text(wire->path, "path", SPEC_PATH_TEXT, at->memory->text[0], at->err)))
        return rc;
    if (wire->rank >= SPEC_MAX_NODES || wire->size > COMMAND_MAX_OUTPUT)
        return err_set_at(at->err, ERR_OUT_OF_RANGE, "rank", "rank or size out of range");
    out->rank = wire->rank;
    out->path = at->memory->text[0];
    out->size = wire->size;
    return 0;
}

/* -- the door -------------------------------------------------------------------------------- */

/* What kind of event, whether a retry must be recognisable, and how to fill it. */
struct route {
    Sheaf__Command__WhatCase what;
    enum event_kind kind;
    bool keyed;
    int (*convert)(struct conversion *at); /* NULL: a NewNamed */
};

static const struct route routes[] = {
    {SHEAF__COMMAND__WHAT_SUBMIT, EV_JOB_SUBMIT, true, convert_submit},
    {SHEAF__COMMAND__WHAT_CANCEL, EV_JOB_CANCEL, false, convert_cancel},
    {SHEAF__COMMAND__WHAT_PLAN, EV_PLAN, false, convert_plan},
    {SHEAF__COMMAND__WHAT_PROJECT, EV_PROJECT_CREATE, false, NULL},
    {SHEAF__COMMAND__WHAT_USER, EV_USER_CREATE, false, NULL},
    {SHEAF__COMMAND__WHAT_PROVIDER, EV_PROVIDER_CREATE, false, NULL},
    {SHEAF__COMMAND__WHAT_TOKEN, EV_TOKEN_CREATE, false, convert_token},
    {SHEAF__COMMAND__WHAT_REVOKE, EV_TOKEN_REVOKE, false, convert_revoke},
    {SHEAF__COMMAND__WHAT_JOIN_TOKEN, EV_JOIN_TOKEN_CREATE, false, convert_join_token},
    {SHEAF__COMMAND__WHAT_DEPOSIT, EV_DEPOSIT, true, convert_deposit},
    {SHEAF__COMMAND__WHAT_ENROL, EV_NODE_ENROL, false, convert_enrol},
    {SHEAF__COMMAND__WHAT_NODE_SET, EV_NODE_SET, false, convert_node_set},
    {SHEAF__COMMAND__WHAT_CONTENT, EV_CONTENT_ADD, false, convert_content},
    {SHEAF__COMMAND__WHAT_OUTPUT, EV_OUTPUT_STORED, false, convert_output},
};

static const struct route *route_of(Sheaf__Command__WhatCase what)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (routes[i].what == what)
            return &routes[i];
    }
    return NULL;
}

static const Sheaf__NewNamed *named_of(const Sheaf__Command *command, enum event_kind kind)
{
    if (kind == EV_PROJECT_CREATE)
        return command->project;
    return kind == EV_USER_CREATE ? command->user : command->provider;
}

static int take_caller(const Sheaf__Command *command, bool keyed, uint64_t request,
                       struct caller *out, struct err *err)
{
    if (command->credential.len != sizeof(out->token_hash))
        return err_set(err, ERR_AUTH_REQUIRED, "no credential came with the command");
    memcpy(out->token_hash, command->credential.data, sizeof(out->token_hash));
    if (keyed && command->idempotency_key[0] == 0)
        return err_set(err, ERR_IDEMPOTENCY_MISSING, "this command moves money or hardware");
    if (!text_is_clean(command->idempotency_key, sizeof(out->key)))
        return err_set_at(err, ERR_OUT_OF_RANGE, "Idempotency-Key",
                          "1 to %zu bytes without control characters", sizeof(out->key) - 1);
    memcpy(out->key, command->idempotency_key, strlen(command->idempotency_key) + 1);
    if (command->body_hash.len == sizeof(out->body_hash))
        memcpy(out->body_hash, command->body_hash.data, sizeof(out->body_hash));
    else if (out->key[0])
        return err_set(err, ERR_WIRE_DECODE, "an idempotency key without the hash of its body");
    out->request = request;
    return 0;
}

int from_gateway_command(const Sheaf__Command *command, uint64_t request, int64_t now_us,
                         struct event_box **ret_box, struct command_note *ret_note, struct err *err)
{
    const struct route *route = route_of(command->what_case);
    struct command_note note = {0};
    struct conversion at = {.command = command, .now_us = now_us, .note = &note, .err = err};
    struct event_box *box;
    int rc;

    if (route == NULL)
        return err_set(err, ERR_WIRE_UNKNOWN_TYPE, "unknown command; upgrade the orchestrator");
    box = event_box_new(route->kind);
    at.event = &box->event;
    at.memory = mem_new(1, sizeof(*at.memory));
    spec_init(&at.memory->spec);
    box->memory = at.memory;
    box->release = command_release;
    box_refresh(box);
    note.kind = route->kind;
    rc = take_caller(command, route->keyed, request, &box->event.caller, err);
    if (rc == 0)
        rc = route->convert ? route->convert(&at)
                            : convert_named(&at, named_of(command, route->kind));
    if (rc) {
        event_box_free(box);
        return rc;
    }
    *ret_box = box;
    *ret_note = note;
    return 0;
}

int from_gateway_hello(const Sheaf__GatewayHello *hello, struct gateway *ret_gateway,
                       struct err *err)
{
    struct gateway out = {0};
    int rc = take_32(&hello->bulk_key, "bulk_key", out.bulk_key, err);

    if (rc || (rc = take_text(hello->url, "url", sizeof(out.url), out.url, err)))
        return rc;
    if (hello->n_bulk > GATEWAY_MAX_BULK)
        return err_set_at(err, ERR_OUT_OF_RANGE, "bulk", "at most %d endpoints", GATEWAY_MAX_BULK);
    for (size_t i = 0; i < hello->n_bulk; i++) {
        if (!text_is_endpoint(hello->bulk[i], GATEWAY_TEXT))
            return err_set_at(err, ERR_OUT_OF_RANGE, "bulk", "not tcp://HOST:PORT");
        memcpy(out.bulk[out.bulk_count++], hello->bulk[i], strlen(hello->bulk[i]) + 1);
    }
    *ret_gateway = out;
    return 0;
}

struct event_box *system_token(enum role role, const char *secret, uint64_t request)
{
    struct event_box *box = event_box_new(EV_TOKEN_CREATE);
    struct ev_token *out = &box->event.token;
    char copy[SECRET_TEXT];

    box->event.caller.system = true;
    box->event.caller.request = request;
    snprintf(copy, sizeof(copy), "%s", secret);
    make_secret("", copy, out);
    explicit_bzero(copy, sizeof(copy));
    out->project = "";
    out->provider = "";
    out->user = "";
    out->role = role;
    box_refresh(box);
    return box;
}
