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

/*
 * splitmix64's finaliser over seed + i x golden ratio, upper half (Steele et al. 2014):
 *   z = seed + i x 0x9e3779b97f4a7c15;  z = (z ^ z >> 30) x 0xbf58476d1ce4e5b9;
 *   z = (z ^ z >> 27) x 0x94d049bb133111eb;  mix = z ^ z >> 31;  word = mix >> 32.
 */
uint32_t selftest_word(uint64_t seed, uint64_t index);
/* Sum modulo 2^64 of the words of one chunk. O(SELFTEST_CHUNK_WORDS). */
uint64_t selftest_chunk_sum(uint64_t seed, uint64_t chunk);
/*
 * The chunk that sample k of SELFTEST_SAMPLES reads, of `chunks` in all (≥ 1):
 * mix(seed ^ 0x73616d706c650001, k) mod chunks. Two samples may name the same chunk.
 */
uint64_t selftest_sample_chunk(uint64_t seed, uint32_t k, uint64_t chunks);
/*
 * Entry of A (which = 0) or B (which = 1) in [-7, 7]:
 * word(seed ^ 0x6d61746d756c0001, (which x n + row) x n + column) mod 15 - 7.
 */
int32_t selftest_entry(uint64_t seed, uint32_t which, uint32_t row, uint32_t column);
/* Sum modulo 2^64 of C[i][j] x (1 + (i x n + j) mod 8191). O(n^3), about 10 ms. */
uint64_t selftest_matmul_sum(uint64_t seed);

#endif
