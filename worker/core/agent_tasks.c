/* What the task machine's actions do: files in, sandbox, barrier, outputs out. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/io/pack.h"
#include "common/io/spec_json.h"
#include "common/pure/mem.h"
#include "common/pure/units.h"
#include "worker/core/agent_private.h"
#include "worker/core/rank_env.h"

/* Processes and threads of one task; a training process with data loaders has some hundreds. */
#define TASK_PIDS 8192u
/* Fetch progress is news at most this often (seconds of the tick). */
#define PROGRESS_EVERY 10u

static void tell(struct agent_task *task, enum task_event_kind kind, enum err_code reason,
                 enum fail_class class, const char *detail)
{
    struct task_event event = {
        .kind = kind, .id = task->id, .reason = reason, .class = class, .detail = detail};

    agent_event(task->agent, &event);
}

/* -- the shell's part of a task ---------------------------------------------------------------- */

static void read_order(struct agent *agent, struct agent_task *task)
{
    const struct keep_task *keep = keep_task_find(agent->keep, task->id.attempt, task->id.epoch);
    const Sheaf__Prepare *prepare;
    struct err err = {0};

    frame_arena_init(&task->arena, FRAME_MAX_BUDGET);
    if (!keep || !keep->prepare)
        return;
    task->order = (Sheaf__Order *)frame_decode(&sheaf__order__descriptor, keep->prepare,
                                               keep->prepare_size, &task->arena);
    if (!task->order || task->order->what_case != SHEAF__ORDER__WHAT_PREPARE)
        return;
    prepare = task->order->prepare;
    task->usable =
        spec_parse(prepare->spec_json.data, prepare->spec_json.len, &task->spec, &err) == 0;
}

struct agent_task *agent_task_make(struct agent *agent, const struct task_id *id)
{
    struct rank_task *record = tasks_find(&agent->tasks, id->attempt, id->epoch);
    struct agent_task *task = agent_task_find(agent, id->attempt, id->epoch);
    char uid[2 * 16 + 1];
    uint32_t slot = 0;

    if (task)
        return task;
    while (slot < TASKS_MAX && agent->task[slot])
        slot++;
    /* Dropped tasks whose background work still runs hold a slot; there is one thread for it. */
    BUG_ON(slot == TASKS_MAX || !record);
    task = mem_new(1, sizeof(*task));
    agent->task[slot] = task;
    task->agent = agent;
    task->id = *id;
    /* Settings refused a state folder whose paths would not fit. */
    BUG_ON(fs_path(task->dir, "%s/tasks/%s-%u", agent->settings->state,
                   hex_format(record->attempt_uid, 16, uid), id->rank)
           != 0);
    task->port = record->port;
    read_order(agent, task);
    return task;
}

void agent_task_free(struct agent_task *task)
{
    if (!task)
        return;
    task_free(task->run);
    if (task->usable)
        spec_fini(&task->spec);
    image_facts_fini(&task->image);
    frame_arena_fini(&task->arena);
    free(task);
}

static void release_slot(struct agent_task *task)
{
    struct agent *agent = task->agent;

    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        if (agent->task[i] == task)
            agent->task[i] = NULL;
    }
    agent_task_free(task);
}

/* -- inputs ------------------------------------------------------------------------------------ */

int agent_cache_path(const struct agent *agent, const uint8_t *sha256, char out[FS_PATH])
{
    char hex[SHA256_HEX];

    return fs_path(out, "%s/cache/%s", agent->settings->state,
                   hex_format(sha256, SHA256_SIZE, hex));
}

static bool is_input_used(const uint8_t sha256[SHA256_SIZE], void *arg)
{
    const struct agent *agent = arg;

    for (uint32_t i = 0; i < agent->tasks.count; i++) {
        const struct rank_task *record = &agent->tasks.task[i];
        const struct agent_task *task =
            agent_task_find(agent, record->id.attempt, record->id.epoch);

        if (record->phase != TASK_PHASE_FETCHING || !task || !task->usable)
            continue; /* once unpacked it is not needed any more */
        for (uint32_t k = 0; k < spec_content_count(&task->spec); k++) {
            if (memcmp(spec_content(&task->spec, k), sha256, SHA256_SIZE) == 0)
                return true;
        }
    }
    return false;
}

