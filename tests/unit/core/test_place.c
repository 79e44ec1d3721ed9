#include "tests/unit/core/support_cmocka.h"

#include <stdio.h>
#include <string.h>

#include "orchestrator/core/place.h"

#define MAX 32u

struct pool {
    struct place_node node[MAX];
    struct place_device device[MAX][4];
    struct place_link link[MAX * MAX];
    struct place_fleet fleet;
};

static struct pool pool;
static struct place_plan plan;
static struct why why;
static struct place_probe probe[PLACE_MAX_PROBES];
static uint32_t probe_count;
static struct job_ask ask;

static void add_node(uint32_t devices, uint32_t mib, micro_t price)
{
    uint32_t i = pool.fleet.node_count++;
    struct place_node *node = &pool.node[i];

    *node = (struct place_node){.id = i + 1,
                                .country = "DE",
                                .ready = true,
                                .price = price,
                                .cpu_milli = 8000,
                                .memory_mib = 32768,
                                .disk_mib = 100000,
                                .device_count = devices};
    snprintf(node->name, sizeof(node->name), "n%u", i);
    snprintf(node->region, sizeof(node->region), "r");
    for (uint32_t d = 0; d < devices; d++) {
        pool.device[i][d] = (struct place_device){.slot = 100 * (i + 1) + d,
                                                  .class = DEVICE_GPU,
                                                  .nominal_mib = mib,
                                                  .measured_mib = mib,
                                                  .tier = TIER_MEASURED,
                                                  .offered = true};
        snprintf(pool.device[i][d].model, sizeof(pool.device[i][d].model), "rtx 4090");
    }
    node->devices = pool.device[i];
    pool.fleet.nodes = pool.node;
    pool.fleet.links = pool.link;
}

/* Ascending calls only: links are sorted. */
static void add_link(uint32_t a, uint32_t b, uint32_t rtt_us, bool reach)
{
    pool.link[pool.fleet.link_count++] = (struct place_link){a, b, rtt_us, reach};
}

static struct place_link *link_of(uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < pool.fleet.link_count; i++) {
        if (pool.link[i].a == a && pool.link[i].b == b)
            return &pool.link[i];
    }
    return NULL;
}

static int setup(void **state)
{
    (void)state;
    memset(&pool, 0, sizeof(pool));
    ask = (struct job_ask){.nodes = 1, .gpus_per_node = 1};
    return 0;
}

/* n nodes in two towns: even ones and odd ones; 1 ms inside a town, 40 ms between. */
static void two_towns(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        add_node(2, 24576, MICRO_PER_UNIT);
    for (uint32_t a = 0; a < n; a++) {
        for (uint32_t b = a + 1; b < n; b++)
            add_link(a, b, (a ^ b) & 1 ? 40000 : 1000, true);
    }
}

static int solve(void)
{
    struct err err = {0};
    int rc = place_solve(&pool.fleet, &ask, &plan, &why, probe, &probe_count);

    if (rc == 0)
        assert_int_equal(place_check(&pool.fleet, &ask, &plan, &err), 0);
    assert_int_equal(why.placed, rc == 0);
    assert_int_equal(rc, -(int)why.code);
    assert_int_equal(why.funnel[FUNNEL_KNOWN], pool.fleet.node_count);
    for (unsigned step = 1; step < FUNNEL_STEP_COUNT; step++)
        assert_true(why.funnel[step] <= why.funnel[step - 1]);
    return rc;
}

static const struct why_relax *relax_of(const char *field)
{
    for (uint32_t i = 0; i < why.relax_count; i++) {
        if (strcmp(why.relax[i].field, field) == 0)
            return &why.relax[i];
    }
    return NULL;
}

