/* `join`: from a token to a node that was measured. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/base64.h"
#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/httpc.h"
#include "common/io/jointoken.h"
#include "common/io/process.h"
#include "common/pure/units.h"
#include "worker/core/agent.h"
#include "worker/core/checks.h"
#include "worker/core/claim.h"
#include "worker/core/home.h"
#include "worker/core/verbs.h"

#define JOIN_TIMEOUT_MS 60000

struct join {
    const struct verb_call *call;
    struct join_token token;
    struct identity identity;
    struct node_file node;
    struct host_info host;
    struct checks checks;
    char ca[FS_PATH];
};

static int read_token(const struct verb_call *call, struct join *join, struct err *err)
{
    char text[JOIN_TOKEN_TEXT] = "";

    if (call->argc != 1)
        return err_set(err, ERR_USAGE,
                       "write: sheaf-worker join TOKEN (or - to read it from stdin)");
    if (strcmp(call->argv[0], "-") == 0) {
        if (!fgets(text, sizeof(text), stdin))
            return err_set(err, ERR_USAGE, "no token on stdin");
        text[strcspn(text, "\r\n")] = '\0';
    } else {
        snprintf(text, sizeof(text), "%s", call->argv[0]);
        process_hide(call->argv[0]); /* with --run it would stand in ps for as long as we run */
    }
    return join_token_parse(text, &join->token, err);
}

static int check_expiry(const struct join *join, struct err *err)
{
    char when[32];

    if (join->token.expires_us == 0 || join->token.expires_us > clock_wall_us())
        return 0;
    return err_set(err, ERR_JOIN_TOKEN_SPENT,
                   "the token expired at %s; this clock may be wrong too",
                   clock_format(join->token.expires_us, when));
}

static void print_devices(const struct join *join, struct buf *out)
{
    const struct host_info *host = &join->host;
    char memory[UNITS_TEXT];

    buf_printf(out, "Devices\n  %-2s  %-5s  %-32s  %-10s  %-24s  %s\n", "#", "CLASS", "MODEL",
               "MEMORY", "DRIVER", "PCI");
    for (uint32_t i = 0; i < host->device_count; i++) {
        const struct device_info *device = &host->device[i];

        buf_printf(out, "  %-2u  %-5s  %-32.32s  %-10s  %-24.24s  %s%s\n", i,
                   device->gpu ? "gpu" : "cpu", device->model,
                   units_format_bytes((uint64_t)device->memory_mib * MIB, memory), device->driver,
                   device->pci[0] ? device->pci : "-",
                   claim_is_listed(join->call->settings, i) ? "" : "  (not offered)");
    }
}

static void print_screen(const struct join *join)
{
    const struct settings *settings = join->call->settings;
    const struct host_info *host = &join->host;
    char memory[UNITS_TEXT];
    char disk[UNITS_TEXT];
    char notice[UNITS_TEXT];
    char price[MONEY_TEXT];
    struct buf out;

    buf_init(&out, 0);
    buf_printf(&out, "sheaf-worker %s  %s %s as %s\n", SHEAF_VERSION,
               join->call->dry_run ? "would join" : "joins",
               join->token.url[0] ? join->token.url : "(no token given)", settings->name);
    print_devices(join, &out);
    buf_printf(&out,
               "Host      %s, %u.%u CPUs, %s memory, %s disk, %s%s%s, region %s, country %s\n",
               host->cpu_model, host->cpu_milli / 1000, host->cpu_milli % 1000 / 100,
               units_format_bytes((uint64_t)host->memory_mib * MIB, memory),
               units_format_bytes(fs_free_bytes(settings->state), disk), join->checks.address,
               join->checks.interface[0] ? " on " : "", join->checks.interface, settings->region,
               settings->country);
    buf_printf(&out, "Price     %s per device and hour, notice %s\n",
               money_format(settings->price, price),
               units_format_duration((uint64_t)settings->notice_s * 1000000, notice));
    checks_print(&join->checks, &out);
    fputs(out.data, stdout);
    fflush(stdout);
    buf_fini(&out);
}

