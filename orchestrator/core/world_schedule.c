/* The queue pass: waiting jobs against the fleet as it is, and the leases of who fits. */
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "common/pure/units.h"
#include "orchestrator/core/world_private.h"

/* -- the fleet as plain arrays ----------------------------------------------------------------- */

static void lower(char *out, size_t size, const char *text)
{
    size_t i = 0;

    for (; i + 1 < size && text[i] != '\0'; i++)
        out[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]);
    memset(out + i, 0, size - i);
}

/* What a lease reserves of its host: as asked, or the share of its devices. */
struct reserve {
    uint64_t cpu_milli;
    uint64_t memory_mib;
    uint64_t disk_mib;
};

static uint32_t count_devices(const struct node *node)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++)
        count += node->device[i] != NULL;
    return count;
}

/* A moment to look at; at 0 every live lease stands. */
struct moment {
    const struct policy *policy;
    usec_t at;
};

/* The live lease of a slot, unless it has ended by then at the latest. */
static uint64_t lease_at(const struct world *world, const struct slot *slot,
                         const struct moment *moment)
{
    if (slot->lease == 0 || moment->at == 0)
        return slot->lease;
    const struct lease *lease = table_get(&world->leases, slot->lease);
    const struct rank *rank = table_get(&world->ranks, lease->row.rank);
    usec_t end = attempt_latest_us(rank->attempt, moment->policy);
    return end != 0 && end <= moment->at ? 0 : slot->lease;
}

static void add_reserve(struct reserve *sum, const struct world *world, const struct node *node,
                        uint64_t lease_id)
{
    const struct lease *lease = table_get(&world->leases, lease_id);

    if (lease == NULL)
        return;
    const struct rank *rank = table_get(&world->ranks, lease->row.rank);
    const struct job_ask *ask = &rank->attempt->job->ask;
    uint64_t share = (uint64_t)node->row.memory_mib * lease->slot_count / count_devices(node);
    sum->cpu_milli += ask->cpu_milli;
    sum->memory_mib += ask->memory > 0 ? ask->memory / MIB : share;
    sum->disk_mib += ask->disk / MIB;
}

static struct reserve node_reserve(const struct world *world, const struct node *node,
                                   const struct moment *moment)
{
    struct reserve sum = {0};

    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        uint64_t lease =
            node->device[i] != NULL ? lease_at(world, node->device[i]->slot, moment) : 0;
        bool seen = lease == 0;
        for (uint32_t j = 0; j < i && !seen; j++)
            seen = node->device[j] != NULL && node->device[j]->slot->lease == lease;
        if (!seen)
            add_reserve(&sum, world, node, lease);
    }
    return sum;
}

static uint32_t rest(uint32_t whole, uint64_t used)
{
    return used >= whole ? 0 : whole - (uint32_t)used;
}

static uint32_t view_devices(struct place_device *devices, const struct world *world,
                             const struct node *node, const struct moment *moment)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        const struct device *device = node->device[i];
        if (device == NULL)
            continue;
        struct place_device *view = &devices[count++];
        view->slot = device->slot->row.id;
        view->class = device->row.class;
        lower(view->model, sizeof(view->model), device->row.model);
        view->nominal_mib = device->row.nominal_mib;
        view->measured_mib = device->row.measured_mib;
        view->tier = device->row.tier;
        view->offered = device->row.offered;
        view->busy = lease_at(world, device->slot, moment) != 0;
    }
    return count;
}

static void view_node(struct place_node *view, const struct world *world, const struct node *node,
                      usec_t now, const struct moment *moment)
{
    struct reserve used = node_reserve(world, node, moment);

    view->id = node->row.id;
    memcpy(view->name, node->row.name, sizeof(view->name));
    memcpy(view->region, node->row.region, sizeof(view->region));
    memcpy(view->country, node->row.country, sizeof(view->country));
    view->ready = node_placeable(node, now);
    view->price = node->row.price;
    view->cpu_milli = rest(node->row.cpu_milli, used.cpu_milli);
    view->memory_mib = rest(node->row.memory_mib, used.memory_mib);
    view->disk_mib = rest(node->row.disk_mib, used.disk_mib);
    view->images = strstr(node->row.runtime, SPEC_IMAGE_RUNTIME) != NULL;
}

