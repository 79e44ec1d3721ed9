/* Verbs about one job, or all of them. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/follow.h"
#include "cli/list.h"
#include "cli/plan.h"
#include "cli/table.h"
#include "cli/term.h"
#include "cli/verbs.h"
#include "common/io/clock.h"
#include "common/io/fs.h"
#include "common/io/hash.h"
#include "common/io/json.h"
#include "common/io/pack.h"
#include "common/pure/id.h"
#include "common/pure/units.h"

int verb_ps(const struct args *args)
{
    static const struct column columns[] = {
        {"JOB", "id", CELL_ID, false, true},
        {"NAME", "name", CELL_TEXT, false, false},
        {"STATE", "state", CELL_STATE, false, false},
        {"NODES", "nodes", CELL_NUMBER, false, false},
        {"GPUS/NODE", "gpus_per_node", CELL_NUMBER, false, false},
        {"PROJECT", "project", CELL_TEXT, true, false},
        {"AGE", "created_at", CELL_AGE, false, false},
        {"PRICE/H", "price_per_hour", CELL_MONEY, false, false},
        {"CHARGED", "charged", CELL_MONEY, false, false},
        {"REASON", "reason", CELL_TEXT, false, false},
        {0},
    };

    return list_print(args_has(args, "all") ? "/api/v1/jobs" : "/api/v1/jobs?state=live", columns,
                      args_has(args, "all") ? "no job yet; next: sheaf init"
                                            : "no live job; sheaf ps --all shows ended ones");
}

static void print_ranks(const json_t *job)
{
    static const struct column columns[] = {
        {"RANK", "rank", CELL_NUMBER, false, false},
        {"NODE", "node_name", CELL_TEXT, false, false},
        {"REGION", "region", CELL_TEXT, false, false},
        {"STATE", "state", CELL_STATE, false, false},
        {"EXIT", "exit_code", CELL_NUMBER, false, false},
        {"REASON", "reason", CELL_TEXT, false, false},
        {"DETAIL", "detail", CELL_TEXT, false, false},
        {0},
    };

    if (json_array_size(json_object_get(job, "ranks")) > 0) {
        printf("\n");
        table_print(json_object_get(job, "ranks"), columns, "");
    }
}

static void print_job_pairs(const json_t *job)
{
    size_t i;
    json_t *pair;
    char text[UNITS_TEXT];

    json_array_foreach(json_object_get(job, "pairs"), i, pair)
    {
        if (i == 0)
            printf("\n%sLINKS%s\n", tone_on(TONE_BOLD, term.color),
                   tone_off(TONE_BOLD, term.color));
        printf("  %-16s %-16s %10s\n", json_text_at(pair, "a"), json_text_at(pair, "b"),
               json_int_at(pair, "rtt_us") > 0
                   ? units_format_duration((uint64_t)json_int_at(pair, "rtt_us"), text)
                   : "unmeasured");
    }
}

static void print_job(const json_t *job)
{
    const char *state = json_text_at(job, "state");
    const char *reason = json_text_at(job, "reason");
    char text[UNITS_TEXT];

    printf("%s  %s%s %s%s  %s\n", json_text_at(job, "name"),
           tone_on(tone_of_state(state), term.color), symbol_of_state(state), state,
           tone_off(tone_of_state(state), term.color), json_text_at(job, "id"));
    if (reason[0] != '\0')
        printf("  %s: %s\n", reason,
               json_text_at(job, "detail")[0] ? json_text_at(job, "detail")
                                              : json_text_at(job, "reason_text"));
    printf("  project %s  %lld node%s x %lld  attempt %lld  charged %s of %s %s\n",
           json_text_at(job, "project"), (long long)json_int_at(job, "nodes"),
           json_int_at(job, "nodes") == 1 ? "" : "s", (long long)json_int_at(job, "gpus_per_node"),
           (long long)json_int_at(job, "attempts"), json_text_at(job, "charged"),
           json_text_at(job, "hold"), json_text_at(job, "currency"));
    if (json_int_at(job, "diameter_us") > 0)
        printf("  worst link %s  %s/h\n",
               units_format_duration((uint64_t)json_int_at(job, "diameter_us"), text),
               json_text_at(job, "price_per_hour"));
    print_ranks(job);
    print_job_pairs(job);
}

/* Opens the API and finds the job of the first word. */
static int open_job(const struct args *args, struct httpc *client, json_t **ret_job,
                    struct err *err)
{
    int rc = api_open(client, err);