void agent_cache_trim(struct agent *agent, uint64_t coming)
{
    uint64_t limit = agent->settings->cache_bytes;
    char folder[FS_PATH];

    BUG_ON(fs_path(folder, "%s/cache", agent->settings->state) != 0);
    (void)cache_trim(folder, limit > coming ? limit - coming : 0, is_input_used, agent);
}

struct cache_use agent_cache_use(const struct agent *agent)
{
    char folder[FS_PATH];

    BUG_ON(fs_path(folder, "%s/cache", agent->settings->state) != 0);
    return cache_measure(folder);
}

/* Checks and unpacks all inputs of a task; on the background thread. */
struct unpack_work {
    struct agent_task *task;
    struct err err;
    bool corrupt; /* the bytes, not this machine, are at fault */
};

static int unpack_file(struct unpack_work *work, const struct spec_file *file)
{
    const struct agent_task *task = work->task;
    uint8_t hash[SHA256_SIZE];
    uint64_t size = 0;
    char archive[FS_PATH];
    char target[FS_PATH];
    char *slash;
    int rc;

    if (agent_cache_path(task->agent, file->sha256, archive) != 0
        || fs_path(target, "%s%s", task->dir, file->path) != 0)
        return err_set(&work->err, ERR_IO, "the path %s is too long here", file->path);
    rc = sha256_file(archive, hash, &size, &work->err);
    if (rc == 0 && (size != file->size || !bytes_equal(hash, file->sha256, SHA256_SIZE))) {
        work->corrupt = true;
        (void)unlink(archive);
        return err_set(&work->err, ERR_HASH_MISMATCH, "%s does not have the SHA-256 declared",
                       file->path);
    }
    cache_touch(archive);
    slash = strrchr(target, '/');
    BUG_ON(!slash);
    *slash = '\0';
    if (rc == 0)
        rc = fs_mkdir(target, 0755, &work->err);
    if (rc == 0) {
        rc = unpack_tree(archive, target, PACK_MAX_BYTES, &work->err);
        work->corrupt = rc != 0 && rc != -ERR_IO && rc != -ERR_NO_SPACE;
    }
    return rc;
}

static void unpack_all(void *arg)
{
    struct unpack_work *work = arg;
    const struct agent_task *task = work->task;
    char folder[FS_PATH];
    int rc;

    rc = fs_remove_tree(task->dir, &work->err); /* of an earlier start of this worker */
    if (rc == 0 && fs_path(folder, "%s/job", task->dir) != 0)
        rc = err_set(&work->err, ERR_IO, "the state folder's path is too long");
    if (rc == 0)
        rc = fs_mkdir(folder, 0755, &work->err);
    for (uint32_t i = 0; rc == 0 && i < task->spec.file_count; i++)
        rc = unpack_file(work, &task->spec.files[i]);
    if (rc != 0 && work->err.code == ERR_NONE)
        (void)err_set(&work->err, (enum err_code) - rc, "inputs could not be unpacked");
}

static void remove_folder(const struct agent_task *task)
{
    struct err err = {0};

    if (fs_remove_tree(task->dir, &err) != 0)
        log_warn("task", "clean", "dir=%s detail=" LOG_Q, task->dir, err.text);
}

void agent_task_end_work(struct agent_task *task)
{
    remove_folder(task);
    release_slot(task);
}

static void unpacked(void *arg)
{
    struct unpack_work *work = arg;
    struct agent_task *task = work->task;

    task->busy = false;
    if (task->gone) {
        agent_task_end_work(task);
    } else if (work->err.code == ERR_NONE && task->spec.ask.image) {
        agent_image_later(task);
    } else if (work->err.code == ERR_NONE) {
        struct agent *agent = task->agent;

        tell(task, TASK_EV_FETCHED, ERR_NONE, FAIL_NONE, NULL);
        agent_cache_trim(agent, 0);
    } else {
        tell(task, TASK_EV_FAILED, work->corrupt ? ERR_INPUT_UNAVAILABLE : work->err.code,
             work->corrupt ? FAIL_USER : FAIL_PROVIDER, work->err.text);
    }
    free(work);
}

