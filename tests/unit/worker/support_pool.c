#include "support_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>
#include <zstd.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/pack.h"
#include "common/io/spec_json.h"
#include "common/pure/mem.h"
#include "proto/receipt.pb-c.h"
#include "worker/core/agent.h"
#include "worker/core/home.h"
#include "worker/core/verbs.h"

#define WAIT_US INT64_C(20000000)

/* -- the worker's process ---------------------------------------------------------------------- */

static struct settings settings_of(const char *root)
{
    struct settings settings = {.name = "testnode",
                                .address = "127.0.0.1",
                                .country = "ZZ",
                                .region = "test",
                                .unsafe_process = true,
                                .usage_every_us = 10000000,
                                .orphan_ttl_us = INT64_C(3600000000),
                                .price = 100000,
                                .log = LOG_WARN_LEVEL};

    snprintf(settings.state, sizeof(settings.state), "%s/state", root);
    snprintf(settings.machine_id, sizeof(settings.machine_id), "%s/machine-id", root);
    settings.port_low = 10000 + (uint32_t)getpid() % 20000; /* below ephemeral ports */
    settings.port_high = settings.port_low + 20;
    settings.probe_port = 0;
    settings.log_bytes = (uint64_t)64 << 20;
    return settings;
}

static _Noreturn void worker_main(const char *root)
{
    struct settings settings = settings_of(root);
    struct host_info *host = calloc(1, sizeof(*host));
    struct err err = {0};
    int rc;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    host->cpu_milli = 2000;
    host->memory_mib = 4096;
    host->device_count = 1;
    snprintf(host->device[0].uuid, sizeof(host->device[0].uuid), "test-device");
    snprintf(host->device[0].model, sizeof(host->device[0].model), "test");
    host->device[0].memory_mib = 1024;
    log_open("worker", getenv("POOL_DEBUG") ? LOG_DEBUG_LEVEL : LOG_ERROR_LEVEL);
    rc = agent_run(&settings, NULL, host, AGENT_RUN, &err);
    if (rc != 0 && getenv("POOL_DEBUG"))
        fprintf(stderr, "worker: %s\n", err.text);
    free(host);
    exit(rc == 0 ? 0 : (int)err.code % 200 + 1); /* with the leak check of a sanitizer */
}

/* Starts workers on request, from a process without threads. */
static _Noreturn void zygote_main(int fd, const char *root)
{
    pid_t pid;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(fd, &pid, sizeof(pid)) == (ssize_t)sizeof(pid)) {
        int status = 0;

        if (pid == 0) {
            pid = fork();
            if (pid == 0) {
                close(fd);
                worker_main(root);
            }
            status = pid;
        } else {
            (void)waitpid(pid, &status, 0);
        }
        if (write(fd, &status, sizeof(status)) != (ssize_t)sizeof(status))
            break;
    }
    _exit(0);
}

static int ask_zygote(struct pool *pool, pid_t pid)
{
    int status = 0;

    assert_int_equal(write(pool->zygote, &pid, sizeof(pid)), sizeof(pid));
    assert_int_equal(read(pool->zygote, &status, sizeof(status)), sizeof(status));
    return status;
}

pid_t pool_start(struct pool *pool)
{
    return ask_zygote(pool, 0);
}

int pool_end(struct pool *pool, pid_t worker, int signal)
{
    if (signal)
        assert_int_equal(kill(worker, signal), 0);
    return ask_zygote(pool, worker);
}

json_t *pool_ask(struct pool *pool, const char *verb)
{
    struct settings settings = settings_of(pool->root);
    json_t *request = json_object();
    json_t *answer = NULL;
    struct err err = {0};

    json_object_set_new(request, "verb", json_string(verb));
    assert_int_equal(verb_ask(&settings, request, &answer, &err), 0);
    json_decref(request);
    return answer;
}

/* -- control ----------------------------------------------------------------------------------- */

static void send_envelope(struct pool *pool, Sheaf__Envelope *envelope)
{
    struct buf bytes;

    envelope->protocol = 1;
    envelope->session.data = pool->session;
    envelope->session.len = sizeof(pool->session);
    buf_init(&bytes, 0);
    frame_encode(&envelope->base, &bytes);
    (void)!zsock_send(pool->control, pool->peer, pool->peer_size, bytes.data, bytes.length);
    buf_fini(&bytes);
}

