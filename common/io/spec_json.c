#include "common/io/spec_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/yaml.h"
#include "common/pure/buf.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"
#include "common/pure/nearest.h"
#include "common/pure/units.h"

#define VERSION      1
#define MAX_FIELDS   32
#define MAX_QUANTITY 64
#define SHORT        ((int)60) /* of a foreign text in a message */
#define MILLI        1000
#define NOT_A_SIZE   "not a size such as 24GB; units are " UNITS_OF_BYTES

struct reader {
    struct job_spec *spec;
    struct spec_file *file; /* the one being read */
    char pointer[128];      /* of the value being read; longer ones are cut */
    struct err *err;
};

struct field {
    const char *name;
    int (*read)(struct reader *reader, const json_t *value);
};

/*
 * Names that are no fields and get more than "no such field": what no task is given, and what the
 * format has but this version not yet.
 */
struct refusal {
    const char *object; /* pointer of the object around the name; NULL = any */
    enum err_code code;
    const char *names; /* with a space before and after each */
    const char *says;
};

static const struct refusal refusals[] = {
    {NULL, ERR_PRIVILEGE_NOT_ALLOWED,
     " privileged cap_add capabilities security_opt seccomp apparmor devices device pid ipc uts "
     "userns user run_as network_mode host_network host_pid host_ipc hostNetwork hostPID hostIPC "
     "sysctls cgroup_parent group_add ",
     "tasks run without privileges, with the devices of resources.gpu alone"},
    {"/network", ERR_PRIVILEGE_NOT_ALLOWED, " host mode ",
     "a task reaches the nodes of its gang, not the host's network"},
    {NULL, ERR_MOUNT_NOT_ALLOWED, " mount mounts bind binds ",
     "nothing of the host is mounted; files brings data, outputs takes results back"},
    {"", ERR_UNKNOWN_FIELD, " secrets ",
     "secrets are not supported in this version: providers can read env, see sheaf plan"},
    {"", ERR_UNKNOWN_FIELD, " volumes ",
     "volumes are not supported in this version: bring data with files"},
    {"", ERR_UNKNOWN_FIELD,
     " queue any_of groups trust checkpoint on_node_loss rendezvous utilization_policy "
     "client_rtt port replicas scaling probes model auth rate_limits deploy preemptible schedule "
     "hooks ",
     "not supported in this version"},
    {"/resources/gpu", ERR_UNKNOWN_FIELD,
     " vendor compute_capability interconnect total_memory driver share ",
     "not supported in this version"},
    {"/network", ERR_UNKNOWN_FIELD, " min_bandwidth max_loss scope max_age overlay ",
     "not supported in this version"},
    {"/placement", ERR_UNKNOWN_FIELD, " providers constraints spread ",
     "not supported in this version"},
    {"/budget", ERR_UNKNOWN_FIELD, " capacity max_per_day ", "not supported in this version"},
    {"/retry", ERR_UNKNOWN_FIELD, " duration exit_codes ", "not supported in this version"},
};

static int fail(struct reader *reader, enum err_code code, const char *what)
{
    return err_set_at(reader->err, code, reader->pointer, "%s", what);
}

static int fail_text(struct reader *reader, enum err_code code, const char *what, const char *text)
{
    return err_set_at(reader->err, code, reader->pointer, "%s: %.*s", what, SHORT, text);
}

/* Appends /key with the escapes of RFC 6901. Returns what pointer_pop wants. */
static size_t pointer_push(struct reader *reader, const char *key)
{
    size_t before = strlen(reader->pointer);
    size_t at = before;

    if (at + 1 < sizeof(reader->pointer))
        reader->pointer[at++] = '/';
    for (; *key != '\0' && at + 2 < sizeof(reader->pointer); key++) {
        if (*key == '~' || *key == '/') {
            reader->pointer[at++] = '~';
            reader->pointer[at++] = *key == '~' ? '0' : '1';
        } else {
            reader->pointer[at++] = *key;
        }
    }
    reader->pointer[at] = '\0';
    return before;
}

static size_t pointer_push_index(struct reader *reader, size_t index)
{
    char text[24];

    snprintf(text, sizeof(text), "%zu", index);
    return pointer_push(reader, text);
}

static void pointer_pop(struct reader *reader, size_t before)
{
    reader->pointer[before] = '\0';
}

static const struct refusal *find_refusal(const char *object, const char *name)
{
    char padded[64];
    int length = snprintf(padded, sizeof(padded), " %s ", name);

    if (length < 0 || (size_t)length >= sizeof(padded) || strchr(name, ' ') != NULL)
        return NULL;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *row = &refusals[i];
        if ((row->object == NULL || strcmp(row->object, object) == 0)
            && strstr(row->names, padded) != NULL)
            return row;
    }
    return NULL;
}

static int refuse_field(struct reader *reader, const struct field *fields, size_t count,
                        const char *name)
{
    const char *known[MAX_FIELDS];
    const struct refusal *refusal = find_refusal(reader->pointer, name);
    size_t before = pointer_push(reader, name);
    int rc;

    BUG_ON(count > MAX_FIELDS);
    for (size_t i = 0; i < count; i++)
        known[i] = fields[i].name;
    const char *near = nearest_word(name, known, count);
    if (refusal != NULL)
        rc = fail(reader, refusal->code, refusal->says);
    else if (near != NULL)
        rc = fail_text(reader, ERR_UNKNOWN_FIELD, "did you mean", near);
    else
        rc = fail_text(reader, ERR_UNKNOWN_FIELD, "no such field", name);
    pointer_pop(reader, before);
    return rc;
}

