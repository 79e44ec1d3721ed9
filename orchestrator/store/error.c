/* What libpq says, in our words. */
#include <string.h>

#include "orchestrator/store/store_private.h"

/* The first line, without its newline. */
static int first_line(const char *text)
{
    return text == NULL ? 0 : (int)strcspn(text, "\n");
}

int store_connection_error(const PGconn *connection, struct err *err)
{
    const char *text = connection != NULL ? PQerrorMessage(connection) : "not connected";

    return err_set(err, ERR_DATABASE, "%.*s", first_line(text), text);
}

int store_result_error(const PGresult *result, struct err *err)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *constraint = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

    if (text == NULL)
        text = PQresultErrorMessage(result);
    if (state == NULL)
        state = "?????";
    enum err_code code = strcmp(state, "SF001") == 0 ? ERR_DEPOSED : ERR_DATABASE;
    return err_set(err, code, "%s%s%s: %.*s", state, constraint != NULL ? " " : "",
                   constraint != NULL ? constraint : "", first_line(text), text);
}

enum commit_outcome store_outcome(const char *sqlstate)
{
    if (sqlstate == NULL)
        return COMMIT_LOST;
    if (strcmp(sqlstate, "SF001") == 0)
        return COMMIT_DEPOSED;
    /* 08: connection; 57P: the server goes away. What became of the batch is to be read back. */
    if (strncmp(sqlstate, "08", 2) == 0 || strncmp(sqlstate, "57P", 3) == 0)
        return COMMIT_LOST;
    if (strcmp(sqlstate, "42501") == 0) /* a grant is missing: every row would meet it */
        return COMMIT_FAILED;
    /*
     * About these very rows, and so again with every try: our own refusals, integrity constraints,
     * values that do not fit, statements that the schema does not know, limits of one row.
     */
    static const char *const ROWS[] = {"SF002", "SF003", "SF004", "22", "23", "42", "54"};
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++) {
        if (strncmp(sqlstate, ROWS[i], strlen(ROWS[i])) == 0)
            return COMMIT_DIVERGED;
    }
    return COMMIT_FAILED;
}
