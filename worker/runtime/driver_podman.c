/*
 * Tasks with an image. The command is sheaf-container, which has podman make the container, hands
 * it the descriptors, and stays until it is gone; it is not itself part of the sandbox.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/runtime/driver.h"
#include "worker/runtime/spawn.h"

#define REMOVE_TIMEOUT_MS 30000

/* images_new() has tried a container before any task names an image. */
static int podman_probe(struct err *err)
{
    (void)err;
    return 0;
}

static void add_program(const struct plan_task *task, const char *verb,
                        struct driver_command *command)
{
    spec_texts_addf(&command->argv, "%s/sheaf-container", task->libexec);
    spec_texts_add(&command->argv, verb);
    spec_texts_add(&command->argv, task->dir);
}

static int podman_command(const struct plan_task *task, const struct driver_user *user,
                          struct driver_command *ret_command, struct err *err)
{
    struct driver_command command = {.info_fd = -1};
    int info[2];

    if (!user->drop)
        return err_set(err, ERR_UNSUPPORTED_HERE, "images need a worker that runs as root");
    if (pipe2(info, O_CLOEXEC) != 0)
        return err_set(err, ERR_IO, "cannot make a pipe: %s", strerror(errno));
    command.fd[0] = fcntl(info[1], F_DUPFD, DRIVER_FIRST_FD);
    close(info[1]);
    if (command.fd[0] < 0) {
        close(info[0]);
        return err_set(err, ERR_IO, "cannot make a pipe: %s", strerror(errno));
    }
    command.fd_count = 1;
    command.info_fd = info[0];
    add_program(task, "run", &command);
    spec_texts_addf(&command.argv, "%u", (unsigned)user->uid);
    spec_texts_addf(&command.argv, "%u", (unsigned)user->gid);
    spec_texts_add(&command.argv, user->groups);
    spec_texts_addf(&command.argv, "%d", command.fd[0]);
    *ret_command = command;
    return 0;
}

static void podman_folders(const struct plan_task *task, char job[FS_PATH], char out[FS_PATH])
{
    (void)task;
    snprintf(job, FS_PATH, "/job");
    snprintf(out, FS_PATH, "/out");
}

static int podman_remove(const struct plan_task *task, struct err *err)
{
    struct driver_command command = {.info_fd = -1};
    const char *argv[4] = {NULL};
    struct buf output;

    add_program(task, "remove", &command);
    for (uint32_t i = 0; i < command.argv.count; i++)
        argv[i] = command.argv.items[i];
    buf_init(&output, 0);
    int rc = spawn_run(argv, NULL, REMOVE_TIMEOUT_MS, &output, err);
    buf_fini(&output);
    driver_command_fini(&command);
    return rc;
}

const struct driver driver_podman = {
    .name = "podman",
    .isolated = true,
    .apart = true,
    .probe = podman_probe,
    .command = podman_command,
    .folders = podman_folders,
    .remove = podman_remove,
};
