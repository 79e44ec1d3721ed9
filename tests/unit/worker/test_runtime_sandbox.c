#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/fs.h"
#include "support_runtime.h"

static struct trial *trial;

static void need_trial(void)
{
    if (trial == NULL)
        skip();
}

/* Runs the script, which must succeed; shows its stderr when it does not. */
static const char *output_of(const char *script)
{
    int code = trial_run(trial, script);

    if (code != 0)
        fail_msg("%d from: %s\n%s", code, script, trial_log(trial, 0, 2));
    return trial_log(trial, 0, 1);
}

static void test_secrets_of_the_host_are_not_there(void **state)
{
    static const char *const folders[] = {"/home", "/root", "/var", "/etc",  "/run",
                                          "/mnt",  "/tmp",  "/srv", "/media"};
    char path[FS_PATH];
    char script[4096];

    (void)state;
    need_trial();
    if (!trial_is_root()) {
        print_message("skipped: not root, nothing can be planted\n");
        skip();
    }
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        bool there = access(folders[i], F_OK) == 0;
        if (!there)
            continue;
        assert_int_equal(fs_path(path, "%s/sheaf-canary-%d", folders[i], (int)getpid()), 0);
        assert_int_equal(fs_write(path, "canary-3141592", 14, 0644, NULL), 0);
        snprintf(script, sizeof(script),
                 "if [ -e %s ]; then echo seen %s; fi\n"
                 "find / -xdev -name 'sheaf-canary-*' 2>/dev/null || :\n"
                 "grep -rs canary-3141592 /home /root /var /etc /run /mnt /srv /media /tmp || :\n",
                 path, path);
        const char *seen = output_of(script);
        unlink(path);
        assert_string_equal(seen, "");
    }
}

static void test_root_is_an_allow_list(void **state)
{
    (void)state;
    need_trial();
    assert_string_equal(output_of("ls -A /home /root /run /tmp /var/tmp /mnt 2>&1 | tr '\\n' ' '"),
                        "ls: cannot access '/mnt': No such file or directory /home: "
                        " /root:  /run:  /tmp:  /var/tmp: ");
    assert_null(strstr(output_of("ls /etc"), "shadow"));
    output_of("cat /etc/passwd /etc/hosts /sys/devices/system/cpu/online && ls /etc/ssl/certs");
    /* nothing but the task's own places can be written */
    assert_string_equal(output_of("for d in / /etc /usr /bin /opt /home /root /var /dev /job /out "
                                  "/tmp /run /var/tmp /dev/shm /sys /proc; do\n"
                                  "  if touch $d/x 2>/dev/null; then echo $d; fi\ndone"),
                        "/job\n/out\n/tmp\n/run\n/var/tmp\n/dev/shm\n");
}

static void test_environment_of_the_worker_does_not_leak(void **state)
{
    (void)state;
    need_trial();
    setenv("SHEAF_CANARY", "leaked", 1);
    trial_plan(trial, "env | sort; echo -- $#; ls -l /proc/self/fd | wc -l");
    spec_texts_add(&trial->plan.env, "GIVEN=a b=c");
    spec_texts_add(&trial->plan.env, "HOME=/out");
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    unsetenv("SHEAF_CANARY");
    assert_string_equal(trial_log(trial, 0, 1),
                        "GIVEN=a b=c\nHOME=/out\nLANG=C.UTF-8\nLOGNAME=sheaf\n"
                        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
                        "POCL_CACHE_DIR=/tmp/.pocl\nPWD=/job\nSHEAF_JOB_DIR=/job\n"
                        "SHEAF_OUT_DIR=/out\nSHELL=/bin/sh\nTMPDIR=/tmp\nUSER=sheaf\n"
                        "-- 0\n5\n"); /* "total", 0, 1, 2 and the folder that ls reads */
}

static void test_task_has_no_powers(void **state)
{
    (void)state;
    need_trial();
    const char *text = output_of("grep -E '^(CapEff|CapPrm|CapInh|CapAmb|NoNewPrivs):' "
                                 "/proc/self/status | tr -d '\\t'; ulimit -c; hostname");
    assert_string_equal(text, "CapInh:0000000000000000\nCapPrm:0000000000000000\n"
                              "CapEff:0000000000000000\nCapAmb:0000000000000000\n"
                              "NoNewPrivs:1\n0\nsheaf\n");
    if (trial_is_root()) {
        int uid = (int)strtol(output_of("id -u; id -nu; id -G | wc -w"), NULL, 10);
        assert_in_range(uid, 60600, 61180);
        assert_non_null(strstr(trial_log(trial, 0, 1), "\nsheaf\n1\n"));
        assert_string_equal(output_of("grep CapBnd /proc/self/status | tr -d '\\t'"),
                            "CapBnd:0000000000000000\n");
    }
    /* the first process has the same user; it can be neither traced nor read */
    assert_string_equal(
        output_of("cat /proc/1/environ 2>&1 | tr -d '\\0'; ls /proc/1/fd 2>&1 | wc -l;"
                  "mount -t tmpfs none /tmp 2>/dev/null && echo mounted || :"),
        "cat: /proc/1/environ: Permission denied\n1\n");
}

