#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/io/loop.h"
#include "common/pure/buf.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/http.h"

/*
 * The accept layer on a loopback socket: the loop on the test's thread, a blocking client on
 * another. Paths: /now answers at once, /later on the next turn, /never not at all, /big streams
 * BIG bytes as the client takes them.
 */
#define BIG ((uint64_t)8 << 20)

struct bench {
    struct event_base *base;
    struct http_server *server;
    uint16_t port;
    uint64_t later; /* call that waits for its timer */
    struct event *timer;
    struct event *done;
    uint32_t ended; /* calls */
    uint64_t big_left;
    size_t big_waiting_max;
    void (*client)(struct bench *bench);
    struct buf answer;
};

static void on_end(struct http_call *call)
{
    struct bench *bench = call->state;

    bench->ended++;
}

static void on_room(struct http_call *call)
{
    static const char zeros[65536];
    struct bench *bench = call->state;

    while (bench->big_left > 0 && http_stream_waiting(call) < HTTP_STREAM_ROOM) {
        http_stream_write(call, zeros, sizeof(zeros));
        bench->big_left -= sizeof(zeros);
        if (http_stream_waiting(call) > bench->big_waiting_max)
            bench->big_waiting_max = http_stream_waiting(call);
    }
    if (bench->big_left == 0)
        http_stream_end(call);
}

static void on_call(struct http_call *call, void *arg)
{
    struct bench *bench = arg;
    struct timeval soon = {.tv_usec = 20000};

    call->state = bench;
    call->on_end = on_end;
    if (strcmp(call->path, "/now") == 0) {
        http_reply(call, 200, "text/plain", call->body.data, call->body.length);
    } else if (strcmp(call->path, "/later") == 0) {
        bench->later = call->id;
        evtimer_add(bench->timer, &soon);
    } else if (strcmp(call->path, "/big") == 0) {
        bench->big_left = BIG;
        call->on_room = on_room;
        http_stream_begin(call, 200, "text/plain", HTTP_UNKNOWN_SIZE);
        on_room(call);
    } else if (strcmp(call->path, "/never") != 0) {
        http_problemf(call, ERR_NOT_FOUND, "%s",
                      http_query(call, "q") ? http_query(call, "q") : "");
    }
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
    struct bench *bench = arg;
    struct http_call *call = http_call_find(bench->server, bench->later);

    (void)fd;
    (void)what;
    if (call != NULL)
        http_reply(call, 200, "text/plain", "late", 4);
}

static uint64_t body_limit(const struct guard *head, void *arg)
{
    (void)arg;
    return strcmp(guard_target(head), "/now") == 0 ? (uint64_t)1 << 20 : 10;
}

static void on_done(evutil_socket_t fd, short what, void *arg)
{
    struct bench *bench = arg;
    char byte;

    (void)what;
    assert_int_equal(read(fd, &byte, 1), 1);
    event_base_loopbreak(bench->base);
}

static int done_pipe[2];
static uint32_t bench_per_address;
static uint32_t bench_rate;

static void *client_main(void *arg)
{
    struct bench *bench = arg;
    ssize_t written;

    bench->client(bench);
    written = write(done_pipe[1], "x", 1);
    (void)written;
    return NULL;
}

/* Runs the loop until the client is through, and a few turns more. */
static void run(struct bench *bench, uint32_t max_connections, void (*client)(struct bench *))
{
    struct http_options options = {
        .max_connections = max_connections,
        .max_per_address = bench_per_address,
        .rate_per_address = bench_rate,
        .times = {.head = 1, .idle = 1, .write = 1},
        .hooks = {.body_limit = body_limit, .on_call = on_call, .arg = bench},
    };
    struct timeval grace = {.tv_usec = 50000};
    struct err err = {0};
    char url[128];
    unsigned port = 0;
    pthread_t thread;

    memset(bench, 0, sizeof(*bench));
    buf_init(&bench->answer, 0);
    bench->base = loop_new();
    options.base = bench->base;
    bench->client = client;
    bench->timer = evtimer_new(bench->base, on_later, bench);
    assert_int_equal(pipe(done_pipe), 0);
    bench->done = event_new(bench->base, done_pipe[0], EV_READ, on_done, bench);
    event_add(bench->done, NULL);
    if (http_server_new(&options, "http://127.0.0.1:0", url, &bench->server, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(sscanf(url, "http://127.0.0.1:%u", &port), 1);
    bench->port = (uint16_t)port;
    assert_int_equal(pthread_create(&thread, NULL, client_main, bench), 0);
    event_base_dispatch(bench->base);
    pthread_join(thread, NULL);
    event_base_loopexit(bench->base, &grace);
    event_base_dispatch(bench->base);
}

static void end(struct bench *bench)
{
    http_server_free(bench->server);
    event_free(bench->timer);
    event_free(bench->done);
    event_base_free(bench->base);
    close(done_pipe[0]);
    close(done_pipe[1]);
    buf_fini(&bench->answer);
}

/* -- client --------------------------------------------------------------------------------- */

static int dial(const struct bench *bench)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(bench->port)};
    struct timeval limit = {.tv_sec = 10};
    union {
        struct sockaddr_in *in;
        struct sockaddr *out;
    } cast = {.in = &address};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(fd, cast.out, sizeof(address)) != 0)
        return -1;
    return fd;
}

