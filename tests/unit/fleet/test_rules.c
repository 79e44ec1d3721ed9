/* The plain-value rules: sessions, liveness, links, foreign text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/fleet/endpoint.h"
#include "orchestrator/fleet/gateways.h"
#include "orchestrator/fleet/links.h"
#include "orchestrator/fleet/liveness.h"
#include "orchestrator/fleet/session.h"
#include "orchestrator/fleet/text.h"

#define SECOND ((int64_t)1000000)

/* -- sessions -------------------------------------------------------------------------------- */

static const uint8_t key_a[32] = {0xa};
static const uint8_t key_b[32] = {0xb};
static const struct uuid uid_a = {{1, 2, 3}};

struct talk {
    struct sessions *sessions;
    struct session *session;
    struct session_hello hello;
};

static struct talk talk_new(void)
{
    struct talk talk = {.sessions = sessions_new()};

    talk.session = sessions_allow(talk.sessions, 7, &uid_a, key_a);
    talk.hello = (struct session_hello){
        .peer = (const uint8_t *)"peer1",
        .peer_size = 5,
        .nonce = (const uint8_t *)"nonce--1",
        .nonce_size = 8,
        .protocol_min = 1,
        .protocol_max = 1,
        .node = uid_a.bytes,
        .node_size = 16,
        .boot = 3,
        .next_seq = 10,
    };
    return talk;
}

static int talk_hello(struct talk *talk, struct err *err)
{
    int rc = session_check_hello(talk->session, &talk->hello, err);

    if (rc == 0)
        session_open(talk->session, &talk->hello);
    return rc;
}

static enum session_fate talk_say(struct talk *talk, const char *peer, const char *nonce,
                                  uint64_t seq, struct err *err)
{
    return session_message(talk->session, (const uint8_t *)peer, strlen(peer),
                           (const uint8_t *)nonce, strlen(nonce), seq, err);
}

static void test_hello_comes_first(void **state)
{
    struct talk talk = talk_new();
    struct err err = {0};

    (void)state;
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 0, &err), SESSION_REFUSE);
    assert_int_equal(err.code, ERR_WIRE_STATE);
    assert_int_equal(talk_hello(&talk, &err), 0);
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 0, &err), SESSION_TAKE);
    sessions_free(talk.sessions);
}

static void test_hello_is_checked(void **state)
{
    struct talk talk = talk_new();
    struct session_hello good = talk.hello;
    struct err err = {0};

    (void)state;
    talk.hello.node = key_b;
    assert_int_equal(talk_hello(&talk, &err), -ERR_WIRE_IDENTITY);
    talk.hello = good;
    talk.hello.node_size = 15;
    assert_int_equal(talk_hello(&talk, &err), -ERR_WIRE_IDENTITY);
    talk.hello = good;
    talk.hello.protocol_min = 2;
    talk.hello.protocol_max = 3;
    assert_int_equal(talk_hello(&talk, &err), -ERR_WIRE_VERSION);
    talk.hello = good;
    talk.hello.nonce_size = 7;
    assert_int_equal(talk_hello(&talk, &err), -ERR_WIRE_ENVELOPE);
    talk.hello = good;
    talk.hello.peer_size = SESSION_MAX_PEER + 1;
    assert_int_equal(talk_hello(&talk, &err), -ERR_WIRE_ENVELOPE);
    talk.hello = good;
    talk.hello.boot = UINT64_MAX;
    assert_int_equal(talk_hello(&talk, &err), -ERR_WIRE_DECODE);
    assert_false(talk.session->open);
    sessions_free(talk.sessions);
}

static void test_second_hello_of_a_session_is_refused_and_keeps_it(void **state)
{
    struct talk talk = talk_new();
    struct err err = {0};

    (void)state;
    assert_int_equal(talk_hello(&talk, &err), 0);
    assert_int_equal(talk_hello(&talk, &err), -ERR_WIRE_STATE);
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 0, &err), SESSION_TAKE);
    sessions_free(talk.sessions);
}