/* Reads each member by the table. A null counts as absent. */
static int read_members(struct reader *reader, const json_t *object, const struct field *fields,
                        size_t count)
{
    /* jansson's iterators want a non-const object and change nothing. */
    json_t *items = (json_t *)(uintptr_t)object;

    if (!json_is_object(object))
        return fail(reader, ERR_INVALID_TYPE, "an object is wanted");
    for (void *at = json_object_iter(items); at != NULL; at = json_object_iter_next(items, at)) {
        const char *name = json_object_iter_key(at);
        size_t i = 0;
        while (i < count && strcmp(fields[i].name, name) != 0)
            i++;
        if (i == count)
            return refuse_field(reader, fields, count, name);
        if (json_is_null(json_object_iter_value(at)))
            continue;
        size_t before = pointer_push(reader, name);
        int rc = fields[i].read(reader, json_object_iter_value(at));
        if (rc != 0)
            return rc;
        pointer_pop(reader, before);
    }
    return 0;
}

#define READ_MEMBERS(reader, object, fields)                                                       \
    read_members(reader, object, fields, sizeof(fields) / sizeof((fields)[0]))

static int require(struct reader *reader, const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    if (value != NULL && !json_is_null(value))
        return 0;
    size_t before = pointer_push(reader, name);
    int rc = fail(reader, ERR_FIELD_MISSING, "is required");
    pointer_pop(reader, before);
    return rc;
}

/* Calls read for each item of a list. */
static int read_list(struct reader *reader, const json_t *value, size_t limit,
                     int (*read)(struct reader *reader, const json_t *item))
{
    if (!json_is_array(value))
        return fail(reader, ERR_INVALID_TYPE, "a list is wanted");
    if (json_array_size(value) > limit)
        return err_set_at(reader->err, ERR_OUT_OF_RANGE, reader->pointer, "%zu items at most",
                          limit);
    for (size_t i = 0; i < json_array_size(value); i++) {
        size_t before = pointer_push_index(reader, i);
        int rc = read(reader, json_array_get(value, i));
        if (rc != 0)
            return rc;
        pointer_pop(reader, before);
    }
    return 0;
}

/* -- scalars --------------------------------------------------------------------------------- */

static int read_text(struct reader *reader, const json_t *value, char *out, size_t size)
{
    const char *text = json_string_value(value);

    if (text == NULL)
        return fail(reader, ERR_INVALID_TYPE, "a text is wanted");
    if (strlen(text) >= size)
        return err_set_at(reader->err, ERR_OUT_OF_RANGE, reader->pointer, "%zu bytes at most",
                          size - 1);
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

/* The text where something that is no text was wanted. YAML may have meant another value by it. */
static int fail_scalar(struct reader *reader, enum err_code code, const char *what,
                       const char *text)
{
    if (yaml_is_ambiguous(text))
        return fail_text(reader, ERR_AMBIGUOUS_SCALAR,
                         "not every reader of YAML takes this for the same value", text);
    return fail_text(reader, code, what, text);
}

static int fail_bounds(struct reader *reader)
{
    const char *bounds = spec_bound_text(reader->pointer);

    return fail(reader, ERR_OUT_OF_RANGE,
                bounds != NULL ? bounds : "not in the range of this field");
}

/* A whole number that no 64 bits hold: YAML leaves it a text. */
static bool is_huge(const char *text)
{
    const char *digits = text + (text[0] == '-');

    return strlen(digits) >= 19 && digits[strspn(digits, "0123456789")] == '\0';
}

static int read_count(struct reader *reader, const json_t *value, uint32_t *ret_count)
{
    const char *text = json_string_value(value);

    if (text != NULL && is_huge(text))
        return fail_bounds(reader);
    if (text != NULL)
        return fail_scalar(reader, ERR_INVALID_TYPE, "a whole number without quotes is wanted",
                           text);
    if (!json_is_integer(value))
        return fail(reader, ERR_INVALID_TYPE, "a whole number is wanted");
    json_int_t number = json_integer_value(value);
    if (number < 0 || number > INT32_MAX)
        return fail_bounds(reader);
    *ret_count = (uint32_t)number;
    return 0;
}

static bool is_zero(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) == 0;
}

/* "80GB" or "80GB..": both mean at least. False when it is too long for any quantity. */
static bool strip_range(const char *text, char out[MAX_QUANTITY])
{
    size_t length = strlen(text);

    if (length >= 2 && strcmp(text + length - 2, "..") == 0)
        length -= 2;
    if (length >= MAX_QUANTITY)
        return false;
    memcpy(out, text, length);
    out[length] = '\0';
    return true;
}

static int read_bytes(struct reader *reader, const json_t *value, uint64_t *ret_bytes)
{
    const char *text = json_string_value(value);
    char quantity[MAX_QUANTITY];

    if (is_zero(value)) {
        *ret_bytes = 0;
        return 0;
    }
    if (json_is_number(value))
        return fail(reader, ERR_INVALID_QUANTITY,
                    "a number without a unit; units are " UNITS_OF_BYTES);
    if (text == NULL)
        return fail(reader, ERR_INVALID_TYPE, "a size such as 24GB or 64GiB is wanted");
    if (!strip_range(text, quantity) || units_parse_bytes(quantity, ret_bytes) != 0)
        return fail_scalar(reader, ERR_INVALID_QUANTITY, NOT_A_SIZE, text);
    return 0;
}

static int read_duration(struct reader *reader, const json_t *value, uint64_t *ret_us)
{
    const char *text = json_string_value(value);

    if (is_zero(value)) {
        *ret_us = 0;
        return 0;
    }
    if (json_is_number(value))
        return fail(reader, ERR_INVALID_QUANTITY,
                    "a number without a unit; units are " UNITS_OF_DURATION);
    if (text == NULL)
        return fail(reader, ERR_INVALID_TYPE, "a time such as 3ms, 90s or 2h is wanted");
    if (units_parse_duration(text, ret_us) != 0)
        return fail_scalar(reader, ERR_INVALID_QUANTITY,
                           "not a time such as 90s; units are " UNITS_OF_DURATION, text);
    return 0;
}

