#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/buf.h"
#include "common/pure/nearest.h"
#include "common/pure/units.h"
#include "orchestrator/core/place_private.h"

/* "12.4 ms", "380 us", rounded up: what is named as a limit must suffice. */
#define MS_TEXT 24
static char *format_ms(uint64_t us, char out[MS_TEXT])
{
    uint64_t tenths = (us + 99) / 100;

    if (us < 1000)
        snprintf(out, MS_TEXT, "%" PRIu64 " us", us);
    else
        snprintf(out, MS_TEXT, "%" PRIu64 ".%" PRIu64 " ms", tenths / 10, tenths % 10);
    return out;
}

static const struct place_node *member_node(const struct place_pool *pool,
                                            const struct place_gang *gang, uint32_t i)
{
    return &pool->fleet->nodes[pool->node[gang->member[i]]];
}

void place_why_detail(struct why *why)
{
    static const struct {
        enum funnel_step step;
        const char *text;
    } parts[] = {
        {FUNNEL_READY, "ready"},
        {FUNNEL_PLACE, "in an allowed place"},
        {FUNNEL_MODEL, "with the device"},
        {FUNNEL_MEMORY, "with the memory"},
        {FUNNEL_HOST, "with the host"},
        {FUNNEL_PRICE, "under the price"},
        {FUNNEL_FREE, "free"},
    };
    struct buf text;

    buf_init(&text, sizeof(why->detail));
    buf_printf(&text, "%u nodes", why->funnel[FUNNEL_KNOWN]);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        uint32_t count = why->funnel[parts[i].step];
        /* A step that removes nobody says nothing; the first one is always named. */
        if (i == 0 || count != why->funnel[parts[i].step - 1])
            buf_printf(&text, " -> %u %s", count, parts[i].text);
    }
    if (why->asked > 1 && why->funnel[FUNNEL_FREE] > 0)
        buf_printf(&text, " -> largest group near enough is %u of %u", why->largest_clique,
                   why->asked);
    snprintf(why->detail, sizeof(why->detail), "%s", text.data);
    buf_fini(&text);
}

/* -- pairs ----------------------------------------------------------------------------------- */

static int compare_pairs(const void *left, const void *right)
{
    const struct why_pair *a = left;
    const struct why_pair *b = right;

    if (a->rtt_us != b->rtt_us)
        return a->rtt_us > b->rtt_us ? -1 : 1;
    int order = strcmp(a->a, b->a);
    return order != 0 ? order : strcmp(a->b, b->b);
}

static void set_pair(struct why_pair *pair, const struct place_node *a, const struct place_node *b,
                     uint32_t rtt_us)
{
    memset(pair, 0, sizeof(*pair));
    memcpy(pair->a, a->name, sizeof(pair->a));
    memcpy(pair->b, b->name, sizeof(pair->b));
    pair->rtt_us = rtt_us;
}

/* Keeps the worst WHY_MAX_PAIRS, worst first. */
static void keep_pair(struct why *why, const struct why_pair *pair)
{
    if (why->pair_count < WHY_MAX_PAIRS) {
        why->pair[why->pair_count++] = *pair;
    } else if (compare_pairs(pair, &why->pair[WHY_MAX_PAIRS - 1]) < 0) {
        why->pair[WHY_MAX_PAIRS - 1] = *pair;
    } else {
        return;
    }
    qsort(why->pair, why->pair_count, sizeof(why->pair[0]), compare_pairs);
}

void place_why_pairs(const struct place_pool *pool, const struct place_gang *gang, struct why *why)
{
    struct why_pair pair;

    why->pair_count = 0;
    for (uint32_t i = 0; i < gang->count; i++) {
        for (uint32_t j = i + 1; j < gang->count; j++) {
            uint32_t rtt = place_pair_rtt(pool, gang->member[i], gang->member[j]);
            set_pair(&pair, member_node(pool, gang, i), member_node(pool, gang, j), rtt);
            keep_pair(why, &pair);
        }
    }
}

/* -- rejects --------------------------------------------------------------------------------- */