/* Not an error: the model may join tomorrow. It waits, and is told what it may have meant. */
static void m10_a_model_that_nobody_has_is_named_with_the_nearest(void **state)
{
    static const struct {
        const char *asked;
        const char *says;
    } rows[] = {
        {"h1oo", "no GPU here is called h1oo, but h100"},
        {"4900", "no GPU here is called 4900, but 4090"},
        {"mi300x", "no GPU here is called mi300x"},
    };

    (void)state;
    add_node(1, 24576, MICRO_PER_UNIT);
    add_node(1, 81920, MICRO_PER_UNIT);
    snprintf(pool.device[1][0].model, SPEC_MODEL_TEXT, "nvidia h100 80gb hbm3");
    ask.model_count = 1;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(ask.models[0], SPEC_MODEL_TEXT, "%s", rows[i].asked);
        assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
        const char *said = strstr(why.detail, rows[i].says);
        assert_non_null(said);
        assert_string_equal(said, rows[i].says);
        assert_non_null(relax_of("resources.gpu.name"));
    }
    /* Known, and too small: the model is not what is wrong. */
    snprintf(ask.models[0], SPEC_MODEL_TEXT, "h100");
    ask.gpu_memory = (uint64_t)1 << 40;
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
    assert_null(strstr(why.detail, "called"));
}

static void test_near_town_is_chosen(void **state)
{
    (void)state;
    two_towns(8);
    ask.nodes = 4;
    ask.max_rtt_us = 5000;
    assert_int_equal(solve(), 0);
    assert_int_equal(plan.diameter_us, 1000);
    assert_int_equal(plan.price, 4 * MICRO_PER_UNIT);
    assert_int_equal(why.pair_count, 6);
    for (uint32_t i = 1; i < 4; i++)
        assert_int_equal(plan.node[i] & 1, plan.node[0] & 1);
    /* Those of the other town are told how far they are, and from whom. */
    assert_int_equal(why.reject_count, 4);
    assert_int_equal(why.reject[0].code, ERR_NETWORK_TOO_FAR);
    assert_string_equal(why.reject[0].detail, "40.0 ms from n0, limit 5.0 ms");
}

static void test_too_far_says_what_would_do(void **state)
{
    (void)state;
    two_towns(6);
    ask.nodes = 4;
    ask.max_rtt_us = 5000;
    assert_int_equal(solve(), -ERR_NETWORK_TOO_FAR);
    assert_int_equal(why.largest_clique, 3);
    const struct why_relax *relax = relax_of("network.max_rtt");
    assert_non_null(relax);
    assert_string_equal(relax->value, "40.0 ms");
    assert_int_equal(relax->diameter_us, 40000);
    assert_int_equal(relax->price, 4 * MICRO_PER_UNIT);
    relax = relax_of("nodes");
    assert_non_null(relax);
    assert_string_equal(relax->value, "3");
    assert_int_equal(why.pair[0].rtt_us, 40000);
    assert_non_null(strstr(why.detail, "largest group near enough is 3 of 4"));
    /* The relaxed ask is really placed. */
    ask.max_rtt_us = 40000;
    assert_int_equal(solve(), 0);
}

static void test_unreachable_pair_is_in_no_gang(void **state)
{
    (void)state;
    two_towns(2);
    ask.nodes = 2;
    link_of(0, 1)->reachable = false;
    assert_int_equal(solve(), -ERR_PEERS_UNREACHABLE);
    assert_int_equal(why.reject[0].code, ERR_PEERS_UNREACHABLE);
    assert_string_equal(why.reject[0].node, "n1");
    assert_string_equal(why.reject[0].detail, "no TCP connection with n0");
    assert_int_equal(probe_count, 0);
    ask.nodes = 1;
    assert_int_equal(solve(), 0);
}

static void test_unmeasured_pair_is_probed_not_assumed(void **state)
{
    (void)state;
    add_node(1, 8192, MICRO_PER_UNIT);
    add_node(1, 8192, MICRO_PER_UNIT);
    add_node(1, 8192, MICRO_PER_UNIT);
    add_link(0, 1, 500, true);
    add_link(0, 2, 0, true); /* a row without an RTT is no measurement */
    ask.nodes = 3;
    assert_int_equal(solve(), -ERR_NETWORK_UNMEASURED);
    assert_int_equal(probe_count, 2);
    assert_int_equal(probe[0].a, 0);
    assert_int_equal(probe[0].b, 2);
    assert_int_equal(probe[1].a, 1);
    assert_int_equal(probe[1].b, 2);
    ask.nodes = 2;
    assert_int_equal(solve(), 0);
    assert_int_equal(plan.node[0] + plan.node[1], 1);
    assert_int_equal(probe_count, 0);
}

