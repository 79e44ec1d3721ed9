#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "orchestrator/fleet/fleet_private.h"

static void verdict_job_free(struct verdict_job *job)
{
    free(job->bytes);
    free(job);
}

static void come_back(struct fleet *fleet)
{
    static const struct timeval now = {0, 0};

    BUG_ON(event_add(fleet->verdict_timer, &now) != 0);
}

static void post_verdict(struct fleet *fleet, const struct verdict_job *job)
{
    struct session *session = sessions_of(fleet->sessions, job->node);
    struct worker_frame frame = {
        .node = job->node, .seq = job->seq, .bytes = job->bytes, .size = job->size};

    if (session == NULL)
        return; /* the key was revoked meanwhile */
    log_info("fleet", "selftest", "node=%llu device=%u passed=%d mib=%u detail=" LOG_Q,
             (unsigned long long)job->node, job->device, job->verdict.passed,
             job->verdict.measured_mib, job->verdict.detail);
    (void)workers_post(fleet, session,
                       from_worker_verdict(&frame, job->device, job->matmul_gflops, job->copy_mib_s,
                                           &job->verdict));
}

/* One step of the oldest result per loop turn: sockets go first. */
static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct fleet *fleet = arg;
    struct verdict_job *job = fleet->verdict_head;

    (void)fd;
    (void)what;
    if (job == NULL)
        return;
    if (verdict_step(&job->verdict)) {
        fleet->verdict_head = job->next;
        if (job->next == NULL)
            fleet->verdict_tail = NULL;
        fleet->verdict_count--;
        post_verdict(fleet, job);
        verdict_job_free(job);
    }
    if (fleet->verdict_head)
        come_back(fleet);
}

void selftests_open(struct fleet *fleet)
{
    fleet->verdict_timer = evtimer_new(fleet->options.base, on_turn, fleet);
    BUG_ON(fleet->verdict_timer == NULL);
}

uint64_t selftests_seed(struct session *session, uint32_t device)
{
    struct session_seed *seed = &session->seed[device];

    if (!seed->asked) {
        random_bytes(&seed->seed, sizeof(seed->seed));
        seed->asked = true;
    }
    return seed->seed;
}

int selftests_take(struct fleet *fleet, struct session *session, const struct worker_frame *frame,
                   const Sheaf__SelfTestResult *result, struct err *err)
{
    const struct device_row *device;
    struct session_seed *seed;
    struct verdict_job *job;
    struct verdict verdict;
    int rc = from_worker_selftest(result, &verdict, err);

    if (rc)
        return rc;
    seed = &session->seed[result->device];
    if (!seed->asked || seed->seed != result->seed)
        return err_set(err, ERR_WIRE_FENCE, "no self-test with this seed was ordered");
    if (fleet->verdict_count >= FLEET_MAX_VERDICTS)
        return err_set(err, ERR_TOO_MANY, "too many self-tests at once");
    seed->asked = false;
    device = world_device(engine_world(fleet->engine), frame->node, result->device);
    verdict.claimed_mib = device ? device->nominal_mib : 0;
    job = mem_new(1, sizeof(*job));
    job->verdict = verdict;
    job->node = frame->node;
    job->seq = frame->seq;
    job->device = result->device;
    job->matmul_gflops = result->matmul_gflops;
    job->copy_mib_s = result->copy_mib_s;
    job->bytes = mem_new(frame->size, 1);
    memcpy(job->bytes, frame->bytes, frame->size);
    job->size = frame->size;
    if (fleet->verdict_tail)
        fleet->verdict_tail->next = job;
    else
        fleet->verdict_head = job;
    fleet->verdict_tail = job;
    fleet->verdict_count++;
    come_back(fleet);
    return 0;
}

void selftests_free(struct fleet *fleet)
{
    while (fleet->verdict_head) {
        struct verdict_job *job = fleet->verdict_head;

        fleet->verdict_head = job->next;
        verdict_job_free(job);
    }
    if (fleet->verdict_timer)
        event_free(fleet->verdict_timer);
}
