#ifndef SHEAF_ORCHESTRATOR_STORE_STORE_PRIVATE_H
#define SHEAF_ORCHESTRATOR_STORE_STORE_PRIVATE_H

/* What the files of this folder share. Tests may include it, other folders may not. */
#include <event2/event.h>
#include <libpq-fe.h>

#include "common/io/hash.h"
#include "orchestrator/store/column.h"
#include "orchestrator/store/store.h"

/* -- names of prepared statements ------------------------------------------------------------- */
#define STATEMENT_TEXT 40

#define CHAIN_MAX_ASSETS 16 /* the pool has one; room for more later */

/* Head of an asset's hash chain. */
struct chain_head {
    char asset[SPEC_CURRENCY_TEXT];
    uint8_t hash[SHA256_SIZE];
};

struct chain {
    struct chain_head head[CHAIN_MAX_ASSETS];
    uint32_t count;
};

/* The head of an asset; made with a hash of zeros when it is new. */
struct chain_head *chain_head(struct chain *chain, const char *asset);
/* Hashes one transfer onto its chain. ret_prev and ret_hash may not alias. */
void chain_add(struct chain *chain, const struct transfer_row *transfer,
               uint8_t ret_prev[SHA256_SIZE], uint8_t ret_hash[SHA256_SIZE]);

/* commit.c: what the committing connection is about. */
enum store_phase {
    STORE_IDLE,
    STORE_SENDING,    /* the pipeline of a batch is on its way */
    STORE_ROLLBACK,   /* a batch was refused; its transaction is being rolled back */
    STORE_WAITING,    /* the connection is lost; the back-off timer runs */
    STORE_CONNECTING, /* PQconnectPoll */
    STORE_PREPARING,  /* statements of the new connection, then the read-back */
};

/* What the control row will say after a commit; becomes the present when the commit is known. */
struct position {
    uint64_t batch;
    uint64_t change_seq;
    uint64_t journal_seq;
    usec_t now_us;
    struct chain chain;
};

struct store {
    struct event_base *base;
    char *conninfo;
    PGconn *connection; /* commits; in pipeline mode; NULL while waiting */
    PGconn *reader;     /* loads and cold rows; blocking */
    struct event *readable;
    struct event *writable;
    struct event *timer;
    enum store_phase phase;
    uint32_t back_off_ms; /* of the next reconnect */

    uint32_t term;
    uint64_t session;
    struct position at;

    /* the batch in flight; on_commit NULL = none */
    struct batch batch;
    store_on_commit_f on_commit;
    void *arg;
    bool sent; /* some of it may have reached the server */
    struct position next;
    bool failed; /* the server refused it; err and outcome say why */
    enum commit_outcome outcome;
    struct err err;
    int64_t sent_us; /* monotonic */
    usec_t last_commit_us;

    /* read-back of a new connection */
    bool read_back_led; /* our term still leads */
    uint64_t read_back_session;
    uint64_t read_back_batch;
};

/* -- plan.c ----------------------------------------------------------------------------------- */

/* What of a batch is written, in which order. */
struct change_target {
    const char *statement;
    uint64_t id;
};

struct batch_plan {
    const struct row **rows; /* last of each key; by kind, releases before grants */
    uint32_t row_count;
    struct change_target *changes; /* each object once */
    uint32_t change_count;
    uint64_t next_id; /* of the control row; 0 = the batch has none */
    usec_t now_us;    /* newest clock of the batch */
};
void batch_plan_init(struct batch_plan *plan, const struct batch *batch);
void batch_plan_fini(struct batch_plan *plan);

/* -- statement.c ------------------------------------------------------------------------------ */

/* Fixed statements of a batch. */
#define STATEMENT_BEGIN          "begin"
#define STATEMENT_COMMIT         "commit"
#define STATEMENT_ROLLBACK       "rollback"
#define STATEMENT_FENCE          "fence"
#define STATEMENT_CONTROL        "control"
#define STATEMENT_JOURNAL        "journal"
#define STATEMENT_CHANGE_JOB     "change_job"
#define STATEMENT_CHANGE_GANG    "change_gang"
#define STATEMENT_CHANGE_NODE    "change_node"
#define STATEMENT_CHANGE_ACCOUNT "change_account"
#define STATEMENT_READ_BACK      "read_back"

/* Rows that one statement writes at most. Longer ones gain little, and plans take memory. */
#define STATEMENT_ROWS 8
/* Rows of a kind that one statement can write: 1…this. */
uint32_t statement_rows(enum row_kind kind);
/* The upsert (or insert) of so many rows of one kind. */
void statement_write_sql(enum row_kind kind, uint32_t rows, struct buf *out);
/* Reads its rows in key order; all = false: those that a start needs. */
void statement_load_sql(enum row_kind kind, bool all, struct buf *out);
/* "w_" + table + "_" + rows. Returns out. */
char *statement_write_name(enum row_kind kind, uint32_t rows, char out[STATEMENT_TEXT]);
/* Of STATEMENT_JOURNAL and STATEMENT_CHANGE_…, for 1…STATEMENT_ROWS rows. Returns out. */
char *statement_name(const char *base, uint32_t rows, char out[STATEMENT_TEXT]);
/* Calls back for every statement of the committing connection: the fixed ones, then the writes. */
typedef bool (*statement_f)(const char *name, const char *sql, int count, const Oid *types,
                            void *arg);
bool statement_each(statement_f f, void *arg);

/* -- errors ----------------------------------------------------------------------------------- */

/* ERR_DATABASE with libpq's message, first line, no secrets in it. */
int store_connection_error(const PGconn *connection, struct err *err);
/* ERR_DATABASE (ERR_DEPOSED for the fence) with SQLSTATE, constraint and message. */
int store_result_error(const PGresult *result, struct err *err);
/* What a refused batch means, by SQLSTATE. */
enum commit_outcome store_outcome(const char *sqlstate);

/* -- load.c ------------------------------------------------------------------------------------
 */

/* Calls back for each stored row; what the row points to lives during the call alone. */
typedef void (*store_on_row_f)(const struct row *row, void *arg);
int store_each(PGconn *connection, enum row_kind kind, bool all, store_on_row_f on_row, void *arg,
               struct err *err) SHEAF_MUST_USE;

/* -- store.c ---------------------------------------------------------------------------------- */

/*
 * conninfo with the settings of ours that go with every connection: name, time-outs, keepalives.
 * Blocking; or started, for PQconnectPoll. The caller checks PQstatus.
 */
PGconn *store_connect(const char *conninfo);
PGconn *store_connect_start(const char *conninfo);
/* Drops NOTICEs, which would go to stderr. */
void store_quiet(PGconn *connection);
/* A PostgreSQL that keeps what it commits: version, fsync, encoding, no standby. ERR_DATABASE. */
int store_server_check(PGconn *connection, struct err *err) SHEAF_MUST_USE;
/* One statement without results, blocking. */
int store_run(PGconn *connection, const char *sql, struct err *err) SHEAF_MUST_USE;
/* The last hash of each asset. */
int store_chains_read(PGconn *connection, struct chain *ret_chain, struct err *err) SHEAF_MUST_USE;
/* Connects the reader anew if it is dead. */
int store_reader_ready(struct store *store, struct err *err) SHEAF_MUST_USE;

/* -- commit.c --------------------------------------------------------------------------------- */

/* Puts the committing connection into the loop, in pipeline mode. */
int store_commit_setup(struct store *store, struct err *err) SHEAF_MUST_USE;
void store_commit_teardown(struct store *store);

#endif
