#ifndef SHEAF_WORKER_IMAGES_ARCHIVE_H
#define SHEAF_WORKER_IMAGES_ARCHIVE_H

/* Image archives before podman sees them. */
#include <stdint.h>

#include "common/pure/err.h"

/*
 * Adds up what the archive and the layers in it unpack to, without writing any of it: a few
 * kilobytes may stand for a full disk. ERR_IMAGE_UNUSABLE: no tar archive, or more than `limit`
 * bytes. ERR_IO.
 */
int image_archive_check(const char *path, uint64_t limit, struct err *err) SHEAF_MUST_USE;

#endif
