/* Images as strangers describe them, and what podman is asked for a task. */
#include <archive.h>
#include <archive_entry.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/json.h"
#include "worker/images/archive.h"
#include "worker/images/container.h"
#include "worker/images/facts.h"

/* -- what an image says of itself ---------------------------------------------------------------
 */

static const char *architecture(void)
{
    static struct utsname name;

    assert_int_equal(uname(&name), 0);
    if (strcmp(name.machine, "x86_64") == 0)
        return "amd64";
    return strcmp(name.machine, "aarch64") == 0 ? "arm64" : name.machine;
}

static int read_facts(const char *machine, json_t *config, struct image_facts *facts,
                      struct err *err)
{
    json_t *value = json_pack("{s:s, s:s, s:s, s:i, s:o}", "Id", "ab12", "Os", "linux",
                              "Architecture", machine, "Size", 7, "Config", config);

    assert_non_null(value);
    int rc = image_facts_read(value, facts, err);
    json_decref(value);
    return rc;
}

static void test_variables_that_the_platform_sets_or_that_load_code_are_dropped(void **state)
{
    struct image_facts facts;
    struct err err = {0};
    json_t *config =
        json_pack("{s:[s, s, s, s, s, s, s, s, s, s, s]}", "Env", "PATH=/opt/bin",
                  "LD_PRELOAD=/x.so", "LD_LIBRARY_PATH=/x", "NVIDIA_VISIBLE_DEVICES=all",
                  "NVIDIA_DRIVER_CAPABILITIES=all", "CUDA_VISIBLE_DEVICES=0", "RANK=7",
                  "HOME=/root", "SHEAF_JOB_ID=x", "A B=1", "CUDA_HOME=/c");

    (void)state;
    assert_int_equal(read_facts(architecture(), config, &facts, &err), 0);
    assert_int_equal(facts.env.count, 2);
    assert_string_equal(facts.env.items[0], "PATH=/opt/bin");
    assert_string_equal(facts.env.items[1], "CUDA_HOME=/c");
    assert_string_equal(facts.id, "ab12");
    assert_int_equal(facts.bytes, 7);
    image_facts_fini(&facts);
}

static void test_an_image_for_another_machine_is_unusable(void **state)
{
    struct image_facts facts;
    struct err err = {0};

    (void)state;
    assert_int_equal(read_facts("m68k", json_object(), &facts, &err), -ERR_IMAGE_UNUSABLE);
    assert_non_null(strstr(err.text, "linux/m68k"));
}

static void test_bounds_of_a_description(void **state)
{
    struct image_facts facts;
    struct err err = {0};
    json_t *many = json_array();
    json_t *words = json_array();

    (void)state;
    for (int i = 0; i < 257; i++) {
        json_array_append_new(many, json_sprintf("A%d=1", i));
        json_array_append_new(words, json_string("x"));
    }
    assert_int_equal(read_facts(architecture(), json_pack("{s:o}", "Env", many), &facts, &err),
                     -ERR_IMAGE_UNUSABLE);
    assert_int_equal(read_facts(architecture(), json_pack("{s:o}", "Cmd", words), &facts, &err),
                     -ERR_IMAGE_UNUSABLE);
    assert_int_equal(
        read_facts(architecture(), json_pack("{s:[i]}", "Entrypoint", 1), &facts, &err),
        -ERR_IMAGE_UNUSABLE);
}

/* Run by a real shell: quoting is right when every word arrives as it was. */
static void test_the_images_own_program_keeps_its_words(void **state)
{
    static const char *const said = "it's $(here); \"now\" *\n[]";
    struct image_facts facts;
    struct err err = {0};
    char got[256] = "";

    (void)state;
    assert_int_equal(
        read_facts(architecture(),
                   json_pack("{s:[s, s], s:[s, s], s:s}", "Entrypoint", "printf", "%s\n[%s]", "Cmd",
                             "it's $(here); \"now\" *", "", "WorkingDir", "/tmp"),
                   &facts, &err),
        0);
    char *script = image_facts_script(&facts);
    assert_int_equal(setenv("IMAGE_SCRIPT", script, 1), 0);
    FILE *pipe = popen("exec sh -c \"$IMAGE_SCRIPT\"", "r");
    assert_non_null(pipe);
    assert_true(fread(got, 1, sizeof(got) - 1, pipe) > 0);
    assert_int_equal(pclose(pipe), 0);
    assert_string_equal(got, said);
    free(script);
    image_facts_fini(&facts);
}

/* -- what podman is asked -----------------------------------------------------------------------
 */

static json_t *spec_of(struct plan_task *task, const char *groups, bool cdi)
{
    const struct container_user user = {60601, 60601, groups};

    snprintf(task->dir, sizeof(task->dir), "/state/tasks/a-0");
    snprintf(task->name, sizeof(task->name), "sheaf-a-0");
    snprintf(task->libexec, sizeof(task->libexec), "/usr/libexec/sheaf");
    snprintf(task->image, sizeof(task->image), "ab12");
    task->proc_count = 2;
    return container_spec(task, &user, cdi);
}

static const char *text_at(const json_t *list, size_t index, const char *key)
{
    return json_text(json_array_get(list, index), key);
}

