#include "orchestrator/gateway/download.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/pure/mem.h"
#include "orchestrator/gateway/number.h"

#define SEND_PIECE ((size_t)128 << 10)

struct download {
    int fd;
    uint64_t at;
    uint64_t left;
};

static void download_free(struct http_call *call)
{
    struct download *download = call->state;

    close(download->fd);
    free(download);
}

/* As much as the client's connection takes now; it calls again when there is room. */
static void download_go(struct http_call *call)
{
    static char piece[SEND_PIECE];
    struct download *download = call->state;

    while (download->left > 0 && http_stream_waiting(call) < HTTP_STREAM_ROOM) {
        size_t want = download->left < SEND_PIECE ? (size_t)download->left : SEND_PIECE;
        ssize_t got = pread(download->fd, piece, want, (off_t)download->at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            http_stream_abort(call);
            return;
        }
        http_stream_write(call, piece, (size_t)got);
        download->at += (uint64_t)got;
        download->left -= (uint64_t)got;
    }
    if (download->left == 0)
        http_stream_end(call);
}

/*
 * One range "bytes=a-b", "a-" or "-n" (RFC 9110 §14.1.2). 0: whole; 1: *ret_from and *ret_to; -1:
 * outside. Several ranges, or what is no range, is answered as the whole.
 */
static int range_read(const char *text, uint64_t size, uint64_t *ret_from, uint64_t *ret_to)
{
    uint64_t from = 0;
    uint64_t to = 0;

    if (text == NULL || strncmp(text, "bytes=", 6) != 0)
        return 0;
    text += 6;
    bool has_from = number_take(&text, 10, 18, &from);
    if (*text++ != '-')
        return 0;
    bool has_to = number_take(&text, 10, 18, &to);
    if (*text != '\0' || (!has_from && !has_to))
        return 0;
    if (!has_from) {
        from = to < size ? size - to : 0;
        to = size - 1;
    } else if (!has_to || to >= size) {
        to = size - 1;
    }
    if (size == 0 || from >= size || from > to)
        return -1;
    *ret_from = from;
    *ret_to = to;
    return 1;
}

void download_send(struct http_call *call, const struct download_file *file)
{
    char text[96];
    uint64_t from = 0;
    uint64_t to = 0;
    int range = range_read(http_field(call, "Range"), file->size, &from, &to);

    if (range < 0) {
        close(file->fd);
        snprintf(text, sizeof(text), "bytes */%llu", (unsigned long long)file->size);
        http_header(call, "Content-Range", text);
        http_problemf(call, ERR_RANGE_INVALID, "the file has %llu bytes",
                      (unsigned long long)file->size);
        return;
    }
    struct download *download = mem_new(1, sizeof(*download));
    download->fd = file->fd;
    download->at = from;
    download->left = range == 1 ? to - from + 1 : file->size;
    call->state = download;
    call->on_end = download_free;
    call->on_room = download_go;
    snprintf(text, sizeof(text), "\"%.64s\"", file->sha256);
    http_header(call, "ETag", text);
    http_header(call, "Accept-Ranges", "bytes");
    if (range == 1) {
        snprintf(text, sizeof(text), "bytes %llu-%llu/%llu", (unsigned long long)from,
                 (unsigned long long)to, (unsigned long long)file->size);
        http_header(call, "Content-Range", text);
    }
    http_stream_begin(call, range == 1 ? 206 : 200, file->type, download->left);
    download_go(call);
}
