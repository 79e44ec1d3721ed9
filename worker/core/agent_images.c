/* Images: whether this node runs them, and bringing one here for a task. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/hash.h"
#include "common/io/log.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"
#include "worker/core/agent_private.h"

void agent_images_open(struct agent *agent)
{
    const struct settings *settings = agent->settings;
    const struct runtime_probe *probe = runtime_probed(agent->runtime);
    const struct images_options options = {.state = settings->state,
                                           .cgroup = probe->cgroup,
                                           .limit = settings->image_cache,
                                           .registries = settings->image_registries};
    struct err err = {0};

    snprintf(agent->runtimes, sizeof(agent->runtimes), "%s", probe->runtime);
    if (settings->unsafe_process || settings->image_cache == 0)
        return;
    if (images_new(&options, &agent->images, &err) != 0) {
        log_info("images", "none", "reason=" LOG_Q, err.text);
        return;
    }
    agent->image_work = background_new(agent->base);
    snprintf(agent->runtimes, sizeof(agent->runtimes), "%s+" SPEC_IMAGE_RUNTIME, probe->runtime);
}

void agent_images_close(struct agent *agent)
{
    if (agent->images == NULL)
        return;
    images_stop(agent->images);
    background_free(agent->image_work);
    images_free(agent->images);
    agent->images = NULL;
}

struct image_job {
    struct agent_task *task;
    struct image_facts facts;
    int rc;
    struct err err; /* with rc != 0 */
};

static int check_archive(const struct spec_image *image, const char *path, struct err *err)
{
    uint8_t hash[SHA256_SIZE];
    uint64_t size;
    int rc = sha256_file(path, hash, &size, err);

    if (rc == 0 && (size != image->size || !bytes_equal(hash, image->sha256, SHA256_SIZE)))
        rc = err_set(err, ERR_HASH_MISMATCH, "the image does not have the SHA-256 declared");
    return rc;
}

static void get_image(void *arg)
{
    struct image_job *job = arg;
    const struct agent_task *task = job->task;
    const struct spec_image *image = &task->spec.image;
    char path[FS_PATH];
    int rc = 0;

    if (image->archive) {
        BUG_ON(agent_cache_path(task->agent, image->sha256, path) != 0);
        rc = check_archive(image, path, &job->err);
    }
    if (rc == 0)
        rc = images_get(task->agent->images, image, image->archive ? path : NULL, &job->facts,
                        &job->err);
    if (rc == 0 && task->spec.commands.count == 0 && job->facts.argv.count == 0)
        rc = err_set(&job->err, ERR_IMAGE_UNUSABLE,
                     "the image names no program; give the job commands");
    job->rc = rc;
}

static enum fail_class blame(enum err_code code)
{
    switch ((int)code) {
    case ERR_IMAGE_UNUSABLE:
        return FAIL_USER;
    case ERR_IMAGE_UNAVAILABLE:
    case ERR_NO_SPACE: /* another node may have room, or reach the registry */
        return FAIL_CAPACITY;
    case ERR_HASH_MISMATCH:
        return FAIL_PLATFORM;
    default:
        return FAIL_PROVIDER;
    }
}

static void got_image(void *arg)
{
    struct image_job *job = arg;
    struct agent_task *task = job->task;
    struct task_event event = {.kind = TASK_EV_FETCHED, .id = task->id};

    task->busy = false;
    task->loading = false;
    if (task->gone) {
        image_facts_fini(&job->facts);
        agent_task_end_work(task);
        free(job);
        return;
    }
    image_facts_fini(&task->image);
    task->image = job->facts;
    if (job->rc != 0) {
        event.kind = TASK_EV_FAILED;
        event.reason = job->err.code;
        event.class = blame(job->err.code);
        event.detail = job->err.text;
    }
    /* The worker ends: its next start fetches again. */
    if (job->rc != -ERR_INTERRUPTED) {
        struct agent *agent = task->agent;

        agent_event(agent, &event);
        agent_cache_trim(agent, 0);
    }
    free(job);
}

void agent_image_later(struct agent_task *task)
{
    struct image_job *job;

    if (task->agent->images == NULL) {
        const struct task_event event = {.kind = TASK_EV_FAILED,
                                         .id = task->id,
                                         .reason = ERR_RUNTIME_MISSING,
                                         .class = FAIL_CAPACITY,
                                         .detail = "this node runs no images any more"};

        agent_event(task->agent, &event);
        return;
    }
    job = mem_new(1, sizeof(*job));
    job->task = task;
    job->rc = -ERR_INTERRUPTED; /* until the work has begun */
    task->busy = true;
    task->loading = true;
    background_run(task->agent->image_work, get_image, got_image, job);
}

void agent_image_plan(const struct agent_task *task, struct runtime_plan *plan)
{
    plan->image = task->image.id;
    plan->podman = images_folder(task->agent->images);
    for (uint32_t i = 0; i < task->image.env.count; i++)
        spec_texts_add(&plan->env, task->image.env.items[i]);
}
