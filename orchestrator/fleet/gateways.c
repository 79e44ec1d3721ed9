#include "orchestrator/fleet/gateways.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/fs.h"
#include "common/io/json.h"
#include "common/pure/id.h"
#include "orchestrator/fleet/text.h"

bool gateways_put(struct gateways *gateways, const struct gateway *gateway)
{
    uint32_t at = 0;

    while (at < gateways->count
           && memcmp(gateways->item[at].bulk_key, gateway->bulk_key, KEY_SIZE) != 0)
        at++;
    if (at < gateways->count && memcmp(&gateways->item[at], gateway, sizeof(*gateway)) == 0)
        return false;
    if (at == gateways->count && gateways->count == GATEWAYS_MAX)
        at = 0;
    if (at < gateways->count) {
        memmove(&gateways->item[at], &gateways->item[at + 1],
                (gateways->count - at - 1) * sizeof(gateways->item[0]));
        gateways->count--;
    }
    gateways->item[gateways->count++] = *gateway;
    return true;
}

static bool gateway_from_json(const json_t *value, struct gateway *out)
{
    const char *url = json_text(value, "url");
    const char *key = json_text(value, "bulk_key");
    const json_t *bulk = json_object_get(value, "bulk");

    if (url == NULL || key == NULL || !text_is_clean(url, GATEWAY_TEXT)
        || hex_parse(key, KEY_SIZE, out->bulk_key) || json_array_size(bulk) > GATEWAY_MAX_BULK)
        return false;
    snprintf(out->url, sizeof(out->url), "%s", url);
    for (size_t i = 0; i < json_array_size(bulk); i++) {
        const char *endpoint = json_string_value(json_array_get(bulk, i));

        if (endpoint == NULL || !text_is_endpoint(endpoint, GATEWAY_TEXT))
            return false;
        snprintf(out->bulk[out->bulk_count++], GATEWAY_TEXT, "%s", endpoint);
    }
    return true;
}

int gateways_load(struct gateways *gateways, const char *path, struct err *err)
{
    struct gateways out = {0};
    struct buf text;
    json_t *list = NULL;
    int rc = 0;

    if (access(path, F_OK) != 0 && errno == ENOENT)
        return 0;
    buf_init(&text, GATEWAY_FILE_MAX);
    rc = fs_read(path, GATEWAY_FILE_MAX, &text, err);
    if (rc == 0)
        rc = json_read(text.data, text.length, &list, err);
    buf_fini(&text);
    if (rc)
        return rc;
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        struct gateway gateway = {0};

        if (gateway_from_json(json_array_get(list, i), &gateway))
            gateways_put(&out, &gateway);
        else
            rc = err_set(err, ERR_STATE_CORRUPT, "%s: entry %zu is no gateway", path, i);
    }
    json_decref(list);
    if (rc == 0)
        *gateways = out;
    return rc;
}

int gateways_save(const struct gateways *gateways, const char *path, struct err *err)
{
    json_t *list = json_array();
    char *text;
    int rc;

    for (uint32_t i = 0; i < gateways->count; i++) {
        const struct gateway *gateway = &gateways->item[i];
        json_t *value = json_object();
        json_t *bulk = json_array();

        json_object_set_new(value, "url", json_string(gateway->url));
        json_object_set_new(value, "bulk_key", json_hex(gateway->bulk_key, KEY_SIZE));
        for (uint32_t k = 0; k < gateway->bulk_count; k++)
            json_array_append_new(bulk, json_string(gateway->bulk[k]));
        json_object_set_new(value, "bulk", bulk);
        json_array_append_new(list, value);
    }
    text = json_write(list);
    rc = fs_write(path, text, strlen(text), 0600, err);
    free(text);
    json_decref(list);
    return rc;
}
