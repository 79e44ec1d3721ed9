#include "tests/store/support_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/io/spec_json.h"

static const char SPEC[] = "{\"version\":1,\"name\":\"train\",\"nodes\":1,"
                           "\"resources\":{\"gpu\":{\"memory\":\"24GB\",\"count\":1}},"
                           "\"max_duration\":\"24h\",\"commands\":[\"true\"]}";

void fill_hash(uint8_t out[32], uint8_t seed)
{
    for (uint8_t i = 0; i < 32; i++)
        out[i] = (uint8_t)(seed * 31 + i * 7);
}

struct uuid test_uuid(uint8_t seed)
{
    struct uuid id;

    for (uint8_t i = 0; i < sizeof(id.bytes); i++)
        id.bytes[i] = (uint8_t)(seed + i * 13 + 1);
    return id;
}

static struct row *add(struct fixture *fixture, enum row_kind kind)
{
    struct row *row = &fixture->row[fixture->count++];

    assert_true(fixture->count <= FIXTURE_MAX);
    row->kind = kind;
    return row;
}

static void put(char *out, size_t size, const char *text)
{
    memset(out, 0, size);
    memcpy(out, text, strlen(text));
}
#define PUT(field, text) put(field, sizeof(field), text)

static void add_people(struct fixture *fixture)
{
    struct row *row = add(fixture, ROW_PROJECT);
    row->project =
        (struct project_row){.id = FIXTURE_PROJECT, .uid = test_uuid(1), .created_us = FIXTURE_NOW};
    PUT(row->project.name, "atlas");
    row = add(fixture, ROW_PROVIDER);
    row->provider = (struct provider_row){
        .id = FIXTURE_PROVIDER, .uid = test_uuid(2), .created_us = FIXTURE_NOW};
    PUT(row->provider.name, "käthe's garage");
    row = add(fixture, ROW_USER);
    row->user = (struct user_row){
        .id = FIXTURE_USER, .uid = test_uuid(3), .role = ROLE_AUDITOR, .created_us = FIXTURE_NOW};
    PUT(row->user.name, "ada");
    row = add(fixture, ROW_TOKEN);
    row->token = (struct token_row){.id = FIXTURE_TOKEN,
                                    .uid = test_uuid(4),
                                    .project = FIXTURE_PROJECT,
                                    .role = ROLE_TENANT,
                                    .scopes = SCOPE_JOBS_READ | SCOPE_JOBS_WRITE,
                                    .created_us = FIXTURE_NOW,
                                    .expires_us = FIXTURE_NOW + 5};
    fill_hash(row->token.hash, 4);
    PUT(row->token.prefix, "sht_abcd");
    row = add(fixture, ROW_JOIN_TOKEN);
    row->join_token = (struct join_token_row){.id = FIXTURE_JOIN,
                                              .uid = test_uuid(5),
                                              .provider = FIXTURE_PROVIDER,
                                              .uses_left = 3,
                                              .created_us = FIXTURE_NOW,
                                              .expires_us = FIXTURE_NOW + 9};
    fill_hash(row->join_token.hash, 5);
}

static void add_account(struct fixture *fixture, uint64_t id, uint64_t project, uint64_t provider,
                        enum account_purpose purpose, micro_t balance)
{
    struct row *row = add(fixture, ROW_ACCOUNT);

    row->account = (struct account_row){.id = id,
                                        .uid = test_uuid((uint8_t)(id + 40)),
                                        .project = project,
                                        .provider = provider,
                                        .purpose = purpose,
                                        .balance = balance};
    PUT(row->account.asset, "EUR");
}

static void add_transfer(struct fixture *fixture, uint64_t id, uint64_t debit, uint64_t credit,
                         micro_t amount, enum transfer_kind kind)
{
    struct row *row = add(fixture, ROW_TRANSFER);
    bool of_job = kind != TRANSFER_DEPOSIT;
    bool of_lease = kind == TRANSFER_EARN || kind == TRANSFER_FEE;

    row->transfer = (struct transfer_row){.id = id,
                                          .debit = debit,
                                          .credit = credit,
                                          .amount = amount,
                                          .kind = kind,
                                          .job = of_job ? FIXTURE_JOB : 0,
                                          .lease = of_lease ? FIXTURE_LEASE : 0,
                                          .hold = of_lease ? FIXTURE_HOLD : 0,
                                          .at_us = FIXTURE_NOW + (usec_t)id};
    PUT(row->transfer.asset, "EUR");
    PUT(row->transfer.memo, "größe");
}

