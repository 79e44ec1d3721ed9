#include "orchestrator/store/column.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/json.h"
#include "orchestrator/store/why_json.h"

/* Types of the wire, from PostgreSQL's pg_type.dat; they never change. */
enum {
    OID_BOOL = 16,
    OID_BYTEA = 17,
    OID_INT8 = 20,
    OID_TEXT = 25,
    OID_UUID = 2950,
    OID_JSONB = 3802,
};

/* -- names of enums ---------------------------------------------------------------------------- */

/* NOLINTBEGIN(bugprone-macro-parentheses): names of types and members take none. */
#define NAMES(id, type, namer, parser, limit)                                                      \
    static const char *id##_name(int value)                                                        \
    {                                                                                              \
        return namer((enum type)value);                                                            \
    }                                                                                              \
    static int id##_parse(const char *name)                                                        \
    {                                                                                              \
        return (int)parser(name);                                                                  \
    }                                                                                              \
    static const struct column_names id##_names = {id##_name, id##_parse, (int)(limit)};

/* A parser without a count constant answers its first value: an unknown name is found by that. */
static enum fail_class fail_parse_strict(const char *name)
{
    enum fail_class class = fail_class_parse(name);
    return strcmp(fail_class_name(class), name) == 0 ? class : FAIL_CLASS_COUNT;
}

static enum err_actor actor_parse(const char *name)
{
    for (enum err_actor actor = ERR_ACTOR_NONE; actor <= ERR_ACTOR_PLATFORM; actor++) {
        if (strcmp(err_actor_name(actor), name) == 0)
            return actor;
    }
    return (enum err_actor)(ERR_ACTOR_PLATFORM + 1);
}

NAMES(role_of, role, role_name, role_parse, ROLE_COUNT)
NAMES(purpose, account_purpose, account_purpose_name, account_purpose_parse, PURPOSE_COUNT)
NAMES(kind_of_transfer, transfer_kind, transfer_kind_name, transfer_kind_parse, TRANSFER_COUNT)
NAMES(kind_of_slot, slot_kind, slot_kind_name, slot_kind_parse, SLOT_KIND_COUNT)
NAMES(job, job_state, job_state_name, job_state_parse, JOB_STATE_COUNT)
NAMES(attempt, attempt_state, attempt_state_name, attempt_state_parse, ATTEMPT_STATE_COUNT)
NAMES(rank, rank_state, rank_state_name, rank_state_parse, RANK_STATE_COUNT)
NAMES(node, node_state, node_state_name, node_state_parse, NODE_STATE_COUNT)
NAMES(tier_of, tier, tier_name, tier_parse, TIER_COUNT)
NAMES(class_of, device_class, device_class_name, device_class_parse, DEVICE_CLASS_COUNT)
NAMES(fail, fail_class, fail_class_name, fail_parse_strict, FAIL_CLASS_COUNT)
NAMES(actor_of, err_actor, err_actor_name, actor_parse, ERR_ACTOR_PLATFORM + 1)

/* -- columns of each kind -----------------------------------------------------------------------
 */

#define AT(member, field)   offsetof(struct row, member.field)
#define SIZE(member, field) sizeof(((struct row *)0)->member.field)
#define COL(member, field, type)                                                                   \
    {                                                                                              \
#field, COLUMN_##type, false, AT(member, field), 0, SIZE(member, field), NULL              \
    }
#define KEY(member, field, type)                                                                   \
    {                                                                                              \
#field, COLUMN_##type, true, AT(member, field), 0, SIZE(member, field), NULL               \
    }
#define ENU(member, field, names)                                                                  \
    {                                                                                              \
#field, COLUMN_ENUM, false, AT(member, field), 0, SIZE(member, field), &names##_names      \
    }
#define ENUN(member, field, names)                                                                 \
    {                                                                                              \
#field, COLUMN_ENUM_NULL, false, AT(member, field), 0, SIZE(member, field), &names##_names \
    }
/* NOLINTEND(bugprone-macro-parentheses) */

static const struct column CONTROL[] = {
    COL(control, next_id, U64),
    COL(control, now_us, I64),
};

static const struct column PROJECT[] = {
    KEY(project, id, I64_NULL),
    COL(project, uid, UUID),
    COL(project, name, TEXT),
    COL(project, created_us, I64_NULL),
};

