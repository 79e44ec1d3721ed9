#ifndef SHEAF_CLI_LIST_H
#define SHEAF_CLI_LIST_H

/* The verbs that print one list of the API. */
#include "cli/table.h"

/* Fetches all pages of path and prints them per -o; empty is said of no rows. Returns the exit
 * code. */
int list_print(const char *path, const struct column *columns, const char *empty);

#endif
