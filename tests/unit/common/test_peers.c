/* Connections that never end a message, on real sockets: who is ended, and who is not. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/loop.h"
#include "common/pure/id.h"

#define DEADLINE_US ((int64_t)10000000)
#define KIB         ((size_t)1024)
#define FRAME       (64 * KIB)
#define LIMIT_ONE   (1024 * KIB)
#define LIMIT_ALL   (2048 * KIB)
#define SPARE       (256 * KIB)
#define MAX_CLIENTS 8

struct client {
    void *handle;
    char user_id[2 * KEY_SIZE + 1];
};

struct fixture {
    void *context; /* of the server */
    void *outside; /* of the clients: their own I/O thread */
    struct event_base *base;
    struct zap *zap;
    struct curve_pair server_pair;
    struct zsock *server;
    char endpoint[128];
    struct client client[MAX_CLIENTS];
    uint32_t client_count;
    uint32_t received;
    uint64_t bytes;
    uint32_t cuts;
    struct peers_cut cut;
    uint64_t cut_most;
};

static uint8_t filler[FRAME];

static void on_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct fixture *f = arg;

    (void)socket;
    f->received++;
    f->bytes += message->size[1];
}

static void on_cut(struct zsock *socket, const struct peers_cut *cut, void *arg)
{
    struct fixture *f = arg;

    (void)socket;
    f->cuts++;
    f->cut = *cut;
    if (cut->held > f->cut_most)
        f->cut_most = cut->held;
}

