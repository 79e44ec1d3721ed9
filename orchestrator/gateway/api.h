#ifndef SHEAF_ORCHESTRATOR_GATEWAY_API_H
#define SHEAF_ORCHESTRATOR_GATEWAY_API_H

/* Handlers that the route table names, and the way from a call to one of them. */
#include <jansson.h>

#include "common/pure/spec.h"
#include "orchestrator/gateway/auth.h"
#include "orchestrator/gateway/db.h"
#include "orchestrator/gateway/gateway.h"
#include "orchestrator/gateway/http.h"
#include "orchestrator/gateway/route.h"
#include "proto/command.pb-c.h"

/* -- dispatch: http_hooks ------------------------------------------------------------------- */
uint64_t api_body_limit(const struct guard *head, void *gateway);
void api_on_call(struct http_call *call, void *gateway);

/* -- generic -------------------------------------------------------------------------------- */
/* Runs route->query and answers its JSON. */
void api_query(struct gateway *gateway, struct http_call *call);
/* JSON body → route->fill → orchestrator → problem, or the object re-read by route->query. */
void api_command(struct gateway *gateway, struct http_call *call);

/* What a fill function makes: one command and room for its parts. */
struct command_draft {
    Sheaf__Command command;
    union {
        Sheaf__SubmitJob submit;
        Sheaf__PlanJob plan;
        Sheaf__JobRef job;
        Sheaf__NewNamed named;
        Sheaf__NewToken token;
        Sheaf__TokenRef token_ref;
        Sheaf__Deposit deposit;
        Sheaf__Enrol enrol;
        Sheaf__NodeSet node_set;
        Sheaf__AddContent content;
    };
    json_t *body;                      /* the request's; an object, maybe empty */
    char *text;                        /* malloc'd; freed with the draft */
    char currency[SPEC_CURRENCY_TEXT]; /* plans */
    uint8_t bytes[256];                /* keys and ids that the command points to */
    struct buf claim;
    char *scopes[16];
};

int fill_submit(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_plan(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_cancel(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_node_drain(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_node_undrain(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_node_revoke(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_project(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_user(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_token(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_revoke(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_join_token(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_deposit(const struct http_call *call, struct command_draft *draft, struct err *err);
int fill_enrol(const struct http_call *call, struct command_draft *draft, struct err *err);

/* What a command that was done says, kept until its answer is whole. */
struct command_done {
    struct uuid object;
    bool replayed;
    int64_t amount;
    json_t *body;          /* of the reply; object or NULL */
    json_t *request;       /* what was asked; borrowed reference of ours */
    struct map *in_flight; /* NULL without an idempotency key; else holds key_hash while we wait */
    uint8_t key_hash[SHA256_SIZE];
    char currency[SPEC_CURRENCY_TEXT];
};
/* Composed answers of routes without a query; NULL and err on a strange reply. */
json_t *compose_plan(const struct gateway *gateway, const struct command_done *done,
                     struct err *err);
json_t *compose_join_token(const struct gateway *gateway, const struct command_done *done,
                           struct err *err);

/* -- particular ----------------------------------------------------------------------------- */
void api_join(struct gateway *gateway, struct http_call *call);
void api_job_events(struct gateway *gateway, struct http_call *call);
void api_job_logs(struct gateway *gateway, struct http_call *call);
void api_output(struct gateway *gateway, struct http_call *call);
void api_upload_begin(struct gateway *gateway, struct http_call *call);
void api_upload_part(struct gateway *gateway, struct http_call *call);
void api_upload_commit(struct gateway *gateway, struct http_call *call);
void api_healthz(struct gateway *gateway, struct http_call *call);
void api_readyz(struct gateway *gateway, struct http_call *call);
void api_metrics(struct gateway *gateway, struct http_call *call);
void api_version(struct gateway *gateway, struct http_call *call);
void api_openapi(struct gateway *gateway, struct http_call *call);
void api_error(struct gateway *gateway, struct http_call *call);
void api_ca(struct gateway *gateway, struct http_call *call);
void api_join_script(struct gateway *gateway, struct http_call *call);
void api_package(struct gateway *gateway, struct http_call *call);
void api_page(struct gateway *gateway, struct http_call *call);

/* -- shared by them ------------------------------------------------------------------------- */
const struct caller *call_caller(const struct http_call *call);
const struct route *call_route(const struct http_call *call);
void api_json(struct http_call *call, int status, json_t *value); /* takes the reference */
/* Adds $n = PARAM_ALL and PARAM_PROJECT of the caller. */
void api_add_sight(struct db_args *args, const struct http_call *call);
/* Asks one statement on behalf of the caller: with no more sight than theirs. */
void api_ask(struct gateway *gateway, const struct http_call *call, struct db_args *args,
             db_on_done_f on_done, void *arg);
/* The JSON object of the body, checked for media type. The caller owns it. */
int api_body(const struct http_call *call, json_t **ret_body, struct err *err) SHEAF_MUST_USE;
/* Refuses keys other than those named (a NULL-ended list). */
int api_only_fields(const json_t *body, const char *const *names, struct err *err) SHEAF_MUST_USE;
int api_text_field(const json_t *body, const char *key, bool required, const char **ret_text,
                   struct err *err) SHEAF_MUST_USE;
int api_int_field(const json_t *body, const char *key, int64_t max, int64_t *ret_value,
                  struct err *err) SHEAF_MUST_USE;
/* A refusal of the orchestrator as ours. */
void api_reply_error(const Sheaf__CommandReply *reply, struct err *ret_err);
/* jsonb constants for gateway->reasons and ->scopes; caller frees. */
char *api_reasons(void);
char *api_scopes(void);

#endif
