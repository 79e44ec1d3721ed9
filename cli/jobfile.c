#include "cli/jobfile.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/term.h"
#include "common/io/fs.h"
#include "common/io/hash.h"
#include "common/io/json.h"
#include "common/io/pack.h"
#include "common/io/spec_json.h"
#include "common/io/yaml.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"
#include "common/pure/units.h"

static int read_stdin(struct buf *text, struct err *err)
{
    char piece[4096];
    size_t got;

    while ((got = fread(piece, 1, sizeof(piece), stdin)) > 0) {
        buf_append(text, piece, got);
        if (text->full)
            return err_set(err, ERR_BODY_TOO_LARGE, "a job file has at most %u bytes",
                           SPEC_MAX_TEXT_BYTES);
    }
    return 0;
}

/* "TAG" in env takes its value from our environment, as in `docker run -e`. */
static int fill_environment(json_t *spec, struct err *err)
{
    json_t *env = json_object_get(spec, "env");
    size_t i;
    json_t *item;

    if (!json_is_array(env))
        return 0;
    json_array_foreach(env, i, item)
    {
        const char *text = json_string_value(item);
        if (text == NULL || strchr(text, '=') != NULL)
            continue;
        const char *value = getenv(text);
        char pointer[32];
        snprintf(pointer, sizeof(pointer), "/env/%zu", i);
        if (value == NULL)
            return err_set_at(err, ERR_ENV_NOT_ALLOWED, pointer,
                              "%s has no value here; write %s=… or export it", text, text);
        size_t length = strlen(text) + strlen(value) + 2;
        char *pair = mem_new(length, 1);
        snprintf(pair, length, "%s=%s", text, value);
        json_array_set_new(env, i, json_string(pair));
        free(pair);
    }
    return 0;
}

/* Puts file, line and column before the text of an error about the file. */
static int locate(const char *path, const struct yaml_marks *marks, int rc, struct err *err)
{
    unsigned line = 0;
    unsigned column = 0;
    struct err seen = *err;

    if (rc == 0)
        return 0;
    /* The YAML reader names line and column itself. */
    if (marks == NULL)
        return err_set(err, seen.code, "%.60s:%.180s", path, seen.text);
    yaml_locate(marks, seen.pointer, &line, &column);
    return err_set_at(err, seen.code, seen.pointer, "%.60s:%u:%u: %.170s", path, line, column,
                      seen.text);
}

int jobfile_read(const char *path, json_t **ret_spec, char *ret_base, struct err *err)
{
    struct buf text;
    json_t *spec = NULL;
    struct yaml_marks *marks = NULL;
    struct job_spec checked;

    buf_init(&text, SPEC_MAX_TEXT_BYTES);
    int rc = strcmp(path, "-") == 0 ? read_stdin(&text, err)
                                    : fs_read(path, SPEC_MAX_TEXT_BYTES, &text, err);
    if (rc == 0)
        rc = locate(path, NULL,
                    yaml_read(text.data ? text.data : "", text.length, &spec, &marks, err), err);
    buf_fini(&text);
    if (rc == -ERR_TOO_MANY)
        return err_set(err, ERR_BODY_TOO_LARGE, "%.120s: a job file has at most %u bytes", path,
                       SPEC_MAX_TEXT_BYTES);
    if (rc < 0)
        return rc;
    rc = fill_environment(spec, err);
    if (rc == 0)
        rc = spec_from_json(spec, &checked, err);
    rc = locate(path, marks, rc, err);
    yaml_marks_free(marks);
    if (rc < 0) {
        json_decref(spec);
        return rc;
    }
    spec_fini(&checked);
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        snprintf(ret_base, FS_PATH, ".");
    else
        snprintf(ret_base, FS_PATH, "%.*s", (int)(slash - path + (slash == path)), path);
    *ret_spec = spec;
    return 0;
}

struct upload {
    const struct httpc *client;
    char hash[SHA256_HEX];
    uint64_t size;
    uint64_t part_size;
    const char *label;
};

static bool has_part(const json_t *state, uint64_t number)
{
    size_t i;
    json_t *item;

    json_array_foreach(json_object_get(state, "received"), i, item)
    {
        if ((uint64_t)json_integer_value(item) == number)
            return true;
    }
    return false;
}

static int send_part(const struct upload *upload, uint64_t number, const char *bytes, size_t size,
                     struct err *err)
{
    char path[160];
    struct httpc_response response = {0};

