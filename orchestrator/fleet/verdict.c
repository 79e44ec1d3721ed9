#include "orchestrator/fleet/verdict.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Steps: 0 looks at the form, 1 … SAMPLES check a chunk each, the last checks the product. */
#define STEP_MATMUL (SELFTEST_SAMPLES + 1)
#define STEP_DONE   (SELFTEST_SAMPLES + 2)

static bool verdict_fail(struct verdict *verdict, const char *why)
{
    snprintf(verdict->detail, sizeof(verdict->detail), "%s", why);
    verdict->passed = false;
    verdict->measured_mib = 0;
    verdict->next = STEP_DONE;
    return true;
}

static bool verdict_form(struct verdict *verdict)
{
    char text[ROW_DETAIL];

    if (verdict->failure[0]) {
        memcpy(text, verdict->failure, sizeof(text));
        return verdict_fail(verdict, text);
    }
    if (verdict->memory_mib == 0 || verdict->memory_mib > VERDICT_MAX_MIB)
        return verdict_fail(verdict, "no memory was filled and read back");
    if (verdict->chunk_count != SELFTEST_SAMPLES) {
        snprintf(text, sizeof(text), "%" PRIu32 " chunk sums, expected %u", verdict->chunk_count,
                 SELFTEST_SAMPLES);
        return verdict_fail(verdict, text);
    }
    if ((uint64_t)verdict->memory_mib * 100
        < (uint64_t)verdict->claimed_mib * VERDICT_MIN_PERCENT) {
        snprintf(text, sizeof(text), "%" PRIu32 " MiB filled of %" PRIu32 " MiB claimed",
                 verdict->memory_mib, verdict->claimed_mib);
        return verdict_fail(verdict, text);
    }
    verdict->next = 1;
    return false;
}

static bool verdict_chunk(struct verdict *verdict)
{
    uint32_t sample = verdict->next - 1;
    uint64_t chunk = selftest_sample_chunk(verdict->seed, sample, verdict->memory_mib);
    char text[ROW_DETAIL];

    if (selftest_chunk_sum(verdict->seed, chunk) != verdict->chunk_sum[sample]) {
        snprintf(text, sizeof(text), "memory read back wrong in MiB %" PRIu64 " of %" PRIu32, chunk,
                 verdict->memory_mib);
        return verdict_fail(verdict, text);
    }
    verdict->next++;
    return false;
}

static bool verdict_matmul(struct verdict *verdict)
{
    if (selftest_matmul_sum(verdict->seed) != verdict->matmul_sum)
        return verdict_fail(verdict, "the product of the matrix test is wrong");
    verdict->passed = true;
    verdict->measured_mib = verdict->memory_mib;
    if (verdict->claimed_mib && verdict->measured_mib > verdict->claimed_mib)
        verdict->measured_mib = verdict->claimed_mib;
    verdict->next = STEP_DONE;
    return true;
}

bool verdict_step(struct verdict *verdict)
{
    if (verdict->next >= STEP_DONE)
        return true;
    if (verdict->next == 0)
        return verdict_form(verdict);
    if (verdict->next == STEP_MATMUL)
        return verdict_matmul(verdict);
    return verdict_chunk(verdict);
}
