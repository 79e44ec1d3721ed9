/*
 * The least that an HTTP server can be: libevent's evhttp, one thread, a fixed answer. The
 * yardstick of the gateway's own HTTP. echo_http [--tls CERT KEY]      prints "ready PORT"; GET /N
 * answers N bytes
 */
#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_ANSWER ((size_t)8 << 20)

static void on_request(struct evhttp_request *request, void *arg)
{
    const char *bytes = arg;
    unsigned long size = strtoul(evhttp_request_get_uri(request) + 1, NULL, 10);
    struct evbuffer *out = evhttp_request_get_output_buffer(request);

    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
                      "application/json");
    evbuffer_add(out, bytes, size < MAX_ANSWER ? size : MAX_ANSWER);
    evhttp_send_reply(request, 200, "OK", NULL);
}

static struct bufferevent *on_connection(struct event_base *base, void *arg)
{
    return bufferevent_openssl_socket_new(base, -1, SSL_new(arg), BUFFEREVENT_SSL_ACCEPTING,
                                          BEV_OPT_CLOSE_ON_FREE);
}

/* One listening socket that its connections take TCP_NODELAY from, as Linux has it. */
static evutil_socket_t listen_any(unsigned *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int one = 1;
    union {
        struct sockaddr_in *in;
        struct sockaddr *out;
    } cast = {.in = &address};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0
        || bind(fd, cast.out, sizeof(address)) != 0 || listen(fd, 1024) != 0
        || getsockname(fd, cast.out, &size) != 0)
        return -1;
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static SSL_CTX *context_new(const char *cert, const char *key)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, cert) != 1
        || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        return NULL;
    return context;
}

int main(int argc, char **argv)
{
    unsigned port = 0;
    struct event_base *base = event_base_new();
    struct evhttp *http = evhttp_new(base);
    evutil_socket_t fd = listen_any(&port);
    static char bytes[MAX_ANSWER];

    if (base == NULL || http == NULL || fd < 0 || evhttp_accept_socket(http, fd) != 0) {
        perror("echo_http");
        return 1;
    }
    memset(bytes, 'x', MAX_ANSWER);
    if (argc == 4 && strcmp(argv[1], "--tls") == 0) {
        SSL_CTX *context = context_new(argv[2], argv[3]);
        if (context == NULL) {
            fputs("echo_http: no usable certificate and key\n", stderr);
            return 1;
        }
        evhttp_set_bevcb(http, on_connection, context);
    }
    signal(SIGPIPE, SIG_IGN);
    evhttp_set_gencb(http, on_request, bytes);
    printf("ready %u\n", port);
    fflush(stdout);
    event_base_dispatch(base);
    return 0;
}
