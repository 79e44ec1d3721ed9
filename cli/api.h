#ifndef SHEAF_CLI_API_H
#define SHEAF_CLI_API_H

/* The gateway's API as calls: JSON in, JSON or an error out. */
#include <jansson.h>

#include "common/io/httpc.h"
#include "common/pure/err.h"

/* Address and credential: --context, SHEAF_URL/SHEAF_TOKEN/SHEAF_CA, or the current context. */
int api_open(struct httpc *ret_client, struct err *err) SHEAF_MUST_USE;

/*
 * One call. body NULL = none. key: idempotency key or NULL; "" makes one, kept over the retries of
 * this call. Problem documents become err (code, pointer, detail). Retries 503 and lost connections
 * three times where that is safe. Caller owns *ret_value (NULL for 204).
 */
int api_call(const struct httpc *client, const char *method, const char *path, const json_t *body,
             const char *key, json_t **ret_value, struct err *err) SHEAF_MUST_USE;
/* What a status other than 2xx says: a problem document, or whatever came instead of one. */
int api_problem(const struct httpc_response *response, struct err *err) SHEAF_MUST_USE;
/* All pages of a list, as one array. path may have a query. */
int api_list(const struct httpc *client, const char *path, json_t **ret_items,
             struct err *err) SHEAF_MUST_USE;
/* A job by UUID or by name (the newest of that name). */
int api_job(const struct httpc *client, const char *id_or_name, json_t **ret_job,
            struct err *err) SHEAF_MUST_USE;
/* A node by UUID or name. */
int api_node(const struct httpc *client, const char *id_or_name, json_t **ret_node,
             struct err *err) SHEAF_MUST_USE;

/* Server-sent events. */
struct sse_event {
    const char *event; /* "log", "state", "end", "gap" */
    const char *id;
    const char *data;
};
/*
 * Follows path until on_event returns false, an `end` event was handled, or Ctrl-C. Begins after
 * the event with the id `after` (NULL or "" = from the first), and reconnects from the last id
 * after a lost connection. ERR_INTERRUPTED after Ctrl-C.
 */
int api_follow(const struct httpc *client, const char *path, const char *after,
               bool (*on_event)(const struct sse_event *event, void *arg), void *arg,
               struct err *err) SHEAF_MUST_USE;

/* Feeds bytes to an incremental parser of text/event-stream (WHATWG). False when on_event said so.
 */
struct sse_parser {
    struct buf line;
    struct buf data;
    char event[32];
    char id[128];
};
bool sse_feed(struct sse_parser *parser, const char *bytes, size_t size,
              bool (*on_event)(const struct sse_event *event, void *arg), void *arg);

#endif
