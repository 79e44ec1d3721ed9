/* JSON bodies → commands, and the answers that are composed from replies. */
#include <stdlib.h>
#include <string.h>

#include "common/io/base64.h"
#include "common/io/clock.h"
#include "common/io/jointoken.h"
#include "common/io/json.h"
#include "common/io/spec_json.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/api.h"
#include "orchestrator/gateway/packages.h"

#define TTL_MAX_S     ((int64_t)10 * 365 * 86400)
#define JOIN_MAX_S    ((int64_t)30 * 86400)
#define JOIN_MAX_USES 1000

/* protobuf-c's structs are not const; the message is only read. */
static char *borrow(const char *text)
{
    union {
        const char *in;
        char *out;
    } cast = {.in = text};

    return cast.out;
}

static void path_id(const struct http_call *call, struct command_draft *draft,
                    ProtobufCBinaryData *ret_bytes)
{
    struct uuid id = {{0}};

    /* The router has checked its form. */
    if (uuid_parse(call->param[0], &id) != 0)
        BUG_ON(true);
    memcpy(draft->bytes, id.bytes, sizeof(id.bytes));
    *ret_bytes = (ProtobufCBinaryData){sizeof(id.bytes), draft->bytes};
}

/* -- jobs ----------------------------------------------------------------------------------- */

static int spec_text(const json_t *body, struct command_draft *draft, struct err *err)
{
    struct job_spec spec;
    int rc = spec_from_json(body, &spec, err);

    if (rc != 0)
        return rc;
    json_t *whole = spec_to_json(&spec);
    memcpy(draft->currency, spec.currency, sizeof(draft->currency));
    draft->text = json_write_canonical(whole);
    json_decref(whole);
    spec_fini(&spec);
    return 0;
}

static ProtobufCBinaryData text_bytes(char *text)
{
    union {
        char *in;
        uint8_t *out;
    } cast = {.in = text};

    return (ProtobufCBinaryData){strlen(text), cast.out};
}

int fill_submit(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    int rc = spec_text(draft->body, draft, err);

    (void)call;
    if (rc != 0)
        return rc;
    sheaf__submit_job__init(&draft->submit);
    draft->submit.spec_json = text_bytes(draft->text);
    draft->command.what_case = SHEAF__COMMAND__WHAT_SUBMIT;
    draft->command.submit = &draft->submit;
    return 0;
}

int fill_plan(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    int rc = spec_text(draft->body, draft, err);

    (void)call;
    if (rc != 0)
        return rc;
    sheaf__plan_job__init(&draft->plan);
    draft->plan.spec_json = text_bytes(draft->text);
    draft->command.what_case = SHEAF__COMMAND__WHAT_PLAN;
    draft->command.plan = &draft->plan;
    return 0;
}

int fill_cancel(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    static const char *const fields[] = {"reason", NULL};
    int rc = api_only_fields(draft->body, fields, err);

    if (rc != 0)
        return rc;
    sheaf__job_ref__init(&draft->job);
    path_id(call, draft, &draft->job.job);
    draft->command.what_case = SHEAF__COMMAND__WHAT_CANCEL;
    draft->command.cancel = &draft->job;
    return 0;
}

/* -- nodes ---------------------------------------------------------------------------------- */

static int fill_node(const struct http_call *call, struct command_draft *draft, const char *verb,
                     struct err *err)
{
    static const char *const fields[] = {"reason", NULL};
    const char *reason = "";
    int rc = api_only_fields(draft->body, fields, err);

    if (rc == 0)
        rc = api_text_field(draft->body, "reason", false, &reason, err);
    if (rc != 0)
        return rc;
    sheaf__node_set__init(&draft->node_set);
    path_id(call, draft, &draft->node_set.node);
    draft->node_set.verb = borrow(verb);
    draft->node_set.reason = borrow(reason);
    draft->command.what_case = SHEAF__COMMAND__WHAT_NODE_SET;
    draft->command.node_set = &draft->node_set;
    return 0;
}

