#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/io/fs.h"
#include "common/io/hash.h"
#include "common/io/httpc.h"
#include "common/pure/id.h"

#define REQUEST_TEXT 8192

/* A server that answers each connection with the same bytes and remembers the last request. */
struct server {
    int listener;
    int stop[2]; /* pipe */
    pthread_t thread;
    SSL_CTX *tls; /* NULL = plain */
    const char *answer;
    bool hold; /* leave the connection open after the answer */
    char request[REQUEST_TEXT];
};

struct fixture {
    struct server server;
    X509 *certificate;
    EVP_PKEY *key;
    char pem[4096];
    char root[64];
    char ca_path[FS_PATH];
    struct httpc client;
    struct err err;
};

/* Reads up to the end of the header and what the body needs. */
static void read_request(struct server *server, SSL *tls, int fd)
{
    size_t length = 0;

    while (length < REQUEST_TEXT - 1) {
        size_t room = REQUEST_TEXT - 1 - length;
        ssize_t got = tls != NULL ? SSL_read(tls, server->request + length, (int)room)
                                  : read(fd, server->request + length, room);
        if (got <= 0)
            break;
        length += (size_t)got;
        server->request[length] = '\0';
        const char *body = strstr(server->request, "\r\n\r\n");
        const char *size = strstr(server->request, "Content-Length: ");
        if (body != NULL && (size == NULL || strlen(body + 4) >= strtoul(size + 16, NULL, 10)))
            break;
    }
}

static void wait_readable(const struct server *server, int fd)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = server->stop[0], .events = POLLIN}};

    poll(fds, 2, -1);
}

static void serve_one(struct server *server, int fd)
{
    SSL *tls = NULL;

    if (server->tls != NULL) {
        tls = SSL_new(server->tls);
        SSL_set_fd(tls, fd);
        if (SSL_accept(tls) != 1) {
            SSL_free(tls);
            return;
        }
    }
    read_request(server, tls, fd);
    if (tls != NULL)
        SSL_write(tls, server->answer, (int)strlen(server->answer));
    else if (write(fd, server->answer, strlen(server->answer)) < 0)
        return;
    if (server->hold)
        wait_readable(server, fd);
    if (tls != NULL)
        SSL_shutdown(tls);
    SSL_free(tls);
}

static void *serve(void *arg)
{
    struct server *server = arg;

    for (;;) {
        struct pollfd fds[] = {{.fd = server->listener, .events = POLLIN},
                               {.fd = server->stop[0], .events = POLLIN}};
        poll(fds, 2, -1);
        if (fds[1].revents != 0)
            return NULL;
        int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return NULL;
        serve_one(server, fd);
        close(fd);
    }
}