/* Deposit 100, hold 40, of which 1.8 + 0.2 are earned and charged. */
static void add_money(struct fixture *fixture)
{
    add_account(fixture, FIXTURE_EXTERNAL, 0, 0, PURPOSE_EXTERNAL, -100000000);
    add_account(fixture, FIXTURE_AVAILABLE, FIXTURE_PROJECT, 0, PURPOSE_AVAILABLE, 60000000);
    add_account(fixture, FIXTURE_ESCROW, FIXTURE_PROJECT, 0, PURPOSE_ESCROW, 38000000);
    add_account(fixture, FIXTURE_EARNED, 0, FIXTURE_PROVIDER, PURPOSE_EARNED, 1800000);
    add_account(fixture, FIXTURE_FEES, 0, 0, PURPOSE_FEES, 200000);
    add_transfer(fixture, FIXTURE_DEPOSIT, FIXTURE_EXTERNAL, FIXTURE_AVAILABLE, 100000000,
                 TRANSFER_DEPOSIT);
    add_transfer(fixture, FIXTURE_HOLD, FIXTURE_AVAILABLE, FIXTURE_ESCROW, 40000000, TRANSFER_HOLD);
    add_transfer(fixture, FIXTURE_EARN, FIXTURE_ESCROW, FIXTURE_EARNED, 1800000, TRANSFER_EARN);
    add_transfer(fixture, FIXTURE_FEE, FIXTURE_ESCROW, FIXTURE_FEES, 200000, TRANSFER_FEE);
}

static void add_node(struct fixture *fixture, uint64_t id, const char *name)
{
    struct row *row = add(fixture, ROW_NODE);

    row->node = (struct node_row){.id = id,
                                  .uid = test_uuid((uint8_t)(id + 60)),
                                  .provider = FIXTURE_PROVIDER,
                                  .state = NODE_READY,
                                  .conditions = NODE_UNKNOWN | NODE_PAUSED,
                                  .reason = ERR_HEARTBEAT_MISSED,
                                  .port_low = 41000,
                                  .port_high = 41063,
                                  .probe_port = 65535,
                                  .cpu_milli = UINT32_MAX,
                                  .memory_mib = 65536,
                                  .disk_mib = 1,
                                  .price = 600000,
                                  .notice_s = 60,
                                  .boot = INT64_MAX,
                                  .created_us = FIXTURE_NOW};
    PUT(row->node.name, name);
    PUT(row->node.detail, "a 'quoted' \"detail\" with \\ and €");
    fill_hash(row->node.curve_key, (uint8_t)(id + 1));
    fill_hash(row->node.sign_key, (uint8_t)(id + 2));
    fill_hash(row->node.machine, (uint8_t)(id + 3));
    PUT(row->node.region, "eu-north");
    PUT(row->node.country, "NO");
    PUT(row->node.address, "2001:db8::17");
    PUT(row->node.runtime, "bwrap");
    PUT(row->node.version, "0.1.0");
}

static void add_hardware(struct fixture *fixture)
{
    add_node(fixture, FIXTURE_NODE_A, "atlas-1");
    add_node(fixture, FIXTURE_NODE_B, "atlas-2");
    struct row *row = add(fixture, ROW_NODE_EVENT);
    row->node_event = (struct node_event_row){.id = FIXTURE_NODE_EVENT,
                                              .node = FIXTURE_NODE_A,
                                              .at_us = FIXTURE_NOW,
                                              .from_state = NODE_STATE_COUNT,
                                              .to_state = NODE_JOINING,
                                              .conditions = NODE_MAINTENANCE,
                                              .reason = ERR_SESSION_STARTED,
                                              .actor = ERR_ACTOR_PROVIDER};
    PUT(row->node_event.detail, "hello");
    row = add(fixture, ROW_DEVICE);
    row->device = (struct device_row){.id = FIXTURE_DEVICE,
                                      .node = FIXTURE_NODE_A,
                                      .ordinal = 0,
                                      .class = DEVICE_GPU,
                                      .nominal_mib = 24576,
                                      .measured_mib = 24100,
                                      .tier = TIER_MEASURED,
                                      .offered = true,
                                      .matmul_gflops = 31000,
                                      .copy_mib_s = 900000};
    PUT(row->device.uuid, "GPU-1b2c");
    PUT(row->device.vendor, "nvidia");
    PUT(row->device.model, "rtx 4090");
    PUT(row->device.driver, "550.1");
    row = add(fixture, ROW_SLOT);
    row->slot = (struct slot_row){
        .id = FIXTURE_SLOT, .device = FIXTURE_DEVICE, .kind = SLOT_WHOLE, .vram_mib = 24100};
    row = add(fixture, ROW_LINK);
    row->link = (struct link_row){.a = FIXTURE_NODE_A,
                                  .b = FIXTURE_NODE_B,
                                  .rtt_p50_us = 900,
                                  .rtt_p95_us = 1200,
                                  .loss_ppm = 1000000,
                                  .reach_ab = true,
                                  .reach_ba = false,
                                  .measured_us = FIXTURE_NOW};
}

