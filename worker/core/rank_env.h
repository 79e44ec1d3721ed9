#ifndef SHEAF_WORKER_CORE_RANK_ENV_H
#define SHEAF_WORKER_CORE_RANK_ENV_H

/*
 * What a task is told by environment and files, and which processes it has. Pure text; the list is
 * documented for tenants in docs/environment.md.
 */
#include <stdint.h>

#include "common/pure/money.h"
#include "common/pure/spec.h"
#include "worker/runtime/runtime.h"

/* Known when the order to prepare comes. */
struct rank_plan {
    const struct job_spec *spec;
    const char *job_id; /* UUID text */
    const char *job_name;
    const char *project;
    uint32_t epoch;
    uint32_t rank;  /* node rank */
    uint32_t ranks; /* gang size */
    uint32_t device_count;
    uint32_t vram_mib; /* of the smallest device */
    const char *address;
    const char *interface; /* that holds the address */
};

/* Known when the gang starts. */
struct rank_go {
    const char *const *address; /* ranks of them, in rank order */
    const uint32_t *port;       /* likewise */
    uint32_t ranks;
    micro_t price; /* per hour, whole gang */
};

/* Fills plan->proc (proc_count of them; free with rank_env_fini_procs) and the common env. */
void rank_env_prepare(const struct rank_plan *plan, struct runtime_plan *out);
void rank_env_fini_procs(struct runtime_plan *plan);
/* Environment that is known only now. */
void rank_env_go(const struct rank_go *go, struct spec_texts *env);
/*
 * {"ranks":n,"unit":"us","rtt":[[…]]} of a row-major ranks x ranks matrix; 0 where nothing was
 * measured, the diagonal too. Caller frees.
 */
char *rank_env_pair_json(const uint32_t *pair_us, uint32_t ranks);
/* The script of a spec: one command per line. Caller frees. */
char *rank_env_script(const struct job_spec *spec);

#endif
