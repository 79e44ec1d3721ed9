/* Log files of running tasks to the gateway, in numbered pieces. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "worker/core/agent_private.h"

/* A line waits this long for more of its kind. */
#define LOG_WAIT_US 200000
#define ZSTD_LEVEL  1

static void arm(struct agent *agent)
{
    struct timeval wait = {.tv_usec = LOG_WAIT_US};

    if (!evtimer_pending(agent->log_timer, NULL))
        evtimer_add(agent->log_timer, &wait);
}

static void on_notify(evutil_socket_t fd, short what, void *arg)
{
    char bytes[4096];
    ssize_t n;

    (void)what;
    do {
        n = read(fd, bytes, sizeof(bytes));
    } while (n > 0 || (n < 0 && errno == EINTR));
    arm(arg);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    agent_logs_pump(arg, true);
}

void agent_logs_init(struct agent *agent)
{
    agent->log_timer = evtimer_new(agent->base, on_timer, agent);
    BUG_ON(!agent->log_timer);
    agent->notify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (agent->notify_fd < 0) {
        log_warn("logs", "inotify", "detail=" LOG_Q, strerror(errno));
        return; /* the one-second tick looks instead */
    }
    agent->notify =
        event_new(agent->base, agent->notify_fd, EV_READ | EV_PERSIST, on_notify, agent);
    BUG_ON(!agent->notify || event_add(agent->notify, NULL) != 0);
}

void agent_logs_fini(struct agent *agent)
{
    if (agent->notify)
        event_free(agent->notify);
    if (agent->log_timer)
        event_free(agent->log_timer);
    if (agent->notify_fd >= 0)
        close(agent->notify_fd);
}

void agent_logs_watch(struct agent *agent, const struct agent_task *task)
{
    char folder[FS_PATH];

    if (agent->notify_fd >= 0 && fs_path(folder, "%s/log", task->dir) == 0)
        (void)inotify_add_watch(agent->notify_fd, folder, IN_MODIFY | IN_CREATE);
    arm(agent);
}

/* -- sending ----------------------------------------------------------------------------------- */

static bool read_piece(const char *path, const struct log_cut *cut, uint8_t *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd >= 0 ? pread(fd, out, cut->size, (off_t)cut->offset) : -1;

    if (fd >= 0)
        close(fd);
    return n == (ssize_t)cut->size;
}

/* False: not now. */
static bool send_piece(struct agent *agent, const struct agent_task *task,
                       const struct keep_stream *stream, const char *path,
                       const struct log_cut *cut)
{
    static uint8_t raw[LOGS_MAX_PIECE];
    static uint8_t packed[ZSTD_COMPRESSBOUND(LOGS_MAX_PIECE)];
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__LogPiece piece = SHEAF__LOG_PIECE__INIT;
    size_t size;

    if (cut->size > 0 && !read_piece(path, cut, raw)) {
        log_warn("logs", "gone", "path=%s offset=%llu", path, (unsigned long long)cut->offset);
        memset(raw, '?', cut->size); /* numbers must stay whole */
    }
    size = ZSTD_compress(packed, sizeof(packed), raw, cut->size, ZSTD_LEVEL);
    BUG_ON(ZSTD_isError(size));
    piece.attempt_uid = task->order->prepare->attempt_uid;
    piece.rank = stream->rank;
    piece.stream = stream->stream;
    piece.seq = cut->seq;
    piece.at_us = (uint64_t)cut->at_us;
    piece.raw_size = cut->size;
    piece.data.data = packed;
    piece.data.len = size;
    piece.last = cut->last;
    message.body_case = SHEAF__BULK__BODY_LOG;
    message.log = &piece;
    return bulk_send(agent->bulk, &message, size);
}

static void send_stream(struct agent *agent, const struct agent_task *task,
                        struct keep_stream *stream, const char *path)
{
    const struct log_cut *cut;

    while ((cut = log_stream_next(&stream->log)) != NULL) {
        if (!send_piece(agent, task, stream, path, cut))
            return;
        log_stream_sent(&stream->log);
    }
}

