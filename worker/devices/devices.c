#include "worker/devices/devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/json.h"
#include "common/pure/mem.h"
#include "worker/devices/document.h"
#include "worker/devices/job.h"

#define PROBE_DEADLINE_S 60u
#define USAGE_DEADLINE_S 20u
/* A start of the drivers, the wait for other tests on the machine, and slow memory on top. */
#define SELFTEST_DEADLINE_S     300u
#define SELFTEST_DEADLINE_GIB_S 2u

/* Reads what the child printed. ERR_TIMEOUT, ERR_UNSUPPORTED_HERE, ERR_UNEXPECTED_RESPONSE. */
static int read_answer(const struct job_end *end, json_t **ret_document, struct err *err)
{
    char text[200];

    job_describe(end, text, sizeof(text));
    if (text[0] != '\0')
        return err_set(err, end->timed_out ? ERR_TIMEOUT : ERR_UNSUPPORTED_HERE,
                       "sheaf-devices: %s", text);
    return json_read(end->out->data != NULL ? end->out->data : "", end->out->length, ret_document,
                     err);
}

/* -- probe ----------------------------------------------------------------------------------- */

struct probe {
    struct event_base *base;
    struct host_info *host;
    struct err *err;
    int rc;
};

static void on_probe_end(const struct job_end *end, void *arg)
{
    struct probe *probe = arg;
    json_t *document = NULL;

    probe->rc = read_answer(end, &document, probe->err);
    if (probe->rc == 0)
        probe->rc = document_to_host(document, probe->host, probe->err);
    json_decref(document);
    event_base_loopbreak(probe->base);
}

int devices_probe(struct host_info *ret_host, struct err *err)
{
    struct probe probe = {.base = event_base_new(), .host = ret_host, .err = err};
    struct job_plan plan = {.verb = "probe",
                            .request = "",
                            .deadline_s = PROBE_DEADLINE_S,
                            .on_end = on_probe_end,
                            .arg = &probe};
    struct devices_job *job;

    BUG_ON(probe.base == NULL);
    probe.rc = job_start(probe.base, &plan, &job, err);
    if (probe.rc == 0) {
        BUG_ON(event_base_dispatch(probe.base) < 0);
        devices_job_free(job);
    }
    event_base_free(probe.base);
    return probe.rc;
}

/* -- self-test ------------------------------------------------------------------------------- */

struct selftest {
    uint32_t device;
    uint64_t seed;
    devices_on_selftest_f on_result;
    void *arg;
};

/* Killed, stuck or gone: that is how bad memory and bad drivers look from here. */
static bool device_failed(const struct job_end *end)
{
    return end->timed_out || end->signal != 0;
}

static void on_selftest_end(const struct job_end *end, void *arg)
{
    struct selftest test = *(struct selftest *)arg; /* the callback may free the job and this */
    struct selftest_result result = {0};
    json_t *document = NULL;
    struct err err = {0};
    int rc;

    if (device_failed(end)) {
        result.device = test.device;
        result.seed = test.seed;
        job_describe(end, result.failure, sizeof(result.failure));
        test.on_result(&result, NULL, test.arg);
        return;
    }
    rc = read_answer(end, &document, &err);
    if (rc == 0)
        rc = document_to_selftest(document, &result, &err);
    if (rc == 0 && (result.device != test.device || result.seed != test.seed))
        rc = err_set(&err, ERR_UNEXPECTED_RESPONSE, "sheaf-devices tested something else");
    json_decref(document);
    test.on_result(rc == 0 ? &result : NULL, rc == 0 ? NULL : &err, test.arg);
}

static int start_with(struct event_base *base, struct job_plan *plan, json_t *request,
                      struct devices_job **ret_job, struct err *err)
{
    char *text = json_write(request);
    int rc;

    json_decref(request);
    plan->request = text;
    rc = job_start(base, plan, ret_job, err);
    free(text);
    if (rc != 0)
        free(plan->arg);
    return rc;
}

int devices_selftest(struct event_base *base, const struct device_info *device, uint64_t seed,
                     devices_on_selftest_f on_result, void *arg, struct devices_job **ret_job,
                     struct err *err)
{
    struct selftest *test = mem_new(1, sizeof(*test));
    struct job_plan plan = {.verb = "selftest",
                            .deadline_s =
                                SELFTEST_DEADLINE_S
                                + (uint64_t)(device->memory_mib >> 10) * SELFTEST_DEADLINE_GIB_S,
                            .on_end = on_selftest_end,
                            .arg = test,
                            .owns_arg = true};

    *test = (struct selftest){
        .device = device->ordinal, .seed = seed, .on_result = on_result, .arg = arg};
    return start_with(base, &plan, document_from_ask(device, seed), ret_job, err);
}

/* -- usage ----------------------------------------------------------------------------------- */

struct usage {
    devices_on_usage_f on_result;
    void *arg;
};

