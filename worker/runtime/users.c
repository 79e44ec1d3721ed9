#include "worker/runtime/users.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/io/fs.h"

/* Connections that wait for user_claim_answer(). */
#define NAME_BACKLOG 64

enum holder {
    HOLDER_ROOT,
    HOLDER_OTHER, /* a task that bound the name: it has no say */
    HOLDER_SILENT /* between bind and listen, or somebody who does not want to be asked */
};

static socklen_t name_of(uid_t uid, struct sockaddr_un *ret_name)
{
    int length;

    memset(ret_name, 0, sizeof(*ret_name));
    ret_name->sun_family = AF_UNIX;
    length = snprintf(ret_name->sun_path + 1, sizeof(ret_name->sun_path) - 1, "sheaf-uid-%u",
                      (unsigned)uid);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

/* The kernel says who listens; what the other side sends is not read. */
static enum holder name_holder(const struct sockaddr_un *name, socklen_t size)
{
    struct ucred who = {.uid = (uid_t)-1};
    socklen_t length = sizeof(who);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    enum holder holder = HOLDER_SILENT;

    if (fd >= 0 && connect(fd, (const struct sockaddr *)name, size) == 0
        && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0)
        holder = who.uid == 0 ? HOLDER_ROOT : HOLDER_OTHER;
    if (fd >= 0)
        close(fd);
    return holder;
}

/* True with *ret_fd = -1 when a task squats on the name. */
static bool name_take(uid_t uid, bool last_round, int *ret_fd)
{
    struct sockaddr_un name;
    socklen_t size = name_of(uid, &name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    *ret_fd = -1;
    if (fd < 0)
        return false;
    if (bind(fd, (struct sockaddr *)&name, size) == 0 && listen(fd, NAME_BACKLOG) == 0) {
        *ret_fd = fd;
        return true;
    }
    close(fd);
    enum holder holder = name_holder(&name, size);
    return holder == HOLDER_OTHER || (holder == HOLDER_SILENT && last_round);
}

static int lock_take(uid_t uid, int *ret_fd, struct err *err)
{
    char path[FS_PATH];

    if (fs_path(path, USERS_FOLDER "/%u", (unsigned)uid) != 0)
        return err_set(err, ERR_IO, "path too long");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    *ret_fd = flock(fd, LOCK_EX | LOCK_NB) == 0 ? fd : -1;
    if (*ret_fd < 0)
        close(fd);
    return 0;
}

/* Names that nobody vouches for count in the first round: their holder may be about to listen. */
static int claim_round(uid_t first, uint32_t count, bool last_round, struct user_claim *ret_claim,
                       uid_t *ret_uid, struct err *err)
{
    for (uint32_t i = 0; i < count; i++) {
        uid_t uid = first + i;
        int lock = -1;
        int rc = lock_take(uid, &lock, err);

        if (rc != 0)
            return rc;
        if (lock < 0)
            continue;
        if (name_take(uid, last_round, &ret_claim->name)) {
            ret_claim->lock = lock;
            *ret_uid = uid;
            return 0;
        }
        close(lock);
    }
    return -ERR_TOO_MANY;
}

int user_claim(uid_t first, uint32_t count, struct user_claim *ret_claim, uid_t *ret_uid,
               struct err *err)
{
    int rc = fs_mkdir(USERS_FOLDER, 0700, err);

    if (rc == 0)
        rc = claim_round(first, count, false, ret_claim, ret_uid, err);
    if (rc == -ERR_TOO_MANY)
        rc = claim_round(first, count, true, ret_claim, ret_uid, err);
    if (rc == -ERR_TOO_MANY)
        (void)err_set(err, ERR_TOO_MANY, "%u tasks run on this machine", count);
    return rc;
}

void user_claim_answer(const struct user_claim *claim)
{
    int fd;

    while ((fd = accept4(claim->name, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(fd);
}

void user_claim_end(struct user_claim *claim)
{
    if (claim->name >= 0)
        close(claim->name);
    if (claim->lock >= 0)
        close(claim->lock);
    *claim = (struct user_claim){-1, -1};
}