int fill_node_drain(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    return fill_node(call, draft, "drain", err);
}

int fill_node_undrain(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    return fill_node(call, draft, "undrain", err);
}

int fill_node_revoke(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    return fill_node(call, draft, "revoke", err);
}

/* -- people, tokens, money ------------------------------------------------------------------ */

static int fill_named(struct command_draft *draft, bool with_role, struct err *err)
{
    static const char *const project_fields[] = {"name", NULL};
    static const char *const user_fields[] = {"name", "role", NULL};
    const char *name = "";
    const char *role = "";
    int rc = api_only_fields(draft->body, with_role ? user_fields : project_fields, err);

    if (rc == 0)
        rc = api_text_field(draft->body, "name", true, &name, err);
    if (rc == 0 && !name_is_valid(name))
        rc = err_set_at(err, ERR_INVALID_NAME, "/name", "%.80s is not a valid name", name);
    if (rc == 0 && with_role)
        rc = api_text_field(draft->body, "role", true, &role, err);
    if (rc != 0)
        return rc;
    sheaf__new_named__init(&draft->named);
    draft->named.name = borrow(name);
    draft->named.role = borrow(role);
    return 0;
}

int fill_project(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    int rc = fill_named(draft, false, err);

    (void)call;
    if (rc != 0)
        return rc;
    draft->command.what_case = SHEAF__COMMAND__WHAT_PROJECT;
    draft->command.project = &draft->named;
    return 0;
}

int fill_user(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    int rc = fill_named(draft, true, err);

    (void)call;
    if (rc != 0)
        return rc;
    draft->command.what_case = SHEAF__COMMAND__WHAT_USER;
    draft->command.user = &draft->named;
    return 0;
}

static int take_scopes(struct command_draft *draft, struct err *err)
{
    const json_t *scopes = json_object_get(draft->body, "scopes");
    size_t count = json_array_size(scopes);

    if (scopes == NULL || json_is_null(scopes))
        return 0;
    if (!json_is_array(scopes))
        return err_set_at(err, ERR_INVALID_TYPE, "/scopes", "scopes is not a list");
    if (count > sizeof(draft->scopes) / sizeof(draft->scopes[0]))
        return err_set_at(err, ERR_OUT_OF_RANGE, "/scopes", "more scopes than exist");
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(scopes, i));
        if (name == NULL || scope_parse(name) == 0)
            return err_set_at(err, ERR_OUT_OF_RANGE, "/scopes", "%.40s is no scope",
                              name != NULL ? name : "(not a text)");
        draft->scopes[i] = borrow(name);
    }
    draft->token.scopes = draft->scopes;
    draft->token.n_scopes = count;
    return 0;
}

int fill_token(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    static const char *const fields[] = {"project", "provider", "user", "role",
                                         "scopes",  "ttl_s",    NULL};
    const char *text[4] = {"", "", "", ""};
    int64_t ttl = 0;
    int rc = api_only_fields(draft->body, fields, err);

    (void)call;
    sheaf__new_token__init(&draft->token);
    for (int i = 0; i < 4 && rc == 0; i++)
        rc = api_text_field(draft->body, fields[i], i == 3, &text[i], err);
    if (rc == 0 && role_parse(text[3]) == ROLE_COUNT)
        rc = err_set_at(err, ERR_OUT_OF_RANGE, "/role", "%.40s is no role", text[3]);
    if (rc == 0)
        rc = take_scopes(draft, err);
    if (rc == 0)
        rc = api_int_field(draft->body, "ttl_s", TTL_MAX_S, &ttl, err);
    if (rc != 0)
        return rc;
    draft->token.project = borrow(text[0]);
    draft->token.provider = borrow(text[1]);
    draft->token.user = borrow(text[2]);
    draft->token.role = borrow(text[3]);
    draft->token.ttl_s = (uint64_t)ttl;
    draft->command.what_case = SHEAF__COMMAND__WHAT_TOKEN;
    draft->command.token = &draft->token;
    return 0;
}

