/* The private PostgreSQL: initdb, start, roles, stop. All blocking, at start or by command. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/io/fs.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"
#include "orchestrator/store/store.h"
#include "orchestrator/store/store_private.h"

#define PASSWORD_BYTES 24
#define PASSWORD_TEXT  (2 * PASSWORD_BYTES + 1)
#define OUTPUT_KEPT    4096 /* of a tool's last words, for the error */
#define SOCKET_MAX     107  /* sun_path without its terminator */
#define SOCKET_NAME    "/.s.PGSQL.5432"
#define OLDEST_VERSION 15

/* Exit codes of our own child before exec; above those of initdb and pg_ctl. */
enum child_exit {
    CHILD_UNREACHABLE = 121,
    CHILD_NO_EXEC = 122,
};

struct site {
    char folder[FS_PATH]; /* state/database: ours */
    char data[FS_PATH];   /* the server's user's */
    char run[FS_PATH];    /* socket; the server's user's */
    char bin[FS_PATH];
    bool change_user;
    char user[64];
    uid_t uid;
    gid_t gid;
};

enum login {
    LOGIN_ADMIN,
    LOGIN_OWNER,
    LOGIN_ORCHESTRATOR,
    LOGIN_GATEWAY,
    LOGIN_COUNT,
};

static const char *const LOGIN_ROLE[LOGIN_COUNT] = {
    "sheaf_admin",
    "sheaf_owner",
    "sheaf_orchestrator",
    "sheaf_gateway",
};

/* -- where and as whom --------------------------------------------------------------------------
 */

static int site_user(struct site *site, const char *run_as, struct err *err)
{
    if (geteuid() != 0)
        return 0;
    if (run_as == NULL || run_as[0] == '\0')
        return err_set(err, ERR_CONFIG_INVALID, "PostgreSQL refuses to run as root: name a user");
    struct passwd entry;
    struct passwd *found = NULL;
    char text[4096];
    if (getpwnam_r(run_as, &entry, text, sizeof(text), &found) != 0 || found == NULL)
        return err_set(err, ERR_CONFIG_INVALID, "user %s does not exist", run_as);
    snprintf(site->user, sizeof(site->user), "%s", run_as);
    site->uid = entry.pw_uid;
    site->gid = entry.pw_gid;
    site->change_user = true;
    return 0;
}

/* The leading digits; 0 when there are none. */
static long version_number(const char *text)
{
    long number = 0;

    for (; *text >= '0' && *text <= '9' && number < 10000; text++)
        number = number * 10 + (*text - '0');
    return number;
}

/* Newest server of the machine; for an existing cluster the one that made it. */
static int site_programs(struct site *site, struct err *err)
{
    char path[FS_PATH];
    long wanted = 0;
    long best = 0;

    if (fs_path(path, "%s/PG_VERSION", site->data) != 0)
        return err_set(err, ERR_IO, "the state path is too long");
    struct buf text;
    buf_init(&text, 0);
    if (access(path, F_OK) == 0 && fs_read(path, 64, &text, NULL) == 0)
        wanted = version_number(text.data);
    buf_fini(&text);

    glob_t found = {0};
    if (glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            long version = version_number(found.gl_pathv[i] + strlen("/usr/lib/postgresql/"));
            if (version <= best || (wanted != 0 && version != wanted))
                continue;
            best = version;
            snprintf(site->bin, sizeof(site->bin), "/usr/lib/postgresql/%ld/bin", version);
        }
    }
    globfree(&found);
    if (best < OLDEST_VERSION)
        return err_set(err, ERR_UNSUPPORTED_HERE, "no PostgreSQL %ld server under %s",
                       wanted != 0 ? wanted : OLDEST_VERSION, "/usr/lib/postgresql");
    return 0;
}

