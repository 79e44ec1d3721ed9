/* The hash chain of the ledger: docs/ledger.md. */
#include <endian.h>
#include <string.h>

#include "orchestrator/store/store_private.h"

static void append_u64(struct buf *out, uint64_t value)
{
    uint64_t wire = htobe64(value);

    buf_append(out, &wire, sizeof(wire));
}

static void append_text(struct buf *out, const char *text)
{
    size_t length = strlen(text);
    uint16_t wire = htobe16((uint16_t)length);

    buf_append(out, &wire, sizeof(wire));
    buf_append(out, text, length);
}

void transfer_canon(const struct transfer_row *transfer, struct buf *out)
{
    append_u64(out, transfer->id);
    append_u64(out, transfer->debit);
    append_u64(out, transfer->credit);
    append_u64(out, (uint64_t)transfer->amount);
    append_u64(out, (uint64_t)transfer->kind);
    append_u64(out, transfer->job);
    append_u64(out, transfer->lease);
    append_u64(out, transfer->hold);
    append_u64(out, (uint64_t)transfer->at_us);
    append_text(out, transfer->asset);
    append_text(out, transfer->memo);
}

struct chain_head *chain_head(struct chain *chain, const char *asset)
{
    for (uint32_t i = 0; i < chain->count; i++) {
        if (strcmp(chain->head[i].asset, asset) == 0)
            return &chain->head[i];
    }
    BUG_ON(chain->count == CHAIN_MAX_ASSETS);
    struct chain_head *head = &chain->head[chain->count++];
    *head = (struct chain_head){0};
    memcpy(head->asset, asset, strnlen(asset, sizeof(head->asset) - 1));
    return head;
}

void chain_add(struct chain *chain, const struct transfer_row *transfer,
               uint8_t ret_prev[SHA256_SIZE], uint8_t ret_hash[SHA256_SIZE])
{
    struct chain_head *head = chain_head(chain, transfer->asset);
    struct buf bytes;

    memcpy(ret_prev, head->hash, SHA256_SIZE);
    buf_init(&bytes, 0);
    buf_append(&bytes, head->hash, SHA256_SIZE);
    transfer_canon(transfer, &bytes);
    sha256(bytes.data, bytes.length, ret_hash);
    buf_fini(&bytes);
    memcpy(head->hash, ret_hash, SHA256_SIZE);
}
