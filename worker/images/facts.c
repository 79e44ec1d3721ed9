#include "worker/images/facts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "common/io/json.h"
#include "common/pure/buf.h"

#define MAX_VARIABLES SPEC_MAX_ENV
#define MAX_WORDS     256

/* The names that Go gives to what uname calls otherwise. */
static const char *machine(void)
{
    static struct utsname name;

    if (uname(&name) != 0)
        return "unknown";
    if (strcmp(name.machine, "x86_64") == 0)
        return "amd64";
    return strcmp(name.machine, "aarch64") == 0 ? "arm64" : name.machine;
}

/* Ours per task, and what a hook of the host would act on. */
static bool is_dropped(const char *item)
{
    static const char *const starts[] = {"NVIDIA_",
                                         "HOME=",
                                         "USER=",
                                         "LOGNAME=",
                                         "SHELL=",
                                         "TMPDIR=",
                                         "HOSTNAME=",
                                         "GLOO_SOCKET_IFNAME=",
                                         "NCCL_SOCKET_IFNAME="};

    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        if (strncmp(item, starts[i], strlen(starts[i])) == 0)
            return true;
    }
    return !spec_env_is_allowed(item);
}

static int read_env(const json_t *list, struct spec_texts *env, struct err *err)
{
    if (json_array_size(list) > MAX_VARIABLES)
        return err_set(err, ERR_IMAGE_UNUSABLE, "the image sets %zu variables, %d at most",
                       json_array_size(list), MAX_VARIABLES);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *item = json_string_value(json_array_get(list, i));
        if (item != NULL && !is_dropped(item))
            spec_texts_add(env, item);
    }
    return 0;
}

static int read_words(const json_t *list, struct spec_texts *argv, struct err *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *word = json_string_value(json_array_get(list, i));
        if (word == NULL || argv->count == MAX_WORDS)
            return err_set(err, ERR_IMAGE_UNUSABLE, "the image's command has more than %d words",
                           MAX_WORDS);
        spec_texts_add(argv, word);
    }
    return 0;
}

static int read_all(const json_t *value, struct image_facts *facts, struct err *err)
{
    const char *id = json_text(value, "Id");
    const char *system = json_text(value, "Os");
    const char *made_for = json_text(value, "Architecture");
    const json_t *config = json_object_get(value, "Config");
    const char *folder = json_text(config, "WorkingDir");
    int rc;

    if (id == NULL || strlen(id) >= sizeof(facts->id) || id[strspn(id, "0123456789abcdef")] != '\0')
        return err_set(err, ERR_UNEXPECTED_RESPONSE, "podman names no id of the image");
    memcpy(facts->id, id, strlen(id) + 1);
    if (system == NULL || strcmp(system, "linux") != 0 || made_for == NULL
        || strcmp(made_for, machine()) != 0)
        return err_set(err, ERR_IMAGE_UNUSABLE,
                       "the image is for %.20s/%.20s, this node is linux/%s",
                       system != NULL ? system : "?", made_for != NULL ? made_for : "?", machine());
    if (folder != NULL && fs_path(facts->folder, "%s", folder) != 0)
        return err_set(err, ERR_IMAGE_UNUSABLE, "the image's working folder has a long name");
    facts->bytes = (uint64_t)json_integer_value(json_object_get(value, "Size"));
    rc = read_env(json_object_get(config, "Env"), &facts->env, err);
    if (rc == 0)
        rc = read_words(json_object_get(config, "Entrypoint"), &facts->argv, err);
    return rc == 0 ? read_words(json_object_get(config, "Cmd"), &facts->argv, err) : rc;
}

int image_facts_read(const json_t *value, struct image_facts *ret_facts, struct err *err)
{
    struct image_facts facts = {0};
    int rc = read_all(value, &facts, err);

    if (rc == 0)
        *ret_facts = facts;
    else
        image_facts_fini(&facts);
    return rc;
}

void image_facts_fini(struct image_facts *facts)
{
    spec_texts_fini(&facts->env);
    spec_texts_fini(&facts->argv);
}

/* POSIX XCU 2.2.2: inside single quotes nothing is special but their end. */
static void put_quoted(struct buf *text, const char *word)
{
    buf_puts(text, "'");
    for (; *word != '\0'; word++) {
        if (*word == '\'')
            buf_puts(text, "'\\''");
        else
            buf_append(text, word, 1);
    }
    buf_puts(text, "'");
}

char *image_facts_script(const struct image_facts *facts)
{
    struct buf text;

    buf_init(&text, 0);
    if (facts->folder[0] != '\0') {
        buf_puts(&text, "cd -- ");
        put_quoted(&text, facts->folder);
        buf_puts(&text, "\n");
    }
    buf_puts(&text, "exec");
    for (uint32_t i = 0; i < facts->argv.count; i++) {
        buf_puts(&text, " ");
        put_quoted(&text, facts->argv.items[i]);
    }
    buf_puts(&text, "\n");
    return buf_take(&text);
}