static void test_newest_hello_of_a_key_wins(void **state)
{
    struct talk talk = talk_new();
    struct err err = {0};

    (void)state;
    assert_int_equal(talk_hello(&talk, &err), 0);
    talk.hello.peer = (const uint8_t *)"peer2";
    talk.hello.nonce = (const uint8_t *)"nonce--2";
    assert_int_equal(talk_hello(&talk, &err), 0);
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 0, &err), SESSION_REFUSE);
    assert_int_equal(talk_say(&talk, "peer2", "nonce--1", 0, &err), SESSION_REFUSE);
    assert_int_equal(talk_say(&talk, "peer1", "nonce--2", 0, &err), SESSION_REFUSE);
    assert_int_equal(talk_say(&talk, "peer2", "nonce--2", 0, &err), SESSION_TAKE);
    sessions_free(talk.sessions);
}

static void test_durable_messages_repeat_until_acknowledged(void **state)
{
    struct talk talk = talk_new();
    struct err err = {0};

    (void)state;
    assert_int_equal(talk_hello(&talk, &err), 0);
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 10, &err), SESSION_TAKE);
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 10, &err), SESSION_TAKE);
    assert_false(session_ack(talk.session, 11)); /* never came in this session */
    assert_true(session_ack(talk.session, 10));
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 10, &err), SESSION_ACKED);
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 15, &err), SESSION_TAKE);
    assert_true(session_ack(talk.session, 15));
    assert_true(session_ack(talk.session, 12)); /* late; never goes back */
    assert_int_equal(talk.session->acked, 15);
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", UINT64_MAX, &err), SESSION_REFUSE);
    sessions_free(talk.sessions);
}

static void test_acknowledgements_survive_a_reconnect_but_not_a_restart(void **state)
{
    struct talk talk = talk_new();
    struct err err = {0};

    (void)state;
    assert_int_equal(talk_hello(&talk, &err), 0);
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 10, &err), SESSION_TAKE);
    assert_true(session_ack(talk.session, 10));
    talk.hello.nonce = (const uint8_t *)"nonce--2";
    assert_int_equal(talk_hello(&talk, &err), 0);
    assert_int_equal(talk.session->acked, 10);
    talk.hello.nonce = (const uint8_t *)"nonce--3";
    talk.hello.boot++;
    assert_int_equal(talk_hello(&talk, &err), 0);
    assert_int_equal(talk.session->acked, 0);
    sessions_free(talk.sessions);
}

static void test_a_number_below_the_session_s_first_is_refused(void **state)
{
    struct talk talk = talk_new();
    struct err err = {0};

    (void)state;
    assert_int_equal(talk_hello(&talk, &err), 0); /* it announced 10 */
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 9, &err), SESSION_REFUSE);
    assert_int_equal(err.code, ERR_WIRE_SEQUENCE);
    assert_int_equal(talk_say(&talk, "peer1", "nonce--1", 10, &err), SESSION_TAKE);
    sessions_free(talk.sessions);
}

static void test_a_wrong_clock_is_told_once(void **state)
{
    struct talk talk = talk_new();
    int64_t wall = 1700000000 * SECOND;

    (void)state;
    assert_false(session_clock(talk.session, 0, wall)); /* it told none */
    assert_false(session_clock(talk.session, (uint64_t)(wall + 29 * SECOND), wall));
    assert_true(session_clock(talk.session, (uint64_t)(wall - 3600 * SECOND), wall));
    assert_false(session_clock(talk.session, (uint64_t)(wall - 3600 * SECOND), wall));
    assert_true(talk.session->skewed);
    assert_false(session_clock(talk.session, (uint64_t)wall, wall));
    assert_true(session_clock(talk.session, UINT64_MAX, wall));
    sessions_free(talk.sessions);
}