static void explain_memory(const struct place_node *node, const struct job_ask *ask,
                           struct why_reject *reject)
{
    char has[UNITS_TEXT];
    char wants[UNITS_TEXT];
    uint32_t largest = 0;

    for (uint32_t i = 0; i < node->device_count; i++) {
        uint32_t mib = node->devices[i].measured_mib;
        if (node->devices[i].tier >= TIER_MEASURED && mib > largest)
            largest = mib;
    }
    snprintf(reject->detail, sizeof(reject->detail), "largest device has %s, asked %s",
             units_format_bytes((uint64_t)largest * MIB, has),
             units_format_bytes(ask->gpu_memory, wants));
}

static void explain_filter(const struct place_node *node, const struct job_ask *ask,
                           enum funnel_step step, struct why_reject *reject)
{
    char price[MONEY_TEXT];
    char limit[MONEY_TEXT];

    reject->code = ERR_NO_SUCH_CAPACITY;
    switch (step) {
    case FUNNEL_READY:
        reject->code = ERR_NO_NODES;
        snprintf(reject->detail, sizeof(reject->detail), "not ready");
        break;
    case FUNNEL_PLACE:
        snprintf(reject->detail, sizeof(reject->detail), "country %s or name not allowed",
                 node->country);
        break;
    case FUNNEL_MODEL:
        snprintf(reject->detail, sizeof(reject->detail),
                 "fewer than %u measured devices of the class and model", ask->gpus_per_node);
        break;
    case FUNNEL_MEMORY:
        explain_memory(node, ask, reject);
        break;
    case FUNNEL_HOST:
        if (ask->image && !node->images) {
            reject->code = ERR_RUNTIME_MISSING;
            snprintf(reject->detail, sizeof(reject->detail), "runs no container images");
            break;
        }
        snprintf(reject->detail, sizeof(reject->detail), "not enough cpu, memory or disk");
        break;
    case FUNNEL_PRICE:
        reject->code = ERR_PRICE_TOO_LOW;
        snprintf(reject->detail, sizeof(reject->detail), "asks %s per device and hour, limit %s",
                 money_format(node->price, price), money_format(ask->max_price, limit));
        break;
    case FUNNEL_FREE:
        reject->code = ERR_NOT_NOW;
        snprintf(reject->detail, sizeof(reject->detail), "%u of %u devices free",
                 place_count_devices(node, ask, false), place_count_devices(node, ask, true));
        break;
    case FUNNEL_KNOWN:
    case FUNNEL_STEP_COUNT:
    default:
        break;
    }
}

/* What keeps a candidate out of the gang: the worst pair, and which. */
static void explain_pair(const struct place_pool *pool, const struct place_gang *gang,
                         uint32_t candidate, struct why_reject *reject)
{
    uint32_t worst = 0;
    uint32_t with = 0;
    char is[MS_TEXT];
    char limit[MS_TEXT];

    for (uint32_t i = 0; i < gang->count; i++) {
        uint32_t value = place_pair(pool, candidate, gang->member[i]);
        if (value > worst) {
            worst = value;
            with = i;
        }
    }
    const char *other = gang->count > 0 ? member_node(pool, gang, with)->name : "";
    if (worst == PAIR_UNMEASURED) {
        reject->code = ERR_NETWORK_UNMEASURED;
        snprintf(reject->detail, sizeof(reject->detail), "not measured to %s", other);
    } else if (worst == PAIR_UNREACHABLE) {
        reject->code = ERR_PEERS_UNREACHABLE;
        snprintf(reject->detail, sizeof(reject->detail), "no TCP connection with %s", other);
    } else if (pool->ask->max_rtt_us > 0 && worst > pool->ask->max_rtt_us) {
        reject->code = ERR_NETWORK_TOO_FAR;
        snprintf(reject->detail, sizeof(reject->detail), "%s from %s, limit %s",
                 format_ms(worst, is), other, format_ms(pool->ask->max_rtt_us, limit));
    } else {
        reject->code = ERR_NONE;
        snprintf(reject->detail, sizeof(reject->detail), "fits; the others are cheaper or nearer");
    }
}

static bool is_member(const struct place_gang *gang, uint32_t candidate)
{
    for (uint32_t i = 0; i < gang->count; i++) {
        if (gang->member[i] == candidate)
            return true;
    }
    return false;
}