static void take_hello(struct pool *pool, const Sheaf__Envelope *envelope, const struct zmsg *raw)
{
    const Sheaf__Hello *hello = envelope->hello;
    Sheaf__Envelope answer = SHEAF__ENVELOPE__INIT;
    Sheaf__Welcome welcome = SHEAF__WELCOME__INIT;
    Sheaf__Gateway gateway = SHEAF__GATEWAY__INIT;
    Sheaf__Gateway *gateways[] = {&gateway};
    Sheaf__NodeStatus status = SHEAF__NODE_STATUS__INIT;
    char name[] = "testnode";
    char state[] = "ready";

    memcpy(pool->peer, raw->frame[0], raw->size[0]);
    pool->peer_size = raw->size[0];
    memcpy(pool->session, envelope->session.data, sizeof(pool->session));
    pool->hellos++;
    pool->boot = hello->boot;
    pool->held = (uint32_t)hello->n_tasks;
    if (hello->n_tasks > 0)
        snprintf(pool->held_state, sizeof(pool->held_state), "%s", hello->tasks[0]->state);
    if (hello->next_seq > pool->next_seq)
        pool->gap = true;
    pool->next_seq = hello->next_seq;
    gateway.bulk = pool->bulk_endpoint;
    gateway.curve_key.data = pool->gateway.public_key;
    gateway.curve_key.len = KEY_SIZE;
    welcome.protocol = 1;
    welcome.heartbeat_ms = 500;
    welcome.gateways = gateways;
    welcome.n_gateways = 1;
    welcome.sign_key.data = pool->sign.public_key;
    welcome.sign_key.len = KEY_SIZE;
    answer.body_case = SHEAF__ENVELOPE__BODY_WELCOME;
    answer.welcome = &welcome;
    send_envelope(pool, &answer);
    status.name = name;
    status.state = state;
    answer.body_case = SHEAF__ENVELOPE__BODY_STATUS;
    answer.status = &status;
    send_envelope(pool, &answer);
}

static void take_news(struct pool *pool, const Sheaf__TaskEvent *event)
{
    struct pool_news *news;

    assert_in_range(pool->news_count, 0, POOL_MAX_NEWS - 1);
    news = &pool->news[pool->news_count++];
    news->attempt = event->attempt;
    news->epoch = event->epoch;
    snprintf(news->news, sizeof(news->news), "%s", event->news);
    snprintf(news->reason, sizeof(news->reason), "%s", event->reason);
    news->exit_code = event->exit_code;
    news->port = event->port;
    news->receipt_ms = pool->receipt_ms;
}

static void take_receipt(struct pool *pool, const Sheaf__SignedReceipt *outer)
{
    struct frame_arena arena;
    const Sheaf__Receipt *receipt;

    if (!sign_verify(pool->worker.sign.public_key, SIGN_DOMAIN_RECEIPT, outer->receipt.data,
                     outer->receipt.len, outer->signature.data))
        pool->receipt_wrong = true;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    receipt = (const Sheaf__Receipt *)frame_decode(&sheaf__receipt__descriptor, outer->receipt.data,
                                                   outer->receipt.len, &arena);
    if (!receipt || receipt->seq <= pool->receipt_seq || receipt->n_lines == 0
        || receipt->lines[0]->used_ms < pool->receipt_ms) {
        pool->receipt_wrong = true;
    } else {
        pool->receipt_seq = receipt->seq;
        pool->receipt_ms = receipt->lines[0]->used_ms;
    }
    frame_arena_fini(&arena);
}

static void take_body(struct pool *pool, const Sheaf__Envelope *envelope)
{
    if (envelope->body_case == SHEAF__ENVELOPE__BODY_TASK_EVENT)
        take_news(pool, envelope->task_event);
    else if (envelope->body_case == SHEAF__ENVELOPE__BODY_RECEIPT)
        take_receipt(pool, envelope->receipt);
    else if (envelope->body_case == SHEAF__ENVELOPE__BODY_NOTICE)
        snprintf(pool->notice, sizeof(pool->notice), "%s", envelope->notice->verb);
    else if (envelope->body_case == SHEAF__ENVELOPE__BODY_ERROR) {
        pool->errors++;
        snprintf(pool->error, sizeof(pool->error), "%s", envelope->error->code);
    }
}