static void fill_why(struct why *why)
{
    why->placed = true;
    why->code = ERR_NETWORK_TOO_FAR;
    PUT(why->detail, "2 nodes → 1 under 3 ms");
    for (enum funnel_step step = 0; step < FUNNEL_STEP_COUNT; step++)
        why->funnel[step] = 100 - (uint32_t)step;
    why->largest_clique = 3;
    why->asked = 4;
    why->diameter_us = 1200;
    why->price = 2100001;
    why->relax_count = 1;
    why->relax[0].code = ERR_PRICE_TOO_LOW;
    PUT(why->relax[0].field, "budget.max_price");
    PUT(why->relax[0].value, "0.60");
    why->relax[0].diameter_us = 4000;
    why->relax[0].price = 2100000;
    why->reject_count = 1;
    PUT(why->reject[0].node, "far-1");
    PUT(why->reject[0].region, "ap-south");
    why->reject[0].code = ERR_NETWORK_TOO_FAR;
    PUT(why->reject[0].detail, "150.3 ms from atlas-1, limit 5.0 ms");
    why->node_count = 1;
    PUT(why->node[0], "atlas-1");
    why->pair_count = 1;
    PUT(why->pair[0].a, "atlas-1");
    PUT(why->pair[0].b, "atlas-2");
    why->pair[0].rtt_us = 1200;
}

static void add_job(struct fixture *fixture)
{
    struct row *row = add(fixture, ROW_JOB);

    row->job = (struct job_row){.id = FIXTURE_JOB,
                                .uid = test_uuid(90),
                                .project = FIXTURE_PROJECT,
                                .token = FIXTURE_TOKEN,
                                .state = JOB_RUNNING,
                                .conditions = JOB_DEGRADED,
                                .reason = ERR_BACK_OFF,
                                .class = FAIL_HARDWARE,
                                .ask = &fixture->spec.ask,
                                .spec = SPEC,
                                .held = 38000000,
                                .charged = 2000000,
                                .hold = FIXTURE_HOLD,
                                .epoch = 1,
                                .attempts = 1,
                                .attempt = FIXTURE_ATTEMPT,
                                .policy_version = 1,
                                .created_us = FIXTURE_NOW,
                                .queued_us = FIXTURE_NOW + 1,
                                .state_us = FIXTURE_NOW + 2,
                                .exit_code = -7,
                                .why = &fixture->why};
    PUT(row->job.name, "train");
    PUT(row->job.detail, "detail");
    fill_hash(row->job.spec_sha256, 90);
    row = add(fixture, ROW_ATTEMPT);
    row->attempt = (struct attempt_row){.id = FIXTURE_ATTEMPT,
                                        .uid = test_uuid(91),
                                        .job = FIXTURE_JOB,
                                        .term = 1,
                                        .epoch = 1,
                                        .state = ATTEMPT_RUNNING,
                                        .then = JOB_STATE_COUNT,
                                        .diameter_us = 1200,
                                        .price = 600000,
                                        .created_us = FIXTURE_NOW,
                                        .started_us = FIXTURE_NOW + 1,
                                        .running_us = FIXTURE_NOW + 2};
    row = add(fixture, ROW_RANK);
    row->rank = (struct rank_row){.id = FIXTURE_RANK,
                                  .attempt = FIXTURE_ATTEMPT,
                                  .node = FIXTURE_NODE_A,
                                  .state = RANK_STARTED,
                                  .port = 41001,
                                  .exit_code = INT32_MIN,
                                  .class = FAIL_UNREACHABLE,
                                  .state_us = FIXTURE_NOW};
    row = add(fixture, ROW_LEASE);
    row->lease = (struct lease_row){.id = FIXTURE_LEASE,
                                    .uid = test_uuid(92),
                                    .attempt = FIXTURE_ATTEMPT,
                                    .rank = FIXTURE_RANK,
                                    .node = FIXTURE_NODE_A,
                                    .provider = FIXTURE_PROVIDER,
                                    .term = 1,
                                    .epoch = 1,
                                    .price = 600000,
                                    .fee_ppm = 100000,
                                    .notice_s = 60,
                                    .granted_us = FIXTURE_NOW,
                                    .meter_from_us = FIXTURE_NOW + 2,
                                    .receipt_ms = 12000001,
                                    .billed_ms = 12000000,
                                    .earned = 1800000,
                                    .fee = 200000};
    row = add(fixture, ROW_LEASE_SLOT);
    row->lease_slot =
        (struct lease_slot_row){.lease = FIXTURE_LEASE, .slot = FIXTURE_SLOT, .live = true};
}

