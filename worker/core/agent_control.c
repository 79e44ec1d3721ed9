/*
 * The owner's socket, STATE/control.sock: one JSON line in, one JSON line out. Only who may enter
 * the state folder may connect.
 */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/io/json.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "worker/core/agent_private.h"

#define CONTROL_MAX_LINE 4096
#define CONTROL_WAIT_S   30

/* -- status ------------------------------------------------------------------------------------ */

static json_t *tasks_json(const struct agent *agent)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < agent->tasks.count; i++) {
        const struct rank_task *task = &agent->tasks.task[i];
        const struct agent_task *shell = NULL;
        json_t *item = json_object();

        for (uint32_t k = 0; k < TASKS_MAX && !shell; k++) {
            if (agent->task[k] && agent->task[k]->id.attempt == task->id.attempt
                && agent->task[k]->id.epoch == task->id.epoch)
                shell = agent->task[k];
        }
        json_object_set_new(item, "job", json_uuid(task->job));
        json_object_set_new(item, "name",
                            json_string(shell && shell->usable ? shell->spec.name : ""));
        json_object_set_new(item, "rank", json_integer(task->id.rank));
        json_object_set_new(item, "epoch", json_integer(task->id.epoch));
        json_object_set_new(item, "phase", json_string(task_phase_name(task->phase)));
        json_object_set_new(item, "exit_code", json_integer(task->exit_code));
        json_object_set_new(
            item, "used_ms",
            json_integer(
                (json_int_t)(shell && shell->run ? runtime_used_ms(shell->run) : task->used_ms)));
        json_array_append_new(list, item);
    }
    return list;
}

static json_t *devices_json(const struct agent *agent)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < agent->host->device_count; i++) {
        const struct device_info *device = &agent->host->device[i];
        json_t *item = json_object();

        json_object_set_new(item, "ordinal", json_integer(i));
        json_object_set_new(item, "model", json_string(device->model));
        json_object_set_new(item, "class", json_string(device->gpu ? "gpu" : "cpu"));
        json_object_set_new(item, "memory_mib", json_integer(device->memory_mib));
        json_object_set_new(item, "measured_mib", json_integer(agent->status.measured_mib[i]));
        json_object_set_new(item, "tier", json_string(agent->status.tier[i]));
        json_object_set_new(item, "offered", json_boolean(agent_device_offered(agent, i)));
        json_object_set_new(item, "foreign", json_boolean(agent->foreign[i]));
        json_object_set_new(item, "in_use", json_boolean(tasks_use_device(&agent->tasks, i)));
        json_array_append_new(list, item);
    }
    return list;
}

static json_t *links_json(const struct agent *agent)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < agent->link_count; i++) {
        const struct agent_link *link = &agent->link[i];
        json_t *item = json_object();

        json_object_set_new(item, "address", json_string(link->address));
        json_object_set_new(item, "rtt_p50_us", json_integer(link->rtt_p50_us));
        json_object_set_new(item, "rtt_p95_us", json_integer(link->rtt_p95_us));
        json_object_set_new(item, "loss_ppm", json_integer(link->loss_ppm));
        json_object_set_new(item, "reach", json_boolean(link->reach));
        json_object_set_new(item, "declared", json_boolean(link->declared));
        json_array_append_new(list, item);
    }
    return list;
}

static json_t *cache_json(const struct agent *agent)
{
    struct cache_use use = agent_cache_use(agent);
    json_t *value = json_object();

    json_object_set_new(value, "bytes", json_integer((json_int_t)use.bytes));
    json_object_set_new(value, "files", json_integer(use.files));
    json_object_set_new(value, "limit", json_integer((json_int_t)agent->settings->cache_bytes));
    return value;
}

