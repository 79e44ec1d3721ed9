#include "cli/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/table.h"
#include "cli/term.h"
#include "common/io/json.h"
#include "common/pure/units.h"

int plan_ask(const struct httpc *client, const json_t *spec, json_t **ret_plan, struct err *err)
{
    return api_call(client, "POST", "/api/v1/plans", spec, NULL, ret_plan, err);
}

static const char *rtt_text(json_int_t us, char out[UNITS_TEXT])
{
    if (us <= 0)
        snprintf(out, UNITS_TEXT, "unmeasured");
    else
        units_format_duration((uint64_t)us, out);
    return out;
}

/* Of a gang: one that is placed has all its links measured, so that 0 means one node. */
static const char *worst_text(json_int_t us, char out[UNITS_TEXT])
{
    if (us <= 0) {
        snprintf(out, UNITS_TEXT, "one node");
    } else {
        char rtt[UNITS_TEXT];
        snprintf(out, UNITS_TEXT, "worst link %.18s", rtt_text(us, rtt));
    }
    return out;
}

/* What a funnel step leaves, in words. */
static const char *step_text(const char *step)
{
    static const char *const words[][2] = {
        {"known", "known"},
        {"ready", "ready"},
        {"place", "in an allowed place"},
        {"model", "with the device"},
        {"memory", "with the memory"},
        {"host", "with the cpu, memory and disk"},
        {"price", "under the price"},
        {"free", "free now"},
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(words[i][0], step) == 0)
            return words[i][1];
    }
    return step;
}

/* "6 known → 6 ready → 4 with the device": the first, whatever took somebody away, and the last
 * unless nobody was left before it. */
static void print_funnel(const json_t *funnel)
{
    size_t i;
    json_t *step;
    json_int_t before = -1;

    printf("  ");
    json_array_foreach(funnel, i, step)
    {
        json_int_t nodes = json_int_at(step, "nodes");
        bool last = i + 1 == json_array_size(funnel);
        if (i > 0 && nodes == before && (!last || nodes == 0))
            continue;
        printf("%s%s%lld%s %s", i ? " → " : "", tone_on(TONE_BOLD, term.color), (long long)nodes,
               tone_off(TONE_BOLD, term.color), step_text(json_text_at(step, "step")));
        before = nodes;
    }
    printf("\n");
}

static void print_pairs(const json_t *pairs)
{
    size_t i;
    json_t *pair;
    char text[UNITS_TEXT];

    if (json_array_size(pairs) == 0)
        return;
    printf("\n  %sLINKS%s\n", tone_on(TONE_BOLD, term.color), tone_off(TONE_BOLD, term.color));
    json_array_foreach(pairs, i, pair)
    {
        printf("  %-16s %-16s %10s\n", json_text_at(pair, "a"), json_text_at(pair, "b"),
               rtt_text(json_int_at(pair, "rtt_us"), text));
    }
}

static void print_rejects(const json_t *rejects)
{
    size_t i;
    json_t *reject;

    if (json_array_size(rejects) == 0)
        return;
    printf("\n  %sNOT CHOSEN%s\n", tone_on(TONE_BOLD, term.color), tone_off(TONE_BOLD, term.color));
    json_array_foreach(rejects, i, reject)
    {
        printf("  %-16s %-12s %-20s %s\n", json_text_at(reject, "node"),
               json_text_at(reject, "region"), json_text_at(reject, "code"),
               json_text_at(reject, "detail"));
    }
}

static void print_relax(const json_t *relax)
{
    size_t i;
    json_t *item;
    char text[UNITS_TEXT];

    if (json_array_size(relax) == 0)
        return;
    printf("\n  %sWHAT WOULD CHANGE IT%s\n", tone_on(TONE_BOLD, term.color),
           tone_off(TONE_BOLD, term.color));
    json_array_foreach(relax, i, item)
    {
        printf("  %-20s %-10s → %s/h, %s\n", json_text_at(item, "field"),
               json_text_at(item, "value"), json_text_at(item, "price"),
               worst_text(json_int_at(item, "diameter_us"), text));
    }
}

