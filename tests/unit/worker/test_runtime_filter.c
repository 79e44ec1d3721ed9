/*
 * Sends packets for real: the test moves into a network namespace of its own, with a second one
 * behind a veth pair that holds the peer, a stranger and the address that clouds keep secrets on.
 */
#include <arpa/inet.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/pure/buf.h"
#include "support_runtime.h"
#include "worker/runtime/filter.h"

#define PEER      "10.99.0.2"
#define STRANGER  "10.99.0.3"
#define METADATA  "169.254.169.254"
#define OWN       "10.99.0.1"
#define PEER_SIX  "fd00:99::2"
#define OTHER_SIX "fd00:99::3"

static struct trial *trial;
static pid_t far_side;

static void listen_on_all(uint16_t port)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof(any)) != 0 || listen(fd, 16) != 0)
        _exit(1);
}

/* Everything but the peer's side of the cable lives here until the test ends. */
static void run_far_side(int ready, int go)
{
    char byte;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (unshare(CLONE_NEWNET) != 0)
        _exit(1);
    if (write(ready, "x", 1) != 1 || read(go, &byte, 1) != 1)
        _exit(1);
    if (system("ip link set lo up && ip link set far up && ip addr add " PEER "/24 dev far && "
               "ip addr add " STRANGER "/24 dev far && ip addr add " METADATA "/32 dev far && "
               "ip -6 addr add " PEER_SIX "/64 dev far nodad && "
               "ip -6 addr add " OTHER_SIX "/64 dev far nodad")
        != 0)
        _exit(1);
    listen_on_all(7000);
    if (write(ready, "x", 1) != 1)
        _exit(1);
    pause();
    _exit(0);
}

/* False: this machine has no namespaces for us. */
static bool network_make(void)
{
    char command[512];
    char byte;
    int ready[2];
    int go[2];

    if (!trial_is_root() || unshare(CLONE_NEWNET) != 0) {
        print_message("skipped: cannot make a network namespace\n");
        return false;
    }
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    far_side = fork();
    assert_true(far_side >= 0);
    if (far_side == 0)
        run_far_side(ready[1], go[0]);
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    snprintf(command, sizeof(command),
             "ip link set lo up && ip link add near type veth peer name far && "
             "ip link set far netns %d && ip link set near up && ip addr add " OWN
             "/24 dev near && ip route add 169.254.0.0/16 dev near && "
             "ip -6 addr add fd00:99::1/64 dev near nodad",
             (int)far_side);
    if (system(command) != 0 || write(go[1], "x", 1) != 1 || read(ready[0], &byte, 1) != 1) {
        print_message("skipped: cannot make a veth pair\n");
        return false;
    }
    listen_on_all(7001);
    return true;
}

/* Prints "ADDRESS yes|no" for each target. */
static const char script[] =
    "/usr/bin/python3 - <<'E'\n"
    "import socket, time\n"
    "def reach(address, port):\n"
    "    begin = time.monotonic()\n"
    "    try:\n"
    "        socket.create_connection((address, port), 2).close()\n"
    "        return 'yes'\n"
    "    except OSError:\n"
    "        return 'no' if time.monotonic() - begin < 1 else 'slow'\n"
    "for address, port in (('" PEER "', 7000), ('" STRANGER "', 7000), ('" METADATA "', 7000),\n"
    "                      ('" PEER_SIX "', 7000), ('" OTHER_SIX "', 7000),\n"
    "                      ('" OWN "', 7001), ('127.0.0.1', 7001), ('192.0.2.9', 80)):\n"
    "    print(address, reach(address, port))\n"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "try:\n"
    "    s.sendto(b'x', ('" STRANGER "', 53))\n"
    "    print('udp sent')\n"
    "except OSError:\n"
    "    print('udp refused')\n"
    "E\n";

static void run_with(bool filter, uint32_t peers)
{
    trial_plan(trial, script);
    trial->plan.filter = filter;
    trial->plan.peers[0] = PEER;
    trial->plan.peers[1] = PEER_SIX;
    trial->plan.peer_count = peers;
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_string_equal(trial->exit.failure, "");
    assert_string_equal(trial_log(trial, 0, 2), "");
}

static void test_only_the_gang_is_reachable(void **state)
{
    (void)state;
    if (trial == NULL)
        skip();
    if (!runtime_probed(trial->runtime)->filter) {
        print_message("skipped: %s\n", runtime_probed(trial->runtime)->detail);
        skip();
    }
    /* without the filter everything that listens answers: the test can fail */
    run_with(false, 2);
    assert_string_equal(trial_log(trial, 0, 1), PEER
                        " yes\n" STRANGER " yes\n" METADATA " yes\n" PEER_SIX " yes\n" OTHER_SIX
                        " yes\n" OWN " yes\n127.0.0.1 yes\n192.0.2.9 no\nudp sent\n");
    run_with(true, 2);
    assert_string_equal(trial_log(trial, 0, 1),
                        PEER " yes\n" STRANGER " no\n" METADATA " no\n" PEER_SIX " yes\n" OTHER_SIX
                             " no\n" OWN " yes\n127.0.0.1 yes\n192.0.2.9 no\nudp refused\n");
    assert_int_equal(system("test -z \"$(nft list tables)\""), 0);
}

/* The table of such tasks is made when the first comes, and again when somebody flushed it. */
static void test_a_task_alone_reaches_its_own_node_only(void **state)
{
    static const char *const before[] = {"true", "true", "nft flush ruleset",
                                         "nft flush chain inet sheaf_alone output"};

    (void)state;
    if (trial == NULL || !runtime_probed(trial->runtime)->filter)
        skip();
    for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++) {
        assert_int_equal(system(before[i]), 0);
        run_with(true, 0);
        assert_string_equal(trial_log(trial, 0, 1), PEER
                            " no\n" STRANGER " no\n" METADATA " no\n" PEER_SIX " no\n" OTHER_SIX
                            " no\n" OWN " yes\n127.0.0.1 yes\n192.0.2.9 no\nudp refused\n");
    }
}

static void test_peers_must_be_addresses(void **state)
{
    char bad[] = "10.0.0.1 } accept; drop";
    char *items[] = {bad};
    const struct spec_texts peers = {items, 1};
    struct err err;
    struct buf text;

    (void)state;
    buf_init(&text, 0);
    assert_int_equal(filter_script("x", 60600, FILTER_DROP, &peers, &text, &err),
                     -ERR_OUT_OF_RANGE);
    buf_fini(&text);
}

static void test_a_bad_peer_ends_the_task_before_it_runs(void **state)
{
    (void)state;
    if (trial == NULL || !runtime_probed(trial->runtime)->filter)
        skip();
    trial_plan(trial, "touch /out/ran");
    trial->plan.filter = true;
    trial->plan.peers[0] = "node7.example";
    trial->plan.peer_count = 1;
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 125);
    assert_non_null(strstr(trial->exit.failure, "node7.example"));
    assert_int_equal(trial->started, 0);
}

static int setup(void **state)
{
    (void)state;
    if (network_make())
        trial = trial_new(false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    trial_free(trial);
    if (far_side > 0) {
        kill(far_side, SIGKILL);
        waitpid(far_side, NULL, 0);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peers_must_be_addresses),
        cmocka_unit_test(test_only_the_gang_is_reachable), /* its tables are gone with it … */
        cmocka_unit_test(test_a_task_alone_reaches_its_own_node_only), /* … this one's stays */
        cmocka_unit_test(test_a_bad_peer_ends_the_task_before_it_runs),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
