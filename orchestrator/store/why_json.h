#ifndef SHEAF_ORCHESTRATOR_STORE_WHY_JSON_H
#define SHEAF_ORCHESTRATOR_STORE_WHY_JSON_H

/* struct why → JSON: column job.why, and the body of plan replies. The schema `Why` of the API. */
#include <jansson.h>

#include "orchestrator/core/place.h"

/*
 * {"placed", "code", "detail", "funnel": [{"step", "nodes"}], "largest_clique", "asked",
 *  "diameter_us", "price", "relax": [{"code", "field", "value", "diameter_us", "price"}],
 *  "reject": [{"node", "region", "code", "detail"}], "nodes": [name], "pairs":
 * [{"a","b","rtt_us"}]} Prices are decimal strings per hour. Caller owns the reference.
 */
json_t *why_to_json(const struct why *why);
/* What why_to_json wrote; lists are cut to their arrays, a missing member is 0. */
void why_from_json(const json_t *object, struct why *ret_why);

#endif