static void test_offences_are_kept_sparingly(void **state)
{
    struct talk talk = talk_new();
    int64_t now = 100000 * SECOND;
    int told = 0;

    (void)state;
    for (int i = 0; i < 1000; i++)
        told += session_may_tell(talk.session, now) ? 1 : 0;
    assert_int_equal(told, SESSION_OFFENCE_BURST);
    assert_false(session_may_tell(talk.session, now + 59 * SECOND));
    assert_true(session_may_tell(talk.session, now + 60 * SECOND));
    sessions_free(talk.sessions);
}

static void test_revoked_key_finds_no_session(void **state)
{
    struct talk talk = talk_new();
    struct err err = {0};

    (void)state;
    assert_int_equal(talk_hello(&talk, &err), 0);
    assert_ptr_equal(sessions_arrive(talk.sessions, key_a, 0), talk.session);
    assert_null(sessions_arrive(talk.sessions, key_b, 0));
    assert_int_equal(sessions_revoke(talk.sessions, key_a), 7);
    assert_int_equal(sessions_revoke(talk.sessions, key_a), 0);
    assert_null(sessions_arrive(talk.sessions, key_a, 0));
    assert_null(sessions_of(talk.sessions, 7));
    sessions_free(talk.sessions);
}

static void test_a_node_has_one_key(void **state)
{
    struct talk talk = talk_new();

    (void)state;
    sessions_allow(talk.sessions, 7, &uid_a, key_b);
    assert_null(sessions_arrive(talk.sessions, key_a, 0));
    assert_non_null(sessions_arrive(talk.sessions, key_b, 0));
    sessions_allow(talk.sessions, 8, &uid_a, key_b);
    assert_null(sessions_of(talk.sessions, 7));
    assert_int_equal(sessions_count(talk.sessions), 1);
    sessions_free(talk.sessions);
}

static void test_three_undecodable_messages_in_a_minute_mute_the_key(void **state)
{
    struct talk talk = talk_new();
    struct err err = {0};
    int64_t now = 1000 * SECOND;

    (void)state;
    assert_int_equal(talk_hello(&talk, &err), 0);
    assert_false(session_wrong(talk.session, now));
    assert_false(session_wrong(talk.session, now + 50 * SECOND));
    assert_false(session_wrong(talk.session, now + 61 * SECOND)); /* the first is too old */
    assert_true(talk.session->open);
    assert_true(session_wrong(talk.session, now + 62 * SECOND));
    assert_false(talk.session->open);
    assert_null(sessions_arrive(talk.sessions, key_a, now + 121 * SECOND));
    assert_non_null(sessions_arrive(talk.sessions, key_a, now + 122 * SECOND));
    sessions_free(talk.sessions);
}

static void test_error_answers_are_limited(void **state)
{
    struct talk talk = talk_new();
    int64_t now = 1000 * SECOND;
    int given = 0;

    (void)state;
    for (int i = 0; i < 100; i++)
        given += session_may_answer(talk.session, now) ? 1 : 0;
    assert_int_equal(given, SESSION_ANSWER_BURST);
    assert_false(session_may_answer(talk.session, now + SECOND / 2));
    assert_true(session_may_answer(talk.session, now + SECOND));
    assert_false(session_may_answer(talk.session, now + SECOND));
    sessions_free(talk.sessions);
}

/* -- liveness -------------------------------------------------------------------------------- */

static const struct liveness_options beats = {
    .silent_after_us = 15 * SECOND, .boot_grace_us = 30 * SECOND, .stall_us = 2 * SECOND};

struct silences {
    uint64_t node[8];
    int count;
};

static void note_silent(uint64_t node, void *arg)
{
    struct silences *silences = arg;

    assert_true(silences->count < 8);
    silences->node[silences->count++] = node;
}

/* Ticks each second from `from` to `to`, both included. */
static void run_clock(struct liveness *liveness, int64_t from, int64_t to,
                      struct silences *silences)
{
    for (int64_t at = from; at <= to; at++)
        liveness_tick(liveness, at * SECOND, note_silent, silences);
}

