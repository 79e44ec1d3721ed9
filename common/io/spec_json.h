#ifndef SHEAF_COMMON_IO_SPEC_JSON_H
#define SHEAF_COMMON_IO_SPEC_JSON_H

/* The job file: JSON value ↔ struct job_spec. The one place that knows its field names. */
#include "common/io/json.h"
#include "common/pure/spec.h"

/*
 * Checks fields, types, units and bounds, then spec_check(). err->pointer is the JSON pointer at
 * fault; an unknown key names the nearest known one. On failure ret_spec is untouched.
 */
int spec_from_json(const json_t *value, struct job_spec *ret_spec, struct err *err) SHEAF_MUST_USE;
/* Text form: json_read + spec_from_json. */
int spec_parse(const void *bytes, size_t length, struct job_spec *ret_spec,
               struct err *err) SHEAF_MUST_USE;
/* Every field, defaults written out. */
json_t *spec_to_json(const struct job_spec *spec);
/* One line per field with its type, default and meaning: for `sheaf init`, man page and docs. */
const char *spec_reference(void);

#endif
