#ifndef SHEAF_ORCHESTRATOR_GATEWAY_TLS_H
#define SHEAF_ORCHESTRATOR_GATEWAY_TLS_H

/*
 * Certificates: a local CA (P-256) made at first start in the state folder, and a server
 * certificate under it that is re-made when its names change or its end is near. Or the operator's
 * own files. Private keys are files of mode 0600 and leave the folder never.
 */
#include <openssl/ssl.h>
#include <stdint.h>

#include "common/io/hash.h"
#include "common/pure/err.h"

#define TLS_MAX_NAMES 32

struct tls_names {
    const char *name[TLS_MAX_NAMES]; /* host names or IP addresses; borrowed */
    uint32_t count;
};

/*
 * Makes or loads STATE/ca.pem, ca.key, server.pem, server.key. ret_ca_path has 512 bytes;
 * ret_fingerprint is the SHA-256 of the CA's DER form. ERR_IO, ERR_STATE_CORRUPT.
 */
int tls_local(const char *state, const struct tls_names *names, SSL_CTX **ret_context,
              char ret_ca_path[512], uint8_t ret_fingerprint[SHA256_SIZE],
              struct err *err) SHEAF_MUST_USE;
/*
 * The operator's certificate chain and key. Fingerprint and PEM form (the caller frees) are those
 * of the chain's last: what clients and workers pin.
 */
int tls_own(const char *cert, const char *key, SSL_CTX **ret_context, char **ret_pem,
            uint8_t ret_fingerprint[SHA256_SIZE], struct err *err) SHEAF_MUST_USE;

/* SHA-256 of the server's public key as curl(1) --pinnedpubkey takes it: "sha256//BASE64". */
void tls_pin(const SSL_CTX *context, char ret_pin[64]);

#endif
