#include "orchestrator/store/policy_json.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct field {
    const char *name;
    size_t offset;
    bool wide; /* usec_t, else uint32_t */
};

#define WIDE(name)                                                                                 \
    {                                                                                              \
#name, offsetof(struct policy, name), true                                                 \
    }
#define NARROW(name)                                                                               \
    {                                                                                              \
#name, offsetof(struct policy, name), false                                                \
    }

static const struct field FIELDS[] = {
    NARROW(fee_ppm),
    WIDE(lost_after_us),
    WIDE(prepare_timeout_us),
    WIDE(prepare_progress_us),
    WIDE(start_timeout_us),
    WIDE(output_timeout_us),
    WIDE(settle_every_us),
    WIDE(backoff_first_us),
    WIDE(backoff_max_us),
    WIDE(resend_after_us),
    NARROW(mass_silence_min),
    WIDE(mass_silence_window_us),
    WIDE(mass_silence_hold_us),
    WIDE(link_max_age_us),
    WIDE(probe_every_us),
};
#define FIELD_COUNT (sizeof(FIELDS) / sizeof(FIELDS[0]))

json_t *policy_to_json(const struct policy *policy)
{
    json_t *object = json_object();

    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const char *at = (const char *)policy + FIELDS[i].offset;
        int64_t value;
        uint32_t narrow;
        memcpy(&narrow, at, sizeof(narrow));
        value = narrow;
        if (FIELDS[i].wide)
            memcpy(&value, at, sizeof(value));
        json_object_set_new(object, FIELDS[i].name, json_integer(value));
    }
    json_object_set_new(object, "asset", json_string(policy->asset));
    return object;
}

static const struct field *field_find(const char *name)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (strcmp(FIELDS[i].name, name) == 0)
            return &FIELDS[i];
    }
    return NULL;
}

static int field_set(struct policy *policy, const char *name, const json_t *value, struct err *err)
{
    const struct field *field = field_find(name);

    if (strcmp(name, "asset") == 0 && json_is_string(value)
        && json_string_length(value) < sizeof(policy->asset)) {
        memset(policy->asset, 0, sizeof(policy->asset));
        memcpy(policy->asset, json_string_value(value), json_string_length(value));
        return 0;
    }
    if (field == NULL)
        return err_set_at(err, ERR_UNKNOWN_FIELD, name, "policy has no setting %s", name);
    int64_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || (!field->wide && number > UINT32_MAX))
        return err_set_at(err, ERR_OUT_OF_RANGE, name, "policy setting %s is out of range", name);
    uint32_t narrow = (uint32_t)number;
    char *at = (char *)policy + field->offset;
    if (field->wide)
        memcpy(at, &number, sizeof(number));
    else
        memcpy(at, &narrow, sizeof(narrow));
    return 0;
}

int policy_from_json(const json_t *value, const char *version, struct policy *ret_policy,
                     struct err *err)
{
    struct policy policy;
    char *end;
    unsigned long number = strtoul(version, &end, 10);

    policy_default(&policy);
    /* jansson iterates through non-const pointers alone; nothing is changed. */
    json_t *object = json_copy((json_t *)(uintptr_t)value);
    int failed = 0;
    const char *name;
    json_t *member;
    json_object_foreach(object, name, member)
    {
        if (failed == 0)
            failed = field_set(&policy, name, member, err);
    }
    json_decref(object);
    if (failed == 0 && (end == version || *end != '\0' || number > INT32_MAX))
        failed = err_set(err, ERR_STATE_CORRUPT, "policy version %s", version);
    policy.version = (uint32_t)number;
    if (failed == 0)
        failed = policy_check(&policy, err);
    if (failed == 0)
        *ret_policy = policy;
    return failed;
}