static void test_a_container_has_no_privileges_and_nothing_of_the_host(void **state)
{
    struct plan_task task = {.shm = 4096, .limits = {.memory = 1 << 30}};
    json_t *spec = spec_of(&task, "44,105", false);
    const json_t *mounts = json_object_get(spec, "mounts");
    size_t i;
    const json_t *mount;

    (void)state;
    assert_true(json_is_true(json_object_get(spec, "read_only_filesystem")));
    assert_true(json_is_true(json_object_get(spec, "no_new_privileges")));
    assert_true(json_is_true(json_object_get(spec, "unsetenvall")));
    assert_null(json_object_get(spec, "privileged"));
    assert_null(json_object_get(spec, "cap_add"));
    assert_string_equal(json_string_value(json_array_get(json_object_get(spec, "cap_drop"), 0)),
                        "ALL");
    assert_string_equal(json_text(spec, "user"), "60601:60601");
    assert_string_equal(json_string_value(json_array_get(json_object_get(spec, "groups"), 1)),
                        "105");
    assert_int_equal(json_integer_value(json_object_get(spec, "shm_size")), 4096);
    assert_string_equal(json_text(spec, "cgroup_parent"), "/sheaf-sheaf-a-0");
    assert_string_equal(text_at(json_object_get(spec, "r_limits"), 0, "type"), "NOFILE");
    json_array_foreach(mounts, i, mount)
    {
        const char *source = json_text(mount, "source");
        assert_true(source == NULL || strncmp(source, "/state/tasks/a-0/", 17) == 0
                    || strcmp(source, "/usr/libexec/sheaf/sheaf-task-init") == 0);
        json_t *options = json_object_get(mount, "options");
        char *all = json_write(options);
        assert_non_null(strstr(all, "nosuid"));
        assert_non_null(strstr(all, "nodev"));
        free(all);
    }
    json_decref(spec);
}

static void test_devices_are_those_of_the_plan(void **state)
{
    struct plan_task task = {0};
    struct plan_task other = {0};
    json_t *spec;
    const json_t *devices;

    (void)state;
    spec_texts_add(&task.device_nodes, "/dev/nvidia3");
    spec_texts_add(&task.device_nodes, "/dev/nvidiactl");
    spec_texts_add(&task.device_nodes, "/dev/dri/renderD128");
    spec = spec_of(&task, "-", false);
    devices = json_object_get(spec, "devices");
    assert_int_equal(json_array_size(devices), 3);
    assert_string_equal(text_at(devices, 0, "path"), "/dev/nvidia3");
    assert_int_equal(json_array_size(json_object_get(spec, "groups")), 0);
    json_decref(spec);
    spec = spec_of(&task, "-", true);
    devices = json_object_get(spec, "devices");
    assert_int_equal(json_array_size(devices), 2);
    assert_string_equal(text_at(devices, 0, "path"), "nvidia.com/gpu=3");
    assert_string_equal(text_at(devices, 1, "path"), "/dev/dri/renderD128");
    json_decref(spec);
    spec = spec_of(&other, "-", true);
    assert_int_equal(json_array_size(json_object_get(spec, "devices")), 0);
    json_decref(spec);
    spec_texts_fini(&task.device_nodes);
}

/* -- archives -----------------------------------------------------------------------------------
 */

/* Writes one file; the format is set. */
static void put_file(struct archive *archive, const char *name, const void *bytes, size_t size)
{
    struct archive_entry *entry = archive_entry_new();

    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_size(entry, (la_int64_t)size);
    assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(archive, bytes, size), size);
    archive_entry_free(entry);
    assert_int_equal(archive_write_free(archive), ARCHIVE_OK);
}

static size_t compress(const void *bytes, size_t size, void *out, size_t limit)
{
    struct archive *archive = archive_write_new();
    size_t used = 0;

    archive_write_add_filter_gzip(archive);
    archive_write_set_format_raw(archive);
    assert_int_equal(archive_write_open_memory(archive, out, limit, &used), ARCHIVE_OK);
    put_file(archive, "raw", bytes, size);
    return used;
}

static void test_a_layer_bomb_is_measured_not_unpacked(void **state)
{
    char path[] = "/tmp/sheaf-archive-XXXXXX";
    struct err err = {0};
    size_t size = (size_t)8 << 20;
    void *zeros = calloc(1, size);
    char packed[65536];
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0 && zeros != NULL);
    struct archive *archive = archive_write_new();
    archive_write_set_format_ustar(archive);
    assert_int_equal(archive_write_open_fd(archive, fd), ARCHIVE_OK);
    put_file(archive, "layer.tar", packed, compress(zeros, size, packed, sizeof(packed)));
    close(fd);
    assert_int_equal(image_archive_check(path, size, &err), 0);
    assert_int_equal(image_archive_check(path, size - 1, &err), -ERR_IMAGE_UNUSABLE);
    assert_non_null(strstr(err.text, "unpacks to more than"));
    assert_int_equal(truncate(path, 700), 0);
    assert_int_equal(image_archive_check(path, size, &err), -ERR_IMAGE_UNUSABLE);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(image_archive_check(path, size, &err), -ERR_IMAGE_UNUSABLE);
    unlink(path);
    free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variables_that_the_platform_sets_or_that_load_code_are_dropped),
        cmocka_unit_test(test_an_image_for_another_machine_is_unusable),
        cmocka_unit_test(test_bounds_of_a_description),
        cmocka_unit_test(test_the_images_own_program_keeps_its_words),
        cmocka_unit_test(test_a_container_has_no_privileges_and_nothing_of_the_host),
        cmocka_unit_test(test_devices_are_those_of_the_plan),
        cmocka_unit_test(test_a_layer_bomb_is_measured_not_unpacked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
