/* `uninstall`: out of the pool, and nothing of the worker's stays on the machine. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "worker/core/home.h"
#include "worker/core/verbs.h"
#include "worker/runtime/runtime.h"
#include "worker/runtime/spawn.h"

#define SYSTEM_PARENT "/var/lib/sheaf"
#define SERVICE       "sheaf-worker.service"
#define SERVICE_LINK  "/etc/systemd/system/multi-user.target.wants/" SERVICE
/* After SIGTERM the daemon ends at once; a loaded machine takes longer. */
#define STOP_WAIT_US INT64_C(30000000)
#define LOOK_NS      100000000L
#define SYSTEMCTL_MS 60000

struct uninstall {
    const struct verb_call *call;
    bool force;      /* without the pool's leave; running jobs end now */
    bool keep_state; /* of the package's removal: identity and settings stay for a later install */
    int lock;
};

static int read_flags(struct uninstall *what, struct err *err)
{
    for (int i = 0; i < what->call->argc; i++) {
        const char *word = what->call->argv[i];

        if (strcmp(word, "--force") == 0)
            what->force = true;
        else if (strcmp(word, "--keep-state") == 0)
            what->keep_state = true;
        else
            return err_set(err, ERR_USAGE,
                           "write: sheaf-worker uninstall [--force] [--keep-state], not %.60s",
                           word);
    }
    if (what->keep_state && !what->force)
        return err_set(err, ERR_USAGE, "--keep-state goes with --force: who left has no state");
    return 0;
}

/* Once it is ours no worker runs here, and none can start. limit_us 0: as long as it takes. */
static int take_lock(struct uninstall *what, int64_t limit_us, struct err *err)
{
    const struct timespec pause = {.tv_nsec = LOOK_NS};
    int64_t end_us = clock_mono_us() + limit_us;
    char path[FS_PATH];
    int rc = settings_path(what->call->settings, "lock", path, err);

    while (rc == 0) {
        rc = fs_lock(path, &what->lock, err);
        if (rc != -ERR_ALREADY_RUNNING || (limit_us > 0 && clock_mono_us() > end_us))
            return rc;
        nanosleep(&pause, NULL);
        rc = 0;
    }
    return rc;
}

static int ask(struct uninstall *what, const char *verb, json_t **ret_answer, struct err *err)
{
    json_t *request = json_object();

    json_object_set_new(request, "verb", json_string(verb));
    int rc = verb_ask(what->call->settings, request, ret_answer, err);
    json_decref(request);
    return rc;
}

/* A daemon runs: it leaves, or it is told to stop. status is its. */
static int end_daemon(struct uninstall *what, const json_t *status, struct err *err)
{
    json_t *answer = NULL;
    int rc;

    if (what->force) {
        pid_t pid = (pid_t)json_integer_value(json_object_get(status, "pid"));
        if (pid > 1)
            kill(pid, SIGTERM);
        return take_lock(what, STOP_WAIT_US, err);
    }
    if (!json_is_true(json_object_get(status, "connected")))
        return err_set(err, ERR_UNREACHABLE,
                       "the pool does not answer this worker; try again, or go without telling it: "
                       "sheaf-worker uninstall --force");
    size_t tasks = json_array_size(json_object_get(status, "tasks"));
    if (tasks > 0)
        printf("waiting for %zu running job%s; Ctrl-C and --force end them now\n", tasks,
               tasks == 1 ? "" : "s");
    fflush(stdout);
    rc = ask(what, "leave", &answer, err);
    if (rc == 0)
        json_decref(answer);
    return rc == 0 ? take_lock(what, 0, err) : rc;
}

/* *ret_code: what the program ends with, told already. */
static int leave(struct uninstall *what, int *ret_code, struct err *err)
{
    const struct settings *settings = what->call->settings;
    struct node_file node;
    struct err none = {0};
    json_t *status = NULL;
    int rc;

    if (ask(what, "status", &status, &none) == 0) {
        rc = end_daemon(what, status, err);
        json_decref(status);
        return rc;
    }
    if (!what->force && home_load(settings, &node, &none) == 0) {
        *ret_code = verb_leave_here(what->call);
        if (*ret_code != 0) {
            printf("still a member of the pool; to go without telling it: "
                   "sheaf-worker uninstall --force\n");
            return 0;
        }
    }
    return take_lock(what, STOP_WAIT_US, err);
}

static void end_tasks(const struct settings *settings)
{
    char path[FS_PATH];
    char task[FS_PATH];
    DIR *folder;

    if (settings_path(settings, "tasks", path, NULL) != 0 || (folder = opendir(path)) == NULL)
        return;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (entry->d_name[0] != '.' && fs_path(task, "%s/%s", path, entry->d_name) == 0)
            runtime_sweep(task);
    }
    closedir(folder);
    runtime_sweep_machine();
}

/* systemd runs: it is told. Else the link alone says that the service is enabled. */
static void disable_service(void)
{
    char systemctl[FS_PATH];
    const char *const argv[] = {systemctl, "disable", "--now", "--quiet", SERVICE, NULL};
    struct err err = {0};
    struct buf output;

    if (geteuid() != 0)
        return;
    if (access("/run/systemd/system", F_OK) == 0 && spawn_find("systemctl", systemctl) == 0) {
        buf_init(&output, 0);
        if (spawn_run(argv, NULL, SYSTEMCTL_MS, &output, &err) != 0)
            fprintf(stderr, "sheaf-worker: systemctl disable: %s\n", err.text);
        buf_fini(&output);
    }
    (void)unlink(SERVICE_LINK);
}

static int remove_all(struct uninstall *what, struct err *err)
{
    const struct settings *settings = what->call->settings;
    bool system = strcmp(settings->state, SETTINGS_SYSTEM_STATE) == 0;
    int rc = 0;

    if (system)
        disable_service();
    end_tasks(settings);
    if (what->keep_state)
        return 0;
    rc = fs_remove_tree(settings->state, err);
    if (rc != 0)
        return rc;
    if (system)
        (void)rmdir(SYSTEM_PARENT); /* another program's state may be in it */
    printf("removed %s\n", settings->state);
    if (system && access("/var/lib/dpkg/info/sheaf-worker.list", F_OK) == 0)
        printf("the programs are a package: apt-get purge sheaf-worker\n");
    return 0;
}

int verb_uninstall(const struct verb_call *call)
{
    struct uninstall what = {.call = call, .lock = -1};
    struct err err = {0};
    int code = 0;
    int rc = read_flags(&what, &err);

    if (rc == 0 && access(call->settings->state, F_OK) != 0) {
        if (strcmp(call->settings->state, SETTINGS_SYSTEM_STATE) == 0)
            disable_service();
        printf("nothing is left: %s does not exist\n", call->settings->state);
        return 0;
    }
    if (rc == 0 && !home_is_ours(call->settings))
        rc = err_set(&err, ERR_STATE_CONFLICT,
                     "%s is no worker's state folder; nothing was removed", call->settings->state);
    if (rc == 0)
        rc = leave(&what, &code, &err);
    if (rc == 0 && code == 0)
        rc = remove_all(&what, &err);
    if (what.lock >= 0)
        close(what.lock);
    return rc != 0 ? verb_fail(&err) : code;
}
