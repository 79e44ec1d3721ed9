#include "common/io/keys.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/fs.h"
#include "common/pure/buf.h"
#include "common/pure/id.h"

#define Z85_TEXT      41
#define IDENTITY_TEXT 1024
#define KEY_HEX       ((size_t)2 * KEY_SIZE)

static void curve_public(const uint8_t secret[KEY_SIZE], uint8_t out[KEY_SIZE])
{
    char secret_text[Z85_TEXT];
    char public_text[Z85_TEXT];

    BUG_ON(zmq_z85_encode(secret_text, secret, KEY_SIZE) == NULL);
    BUG_ON(zmq_curve_public(public_text, secret_text) != 0);
    BUG_ON(zmq_z85_decode(out, public_text) == NULL);
    OPENSSL_cleanse(secret_text, sizeof(secret_text));
}

void curve_pair_make(struct curve_pair *ret_pair)
{
    char public_text[Z85_TEXT];
    char secret_text[Z85_TEXT];

    BUG_ON(zmq_curve_keypair(public_text, secret_text) != 0);
    BUG_ON(zmq_z85_decode(ret_pair->public_key, public_text) == NULL);
    BUG_ON(zmq_z85_decode(ret_pair->secret_key, secret_text) == NULL);
    OPENSSL_cleanse(secret_text, sizeof(secret_text));
}

/* libsodium takes half of OpenSSL's time to verify and a quarter to sign; every order is both. */
_Static_assert(KEY_SIZE == crypto_sign_SEEDBYTES, "size of a seed");
_Static_assert(KEY_SIZE == crypto_sign_PUBLICKEYBYTES, "size of a public key");
_Static_assert(SIGNATURE_SIZE == crypto_sign_BYTES, "size of a signature");

static void sign_public(const uint8_t secret[KEY_SIZE], uint8_t out[KEY_SIZE])
{
    uint8_t both[crypto_sign_SECRETKEYBYTES];

    BUG_ON(sodium_init() < 0 || crypto_sign_seed_keypair(out, both, secret) != 0);
    OPENSSL_cleanse(both, sizeof(both));
}

void sign_pair_make(struct sign_pair *ret_pair)
{
    random_bytes(ret_pair->secret_key, KEY_SIZE);
    sign_public(ret_pair->secret_key, ret_pair->public_key);
}

/* Ed25519 hashes the message twice, so it is taken in one piece only. */
static void join(struct buf *out, const char *domain, const void *bytes, size_t length)
{
    buf_init(out, 0);
    buf_append(out, domain, strlen(domain) + 1);
    buf_append(out, bytes, length);
    BUG_ON(out->full);
}

void sign_bytes(const struct sign_pair *pair, const char *domain, const void *bytes, size_t length,
                uint8_t out[SIGNATURE_SIZE])
{
    uint8_t both[crypto_sign_SECRETKEYBYTES]; /* its form of a secret key: seed, public key */
    struct buf text;

    memcpy(both, pair->secret_key, KEY_SIZE);
    memcpy(both + KEY_SIZE, pair->public_key, KEY_SIZE);
    join(&text, domain, bytes, length);
    BUG_ON(sodium_init() < 0
           || crypto_sign_detached(out, NULL, (const uint8_t *)text.data, text.length, both) != 0);
    OPENSSL_cleanse(both, sizeof(both));
    buf_fini(&text);
}

bool sign_verify(const uint8_t public_key[KEY_SIZE], const char *domain, const void *bytes,
                 size_t length, const uint8_t signature[SIGNATURE_SIZE])
{
    struct buf text;

    join(&text, domain, bytes, length);
    BUG_ON(sodium_init() < 0);
    bool valid =
        crypto_sign_verify_detached(signature, (const uint8_t *)text.data, text.length, public_key)
        == 0;
    buf_fini(&text);
    return valid;
}

struct identity_line {
    const char *name;
    size_t offset; /* of the key in struct identity */
};

