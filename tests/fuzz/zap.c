/* A ZAP request (RFC 27) of arbitrary frames: 200 for an allowed key alone. */
#include <errno.h>
#include <zmq.h>

#include "common/io/loop.h"
#include "common/io/zap_private.h"
#include "tests/fuzz/fuzz.h"

#define KEY "an enrolled worker's curve key.."

static void *set_up(void)
{
    void *context = zmq_ctx_new();
    void *socket = zmq_socket(context, ZMQ_REQ);

    zap_allow(zap_new(context), "worker", (const uint8_t *)KEY);
    BUG_ON(zmq_connect(socket, ZAP_ENDPOINT) != 0);
    return socket;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static void *socket;
    const uint8_t *frame;
    const bool sent = size > 0;
    char reply[6][512];
    bool key_seen = memmem(bytes, size, KEY, KEY_SIZE) != NULL;

    if (socket == NULL)
        socket = set_up();
    for (size_t length = 0; fuzz_record(&bytes, &size, &frame, &length);)
        while (zmq_send(socket, frame, length, size > 0 ? ZMQ_SNDMORE : 0) < 0)
            BUG_ON(errno != EINTR); /* by libFuzzer's timer */
    for (int i = 0; i < 6 && sent; i++)
        while (zmq_recv(socket, reply[i], sizeof(reply[i]), 0) < 0)
            BUG_ON(errno != EINTR);
    BUG_ON(sent && memcmp(reply[2], "200", 3) == 0 && !key_seen);
    return 0;
}
