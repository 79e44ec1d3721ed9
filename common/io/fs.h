#ifndef SHEAF_COMMON_IO_FS_H
#define SHEAF_COMMON_IO_FS_H

/* Files: whole reads with a cap, atomic durable writes, folders, locks. */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"

#define FS_PATH 512 /* longest path we build; longer is ERR_IO */

/* printf into a path buffer; ERR_IO when it does not fit. */
int fs_path(char out[FS_PATH], const char *format, ...) SHEAF_PRINTF(2, 3) SHEAF_MUST_USE;
/* Reads a regular file of at most limit bytes; appends to ret_text. ERR_IO, ERR_TOO_MANY. */
int fs_read(const char *path, size_t limit, struct buf *ret_text, struct err *err) SHEAF_MUST_USE;
/* Who may hold a credential's file: only its owner, or the members of one group too. */
enum fs_secrecy {
    FS_OWNER_ALONE, /* nobody else reads or writes it; it is ours or root's */
    FS_GROUP_READS, /* the group may read it */
};
/*
 * fs_read of a file that holds a credential. ERR_CREDENTIAL_EXPOSED, with the command that mends
 * it, when others may read or change it.
 */
int fs_read_secret(const char *path, size_t limit, enum fs_secrecy secrecy, struct buf *ret_text,
                   struct err *err) SHEAF_MUST_USE;
/* Temporary file, fsync, rename, fsync of the folder. ERR_IO, ERR_NO_SPACE. */
int fs_write(const char *path, const void *bytes, size_t length, mode_t mode,
             struct err *err) SHEAF_MUST_USE;
/* mkdir -p; existing folders are fine. */
int fs_mkdir(const char *path, mode_t mode, struct err *err) SHEAF_MUST_USE;
/* rm -rf, never following links, staying on one file system. Absent is fine. */
int fs_remove_tree(const char *path, struct err *err) SHEAF_MUST_USE;
/*
 * Takes the exclusive lock of a state folder (flock on path) and writes our pid into it. The lock
 * lives as long as *ret_fd. ERR_ALREADY_RUNNING names the pid of the holder.
 */
int fs_lock(const char *path, int *ret_fd, struct err *err) SHEAF_MUST_USE;
/*
 * For the first line of main: standard streams that were closed lead to /dev/null, so that no
 * socket gets their number and is written to as if it were a terminal.
 */
void fs_guard_streams(void);
/* Where path is or would be made; 0 when it cannot be said. */
uint64_t fs_free_bytes(const char *path);

#endif
