/*
 * sheaf-task-init: first process of a sandbox. Drops to the task's user, waits at the barrier,
 * starts the processes, reaps everything, reports. Links libc alone: it runs among the tenant's
 * files, and nothing of ours may be loaded there.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/runtime/init_wire.h"

#define MAX_GROUPS 32
/* Many programs size tables by the soft limit; more than this helps none of them. */
#define OPEN_FILES 65536
/* The tenant's processes die before us when the memory limit is hit. */
#define OOM_SCORE "500"

struct init {
    uint32_t proc_count;
    pid_t main[INIT_MAX_PROCS]; /* 0 = gone */
    uint32_t alive;             /* processes of main that run */
    bool started;
    bool stopping;       /* a stop was ordered: the rest may end in its own time */
    bool image;          /* the shell is the tenant's: its absence is no failure of ours */
    sigset_t clean_mask; /* empty: for the tenant's shells */
};

static bool read_all(int fd, void *bytes, size_t length)
{
    char *at = bytes;

    while (length > 0) {
        ssize_t got = read(fd, at, length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        length -= (size_t)got;
    }
    return true;
}

static void report(enum init_news news, uint32_t proc, int32_t value)
{
    struct init_report line = {(uint32_t)news, proc, value};
    ssize_t put;

    do {
        put = write(INIT_CONTROL_FD, &line, sizeof(line));
    } while (put < 0 && errno == EINTR);
    /* A lost supervisor shows as end of file on the next read. */
}

/* True when we are the first process of a pid namespace, so that -1 means our sandbox alone. */
static bool is_alone(void)
{
    return getpid() == 1;
}

/* Without a namespace: our children, which orphans become too. */
static void kill_children(int sig)
{
    char line[32];
    FILE *file = fopen("/proc/thread-self/children", "re");
    long pid;

    if (file == NULL)
        return;
    while (fscanf(file, "%31s", line) == 1) {
        char *end;
        pid = strtol(line, &end, 10);
        if (*end == '\0' && pid > 1)
            kill((pid_t)pid, sig);
    }
    fclose(file);
}

static void kill_all(const struct init *init, int sig)
{
    if (is_alone()) {
        kill(-1, sig);
        return;
    }
    for (uint32_t i = 0; i < init->proc_count; i++) {
        if (init->main[i] > 1)
            kill(-init->main[i], sig);
    }
    if (sig == SIGKILL)
        kill_children(sig);
}

static _Noreturn void end_all(const struct init *init)
{
    kill_all(init, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        kill_all(init, SIGKILL);
    _exit(125);
}

static _Noreturn void fail(const struct init *init, enum init_step step, int error)
{
    report(INIT_FAILED, (uint32_t)step, error);
    end_all(init);
}

static uint32_t parse_number(const char *text, uint32_t limit)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (end == text || *end != '\0' || value > limit)
        _exit(125);
    return (uint32_t)value;
}

static void drop_user(const struct init *init, const char *uid_text, const char *gid_text,
                      char *group_text)
{
    gid_t groups[MAX_GROUPS];
    size_t count = 0;
    char *save = NULL;

    if (strcmp(uid_text, "-") == 0)
        return;
    uid_t uid = parse_number(uid_text, UINT32_MAX - 1);
    gid_t gid = parse_number(gid_text, UINT32_MAX - 1);
    if (strcmp(group_text, "-") != 0) {
        for (char *part = strtok_r(group_text, ",", &save); part != NULL && count < MAX_GROUPS;
             part = strtok_r(NULL, ",", &save))
            groups[count++] = parse_number(part, UINT32_MAX - 1);
    }
    for (int cap = 0; cap < 64; cap++)
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    if (setgroups(count, groups) != 0 || setresgid(gid, gid, gid) != 0
        || setresuid(uid, uid, uid) != 0)
        fail(init, INIT_STEP_USER, errno);
    /* The change of user cleared the rest; what could be inherited goes too. */
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capset, &head, none) != 0)
        fail(init, INIT_STEP_USER, errno);
    /* A change of user clears it. */
    if (is_alone())
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}

