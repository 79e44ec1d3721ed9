/* The link file: where the orchestrator is, and what this gateway is to it. */
#include <stdio.h>
#include <string.h>

#include "common/io/fs.h"
#include "common/io/yaml.h"
#include "common/pure/id.h"
#include "orchestrator/gateway/gateway.h"

static int take_text(const json_t *file, const char *key, char *out, size_t size, const char *path,
                     struct err *err)
{
    const char *text = json_text(file, key);

    if (text == NULL || *text == '\0')
        return err_set_at(err, ERR_CONFIG_INVALID, key, "%s: %s is missing", path, key);
    if (strlen(text) >= size)
        return err_set_at(err, ERR_CONFIG_INVALID, key, "%s: %s is too long", path, key);
    snprintf(out, size, "%s", text);
    return 0;
}

static int take_key(const json_t *file, const char *key, uint8_t out[KEY_SIZE], const char *path,
                    struct err *err)
{
    char text[2 * KEY_SIZE + 1];
    int rc = take_text(file, key, text, sizeof(text), path, err);

    if (rc != 0)
        return rc;
    if (strlen(text) != 2 * (size_t)KEY_SIZE || hex_parse(text, KEY_SIZE, out) != 0)
        return err_set_at(err, ERR_CONFIG_INVALID, key, "%s: %s is not 32 bytes in hex", path, key);
    return 0;
}

static int take_all(const json_t *file, struct gateway_link *link, const char *path,
                    struct err *err)
{
    int rc =
        take_text(file, "orchestrator", link->orchestrator, sizeof(link->orchestrator), path, err);

    if (rc == 0)
        rc = take_text(file, "hints", link->hints, sizeof(link->hints), path, err);
    if (rc == 0)
        rc = take_key(file, "server_key", link->server_key, path, err);
    if (rc == 0)
        rc = take_key(file, "curve_public", link->curve.public_key, path, err);
    if (rc == 0)
        rc = take_key(file, "curve_secret", link->curve.secret_key, path, err);
    if (rc == 0)
        rc = take_key(file, "sign_key", link->sign_key, path, err);
    if (rc == 0)
        rc = take_text(file, "token", link->token, sizeof(link->token), path, err);
    if (rc == 0)
        rc = take_text(file, "database", link->database, sizeof(link->database), path, err);
    return rc;
}

int gateway_link_load(const char *path, struct gateway_link *ret_link, struct err *err)
{
    struct gateway_link link = {0};
    struct buf text;
    json_t *file = NULL;

    buf_init(&text, YAML_MAX_BYTES);
    int rc = fs_read_secret(path, YAML_MAX_BYTES, FS_GROUP_READS, &text, err);
    if (rc == 0)
        rc = yaml_read(text.data, text.length, &file, NULL, err);
    if (rc == 0)
        rc = take_all(file, &link, path, err);
    json_decref(file);
    buf_fini(&text);
    if (rc == 0)
        *ret_link = link;
    return rc;
}
