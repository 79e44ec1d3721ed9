#ifndef SHEAF_WORKER_RUNTIME_USERS_H
#define SHEAF_WORKER_RUNTIME_USERS_H

/*
 * One user id per task, for everything that shares what a user id decides here: packet filters
 * match it, and so it must be unique within a network namespace, whatever /run its pool sees. Two
 * claims, both ended by the kernel when their holder dies:
 *   a lock in FOLDER              among workers that share /run (and not the network)
 *   an abstract socket's name     among workers that share the network (and not /run)
 * Tasks share the network and may bind the name as well; only root's claim counts.
 */
#include <stdint.h>
#include <sys/types.h>

#include "common/pure/err.h"

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
