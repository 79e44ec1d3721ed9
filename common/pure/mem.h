#ifndef SHEAF_COMMON_PURE_MEM_H
#define SHEAF_COMMON_PURE_MEM_H

/*
 * The one allocator of core and daemons: out of memory aborts, so that nobody half-handles it.
 * Parsers of foreign bytes bound their sizes first and may call malloc() themselves instead.
 */
#include <stddef.h>

/* Zeroed; count x size is checked for overflow. */
void *mem_new(size_t count, size_t size) __attribute__((malloc, alloc_size(1, 2)));
/* Grows or shrinks; new bytes are not zeroed. */
void *mem_resize(void *old, size_t count, size_t size);
char *mem_strdup(const char *text);
/* A terminated copy of length bytes. */
char *mem_dup(const void *bytes, size_t length);

#endif
