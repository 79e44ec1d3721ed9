#ifndef SHEAF_WORKER_DEVICES_JOB_H
#define SHEAF_WORKER_DEVICES_JOB_H

/*
 * One run of the child program: spawned with a clean environment, no inherited files and a process
 * group of its own, read without blocking, ended by its exit, the deadline or the size cap.
 */
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"
#include "worker/devices/devices.h"

struct job_end {
    bool timed_out;
    bool overflow;          /* more output than DOCUMENT_MAX_BYTES */
    int signal;             /* that killed it; 0 = it exited */
    int exit_code;          /* -1 when nobody can tell */
    const struct buf *out;  /* whole stdout */
    const char *last_words; /* last line of stderr, or "" */
    uint64_t deadline_s;
};
typedef void (*job_on_end_f)(const struct job_end *end, void *arg);

/*
 * request: bytes for stdin; copied. The callback comes once, from the loop. ret_job is owned by the
 * caller, who frees it by devices_job_free, also within the callback; `arg` is freed with it by
 * free(), if owns_arg. ERR_IO, ERR_UNSUPPORTED_HERE when there is no such program.
 */
struct job_plan {
    const char *verb;
    const char *request;
    uint64_t deadline_s;
    job_on_end_f on_end;
    void *arg;
    bool owns_arg;
};
int job_start(struct event_base *base, const struct job_plan *plan, struct devices_job **ret_job,
              struct err *err) SHEAF_MUST_USE;
/* One line on how it ended, when it did not end well; else "". */
void job_describe(const struct job_end *end, char *out, size_t size);

#endif
