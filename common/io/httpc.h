#ifndef SHEAF_COMMON_IO_HTTPC_H
#define SHEAF_COMMON_IO_HTTPC_H

/*
 * HTTPS client by libcurl for the CLI and for a worker's join: blocking, with a pinned CA. Never
 * follows redirects, never talks to anything but https (http only to loopback, for tests).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"

struct httpc {
    char url[256];     /* https://host:port, no path */
    char ca_file[512]; /* PEM; empty = the system's */
    char token[128];   /* bearer; empty = none. Never logged */
    bool verbose;
};

struct httpc_request {
    const char *method;
    const char *path; /* "/api/v1/jobs" */
    const char *content_type;
    const void *body;
    size_t body_size;
    const char *idempotency_key;
    const char *accept;
    const char *last_event_id;
    long timeout_ms; /* 0 = none, for streams */
    /*
     * Streams: called with body bytes as they come; false ends the transfer without an error. A
     * status other than 2xx is no stream: its body (a problem document) is in the response.
     */
    bool (*on_data)(const char *bytes, size_t size, void *arg);
    void *arg;
    volatile int *interrupted; /* set by a signal handler: ends with ERR_INTERRUPTED */
};

struct httpc_response {
    long status;
    char content_type[96];
    char etag[96];
    struct buf body; /* capped at 64 MiB; empty for a stream */
};

/*
 * 0 when a response came, whatever its status. ERR_UNREACHABLE, ERR_TLS_VERIFY, ERR_TIMEOUT,
 * ERR_INTERRUPTED. The response must be finished with httpc_response_fini in any case.
 */
int httpc_do(const struct httpc *client, const struct httpc_request *request,
             struct httpc_response *ret_response, struct err *err) SHEAF_MUST_USE;
void httpc_response_fini(struct httpc_response *response);

/*
 * Fetches /ca.pem without trust and keeps it only if the SHA-256 of its DER form is `fingerprint`
 * (64 hex digits). Writes it to path (0644). ERR_TLS_VERIFY.
 */
int httpc_pin_ca(const char *url, const char *fingerprint, const char *path,
                 struct err *err) SHEAF_MUST_USE;

#endif