static int read_money(struct reader *reader, const json_t *value, micro_t *ret_amount)
{
    const char *text = json_string_value(value);
    micro_t amount = 0;

    if (json_is_integer(value)) {
        if (json_integer_value(value) < 0
            || __builtin_mul_overflow(json_integer_value(value), MICRO_PER_UNIT, &amount)
            || amount > MICRO_MAX)
            return fail(reader, ERR_INVALID_AMOUNT, "0 to 1000000000");
        *ret_amount = amount;
        return 0;
    }
    if (json_is_real(value))
        return fail(reader, ERR_INVALID_AMOUNT, "write it as a text, \"2.40\": a float is inexact");
    if (text == NULL)
        return fail(reader, ERR_INVALID_TYPE, "an amount such as \"2.40\" is wanted");
    if (yaml_is_ambiguous(text) || money_parse(text, ret_amount) != 0)
        return fail_scalar(reader, ERR_INVALID_AMOUNT,
                           "not an amount such as 2.40, at most 1000000000 with 6 places", text);
    return 0;
}

/* -- resources ------------------------------------------------------------------------------- */

/* Cores as 2, "2", "1.5" or "16..". */
static int read_cpu(struct reader *reader, const json_t *value)
{
    const char *text = json_string_value(value);
    char number[MAX_QUANTITY];
    micro_t cores = 0;

    if (json_is_integer(value)) {
        uint32_t whole = 0;
        int rc = read_count(reader, value, &whole);
        if (rc == 0 && __builtin_mul_overflow(whole, MILLI, &reader->spec->ask.cpu_milli))
            rc = fail(reader, ERR_OUT_OF_RANGE, "too many cores");
        return rc;
    }
    if (text == NULL)
        return fail(reader, ERR_INVALID_TYPE, "a number of cores is wanted, e.g. 2 or \"1.5\"");
    /* A decimal with few places, as money is; a thousandth of a core is the least. */
    if (!strip_range(text, number) || yaml_is_ambiguous(number) || money_parse(number, &cores) != 0
        || cores % MILLI != 0)
        return fail_scalar(reader, ERR_INVALID_QUANTITY, "not a number of cores", text);
    if (cores / MILLI > UINT32_MAX)
        return fail(reader, ERR_OUT_OF_RANGE, "too many cores");
    reader->spec->ask.cpu_milli = (uint32_t)(cores / MILLI);
    return 0;
}

static int read_memory(struct reader *reader, const json_t *value)
{
    return read_bytes(reader, value, &reader->spec->ask.memory);
}

static int read_disk(struct reader *reader, const json_t *value)
{
    return read_bytes(reader, value, &reader->spec->ask.disk);
}

static int read_shm(struct reader *reader, const json_t *value)
{
    return read_bytes(reader, value, &reader->spec->ask.shm);
}

/* One model name, stored in lower case; "cpu" asks for class cpu. */
static int add_model(struct reader *reader, const char *name, size_t length)
{
    struct job_ask *ask = &reader->spec->ask;

    while (length > 0 && *name == ' ') {
        name++;
        length--;
    }
    while (length > 0 && name[length - 1] == ' ')
        length--;
    if (length == 0 || length >= SPEC_MODEL_TEXT)
        return fail(reader, ERR_INVALID_NAME, "a model name has 1 to 47 characters, e.g. H100");
    if (length == 3 && strncasecmp(name, "cpu", 3) == 0) {
        ask->cpu_device = true;
    } else {
        if (ask->model_count == SPEC_MAX_MODELS)
            return fail(reader, ERR_OUT_OF_RANGE, "8 names at most");
        char *model = ask->models[ask->model_count++];
        for (size_t i = 0; i < length; i++) {
            char c = name[i];
            if (c >= 'A' && c <= 'Z')
                c = (char)(c - 'A' + 'a');
            if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr(" ._-", c) != NULL))
                return fail(reader, ERR_INVALID_NAME, "a model name has letters, digits, . _ -");
            model[i] = c;
        }
        model[length] = '\0';
    }
    if (ask->cpu_device && ask->model_count > 0)
        return fail(reader, ERR_CONTRADICTION, "cpu and GPU models cannot be mixed");
    return 0;
}

static int add_models(struct reader *reader, const char *names)
{
    for (;;) {
        size_t length = strcspn(names, ",");
        int rc = add_model(reader, names, length);
        if (rc != 0 || names[length] == '\0')
            return rc;
        names += length + 1;
    }
}

static bool is_digits(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* "80 gb", "80G", "80Gi": meant as a size and none, nor the name of a model. "3090 Ti" is one. */
static bool is_sloppy_size(const char *part)
{
    static const char *const units[] = {"b",  "k",  "m",  "g",  "t",   "kb",  "mb",  "gb",
                                        "tb", "ki", "mi", "gi", "kib", "mib", "gib", "tib"};
    size_t digits = strspn(part, "0123456789.");
    const char *unit = part + digits + strspn(part + digits, " ");

    for (size_t i = 0; digits > 0 && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcasecmp(unit, units[i]) == 0)
            return true;
    }
    return false;
}

/* The parts of "[names][:memory][:count]". */
static int read_gpu_part(struct reader *reader, const char *part, int *stage)
{
    enum { NAMES, MEMORY, COUNT, DONE };
    struct job_ask *ask = &reader->spec->ask;
    char quantity[MAX_QUANTITY];
    uint64_t bytes = 0;

    if (is_digits(part) && strlen(part) <= 4) {
        if (*stage > COUNT)
            return fail_text(reader, ERR_INVALID_QUANTITY, "memory needs a unit, e.g. 24GB:2; got",
                             part);
        *stage = DONE;
        ask->gpus_per_node = 0;
        for (const char *at = part; *at != '\0'; at++)
            ask->gpus_per_node = ask->gpus_per_node * 10 + (uint32_t)(*at - '0');
        return 0;
    }
    if (strip_range(part, quantity) && units_parse_bytes(quantity, &bytes) == 0) {
        if (*stage > MEMORY)
            return fail_text(reader, ERR_INVALID_QUANTITY, "NAME:MEMORY:COUNT is wanted; misplaced",
                             part);
        *stage = COUNT;
        ask->gpu_memory = bytes;
        return 0;
    }
    if (*stage > NAMES)
        return fail_text(reader, ERR_INVALID_QUANTITY, "not a memory size or a count", part);
    if (is_sloppy_size(part))
        return fail_text(reader, ERR_INVALID_QUANTITY, NOT_A_SIZE, part);
    *stage = MEMORY;
    return add_models(reader, part);
}