static void on_control(struct zsock *socket, const struct zmsg *raw, void *arg)
{
    struct pool *pool = arg;
    struct frame_arena arena;
    Sheaf__Envelope *envelope;
    Sheaf__Envelope answer = SHEAF__ENVELOPE__INIT;
    Sheaf__Ack ack = SHEAF__ACK__INIT;

    (void)socket;
    assert_int_equal(raw->count, 2);
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    envelope = (Sheaf__Envelope *)frame_decode(&sheaf__envelope__descriptor, raw->frame[1],
                                               raw->size[1], &arena);
    assert_non_null(envelope);
    if (envelope->body_case == SHEAF__ENVELOPE__BODY_HELLO) {
        take_hello(pool, envelope, raw);
    } else if (memcmp(envelope->session.data, pool->session, sizeof(pool->session)) == 0) {
        if (envelope->seq > pool->next_seq)
            pool->gap = true;
        if (envelope->seq == 0 || envelope->seq == pool->next_seq)
            take_body(pool, envelope);
        if (envelope->seq == pool->next_seq)
            pool->next_seq++;
        if (envelope->seq && !pool->mute) {
            answer.ack = envelope->seq;
            answer.body_case = SHEAF__ENVELOPE__BODY_ONLY_ACK;
            answer.only_ack = &ack;
            send_envelope(pool, &answer);
        }
    }
    frame_arena_fini(&arena);
}

/* -- bulk -------------------------------------------------------------------------------------- */

static void send_bulk(struct pool *pool, Sheaf__Bulk *message)
{
    struct buf bytes;

    message->protocol = 1;
    buf_init(&bytes, 0);
    frame_encode(&message->base, &bytes);
    (void)!zsock_send(pool->bulk, pool->bulk_peer, pool->bulk_peer_size, bytes.data, bytes.length);
    buf_fini(&bytes);
}

static void take_log(struct pool *pool, const Sheaf__LogPiece *piece)
{
    Sheaf__Bulk answer = SHEAF__BULK__INIT;
    Sheaf__LogAck ack = SHEAF__LOG_ACK__INIT;
    uint32_t i = piece->stream - 1;
    char *raw = malloc(piece->raw_size + 1u);

    assert_in_range(i, 0, 1);
    if (piece->seq == pool->log_seq[i]) {
        if (ZSTD_decompress(raw, piece->raw_size + 1u, piece->data.data, piece->data.len)
            != piece->raw_size)
            pool->log_wrong = true;
        buf_append(&pool->log[i], raw, piece->raw_size);
        pool->log_seq[i]++;
        pool->log_last[i] = piece->last;
    } else if (piece->seq > pool->log_seq[i]) {
        pool->log_wrong = true;
    }
    free(raw);
    ack.attempt_uid = piece->attempt_uid;
    ack.rank = piece->rank;
    ack.stream = piece->stream;
    ack.seq = piece->seq;
    answer.body_case = SHEAF__BULK__BODY_LOG_ACK;
    answer.log_ack = &ack;
    send_bulk(pool, &answer);
}

/* Ten bytes at a time, so that offsets matter. */
static void serve_fetch(struct pool *pool, const Sheaf__FetchFile *fetch)
{
    for (uint64_t at = fetch->offset; at < pool->input.length; at += 100) {
        Sheaf__Bulk answer = SHEAF__BULK__INIT;
        Sheaf__FilePiece piece = SHEAF__FILE_PIECE__INIT;
        uint64_t left = pool->input.length - at;

        piece.sha256 = fetch->sha256;
        piece.offset = at;
        piece.data.data = (uint8_t *)pool->input.data + at;
        piece.data.len = left < 100 ? (size_t)left : 100;
        piece.last = left <= 100;
        answer.body_case = SHEAF__BULK__BODY_PIECE;
        answer.piece = &piece;
        send_bulk(pool, &answer);
    }
}

static void answer_put(struct pool *pool, bool stored)
{
    Sheaf__Bulk answer = SHEAF__BULK__INIT;
    Sheaf__PutState state = SHEAF__PUT_STATE__INIT;

    state.sha256.data = pool->put_sha256;
    state.sha256.len = 32;
    state.stored = stored;
    answer.body_case = SHEAF__BULK__BODY_PUT_STATE;
    answer.put_state = &state;
    send_bulk(pool, &answer);
}

static void take_piece(struct pool *pool, const Sheaf__FilePiece *piece)
{
    uint8_t hash[32];

    assert_int_equal(piece->offset, pool->output.length);
    buf_append(&pool->output, piece->data.data, piece->data.len);
    if (!piece->last)
        return;
    sha256(pool->output.data, pool->output.length, hash);
    assert_memory_equal(hash, pool->put_sha256, 32);
    pool->outputs++;
    answer_put(pool, true);
}

