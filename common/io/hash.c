#include "common/io/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/pure/mem.h"

struct sha256_stream {
    EVP_MD_CTX *context;
};

void sha256(const void *bytes, size_t length, uint8_t out[SHA256_SIZE])
{
    BUG_ON(EVP_Digest(bytes, length, out, NULL, EVP_sha256(), NULL) != 1);
}

void hmac_sha256(const void *key, size_t key_length, const void *bytes, size_t length,
                 uint8_t out[SHA256_SIZE])
{
    BUG_ON(key_length > INT32_MAX);
    BUG_ON(HMAC(EVP_sha256(), key, (int)key_length, bytes, length, out, NULL) == NULL);
}

bool bytes_equal(const void *a, const void *b, size_t length)
{
    return CRYPTO_memcmp(a, b, length) == 0;
}

struct sha256_stream *sha256_stream_new(void)
{
    struct sha256_stream *stream = mem_new(1, sizeof(*stream));

    stream->context = EVP_MD_CTX_new();
    BUG_ON(stream->context == NULL);
    BUG_ON(EVP_DigestInit_ex(stream->context, EVP_sha256(), NULL) != 1);
    return stream;
}

void sha256_stream_add(struct sha256_stream *stream, const void *bytes, size_t length)
{
    BUG_ON(EVP_DigestUpdate(stream->context, bytes, length) != 1);
}

void sha256_stream_end(struct sha256_stream *stream, uint8_t out[SHA256_SIZE])
{
    BUG_ON(EVP_DigestFinal_ex(stream->context, out, NULL) != 1);
}

void sha256_stream_free(struct sha256_stream *stream)
{
    if (stream == NULL)
        return;
    EVP_MD_CTX_free(stream->context);
    free(stream);
}

int sha256_file(const char *path, uint8_t ret_hash[SHA256_SIZE], uint64_t *ret_size,
                struct err *err)
{
    enum { CHUNK = 65536 };
    uint64_t size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_set(err, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    struct sha256_stream *stream = sha256_stream_new();
    uint8_t *chunk = mem_new(CHUNK, 1);
    ssize_t got;
    int saved = 0;
    for (;;) {
        got = read(fd, chunk, CHUNK);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        sha256_stream_add(stream, chunk, (size_t)got);
        size += (uint64_t)got;
    }
    saved = errno;
    if (got == 0) {
        sha256_stream_end(stream, ret_hash);
        *ret_size = size;
    }
    free(chunk);
    sha256_stream_free(stream);
    close(fd);
    if (got < 0)
        return err_set(err, ERR_IO, "cannot read %s: %s", path, strerror(saved));
    return 0;
}
