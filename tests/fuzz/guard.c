/* The framing guard's verdict does not depend on how the bytes were cut. */
#include "orchestrator/gateway/guard.h"
#include "tests/fuzz/fuzz.h"

/* Reads all bytes in steps; a checksum of what was told, and the state in the end. */
static uint64_t read_all(const uint8_t *bytes, size_t size, size_t step)
{
    struct guard guard;
    uint64_t told = 14695981039346656037u;
    enum guard_verdict verdict = GUARD_MORE;

    guard_init(&guard);
    for (size_t used = 0; verdict != GUARD_BAD; bytes += used, size -= used) {
        const uint8_t *piece = NULL;
        size_t length = 0;
        verdict = guard_read(&guard, bytes, size < step ? size : step, &used, &piece, &length);
        BUG_ON(used > (size < step ? size : step));
        if (verdict == GUARD_MORE && used == size)
            break;
        for (size_t i = 0; verdict == GUARD_BODY && i < length; i++)
            told = (told ^ piece[i]) * 1099511628211u;
        if (verdict == GUARD_HEAD)
            told = (told ^ strlen(guard_method(&guard)) ^ strlen(guard_target(&guard))) * 31;
        if (verdict == GUARD_DONE)
            guard_next(&guard);
    }
    told = told * 31 + guard.err.code;
    told = told * 31 + (uint64_t)guard.state;
    guard_fini(&guard);
    return told;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    uint64_t whole = read_all(bytes, size, SIZE_MAX);

    BUG_ON(read_all(bytes, size, 1) != whole);
    BUG_ON(read_all(bytes, size, 7) != whole);
    return 0;
}
