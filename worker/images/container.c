#include "worker/images/container.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/io/json.h"
#include "common/io/libexec.h"
#include "worker/runtime/init_wire.h"
#include "worker/runtime/spawn.h"

#define CALL_MS 60000
/* Between looks whether the container that was started still runs. */
#define LOOK_MS 500
#define LOOKS   120
/* The kernel tells no one when a group becomes empty. */
#define GROUP_TRIES 200
#define GROUP_MS    10

static volatile int interrupted;

static void on_term(int number)
{
    (void)number;
    interrupted = 1;
}

static int call(const struct podman *podman, const char *method, const char *name, const char *verb,
                json_t **ret_answer, struct err *err)
{
    char path[FS_PATH];
    const struct podman_call what = {.method = method, .path = path, .timeout_ms = CALL_MS};

    if (fs_path(path, "/containers/%s%s", name, verb) != 0)
        return err_set(err, ERR_IO, "name too long");
    return podman_do(podman, &what, ret_answer, err);
}

static int create(const struct podman *podman, json_t *spec, struct err *err)
{
    const struct podman_call what = {
        .method = "POST", .path = "/containers/create", .body = spec, .timeout_ms = CALL_MS};
    int rc = podman_do(podman, &what, NULL, err);

    json_decref(spec);
    return rc;
}

static int discard(struct podman *podman, const char *name, struct err *err)
{
    const char *const words[] = {"rm", "--force", "--time=0", "--ignore", name, NULL};
    int rc;

    podman->interrupted = NULL; /* this is what an interrupt asks for */
    rc = call(podman, "DELETE", name, "?force=true&timeout=0", NULL, err);
    if (rc == -ERR_NOT_FOUND)
        rc = 0;
    /* Without the worker nobody starts the service again. */
    return rc != 0 ? podman_run(podman, words, err) : 0;
}

/* Podman looks after its container from inside the group, and ends a little later. */
static void remove_groups(const struct plan_task *task)
{
    char inner[FS_PATH];

    if (cgroup_inner(&task->cgroup, task->name, inner) != 0)
        return;
    for (int i = 0; i < GROUP_TRIES && cgroup_inner_remove(inner) != 0; i++) {
        if (poll(NULL, 0, GROUP_MS) < 0 && errno != EINTR)
            return;
    }
}

/* -- the hand-over ----------------------------------------------------------------------------- */

/* Socket paths end at 107 bytes: the folder is named by descriptor. */
static int listen_in(const char *dir, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int folder = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" PLAN_INIT, folder);
    bool good = folder >= 0 && fd >= 0 && (unlinkat(folder, PLAN_INIT, 0) == 0 || errno == ENOENT)
                && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0
                && fchmodat(folder, PLAN_INIT, 0666, 0) == 0 && listen(fd, 1) == 0;
    int rc = good ? fd : err_set(err, ERR_IO, "socket in %.120s: %s", dir, strerror(errno));
    if (folder >= 0)
        close(folder);
    if (!good && fd >= 0)
        close(fd);
    return rc;
}

static bool still_runs(const struct podman *podman, const char *name)
{
    json_t *answer = NULL;
    bool runs = call(podman, "GET", name, "/json", &answer, NULL) == 0
                && json_is_true(json_object_get(json_object_get(answer, "State"), "Running"));

    json_decref(answer);
    return runs;
}

/* sheaf-task-init, once it is there. */
static int accept_init(const struct podman *podman, const char *name, int listener, struct err *err)
{
    struct pollfd wait = {.fd = listener, .events = POLLIN};

    for (int i = 0; i < LOOKS; i++) {
        int ready = poll(&wait, 1, LOOK_MS);
        if (interrupted)
            return err_set(err, ERR_INTERRUPTED, "stopped");
        if (ready > 0) {
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            return fd >= 0 ? fd : err_set(err, ERR_IO, "accept: %s", strerror(errno));
        }
        if (ready == 0 && !still_runs(podman, name))
            return err_set(err, ERR_UNEXPECTED_RESPONSE, "the container ended at once");
    }
    return err_set(err, ERR_TIMEOUT, "the container did not come up");
}

