/* Verbs about this machine: login, contexts, help, the example file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/context.h"
#include "cli/jobfile.h"
#include "cli/table.h"
#include "cli/term.h"
#include "cli/verbs.h"
#include "common/io/fs.h"
#include "common/io/json.h"

#define TOKEN_MAX_BYTES 127

static void trim(char *text)
{
    size_t length = strcspn(text, "\r\n");

    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        length--;
    text[length] = '\0';
}

static int ask_token(char token[128], struct err *err)
{
    struct termios before;
    struct termios silent;
    bool tty = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;

    if (!tty)
        return err_set(err, ERR_USAGE, "give the token in SHEAF_TOKEN or by --token-file");
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    fputs("token: ", stderr);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    char *line = fgets(token, 128, stdin);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    fputs("\n", stderr);
    if (line == NULL)
        return err_set(err, ERR_USAGE, "no token was given");
    trim(token);
    return 0;
}

static int read_token(const struct args *args, char token[128], struct err *err)
{
    const char *file = args_get(args, "token-file");
    const char *env = getenv("SHEAF_TOKEN");
    struct buf text;

    if (file == NULL && env != NULL && env[0] != '\0') {
        snprintf(token, 128, "%s", env);
        return 0;
    }
    if (file == NULL)
        return ask_token(token, err);
    if (strcmp(file, "-") == 0) {
        if (fgets(token, 128, stdin) == NULL)
            return err_set(err, ERR_USAGE, "no token on standard input");
        trim(token);
        return 0;
    }
    buf_init(&text, TOKEN_MAX_BYTES);
    int rc = fs_read_secret(file, TOKEN_MAX_BYTES, FS_OWNER_ALONE, &text, err);
    if (rc == 0) {
        snprintf(token, 128, "%s", text.data ? text.data : "");
        trim(token);
    }
    buf_fini(&text);
    return rc;
}

static int copy_ca(const char *from, const char *to, struct err *err)
{
    struct buf text;

    buf_init(&text, 65536);
    int rc = fs_read(from, 65536, &text, err);
    if (rc == 0)
        rc = fs_write(to, text.data, text.length, 0644, err);
    buf_fini(&text);
    return rc;
}

/* Trusts the CA, then proves that the token works before anything is stored. */
static int login(const struct args *args, struct context *context, json_t **ret_me, struct err *err)
{
    const char *fingerprint = args_get(args, "fingerprint");
    const char *ca = args_get(args, "ca");
    struct httpc client = {0};
    int rc;

    if ((fingerprint == NULL) == (ca == NULL))
        return err_set(err, ERR_USAGE, "give either --fingerprint SHA256 or --ca FILE");
    if (strncmp(context->url, "https://", 8) != 0)
        return err_set(err, ERR_USAGE, "the URL must start with https://");
    rc = context_ca_path(context->name, context->ca_file, err);
    if (rc == 0)
        rc = ca ? copy_ca(ca, context->ca_file, err)
                : httpc_pin_ca(context->url, fingerprint, context->ca_file, err);
    if (rc == 0)
        rc = read_token(args, context->token, err);
    if (rc < 0)
        return rc;
    snprintf(client.url, sizeof(client.url), "%s", context->url);
    snprintf(client.ca_file, sizeof(client.ca_file), "%s", context->ca_file);
    snprintf(client.token, sizeof(client.token), "%s", context->token);
    rc = api_call(&client, "GET", "/api/v1/whoami", NULL, NULL, ret_me, err);
    if (rc < 0)
        return rc;
    return context_save(context, err);
}

int verb_login(const struct args *args)
{
    struct context context = {0};
    json_t *me = NULL;
    struct err err;
    const char *name = args_get(args, "name");

    snprintf(context.name, sizeof(context.name), "%s", name ? name : "default");
    snprintf(context.url, sizeof(context.url), "%s", args->words[0]);
    context.url[strcspn(context.url, "\r\n")] = '\0';
    size_t length = strlen(context.url);
    if (length > 0 && context.url[length - 1] == '/')
        context.url[length - 1] = '\0';
    if (login(args, &context, &me, &err) < 0) {
        json_decref(me);
        return command_fail(&err);
    }
    const char *project = json_text_at(me, "project");
    fprintf(stderr, "logged in to %s as %s%s%s (context %s)\n", context.url,
            json_text_at(me, "role"), project[0] ? " of project " : "", project, context.name);
    json_decref(me);
    return EXIT_OK;
}

