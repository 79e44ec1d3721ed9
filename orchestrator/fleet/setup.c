#include "orchestrator/fleet/setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/log.h"
#include "orchestrator/fleet/fleet.h"

/* A year in microseconds: longer waits are a mistake in the unit. */
#define YEAR_US ((int64_t)366 * 86400 * 1000000)

/* Three missed heartbeats make a node unknown; it cannot be lost before. */
#define LOST_AFTER_BEATS 3

#define TEXT(key, value, metavar, help)                                                            \
    {                                                                                              \
        key, CONFIG_TEXT, value, 0, 0, 0, metavar, help                                            \
    }
#define SECRET(key, metavar, help)                                                                 \
    {                                                                                              \
        key, CONFIG_TEXT, NULL, 0, 0, CONFIG_SECRET, metavar, help                                 \
    }
#define BOOL(key, flags, help)                                                                     \
    {                                                                                              \
        key, CONFIG_BOOL, "false", 0, 0, flags, NULL, help                                         \
    }
/* Unset: the stored policy decides. */
#define POLICY_TIME(key, help)                                                                     \
    {                                                                                              \
        key, CONFIG_DURATION, NULL, 1000, YEAR_US, CONFIG_RELOAD, "TIME", help                     \
    }

const struct config_option setup_options[] = {
    TEXT("state", NULL, "DIR", "folder of keys, lock and embedded database"),
    SECRET("database", "CONNINFO",
           "libpq connection string of role sheaf_orchestrator; unset: a private PostgreSQL in the "
           "state folder"),
    SECRET("owner-database", "CONNINFO", "the same for role sheaf_owner, for migrate"),
    SECRET("gateway-database", "CONNINFO",
           "the same for role sheaf_gateway, written into gateway.link"),
    TEXT("worker-bind", "tcp://0.0.0.0:7601", "ENDPOINT", "where workers connect"),
    TEXT("advertise", NULL, "ENDPOINT,…",
         "addresses that new workers are told; unset: found out from worker-bind"),
    TEXT("command-bind", "tcp://127.0.0.1:7602", "ENDPOINT", "where gateways send commands"),
    TEXT("hint-bind", "tcp://127.0.0.1:7603", "ENDPOINT", "where gateways hear of commits"),
    TEXT("metrics-bind", "127.0.0.1:7604", "HOST:PORT", "/metrics and /healthz; no authentication"),
    {"log-level", CONFIG_TEXT, "info", 0, 0, CONFIG_RELOAD, "LEVEL", "debug, info, warn or error"},
    TEXT("run-as", "postgres", "USER", "user of the embedded PostgreSQL when started by root"),
    TEXT("operator-token-file", NULL, "FILE",
         "write the first operator token there (0600) and not to the terminal"),
    {"heartbeat", CONFIG_DURATION, "5s", 500000, (int64_t)60 * 1000000, 0, "TIME",
     "what workers are told; three missed make a node unknown"},
    BOOL("share-link", 0,
         "let our group read gateway.link, with all it needs: for a gateway that is another user"),
    BOOL("keep-database", 0, "leave the embedded PostgreSQL running at the end"),
    BOOL("paranoid", CONFIG_RELOAD, "check every invariant after each step (slow)"),
    POLICY_TIME("lost-after", "policy: silence after which a node is lost"),
    POLICY_TIME("prepare-timeout", "policy: longest preparing"),
    POLICY_TIME("prepare-progress", "policy: longest preparing without progress"),
    POLICY_TIME("start-timeout", "policy: longest starting"),
    POLICY_TIME("output-timeout", "policy: longest wait for outputs"),
    POLICY_TIME("settle-every", "policy: time between settlements"),
    POLICY_TIME("backoff-first", "policy: first wait after a failed start"),
    POLICY_TIME("backoff-max", "policy: longest wait after failed starts"),
    POLICY_TIME("resend-after", "policy: wait before an order is repeated"),
    POLICY_TIME("mass-silence-hold", "policy: how long nobody is lost after a mass silence"),
    POLICY_TIME("link-max-age", "policy: older measurements count as none"),
    POLICY_TIME("probe-every", "policy: time between probes of a pair"),
    {"fee-ppm", CONFIG_INT, NULL, 0, 1000000, CONFIG_RELOAD, "PPM", "policy: the operator's part"},
    {NULL, CONFIG_TEXT, NULL, 0, 0, 0, NULL, NULL},
};

