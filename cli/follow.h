#ifndef SHEAF_CLI_FOLLOW_H
#define SHEAF_CLI_FOLLOW_H

/* Watching a job until it ends. */
#include "common/io/httpc.h"

/*
 * Phases as they come, then rank 0's log, until the end; prints how it ended. Ctrl-C detaches and
 * says how to come back. Returns the exit code: 0, 1 when the job failed, 130 when detached.
 */
int follow_job(const struct httpc *client, const char *id);
/* Exit code for a final state: EXIT_OK only for "succeeded". */
int exit_of_state(const char *state);

#endif
