/* The fold: rows into nouns and their indexes. Nothing here decides. */
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "orchestrator/core/world_private.h"

/* -- parties --------------------------------------------------------------------------------- */

static void apply_project(struct world *world, const struct project_row *row)
{
    struct project *project = table_get(&world->projects, row->id);

    if (project == NULL) {
        project = mem_new(1, sizeof(*project));
        project->row = *row;
        table_put(&world->projects, project);
    }
    project->row = *row;
}

/* Nouns that are nothing but their row. */
static void *apply_plain(struct table *table, const void *row, uint64_t id, size_t size)
{
    void *item = table_get(table, id);

    if (item == NULL) {
        item = mem_new(1, size);
        memcpy(item, row, size);
        table_put(table, item);
    }
    memcpy(item, row, size);
    return item;
}

static void apply_token(struct world *world, const struct token_row *row)
{
    struct token_row *token = apply_plain(&world->tokens, row, row->id, sizeof(*row));

    map_put(&world->token_by_hash, token->hash, sizeof(token->hash), token);
    map_put(&world->token_by_uid, &token->uid, sizeof(token->uid), token);
}

static void apply_join_token(struct world *world, const struct join_token_row *row)
{
    struct join_token_row *token = apply_plain(&world->join_tokens, row, row->id, sizeof(*row));

    map_put(&world->join_by_hash, token->hash, sizeof(token->hash), token);
}

/* Assets are at most 7 characters, so that the whole key fits. */
struct account_key {
    uint64_t project;
    uint64_t provider;
    uint64_t purpose;
    char asset[SPEC_CURRENCY_TEXT];
};

static struct account_key account_key(uint64_t project, uint64_t provider,
                                      enum account_purpose purpose, const char *asset)
{
    struct account_key key;

    memset(&key, 0, sizeof(key));
    key.project = project;
    key.provider = provider;
    key.purpose = purpose;
    for (size_t i = 0; i + 1 < sizeof(key.asset) && asset[i] != '\0'; i++)
        key.asset[i] = asset[i];
    return key;
}

static void apply_account(struct world *world, const struct account_row *row)
{
    struct account_row *account = apply_plain(&world->accounts, row, row->id, sizeof(*row));
    struct account_key key = account_key(row->project, row->provider, row->purpose, row->asset);

    map_put(&world->account_by_owner, &key, sizeof(key), account);
}

const struct account_row *account_find(const struct world *world, uint64_t project,
                                       uint64_t provider, enum account_purpose purpose,
                                       const char *asset)
{
    struct account_key key = account_key(project, provider, purpose, asset);

    return map_get(&world->account_by_owner, &key, sizeof(key));
}

/* -- hardware -------------------------------------------------------------------------------- */

static void apply_node(struct world *world, const struct node_row *row)
{
    struct node *node = table_get(&world->nodes, row->id);

    if (node == NULL) {
        node = mem_new(1, sizeof(*node));
        node->row = *row;
        table_put(&world->nodes, node);
        map_put(&world->node_by_uid, &node->row.uid, sizeof(node->row.uid), node);
    }
    node->row = *row;
    if (row->state != NODE_GONE) {
        map_put(&world->node_by_curve, row->curve_key, sizeof(row->curve_key), node);
        map_put(&world->node_by_machine, row->machine, sizeof(row->machine), node);
        return;
    }
    if (map_get(&world->node_by_curve, row->curve_key, sizeof(row->curve_key)) == node)
        map_remove(&world->node_by_curve, row->curve_key, sizeof(row->curve_key));
    if (map_get(&world->node_by_machine, row->machine, sizeof(row->machine)) == node)
        map_remove(&world->node_by_machine, row->machine, sizeof(row->machine));
}

