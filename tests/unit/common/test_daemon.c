/* What a packaged daemon needs: its helpers, the service manager, its manual. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/libexec.h"
#include "common/io/loop.h"
#include "common/io/manpage.h"
#include "common/io/notify.h"

/* -- helpers ----------------------------------------------------------------------------------- */

static void test_helpers_are_found_where_they_are_told(void **state)
{
    static const char *const programs[] = {"one", "two", NULL};
    char folder[] = "/tmp/sheaf-libexec-XXXXXX";
    char found[FS_PATH] = "untouched";
    char path[FS_PATH];
    struct err err = {0};

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(setenv("SHEAF_LIBEXEC", folder, 1), 0);
    assert_int_equal(fs_path(path, "%s/one", folder), 0);
    assert_int_equal(fs_write(path, "", 0, 0755, &err), 0);
    assert_int_equal(libexec_find(programs, found, &err), -ERR_UNSUPPORTED_HERE);
    assert_non_null(strstr(err.text, "two is not in"));
    assert_string_equal(found, "untouched");
    assert_int_equal(fs_path(path, "%s/two", folder), 0);
    assert_int_equal(fs_write(path, "", 0, 0755, &err), 0);
    assert_int_equal(libexec_find(programs, found, &err), 0);
    assert_string_equal(found, folder);
    unsetenv("SHEAF_LIBEXEC");
    assert_int_equal(libexec_find(programs, found, &err), -ERR_UNSUPPORTED_HERE);
    assert_int_equal(fs_remove_tree(folder, &err), 0);
}

/* -- the service manager ----------------------------------------------------------------------- */

static int manager_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[sizeof(address.sun_path) + 1];
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(name, sizeof(name), "@sheaf-notify-%d", (int)getpid());
    memcpy(address.sun_path, name, strlen(name));
    address.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (const struct sockaddr *)(const void *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
                     0);
    assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
    return fd;
}

static void expect(int fd, const char *wanted)
{
    struct timeval limit = {.tv_sec = 10};
    char text[512] = "";

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
    assert_string_equal(text, wanted);
}

static void test_the_service_manager_hears_of_start_life_and_end(void **state)
{
    struct event_base *base = loop_new();
    struct notify *notify;
    int fd = manager_socket();

    (void)state;
    assert_int_equal(setenv("WATCHDOG_USEC", "20000", 1), 0);
    notify = notify_new(base);
    notify_ready(notify, "serving");
    expect(fd, "READY=1\nSTATUS=serving");
    notify_status(notify, "drained");
    expect(fd, "STATUS=drained");
    assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
    expect(fd, "WATCHDOG=1");
    notify_stopping(notify);
    expect(fd, "STOPPING=1");
    notify_free(notify);
    unsetenv("WATCHDOG_USEC");
    notify = notify_new(base);
    assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 1); /* no watchdog: nothing to wait for */
    unsetenv("NOTIFY_SOCKET");
    notify_ready(notify, "nobody listens");
    assert_int_equal(recv(fd, &(char){0}, 1, MSG_DONTWAIT), -1);
    notify_free(notify);
    close(fd);
    event_base_free(base);
}

/* -- manuals ----------------------------------------------------------------------------------- */

static void test_a_manual_has_every_option_and_no_stray_request(void **state)
{
    static const struct config_option options[] = {
        {"state", CONFIG_TEXT, NULL, 0, 0, false, "DIR", ".hidden folder"},
        {"verbose", CONFIG_BOOL, "false", 0, 0, false, NULL, "say more"},
        {"password", CONFIG_TEXT, "hunter2", 0, 0, true, "TEXT", "of the database"},
        {0},
    };
    const struct manpage page = {.name = "sheaf-x",
                                 .summary = "does x",
                                 .usage = "sheaf-x [OPTION]",
                                 .text = "first\n'quoted \\ line",
                                 .files = "/x  x",
                                 .options = options};
    struct buf out;

    (void)state;
    buf_init(&out, 0);
    manpage_write(&page, &out);
    assert_non_null(strstr(out.data, "sheaf\\-x \\- does x\n"));
    assert_non_null(strstr(out.data, "\n\\fB\\-\\-state\\fR \\fIDIR\\fR\n\\&.hidden folder\n"));
    assert_non_null(strstr(out.data, "\n\\fB\\-\\-verbose\\fR\nsay more; default false\n"));
    assert_non_null(strstr(out.data, "first\n\\&'quoted \\e line\n"));
    assert_null(strstr(out.data, "hunter2"));
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_helpers_are_found_where_they_are_told),
        cmocka_unit_test(test_the_service_manager_hears_of_start_life_and_end),
        cmocka_unit_test(test_a_manual_has_every_option_and_no_stray_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
