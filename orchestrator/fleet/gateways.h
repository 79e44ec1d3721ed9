#ifndef SHEAF_ORCHESTRATOR_FLEET_GATEWAYS_H
#define SHEAF_ORCHESTRATOR_FLEET_GATEWAYS_H

/*
 * Gateways that announced themselves: where workers find their bulk channels. Plain values, kept in
 * memory and in one small file, so that workers can be welcomed before the gateways speak again.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/io/keys.h"
#include "common/pure/err.h"

#define GATEWAYS_MAX     16 /* behind one orchestrator; each costs every welcome some 100 bytes */
#define GATEWAY_MAX_BULK 4
#define GATEWAY_TEXT     128
#define GATEWAY_FILE_MAX 65536

struct gateway {
    char url[GATEWAY_TEXT];
    char bulk[GATEWAY_MAX_BULK][GATEWAY_TEXT];
    uint32_t bulk_count;
    uint8_t bulk_key[KEY_SIZE]; /* who it is */
};

struct gateways {
    struct gateway item[GATEWAYS_MAX]; /* newest last */
    uint32_t count;
};

/* Adds or replaces by bulk_key; the oldest goes when full. True when anything changed. */
bool gateways_put(struct gateways *gateways, const struct gateway *gateway);
/* Absent is empty. ERR_STATE_CORRUPT, ERR_IO. */
int gateways_load(struct gateways *gateways, const char *path, struct err *err) SHEAF_MUST_USE;
int gateways_save(const struct gateways *gateways, const char *path,
                  struct err *err) SHEAF_MUST_USE;

#endif
