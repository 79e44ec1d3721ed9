/* Files to workers (inputs of live attempts) and from them (outputs), with credit and resume. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/log.h"
#include "common/pure/mem.h"
#include "common/pure/utf8.h"
#include "orchestrator/gateway/bulk_private.h"
#include "orchestrator/gateway/command.h"
#include "orchestrator/gateway/work.h"

/* Pieces per session and turn: 2 MiB, about a millisecond of reading. */
#define TURN_PIECES 8

/* A place in a session that is still the one a lookup was made for. */
struct file_lookup {
    struct bulk *bulk;
    uint32_t index;
    uint64_t number;
};

/* -- fetch ---------------------------------------------------------------------------------- */

static void fetch_end(struct bulk_fetch *fetch)
{
    if (fetch->used && fetch->fd >= 0)
        close(fetch->fd);
    *fetch = (struct bulk_fetch){.fd = -1};
}

/* One piece; false when the transfer must stop. */
static bool send_piece(struct bulk *bulk, struct bulk_session *session, struct bulk_fetch *fetch)
{
    static uint8_t data[BULK_PIECE];
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__FilePiece piece = SHEAF__FILE_PIECE__INIT;
    uint64_t left = fetch->size - fetch->at;
    size_t want = left < BULK_PIECE ? (size_t)left : BULK_PIECE;

    if (want > session->credit_out)
        want = (size_t)session->credit_out;
    ssize_t got = want > 0 ? pread(fetch->fd, data, want, (off_t)fetch->at) : 0;
    if (got < 0 || (got == 0 && left > 0)) {
        bulk_error(bulk, session, ERR_IO, "the content cannot be read", fetch->sha256);
        return false;
    }
    piece.sha256 = (ProtobufCBinaryData){SHA256_SIZE, fetch->sha256};
    piece.offset = fetch->at;
    piece.data = (ProtobufCBinaryData){(size_t)got, data};
    piece.last = (uint64_t)got == left;
    message.body_case = SHEAF__BULK__BODY_PIECE;
    message.piece = &piece;
    if (!bulk_send(bulk, session, &message))
        return false;
    fetch->at += (uint64_t)got;
    session->credit_out -= (uint64_t)got;
    bulk->counters.file_bytes_out += (uint64_t)got;
    return !piece.last;
}

bool bulk_fetch_go(struct bulk *bulk, struct bulk_session *session)
{
    int sent = 0;
    bool more = false;

    for (uint32_t i = 0; i < BULK_MAX_FILES; i++) {
        struct bulk_fetch *fetch = &session->fetches[i];
        while (fetch->used && !fetch->asking && sent < TURN_PIECES
               && (session->credit_out > 0 || fetch->at == fetch->size)) {
            sent++;
            if (!send_piece(bulk, session, fetch))
                fetch_end(fetch);
        }
        more |= fetch->used && !fetch->asking && session->credit_out > 0;
    }
    return more;
}

static void fetch_open(struct bulk *bulk, struct bulk_session *session, struct bulk_fetch *fetch)
{
    struct err err = {0};

    if (content_open(bulk->gateway->content, fetch->sha256, &fetch->fd, &fetch->size, &err) != 0) {
        bulk_error(bulk, session, ERR_INPUT_UNAVAILABLE, err.text, fetch->sha256);
        fetch_end(fetch);
    } else if (fetch->at > fetch->size) {
        bulk_error(bulk, session, ERR_RANGE_INVALID, "an offset beyond the end", fetch->sha256);
        fetch_end(fetch);
    } else {
        fetch->asking = false;
        content_use(bulk->gateway->content, fetch->sha256);
        if (bulk_fetch_go(bulk, session))
            event_active(bulk->more, EV_TIMEOUT, 0);
    }
}

static void on_fetch_known(const struct err *err, PGresult *const *results, uint32_t count,
                           uint64_t id, void *arg)
{
    struct file_lookup *lookup = arg;
    struct bulk *bulk = lookup->bulk;
    struct bulk_session *session = bulk_session_find(bulk, id);
    struct bulk_fetch *fetch = session != NULL ? &session->fetches[lookup->index] : NULL;

    (void)count;
    if (fetch != NULL && fetch->used && fetch->number == lookup->number) {
        if (err != NULL) {
            bulk_error(bulk, session, ERR_UNAVAILABLE, "ask again", fetch->sha256);
            fetch_end(fetch);
        } else if (PQntuples(results[0]) == 0) {
            bulk_error(bulk, session, ERR_NOT_FOUND, "no live attempt of yours names this content",
                       fetch->sha256);
            fetch_end(fetch);
        } else {
            fetch_open(bulk, session, fetch);
        }
    }
    free(lookup);
}