static int compare_links(const void *left, const void *right)
{
    const struct place_link *a = left;
    const struct place_link *b = right;

    if (a->a != b->a)
        return a->a < b->a ? -1 : 1;
    return a->b < b->b ? -1 : a->b > b->b;
}

static uint32_t index_of(const struct fleet_view *view, uint64_t node)
{
    uint32_t low = 0;
    uint32_t high = view->fleet.node_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (view->nodes[middle].id < node)
            low = middle + 1;
        else
            high = middle;
    }
    return low < view->fleet.node_count && view->nodes[low].id == node ? low : UINT32_MAX;
}

static void view_links(struct fleet_view *view, const struct world *world, usec_t now,
                       const struct policy *policy)
{
    uint32_t count = 0;

    view->links = mem_new(world->pairs.count, sizeof(*view->links));
    for (uint32_t i = 0; i < world->pairs.count; i++) {
        const struct pair *pair = map_at(&world->pairs, i);
        uint32_t a = index_of(view, pair->row.a);
        uint32_t b = index_of(view, pair->row.b);
        if (a == UINT32_MAX || b == UINT32_MAX || !pair_is_known(pair, policy, now))
            continue;
        view->links[count++] = (struct place_link){
            .a = a,
            .b = b,
            .rtt_us = pair->row.rtt_p95_us,
            .reachable = pair->row.reach_ab && pair->row.reach_ba,
        };
    }
    qsort(view->links, count, sizeof(*view->links), compare_links);
    view->fleet.links = view->links;
    view->fleet.link_count = count;
}

void fleet_view_init(struct fleet_view *view, const struct world *world, usec_t now,
                     const struct policy *policy)
{
    fleet_view_init_at(view, world, now, policy, 0);
}

void fleet_view_init_at(struct fleet_view *view, const struct world *world, usec_t now,
                        const struct policy *policy, usec_t at)
{
    const struct moment moment = {policy, at};
    uint32_t device_count = 0;

    *view = (struct fleet_view){0};
    view->nodes = mem_new(world->nodes.count, sizeof(*view->nodes));
    view->node = mem_new(world->nodes.count, sizeof(void *));
    view->devices = mem_new(world->devices.count, sizeof(*view->devices));
    for (uint32_t i = 0; i < world->nodes.count; i++) {
        struct node *node = world->nodes.items[i];
        if (node->row.state == NODE_GONE)
            continue;
        struct place_node *place = &view->nodes[view->fleet.node_count];
        view_node(place, world, node, now, &moment);
        place->devices = &view->devices[device_count];
        place->device_count = view_devices(&view->devices[device_count], world, node, &moment);
        device_count += place->device_count;
        view->node[view->fleet.node_count++] = node;
    }
    view->fleet.nodes = view->nodes;
    view_links(view, world, now, policy);
}

void fleet_view_fini(struct fleet_view *view)
{
    free(view->nodes);
    free(view->devices);
    free(view->links);
    free(view->node);
    *view = (struct fleet_view){0};
}

/* -- granting --------------------------------------------------------------------------------- */

static uint64_t grant_rank(struct step *step, const struct attempt_row *attempt,
                           const struct node *node, uint32_t number)
{
    struct row row = {.kind = ROW_RANK,
                      .rank = {.id = step_id(step),
                               .attempt = attempt->id,
                               .rank = number,
                               .node = node->row.id,
                               .state = RANK_ASSIGNED,
                               .state_us = step->now}};
    step_emit(step, &row);
    return row.rank.id;
}

/* Unique as the attempt's is: rank numbers are the only thing that is mixed in. */
static struct uuid lease_uid(const struct uuid *attempt, uint32_t number)
{
    struct uuid uid = *attempt;