static const struct column PROVIDER[] = {
    KEY(provider, id, I64_NULL),
    COL(provider, uid, UUID),
    COL(provider, name, TEXT),
    COL(provider, created_us, I64_NULL),
};

static const struct column USER[] = {
    KEY(user, id, I64_NULL),         COL(user, uid, UUID),
    COL(user, name, TEXT),           ENU(user, role, role_of),
    COL(user, created_us, I64_NULL),
};

static const struct column TOKEN[] = {
    KEY(token, id, I64_NULL),         COL(token, uid, UUID),
    COL(token, hash, BYTES),          COL(token, prefix, TEXT),
    COL(token, project, I64_NULL),    COL(token, provider, I64_NULL),
    COL(token, user, I64_NULL),       ENU(token, role, role_of),
    COL(token, scopes, U32),          COL(token, created_us, I64_NULL),
    COL(token, expires_us, I64_NULL), COL(token, revoked_us, I64_NULL),
};

static const struct column JOIN_TOKEN[] = {
    KEY(join_token, id, I64_NULL),         COL(join_token, uid, UUID),
    COL(join_token, hash, BYTES),          COL(join_token, provider, I64_NULL),
    COL(join_token, uses_left, U32),       COL(join_token, created_us, I64_NULL),
    COL(join_token, expires_us, I64_NULL),
};

static const struct column ACCOUNT[] = {
    KEY(account, id, I64_NULL),      COL(account, uid, UUID),
    COL(account, project, I64_NULL), COL(account, provider, I64_NULL),
    ENU(account, purpose, purpose),  COL(account, asset, TEXT),
    COL(account, balance, I64),
};

static const struct column NODE[] = {
    KEY(node, id, I64_NULL),       COL(node, uid, UUID),
    COL(node, provider, I64_NULL), COL(node, name, TEXT),
    ENU(node, state, node),        COL(node, conditions, U32),
    COL(node, reason, REASON),     COL(node, detail, TEXT),
    COL(node, curve_key, BYTES),   COL(node, sign_key, BYTES),
    COL(node, machine, BYTES),     COL(node, region, TEXT),
    COL(node, country, TEXT),      COL(node, address, TEXT),
    COL(node, port_low, U32),      COL(node, port_high, U32),
    COL(node, probe_port, U32),    COL(node, cpu_milli, U32),
    COL(node, memory_mib, U32),    COL(node, disk_mib, U32),
    COL(node, runtime, TEXT),      COL(node, version, TEXT),
    COL(node, price, I64),         COL(node, notice_s, U32),
    COL(node, boot, U64),          COL(node, created_us, I64_NULL),
    COL(node, seen_us, I64_NULL),
};

static const struct column NODE_EVENT[] = {
    KEY(node_event, id, I64_NULL),    COL(node_event, node, I64_NULL),
    COL(node_event, at_us, I64_NULL), ENUN(node_event, from_state, node),
    ENU(node_event, to_state, node),  COL(node_event, conditions, U32),
    COL(node_event, reason, REASON),  ENU(node_event, actor, actor_of),
    COL(node_event, detail, TEXT),
};

static const struct column DEVICE[] = {
    KEY(device, id, I64_NULL),    COL(device, node, I64_NULL),   COL(device, ordinal, U32),
    COL(device, uuid, TEXT),      ENU(device, class, class_of),  COL(device, vendor, TEXT),
    COL(device, model, TEXT),     COL(device, nominal_mib, U32), COL(device, measured_mib, U32),
    ENU(device, tier, tier_of),   COL(device, offered, BOOL),    COL(device, matmul_gflops, U32),
    COL(device, copy_mib_s, U32), COL(device, driver, TEXT),
};

static const struct column SLOT[] = {
    KEY(slot, id, I64_NULL), COL(slot, device, I64_NULL), ENU(slot, kind, kind_of_slot),
    COL(slot, ordinal, U32), COL(slot, vram_mib, U32),
};

static const struct column LINK[] = {
    KEY(link, a, I64_NULL),     KEY(link, b, I64_NULL),    COL(link, rtt_p50_us, U32),
    COL(link, rtt_p95_us, U32), COL(link, loss_ppm, U32),  COL(link, bandwidth_kbps, U32),
    COL(link, reach_ab, BOOL),  COL(link, reach_ba, BOOL), COL(link, measured_us, I64_NULL),
};

