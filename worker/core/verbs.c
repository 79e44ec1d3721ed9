#include "worker/core/verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/io/loop.h"
#include "common/pure/exit_code.h"
#include "common/pure/units.h"
#include "worker/core/agent.h"
#include "worker/core/checks.h"
#include "worker/core/home.h"

#define ANSWER_MAX ((size_t)4 << 20)

int verb_fail(const struct err *err)
{
    const struct err_info *info = err_info(err->code);

    fprintf(stderr, "sheaf-worker: %s: %s (%s)\n", info->title, err->text, info->slug);
    if (info->hint[0])
        fprintf(stderr, "  next: %s\n", info->hint);
    return exit_code_of(err->code);
}

/* -- asking the daemon ------------------------------------------------------------------------- */

static int connect_daemon(const struct settings *settings, int *ret_fd, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval wait = {.tv_sec = 30};
    char path[FS_PATH];
    int fd;
    int rc = settings_path(settings, "control.sock", path, err);

    if (rc != 0)
        return rc;
    if (strlen(path) >= sizeof(address.sun_path))
        return err_set(err, ERR_CONFIG_INVALID, "state: %s is longer than a socket's path may be",
                       path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(err, ERR_IO, "%s", strerror(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    if (connect(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) != 0) {
        close(fd);
        return err_set(err, ERR_UNREACHABLE, "no worker runs on %s; start it: sheaf-worker run",
                       settings->state);
    }
    *ret_fd = fd;
    return 0;
}

int verb_ask(const struct settings *settings, json_t *request, json_t **ret_answer, struct err *err)
{
    struct buf answer;
    char bytes[4096];
    char *text;
    ssize_t n;
    int fd = -1;
    int rc = connect_daemon(settings, &fd, err);

    if (rc != 0)
        return rc;
    buf_init(&answer, ANSWER_MAX);
    text = json_write(request);
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text)
        || send(fd, "\n", 1, MSG_NOSIGNAL) != 1)
        rc = err_set(err, ERR_UNREACHABLE, "the worker does not listen");
    while (rc == 0 && (n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
        buf_append(&answer, bytes, (size_t)n);
    if (rc == 0 && (answer.length == 0 || answer.full))
        rc = err_set(err, ERR_UNREACHABLE, "the worker did not answer");
    while (rc == 0 && answer.length > 0 && answer.data[answer.length - 1] == '\n')
        answer.length--;
    if (rc == 0)
        rc = json_read(answer.data, answer.length, ret_answer, err);
    free(text);
    buf_fini(&answer);
    close(fd);
    return rc;
}

static json_t *request_of(const char *verb)
{
    json_t *request = json_object();

    json_object_set_new(request, "verb", json_string(verb));
    return request;
}

/* Sends the request (taken), prints what was done. */
static int ask_and_print(const struct verb_call *call, json_t *request, struct err *err)
{
    json_t *answer = NULL;
    const char *refused;
    const char *done;
    int rc = verb_ask(call->settings, request, &answer, err);

    json_decref(request);
    if (rc != 0)
        return rc;
    refused = json_text(answer, "error");
    done = json_text(answer, "done");
    if (refused)
        rc = err_set(err, ERR_STATE_CONFLICT, "%s", refused);
    else
        printf("%s\n", done ? done : "done");
    json_decref(answer);
    return rc;
}

static int finish(int rc, const struct err *err)
{
    return rc == 0 ? 0 : verb_fail(err);
}

/* -- the owner's verbs ------------------------------------------------------------------------- */

/* Without a daemon the wish is kept, and told at the next hello. */
static int keep_owner(const struct verb_call *call, const struct owner_file *owner, struct err *err)
{
    struct node_file node;
    int rc = home_load(call->settings, &node, err);

    if (rc == 0)
        rc = home_save_owner(call->settings, owner, err);
    if (rc == 0)
        printf("kept; no worker runs now, it holds from the next start\n");
    return rc;
}

static int set_paused(const struct verb_call *call, bool paused)
{
    struct err err = {0};
    struct owner_file owner;
    json_t *request = request_of(paused ? "pause" : "resume");
    int rc;

    rc = ask_and_print(call, request, &err);
    if (rc == -ERR_UNREACHABLE) {
        rc = home_load_owner(call->settings, &owner, &err);
        owner.paused = paused;
        if (rc == 0)
            rc = keep_owner(call, &owner, &err);
    }
    return finish(rc, &err);
}

int verb_pause(const struct verb_call *call)
{
    return set_paused(call, true);
}

int verb_resume(const struct verb_call *call)
{
    return set_paused(call, false);
}

int verb_price(const struct verb_call *call)
{
    struct err err = {0};
    struct owner_file owner = {0};
    json_t *request;
    micro_t price;
    int rc;

    if (call->argc != 2 || strcmp(call->argv[0], "set") != 0)
        rc = err_set(&err, ERR_USAGE, "write: sheaf-worker price set AMOUNT");
    else if (money_parse(call->argv[1], &price) != 0)
        rc = err_set(&err, ERR_USAGE, "'%s' is not an amount, e.g. 0.40", call->argv[1]);
    else {
        request = request_of("price");
        json_object_set_new(request, "price", json_string(call->argv[1]));
        rc = ask_and_print(call, request, &err);
        if (rc == -ERR_UNREACHABLE) {
            rc = home_load_owner(call->settings, &owner, &err);
            owner.has_price = true;
            owner.price = price;
            if (rc == 0)
                rc = keep_owner(call, &owner, &err);
        }
    }
    return finish(rc, &err);
}

int verb_drain(const struct verb_call *call)
{
    struct err err = {0};

    return finish(ask_and_print(call, request_of("drain"), &err), &err);
}

int verb_undrain(const struct verb_call *call)
{
    struct err err = {0};

    return finish(ask_and_print(call, request_of("undrain"), &err), &err);
}

/* -- running ----------------------------------------------------------------------------------- */

static int run_agent(const struct verb_call *call, enum agent_mode mode)
{
    struct err err = {0};
    struct node_file node;
    struct host_info *host;
    int rc = home_load(call->settings, &node, &err);

    if (rc != 0)
        return verb_fail(&err);
    host = calloc(1, sizeof(*host));
    if (!host)
        return 1;
    rc = devices_probe(host, &err);
    if (rc == 0)
        rc = agent_run(call->settings, call->config, host, mode, &err);
    free(host);
    return finish(rc, &err);
}

int verb_run(const struct verb_call *call)
{
    return run_agent(call, AGENT_RUN);
}

int verb_leave_here(const struct verb_call *call)
{
    return run_agent(call, AGENT_LEAVE);
}

int verb_leave(const struct verb_call *call)
{
    struct err err = {0};
    int rc = ask_and_print(call, request_of("leave"), &err);

    if (rc == -ERR_UNREACHABLE) /* no daemon: do it here */
        return verb_leave_here(call);
    return finish(rc, &err);
}

/* -- status ------------------------------------------------------------------------------------ */

static void print_tasks(const json_t *tasks)
{
    size_t index;
    json_t *task;

    if (json_array_size(tasks) == 0) {
        printf("Tasks     none\n");
        return;
    }
    printf("Tasks\n  %-36s  %-4s  %-10s  %10s\n", "JOB", "RANK", "PHASE", "USED");
    json_array_foreach(tasks, index, task)
    {
        char used[UNITS_TEXT];
        json_int_t ms = json_integer_value(json_object_get(task, "used_ms"));

        printf("  %-36s  %4" JSON_INTEGER_FORMAT "  %-10s  %10s\n", json_text(task, "job"),
               json_integer_value(json_object_get(task, "rank")), json_text(task, "phase"),
               units_format_duration((uint64_t)ms * 1000, used));
    }
}

static void print_devices(const json_t *devices)
{
    size_t index;
    json_t *device;

    printf("Devices\n  %-2s  %-32s  %-10s  %-9s  %s\n", "#", "MODEL", "MEMORY", "TIER", "NOW");
    json_array_foreach(devices, index, device)
    {
        char memory[UNITS_TEXT];
        uint64_t mib = (uint64_t)json_integer_value(json_object_get(device, "memory_mib"));
        const char *tier = json_text(device, "tier");
        const char *now = json_is_true(json_object_get(device, "foreign"))   ? "used by its owner"
                          : json_is_true(json_object_get(device, "in_use"))  ? "in use"
                          : json_is_true(json_object_get(device, "offered")) ? "free"
                                                                             : "not offered";

        printf("  %-2zu  %-32.32s  %-10s  %-9s  %s\n", index, json_text(device, "model"),
               units_format_bytes(mib * MIB, memory), tier && tier[0] ? tier : "claimed", now);
    }
}

static void print_links(const json_t *links)
{
    size_t index;
    json_t *link;

    if (json_array_size(links) == 0)
        return;
    printf("Peers\n  %-24s  %-10s  %-10s  %s\n", "ADDRESS", "RTT P50", "RTT P95", "TCP");
    json_array_foreach(links, index, link)
    {
        char p50[UNITS_TEXT];
        char p95[UNITS_TEXT];
        uint64_t us = (uint64_t)json_integer_value(json_object_get(link, "rtt_p50_us"));
        uint64_t us95 = (uint64_t)json_integer_value(json_object_get(link, "rtt_p95_us"));

        printf("  %-24s  %-10s  %-10s  %s%s\n", json_text(link, "address"),
               us ? units_format_duration(us, p50) : "-",
               us95 ? units_format_duration(us95, p95) : "-",
               json_is_true(json_object_get(link, "reach")) ? "reached" : "NOT reached",
               json_is_true(json_object_get(link, "declared")) ? "  (declared)" : "");
    }
}

static void print_cache(const json_t *cache)
{
    printf("Cache     %.1f of %.1f MB, %" JSON_INTEGER_FORMAT " files\n",
           (double)json_integer_value(json_object_get(cache, "bytes")) / 1e6,
           (double)json_integer_value(json_object_get(cache, "limit")) / 1e6,
           json_integer_value(json_object_get(cache, "files")));
}

static void print_status(const json_t *status)
{
    printf("Node      %s (%s)\n", json_text(status, "name"), json_text(status, "node"));
    printf("State     %s%s%s\n", json_text(status, "state"),
           json_text(status, "conditions")[0] ? ", " : "", json_text(status, "conditions"));
    if (json_text(status, "reason")[0])
        printf("Reason    %s: %s\n", json_text(status, "reason"), json_text(status, "detail"));
    printf("Price     %s per device and hour%s\n", json_text(status, "price_per_hour"),
           json_is_true(json_object_get(status, "paused")) ? "  (paused by you)" : "");
    printf("Address   %s  runtime %s  pid %" JSON_INTEGER_FORMAT "\n", json_text(status, "address"),
           json_text(status, "runtime"), json_integer_value(json_object_get(status, "pid")));
    print_cache(json_object_get(status, "cache"));
    print_devices(json_object_get(status, "devices"));
    print_tasks(json_object_get(status, "tasks"));
    print_links(json_object_get(status, "links"));
}

static int status_offline(const struct verb_call *call, struct err *err)
{
    struct node_file node;
    char joined[32];
    int rc = home_load(call->settings, &node, err);
    json_t *value;
    char *text;

    if (rc != 0)
        return rc;
    clock_format(node.joined_us, joined);
    if (!call->json) {
        printf("Node      %s\nState     offline: no worker runs here; start it: sheaf-worker run\n"
               "Joined    %s at %s\n",
               node.name, joined, node.url);
        return 0;
    }
    value = json_object();
    json_object_set_new(value, "node", json_uuid(node.node.bytes));
    json_object_set_new(value, "name", json_string(node.name));
    json_object_set_new(value, "state", json_string("offline"));
    json_object_set_new(value, "connected", json_false());
    text = json_write(value);
    printf("%s\n", text);
    free(text);
    json_decref(value);
    return 0;
}

int verb_status(const struct verb_call *call)
{
    struct err err = {0};
    json_t *answer = NULL;
    json_t *request = request_of("status");
    int rc = verb_ask(call->settings, request, &answer, &err);

    json_decref(request);
    if (rc == -ERR_UNREACHABLE)
        return finish(status_offline(call, &err), &err);
    if (rc != 0)
        return verb_fail(&err);
    if (call->json) {
        char *text = json_write(answer);

        printf("%s\n", text);
        free(text);
    } else {
        print_status(answer);
    }
    json_decref(answer);
    return 0;
}

/* -- doctor ------------------------------------------------------------------------------------ */

int verb_doctor(const struct verb_call *call)
{
    struct err err = {0};
    struct err probe_error = {0};
    struct node_file node;
    struct host_info *host = calloc(1, sizeof(*host));
    struct checks *checks = calloc(1, sizeof(*checks));
    struct checks_facts facts = {.settings = call->settings, .probe_error = &probe_error};
    json_t *request = request_of("status");
    json_t *answer = NULL;
    enum check_level worst = CHECK_FAIL;
    int joined;

    if (!host || !checks)
        goto out;
    (void)!home_open(call->settings, &err); /* the first check tells if it cannot be */
    joined = home_load(call->settings, &node, &err);
    if (joined == 0) {
        facts.node = &node;
        facts.control = node.control[0];
        facts.url = node.url;
    }
    facts.running = verb_ask(call->settings, request, &answer, &err) == 0;
    if (devices_probe(host, &probe_error) == 0)
        facts.host = host;
    checks_run(&facts, checks);
    worst = checks_worst(checks);
    if (call->json) {
        json_t *value = checks_json(checks);
        char *text;

        json_object_set_new(value, "joined", json_boolean(joined == 0));
        if (answer)
            json_object_set(value, "daemon", answer);
        text = json_write(value);
        printf("%s\n", text);
        free(text);
        json_decref(value);
    } else {
        struct buf text;

        buf_init(&text, 0);
        checks_print(checks, &text);
        fputs(text.data, stdout);
        buf_fini(&text);
        if (answer)
            print_links(json_object_get(answer, "links"));
        if (joined != 0)
            printf("This machine has not joined a pool: sheaf-worker join TOKEN\n");
    }
out:
    json_decref(request);
    if (answer)
        json_decref(answer);
    free(checks);
    free(host);
    return worst == CHECK_FAIL ? 1 : 0;
}

/* -- bench ------------------------------------------------------------------------------------- */

struct bench {
    struct event_base *base;
    struct selftest_result result;
    struct err err;
    bool ok;
};

static void on_bench(const struct selftest_result *result, const struct err *err, void *arg)
{
    struct bench *bench = arg;

    if (result) {
        bench->result = *result;
        bench->ok = result->failure[0] == '\0';
    } else if (err) {
        bench->err = *err;
    }
    event_base_loopbreak(bench->base);
}

static bool bench_device(const struct verb_call *call, struct event_base *base,
                         const struct device_info *device)
{
    struct bench bench = {.base = base};
    struct devices_job *job = NULL;
    uint64_t seed;
    const char *failure;

    random_bytes(&seed, sizeof(seed));
    if (devices_selftest(base, device, seed, on_bench, &bench, &job, &bench.err) == 0)
        event_base_dispatch(base);
    devices_job_free(job);
    failure = bench.result.failure[0] ? bench.result.failure : bench.err.text;
    if (call->json) {
        json_t *value = json_object();
        char *text;

        json_object_set_new(value, "device", json_integer(device->ordinal));
        json_object_set_new(value, "model", json_string(device->model));
        json_object_set_new(value, "memory_mib", json_integer(bench.result.memory_mib));
        json_object_set_new(value, "matmul_gops", json_integer(bench.result.matmul_gflops));
        json_object_set_new(value, "copy_mib_s", json_integer(bench.result.copy_mib_s));
        json_object_set_new(value, "failure", json_string(bench.ok ? "" : failure));
        text = json_write(value);
        printf("%s\n", text);
        free(text);
        json_decref(value);
    } else if (bench.ok) {
        printf("  %-2u  %-32.32s  %8u MiB  %8u Gop/s  %8u MiB/s\n", device->ordinal, device->model,
               bench.result.memory_mib, bench.result.matmul_gflops, bench.result.copy_mib_s);
    } else {
        printf("  %-2u  %-32.32s  FAILED: %s\n", device->ordinal, device->model, failure);
    }
    fflush(stdout);
    return bench.ok;
}

int verb_bench(const struct verb_call *call)
{
    struct err err = {0};
    struct host_info *host = calloc(1, sizeof(*host));
    struct event_base *base;
    bool good = true;

    if (!host || devices_probe(host, &err) != 0) {
        free(host);
        return verb_fail(&err);
    }
    base = loop_new();
    if (!call->json)
        printf("  %-2s  %-32s  %12s  %14s  %14s\n", "#", "MODEL", "MEMORY", "INT32 MATMUL", "COPY");
    for (uint32_t i = 0; i < host->device_count; i++)
        good = bench_device(call, base, &host->device[i]) && good;
    event_base_free(base);
    free(host);
    return good ? 0 : 1;
}
