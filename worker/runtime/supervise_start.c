#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/pure/mem.h"
#include "worker/runtime/supervise_private.h"
#include "worker/runtime/users.h"

/* bwrap and sheaf-task-init count against the tenant's number of processes. */
#define PIDS_OVERHEAD 2u

static int user_take(struct supervisor *super, struct err *err)
{
    uid_t first = super->task.peers.count > 0 ? USERS_GANGS : USERS_FIRST;
    uid_t uid;
    int rc = user_claim(first, USERS_COUNT, &super->claim, &uid, err);

    if (rc == 0)
        super->user = (struct driver_user){.uid = uid, .gid = uid, .drop = true};
    return rc;
}

/* Groups that open the task's devices. Fails on a device that no group opens. */
static int user_groups(struct supervisor *super, struct err *err)
{
    size_t used = 0;

    for (uint32_t i = 0; i < super->task.device_nodes.count; i++) {
        const char *path = super->task.device_nodes.items[i];
        struct stat status;
        if (stat(path, &status) != 0 || !(S_ISCHR(status.st_mode) || S_ISDIR(status.st_mode)))
            return err_set(err, ERR_DEVICE_GONE, "%s is not a device", path);
        if (S_ISDIR(status.st_mode) || (status.st_mode & 0006) == 0006)
            continue;
        if ((status.st_mode & 0060) != 0060 || status.st_gid == 0)
            return err_set(err, ERR_DEVICE_GONE, "%s opens for root alone; give it a group", path);
        used += (size_t)snprintf(super->user.groups + used, sizeof(super->user.groups) - used,
                                 "%s%u", used > 0 ? "," : "", (unsigned)status.st_gid);
        if (used >= sizeof(super->user.groups))
            return err_set(err, ERR_TOO_MANY, "too many device groups");
    }
    if (used == 0)
        snprintf(super->user.groups, sizeof(super->user.groups), "-");
    return 0;
}

