/* One node's part of an attempt: its orders, its lease, its deadlines. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/core/world_private.h"

/* Beyond the grace of the job: SIGKILL, reaping and the way of the message. */
#define STOP_MARGIN_US ((usec_t)30 * 1000000)

bool rank_is_final(const struct rank *rank)
{
    return rank->row.state == RANK_DONE || rank->row.state == RANK_LOST;
}

void rank_move(struct step *step, struct rank *rank, enum rank_state to, const struct cause *cause)
{
    struct row row = {.kind = ROW_RANK, .rank = rank->row};

    BUG_ON(!rank_may_move(rank->row.state, to));
    row.rank.state = to;
    row.rank.state_us = step->now;
    if (cause != NULL) {
        row.rank.reason = cause->reason;
        row.rank.class = cause->class;
        row.rank.exit_code = cause->exit_code;
        snprintf(row.rank.detail, sizeof(row.rank.detail), "%s",
                 cause->detail ? cause->detail : "");
    }
    step_emit(step, &row);
}

/* -- orders ---------------------------------------------------------------------------------- */

static const char *keep_text(struct step *step, const char *text)
{
    size_t size = strlen(text) + 1;

    return memcpy(out_alloc(step->out, size), text, size);
}

static struct effect order_base(const struct rank *rank, enum order_kind kind)
{
    const struct attempt *attempt = rank->attempt;
    struct effect effect = {
        .kind = FX_ORDER,
        .order = {.kind = kind,
                  .node = rank->row.node,
                  .attempt = attempt->row.id,
                  .attempt_uid = attempt->row.uid,
                  .job_uid = attempt->job->row.uid,
                  .term = attempt->row.term,
                  .epoch = attempt->row.epoch,
                  .rank = rank->row.rank,
                  .ranks = attempt->rank_count,
                  .price = attempt->row.price},
    };
    return effect;
}

/* One per rank, in rank order. */
static const struct order_peer *make_peers(struct step *step, const struct attempt *attempt)
{
    struct order_peer *peers = out_alloc(step->out, attempt->rank_count * sizeof(*peers));

    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        const struct rank *rank = attempt->rank[i];
        const struct node *node = table_get(&step->world->nodes, rank->row.node);
        memset(&peers[i], 0, sizeof(peers[i]));
        peers[i].node = node->row.id;
        peers[i].port = rank->row.port;
        memcpy(peers[i].address, node->row.address, sizeof(peers[i].address));
    }
    return peers;
}

static const uint32_t *make_matrix(struct step *step, const struct attempt *attempt)
{
    size_t count = attempt->rank_count;
    uint32_t *matrix = out_alloc(step->out, count * count * sizeof(*matrix));

    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            const struct pair *pair = NULL;
            if (i != j)
                pair =
                    pair_get(step->world, attempt->rank[i]->row.node, attempt->rank[j]->row.node);
            matrix[i * count + j] = pair != NULL ? pair->row.rtt_p95_us : 0;
        }
    }
    return matrix;
}

static void fill_prepare(struct step *step, const struct rank *rank, struct order *order)
{
    const struct job *job = rank->attempt->job;
    const struct project *project = table_get(&step->world->projects, job->row.project);

    order->job_name = keep_text(step, job->row.name);
    order->project = keep_text(step, project->row.name);
    order->spec = keep_text(step, job->spec);
    for (uint32_t i = 0; i < rank->lease->slot_count; i++) {
        const struct slot *slot = table_get(&step->world->slots, rank->lease->slot[i]);
        order->device[order->device_count++] = slot->device->row.ordinal;
    }
}

void rank_order(struct step *step, struct rank *rank, enum order_kind kind, enum err_code reason)
{
    struct effect effect = order_base(rank, kind);
    const struct attempt *attempt = rank->attempt;

    effect.order.reason = reason;
    if (kind == ORDER_PREPARE)
        fill_prepare(step, rank, &effect.order);
    if (kind == ORDER_PREPARE || kind == ORDER_GO) {
        effect.order.peers = make_peers(step, attempt);
        effect.order.peer_count = attempt->rank_count;
    }
    if (kind == ORDER_GO && attempt->rank_count > 1)
        effect.order.pair_us = make_matrix(step, attempt);
    rank->order_us = step->now;
    step_effect(step, &effect);
}