static void unpack_later(struct agent_task *task)
{
    struct unpack_work *work = mem_new(1, sizeof(*work));

    work->task = task;
    task->busy = true;
    background_run(task->agent->background, unpack_all, unpacked, work);
}

static void on_fetched(const struct err *err, void *arg)
{
    struct agent_task *task = arg;

    if (err) {
        transfer_cancel(task->agent->transfers, task);
        tell(task, TASK_EV_FAILED, err->code,
             err->code == ERR_INPUT_UNAVAILABLE ? FAIL_USER : FAIL_PLATFORM, err->text);
        return;
    }
    if (--task->fetches_left == 0)
        unpack_later(task);
}

/* Of a task's inputs, what is not here yet. */
static uint64_t missing_bytes(const struct agent *agent, const struct agent_task *task)
{
    uint64_t missing = 0;
    struct stat stat;
    char path[FS_PATH];

    for (uint32_t i = 0; i < spec_content_count(&task->spec); i++) {
        uint64_t size = spec_content_size(&task->spec, i);
        bool there = agent_cache_path(agent, spec_content(&task->spec, i), path) == 0
                     && lstat(path, &stat) == 0;
        uint64_t here = there ? (uint64_t)stat.st_size : 0;

        missing += here < size ? size - here : 0;
    }
    return missing;
}

static void do_fetch(struct agent *agent, struct agent_task *task)
{
    const Sheaf__Prepare *prepare;
    uint32_t count = task->usable ? spec_content_count(&task->spec) : 0;

    if (!task->usable) {
        tell(task, TASK_EV_FAILED, ERR_STATE_CORRUPT, FAIL_PROVIDER,
             "the kept order is unreadable");
        return;
    }
    prepare = task->order->prepare;
    if (count == 0) {
        unpack_later(task);
        return;
    }
    task->fetches_left = count;
    agent_cache_trim(agent, missing_bytes(agent, task)); /* room first */
    for (uint32_t i = 0; i < count; i++) {
        struct transfer_fetch fetch = {.size = spec_content_size(&task->spec, i)};

        memcpy(fetch.attempt_uid, prepare->attempt_uid.data, sizeof(fetch.attempt_uid));
        memcpy(fetch.sha256, spec_content(&task->spec, i), SHA256_SIZE);
        BUG_ON(agent_cache_path(agent, fetch.sha256, fetch.path) != 0);
        transfer_fetch(agent->transfers, &fetch, task, on_fetched, task);
    }
}

void agent_progress(struct agent *agent)
{
    static uint32_t seconds;

    if (++seconds % PROGRESS_EVERY != 0)
        return;
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        struct agent_task *task = agent->task[i];
        uint64_t bytes;

        if (!task || task->gone)
            continue;
        bytes = transfer_fetched(agent->transfers, task);
        if (task->busy || bytes > task->fetched_bytes)
            tell(task, TASK_EV_PROGRESS, ERR_NONE, FAIL_NONE,
                 task->loading ? "bringing the image"
                 : task->busy  ? "unpacking inputs"
                               : "fetching inputs");
        task->fetched_bytes = bytes;
    }
}

/* -- the sandbox ------------------------------------------------------------------------------- */

static bool port_is_free(uint32_t port)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    int off = 0;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_free;

    if (fd < 0) { /* a machine without IPv6 */
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        is_free = fd >= 0 && bind(fd, (const struct sockaddr *)(const void *)&v4, sizeof(v4)) == 0;
    } else {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
        is_free = bind(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) == 0;
    }
    if (fd >= 0)
        close(fd);
    return is_free;
}

static bool port_is_held(const struct agent *agent, uint32_t port)
{
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        if (agent->task[i] && agent->task[i]->run && agent->task[i]->port == port)
            return true;
    }
    return false;
}