static void add_history(struct fixture *fixture)
{
    static const uint8_t bytes[] = {0, 255, 0, 10, 39};
    struct row *row = add(fixture, ROW_JOB_EVENT);

    row->job_event = (struct job_event_row){.id = FIXTURE_JOB_EVENT,
                                            .job = FIXTURE_JOB,
                                            .at_us = FIXTURE_NOW,
                                            .from_state = JOB_STATE_COUNT,
                                            .to_state = JOB_QUEUED};
    PUT(row->job_event.detail, "queued");
    row = add(fixture, ROW_RECEIPT);
    memcpy(fixture->receipt, bytes, sizeof(bytes));
    row->receipt = (struct receipt_row){.id = FIXTURE_RECEIPT,
                                        .node = FIXTURE_NODE_A,
                                        .seq = 9,
                                        .at_us = FIXTURE_NOW,
                                        .bytes = fixture->receipt,
                                        .bytes_length = sizeof(bytes)};
    memset(row->receipt.signature, 0x5a, sizeof(row->receipt.signature));
    row = add(fixture, ROW_CONTENT);
    row->content = (struct content_row){.id = FIXTURE_CONTENT,
                                        .project = FIXTURE_PROJECT,
                                        .size = (uint64_t)1 << 40,
                                        .created_us = FIXTURE_NOW};
    fill_hash(row->content.sha256, 100);
    row = add(fixture, ROW_JOB_OUTPUT);
    row->job_output = (struct job_output_row){.id = FIXTURE_OUTPUT,
                                              .job = FIXTURE_JOB,
                                              .attempt = FIXTURE_ATTEMPT,
                                              .size = 77,
                                              .stored_us = FIXTURE_NOW};
    PUT(row->job_output.path, "/out");
    fill_hash(row->job_output.sha256, 101);
    row = add(fixture, ROW_IDEM);
    row->idem = (struct idem_row){.token = FIXTURE_TOKEN,
                                  .code = ERR_INSUFFICIENT_FUNDS,
                                  .object = test_uuid(90),
                                  .at_us = FIXTURE_NOW};
    PUT(row->idem.key, "key-1");
    fill_hash(row->idem.body_hash, 102);
}

void fixture_init(struct fixture *fixture)
{
    struct err err = {0};

    memset(fixture, 0, sizeof(*fixture));
    spec_init(&fixture->spec);
    if (spec_parse(SPEC, strlen(SPEC), &fixture->spec, &err) != 0)
        fail_msg("the fixture's spec: %s %s", err.pointer, err.text);
    fill_why(&fixture->why);
    struct row *row = add(fixture, ROW_CONTROL);
    row->control = (struct control_row){.next_id = FIXTURE_NEXT, .now_us = FIXTURE_NOW};
    add_people(fixture);
    add_money(fixture);
    add_hardware(fixture);
    add_job(fixture);
    add_history(fixture);
}

void fixture_fini(struct fixture *fixture)
{
    spec_fini(&fixture->spec);
}

struct row *fixture_row(struct fixture *fixture, enum row_kind kind)
{
    for (uint32_t i = 0; i < fixture->count; i++) {
        if (fixture->row[i].kind == kind)
            return &fixture->row[i];
    }
    fail_msg("the fixture has no %s", row_table(kind));
    return NULL;
}

/* -- a store in its loop ---------------------------------------------------------------------- */

void bench_open(struct bench *bench, const char *conninfo)
{
    struct err err = {0};

    memset(bench, 0, sizeof(*bench));
    bench->base = event_base_new();
    if (store_open(bench->base, conninfo, &bench->store, &err) != 0)
        fail_msg("%s", err.text);
}

void bench_close(struct bench *bench)
{
    store_close(bench->store);
    event_base_free(bench->base);
}

static void on_commit(enum commit_outcome outcome, uint64_t seq, const struct err *err, void *arg)
{
    struct bench *bench = arg;

    assert_false(bench->done);
    bench->done = true;
    bench->outcome = outcome;
    bench->seq = seq;
    bench->err = *err;
    (void)event_base_loopbreak(bench->base);
}

void bench_send(struct bench *bench, const struct batch *batch)
{
    bench->done = false;
    store_commit(bench->store, batch, on_commit, bench);
}

enum commit_outcome bench_wait(struct bench *bench)
{
    for (int i = 0; i < 400 && !bench->done; i++)
        bench_spin(bench, 50);
    if (!bench->done)
        fail_msg("no outcome in 20 s");
    return bench->outcome;
}

enum commit_outcome bench_commit(struct bench *bench, const struct row *rows, uint32_t count)
{
    const struct batch batch = {.rows = rows, .row_count = count};

    bench_send(bench, &batch);
    return bench_wait(bench);
}

void bench_spin(struct bench *bench, int milliseconds)
{
    const struct timeval limit = {.tv_sec = milliseconds / 1000,
                                  .tv_usec = milliseconds % 1000 * 1000};

    if (bench->done)
        return;
    (void)event_base_loopexit(bench->base, &limit);
    (void)event_base_dispatch(bench->base);
}
