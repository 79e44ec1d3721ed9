#include "cli/list.h"

#include "cli/api.h"
#include "cli/command.h"

int list_print(const char *path, const struct column *columns, const char *empty)
{
    struct httpc client;
    json_t *items;
    struct err err;

    if (api_open(&client, &err) < 0 || api_list(&client, path, &items, &err) < 0)
        return command_fail(&err);
    table_print(items, columns, empty);
    json_decref(items);
    return EXIT_OK;
}