static const struct column JOB[] = {
    KEY(job, id, I64_NULL),        COL(job, uid, UUID),
    COL(job, project, I64_NULL),   COL(job, token, I64_NULL),
    COL(job, name, TEXT),          ENU(job, state, job),
    COL(job, conditions, U32),     COL(job, reason, REASON),
    ENU(job, class, fail),         COL(job, detail, TEXT),
    COL(job, spec, TEXT_PTR),      COL(job, spec_sha256, BYTES),
    COL(job, held, I64),           COL(job, charged, I64),
    COL(job, hold, I64_NULL),      COL(job, epoch, U32),
    COL(job, attempts, U32),       COL(job, attempt, I64_NULL),
    COL(job, policy_version, U32), COL(job, created_us, I64_NULL),
    COL(job, queued_us, I64_NULL), COL(job, not_before_us, I64_NULL),
    COL(job, state_us, I64_NULL),  COL(job, ended_us, I64_NULL),
    COL(job, exit_code, I32),      COL(job, why, WHY),
};

static const struct column ATTEMPT[] = {
    KEY(attempt, id, I64_NULL),         COL(attempt, uid, UUID),
    COL(attempt, job, I64_NULL),        COL(attempt, term, U32),
    COL(attempt, epoch, U32),           ENU(attempt, state, attempt),
    COL(attempt, reason, REASON),       ENU(attempt, class, fail),
    ENUN(attempt, then, job),           COL(attempt, diameter_us, U32),
    COL(attempt, price, I64),           COL(attempt, created_us, I64_NULL),
    COL(attempt, started_us, I64_NULL), COL(attempt, running_us, I64_NULL),
    COL(attempt, stop_us, I64_NULL),    COL(attempt, ended_us, I64_NULL),
};

static const struct column RANK[] = {
    KEY(rank, id, I64_NULL),   COL(rank, attempt, I64_NULL),  COL(rank, rank, U32),
    COL(rank, node, I64_NULL), ENU(rank, state, rank),        COL(rank, port, U32),
    COL(rank, exit_code, I32), COL(rank, reason, REASON),     ENU(rank, class, fail),
    COL(rank, detail, TEXT),   COL(rank, state_us, I64_NULL),
};

static const struct column LEASE[] = {
    KEY(lease, id, I64_NULL),
    COL(lease, uid, UUID),
    COL(lease, attempt, I64_NULL),
    COL(lease, rank, I64_NULL),
    COL(lease, node, I64_NULL),
    COL(lease, provider, I64_NULL),
    COL(lease, term, U32),
    COL(lease, epoch, U32),
    COL(lease, price, I64),
    COL(lease, fee_ppm, U32),
    COL(lease, notice_s, U32),
    COL(lease, granted_us, I64_NULL),
    COL(lease, meter_from_us, I64_NULL),
    COL(lease, meter_to_us, I64_NULL),
    COL(lease, receipt_ms, U64),
    COL(lease, billed_ms, U64),
    COL(lease, earned, I64),
    COL(lease, fee, I64),
    COL(lease, ended_us, I64_NULL),
};

static const struct column LEASE_SLOT[] = {
    KEY(lease_slot, lease, I64_NULL),
    KEY(lease_slot, slot, I64_NULL),
    COL(lease_slot, live, BOOL),
};

/* Its statement has two more parameters: prev_hash and hash (commit.c). */
static const struct column TRANSFER[] = {
    KEY(transfer, id, I64_NULL),    COL(transfer, asset, TEXT),
    COL(transfer, debit, I64_NULL), COL(transfer, credit, I64_NULL),
    COL(transfer, amount, I64),     ENU(transfer, kind, kind_of_transfer),
    COL(transfer, job, I64_NULL),   COL(transfer, lease, I64_NULL),
    COL(transfer, hold, I64_NULL),  COL(transfer, at_us, I64_NULL),
    COL(transfer, memo, TEXT),
};

