#ifndef SHEAF_COMMON_PURE_SPEC_H
#define SHEAF_COMMON_PURE_SPEC_H

/*
 * A job as its tenant wrote it, in values. The text form is JSON (common/io/spec_json.h); YAML is
 * turned into that JSON by the client. Knows no JSON and no files.
 *
 * `struct job_ask` is the part that queue, placement and money decide on: plain values, copied
 * freely. The rest only travels to the worker.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/err.h"
#include "common/pure/money.h"

/* Bounds. A gang larger than this would not fit one order frame with its pair matrix. */
#define SPEC_MAX_NODES         256
#define SPEC_MAX_GPUS_PER_NODE 16
#define SPEC_MAX_MODELS        8
#define SPEC_MAX_COUNTRIES     16
#define SPEC_MAX_EXCLUDED      8
#define SPEC_MAX_ENV           256
#define SPEC_MAX_COMMANDS      64
#define SPEC_MAX_FILES         32
#define SPEC_MAX_OUTPUTS       8
#define SPEC_MAX_TEXT_BYTES    65536 /* the whole job file */
#define SPEC_MODEL_TEXT        48
#define SPEC_NAME_TEXT         64
#define SPEC_PATH_TEXT         256
#define SPEC_CURRENCY_TEXT     8
/* In the text of a node's runtimes: it runs images. */
#define SPEC_IMAGE_RUNTIME "podman"

/* A rank's failure class; bit positions in job_ask.retry_on. */
enum fail_class {
    FAIL_NONE,
    FAIL_USER,         /* the program failed: pays use */
    FAIL_CAPACITY,     /* could not start: pays nothing */
    FAIL_INTERRUPTION, /* the owner or a drain took the node: pays use, no blame */
    FAIL_HARDWARE,
    FAIL_PROVIDER,
    FAIL_UNREACHABLE,
    FAIL_PLATFORM, /* our fault: full refund */
    FAIL_CLASS_COUNT,
};
const char *fail_class_name(enum fail_class class);
/* FAIL_NONE for an unknown name. */
enum fail_class fail_class_parse(const char *name);

struct job_ask {
    uint32_t nodes;         /* 1..SPEC_MAX_NODES */
    uint32_t gpus_per_node; /* 1..SPEC_MAX_GPUS_PER_NODE */
    uint64_t gpu_memory;    /* bytes per device, compared with the nominal class; 0 = any */
    char models[SPEC_MAX_MODELS][SPEC_MODEL_TEXT]; /* lower case; matches a part of the model */
    uint32_t model_count;                          /* 0 = any GPU, but never class "cpu" */
    bool cpu_device;     /* a model says "cpu": class cpu devices match, and nothing else does */
    uint32_t cpu_milli;  /* per node */
    uint64_t memory;     /* bytes per node; 0 = a fair share of the node */
    uint64_t disk;       /* bytes per node */
    uint64_t shm;        /* bytes per node */
    uint64_t max_rtt_us; /* p95 between every pair; 0 = no limit */
    micro_t max_price;   /* per device and hour; 0 = no limit */
    micro_t max_total;   /* escrow; 0 = price x max_duration */
    char countries[SPEC_MAX_COUNTRIES][3];            /* ISO 3166 alpha-2, upper case */
    uint32_t country_count;                           /* 0 = any */
    char excluded[SPEC_MAX_EXCLUDED][SPEC_NAME_TEXT]; /* node names */
    uint32_t excluded_count;
    uint32_t priority; /* 0..100 */
    uint64_t max_duration_us;
    uint64_t stop_duration_us;
    uint64_t queue_timeout_us; /* 0 = none */
    uint32_t max_attempts;     /* 1..20 */
    uint32_t retry_on;         /* bits 1 << enum fail_class */
    bool fail_fast;            /* refuse the submission when it cannot run now */
    bool image;                /* runs in a container: only on nodes with podman */
};

