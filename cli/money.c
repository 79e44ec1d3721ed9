/* Verbs about money and access: accounts, tokens, projects, users. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/list.h"
#include "cli/table.h"
#include "cli/term.h"
#include "cli/verbs.h"
#include "common/io/json.h"
#include "common/pure/id.h"
#include "common/pure/money.h"
#include "common/pure/units.h"

/* POST body (taken) to path; a failure is reported. Returns the exit code. */
static int post(const char *path, json_t *body, const char *request_id, json_t **ret_answer)
{
    struct httpc client;
    struct err err;

    int rc = api_open(&client, &err);
    if (rc == 0)
        rc = api_call(&client, "POST", path, body, request_id ? request_id : "", ret_answer, &err);
    json_decref(body);
    return rc < 0 ? command_fail(&err) : EXIT_OK;
}

int verb_account(const struct args *args)
{
    static const struct column accounts[] = {
        {"ACCOUNT", "id", CELL_ID, false, true},
        {"OWNER", "owner", CELL_TEXT, false, false},
        {"PURPOSE", "purpose", CELL_TEXT, false, false},
        {"BALANCE", "balance", CELL_MONEY, false, false},
        {"ASSET", "asset", CELL_TEXT, false, false},
        {0},
    };
    static const struct column ledger[] = {
        {"AT", "at", CELL_AGE, false, false},
        {"KIND", "kind", CELL_TEXT, false, false},
        {"AMOUNT", "amount", CELL_MONEY, false, false},
        {"JOB", "job_name", CELL_TEXT, false, false},
        {"MEMO", "memo", CELL_TEXT, false, false},
        {"ID", "id", CELL_NUMBER, true, true},
        {0},
    };
    char path[128];
    struct uuid id;
    struct err err;

    if (args->word_count == 0)
        return list_print("/api/v1/accounts", accounts,
                          "no account yet; an operator runs: sheaf admin deposit PROJECT AMOUNT");
    if (uuid_parse(args->words[0], &id) < 0) {
        err_set(&err, ERR_INVALID_ID, "see: sheaf account -o wide");
        return command_fail(&err);
    }
    snprintf(path, sizeof(path), "/api/v1/accounts/%s/ledger", args->words[0]);
    return list_print(path, ledger, "no transfer yet");
}

int verb_token_ls(const struct args *args)
{
    static const struct column columns[] = {
        {"ID", "id", CELL_ID, false, true},
        {"PREFIX", "prefix", CELL_TEXT, false, false},
        {"ROLE", "role", CELL_TEXT, false, false},
        {"PROJECT", "project", CELL_TEXT, false, false},
        {"PROVIDER", "provider", CELL_TEXT, true, false},
        {"SCOPES", "scopes", CELL_LIST, true, false},
        {"AGE", "created_at", CELL_AGE, false, false},
        {"EXPIRES", "expires_at", CELL_TEXT, false, false},
        {"REVOKED", "revoked_at", CELL_TEXT, false, false},
        {0},
    };

    (void)args;
    return list_print("/api/v1/tokens", columns, "no token");
}

static int set_ttl(const struct args *args, json_t *body, struct err *err)
{
    const char *ttl = args_get(args, "ttl");
    uint64_t us;

    if (ttl == NULL)
        return 0;
    if (units_parse_duration(ttl, &us) < 0 || us < 1000000)
        return err_set(err, ERR_USAGE, "--ttl wants a time like 24h or 30d, not '%s'", ttl);
    json_object_set_new(body, "ttl_s", json_integer((json_int_t)(us / 1000000)));
    return 0;
}

static json_t *split(const char *list)
{
    json_t *items = json_array();

    while (*list != '\0') {
        size_t length = strcspn(list, ",");
        json_array_append_new(items, json_stringn(list, length));
        list += length + (list[length] == ',');
    }
    return items;
}

int verb_token_create(const struct args *args)
{
    const char *role = args_get(args, "role");
    const char *provider = args_get(args, "provider");
    const char *scopes = args_get(args, "scope");
    json_t *body = json_object();
    json_t *answer = NULL;
    struct err err;

    if (role == NULL) {
        json_decref(body);
        err_set(&err, ERR_USAGE, "--role is missing: tenant, provider, operator or auditor");
        return command_fail(&err);
    }
    json_object_set_new(body, "role", json_string(role));
    if (term.project != NULL)
        json_object_set_new(body, "project", json_string(term.project));
    if (provider != NULL)
        json_object_set_new(body, "provider", json_string(provider));
    if (scopes != NULL)
        json_object_set_new(body, "scopes", split(scopes));
    if (set_ttl(args, body, &err) < 0) {
        json_decref(body);
        return command_fail(&err);
    }
    int code = post("/api/v1/tokens", body, NULL, &answer);
    if (code != EXIT_OK)
        return code;
    if (!table_machine(answer, "secret")) {
        printf("%s\n", json_text_at(answer, "secret"));
        fprintf(stderr, "this is the only time it is shown; id %s\n", json_text_at(answer, "id"));
    }
    json_decref(answer);
    return EXIT_OK;
}

