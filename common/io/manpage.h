#ifndef SHEAF_COMMON_IO_MANPAGE_H
#define SHEAF_COMMON_IO_MANPAGE_H

/* Manual pages made from the tables that the programs run by, so that they cannot disagree. */
#include "common/io/config.h"

struct manpage {
    const char *name; /* "sheaf-worker" */
    const char *summary;
    const char *usage; /* of the synopsis, line by line */
    const char *text;  /* of the description, line by line */
    const char *files; /* the same: a path and what it is */
    const struct config_option *options;
};

/* Plain text as roff: a leading dot or quote and every backslash and dash need care. */
void manpage_text(const char *text, struct buf *out);
/* A page of section 8 with one entry per option. */
void manpage_write(const struct manpage *page, struct buf *out);
/* The same on standard output, for --man. */
void manpage_print(const struct manpage *page);

#endif