static void test_price_decides_before_distance(void **state)
{
    (void)state;
    two_towns(4);
    pool.node[1].price = MICRO_PER_UNIT / 2;
    pool.node[3].price = MICRO_PER_UNIT / 2;
    link_of(1, 3)->rtt_us = 3000;
    ask.nodes = 2;
    assert_int_equal(solve(), 0);
    assert_int_equal(plan.price, MICRO_PER_UNIT);
    assert_int_equal(plan.diameter_us, 3000);
    ask.max_price = MICRO_PER_UNIT / 4;
    assert_int_equal(solve(), -ERR_PRICE_TOO_LOW);
    const struct why_relax *relax = relax_of("budget.max_price");
    assert_non_null(relax);
    assert_string_equal(relax->value, "0.50");
    assert_int_equal(why.funnel[FUNNEL_PRICE], 0);
    assert_int_equal(why.funnel[FUNNEL_HOST], 4);
}

static void test_an_image_needs_nodes_that_run_images(void **state)
{
    (void)state;
    add_node(1, 24576, MICRO_PER_UNIT);
    add_node(1, 24576, MICRO_PER_UNIT / 2);
    pool.node[0].images = true;
    ask.image = true;
    assert_int_equal(solve(), 0);
    assert_int_equal(plan.node[0], 0); /* the cheaper one cannot */
    assert_int_equal(why.reject_count, 1);
    assert_int_equal(why.reject[0].code, ERR_RUNTIME_MISSING);
    pool.node[0].images = false;
    assert_int_equal(solve(), -ERR_RUNTIME_MISSING);
    ask.cpu_milli = 64000; /* without its image it would not fit either */
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
}

static void test_vram(void **state)
{
    (void)state;
    add_node(1, 24576, MICRO_PER_UNIT);
    ask.gpu_memory = 24ull * 1000000000; /* 24GB fits a 24 GiB card */
    assert_int_equal(solve(), 0);
    ask.gpu_memory = 24ull << 30;
    assert_int_equal(solve(), 0);
    ask.gpu_memory = 40ull * 1000000000;
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
    assert_int_equal(why.funnel[FUNNEL_MODEL], 1);
    assert_int_equal(why.funnel[FUNNEL_MEMORY], 0);
    const struct why_relax *relax = relax_of("resources.gpu.memory");
    assert_non_null(relax);
    assert_string_equal(relax->value, "24 GiB");
    /* What it claims does not help when a fraction was measured. */
    pool.device[0][0].nominal_mib = 49152;
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
}

static void test_unproven_or_withdrawn_device_is_none(void **state)
{
    (void)state;
    add_node(2, 24576, MICRO_PER_UNIT);
    ask.gpus_per_node = 2;
    assert_int_equal(solve(), 0);
    pool.device[0][1].tier = TIER_CLAIMED;
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
    pool.device[0][1].tier = TIER_MEASURED;
    pool.device[0][1].offered = false;
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
    assert_int_equal(why.funnel[FUNNEL_MODEL], 0);
}

static void test_class_cpu_and_gpu_never_mix(void **state)
{
    (void)state;
    add_node(1, 8192, MICRO_PER_UNIT);
    pool.device[0][0].class = DEVICE_CPU;
    snprintf(pool.device[0][0].model, SPEC_MODEL_TEXT, "cpu-pocl-rtx 4090");
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
    ask.model_count = 1;
    snprintf(ask.models[0], SPEC_MODEL_TEXT, "4090");
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
    snprintf(ask.models[0], SPEC_MODEL_TEXT, "cpu");
    ask.cpu_device = true;
    assert_int_equal(solve(), 0);
    pool.device[0][0].class = DEVICE_GPU;
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
}

static void test_models_match_in_part(void **state)
{
    (void)state;
    add_node(1, 24576, MICRO_PER_UNIT);
    ask.model_count = 2;
    snprintf(ask.models[0], SPEC_MODEL_TEXT, "h100");
    snprintf(ask.models[1], SPEC_MODEL_TEXT, "4090");
    assert_int_equal(solve(), 0);
    ask.model_count = 1;
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
    assert_non_null(relax_of("resources.gpu.name"));
}