int verb_token_join(const struct args *args)
{
    const char *provider = args_get(args, "provider");
    json_t *answer = NULL;
    struct err err;
    long uses;

    if (provider == NULL)
        err_set(&err, ERR_USAGE, "--provider is missing: who owns the hardware");
    if (provider == NULL || args_int(args, "uses", 1, 10000, 1, &uses, &err) < 0)
        return command_fail(&err);
    json_t *body = json_pack("{s:s, s:I}", "provider", provider, "uses", (json_int_t)uses);
    if (set_ttl(args, body, &err) < 0) {
        json_decref(body);
        return command_fail(&err);
    }
    int code = post("/api/v1/join-tokens", body, NULL, &answer);
    if (code != EXIT_OK)
        return code;
    if (!table_machine(answer, "token")) {
        const char *install = json_string_value(json_object_get(answer, "install"));
        if (install != NULL)
            printf("# a bare Debian 12, x86-64: installs the worker and joins\n%s\n"
                   "# where sheaf-worker is installed\n",
                   install);
        printf("%s\n", json_text_at(answer, "command"));
        fprintf(stderr, "run %s on the machine that joins; good until %s, %ld use%s\n",
                install != NULL ? "one of them" : "it", json_text_at(answer, "expires_at"), uses,
                uses == 1 ? "" : "s");
    }
    json_decref(answer);
    return EXIT_OK;
}

int verb_token_revoke(const struct args *args)
{
    struct httpc client;
    struct uuid id;
    char path[128];
    json_t *answer = NULL;
    struct err err;

    int rc = uuid_parse(args->words[0], &id);
    if (rc < 0)
        err_set(&err, ERR_INVALID_ID, "see: sheaf token ls -o wide");
    if (rc == 0)
        rc = api_open(&client, &err);
    snprintf(path, sizeof(path), "/api/v1/tokens/%.36s", args->words[0]);
    if (rc == 0)
        rc = api_call(&client, "DELETE", path, NULL, "", &answer, &err);
    json_decref(answer);
    return rc < 0 ? command_fail(&err) : EXIT_OK;
}

static const struct column named[] = {
    {"NAME", "name", CELL_TEXT, false, true},
    {"ID", "id", CELL_ID, false, false},
    {"AGE", "created_at", CELL_AGE, false, false},
    {0},
};

int verb_admin_project_ls(const struct args *args)
{
    (void)args;
    return list_print("/api/v1/projects", named,
                      "no project yet; next: sheaf admin project create NAME");
}

int verb_admin_project_create(const struct args *args)
{
    json_t *answer = NULL;
    int code = post("/api/v1/projects", json_pack("{s:s}", "name", args->words[0]), NULL, &answer);

    if (code == EXIT_OK && !table_machine(answer, "name"))
        fprintf(stderr, "project %s made; next: sheaf admin deposit %s AMOUNT\n", args->words[0],
                args->words[0]);
    json_decref(answer);
    return code;
}

int verb_admin_user_ls(const struct args *args)
{
    static const struct column columns[] = {
        {"NAME", "name", CELL_TEXT, false, true},
        {"ROLE", "role", CELL_TEXT, false, false},
        {"ID", "id", CELL_ID, false, false},
        {"AGE", "created_at", CELL_AGE, false, false},
        {0},
    };

    (void)args;
    return list_print("/api/v1/users", columns, "no user yet");
}

int verb_admin_user_create(const struct args *args)
{
    const char *role = args_get(args, "role");
    json_t *answer = NULL;
    int code = post("/api/v1/users",
                    json_pack("{s:s, s:s}", "name", args->words[0], "role", role ? role : "tenant"),
                    NULL, &answer);

    if (code == EXIT_OK && !table_machine(answer, "name"))
        fprintf(stderr, "user %s made\n", args->words[0]);
    json_decref(answer);
    return code;
}

int verb_admin_deposit(const struct args *args)
{
    const char *memo = args_get(args, "memo");
    const char *asset = args_get(args, "asset");
    micro_t amount;
    json_t *answer = NULL;
    struct err err;

    if (money_parse(args->words[1], &amount) < 0 || amount <= 0) {
        err_set(&err, ERR_INVALID_AMOUNT, "'%s'", args->words[1]);
        return command_fail(&err);
    }
    int code =
        post("/api/v1/deposits",
             json_pack("{s:s, s:s, s:s, s:s}", "project", args->words[0], "amount", args->words[1],
                       "asset", asset ? asset : "USD", "memo", memo ? memo : ""),
             args_get(args, "request-id"), &answer);
    if (code == EXIT_OK && !table_machine(answer, "id"))
        fprintf(stderr, "deposited %s %s to %s\n", args->words[1], asset ? asset : "USD",
                args->words[0]);
    json_decref(answer);
    return code;
}