static struct why_reject *add_reject(struct why *why, const struct place_node *node)
{
    if (why->reject_count == WHY_MAX_REJECT)
        return NULL;
    struct why_reject *reject = &why->reject[why->reject_count++];
    memset(reject, 0, sizeof(*reject));
    memcpy(reject->node, node->name, sizeof(reject->node));
    memcpy(reject->region, node->region, sizeof(reject->region));
    return reject;
}

/* Candidates that missed by a pair first: they are the interesting ones. */
void place_why_rejects(const struct place_fleet *fleet, const struct job_ask *ask,
                       const struct place_pool *pool, const struct place_gang *gang,
                       struct why *why)
{
    struct why_reject *reject;

    why->reject_count = 0;
    for (uint32_t i = 0; i < pool->count && ask->nodes > 1; i++) {
        if (is_member(gang, i))
            continue;
        reject = add_reject(why, &fleet->nodes[pool->node[i]]);
        if (reject == NULL)
            return;
        explain_pair(pool, gang, i, reject);
    }
    for (uint32_t i = 0; i < fleet->node_count; i++) {
        enum funnel_step step = place_filter(&fleet->nodes[i], ask, pool->rules.ignore_busy);
        if (step == FUNNEL_STEP_COUNT)
            continue;
        reject = add_reject(why, &fleet->nodes[i]);
        if (reject == NULL)
            return;
        explain_filter(&fleet->nodes[i], ask, step, reject);
    }
}

/* -- relaxations ------------------------------------------------------------------------------ */

#define RELAX_TRIES 8u

struct relaxer {
    const struct place_fleet *fleet;
    struct why_relax found[RELAX_TRIES];
    uint32_t count;
};

static bool solve_relaxed(const struct place_fleet *fleet, const struct job_ask *ask,
                          struct place_rules rules, struct place_pool *ret_pool,
                          struct place_gang *ret_gang)
{
    place_pool_init(ret_pool, fleet, ask, rules);
    return place_search(ret_pool, ret_gang);
}

static struct why_relax *relax_try(struct relaxer *relaxer, const struct job_ask *ask,
                                   struct place_rules rules, struct place_pool *ret_pool,
                                   struct place_gang *ret_gang)
{
    if (!solve_relaxed(relaxer->fleet, ask, rules, ret_pool, ret_gang)
        || relaxer->count == RELAX_TRIES)
        return NULL;
    struct why_relax *relax = &relaxer->found[relaxer->count++];
    memset(relax, 0, sizeof(*relax));
    relax->diameter_us = ret_gang->diameter_us;
    relax->price = ret_gang->price;
    return relax;
}

static void set_relax(struct why_relax *relax, enum err_code code, const char *field,
                      const char *value)
{
    relax->code = code;
    snprintf(relax->field, sizeof(relax->field), "%s", field);
    snprintf(relax->value, sizeof(relax->value), "%s", value);
}

static void relax_rtt(struct relaxer *relaxer, const struct job_ask *ask, struct why *why)
{
    struct place_pool pool;
    struct place_gang gang;
    struct job_ask wider = *ask;
    char value[MS_TEXT];

    if (ask->max_rtt_us == 0 || ask->nodes < 2)
        return;
    wider.max_rtt_us = 0;
    struct why_relax *relax =
        relax_try(relaxer, &wider, (struct place_rules){.by_diameter = true}, &pool, &gang);
    if (relax != NULL) {
        set_relax(relax, ERR_NETWORK_TOO_FAR, "network.max_rtt",
                  format_ms(gang.diameter_us, value));
        if (why->code == ERR_NETWORK_TOO_FAR)
            place_why_pairs(&pool, &gang, why);
    }
    place_pool_fini(&pool);
}