static int site_find(struct site *site, const char *state, const char *run_as, struct err *err)
{
    *site = (struct site){0};
    char full[FS_PATH];
    if (fs_mkdir(state, 0755, err) != 0)
        return -ERR_IO;
    char *real = realpath(state, NULL);
    int fits = real != NULL ? fs_path(full, "%s", real) : -ERR_IO;
    free(real);
    if (fits != 0 || fs_path(site->folder, "%s/database", full) != 0
        || fs_path(site->data, "%s/data", site->folder) != 0
        || fs_path(site->run, "%s/run", site->folder) != 0
        || strlen(site->run) + strlen(SOCKET_NAME) > SOCKET_MAX)
        return err_set(err, ERR_IO, "%s is too long for a socket path: choose a shorter --state",
                       state);
    /* pg_ctl hands the path to a shell, PostgreSQL reads it as a list. */
    if (strpbrk(site->folder, "'\"\\$`,\n") != NULL)
        return err_set(err, ERR_IO, "no quotes, commas, $ or \\ in the --state path, please");
    int result = site_user(site, run_as, err);
    return result != 0 ? result : site_programs(site, err);
}

/* -- running their programs ---------------------------------------------------------------------
 */

/* In the child, between fork and exec: async-signal-safe calls alone. */
static _Noreturn void child_run(const struct site *site, char *const argv[], int output)
{
    char path[] = "PATH=/usr/bin:/bin";
    char locale[] = "LC_ALL=C";
    char zone[] = "TZ=UTC";
    char *const environment[] = {path, locale, zone, NULL};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (null >= 0)
        (void)dup2(null, STDIN_FILENO);
    (void)dup2(output, STDOUT_FILENO);
    (void)dup2(output, STDERR_FILENO);
    if (site->change_user
        && (setgroups(1, &site->gid) != 0 || setgid(site->gid) != 0 || setuid(site->uid) != 0))
        _exit(CHILD_NO_EXEC);
    if (chdir(site->folder) != 0)
        _exit(CHILD_UNREACHABLE);
    execve(argv[0], argv, environment);
    _exit(CHILD_NO_EXEC);
}

static void drain(int from, struct buf *output)
{
    char chunk[1024];

    for (;;) {
        ssize_t got = read(from, chunk, sizeof(chunk));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return;
        buf_append(output, chunk, (size_t)got);
        if (output->length > OUTPUT_KEPT)
            buf_drop(output, output->length - OUTPUT_KEPT);
    }
}

/* Runs bin/program and waits. Its exit code, or -ERR_…; output gets its last words. */
static int site_run(const struct site *site, const char *const arguments[], struct buf *output,
                    struct err *err)
{
    char program[FS_PATH];
    char *argv[16] = {program};
    size_t words = 1;
    int pipe_fd[2];

    if (fs_path(program, "%s/%s", site->bin, arguments[0]) != 0 || pipe2(pipe_fd, O_CLOEXEC) != 0)
        return err_set(err, ERR_IO, "cannot run %s", arguments[0]);
    for (; arguments[words] != NULL; words++) {
        BUG_ON(words >= 15);
        argv[words] = mem_strdup(arguments[words]);
    }
    pid_t child = fork();
    if (child == 0)
        child_run(site, argv, pipe_fd[1]);
    close(pipe_fd[1]);
    int status = -1;
    if (child > 0) {
        drain(pipe_fd[0], output);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
    }
    close(pipe_fd[0]);
    for (size_t i = 1; i < words; i++)
        free(argv[i]);
    if (child < 0 || !WIFEXITED(status))
        return err_set(err, ERR_IO, "%s did not run to its end", arguments[0]);
    if (WEXITSTATUS(status) == CHILD_UNREACHABLE)
        return err_set(err, ERR_IO, "user %s cannot reach %s: choose another --state", site->user,
                       site->folder);
    if (WEXITSTATUS(status) == CHILD_NO_EXEC)
        return err_set(err, ERR_IO, "cannot start %s as %s", program,
                       site->change_user ? site->user : "this user");
    return WEXITSTATUS(status);
}

/* The same, and an exit code other than 0 is an error with the program's last line. */
static int site_must(const struct site *site, const char *const arguments[], struct err *err)
{
    struct buf output;

    buf_init(&output, 0);
    int code = site_run(site, arguments, &output, err);
    if (code > 0) {
        while (output.length > 0 && output.data[output.length - 1] == '\n')
            output.data[--output.length] = '\0';
        const char *line = output.length > 0 ? strrchr(output.data, '\n') : NULL;
        line = line != NULL ? line + 1 : output.data;
        code = err_set(err, ERR_DATABASE, "%s failed (%d): %s", arguments[0], code,
                       line != NULL ? line : "");
    }
    buf_fini(&output);
    return code;
}