static const struct column JOB_EVENT[] = {
    KEY(job_event, id, I64_NULL),      COL(job_event, job, I64_NULL),
    COL(job_event, attempt, I64_NULL), COL(job_event, at_us, I64_NULL),
    ENUN(job_event, from_state, job),  ENU(job_event, to_state, job),
    COL(job_event, reason, REASON),    ENU(job_event, actor, actor_of),
    COL(job_event, detail, TEXT),
};

static const struct column RECEIPT[] = {
    KEY(receipt, id, I64_NULL),
    COL(receipt, node, I64_NULL),
    COL(receipt, seq, U64),
    COL(receipt, at_us, I64_NULL),
    {"bytes", COLUMN_BYTES_PTR, false, AT(receipt, bytes), AT(receipt, bytes_length), 0, NULL},
    COL(receipt, signature, BYTES),
};

static const struct column CONTENT[] = {
    KEY(content, id, I64_NULL), COL(content, project, I64_NULL),    COL(content, sha256, BYTES),
    COL(content, size, U64),    COL(content, created_us, I64_NULL),
};

static const struct column JOB_OUTPUT[] = {
    KEY(job_output, id, I64_NULL),      COL(job_output, job, I64_NULL),
    COL(job_output, attempt, I64_NULL), COL(job_output, rank, U32),
    COL(job_output, path, TEXT),        COL(job_output, sha256, BYTES),
    COL(job_output, size, U64),         COL(job_output, stored_us, I64_NULL),
};

static const struct column IDEM[] = {
    KEY(idem, token, U64),   KEY(idem, key, TEXT),         COL(idem, body_hash, BYTES),
    COL(idem, code, REASON), COL(idem, object, UUID_NULL), COL(idem, at_us, I64_NULL),
};

#define TABLE(kind, columns) [ROW_##kind] = {columns, sizeof(columns) / sizeof((columns)[0])}

static const struct columns KINDS[ROW_KIND_COUNT] = {
    TABLE(CONTROL, CONTROL),
    TABLE(PROJECT, PROJECT),
    TABLE(PROVIDER, PROVIDER),
    TABLE(USER, USER),
    TABLE(TOKEN, TOKEN),
    TABLE(JOIN_TOKEN, JOIN_TOKEN),
    TABLE(ACCOUNT, ACCOUNT),
    TABLE(NODE, NODE),
    TABLE(NODE_EVENT, NODE_EVENT),
    TABLE(DEVICE, DEVICE),
    TABLE(SLOT, SLOT),
    TABLE(LINK, LINK),
    TABLE(JOB, JOB),
    TABLE(ATTEMPT, ATTEMPT),
    TABLE(RANK, RANK),
    TABLE(LEASE, LEASE),
    TABLE(LEASE_SLOT, LEASE_SLOT),
    TABLE(TRANSFER, TRANSFER),
    TABLE(JOB_EVENT, JOB_EVENT),
    TABLE(RECEIPT, RECEIPT),
    TABLE(CONTENT, CONTENT),
    TABLE(JOB_OUTPUT, JOB_OUTPUT),
    TABLE(IDEM, IDEM),
};

struct columns columns_of(enum row_kind kind)
{
    BUG_ON(kind >= ROW_KIND_COUNT);
    return KINDS[kind];
}

Oid column_oid(enum column_type type)
{
    switch (type) {
    case COLUMN_BOOL:
        return OID_BOOL;
    case COLUMN_UUID:
    case COLUMN_UUID_NULL:
        return OID_UUID;
    case COLUMN_BYTES:
    case COLUMN_BYTES_PTR:
        return OID_BYTEA;
    case COLUMN_TEXT:
    case COLUMN_TEXT_PTR:
    case COLUMN_ENUM:
    case COLUMN_ENUM_NULL:
    case COLUMN_REASON:
        return OID_TEXT;
    case COLUMN_WHY:
        return OID_JSONB;
    case COLUMN_I64:
    case COLUMN_I64_NULL:
    case COLUMN_U64:
    case COLUMN_U32:
    case COLUMN_I32:
        return OID_INT8;
    }
    BUG_ON(true);
}

/* -- encode -------------------------------------------------------------------------------------
 */

static void put_bytes(struct column_params *params, uint32_t i, const void *bytes, size_t length)
{
    /* libpq sends a zero-length value for a non-NULL pointer. */
    params->value[i] = bytes != NULL ? bytes : "";
    params->length[i] = (int)length;
}

