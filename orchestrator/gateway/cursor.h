#ifndef SHEAF_ORCHESTRATOR_GATEWAY_CURSOR_H
#define SHEAF_ORCHESTRATOR_GATEWAY_CURSOR_H

/*
 * Page cursors: the last key of a page under a MAC that binds it to one list as one caller sees it.
 * Made up, changed, of another list or of another tenant: no cursor. Pure.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CURSOR_KEY  32
#define CURSOR_TEXT 50 /* "c", 16 digits, 32 digits, 0 */

/* `list` says which list, as whom: any bytes. */
char *cursor_format(const uint8_t secret[CURSOR_KEY], const void *list, size_t size, uint64_t key,
                    char out[CURSOR_TEXT]);
bool cursor_parse(const uint8_t secret[CURSOR_KEY], const void *list, size_t size, const char *text,
                  uint64_t *ret_key);

#endif
