#include "common/io/config.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/fs.h"
#include "common/io/json.h"
#include "common/io/yaml.h"
#include "common/pure/mem.h"
#include "common/pure/money.h"
#include "common/pure/nearest.h"
#include "common/pure/units.h"

#define MAX_OPTIONS 128
#define ENV_NAME    96
#define HELP_COLUMN 28

/* The later wins. */
enum origin {
    ORIGIN_UNSET,
    ORIGIN_DEFAULT,
    ORIGIN_SAVED, /* what the program kept from an earlier run */
    ORIGIN_FILE,
    ORIGIN_ENV,
    ORIGIN_FLAG,
};

struct value {
    enum origin origin;
    char *text;     /* owned; as it was written */
    char *where;    /* owned; "file /etc/x.yaml:3", "environment X", …; NULL for a default */
    int64_t number; /* of all types but text */
};

struct config {
    const struct config_option *options;
    const char *prefix;
    struct value *values; /* one per option */
    size_t count;
    enum origin file_origin; /* of the file that is being read */
    bool file_loaded;
};

static const struct config_option *find(const struct config *config, const char *key,
                                        size_t key_length, size_t *ret_index)
{
    for (size_t i = 0; i < config->count; i++) {
        const char *known = config->options[i].key;
        if (strlen(known) == key_length && memcmp(known, key, key_length) == 0) {
            *ret_index = i;
            return &config->options[i];
        }
    }
    return NULL;
}

static bool parse_bool(const char *text, int64_t *ret_number)
{
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "1") == 0;
    bool no = strcmp(text, "false") == 0 || strcmp(text, "no") == 0 || strcmp(text, "0") == 0;

    if (yes || no)
        *ret_number = yes;
    return yes || no;
}

static bool parse_int(const char *text, int64_t *ret_number)
{
    bool negative = text[0] == '-';
    const char *at = text + negative;
    int64_t number = 0;

    if (*at == '\0')
        return false;
    for (; *at != '\0'; at++) {
        int digit = *at - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(number, 10, &number)
            || __builtin_add_overflow(number, negative ? -digit : digit, &number))
            return false;
    }
    *ret_number = number;
    return true;
}

/* NULL, or what is wrong with the text. */
static const char *parse_number(enum config_type type, const char *text, int64_t *ret_number)
{
    uint64_t quantity = 0;

    switch (type) {
    case CONFIG_TEXT:
        return NULL;
    case CONFIG_BOOL:
        return parse_bool(text, ret_number) ? NULL : "not true or false";
    case CONFIG_INT:
        return parse_int(text, ret_number) ? NULL : "not a whole number";
    case CONFIG_BYTES:
        if (units_parse_bytes(text, &quantity) != 0 || quantity > INT64_MAX)
            return "not a size with a unit, e.g. 64MiB or 10GB";
        break;
    case CONFIG_DURATION:
        if (units_parse_duration(text, &quantity) != 0 || quantity > INT64_MAX)
            return "not a time with a unit, e.g. 500ms, 30s or 2h";
        break;
    case CONFIG_MONEY:
        return money_parse(text, ret_number) == 0 ? NULL : "not a decimal with at most 6 places";
    }
    *ret_number = (int64_t)quantity;
    return NULL;
}

/* One value from one place; `where` begins the error: "worker.yaml:3", "SHEAF_X", "--x". */
struct setting {
    enum origin origin;
    enum err_code code; /* of errors from this place */
    const char *where;
};

static int set_value(struct config *config, size_t index, const char *text,
                     const struct setting *setting, struct err *err)
{
    const struct config_option *option = &config->options[index];
    struct value *value = &config->values[index];
    const char *shown = option->secret ? "***" : text;
    int64_t number = 0;
    const char *wrong = parse_number(option->type, text, &number);

    if (wrong != NULL)
        return err_set_at(err, setting->code, option->key, "%s:%s: %s: %.80s", setting->where,
                          option->key, wrong, shown);
    if (option->type != CONFIG_TEXT && (option->min != 0 || option->max != 0)
        && (number < option->min || number > option->max))
        return err_set_at(err, setting->code, option->key,
                          "%s:%s: out of range (%" PRId64 " to %" PRId64 "): %.80s", setting->where,
                          option->key, option->min, option->max, shown);
    if (setting->origin < value->origin)
        return 0;
    free(value->text);
    free(value->where);
    *value = (struct value){
        .origin = setting->origin,
        .text = mem_strdup(text),
        .where = mem_strdup(setting->where),
        .number = number,
    };
    return 0;
}

