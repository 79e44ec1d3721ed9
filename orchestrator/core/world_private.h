#ifndef SHEAF_ORCHESTRATOR_CORE_WORLD_PRIVATE_H
#define SHEAF_ORCHESTRATOR_CORE_WORLD_PRIVATE_H

/*
 * The inside of the world, for the world_*.c files alone (and tests).
 *
 * Every noun wraps its row. What stands beside the row is an index, or *soft*: things that a
 * restart may forget because EV_BOOT and EV_NODE_HELLO bring them back (who is connected, when an
 * order was last sent). Rows change through step_emit() and nowhere else.
 */
#include "common/pure/map.h"
#include "orchestrator/core/world.h"

/* -- containers ------------------------------------------------------------------------------ */

/* Pointers to structs whose first member is their uint64_t id, ascending. */
struct table {
    void **items;
    uint32_t count;
    uint32_t capacity;
};
void *table_get(const struct table *table, uint64_t id);
void table_put(struct table *table, void *item);
void table_remove(struct table *table, uint64_t id);
void table_fini(struct table *table, void (*free_item)(void *));

/* -- nouns ----------------------------------------------------------------------------------- */

/* Commands of one project that wait or run, at most: bounds the queue pass and our memory. */
#define WORLD_MAX_JOBS_PER_PROJECT 10000u
/* Keyed replies kept here; older ones are attached to the event from the store. */
#define WORLD_IDEM_MAX 4096u
/* Ended jobs that a late command still finds. */
#define WORLD_ENDED_MAX 1024u
/* Up to so many ready nodes every pair is probed all the time; above, pairs a waiting gang needs.
 */
#define WORLD_FULL_MESH 16u
/* Lost tasks remembered per node, to be told to forget when it is back. */
#define WORLD_GHOSTS 64u

struct project {
    struct project_row row;
    struct map contents; /* sha256 → content_row, owned */
    uint32_t live_jobs;
};

struct slot;

struct device {
    struct device_row row;
    struct slot *slot;
    /* soft */
    bool failed;       /* its self-test failed in this session */
    bool replaced;     /* the hello at work names another device here than before */
    usec_t asked_us;   /* self-test ordered */
    usec_t foreign_us; /* withdrawn by its owner since */
};

struct slot {
    struct slot_row row;
    struct device *device;
    uint64_t lease; /* live one, or 0 */
};

struct ghost {
    uint64_t attempt;
    uint32_t term;
    uint32_t epoch;
    uint32_t rank;
};

struct node {
    struct node_row row;
    struct device *device[CLAIM_MAX_DEVICES]; /* by ordinal; NULL = none */
    uint64_t receipt_seq;                     /* newest committed */
    /* soft */
    bool connected;
    usec_t silent_us; /* unknown since, by our clock */
    usec_t paused_us; /* owner's pause since */
    usec_t cool_us;   /* not used for new work before: it failed a start */
    struct ghost ghost[WORLD_GHOSTS];
    uint32_t ghost_count;
};

/* What one end told about a link. */
struct direction {
    bool known;
    uint32_t p50_us;
    uint32_t p95_us;
    uint32_t loss_ppm;
};

struct pair {
    struct link_row row;
    bool measured; /* the row exists */
    /* soft */
    struct direction side[2]; /* told by a, by b */
    usec_t asked_us;
    uint32_t tries; /* probes ordered since the last answer; capped */
};

struct lease {
    struct lease_row row;
    uint64_t slot[SPEC_MAX_GPUS_PER_NODE];
    uint32_t slot_count;
};

struct attempt;

struct rank {
    struct rank_row row;
    struct attempt *attempt;
    struct lease *lease;
    /* soft */
    usec_t progress_us;
    usec_t order_us;
};

struct attempt {
    struct attempt_row row;
    struct job *job;
    struct rank *rank[SPEC_MAX_NODES]; /* by rank number */
    uint32_t rank_count;
    /* soft */
    usec_t settled_us;
};

struct job {
    struct job_row row; /* ask, spec and why point to the fields below */
    struct job_ask ask;
    char *spec;              /* owned */
    struct why *why;         /* owned, or NULL */
    struct attempt *attempt; /* live one */
    /* soft */
    uint64_t tried;  /* capacity generation of the last try */
    usec_t retry_us; /* try again even if nothing changed */
    usec_t told_us;  /* evidence last written */
};