/* 0 when the whole range is taken. The last port of the range answers reachability tests. */
static uint32_t reserve_port(struct agent *agent)
{
    uint32_t low = agent->settings->port_low;
    uint32_t count = agent->settings->port_high - low;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t port = low + (agent->port_next + i) % count;

        if (port_is_held(agent, port) || !port_is_free(port))
            continue;
        agent->port_next = port - low + 1;
        return port;
    }
    return 0;
}

static void on_ready(struct task *run, void *arg)
{
    struct agent_task *task = arg;
    struct task_event event = {.kind = TASK_EV_PREPARED, .id = task->id};

    (void)run;
    if (task->port == 0) /* the last start ended on the way here */
        task->port = reserve_port(task->agent);
    if (task->port == 0) {
        runtime_stop(task->run, true); /* its exit refuses the order */
        return;
    }
    event.port = task->port;
    agent_event(task->agent, &event);
}

static void on_started(struct task *run, void *arg)
{
    struct agent_task *task = arg;

    (void)run;
    tell(task, TASK_EV_STARTED, ERR_NONE, FAIL_NONE, NULL);
}

static void on_exit_hook(struct task *run, const struct runtime_exit *ended, void *arg)
{
    struct agent_task *task = arg;
    struct task_event event = {.kind = TASK_EV_EXITED, .id = task->id};
    char detail[256] = "";

    (void)run;
    event.exit_code = ended->code < 0 ? 255 : ended->code;
    event.oom = ended->oom;
    event.used_ms = ended->used_ms;
    event.broken = ended->failure[0] != '\0';
    if (event.broken)
        snprintf(detail, sizeof(detail), "%s", ended->failure);
    else if (task->usable && task->spec.launch == LAUNCH_DEVICE)
        snprintf(detail, sizeof(detail), "process rank %u", ended->rank);
    event.detail = detail;
    agent_event(task->agent, &event);
}

static struct task_hooks hooks_of(struct agent_task *task)
{
    struct task_hooks hooks = {
        .on_started = on_started, .on_exit = on_exit_hook, .arg = task, .on_ready = on_ready};

    return hooks;
}

static uint32_t smallest_vram(const struct agent *agent, const struct rank_task *record)
{
    uint32_t least = UINT32_MAX;

    for (uint32_t i = 0; i < record->device_count; i++) {
        uint32_t ordinal = record->device[i];
        uint32_t mib = agent->status.measured_mib[ordinal];

        if (mib == 0)
            mib = agent->host->device[ordinal].memory_mib;
        if (mib < least)
            least = mib;
    }
    return least;
}

static void plan_devices(const struct agent *agent, const struct rank_task *record,
                         struct runtime_plan *plan)
{
    const uint32_t limit = sizeof(plan->device_nodes) / sizeof(plan->device_nodes[0]);

    for (uint32_t i = 0; i < record->device_count; i++) {
        const struct device_info *device = &agent->host->device[record->device[i]];

        for (uint32_t k = 0; k < device->node_count && plan->device_node_count < limit; k++)
            plan->device_nodes[plan->device_node_count++] = device->nodes[k];
    }
    devices_environment(agent->host, record->device, record->device_count, &plan->env);
}

static void plan_limits(const struct agent *agent, const struct agent_task *task,
                        const struct rank_task *record, struct runtime_plan *plan)
{
    const struct job_ask *ask = &task->spec.ask;
    uint64_t all = (uint64_t)agent->host->memory_mib * MIB;

    plan->cpu_milli = ask->cpu_milli;
    plan->memory = ask->memory;
    if (plan->memory == 0 && agent->host->device_count > 0) /* a fair share, nine tenths of it */
        plan->memory = all / agent->host->device_count * record->device_count / 10 * 9;
    plan->shm = ask->shm;
    plan->pids = TASK_PIDS;
    plan->stop_grace_ms = ask->stop_duration_us / 1000;
    plan->log_limit = agent->settings->log_bytes;
    plan->filter = runtime_probed(agent->runtime)->filter;
}

