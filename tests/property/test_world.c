/*
 * Random lives of a small pool: workers that answer, lie, fall silent, answer twice or late; owners
 * and tenants that change their minds; restarts of the orchestrator. After every step the world
 * keeps its invariants, a database would take its rows, and a world rebuilt from these rows is the
 * same world. `test_world [SEED [CASES]]` repeats a seed that was printed.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/world/bench.h"

#ifdef __SANITIZE_ADDRESS__
#define DEFAULT_CASES 4000u /* ten times slower */
#else
#define DEFAULT_CASES 20000u
#endif
#define STEPS    128u
#define MAX_JOBS 4u

struct life {
    struct bench bench;
    uint64_t chance; /* state of the generator */
    struct uuid job[MAX_JOBS];
    uint32_t job_count;
    struct node_claim claim[BENCH_MAX_NODES];
    uint64_t receipt_seq;
    struct row stale; /* a rank as it once was: news about it come late */
};

static const char *doing = "";
static uint64_t current_seed;

/* How many jobs ended how: a generator that never gets far proves nothing. */
static uint64_t ended[JOB_STATE_COUNT];
static uint64_t retried;
static uint64_t charged;
static uint64_t refunded;

static void report_seed(int signal)
{
    (void)signal;
    fprintf(stderr, "seed %" PRIu64 " while %s\n", current_seed, doing);
}

static _Noreturn void fail(const char *text)
{
    fprintf(stderr, "property broken: %s\n", text);
    abort();
}

