#include "worker/images/podman.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/io/hash.h"
#include "common/io/json.h"
#include "common/pure/buf.h"
#include "common/pure/id.h"
#include "worker/images/service.h"
#include "worker/runtime/spawn.h"

#define RUN_FOLDER "/run/sheaf-podman"
#define SOCKET     "s"
/* An image's description with its history; a failed pull's story. */
#define ANSWER_LIMIT ((size_t)1 << 20)
#define START_MS     20000
#define RETRY_MS     10
#define URL          "http://podman/v4.0.0/libpod"

/* -- folders ----------------------------------------------------------------------------------- */

/* Socket paths end at 107 bytes, and podman makes some of its own: a short name for the folder. */
static int run_folder(const char *folder, char out[FS_PATH], struct err *err)
{
    uint8_t hash[SHA256_SIZE];
    char hex[SHA256_HEX];

    sha256(folder, strlen(folder), hash);
    hex_format(hash, sizeof(hash), hex);
    if (fs_path(out, RUN_FOLDER "/%.12s", hex) != 0)
        return err_set(err, ERR_IO, "path too long");
    return 0;
}

static int write_text(const char *folder, const char *name, const char *text, struct err *err)
{
    char path[FS_PATH];

    if (fs_path(path, "%s/%s", folder, name) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s", folder);
    return fs_write(path, text, strlen(text), 0600, err);
}

/* skip_mount_home: else a mount of the store stays behind when the service ends. */
static int write_settings(const struct podman *podman, struct err *err)
{
    char text[3 * FS_PATH];
    int rc;

    snprintf(text, sizeof(text),
             "[containers]\ndefault_sysctls = []\ndefault_ulimits = []\nvolumes = []\n"
             "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n"
             "hooks_dir = [\"%s/hooks\"]\nimage_copy_tmp_dir = \"%s/tmp\"\n",
             podman->folder, podman->folder);
    rc = write_text(podman->folder, "containers.conf", text, err);
    snprintf(text, sizeof(text),
             "[storage]\ndriver = \"overlay\"\nrunroot = \"%s/run\"\ngraphroot = \"%s/store\"\n"
             "[storage.options.overlay]\nskip_mount_home = \"true\"\n",
             podman->run, podman->folder);
    if (rc == 0)
        rc = write_text(podman->folder, "storage.conf", text, err);
    return rc == 0 ? write_text(podman->folder, "runtime", podman->runtime, err) : rc;
}

static int make_folders(const struct podman *podman, struct err *err)
{
    static const char *const names[] = {"hooks", "tmp", "store"};
    char path[FS_PATH];
    int rc = fs_mkdir(podman->run, 0700, err);

    for (size_t i = 0; rc == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
        rc = fs_path(path, "%s/%s", podman->folder, names[i]);
        if (rc == 0)
            rc = fs_mkdir(path, 0700, err);
    }
    return rc;
}

static int find_programs(struct podman *podman, const char *cgroup, struct err *err)
{
    /* crun refuses where version 2 is mounted beside controllers of version 1. */
    bool only_runc = strcmp(cgroup, "hybrid") == 0;

    if (geteuid() != 0)
        return err_set(err, ERR_UNSUPPORTED_HERE,
                       "containers get users of their own only from root; run the worker as root");
    if (spawn_find("podman", podman->program) != 0)
        return err_set(err, ERR_UNSUPPORTED_HERE,
                       "podman is not installed; apt-get install podman runc");
    if (spawn_find("runc", podman->runtime) != 0
        && (only_runc || spawn_find("crun", podman->runtime) != 0))
        return err_set(err, ERR_UNSUPPORTED_HERE, "%s; apt-get install runc",
                       only_runc
                           ? "runc is not installed, and crun does not run with hybrid cgroups"
                           : "neither runc nor crun is installed");
    return 0;
}

int podman_open(const char *folder, const char *cgroup, struct podman *ret_podman, struct err *err)
{
    struct podman podman = {.interrupted = NULL};
    int rc = find_programs(&podman, cgroup, err);

    if (rc == 0 && fs_path(podman.folder, "%s", folder) != 0)
        rc = err_set(err, ERR_IO, "path too long: %.100s", folder);
    if (rc == 0)
        rc = run_folder(folder, podman.run, err);
    if (rc == 0)
        rc = make_folders(&podman, err);
    if (rc == 0)
        rc = write_settings(&podman, err);
    if (rc == 0)
        *ret_podman = podman;
    return rc;
}

int podman_reopen(const char *folder, struct podman *ret_podman, struct err *err)
{
    struct podman podman = {.interrupted = NULL};
    char path[FS_PATH];
    struct buf text;
    int rc;

    buf_init(&text, 0);
    if (fs_path(podman.folder, "%s", folder) != 0 || fs_path(path, "%s/runtime", folder) != 0)
        rc = err_set(err, ERR_IO, "path too long: %.100s", folder);
    else
        rc = fs_read(path, FS_PATH - 1, &text, err);
    if (rc == 0 && fs_path(podman.runtime, "%s", text.data != NULL ? text.data : "") != 0)
        rc = err_set(err, ERR_STATE_CORRUPT, "%s", path);
    buf_fini(&text);
    if (rc == 0)
        rc = run_folder(folder, podman.run, err);
    if (rc == 0 && spawn_find("podman", podman.program) != 0)
        rc = err_set(err, ERR_UNSUPPORTED_HERE, "podman is not installed");
    if (rc == 0)
        *ret_podman = podman;
    return rc;
}

/* -- one call ---------------------------------------------------------------------------------- */

struct exchange {
    const struct podman *podman;
    struct buf answer;
    FILE *upload;
    char error[CURL_ERROR_SIZE];
};

static size_t take_answer(char *bytes, size_t size, size_t count, void *arg)
{
    struct exchange *exchange = arg;

    if (exchange->answer.length < ANSWER_LIMIT)
        buf_append(&exchange->answer, bytes, size * count);
    return size * count;
}

static int watch(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct exchange *exchange = arg;

    (void)a, (void)b, (void)c, (void)d;
    return exchange->podman->interrupted != NULL && *exchange->podman->interrupted != 0;
}

static void start_curl(void)
{
    BUG_ON(curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK);
}

static CURL *make_handle(struct exchange *exchange, const struct podman_call *call)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char socket[FS_PATH];
    char url[FS_PATH * 2];

    BUG_ON(pthread_once(&once, start_curl) != 0);
    CURL *curl = curl_easy_init();
    BUG_ON(curl == NULL);
    snprintf(socket, sizeof(socket), "%.200s/" SOCKET, exchange->podman->run);
    snprintf(url, sizeof(url), URL "%s", call->path);
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, call->method);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, call->timeout_ms);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, exchange->error);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_answer);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, watch);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, exchange);
    return curl;
}

