#include "cli/context.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/term.h"
#include "common/io/fs.h"
#include "common/io/json.h"
#include "common/pure/spec.h"

#define CONTEXTS_MAX_BYTES 65536

static int config_dir(char out[FS_PATH], struct err *err)
{
    const char *xdg = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    int rc;

    if (xdg != NULL && xdg[0] == '/')
        rc = fs_path(out, "%s/sheaf", xdg);
    else if (home != NULL && home[0] != '\0')
        rc = fs_path(out, "%s/.config/sheaf", home);
    else
        return err_set(err, ERR_IO, "neither XDG_CONFIG_HOME nor HOME is set");
    if (rc < 0)
        return err_set(err, ERR_IO, "the configuration path is too long");
    return fs_mkdir(out, 0700, err);
}

/* The whole file, or an empty one. Caller owns the reference. */
static int read_all(json_t **ret_all, struct err *err)
{
    char dir[FS_PATH];
    char path[FS_PATH];
    struct buf text;

    int rc = config_dir(dir, err);
    if (rc < 0)
        return rc;
    if (fs_path(path, "%s/contexts.json", dir) < 0)
        return err_set(err, ERR_IO, "the configuration path is too long");
    if (access(path, F_OK) < 0 && errno == ENOENT) {
        *ret_all = json_pack("{s:s, s:{}}", "current", "", "contexts");
        return 0;
    }
    buf_init(&text, CONTEXTS_MAX_BYTES);
    rc = fs_read_secret(path, CONTEXTS_MAX_BYTES, FS_OWNER_ALONE, &text, err);
    if (rc == 0)
        rc = json_read(text.data, text.length, ret_all, err);
    buf_fini(&text);
    if (rc == 0 && !json_is_object(json_object_get(*ret_all, "contexts"))) {
        json_decref(*ret_all);
        return err_set(err, ERR_STATE_CORRUPT, "%s is not a context file; remove it", path);
    }
    return rc;
}

static int write_all(const json_t *all, struct err *err)
{
    char dir[FS_PATH];
    char path[FS_PATH];
    int rc = config_dir(dir, err);

    if (rc < 0)
        return rc;
    if (fs_path(path, "%s/contexts.json", dir) < 0)
        return err_set(err, ERR_IO, "the configuration path is too long");
    char *text = json_dumps(all, JSON_INDENT(2));
    rc = fs_write(path, text, strlen(text), 0600, err);
    free(text);
    return rc;
}

static void copy(char *to, size_t size, const json_t *object, const char *key)
{
    const char *text = json_text(object, key);

    snprintf(to, size, "%s", text ? text : "");
}

int context_load(const char *name, struct context *ret_context, struct err *err)
{
    json_t *all = NULL;
    int rc = read_all(&all, err);

    if (rc < 0)
        return rc;
    if (name == NULL)
        name = json_text(all, "current");
    const json_t *entry = json_object_get(json_object_get(all, "contexts"), name ? name : "");
    if (entry == NULL) {
        if (name == NULL || name[0] == '\0')
            rc = err_set(err, ERR_AUTH_REQUIRED, "no server is known yet");
        else
            rc = err_set(err, ERR_NOT_FOUND, "there is no context '%s'; see: sheaf context ls",
                         name);
    } else {
        struct context context = {0};
        snprintf(context.name, sizeof(context.name), "%s", name);
        copy(context.url, sizeof(context.url), entry, "url");
        copy(context.token, sizeof(context.token), entry, "token");
        copy(context.ca_file, sizeof(context.ca_file), entry, "ca_file");
        *ret_context = context;
    }
    json_decref(all);
    return rc;
}

int context_save(const struct context *context, struct err *err)
{
    json_t *all = NULL;

    if (!name_is_valid(context->name))
        return err_set(err, ERR_INVALID_NAME, "'%s' cannot name a context", context->name);
    int rc = read_all(&all, err);
    if (rc < 0)
        return rc;
    json_object_set_new(json_object_get(all, "contexts"), context->name,
                        json_pack("{s:s, s:s, s:s}", "url", context->url, "token", context->token,
                                  "ca_file", context->ca_file));
    json_object_set_new(all, "current", json_string(context->name));
    rc = write_all(all, err);
    json_decref(all);
    return rc;
}

int context_list(json_t **ret_list, struct err *err)
{
    json_t *all = NULL;
    const char *name;
    json_t *entry;
    int rc = read_all(&all, err);

    if (rc < 0)
        return rc;
    const char *current = json_text(all, "current");
    json_t *items = json_array();
    json_object_foreach(json_object_get(all, "contexts"), name, entry)
    {
        json_array_append_new(items, json_pack("{s:s, s:s, s:b}", "name", name, "url",
                                               json_text(entry, "url"), "current",
                                               current != NULL && strcmp(current, name) == 0));
    }
    json_decref(all);
    *ret_list = items;
    return 0;
}

int context_use(const char *name, struct err *err)
{
    json_t *all = NULL;
    int rc = read_all(&all, err);

    if (rc < 0)
        return rc;
    if (json_object_get(json_object_get(all, "contexts"), name) == NULL) {
        rc = err_set(err, ERR_NOT_FOUND, "there is no context '%s'; see: sheaf context ls", name);
    } else {
        json_object_set_new(all, "current", json_string(name));
        rc = write_all(all, err);
    }
    json_decref(all);
    return rc;
}

int context_remove(const char *name, struct err *err)
{
    json_t *all = NULL;
    int rc = read_all(&all, err);

    if (rc < 0)
        return rc;
    if (json_object_del(json_object_get(all, "contexts"), name) < 0)
        rc = err_set(err, ERR_NOT_FOUND, "there is no context '%s'", name);
    else
        rc = write_all(all, err);
    json_decref(all);
    return rc;
}

int context_ca_path(const char *name, char ret_path[512], struct err *err)
{
    char dir[FS_PATH];
    int rc = config_dir(dir, err);

    if (rc < 0)
        return rc;
    if (fs_path(ret_path, "%s/%s.ca.pem", dir, name) < 0)
        return err_set(err, ERR_IO, "the configuration path is too long");
    return 0;
}
