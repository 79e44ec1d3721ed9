#ifndef SHEAF_COMMON_IO_JOINTOKEN_H
#define SHEAF_COMMON_IO_JOINTOKEN_H

/*
 * The join line's token: "sheaf-join-1." + base64url of a small JSON object. It carries all that a
 * new machine needs to trust the right server, and a one-use secret.
 */
#include <stdint.h>

#include "common/io/hash.h"
#include "common/pure/err.h"

#define JOIN_TOKEN_TEXT 1024
#define SECRET_TEXT     64 /* prefix, 43 characters of base64url, terminator */

struct join_token {
    char url[256];                  /* of the gateway */
    uint8_t ca_sha256[SHA256_SIZE]; /* of the CA certificate's DER */
    uint8_t server_key[32];         /* the orchestrator's CURVE key */
    uint8_t sign_key[32];           /* the orchestrator's Ed25519 key */
    char secret[SECRET_TEXT];
    int64_t expires_us;
};

void join_token_format(const struct join_token *token, char out[JOIN_TOKEN_TEXT]);
/* ERR_USAGE with what is wrong. Expiry is the caller's to check. */
int join_token_parse(const char *text, struct join_token *ret_token,
                     struct err *err) SHEAF_MUST_USE;

/* A bearer secret: prefix ("sht_", "shj_") + base64url of 32 random bytes. */
void secret_make(const char *prefix, char out[SECRET_TEXT]);

#endif
