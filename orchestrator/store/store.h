#ifndef SHEAF_ORCHESTRATOR_STORE_STORE_H
#define SHEAF_ORCHESTRATOR_STORE_STORE_H

/*
 * PostgreSQL: the rows of the core in, batches of rows out, each batch one transaction in one libpq
 * pipeline. The only room with SQL of the orchestrator; every statement is a named, prepared,
 * parameterised constant. Knows no sockets but libpq's, decides nothing.
 */
#include <event2/event.h>
#include <stdint.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"
#include "orchestrator/core/world.h"

/* -- migrations (blocking, at start or by command) -------------------------------------------- */

/* Applies what is missing, each file one transaction, under an advisory lock, checksums verified.
 */
int store_migrate_up(const char *conninfo, struct err *err) SHEAF_MUST_USE;
/* One line per migration: number, name, applied when or "pending", checksum ok. */
int store_migrate_status(const char *conninfo, struct buf *out, struct err *err) SHEAF_MUST_USE;

/* -- embedded server ----------------------------------------------------------------------------
 */

/*
 * A private PostgreSQL under `state` (initdb with checksums, SCRAM, unix socket only, its own
 * session; adopted if it still runs). As root it runs as user `run_as`, who must be able to reach
 * `state`. Roles: sheaf_owner, sheaf_orchestrator, sheaf_gateway, each with a password file there.
 * Fills the connection strings (libpq key=value form, passfile inside). ERR_DATABASE, ERR_IO.
 */
#define CONNINFO_TEXT 1024
struct embedded_database {
    char owner[CONNINFO_TEXT];
    char orchestrator[CONNINFO_TEXT];
    char gateway[CONNINFO_TEXT];
    char gateway_elsewhere[CONNINFO_TEXT]; /* with its password: for who cannot read our files */
    bool made;                             /* first start */
    bool adopted;                          /* it was running already */
};
int embedded_start(const char *state, const char *run_as, struct embedded_database *ret_database,
                   struct err *err) SHEAF_MUST_USE;
/* pg_ctl stop -m fast. */
int embedded_stop(const char *state, const char *run_as, struct err *err) SHEAF_MUST_USE;

/* -- the store
 * --------------------------------------------------------------------------------------- */

struct store;

/*
 * Connects (blocking), checks schema version and unsafe settings (fsync off, encoding ≠ UTF8,
 * version < 15), prepares statements, takes the leadership: term + 1. ERR_DATABASE,
 * ERR_SCHEMA_VERSION.
 */
int store_open(struct event_base *base, const char *conninfo, struct store **ret_store,
               struct err *err) SHEAF_MUST_USE;
void store_close(struct store *store);
uint32_t store_term(const struct store *store);

/* Fills an empty world from the tables, in the order of enum row_kind. Blocking. */
int store_load(struct store *store, struct world *world, struct policy *ret_policy, usec_t *ret_now,
               struct err *err) SHEAF_MUST_USE;

/* Cold row of (token, key); *ret_found false when there is none. Blocking but one indexed read. */
int store_idem(struct store *store, uint64_t token, const char *key, struct idem_row *ret_row,
               bool *ret_found, struct err *err) SHEAF_MUST_USE;

/* One event of the journal: what was decided on, for replay. */
struct journal_entry {
    usec_t now_us;
    enum event_kind kind;
    uint32_t policy_version;
    const uint8_t *bytes; /* the message it came from; may be empty */
    uint32_t bytes_length;
};

struct batch {
    const struct row *rows; /* in the order emitted; the store coalesces by key, last wins,
                               and writes lease ends before grants */
    uint32_t row_count;
    const struct journal_entry *journal;
    uint32_t journal_count;
};

enum commit_outcome {
    COMMIT_DONE,
    COMMIT_DEPOSED,  /* the fence raised: another term leads. Nothing was written */
    COMMIT_DIVERGED, /* a constraint refused: the world and the database differ. Rolled back */
    COMMIT_LOST,     /* connection lost and, after reconnecting, the batch is known not to be in */
    COMMIT_FAILED,   /* the database refuses for reasons of its own (disk full, …). Rolled back */
};
/* err says which constraint, SQLSTATE or loss; seq is the change sequence of the commit. */
typedef void (*store_on_commit_f)(enum commit_outcome outcome, uint64_t seq, const struct err *err,
                                  void *arg);

/*
 * Sends one batch: fence(term), rows, journal, change rows, batch number, commit, in one pipeline.
 * One batch may be in flight (BUG otherwise). rows and journal must stay until the callback. After
 * a lost connection the store reconnects with back-off, reads the batch number back, and only then
 * reports DONE or LOST: an unknown outcome is never guessed.
 */
void store_commit(struct store *store, const struct batch *batch, store_on_commit_f on_commit,
                  void *arg);
bool store_busy(const struct store *store);
/* Position of the newest commit that is known: what a reply without a change names. */
uint64_t store_change_seq(const struct store *store);
/* The transaction latency of the last commit. */
usec_t store_last_commit_us(const struct store *store);

/*
 * Canonical bytes of a transfer that the hash chain covers (docs/ledger.md): every integer big
 * endian 8 bytes in the order id, debit, credit, amount, kind, job, lease, hold, at_us, then asset
 * and memo each as a 2-byte length and its bytes. hash = SHA-256(prev_hash ‖ bytes).
 */
void transfer_canon(const struct transfer_row *transfer, struct buf *out);

#endif
