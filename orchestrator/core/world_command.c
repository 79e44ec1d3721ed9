/* Administrative commands. Each returns 0 and fills reply->object, or -code with reply->err set. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/core/world_private.h"

/* Users, projects and tokens are made by people; beyond this somebody's script runs wild. */
#define MAX_PARTIES 100000u
/* Contents of one project, at most: 100 bytes each here. */
#define MAX_CONTENTS 1000000u
/* No single deposit above this, so that sums of all of them stay far below overflow. */
#define MAX_DEPOSIT (MICRO_MAX / 1000)

bool name_fits(const char *name)
{
    return name != NULL && name[0] != '\0' && strlen(name) < ROW_NAME;
}

static void copy_name(char out[ROW_NAME], const char *name)
{
    snprintf(out, ROW_NAME, "%s", name);
}

struct project *project_by_name(const struct world *world, const char *name)
{
    for (uint32_t i = 0; i < world->projects.count; i++) {
        struct project *project = world->projects.items[i];
        if (strcmp(project->row.name, name) == 0)
            return project;
    }
    return NULL;
}

const struct provider_row *provider_by_name(const struct world *world, const char *name)
{
    for (uint32_t i = 0; i < world->providers.count; i++) {
        const struct provider_row *provider = world->providers.items[i];
        if (strcmp(provider->name, name) == 0)
            return provider;
    }
    return NULL;
}

static const struct user_row *user_by_name(const struct world *world, const char *name)
{
    for (uint32_t i = 0; i < world->users.count; i++) {
        const struct user_row *user = world->users.items[i];
        if (strcmp(user->name, name) == 0)
            return user;
    }
    return NULL;
}

static int check_new_name(const char *name, bool exists, uint32_t count, struct err *err)
{
    if (!name_fits(name))
        return err_set_at(err, ERR_INVALID_NAME, "/name", "1-63 characters");
    if (exists)
        return err_set_at(err, ERR_ALREADY_EXISTS, "/name", "%s exists already", name);
    if (count >= MAX_PARTIES)
        return err_set(err, ERR_TOO_MANY, "%u at most", MAX_PARTIES);
    return 0;
}

int command_project(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct ev_named *named = &step->event->named;
    struct row row = {.kind = ROW_PROJECT};
    bool exists = name_fits(named->name) && project_by_name(step->world, named->name) != NULL;
    int rc = check_new_name(named->name, exists, step->world->projects.count, &reply->err);

    (void)token;
    if (rc < 0)
        return rc;
    row.project =
        (struct project_row){.id = step_id(step), .uid = named->uid, .created_us = step->now};
    copy_name(row.project.name, named->name);
    step_emit(step, &row);
    reply->object = named->uid;
    return 0;
}

static const struct provider_row *provider_make(struct step *step, const struct uuid *uid,
                                                const char *name)
{
    struct row row = {
        .kind = ROW_PROVIDER,
        .provider = {.id = step_id(step), .uid = *uid, .created_us = step->now},
    };

    copy_name(row.provider.name, name);
    step_emit(step, &row);
    /* With its account, so that no later settlement needs a UUID for it. */
    account_need(step, 0, row.provider.id, PURPOSE_EARNED);
    return table_get(&step->world->providers, row.provider.id);
}

int command_provider(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct ev_named *named = &step->event->named;
    bool exists = name_fits(named->name) && provider_by_name(step->world, named->name) != NULL;
    int rc = check_new_name(named->name, exists, step->world->providers.count, &reply->err);

    (void)token;
    if (rc < 0)
        return rc;
    provider_make(step, &named->uid, named->name);
    reply->object = named->uid;
    return 0;
}

int command_user(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct ev_named *named = &step->event->named;
    struct row row = {.kind = ROW_USER};
    bool exists = name_fits(named->name) && user_by_name(step->world, named->name) != NULL;
    int rc = check_new_name(named->name, exists, step->world->users.count, &reply->err);

    (void)token;
    if (rc < 0)
        return rc;
    if (named->role >= ROLE_GATEWAY)
        return err_set_at(&reply->err, ERR_OUT_OF_RANGE, "/role", "no such role for people");
    row.user = (struct user_row){
        .id = step_id(step), .uid = named->uid, .role = named->role, .created_us = step->now};
    copy_name(row.user.name, named->name);
    step_emit(step, &row);
    reply->object = named->uid;
    return 0;
}

