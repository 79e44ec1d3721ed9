#ifndef SHEAF_WORKER_CORE_AGENT_PRIVATE_H
#define SHEAF_WORKER_CORE_AGENT_PRIVATE_H

/* The agent's parts, for agent*.c and their tests alone. */
#include <event2/event.h>
#include <event2/listener.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/io/keys.h"
#include "common/io/loop.h"
#include "common/io/notify.h"
#include "common/pure/spec.h"
#include "proto/worker.pb-c.h"
#include "worker/core/agent.h"
#include "worker/core/background.h"
#include "worker/core/bulk.h"
#include "worker/core/cache.h"
#include "worker/core/claim.h"
#include "worker/core/home.h"
#include "worker/core/keep.h"
#include "worker/core/order.h"
#include "worker/core/session.h"
#include "worker/core/tasks.h"
#include "worker/core/transfer.h"
#include "worker/devices/devices.h"
#include "worker/images/images.h"
#include "worker/network/network.h"
#include "worker/runtime/runtime.h"

#define AGENT_MAX_EVENTS 256

struct agent;

/* The shell's part of a task. */
struct agent_task {
    struct agent *agent;
    struct task_id id;
    struct frame_arena arena; /* of order */
    Sheaf__Order *order;      /* the PREPARE */
    struct job_spec spec;
    bool usable; /* order and spec could be read again */
    char dir[FS_PATH];
    struct task *run;         /* of the runtime; NULL before and after */
    uint32_t port;            /* reserved; 0 before */
    uint32_t fetches_left;    /* input files on their way */
    uint64_t fetched_bytes;   /* at the last progress news */
    bool busy;                /* background work touches dir */
    bool loading;             /* that is the image's */
    struct image_facts image; /* once it is here */
    bool collecting;
    bool gone;           /* dropped while busy: freed when the work ends */
    uint32_t puts_left;  /* outputs on their way */
    uint32_t put_number; /* outputs packed so far */
};

/* An event that came while a step ran. */
struct agent_event {
    struct task_event event;
    char detail[256];
};

struct agent_selftest {
    bool wanted;
    bool has_result;
    uint64_t seed;
    struct selftest_result result;
};

struct agent_link {
    uint64_t node;
    char address[64];
    uint32_t rtt_p50_us;
    uint32_t rtt_p95_us;
    uint32_t loss_ppm;
    bool reach;
    bool declared;
};

/* What the orchestrator told of this node. */
struct agent_status {
    bool known;
    char state[24];
    char conditions[96];
    char reason[64];
    char detail[256];
    char tier[DEVICES_MAX][16];
    uint32_t measured_mib[DEVICES_MAX];
    micro_t price;
};

struct agent {
    const struct settings *settings; /* now */
    struct settings kept;
    struct config *config; /* NULL = never read again */
    const struct host_info *host;
    enum agent_mode mode;
    struct node_file node;
    struct owner_file owner;
    struct identity identity;
    struct order_trust trust;
    char address[64];
    char interface[16];
    uint32_t probe_port;
    int lock_fd;

    struct event_base *base;
    struct notify *manager; /* of services, when it started us */
    void *zmq;
    struct event *signals[3];
    struct event *second;  /* tick */
    struct event *receipt; /* every minute while something runs */
    struct event *usage;
    struct event *deadline; /* of AGENT_JOIN and AGENT_LEAVE */
    struct session_options session_options;
    struct session *session;
    struct bulk *bulk;
    struct transfers *transfers;
    struct background *background;
    struct runtime *runtime;
    struct images *images;         /* NULL: this node runs none */
    struct background *image_work; /* apart: a pull takes minutes */
    char runtimes[64];             /* "bwrap+podman": what is claimed */
    struct network *network;

    struct tasks tasks;
    struct keep *keep;
    struct agent_task *task[TASKS_MAX]; /* owned; NULL = free */
    struct agent_event event[AGENT_MAX_EVENTS];
    uint32_t event_first;
    uint32_t event_count;
    bool stepping;
    const void *order_bytes; /* of the order that is being handled */
    size_t order_size;
    uint64_t sent_seq; /* newest durable message sent in this session */
    uint32_t port_next;

    bool foreign[DEVICES_MAX];
    uint8_t foreign_clean[DEVICES_MAX]; /* samples without a foreign process in a row */
    struct device_usage sample[DEVICES_MAX];
    uint32_t sample_count;
    struct devices_job *usage_job;
    struct agent_selftest selftest[DEVICES_MAX];
    struct devices_job *selftest_job;
    uint32_t selftest_device;

