"""Bad job files at the door of a real pool: the same refusal by the command line and by the API, and
nothing changed."""
import json
import os
import ssl
import unittest
import urllib.error
import urllib.request
import uuid

from pool import Pool, until

GPU = "cpu:512MB:1"
GOOD = {"version": 1, "resources": {"gpu": GPU}, "commands": ["true"],
        "budget": {"max_total": "1"}}
HEAD = "version: 1\nresources: {gpu: 'cpu:512MB:1'}\ncommands: ['true']\n"

# Fields set in a good job; code; pointer of the API; what the file says, and its line:column.
BAD = [
    ({"version": 99}, "unsupported-version", "/version", None, None),
    ({"nodes": -1}, "out-of-range", "/nodes", "nodes: -1", "4:1"),
    ({"nodes": 2 ** 31}, "out-of-range", "/nodes", "nodes: 2147483648", "4:1"),
    ({"nodes": "012"}, "ambiguous-scalar", "/nodes", "nodes: 012", "4:1"),
    ({"max_duration": "2 h"}, "invalid-quantity", "/max_duration", "max_duration: 2 h", "4:1"),
    ({"network": {"max_rtt": "0ms"}}, "contradictory-constraints", "/network/max_rtt",
     "network:\n  max_rtt: 0ms", "5:3"),
    ({"image": "a:latest"}, "image-digest-required", "/image", "image: a:latest", "4:1"),
    ({"image": "a@sha256:0"}, "invalid-digest", "/image", "image: a@sha256:0", "4:1"),
    ({"netwrok": {}}, "unknown-field", "/netwrok", "netwrok: {}", "4:1"),
    ({"commands": [" "]}, "invalid-command", "/commands/0", None, None),
    ({"env": {"A": "1", "LD_PRELOAD": "x"}}, "env-not-allowed", "/env/LD_PRELOAD",
     "env: {A: 1, LD_PRELOAD: x}", "4:13"),
    ({"outputs": ["/"]}, "mount-not-allowed", "/outputs/0", "outputs: [/]", "4:11"),
    ({"privileged": True}, "privilege-not-allowed", "/privileged", "privileged: true", "4:1"),
    ({"env": {"K": "-----BEGIN PRIVATE KEY-----"}}, "inline-secret", "/env/K",
     "env: {K: '-----BEGIN PRIVATE KEY-----'}", "4:7"),
]


