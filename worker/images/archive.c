#include "worker/images/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/pure/units.h"

#define BLOCK       ((size_t)64 << 10)
#define MAX_ENTRIES 10000u

struct meter {
    struct archive *outer;
    uint64_t limit;
    uint64_t used;
    char piece[BLOCK];
    char unpacked[BLOCK];
};

static int too_large(const struct meter *meter, struct err *err)
{
    char text[UNITS_TEXT];

    return err_set(err, ERR_IMAGE_UNUSABLE,
                   "the image unpacks to more than %s, what this node keeps",
                   units_format_bytes(meter->limit, text));
}

static la_ssize_t read_outer(struct archive *inner, void *arg, const void **ret_bytes)
{
    struct meter *meter = arg;

    (void)inner;
    *ret_bytes = meter->piece;
    return archive_read_data(meter->outer, meter->piece, sizeof(meter->piece));
}

/* One file of the archive, decompressed if it is compressed. */
static int measure_entry(struct meter *meter, struct err *err)
{
    struct archive *inner = archive_read_new();
    struct archive_entry *entry;
    int rc = 0;

    BUG_ON(inner == NULL);
    archive_read_support_filter_all(inner);
    archive_read_support_format_raw(inner);
    archive_read_support_format_empty(inner);
    if (archive_read_open(inner, meter, NULL, read_outer, NULL) == ARCHIVE_OK
        && archive_read_next_header(inner, &entry) == ARCHIVE_OK) {
        la_ssize_t got;
        while ((got = archive_read_data(inner, meter->unpacked, sizeof(meter->unpacked))) > 0) {
            meter->used += (uint64_t)got;
            if (meter->used > meter->limit) {
                rc = too_large(meter, err);
                break;
            }
        }
        if (got < 0)
            rc = err_set(err, ERR_IMAGE_UNUSABLE, "the archive is damaged: %.120s",
                         archive_error_string(inner));
    }
    archive_read_free(inner);
    return rc;
}

static int measure(struct meter *meter, struct err *err)
{
    struct archive_entry *entry;
    uint32_t count = 0;
    int rc = 0;
    int got = ARCHIVE_OK;

    while (rc == 0 && (got = archive_read_next_header(meter->outer, &entry)) == ARCHIVE_OK) {
        if (++count > MAX_ENTRIES)
            return err_set(err, ERR_IMAGE_UNUSABLE, "the archive has more than %u entries",
                           MAX_ENTRIES);
        if (archive_entry_filetype(entry) == AE_IFREG && archive_entry_size(entry) > 0)
            rc = measure_entry(meter, err);
    }
    if (rc == 0 && (got != ARCHIVE_EOF || count == 0))
        rc = err_set(err, ERR_IMAGE_UNUSABLE, "not an archive of an image: %.120s",
                     count == 0 && got == ARCHIVE_EOF ? "it is empty"
                                                      : archive_error_string(meter->outer));
    return rc;
}

int image_archive_check(const char *path, uint64_t limit, struct err *err)
{
    struct meter meter = {.outer = archive_read_new(), .limit = limit};
    int rc;

    BUG_ON(meter.outer == NULL);
    archive_read_support_filter_all(meter.outer);
    archive_read_support_format_tar(meter.outer);
    if (archive_read_open_filename(meter.outer, path, BLOCK) != ARCHIVE_OK)
        rc = err_set(err, ERR_IMAGE_UNUSABLE, "not an archive of an image: %.120s",
                     archive_error_string(meter.outer));
    else
        rc = measure(&meter, err);
    archive_read_free(meter.outer);
    return rc;
}