    return rc < 0 ? rc : api_job(client, args->words[0], ret_job, err);
}

/* GET /jobs/ID/what of the first word's job. */
static int open_part(const struct args *args, const char *what, json_t **ret_part, struct err *err)
{
    struct httpc client;
    json_t *job = NULL;
    char path[128];

    int rc = open_job(args, &client, &job, err);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof(path), "/api/v1/jobs/%.36s/%s", json_text_at(job, "id"), what);
    json_decref(job);
    return api_call(&client, "GET", path, NULL, NULL, ret_part, err);
}

int verb_show(const struct args *args)
{
    struct httpc client;
    json_t *job = NULL;
    struct err err;

    if (open_job(args, &client, &job, &err) < 0)
        return command_fail(&err);
    if (!table_machine(job, "id"))
        print_job(job);
    json_decref(job);
    return EXIT_OK;
}

int verb_why(const struct args *args)
{
    json_t *why;
    struct err err;

    if (open_part(args, "why", &why, &err) < 0)
        return command_fail(&err);
    if (!table_machine(why, "code"))
        why_print(why);
    json_decref(why);
    return EXIT_OK;
}

struct log_view {
    bool machine;
    bool prefix; /* "rank| " when several ranks are shown */
    long last_rank;
    bool mid_line;
};

static void print_log_text(struct log_view *view, long rank, const json_t *text)
{
    const char *at = json_string_value(text);
    const char *end = at + json_string_length(text);

    while (at < end) {
        const char *line = memchr(at, '\n', (size_t)(end - at));
        size_t length = line != NULL ? (size_t)(line - at) + 1 : (size_t)(end - at);

        if (view->prefix && (!view->mid_line || rank != view->last_rank)) {
            if (view->mid_line)
                putchar('\n');
            printf("%s%ld|%s ", tone_on(TONE_DIM, term.color), rank,
                   tone_off(TONE_DIM, term.color));
        }
        view->last_rank = rank;
        term_put(stdout, at, length);
        view->mid_line = line == NULL;
        at += length;
    }
}

static bool on_log(const struct sse_event *event, void *arg)
{
    struct log_view *view = arg;
    json_t *data;
    struct err err;

    if (strcmp(event->event, "gap") == 0)
        fprintf(stderr, "(some output was skipped: %s)\n", event->data);
    if (strcmp(event->event, "log") != 0
        || json_read(event->data, strlen(event->data), &data, &err) < 0)
        return true;
    if (view->machine)
        printf("%s\n", event->data);
    else
        print_log_text(view, (long)json_int_at(data, "rank"), json_object_get(data, "text"));
    fflush(stdout);
    json_decref(data);
    return true;
}

int verb_logs(const struct args *args)
{
    struct httpc client;
    json_t *job = NULL;
    char path[256];
    long rank;
    struct err err;
    const char *stream = args_get(args, "stream");
    struct log_view view = {.machine = term.format == OUTPUT_JSON || term.format == OUTPUT_JSONL};

    int rc = args_int(args, "rank", 0, 1 << 20, -1, &rank, &err);
    if (rc == 0 && stream != NULL && strcmp(stream, "stdout") != 0 && strcmp(stream, "stderr") != 0)
        rc = err_set(&err, ERR_USAGE, "--stream wants stdout or stderr");
    if (rc == 0)
        rc = open_job(args, &client, &job, &err);
    if (rc < 0)
        return command_fail(&err);
    view.prefix = rank < 0
                  && (json_int_at(job, "nodes") > 1
                      || strcmp(json_text_at(job, "spec.launch"), "device") == 0);
    int used = snprintf(path, sizeof(path), "/api/v1/jobs/%.36s/logs?follow=%d",
                        json_text_at(job, "id"), args_has(args, "follow"));
    if (rank >= 0)
        used += snprintf(path + used, sizeof(path) - (size_t)used, "&rank=%ld", rank);
    if (stream != NULL)
        snprintf(path + used, sizeof(path) - (size_t)used, "&stream=%s", stream);
    json_decref(job);
    term_catch_interrupt();
    rc = api_follow(&client, path, NULL, on_log, &view, &err);
    return rc < 0 ? command_fail(&err) : EXIT_OK;
}

