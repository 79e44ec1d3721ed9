#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/network/network_private.h"

/* "tcp://host:port", "host:port", "host", "[v6]:port" or a bare v6 address → the host. */
static int host_of(const char *server, char out[256], struct err *err)
{
    const char *scheme = strstr(server, "://");
    const char *from = scheme != NULL ? scheme + 3 : server;
    const char *colon = strchr(from, ':');
    size_t length = strcspn(from, "/");

    if (from[0] == '[') {
        from++;
        length = strcspn(from, "]");
    } else if (colon != NULL && strchr(colon + 1, ':') == NULL && colon < from + length) {
        length = (size_t)(colon - from);
    }
    if (length == 0 || length >= 256)
        return err_set(err, ERR_IO, "no host in: %.200s", server);
    memcpy(out, from, length);
    out[length] = '\0';
    return 0;
}

/* Connecting a datagram socket asks the routing table and sends nothing. */
static int local_of(const struct addrinfo *remote, struct sockaddr_storage *ret_local,
                    socklen_t *ret_size)
{
    int fd = socket(remote->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int rc = -1;

    *ret_size = sizeof(*ret_local);
    if (fd >= 0 && connect(fd, remote->ai_addr, remote->ai_addrlen) == 0)
        rc = getsockname(fd, (struct sockaddr *)ret_local, ret_size);
    if (fd >= 0)
        close(fd);
    return rc;
}

static bool same_address(const struct sockaddr *a, const struct sockaddr_storage *b)
{
    struct sockaddr_storage left = {0};

    if (a == NULL || a->sa_family != b->ss_family)
        return false;
    if (a->sa_family == AF_INET) {
        memcpy(&left, a, sizeof(struct sockaddr_in));
        return ((struct sockaddr_in *)&left)->sin_addr.s_addr
               == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    }
    if (a->sa_family != AF_INET6)
        return false;
    memcpy(&left, a, sizeof(struct sockaddr_in6));
    return memcmp(&((struct sockaddr_in6 *)&left)->sin6_addr,
                  &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr))
           == 0;
}

static bool interface_of(const struct sockaddr_storage *local, char out[16])
{
    struct ifaddrs *all = NULL;
    bool found = false;

    if (getifaddrs(&all) != 0)
        return false;
    for (const struct ifaddrs *at = all; at != NULL && !found; at = at->ifa_next) {
        found = same_address(at->ifa_addr, local);
        if (found)
            snprintf(out, 16, "%.15s", at->ifa_name);
    }
    freeifaddrs(all);
    return found;
}

int network_local_address(const char *server, char ret_address[64], char ret_interface[16],
                          struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
    struct addrinfo *found = NULL;
    struct sockaddr_storage local = {0};
    socklen_t size = 0;
    char host[256];
    char text[64];
    char interface[16];
    int rc = host_of(server, host, err);

    if (rc != 0)
        return rc;
    /* The port does not matter: nothing is sent. */
    rc = getaddrinfo(host, "9", &hints, &found);
    if (rc != 0)
        return err_set(err, ERR_IO, "%.100s: %s", host, gai_strerror(rc));
    rc = -1;
    for (const struct addrinfo *at = found; at != NULL && rc != 0; at = at->ai_next)
        rc = local_of(at, &local, &size);
    freeaddrinfo(found);
    if (rc != 0)
        return err_set(err, ERR_IO, "no route to %.100s: %s", host, strerror(errno));
    if (getnameinfo((const struct sockaddr *)&local, size, text, sizeof(text), NULL, 0,
                    NI_NUMERICHOST)
            != 0
        || !interface_of(&local, interface))
        return err_set(err, ERR_IO, "no interface holds the address that routes to %.100s", host);
    snprintf(ret_address, 64, "%s", text);
    snprintf(ret_interface, 16, "%s", interface);
    return 0;
}
