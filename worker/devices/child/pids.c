#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "worker/devices/child/child.h"

struct process {
    int pid;
    int parent;
    bool ours;
};

static int by_number(const void *a, const void *b)
{
    const int *left = a;
    const int *right = b;

    return (*left > *right) - (*left < *right);
}

/* The fourth field of stat; the second, the name, may hold spaces and parentheses. */
static int parent_of(int pid)
{
    char line[512];
    const char *after;
    uint64_t parent = 0;

    if (!text_read(line, sizeof(line), "/proc/%d/stat", pid))
        return 0;
    after = strrchr(line, ')');
    if (after == NULL || strlen(after) < 5) /* ") S 1" */
        return 0;
    after += 4;
    return text_take_number(&after, 10, &parent) ? (int)parent : 0;
}

static uint32_t list_processes(struct process **ret_processes)
{
    struct process *processes = NULL;
    uint32_t count = 0;
    uint32_t room = 0;
    struct dirent *entry;
    DIR *dir = opendir("/proc");

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        int pid = text_to_pid(entry->d_name);
        if (pid == 0)
            continue;
        if (count == room) {
            room = room * 2 + 256;
            processes = mem_resize(processes, room, sizeof(*processes));
        }
        processes[count++] = (struct process){.pid = pid, .parent = parent_of(pid)};
    }
    if (dir != NULL)
        closedir(dir);
    *ret_processes = processes;
    return count;
}

/* Keeps the order. */
static void add(struct pid_set *set, int pid)
{
    uint32_t at = set->count;

    set->pids = mem_resize(set->pids, set->count + 1, sizeof(*set->pids));
    for (; at > 0 && set->pids[at - 1] > pid; at--)
        set->pids[at] = set->pids[at - 1];
    set->pids[at] = pid;
    set->count++;
}

void pid_set_expand(struct pid_set *set, const int *pids, uint32_t count)
{
    struct process *processes;
    uint32_t total = list_processes(&processes);
    bool again = true;

    set->pids = NULL;
    set->count = 0;
    for (uint32_t i = 0; i < count; i++)
        add(set, pids[i]);
    /* One pass per generation; children mostly have higher ids, so passes are few. */
    while (again) {
        uint32_t before = set->count;
        for (uint32_t i = 0; i < total; i++) {
            if (!processes[i].ours
                && (pid_set_has(set, processes[i].pid) || pid_set_has(set, processes[i].parent))) {
                processes[i].ours = true;
                add(set, processes[i].pid);
            }
        }
        again = set->count != before;
    }
    free(processes);
}

bool pid_set_has(const struct pid_set *set, int pid)
{
    return set->count > 0
           && bsearch(&pid, set->pids, set->count, sizeof(*set->pids), by_number) != NULL;
}

void pid_set_fini(struct pid_set *set)
{
    free(set->pids);
    set->pids = NULL;
    set->count = 0;
}