static void on_usage_end(const struct job_end *end, void *arg)
{
    struct usage asked = *(struct usage *)arg;
    struct device_usage usage[DEVICES_MAX];
    json_t *document = NULL;
    uint32_t count = 0;
    struct err err = {0};
    int rc = read_answer(end, &document, &err);

    if (rc == 0)
        rc = document_to_usage(document, usage, &count, &err);
    json_decref(document);
    asked.on_result(rc == 0 ? usage : NULL, rc == 0 ? count : 0, rc == 0 ? NULL : &err, asked.arg);
}

int devices_usage(struct event_base *base, const int *our_pids, uint32_t pid_count,
                  devices_on_usage_f on_result, void *arg, struct devices_job **ret_job,
                  struct err *err)
{
    struct usage *usage = mem_new(1, sizeof(*usage));
    struct job_plan plan = {.verb = "usage",
                            .deadline_s = USAGE_DEADLINE_S,
                            .on_end = on_usage_end,
                            .arg = usage,
                            .owns_arg = true};

    *usage = (struct usage){.on_result = on_result, .arg = arg};
    return start_with(base, &plan, document_from_pids(our_pids, pid_count), ret_job, err);
}

/* -- environment of a task ------------------------------------------------------------------- */

static const struct device_info *find_ordinal(const struct host_info *host, uint32_t ordinal)
{
    for (uint32_t i = 0; i < host->device_count; i++) {
        if (host->device[i].ordinal == ordinal)
            return &host->device[i];
    }
    return NULL;
}

struct choice {
    char nvidia[DEVICES_MAX * 64];
    char amd[DEVICES_MAX * 64];
    char pocl[DEVICES_MAX * 8];
    uint32_t pocl_count;
    uint32_t pocl_mib; /* the smallest */
};

static void append(char *list, size_t size, const char *separator, const char *item)
{
    size_t used = strlen(list);

    snprintf(list + used, size - used, "%s%s", used > 0 ? separator : "", item);
}

static void choose(struct choice *choice, const struct device_info *device)
{
    if (device->gpu && strncmp(device->vendor, "NVIDIA", 6) == 0) {
        append(choice->nvidia, sizeof(choice->nvidia), ",", device->uuid);
    } else if (device->gpu && strcmp(device->vendor, "AMD") == 0) {
        append(choice->amd, sizeof(choice->amd), ",", device->uuid);
    } else if (!device->gpu) {
        bool basic = strncmp(device->model, "basic", 5) == 0;
        append(choice->pocl, sizeof(choice->pocl), " ", basic ? "basic" : "pthread");
        choice->pocl_count++;
        if (choice->pocl_mib == 0 || device->memory_mib < choice->pocl_mib)
            choice->pocl_mib = device->memory_mib;
    }
}

/* The library itself instead of the folder that lists it: sandboxes have an /etc of their own. */
static void pocl_library(struct spec_texts *env)
{
    FILE *file = fopen("/etc/OpenCL/vendors/pocl.icd", "re");
    char line[200] = "";

    if (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0')
            spec_texts_addf(env, "OCL_ICD_VENDORS=%s", line);
    }
    if (file != NULL)
        fclose(file);
}

static void pocl_environment(const struct host_info *host, const struct choice *choice,
                             struct spec_texts *env)
{
    uint32_t cpu_devices = 0;
    uint32_t threads;

    for (uint32_t i = 0; i < host->device_count; i++)
        cpu_devices += !host->device[i].gpu;
    BUG_ON(cpu_devices == 0); /* one of them was chosen */
    threads = host->cpu_milli / 1000 * choice->pocl_count / cpu_devices;
    spec_texts_addf(env, "POCL_DEVICES=%s", choice->pocl);
    /* Whole GiB is all that PoCL takes, and all of a machine is what it offers without. */
    if (choice->pocl_mib >= 1024)
        spec_texts_addf(env, "POCL_MEMORY_LIMIT=%u", choice->pocl_mib / 1024);
    spec_texts_addf(env, "POCL_MAX_PTHREAD_COUNT=%u", threads > 0 ? threads : 1);
    spec_texts_add(env, "POCL_CACHE_DIR=/tmp/pocl");
    pocl_library(env);
}

void devices_environment(const struct host_info *host, const uint32_t *ordinals, uint32_t count,
                         struct spec_texts *env)
{
    struct choice choice = {.nvidia = ""};
    bool has_nvidia = false;

    for (uint32_t i = 0; i < host->device_count; i++)
        has_nvidia = has_nvidia || strncmp(host->device[i].vendor, "NVIDIA", 6) == 0;
    for (uint32_t i = 0; i < count && i < DEVICES_MAX; i++) {
        const struct device_info *device = find_ordinal(host, ordinals[i]);
        if (device != NULL)
            choose(&choice, device);
    }
    /* Empty hides them all: libraries see what the sandbox shows them, and some look further. */
    if (has_nvidia)
        spec_texts_addf(env, "CUDA_VISIBLE_DEVICES=%s", choice.nvidia);
    if (choice.amd[0] != '\0')
        spec_texts_addf(env, "ROCR_VISIBLE_DEVICES=%s", choice.amd);
    if (choice.pocl_count > 0)
        pocl_environment(host, &choice, env);
}
