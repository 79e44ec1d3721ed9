/* Verbs about the pool: offers, nodes, links. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/list.h"
#include "cli/plan.h"
#include "cli/table.h"
#include "cli/term.h"
#include "cli/verbs.h"
#include "common/io/json.h"
#include "common/pure/units.h"

static const char no_nodes[] = "no node has joined; next: sheaf token join --provider NAME";

static int list_offers(void)
{
    static const struct column columns[] = {
        {"NODE", "node_name", CELL_TEXT, false, true},
        {"REGION", "region", CELL_TEXT, false, false},
        {"COUNTRY", "country", CELL_TEXT, true, false},
        {"PROVIDER", "provider", CELL_TEXT, true, false},
        {"MODEL", "model", CELL_TEXT, false, false},
        {"CLASS", "class", CELL_TEXT, false, false},
        {"VRAM", "measured_mib", CELL_MIB, false, false},
        {"FREE", "devices_free", CELL_NUMBER, false, false},
        {"OF", "devices", CELL_NUMBER, false, false},
        {"TIER", "tier", CELL_TEXT, false, false},
        {"PRICE/H", "price_per_hour", CELL_MONEY, false, false},
        {0},
    };

    return list_print("/api/v1/offers", columns, no_nodes);
}

/* "4x2 GPUs of 24 GB": the same answer as `plan`, for a shape instead of a file. */
static int answer_shape(const struct args *args, const char *gpu)
{
    struct err err;
    long nodes;
    json_t *spec;
    struct httpc client;

    if (args_int(args, "nodes", 1, 256, 1, &nodes, &err) < 0)
        return command_fail(&err);
    spec = json_pack("{s:i, s:s, s:I, s:{s:s}, s:[s]}", "version", 1, "name", "offer", "nodes",
                     (json_int_t)nodes, "resources", "gpu", gpu, "commands", "true");
    if (args_get(args, "max-rtt") != NULL)
        json_object_set_new(spec, "network",
                            json_pack("{s:s}", "max_rtt", args_get(args, "max-rtt")));
    if (args_get(args, "max-price") != NULL)
        json_object_set_new(spec, "budget",
                            json_pack("{s:s}", "max_price", args_get(args, "max-price")));
    json_t *plan = NULL;
    int rc = api_open(&client, &err);
    if (rc == 0)
        rc = plan_ask(&client, spec, &plan, &err);
    json_decref(spec);
    if (rc < 0)
        return command_fail(&err);
    if (!table_machine(plan, "code"))
        plan_print_offer(plan, nodes, gpu);
    bool placed = json_is_true(json_at(plan, "why.placed"));
    json_decref(plan);
    return placed ? EXIT_OK : EXIT_CAPACITY;
}

int verb_offer(const struct args *args)
{
    const char *gpu = args_get(args, "gpu");

    return gpu ? answer_shape(args, gpu) : list_offers();
}

int verb_node_ls(const struct args *args)
{
    static const struct column columns[] = {
        {"NODE", "name", CELL_TEXT, false, true},
        {"STATE", "state", CELL_STATE, false, false},
        {"CONDITIONS", "conditions", CELL_LIST, false, false},
        {"REGION", "region", CELL_TEXT, false, false},
        {"PROVIDER", "provider", CELL_TEXT, false, false},
        {"PRICE/H", "price_per_hour", CELL_MONEY, false, false},
        {"RUNTIME", "runtime", CELL_TEXT, true, false},
        {"ADDRESS", "address", CELL_TEXT, true, false},
        {"VERSION", "version", CELL_TEXT, true, false},
        {"ID", "id", CELL_ID, true, false},
        {"REASON", "reason", CELL_TEXT, false, false},
        {0},
    };

    (void)args;
    return list_print("/api/v1/nodes", columns, no_nodes);
}