static void apply_device(struct world *world, const struct device_row *row)
{
    struct device *device = table_get(&world->devices, row->id);
    struct node *node = table_get(&world->nodes, row->node);

    BUG_ON(node == NULL || row->ordinal >= CLAIM_MAX_DEVICES);
    if (device == NULL) {
        device = mem_new(1, sizeof(*device));
        device->row = *row;
        table_put(&world->devices, device);
        node->device[row->ordinal] = device;
    }
    device->row = *row;
}

static void apply_slot(struct world *world, const struct slot_row *row)
{
    struct slot *slot = table_get(&world->slots, row->id);

    if (slot == NULL) {
        slot = mem_new(1, sizeof(*slot));
        slot->row = *row;
        slot->device = table_get(&world->devices, row->device);
        BUG_ON(slot->device == NULL);
        slot->device->slot = slot;
        table_put(&world->slots, slot);
    }
    slot->row = *row;
}

struct pair *pair_get(const struct world *world, uint64_t a, uint64_t b)
{
    uint64_t key[2] = {a < b ? a : b, a < b ? b : a};

    return map_get(&world->pairs, key, sizeof(key));
}

struct pair *pair_need(struct world *world, uint64_t a, uint64_t b)
{
    struct pair *pair = pair_get(world, a, b);
    uint64_t key[2] = {a < b ? a : b, a < b ? b : a};

    if (pair != NULL)
        return pair;
    pair = mem_new(1, sizeof(*pair));
    pair->row.a = key[0];
    pair->row.b = key[1];
    map_put(&world->pairs, key, sizeof(key), pair);
    return pair;
}

/* A row that comes from the store was heard from both ends at some time. */
static void apply_link(struct world *world, const struct link_row *row)
{
    struct pair *pair = pair_need(world, row->a, row->b);

    if (!pair->measured && !pair->side[0].known && !pair->side[1].known) {
        pair->side[0].known = true;
        pair->side[1].known = true;
    }
    pair->measured = true;
    pair->row = *row;
}

/* -- jobs ------------------------------------------------------------------------------------ */

static void job_free(void *item)
{
    struct job *job = item;

    free(job->spec);
    free(job->why);
    free(job);
}

static void remember_ended(struct world *world, const struct job_row *row)
{
    if (world->ended == NULL)
        world->ended = mem_new(WORLD_ENDED_MAX, sizeof(*world->ended));
    struct ended *ended = &world->ended[world->ended_next];
    if (ended->project != 0)
        map_remove(&world->ended_by_uid, &ended->uid, sizeof(ended->uid));
    *ended = (struct ended){row->uid, row->project};
    map_put(&world->ended_by_uid, &ended->uid, sizeof(ended->uid), ended);
    world->ended_next = (world->ended_next + 1) % WORLD_ENDED_MAX;
    world->ended_by_state[row->state]++;
}

static void job_copy(struct job *job, const struct job_row *row)
{
    job->row = *row;
    if (row->ask != NULL && row->ask != &job->ask)
        job->ask = *row->ask;
    job->row.ask = &job->ask;
    if (row->spec != NULL && row->spec != job->spec) {
        free(job->spec);
        job->spec = mem_strdup(row->spec);
    }
    job->row.spec = job->spec;
    if (row->why == NULL) {
        free(job->why);
        job->why = NULL;
    } else if (row->why != job->why) {
        if (job->why == NULL)
            job->why = mem_new(1, sizeof(*job->why));
        *job->why = *row->why;
    }
    job->row.why = job->why;
}

static void apply_job(struct world *world, const struct job_row *row)
{
    struct job *job = table_get(&world->jobs, row->id);
    struct project *project = table_get(&world->projects, row->project);

    BUG_ON(project == NULL);
    if (job_state_is_final(row->state)) {
        if (job == NULL)
            return;
        BUG_ON(job->attempt != NULL);
        remember_ended(world, row);
        table_remove(&world->jobs, row->id);
        map_remove(&world->job_by_uid, &row->uid, sizeof(row->uid));
        project->live_jobs--;
        job_free(job);
        return;
    }
    if (job == NULL) {
        job = mem_new(1, sizeof(*job));
        job->row.id = row->id;
        table_put(&world->jobs, job);
        map_put(&world->job_by_uid, &row->uid, sizeof(row->uid), job);
        project->live_jobs++;
    }
    job_copy(job, row);
}