struct ended {
    struct uuid uid;
    uint64_t project;
};

struct world {
    uint64_t next_id;
    usec_t now_us; /* newest committed or being decided */
    struct table projects;
    struct table providers;   /* struct provider_row */
    struct table users;       /* struct user_row */
    struct table tokens;      /* struct token_row */
    struct table join_tokens; /* struct join_token_row */
    struct table accounts;    /* struct account_row */
    struct table nodes;
    struct table devices;
    struct table slots;
    struct table jobs;     /* not final */
    struct table attempts; /* not ended */
    struct table ranks;
    struct table leases; /* of live attempts, ended ones too */
    struct map token_by_hash;
    struct map join_by_hash;
    struct map token_by_uid;
    struct map account_by_owner;
    struct map node_by_uid;
    struct map node_by_curve;   /* not gone */
    struct map node_by_machine; /* not gone */
    struct map job_by_uid;
    struct map attempt_by_uid;
    struct map pairs;      /* (a, b) → struct pair */
    struct map outputs;    /* (attempt, rank, hash of path) → job_output_row of live attempts */
    struct idem_row *idem; /* ring */
    uint32_t idem_next;
    struct map idem_by_key;
    struct ended *ended; /* ring */
    uint32_t ended_next;
    struct map ended_by_uid;
    uint32_t ended_by_state[JOB_STATE_COUNT];
    /* soft */
    uint64_t capacity;   /* generation: grows when something came free, ready, near or cheaper */
    usec_t mass_hold_us; /* nobody is declared lost before */
};

/* -- the step -------------------------------------------------------------------------------- */

struct step {
    struct world *world;
    const struct event *event; /* NULL in a queue pass */
    usec_t now;
    uint32_t term;
    const struct policy *policy;
    struct world_out *out;
    const struct uuid *fresh;
    uint32_t fresh_count;
    uint64_t first_id;
    uint32_t first_row;
};

/* Why something ends or waits. */
struct cause {
    enum err_code reason;
    enum fail_class class;
    int32_t exit_code;
    const char *detail; /* may be NULL */
};

/* world_out.c */
void *out_alloc(struct world_out *out, size_t size);
void out_row(struct world_out *out, const struct row *row);
/* Puts the row out and applies it. */
void step_emit(struct step *step, const struct row *row);
void step_effect(struct step *step, const struct effect *effect);
uint64_t step_id(struct step *step);
/* The next unused UUID of the event; BUG when the shell brought too few. */
struct uuid step_uuid(struct step *step);
void step_reply(struct step *step, const struct reply *reply);
/* Emits the control row when something was decided. */
void step_close(struct step *step);

/* world_auth.c */
int auth_token(const struct step *step, uint32_t scope, const struct token_row **ret_token,
               struct err *err) SHEAF_MUST_USE;
/* The project a command is about: named, or the token's. Foreign ones are ERR_NOT_FOUND. */
int auth_project(const struct step *step, const struct token_row *token, const char *name,
                 struct project **ret_project, struct err *err) SHEAF_MUST_USE;
bool auth_sees_project(const struct token_row *token, uint64_t project);
bool auth_owns_node(const struct token_row *token, const struct node *node);
/* True when this command was answered before; then *ret_reply is filled. */
bool idem_replay(const struct step *step, uint64_t token, struct reply *ret_reply);
void idem_remember(struct step *step, uint64_t token, const struct uuid *object);

/* world_command.c: one function per administrative command */
int command_project(struct step *step, const struct token_row *token, struct reply *reply);
int command_provider(struct step *step, const struct token_row *token, struct reply *reply);
int command_user(struct step *step, const struct token_row *token, struct reply *reply);
int command_token(struct step *step, const struct token_row *token, struct reply *reply);
int command_revoke(struct step *step, const struct token_row *token, struct reply *reply);
int command_join_token(struct step *step, const struct token_row *token, struct reply *reply);
int command_deposit(struct step *step, const struct token_row *token, struct reply *reply);
int command_content(struct step *step, const struct token_row *token, struct reply *reply);
struct project *project_by_name(const struct world *world, const char *name);
const struct provider_row *provider_by_name(const struct world *world, const char *name);
/* Fits a row and is not empty; the grammar of names is checked by the shell. */
bool name_fits(const char *name);

