#ifndef SHEAF_ORCHESTRATOR_CORE_EVENT_H
#define SHEAF_ORCHESTRATOR_CORE_EVENT_H

/*
 * What goes into a step and what comes out. Everything a decision needs is in the event: ids made
 * by the shell, parsed specs, attached cold rows. Pointers are borrowed for the call.
 */
#include <stdbool.h>
#include <stdint.h>

#include "orchestrator/core/place.h"
#include "orchestrator/core/row.h"

/* Who asks, as the shell read it; the core looks the token up and decides. */
struct caller {
    bool system;            /* the orchestrator itself (set-up); no token is looked up */
    uint8_t token_hash[32]; /* SHA-256 of the credential */
    uint64_t request;       /* shell's handle; a reply names it. 0 = nobody waits */
    char key[128];          /* idempotency key; empty = none */
    uint8_t body_hash[32];
    const struct idem_row *idem; /* attached cold row of (token, key), or NULL */
};

enum event_kind {
    /* -- commands: answered by one FX_REPLY each ------------------------------------------ */
    EV_JOB_SUBMIT,
    EV_JOB_CANCEL,
    EV_PLAN, /* changes nothing; the reply carries plan and why */
    EV_PROJECT_CREATE,
    EV_PROVIDER_CREATE,
    EV_USER_CREATE,
    EV_TOKEN_CREATE,
    EV_TOKEN_REVOKE,
    EV_JOIN_TOKEN_CREATE,
    EV_DEPOSIT,
    EV_NODE_ENROL, /* credential: a join token */
    EV_NODE_SET,   /* drain, undrain, pause, resume, leave, price */
    EV_CONTENT_ADD,
    EV_OUTPUT_STORED, /* by a gateway (role gateway), for a rank */
    /* -- from workers, after the shell checked session and identity ----------------------- */
    EV_NODE_HELLO,
    EV_NODE_BYE, /* session closed; says nothing about life */
    EV_SELFTEST,
    EV_TASK, /* a rank's progress */
    EV_RECEIPT,
    EV_DEVICE_USE, /* foreign process came or went */
    EV_LINK,       /* measured beyond hysteresis */
    /* -- from the shell's clocks ----------------------------------------------------------- */
    EV_NODE_SILENT, /* 3 heartbeats missed */
    EV_NODE_BACK,
    EV_NODE_OFFENCE, /* a worker broke a rule of the protocol: kept for whoever asks later */
    EV_TICK,         /* a deadline of world_next_deadline() has passed */
    EV_BOOT,         /* once after load: act on what the state demands */
    EV_KIND_COUNT,
};
const char *event_kind_name(enum event_kind kind);

struct ev_submit {
    struct uuid uid;
    const char *name;
    const char *project;  /* empty = the token's */
    const char *currency; /* NULL = the pool's */
    const char *spec;     /* canonical JSON */
    uint8_t spec_sha256[32];
    const struct job_ask *ask;
    const uint8_t (*contents)[32]; /* SHA-256 of each file; all must be the project's */
    uint32_t content_count;
};

struct ev_cancel {
    struct uuid job;
};

struct ev_plan {
    const char *project;
    const struct job_ask *ask;
    const char *currency; /* NULL = the pool's */
};

struct ev_named {
    struct uuid uid;
    const char *name;
    enum role role; /* EV_USER_CREATE */
};

struct ev_token {
    struct uuid uid;
    uint8_t hash[32];
    char prefix[16];
    const char *project;  /* name, or empty */
    const char *provider; /* name, or empty; made if it does not exist (join tokens) */
    const char *user;
    enum role role;
    uint32_t scopes; /* 0 = those of the role */
    uint32_t uses;   /* join tokens */
    usec_t expires_us;
    struct uuid spare_uid; /* for a provider made on the way */
};

struct ev_revoke {
    struct uuid token;
};

struct ev_deposit {
    struct uuid uid;
    const char *project; /* name */
    char asset[SPEC_CURRENCY_TEXT];
    micro_t amount;
    const char *memo;
};

/* One device as the worker claims it. */
struct claim_device {
    char uuid[ROW_NAME];
    enum device_class class;
    char vendor[ROW_NAME];
    char model[ROW_NAME];
    char driver[ROW_NAME];
    uint32_t memory_mib;
    bool offered;
};
#define CLAIM_MAX_DEVICES SPEC_MAX_GPUS_PER_NODE

