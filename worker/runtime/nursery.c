/* The worker's side of the process that forks supervisors (supervise.h). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/runtime/runtime_private.h"
#include "worker/runtime/supervise.h"

static int spawn(const struct runtime *runtime, int socket, pid_t *ret_pid)
{
    static char path_env[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char program[FS_PATH];
    char roots[FS_PATH];
    char *argv[] = {program, roots, NULL};
    char *env[] = {path_env, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;

    if (fs_path(program, "%s/sheaf-supervisor", runtime->libexec) != 0
        || fs_path(roots, "%s", runtime->roots) != 0)
        return ENAMETOOLONG;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
    posix_spawnattr_setsigmask(&attributes, &none);
    /* The socket first: it may sit on one of the numbers that follow. */
    posix_spawn_file_actions_adddup2(&actions, socket, SUPERVISE_NURSERY_FD);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, SUPERVISE_NURSERY_FD + 1);
    int failed = posix_spawn(ret_pid, program, &actions, &attributes, argv, env);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return failed;
}

static int nursery_open(struct runtime *runtime, struct err *err)
{
    int pair[2];

    if (runtime->nursery >= 0)
        return 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return err_set(err, ERR_IO, "cannot make a socket: %s", strerror(errno));
    int failed = spawn(runtime, pair[1], &runtime->nursery_pid);
    close(pair[1]);
    if (failed != 0) {
        close(pair[0]);
        return err_set(err, ERR_IO, "cannot run %s/sheaf-supervisor: %s", runtime->libexec,
                       strerror(failed));
    }
    runtime->nursery = pair[0];
    return 0;
}

/* It ends when its socket does; what it forked lives on. */
void nursery_close(struct runtime *runtime)
{
    if (runtime->nursery < 0)
        return;
    close(runtime->nursery);
    runtime->nursery = -1;
    while (waitpid(runtime->nursery_pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* The folder's name in the message, the socket as its descriptor. */
static bool send_order(int socket, const char *dir, int listen_fd)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char name[FS_PATH]; /* an iovec is not const */
    size_t length = (size_t)snprintf(name, sizeof(name), "%s", dir);
    struct iovec text = {name, length};
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);

    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &listen_fd, sizeof(listen_fd));
    return sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)length;
}

int nursery_order(struct runtime *runtime, const char *dir, int listen_fd, struct err *err)
{
    int rc = nursery_open(runtime, err);

    if (rc != 0 || send_order(runtime->nursery, dir, listen_fd))
        return rc;
    /* It was killed, perhaps: a new one, once. */
    nursery_close(runtime);
    rc = nursery_open(runtime, err);
    if (rc == 0 && !send_order(runtime->nursery, dir, listen_fd))
        rc = err_set(err, ERR_IO, "cannot start a supervisor: %s", strerror(errno));
    return rc;
}