static void print_names(const json_t *names)
{
    size_t i;
    json_t *name;

    json_array_foreach(names, i, name) printf("%s%s", i ? ", " : "", json_string_value(name));
}

void why_print(const json_t *why)
{
    char text[UNITS_TEXT];
    bool placed = json_is_true(json_object_get(why, "placed"));

    if (placed) {
        printf("%splaced%s on ", tone_on(TONE_GOOD, term.color), tone_off(TONE_GOOD, term.color));
        print_names(json_object_get(why, "nodes"));
        printf("  %s  %s/h\n", worst_text(json_int_at(why, "diameter_us"), text),
               json_text_at(why, "price"));
    } else {
        printf("%swaits%s: %s  %s\n", tone_on(TONE_BUSY, term.color),
               tone_off(TONE_BUSY, term.color), json_text_at(why, "code"),
               json_text_at(why, "detail"));
    }
    printf("\n");
    print_funnel(json_object_get(why, "funnel"));
    if (json_int_at(why, "asked") > 1)
        printf("  largest set within the limits: %lld of %lld\n",
               (long long)json_int_at(why, "largest_clique"), (long long)json_int_at(why, "asked"));
    print_pairs(json_object_get(why, "pairs"));
    print_rejects(json_object_get(why, "reject"));
    print_relax(json_object_get(why, "relax"));
}

void plan_print(const json_t *plan)
{
    size_t i;
    json_t *line;

    why_print(json_object_get(plan, "why"));
    if (json_is_string(json_object_get(plan, "hold")))
        printf("\n  hold now %s %s; what is not used comes back\n", json_text_at(plan, "hold"),
               json_text_at(plan, "currency"));
    if (json_array_size(json_object_get(plan, "trust")) > 0)
        printf("\n  %sWHO CAN READ IT%s\n", tone_on(TONE_BOLD, term.color),
               tone_off(TONE_BOLD, term.color));
    json_array_foreach(json_object_get(plan, "trust"), i, line)
    {
        struct buf text;
        buf_init(&text, 0);
        text_wrap(json_string_value(line), 2, term.width, &text);
        fputs(text.data, stdout);
        buf_fini(&text);
    }
}

void plan_print_offer(const json_t *plan, long nodes, const char *gpu)
{
    char text[UNITS_TEXT];
    const json_t *why = json_object_get(plan, "why");
    const json_t *relax = json_object_get(why, "relax");
    const json_t *earliest = json_object_get(plan, "earliest");
    bool placed = json_is_true(json_object_get(why, "placed"));
    const json_t *price = placed ? why : earliest; /* of the placement that is told; or none */
    size_t i;
    json_t *item;

    printf("%ld x %s\n  now        ", nodes, gpu);
    if (placed) {
        printf("yes, on ");
        print_names(json_object_get(why, "nodes"));
    } else {
        printf("no: %s", json_text_at(why, "detail"));
    }
    if (placed)
        printf("\n  earliest   now\n");
    else if (json_is_object(earliest))
        printf("\n  earliest   at the latest at %s\n", json_text_at(earliest, "at"));
    else
        printf("\n  earliest   unknown\n");
    if (json_is_object(price)) {
        printf("  price      %s/h\n  worst RTT  %s\n", json_text_at(price, "price"),
               json_int_at(price, "diameter_us") > 0
                   ? rtt_text(json_int_at(price, "diameter_us"), text)
                   : "one node");
    } else {
        printf("  price      unknown\n  worst RTT  unknown\n");
    }
    json_array_foreach(relax, i, item)
    {
        printf("  with %s %s: %s/h, %s\n", json_text_at(item, "field"), json_text_at(item, "value"),
               json_text_at(item, "price"), worst_text(json_int_at(item, "diameter_us"), text));
    }
}
