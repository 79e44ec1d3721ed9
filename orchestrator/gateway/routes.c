#include "orchestrator/gateway/api.h"
#include "orchestrator/gateway/content.h"

#define V1 "/api/v1"

/* clang-format off */
const struct route gateway_routes[] = {
    /* -- jobs ------------------------------------------------------------------------------ */
    {"POST", V1 "/jobs", SCOPE_JOBS_WRITE, OWNER_PROJECT, ROUTE_KEYED, api_command, QUERY_JOB, 201, fill_submit, 0},
    {"GET", V1 "/jobs", SCOPE_JOBS_READ, OWNER_PROJECT, 0, api_query, QUERY_JOBS, 0, NULL, 0},
    {"GET", V1 "/jobs/{id}", SCOPE_JOBS_READ, OWNER_PROJECT, 0, api_query, QUERY_JOB, 0, NULL, 0},
    {"POST", V1 "/jobs/{id}/cancel", SCOPE_JOBS_WRITE, OWNER_PROJECT, 0, api_command, QUERY_JOB, 202, fill_cancel, 0},
    {"GET", V1 "/jobs/{id}/why", SCOPE_JOBS_READ, OWNER_PROJECT, 0, api_query, QUERY_JOB_WHY, 0, NULL, 0},
    {"GET", V1 "/jobs/{id}/events", SCOPE_JOBS_READ, OWNER_PROJECT, 0, api_job_events, QUERY_JOB_EVENTS, 0, NULL, 0},
    {"GET", V1 "/jobs/{id}/logs", SCOPE_JOBS_READ, OWNER_PROJECT, 0, api_job_logs, QUERY_NONE, 0, NULL, 0},
    {"GET", V1 "/jobs/{id}/cost", SCOPE_JOBS_READ, OWNER_PROJECT, 0, api_query, QUERY_JOB_COST, 0, NULL, 0},
    {"GET", V1 "/jobs/{id}/outputs", SCOPE_JOBS_READ, OWNER_PROJECT, 0, api_query, QUERY_JOB_OUTPUTS, 0, NULL, 0},
    {"GET", V1 "/jobs/{id}/outputs/{rank}", SCOPE_JOBS_READ, OWNER_PROJECT, 0, api_output, QUERY_NONE, 0, NULL, 0},
    {"POST", V1 "/plans", SCOPE_JOBS_READ, OWNER_POOL, 0, api_command, QUERY_NONE, 200, fill_plan, 0},
    /* -- hardware -------------------------------------------------------------------------- */
    {"GET", V1 "/offers", ROUTE_ANY_TOKEN, OWNER_POOL, 0, api_query, QUERY_OFFERS, 0, NULL, 0},
    {"GET", V1 "/nodes", SCOPE_NODES_READ, OWNER_HARDWARE, 0, api_query, QUERY_NODES, 0, NULL, 0},
    {"GET", V1 "/nodes/{id}", SCOPE_NODES_READ, OWNER_HARDWARE, 0, api_query, QUERY_NODE, 0, NULL, 0},
    {"POST", V1 "/nodes/{id}/drain", SCOPE_NODES_WRITE, OWNER_HARDWARE, 0, api_command, QUERY_NODE, 200, fill_node_drain, 0},
    {"POST", V1 "/nodes/{id}/undrain", SCOPE_NODES_WRITE, OWNER_HARDWARE, 0, api_command, QUERY_NODE, 200, fill_node_undrain, 0},
    {"POST", V1 "/nodes/{id}/revoke", SCOPE_ADMIN, OWNER_HARDWARE, 0, api_command, QUERY_NODE, 200, fill_node_revoke, 0},
    {"GET", V1 "/network/pairs", SCOPE_NODES_READ, OWNER_POOL, 0, api_query, QUERY_PAIRS, 0, NULL, 0},
    {"POST", V1 "/join-tokens", SCOPE_NODES_WRITE, OWNER_PROVIDER, 0, api_command, QUERY_NONE, 201, fill_join_token, 0},
    {"GET", V1 "/join-tokens", SCOPE_NODES_READ, OWNER_PROVIDER, 0, api_query, QUERY_JOIN_TOKENS, 0, NULL, 0},
    {"POST", V1 "/join", 0, OWNER_POOL, ROUTE_SECRET, api_command, QUERY_NONE, 201, fill_enrol, 0},
    /* -- files ----------------------------------------------------------------------------- */
    {"POST", V1 "/uploads", SCOPE_JOBS_WRITE, OWNER_PROJECT, 0, api_upload_begin, QUERY_NONE, 0, NULL, 0},
    {"PUT", V1 "/uploads/{sha256}/parts/{n}", SCOPE_JOBS_WRITE, OWNER_PROJECT, 0, api_upload_part, QUERY_NONE, 0, NULL, CONTENT_PART},
    {"POST", V1 "/uploads/{sha256}/commit", SCOPE_JOBS_WRITE, OWNER_PROJECT, 0, api_upload_commit, QUERY_NONE, 0, NULL, 0},
    /* -- money ----------------------------------------------------------------------------- */
    {"GET", V1 "/accounts", SCOPE_MONEY_READ, OWNER_PARTY, 0, api_query, QUERY_ACCOUNTS, 0, NULL, 0},
    {"GET", V1 "/accounts/{id}/ledger", SCOPE_MONEY_READ, OWNER_PARTY, 0, api_query, QUERY_LEDGER, 0, NULL, 0},
    {"POST", V1 "/deposits", SCOPE_MONEY_WRITE, OWNER_PROJECT, ROUTE_KEYED, api_command, QUERY_NONE, 201, fill_deposit, 0},
    /* -- people and tokens ----------------------------------------------------------------- */
    {"POST", V1 "/projects", SCOPE_ADMIN, OWNER_POOL, 0, api_command, QUERY_PROJECT, 201, fill_project, 0},
    {"GET", V1 "/projects", ROUTE_ANY_TOKEN, OWNER_PROJECT, 0, api_query, QUERY_PROJECTS, 0, NULL, 0},
    {"POST", V1 "/users", SCOPE_ADMIN, OWNER_POOL, 0, api_command, QUERY_USER, 201, fill_user, 0},
    {"GET", V1 "/users", SCOPE_ADMIN, OWNER_POOL, 0, api_query, QUERY_USERS, 0, NULL, 0},
    {"POST", V1 "/tokens", SCOPE_ADMIN, OWNER_POOL, ROUTE_WRAPPED | ROUTE_TOKENS, api_command, QUERY_TOKEN, 201, fill_token, 0},
    {"GET", V1 "/tokens", SCOPE_ADMIN, OWNER_POOL, 0, api_query, QUERY_TOKENS, 0, NULL, 0},
    {"DELETE", V1 "/tokens/{id}", SCOPE_ADMIN, OWNER_POOL, ROUTE_TOKENS, api_command, QUERY_NONE, 204, fill_revoke, 0},
    {"GET", V1 "/whoami", ROUTE_ANY_TOKEN, OWNER_CALLER, 0, api_query, QUERY_WHOAMI, 0, NULL, 0},
    /* -- the process ----------------------------------------------------------------------- */
    {"GET", "/healthz", 0, OWNER_POOL, 0, api_healthz, QUERY_NONE, 0, NULL, 0},
    {"GET", "/readyz", 0, OWNER_POOL, 0, api_readyz, QUERY_NONE, 0, NULL, 0},
    {"GET", "/metrics", 0, OWNER_POOL, 0, api_metrics, QUERY_NONE, 0, NULL, 0},
    {"GET", "/version", 0, OWNER_POOL, 0, api_version, QUERY_NONE, 0, NULL, 0},
    {"GET", "/openapi.json", 0, OWNER_POOL, 0, api_openapi, QUERY_NONE, 0, NULL, 0},
    {"GET", "/errors/{code}", 0, OWNER_POOL, 0, api_error, QUERY_NONE, 0, NULL, 0},
    {"GET", "/ca.pem", 0, OWNER_POOL, 0, api_ca, QUERY_NONE, 0, NULL, 0},
    {"GET", "/join.sh", 0, OWNER_POOL, 0, api_join_script, QUERY_NONE, 0, NULL, 0},
    {"GET", "/packages/{file}", 0, OWNER_POOL, 0, api_package, QUERY_NONE, 0, NULL, 0},
    {"GET", "/", 0, OWNER_POOL, 0, api_page, QUERY_SUMMARY, 0, NULL, 0},
    {NULL, NULL, 0, OWNER_POOL, 0, NULL, QUERY_NONE, 0, NULL, 0},
};
/* clang-format on */