/* -- tokens ---------------------------------------------------------------------------------- */

static bool is_given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static int check_token(const struct step *step, const struct ev_token *ask, struct err *err)
{
    if (ask->role >= ROLE_COUNT)
        return err_set_at(err, ERR_OUT_OF_RANGE, "/role", "no such role");
    if ((ask->scopes & ~role_scopes(ask->role)) != 0)
        return err_set_at(err, ERR_OUT_OF_RANGE, "/scopes", "more than role %s may have",
                          role_name(ask->role));
    if (ask->role == ROLE_TENANT && !is_given(ask->project))
        return err_set_at(err, ERR_FIELD_MISSING, "/project", "a tenant's token needs a project");
    if (ask->role == ROLE_PROVIDER && !is_given(ask->provider))
        return err_set_at(err, ERR_FIELD_MISSING, "/provider",
                          "a provider's token needs a provider");
    if (is_given(ask->project) && project_by_name(step->world, ask->project) == NULL)
        return err_set_at(err, ERR_NOT_FOUND, "/project", "no project %s", ask->project);
    if (is_given(ask->provider) && !name_fits(ask->provider))
        return err_set_at(err, ERR_INVALID_NAME, "/provider", "1-63 characters");
    if (is_given(ask->user) && user_by_name(step->world, ask->user) == NULL)
        return err_set_at(err, ERR_NOT_FOUND, "/user", "no user %s", ask->user);
    if (world_token(step->world, ask->hash) != NULL)
        return err_set(err, ERR_ALREADY_EXISTS, "this secret exists");
    return 0;
}

static const struct provider_row *provider_need(struct step *step, const struct ev_token *ask)
{
    const struct provider_row *provider = provider_by_name(step->world, ask->provider);

    return provider != NULL ? provider : provider_make(step, &ask->spare_uid, ask->provider);
}

int command_token(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct ev_token *ask = &step->event->token;
    struct row row = {.kind = ROW_TOKEN};
    int rc = check_token(step, ask, &reply->err);

    (void)token;
    if (rc < 0)
        return rc;
    row.token = (struct token_row){
        .uid = ask->uid,
        .role = ask->role,
        .scopes = ask->scopes != 0 ? ask->scopes : role_scopes(ask->role),
        .created_us = step->now,
        .expires_us = ask->expires_us,
    };
    if (is_given(ask->project)) {
        const struct project *project = project_by_name(step->world, ask->project);
        BUG_ON(project == NULL);
        row.token.project = project->row.id;
    }
    if (is_given(ask->provider))
        row.token.provider = provider_need(step, ask)->id;
    if (is_given(ask->user)) {
        const struct user_row *user = user_by_name(step->world, ask->user);
        BUG_ON(user == NULL);
        row.token.user = user->id;
    }
    memcpy(row.token.hash, ask->hash, sizeof(row.token.hash));
    memcpy(row.token.prefix, ask->prefix, sizeof(row.token.prefix));
    row.token.id = step_id(step);
    step_emit(step, &row);
    reply->object = ask->uid;
    return 0;
}

int command_revoke(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct uuid *uid = &step->event->revoke.token;
    const struct token_row *found = map_get(&step->world->token_by_uid, uid, sizeof(*uid));

    (void)token;
    if (found == NULL)
        return err_set(&reply->err, ERR_NOT_FOUND, "no such token");
    reply->object = *uid;
    if (found->revoked_us != 0)
        return 0;
    struct row row = {.kind = ROW_TOKEN, .token = *found};
    row.token.revoked_us = step->now;
    step_emit(step, &row);
    return 0;
}

#define DAY_US                ((usec_t)86400 * 1000000)
#define JOIN_TOKEN_MAX_USES   10000u
#define JOIN_TOKEN_LIFE_US    DAY_US
#define JOIN_TOKEN_LONGEST_US (90 * DAY_US)

