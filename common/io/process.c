#include "common/io/process.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* The leak check of a sanitizer is a debugger of its own process. */
#if defined(__SANITIZE_ADDRESS__)
#define IS_DEBUGGED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_DEBUGGED 1
#endif
#endif
#ifndef IS_DEBUGGED
#define IS_DEBUGGED 0
#endif

void process_keep_secrets(void)
{
    static const struct rlimit none = {0, 0};

    (void)setrlimit(RLIMIT_CORE, &none);
    if (!IS_DEBUGGED)
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

void process_hide(const char *text)
{
    union {
        const char *in;
        char *out;
    } cast = {.in = text};

    memset(cast.out, '*', strlen(text));
}
