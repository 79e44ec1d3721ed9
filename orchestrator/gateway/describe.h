#ifndef SHEAF_ORCHESTRATOR_GATEWAY_DESCRIBE_H
#define SHEAF_ORCHESTRATOR_GATEWAY_DESCRIBE_H

/*
 * The API's description (OpenAPI 3.1): proto/gateway.yaml, linked in, served as JSON. Each
 * operation is told its x-scope and x-owner by the route table.
 */
#include "common/pure/err.h"

/* Compact JSON; the caller frees. */
int describe_json(char **ret_text, struct err *err) SHEAF_MUST_USE;

#endif