static int send_descriptors(int socket, uint32_t count, struct err *err)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE((1 + 2 * INIT_MAX_PROCS) * sizeof(int))];
    } control = {.space = {0}};
    int fds[1 + 2 * INIT_MAX_PROCS] = {0};
    char byte = 0;
    struct iovec piece = {&byte, 1};
    struct msghdr message = {.msg_iov = &piece,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);

    for (uint32_t i = 0; i < count; i++)
        fds[i] = INIT_CONTROL_FD + (int)i;
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(head), fds, count * sizeof(int));
    if (sendmsg(socket, &message, MSG_NOSIGNAL) != 1)
        return err_set(err, ERR_IO, "sendmsg: %s", strerror(errno));
    /* Whoever holds them keeps the supervisor waiting for their end. */
    for (uint32_t i = 0; i < count; i++)
        close(fds[i]);
    return 0;
}

/* Returns a descriptor of the first process, which is readable when that has ended. */
static int hand_over(int socket, const struct container_user *user, uint32_t count, int info_fd,
                     struct err *err)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);
    int process;

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != user->uid
        || peer.pid <= 1)
        return err_set(err, ERR_IO, "somebody else connected");
    process = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    if (process < 0)
        return err_set(err, ERR_IO, "pidfd_open: %s", strerror(errno));
    int rc = send_descriptors(socket, count, err);
    if (rc == 0 && dprintf(info_fd, "{\"child-pid\": %d}", (int)peer.pid) < 0)
        rc = err_set(err, ERR_IO, "the supervisor is gone");
    close(info_fd);
    if (rc != 0) {
        close(process);
        return rc;
    }
    return process;
}

static void wait_for(int process)
{
    struct pollfd wait = {.fd = process, .events = POLLIN};

    while (!interrupted && poll(&wait, 1, -1) < 0 && errno == EINTR)
        continue;
}

/* -- one task ---------------------------------------------------------------------------------- */

static bool has_cdi(void)
{
    static const char *const files[] = {"/etc/cdi/nvidia.yaml", "/etc/cdi/nvidia.json",
                                        "/var/run/cdi/nvidia.yaml", "/var/run/cdi/nvidia.json"};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (access(files[i], R_OK) == 0)
            return true;
    }
    return false;
}

static int run_task(const struct podman *podman, const struct plan_task *task,
                    const struct container_user *user, int info_fd, struct err *err)
{
    int listener = listen_in(task->dir, err);
    int socket = -1;
    int process = -1;
    int rc = listener < 0 ? listener : create(podman, container_spec(task, user, has_cdi()), err);

    if (rc == 0)
        rc = call(podman, "POST", task->name, "/start", NULL, err);
    if (rc == 0) {
        socket = accept_init(podman, task->name, listener, err);
        rc = socket < 0 ? socket : 0;
    }
    if (rc == 0) {
        process = hand_over(socket, user, 1 + 2 * task->proc_count, info_fd, err);
        rc = process < 0 ? process : 0;
    }
    if (socket >= 0)
        close(socket);
    if (listener >= 0)
        close(listener);
    if (process >= 0) {
        wait_for(process);
        close(process);
    }
    return rc;
}

static int clean_up(struct podman *podman, const struct plan_task *task)
{
    struct err err = {0};
    int rc = discard(podman, task->name, &err);

    if (rc != 0)
        fprintf(stderr, "%s\n", err.text);
    remove_groups(task);
    return rc == 0 ? 0 : 1;
}

static int open_task(const char *dir, struct podman *podman, struct plan_task *task)
{
    struct err err = {0};
    int rc = plan_task_read(dir, task, &err);

    if (rc == 0) {
        rc = podman_reopen(task->podman, podman, &err);
        if (rc != 0)
            plan_task_fini(task);
    }
    if (rc != 0)
        fprintf(stderr, "%s\n", err.text);
    return rc;
}

