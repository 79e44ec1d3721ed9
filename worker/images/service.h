#ifndef SHEAF_WORKER_IMAGES_SERVICE_H
#define SHEAF_WORKER_IMAGES_SERVICE_H

/* The podman program: as a service of its own, and for one command. Only podman.c calls these. */
#include "worker/images/podman.h"

#define SERVICE_LOG "service.log"

/* Starts it through sheaf-container, so that it is nobody's child. */
int service_start(const struct podman *podman, struct err *err) SHEAF_MUST_USE;
/* In sheaf-container: becomes the service. Returns on failure alone. */
int service_become(const char *folder);
void service_stop(const struct podman *podman);
int service_run(const struct podman *podman, const char *const *words,
                struct err *err) SHEAF_MUST_USE;

#endif
