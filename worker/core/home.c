#include "worker/core/home.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/io/json.h"

#define MACHINE_SALT "sheaf machine 1"
/* Nobody writes these files but us. */
#define HOME_MAX_FILE 65536

static const char *const folders[] = {"tasks", "cache"};

bool home_is_ours(const struct settings *settings)
{
    char path[FS_PATH];

    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        if (settings_path(settings, folders[i], path, NULL) != 0 || access(path, F_OK) != 0)
            return false;
    }
    return true;
}

int home_open(const struct settings *settings, struct err *err)
{
    char path[FS_PATH];
    int rc;

    rc = fs_mkdir(settings->state, 0700, err);
    for (size_t i = 0; rc == 0 && i < sizeof(folders) / sizeof(folders[0]); i++) {
        rc = settings_path(settings, folders[i], path, err);
        if (rc == 0)
            rc = fs_mkdir(path, 0700, err);
    }
    return rc;
}

int home_machine(const struct settings *settings, uint8_t ret_machine[SHA256_SIZE], struct err *err)
{
    struct buf text;
    int rc;

    buf_init(&text, 0);
    buf_puts(&text, MACHINE_SALT);
    rc = fs_read(settings->machine_id, 256, &text, NULL);
    while (text.length > 0 && (text.data[text.length - 1] == '\n'))
        text.data[--text.length] = '\0';
    if (rc != 0 || text.length < strlen(MACHINE_SALT) + 8)
        rc = err_set(err, ERR_UNSUPPORTED_HERE,
                     "no machine id in %s: run systemd-machine-id-setup, or give --machine-id FILE",
                     settings->machine_id);
    else
        sha256(text.data, text.length, ret_machine);
    buf_fini(&text);
    return rc;
}

static int read_json(const struct settings *settings, const char *name, json_t **ret_value,
                     struct err *err)
{
    char path[FS_PATH];
    struct buf text;
    int rc;

    buf_init(&text, 0);
    rc = settings_path(settings, name, path, err);
    if (rc == 0)
        rc = fs_read(path, HOME_MAX_FILE, &text, err);
    if (rc == 0)
        rc = json_read(text.data, text.length, ret_value, err);
    if (rc != 0)
        rc = err_set(err, ERR_STATE_CORRUPT, "%s/%s cannot be read", settings->state, name);
    buf_fini(&text);
    return rc;
}

static bool get_hex(const json_t *object, const char *key, size_t size, void *out)
{
    const char *text = json_text(object, key);

    return text && strlen(text) == 2 * size && hex_parse(text, size, out) == 0;
}

