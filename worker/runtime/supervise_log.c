#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "worker/runtime/supervise_private.h"

#define CHUNK 65536

static bool write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t put = write(fd, bytes, length);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        bytes += put;
        length -= (size_t)put;
    }
    return true;
}

/* What cannot be kept is dropped: output never holds the task back. */
static void log_write(struct log_stream *log, struct buf *text)
{
    if (text->length > 0 && !log->broken && !write_all(log->file, text->data, text->length))
        log->broken = true; /* the disk is full, most likely */
    buf_fini(text);
}

static void log_keep(struct log_stream *log, const char *bytes, size_t length)
{
    struct buf text;

    buf_init(&text, 0);
    log_shape_add(&log->shape, bytes, length, clock_mono_us(), &text);
    log_write(log, &text);
}

static void log_end(struct log_stream *log)
{
    struct buf text;

    if (log->event == NULL)
        return;
    buf_init(&text, 0);
    log_shape_end(&log->shape, &text);
    log_write(log, &text);
    event_free(log->event);
    log->event = NULL;
    close(log->pipe);
    close(log->file);
    log->super->open_logs--;
}

/* Reads once; false at the end of the stream. */
static bool log_read(struct log_stream *log)
{
    static char chunk[CHUNK];
    ssize_t got = read(log->pipe, chunk, sizeof(chunk));

    if (got > 0)
        log_keep(log, chunk, (size_t)got);
    return got > 0 || (got < 0 && errno == EINTR);
}

static void on_output(evutil_socket_t fd, short what, void *arg)
{
    struct log_stream *log = arg;

    (void)fd;
    (void)what;
    errno = 0;
    if (log_read(log) || errno == EAGAIN)
        return;
    log_end(log);
    supervise_advance(log->super);
}

static int log_open(struct supervisor *super, uint32_t index, int *ret_write, struct err *err)
{
    struct log_stream *log = &super->log[index];
    char path[FS_PATH];
    int fds[2];

    if (runtime_log_path(super->task.dir, super->task.proc[index / 2].rank, index % 2 + 1, path)
        != 0)
        return err_set(err, ERR_IO, "path too long: %.100s", super->task.dir);
    if (pipe2(fds, O_CLOEXEC) != 0)
        return err_set(err, ERR_IO, "cannot make a pipe: %s", strerror(errno));
    *ret_write = fds[1];
    log->super = super;
    log_shape_init(&log->shape, &super->budget[index / 2]);
    log->pipe = fds[0];
    log->file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log->file < 0) {
        close(fds[0]);
        return err_set(err, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    fcntl(log->pipe, F_SETFL, O_NONBLOCK);
    log->event = event_new(super->base, log->pipe, EV_READ | EV_PERSIST, on_output, log);
    BUG_ON(log->event == NULL);
    super->open_logs++;
    return 0;
}

int supervise_logs_open(struct supervisor *super, int *ret_write, struct err *err)
{
    char folder[FS_PATH];
    int rc = fs_path(folder, "%s/log", super->task.dir);

    if (rc == 0)
        rc = fs_mkdir(folder, 0700, err);
    for (uint32_t i = 0; i < super->task.proc_count; i++)
        super->budget[i].left = super->task.log_limit;
    for (uint32_t i = 0; i < 2 * super->task.proc_count; i++)
        ret_write[i] = -1;
    for (uint32_t i = 0; rc == 0 && i < 2 * super->task.proc_count; i++)
        rc = log_open(super, i, &ret_write[i], err);
    return rc;
}

void supervise_logs_watch(struct supervisor *super)
{
    for (uint32_t i = 0; i < 2 * super->task.proc_count; i++) {
        if (super->log[i].event != NULL)
            event_add(super->log[i].event, NULL);
    }
}

void supervise_logs_close(struct supervisor *super)
{
    for (uint32_t i = 0; i < 2 * super->task.proc_count; i++) {
        struct log_stream *log = &super->log[i];
        /* Bounded: a process that escaped could write for ever. */
        for (int reads = 0; log->event != NULL && reads < 64 && log_read(log); reads++)
            continue;
        log_end(log);
    }
}