static void say(int fd, const char *text)
{
    size_t length = strlen(text);

    while (length > 0) {
        ssize_t sent = send(fd, text, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        text += sent;
        length -= (size_t)sent;
    }
}

static void hear(struct bench *bench, int fd)
{
    static char piece[65536];
    ssize_t got;

    while ((got = recv(fd, piece, sizeof(piece), 0)) > 0)
        buf_append(&bench->answer, piece, (size_t)got);
    close(fd);
}

static uint32_t count(const struct bench *bench, const char *what)
{
    uint32_t found = 0;

    for (const char *at = bench->answer.data; at != NULL && (at = strstr(at, what)) != NULL; at++)
        found++;
    return found;
}

#define LAST "Host: a\r\nConnection: close\r\n\r\n"
#define MORE "Host: a\r\n\r\n"

static void client_pipeline(struct bench *bench)
{
    int fd = dial(bench);

    say(fd, "GET /now HTTP/1.1\r\n" MORE "GET /later HTTP/1.1\r\n" MORE
            "POST /now HTTP/1.1\r\nContent-Length: 4\r\n" MORE "bodyHEAD /now HTTP/1.1\r\n" LAST);
    hear(bench, fd);
}

static void test_requests_of_one_connection_are_answered_in_order(void **state)
{
    struct bench bench;

    (void)state;
    run(&bench, 10, client_pipeline);
    assert_int_equal(count(&bench, "HTTP/1.1 200 OK"), 4);
    const char *late = strstr(bench.answer.data, "\r\n\r\nlate");
    const char *body = strstr(bench.answer.data, "\r\n\r\nbody");
    assert_non_null(late);
    assert_non_null(body);
    assert_true(late < body);
    assert_int_equal(bench.ended, 4);
    end(&bench);
}

static void client_framing(struct bench *bench)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\nHost: a\n\n",
        "POST /now HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n" MORE,
        "GET / HTTP/1.1\r\n\r\n",
        "nonsense\r\n",
        "POST /x HTTP/1.1\r\nContent-Length: 11\r\n" MORE "12345678901",
        "GET /now HTTP/1.1\r\n" MORE "GET /now HTTP/1.1\r\nHost : a\r\n\r\n",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int fd = dial(bench);
        say(fd, bad[i]);
        hear(bench, fd); /* until it closes */
    }
}

static void test_framing_errors_are_problems_and_close(void **state)
{
    struct bench bench;

    (void)state;
    run(&bench, 10, client_framing);
    assert_int_equal(count(&bench, "application/problem+json"), 6);
    assert_int_equal(count(&bench, "Connection: close"), 6);
    assert_int_equal(count(&bench, "\"bad-request-line\""), 2);
    assert_int_equal(count(&bench, "\"ambiguous-framing\""), 1);
    assert_int_equal(count(&bench, "\"invalid-host\""), 1);
    assert_int_equal(count(&bench, "\"body-too-large\""), 1);
    assert_int_equal(count(&bench, "\"invalid-header\""), 1);
    assert_int_equal(count(&bench, "HTTP/1.1 200 OK"), 1);
    assert_int_equal(http_counters(bench.server).framing, 6);
    assert_int_equal(http_counters(bench.server).open, 0);
    end(&bench);
}

static void client_leaves(struct bench *bench)
{
    int fd = dial(bench);

    say(fd, "GET /never HTTP/1.1\r\n" MORE);
    usleep(100000); /* so that it is a call, not a connection, that is left */
    close(fd);
}