static json_t *status_json(struct agent *agent)
{
    json_t *value = json_object();

    json_object_set_new(value, "node", json_uuid(agent->node.node.bytes));
    json_object_set_new(value, "name", json_string(agent->node.name));
    json_object_set_new(value, "pid", json_integer(getpid()));
    json_object_set_new(value, "connected", json_boolean(session_is_up(agent->session)));
    json_object_set_new(value, "state",
                        json_string(agent->status.known ? agent->status.state : "offline"));
    json_object_set_new(value, "conditions", json_string(agent->status.conditions));
    json_object_set_new(value, "reason", json_string(agent->status.reason));
    json_object_set_new(value, "detail", json_string(agent->status.detail));
    json_object_set_new(value, "paused", json_boolean(agent->owner.paused));
    json_object_set_new(value, "draining", json_boolean(agent->draining));
    json_object_set_new(value, "address", json_string(agent->address));
    json_object_set_new(value, "interface", json_string(agent->interface));
    json_object_set_new(value, "runtime", json_string(agent->runtimes));
    json_object_set_new(
        value, "price_per_hour",
        json_money(agent->owner.has_price ? agent->owner.price : agent->settings->price));
    json_object_set_new(value, "unacknowledged", json_integer(keep_message_count(agent->keep)));
    json_object_set_new(value, "bulk", json_boolean(bulk_is_up(agent->bulk)));
    json_object_set_new(value, "version", json_string(SHEAF_VERSION));
    json_object_set_new(value, "cache", cache_json(agent));
    json_object_set_new(value, "devices", devices_json(agent));
    json_object_set_new(value, "tasks", tasks_json(agent));
    json_object_set_new(value, "links", links_json(agent));
    return value;
}

/* -- verbs ------------------------------------------------------------------------------------- */

static json_t *refusal(const char *text)
{
    json_t *value = json_object();

    json_object_set_new(value, "error", json_string(text));
    return value;
}

static json_t *done(const char *text)
{
    json_t *value = json_object();

    json_object_set_new(value, "done", json_string(text));
    return value;
}

static json_t *set_owner(struct agent *agent, const struct owner_file *owner, const char *verb,
                         const char *text)
{
    struct err err = {0};

    if (home_save_owner(agent->settings, owner, &err) != 0)
        return refusal(err.text);
    agent->owner = *owner;
    agent_refresh_closed(agent);
    agent_notice(agent, verb, 0, false, owner->has_price ? owner->price : 0, "owner");
    agent_commit(agent);
    return done(text);
}

/* The notice runs here too: it holds while the orchestrator cannot be reached. */
static json_t *do_pause(struct agent *agent, bool paused)
{
    struct owner_file owner = agent->owner;
    json_t *answer;

    owner.paused = paused;
    answer = set_owner(agent, &owner, paused ? "pause" : "resume",
                       paused ? "no new work; running jobs end after the notice time"
                              : "new work is taken again");
    if (json_object_get(answer, "error"))
        return answer;
    for (uint32_t i = agent->tasks.count; i-- > 0;) {
        struct task_event event = {.kind = paused ? TASK_EV_RECLAIM : TASK_EV_RELENT,
                                   .id = agent->tasks.task[i].id,
                                   .detail = "the owner paused the machine",
                                   .notice_us = clock_mono_us()
                                                + (int64_t)agent->settings->notice_s * 1000000};

        agent_event(agent, &event);
    }
    return answer;
}

static json_t *do_price(struct agent *agent, const json_t *request)
{
    struct owner_file owner = agent->owner;
    const char *text = json_text(request, "price");

    if (!text || money_parse(text, &owner.price) != 0)
        return refusal("the price is not an amount, e.g. 0.40");
    owner.has_price = true;
    return set_owner(agent, &owner, "price", "the price holds for jobs placed from now on");
}

static json_t *do_drain(struct agent *agent, bool drain)
{
    agent_notice(agent, drain ? "drain" : "undrain", 0, false, 0, "owner");
    agent_commit(agent);
    return done(drain ? "no new work; the node is drained when running jobs have ended"
                      : "new work is taken again");
}

static json_t *serve(struct agent *agent, const json_t *request)
{
    const char *verb = json_text(request, "verb");

    if (!verb)
        return refusal("no verb");
    if (strcmp(verb, "status") == 0)
        return status_json(agent);
    if (strcmp(verb, "pause") == 0 || strcmp(verb, "resume") == 0)
        return do_pause(agent, strcmp(verb, "pause") == 0);
    if (strcmp(verb, "price") == 0)
        return do_price(agent, request);
    if (strcmp(verb, "drain") == 0 || strcmp(verb, "undrain") == 0)
        return do_drain(agent, strcmp(verb, "drain") == 0);
    if (strcmp(verb, "leave") == 0) {
        if (!agent->leaving) {
            agent->leaving = true;
            agent_refresh_closed(agent);
            agent_notice(agent, "drain", 0, false, 0, "leave");
            agent_commit(agent);
        }
        agent_leave_step(agent);
        return done("draining; this node leaves when its jobs have ended");
    }
    return refusal("unknown verb");
}

