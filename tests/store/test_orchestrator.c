/*
 * The program itself on its embedded PostgreSQL: set-up, a hundred workers that enrol and say
 * hello, kill -9 and the same again, memory, a clean stop.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/fs.h"
#include "common/io/hash.h"
#include "common/io/httpc.h"
#include "common/io/jointoken.h"
#include "common/io/loop.h"
#include "common/io/yaml.h"
#include "common/pure/mem.h"
#include "proto/command.pb-c.h"
#include "proto/worker.pb-c.h"

#define WORKERS 100
#define WAIT_US ((int64_t)60000000)
#define MAX_RSS ((uint64_t)60 << 20)
#define TEXT    256

struct worker {
    struct curve_pair curve;
    struct sign_pair sign;
    uint8_t uid[16];
    struct zsock *socket;
    char nonce[9];
    uint32_t welcomed; /* term of the last welcome */
};

struct scene {
    char folder[64];
    char program[FS_PATH];
    pid_t pid;
    FILE *output;
    char operator_token[TEXT];
    char worker[TEXT];
    char command[TEXT];
    char hints[TEXT];
    char metrics[TEXT];
    uint8_t server_key[KEY_SIZE];
    struct curve_pair gateway_curve;
    struct event_base *base;
    struct event *beat;
    void *zmq;
    struct zsock *gateway;
    struct buf reply;
    uint64_t replied; /* request number */
    uint64_t request;
    struct worker workers[WORKERS];
};

static struct scene scene;

/* -- the program ----------------------------------------------------------------------------- */

static void word_after(const char *line, const char *mark, char out[TEXT])
{
    const char *from = strstr(line, mark);

    assert_non_null(from);
    from += strlen(mark);
    snprintf(out, TEXT, "%.*s", (int)strcspn(from, " \n"), from);
}

