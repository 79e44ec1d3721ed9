#include "common/pure/selftest.h"

#include <stdlib.h>

#include "common/pure/mem.h"

#define GOLDEN 0x9e3779b97f4a7c15u /* 2^64 / golden ratio (Steele et al. 2014) */

/* Streams that share no word with the fill of the memory. */
#define STREAM_SAMPLE 0x73616d706c650001u
#define STREAM_MATMUL 0x6d61746d756c0001u

#define ENTRY_SPAN     15 /* -7 … 7 */
#define WEIGHT_MODULUS 8191u

static uint64_t mix(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + index * GOLDEN;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t selftest_word(uint64_t seed, uint64_t index)
{
    return (uint32_t)(mix(seed, index) >> 32);
}

uint64_t selftest_chunk_sum(uint64_t seed, uint64_t chunk)
{
    uint64_t first = chunk * SELFTEST_CHUNK_WORDS;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < SELFTEST_CHUNK_WORDS; i++)
        sum += selftest_word(seed, first + i);
    return sum;
}

uint64_t selftest_sample_chunk(uint64_t seed, uint32_t k, uint64_t chunks)
{
    return mix(seed ^ STREAM_SAMPLE, k) % chunks;
}

int32_t selftest_entry(uint64_t seed, uint32_t which, uint32_t row, uint32_t column)
{
    uint64_t n = SELFTEST_MATMUL_N;
    uint64_t index = (which * n + row) * n + column;

    return (int32_t)(selftest_word(seed ^ STREAM_MATMUL, index) % ENTRY_SPAN) - ENTRY_SPAN / 2;
}

uint64_t selftest_matmul_sum(uint64_t seed)
{
    enum { N = SELFTEST_MATMUL_N };
    int32_t *b = mem_new((size_t)N * N, sizeof(*b));
    int32_t row[N];
    uint64_t sum = 0;

    for (uint32_t k = 0; k < N; k++) {
        for (uint32_t j = 0; j < N; j++)
            b[k * N + j] = selftest_entry(seed, 1, k, j);
    }
    for (uint32_t i = 0; i < N; i++) {
        for (uint32_t j = 0; j < N; j++)
            row[j] = 0;
        for (uint32_t k = 0; k < N; k++) {
            int32_t a = selftest_entry(seed, 0, i, k);
            for (uint32_t j = 0; j < N; j++)
                row[j] += a * b[k * N + j];
        }
        for (uint32_t j = 0; j < N; j++)
            sum += (uint64_t)(int64_t)row[j] * (1 + (i * N + j) % WEIGHT_MODULUS);
    }
    free(b);
    return sum;
}