static void test_a_client_that_leaves_ends_its_call(void **state)
{
    struct bench bench;

    (void)state;
    run(&bench, 10, client_leaves);
    assert_int_equal(bench.ended, 1);
    assert_int_equal(http_counters(bench.server).gone, 1);
    assert_int_equal(http_counters(bench.server).open, 0);
    end(&bench);
}

static void client_big(struct bench *bench)
{
    int fd = dial(bench);

    say(fd, "GET /big HTTP/1.1\r\n" LAST);
    usleep(200000); /* a slow reader: the server's buffer must not grow meanwhile */
    hear(bench, fd);
}

static void test_a_slow_reader_is_not_buffered_for(void **state)
{
    struct bench bench;

    (void)state;
    run(&bench, 10, client_big);
    assert_true(bench.answer.length > BIG);
    assert_int_equal(bench.big_left, 0);
    assert_true(bench.big_waiting_max < HTTP_STREAM_ROOM + 2 * 65536);
    assert_string_equal(bench.answer.data + bench.answer.length - 7, "\r\n0\r\n\r\n");
    end(&bench);
}

static void client_crowd(struct bench *bench)
{
    int busy[3];

    for (int i = 0; i < 2; i++) {
        busy[i] = dial(bench);
        say(busy[i], "GET /never HTTP/1.1\r\n" MORE);
    }
    usleep(100000);
    /* Both are busy: the third is told so. */
    busy[2] = dial(bench);
    say(busy[2], "GET /now HTTP/1.1\r\n" LAST);
    hear(bench, busy[2]);
    close(busy[0]);
    usleep(100000);
    busy[2] = dial(bench);
    say(busy[2], "GET /now HTTP/1.1\r\n" MORE);
    usleep(100000);
    /* An idle one makes room. */
    busy[0] = dial(bench);
    say(busy[0], "GET /now HTTP/1.1\r\n" LAST);
    hear(bench, busy[0]);
    close(busy[1]);
    close(busy[2]);
}

static void test_connections_are_capped_and_idle_ones_make_room(void **state)
{
    struct bench bench;

    (void)state;
    run(&bench, 2, client_crowd);
    assert_int_equal(http_counters(bench.server).refused, 1);
    assert_int_equal(count(&bench, "HTTP/1.1 503 Service Unavailable"), 1);
    assert_int_equal(count(&bench, "Retry-After: 2"), 1);
    assert_int_equal(count(&bench, "\"temporarily-unavailable\""), 1);
    assert_int_equal(count(&bench, "HTTP/1.1 200 OK"), 1);
    end(&bench);
}

static void test_one_address_has_its_own_cap(void **state)
{
    struct bench bench;

    (void)state;
    bench_per_address = 2;
    run(&bench, 100, client_crowd);
    bench_per_address = 0;
    assert_int_equal(http_counters(bench.server).refused, 1);
    assert_int_equal(count(&bench, "HTTP/1.1 429 Too Many Requests"), 1);
    assert_int_equal(count(&bench, "HTTP/1.1 200 OK"), 1);
    end(&bench);
}

#define RATE 30

static void client_hurry(struct bench *bench)
{
    int fd = dial(bench);

    /* The connection took ten of the bucket. */
    for (int i = 0; i < RATE; i++)
        say(fd, "GET /now HTTP/1.1\r\n" MORE);
    say(fd, "GET /now HTTP/1.1\r\n" LAST);
    hear(bench, fd);
}

static void test_one_address_has_its_own_rate(void **state)
{
    struct bench bench;

    (void)state;
    bench_rate = RATE;
    run(&bench, 100, client_hurry);
    bench_rate = 0;
    assert_int_equal(count(&bench, "HTTP/1.1 "), RATE + 1);
    uint32_t limited = count(&bench, "HTTP/1.1 429 Too Many Requests");
    assert_true(limited >= 1);
    assert_int_equal(count(&bench, "Retry-After: 1"), limited);
    assert_int_equal(http_counters(bench.server).limited, limited);
    end(&bench);
}

static void client_slow(struct bench *bench)
{
    int fd = dial(bench);

    say(fd, "GET /now HT");
    hear(bench, fd); /* told and closed */
    fd = dial(bench);
    say(fd, "POST /now HTTP/1.1\r\nContent-Length: 1000000\r\n" MORE "a little");
    hear(bench, fd);
    fd = dial(bench); /* says nothing: closed without a word */
    hear(bench, fd);
}

