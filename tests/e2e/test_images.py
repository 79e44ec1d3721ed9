"""Jobs that bring their programs as a container image, on a real podman."""
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import unittest

import images
from pool import BIN, Pool, until

GPU = "cpu:512MB:1"


def refusal():
    """Why this machine runs no images, by the worker's own words; None when it does."""
    state = f"/tmp/sheaf-images-{os.getpid()}"
    said = subprocess.run([os.path.join(BIN, "sheaf-worker"), "doctor", "--state", state],
                          capture_output=True, text=True, check=False, timeout=120).stdout
    shutil.rmtree(state, ignore_errors=True)
    line = next(line for line in said.splitlines() if " images " in line)
    return None if " pass " in line else line


REFUSAL = refusal()


def processes(word):
    """Ids of the processes whose command line holds the word."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                if word in file.read():
                    found.append(int(pid))
        except OSError:
            pass  # it ended meanwhile
    return found


def words(text):
    return " ".join(text.split())


class Images(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if REFUSAL:
            print(f"THIS MACHINE RUNS NO IMAGES: {REFUSAL}", file=sys.stderr)
            raise unittest.SkipTest(REFUSAL)
        cls.pool = Pool().start()
        cls.registry = images.Registry(os.path.join(cls.pool.dir, "registry"), cls.pool.ports.take())
        allowed = ("--image-registries", "quay.io," + cls.registry.host)
        cls.workers = [cls.pool.add_worker("w1", images="1GB", extra=allowed, start=False),
                       cls.pool.add_worker("w2", images="5MB", extra=allowed, start=False)]
        for worker in cls.workers:  # what an owner writes for a registry without TLS
            folder = os.path.join(worker.state, "podman")
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "registries.conf"), "w", encoding="utf-8") as file:
                file.write(f"[[registry]]\nlocation = '{cls.registry.host}'\ninsecure = true\n")
            worker.start()
        cls.pool.add_worker("plain")
        cls.pool.until_ready(3)
        cls.tenant = cls.pool.tenant
        cls.app = cls.make("app.tar")

    @classmethod
    def tearDownClass(cls):
        cls.registry.stop()
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")

    @classmethod
    def make(cls, name, **kw):
        images.archive(os.path.join(cls.tenant.home, name), **kw)
        return "./" + name

    def tearDown(self):
        for job in self.tenant.json("ps"):
            self.tenant("cancel", job["id"], "--wait", code=None)
        self.assert_clean()

    def submit(self, image, commands=None, **spec):
        return self.tenant.submit({
            "name": "image", "resources": {"gpu": GPU}, "image": image,
            "retry": {"max_attempts": 1}, **({"commands": commands} if commands else {}), **spec})

    def run_image(self, image, commands=None, **spec):
        job = self.submit(image, commands, **spec)
        return job, self.tenant.wait(job)

    def attempts(self):
        rows = self.pool.sql("SELECT string_agg(replace(uid::text, '-', ''), ' ') FROM attempt")
        return rows.split()

    def assert_clean(self):
        """Nothing of any task is left: processes, mounts, control groups, filters, folders."""
        attempts = self.attempts()

        def left():
            with open("/proc/mounts", encoding="utf-8") as file:
                found = [line for line in file if self.pool.dir in line]
            for attempt in attempts:
                found += [f"process {pid}" for pid in processes(attempt)]
                found += [os.path.join(top, name) for top, names, _ in os.walk("/sys/fs/cgroup")
                          for name in names if attempt in name]
            for worker in self.workers:
                store = os.path.join(worker.state, "podman", "store", "overlay-containers")
                found += [name for name in os.listdir(store) if len(name) == 64]
                found += os.listdir(os.path.join(worker.state, "tasks"))
            tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True,
                                    check=False).stdout
            return found + [table for table in tables.splitlines()
                            if any(attempt in table for attempt in attempts)]
        try:
            until("a clean node", lambda: not left(), 30)
        except AssertionError as error:
            raise AssertionError(f"{error}: {left()}") from error

    def log(self, job):
        return self.tenant("logs", job).out

    def test_a_gang_runs_in_its_image_and_its_outputs_come_back(self):
        job, ended = self.run_image(
            self.app, ["echo rank $RANK of $WORLD_SIZE in $(ls /bin | head -n 1)",
                       "test ! -e /usr/bin/python3", "echo to-stderr >&2",
                       "echo $RANK > /out/rank.txt"], nodes=2)
        self.assertEqual(ended["state"], "succeeded", ended)
        self.assertEqual([r["exit_code"] for r in ended["ranks"]], [0, 0])
        log = self.tenant("logs", job, "--rank", "1").out
        self.assertIn("rank 1 of 2 in ", log)
        self.assertIn("to-stderr", log)
        target = os.path.join(self.tenant.home, "got")
        self.tenant("get", job, target)
        found = []
        for folder, _, files in os.walk(target):
            for name in files:
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    found.append(file.read().strip())
        self.assertEqual(sorted(found), ["0", "1"])

    def test_a_failing_rank_keeps_its_exit_code(self):
        _, ended = self.run_image(self.app, ["if [ $RANK = 1 ]; then exit 7; fi; sleep 600"],
                                  nodes=2)
        self.assertEqual((ended["state"], ended["reason"]), ("failed", "rank-failed"), ended)
        self.assertEqual(ended["ranks"][1]["exit_code"], 7)

    def test_without_commands_the_image_says_what_runs(self):
        image = self.make("entry.tar", config={
            "Entrypoint": ["/bin/sh", "-c", "echo \"$0 in $(pwd)\""], "Cmd": ["it's mine"],
            "WorkingDir": "/srv"})
        job, ended = self.run_image(image)
        self.assertEqual(ended["state"], "succeeded", ended)
        self.assertIn("it's mine in /srv", self.log(job))
        _, ended = self.run_image(self.app)
        self.assertEqual((ended["state"], ended["reason"]), ("failed", "image-unusable"), ended)
        self.assertIn("give the job commands", ended["detail"])

    def test_a_hostile_image_gets_nothing_from_its_description(self):
        image = self.make("hostile.tar", config={
            "Env": ["LD_PRELOAD=/srv/evil.so", "NVIDIA_VISIBLE_DEVICES=all", "RANK=7", "FOO=bar",
                    "HOME=/root", "SHEAF_JOB_ID=mine", "BASH_FUNC_x%%=() { :; }"],
            "Entrypoint": ["/bin/sh", "-c", "echo HOSTILE"], "User": "0:0",
            "Volumes": {"/out": {}, "/etc": {}}}, layers=[images.layer([
                ("job", b"", 0o777, images.tarfile.SYMTYPE, "/etc"),
                ("out", b"", 0o777, images.tarfile.SYMTYPE, "../../../../srv"),
                ("bin/setuid", b"#!/bin/sh\nid\n", 0o4755)])])
        job, ended = self.run_image(image, [
            "id; env; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; ls /dev; ps",
            "for f in /mine /bin/mine /usr/mine /.sheaf/mine; do",
            "  if touch $f 2>/dev/null; then echo WRO''TE $f; fi; done",
            "if mount -t proc proc /tmp 2>/dev/null; then echo MOUN''TED; fi",
            "kill -9 1 || true", "echo kept > /out/kept; echo kept > /job/kept; echo still-here"])
        self.assertEqual(ended["state"], "succeeded", ended)
        log = self.log(job)
        for word in ("HOSTILE", "LD_PRELOAD", "NVIDIA_", "SHEAF_JOB_ID=mine", "BASH_FUNC", "WROTE",
                     "MOUNTED", "uid=0", "HOME=/root", "RANK=7"):
            self.assertNotIn(word, log)
        for word in ("FOO=bar", "RANK=0", "HOME=/job", "still-here", "NoNewPrivs: 1", "Seccomp: 2",
                     "CapEff: 0000000000000000", "CapBnd: 0000000000000000"):
            self.assertIn(word, words(log))
        self.assertRegex(log, r"uid=60[6-9]\d\d")
        listed = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue",
                  "fd", "core", "stdin", "stdout", "stderr", "console"}
        self.assertNotIn("vda", log)
        self.assertNotIn("kmsg", log)
        self.assertTrue(listed & set(log.split()))
        for path in ("/etc/kept", "/srv/kept"):
            self.assertFalse(os.path.exists(path), path)

    def test_memory_beyond_the_limit_ends_the_task(self):
        _, ended = self.run_image(
            self.app, ["awk 'BEGIN { s = \"x\"; while (length(s) < 2e8) s = s s; print length(s) }'"],
            resources={"gpu": GPU, "memory": "64MB", "shm_size": "16MB"})
        self.assertEqual(ended["state"], "failed", ended)
        self.assertIn("memory", ended["detail"])

    def test_cancel_mid_run_ends_what_ignores_sigterm(self):
        job = self.submit(self.app, ["trap '' TERM; sleep 600 & sleep 600"], stop_duration="1s")
        self.tenant.until_state(job, "running")
        self.tenant("cancel", job, "--wait")
        ended = self.tenant.job(job)
        self.assertEqual((ended["state"], ended["reason"]), ("cancelled", "cancelled-by-user"))

    def test_a_killed_worker_finds_its_container_again(self):
        job = self.submit(self.app, ["while [ ! -e /job/go ]; do sleep 0.1; done; echo $RANK done"],
                          nodes=2)
        self.tenant.until_state(job, "running")
        for worker in self.workers:
            worker.program.kill(signal.SIGKILL)
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            for name in os.listdir(os.path.join(worker.state, "tasks")):
                with open(os.path.join(worker.state, "tasks", name, "job", "go"), "wb"):
                    pass
        ended = self.tenant.wait(job)
        self.assertEqual(ended["state"], "succeeded", ended)
        self.assertIn("1 done", self.log(job))
        self.assertEqual(ended["attempts"], 1)

    def test_a_killed_supervisor_leaves_no_container(self):
        for both in (False, True):
            job = self.submit(self.app, ["sleep 600"])
            self.tenant.until_state(job, "running")
            attempt = self.attempts()[-1]
            runs = [os.path.join(worker.state, "tasks", f"{attempt}-0", "run.json")
                    for worker in self.workers]
            with open(next(filter(os.path.exists, runs)), encoding="utf-8") as file:
                doomed = [json.load(file)["pid"]]
            helper = [pid for pid in processes(attempt)
                      if os.readlink(f"/proc/{pid}/exe").endswith("sheaf-container")]
            self.assertEqual(len(helper), 1)
            for pid in doomed + (helper if both else []):
                os.kill(pid, signal.SIGKILL)
            ended = self.tenant.wait(job)
            self.assertEqual(ended["state"], "failed", ended)
            self.assert_clean()

    def test_what_is_no_image_is_refused_with_its_reason(self):
        home = self.tenant.home
        with open(os.path.join(home, "noise.tar"), "wb") as file:
            file.write(os.urandom(100000))
        with open(os.path.join(home, "app.tar"), "rb") as whole, \
                open(os.path.join(home, "cut.tar"), "wb") as file:
            file.write(whole.read()[:100000])
        self.make("arm.tar", architecture="s390x")
        self.make("two.tar", count=2)
        bomb = gzip.compress(bytes(64 << 20), 9)
        self.make("bomb.tar", layers=[bomb] * 40)
        for name, detail in (("noise.tar", "not an"), ("cut.tar", ""),
                             ("arm.tar", "the image is for linux/s390x"),
                             ("two.tar", "2 images"), ("bomb.tar", "unpacks to more than")):
            with self.subTest(name=name):
                _, ended = self.run_image("./" + name, ["true"])
                self.assertEqual((ended["state"], ended["reason"]), ("failed", "image-unusable"),
                                 ended)
                self.assertIn(detail, ended["detail"])
                self.assertEqual(float(ended["charged"]), 0)

    def test_an_image_without_a_shell_fails_as_the_tenants_program(self):
        image = self.make("bare.tar", layers=[images.layer(shell=False)])
        job, ended = self.run_image(image, ["true"])
        self.assertEqual((ended["state"], ended["reason"]), ("failed", "rank-failed"), ended)
        self.assertEqual(ended["ranks"][0]["exit_code"], 127)
        self.assertIn("/bin/sh does not run", self.log(job))

    def test_an_image_is_pulled_by_its_digest(self):
        until("a registry", self.registry.answers)
        image = self.registry.push("team/app")
        job, ended = self.run_image(image, ["echo pulled on $RANK"], nodes=2)
        self.assertEqual(ended["state"], "succeeded", ended)
        self.assertIn("pulled on 1", self.log(job))
        name = image.partition("@")[0]
        _, ended = self.run_image(f"{name}@sha256:{'1' * 64}", ["true"])
        self.assertEqual((ended["state"], ended["reason"]), ("failed", "image-unavailable"), ended)
        self.assertIn("manifest unknown", ended["detail"])

    def test_an_image_of_a_registry_that_nobody_reaches_has_a_reason(self):
        digest = "sha256:" + "0" * 64
        _, ended = self.run_image("127.0.0.1:9/app@" + digest, ["true"])
        self.assertEqual((ended["state"], ended["reason"]), ("failed", "image-unavailable"), ended)
        self.assertIn("pulls from quay.io,", ended["detail"])
        _, ended = self.run_image("quay.io/nobody/app@" + digest, ["true"])
        self.assertEqual((ended["state"], ended["reason"]), ("failed", "image-unavailable"), ended)

    def test_images_that_were_unused_longest_make_room(self):
        def kept():
            return set(os.listdir(os.path.join(self.workers[1].state, "podman", "used")))
        seen = []
        for number in range(3):  # of two megabytes each
            image = self.make(f"room{number}.tar", layers=[
                images.layer([("srv/number", str(number).encode())])])
            job, ended = self.run_image(image, ["cat /srv/number"],
                                        placement={"exclude_nodes": ["w1"]})
            self.assertEqual(ended["state"], "succeeded", ended)
            self.assertIn(str(number), self.log(job))
            seen.append(ended["spec"]["image"]["sha256"])
        self.assertEqual(kept() & set(seen), set(seen[1:]))

    def test_nodes_without_podman_are_passed_over_with_a_reason(self):
        job = self.submit(self.app, ["true"],
                          placement={"exclude_nodes": [w.name for w in self.workers]})
        seen = until("a reason", lambda: self.tenant.job(job)["reason"])
        self.assertEqual(seen, "runtime-missing")
        self.assertEqual(self.pool.node("plain")["runtime"], "bwrap")
        self.assertEqual(self.pool.node("w1")["runtime"], "bwrap+podman")


if __name__ == "__main__":
    unittest.main()