    uid.bytes[14] ^= (uint8_t)((number + 1) >> 8);
    uid.bytes[15] ^= (uint8_t)(number + 1);
    return uid;
}

static void grant_lease(struct step *step, const struct attempt_row *attempt,
                        const struct node *node, uint32_t number, const uint64_t *slots,
                        uint32_t slot_count)
{
    struct row row = {.kind = ROW_LEASE,
                      .lease = {.uid = lease_uid(&attempt->uid, number),
                                .attempt = attempt->id,
                                .rank = grant_rank(step, attempt, node, number),
                                .node = node->row.id,
                                .provider = node->row.provider,
                                .term = attempt->term,
                                .epoch = attempt->epoch,
                                .price = node->row.price * (micro_t)slot_count,
                                .fee_ppm = step->policy->fee_ppm,
                                .notice_s = node->row.notice_s,
                                .granted_us = step->now}};

    row.lease.id = step_id(step);
    step_emit(step, &row);
    for (uint32_t i = 0; i < slot_count; i++) {
        step_emit(step, &(struct row){
                            .kind = ROW_LEASE_SLOT,
                            .lease_slot = {.lease = row.lease.id, .slot = slots[i], .live = true}});
    }
}

static void mark_busy(struct fleet_view *view, const struct place_plan *plan, uint32_t slots)
{
    for (uint32_t i = 0; i < view->fleet.node_count; i++) {
        struct place_node *node = &view->nodes[i];
        for (uint32_t d = 0; d < node->device_count; d++) {
            struct place_device *device = &view->devices[&node->devices[d] - view->devices];
            for (uint32_t s = 0; s < slots; s++)
                device->busy = device->busy || device->slot == plan->slot[s];
        }
    }
}

static void refresh_view(struct fleet_view *view, const struct world *world,
                         const struct place_plan *plan, uint32_t slots, usec_t now)
{
    mark_busy(view, plan, slots);
    for (uint32_t i = 0; i < plan->nodes; i++) {
        uint32_t index = plan->node[i];
        view_node(&view->nodes[index], world, view->node[index], now, &(struct moment){0});
    }
}

static void grant(struct step *step, struct fleet_view *view, struct job *job,
                  const struct place_plan *plan, const struct why *why)
{
    uint32_t gpus = job->ask.gpus_per_node;
    struct row row = {.kind = ROW_ATTEMPT,
                      .attempt = {.id = step_id(step),
                                  .uid = step_uuid(step),
                                  .job = job->row.id,
                                  .term = step->term,
                                  .epoch = job->row.epoch + 1,
                                  .state = ATTEMPT_PREPARING,
                                  .then = JOB_QUEUED,
                                  .diameter_us = plan->diameter_us,
                                  .price = plan->price,
                                  .created_us = step->now}};

    step_emit(step, &row);
    for (uint32_t i = 0; i < plan->nodes; i++)
        grant_lease(step, &row.attempt, view->node[plan->node[i]], i, &plan->slot[(size_t)i * gpus],
                    gpus);
    struct row placed = {.kind = ROW_JOB, .job = job->row};
    placed.job.epoch = row.attempt.epoch;
    placed.job.attempts++;
    placed.job.attempt = row.attempt.id;
    placed.job.not_before_us = 0;
    placed.job.why = why;
    step_emit(step, &placed);
    job->retry_us = 0;
    job_move(step, job, JOB_PREPARING, &(struct cause){.detail = why->detail});
    for (uint32_t i = 0; i < job->attempt->rank_count; i++)
        rank_demand(step, job->attempt->rank[i]);
    refresh_view(view, step->world, plan, plan->nodes * gpus, step->now);
}

/* -- the pass --------------------------------------------------------------------------------- */