/* Attempt, rank, hash of the path. */
struct output_key {
    uint64_t attempt;
    uint64_t rank;
    uint64_t path;
};

static struct output_key output_key(uint64_t attempt, uint32_t rank, const char *path)
{
    struct output_key key = {attempt, rank, 14695981039346656037u};

    for (const unsigned char *at = (const unsigned char *)path; *at != '\0'; at++)
        key.path = (key.path ^ *at) * 1099511628211u;
    return key;
}

const struct job_output_row *output_find(const struct world *world,
                                         const struct job_output_row *like)
{
    struct output_key key = output_key(like->attempt, like->rank, like->path);

    return map_get(&world->outputs, &key, sizeof(key));
}

/* O(outputs of live attempts): stored once per output folder of a rank. */
uint32_t output_count(const struct world *world, uint64_t attempt, uint32_t rank)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < world->outputs.count; i++) {
        const struct job_output_row *output = map_at(&world->outputs, i);
        count += output->attempt == attempt && output->rank == rank;
    }
    return count;
}

static void forget_outputs(struct world *world, uint64_t attempt)
{
    uint32_t i = 0;

    while (i < world->outputs.count) {
        struct job_output_row *output = map_at(&world->outputs, i);
        struct output_key key = output_key(output->attempt, output->rank, output->path);
        if (output->attempt == attempt) {
            map_remove(&world->outputs, &key, sizeof(key));
            free(output);
        } else {
            i++;
        }
    }
}

static void rank_drop(struct world *world, struct rank *rank)
{
    if (rank->lease != NULL) {
        table_remove(&world->leases, rank->lease->row.id);
        free(rank->lease);
    }
    table_remove(&world->ranks, rank->row.id);
    free(rank);
}

static void attempt_drop(struct world *world, struct attempt *attempt)
{
    for (uint32_t i = 0; i < SPEC_MAX_NODES; i++) {
        if (attempt->rank[i] != NULL)
            rank_drop(world, attempt->rank[i]);
    }
    forget_outputs(world, attempt->row.id);
    attempt->job->attempt = NULL;
    map_remove(&world->attempt_by_uid, &attempt->row.uid, sizeof(attempt->row.uid));
    table_remove(&world->attempts, attempt->row.id);
    free(attempt);
}

static void apply_attempt(struct world *world, const struct attempt_row *row)
{
    struct attempt *attempt = table_get(&world->attempts, row->id);

    if (row->state == ATTEMPT_ENDED) {
        if (attempt != NULL)
            attempt_drop(world, attempt);
        return;
    }
    if (attempt == NULL) {
        struct job *job = table_get(&world->jobs, row->job);
        BUG_ON(job == NULL || job->attempt != NULL);
        attempt = mem_new(1, sizeof(*attempt));
        attempt->row = *row;
        attempt->job = job;
        job->attempt = attempt;
        table_put(&world->attempts, attempt);
        map_put(&world->attempt_by_uid, &row->uid, sizeof(row->uid), attempt);
    }
    attempt->row = *row;
}

static void remember_ghost(struct world *world, const struct rank *rank)
{
    struct node *node = table_get(&world->nodes, rank->row.node);
    const struct attempt_row *attempt = &rank->attempt->row;

    if (node->ghost_count == WORLD_GHOSTS) {
        memmove(node->ghost, node->ghost + 1, sizeof(node->ghost) - sizeof(node->ghost[0]));
        node->ghost_count--;
    }
    node->ghost[node->ghost_count++] =
        (struct ghost){attempt->id, attempt->term, attempt->epoch, rank->row.rank};
}

