#include "orchestrator/gateway/describe.h"

#include "common/io/yaml.h"
#include "common/pure/embed.h"
#include "orchestrator/gateway/route.h"

extern const struct embed_file gateway_description[];

/* The operation of a row; NULL when it is not described. */
static json_t *operation_of(const json_t *api, const struct route *route)
{
    char method[16] = "";

    for (size_t i = 0; i + 1 < sizeof(method) && route->method[i] != '\0'; i++)
        method[i] = (char)(route->method[i] | 0x20);
    return json_object_get(json_object_get(json_object_get(api, "paths"), route->pattern), method);
}

static void add_rights(const json_t *api)
{
    for (const struct route *route = gateway_routes; route->method != NULL; route++) {
        json_t *operation = operation_of(api, route);
        json_object_set_new(operation, "x-scope", json_string(route_scope_name(route)));
        json_object_set_new(operation, "x-owner", json_string(route_owner_name(route->owner)));
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
    add_rights(value);
    *ret_text = json_write(value);
    json_decref(value);
    return 0;
}
