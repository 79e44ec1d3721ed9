#include "common/pure/mem.h"

#include <stdlib.h>
#include <string.h>

#include "common/pure/err.h"

void *mem_new(size_t count, size_t size)
{
    void *bytes = calloc(count ? count : 1, size ? size : 1);

    BUG_ON(bytes == NULL);
    return bytes;
}

void *mem_resize(void *old, size_t count, size_t size)
{
    size_t total;
    void *bytes;

    BUG_ON(__builtin_mul_overflow(count, size, &total));
    bytes = realloc(old, total ? total : 1);
    BUG_ON(bytes == NULL);
    return bytes;
}

char *mem_dup(const void *bytes, size_t length)
{
    char *copy = mem_new(length + 1, 1);

    if (length > 0)
        memcpy(copy, bytes, length);
    return copy;
}

char *mem_strdup(const char *text)
{
    return mem_dup(text, strlen(text));
}
