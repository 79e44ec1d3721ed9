#ifndef SHEAF_WORKER_CORE_CLAIM_H
#define SHEAF_WORKER_CORE_CLAIM_H

/* What this machine says of itself, at join and at each hello. */
#include "proto/worker.pb-c.h"
#include "worker/core/home.h"
#include "worker/devices/devices.h"

struct claim {
    Sheaf__Claim wire; /* points into the rest and into the arguments of it */
    Sheaf__ClaimDevice device[DEVICES_MAX];
    Sheaf__ClaimDevice *pointer[DEVICES_MAX];
    char uuid[DEVICES_MAX][64];
    char version[32];
    char name[64];
    char runtime[32];
};

/*
 * What the facts point to is borrowed for the claim's life; the claim must not move. A device of
 * class cpu has no id of its own: it gets one from the machine's, so that two machines with the
 * same processor differ.
 */
struct claim_facts {
    const struct settings *settings;
    const struct owner_file *owner;
    const struct host_info *host;
    const uint8_t *machine; /* SHA256_SIZE */
    char *address;
    const char *runtime;
    bool offered[DEVICES_MAX];
};
void claim_make(const struct claim_facts *facts, struct claim *claim);
/* Whether the owner's list of devices holds it. */
bool claim_is_listed(const struct settings *settings, uint32_t ordinal);

#endif
