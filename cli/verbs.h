#ifndef SHEAF_CLI_VERBS_H
#define SHEAF_CLI_VERBS_H

/* The functions behind the rows of the command table; each returns an exit code. */
#include "cli/command.h"

int verb_login(const struct args *args);
int verb_init(const struct args *args);
int verb_context_ls(const struct args *args);
int verb_context_use(const struct args *args);
int verb_context_rm(const struct args *args);
int verb_help(const struct args *args);
int verb_man(const struct args *args);
int verb_completion(const struct args *args);
int verb_version(const struct args *args);

int verb_plan(const struct args *args);
int verb_apply(const struct args *args);
int verb_run(const struct args *args);

int verb_ps(const struct args *args);
int verb_show(const struct args *args);
int verb_why(const struct args *args);
int verb_logs(const struct args *args);
int verb_events(const struct args *args);
int verb_wait(const struct args *args);
int verb_cancel(const struct args *args);
int verb_get(const struct args *args);
int verb_cost(const struct args *args);

int verb_offer(const struct args *args);
int verb_node_ls(const struct args *args);
int verb_node_show(const struct args *args);
int verb_node_drain(const struct args *args);
int verb_node_undrain(const struct args *args);
int verb_node_revoke(const struct args *args);
int verb_net(const struct args *args);

int verb_account(const struct args *args);
int verb_token_ls(const struct args *args);
int verb_token_create(const struct args *args);
int verb_token_join(const struct args *args);
int verb_token_revoke(const struct args *args);
int verb_admin_project_ls(const struct args *args);
int verb_admin_project_create(const struct args *args);
int verb_admin_user_ls(const struct args *args);
int verb_admin_user_create(const struct args *args);
int verb_admin_deposit(const struct args *args);

#endif
