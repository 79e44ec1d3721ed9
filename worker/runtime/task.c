/* The worker's side of a task: it asks the supervisor, and reads what that left on disk. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "worker/runtime/runtime_private.h"
#include "worker/runtime/supervise.h"

/* Tries at control groups whose supervisor was killed; the kernel needs some milliseconds. */
#define REMOVE_TRIES    200
#define REMOVE_EVERY_MS 5

/* -- the supervisor's socket ------------------------------------------------------------------ */

/* Socket paths end at 107 bytes; a task's folder may be deeper, so it is named by descriptor. */
static int control_socket(const char *dir, bool listening, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int folder = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool good = folder >= 0 && fd >= 0;

    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" PLAN_CONTROL, folder);
    if (good && listening) {
        if (unlinkat(folder, PLAN_CONTROL, 0) != 0 && errno != ENOENT)
            good = false;
        good = good && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0
               && listen(fd, 8) == 0;
    } else if (good) {
        good = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    }
    int rc = good ? fd : err_set(err, ERR_IO, "socket in %.120s: %s", dir, strerror(errno));
    if (folder >= 0)
        close(folder);
    if (!good && fd >= 0)
        close(fd);
    return rc;
}

/* -- news ------------------------------------------------------------------------------------- */

static void task_disconnect(struct task *task)
{
    if (task->event != NULL)
        event_free(task->event);
    task->event = NULL;
    if (task->fd >= 0)
        close(task->fd);
    task->fd = -1;
}

/* The hook may free the task: nothing is touched after it. */
static void task_end(struct task *task)
{
    struct err err = {0};

    task_disconnect(task);
    task->over = true;
    if (plan_exit_read(task->dir, &task->exit, &task->clean, &err) != 0) {
        task->exit = (struct runtime_exit){.code = PLAN_CODE_KILLED};
        task->exit.used_ms = runtime_used_ms(task);
        snprintf(task->exit.failure, sizeof(task->exit.failure),
                 "the supervisor ended without a word: %.100s", err.text);
    }
    if (task->hooks.on_exit != NULL)
        task->hooks.on_exit(task, &task->exit, task->hooks.arg);
}

/* Number after "NAME "; false when the word is another one. */
static bool word_number(const char *word, const char *name, int64_t *ret_number)
{
    size_t length = strlen(name);
    char *end;

    if (strncmp(word, name, length) != 0 || word[length] != ' ')
        return false;
    *ret_number = strtoll(word + length + 1, &end, 10);
    return end != word + length + 1 && *end == '\0';
}

static void take_word(struct task *task, const char *word)
{
    int64_t number;

    if (word_number(word, "released", &number)) {
        task->released_us = number;
    } else if (word_number(word, "ready", &number)) {
        task->sandbox_pid = number > 1 && number <= INT32_MAX ? (int)number : 0;
        if (!task->told_ready) {
            task->told_ready = true;
            if (task->hooks.on_ready != NULL)
                task->hooks.on_ready(task, task->hooks.arg);
        }
    } else if (strcmp(word, "started") == 0 && !task->told_started) {
        task->told_started = true;
        if (task->hooks.on_started != NULL)
            task->hooks.on_started(task, task->hooks.arg);
    }
}

static void on_word(evutil_socket_t fd, short what, void *arg)
{
    char word[SUPERVISE_WORD] = "";
    ssize_t got = recv(fd, word, sizeof(word) - 1, MSG_DONTWAIT);

    (void)what;
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got <= 0)
        task_end(arg);
    else
        take_word(arg, word);
}

static void on_past(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    task_end(arg);
}

static struct task *task_new(struct runtime *runtime, const char *dir,
                             const struct task_hooks *hooks, int fd)
{
    struct task *task = mem_new(1, sizeof(*task));
    struct timeval now = {0, 0};

    task->runtime = runtime;
    snprintf(task->dir, sizeof(task->dir), "%s", dir);
    task->hooks = *hooks;
    task->fd = fd;
    if (fd >= 0)
        task->event = event_new(runtime->base, fd, EV_READ | EV_PERSIST, on_word, task);
    else
        task->event = evtimer_new(runtime->base, on_past, task);
    BUG_ON(task->event == NULL || event_add(task->event, fd >= 0 ? NULL : &now) != 0);
    return task;
}

