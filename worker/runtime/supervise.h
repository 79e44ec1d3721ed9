#ifndef SHEAF_WORKER_RUNTIME_SUPERVISE_H
#define SHEAF_WORKER_RUNTIME_SUPERVISE_H

/*
 * The supervisor of one task: makes the sandbox, opens its barrier, keeps its output, ends it, and
 * leaves the exit on disk. It takes everything from the task's folder, holds no descriptor of the
 * worker, and speaks to any worker that connects to `control` there.
 *
 * Words on that socket (SOCK_SEQPACKET, one word a message). To the supervisor: "release" (env in
 * release.json), "stop", "kill". From it, also to one that connects later: "ready PID" (of the
 * sandbox's first process), "released US" (CLOCK_BOOTTIME), "started". The end is end of file, with
 * exit.json in place.
 */
#define SUPERVISE_LISTEN_FD 3
/*
 * One process of the worker's forks the supervisors, so that the program starts once and not for
 * each task. On this descriptor (SOCK_SEQPACKET) it takes a task's folder with the listening socket
 * attached. It ends with the worker; they do not.
 */
#define SUPERVISE_NURSERY_FD 3
#define SUPERVISE_WORD       64

/* Runs until the task is over; roots: see root.h. Returns the exit status of the program. */
int supervise(const char *dir, const char *roots);

#endif
