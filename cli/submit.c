/* Verbs that ask for work: plan, apply, run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/follow.h"
#include "cli/jobfile.h"
#include "cli/plan.h"
#include "cli/table.h"
#include "cli/term.h"
#include "cli/verbs.h"
#include "common/io/clock.h"
#include "common/io/fs.h"
#include "common/io/json.h"
#include "common/pure/id.h"
#include "common/pure/spec.h"

static const char *file_of(const struct args *args)
{
    const char *file = args_get(args, "file");

    if (file != NULL)
        return file;
    return args->word_count > 0 ? args->words[0] : "job.yaml";
}

static void set_project(json_t *spec)
{
    if (term.project != NULL)
        json_object_set_new(spec, "project", json_string(term.project));
}

int verb_plan(const struct args *args)
{
    struct httpc client;
    json_t *spec = NULL;
    json_t *plan = NULL;
    char base[FS_PATH];
    struct err err;

    int rc = jobfile_read(file_of(args), &spec, base, &err);
    if (rc == 0) {
        set_project(spec);
        rc = api_open(&client, &err);
    }
    if (rc == 0)
        rc = plan_ask(&client, spec, &plan, &err);
    json_decref(spec);
    if (rc < 0)
        return command_fail(&err);
    if (!table_machine(plan, "code"))
        plan_print(plan);
    bool placed = json_is_true(json_at(plan, "why.placed"));
    json_decref(plan);
    return placed ? EXIT_OK : EXIT_CAPACITY;
}

struct submission {
    json_t *spec; /* owned */
    char base[FS_PATH];
    const char *request_id; /* NULL = a fresh one */
    bool fail_fast;
    bool detach;
};

/* Plan, question. 0 = go on; else the exit code through *ret_code. */
static bool agree(const struct httpc *client, const struct submission *job, int *ret_code)
{
    json_t *plan = NULL;
    struct err err;

    if (plan_ask(client, job->spec, &plan, &err) < 0) {
        *ret_code = command_fail(&err);
        return false;
    }
    bool placed = json_is_true(json_at(plan, "why.placed"));
    if (term.format == OUTPUT_TABLE || term.format == OUTPUT_WIDE) {
        plan_print(plan);
        printf("\n");
        fflush(stdout);
    }
    bool go = true;
    if (!placed && json_is_true(json_object_get(job->spec, "fail_fast"))) {
        fprintf(stderr, "error: it cannot run now, and fail_fast was asked for: %s (%s)\n",
                json_text_at(plan, "why.detail"), json_text_at(plan, "why.code"));
        *ret_code = EXIT_CAPACITY;
        go = false;
    } else if (!term_confirm(placed ? "Submit it?" : "It would wait. Submit it?")) {
        fprintf(stderr, "not submitted; answer y, or give --yes where nobody can answer\n");
        *ret_code = EXIT_REFUSED;
        go = false;
    }
    json_decref(plan);
    return go;
}

static int submit(struct submission *job)
{
    struct httpc client;
    json_t *answer = NULL;
    struct err err;
    int code = EXIT_OK;

    set_project(job->spec);
    if (job->fail_fast)
        json_object_set_new(job->spec, "fail_fast", json_true());
    if (api_open(&client, &err) < 0)
        return command_fail(&err);
    if (!agree(&client, job, &code))
        return code;
    int rc = jobfile_upload(&client, job->spec, job->base, &err);
    if (rc == 0)
        rc = api_call(&client, "POST", "/api/v1/jobs", job->spec,
                      job->request_id ? job->request_id : "", &answer, &err);
    if (rc < 0)
        return command_fail(&err);
    char id[UUID_TEXT];
    snprintf(id, sizeof(id), "%s", json_text_at(answer, "id"));
    if (!table_machine(answer, "id"))
        printf("job %s %s, %s held\n", id, json_text_at(answer, "state"),
               json_text_at(answer, "held"));
    json_decref(answer);
    fflush(stdout);
    bool machine = term.format != OUTPUT_TABLE && term.format != OUTPUT_WIDE;
    return job->detach || machine ? EXIT_OK : follow_job(&client, id);
}

