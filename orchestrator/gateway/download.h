#ifndef SHEAF_ORCHESTRATOR_GATEWAY_DOWNLOAD_H
#define SHEAF_ORCHESTRATOR_GATEWAY_DOWNLOAD_H

/* A file as an answer: whole, or the range that the client asks for, as fast as the client takes
 * it. */
#include "orchestrator/gateway/http.h"

struct download_file {
    int fd; /* closed with the call */
    uint64_t size;
    const char *type;   /* media type */
    const char *sha256; /* 64 hex digits: the ETag */
};

/* Answers the call. */
void download_send(struct http_call *call, const struct download_file *file);

#endif
