#ifndef SHEAF_WORKER_RUNTIME_USERS_H
#define SHEAF_WORKER_RUNTIME_USERS_H

/*
 * Users of tasks, one per task that lives on this machine, so that the filter can tell them apart:
 * the first half for tasks without peers, the second for gangs. Debian and systemd hand out none of
 * 60578…61183; a lock on the file UID_FOLDER/UID marks one as taken.
 */
#define UID_FIRST  60600u
#define UID_COUNT  290u
#define UID_GANGS  (UID_FIRST + UID_COUNT)
#define UID_FOLDER "/run/sheaf-uid"

#endif
