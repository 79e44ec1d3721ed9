#include "common/io/httpc.h"

#include <curl/curl.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/fs.h"
#include "common/io/hash.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"

#define MAX_BODY           ((size_t)64 << 20)
#define MAX_CA             ((size_t)64 << 10)
#define CONNECT_TIMEOUT_MS 10000L
#define PIN_TIMEOUT_MS     20000L
#define KEEPALIVE_IDLE_S   30L
#define KEEPALIVE_EVERY_S  10L

struct transfer {
    CURL *curl;
    struct curl_slist *headers;
    const struct httpc_request *request;
    struct httpc_response *response;
    char error[CURL_ERROR_SIZE];
    bool ended; /* on_data has enough */
};

static void start_curl(void)
{
    BUG_ON(curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK);
}

static void start_curl_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    BUG_ON(pthread_once(&once, start_curl) != 0);
}

static bool is_loopback(const char *host)
{
    return strcmp(host, "127.0.0.1") == 0 || strcmp(host, "localhost") == 0
           || strcmp(host, "[::1]") == 0;
}

/* The URL must be scheme and host alone; http is for this machine only. */
static int check_url(const char *url, struct err *err)
{
    CURLU *parts = curl_url();
    char *scheme = NULL;
    char *host = NULL;
    char *user = NULL;
    char *path = NULL;
    int rc = 0;

    BUG_ON(parts == NULL);
    if (curl_url_set(parts, CURLUPART_URL, url, 0) != CURLUE_OK
        || curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK
        || curl_url_get(parts, CURLUPART_HOST, &host, 0) != CURLUE_OK
        || curl_url_get(parts, CURLUPART_PATH, &path, 0) != CURLUE_OK)
        rc = err_set(err, ERR_USAGE, "not a URL: %.100s", url);
    else if (strcmp(scheme, "https") != 0 && !(strcmp(scheme, "http") == 0 && is_loopback(host)))
        rc = err_set(err, ERR_USAGE, "only https is spoken: %.100s", url);
    else if (curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_OK)
        rc = err_set(err, ERR_CREDENTIAL_IN_URL, "the URL holds a user name");
    else if (strcmp(path, "/") != 0)
        rc = err_set(err, ERR_USAGE, "the URL must end after host and port: %.100s", url);
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_free(path);
    curl_url_cleanup(parts);
    return rc;
}

static size_t on_body(char *bytes, size_t one, size_t size, void *arg)
{
    struct transfer *transfer = arg;
    long status = 0;

    (void)one; /* always 1 */
    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    /* A refused stream answers with a problem document, which is a body. */
    if (transfer->request->on_data != NULL && status >= 200 && status < 300) {
        if (transfer->request->on_data(bytes, size, transfer->request->arg))
            return size;
        transfer->ended = true;
        return CURL_WRITEFUNC_ERROR;
    }
    buf_append(&transfer->response->body, bytes, size);
    return transfer->response->body.full ? CURL_WRITEFUNC_ERROR : size;
}

static int on_progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t upload_total,
                       curl_off_t upload_now)
{
    const struct transfer *transfer = arg;

    (void)total;
    (void)now;
    (void)upload_total;
    (void)upload_now;
    return transfer->request->interrupted != NULL && *transfer->request->interrupted != 0;
}

/* What curl would print with -v, without the credential. */
static int on_debug(CURL *curl, curl_infotype type, char *bytes, size_t size, void *arg)
{
    const char *mark = type == CURLINFO_TEXT ? "*" : type == CURLINFO_HEADER_IN ? "<" : ">";

    (void)curl;
    (void)arg;
    if (type != CURLINFO_TEXT && type != CURLINFO_HEADER_IN && type != CURLINFO_HEADER_OUT)
        return 0;
    while (size > 0) {
        const char *end = memchr(bytes, '\n', size);
        size_t length = end != NULL ? (size_t)(end - bytes) : size;
        size_t shown = length > 0 && bytes[length - 1] == '\r' ? length - 1 : length;
        if (length >= 14 && strncasecmp(bytes, "Authorization:", 14) == 0)
            fprintf(stderr, "%s Authorization: ***\n", mark);
        else
            fprintf(stderr, "%s %.*s\n", mark, (int)shown, bytes);
        length += end != NULL;
        bytes += length;
        size -= length;
    }
    return 0;
}

static void set_long(CURL *curl, CURLoption option, long value)
{
    BUG_ON(curl_easy_setopt(curl, option, value) != CURLE_OK);
}

static void set_pointer(CURL *curl, CURLoption option, const void *value)
{
    BUG_ON(curl_easy_setopt(curl, option, value) != CURLE_OK);
}

/* False when the value would break out of its header line. */
static bool add_header(struct transfer *transfer, const char *name, const char *value)
{
    struct buf line;

    if (value == NULL || value[0] == '\0')
        return true;
    for (const char *at = value; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            return false;
    }
    buf_init(&line, 0);
    buf_printf(&line, "%s: %s", name, value);
    struct curl_slist *longer = curl_slist_append(transfer->headers, line.data);
    BUG_ON(longer == NULL);
    transfer->headers = longer;
    buf_fini(&line);
    return true;
}

