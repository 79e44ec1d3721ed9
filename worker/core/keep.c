#include "worker/core/keep.h"

#include <stdlib.h>
#include <string.h>

#include "common/io/fs.h"
#include "common/io/log.h"
#include "common/pure/buf.h"
#include "common/pure/mem.h"
#include "worker/core/journal.h"

/* The journal is rewritten when it is this large and twice as large as after the last time. */
#define KEEP_REWRITE_BYTES ((uint64_t)4 << 20)

enum record_type {
    RECORD_COUNTERS = 1,
    RECORD_TASK,
    RECORD_PREPARE,
    RECORD_GO,
    RECORD_DROP,
    RECORD_FENCE,
    RECORD_MESSAGE,
    RECORD_ACK,
    RECORD_LOG_CUT,
    RECORD_LOG_ACK,
};

struct keep {
    struct journal *journal;
    struct tasks *tasks;
    struct keep_counters counters;
    struct keep_task task[TASKS_MAX];
    bool used[TASKS_MAX];
    struct keep_message *outbox; /* by seq */
    uint32_t outbox_count;
    uint32_t outbox_capacity;
    uint64_t rewritten_size;
    bool dirty;
};

/* -- records: little-endian integers, in order ---------------------------------------------------
 */

struct reader {
    const uint8_t *bytes;
    size_t left;
    bool bad;
};

static void put_int(struct buf *out, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(value >> (8 * i));

        buf_append(out, &byte, 1);
    }
}

static uint64_t get_int(struct reader *in, unsigned size)
{
    uint64_t value = 0;

    if (in->left < size) {
        in->bad = true;
        return 0;
    }
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)in->bytes[i] << (8 * i);
    in->bytes += size;
    in->left -= size;
    return value;
}

static void get_bytes(struct reader *in, void *out, size_t size)
{
    if (in->left < size) {
        in->bad = true;
        return;
    }
    memcpy(out, in->bytes, size);
    in->bytes += size;
    in->left -= size;
}

static void add_record(struct keep *keep, enum record_type type, struct buf *bytes)
{
    journal_add(keep->journal, type, bytes->data ? bytes->data : "", bytes->length);
    buf_fini(bytes);
    keep->dirty = true;
}

/* -- tasks ------------------------------------------------------------------------------------- */

struct keep_task *keep_task_find(struct keep *keep, uint64_t attempt, uint32_t epoch)
{
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        if (keep->used[i] && keep->task[i].attempt == attempt && keep->task[i].epoch == epoch)
            return &keep->task[i];
    }
    return NULL;
}

static struct keep_task *task_make(struct keep *keep, uint64_t attempt, uint32_t epoch)
{
    struct keep_task *task = keep_task_find(keep, attempt, epoch);

    if (task)
        return task;
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        if (keep->used[i])
            continue;
        keep->used[i] = true;
        keep->task[i] = (struct keep_task){.attempt = attempt, .epoch = epoch};
        return &keep->task[i];
    }
    return NULL;
}

static void task_remove(struct keep *keep, uint64_t attempt, uint32_t epoch)
{
    struct keep_task *task = keep_task_find(keep, attempt, epoch);

    if (!task)
        return;
    free(task->prepare);
    free(task->go);
    keep->used[task - keep->task] = false;
}

static void task_record(const struct rank_task *task, struct buf *out)
{
    size_t detail = strlen(task->detail);

    put_int(out, task->id.attempt, 8);
    put_int(out, task->id.term, 4);
    put_int(out, task->id.epoch, 4);
    put_int(out, task->id.rank, 4);
    buf_append(out, task->job, 16);
    buf_append(out, task->attempt_uid, 16);
    put_int(out, task->device_count, 4);
    for (uint32_t i = 0; i < task->device_count; i++)
        put_int(out, task->device[i], 4);
    put_int(out, task->phase, 1);
    put_int(out, task->stopping, 1);
    put_int(out, task->forgotten, 1);
    put_int(out, task->reclaimed, 1);
    put_int(out, task->outputs_due, 1);
    put_int(out, task->logs_due, 1);
    put_int(out, task->used_ms, 8);
    put_int(out, task->port, 4);
    put_int(out, (uint32_t)task->exit_code, 4);
    put_int(out, task->reason, 4);
    put_int(out, task->class, 4);
    put_int(out, detail, 2);
    buf_append(out, task->detail, detail);
}

