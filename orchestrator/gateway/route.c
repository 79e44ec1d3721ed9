#include "orchestrator/gateway/route.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "orchestrator/core/row.h"

const char *route_scope_name(const struct route *route)
{
    if ((route->flags & ROUTE_SECRET) != 0)
        return "join secret";
    if (route->scope == 0)
        return "public";
    return route->scope == ROUTE_ANY_TOKEN ? "any token" : scope_name(route->scope);
}

const char *route_owner_name(enum route_owner owner)
{
    static const char *const names[] = {
        [OWNER_POOL] = "pool",   [OWNER_PROJECT] = "project",   [OWNER_PROVIDER] = "provider",
        [OWNER_PARTY] = "party", [OWNER_HARDWARE] = "hardware", [OWNER_CALLER] = "caller",
    };

    return names[owner];
}

/* One segment of pattern against one of path. Both end at '/' or the end. */
static bool segment_matches(const char *pattern, size_t pattern_length, const char *path,
                            size_t path_length)
{
    if (pattern_length > 0 && pattern[0] == '{')
        return path_length > 0;
    return pattern_length == path_length && memcmp(pattern, path, path_length) == 0;
}

static bool path_matches(const char *pattern, const char *path)
{
    for (;;) {
        size_t pattern_length = strcspn(pattern, "/");
        size_t path_length = strcspn(path, "/");

        if (!segment_matches(pattern, pattern_length, path, path_length))
            return false;
        pattern += pattern_length;
        path += path_length;
        if (*pattern == '\0' || *path == '\0')
            return *pattern == *path;
        pattern++;
        path++;
    }
}

static void take_params(const char *pattern, const char *path, char *ret_params[HTTP_MAX_PARAMS])
{
    size_t count = 0;

    while (*pattern != '\0') {
        size_t pattern_length = strcspn(pattern, "/");
        size_t path_length = strcspn(path, "/");

        if (pattern[0] == '{') {
            BUG_ON(count == HTTP_MAX_PARAMS);
            ret_params[count++] = mem_dup(path, path_length);
        }
        pattern += pattern_length + (pattern[pattern_length] == '/');
        path += path_length + (path[path_length] == '/');
    }
}

const struct route *route_match(const struct route *table, const char *method, const char *path,
                                char *ret_params[HTTP_MAX_PARAMS], char ret_allow[64])
{
    size_t length = 0;

    ret_allow[0] = '\0';
    for (const struct route *route = table; route->method != NULL; route++) {
        if (!path_matches(route->pattern, path))
            continue;
        if (strcmp(route->method, method) == 0) {
            take_params(route->pattern, path, ret_params);
            return route;
        }
        length +=
            (size_t)snprintf(ret_allow + length, 64 - length, "%s%s%s", length > 0 ? ", " : "",
                             route->method, strcmp(route->method, "GET") == 0 ? ", HEAD" : "");
        BUG_ON(length >= 64);
    }
    return NULL;
}
