#include "worker/runtime/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/io/clock.h"

#define OUTPUT_LIMIT 4096

int spawn_find(const char *program, char ret_path[FS_PATH])
{
    static const char *const folders[] = {"/usr/bin",       "/usr/sbin",       "/bin", "/sbin",
                                          "/usr/local/bin", "/usr/local/sbin", NULL};
    char path[FS_PATH];

    for (size_t i = 0; folders[i] != NULL; i++) {
        if (fs_path(path, "%s/%s", folders[i], program) == 0 && access(path, X_OK) == 0) {
            memcpy(ret_path, path, FS_PATH);
            return 0;
        }
    }
    return -ERR_NOT_FOUND;
}

/* A readable descriptor with these bytes; -1 with errno. */
static int input_open(const char *input)
{
    if (input == NULL)
        return open("/dev/null", O_RDONLY | O_CLOEXEC);
    int fd = memfd_create("input", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t length = strlen(input);
    if (write(fd, input, length) != (ssize_t)length || lseek(fd, 0, SEEK_SET) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Reads until end of file; false when time is up. */
static bool output_drain(int fd, uint64_t timeout_ms, struct buf *output)
{
    int64_t end = clock_mono_us() + (int64_t)timeout_ms * 1000;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    char chunk[1024];

    for (;;) {
        int64_t left = end - clock_mono_us();
        int rc = left > 0 ? poll(&wait, 1, (int)(left / 1000) + 1) : 0;
        if (rc < 0 && errno == EINTR)
            continue;
        if (rc <= 0)
            return false;
        ssize_t got = read(fd, chunk, sizeof(chunk));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return true;
        if (output->length < OUTPUT_LIMIT)
            buf_append(output, chunk, (size_t)got);
    }
}

static int start(const char *const *argv, int input, int output, pid_t *ret_pid)
{
    static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    char *env[] = {path, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigset_t defaults;
    union {
        const char *const *in;
        char *const *out;
    } words = {argv}; /* posix_spawn writes to none of them */

    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    int rc = posix_spawn(ret_pid, argv[0], &actions, &attributes, words.out, env);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return rc;
}

int spawn_run(const char *const *argv, const char *input, uint64_t timeout_ms,
              struct buf *ret_output, struct err *err)
{
    int pipe_fds[2] = {-1, -1};
    size_t before = ret_output->length;
    int status = 0;
    pid_t pid;

    int input_fd = input_open(input);
    if (input_fd < 0 || pipe2(pipe_fds, O_CLOEXEC) != 0) {
        int rc = err_set(err, ERR_IO, "%s: %s", argv[0], strerror(errno));
        if (input_fd >= 0)
            close(input_fd);
        return rc;
    }
    int failed = start(argv, input_fd, pipe_fds[1], &pid);
    close(input_fd);
    close(pipe_fds[1]);
    if (failed != 0) {
        close(pipe_fds[0]);
        return err_set(err, ERR_IO, "%s: %s", argv[0], strerror(failed));
    }
    bool ended = output_drain(pipe_fds[0], timeout_ms, ret_output);
    close(pipe_fds[0]);
    if (!ended)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return err_set(err, ERR_IO, "%s: %s", argv[0], strerror(errno));
    }
    if (!ended)
        return err_set(err, ERR_TIMEOUT, "%s did not end in time", argv[0]);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    const char *text = ret_output->data != NULL ? ret_output->data + before : "";
    return err_set(err, ERR_UNSUPPORTED_HERE, "%.*s", (int)strcspn(text, "\n"),
                   text[0] != '\0' ? text : "it failed and said nothing");
}
