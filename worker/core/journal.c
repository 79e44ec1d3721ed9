#include "worker/core/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/fs.h"
#include "common/io/hash.h"
#include "common/pure/mem.h"

#define JOURNAL_MAGIC    "sheaf journal 1\n"
#define MAGIC_SIZE       16
#define SUM_SIZE         16
#define HEAD_SIZE        (8 + SUM_SIZE)
#define JOURNAL_MAX_FILE ((size_t)256 << 20)

struct journal {
    char path[FS_PATH];
    int fd;
    uint64_t size;
    uint8_t sum[SUM_SIZE]; /* of the newest record, added or written */
    struct buf pending;
};

static void put_u32(uint8_t out[4], uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t in[4])
{
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

static void record_sum(const uint8_t former[SUM_SIZE], const uint8_t head[8], const uint8_t *bytes,
                       size_t size, uint8_t out[SUM_SIZE])
{
    struct sha256_stream *stream = sha256_stream_new();
    uint8_t whole[SHA256_SIZE];

    sha256_stream_add(stream, former, SUM_SIZE);
    sha256_stream_add(stream, head, 8);
    sha256_stream_add(stream, bytes, size);
    sha256_stream_end(stream, whole);
    sha256_stream_free(stream);
    memcpy(out, whole, SUM_SIZE);
}

/* Size of the valid part; calls back for each record in it. */
static size_t replay(struct journal *journal, const uint8_t *bytes, size_t size,
                     journal_on_record_f on_record, void *arg)
{
    size_t at = MAGIC_SIZE;

    while (size - at >= HEAD_SIZE) {
        const uint8_t *head = bytes + at;
        uint32_t length = get_u32(head);
        uint8_t sum[SUM_SIZE];

        if (length > JOURNAL_MAX_RECORD || length > size - at - HEAD_SIZE)
            break;
        record_sum(journal->sum, head, head + HEAD_SIZE, length, sum);
        if (memcmp(sum, head + 8, SUM_SIZE) != 0)
            break;
        memcpy(journal->sum, sum, SUM_SIZE);
        if (on_record)
            on_record(get_u32(head + 4), head + HEAD_SIZE, length, arg);
        at += HEAD_SIZE + length;
    }
    return at;
}

static int write_all(int fd, const char *bytes, size_t size, struct err *err)
{
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "journal: %s",
                           strerror(errno));
        bytes += n;
        size -= (size_t)n;
    }
    return 0;
}

/* Opens for appending at the end of what is valid. */
static int open_tail(struct journal *journal, uint64_t size, struct err *err)
{
    journal->fd = open(journal->path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (journal->fd < 0)
        return err_set(err, ERR_IO, "%s: %s", journal->path, strerror(errno));
    if (ftruncate(journal->fd, (off_t)size) != 0 || fdatasync(journal->fd) != 0
        || lseek(journal->fd, 0, SEEK_END) < 0)
        return err_set(err, ERR_IO, "%s: %s", journal->path, strerror(errno));
    journal->size = size;
    return 0;
}

static int load(struct journal *journal, journal_on_record_f on_record, void *arg,
                uint64_t *ret_cut, struct err *err)
{
    struct buf text;
    size_t valid;
    char damaged[FS_PATH];
    int rc;

    buf_init(&text, JOURNAL_MAX_FILE + 1);
    rc = fs_read(journal->path, JOURNAL_MAX_FILE, &text, err);
    if (rc != 0)
        goto out;
    if (text.length < MAGIC_SIZE || memcmp(text.data, JOURNAL_MAGIC, MAGIC_SIZE) != 0) {
        rc = err_set(err, ERR_STATE_CORRUPT, "%s is not a journal; move it away to start empty",
                     journal->path);
        goto out;
    }
    valid = replay(journal, (const uint8_t *)text.data, text.length, on_record, arg);
    *ret_cut = text.length - valid;
    if (*ret_cut > 0) {
        rc = fs_path(damaged, "%s.damaged", journal->path);
        if (rc == 0)
            rc = fs_write(damaged, text.data, text.length, 0600, err);
    }
    if (rc == 0)
        rc = open_tail(journal, valid, err);
out:
    buf_fini(&text);
    return rc;
}

int journal_open(const char *path, journal_on_record_f on_record, void *arg,
                 struct journal **ret_journal, uint64_t *ret_cut, struct err *err)
{
    struct journal *journal = mem_new(1, sizeof(*journal));
    uint64_t cut = 0;
    int rc;

    journal->fd = -1;
    buf_init(&journal->pending, 0);
    rc = fs_path(journal->path, "%s", path);
    if (rc != 0)
        rc = err_set(err, ERR_IO, "the path of the journal is too long");
    if (rc == 0 && access(path, F_OK) != 0)
        rc = fs_write(path, JOURNAL_MAGIC, MAGIC_SIZE, 0600, err);
    if (rc == 0)
        rc = load(journal, on_record, arg, &cut, err);
    if (rc != 0) {
        journal_close(journal);
        return rc;
    }
    *ret_cut = cut;
    *ret_journal = journal;
    return 0;
}

void journal_close(struct journal *journal)
{
    if (!journal)
        return;
    if (journal->fd >= 0)
        close(journal->fd);
    buf_fini(&journal->pending);
    free(journal);
}

void journal_add(struct journal *journal, uint32_t type, const void *bytes, size_t size)
{
    uint8_t head[8];
    uint8_t sum[SUM_SIZE];

    BUG_ON(size > JOURNAL_MAX_RECORD);
    put_u32(head, (uint32_t)size);
    put_u32(head + 4, type);
    record_sum(journal->sum, head, bytes, size, sum);
    memcpy(journal->sum, sum, SUM_SIZE);
    buf_append(&journal->pending, head, sizeof(head));
    buf_append(&journal->pending, sum, sizeof(sum));
    buf_append(&journal->pending, bytes, size);
    BUG_ON(journal->pending.full);
}

int journal_commit(struct journal *journal, bool sync, struct err *err)
{
    int rc = 0;

    if (journal->pending.length > 0) {
        rc = write_all(journal->fd, journal->pending.data, journal->pending.length, err);
        if (rc == 0)
            journal->size += journal->pending.length;
        buf_clear(&journal->pending);
    }
    if (rc == 0 && sync && fdatasync(journal->fd) != 0)
        rc = err_set(err, ERR_IO, "%s: %s", journal->path, strerror(errno));
    return rc;
}

uint64_t journal_size(const struct journal *journal)
{
    return journal->size;
}

int journal_rewrite(struct journal *journal, journal_fill_f fill, void *arg, struct err *err)
{
    uint8_t former[SUM_SIZE];
    uint64_t size;
    int rc;

    memcpy(former, journal->sum, SUM_SIZE);
    buf_clear(&journal->pending);
    memset(journal->sum, 0, SUM_SIZE);
    buf_append(&journal->pending, JOURNAL_MAGIC, MAGIC_SIZE);
    fill(journal, arg);
    size = journal->pending.length;
    rc = fs_write(journal->path, journal->pending.data, size, 0600, err);
    buf_clear(&journal->pending);
    if (rc != 0) {
        memcpy(journal->sum, former, SUM_SIZE); /* the old file goes on */
        return rc;
    }
    close(journal->fd);
    journal->fd = -1;
    return open_tail(journal, size, err);
}