static int read_gpu_text(struct reader *reader, const char *text)
{
    char copy[SPEC_MAX_MODELS * SPEC_MODEL_TEXT];
    int stage = 0;
    size_t length = strlen(text);

    if (length == 0 || length >= sizeof(copy))
        return fail(reader, ERR_INVALID_QUANTITY, "e.g. 24GB:2 or H100:80GB:8 is wanted");
    memcpy(copy, text, length + 1);
    for (char *part = copy; part != NULL;) {
        char *colon = strchr(part, ':');
        if (colon != NULL)
            *colon++ = '\0';
        if (part[0] == '\0')
            return fail_text(reader, ERR_INVALID_QUANTITY, "an empty part", text);
        int rc = read_gpu_part(reader, part, &stage);
        if (rc != 0)
            return rc;
        part = colon;
    }
    return 0;
}

static int read_model_item(struct reader *reader, const json_t *value)
{
    const char *name = json_string_value(value);

    if (name == NULL)
        return fail(reader, ERR_INVALID_TYPE, "a text is wanted");
    return add_model(reader, name, strlen(name));
}

static int read_gpu_name(struct reader *reader, const json_t *value)
{
    if (json_is_string(value))
        return add_models(reader, json_string_value(value));
    return read_list(reader, value, SPEC_MAX_MODELS, read_model_item);
}

static int read_gpu_memory(struct reader *reader, const json_t *value)
{
    return read_bytes(reader, value, &reader->spec->ask.gpu_memory);
}

static int read_gpu_count(struct reader *reader, const json_t *value)
{
    return read_count(reader, value, &reader->spec->ask.gpus_per_node);
}

static int read_gpu(struct reader *reader, const json_t *value)
{
    static const struct field fields[] = {
        {"name", read_gpu_name},
        {"memory", read_gpu_memory},
        {"count", read_gpu_count},
    };

    if (json_is_string(value))
        return read_gpu_text(reader, json_string_value(value));
    if (json_is_integer(value))
        return read_gpu_count(reader, value);
    if (!json_is_object(value))
        return fail(reader, ERR_INVALID_TYPE, "a text such as 24GB:2 or an object is wanted");
    return READ_MEMBERS(reader, value, fields);
}

static int read_resources(struct reader *reader, const json_t *value)
{
    static const struct field fields[] = {
        {"cpu", read_cpu},      {"memory", read_memory}, {"disk", read_disk},
        {"shm_size", read_shm}, {"gpu", read_gpu},
    };
    int rc = READ_MEMBERS(reader, value, fields);

    return rc != 0 ? rc : require(reader, value, "gpu");
}

/* -- the other blocks -------------------------------------------------------------------------- */

static int read_max_rtt(struct reader *reader, const json_t *value)
{
    int rc = read_duration(reader, value, &reader->spec->ask.max_rtt_us);

    if (rc == 0 && reader->spec->ask.max_rtt_us == 0)
        rc = fail(reader, ERR_CONTRADICTION, "no two nodes are 0 apart; leave it out for no limit");
    return rc;
}

static int read_network(struct reader *reader, const json_t *value)
{
    static const struct field fields[] = {{"max_rtt", read_max_rtt}};
    const char *text = json_string_value(value);

    if (text != NULL && strcmp(text, "host") == 0)
        return fail(reader, ERR_PRIVILEGE_NOT_ALLOWED,
                    "a task reaches the nodes of its gang, not the host's network");
    return READ_MEMBERS(reader, value, fields);
}

static int read_country(struct reader *reader, const json_t *value)
{
    struct job_ask *ask = &reader->spec->ask;
    char *country = ask->countries[ask->country_count];
    int rc = read_text(reader, value, country, sizeof(ask->countries[0]));

    if (rc != 0)
        return rc;
    for (size_t i = 0; country[i] != '\0'; i++) {
        if (country[i] >= 'a' && country[i] <= 'z')
            country[i] = (char)(country[i] - 'a' + 'A');
    }
    ask->country_count++;
    return 0;
}

static int read_countries(struct reader *reader, const json_t *value)
{
    return read_list(reader, value, SPEC_MAX_COUNTRIES, read_country);
}

static int read_excluded(struct reader *reader, const json_t *value)
{
    struct job_ask *ask = &reader->spec->ask;

    return read_text(reader, value, ask->excluded[ask->excluded_count++], SPEC_NAME_TEXT);
}

static int read_exclude_nodes(struct reader *reader, const json_t *value)
{
    return read_list(reader, value, SPEC_MAX_EXCLUDED, read_excluded);
}

static int read_placement(struct reader *reader, const json_t *value)
{
    static const struct field fields[] = {
        {"countries", read_countries},
        {"exclude_nodes", read_exclude_nodes},
    };

    return READ_MEMBERS(reader, value, fields);
}

/* No limit is written by leaving it out: a 0 that meant that would surprise whoever pays. */
static int read_limit(struct reader *reader, const json_t *value, micro_t *ret_amount)
{
    int rc = read_money(reader, value, ret_amount);

    if (rc == 0 && *ret_amount == 0)
        rc = fail(reader, ERR_INVALID_AMOUNT, "above 0; leave it out for no limit");
    return rc;
}

static int read_max_price(struct reader *reader, const json_t *value)
{
    return read_limit(reader, value, &reader->spec->ask.max_price);
}

static int read_max_total(struct reader *reader, const json_t *value)
{
    return read_limit(reader, value, &reader->spec->ask.max_total);
}

static int read_currency(struct reader *reader, const json_t *value)
{
    return read_text(reader, value, reader->spec->currency, SPEC_CURRENCY_TEXT);
}

