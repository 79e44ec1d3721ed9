#ifndef SHEAF_WORKER_NETWORK_PACKET_H
#define SHEAF_WORKER_NETWORK_PACKET_H

/*
 * The one probe packet, the same size in both directions and on both transports:
 *
 *    0  4  magic "SHP1"          16  8  nonce, chosen by the asker
 *    4  1  direction             24  4  number of the sample, big-endian
 *    5  1  transport             28  4  zero
 *    6  2  size, big-endian      32 16  HMAC-SHA256 of bytes 0..31, cut
 *    8  8  which pair key: first bytes of HMAC-SHA256("sheaf probe key")
 *
 * The direction is under the MAC, so an echo cannot be made from a request by reflecting it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/io/hash.h"

#define PACKET_SIZE   48u
#define PACKET_KEY_ID 8u

enum packet_direction {
    PACKET_REQUEST = 1,
    PACKET_ECHO = 2,
};
enum packet_transport {
    PACKET_UDP = 1,
    PACKET_TCP = 2,
};

struct packet {
    enum packet_direction direction;
    enum packet_transport transport;
    uint8_t key_id[PACKET_KEY_ID];
    uint64_t nonce; /* opaque: host order */
    uint32_t sample;
};

void packet_key_id(const uint8_t key[SHA256_SIZE], uint8_t ret_id[PACKET_KEY_ID]);
void packet_encode(const struct packet *packet, const uint8_t key[SHA256_SIZE],
                   uint8_t out[PACKET_SIZE]);
/* Shape alone; the MAC needs the key that key_id names. False for anything else. */
bool packet_decode(const uint8_t *bytes, size_t size, struct packet *ret_packet);
bool packet_is_genuine(const uint8_t bytes[PACKET_SIZE], const uint8_t key[SHA256_SIZE]);

#endif