static int set_up(void **state)
{
    static struct fixture fixture;
    struct fixture *f = &fixture;
    struct zsock_options options = {
        .type = ZMQ_ROUTER,
        .server = &f->server_pair,
        .zap_domain = "worker",
        .max_frame = 2 * FRAME, /* encryption adds some bytes */
        .held = {.one = LIMIT_ONE, .all = LIMIT_ALL, .spare = SPARE},
        .on_cut = on_cut,
    };

    *f = (struct fixture){.context = zmq_ctx_new(), .outside = zmq_ctx_new(), .base = loop_new()};
    curve_pair_make(&f->server_pair);
    f->zap = zap_new(f->context);
    assert_int_equal(zsock_new(f->base, f->context, &options, on_message, f, &f->server, NULL), 0);
    assert_int_equal(zsock_bind(f->server, "tcp://127.0.0.1:0", f->endpoint, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    for (uint32_t i = 0; i < f->client_count; i++)
        zmq_close(f->client[i].handle);
    zsock_free(f->server);
    zap_free(f->zap);
    event_base_free(f->base);
    assert_int_equal(zmq_ctx_term(f->outside), 0);
    return zmq_ctx_term(f->context);
}

/* One that does not come back after its connection ends, so that each cut is counted once. */
static struct client *open_client(struct fixture *f)
{
    struct client *client = &f->client[f->client_count++];
    struct curve_pair pair;
    int none = 0;
    int never = -1;

    curve_pair_make(&pair);
    hex_format(pair.public_key, KEY_SIZE, client->user_id);
    zap_allow(f->zap, "worker", pair.public_key);
    client->handle = zmq_socket(f->outside, ZMQ_DEALER);
    zmq_setsockopt(client->handle, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(client->handle, ZMQ_SNDHWM, &none, sizeof(none));
    zmq_setsockopt(client->handle, ZMQ_RECONNECT_IVL, &never, sizeof(never));
    zmq_setsockopt(client->handle, ZMQ_CURVE_SERVERKEY, f->server_pair.public_key, KEY_SIZE);
    zmq_setsockopt(client->handle, ZMQ_CURVE_PUBLICKEY, pair.public_key, KEY_SIZE);
    zmq_setsockopt(client->handle, ZMQ_CURVE_SECRETKEY, pair.secret_key, KEY_SIZE);
    assert_int_equal(zmq_connect(client->handle, f->endpoint), 0);
    return client;
}

static void say(const struct client *client, size_t frames, bool end)
{
    for (size_t i = 0; i < frames; i++) {
        int more = i + 1 < frames || !end ? ZMQ_SNDMORE : 0;
        assert_int_equal(zmq_send(client->handle, filler, sizeof(filler), more), FRAME);
    }
}

static bool run_until(struct fixture *f, const uint32_t *count, uint32_t wanted)
{
    int64_t deadline_us = clock_mono_us() + DEADLINE_US;

    while (*count < wanted && clock_mono_us() < deadline_us) {
        struct timeval turn = {0, 10000};

        event_base_loopexit(f->base, &turn);
        event_base_dispatch(f->base);
    }
    return *count >= wanted;
}

static void test_an_endless_message_ends_its_connection_alone(void **state)
{
    struct fixture *f = *state;
    struct client *honest = open_client(f);
    struct client *hostile = open_client(f);

    say(hostile, 1, true);
    assert_true(run_until(f, &f->received, 1));
    /* libzmq sends nothing of a message before it is whole: so long that it is as good as endless.
     */
    say(hostile, 1024, true);
    assert_true(run_until(f, &f->cuts, 1));
    assert_string_equal(f->cut.user_id, hostile->user_id);
    assert_true(f->cut.held > LIMIT_ONE);
    assert_memory_equal(f->cut.address, "127.0.0.1:", 10);
    say(honest, 1, true);
    assert_true(run_until(f, &f->received, 2));
    assert_int_equal(f->received, 2); /* the long one never came */
    assert_int_equal(f->cuts, 1);
}

static void test_one_that_never_said_a_word_is_ended_too(void **state)
{
    struct fixture *f = *state;

    say(open_client(f), 1024, true);
    assert_true(run_until(f, &f->cuts, 1));
    assert_string_equal(f->cut.user_id, "");
    assert_int_equal(f->received, 0);
}

/* Waits for the end of the client's connection while the server's loop does not turn. */
static void wait_for_the_end(void *monitor)
{
    zmq_pollitem_t item = {.socket = monitor, .events = ZMQ_POLLIN};

    assert_int_equal(zmq_poll(&item, 1, (long)(DEADLINE_US / 1000)), 1);
}

static void *watch_the_end(struct fixture *f, const struct client *client, const char *name)
{
    void *monitor = zmq_socket(f->outside, ZMQ_PAIR);
    int none = 0;

    assert_int_equal(zmq_socket_monitor(client->handle, name, ZMQ_EVENT_DISCONNECTED), 0);
    zmq_setsockopt(monitor, ZMQ_LINGER, &none, sizeof(none));
    assert_int_equal(zmq_connect(monitor, name), 0);
    return monitor;
}

static void test_a_busy_loop_does_not_blind_it(void **state)
{
    struct fixture *f = *state;
    struct client *client = open_client(f);
    void *monitor = watch_the_end(f, client, "inproc://busy");

    say(client, 1024, true);
    wait_for_the_end(monitor);
    zmq_close(monitor);
    assert_true(run_until(f, &f->cuts, 1));
    assert_int_equal(f->received, 0);
}

static void test_whole_messages_hold_nothing(void **state)
{
    struct fixture *f = *state;
    struct client *client = open_client(f);

    for (uint32_t i = 1; i <= 160; i++) { /* ten times the limit, and long ones among them */
        say(client, i % 10 == 0 ? 8 : 1, true);
        assert_true(run_until(f, &f->received, i));
    }
    assert_int_equal(f->cuts, 0);
}

static void test_together_they_may_hold_no_more_either(void **state)
{
    static const char *const names[MAX_CLIENTS] = {"inproc://0", "inproc://1", "inproc://2",
                                                   "inproc://3", "inproc://4", "inproc://5",
                                                   "inproc://6", "inproc://7"};
    struct fixture *f = *state;
    zmq_pollitem_t item[MAX_CLIENTS];
    void *monitor[MAX_CLIENTS];

    /* Each below its own limit. */
    for (uint32_t i = 0; i < MAX_CLIENTS; i++)
        say(open_client(f), 1, true);
    assert_true(run_until(f, &f->received, MAX_CLIENTS));
    for (uint32_t i = 0; i < MAX_CLIENTS; i++)
        monitor[i] = watch_the_end(f, &f->client[i], names[i]);
    /* The loop does not turn, so that nothing is delivered: 6 MiB against 2. */
    for (uint32_t i = 0; i < MAX_CLIENTS; i++) {
        say(&f->client[i], 12, true);
        item[i] = (zmq_pollitem_t){.socket = monitor[i], .events = ZMQ_POLLIN};
    }
    assert_true(zmq_poll(item, MAX_CLIENTS, (long)(DEADLINE_US / 1000)) >= 1);
    for (uint32_t i = 0; i < MAX_CLIENTS; i++)
        zmq_close(monitor[i]);
    assert_true(run_until(f, &f->cuts, 1));
    assert_true(f->cut_most <= LIMIT_ONE);
    assert_true(f->cut_most > SPARE);
}

static void test_a_peer_is_ended_by_name_and_no_other_descriptor(void **state)
{
    struct fixture *f = *state;
    struct client *one = open_client(f);
    struct client *two = open_client(f);

    say(one, 1, true);
    say(two, 1, true);
    assert_true(run_until(f, &f->received, 2));
    assert_int_equal(zsock_end_peer(f->server, "nobody"), 0);
    assert_int_equal(zsock_end_peer(f->server, one->user_id), 1);
    assert_int_equal(zsock_end_peer(f->server, one->user_id), 0); /* once is enough */
    say(two, 1, true);
    assert_true(run_until(f, &f->received, 3));
    assert_int_equal(f->cuts, 0); /* that is told to nobody: the caller knows */
}

/* The server's end of the one connection there is. */
static int accepted_fd(const struct fixture *f)
{
    unsigned port = (unsigned)strtoul(strrchr(f->endpoint, ':') + 1, NULL, 10);

    for (int fd = 0; fd < 256; fd++) {
        struct sockaddr_in own = {0}, other = {0};
        socklen_t size = sizeof(own), other_size = sizeof(other);

        if (getsockname(fd, (struct sockaddr *)&own, &size) == 0
            && getpeername(fd, (struct sockaddr *)&other, &other_size) == 0
            && own.sin_family == AF_INET && ntohs(own.sin_port) == port)
            return fd;
    }
    fail_msg("nobody is connected");
    return -1;
}

static void test_a_reused_descriptor_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct client *client = open_client(f);
    char byte = 'x';
    int pair[2];

    say(client, 1, true);
    assert_true(run_until(f, &f->received, 1));
    /* The connection's own number now belongs to something else, as after a close and an open. */
    int fd = accepted_fd(f);
    int kept = dup(fd);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(dup2(pair[0], fd), fd);
    assert_int_equal(zsock_end_peer(f->server, client->user_id), 0);
    assert_int_equal(write(fd, &byte, 1), 1);
    assert_int_equal(read(pair[1], &byte, 1), 1);
    assert_int_equal(dup2(kept, fd), fd); /* libzmq closes what is its own */
    close(kept);
    close(pair[0]);
    close(pair[1]);
}

#define ON_SOCKETS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_SOCKETS(test_an_endless_message_ends_its_connection_alone),
        ON_SOCKETS(test_one_that_never_said_a_word_is_ended_too),
        ON_SOCKETS(test_a_busy_loop_does_not_blind_it),
        ON_SOCKETS(test_whole_messages_hold_nothing),
        ON_SOCKETS(test_together_they_may_hold_no_more_either),
        ON_SOCKETS(test_a_peer_is_ended_by_name_and_no_other_descriptor),
        ON_SOCKETS(test_a_reused_descriptor_is_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