int verb_init(const struct args *args)
{
    const char *path = args->word_count > 0 ? args->words[0] : "job.yaml";
    struct err err;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

    if (fd < 0 && errno == EEXIST) {
        err_set(&err, ERR_ALREADY_EXISTS, "%s is there; name another file", path);
        return command_fail(&err);
    }
    const char *text = jobfile_template();
    size_t length = strlen(text);
    if (fd < 0 || write(fd, text, length) != (ssize_t)length || close(fd) < 0) {
        err_set(&err, ERR_IO, "cannot write %s: %s", path, strerror(errno));
        return command_fail(&err);
    }
    fprintf(stderr, "wrote %s; next: sheaf plan -f %s\n", path, path);
    return EXIT_OK;
}

int verb_context_ls(const struct args *args)
{
    static const struct column columns[] = {
        {"NAME", "name", CELL_TEXT, false, true},
        {"URL", "url", CELL_TEXT, false, false},
        {"CURRENT", "current", CELL_BOOL, false, false},
        {0},
    };
    json_t *items;
    struct err err;

    (void)args;
    if (context_list(&items, &err) < 0)
        return command_fail(&err);
    table_print(items, columns, "no server yet; next: sheaf login URL --fingerprint FP");
    json_decref(items);
    return EXIT_OK;
}

int verb_context_use(const struct args *args)
{
    struct err err;

    return context_use(args->words[0], &err) < 0 ? command_fail(&err) : EXIT_OK;
}

int verb_context_rm(const struct args *args)
{
    struct err err;

    return context_remove(args->words[0], &err) < 0 ? command_fail(&err) : EXIT_OK;
}

static int print_text(void (*make)(struct buf *))
{
    struct buf text;

    buf_init(&text, 0);
    make(&text);
    fputs(text.data, stdout);
    buf_fini(&text);
    return EXIT_OK;
}

int verb_man(const struct args *args)
{
    (void)args;
    return print_text(help_man);
}

int verb_completion(const struct args *args)
{
    struct err err;

    if (strcmp(args->words[0], "bash") != 0) {
        err_set(&err, ERR_USAGE, "there is completion for bash only");
        return command_fail(&err);
    }
    return print_text(help_completion_bash);
}

int verb_help(const struct args *args)
{
    char name[128] = "";
    struct err err;

    if (args->word_count == 0)
        return print_text(help_all);
    for (int i = 0; i < args->word_count; i++) {
        size_t length = strlen(name);
        snprintf(name + length, sizeof(name) - length, "%s%s", i ? " " : "", args->words[i]);
    }
    bool found = false;
    size_t length = strlen(name);
    for (const struct command *c = commands; c->name != NULL; c++) {
        bool family = strncmp(c->name, name, length) == 0 && c->name[length] == ' ';
        if (strcmp(c->name, name) != 0 && !family)
            continue;
        struct buf text;
        buf_init(&text, 0);
        help_command(c, &text);
        printf("%s%s", found ? "\n" : "", text.data);
        buf_fini(&text);
        found = true;
    }
    if (found)
        return EXIT_OK;
    err_set(&err, ERR_USAGE, "'%s' is no command; 'sheaf help' lists them", name);
    return command_fail(&err);
}

int verb_version(const struct args *args)
{
    struct httpc client;
    struct err err;
    json_t *server = NULL;

    (void)args;
    printf("sheaf %s\n", SHEAF_VERSION);
    if (api_open(&client, &err) == 0
        && api_call(&client, "GET", "/version", NULL, NULL, &server, &err) == 0)
        printf("server %s at %s\n", json_text_at(server, "version"), client.url);
    json_decref(server);
    return EXIT_OK;
}
