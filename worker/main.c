/* sheaf-worker: offers this machine's devices to a pool. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/fs.h"
#include "common/io/log.h"
#include "common/io/manpage.h"
#include "common/io/process.h"
#include "common/pure/mem.h"
#include "worker/core/verbs.h"

struct verb {
    const char *name;
    const char *arguments;
    const char *help;
    int (*call)(const struct verb_call *call);
};

static const struct verb verbs[] = {
    {"join", "TOKEN [--run]",
     "enrol this machine and measure its devices; --dry-run only shows them", verb_join},
    {"run", "", "offer the devices and run jobs, in the foreground", verb_run},
    {"status", "[-o json]", "state, devices, tasks and peers", verb_status},
    {"doctor", "[-o json]", "what works here, what does not, and the fixes", verb_doctor},
    {"bench", "[-o json]", "memory, arithmetic and copy speed of each device", verb_bench},
    {"pause", "", "keep the machine for yourself: no new work, running jobs end after the notice",
     verb_pause},
    {"resume", "", "offer it again", verb_resume},
    {"drain", "", "take no new jobs; running ones go on", verb_drain},
    {"undrain", "", "take new jobs again", verb_undrain},
    {"leave", "", "drain, then leave the pool for good", verb_leave},
    {"uninstall", "[--force]", "leave the pool and remove all that the worker made here",
     verb_uninstall},
    {"price", "set AMOUNT", "ask this per device and hour from now on", verb_price},
};
#define VERB_COUNT (sizeof(verbs) / sizeof(verbs[0]))

static void add_verbs(struct buf *out)
{
    for (size_t i = 0; i < VERB_COUNT; i++)
        buf_printf(out, "  %-9s %-14s %s\n", verbs[i].name, verbs[i].arguments, verbs[i].help);
}

static void print_man(void)
{
    struct manpage page = {
        .name = "sheaf-worker",
        .summary = "offer this machine's devices to a Sheaf pool",
        .usage = "sheaf-worker [OPTIONS] VERB\n"
                 "sheaf-worker --check-config | --print-config | --help | --version",
        .files = "/etc/sheaf/worker.yaml   settings\n"
                 "/var/lib/sheaf/worker    state: identity, journal, tasks",
        .options = settings_options(),
    };
    struct buf text;

    buf_init(&text, 0);
    buf_puts(&text, "First: sheaf-worker doctor; then join TOKEN, with the token that the pool's\n"
                    "operator gave; then run, or systemctl enable --now sheaf-worker.\n\n");
    add_verbs(&text);
    page.text = text.data;
    manpage_print(&page);
    buf_fini(&text);
}

static void print_help(const struct config *config)
{
    struct buf options;

    printf("sheaf-worker %s: offers this machine's devices to a Sheaf pool\n\n"
           "usage: sheaf-worker [OPTIONS] VERB\n\n",
           SHEAF_VERSION);
    buf_init(&options, 0);
    add_verbs(&options);
    buf_puts(&options, "\nfirst: sheaf-worker doctor; sheaf-worker join TOKEN; sheaf-worker run\n"
                       "\noptions\n");
    config_help(config, &options);
    fputs(options.data ? options.data : "", stdout);
    printf("  --check-config, --print-config, --help, --version\n");
    buf_fini(&options);
}

/* Takes a flag out of the arguments. */
static bool take_flag(int *argc, char **argv, const char *flag)
{
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], flag) != 0)
            continue;
        memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof(argv[0]));
        (*argc)--;
        return true;
    }
    return false;
}

/* -o json, -ojson or --output json; false for another format. */
static bool take_output(int *argc, char **argv, bool *ret_json)
{
    for (int i = 1; i < *argc; i++) {
        int words = 2;
        const char *format = i + 1 < *argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "-ojson") == 0 || strcmp(argv[i], "--json") == 0) {
            words = 1;
            format = "json";
        } else if (strcmp(argv[i], "-o") != 0 && strcmp(argv[i], "--output") != 0) {
            continue;
        }
        if (strcmp(format, "json") != 0)
            return false;
        *ret_json = true;
        memmove(&argv[i], &argv[i + words], (size_t)(*argc - i - words + 1) * sizeof(argv[0]));
        *argc -= words;
        return true;
    }
    return true;
}

static const char *const flags[] = {"--help",         "--version", "--man",        "--run",
                                    "--dry-run",      "--force",   "--keep-state", "--check-config",
                                    "--print-config", NULL};

static int usage(const char *text, const char *what)
{
    fprintf(stderr, "sheaf-worker: %s%s; see sheaf-worker --help\n", text, what);
    return 2;
}

static int call_verb(struct verb_call *call, int argc, char **argv)
{
    if (argc < 2)
        return usage("which verb?", "");
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (strcmp(argv[1], verbs[i].name) != 0)
            continue;
        call->argc = argc - 2;
        call->argv = argv + 2;
        if (call->argc > 0 && verbs[i].call != verb_join && verbs[i].call != verb_price
            && verbs[i].call != verb_uninstall)
            return usage("too many arguments: ", argv[2]);
        return verbs[i].call(call);
    }
    return usage("unknown verb ", argv[1]);
}

/* The installed worker leaves nothing outside its state; others share their user's cache. */
static void keep_cache(const struct settings *settings)
{
    if (strcmp(settings->state, SETTINGS_SYSTEM_STATE) == 0)
        (void)setenv("POCL_CACHE_DIR", SETTINGS_SYSTEM_STATE "/pocl", 0);
}

static int run(struct config *config, int argc, char **argv)
{
    struct settings *settings = mem_new(1, sizeof(*settings));
    struct verb_call call = {.config = config, .settings = settings};
    bool check = take_flag(&argc, argv, "--check-config");
    bool print = take_flag(&argc, argv, "--print-config");
    struct err err = {0};
    int code;

    call.run = take_flag(&argc, argv, "--run");
    call.dry_run = take_flag(&argc, argv, "--dry-run");
    if (!take_output(&argc, argv, &call.json)) {
        code = usage("the only format is: -o json", "");
    } else if (config_load(config, &argc, argv, &err) != 0
               || config_check_words(config, argc, argv, flags, &err) != 0
               || settings_read(config, settings, &err) != 0
               || settings_recall(config, settings, &err) != 0) {
        code = verb_fail(&err);
    } else if (print) {
        struct buf text;

        buf_init(&text, 0);
        config_print(config, &text);
        fputs(text.data ? text.data : "", stdout);
        buf_fini(&text);
        code = 0;
    } else if (check) {
        printf("the configuration is valid\n");
        code = 0;
    } else {
        log_open("sheaf-worker", settings->log);
        keep_cache(settings);
        code = call_verb(&call, argc, argv);
    }
    free(settings);
    return code;
}

int main(int argc, char **argv)
{
    struct config *config = config_new(settings_options(), "SHEAF_WORKER");
    int code = 0;

    fs_guard_streams();
    process_keep_secrets();
    if (take_flag(&argc, argv, "--version"))
        printf("sheaf-worker %s\n", SHEAF_VERSION);
    else if (take_flag(&argc, argv, "--man"))
        print_man();
    else if (take_flag(&argc, argv, "--help") || take_flag(&argc, argv, "-h") || argc < 2)
        print_help(config);
    else
        code = run(config, argc, argv);
    config_free(config);
    return code;
}