/* True when something was cut. */
static bool cut_stream(struct agent *agent, const struct agent_task *task,
                       const struct keep_task *keep, struct keep_stream *stream, const char *path)
{
    struct stat stat;
    uint64_t size = lstat(path, &stat) == 0 && S_ISREG(stat.st_mode) ? (uint64_t)stat.st_size : 0;
    struct log_cut cut;
    bool any = false;

    while (log_stream_cut(&stream->log, size, task->collecting, clock_wall_us(), &cut)) {
        keep_log_cut(agent->keep, keep, stream, &cut);
        any = true;
    }
    return any;
}

static uint32_t process_rank(const struct agent_task *task, uint32_t index, uint32_t *ret_count)
{
    uint32_t devices = (uint32_t)task->order->prepare->n_devices;

    if (task->spec.launch == LAUNCH_DEVICE) {
        *ret_count = devices;
        return task->id.rank * devices + index;
    }
    *ret_count = 1;
    return task->id.rank;
}

static bool has_logs(const struct agent *agent, const struct agent_task *task)
{
    const struct rank_task *record = NULL;

    for (uint32_t i = 0; i < agent->tasks.count && !record; i++) {
        if (agent->tasks.task[i].id.attempt == task->id.attempt
            && agent->tasks.task[i].id.epoch == task->id.epoch)
            record = &agent->tasks.task[i];
    }
    return record && !record->forgotten
           && (record->phase == TASK_PHASE_RELEASED || record->phase == TASK_PHASE_STARTED
               || (record->phase == TASK_PHASE_COLLECTING && record->logs_due));
}

/* Bounds of pieces are on file before a piece is sent, so that a restart sends the same ones. */
static void pump_task(struct agent *agent, struct agent_task *task, bool cut)
{
    struct keep_task *keep = keep_task_find(agent->keep, task->id.attempt, task->id.epoch);
    struct err err = {0};
    bool done = true;
    uint32_t count = 1;

    for (uint32_t i = 0; keep && i < count; i++) {
        uint32_t rank = process_rank(task, i, &count);

        for (uint32_t number = 1; number <= 2; number++) {
            struct keep_stream *stream = keep_task_stream(agent->keep, keep, rank, number);
            char path[FS_PATH];

            if (!stream || runtime_log_path(task->dir, rank, number, path) != 0)
                continue;
            if (cut && cut_stream(agent, task, keep, stream, path)
                && keep_flush(agent->keep, &err) != 0) {
                agent_end(agent, -(int)err.code, &err);
                return;
            }
            send_stream(agent, task, stream, path);
            done = done && log_stream_done(&stream->log);
        }
    }
    if (done && task->collecting) {
        struct task_event event = {.kind = TASK_EV_LOGS, .id = task->id};

        agent_event(agent, &event);
    }
}

void agent_logs_pump(struct agent *agent, bool cut)
{
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        struct agent_task *task = agent->task[i];

        if (task && !task->gone && task->usable && has_logs(agent, task))
            pump_task(agent, task, cut);
    }
}

void agent_logs_rewind(struct agent *agent)
{
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        struct agent_task *task = agent->task[i];
        struct keep_task *keep = task && !task->gone
                                     ? keep_task_find(agent->keep, task->id.attempt, task->id.epoch)
                                     : NULL;

        for (uint32_t k = 0; keep && k < keep->stream_count; k++)
            log_stream_rewind(&keep->stream[k].log);
    }
}

void agent_logs_ack(struct agent *agent, const Sheaf__LogAck *ack)
{
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        struct agent_task *task = agent->task[i];
        struct keep_task *keep;

        if (!task || task->gone || !task->usable || ack->attempt_uid.len != 16
            || memcmp(ack->attempt_uid.data, task->order->prepare->attempt_uid.data, 16) != 0)
            continue;
        keep = keep_task_find(agent->keep, task->id.attempt, task->id.epoch);
        for (uint32_t k = 0; keep && k < keep->stream_count; k++) {
            struct keep_stream *stream = &keep->stream[k];

            if (stream->rank != ack->rank || stream->stream != ack->stream
                || ack->seq >= stream->log.next_seq)
                continue;
            log_stream_ack(&stream->log, ack->seq);
            keep_log_ack(agent->keep, keep, stream, ack->seq);
        }
        if (has_logs(agent, task)) {
            pump_task(agent, task, false);
            arm(agent); /* there is room in the window again */
        }
        return;
    }
}
