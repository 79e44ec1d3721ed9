#ifndef SHEAF_WORKER_CORE_VERBS_H
#define SHEAF_WORKER_CORE_VERBS_H

/* The program's verbs. Each returns the program's exit code and prints its own errors. */
#include <stdbool.h>

#include "common/io/json.h"
#include "worker/core/settings.h"

struct verb_call {
    struct config *config;
    const struct settings *settings;
    int argc; /* what follows the verb; options are taken out */
    char **argv;
    bool json;    /* -o json */
    bool run;     /* join --run */
    bool dry_run; /* join --dry-run */
};

int verb_join(const struct verb_call *call);
int verb_run(const struct verb_call *call);
int verb_status(const struct verb_call *call);
int verb_doctor(const struct verb_call *call);
int verb_bench(const struct verb_call *call);
int verb_pause(const struct verb_call *call);
int verb_resume(const struct verb_call *call);
int verb_drain(const struct verb_call *call);
int verb_undrain(const struct verb_call *call);
int verb_leave(const struct verb_call *call);
int verb_uninstall(const struct verb_call *call);
int verb_price(const struct verb_call *call);

/* Prints what went wrong and what to do; the exit code of the error. */
int verb_fail(const struct err *err);
/* Asks the running daemon. ERR_UNREACHABLE when none runs. The caller owns the answer. */
int verb_ask(const struct settings *settings, json_t *request, json_t **ret_answer,
             struct err *err) SHEAF_MUST_USE;

/* `leave` without a daemon: drains, leaves, ends. The program's exit code. */
int verb_leave_here(const struct verb_call *call);

#endif