/* -- secrets ------------------------------------------------------------------------------------
 */

static int login_path(const struct site *site, enum login login, char out[FS_PATH])
{
    return fs_path(out, "%s/%s.pass", site->folder, LOGIN_ROLE[login]);
}

/* The password of a login from its libpq password file; made when it is absent. */
static int login_password(const struct site *site, enum login login, char out[PASSWORD_TEXT],
                          struct err *err)
{
    char path[FS_PATH];
    char line[PASSWORD_TEXT + 96];
    uint8_t secret[PASSWORD_BYTES];
    struct buf text;

    if (login_path(site, login, path) != 0)
        return err_set(err, ERR_IO, "the state path is too long");
    if (access(path, F_OK) != 0) {
        random_bytes(secret, sizeof(secret));
        hex_format(secret, sizeof(secret), out);
        snprintf(line, sizeof(line), "*:*:*:%s:%s\n", LOGIN_ROLE[login], out);
        return fs_write(path, line, strlen(line), 0600, err);
    }
    buf_init(&text, 0);
    int result = fs_read(path, sizeof(line), &text, err);
    if (result == 0) {
        char *password = strrchr(text.data, ':');
        password = password != NULL ? password + 1 : text.data;
        password[strcspn(password, "\n")] = '\0';
        if (strlen(password) == PASSWORD_TEXT - 1
            && hex_parse(password, sizeof(secret), secret) == 0)
            snprintf(out, PASSWORD_TEXT, "%s", password);
        else
            result = err_set(err, ERR_STATE_CORRUPT, "%s is no password file", path);
    }
    buf_fini(&text);
    return result;
}

static int login_conninfo(const struct site *site, enum login login, const char *database,
                          char out[CONNINFO_TEXT], struct err *err)
{
    char path[FS_PATH];

    if (login_path(site, login, path) != 0
        || snprintf(out, CONNINFO_TEXT, "host='%s' dbname=%s user=%s passfile='%s'", site->run,
                    database, LOGIN_ROLE[login], path)
               >= CONNINFO_TEXT)
        return err_set(err, ERR_IO, "the state path is too long");
    return 0;
}

/* libpq takes no password file that a group can read, so the password itself is in it. */
static int login_conninfo_whole(const struct site *site, enum login login, const char *database,
                                char out[CONNINFO_TEXT], struct err *err)
{
    char password[PASSWORD_TEXT];
    int result = login_password(site, login, password, err);

    if (result == 0
        && snprintf(out, CONNINFO_TEXT, "host='%s' dbname=%s user=%s password=%s", site->run,
                    database, LOGIN_ROLE[login], password)
               >= CONNINFO_TEXT)
        result = err_set(err, ERR_IO, "the state path is too long");
    explicit_bzero(password, sizeof(password));
    return result;
}

/* -- making the cluster -------------------------------------------------------------------------
 */

static int folder_for_server(const struct site *site, const char *path, mode_t mode,
                             struct err *err)
{
    int result = fs_mkdir(path, mode, err);
    if (result != 0)
        return result;
    if (chmod(path, mode) != 0 || (site->change_user && chown(path, site->uid, site->gid) != 0))
        return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    return 0;
}

static const char CONFIG[] = "\n"
                             "# sheaf\n"
                             "listen_addresses = ''\n"
                             "unix_socket_permissions = 0777\n"
                             "password_encryption = scram-sha-256\n"
                             "max_connections = 60\n"
                             "shared_buffers = 64MB\n"
                             "timezone = 'UTC'\n"
                             "log_timezone = 'UTC'\n"
                             "log_line_prefix = '%m [%p] %u '\n"
                             "include_if_exists = 'sheaf.conf'\n";

/* Our settings are appended before the folder gets its final name: whole or absent. */
static int config_append(const char *data, struct err *err)
{
    char path[FS_PATH];

    if (fs_path(path, "%s/postgresql.conf", data) != 0)
        return err_set(err, ERR_IO, "the state path is too long");
    FILE *file = fopen(path, "ae");
    if (file == NULL)
        return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    bool good = fputs(CONFIG, file) >= 0;
    good = fclose(file) == 0 && good;
    return good ? 0 : err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
}

