#include "worker/images/service.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/libexec.h"
#include "common/pure/buf.h"
#include "common/pure/spec.h"
#include "worker/runtime/spawn.h"

#define PID_FILE "service.pid"
/* Mirrors and the like for the worker alone, where its owner has written them. */
#define REGISTRIES "registries.conf"
/* Seconds without a call until it ends by itself: 40 MiB that an idle machine need not hold. */
#define IDLE_S     "60"
#define COMMAND_MS 30000
#define START_MS   10000
#define LINE_LIMIT 8192

/* Podman's own options, the same for each of its processes. */
static void add_options(const struct podman *podman, struct spec_texts *argv)
{
    static const char *const names[] = {"--root", "--runroot", "--tmpdir"};

    spec_texts_add(argv, podman->program);
    spec_texts_add(argv, "--cgroup-manager=cgroupfs");
    spec_texts_add(argv, "--log-level=warn");
    /* Else a mount of the store over itself stays behind when podman ends. */
    spec_texts_add(argv, "--storage-opt=overlay.skip_mount_home=true");
    spec_texts_add(argv, "--runtime");
    spec_texts_add(argv, podman->runtime);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        spec_texts_add(argv, names[i]);
        if (i == 0)
            spec_texts_addf(argv, "%s/store", podman->folder);
        else
            spec_texts_addf(argv, "%s/%s", podman->run, i == 1 ? "run" : "tmp");
    }
}

/* The registry passwords of this machine's people are not for tenants' images. */
static void add_environment(const struct podman *podman, struct spec_texts *env)
{
    char path[FS_PATH];

    spec_texts_add(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    spec_texts_addf(env, "HOME=%s", podman->folder);
    spec_texts_addf(env, "XDG_CONFIG_HOME=%s", podman->folder);
    spec_texts_addf(env, "XDG_RUNTIME_DIR=%s", podman->run);
    spec_texts_addf(env, "TMPDIR=%s/tmp", podman->folder);
    spec_texts_addf(env, "CONTAINERS_CONF=%s/containers.conf", podman->folder);
    spec_texts_addf(env, "CONTAINERS_STORAGE_CONF=%s/storage.conf", podman->folder);
    spec_texts_addf(env, "REGISTRY_AUTH_FILE=%s/auth.json", podman->folder);
    if (fs_path(path, "%s/" REGISTRIES, podman->folder) == 0 && access(path, R_OK) == 0)
        spec_texts_addf(env, "CONTAINERS_REGISTRIES_CONF=%s", path);
}

/* Borrows the items; a NULL after them. */
static char **vector(const struct spec_texts *texts)
{
    char **out = calloc((size_t)texts->count + 1, sizeof(*out));

    BUG_ON(out == NULL);
    for (uint32_t i = 0; i < texts->count; i++)
        out[i] = texts->items[i];
    return out;
}

static int run(const struct spec_texts *texts, uint64_t timeout_ms, struct err *err)
{
    char **argv = vector(texts);
    struct buf output;

    buf_init(&output, 0);
    int rc = spawn_run((const char *const *)argv, NULL, timeout_ms, &output, err);
    buf_fini(&output);
    free(argv);
    return rc;
}

int service_run(const struct podman *podman, const char *const *words, struct err *err)
{
    struct spec_texts argv = {0};
    struct spec_texts env = {0};

    spec_texts_add(&argv, "/usr/bin/env");
    spec_texts_add(&argv, "-i");
    add_environment(podman, &env);
    for (uint32_t i = 0; i < env.count; i++)
        spec_texts_add(&argv, env.items[i]);
    add_options(podman, &argv);
    for (; *words != NULL; words++)
        spec_texts_add(&argv, *words);
    int rc = run(&argv, COMMAND_MS, err);
    spec_texts_fini(&env);
    spec_texts_fini(&argv);
    return rc;
}

int service_start(const struct podman *podman, struct err *err)
{
    static const char *const helpers[] = {"sheaf-container", NULL};
    struct spec_texts argv = {0};
    char folder[FS_PATH];
    int rc = libexec_find(helpers, folder, err);

    if (rc != 0)
        return rc;
    spec_texts_addf(&argv, "%s/sheaf-container", folder);
    spec_texts_add(&argv, "service");
    spec_texts_add(&argv, podman->folder);
    rc = run(&argv, START_MS, err);
    spec_texts_fini(&argv);
    return rc;
}

static int write_pid(const struct podman *podman)
{
    char path[FS_PATH];
    char text[32];

    snprintf(text, sizeof(text), "%d", (int)getpid());
    return fs_path(path, "%s/" PID_FILE, podman->run) == 0
               ? fs_write(path, text, strlen(text), 0600, NULL)
               : -ERR_IO;
}

static int redirect(const struct podman *podman)
{
    char path[FS_PATH];

    if (fs_path(path, "%s/" SERVICE_LOG, podman->folder) != 0)
        return -ERR_IO;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return null >= 0 && log >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(log, STDOUT_FILENO) >= 0
                   && dup2(log, STDERR_FILENO) >= 0
               ? 0
               : -ERR_IO;
}

int service_become(const char *folder)
{
    struct podman podman;
    struct spec_texts argv = {0};
    struct spec_texts env = {0};
    struct err err = {0};

    if (podman_reopen(folder, &podman, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    pid_t pid = fork();
    if (pid != 0)
        return pid > 0 ? 0 : 1;
    if (setsid() < 0 || chdir("/") != 0 || redirect(&podman) != 0 || write_pid(&podman) != 0)
        return 1;
    add_options(&podman, &argv);
    spec_texts_add(&argv, "system");
    spec_texts_add(&argv, "service");
    spec_texts_add(&argv, "--time=" IDLE_S);
    spec_texts_addf(&argv, "unix://%s/s", podman.run);
    add_environment(&podman, &env);
    char **words = vector(&argv);
    char **variables = vector(&env);
    execve(podman.program, words, variables);
    fprintf(stderr, "cannot run %s: %s\n", podman.program, strerror(errno));
    free(words);
    free(variables);
    return 1;
}

/* The number may have gone to another process since: its command line names our folder. */
static bool is_ours(const struct podman *podman, int pid)
{
    char path[64];
    struct buf line;
    bool ours = false;

    snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
    buf_init(&line, 0);
    if (fs_read(path, LINE_LIMIT, &line, NULL) == 0 && line.data != NULL)
        ours = memmem(line.data, line.length, podman->run, strlen(podman->run)) != NULL;
    buf_fini(&line);
    return ours;
}

void service_stop(const struct podman *podman)
{
    char path[FS_PATH];
    struct buf text;

    buf_init(&text, 0);
    if (fs_path(path, "%s/" PID_FILE, podman->run) == 0 && fs_read(path, 32, &text, NULL) == 0
        && text.data != NULL) {
        long pid = strtol(text.data, NULL, 10);
        if (pid > 1 && pid <= INT32_MAX && is_ours(podman, (int)pid))
            kill((pid_t)pid, SIGTERM);
    }
    buf_fini(&text);
}