struct config *config_new(const struct config_option *options, const char *prefix)
{
    static const struct setting initial = {ORIGIN_DEFAULT, ERR_INTERNAL, "default"};
    struct config *config = mem_new(1, sizeof(*config));

    config->options = options;
    config->prefix = prefix;
    while (options[config->count].key != NULL)
        config->count++;
    BUG_ON(config->count > MAX_OPTIONS);
    config->values = mem_new(config->count, sizeof(*config->values));
    for (size_t i = 0; i < config->count; i++) {
        if (options[i].value != NULL)
            BUG_ON(set_value(config, i, options[i].value, &initial, NULL) != 0);
    }
    return config;
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    for (size_t i = 0; i < config->count; i++) {
        free(config->values[i].text);
        free(config->values[i].where);
    }
    free(config->values);
    free(config);
}

static int refuse_key(const struct config *config, const char *where, const char *key,
                      struct err *err)
{
    const char *keys[MAX_OPTIONS];

    for (size_t i = 0; i < config->count; i++)
        keys[i] = config->options[i].key;
    const char *near = nearest_word(key, keys, config->count);
    return err_set_at(err, ERR_CONFIG_INVALID, key, "%s:%.60s: unknown key%s%s%s", where, key,
                      near != NULL ? "; did you mean " : "", near != NULL ? near : "",
                      near != NULL ? "?" : "");
}

/* The text of a scalar as the file had it; NULL for a list or an object. Caller frees. */
static char *scalar_text(const json_t *value)
{
    if (json_is_string(value))
        return mem_strdup(json_string_value(value));
    return json_is_object(value) || json_is_array(value) ? NULL : json_write(value);
}

static int set_from_file(struct config *config, const char *where, const char *key,
                         const json_t *value, struct err *err)
{
    struct setting setting = {config->file_origin, ERR_CONFIG_INVALID, where};
    size_t index = 0;

    if (find(config, key, strlen(key), &index) == NULL)
        return refuse_key(config, where, key, err);
    if (json_is_null(value))
        return 0; /* "key:" alone leaves the default */
    char *text = scalar_text(value);
    if (text == NULL)
        return err_set_at(err, ERR_CONFIG_INVALID, key, "%s:%s: one value is wanted, not several",
                          where, key);
    int rc = set_value(config, index, text, &setting, err);
    free(text);
    return rc;
}