void agent_leave_step(struct agent *agent)
{
    struct err err = {0};

    if (!agent->leaving || !agent->session || !session_is_up(agent->session) || agent->stepping)
        return;
    if (agent->leave_seq == 0 && tasks_live(&agent->tasks) == 0) {
        agent->leave_seq = keep_message_next_seq(agent->keep);
        agent_notice(agent, "leave", 0, false, 0, "owner");
        agent_commit(agent);
        return;
    }
    /*
     * Its status comes before the acknowledgement, and a node that is gone has no session any more
     * that could bring one.
     */
    if (agent->leave_seq == 0
        || (keep_counters(agent->keep)->acked_seq < agent->leave_seq
            && strcmp(agent->status.state, "gone") != 0))
        return;
    if (home_retire(agent->settings, &err) != 0) {
        agent_end(agent, -(int)err.code, &err);
        return;
    }
    printf("sheaf-worker left node=%s\n", agent->node.name);
    fflush(stdout);
    agent_end(agent, 0, NULL);
}

/* -- the socket -------------------------------------------------------------------------------- */

static void on_flushed(struct bufferevent *client, void *arg)
{
    (void)arg;
    bufferevent_free(client);
}

static void on_event(struct bufferevent *client, short what, void *arg)
{
    (void)what;
    (void)arg;
    bufferevent_free(client);
}

static void on_line(struct bufferevent *client, void *arg)
{
    struct agent *agent = arg;
    struct evbuffer *input = bufferevent_get_input(client);
    size_t length = 0;
    char *line = evbuffer_readln(input, &length, EVBUFFER_EOL_LF);
    json_t *request = NULL;
    json_t *answer;
    struct err err = {0};
    char *text;

    if (!line) {
        if (evbuffer_get_length(input) > CONTROL_MAX_LINE)
            bufferevent_free(client);
        return;
    }
    if (json_read(line, length, &request, &err) != 0)
        answer = refusal(err.text);
    else
        answer = serve(agent, request);
    text = json_write(answer);
    /* The only write: the client is closed once it is out. */
    bufferevent_setcb(client, NULL, on_flushed, on_event, agent);
    evbuffer_add_printf(bufferevent_get_output(client), "%s\n", text);
    bufferevent_disable(client, EV_READ);
    free(text);
    json_decref(answer);
    if (request)
        json_decref(request);
    free(line);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int length, void *arg)
{
    struct agent *agent = arg;
    struct bufferevent *client = bufferevent_socket_new(agent->base, fd, BEV_OPT_CLOSE_ON_FREE);
    struct timeval wait = {.tv_sec = CONTROL_WAIT_S};

    (void)listener;
    (void)address;
    (void)length;
    if (!client) {
        close(fd);
        return;
    }
    bufferevent_set_timeouts(client, &wait, &wait);
    bufferevent_setcb(client, on_line, NULL, on_event, agent);
    bufferevent_enable(client, EV_READ | EV_WRITE);
}

/* A socket path has 107 characters at most. */
static int socket_address(const struct settings *settings, struct sockaddr_un *ret_address,
                          struct err *err)
{
    char path[FS_PATH];
    int rc = settings_path(settings, "control.sock", path, err);

    if (rc != 0)
        return rc;
    memset(ret_address, 0, sizeof(*ret_address));
    ret_address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(ret_address->sun_path))
        return err_set(err, ERR_CONFIG_INVALID, "state: %s is longer than a socket's path may be",
                       path);
    memcpy(ret_address->sun_path, path, strlen(path) + 1);
    return 0;
}

int agent_control_open(struct agent *agent, struct err *err)
{
    struct sockaddr_un address;
    int rc = socket_address(agent->settings, &address, err);

    if (rc != 0)
        return rc;
    (void)unlink(address.sun_path); /* ours: we hold the lock */
    agent->control = evconnlistener_new_bind(
        agent->base, on_accept, agent, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 8,
        (const struct sockaddr *)(const void *)&address, sizeof(address));
    if (!agent->control)
        return err_set(err, ERR_IO, "%s: %s", address.sun_path, strerror(errno));
    (void)chmod(address.sun_path, 0600);
    return 0;
}

void agent_control_close(struct agent *agent)
{
    char path[FS_PATH];

    if (!agent->control)
        return;
    evconnlistener_free(agent->control);
    agent->control = NULL;
    if (settings_path(agent->settings, "control.sock", path, NULL) == 0)
        (void)unlink(path);
}