static int read_budget(struct reader *reader, const json_t *value)
{
    static const struct field fields[] = {
        {"max_price", read_max_price},
        {"max_total", read_max_total},
        {"currency", read_currency},
    };

    return READ_MEMBERS(reader, value, fields);
}

static int read_retry_event(struct reader *reader, const json_t *value)
{
    static const struct {
        const char *name;
        enum fail_class class;
    } events[] = {
        {"no-capacity", FAIL_CAPACITY},
        {"interruption", FAIL_INTERRUPTION},
        {"unreachable", FAIL_UNREACHABLE},
        {"hardware", FAIL_HARDWARE},
        {"provider", FAIL_PROVIDER},
        {"user", FAIL_USER},
        {"error", FAIL_USER},
    };
    const char *name = json_string_value(value);

    if (name == NULL)
        return fail(reader, ERR_INVALID_TYPE, "a text is wanted");
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (strcmp(events[i].name, name) == 0) {
            reader->spec->ask.retry_on |= 1u << events[i].class;
            return 0;
        }
    }
    return fail(reader, ERR_OUT_OF_RANGE,
                "one of no-capacity interruption unreachable hardware provider user");
}

static int read_on_events(struct reader *reader, const json_t *value)
{
    reader->spec->ask.retry_on = 0;
    return read_list(reader, value, 16, read_retry_event);
}

static int read_max_attempts(struct reader *reader, const json_t *value)
{
    return read_count(reader, value, &reader->spec->ask.max_attempts);
}

static int read_retry(struct reader *reader, const json_t *value)
{
    static const struct field fields[] = {
        {"on_events", read_on_events},
        {"max_attempts", read_max_attempts},
    };

    return READ_MEMBERS(reader, value, fields);
}

/* -- texts and files --------------------------------------------------------------------------- */

static int read_env_item(struct reader *reader, const json_t *value)
{
    if (!json_is_string(value))
        return fail(reader, ERR_INVALID_TYPE, "NAME=value is wanted");
    spec_texts_add(&reader->spec->env, json_string_value(value));
    return 0;
}

static int read_env_member(struct reader *reader, const char *name, const json_t *value)
{
    struct spec_texts *env = &reader->spec->env;

    if (strchr(name, '=') != NULL)
        return fail(reader, ERR_ENV_NOT_ALLOWED, "= in a variable name");
    if (json_is_string(value))
        spec_texts_addf(env, "%s=%s", name, json_string_value(value));
    else if (json_is_integer(value))
        spec_texts_addf(env, "%s=%lld", name, (long long)json_integer_value(value));
    else if (json_is_boolean(value))
        spec_texts_addf(env, "%s=%s", name, json_is_true(value) ? "true" : "false");
    else
        return fail(reader, ERR_INVALID_TYPE, "a text is wanted");
    return 0;
}

static int read_env(struct reader *reader, const json_t *value)
{
    json_t *items = (json_t *)(uintptr_t)value;

    if (!json_is_object(value))
        return read_list(reader, value, SPEC_MAX_ENV, read_env_item);
    if (json_object_size(value) > SPEC_MAX_ENV)
        return fail(reader, ERR_OUT_OF_RANGE, "256 variables at most");
    for (void *at = json_object_iter(items); at != NULL; at = json_object_iter_next(items, at)) {
        size_t before = pointer_push(reader, json_object_iter_key(at));
        int rc = read_env_member(reader, json_object_iter_key(at), json_object_iter_value(at));
        if (rc != 0)
            return rc;
        pointer_pop(reader, before);
    }
    return 0;
}

static int read_command(struct reader *reader, const json_t *value)
{
    if (!json_is_string(value))
        return fail(reader, ERR_INVALID_COMMAND, "a text is wanted; put it in quotes");
    spec_texts_add(&reader->spec->commands, json_string_value(value));
    return 0;
}

static int read_commands(struct reader *reader, const json_t *value)
{
    return read_list(reader, value, SPEC_MAX_COMMANDS, read_command);
}

static int read_output(struct reader *reader, const json_t *value)
{
    if (!json_is_string(value))
        return fail(reader, ERR_INVALID_TYPE, "a text is wanted");
    spec_texts_add(&reader->spec->outputs, json_string_value(value));
    return 0;
}

static int read_outputs(struct reader *reader, const json_t *value)
{
    spec_texts_fini(&reader->spec->outputs);
    return read_list(reader, value, SPEC_MAX_OUTPUTS, read_output);
}

static int read_file_source(struct reader *reader, const json_t *value)
{
    return read_text(reader, value, reader->file->source, SPEC_PATH_TEXT);
}

static int read_file_path(struct reader *reader, const json_t *value)
{
    return read_text(reader, value, reader->file->path, SPEC_PATH_TEXT);
}

static int read_sha256(struct reader *reader, const json_t *value, uint8_t out[32])
{
    const char *text = json_string_value(value);

    if (text == NULL || hex_parse(text, 32, out) != 0)
        return fail(reader, ERR_INVALID_TYPE, "64 lower-case hex digits are wanted");
    return 0;
}

static int read_archive_size(struct reader *reader, const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value))
        return fail(reader, ERR_INVALID_TYPE, "the archive's bytes as a whole number are wanted");
    if (json_integer_value(value) < 1)
        return fail(reader, ERR_OUT_OF_RANGE, "at least 1");
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int read_file_sha256(struct reader *reader, const json_t *value)
{
    return read_sha256(reader, value, reader->file->sha256);
}

static int read_file_size(struct reader *reader, const json_t *value)
{
    return read_archive_size(reader, value, &reader->file->size);
}

