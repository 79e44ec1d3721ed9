/* sheaf-supervisor DIR ROOTS: see supervise.h. Descriptor 3 is the listening socket of the task. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/runtime/supervise.h"

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: sheaf-supervisor DIR ROOTS (started by sheaf-worker)\n");
        return 2;
    }
    if (chdir("/") != 0)
        return 1;
    umask(077);
    return supervise(argv[1], argv[2]);
}
