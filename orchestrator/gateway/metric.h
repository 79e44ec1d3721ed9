#ifndef SHEAF_ORCHESTRATOR_GATEWAY_METRIC_H
#define SHEAF_ORCHESTRATOR_GATEWAY_METRIC_H

/* Prometheus text exposition (format 0.0.4). Pure. */
#include <stdint.h>

#include "common/pure/buf.h"

#define METRIC_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* HELP and TYPE lines; type is "counter" or "gauge". */
void metric_head(struct buf *out, const char *name, const char *type, const char *help);
/* One sample; label may be NULL. The label's value is escaped. */
void metric_value(struct buf *out, const char *name, const char *label, const char *value,
                  uint64_t number);
/* Text as HTML: & < > " ' are escaped. */
void html_text(struct buf *out, const char *text);

#endif
