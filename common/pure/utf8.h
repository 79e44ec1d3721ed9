#ifndef SHEAF_COMMON_PURE_UTF8_H
#define SHEAF_COMMON_PURE_UTF8_H

/* Text that comes from others: PostgreSQL and jansson take nothing but valid UTF-8. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. NUL counts as valid. */
bool utf8_is_valid(const char *text, size_t length);
/* Length of the character at the start of a text that is not empty, and its code; 0 for no UTF-8.
 */
size_t utf8_take(const char *text, uint32_t *ret_code);
/* Puts '?' for each byte that makes the text invalid, e.g. a character cut by a limit. */
void utf8_repair(char *text);

#endif
