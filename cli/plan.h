#ifndef SHEAF_CLI_PLAN_H
#define SHEAF_CLI_PLAN_H

/* The placement answer (`Why` of the API) as a person reads it. */
#include <jansson.h>

#include "common/io/httpc.h"
#include "common/pure/err.h"

/* POST /plans. {"why", "hold", "currency", "trust"} */
int plan_ask(const struct httpc *client, const json_t *spec, json_t **ret_plan,
             struct err *err) SHEAF_MUST_USE;
/* Nodes, links, price, hold, trust. */
void plan_print(const json_t *plan);
/* Funnel, binding reason, relaxations, rejected nodes. indent = leading spaces. */
void why_print(const json_t *why);
/* One line each: now, price, worst RTT; or what would make it possible. */
void plan_print_offer(const json_t *plan, long nodes, const char *gpu);

#endif
