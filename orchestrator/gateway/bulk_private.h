#ifndef SHEAF_ORCHESTRATOR_GATEWAY_BULK_PRIVATE_H
#define SHEAF_ORCHESTRATOR_GATEWAY_BULK_PRIVATE_H

/* What bulk.c (sessions, logs) and bulk_file.c (files) share. */
#include "common/io/loop.h"
#include "common/pure/map.h"
#include "common/pure/spec.h"
#include "orchestrator/gateway/bulk.h"
#include "orchestrator/gateway/content.h"
#include "orchestrator/gateway/db.h"
#include "proto/bulk.pb-c.h"

#define BULK_PIECE  ((size_t)256 << 10) /* data of one piece, bulk.proto */
#define BULK_CREDIT ((uint64_t)4 << 20) /* that a worker may send ahead; 150 ms x 25 MB/s */
/* A zstd frame of BULK_PIECE incompressible bytes, and the table's own bound. */
#define BULK_PACKED    ((size_t)300000)
#define BULK_MAX_FILES 8 /* at once per session and direction */
#define BULK_FRAME     (BULK_PACKED + 4096)

struct bulk_fetch {
    bool used;
    bool asking;
    uint64_t number; /* tells a reused place from its predecessor */
    uint8_t sha256[SHA256_SIZE];
    uint64_t at;
    uint64_t size;
    int fd;
};

struct bulk_put {
    bool used;
    bool sealing; /* all bytes are here */
    uint64_t number;
    struct content_key key;
    uint8_t attempt[16];
    uint32_t rank;
    char path[SPEC_PATH_TEXT];
    uint8_t node[16];
    uint64_t at;
    int fd; /* -1 until the database agreed */
};

/* One authenticated key; its newest connection. */
struct bulk_session {
    uint64_t id;
    uint8_t key[KEY_SIZE];
    uint8_t identity[256];
    size_t identity_size;
    int64_t heard_us;
    uint64_t credit_out; /* that we may send */
    uint64_t credit_in;  /* that it may still send */
    struct map ranks;    /* attempt uid → struct bulk_rank */
    struct bulk_fetch fetches[BULK_MAX_FILES];
    struct bulk_put puts[BULK_MAX_FILES];
};

struct bulk {
    struct gateway *gateway;
    struct zap *zap;
    struct zsock *socket;
    struct event *tick;
    struct event *more;  /* fetches with credit left: next turn */
    struct map keys;     /* allowed keys → themselves */
    struct map sessions; /* id → session */
    struct map by_key;   /* curve key → session */
    uint64_t next_id;
    bool ready; /* keys were read */
    bool refreshing;
    bool refresh_again;
    struct log_batch *logs;
    struct bulk_counters counters;
};

/* What a worker sent, whatever it is. raw->user_id is the key that ZAP let in. */
void bulk_on_message(struct zsock *socket, const struct zmsg *raw, void *arg);
struct bulk_session *bulk_session_find(struct bulk *bulk, uint64_t id);
/* False when the peer is gone or its queue is full: then the session is ended. */
bool bulk_send(struct bulk *bulk, struct bulk_session *session, Sheaf__Bulk *message);
void bulk_error(struct bulk *bulk, struct bulk_session *session, enum err_code code,
                const char *detail, const uint8_t *sha256);
/* What it sent is dealt with: it may send as much again. */
void bulk_give_credit(struct bulk *bulk, struct bulk_session *session, uint64_t bytes);

/* bulk_file.c */
void bulk_on_fetch(struct bulk *bulk, struct bulk_session *session, const Sheaf__FetchFile *fetch);
void bulk_on_put(struct bulk *bulk, struct bulk_session *session, const Sheaf__PutFile *put);
void bulk_on_piece(struct bulk *bulk, struct bulk_session *session, const Sheaf__FilePiece *piece);
/* Sends file pieces while there is credit; true when there is more to do. */
bool bulk_fetch_go(struct bulk *bulk, struct bulk_session *session);
void bulk_files_end(struct bulk_session *session);

/* bulk_log.c */
struct log_batch *log_batch_new(struct bulk *bulk);
void log_batch_free(struct log_batch *logs);
void bulk_on_log(struct bulk *bulk, struct bulk_session *session, const Sheaf__LogPiece *piece);
void bulk_logs_end(struct bulk_session *session);

#endif
