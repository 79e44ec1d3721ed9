/* An enrolled worker speaks to the gateway; an odd size: the database knows what it names. */
#include "orchestrator/gateway/bulk_private.h"
#include "orchestrator/gateway/follow.h"
#include "orchestrator/gateway/gateway.h"
#include "tests/fuzz/database.h"
#include "tests/fuzz/fuzz.h"
#include <zmq.h>

#define SENDER "0101010101010101010101010101010101010101010101010101010101010101"

static void set_up(struct gateway *gateway, uint8_t key[KEY_SIZE])
{
    char folder[FS_PATH];

    memset(key, 1, KEY_SIZE);
    fuzz_path(folder, "store");
    gateway->base = loop_new();
    gateway->zmq = zmq_ctx_new();
    curve_pair_make(&gateway->bulk_pair);
    BUG_ON(content_new(folder, &gateway->content, NULL) != 0);
    gateway->follow = follow_new(gateway);
    BUG_ON(bulk_new(gateway, "inproc://bulk", NULL, &gateway->bulk, NULL) != 0);
    map_put(&gateway->bulk->keys, key, KEY_SIZE, gateway);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct gateway gateway;
    static uint8_t key[KEY_SIZE];
    struct zmsg raw = {.frame = {key}, .size = {5}, .count = 2, .user_id = SENDER, .peer = ""};

    if (gateway.bulk == NULL)
        set_up(&gateway, key);
    bool found = size % 2 != 0;
    while (fuzz_record(&bytes, &size, &raw.frame[1], &raw.size[1])) {
        bulk_on_message(NULL, &raw, gateway.bulk);
        database_answer(found);
    }
    return 0;
}