int verb_apply(const struct args *args)
{
    struct submission job = {
        .request_id = args_get(args, "request-id"),
        .fail_fast = args_has(args, "fail-fast"),
        .detach = args_has(args, "detach"),
    };
    struct err err;

    if (jobfile_read(file_of(args), &job.spec, job.base, &err) < 0)
        return command_fail(&err);
    int code = submit(&job);
    json_decref(job.spec);
    return code;
}

/* Quotes a word for sh: 'it'\''s'. */
static void quote(const char *word, struct buf *out)
{
    if (word[0] != '\0'
        && word[strspn(word,
                       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,+@")]
               == '\0') {
        buf_puts(out, word);
        return;
    }
    buf_puts(out, "'");
    for (; *word != '\0'; word++) {
        if (*word == '\'')
            buf_puts(out, "'\\''");
        else
            buf_append(out, word, 1);
    }
    buf_puts(out, "'");
}

static void set_text(json_t *object, const char *key, const char *value)
{
    if (value != NULL)
        json_object_set_new(object, key, json_string(value));
}

/* --dir ./src: comes along as /job/src, and the command starts there. */
static int bring_dir(json_t *spec, const char *dir, char *base, struct buf *command,
                     struct err *err)
{
    char real[4096];

    snprintf(base, FS_PATH, "/");
    if (dir == NULL)
        return 0;
    if (realpath(dir, real) == NULL || strlen(real) >= FS_PATH)
        return err_set(err, ERR_IO, "there is no folder %s", dir);
    const char *name = strrchr(real, '/') + 1;
    char path[FS_PATH];
    if (fs_path(path, "/job/%s", name[0] ? name : "root") < 0)
        return err_set(err, ERR_IO, "the path %s is too long", dir);
    json_object_set_new(spec, "files", json_pack("[{s:s, s:s}]", "source", real, "path", path));
    buf_puts(command, "cd ");
    quote(path, command);
    buf_puts(command, " && ");
    return 0;
}

static int run_spec(const struct args *args, struct submission *job, struct err *err)
{
    long nodes;
    const char *name = args_get(args, "name");
    const char *gpu = args_get(args, "gpu");
    struct buf command;

    if (args_int(args, "nodes", 1, 256, 1, &nodes, err) < 0)
        return -ERR_USAGE;
    if (gpu == NULL)
        return err_set(err, ERR_USAGE, "--gpu is missing, e.g. --gpu 24GB:2");
    if (args->rest_count == 0)
        return err_set(err, ERR_USAGE, "nothing to run; put the command after --");
    buf_init(&command, SPEC_MAX_TEXT_BYTES);
    json_t *spec = json_pack("{s:i, s:s, s:I, s:{s:s}}", "version", 1, "name", name ? name : "run",
                             "nodes", (json_int_t)nodes, "resources", "gpu", gpu);
    int rc = bring_dir(spec, args_get(args, "dir"), job->base, &command, err);
    for (int i = 0; i < args->rest_count; i++) {
        if (i > 0)
            buf_puts(&command, " ");
        quote(args->rest[i], &command);
    }
    json_object_set_new(spec, "commands", json_pack("[s]", command.data));
    buf_fini(&command);
    json_t *network = json_object();
    json_t *budget = json_object();
    set_text(network, "max_rtt", args_get(args, "max-rtt"));
    set_text(budget, "max_price", args_get(args, "max-price"));
    set_text(budget, "max_total", args_get(args, "max-total"));
    json_object_set_new(spec, "network", network);
    json_object_set_new(spec, "budget", budget);
    set_text(spec, "max_duration", args_get(args, "max-duration"));
    set_text(spec, "launch", args_get(args, "launch"));
    const char *env = args_get(args, "env");
    if (env != NULL && strchr(env, '=') != NULL)
        json_object_set_new(spec, "env", json_pack("[s]", env));
    else if (env != NULL)
        json_object_set_new(
            spec, "env",
            json_pack("[o]", json_sprintf("%s=%s", env, getenv(env) ? getenv(env) : "")));
    job->spec = spec;
    return rc;
}

int verb_run(const struct args *args)
{
    struct submission job = {.detach = args_has(args, "detach")};
    struct err err;
    int code;

    if (run_spec(args, &job, &err) < 0)
        code = command_fail(&err);
    else
        code = submit(&job);
    json_decref(job.spec);
    return code;
}