static void test_slow_senders_are_told_and_closed(void **state)
{
    struct bench bench;

    (void)state;
    run(&bench, 10, client_slow);
    assert_int_equal(count(&bench, "HTTP/1.1 408 Request Timeout"), 2);
    assert_int_equal(http_counters(bench.server).open, 0);
    end(&bench);
}

static void client_stuck(struct bench *bench)
{
    int small = 4096;
    int fd = dial(bench);

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    say(fd, "GET /big HTTP/1.1\r\n" LAST);
    /* Takes nothing until the server has given up. */
    for (int i = 0; i < 100 && bench->ended == 0; i++)
        usleep(50000);
    close(fd);
}

static void test_a_reader_that_takes_nothing_is_dropped(void **state)
{
    struct bench bench;

    (void)state;
    run(&bench, 10, client_stuck);
    assert_int_equal(bench.ended, 1);
    assert_true(bench.big_left > 0);
    assert_int_equal(http_counters(bench.server).gone, 1);
    end(&bench);
}

/* Both ends are in this process: the accepted one is the one whose own port is the server's. */
static void client_looks(struct bench *bench)
{
    int fd = dial(bench);

    say(fd, "GET /now HTTP/1.1\r\n" MORE);
    char byte;
    (void)recv(fd, &byte, 1, MSG_PEEK);
    for (int other = 3; other < 256; other++) {
        struct sockaddr_in own = {0};
        socklen_t size = sizeof(own);
        int set = 0;
        int listens = 1;
        union {
            struct sockaddr_in *in;
            struct sockaddr *out;
        } cast = {.in = &own};
        if (getsockname(other, cast.out, &size) != 0 || ntohs(own.sin_port) != bench->port)
            continue;
        size = sizeof(listens);
        (void)getsockopt(other, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
        size = sizeof(set);
        (void)getsockopt(other, IPPROTO_TCP, TCP_NODELAY, &set, &size);
        if (!listens)
            buf_puts(&bench->answer, set ? "nodelay" : "delay");
    }
    close(fd);
}

static void test_accepted_sockets_send_at_once(void **state)
{
    struct bench bench;

    (void)state;
    run(&bench, 10, client_looks);
    assert_string_equal(bench.answer.data, "nodelay");
    end(&bench);
}

static void client_expects(struct bench *bench)
{
    char piece[256] = "";
    int fd = dial(bench);

    say(fd, "POST /now HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n" LAST);
    if (recv(fd, piece, sizeof(piece) - 1, 0) > 0)
        buf_puts(&bench->answer, piece);
    say(fd, "hello");
    hear(bench, fd);
}

static void test_an_expected_continue_comes_before_the_body(void **state)
{
    struct bench bench;

    (void)state;
    run(&bench, 10, client_expects);
    assert_int_equal(strncmp(bench.answer.data, "HTTP/1.1 100 Continue\r\n\r\n", 25), 0);
    assert_non_null(strstr(bench.answer.data, "\r\n\r\nhello"));
    end(&bench);
}

static void client_half(struct bench *bench)
{
    int fd = dial(bench);

    say(fd, "GET /other?q=a%20b%26c HTTP/1.0\r\n\r\n");
    shutdown(fd, SHUT_WR);
    hear(bench, fd);
}

static void test_a_half_closed_client_still_gets_its_answer(void **state)
{
    struct bench bench;

    (void)state;
    run(&bench, 10, client_half);
    assert_int_equal(count(&bench, "HTTP/1.1 404 Not Found"), 1);
    assert_int_equal(count(&bench, "\"detail\":\"a b&c\""), 1);
    end(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_of_one_connection_are_answered_in_order),
        cmocka_unit_test(test_framing_errors_are_problems_and_close),
        cmocka_unit_test(test_a_client_that_leaves_ends_its_call),
        cmocka_unit_test(test_a_slow_reader_is_not_buffered_for),
        cmocka_unit_test(test_connections_are_capped_and_idle_ones_make_room),
        cmocka_unit_test(test_one_address_has_its_own_cap),
        cmocka_unit_test(test_one_address_has_its_own_rate),
        cmocka_unit_test(test_slow_senders_are_told_and_closed),
        cmocka_unit_test(test_a_reader_that_takes_nothing_is_dropped),
        cmocka_unit_test(test_accepted_sockets_send_at_once),
        cmocka_unit_test(test_an_expected_continue_comes_before_the_body),
        cmocka_unit_test(test_a_half_closed_client_still_gets_its_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