static void on_bulk(struct zsock *socket, const struct zmsg *raw, void *arg)
{
    struct pool *pool = arg;
    struct frame_arena arena;
    Sheaf__Bulk *message;
    Sheaf__Bulk answer = SHEAF__BULK__INIT;
    Sheaf__BulkWelcome welcome = SHEAF__BULK_WELCOME__INIT;

    (void)socket;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    message =
        (Sheaf__Bulk *)frame_decode(&sheaf__bulk__descriptor, raw->frame[1], raw->size[1], &arena);
    assert_non_null(message);
    memcpy(pool->bulk_peer, raw->frame[0], raw->size[0]);
    pool->bulk_peer_size = raw->size[0];
    if (message->body_case == SHEAF__BULK__BODY_HELLO) {
        welcome.credit = 64 << 20;
        answer.body_case = SHEAF__BULK__BODY_WELCOME;
        answer.welcome = &welcome;
        send_bulk(pool, &answer);
    } else if (message->body_case == SHEAF__BULK__BODY_LOG) {
        take_log(pool, message->log);
    } else if (message->body_case == SHEAF__BULK__BODY_FETCH) {
        serve_fetch(pool, message->fetch);
    } else if (message->body_case == SHEAF__BULK__BODY_PUT) {
        buf_clear(&pool->output);
        memcpy(pool->put_sha256, message->put->sha256.data, 32);
        snprintf(pool->output_path, sizeof(pool->output_path), "%s", message->put->path);
        answer_put(pool, false);
    } else if (message->body_case == SHEAF__BULK__BODY_PIECE) {
        take_piece(pool, message->piece);
    }
    frame_arena_fini(&arena);
}

/* -- orders ------------------------------------------------------------------------------------ */

static void send_order(struct pool *pool, Sheaf__Order *order, const struct sign_pair *sign)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__SignedOrder outer = SHEAF__SIGNED_ORDER__INIT;
    uint8_t signature[SIGNATURE_SIZE];
    struct buf bytes;

    order->worker_key.data = pool->worker.curve.public_key;
    order->worker_key.len = KEY_SIZE;
    order->term = 1;
    order->expires_us = (uint64_t)clock_wall_us() + 300000000;
    buf_init(&bytes, 0);
    frame_encode(&order->base, &bytes);
    sign_bytes(sign, SIGN_DOMAIN_ORDER, bytes.data, bytes.length, signature);
    outer.order.data = (uint8_t *)bytes.data;
    outer.order.len = bytes.length;
    outer.signature.data = signature;
    outer.signature.len = sizeof(signature);
    envelope.body_case = SHEAF__ENVELOPE__BODY_ORDER;
    envelope.order = &outer;
    send_envelope(pool, &envelope);
    buf_fini(&bytes);
}

static Sheaf__Order order_of(uint64_t attempt, uint32_t epoch)
{
    Sheaf__Order order = SHEAF__ORDER__INIT;

    order.attempt = attempt;
    order.epoch = epoch;
    return order;
}

void pool_prepare(struct pool *pool, uint64_t attempt, uint32_t epoch, const struct job_spec *spec)
{
    Sheaf__Order order = order_of(attempt, epoch);
    Sheaf__Prepare prepare = SHEAF__PREPARE__INIT;
    json_t *value = spec_to_json(spec);
    char *text = json_write(value);
    uint8_t attempt_uid[16] = {0};
    uint8_t job_uid[16] = {7};
    uint32_t devices[] = {0};
    char name[] = "job";
    char project[] = "project";

    memcpy(attempt_uid, &attempt, sizeof(attempt));
    memcpy(attempt_uid + 8, pool->node.bytes + 8, 8); /* control groups are named by it */
    prepare.attempt_uid.data = attempt_uid;
    prepare.attempt_uid.len = 16;
    prepare.job_uid.data = job_uid;
    prepare.job_uid.len = 16;
    prepare.job_name = name;
    prepare.project = project;
    prepare.spec_json.data = (uint8_t *)text;
    prepare.spec_json.len = strlen(text);
    prepare.devices = devices;
    prepare.n_devices = 1;
    prepare.ranks = 1;
    order.what_case = SHEAF__ORDER__WHAT_PREPARE;
    order.prepare = &prepare;
    send_order(pool, &order, &pool->sign);
    free(text);
    json_decref(value);
}