static int read_file(struct reader *reader, const json_t *value)
{
    static const struct field fields[] = {
        {"source", read_file_source},
        {"path", read_file_path},
        {"sha256", read_file_sha256},
        {"size", read_file_size},
    };
    struct job_spec *spec = reader->spec;

    spec->files = mem_resize(spec->files, spec->file_count + 1, sizeof(*spec->files));
    reader->file = &spec->files[spec->file_count++];
    *reader->file = (struct spec_file){0};
    int rc = READ_MEMBERS(reader, value, fields);
    if (rc == 0)
        rc = require(reader, value, "source");
    if (rc == 0)
        rc = require(reader, value, "path");
    /* Both or none: a hash without a size would count as not packed. */
    if (rc == 0 && reader->file->size != 0)
        rc = require(reader, value, "sha256");
    if (rc == 0 && json_is_string(json_object_get(value, "sha256")))
        rc = require(reader, value, "size");
    return rc;
}

static int read_files(struct reader *reader, const json_t *value)
{
    return read_list(reader, value, SPEC_MAX_FILES, read_file);
}

static int read_image_archive(struct reader *reader, const json_t *value)
{
    struct spec_image *image = &reader->spec->image;

    image->archive = true;
    return read_text(reader, value, image->name, SPEC_PATH_TEXT);
}

static int read_image_sha256(struct reader *reader, const json_t *value)
{
    return read_sha256(reader, value, reader->spec->image.sha256);
}

static int read_image_size(struct reader *reader, const json_t *value)
{
    return read_archive_size(reader, value, &reader->spec->image.size);
}

/* A name with a digest or the path of an archive; an object once the archive was sent. */
static int read_image(struct reader *reader, const json_t *value)
{
    static const struct field fields[] = {
        {"archive", read_image_archive},
        {"sha256", read_image_sha256},
        {"size", read_image_size},
    };
    struct job_spec *spec = reader->spec;

    spec->ask.image = true;
    if (json_is_string(value))
        return spec_image_parse(json_string_value(value), &spec->image, reader->err);
    int rc = READ_MEMBERS(reader, value, fields);
    for (size_t i = 0; rc == 0 && i < sizeof(fields) / sizeof(fields[0]); i++)
        rc = require(reader, value, fields[i].name);
    return rc;
}

/* -- the job ------------------------------------------------------------------------------------
 */

static int read_version(struct reader *reader, const json_t *value)
{
    if (!json_is_integer(value) || json_integer_value(value) != VERSION)
        return fail(reader, ERR_UNSUPPORTED_VERSION, "this server reads version 1");
    return 0;
}

static int read_type(struct reader *reader, const json_t *value)
{
    const char *type = json_string_value(value);

    if (type == NULL)
        return fail(reader, ERR_INVALID_TYPE, "a text is wanted");
    if (strcmp(type, "task") != 0)
        return fail(reader, ERR_OUT_OF_RANGE, "task is the only type in this version");
    return 0;
}

static int read_name(struct reader *reader, const json_t *value)
{
    return read_text(reader, value, reader->spec->name, SPEC_NAME_TEXT);
}

static int read_project(struct reader *reader, const json_t *value)
{
    return read_text(reader, value, reader->spec->project, SPEC_NAME_TEXT);
}

static int read_priority(struct reader *reader, const json_t *value)
{
    return read_count(reader, value, &reader->spec->ask.priority);
}

static int read_nodes(struct reader *reader, const json_t *value)
{
    return read_count(reader, value, &reader->spec->ask.nodes);
}

static int read_launch(struct reader *reader, const json_t *value)
{
    const char *name = json_string_value(value);

    if (name == NULL)
        return fail(reader, ERR_INVALID_TYPE, "a text is wanted");
    for (int i = LAUNCH_NODE; i <= LAUNCH_NONE; i++) {
        if (strcmp(launch_name((enum launch)i), name) == 0) {
            reader->spec->launch = (enum launch)i;
            return 0;
        }
    }
    return fail(reader, ERR_OUT_OF_RANGE, "one of node device none");
}

static int read_max_duration(struct reader *reader, const json_t *value)
{
    return read_duration(reader, value, &reader->spec->ask.max_duration_us);
}

static int read_stop_duration(struct reader *reader, const json_t *value)
{
    return read_duration(reader, value, &reader->spec->ask.stop_duration_us);
}

static int read_queue_timeout(struct reader *reader, const json_t *value)
{
    int rc = read_duration(reader, value, &reader->spec->ask.queue_timeout_us);

    if (rc == 0 && reader->spec->ask.queue_timeout_us == 0)
        rc = fail(reader, ERR_CONTRADICTION,
                  "no job starts in no time; leave it out to wait, or write fail_fast: true");
    return rc;
}

static int read_fail_fast(struct reader *reader, const json_t *value)
{
    const char *text = json_string_value(value);

    if (text != NULL)
        return fail_scalar(reader, ERR_INVALID_TYPE, "true or false is wanted", text);
    if (!json_is_boolean(value))
        return fail(reader, ERR_INVALID_TYPE, "true or false is wanted");
    reader->spec->ask.fail_fast = json_is_true(value);
    return 0;
}

static const struct field job_fields[] = {
    {"version", read_version},
    {"type", read_type},
    {"name", read_name},
    {"project", read_project},
    {"priority", read_priority},
    {"image", read_image},
    {"env", read_env},
    {"files", read_files},
    {"nodes", read_nodes},
    {"resources", read_resources},
    {"network", read_network},
    {"placement", read_placement},
    {"budget", read_budget},
    {"retry", read_retry},
    {"launch", read_launch},
    {"commands", read_commands},
    {"outputs", read_outputs},
    {"max_duration", read_max_duration},
    {"stop_duration", read_stop_duration},
    {"queue_timeout", read_queue_timeout},
    {"fail_fast", read_fail_fast},
};

static int read_job(struct reader *reader, const json_t *value)
{
    if (!json_is_object(value))
        return fail(reader, ERR_INVALID_TYPE, "an object is wanted");
    /* First: another version may have other fields. */
    int rc = require(reader, value, "version");
    if (rc == 0) {
        size_t before = pointer_push(reader, "version");
        rc = read_version(reader, json_object_get(value, "version"));
        pointer_pop(reader, before);
    }
    if (rc == 0)
        rc = READ_MEMBERS(reader, value, job_fields);
    if (rc == 0)
        rc = require(reader, value, "resources");
    if (rc == 0 && !reader->spec->ask.image)
        rc = require(reader, value, "commands");
    return rc;
}

