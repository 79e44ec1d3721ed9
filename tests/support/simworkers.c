/*
 * Simulated workers for load tests: they join through the gateway, keep sessions, pass the
 * self-test by computing what it asks, and answer each order at once without running anything.
 *
 *   simworkers COUNT TOKEN [--devices N] [--price MICRO]      TOKEN: a join token with COUNT uses
 *
 * Prints "ready" when every session was welcomed; ends on SIGTERM. Links are not measured: jobs of
 * one node only.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/httpc.h"
#include "common/io/jointoken.h"
#include "common/io/json.h"
#include "common/io/keys.h"
#include "common/io/log.h"
#include "common/io/loop.h"
#include "common/pure/mem.h"
#include "common/pure/selftest.h"
#include "proto/worker.pb-c.h"

#define MAX_WORKERS  4096
#define MEMORY_MIB   1024u
#define HEARTBEAT_US 5000000

struct sim {
    struct identity identity;
    struct uuid node;
    char name[32];
    struct zsock *socket;
    uint8_t session[8];
    uint64_t seq;
    uint64_t receipt_seq;
    uint64_t acked;
    bool welcomed;
    struct run *run; /* the one task of each device */
};

/* A task between go and done: told to have run for as long as the clock says. */
struct run {
    uint64_t attempt;
    uint32_t term;
    uint32_t epoch;
    uint32_t rank;
    int64_t go_us;
};

static struct sim *sims;
static unsigned sim_count;
static unsigned welcomed;
static unsigned devices = 1;
static int64_t price = 400000;
static struct event_base *base;

static void die(const char *what, const struct err *err)
{
    fprintf(stderr, "simworkers: %s: %s %s\n", what, err_slug(err->code), err->text);
    exit(1);
}

/* Borrowed by claims that outlive the function that fills them. */
static struct {
    char region[8];
    char country[8];
    char address[16];
    char runtime[16];
    char version[32];
    char class[8];
    char model[16];
    char driver[8];
} said = {"sim", "DE", "127.0.0.1", "simulated", SHEAF_VERSION, "gpu", "simulated", "0"};

static void fill_claim(struct sim *sim, Sheaf__Claim *claim, Sheaf__ClaimDevice *device,
                       Sheaf__ClaimDevice **list, char (*uuids)[48])
{
    sheaf__claim__init(claim);
    claim->name = sim->name;
    claim->region = said.region;
    claim->country = said.country;
    claim->address = said.address;
    claim->port_low = 30000;
    claim->port_high = 30010;
    claim->probe_port = 30011;
    claim->cpu_milli = 64000;
    claim->memory_mib = 1u << 18;
    claim->disk_mib = 1u << 20;
    claim->runtime = said.runtime;
    claim->version = said.version;
    claim->price_micro = price;
    for (unsigned d = 0; d < devices; d++) {
        sheaf__claim_device__init(&device[d]);
        snprintf(uuids[d], sizeof(uuids[d]), "SIM-%s-%u", sim->name, d);
        device[d].uuid = uuids[d];
        device[d].device_class = said.class;
        device[d].vendor = said.model;
        device[d].model = said.model;
        device[d].driver = said.driver;
        device[d].memory_mib = MEMORY_MIB;
        device[d].offered = true;
        list[d] = &device[d];
    }
    claim->n_devices = devices;
    claim->devices = list;
}

static void send_envelope(struct sim *sim, Sheaf__Envelope *envelope, bool durable)
{
    struct buf bytes;

    envelope->protocol = 1;
    envelope->session.data = sim->session;
    envelope->session.len = sizeof(sim->session);
    envelope->seq = durable ? ++sim->seq : 0;
    buf_init(&bytes, FRAME_MAX);
    frame_encode(&envelope->base, &bytes);
    if (zsock_send(sim->socket, NULL, 0, bytes.data, bytes.length) < 0)
        fprintf(stderr, "simworkers: %s: a message was not taken\n", sim->name);
    buf_fini(&bytes);
}

static void send_news(struct sim *sim, const struct run *run, const char *news)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__TaskEvent event = SHEAF__TASK_EVENT__INIT;

    event.attempt = run->attempt;
    event.term = run->term;
    event.epoch = run->epoch;
    event.rank = run->rank;
    event.news = mem_strdup(news);
    event.port = 30000;
    envelope.body_case = SHEAF__ENVELOPE__BODY_TASK_EVENT;
    envelope.task_event = &event;
    send_envelope(sim, &envelope, true);
    free(event.news);
}