class JobFileDoor(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = Pool().start()
        cls.pool.add_worker("w1")
        cls.pool.until_ready(1)
        cls.tenant = cls.pool.tenant
        cls.tls = ssl.create_default_context(cafile=cls.pool.ca)

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")

    def setUp(self):
        self.before = self.counts()

    def tearDown(self):
        for job in self.tenant.json("ps"):
            self.tenant("cancel", job["id"], "--wait", code=None)

    def counts(self):
        return self.pool.sql("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM transfer)")

    def post(self, path, body):
        """Status and JSON of the answer; body is sent as it is when it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.pool.url + path, data, {
            "Authorization": "Bearer " + self.tenant.token, "Content-Type": "application/json",
            "Idempotency-Key": uuid.uuid4().hex})
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.tls) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal)

    def explanation(self, reference):
        with urllib.request.urlopen(self.pool.url + reference, timeout=60,
                                    context=self.tls) as answer:
            return answer.read().decode()

    def assert_refused(self, body, code, pointer, status=422):
        for path in ("/api/v1/plans", "/api/v1/jobs"):
            got, problem = self.post(path, body)
            self.assertEqual((got, problem.get("code")), (status, code), (path, body, problem))
            self.assertEqual(problem["errors"][0]["pointer"], pointer, problem)
            self.assertEqual(problem["type"], "/errors/" + code)
        self.assertEqual(self.counts(), self.before)

    def assert_file_refused(self, text, code, at):
        path = os.path.join(self.tenant.home, "bad.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        for verb in (["plan"], ["apply", "--yes", "--detach"]):
            refused = self.tenant(*verb, "-f", "bad.yaml", code=2)
            self.assertIn(f"({code})", refused.err)
            self.assertIn(f"bad.yaml:{at}: ", refused.err)
            self.assertEqual(refused.out, "")
        self.assertEqual(self.counts(), self.before)
        return refused.err

    def test_a_bad_job_file_is_refused_alike_by_file_and_by_api(self):
        for fields, code, pointer, line, at in BAD:
            with self.subTest(code=code, fields=fields):
                self.assert_refused({**GOOD, **fields}, code, pointer)
                self.assertIn("Next step: ", self.explanation("/errors/" + code))
                if line:
                    self.assert_file_refused(HEAD + line + "\n", code, at)

    def test_what_no_parser_takes_is_refused_with_its_place(self):
        self.assertIn("bad.yaml:5:1", self.assert_file_refused(
            HEAD + "network:\n\tmax_rtt: 3ms\n", "yaml-syntax", "5:1"))
        self.assert_file_refused("a: &a [b]\nc: *a\n", "yaml-feature-refused", "1:4")
        self.assert_file_refused("[" * 60000, "nesting-too-deep", "1:17")
        status, problem = self.post("/api/v1/plans", b"[" * 200000)
        self.assertEqual(problem["code"], "nesting-too-deep", (status, problem))

    def test_m11_what_no_hardware_could_run_is_told_from_what_is_busy(self):
        status, plan = self.post("/api/v1/plans", {
            **GOOD, "resources": {"gpu": "cpu:512GB:1"}})
        self.assertEqual((status, plan["why"]["code"]), (200, "no-such-capacity"), plan)
        self.assertIn("0 with the memory", plan["why"]["detail"])
        self.assertIn("resources.gpu.memory", [r["field"] for r in plan["why"]["relax"]])
        whole = {**GOOD, "resources": {"gpu": "cpu:512MB:2"}}
        first = self.tenant.submit({**whole, "commands": ["sleep 600"]})
        self.tenant.until_state(first, "running")
        status, plan = self.post("/api/v1/plans", whole)
        self.assertEqual((status, plan["why"]["code"]), (200, "not-now"), plan)
        self.assertIn("wait", [r["field"] for r in plan["why"]["relax"]])

    def test_fail_fast_refuses_what_would_wait(self):
        huge = {**GOOD, "resources": {"gpu": "cpu:512GB:1"}}
        status, problem = self.post("/api/v1/jobs", {**huge, "fail_fast": True})
        self.assertEqual((status, problem["code"]), (409, "no-such-capacity"), problem)
        self.assertIn("0 with the memory", problem["detail"])
        model = {**GOOD, "resources": {"gpu": "H1OO:80GB:1"}, "fail_fast": True}
        status, problem = self.post("/api/v1/jobs", model)
        self.assertEqual((status, problem["code"]), (409, "no-such-capacity"), problem)
        self.assertIn("no GPU here is called h1oo", problem["detail"])
        for flags, text in ((["--fail-fast"], huge), ([], {**huge, "fail_fast": True})):
            refused = self.tenant("apply", "-f", "-", "--yes", "--detach", *flags, code=6,
                                  stdin=json.dumps(text))
            self.assertIn("no-such-capacity", refused.err)
        self.assertEqual(self.counts(), self.before)
        # Without it the same job waits, and says why.
        job = self.tenant.submit(huge)
        waiting = until("a reason", lambda: (j := self.tenant.job(job))["reason"] and j)
        self.assertEqual((waiting["state"], waiting["reason"]), ("queued", "no-such-capacity"))
        # With it a job that fits runs.
        job = self.tenant.submit({**GOOD, "fail_fast": True})
        self.assertEqual(self.tenant.wait(job)["state"], "succeeded")

    def test_m18_amounts_are_exact_decimals_of_the_pools_money(self):
        for amount in (0.1, 1.0, -1, "-1", "1e3", "0.0000001", "1234567890123456789", 10 ** 18,
                       "1,5", "", "1.", "$2", "0", 0):
            with self.subTest(amount=amount):
                code = "ambiguous-scalar" if amount in ("1e3", "1.") else "invalid-amount"
                self.assert_refused({**GOOD, "budget": {"max_total": amount}}, code,
                                    "/budget/max_total")
        self.assert_refused({**GOOD, "budget": {"max_total": True}}, "invalid-type",
                            "/budget/max_total")
        self.assert_refused({**GOOD, "budget": {"max_total": "1", "currency": "EUR"}},
                            "invalid-amount", "/budget/currency")
        self.assert_refused({**GOOD, "budget": {"max_total": "1", "currency": "euros"}},
                            "invalid-name", "/budget/currency")
        self.assert_file_refused(HEAD + "budget: {max_price: -0.1}\n", "invalid-amount", "4:10")
        # A decimal without quotes is exact in the file: it never was a float.
        status, plan = self.post("/api/v1/plans", {**GOOD, "budget": {"max_total": "0.1"}})
        self.assertEqual((status, plan["hold"]), (200, "0.10"), plan)
        plan = self.tenant.json("plan", "-f", "-", stdin=HEAD + "budget: {max_total: 0.1}\n")
        self.assertEqual(plan["hold"], "0.10", plan)


if __name__ == "__main__":
    unittest.main()