static void send_go(struct pool *pool, uint64_t attempt, uint32_t epoch,
                    const struct sign_pair *sign)
{
    Sheaf__Order order = order_of(attempt, epoch);
    Sheaf__Go go = SHEAF__GO__INIT;
    Sheaf__Peer peer = SHEAF__PEER__INIT;
    Sheaf__Peer *peers[] = {&peer};
    uint32_t pairs[] = {0};
    char address[] = "127.0.0.1";

    peer.address = address;
    peer.port = 20001;
    go.peers = peers;
    go.n_peers = 1;
    go.pair_us = pairs;
    go.n_pair_us = 1;
    go.price_micro = 1250000;
    order.what_case = SHEAF__ORDER__WHAT_GO;
    order.go = &go;
    send_order(pool, &order, sign);
}

void pool_go(struct pool *pool, uint64_t attempt, uint32_t epoch)
{
    send_go(pool, attempt, epoch, &pool->sign);
}

void pool_go_forged(struct pool *pool, uint64_t attempt, uint32_t epoch)
{
    struct sign_pair other;

    sign_pair_make(&other);
    send_go(pool, attempt, epoch, &other);
}

void pool_stop(struct pool *pool, uint64_t attempt, uint32_t epoch, const char *reason)
{
    Sheaf__Order order = order_of(attempt, epoch);
    Sheaf__Stop stop = SHEAF__STOP__INIT;
    char text[64];

    snprintf(text, sizeof(text), "%s", reason);
    stop.reason = text;
    order.what_case = SHEAF__ORDER__WHAT_STOP;
    order.stop = &stop;
    send_order(pool, &order, &pool->sign);
}

void pool_forget(struct pool *pool, uint64_t attempt, uint32_t epoch)
{
    Sheaf__Order order = order_of(attempt, epoch);
    Sheaf__Forget forget = SHEAF__FORGET__INIT;

    order.what_case = SHEAF__ORDER__WHAT_FORGET;
    order.forget = &forget;
    send_order(pool, &order, &pool->sign);
}

void pool_input(struct pool *pool, const char *name, const char *text)
{
    char folder[128];
    char path[192];
    char archive[128];

    snprintf(folder, sizeof(folder), "%s/src", pool->root);
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    snprintf(archive, sizeof(archive), "%s/src.tar.zst", pool->root);
    assert_int_equal(fs_mkdir(folder, 0755, NULL), 0);
    assert_int_equal(fs_write(path, text, strlen(text), 0644, NULL), 0);
    assert_int_equal(pack_tree(folder, "src", archive, NULL), 0);
    buf_clear(&pool->input);
    assert_int_equal(fs_read(archive, 1 << 20, &pool->input, NULL), 0);
    sha256(pool->input.data, pool->input.length, pool->input_sha256);
}

/* -- waiting ----------------------------------------------------------------------------------- */

void pool_wait(struct pool *pool, bool (*condition)(struct pool *pool, const void *arg),
               const void *arg, const char *what)
{
    struct timeval slice = {.tv_usec = 50000};
    int64_t until_us = clock_mono_us() + WAIT_US;

    while (!condition(pool, arg)) {
        if (clock_mono_us() > until_us)
            fail_msg("waited in vain for %s", what);
        event_base_loopexit(pool->base, &slice);
        event_base_loop(pool->base, EVLOOP_ONCE);
    }
}

static bool has_hellos(struct pool *pool, const void *arg)
{
    return pool->hellos >= *(const int *)arg;
}

void pool_wait_hellos(struct pool *pool, int count)
{
    pool_wait(pool, has_hellos, &count, "a hello");
}

struct wanted {
    uint64_t attempt;
    const char *news;
};

static const struct pool_news *find(const struct pool *pool, const struct wanted *wanted)
{
    for (int i = pool->news_count; i-- > 0;) {
        if (pool->news[i].attempt == wanted->attempt
            && strcmp(pool->news[i].news, wanted->news) == 0)
            return &pool->news[i];
    }
    return NULL;
}

static bool has_news(struct pool *pool, const void *arg)
{
    return find(pool, arg) != NULL;
}

const struct pool_news *pool_wait_news(struct pool *pool, uint64_t attempt, const char *news)
{
    struct wanted wanted = {attempt, news};

    pool_wait(pool, has_news, &wanted, news);
    return find(pool, &wanted);
}

