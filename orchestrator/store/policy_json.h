#ifndef SHEAF_ORCHESTRATOR_STORE_POLICY_JSON_H
#define SHEAF_ORCHESTRATOR_STORE_POLICY_JSON_H

/* struct policy ↔ column policy.settings: an object with a member per field, integers but for
 * asset. */
#include <jansson.h>

#include "orchestrator/core/world.h"

json_t *policy_to_json(const struct policy *policy);
/*
 * A member that is absent keeps its default, an unknown one is refused, then policy_check().
 * version is the text of the column.
 */
int policy_from_json(const json_t *value, const char *version, struct policy *ret_policy,
                     struct err *err) SHEAF_MUST_USE;

#endif