/* The place of this content (a fetch begun again replaces itself), or a free one. */
static struct bulk_fetch *fetch_place(struct bulk_session *session, const uint8_t *sha256,
                                      uint32_t *ret_index)
{
    struct bulk_fetch *place = NULL;

    for (uint32_t i = 0; i < BULK_MAX_FILES; i++) {
        struct bulk_fetch *fetch = &session->fetches[i];
        if (fetch->used && memcmp(fetch->sha256, sha256, SHA256_SIZE) == 0) {
            fetch_end(fetch);
            *ret_index = i;
            return fetch;
        }
        if (!fetch->used && place == NULL) {
            place = fetch;
            *ret_index = i;
        }
    }
    return place;
}

void bulk_on_fetch(struct bulk *bulk, struct bulk_session *session, const Sheaf__FetchFile *ask)
{
    struct file_lookup *lookup;
    struct db_args args;
    char hex[SHA256_HEX];
    uint32_t index = 0;

    if (ask->attempt_uid.len != 16 || ask->sha256.len != SHA256_SIZE) {
        bulk_error(bulk, session, ERR_INVALID_ID, "not an attempt and a hash", NULL);
        return;
    }
    struct bulk_fetch *fetch = fetch_place(session, ask->sha256.data, &index);
    if (fetch == NULL) {
        bulk_error(bulk, session, ERR_TOO_MANY, "8 files at once", ask->sha256.data);
        return;
    }
    *fetch = (struct bulk_fetch){
        .used = true, .asking = true, .number = ++bulk->next_id, .at = ask->offset, .fd = -1};
    memcpy(fetch->sha256, ask->sha256.data, SHA256_SIZE);
    lookup = mem_new(1, sizeof(*lookup));
    *lookup = (struct file_lookup){.bulk = bulk, .index = index, .number = fetch->number};
    db_args_init(&args, QUERY_BULK_FETCH);
    db_add_bytes(&args, ask->attempt_uid.data, 16);
    db_add_bytes(&args, session->key, KEY_SIZE);
    db_add_text(&args, hex_format(fetch->sha256, SHA256_SIZE, hex));
    db_ask(bulk->gateway->db, &db_sight_own, &args, 1, on_fetch_known, session->id, lookup);
}

/* -- put ------------------------------------------------------------------------------------ */

static void put_end(struct bulk_put *put)
{
    if (put->used && put->fd >= 0)
        close(put->fd);
    *put = (struct bulk_put){.fd = -1};
}

static void put_state(struct bulk *bulk, struct bulk_session *session, const uint8_t *sha256,
                      uint64_t offset, bool stored)
{
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__PutState state = SHEAF__PUT_STATE__INIT;
    union {
        const uint8_t *in;
        uint8_t *out;
    } hash = {.in = sha256};

    state.sha256 = (ProtobufCBinaryData){SHA256_SIZE, hash.out};
    state.offset = offset;
    state.stored = stored;
    message.body_case = SHEAF__BULK__BODY_PUT_STATE;
    message.put_state = &state;
    (void)bulk_send(bulk, session, &message);
}

/* An upload that is whole: to the work thread, then to the orchestrator. Outlives its session. */
struct sealing {
    struct work_item item;
    struct bulk *bulk;
    uint64_t session;
    uint32_t index;
    uint64_t number;
    struct content_key key;
    uint8_t attempt[16];
    uint8_t node[16];
    uint32_t rank;
    char path[SPEC_PATH_TEXT];
};

static struct bulk_session *sealing_session(const struct sealing *sealing,
                                            struct bulk_put **ret_put)
{
    struct bulk_session *session = bulk_session_find(sealing->bulk, sealing->session);

    if (session == NULL)
        return NULL;
    struct bulk_put *put = &session->puts[sealing->index];
    *ret_put = put->used && put->number == sealing->number ? put : NULL;
    return *ret_put != NULL ? session : NULL;
}

static void sealing_end(struct sealing *sealing, enum err_code code, const char *detail)
{
    struct bulk_put *put = NULL;
    struct bulk_session *session = sealing_session(sealing, &put);

    if (code != ERR_NONE)
        log_warn("bulk", "output-refused", "code=%s detail=" LOG_Q, err_slug(code), detail);
    else
        sealing->bulk->counters.outputs++;
    if (session != NULL) {
        if (code != ERR_NONE)
            bulk_error(sealing->bulk, session, code, detail, sealing->key.sha256);
        else
            put_state(sealing->bulk, session, sealing->key.sha256, sealing->key.size, true);
        put_end(put);
    }
    free(sealing);
}

