"""What a pool keeps and for how long: outputs, logs, inputs, leavings."""
import datetime
import glob
import json
import os
import pty
import re
import shutil
import subprocess
import unittest

from pool import BIN, Pool, until

GPU = "cpu:512MB:1"


class Keeping(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = Pool().start()
        cls.worker = cls.pool.add_worker("w1", extra=("--cache-size", "2MB", "--log-limit",
                                                        "1MiB"))
        cls.pool.until_ready(1)
        cls.tenant = cls.pool.tenant

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")

    def run_job(self, name, *commands, **more):
        job = self.tenant.submit({"name": name, "resources": {"gpu": GPU},
                                  "commands": list(commands), **more})
        return job, self.tenant.wait(job)

    def test_an_output_that_is_lost_is_no_success(self):
        """The gateway cannot store it: the job fails with a reason, and nothing is charged."""
        streams = os.path.join(self.pool.dir, "gateway", "store", "streams")
        self.assertTrue(os.path.isdir(streams), os.listdir(os.path.dirname(streams)))
        shutil.move(streams, streams + ".away")
        with open(streams, "w", encoding="utf-8"):
            pass
        try:
            job, ended = self.run_job("lost", "echo result > /out/result")
        finally:
            os.unlink(streams)
            shutil.move(streams + ".away", streams)
        self.assertEqual((ended["state"], ended["reason"], ended["class"]),
                         ("failed", "output-lost", "provider"), ended)
        self.assertEqual([r["exit_code"] for r in ended["ranks"]], [0])
        cost = self.tenant.json("cost", job)
        self.assertTrue(cost["balanced"], cost)
        self.assertEqual(float(cost["charged"]), 0)
        _, again = self.run_job("found", "echo result > /out/result")
        self.assertEqual(again["state"], "succeeded", again)

    def test_what_no_record_owns_is_swept_at_start(self):
        tasks = os.path.join(self.worker.state, "tasks")
        job = self.tenant.submit({"name": "lives", "resources": {"gpu": GPU},
                                  "commands": ["sleep 300"]})
        self.tenant.until_state(job, "running")
        mine = os.listdir(tasks)
        self.assertEqual(len(mine), 1)
        self.worker.program.kill()
        stray = os.path.join(tasks, "00000000000000000000000000000000-0")
        os.makedirs(os.path.join(stray, "job"))
        shutil.copy(os.path.join(tasks, mine[0], "exit.json")
                    if os.path.exists(os.path.join(tasks, mine[0], "exit.json"))
                    else os.path.join(tasks, mine[0], "release.json"), stray)
        self.worker.start()
        until("the stray folder is gone", lambda: not os.path.exists(stray))
        self.assertEqual(os.listdir(tasks), mine)
        self.assertEqual(self.tenant.job(job)["state"], "running")
        self.tenant("cancel", job, "--wait", "--yes", code=None)
        until("the task's folder is gone", lambda: not os.listdir(tasks))

    def test_w18_log_floods_long_lines_and_control_characters(self):
        job, ended = self.run_job("flood", "seq -f 'line %.0f' 1 60000",
                                  "echo still here >&2")
        self.assertEqual(ended["state"], "succeeded", ended)
        log = self.tenant("logs", job, "--stream", "stdout").out.splitlines()
        kept = [line for line in log if line.startswith("line ")]
        gaps = [int(re.search(r"gap: (\d+) lines", line).group(1)) for line in log
                if line.startswith("[sheaf: gap: ")]
        self.assertLess(len(kept), 40_000)
        self.assertEqual(kept[:20_000], [f"line {n}" for n in range(1, 20_001)])
        self.assertEqual(len(kept) + sum(gaps), 60_000)
        self.assertEqual(self.tenant("logs", job, "--stream", "stderr").out, "still here\n")

        job, ended = self.run_job("long", "head -c 10485760 /dev/zero | tr '\\0' x; echo; echo next")
        self.assertEqual(ended["state"], "succeeded", ended)
        self.assertEqual(self.tenant("logs", job).out,
                         "x" * 16384 + " [sheaf: line cut at 16 KiB]\nnext\n")

        job, ended = self.run_job("large", "for i in $(seq 100); do head -c 15000 /dev/zero |"
                                  " tr '\\0' y; echo; done; echo over >&2")
        self.assertEqual(ended["state"], "succeeded", ended)
        log = self.tenant("logs", job, "--stream", "stdout").out
        self.assertTrue(log.endswith(
            "y\n[sheaf: truncated: the limit of this rank's log is reached]\n"), log[-200:])
        self.assertLess(abs(len(log) - (1 << 20)), 200)

        job, ended = self.run_job("steer", r"printf '\033]0;owned\007 \033[2J ok\n'")
        self.assertEqual(ended["state"], "succeeded", ended)
        self.assertEqual(self.tenant("logs", job).out, "\x1b]0;owned\x07 \x1b[2J ok\n")
        self.assertIn(r"\x1b]0;owned\x07 \x1b[2J ok", self.on_terminal("logs", job))
        self.assertNotIn("\x1b]", self.on_terminal("logs", job))

    def test_an_offer_says_when(self):
        """Now, and while a job runs: at the latest when that one must have ended."""
        words = ("offer", "--gpu", "cpu:512MB:2")
        self.assertRegex(self.tenant(*words).out,
                         r"^1 x cpu:512MB:2\n  now        yes, on w1\n  earliest   now\n"
                         r"  price      0\.8.*/h\n  worst RTT  one node\n")
        job = self.tenant.submit({"name": "holds", "resources": {"gpu": GPU},
                                  "max_duration": "20m", "commands": ["sleep 600"]})
        self.tenant.until_state(job, "running")
        plan = self.tenant(*words, "-o", "json", code=6).json()
        ends = datetime.datetime.fromisoformat(plan["earliest"]["at"])
        left = (ends - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
        self.assertTrue(19 * 60 < left < 40 * 60, left)  # and stopping, and outputs
        self.assertRegex(self.tenant(*words, code=6).out,
                         r"now        no: .*\n  earliest   at the latest at 20\S+\n"
                         r"  price      0\.8.*/h\n  worst RTT  one node\n")
        waits = self.tenant.submit({"name": "waits", "resources": {"gpu": "cpu:512MB:2"},
                                    "commands": ["true"]})
        self.assertRegex(self.tenant(*words, code=6).out, r"\n  earliest   unknown\n"
                         r"  price      unknown\n")
        for one in (waits, job):
            self.tenant("cancel", one, "--wait", code=None)
        until("it fits again", lambda: self.tenant(*words, code=None).code == 0)

    def on_terminal(self, *words):
        """What the command line prints on a terminal."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen([os.path.join(BIN, "sheaf"), *words], stdin=theirs,
                                   stdout=theirs, stderr=subprocess.DEVNULL,
                                   env=self.tenant.env())
        os.close(theirs)
        text = b""
        try:
            while piece := os.read(ours, 65536):
                text += piece
        except OSError:  # its other end is closed
            pass
        os.close(ours)
        self.assertEqual(process.wait(30), 0)
        return text.decode()

    def test_the_cache_of_inputs_is_bound(self):
        for index in range(5):
            source = os.path.join(self.tenant.home, f"src-{index}")
            os.makedirs(source, exist_ok=True)
            with open(os.path.join(source, "data"), "wb") as file:
                file.write(os.urandom(600_000))
            spec = {"version": 1, "name": "input", "resources": {"gpu": GPU},
                    "budget": {"max_total": "1"},
                    "files": [{"source": source, "path": "/job/src"}],
                    "commands": ["wc -c < src/data"]}
            path = os.path.join(self.tenant.home, f"input-{index}.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(spec, file)
            job = self.tenant("apply", "-f", path, "--yes", "--detach", "-o", "json").json()["id"]
            ended = self.tenant.wait(job)
            self.assertEqual(ended["state"], "succeeded", ended)
            kept = glob.glob(os.path.join(self.worker.state, "cache", "*"))
            self.assertEqual(len(kept), min(index + 1, 3), kept)
        cache = json.loads(self.worker.verb("status", "-o", "json"))["cache"]
        self.assertEqual((cache["files"], cache["limit"]), (3, 2_000_000))
        self.assertLess(cache["bytes"], cache["limit"])
        self.assertIn("Cache     1.8 of 2.0 MB, 3 files", self.worker.verb("status"))


class Retention(unittest.TestCase):
    """Ended jobs lose logs and outputs after a while; what is needed stays."""
    KEEP = 6

    @classmethod
    def setUpClass(cls):
        cls.pool = Pool()
        cls.pool.gateway.argv += ["--retention", f"{cls.KEEP}s"]
        cls.pool.start()
        cls.pool.add_worker("w1")
        cls.pool.until_ready(1)
        cls.tenant = cls.pool.tenant

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")

    def apply(self, name, text, *commands):
        """A job with an input of its own, that says text; its id and the input's SHA-256."""
        source = os.path.join(self.tenant.home, name)
        os.makedirs(source)
        with open(os.path.join(source, "text"), "w", encoding="utf-8") as file:
            file.write(text)
        path = os.path.join(self.tenant.home, name + ".json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"version": 1, "name": name, "resources": {"gpu": GPU},
                       "budget": {"max_total": "1"}, "commands": list(commands),
                       "files": [{"source": source, "path": "/job/src"}]}, file)
        job = self.tenant("apply", "-f", path, "--yes", "--detach", "-o", "json").json()["id"]
        return job, self.tenant.job(job)["spec"]["files"][0]["sha256"]

    def is_stored(self, sha256):
        return os.path.exists(os.path.join(self.pool.dir, "gateway", "store", "objects",
                                           sha256[:2], sha256))

    def pieces(self):
        return int(self.pool.sql("SELECT count(*) FROM log_piece"))

    def test_what_is_over_goes_and_what_is_needed_stays(self):
        lives, kept = self.apply("lives", "needed", "echo alive", "sleep 600")
        self.tenant.until_state(lives, "running")
        ends, gone = self.apply("ends", "over", "cat src/text", "echo result > /out/result")
        self.assertEqual(self.tenant.wait(ends)["state"], "succeeded")
        self.assertIn("over", self.tenant("logs", ends).out)
        output = self.pool.sql("SELECT encode(sha256, 'hex') FROM job_output")
        self.assertTrue(self.is_stored(output))
        until("logs, output and input of the ended job are gone", lambda:
              not self.is_stored(output) and not self.is_stored(gone), 60)
        logs = self.tenant("logs", ends)
        self.assertEqual(logs.out, "")
        self.assertIn("the log was deleted, its time is over", logs.err)
        self.assertIn("its time is over", self.tenant("get", ends, code=None).err)
        self.assertTrue(self.is_stored(kept))  # the live job is older, and not over
        self.assertGreater(self.pieces(), 0)
        self.assertEqual(self.tenant.job(ends)["state"], "succeeded")
        self.assertTrue(self.tenant.json("cost", ends)["balanced"])

        # Gone from the store, not from the books: the same input is asked for again.
        again = self.tenant("apply", "-f", os.path.join(self.tenant.home, "ends.json"), "--yes",
                            "--detach", "-o", "json").json()["id"]
        self.tenant("cancel", lives, "--wait", code=None)
        self.assertEqual(self.tenant.wait(again)["state"], "succeeded")
        until("everything is over", lambda: self.pieces() == 0 and not self.is_stored(kept), 60)


if __name__ == "__main__":
    unittest.main(verbosity=2)
