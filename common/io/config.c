#include "common/io/config.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/fs.h"
#include "common/io/json.h"
#include "common/io/log.h"
#include "common/io/process.h"
#include "common/io/yaml.h"
#include "common/pure/mem.h"
#include "common/pure/money.h"
#include "common/pure/nearest.h"
#include "common/pure/units.h"

#define MAX_OPTIONS   128
#define ENV_NAME      96
#define HELP_COLUMN   28
#define MAX_LISTENING 8
#define MAX_FILES     8

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

/* A file that was read, to be read again. */
struct source {
    char *path; /* owned */
    enum origin origin;
};

struct config {
    const struct config_option *options;
    const char *prefix;
    struct value *values; /* one per option */
    size_t count;
    enum origin file_origin; /* of the file that is being read */
    struct source files[MAX_FILES];
    size_t file_count;
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
    const char *shown = (option->flags & CONFIG_SECRET) != 0 ? "***" : text;
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
    for (size_t i = 0; i < config->file_count; i++)
        free(config->files[i].path);
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

static int remember_file(struct config *config, const char *path, enum origin origin,
                         struct err *err)
{
    for (size_t i = 0; i < config->file_count; i++) {
        if (config->files[i].origin == origin && strcmp(config->files[i].path, path) == 0)
            return 0;
    }
    if (config->file_count == MAX_FILES)
        return err_set(err, ERR_CONFIG_INVALID, "%s: more than %d files", path, MAX_FILES);
    config->files[config->file_count++] = (struct source){mem_strdup(path), origin};
    return 0;
}

static int load_file(struct config *config, const char *path, enum origin origin, struct err *err)
{
    struct yaml_marks *marks = NULL;
    json_t *value = NULL;
    struct buf text;
    struct err why;

    int rc = remember_file(config, path, origin, err);
    if (rc != 0)
        return rc;
    config->file_origin = origin;
    buf_init(&text, 0);
    rc = fs_read(path, YAML_MAX_BYTES, &text, &why);
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
        bool skipped =
            (option->flags & CONFIG_SECRET) != 0 || config->values[i].origin <= ORIGIN_DEFAULT;
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
        if ((config->options[i].flags & CONFIG_SECRET) != 0) {
            process_hide(text);
            (void)unsetenv(name); /* nor do children see it */
        }
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
    if (option != NULL && (option->flags & CONFIG_SECRET) != 0)
        process_hide(value);
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

int config_refuse(const struct config *config, const char *key, struct err *err, const char *format,
                  ...)
{
    size_t index = 0;
    const struct value *value = value_of(config, key, &index);
    bool flag = value->origin == ORIGIN_FLAG; /* its place is its name */
    char text[sizeof(err->text)];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return err_set_at(err, ERR_CONFIG_INVALID, key, "%s%s%s: %s",
                      value->where != NULL ? value->where : "default", flag ? "" : ":",
                      flag ? "" : key, text);
}

int config_check_words(const struct config *config, int argc, char *const *argv,
                       const char *const *words, struct err *err)
{
    const char *names[MAX_OPTIONS];

    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        size_t count = 0;
        bool known = argv[i][0] != '-' || argv[i][1] == '\0';
        for (size_t w = 0; words[w] != NULL && count < MAX_OPTIONS; w++) {
            known = known || strcmp(words[w], argv[i]) == 0;
            names[count++] = words[w] + strspn(words[w], "-");
        }
        for (size_t k = 0; k < config->count && count < MAX_OPTIONS; k++)
            names[count++] = config->options[k].key;
        if (known)
            continue;
        char plain[ENV_NAME];
        snprintf(plain, sizeof(plain), "%.*s", (int)strcspn(argv[i], "="), argv[i]);
        const char *near = nearest_word(plain + strspn(plain, "-"), names, count);
        return err_set(err, ERR_USAGE, "unknown option %s%s%s%s", plain,
                       near != NULL ? "; did you mean --" : "", near != NULL ? near : "",
                       near != NULL ? "?" : "; --help lists them");
    }
    return 0;
}

/* Where a program listens: "tcp://HOST:PORT", "HOST:PORT", "LOW-HIGH" or a port alone. */
struct listening {
    const char *key;
    const char *host; /* not terminated */
    size_t host_length;
    uint32_t low;
    uint32_t high;
};

static bool read_listening(const char *text, struct listening *ret_at)
{
    const char *scheme = strstr(text, "://");
    uint32_t port[2] = {0, 0};
    int count = 0;

    ret_at->host = scheme != NULL ? scheme + 3 : text;
    const char *colon = strrchr(ret_at->host, ':');
    const char *at = colon != NULL ? colon + 1 : ret_at->host;
    ret_at->host_length = colon != NULL ? (size_t)(colon - ret_at->host) : 0;
    if (*at == '\0' || at[strspn(at, "0123456789-")] != '\0')
        return false;
    for (; *at != '\0' && count < 2; at++) {
        if (*at == '-')
            count++;
        else if (port[count] <= UINT16_MAX)
            port[count] = port[count] * 10 + (uint32_t)(*at - '0');
    }
    ret_at->low = port[0];
    ret_at->high = count == 1 ? port[1] : port[0];
    return true;
}

static bool is_every_host(const struct listening *at)
{
    static const char *const names[] = {"", "*", "0.0.0.0", "::", "[::]"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strlen(names[i]) == at->host_length && memcmp(names[i], at->host, at->host_length) == 0)
            return true;
    }
    return false;
}

