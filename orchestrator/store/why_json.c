#include "orchestrator/store/why_json.h"

#include <stdio.h>
#include <string.h>

#include "common/io/json.h"
#include "common/pure/money.h"

/* -- out ------------------------------------------------------------------------------------------
 */

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, json_string(text));
}

static void set_int(json_t *object, const char *key, uint32_t value)
{
    json_object_set_new(object, key, json_integer(value));
}

static json_t *relax_to_json(const struct why_relax *relax)
{
    json_t *object = json_object();

    set_text(object, "code", err_slug(relax->code));
    set_text(object, "field", relax->field);
    set_text(object, "value", relax->value);
    set_int(object, "diameter_us", relax->diameter_us);
    json_object_set_new(object, "price", json_money(relax->price));
    return object;
}

static json_t *reject_to_json(const struct why_reject *reject)
{
    json_t *object = json_object();

    set_text(object, "node", reject->node);
    set_text(object, "region", reject->region);
    set_text(object, "code", err_slug(reject->code));
    set_text(object, "detail", reject->detail);
    return object;
}

static json_t *funnel_to_json(const struct why *why)
{
    json_t *list = json_array();

    for (enum funnel_step step = 0; step < FUNNEL_STEP_COUNT; step++) {
        json_t *object = json_object();
        set_text(object, "step", funnel_step_name(step));
        set_int(object, "nodes", why->funnel[step]);
        json_array_append_new(list, object);
    }
    return list;
}

json_t *why_to_json(const struct why *why)
{
    json_t *object = json_object();
    json_t *relax = json_array();
    json_t *reject = json_array();
    json_t *nodes = json_array();
    json_t *pairs = json_array();

    for (uint32_t i = 0; i < why->relax_count; i++)
        json_array_append_new(relax, relax_to_json(&why->relax[i]));
    for (uint32_t i = 0; i < why->reject_count; i++)
        json_array_append_new(reject, reject_to_json(&why->reject[i]));
    for (uint32_t i = 0; i < why->node_count; i++)
        json_array_append_new(nodes, json_string(why->node[i]));
    for (uint32_t i = 0; i < why->pair_count; i++) {
        json_t *pair = json_object();
        set_text(pair, "a", why->pair[i].a);
        set_text(pair, "b", why->pair[i].b);
        set_int(pair, "rtt_us", why->pair[i].rtt_us);
        json_array_append_new(pairs, pair);
    }
    json_object_set_new(object, "placed", json_boolean(why->placed));
    set_text(object, "code", err_slug(why->code));
    set_text(object, "detail", why->detail);
    json_object_set_new(object, "funnel", funnel_to_json(why));
    set_int(object, "largest_clique", why->largest_clique);
    set_int(object, "asked", why->asked);
    set_int(object, "diameter_us", why->diameter_us);
    json_object_set_new(object, "price", json_money(why->price));
    json_object_set_new(object, "relax", relax);
    json_object_set_new(object, "reject", reject);
    json_object_set_new(object, "nodes", nodes);
    json_object_set_new(object, "pairs", pairs);
    return object;
}

/* -- back in: rows that we wrote ourselves ------------------------------------------------------
 */

static void get_text(const json_t *object, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));

    snprintf(out, size, "%s", text != NULL ? text : "");
}

static uint32_t get_int(const json_t *object, const char *key)
{
    return (uint32_t)json_integer_value(json_object_get(object, key));
}

static micro_t get_money(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    micro_t amount = 0;

    return text != NULL && money_parse(text, &amount) == 0 ? amount : 0;
}

static enum err_code get_code(const json_t *object)
{
    const char *slug = json_string_value(json_object_get(object, "code"));

    return slug != NULL ? err_from_slug(slug) : ERR_NONE;
}

/* Elements of an array that fit `limit`. */
static uint32_t get_count(const json_t *list, uint32_t limit)
{
    size_t count = json_array_size(list);

    return count < limit ? (uint32_t)count : limit;
}

static void funnel_from_json(const json_t *list, struct why *why)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *object = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(object, "step"));
        for (enum funnel_step step = 0; name != NULL && step < FUNNEL_STEP_COUNT; step++) {
            if (strcmp(name, funnel_step_name(step)) == 0)
                why->funnel[step] = get_int(object, "nodes");
        }
    }
}

static void lists_from_json(const json_t *object, struct why *why)
{
    const json_t *relax = json_object_get(object, "relax");
    const json_t *reject = json_object_get(object, "reject");

    why->relax_count = get_count(relax, WHY_MAX_RELAX);
    for (uint32_t i = 0; i < why->relax_count; i++) {
        const json_t *from = json_array_get(relax, i);
        struct why_relax *to = &why->relax[i];
        to->code = get_code(from);
        get_text(from, "field", to->field, sizeof(to->field));
        get_text(from, "value", to->value, sizeof(to->value));
        to->diameter_us = get_int(from, "diameter_us");
        to->price = get_money(from, "price");
    }
    why->reject_count = get_count(reject, WHY_MAX_REJECT);
    for (uint32_t i = 0; i < why->reject_count; i++) {
        const json_t *from = json_array_get(reject, i);
        struct why_reject *to = &why->reject[i];
        get_text(from, "node", to->node, sizeof(to->node));
        get_text(from, "region", to->region, sizeof(to->region));
        to->code = get_code(from);
        get_text(from, "detail", to->detail, sizeof(to->detail));
    }
}

static void plan_from_json(const json_t *object, struct why *why)
{
    const json_t *nodes = json_object_get(object, "nodes");
    const json_t *pairs = json_object_get(object, "pairs");

    why->node_count = get_count(nodes, SPEC_MAX_GPUS_PER_NODE);
    for (uint32_t i = 0; i < why->node_count; i++) {
        const char *name = json_string_value(json_array_get(nodes, i));
        snprintf(why->node[i], sizeof(why->node[i]), "%s", name != NULL ? name : "");
    }
    why->pair_count = get_count(pairs, WHY_MAX_PAIRS);
    for (uint32_t i = 0; i < why->pair_count; i++) {
        const json_t *from = json_array_get(pairs, i);
        get_text(from, "a", why->pair[i].a, sizeof(why->pair[i].a));
        get_text(from, "b", why->pair[i].b, sizeof(why->pair[i].b));
        why->pair[i].rtt_us = get_int(from, "rtt_us");
    }
}

void why_from_json(const json_t *object, struct why *ret_why)
{
    memset(ret_why, 0, sizeof(*ret_why));
    ret_why->placed = json_is_true(json_object_get(object, "placed"));
    ret_why->code = get_code(object);
    get_text(object, "detail", ret_why->detail, sizeof(ret_why->detail));
    funnel_from_json(json_object_get(object, "funnel"), ret_why);
    ret_why->largest_clique = get_int(object, "largest_clique");
    ret_why->asked = get_int(object, "asked");
    ret_why->diameter_us = get_int(object, "diameter_us");
    ret_why->price = get_money(object, "price");
    lists_from_json(object, ret_why);
    plan_from_json(object, ret_why);
}
