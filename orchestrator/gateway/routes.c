#include "orchestrator/gateway/api.h"
#include "orchestrator/gateway/content.h"

#define V1 "/api/v1"

/* clang-format off */
const struct route gateway_routes[] = {
    /* -- jobs ------------------------------------------------------------------------------ */
    {"POST", V1 "/jobs", SCOPE_JOBS_WRITE, ROUTE_KEYED, api_command, QUERY_JOB, fill_submit, 201, 0},
    {"GET", V1 "/jobs", SCOPE_JOBS_READ, 0, api_query, QUERY_JOBS, NULL, 0, 0},
    {"GET", V1 "/jobs/{id}", SCOPE_JOBS_READ, 0, api_query, QUERY_JOB, NULL, 0, 0},
    {"POST", V1 "/jobs/{id}/cancel", SCOPE_JOBS_WRITE, 0, api_command, QUERY_JOB, fill_cancel, 202, 0},
    {"GET", V1 "/jobs/{id}/why", SCOPE_JOBS_READ, 0, api_query, QUERY_JOB_WHY, NULL, 0, 0},
    {"GET", V1 "/jobs/{id}/events", SCOPE_JOBS_READ, 0, api_job_events, QUERY_JOB_EVENTS, NULL, 0, 0},
    {"GET", V1 "/jobs/{id}/logs", SCOPE_JOBS_READ, 0, api_job_logs, QUERY_NONE, NULL, 0, 0},
    {"GET", V1 "/jobs/{id}/cost", SCOPE_JOBS_READ, 0, api_query, QUERY_JOB_COST, NULL, 0, 0},
    {"GET", V1 "/jobs/{id}/outputs", SCOPE_JOBS_READ, 0, api_query, QUERY_JOB_OUTPUTS, NULL, 0, 0},
    {"GET", V1 "/jobs/{id}/outputs/{rank}", SCOPE_JOBS_READ, 0, api_output, QUERY_NONE, NULL, 0, 0},
    {"POST", V1 "/plans", SCOPE_JOBS_READ, 0, api_command, QUERY_NONE, fill_plan, 200, 0},
    /* -- hardware -------------------------------------------------------------------------- */
    {"GET", V1 "/offers", ROUTE_ANY_TOKEN, 0, api_query, QUERY_OFFERS, NULL, 0, 0},
    {"GET", V1 "/nodes", SCOPE_NODES_READ, 0, api_query, QUERY_NODES, NULL, 0, 0},
    {"GET", V1 "/nodes/{id}", SCOPE_NODES_READ, 0, api_query, QUERY_NODE, NULL, 0, 0},
    {"POST", V1 "/nodes/{id}/drain", SCOPE_NODES_WRITE, 0, api_command, QUERY_NODE, fill_node_drain, 200, 0},
    {"POST", V1 "/nodes/{id}/undrain", SCOPE_NODES_WRITE, 0, api_command, QUERY_NODE, fill_node_undrain, 200, 0},
    {"GET", V1 "/network/pairs", SCOPE_NODES_READ, 0, api_query, QUERY_PAIRS, NULL, 0, 0},
    {"POST", V1 "/join-tokens", SCOPE_NODES_WRITE, 0, api_command, QUERY_NONE, fill_join_token, 201, 0},
    {"GET", V1 "/join-tokens", SCOPE_NODES_READ, 0, api_query, QUERY_JOIN_TOKENS, NULL, 0, 0},
    {"POST", V1 "/join", 0, 0, api_command, QUERY_NONE, fill_enrol, 201, 0},
    /* -- files ----------------------------------------------------------------------------- */
    {"POST", V1 "/uploads", SCOPE_JOBS_WRITE, 0, api_upload_begin, QUERY_NONE, NULL, 0, 0},
    {"PUT", V1 "/uploads/{sha256}/parts/{n}", SCOPE_JOBS_WRITE, 0, api_upload_part, QUERY_NONE, NULL, 0, CONTENT_PART},
    {"POST", V1 "/uploads/{sha256}/commit", SCOPE_JOBS_WRITE, 0, api_upload_commit, QUERY_NONE, NULL, 0, 0},
    /* -- money ----------------------------------------------------------------------------- */
    {"GET", V1 "/accounts", SCOPE_MONEY_READ, 0, api_query, QUERY_ACCOUNTS, NULL, 0, 0},
    {"GET", V1 "/accounts/{id}/ledger", SCOPE_MONEY_READ, 0, api_query, QUERY_LEDGER, NULL, 0, 0},
    {"POST", V1 "/deposits", SCOPE_MONEY_WRITE, ROUTE_KEYED, api_command, QUERY_NONE, fill_deposit, 201, 0},
    /* -- people and tokens ----------------------------------------------------------------- */
    {"POST", V1 "/projects", SCOPE_ADMIN, 0, api_command, QUERY_PROJECT, fill_project, 201, 0},
    {"GET", V1 "/projects", ROUTE_ANY_TOKEN, 0, api_query, QUERY_PROJECTS, NULL, 0, 0},
    {"POST", V1 "/users", SCOPE_ADMIN, 0, api_command, QUERY_USER, fill_user, 201, 0},
    {"GET", V1 "/users", SCOPE_ADMIN, 0, api_query, QUERY_USERS, NULL, 0, 0},
    {"POST", V1 "/tokens", SCOPE_ADMIN, ROUTE_WRAPPED, api_command, QUERY_TOKEN, fill_token, 201, 0},
    {"GET", V1 "/tokens", SCOPE_ADMIN, 0, api_query, QUERY_TOKENS, NULL, 0, 0},
    {"DELETE", V1 "/tokens/{id}", SCOPE_ADMIN, 0, api_command, QUERY_NONE, fill_revoke, 204, 0},
    {"GET", V1 "/whoami", ROUTE_ANY_TOKEN, 0, api_query, QUERY_WHOAMI, NULL, 0, 0},
    /* -- the process ----------------------------------------------------------------------- */
    {"GET", "/healthz", 0, 0, api_healthz, QUERY_NONE, NULL, 0, 0},
    {"GET", "/readyz", 0, 0, api_readyz, QUERY_NONE, NULL, 0, 0},
    {"GET", "/metrics", 0, 0, api_metrics, QUERY_NONE, NULL, 0, 0},
    {"GET", "/version", 0, 0, api_version, QUERY_NONE, NULL, 0, 0},
    {"GET", "/openapi.json", 0, 0, api_openapi, QUERY_NONE, NULL, 0, 0},
    {"GET", "/ca.pem", 0, 0, api_ca, QUERY_NONE, NULL, 0, 0},
    {"GET", "/", 0, 0, api_page, QUERY_SUMMARY, NULL, 0, 0},
    {NULL, NULL, 0, 0, NULL, QUERY_NONE, NULL, 0, 0},
};
/* clang-format on */
