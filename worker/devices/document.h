#ifndef SHEAF_WORKER_DEVICES_DOCUMENT_H
#define SHEAF_WORKER_DEVICES_DOCUMENT_H

/*
 * The JSON documents between daemon and child, both directions of each. Readers check every field:
 * the child's text went through a driver. 64-bit numbers travel as 16 hex digits, since JSON
 * integers are signed here.
 */
#include <jansson.h>

#include "common/pure/err.h"
#include "worker/devices/devices.h"

/* One document is never larger: 16 devices of at most 1 KiB, and the samples. */
#define DOCUMENT_MAX_BYTES ((size_t)64 << 10)
#define DOCUMENT_MAX_PIDS  4096u

json_t *document_from_host(const struct host_info *host);
/* ERR_INVALID_TYPE or ERR_OUT_OF_RANGE with the pointer at fault; texts are cut to their arrays. */
int document_to_host(const json_t *document, struct host_info *ret_host,
                     struct err *err) SHEAF_MUST_USE;

/* The child's request: which device, by uuid, and the seed. */
json_t *document_from_ask(const struct device_info *device, uint64_t seed);
int document_to_ask(const json_t *document, struct device_info *ret_device, uint64_t *ret_seed,
                    struct err *err) SHEAF_MUST_USE;
json_t *document_from_selftest(const struct selftest_result *result);
int document_to_selftest(const json_t *document, struct selftest_result *ret_result,
                         struct err *err) SHEAF_MUST_USE;

json_t *document_from_pids(const int *pids, uint32_t count);
/* ret_pids has room for DOCUMENT_MAX_PIDS. */
int document_to_pids(const json_t *document, int *ret_pids, uint32_t *ret_count,
                     struct err *err) SHEAF_MUST_USE;
json_t *document_from_usage(const struct device_usage *usage, uint32_t count);
/* ret_usage has room for DEVICES_MAX. */
int document_to_usage(const json_t *document, struct device_usage *ret_usage, uint32_t *ret_count,
                      struct err *err) SHEAF_MUST_USE;

#endif
