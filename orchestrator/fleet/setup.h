#ifndef SHEAF_ORCHESTRATOR_FLEET_SETUP_H
#define SHEAF_ORCHESTRATOR_FLEET_SETUP_H

/*
 * What the program reads and makes before it serves: options, state folder, policy overrides. No
 * sockets, no loop.
 */
#include "common/io/config.h"
#include "common/io/fs.h"
#include "orchestrator/core/world.h"

extern const struct config_option setup_options[];

/* Where the state is: --state, else /var/lib/sheaf/orchestrator for root, else XDG. ERR_IO. */
int setup_state(const struct config *config, char ret_path[FS_PATH],
                struct err *err) SHEAF_MUST_USE;
/* Values that no table row can bound. ERR_CONFIG_INVALID. */
int setup_check(const struct config *config, struct err *err) SHEAF_MUST_USE;
/* Writes the options that are set over the stored policy; policy_check is done. */
int setup_policy(const struct config *config, struct policy *policy,
                 struct err *err) SHEAF_MUST_USE;

#endif