/* splitmix64 (Steele et al. 2014). */
static uint64_t draw(struct life *life)
{
    uint64_t z = life->chance += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t below(struct life *life, uint32_t n)
{
    return (uint32_t)(draw(life) % n);
}

static bool once_in(struct life *life, uint32_t n)
{
    return below(life, n) == 0;
}

/* -- checks ---------------------------------------------------------------------------------- */

static void check_rebuilt(struct life *life)
{
    struct buf live;
    struct buf loaded;
    struct world *world = shadow_load(&life->bench.shadow);

    doing = "comparing with the world rebuilt from rows";
    buf_init(&live, 0);
    buf_init(&loaded, 0);
    world_text(life->bench.world, &live);
    world_text(world, &loaded);
    if (strcmp(live.data, loaded.data) != 0) {
        fprintf(stderr, "-- live\n%s-- loaded\n%s", live.data, loaded.data);
        fail("a world rebuilt from its rows differs");
    }
    buf_fini(&live);
    buf_fini(&loaded);
    world_free(world);
}

static void check_money(struct life *life)
{
    struct err err;

    doing = "adding up the ledger";
    if (shadow_check_money(&life->bench.shadow, &err) < 0)
        fail(err.text);
}

/* -- the world around ------------------------------------------------------------------------- */

static struct rank *any_rank(struct life *life)
{
    struct table *ranks = &life->bench.world->ranks;

    return ranks->count == 0 ? NULL : ranks->items[below(life, ranks->count)];
}

static uint32_t any_node(struct life *life)
{
    return below(life, life->bench.node_count);
}

static void do_news(struct life *life)
{
    struct rank *rank = any_rank(life);
    int code = once_in(life, 4) ? (int)below(life, 3) : 0;

    if (rank == NULL)
        return;
    if (once_in(life, 16)) {
        life->stale.kind = ROW_RANK;
        life->stale.rank = rank->row;
    }
    /* Mostly what comes next; sometimes anything. */
    static const enum task_news next[RANK_STATE_COUNT] = {
        [RANK_ASSIGNED] = TASK_PREPARING, [RANK_PREPARING] = TASK_READY,
        [RANK_READY] = TASK_STARTED,      [RANK_STARTED] = TASK_EXITED,
        [RANK_EXITED] = TASK_DONE,        [RANK_DONE] = TASK_DONE,
        [RANK_LOST] = TASK_DONE,
    };
    enum task_news news =
        once_in(life, 10) ? (enum task_news)below(life, TASK_NEWS_COUNT) : next[rank->row.state];
    doing = task_news_name(news);
    bench_task(&life->bench, rank, news, code);
}

/* The same for a whole gang, so that many get far. */
static void do_gang_news(struct life *life)
{
    struct rank *rank = any_rank(life);

    if (rank == NULL)
        return;
    struct uuid job = rank->attempt->job->row.uid;
    static const enum task_news next[ATTEMPT_STATE_COUNT] = {
        [ATTEMPT_PREPARING] = TASK_READY, [ATTEMPT_STARTING] = TASK_STARTED,
        [ATTEMPT_RUNNING] = TASK_EXITED,  [ATTEMPT_STOPPING] = TASK_DONE,
        [ATTEMPT_ENDED] = TASK_DONE,
    };
    doing = "news of a gang";
    bench_all(&life->bench, &job, next[rank->attempt->row.state], 0);
}

static void do_stale_news(struct life *life)
{
    struct event event = {.kind = EV_TASK};

    if (life->stale.kind != ROW_RANK)
        return;
    doing = "stale news";
    event.task = (struct ev_task){
        .node = life->stale.rank.node,
        .attempt = life->stale.rank.attempt,
        .term = life->bench.term,
        .epoch = 1 + below(life, 3),
        .rank = life->stale.rank.rank,
        .news = (enum task_news)below(life, TASK_NEWS_COUNT),
        .exit_code = (int32_t)below(life, 2),
    };
    bench_step(&life->bench, &event);
}

static void do_submit(struct life *life)
{
    struct bench *bench = &life->bench;
    struct job_ask *ask = &bench->ask;

    if (life->job_count == MAX_JOBS)
        return;
    doing = "submit";
    ask->max_attempts = 1 + below(life, 3);
    ask->retry_on = (uint32_t)(draw(life) | draw(life)) & ((1u << FAIL_CLASS_COUNT) - 1);
    ask->max_total = once_in(life, 3) ? 1 + below(life, 60000) : 10 * BENCH_UNIT;
    ask->max_rtt_us = once_in(life, 2) ? 2000 : 0;
    ask->max_duration_us = (1 + below(life, 900)) * 1000000ull;
    ask->queue_timeout_us = once_in(life, 4) ? 60 * 1000000ull : 0;
    ask->priority = below(life, 3);
    struct reply reply = bench_submit(bench, 1 + below(life, 3), 1 + below(life, 2));
    if (reply.err.code == ERR_NONE)
        life->job[life->job_count++] = reply.object;
}

static void do_cancel(struct life *life)
{
    if (life->job_count == 0)
        return;
    doing = "cancel";
    (void)bench_cancel(&life->bench, &life->job[below(life, life->job_count)]);
}

static void do_hello(struct life *life)
{
    struct bench *bench = &life->bench;
    uint32_t index = any_node(life);
    struct event event = {.kind = EV_NODE_HELLO};
    struct node_claim *claim = &life->claim[index];

    doing = "hello";
    if (once_in(life, 8))
        claim->device[0].memory_mib = 8192 + 1024 * below(life, 3);
    if (once_in(life, 8))
        claim->device_count = 1 + below(life, 2);
    claim->paused = once_in(life, 12);
    event.hello.node = bench->node[index];
    event.hello.boot = 1;
    event.hello.claim = claim;
    for (uint32_t i = 0; i < bench->world->ranks.count; i++) {
        const struct rank *rank = bench->world->ranks.items[i];
        if (rank->row.node != bench->node[index] || once_in(life, 6)
            || event.hello.task_count == HELLO_MAX_TASKS)
            continue;
        event.hello.task[event.hello.task_count++] = (struct held_task){
            .attempt = rank->row.attempt,
            .term = rank->attempt->row.term,
            .epoch = rank->attempt->row.epoch - once_in(life, 12),
            .rank = rank->row.rank,
        };
    }
    bench_step(bench, &event);
}

static void do_receipt(struct life *life)
{
    struct bench *bench = &life->bench;
    struct rank *rank = any_rank(life);
    struct event event = {.kind = EV_RECEIPT};

    if (rank == NULL)
        return;
    doing = "receipt";
    event.receipt.node = rank->row.node;
    event.receipt.seq = ++life->receipt_seq;
    event.receipt.bytes = (const uint8_t *)"r";
    event.receipt.bytes_length = 1;
    event.receipt.line_count = 1;
    event.receipt.line[0].attempt = rank->row.attempt;
    event.receipt.line[0].term = rank->attempt->row.term;
    event.receipt.line[0].epoch = rank->attempt->row.epoch;
    event.receipt.line[0].used_ms = below(life, 2000000);
    bench_step(bench, &event);
}

static void do_node(struct life *life)
{
    static const enum event_kind kinds[] = {EV_NODE_SILENT, EV_NODE_BACK, EV_NODE_BACK,
                                            EV_NODE_BYE};
    struct event event = {.kind = EV_NODE_SET};

    doing = "node";
    if (!once_in(life, 4)) {
        bench_node_event(&life->bench, kinds[below(life, 4)], any_node(life));
        return;
    }
    event.node_set.id = life->bench.node[any_node(life)];
    event.node_set.verb = (enum node_verb)below(life, NODE_VERB_COUNT);
    event.node_set.price = (micro_t)below(life, 3) * 700001;
    if (event.node_set.verb == NODE_LEAVE && !once_in(life, 6))
        event.node_set.verb = NODE_UNDRAIN;
    bench_step(&life->bench, &event);
}

static void do_device(struct life *life)
{
    struct bench *bench = &life->bench;
    uint32_t index = any_node(life);
    struct event event = {.kind = EV_DEVICE_USE};

    doing = "device";
    if (!once_in(life, 3)) {
        bench_selftest(bench, index, below(life, 2), !once_in(life, 5), 8192);
        return;
    }
    event.device_use = (struct ev_device_use){
        .node = bench->node[index], .device = below(life, 2), .foreign = once_in(life, 2)};
    bench_step(bench, &event);
}

static void do_link(struct life *life)
{
    struct bench *bench = &life->bench;
    uint32_t a = any_node(life);
    uint32_t b = any_node(life);

    doing = "link";
    if (a != b)
        bench_link(bench, a, b, once_in(life, 6) ? 0 : 300 + below(life, 3000), !once_in(life, 6));
}

static void do_time(struct life *life)
{
    static const usec_t spans[] = {1, 2, 5, 12, 31, 130};

    doing = "time";
    bench_wait(&life->bench, spans[below(life, 6)] * BENCH_SECOND + below(life, 1000));
}

/* The orchestrator dies and comes back: what it knows is what was committed. */
static void do_restart(struct life *life)
{
    struct bench *bench = &life->bench;
    struct world *rebuilt = shadow_load(&bench->shadow);

    doing = "restart";
    world_free(bench->world);
    bench->world = rebuilt;
    bench->term++;
    bench_step(bench, &(struct event){.kind = EV_BOOT});
    /* Boot again: nothing more to say. */
    bench_step(bench, &(struct event){.kind = EV_BOOT});
    if (bench->out.row_count != 0)
        fail("a second boot decided something");
}

static void do_schedule(struct life *life)
{
    doing = "schedule";
    while (bench_schedule(&life->bench))
        ;
}

static void act(struct life *life)
{
    static const struct {
        void (*f)(struct life *);
        uint32_t weight;
    } acts[] = {
        {do_news, 24},    {do_gang_news, 20}, {do_schedule, 14}, {do_submit, 8}, {do_time, 12},
        {do_receipt, 16}, {do_node, 5},       {do_hello, 8},     {do_link, 5},   {do_device, 3},
        {do_cancel, 2},   {do_stale_news, 2}, {do_restart, 1},
    };
    uint32_t total = 0;

    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
        total += acts[i].weight;
    uint32_t at = below(life, total);
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        if (at < acts[i].weight) {
            acts[i].f(life);
            return;
        }
        at -= acts[i].weight;
    }
}