static bool task_parse(struct reader *in, struct rank_task *task)
{
    uint64_t phase;
    uint64_t detail;

    memset(task, 0, sizeof(*task));
    task->id.attempt = get_int(in, 8);
    task->id.term = (uint32_t)get_int(in, 4);
    task->id.epoch = (uint32_t)get_int(in, 4);
    task->id.rank = (uint32_t)get_int(in, 4);
    get_bytes(in, task->job, 16);
    get_bytes(in, task->attempt_uid, 16);
    task->device_count = (uint32_t)get_int(in, 4);
    if (task->device_count > SPEC_MAX_GPUS_PER_NODE)
        return false;
    for (uint32_t i = 0; i < task->device_count; i++)
        task->device[i] = (uint32_t)get_int(in, 4);
    phase = get_int(in, 1);
    if (phase >= TASK_PHASE_COUNT)
        return false;
    task->phase = (enum task_phase)phase;
    task->stopping = get_int(in, 1) != 0;
    task->forgotten = get_int(in, 1) != 0;
    task->reclaimed = get_int(in, 1) != 0;
    task->outputs_due = get_int(in, 1) != 0;
    task->logs_due = get_int(in, 1) != 0;
    task->used_ms = get_int(in, 8);
    task->port = (uint32_t)get_int(in, 4);
    task->exit_code = (int32_t)(uint32_t)get_int(in, 4);
    task->reason = (enum err_code)get_int(in, 4);
    task->class = (enum fail_class)get_int(in, 4);
    detail = get_int(in, 2);
    if (detail >= sizeof(task->detail) || task->class >= FAIL_CLASS_COUNT)
        return false;
    get_bytes(in, task->detail, (size_t)detail);
    return !in->bad;
}

void keep_task_save(struct keep *keep, const struct rank_task *task)
{
    struct buf bytes;

    buf_init(&bytes, 0);
    task_record(task, &bytes);
    add_record(keep, RECORD_TASK, &bytes);
}

static void set_order(struct keep_task *task, bool go, const uint8_t *order, size_t size)
{
    uint8_t **bytes = go ? &task->go : &task->prepare;

    free(*bytes);
    *bytes = (uint8_t *)mem_dup(order, size);
    *(go ? &task->go_size : &task->prepare_size) = size;
}

static void order_record(struct keep *keep, const struct keep_task *task, bool go)
{
    struct buf bytes;

    buf_init(&bytes, 0);
    put_int(&bytes, task->attempt, 8);
    put_int(&bytes, task->epoch, 4);
    buf_append(&bytes, go ? task->go : task->prepare, go ? task->go_size : task->prepare_size);
    add_record(keep, go ? RECORD_GO : RECORD_PREPARE, &bytes);
}

void keep_task_order(struct keep *keep, uint64_t attempt, uint32_t epoch, bool go,
                     const void *order, size_t size)
{
    struct keep_task *task = task_make(keep, attempt, epoch);

    BUG_ON(!task || size > JOURNAL_MAX_RECORD - 16);
    set_order(task, go, order, size);
    order_record(keep, task, go);
}

void keep_task_drop(struct keep *keep, uint64_t attempt, uint32_t epoch)
{
    struct buf bytes;

    task_remove(keep, attempt, epoch);
    buf_init(&bytes, 0);
    put_int(&bytes, attempt, 8);
    put_int(&bytes, epoch, 4);
    add_record(keep, RECORD_DROP, &bytes);
}

struct keep_stream *keep_task_stream(struct keep *keep, struct keep_task *task, uint32_t rank,
                                     uint32_t stream)
{
    struct keep_stream *made;

    (void)keep;
    for (uint32_t i = 0; i < task->stream_count; i++) {
        if (task->stream[i].rank == rank && task->stream[i].stream == stream)
            return &task->stream[i];
    }
    if (task->stream_count == KEEP_MAX_STREAMS)
        return NULL;
    made = &task->stream[task->stream_count++];
    memset(made, 0, sizeof(*made));
    made->rank = rank;
    made->stream = stream;
    return made;
}

/* -- messages ---------------------------------------------------------------------------------- */

