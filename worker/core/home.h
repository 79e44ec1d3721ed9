#ifndef SHEAF_WORKER_CORE_HOME_H
#define SHEAF_WORKER_CORE_HOME_H

/*
 * The state folder: one identity per machine, what the join brought, what the owner set.
 *
 *   identity    key pairs, 0600              node.json   who we are and whom we trust
 *   ca.pem      the pinned CA                 owner.json  pause and price, as set by verbs
 *   lock        held by the running daemon   journal     keep.h
 *   tasks/      one folder per task          cache/      input files by SHA-256
 *   control.sock
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/io/hash.h"
#include "common/io/keys.h"
#include "common/pure/id.h"
#include "worker/core/settings.h"

#define HOME_MAX_CONTROLS 4

/* node.json */
struct node_file {
    struct uuid node;
    char name[64];
    char url[256]; /* of the gateway */
    char control[HOME_MAX_CONTROLS][128];
    uint32_t control_count;
    uint8_t server_key[KEY_SIZE]; /* CURVE, of the orchestrator */
    uint8_t sign_key[KEY_SIZE];   /* Ed25519, of its orders */
    uint8_t machine[SHA256_SIZE];
    int64_t joined_us;
};

/* owner.json; absent = nothing was set. */
struct owner_file {
    bool paused;
    bool has_price;
    micro_t price;
};

/* Makes the folder, 0700, and what lies in it. */
int home_open(const struct settings *settings, struct err *err) SHEAF_MUST_USE;
/* SHA-256("sheaf machine 1" ‖ the machine id). ERR_UNSUPPORTED_HERE when there is no id. */
int home_machine(const struct settings *settings, uint8_t ret_machine[SHA256_SIZE],
                 struct err *err) SHEAF_MUST_USE;
/*
 * ERR_NOT_ENROLLED when there is none; ERR_STATE_CORRUPT when it cannot be read, or when it was
 * made on another machine: a copied folder would be the same node twice.
 */
int home_load(const struct settings *settings, struct node_file *ret_node,
              struct err *err) SHEAF_MUST_USE;
int home_save(const struct settings *settings, const struct node_file *node,
              struct err *err) SHEAF_MUST_USE;
int home_load_owner(const struct settings *settings, struct owner_file *ret_owner,
                    struct err *err) SHEAF_MUST_USE;
int home_save_owner(const struct settings *settings, const struct owner_file *owner,
                    struct err *err) SHEAF_MUST_USE;
/* The folder has what home_open makes: it is a worker's, and may be removed. */
bool home_is_ours(const struct settings *settings);
/* After a leave: identity, node and journal are moved to STATE/left-SECONDS. */
int home_retire(const struct settings *settings, struct err *err) SHEAF_MUST_USE;

#endif
