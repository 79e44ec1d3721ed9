#ifndef SHEAF_COMMON_IO_PROCESS_H
#define SHEAF_COMMON_IO_PROCESS_H

/* What others of this machine can learn of a process that holds keys. */

/*
 * No core dumps, here and in children; no debugger and no /proc/PID/environ for other processes of
 * the same user. First thing in main().
 */
void process_keep_secrets(void);
/* Overwrites a text of argv or environ, which ps and /proc show. */
void process_hide(const char *text);

#endif
