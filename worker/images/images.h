#ifndef SHEAF_WORKER_IMAGES_IMAGES_H
#define SHEAF_WORKER_IMAGES_IMAGES_H

/*
 * The images of a worker: pulled by digest or loaded from archives, kept up to a size, the longest
 * unused going first. Everything here blocks; it is called from one thread at a time. Images go by
 * the SHA-256 that the job names, never by a name that an archive brings along.
 */
#include <stdint.h>

#include "common/pure/err.h"
#include "common/pure/spec.h"
#include "worker/images/facts.h"

struct images;

struct images_options {
    const char *state;      /* state folder of the worker */
    const char *cgroup;     /* "v1", "v2", "hybrid": what the runtime has found */
    uint64_t limit;         /* bytes kept */
    const char *registries; /* hosts that may be pulled from, "a,b"; "all"; "none" */
};

/*
 * Starts podman's service and tries a container. Takes half a second. ERR_UNSUPPORTED_HERE with
 * the fix.
 */
int images_new(const struct images_options *options, struct images **ret_images,
               struct err *err) SHEAF_MUST_USE;
/* Containers and images stay; the service too when it ran before. */
void images_free(struct images *images);
/* From another thread: images_get ends soon with ERR_INTERRUPTED, and the service ends. */
void images_stop(struct images *images);
/* Folder for runtime_plan.podman, and "runc, overlay" for people. */
const char *images_folder(const struct images *images);
const char *images_about(const struct images *images);
/*
 * Makes sure that the image is here; `archive` is the fetched file of one that is sent, else NULL.
 * ERR_IMAGE_UNUSABLE: the tenant's fault. ERR_IMAGE_UNAVAILABLE: the registry has it not, or is
 * out of reach. ERR_NO_SPACE.
 */
int images_get(struct images *images, const struct spec_image *image, const char *archive,
               struct image_facts *ret_facts, struct err *err) SHEAF_MUST_USE;

#endif
