#ifndef SHEAF_ORCHESTRATOR_GATEWAY_PROBLEM_H
#define SHEAF_ORCHESTRATOR_GATEWAY_PROBLEM_H

/* Problem documents (RFC 9457) from the one table of reasons. Pure: text in, text out. */
#include "common/pure/err.h"
#include "common/pure/id.h"

#define PROBLEM_TYPE "application/problem+json"
/* `type` is a reference to the explanation that the same gateway serves (RFC 9457 §3.1.1). */
#define PROBLEM_BASE "/errors/"

/* HTTP status of a refusal; 500 for codes that are no HTTP refusal. */
int problem_status(enum err_code code);
/* The document; `request` is the instance. Foreign texts in err are escaped. Caller frees. */
char *problem_format(const struct err *err, const struct uuid *request);
/* What a code means, as plain text for people. Caller frees. */
char *problem_explain(enum err_code code);

#endif
