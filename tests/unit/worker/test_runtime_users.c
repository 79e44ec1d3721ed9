/* Users of tasks: one for each, among workers that share the network or /run or both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support_runtime.h"
#include "worker/runtime/users.h"

/* Users that the pool does not hand out. */
#define FIRST 61300u
#define TASKS 60600u

/* What another worker's claim looks like where /run is not shared; -1 when the name is taken. */
static int name_bind(uid_t uid, bool listening)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int length = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "sheaf-uid-%u", uid);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (bind(fd, (struct sockaddr *)&name,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length))
            != 0
        || (listening && listen(fd, 4) != 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void need_root(void)
{
    if (!trial_is_root()) {
        print_message("skipped: not root\n");
        skip();
    }
}

static void test_each_claim_is_another_user(void **state)
{
    struct user_claim claim[3];
    struct err err = {0};
    uid_t uid[3];

    (void)state;
    need_root();
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(user_claim(FIRST, 2, &claim[i], &uid[i], &err), 0);
        assert_int_equal(uid[i], FIRST + i);
    }
    assert_int_equal(user_claim(FIRST, 2, &claim[2], &uid[2], &err), -ERR_TOO_MANY);
    user_claim_end(&claim[0]);
    assert_int_equal(user_claim(FIRST, 2, &claim[2], &uid[2], &err), 0);
    assert_int_equal(uid[2], FIRST);
    user_claim_end(&claim[1]);
    user_claim_end(&claim[2]);
}

/* As in a container beside us: the lock is free, the name is not. */
static void test_a_worker_with_another_run_folder_is_seen(void **state)
{
    struct user_claim claim;
    struct err err = {0};
    uid_t uid;
    int held;

    (void)state;
    need_root();
    held = name_bind(FIRST, true);
    assert_true(held >= 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(user_claim(FIRST, 4, &claim, &uid, &err), 0);
        assert_int_equal(uid, FIRST + 1);
        user_claim_end(&claim);
    }
    assert_int_equal(user_claim(FIRST, 1, &claim, &uid, &err), -ERR_TOO_MANY);
    close(held);
}

/* Nobody answers yet: others come first, but a dead end is none. */
static void test_a_silent_name_is_taken_last(void **state)
{
    struct user_claim claim;
    struct err err = {0};
    uid_t uid;
    int held;

    (void)state;
    need_root();
    held = name_bind(FIRST, false);
    assert_true(held >= 0);
    assert_int_equal(user_claim(FIRST, 2, &claim, &uid, &err), 0);
    assert_int_equal(uid, FIRST + 1);
    user_claim_end(&claim);
    assert_int_equal(user_claim(FIRST, 1, &claim, &uid, &err), 0);
    assert_int_equal(uid, FIRST);
    user_claim_end(&claim);
    close(held);
}

/* A hostile task that binds every name must not keep others from the machine. */
static void test_names_of_tasks_do_not_count(void **state)
{
    struct user_claim claim;
    struct err err = {0};
    int ready[2];
    int over[2];
    char byte = 0;
    uid_t uid;
    pid_t pid;

    (void)state;
    need_root();
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(over), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(over[1]);
        if (setresuid(65534, 65534, 65534) != 0 || name_bind(FIRST, true) < 0
            || write(ready[1], &byte, 1) != 1)
            _exit(1);
        _exit(read(over[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(over[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(user_claim(FIRST, 1, &claim, &uid, &err), 0);
    assert_int_equal(uid, FIRST);
    user_claim_end(&claim);
    close(over[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(ready[0]);
    close(ready[1]);
}

/* The whole way: the first users are another pool's, so the task gets a later one. */
static void test_a_task_gets_a_user_of_its_own(void **state)
{
    struct trial *trial = trial_new(false);
    int held[3];
    long uid;

    (void)state;
    if (trial == NULL || !trial_is_root()) {
        trial_free(trial);
        skip();
    }
    for (uint32_t i = 0; i < 3; i++)
        held[i] = name_bind(TASKS + i, true); /* or a real task has it: as good */
    assert_int_equal(trial_run(trial, "id -u"), 0);
    uid = strtol(trial_log(trial, 0, 1), NULL, 10);
    assert_in_range(uid, TASKS + 3, TASKS + 580);
    for (uint32_t i = 0; i < 3; i++) {
        if (held[i] >= 0)
            close(held[i]);
    }
    trial_free(trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_claim_is_another_user),
        cmocka_unit_test(test_a_worker_with_another_run_folder_is_seen),
        cmocka_unit_test(test_a_silent_name_is_taken_last),
        cmocka_unit_test(test_names_of_tasks_do_not_count),
        cmocka_unit_test(test_a_task_gets_a_user_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