int setup_state(const struct config *config, char ret_path[FS_PATH], struct err *err)
{
    const char *given = config_text(config, "state");
    const char *state_home = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int rc;

    if (given && given[0])
        rc = fs_path(ret_path, "%s", given);
    else if (geteuid() == 0)
        rc = fs_path(ret_path, "/var/lib/sheaf/orchestrator");
    else if (state_home && state_home[0])
        rc = fs_path(ret_path, "%s/sheaf/orchestrator", state_home);
    else if (home && home[0])
        rc = fs_path(ret_path, "%s/.local/state/sheaf/orchestrator", home);
    else
        return err_set_at(err, ERR_CONFIG_INVALID, "state", "no HOME: give --state DIR");
    if (rc)
        return err_set_at(err, ERR_CONFIG_INVALID, "state", "the path is too long");
    return 0;
}

static int check_bind(const struct config *config, const char *key, struct err *err)
{
    const char *endpoint = config_text(config, key);

    if (endpoint == NULL || strncmp(endpoint, "tcp://", 6) != 0
        || strlen(endpoint) >= ENDPOINT_TEXT)
        return config_refuse(config, key, err, "%s is not tcp://HOST:PORT",
                             endpoint ? endpoint : "nothing");
    return 0;
}

static bool is_empty(const struct config *config, const char *key)
{
    const char *text = config_text(config, key);

    return text == NULL || text[0] == 0;
}

int setup_check(const struct config *config, struct err *err)
{
    static const char *const listening[] = {"worker-bind", "command-bind", "hint-bind",
                                            "metrics-bind", NULL};
    char items[FLEET_MAX_CONTROL][ENDPOINT_TEXT];
    enum log_level level;
    struct policy policy;
    uint32_t count;
    int rc;

    if ((rc = check_bind(config, "worker-bind", err))
        || (rc = check_bind(config, "command-bind", err))
        || (rc = check_bind(config, "hint-bind", err))
        || (rc = config_check_ports(config, listening, err))
        || (rc = config_check_fixed(config, "worker-bind", "advertise", err)))
        return rc;
    if (!log_level_parse(config_text(config, "log-level"), &level))
        return config_refuse(config, "log-level", err, "debug, info, warn or error");
    if (!is_empty(config, "advertise")
        && (rc = endpoint_list("advertise", config_text(config, "advertise"), items,
                               FLEET_MAX_CONTROL, &count, err)))
        return rc;
    if (!is_empty(config, "database") && is_empty(config, "gateway-database"))
        return config_refuse(config, "gateway-database", err, "is needed beside database");
    policy_default(&policy);
    return setup_policy(config, &policy, err);
}

/* "lost_after_us" of the policy is "lost-after" here. */
static const char *option_of(const char *field, char out[64])
{
    size_t length = strlen(field);

    if (length > 3 && strcmp(field + length - 3, "_us") == 0)
        length -= 3;
    snprintf(out, 64, "%.*s", (int)length, field);
    for (char *at = out; *at != '\0'; at++) {
        if (*at == '_')
            *at = '-';
    }
    return out;
}

int setup_policy(const struct config *config, struct policy *policy, struct err *err)
{
    struct policy out = *policy;
    struct err why = {0};
    char option[64];
    const struct {
        const char *key;
        usec_t *value;
    } times[] = {
        {"lost-after", &out.lost_after_us},
        {"prepare-timeout", &out.prepare_timeout_us},
        {"prepare-progress", &out.prepare_progress_us},
        {"start-timeout", &out.start_timeout_us},
        {"output-timeout", &out.output_timeout_us},
        {"settle-every", &out.settle_every_us},
        {"backoff-first", &out.backoff_first_us},
        {"backoff-max", &out.backoff_max_us},
        {"resend-after", &out.resend_after_us},
        {"mass-silence-hold", &out.mass_silence_hold_us},
        {"link-max-age", &out.link_max_age_us},
        {"probe-every", &out.probe_every_us},
    };
    int rc;

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        if (config_is_set(config, times[i].key))
            *times[i].value = config_int(config, times[i].key);
    }
    if (config_is_set(config, "fee-ppm"))
        out.fee_ppm = (uint32_t)config_int(config, "fee-ppm");
    rc = policy_check(&out, &why);
    if (rc != 0)
        return err_set_at(err, ERR_CONFIG_INVALID, option_of(why.pointer, option), "%s", why.text);
    /* Sooner than that nobody is even known to be silent. */
    if (out.lost_after_us < LOST_AFTER_BEATS * config_int(config, "heartbeat"))
        return config_refuse(config,
                             config_is_set(config, "lost-after") ? "lost-after" : "heartbeat", err,
                             "lost-after is shorter than %d heartbeats", LOST_AFTER_BEATS);
    *policy = out;
    return 0;
}