static bool listen_alike(const struct listening *a, const struct listening *b)
{
    bool host =
        is_every_host(a) || is_every_host(b)
        || (a->host_length == b->host_length && memcmp(a->host, b->host, a->host_length) == 0);

    return host && a->low <= b->high && b->low <= a->high;
}

int config_check_fixed(const struct config *config, const char *bind, const char *told,
                       struct err *err)
{
    const char *text = config_text(config, bind);
    struct listening at;

    if (config_text(config, told) == NULL || text == NULL || !read_listening(text, &at)
        || at.low != 0)
        return 0;
    return config_refuse(config, bind, err, "port 0 is another one at each start, but %s is fixed",
                         told);
}

int config_check_ports(const struct config *config, const char *const *keys, struct err *err)
{
    struct listening seen[MAX_LISTENING];
    size_t count = 0;

    for (; *keys != NULL; keys++) {
        const char *text = config_text(config, *keys);
        struct listening at = {.key = *keys};
        if (text == NULL || !read_listening(text, &at))
            continue;
        if (at.low > UINT16_MAX || at.high > UINT16_MAX)
            return config_refuse(config, *keys, err, "a port is at most 65535: %.80s", text);
        if (at.high == 0)
            continue;
        for (size_t i = 0; i < count; i++) {
            if (listen_alike(&seen[i], &at))
                return config_refuse(config, *keys, err, "%.80s is taken by %s already", text,
                                     seen[i].key);
        }
        BUG_ON(count == MAX_LISTENING);
        seen[count++] = at;
    }
    return 0;
}

/* -- reading again -------------------------------------------------------------------------- */

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* "file:line:key: " before an error that only names the key. */
static void say_where(const struct config *config, struct err *err)
{
    struct err plain = *err;
    size_t index = 0;

    if (err->pointer[0] == '\0' || find(config, err->pointer, strlen(err->pointer), &index) == NULL)
        return;
    const char *where = config->values[index].where;
    if (where != NULL && strncmp(err->text, where, strlen(where)) != 0)
        (void)err_set_at(err, plain.code, plain.pointer, "%s:%s: %s", where, plain.pointer,
                         plain.text);
}

static int load_again(const struct config *config, struct config *fresh, struct err *err)
{
    for (size_t i = 0; i < config->count; i++) {
        const struct value *value = &config->values[i];
        struct setting setting = {value->origin, ERR_CONFIG_INVALID, value->where};
        if (value->origin == ORIGIN_ENV || value->origin == ORIGIN_FLAG)
            BUG_ON(set_value(fresh, i, value->text, &setting, NULL) != 0);
    }
    for (size_t i = 0; i < config->file_count; i++) {
        const struct source *file = &config->files[i];
        int rc = file->origin == ORIGIN_SAVED ? config_load_saved(fresh, file->path, err)
                                              : config_load_file(fresh, file->path, err);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static void take_over(struct config *config, struct config *fresh)
{
    for (size_t i = 0; i < config->count; i++) {
        const struct config_option *option = &config->options[i];
        struct value *now = &config->values[i];
        struct value *next = &fresh->values[i];
        if (same_text(now->text, next->text))
            continue;
        if ((option->flags & CONFIG_RELOAD) == 0) {
            log_warn("config", "needs-restart", "key=%s", option->key);
            continue;
        }
        bool secret = (option->flags & CONFIG_SECRET) != 0;
        log_info("config", "changed", "key=%s value=" LOG_Q, option->key,
                 secret               ? "***"
                 : next->text != NULL ? next->text
                                      : "");
        struct value old = *now;
        *now = *next;
        *next = old;
    }
}

int config_reload(struct config *config, const struct config_reload *reload, struct err *err)
{
    struct config *fresh = config_new(config->options, config->prefix);
    struct err why = {0};
    int rc = load_again(config, fresh, &why);

    if (rc == 0) {
        rc = reload->check(fresh, reload->arg, &why);
        if (rc != 0)
            say_where(fresh, &why);
    }
    if (rc == 0) {
        take_over(config, fresh);
        log_info("config", "reloaded", "files=%zu", config->file_count);
    } else {
        log_error("config", "reload-refused", "detail=" LOG_Q, why.text);
        rc = err_set_at(err, why.code, why.pointer, "%s", why.text);
    }
    config_free(fresh);
    return rc;
}

/* -- printing ------------------------------------------------------------------------------- */

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
            json_t *text = json_string((option->flags & CONFIG_SECRET) != 0 ? "***" : value->text);
            char *quoted = text != NULL ? json_write(text) : mem_strdup("\"(not UTF-8)\"");
            buf_printf(out, "%s: %s", option->key, quoted);
            free(quoted);
            json_decref(text);
        } else {
            buf_printf(out, "%s: %s", option->key,
                       (option->flags & CONFIG_SECRET) != 0 ? "\"***\"" : value->text);
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
        if ((option->flags & CONFIG_RELOAD) != 0)
            buf_puts(out, "; SIGHUP reads it again");
        if (option->value != NULL && option->value[0] != '\0'
            && (option->flags & CONFIG_SECRET) == 0)
            buf_printf(out, " [%s]", option->value);
        buf_printf(out, " ($%s)\n", name);
    }
}