static void send_receipt(struct sim *sim, const struct run *run)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__SignedReceipt sealed = SHEAF__SIGNED_RECEIPT__INIT;
    Sheaf__Receipt receipt = SHEAF__RECEIPT__INIT;
    Sheaf__ReceiptLine line = SHEAF__RECEIPT_LINE__INIT;
    Sheaf__ReceiptLine *lines[] = {&line};
    uint8_t signature[SIGNATURE_SIZE];
    struct buf bytes;

    line.attempt = run->attempt;
    line.term = run->term;
    line.epoch = run->epoch;
    line.rank = run->rank;
    line.used_ms = (uint64_t)(clock_mono_us() - run->go_us) / 1000;
    line.final = true;
    receipt.node.data = sim->node.bytes;
    receipt.node.len = sizeof(sim->node.bytes);
    receipt.seq = ++sim->receipt_seq;
    receipt.at_us = (uint64_t)clock_wall_us();
    receipt.n_lines = 1;
    receipt.lines = lines;
    buf_init(&bytes, FRAME_MAX);
    frame_encode(&receipt.base, &bytes);
    sign_bytes(&sim->identity.sign, SIGN_DOMAIN_RECEIPT, bytes.data, bytes.length, signature);
    sealed.receipt.data = (uint8_t *)bytes.data;
    sealed.receipt.len = bytes.length;
    sealed.signature.data = signature;
    sealed.signature.len = sizeof(signature);
    envelope.body_case = SHEAF__ENVELOPE__BODY_RECEIPT;
    envelope.receipt = &sealed;
    send_envelope(sim, &envelope, true);
    buf_fini(&bytes);
}

static void answer_selftest(struct sim *sim, const Sheaf__SelfTest *test)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__SelfTestResult result = SHEAF__SELF_TEST_RESULT__INIT;
    uint64_t sums[SELFTEST_SAMPLES];
    uint64_t chunks = (uint64_t)MEMORY_MIB << 20 >> 2;

    chunks /= SELFTEST_CHUNK_WORDS;
    for (uint32_t k = 0; k < SELFTEST_SAMPLES; k++)
        sums[k] = selftest_chunk_sum(test->seed, selftest_sample_chunk(test->seed, k, chunks));
    result.device = test->device;
    result.seed = test->seed;
    result.memory_mib = MEMORY_MIB;
    result.n_chunk_sums = SELFTEST_SAMPLES;
    result.chunk_sums = sums;
    result.matmul_gflops = 1;
    result.matmul_sum = selftest_matmul_sum(test->seed);
    result.copy_mib_s = 1;
    result.failure = (char[]){""};
    envelope.body_case = SHEAF__ENVELOPE__BODY_SELFTEST;
    envelope.selftest = &result;
    send_envelope(sim, &envelope, true);
}

static struct run *find_run(struct sim *sim, uint64_t attempt)
{
    for (unsigned d = 0; d < devices; d++) {
        if (sim->run[d].attempt == attempt)
            return &sim->run[d];
    }
    return NULL;
}

static void end_run(struct sim *sim, struct run *run)
{
    send_receipt(sim, run);
    send_news(sim, run, "exited");
    send_news(sim, run, "done");
    *run = (struct run){0};
}

static void on_order(struct sim *sim, const Sheaf__Order *order)
{
    struct run *run = find_run(sim, order->attempt);

    switch (order->what_case) {
    case SHEAF__ORDER__WHAT_PREPARE:
        if (run == NULL)
            run = find_run(sim, 0);
        if (run == NULL)
            return;
        *run = (struct run){order->attempt, order->term, order->epoch, order->rank, 0};
        send_news(sim, run, "ready");
        break;
    case SHEAF__ORDER__WHAT_GO:
        if (run == NULL || run->go_us != 0)
            return;
        run->go_us = clock_mono_us();
        send_news(sim, run, "started");
        end_run(sim, run);
        break;
    case SHEAF__ORDER__WHAT_STOP:
        if (run != NULL)
            end_run(sim, run);
        break;
    case SHEAF__ORDER__WHAT_FORGET:
        if (run != NULL)
            *run = (struct run){0};
        break;
    case SHEAF__ORDER__WHAT_SELFTEST:
        answer_selftest(sim, order->selftest);
        break;
    case SHEAF__ORDER__WHAT_PROBE:
    case SHEAF__ORDER__WHAT__NOT_SET:
    case _SHEAF__ORDER__WHAT__CASE_IS_INT_SIZE:
    default:
        break;
    }
}

