#ifndef SHEAF_COMMON_IO_CONFIG_H
#define SHEAF_COMMON_IO_CONFIG_H

/*
 * Options of a daemon from one table: flag > environment > YAML file > default. Help text,
 * --print-config, --check-config and the sample file come from the same table.
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

struct config_option {
    const char *key; /* "state"; flag --state, YAML key state, environment PREFIX_STATE */
    enum config_type type;
    const char *value; /* default as text; NULL = unset */
    int64_t min;
    int64_t max; /* 0 with min 0 = unbounded */
    bool secret; /* printed as *** */
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

/* NULL when unset. */
const char *config_text(const struct config *config, const char *key);
bool config_bool(const struct config *config, const char *key);
int64_t config_int(const struct config *config, const char *key); /* bytes, durations, money too */
bool config_is_set(const struct config *config, const char *key);

/* YAML of all values with their origin as comments. */
void config_print(const struct config *config, struct buf *out);
/* Aligned option list for --help. */
void config_help(const struct config *config, struct buf *out);

#endif
