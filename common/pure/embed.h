#ifndef SHEAF_COMMON_PURE_EMBED_H
#define SHEAF_COMMON_PURE_EMBED_H

/* Files linked into a program by cmake/embed.cmake. */
struct embed_file {
    const char *name; /* file name without folder; NULL ends a table */
    const unsigned char *begin;
    const unsigned char *end; /* one past the last byte; a 0 byte follows */
};

#endif
