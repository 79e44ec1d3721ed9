#ifndef SHEAF_CLI_CONTEXT_H
#define SHEAF_CLI_CONTEXT_H

/*
 * Named servers with their credential: $XDG_CONFIG_HOME/sheaf/contexts.json, mode 0600, and the
 * pinned CA of each beside it. A file that others can read is refused.
 */
#include <jansson.h>

#include "common/pure/err.h"

struct context {
    char name[64];
    char url[256];
    char token[128];
    char ca_file[512];
};

/* name NULL = the current one. ERR_AUTH_REQUIRED when there is none. */
int context_load(const char *name, struct context *ret_context, struct err *err) SHEAF_MUST_USE;
/* Adds or replaces, and makes it current. */
int context_save(const struct context *context, struct err *err) SHEAF_MUST_USE;
/* {"current": name, "items": [{"name","url","current"}]}; never a token. */
int context_list(json_t **ret_list, struct err *err) SHEAF_MUST_USE;
int context_use(const char *name, struct err *err) SHEAF_MUST_USE;
int context_remove(const char *name, struct err *err) SHEAF_MUST_USE;
/* Where the CA of a context is kept; makes the folder. */
int context_ca_path(const char *name, char ret_path[512], struct err *err) SHEAF_MUST_USE;

#endif
