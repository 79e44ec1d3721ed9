/* Numbered forward-only migrations, each one transaction, with its checksum on record. */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/hash.h"
#include "common/pure/embed.h"
#include "common/pure/mem.h"
#include "orchestrator/store/migrate.h"
#include "orchestrator/store/store_private.h"

extern const struct embed_file sql_migrations[];

/* One for the whole database; any constant will do. */
#define MIGRATE_LOCK "SELECT pg_advisory_lock(6011723000)"

static const char SQL_TABLE[] = "CREATE TABLE IF NOT EXISTS schema_version ("
                                " version integer PRIMARY KEY,"
                                " name text NOT NULL,"
                                " sha256 bytea NOT NULL,"
                                " applied_us bigint NOT NULL)";
static const char SQL_HAS_TABLE[] = "SELECT to_regclass('schema_version') IS NOT NULL";
static const char SQL_APPLIED[] =
    "SELECT version, name, encode(sha256, 'hex'), applied_us FROM schema_version ORDER BY 1";
static const char SQL_RECORD[] =
    "INSERT INTO schema_version (version, name, sha256, applied_us)"
    " VALUES ($1::text::integer, $2, decode($3, 'hex'), $4::text::bigint)";
static const char SQL_GRANT[] =
    "GRANT SELECT ON schema_version TO sheaf_orchestrator, sheaf_gateway";

/* What the database says about one version. */
struct applied {
    char name[96];
    char sha256[SHA256_HEX];
    int64_t applied_us;
    bool present;
};

static uint32_t file_version(const struct embed_file *file)
{
    uint32_t version = 0;

    for (const char *at = file->name; *at >= '0' && *at <= '9'; at++)
        version = version * 10 + (uint32_t)(*at - '0');
    return version;
}

static void file_checksum(const struct embed_file *file, char out[SHA256_HEX])
{
    uint8_t hash[SHA256_SIZE];

    sha256(file->begin, (size_t)(file->end - file->begin), hash);
    hex_format(hash, sizeof(hash), out);
}

uint32_t migrations_count(const struct embed_file *files)
{
    uint32_t count = 0;

    while (files[count].name != NULL)
        count++;
    return count;
}

static int run(PGconn *connection, const char *sql, struct err *err)
{
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    int failed = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK
                     ? 0
                     : store_result_error(result, err);

    PQclear(result);
    return failed;
}

static bool has_table(PGconn *connection)
{
    PGresult *result = PQexec(connection, SQL_HAS_TABLE);
    bool found = PQresultStatus(result) == PGRES_TUPLES_OK && PQgetvalue(result, 0, 0)[0] == 't';

    PQclear(result);
    return found;
}

/* Fills applied[version - 1]; a version beyond ours is refused. */
static int read_applied(PGconn *connection, struct applied *applied, uint32_t count,
                        struct err *err)
{
    if (!has_table(connection))
        return 0;
    PGresult *result = PQexec(connection, SQL_APPLIED);
    int failed = PQresultStatus(result) == PGRES_TUPLES_OK ? 0 : store_result_error(result, err);
    for (int i = 0; failed == 0 && i < PQntuples(result); i++) {
        unsigned long version = strtoul(PQgetvalue(result, i, 0), NULL, 10);
        if (version == 0 || version > count) {
            failed = err_set(err, ERR_SCHEMA_VERSION,
                             "the database has schema version %s, this program needs %u",
                             PQgetvalue(result, PQntuples(result) - 1, 0), count);
            break;
        }
        struct applied *entry = &applied[version - 1];
        entry->present = true;
        snprintf(entry->name, sizeof(entry->name), "%s", PQgetvalue(result, i, 1));
        snprintf(entry->sha256, sizeof(entry->sha256), "%s", PQgetvalue(result, i, 2));
        entry->applied_us = strtoll(PQgetvalue(result, i, 3), NULL, 10);
    }
    PQclear(result);
    return failed;
}

/* Numbered 1, 2, …; what is applied is a prefix and has our checksums. */
static int check_applied(const struct embed_file *files, const struct applied *applied,
                         uint32_t count, struct err *err)
{
    for (uint32_t i = 0; i < count; i++) {
        char checksum[SHA256_HEX];
        BUG_ON(file_version(&files[i]) != i + 1);
        if (applied[i].present && i > 0 && !applied[i - 1].present)
            return err_set(err, ERR_SCHEMA_VERSION, "migration %u is applied, %u is not", i + 1, i);
        file_checksum(&files[i], checksum);
        if (applied[i].present && strcmp(applied[i].sha256, checksum) != 0)
            return err_set(err, ERR_SCHEMA_VERSION,
                           "migration %s was applied with other text (checksum differs)",
                           files[i].name);
    }
    return 0;
}

