#ifndef SHEAF_ORCHESTRATOR_CORE_ROW_H
#define SHEAF_ORCHESTRATOR_CORE_ROW_H

/*
 * The committed facts, one struct per table. The world is exactly the fold of these rows: a step
 * emits them, the store writes them, and a start loads them back through the same door
 * (world_apply). Table name = struct name without `_row`, column = field name.
 *
 * Ids are 64-bit counters of the core (0 = NULL); `uid` is what others see. Times are microseconds
 * since 1970 by the orchestrator's clock (0 = NULL). Texts of fixed size are terminated. Pointers
 * are borrowed for the call that passes the row; the world copies what it keeps.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/err.h"
#include "common/pure/id.h"
#include "common/pure/money.h"
#include "common/pure/spec.h"
#include "orchestrator/core/state.h"

#define ROW_NAME    64
#define ROW_DETAIL  256
#define ROW_ADDRESS 64

typedef int64_t usec_t;

struct project_row {
    uint64_t id;
    struct uuid uid;
    char name[ROW_NAME]; /* unique */
    usec_t created_us;
};

struct provider_row {
    uint64_t id;
    struct uuid uid;
    char name[ROW_NAME]; /* unique */
    usec_t created_us;
};

enum role {
    ROLE_TENANT,
    ROLE_PROVIDER,
    ROLE_OPERATOR,
    ROLE_AUDITOR,
    ROLE_GATEWAY, /* a gateway speaking for itself or for a node on its bulk channel */
    ROLE_COUNT,
};
const char *role_name(enum role role);
enum role role_parse(const char *name);

/* Table app_user. */
struct user_row {
    uint64_t id;
    struct uuid uid;
    char name[ROW_NAME]; /* unique */
    enum role role;
    usec_t created_us;
};

/* What a token may do; a request names the one it needs. Bits of token_row.scopes. */
enum scope {
    SCOPE_JOBS_READ = 1u << 0,
    SCOPE_JOBS_WRITE = 1u << 1,
    SCOPE_NODES_READ = 1u << 2,
    SCOPE_NODES_WRITE = 1u << 3,
    SCOPE_MONEY_READ = 1u << 4,
    SCOPE_MONEY_WRITE = 1u << 5,
    SCOPE_ADMIN = 1u << 6,
};
/* "jobs:read"; NULL for anything but one single bit. */
const char *scope_name(enum scope scope);
/* 0 for an unknown name. */
uint32_t scope_parse(const char *name);
/* What a role gets when a token is made without naming scopes. */
uint32_t role_scopes(enum role role);

struct token_row {
    uint64_t id;
    struct uuid uid;
    uint8_t hash[32];  /* SHA-256 of the secret; unique */
    char prefix[16];   /* first characters, shown in lists */
    uint64_t project;  /* tenants */
    uint64_t provider; /* providers */
    uint64_t user;
    enum role role;
    uint32_t scopes;
    usec_t created_us;
    usec_t expires_us; /* 0 = never */
    usec_t revoked_us;
};

struct join_token_row {
    uint64_t id;
    struct uuid uid;
    uint8_t hash[32];
    uint64_t provider;
    uint32_t uses_left;
    usec_t created_us;
    usec_t expires_us;
};

enum account_purpose {
    PURPOSE_AVAILABLE,
    PURPOSE_ESCROW,
    PURPOSE_EARNED,
    PURPOSE_STAKE,
    PURPOSE_FEES,
    PURPOSE_REWARDS,
    PURPOSE_EXTERNAL, /* the world outside; the only one that may be negative */
    PURPOSE_COUNT,
};
const char *account_purpose_name(enum account_purpose purpose);
enum account_purpose account_purpose_parse(const char *name);

/* project or provider or neither (the operator's); unique with purpose and asset. */
struct account_row {
    uint64_t id;
    struct uuid uid;
    uint64_t project;
    uint64_t provider;
    enum account_purpose purpose;
    char asset[SPEC_CURRENCY_TEXT];
    micro_t balance;
};