static int set_headers(struct transfer *transfer, const struct httpc *client, struct err *err)
{
    const struct httpc_request *request = transfer->request;
    char bearer[sizeof(client->token) + 8] = "";

    if (client->token[0] != '\0')
        snprintf(bearer, sizeof(bearer), "Bearer %s", client->token);
    /* "Expect:" alone takes curl's own away: the gateway answers at once anyway. */
    struct curl_slist *first = curl_slist_append(transfer->headers, "Expect:");
    BUG_ON(first == NULL);
    transfer->headers = first;
    if (!add_header(transfer, "Authorization", bearer)
        || !add_header(transfer, "Content-Type", request->content_type)
        || !add_header(transfer, "Accept", request->accept)
        || !add_header(transfer, "Idempotency-Key", request->idempotency_key)
        || !add_header(transfer, "Last-Event-ID", request->last_event_id))
        return err_set(err, ERR_USAGE, "a header value holds control characters");
    set_pointer(transfer->curl, CURLOPT_HTTPHEADER, transfer->headers);
    return 0;
}

static void set_body(CURL *curl, const struct httpc_request *request)
{
    bool sends = request->body != NULL || strcmp(request->method, "POST") == 0
                 || strcmp(request->method, "PUT") == 0;

    if (strcmp(request->method, "HEAD") == 0) {
        set_long(curl, CURLOPT_NOBODY, 1);
        return;
    }
    if (sends) {
        BUG_ON(curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size)
               != CURLE_OK);
        set_pointer(curl, CURLOPT_POSTFIELDS, request->body != NULL ? request->body : "");
    }
    set_pointer(curl, CURLOPT_CUSTOMREQUEST, request->method);
}