static int record(PGconn *connection, const struct embed_file *file, struct err *err)
{
    char version[16];
    char checksum[SHA256_HEX];
    char now[24];
    const char *values[] = {version, file->name, checksum, now};

    snprintf(version, sizeof(version), "%u", file_version(file));
    snprintf(now, sizeof(now), "%lld", (long long)clock_wall_us());
    file_checksum(file, checksum);
    PGresult *result = PQexecParams(connection, SQL_RECORD, 4, NULL, values, NULL, NULL, 0);
    int failed = PQresultStatus(result) == PGRES_COMMAND_OK ? 0 : store_result_error(result, err);
    PQclear(result);
    return failed;
}

static int apply_one(PGconn *connection, const struct embed_file *file, struct err *err)
{
    int failed = run(connection, "BEGIN", err);
    if (failed == 0)
        failed = run(connection, (const char *)file->begin, err);
    if (failed == 0)
        failed = record(connection, file, err);
    if (failed == 0)
        return run(connection, "COMMIT", err);
    struct err cause = err != NULL ? *err : (struct err){0};
    struct err ignored;
    if (run(connection, "ROLLBACK", &ignored) != 0)
        return failed;
    return err_set(err, ERR_DATABASE, "migration %s: %s", file->name, cause.text);
}

static int apply_missing(PGconn *connection, const struct embed_file *files, uint32_t count,
                         struct applied *applied, struct err *err)
{
    /* The session's lock: released when the connection ends, however it ends. */
    int failed = run(connection, MIGRATE_LOCK, err);
    if (failed == 0)
        failed = run(connection, SQL_TABLE, err);
    if (failed == 0)
        failed = read_applied(connection, applied, count, err);
    if (failed == 0)
        failed = check_applied(files, applied, count, err);
    for (uint32_t i = 0; failed == 0 && i < count; i++) {
        if (!applied[i].present)
            failed = apply_one(connection, &files[i], err);
        if (failed == 0 && i == 0 && !applied[0].present)
            failed = run(connection, SQL_GRANT, err);
    }
    return failed;
}

int migrations_up(const struct embed_file *files, const char *conninfo, struct err *err)
{
    uint32_t count = migrations_count(files);
    struct applied *applied = mem_new(count, sizeof(*applied));
    PGconn *connection = PQconnectdb(conninfo);

    store_quiet(connection);
    int failed =
        PQstatus(connection) == CONNECTION_OK ? 0 : store_connection_error(connection, err);
    if (failed == 0)
        failed = store_server_check(connection, err);
    if (failed == 0)
        failed = apply_missing(connection, files, count, applied, err);
    PQfinish(connection);
    free(applied);
    return failed;
}

int store_migrate_up(const char *conninfo, struct err *err)
{
    return migrations_up(sql_migrations, conninfo, err);
}

int store_schema_check(PGconn *connection, struct err *err)
{
    uint32_t count = migrations_count(sql_migrations);
    struct applied *applied = mem_new(count, sizeof(*applied));

    int failed = read_applied(connection, applied, count, err);
    if (failed == 0)
        failed = check_applied(sql_migrations, applied, count, err);
    for (uint32_t i = 0; failed == 0 && i < count; i++) {
        if (!applied[i].present)
            failed = err_set(err, ERR_SCHEMA_VERSION,
                             "the database has schema version %u, this program needs %u", i, count);
    }
    free(applied);
    return failed;
}

int store_migrate_status(const char *conninfo, struct buf *out, struct err *err)
{
    uint32_t count = migrations_count(sql_migrations);
    struct applied *applied = mem_new(count, sizeof(*applied));
    PGconn *connection = PQconnectdb(conninfo);

    store_quiet(connection);
    int failed =
        PQstatus(connection) == CONNECTION_OK ? 0 : store_connection_error(connection, err);
    if (failed == 0)
        failed = read_applied(connection, applied, count, err);
    for (uint32_t i = 0; failed == 0 && i < count; i++) {
        char checksum[SHA256_HEX];
        char when[32] = "pending";
        const char *verdict = "";
        file_checksum(&sql_migrations[i], checksum);
        if (applied[i].present) {
            clock_format(applied[i].applied_us, when);
            verdict =
                strcmp(applied[i].sha256, checksum) == 0 ? "  checksum ok" : "  CHECKSUM DIFFERS";
        }
        buf_printf(out, "%4u  %s  %s%s\n", i + 1, sql_migrations[i].name, when, verdict);
    }
    PQfinish(connection);
    free(applied);
    return failed;
}