static void relax_price(struct relaxer *relaxer, const struct job_ask *ask)
{
    struct place_pool pool;
    struct place_gang gang;
    struct job_ask wider = *ask;
    char value[MONEY_TEXT];
    micro_t highest = 0;

    if (ask->max_price == 0)
        return;
    wider.max_price = 0;
    struct why_relax *relax = relax_try(relaxer, &wider, (struct place_rules){0}, &pool, &gang);
    for (uint32_t i = 0; relax != NULL && i < gang.count; i++) {
        micro_t price = member_node(&pool, &gang, i)->price;
        if (price > highest)
            highest = price;
    }
    if (relax != NULL)
        set_relax(relax, ERR_PRICE_TOO_LOW, "budget.max_price", money_format(highest, value));
    place_pool_fini(&pool);
}

static int compare_mib_down(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;

    return a > b ? -1 : a < b;
}

/* What the gpus_per_node largest free devices of the node all have. */
static uint32_t node_offers_mib(const struct place_node *node, const struct job_ask *ask)
{
    uint32_t mib[SPEC_MAX_GPUS_PER_NODE * 4] = {0};
    uint32_t count = 0;

    for (uint32_t i = 0; i < node->device_count && count < SPEC_MAX_GPUS_PER_NODE * 4; i++) {
        const struct place_device *device = &node->devices[i];
        if (!device->busy && place_device_fits(device, ask))
            mib[count++] = device->measured_mib < device->nominal_mib ? device->measured_mib
                                                                      : device->nominal_mib;
    }
    qsort(mib, count, sizeof(mib[0]), compare_mib_down);
    return count < ask->gpus_per_node ? 0 : mib[ask->gpus_per_node - 1];
}

static void relax_memory(struct relaxer *relaxer, const struct job_ask *ask)
{
    struct place_pool pool;
    struct place_gang gang;
    struct job_ask wider = *ask;
    char value[UNITS_TEXT];
    uint32_t least = UINT32_MAX;

    if (ask->gpu_memory == 0)
        return;
    wider.gpu_memory = 0;
    struct why_relax *relax = relax_try(relaxer, &wider, (struct place_rules){0}, &pool, &gang);
    for (uint32_t i = 0; relax != NULL && i < gang.count; i++) {
        uint32_t mib = node_offers_mib(member_node(&pool, &gang, i), &wider);
        if (mib < least)
            least = mib;
    }
    if (relax != NULL)
        set_relax(relax, ERR_NO_SUCH_CAPACITY, "resources.gpu.memory",
                  units_format_bytes((uint64_t)least * MIB, value));
    place_pool_fini(&pool);
}

static void relax_one(struct relaxer *relaxer, const struct job_ask *wider,
                      struct place_rules rules, enum err_code code, const char *field,
                      const char *value)
{
    struct place_pool pool;
    struct place_gang gang;
    struct why_relax *relax = relax_try(relaxer, wider, rules, &pool, &gang);

    if (relax != NULL)
        set_relax(relax, code, field, value);
    place_pool_fini(&pool);
}

static void relax_others(struct relaxer *relaxer, const struct job_ask *ask, const struct why *why)
{
    struct job_ask wider = *ask;
    char value[MS_TEXT];

    if (ask->model_count > 0 && !ask->cpu_device) {
        wider.model_count = 0;
        relax_one(relaxer, &wider, (struct place_rules){0}, ERR_NO_SUCH_CAPACITY,
                  "resources.gpu.name", "any");
        wider = *ask;
    }
    if (ask->country_count > 0) {
        wider.country_count = 0;
        relax_one(relaxer, &wider, (struct place_rules){0}, ERR_NO_SUCH_CAPACITY,
                  "placement.countries", "any");
        wider = *ask;
    }
    relax_one(relaxer, ask, (struct place_rules){.ignore_busy = true}, ERR_NOT_NOW, "wait",
              "until devices are free");
    if (why->largest_clique > 0 && why->largest_clique < ask->nodes) {
        wider.nodes = why->largest_clique;
        snprintf(value, sizeof(value), "%u", why->largest_clique);
        relax_one(relaxer, &wider, (struct place_rules){0}, why->code, "nodes", value);
    }
}

static int compare_relax(const void *left, const void *right)
{
    const struct why_relax *a = left;
    const struct why_relax *b = right;

    if (a->price != b->price)
        return a->price < b->price ? -1 : 1;
    if (a->diameter_us != b->diameter_us)
        return a->diameter_us < b->diameter_us ? -1 : 1;
    return strcmp(a->field, b->field);
}

