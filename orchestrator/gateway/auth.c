#include "orchestrator/gateway/auth.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/io/clock.h"
#include "common/pure/map.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/db.h"
#include "orchestrator/gateway/route.h"

/* A revoked token dies at the next hint, and without hints within this time. */
#define REMEMBER_US  ((int64_t)5000000)
#define REMEMBER_MAX 1024u
#define BEARER_MAX   128u
/* One text for all of them: whether a token ever was one is nobody's to find out. */
#define TOKEN_BAD "unknown, expired or revoked"

struct known {
    struct caller caller;
    int64_t at_us;
};

struct auth {
    struct gateway *gateway;
    struct map known; /* hash → struct known */
};

/* What waits for the lookup of one call. */
struct lookup {
    struct auth *auth;
    uint8_t hash[SHA256_SIZE];
    uint32_t scope;
    void (*on_known)(struct gateway *gateway, struct http_call *call);
};

bool caller_sees_all(const struct caller *caller)
{
    return caller->role == ROLE_OPERATOR || caller->role == ROLE_AUDITOR;
}

struct auth *auth_new(struct gateway *gateway)
{
    struct auth *auth = mem_new(1, sizeof(*auth));

    auth->gateway = gateway;
    map_init(&auth->known);
    return auth;
}

void auth_forget(struct auth *auth)
{
    for (uint32_t i = 0; i < auth->known.count; i++)
        free(map_at(&auth->known, i));
    map_fini(&auth->known);
    map_init(&auth->known);
}

void auth_free(struct auth *auth)
{
    if (auth == NULL)
        return;
    auth_forget(auth);
    map_fini(&auth->known);
    free(auth);
}

bool auth_bearer(const struct http_call *call, uint8_t ret_hash[SHA256_SIZE])
{
    const char *value = http_field(call, "Authorization");

    if (value == NULL || strncasecmp(value, "Bearer ", 7) != 0)
        return false;
    value += 7;
    while (*value == ' ')
        value++;
    size_t length = strlen(value);
    if (length == 0 || length > BEARER_MAX)
        return false;
    sha256(value, length, ret_hash);
    return true;
}

static void go_on(struct gateway *gateway, struct http_call *call, const struct caller *caller,
                  const struct lookup *lookup)
{
    uint32_t wanted = lookup->scope & ~ROUTE_ANY_TOKEN;

    if (caller->expires_us != 0 && caller->expires_us <= clock_wall_us()) {
        http_problemf(call, ERR_TOKEN_INVALID, TOKEN_BAD);
        return;
    }
    if ((caller->scopes & wanted) != wanted) {
        http_problemf(call, ERR_SCOPE_MISSING, "this needs the scope %s", scope_name(wanted));
        return;
    }
    struct caller *copy = mem_new(1, sizeof(*copy));
    *copy = *caller;
    call->caller = copy;
    lookup->on_known(gateway, call);
}

static void caller_read(const PGresult *row, const uint8_t hash[SHA256_SIZE],
                        struct caller *ret_caller)
{
    struct caller caller = {
        .token = db_int(row, 0, 0),
        .project = db_int(row, 0, 1),
        .provider = db_int(row, 0, 2),
        .role = role_parse(PQgetvalue(row, 0, 3)),
        .scopes = (uint32_t)db_int(row, 0, 4),
        .expires_us = db_int(row, 0, 5),
    };

    memcpy(caller.hash, hash, SHA256_SIZE);
    snprintf(caller.project_name, sizeof(caller.project_name), "%s", PQgetvalue(row, 0, 6));
    snprintf(caller.provider_name, sizeof(caller.provider_name), "%s", PQgetvalue(row, 0, 7));
    if (uuid_parse(PQgetvalue(row, 0, 8), &caller.uid) != 0)
        caller.token = 0;
    *ret_caller = caller;
}

static void on_looked_up(const struct err *err, PGresult *const *results, uint32_t count,
                         uint64_t id, void *arg)
{
    struct lookup *lookup = arg;
    struct auth *auth = lookup->auth;
    struct gateway *gateway = auth->gateway;
    struct http_call *call = http_call_find(gateway->http, id);

    (void)count;
    if (call == NULL) {
        free(lookup);
        return;
    }
    if (err != NULL) {
        http_problem(call, err);
    } else if (PQntuples(results[0]) == 0) {
        http_problemf(call, ERR_TOKEN_INVALID, TOKEN_BAD);
    } else {
        struct known *known = map_get(&auth->known, lookup->hash, SHA256_SIZE);
        if (known == NULL) {
            if (auth->known.count >= REMEMBER_MAX)
                auth_forget(auth);
            known = mem_new(1, sizeof(*known));
            map_put(&auth->known, lookup->hash, SHA256_SIZE, known);
        }
        caller_read(results[0], lookup->hash, &known->caller);
        known->at_us = clock_mono_us();
        struct caller caller = known->caller; /* going on may forget what is known */
        go_on(gateway, call, &caller, lookup);
    }
    free(lookup);
}

void auth_check(struct auth *auth, struct http_call *call, uint32_t scope,
                void (*on_known)(struct gateway *gateway, struct http_call *call))
{
    struct lookup lookup = {.auth = auth, .scope = scope, .on_known = on_known};

    if (!auth_bearer(call, lookup.hash)) {
        http_problemf(call, ERR_AUTH_REQUIRED, "no Authorization: Bearer");
        return;
    }
    struct known *known = map_get(&auth->known, lookup.hash, SHA256_SIZE);
    if (known != NULL && clock_mono_us() - known->at_us < REMEMBER_US) {
        struct caller caller = known->caller;
        go_on(auth->gateway, call, &caller, &lookup);
        return;
    }
    if (db_is_down(auth->gateway->db)) {
        http_problemf(call, ERR_UNAVAILABLE, "the database is not reached");
        return;
    }
    struct lookup *kept = mem_new(1, sizeof(*kept));
    struct db_args args;
    *kept = lookup;
    db_args_init(&args, QUERY_AUTH);
    db_add_bytes(&args, lookup.hash, SHA256_SIZE);
    db_ask(auth->gateway->db, &db_sight_own, &args, 1, on_looked_up, call->id, kept);
}
