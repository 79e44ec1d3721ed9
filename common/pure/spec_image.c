/* Names of images. */
#include <stdio.h>
#include <string.h>

#include "common/pure/id.h"
#include "common/pure/spec.h"

#define DIGEST "@sha256:"

static bool ends_with(const char *text, const char *tail)
{
    size_t length = strlen(text);
    size_t tail_length = strlen(tail);

    return length > tail_length && strcmp(text + length - tail_length, tail) == 0;
}

static bool is_archive(const char *text)
{
    return text[0] == '.' || text[0] == '/' || ends_with(text, ".tar")
           || ends_with(text, ".tar.gz");
}

/* The grammar of references, without a tag: lower-case components; a port after the first. */
static bool name_is_good(const char *name, size_t length)
{
    static const char inside[] = "abcdefghijklmnopqrstuvwxyz0123456789._-/";
    size_t host = strcspn(name, "/");
    bool after_slash = true;

    for (size_t i = 0; i < length; i++) {
        bool in_host = host < length && i < host;
        bool port = in_host && name[i] == ':';
        bool upper = in_host && name[i] >= 'A' && name[i] <= 'Z';
        if (!port && !upper && strchr(inside, name[i]) == NULL)
            return false;
        if (after_slash && strchr("._-/:", name[i]) != NULL)
            return false;
        after_slash = name[i] == '/';
    }
    return length > 0 && !after_slash;
}

int spec_image_parse(const char *text, struct spec_image *ret_image, struct err *err)
{
    struct spec_image image = {0};
    const char *at = strchr(text, '@');

    if (strlen(text) >= sizeof(image.name))
        return err_set_at(err, ERR_OUT_OF_RANGE, "/image", "%d bytes at most", SPEC_PATH_TEXT - 1);
    snprintf(image.name, sizeof(image.name), "%s", text);
    if (is_archive(text)) {
        image.archive = true;
        *ret_image = image;
        return 0;
    }
    if (at == NULL)
        return err_set_at(err, ERR_IMAGE_DIGEST_REQUIRED, "/image",
                          "a tag may mean another image tomorrow; see: "
                          "podman image inspect -f '{{.RepoDigests}}' %.80s",
                          text);
    if (strncmp(at, DIGEST, strlen(DIGEST)) != 0
        || hex_parse(at + strlen(DIGEST), sizeof(image.sha256), image.sha256) != 0)
        return err_set_at(err, ERR_INVALID_DIGEST, "/image",
                          "sha256: and 64 lower-case hex digits are wanted after @");
    if (!name_is_good(text, (size_t)(at - text)))
        return err_set_at(err, ERR_INVALID_NAME, "/image",
                          "host/path/name in lower case and without a tag is wanted before @");
    *ret_image = image;
    return 0;
}
