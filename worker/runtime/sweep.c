/* What the tasks of all workers of a machine use together, removed when none is left. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/fs.h"
#include "common/io/log.h"
#include "worker/runtime/filter.h"
#include "worker/runtime/runtime.h"
#include "worker/runtime/users.h"

/* A process of any task's user lives; true when that cannot be told. */
static bool users_in_use(void)
{
    DIR *processes = opendir("/proc");
    bool found = processes == NULL;

    while (!found) {
        const struct dirent *entry = readdir(processes);
        char path[64];
        struct stat status;

        if (entry == NULL)
            break;
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof(path), "/proc/%.20s", entry->d_name);
        found = stat(path, &status) == 0 && status.st_uid >= USERS_FIRST
                && status.st_uid < USERS_GANGS + USERS_COUNT;
    }
    if (processes != NULL)
        closedir(processes);
    return found;
}

void runtime_sweep_machine(void)
{
    struct err err = {0};

    if (geteuid() != 0 || access(USERS_FOLDER, F_OK) != 0 || users_in_use())
        return;
    if (filter_unguard(&err) != 0)
        log_warn("runtime", "filter_left", "error=" LOG_Q, err.text);
    if (fs_remove_tree(USERS_FOLDER, &err) != 0)
        log_warn("runtime", "folder_left", "error=" LOG_Q, err.text);
}
