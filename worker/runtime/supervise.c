#include "worker/runtime/supervise.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/io/json.h"
#include "common/pure/mem.h"
#include "worker/runtime/supervise_private.h"

/* The gang stops within 5 s of its first failure; the node keeps two of them for the rest. */
#define FAIL_GRACE_MS 3000u
/* From SIGKILL of everything to giving up on an orderly report. */
#define LINGER_MS 2000u
/* The kernel frees a group some milliseconds after its last process; no event tells when. */
#define REMOVE_EVERY_MS 5u
#define REMOVE_TRIES    400u
/* A process that sleeps in the kernel may outlast any signal: 10 s, then it is left. */
#define ORPHAN_ROUNDS 5
#define INFO_LIMIT    4096
#define NOISE_LIMIT   2048

static void arm(struct event *timer, uint64_t ms)
{
    struct timeval wait = {.tv_sec = (time_t)(ms / 1000),
                           .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

    event_add(timer, &wait);
}

static void drop_event(struct event **event)
{
    if (*event != NULL)
        event_free(*event);
    *event = NULL;
}

/* The first reason stays. */
static void set_failure(struct supervisor *super, const char *text)
{
    if (super->exit.failure[0] != '\0')
        return;
    snprintf(super->exit.failure, sizeof(super->exit.failure), "%s", text);
    for (char *at = super->exit.failure; *at != '\0'; at++) {
        if (!isprint((unsigned char)*at))
            *at = isspace((unsigned char)*at) ? ' ' : '?';
    }
}

/* -- clients ---------------------------------------------------------------------------------- */

static void client_close(struct client *client)
{
    drop_event(&client->event);
    close(client->fd);
}

static void client_send(struct client *client, const char *word)
{
    if (client->event != NULL
        && send(client->fd, word, strlen(word), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        client_close(client);
}

static void tell(struct supervisor *super, const char *word)
{
    for (int i = 0; i < SUPERVISE_MAX_CLIENTS; i++)
        client_send(&super->client[i], word);
}

static void word_ready(const struct supervisor *super, char out[SUPERVISE_WORD])
{
    snprintf(out, SUPERVISE_WORD, "ready %d", super->sandbox_pid);
}

static void word_released(const struct supervisor *super, char out[SUPERVISE_WORD])
{
    snprintf(out, SUPERVISE_WORD, "released %" PRId64, super->released_us);
}

/* -- ending ----------------------------------------------------------------------------------- */

static void order(struct supervisor *super, enum init_order order, uint32_t size, const void *body)
{
    struct init_order_head head = {(uint32_t)order, size};
    const char *at = body;

    if (super->control < 0
        || send(super->control, &head, sizeof(head), MSG_NOSIGNAL) != (ssize_t)sizeof(head))
        return;
    /* sheaf-task-init reads all of it before anything else: this does not block for long. */
    while (body != NULL && size > 0) {
        ssize_t put = send(super->control, at, size, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return; /* its end shows as end of file */
        at += put;
        size -= (uint32_t)put;
    }
}

static void kill_sandbox(struct supervisor *super)
{
    /* bwrap's end is its child's: --die-with-parent. What stands apart removes it first. */
    if (super->child > 0)
        kill(super->child, super->driver->apart ? SIGTERM : SIGKILL);
}

static void kill_now(struct supervisor *super)
{
    if (super->killed)
        return;
    super->killed = true;
    event_del(super->grace);
    if (super->released_us == 0)
        kill_sandbox(super);
    else
        order(super, INIT_SIGNAL, SIGKILL, NULL);
    arm(super->linger, LINGER_MS);
}

/* Those that lost their parent are ours: we are their reaper, and nothing else is. */
static void kill_orphans(void)
{
    int pids[256];
    uint32_t count = plan_children("/proc/thread-self/children", pids, 0, 256);

    for (uint32_t i = 0; i < count; i++)
        kill(pids[i], SIGKILL);
}

static void stop(struct supervisor *super, uint64_t grace_ms)
{
    if (super->killed)
        return;
    if (super->released_us == 0) {
        /* Nothing of the tenant ran: nothing needs time to end. */
        if (super->exit.code == 0)
            super->exit.code = 128 + SIGTERM;
        kill_now(super);
        return;
    }
    if (super->stopping)
        return;
    super->stopping = true;
    order(super, INIT_SIGNAL, SIGTERM, NULL);
    arm(super->grace, grace_ms);
}

static void on_grace(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    kill_now(arg);
}

static void control_close(struct supervisor *super)
{
    drop_event(&super->on_control);
    close(super->control);
    super->control = -1;
}

static void on_linger(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *super = arg;

    (void)fd;
    (void)what;
    kill_orphans();
    if (super->limited)
        cgroup_kill(&super->task.cgroup, super->task.name);
    if (super->child != 0) {
        arm(super->linger, LINGER_MS);
        return;
    }
    /* What still holds them is out of reach: it is waited for no longer. */
    if (super->control >= 0)
        control_close(super);
    supervise_logs_close(super);
    supervise_advance(super);
}

/* -- beginning -------------------------------------------------------------------------------- */

static void try_release(struct supervisor *super)
{
    char word[SUPERVISE_WORD];
    struct err err = {0};
    struct buf body;

    if (!super->ready || !super->release_wanted || super->released_us != 0 || super->killed)
        return;
    buf_init(&body, (size_t)INIT_MAX_START * 2);
    if (supervise_orders(super, &body, &err) != 0) {
        set_failure(super, err.text);
        kill_now(super);
    } else {
        super->released_us = clock_mono_us();
        super->alive = super->task.proc_count;
        order(super, INIT_START, (uint32_t)body.length, body.data);
        word_released(super, word);
        tell(super, word);
    }
    buf_fini(&body);
}

static void try_ready(struct supervisor *super)
{
    char word[SUPERVISE_WORD];

    if (super->ready || !super->init_ready || super->sandbox_pid == 0)
        return;
    if (super->limited && super->driver->apart
        && cgroup_move(&super->task.cgroup, super->task.name, super->sandbox_pid) != 0) {
        set_failure(super, "cannot move the container into its control groups");
        kill_now(super);
        return;
    }
    super->ready = true;
    word_ready(super, word);
    tell(super, word);
    try_release(super);
}

static int child_pid(const struct buf *text)
{
    json_t *value = NULL;
    json_int_t pid = 0;

    if (text->data != NULL && json_read(text->data, text->length, &value, NULL) == 0)
        pid = json_integer_value(json_object_get(value, "child-pid"));
    json_decref(value);
    return pid > 1 && pid <= INT32_MAX ? (int)pid : 0;
}

/* bwrap's {"child-pid": N, …} comes in pieces; closing before its end would kill it. */
static void on_info(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *super = arg;
    char chunk[512];
    ssize_t got = read(fd, chunk, sizeof(chunk));

    (void)what;
    if (got > 0)
        buf_append(&super->info, chunk, (size_t)got);
    if (got > 0 || (got < 0 && errno == EINTR))
        return;
    super->sandbox_pid = child_pid(&super->info);
    drop_event(&super->on_info);
    close(fd);
    super->info_fd = -1;
    try_ready(super); /* without a pid it ends, and says why on stderr */
}

/* -- news of sheaf-task-init ------------------------------------------------------------------ */

static void take_exit(struct supervisor *super, uint32_t proc, int status)
{
    int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);

    if (proc >= super->task.proc_count || super->exited[proc])
        return;
    super->exited[proc] = true;
    super->alive--;
    super->ended_us = clock_mono_us();
    if (code == 0)
        return;
    if (super->exit.code == 0) {
        super->exit.code = code;
        super->exit.rank = super->task.proc[proc].rank;
    }
    if (super->alive > 0) {
        uint64_t grace = super->task.stop_grace_ms;
        stop(super, grace < FAIL_GRACE_MS ? grace : FAIL_GRACE_MS);
    }
}

static void take_failure(struct supervisor *super, uint32_t step, int error)
{
    static const char *const steps[] = {"take the task's user", "enter /job", "read its orders",
                                        "fork", "run /bin/sh"};
    char text[128];

    snprintf(text, sizeof(text), "cannot %s: %s",
             step < sizeof(steps) / sizeof(steps[0]) ? steps[step] : "start", strerror(error));
    set_failure(super, text);
}

static void on_control(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *super = arg;
    struct init_report report;
    ssize_t got = recv(fd, &report, sizeof(report), MSG_WAITALL);

    (void)what;
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got != (ssize_t)sizeof(report)) {
        control_close(super);
        supervise_advance(super);
        return;
    }
    switch ((enum init_news)report.news) {
    case INIT_READY:
        super->init_ready = true;
        try_ready(super);
        return;
    case INIT_STARTED:
        super->started = true;
        tell(super, "started");
        return;
    case INIT_EXITED:
        take_exit(super, report.proc, report.value);
        return;
    case INIT_FAILED:
        take_failure(super, report.proc, report.value);
        return;
    }
}

static void on_child(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *super = arg;
    int status;
    pid_t pid;

    (void)fd;
    (void)what;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == super->child) {
            super->child = 0;
            super->child_failed = status != 0;
        }
    }
    supervise_advance(super);
}