static void outbox_push(struct keep *keep, uint64_t seq, const void *bytes, size_t size)
{
    struct keep_message *message;

    if (keep->outbox_count == keep->outbox_capacity) {
        keep->outbox_capacity = keep->outbox_capacity ? keep->outbox_capacity * 2 : 16;
        keep->outbox = mem_resize(keep->outbox, keep->outbox_capacity, sizeof(keep->outbox[0]));
    }
    message = &keep->outbox[keep->outbox_count++];
    message->seq = seq;
    message->bytes = (uint8_t *)mem_dup(bytes, size);
    message->size = size;
    keep->counters.out_seq = seq;
}

static void outbox_ack(struct keep *keep, uint64_t seq)
{
    uint32_t gone = 0;

    while (gone < keep->outbox_count && keep->outbox[gone].seq <= seq)
        free(keep->outbox[gone++].bytes);
    keep->outbox_count -= gone;
    if (gone > 0)
        memmove(keep->outbox, keep->outbox + gone, keep->outbox_count * sizeof(keep->outbox[0]));
    if (keep->counters.acked_seq < seq)
        keep->counters.acked_seq = seq;
}

static void message_record(struct keep *keep, const struct keep_message *message)
{
    struct buf bytes;

    buf_init(&bytes, 0);
    put_int(&bytes, message->seq, 8);
    buf_append(&bytes, message->bytes, message->size);
    add_record(keep, RECORD_MESSAGE, &bytes);
}

uint64_t keep_message_next_seq(const struct keep *keep)
{
    return keep->counters.out_seq + 1;
}

uint64_t keep_message_add(struct keep *keep, const void *bytes, size_t size)
{
    outbox_push(keep, keep->counters.out_seq + 1, bytes, size);
    message_record(keep, &keep->outbox[keep->outbox_count - 1]);
    return keep->counters.out_seq;
}

void keep_message_ack(struct keep *keep, uint64_t seq)
{
    struct buf bytes;

    if (seq <= keep->counters.acked_seq || seq > keep->counters.out_seq)
        return;
    outbox_ack(keep, seq);
    buf_init(&bytes, 0);
    put_int(&bytes, seq, 8);
    add_record(keep, RECORD_ACK, &bytes);
}

uint32_t keep_message_count(const struct keep *keep)
{
    return keep->outbox_count;
}

const struct keep_message *keep_message_at(const struct keep *keep, uint32_t index)
{
    BUG_ON(index >= keep->outbox_count);
    return &keep->outbox[index];
}

static void counters_record(struct keep *keep)
{
    struct buf bytes;

    buf_init(&bytes, 0);
    put_int(&bytes, keep->counters.boot, 8);
    put_int(&bytes, keep->counters.out_seq, 8);
    put_int(&bytes, keep->counters.acked_seq, 8);
    put_int(&bytes, keep->counters.receipt_seq, 8);
    add_record(keep, RECORD_COUNTERS, &bytes);
}

uint64_t keep_receipt_next(struct keep *keep)
{
    keep->counters.receipt_seq++;
    counters_record(keep);
    return keep->counters.receipt_seq;
}

const struct keep_counters *keep_counters(const struct keep *keep)
{
    return &keep->counters;
}

/* -- logs -------------------------------------------------------------------------------------- */

static void stream_head(const struct keep_task *task, const struct keep_stream *stream,
                        uint64_t seq, struct buf *out)
{
    put_int(out, task->attempt, 8);
    put_int(out, task->epoch, 4);
    put_int(out, stream->rank, 4);
    put_int(out, stream->stream, 4);
    put_int(out, seq, 8);
}

void keep_log_cut(struct keep *keep, const struct keep_task *task, const struct keep_stream *stream,
                  const struct log_cut *cut)
{
    struct buf bytes;

    buf_init(&bytes, 0);
    stream_head(task, stream, cut->seq, &bytes);
    put_int(&bytes, cut->offset, 8);
    put_int(&bytes, cut->size, 4);
    put_int(&bytes, (uint64_t)cut->at_us, 8);
    put_int(&bytes, cut->last, 1);
    add_record(keep, RECORD_LOG_CUT, &bytes);
}

void keep_log_ack(struct keep *keep, const struct keep_task *task, const struct keep_stream *stream,
                  uint64_t seq)
{
    struct buf bytes;

    buf_init(&bytes, 0);
    stream_head(task, stream, seq, &bytes);
    add_record(keep, RECORD_LOG_ACK, &bytes);
}