/* spec_check counts variables; in a map they have names. */
static void name_env_member(struct reader *reader, const json_t *value)
{
    static const char prefix[] = "/env/";
    json_t *env = json_object_get(value, "env");
    struct err *err = reader->err;
    size_t left = 0;

    if (err == NULL || !json_is_object(env)
        || strncmp(err->pointer, prefix, sizeof(prefix) - 1) != 0)
        return;
    for (const char *at = err->pointer + sizeof(prefix) - 1; *at >= '0' && *at <= '9'; at++)
        left = left * 10 + (size_t)(*at - '0');
    void *member = json_object_iter(env);
    while (member != NULL && left-- > 0)
        member = json_object_iter_next(env, member);
    if (member == NULL)
        return;
    snprintf(reader->pointer, sizeof(reader->pointer), "/env");
    pointer_push(reader, json_object_iter_key(member));
    struct err seen = *err;
    (void)err_set_at(err, seen.code, reader->pointer, "%s", seen.text);
}

int spec_from_json(const json_t *value, struct job_spec *ret_spec, struct err *err)
{
    struct job_spec spec;
    struct reader reader = {.spec = &spec, .err = err};

    spec_init(&spec);
    spec_texts_add(&spec.outputs, "/out");
    int rc = read_job(&reader, value);
    if (rc == 0) {
        rc = spec_check(&spec, err);
        if (rc != 0)
            name_env_member(&reader, value);
    }
    if (rc == 0)
        *ret_spec = spec;
    else
        spec_fini(&spec);
    return rc;
}

int spec_parse(const void *bytes, size_t length, struct job_spec *ret_spec, struct err *err)
{
    json_t *value = NULL;

    if (length > SPEC_MAX_TEXT_BYTES)
        return err_set(err, ERR_BODY_TOO_LARGE, "a job file has %d bytes at most",
                       SPEC_MAX_TEXT_BYTES);
    int rc = json_read(bytes, length, &value, err);
    if (rc == 0)
        rc = spec_from_json(value, ret_spec, err);
    json_decref(value);
    return rc;
}

/* -- back to JSON ---------------------------------------------------------------------------------
 */

static void put(json_t *object, const char *key, json_t *value)
{
    BUG_ON(json_object_set_new(object, key, value) != 0);
}

struct scale {
    const char *unit;
    uint64_t factor;
};

/* The shortest exact form; null for 0. */
static json_t *quantity(uint64_t value, const struct scale *scales, size_t count)
{
    char text[MAX_QUANTITY];

    if (value == 0)
        return json_null();
    for (size_t i = 0; i < count; i++) {
        if (value % scales[i].factor == 0) {
            snprintf(text, sizeof(text), "%" PRIu64 "%s", value / scales[i].factor, scales[i].unit);
            break;
        }
    }
    return json_string(text);
}

static json_t *bytes_json(uint64_t bytes)
{
    static const struct scale scales[] = {
        {"TB", 1000000000000},
        {"TiB", (uint64_t)1 << 40},
        {"GB", 1000000000},
        {"GiB", (uint64_t)1 << 30},
        {"MB", 1000000},
        {"MiB", (uint64_t)1 << 20},
        {"kB", 1000},
        {"KiB", (uint64_t)1 << 10},
        {"B", 1},
    };

    return quantity(bytes, scales, sizeof(scales) / sizeof(scales[0]));
}

static json_t *duration_json(uint64_t us)
{
    static const struct scale scales[] = {
        {"d", 86400000000}, {"h", 3600000000}, {"m", 60000000},
        {"s", 1000000},     {"ms", 1000},      {"us", 1},
    };

    return quantity(us, scales, sizeof(scales) / sizeof(scales[0]));
}

static json_t *texts_json(const struct spec_texts *texts)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < texts->count; i++)
        BUG_ON(json_array_append_new(list, json_string(texts->items[i])) != 0);
    return list;
}

static json_t *resources_json(const struct job_ask *ask)
{
    json_t *resources = json_object();
    json_t *gpu = json_object();
    json_t *names = json_array();
    char cores[MONEY_TEXT];

    if (ask->cpu_device && ask->model_count == 0)
        json_array_append_new(names, json_string("cpu"));
    for (uint32_t i = 0; i < ask->model_count; i++)
        BUG_ON(json_array_append_new(names, json_string(ask->models[i])) != 0);
    put(gpu, "name", names);
    put(gpu, "memory", bytes_json(ask->gpu_memory));
    put(gpu, "count", json_integer(ask->gpus_per_node));
    if (ask->cpu_milli % MILLI == 0)
        put(resources, "cpu", json_integer(ask->cpu_milli / MILLI));
    else
        put(resources, "cpu", json_string(money_format((micro_t)ask->cpu_milli * MILLI, cores)));
    put(resources, "memory", bytes_json(ask->memory));
    put(resources, "disk", bytes_json(ask->disk));
    put(resources, "shm_size", bytes_json(ask->shm));
    put(resources, "gpu", gpu);
    return resources;
}

static json_t *placement_json(const struct job_ask *ask)
{
    json_t *placement = json_object();
    json_t *countries = json_array();
    json_t *excluded = json_array();

    for (uint32_t i = 0; i < ask->country_count; i++)
        BUG_ON(json_array_append_new(countries, json_string(ask->countries[i])) != 0);
    for (uint32_t i = 0; i < ask->excluded_count; i++)
        BUG_ON(json_array_append_new(excluded, json_string(ask->excluded[i])) != 0);
    put(placement, "countries", countries);
    put(placement, "exclude_nodes", excluded);
    return placement;
}