/* -- the worker's words ----------------------------------------------------------------------- */

static void on_client(evutil_socket_t fd, short what, void *arg)
{
    struct client *client = arg;
    struct supervisor *super = client->super;
    char word[SUPERVISE_WORD] = "";
    ssize_t got = recv(fd, word, sizeof(word) - 1, MSG_DONTWAIT);

    (void)what;
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got <= 0) {
        client_close(client);
        return;
    }
    if (strcmp(word, "release") == 0) {
        super->release_wanted = true;
        try_release(super);
    } else if (strcmp(word, "stop") == 0) {
        stop(super, super->task.stop_grace_ms);
    } else if (strcmp(word, "kill") == 0) {
        if (super->released_us == 0 && super->exit.code == 0)
            super->exit.code = 128 + SIGKILL;
        kill_now(super);
    }
}

static void on_listen(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *super = arg;
    struct client *client = NULL;
    char word[SUPERVISE_WORD];
    int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)what;
    if (accepted < 0)
        return;
    for (int i = 0; i < SUPERVISE_MAX_CLIENTS && client == NULL; i++) {
        if (super->client[i].event == NULL)
            client = &super->client[i];
    }
    if (client == NULL) {
        close(accepted);
        return;
    }
    client->super = super;
    client->fd = accepted;
    client->event = event_new(super->base, accepted, EV_READ | EV_PERSIST, on_client, client);
    BUG_ON(client->event == NULL);
    event_add(client->event, NULL);
    if (super->ready) {
        word_ready(super, word);
        client_send(client, word);
    }
    if (super->released_us != 0) {
        word_released(super, word);
        client_send(client, word);
    }
    if (super->started)
        client_send(client, "started");
}

