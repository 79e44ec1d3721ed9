"""Who may join, what counts, and what the wire shows."""
import os
import resource
import shutil
import subprocess
import unittest

from pool import BIN, Pool, until

GPU = "cpu:512MB:1"


class Border(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = Pool().start()
        cls.good = cls.pool.add_worker("good")
        cls.pool.until_ready(1)
        cls.tenant = cls.pool.tenant

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")

    def metric(self, name):
        page = subprocess.run(["curl", "-s", f"http://127.0.0.1:{self.pool.metrics_port}/metrics"],
                              capture_output=True, text=True, check=True).stdout
        return sum(float(line.split()[-1]) for line in page.splitlines()
                   if line.startswith(name))

    def test_a_foreign_key_is_refused_at_zap(self):
        """A second pool's worker, with a valid identity of that pool, knocks at ours."""
        before = self.metric("sheaf_zap_refused")
        stranger = os.path.join(self.pool.dir, "stranger")
        shutil.copytree(os.path.join(self.pool.dir, "good"), stranger,
                        ignore=shutil.ignore_patterns("lock", "*.sock", "tasks"))
        identity = os.path.join(stranger, "identity")
        with open(identity, encoding="utf-8") as file:
            lines = file.read()
        os.unlink(identity)
        made = subprocess.run([os.path.join(BIN, "sheaf-worker"), "identity", "--state", stranger],
                              capture_output=True, text=True, check=False)
        if made.returncode != 0:
            with open(identity, "w", encoding="utf-8") as file:
                file.write("".join(c if c not in "0123456789" else str((int(c) + 3) % 10)
                                   for c in lines))
            os.chmod(identity, 0o600)
        ports = self.pool.worker_ports[11]
        worker = subprocess.Popen(
            [os.path.join(BIN, "sheaf-worker"), "run", "--state", stranger, "--name", "stranger",
             "--address", "127.0.0.1", "--port-range", f"{ports}-{ports + 8}", "--probe-port",
             str(ports + 9)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=dict(os.environ, POCL_DEVICES="basic", POCL_MEMORY_LIMIT="1"), text=True)
        try:
            until("a refusal at ZAP", lambda: self.metric("sheaf_zap_refused") > before, 30)
            self.assertNotIn("stranger", [n["name"] for n in self.pool.operator.json("node", "ls")])
        finally:
            worker.kill()
            worker.wait()
            worker.stdout.close()

    def test_a_worker_that_claims_twice_its_memory_stays_claimed(self):
        def half():
            limit = 900 << 20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        del half  # the limit is set by a wrapper, so that it is inherited by the probe child alone
        wrapper = os.path.join(self.pool.dir, "tight-devices")
        with open(wrapper, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n[ \"$1\" = selftest ] && ulimit -v 1200000\n"
                       f"exec {BIN}/sheaf-devices \"$@\"\n")
        os.chmod(wrapper, 0o755)
        self.pool.add_worker("liar", devices=1, start=False,
                             env={"SHEAF_DEVICES_PROGRAM": wrapper, "POCL_MEMORY_LIMIT": "2"})
        node = next(n for n in self.pool.operator.json("node", "ls") if n["name"] == "liar")
        shown = self.pool.operator.json("node", "show", node["id"])
        self.assertEqual([d["tier"] for d in shown["devices"]], ["claimed"])
        self.assertNotEqual(shown["state"], "ready")
        measured = [o for o in self.tenant.json("offer") if o["node_name"] == "liar"
                    and o["tier"] != "claimed"]
        self.assertEqual(measured, [])

    def test_canaries_are_not_on_the_wire(self):
        canary = "CANARY-4f1d9c"
        capture = os.path.join(self.pool.dir, "wire.pcap")
        ports = " or ".join(f"port {p}" for p in self.pool.ports.values())
        tcpdump = subprocess.Popen(["tcpdump", "-i", "lo", "-s", "0", "-U", "-w", capture, ports],
                                   stderr=subprocess.PIPE, text=True)
        try:
            for line in tcpdump.stderr:
                if "listening on" in line:
                    break
            job = self.tenant.submit({"name": "canary", "resources": {"gpu": GPU},
                                      "env": [f"SECRET_WORD={canary}-env"],
                                      "commands": [f"echo {canary}-log $SECRET_WORD"]})
            self.assertEqual(self.tenant.wait(job)["state"], "succeeded")
            self.assertIn(canary + "-log", self.tenant("logs", job).out)
        finally:
            tcpdump.terminate()
            tcpdump.wait()
            tcpdump.stderr.close()
        with open(capture, "rb") as file:
            wire = file.read()
        self.assertGreater(len(wire), 10_000, "the capture saw the traffic")
        for needle in (canary, self.tenant.token, "SECRET_WORD"):
            self.assertNotIn(needle.encode(), wire)
        for program in (self.pool.orchestrator, self.pool.gateway, self.good.program):
            self.assertNotIn(self.tenant.token, program.log())

    def test_idle_programs_are_small(self):
        def resident_mib(pid):
            with open(f"/proc/{pid}/status", encoding="utf-8") as file:
                return next(int(line.split()[1]) / 1024 for line in file
                            if line.startswith("VmRSS"))
        self.assertLessEqual(resident_mib(self.good.program.process.pid), 20)

    def test_a_spent_join_token_is_refused(self):
        token = self.pool.operator.json("token", "join", "--provider", "p-eu")["token"]
        worker = self.pool.add_worker("second", start=False)
        shutil.rmtree(worker.state)
        worker.join(token)
        again = type(worker)(self.pool, "third", 10, "0.1", "eu", [], 1, [], {})
        self.assertNotEqual(again.join(token, code=None).returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