struct node_claim {
    char name[ROW_NAME];
    char region[ROW_NAME];
    char country[3];
    char address[ROW_ADDRESS];
    char runtime[ROW_NAME];
    char version[ROW_NAME];
    uint32_t port_low;
    uint32_t port_high;
    uint32_t probe_port;
    uint32_t cpu_milli;
    uint32_t memory_mib;
    uint32_t disk_mib;
    micro_t price;
    uint32_t notice_s;
    bool paused;
    struct claim_device device[CLAIM_MAX_DEVICES];
    uint32_t device_count;
};

struct ev_enrol {
    struct uuid uid;
    uint8_t join_hash[32]; /* the caller's token_hash is unused */
    uint8_t curve_key[32];
    uint8_t sign_key[32];
    uint8_t machine[32];
    const struct node_claim *claim;
};

enum node_verb {
    NODE_DRAIN,
    NODE_UNDRAIN,
    NODE_PAUSE,
    NODE_RESUME,
    NODE_LEAVE,
    NODE_SET_PRICE,
    NODE_REVOKE, /* the operator's: the key is refused from now on */
    NODE_VERB_COUNT,
};
const char *node_verb_name(enum node_verb verb);
enum node_verb node_verb_parse(const char *name);

struct ev_node_set {
    struct uuid node; /* nil when it comes from the worker itself; then `id` */
    uint64_t id;
    enum node_verb verb;
    const char *reason;
    micro_t price;
};

struct ev_content {
    const char *project;
    uint8_t sha256[32];
    uint64_t size;
};

struct ev_output {
    struct uuid attempt;
    uint32_t rank;
    const char *path;
    uint8_t sha256[32];
    uint64_t size;
};

/* What the worker holds, told at hello. */
struct held_task {
    uint64_t attempt;
    uint32_t term;
    uint32_t epoch;
    uint32_t rank;
    enum rank_state state;
    int32_t exit_code;
};
#define HELLO_MAX_TASKS 64

struct ev_hello {
    uint64_t node;
    uint64_t boot; /* the worker's own counter, greater at each start of its state folder */
    const struct node_claim *claim;
    struct held_task task[HELLO_MAX_TASKS];
    uint32_t task_count;
};

struct ev_selftest {
    uint64_t node;
    uint32_t device; /* ordinal */
    bool passed;     /* the shell verified the sums */
    uint32_t measured_mib;
    uint32_t matmul_gflops;
    uint32_t copy_mib_s;
    const char *detail;
};

enum task_news {
    TASK_PREPARING, /* order taken */
    TASK_PROGRESS,  /* of preparing; resets the 120 s rule */
    TASK_READY,
    TASK_STARTED,
    TASK_EXITED, /* processes gone */
    TASK_DONE,   /* outputs stored, scrubbed */
    TASK_REFUSED,
    TASK_NEWS_COUNT,
};
const char *task_news_name(enum task_news news);
/* TASK_NEWS_COUNT for an unknown name. */
enum task_news task_news_parse(const char *name);

struct ev_task {
    uint64_t node;
    uint64_t attempt;
    uint32_t term;
    uint32_t epoch;
    uint32_t rank;
    enum task_news news;
    int32_t exit_code;
    enum err_code reason;
    enum fail_class class;
    uint32_t port;
    const char *detail;
};

struct ev_receipt {
    uint64_t node;
    uint64_t seq;
    const uint8_t *bytes;
    uint32_t bytes_length;
    uint8_t signature[64];
    struct {
        uint64_t attempt;
        uint32_t term;
        uint32_t epoch;
        uint32_t rank;
        uint64_t used_ms; /* cumulative since go */
    } line[HELLO_MAX_TASKS];
    uint32_t line_count;
};

struct ev_device_use {
    uint64_t node;
    uint32_t device; /* ordinal */
    bool foreign;    /* a process that is not ours uses its memory */
};

struct ev_link {
    uint64_t from; /* the node that measured */
    uint64_t to;
    uint32_t rtt_p50_us; /* 0 = no answer */
    uint32_t rtt_p95_us;
    uint32_t loss_ppm;
    bool reach; /* TCP from → to */
};

struct ev_node {
    uint64_t node;
};

struct ev_offence {
    uint64_t node;
    enum err_code reason;
    const char *detail;
};