/* The request's JSON; caller frees. */
static char *enrol_body(struct join *join, const char *runtime)
{
    const struct settings *settings = join->call->settings;
    struct owner_file owner = {0};
    struct claim_facts facts = {.settings = settings,
                                .owner = &owner,
                                .host = &join->host,
                                .machine = join->node.machine,
                                .address = join->checks.address,
                                .runtime = runtime};
    struct claim *claim = calloc(1, sizeof(*claim));
    uint8_t proved[KEY_SIZE + SHA256_SIZE];
    uint8_t proof[SIGNATURE_SIZE];
    json_t *value = json_object();
    struct buf bytes;
    struct buf encoded;
    char *text;

    BUG_ON(!claim);
    for (uint32_t i = 0; i < join->host.device_count; i++)
        facts.offered[i] = claim_is_listed(settings, i);
    claim_make(&facts, claim);
    buf_init(&bytes, FRAME_MAX);
    frame_encode(&claim->wire.base, &bytes);
    memcpy(proved, join->identity.curve.public_key, KEY_SIZE);
    sha256(join->token.secret, strlen(join->token.secret), proved + KEY_SIZE);
    sign_bytes(&join->identity.sign, SIGN_DOMAIN_ENROL, proved, sizeof(proved), proof);
    buf_init(&encoded, 0);
    base64_encode(BASE64_STANDARD, bytes.data, bytes.length, &encoded);
    json_object_set_new(value, "curve_key", json_hex(join->identity.curve.public_key, KEY_SIZE));
    json_object_set_new(value, "sign_key", json_hex(join->identity.sign.public_key, KEY_SIZE));
    json_object_set_new(value, "machine", json_hex(join->node.machine, SHA256_SIZE));
    json_object_set_new(value, "claim", json_string(encoded.data));
    json_object_set_new(value, "proof", json_hex(proof, sizeof(proof)));
    text = json_write(value);
    json_decref(value);
    buf_fini(&encoded);
    buf_fini(&bytes);
    free(claim);
    return text;
}

static int read_refusal(const struct httpc_response *response, struct err *err)
{
    json_t *problem = NULL;
    const char *code = NULL;
    const char *detail = NULL;
    int rc;

    if (json_read(response->body.data, response->body.length, &problem, NULL) == 0) {
        code = json_text(problem, "code");
        detail = json_text(problem, "detail");
    }
    if (code && err_from_slug(code) != ERR_NONE)
        rc = err_set(err, err_from_slug(code), "%s", detail ? detail : code);
    else
        rc = err_set(err, ERR_UNEXPECTED_RESPONSE, "HTTP status %ld", response->status);
    if (problem)
        json_decref(problem);
    return rc;
}

static int read_answer(const struct httpc_response *response, struct node_file *node,
                       struct err *err)
{
    json_t *value = NULL;
    const json_t *controls;
    const char *id;
    int rc = json_read(response->body.data, response->body.length, &value, err);

    if (rc != 0)
        return rc;
    id = json_text(value, "node");
    controls = json_object_get(value, "control");
    if (!id || uuid_parse(id, &node->node) != 0 || json_array_size(controls) == 0)
        rc = err_set(err, ERR_UNEXPECTED_RESPONSE, "the answer names no node or no address");
    for (size_t i = 0; rc == 0 && i < json_array_size(controls) && i < HOME_MAX_CONTROLS; i++) {
        const char *text = json_string_value(json_array_get(controls, i));

        if (!text || strncmp(text, "tcp://", 6) != 0 || strlen(text) >= sizeof(node->control[0]))
            rc = err_set(err, ERR_UNEXPECTED_RESPONSE, "not a control address");
        else
            snprintf(node->control[node->control_count++], sizeof(node->control[0]), "%s", text);
    }
    json_decref(value);
    return rc;
}

static int post(struct join *join, struct err *err)
{
    struct httpc client = {0};
    struct httpc_request request = {.method = "POST",
                                    .path = "/api/v1/join",
                                    .content_type = "application/json",
                                    .timeout_ms = JOIN_TIMEOUT_MS};
    struct httpc_response response = {0};
    char *body = enrol_body(join, join->call->settings->unsafe_process ? "process" : "bwrap");
    int rc;

    snprintf(client.url, sizeof(client.url), "%s", join->token.url);
    snprintf(client.ca_file, sizeof(client.ca_file), "%s", join->ca);
    snprintf(client.token, sizeof(client.token), "%s", join->token.secret);
    request.body = body;
    request.body_size = strlen(body);
    rc = httpc_do(&client, &request, &response, err);
    if (rc == 0 && response.status != 201 && response.status != 200)
        rc = read_refusal(&response, err);
    else if (rc == 0)
        rc = read_answer(&response, &join->node, err);
    httpc_response_fini(&response);
    free(body);
    return rc;
}

