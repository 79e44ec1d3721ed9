#ifndef SHEAF_COMMON_PURE_SELFTEST_H
#define SHEAF_COMMON_PURE_SELFTEST_H

/*
 * Arithmetic of the join self-test, the same on worker and orchestrator, in integers alone so that
 * every device agrees bit for bit. It shows that memory was written and read back and that the
 * device multiplies; it is no proof against a liar who recomputes on demand (docs/trust.md).
 *
 * Memory is filled with 32-bit words w(i) = mix(seed, i), in chunks of SELFTEST_CHUNK words; the
 * worker sums each chunk after everything was filled and reports the sums of the chunks that the
 * seed selects. Matmul: C = A x B over n x n int32 with entries in [-7, 7] from the same mix.
 */
#include <stdint.h>

#define SELFTEST_CHUNK_WORDS ((uint64_t)1 << 18) /* 1 MiB */
#define SELFTEST_SAMPLES     16u
#define SELFTEST_MATMUL_N    256u

/* splitmix64's finaliser over seed + i x golden ratio, upper half (Steele et al. 2014). */
uint32_t selftest_word(uint64_t seed, uint64_t index);
/* Sum modulo 2^64 of the words of one chunk. O(SELFTEST_CHUNK_WORDS). */
uint64_t selftest_chunk_sum(uint64_t seed, uint64_t chunk);
/* The chunk that sample k of SELFTEST_SAMPLES reads, of `chunks` in all (≥ 1). */
uint64_t selftest_sample_chunk(uint64_t seed, uint32_t k, uint64_t chunks);
/* Entry of A (which = 0) or B (which = 1) in [-7, 7]. */
int32_t selftest_entry(uint64_t seed, uint32_t which, uint32_t row, uint32_t column);
/* Sum modulo 2^64 of C[i][j] x (1 + (i x n + j) mod 8191). O(n^2) by Σ over weights, or n^3 naive.
 */
uint64_t selftest_matmul_sum(uint64_t seed);

#endif
