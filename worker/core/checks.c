#include "worker/core/checks.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timex.h>
#include <unistd.h>

#include "common/io/httpc.h"
#include "common/io/loop.h"
#include "common/pure/units.h"
#include "worker/core/claim.h"
#include "worker/images/images.h"
#include "worker/network/network.h"
#include "worker/runtime/runtime.h"

#define DISK_WARN  ((uint64_t)20 << 30)
#define DISK_FAIL  ((uint64_t)2 << 30)
#define FILES_WARN 1024u
#define CONNECT_MS 3000
#define HTTP_MS    5000

const char *check_level_name(enum check_level level)
{
    static const char *const names[] = {"pass", "warn", "fail"};

    return names[level];
}

static struct check *add(struct checks *checks, enum check_level level, const char *name)
{
    struct check *check;

    BUG_ON(checks->count == CHECKS_MAX);
    check = &checks->item[checks->count++];
    memset(check, 0, sizeof(*check));
    check->level = level;
    snprintf(check->name, sizeof(check->name), "%s", name);
    return check;
}

static void add_result(struct checks *checks, enum check_level level, const char *name,
                       const char *detail, const char *fix)
{
    struct check *check = add(checks, level, name);

    snprintf(check->detail, sizeof(check->detail), "%s", detail);
    if (level != CHECK_PASS)
        snprintf(check->fix, sizeof(check->fix), "%s", fix);
}

static void SHEAF_PRINTF(2, 3) serve(struct checks *checks, const char *format, ...)
{
    const uint32_t limit = sizeof(checks->serves) / sizeof(checks->serves[0]);
    va_list args;

    if (checks->serves_count == limit)
        return;
    va_start(args, format);
    vsnprintf(checks->serves[checks->serves_count++], sizeof(checks->serves[0]), format, args);
    va_end(args);
}

/* -- the machine ------------------------------------------------------------------------------- */

static void check_state(const struct checks_facts *facts, struct checks *checks)
{
    const struct settings *settings = facts->settings;
    uint64_t bytes = fs_free_bytes(settings->state);
    char text[UNITS_TEXT];
    char detail[256];
    uint8_t machine[SHA256_SIZE];
    struct err err = {0};

    if (access(settings->state, R_OK | W_OK | X_OK) == 0)
        add_result(checks, CHECK_PASS, "state folder", settings->state, "");
    else if (errno == ENOENT)
        add_result(checks, CHECK_PASS, "state folder", "not made yet", "");
    else
        add_result(checks, CHECK_FAIL, "state folder", strerror(errno),
                   "run as its owner, or choose another with --state DIR");
    snprintf(detail, sizeof(detail), "%s free for inputs and outputs",
             units_format_bytes(bytes, text));
    add_result(checks,
               bytes < DISK_FAIL   ? CHECK_FAIL
               : bytes < DISK_WARN ? CHECK_WARN
                                   : CHECK_PASS,
               "disk", detail, "free some space, or move --state to a larger disk");
    if (home_machine(settings, machine, &err) == 0)
        add_result(checks, CHECK_PASS, "machine id", settings->machine_id, "");
    else
        add_result(checks, CHECK_FAIL, "machine id", err.text,
                   "run systemd-machine-id-setup, or give --machine-id FILE");
}

static void check_system(struct checks *checks)
{
    struct timex clock = {0};
    struct rlimit files = {0};
    char detail[256];
    int state = ntp_adjtime(&clock);

    if (state >= 0 && state != TIME_ERROR && !(clock.status & STA_UNSYNC))
        add_result(checks, CHECK_PASS, "clock", "synchronised", "");
    else
        add_result(checks, CHECK_WARN, "clock",
                   "no time service disciplines it; orders expire in five minutes",
                   "run a time service, e.g. apt-get install systemd-timesyncd");
    (void)getrlimit(RLIMIT_NOFILE, &files);
    snprintf(detail, sizeof(detail), "%llu", (unsigned long long)files.rlim_cur);
    add_result(checks, files.rlim_cur < FILES_WARN ? CHECK_WARN : CHECK_PASS, "open files", detail,
               "raise it: ulimit -n 4096");
}

