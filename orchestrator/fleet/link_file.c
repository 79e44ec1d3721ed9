#include "orchestrator/fleet/link_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/fs.h"
#include "common/io/yaml.h"
#include "common/pure/id.h"

static int take_key(const json_t *value, const char *key, uint8_t out[KEY_SIZE])
{
    const char *text = json_text(value, key);

    return text ? hex_parse(text, KEY_SIZE, out) : -ERR_STATE_CORRUPT;
}

static int link_parse(const char *path, const json_t *value, struct link_file *ret_link,
                      struct err *err)
{
    const char *token = json_text(value, "token");
    struct link_file link = {0};

    if (token == NULL || strlen(token) >= sizeof(link.token) || strncmp(token, "shg_", 4) != 0
        || take_key(value, "curve_public", link.curve.public_key)
        || take_key(value, "curve_secret", link.curve.secret_key))
        return err_set(err, ERR_STATE_CORRUPT,
                       "%s lacks curve_public, curve_secret or token; remove it to make another",
                       path);
    snprintf(link.token, sizeof(link.token), "%s", token);
    *ret_link = link;
    return 0;
}

int link_file_load_or_make(const char *path, struct link_file *ret_link, struct err *err)
{
    json_t *value = NULL;
    struct buf text;
    int rc;

    if (access(path, F_OK) != 0 && errno == ENOENT) {
        curve_pair_make(&ret_link->curve);
        secret_make("shg_", ret_link->token);
        return 0;
    }
    buf_init(&text, YAML_MAX_BYTES);
    rc = fs_read(path, YAML_MAX_BYTES, &text, err);
    if (rc == 0)
        rc = yaml_read(text.data, text.length, &value, NULL, err);
    if (rc == 0)
        rc = link_parse(path, value, ret_link, err);
    if (text.data)
        explicit_bzero(text.data, text.length);
    buf_fini(&text);
    json_decref(value);
    return rc;
}

int link_file_write(const char *path, const struct link_file *link, const struct link_facts *facts,
                    struct err *err)
{
    json_t *value = json_object();
    char *text;
    int rc;

    json_object_set_new(value, "orchestrator", json_string(facts->orchestrator));
    json_object_set_new(value, "hints", json_string(facts->hints));
    json_object_set_new(value, "server_key", json_hex(facts->server_key, KEY_SIZE));
    json_object_set_new(value, "curve_public", json_hex(link->curve.public_key, KEY_SIZE));
    json_object_set_new(value, "curve_secret", json_hex(link->curve.secret_key, KEY_SIZE));
    json_object_set_new(value, "sign_key", json_hex(facts->sign_key, KEY_SIZE));
    json_object_set_new(value, "token", json_string(link->token));
    json_object_set_new(value, "database", json_string(facts->database));
    text = yaml_write(value);
    rc = fs_write(path, text, strlen(text), facts->mode, err);
    explicit_bzero(text, strlen(text));
    free(text);
    json_decref(value);
    return rc;
}