static void plan_identity(const struct agent *agent, const struct agent_task *task,
                          const struct rank_task *record, struct runtime_plan *plan)
{
    const Sheaf__Prepare *prepare = task->order->prepare;
    struct uuid job;
    char job_id[UUID_TEXT];
    char uid[2 * 16 + 1];
    struct rank_plan rank = {
        .spec = &task->spec,
        .job_id = job_id,
        .job_name = prepare->job_name,
        .project = prepare->project,
        .epoch = task->id.epoch,
        .rank = task->id.rank,
        .ranks = prepare->ranks,
        .device_count = record->device_count,
        .vram_mib = smallest_vram(agent, record),
        .address = agent->address,
        .interface = agent->interface,
    };

    memcpy(job.bytes, record->job, sizeof(job.bytes));
    uuid_format(&job, job_id);
    rank_env_prepare(&rank, plan);
    snprintf(plan->dir, sizeof(plan->dir), "%s", task->dir);
    snprintf(plan->name, sizeof(plan->name), "sheaf-%s-%u",
             hex_format(record->attempt_uid, 16, uid), task->id.rank);
    /* Alone in its gang a task has no peers: to its own node it may speak anyway. */
    for (size_t i = 0;
         prepare->ranks > 1 && i < prepare->n_peers && plan->peer_count < RUNTIME_MAX_PEERS; i++)
        plan->peers[plan->peer_count++] = prepare->peers[i]->address;
}

static void do_prepare(struct agent *agent, struct agent_task *task)
{
    struct rank_task *record = tasks_find(&agent->tasks, task->id.attempt, task->id.epoch);
    struct runtime_plan *plan;
    struct task_hooks hooks = hooks_of(task);
    struct err err = {0};
    char *script;
    int rc;

    if (!record || record->phase != TASK_PHASE_PREPARING || task->run)
        return;
    task->port = reserve_port(agent);
    if (task->port == 0) {
        tell(task, TASK_EV_FAILED, ERR_NODE_REFUSED, FAIL_CAPACITY,
             "no free port in the task range");
        return;
    }
    plan = mem_new(1, sizeof(*plan));
    script = task->spec.commands.count > 0 || !task->spec.ask.image
                 ? rank_env_script(&task->spec)
                 : image_facts_script(&task->image);
    plan->script = script;
    if (task->spec.ask.image)
        agent_image_plan(task, plan);
    plan_identity(agent, task, record, plan);
    plan_devices(agent, record, plan);
    plan_limits(agent, task, record, plan);
    rc = runtime_prepare(agent->runtime, plan, &hooks, &task->run, &err);
    rank_env_fini_procs(plan);
    free(script);
    free(plan);
    if (rc != 0)
        tell(task, TASK_EV_FAILED, err.code != ERR_NONE ? err.code : ERR_NODE_REFUSED,
             FAIL_PROVIDER, err.text);
}

/* -- the barrier ------------------------------------------------------------------------------- */

static int release_with(struct agent_task *task, const Sheaf__Go *go, struct err *err)
{
    uint32_t ranks = task->order->prepare->ranks;
    const char *address[SPEC_MAX_NODES];
    uint32_t port[SPEC_MAX_NODES];
    struct rank_go facts = {address, port, ranks, go->price_micro};
    struct spec_texts env = {0};
    struct runtime_file files[] = {{"pair_rtt.json", NULL}, {NULL, NULL}};
    char *pairs;
    int rc;

    if (go->n_peers != ranks || ranks > SPEC_MAX_NODES || go->price_micro < 0
        || (go->n_pair_us != 0 && go->n_pair_us != (size_t)ranks * ranks))
        return err_set(err, ERR_WIRE_ORDER, "the order to go does not fit the one to prepare");
    for (uint32_t i = 0; i < ranks; i++) {
        if (go->peers[i]->rank != i || go->peers[i]->port > 65535)
            return err_set(err, ERR_WIRE_ORDER, "peers are not in rank order");
        address[i] = go->peers[i]->address;
        port[i] = go->peers[i]->port;
    }
    rank_env_go(&facts, &env);
    pairs = rank_env_pair_json(go->n_pair_us ? go->pair_us : NULL, ranks);
    files[0].text = pairs;
    rc = runtime_release(task->run, &env, files, err);
    free(pairs);
    spec_texts_fini(&env);
    return rc;
}

