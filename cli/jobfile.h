#ifndef SHEAF_CLI_JOBFILE_H
#define SHEAF_CLI_JOBFILE_H

/* A job file on disk to the JSON that the gateway takes: read, checked, its sources packed and
 * sent. */
#include <jansson.h>

#include "common/io/httpc.h"
#include "common/pure/err.h"

/*
 * Reads YAML or JSON (one parser: JSON is YAML) from path, "-" = stdin. Relative sources are taken
 * from the file's folder. Bare names in env get the value of the caller's environment. Errors name
 * file:line:column. ret_base (≥ 512) is that folder.
 */
int jobfile_read(const char *path, json_t **ret_spec, char *ret_base,
                 struct err *err) SHEAF_MUST_USE;
/*
 * Packs each `files` entry that has no sha256 yet and uploads what the server does not have. Adds
 * sha256 and size to the entries. Shows progress.
 */
int jobfile_upload(const struct httpc *client, json_t *spec, const char *base,
                   struct err *err) SHEAF_MUST_USE;
/* The commented file that `sheaf init` writes. */
const char *jobfile_template(void);

#endif