static void test_busy_is_not_absent(void **state)
{
    (void)state;
    two_towns(4);
    ask.nodes = 2;
    ask.max_rtt_us = 5000;
    ask.gpus_per_node = 2;
    pool.device[0][0].busy = true;
    pool.device[1][0].busy = true;
    assert_int_equal(solve(), -ERR_NOT_NOW);
    assert_int_equal(why.funnel[FUNNEL_FREE], 2);
    assert_non_null(relax_of("wait"));
    ask.gpus_per_node = 1;
    assert_int_equal(solve(), 0);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_not_equal(plan.slot[i] % 100, plan.node[i] < 2 ? 0 : 1);
}

static void test_smallest_sufficient_device_first(void **state)
{
    (void)state;
    add_node(3, 81920, MICRO_PER_UNIT);
    pool.device[0][1].nominal_mib = pool.device[0][1].measured_mib = 24576;
    pool.device[0][2].nominal_mib = pool.device[0][2].measured_mib = 40960;
    ask.gpu_memory = 30ull << 30;
    assert_int_equal(solve(), 0);
    assert_int_equal(plan.slot[0], 102);
    ask.gpu_memory = 0;
    ask.gpus_per_node = 2;
    assert_int_equal(solve(), 0);
    assert_int_equal(plan.slot[0], 101);
    assert_int_equal(plan.slot[1], 102);
}

static void test_filters_of_place_and_host(void **state)
{
    (void)state;
    add_node(1, 8192, MICRO_PER_UNIT);
    add_node(1, 8192, MICRO_PER_UNIT);
    memcpy(pool.node[1].country, "FR", 3);
    ask.country_count = 1;
    memcpy(ask.countries[0], "FR", 3);
    assert_int_equal(solve(), 0);
    assert_int_equal(plan.node[0], 1);
    ask.excluded_count = 1;
    snprintf(ask.excluded[0], SPEC_NAME_TEXT, "n1");
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
    assert_int_equal(why.funnel[FUNNEL_PLACE], 0);
    ask = (struct job_ask){.nodes = 1, .gpus_per_node = 1, .memory = 64ull << 30};
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
    assert_int_equal(why.funnel[FUNNEL_HOST], 0);
    pool.node[0].ready = false;
    pool.node[1].ready = false;
    assert_int_equal(solve(), -ERR_NO_NODES);
}

static void test_more_nodes_than_pool(void **state)
{
    (void)state;
    two_towns(4);
    ask.nodes = 6;
    assert_int_equal(solve(), -ERR_NO_SUCH_CAPACITY);
    assert_int_equal(why.asked, 6);
    setup(NULL);
    assert_int_equal(solve(), -ERR_NO_NODES);
    assert_int_equal(why.funnel[FUNNEL_KNOWN], 0);
}

static void test_ring_is_nearest_neighbour(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        add_node(1, 8192, MICRO_PER_UNIT);
    add_link(0, 1, 900, true);
    add_link(0, 2, 100, true);
    add_link(0, 3, 800, true);
    add_link(1, 2, 700, true);
    add_link(1, 3, 100, true);
    add_link(2, 3, 200, true);
    ask.nodes = 4;
    assert_int_equal(solve(), 0);
    const uint32_t ring[] = {0, 2, 3, 1};
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(plan.node[i], ring[i]);
    assert_int_equal(plan.diameter_us, 900);
}

/* A graph that leads greed astray: only an exhaustive look finds the gang. */
static void test_hidden_clique_is_found(void **state)
{
    (void)state;
    const uint32_t n = 18;
    for (uint32_t i = 0; i < n; i++)
        add_node(1, 8192, i < 12 ? MICRO_PER_UNIT : 2 * MICRO_PER_UNIT);
    for (uint32_t a = 0; a < n; a++) {
        for (uint32_t b = a + 1; b < n; b++) {
            /* 0-11: a complete 3-partite graph (cliques of 3, high degree); 12-17: one of 6 */
            bool near = b < 12 ? a % 3 != b % 3 : a >= 12;
            if (a < 12 && b >= 12)
                near = (a + b) % 2 == 0;
            add_link(a, b, near ? 1000 : 90000, true);
        }
    }
    ask.nodes = 6;
    ask.max_rtt_us = 2000;
    assert_int_equal(solve(), 0);
    assert_int_equal(plan.diameter_us, 1000);
}