static void test_silence_is_three_missed_beats_and_told_once(void **state)
{
    struct liveness *liveness = liveness_new(&beats);
    struct silences silences = {0};

    (void)state;
    run_clock(liveness, 100, 100, &silences);
    assert_false(liveness_seen(liveness, 1));
    run_clock(liveness, 101, 105, &silences);
    assert_false(liveness_seen(liveness, 2));
    run_clock(liveness, 106, 114, &silences);
    assert_int_equal(silences.count, 0);
    run_clock(liveness, 115, 119, &silences);
    assert_int_equal(silences.count, 1);
    assert_int_equal(silences.node[0], 1);
    run_clock(liveness, 120, 200, &silences);
    assert_int_equal(silences.count, 2);
    assert_int_equal(silences.node[1], 2);
    assert_int_equal(liveness_silent_count(liveness), 2);
    assert_true(liveness_seen(liveness, 1));
    assert_false(liveness_seen(liveness, 1));
    assert_int_equal(liveness_silent_count(liveness), 1);
    liveness_free(liveness);
}

static void test_beats_keep_a_node_alive(void **state)
{
    struct liveness *liveness = liveness_new(&beats);
    struct silences silences = {0};

    (void)state;
    for (int64_t at = 0; at < 600; at += 5) {
        liveness_seen(liveness, 1);
        run_clock(liveness, at, at + 4, &silences);
    }
    assert_int_equal(silences.count, 0);
    liveness_free(liveness);
}

static void test_our_own_stall_is_no_silence(void **state)
{
    struct liveness *liveness = liveness_new(&beats);
    struct silences silences = {0};

    (void)state;
    run_clock(liveness, 0, 0, &silences);
    liveness_seen(liveness, 1);
    run_clock(liveness, 1, 5, &silences);
    run_clock(liveness, 3600, 3600, &silences); /* an hour away: counts 2 s */
    assert_int_equal(silences.count, 0);
    run_clock(liveness, 3601, 3607, &silences);
    assert_int_equal(silences.count, 0);
    run_clock(liveness, 3608, 3608, &silences); /* 5 + 2 + 8 s attended */
    assert_int_equal(silences.count, 1);
    liveness_free(liveness);
}

static void test_a_start_gives_grace_and_known_silent_nodes_come_back(void **state)
{
    struct liveness *liveness = liveness_new(&beats);
    struct silences silences = {0};

    (void)state;
    liveness_watch(liveness, 1, false);
    liveness_watch(liveness, 2, true);
    run_clock(liveness, 0, 29, &silences);
    assert_int_equal(silences.count, 0);
    assert_true(liveness_seen(liveness, 2));
    run_clock(liveness, 30, 30, &silences);
    assert_int_equal(silences.count, 1);
    assert_int_equal(silences.node[0], 1);
    liveness_forget(liveness, 2);
    run_clock(liveness, 31, 100, &silences);
    assert_int_equal(silences.count, 1);
    liveness_free(liveness);
}

static void test_a_clock_that_goes_back_counts_nothing(void **state)
{
    struct liveness *liveness = liveness_new(&beats);
    struct silences silences = {0};

    (void)state;
    run_clock(liveness, 100, 100, &silences);
    liveness_seen(liveness, 1);
    for (int i = 0; i < 50; i++) {
        run_clock(liveness, 50, 50, &silences);
        run_clock(liveness, 40, 40, &silences);
    }
    assert_int_equal(silences.count, 1); /* only the way forward, 2 s at most each, counted */
    liveness_free(liveness);
}

/* -- links ----------------------------------------------------------------------------------- */

