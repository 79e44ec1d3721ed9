"""Pairs that cannot connect are in no gang. Needs root and TUN: three emulated regions."""
import os
import subprocess
import unittest

from pool import BIN, ROOT, Pool, until

GPU = "cpu:512MB:1"
NAME, PREFIX = "bt", "10.78"
SUPPORT = os.path.join(ROOT, "tests", "support")


@unittest.skipUnless(os.getuid() == 0 and os.path.exists("/dev/net/tun"), "needs root and TUN")
class Reach(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.regions = os.path.join(os.path.dirname(BIN), "tests", "regions")
        subprocess.run([SUPPORT + "/regions-up", NAME, "4", PREFIX], check=True,
                       env=dict(os.environ, REGIONS=cls.regions))
        cls.addClassCleanup(subprocess.run, [SUPPORT + "/regions-down", NAME], check=True)
        subprocess.run([cls.regions, "ctl", f"/tmp/sheaf-regions-{NAME}.sock", "nat", "2", "on"],
                       check=True, stdout=subprocess.DEVNULL)
        cls.pool = Pool(host=f"{PREFIX}.0.1").start()
        cls.addClassCleanup(cls.pool.stop, keep=os.environ.get("SHEAF_KEEP") == "1")
        for number, name in enumerate(("open", "hidden", "wide"), 1):  # hidden is the cheapest
            cls.pool.add_worker(name, price="0.10" if name == "hidden" else "0.40",
                                region=f"r{number}", address=f"{PREFIX}.{number}.1", devices=1,
                                prefix=["ip", "netns", "exec", f"sheaf-{NAME}-{number}"])
        until("all ready", lambda: all(
            cls.pool.node(name)["state"] == "ready" for name in ("open", "hidden", "wide")))
        until("pairs tried both ways", lambda: len(cls.pool.operator.json("net")) == 3, 60)
        cls.tenant = cls.pool.tenant

    def test_a_node_behind_nat_serves_single_node_jobs(self):
        job = self.tenant.submit({"name": "alone", "resources": {"gpu": GPU},
                                  "commands": ["true"]})
        ended = self.tenant.wait(job)
        self.assertEqual((ended["state"], ended["ranks"][0]["node_name"]), ("succeeded", "hidden"))

    def test_a_gang_leaves_it_out_although_it_is_cheaper(self):
        job = self.tenant.submit({"name": "pair", "nodes": 2, "resources": {"gpu": GPU},
                                  "commands": ["true"]})
        ended = self.tenant.wait(job)
        self.assertEqual(ended["state"], "succeeded", ended)
        self.assertEqual(sorted(r["node_name"] for r in ended["ranks"]), ["open", "wide"])

    def test_a_gang_that_needs_it_waits_and_says_which_pair(self):
        job = self.tenant.submit({"name": "three", "nodes": 3, "resources": {"gpu": GPU},
                                  "commands": ["true"]})
        why = until("a verdict on the pairs", lambda: next(
            ((w, r) for w in [self.tenant.json("why", job)] for r in w.get("reject", [])
             if r["code"] == "peers-unreachable"), None))
        pair = {why[1]["node"], why[1]["detail"].rpartition(" ")[2]}
        self.assertIn("hidden", pair)
        self.assertTrue(pair & {"open", "wide"}, why)
        self.assertEqual(self.tenant.job(job)["state"], "queued")
        self.tenant("cancel", job, "--wait")


if __name__ == "__main__":
    unittest.main(verbosity=2)
