/* sheaf-supervisor ROOTS: forks a supervisor for each task that the worker names; supervise.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/runtime/plan.h"
#include "worker/runtime/supervise.h"

/* What a dead child leaves is taken at the next order, or when the signal breaks the wait for it.
 */
static void on_child(int number)
{
    (void)number;
}

/* Length of the folder's name; 0: the worker is gone, -1: try again. */
static ssize_t take_order(char dir[FS_PATH], int *ret_listen)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec text = {dir, FS_PATH - 1};
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t got = recvmsg(SUPERVISE_NURSERY_FD, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *head = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    if (got < 0)
        return errno == EINTR ? -1 : 0;
    if (got == 0)
        return 0;
    dir[got] = '\0';
    if (head == NULL || head->cmsg_type != SCM_RIGHTS || head->cmsg_len != CMSG_LEN(sizeof(int)))
        return -1;
    memcpy(ret_listen, CMSG_DATA(head), sizeof(*ret_listen));
    return got;
}

static int supervise_here(const char *dir, const char *roots, int listen_fd)
{
    char log[FS_PATH];

    signal(SIGCHLD, SIG_DFL);
    if (setsid() < 0 || fs_path(log, "%s/" PLAN_LOG, dir) != 0
        || dup2(listen_fd, SUPERVISE_LISTEN_FD) < 0)
        return 1;
    close(listen_fd);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
        return 1;
    close(fd);
    return supervise(dir, roots);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_child}; /* breaks the wait below */
    char dir[FS_PATH];
    int listen_fd = -1;
    ssize_t got;

    if (argc != 2) {
        fprintf(stderr, "usage: sheaf-supervisor ROOTS (started by sheaf-worker)\n");
        return 2;
    }
    umask(077);
    if (chdir("/") != 0 || sigaction(SIGCHLD, &action, NULL) != 0)
        return 1;
    while ((got = take_order(dir, &listen_fd)) != 0) {
        pid_t pid = got > 0 ? fork() : -1;
        if (pid == 0)
            return supervise_here(dir, argv[1], listen_fd);
        /* One that could not be forked shows the worker the end of its socket. */
        if (got > 0)
            close(listen_fd);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
    }
    return 0;
}
