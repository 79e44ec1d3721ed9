#ifndef SHEAF_TESTS_SUPPORT_WORLD_SHADOW_H
#define SHEAF_TESTS_SUPPORT_WORLD_SHADOW_H

/* What a database would hold after the rows of a world: the last row per key, history in order. */
#include "common/pure/buf.h"
#include "common/pure/map.h"
#include "orchestrator/core/world.h"

struct shadow {
    struct row *rows; /* deep copies */
    uint32_t count;
    uint32_t capacity;
    struct map by_key;
};

void shadow_init(struct shadow *shadow);
void shadow_fini(struct shadow *shadow);
/* Checks what a database would: finality, legal moves, unique live slots; aborts when broken. */
void shadow_put(struct shadow *shadow, const struct row *row);
const struct row *shadow_get(const struct shadow *shadow, enum row_kind kind, uint64_t id);
/* A fresh world out of the rows, in the order of enum row_kind, then id. Caller frees. */
struct world *shadow_load(const struct shadow *shadow);
/* Every row that the world holds, as text: equal texts = equal worlds. */
void world_text(const struct world *world, struct buf *out);
/* Transfers against jobs, leases and accounts; 0 or the broken rule in err. */
int shadow_check_money(const struct shadow *shadow, struct err *err) SHEAF_MUST_USE;

#endif