static void on_term(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *super = arg;

    (void)fd;
    (void)what;
    stop(super, super->task.stop_grace_ms);
}

/* -- the end ---------------------------------------------------------------------------------- */

/* The last line that bwrap or sheaf-task-init left on stderr. */
static void take_noise(struct supervisor *super)
{
    char text[NOISE_LIMIT + 1];
    ssize_t got = super->noise >= 0 ? read(super->noise, text, NOISE_LIMIT) : -1;

    while (got > 0 && isspace((unsigned char)text[got - 1]))
        got--;
    if (got <= 0)
        return;
    text[got] = '\0';
    fprintf(stderr, "sandbox: %s\n", text);
    char *line = strrchr(text, '\n');
    set_failure(super, line != NULL ? line + 1 : text);
}

static void decide_exit(struct supervisor *super)
{
    struct runtime_exit *exit = &super->exit;
    bool asked = super->killed && exit->code != 0;

    if (super->limited)
        exit->oom = cgroup_is_oom(&super->task.cgroup, super->task.name);
    if (super->released_us == 0) {
        exit->rank = super->task.proc[0].rank;
        if (!asked) {
            take_noise(super);
            set_failure(super, "the sandbox ended before it was ready");
            exit->code = PLAN_CODE_SANDBOX;
        }
        return;
    }
    if (!super->started && !super->killed)
        set_failure(super, "the sandbox ended at the barrier");
    if (exit->failure[0] != '\0')
        exit->code = PLAN_CODE_SANDBOX;
    /* What gave no report died with the sandbox's first process. */
    for (uint32_t i = 0; i < super->task.proc_count && exit->code == 0; i++) {
        if (super->exited[i])
            continue;
        exit->code = PLAN_CODE_KILLED;
        exit->rank = super->task.proc[i].rank;
    }
    if (super->ended_us < super->released_us)
        super->ended_us = clock_mono_us();
    exit->used_ms = (uint64_t)(super->ended_us - super->released_us) / 1000;
}

static void finish(struct supervisor *super)
{
    struct err err = {0};
    bool clean;

    if (super->child_failed && super->driver->remove != NULL) {
        super->child_failed = false; /* once */
        super->left = super->driver->remove(&super->task, &err) != 0;
    }
    clean = !super->left;
    if (super->limited && cgroup_remove(&super->task.cgroup, super->task.name) != 0) {
        kill_orphans();
        cgroup_kill(&super->task.cgroup, super->task.name);
        if (super->removals++ < REMOVE_TRIES) {
            arm(super->remove, REMOVE_EVERY_MS);
            return;
        }
        clean = false;
    }
    if (super->filtered && filter_remove(super->task.name, &err) != 0)
        clean = false;
    if (plan_exit_write(super->task.dir, &super->exit, clean, &err) != 0)
        fprintf(stderr, "%s\n", err.text);
    super->done = true;
    event_base_loopbreak(super->base);
}

static void on_remove(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    finish(arg);
}

