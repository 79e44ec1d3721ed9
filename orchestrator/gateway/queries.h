#ifndef SHEAF_ORCHESTRATOR_GATEWAY_QUERIES_H
#define SHEAF_ORCHESTRATOR_GATEWAY_QUERIES_H

/*
 * All SQL of the gateway: named, prepared, parameterised constants. Queries that answer a request
 * return one row with one text column, the JSON body; no row means "no such thing, or not yours".
 * Every one of them filters by what the caller may see: PARAM_ALL, or the caller's own project or
 * provider.
 */
#include <stdbool.h>
#include <stdint.h>

enum query_param {
    PARAM_END,
    PARAM_ALL,      /* boolean: operators and auditors see everything */
    PARAM_PROJECT,  /* bigint or null: the caller's */
    PARAM_PROVIDER, /* bigint or null: the caller's */
    PARAM_TOKEN,    /* bigint: the caller's token */
    PARAM_OBJECT,   /* uuid: from the path, or what a command made */
    PARAM_LIMIT,
    PARAM_CURSOR,  /* bigint or null */
    PARAM_STATE,   /* ?state= or null */
    PARAM_NAME,    /* ?name= or null */
    PARAM_REASONS, /* jsonb {slug: [title, hint]} */
    PARAM_SCOPES,  /* jsonb {scope name: bit} */
};
#define QUERY_MAX_PARAMS 10

enum query_id {
    QUERY_NONE,
    /* -- answers: one JSON text ------------------------------------------------------------ */
    QUERY_JOBS,
    QUERY_JOB,
    QUERY_JOB_WHY,
    QUERY_JOB_EVENTS,
    QUERY_JOB_COST,
    QUERY_JOB_OUTPUTS,
    QUERY_OFFERS,
    QUERY_NODES,
    QUERY_NODE,
    QUERY_PAIRS,
    QUERY_JOIN_TOKENS,
    QUERY_ACCOUNTS,
    QUERY_LEDGER,
    QUERY_PROJECTS,
    QUERY_PROJECT,
    QUERY_USERS,
    QUERY_USER,
    QUERY_TOKENS,
    QUERY_TOKEN,
    QUERY_WHOAMI,
    QUERY_SUMMARY,
    /* -- for ourselves: columns as said beside them ------------------------------------------ */
    QUERY_SIGHT,        /* $1 't' or '' $2 project or '' $3 provider or '': before a request */
    QUERY_AUTH,         /* $1 hash → id, project, provider, role, scopes, expires, project name */
    QUERY_TERM,         /* → term */
    QUERY_NODE_KEYS,    /* → curve_key (hex) of every node that is not gone */
    QUERY_EVENTS_AFTER, /* $1 all $2 project $3 job $4 id $5 reasons → state, id, json, to */
    QUERY_LOG_JOB,  /* $1 all $2 project $3 job $4 epoch → state, epoch, uid, day, over, … */
    QUERY_LOG_PAGE, /* $1 day $2 attempt $3 ranks $4 streams $5 next seqs $6 limit */
    QUERY_LOG_INSERT,
    QUERY_RETENTION_STEP, /* $1 cut $2 pieces → how much was done; 0 = nothing is over */
    QUERY_CONTENT_NEEDED, /* $1 hashes (hex) → those that have to stay */
    QUERY_OUTPUT_FILE,    /* $1 all $2 project $3 job $4 rank $5 path → sha256 (hex), size */
    QUERY_CONTENT_HAS, /* $1 project name or null $2 caller's $3 sha256 → project, size or null */
    QUERY_BULK_RANK,   /* $1 attempt $2 curve key → what a node may do for an attempt */
    QUERY_BULK_FETCH,  /* $1 attempt $2 curve key $3 sha256 (hex) → 1 when it may have it */
    QUERY_BULK_OUTPUT, /* $1 attempt $2 curve key $3 rank $4 path → node uid, sha256 or null */
    QUERY_COUNT,
};

struct query {
    const char *name;
    const char *sql;
    uint8_t params[QUERY_MAX_PARAMS]; /* answers: enum query_param, in order of $1… */
};

/* Changes nothing: one execution may answer several who ask the same. */
bool query_reads(enum query_id id);

const struct query *query_get(enum query_id id);

#endif