/*
 * initdb in a folder of the server's user, then a rename: a crash in between leaves nothing that
 * looks like a cluster.
 */
static int cluster_make(const struct site *site, struct err *err)
{
    char home[FS_PATH];
    char fresh[FS_PATH];
    char password_file[FS_PATH];
    char password[PASSWORD_TEXT];

    if (fs_path(home, "%s/making", site->folder) != 0 || fs_path(fresh, "%s/data", home) != 0
        || fs_path(password_file, "%s/password", home) != 0)
        return err_set(err, ERR_IO, "the state path is too long");
    int result = fs_remove_tree(home, err);
    if (result == 0)
        result = folder_for_server(site, home, 0700, err);
    if (result == 0)
        result = login_password(site, LOGIN_ADMIN, password, err);
    if (result == 0)
        result = fs_write(password_file, password, strlen(password), 0600, err);
    if (result == 0 && site->change_user && chown(password_file, site->uid, site->gid) != 0)
        result = err_set(err, ERR_IO, "%s: %s", password_file, strerror(errno));
    const char *const arguments[] = {
        "initdb",
        "-D",
        fresh,
        "-U",
        LOGIN_ROLE[LOGIN_ADMIN],
        "--pwfile",
        password_file,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--data-checksums",
        NULL,
    };
    if (result == 0)
        result = site_must(site, arguments, err);
    if (result == 0)
        result = config_append(fresh, err);
    if (result == 0 && rename(fresh, site->data) != 0)
        result = err_set(err, ERR_IO, "%s: %s", site->data, strerror(errno));
    struct err ignored;
    if (fs_remove_tree(home, result == 0 ? err : &ignored) != 0 && result == 0)
        result = -ERR_IO;
    return result;
}

/* -- roles and database -------------------------------------------------------------------------
 */

static const char SQL_ROLE[] =
    "DO $$ BEGIN"
    " IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = current_setting('sheaf.role')) THEN"
    "  EXECUTE format('CREATE ROLE %I LOGIN', current_setting('sheaf.role'));"
    " END IF;"
    " EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', current_setting('sheaf.role'),"
    "  current_setting('sheaf.verifier'));"
    " END $$";

