#ifndef SHEAF_COMMON_PURE_UTF8_H
#define SHEAF_COMMON_PURE_UTF8_H

/* Text that comes from others: PostgreSQL and jansson take nothing but valid UTF-8. */
#include <stdbool.h>
#include <stddef.h>

#include "common/pure/buf.h"

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. NUL counts as valid. */
bool utf8_is_valid(const char *text, size_t length);
/* Puts '?' for each byte that makes the text invalid, e.g. a character cut by a limit. */
void utf8_repair(char *text);
/*
 * Appends the text so that it is harmless in a terminal, a log and a page: control characters
 * (newlines too) and bytes that are no UTF-8 become \xNN, what turns or hides its neighbours
 * \u{202e}.
 */
void utf8_show(const char *text, size_t length, struct buf *out);

#endif
