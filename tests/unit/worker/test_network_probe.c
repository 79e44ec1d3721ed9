#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/network/network.h"
#include "worker/network/packet.h"

#define SAMPLES 10u

struct side {
    struct network *network;
    uint32_t udp;
    uint32_t tcp;
};

struct fixture {
    struct event_base *base;
    struct side a;
    struct side b;
    struct probe_sample sample[8];
    uint32_t count;
    uint32_t calls;
    uint32_t wanted;
    uint32_t order[4];
};

/* A port that nobody listened on a moment ago. */
static uint32_t free_tcp_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void side_open(struct fixture *f, struct side *side)
{
    struct err err = {0};
    int rc = -1;

    for (int tries = 0; tries < 10 && rc != 0; tries++) {
        side->tcp = free_tcp_port();
        rc = network_new(f->base, "127.0.0.1", 0, side->tcp, &side->network, &side->udp, &err);
    }
    if (rc != 0)
        fail_msg("%s", err.text);
    assert_int_not_equal(side->udp, 0);
}

static int setup(void **state)
{
    static struct fixture fixture;

    memset(&fixture, 0, sizeof(fixture));
    fixture.base = event_base_new();
    fixture.wanted = 1;
    side_open(&fixture, &fixture.a);
    side_open(&fixture, &fixture.b);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    network_free(f->a.network);
    network_free(f->b.network);
    event_base_free(f->base);
    return 0;
}

static struct probe_peer peer_of(const struct side *side, uint64_t node, uint8_t key)
{
    struct probe_peer peer = {.node = node, .udp_port = side->udp, .tcp_port = side->tcp};

    snprintf(peer.address, sizeof(peer.address), "127.0.0.1");
    memset(peer.key, key, sizeof(peer.key));
    return peer;
}

static void on_samples(const struct probe_sample *samples, uint32_t count, void *arg)
{
    struct fixture *f = arg;

    f->order[f->calls++ % 4] = count > 0 ? (uint32_t)samples[0].node : 0;
    f->count = count;
    memcpy(f->sample, samples, (count < 8 ? count : 8) * sizeof(*samples));
    if (f->calls == f->wanted)
        event_base_loopbreak(f->base);
}

static void on_too_late(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(arg);
}

/* Runs the loop until the wanted callbacks came, or fails after 20 s. */
static void run(struct fixture *f)
{
    struct event *late = event_new(f->base, -1, 0, on_too_late, f->base);

    event_add(late, &(struct timeval){.tv_sec = 20});
    assert_int_equal(event_base_dispatch(f->base), 0);
    event_free(late);
    assert_int_equal(f->calls, f->wanted);
}

static void check_link(const struct probe_sample *sample)
{
    assert_in_range(sample->rtt_p50_us, 1, 200000);
    assert_in_range(sample->rtt_p95_us, sample->rtt_p50_us, 1000000);
    assert_int_equal(sample->loss_ppm, 0);
    assert_true(sample->reach);
}

static void test_two_nodes_measure_their_link(void **state)
{
    struct fixture *f = *state;
    struct probe_peer a = peer_of(&f->a, 1, 7);
    struct probe_peer b = peer_of(&f->b, 2, 7);

    network_set_peers(f->b.network, &a, 1);
    network_measure(f->a.network, &b, 1, SAMPLES, on_samples, f);
    run(f);
    assert_int_equal(f->count, 1);
    assert_int_equal(f->sample[0].node, 2);
    check_link(&f->sample[0]);
}

