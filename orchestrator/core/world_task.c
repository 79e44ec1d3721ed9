/* News of ranks, as their workers tell it. Everything here may come twice, late or never. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/core/world_private.h"

static struct rank *find_rank(const struct world *world, const struct ev_task *task)
{
    const struct attempt *attempt = table_get(&world->attempts, task->attempt);

    if (attempt == NULL || attempt->row.term != task->term || attempt->row.epoch != task->epoch
        || task->rank >= attempt->rank_count)
        return NULL;
    struct rank *rank = attempt->rank[task->rank];
    return rank->row.node == task->node ? rank : NULL;
}

/* A worker may blame everybody but the platform, which would be a refund on its word. */
static enum fail_class class_told(const struct ev_task *task, enum fail_class fallback)
{
    if (task->class == FAIL_NONE || task->class >= FAIL_CLASS_COUNT)
        return fallback;
    return task->class == FAIL_PLATFORM ? FAIL_PROVIDER : task->class;
}

static struct cause exit_cause(const struct step *step, const struct rank *rank,
                               const struct ev_task *task, char detail[ROW_DETAIL])
{
    const struct node *node = table_get(&step->world->nodes, rank->row.node);
    struct cause cause = {.reason = ERR_COMPLETED, .exit_code = task->exit_code, .detail = detail};

    detail[0] = '\0';
    if (task->exit_code == 0 && task->class == FAIL_NONE)
        return cause;
    cause.class = class_told(task, FAIL_USER);
    cause.reason = task->reason != ERR_NONE ? task->reason : ERR_RANK_FAILED;
    snprintf(detail, ROW_DETAIL, "rank %u on %s exited with %d%s%.100s", rank->row.rank,
             node->row.name, task->exit_code, task->detail && task->detail[0] ? ": " : "",
             task->detail ? task->detail : "");
    return cause;
}

static void exited(struct step *step, struct rank *rank, const struct ev_task *task)
{
    struct attempt *attempt = rank->attempt;
    char detail[ROW_DETAIL];
    struct cause cause = exit_cause(step, rank, task, detail);
    struct cause told = cause;

    if (rank->row.state >= RANK_EXITED)
        return;
    /* A rank that was told to stop reports how it died; that is no failure of its own. */
    if (attempt->row.state == ATTEMPT_STOPPING) {
        told.reason = ERR_GANG_STOPPED;
        told.class = FAIL_NONE;
    }
    rank_exit(step, rank, &told);
    if (attempt->row.state != ATTEMPT_STOPPING && cause.class != FAIL_NONE)
        attempt_fail(step, attempt, &cause);
    if (class_pays(attempt->row.class))
        lease_settle(step, rank->lease);
}

static void refused(struct step *step, struct rank *rank, const struct ev_task *task)
{
    const struct node *node = table_get(&step->world->nodes, rank->row.node);
    char detail[ROW_DETAIL];
    struct cause cause = {
        .reason = task->reason != ERR_NONE ? task->reason : ERR_NODE_REFUSED,
        .class = class_told(task, FAIL_CAPACITY),
        .detail = detail,
    };

    snprintf(detail, sizeof(detail), "rank %u on %s: %.150s", rank->row.rank, node->row.name,
             task->detail ? task->detail : "");
    node_fault(step, node->row.id, cause.class);
    attempt_fail(step, rank->attempt, &cause);
    rank_finish(step, rank, RANK_DONE, &cause);
}

static void forward(struct step *step, struct rank *rank, enum rank_state to, uint32_t port)
{
    if (rank->row.state >= to)
        return;
    if (port != 0 && port <= UINT16_MAX) {
        struct row row = {.kind = ROW_RANK, .rank = rank->row};
        row.rank.port = port;
        step_emit(step, &row);
    }
    rank_move(step, rank, to, NULL);
}

/* The program ended well, but what it was run for did not arrive: a failure with its own reason. */
static void lose_output(struct step *step, struct rank *rank, const struct ev_task *task)
{
    const struct node *node = table_get(&step->world->nodes, rank->row.node);
    struct attempt *attempt = rank->attempt;
    char detail[ROW_DETAIL];
    struct cause cause = {
        .reason = ERR_OUTPUT_LOST, .class = class_told(task, FAIL_PROVIDER), .detail = detail};

    snprintf(detail, sizeof(detail), "rank %u on %s: %.150s", rank->row.rank, node->row.name,
             task->detail ? task->detail : "");
    node_fault(step, node->row.id, cause.class);
    attempt_fail(step, attempt, &cause);
    rank_finish(step, rank, RANK_DONE, &cause);
}

