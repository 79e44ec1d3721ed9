#ifndef SHEAF_WORKER_RUNTIME_USERS_H
#define SHEAF_WORKER_RUNTIME_USERS_H

/*
 * Users of tasks, one per task that lives on this machine: the first half for tasks without peers,
 * the second for gangs. Debian and systemd hand out none of 60578…61183. Packet filters match the
 * user, and so it must be unique within a network namespace, whatever /run its pool sees. Two
 * claims, both ended by the kernel when their holder dies:
 *   a lock in FOLDER              among workers that share /run (and not the network)
 *   an abstract socket's name     among workers that share the network (and not /run)
 * Tasks share the network and may bind the name as well; only root's claim counts.
 */
#include <stdint.h>
#include <sys/types.h>

#include "common/pure/err.h"

#define USERS_FIRST  60600u
#define USERS_COUNT  290u /* of each half */
#define USERS_GANGS  (USERS_FIRST + USERS_COUNT)
#define USERS_FOLDER "/run/sheaf-uid"

struct user_claim {
    int lock;
    int name; /* listens: its holder has to accept and close what connects */
};
/*
 * Claims one of count users from `first` on. ERR_TOO_MANY when all are claimed, ERR_IO. For root.
 */
int user_claim(uid_t first, uint32_t count, struct user_claim *ret_claim, uid_t *ret_uid,
               struct err *err) SHEAF_MUST_USE;
/* Somebody asked who holds the name. */
void user_claim_answer(const struct user_claim *claim);
void user_claim_end(struct user_claim *claim);

#endif
