#ifndef SHEAF_TESTS_SIM_SIM_PRIVATE_H
#define SHEAF_TESTS_SIM_SIM_PRIVATE_H

#include "tests/sim/sim.h"

struct sim;
struct worker;

/* -- clock.c: chance, trace and virtual time --------------------------------------------------- */

/* A call in the future; what it is about is in numbers, so that it may be about something gone. */
struct call {
    void (*run)(struct sim *sim, const struct call *call);
    uint32_t node;
    uint64_t generation;
    uint64_t a;
    uint64_t b;
    struct msg *msg; /* owned by whoever runs */
};

struct timer {
    usec_t at_us;
    uint64_t order; /* of scheduling: ties go first come, first served */
    struct call call;
};

uint64_t chance(struct sim *sim, uint64_t below);
bool chance_ppm(struct sim *sim, uint32_t ppm);
usec_t chance_span(struct sim *sim, usec_t least, usec_t most);
/* A value of its own for (seed, a, b, c), whatever was drawn before. */
uint64_t chance_of(const struct sim *sim, uint64_t a, uint64_t b, uint64_t c);
struct uuid sim_uuid(struct sim *sim);
void sim_note(struct sim *sim, const char *tag, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
void sim_after(struct sim *sim, usec_t span, struct call call);
bool clock_next(struct sim *sim, struct timer *ret_timer);
void clock_fini(struct sim *sim);
/* The first violation stands; the run ends with it. */
void sim_break(struct sim *sim, const char *format, ...) SHEAF_PRINTF(2, 3);

/* -- network.c --------------------------------------------------------------------------------- */

enum msg_kind {
    MSG_HELLO,
    MSG_HEARTBEAT,
    MSG_NEWS,
    MSG_RECEIPT,
    MSG_NOTICE,
    MSG_SELFTEST,
    MSG_LINKS,
    MSG_WELCOME,
    MSG_ORDER,
    MSG_ACK,
    MSG_STATUS,
    MSG_ERROR,
};

struct msg_hello {
    uint64_t boot;
    uint64_t next_seq;
    bool paused;
    bool offered[SIM_MAX_DEVICES];
    uint32_t task_count;
    struct held_task task[SIM_MAX_PROCESS];
};

struct msg_news {
    struct task_id id;
    enum rank_news news;
    int32_t exit_code;
    enum err_code reason;
    enum fail_class class;
    uint32_t port;
};

struct msg_receipt {
    uint64_t seq;
    uint32_t count;
    struct {
        struct task_id id;
        uint64_t used_ms;
    } line[SIM_MAX_PROCESS];
};

struct msg_notice {
    bool device_use;
    uint32_t device;
    bool foreign;
    enum node_verb verb;
};

struct msg_order {
    enum order_kind kind;
    struct task_id id;
    struct uuid job;
    struct uuid attempt;
    enum err_code reason;
    uint32_t ranks;
    uint32_t device_count;
    uint32_t device[SPEC_MAX_GPUS_PER_NODE];
    uint32_t peer_count;
    uint64_t peer[SIM_MAX_PEERS];
};

struct msg_links {
    uint32_t count;
    struct ev_link link[SIM_MAX_PEERS];
};

struct msg {
    enum msg_kind kind;
    uint32_t node; /* index of the worker it comes from or goes to */
    uint64_t peer; /* the connection it travels on */
    uint64_t nonce;
    uint64_t seq; /* durable ones */
    uint64_t ack;
    usec_t sent_us;
    union {
        struct msg_hello hello;
        struct msg_news news;
        struct msg_receipt receipt;
        struct msg_notice notice;
        uint32_t device; /* MSG_SELFTEST */
        bool passed;
        struct msg_order order;
        struct msg_links links;
        bool draining; /* MSG_STATUS */
    };
};

/* What the weather does to what is sent; all zero in the quiet tail. */
struct weather {
    uint32_t drop_ppm; /* of what is not durable: the rest is lost with its connection alone */
    uint32_t double_ppm;
    uint32_t reorder_ppm;
    usec_t delay_us;           /* most */
    uint32_t hub_crash_ppm;    /* per commit */
    uint32_t worker_crash_ppm; /* per step of its task machine */
    uint32_t slow_commit_ppm;
    uint32_t refuse_ppm; /* a worker's prepare or fetch fails */
    uint32_t reply_lost_ppm;
};

/* Both take the message. */
void net_to_hub(struct sim *sim, struct worker *worker, struct msg *msg);
void net_to_worker(struct sim *sim, struct worker *worker, struct msg *msg);
/* The connection is new: of what was on its way a tail is lost. */
void net_break(struct sim *sim, struct worker *worker);
struct msg *msg_new(enum msg_kind kind, uint32_t node);

/* -- store.c: committed rows alone ------------------------------------------------------------- */

struct store {
    struct row *rows; /* deep copies, in order of their first commit */
    uint32_t count;
    uint32_t capacity;
    struct map by_key;
    struct map jobs;     /* uid → index + 1 */
    struct map slots;    /* slot → live lease id */
    struct map balances; /* account → struct tally */
    struct map by_job;   /* job → struct tally */
    struct map by_lease; /* lease → struct tally */
    struct map receipts; /* (node, seq) */
};

/* Sums of transfers. */
struct tally {
    micro_t balance;
    micro_t kind[TRANSFER_COUNT];
};

void store_fini(struct store *store);
/* All rows or none; checks what a database would, and the money. */
void store_commit(struct sim *sim, const struct row *rows, uint32_t count);
/* A world out of the rows alone, as a start reads them. Caller frees. */
struct world *store_load(const struct sim *sim);
const struct row *store_get(const struct store *store, enum row_kind kind, uint64_t id);
const struct row *store_idem(const struct store *store, const struct idem_row *like);
const struct job_row *store_job(const struct store *store, const struct uuid *uid);

/* -- hub.c: the orchestrator's shell ----------------------------------------------------------- */

struct box {
    struct event event;
    struct node_claim claim;
    struct job_ask ask;
    char spec[128];
    char name[32];
    struct idem_row idem;
    struct box *next;
};

struct hub_turn {
    struct world_out out;
    uint32_t boxes;
};

struct hub {
    bool up;
    uint64_t generation; /* grows with each crash */
    uint32_t term;
    usec_t now;
    usec_t up_us;
    struct policy policy;
    struct world *world;
    struct sessions *sessions;
    struct liveness *liveness;
    struct links *links;
    struct box *head;
    struct box *tail;
    struct hub_turn turn[2];
    struct hub_turn *filling;
    struct hub_turn *flying;
    bool wake_due;
    bool schedule_wanted;
    bool tick_queued;
    uint64_t tick_number; /* of the newest timer; older ones are void */
};

void hub_init(struct sim *sim);
void hub_fini(struct sim *sim);
/* Set-up: decided and committed at once. Returns the reply. */
struct reply hub_command(struct sim *sim, struct box *box);
struct box *box_new(enum event_kind kind);
void hub_post(struct sim *sim, struct box *box);
void hub_receive(struct sim *sim, const struct msg *msg);
void hub_crash(struct sim *sim);
struct node_claim worker_claim(const struct worker *worker);

/* -- process.c: what really runs --------------------------------------------------------------- */

enum process_state {
    PROCESS_MAKING,
    PROCESS_READY,
    PROCESS_RELEASED,
    PROCESS_RUNNING,
    PROCESS_EXITED,
};

/* One supervisor and its task; outlives the worker. */
struct process {
    uint64_t number; /* 0 = free */
    struct task_id id;
    struct uuid job;
    uint32_t ranks;
    uint32_t device[SIM_MAX_DEVICES];
    uint32_t device_count;
    enum process_state state;
    usec_t run_from;
    usec_t run_to;
    usec_t stop_us; /* 0 = nobody asked */
    int32_t exit_code;
};

void process_make(struct sim *sim, struct worker *worker, const struct rank_task *task,
                  uint32_t ranks);
struct process *process_find(struct worker *worker, const struct task_id *id);
void process_release(struct sim *sim, struct worker *worker, struct process *process);
void process_stop(struct sim *sim, struct worker *worker, struct process *process, bool kill);
void process_clean(struct sim *sim, struct worker *worker, struct process *process);
uint64_t process_used_ms(const struct sim *sim, const struct process *process);
/* Power goes: all of the host's processes with it. */
void process_power_off(struct sim *sim, struct worker *worker);

/* -- worker.c ------------------------------------------------------------------------------------
 */

/* What survives a crash. */
struct journal {
    struct tasks tasks;
    uint64_t boot;
    uint64_t out_seq;
    uint64_t acked_seq;
    uint64_t receipt_seq;
    bool paused;
    struct msg *outbox[SIM_MAX_OUTBOX]; /* owned */
    uint32_t outbox_count;
    struct {
        struct task_id id;
        uint32_t ranks; /* from the kept PREPARE */
        bool go;        /* GO is kept */
    } order[TASKS_MAX];
    uint32_t order_count;
};

struct worker {
    uint32_t index;
    uint64_t node; /* id in the core */
    struct uuid uid;
    uint8_t key[32];
    bool up;       /* the program runs */
    bool vanished; /* for good */
    bool cut;      /* no packet goes through */
    uint64_t generation;
    struct journal journal;
    struct tasks tasks;
    uint64_t peer;
    uint64_t nonce;
    bool session_up;
    usec_t session_us; /* up since */
    usec_t heard_us;
    usec_t broken_us; /* last time the connection was lost */
    uint64_t sent_seq;
    usec_t backoff_us;
    uint64_t dial_number;
    usec_t fifo_up_us;
    usec_t fifo_down_us;
    uint64_t cut_peer; /* of the connection before: delivered up to cut_us */
    usec_t cut_us;
    bool draining;
    bool busy[SIM_MAX_DEVICES];    /* a process of the owner, in truth */
    bool foreign[SIM_MAX_DEVICES]; /* as this start saw it */
    bool testing[SIM_MAX_DEVICES];
    uint64_t order_ranks;
    struct process process[SIM_MAX_PROCESS];
};

void worker_start(struct sim *sim, struct worker *worker);
void worker_crash(struct sim *sim, struct worker *worker);
void worker_receive(struct sim *sim, struct worker *worker, const struct msg *msg);
void worker_notice(struct sim *sim, struct worker *worker, enum node_verb verb);
void worker_pause(struct sim *sim, struct worker *worker, bool now);
void worker_resume(struct sim *sim, struct worker *worker);
void worker_fini(struct worker *worker);
/* For processes: something happened to one. Nothing while the worker is down. */
void worker_task_event(struct sim *sim, struct worker *worker, const struct task_event *event);

/* -- actors.c: tenants, owners and misfortune ----------------------------------------------------
 */

struct sim_job {
    struct job_ask ask;
    char spec[128];
    bool feasible; /* must not end for want of capacity */
    bool rich;     /* its escrow never ends before max_duration */
    bool acked;
    bool refused;
    bool wants_cancel;
    struct uuid uid;
    usec_t acked_us;
};

void actors_setup(struct sim *sim);
void actors_start(struct sim *sim);
void actors_reply(struct sim *sim, const struct reply *reply);

/* -- invariants.c ------------------------------------------------------------------------------ */

/* The truth of one rank of one attempt. */
struct truth {
    uint64_t attempt;
    uint32_t rank;
    uint32_t ranks;
    uint32_t node;
    bool ready;
    bool ran;
    bool told; /* its worker recorded how it ended */
    usec_t run_from;
    usec_t run_to; /* 0 = runs */
};

struct truth *truth_get(struct sim *sim, uint64_t attempt, uint32_t rank);
void truth_ready(struct sim *sim, const struct worker *worker, const struct process *process);
void truth_start(struct sim *sim, struct worker *worker, const struct process *process);
void truth_end(struct sim *sim, const struct process *process);
/* The worker has its end, with the time it used, in its journal. */
void truth_told(struct sim *sim, const struct process *process);
/* A lease as it was and as a commit makes it. */
void check_lease(struct sim *sim, const struct lease_row *old, const struct lease_row *row);
/* Of a batch: sums, escrow, what is acknowledged. */
void check_batch(struct sim *sim, const struct row *rows, uint32_t count);
/* Now and then: nothing runs of what has ended. */
void check_strays(struct sim *sim);
bool sim_is_over(const struct sim *sim);
void check_end(struct sim *sim);

/* -- the whole -----------------------------------------------------------------------------------
 */

struct sim {
    struct sim_options options;
    struct sim_result result;
    struct sim_counters counters;
    usec_t now;
    uint64_t chance;
    uint64_t hash;
    struct timer *heap;
    uint32_t heap_count;
    uint32_t heap_capacity;
    uint64_t order;
    uint64_t uuids;
    uint64_t numbers; /* of peers, nonces, processes */
    bool quiet;
    usec_t calm_us;
    bool broken;
    struct weather weather;
    struct store store;
    struct hub hub;
    struct worker worker[SIM_MAX_NODES];
    uint32_t worker_count;
    struct sim_job job[SIM_MAX_JOBS];
    uint32_t job_count;
    uint8_t tenant[32];
    uint8_t operator_[32];
    struct map truths; /* (attempt, rank) → struct truth, owned */
};

#endif
