/*
 * The wire between workers and orchestrator, as ZeroMQ over TCP gives it: what one connection
 * carries arrives in order, and what is lost is its tail, with the connection. What the product
 * does not count on arriving (orders, acknowledgements, heartbeats, link reports) may also be lost,
 * doubled and overtaken one by one, as a full queue or a repeat would do.
 */
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "tests/sim/sim_private.h"

/* A double may come this much later: an order outlives it only within its five minutes. */
#define DOUBLE_LATE_US (90 * SIM_SECOND)

struct msg *msg_new(enum msg_kind kind, uint32_t node)
{
    struct msg *msg = mem_new(1, sizeof(*msg));

    msg->kind = kind;
    msg->node = node;
    return msg;
}

static usec_t delay(struct sim *sim)
{
    return chance_span(sim, 200, sim->quiet ? 2 * SIM_MS : sim->weather.delay_us);
}

/* -- to the orchestrator -------------------------------------------------------------------------
 */

static void arrive_at_hub(struct sim *sim, const struct call *call)
{
    struct worker *worker = &sim->worker[call->node];
    const struct msg *msg = call->msg;
    bool old = msg->peer == worker->cut_peer && sim->now <= worker->cut_us;

    if (sim->hub.up && sim->hub.generation == call->generation && !worker->cut
        && (msg->peer == worker->peer || old))
        hub_receive(sim, msg);
    else
        sim->counters.dropped++;
    free(call->msg);
}

static void send_up(struct sim *sim, struct worker *worker, struct msg *msg, bool ordered,
                    usec_t extra)
{
    usec_t at = sim->now + delay(sim) + extra;

    if (ordered) {
        at = at > worker->fifo_up_us ? at : worker->fifo_up_us;
        worker->fifo_up_us = at;
    }
    sim_after(sim, at - sim->now,
              (struct call){.run = arrive_at_hub,
                            .node = worker->index,
                            .generation = sim->hub.generation,
                            .msg = msg});
}

void net_to_hub(struct sim *sim, struct worker *worker, struct msg *msg)
{
    bool solid = msg->seq != 0 || msg->kind == MSG_HELLO;

    msg->peer = worker->peer;
    msg->nonce = worker->nonce;
    msg->sent_us = sim->now;
    if (!sim->quiet && chance_ppm(sim, sim->weather.double_ppm)) {
        struct msg *again = (struct msg *)mem_dup(msg, sizeof(*msg));
        sim->counters.doubled++;
        send_up(sim, worker, msg, true, 0);
        /* Behind the first, or it would overtake what the first may not. */
        send_up(sim, worker, again, true, 0);
        return;
    }
    if (!sim->quiet && !solid && chance_ppm(sim, sim->weather.drop_ppm)) {
        sim->counters.dropped++;
        free(msg);
        return;
    }
    send_up(sim, worker, msg, solid || sim->quiet || !chance_ppm(sim, sim->weather.reorder_ppm), 0);
}

/* -- to a worker ---------------------------------------------------------------------------------
 */

static void arrive_at_worker(struct sim *sim, const struct call *call)
{
    struct worker *worker = &sim->worker[call->node];

    if (worker->up && !worker->cut && call->msg->peer == worker->peer)
        worker_receive(sim, worker, call->msg);
    else
        sim->counters.dropped++;
    free(call->msg);
}

static void send_down(struct sim *sim, struct worker *worker, struct msg *msg, bool ordered,
                      usec_t extra)
{
    usec_t at = sim->now + delay(sim) + extra;

    if (ordered) {
        at = at > worker->fifo_down_us ? at : worker->fifo_down_us;
        worker->fifo_down_us = at;
    }
    sim_after(sim, at - sim->now,
              (struct call){.run = arrive_at_worker, .node = worker->index, .msg = msg});
}

void net_to_worker(struct sim *sim, struct worker *worker, struct msg *msg)
{
    msg->sent_us = sim->now;
    if (sim->quiet) {
        send_down(sim, worker, msg, true, 0);
        return;
    }
    if (chance_ppm(sim, sim->weather.double_ppm)) {
        struct msg *again = (struct msg *)mem_dup(msg, sizeof(*msg));
        sim->counters.doubled++;
        send_down(sim, worker, again, false,
                  chance(sim, 2) == 0 ? 0 : chance_span(sim, 0, DOUBLE_LATE_US));
    }
    if (chance_ppm(sim, sim->weather.drop_ppm)) {
        sim->counters.dropped++;
        free(msg);
        return;
    }
    send_down(sim, worker, msg, !chance_ppm(sim, sim->weather.reorder_ppm), 0);
}

void net_break(struct sim *sim, struct worker *worker)
{
    worker->cut_peer = worker->peer;
    worker->cut_us = sim->now + chance_span(sim, 0, 200 * SIM_MS);
    worker->broken_us = sim->now;
    worker->peer = ++sim->numbers;
    worker->fifo_up_us = 0;
    worker->fifo_down_us = 0;
    sim->counters.breaks++;
    sim_note(sim, "break", worker->index, 0, 0, 0);
}