static void print_event(const json_t *data)
{
    const char *to = json_text_at(data, "to");
    const char *detail = json_text_at(data, "detail");

    printf("%s  %s%s %-10s%s  %-18s %-8s %s\n", json_text_at(data, "at"),
           tone_on(tone_of_state(to), term.color), symbol_of_state(to), to,
           tone_off(tone_of_state(to), term.color), json_text_at(data, "reason"),
           json_text_at(data, "actor"), detail[0] ? detail : json_text_at(data, "reason_text"));
    fflush(stdout);
}

static bool on_event(const struct sse_event *event, void *arg)
{
    json_t *data;
    struct err err;

    (void)arg;
    if (strcmp(event->event, "state") != 0
        || json_read(event->data, strlen(event->data), &data, &err) < 0)
        return true;
    if (term.format == OUTPUT_JSON || term.format == OUTPUT_JSONL)
        printf("%s\n", event->data);
    else
        print_event(data);
    json_decref(data);
    return true;
}

int verb_events(const struct args *args)
{
    struct httpc client;
    json_t *part = NULL;
    json_t *job = NULL;
    char path[128];
    struct err err;
    size_t i;
    json_t *item;

    if (!args_has(args, "follow")) {
        if (open_part(args, "events?limit=200", &part, &err) < 0)
            return command_fail(&err);
        if (!table_machine(json_object_get(part, "items"), "id"))
            json_array_foreach(json_object_get(part, "items"), i, item) print_event(item);
        json_decref(part);
        return EXIT_OK;
    }
    int rc = open_job(args, &client, &job, &err);
    if (rc == 0) {
        snprintf(path, sizeof(path), "/api/v1/jobs/%.36s/events", json_text_at(job, "id"));
        json_decref(job);
        term_catch_interrupt();
        rc = api_follow(&client, path, NULL, on_event, NULL, &err);
    }
    return rc < 0 ? command_fail(&err) : EXIT_OK;
}

struct waiting {
    int64_t deadline_us; /* 0 = none */
    bool late;
};

static bool on_wait(const struct sse_event *event, void *arg)
{
    struct waiting *waiting = arg;

    (void)event;
    waiting->late = waiting->deadline_us > 0 && clock_mono_us() > waiting->deadline_us;
    return !waiting->late;
}

/* Follows the events until the end. Returns the job as it ended. */
static int wait_for_end(const struct httpc *client, const char *id, uint64_t timeout_us,
                        json_t **ret_job, struct err *err)
{
    struct waiting waiting = {0};
    char path[128];

    term_catch_interrupt();
    if (timeout_us > 0) {
        /* The alarm interrupts the stream: a quiet job must not outwait the deadline. */
        waiting.deadline_us = clock_mono_us() + (int64_t)timeout_us;
        alarm((unsigned)(timeout_us / 1000000 + 1));
    }
    snprintf(path, sizeof(path), "/api/v1/jobs/%.36s/events", id);
    int rc = api_follow(client, path, NULL, on_wait, &waiting, err);
    bool late = waiting.deadline_us > 0 && clock_mono_us() >= waiting.deadline_us;
    alarm(0);
    if (rc < 0 && late)
        return err_set(err, ERR_TIMEOUT, "the job has not ended; it goes on");
    if (rc < 0)
        return rc;
    return api_job(client, id, ret_job, err);
}

static int end_code(const json_t *job)
{
    const char *state = json_text_at(job, "state");
    json_int_t code = json_int_at(job, "exit_code");

    if (strcmp(state, "succeeded") == 0)
        return EXIT_OK;
    return strcmp(state, "failed") == 0 && code > 0 && code < 256 ? (int)code : EXIT_JOB_FAILED;
}

