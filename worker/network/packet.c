#include "worker/network/packet.h"

#include <string.h>

#define MAC_AT   32u
#define MAC_SIZE 16u

static const uint8_t magic[4] = {'S', 'H', 'P', '1'};
static const char key_text[] = "sheaf probe key";

void packet_key_id(const uint8_t key[SHA256_SIZE], uint8_t ret_id[PACKET_KEY_ID])
{
    uint8_t mac[SHA256_SIZE];

    hmac_sha256(key, SHA256_SIZE, key_text, sizeof(key_text) - 1, mac);
    memcpy(ret_id, mac, PACKET_KEY_ID);
}

void packet_encode(const struct packet *packet, const uint8_t key[SHA256_SIZE],
                   uint8_t out[PACKET_SIZE])
{
    uint8_t mac[SHA256_SIZE];

    memset(out, 0, PACKET_SIZE);
    memcpy(out, magic, sizeof(magic));
    out[4] = (uint8_t)packet->direction;
    out[5] = (uint8_t)packet->transport;
    out[6] = (uint8_t)(PACKET_SIZE >> 8);
    out[7] = (uint8_t)(PACKET_SIZE & 0xff);
    memcpy(out + 8, packet->key_id, PACKET_KEY_ID);
    memcpy(out + 16, &packet->nonce, sizeof(packet->nonce));
    for (int i = 0; i < 4; i++)
        out[24 + i] = (uint8_t)(packet->sample >> (8 * (3 - i)));
    hmac_sha256(key, SHA256_SIZE, out, MAC_AT, mac);
    memcpy(out + MAC_AT, mac, MAC_SIZE);
}

bool packet_decode(const uint8_t *bytes, size_t size, struct packet *ret_packet)
{
    static const uint8_t zero[4];
    struct packet packet = {.direction = PACKET_REQUEST};

    if (size != PACKET_SIZE || memcmp(bytes, magic, sizeof(magic)) != 0
        || memcmp(bytes + 28, zero, 4) != 0)
        return false;
    if (((size_t)bytes[6] << 8 | bytes[7]) != PACKET_SIZE)
        return false;
    if (bytes[4] != PACKET_REQUEST && bytes[4] != PACKET_ECHO)
        return false;
    if (bytes[5] != PACKET_UDP && bytes[5] != PACKET_TCP)
        return false;
    packet.direction = bytes[4] == PACKET_ECHO ? PACKET_ECHO : PACKET_REQUEST;
    packet.transport = bytes[5] == PACKET_TCP ? PACKET_TCP : PACKET_UDP;
    memcpy(packet.key_id, bytes + 8, PACKET_KEY_ID);
    memcpy(&packet.nonce, bytes + 16, sizeof(packet.nonce));
    for (int i = 0; i < 4; i++)
        packet.sample = packet.sample << 8 | bytes[24 + i];
    *ret_packet = packet;
    return true;
}

bool packet_is_genuine(const uint8_t bytes[PACKET_SIZE], const uint8_t key[SHA256_SIZE])
{
    uint8_t mac[SHA256_SIZE];

    hmac_sha256(key, SHA256_SIZE, bytes, MAC_AT, mac);
    return bytes_equal(mac, bytes + MAC_AT, MAC_SIZE);
}