static void put_text(struct column_params *params, uint32_t i, const char *text)
{
    if (text != NULL)
        put_bytes(params, i, text, strlen(text));
}

static void put_int(struct column_params *params, uint32_t i, int64_t value)
{
    uint64_t wire = htobe64((uint64_t)value);

    memcpy(params->scratch[i], &wire, sizeof(wire));
    put_bytes(params, i, params->scratch[i], sizeof(wire));
}

static int64_t read_int(const char *at, enum column_type type)
{
    int64_t wide;
    uint32_t narrow;
    int32_t number;

    switch ((int)type) {
    case COLUMN_U32:
    case COLUMN_REASON:
        memcpy(&narrow, at, sizeof(narrow));
        return narrow;
    case COLUMN_I32:
    case COLUMN_ENUM:
    case COLUMN_ENUM_NULL:
        memcpy(&number, at, sizeof(number));
        return number;
    default:
        memcpy(&wide, at, sizeof(wide));
        return wide;
    }
}

static void encode_why(const struct why *why, struct column_params *params, uint32_t i)
{
    params->format[i] = 0;
    if (why == NULL)
        return;
    json_t *value = why_to_json(why);
    params->owned = json_write(value);
    json_decref(value);
    put_text(params, i, params->owned);
}

static void encode_pointer(const struct column *column, const char *base, const char *at,
                           struct column_params *params, uint32_t i)
{
    const void *pointer;
    uint32_t length;

    memcpy(&pointer, at, sizeof(pointer));
    if (column->type == COLUMN_TEXT_PTR) {
        put_text(params, i, pointer);
    } else if (column->type == COLUMN_WHY) {
        encode_why(pointer, params, i);
    } else {
        memcpy(&length, base + column->offset2, sizeof(length));
        put_bytes(params, i, pointer, length);
    }
}

static void encode_named(const struct column *column, int64_t value, struct column_params *params,
                         uint32_t i)
{
    if (column->type == COLUMN_REASON) {
        if (value != ERR_NONE)
            put_text(params, i, err_slug((enum err_code)value));
    } else if (column->type == COLUMN_ENUM || value != column->names->count) {
        put_text(params, i, column->names->name((int)value));
    }
}

void columns_encode(const struct row *row, struct column_params *params)
{
    struct columns columns = columns_of(row->kind);
    const char *base = (const char *)row;

    params->owned = NULL;
    for (uint32_t i = 0; i < columns.count; i++) {
        const struct column *column = &columns.column[i];
        const char *at = base + column->offset;
        params->value[i] = NULL;
        params->length[i] = 0;
        params->format[i] = 1;
        switch (column->type) {
        case COLUMN_I64:
        case COLUMN_U64:
        case COLUMN_U32:
        case COLUMN_I32:
            put_int(params, i, read_int(at, column->type));
            break;
        case COLUMN_I64_NULL:
            if (read_int(at, column->type) != 0)
                put_int(params, i, read_int(at, column->type));
            break;
        case COLUMN_BOOL:
            params->scratch[i][0] = *(const bool *)at;
            put_bytes(params, i, params->scratch[i], 1);
            break;
        case COLUMN_UUID_NULL:
            if (!uuid_is_nil((const struct uuid *)at))
                put_bytes(params, i, at, sizeof(struct uuid));
            break;
        case COLUMN_UUID:
        case COLUMN_BYTES:
            put_bytes(params, i, at, column->size);
            break;
        case COLUMN_TEXT:
            put_bytes(params, i, at, strnlen(at, column->size));
            break;
        case COLUMN_ENUM:
        case COLUMN_ENUM_NULL:
        case COLUMN_REASON:
            encode_named(column, read_int(at, column->type), params, i);
            break;
        case COLUMN_TEXT_PTR:
        case COLUMN_BYTES_PTR:
        case COLUMN_WHY:
            encode_pointer(column, base, at, params, i);
            break;
        }
    }
}

void column_params_fini(struct column_params *params)
{
    free(params->owned);
    params->owned = NULL;
}

/* -- decode -------------------------------------------------------------------------------------
 */

/* One value of a result. */
struct cell {
    const char *bytes;
    size_t length;
    bool null;
};

