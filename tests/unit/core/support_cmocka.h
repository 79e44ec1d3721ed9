#ifndef SHEAF_TESTS_UNIT_CORE_SUPPORT_CMOCKA_H
#define SHEAF_TESTS_UNIT_CORE_SUPPORT_CMOCKA_H

/* cmocka wants these before itself, in this order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