static const struct identity_line identity_lines[] = {
    {"curve_public: ", offsetof(struct identity, curve.public_key)},
    {"curve_secret: ", offsetof(struct identity, curve.secret_key)},
    {"sign_public: ", offsetof(struct identity, sign.public_key)},
    {"sign_secret: ", offsetof(struct identity, sign.secret_key)},
};

#define IDENTITY_LINES (sizeof(identity_lines) / sizeof(identity_lines[0]))

/* Exactly the text that identity_write makes. */
static int identity_parse(const char *text, struct identity *ret_identity)
{
    struct identity identity;
    uint8_t expected[KEY_SIZE];

    for (size_t i = 0; i < IDENTITY_LINES; i++) {
        size_t name_length = strlen(identity_lines[i].name);
        char hex[KEY_HEX + 1];
        if (strncmp(text, identity_lines[i].name, name_length) != 0)
            return -ERR_STATE_CORRUPT;
        text += name_length;
        if (strnlen(text, KEY_HEX + 1) <= KEY_HEX || text[KEY_HEX] != '\n')
            return -ERR_STATE_CORRUPT;
        memcpy(hex, text, KEY_HEX);
        hex[KEY_HEX] = '\0';
        if (hex_parse(hex, KEY_SIZE, (uint8_t *)&identity + identity_lines[i].offset) != 0)
            return -ERR_STATE_CORRUPT;
        OPENSSL_cleanse(hex, sizeof(hex));
        text += KEY_HEX + 1;
    }
    if (*text != '\0')
        return -ERR_STATE_CORRUPT;
    /* A flipped bit must not make another identity silently. */
    curve_public(identity.curve.secret_key, expected);
    if (memcmp(expected, identity.curve.public_key, KEY_SIZE) != 0)
        return -ERR_STATE_CORRUPT;
    sign_public(identity.sign.secret_key, expected);
    if (memcmp(expected, identity.sign.public_key, KEY_SIZE) != 0)
        return -ERR_STATE_CORRUPT;
    *ret_identity = identity;
    OPENSSL_cleanse(&identity, sizeof(identity));
    return 0;
}

int identity_load(const char *path, struct identity *ret_identity, struct err *err)
{
    struct buf text;

    buf_init(&text, IDENTITY_TEXT);
    int rc = fs_read_secret(path, IDENTITY_TEXT, FS_OWNER_ALONE, &text, err);
    if (rc == 0) {
        rc = text.length == strlen(text.data) ? identity_parse(text.data, ret_identity)
                                              : -ERR_STATE_CORRUPT;
        if (rc != 0)
            err_set(err, ERR_STATE_CORRUPT, "%s holds no valid keys: restore it from a backup",
                    path);
    }
    if (text.data != NULL)
        OPENSSL_cleanse(text.data, text.length);
    buf_fini(&text);
    return rc;
}

int identity_load_or_make(const char *path, struct identity *ret_identity, struct err *err)
{
    struct identity identity;
    struct buf text;

    if (access(path, F_OK) == 0 || errno != ENOENT)
        return identity_load(path, ret_identity, err);
    curve_pair_make(&identity.curve);
    sign_pair_make(&identity.sign);
    buf_init(&text, IDENTITY_TEXT);
    for (size_t i = 0; i < IDENTITY_LINES; i++) {
        char hex[KEY_HEX + 1];
        buf_printf(&text, "%s%s\n", identity_lines[i].name,
                   hex_format((uint8_t *)&identity + identity_lines[i].offset, KEY_SIZE, hex));
        OPENSSL_cleanse(hex, sizeof(hex));
    }
    int rc = fs_write(path, text.data, text.length, 0600, err);
    if (rc == 0)
        *ret_identity = identity;
    OPENSSL_cleanse(text.data, text.length);
    OPENSSL_cleanse(&identity, sizeof(identity));
    buf_fini(&text);
    return rc;
}