/* Nothing of the tenant runs yet, so the tree stands still while we walk it. */
static int give_tree(const char *dir, const char *name, uid_t uid, struct err *err)
{
    char path[FS_PATH];
    char *roots[] = {path, NULL};
    int rc = 0;

    if (fs_path(path, "%s/%s", dir, name) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s", dir);
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
    if (walk == NULL)
        return err_set(err, ERR_IO, "cannot walk %s: %s", path, strerror(errno));
    for (FTSENT *entry = fts_read(walk); rc == 0 && entry != NULL; entry = fts_read(walk)) {
        if (entry->fts_info == FTS_DP)
            continue;
        if (fchownat(AT_FDCWD, entry->fts_path, uid, uid, AT_SYMLINK_NOFOLLOW) != 0)
            rc = err_set(err, ERR_IO, "cannot give %s away: %s", entry->fts_path, strerror(errno));
    }
    fts_close(walk);
    return rc;
}

static int user_prepare(struct supervisor *super, struct err *err)
{
    int rc;

    if (geteuid() != 0 || !super->driver->isolated)
        return 0;
    rc = user_take(super, err);
    if (rc == 0)
        rc = user_groups(super, err);
    if (rc == 0)
        rc = give_tree(super->task.dir, "job", super->user.uid, err);
    if (rc == 0)
        rc = give_tree(super->task.dir, "out", super->user.uid, err);
    return rc;
}

static bool has_limits(const struct plan_task *task)
{
    for (int i = 0; i < CGROUP_CONTROLLER_COUNT; i++) {
        if (task->cgroup.parent[i][0] != '\0')
            return true;
    }
    return false;
}

/* In the forked child: descriptors into place, limits on, then the sandbox. */
static _Noreturn void run_sandbox(const struct supervisor *super, char **argv, const int *low,
                                  uint32_t low_count, int noise)
{
    char *env[] = {NULL};
    int high[INIT_LOG_FD + 2 * RUNTIME_MAX_PROCS];

    if (super->limited && !super->driver->apart
        && cgroup_join(&super->task.cgroup, super->task.name) != 0) {
        dprintf(noise, "cannot enter the control group: %s\n", strerror(errno));
        _exit(PLAN_CODE_SANDBOX);
    }
    /* Out of the way first, so that none is overwritten before it is moved. */
    noise = fcntl(noise, F_DUPFD_CLOEXEC, DRIVER_FIRST_FD);
    for (uint32_t i = 0; i < low_count; i++)
        high[i] = fcntl(low[i], F_DUPFD_CLOEXEC, DRIVER_FIRST_FD);
    for (uint32_t i = 0; i < low_count; i++)
        dup2(high[i], INIT_CONTROL_FD + (int)i);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(noise, STDOUT_FILENO);
    dup2(noise, STDERR_FILENO);
    execve(argv[0], argv, env);
    dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(PLAN_CODE_SANDBOX);
}

static void close_all(int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

static int fork_sandbox(struct supervisor *super, const struct driver_command *command,
                        const int *low, uint32_t low_count, struct err *err)
{
    int noise[2];
    char **argv = mem_new((size_t)command->argv.count + 1, sizeof(*argv));

    for (uint32_t i = 0; i < command->argv.count; i++)
        argv[i] = command->argv.items[i];
    if (pipe2(noise, O_CLOEXEC) != 0) {
        free(argv);
        return err_set(err, ERR_IO, "cannot make a pipe: %s", strerror(errno));
    }
    fcntl(noise[0], F_SETFL, O_NONBLOCK);
    pid_t pid = fork();
    if (pid == 0)
        run_sandbox(super, argv, low, low_count, noise[1]);
    int saved = errno;
    free(argv);
    close(noise[1]);
    super->noise = noise[0];
    if (pid < 0)
        return err_set(err, ERR_IO, "cannot fork: %s", strerror(saved));
    super->child = pid;
    return 0;
}

static int start_sandbox(struct supervisor *super, struct err *err)
{
    struct driver_command command = {.info_fd = -1, .root_fd = -1};
    int low[1 + 2 * RUNTIME_MAX_PROCS];
    uint32_t low_count = 1 + 2 * super->task.proc_count;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return err_set(err, ERR_IO, "cannot make a socket: %s", strerror(errno));
    super->control = pair[0];
    low[0] = pair[1];
    int rc = supervise_logs_open(super, low + 1, err);
    if (rc == 0)
        rc = super->driver->command(&super->task, &super->user, &command, err);
    if (rc == 0) {
        super->info_fd = command.info_fd;
        super->root_fd = command.root_fd;
        rc = fork_sandbox(super, &command, low, low_count, err);
        driver_command_fini(&command);
    }
    close_all(low, low_count);
    return rc;
}

static int install_filter(struct supervisor *super, struct err *err)
{
    const struct plan_task *task = &super->task;

    if (task->peers.count == 0)
        return filter_guard(USERS_FIRST, USERS_GANGS - 1, task->filter, err);
    int rc = filter_install(task->name, super->user.uid, task->filter, &task->peers, err);
    super->filtered = rc == 0;
    return rc;
}

int supervise_start(struct supervisor *super, struct err *err)
{
    struct plan_task *task = &super->task;
    struct cgroup_limits limits = task->limits;
    int rc = user_prepare(super, err);

    if (rc == 0 && has_limits(task)) {
        limits.pids += limits.pids > 0 ? PIDS_OVERHEAD : 0;
        rc = cgroup_create(&task->cgroup, task->name, &limits, err);
        super->limited = rc == 0;
    }
    if (rc == 0)
        rc = start_sandbox(super, err);
    /* While the sandbox builds itself; it waits at the barrier anyway. */
    if (rc == 0 && task->filter != FILTER_NONE && super->user.drop)
        rc = install_filter(super, err);
    return rc;
}

/* -- what sheaf-task-init is told at the barrier ---------------------------------------------- */

static void add_defaults(const struct supervisor *super, struct spec_texts *env)
{
    static const char *const fixed[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "USER=sheaf",
        "LOGNAME=sheaf",
        "SHELL=/bin/sh",
        "LANG=C.UTF-8",
        "TMPDIR=/tmp",
        /* PoCL dies without a writable place for its kernels. */
        "POCL_CACHE_DIR=/tmp/.pocl",
    };
    char job[FS_PATH];
    char out[FS_PATH];

    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        spec_texts_add(env, fixed[i]);
    super->driver->folders(&super->task, job, out);
    spec_texts_addf(env, "HOME=%s", job);
    spec_texts_addf(env, "SHEAF_JOB_DIR=%s", job);
    spec_texts_addf(env, "SHEAF_OUT_DIR=%s", out);
}

static void add_texts(const struct spec_texts *from, struct spec_texts *env)
{
    for (uint32_t i = 0; i < from->count; i++)
        plan_env_set(env, from->items[i]);
}

int supervise_orders(const struct supervisor *super, struct buf *ret_body, struct err *err)
{
    const struct plan_task *task = &super->task;
    uint32_t counts[INIT_MAX_PROCS] = {0};
    struct spec_texts release = {0};
    struct buf strings;
    int rc = plan_release_read(task->dir, &release, err);

    buf_init(&strings, INIT_MAX_START);
    buf_append(&strings, task->script, strlen(task->script) + 1);
    for (uint32_t i = 0; i < task->proc_count; i++) {
        struct spec_texts env = {0};
        add_defaults(super, &env);
        add_texts(&task->env, &env);
        add_texts(&release, &env);
        add_texts(&task->proc[i].env, &env);
        counts[i] = env.count;
        for (uint32_t k = 0; k < env.count; k++)
            buf_append(&strings, env.items[k], strlen(env.items[k]) + 1);
        spec_texts_fini(&env);
    }
    if (rc == 0 && (strings.full || strings.length + sizeof(counts) > INIT_MAX_START))
        rc = err_set(err, ERR_TOO_MANY, "script and environment are too large");
    if (rc == 0) {
        buf_append(ret_body, counts, sizeof(counts));
        buf_append(ret_body, strings.data, strings.length);
    }
    buf_fini(&strings);
    spec_texts_fini(&release);
    return rc;
}
