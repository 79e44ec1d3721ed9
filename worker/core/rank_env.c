#include "worker/core/rank_env.h"

#include <stdlib.h>
#include <string.h>

#include "common/pure/buf.h"
#include "common/pure/mem.h"

#define PAIR_RTT_FILE "/job/.sheaf/pair_rtt.json"

/* Whether the tenant set NAME itself. */
static bool is_set(const struct spec_texts *env, const char *name)
{
    size_t length = strlen(name);

    for (uint32_t i = 0; i < env->count; i++) {
        if (strncmp(env->items[i], name, length) == 0 && env->items[i][length] == '=')
            return true;
    }
    return false;
}

static void add_common(const struct rank_plan *plan, struct spec_texts *env)
{
    const struct job_spec *spec = plan->spec;
    uint64_t gpus = (uint64_t)plan->ranks * plan->device_count;

    for (uint32_t i = 0; i < spec->env.count; i++)
        spec_texts_add(env, spec->env.items[i]);
    spec_texts_addf(env, "SHEAF_JOB_ID=%s", plan->job_id);
    spec_texts_addf(env, "SHEAF_JOB_NAME=%s", plan->job_name);
    spec_texts_addf(env, "SHEAF_PROJECT=%s", plan->project);
    /* Attempts count from 0 for people, epochs from 1. */
    spec_texts_addf(env, "SHEAF_ATTEMPT=%u", plan->epoch > 0 ? plan->epoch - 1 : 0);
    spec_texts_addf(env, "SHEAF_EPOCH=%u", plan->epoch);
    spec_texts_addf(env, "SHEAF_NODES_NUM=%u", plan->ranks);
    spec_texts_addf(env, "SHEAF_NODE_RANK=%u", plan->rank);
    spec_texts_addf(env, "SHEAF_NODE_IP=%s", plan->address);
    spec_texts_addf(env, "SHEAF_GPUS_NUM=%llu", (unsigned long long)gpus);
    spec_texts_addf(env, "SHEAF_GPUS_PER_NODE=%u", plan->device_count);
    spec_texts_addf(env, "SHEAF_VRAM_MIB=%u", plan->vram_mib);
    spec_texts_addf(env, "NNODES=%u", plan->ranks);
    spec_texts_addf(env, "NODE_RANK=%u", plan->rank);
    if (plan->interface[0] && !is_set(&spec->env, "GLOO_SOCKET_IFNAME"))
        spec_texts_addf(env, "GLOO_SOCKET_IFNAME=%s", plan->interface);
    if (plan->interface[0] && !is_set(&spec->env, "NCCL_SOCKET_IFNAME"))
        spec_texts_addf(env, "NCCL_SOCKET_IFNAME=%s", plan->interface);
}

static void add_process(const struct rank_plan *plan, uint32_t local, struct runtime_proc *proc)
{
    switch (plan->spec->launch) {
    case LAUNCH_NODE:
        proc->rank = plan->rank;
        spec_texts_addf(&proc->env, "RANK=%u", plan->rank);
        spec_texts_addf(&proc->env, "WORLD_SIZE=%u", plan->ranks);
        break;
    case LAUNCH_DEVICE:
        proc->rank = plan->rank * plan->device_count + local;
        spec_texts_addf(&proc->env, "RANK=%u", proc->rank);
        spec_texts_addf(&proc->env, "WORLD_SIZE=%u", plan->ranks * plan->device_count);
        spec_texts_addf(&proc->env, "LOCAL_RANK=%u", local);
        break;
    case LAUNCH_NONE: /* the user's launcher sets RANK, WORLD_SIZE and LOCAL_RANK */
        proc->rank = plan->rank;
        break;
    }
}

void rank_env_prepare(const struct rank_plan *plan, struct runtime_plan *out)
{
    uint32_t count = plan->spec->launch == LAUNCH_DEVICE ? plan->device_count : 1;

    BUG_ON(count == 0 || count > RUNTIME_MAX_PROCS);
    add_common(plan, &out->env);
    out->proc = mem_new(count, sizeof(out->proc[0]));
    out->proc_count = count;
    for (uint32_t i = 0; i < count; i++)
        add_process(plan, i, &out->proc[i]);
}

void rank_env_fini_procs(struct runtime_plan *plan)
{
    for (uint32_t i = 0; i < plan->proc_count; i++)
        spec_texts_fini(&plan->proc[i].env);
    free(plan->proc);
    plan->proc = NULL;
    plan->proc_count = 0;
    spec_texts_fini(&plan->env);
}

void rank_env_go(const struct rank_go *go, struct spec_texts *env)
{
    char price[MONEY_TEXT];
    struct buf list;

    buf_init(&list, 0);
    buf_puts(&list, "SHEAF_NODES_IPS=");
    for (uint32_t i = 0; i < go->ranks; i++)
        buf_printf(&list, "%s%s", i ? "\n" : "", go->address[i]);
    spec_texts_add(env, list.data);
    buf_clear(&list);
    /* One speed weight per rank; all equal until devices of a gang may differ. */
    buf_puts(&list, "SHEAF_RANK_WEIGHT=");
    for (uint32_t i = 0; i < go->ranks; i++)
        buf_puts(&list, i ? ",1" : "1");
    spec_texts_add(env, list.data);
    buf_fini(&list);
    spec_texts_addf(env, "SHEAF_PRICE_HOUR=%s", money_format(go->price, price));
    spec_texts_add(env, "SHEAF_PAIR_RTT_FILE=" PAIR_RTT_FILE);
    spec_texts_addf(env, "MASTER_ADDR=%s", go->address[0]);
    spec_texts_addf(env, "MASTER_PORT=%u", go->port[0]);
}

char *rank_env_pair_json(const uint32_t *pair_us, uint32_t ranks)
{
    struct buf text;

    buf_init(&text, 0);
    buf_printf(&text, "{\"ranks\":%u,\"unit\":\"us\",\"rtt\":[", ranks);
    for (uint32_t i = 0; i < ranks; i++) {
        buf_puts(&text, i ? ",[" : "[");
        for (uint32_t k = 0; k < ranks; k++)
            buf_printf(&text, "%s%u", k ? "," : "", pair_us ? pair_us[i * ranks + k] : 0);
        buf_puts(&text, "]");
    }
    buf_puts(&text, "]}\n");
    return buf_take(&text);
}

char *rank_env_script(const struct job_spec *spec)
{
    struct buf text;

    buf_init(&text, 0);
    buf_puts(&text, "");
    for (uint32_t i = 0; i < spec->commands.count; i++)
        buf_printf(&text, "%s\n", spec->commands.items[i]);
    return buf_take(&text);
}
