#include "worker/core/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/log.h"
#include "common/pure/mem.h"

/* ≤ 256 KiB of the protocol, and cheap to resend. */
#define PIECE_BYTES  ((size_t)256 << 10)
#define RETRY_MIN_MS 500u

struct transfer {
    struct transfer *next;
    const void *owner;
    transfer_on_done_f on_done;
    void *arg;
    uint8_t attempt_uid[16];
    uint8_t sha256[SHA256_SIZE];
    uint64_t size;
    uint64_t offset; /* bytes that are there (fetch), or sent (put) */
    uint64_t came;   /* fetch: bytes received in this life */
    char path[FS_PATH];
    uint32_t rank;
    char name[256];
    int fd;
    uint32_t tries;
    bool asked; /* in this session */
    bool ready; /* put: the gateway said from where */
};

struct transfers {
    struct bulk *bulk;
    struct transfer *fetch; /* the first one is active */
    struct transfer *put;
    struct event *retry;
};

static void start(struct transfers *transfers);

static void transfer_free(struct transfer *transfer)
{
    if (transfer->fd >= 0)
        close(transfer->fd);
    free(transfer);
}

static void finish(struct transfers *transfers, struct transfer **list, const struct err *err)
{
    struct transfer *transfer = *list;
    transfer_on_done_f on_done = transfer->on_done;
    void *arg = transfer->arg;

    *list = transfer->next;
    transfer_free(transfer);
    start(transfers);
    on_done(err, arg);
}

static void fail(struct transfers *transfers, struct transfer **list, enum err_code code,
                 const char *detail)
{
    struct err err = {0};

    (void)err_set(&err, code, "%s", detail);
    finish(transfers, list, &err);
}

/* -- asking ------------------------------------------------------------------------------------ */

static void ask_fetch(struct transfers *transfers, struct transfer *transfer)
{
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__FetchFile fetch = SHEAF__FETCH_FILE__INIT;

    fetch.attempt_uid.data = transfer->attempt_uid;
    fetch.attempt_uid.len = sizeof(transfer->attempt_uid);
    fetch.sha256.data = transfer->sha256;
    fetch.sha256.len = SHA256_SIZE;
    fetch.offset = transfer->offset;
    message.body_case = SHEAF__BULK__BODY_FETCH;
    message.fetch = &fetch;
    transfer->asked = bulk_send(transfers->bulk, &message, 0);
}

static void ask_put(struct transfers *transfers, struct transfer *transfer)
{
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__PutFile put = SHEAF__PUT_FILE__INIT;

    put.attempt_uid.data = transfer->attempt_uid;
    put.attempt_uid.len = sizeof(transfer->attempt_uid);
    put.rank = transfer->rank;
    put.path = transfer->name;
    put.sha256.data = transfer->sha256;
    put.sha256.len = SHA256_SIZE;
    put.size = transfer->size;
    message.body_case = SHEAF__BULK__BODY_PUT;
    message.put = &put;
    transfer->ready = false;
    transfer->asked = bulk_send(transfers->bulk, &message, 0);
}