/* world_submit.c, world_job.c */
int command_submit(struct step *step, const struct token_row *token, struct reply *reply);
int command_plan(struct step *step, const struct token_row *token, struct reply *reply);
int command_cancel(struct step *step, const struct token_row *token, struct reply *reply);
int command_output(struct step *step, const struct token_row *token, struct reply *reply);
const struct job_output_row *output_find(const struct world *world,
                                         const struct job_output_row *like);
uint32_t output_count(const struct world *world, uint64_t attempt, uint32_t rank);
/* Moves, records the event. Frees the job when `to` is final: releases its money first. */
void job_move(struct step *step, struct job *job, enum job_state to, const struct cause *cause);
/* An event that is no move. */
void job_note(struct step *step, const struct job *job, enum err_code reason, const char *detail);
/* Sets the reason of a waiting job and its evidence, if they changed. */
void job_wait(struct step *step, struct job *job, enum err_code reason, const struct why *why);
/* Recomputes DEGRADED from the nodes of the gang. */
void job_refresh(struct step *step, struct job *job);
usec_t job_due(const struct job *job);
void job_act(struct step *step, struct job *job);

/* world_attempt.c */
/* Ends a live attempt: stop orders to all ranks; the job goes where class and retries say. */
void attempt_fail(struct step *step, struct attempt *attempt, const struct cause *cause);
/* The same, with the job's next state given. */
void attempt_stop(struct step *step, struct attempt *attempt, enum job_state then,
                  const struct cause *cause);
void attempt_move(struct step *step, struct attempt *attempt, enum attempt_state to);
/* After a rank moved: opens the barrier, starts metering, ends what is complete. May free. */
void attempt_advance(struct step *step, struct attempt *attempt);
usec_t attempt_due(const struct attempt *attempt, const struct world *world,
                   const struct policy *policy);
void attempt_act(struct step *step, struct attempt *attempt);
/* When its slots are free at the latest, if it goes the whole way; 0 = there is no such time. */
usec_t attempt_latest_us(const struct attempt *attempt, const struct policy *policy);

/* world_rank.c */
/* From the order to stop to the last moment at which its exit is waited for. */
usec_t rank_stop_span(const struct attempt *attempt);
void rank_move(struct step *step, struct rank *rank, enum rank_state to, const struct cause *cause);
/* Processes gone: closes the meter. */
void rank_exit(struct step *step, struct rank *rank, const struct cause *cause);
/* DONE or LOST: closes the meter, ends the lease, frees the slots, tells the worker to forget. */
void rank_finish(struct step *step, struct rank *rank, enum rank_state to,
                 const struct cause *cause);
bool rank_is_final(const struct rank *rank);
void rank_order(struct step *step, struct rank *rank, enum order_kind kind, enum err_code reason);
/* The order that the rank's state demands, if any. */
void rank_demand(struct step *step, struct rank *rank);
void order_forget(struct step *step, uint64_t node, const struct ghost *task, enum err_code reason);
usec_t rank_due(const struct rank *rank, const struct world *world, const struct policy *policy);
void rank_act(struct step *step, struct rank *rank);

/* world_task.c */
void task_news(struct step *step, const struct ev_task *task);
void task_receipt(struct step *step, const struct ev_receipt *receipt);

/* world_money.c */
const struct account_row *account_find(const struct world *world, uint64_t project,
                                       uint64_t provider, enum account_purpose purpose,
                                       const char *asset);
/* Made on demand; takes a fresh UUID then. */
const struct account_row *account_need(struct step *step, uint64_t project, uint64_t provider,
                                       enum account_purpose purpose);
struct posting {
    const struct account_row *debit;
    const struct account_row *credit;
    micro_t amount;
    enum transfer_kind kind;
    uint64_t job;
    uint64_t lease;
    uint64_t hold;
    const char *memo;
};
/* Returns the transfer's id; 0 and nothing done for amount 0. */
uint64_t money_post(struct step *step, const struct posting *posting);
/* Charges what the meter shows of one lease. */
void lease_settle(struct step *step, struct lease *lease);
void attempt_settle(struct step *step, struct attempt *attempt);
void attempt_refund(struct step *step, struct attempt *attempt, bool hold_again);
bool class_pays(enum fail_class class);
/* Charged in this attempt if every meter were read now, receipts aside: the upper bound. */
micro_t attempt_clock_bill(const struct attempt *attempt, usec_t now);
/* When the clock alone would have spent the escrow; 0 = never. */
usec_t attempt_broke_us(const struct attempt *attempt);
void job_release(struct step *step, struct job *job);

