#ifndef SHEAF_COMMON_IO_CLOCK_H
#define SHEAF_COMMON_IO_CLOCK_H

/* Clocks and chance, for shells alone. */
#include <stddef.h>
#include <stdint.h>

#include "common/pure/id.h"

/* Microseconds since 1970. For records. */
int64_t clock_wall_us(void);
/* Microseconds of CLOCK_BOOTTIME: counts while suspended. For intervals. */
int64_t clock_mono_us(void);
/* RFC 3339 UTC with milliseconds: "2026-11-22T17:24:03.120Z". Returns out. */
char *clock_format(int64_t wall_us, char out[32]);
void random_bytes(void *out, size_t length);
struct uuid uuid_new(void);

#endif