static void apply_rank(struct world *world, const struct rank_row *row)
{
    struct rank *rank = table_get(&world->ranks, row->id);
    struct attempt *attempt = table_get(&world->attempts, row->attempt);

    if (attempt == NULL) /* of an ended attempt: history */
        return;
    BUG_ON(row->rank >= SPEC_MAX_NODES);
    if (rank == NULL) {
        rank = mem_new(1, sizeof(*rank));
        rank->row = *row;
        rank->attempt = attempt;
        attempt->rank[row->rank] = rank;
        attempt->rank_count++;
        table_put(&world->ranks, rank);
    }
    bool lost = row->state == RANK_LOST && rank->row.state != RANK_LOST;
    rank->row = *row;
    if (lost)
        remember_ghost(world, rank);
}

static void apply_lease(struct world *world, const struct lease_row *row)
{
    struct lease *lease = table_get(&world->leases, row->id);
    struct rank *rank = table_get(&world->ranks, row->rank);

    if (rank == NULL)
        return;
    if (lease == NULL) {
        lease = mem_new(1, sizeof(*lease));
        lease->row = *row;
        rank->lease = lease;
        table_put(&world->leases, lease);
    }
    lease->row = *row;
}

static void apply_lease_slot(struct world *world, const struct lease_slot_row *row)
{
    struct lease *lease = table_get(&world->leases, row->lease);
    struct slot *slot = table_get(&world->slots, row->slot);
    bool listed = false;

    if (slot == NULL)
        return;
    if (!row->live) {
        if (slot->lease == row->lease)
            slot->lease = 0;
    } else {
        BUG_ON(slot->lease != 0 && slot->lease != row->lease);
        slot->lease = row->lease;
    }
    if (lease == NULL)
        return;
    for (uint32_t i = 0; i < lease->slot_count; i++)
        listed = listed || lease->slot[i] == row->slot;
    if (!listed) {
        BUG_ON(lease->slot_count == SPEC_MAX_GPUS_PER_NODE);
        lease->slot[lease->slot_count++] = row->slot;
    }
}

/* -- the rest -------------------------------------------------------------------------------- */

static void apply_content(struct world *world, const struct content_row *row)
{
    struct project *project = table_get(&world->projects, row->project);

    BUG_ON(project == NULL);
    struct content_row *content = map_get(&project->contents, row->sha256, sizeof(row->sha256));
    if (content == NULL) {
        content = mem_new(1, sizeof(*content));
        map_put(&project->contents, row->sha256, sizeof(row->sha256), content);
    }
    *content = *row;
}

static void apply_output(struct world *world, const struct job_output_row *row)
{
    struct output_key key = output_key(row->attempt, row->rank, row->path);
    struct job_output_row *output = map_get(&world->outputs, &key, sizeof(key));

    if (table_get(&world->attempts, row->attempt) == NULL)
        return;
    if (output == NULL) {
        output = mem_new(1, sizeof(*output));
        map_put(&world->outputs, &key, sizeof(key), output);
    }
    *output = *row;
}

/* Only the number counts: what was taken once is not taken again. */
static void apply_receipt(struct world *world, const struct receipt_row *row)
{
    struct node *node = table_get(&world->nodes, row->node);

    if (node != NULL && node->receipt_seq < row->seq)
        node->receipt_seq = row->seq;
}

static void apply_idem(struct world *world, const struct idem_row *row)
{
    struct row_key key = row_key(&(struct row){.kind = ROW_IDEM, .idem = *row});

    if (world->idem == NULL)
        world->idem = mem_new(WORLD_IDEM_MAX, sizeof(*world->idem));
    struct idem_row *place = &world->idem[world->idem_next];
    if (place->key[0] != '\0') {
        struct row_key old = row_key(&(struct row){.kind = ROW_IDEM, .idem = *place});
        if (map_get(&world->idem_by_key, &old, sizeof(old)) == place)
            map_remove(&world->idem_by_key, &old, sizeof(old));
    }
    *place = *row;
    map_put(&world->idem_by_key, &key, sizeof(key), place);
    world->idem_next = (world->idem_next + 1) % WORLD_IDEM_MAX;
}