static void test_doors_into_the_kernel_are_shut(void **state)
{
    (void)state;
    need_trial();
    const char *text =
        output_of("unshare -U true 2>/dev/null && echo userns || :\n"
                  "/usr/bin/python3 - <<'E'\n"
                  "import ctypes, errno, platform, socket, threading\n"
                  "libc = ctypes.CDLL(None, use_errno=True)\n"
                  "for name, number in (('keyctl', 250), ('bpf', 321), ('io_uring_setup', 425)):\n"
                  "    if platform.machine() == 'x86_64':\n"
                  "        ctypes.set_errno(0)\n"
                  "        libc.syscall(number, 0, 0, 0, 0, 0)\n"
                  "        print(name, errno.errorcode[ctypes.get_errno()])\n"
                  "for family in (socket.AF_PACKET, socket.AF_VSOCK, 38):\n"
                  "    try:\n"
                  "        socket.socket(family, socket.SOCK_STREAM)\n"
                  "        print('family', family)\n"
                  "    except OSError as e:\n"
                  "        assert e.errno == errno.EAFNOSUPPORT, e\n"
                  "t = threading.Thread(target=lambda: print('thread'))\n"
                  "t.start(); t.join()\n"
                  "socket.socket(socket.AF_UNIX); socket.socket(socket.AF_INET6)\n"
                  "E\n");
#ifdef __x86_64__
    assert_string_equal(text, "keyctl EPERM\nbpf EPERM\nio_uring_setup ENOSYS\nthread\n");
#else
    assert_string_equal(text, "thread\n");
#endif
}

static void test_processes_of_the_host_are_not_there(void **state)
{
    (void)state;
    need_trial();
    assert_string_equal(output_of("cd /proc; set -- [0-9]*; echo $#; kill -0 1 && cat 1/comm"),
                        "2\ntask-init\n");
}

static void test_devices_of_the_plan_alone_are_there(void **state)
{
    (void)state;
    need_trial();
    assert_string_equal(output_of("ls /dev | tr '\\n' ' '"),
                        "core fd full null ptmx pts random shm stderr stdin stdout tty urandom "
                        "zero ");
    if (!trial_is_root())
        return;
    trial_plan(trial,
               "head -c 3 /dev/sheaf/zero1 | wc -c; id -G | wc -w; test ! -e /dev/sheaf/zero2;"
               "df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2");
    /* device nodes of another folder, as drivers make them; for a group alone */
    if (mkdir("/dev/sheaf", 0755) != 0 && access("/dev/sheaf", F_OK) != 0)
        skip();
    int made = mknod("/dev/sheaf/zero1", S_IFCHR | 0660, (1 << 8) | 5);
    int other = mknod("/dev/sheaf/zero2", S_IFCHR | 0666, (1 << 8) | 5);
    assert_int_equal(chown("/dev/sheaf/zero1", 0, 44), 0);
    assert_int_equal(chmod("/dev/sheaf/zero1", 0660), 0);
    trial->plan.device_nodes[0] = "/dev/sheaf/zero1";
    trial->plan.device_node_count = 1;
    trial->plan.shm = (uint64_t)32 << 20;
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    unlink("/dev/sheaf/zero1");
    unlink("/dev/sheaf/zero2");
    rmdir("/dev/sheaf");
    if (made != 0 || other != 0)
        skip();
    assert_string_equal(trial_log(trial, 0, 2), "");
    assert_string_equal(trial_log(trial, 0, 1), "3\n2\n32768\n");
    assert_int_equal(trial->exit.code, 0);
}

static void test_tasks_do_not_see_each_other(void **state)
{
    struct trial *other = trial_new(false);
    char script[FS_PATH + 128];

    (void)state;
    need_trial();
    assert_non_null(other);
    trial_plan(other, "echo other >/tmp/x; echo other >/dev/shm/x; echo >/out/up; id -u; sleep 20");
    trial_prepare(other);
    trial_release(other);
    for (int i = 0; i < 2000 && strlen(trial_log(other, 0, 1)) == 0; i++)
        usleep(2000);
    snprintf(script, sizeof(script), "cat /tmp/x /dev/shm/x %s/out/up 2>/dev/null || :; id -u",
             other->dir);
    trial_plan(trial, script);
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    if (trial_is_root()) {
        assert_int_not_equal((int)strtol(trial_log(trial, 0, 1), NULL, 10), 0);
        int mine = (int)strtol(trial_log(trial, 0, 1), NULL, 10);
        assert_int_not_equal(mine, (int)strtol(trial_log(other, 0, 1), NULL, 10));
    }
    trial_free(other);
}