int container_run(const char *dir, const struct container_user *user, int info_fd)
{
    struct sigaction action = {.sa_handler = on_term};
    struct plan_task task;
    struct podman podman;
    struct err err = {0};
    pid_t parent = getppid();

    sigaction(SIGTERM, &action, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) != 0 || getppid() != parent || parent == 1
        || open_task(dir, &podman, &task) != 0)
        return 1;
    podman.interrupted = &interrupted;
    if (run_task(&podman, &task, user, info_fd, &err) != 0 && !interrupted)
        fprintf(stderr, "%s\n", err.text);
    int rc = clean_up(&podman, &task);
    plan_task_fini(&task);
    return rc;
}

int container_remove(const char *dir)
{
    struct plan_task task;
    struct podman podman;

    if (open_task(dir, &podman, &task) != 0)
        return 1;
    int rc = clean_up(&podman, &task);
    plan_task_fini(&task);
    return rc;
}

/* -- the trial ----------------------------------------------------------------------------------
 */

/* sheaf-task-init without arguments ends with this: it ran. */
#define TRIED 125

static int try_root(const struct podman *podman, char ret_root[FS_PATH], struct err *err)
{
    static const char *const helpers[] = {"sheaf-task-init", NULL};
    char program[FS_PATH];
    char target[FS_PATH];
    char libexec[FS_PATH];
    struct buf bytes;
    int rc = libexec_find(helpers, libexec, err);

    buf_init(&bytes, 0);
    if (rc == 0
        && (fs_path(ret_root, "%s/try", podman->folder) != 0
            || fs_path(target, "%s/init", ret_root) != 0
            || fs_path(program, "%s/sheaf-task-init", libexec) != 0))
        rc = err_set(err, ERR_IO, "path too long");
    if (rc == 0)
        rc = fs_mkdir(ret_root, 0755, err);
    if (rc == 0)
        rc = fs_read(program, (size_t)64 << 20, &bytes, err);
    if (rc == 0)
        rc = fs_write(target, bytes.data, bytes.length, 0755, err);
    buf_fini(&bytes);
    return rc;
}

static int try_run(const struct podman *podman, const char *name, struct err *err)
{
    json_t *answer = NULL;
    int rc = call(podman, "POST", name, "/start", NULL, err);

    if (rc == 0)
        rc = call(podman, "POST", name, "/wait?condition=exited&interval=20ms", &answer, err);
    if (rc == 0 && json_integer_value(answer) != TRIED)
        rc = err_set(err, ERR_UNSUPPORTED_HERE, "a trial container ended with %d",
                     (int)json_integer_value(answer));
    json_decref(answer);
    return rc;
}

int container_try(const struct podman *podman, struct err *err)
{
    struct podman copy = *podman;
    struct plan_task task = {.limits = {0}};
    const struct container_user user = {.uid = 65534, .gid = 65534, .groups = "-"};
    char root[FS_PATH];
    int rc = try_root(podman, root, err);

    if (rc != 0)
        return rc;
    snprintf(task.name, sizeof(task.name), "sheaf-try-%d", (int)getpid());
    json_t *spec = container_spec(&task, &user, false);
    json_object_del(spec, "image");
    json_object_del(spec, "mounts");
    json_object_set_new(spec, "rootfs", json_string(root));
    json_object_set_new(spec, "entrypoint", json_pack("[s]", "/init"));
    json_object_set_new(spec, "command", json_array());
    rc = create(podman, spec, err);
    if (rc == 0) {
        rc = try_run(podman, task.name, err);
        if (discard(&copy, task.name, NULL) != 0 && rc == 0)
            rc = err_set(err, ERR_UNSUPPORTED_HERE, "a trial container cannot be removed");
    }
    remove_groups(&task);
    if (rc == 0)
        return 0;
    struct err seen = *err;
    return err_set(err, ERR_UNSUPPORTED_HERE, "%.200s", seen.text);
}