static void task_say(const struct task *task, const char *word)
{
    /* When it fails the supervisor is gone, and the end of file is on its way. */
    if (task->fd >= 0 && send(task->fd, word, strlen(word), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        log_debug("runtime", "supervisor_gone", "dir=" LOG_Q " error=%d", task->dir, errno);
}

/* -- life ------------------------------------------------------------------------------------- */

static void copy_texts(const struct spec_texts *from, struct spec_texts *to)
{
    for (uint32_t i = 0; i < from->count; i++)
        spec_texts_add(to, from->items[i]);
}

static int plan_check(const struct runtime_plan *plan, struct err *err)
{
    /* The longest path below the folder is our own. */
    if (plan->dir[0] != '/' || strlen(plan->dir) > FS_PATH - 64)
        return err_set(err, ERR_IO, "task folder is relative or too long: %.100s", plan->dir);
    if (!plan_name_is_valid(plan->name))
        return err_set(err, ERR_INVALID_NAME, "task name %.100s", plan->name);
    if (plan->proc_count == 0 || plan->proc_count > RUNTIME_MAX_PROCS
        || plan->peer_count > RUNTIME_MAX_PEERS || plan->device_node_count > 64)
        return err_set(err, ERR_OUT_OF_RANGE, "processes, peers or devices out of range");
    for (uint32_t i = 0; i < plan->device_node_count; i++) {
        if (strncmp(plan->device_nodes[i], "/dev/", 5) != 0
            || strstr(plan->device_nodes[i], "..") != NULL)
            return err_set(err, ERR_MOUNT_NOT_ALLOWED, "%s is not below /dev",
                           plan->device_nodes[i]);
    }
    return 0;
}

static void plan_copy(const struct runtime *runtime, const struct runtime_plan *plan,
                      struct plan_task *task)
{
    snprintf(task->dir, sizeof(task->dir), "%s", plan->dir);
    snprintf(task->name, sizeof(task->name), "%s", plan->name);
    snprintf(task->driver, sizeof(task->driver), "%s",
             plan->image != NULL ? driver_podman.name : runtime->driver->name);
    if (plan->image != NULL) {
        snprintf(task->image, sizeof(task->image), "%s", plan->image);
        snprintf(task->podman, sizeof(task->podman), "%s", plan->podman);
    }
    snprintf(task->libexec, sizeof(task->libexec), "%s", runtime->libexec);
    copy_texts(&plan->env, &task->env);
    task->script = mem_strdup(plan->script);
    task->proc_count = plan->proc_count;
    for (uint32_t i = 0; i < plan->proc_count; i++) {
        task->proc[i].rank = plan->proc[i].rank;
        copy_texts(&plan->proc[i].env, &task->proc[i].env);
    }
    task->limits.memory = plan->memory;
    task->limits.pids = plan->pids;
    task->limits.cpu_milli = plan->cpu_milli;
    task->cgroup = runtime->cgroup;
    task->shm = plan->shm;
    for (uint32_t i = 0; i < plan->device_node_count; i++)
        spec_texts_add(&task->device_nodes, plan->device_nodes[i]);
    for (uint32_t i = 0; i < plan->peer_count; i++)
        spec_texts_add(&task->peers, plan->peers[i]);
    task->filter = plan->filter ? runtime->filter : FILTER_NONE;
    task->stop_grace_ms = plan->stop_grace_ms;
    task->log_limit = plan->log_limit;
}

static int folders_make(const char *dir, struct err *err)
{
    static const char *const names[] = {"job", "out", "log"};
    char path[FS_PATH];
    int rc = fs_mkdir(dir, 0700, err);

    for (size_t i = 0; rc == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
        rc = fs_path(path, "%s/%s", dir, names[i]);
        if (rc == 0)
            rc = fs_mkdir(path, 0700, err);
    }
    return rc;
}

/* Remains of an earlier task in this folder would be taken for this one's. */
static int forget_earlier(const char *dir, struct err *err)
{
    static const char *const names[] = {PLAN_EXIT, PLAN_RELEASE, PLAN_RUN};
    char path[FS_PATH];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (fs_path(path, "%s/%s", dir, names[i]) != 0 || (unlink(path) != 0 && errno != ENOENT))
            return err_set(err, ERR_IO, "cannot remove %s: %s", path, strerror(errno));
    }
    return 0;
}

int runtime_prepare(struct runtime *runtime, const struct runtime_plan *plan,
                    const struct task_hooks *hooks, struct task **ret_task, struct err *err)
{
    struct plan_task task = {0};
    int listen_fd;
    int fd = -1;
    int rc = plan_check(plan, err);

    if (rc == 0)
        rc = folders_make(plan->dir, err);
    if (rc == 0)
        rc = forget_earlier(plan->dir, err);
    if (rc != 0)
        return rc;
    plan_copy(runtime, plan, &task);
    rc = plan_task_write(&task, err);
    plan_task_fini(&task);
    if (rc != 0)
        return rc;
    listen_fd = control_socket(plan->dir, true, err);
    if (listen_fd < 0)
        return listen_fd;
    /* Connected before it runs, so that no word is lost and its death is seen. */
    fd = control_socket(plan->dir, false, err);
    rc = fd < 0 ? fd : nursery_order(runtime, plan->dir, listen_fd, err);
    close(listen_fd);
    if (rc != 0) {
        if (fd >= 0)
            close(fd);
        return rc;
    }
    *ret_task = task_new(runtime, plan->dir, hooks, fd);
    return 0;
}

static int file_put_at(int folder, const struct runtime_file *file, struct err *err)
{
    size_t length = strlen(file->text);
    int fd;

    if (!plan_name_is_valid(file->name))
        return err_set(err, ERR_INVALID_NAME, "file name %.100s", file->name);
    if (unlinkat(folder, file->name, 0) != 0 && errno != ENOENT)
        return err_set(err, ERR_IO, "cannot replace %s: %s", file->name, strerror(errno));
    fd = openat(folder, file->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    bool good =
        fd >= 0 && fchmod(fd, 0644) == 0 && write(fd, file->text, length) == (ssize_t)length;
    int rc = good ? 0 : err_set(err, ERR_IO, "cannot write %s: %s", file->name, strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

/* The tenant's files may hold a ".sheaf" of their own, also as a link: ours replaces it. */
static int files_put(const char *dir, const struct runtime_file *files, struct err *err)
{
    char path[FS_PATH];
    struct stat status;
    int rc = 0;

    if (fs_path(path, "%s/job/.sheaf", dir) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s", dir);
    if (lstat(path, &status) == 0 && !S_ISDIR(status.st_mode) && unlink(path) != 0)
        return err_set(err, ERR_IO, "cannot replace %s: %s", path, strerror(errno));
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
        return err_set(err, ERR_IO, "cannot make %s: %s", path, strerror(errno));
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return err_set(err, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (fchmod(folder, 0755) != 0)
        rc = err_set(err, ERR_IO, "cannot open %s up: %s", path, strerror(errno));
    for (; rc == 0 && files != NULL && files->name != NULL; files++)
        rc = file_put_at(folder, files, err);
    close(folder);
    return rc;
}

int runtime_release(struct task *task, const struct spec_texts *env,
                    const struct runtime_file *files, struct err *err)
{
    static const struct spec_texts none = {0};
    int rc;

    if (task->over)
        return err_set(err, ERR_STATE_CONFLICT, "the task is over");
    if (task->released_us != 0)
        return 0;
    rc = files_put(task->dir, files, err);
    if (rc == 0)
        rc = plan_release_write(task->dir, env != NULL ? env : &none, err);
    if (rc == 0)
        task_say(task, "release");
    return rc;
}

void runtime_stop(struct task *task, bool kill_now)
{
    task_say(task, kill_now ? "kill" : "stop");
}

uint64_t runtime_used_ms(const struct task *task)
{
    if (task->over && task->exit.failure[0] == '\0')
        return task->exit.used_ms;
    if (task->released_us == 0)
        return 0;
    return (uint64_t)(clock_mono_us() - task->released_us) / 1000;
}

/* -- processes -------------------------------------------------------------------------------- */

static uint32_t add_children(int pid, int *ret_pids, uint32_t count, uint32_t limit)
{
    char path[300];
    char folder[64];

    snprintf(folder, sizeof(folder), "/proc/%d/task", pid);
    DIR *threads = opendir(folder);
    if (threads == NULL)
        return count;
    for (struct dirent *entry = readdir(threads); entry != NULL; entry = readdir(threads)) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%.20s/children", folder, entry->d_name);
        count = plan_children(path, ret_pids, count, limit);
    }
    closedir(threads);
    return count;
}

uint32_t runtime_pids(const struct task *task, int *ret_pids, uint32_t limit)
{
    uint32_t count = 0;

    if (task->over || task->sandbox_pid == 0 || limit == 0)
        return 0;
    ret_pids[count++] = task->sandbox_pid;
    for (uint32_t i = 0; i < count && count < limit; i++)
        count = add_children(ret_pids[i], ret_pids, count, limit);
    return count;
}

/* -- the end ---------------------------------------------------------------------------------- */

/* Rare: the supervisor was killed. Its sandbox dies with it; the kernel tells no one when. */
static void clean_groups(const struct plan_task *plan)
{
    for (int i = 0; i < REMOVE_TRIES; i++) {
        if (cgroup_remove(&plan->cgroup, plan->name) == 0)
            return;
        cgroup_kill(&plan->cgroup, plan->name);
        if (poll(NULL, 0, REMOVE_EVERY_MS) < 0)
            continue;
    }
    log_warn("runtime", "cgroup_left", "task=%s", plan->name);
}

static void clean_leftovers(const char *dir)
{
    struct plan_task plan;
    struct plan_run run;
    struct err err = {0};

    /* One that lives but cannot be spoken to any more; its sandbox dies with it. */
    if (plan_run_read(dir, &run, &err) == 0 && plan_run_lives(&run))
        kill(run.pid, SIGKILL);
    if (plan_task_read(dir, &plan, &err) != 0)
        return;
    const struct driver *driver = driver_get(plan.driver);
    if (driver != NULL && driver->remove != NULL && driver->remove(&plan, &err) != 0)
        log_warn("runtime", "container_left", "task=%s error=" LOG_Q, plan.name, err.text);
    clean_groups(&plan);
    if (plan.filter != FILTER_NONE && plan.peers.count > 0 && filter_remove(plan.name, &err) != 0)
        log_warn("runtime", "filter_left", "task=%s error=" LOG_Q, plan.name, err.text);
    plan_task_fini(&plan);
}

int runtime_adopt(struct runtime *runtime, const char *dir, const struct task_hooks *hooks,
                  struct task **ret_task, struct err *err)
{
    struct runtime_exit exit;
    bool clean;
    int fd = control_socket(dir, false, NULL);

    if (fd < 0 && plan_exit_read(dir, &exit, &clean, NULL) != 0) {
        /* Whatever a killed supervisor left must not outlive the last who knows of it. */
        clean_leftovers(dir);
        return err_set(err, ERR_NOT_FOUND, "no supervisor and no exit in %.120s", dir);
    }
    *ret_task = task_new(runtime, dir, hooks, fd);
    return 0;
}

void runtime_clean(struct task *task, bool keep_output)
{
    static const char *const ours[] = {"job",        PLAN_TASK, PLAN_RELEASE, PLAN_RUN,
                                       PLAN_CONTROL, PLAN_LOG,  PLAN_EXIT,    PLAN_INIT};
    struct err err = {0};
    char path[FS_PATH];
    int rc = 0;

    if (!task->clean)
        clean_leftovers(task->dir);
    if (!keep_output)
        rc = fs_remove_tree(task->dir, &err);
    for (size_t i = 0; keep_output && i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (fs_path(path, "%s/%s", task->dir, ours[i]) != 0 || fs_remove_tree(path, &err) != 0)
            rc = -ERR_IO;
    }
    if (rc != 0)
        log_warn("runtime", "folder_left", "dir=" LOG_Q " error=" LOG_Q, task->dir, err.text);
}

void runtime_sweep(const char *dir)
{
    struct runtime_exit exit;
    struct err err = {0};
    bool clean = false;

    if (plan_exit_read(dir, &exit, &clean, NULL) != 0 || !clean)
        clean_leftovers(dir);
    if (fs_remove_tree(dir, &err) != 0)
        log_warn("runtime", "folder_left", "dir=" LOG_Q " error=" LOG_Q, dir, err.text);
}

void task_free(struct task *task)
{
    if (task == NULL)
        return;
    task_disconnect(task);
    free(task);
}