    snprintf(path, sizeof(path), "/api/v1/uploads/%s/parts/%llu", upload->hash,
             (unsigned long long)number);
    const struct httpc_request request = {
        .method = "PUT",
        .path = path,
        .content_type = "application/octet-stream",
        .body = bytes,
        .body_size = size,
        .timeout_ms = 300000,
        .interrupted = &term.interrupted,
    };
    int rc = httpc_do(upload->client, &request, &response, err);
    if (rc == 0 && (response.status < 200 || response.status > 299))
        rc = err_set(err, ERR_UNEXPECTED_RESPONSE, "upload: HTTP %ld: %.120s", response.status,
                     response.body.data ? response.body.data : "");
    httpc_response_fini(&response);
    return rc;
}

static int send_parts(const struct upload *upload, int fd, const json_t *state, struct err *err)
{
    uint64_t parts = (upload->size + upload->part_size - 1) / upload->part_size;
    char *bytes = mem_new(upload->part_size, 1);
    int rc = 0;

    for (uint64_t n = 0; rc == 0 && n < parts; n++) {
        char done[UNITS_TEXT];
        char all[UNITS_TEXT];
        if (has_part(state, n))
            continue;
        uint64_t offset = n * upload->part_size;
        size_t want = (size_t)(upload->size - offset < upload->part_size ? upload->size - offset
                                                                         : upload->part_size);
        ssize_t got = pread(fd, bytes, want, (off_t)offset);
        if (got < 0 || (size_t)got != want) {
            rc = err_set(err, ERR_IO, "cannot read the packed archive");
            break;
        }
        term_status("uploading %s  %s of %s", upload->label, units_format_bytes(offset, done),
                    units_format_bytes(upload->size, all));
        rc = send_part(upload, n, bytes, want, err);
    }
    term_status_clear();
    free(bytes);
    return rc;
}

static int upload_archive(struct upload *upload, const char *archive, struct err *err)
{
    json_t *body =
        json_pack("{s:s, s:I}", "sha256", upload->hash, "size", (json_int_t)upload->size);
    json_t *state = NULL;
    char path[160];

    if (term.project != NULL)
        json_object_set_new(body, "project", json_string(term.project));
    int rc = api_call(upload->client, "POST", "/api/v1/uploads", body, "", &state, err);
    json_decref(body);
    if (rc < 0)
        return rc;
    if (json_is_true(json_object_get(state, "done"))) {
        json_decref(state);
        return 0;
    }
    upload->part_size = (uint64_t)json_integer_value(json_object_get(state, "part_size"));
    if (upload->part_size == 0 || upload->part_size > ((uint64_t)64 << 20)) {
        json_decref(state);
        return err_set(err, ERR_UNEXPECTED_RESPONSE, "the server names no sane part size");
    }
    int fd = open(archive, O_RDONLY | O_CLOEXEC);
    rc = fd < 0 ? err_set(err, ERR_IO, "cannot open %s", archive)
                : send_parts(upload, fd, state, err);
    if (fd >= 0)
        close(fd);
    json_decref(state);
    if (rc < 0)
        return rc;
    json_t *answer = NULL;
    snprintf(path, sizeof(path), "/api/v1/uploads/%s/commit", upload->hash);
    body = term.project ? json_pack("{s:s}", "project", term.project) : json_object();
    rc = api_call(upload->client, "POST", path, body, "", &answer, err);
    json_decref(body);
    json_decref(answer);
    return rc;
}

static int path_of(const char *source, const char *base, char out[FS_PATH], struct err *err)
{
    bool absolute = source[0] == '/';

    if (fs_path(out, "%s%s%s", absolute ? "" : base, absolute ? "" : "/", source) < 0)
        return err_set(err, ERR_IO, "the path %s is too long", source);
    return 0;
}

