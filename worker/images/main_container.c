/*
 * sheaf-container run DIR UID GID GROUPS INFO-FD | remove DIR | service FOLDER
 * Started by sheaf-supervisor and sheaf-worker, never by people.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/images/container.h"
#include "worker/images/service.h"

int main(int argc, char **argv)
{
    if (argc == 7 && strcmp(argv[1], "run") == 0) {
        struct container_user user = {
            .uid = (uid_t)strtoul(argv[3], NULL, 10),
            .gid = (gid_t)strtoul(argv[4], NULL, 10),
            .groups = argv[5],
        };
        return container_run(argv[2], &user, (int)strtol(argv[6], NULL, 10));
    }
    if (argc == 3 && strcmp(argv[1], "remove") == 0)
        return container_remove(argv[2]);
    if (argc == 3 && strcmp(argv[1], "service") == 0)
        return service_become(argv[2]);
    fprintf(stderr, "sheaf-container is started by sheaf-worker\n");
    return 2;
}
