#ifndef SHEAF_COMMON_IO_BASE64_H
#define SHEAF_COMMON_IO_BASE64_H

/* Base64 (RFC 4648) by OpenSSL, strict: nothing but the alphabet, no white space. */
#include <stddef.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"

enum base64_kind {
    BASE64_STANDARD, /* + / with padding (§4) */
    BASE64_URL,      /* - _ without padding (§5) */
};

/* Appends the text. */
void base64_encode(enum base64_kind kind, const void *bytes, size_t length, struct buf *out);
/* Appends the bytes. ERR_INVALID_ENCODING; then out is as before. */
int base64_decode(enum base64_kind kind, const char *text, size_t length,
                  struct buf *out) SHEAF_MUST_USE;

#endif
