#ifndef SHEAF_COMMON_PURE_EXIT_CODE_H
#define SHEAF_COMMON_PURE_EXIT_CODE_H

/* What every program of ours ends with; part of the interface. */
#include "common/pure/err.h"

enum exit_code {
    EXIT_OK = 0,
    EXIT_JOB_FAILED = 1, /* the job's, or the check's, own verdict */
    EXIT_USAGE = 2,      /* command line, configuration or input file */
    EXIT_NOT_FOUND = 3,
    EXIT_AUTH = 4,
    EXIT_REFUSED = 5, /* conflict or refused */
    EXIT_CAPACITY = 6,
    EXIT_FUNDS = 7,
    EXIT_TIMEOUT = 8,
    EXIT_UNREACHABLE = 9,
    EXIT_INTERRUPTED = 130,
};

enum exit_code exit_code_of(enum err_code code);

#endif