    struct probe_peer peer[PROBE_MAX_PEERS]; /* all we answer */
    char peer_name[PROBE_MAX_PEERS][64];
    uint32_t peer_count;
    struct agent_link link[PROBE_MAX_PEERS];
    uint32_t link_count;

    int notify_fd; /* inotify over log folders; -1 = the tick has to do */
    struct event *notify;
    struct event *log_timer;
    bool log_due;

    struct evconnlistener *control;
    bool announced; /* the ready line was printed */
    bool draining;
    bool leaving;
    uint64_t leave_seq; /* its durable message; 0 = not sent */
    struct claim claim; /* of the newest hello */
    struct agent_status status;
    int rc; /* what agent_run returns */
    struct err err;
};

/* -- agent.c ----------------------------------------------------------------------------------- */
void agent_event(struct agent *agent, const struct task_event *event);
/* Adds a durable message, without committing it. */
void agent_message(struct agent *agent, Sheaf__Envelope *envelope);
/* Commits and sends what is due. Ends the program's loop when the disk refuses. */
void agent_commit(struct agent *agent);
void agent_end(struct agent *agent, int rc, const struct err *err);
/* Tells the task table why no new work is taken, if so. */
void agent_refresh_closed(struct agent *agent);
struct agent_task *agent_task_find(const struct agent *agent, uint64_t attempt, uint32_t epoch);

/* -- agent_orders.c ---------------------------------------------------------------------------- */
void agent_session_hooks(struct agent *agent, struct session_hooks *hooks);
void agent_notice(struct agent *agent, const char *verb, uint32_t device, bool foreign,
                  micro_t price, const char *detail);
void agent_pump(struct agent *agent);

/* -- agent_tasks.c ----------------------------------------------------------------------------- */
/* Makes the shell's part of a held task from its kept order. Never NULL. */
struct agent_task *agent_task_make(struct agent *agent, const struct task_id *id);
void agent_task_free(struct agent_task *task);
/* Makes the kept inputs fit their bound, with so many bytes to come. */
void agent_cache_trim(struct agent *agent, uint64_t coming);
/* Where an archive of this hash is kept. -ERR_IO: path too long. */
int agent_cache_path(const struct agent *agent, const uint8_t *sha256, char out[FS_PATH]);
void agent_perform(struct agent *agent, const struct task_action *action);
/* After a start: takes up what the journal holds. */
void agent_resume(struct agent *agent);
/* What is kept of inputs. */
struct cache_use agent_cache_use(const struct agent *agent);
/* Progress news of fetching tasks. */
void agent_progress(struct agent *agent);

/* -- agent_images.c ---------------------------------------------------------------------------- */
/* Finds out whether this node runs images. */
void agent_images_open(struct agent *agent);
void agent_images_close(struct agent *agent);
/* Brings the task's image here; then tells the task machine that all is fetched. */
void agent_image_later(struct agent_task *task);
/* What the image adds to the plan. */
void agent_image_plan(const struct agent_task *task, struct runtime_plan *plan);
/* What a dropped task leaves once its background work has ended. */
void agent_task_end_work(struct agent_task *task);

/* -- agent_logs.c ------------------------------------------------------------------------------ */
void agent_logs_init(struct agent *agent);
void agent_logs_fini(struct agent *agent);
void agent_logs_watch(struct agent *agent, const struct agent_task *task);
void agent_logs_pump(struct agent *agent, bool cut);
void agent_logs_rewind(struct agent *agent);
void agent_logs_ack(struct agent *agent, const Sheaf__LogAck *ack);

/* -- agent_devices.c --------------------------------------------------------------------------- */
void agent_usage_start(struct agent *agent);
/* With the interval as it is now. */
void agent_usage_again(struct agent *agent);
void agent_selftest_order(struct agent *agent, const Sheaf__SelfTest *order);
void agent_probe_order(struct agent *agent, const Sheaf__Probe *order);
bool agent_device_offered(const struct agent *agent, uint32_t ordinal);

/* -- agent_control.c --------------------------------------------------------------------------- */
int agent_control_open(struct agent *agent, struct err *err) SHEAF_MUST_USE;
void agent_control_close(struct agent *agent);
/* Goes on with a leave once nothing runs any more. */
void agent_leave_step(struct agent *agent);

#endif