static void test_files_of_the_tenant_cannot_redirect_ours(void **state)
{
    const struct runtime_file files[] = {{"ring.json", "ours"}, {NULL, NULL}};
    char path[FS_PATH];
    char target[FS_PATH];

    (void)state;
    need_trial();
    trial_plan(trial, "cat /job/.sheaf/ring.json; test -O /job || exit 4; test -w /job/mine");
    assert_int_equal(fs_path(target, "%s/victim", trial->root), 0);
    assert_int_equal(fs_path(path, "%s/job", trial->dir), 0);
    assert_int_equal(fs_mkdir(path, 0700, NULL), 0);
    assert_int_equal(fs_path(path, "%s/job/mine", trial->dir), 0);
    assert_int_equal(fs_write(path, "x", 1, 0600, NULL), 0);
    assert_int_equal(fs_path(path, "%s/job/.sheaf", trial->dir), 0);
    assert_int_equal(symlink(target, path), 0);
    trial_prepare(trial);
    assert_int_equal(runtime_release(trial->task, NULL, files, NULL), 0);
    trial_wait(trial, &trial->exits);
    assert_string_equal(trial_log(trial, 0, 1), "ours");
    assert_int_equal(trial->exit.code, 0);
    assert_int_not_equal(access(target, F_OK), 0);
}

static void test_torch_reduces_over_gloo_inside(void **state)
{
    (void)state;
    need_trial();
    if (access("/usr/lib/python3/dist-packages/torch", F_OK) != 0) {
        print_message("skipped: python3-torch is not installed\n");
        skip();
    }
    trial_plan(trial, "exec /usr/bin/python3 -c 'import torch, torch.distributed as d\n"
                      "d.init_process_group(\"gloo\")\n"
                      "x = torch.full((8, 8), d.get_rank() + 1.0)\n"
                      "d.all_reduce(x)\n"
                      "print(int((x @ x).sum()))'");
    trial->plan.proc_count = 2;
    trial->plan.filter = true;
    spec_texts_add(&trial->plan.env, "MASTER_ADDR=127.0.0.1");
    spec_texts_addf(&trial->plan.env, "MASTER_PORT=%d", 20000 + (int)getpid() % 10000);
    spec_texts_add(&trial->plan.env, "WORLD_SIZE=2");
    spec_texts_add(&trial->plan.env, "GLOO_SOCKET_IFNAME=lo");
    spec_texts_add(&trial->plan.env, "OMP_NUM_THREADS=1");
    spec_texts_add(&trial->proc[0].env, "RANK=0");
    spec_texts_add(&trial->proc[1].env, "RANK=1");
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    /* (1 + 2) x (1 + 2) x 8, in each of 64 places */
    assert_string_equal(trial_log(trial, 0, 1), "4608\n");
    assert_string_equal(trial_log(trial, 1, 1), "4608\n");
    assert_int_equal(trial->exit.code, 0);
}

static void test_opencl_finds_its_drivers_inside(void **state)
{
    (void)state;
    need_trial();
    if (access("/etc/OpenCL/vendors/pocl.icd", F_OK) != 0) {
        print_message("skipped: pocl-opencl-icd is not installed\n");
        skip();
    }
    /* counts platforms, then builds and releases a kernel: that needs the cache folder */
    const char *text = output_of(
        "/usr/bin/python3 - <<'E'\n"
        "import ctypes as c\n"
        "cl = c.CDLL('libOpenCL.so.1')\n"
        "V = c.c_void_p\n"
        "for f in ('clCreateContext', 'clCreateProgramWithSource'):\n"
        "    getattr(cl, f).restype = V\n"
        "p, d, n, e = V(), V(), c.c_uint(), c.c_int()\n"
        "assert cl.clGetPlatformIDs(1, c.byref(p), c.byref(n)) == 0\n"
        "assert cl.clGetDeviceIDs(p, c.c_ulong(0xFFFFFFFF), 1, c.byref(d), c.byref(n)) == 0\n"
        "x = V(cl.clCreateContext(None, 1, c.byref(d), None, None, c.byref(e)))\n"
        "s = c.c_char_p(b'kernel void f(global int *a) { a[0] = 1; }')\n"
        "g = V(cl.clCreateProgramWithSource(x, 1, c.byref(s), None, c.byref(e)))\n"
        "print(n.value, e.value, cl.clBuildProgram(g, 1, c.byref(d), None, None, None))\n"
        "E\n"
        "ls -d /tmp/.pocl");
    assert_string_equal(text, "1 0 0\n/tmp/.pocl\n");
}

static int setup(void **state)
{
    (void)state;
    trial = trial_new(false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    trial_free(trial);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_secrets_of_the_host_are_not_there),
        cmocka_unit_test(test_root_is_an_allow_list),
        cmocka_unit_test(test_environment_of_the_worker_does_not_leak),
        cmocka_unit_test(test_task_has_no_powers),
        cmocka_unit_test(test_doors_into_the_kernel_are_shut),
        cmocka_unit_test(test_processes_of_the_host_are_not_there),
        cmocka_unit_test(test_devices_of_the_plan_alone_are_there),
        cmocka_unit_test(test_tasks_do_not_see_each_other),
        cmocka_unit_test(test_files_of_the_tenant_cannot_redirect_ours),
        cmocka_unit_test(test_torch_reduces_over_gloo_inside),
        cmocka_unit_test(test_opencl_finds_its_drivers_inside),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