static bool exec_ok(PGconn *connection, const char *sql, int count, const char *const values[])
{
    PGresult *result = PQexecParams(connection, sql, count, NULL, values, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

/* Passwords reach the server as SCRAM verifiers alone, so that no log of it can hold one. */
static bool role_make(PGconn *connection, const char *role, const char *password)
{
    char *verifier = PQencryptPasswordConn(connection, password, role, "scram-sha-256");
    const char *values[] = {role, verifier};
    bool good = verifier != NULL
                && exec_ok(connection,
                           "SELECT set_config('sheaf.role', $1, false),"
                           " set_config('sheaf.verifier', $2, false)",
                           2, values)
                && exec_ok(connection, SQL_ROLE, 0, NULL);
    PQfreemem(verifier);
    return good;
}

static bool database_exists(PGconn *connection)
{
    PGresult *result = PQexec(connection, "SELECT FROM pg_database WHERE datname = 'sheaf'");
    bool found = PQntuples(result) == 1;
    PQclear(result);
    return found;
}

/* An adopted server may still be recovering; it refuses connections until it is done. */
static PGconn *connect_patiently(const char *conninfo)
{
    const int64_t patience_us = 60 * (int64_t)1000000;
    int64_t began = clock_mono_us();

    for (;;) {
        PGconn *connection = PQconnectdb(conninfo);
        if (PQstatus(connection) == CONNECTION_OK || PQping(conninfo) != PQPING_REJECT
            || clock_mono_us() - began > patience_us)
            return connection;
        PQfinish(connection);
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
}

static int roles_make(const struct site *site, struct err *err)
{
    char conninfo[CONNINFO_TEXT];
    char password[PASSWORD_TEXT];

    int result = login_conninfo(site, LOGIN_ADMIN, "postgres", conninfo, err);
    if (result != 0)
        return result;
    PGconn *connection = connect_patiently(conninfo);
    if (PQstatus(connection) != CONNECTION_OK)
        result = store_connection_error(connection, err);
    for (enum login login = LOGIN_OWNER; result == 0 && login < LOGIN_COUNT; login++) {
        result = login_password(site, login, password, err);
        if (result == 0 && !role_make(connection, LOGIN_ROLE[login], password))
            result = store_connection_error(connection, err);
    }
    if (result == 0 && !database_exists(connection)
        && !exec_ok(connection, "CREATE DATABASE sheaf OWNER sheaf_owner", 0, NULL))
        result = store_connection_error(connection, err);
    if (result == 0
        && !exec_ok(connection, "REVOKE CONNECT, TEMPORARY ON DATABASE sheaf FROM PUBLIC", 0, NULL))
        result = store_connection_error(connection, err);
    if (result == 0
        && !exec_ok(connection,
                    "GRANT CONNECT ON DATABASE sheaf TO sheaf_owner, sheaf_orchestrator,"
                    " sheaf_gateway",
                    0, NULL))
        result = store_connection_error(connection, err);
    PQfinish(connection);
    return result;
}

/* -- doors --------------------------------------------------------------------------------------
 */

static int server_start(const struct site *site, bool *ret_adopted, struct err *err)
{
    char log_file[FS_PATH];
    char options[FS_PATH + 32];
    struct buf output;

    if (fs_path(log_file, "%s/server.log", site->run) != 0)
        return err_set(err, ERR_IO, "the state path is too long");
    const char *const ask[] = {"pg_ctl", "-D", site->data, "status", NULL};
    buf_init(&output, 0);
    int code = site_run(site, ask, &output, err);
    buf_fini(&output);
    if (code < 0)
        return code;
    *ret_adopted = code == 0;
    if (code == 0)
        return 0;
    snprintf(options, sizeof(options), "-c unix_socket_directories='%s'", site->run);
    const char *const start[] = {"pg_ctl", "-D", site->data, "-l",    log_file, "-w", "-t",
                                 "60",     "-s", "-o",       options, "start",  NULL};
    return site_must(site, start, err);
}

int embedded_start(const char *state, const char *run_as, struct embedded_database *ret_database,
                   struct err *err)
{
    struct site site;
    struct embedded_database made = {0};

    int result = site_find(&site, state, run_as, err);
    if (result == 0)
        result = fs_mkdir(site.folder, 0755, err);
    if (result == 0)
        result = folder_for_server(&site, site.run, 0755, err);
    if (result == 0 && access(site.data, F_OK) != 0) {
        made.made = true;
        result = cluster_make(&site, err);
    }
    if (result == 0)
        result = server_start(&site, &made.adopted, err);
    if (result == 0)
        result = roles_make(&site, err);
    if (result == 0)
        result = login_conninfo(&site, LOGIN_OWNER, "sheaf", made.owner, err);
    if (result == 0)
        result = login_conninfo(&site, LOGIN_ORCHESTRATOR, "sheaf", made.orchestrator, err);
    if (result == 0)
        result = login_conninfo(&site, LOGIN_GATEWAY, "sheaf", made.gateway, err);
    if (result == 0)
        result = login_conninfo_whole(&site, LOGIN_GATEWAY, "sheaf", made.gateway_elsewhere, err);
    if (result == 0)
        *ret_database = made;
    return result;
}

int embedded_stop(const char *state, const char *run_as, struct err *err)
{
    struct site site;

    int result = site_find(&site, state, run_as, err);
    if (result != 0)
        return result;
    if (access(site.data, F_OK) != 0)
        return 0;
    const char *const ask[] = {"pg_ctl", "-D", site.data, "status", NULL};
    struct buf output;
    buf_init(&output, 0);
    int code = site_run(&site, ask, &output, err);
    buf_fini(&output);
    if (code != 0)
        return code < 0 ? code : 0;
    const char *const stop[] = {"pg_ctl", "-D", site.data, "-m",   "fast", "-w",
                                "-t",     "60", "-s",      "stop", NULL};
    return site_must(&site, stop, err);
}