static int listening_stranger(uint32_t *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

/*
 * All peers of one measure at once, since each wait for silence takes seconds: one that learns the
 * key 0.7 s late and loses nothing by that, and those that must not count as linked.
 */
static void test_silence_and_strangers_are_no_path(void **state)
{
    enum { LATE, WRONG_KEY, CLOSED_PORT, NO_PORT, STRANGER, NOT_AN_ADDRESS, PEERS };
    struct fixture *f = *state;
    struct probe_peer from[PEERS];
    struct probe_peer to[PEERS];
    struct event *stop = event_new(f->base, -1, 0, on_too_late, f->base);
    int stranger;

    for (uint8_t i = 0; i < PEERS; i++) {
        from[i] = peer_of(&f->a, 1, 100 + i);
        to[i] = peer_of(&f->b, 10 + i, 100 + i);
    }
    to[WRONG_KEY].key[31] ^= 1;
    to[CLOSED_PORT].tcp_port = free_tcp_port();
    to[NO_PORT].tcp_port = 0;
    stranger = listening_stranger(&to[STRANGER].tcp_port);
    snprintf(to[NOT_AN_ADDRESS].address, sizeof(to[NOT_AN_ADDRESS].address),
             "no.such.host.invalid");

    network_measure(f->a.network, to, PEERS, SAMPLES, on_samples, f);
    event_add(stop, &(struct timeval){.tv_usec = 700000});
    event_base_dispatch(f->base);
    event_free(stop);
    assert_int_equal(f->calls, 0);
    network_set_peers(f->b.network, from, PEERS);
    run(f);
    close(stranger);

    assert_int_equal(f->count, PEERS);
    for (uint32_t i = 0; i < PEERS; i++) {
        bool answers = i != WRONG_KEY && i != NOT_AN_ADDRESS;
        assert_int_equal(f->sample[i].node, 10 + i);
        assert_int_equal(f->sample[i].reach, i == LATE);
        assert_int_equal(f->sample[i].rtt_p50_us != 0, answers);
        assert_int_equal(f->sample[i].loss_ppm, answers ? 0 : 1000000);
    }
    check_link(&f->sample[LATE]);
}

static void test_measures_queue_and_keep_their_order(void **state)
{
    struct fixture *f = *state;
    struct probe_peer a = peer_of(&f->a, 1, 7);

    f->wanted = 3;
    network_set_peers(f->b.network, &a, 1);
    for (uint64_t node = 11; node <= 13; node++) {
        struct probe_peer b = peer_of(&f->b, node, 7);
        network_measure(f->a.network, &b, 1, 1, on_samples, f);
        assert_int_equal(f->calls, 0);
    }
    run(f);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(f->order[i], 11 + i);
    check_link(&f->sample[0]);
}

/* Freed while one runs and one waits: no callback, nothing left behind. */
static void test_a_network_may_go_while_it_measures(void **state)
{
    struct fixture *f = *state;
    struct probe_peer b = peer_of(&f->b, 2, 7);

    for (int i = 0; i < 2; i++)
        network_measure(f->a.network, &b, 1, SAMPLES, on_samples, f);
    event_base_loop(f->base, EVLOOP_ONCE);
    network_free(f->a.network);
    f->a.network = NULL;
    for (int i = 0; i < 20; i++)
        event_base_loop(f->base, EVLOOP_NONBLOCK);
    assert_int_equal(f->calls, 0);
}

static void test_nobody_to_measure_is_an_empty_answer(void **state)
{
    struct fixture *f = *state;

    network_measure(f->a.network, NULL, 0, SAMPLES, on_samples, f);
    assert_int_equal(f->calls, 0); /* never from within the call */
    run(f);
    assert_int_equal(f->count, 0);
}

/* -- the responder, seen from a raw socket ----------------------------------------------------- */

static int raw_socket(const struct side *to)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)to->udp),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Lets the responder work until it has nothing more to read. */
static void drain(struct fixture *f)
{
    for (int i = 0; i < 50; i++)
        event_base_loop(f->base, EVLOOP_NONBLOCK);
}

static void request(const uint8_t key_byte, uint8_t out[PACKET_SIZE])
{
    struct packet packet = {
        .direction = PACKET_REQUEST, .transport = PACKET_UDP, .nonce = 99, .sample = 3};
    uint8_t key[SHA256_SIZE];

    memset(key, key_byte, sizeof(key));
    packet_key_id(key, packet.key_id);
    packet_encode(&packet, key, out);
}

static void test_an_echo_is_never_longer_than_its_request(void **state)
{
    struct fixture *f = *state;
    struct probe_peer a = peer_of(&f->a, 1, 7);
    uint8_t bytes[2 * PACKET_SIZE];
    uint8_t answer[4096];
    int fd = raw_socket(&f->b);

    network_set_peers(f->b.network, &a, 1);
    memset(bytes, 0, sizeof(bytes));
    request(7, bytes);
    for (size_t size = 0; size <= sizeof(bytes); size++) {
        ssize_t got;
        assert_int_equal(send(fd, bytes, size, 0), (ssize_t)size);
        drain(f);
        got = recv(fd, answer, sizeof(answer), 0);
        /* The right size alone is answered, with as many bytes; once. */
        assert_int_equal(got, size == PACKET_SIZE ? (ssize_t)PACKET_SIZE : -1);
        assert_int_equal(recv(fd, answer, sizeof(answer), 0), -1);
    }
    close(fd);
}

