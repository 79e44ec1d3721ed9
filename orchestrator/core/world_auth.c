#include <string.h>

#include "orchestrator/core/world_private.h"

static bool hash_is_nil(const uint8_t hash[32])
{
    static const uint8_t nil[32];

    return memcmp(hash, nil, sizeof(nil)) == 0;
}

int auth_token(const struct step *step, uint32_t scope, const struct token_row **ret_token,
               struct err *err)
{
    const struct caller *caller = &step->event->caller;

    if (caller->system) {
        *ret_token = NULL;
        return 0;
    }
    if (hash_is_nil(caller->token_hash))
        return err_set(err, ERR_AUTH_REQUIRED, "no credential");
    const struct token_row *token = world_token(step->world, caller->token_hash);
    if (token == NULL || token->revoked_us != 0
        || (token->expires_us != 0 && token->expires_us <= step->now))
        return err_set(err, ERR_TOKEN_INVALID, "the token is unknown, expired or revoked");
    if ((token->scopes & scope) != scope)
        return err_set(err, ERR_SCOPE_MISSING, "needs %s", scope_name((enum scope)scope));
    *ret_token = token;
    return 0;
}

bool auth_sees_project(const struct token_row *token, uint64_t project)
{
    return token == NULL || token->role == ROLE_OPERATOR
           || (token->project != 0 && token->project == project);
}

bool auth_owns_node(const struct token_row *token, const struct node *node)
{
    return token == NULL || token->role == ROLE_OPERATOR
           || (token->role == ROLE_PROVIDER && token->provider != 0
               && token->provider == node->row.provider);
}

int auth_project(const struct step *step, const struct token_row *token, const char *name,
                 struct project **ret_project, struct err *err)
{
    struct project *project;

    if (name != NULL && name[0] != '\0')
        project = project_by_name(step->world, name);
    else if (token != NULL && token->project != 0)
        project = table_get(&step->world->projects, token->project);
    else
        return err_set_at(err, ERR_FIELD_MISSING, "/project", "name the project");
    if (project == NULL || !auth_sees_project(token, project->row.id))
        return err_set_at(err, ERR_NOT_FOUND, "/project", "no project %s", name ? name : "");
    *ret_project = project;
    return 0;
}

/* -- idempotency ------------------------------------------------------------------------------ */

static const struct idem_row *idem_find(const struct step *step, uint64_t token)
{
    const struct caller *caller = &step->event->caller;
    struct row wanted = {.kind = ROW_IDEM, .idem = {.token = token}};

    memcpy(wanted.idem.key, caller->key, sizeof(caller->key));
    struct row_key key = row_key(&wanted);
    const struct idem_row *row = map_get(&step->world->idem_by_key, &key, sizeof(key));
    if (row != NULL && row->token == token && strcmp(row->key, caller->key) == 0)
        return row;
    if (caller->idem != NULL && caller->idem->token == token
        && strcmp(caller->idem->key, caller->key) == 0)
        return caller->idem;
    return NULL;
}

bool idem_replay(const struct step *step, uint64_t token, struct reply *ret_reply)
{
    const struct caller *caller = &step->event->caller;

    if (caller->key[0] == '\0')
        return false;
    const struct idem_row *row = idem_find(step, token);
    if (row == NULL)
        return false;
    if (memcmp(row->body_hash, caller->body_hash, sizeof(row->body_hash)) != 0) {
        (void)err_set(&ret_reply->err, ERR_IDEMPOTENCY_REUSED,
                      "the key was used with another body");
        return true;
    }
    ret_reply->replayed = true;
    ret_reply->object = row->object;
    ret_reply->err.code = (enum err_code)row->code;
    return true;
}

void idem_remember(struct step *step, uint64_t token, const struct uuid *object)
{
    const struct caller *caller = &step->event->caller;
    struct row row = {.kind = ROW_IDEM,
                      .idem = {.token = token, .object = *object, .at_us = step->now}};

    if (caller->key[0] == '\0')
        return;
    memcpy(row.idem.key, caller->key, sizeof(row.idem.key));
    memcpy(row.idem.body_hash, caller->body_hash, sizeof(row.idem.body_hash));
    step_emit(step, &row);
}