/* world_node.c, world_liveness.c */
int command_enrol(struct step *step, struct reply *reply);
int command_node_set(struct step *step, const struct token_row *token, struct reply *reply);
void node_notice(struct step *step, const struct ev_node_set *set);
void node_hello(struct step *step, const struct ev_hello *hello);
void node_selftest(struct step *step, const struct ev_selftest *test);
void node_device_use(struct step *step, const struct ev_device_use *use);
void node_move(struct step *step, struct node *node, enum node_state to, const struct cause *cause);
void node_condition_set(struct step *step, struct node *node, uint32_t set, uint32_t clear,
                        const struct cause *cause);
void node_status(struct step *step, const struct node *node);
bool node_is_leased(const struct node *node);
/* DRAINING without work → DRAINED. */
void node_settle(struct step *step, struct node *node);
/* PROBING and everything measured → READY, and its links are probed. */
void node_settle_probing(struct step *step, struct node *node);
bool node_placeable(const struct node *node, usec_t now);
void node_fault(struct step *step, uint64_t node, enum fail_class class);
usec_t device_due(const struct device *device, const struct node *node, const struct world *world);
void device_act(struct step *step, struct device *device, struct node *node);
void node_silent(struct step *step, struct node *node);
void node_back(struct step *step, struct node *node);
void node_bye(struct step *step, struct node *node);
void node_offence(struct step *step, const struct ev_offence *offence);
usec_t node_due(const struct node *node, const struct world *world, const struct policy *policy);
void node_act(struct step *step, struct node *node);
/* Every live attempt with a rank there that is not final. */
void node_each_rank(struct step *step, uint64_t node,
                    void (*f)(struct step *, struct rank *, const struct cause *),
                    const struct cause *cause);
/* For it: the rank is gone and fails its gang; the job's condition is looked at again. */
void rank_lose(struct step *step, struct rank *rank, const struct cause *cause);
void rank_refresh_job(struct step *step, struct rank *rank, const struct cause *cause);

/* world_probe.c */
void link_measured(struct step *step, const struct ev_link *link);
struct pair *pair_get(const struct world *world, uint64_t a, uint64_t b);
/* Creates the soft entry when absent. */
struct pair *pair_need(struct world *world, uint64_t a, uint64_t b);
/* Fresh, and both ends were heard. */
bool pair_is_known(const struct pair *pair, const struct policy *policy, usec_t now);
struct pair_list {
    struct pair **items; /* owned */
    uint32_t count;
    uint32_t capacity;
};
void pair_list_add(struct pair_list *list, struct pair *pair);
void probe_pairs(struct step *step, struct pair_list *list);
void probe_due(struct step *step);
/* A new session of this node: what its former one was asked and did not answer is due again. */
void probe_renew(struct step *step, const struct node *node);
usec_t probe_next_us(const struct world *world, const struct policy *policy);

/* world_schedule.c */
struct fleet_view {
    struct place_fleet fleet;
    struct place_node *nodes;
    struct place_device *devices;
    struct place_link *links;
    struct node **node; /* by index */
};
void fleet_view_init(struct fleet_view *view, const struct world *world, usec_t now,
                     const struct policy *policy);
/* As it will be when every lease has ended that ends at `at` at the latest; 0 = as it is. */
void fleet_view_init_at(struct fleet_view *view, const struct world *world, usec_t now,
                        const struct policy *policy, usec_t at);
void fleet_view_fini(struct fleet_view *view);

/*
 * world_earliest.c: when the ask fits at the latest. False: not known, because it would not fit
 * either when all had ended, because what it wants has no end, or because others wait for it.
 */
bool plan_earliest(const struct step *step, const struct job_ask *ask,
                   struct earliest *ret_earliest);

/* The earlier of two deadlines; 0 = none. */
static inline usec_t usec_sooner(usec_t a, usec_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* world_dump.c: every row that the world holds, in the order of enum row_kind, then key. */
void world_dump(const struct world *world, struct world_out *out);

#endif