static void limit_resources(void)
{
    struct rlimit files;
    struct rlimit none = {0, 0};

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max < OPEN_FILES ? files.rlim_max : OPEN_FILES;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    setrlimit(RLIMIT_CORE, &none);
}

static void open_null_input(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null >= 0)
        dup2(null, STDIN_FILENO);
}

static _Noreturn void run_process(const struct init *init, uint32_t index, char *script, char **env,
                                  int failed_fd)
{
    static char name[] = "sh";
    static char stop_on_error[] = "-e";
    static char from_text[] = "-c";
    char *argv[] = {name, stop_on_error, from_text, script, name, NULL};
    int first = INIT_LOG_FD + 2 * (int)index;

    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    /* Readable by itself again, so that it may write its own score. */
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score >= 0 && write(score, OOM_SCORE, sizeof(OOM_SCORE) - 1) < 0)
        errno = 0; /* the score is a preference */
    open_null_input();
    dup2(first, STDOUT_FILENO);
    dup2(first + 1, STDERR_FILENO);
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    for (int sig = 1; sig < 65; sig++)
        signal(sig, SIG_DFL); /* the daemon ignores SIGPIPE, and that is inherited */
    sigprocmask(SIG_SETMASK, &init->clean_mask, NULL);
    execve("/bin/sh", argv, env);
    int error = errno;
    if (init->image)
        dprintf(STDERR_FILENO, "sheaf: the image's /bin/sh does not run: %s\n", strerror(error));
    else if (write(failed_fd, &error, sizeof(error)) < 0)
        _exit(126);
    _exit(127);
}

/* Splits the strings of an INIT_START body; NULL when it is not well formed. */
static char **split_strings(char *body, size_t size, uint32_t count)
{
    char **strings = calloc((size_t)count + 1, sizeof(*strings));
    char *end = body + size;

    for (uint32_t i = 0; strings != NULL && i < count; i++) {
        char *zero = memchr(body, 0, (size_t)(end - body));
        if (zero == NULL) {
            free(strings);
            return NULL;
        }
        strings[i] = body;
        body = zero + 1;
    }
    return strings;
}

static void start_processes(struct init *init, char *body, uint32_t size)
{
    uint32_t counts[INIT_MAX_PROCS];
    uint32_t total = 1;
    int pipe_fds[2];
    int error;

    if (size < sizeof(counts))
        fail(init, INIT_STEP_ORDER, EPROTO);
    memcpy(counts, body, sizeof(counts));
    for (uint32_t i = 0; i < INIT_MAX_PROCS; i++) {
        if (counts[i] > INIT_MAX_START)
            fail(init, INIT_STEP_ORDER, EPROTO);
        total += counts[i];
    }
    char **strings = split_strings(body + sizeof(counts), size - sizeof(counts), total);
    if (strings == NULL || pipe2(pipe_fds, O_CLOEXEC) != 0)
        fail(init, INIT_STEP_ORDER, EPROTO);
    char **env = strings + 1;
    for (uint32_t i = 0; i < init->proc_count; i++) {
        pid_t pid = fork();
        if (pid < 0)
            fail(init, INIT_STEP_FORK, errno);
        if (pid == 0) {
            env[counts[i]] = NULL; /* in our copy alone */
            run_process(init, i, strings[0], env, pipe_fds[1]);
        }
        init->main[i] = pid;
        init->alive++;
        env += counts[i];
    }
    close(pipe_fds[1]);
    for (uint32_t i = 0; i < 2 * init->proc_count; i++)
        close(INIT_LOG_FD + (int)i);
    init->started = true;
    /* End of file once all have executed; close-on-exec does it. */
    if (read_all(pipe_fds[0], &error, sizeof(error)))
        fail(init, INIT_STEP_EXEC, error);
    close(pipe_fds[0]);
    free(strings);
    report(INIT_STARTED, 0, 0);
}