/* -- one life -------------------------------------------------------------------------------- */

static void begin(struct life *life, uint64_t seed)
{
    struct bench *bench = &life->bench;

    memset(life, 0, sizeof(*life));
    life->chance = seed;
    doing = "begin";
    bench_init(bench);
    uint32_t nodes = 1 + below(life, 4);
    for (uint32_t i = 0; i < nodes; i++) {
        life->claim[i] = bench_claim(i, 2, 8192);
        life->claim[i].price = (micro_t)below(life, 4) * 333333;
        bench_enrol(bench, &life->claim[i]);
        bench_hello(bench, i, &life->claim[i]);
        for (uint32_t d = 0; d < 2; d++)
            bench_selftest(bench, i, d, !once_in(life, 10), 8192);
    }
    bench_mesh(bench, 0, 500);
    bench->policy.settle_every_us = 5 * BENCH_SECOND;
    bench->policy.backoff_first_us = BENCH_SECOND;
}

/* Faults end, workers answer: every job reaches its end and every micro-unit its owner. */
static void settle(struct life *life)
{
    struct bench *bench = &life->bench;

    for (uint32_t i = 0; i < life->job_count; i++) {
        doing = "the end";
        (void)bench_cancel(bench, &life->job[i]);
        bench_all(bench, &life->job[i], TASK_DONE, 0);
    }
    bench_wait(bench, 1200 * BENCH_SECOND);
    if (bench->world->jobs.count != 0)
        fail("a job never ends");
    if (bench_balance(bench, PURPOSE_ESCROW) != 0)
        fail("escrow is left behind");
    for (uint32_t i = 0; i < life->job_count; i++) {
        const struct job_row *row = bench_job_row(bench, &life->job[i]);
        if (!job_state_is_final(row->state))
            fail("an acknowledged job was forgotten");
        ended[row->state]++;
        retried += row->attempts > 1;
        charged += row->charged > 0;
    }
    for (uint32_t i = 0; i < bench->shadow.count; i++) {
        const struct row *row = &bench->shadow.rows[i];
        refunded += row->kind == ROW_TRANSFER && row->transfer.kind == TRANSFER_REFUND;
    }
}