static int load_object(struct config *config, const char *path, json_t *object,
                       const struct yaml_marks *marks, struct err *err)
{
    if (json_is_null(object))
        return 0;
    if (!json_is_object(object))
        return err_set(err, ERR_CONFIG_INVALID, "%s:1: key: value lines are wanted", path);
    for (void *at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at)) {
        const char *key = json_object_iter_key(at);
        char pointer[ENV_NAME];
        char where[FS_PATH + 16];
        unsigned line = 0;
        unsigned column = 0;
        snprintf(pointer, sizeof(pointer), "/%s", key);
        yaml_locate(marks, pointer, &line, &column);
        snprintf(where, sizeof(where), "%s:%u", path, line);
        int rc = set_from_file(config, where, key, json_object_iter_value(at), err);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int load_file(struct config *config, const char *path, enum origin origin, struct err *err)
{
    struct yaml_marks *marks = NULL;
    json_t *value = NULL;
    struct buf text;
    struct err why;

    config->file_origin = origin;
    buf_init(&text, 0);
    int rc = fs_read(path, YAML_MAX_BYTES, &text, &why);
    if (rc != 0) {
        rc = err_set(err, ERR_CONFIG_INVALID, "%s", why.text);
    } else if (text.length > 0) {
        rc = yaml_read(text.data, text.length, &value, &marks, &why);
        /* A file of comments alone says nothing, which is allowed. */
        if (rc == -ERR_YAML_SYNTAX && strstr(why.text, "the file is empty") != NULL)
            rc = 0;
        else if (rc != 0)
            rc = err_set(err, ERR_CONFIG_INVALID, "%s:%s", path, why.text);
        else
            rc = load_object(config, path, value, marks, err);
    }
    json_decref(value);
    yaml_marks_free(marks);
    buf_fini(&text);
    return rc;
}

int config_load_file(struct config *config, const char *path, struct err *err)
{
    int rc = load_file(config, path, ORIGIN_FILE, err);

    if (rc == 0)
        config->file_loaded = true;
    return rc;
}

int config_load_saved(struct config *config, const char *path, struct err *err)
{
    return access(path, F_OK) == 0 ? load_file(config, path, ORIGIN_SAVED, err) : 0;
}

int config_save(const struct config *config, const char *const *skip, const char *path,
                struct err *err)
{
    json_t *kept = json_object();

    for (size_t i = 0; i < config->count; i++) {
        const struct config_option *option = &config->options[i];
        bool skipped = option->secret || config->values[i].origin <= ORIGIN_DEFAULT;
        for (const char *const *key = skip; !skipped && *key != NULL; key++)
            skipped = strcmp(*key, option->key) == 0;
        if (!skipped)
            json_object_set_new(kept, option->key, json_string(config->values[i].text));
    }
    char *text = yaml_write(kept);
    int rc = fs_write(path, text, strlen(text), 0644, err);
    free(text);
    json_decref(kept);
    return rc;
}

/* PREFIX_KEY, upper case, _ for -. */
static void env_name(const struct config *config, const char *key, char out[ENV_NAME])
{
    int length = snprintf(out, ENV_NAME, "%s_%s", config->prefix, key);

    BUG_ON(length < 0 || length >= ENV_NAME);
    for (char *at = out; *at != '\0'; at++) {
        if (*at == '-')
            *at = '_';
        else if (*at >= 'a' && *at <= 'z')
            *at = (char)(*at - 'a' + 'A');
    }
}

int config_load_env(struct config *config, struct err *err)
{
    for (size_t i = 0; i < config->count; i++) {
        char name[ENV_NAME];
        struct setting setting = {ORIGIN_ENV, ERR_CONFIG_INVALID, name};
        env_name(config, config->options[i].key, name);
        const char *text = getenv(name);
        if (text == NULL)
            continue;
        int rc = set_value(config, i, text, &setting, err);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* One argument at argv[0], perhaps with a value in argv[1]. */
struct flag {
    char name[ENV_NAME]; /* without dashes and value */
    const char *value;   /* after "=", else NULL */
};

static bool parse_flag(const char *argument, struct flag *ret_flag)
{
    if (strncmp(argument, "--", 2) != 0)
        return false;
    const char *name = argument + 2;
    size_t length = strcspn(name, "=");
    if (length == 0 || length >= sizeof(ret_flag->name))
        return false;
    memcpy(ret_flag->name, name, length);
    ret_flag->name[length] = '\0';
    ret_flag->value = name[length] == '=' ? name + length + 1 : NULL;
    return true;
}

/* How many arguments it took: 0 when it knows none of it, or a negative error. */
static int take_flag(struct config *config, const struct flag *flag, const char *next,
                     struct err *err)
{
    char where[ENV_NAME + 2];
    struct setting setting = {ORIGIN_FLAG, ERR_USAGE, where};
    const char *name = flag->name;
    bool is_config = strcmp(name, "config") == 0;
    size_t index = 0;
    const struct config_option *option = find(config, name, strlen(name), &index);

    snprintf(where, sizeof(where), "--%s", name);
    if (option == NULL && !is_config) {
        if (strncmp(name, "no-", 3) != 0 || flag->value != NULL)
            return 0;
        option = find(config, name + 3, strlen(name + 3), &index);
        if (option == NULL || option->type != CONFIG_BOOL)
            return 0;
        int rc = set_value(config, index, "false", &setting, err);
        return rc != 0 ? rc : 1;
    }
    if (option != NULL && option->type == CONFIG_BOOL && flag->value == NULL) {
        int rc = set_value(config, index, "true", &setting, err);
        return rc != 0 ? rc : 1;
    }
    const char *value = flag->value != NULL ? flag->value : next;
    if (value == NULL)
        return err_set_at(err, ERR_USAGE, name, "--%s needs a value", name);
    int rc = option != NULL ? set_value(config, index, value, &setting, err)
                            : config_load_file(config, value, err);
    return rc != 0 ? rc : flag->value != NULL ? 1 : 2;
}

int config_load_args(struct config *config, int *argc, char **argv, struct err *err)
{
    int kept = *argc > 0 ? 1 : 0;
    int i = kept;

    while (i < *argc && strcmp(argv[i], "--") != 0) {
        struct flag flag;
        int taken = 0;
        if (parse_flag(argv[i], &flag))
            taken = take_flag(config, &flag, i + 1 < *argc ? argv[i + 1] : NULL, err);
        if (taken < 0)
            return taken;
        if (taken == 0)
            argv[kept++] = argv[i++];
        i += taken;
    }
    while (i < *argc)
        argv[kept++] = argv[i++];
    if (kept < *argc)
        argv[kept] = NULL;
    *argc = kept;
    return 0;
}

/* /etc/sheaf/worker.yaml of SHEAF_WORKER; false when it is not there for us. */
static bool system_file(const struct config *config, char out[ENV_NAME])
{
    const char *program = strncmp(config->prefix, "SHEAF_", 6) == 0 ? config->prefix + 6 : "";

    snprintf(out, ENV_NAME, CONFIG_SYSTEM_FOLDER "/%s.yaml", program);
    for (char *at = out; *at != '\0'; at++)
        *at = (char)tolower((unsigned char)*at);
    return access(out, R_OK) == 0;
}

int config_load(struct config *config, int *argc, char **argv, struct err *err)
{
    char name[ENV_NAME];
    char system[ENV_NAME];

    /* Values know their origin, so the order of loading does not decide which one wins. */
    int rc = config_load_args(config, argc, argv, err);
    if (rc == 0)
        rc = config_load_env(config, err);
    env_name(config, "config", name);
    const char *path = getenv(name);
    if (path == NULL && system_file(config, system))
        path = system;
    if (rc == 0 && !config->file_loaded && path != NULL && path[0] != '\0')
        rc = config_load_file(config, path, err);
    return rc;
}

static const struct value *value_of(const struct config *config, const char *key, size_t *ret_index)
{
    BUG_ON(find(config, key, strlen(key), ret_index) == NULL);
    return &config->values[*ret_index];
}

const char *config_text(const struct config *config, const char *key)
{
    size_t index = 0;

    return value_of(config, key, &index)->text;
}

bool config_bool(const struct config *config, const char *key)
{
    return config_int(config, key) != 0;
}

int64_t config_int(const struct config *config, const char *key)
{
    size_t index = 0;
    const struct value *value = value_of(config, key, &index);

    BUG_ON(config->options[index].type == CONFIG_TEXT);
    return value->number;
}

bool config_is_set(const struct config *config, const char *key)
{
    size_t index = 0;

    return value_of(config, key, &index)->origin > ORIGIN_DEFAULT;
}

void config_print(const struct config *config, struct buf *out)
{
    for (size_t i = 0; i < config->count; i++) {
        const struct config_option *option = &config->options[i];
        const struct value *value = &config->values[i];
        if (value->origin == ORIGIN_UNSET) {
            buf_printf(out, "# %s: # unset\n", option->key);
            continue;
        }
        if (option->type == CONFIG_TEXT) {
            /* A JSON text is a double-quoted YAML scalar. */
            json_t *text = json_string(option->secret ? "***" : value->text);
            char *quoted = text != NULL ? json_write(text) : mem_strdup("\"(not UTF-8)\"");
            buf_printf(out, "%s: %s", option->key, quoted);
            free(quoted);
            json_decref(text);
        } else {
            buf_printf(out, "%s: %s", option->key, option->secret ? "\"***\"" : value->text);
        }
        buf_printf(out, " # %s\n", value->where);
    }
}

void config_help(const struct config *config, struct buf *out)
{
    for (size_t i = 0; i < config->count; i++) {
        const struct config_option *option = &config->options[i];
        char left[ENV_NAME];
        char name[ENV_NAME];
        const char *metavar = option->metavar != NULL ? option->metavar : "VALUE";
        if (option->type == CONFIG_BOOL)
            snprintf(left, sizeof(left), "--[no-]%s", option->key);
        else
            snprintf(left, sizeof(left), "--%s %s", option->key, metavar);
        env_name(config, option->key, name);
        buf_printf(out, "  %-*s", HELP_COLUMN, left);
        if (strlen(left) > HELP_COLUMN - 1)
            buf_printf(out, "\n  %-*s", HELP_COLUMN, "");
        buf_puts(out, option->help);
        if (option->value != NULL && option->value[0] != '\0' && !option->secret)
            buf_printf(out, " [%s]", option->value);
        buf_printf(out, " ($%s)\n", name);
    }
}
