#include "orchestrator/gateway/describe.h"

#include <stdio.h>
#include <string.h>

#include "common/io/yaml.h"
#include "common/pure/embed.h"
#include "orchestrator/gateway/api.h"
#include "orchestrator/gateway/problem.h"

extern const struct embed_file gateway_description[];

/* -- which refusals a route may answer -------------------------------------------------------- */

static bool always(const struct route *route)
{
    (void)route;
    return true;
}

static bool takes_credential(const struct route *route)
{
    return route->scope != 0 || route->fill == fill_enrol;
}

static bool takes_scope(const struct route *route)
{
    return route->scope != 0 && route->scope != ROUTE_ANY_TOKEN;
}

static bool takes_money(const struct route *route)
{
    return route->fill == fill_submit;
}

static bool takes_body(const struct route *route)
{
    return strcmp(route->method, "POST") == 0 || strcmp(route->method, "PUT") == 0;
}

static bool changes_something(const struct route *route)
{
    return strcmp(route->method, "GET") != 0;
}

/* A thing named in the path, or by a command's body. */
static bool names_a_thing(const struct route *route)
{
    return strchr(route->pattern, '{') != NULL || route->fill != NULL;
}

static bool serves_ranges(const struct route *route)
{
    return route->handle == api_output;
}

static bool stores_content(const struct route *route)
{
    return takes_body(route) && strstr(route->pattern, "/uploads") != NULL;
}

static const struct {
    int status;
    bool (*applies)(const struct route *route);
} refusals[] = {
    {400, always},
    {401, takes_credential},
    {402, takes_money},
    {403, takes_scope},
    {404, names_a_thing},
    {408, always},
    {409, changes_something},
    {413, takes_body},
    {415, takes_body},
    {416, serves_ranges},
    {422, takes_body},
    {429, always},
    {431, always},
    {500, always},
    {501, always},
    {503, always},
    {505, always},
    {507, stores_content},
};

#define REFUSAL_COUNT (sizeof(refusals) / sizeof(refusals[0]))

/* -- the parts that come from tables ----------------------------------------------------------- */

static void put(json_t *object, const char *key, json_t *value)
{
    BUG_ON(json_object_set_new(object, key, value) != 0);
}

static bool has_codes(int status)
{
    const struct err_info *row;

    for (size_t i = 0; (row = err_row(i)) != NULL; i++) {
        if (row->http_status == status)
            return true;
    }
    return false;
}

/* Every code of the list, or those of one status; each behind a prefix. */
static json_t *code_list(int status, const char *prefix)
{
    json_t *list = json_array();
    const struct err_info *row;

    for (size_t i = 0; (row = err_row(i)) != NULL; i++) {
        if (status == 0 || row->http_status == status)
            BUG_ON(json_array_append_new(list, json_sprintf("%s%s", prefix, row->slug)) != 0);
    }
    return list;
}

static void add_codes(json_t *components)
{
    json_t *problem = json_object_get(json_object_get(components, "schemas"), "Problem");
    json_t *fields = json_object_get(problem, "properties");

    put(json_object_get(fields, "type"), "enum", code_list(0, PROBLEM_BASE));
    put(json_object_get(fields, "code"), "enum", code_list(0, ""));
}

/* Titles of the codes of a status, for people. */
static json_t *titles(int status)
{
    struct buf text;
    const struct err_info *row;

    buf_init(&text, 0);
    for (size_t i = 0; (row = err_row(i)) != NULL; i++) {
        if (row->http_status == status)
            buf_printf(&text, "%s%s (%s)", text.length > 0 ? "; " : "", row->title, row->slug);
    }
    json_t *value = json_stringn(text.data, text.length);
    buf_fini(&text);
    return value;
}

/* A problem of this status. What is no HTTP refusal by the table is a 500 all the same. */
static json_t *problem_response(int status)
{
    json_t *fields = json_pack("{s:{s:i}}", "status", "const", status);
    json_t *response;

    if (status != 500)
        put(fields, "code", json_pack("{s:o}", "enum", code_list(status, "")));
    response = json_pack("{s:o, s:{s:{s:{s:[{s:s}, {s:s, s:o}]}}}}", "description", titles(status),
                         "content", PROBLEM_TYPE, "schema", "allOf", "$ref",
                         "#/components/schemas/Problem", "type", "object", "properties", fields);
    BUG_ON(response == NULL);
    if (status == 429 || status == 503)
        put(response, "headers",
            json_pack("{s:{s:s, s:{s:s}}}", "Retry-After", "description", "seconds", "schema",
                      "type", "integer"));
    return response;
}

static void add_responses(json_t *components)
{
    json_t *responses = json_object_get(components, "responses");
    char name[16];

    for (size_t i = 0; i < REFUSAL_COUNT; i++) {
        if (!has_codes(refusals[i].status))
            continue;
        snprintf(name, sizeof(name), "Problem%d", refusals[i].status);
        put(responses, name, problem_response(refusals[i].status));
    }
}

static void add_refusals(json_t *responses, const struct route *route)
{
    char status[16];

    for (size_t i = 0; i < REFUSAL_COUNT; i++) {
        snprintf(status, sizeof(status), "%d", refusals[i].status);
        if (has_codes(refusals[i].status) && refusals[i].applies(route)
            && json_object_get(responses, status) == NULL)
            put(responses, status,
                json_pack("{s:o}", "$ref",
                          json_sprintf("#/components/responses/Problem%s", status)));
    }
}

/* The operation of a row; NULL when it is not described. */
static json_t *operation_of(const json_t *paths, const struct route *route)
{
    char method[16] = "";

    for (size_t i = 0; i + 1 < sizeof(method) && route->method[i] != '\0'; i++)
        method[i] = (char)(route->method[i] | 0x20);
    return json_object_get(json_object_get(paths, route->pattern), method);
}

static void add_operations(const json_t *paths)
{
    for (const struct route *route = gateway_routes; route->method != NULL; route++) {
        json_t *operation = operation_of(paths, route);
        put(operation, "x-scope", json_string(route_scope_name(route)));
        put(operation, "x-owner", json_string(route_owner_name(route->owner)));
        add_refusals(json_object_get(operation, "responses"), route);
    }
}

int describe_json(char **ret_text, struct err *err)
{
    const struct embed_file *file = &gateway_description[0];
    union {
        const unsigned char *in;
        const char *out;
    } cast = {.in = file->begin};
    json_t *value = NULL;
    int rc = yaml_read(cast.out, (size_t)(file->end - file->begin), &value, NULL, err);

    if (rc != 0)
        return rc;
    json_t *components = json_object_get(value, "components");
    add_codes(components);
    add_responses(components);
    add_operations(json_object_get(value, "paths"));
    *ret_text = json_write(value);
    json_decref(value);
    return 0;
}
