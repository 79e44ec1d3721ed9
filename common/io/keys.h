#ifndef SHEAF_COMMON_IO_KEYS_H
#define SHEAF_COMMON_IO_KEYS_H

/* Key pairs: Curve25519 for transport (ZeroMQ CURVE), Ed25519 for signatures (OpenSSL). */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/err.h"

#define KEY_SIZE       32
#define SIGNATURE_SIZE 64

struct curve_pair {
    uint8_t public_key[KEY_SIZE];
    uint8_t secret_key[KEY_SIZE];
};

struct sign_pair {
    uint8_t public_key[KEY_SIZE];
    uint8_t secret_key[KEY_SIZE]; /* the 32-byte seed */
};

void curve_pair_make(struct curve_pair *ret_pair);
void sign_pair_make(struct sign_pair *ret_pair);

/* Domain separation: the signature is over `domain`, a 0 byte, then the bytes. */
#define SIGN_DOMAIN_ORDER   "sheaf order 1"
#define SIGN_DOMAIN_RECEIPT "sheaf receipt 1"
#define SIGN_DOMAIN_ENROL   "sheaf enrol 1"

void sign_bytes(const struct sign_pair *pair, const char *domain, const void *bytes, size_t length,
                uint8_t out[SIGNATURE_SIZE]);
bool sign_verify(const uint8_t public_key[KEY_SIZE], const char *domain, const void *bytes,
                 size_t length, const uint8_t signature[SIGNATURE_SIZE]);

/*
 * Both pairs in one file of hex lines, mode 0600. _load refuses a file that others can read
 * (ERR_STATE_CORRUPT with the chmod to run). _load_or_make makes it when it is absent.
 */
struct identity {
    struct curve_pair curve;
    struct sign_pair sign;
};
int identity_load(const char *path, struct identity *ret_identity, struct err *err) SHEAF_MUST_USE;
int identity_load_or_make(const char *path, struct identity *ret_identity,
                          struct err *err) SHEAF_MUST_USE;

#endif
