"""What owners and operators do to nodes that work, and nodes that are lost."""
import os
import unittest

from pool import Pool, until

GPU = "cpu:512MB:1"
TWO_TRIES = "if [ $SHEAF_ATTEMPT = 0 ]; then sleep 600; fi; sleep 1; echo the second try"


class Owner(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = Pool(["--heartbeat", "500ms", "--lost-after", "6s"]).start()
        cls.near = cls.pool.add_worker("near", price="0.30", extra=["--notice", "1s"])
        cls.far = cls.pool.add_worker("far", price="0.60", extra=["--notice", "1s"])
        cls.pool.until_ready(2)
        cls.tenant = cls.pool.tenant

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")

    def tearDown(self):
        for job in self.tenant.json("ps"):
            self.tenant("cancel", job["id"], "--wait", code=None)

    def on_near(self, name, commands, **spec):
        job = self.tenant.submit({"name": name, "resources": {"gpu": GPU}, "commands": commands,
                                  **spec})
        running = self.tenant.until_state(job, "running")
        self.assertEqual([r["node_name"] for r in running["ranks"]], ["near"])
        return job

    def moves(self, job):
        """The states it went through, each with the reason."""
        events = [e for e in self.tenant.json("events", job) if e["to"] != e["from"]]
        self.assertEqual([e["id"] for e in events], sorted(e["id"] for e in events))
        for before, after in zip(events, events[1:]):
            self.assertEqual(before["to"], after["from"])
        return [(e["to"], e["reason"]) for e in events]

    def assert_books_balance(self, job):
        cost = self.tenant.json("cost", job)
        self.assertTrue(cost["balanced"], cost)
        self.assertEqual(float(cost["held"]), 0)
        self.assertEqual(self.pool.ledger_sum(), "0")
        return cost

    def test_a_pause_gives_notice_and_the_job_waits_for_the_owner(self):
        job = self.on_near("paused", [TWO_TRIES], placement={"exclude_nodes": ["far"]})
        self.assertIn("after the notice", self.near.verb("pause"))
        waiting = self.tenant.until_state(job, "queued")
        self.assertEqual(self.pool.node("near")["conditions"], ["paused"])
        self.assertIn(("recovering", "owner-reclaimed"), self.moves(job))
        self.assertEqual(waiting["attempts"], 1)
        self.assertIn("new work", self.near.verb("resume"))
        ended = self.tenant.wait(job)
        self.assertEqual((ended["state"], ended["attempts"]), ("succeeded", 2))
        self.assertEqual(self.pool.node("near")["conditions"], [])
        first = self.assert_books_balance(job)["lines"][0]
        self.assertGreater(float(first["charge"]), 0)  # an interruption pays what was used

    def test_a_resume_within_the_notice_takes_it_back(self):
        job = self.on_near("spared", ["sleep 3; echo whole"])
        self.near.verb("pause")
        self.near.verb("resume")
        ended = self.tenant.wait(job)
        self.assertEqual((ended["state"], ended["attempts"]), ("succeeded", 1))

    def test_a_drained_node_ends_its_work_and_takes_no_more(self):
        job = self.on_near("last", ["sleep 3; echo done"])
        self.pool.operator("node", "drain", "near")
        self.assertEqual(self.pool.node("near")["state"], "draining")
        other = self.tenant.submit({"name": "elsewhere", "resources": {"gpu": GPU},
                                    "commands": ["true"]})
        self.assertEqual(self.tenant.wait(other)["ranks"][0]["node_name"], "far")
        ended = self.tenant.wait(job)
        self.assertEqual((ended["state"], ended["attempts"]), ("succeeded", 1))
        until("drained", lambda: self.pool.node("near")["state"] == "drained")
        self.pool.operator("node", "undrain", "near")
        until("ready again", lambda: self.pool.node("near")["state"] == "ready")
        self.on_near("again", ["sleep 600"])

    def test_the_work_of_a_lost_node_runs_elsewhere(self):
        job = self.on_near("lost", [TWO_TRIES])
        before = self.tenant.json("account")
        self.near.lose()
        try:
            degraded = until("degraded", lambda: (
                j := self.tenant.job(job))["conditions"] == ["degraded"] and j)
            self.assertEqual(degraded["state"], "running")  # unknown is not dead
            ended = self.tenant.wait(job)
        finally:
            self.near.start()
        self.assertEqual((ended["state"], ended["attempts"]), ("succeeded", 2))
        self.assertEqual(ended["ranks"][0]["node_name"], "far")
        moves = self.moves(job)
        states = [state for state, _ in moves]
        self.assertEqual(states[:4], ["queued", "preparing", "starting", "running"])
        self.assertEqual(moves[4], ("recovering", "node-lost"))
        self.assertEqual(states[-5:], ["preparing", "starting", "running", "stopping", "succeeded"])
        cost = self.assert_books_balance(job)
        charges = [float(line["charge"]) for line in cost["lines"]]
        self.assertEqual(charges[0], 0)  # without a verified checkpoint a lost node earns nothing
        self.assertGreater(charges[1], 0)
        self.assertEqual(float(cost["hold"]), float(cost["charged"]) + float(cost["refunded"]))
        self.assertEqual(self.tenant("logs", job).out.count("the second try"), 1)
        self.assertNotEqual(self.tenant.json("account"), before)  # the hold came back
        until("back and ready", lambda: (n := self.pool.node("near"))["state"] == "ready"
              and not n["conditions"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
