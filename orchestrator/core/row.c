#include "orchestrator/core/row.h"

#include <string.h>

static const struct {
    const char *table;
    bool append;
} kinds[ROW_KIND_COUNT] = {
    [ROW_CONTROL] = {"control", false},
    [ROW_PROJECT] = {"project", false},
    [ROW_PROVIDER] = {"provider", false},
    [ROW_USER] = {"app_user", false},
    [ROW_TOKEN] = {"token", false},
    [ROW_JOIN_TOKEN] = {"join_token", false},
    [ROW_ACCOUNT] = {"account", false},
    [ROW_NODE] = {"node", false},
    [ROW_NODE_EVENT] = {"node_event", true},
    [ROW_DEVICE] = {"device", false},
    [ROW_SLOT] = {"slot", false},
    [ROW_LINK] = {"link", false},
    [ROW_JOB] = {"job", false},
    [ROW_ATTEMPT] = {"attempt", false},
    [ROW_RANK] = {"gang_rank", false},
    [ROW_LEASE] = {"lease", false},
    [ROW_LEASE_SLOT] = {"lease_slot", false},
    [ROW_TRANSFER] = {"transfer", true},
    [ROW_JOB_EVENT] = {"job_event", true},
    [ROW_RECEIPT] = {"receipt", true},
    [ROW_CONTENT] = {"content", false},
    [ROW_JOB_OUTPUT] = {"job_output", false},
    [ROW_IDEM] = {"idem", false},
};

const char *row_table(enum row_kind kind)
{
    BUG_ON(kind >= ROW_KIND_COUNT);
    return kinds[kind].table;
}

bool row_is_append(enum row_kind kind)
{
    BUG_ON(kind >= ROW_KIND_COUNT);
    return kinds[kind].append;
}

/* FNV-1a: the keys of one batch are few and chosen by nobody who gains from a collision. */
static uint64_t text_hash(const char *text)
{
    uint64_t hash = 14695981039346656037u;

    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++)
        hash = (hash ^ *at) * 1099511628211u;
    return hash;
}

static struct row_key by_id(uint64_t id)
{
    return (struct row_key){.high = 0, .low = id};
}

struct row_key row_key(const struct row *row)
{
    switch (row->kind) {
    case ROW_CONTROL:
        return by_id(1);
    case ROW_PROJECT:
        return by_id(row->project.id);
    case ROW_PROVIDER:
        return by_id(row->provider.id);
    case ROW_USER:
        return by_id(row->user.id);
    case ROW_TOKEN:
        return by_id(row->token.id);
    case ROW_JOIN_TOKEN:
        return by_id(row->join_token.id);
    case ROW_ACCOUNT:
        return by_id(row->account.id);
    case ROW_NODE:
        return by_id(row->node.id);
    case ROW_NODE_EVENT:
        return by_id(row->node_event.id);
    case ROW_DEVICE:
        return by_id(row->device.id);
    case ROW_SLOT:
        return by_id(row->slot.id);
    case ROW_LINK:
        return (struct row_key){.high = row->link.a, .low = row->link.b};
    case ROW_JOB:
        return by_id(row->job.id);
    case ROW_ATTEMPT:
        return by_id(row->attempt.id);
    case ROW_RANK:
        return by_id(row->rank.id);
    case ROW_LEASE:
        return by_id(row->lease.id);
    case ROW_LEASE_SLOT:
        return (struct row_key){.high = row->lease_slot.lease, .low = row->lease_slot.slot};
    case ROW_TRANSFER:
        return by_id(row->transfer.id);
    case ROW_JOB_EVENT:
        return by_id(row->job_event.id);
    case ROW_RECEIPT:
        return by_id(row->receipt.id);
    case ROW_CONTENT:
        return by_id(row->content.id);
    case ROW_JOB_OUTPUT:
        return by_id(row->job_output.id);
    case ROW_IDEM:
        return (struct row_key){.high = row->idem.token, .low = text_hash(row->idem.key)};
    case ROW_KIND_COUNT:
    default:
        break;
    }
    BUG_ON(true);
}

/* -- names ----------------------------------------------------------------------------------- */

static unsigned index_of(const char *const *names, unsigned count, const char *name)
{
    unsigned i = 0;

    while (i < count && strcmp(names[i], name) != 0)
        i++;
    return i;
}

static const char *const role_names[ROLE_COUNT] = {
    [ROLE_TENANT] = "tenant",   [ROLE_PROVIDER] = "provider", [ROLE_OPERATOR] = "operator",
    [ROLE_AUDITOR] = "auditor", [ROLE_GATEWAY] = "gateway",
};