static void check_devices(const struct checks_facts *facts, struct checks *checks)
{
    const struct host_info *host = facts->host;
    char detail[256];
    uint32_t gpus = 0;

    if (!host) {
        add_result(checks, CHECK_FAIL, "devices",
                   facts->probe_error ? facts->probe_error->text : "could not be probed",
                   "is sheaf-devices installed beside sheaf-worker, and the driver loaded?");
        return;
    }
    for (uint32_t i = 0; i < host->device_count; i++)
        gpus += host->device[i].gpu;
    snprintf(detail, sizeof(detail), "%u GPU, %u of class cpu", gpus, host->device_count - gpus);
    add_result(checks,
               host->device_count == 0 ? CHECK_FAIL
               : gpus == 0             ? CHECK_WARN
                                       : CHECK_PASS,
               "devices", detail,
               host->device_count == 0
                   ? "install the GPU's driver and OpenCL ICD; without a GPU: apt-get install "
                     "pocl-opencl-icd"
                   : "no GPU was found: only jobs that name the device class cpu can use this "
                     "machine; install the driver if there is one");
    for (uint32_t i = 0; i < host->warning_count; i++)
        add_result(checks, CHECK_WARN, "driver", host->warning[i], "see the vendor's driver notes");
}

static void check_images(const struct settings *settings, const struct runtime_probe *probe,
                         struct checks *checks)
{
    const struct images_options options = {.state = settings->state,
                                           .cgroup = probe->cgroup,
                                           .limit = settings->image_cache,
                                           .registries = settings->image_registries};
    struct images *images = NULL;
    struct err err = {0};

    if (settings->unsafe_process || settings->image_cache == 0) {
        add_result(checks, CHECK_WARN, "images", "container images are off",
                   "set image-cache to offer them");
    } else if (images_new(&options, &images, &err) != 0) {
        add_result(checks, CHECK_WARN, "images", err.text,
                   "jobs with an image go elsewhere; apt-get install podman runc, as root");
    } else {
        add_result(checks, CHECK_PASS, "images", images_about(images), "");
        images_free(images);
    }
}

static void check_runtime(const struct checks_facts *facts, struct checks *checks)
{
    const struct settings *settings = facts->settings;
    struct event_base *base = loop_new();
    struct runtime *runtime = NULL;
    const struct runtime_probe *probe;
    struct err err = {0};
    char detail[256];

    if (runtime_new(base, settings->state, settings->unsafe_process, &runtime, &err) != 0) {
        add_result(checks, CHECK_FAIL, "runtime", err.text,
                   "apt-get install bubblewrap; for tests only: --unsafe-runtime=process");
        event_base_free(base);
        return;
    }
    probe = runtime_probed(runtime);
    if (settings->unsafe_process)
        add_result(checks, CHECK_WARN, "runtime", "process: jobs run WITHOUT isolation, as you",
                   "drop --unsafe-runtime to isolate jobs");
    else
        add_result(checks, CHECK_PASS, "runtime", probe->runtime, "");
    snprintf(detail, sizeof(detail), "cgroup %s", probe->cgroup);
    add_result(checks, probe->limits ? CHECK_PASS : CHECK_WARN, "limits",
               probe->limits ? detail : probe->detail,
               "jobs can use all memory and processes; run as root or delegate cgroups");
    add_result(checks, probe->filter ? CHECK_PASS : CHECK_WARN, "network filter",
               probe->filter ? "jobs reach their gang alone" : probe->detail,
               "jobs share this machine's network; run as root with nftables to filter them");
    check_images(settings, probe, checks);
    if (facts->host && facts->host->device_count > 0)
        serve(checks, "jobs that %s",
              settings->unsafe_process ? "run as your own user (no sandbox)" : "run in a sandbox");
    runtime_free(runtime);
    event_base_free(base);
}

/* -- the network ------------------------------------------------------------------------------- */

