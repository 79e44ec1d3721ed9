#ifndef SHEAF_ORCHESTRATOR_FLEET_ENDPOINT_H
#define SHEAF_ORCHESTRATOR_FLEET_ENDPOINT_H

/* What others dial: bound ZeroMQ endpoints with the wildcard replaced, and lists of endpoints. */
#include <stddef.h>
#include <stdint.h>

#include "common/pure/err.h"

#define ENDPOINT_TEXT 128

/*
 * tcp://0.0.0.0:7601 → the first address of this host that is not loopback (loopback when there is
 * no other); anything else is copied.
 */
void endpoint_public(const char *bound, char out[ENDPOINT_TEXT]);
/* Comma separated tcp://HOST:PORT. ERR_CONFIG_INVALID names the key and the entry. */
int endpoint_list(const char *key, const char *list, char (*ret_items)[ENDPOINT_TEXT], size_t max,
                  uint32_t *ret_count, struct err *err) SHEAF_MUST_USE;

#endif