int verb_wait(const struct args *args)
{
    struct httpc client;
    json_t *job = NULL;
    json_t *ended = NULL;
    uint64_t timeout_us = 0;
    struct err err;
    const char *timeout = args_get(args, "timeout");

    int rc = 0;
    if (timeout != NULL && units_parse_duration(timeout, &timeout_us) < 0)
        rc = err_set(&err, ERR_USAGE, "--timeout wants a time like 90s or 2h, not '%s'", timeout);
    if (rc == 0)
        rc = open_job(args, &client, &job, &err);
    if (rc < 0)
        return command_fail(&err);
    rc = wait_for_end(&client, json_text_at(job, "id"), timeout_us, &ended, &err);
    json_decref(job);
    if (rc < 0)
        return command_fail(&err);
    if (!table_machine(ended, "id"))
        fprintf(stderr, "%s: %s\n", json_text_at(ended, "state"),
                json_text_at(ended, "reason_text"));
    int code = end_code(ended);
    json_decref(ended);
    return code;
}

int verb_cancel(const struct args *args)
{
    struct httpc client;
    json_t *job = NULL;
    json_t *answer = NULL;
    char path[128];
    struct err err;

    if (open_job(args, &client, &job, &err) < 0)
        return command_fail(&err);
    snprintf(path, sizeof(path), "/api/v1/jobs/%.36s/cancel", json_text_at(job, "id"));
    json_t *body = json_object();
    int rc = api_call(&client, "POST", path, body, "", &answer, &err);
    json_decref(body);
    if (rc == 0 && args_has(args, "wait")) {
        json_decref(answer);
        answer = NULL;
        rc = wait_for_end(&client, json_text_at(job, "id"), 0, &answer, &err);
    }
    json_decref(job);
    if (rc < 0)
        return command_fail(&err);
    if (!table_machine(answer, "id"))
        fprintf(stderr, "%s\n", json_text_at(answer, "state"));
    json_decref(answer);
    return EXIT_OK;
}

struct download {
    int fd;
    bool failed;
    uint64_t size;
    uint64_t done;
};

static bool on_bytes(const char *bytes, size_t size, void *arg)
{
    struct download *download = arg;
    char done[UNITS_TEXT];
    char all[UNITS_TEXT];

    while (size > 0) {
        ssize_t written = write(download->fd, bytes, size);
        if (written < 0) {
            download->failed = true;
            return false;
        }
        bytes += written;
        size -= (size_t)written;
        download->done += (uint64_t)written;
    }
    term_status("fetching %s of %s", units_format_bytes(download->done, done),
                units_format_bytes(download->size, all));
    return true;
}

static int download_to(const struct httpc *client, const char *path, const char *file,
                       uint64_t size, struct err *err)
{
    struct download download = {.size = size};
    struct httpc_response response = {0};

    download.fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (download.fd < 0)
        return err_set(err, ERR_IO, "cannot write %s", file);
    const struct httpc_request request = {
        .method = "GET",
        .path = path,
        .accept = "application/zstd",
        .on_data = on_bytes,
        .arg = &download,
        .interrupted = &term.interrupted,
    };
    int rc = httpc_do(client, &request, &response, err);
    if (rc == 0 && response.status != 200)
        rc = api_problem(&response, err);
    if (download.failed)
        rc = err_set(err, ERR_NO_SPACE, "cannot write %s", file);
    httpc_response_fini(&response);
    close(download.fd);
    term_status_clear();
    return rc;
}