/* The archive that `image` names goes as it is. */
static int upload_image(const struct httpc *client, json_t *spec, const char *base, struct err *err)
{
    const char *source = json_text(spec, "image");
    struct spec_image image;
    struct upload upload = {.client = client, .label = source};
    uint8_t hash[SHA256_SIZE];
    char archive[FS_PATH];

    if (source == NULL || spec_image_parse(source, &image, err) != 0 || !image.archive)
        return 0; /* jobfile_read has refused bad ones */
    term_status("reading %s", source);
    int rc = path_of(source, base, archive, err);
    if (rc == 0)
        rc = sha256_file(archive, hash, &upload.size, err);
    term_status_clear();
    if (rc == 0 && upload.size == 0)
        rc = err_set_at(err, ERR_IMAGE_UNUSABLE, "/image", "%s is empty", source);
    if (rc == 0) {
        hex_format(hash, sizeof(hash), upload.hash);
        rc = upload_archive(&upload, archive, err);
    }
    if (rc < 0)
        return rc;
    json_object_set_new(spec, "image",
                        json_pack("{s:s, s:s, s:I}", "archive", image.name, "sha256", upload.hash,
                                  "size", (json_int_t)upload.size));
    return 0;
}

/* One entry of `files`. */
static int upload_entry(const struct httpc *client, json_t *entry, const char *base,
                        const char *temp, struct err *err)
{
    const char *source = json_text(entry, "source");
    const char *path = json_text(entry, "path");
    char from[FS_PATH];
    char archive[FS_PATH];
    uint8_t hash[SHA256_SIZE];
    struct upload upload = {.client = client, .label = source};

    if (json_text(entry, "sha256") != NULL || source == NULL || path == NULL)
        return 0;
    int rc = path_of(source, base, from, err);
    if (rc == 0 && fs_path(archive, "%s/pack.tar.zst", temp) < 0)
        rc = err_set(err, ERR_IO, "the path %s is too long", source);
    if (rc < 0)
        return rc;
    const char *name = strrchr(path, '/');
    term_status("packing %s", source);
    rc = pack_tree(from, name ? name + 1 : path, archive, err);
    if (rc == 0)
        rc = sha256_file(archive, hash, &upload.size, err);
    if (rc == 0) {
        hex_format(hash, sizeof(hash), upload.hash);
        rc = upload_archive(&upload, archive, err);
    }
    unlink(archive);
    term_status_clear();
    if (rc < 0)
        return rc;
    json_object_set_new(entry, "sha256", json_string(upload.hash));
    json_object_set_new(entry, "size", json_integer((json_int_t)upload.size));
    return 0;
}

int jobfile_upload(const struct httpc *client, json_t *spec, const char *base, struct err *err)
{
    const char *tmp = getenv("TMPDIR");
    char temp[FS_PATH];
    size_t i;
    json_t *entry;
    int rc = upload_image(client, spec, base, err);

    if (rc < 0)
        return rc;
    if (json_array_size(json_object_get(spec, "files")) == 0)
        return 0;
    if (fs_path(temp, "%s/sheaf-XXXXXX", tmp && tmp[0] == '/' ? tmp : "/tmp") < 0
        || mkdtemp(temp) == NULL)
        return err_set(err, ERR_IO, "cannot make a temporary folder; set TMPDIR");
    json_array_foreach(json_object_get(spec, "files"), i, entry)
    {
        rc = upload_entry(client, entry, base, temp, err);
        if (rc < 0)
            break;
    }
    rmdir(temp);
    return rc;
}

const char *jobfile_template(void)
{
    return "# A Sheaf job file. Try it without paying:  sheaf plan -f job.yaml\n"
           "# Then run it:                             sheaf apply -f job.yaml\n"
           "version: 1\n"
           "name: train\n"
           "\n"
           "nodes: 2                     # machines that must start together\n"
           "resources:                   # of each machine\n"
           "  gpu: {memory: 24GB, count: 2}   # or \"H100:80GB:8\"; \"cpu:1GB:1\" runs without "
           "GPUs\n"
           "# cpu: 8                     # cores\n"
           "# memory: 32GB\n"
           "\n"
           "network:\n"
           "  max_rtt: 5ms               # between every pair, measured; leave out for no limit\n"
           "\n"
           "budget:\n"
           "  max_price: \"1.50\"          # per GPU and hour\n"
           "# max_total: \"40\"            # held now, the rest comes back\n"
           "max_duration: 2h\n"
           "\n"
           "# image: ./app.tar           # docker or OCI archive, or name@sha256:…; default: the "
           "machines' own programs\n"
           "files:                       # packed, sent once, unpacked on each machine\n"
           "  - {source: ./src, path: /job/src}\n"
           "\n"
           "launch: device               # one process per GPU with RANK, WORLD_SIZE, LOCAL_RANK "
           "set\n"
           "commands:\n"
           "  - python3 /job/src/train.py --out /out\n"
           "outputs: [/out]              # comes back by: sheaf get train\n";
}
