#ifndef SHEAF_WORKER_IMAGES_FACTS_H
#define SHEAF_WORKER_IMAGES_FACTS_H

/* What a worker takes from an image's own description. All of it is a stranger's text. */
#include <jansson.h>

#include "common/io/fs.h"
#include "common/pure/err.h"
#include "common/pure/spec.h"

struct image_facts {
    char id[96];
    char folder[FS_PATH];   /* to start its program in; empty = /job */
    struct spec_texts env;  /* NAME=value; without what the platform sets or what loads code */
    struct spec_texts argv; /* entry point and arguments; none = the image names no program */
    uint64_t bytes;
};

/* Of `podman image inspect`. ERR_IMAGE_UNUSABLE: made for another machine, or out of bounds. */
int image_facts_read(const json_t *value, struct image_facts *ret_facts,
                     struct err *err) SHEAF_MUST_USE;
void image_facts_fini(struct image_facts *facts);
/* The image's own program as a script for its /bin/sh. Caller frees. */
char *image_facts_script(const struct image_facts *facts);

#endif