static void on_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct sim *sim = arg;
    struct frame_arena arena;
    Sheaf__Envelope *envelope;

    (void)socket;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    envelope = (Sheaf__Envelope *)(void *)frame_decode(&sheaf__envelope__descriptor,
                                                       message->frame[message->count - 1],
                                                       message->size[message->count - 1], &arena);
    if (envelope == NULL) {
        frame_arena_fini(&arena);
        return;
    }
    if (envelope->body_case == SHEAF__ENVELOPE__BODY_WELCOME && !sim->welcomed) {
        sim->welcomed = true;
        if (++welcomed == sim_count) {
            puts("ready");
            fflush(stdout);
        }
    } else if (envelope->body_case == SHEAF__ENVELOPE__BODY_ORDER) {
        Sheaf__Order *order = (Sheaf__Order *)(void *)frame_decode(
            &sheaf__order__descriptor, envelope->order->order.data, envelope->order->order.len,
            &arena);
        if (order != NULL)
            on_order(sim, order);
    } else if (envelope->body_case == SHEAF__ENVELOPE__BODY_ERROR) {
        fprintf(stderr, "simworkers: %s: %s %s\n", sim->name, envelope->error->code,
                envelope->error->detail);
    }
    frame_arena_fini(&arena);
}

static void join_one(struct sim *sim, unsigned index, const struct join_token *token,
                     const char *ca_file, char control[128])
{
    Sheaf__Claim claim;
    Sheaf__ClaimDevice device[16];
    Sheaf__ClaimDevice *list[16];
    char uuids[16][48];
    struct buf bytes;
    struct err err = {0};
    uint8_t machine[SHA256_SIZE];
    uint8_t secret[SHA256_SIZE];
    uint8_t proof[SIGNATURE_SIZE];
    uint8_t signed_bytes[KEY_SIZE + SHA256_SIZE];
    char hex[4][2 * SIGNATURE_SIZE + 1];

    curve_pair_make(&sim->identity.curve);
    sign_pair_make(&sim->identity.sign);
    snprintf(sim->name, sizeof(sim->name), "sim-%u-%u", (unsigned)getpid(), index);
    sha256(sim->name, strlen(sim->name), machine);
    sha256(token->secret, strlen(token->secret), secret);
    memcpy(signed_bytes, sim->identity.curve.public_key, KEY_SIZE);
    memcpy(signed_bytes + KEY_SIZE, secret, SHA256_SIZE);
    sign_bytes(&sim->identity.sign, SIGN_DOMAIN_ENROL, signed_bytes, sizeof(signed_bytes), proof);
    fill_claim(sim, &claim, device, list, uuids);
    buf_init(&bytes, FRAME_MAX);
    frame_encode(&claim.base, &bytes);
    char *base64 = mem_new(bytes.length * 2 + 8, 1);
    EVP_EncodeBlock((unsigned char *)base64, (const unsigned char *)bytes.data, (int)bytes.length);
    json_t *body =
        json_pack("{s:s, s:s, s:s, s:s, s:s}", "curve_key",
                  hex_format(sim->identity.curve.public_key, KEY_SIZE, hex[0]), "sign_key",
                  hex_format(sim->identity.sign.public_key, KEY_SIZE, hex[1]), "machine",
                  hex_format(machine, sizeof(machine), hex[2]), "claim", base64, "proof",
                  hex_format(proof, sizeof(proof), hex[3]));
    char *text = json_dumps(body, JSON_COMPACT);
    struct httpc client = {0};
    struct httpc_response response = {0};
    snprintf(client.url, sizeof(client.url), "%s", token->url);
    snprintf(client.ca_file, sizeof(client.ca_file), "%s", ca_file);
    snprintf(client.token, sizeof(client.token), "%s", token->secret);
    const struct httpc_request request = {.method = "POST",
                                          .path = "/api/v1/join",
                                          .content_type = "application/json",
                                          .body = text,
                                          .body_size = strlen(text),
                                          .timeout_ms = 30000};
    json_t *answer = NULL;
    if (httpc_do(&client, &request, &response, &err) < 0 || response.status != 201
        || json_read(response.body.data, response.body.length, &answer, &err) < 0
        || uuid_parse(json_text(answer, "node"), &sim->node) < 0) {
        fprintf(stderr, "%.200s\n", response.body.data ? response.body.data : "");
        die("join", &err);
    }
    snprintf(control, 128, "%s",
             json_string_value(json_array_get(json_object_get(answer, "control"), 0)));
    json_decref(answer);
    json_decref(body);
    httpc_response_fini(&response);
    free(text);
    free(base64);
    buf_fini(&bytes);
}

