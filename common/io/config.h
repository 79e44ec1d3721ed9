#ifndef SHEAF_COMMON_IO_CONFIG_H
#define SHEAF_COMMON_IO_CONFIG_H

/*
 * Options of a daemon from one table: flag > environment > YAML file > default. Help text,
 * --print-config, --check-config, the sample file, and what a running program takes over when its
 * file is read again come from the same table.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"

#define CONFIG_SYSTEM_FOLDER "/etc/sheaf"

enum config_type {
    CONFIG_TEXT,
    CONFIG_BOOL,
    CONFIG_INT,
    CONFIG_BYTES,    /* units_parse_bytes */
    CONFIG_DURATION, /* units_parse_duration, microseconds */
    CONFIG_MONEY,    /* micro-units */
};

enum config_flag {
    CONFIG_SECRET = 1u << 0, /* printed as *** */
    CONFIG_RELOAD = 1u << 1, /* config_reload() takes a new value over */
};

struct config_option {
    const char *key; /* "state"; flag --state, YAML key state, environment PREFIX_STATE */
    enum config_type type;
    const char *value; /* default as text; NULL = unset */
    int64_t min;
    int64_t max; /* 0 with min 0 = unbounded */
    uint32_t flags;
    const char *metavar;
    const char *help;
};

struct config;

/* options ends with a NULL key; prefix like "SHEAF_WORKER". Both are borrowed. */
struct config *config_new(const struct config_option *options, const char *prefix);
void config_free(struct config *config);
/* Reads the file; every error names file:line:key. ERR_CONFIG_INVALID. */
int config_load_file(struct config *config, const char *path, struct err *err) SHEAF_MUST_USE;
/*
 * What an earlier run kept with config_save: above the defaults, below file, environment and flags.
 * An absent file is fine.
 */
int config_load_saved(struct config *config, const char *path, struct err *err) SHEAF_MUST_USE;
/* Writes every value that is no default and no secret; skip ends with NULL. ERR_IO, ERR_NO_SPACE.
 */
int config_save(const struct config *config, const char *const *skip, const char *path,
                struct err *err) SHEAF_MUST_USE;
/* Secrets are overwritten where they were found, here and on the command line. */
int config_load_env(struct config *config, struct err *err) SHEAF_MUST_USE;
/*
 * Consumes --key value, --key=value and --bool / --no-bool from argv; what it does not know stays,
 * in order, and *argc says how many. --config FILE loads it first. "--" ends the options.
 */
int config_load_args(struct config *config, int *argc, char **argv, struct err *err) SHEAF_MUST_USE;
/*
 * All of the above in the right order. The file is --config, else PREFIX_CONFIG (empty: none), else
 * the system's: /etc/sheaf/worker.yaml of SHEAF_WORKER, if it is there.
 */
int config_load(struct config *config, int *argc, char **argv, struct err *err) SHEAF_MUST_USE;

/*
 * What is left of argv after config_load must be among `words` (ended by NULL) or no option at all.
 * ERR_USAGE names the first other one and the nearest option.
 */
int config_check_words(const struct config *config, int argc, char *const *argv,
                       const char *const *words, struct err *err) SHEAF_MUST_USE;
/* ERR_CONFIG_INVALID about one value: "worker.yaml:3:price: …", "--price: …". Returns the code. */
int config_refuse(const struct config *config, const char *key, struct err *err, const char *format,
                  ...) SHEAF_PRINTF(4, 5);
/*
 * No two of these keys, ended by NULL, listen in one place ("tcp://HOST:PORT", "HOST:PORT",
 * "LOW-HIGH", a port). Unset ones and port 0, which the system chooses, do not count.
 * ERR_CONFIG_INVALID.
 */
int config_check_ports(const struct config *config, const char *const *keys,
                       struct err *err) SHEAF_MUST_USE;
/* Port 0 does not go with an address that others are told. ERR_CONFIG_INVALID. */
int config_check_fixed(const struct config *config, const char *bind, const char *told,
                       struct err *err) SHEAF_MUST_USE;

/* NULL when unset. */
const char *config_text(const struct config *config, const char *key);
bool config_bool(const struct config *config, const char *key);
int64_t config_int(const struct config *config, const char *key); /* bytes, durations, money too */
bool config_is_set(const struct config *config, const char *key);

struct config_reload {
    /*
     * Looks at the values to come, and makes ready what they need. The last chance to refuse: an
     * error leaves everything as it was.
     */
    int (*check)(const struct config *fresh, void *arg, struct err *err);
    void *arg;
};
/*
 * Reads the files again; what flags and environment said stays. Options with CONFIG_RELOAD get
 * their new values; what else differs is logged as waiting for a restart. Every outcome is logged,
 * an error with file:line:key. Texts of changed options are freed: keep none of them.
 */
int config_reload(struct config *config, const struct config_reload *reload,
                  struct err *err) SHEAF_MUST_USE;

/* YAML of all values with their origin as comments. */
void config_print(const struct config *config, struct buf *out);
/* Aligned option list for --help. */
void config_help(const struct config *config, struct buf *out);

#endif