static void do_release(struct agent *agent, struct agent_task *task)
{
    const struct keep_task *keep = keep_task_find(agent->keep, task->id.attempt, task->id.epoch);
    struct frame_arena arena;
    const Sheaf__Order *order = NULL;
    struct err err = {0};
    int rc;

    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    if (keep && keep->go)
        order = (const Sheaf__Order *)frame_decode(&sheaf__order__descriptor, keep->go,
                                                   keep->go_size, &arena);
    if (!order || order->what_case != SHEAF__ORDER__WHAT_GO || !task->run || !task->usable)
        rc = err_set(&err, ERR_STATE_CORRUPT, "the kept order to go is unreadable");
    else
        rc = release_with(task, order->go, &err);
    frame_arena_fini(&arena);
    if (rc != 0)
        tell(task, TASK_EV_FAILED, err.code, FAIL_PROVIDER, err.text);
    else
        agent_logs_watch(agent, task);
}

/* -- outputs ----------------------------------------------------------------------------------- */

struct pack_item {
    char name[SPEC_PATH_TEXT];
    char archive[FS_PATH];
    uint8_t sha256[SHA256_SIZE];
    uint64_t size;
};

struct pack_work {
    struct agent_task *task;
    struct pack_item item[SPEC_MAX_OUTPUTS];
    uint32_t count;
    struct err err;
};

/* The task wrote this tree: no component of the way to an output may be a link out of it. */
static bool is_plain_folder(const char *dir, const char *path)
{
    char whole[FS_PATH];
    struct stat stat;
    size_t base = strlen(dir);

    if (fs_path(whole, "%s%s", dir, path) != 0)
        return false;
    for (size_t i = base + 1; whole[i - 1] != '\0'; i++) {
        char kept = whole[i];

        if (kept != '/' && kept != '\0')
            continue;
        whole[i] = '\0';
        if (lstat(whole, &stat) != 0 || !S_ISDIR(stat.st_mode))
            return false;
        if (kept == '\0')
            break;
        whole[i] = kept;
    }
    return true;
}

/* An empty folder is no result: it would cost a transfer and a commit of each job that has none. */
static bool is_empty(const char *dir, const char *path)
{
    char whole[FS_PATH];
    uint32_t count = 0;
    DIR *folder;

    if (fs_path(whole, "%s%s", dir, path) != 0)
        return false;
    folder = opendir(whole);
    if (!folder)
        return false;
    while (count <= 2 && readdir(folder) != NULL) /* "." and ".." */
        count++;
    closedir(folder);
    return count <= 2;
}

static void pack_all(void *arg)
{
    struct pack_work *work = arg;
    const struct agent_task *task = work->task;
    char folder[FS_PATH];

    if (fs_path(folder, "%s/packed", task->dir) != 0) {
        (void)err_set(&work->err, ERR_IO, "%s: path too long", task->dir);
        return;
    }
    for (uint32_t i = 0; i < task->spec.outputs.count && work->count < SPEC_MAX_OUTPUTS; i++) {
        struct pack_item *item = &work->item[work->count];
        const char *path = task->spec.outputs.items[i];
        const char *name = strrchr(path, '/');
        char source[FS_PATH];

        if (!is_plain_folder(task->dir, path) || is_empty(task->dir, path))
            continue; /* the task made nothing */
        snprintf(item->name, sizeof(item->name), "%s", path);
        if (fs_path(source, "%s%s", task->dir, path) != 0
            || fs_path(item->archive, "%s/%u.tar.zst", folder, i) != 0) {
            (void)err_set(&work->err, ERR_IO, "%s: path too long", path);
            return;
        }
        if (fs_mkdir(folder, 0700, &work->err) != 0
            || pack_tree(source, name ? name + 1 : path, item->archive, &work->err) != 0
            || sha256_file(item->archive, item->sha256, &item->size, &work->err) != 0)
            return;
        work->count++;
    }
}

