"""Jobs from submit to the bill on a real pool."""
import json
import os
import signal
import time
import unittest

from pool import Pool, until

GPU = "cpu:512MB:1"


class Jobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = Pool().start()
        for index in range(3):
            cls.pool.add_worker(f"w{index + 1}", price=f"0.{4 + index}0")
        cls.pool.until_ready(3)
        cls.tenant = cls.pool.tenant

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")

    def tearDown(self):
        for job in self.tenant.json("ps"):
            self.tenant("cancel", job["id"], "--wait", code=None)

    def assert_books_balance(self, job):
        cost = self.tenant.json("cost", job)
        self.assertTrue(cost["balanced"], cost)
        micro = {k: round(float(cost[k]) * 1e6) for k in
                 ("hold", "held", "charged", "earned", "fee", "refunded")}
        self.assertEqual(micro["charged"], micro["earned"] + micro["fee"])
        self.assertEqual(micro["hold"], micro["charged"] + micro["refunded"] + micro["held"])
        self.assertEqual(self.pool.ledger_sum(), "0")
        return cost

    def test_a_gang_runs_and_its_outputs_come_back(self):
        job = self.tenant.submit({
            "name": "gang", "nodes": 2, "resources": {"gpu": GPU},
            "commands": ["echo rank $RANK of $WORLD_SIZE at $MASTER_ADDR:$MASTER_PORT",
                         "echo to-stderr >&2", "sleep 1.2", "echo $RANK > /out/rank.txt"]})
        ended = self.tenant.wait(job)
        self.assertEqual(ended["state"], "succeeded", ended)
        self.assertEqual([r["exit_code"] for r in ended["ranks"]], [0, 0])
        log = self.tenant("logs", job, "--rank", "1").out
        self.assertRegex(log, r"rank 1 of 2 at 127\.0\.0\.1:\d+")
        self.assertIn("to-stderr", log)
        target = os.path.join(self.tenant.home, "got")
        self.tenant("get", job, target)
        for rank in range(2):
            path = os.path.join(target, f"rank-{rank}")
            found = [os.path.join(d, f) for d, _, files in os.walk(path) for f in files
                     if f == "rank.txt"]
            with open(found[0], encoding="utf-8") as file:
                self.assertEqual(file.read().strip(), str(rank))
        cost = self.assert_books_balance(job)
        self.assertGreater(float(cost["charged"]), 0)
        self.assertEqual(float(cost["held"]), 0)

    def test_cancel_mid_run(self):
        job = self.tenant.submit({"name": "long", "resources": {"gpu": GPU},
                                  "commands": ["sleep 600"]})
        self.tenant.until_state(job, "running")
        began = time.monotonic()
        self.tenant("cancel", job, "--wait")
        self.assertLess(time.monotonic() - began, 15)
        ended = self.tenant.job(job)
        self.assertEqual((ended["state"], ended["reason"]), ("cancelled", "cancelled-by-user"))
        self.assert_books_balance(job)

    def test_a_failing_rank_stops_the_others_within_5_s(self):
        job = self.tenant.submit({
            "name": "fail", "nodes": 3, "resources": {"gpu": GPU},
            "commands": ["if [ $RANK = 1 ]; then sleep 1; echo broken; exit 7; fi; sleep 600"]})
        self.tenant.until_state(job, "running")
        self.tenant.wait(job)
        ended = self.tenant.job(job)
        self.assertEqual((ended["state"], ended["reason"]), ("failed", "rank-failed"))
        self.assertEqual(ended["exit_code"], 7)
        ranks = {r["rank"]: r for r in ended["ranks"]}
        self.assertEqual(ranks[1]["exit_code"], 7)
        self.assertEqual(ranks[0]["reason"], "gang-stopped")
        spread = self.pool.sql(
            "SELECT max(l.meter_to_us) - min(l.meter_to_us) FROM lease l JOIN attempt a"
            f" ON a.id = l.attempt JOIN job j ON j.id = a.job WHERE j.uid = '{job}'")
        self.assertLess(int(spread), 5_000_000)
        self.assertEqual(self.tenant("wait", job, code=None).code, 7)
        self.assert_books_balance(job)

    def test_too_little_money_is_402_and_holds_nothing(self):
        before = self.tenant.json("account")
        result = self.tenant("apply", "-f", "-", "--yes", "--detach", code=7, stdin=json.dumps(
            {"version": 1, "resources": {"gpu": GPU}, "commands": ["true"],
             "budget": {"max_total": "100000"}}))
        self.assertIn("insufficient-funds", result.err)
        self.assertEqual(self.tenant.json("account"), before)

    def test_a_job_file_error_names_field_and_line(self):
        path = os.path.join(self.tenant.home, "bad.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("version: 1\nresources: {gpu: '24GB'}\non_node_lost: x\ncommands: ['true']\n")
        result = self.tenant("plan", "-f", path, code=2)
        self.assertIn("unknown-field", result.err)
        self.assertIn("bad.yaml:3", result.err)

    def test_a_second_job_waits_with_a_reason_and_starts_when_the_first_ends(self):
        spec = {"nodes": 3, "resources": {"gpu": "cpu:512MB:2"}}
        first = self.tenant.submit({**spec, "name": "first", "commands": ["sleep 600"]})
        self.tenant.until_state(first, "running")
        second = self.tenant.submit({**spec, "name": "second", "commands": ["true"]})
        waiting = until("a reason", lambda: (j := self.tenant.job(second))["reason"] and j)
        self.assertEqual((waiting["state"], waiting["reason"]), ("queued", "not-now"))
        self.assertIn("funnel", self.tenant.json("why", second))
        self.tenant("cancel", first, "--wait")
        ended = self.tenant.wait(second)
        self.assertEqual(ended["state"], "succeeded")

    def test_a_restarted_worker_finds_its_task_running(self):
        job = self.tenant.submit({
            "name": "survivor", "resources": {"gpu": GPU}, "placement":
            {"exclude_nodes": ["w2", "w3"]},
            "commands": ["for i in 1 2 3 4 5 6 7 8; do echo tick $i; sleep 0.5; done"]})
        self.tenant.until_state(job, "running")
        worker = self.pool.workers[0]
        worker.program.kill(signal.SIGKILL)
        worker.start()
        ended = self.tenant.wait(job)
        self.assertEqual((ended["state"], ended["attempts"]), ("succeeded", 1))
        log = self.tenant("logs", job).out
        self.assertEqual([line for line in log.splitlines() if "tick" in line],
                         [f"tick {i}" for i in range(1, 9)])
        self.assert_books_balance(job)

    def test_what_writes_nothing_sends_nothing_and_its_follower_ends(self):
        def pieces():
            return self.pool.sql("SELECT count(*) FILTER (WHERE stream = 1),"
                                 " count(*) FILTER (WHERE stream = 2) FROM log_piece").split("|")
        before = pieces()
        job = self.tenant.submit({"name": "silent", "resources": {"gpu": GPU},
                                  "commands": ["true"]})
        self.assertEqual(self.tenant("logs", job, "--follow").out, "")
        self.assertEqual(self.tenant.wait(job)["state"], "succeeded")
        self.assertEqual(pieces(), before)
        job = self.tenant.submit({"name": "half", "resources": {"gpu": GPU},
                                  "commands": ["echo heard"]})
        self.assertEqual(self.tenant("logs", job, "--follow").out, "heard\n")
        self.assertGreater(int(pieces()[0]), int(before[0]))
        self.assertEqual(pieces()[1], before[1])

    def test_a_restarted_orchestrator_loses_nothing_and_runs_nothing_twice(self):
        marker = "once"
        job = self.tenant.submit({
            "name": "through", "nodes": 2, "resources": {"gpu": GPU},
            "commands": [f"echo {marker}", "sleep 4", "echo end > /out/end"]})
        self.tenant.until_state(job, "running")
        queued = self.tenant.submit({"name": "later", "nodes": 3, "resources":
                                     {"gpu": "cpu:512MB:2"}, "commands": ["echo later"]})
        self.pool.orchestrator.kill(signal.SIGKILL)
        self.pool.orchestrator.start("sheaf-orchestrator ready", 60)
        ended = self.tenant.wait(job)
        self.assertEqual((ended["state"], ended["attempts"]), ("succeeded", 1))
        self.assertEqual(self.tenant("logs", job, "--rank", "0").out.count(marker), 1)
        later = self.tenant.wait(queued)
        self.assertEqual((later["state"], later["attempts"]), ("succeeded", 1))
        self.assert_books_balance(job)

    def test_another_tenants_job_is_404(self):
        job = self.tenant.submit({"name": "mine", "resources": {"gpu": GPU},
                                  "commands": ["true"]})
        if not getattr(self, "other", None):
            self.pool.operator("admin", "project", "create", "rival", code=None)
            type(self).other = self.pool.make_tenant("rival")
        for words in (("show", job), ("cancel", job), ("why", job), ("cost", job),
                      ("logs", job), ("get", job), ("events", job)):
            self.assertIn("not-found", self.other(*words, code=3).err)
        self.tenant.wait(job)

    def test_the_same_key_submits_once(self):
        spec = json.dumps({"version": 1, "name": "keyed", "resources": {"gpu": GPU},
                           "commands": ["true"], "budget": {"max_total": "1"}})
        words = ("apply", "-f", "-", "--yes", "--detach", "-o", "json", "--request-id", "k-1")
        first = self.tenant(*words, stdin=spec).json()
        again = self.tenant(*words, stdin=spec).json()
        self.assertEqual(first["id"], again["id"])
        other = self.tenant(*words, stdin=spec.replace("true", "false"), code=2)
        self.assertIn("idempotency-key-reused", other.err)
        self.tenant.wait(first["id"])

    def test_files_travel_by_hash(self):
        source = os.path.join(self.tenant.home, "src")
        os.makedirs(os.path.join(source, "deep"), exist_ok=True)
        with open(os.path.join(source, "deep", "data.txt"), "w", encoding="utf-8") as file:
            file.write("carried\n")
        path = os.path.join(self.tenant.home, "files.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("version: 1\nname: files\nresources: {gpu: 'cpu:512MB:1'}\n"
                       "budget: {max_total: '1'}\nfiles: [{source: ./src, path: /job/src}]\n"
                       "commands: ['cat /job/src/deep/data.txt']\n")
        job = self.tenant("apply", "-f", path, "--yes", "--detach", "-o", "json").json()["id"]
        self.assertEqual(self.tenant.wait(job)["state"], "succeeded")
        self.assertIn("carried", self.tenant("logs", job).out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
