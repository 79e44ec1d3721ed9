#ifndef SHEAF_ORCHESTRATOR_FLEET_LINK_FILE_H
#define SHEAF_ORCHESTRATOR_FLEET_LINK_FILE_H

/*
 * The gateway link file: all that a gateway needs to work for this orchestrator. Its key pair and
 * token are made once and kept over restarts, so that a running gateway stays welcome; addresses
 * and connection string are written anew at each start.
 */
#include <sys/types.h>

#include "common/io/jointoken.h"
#include "common/io/keys.h"
#include "common/pure/err.h"

struct link_file {
    struct curve_pair curve; /* the gateway's own */
    char token[SECRET_TEXT]; /* "shg_…", role gateway */
};

/* Keeps what an existing file holds; makes both when there is none. ERR_STATE_CORRUPT, ERR_IO. */
int link_file_load_or_make(const char *path, struct link_file *ret_link,
                           struct err *err) SHEAF_MUST_USE;

struct link_facts {
    const char *orchestrator; /* tcp://… of the command socket */
    const char *hints;
    const uint8_t *server_key; /* CURVE, 32 bytes */
    const uint8_t *sign_key;   /* Ed25519, 32 bytes */
    const char *database;      /* connection string of role sheaf_gateway */
    mode_t mode;               /* of the file */
};
/* YAML. */
int link_file_write(const char *path, const struct link_file *link, const struct link_facts *facts,
                    struct err *err) SHEAF_MUST_USE;

#endif
