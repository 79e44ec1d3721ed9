#ifndef SHEAF_COMMON_IO_LOG_H
#define SHEAF_COMMON_IO_LOG_H

/*
 * logfmt lines to stderr: time, level, program, module, event, then key=value pairs. Secrets are
 * never passed in; what is foreign is escaped. The only global of ours beside the config.
 */
#include <stdbool.h>

#include "common/pure/err.h"

enum log_level {
    LOG_DEBUG_LEVEL,
    LOG_INFO_LEVEL,
    LOG_WARN_LEVEL,
    LOG_ERROR_LEVEL,
};

/* program is borrowed for the life of the process. */
void log_open(const char *program, enum log_level level);
/* "debug" "info" "warn" "error"; false for another name. */
bool log_level_parse(const char *name, enum log_level *ret_level);
/*
 * format is a printf of `key=value` pairs separated by spaces; use LOG_Q for texts that may hold
 * spaces: log_at(LOG_INFO_LEVEL, "fleet", "session", "node=%s reason=" LOG_Q, name, reason).
 */
void log_at(enum log_level level, const char *module, const char *event, const char *format, ...)
    SHEAF_PRINTF(4, 5);
#define LOG_Q "\"%s\""

#define log_debug(module, event, ...) log_at(LOG_DEBUG_LEVEL, module, event, __VA_ARGS__)
#define log_info(module, event, ...)  log_at(LOG_INFO_LEVEL, module, event, __VA_ARGS__)
#define log_warn(module, event, ...)  log_at(LOG_WARN_LEVEL, module, event, __VA_ARGS__)
#define log_error(module, event, ...) log_at(LOG_ERROR_LEVEL, module, event, __VA_ARGS__)

#endif
