#ifndef SHEAF_WORKER_CORE_AGENT_H
#define SHEAF_WORKER_CORE_AGENT_H

/*
 * The running worker: one loop that joins the task machine, the keep, the sessions, the runtime,
 * the devices and the network. Decide, commit, act: whatever a step changes is on the disk before
 * anything follows from it.
 */
#include "common/pure/err.h"
#include "worker/core/settings.h"
#include "worker/devices/devices.h"

enum agent_mode {
    AGENT_RUN,
    AGENT_JOIN,  /* ends once every device was self-tested */
    AGENT_LEAVE, /* drains, leaves, ends */
};

/*
 * Takes the state folder's lock and runs until SIGTERM, SIGINT or the end of its mode. Tasks go on
 * without it. On SIGHUP config, where the settings came from, is read again (NULL: nothing is).
 * host and config are borrowed. ERR_ALREADY_RUNNING, ERR_NOT_ENROLLED, ERR_STATE_CORRUPT, ERR_IO;
 * ERR_SELFTEST_FAILED and ERR_TIMEOUT after AGENT_JOIN.
 */
int agent_run(const struct settings *settings, struct config *config, const struct host_info *host,
              enum agent_mode mode, struct err *err) SHEAF_MUST_USE;

#endif