static bool is_private(const char *address)
{
    struct in6_addr v6;
    struct in_addr v4;
    uint32_t ip;

    if (inet_pton(AF_INET, address, &v4) == 1) {
        ip = ntohl(v4.s_addr);
        return ip >> 24 == 10 || ip >> 24 == 127 || ip >> 20 == 0xac1 || ip >> 16 == 0xc0a8
               || ip >> 16 == 0xa9fe || ip >> 22 == 0x191;
    }
    if (inet_pton(AF_INET6, address, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_LINKLOCAL(&v6)
               || (v6.s6_addr[0] & 0xfe) == 0xfc;
    return false;
}

const char *checks_inbound(const char *address, const char *control_host)
{
    if (!is_private(address))
        return NULL;
    if (!control_host[0] || is_private(control_host) || strcmp(control_host, "localhost") == 0)
        return NULL;
    return "none: single-node jobs until an overlay exists";
}

static void split_endpoint(const char *endpoint, char host[128], char port[16])
{
    const char *start = strstr(endpoint, "://");
    const char *end;

    start = start ? start + 3 : endpoint;
    end = strrchr(start, ':');
    snprintf(port, 16, "%s", end ? end + 1 : "");
    start += *start == '[';
    if (end && end > start && end[-1] == ']')
        end--;
    snprintf(host, 128, "%.*s", end ? (int)(end - start) : (int)strlen(start), start);
}

/* 0, or an errno. */
static int try_connect(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int result = EHOSTUNREACH;

    if (getaddrinfo(host, port, &hints, &list) != 0)
        return EHOSTUNREACH;
    for (struct addrinfo *at = list; at && result != 0; at = at->ai_next) {
        int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        socklen_t size = sizeof(result);

        if (fd < 0)
            continue;
        result = connect(fd, at->ai_addr, at->ai_addrlen) == 0 ? 0 : errno;
        if (result == EINPROGRESS) {
            result = ETIMEDOUT;
            if (poll(&wait, 1, CONNECT_MS) == 1)
                (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &size);
        }
        close(fd);
    }
    freeaddrinfo(list);
    return result;
}

static void check_control(const struct checks_facts *facts, struct checks *checks)
{
    char host[128];
    char port[16];
    char detail[256];
    int result;

    if (!facts->control)
        return;
    split_endpoint(facts->control, host, port);
    result = try_connect(host, port);
    snprintf(detail, sizeof(detail), "%s%s%s", facts->control, result ? ": " : "",
             result ? strerror(result) : "");
    add_result(checks, result ? CHECK_FAIL : CHECK_PASS, "orchestrator", detail,
               "this machine dials out to it: open that port in the firewall between");
}

static void check_gateway(const struct checks_facts *facts, struct checks *checks)
{
    struct httpc client = {0};
    struct httpc_request request = {.method = "GET", .path = "/healthz", .timeout_ms = HTTP_MS};
    struct httpc_response response = {0};
    char ca[FS_PATH];
    char detail[256];
    struct err err = {0};
    int rc;

    if (!facts->url || settings_path(facts->settings, "ca.pem", ca, &err) != 0)
        return;
    snprintf(client.url, sizeof(client.url), "%s", facts->url);
    snprintf(client.ca_file, sizeof(client.ca_file), "%s", ca);
    rc = httpc_do(&client, &request, &response, &err);
    snprintf(detail, sizeof(detail), "%.150s%s%.90s", facts->url, rc ? ": " : "",
             rc ? err.text : "");
    add_result(checks, rc != 0 || response.status != 200 ? CHECK_FAIL : CHECK_PASS, "gateway",
               detail, "check its address and this machine's route; a changed CA needs a new join");
    httpc_response_fini(&response);
}

static bool udp_is_free(uint32_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool is_free =
        fd >= 0 && bind(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) == 0;

    if (fd >= 0)
        close(fd);
    return is_free;
}

static void check_network(const struct checks_facts *facts, struct checks *checks)
{
    const struct settings *settings = facts->settings;
    char host[128] = "127.0.0.1";
    char port[16];
    char detail[256];
    const char *inbound;
    struct err err = {0};

    if (facts->control)
        split_endpoint(facts->control, host, port);
    if (settings->address[0])
        snprintf(checks->address, sizeof(checks->address), "%s", settings->address);
    else if (network_local_address(host, checks->address, checks->interface, &err) != 0) {
        add_result(checks, CHECK_FAIL, "address", err.text, "give --address IP");
        return;
    }
    inbound = checks_inbound(checks->address, host);
    snprintf(detail, sizeof(detail), "%s, tasks on TCP %u-%u, probes on UDP %u", checks->address,
             settings->port_low, settings->port_high, settings->probe_port);
    add_result(
        checks, inbound ? CHECK_WARN : CHECK_PASS, "address", detail,
        "peers cannot reach a private address; give --address with a public one if there is");
    if (inbound)
        serve(checks, "inbound: %s", inbound);
    else
        serve(
            checks,
            "inbound: TCP %u-%u and UDP %u on %s: gangs with the nodes that reach them (each pair "
            "is tested both ways)",
            settings->port_low, settings->port_high, settings->probe_port, checks->address);
    if (!facts->running)
        add_result(checks, udp_is_free(settings->probe_port) ? CHECK_PASS : CHECK_FAIL,
                   "probe port", "UDP port for delay measurements",
                   "another program holds it; choose another with --probe-port");
    if (settings->declared_count > 0)
        serve(checks, "delays to %u peers as declared, where they are above the measured ones",
              settings->declared_count);
}

static void serve_devices(const struct checks_facts *facts, struct checks *checks)
{
    const struct host_info *host = facts->host;
    char text[UNITS_TEXT];

    for (uint32_t i = 0; host && i < host->device_count && i < 4; i++) {
        const struct device_info *device = &host->device[i];

        if (claim_is_listed(facts->settings, i))
            serve(checks, "%s, %s%s", device->model,
                  units_format_bytes((uint64_t)device->memory_mib * MIB, text),
                  device->gpu ? "" : " (class cpu: only for jobs that name it)");
    }
}

void checks_run(const struct checks_facts *facts, struct checks *ret_checks)
{
    struct checks *checks = ret_checks;

    memset(checks, 0, sizeof(*checks));
    check_state(facts, checks);
    check_system(checks);
    check_devices(facts, checks);
    serve_devices(facts, checks);
    check_runtime(facts, checks);
    check_network(facts, checks);
    check_gateway(facts, checks);
    check_control(facts, checks);
    if (facts->node)
        add_result(checks, CHECK_PASS, "identity", facts->node->name, "");
}

enum check_level checks_worst(const struct checks *checks)
{
    enum check_level worst = CHECK_PASS;

    for (uint32_t i = 0; i < checks->count; i++) {
        if (checks->item[i].level > worst)
            worst = checks->item[i].level;
    }
    return worst;
}

void checks_print(const struct checks *checks, struct buf *out)
{
    buf_puts(out, "Checks\n");
    for (uint32_t i = 0; i < checks->count; i++) {
        const struct check *check = &checks->item[i];

        buf_printf(out, " %2u  %-4s  %-14s  %s\n", i + 1, check_level_name(check->level),
                   check->name, check->detail);
        if (check->fix[0])
            buf_printf(out, "           fix: %s\n", check->fix);
    }
    buf_puts(out, "This machine can serve\n");
    for (uint32_t i = 0; i < checks->serves_count; i++)
        buf_printf(out, "  %s\n", checks->serves[i]);
}

json_t *checks_json(const struct checks *checks)
{
    json_t *value = json_object();
    json_t *items = json_array();
    json_t *serves = json_array();

    for (uint32_t i = 0; i < checks->count; i++) {
        const struct check *check = &checks->item[i];
        json_t *item = json_object();

        json_object_set_new(item, "name", json_string(check->name));
        json_object_set_new(item, "result", json_string(check_level_name(check->level)));
        json_object_set_new(item, "detail", json_string(check->detail));
        json_object_set_new(item, "fix", json_string(check->fix));
        json_array_append_new(items, item);
    }
    for (uint32_t i = 0; i < checks->serves_count; i++)
        json_array_append_new(serves, json_string(checks->serves[i]));
    json_object_set_new(value, "checks", items);
    json_object_set_new(value, "serves", serves);
    json_object_set_new(value, "worst", json_string(check_level_name(checks_worst(checks))));
    return value;
}
