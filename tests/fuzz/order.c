/* A worker's reading of an order that carries a good signature over arbitrary bytes. */
#include "worker/core/order.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct sign_pair pair;
    static struct order_trust trust;
    uint8_t signature[SIGNATURE_SIZE];
    Sheaf__SignedOrder wire = SHEAF__SIGNED_ORDER__INIT;
    Sheaf__Order *order = NULL;
    struct frame_arena arena;
    struct err err = {0};

    if (trust.worker_key[0] == 0) {
        sign_pair_make(&pair);
        memcpy(trust.sign_key, pair.public_key, KEY_SIZE);
        memset(trust.worker_key, 7, KEY_SIZE);
    }
    sign_bytes(&pair, SIGN_DOMAIN_ORDER, bytes, size, signature);
    wire.order.data = mem_new(size, 1);
    memcpy(wire.order.data, bytes, size);
    wire.order.len = size;
    wire.signature.data = signature;
    wire.signature.len = SIGNATURE_SIZE;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    if (order_open(&trust, &wire, 1000000, &arena, &order, &err) == 0)
        BUG_ON(strlen(order_name(order)) == 0 || order->worker_key.len != KEY_SIZE);
    signature[size % SIGNATURE_SIZE] ^= 1;
    BUG_ON(order_open(&trust, &wire, 1000000, &arena, &order, &err) != -ERR_WIRE_SIGNATURE);
    frame_arena_fini(&arena);
    free(wire.order.data);
    return 0;
}