static void test_same_input_same_plan(void **state)
{
    (void)state;
    two_towns(12);
    ask.nodes = 5;
    assert_int_equal(solve(), 0);
    struct place_plan first = plan;
    struct why first_why = why;
    memset(&plan, 0xff, sizeof(plan));
    assert_int_equal(solve(), 0);
    assert_memory_equal(first.node, plan.node, sizeof(plan.node));
    assert_memory_equal(first.slot, plan.slot, sizeof(plan.slot));
    assert_memory_equal(&first_why, &why, sizeof(why));
}

static void spoil(struct place_plan *bad, unsigned how)
{
    switch (how) {
    case 0:
        bad->nodes = 1;
        break;
    case 1:
        bad->node[1] = bad->node[0];
        break;
    case 2:
        bad->node[0] = 99;
        break;
    case 3:
        bad->slot[1] = bad->slot[0];
        break;
    case 4:
        bad->slot[0] = 7;
        break;
    case 5:
        bad->price++;
        break;
    default:
        bad->diameter_us++;
        break;
    }
}

static void test_checker_catches_each_lie(void **state)
{
    (void)state;
    struct err err = {0};
    two_towns(4);
    ask.nodes = 2;
    ask.gpus_per_node = 2;
    ask.max_rtt_us = 5000;
    assert_int_equal(solve(), 0);
    for (unsigned how = 0; how < 7; how++) {
        struct place_plan bad = plan;
        spoil(&bad, how);
        assert_int_equal(place_check(&pool.fleet, &ask, &bad, &err), -ERR_INTERNAL);
    }
    /* The world changes under a good plan. */
    uint32_t a = plan.node[0] < plan.node[1] ? plan.node[0] : plan.node[1];
    uint32_t b = plan.node[0] < plan.node[1] ? plan.node[1] : plan.node[0];
    link_of(a, b)->reachable = false;
    assert_int_equal(place_check(&pool.fleet, &ask, &plan, &err), -ERR_INTERNAL);
    link_of(a, b)->reachable = true;
    link_of(a, b)->rtt_us = 6000;
    assert_int_equal(place_check(&pool.fleet, &ask, &plan, &err), -ERR_INTERNAL);
    link_of(a, b)->rtt_us = 1000;
    pool.device[a][0].busy = true;
    assert_int_equal(place_check(&pool.fleet, &ask, &plan, &err), -ERR_INTERNAL);
    pool.device[a][0].busy = false;
    pool.device[a][0].class = DEVICE_CPU;
    assert_int_equal(place_check(&pool.fleet, &ask, &plan, &err), -ERR_INTERNAL);
    pool.device[a][0].class = DEVICE_GPU;
    assert_int_equal(place_check(&pool.fleet, &ask, &plan, &err), 0);
    pool.node[a].ready = false;
    assert_int_equal(place_check(&pool.fleet, &ask, &plan, &err), -ERR_INTERNAL);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        CASE(m10_a_model_that_nobody_has_is_named_with_the_nearest),
        CASE(test_near_town_is_chosen),
        CASE(test_too_far_says_what_would_do),
        CASE(test_unreachable_pair_is_in_no_gang),
        CASE(test_unmeasured_pair_is_probed_not_assumed),
        CASE(test_price_decides_before_distance),
        CASE(test_an_image_needs_nodes_that_run_images),
        CASE(test_vram),
        CASE(test_unproven_or_withdrawn_device_is_none),
        CASE(test_class_cpu_and_gpu_never_mix),
        CASE(test_models_match_in_part),
        CASE(test_busy_is_not_absent),
        CASE(test_smallest_sufficient_device_first),
        CASE(test_filters_of_place_and_host),
        CASE(test_more_nodes_than_pool),
        CASE(test_ring_is_nearest_neighbour),
        CASE(test_hidden_clique_is_found),
        CASE(test_same_input_same_plan),
        CASE(test_checker_catches_each_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