enum transfer_kind {
    TRANSFER_DEPOSIT,
    TRANSFER_HOLD,    /* available → escrow; later rows name it in `hold` */
    TRANSFER_EARN,    /* escrow → provider earned */
    TRANSFER_FEE,     /* escrow → operator fees */
    TRANSFER_RELEASE, /* escrow → available */
    TRANSFER_REFUND,  /* back out of earned or fees */
    TRANSFER_COUNT,
};
const char *transfer_kind_name(enum transfer_kind kind);
enum transfer_kind transfer_kind_parse(const char *name);

/* Immutable. The hash chain per asset is computed by the store over ledger/canon form. */
struct transfer_row {
    uint64_t id;
    char asset[SPEC_CURRENCY_TEXT];
    uint64_t debit;  /* account that gives */
    uint64_t credit; /* account that gets; ≠ debit */
    micro_t amount;  /* > 0 */
    enum transfer_kind kind;
    uint64_t job;
    uint64_t lease;
    uint64_t hold; /* transfer id of the hold */
    usec_t at_us;
    char memo[ROW_NAME];
};

struct node_row {
    uint64_t id;
    struct uuid uid;
    uint64_t provider;
    char name[ROW_NAME]; /* unique */
    enum node_state state;
    uint32_t conditions;  /* enum node_condition */
    enum err_code reason; /* of the last move */
    char detail[ROW_DETAIL];
    uint8_t curve_key[32]; /* unique */
    uint8_t sign_key[32];  /* Ed25519 */
    uint8_t machine[32];   /* SHA-256 of the machine id with a salt of ours; unique among live */
    char region[ROW_NAME]; /* a label; measured RTT decides */
    char country[3];
    char address[ROW_ADDRESS]; /* where peers reach its tasks and probes: an IP */
    uint32_t port_low;         /* task port range, inclusive */
    uint32_t port_high;
    uint32_t probe_port;
    uint32_t cpu_milli;
    uint32_t memory_mib;
    uint32_t disk_mib;
    char runtime[ROW_NAME]; /* "bwrap", "bwrap+podman", "process" */
    char version[ROW_NAME]; /* of the worker */
    micro_t price;          /* ask per device and hour; the standing offer */
    uint32_t notice_s;
    uint64_t boot; /* boot counter of the worker; 0 before its first hello */
    usec_t created_us;
    usec_t seen_us; /* last state change that proves life, not each heartbeat */
};

struct device_row {
    uint64_t id;
    uint64_t node;
    uint32_t ordinal;    /* index on its node */
    char uuid[ROW_NAME]; /* what the driver says; dedupe key, not proof */
    enum device_class class;
    char vendor[ROW_NAME];
    char model[ROW_NAME];
    uint32_t nominal_mib;  /* of the model, or what was claimed */
    uint32_t measured_mib; /* 0 until a self-test passed */
    enum tier tier;
    bool offered; /* false while gone or used by a foreign process */
    uint32_t matmul_gflops;
    uint32_t copy_mib_s;
    char driver[ROW_NAME];
};

/* The unit of exclusivity. Now one whole device each; MIG instances and shares are more rows. */
enum slot_kind {
    SLOT_WHOLE,
    SLOT_MIG,
    SLOT_SHARE,
    SLOT_KIND_COUNT,
};
const char *slot_kind_name(enum slot_kind kind);
enum slot_kind slot_kind_parse(const char *name);

struct slot_row {
    uint64_t id;
    uint64_t device;
    enum slot_kind kind;
    uint32_t ordinal;
    uint32_t vram_mib;
};

/* One row per unordered pair, a < b (node ids). */
struct link_row {
    uint64_t a;
    uint64_t b;
    uint32_t rtt_p50_us;
    uint32_t rtt_p95_us; /* the greater of both directions' p95; 0 = not measured */
    uint32_t loss_ppm;
    uint32_t bandwidth_kbps; /* 0 = not measured */
    bool reach_ab;           /* TCP from a to b on the task port range */
    bool reach_ba;
    usec_t measured_us;
};

