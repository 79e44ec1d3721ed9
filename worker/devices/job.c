#include "worker/devices/job.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/io/libexec.h"
#include "common/pure/mem.h"
#include "worker/devices/document.h"

/* Of stderr we keep the first bytes and the last line of them. */
#define STDERR_LIMIT ((size_t)16 << 10)
/* After SIGKILL a process is gone at once, unless a driver holds it in the kernel. */
#define KILL_WAIT_S   2
#define REAP_WAIT_MS  20
#define MAX_VARIABLES 256u

struct devices_job {
    struct event_base *base;
    pid_t pid;
    int pidfd;
    int out_fd;
    int err_fd;
    struct event *on_exit;
    struct event *on_out;
    struct event *on_err;
    struct event *on_deadline;
    struct buf out;
    struct buf err;
    uint64_t deadline_s;
    bool timed_out;
    bool reaped;
    job_on_end_f on_end;
    void *arg;
    bool owns_arg;
};

/* -- starting -------------------------------------------------------------------------------- */

/* With our other helper programs, or where SHEAF_DEVICES_PROGRAM says. */
static int find_program(char out[PATH_MAX], struct err *err)
{
    static const char *const program[] = {"sheaf-devices", NULL};
    const char *asked = getenv("SHEAF_DEVICES_PROGRAM");
    char folder[FS_PATH];

    if (asked == NULL) {
        int rc = libexec_find(program, folder, err);
        if (rc == 0)
            snprintf(out, PATH_MAX, "%s/%s", folder, program[0]);
        return rc;
    }
    snprintf(out, PATH_MAX, "%s", asked);
    if (access(out, X_OK) != 0)
        return err_set(err, ERR_UNSUPPORTED_HERE, "%.200s: %s", out, strerror(errno));
    return 0;
}