static bool demanded(const struct rank *rank, enum order_kind *ret_kind)
{
    enum attempt_state state = rank->attempt->row.state;

    if (rank_is_final(rank))
        return false;
    if (state == ATTEMPT_PREPARING && rank->row.state == RANK_ASSIGNED)
        *ret_kind = ORDER_PREPARE;
    else if (state == ATTEMPT_STARTING && rank->row.state == RANK_READY)
        *ret_kind = ORDER_GO;
    else if (state == ATTEMPT_STOPPING && rank->row.state < RANK_EXITED)
        *ret_kind = ORDER_STOP;
    else
        return false;
    return true;
}

void rank_demand(struct step *step, struct rank *rank)
{
    enum order_kind kind;

    if (demanded(rank, &kind))
        rank_order(step, rank, kind, rank->attempt->row.reason);
}

void order_forget(struct step *step, uint64_t node, const struct ghost *task, enum err_code reason)
{
    const struct effect effect = {
        .kind = FX_ORDER,
        .order = {.kind = ORDER_FORGET,
                  .node = node,
                  .attempt = task->attempt,
                  .term = task->term,
                  .epoch = task->epoch,
                  .rank = task->rank,
                  .reason = reason},
    };
    step_effect(step, &effect);
}

/* -- the end of a rank ------------------------------------------------------------------------ */

static void lease_end(struct step *step, struct lease *lease)
{
    struct row row = {.kind = ROW_LEASE, .lease = lease->row};

    row.lease.ended_us = step->now;
    step_emit(step, &row);
    for (uint32_t i = 0; i < lease->slot_count; i++) {
        step_emit(step, &(struct row){.kind = ROW_LEASE_SLOT,
                                      .lease_slot = {.lease = lease->row.id,
                                                     .slot = lease->slot[i],
                                                     .live = false}});
    }
    step->world->capacity++;
}

/* Metering stops with the process, whatever becomes of its outputs. */
static void close_meter(struct step *step, struct lease *lease)
{
    struct row row = {.kind = ROW_LEASE, .lease = lease->row};

    if (lease->row.meter_from_us == 0 || lease->row.meter_to_us != 0)
        return;
    row.lease.meter_to_us = step->now;
    step_emit(step, &row);
}

void rank_exit(struct step *step, struct rank *rank, const struct cause *cause)
{
    close_meter(step, rank->lease);
    rank_move(step, rank, RANK_EXITED, cause);
}

void rank_finish(struct step *step, struct rank *rank, enum rank_state to,
                 const struct cause *cause)
{
    struct node *node = table_get(&step->world->nodes, rank->row.node);
    const struct attempt_row *attempt = &rank->attempt->row;
    const struct ghost task = {attempt->id, attempt->term, attempt->epoch, rank->row.rank};

    close_meter(step, rank->lease);
    if (class_pays(attempt->class))
        lease_settle(step, rank->lease);
    lease_end(step, rank->lease);
    rank_move(step, rank, to, cause);
    order_forget(step, node->row.id, &task, cause != NULL ? cause->reason : ERR_COMPLETED);
    node_settle(step, node);
}

/* -- time ------------------------------------------------------------------------------------ */

/* The owner wants the machine or a device back: the lease's notice runs. */
static usec_t interrupt_due(const struct rank *rank, const struct node *node,
                            const struct world *world)
{
    usec_t notice = (usec_t)rank->lease->row.notice_s * 1000000;
    usec_t due = 0;

    if (rank->attempt->row.state == ATTEMPT_STOPPING || rank->row.state >= RANK_EXITED)
        return 0;
    if (node->paused_us != 0)
        due = node->paused_us + notice;
    for (uint32_t i = 0; i < rank->lease->slot_count; i++) {
        const struct slot *slot = table_get(&world->slots, rank->lease->slot[i]);
        if (slot->device->foreign_us != 0)
            due = usec_sooner(due, slot->device->foreign_us + notice);
    }
    return due;
}

usec_t rank_stop_span(const struct attempt *attempt)
{
    uint64_t grace = attempt->job->ask.stop_duration_us;

    if (grace > INT64_MAX / 4)
        grace = INT64_MAX / 4;
    return (usec_t)grace + STOP_MARGIN_US;
}

