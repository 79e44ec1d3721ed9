#include "orchestrator/core/event.h"

#include <string.h>

static const char *const event_names[EV_KIND_COUNT] = {
    [EV_JOB_SUBMIT] = "job_submit",
    [EV_JOB_CANCEL] = "job_cancel",
    [EV_PLAN] = "plan",
    [EV_PROJECT_CREATE] = "project_create",
    [EV_PROVIDER_CREATE] = "provider_create",
    [EV_USER_CREATE] = "user_create",
    [EV_TOKEN_CREATE] = "token_create",
    [EV_TOKEN_REVOKE] = "token_revoke",
    [EV_JOIN_TOKEN_CREATE] = "join_token_create",
    [EV_DEPOSIT] = "deposit",
    [EV_NODE_ENROL] = "node_enrol",
    [EV_NODE_SET] = "node_set",
    [EV_CONTENT_ADD] = "content_add",
    [EV_OUTPUT_STORED] = "output_stored",
    [EV_NODE_HELLO] = "node_hello",
    [EV_NODE_BYE] = "node_bye",
    [EV_SELFTEST] = "selftest",
    [EV_TASK] = "task",
    [EV_RECEIPT] = "receipt",
    [EV_DEVICE_USE] = "device_use",
    [EV_LINK] = "link",
    [EV_NODE_SILENT] = "node_silent",
    [EV_NODE_BACK] = "node_back",
    [EV_NODE_OFFENCE] = "node_offence",
    [EV_TICK] = "tick",
    [EV_BOOT] = "boot",
};

static const char *const verb_names[NODE_VERB_COUNT] = {
    [NODE_DRAIN] = "drain",   [NODE_UNDRAIN] = "undrain", [NODE_PAUSE] = "pause",
    [NODE_RESUME] = "resume", [NODE_LEAVE] = "leave",     [NODE_SET_PRICE] = "price",
    [NODE_REVOKE] = "revoke",
};

static const char *const news_names[TASK_NEWS_COUNT] = {
    [TASK_PREPARING] = "preparing", [TASK_PROGRESS] = "progress", [TASK_READY] = "ready",
    [TASK_STARTED] = "started",     [TASK_EXITED] = "exited",     [TASK_DONE] = "done",
    [TASK_REFUSED] = "refused",
};

static const char *const order_names[ORDER_KIND_COUNT] = {
    [ORDER_PREPARE] = "prepare",   [ORDER_GO] = "go",
    [ORDER_STOP] = "stop",         [ORDER_FORGET] = "forget",
    [ORDER_SELFTEST] = "selftest", [ORDER_PROBE] = "probe",
};

const char *event_kind_name(enum event_kind kind)
{
    BUG_ON(kind >= EV_KIND_COUNT);
    return event_names[kind];
}

const char *node_verb_name(enum node_verb verb)
{
    BUG_ON(verb >= NODE_VERB_COUNT);
    return verb_names[verb];
}

enum node_verb node_verb_parse(const char *name)
{
    unsigned i = 0;

    while (i < NODE_VERB_COUNT && strcmp(verb_names[i], name) != 0)
        i++;
    return (enum node_verb)i;
}

const char *task_news_name(enum task_news news)
{
    BUG_ON(news >= TASK_NEWS_COUNT);
    return news_names[news];
}

enum task_news task_news_parse(const char *name)
{
    unsigned i = 0;

    while (i < TASK_NEWS_COUNT && strcmp(news_names[i], name) != 0)
        i++;
    return (enum task_news)i;
}

const char *order_kind_name(enum order_kind kind)
{
    BUG_ON(kind >= ORDER_KIND_COUNT);
    return order_names[kind];
}