int fill_revoke(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    (void)err;
    sheaf__token_ref__init(&draft->token_ref);
    path_id(call, draft, &draft->token_ref.token);
    draft->command.what_case = SHEAF__COMMAND__WHAT_REVOKE;
    draft->command.revoke = &draft->token_ref;
    return 0;
}

int fill_join_token(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    static const char *const fields[] = {"provider", "uses", "ttl_s", NULL};
    const char *provider = "";
    int64_t uses = 1;
    int64_t ttl = 0;
    int rc = api_only_fields(draft->body, fields, err);

    (void)call;
    if (rc == 0)
        rc = api_text_field(draft->body, "provider", false, &provider, err);
    if (rc == 0)
        rc = api_int_field(draft->body, "uses", JOIN_MAX_USES, &uses, err);
    if (rc == 0)
        rc = api_int_field(draft->body, "ttl_s", JOIN_MAX_S, &ttl, err);
    if (rc != 0)
        return rc;
    sheaf__new_token__init(&draft->token);
    draft->token.provider = borrow(provider);
    draft->token.uses = (uint32_t)(uses > 0 ? uses : 1);
    draft->token.ttl_s = (uint64_t)ttl;
    draft->command.what_case = SHEAF__COMMAND__WHAT_JOIN_TOKEN;
    draft->command.join_token = &draft->token;
    return 0;
}

int fill_deposit(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    static const char *const fields[] = {"project", "amount", "asset", "memo", NULL};
    const char *text[4] = {"", "", "", ""};
    micro_t amount = 0;
    int rc = api_only_fields(draft->body, fields, err);

    (void)call;
    for (int i = 0; i < 4 && rc == 0; i++)
        rc = api_text_field(draft->body, fields[i], i < 2, &text[i], err);
    if (rc == 0 && (money_parse(text[1], &amount) != 0 || amount == 0))
        rc = err_set_at(err, ERR_INVALID_AMOUNT, "/amount", "%.40s is not an amount above 0",
                        text[1]);
    if (rc != 0)
        return rc;
    sheaf__deposit__init(&draft->deposit);
    draft->deposit.project = borrow(text[0]);
    draft->deposit.amount_micro = amount;
    draft->deposit.asset = borrow(text[2]);
    draft->deposit.memo = borrow(text[3]);
    draft->command.what_case = SHEAF__COMMAND__WHAT_DEPOSIT;
    draft->command.deposit = &draft->deposit;
    return 0;
}

/* -- enrolment ------------------------------------------------------------------------------ */

static int take_hex(const json_t *body, const char *key, size_t size, uint8_t *out,
                    ProtobufCBinaryData *ret_bytes, struct err *err)
{
    const char *text = json_text(body, key);
    char pointer[64];

    snprintf(pointer, sizeof(pointer), "/%s", key);
    if (text == NULL)
        return err_set_at(err, ERR_FIELD_MISSING, pointer, "%s is missing", key);
    if (strlen(text) != 2 * size || hex_parse(text, size, out) != 0)
        return err_set_at(err, ERR_INVALID_TYPE, pointer, "%s is not %zu bytes in hex", key, size);
    *ret_bytes = (ProtobufCBinaryData){size, out};
    return 0;
}