enum launch {
    LAUNCH_NODE,   /* one process per node; RANK and WORLD_SIZE set for it */
    LAUNCH_DEVICE, /* one per device, with LOCAL_RANK too */
    LAUNCH_NONE,   /* one per node; RANK, WORLD_SIZE, LOCAL_RANK are left to the user's launcher */
};
const char *launch_name(enum launch launch);

/*
 * A tree packed by the client: a tar archive (zstd) whose entries start with basename(path), to be
 * unpacked in dirname(path). The SHA-256 is of the archive's bytes.
 */
struct spec_file {
    char source[SPEC_PATH_TEXT]; /* what the client packed; for people */
    char path[SPEC_PATH_TEXT];   /* absolute, under /job */
    uint8_t sha256[32];
    uint64_t size; /* of the archive; 0 = not packed yet (only in the client) */
};

/* Where a job's root file system comes from; all empty = the node's own programs. */
struct spec_image {
    char name[SPEC_PATH_TEXT]; /* name@sha256:… of a registry, or the archive that was packed */
    bool archive;              /* in the content store, by the two below */
    uint8_t sha256[32];        /* of the archive's bytes, or the digest in the name */
    uint64_t size;             /* of the archive; 0 = not sent yet (only in the client) */
};

struct spec_texts {
    char **items; /* owned */
    uint32_t count;
};

void spec_texts_add(struct spec_texts *texts, const char *text); /* copies */
void spec_texts_addf(struct spec_texts *texts, const char *format, ...) SHEAF_PRINTF(2, 3);
void spec_texts_fini(struct spec_texts *texts);

struct job_spec {
    char name[SPEC_NAME_TEXT];
    char project[SPEC_NAME_TEXT]; /* empty = the token's project */
    char currency[SPEC_CURRENCY_TEXT];
    struct job_ask ask;
    enum launch launch;
    struct spec_image image;    /* meant when ask.image */
    struct spec_texts env;      /* NAME=value */
    struct spec_texts commands; /* run by one `sh -e` in this order; none: the image's own */
    struct spec_texts outputs;  /* absolute folders under /out */
    struct spec_file *files;    /* owned */
    uint32_t file_count;
};

/* Frees what the spec owns; accepts NULL and half-built ones. */
void spec_fini(struct job_spec *spec);
/* The defaults of a job file that says nothing. */
void spec_init(struct job_spec *spec);
/*
 * Bounds and contradictions that hold between fields. Names, paths and environment are checked
 * too. err->pointer names the field. ERR_OUT_OF_RANGE, ERR_CONTRADICTION, ERR_INVALID_NAME, …
 */
int spec_check(const struct job_spec *spec, struct err *err) SHEAF_MUST_USE;
/* "1 to 256 nodes": the bounds of the field with this pointer; NULL when it has none. */
const char *spec_bound_text(const char *pointer);
/* Every file and image archive has its hash and size: what a server asks. ERR_FIELD_MISSING. */
int spec_check_packed(const struct job_spec *spec, struct err *err) SHEAF_MUST_USE;
/*
 * Reads "name@sha256:…" or the path of an archive: what starts with . or / or ends in .tar.
 * ERR_IMAGE_DIGEST_REQUIRED, ERR_INVALID_DIGEST, ERR_INVALID_NAME.
 */
int spec_image_parse(const char *text, struct spec_image *ret_image,
                     struct err *err) SHEAF_MUST_USE;
/* Whether a job may set this NAME=value. */
bool spec_env_is_allowed(const char *item);
/* The archives that the job brings: of its files, and of its image. */
uint32_t spec_content_count(const struct job_spec *spec);
const uint8_t *spec_content(const struct job_spec *spec, uint32_t index);
uint64_t spec_content_size(const struct job_spec *spec, uint32_t index);
/* 1-63 of a-z 0-9 -, starts with a letter, does not end with -. */
bool name_is_valid(const char *name);
/* Number of processes of the gang: nodes, or nodes x devices with LAUNCH_DEVICE. */
uint32_t spec_world_size(const struct job_spec *spec);

#endif