static void set_transport(struct transfer *transfer, const struct httpc *client)
{
    CURL *curl = transfer->curl;
    bool plain = strncmp(client->url, "http://", 7) == 0;

    set_pointer(curl, CURLOPT_PROTOCOLS_STR, plain ? "http" : "https");
    set_long(curl, CURLOPT_FOLLOWLOCATION, 0);
    set_long(curl, CURLOPT_PATH_AS_IS, 1);
    set_long(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    set_long(curl, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    set_long(curl, CURLOPT_NOSIGNAL, 1);
    set_long(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    set_long(curl, CURLOPT_TIMEOUT_MS, transfer->request->timeout_ms);
    set_long(curl, CURLOPT_TCP_KEEPALIVE, 1);
    set_long(curl, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set_long(curl, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_EVERY_S);
    if (plain)
        set_pointer(curl, CURLOPT_NOPROXY, "*");
    if (client->ca_file[0] != '\0') {
        /* That CA and no other. */
        set_pointer(curl, CURLOPT_CAINFO, client->ca_file);
        set_pointer(curl, CURLOPT_CAPATH, NULL);
    }
    set_pointer(curl, CURLOPT_USERAGENT, "sheaf/" SHEAF_VERSION);
    set_pointer(curl, CURLOPT_ERRORBUFFER, transfer->error);
    BUG_ON(curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body) != CURLE_OK);
    set_pointer(curl, CURLOPT_WRITEDATA, transfer);
    BUG_ON(curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress) != CURLE_OK);
    set_pointer(curl, CURLOPT_XFERINFODATA, transfer);
    set_long(curl, CURLOPT_NOPROGRESS, 0);
    if (client->verbose) {
        BUG_ON(curl_easy_setopt(curl, CURLOPT_DEBUGFUNCTION, on_debug) != CURLE_OK);
        set_long(curl, CURLOPT_VERBOSE, 1);
    }
}

static enum err_code code_of(CURLcode code)
{
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE
        || code == CURLE_SSL_ISSUER_ERROR || code == CURLE_SSL_INVALIDCERTSTATUS
        || code == CURLE_SSL_CRL_BADFILE)
        return ERR_TLS_VERIFY;
    if (code == CURLE_OPERATION_TIMEDOUT)
        return ERR_TIMEOUT;
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return ERR_INTERRUPTED;
    if (code == CURLE_WEIRD_SERVER_REPLY || code == CURLE_UNSUPPORTED_PROTOCOL
        || code == CURLE_WRITE_ERROR)
        return ERR_UNEXPECTED_RESPONSE;
    return ERR_UNREACHABLE;
}

static void take_headers(const struct transfer *transfer)
{
    struct httpc_response *response = transfer->response;
    struct curl_header *etag = NULL;
    const char *type = NULL;

    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &response->status);
    if (curl_easy_getinfo(transfer->curl, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK && type != NULL)
        snprintf(response->content_type, sizeof(response->content_type), "%s", type);
    if (curl_easy_header(transfer->curl, "ETag", 0, CURLH_HEADER, -1, &etag) == CURLHE_OK)
        snprintf(response->etag, sizeof(response->etag), "%s", etag->value);
}

static int perform(struct transfer *transfer, const struct httpc *client, struct err *err)
{
    CURLcode code = curl_easy_perform(transfer->curl);

    if (code != CURLE_OK && !transfer->ended) {
        enum err_code why = code_of(code);
        if (transfer->response->body.full)
            return err_set(err, ERR_UNEXPECTED_RESPONSE, "%s answers with more than %zu MiB",
                           client->url, MAX_BODY >> 20);
        return err_set(err, why, "%s: %s", client->url,
                       transfer->error[0] != '\0' ? transfer->error : curl_easy_strerror(code));
    }
    take_headers(transfer);
    return 0;
}

/* A transfer without its trust settings; the caller adds them and calls perform. */
static int prepare(struct transfer *transfer, const struct httpc *client, struct err *err)
{
    struct buf url;

    start_curl_once();
    int rc = check_url(client->url, err);
    if (rc != 0)
        return rc;
    transfer->curl = curl_easy_init();
    BUG_ON(transfer->curl == NULL);
    size_t length = strlen(client->url);
    while (length > 0 && client->url[length - 1] == '/')
        length--;
    buf_init(&url, 0);
    buf_append(&url, client->url, length);
    buf_puts(&url, transfer->request->path);
    set_pointer(transfer->curl, CURLOPT_URL, url.data);
    buf_fini(&url);
    set_transport(transfer, client);
    set_body(transfer->curl, transfer->request);
    return set_headers(transfer, client, err);
}

static void finish(struct transfer *transfer)
{
    curl_easy_cleanup(transfer->curl);
    curl_slist_free_all(transfer->headers);
}

int httpc_do(const struct httpc *client, const struct httpc_request *request,
             struct httpc_response *ret_response, struct err *err)
{
    struct transfer transfer = {.request = request, .response = ret_response};

    *ret_response = (struct httpc_response){0};
    buf_init(&ret_response->body, MAX_BODY);
    int rc = prepare(&transfer, client, err);
    if (rc == 0)
        rc = perform(&transfer, client, err);
    finish(&transfer);
    return rc;
}

void httpc_response_fini(struct httpc_response *response)
{
    buf_fini(&response->body);
}

/* Checks the first certificate of the PEM text; the text of that one alone goes to path. */
static int keep_ca(const struct buf *pem, const char *fingerprint, const char *path,
                   struct err *err)
{
    BIO *in = BIO_new_mem_buf(pem->data != NULL ? pem->data : "", (int)pem->length);
    BIO *out = BIO_new(BIO_s_mem());
    X509 *certificate = in != NULL ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
    unsigned char *der = NULL;
    uint8_t expected[SHA256_SIZE];
    uint8_t found[SHA256_SIZE];
    char *text = NULL;
    int rc = 0;

    BUG_ON(in == NULL || out == NULL);
    int der_length = certificate != NULL ? i2d_X509(certificate, &der) : -1;
    if (der_length <= 0) {
        rc = err_set(err, ERR_TLS_VERIFY, "the server has no certificate at /ca.pem");
    } else if (hex_parse(fingerprint, SHA256_SIZE, expected) != 0) {
        rc = err_set(err, ERR_USAGE, "a fingerprint has 64 hex digits");
    } else {
        sha256(der, (size_t)der_length, found);
        if (!bytes_equal(found, expected, SHA256_SIZE))
            rc = err_set(err, ERR_TLS_VERIFY,
                         "the server's CA is not the expected one: somebody may be in between");
    }
    if (rc == 0) {
        BUG_ON(PEM_write_bio_X509(out, certificate) != 1);
        long length = BIO_get_mem_data(out, &text);
        rc = fs_write(path, text, (size_t)length, 0644, err);
    }
    OPENSSL_free(der);
    X509_free(certificate);
    BIO_free(in);
    BIO_free(out);
    return rc;
}

int httpc_pin_ca(const char *url, const char *fingerprint, const char *path, struct err *err)
{
    const struct httpc_request request = {
        .method = "GET", .path = "/ca.pem", .timeout_ms = PIN_TIMEOUT_MS};
    struct httpc_response response = {0};
    struct transfer transfer = {.request = &request, .response = &response};
    struct httpc client = {0};

    if (strlen(url) >= sizeof(client.url))
        return err_set(err, ERR_USAGE, "the URL is too long");
    memcpy(client.url, url, strlen(url) + 1);
    buf_init(&response.body, MAX_CA);
    int rc = prepare(&transfer, &client, err);
    if (rc == 0) {
        /* The fingerprint is the trust; no credential travels on this connection. */
        set_long(transfer.curl, CURLOPT_SSL_VERIFYPEER, 0);
        set_long(transfer.curl, CURLOPT_SSL_VERIFYHOST, 0);
        rc = perform(&transfer, &client, err);
    }
    if (rc == 0 && response.status != 200)
        rc = err_set(err, ERR_UNEXPECTED_RESPONSE, "%s/ca.pem answers %ld", client.url,
                     response.status);
    if (rc == 0)
        rc = keep_ca(&response.body, fingerprint, path, err);
    finish(&transfer);
    httpc_response_fini(&response);
    return rc;
}
