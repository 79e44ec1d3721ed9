#include "worker/core/settings.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/pure/spec.h"
#include "common/pure/units.h"

static const struct config_option options[] = {
    {"state", CONFIG_TEXT, NULL, 0, 0, 0, "DIR",
     "state folder; default /var/lib/sheaf/worker as root, else ~/.local/state/sheaf/worker"},
    {"name", CONFIG_TEXT, NULL, 0, 0, 0, "NAME", "name of this node; default its host name"},
    {"address", CONFIG_TEXT, NULL, 0, 0, 0, "IP",
     "address at which peers reach this machine; default the one that routes to the gateway"},
    {"port-range", CONFIG_TEXT, "7700-7799", 0, 0, 0, "LOW-HIGH",
     "ports for tasks; the last one answers reachability tests"},
    {"probe-port", CONFIG_INT, "7800", 1, 65535, 0, "PORT", "UDP port for delay measurements"},
    {"price", CONFIG_MONEY, "0.10", 0, 0, 0, "AMOUNT", "asked per device and hour"},
    {"region", CONFIG_TEXT, "unknown", 0, 0, 0, "NAME",
     "a label for people; placement goes by measured delays"},
    {"country", CONFIG_TEXT, "ZZ", 0, 0, 0, "CC", "ISO 3166 code of two letters"},
    {"notice", CONFIG_DURATION, "30s", 0, INT64_C(86400000000), 0, "TIME",
     "how long a job keeps running when its owner wants the device back"},
    {"devices", CONFIG_TEXT, "all", 0, 0, 0, "LIST",
     "ordinals to offer, e.g. 0,2; the others are never touched"},
    {"machine-id", CONFIG_TEXT, "/etc/machine-id", 0, 0, 0, "FILE",
     "what tells this machine from others"},
    {"unsafe-runtime", CONFIG_TEXT, NULL, 0, 0, 0, "process",
     "'process' runs jobs WITHOUT isolation, as your user: only for tests and your own jobs"},
    {"declared-rtt", CONFIG_TEXT, NULL, 0, 0, CONFIG_RELOAD, "PEER=US,...",
     "least delay to a peer (node name, address or address:probe-port), in microseconds, where the "
     "network cannot show it; reported as declared"},
    {"orphan-ttl", CONFIG_DURATION, "60m", INT64_C(60000000), INT64_C(604800000000), CONFIG_RELOAD,
     "TIME", "how long jobs run without a word from the orchestrator before orphan-policy applies"},
    {"orphan-policy", CONFIG_TEXT, "keep", 0, 0, CONFIG_RELOAD, "keep|stop",
     "what to do with jobs after orphan-ttl"},
    {"cache-size", CONFIG_BYTES, "20GiB", 0, 0, 0, "SIZE",
     "inputs of jobs kept for the next one with the same; 0 keeps none"},
    {"log-limit", CONFIG_BYTES, "64MiB", 1 << 16, INT64_C(1) << 34, 0, "SIZE",
     "kept of the output of each rank's process; the rest is cut with a line that says so"},
    {"image-cache", CONFIG_BYTES, "20GB", 0, 0, 0, "SIZE",
     "what container images may take on disk, the longest unused going first; 0B runs none"},
    {"image-registries", CONFIG_TEXT, "docker.io,ghcr.io,quay.io,nvcr.io", 0, 0, 0, "LIST",
     "registries that images are pulled from, or 'all', or 'none': archives alone"},
    {"usage-every", CONFIG_DURATION, "10s", INT64_C(1000000), INT64_C(3600000000), CONFIG_RELOAD,
     "TIME", "how often to look whether somebody else uses a device"},
    {"log-level", CONFIG_TEXT, "info", 0, 0, CONFIG_RELOAD, "LEVEL", "debug, info, warn or error"},
    {NULL, CONFIG_TEXT, NULL, 0, 0, 0, NULL, NULL},
};

const struct config_option *settings_options(void)
{
    return options;
}

static int copy(const struct config *config, const char *key, char *out, size_t size,
                struct err *err)
{
    const char *text = config_text(config, key);