static void test_a_changed_packet_is_not_answered(void **state)
{
    struct fixture *f = *state;
    struct probe_peer a = peer_of(&f->a, 1, 7);
    uint8_t bytes[PACKET_SIZE];
    uint8_t answer[PACKET_SIZE];
    int fd = raw_socket(&f->b);

    network_set_peers(f->b.network, &a, 1);
    for (size_t i = 0; i < PACKET_SIZE; i++) {
        request(7, bytes);
        bytes[i] ^= 1;
        assert_int_equal(send(fd, bytes, sizeof(bytes), 0), PACKET_SIZE);
        drain(f);
        assert_int_equal(recv(fd, answer, sizeof(answer), 0), -1);
    }
    /* An echo sent back is no request. */
    request(7, bytes);
    assert_int_equal(send(fd, bytes, sizeof(bytes), 0), PACKET_SIZE);
    drain(f);
    assert_int_equal(recv(fd, answer, sizeof(answer), 0), PACKET_SIZE);
    assert_int_equal(send(fd, answer, sizeof(answer), 0), PACKET_SIZE);
    drain(f);
    assert_int_equal(recv(fd, answer, sizeof(answer), 0), -1);
    close(fd);
}

static void test_answers_to_one_peer_are_capped(void **state)
{
    struct fixture *f = *state;
    struct probe_peer a = peer_of(&f->a, 1, 7);
    uint8_t bytes[PACKET_SIZE];
    uint8_t answer[PACKET_SIZE];
    uint32_t answered = 0;
    int fd = raw_socket(&f->b);

    network_set_peers(f->b.network, &a, 1);
    request(7, bytes);
    for (int burst = 0; burst < 40; burst++) {
        for (int i = 0; i < 25; i++)
            assert_int_equal(send(fd, bytes, sizeof(bytes), 0), PACKET_SIZE);
        drain(f);
        while (recv(fd, answer, sizeof(answer), 0) > 0)
            answered++;
        network_set_peers(f->b.network, &a, 1); /* no way to a fresh allowance */
    }
    close(fd);
    assert_in_range(answered, 200, 600); /* 240, and what a slow machine regains meanwhile */
}

static void test_forgotten_peers_are_not_answered(void **state)
{
    struct fixture *f = *state;
    struct probe_peer a = peer_of(&f->a, 1, 7);
    uint8_t bytes[PACKET_SIZE];
    uint8_t answer[PACKET_SIZE];
    int fd = raw_socket(&f->b);

    network_set_peers(f->b.network, &a, 1);
    network_set_peers(f->b.network, NULL, 0);
    request(7, bytes);
    assert_int_equal(send(fd, bytes, sizeof(bytes), 0), PACKET_SIZE);
    drain(f);
    assert_int_equal(recv(fd, answer, sizeof(answer), 0), -1);
    close(fd);
}

/* -- our own address --------------------------------------------------------------------------- */

static void test_local_address_is_the_one_that_routes(void **state)
{
    static const char *const servers[] = {"127.0.0.1", "127.0.0.1:7400", "tcp://127.0.0.1:7400",
                                          "tcp://localhost:7400/x"};
    char address[64];
    char interface[16];
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof(servers) / sizeof(servers[0]); i++) {
        assert_int_equal(network_local_address(servers[i], address, interface, &err), 0);
        assert_string_equal(interface, "lo");
    }
    assert_int_equal(network_local_address("127.0.0.1", address, interface, &err), 0);
    assert_string_equal(address, "127.0.0.1");
    assert_int_equal(network_local_address("tcp://", address, interface, &err), -ERR_IO);
    assert_int_equal(network_local_address("no.such.host.invalid", address, interface, &err),
                     -ERR_IO);
}

static void test_a_taken_task_port_is_said(void **state)
{
    struct fixture *f = *state;
    struct network *other = NULL;
    uint32_t port = 0;
    struct err err = {0};

    assert_int_equal(network_new(f->base, "127.0.0.1", 0, f->a.tcp, &other, &port, &err), -ERR_IO);
    assert_non_null(strstr(err.text, "task port"));
    assert_null(other);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_two_nodes_measure_their_link),
        CASE(test_silence_and_strangers_are_no_path),
        CASE(test_a_network_may_go_while_it_measures),
        CASE(test_measures_queue_and_keep_their_order),
        CASE(test_nobody_to_measure_is_an_empty_answer),
        CASE(test_an_echo_is_never_longer_than_its_request),
        CASE(test_a_changed_packet_is_not_answered),
        CASE(test_answers_to_one_peer_are_capped),
        CASE(test_forgotten_peers_are_not_answered),
        CASE(test_local_address_is_the_one_that_routes),
        CASE(test_a_taken_task_port_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
