#ifndef SHEAF_WORKER_IMAGES_PODMAN_H
#define SHEAF_WORKER_IMAGES_PODMAN_H

/*
 * Podman's REST service of one worker: its folders, its life, one call. The service has a store of
 * its own and a configuration of its own, so that neither the administrator's settings nor their
 * registry passwords reach a tenant's image. It ends by itself when nobody asks for a while; what
 * it started lives on.
 */
#include <jansson.h>
#include <stdbool.h>

#include "common/io/fs.h"
#include "common/pure/err.h"

struct podman {
    char folder[FS_PATH]; /* STATE/podman: layers, images, configuration */
    char run[FS_PATH];    /* below /run: what must not outlive a boot, and the socket */
    char program[FS_PATH];
    char runtime[FS_PATH]; /* runc or crun */
    volatile int *interrupted;
};

/*
 * Finds program and runtime for the control groups of this machine ("v1", "v2", "hybrid") and makes
 * the folders. ERR_UNSUPPORTED_HERE with the fix.
 */
int podman_open(const char *folder, const char *cgroup, struct podman *ret_podman,
                struct err *err) SHEAF_MUST_USE;
/* As above without looking for anything: what podman_open wrote down. */
int podman_reopen(const char *folder, struct podman *ret_podman, struct err *err) SHEAF_MUST_USE;
/*
 * Makes sure that the service answers; *ret_started (may be NULL) tells whether it did not. By the
 * worker alone: it must not become a child of a supervisor, which ends what it is left with.
 * ERR_UNSUPPORTED_HERE, ERR_TIMEOUT.
 */
int podman_serve(const struct podman *podman, bool *ret_started, struct err *err) SHEAF_MUST_USE;
/* Ends the service; containers go on. */
void podman_end(const struct podman *podman);

struct podman_call {
    const char *method;
    const char *path;   /* below /libpod: "/images/load" */
    const json_t *body; /* borrowed; NULL = none */
    const char *upload; /* file that is the body instead */
    long timeout_ms;
};
/*
 * 0 when the service answered 2xx; ret_answer (may be NULL) gets the JSON or NULL. ERR_NOT_FOUND
 * for 404, ERR_UNREACHABLE without a service, ERR_INTERRUPTED, ERR_TIMEOUT, else
 * ERR_UNEXPECTED_RESPONSE with the service's own words.
 */
int podman_do(const struct podman *podman, const struct podman_call *call, json_t **ret_answer,
              struct err *err) SHEAF_MUST_USE;
/* Runs the program itself where there may be no service: `argv` after its own options. */
int podman_run(const struct podman *podman, const char *const *words,
               struct err *err) SHEAF_MUST_USE;

#endif
