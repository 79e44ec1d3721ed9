#include "worker/core/settings.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/pure/spec.h"
#include "common/pure/units.h"

static const struct config_option options[] = {
    {"state", CONFIG_TEXT, NULL, 0, 0, false, "DIR",
     "state folder; default /var/lib/sheaf/worker as root, else ~/.local/state/sheaf/worker"},
    {"name", CONFIG_TEXT, NULL, 0, 0, false, "NAME", "name of this node; default its host name"},
    {"address", CONFIG_TEXT, NULL, 0, 0, false, "IP",
     "address at which peers reach this machine; default the one that routes to the gateway"},
    {"port-range", CONFIG_TEXT, "7700-7799", 0, 0, false, "LOW-HIGH",
     "ports for tasks; the last one answers reachability tests"},
    {"probe-port", CONFIG_INT, "7800", 1, 65535, false, "PORT", "UDP port for delay measurements"},
    {"price", CONFIG_MONEY, "0.10", 0, 0, false, "AMOUNT", "asked per device and hour"},
    {"region", CONFIG_TEXT, "unknown", 0, 0, false, "NAME",
     "a label for people; placement goes by measured delays"},
    {"country", CONFIG_TEXT, "ZZ", 0, 0, false, "CC", "ISO 3166 code of two letters"},
    {"notice", CONFIG_DURATION, "30s", 0, INT64_C(86400000000), false, "TIME",
     "how long a job keeps running when its owner wants the device back"},
    {"devices", CONFIG_TEXT, "all", 0, 0, false, "LIST",
     "ordinals to offer, e.g. 0,2; the others are never touched"},
    {"machine-id", CONFIG_TEXT, "/etc/machine-id", 0, 0, false, "FILE",
     "what tells this machine from others"},
    {"unsafe-runtime", CONFIG_TEXT, NULL, 0, 0, false, "process",
     "'process' runs jobs WITHOUT isolation, as your user: only for tests and your own jobs"},
    {"declared-rtt", CONFIG_TEXT, NULL, 0, 0, false, "PEER=US,...",
     "least delay to a peer (node name, address or address:probe-port), in microseconds, where the "
     "network cannot show it; reported as declared"},
    {"orphan-ttl", CONFIG_DURATION, "60m", INT64_C(60000000), INT64_C(604800000000), false, "TIME",
     "how long jobs run without a word from the orchestrator before orphan-policy applies"},
    {"orphan-policy", CONFIG_TEXT, "keep", 0, 0, false, "keep|stop",
     "what to do with jobs after orphan-ttl"},
    {"usage-every", CONFIG_DURATION, "10s", INT64_C(1000000), INT64_C(3600000000), false, "TIME",
     "how often to look whether somebody else uses a device"},
    {"image-cache", CONFIG_BYTES, "20GB", 0, INT64_MAX, false, "SIZE",
     "what container images may take on disk, the longest unused going first; 0B runs none"},
    {"image-registries", CONFIG_TEXT, "docker.io,ghcr.io,quay.io,nvcr.io", 0, 0, false, "LIST",
     "registries that images are pulled from, or 'all', or 'none': archives alone"},
    {"log-level", CONFIG_TEXT, "info", 0, 0, false, "LEVEL", "debug, info, warn or error"},
    {NULL, CONFIG_TEXT, NULL, 0, 0, false, NULL, NULL},
};

const struct config_option *settings_options(void)
{
    return options;
}