static void test_links_tell_news_alone(void **state)
{
    static const int64_t max_age = 600 * SECOND;
    static const struct {
        const char *what;
        uint32_t p50, p95, loss;
        bool reach;
        int64_t after_s;
        bool news;
    } cases[] = {
        {"first", 9000, 10000, 0, true, 0, true},
        {"same", 9000, 10000, 0, true, 1, false},
        {"10 % exactly", 9000, 11000, 0, true, 2, false},
        {"more than 10 %", 9000, 11001, 0, true, 3, true},
        {"back within 10 %", 9000, 10000, 0, true, 4, false},
        {"loss a little", 9000, 11001, 10000, true, 5, false},
        {"loss", 9000, 11001, 10001, true, 6, true},
        {"unreachable", 9000, 11001, 10001, false, 7, true},
        {"no answer", 0, 0, 10001, false, 8, true},
        {"answers, near", 90, 100, 10001, false, 9, true},
        {"near: 200 us is jitter", 90, 300, 10001, false, 10, false},
        {"near: 201 us is a move", 90, 301, 10001, false, 11, true},
        {"half of max age", 90, 301, 10001, false, 311, false},
        {"older than half", 90, 301, 10001, false, 312, true},
    };
    struct links *links = links_new();

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ev_link sample = {1, 2, cases[i].p50, cases[i].p95, cases[i].loss, cases[i].reach};
        bool news = links_news(links, &sample, cases[i].after_s * SECOND, max_age);

        if (news != cases[i].news)
            fail_msg("%s: news is %d", cases[i].what, news);
    }
    links_free(links);
}

static void test_links_are_per_direction_and_forgotten(void **state)
{
    struct links *links = links_new();
    struct ev_link ab = {1, 2, 90, 100, 0, true};
    struct ev_link ba = {2, 1, 90, 100, 0, true};
    struct ev_link cd = {3, 4, 90, 100, 0, true};

    (void)state;
    assert_true(links_news(links, &ab, 0, SECOND));
    assert_true(links_news(links, &ba, 0, SECOND));
    assert_true(links_news(links, &cd, 0, SECOND));
    links_forget(links, 2);
    assert_true(links_news(links, &ab, 0, SECOND));
    assert_true(links_news(links, &ba, 0, SECOND));
    assert_false(links_news(links, &cd, 0, SECOND));
    links_clear(links);
    assert_true(links_news(links, &cd, 0, SECOND));
    links_free(links);
}

/* -- text and lists -------------------------------------------------------------------------- */

static void test_foreign_text_is_cleaned(void **state)
{
    static const struct {
        const char *in;
        const char *out; /* of 8 bytes */
        bool clean;
    } cases[] = {
        {"plain", "plain", true},
        {"1234567", "1234567", true},
        {"12345678", "1234567", false},
        {"a\x1b[31m", "a [31m", false},
        {"\xff\xfe", "??", false},
        {"\xc3\xa9t\xc3\xa9", "\xc3\xa9t\xc3\xa9", true},
        {"12345\xe2\x82\xac", "12345", false}, /* cut between characters */
        {"\xed\xa0\x80", "???", false},        /* a surrogate */
        {"\xc0\xaf", "??", false},             /* overlong */
        {"\xc2\x9b", " ", false},              /* C1 control */
        {"\xe2\x82", "??", false},             /* cut short by its sender */
    };
    char out[8];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        text_take(out, sizeof(out), cases[i].in);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(text_is_clean(cases[i].in, sizeof(out)), cases[i].clean);
    }
}