static bool get_text(const json_t *object, const char *key, char *out, size_t size)
{
    const char *text = json_text(object, key);

    if (!text || strlen(text) >= size)
        return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool node_from_json(const json_t *value, struct node_file *node)
{
    const char *id = json_text(value, "node");
    const json_t *controls = json_object_get(value, "control");

    memset(node, 0, sizeof(*node));
    if (!id || uuid_parse(id, &node->node) != 0
        || !get_text(value, "name", node->name, sizeof(node->name))
        || !get_text(value, "url", node->url, sizeof(node->url))
        || !get_hex(value, "server_key", KEY_SIZE, node->server_key)
        || !get_hex(value, "sign_key", KEY_SIZE, node->sign_key)
        || !get_hex(value, "machine", SHA256_SIZE, node->machine))
        return false;
    for (size_t i = 0; i < json_array_size(controls) && i < HOME_MAX_CONTROLS; i++) {
        const char *text = json_string_value(json_array_get(controls, i));

        if (!text || strlen(text) >= sizeof(node->control[0]))
            return false;
        memcpy(node->control[node->control_count++], text, strlen(text) + 1);
    }
    node->joined_us = json_integer_value(json_object_get(value, "joined_us"));
    return node->control_count > 0;
}

int home_load(const struct settings *settings, struct node_file *ret_node, struct err *err)
{
    uint8_t machine[SHA256_SIZE];
    struct node_file node;
    char path[FS_PATH];
    json_t *value = NULL;
    bool good;
    int rc;

    rc = settings_path(settings, "node.json", path, err);
    if (rc != 0)
        return rc;
    if (access(path, F_OK) != 0)
        return err_set(err, ERR_NOT_ENROLLED,
                       "this machine has not joined (no %s); run: sheaf-worker join TOKEN", path);
    rc = read_json(settings, "node.json", &value, err);
    if (rc != 0)
        return rc;
    good = node_from_json(value, &node);
    json_decref(value);
    if (!good)
        return err_set(err, ERR_STATE_CORRUPT, "%s is damaged; move %s away and join again", path,
                       settings->state);
    rc = home_machine(settings, machine, err);
    if (rc != 0)
        return rc;
    if (!bytes_equal(machine, node.machine, SHA256_SIZE))
        return err_set(err, ERR_STATE_CORRUPT,
                       "%s was made on another machine. Give this one its own identity: choose an "
                       "empty --state folder, then sheaf-worker join TOKEN",
                       settings->state);
    *ret_node = node;
    return 0;
}

static int write_json(const struct settings *settings, const char *name, json_t *value,
                      struct err *err)
{
    char path[FS_PATH];
    char *text = json_write(value);
    int rc;

    rc = settings_path(settings, name, path, err);
    if (rc == 0)
        rc = fs_write(path, text, strlen(text), 0600, err);
    free(text);
    json_decref(value);
    return rc;
}

int home_save(const struct settings *settings, const struct node_file *node, struct err *err)
{
    json_t *value = json_object();
    json_t *controls = json_array();

    for (uint32_t i = 0; i < node->control_count; i++)
        json_array_append_new(controls, json_string(node->control[i]));
    json_object_set_new(value, "node", json_uuid(node->node.bytes));
    json_object_set_new(value, "name", json_string(node->name));
    json_object_set_new(value, "url", json_string(node->url));
    json_object_set_new(value, "control", controls);
    json_object_set_new(value, "server_key", json_hex(node->server_key, KEY_SIZE));
    json_object_set_new(value, "sign_key", json_hex(node->sign_key, KEY_SIZE));
    json_object_set_new(value, "machine", json_hex(node->machine, SHA256_SIZE));
    json_object_set_new(value, "joined_us", json_integer(node->joined_us));
    return write_json(settings, "node.json", value, err);
}

int home_load_owner(const struct settings *settings, struct owner_file *ret_owner, struct err *err)
{
    struct owner_file owner = {0};
    const char *price;
    json_t *value = NULL;
    char path[FS_PATH];
    int rc;

    rc = settings_path(settings, "owner.json", path, err);
    if (rc == 0 && access(path, F_OK) != 0) {
        *ret_owner = owner;
        return 0;
    }
    if (rc == 0)
        rc = read_json(settings, "owner.json", &value, err);
    if (rc != 0)
        return rc;
    owner.paused = json_is_true(json_object_get(value, "paused"));
    price = json_text(value, "price");
    if (price && money_parse(price, &owner.price) == 0)
        owner.has_price = true;
    json_decref(value);
    *ret_owner = owner;
    return 0;
}

int home_save_owner(const struct settings *settings, const struct owner_file *owner,
                    struct err *err)
{
    json_t *value = json_object();

    json_object_set_new(value, "paused", json_boolean(owner->paused));
    if (owner->has_price)
        json_object_set_new(value, "price", json_money(owner->price));
    return write_json(settings, "owner.json", value, err);
}

int home_retire(const struct settings *settings, struct err *err)
{
    static const char *const files[] = {"identity", "node.json", "owner.json", "journal", "ca.pem"};
    char folder[FS_PATH];
    int rc;

    if (fs_path(folder, "%s/left-%lld", settings->state, (long long)(clock_wall_us() / 1000000))
        != 0)
        return err_set(err, ERR_IO, "the state folder's path is too long");
    rc = fs_mkdir(folder, 0700, err);
    for (size_t i = 0; rc == 0 && i < sizeof(files) / sizeof(files[0]); i++) {
        char from[FS_PATH];
        char to[FS_PATH];

        if (fs_path(from, "%s/%s", settings->state, files[i]) != 0
            || fs_path(to, "%s/%s", folder, files[i]) != 0)
            return err_set(err, ERR_IO, "the state folder's path is too long");
        if (rename(from, to) != 0 && errno != ENOENT)
            rc = err_set(err, ERR_IO, "%s: %s", from, strerror(errno));
    }
    return rc;
}
