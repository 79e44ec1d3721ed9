#include "common/pure/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"

static size_t limit_of(const struct buf *buf)
{
    return buf->limit ? buf->limit : BUF_DEFAULT_LIMIT;
}

static void reserve(struct buf *buf, size_t extra)
{
    size_t need = buf->length + extra + 1;

    if (need <= buf->capacity)
        return;
    size_t capacity = buf->capacity ? buf->capacity : 64;
    while (capacity < need)
        capacity *= 2;
    buf->data = mem_resize(buf->data, capacity, 1);
    buf->capacity = capacity;
    buf->data[buf->length] = '\0';
}

void buf_init(struct buf *buf, size_t limit)
{
    *buf = (struct buf){.limit = limit};
}

void buf_fini(struct buf *buf)
{
    if (buf == NULL)
        return;
    free(buf->data);
    *buf = (struct buf){.limit = buf->limit};
}

void buf_clear(struct buf *buf)
{
    buf->length = 0;
    buf->full = false;
    if (buf->data != NULL)
        buf->data[0] = '\0';
}

void buf_append(struct buf *buf, const void *bytes, size_t length)
{
    size_t room = limit_of(buf) - buf->length;

    if (length > room) {
        buf->full = true;
        length = room;
    }
    reserve(buf, length);
    if (length > 0)
        memcpy(buf->data + buf->length, bytes, length);
    buf->length += length;
    buf->data[buf->length] = '\0';
}

void buf_puts(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_vprintf(struct buf *buf, const char *format, va_list args)
{
    char small[256];
    va_list again;

    va_copy(again, args);
    int length = vsnprintf(small, sizeof(small), format, args);
    BUG_ON(length < 0);
    if ((size_t)length < sizeof(small)) {
        buf_append(buf, small, (size_t)length);
    } else {
        char *large = mem_new((size_t)length + 1, 1);
        vsnprintf(large, (size_t)length + 1, format, again);
        buf_append(buf, large, (size_t)length);
        free(large);
    }
    va_end(again);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    buf_vprintf(buf, format, args);
    va_end(args);
}

void buf_drop(struct buf *buf, size_t n)
{
    if (n >= buf->length) {
        buf_clear(buf);
        return;
    }
    memmove(buf->data, buf->data + n, buf->length - n + 1);
    buf->length -= n;
}

char *buf_take(struct buf *buf)
{
    reserve(buf, 0);
    char *data = buf->data;
    *buf = (struct buf){.limit = buf->limit};
    return data;
}