bool pool_has_news(const struct pool *pool, uint64_t attempt, const char *news)
{
    struct wanted wanted = {attempt, news};

    return find(pool, &wanted) != NULL;
}

/* -- life -------------------------------------------------------------------------------------- */

static void set_libexec(void)
{
    char path[FS_PATH] = "";
    char folder[FS_PATH + 16];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    char *slash;

    path[length > 0 ? length : 0] = '\0';
    slash = strrchr(path, '/');
    assert_non_null(slash);
    *slash = '\0';
    snprintf(folder, sizeof(folder), "%s/../bin", path);
    setenv("SHEAF_LIBEXEC", folder, 0);
}

static void write_home(struct pool *pool)
{
    struct settings settings = settings_of(pool->root);
    struct node_file node = {.control_count = 1};
    char path[FS_PATH + 16];

    assert_int_equal(fs_write(settings.machine_id, "0123456789abcdef0123\n", 21, 0644, NULL), 0);
    assert_int_equal(home_open(&settings, NULL), 0);
    snprintf(path, sizeof(path), "%s/identity", settings.state);
    assert_int_equal(identity_load_or_make(path, &pool->worker, NULL), 0);
    node.node = pool->node = uuid_new();
    snprintf(node.name, sizeof(node.name), "testnode");
    snprintf(node.url, sizeof(node.url), "https://127.0.0.1:1");
    memcpy(node.control[0], pool->control_endpoint, sizeof(node.control[0]));
    memcpy(node.server_key, pool->server.public_key, KEY_SIZE);
    memcpy(node.sign_key, pool->sign.public_key, KEY_SIZE);
    assert_int_equal(home_machine(&settings, node.machine, NULL), 0);
    assert_int_equal(home_save(&settings, &node, NULL), 0);
}

static void open_sockets(struct pool *pool)
{
    struct zsock_options options = {.type = ZMQ_ROUTER,
                                    .server = &pool->server,
                                    .zap_domain = "worker",
                                    .max_frame = FRAME_MAX};
    struct err err = {0};

    pool->base = loop_new();
    pool->zmq = zmq_ctx_new();
    pool->zap = zap_new(pool->zmq);
    assert_int_equal(
        zsock_new(pool->base, pool->zmq, &options, on_control, pool, &pool->control, &err), 0);
    assert_int_equal(zsock_bind(pool->control, "tcp://127.0.0.1:*", pool->control_endpoint, &err),
                     0);
    options.server = &pool->gateway;
    options.zap_domain = "bulk";
    assert_int_equal(zsock_new(pool->base, pool->zmq, &options, on_bulk, pool, &pool->bulk, &err),
                     0);
    assert_int_equal(zsock_bind(pool->bulk, "tcp://127.0.0.1:*", pool->bulk_endpoint, &err), 0);
}

struct pool *pool_new(void)
{
    struct pool *pool = mem_new(1, sizeof(*pool));
    int pair[2];

    snprintf(pool->root, sizeof(pool->root), "/tmp/sheaf-pool-XXXXXX");
    assert_non_null(mkdtemp(pool->root));
    set_libexec();
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    pool->zygote_pid = fork();
    assert_int_not_equal(pool->zygote_pid, -1);
    if (pool->zygote_pid == 0) {
        close(pair[0]);
        zygote_main(pair[1], pool->root);
    }
    close(pair[1]);
    pool->zygote = pair[0];
    curve_pair_make(&pool->server);
    curve_pair_make(&pool->gateway);
    sign_pair_make(&pool->sign);
    pool->next_seq = 1;
    buf_init(&pool->log[0], 0);
    buf_init(&pool->log[1], 0);
    buf_init(&pool->input, 0);
    buf_init(&pool->output, 0);
    open_sockets(pool);
    write_home(pool);
    zap_allow(pool->zap, "worker", pool->worker.curve.public_key);
    zap_allow(pool->zap, "bulk", pool->worker.curve.public_key);
    return pool;
}

void pool_free(struct pool *pool)
{
    int status;

    close(pool->zygote);
    (void)waitpid(pool->zygote_pid, &status, 0);
    zsock_free(pool->control);
    zsock_free(pool->bulk);
    zap_free(pool->zap);
    zmq_ctx_term(pool->zmq);
    event_base_free(pool->base);
    buf_fini(&pool->log[0]);
    buf_fini(&pool->log[1]);
    buf_fini(&pool->input);
    buf_fini(&pool->output);
    (void)!fs_remove_tree(pool->root, NULL);
    free(pool);
}
