#ifndef SHEAF_ORCHESTRATOR_GATEWAY_DB_H
#define SHEAF_ORCHESTRATOR_GATEWAY_DB_H

/*
 * Asynchronous PostgreSQL: a few connections on the loop, each running one request at a time, the
 * rest queued. A request is one or more prepared statements (queries.h) in one pipeline and so in
 * one implicit transaction. Everything asked here is safe to ask twice: a request whose connection
 * broke is asked again once. The same read asked by several at once is executed for all of them.
 *
 * Each request says for whom it is asked. The database hides the rows of others, whatever the
 * statements say: sql/0004_row_security.sql.
 */
#include <event2/event.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"
#include "orchestrator/gateway/queries.h"

#define DB_MAX_ARGS 12

/* Whose rows exist for a request. All zero: nobody's. */
struct db_sight {
    bool all; /* every row */
    int64_t project;
    int64_t provider;
};
/* Look-ups of the gateway's own, on nobody's behalf: every row. */
extern const struct db_sight db_sight_own;

/* Arguments of one statement, in binary or text as their type wants; copied into `bytes`. */
struct db_args {
    enum query_id query;
    uint32_t count;
    struct {
        size_t offset;
        int length;
        bool null;
        bool binary;
    } arg[DB_MAX_ARGS];
    struct buf bytes;
};

void db_args_init(struct db_args *args, enum query_id query);
void db_args_fini(struct db_args *args);
void db_add_null(struct db_args *args);
/* NULL adds a null. */
void db_add_text(struct db_args *args, const char *text);
void db_add_int(struct db_args *args, int64_t value);
/* bytea, and uuid with 16 bytes. */
void db_add_bytes(struct db_args *args, const void *bytes, size_t size);

struct db;

/*
 * results has one entry per statement, NULL for those not reached; borrowed for the call. err is
 * NULL when all went well; ERR_DATABASE with SQLSTATE in the text, or ERR_UNAVAILABLE when the
 * database could not be asked in time.
 */
typedef void (*db_on_done_f)(const struct err *err, PGresult *const *results, uint32_t count,
                             uint64_t call, void *arg);

/* conninfo is copied. Connects in the background, for ever. */
struct db *db_new(struct event_base *base, const char *conninfo, uint32_t connections);
void db_free(struct db *db);
/* For the next connections. */
void db_set_conninfo(struct db *db, const char *conninfo);
/* Takes over what is in args (they are empty afterwards). call and arg are passed through. */
void db_ask(struct db *db, const struct db_sight *sight, struct db_args *args, uint32_t count,
            db_on_done_f on_done, uint64_t call, void *arg);
bool db_is_up(const struct db *db);
/* No connection for so long that waiting for one is no use: whoever can be told is told at once. */
bool db_is_down(const struct db *db);

struct db_counters {
    uint64_t requests;
    uint64_t failed;
    uint64_t connects;
    uint64_t shared; /* requests answered by another's execution */
    uint64_t queued; /* now */
    uint64_t up;     /* connections now */
};
struct db_counters db_counters(const struct db *db);

/* Text of row 0, column 0; NULL when there is no row or it is null. */
const char *db_text(const PGresult *result);
int64_t db_int(const PGresult *result, int row, int column);

#endif
