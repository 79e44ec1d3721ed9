#ifndef SHEAF_ORCHESTRATOR_STORE_MIGRATE_H
#define SHEAF_ORCHESTRATOR_STORE_MIGRATE_H

/* Migrations from any table of files; store.h has the doors that use the embedded one. */
#include <libpq-fe.h>

#include "common/pure/embed.h"
#include <stdint.h>

#include "common/pure/err.h"

uint32_t migrations_count(const struct embed_file *files);
/* store_migrate_up with these files: tests bring their own. */
int migrations_up(const struct embed_file *files, const char *conninfo,
                  struct err *err) SHEAF_MUST_USE;
/* ERR_SCHEMA_VERSION unless exactly our migrations are applied. */
int store_schema_check(PGconn *connection, struct err *err) SHEAF_MUST_USE;

#endif
