#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/pure/mem.h"
#include "orchestrator/gateway/guard.h"

struct guard_case {
    const char *raw;
    enum err_code code; /* ERR_NONE: accepted */
    const char *body;   /* of the first message; NULL = none */
    uint32_t messages;  /* complete ones; 0 = 1 when accepted */
};

#define GET  "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"
#define TE   "Transfer-Encoding: chunked\r\n"

static const struct guard_case cases[] = {
    /* -- what is fine ---------------------------------------------------------------------- */
    {GET "\r\n", ERR_NONE, NULL, 0},
    {"GET / HTTP/1.0\r\n\r\n", ERR_NONE, NULL, 0},
    {"GET /a/b?x=1&y=%41 HTTP/1.1\r\nHost: example.org:7443\r\n\r\n", ERR_NONE, NULL, 0},
    {"GET / HTTP/1.1\r\nhOsT:[::1]:80\r\n\r\n", ERR_NONE, NULL, 0},
    {"GET / HTTP/1.1\r\nHost:\t 10.0.0.1 \t\r\n\r\n", ERR_NONE, NULL, 0},
    {"\r\n" GET "\r\n", ERR_NONE, NULL, 0},
    {GET "X-Empty:\r\nX-High: \xc3\xa9\r\n\r\n", ERR_NONE, NULL, 0},
    {POST "Content-Length: 5\r\n\r\nhello", ERR_NONE, "hello", 0},
    {POST "Content-Length: 0\r\n\r\n", ERR_NONE, "", 0},
    {POST "Content-Length: 00000005\r\n\r\nhello", ERR_NONE, "hello", 0},
    {POST TE "\r\n5\r\nhello\r\n0\r\n\r\n", ERR_NONE, "hello", 0},
    {POST TE "\r\n3\r\nhel\r\n00000002\r\nlo\r\n000\r\n\r\n", ERR_NONE, "hello", 0},
    {POST "transfer-encoding:  Chunked \r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", ERR_NONE,
     "0123456789", 0},
    {POST TE "\r\n0\r\n\r\n", ERR_NONE, "", 0},
    {GET "\r\n" GET "\r\n", ERR_NONE, NULL, 2},
    {POST "Content-Length: 2\r\n\r\nhi" GET "\r\n" POST TE "\r\n1\r\nx\r\n0\r\n\r\n", ERR_NONE,
     "hi", 3},
    {"GET /a/ HTTP/1.1\r\nHost: a\r\n\r\n", ERR_NONE, NULL, 0},
    {"GET /a..b/.x/...?a=../.. HTTP/1.1\r\nHost: a\r\n\r\n", ERR_NONE, NULL, 0},
    {"DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", ERR_NONE, "x", 0},
    {"GET https://a/x HTTP/1.1\r\nHost: A\r\n\r\n", ERR_NONE, NULL, 0},
    {"GET http://a:1?b=/ HTTP/1.1\r\nHost: a:1\r\n\r\n", ERR_NONE, NULL, 0},
    /* -- request line ---------------------------------------------------------------------- */
    {"\r\n\r\n" GET "\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GET /\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GET  / HTTP/1.1\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GET / HTTP/1.1 \r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GET / HTTP/1.1\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GET\t/ HTTP/1.1\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"G@T / HTTP/1.1\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {" GET / HTTP/1.1\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GET / http/1.1\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GET / HTTP/1.10\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GET / HTTP/11\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GETGETGETGETGETGETGET / HTTP/1.1\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"\x16\x03\x01\x02", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GET /\r HTTP/1.1\r\n", ERR_BAD_REQUEST_LINE, NULL, 0},
    {"GET / HTTP/2.0\r\n", ERR_HTTP_VERSION, NULL, 0},
    {"PRI * HTTP/2.0\r\n", ERR_HTTP_VERSION, NULL, 0},
    {"GET / HTTP/0.9\r\n", ERR_HTTP_VERSION, NULL, 0},
    {"GET ftp://a/ HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET http:/a HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET http://a//b HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"OPTIONS * HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"CONNECT a:1 HTTP/1.1\r\n", ERR_METHOD_UNKNOWN, NULL, 0},
    {"GET /../etc HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /a/. HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /a/%2e%2E/b HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /a/.%2e HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /a%2Fb HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET //a HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /a//b HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /%00 HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /%4 HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /%zz HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /?a=%0 HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /#x HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /<x> HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /a\\b HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    {"GET /\xc3\xa9 HTTP/1.1\r\n", ERR_INVALID_PATH, NULL, 0},
    /* -- Host ------------------------------------------------------------------------------ */
    {"GET / HTTP/1.1\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET / HTTP/1.1\r\nHost:\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {GET "Host: b\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {GET "HOST: a\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET http://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET http://a@b/ HTTP/1.1\r\nHost: a@b\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET http://b_%41/ HTTP/1.0\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    {"GET https:// HTTP/1.0\r\n\r\n", ERR_INVALID_HOST, NULL, 0},
    /* -- fields ---------------------------------------------------------------------------- */
    {GET "X: a\r\n b\r\n\r\n", ERR_OBSOLETE_FOLDING, NULL, 0},
    {GET "X: a\r\n\tb\r\n\r\n", ERR_OBSOLETE_FOLDING, NULL, 0},
    {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", ERR_OBSOLETE_FOLDING, NULL, 0},
    {GET "X : a\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "X\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET ": a\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "X(: a\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "X: a\nY: b\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "X: a\rb\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "X: a\x01\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "X: a\x7f\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "\r\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "Authorization: a\r\nauthorization: a\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "Content-Type: a\r\nContent-Type: b\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    {GET "Idempotency-Key: a\r\nX: y\r\nIdempotency-Key: a\r\n\r\n", ERR_INVALID_HEADER, NULL, 0},
    /* -- lengths --------------------------------------------------------------------------- */
    {POST "Content-Length: 5\r\n" TE "\r\n", ERR_AMBIGUOUS_FRAMING, NULL, 0},
    {POST TE "Content-Length: 5\r\n\r\n", ERR_AMBIGUOUS_FRAMING, NULL, 0},
    {POST TE "Content-Length: 0\r\n\r\n", ERR_AMBIGUOUS_FRAMING, NULL, 0},
    {POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", ERR_INVALID_LENGTH, NULL, 0},
    {POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", ERR_INVALID_LENGTH, NULL, 0},
    {POST "Content-Length: 5, 5\r\n\r\n", ERR_INVALID_LENGTH, NULL, 0},
    {POST "Content-Length: +5\r\n\r\n", ERR_INVALID_LENGTH, NULL, 0},
    {POST "Content-Length: -1\r\n\r\n", ERR_INVALID_LENGTH, NULL, 0},
    {POST "Content-Length: 0x5\r\n\r\n", ERR_INVALID_LENGTH, NULL, 0},
    {POST "Content-Length: 5 5\r\n\r\n", ERR_INVALID_LENGTH, NULL, 0},
    {POST "Content-Length:\r\n\r\n", ERR_INVALID_LENGTH, NULL, 0},
    {POST "Content-Length: 99999999999999999999\r\n\r\n", ERR_INVALID_LENGTH, NULL, 0},
    {POST "Content-Length: 33554433\r\n\r\n", ERR_BODY_TOO_LARGE, NULL, 0},
    {POST TE TE "\r\n", ERR_INVALID_TE, NULL, 0},
    {POST "Transfer-Encoding: gzip, chunked\r\n\r\n", ERR_INVALID_TE, NULL, 0},
    {POST "Transfer-Encoding: chunked, identity\r\n\r\n", ERR_INVALID_TE, NULL, 0},
    {POST "Transfer-Encoding: xchunked\r\n\r\n", ERR_UNKNOWN_TE, NULL, 0},
    {POST "Transfer-Encoding: identity\r\n\r\n", ERR_INVALID_TE, NULL, 0},
    {POST "Transfer-Encoding : chunked\r\n\r\n", ERR_INVALID_TE, NULL, 0},
    {POST "Content-Length : 5\r\n\r\n", ERR_INVALID_LENGTH, NULL, 0},
    {POST "Transfer-Encoding:\r\n\r\n", ERR_INVALID_TE, NULL, 0},
    {"POST / HTTP/1.0\r\n" TE "\r\n", ERR_INVALID_TE, NULL, 0},
    /* -- chunks ---------------------------------------------------------------------------- */
    {POST TE "\r\n\r\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n5;x=1\r\nhello\r\n0\r\n\r\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n5 \r\nhello\r\n0\r\n\r\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n 5\r\nhello\r\n0\r\n\r\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n-5\r\nhello\r\n0\r\n\r\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n0x5\r\nhello\r\n0\r\n\r\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n5\nhello\r\n0\r\n\r\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n5\r\nhelloX\r\n0\r\n\r\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n5\r\nhello\n0\r\n\r\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n5\r\r\nhello", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n5\r5\r\nhello", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n000000005\r\nhello", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n0\r\nX: y\r\n\r\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n0\r\n\n", ERR_INVALID_CHUNK, NULL, 0},
    {POST TE "\r\n2000001\r\n", ERR_BODY_TOO_LARGE, NULL, 0},
    {POST TE "\r\nffffffff\r\n", ERR_BODY_TOO_LARGE, NULL, 0},
};

struct outcome {
    enum err_code code;
    uint32_t messages;
    uint32_t heads;
    struct buf first_body;
};

/* Feeds raw in pieces cut at `cut` (and every `step` bytes when step > 0). */
static void feed(const char *raw, size_t length, size_t cut, size_t step, struct outcome *ret)
{
    struct guard guard;
    size_t at = 0;

    memset(ret, 0, sizeof(*ret));
    buf_init(&ret->first_body, 0);
    guard_init(&guard);
    while (ret->code == ERR_NONE) {
        size_t end = step > 0 ? at + step : at < cut ? cut : length;
        size_t used = 0;
        size_t size = 0;
        const uint8_t *piece = NULL;
        if (end > length)
            end = length;
        enum guard_verdict verdict =
            guard_read(&guard, (const uint8_t *)raw + at, end - at, &used, &piece, &size);
        assert_true(used <= end - at);
        at += used;
        if (verdict == GUARD_MORE) {
            assert_int_equal(at, end);
            if (at == length)
                break;
        } else if (verdict == GUARD_HEAD) {
            ret->heads++;
        } else if (verdict == GUARD_BODY) {
            if (ret->messages == 0)
                buf_append(&ret->first_body, piece, size);
        } else if (verdict == GUARD_DONE) {
            ret->messages++;
            guard_next(&guard);
        } else {
            ret->code = guard.err.code;
        }
    }
    /* Refused is refused: more bytes change nothing. */
    if (ret->code != ERR_NONE) {
        size_t used;
        size_t size;
        const uint8_t *piece;
        assert_int_equal(guard_read(&guard, (const uint8_t *)GET "\r\n", 27, &used, &piece, &size),
                         GUARD_BAD);
    }
    guard_fini(&guard);
}

static void assert_outcome(const struct guard_case *row, const struct outcome *got)
{
    if (got->code != row->code)
        print_error("case: %s\n  wanted %s, got %s\n", row->raw, err_slug(row->code),
                    err_slug(got->code));
    assert_int_equal(got->code, row->code);
    if (row->code != ERR_NONE) {
        assert_int_equal(got->messages, 0);
        return;
    }
    assert_int_equal(got->messages, row->messages != 0 ? row->messages : 1);
    assert_int_equal(got->messages, got->heads);
    assert_string_equal(got->first_body.data != NULL ? got->first_body.data : "",
                        row->body != NULL ? row->body : "");
}

static void test_each_request_gets_its_verdict_however_it_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t length = strlen(cases[i].raw);
        struct outcome got;

        for (size_t cut = 0; cut <= length; cut++) {
            feed(cases[i].raw, length, cut, 0, &got);
            assert_outcome(&cases[i], &got);
            buf_fini(&got.first_body);
        }
        feed(cases[i].raw, length, 0, 1, &got);
        assert_outcome(&cases[i], &got);
        buf_fini(&got.first_body);
    }
}

static enum err_code verdict_of(const struct buf *raw)
{
    struct outcome got;

    feed(raw->data, raw->length, 0, 0, &got);
    buf_fini(&got.first_body);
    return got.code != ERR_NONE ? got.code : got.messages > 0 ? ERR_NONE : ERR_INTERNAL;
}

static void test_the_head_is_bounded_in_fields_and_bytes(void **state)
{
    struct buf raw;

    (void)state;
    for (uint32_t fields = 98; fields <= 101; fields++) {
        buf_init(&raw, 0);
        buf_puts(&raw, GET);
        for (uint32_t i = 1; i < fields; i++)
            buf_printf(&raw, "X-%u: y\r\n", i);
        buf_puts(&raw, "\r\n");
        assert_int_equal(verdict_of(&raw), fields <= 100 ? ERR_NONE : ERR_HEADER_TOO_LARGE);
        buf_fini(&raw);
    }
    buf_init(&raw, 0);
    buf_puts(&raw, GET "X: ");
    while (raw.length < GUARD_MAX_HEAD + 10)
        buf_puts(&raw, "yyyyyyyyyyyyyyyy");
    assert_int_equal(verdict_of(&raw), ERR_HEADER_TOO_LARGE);
    buf_fini(&raw);
    buf_init(&raw, 0);
    buf_puts(&raw, "GET /");
    while (raw.length < GUARD_MAX_HEAD + 10)
        buf_puts(&raw, "yyyyyyyyyyyyyyyy");
    assert_int_equal(verdict_of(&raw), ERR_HEADER_TOO_LARGE);
    buf_fini(&raw);
}

static void test_a_nul_byte_is_refused_everywhere_in_the_head(void **state)
{
    static const char raw[] = GET "X: a\r\n\r\n";
    char copy[sizeof(raw)];

    (void)state;
    for (size_t i = 0; i < sizeof(raw) - 1; i++) {
        struct outcome got;
        memcpy(copy, raw, sizeof(raw));
        copy[i] = '\0';
        feed(copy, sizeof(raw) - 1, 0, 0, &got);
        assert_int_not_equal(got.code, ERR_NONE);
        buf_fini(&got.first_body);
    }
}

static void head_of(struct guard *guard, const char *raw)
{
    size_t used;
    size_t size;
    const uint8_t *piece;

    guard_init(guard);
    assert_int_equal(guard_read(guard, (const uint8_t *)raw, strlen(raw), &used, &piece, &size),
                     GUARD_HEAD);
}

static void test_a_path_may_lower_the_limit_of_its_body(void **state)
{
    struct guard guard;

    (void)state;
    head_of(&guard, POST "Content-Length: 100\r\n\r\n");
    assert_int_equal(guard_limit_body(&guard, 100), 0);
    assert_int_equal(guard_limit_body(&guard, 99), -ERR_BODY_TOO_LARGE);
    guard_fini(&guard);

    static const uint8_t chunk[] = "64\r\n";
    size_t used;
    size_t size;
    const uint8_t *piece;
    head_of(&guard, POST TE "\r\n");
    assert_int_equal(guard_limit_body(&guard, 99), 0);
    assert_int_equal(guard_read(&guard, chunk, 4, &used, &piece, &size), GUARD_BAD);
    assert_int_equal(guard.err.code, ERR_BODY_TOO_LARGE);
    guard_fini(&guard);
}

static void test_fields_method_and_target_are_read(void **state)
{
    struct guard guard;

    (void)state;
    head_of(&guard, "PUT /a?b=c HTTP/1.1\r\nhost: x\r\nAccept:  a/b \t\r\nEmpty:\r\n\r\n");
    assert_string_equal(guard_method(&guard), "PUT");
    assert_string_equal(guard_target(&guard), "/a?b=c");
    assert_string_equal(guard_field(&guard, "ACCEPT"), "a/b");
    assert_string_equal(guard_field(&guard, "empty"), "");
    assert_null(guard_field(&guard, "absent"));
    assert_false(guard.close);
    guard_fini(&guard);
}

static void test_a_target_in_absolute_form_becomes_its_path(void **state)
{
    static const char *const rows[][2] = {
        {"GET http://a/b/c?d=e HTTP/1.1\r\nHost: a\r\n\r\n", "/b/c?d=e"},
        {"GET HTTPS://a:80 HTTP/1.1\r\nHost: A:80\r\n\r\n", "/"},
        {"GET https://[::1]?x HTTP/1.1\r\nHost: [::1]\r\n\r\n", "/?x"},
        {"GET /http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guard guard;
        const uint8_t *piece;
        size_t used;
        size_t size;
        guard_init(&guard);
        enum guard_verdict verdict = guard_read(&guard, (const uint8_t *)rows[i][0],
                                                strlen(rows[i][0]), &used, &piece, &size);
        assert_int_equal(verdict, *rows[i][1] != '\0' ? GUARD_HEAD : GUARD_BAD);
        if (verdict == GUARD_HEAD)
            assert_string_equal(guard_target(&guard), rows[i][1]);
        guard_fini(&guard);
    }
}

static void test_connection_close_is_found_in_any_list(void **state)
{
    static const struct {
        const char *raw;
        bool close;
    } rows[] = {
        {GET "Connection: close\r\n\r\n", true},
        {GET "Connection: keep-alive, Close\r\n\r\n", true},
        {GET "Connection: keep-alive\r\n\r\n", false},
        {GET "Connection: closed\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false},
    };
    struct guard guard;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        head_of(&guard, rows[i].raw);
        assert_int_equal(guard.close, rows[i].close);
        guard_fini(&guard);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_request_gets_its_verdict_however_it_is_cut),
        cmocka_unit_test(test_the_head_is_bounded_in_fields_and_bytes),
        cmocka_unit_test(test_a_nul_byte_is_refused_everywhere_in_the_head),
        cmocka_unit_test(test_a_path_may_lower_the_limit_of_its_body),
        cmocka_unit_test(test_fields_method_and_target_are_read),
        cmocka_unit_test(test_a_target_in_absolute_form_becomes_its_path),
        cmocka_unit_test(test_connection_close_is_found_in_any_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
