/* Short texts that people paste: join token, ids, money, quantities. */
#include "common/io/jointoken.h"
#include "common/pure/id.h"
#include "common/pure/money.h"
#include "common/pure/units.h"
#include "tests/fuzz/fuzz.h"

static void check_token(const char *text)
{
    struct join_token token;
    struct join_token again;
    struct err err = {0};
    char out[JOIN_TOKEN_TEXT];

    if (join_token_parse(text, &token, &err) != 0)
        return;
    join_token_format(&token, out);
    BUG_ON(join_token_parse(out, &again, &err) != 0);
    BUG_ON(strcmp(token.url, again.url) != 0 || strcmp(token.secret, again.secret) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char *text = mem_dup(bytes, size);
    char money[MONEY_TEXT];
    uint64_t number;
    micro_t amount;
    micro_t again;
    struct uuid id;

    check_token(text);
    if (money_parse(text, &amount) == 0)
        BUG_ON(money_parse(money_format(amount, money), &again) != 0 || again != amount);
    if (uuid_parse(text, &id) == 0)
        BUG_ON(strlen(text) != UUID_TEXT - 1);
    (void)!units_parse_bytes(text, &number);
    (void)!units_parse_duration(text, &number);
    free(text);
    return 0;
}