static void on_output_reply(const struct err *err, const Sheaf__CommandReply *reply, uint64_t call,
                            void *arg)
{
    struct sealing *sealing = arg;

    (void)call;
    if (err != NULL) {
        sealing_end(sealing, err->code, err->text);
        return;
    }
    enum err_code code = err_from_slug(reply->code);
    if (reply->code[0] != '\0' && code == ERR_NONE)
        code = ERR_INTERNAL;
    sealing_end(sealing, code, reply->detail);
}

static void on_put_sealed(struct work_item *item, int rc, const struct err *err)
{
    struct sealing *sealing = (struct sealing *)item;
    struct gateway *gateway = sealing->bulk->gateway;
    Sheaf__Command command = SHEAF__COMMAND__INIT;
    Sheaf__OutputStored output = SHEAF__OUTPUT_STORED__INIT;

    if (rc != 0) {
        sealing_end(sealing, err->code, err->text);
        return;
    }
    output.node = (ProtobufCBinaryData){16, sealing->node};
    output.attempt_uid = (ProtobufCBinaryData){16, sealing->attempt};
    output.rank = sealing->rank;
    output.path = sealing->path;
    output.sha256 = (ProtobufCBinaryData){SHA256_SIZE, sealing->key.sha256};
    output.size = sealing->key.size;
    command.credential = (ProtobufCBinaryData){SHA256_SIZE, gateway->token_hash};
    command.what_case = SHEAF__COMMAND__WHAT_OUTPUT;
    command.output = &output;
    command_send(gateway->commands, &command, on_output_reply, 0, sealing);
}

static int run_put_seal(struct work_item *item, struct err *err)
{
    const struct sealing *sealing = (const struct sealing *)item;

    return content_seal(sealing->bulk->gateway->content, &sealing->key, false, err);
}

static void put_seal(struct bulk *bulk, struct bulk_session *session, uint32_t index)
{
    struct bulk_put *put = &session->puts[index];
    struct sealing *sealing = mem_new(1, sizeof(*sealing));

    put->sealing = true;
    sealing->item = (struct work_item){.run = run_put_seal, .on_done = on_put_sealed};
    sealing->bulk = bulk;
    sealing->session = session->id;
    sealing->index = index;
    sealing->number = put->number;
    sealing->key = put->key;
    memcpy(sealing->attempt, put->attempt, 16);
    memcpy(sealing->node, put->node, 16);
    sealing->rank = put->rank;
    memcpy(sealing->path, put->path, sizeof(put->path));
    if (!work_post(bulk->gateway->work, &sealing->item))
        sealing_end(sealing, ERR_UNAVAILABLE, "too many uploads are being checked: ask again");
}

static void put_begin(struct bulk *bulk, struct bulk_session *session, uint32_t index)
{
    struct bulk_put *put = &session->puts[index];
    struct err err = {0};

    if (content_stream(bulk->gateway->content, &put->key, &put->at, &put->fd, &err) != 0) {
        bulk_error(bulk, session, err.code, err.text, put->key.sha256);
        put_end(put);
        return;
    }
    if (put->at == put->key.size)
        put_seal(bulk, session, index);
    else
        put_state(bulk, session, put->key.sha256, put->at, false);
}

/* Columns of QUERY_BULK_OUTPUT: node uid, sha256 of what is stored already, attempt is live. */
static void on_put_known(const struct err *err, PGresult *const *results, uint32_t count,
                         uint64_t id, void *arg)
{
    struct file_lookup *lookup = arg;
    struct bulk *bulk = lookup->bulk;
    struct bulk_session *session = bulk_session_find(bulk, id);
    struct bulk_put *put = session != NULL ? &session->puts[lookup->index] : NULL;
    char hex[SHA256_HEX];
    struct uuid node;

    (void)count;
    if (put == NULL || !put->used || put->number != lookup->number) {
        free(lookup);
        return;
    }
    if (err != NULL || PQntuples(results[0]) == 0
        || uuid_parse(PQgetvalue(results[0], 0, 0), &node) != 0) {
        bulk_error(bulk, session, err != NULL ? ERR_UNAVAILABLE : ERR_NOT_FOUND,
                   "no rank of yours has this output", put->key.sha256);
        put_end(put);
    } else if (strcmp(PQgetvalue(results[0], 0, 1), hex_format(put->key.sha256, SHA256_SIZE, hex))
               == 0) {
        put_state(bulk, session, put->key.sha256, put->key.size, true);
        put_end(put);
    } else if (PQgetvalue(results[0], 0, 2)[0] != 't') {
        bulk_error(bulk, session, ERR_STATE_CONFLICT, "the attempt is over", put->key.sha256);
        put_end(put);
    } else {
        memcpy(put->node, node.bytes, 16);
        put_begin(bulk, session, lookup->index);
    }
    free(lookup);
}