/* What is in the file already counts, if it is not more than it should be. */
static bool open_fetch(struct transfer *transfer)
{
    struct stat stat;

    if (transfer->fd >= 0)
        return true;
    transfer->fd = open(transfer->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (transfer->fd < 0 || fstat(transfer->fd, &stat) != 0)
        return false;
    if ((uint64_t)stat.st_size > transfer->size && ftruncate(transfer->fd, 0) != 0)
        return false;
    transfer->offset = (uint64_t)stat.st_size > transfer->size ? 0 : (uint64_t)stat.st_size;
    return true;
}

static bool open_put(struct transfer *transfer)
{
    if (transfer->fd < 0)
        transfer->fd = open(transfer->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return transfer->fd >= 0;
}

static void start(struct transfers *transfers)
{
    if (evtimer_pending(transfers->retry, NULL))
        return; /* backing off */
    while (transfers->fetch && !transfers->fetch->asked) {
        if (!open_fetch(transfers->fetch)) {
            fail(transfers, &transfers->fetch, ERR_IO, strerror(errno));
            return; /* fail() started the next */
        }
        if (transfers->fetch->offset == transfers->fetch->size) {
            finish(transfers, &transfers->fetch, NULL);
            return;
        }
        ask_fetch(transfers, transfers->fetch);
        break;
    }
    if (transfers->put && !transfers->put->asked) {
        if (!open_put(transfers->put)) {
            fail(transfers, &transfers->put, ERR_IO, strerror(errno));
            return;
        }
        ask_put(transfers, transfers->put);
    }
}

/* -- pieces ------------------------------------------------------------------------------------ */

static void send_pieces(struct transfers *transfers)
{
    struct transfer *put = transfers->put;
    uint8_t *bytes;

    if (!put || !put->ready || put->offset >= put->size)
        return;
    bytes = mem_new(PIECE_BYTES, 1);
    while (put->offset < put->size) {
        uint64_t left = put->size - put->offset;
        size_t size = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        Sheaf__Bulk message = SHEAF__BULK__INIT;
        Sheaf__FilePiece piece = SHEAF__FILE_PIECE__INIT;

        if (bulk_credit(transfers->bulk) < size)
            break;
        if (pread(put->fd, bytes, size, (off_t)put->offset) != (ssize_t)size) {
            fail(transfers, &transfers->put, ERR_IO, "the packed output became shorter");
            break;
        }
        piece.sha256.data = put->sha256;
        piece.sha256.len = SHA256_SIZE;
        piece.offset = put->offset;
        piece.data.data = bytes;
        piece.data.len = size;
        piece.last = size == left;
        message.body_case = SHEAF__BULK__BODY_PIECE;
        message.piece = &piece;
        if (!bulk_send(transfers->bulk, &message, size))
            break;
        put->offset += size;
    }
    free(bytes);
}

static void take_piece(struct transfers *transfers, const Sheaf__FilePiece *piece)
{
    struct transfer *fetch = transfers->fetch;
    size_t size = piece->data.len;

    bulk_consumed(transfers->bulk, size);
    if (!fetch || piece->sha256.len != SHA256_SIZE
        || memcmp(piece->sha256.data, fetch->sha256, SHA256_SIZE) != 0
        || piece->offset != fetch->offset)
        return; /* of a transfer that was cancelled, or of an earlier try */
    if (size > fetch->size - fetch->offset || (size == 0 && !piece->last)) {
        fail(transfers, &transfers->fetch, ERR_INPUT_UNAVAILABLE,
             "the gateway sent more than the job file says");
        return;
    }
    if (size > 0
        && pwrite(fetch->fd, piece->data.data, size, (off_t)fetch->offset) != (ssize_t)size) {
        fail(transfers, &transfers->fetch, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO,
             "the input could not be written");
        return;
    }
    fetch->offset += size;
    fetch->came += size;
    if (fetch->offset == fetch->size)
        finish(transfers, &transfers->fetch, NULL);
    else if (piece->last)
        fail(transfers, &transfers->fetch, ERR_INPUT_UNAVAILABLE,
             "the gateway sent less than the job file says");
}

static void take_state(struct transfers *transfers, const Sheaf__PutState *state)
{
    struct transfer *put = transfers->put;

    if (!put || state->sha256.len != SHA256_SIZE
        || memcmp(state->sha256.data, put->sha256, SHA256_SIZE) != 0)
        return;
    if (state->stored) {
        finish(transfers, &transfers->put, NULL);
        return;
    }
    if (state->offset > put->size)
        return;
    put->offset = state->offset;
    put->ready = true;
    send_pieces(transfers);
}

static void retry_later(struct transfers *transfers, struct transfer *transfer)
{
    uint32_t ms = RETRY_MIN_MS << transfer->tries;
    struct timeval wait = {.tv_sec = (long)(ms / 1000), .tv_usec = (long)(ms % 1000) * 1000};

    transfer->tries++;
    transfer->ready = false;
    transfer->asked = false;
    evtimer_add(transfers->retry, &wait);
}

/* Asking again would be answered the same: the gateway knows what it stores and what is over. */
static bool is_final(enum err_code code, bool fetch)
{
    if (code == ERR_NOT_FOUND)
        return true;
    return !fetch && (code == ERR_BODY_TOO_LARGE || code == ERR_STATE_CONFLICT);
}

static enum err_code fetch_or(bool fetch, enum err_code code)
{
    if (fetch)
        return ERR_INPUT_UNAVAILABLE;
    return code != ERR_NONE ? code : ERR_IO;
}

static void take_error(struct transfers *transfers, const Sheaf__BulkError *error)
{
    struct transfer **lists[] = {&transfers->fetch, &transfers->put};
    enum err_code code = err_from_slug(error->code);

    for (size_t i = 0; i < 2; i++) {
        struct transfer *transfer = *lists[i];

        if (!transfer || error->sha256.len != SHA256_SIZE
            || memcmp(error->sha256.data, transfer->sha256, SHA256_SIZE) != 0)
            continue;
        log_warn("transfer", "error", "code=%s try=%u detail=" LOG_Q, error->code, transfer->tries,
                 error->detail);
        if (transfer->tries + 1 >= TRANSFER_MAX_TRIES || is_final(code, i == 0))
            fail(transfers, lists[i], fetch_or(i == 0, code), error->detail);
        else
            retry_later(transfers, transfer);
        return;
    }
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    start(arg);
}

/* -- life -------------------------------------------------------------------------------------- */

struct transfers *transfers_new(struct event_base *base, struct bulk *bulk)
{
    struct transfers *transfers = mem_new(1, sizeof(*transfers));

    transfers->bulk = bulk;
    transfers->retry = evtimer_new(base, on_retry, transfers);
    BUG_ON(!transfers->retry);
    return transfers;
}

static void free_list(struct transfer *list)
{
    while (list) {
        struct transfer *next = list->next;

        transfer_free(list);
        list = next;
    }
}

void transfers_free(struct transfers *transfers)
{
    if (!transfers)
        return;
    free_list(transfers->fetch);
    free_list(transfers->put);
    event_free(transfers->retry);
    free(transfers);
}

static struct transfer *push(struct transfer **list, const void *owner, transfer_on_done_f on_done,
                             void *arg)
{
    struct transfer *transfer = mem_new(1, sizeof(*transfer));

    while (*list)
        list = &(*list)->next;
    *list = transfer;
    transfer->owner = owner;
    transfer->on_done = on_done;
    transfer->arg = arg;
    transfer->fd = -1;
    return transfer;
}

void transfer_fetch(struct transfers *transfers, const struct transfer_fetch *fetch,
                    const void *owner, transfer_on_done_f on_done, void *arg)
{
    struct transfer *transfer = push(&transfers->fetch, owner, on_done, arg);

    memcpy(transfer->attempt_uid, fetch->attempt_uid, sizeof(transfer->attempt_uid));
    memcpy(transfer->sha256, fetch->sha256, SHA256_SIZE);
    memcpy(transfer->path, fetch->path, sizeof(transfer->path));
    transfer->size = fetch->size;
    if (transfer == transfers->fetch)
        start(transfers);
}

void transfer_put(struct transfers *transfers, const struct transfer_put *put, const void *owner,
                  transfer_on_done_f on_done, void *arg)
{
    struct transfer *transfer = push(&transfers->put, owner, on_done, arg);

    memcpy(transfer->attempt_uid, put->attempt_uid, sizeof(transfer->attempt_uid));
    memcpy(transfer->sha256, put->sha256, SHA256_SIZE);
    memcpy(transfer->path, put->path, sizeof(transfer->path));
    memcpy(transfer->name, put->name, sizeof(transfer->name));
    transfer->rank = put->rank;
    transfer->size = put->size;
    if (transfer == transfers->put)
        start(transfers);
}

static void cancel_in(struct transfer **list, const void *owner)
{
    while (*list) {
        struct transfer *transfer = *list;

        if (transfer->owner == owner) {
            *list = transfer->next;
            transfer_free(transfer);
        } else {
            list = &transfer->next;
        }
    }
}

void transfer_cancel(struct transfers *transfers, const void *owner)
{
    cancel_in(&transfers->fetch, owner);
    cancel_in(&transfers->put, owner);
    start(transfers);
}

uint64_t transfer_fetched(const struct transfers *transfers, const void *owner)
{
    const struct transfer *fetch = transfers->fetch;

    return fetch && fetch->owner == owner ? fetch->came : 0;
}

void transfers_up(struct transfers *transfers)
{
    evtimer_del(transfers->retry);
    if (transfers->fetch)
        transfers->fetch->asked = false;
    if (transfers->put) {
        transfers->put->asked = false;
        transfers->put->ready = false;
    }
    start(transfers);
}

void transfers_credit(struct transfers *transfers)
{
    start(transfers);
    send_pieces(transfers);
}

void transfers_message(struct transfers *transfers, const Sheaf__Bulk *message)
{
    if (message->body_case == SHEAF__BULK__BODY_PIECE)
        take_piece(transfers, message->piece);
    else if (message->body_case == SHEAF__BULK__BODY_PUT_STATE)
        take_state(transfers, message->put_state);
    else if (message->body_case == SHEAF__BULK__BODY_ERROR)
        take_error(transfers, message->error);
}
