#include "worker/images/images.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/json.h"
#include "common/io/log.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"
#include "worker/images/archive.h"
#include "worker/images/container.h"

#define CALL_MS 60000
/* Twenty gigabytes through a slow disk or line; the orchestrator gives up on its own account. */
#define FETCH_MS 3600000
#define NAME     "localhost/sheaf"
#define HEX      65
/* Podman unpacks beside what it keeps. */
#define SPARE_BYTES ((uint64_t)1 << 30)

struct images {
    struct podman podman;
    uint64_t limit;
    char registries[512];
    char about[64];
    volatile int interrupted;
    bool started; /* the service, by us: a look at a worker that runs does not end its own */
};

static int ask(const struct images *images, const char *method, const char *path,
               json_t **ret_answer, struct err *err)
{
    const struct podman_call call = {.method = method, .path = path, .timeout_ms = CALL_MS};

    return podman_do(&images->podman, &call, ret_answer, err);
}

/* -- the shelf ----------------------------------------------------------------------------------
 */

static int mark_path(const struct images *images, const char *hex, char out[FS_PATH])
{
    return fs_path(out, "%s/used/%s", images->podman.folder, hex);
}

/* Its time of change is the time of last use. */
static void mark_used(const struct images *images, const char *hex)
{
    char path[FS_PATH];

    if (mark_path(images, hex, path) != 0)
        return;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || futimens(fd, NULL) != 0)
        log_warn("images", "mark", "path=%s error=%d", path, errno);
    if (fd >= 0)
        close(fd);
}

static int inspect(const struct images *images, const char *hex, struct image_facts *ret_facts,
                   struct err *err)
{
    char path[FS_PATH];
    json_t *answer = NULL;
    int rc = fs_path(path, "/images/" NAME ":%s/json", hex);

    if (rc == 0)
        rc = ask(images, "GET", path, &answer, err);
    if (rc == 0)
        rc = image_facts_read(answer, ret_facts, err);
    json_decref(answer);
    return rc;
}

static void forget(const struct images *images, const char *hex)
{
    struct err err = {0};
    char path[FS_PATH];
    int rc = fs_path(path, "/images/" NAME ":%s", hex);

    if (rc == 0)
        rc = ask(images, "DELETE", path, NULL, &err);
    if (rc != 0 && rc != -ERR_NOT_FOUND) {
        log_debug("images", "kept", "image=%s error=" LOG_Q, hex, err.text); /* a task runs it */
        return;
    }
    if (mark_path(images, hex, path) == 0)
        (void)unlink(path);
    log_info("images", "removed", "image=%s", hex);
}

struct shelf {
    char hex[HEX];
    struct timespec used;
};

static int compare_shelves(const void *left, const void *right)
{
    const struct shelf *a = left;
    const struct shelf *b = right;

    if (a->used.tv_sec != b->used.tv_sec)
        return a->used.tv_sec < b->used.tv_sec ? -1 : 1;
    return a->used.tv_nsec < b->used.tv_nsec ? -1 : a->used.tv_nsec > b->used.tv_nsec;
}

