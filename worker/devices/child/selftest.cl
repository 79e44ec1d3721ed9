/*
 * Device side of the self-test; the arithmetic is that of common/pure/selftest.h. Built with
 *   CHUNK_WORDS  words of a chunk       LANES       work items per chunk
 *   LANE_START   lane → its first word  LANE_STEP   distance between its words
 * so that neighbouring items touch neighbouring words on a GPU, and each item its own cache lines
 * on a CPU. Sums are modulo 2^64, so the order does not matter.
 */
ulong mix64(ulong seed, ulong index)
{
    ulong z = seed + index * 0x9e3779b97f4a7c15UL;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9UL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebUL;
    return z ^ (z >> 31);
}

/* `first` is the index of the buffer's first word in the whole filled memory. */
kernel void fill(global uint *words, ulong seed, ulong first)
{
    ulong base = (get_global_id(0) / LANES) * CHUNK_WORDS;
    uint lane = get_global_id(0) % LANES;

    for (uint k = 0; k < CHUNK_WORDS / LANES; k++) {
        ulong at = base + lane * LANE_START + k * LANE_STEP;
        words[at] = (uint)(mix64(seed, first + at) >> 32);
    }
}

/* One sum and one count of wrong words per work item. */
kernel void sum(global const uint *words, ulong seed, ulong first, global ulong *sums,
                global uint *wrong)
{
    ulong base = (get_global_id(0) / LANES) * CHUNK_WORDS;
    uint lane = get_global_id(0) % LANES;
    ulong total = 0;
    uint bad = 0;

    for (uint k = 0; k < CHUNK_WORDS / LANES; k++) {
        ulong at = base + lane * LANE_START + k * LANE_STEP;
        uint word = words[at];
        total += word;
        bad += word != (uint)(mix64(seed, first + at) >> 32);
    }
    sums[get_global_id(0)] = total;
    wrong[get_global_id(0)] = bad;
}

/* The same product once per z, each in a slice of its own. */
kernel void multiply(global const int *a, global const int *b, global int *c, uint n)
{
    uint column = get_global_id(0);
    uint row = get_global_id(1);
    int total = 0;

    for (uint k = 0; k < n; k++)
        total += a[row * n + k] * b[k * n + column];
    c[(ulong)get_global_id(2) * n * n + row * n + column] = total;
}
