/* Any YAML: what is taken and written as a block is taken again as the same value. */
#include "common/io/yaml.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    json_t *value = NULL;
    json_t *again = NULL;
    struct err err = {0};

    if (yaml_read((const char *)bytes, size, &value, NULL, &err) != 0)
        return 0;
    char *text = yaml_write(value);
    BUG_ON(text == NULL);
    /* Written with our indents it may pass the size limit that the original kept. */
    if (strlen(text) <= YAML_MAX_BYTES) {
        BUG_ON(yaml_read(text, strlen(text), &again, NULL, &err) != 0);
        BUG_ON(!json_equal(value, again));
    }
    free(text);
    json_decref(value);
    json_decref(again);
    return 0;
}