/* Drivers take their settings from these; nothing else of ours reaches them. */
static bool may_pass(const char *variable)
{
    static const char *const prefixes[] = {
        "PATH=",   "HOME=", "XDG_CACHE_HOME=", "LD_LIBRARY_PATH=",
        "POCL_",   "CUDA_", "NVIDIA_",         "OCL_ICD_",
        "OPENCL_", "HIP_",  "ROCR_",           "HSA_",
        "GPU_",    "ASAN_", "UBSAN_",          "SHEAF_DEVICE",
    };

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

static void child_environment(char *out[MAX_VARIABLES + 1])
{
    uint32_t count = 0;

    for (char **at = environ; *at != NULL && count < MAX_VARIABLES; at++) {
        if (may_pass(*at))
            out[count++] = *at;
    }
    out[count] = NULL;
}

/* The request as a file at its start: written at once whatever its size, unlike a pipe. */
static int request_file(const char *request)
{
    int fd = memfd_create("sheaf-devices-request", MFD_CLOEXEC);
    size_t length = strlen(request);

    if (fd < 0)
        return -1;
    if (write(fd, request, length) != (ssize_t)length || lseek(fd, 0, SEEK_SET) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int spawn_with(const char *program, const char *verb, const int fds[3], pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char *variables[MAX_VARIABLES + 1];
    char name[] = "sheaf-devices";
    char *what = mem_strdup(verb);
    char *argv[] = {name, what, NULL};
    sigset_t none;
    sigset_t all;
    int rc;

    sigemptyset(&none);
    sigfillset(&all);
    child_environment(variables);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    rc = posix_spawn_file_actions_adddup2(&actions, fds[0], 0);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&actions, fds[2], 2);
    if (rc == 0)
        rc = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
                                              | POSIX_SPAWN_SETPGROUP);
    if (rc == 0)
        rc = posix_spawn(ret_pid, program, &actions, &attributes, argv, variables);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    free(what);
    return rc;
}

static void close_all(int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

/* On success ret_job has pid, pidfd and the two pipes. */
static int spawn_child(struct devices_job *job, const struct job_plan *plan, struct err *err)
{
    char program[PATH_MAX];
    /* request, stdout to write and read, stderr to write and read */
    int fd[5] = {-1, -1, -1, -1, -1};
    int pair[2];
    int rc = find_program(program, err);

    if (rc != 0)
        return rc;
    fd[0] = request_file(plan->request);
    if (fd[0] >= 0 && pipe2(pair, O_CLOEXEC) == 0) {
        fd[1] = pair[1];
        fd[2] = pair[0];
    }
    if (fd[1] >= 0 && pipe2(pair, O_CLOEXEC) == 0) {
        fd[3] = pair[1];
        fd[4] = pair[0];
    }
    if (fd[3] < 0 || fcntl(fd[2], F_SETFL, O_NONBLOCK) != 0
        || fcntl(fd[4], F_SETFL, O_NONBLOCK) != 0) {
        rc = err_set(err, ERR_IO, "pipe: %s", strerror(errno));
        close_all(fd, 5);
        return rc;
    }
    rc = spawn_with(program, plan->verb, (const int[]){fd[0], fd[1], fd[3]}, &job->pid);
    if (rc != 0) {
        close_all(fd, 5);
        return err_set(err, ERR_IO, "%.200s: %s", program, strerror(rc));
    }
    job->out_fd = fd[2];
    job->err_fd = fd[4];
    fd[2] = -1;
    fd[4] = -1;
    close_all(fd, 5);
    job->pidfd = (int)syscall(SYS_pidfd_open, job->pid, 0);
    if (job->pidfd < 0)
        return err_set(err, ERR_IO, "pidfd_open: %s", strerror(errno));
    fcntl(job->pidfd, F_SETFD, FD_CLOEXEC);
    return 0;
}

/* -- ending ---------------------------------------------------------------------------------- */

static void read_pipe(int fd, struct buf *into, struct event *event)
{
    char piece[4096];
    ssize_t n;

    while ((n = read(fd, piece, sizeof(piece))) > 0)
        buf_append(into, piece, (size_t)n);
    if (n == 0 && event != NULL)
        event_del(event);
}

/* Printable part of the last line that says something. */
static void last_line(const struct buf *text, char *out, size_t size)
{
    size_t end = text->length;
    size_t start;
    size_t length = 0;

    while (end > 0 && text->data[end - 1] <= ' ')
        end--;
    start = end;
    while (start > 0 && text->data[start - 1] != '\n')
        start--;
    for (; start < end && length + 1 < size; start++) {
        if (text->data[start] >= ' ' && text->data[start] <= '~')
            out[length++] = text->data[start];
    }
    out[length] = '\0';
}

static void finish(struct devices_job *job)
{
    struct job_end end = {.timed_out = job->timed_out,
                          .exit_code = -1,
                          .out = &job->out,
                          .deadline_s = job->deadline_s};
    siginfo_t info = {0};
    char words[100];

    event_del(job->on_exit);
    event_del(job->on_deadline);
    /* Still a zombie, so its number is still its own; takes what it forked along. */
    kill(-job->pid, SIGKILL);
    if (waitid(P_PIDFD, (id_t)job->pidfd, &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0) {
        job->reaped = true;
        if (info.si_code == CLD_EXITED)
            end.exit_code = info.si_status;
        else
            end.signal = info.si_status;
    } else if (errno == ECHILD) {
        job->reaped = true; /* somebody waits for every child of this process */
    }
    read_pipe(job->out_fd, &job->out, NULL);
    read_pipe(job->err_fd, &job->err, NULL);
    event_del(job->on_out);
    event_del(job->on_err);
    end.overflow = job->out.full;
    last_line(&job->err, words, sizeof(words));
    end.last_words = words;
    job->on_end(&end, job->arg); /* may free the job */
}

static void on_exit_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    finish(arg);
}

static void on_out_event(evutil_socket_t fd, short what, void *arg)
{
    struct devices_job *job = arg;

    (void)what;
    read_pipe(fd, &job->out, job->on_out);
    if (job->out.full)
        kill(-job->pid, SIGKILL);
}

static void on_err_event(evutil_socket_t fd, short what, void *arg)
{
    struct devices_job *job = arg;

    (void)what;
    read_pipe(fd, &job->err, job->on_err);
}

static void on_deadline_event(evutil_socket_t fd, short what, void *arg)
{
    struct devices_job *job = arg;

    (void)fd;
    (void)what;
    if (job->timed_out) {
        finish(job); /* stuck in the kernel: go on without it */
    } else {
        job->timed_out = true;
        kill(-job->pid, SIGKILL);
        event_add(job->on_deadline, &(struct timeval){.tv_sec = KILL_WAIT_S});
    }
}

int job_start(struct event_base *base, const struct job_plan *plan, struct devices_job **ret_job,
              struct err *err)
{
    struct devices_job *job = mem_new(1, sizeof(*job));
    int rc;

    job->base = base;
    job->pidfd = -1;
    job->out_fd = -1;
    job->err_fd = -1;
    job->deadline_s = plan->deadline_s;
    job->on_end = plan->on_end;
    buf_init(&job->out, DOCUMENT_MAX_BYTES);
    buf_init(&job->err, STDERR_LIMIT);
    rc = spawn_child(job, plan, err);
    if (rc != 0) {
        devices_job_free(job);
        return rc;
    }
    job->arg = plan->arg;
    job->owns_arg = plan->owns_arg;
    job->on_exit = event_new(base, job->pidfd, EV_READ, on_exit_event, job);
    job->on_out = event_new(base, job->out_fd, EV_READ | EV_PERSIST, on_out_event, job);
    job->on_err = event_new(base, job->err_fd, EV_READ | EV_PERSIST, on_err_event, job);
    job->on_deadline = event_new(base, -1, 0, on_deadline_event, job);
    BUG_ON(job->on_exit == NULL || job->on_out == NULL || job->on_err == NULL
           || job->on_deadline == NULL);
    BUG_ON(event_add(job->on_exit, NULL) != 0 || event_add(job->on_out, NULL) != 0
           || event_add(job->on_err, NULL) != 0);
    event_add(job->on_deadline, &(struct timeval){.tv_sec = (time_t)plan->deadline_s});
    *ret_job = job;
    return 0;
}

/* A killed child that a driver still holds: waited for without blocking, when it lets go. */
struct straggler {
    int pidfd;
    struct event *event;
};

static void on_straggler(evutil_socket_t fd, short what, void *arg)
{
    struct straggler *straggler = arg;
    siginfo_t info;

    (void)what;
    (void)waitid(P_PIDFD, (id_t)fd, &info, WEXITED | WNOHANG);
    close(straggler->pidfd);
    event_free(straggler->event);
    free(straggler);
}

static void kill_and_reap(struct devices_job *job)
{
    struct pollfd wait = {.fd = job->pidfd, .events = POLLIN};
    siginfo_t info = {0};

    kill(-job->pid, SIGKILL);
    if (job->pidfd < 0) {
        waitpid(job->pid, NULL, WNOHANG);
        return;
    }
    if (poll(&wait, 1, REAP_WAIT_MS) == 0) {
        struct straggler *straggler = mem_new(1, sizeof(*straggler));
        straggler->pidfd = job->pidfd;
        job->pidfd = -1;
        straggler->event = event_new(job->base, straggler->pidfd, EV_READ, on_straggler, straggler);
        BUG_ON(straggler->event == NULL || event_add(straggler->event, NULL) != 0);
        return;
    }
    (void)waitid(P_PIDFD, (id_t)job->pidfd, &info, WEXITED | WNOHANG);
}

void devices_job_free(struct devices_job *job)
{
    struct event *events[4];

    if (job == NULL)
        return;
    if (job->pid > 0 && !job->reaped)
        kill_and_reap(job);
    memcpy(events, (struct event *[]){job->on_exit, job->on_out, job->on_err, job->on_deadline},
           sizeof(events));
    for (size_t i = 0; i < 4; i++) {
        if (events[i] != NULL)
            event_free(events[i]);
    }
    close_all((int[]){job->pidfd, job->out_fd, job->err_fd}, 3);
    buf_fini(&job->out);
    buf_fini(&job->err);
    if (job->owns_arg)
        free(job->arg);
    free(job);
}

void job_describe(const struct job_end *end, char *out, size_t size)
{
    const char *colon = end->last_words[0] != '\0' ? ": " : "";

    out[0] = '\0';
    if (end->timed_out)
        snprintf(out, size, "no answer within %llu s", (unsigned long long)end->deadline_s);
    else if (end->overflow)
        snprintf(out, size, "the answer is longer than %zu bytes", DOCUMENT_MAX_BYTES);
    else if (end->signal != 0)
        snprintf(out, size, "killed by signal %d%s%s%s", end->signal,
                 end->signal == SIGKILL ? " (out of memory?)" : "", colon, end->last_words);
    else if (end->exit_code != 0)
        snprintf(out, size, "exit code %d%s%s", end->exit_code, colon, end->last_words);
}
