"""Who may join, what counts, and what the wire shows."""
import os
import shutil
import subprocess
import unittest

from pool import BIN, Pool, Worker, until

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

    def test_a_foreign_key_is_refused_at_zap(self):
        """A key pair that was never enrolled, in a folder that says it was."""
        stranger = Worker(self.pool, "stranger", devices=1)
        refused = stranger.join(self.spent_token(), code=None)
        self.assertNotEqual(refused.returncode, 0)
        self.assertTrue(os.path.exists(os.path.join(stranger.state, "identity")))
        for name in ("node.json", "ca.pem"):
            shutil.copy(os.path.join(self.good.state, name), stranger.state)
        stranger.program.argv += ["--machine-id", f"{self.good.state}.machine-id"]
        before = self.pool.metric("sheaf_zap_refused_total")
        frames = self.pool.metric("sheaf_worker_dropped_total")
        stranger.program.process = subprocess.Popen(
            stranger.program.argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=dict(os.environ, **stranger.env))
        try:
            told = next(line for line in stranger.program.process.stderr if "not-enrolled" in line)
            self.assertIn("sheaf-worker join TOKEN", told)
        finally:
            stranger.program.process.kill()
            stranger.program.process.wait()
            stranger.program.process.stderr.close()
        self.assertGreater(self.pool.metric("sheaf_zap_refused_total"), before)
        self.assertEqual(self.pool.metric("sheaf_worker_dropped_total"), frames)
        self.assertIsNone(self.pool.node("stranger"))
        self.assertEqual(self.pool.node("good")["state"], "ready")

    def spent_token(self):
        if not hasattr(type(self), "spent"):
            type(self).spent = self.pool.join_token()
            Worker(self.pool, "second", devices=1).join(self.spent)
        return self.spent

    def test_a_spent_join_token_is_refused(self):
        again = Worker(self.pool, "third", devices=1).join(self.spent_token(), code=None)
        self.assertNotEqual(again.returncode, 0)
        self.assertIn("the join token is spent or expired", again.stderr)
        self.assertIsNone(self.pool.node("third"))

    def test_a_worker_that_claims_twice_its_memory_stays_claimed(self):
        wrapper = os.path.join(self.pool.dir, "tight-devices")
        with open(wrapper, "w", encoding="utf-8") as file:  # 2 GiB claimed, half of it there
            file.write("#!/bin/sh\n[ \"$1\" = selftest ] && ulimit -v 1200000\n"
                       f"exec {BIN}/sheaf-devices \"$@\"\n")
        os.chmod(wrapper, 0o755)
        liar = Worker(self.pool, "liar", devices=1, price="0.01",
                      env={"SHEAF_DEVICES_PROGRAM": wrapper, "POCL_MEMORY_LIMIT": "2"})
        joined = liar.join(self.pool.join_token(), code=None)
        self.assertEqual(joined.returncode, 5, joined.stderr)
        self.assertIn("self-test", joined.stderr)
        liar.start()  # a new hello: tested again, and failed again
        node = until("the second verdict", lambda: (
            n := self.pool.node("liar"))["reason"] == "selftest-failed" and n)
        self.assertEqual(node["state"], "probing")
        shown = self.pool.operator.json("node", "show", node["id"])
        self.assertEqual([(d["tier"], d["measured_mib"]) for d in shown["devices"]],
                         [("claimed", 0)])
        self.assertEqual([o for o in self.tenant.json("offer") if o["node_name"] == "liar"
                          and o["tier"] != "claimed"], [])
        job = self.tenant.submit({"name": "cheapest", "resources": {"gpu": GPU},
                                  "commands": ["true"]})
        ended = self.tenant.wait(job)
        self.assertEqual((ended["state"], ended["ranks"][0]["node_name"]), ("succeeded", "good"))

    def test_canaries_are_not_on_the_wire(self):
        canary = "CANARY-4f1d9c"
        capture = os.path.join(self.pool.dir, "wire.pcap")
        open_ports = [p for name, p in self.pool.port.items() if name != "metrics"]
        tcpdump = subprocess.Popen(
            ["tcpdump", "-i", "lo", "-s", "0", "-U", "--immediate-mode", "-w", capture,
             " or ".join(f"tcp port {p}" for p in open_ports)], stderr=subprocess.PIPE, text=True)
        try:
            self.assertTrue(any("listening on" in line for line in iter(tcpdump.stderr.readline, "")))
            job = self.tenant.submit({"name": "canary", "resources": {"gpu": GPU},
                                      "env": [f"SECRET_WORD={canary}-env"],
                                      "commands": [f"echo {canary}-log $SECRET_WORD"]})
            self.assertEqual(self.tenant.wait(job)["state"], "succeeded")
            self.assertIn(f"{canary}-log {canary}-env", self.tenant("logs", job).out)
            until("the capture saw the traffic", lambda: os.path.getsize(capture) > 10_000)
        finally:
            tcpdump.terminate()
            tcpdump.wait()
            tcpdump.stderr.close()
        with open(capture, "rb") as file:
            wire = file.read()
        for port in ("control", "bulk", "command", "hints", "https"):
            self.assertTrue(self.pool.port[port].to_bytes(2, "big") in wire, port)
        for needle in (canary, self.tenant.token, "SECRET_WORD"):
            self.assertFalse(needle.encode() in wire, needle)
        for program in (self.pool.orchestrator, self.pool.gateway, self.good.program):
            for needle in (canary, self.tenant.token):
                self.assertFalse(needle in program.log(), (needle, program.name))

    def test_an_idle_worker_is_small(self):
        with open(f"/proc/{self.good.program.process.pid}/status", encoding="utf-8") as file:
            resident = next(int(line.split()[1]) / 1024 for line in file
                            if line.startswith("VmRSS"))
        self.assertLessEqual(resident, 20)

    def test_a_gateway_that_moved_is_found(self):
        """Its bulk socket is at another port; the worker's session stays up all the while."""
        hellos = self.pool.orchestrator.log().count("event=hello")
        self.pool.gateway.stop()
        self.pool.port["bulk"] = self.pool.ports.take()
        self.pool.gateway = self.pool.make_gateway(
            f"tcp://{self.pool.host}:{self.pool.port['bulk']}")
        self.pool.gateway.start("sheaf-gateway ready", 60)
        job = self.tenant.submit({"name": "moved", "resources": {"gpu": GPU},
                                  "commands": ["echo from the new door"]})
        self.assertEqual(self.tenant.wait(job)["state"], "succeeded")
        self.assertIn("from the new door", self.tenant("logs", job).out)
        self.assertEqual(self.pool.orchestrator.log().count("event=hello"), hellos)

    def test_cancelling_what_ended_before_a_restart(self):
        job = self.tenant.submit({"name": "ended", "resources": {"gpu": GPU},
                                  "commands": ["true"]})
        self.tenant.wait(job)
        self.pool.orchestrator.kill()
        self.pool.orchestrator.start("sheaf-orchestrator ready", 60)
        refused = self.tenant("cancel", job, code=5)
        self.assertIn("the job is succeeded (already-terminal)", refused.err)
        self.assertEqual(self.tenant.job(job)["state"], "succeeded")
        nobody = job[:-4] + ("0000" if job[-4:] != "0000" else "0001")
        self.tenant("cancel", nobody, code=3)
        self.pool.until_ready(1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