/* The numbers that follow the ones acknowledged, for a journal that starts anew. */
static void stream_record(struct keep *keep, const struct keep_task *task,
                          const struct keep_stream *stream)
{
    const struct log_stream *log = &stream->log;
    uint64_t first_seq = log->next_seq - log->flight_count;
    uint64_t offset = log->flight_count > 0 ? log->flight[0].offset : log->next_offset;

    if (first_seq > 0) { /* one piece stands for all that are acknowledged */
        struct log_cut past = {.seq = first_seq - 1, .offset = offset};

        past.last = log->closed && log->flight_count == 0;
        keep_log_cut(keep, task, stream, &past);
        keep_log_ack(keep, task, stream, past.seq);
    }
    for (uint32_t i = 0; i < log->flight_count; i++)
        keep_log_cut(keep, task, stream, &log->flight[i]);
}

static void replay_log(struct keep *keep, struct reader *in, bool ack)
{
    uint64_t attempt = get_int(in, 8);
    uint32_t epoch = (uint32_t)get_int(in, 4);
    uint32_t rank = (uint32_t)get_int(in, 4);
    uint32_t number = (uint32_t)get_int(in, 4);
    struct log_cut cut = {.seq = get_int(in, 8)};
    struct keep_task *task = keep_task_find(keep, attempt, epoch);
    struct keep_stream *stream = task ? keep_task_stream(keep, task, rank, number) : NULL;

    if (!stream)
        return;
    if (ack) {
        log_stream_ack(&stream->log, cut.seq);
        return;
    }
    cut.offset = get_int(in, 8);
    cut.size = (uint32_t)get_int(in, 4);
    cut.at_us = (int64_t)get_int(in, 8);
    cut.last = get_int(in, 1) != 0;
    if (in->bad)
        return;
    if (stream->log.next_seq == 0)
        stream->log.next_seq = cut.seq; /* a journal that starts anew starts in the middle */
    log_stream_restore(&stream->log, &cut);
}

/* -- replay ------------------------------------------------------------------------------------ */

static void replay_task(struct keep *keep, struct reader *in)
{
    struct rank_task task;
    struct rank_task *known;

    if (!task_parse(in, &task))
        return;
    known = tasks_find(keep->tasks, task.id.attempt, task.id.epoch);
    if (known)
        *known = task;
    else if (!tasks_restore(keep->tasks, &task))
        log_error("keep", "too-many-tasks", "attempt=%llu", (unsigned long long)task.id.attempt);
}

static void replay_drop(struct keep *keep, struct reader *in)
{
    uint64_t attempt = get_int(in, 8);
    uint32_t epoch = (uint32_t)get_int(in, 4);
    struct rank_task *task = tasks_find(keep->tasks, attempt, epoch);

    if (task)
        *task = keep->tasks->task[--keep->tasks->count];
    task_remove(keep, attempt, epoch);
}

static void replay_order(struct keep *keep, struct reader *in, bool go)
{
    uint64_t attempt = get_int(in, 8);
    uint32_t epoch = (uint32_t)get_int(in, 4);
    struct keep_task *task = in->bad ? NULL : task_make(keep, attempt, epoch);

    if (task)
        set_order(task, go, in->bytes, in->left);
}

static void replay_counters(struct keep *keep, struct reader *in)
{
    keep->counters.boot = get_int(in, 8);
    keep->counters.out_seq = get_int(in, 8);
    keep->counters.acked_seq = get_int(in, 8);
    keep->counters.receipt_seq = get_int(in, 8);
}

static void on_record(uint32_t type, const uint8_t *bytes, size_t size, void *arg)
{
    struct keep *keep = arg;
    struct reader in = {bytes, size, false};
    uint8_t job[16] = {0};
    uint64_t seq;

    switch ((enum record_type)type) {
    case RECORD_COUNTERS:
        replay_counters(keep, &in);
        break;
    case RECORD_TASK:
        replay_task(keep, &in);
        break;
    case RECORD_PREPARE:
    case RECORD_GO:
        replay_order(keep, &in, type == RECORD_GO);
        break;
    case RECORD_DROP:
        replay_drop(keep, &in);
        break;
    case RECORD_FENCE:
        get_bytes(&in, job, sizeof(job));
        tasks_fence(keep->tasks, job, (uint32_t)get_int(&in, 4));
        break;
    case RECORD_MESSAGE:
        seq = get_int(&in, 8);
        outbox_push(keep, seq, in.bytes, in.left);
        break;
    case RECORD_ACK:
        outbox_ack(keep, get_int(&in, 8));
        break;
    case RECORD_LOG_CUT:
    case RECORD_LOG_ACK:
        replay_log(keep, &in, type == RECORD_LOG_ACK);
        break;
    }
}

