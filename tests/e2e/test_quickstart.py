"""The quickstart as a new user runs it: its facts, its second run, and that nothing stays behind.

Root alone can emulate the regions, and the ports are fixed: one at a time on a machine.
"""
import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest

from pool import ROOT, until

QUICKSTART = os.path.join(ROOT, "deploy", "quickstart")
BIN = os.path.join(ROOT, "build", "release", "bin")
FIRST_S, SECOND_S = 420, 30  # the first may compile and prove twelve devices on a busy machine


def processes_of(folder):
    """Processes that name the folder or run a program of this build."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
            program = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue
        if folder in line or program.startswith(BIN + "/"):
            found.append(f"{pid} {line}")
    return found


@unittest.skipUnless(os.geteuid() == 0, "needs root for the emulated regions")
class Quickstart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if os.path.exists("/tmp/sheaf-regions-qs.owner"):
            raise unittest.SkipTest("a quickstart runs on this machine")
        cls.dir = tempfile.mkdtemp(prefix="sheaf-qs-", dir="/var/lib")
        cls.env = dict(os.environ, SHEAF_QUICKSTART_DIR=cls.dir)

    @classmethod
    def tearDownClass(cls):
        cls.quickstart("wipe", 120)
        shutil.rmtree(cls.dir, ignore_errors=True)

    @classmethod
    def quickstart(cls, word, seconds):
        with subprocess.Popen([QUICKSTART, word], env=cls.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True) as process:
            try:
                out, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.terminate()
                out, _ = process.communicate(timeout=30)
                raise AssertionError(f"quickstart {word}: not within {seconds} s\n{out}") from None
        if process.returncode != 0:
            raise AssertionError(f"quickstart {word}: exit {process.returncode}\n{out}")
        return out

    def sheaf(self, *words):
        return subprocess.run(["bash", "-c", '. "$0/env" && sheaf "$@"', self.dir, *words],
                              check=True, capture_output=True, text=True, timeout=60).stdout

    def assert_facts(self, out):
        facts = out.split("Facts\n", 1)[1].strip().splitlines()
        form = [
            r"placed: fjord-[12] \(eu-north\), fjord-[12] \(eu-north\), worst link \d+\.\d ms",
            r"exit codes: 0 0",
            r"ranks: 4 of 4 wrote results, weights equal",
            r"loss: \d+\.\d+ -> \d+\.\d+",
            r"charge = earnings \+ fee: [\d.]+ = [\d.]+ \+ [\d.]+; "
            r"held [\d.]+ = charge \+ refund [\d.]+",
            r"ledger sum 0",
        ]
        self.assertEqual(len(facts), len(form), facts)
        for fact, pattern in zip(facts, form):
            self.assertRegex(fact, "^" + pattern + "$")
        first, last = map(float, re.findall(r"\d+\.\d+", facts[3]))
        self.assertLess(last, first)

    def test_it_runs_runs_again_and_ends(self):
        out = self.quickstart("up", FIRST_S)
        self.assertIn("6 of 6 workers ready", out)
        self.assertIn("15 of 15 links between the workers measured", out)
        why = out.split("Why there", 1)[1].split("The bill", 1)[0]
        self.assertNotIn("unmeasured", why)
        self.assert_facts(out)

        began = time.monotonic()
        out = self.quickstart("up", FIRST_S)
        took = time.monotonic() - began
        self.assertIn("6 of 6 workers run already", out)
        self.assert_facts(out)
        self.assertLessEqual(took, SECOND_S)

        # A job that lives is cancelled; its supervisors do not outlive the pool.
        self.sheaf("run", "--gpu", "cpu:512MB:1", "--max-price", "1", "--name", "endless", "--yes",
                   "--detach", "--", "sleep", "600")
        until("the job runs", lambda: "running" in self.sheaf("ps"), 60)
        out = self.quickstart("down", 120)
        self.assertIn("cancelling job", out)
        self.assertEqual(processes_of(self.dir), [])
        spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True,
                                check=True).stdout
        self.assertNotIn("sheaf-qs-", spaces)


if __name__ == "__main__":
    unittest.main(verbosity=2)
