#include "orchestrator/gateway/packages.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/libexec.h"
#include "common/pure/embed.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/api.h"
#include "orchestrator/gateway/download.h"

#define PREFIX "sheaf-worker_"
#define SUFFIX "_amd64.deb"
/* The package has less than 1 MiB; what is larger is not it. */
#define PACKAGE_LIMIT ((uint64_t)64 << 20)

extern const struct embed_file gateway_scripts[];

struct packages {
    char folder[FS_PATH];
    struct package known; /* hashed already, if the file is still this one: */
    struct stat status;
};

struct packages *packages_new(const char *folder, struct err *err)
{
    struct packages *packages = mem_new(1, sizeof(*packages));
    char own[FS_PATH];
    int rc;

    if (folder != NULL)
        rc = fs_path(packages->folder, "%s", folder);
    else if ((rc = libexec_own(own, err)) == 0)
        rc = fs_path(packages->folder, "%s/../share/sheaf/packages", own);
    if (rc != 0) {
        (void)err_set_at(err, ERR_CONFIG_INVALID, "packages", "packages: the path is too long");
        packages_free(packages);
        return NULL;
    }
    return packages;
}

void packages_free(struct packages *packages)
{
    free(packages);
}

/* "sheaf-worker_VERSION_amd64.deb" of plain characters: it goes into URLs and scripts. */
static bool name_read(const char *name, struct package *ret_package)
{
    size_t length = strlen(name);
    size_t around = strlen(PREFIX) + strlen(SUFFIX);

    if (length <= around || length >= PACKAGES_NAME || strncmp(name, PREFIX, strlen(PREFIX)) != 0
        || strcmp(name + length - strlen(SUFFIX), SUFFIX) != 0
        || strspn(name, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._~+-")
               != length)
        return false;
    memcpy(ret_package->name, name, length + 1);
    memcpy(ret_package->version, name + strlen(PREFIX), length - around);
    ret_package->version[length - around] = '\0';
    return true;
}

static bool newest(const char *folder, struct package *ret_package)
{
    struct package one;
    bool found = false;
    DIR *listing = opendir(folder);

    if (listing == NULL)
        return false;
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        if (!name_read(entry->d_name, &one)
            || (found && strverscmp(one.version, ret_package->version) <= 0))
            continue;
        *ret_package = one;
        found = true;
    }
    closedir(listing);
    return found;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size
           && a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int packages_find(struct packages *packages, struct package *ret_package, struct err *err)
{
    struct package found = {.name = ""};
    uint8_t sha256[SHA256_SIZE];
    uint64_t size = 0;
    struct stat status;
    char path[FS_PATH];

    if (!newest(packages->folder, &found)
        || fs_path(path, "%s/%s", packages->folder, found.name) != 0 || stat(path, &status) != 0
        || !S_ISREG(status.st_mode) || (uint64_t)status.st_size > PACKAGE_LIMIT)
        return err_set(err, ERR_NOT_FOUND,
                       "this gateway has no worker package to hand out: put " PREFIX
                       "VERSION" SUFFIX " into %.200s (or name its folder by --packages)",
                       packages->folder);
    if (strcmp(found.name, packages->known.name) == 0 && is_same_file(&status, &packages->status)) {
        *ret_package = packages->known;
        return 0;
    }
    int rc = sha256_file(path, sha256, &size, err);
    if (rc != 0)
        return rc;
    hex_format(sha256, SHA256_SIZE, found.sha256);
    packages->known = found;
    packages->status = status;
    *ret_package = found;
    return 0;
}

/* -- the script -------------------------------------------------------------------------------- */

/* One word of a shell, whatever is in it. */
static void put_word(const char *text, struct buf *out)
{
    buf_puts(out, "'");
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '\'')
            buf_puts(out, "'\\''");
        else
            buf_append(out, at, 1);
    }
    buf_puts(out, "'");
}

void packages_line(const struct gateway *gateway, const char *token, struct buf *out)
{
    struct package package;

    if (packages_find(gateway->packages, &package, NULL) != 0)
        return;
    buf_puts(out, "curl -fsS ");
    if (gateway->pin[0] != '\0') {
        /* The key is the trust: -k leaves out nothing but the certificate above it. */
        buf_puts(out, "-k --pinnedpubkey ");
        put_word(gateway->pin, out);
        buf_puts(out, " ");
    }
    put_word(gateway->url, out);
    buf_printf(out, "/join.sh | sudo sh -s -- %s", token);
}

struct blank {
    const char *name;
    const char *value;
};

/* The embedded script with its @NAME@s filled in. */
static void script_write(const struct blank *blanks, struct buf *out)
{
    const struct embed_file *file = &gateway_scripts[0];
    const unsigned char *at = file->begin;

    while (at < file->end) {
        const struct blank *blank = blanks;
        for (; *at == '@' && blank->name != NULL; blank++) {
            if ((size_t)(file->end - at) >= strlen(blank->name)
                && memcmp(at, blank->name, strlen(blank->name)) == 0)
                break;
        }
        if (*at == '@' && blank->name != NULL) {
            put_word(blank->value, out);
            at += strlen(blank->name);
        } else {
            buf_append(out, at, 1);
            at++;
        }
    }
}

void api_join_script(struct gateway *gateway, struct http_call *call)
{
    struct package package;
    struct err err = {0};
    char ca[SHA256_HEX];
    struct buf out;

    if (packages_find(gateway->packages, &package, &err) != 0) {
        http_problem(call, &err);
        return;
    }
    const struct blank blanks[] = {
        {"@URL@", gateway->url},
        {"@PIN@", gateway->pin},
        {"@CA@", hex_format(gateway->ca_sha256, SHA256_SIZE, ca)},
        {"@PACKAGE@", package.name},
        {"@VERSION@", package.version},
        {"@SHA256@", package.sha256},
        {NULL, NULL},
    };
    buf_init(&out, 0);
    script_write(blanks, &out);
    http_header(call, "Cache-Control", "no-store");
    http_reply(call, 200, "text/x-shellscript; charset=utf-8", out.data, out.length);
    buf_fini(&out);
}

/* -- the package ------------------------------------------------------------------------------- */

void api_package(struct gateway *gateway, struct http_call *call)
{
    struct download_file file = {.fd = -1, .type = "application/vnd.debian.binary-package"};
    struct package package;
    struct err err = {0};
    struct stat status;
    char path[FS_PATH];

    if (packages_find(gateway->packages, &package, &err) != 0) {
        http_problem(call, &err);
        return;
    }
    if (strcmp(call->param[0], package.name) != 0
        || fs_path(path, "%s/%s", gateway->packages->folder, package.name) != 0
        || (file.fd = open(path, O_RDONLY | O_CLOEXEC)) < 0 || fstat(file.fd, &status) != 0) {
        if (file.fd >= 0)
            close(file.fd);
        http_problemf(call, ERR_NOT_FOUND, "the package here is %s", package.name);
        return;
    }
    file.size = (uint64_t)status.st_size;
    file.sha256 = package.sha256;
    download_send(call, &file);
}