int fill_enrol(const struct http_call *call, struct command_draft *draft, struct err *err)
{
    static const char *const fields[] = {"curve_key", "sign_key", "machine",
                                         "claim",     "proof",    NULL};
    Sheaf__Enrol *enrol = &draft->enrol;
    const char *claim = json_text(draft->body, "claim");
    uint8_t none[SHA256_SIZE];
    int rc = api_only_fields(draft->body, fields, err);

    sheaf__enrol__init(enrol);
    if (rc == 0 && !auth_bearer(call, none))
        rc = err_set(err, ERR_AUTH_REQUIRED, "no join secret in Authorization: Bearer");
    if (rc == 0)
        rc = take_hex(draft->body, "curve_key", 32, draft->bytes, &enrol->curve_key, err);
    if (rc == 0)
        rc = take_hex(draft->body, "sign_key", 32, draft->bytes + 32, &enrol->sign_key, err);
    if (rc == 0)
        rc = take_hex(draft->body, "machine", 32, draft->bytes + 64, &enrol->machine, err);
    if (rc == 0)
        rc = take_hex(draft->body, "proof", SIGNATURE_SIZE, draft->bytes + 96, &enrol->proof, err);
    if (rc == 0
        && (claim == NULL
            || base64_decode(BASE64_STANDARD, claim, strlen(claim), &draft->claim) != 0))
        rc = err_set_at(err, ERR_INVALID_ENCODING, "/claim", "claim is not base64");
    if (rc != 0)
        return rc;
    enrol->claim = text_bytes(draft->claim.data != NULL ? draft->claim.data : borrow(""));
    enrol->claim.len = draft->claim.length;
    draft->command.what_case = SHEAF__COMMAND__WHAT_ENROL;
    draft->command.enrol = enrol;
    return 0;
}

/* -- composed answers ----------------------------------------------------------------------- */

/* Who can read what: told before paying, not in small print. */
static json_t *trust_texts(void)
{
    return json_pack(
        "[s,s,s,s]",
        "The owner of each node that is picked can read your code, your data and the memory of its "
        "GPUs while the job runs there: nothing is attested yet.",
        "The operator of this pool can read uploaded files, logs and outputs, and the environment "
        "in the job file.",
        "Between worker, gateway and orchestrator everything is encrypted; what the ranks of a "
        "gang send each other is not, unless your program does it.",
        "Other tenants see neither your jobs nor your files.");
}

json_t *compose_plan(const struct gateway *gateway, const struct command_done *done,
                     struct err *err)
{
    json_t *answer = json_object();
    const json_t *why = json_object_get(done->body, "why");

    (void)gateway;
    (void)err;
    if (why != NULL)
        json_object_set_new(answer, "why", json_deep_copy(why));
    else
        json_object_set_new(answer, "why",
                            done->body != NULL ? json_incref(done->body) : json_null());
    json_t *earliest = json_object_get(done->body, "earliest");
    json_object_set_new(answer, "earliest", earliest != NULL ? json_incref(earliest) : json_null());
    json_object_set_new(answer, "hold", json_money(done->amount));
    json_object_set_new(answer, "currency", json_string(done->currency));
    json_object_set_new(answer, "trust", trust_texts());
    return answer;
}

json_t *compose_join_token(const struct gateway *gateway, const struct command_done *done,
                           struct err *err)
{
    struct join_token token = {0};
    const char *secret = json_text(done->body, "secret");
    const char *server = json_text(done->body, "server_key");
    const char *sign = json_text(done->body, "sign_key");
    char text[JOIN_TOKEN_TEXT];
    char uid[UUID_TEXT];
    struct buf line;

    if (secret == NULL || server == NULL || sign == NULL || strlen(secret) >= sizeof(token.secret)
        || strlen(server) != 64 || hex_parse(server, 32, token.server_key) != 0
        || strlen(sign) != 64 || hex_parse(sign, 32, token.sign_key) != 0) {
        (void)err_set(err, ERR_INTERNAL, "the orchestrator's answer lacks a part of the token");
        return NULL;
    }
    snprintf(token.url, sizeof(token.url), "%s", gateway->url);
    memcpy(token.ca_sha256, gateway->ca_sha256, SHA256_SIZE);
    snprintf(token.secret, sizeof(token.secret), "%s", secret);
    token.expires_us = json_integer_value(json_object_get(done->body, "expires_us"));
    join_token_format(&token, text);
    buf_init(&line, 0);
    packages_line(gateway, text, &line);
    json_t *install = line.length > 0 ? json_string(line.data) : json_null();
    buf_fini(&line);
    return json_pack("{s:s,s:s,s:o,s:o,s:o}", "id", uuid_format(&done->object, uid), "token", text,
                     "command", json_sprintf("sheaf-worker join %s", text), "install", install,
                     "expires_at", json_time(token.expires_us));
}
