#ifndef SHEAF_COMMON_IO_HASH_H
#define SHEAF_COMMON_IO_HASH_H

/* SHA-256 and HMAC by OpenSSL. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/err.h"

#define SHA256_SIZE 32
#define SHA256_HEX  65

void sha256(const void *bytes, size_t length, uint8_t out[SHA256_SIZE]);
void hmac_sha256(const void *key, size_t key_length, const void *bytes, size_t length,
                 uint8_t out[SHA256_SIZE]);
/* Constant time. */
bool bytes_equal(const void *a, const void *b, size_t length);

/* Incremental; NULL is accepted by _free. */
struct sha256_stream;
struct sha256_stream *sha256_stream_new(void);
void sha256_stream_add(struct sha256_stream *stream, const void *bytes, size_t length);
void sha256_stream_end(struct sha256_stream *stream, uint8_t out[SHA256_SIZE]);
void sha256_stream_free(struct sha256_stream *stream);
/* Hash and size of a file. ERR_IO. */
int sha256_file(const char *path, uint8_t ret_hash[SHA256_SIZE], uint64_t *ret_size,
                struct err *err) SHEAF_MUST_USE;

#endif
