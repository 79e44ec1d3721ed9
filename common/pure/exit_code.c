#include "common/pure/exit_code.h"

#include <stddef.h>

static const struct {
    enum err_code code;
    enum exit_code exit_code;
} rows[] = {
    {ERR_NONE, EXIT_OK},
    {ERR_USAGE, EXIT_USAGE},
    {ERR_CONFIG_INVALID, EXIT_USAGE},
    {ERR_BODY_TOO_LARGE, EXIT_USAGE},
    {ERR_IO, EXIT_USAGE},
    {ERR_NOT_FOUND, EXIT_NOT_FOUND},
    {ERR_AUTH_REQUIRED, EXIT_AUTH},
    {ERR_TOKEN_INVALID, EXIT_AUTH},
    {ERR_SCOPE_MISSING, EXIT_AUTH},
    {ERR_CREDENTIAL_EXPOSED, EXIT_AUTH},
    {ERR_NOT_ENROLLED, EXIT_AUTH},
    {ERR_NO_SUCH_CAPACITY, EXIT_CAPACITY},
    {ERR_NETWORK_TOO_FAR, EXIT_CAPACITY},
    {ERR_PRICE_TOO_LOW, EXIT_CAPACITY},
    {ERR_NO_NODES, EXIT_CAPACITY},
    {ERR_RUNTIME_MISSING, EXIT_CAPACITY},
    {ERR_NOT_NOW, EXIT_CAPACITY},
    {ERR_INSUFFICIENT_FUNDS, EXIT_FUNDS},
    {ERR_TIMEOUT, EXIT_TIMEOUT},
    {ERR_UNREACHABLE, EXIT_UNREACHABLE},
    {ERR_TLS_VERIFY, EXIT_UNREACHABLE},
    {ERR_UNEXPECTED_RESPONSE, EXIT_UNREACHABLE},
    {ERR_UNAVAILABLE, EXIT_UNREACHABLE},
    {ERR_DATABASE, EXIT_UNREACHABLE},
    {ERR_DEPOSED, EXIT_UNREACHABLE},
    {ERR_INTERRUPTED, EXIT_INTERRUPTED},
};

enum exit_code exit_code_of(enum err_code code)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].code == code)
            return rows[i].exit_code;
    }
    /* What a server would refuse as malformed is malformed here too. */
    int status = err_info(code)->http_status;
    return status == 400 || status == 422 ? EXIT_USAGE : EXIT_REFUSED;
}
