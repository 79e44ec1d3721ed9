#include "cli/follow.h"

#include <stdio.h>
#include <string.h>

#include "cli/api.h"
#include "cli/command.h"
#include "cli/table.h"
#include "cli/term.h"
#include "common/io/json.h"

struct watch {
    const struct httpc *client;
    char state[24];
    char reason[64];
    char detail[256];
    char last_id[128];  /* of the events seen: what comes later goes on after it */
    bool until_running; /* stop at running: the log takes over */
};

int exit_of_state(const char *state)
{
    return strcmp(state, "succeeded") == 0 ? EXIT_OK : EXIT_JOB_FAILED;
}

static bool is_final(const char *state)
{
    static const char *const final[] = {"succeeded", "failed", "cancelled", "expired", "rejected"};

    for (size_t i = 0; i < sizeof(final) / sizeof(final[0]); i++) {
        if (strcmp(final[i], state) == 0)
            return true;
    }
    return false;
}

static void print_phase(const json_t *data)
{
    const char *to = json_text_at(data, "to");
    const char *at = json_text_at(data, "at");
    const char *detail = json_text_at(data, "detail");

    term_status_clear();
    fprintf(stderr, "  %.8s  %s%s %-10s%s %s%s%s\n", strlen(at) > 19 ? at + 11 : at,
            tone_on(tone_of_state(to), term.color_err), symbol_of_state(to), to,
            tone_off(tone_of_state(to), term.color_err), json_text_at(data, "reason"),
            detail[0] ? "  " : "", detail);
}

static bool on_phase(const struct sse_event *event, void *arg)
{
    struct watch *watch = arg;
    json_t *data;
    struct err err;

    if (strcmp(event->event, "state") != 0)
        return true;
    snprintf(watch->last_id, sizeof(watch->last_id), "%s", event->id);
    if (json_read(event->data, strlen(event->data), &data, &err) < 0)
        return true;
    const char *to = json_text_at(data, "to");
    if (strcmp(to, watch->state) != 0 || strcmp(json_text_at(data, "reason"), watch->reason) != 0)
        print_phase(data);
    snprintf(watch->state, sizeof(watch->state), "%s", to);
    snprintf(watch->reason, sizeof(watch->reason), "%s", json_text_at(data, "reason"));
    snprintf(watch->detail, sizeof(watch->detail), "%s", json_text_at(data, "detail"));
    json_decref(data);
    return !(is_final(watch->state)
             || (watch->until_running && strcmp(watch->state, "running") == 0));
}

static bool on_log(const struct sse_event *event, void *arg)
{
    json_t *data;
    struct err err;

    (void)arg;
    if (strcmp(event->event, "log") != 0
        || json_read(event->data, strlen(event->data), &data, &err) < 0)
        return true;
    const json_t *text = json_object_get(data, "text");
    term_put(stdout, json_string_value(text), json_string_length(text));
    fflush(stdout);
    json_decref(data);
    return true;
}

static int detached(const char *id)
{
    term_status_clear();
    fprintf(stderr,
            "\ndetached; the job goes on.\n  come back: sheaf logs -f %s\n  stop it:   sheaf "
            "cancel %s\n",
            id, id);
    return EXIT_INTERRUPTED;
}

static int report_end(const struct httpc *client, const char *id)
{
    json_t *job = NULL;
    struct err err;

    if (api_job(client, id, &job, &err) < 0)
        return command_fail(&err);
    const char *state = json_text_at(job, "state");
    int code = exit_of_state(state);
    fprintf(stderr, "%s%s %s%s: %s %s\n  charged %s of %s held; next: sheaf %s %s\n",
            tone_on(tone_of_state(state), term.color_err), symbol_of_state(state), state,
            tone_off(tone_of_state(state), term.color_err), json_text_at(job, "reason_text"),
            json_text_at(job, "detail"), json_text_at(job, "charged"), json_text_at(job, "hold"),
            code == EXIT_OK ? "get" : "logs", id);
    json_decref(job);
    return code;
}

int follow_job(const struct httpc *client, const char *id)
{
    struct watch watch = {.client = client, .until_running = true};
    char path[160];
    struct err err = {0};

    term_catch_interrupt();
    snprintf(path, sizeof(path), "/api/v1/jobs/%s/events", id);
    int rc = api_follow(client, path, NULL, on_phase, &watch, &err);
    if (rc == 0 && !is_final(watch.state)) {
        char logs[160];
        snprintf(logs, sizeof(logs), "/api/v1/jobs/%s/logs?rank=0&follow=1", id);
        rc = api_follow(client, logs, NULL, on_log, NULL, &err);
    }
    if (rc == 0 && !is_final(watch.state)) {
        watch.until_running = false;
        rc = api_follow(client, path, watch.last_id, on_phase, &watch, &err);
    }
    if (rc == -ERR_INTERRUPTED || (rc == 0 && !is_final(watch.state)))
        return detached(id);
    if (rc < 0)
        return command_fail(&err);
    return report_end(client, id);
}
