#ifndef SHEAF_TESTS_STORE_SUPPORT_OUTSIDE_H
#define SHEAF_TESTS_STORE_SUPPORT_OUTSIDE_H

/* support_place.h for a test of the gateway's own `struct db`. */
int place_setup(void **state);
int place_teardown(void **state);
/* Connection string of role sheaf_gateway. */
const char *place_gateway(void);
/* One value as the owner sees it; overwritten by the next call. */
const char *place_value(const char *sql);

#endif