static void live(struct life *life, uint64_t seed)
{
    current_seed = seed;
    begin(life, seed);
    for (uint32_t i = 0; i < STEPS; i++) {
        act(life);
        if (once_in(life, 12))
            check_rebuilt(life);
    }
    check_rebuilt(life);
    check_money(life);
    settle(life);
    check_rebuilt(life);
    check_money(life);
    bench_fini(&life->bench);
}

static uint64_t number(const char *text)
{
    uint64_t value = 0;

    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (uint64_t)(*text - '0');
    return value;
}

int main(int argc, char **argv)
{
    static struct life life;
    uint64_t seed = argc > 1 ? number(argv[1]) : (uint64_t)time(NULL) * 1000003u;
    uint64_t cases = argc > 2 ? number(argv[2]) : argc > 1 ? 1 : DEFAULT_CASES;

    signal(SIGABRT, report_seed);
    printf("seed %" PRIu64 ", %" PRIu64 " cases\n", seed, cases);
    fflush(stdout);
    for (uint64_t i = 0; i < cases; i++) {
        current_seed = seed + i;
        live(&life, seed + i);
    }
    printf("%" PRIu64 " lives, all invariants held\n", cases);
    for (int i = JOB_SUCCEEDED; i <= JOB_EXPIRED; i++)
        printf("%s %" PRIu64 "\n", job_state_name((enum job_state)i), ended[i]);
    printf("retried %" PRIu64 ", charged %" PRIu64 ", refunds %" PRIu64 "\n", retried, charged,
           refunded);
    bool rich = cases < 1000
                || (ended[JOB_SUCCEEDED] > cases / 100 && ended[JOB_FAILED] > cases / 100
                    && ended[JOB_CANCELLED] > cases / 100 && ended[JOB_EXPIRED] > cases / 100
                    && retried > cases / 100 && charged > cases / 100 && refunded > cases / 100);
    if (!rich)
        fprintf(stderr, "the lives were too dull to prove anything\n");
    return rich ? 0 : 1;
}