/* Each constraint alone; those that would unblock the job, cheapest first. */
static void fill_relaxations(const struct place_fleet *fleet, const struct job_ask *ask,
                             struct why *why)
{
    struct relaxer relaxer = {.fleet = fleet};

    relax_rtt(&relaxer, ask, why);
    relax_price(&relaxer, ask);
    relax_memory(&relaxer, ask);
    relax_others(&relaxer, ask, why);
    qsort(relaxer.found, relaxer.count, sizeof(relaxer.found[0]), compare_relax);
    why->relax_count = relaxer.count < WHY_MAX_RELAX ? relaxer.count : WHY_MAX_RELAX;
    memcpy(why->relax, relaxer.found, why->relax_count * sizeof(why->relax[0]));
}

/* -- models ------------------------------------------------------------------------------------ */

/* Distinct words of all models of a pool; more are not compared. */
#define MAX_MODEL_WORDS 64u

static bool model_is_known(const struct place_fleet *fleet, const char *model)
{
    for (uint32_t n = 0; n < fleet->node_count; n++) {
        const struct place_node *node = &fleet->nodes[n];
        for (uint32_t d = 0; d < node->device_count; d++) {
            if (node->devices[d].class == DEVICE_GPU
                && strstr(node->devices[d].model, model) != NULL)
                return true;
        }
    }
    return false;
}

/* Adds "nvidia", "h100", "80gb" of "nvidia h100 80gb" as far as they are new. */
static uint32_t add_words(const char *model, char words[][SPEC_MODEL_TEXT], uint32_t count)
{
    while (*model != '\0' && count < MAX_MODEL_WORDS) {
        size_t length = strcspn(model, " ");
        uint32_t i = 0;
        memset(words[count], 0, SPEC_MODEL_TEXT);
        memcpy(words[count], model, length);
        while (strcmp(words[i], words[count]) != 0)
            i++;
        count += i == count && length > 0;
        model += length + (model[length] == ' ');
    }
    return count;
}

/* -- the binding reason ------------------------------------------------------------------------ */

static enum err_code funnel_code(const struct why *why)
{
    if (why->funnel[FUNNEL_READY] == 0)
        return ERR_NO_NODES;
    if (why->funnel[FUNNEL_HOST] < why->asked)
        return ERR_NO_SUCH_CAPACITY;
    if (why->funnel[FUNNEL_PRICE] < why->asked)
        return ERR_PRICE_TOO_LOW;
    if (why->funnel[FUNNEL_FREE] < why->asked)
        return ERR_NOT_NOW;
    return ERR_NONE;
}

/* Letters that are read as digits: H1OO is H100. */
static void fold(const char *word, char out[SPEC_MODEL_TEXT])
{
    size_t i = 0;

    for (; word[i] != '\0'; i++) {
        out[i] = word[i];
        if (word[i] == 'o')
            out[i] = '0';
        if (word[i] == 'l' || word[i] == 'i')
            out[i] = '1';
    }
    out[i] = '\0';
}

