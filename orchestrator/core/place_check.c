/*
 * The naive checker. It shares no code with the solver on purpose: whatever both get wrong, they
 * get wrong twice, by two different roads.
 */
#include <string.h>

#include "orchestrator/core/place.h"

#define BYTES_PER_MIB 1048576u

static bool text_in(const char *text, const char *list, uint32_t count, size_t width)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(text, list + i * width) == 0)
            return true;
    }
    return false;
}

static int check_device(const struct place_device *device, const struct job_ask *ask,
                        struct err *err)
{
    if (device->busy)
        return err_set(err, ERR_INTERNAL, "slot %lu is leased", (unsigned long)device->slot);
    if (!device->offered || device->tier == TIER_CLAIMED)
        return err_set(err, ERR_INTERNAL, "slot %lu is unproven or not offered",
                       (unsigned long)device->slot);
    if ((device->class == DEVICE_CPU) != ask->cpu_device)
        return err_set(err, ERR_INTERNAL, "slot %lu is of the wrong class",
                       (unsigned long)device->slot);
    if (ask->gpu_memory > (uint64_t)device->nominal_mib * BYTES_PER_MIB)
        return err_set(err, ERR_INTERNAL, "slot %lu is too small", (unsigned long)device->slot);
    if (ask->gpu_memory / 4 * 3 > (uint64_t)device->measured_mib * BYTES_PER_MIB)
        return err_set(err, ERR_INTERNAL, "slot %lu measured too small",
                       (unsigned long)device->slot);
    bool named = ask->model_count == 0 || ask->cpu_device;
    for (uint32_t i = 0; i < ask->model_count; i++)
        named = named || strstr(device->model, ask->models[i]) != NULL;
    if (!named)
        return err_set(err, ERR_INTERNAL, "model %s was not asked for", device->model);
    return 0;
}

static int check_node(const struct place_node *node, const struct job_ask *ask,
                      const uint64_t *slots, struct err *err)
{
    if (!node->ready)
        return err_set(err, ERR_INTERNAL, "%s is not ready", node->name);
    if (ask->country_count > 0 && !text_in(node->country, ask->countries[0], ask->country_count, 3))
        return err_set(err, ERR_INTERNAL, "%s is in %s", node->name, node->country);
    if (text_in(node->name, ask->excluded[0], ask->excluded_count, SPEC_NAME_TEXT))
        return err_set(err, ERR_INTERNAL, "%s is excluded", node->name);
    if (ask->max_price != 0 && node->price > ask->max_price)
        return err_set(err, ERR_INTERNAL, "%s is too dear", node->name);
    uint64_t memory = (uint64_t)node->memory_mib * BYTES_PER_MIB;
    if (ask->image && !node->images)
        return err_set(err, ERR_INTERNAL, "%s runs no images", node->name);
    if (node->cpu_milli < ask->cpu_milli || memory < ask->memory || memory < ask->shm
        || (uint64_t)node->disk_mib * BYTES_PER_MIB < ask->disk)
        return err_set(err, ERR_INTERNAL, "%s lacks cpu, memory or disk", node->name);
    for (uint32_t k = 0; k < ask->gpus_per_node; k++) {
        const struct place_device *device = NULL;
        for (uint32_t i = 0; i < node->device_count; i++) {
            if (node->devices[i].slot == slots[k])
                device = &node->devices[i];
        }
        if (device == NULL)
            return err_set(err, ERR_INTERNAL, "slot %lu is not on %s", (unsigned long)slots[k],
                           node->name);
        for (uint32_t j = 0; j < k; j++) {
            if (slots[j] == slots[k])
                return err_set(err, ERR_INTERNAL, "slot %lu twice", (unsigned long)slots[k]);
        }
        int rc = check_device(device, ask, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_pairs(const struct place_fleet *fleet, const struct job_ask *ask,
                       const struct place_plan *plan, struct err *err)
{
    uint32_t widest = 0;

    for (uint32_t i = 0; i < plan->nodes; i++) {
        for (uint32_t j = 0; j < plan->nodes; j++) {
            uint32_t a = plan->node[i];
            uint32_t b = plan->node[j];
            const struct place_link *found = NULL;
            if (a >= b)
                continue;
            for (uint32_t k = 0; k < fleet->link_count && found == NULL; k++) {
                if (fleet->links[k].a == a && fleet->links[k].b == b)
                    found = &fleet->links[k];
            }
            if (found == NULL || found->rtt_us == 0)
                return err_set(err, ERR_INTERNAL, "pair %u-%u is unmeasured", a, b);
            if (!found->reachable)
                return err_set(err, ERR_INTERNAL, "pair %u-%u is unreachable", a, b);
            if (ask->max_rtt_us != 0 && found->rtt_us > ask->max_rtt_us)
                return err_set(err, ERR_INTERNAL, "pair %u-%u is too far", a, b);
            if (found->rtt_us > widest)
                widest = found->rtt_us;
        }
    }
    if (widest != plan->diameter_us)
        return err_set(err, ERR_INTERNAL, "diameter is %u, not %u", widest, plan->diameter_us);
    return 0;
}

int place_check(const struct place_fleet *fleet, const struct job_ask *ask,
                const struct place_plan *plan, struct err *err)
{
    micro_t price = 0;

    if (plan->nodes != ask->nodes || plan->nodes > SPEC_MAX_NODES)
        return err_set(err, ERR_INTERNAL, "%u nodes, asked %u", plan->nodes, ask->nodes);
    for (uint32_t i = 0; i < plan->nodes; i++) {
        if (plan->node[i] >= fleet->node_count)
            return err_set(err, ERR_INTERNAL, "node %u is not in the fleet", plan->node[i]);
        for (uint32_t j = 0; j < i; j++) {
            if (plan->node[j] == plan->node[i])
                return err_set(err, ERR_INTERNAL, "node %u twice", plan->node[i]);
        }
        int rc = check_node(&fleet->nodes[plan->node[i]], ask,
                            plan->slot + (size_t)i * ask->gpus_per_node, err);
        if (rc < 0)
            return rc;
        for (uint32_t k = 0; k < ask->gpus_per_node; k++)
            price += fleet->nodes[plan->node[i]].price;
    }
    if (price != plan->price)
        return err_set(err, ERR_INTERNAL, "the price is not the sum of its parts");
    return check_pairs(fleet, ask, plan, err);
}
