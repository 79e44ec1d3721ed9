#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <zmq.h>

#include "common/io/loop.h"
#include "common/pure/buf.h"
#include "common/pure/id.h"

#define DEADLINE_MS 5000
#define BURST       5000u

struct fixture;

struct client {
    struct fixture *fixture;
    struct zsock *socket;
    struct curve_pair pair;
    uint32_t received;
    uint32_t wanted;
    struct buf last;
};

/* A server with a ZAP handler, and what came to it. */
struct fixture {
    void *context;
    struct event_base *base;
    struct zap *zap;
    struct curve_pair server_pair;
    struct zsock *server;
    char endpoint[128];
    uint32_t received;
    uint32_t wanted; /* the loop ends when so many came */
    bool too_many;
    bool echo;
    bool free_in_handler;
    char user_id[80];
    uint8_t peer[64];
    size_t peer_size;
    struct buf last;
    struct client clients[2]; /* closed by tear_down, also when a test fails */
    uint32_t client_count;
    void *raw;
};

static void on_server_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct fixture *f = arg;

    f->received++;
    f->too_many |= message->too_many;
    snprintf(f->user_id, sizeof(f->user_id), "%s", message->user_id);
    assert_true(message->size[0] <= sizeof(f->peer));
    memcpy(f->peer, message->frame[0], message->size[0]);
    f->peer_size = message->size[0];
    buf_clear(&f->last);
    buf_append(&f->last, message->frame[1], message->size[1]);
    if (f->echo)
        assert_int_equal(zsock_send(socket, message->frame[0], message->size[0], message->frame[1],
                                    message->size[1]),
                         0);
    if (f->free_in_handler) {
        zsock_free(socket);
        f->server = NULL;
    }
    if (f->received == f->wanted)
        event_base_loopbreak(f->base);
}

static void on_client_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct client *client = arg;

    (void)socket;
    client->received++;
    buf_clear(&client->last);
    buf_append(&client->last, message->frame[0], message->size[0]);
    if (client->received == client->wanted)
        event_base_loopbreak(client->fixture->base);
}

static struct client *open_client(struct fixture *f, bool enrol)
{
    struct client *client = &f->clients[f->client_count++];
    struct zsock_options options = {
        .type = ZMQ_DEALER,
        .client = &client->pair,
        .server_key = f->server_pair.public_key,
        .high_water = 10000,
    };

    *client = (struct client){.fixture = f};
    curve_pair_make(&client->pair);
    if (enrol)
        zap_allow(f->zap, "worker", client->pair.public_key);
    assert_int_equal(
        zsock_new(f->base, f->context, &options, on_client_message, client, &client->socket, NULL),
        0);
    assert_int_equal(zsock_connect(client->socket, f->endpoint, NULL), 0);
    return client;
}