struct job_row {
    uint64_t id;
    struct uuid uid;
    uint64_t project;
    uint64_t token; /* who submitted */
    char name[ROW_NAME];
    enum job_state state;
    uint32_t conditions;  /* enum job_condition */
    enum err_code reason; /* of the state: why it waits, why it ended */
    enum fail_class class;
    char detail[ROW_DETAIL];
    const struct job_ask *ask; /* parsed from spec by the shell; no column; the world copies it */
    const char *spec;          /* canonical JSON; the world copies it */
    uint8_t spec_sha256[32];
    micro_t held;    /* escrow still held */
    micro_t charged; /* so far: earned + fee */
    uint64_t hold;   /* transfer id */
    uint32_t epoch;  /* of the newest attempt; 0 before the first */
    uint32_t attempts;
    uint64_t attempt;        /* live one, or the last */
    uint32_t policy_version; /* that the last decision used */
    usec_t created_us;
    usec_t queued_us;     /* queue age: kept over retries */
    usec_t not_before_us; /* back-off */
    usec_t state_us;      /* since when in this state */
    usec_t ended_us;
    int32_t exit_code;     /* of the first failing rank, or 0 */
    const struct why *why; /* evidence of the last placement pass (place.h); the world copies it */
};

/* Append-only. */
struct job_event_row {
    uint64_t id;
    uint64_t job;
    uint64_t attempt;
    usec_t at_us;
    enum job_state from_state; /* JOB_STATE_COUNT = NULL, at the first event */
    enum job_state to_state;   /* equal to from_state for an event that is no move */
    enum err_code reason;
    enum err_actor actor;
    char detail[ROW_DETAIL];
};

/* Append-only. */
struct node_event_row {
    uint64_t id;
    uint64_t node;
    usec_t at_us;
    enum node_state from_state;
    enum node_state to_state;
    uint32_t conditions;
    enum err_code reason;
    enum err_actor actor;
    char detail[ROW_DETAIL];
};

struct attempt_row {
    uint64_t id;
    struct uuid uid; /* from the event that placed it */
    uint64_t job;
    uint32_t term;
    uint32_t epoch;
    enum attempt_state state;
    enum err_code reason; /* why it stops or ended */
    enum fail_class class;
    enum job_state
        then; /* the job state this attempt's end leads to, decided when it began to stop */
    uint32_t diameter_us; /* largest p95 RTT of the plan */
    micro_t price;        /* per hour, whole gang */
    usec_t created_us;
    usec_t started_us; /* barrier opened */
    usec_t running_us; /* metering since */
    usec_t stop_us;    /* stop ordered */
    usec_t ended_us;
};

/* Table gang_rank: one node's part of an attempt. */
struct rank_row {
    uint64_t id;
    uint64_t attempt;
    uint32_t rank; /* 0-based, ring order */
    uint64_t node;
    enum rank_state state;
    uint32_t port;     /* on rank 0: MASTER_PORT; else the first reserved port */
    int32_t exit_code; /* valid from RANK_EXITED on; 128 + signal like a shell */
    enum err_code reason;
    enum fail_class class;
    char detail[ROW_DETAIL];
    usec_t state_us;
};

/* Right of an attempt to slots of one node; one per rank. Terms are frozen here. */
struct lease_row {
    uint64_t id;
    struct uuid uid;
    uint64_t attempt;
    uint64_t rank; /* gang_rank.id */
    uint64_t node;
    uint64_t provider;
    uint32_t term;
    uint32_t epoch;
    micro_t price; /* per hour, all slots of this lease */
    uint32_t fee_ppm;
    uint32_t notice_s;
    usec_t granted_us;
    usec_t meter_from_us; /* 0 until running */
    usec_t meter_to_us;   /* 0 while metering */
    uint64_t receipt_ms;  /* newest cumulative usage that the worker signed */
    uint64_t billed_ms;
    micro_t earned; /* cumulative, provider's part */
    micro_t fee;
    usec_t ended_us; /* lease_end: slots are free from here on */
};