static void program_start(void)
{
    char state[TEXT], line[1024];
    int out[2];

    snprintf(state, sizeof(state), "%s/state", scene.folder);
    assert_int_equal(pipe(out), 0);
    scene.pid = fork();
    assert_true(scene.pid >= 0);
    if (scene.pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        close(out[0]);
        close(out[1]);
        execl(scene.program, scene.program, "run", "--state", state, "--worker-bind", scene.worker,
              "--command-bind", scene.command, "--hint-bind", scene.hints, "--metrics-bind",
              "127.0.0.1:0", "--log-level", "warn", "--heartbeat", "1s", "--paranoid",
              (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    scene.output = fdopen(out[0], "r");
    assert_non_null(scene.output);
    while (fgets(line, sizeof(line), scene.output)) {
        if (strncmp(line, "operator token", 14) == 0) {
            assert_string_equal(scene.operator_token, ""); /* once */
            word_after(line, ": ", scene.operator_token);
        }
        if (strncmp(line, "sheaf-orchestrator ready", 24) != 0)
            continue;
        word_after(line, "worker=", scene.worker);
        word_after(line, "command=", scene.command);
        word_after(line, "hints=", scene.hints);
        word_after(line, "metrics=", scene.metrics);
        return;
    }
    fail_msg("the program ended before it was ready");
}

static int program_end(int signal)
{
    int status = 0;

    assert_int_equal(kill(scene.pid, signal), 0);
    assert_int_equal(waitpid(scene.pid, &status, 0), scene.pid);
    fclose(scene.output);
    scene.pid = 0;
    return status;
}

static void read_link(void)
{
    char path[TEXT];
    struct err err = {0};
    struct buf text;
    json_t *link = NULL;

    snprintf(path, sizeof(path), "%s/state/gateway.link", scene.folder);
    buf_init(&text, 0);
    assert_int_equal(fs_read(path, 65536, &text, &err), 0);
    assert_int_equal(yaml_read(text.data, text.length, &link, NULL, &err), 0);
    assert_int_equal(hex_parse(json_text(link, "server_key"), KEY_SIZE, scene.server_key), 0);
    assert_int_equal(
        hex_parse(json_text(link, "curve_public"), KEY_SIZE, scene.gateway_curve.public_key), 0);
    assert_int_equal(
        hex_parse(json_text(link, "curve_secret"), KEY_SIZE, scene.gateway_curve.secret_key), 0);
    assert_string_equal(json_text(link, "orchestrator"), scene.command);
    json_decref(link);
    buf_fini(&text);
}

static uint64_t metric(const char *name)
{
    struct httpc client = {0};
    struct httpc_request request = {.method = "GET", .path = "/metrics", .timeout_ms = 10000};
    struct httpc_response response;
    struct err err = {0};
    char mark[TEXT];
    const char *at;
    uint64_t value;

    snprintf(client.url, sizeof(client.url), "%s", scene.metrics);
    if (httpc_do(&client, &request, &response, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(response.status, 200);
    snprintf(mark, sizeof(mark), "\nsheaf_%s ", name);
    at = strstr(response.body.data, mark);
    if (at == NULL)
        fail_msg("no metric %s", name);
    value = strtoull(at + strlen(mark), NULL, 10);
    httpc_response_fini(&response);
    return value;
}

/* -- the other side -------------------------------------------------------------------------- */

static void on_beat(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

static void send_message(struct zsock *socket, const ProtobufCMessage *message)
{
    struct buf bytes;

    buf_init(&bytes, 0);
    frame_encode(message, &bytes);
    assert_int_equal(zsock_send(socket, NULL, 0, bytes.data, bytes.length), 0);
    buf_fini(&bytes);
}

static struct zsock *dial(const struct curve_pair *pair, const char *endpoint,
                          zsock_on_message_f on_message, void *arg)
{
    struct zsock_options options = {
        .type = ZMQ_DEALER, .client = pair, .server_key = scene.server_key, .max_frame = FRAME_MAX};
    struct zsock *socket = NULL;
    struct err err = {0};

    if (zsock_new(scene.base, scene.zmq, &options, on_message, arg, &socket, &err) != 0
        || zsock_connect(socket, endpoint, &err) != 0)
        fail_msg("%s", err.text);
    return socket;
}

static void on_reply(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct frame_arena arena;
    const Sheaf__CommandReply *reply;

    (void)socket;
    (void)arg;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    reply = (const Sheaf__CommandReply *)(const void *)frame_decode(
        &sheaf__command_reply__descriptor, message->frame[0], message->size[0], &arena);
    assert_non_null(reply);
    scene.replied = reply->request;
    buf_clear(&scene.reply);
    buf_append(&scene.reply, message->frame[0], message->size[0]);
    frame_arena_fini(&arena);
}

/* Sends a command with the credential and waits for its reply, decoded into the arena. */
static const Sheaf__CommandReply *ask(Sheaf__Command *command, const char *credential,
                                      struct frame_arena *arena)
{
    int64_t deadline_us = clock_mono_us() + WAIT_US;
    uint8_t hash[SHA256_SIZE];

    sha256(credential, strlen(credential), hash);
    command->protocol = 1;
    command->request = ++scene.request;
    command->credential = (ProtobufCBinaryData){sizeof(hash), hash};
    send_message(scene.gateway, &command->base);
    while (scene.replied != command->request && clock_mono_us() < deadline_us)
        event_base_loop(scene.base, EVLOOP_ONCE);
    assert_int_equal(scene.replied, command->request);
    return (const Sheaf__CommandReply *)(const void *)frame_decode(
        &sheaf__command_reply__descriptor, scene.reply.data, scene.reply.length, arena);
}

static char *text_of(const char *text)
{
    return (char *)(uintptr_t)text;
}

static void make_join_secret(char out[SECRET_TEXT])
{
    Sheaf__Command command = SHEAF__COMMAND__INIT;
    Sheaf__NewToken token = SHEAF__NEW_TOKEN__INIT;
    const Sheaf__CommandReply *reply;
    struct frame_arena arena;
    json_t *body = NULL;
    struct err err = {0};

    token.provider = text_of("acme");
    token.uses = WORKERS;
    command.what_case = SHEAF__COMMAND__WHAT_JOIN_TOKEN;
    command.join_token = &token;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    reply = ask(&command, scene.operator_token, &arena);
    if (reply->code[0])
        fail_msg("%s: %s", reply->code, reply->detail);
    assert_int_equal(json_read(reply->body_json.data, reply->body_json.len, &body, &err), 0);
    snprintf(out, SECRET_TEXT, "%s", json_text(body, "secret"));
    json_decref(body);
    frame_arena_fini(&arena);
}

struct claim {
    Sheaf__Claim wire;
    Sheaf__ClaimDevice device;
    Sheaf__ClaimDevice *devices[1];
    char name[32];
    char uuid[32];
};

static void claim_make(struct claim *claim, int number)
{
    sheaf__claim__init(&claim->wire);
    sheaf__claim_device__init(&claim->device);
    snprintf(claim->name, sizeof(claim->name), "node-%d", number);
    snprintf(claim->uuid, sizeof(claim->uuid), "GPU-%d", number);
    claim->wire.name = claim->name;
    claim->wire.address = text_of("127.0.0.1");
    claim->wire.port_low = 20000;
    claim->wire.port_high = 20015;
    claim->wire.probe_port = 20016;
    claim->wire.cpu_milli = 4000;
    claim->wire.memory_mib = 8192;
    claim->wire.disk_mib = 8192;
    claim->wire.price_micro = 400000;
    claim->wire.devices = claim->devices;
    claim->wire.n_devices = 1;
    claim->devices[0] = &claim->device;
    claim->device.uuid = claim->uuid;
    claim->device.device_class = text_of("gpu");
    claim->device.model = text_of("rtx 4090");
    claim->device.memory_mib = 24564;
    claim->device.offered = true;
}

static void enrol(struct worker *worker, int number, const char *secret)
{
    Sheaf__Command command = SHEAF__COMMAND__INIT;
    Sheaf__Enrol wire = SHEAF__ENROL__INIT;
    uint8_t proven[64], proof[SIGNATURE_SIZE], machine[32] = {0};
    const Sheaf__CommandReply *reply;
    struct frame_arena arena;
    struct claim claim;
    struct buf bytes;

    curve_pair_make(&worker->curve);
    sign_pair_make(&worker->sign);
    machine[0] = (uint8_t)number;
    machine[1] = 1;
    claim_make(&claim, number);
    buf_init(&bytes, 0);
    frame_encode(&claim.wire.base, &bytes);
    memcpy(proven, worker->curve.public_key, 32);
    sha256(secret, strlen(secret), proven + 32);
    sign_bytes(&worker->sign, SIGN_DOMAIN_ENROL, proven, sizeof(proven), proof);
    wire.curve_key = (ProtobufCBinaryData){32, worker->curve.public_key};
    wire.sign_key = (ProtobufCBinaryData){32, worker->sign.public_key};
    wire.machine = (ProtobufCBinaryData){32, machine};
    wire.claim = (ProtobufCBinaryData){bytes.length, (uint8_t *)bytes.data};
    wire.proof = (ProtobufCBinaryData){sizeof(proof), proof};
    command.what_case = SHEAF__COMMAND__WHAT_ENROL;
    command.enrol = &wire;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    reply = ask(&command, secret, &arena);
    if (reply->code[0])
        fail_msg("%s: %s", reply->code, reply->detail);
    assert_int_equal(reply->object.len, 16);
    memcpy(worker->uid, reply->object.data, 16);
    frame_arena_fini(&arena);
    buf_fini(&bytes);
}

static void on_worker_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct worker *worker = arg;
    const Sheaf__Envelope *envelope;
    struct frame_arena arena;

    (void)socket;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    envelope = (const Sheaf__Envelope *)(const void *)frame_decode(
        &sheaf__envelope__descriptor, message->frame[0], message->size[0], &arena);
    assert_non_null(envelope);
    if (envelope->body_case == SHEAF__ENVELOPE__BODY_WELCOME)
        worker->welcomed = envelope->welcome->term;
    frame_arena_fini(&arena);
}

static void say_hello(struct worker *worker, int number, uint32_t try)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__Hello hello = SHEAF__HELLO__INIT;
    struct claim claim;

    snprintf(worker->nonce, sizeof(worker->nonce), "%08x", try);
    claim_make(&claim, number);
    hello.protocol_min = 1;
    hello.protocol_max = 1;
    hello.node = (ProtobufCBinaryData){16, worker->uid};
    hello.boot = 1;
    hello.next_seq = 1;
    hello.claim = &claim.wire;
    envelope.protocol = 1;
    envelope.session = (ProtobufCBinaryData){8, (uint8_t *)worker->nonce};
    envelope.body_case = SHEAF__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    send_message(worker->socket, &envelope.base);
}

static void until_all_welcomed(uint32_t term)
{
    int64_t deadline_us = clock_mono_us() + WAIT_US;
    int missing;

    do {
        event_base_loop(scene.base, EVLOOP_ONCE);
        missing = 0;
        for (int i = 0; i < WORKERS; i++)
            missing += scene.workers[i].welcomed == term ? 0 : 1;
        if (clock_mono_us() > deadline_us)
            fail_msg("%d workers were not welcomed in term %u", missing, term);
    } while (missing);
}

static void connect_all(uint32_t term)
{
    for (int i = 0; i < WORKERS; i++) {
        struct worker *worker = &scene.workers[i];

        zsock_free(worker->socket);
        worker->socket = dial(&worker->curve, scene.worker, on_worker_message, worker);
        say_hello(worker, i, term);
    }
    until_all_welcomed(term);
}

/* -- the tests, one story -------------------------------------------------------------------- */

static int scene_open(void **state)
{
    struct timeval often = {0, 20000};
    char *slash;
    ssize_t length;

    (void)state;
    snprintf(scene.folder, sizeof(scene.folder), "/tmp/sheaf-orchestrator-XXXXXX");
    assert_non_null(mkdtemp(scene.folder));
    assert_int_equal(chmod(scene.folder, 0755), 0); /* for the database's user */
    length = readlink("/proc/self/exe", scene.program, sizeof(scene.program) - 64);
    assert_true(length > 0);
    scene.program[length] = 0;
    slash = strrchr(scene.program, '/');
    snprintf(slash, 64, "/../bin/sheaf-orchestrator");
    snprintf(scene.worker, TEXT, "tcp://127.0.0.1:0");
    snprintf(scene.command, TEXT, "tcp://127.0.0.1:0");
    snprintf(scene.hints, TEXT, "tcp://127.0.0.1:0");
    scene.base = loop_new();
    scene.zmq = zmq_ctx_new();
    scene.beat = event_new(scene.base, -1, EV_PERSIST, on_beat, NULL);
    event_add(scene.beat, &often);
    buf_init(&scene.reply, 0);
    return 0;
}

static int scene_close(void **state)
{
    struct err err = {0};

    (void)state;
    if (scene.pid)
        program_end(SIGTERM);
    for (int i = 0; i < WORKERS; i++)
        zsock_free(scene.workers[i].socket);
    zsock_free(scene.gateway);
    zmq_ctx_term(scene.zmq);
    event_free(scene.beat);
    event_base_free(scene.base);
    buf_fini(&scene.reply);
    return fs_remove_tree(scene.folder, &err);
}

static void test_set_up_tells_a_token_and_writes_the_link(void **state)
{
    (void)state;
    program_start();
    assert_memory_equal(scene.operator_token, "sht_", 4);
    read_link();
    scene.gateway = dial(&scene.gateway_curve, scene.command, on_reply, NULL);
}

static void test_a_hundred_workers_enrol_and_are_welcomed(void **state)
{
    char secret[SECRET_TEXT];

    (void)state;
    make_join_secret(secret);
    for (int i = 0; i < WORKERS; i++)
        enrol(&scene.workers[i], i, secret);
    connect_all(1);
    assert_int_equal(metric("sessions"), WORKERS);
    assert_int_equal(metric("nodes{state=\"probing\"}"), WORKERS);
    assert_int_equal(metric("reloads_total"), 0);
}

static void test_a_wrong_credential_is_refused(void **state)
{
    Sheaf__Command command = SHEAF__COMMAND__INIT;
    Sheaf__NewNamed named = SHEAF__NEW_NAMED__INIT;
    struct frame_arena arena;

    (void)state;
    named.name = text_of("mallory");
    command.what_case = SHEAF__COMMAND__WHAT_PROJECT;
    command.project = &named;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    assert_string_equal(ask(&command, "sht_wrong", &arena)->code, "token-invalid");
    assert_string_equal(ask(&command, scene.operator_token, &arena)->code, "");
    frame_arena_fini(&arena);
}

static void test_memory_stays_small(void **state)
{
    uint64_t resident = metric("resident_bytes");

    (void)state;
    print_message("resident with %d workers: %llu KiB\n", WORKERS,
                  (unsigned long long)resident / 1024);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(resident <= MAX_RSS);
#endif
}

static void test_a_killed_orchestrator_comes_back_with_everybody(void **state)
{
    (void)state;
    program_end(SIGKILL);
    program_start();
    connect_all(2);
    assert_int_equal(metric("sessions"), WORKERS);
    assert_int_equal(metric("nodes{state=\"probing\"}"), WORKERS);
    assert_int_equal(metric("term"), 2);
}

static void test_a_clean_stop_is_clean(void **state)
{
    char pid_file[TEXT];
    int status;

    (void)state;
    status = program_end(SIGTERM);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    snprintf(pid_file, sizeof(pid_file), "%s/state/database/data/postmaster.pid", scene.folder);
    assert_int_not_equal(access(pid_file, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_up_tells_a_token_and_writes_the_link),
        cmocka_unit_test(test_a_hundred_workers_enrol_and_are_welcomed),
        cmocka_unit_test(test_a_wrong_credential_is_refused),
        cmocka_unit_test(test_memory_stays_small),
        cmocka_unit_test(test_a_killed_orchestrator_comes_back_with_everybody),
        cmocka_unit_test(test_a_clean_stop_is_clean),
    };

    return cmocka_run_group_tests(tests, scene_open, scene_close);
}