static int check_join_token(const struct step *step, const struct token_row *token,
                            const struct ev_token *ask, struct err *err)
{
    if (!name_fits(ask->provider))
        return err_set_at(err, ERR_FIELD_MISSING, "/provider", "name the provider");
    if (ask->uses == 0 || ask->uses > JOIN_TOKEN_MAX_USES)
        return err_set_at(err, ERR_OUT_OF_RANGE, "/uses", "1 to %u", JOIN_TOKEN_MAX_USES);
    if (ask->expires_us > step->now + JOIN_TOKEN_LONGEST_US)
        return err_set_at(err, ERR_OUT_OF_RANGE, "/ttl_s", "90 days at most");
    if (token == NULL || token->role == ROLE_OPERATOR)
        return 0;
    const struct provider_row *provider = provider_by_name(step->world, ask->provider);
    if (provider == NULL || provider->id != token->provider)
        return err_set_at(err, ERR_NOT_FOUND, "/provider", "no provider %s", ask->provider);
    return 0;
}

int command_join_token(struct step *step, const struct token_row *token, struct reply *reply)
{
    struct ev_token ask = step->event->token;
    const struct provider_row *own = NULL;

    if (!is_given(ask.provider) && token != NULL && token->provider != 0)
        own = table_get(&step->world->providers, token->provider);
    if (own != NULL)
        ask.provider = own->name;
    int rc = check_join_token(step, token, &ask, &reply->err);
    if (rc < 0)
        return rc;
    struct row row = {.kind = ROW_JOIN_TOKEN};
    row.join_token = (struct join_token_row){
        .uid = ask.uid,
        .provider = provider_need(step, &ask)->id,
        .uses_left = ask.uses,
        .created_us = step->now,
        .expires_us = ask.expires_us != 0 ? ask.expires_us : step->now + JOIN_TOKEN_LIFE_US,
    };
    memcpy(row.join_token.hash, ask.hash, sizeof(row.join_token.hash));
    row.join_token.id = step_id(step);
    step_emit(step, &row);
    reply->object = ask.uid;
    return 0;
}

/* -- money and contents ------------------------------------------------------------------------ */

int command_deposit(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct ev_deposit *ask = &step->event->deposit;
    struct project *project = NULL;

    if (ask->amount <= 0 || ask->amount > MAX_DEPOSIT)
        return err_set_at(&reply->err, ERR_INVALID_AMOUNT, "/amount", "above 0, within bounds");
    if (is_given(ask->asset) && strcmp(ask->asset, step->policy->asset) != 0)
        return err_set_at(&reply->err, ERR_OUT_OF_RANGE, "/asset", "this pool pays in %s",
                          step->policy->asset);
    int rc = auth_project(step, token, ask->project, &project, &reply->err);
    if (rc < 0)
        return rc;
    const struct account_row *available = account_need(step, project->row.id, 0, PURPOSE_AVAILABLE);
    if (available->balance > MICRO_MAX - ask->amount)
        return err_set_at(&reply->err, ERR_INVALID_AMOUNT, "/amount", "the balance would overflow");
    /* All accounts that this money can later flow through, while there are UUIDs at hand. */
    account_need(step, project->row.id, 0, PURPOSE_ESCROW);
    account_need(step, 0, 0, PURPOSE_FEES);
    money_post(step, &(struct posting){
                         .debit = account_need(step, 0, 0, PURPOSE_EXTERNAL),
                         .credit = available,
                         .amount = ask->amount,
                         .kind = TRANSFER_DEPOSIT,
                         .memo = ask->memo,
                     });
    reply->object = ask->uid;
    reply->amount = available->balance;
    return 0;
}

int command_content(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct ev_content *ask = &step->event->content;
    struct project *project = NULL;
    int rc = auth_project(step, token, ask->project, &project, &reply->err);

    if (rc < 0)
        return rc;
    if (map_get(&project->contents, ask->sha256, sizeof(ask->sha256)) != NULL)
        return 0;
    if (project->contents.count >= MAX_CONTENTS)
        return err_set(&reply->err, ERR_TOO_MANY, "%u contents at most", MAX_CONTENTS);
    struct row row = {.kind = ROW_CONTENT,
                      .content = {.id = step_id(step),
                                  .project = project->row.id,
                                  .size = ask->size,
                                  .created_us = step->now}};
    memcpy(row.content.sha256, ask->sha256, sizeof(row.content.sha256));
    step_emit(step, &row);
    return 0;
}
