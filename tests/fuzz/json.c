/* A JSON body: its canonical form is read again as the same value and stays as it is. */
#include "common/io/json.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    json_t *value = NULL;
    json_t *again = NULL;
    struct err err = {0};

    if (json_read(bytes, size, &value, &err) != 0)
        return 0;
    char *text = json_write_canonical(value);
    BUG_ON(json_read(text, strlen(text), &again, &err) != 0);
    char *twice = json_write_canonical(again);
    BUG_ON(strcmp(text, twice) != 0);
    free(text);
    free(twice);
    json_decref(value);
    json_decref(again);
    return 0;
}
