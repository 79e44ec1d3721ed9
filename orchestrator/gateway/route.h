#ifndef SHEAF_ORCHESTRATOR_GATEWAY_ROUTE_H
#define SHEAF_ORCHESTRATOR_GATEWAY_ROUTE_H

/* Matching of method and path against one const table. Pure. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/err.h"
#include "orchestrator/gateway/http.h"
#include "orchestrator/gateway/queries.h"

struct gateway;
struct command_draft;

enum route_flag {
    ROUTE_KEYED = 1u << 0,   /* Idempotency-Key is required */
    ROUTE_TOKENS = 1u << 1,  /* changes tokens: forget what we know of them */
    ROUTE_WRAPPED = 1u << 2, /* the reply's own JSON is part of the answer, not all of it */
    ROUTE_SECRET = 1u << 3,  /* public but for the join secret, which its handler checks */
};

/* Whose the objects of a row are. Operators reach all of them; auditors see all of them. */
enum route_owner {
    OWNER_POOL,     /* nobody's in particular: who has the scope, has it whole */
    OWNER_PROJECT,  /* the caller's project's */
    OWNER_PROVIDER, /* the caller's provider's */
    OWNER_PARTY,    /* either's */
    OWNER_HARDWARE, /* the caller's provider's; who is no provider sees all of it */
    OWNER_CALLER,   /* the caller itself */
};

/* Any valid token; beside the bits of enum scope. 0 = public. */
#define ROUTE_ANY_TOKEN (1u << 31)

struct route {
    const char *method;  /* NULL ends a table */
    const char *pattern; /* "/api/v1/jobs/{id}": {id} is a UUID, other {…} one segment each */
    uint32_t scope;
    enum route_owner owner;
    uint32_t flags;
    void (*handle)(struct gateway *gateway, struct http_call *call);
    enum query_id query; /* answers, or re-reads what a command made */
    int status;          /* of a command that was done; 0 = 200 */
    /* Command routes: body → command. Pointers may go into body and draft. */
    int (*fill)(const struct http_call *call, struct command_draft *draft, struct err *err);
    size_t max_body; /* 0 = ROUTE_BODY */
};

/* A job file is at most 64 KiB; other bodies are smaller. */
#define ROUTE_BODY ((size_t)256 << 10)

/* The one table of everything served. */
extern const struct route gateway_routes[];

/* "jobs:read", "any token", "join secret" or "public"; "project", "pool", …. */
const char *route_scope_name(const struct route *route);
const char *route_owner_name(enum route_owner owner);

/*
 * Row for method and path, and the path's parameters (malloc'd, HTTP_MAX_PARAMS slots). NULL with
 * the methods that exist for the path in ret_allow ("" when the path is unknown).
 */
const struct route *route_match(const struct route *table, const char *method, const char *path,
                                char *ret_params[HTTP_MAX_PARAMS], char ret_allow[64]);

#endif
