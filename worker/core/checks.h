#ifndef SHEAF_WORKER_CORE_CHECKS_H
#define SHEAF_WORKER_CORE_CHECKS_H

/* What `doctor` and `join` look at, each with its fix, and what this machine can serve. Blocking.
 */
#include "common/io/json.h"
#include "common/pure/buf.h"
#include "worker/core/home.h"
#include "worker/devices/devices.h"

enum check_level {
    CHECK_PASS,
    CHECK_WARN,
    CHECK_FAIL,
};
const char *check_level_name(enum check_level level);

struct check {
    enum check_level level;
    char name[32];
    char detail[256];
    char fix[256]; /* empty when it passed */
};

#define CHECKS_MAX 32

struct checks {
    struct check item[CHECKS_MAX];
    uint32_t count;
    char serves[8][256]; /* lines of "this machine can serve" */
    uint32_t serves_count;
    char address[64]; /* empty when unknown */
    char interface[16];
};

struct checks_facts {
    const struct settings *settings;
    const struct host_info *host;  /* NULL: could not be probed */
    const struct node_file *node;  /* NULL: not joined */
    const char *control;           /* a control endpoint to try; NULL = none known */
    const char *url;               /* of the gateway; NULL = none known */
    const struct err *probe_error; /* why host is NULL */
    bool running;                  /* the daemon runs: its ports are in use by itself */
};
void checks_run(const struct checks_facts *facts, struct checks *ret_checks);
enum check_level checks_worst(const struct checks *checks);
void checks_print(const struct checks *checks, struct buf *out);
json_t *checks_json(const struct checks *checks);
/*
 * "none: …" when the address cannot be reached from where the control endpoint is: a private
 * address while the orchestrator's is public. Pure.
 */
const char *checks_inbound(const char *address, const char *control_host);

#endif