struct event {
    enum event_kind kind;
    struct caller caller; /* commands only */
    uint64_t ack_node;    /* from a worker, durable: FX_ACK once committed; 0 = none */
    uint64_t ack_seq;
    union {
        struct ev_submit submit;
        struct ev_cancel cancel;
        struct ev_plan plan;
        struct ev_named named;
        struct ev_token token;
        struct ev_revoke revoke;
        struct ev_deposit deposit;
        struct ev_enrol enrol;
        struct ev_node_set node_set;
        struct ev_content content;
        struct ev_output output;
        struct ev_hello hello;
        struct ev_selftest selftest;
        struct ev_task task;
        struct ev_receipt receipt;
        struct ev_device_use device_use;
        struct ev_link link;
        struct ev_offence offence;
        struct ev_node node; /* NODE_BYE, NODE_SILENT, NODE_BACK */
    };
    struct uuid fresh[4]; /* unused UUIDs for what the step may create; made by the shell */
};

/* -- effects: done after the commit, idempotent, at least once ----------------------------- */

enum order_kind {
    ORDER_PREPARE,
    ORDER_GO,
    ORDER_STOP,   /* signal, then kill after stop_duration */
    ORDER_FORGET, /* stale epoch: kill at once, unpaid; or ended: drop the record */
    ORDER_SELFTEST,
    ORDER_PROBE, /* measure these peers */
    ORDER_KIND_COUNT,
};
const char *order_kind_name(enum order_kind kind);

struct order_peer {
    uint64_t node;
    char name[ROW_NAME]; /* ORDER_PROBE: declared delays go by name */
    char address[ROW_ADDRESS];
    uint32_t port;      /* probe port for ORDER_PROBE, rank's port for ORDER_GO */
    uint32_t port_high; /* ORDER_PROBE: a port of the task range to try TCP on; 0 = none */
};
#define ORDER_MAX_PEERS SPEC_MAX_NODES

struct order {
    enum order_kind kind;
    uint64_t node;
    uint64_t attempt;
    struct uuid attempt_uid;
    struct uuid job_uid;
    uint32_t term;
    uint32_t epoch;
    uint32_t rank;
    enum err_code reason;                    /* STOP, FORGET */
    const char *job_name;                    /* PREPARE; borrowed until the step's out is cleared */
    const char *project;                     /* PREPARE */
    const char *spec;                        /* PREPARE: canonical JSON; borrowed likewise */
    uint32_t device[SPEC_MAX_GPUS_PER_NODE]; /* PREPARE: ordinals; SELFTEST: device[0] */
    uint32_t device_count;
    uint32_t ranks;                 /* PREPARE, GO: gang size */
    const struct order_peer *peers; /* GO: one per rank; PREPARE: the other ranks; PROBE */
    uint32_t peer_count;
    const uint32_t *pair_us; /* GO: peers x peers RTT, row-major; NULL = none */
    micro_t price;           /* GO: per hour, whole gang */
};

/* When an ask that cannot be placed now will fit, if all that runs ends as late as it may. */
struct earliest {
    usec_t at_us;
    micro_t price; /* of that placement, per hour */
    uint32_t diameter_us;
};

struct reply {
    uint64_t request;
    struct err err;        /* code ERR_NONE = done */
    struct uuid object;    /* what was made or touched */
    bool replayed;         /* answered from an idempotency record */
    const struct why *why; /* EV_PLAN and refusals by placement; borrowed until out is cleared */
    const struct earliest *earliest; /* EV_PLAN, not placed: NULL = unknown; borrowed likewise */
    micro_t amount; /* EV_JOB_SUBMIT: held; EV_PLAN: hold it would need; 402: missing amount */
};

enum effect_kind {
    FX_ORDER,
    FX_REPLY,
    FX_NODE_KEYS,   /* allow or drop a key at ZAP: node id and whether it is live */
    FX_ACK,         /* the worker's durable message `seq` is committed */
    FX_WELCOME,     /* answers EV_NODE_HELLO */
    FX_NODE_STATUS, /* tell the worker its state, tiers and price (world_node, world_device) */
};

struct effect {
    enum effect_kind kind;
    union {
        struct order order;
        struct reply reply;
        struct {
            uint64_t node;
            uint8_t curve_key[32];
            bool live;
        } keys;
        struct {
            uint64_t node;
            uint64_t seq; /* FX_ACK */
        } node;           /* FX_ACK, FX_WELCOME, FX_NODE_STATUS */
    };
};

#endif