/* A CA that is its own server certificate for 127.0.0.1. */
static void make_certificate(struct fixture *f)
{
    X509V3_CTX context;

    f->key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    f->certificate = X509_new();
    X509_set_version(f->certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(f->certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(f->certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(f->certificate), 3600);
    X509_set_pubkey(f->certificate, f->key);
    X509_NAME *name = X509_get_subject_name(f->certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(f->certificate, name);
    X509V3_set_ctx(&context, f->certificate, f->certificate, NULL, NULL, 0);
    static const struct {
        int nid;
        const char *value;
    } extensions[] = {{NID_basic_constraints, "critical,CA:TRUE"},
                      {NID_subject_alt_name, "IP:127.0.0.1"}};
    for (size_t i = 0; i < 2; i++) {
        X509_EXTENSION *extension =
            X509V3_EXT_conf_nid(NULL, &context, extensions[i].nid, extensions[i].value);
        X509_add_ext(f->certificate, extension, -1);
        X509_EXTENSION_free(extension);
    }
    assert_true(X509_sign(f->certificate, f->key, EVP_sha256()) > 0);
    BIO *out = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(out, f->certificate);
    int length = BIO_read(out, f->pem, sizeof(f->pem) - 1);
    f->pem[length] = '\0';
    BIO_free(out);
}

static void fingerprint_of(const struct fixture *f, char out[SHA256_HEX])
{
    unsigned char *der = NULL;
    uint8_t hash[SHA256_SIZE];
    int length = i2d_X509(f->certificate, &der);

    sha256(der, (size_t)length, hash);
    hex_format(hash, SHA256_SIZE, out);
    OPENSSL_free(der);
}

enum kind {
    PLAIN,
    PLAIN_HELD, /* the connection stays open after the answer */
    TLS,
};

static void start(struct fixture *f, enum kind kind, const char *answer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    struct server *server = &f->server;

    server->answer = answer;
    server->hold = kind == PLAIN_HELD;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(server->listener, 8), 0);
    assert_int_equal(getsockname(server->listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(pipe2(server->stop, O_CLOEXEC), 0);
    if (kind == TLS) {
        server->tls = SSL_CTX_new(TLS_server_method());
        assert_int_equal(SSL_CTX_use_certificate(server->tls, f->certificate), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(server->tls, f->key), 1);
    }
    snprintf(f->client.url, sizeof(f->client.url), "%s://127.0.0.1:%u",
             kind == TLS ? "https" : "http", ntohs(address.sin_port));
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void stop(struct fixture *f)
{
    if (f->server.thread == 0)
        return;
    assert_int_equal(write(f->server.stop[1], "x", 1), 1);
    pthread_join(f->server.thread, NULL);
    close(f->server.stop[0]);
    close(f->server.stop[1]);
    close(f->server.listener);
    SSL_CTX_free(f->server.tls);
    f->server = (struct server){0};
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    signal(SIGPIPE, SIG_IGN);
    snprintf(f->root, sizeof(f->root), "/tmp/sheaf-httpc-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    assert_int_equal(fs_path(f->ca_path, "%s/ca.pem", f->root), 0);
    make_certificate(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    stop(f);
    X509_free(f->certificate);
    EVP_PKEY_free(f->key);
    int rc = fs_remove_tree(f->root, NULL);
    free(f);
    return rc;
}

static int get(struct fixture *f, struct httpc_response *ret_response)
{
    const struct httpc_request request = {.method = "GET", .path = "/x", .timeout_ms = 5000};

    return httpc_do(&f->client, &request, ret_response, &f->err);
}

static void test_a_request_carries_its_headers_and_brings_the_answer(void **state)
{
    struct fixture *f = *state;
    struct httpc_response response;
    const struct httpc_request request = {
        .method = "POST",
        .path = "/api/v1/jobs",
        .content_type = "application/json",
        .body = "{\"a\":1}",
        .body_size = 7,
        .idempotency_key = "key-1",
        .accept = "application/json",
        .timeout_ms = 5000,
    };

    start(f, PLAIN,
          "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nETag: \"7\"\r\n"
          "Content-Length: 2\r\n\r\n{}");
    snprintf(f->client.token, sizeof(f->client.token), "sht_secret");
    assert_int_equal(httpc_do(&f->client, &request, &response, &f->err), 0);
    assert_int_equal(response.status, 201);
    assert_string_equal(response.content_type, "application/json");
    assert_string_equal(response.etag, "\"7\"");
    assert_string_equal(response.body.data, "{}");
    httpc_response_fini(&response);
    stop(f);
    start(f, PLAIN, "HTTP/1.1 204 No Content\r\n\r\n");
    const struct httpc_request removal = {.method = "DELETE", .path = "/t", .timeout_ms = 5000};
    assert_int_equal(httpc_do(&f->client, &removal, &response, &f->err), 0);
    assert_int_equal(response.status, 204);
    httpc_response_fini(&response);
    assert_int_equal(strncmp(f->server.request, "DELETE /t HTTP/1.1\r\n", 20), 0);
}

static void test_what_goes_over_the_wire_is_what_was_asked(void **state)
{
    struct fixture *f = *state;
    struct httpc_response response;
    const struct httpc_request request = {.method = "PUT",
                                          .path = "/p?q=1",
                                          .body = "12345",
                                          .body_size = 5,
                                          .last_event_id = "9",
                                          .timeout_ms = 5000};

    start(f, PLAIN, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    snprintf(f->client.token, sizeof(f->client.token), "sht_secret");
    assert_int_equal(httpc_do(&f->client, &request, &response, &f->err), 0);
    httpc_response_fini(&response);
    const char *sent = f->server.request;
    assert_int_equal(strncmp(sent, "PUT /p?q=1 HTTP/1.1\r\n", 21), 0);
    assert_non_null(strstr(sent, "\r\nAuthorization: Bearer sht_secret\r\n"));
    assert_non_null(strstr(sent, "\r\nLast-Event-ID: 9\r\n"));
    assert_non_null(strstr(sent, "\r\nContent-Length: 5\r\n"));
    assert_null(strstr(sent, "Expect:"));
    assert_non_null(strstr(sent, "\r\n\r\n12345"));
    const struct httpc_request forged = {
        .method = "GET", .path = "/", .accept = "a\r\nX-Evil: 1", .timeout_ms = 5000};
    assert_int_equal(httpc_do(&f->client, &forged, &response, &f->err), -ERR_USAGE);
    httpc_response_fini(&response);
}

static void test_a_redirect_is_an_answer_and_is_not_followed(void **state)
{
    struct fixture *f = *state;
    struct httpc_response response;

    start(f, PLAIN,
          "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n"
          "Content-Length: 0\r\n\r\n");
    assert_int_equal(get(f, &response), 0);
    assert_int_equal(response.status, 302);
    httpc_response_fini(&response);
}

static void test_plain_http_leaves_this_machine_for_nobody(void **state)
{
    static const char *const urls[] = {"http://example.org",
                                       "http://127.0.0.1.example.org",
                                       "ftp://127.0.0.1",
                                       "https://a@127.0.0.1",
                                       "https://host/path",
                                       "not a url",
                                       ""};
    struct fixture *f = *state;
    struct httpc_response response;

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        snprintf(f->client.url, sizeof(f->client.url), "%s", urls[i]);
        int rc = get(f, &response);
        if (rc != -ERR_USAGE && rc != -ERR_CREDENTIAL_IN_URL)
            fail_msg("%s gave %d: %s", urls[i], rc, f->err.text);
        httpc_response_fini(&response);
    }
}

struct stream {
    struct buf text;
    size_t enough; /* bytes after which it ends */
    volatile int interrupted;
    bool interrupt;
};

static bool on_data(const char *bytes, size_t size, void *arg)
{
    struct stream *stream = arg;

    buf_append(&stream->text, bytes, size);
    if (stream->interrupt)
        stream->interrupted = 1;
    return stream->text.length < stream->enough;
}

static int follow(struct fixture *f, struct stream *stream, struct httpc_response *ret_response)
{
    const struct httpc_request request = {.method = "GET",
                                          .path = "/s",
                                          .on_data = on_data,
                                          .arg = stream,
                                          .interrupted = &stream->interrupted};

    return httpc_do(&f->client, &request, ret_response, &f->err);
}

static void test_a_stream_ends_when_its_reader_has_enough(void **state)
{
    struct fixture *f = *state;
    struct stream stream = {.enough = 10};
    struct httpc_response response;

    start(f, PLAIN_HELD,
          "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
          "data: 2\n\n");
    assert_int_equal(follow(f, &stream, &response), 0);
    assert_int_equal(response.status, 200);
    assert_int_equal(response.body.length, 0);
    assert_true(stream.text.length >= 10);
    httpc_response_fini(&response);
    buf_fini(&stream.text);
}

static void test_a_refused_stream_has_its_problem_in_the_body(void **state)
{
    struct fixture *f = *state;
    struct stream stream = {.enough = 100};
    struct httpc_response response;

    start(f, PLAIN,
          "HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\n"
          "Content-Length: 2\r\n\r\n{}");
    assert_int_equal(follow(f, &stream, &response), 0);
    assert_int_equal(response.status, 404);
    assert_string_equal(response.body.data, "{}");
    assert_int_equal(stream.text.length, 0);
    httpc_response_fini(&response);
}

static void test_an_interrupt_ends_a_stream(void **state)
{
    struct fixture *f = *state;
    struct stream stream = {.enough = 1000, .interrupt = true};
    struct httpc_response response;

    start(f, PLAIN_HELD, "HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n");
    assert_int_equal(follow(f, &stream, &response), -ERR_INTERRUPTED);
    httpc_response_fini(&response);
    buf_fini(&stream.text);
}

static void test_failures_say_what_kind_they_are(void **state)
{
    struct fixture *f = *state;
    struct httpc_response response;
    const struct httpc_request hurried = {.method = "GET", .path = "/", .timeout_ms = 100};

    start(f, PLAIN_HELD, "");
    assert_int_equal(httpc_do(&f->client, &hurried, &response, &f->err), -ERR_TIMEOUT);
    httpc_response_fini(&response);
    stop(f);
    assert_int_equal(get(f, &response), -ERR_UNREACHABLE);
    httpc_response_fini(&response);
    start(f, PLAIN, "SSH-2.0-OpenSSH\r\n");
    assert_int_equal(get(f, &response), -ERR_UNEXPECTED_RESPONSE);
    httpc_response_fini(&response);
}

static void test_only_the_pinned_ca_is_trusted(void **state)
{
    struct fixture *f = *state;
    struct httpc_response response;
    char fingerprint[SHA256_HEX];
    char answer[8192];

    snprintf(answer, sizeof(answer),
             "HTTP/1.1 200 OK\r\nContent-Type: application/x-pem-file\r\n"
             "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
             strlen(f->pem), f->pem);
    fingerprint_of(f, fingerprint);
    start(f, TLS, answer);
    /* Nobody vouches for it yet. */
    assert_int_equal(get(f, &response), -ERR_TLS_VERIFY);
    httpc_response_fini(&response);
    /* Another CA at the same address. */
    fingerprint[0] = fingerprint[0] == 'a' ? 'b' : 'a';
    assert_int_equal(httpc_pin_ca(f->client.url, fingerprint, f->ca_path, &f->err),
                     -ERR_TLS_VERIFY);
    assert_int_equal(access(f->ca_path, F_OK), -1);
    assert_int_equal(httpc_pin_ca(f->client.url, "00", f->ca_path, &f->err), -ERR_USAGE);
    fingerprint_of(f, fingerprint);
    assert_int_equal(httpc_pin_ca(f->client.url, fingerprint, f->ca_path, &f->err), 0);
    snprintf(f->client.ca_file, sizeof(f->client.ca_file), "%s", f->ca_path);
    assert_int_equal(get(f, &response), 0);
    assert_int_equal(response.status, 200);
    httpc_response_fini(&response);
    /* The name must match too. */
    memcpy(strstr(f->client.url, "127.0.0.1"), "localhost", 9);
    assert_int_equal(get(f, &response), -ERR_TLS_VERIFY);
    httpc_response_fini(&response);
}

static void test_verbose_output_shows_no_credential(void **state)
{
    struct fixture *f = *state;
    struct httpc_response response;
    struct buf out;
    char log[FS_PATH];

    buf_init(&out, 0);
    assert_int_equal(fs_path(log, "%s/log", f->root), 0);
    start(f, PLAIN, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    snprintf(f->client.token, sizeof(f->client.token), "sht_canary");
    f->client.verbose = true;
    int saved = dup(STDERR_FILENO);
    int fd = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    dup2(fd, STDERR_FILENO);
    int rc = get(f, &response);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fd);
    assert_int_equal(rc, 0);
    httpc_response_fini(&response);
    assert_int_equal(fs_read(log, 65536, &out, NULL), 0);
    assert_non_null(strstr(f->server.request, "sht_canary"));
    assert_null(strstr(out.data, "sht_canary"));
    assert_non_null(strstr(out.data, "> Authorization: ***"));
    assert_non_null(strstr(out.data, "> GET /x HTTP/1.1"));
    buf_fini(&out);
}

int main(void)
{
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_SERVER(test_a_request_carries_its_headers_and_brings_the_answer),
        WITH_SERVER(test_what_goes_over_the_wire_is_what_was_asked),
        WITH_SERVER(test_a_redirect_is_an_answer_and_is_not_followed),
        WITH_SERVER(test_plain_http_leaves_this_machine_for_nobody),
        WITH_SERVER(test_a_stream_ends_when_its_reader_has_enough),
        WITH_SERVER(test_a_refused_stream_has_its_problem_in_the_body),
        WITH_SERVER(test_an_interrupt_ends_a_stream),
        WITH_SERVER(test_failures_say_what_kind_they_are),
        WITH_SERVER(test_only_the_pinned_ca_is_trusted),
        WITH_SERVER(test_verbose_output_shows_no_credential),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
