#include "orchestrator/fleet/endpoint.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "orchestrator/fleet/text.h"

static bool own_address(char out[INET_ADDRSTRLEN])
{
    struct ifaddrs *list = NULL;
    bool found = false;

    if (getifaddrs(&list) != 0)
        return false;
    for (struct ifaddrs *at = list; at && !found; at = at->ifa_next) {
        struct sockaddr_in address;

        if (at->ifa_addr == NULL || at->ifa_addr->sa_family != AF_INET || !(at->ifa_flags & IFF_UP)
            || (at->ifa_flags & IFF_LOOPBACK))
            continue;
        memcpy(&address, at->ifa_addr, sizeof(address));
        found = inet_ntop(AF_INET, &address.sin_addr, out, INET_ADDRSTRLEN) != NULL;
    }
    freeifaddrs(list);
    return found;
}

void endpoint_public(const char *bound, char out[ENDPOINT_TEXT])
{
    const char *port = strrchr(bound, ':');
    char address[INET_ADDRSTRLEN];

    if (strncmp(bound, "tcp://0.0.0.0:", 14) != 0 && strncmp(bound, "tcp://[::]:", 11) != 0)
        snprintf(out, ENDPOINT_TEXT, "%s", bound);
    else
        snprintf(out, ENDPOINT_TEXT, "tcp://%s%s", own_address(address) ? address : "127.0.0.1",
                 port ? port : "");
}

int endpoint_list(const char *key, const char *list, char (*ret_items)[ENDPOINT_TEXT], size_t max,
                  uint32_t *ret_count, struct err *err)
{
    uint32_t count = 0;

    while (*list) {
        size_t length = strcspn(list, ",");

        if (count == max || length >= ENDPOINT_TEXT)
            return err_set_at(err, ERR_CONFIG_INVALID, key,
                              "%s: at most %zu endpoints of at most %d bytes", key, max,
                              ENDPOINT_TEXT - 1);
        snprintf(ret_items[count], ENDPOINT_TEXT, "%.*s", (int)length, list);
        if (!text_is_endpoint(ret_items[count], ENDPOINT_TEXT))
            return err_set_at(err, ERR_CONFIG_INVALID, key, "%s: %s is not tcp://HOST:PORT", key,
                              ret_items[count]);
        count++;
        list += length + (list[length] == ',');
    }
    *ret_count = count;
    return 0;
}
