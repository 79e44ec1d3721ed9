#ifndef SHEAF_ORCHESTRATOR_GATEWAY_AUTH_H
#define SHEAF_ORCHESTRATOR_GATEWAY_AUTH_H

/*
 * Who asks: bearer tokens looked up by their SHA-256, kept for a moment. What we find decides what
 * a caller may read here; what it may change, the orchestrator decides again.
 */
#include "common/io/hash.h"
#include "orchestrator/core/row.h"
#include "orchestrator/gateway/gateway.h"
#include "orchestrator/gateway/http.h"

struct caller {
    uint8_t hash[SHA256_SIZE];
    int64_t token; /* 0 = nobody */
    struct uuid uid;
    int64_t project; /* 0 = none */
    int64_t provider;
    enum role role;
    uint32_t scopes;
    int64_t expires_us;
    char project_name[ROW_NAME];
    char provider_name[ROW_NAME];
};

/* Operators and auditors see every project. */
bool caller_sees_all(const struct caller *caller);

struct auth;
struct auth *auth_new(struct gateway *gateway);
void auth_free(struct auth *auth);
/* A token, or what it belongs to, changed: what we remember may be old. */
void auth_forget(struct auth *auth);

/* SHA-256 of the bearer secret of a call; false when there is none. */
bool auth_bearer(const struct http_call *call, uint8_t ret_hash[SHA256_SIZE]);

/*
 * Finds the caller, puts it into call->caller and calls on_known; answers the problem itself when
 * there is none or its scopes do not suffice.
 */
void auth_check(struct auth *auth, struct http_call *call, uint32_t scope,
                void (*on_known)(struct gateway *gateway, struct http_call *call));

#endif