static int set_up(void **state)
{
    static struct fixture fixture;
    struct fixture *f = &fixture;
    struct zsock_options options = {
        .type = ZMQ_ROUTER,
        .server = &f->server_pair,
        .zap_domain = "worker",
        .max_frame = 4096,
        .high_water = 10000,
    };

    *f = (struct fixture){.context = zmq_ctx_new(), .base = loop_new()};
    curve_pair_make(&f->server_pair);
    f->zap = zap_new(f->context);
    assert_non_null(f->zap);
    assert_int_equal(
        zsock_new(f->base, f->context, &options, on_server_message, f, &f->server, NULL), 0);
    assert_int_equal(zsock_bind(f->server, "tcp://127.0.0.1:0", f->endpoint, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    for (uint32_t i = 0; i < f->client_count; i++) {
        zsock_free(f->clients[i].socket);
        buf_fini(&f->clients[i].last);
    }
    if (f->raw != NULL)
        zmq_close(f->raw);
    zsock_free(f->server);
    zap_free(f->zap);
    buf_fini(&f->last);
    event_base_free(f->base);
    return zmq_ctx_term(f->context);
}

/* Runs until loopbreak; a test that hangs fails here. */
static void run_for(struct fixture *f, long ms)
{
    struct timeval limit = {ms / 1000, ms % 1000 * 1000};

    event_base_loopexit(f->base, &limit);
    event_base_dispatch(f->base);
}

static void test_an_enrolled_key_speaks_under_its_name(void **state)
{
    struct fixture *f = *state;
    char hex[2 * KEY_SIZE + 1];

    struct client *client = open_client(f, true);
    f->echo = true;
    client->wanted = 1;
    assert_int_equal(zsock_send(client->socket, NULL, 0, "hello", 5), 0);
    run_for(f, DEADLINE_MS);
    assert_int_equal(client->received, 1);
    assert_memory_equal(client->last.data, "hello", 5);
    assert_string_equal(f->user_id, hex_format(client->pair.public_key, KEY_SIZE, hex));
    assert_int_equal(zap_refused(f->zap), 0);
}

static void test_a_suspended_key_comes_back(void **state)
{
    struct fixture *f = *state;
    struct curve_pair pair;
    struct timespec wait = {0, 60000000};

    curve_pair_make(&pair);
    zap_suspend(f->zap, "worker", pair.public_key, 1000000); /* not allowed: stays so */
    assert_false(zap_is_allowed(f->zap, "worker", pair.public_key));
    zap_allow(f->zap, "worker", pair.public_key);
    zap_suspend(f->zap, "worker", pair.public_key, 50000);
    assert_false(zap_is_allowed(f->zap, "worker", pair.public_key));
    zap_allow(f->zap, "worker", pair.public_key); /* as every reload does: no way around */
    assert_false(zap_is_allowed(f->zap, "worker", pair.public_key));
    nanosleep(&wait, NULL);
    assert_true(zap_is_allowed(f->zap, "worker", pair.public_key));
}

struct watch {
    struct fixture *fixture;
    struct event *timer;
};

static void until_refused(evutil_socket_t fd, short what, void *arg)
{
    struct watch *watch = arg;

    (void)fd;
    (void)what;
    if (zap_refused(watch->fixture->zap) > 0)
        event_base_loopbreak(watch->fixture->base);
}

static void test_an_unknown_key_is_refused_until_it_is_allowed(void **state)
{
    struct fixture *f = *state;
    struct watch watch = {.fixture = f};
    struct timeval interval = {0, 5000};

    struct client *client = open_client(f, false);
    /* Right key, wrong door. */
    zap_allow(f->zap, "gateway", client->pair.public_key);
    assert_int_equal(zsock_send(client->socket, NULL, 0, "let me in", 9), 0);
    watch.timer = event_new(f->base, -1, EV_PERSIST, until_refused, &watch);
    event_add(watch.timer, &interval);
    run_for(f, DEADLINE_MS);
    event_free(watch.timer);
    assert_true(zap_refused(f->zap) > 0);
    assert_int_equal(f->received, 0);
    assert_true(zap_is_allowed(f->zap, "gateway", client->pair.public_key));
    assert_false(zap_is_allowed(f->zap, "worker", client->pair.public_key));
    while (!zsock_was_refused(client->socket))
        run_for(f, 20);
    assert_true(zsock_was_refused(client->socket));
    /* libzmq gives up after a refusal: the next try is ours to make. */
    zap_allow(f->zap, "worker", client->pair.public_key);
    assert_int_equal(zsock_reconnect(client->socket, f->endpoint, NULL), 0);
    assert_int_equal(zsock_send(client->socket, NULL, 0, "again", 5), 0);
    f->wanted = 1;
    run_for(f, DEADLINE_MS);
    assert_int_equal(f->received, 1);
    assert_false(zsock_was_refused(client->socket));
    zap_deny(f->zap, "worker", client->pair.public_key);
    assert_false(zap_is_allowed(f->zap, "worker", client->pair.public_key));
}

static void test_pitfall_a_curve_server_without_zap_is_refused(void **state)
{
    void *context = zmq_ctx_new();
    struct event_base *base = loop_new();
    struct curve_pair pair;
    struct zsock *socket = NULL;
    struct err err;
    struct zsock_options options = {.type = ZMQ_ROUTER, .server = &pair, .zap_domain = "worker"};

    (void)state;
    curve_pair_make(&pair);
    assert_int_equal(zsock_new(base, context, &options, on_client_message, NULL, &socket, &err),
                     -ERR_INTERNAL);
    assert_null(socket);
    /* The look for a handler left nothing behind that would keep a real one out. */
    struct zap *zap = zap_new(context);
    assert_non_null(zap);
    assert_null(zap_new(context));
    assert_int_equal(zsock_new(base, context, &options, on_client_message, NULL, &socket, &err), 0);
    zsock_free(socket);
    options.zap_domain = "";
    assert_int_equal(zsock_new(base, context, &options, on_client_message, NULL, &socket, &err),
                     -ERR_INTERNAL);
    zap_free(zap);
    event_base_free(base);
    assert_int_equal(zmq_ctx_term(context), 0);
}

static void test_a_router_answers_the_peer_that_spoke(void **state)
{
    struct fixture *f = *state;

    struct client *one = open_client(f, true);
    struct client *two = open_client(f, true);
    f->echo = true;
    one->wanted = 1;
    two->wanted = 1;
    assert_int_equal(zsock_send(one->socket, NULL, 0, "one", 3), 0);
    run_for(f, DEADLINE_MS);
    assert_int_equal(zsock_send(two->socket, NULL, 0, "two", 3), 0);
    run_for(f, DEADLINE_MS);
    assert_string_equal(one->last.data, "one");
    assert_string_equal(two->last.data, "two");
    assert_int_equal(one->received + two->received, 2);
}

/* Without ROUTER_MANDATORY the send would succeed, and the message be dropped. */
static void test_pitfall_a_router_says_that_a_peer_is_unknown(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(zsock_send(f->server, "nobody", 6, "x", 1), -ERR_UNREACHABLE);
}

static void test_a_burst_is_drained_although_the_descriptor_fires_once(void **state)
{
    struct fixture *f = *state;

    struct client *client = open_client(f, true);
    f->echo = true; /* sending in the handler eats wake-ups */
    client->wanted = BURST;
    for (uint32_t i = 0; i < BURST; i++)
        assert_int_equal(zsock_send(client->socket, NULL, 0, &i, sizeof(i)), 0);
    run_for(f, DEADLINE_MS);
    assert_int_equal(f->received, BURST);
    assert_int_equal(client->received, BURST);
    uint32_t last = BURST - 1;
    assert_memory_equal(client->last.data, &last, sizeof(last));
}

static void test_other_events_get_their_turn_during_a_burst(void **state)
{
    struct fixture *f = *state;
    struct watch watch = {.fixture = f};
    struct timeval soon = {0, 0};

    struct client *client = open_client(f, true);
    client->wanted = 1;
    f->echo = true;
    assert_int_equal(zsock_send(client->socket, NULL, 0, "up", 2), 0);
    run_for(f, DEADLINE_MS);
    f->echo = false;
    f->received = 0;
    for (uint32_t i = 0; i < BURST; i++)
        assert_int_equal(zsock_send(client->socket, NULL, 0, &i, sizeof(i)), 0);
    /* Wait, outside the loop, until the burst is in the server's queue. */
    struct timespec pause = {0, 200000000};
    nanosleep(&pause, NULL);
    zap_allow(f->zap, "worker", f->server_pair.public_key);
    watch.timer = event_new(f->base, -1, 0, until_refused, &watch);
    event_add(watch.timer, &soon);
    event_base_loop(f->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    event_base_loop(f->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    assert_in_range(f->received, 0, 1000);
    assert_false(event_pending(watch.timer, EV_TIMEOUT, NULL));
    f->wanted = BURST;
    run_for(f, DEADLINE_MS);
    assert_int_equal(f->received, BURST);
    event_free(watch.timer);
}

static void test_a_full_queue_is_said_and_takes_nothing(void **state)
{
    struct fixture *f = *state;
    struct client *client = &f->clients[f->client_count++];
    struct zsock_options options = {
        .type = ZMQ_DEALER,
        .client = &client->pair,
        .server_key = f->server_pair.public_key,
        .high_water = 10,
    };
    int rc = 0;
    int sent = 0;

    *client = (struct client){.fixture = f};
    curve_pair_make(&client->pair);
    assert_int_equal(
        zsock_new(f->base, f->context, &options, on_client_message, &client, &client->socket, NULL),
        0);
    /* Nobody listens there. */
    assert_int_equal(zsock_connect(client->socket, "tcp://127.0.0.1:1", NULL), 0);
    for (sent = 0; sent < 100 && rc == 0; sent++)
        rc = zsock_send(client->socket, NULL, 0, "x", 1);
    assert_int_equal(rc, -ERR_TOO_MANY);
    assert_int_equal(sent, 11);
    /* A reconnect drops what was queued. */
    zap_allow(f->zap, "worker", client->pair.public_key);
    assert_int_equal(zsock_reconnect(client->socket, f->endpoint, NULL), 0);
    assert_int_equal(zsock_send(client->socket, NULL, 0, "fresh", 5), 0);
    f->wanted = 1;
    run_for(f, DEADLINE_MS);
    assert_int_equal(f->received, 1);
    assert_memory_equal(f->last.data, "fresh", 5);
}

static void test_frames_beyond_the_array_are_dropped_and_said(void **state)
{
    struct fixture *f = *state;
    struct client *client = open_client(f, true);
    void *raw = zmq_socket(f->context, ZMQ_DEALER);
    int linger = 0;

    f->raw = raw;
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(raw, ZMQ_CURVE_SERVERKEY, f->server_pair.public_key, KEY_SIZE);
    zmq_setsockopt(raw, ZMQ_CURVE_PUBLICKEY, client->pair.public_key, KEY_SIZE);
    zmq_setsockopt(raw, ZMQ_CURVE_SECRETKEY, client->pair.secret_key, KEY_SIZE);
    assert_int_equal(zmq_connect(raw, f->endpoint), 0);
    for (int i = 0; i < 50; i++)
        assert_int_equal(zmq_send(raw, "f", 1, i < 49 ? ZMQ_SNDMORE : 0), 1);
    assert_int_equal(zmq_send(raw, "whole", 5, 0), 5);
    f->wanted = 2;
    run_for(f, DEADLINE_MS);
    assert_int_equal(f->received, 2);
    assert_true(f->too_many);
    assert_memory_equal(f->last.data, "whole", 5);
}

static void test_a_socket_may_be_freed_by_its_own_handler(void **state)
{
    struct fixture *f = *state;

    struct client *client = open_client(f, true);
    f->free_in_handler = true;
    f->wanted = 1;
    assert_int_equal(zsock_send(client->socket, NULL, 0, "bye", 3), 0);
    assert_int_equal(zsock_send(client->socket, NULL, 0, "bye", 3), 0);
    run_for(f, DEADLINE_MS);
    assert_int_equal(f->received, 1);
    assert_null(f->server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_enrolled_key_speaks_under_its_name, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_an_unknown_key_is_refused_until_it_is_allowed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_suspended_key_comes_back, set_up, tear_down),
        cmocka_unit_test(test_pitfall_a_curve_server_without_zap_is_refused),
        cmocka_unit_test_setup_teardown(test_a_router_answers_the_peer_that_spoke, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_pitfall_a_router_says_that_a_peer_is_unknown, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_burst_is_drained_although_the_descriptor_fires_once,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_events_get_their_turn_during_a_burst, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_full_queue_is_said_and_takes_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_frames_beyond_the_array_are_dropped_and_said, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_socket_may_be_freed_by_its_own_handler, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
