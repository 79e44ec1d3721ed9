#include "orchestrator/gateway/describe.h"

#include "common/io/yaml.h"
#include "common/pure/embed.h"

extern const struct embed_file gateway_description[];

int describe_json(char **ret_text, struct err *err)
{
    const struct embed_file *file = &gateway_description[0];
    union {
        const unsigned char *in;
        const char *out;
    } cast = {.in = file->begin};
    json_t *value = NULL;
    int rc = yaml_read(cast.out, (size_t)(file->end - file->begin), &value, NULL, err);

    if (rc != 0)
        return rc;
    *ret_text = json_write(value);
    json_decref(value);
    return 0;
}