/* Too much is the tenant's doing; the rest is this machine's or its way to the gateway. */
static void lose_outputs(struct agent_task *task, const struct err *err)
{
    bool tenant = err->code == ERR_BODY_TOO_LARGE || err->code == ERR_TOO_MANY;
    char detail[256];

    snprintf(detail, sizeof(detail), "%s: %.200s", err_slug(err->code), err->text);
    tell(task, TASK_EV_OUTPUTS_LOST, ERR_NONE, tenant ? FAIL_USER : FAIL_PROVIDER, detail);
}

static void on_stored(const struct err *err, void *arg)
{
    struct agent_task *task = arg;

    if (err) {
        transfer_cancel(task->agent->transfers, task);
        lose_outputs(task, err);
    } else if (--task->puts_left == 0) {
        tell(task, TASK_EV_OUTPUTS, ERR_NONE, FAIL_NONE, NULL);
    }
}

static void send_packed(struct pack_work *work)
{
    struct agent_task *task = work->task;

    task->puts_left = work->count;
    if (work->count == 0)
        tell(task, TASK_EV_OUTPUTS, ERR_NONE, FAIL_NONE, NULL);
    for (uint32_t i = 0; i < work->count; i++) {
        const struct pack_item *item = &work->item[i];
        struct transfer_put put = {.size = item->size, .rank = task->id.rank};

        memcpy(put.attempt_uid, task->order->prepare->attempt_uid.data, sizeof(put.attempt_uid));
        memcpy(put.sha256, item->sha256, SHA256_SIZE);
        snprintf(put.path, sizeof(put.path), "%s", item->archive);
        snprintf(put.name, sizeof(put.name), "%s", item->name);
        transfer_put(task->agent->transfers, &put, task, on_stored, task);
    }
}

static void packed(void *arg)
{
    struct pack_work *work = arg;
    struct agent_task *task = work->task;

    task->busy = false;
    if (task->gone) {
        remove_folder(task);
        release_slot(task);
    } else if (work->err.code != ERR_NONE) {
        lose_outputs(task, &work->err);
    } else {
        send_packed(work);
    }
    free(work);
}

static void do_collect(struct agent *agent, struct agent_task *task)
{
    struct pack_work *work;

    task->collecting = true;
    agent_logs_watch(agent, task);
    agent_logs_pump(agent, true);
    if (!task->usable) {
        tell(task, TASK_EV_OUTPUTS_LOST, ERR_NONE, FAIL_PROVIDER, "the kept order is unreadable");
        tell(task, TASK_EV_LOGS, ERR_NONE, FAIL_NONE, NULL);
        return;
    }
    work = mem_new(1, sizeof(*work));
    work->task = task;
    task->busy = true;
    background_run(agent->background, pack_all, packed, work);
}

/* -- the end ----------------------------------------------------------------------------------- */

static void do_clean(struct agent *agent, struct agent_task *task)
{
    transfer_cancel(agent->transfers, task);
    task->collecting = false;
    if (task->run) {
        runtime_clean(task->run, false);
        task_free(task->run);
        task->run = NULL;
    }
    if (!task->busy)
        remove_folder(task);
}

static void do_drop(struct agent_task *task)
{
    if (task->busy)
        task->gone = true; /* the background work frees it */
    else
        release_slot(task);
}

void agent_perform(struct agent *agent, const struct task_action *action)
{
    struct agent_task *task = agent_task_find(agent, action->id.attempt, action->id.epoch);

    if (!task && action->kind != TASK_ACT_FETCH)
        return;
    switch (action->kind) {
    case TASK_ACT_FETCH:
        do_fetch(agent, agent_task_make(agent, &action->id));
        break;
    case TASK_ACT_PREPARE:
        do_prepare(agent, task);
        break;
    case TASK_ACT_RELEASE:
        do_release(agent, task);
        break;
    case TASK_ACT_STOP:
    case TASK_ACT_KILL:
        if (task->run)
            runtime_stop(task->run, action->kind == TASK_ACT_KILL);
        break;
    case TASK_ACT_COLLECT:
        do_collect(agent, task);
        break;
    case TASK_ACT_CLEAN:
        do_clean(agent, task);
        break;
    case TASK_ACT_DROP:
        do_drop(task);
        break;
    case TASK_ACT_SAVE:
    case TASK_ACT_NEWS:
    case TASK_ACT_RECEIPT:
    case TASK_ACT_COUNT:
        break;
    }
}