/* Partial unique index on (slot) WHERE live. */
struct lease_slot_row {
    uint64_t lease;
    uint64_t slot;
    bool live;
};

/*
 * Append-only: the bytes that the worker signed, for whoever recomputes a bill. A load brings the
 * newest of each node, so that a resent one is known.
 */
struct receipt_row {
    uint64_t id;
    uint64_t node;
    uint64_t seq; /* of the worker's receipts; unique with node */
    usec_t at_us;
    const uint8_t *bytes; /* encoded sheaf.Receipt */
    uint32_t bytes_length;
    uint8_t signature[64];
};

/* Bytes in the content store that a project may name. */
struct content_row {
    uint64_t id;
    uint64_t project;
    uint8_t sha256[32]; /* unique with project */
    uint64_t size;
    usec_t created_us;
};

struct job_output_row {
    uint64_t id;
    uint64_t job;
    uint64_t attempt;
    uint32_t rank; /* node rank */
    char path[SPEC_PATH_TEXT];
    uint8_t sha256[32]; /* of the tar.zst archive */
    uint64_t size;
    usec_t stored_us;
};

/* Reply to a keyed command, so that a retry answers the same. Cold: attached to the event. */
struct idem_row {
    uint64_t token;
    char key[128];
    uint8_t body_hash[32];
    uint32_t code;      /* enum err_code; 0 = ok */
    struct uuid object; /* what it made */
    usec_t at_us;
};

/* Single row: what a restart must not guess. */
struct control_row {
    uint64_t next_id; /* first unused id of the core */
    usec_t now_us;    /* last persisted clock */
};

enum row_kind {
    ROW_CONTROL,
    ROW_PROJECT,
    ROW_PROVIDER,
    ROW_USER,
    ROW_TOKEN,
    ROW_JOIN_TOKEN,
    ROW_ACCOUNT,
    ROW_NODE,
    ROW_NODE_EVENT,
    ROW_DEVICE,
    ROW_SLOT,
    ROW_LINK,
    ROW_JOB,
    ROW_ATTEMPT,
    ROW_RANK,
    ROW_LEASE,
    ROW_LEASE_SLOT,
    ROW_TRANSFER,
    ROW_JOB_EVENT,
    ROW_RECEIPT,
    ROW_CONTENT,
    ROW_JOB_OUTPUT,
    ROW_IDEM,
    ROW_KIND_COUNT,
};

/* One typed row change: an upsert of the whole row, or an append. */
struct row {
    enum row_kind kind;
    union {
        struct control_row control;
        struct project_row project;
        struct provider_row provider;
        struct user_row user;
        struct token_row token;
        struct join_token_row join_token;
        struct account_row account;
        struct node_row node;
        struct node_event_row node_event;
        struct device_row device;
        struct slot_row slot;
        struct link_row link;
        struct job_row job;
        struct attempt_row attempt;
        struct rank_row rank;
        struct lease_row lease;
        struct lease_slot_row lease_slot;
        struct transfer_row transfer;
        struct job_event_row job_event;
        struct receipt_row receipt;
        struct content_row content;
        struct job_output_row job_output;
        struct idem_row idem;
    };
};

/*
 * Key within its kind, for coalescing: the last upsert of a key in a batch wins. Append-only kinds
 * and transfers use their id and so never coalesce.
 */
struct row_key {
    uint64_t high;
    uint64_t low;
};
struct row_key row_key(const struct row *row);
/* For qsort over pointers to rows: by kind, then by key, the order in which a world is loaded. */
int row_compare(const void *left, const void *right);
bool row_is_append(enum row_kind kind);
const char *row_table(enum row_kind kind);

#endif
