#ifndef SHEAF_ORCHESTRATOR_GATEWAY_DESCRIBE_H
#define SHEAF_ORCHESTRATOR_GATEWAY_DESCRIBE_H

/*
 * The API's description (OpenAPI 3.1), served as JSON: proto/gateway.yaml, linked in, with the
 * codes of err_table.h, and each operation's refusals, x-scope and x-owner by the route table put
 * in.
 */
#include "common/pure/err.h"

/* Compact JSON; the caller frees. */
int describe_json(char **ret_text, struct err *err) SHEAF_MUST_USE;

#endif