static usec_t stall_due(const struct rank *rank, const struct policy *policy)
{
    const struct attempt *attempt = rank->attempt;
    usec_t since = rank->row.state_us;

    if (rank->row.state == RANK_EXITED)
        return since + policy->output_timeout_us;
    if (attempt->row.state == ATTEMPT_PREPARING && rank->row.state < RANK_READY) {
        if (rank->progress_us > since)
            since = rank->progress_us;
        return since + policy->prepare_progress_us;
    }
    if (attempt->row.state == ATTEMPT_STOPPING)
        return attempt->row.stop_us + rank_stop_span(attempt);
    return 0;
}

static usec_t resend_due(const struct rank *rank, const struct node *node,
                         const struct policy *policy)
{
    enum order_kind kind;

    if (!node->connected || !demanded(rank, &kind))
        return 0;
    return rank->order_us + policy->resend_after_us;
}

usec_t rank_due(const struct rank *rank, const struct world *world, const struct policy *policy)
{
    const struct node *node = table_get(&world->nodes, rank->row.node);

    if (rank_is_final(rank))
        return 0;
    usec_t due = stall_due(rank, policy);
    due = usec_sooner(due, interrupt_due(rank, node, world));
    return usec_sooner(due, resend_due(rank, node, policy));
}

static void give_up(struct step *step, struct rank *rank, const struct node *node)
{
    char detail[ROW_DETAIL];
    struct attempt *attempt = rank->attempt;
    struct cause cause = {.class = FAIL_PROVIDER, .detail = detail};

    if (rank->row.state == RANK_EXITED) {
        cause.reason = ERR_OUTPUT_LOST;
        snprintf(detail, sizeof(detail), "outputs of rank %u on %s were not stored in time",
                 rank->row.rank, node->row.name);
        attempt_fail(step, attempt, &cause);
    } else if (attempt->row.state == ATTEMPT_PREPARING) {
        cause.reason = ERR_PREPARE_TIMEOUT;
        cause.class = FAIL_CAPACITY;
        snprintf(detail, sizeof(detail), "rank %u on %s made no progress", rank->row.rank,
                 node->row.name);
        node_fault(step, node->row.id, cause.class);
        attempt_fail(step, attempt, &cause);
        return; /* it is told to stop; the stop has its own deadline */
    } else {
        cause.reason = ERR_STOP_TIMEOUT;
        snprintf(detail, sizeof(detail), "rank %u on %s did not stop in time", rank->row.rank,
                 node->row.name);
    }
    rank_finish(step, rank, RANK_LOST, &cause);
}

static void interrupt(struct step *step, struct rank *rank, const struct cause *cause)
{
    if (rank->attempt->row.state != ATTEMPT_STOPPING && rank->row.state < RANK_EXITED)
        attempt_fail(step, rank->attempt, cause);
}

void rank_act(struct step *step, struct rank *rank)
{
    const struct node *node = table_get(&step->world->nodes, rank->row.node);
    usec_t due = interrupt_due(rank, node, step->world);
    char detail[ROW_DETAIL];

    if (due != 0 && due <= step->now) {
        snprintf(detail, sizeof(detail), "the owner of %s uses it", node->row.name);
        interrupt(step, rank,
                  &(struct cause){
                      .reason = ERR_OWNER_RECLAIMED, .class = FAIL_INTERRUPTION, .detail = detail});
        return;
    }
    due = stall_due(rank, step->policy);
    if (due != 0 && due <= step->now) {
        give_up(step, rank, node);
        return;
    }
    due = resend_due(rank, node, step->policy);
    if (due != 0 && due <= step->now)
        rank_demand(step, rank);
}

/* -- what nodes do to their ranks ---------------------------------------------------------------
 */

void rank_lose(struct step *step, struct rank *rank, const struct cause *cause)
{
    attempt_fail(step, rank->attempt, cause);
    rank_finish(step, rank, RANK_LOST, cause);
}

void rank_refresh_job(struct step *step, struct rank *rank, const struct cause *cause)
{
    (void)cause;
    job_refresh(step, rank->attempt->job);
}