void supervise_advance(struct supervisor *super)
{
    if (super->child != 0 || super->finishing)
        return;
    if (super->control >= 0 || super->open_logs > 0) {
        /* Whatever is left lost its parent, and has nobody to report to. */
        kill_orphans();
        if (!event_pending(super->linger, EV_TIMEOUT, NULL))
            arm(super->linger, LINGER_MS);
        return;
    }
    /* Orphans of a first process that did not end by itself; their end calls us again. */
    if (waitpid(-1, NULL, WNOHANG) == 0 && super->orphan_rounds++ < ORPHAN_ROUNDS) {
        kill_orphans();
        arm(super->linger, LINGER_MS);
        return;
    }
    super->finishing = true;
    event_del(super->linger);
    event_del(super->grace);
    decide_exit(super);
    finish(super);
}

/* -- the program ------------------------------------------------------------------------------ */

static struct event *add_event(struct supervisor *super, int fd, short what, event_callback_fn call)
{
    struct event *event = event_new(super->base, fd, (short)(what | EV_PERSIST), call, super);

    BUG_ON(event == NULL || event_add(event, NULL) != 0);
    return event;
}

static void open_loop(struct supervisor *super)
{
    /* Not loop_new(): that would load ZeroMQ into every supervisor. */
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    super->base = event_base_new();
    BUG_ON(super->base == NULL);
    super->on_listen = add_event(super, SUPERVISE_LISTEN_FD, EV_READ, on_listen);
    super->on_child = add_event(super, SIGCHLD, EV_SIGNAL, on_child);
    super->on_term = add_event(super, SIGTERM, EV_SIGNAL, on_term);
    super->grace = evtimer_new(super->base, on_grace, super);
    super->linger = evtimer_new(super->base, on_linger, super);
    super->remove = evtimer_new(super->base, on_remove, super);
    BUG_ON(super->grace == NULL || super->linger == NULL || super->remove == NULL);
}

static void close_loop(struct supervisor *super)
{
    struct event **events[] = {&super->on_listen, &super->on_control, &super->on_info,
                               &super->on_child,  &super->on_term,    &super->grace,
                               &super->linger,    &super->remove,     &super->on_claim};

    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
        drop_event(events[i]);
    for (int i = 0; i < SUPERVISE_MAX_CLIENTS; i++) {
        if (super->client[i].event != NULL)
            client_close(&super->client[i]);
    }
    event_base_free(super->base);
}

/* The sandbox did not come to be; whatever did is ended and told. */
static void begin_failed(struct supervisor *super, const struct err *err)
{
    set_failure(super, err->text);
    super->killed = true;
    if (super->child != 0) {
        kill_sandbox(super);
        return;
    }
    if (super->control >= 0)
        control_close(super);
    supervise_logs_close(super);
    supervise_advance(super);
}

static void on_claim(evutil_socket_t fd, short what, void *arg)
{
    const struct supervisor *super = arg;

    (void)fd;
    (void)what;
    user_claim_answer(&super->claim);
}

static void begin(struct supervisor *super)
{
    struct err err = {0};
    int rc = plan_run_write(super->task.dir, &err);

    if (rc == 0)
        rc = supervise_start(super, &err);
    if (super->claim.name >= 0)
        super->on_claim = add_event(super, super->claim.name, EV_READ, on_claim);
    if (super->control >= 0)
        super->on_control = add_event(super, super->control, EV_READ, on_control);
    if (super->info_fd >= 0)
        super->on_info = add_event(super, super->info_fd, EV_READ, on_info);
    else
        super->sandbox_pid = (int)super->child;
    supervise_logs_watch(super);
    if (rc != 0)
        begin_failed(super, &err);
}

int supervise(const char *dir, const char *roots)
{
    struct supervisor *super = mem_new(1, sizeof(*super));
    struct err err = {0};

    buf_init(&super->info, INFO_LIMIT);
    super->control = super->info_fd = super->noise = super->root_fd = -1;
    super->claim = (struct user_claim){-1, -1};
    int rc = plan_task_read(dir, &super->task, &err);
    if (rc == 0) {
        super->driver = driver_get(super->task.driver);
        if (super->driver == NULL)
            rc = err_set(&err, ERR_STATE_CORRUPT, "unknown driver %s", super->task.driver);
        else
            rc = fs_path(super->task.roots, "%s", roots);
    }
    if (rc != 0) {
        fprintf(stderr, "%s\n", err.text);
        free(super);
        return 1;
    }
    open_loop(super);
    begin(super);
    if (!super->done)
        event_base_dispatch(super->base);
    close_loop(super);
    if (super->noise >= 0)
        close(super->noise);
    if (super->root_fd >= 0)
        close(super->root_fd);
    user_claim_end(&super->claim);
    buf_fini(&super->info);
    plan_task_fini(&super->task);
    free(super);
    return 0;
}
