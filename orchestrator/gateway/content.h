#ifndef SHEAF_ORCHESTRATOR_GATEWAY_CONTENT_H
#define SHEAF_ORCHESTRATOR_GATEWAY_CONTENT_H

/*
 * The content store: immutable files named by their SHA-256, and uploads on their way. An upload is
 * one temporary file; it becomes content by being hashed, synced and renamed, or not at all. Knows
 * neither HTTP nor the bulk channel. Blocking: content_seal runs for seconds on large files and
 * belongs on the work thread; it touches no state of the store but the file system.
 *
 *   DIR/objects/ab/abcd…      content, read-only
 *   DIR/parts/OWNER-HASH      an upload in parts, and OWNER-HASH.map: one byte per part received
 *   DIR/parts/OWNER-HASH.sealed   that upload became content: its owner need not send it again
 *   DIR/streams/OWNER-HASH    an upload in order: its length is how far it came
 *
 * OWNER keeps tenants apart: nobody can append to, or learn of, an upload of somebody else.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/io/hash.h"
#include "common/pure/err.h"

#define CONTENT_PART      ((size_t)8 << 20)
#define CONTENT_MAX       ((uint64_t)4 << 30)
#define CONTENT_MAX_PARTS ((uint32_t)(CONTENT_MAX / CONTENT_PART))
/* Kept free on the store's disk, so that PostgreSQL beside it does not stop. */
#define CONTENT_SPARE ((uint64_t)512 << 20)
/* An upload that nobody touched for so long is removed at start. */
#define CONTENT_STALE_S 259200 /* three days */

struct content;

/* Makes the folders, removes stale uploads. ERR_IO. */
int content_new(const char *folder, struct content **ret_content, struct err *err) SHEAF_MUST_USE;
void content_free(struct content *content);

/* An upload's name: who and what. */
struct content_key {
    char owner[40]; /* of [0-9a-z-]: a project's id, a node's and rank's */
    uint8_t sha256[SHA256_SIZE];
    uint64_t size;
};

/* Size of stored content; false when there is none. */
bool content_has(const struct content *content, const uint8_t sha256[SHA256_SIZE],
                 uint64_t *ret_size);
/* An open read-only file; the caller closes it. ERR_NOT_FOUND, ERR_IO. */
int content_open(const struct content *content, const uint8_t sha256[SHA256_SIZE], int *ret_fd,
                 uint64_t *ret_size, struct err *err) SHEAF_MUST_USE;

/* -- in parts (HTTP) ------------------------------------------------------------------------ */
/*
 * Begins or resumes. ret_parts has CONTENT_MAX_PARTS bytes: 1 = received. An upload of another size
 * under this key starts anew. ERR_BODY_TOO_LARGE, ERR_NO_SPACE, ERR_IO.
 */
int content_begin(struct content *content, const struct content_key *key, uint8_t *ret_parts,
                  uint32_t *ret_count, struct err *err) SHEAF_MUST_USE;
/* Part n, 0-based: CONTENT_PART bytes, the last one what is left. ERR_OUT_OF_RANGE, ERR_NOT_FOUND
 * (no such upload), ERR_NO_SPACE. */
int content_put_part(struct content *content, const struct content_key *key, uint32_t part,
                     const void *bytes, size_t size, struct err *err) SHEAF_MUST_USE;

/* Size that an upload in parts was begun with; false when there is none. */
bool content_upload_size(const struct content *content, struct content_key *key);

/* -- in order (bulk channel) ---------------------------------------------------------------- */
/* Begins or resumes; *ret_offset says how far it came. */
int content_stream(struct content *content, const struct content_key *key, uint64_t *ret_offset,
                   int *ret_fd, struct err *err) SHEAF_MUST_USE;
/* Appends at offset. ERR_OUT_OF_RANGE beyond the size. */
int content_append(int fd, const struct content_key *key, uint64_t offset, const void *bytes,
                   size_t size, struct err *err) SHEAF_MUST_USE;

/* -- both ----------------------------------------------------------------------------------- */
/*
 * Hashes the upload (of parts or in order), syncs, renames. Content that is there already is kept
 * and the upload dropped, after it proved to have the same hash. ERR_STATE_CONFLICT (parts are
 * missing), ERR_HASH_MISMATCH (the upload is removed), ERR_NOT_FOUND. Safe on another thread.
 */
int content_seal(struct content *content, const struct content_key *key, bool parts,
                 struct err *err) SHEAF_MUST_USE;
/* Used now: it stays for as long as content is kept. Nothing if it is not there. */
void content_use(struct content *content, const uint8_t sha256[SHA256_SIZE]);

/* -- what goes -------------------------------------------------------------------------------- */
#define CONTENT_FOLDERS 256u
#define CONTENT_OLD_MAX 64u
struct content_old {
    uint8_t sha256[CONTENT_OLD_MAX][SHA256_SIZE]; /* ascending */
    uint32_t count;
};
/*
 * The next contents of one folder (0..CONTENT_FOLDERS - 1) behind those that *old names (count 0 =
 * from the first) whose last use was before cut_us. Blocking: one readdir.
 */
void content_list_old(const struct content *content, uint32_t folder, int64_t cut_us,
                      struct content_old *old);
/* Removes content unless it was used since cut_us, also just now on the other thread. */
bool content_remove(struct content *content, const uint8_t sha256[SHA256_SIZE], int64_t cut_us);

uint64_t content_free_bytes(const struct content *content);

#endif
