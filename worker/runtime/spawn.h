#ifndef SHEAF_WORKER_RUNTIME_SPAWN_H
#define SHEAF_WORKER_RUNTIME_SPAWN_H

/* Small helper programs (nft, a trial sandbox), run to their end. */
#include <stdint.h>

#include "common/io/fs.h"
#include "common/pure/buf.h"
#include "common/pure/err.h"

/* Looks in the system folders alone, never in $PATH. ERR_NOT_FOUND. */
int spawn_find(const char *program, char ret_path[FS_PATH]) SHEAF_MUST_USE;
/*
 * Runs argv with an environment of PATH alone, `input` (may be NULL) on stdin; appends stdout and
 * stderr to ret_output, at most 4 KiB. Blocks; after timeout_ms the program is killed. Returns 0
 * when it exited with 0; ERR_IO, ERR_TIMEOUT or ERR_UNSUPPORTED_HERE with its first line.
 */
int spawn_run(const char *const *argv, const char *input, uint64_t timeout_ms,
              struct buf *ret_output, struct err *err) SHEAF_MUST_USE;

#endif
