#include "common/io/jointoken.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/base64.h"
#include "common/io/clock.h"
#include "common/io/json.h"
#include "common/pure/id.h"

#define PREFIX        "sheaf-join-1."
#define SECRET_PREFIX "shj_"
#define SECRET_SIZE   32

void join_token_format(const struct join_token *token, char out[JOIN_TOKEN_TEXT])
{
    json_t *object = json_object();
    struct buf text;

    BUG_ON(object == NULL);
    json_object_set_new(object, "url", json_string(token->url));
    json_object_set_new(object, "ca", json_hex(token->ca_sha256, SHA256_SIZE));
    json_object_set_new(object, "key", json_hex(token->server_key, 32));
    json_object_set_new(object, "sign", json_hex(token->sign_key, 32));
    json_object_set_new(object, "secret", json_string(token->secret));
    json_object_set_new(object, "expires_us", json_integer(token->expires_us));
    char *json = json_write(object);
    buf_init(&text, JOIN_TOKEN_TEXT - 1);
    buf_puts(&text, PREFIX);
    base64_encode(BASE64_URL, json, strlen(json), &text);
    /* The longest URL of plain characters fits; another one the gateway must not have taken. */
    BUG_ON(text.full);
    memcpy(out, text.data, text.length + 1);
    OPENSSL_cleanse(json, strlen(json));
    free(json);
    json_decref(object);
    buf_fini(&text);
}

static int take_text(const json_t *object, const char *key, size_t limit, char *out,
                     struct err *err)
{
    const char *text = json_text(object, key);

    if (text == NULL || strlen(text) >= limit)
        return err_set_at(err, ERR_USAGE, key, "the join token's %s is missing or too long", key);
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int take_key(const json_t *object, const char *key, uint8_t out[32], struct err *err)
{
    const char *text = json_text(object, key);

    if (text == NULL || hex_parse(text, 32, out) != 0)
        return err_set_at(err, ERR_USAGE, key, "the join token's %s is not 64 hex digits", key);
    return 0;
}

/* What a URL needs to be put into requests and log lines without more care. */
static bool is_plain_url(const char *url)
{
    if (strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0)
        return false;
    for (const char *at = url; *at != '\0'; at++) {
        if (*at <= ' ' || *at >= 0x7f || *at == '"' || *at == '\\' || *at == '@')
            return false;
    }
    return true;
}

static int from_json(const json_t *object, struct join_token *ret_token, struct err *err)
{
    struct join_token token = {0};
    const json_t *expires = json_object_get(object, "expires_us");
    int rc = take_text(object, "url", sizeof(token.url), token.url, err);

    if (rc == 0)
        rc = take_key(object, "ca", token.ca_sha256, err);
    if (rc == 0)
        rc = take_key(object, "key", token.server_key, err);
    if (rc == 0)
        rc = take_key(object, "sign", token.sign_key, err);
    if (rc == 0)
        rc = take_text(object, "secret", sizeof(token.secret), token.secret, err);
    if (rc != 0)
        return rc;
    if (!is_plain_url(token.url))
        return err_set_at(err, ERR_USAGE, "url", "the join token's url is not an https URL");
    if (strncmp(token.secret, SECRET_PREFIX, strlen(SECRET_PREFIX)) != 0)
        return err_set_at(err, ERR_USAGE, "secret", "the join token holds no join secret");
    if (!json_is_integer(expires) || json_integer_value(expires) <= 0)
        return err_set_at(err, ERR_USAGE, "expires_us", "the join token has no expiry");
    token.expires_us = json_integer_value(expires);
    *ret_token = token;
    return 0;
}

int join_token_parse(const char *text, struct join_token *ret_token, struct err *err)
{
    size_t length = strnlen(text, JOIN_TOKEN_TEXT);
    struct err why;
    struct buf json;
    json_t *object = NULL;
    int rc;

    if (strncmp(text, PREFIX, strlen(PREFIX)) != 0)
        return err_set(err, ERR_USAGE, "not a join token: it starts with %s", PREFIX);
    if (length == JOIN_TOKEN_TEXT)
        return err_set(err, ERR_USAGE, "not a join token: longer than %d characters",
                       JOIN_TOKEN_TEXT - 1);
    buf_init(&json, 0);
    rc = base64_decode(BASE64_URL, text + strlen(PREFIX), length - strlen(PREFIX), &json);
    if (rc != 0)
        rc = err_set(err, ERR_USAGE, "the join token is damaged: copy it whole, without spaces");
    if (rc == 0) {
        rc = json_read(json.data, json.length, &object, &why);
        if (rc != 0 || !json_is_object(object))
            rc = err_set(err, ERR_USAGE, "the join token is damaged: copy it whole");
    }
    if (rc == 0)
        rc = from_json(object, ret_token, err);
    json_decref(object);
    if (json.data != NULL)
        OPENSSL_cleanse(json.data, json.length);
    buf_fini(&json);
    return rc;
}

void secret_make(const char *prefix, char out[SECRET_TEXT])
{
    uint8_t random[SECRET_SIZE];
    struct buf text;

    random_bytes(random, sizeof(random));
    buf_init(&text, SECRET_TEXT - 1);
    buf_puts(&text, prefix);
    base64_encode(BASE64_URL, random, sizeof(random), &text);
    BUG_ON(text.full);
    memcpy(out, text.data, text.length + 1);
    OPENSSL_cleanse(random, sizeof(random));
    OPENSSL_cleanse(text.data, text.length);
    buf_fini(&text);
}
