/* A daemon's configuration file with one option of each type. */
#include "common/io/config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const struct config_option options[] = {
        {"state", CONFIG_TEXT, NULL, 0, 0, false, "DIR", "where"},
        {"token", CONFIG_TEXT, NULL, 0, 0, true, "TEXT", "secret"},
        {"quiet", CONFIG_BOOL, "false", 0, 0, false, "", "less"},
        {"port", CONFIG_INT, "7443", 1, 65535, false, "N", "port"},
        {"room", CONFIG_BYTES, "1GiB", 0, 0, false, "SIZE", "room"},
        {"wait", CONFIG_DURATION, "5s", 0, 3600000000, false, "TIME", "wait"},
        {"price", CONFIG_MONEY, "0.50", 0, 0, false, "N", "price"},
        {NULL, CONFIG_TEXT, NULL, 0, 0, false, NULL, NULL},
    };
    struct config *config = config_new(options, "SHEAF_FUZZ");
    struct err err = {0};
    struct buf out;
    char path[FS_PATH];

    fuzz_path(path, "config.yaml");
    BUG_ON(fs_write(path, bytes, size, 0600, NULL) != 0);
    buf_init(&out, 0);
    if (config_load_file(config, path, &err) == 0) {
        BUG_ON(config_int(config, "port") < 1 || config_int(config, "port") > 65535);
        config_print(config, &out);
    } else {
        BUG_ON(strstr(err.text, "config.yaml") == NULL);
    }
    buf_fini(&out);
    config_free(config);
    return 0;
}
