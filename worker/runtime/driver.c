#include "worker/runtime/driver.h"

#include <string.h>
#include <unistd.h>

const struct driver *driver_get(const char *name)
{
    static const struct driver *const drivers[] = {&driver_bwrap, &driver_process, &driver_podman};

    for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
        if (strcmp(drivers[i]->name, name) == 0)
            return drivers[i];
    }
    return NULL;
}

void driver_command_fini(struct driver_command *command)
{
    for (uint32_t i = 0; i < command->fd_count; i++)
        close(command->fd[i]);
    spec_texts_fini(&command->argv);
    memset(command, 0, sizeof(*command));
    command->info_fd = command->root_fd = -1;
}

void driver_add_init(const struct plan_task *task, const struct driver_user *user,
                     const char *folder, struct driver_command *command)
{
    if (user->drop) {
        spec_texts_addf(&command->argv, "%u", (unsigned)user->uid);
        spec_texts_addf(&command->argv, "%u", (unsigned)user->gid);
        spec_texts_add(&command->argv, user->groups);
    } else {
        for (int i = 0; i < 3; i++)
            spec_texts_add(&command->argv, "-");
    }
    spec_texts_add(&command->argv, folder);
    spec_texts_addf(&command->argv, "%u", task->proc_count);
}

/* -- process: no isolation at all ------------------------------------------------------------ */

static int process_probe(struct err *err)
{
    (void)err;
    return 0;
}

static void process_folders(const struct plan_task *task, char job[FS_PATH], char out[FS_PATH])
{
    if (fs_path(job, "%s/job", task->dir) != 0 || fs_path(out, "%s/out", task->dir) != 0)
        job[0] = out[0] = '\0'; /* prepare refused such a folder */
}

static int process_command(const struct plan_task *task, const struct driver_user *user,
                           struct driver_command *ret_command, struct err *err)
{
    struct driver_command command = {.info_fd = -1, .root_fd = -1};
    char job[FS_PATH];
    char out[FS_PATH];

    (void)err;
    process_folders(task, job, out);
    spec_texts_addf(&command.argv, "%s/sheaf-task-init", task->libexec);
    driver_add_init(task, user, job, &command);
    *ret_command = command;
    return 0;
}

const struct driver driver_process = {
    .name = "process",
    .isolated = false,
    .probe = process_probe,
    .command = process_command,
    .folders = process_folders,
};