static bool is_output_lost(const struct rank *rank, const struct ev_task *task)
{
    return rank->row.state == RANK_EXITED && rank->row.class == FAIL_NONE
           && rank->row.exit_code == 0 && task->class != FAIL_NONE && task->exit_code == 0;
}

static void done(struct step *step, struct rank *rank, const struct ev_task *task)
{
    struct attempt *attempt = rank->attempt;
    bool was_running = rank->row.state == RANK_STARTED || task->exit_code != 0;

    if (is_output_lost(rank, task)) {
        lose_output(step, rank, task);
        return;
    }
    if (rank->row.state < RANK_EXITED && (was_running || attempt->row.state != ATTEMPT_STOPPING))
        exited(step, rank, task);
    char detail[ROW_DETAIL]; /* the row it stands in is replaced by rank_finish */
    snprintf(detail, sizeof(detail), "%s", rank->row.detail);
    rank_finish(step, rank, RANK_DONE,
                &(struct cause){
                    .reason = rank->row.reason != ERR_NONE ? rank->row.reason : attempt->row.reason,
                    .class = rank->row.class,
                    .exit_code = rank->row.exit_code,
                    .detail = detail,
                });
}

void task_news(struct step *step, const struct ev_task *task)
{
    const struct ghost stale = {task->attempt, task->term, task->epoch, task->rank};
    struct rank *rank = find_rank(step->world, task);

    if (rank == NULL || rank_is_final(rank)) {
        order_forget(step, task->node, &stale, ERR_WIRE_FENCE);
        return;
    }
    struct attempt *attempt = rank->attempt;
    switch (task->news) {
    case TASK_PREPARING:
        forward(step, rank, RANK_PREPARING, 0);
        break;
    case TASK_PROGRESS:
        rank->progress_us = step->now;
        forward(step, rank, RANK_PREPARING, 0);
        break;
    case TASK_READY:
        forward(step, rank, RANK_READY, task->port);
        break;
    case TASK_STARTED:
        forward(step, rank, RANK_STARTED, 0);
        break;
    case TASK_EXITED:
        exited(step, rank, task);
        break;
    case TASK_DONE:
        done(step, rank, task);
        break;
    case TASK_REFUSED:
        if (rank->row.state < RANK_STARTED)
            refused(step, rank, task);
        break;
    case TASK_NEWS_COUNT:
    default:
        break;
    }
    attempt_advance(step, attempt);
}

/* -- receipts -------------------------------------------------------------------------------- */

/* The rank that a line is about; NULL when that one has ended or is another node's. */
static struct rank *find_metered(const struct world *world, const struct ev_receipt *receipt,
                                 const struct ghost *task)
{
    const struct attempt *attempt = table_get(&world->attempts, task->attempt);

    if (attempt == NULL || attempt->row.term != task->term || attempt->row.epoch != task->epoch)
        return NULL;
    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        struct rank *rank = attempt->rank[i];
        if (rank->row.node == receipt->node && !rank_is_final(rank))
            return rank;
    }
    return NULL;
}

static void take_line(struct step *step, const struct ev_receipt *receipt, uint32_t index)
{
    const struct ghost task = {receipt->line[index].attempt, receipt->line[index].term,
                               receipt->line[index].epoch, receipt->line[index].rank};
    struct rank *rank = find_metered(step->world, receipt, &task);

    if (rank == NULL) { /* it still holds what has ended: an order to forget was lost */
        order_forget(step, receipt->node, &task, ERR_WIRE_FENCE);
        return;
    }
    struct lease *lease = rank->lease;
    if (receipt->line[index].used_ms <= lease->row.receipt_ms)
        return;
    struct row row = {.kind = ROW_LEASE, .lease = lease->row};
    row.lease.receipt_ms = receipt->line[index].used_ms;
    step_emit(step, &row);
    /* The last receipt of a rank may come after its exit. */
    if (lease->row.meter_to_us != 0 && class_pays(rank->attempt->row.class))
        lease_settle(step, lease);
}

void task_receipt(struct step *step, const struct ev_receipt *receipt)
{
    const struct node *node = table_get(&step->world->nodes, receipt->node);

    if (node == NULL || receipt->seq <= node->receipt_seq)
        return;
    struct row row = {.kind = ROW_RECEIPT,
                      .receipt = {.id = step_id(step),
                                  .node = receipt->node,
                                  .seq = receipt->seq,
                                  .at_us = step->now,
                                  .bytes = receipt->bytes,
                                  .bytes_length = receipt->bytes_length}};
    memcpy(row.receipt.signature, receipt->signature, sizeof(row.receipt.signature));
    step_emit(step, &row);
    for (uint32_t i = 0; i < receipt->line_count && i < HELLO_MAX_TASKS; i++)
        take_line(step, receipt, i);
}
