#ifndef SHEAF_WORKER_RUNTIME_FILTER_H
#define SHEAF_WORKER_RUNTIME_FILTER_H

/*
 * What a task may send to, by nftables, matching the task's user in the output hook. Allowed: the
 * node's own addresses (they route over the loopback device), the gang's peers, and answers on
 * connections that others opened. All else is refused. What comes in is not filtered.
 *
 * A task with peers has a table of its own. Those without have users of a range of their own, and
 * one table refuses for the whole range: it stays, and costs a task one question to the kernel.
 */
#include <stdint.h>
#include <sys/types.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"
#include "common/pure/spec.h"

enum filter_mode {
    FILTER_NONE,
    FILTER_DROP,   /* the kernel cannot answer a refused packet: senders time out */
    FILTER_REJECT, /* refused at once */
};

/* Tries a table; FILTER_NONE and the reason when nft is missing or forbidden. Blocks some ms. */
enum filter_mode filter_probe(struct err *err);
/* The nft script. ERR_INVALID_HEADER… never: ERR_OUT_OF_RANGE names a peer that is no address. */
int filter_script(const char *name, uid_t uid, enum filter_mode mode,
                  const struct spec_texts *peers, struct buf *ret_script,
                  struct err *err) SHEAF_MUST_USE;
/* Replaces the task's table. */
int filter_install(const char *name, uid_t uid, enum filter_mode mode,
                   const struct spec_texts *peers, struct err *err) SHEAF_MUST_USE;
/* Makes sure that the table for tasks without peers stands, for users first…last. */
int filter_guard(uid_t first, uid_t last, enum filter_mode mode, struct err *err) SHEAF_MUST_USE;
/* Removes that table. Absent is fine. */
int filter_unguard(struct err *err) SHEAF_MUST_USE;
/* Absent is fine. */
int filter_remove(const char *name, struct err *err) SHEAF_MUST_USE;

#endif