static int compare_jobs(const void *left, const void *right)
{
    const struct job *a = *(struct job *const *)left;
    const struct job *b = *(struct job *const *)right;

    if (a->ask.priority != b->ask.priority)
        return a->ask.priority > b->ask.priority ? -1 : 1;
    if (a->row.queued_us != b->row.queued_us)
        return a->row.queued_us < b->row.queued_us ? -1 : 1;
    return a->row.id < b->row.id ? -1 : a->row.id > b->row.id;
}

static bool waits(const struct job *job, const struct world *world, usec_t now)
{
    return job->row.state == JOB_QUEUED && job->tried != world->capacity
           && job->row.not_before_us <= now;
}

static uint32_t list_waiting(const struct world *world, usec_t now, struct job **list)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < world->jobs.count; i++) {
        struct job *job = world->jobs.items[i];
        if (waits(job, world, now))
            list[count++] = job;
    }
    qsort(list, count, sizeof(void *), compare_jobs);
    return count;
}

struct pass {
    struct step *step;
    struct fleet_view view;
    struct pair_list probes;
    const struct job *refused; /* last one: an equal ask gets the same answer without a search */
    struct why why;            /* its */
    enum err_code code;
};

static void want_probes(struct pass *pass, const struct place_probe *probes, uint32_t count)
{
    struct world *world = pass->step->world;
    usec_t now = pass->step->now;

    for (uint32_t i = 0; i < count; i++) {
        struct pair *pair =
            pair_need(world, pass->view.nodes[probes[i].a].id, pass->view.nodes[probes[i].b].id);
        if (pair->asked_us != 0 && pair->asked_us + pass->step->policy->resend_after_us > now)
            continue;
        pair->asked_us = now;
        pair_list_add(&pass->probes, pair);
    }
}

static bool same_ask(const struct job *a, const struct job *b)
{
    return a != NULL && strcmp(a->spec, b->spec) == 0;
}

static void refuse(struct pass *pass, struct job *job)
{
    job->tried = pass->step->world->capacity;
    job_wait(pass->step, job, pass->code, &pass->why);
}

static void try_job(struct pass *pass, struct job *job)
{
    struct place_plan plan;
    struct place_probe probes[PLACE_MAX_PROBES];
    uint32_t probe_count = 0;
    struct err err;

    int rc = place_solve(&pass->view.fleet, &job->ask, &plan, &pass->why, probes, &probe_count);
    if (rc < 0) {
        pass->code = (enum err_code) - rc;
        want_probes(pass, probes, probe_count);
        refuse(pass, job);
        pass->refused = job;
        return;
    }
    BUG_ON(place_check(&pass->view.fleet, &job->ask, &plan, &err) < 0);
    grant(pass->step, &pass->view, job, &plan, &pass->why);
}

/* The shell brings all that a decision needs; the interface is its one caller's. */
// NOLINTNEXTLINE(readability-function-size)
bool world_schedule(struct world *world, usec_t now, uint32_t term, const struct policy *policy,
                    uint32_t budget, const struct uuid *fresh, uint32_t fresh_count,
                    struct world_out *out)
{
    struct step step = {
        .world = world,
        .now = now,
        .term = term,
        .policy = policy,
        .out = out,
        .fresh = fresh,
        .fresh_count = fresh_count,
        .first_id = world->next_id,
        .first_row = out->row_count,
    };
    struct pass pass = {.step = &step};
    struct job **list = mem_new(world->jobs.count, sizeof(void *));
    uint32_t count = list_waiting(world, now, list);
    uint32_t i = 0;

    BUG_ON(now < world->now_us);
    if (count > 0)
        fleet_view_init(&pass.view, world, now, policy);
    for (; i < count && budget > 0 && step.fresh_count > 0; i++) {
        if (same_ask(pass.refused, list[i])) {
            refuse(&pass, list[i]);
            continue;
        }
        budget--;
        try_job(&pass, list[i]);
    }
    probe_pairs(&step, &pass.probes);
    fleet_view_fini(&pass.view);
    free(list);
    step_close(&step);
    return i < count && fresh_count > 0;
}
