#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/process.h"

/* Exit code of a child that keeps its secrets: a bit per thing that is as it should be. */
static int child_looks(void)
{
    struct rlimit limit = {1, 1};
    int good = 0;

    process_keep_secrets();
    if (getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0 && limit.rlim_max == 0)
        good |= 1;
    if (prctl(PR_GET_DUMPABLE) == 0)
        good |= 2;
    return good;
}

static void test_no_core_and_no_debugger(void **state)
{
    int status = 0;
    pid_t child = fork();

    (void)state;
    assert_true(child >= 0);
    if (child == 0)
        _exit(child_looks());
    assert_int_equal(waitpid(child, &status, 0), child);
#ifdef __SANITIZE_ADDRESS__
    assert_int_equal(WEXITSTATUS(status), 1); /* its leak check is a debugger */
#else
    assert_int_equal(WEXITSTATUS(status), 3);
#endif
}

static void test_hiding_keeps_the_length(void **state)
{
    char text[] = "swordfish";
    char none[] = "";

    (void)state;
    process_hide(text);
    assert_string_equal(text, "*********");
    process_hide(none);
    assert_string_equal(none, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_core_and_no_debugger),
        cmocka_unit_test(test_hiding_keeps_the_length),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