static void test_addresses_and_endpoints(void **state)
{
    static const char *const good[] = {"tcp://10.0.0.1:7601", "tcp://a.example:1",
                                       "tcp://[fd00::1]:65535"};
    static const char *const bad[] = {"tcp://:1",
                                      "tcp://a",
                                      "udp://a:1",
                                      "tcp://a:0",
                                      "tcp://a:65536",
                                      "tcp://a:1x",
                                      "tcp://a b:1",
                                      "tcp://a\x01:1",
                                      "",
                                      "tcp://a:99999999999999999999999",
                                      "tcp://a:"};
    char items[2][ENDPOINT_TEXT];
    uint32_t count = 0;
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(text_is_endpoint(good[i], ENDPOINT_TEXT));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(text_is_endpoint(bad[i], ENDPOINT_TEXT));
    assert_true(text_is_address("10.1.2.3"));
    assert_true(text_is_address("fd00::1"));
    assert_false(text_is_address("0.0.0.0"));
    assert_false(text_is_address("224.0.0.1"));
    assert_false(text_is_address("255.255.255.255"));
    assert_false(text_is_address("::"));
    assert_false(text_is_address("example.org"));
    assert_int_equal(endpoint_list("k", "tcp://a:1,tcp://b:2", items, 2, &count, &err), 0);
    assert_int_equal(count, 2);
    assert_string_equal(items[1], "tcp://b:2");
    assert_int_equal(endpoint_list("k", "tcp://a:1,,tcp://b:2", items, 2, &count, &err),
                     -ERR_CONFIG_INVALID);
    assert_int_equal(endpoint_list("k", "tcp://a:1,tcp://b:2,tcp://c:3", items, 2, &count, &err),
                     -ERR_CONFIG_INVALID);
}

static void test_gateways_replace_by_key_and_are_bounded(void **state)
{
    struct gateways gateways = {0};
    struct gateway gateway = {.url = "https://a:1", .bulk = {"tcp://a:2"}, .bulk_count = 1};

    (void)state;
    assert_true(gateways_put(&gateways, &gateway));
    assert_false(gateways_put(&gateways, &gateway));
    snprintf(gateway.bulk[0], sizeof(gateway.bulk[0]), "tcp://a:3");
    assert_true(gateways_put(&gateways, &gateway));
    assert_int_equal(gateways.count, 1);
    assert_string_equal(gateways.item[0].bulk[0], "tcp://a:3");
    for (int i = 0; i < 2 * GATEWAYS_MAX; i++) {
        gateway.bulk_key[0] = (uint8_t)(i + 1);
        assert_true(gateways_put(&gateways, &gateway));
    }
    assert_int_equal(gateways.count, GATEWAYS_MAX);
    assert_int_equal(gateways.item[GATEWAYS_MAX - 1].bulk_key[0], 2 * GATEWAYS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_comes_first),
        cmocka_unit_test(test_hello_is_checked),
        cmocka_unit_test(test_second_hello_of_a_session_is_refused_and_keeps_it),
        cmocka_unit_test(test_newest_hello_of_a_key_wins),
        cmocka_unit_test(test_durable_messages_repeat_until_acknowledged),
        cmocka_unit_test(test_acknowledgements_survive_a_reconnect_but_not_a_restart),
        cmocka_unit_test(test_a_number_below_the_session_s_first_is_refused),
        cmocka_unit_test(test_a_wrong_clock_is_told_once),
        cmocka_unit_test(test_offences_are_kept_sparingly),
        cmocka_unit_test(test_revoked_key_finds_no_session),
        cmocka_unit_test(test_a_node_has_one_key),
        cmocka_unit_test(test_three_undecodable_messages_in_a_minute_mute_the_key),
        cmocka_unit_test(test_error_answers_are_limited),
        cmocka_unit_test(test_silence_is_three_missed_beats_and_told_once),
        cmocka_unit_test(test_beats_keep_a_node_alive),
        cmocka_unit_test(test_our_own_stall_is_no_silence),
        cmocka_unit_test(test_a_start_gives_grace_and_known_silent_nodes_come_back),
        cmocka_unit_test(test_a_clock_that_goes_back_counts_nothing),
        cmocka_unit_test(test_links_tell_news_alone),
        cmocka_unit_test(test_links_are_per_direction_and_forgotten),
        cmocka_unit_test(test_foreign_text_is_cleaned),
        cmocka_unit_test(test_addresses_and_endpoints),
        cmocka_unit_test(test_gateways_replace_by_key_and_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