static void say_hello(struct sim *sim)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__Hello hello = SHEAF__HELLO__INIT;
    Sheaf__Claim claim;
    Sheaf__ClaimDevice device[16];
    Sheaf__ClaimDevice *list[16];
    char uuids[16][48];

    random_bytes(sim->session, sizeof(sim->session));
    fill_claim(sim, &claim, device, list, uuids);
    hello.protocol_min = 1;
    hello.protocol_max = 1;
    hello.node.data = sim->node.bytes;
    hello.node.len = sizeof(sim->node.bytes);
    hello.boot = 1;
    hello.claim = &claim;
    hello.next_seq = 1;
    envelope.body_case = SHEAF__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    send_envelope(sim, &envelope, false);
}

static void on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    for (unsigned i = 0; i < sim_count; i++) {
        Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
        Sheaf__Heartbeat heartbeat = SHEAF__HEARTBEAT__INIT;
        heartbeat.sent_us = (uint64_t)clock_wall_us();
        envelope.body_case = SHEAF__ENVELOPE__BODY_HEARTBEAT;
        envelope.heartbeat = &heartbeat;
        send_envelope(&sims[i], &envelope, false);
    }
}

int main(int argc, char **argv)
{
    struct join_token token;
    struct err err = {0};
    char control[128];
    char ca_file[] = "/tmp/simworkers-ca-XXXXXX";
    char hex[SHA256_HEX];

    for (int i = 3; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--devices") == 0)
            devices = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--price") == 0)
            price = strtoll(argv[i + 1], NULL, 10);
    }
    sim_count = argc > 2 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    if (sim_count < 1 || sim_count > MAX_WORKERS || devices < 1 || devices > 16) {
        fprintf(stderr, "usage: simworkers COUNT TOKEN [--devices N] [--price MICRO]\n");
        return 2;
    }
    log_open("simworkers", LOG_WARN_LEVEL);
    if (join_token_parse(argv[2], &token, &err) < 0)
        die("token", &err);
    close(mkstemp(ca_file));
    if (httpc_pin_ca(token.url, hex_format(token.ca_sha256, SHA256_SIZE, hex), ca_file, &err) < 0)
        die("CA", &err);
    base = loop_new();
    void *context = zmq_ctx_new();
    zmq_ctx_set(context, ZMQ_MAX_SOCKETS, MAX_WORKERS + 16);
    sims = mem_new(sim_count, sizeof(*sims));
    for (unsigned i = 0; i < sim_count; i++) {
        struct sim *sim = &sims[i];
        sim->run = mem_new(devices, sizeof(*sim->run));
        join_one(sim, i, &token, ca_file, control);
        const struct zsock_options options = {.type = ZMQ_DEALER,
                                              .client = &sim->identity.curve,
                                              .server_key = token.server_key,
                                              .max_frame = FRAME_MAX};
        if (zsock_new(base, context, &options, on_message, sim, &sim->socket, &err) < 0
            || zsock_connect(sim->socket, control, &err) < 0)
            die("connect", &err);
        say_hello(sim);
    }
    unlink(ca_file);
    struct event *heartbeat = event_new(base, -1, EV_PERSIST, on_heartbeat, NULL);
    const struct timeval every = {.tv_sec = HEARTBEAT_US / 1000000};
    event_add(heartbeat, &every);
    event_base_dispatch(base);
    return 0;
}