    if (strlen(text) >= size)
        return config_refuse(config, key, err, "longer than %zu characters", size - 1);
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static bool read_number(const char **text, uint32_t max, uint32_t *ret_value)
{
    uint64_t value = 0;
    const char *at = *text;

    if (!isdigit((unsigned char)*at))
        return false;
    for (; isdigit((unsigned char)*at); at++) {
        value = value * 10 + (uint64_t)(*at - '0');
        if (value > max)
            return false;
    }
    *text = at;
    *ret_value = (uint32_t)value;
    return true;
}

static int read_state(const struct config *config, struct settings *settings, struct err *err)
{
    const char *text = config_text(config, "state");
    const char *base = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int rc;

    if (text)
        rc = fs_path(settings->state, "%s", text);
    else if (geteuid() == 0)
        rc = fs_path(settings->state, SETTINGS_SYSTEM_STATE);
    else if (base && base[0] == '/')
        rc = fs_path(settings->state, "%s/sheaf/worker", base);
    else
        rc = fs_path(settings->state, "%s/.local/state/sheaf/worker", home ? home : "");
    if (rc != 0 || settings->state[0] != '/')
        return config_refuse(config, "state", err, "not an absolute path of at most %d characters",
                             FS_PATH - 64);
    return 0;
}

/* The host name as a node name: what does not fit becomes a dash. */
static void default_name(char out[64])
{
    char host[256] = "node";
    size_t length = 0;

    (void)gethostname(host, sizeof(host) - 1);
    host[sizeof(host) - 1] = '\0';
    for (const char *at = host; *at && *at != '.' && length < 63; at++) {
        char c = (char)tolower((unsigned char)*at);

        if (length == 0 && !islower((unsigned char)c))
            out[length++] = 'n';
        out[length++] = isalnum((unsigned char)c) ? c : '-';
    }
    out[length < 63 ? length : 63] = '\0';
    while (length > 0 && out[length - 1] == '-')
        out[--length] = '\0';
    if (!name_is_valid(out))
        memcpy(out, "node", 5);
}

static int read_ports(const struct config *config, struct settings *settings, struct err *err)
{
    static const char *const keys[] = {"port-range", "probe-port", NULL};
    const char *text = config_text(config, "port-range");
    const char *at = text;

    if (!read_number(&at, 65535, &settings->port_low) || *at++ != '-'
        || !read_number(&at, 65535, &settings->port_high) || *at != '\0' || settings->port_low == 0
        || settings->port_low >= settings->port_high)
        return config_refuse(config, "port-range", err,
                             "'%s' is not LOW-HIGH of two ports, e.g. 7700-7799", text);
    return config_check_ports(config, keys, err);
}

static int read_devices(const struct config *config, struct settings *settings, struct err *err)
{
    const char *text = config_text(config, "devices");
    const char *at = text;

    settings->device_count = 0;
    if (strcmp(text, "all") == 0)
        return 0;
    while (settings->device_count < SETTINGS_MAX_DEVICES) {
        if (!read_number(&at, 63, &settings->device[settings->device_count]))
            break;
        settings->device_count++;
        if (*at == '\0')
            return 0;
        if (*at++ != ',')
            break;
    }
    return config_refuse(config, "devices", err,
                         "'%s' is neither 'all' nor a list of ordinals, e.g. 0,2", text);
}

static int read_declared(const struct config *config, struct settings *settings, struct err *err)
{
    const char *at = config_text(config, "declared-rtt");

    while (at && *at) {
        struct declared_rtt *declared = &settings->declared[settings->declared_count];
        const char *equal = strchr(at, '=');
        size_t length = equal ? (size_t)(equal - at) : 0;

        if (length == 0 || length >= sizeof(declared->peer)
            || settings->declared_count == SETTINGS_MAX_DECLARED)
            goto bad;
        memcpy(declared->peer, at, length);
        declared->peer[length] = '\0';
        at = equal + 1;
        if (!read_number(&at, 10000000, &declared->us) || (*at != ',' && *at != '\0'))
            goto bad;
        settings->declared_count++;
        at += *at == ',';
    }
    return 0;
bad:
    return config_refuse(config, "declared-rtt", err,
                         "near '%.40s': write PEER=MICROSECONDS, at most %d of them", at,
                         SETTINGS_MAX_DECLARED);
}

static int read_choices(const struct config *config, struct settings *settings, struct err *err)
{
    const char *unsafe = config_text(config, "unsafe-runtime");
    const char *orphan = config_text(config, "orphan-policy");
    const char *country = config_text(config, "country");

    if (unsafe && strcmp(unsafe, "process") != 0)
        return config_refuse(config, "unsafe-runtime", err, "only 'process' exists");
    settings->unsafe_process = unsafe != NULL;
    if (strcmp(orphan, "keep") != 0 && strcmp(orphan, "stop") != 0)
        return config_refuse(config, "orphan-policy", err, "neither 'keep' nor 'stop'");
    settings->orphan_stop = strcmp(orphan, "stop") == 0;
    if (strlen(country) != 2 || !isupper((unsigned char)country[0])
        || !isupper((unsigned char)country[1]))
        return config_refuse(config, "country", err, "not two capital letters of ISO 3166");
    memcpy(settings->country, country, 3);
    if (!log_level_parse(config_text(config, "log-level"), &settings->log))
        return config_refuse(config, "log-level", err, "none of debug, info, warn, error");
    return 0;
}

int settings_read(const struct config *config, struct settings *ret_settings, struct err *err)
{
    struct settings settings = {0};
    const char *name = config_text(config, "name");
    const char *address = config_text(config, "address");
    int rc;

    rc = read_state(config, &settings, err);
    if (rc == 0 && name)
        rc = copy(config, "name", settings.name, sizeof(settings.name), err);
    else if (rc == 0)
        default_name(settings.name);
    if (rc == 0 && !name_is_valid(settings.name))
        rc =
            config_refuse(config, "name", err,
                          "'%s' is not 1-63 of a-z 0-9 - that starts with a letter", settings.name);
    if (rc == 0 && address)
        rc = copy(config, "address", settings.address, sizeof(settings.address), err);
    if (rc == 0)
        rc = read_ports(config, &settings, err);
    if (rc == 0)
        rc = copy(config, "region", settings.region, sizeof(settings.region), err);
    if (rc == 0)
        rc = read_devices(config, &settings, err);
    if (rc == 0)
        rc = copy(config, "machine-id", settings.machine_id, sizeof(settings.machine_id), err);
    if (rc == 0)
        rc = read_declared(config, &settings, err);
    if (rc == 0)
        rc = copy(config, "image-registries", settings.image_registries,
                  sizeof(settings.image_registries), err);
    if (rc == 0)
        rc = read_choices(config, &settings, err);
    if (rc != 0)
        return rc;
    settings.probe_port = (uint32_t)config_int(config, "probe-port");
    settings.price = config_int(config, "price");
    settings.notice_s = (uint32_t)(config_int(config, "notice") / 1000000);
    settings.orphan_ttl_us = (uint64_t)config_int(config, "orphan-ttl");
    settings.image_cache = (uint64_t)config_int(config, "image-cache");
    settings.cache_bytes = (uint64_t)config_int(config, "cache-size");
    settings.log_bytes = (uint64_t)config_int(config, "log-limit");
    settings.usage_every_us = (uint64_t)config_int(config, "usage-every");
    *ret_settings = settings;
    return 0;
}

int settings_recall(struct config *config, struct settings *settings, struct err *err)
{
    char path[FS_PATH];
    int rc = settings_path(settings, "settings.yaml", path, err);

    if (rc == 0)
        rc = config_load_saved(config, path, err);
    if (rc == 0)
        rc = settings_read(config, settings, err);
    return rc;
}

int settings_keep(const struct config *config, const struct settings *settings, struct err *err)
{
    /* Where the file is, and what is a matter of one run. */
    static const char *const skip[] = {"state", "log-level", NULL};
    char path[FS_PATH];
    int rc = settings_path(settings, "settings.yaml", path, err);

    return rc == 0 ? config_save(config, skip, path, err) : rc;
}

void settings_take(struct settings *settings, const struct settings *fresh)
{
    settings->orphan_ttl_us = fresh->orphan_ttl_us;
    settings->orphan_stop = fresh->orphan_stop;
    settings->usage_every_us = fresh->usage_every_us;
    memcpy(settings->declared, fresh->declared, sizeof(settings->declared));
    settings->declared_count = fresh->declared_count;
    settings->log = fresh->log;
}

uint32_t settings_rtt(const struct settings *settings, const char *name, const char *address,
                      uint32_t port, uint32_t measured_us)
{
    uint32_t us = measured_us;
    size_t length = strlen(address);

    if (measured_us == 0)
        return 0;
    for (uint32_t i = 0; i < settings->declared_count; i++) {
        const struct declared_rtt *declared = &settings->declared[i];
        bool match = strcmp(declared->peer, address) == 0
                     || (name && name[0] && strcmp(declared->peer, name) == 0);

        if (!match && strncmp(declared->peer, address, length) == 0
            && declared->peer[length] == ':')
            match = (uint32_t)strtoul(declared->peer + length + 1, NULL, 10) == port;
        if (match && declared->us > us)
            us = declared->us;
    }
    return us;
}

int settings_path(const struct settings *settings, const char *name, char out[FS_PATH],
                  struct err *err)
{
    if (fs_path(out, "%s/%s", settings->state, name) != 0)
        return err_set(err, ERR_IO, "the state folder's path is too long");
    return 0;
}