static uint32_t list_shelves(const struct images *images, struct shelf **ret_shelves)
{
    char path[FS_PATH];
    struct shelf *shelves = NULL;
    uint32_t count = 0;
    struct stat status;
    DIR *folder = fs_path(path, "%s/used", images->podman.folder) == 0 ? opendir(path) : NULL;

    for (struct dirent *entry = folder != NULL ? readdir(folder) : NULL; entry != NULL;
         entry = readdir(folder)) {
        if (strlen(entry->d_name) != HEX - 1
            || fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        shelves = mem_resize(shelves, count + 1, sizeof(*shelves));
        memcpy(shelves[count].hex, entry->d_name, HEX);
        shelves[count++].used = status.st_mtim;
    }
    if (folder != NULL)
        closedir(folder);
    if (count > 0)
        qsort(shelves, count, sizeof(*shelves), compare_shelves);
    *ret_shelves = shelves;
    return count;
}

/* What is kept: layers that images share count once for each. */
static uint64_t bytes_of(const struct images *images, const char *hex)
{
    struct image_facts facts;
    uint64_t bytes = 0;

    if (inspect(images, hex, &facts, NULL) == 0) {
        bytes = facts.bytes;
        image_facts_fini(&facts);
    }
    return bytes;
}

static void make_room(const struct images *images, const char *keep)
{
    struct shelf *shelves;
    uint32_t count = list_shelves(images, &shelves);
    uint64_t *bytes = mem_new((size_t)count + 1, sizeof(*bytes));
    uint64_t total = 0;

    for (uint32_t i = 0; i < count; i++)
        total += bytes[i] = bytes_of(images, shelves[i].hex);
    for (uint32_t i = 0; i < count && total > images->limit; i++) {
        if (strcmp(shelves[i].hex, keep) == 0)
            continue;
        forget(images, shelves[i].hex);
        total -= bytes[i];
    }
    free(bytes);
    free(shelves);
}

/* -- from outside -------------------------------------------------------------------------------
 */

/* The first line of podman's words, which go on about every format that it has tried. */
static int rename_error(struct err *err, enum err_code code, const char *what)
{
    struct err seen = *err;
    const char *text = seen.text;

    if (seen.code == ERR_TIMEOUT || seen.code == ERR_UNREACHABLE || seen.code == ERR_INTERRUPTED)
        return -(int)seen.code;
    if (strstr(text, "no space left") != NULL)
        code = ERR_NO_SPACE;
    return err_set(err, code, "%s: %.*s", what, (int)strcspn(text, "\n"), text);
}

static int name_it(const struct images *images, const char *id, const char *hex, struct err *err)
{
    char path[FS_PATH];
    int rc = fs_path(path, "/images/%s/tag?repo=" NAME "&tag=%s", id, hex);

    return rc == 0 ? ask(images, "POST", path, NULL, err) : rc;
}

/* The names that came along would be taken for another tenant's image one day. */
static int drop_names(const struct images *images, const char *hex, const json_t *names)
{
    char path[FS_PATH];
    size_t i;
    const json_t *name;

    json_array_foreach(names, i, name)
    {
        const char *text = json_string_value(name);
        const char *colon = text != NULL ? strrchr(text, ':') : NULL;
        if (colon == NULL || strncmp(text, "sha256:", 7) == 0
            || strncmp(text, NAME ":", sizeof(NAME)) == 0)
            continue;
        if (fs_path(path, "/images/" NAME ":%s/untag?repo=%.*s&tag=%s", hex, (int)(colon - text),
                    text, colon + 1)
                != 0
            || ask(images, "POST", path, NULL, NULL) != 0)
            return -ERR_IO;
    }
    return 0;
}

static bool is_plain(const char *name)
{
    for (; *name != '\0'; name++) {
        if (!isalnum((unsigned char)*name) && strchr("._-/:@", *name) == NULL)
            return false;
    }
    return true;
}

static int take_loaded(const struct images *images, const json_t *answer, const char *hex,
                       struct err *err)
{
    const json_t *names = json_object_get(answer, "Names");
    const char *name = json_string_value(json_array_get(names, 0));

    if (json_array_size(names) != 1 || name == NULL || !is_plain(name))
        return err_set(err, ERR_IMAGE_UNUSABLE, "the archive holds %zu images, one is wanted",
                       json_array_size(names));
    const char *id = strncmp(name, "sha256:", 7) == 0 ? name + 7 : name;
    int rc = name_it(images, id, hex, err);
    if (rc == 0 && drop_names(images, hex, names) != 0)
        log_warn("images", "name_left", "name=" LOG_Q, name);
    return rc;
}

static int load(const struct images *images, const char *archive, const char *hex, struct err *err)
{
    const struct podman_call call = {
        .method = "POST", .path = "/images/load", .upload = archive, .timeout_ms = FETCH_MS};
    json_t *answer = NULL;
    uint64_t free_bytes = fs_free_bytes(images->podman.folder);
    uint64_t room = free_bytes > SPARE_BYTES ? (free_bytes - SPARE_BYTES) / 2 : 0;
    int rc = image_archive_check(archive, images->limit < room ? images->limit : room, err);

    if (rc != 0 && room < images->limit && err->code == ERR_IMAGE_UNUSABLE
        && strstr(err->text, "unpacks") != NULL)
        return err_set(err, ERR_NO_SPACE, "no room for the image");
    if (rc != 0)
        return rc;
    rc = podman_do(&images->podman, &call, &answer, err);
    if (rc != 0)
        return rename_error(err, ERR_IMAGE_UNUSABLE, "not an image");
    rc = take_loaded(images, answer, hex, err);
    json_decref(answer);
    return rc;
}

/* The provider says where its machine may be sent to: a name could be one of its own network. */
static bool is_allowed(const struct images *images, const char *name)
{
    const char *slash = strchr(name, '/');
    size_t length = slash != NULL ? (size_t)(slash - name) : 0;

    if (strcmp(images->registries, "all") == 0)
        return true;
    for (const char *at = images->registries; length > 0 && *at != '\0';) {
        size_t word = strcspn(at, ",");
        if (word == length && strncmp(at, name, length) == 0)
            return true;
        at += word + (at[word] == ',');
    }
    return false;
}

/* "what: where: how: why", each with the name in full: the last one says it. */
static const char *last_part(const char *text)
{
    for (const char *next = strstr(text, ": "); next != NULL; next = strstr(text, ": "))
        text = next + 2;
    return text;
}

static int pull(const struct images *images, const char *name, const char *hex, struct err *err)
{
    char path[2 * FS_PATH];
    const struct podman_call call = {.method = "POST", .path = path, .timeout_ms = FETCH_MS};
    json_t *answer = NULL;

    if (!is_allowed(images, name))
        return err_set(err, ERR_IMAGE_UNAVAILABLE,
                       "this node pulls from %.120s alone; name the registry in full, or send an "
                       "archive",
                       images->registries);
    snprintf(path, sizeof(path), "/images/pull?quiet=true&reference=%s", name);
    int rc = podman_do(&images->podman, &call, &answer, err);
    const char *failure = json_text(answer, "error");
    const char *id = json_text(answer, "id");
    const char *why = failure != NULL ? last_part(failure) : NULL;
    if (rc == 0 && (why != NULL || id == NULL))
        rc = err_set(err, ERR_IMAGE_UNAVAILABLE, "%.220s", why != NULL ? why : "no id came");
    if (rc != 0)
        rc = rename_error(err, ERR_IMAGE_UNAVAILABLE, "cannot be pulled");
    else
        rc = name_it(images, id, hex, err);
    json_decref(answer);
    return rc;
}

int images_get(struct images *images, const struct spec_image *image, const char *archive,
               struct image_facts *ret_facts, struct err *err)
{
    char hex[HEX];
    int rc = podman_serve(&images->podman, NULL, err);

    hex_format(image->sha256, sizeof(image->sha256), hex);
    if (rc != 0)
        return rc;
    rc = inspect(images, hex, ret_facts, err);
    if (rc == -ERR_NOT_FOUND) {
        rc =
            archive != NULL ? load(images, archive, hex, err) : pull(images, image->name, hex, err);
        if (rc == 0)
            rc = inspect(images, hex, ret_facts, err);
    }
    if (rc == -ERR_IMAGE_UNUSABLE)
        forget(images, hex);
    if (rc != 0)
        return rc;
    mark_used(images, hex);
    make_room(images, hex);
    return 0;
}

/* -- life ---------------------------------------------------------------------------------------
 */

/* What podman says of itself; its store must be one that needs no copy of each layer per task. */
static int look_at(struct images *images, struct err *err)
{
    json_t *answer = NULL;
    int rc = ask(images, "GET", "/info", &answer, err);
    const char *driver = json_text(json_object_get(answer, "store"), "graphDriverName");
    const char *slash = strrchr(images->podman.runtime, '/');

    if (rc == 0)
        snprintf(images->about, sizeof(images->about), "%s, %s", slash != NULL ? slash + 1 : "?",
                 driver != NULL ? driver : "?");
    json_decref(answer);
    return rc;
}

int images_new(const struct images_options *options, struct images **ret_images, struct err *err)
{
    struct images *images = mem_new(1, sizeof(*images));
    char folder[FS_PATH];
    char used[FS_PATH];
    int rc = fs_path(folder, "%s/podman", options->state);

    images->limit = options->limit;
    snprintf(images->registries, sizeof(images->registries), "%s", options->registries);
    if (rc != 0 || fs_path(used, "%s/used", folder) != 0)
        rc = err_set(err, ERR_IO, "the state folder's path is too long");
    if (rc == 0)
        rc = podman_open(folder, options->cgroup, &images->podman, err);
    images->podman.interrupted = &images->interrupted;
    if (rc == 0)
        rc = fs_mkdir(used, 0700, err);
    if (rc == 0)
        rc = podman_serve(&images->podman, &images->started, err);
    if (rc == 0)
        rc = look_at(images, err);
    if (rc == 0)
        rc = container_try(&images->podman, err);
    if (rc != 0) {
        free(images);
        return rc;
    }
    *ret_images = images;
    return 0;
}

void images_free(struct images *images)
{
    if (images != NULL && images->started)
        podman_end(&images->podman);
    free(images);
}

void images_stop(struct images *images)
{
    images->interrupted = 1;
    podman_end(&images->podman);
}

const char *images_folder(const struct images *images)
{
    return images->podman.folder;
}

const char *images_about(const struct images *images)
{
    return images->about;
}