static void apply_work(struct world *world, const struct row *row)
{
    switch ((int)row->kind) {
    case ROW_JOB:
        apply_job(world, &row->job);
        break;
    case ROW_ATTEMPT:
        apply_attempt(world, &row->attempt);
        break;
    case ROW_RANK:
        apply_rank(world, &row->rank);
        break;
    case ROW_LEASE:
        apply_lease(world, &row->lease);
        break;
    case ROW_LEASE_SLOT:
        apply_lease_slot(world, &row->lease_slot);
        break;
    case ROW_CONTENT:
        apply_content(world, &row->content);
        break;
    case ROW_JOB_OUTPUT:
        apply_output(world, &row->job_output);
        break;
    case ROW_RECEIPT:
        apply_receipt(world, &row->receipt);
        break;
    case ROW_IDEM:
        apply_idem(world, &row->idem);
        break;
    default: /* the other append-only kinds are history: the world keeps none */
        break;
    }
}

void world_apply(struct world *world, const struct row *row)
{
    switch ((int)row->kind) {
    case ROW_CONTROL:
        world->next_id = row->control.next_id;
        world->now_us = row->control.now_us;
        break;
    case ROW_PROJECT:
        apply_project(world, &row->project);
        break;
    case ROW_PROVIDER:
        apply_plain(&world->providers, &row->provider, row->provider.id, sizeof(row->provider));
        break;
    case ROW_USER:
        apply_plain(&world->users, &row->user, row->user.id, sizeof(row->user));
        break;
    case ROW_TOKEN:
        apply_token(world, &row->token);
        break;
    case ROW_JOIN_TOKEN:
        apply_join_token(world, &row->join_token);
        break;
    case ROW_ACCOUNT:
        apply_account(world, &row->account);
        break;
    case ROW_NODE:
        apply_node(world, &row->node);
        break;
    case ROW_DEVICE:
        apply_device(world, &row->device);
        break;
    case ROW_SLOT:
        apply_slot(world, &row->slot);
        break;
    case ROW_LINK:
        apply_link(world, &row->link);
        break;
    default:
        apply_work(world, row);
        break;
    }
}

/* -- life ------------------------------------------------------------------------------------ */

struct world *world_new(void)
{
    struct world *world = mem_new(1, sizeof(*world));

    world->next_id = 1;
    world->capacity = 1;
    return world;
}

static void project_free(void *item)
{
    struct project *project = item;

    for (uint32_t i = 0; i < project->contents.count; i++)
        free(map_at(&project->contents, i));
    map_fini(&project->contents);
    free(project);
}

static void free_values(struct map *map)
{
    for (uint32_t i = 0; i < map->count; i++)
        free(map_at(map, i));
    map_fini(map);
}

void world_free(struct world *world)
{
    if (world == NULL)
        return;
    struct map *maps[] = {&world->token_by_hash,  &world->join_by_hash,     &world->token_by_uid,
                          &world->node_by_uid,    &world->account_by_owner, &world->node_by_curve,
                          &world->job_by_uid,     &world->node_by_machine,  &world->idem_by_key,
                          &world->attempt_by_uid, &world->ended_by_uid};
    for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
        map_fini(maps[i]);
    free_values(&world->pairs);
    free_values(&world->outputs);
    table_fini(&world->projects, project_free);
    table_fini(&world->jobs, job_free);
    struct table *plain[] = {&world->providers, &world->users, &world->tokens,  &world->join_tokens,
                             &world->accounts,  &world->nodes, &world->devices, &world->slots,
                             &world->attempts,  &world->ranks, &world->leases};
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
        table_fini(plain[i], free);
    free(world->idem);
    free(world->ended);
    free(world);
}
