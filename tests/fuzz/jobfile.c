/* A job file as YAML: what is taken, written out in full, is taken again and says the same. */
#include "common/io/spec_json.h"
#include "common/io/yaml.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    json_t *value = NULL;
    struct yaml_marks *marks = NULL;
    struct job_spec spec;
    struct job_spec again;
    struct err err = {0};
    unsigned line;
    unsigned column;

    if (yaml_read((const char *)bytes, size, &value, &marks, &err) != 0)
        return 0;
    if (spec_from_json(value, &spec, &err) == 0) {
        json_t *full = spec_to_json(&spec);
        BUG_ON(spec_from_json(full, &again, &err) != 0);
        json_t *twice = spec_to_json(&again);
        BUG_ON(!json_equal(full, twice));
        json_decref(full);
        json_decref(twice);
        spec_fini(&spec);
        spec_fini(&again);
    } else {
        yaml_locate(marks, err.pointer, &line, &column);
        BUG_ON(line == 0);
    }
    yaml_marks_free(marks);
    json_decref(value);
    return 0;
}
