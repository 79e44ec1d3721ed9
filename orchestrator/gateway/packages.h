#ifndef SHEAF_ORCHESTRATOR_GATEWAY_PACKAGES_H
#define SHEAF_ORCHESTRATOR_GATEWAY_PACKAGES_H

/*
 * The worker's package that this gateway hands to machines that join, and the script that installs
 * it there. The folder is looked at anew for each request: a new package needs no restart.
 */
#include "common/io/fs.h"
#include "common/io/hash.h"
#include "orchestrator/gateway/gateway.h"

#define PACKAGES_NAME 128

struct package {
    char name[PACKAGES_NAME]; /* of the file */
    char version[PACKAGES_NAME];
    char sha256[SHA256_HEX];
};

/* folder NULL: ../share/sheaf/packages from our own program. */
struct packages *packages_new(const char *folder, struct err *err);
void packages_free(struct packages *packages);
/* The newest sheaf-worker_VERSION_amd64.deb. ERR_NOT_FOUND says where one is to be put. */
int packages_find(struct packages *packages, struct package *ret_package,
                  struct err *err) SHEAF_MUST_USE;
/*
 * The one line that makes a bare machine a worker; it trusts this server by its key. Empty without
 * a package.
 */
void packages_line(const struct gateway *gateway, const char *token, struct buf *out);

#endif
