/* A receipt with a good signature over arbitrary bytes, up to the event it becomes. */
#include "common/io/keys.h"
#include "orchestrator/fleet/from_worker.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct sign_pair pair;
    static const struct uuid uid = {"0123456789abcde"};
    struct worker_frame frame = {1, &uid, pair.public_key, 1, bytes, size};
    uint8_t signature[SIGNATURE_SIZE];
    Sheaf__SignedReceipt receipt = SHEAF__SIGNED_RECEIPT__INIT;
    struct event_box *box = NULL;
    struct err err = {0};

    if (pair.public_key[0] == 0 && pair.public_key[1] == 0)
        sign_pair_make(&pair);
    sign_bytes(&pair, SIGN_DOMAIN_RECEIPT, bytes, size, signature);
    receipt.receipt.data = mem_new(size, 1);
    memcpy(receipt.receipt.data, bytes, size);
    receipt.receipt.len = size;
    receipt.signature.data = signature;
    receipt.signature.len = SIGNATURE_SIZE;
    if (from_worker_receipt(&frame, &receipt, &box, &err) == 0)
        event_box_free(box);
    free(receipt.receipt.data);
    return 0;
}