static bool put_is_sane(const Sheaf__PutFile *ask)
{
    size_t length = strlen(ask->path);

    return ask->attempt_uid.len == 16 && ask->sha256.len == SHA256_SIZE && length > 0
           && length < SPEC_PATH_TEXT && utf8_is_valid(ask->path, length)
           && ask->rank < SPEC_MAX_NODES;
}

/* NULL when all places are taken, or this content is on its way already. */
static struct bulk_put *put_place(struct bulk_session *session, const uint8_t *sha256,
                                  uint32_t *ret_index)
{
    struct bulk_put *place = NULL;

    for (uint32_t i = 0; i < BULK_MAX_FILES; i++) {
        struct bulk_put *put = &session->puts[i];
        if (put->used && memcmp(put->key.sha256, sha256, SHA256_SIZE) == 0) {
            if (put->sealing)
                return NULL;
            put_end(put);
            *ret_index = i;
            return put;
        }
        if (!put->used && place == NULL) {
            place = put;
            *ret_index = i;
        }
    }
    return place;
}

/* The upload's name in the store: attempt, rank and path together, so that none meets another. */
static void put_owner(struct bulk_put *put)
{
    struct sha256_stream *stream = sha256_stream_new();
    uint8_t hash[SHA256_SIZE];
    char hex[SHA256_HEX];

    sha256_stream_add(stream, put->attempt, sizeof(put->attempt));
    sha256_stream_add(stream, &put->rank, sizeof(put->rank));
    sha256_stream_add(stream, put->path, strlen(put->path));
    sha256_stream_end(stream, hash);
    sha256_stream_free(stream);
    snprintf(put->key.owner, sizeof(put->key.owner), "a-%.32s", hex_format(hash, SHA256_SIZE, hex));
}

void bulk_on_put(struct bulk *bulk, struct bulk_session *session, const Sheaf__PutFile *ask)
{
    struct db_args args;
    uint32_t index = 0;

    if (!put_is_sane(ask)) {
        bulk_error(bulk, session, ERR_OUT_OF_RANGE, "not an output", NULL);
        return;
    }
    struct bulk_put *put = put_place(session, ask->sha256.data, &index);
    if (put == NULL) {
        bulk_error(bulk, session, ERR_REQUEST_IN_PROGRESS, "being stored, or 8 files at once",
                   ask->sha256.data);
        return;
    }
    *put = (struct bulk_put){.used = true, .number = ++bulk->next_id, .rank = ask->rank, .fd = -1};
    memcpy(put->attempt, ask->attempt_uid.data, 16);
    memcpy(put->key.sha256, ask->sha256.data, SHA256_SIZE);
    put->key.size = ask->size;
    snprintf(put->path, sizeof(put->path), "%s", ask->path);
    put_owner(put);
    struct file_lookup *lookup = mem_new(1, sizeof(*lookup));
    *lookup = (struct file_lookup){.bulk = bulk, .index = index, .number = put->number};
    db_args_init(&args, QUERY_BULK_OUTPUT);
    db_add_bytes(&args, put->attempt, 16);
    db_add_bytes(&args, session->key, KEY_SIZE);
    db_add_int(&args, (int64_t)put->rank);
    db_add_text(&args, put->path);
    db_ask(bulk->gateway->db, &db_sight_own, &args, 1, on_put_known, session->id, lookup);
}

void bulk_on_piece(struct bulk *bulk, struct bulk_session *session, const Sheaf__FilePiece *piece)
{
    struct bulk_put *put = NULL;
    struct err err = {0};
    uint32_t index = 0;

    for (uint32_t i = 0; i < BULK_MAX_FILES && piece->sha256.len == SHA256_SIZE; i++) {
        if (session->puts[i].used
            && memcmp(session->puts[i].key.sha256, piece->sha256.data, SHA256_SIZE) == 0) {
            put = &session->puts[i];
            index = i;
        }
    }
    bulk_give_credit(bulk, session, piece->data.len);
    if (put == NULL || put->fd < 0 || put->sealing)
        return; /* what was still on its way when a transfer ended */
    if (piece->offset != put->at) {
        put_state(bulk, session, put->key.sha256, put->at, false);
        return;
    }
    if (content_append(put->fd, &put->key, put->at, piece->data.data, piece->data.len, &err) != 0) {
        bulk_error(bulk, session, err.code, err.text, put->key.sha256);
        put_end(put);
        return;
    }
    put->at += piece->data.len;
    bulk->counters.file_bytes_in += piece->data.len;
    if (put->at == put->key.size)
        put_seal(bulk, session, index);
}

void bulk_files_end(struct bulk_session *session)
{
    for (uint32_t i = 0; i < BULK_MAX_FILES; i++) {
        fetch_end(&session->fetches[i]);
        put_end(&session->puts[i]);
    }
}