static void take_order(struct init *init)
{
    struct init_order_head head;

    if (!read_all(INIT_CONTROL_FD, &head, sizeof(head)))
        end_all(init); /* the supervisor is gone: so are we */
    if (head.order == INIT_SIGNAL && head.size > 0 && head.size < 65) {
        init->stopping = true;
        kill_all(init, (int)head.size);
        return;
    }
    if (head.order != INIT_START || init->started || head.size > INIT_MAX_START)
        fail(init, INIT_STEP_ORDER, EPROTO);
    char *body = malloc((size_t)head.size + 1);
    if (body == NULL || !read_all(INIT_CONTROL_FD, body, head.size))
        fail(init, INIT_STEP_ORDER, errno);
    start_processes(init, body, head.size);
    free(body);
}

/* Returns false when nothing is left to wait for. */
static bool reap(struct init *init)
{
    int status;
    pid_t pid;

    for (;;) {
        pid = waitpid(-1, &status, WNOHANG);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0)
            break;
        for (uint32_t i = 0; i < init->proc_count; i++) {
            if (init->main[i] != pid)
                continue;
            init->main[i] = 0;
            init->alive--;
            report(INIT_EXITED, i, status);
        }
    }
    if (pid < 0 && errno == ECHILD)
        return !init->started;
    /* What the scripts left behind ends with them, unless it was asked to end by itself. */
    if (init->started && init->alive == 0 && !init->stopping)
        kill_all(init, SIGKILL);
    return true;
}

static void wait_for_all(struct init *init, int signal_fd)
{
    struct pollfd fds[2] = {{.fd = INIT_CONTROL_FD, .events = POLLIN},
                            {.fd = signal_fd, .events = POLLIN}};
    struct signalfd_siginfo info;

    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            fail(init, INIT_STEP_ORDER, errno);
        if (fds[1].revents & POLLIN) {
            if (read(signal_fd, &info, sizeof(info)) < 0 && errno != EAGAIN)
                fail(init, INIT_STEP_ORDER, errno);
            if (!reap(init))
                return;
        }
        if (fds[0].revents & (POLLIN | POLLHUP | POLLERR)) {
            take_order(init);
            if (init->started && !reap(init))
                return;
        }
        fds[0].revents = fds[1].revents = 0;
    }
}

/* Takes the descriptors that the others inherit; false when they are not what was agreed. */
static bool take_descriptors(const char *path, uint32_t count)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE((1 + 2 * INIT_MAX_PROCS) * sizeof(int))];
    } control = {.space = {0}};
    int fds[1 + 2 * INIT_MAX_PROCS];
    char byte;
    struct iovec piece = {&byte, 1};
    struct msghdr message = {.msg_iov = &piece,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) < 1
        || connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0
        || recvmsg(fd, &message, MSG_CMSG_CLOEXEC) != 1)
        return false;
    const struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head == NULL || head->cmsg_type != SCM_RIGHTS
        || head->cmsg_len != CMSG_LEN(count * sizeof(int)))
        return false;
    memcpy(fds, CMSG_DATA(head), count * sizeof(int));
    /* Out of the way first, so that none is overwritten before it is moved. */
    for (uint32_t i = 0; i < count; i++)
        fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, INIT_LOG_FD + 2 * INIT_MAX_PROCS);
    for (uint32_t i = 0; i < count; i++) {
        if (dup2(fds[i], INIT_CONTROL_FD + (int)i) < 0)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct init init = {0};
    sigset_t all;

    if (argc != 6 && argc != 7)
        return 125;
    init.proc_count = parse_number(argv[5], INIT_MAX_PROCS);
    init.image = argc == 7;
    if (init.image && !take_descriptors(argv[6], 1 + 2 * init.proc_count))
        return 125;
    close_range(INIT_LOG_FD + 2 * init.proc_count, ~0U, 0);
    sigemptyset(&init.clean_mask);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&all);
    sigaddset(&all, SIGCHLD);
    int signal_fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0)
        return 125;
    if (!is_alone())
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    limit_resources();
    drop_user(&init, argv[1], argv[2], argv[3]);
    /* The tenant's processes have our user: they may not trace us or read our memory. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (chdir(argv[4]) != 0)
        fail(&init, INIT_STEP_FOLDER, errno);
    umask(022);
    report(INIT_READY, 0, 0);
    wait_for_all(&init, signal_fd);
    _exit(0);
}