static void print_node(const json_t *node)
{
    static const struct column devices[] = {
        {"DEVICE", "ordinal", CELL_NUMBER, false, false},
        {"CLASS", "class", CELL_TEXT, false, false},
        {"MODEL", "model", CELL_TEXT, false, false},
        {"CLAIMED", "nominal_mib", CELL_MIB, false, false},
        {"MEASURED", "measured_mib", CELL_MIB, false, false},
        {"TIER", "tier", CELL_TEXT, false, false},
        {"OFFERED", "offered", CELL_BOOL, false, false},
        {0},
    };
    static const struct column leases[] = {
        {"JOB", "job_name", CELL_TEXT, false, false},
        {"RANK", "rank", CELL_NUMBER, false, false},
        {"SINCE", "granted_at", CELL_AGE, false, false},
        {"PRICE/H", "price_per_hour", CELL_MONEY, false, false},
        {"EARNED", "earned", CELL_MONEY, false, false},
        {0},
    };
    const char *state = json_text_at(node, "state");

    printf("%s  %s%s %s%s  %s  %s\n", json_text_at(node, "name"),
           tone_on(tone_of_state(state), term.color), symbol_of_state(state), state,
           tone_off(tone_of_state(state), term.color), json_text_at(node, "region"),
           json_text_at(node, "provider"));
    printf("  id %s  address %s  runtime %s  %s per device and hour\n", json_text_at(node, "id"),
           json_text_at(node, "address"), json_text_at(node, "runtime"),
           json_text_at(node, "price_per_hour"));
    if (json_text_at(node, "reason")[0] != '\0')
        printf("  %s: %s\n", json_text_at(node, "reason"), json_text_at(node, "detail"));
    printf("\n");
    table_print(json_object_get(node, "devices"), devices, "  no devices");
    if (json_array_size(json_object_get(node, "leases")) > 0) {
        printf("\n");
        table_print(json_object_get(node, "leases"), leases, "");
    }
}

int verb_node_show(const struct args *args)
{
    struct httpc client;
    json_t *node;
    struct err err;

    if (api_open(&client, &err) < 0 || api_node(&client, args->words[0], &node, &err) < 0)
        return command_fail(&err);
    if (!table_machine(node, "name"))
        print_node(node);
    json_decref(node);
    return EXIT_OK;
}

static int node_set(const struct args *args, const char *verb)
{
    struct httpc client;
    json_t *node;
    json_t *answer = NULL;
    char path[128];
    struct err err;
    const char *reason = args_get(args, "reason");

    if (api_open(&client, &err) < 0 || api_node(&client, args->words[0], &node, &err) < 0)
        return command_fail(&err);
    snprintf(path, sizeof(path), "/api/v1/nodes/%.36s/%s", json_text_at(node, "id"), verb);
    json_decref(node);
    json_t *body = json_pack("{s:s}", "reason", reason ? reason : "");
    int rc = api_call(&client, "POST", path, body, "", &answer, &err);
    json_decref(body);
    if (rc < 0)
        return command_fail(&err);
    if (!table_machine(answer, "name"))
        fprintf(stderr, "%s is %s\n", args->words[0], json_text_at(answer, "state"));
    json_decref(answer);
    return EXIT_OK;
}

int verb_node_drain(const struct args *args)
{
    return node_set(args, "drain");
}

int verb_node_undrain(const struct args *args)
{
    return node_set(args, "undrain");
}

int verb_node_revoke(const struct args *args)
{
    struct err err;

    if (args_get(args, "reason") == NULL) {
        (void)err_set(&err, ERR_USAGE,
                      "node revoke needs --reason TEXT: it is kept with the event");
        return command_fail(&err);
    }
    return node_set(args, "revoke");
}

int verb_net(const struct args *args)
{
    static const struct column columns[] = {
        {"A", "a", CELL_TEXT, false, true},
        {"B", "b", CELL_TEXT, false, false},
        {"RTT P50", "rtt_p50_us", CELL_RTT, false, false},
        {"RTT P95", "rtt_p95_us", CELL_RTT, false, false},
        {"LOSS PPM", "loss_ppm", CELL_NUMBER, false, false},
        {"A→B", "reach_ab", CELL_BOOL, false, false},
        {"B→A", "reach_ba", CELL_BOOL, false, false},
        {"MEASURED", "measured_at", CELL_AGE, false, false},
        {0},
    };

    (void)args;
    return list_print("/api/v1/network/pairs", columns, "no link has been measured yet");
}