static int prepare(struct join *join, struct err *err)
{
    const struct settings *settings = join->call->settings;
    struct checks_facts facts = {.settings = settings, .host = &join->host};
    char path[FS_PATH];
    char fingerprint[SHA256_HEX];
    int rc;

    rc = home_machine(settings, join->node.machine, err);
    if (rc == 0)
        rc = settings_path(settings, "ca.pem", join->ca, err);
    if (rc == 0)
        rc = httpc_pin_ca(join->token.url,
                          hex_format(join->token.ca_sha256, SHA256_SIZE, fingerprint), join->ca,
                          err);
    if (rc == 0)
        rc = settings_path(settings, "identity", path, err);
    if (rc == 0)
        rc = identity_load_or_make(path, &join->identity, err);
    if (rc == 0)
        rc = devices_probe(&join->host, err);
    if (rc != 0)
        return rc;
    facts.url = join->token.url;
    facts.control = join->token.url; /* same side of the network, until the answer names it */
    checks_run(&facts, &join->checks);
    return 0;
}

static int no_device(struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED_HERE,
                   "no device was found by NVML, AMD's sysfs or OpenCL: see the fixes above");
}

static int enrol(struct join *join, struct err *err)
{
    const struct settings *settings = join->call->settings;
    int rc = prepare(join, err);

    if (rc != 0)
        return rc;
    print_screen(join);
    if (join->host.device_count == 0)
        return no_device(err);
    rc = post(join, err);
    if (rc != 0)
        return rc;
    snprintf(join->node.name, sizeof(join->node.name), "%s", settings->name);
    snprintf(join->node.url, sizeof(join->node.url), "%s", join->token.url);
    memcpy(join->node.server_key, join->token.server_key, KEY_SIZE);
    memcpy(join->node.sign_key, join->token.sign_key, KEY_SIZE);
    join->node.joined_us = clock_wall_us();
    rc = settings_keep(join->call->config, settings, err);
    return rc == 0 ? home_save(settings, &join->node, err) : rc;
}

/* Under the lock: two joins at once would make two nodes of one machine. */
static int enrol_locked(struct join *join, struct err *err)
{
    char path[FS_PATH];
    int lock = -1;
    int rc = home_open(join->call->settings, err);

    if (rc == 0)
        rc = settings_path(join->call->settings, "lock", path, err);
    if (rc == 0)
        rc = fs_lock(path, &lock, err);
    if (rc == 0)
        rc = enrol(join, err);
    if (lock >= 0)
        close(lock);
    return rc;
}

static int measure(struct join *join, struct err *err)
{
    int rc;

    printf("Self-test, seeded by the orchestrator\n");
    fflush(stdout);
    rc = agent_run(join->call->settings, NULL, &join->host, AGENT_JOIN, err);
    if (rc == 0)
        printf(join->call->run ? "online as %s, waiting for work\n"
                               : "joined as %s; start it: sheaf-worker run\n",
               join->node.name);
    fflush(stdout);
    return rc;
}

/* What this machine has and would ask, without a word to anybody and without a file made. */
static int show(struct join *join, struct err *err)
{
    struct checks_facts facts = {.settings = join->call->settings, .host = &join->host};
    int rc = join->call->argc > 0 ? read_token(join->call, join, err) : 0;

    if (rc == 0)
        rc = devices_probe(&join->host, err);
    if (rc != 0)
        return rc;
    if (join->token.url[0])
        facts.url = facts.control = join->token.url;
    checks_run(&facts, &join->checks);
    print_screen(join);
    if (join->host.device_count == 0)
        return no_device(err);
    return 0;
}

int verb_join(const struct verb_call *call)
{
    struct err err = {0};
    struct join *join = calloc(1, sizeof(*join));
    char id[UUID_TEXT];
    int rc;

    BUG_ON(!join);
    join->call = call;
    if (call->dry_run) {
        rc = show(join, &err);
        free(join);
        return rc != 0 ? verb_fail(&err) : 0;
    }
    rc = home_load(call->settings, &join->node, &err);
    if (rc == 0) {
        printf("joined already: %s (%s) at %s; its identity is kept\n", join->node.name,
               uuid_format(&join->node.node, id), join->node.url);
        free(join);
        if (call->argc > 0)
            process_hide(call->argv[0]);
        return call->run ? verb_run(call) : 0;
    }
    if (rc == -ERR_NOT_ENROLLED) {
        memset(&err, 0, sizeof(err));
        rc = read_token(call, join, &err);
        if (rc == 0)
            rc = check_expiry(join, &err);
        if (rc == 0)
            rc = enrol_locked(join, &err);
        if (rc == 0)
            rc = measure(join, &err);
    }
    free(join);
    if (rc != 0)
        return verb_fail(&err);
    return call->run ? verb_run(call) : 0;
}
