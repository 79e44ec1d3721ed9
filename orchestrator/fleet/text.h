#ifndef SHEAF_ORCHESTRATOR_FLEET_TEXT_H
#define SHEAF_ORCHESTRATOR_FLEET_TEXT_H

/*
 * Foreign text at the edge. What PostgreSQL would refuse (bytes that are no UTF-8) or a terminal
 * would obey (control characters) never gets into an event.
 */
#include <stdbool.h>
#include <stddef.h>

/*
 * Copies what fits into out (size bytes, terminated, cut between characters); control characters
 * become a space and bytes that are no UTF-8 a question mark. For texts that people read.
 */
void text_take(char *out, size_t size, const char *text);
/* Valid UTF-8 without control characters, of at most size - 1 bytes. For texts that are keys. */
bool text_is_clean(const char *text, size_t size);
/* A numeric IPv4 or IPv6 address that a peer could connect to: not the wildcard, not multicast. */
bool text_is_address(const char *text);
/* tcp://HOST:PORT with a port of 1 to 65535. */
bool text_is_endpoint(const char *text, size_t size);

#endif
