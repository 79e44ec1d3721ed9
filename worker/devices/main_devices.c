/*
 * sheaf-devices probe|selftest|usage: looks at the hardware in a short-lived process and prints one
 * JSON document. Requests of selftest and usage are one JSON document on stdin. Started by
 * sheaf-worker, which holds the deadline; of use by hand too.
 *
 * Exit: 0 with a document, 1 with a line on stderr, 2 wrong usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/pure/buf.h"
#include "worker/devices/child/child.h"
#include "worker/devices/document.h"

static int print_document(json_t *document)
{
    char *text = json_dumps(document, JSON_COMPACT);
    int rc;

    json_decref(document);
    if (text == NULL)
        return 1;
    rc = puts(text) == EOF || fflush(stdout) != 0;
    free(text);
    return rc;
}

static int complain(const struct err *err)
{
    fprintf(stderr, "sheaf-devices: %s\n", err->text);
    return 1;
}

/* The whole request; NULL with a line on stderr. */
static json_t *read_request(void)
{
    json_error_t at;
    json_t *document = NULL;
    struct buf text;
    char piece[4096];
    ssize_t n;

    buf_init(&text, DOCUMENT_MAX_BYTES);
    while ((n = read(STDIN_FILENO, piece, sizeof(piece))) != 0) {
        if (n < 0 && errno != EINTR)
            break;
        if (n > 0)
            buf_append(&text, piece, (size_t)n);
        if (text.full)
            break;
    }
    if (n == 0 && text.length > 0)
        document = json_loadb(text.data, text.length, JSON_REJECT_DUPLICATES, &at);
    if (document == NULL)
        fprintf(stderr, "sheaf-devices: the request on stdin is no JSON document\n");
    buf_fini(&text);
    return document;
}

static int do_probe(void)
{
    struct host_info *host = calloc(1, sizeof(*host));
    int rc;

    BUG_ON(host == NULL);
    inventory_list(host);
    rc = print_document(document_from_host(host));
    free(host);
    return rc;
}

static const struct device_info *find_device(const struct host_info *host, const char *uuid)
{
    for (uint32_t i = 0; i < host->device_count; i++) {
        if (strcmp(host->device[i].uuid, uuid) == 0)
            return &host->device[i];
    }
    return NULL;
}

static int do_selftest(void)
{
    struct host_info *host = calloc(1, sizeof(*host));
    json_t *request = read_request();
    struct selftest_result result = {0};
    const struct device_info *found;
    struct device_info device;
    struct err err;
    uint64_t seed;
    int rc;

    BUG_ON(host == NULL);
    if (request == NULL || document_to_ask(request, &device, &seed, &err) != 0) {
        rc = request == NULL ? 1 : complain(&err);
        json_decref(request);
        free(host);
        return rc;
    }
    json_decref(request);
    inventory_list(host);
    found = find_device(host, device.uuid);
    if (found == NULL) {
        result.device = device.ordinal;
        result.seed = seed;
        snprintf(result.failure, sizeof(result.failure), "the device is no longer there");
    } else {
        /* What is tested is the claim, not what the driver says today. */
        uint32_t claimed_mib = device.memory_mib;
        uint32_t ordinal = device.ordinal;
        device = *found;
        device.memory_mib = claimed_mib;
        device.ordinal = ordinal;
        selftest_run(&device, seed, &result);
    }
    free(host);
    return print_document(document_from_selftest(&result));
}

static int do_usage(void)
{
    json_t *request = read_request();
    struct device_usage usage[DEVICES_MAX] = {0};
    int *pids = calloc(DOCUMENT_MAX_PIDS, sizeof(*pids));
    struct pid_set ours;
    struct err err;
    uint32_t pid_count = 0;
    uint32_t count = 0;
    int rc;

    BUG_ON(pids == NULL);
    if (request == NULL || document_to_pids(request, pids, &pid_count, &err) != 0) {
        rc = request == NULL ? 1 : complain(&err);
    } else {
        pid_set_expand(&ours, pids, pid_count);
        nvml_usage(&ours, usage, &count);
        amd_usage(&ours, usage, &count);
        pid_set_fini(&ours);
        rc = print_document(document_from_usage(usage, count));
    }
    json_decref(request);
    free(pids);
    return rc;
}

/*
 * Dies with its parent; and is the first to go when memory runs out, since a self-test of a CPU
 * device fills the memory that everybody shares.
 */
static void prepare_process(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        (void)!write(fd, "1000", 4);
        close(fd);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/*
 * PoCL runs what it finds in its cache. Without a home it would take /tmp, where everybody can put
 * something: name the home that the user database knows.
 */
static void prepare_environment(void)
{
    const struct passwd *user;

    if (getenv("POCL_CACHE_DIR") != NULL || getenv("XDG_CACHE_HOME") != NULL
        || getenv("HOME") != NULL)
        return;
    user = getpwuid(geteuid());
    if (user != NULL)
        setenv("HOME", user->pw_dir, 1);
}

int main(int argc, char **argv)
{
    const char *verb = argc == 2 ? argv[1] : "";
    int rc = 2;

    prepare_process();
    prepare_environment();
    if (strcmp(verb, "probe") == 0)
        rc = do_probe();
    else if (strcmp(verb, "selftest") == 0)
        rc = do_selftest();
    else if (strcmp(verb, "usage") == 0)
        rc = do_usage();
    else
        fprintf(stderr, "usage: sheaf-devices probe|selftest|usage\n");
    /* No destructors: those of drivers crash, or wait for threads that are gone. */
    _exit(rc);
}