/* The word of a known GPU's model that is nearest to one asked for; NULL when none is near. */
static const char *nearest_model(const struct place_fleet *fleet, const char *asked,
                                 char words[][SPEC_MODEL_TEXT])
{
    char folded[MAX_MODEL_WORDS][SPEC_MODEL_TEXT];
    char wanted[SPEC_MODEL_TEXT];
    const char *known[MAX_MODEL_WORDS];
    uint32_t count = 0;

    for (uint32_t n = 0; n < fleet->node_count; n++) {
        const struct place_node *node = &fleet->nodes[n];
        for (uint32_t d = 0; d < node->device_count; d++) {
            if (node->devices[d].class == DEVICE_GPU)
                count = add_words(node->devices[d].model, words, count);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        fold(words[i], folded[i]);
        known[i] = folded[i];
    }
    fold(asked, wanted);
    const char *near = nearest_word(wanted, known, count);
    for (uint32_t i = 0; i < count; i++) {
        if (near == known[i])
            return words[i];
    }
    return NULL;
}

/* A model that no GPU of the pool has may be a slip of the pen. */
static void explain_model(const struct place_fleet *fleet, const struct job_ask *ask,
                          struct why *why)
{
    char words[MAX_MODEL_WORDS][SPEC_MODEL_TEXT];
    struct buf text;

    if (ask->cpu_device || ask->model_count == 0 || why->funnel[FUNNEL_MODEL] > 0)
        return;
    buf_init(&text, sizeof(why->detail));
    buf_puts(&text, why->detail);
    for (uint32_t i = 0; i < ask->model_count; i++) {
        if (model_is_known(fleet, ask->models[i]))
            continue;
        const char *near = nearest_model(fleet, ask->models[i], words);
        buf_printf(&text, "; no GPU here is called %s", ask->models[i]);
        if (near != NULL)
            buf_printf(&text, ", but %s", near);
    }
    snprintf(why->detail, sizeof(why->detail), "%s", text.data);
    buf_fini(&text);
}

/* Without its image the job would have had hosts enough. */
static bool lacks_images(const struct place_fleet *fleet, const struct job_ask *ask)
{
    struct job_ask plain = *ask;
    uint32_t count = 0;

    plain.image = false;
    for (uint32_t i = 0; ask->image && i < fleet->node_count; i++)
        count += place_filter(&fleet->nodes[i], &plain, true) > FUNNEL_HOST;
    return ask->image && count >= ask->nodes;
}

static bool would_fit(const struct place_fleet *fleet, const struct job_ask *ask,
                      struct place_rules rules)
{
    struct place_pool pool;
    struct place_gang gang;
    bool found = solve_relaxed(fleet, ask, rules, &pool, &gang);

    place_pool_fini(&pool);
    return found;
}

static void add_probes(const struct place_pool *pool, const struct place_gang *gang,
                       struct place_probe *probes, uint32_t *count)
{
    for (uint32_t i = 0; i < gang->count; i++) {
        for (uint32_t j = i + 1; j < gang->count; j++) {
            uint32_t a = gang->member[i];
            uint32_t b = gang->member[j];
            if (place_pair(pool, a, b) != PAIR_UNMEASURED || *count == PLACE_MAX_PROBES)
                continue;
            probes[(*count)++] = (struct place_probe){
                .a = pool->node[a < b ? a : b],
                .b = pool->node[a < b ? b : a],
            };
        }
    }
}

/* A gang that stands or falls with unmeasured pairs: these are to be probed. */
static bool explain_unmeasured(const struct place_fleet *fleet, const struct job_ask *ask,
                               struct why *why, struct place_probe *probes, uint32_t *count)
{
    struct place_pool pool;
    struct place_gang gang;
    bool found =
        solve_relaxed(fleet, ask, (struct place_rules){.unmeasured_ok = true}, &pool, &gang);

    if (found) {
        why->code = ERR_NETWORK_UNMEASURED;
        place_why_pairs(&pool, &gang, why);
        if (probes != NULL)
            add_probes(&pool, &gang, probes, count);
    }
    place_pool_fini(&pool);
    return found;
}

void place_explain(const struct place_fleet *fleet, const struct job_ask *ask,
                   const struct place_pool *pool, const struct place_gang *best, struct why *why,
                   struct place_probe *ret_probes, uint32_t *ret_probe_count)
{
    why->largest_clique = best->count;
    why->code = funnel_code(why);
    if (why->code == ERR_NO_SUCH_CAPACITY && lacks_images(fleet, ask))
        why->code = ERR_RUNTIME_MISSING;
    if (why->code == ERR_NONE
        && !explain_unmeasured(fleet, ask, why, ret_probes, ret_probe_count)) {
        if (would_fit(fleet, ask, (struct place_rules){.ignore_busy = true}))
            why->code = ERR_NOT_NOW;
        else if (would_fit(fleet, ask, (struct place_rules){.any_rtt = true}))
            why->code = ERR_NETWORK_TOO_FAR;
        else
            why->code = ERR_PEERS_UNREACHABLE;
    }
    place_why_rejects(fleet, ask, pool, best, why);
    fill_relaxations(fleet, ask, why);
    place_why_detail(why);
    explain_model(fleet, ask, why);
}
