#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/hash.h"
#include "common/pure/buf.h"
#include "common/pure/id.h"
#include "worker/devices/child/child.h"

static bool path_format(char out[PATH_MAX], const char *format, va_list args) SHEAF_PRINTF(2, 0);

static bool path_format(char out[PATH_MAX], const char *format, va_list args)
{
    int length = vsnprintf(out, PATH_MAX, format, args);

    return length > 0 && length < PATH_MAX;
}

static bool read_first_line(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (fd < 0)
        return false;
    length = read(fd, out, size - 1);
    close(fd);
    if (length <= 0)
        return false;
    out[length] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return out[0] != '\0';
}

bool text_read(char *out, size_t size, const char *format, ...)
{
    char path[PATH_MAX];
    va_list args;
    bool fits;

    va_start(args, format);
    fits = path_format(path, format, args);
    va_end(args);
    return fits && read_first_line(path, out, size);
}

uint64_t text_read_number(const char *format, ...)
{
    char path[PATH_MAX];
    char text[32];
    va_list args;
    bool fits;

    va_start(args, format);
    fits = path_format(path, format, args);
    va_end(args);
    if (!fits || !read_first_line(path, text, sizeof(text)) || text[0] < '0' || text[0] > '9')
        return 0;
    return strtoull(text, NULL, 10);
}

bool text_take_number(const char **text, int base, uint64_t *ret_number)
{
    char *end;

    /* strtoull would take a sign and blanks too. */
    if (!isxdigit((unsigned char)**text))
        return false;
    *ret_number = strtoull(*text, &end, base);
    if (end == *text)
        return false;
    *text = end;
    return true;
}

int text_to_pid(const char *text)
{
    uint64_t number = 0;

    return text_take_number(&text, 10, &number) && *text == '\0' && number <= INT_MAX ? (int)number
                                                                                      : 0;
}

uint64_t text_read_key(const char *path, const char *key, uint64_t otherwise)
{
    size_t length = strlen(key);
    uint64_t value = otherwise;
    bool found = false;
    char line[256];
    FILE *file = fopen(path, "re");

    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
        const char *at = line + length;
        if (strncmp(line, key, length) != 0 || *at != ' ')
            continue;
        at += strspn(at, " ");
        found = text_take_number(&at, 10, &value);
    }
    if (file != NULL)
        fclose(file);
    return value;
}

const char *sysfs_root(void)
{
    const char *root = getenv("SHEAF_DEVICES_SYSFS");

    return root != NULL ? root : "/sys";
}

void format_uuid(char out[64], const char *prefix, const uint8_t bytes[16])
{
    char text[UUID_TEXT];
    struct uuid id;

    memcpy(id.bytes, bytes, sizeof(id.bytes));
    snprintf(out, 64, "%s-%s", prefix, uuid_format(&id, text));
}

/* What names this machine as long as its disk is not wiped. */
static void machine_name(char *out, size_t size)
{
    if (text_read(out, size, "/etc/machine-id") || text_read(out, size, "/var/lib/dbus/machine-id")
        || text_read(out, size, "/sys/class/dmi/id/product_uuid"))
        return;
    if (gethostname(out, size) != 0)
        snprintf(out, size, "unnamed");
    out[size - 1] = '\0';
}

void stable_uuid(char out[64], const char *prefix, const char *what)
{
    const char *salt = getenv("SHEAF_DEVICE_SALT");
    uint8_t hash[SHA256_SIZE];
    char machine[128];
    struct buf text;

    machine_name(machine, sizeof(machine));
    buf_init(&text, 0);
    buf_printf(&text, "sheaf device 1\n%s\n%s\n%s", machine, salt != NULL ? salt : "", what);
    sha256(text.data, text.length, hash);
    buf_fini(&text);
    format_uuid(out, prefix, hash);
}

void add_node(struct device_info *device, const char *path)
{
    if (device->node_count < sizeof(device->nodes) / sizeof(device->nodes[0])
        && strlen(path) < sizeof(device->nodes[0]))
        snprintf(device->nodes[device->node_count++], sizeof(device->nodes[0]), "%s", path);
}

void add_render_node(struct device_info *device)
{
    char folder[PATH_MAX];
    struct dirent *entry;
    DIR *dir;

    if (device->pci[0] == '\0')
        return;
    snprintf(folder, sizeof(folder), "%s/bus/pci/devices/%s/drm", sysfs_root(), device->pci);
    dir = opendir(folder);
    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, "renderD", 7) == 0) {
            char path[64];
            snprintf(path, sizeof(path), "/dev/dri/%.40s", entry->d_name);
            add_node(device, path);
        }
    }
    closedir(dir);
}

void host_warn(struct host_info *host, const char *format, ...)
{
    va_list args;

    if (host->warning_count == sizeof(host->warning) / sizeof(host->warning[0]))
        return;
    va_start(args, format);
    vsnprintf(host->warning[host->warning_count++], sizeof(host->warning[0]), format, args);
    va_end(args);
}

struct device_info *host_add(struct host_info *host)
{
    struct device_info *device;

    if (host->device_count == DEVICES_MAX) {
        host_warn(host, "more than %d devices: the rest is ignored", DEVICES_MAX);
        return NULL;
    }
    device = &host->device[host->device_count];
    memset(device, 0, sizeof(*device));
    device->ordinal = host->device_count++;
    device->opencl_platform = DEVICES_NO_OPENCL;
    device->opencl_device = DEVICES_NO_OPENCL;
    return device;
}