/* One archive: fetched, hash-checked, unpacked into DIR/rank-N. */
static int get_output(const struct httpc *client, const char *id, const json_t *output,
                      const char *dir, struct err *err)
{
    char file[FS_PATH];
    char target[FS_PATH];
    char path[FS_PATH];
    char hex[SHA256_HEX];
    uint8_t hash[SHA256_SIZE];
    uint64_t size;
    long rank = (long)json_int_at(output, "rank");

    if (fs_path(target, "%s/rank-%ld", dir, rank) < 0
        || fs_path(file, "%s/.rank-%ld.tar.zst", dir, rank) < 0
        || fs_path(path, "/api/v1/jobs/%.36s/outputs/%ld?path=%s", id, rank,
                   json_text_at(output, "path"))
               < 0)
        return err_set(err, ERR_IO, "the path %s is too long", dir);
    int rc = fs_mkdir(target, 0777, err);
    if (rc == 0)
        rc = download_to(client, path, file, (uint64_t)json_int_at(output, "size"), err);
    if (rc == 0)
        rc = sha256_file(file, hash, &size, err);
    if (rc == 0 && strcmp(hex_format(hash, sizeof(hash), hex), json_text_at(output, "sha256")) != 0)
        rc = err_set(err, ERR_HASH_MISMATCH, "output of rank %ld", rank);
    if (rc == 0)
        rc = unpack_tree(file, target, PACK_MAX_BYTES, err);
    unlink(file);
    if (rc == 0)
        fprintf(stderr, "%s%s\n", target, json_text_at(output, "path"));
    return rc;
}

int verb_get(const struct args *args)
{
    struct httpc client;
    json_t *job = NULL;
    json_t *part = NULL;
    struct err err;
    long rank;
    size_t i;
    json_t *output;
    unsigned fetched = 0;

    int rc = args_int(args, "rank", 0, 1 << 20, -1, &rank, &err);
    if (rc == 0)
        rc = open_job(args, &client, &job, &err);
    if (rc < 0)
        return command_fail(&err);
    const char *dir = args->word_count > 1 ? args->words[1] : json_text_at(job, "name");
    term_catch_interrupt();
    rc = open_part(args, "outputs", &part, &err);
    json_array_foreach(json_object_get(part, "items"), i, output)
    {
        if (rc < 0 || (rank >= 0 && json_int_at(output, "rank") != rank))
            continue;
        rc = get_output(&client, json_text_at(job, "id"), output, dir, &err);
        fetched++;
    }
    if (rc == 0 && fetched == 0)
        rc = err_set(&err, ERR_NOT_FOUND, "the job has no outputs%s (it is %s)",
                     rank >= 0 ? " of that rank" : "", json_text_at(job, "state"));
    json_decref(part);
    json_decref(job);
    return rc < 0 ? command_fail(&err) : EXIT_OK;
}

static void print_cost(const json_t *cost)
{
    static const struct column lines[] = {
        {"ATTEMPT", "attempt", CELL_NUMBER, false, false},
        {"RANK", "rank", CELL_NUMBER, false, false},
        {"NODE", "node", CELL_TEXT, false, false},
        {"PROVIDER", "provider", CELL_TEXT, false, false},
        {"PRICE/H", "price_per_hour", CELL_MONEY, false, false},
        {"BILLED MS", "billed_ms", CELL_NUMBER, false, false},
        {"CHARGE", "charge", CELL_MONEY, false, false},
        {"EARNED", "earned", CELL_MONEY, false, false},
        {"FEE", "fee", CELL_MONEY, false, false},
        {0},
    };

    table_print(json_object_get(cost, "lines"), lines, "nothing was metered");
    printf("\nheld     %14s %s\ncharged  %14s\n  earned %14s to providers\n  fee    %14s to the "
           "operator\nrefunded %14s\n",
           json_text_at(cost, "hold"), json_text_at(cost, "currency"),
           json_text_at(cost, "charged"), json_text_at(cost, "earned"), json_text_at(cost, "fee"),
           json_text_at(cost, "refunded"));
    printf("charge = earnings + fee: %s\n",
           json_is_true(json_object_get(cost, "balanced")) ? "yes" : "NO");
}

int verb_cost(const struct args *args)
{
    json_t *cost;
    struct err err;

    if (open_part(args, "cost", &cost, &err) < 0)
        return command_fail(&err);
    if (!table_machine(cost, "job"))
        print_cost(cost);
    json_decref(cost);
    return EXIT_OK;
}