static int copy(char *out, size_t size, const char *key, const char *text, struct err *err)
{
    if (strlen(text) >= size)
        return err_set_at(err, ERR_CONFIG_INVALID, key, "%s: longer than %zu characters", key,
                          size - 1);
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

static int read_state(const char *text, struct settings *settings, struct err *err)
{
    const char *base = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int rc;

    if (text)
        rc = fs_path(settings->state, "%s", text);
    else if (geteuid() == 0)
        rc = fs_path(settings->state, "/var/lib/sheaf/worker");
    else if (base && base[0] == '/')
        rc = fs_path(settings->state, "%s/sheaf/worker", base);
    else
        rc = fs_path(settings->state, "%s/.local/state/sheaf/worker", home ? home : "");
    if (rc != 0 || settings->state[0] != '/')
        return err_set_at(err, ERR_CONFIG_INVALID, "state",
                          "state: not an absolute path of at most %d characters", FS_PATH - 64);
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

static int read_ports(const char *text, struct settings *settings, struct err *err)
{
    const char *at = text;

    if (!read_number(&at, 65535, &settings->port_low) || *at++ != '-'
        || !read_number(&at, 65535, &settings->port_high) || *at != '\0' || settings->port_low == 0
        || settings->port_low >= settings->port_high)
        return err_set_at(err, ERR_CONFIG_INVALID, "port-range",
                          "port-range: '%s' is not LOW-HIGH of two ports, e.g. 7700-7799", text);
    return 0;
}

static int read_devices(const char *text, struct settings *settings, struct err *err)
{
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
    return err_set_at(err, ERR_CONFIG_INVALID, "devices",
                      "devices: '%s' is neither 'all' nor a list of ordinals, e.g. 0,2", text);
}

static int read_declared(const char *text, struct settings *settings, struct err *err)
{
    const char *at = text;

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
    return err_set_at(err, ERR_CONFIG_INVALID, "declared-rtt",
                      "declared-rtt: near '%.40s': write PEER=MICROSECONDS, at most %d of them", at,
                      SETTINGS_MAX_DECLARED);
}

static int read_choices(const struct config *config, struct settings *settings, struct err *err)
{
    const char *unsafe = config_text(config, "unsafe-runtime");
    const char *orphan = config_text(config, "orphan-policy");
    const char *country = config_text(config, "country");

    if (unsafe && strcmp(unsafe, "process") != 0)
        return err_set_at(err, ERR_CONFIG_INVALID, "unsafe-runtime",
                          "unsafe-runtime: only 'process' exists");
    settings->unsafe_process = unsafe != NULL;
    if (strcmp(orphan, "keep") != 0 && strcmp(orphan, "stop") != 0)
        return err_set_at(err, ERR_CONFIG_INVALID, "orphan-policy",
                          "orphan-policy: neither 'keep' nor 'stop'");
    settings->orphan_stop = strcmp(orphan, "stop") == 0;
    if (strlen(country) != 2 || !isupper((unsigned char)country[0])
        || !isupper((unsigned char)country[1]))
        return err_set_at(err, ERR_CONFIG_INVALID, "country",
                          "country: not two capital letters of ISO 3166");
    memcpy(settings->country, country, 3);
    if (!log_level_parse(config_text(config, "log-level"), &settings->log))
        return err_set_at(err, ERR_CONFIG_INVALID, "log-level",
                          "log-level: none of debug, info, warn, error");
    return 0;
}

int settings_read(const struct config *config, struct settings *ret_settings, struct err *err)
{
    struct settings settings = {0};
    const char *name = config_text(config, "name");
    const char *address = config_text(config, "address");
    int rc;

    rc = read_state(config_text(config, "state"), &settings, err);
    if (rc == 0 && name)
        rc = copy(settings.name, sizeof(settings.name), "name", name, err);
    else if (rc == 0)
        default_name(settings.name);
    if (rc == 0 && !name_is_valid(settings.name))
        rc = err_set_at(err, ERR_CONFIG_INVALID, "name",
                        "name: '%s' is not 1-63 of a-z 0-9 - that starts with a letter",
                        settings.name);
    if (rc == 0 && address)
        rc = copy(settings.address, sizeof(settings.address), "address", address, err);
    if (rc == 0)
        rc = read_ports(config_text(config, "port-range"), &settings, err);
    if (rc == 0)
        rc = copy(settings.region, sizeof(settings.region), "region", config_text(config, "region"),
                  err);
    if (rc == 0)
        rc = read_devices(config_text(config, "devices"), &settings, err);
    if (rc == 0)
        rc = copy(settings.machine_id, sizeof(settings.machine_id), "machine-id",
                  config_text(config, "machine-id"), err);
    if (rc == 0)
        rc = read_declared(config_text(config, "declared-rtt"), &settings, err);
    if (rc == 0)
        rc = copy(settings.image_registries, sizeof(settings.image_registries), "image-registries",
                  config_text(config, "image-registries"), err);
    if (rc == 0)
        rc = read_choices(config, &settings, err);
    if (rc != 0)
        return rc;
    settings.probe_port = (uint32_t)config_int(config, "probe-port");
    settings.price = config_int(config, "price");
    settings.notice_s = (uint32_t)(config_int(config, "notice") / 1000000);
    settings.orphan_ttl_us = (uint64_t)config_int(config, "orphan-ttl");
    settings.image_cache = (uint64_t)config_int(config, "image-cache");
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