static json_t *budget_json(const struct job_spec *spec)
{
    const struct job_ask *ask = &spec->ask;
    json_t *budget = json_object();

    put(budget, "max_price", ask->max_price != 0 ? json_money(ask->max_price) : json_null());
    put(budget, "max_total", ask->max_total != 0 ? json_money(ask->max_total) : json_null());
    put(budget, "currency", json_string(spec->currency));
    return budget;
}

static json_t *retry_json(const struct job_ask *ask)
{
    json_t *retry = json_object();
    json_t *events = json_array();

    for (int i = FAIL_NONE + 1; i < FAIL_CLASS_COUNT; i++) {
        if ((ask->retry_on & 1u << i) != 0 && i != FAIL_PLATFORM)
            json_array_append_new(events, json_string(fail_class_name((enum fail_class)i)));
    }
    put(retry, "on_events", events);
    put(retry, "max_attempts", json_integer(ask->max_attempts));
    return retry;
}

static json_t *files_json(const struct job_spec *spec)
{
    json_t *files = json_array();

    for (uint32_t i = 0; i < spec->file_count; i++) {
        const struct spec_file *file = &spec->files[i];
        json_t *item = json_object();
        put(item, "source", json_string(file->source));
        put(item, "path", json_string(file->path));
        if (file->size != 0) {
            put(item, "sha256", json_hex(file->sha256, sizeof(file->sha256)));
            put(item, "size", json_integer((json_int_t)file->size));
        }
        BUG_ON(json_array_append_new(files, item) != 0);
    }
    return files;
}

static json_t *image_json(const struct spec_image *image)
{
    json_t *value;

    if (image->size == 0)
        return json_string(image->name);
    value = json_object();
    put(value, "archive", json_string(image->name));
    put(value, "sha256", json_hex(image->sha256, sizeof(image->sha256)));
    put(value, "size", json_integer((json_int_t)image->size));
    return value;
}

json_t *spec_to_json(const struct job_spec *spec)
{
    const struct job_ask *ask = &spec->ask;
    json_t *job = json_object();
    json_t *network = json_object();

    put(job, "version", json_integer(VERSION));
    put(job, "type", json_string("task"));
    put(job, "name", json_string(spec->name));
    put(job, "project", spec->project[0] != '\0' ? json_string(spec->project) : json_null());
    put(job, "priority", json_integer(ask->priority));
    /* Absent, not null: older workers know jobs without it. */
    if (ask->image)
        put(job, "image", image_json(&spec->image));
    put(job, "env", texts_json(&spec->env));
    put(job, "files", files_json(spec));
    put(job, "nodes", json_integer(ask->nodes));
    put(job, "resources", resources_json(ask));
    put(network, "max_rtt", duration_json(ask->max_rtt_us));
    put(job, "network", network);
    put(job, "placement", placement_json(ask));
    put(job, "budget", budget_json(spec));
    put(job, "retry", retry_json(ask));
    put(job, "launch", json_string(launch_name(spec->launch)));
    put(job, "commands", texts_json(&spec->commands));
    put(job, "outputs", texts_json(&spec->outputs));
    put(job, "max_duration", duration_json(ask->max_duration_us));
    /* 0 is a value of its own here: kill at once. */
    put(job, "stop_duration",
        ask->stop_duration_us != 0 ? duration_json(ask->stop_duration_us) : json_integer(0));
    put(job, "queue_timeout", duration_json(ask->queue_timeout_us));
    put(job, "fail_fast", json_boolean(ask->fail_fast));
    return job;
}

const char *spec_reference(void)
{
    return "version                  1, required       version of this format\n"
           "type                     task              a gang that runs to its end\n"
           "name                     text, job         1-63 of a-z 0-9 -\n"
           "project                  text              default: the token's project\n"
           "priority                 0..100, 50        higher goes first\n"
           "image                    text              name@sha256:… of a registry, or ./app.tar: "
           "an archive that the client sends\n"
           "env                      list or map       NAME=value for every rank\n"
           "files                    list              {source, path}: packed by the client and "
           "unpacked at path, under /job\n"
           "files.source             text, required    file or folder on your machine\n"
           "files.path               text, required    where it appears in the task\n"
           "files.sha256             64 hex digits     of the packed archive; the client fills it\n"
           "files.size               bytes             of the packed archive; the client fills it\n"
           "nodes                    1..256, 1         machines of the gang; all or none\n"
           "resources                object, required  per node\n"
           "resources.gpu            required          \"24GB:2\", \"H100:80GB:8\", \"cpu:1GB:2\", "
           "or {name, memory, count}\n"
           "resources.gpu.name       text or list      part of the model's name; cpu for class "
           "cpu\n"
           "resources.gpu.memory     size              per device, at least\n"
           "resources.gpu.count      1..16, 1          devices per node\n"
           "resources.cpu            cores, 0          2 or \"1.5\"\n"
           "resources.memory         size              default: a fair share of the node\n"
           "resources.disk           size, 0           scratch space\n"
           "resources.shm_size       size, 0           /dev/shm, part of memory\n"
           "network.max_rtt          duration          p95 between every pair of nodes\n"
           "placement.countries      list              ISO 3166 codes; default: any\n"
           "placement.exclude_nodes  list              node names\n"
           "budget.max_price         decimal           per device and hour\n"
           "budget.max_total         decimal           held at submit, at most charged\n"
           "budget.currency          text, USD         asset of the ledger\n"
           "retry.on_events          list              no-capacity interruption unreachable "
           "hardware provider user\n"
           "retry.max_attempts       1..20, 3          tries in all\n"
           "launch                   node              node: a process per node; device: one per "
           "device; none: as node, without RANK\n"
           "commands                 list, required    run by one sh -e on every rank; with image "
           "optional: the image's own\n"
           "outputs                  list, [/out]      folders under /out that are brought back\n"
           "max_duration             duration, 1h      30d at most\n"
           "stop_duration            duration, 30s     from SIGTERM to SIGKILL\n"
           "queue_timeout            duration          default: waits for ever\n"
           "fail_fast                false             true: refuse it when it cannot run now\n";
}