/* -- after a start ----------------------------------------------------------------------------- */

static void adopt(struct agent *agent, struct agent_task *task, enum task_phase phase)
{
    struct task_hooks hooks = hooks_of(task);
    struct err err = {0};

    if (runtime_adopt(agent->runtime, task->dir, &hooks, &task->run, &err) != 0) {
        log_warn("task", "lost", "attempt=%llu detail=" LOG_Q, (unsigned long long)task->id.attempt,
                 err.text);
        tell(task, TASK_EV_LOST, ERR_NONE, FAIL_NONE, NULL);
        return;
    }
    log_info("task", "adopted", "attempt=%llu epoch=%u phase=%s",
             (unsigned long long)task->id.attempt, task->id.epoch, task_phase_name(phase));
    /* The supervisor tells again how far it is. A release that the last start recorded may not have
     * reached it; a second one does no harm. */
    if (phase == TASK_PHASE_RELEASED)
        do_release(agent, task);
    if (phase >= TASK_PHASE_RELEASED)
        agent_logs_watch(agent, task);
}

/* What a task was in the middle of when the last start ended. */
static void resume_stop(struct agent *agent, const struct task_id *id)
{
    const struct rank_task *record = tasks_find(&agent->tasks, id->attempt, id->epoch);
    struct agent_task *task = agent_task_find(agent, id->attempt, id->epoch);

    if (!record || !task || !task->run)
        return;
    if (record->forgotten || record->stopping)
        runtime_stop(task->run, record->forgotten || record->phase <= TASK_PHASE_READY);
}

/* Whether a task that is not over lives in that folder. */
static bool is_owned(const struct agent *agent, const char *dir)
{
    for (uint32_t i = 0; i < agent->tasks.count; i++) {
        const struct rank_task *record = &agent->tasks.task[i];
        const struct agent_task *task =
            agent_task_find(agent, record->id.attempt, record->id.epoch);

        if (task && record->phase < TASK_PHASE_DONE && strcmp(task->dir, dir) == 0)
            return true;
    }
    return false;
}

/* The last start may have ended between the record that a task is over and its cleaning. */
static void sweep(const struct agent *agent)
{
    char folder[FS_PATH];
    char dir[FS_PATH];
    DIR *tasks;

    BUG_ON(fs_path(folder, "%s/tasks", agent->settings->state) != 0);
    tasks = opendir(folder);
    if (!tasks)
        return; /* home_open() made it; without it there is nothing to sweep */
    for (const struct dirent *entry = readdir(tasks); entry; entry = readdir(tasks)) {
        if (entry->d_name[0] == '.' || fs_path(dir, "%s/%s", folder, entry->d_name) != 0
            || is_owned(agent, dir))
            continue;
        log_info("task", "swept", "dir=" LOG_Q, dir);
        runtime_sweep(dir);
    }
    closedir(tasks);
}

void agent_resume(struct agent *agent)
{
    struct task_id ids[TASKS_MAX];
    enum task_phase phases[TASKS_MAX];
    uint32_t count = agent->tasks.count;

    tasks_resume(&agent->tasks, clock_mono_us());
    for (uint32_t i = 0; i < count; i++) { /* the table changes on the way */
        ids[i] = agent->tasks.task[i].id;
        phases[i] = agent->tasks.task[i].phase;
        (void)agent_task_make(agent, &ids[i]);
    }
    sweep(agent);
    agent_cache_trim(agent, 0);
    for (uint32_t i = 0; i < count; i++) {
        struct agent_task *task = agent_task_find(agent, ids[i].attempt, ids[i].epoch);

        if (!task)
            continue;
        if (phases[i] == TASK_PHASE_FETCHING)
            do_fetch(agent, task);
        else if (phases[i] >= TASK_PHASE_PREPARING && phases[i] <= TASK_PHASE_STARTED)
            adopt(agent, task, phases[i]);
        else if (phases[i] == TASK_PHASE_COLLECTING)
            do_collect(agent, task);
        resume_stop(agent, &ids[i]);
    }
}
