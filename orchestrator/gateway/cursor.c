#include "orchestrator/gateway/cursor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/io/hash.h"
#include "common/pure/buf.h"
#include "common/pure/id.h"
#include "orchestrator/gateway/number.h"

#define DIGITS   16u /* of the key */
#define MAC_SIZE 16u

char *cursor_format(const uint8_t secret[CURSOR_KEY], const void *list, size_t size, uint64_t key,
                    char out[CURSOR_TEXT])
{
    uint8_t mac[SHA256_SIZE];
    struct buf bytes;

    snprintf(out, CURSOR_TEXT, "c%016" PRIx64, key);
    buf_init(&bytes, 0);
    buf_append(&bytes, out, 1 + DIGITS);
    buf_append(&bytes, list, size);
    hmac_sha256(secret, CURSOR_KEY, bytes.data, bytes.length, mac);
    buf_fini(&bytes);
    (void)hex_format(mac, MAC_SIZE, out + 1 + DIGITS);
    return out;
}

bool cursor_parse(const uint8_t secret[CURSOR_KEY], const void *list, size_t size, const char *text,
                  uint64_t *ret_key)
{
    char digits[DIGITS + 1];
    char right[CURSOR_TEXT];
    uint64_t key;

    if (strlen(text) != CURSOR_TEXT - 1 || text[0] != 'c')
        return false;
    memcpy(digits, text + 1, DIGITS);
    digits[DIGITS] = '\0';
    const char *at = digits;
    if (!number_take(&at, 16, DIGITS, &key) || *at != '\0' || key > INT64_MAX)
        return false;
    (void)cursor_format(secret, list, size, key, right);
    if (!bytes_equal(text, right, CURSOR_TEXT - 1))
        return false;
    *ret_key = key;
    return true;
}