const char *role_name(enum role role)
{
    BUG_ON(role >= ROLE_COUNT);
    return role_names[role];
}

enum role role_parse(const char *name)
{
    return (enum role)index_of(role_names, ROLE_COUNT, name);
}

static const struct {
    enum scope scope;
    const char *name;
} scopes[] = {
    {SCOPE_JOBS_READ, "jobs:read"},   {SCOPE_JOBS_WRITE, "jobs:write"},
    {SCOPE_NODES_READ, "nodes:read"}, {SCOPE_NODES_WRITE, "nodes:write"},
    {SCOPE_MONEY_READ, "money:read"}, {SCOPE_MONEY_WRITE, "money:write"},
    {SCOPE_ADMIN, "admin"},
};

const char *scope_name(enum scope scope)
{
    for (unsigned i = 0; i < sizeof(scopes) / sizeof(scopes[0]); i++) {
        if (scopes[i].scope == scope)
            return scopes[i].name;
    }
    return NULL;
}

uint32_t scope_parse(const char *name)
{
    for (unsigned i = 0; i < sizeof(scopes) / sizeof(scopes[0]); i++) {
        if (strcmp(scopes[i].name, name) == 0)
            return scopes[i].scope;
    }
    return 0;
}

uint32_t role_scopes(enum role role)
{
    static const uint32_t given[ROLE_COUNT] = {
        [ROLE_TENANT] = SCOPE_JOBS_READ | SCOPE_JOBS_WRITE | SCOPE_NODES_READ | SCOPE_MONEY_READ,
        [ROLE_PROVIDER] = SCOPE_NODES_READ | SCOPE_NODES_WRITE | SCOPE_MONEY_READ,
        [ROLE_OPERATOR] = SCOPE_JOBS_READ | SCOPE_JOBS_WRITE | SCOPE_NODES_READ | SCOPE_NODES_WRITE
                          | SCOPE_MONEY_READ | SCOPE_MONEY_WRITE | SCOPE_ADMIN,
        [ROLE_AUDITOR] = SCOPE_JOBS_READ | SCOPE_NODES_READ | SCOPE_MONEY_READ,
        [ROLE_GATEWAY] = 0, /* stores outputs by its role; everything else by its caller's token */
    };

    BUG_ON(role >= ROLE_COUNT);
    return given[role];
}

static const char *const purpose_names[PURPOSE_COUNT] = {
    [PURPOSE_AVAILABLE] = "available", [PURPOSE_ESCROW] = "escrow", [PURPOSE_EARNED] = "earned",
    [PURPOSE_STAKE] = "stake",         [PURPOSE_FEES] = "fees",     [PURPOSE_REWARDS] = "rewards",
    [PURPOSE_EXTERNAL] = "external",
};

const char *account_purpose_name(enum account_purpose purpose)
{
    BUG_ON(purpose >= PURPOSE_COUNT);
    return purpose_names[purpose];
}

enum account_purpose account_purpose_parse(const char *name)
{
    return (enum account_purpose)index_of(purpose_names, PURPOSE_COUNT, name);
}

static const char *const transfer_names[TRANSFER_COUNT] = {
    [TRANSFER_DEPOSIT] = "deposit", [TRANSFER_HOLD] = "hold",       [TRANSFER_EARN] = "earn",
    [TRANSFER_FEE] = "fee",         [TRANSFER_RELEASE] = "release", [TRANSFER_REFUND] = "refund",
};

const char *transfer_kind_name(enum transfer_kind kind)
{
    BUG_ON(kind >= TRANSFER_COUNT);
    return transfer_names[kind];
}

enum transfer_kind transfer_kind_parse(const char *name)
{
    return (enum transfer_kind)index_of(transfer_names, TRANSFER_COUNT, name);
}

static const char *const slot_names[SLOT_KIND_COUNT] = {
    [SLOT_WHOLE] = "whole",
    [SLOT_MIG] = "mig",
    [SLOT_SHARE] = "share",
};

const char *slot_kind_name(enum slot_kind kind)
{
    BUG_ON(kind >= SLOT_KIND_COUNT);
    return slot_names[kind];
}

enum slot_kind slot_kind_parse(const char *name)
{
    return (enum slot_kind)index_of(slot_names, SLOT_KIND_COUNT, name);
}

int row_compare(const void *left, const void *right)
{
    const struct row *a = *(const struct row *const *)left;
    const struct row *b = *(const struct row *const *)right;
    struct row_key x = row_key(a);
    struct row_key y = row_key(b);

    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (x.high != y.high)
        return x.high < y.high ? -1 : 1;
    return x.low < y.low ? -1 : x.low > y.low;
}