static int set_upload(CURL *curl, struct exchange *exchange, const char *path, struct err *err)
{
    struct stat status;

    exchange->upload = fopen(path, "rbe");
    if (exchange->upload == NULL || fstat(fileno(exchange->upload), &status) != 0)
        return err_set(err, ERR_IO, "cannot open %.200s: %s", path, strerror(errno));
    curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(curl, CURLOPT_READDATA, exchange->upload);
    curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)status.st_size);
    return 0;
}

static int failure_of(CURLcode code, const struct exchange *exchange, struct err *err)
{
    enum err_code which = ERR_UNREACHABLE;

    if (code == CURLE_OPERATION_TIMEDOUT)
        which = ERR_TIMEOUT;
    else if (code == CURLE_ABORTED_BY_CALLBACK)
        which = ERR_INTERRUPTED;
    return err_set(err, which, "podman: %.180s",
                   exchange->error[0] ? exchange->error : curl_easy_strerror(code));
}

/* Podman says {"cause", "message", "response"}; some endpoints {"error"} or lines of JSON. */
static int refusal_of(long status, const struct buf *answer, struct err *err)
{
    json_t *value = NULL;
    const char *text = answer->data != NULL ? answer->data : "";
    enum err_code code = status == 404 ? ERR_NOT_FOUND : ERR_UNEXPECTED_RESPONSE;
    const char *message = NULL;

    if (json_read(text, answer->length, &value, NULL) == 0)
        message = json_text(value, "message");
    int rc = err_set(err, code, "podman: %.220s", message != NULL ? message : text);
    json_decref(value);
    return rc;
}

int podman_do(const struct podman *podman, const struct podman_call *call, json_t **ret_answer,
              struct err *err)
{
    struct exchange exchange = {.podman = podman};
    CURL *curl = make_handle(&exchange, call);
    struct curl_slist *headers =
        curl_slist_append(NULL, call->upload != NULL ? "Content-Type: application/x-tar"
                                                     : "Content-Type: application/json");
    char *body = call->body != NULL ? json_write(call->body) : NULL;
    long status = 0;
    int rc = 0;

    buf_init(&exchange.answer, 2 * ANSWER_LIMIT);
    headers = curl_slist_append(headers, "Expect:");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    if (body != NULL)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    else if (call->upload != NULL)
        rc = set_upload(curl, &exchange, call->upload, err);
    else if (strcmp(call->method, "POST") == 0)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
    if (rc == 0) {
        CURLcode code = curl_easy_perform(curl);
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        if (code != CURLE_OK)
            rc = failure_of(code, &exchange, err);
        else if (status < 200 || status > 299)
            rc = refusal_of(status, &exchange.answer, err);
    }
    if (rc == 0 && ret_answer != NULL) {
        *ret_answer = NULL;
        if (exchange.answer.length > 0)
            rc = json_read(exchange.answer.data, exchange.answer.length, ret_answer, err);
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    if (exchange.upload != NULL)
        fclose(exchange.upload);
    buf_fini(&exchange.answer);
    free(body);
    return rc;
}

/* -- the service ------------------------------------------------------------------------------- */

static bool answers(const struct podman *podman)
{
    const struct podman_call call = {.method = "GET", .path = "/_ping", .timeout_ms = 5000};

    return podman_do(podman, &call, NULL, NULL) == 0;
}

int podman_serve(const struct podman *podman, bool *ret_started, struct err *err)
{
    int64_t end = clock_mono_us() + (int64_t)START_MS * 1000;

    if (ret_started != NULL)
        *ret_started = false;
    if (answers(podman))
        return 0;
    int rc = service_start(podman, err);
    /* It makes its socket some milliseconds later and tells no one. */
    while (rc == 0 && !answers(podman)) {
        if (clock_mono_us() > end)
            return err_set(err, ERR_TIMEOUT,
                           "podman's service does not answer; see %.200s/" SERVICE_LOG,
                           podman->folder);
        if (poll(NULL, 0, RETRY_MS) < 0 && errno != EINTR)
            break;
    }
    if (rc == 0 && ret_started != NULL)
        *ret_started = true;
    return rc;
}

void podman_end(const struct podman *podman)
{
    service_stop(podman);
}

int podman_run(const struct podman *podman, const char *const *words, struct err *err)
{
    return service_run(podman, words, err);
}