static bool cell_int(const struct cell *cell, int64_t *ret_value)
{
    uint64_t wire;

    if (cell->null)
        return false;
    if (cell->length != sizeof(wire))
        return false;
    memcpy(&wire, cell->bytes, sizeof(wire));
    *ret_value = (int64_t)be64toh(wire);
    return true;
}

static bool decode_int(const struct column *column, const struct cell *cell, char *at)
{
    int64_t value = 0;

    if (!(cell->null && column->type == COLUMN_I64_NULL) && !cell_int(cell, &value))
        return false;
    if (column->type == COLUMN_U32) {
        uint32_t narrow = (uint32_t)value;
        memcpy(at, &narrow, sizeof(narrow));
        return value >= 0 && value <= UINT32_MAX;
    }
    if (column->type == COLUMN_I32) {
        int32_t narrow = (int32_t)value;
        memcpy(at, &narrow, sizeof(narrow));
        return value >= INT32_MIN && value <= INT32_MAX;
    }
    memcpy(at, &value, sizeof(value));
    return true;
}

static bool decode_fixed(const struct cell *cell, char *at, size_t size)
{
    if (cell->null || cell->length != size)
        return false;
    memcpy(at, cell->bytes, size);
    return true;
}

static bool decode_named(const struct column *column, const struct cell *cell, char *at)
{
    int value;

    if (column->type == COLUMN_REASON) {
        value = cell->null ? ERR_NONE : (int)err_from_slug(cell->bytes);
        memcpy(at, &value, sizeof(value));
        return cell->null || value != ERR_NONE;
    }
    value = cell->null ? column->names->count : column->names->parse(cell->bytes);
    memcpy(at, &value, sizeof(value));
    return value != column->names->count || (cell->null && column->type == COLUMN_ENUM_NULL);
}

static bool decode_pointer(const struct column *column, const struct cell *cell, char *base,
                           char *at)
{
    if (column->type == COLUMN_WHY)
        return true;
    if (cell->null)
        return false;
    memcpy(at, &cell->bytes, sizeof(cell->bytes));
    if (column->type == COLUMN_BYTES_PTR) {
        uint32_t length = (uint32_t)cell->length;
        memcpy(base + column->offset2, &length, sizeof(length));
    }
    return true;
}

static bool decode_column(const struct column *column, const struct cell *cell, char *base)
{
    char *at = base + column->offset;

    switch (column->type) {
    case COLUMN_I64:
    case COLUMN_U64:
    case COLUMN_U32:
    case COLUMN_I32:
    case COLUMN_I64_NULL:
        return decode_int(column, cell, at);
    case COLUMN_BOOL:
        if (cell->null || cell->length != 1)
            return false;
        *(bool *)at = cell->bytes[0] != 0;
        return true;
    case COLUMN_UUID_NULL:
        return cell->null || decode_fixed(cell, at, sizeof(struct uuid));
    case COLUMN_UUID:
    case COLUMN_BYTES:
        return decode_fixed(cell, at, column->size);
    case COLUMN_TEXT:
        return !cell->null && cell->length < column->size && decode_fixed(cell, at, cell->length);
    case COLUMN_ENUM:
    case COLUMN_ENUM_NULL:
    case COLUMN_REASON:
        return decode_named(column, cell, at);
    case COLUMN_TEXT_PTR:
    case COLUMN_BYTES_PTR:
    case COLUMN_WHY:
        return decode_pointer(column, cell, base, at);
    }
    return false;
}

int columns_decode(const PGresult *result, int index, enum row_kind kind, struct row *ret_row,
                   struct err *err)
{
    struct columns columns = columns_of(kind);

    memset(ret_row, 0, sizeof(*ret_row));
    ret_row->kind = kind;
    for (uint32_t i = 0; i < columns.count; i++) {
        struct cell cell = {
            .bytes = PQgetvalue(result, index, (int)i),
            .length = (size_t)PQgetlength(result, index, (int)i),
            .null = PQgetisnull(result, index, (int)i) == 1,
        };
        if (!decode_column(&columns.column[i], &cell, (char *)ret_row))
            return err_set(err, ERR_STATE_CORRUPT, "table %s, column %s holds no such value",
                           row_table(kind), columns.column[i].name);
    }
    return 0;
}