/* -- the journal ------------------------------------------------------------------------------- */

static void fill(struct journal *journal, void *arg)
{
    struct keep *keep = arg;

    (void)journal;
    counters_record(keep);
    for (uint32_t i = 0; i < keep->tasks->fence_count; i++) {
        const struct task_fence *fence =
            &keep->tasks->fence[(keep->tasks->fence_next + i) % keep->tasks->fence_count];
        struct buf bytes;

        buf_init(&bytes, 0);
        buf_append(&bytes, fence->job, 16);
        put_int(&bytes, fence->epoch, 4);
        add_record(keep, RECORD_FENCE, &bytes);
    }
    for (uint32_t i = 0; i < keep->tasks->count; i++)
        keep_task_save(keep, &keep->tasks->task[i]);
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        const struct keep_task *task = &keep->task[i];

        if (!keep->used[i])
            continue;
        if (task->prepare)
            order_record(keep, task, false);
        if (task->go)
            order_record(keep, task, true);
        for (uint32_t k = 0; k < task->stream_count; k++)
            stream_record(keep, task, &task->stream[k]);
    }
    for (uint32_t i = 0; i < keep->outbox_count; i++)
        message_record(keep, &keep->outbox[i]);
}

/* Orders whose task the journal does not know: a crash came between the two. */
static void drop_strangers(struct keep *keep)
{
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        if (keep->used[i] && !tasks_find(keep->tasks, keep->task[i].attempt, keep->task[i].epoch))
            task_remove(keep, keep->task[i].attempt, keep->task[i].epoch);
    }
}

int keep_open(const char *state_dir, struct tasks *tasks, struct keep **ret_keep, struct err *err)
{
    struct keep *keep = mem_new(1, sizeof(*keep));
    char path[FS_PATH];
    uint64_t cut = 0;
    int rc;

    keep->tasks = tasks;
    rc = fs_path(path, "%s/journal", state_dir);
    if (rc != 0)
        rc = err_set(err, ERR_IO, "the state folder's path is too long");
    if (rc == 0)
        rc = journal_open(path, on_record, keep, &keep->journal, &cut, err);
    if (rc != 0) {
        keep_close(keep);
        return rc;
    }
    if (cut > 0)
        log_warn("keep", "journal-cut", "bytes=%llu kept=%s.damaged", (unsigned long long)cut,
                 path);
    drop_strangers(keep);
    keep->counters.boot++;
    rc = journal_rewrite(keep->journal, fill, keep, err);
    if (rc != 0) {
        keep_close(keep);
        return rc;
    }
    keep->rewritten_size = journal_size(keep->journal);
    keep->dirty = false;
    *ret_keep = keep;
    return 0;
}

void keep_close(struct keep *keep)
{
    if (!keep)
        return;
    journal_close(keep->journal);
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        if (keep->used[i])
            task_remove(keep, keep->task[i].attempt, keep->task[i].epoch);
    }
    for (uint32_t i = 0; i < keep->outbox_count; i++)
        free(keep->outbox[i].bytes);
    free(keep->outbox);
    free(keep);
}

int keep_commit(struct keep *keep, struct err *err)
{
    uint64_t size;
    int rc;

    if (!keep->dirty)
        return 0;
    rc = journal_commit(keep->journal, true, err);
    if (rc != 0)
        return rc;
    keep->dirty = false;
    size = journal_size(keep->journal);
    if (size < KEEP_REWRITE_BYTES || size < 2 * keep->rewritten_size)
        return 0;
    rc = journal_rewrite(keep->journal, fill, keep, err);
    keep->rewritten_size = journal_size(keep->journal);
    keep->dirty = false;
    return rc;
}

int keep_flush(struct keep *keep, struct err *err)
{
    return journal_commit(keep->journal, false, err);
}
