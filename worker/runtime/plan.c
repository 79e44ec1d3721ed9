#include "worker/runtime/plan.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/json.h"
#include "common/pure/buf.h"
#include "common/pure/mem.h"

/* Script, environments, peers: some hundred KiB at their bounds. */
#define FILE_LIMIT ((size_t)16 << 20)

void plan_task_fini(struct plan_task *task)
{
    if (task == NULL)
        return;
    spec_texts_fini(&task->env);
    spec_texts_fini(&task->device_nodes);
    spec_texts_fini(&task->peers);
    for (uint32_t i = 0; i < task->proc_count; i++)
        spec_texts_fini(&task->proc[i].env);
    free(task->script);
    memset(task, 0, sizeof(*task));
}

bool plan_name_is_valid(const char *name)
{
    if (name[0] == '\0' || name[0] == '.')
        return false;
    for (const char *at = name; *at != '\0'; at++) {
        if (!isalnum((unsigned char)*at) && strchr("._-", *at) == NULL)
            return false;
    }
    return true;
}

static json_t *texts_to_json(const struct spec_texts *texts)
{
    json_t *array = json_array();

    for (uint32_t i = 0; i < texts->count; i++) {
        /* NULL for a text that is not UTF-8; the caller's json_pack fails then. */
        if (json_array_append_new(array, json_string(texts->items[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static bool texts_from_json(const json_t *array, struct spec_texts *ret_texts)
{
    if (!json_is_array(array))
        return false;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *text = json_string_value(json_array_get(array, i));
        if (text == NULL)
            return false;
        spec_texts_add(ret_texts, text);
    }
    return true;
}

/* Not durable: after a crash of the host there is no task left to describe. */
static int file_put(const char *dir, const char *name, json_t *value, struct err *err)
{
    char path[FS_PATH];
    char temporary[FS_PATH];
    char *text = json_write(value);
    int rc = 0;

    json_decref(value);
    if (text == NULL)
        return err_set(err, ERR_INVALID_ENCODING, "%s: not valid UTF-8", name);
    if (fs_path(path, "%s/%s", dir, name) != 0 || fs_path(temporary, "%s.new", path) != 0) {
        free(text);
        return err_set(err, ERR_IO, "path too long: %.100s", dir);
    }
    size_t length = strlen(text);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, length) != (ssize_t)length)
        rc = err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "cannot write %s: %s", temporary,
                     strerror(errno));
    if (fd >= 0)
        close(fd);
    if (rc == 0 && rename(temporary, path) != 0)
        rc = err_set(err, ERR_IO, "cannot write %s: %s", path, strerror(errno));
    free(text);
    return rc;
}

static int file_get(const char *dir, const char *name, json_t **ret_value, struct err *err)
{
    char path[FS_PATH];
    struct buf text;
    int rc;

    if (fs_path(path, "%s/%s", dir, name) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s", dir);
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return err_set(err, ERR_NOT_FOUND, "no %s", path);
    buf_init(&text, 0);
    rc = fs_read(path, FILE_LIMIT, &text, err);
    if (rc == 0)
        rc = json_read(text.data != NULL ? text.data : "", text.length, ret_value, err);
    buf_fini(&text);
    return rc;
}

static int corrupt(const char *dir, const char *name, struct err *err)
{
    return err_set(err, ERR_STATE_CORRUPT, "%s/%s is not what we wrote", dir, name);
}

static json_t *cgroup_to_json(const struct cgroup_layout *layout)
{
    json_t *array = json_array();

    for (int i = 0; i < CGROUP_CONTROLLER_COUNT; i++)
        json_array_append_new(array, json_pack("{s:s, s:b}", "parent", layout->parent[i], "unified",
                                               layout->unified[i]));
    return array;
}

static bool cgroup_from_json(const json_t *array, struct cgroup_layout *ret_layout)
{
    for (size_t i = 0; i < CGROUP_CONTROLLER_COUNT; i++) {
        const json_t *item = json_array_get(array, i);
        const char *parent = json_text(item, "parent");
        if (parent == NULL || fs_path(ret_layout->parent[i], "%s", parent) != 0)
            return false;
        ret_layout->unified[i] = json_is_true(json_object_get(item, "unified"));
    }
    return true;
}

static json_t *procs_to_json(const struct plan_task *task)
{
    json_t *procs = json_array();

    for (uint32_t i = 0; i < task->proc_count; i++) {
        json_t *item = json_pack("{s:I, s:o}", "rank", (json_int_t)task->proc[i].rank, "env",
                                 texts_to_json(&task->proc[i].env));
        if (json_array_append_new(procs, item) != 0) {
            json_decref(procs);
            return NULL;
        }
    }
    return procs;
}

int plan_task_write(const struct plan_task *task, struct err *err)
{
    json_t *value = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:o, s:s, s:o, s:I, s:I, s:I, s:o, s:I, s:o, s:o, s:I, s:I, "
        "s:I}",
        "name", task->name, "driver", task->driver, "libexec", task->libexec, "image", task->image,
        "podman", task->podman, "env", texts_to_json(&task->env), "script", task->script, "procs",
        procs_to_json(task), "memory", (json_int_t)task->limits.memory, "pids",
        (json_int_t)task->limits.pids, "cpu_milli", (json_int_t)task->limits.cpu_milli, "cgroup",
        cgroup_to_json(&task->cgroup), "shm", (json_int_t)task->shm, "device_nodes",
        texts_to_json(&task->device_nodes), "peers", texts_to_json(&task->peers), "filter",
        (json_int_t)task->filter, "stop_grace_ms", (json_int_t)task->stop_grace_ms, "log_limit",
        (json_int_t)task->log_limit);
    if (value == NULL)
        return err_set(err, ERR_INVALID_ENCODING, "script or environment is not valid UTF-8");
    return file_put(task->dir, PLAN_TASK, value, err);
}

static bool number_from_json(const json_t *object, const char *key, uint64_t limit,
                             uint64_t *ret_number)
{
    const json_t *value = json_object_get(object, key);
    json_int_t number = json_integer_value(value);

    if (!json_is_integer(value) || number < 0 || (uint64_t)number > limit)
        return false;
    *ret_number = (uint64_t)number;
    return true;
}

static bool small_from_json(const json_t *object, const char *key, uint32_t *ret_number)
{
    uint64_t number;

    if (!number_from_json(object, key, UINT32_MAX, &number))
        return false;
    *ret_number = (uint32_t)number;
    return true;
}

static bool text_from_json(const json_t *object, const char *key, char *out, size_t size)
{
    const char *text = json_text(object, key);

    return text != NULL && snprintf(out, size, "%s", text) < (int)size;
}

static bool procs_from_json(const json_t *procs, struct plan_task *task)
{
    size_t count = json_array_size(procs);

    if (count == 0 || count > RUNTIME_MAX_PROCS)
        return false;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(procs, i);
        struct runtime_proc *proc = &task->proc[task->proc_count++];
        if (!small_from_json(item, "rank", &proc->rank)
            || !texts_from_json(json_object_get(item, "env"), &proc->env))
            return false;
    }
    return true;
}

static bool task_from_json(const json_t *value, struct plan_task *task)
{
    const char *script = json_text(value, "script");
    uint64_t filter;

    if (script == NULL)
        return false;
    task->script = mem_strdup(script);
    if (!number_from_json(value, "filter", FILTER_REJECT, &filter))
        return false;
    task->filter = (enum filter_mode)filter;
    return text_from_json(value, "name", task->name, sizeof(task->name))
           && plan_name_is_valid(task->name)
           && text_from_json(value, "driver", task->driver, sizeof(task->driver))
           && text_from_json(value, "libexec", task->libexec, sizeof(task->libexec))
           && text_from_json(value, "image", task->image, sizeof(task->image))
           && text_from_json(value, "podman", task->podman, sizeof(task->podman))
           && texts_from_json(json_object_get(value, "env"), &task->env)
           && procs_from_json(json_object_get(value, "procs"), task)
           && number_from_json(value, "memory", INT64_MAX, &task->limits.memory)
           && small_from_json(value, "pids", &task->limits.pids)
           && small_from_json(value, "cpu_milli", &task->limits.cpu_milli)
           && cgroup_from_json(json_object_get(value, "cgroup"), &task->cgroup)
           && number_from_json(value, "shm", INT64_MAX, &task->shm)
           && texts_from_json(json_object_get(value, "device_nodes"), &task->device_nodes)
           && texts_from_json(json_object_get(value, "peers"), &task->peers)
           && number_from_json(value, "stop_grace_ms", INT64_MAX, &task->stop_grace_ms)
           && number_from_json(value, "log_limit", INT64_MAX, &task->log_limit);
}

int plan_task_read(const char *dir, struct plan_task *ret_task, struct err *err)
{
    json_t *value = NULL;
    int rc = file_get(dir, PLAN_TASK, &value, err);

    if (rc != 0)
        return rc;
    memset(ret_task, 0, sizeof(*ret_task));
    if (fs_path(ret_task->dir, "%s", dir) != 0 || !task_from_json(value, ret_task)) {
        plan_task_fini(ret_task);
        rc = corrupt(dir, PLAN_TASK, err);
    }
    json_decref(value);
    return rc;
}

int plan_release_write(const char *dir, const struct spec_texts *env, struct err *err)
{
    json_t *value = json_pack("{s:o}", "env", texts_to_json(env));

    if (value == NULL)
        return err_set(err, ERR_INVALID_ENCODING, "environment is not valid UTF-8");
    return file_put(dir, PLAN_RELEASE, value, err);
}

int plan_release_read(const char *dir, struct spec_texts *ret_env, struct err *err)
{
    json_t *value = NULL;
    int rc = file_get(dir, PLAN_RELEASE, &value, err);

    if (rc != 0)
        return rc == -ERR_NOT_FOUND ? 0 : rc;
    if (!texts_from_json(json_object_get(value, "env"), ret_env))
        rc = corrupt(dir, PLAN_RELEASE, err);
    json_decref(value);
    return rc;
}

/* Start time of a process in clock ticks since boot; 0 = there is none. */
static uint64_t start_ticks(int pid)
{
    char path[64];
    struct buf text;
    uint64_t ticks = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    buf_init(&text, 0);
    if (fs_read(path, 4096, &text, NULL) == 0 && text.data != NULL) {
        /* The name in parentheses may hold anything: fields count from the last one. */
        char *at = strrchr(text.data, ')');
        for (int field = 2; at != NULL && field < 22; field++)
            at = strchr(at + 1, ' ');
        if (at != NULL)
            ticks = strtoull(at, NULL, 10);
    }
    buf_fini(&text);
    return ticks;
}

void plan_boot_id(char out[64])
{
    struct buf text;

    buf_init(&text, 0);
    out[0] = '\0';
    if (fs_read("/proc/sys/kernel/random/boot_id", 64, &text, NULL) == 0 && text.data != NULL)
        snprintf(out, 64, "%.*s", (int)strcspn(text.data, "\n"), text.data);
    buf_fini(&text);
}

int plan_run_write(const char *dir, struct err *err)
{
    char boot[64];

    plan_boot_id(boot);
    return file_put(dir, PLAN_RUN,
                    json_pack("{s:i, s:s, s:I}", "pid", (int)getpid(), "boot_id", boot,
                              "start_ticks", (json_int_t)start_ticks((int)getpid())),
                    err);
}

int plan_run_read(const char *dir, struct plan_run *ret_run, struct err *err)
{
    struct plan_run run = {0};
    json_t *value = NULL;
    uint32_t pid;
    int rc = file_get(dir, PLAN_RUN, &value, err);

    if (rc != 0)
        return rc;
    if (!small_from_json(value, "pid", &pid) || pid > INT32_MAX
        || !text_from_json(value, "boot_id", run.boot_id, sizeof(run.boot_id))
        || !number_from_json(value, "start_ticks", INT64_MAX, &run.start_ticks)) {
        rc = corrupt(dir, PLAN_RUN, err);
    } else {
        run.pid = (int)pid;
        *ret_run = run;
    }
    json_decref(value);
    return rc;
}

bool plan_run_lives(const struct plan_run *run)
{
    char boot[64];

    plan_boot_id(boot);
    return strcmp(boot, run->boot_id) == 0 && run->start_ticks != 0
           && start_ticks(run->pid) == run->start_ticks;
}

int plan_exit_write(const char *dir, const struct runtime_exit *exit, bool clean, struct err *err)
{
    char path[FS_PATH];
    json_t *value = json_pack("{s:i, s:I, s:b, s:I, s:s, s:b}", "code", (int)exit->code, "rank",
                              (json_int_t)exit->rank, "oom", exit->oom, "used_ms",
                              (json_int_t)exit->used_ms, "failure", exit->failure, "clean", clean);
    char *text = value != NULL ? json_write(value) : NULL;
    int rc;

    json_decref(value);
    if (text == NULL || fs_path(path, "%s/" PLAN_EXIT, dir) != 0)
        rc = err_set(err, ERR_IO, "cannot write the exit in %.100s", dir);
    else
        rc = fs_write(path, text, strlen(text), 0600, err);
    free(text);
    return rc;
}

int plan_exit_read(const char *dir, struct runtime_exit *ret_exit, bool *ret_clean, struct err *err)
{
    struct runtime_exit exit = {0};
    json_t *value = NULL;
    int rc = file_get(dir, PLAN_EXIT, &value, err);

    if (rc != 0)
        return rc;
    exit.code = (int32_t)json_integer_value(json_object_get(value, "code"));
    exit.oom = json_is_true(json_object_get(value, "oom"));
    if (!json_is_integer(json_object_get(value, "code"))
        || !small_from_json(value, "rank", &exit.rank)
        || !number_from_json(value, "used_ms", INT64_MAX, &exit.used_ms)
        || !text_from_json(value, "failure", exit.failure, sizeof(exit.failure))) {
        rc = corrupt(dir, PLAN_EXIT, err);
    } else {
        *ret_clean = json_is_true(json_object_get(value, "clean"));
        *ret_exit = exit;
    }
    json_decref(value);
    return rc;
}

void plan_env_set(struct spec_texts *env, const char *item)
{
    size_t length = strcspn(item, "=");

    for (uint32_t i = 0; i < env->count; i++) {
        if (strncmp(env->items[i], item, length) == 0 && env->items[i][length] == '=') {
            free(env->items[i]);
            env->items[i] = mem_strdup(item);
            return;
        }
    }
    spec_texts_add(env, item);
}

uint32_t plan_children(const char *path, int *ret_pids, uint32_t count, uint32_t limit)
{
    struct buf text;

    buf_init(&text, 0);
    if (fs_read(path, FILE_LIMIT, &text, NULL) == 0 && text.data != NULL) {
        char *at = text.data;
        char *end = NULL;
        for (long pid = strtol(at, &end, 10); end != at && count < limit;
             pid = strtol(at, &end, 10)) {
            at = end;
            if (pid > 1 && pid <= INT32_MAX)
                ret_pids[count++] = (int)pid;
        }
    }
    buf_fini(&text);
    return count;
}
