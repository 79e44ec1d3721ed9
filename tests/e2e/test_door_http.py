"""The gateway's border: each row G1 to G37 of the catalogue of bad input on a real pool, over raw
TLS sockets. Asserted each time: status, problem type, whether the connection stays, and that no
row of the database came or went."""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import unittest
import uuid

from pool import BIN, Pool, Program, until
from wire import Wire, request

TABLES = ("job", "project", "provider", "app_user", "token", "join_token", "transfer", "idem")
PGBIN = "/usr/lib/postgresql/15/bin"
SPEC = {"version": 1, "name": "door", "resources": {"gpu": "cpu:512MB:1"}, "commands": ["true"],
        "budget": {"max_total": "0.01"}, "max_duration": "1m"}
GET = "GET /healthz HTTP/1.1\r\nHost: door\r\n"
POST = "POST /api/v1/projects HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\n"
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"


def deep(levels):
    return '{"name":' + "[" * levels + "]" * levels + "}"


class Row:
    """One bad request and its answer by contract."""

    def __init__(self, raw, status, slug, closes=False, says=""):
        self.raw = raw if isinstance(raw, bytes) else raw.encode("latin-1")
        self.status, self.slug, self.closes, self.says = status, slug, closes, says


class Door(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = pool = Pool()
        cls.addClassCleanup(pool.stop, keep=os.environ.get("SHEAF_KEEP") == "1")
        pool.start()
        cls.tenant = pool.tenant
        cls.ended = cls.tenant.submit({**SPEC, "name": "ended"})
        cls.tenant("cancel", cls.ended)
        cls.waiting = cls.tenant.submit({**SPEC, "name": "waiting"})
        pool.operator("admin", "project", "create", "poor")
        cls.poor = pool.make_tenant("poor")
        pool.operator("admin", "project", "create", "other")
        pool.operator("admin", "deposit", "other", "10")
        cls.other = pool.make_tenant("other")
        cls.foreign = cls.other.submit({**SPEC, "name": "foreign"})
        # Of the same pool, with bounds that a test reaches, and plain for cheap connections.
        cls.plain_url = f"http://127.0.0.1:{pool.ports.take()}"
        cls.tight_url = f"http://127.0.0.1:{pool.ports.take()}"
        cls.plain = cls.gateway("plain", cls.plain_url, "--rate-per-address", "0",
                                "--rate-per-token", "0", "--log-level", "debug")
        cls.tight = cls.gateway("tight", cls.tight_url, "--max-connections", "16",
                                "--max-per-address", "12", "--rate-per-token", "10")
        cls.rows = cls.catalogue()
        # Row G22 takes the ten seconds that it takes: beside the others.
        cls.slow = threading.Thread(target=cls.slow_sender)
        cls.slow.start()
        cls.addClassCleanup(cls.slow.join)

    @classmethod
    def gateway(cls, name, url, *flags):
        pool = cls.pool
        state = os.path.join(pool.dir, "gateway-" + name)
        program = Program("gateway-" + name, [
            os.path.join(BIN, "sheaf-gateway"), "--link",
            os.path.join(pool.dir, "orchestrator", "gateway.link"), "--state", state, "--bind", url,
            "--url", url, "--bulk-bind", f"tcp://127.0.0.1:{pool.ports.take()}", *flags],
            os.path.join(pool.dir, f"gateway-{name}.log"))
        cls.addClassCleanup(program.stop)
        program.start("sheaf-gateway ready", 60)
        return program

    @classmethod
    def slow_sender(cls):
        """The head of a request, one byte each half second, on the gateway's own defaults."""
        began = time.monotonic()
        try:
            with cls.wire() as wire:
                wire.socket.settimeout(0.5)
                for byte in GET.encode() * 10:
                    wire.send(bytes([byte]))
                    try:
                        if not wire._more():
                            break
                    except (socket.timeout, TimeoutError):
                        continue
                    if b"\r\n\r\n" in wire.pending:
                        break
                wire.socket.settimeout(30)
                answer = wire.answer()
                cls.slow_result = (answer, time.monotonic() - began, wire.is_closed())
        except AssertionError as failure:
            cls.slow_result = failure

    # -- asking ---------------------------------------------------------------------------------

    @classmethod
    def wire(cls, url=None):
        return Wire(url or cls.pool.url, cls.pool.ca)

    @classmethod
    def bearer(cls, client=None):
        return ("Authorization", "Bearer " + (client or cls.pool.operator).token)

    @classmethod
    def ask(cls, method, target, headers=(), body=None, client=None, url=None):
        with cls.wire(url) as wire:
            return wire.send(request(method, target, [cls.bearer(client), *headers], body)).answer()

    @classmethod
    def post(cls, body, target="/api/v1/projects", headers=(), client=None):
        """A request that would change something if it were good."""
        return request("POST", target, [cls.bearer(client), *headers], body)

    def counts(self):
        return self.pool.sql("SELECT concat_ws(' ', " + ", ".join(
            f"(SELECT count(*) FROM {table})" for table in TABLES) + ")")

    def setUp(self):
        self.before = self.counts()

    def unchanged(self):
        self.assertEqual(self.counts(), self.before, f"rows of {TABLES}")

    def problem(self, answer, row):
        self.assertEqual(answer.status, row.status, f"{row.raw[:120]!r}: {answer}")
        self.assertEqual(answer.header("content-type"), "application/problem+json")
        self.assertEqual(answer.header("x-content-type-options"), "nosniff")
        self.assertEqual(answer.header("cache-control"), "no-store")
        told = answer.json()
        self.assertEqual(told["type"], "/errors/" + row.slug, answer)
        self.assertEqual(told["status"], row.status)
        self.assertEqual(told["instance"], answer.header("request-id"))
        self.assertIn(row.says, told["detail"])
        if row.status in (429, 503) or row.slug == "request-in-progress":
            self.assertGreaterEqual(int(answer.header("retry-after")), 1)

    def check(self, rows):
        """Each row on a connection of its own; then it closes, or serves the next request."""
        for row in rows:
            with self.subTest(raw=row.raw[:100]), self.wire() as wire:
                self.problem(wire.send(row.raw).answer(), row)
                if row.closes:
                    wire.send(request("GET", "/healthz"))
                    self.assertTrue(wire.is_closed(), "it goes on after a framing error")
                else:
                    again = wire.send(request("GET", "/healthz")).answer()
                    self.assertEqual(again.status, 200, again)
        self.unchanged()

    # -- the catalogue ----------------------------------------------------------------------------

    @classmethod
    def catalogue(cls):
        def get(target, *headers, client=None):
            return request("GET", target, [cls.bearer(client), *headers])

        def anonymous(*headers):
            return request("GET", "/api/v1/whoami", headers)

        def job(body, client=None, *headers):
            return cls.post(body if isinstance(body, str) else json.dumps(body), "/api/v1/jobs",
                            [("Idempotency-Key", "never"), *headers], client or cls.tenant)

        post, good = cls.post, '{"name":"never-1"}'
        rows = {
            1: [Row(anonymous(*headers), 401, "auth-required") for headers in (
                (), (("Authorization", ""),), (("Authorization", "Bearer"),),
                (("Authorization", "Bearer "),), (("Authorization", "Basic YTpi"),),
                (("Authorization", "Bearer " + "x" * 200),))],
            2: [Row(anonymous(("Authorization", "Bearer sht_never")), 401, "token-invalid")],
            3: [Row(request("GET", f"/api/v1/whoami?{name}=SECRET-IN-URL"), 400, "credential-in-url")
                for name in ("token", "access_token", "api_key", "limit=1&password")],
            4: [Row(cls.post(good, client=cls.tenant), 403, "scope-missing", says="admin"),
                Row(get("/api/v1/users", client=cls.tenant), 403, "scope-missing")],
            5: [Row(get(f"/api/v1/jobs/{name}{part}", client=cls.tenant), 404, "not-found")
                for name in (cls.foreign, str(uuid.uuid4()))
                for part in ("", "/why", "/events", "/logs", "/cost", "/outputs")]
               + [Row(post("{}", f"/api/v1/jobs/{name}/cancel", client=cls.tenant), 404,
                      "not-found") for name in (cls.foreign, str(uuid.uuid4()))],
            6: [Row(get("/api/v1/jobs/" + name), 400, "invalid-id") for name in (
                "x", "0", cls.waiting[:-1], cls.waiting + "0", cls.waiting.replace("-", ""),
                "%7B" + cls.waiting + "%7D")],
            7: [Row(post(good[:k]), 400, "malformed-json", says="(byte") for k in
                range(1, len(good))]
               + [Row(post(body), 400, "malformed-json", says="(byte") for body in (
                   good + "x", "{'name':'a'}", '{"name":NaN}', '{"name":01}', '{"name":+1}')],
            8: [Row(post('{"name":"never-1","name":"never-2"}'), 400, "duplicate-key"),
                Row(job('{"version":1,"resources":{"gpu":"cpu","gpu":"cpu"}}'), 400,
                    "duplicate-key")],
            9: [Row(job({**SPEC, "gpu_cnt": 1}), 422, "unknown-field", says="gpu_cnt"),
                Row(post('{"name":"never-1","x":1}'), 422, "unknown-field")],
            10: [Row(job(json.dumps(SPEC)[:-1] + ',"nodes":%s}' % value), 422, slug)
                 for value, slug in (('"two"', "invalid-type"), ("1.5", "invalid-type"),
                                     ("1e400", "out-of-range"), ("-0", "out-of-range"),
                                     ("1.0", "invalid-type"), ("18446744073709551616", "out-of-range"),
                                     ("[1]", "invalid-type"))],
            11: [Row(POST + "Content-Length: 1048577\r\n\r\n", 413, "body-too-large", True),
                 Row(CHUNKED + "100001\r\n", 413, "body-too-large", True)],
            12: [Row(post(deep(levels)), 422, "nesting-too-deep") for levels in (33, 10000)],
            13: [Row(post(good, headers=[header]), 415, "unsupported-media-type") for header in (
                ("Content-Type", "text/plain"), ("Content-Type", "application/json; charset=utf-16"),
                ("Content-Type", "application/jsonp"), ("Content-Type", ""),
                ("Content-Encoding", "gzip"))],
            14: [Row(post(b'{"name":"' + text + b'"}'), 400, "invalid-encoding") for text in (
                b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\\ud800", b"\\ude00x", b"a\\u0000b")],
            15: [Row(POST + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
                     "ambiguous-framing", True)],
            16: [Row(POST + f"Content-Length: {length}\r\n\r\n", 400, "invalid-content-length", True)
                 for length in ("5\r\nContent-Length: 5", "5\r\nContent-Length: 6", "+5", "5, 5",
                                "0x5", "18446744073709551616", "-1", "5 5", "", "\xb2")],
            17: [Row(POST + f"{field}\r\n\r\n0\r\n\r\n", status, slug, True)
                 for field, status, slug in (
                     ("Transfer-Encoding: xchunked", 501, "unsupported-transfer-encoding"),
                     ("Transfer-Encoding: gzip", 501, "unsupported-transfer-encoding"),
                     ("Transfer-Encoding: chunked, identity", 400, "invalid-transfer-encoding"),
                     ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400,
                      "invalid-transfer-encoding"),
                     ("Transfer-Encoding : chunked", 400, "invalid-transfer-encoding"))],
            18: [Row(CHUNKED + chunk, 400, "invalid-chunk", True) for chunk in (
                "-1\r\n", "12345678901234567\r\n", "5\nhello", "5;" + "x" * 65536 + "\r\nhello",
                "5 \r\n", "\r\n", "2\r\n{}x", "0\r\nX-Trailer: 1\r\n\r\n")],
            19: [Row(raw, 400, "invalid-host", True) for raw in (
                "GET / HTTP/1.1\r\n\r\n", GET + "Host: door\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "GET / HTTP/1.1\r\nHost: u@door\r\n\r\n",
                "GET https://evil/ HTTP/1.1\r\nHost: door\r\n\r\n")],
            20: [Row(GET + "X: " + "x" * 65536 + "\r\n\r\n", 431, "header-too-large", True),
                 Row(GET + "X: y\r\n" * 1000 + "\r\n", 431, "header-too-large", True),
                 Row("GET /" + "x" * 65536 + " HTTP/1.1\r\n\r\n", 431, "header-too-large", True),
                 Row(GET + "X: a\r\n b\r\n\r\n", 400, "obsolete-folding", True),
                 Row(GET + "X: a\nY: b\r\n\r\n", 400, "invalid-header", True),
                 Row("GET / HTTP/1.1\nHost: door\n\n", 400, "bad-request-line", True)],
            21: [Row(f"GET {path} HTTP/1.1\r\nHost: door\r\n\r\n", 400, "invalid-path", True)
                 for path in ("/../../etc/passwd", "/%2e%2e%2fetc", "/a/%2E./b", "/%00", "//",
                              "/a//b", "/a%2fb", "etc", "/\\..\\x", "/%zz")]
                + [Row(get("/etc/passwd"), 404, "not-found")],
            23: [Row(request(method, "/healthz"), status, slug) for method, status, slug in (
                ("TRACE", 405, "method-not-allowed"), ("POST", 405, "method-not-allowed"),
                ("OPTIONS", 405, "method-not-allowed"), ("get", 501, "method-not-implemented"),
                ("BREW", 501, "method-not-implemented"))]
                + [Row("CONNECT door:443 HTTP/1.1\r\nHost: door:443\r\n\r\n", 501,
                       "method-not-implemented", True)],
            24: [Row("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http-version", True),
                 Row("GET / HTTP/3.0\r\n\r\n", 505, "http-version", True),
                 Row("GET /\r\n", 400, "bad-request-line", True),
                 Row(bytes.fromhex("16030100c8010000c40303") + bytes(64), 400, "bad-request-line",
                     True)],
            25: [Row(cls.post(json.dumps(SPEC), "/api/v1/jobs", headers, cls.tenant), 400,
                     "idempotency-key-missing") for headers in ((), [("Idempotency-Key", "")])],
            28: [Row(get("/api/v1/jobs?" + query), 400, slug) for query, slug in (
                ("limit=0", "invalid-limit"), ("limit=1000000", "invalid-limit"),
                ("limit=-1", "invalid-limit"), ("limit=1e1", "invalid-limit"),
                ("limit=", "invalid-limit"), ("cursor=", "invalid-cursor"),
                ("cursor=c1", "invalid-cursor"), ("cursor=c" + "0" * 48, "invalid-cursor"))],
            29: [Row(get("/api/v1/jobs?" + query), 400, "invalid-parameter",
                     says="limit cursor state name") for query in (
                "sort=price;drop%20table%20gpu", "limit=1&limit=2", "Limit=1", "filter=a%27b")],
            32: [Row(post("{}", f"/api/v1/jobs/{cls.ended}/cancel", client=cls.tenant), 409,
                     "already-terminal", says="cancelled")],
            33: [Row(job(SPEC, cls.poor), 402, "insufficient-funds", says="0.01")],
            37: [Row(post(json.dumps({"name": name})), 422, "invalid-name") for name in (
                "<script>alert(1)</script>", "\u202egpj.exe", "a\nb", "a\x1b[2Jb", "", "-a", "A")]
                + [Row(post(json.dumps({"name": "x" * 300})), 422, "out-of-range"),
                   Row(job({**SPEC, "name": "<script>"}), 422, "invalid-name"),
                   Row(post(json.dumps({"provider": "\u202ex"}), "/api/v1/join-tokens"), 422,
                       "invalid-name")],
        }
        return rows

    def test_g01_no_credential(self):
        self.check(self.rows[1])
        with self.wire() as wire:
            answer = wire.send(self.rows[1][0].raw).answer()
        self.assertTrue(answer.header("www-authenticate").startswith("Bearer"))

    def test_g02_unknown_revoked_and_expired_tokens_are_told_apart_by_nobody(self):
        self.check(self.rows[2])
        made = self.pool.operator.json("token", "create", "--role", "tenant", "--project", "demo")
        self.assertEqual(self.ask("DELETE", "/api/v1/tokens/" + made["id"]).status, 204)
        short = self.ask("POST", "/api/v1/tokens", body=json.dumps(
            {"role": "tenant", "project": "demo", "ttl_s": 1})).json()
        self.before = self.counts()
        texts = set()
        for secret in ("sht_never", made["secret"], short["secret"]):
            def refused(secret=secret):
                with self.wire() as wire:
                    answer = wire.send(request("GET", "/api/v1/whoami", [
                        ("Authorization", "Bearer " + secret)])).answer()
                return answer if answer.status == 401 else None
            told = until("the token is refused", refused, 15).json()
            del told["instance"]
            texts.add(json.dumps(told))
        self.assertEqual(len(texts), 1, texts)
        self.unchanged()

    def test_g03_a_credential_in_the_url_is_refused_and_not_logged(self):
        self.check(self.rows[3])
        for row in self.rows[3]:
            with self.wire(self.plain_url) as wire:  # this one logs every answer
                self.problem(wire.send(row.raw).answer(), row)
        self.assertIn("path=", self.plain.log())
        for program in (self.plain, self.pool.gateway, self.pool.orchestrator):
            self.assertNotIn("SECRET-IN-URL", program.log())

    def test_g04_a_missing_scope_is_named(self):
        self.check(self.rows[4])

    def test_g05_another_tenants_job_is_no_other_than_none(self):
        self.check(self.rows[5])

        def work():
            page = self.ask("GET", "/metrics", url=self.plain_url).body.decode()
            return [int(re.search(rf"^{name} (\d+)$", page, re.M).group(1)) for name in (
                "sheaf_gateway_db_requests_total", "sheaf_gateway_commands_total")]

        def cost(raw):
            """What one request makes the gateway ask; the median leaves out what it asks itself."""
            spent = []
            for _ in range(5):
                before = work()
                with self.wire(self.plain_url) as wire:
                    answer = wire.send(raw).answer()
                spent.append([b - a for a, b in zip(before, work())])
            told = answer.json()
            del told["instance"]
            return told, sorted(spent)[2]
        rows = self.rows[5]
        half = (len(rows) - 2) // 2
        pairs = list(zip(rows[:half], rows[half:2 * half])) + [(rows[-2], rows[-1])]
        for foreign, none in pairs:
            self.assertEqual(cost(foreign.raw), cost(none.raw), foreign.raw[:90])

    def test_g06_a_malformed_id(self):
        self.check(self.rows[6])

    def test_g07_truncated_json_is_refused_at_every_byte(self):
        self.check(self.rows[7])

    def test_g08_a_duplicate_key(self):
        self.check(self.rows[8])

    def test_g09_an_unknown_field(self):
        self.check(self.rows[9])

    def test_g10_a_number_that_is_none(self):
        self.check(self.rows[10])

    def test_g11_a_body_too_large_is_refused_before_it_is_sent(self):
        self.check(self.rows[11])

    def test_g12_nesting(self):
        self.check(self.rows[12])

    def test_g13_media_types_charsets_and_codings(self):
        self.check(self.rows[13])
        for kind in ("application/json", "Application/JSON; charset=UTF-8",
                     'application/json ;charset="utf-8"'):
            answer = self.ask("POST", "/api/v1/projects", [("Content-Type", kind)], '{"name":"-"}')
            self.assertEqual(answer.status, 422, kind)

    def test_g14_text_that_is_none(self):
        self.check(self.rows[14])

    def test_g15_both_lengths(self):
        self.check(self.rows[15])

    def test_g16_content_lengths(self):
        self.check(self.rows[16])

    def test_g17_transfer_codings(self):
        self.check(self.rows[17])

    def test_g18_chunks(self):
        self.check(self.rows[18])

    def test_g19_hosts(self):
        self.check(self.rows[19])
        for target in ("https://door/healthz", "HTTP://DOOR/healthz"):
            self.assertEqual(self.ask("GET", target).status, 200)

    def test_g20_headers_too_large_and_folded(self):
        self.check(self.rows[20])

    def test_g21_paths_lead_nowhere(self):
        self.check(self.rows[21])

    def test_g22_a_slow_head_is_told_and_closed_at_ten_seconds(self):
        self.slow.join()
        if isinstance(self.slow_result, AssertionError):
            raise self.slow_result
        answer, seconds, closed = self.slow_result
        self.problem(answer, Row(b"slow", 408, "request-timeout"))
        self.assertGreaterEqual(seconds, 9)
        self.assertLess(seconds, 25)  # ten, and what a busy machine adds
        self.assertTrue(closed)
        self.unchanged()

    def test_g23_methods(self):
        self.check(self.rows[23])
        for row in self.rows[23]:
            if row.status == 405:
                with self.wire() as wire:
                    answer = wire.send(row.raw).answer()
                self.assertEqual(answer.header("allow"), "GET, HEAD")

    def test_g24_other_protocols(self):
        self.check(self.rows[24])
        for row in self.rows[24]:
            with self.wire(self.plain_url) as wire:
                self.problem(wire.send(row.raw).answer(), row)
                self.assertTrue(wire.is_closed())
        with Wire("http://" + self.pool.url.partition("://")[2]) as wire:  # plain text on TLS
            wire.send(request("GET", "/healthz"))
            wire._more()  # an alert, or nothing
            self.assertNotIn(b"HTTP/1.1 200", wire.pending)

    def test_g25_no_idempotency_key(self):
        self.check(self.rows[25])

    def test_g26_a_key_is_for_one_body(self):
        key = [("Idempotency-Key", "g26-" + uuid.uuid4().hex)]
        first = self.ask("POST", "/api/v1/jobs", key, json.dumps(SPEC), self.tenant)
        self.assertEqual(first.status, 201, first)
        self.before = self.counts()
        again = self.ask("POST", "/api/v1/jobs", key, json.dumps(dict(reversed(SPEC.items())),
                                                                 indent=2), self.tenant)
        self.assertEqual((again.status, again.json()["id"]), (201, first.json()["id"]))
        self.assertEqual(again.header("idempotency-replayed"), "true")
        changed = {**SPEC, "name": "another"}
        self.check([Row(self.post(json.dumps(changed), "/api/v1/jobs", key, self.tenant), 422,
                        "idempotency-key-reused")])

    def test_g27_a_key_whose_answer_is_due(self):
        raw = self.post(json.dumps(SPEC), "/api/v1/jobs",
                        [("Idempotency-Key", "g27-" + uuid.uuid4().hex)], self.tenant)
        self.ask("GET", "/api/v1/whoami", client=self.tenant)
        process = self.pool.orchestrator.process
        process.send_signal(signal.SIGSTOP)
        try:
            with self.wire() as first, self.wire() as second:
                first.send(raw)
                until("the command is under way", lambda: self.metric("commands_waiting"), 10)
                self.problem(second.send(raw).answer(), Row(raw, 409, "request-in-progress"))
                self.unchanged()
                process.send_signal(signal.SIGCONT)
                made = first.answer()
                self.assertEqual(made.status, 201, made)
                replay = second.send(raw).answer()
                self.assertEqual((replay.status, replay.json()["id"]), (201, made.json()["id"]))
        finally:
            process.send_signal(signal.SIGCONT)

    def metric(self, name, url=None):
        page = self.ask("GET", "/metrics", url=url).body.decode()
        return int(re.search(rf"^sheaf_gateway_{name} (\d+)$", page, re.M).group(1))

    def test_g28_limits_and_cursors(self):
        self.check(self.rows[28])
        for _ in range(2):
            self.tenant.submit({**SPEC, "name": "page"})
        self.before = self.counts()
        page = self.ask("GET", "/api/v1/jobs?limit=1", client=self.tenant).json()
        cursor = page["next_cursor"]
        more = self.ask("GET", f"/api/v1/jobs?limit=1&cursor={cursor}", client=self.tenant).json()
        self.assertEqual(len(more["items"]), 1)
        self.assertNotEqual(more["items"][0]["id"], page["items"][0]["id"])

        def refused(query, client, path="/api/v1/jobs"):
            raw = request("GET", f"{path}?{query}", [self.bearer(client)])
            self.check([Row(raw, 400, "invalid-cursor")])
        refused("cursor=" + cursor, self.other)
        refused("cursor=" + cursor, self.pool.operator)
        refused("state=live&cursor=" + cursor, self.tenant)
        refused("cursor=" + cursor, self.tenant, f"/api/v1/jobs/{self.waiting}/events")
        for at in (1, 16, 17, 48):
            forged = cursor[:at] + ("0" if cursor[at] != "0" else "1") + cursor[at + 1:]
            refused("cursor=" + forged, self.tenant)
        seen, cursor = [], ""
        while cursor is not None:
            part = self.ask("GET", "/api/v1/jobs?limit=2" + (f"&cursor={cursor}" if cursor else ""),
                            client=self.tenant).json()
            seen += [item["id"] for item in part["items"]]
            cursor = part["next_cursor"]
        self.assertEqual(len(seen), len(set(seen)))
        self.assertIn(self.waiting, seen)
        self.assertNotIn(self.foreign, seen)

    def test_g29_unknown_and_repeated_parameters(self):
        self.check(self.rows[29])

    def test_g30_too_many_requests_of_a_token(self):
        raw = request("GET", "/api/v1/whoami", [self.bearer(self.tenant)])
        with self.wire(self.tight_url) as wire:
            wire.send(raw * 60)
            answers = [wire.answer() for _ in range(60)]
            limited = [a for a in answers if a.status == 429]
            self.assertEqual(answers[0].status, 200)
            self.assertEqual([a.status for a in answers if a not in limited],
                             [200] * (60 - len(limited)))
            self.assertGreater(len(limited), 0)
            for answer in limited:
                self.problem(answer, Row(raw, 429, "rate-limited"))
            # Another token is another bucket; this one fills again.
            other = request("GET", "/api/v1/whoami", [self.bearer(self.other)])
            self.assertEqual(wire.send(other).answer().status, 200)
            until("the bucket fills", lambda: wire.send(raw).answer().status == 200, 10, 0.2)
        self.assertEqual(self.metric("http_limited_total", self.tight_url) > 0, True)
        self.unchanged()

    def test_g32_cancel_of_a_finished_job(self):
        self.check(self.rows[32])

    def test_g33_not_enough_money(self):
        self.check(self.rows[33])

    def postgres(self, *words):
        """pg_ctl on the pool's database, as the user that owns it."""
        data = os.path.join(self.pool.state, "database", "data")
        owner = ["setpriv", f"--reuid={os.stat(data).st_uid}", f"--regid={os.stat(data).st_gid}",
                 "--clear-groups"] if os.getuid() == 0 else []
        subprocess.run([*owner, f"{PGBIN}/pg_ctl", "-D", data, "-s", "-w", *words], check=True,
                       cwd="/", stdout=subprocess.DEVNULL, timeout=90)

    def test_g35_the_database_is_down(self):
        key = [("Idempotency-Key", "g35-" + uuid.uuid4().hex)]
        raw = self.post(json.dumps(SPEC), "/api/v1/jobs", key, self.tenant)
        run = os.path.join(self.pool.state, "database", "run")
        self.postgres("-m", "fast", "stop")
        try:
            for bad in (raw, request("GET", "/api/v1/jobs", [self.bearer(self.tenant)])):
                with self.wire() as wire:
                    self.problem(wire.send(bad).answer(), Row(bad, 503, "temporarily-unavailable"))
            with self.wire() as wire:
                self.assertEqual(wire.send(request("GET", "/healthz")).answer().status, 200)
                self.assertEqual(wire.send(request("GET", "/")).answer().status, 200)
                answer = wire.send(request("GET", "/readyz")).answer()
            self.problem(answer, Row(b"readyz", 503, "temporarily-unavailable"))
        finally:
            self.postgres("-o", f"-c unix_socket_directories='{run}'", "-l",
                          os.path.join(run, "server.log"), "start")

        def works():
            answer = self.ask("POST", "/api/v1/jobs", key, json.dumps(SPEC), self.tenant)
            return answer if answer.status == 201 else None
        made = until("it works again", works, 60, 0.5)
        again = self.ask("POST", "/api/v1/jobs", key, json.dumps(SPEC), self.tenant)
        self.assertEqual(again.json()["id"], made.json()["id"])
        self.assertEqual(self.pool.ledger_sum(), "0")

    def test_g37_names(self):
        self.check(self.rows[37])
        for row in self.rows[37]:
            with self.wire() as wire:
                detail = wire.send(row.raw).answer().json()["detail"]
            self.assertTrue(detail.isprintable(), detail)
            self.assertNotIn("\u202e", detail)
        page = self.ask("GET", "/").body.decode()
        self.assertNotIn("<script", page)

    # -- what the rows do not say -------------------------------------------------------------

    def test_nothing_behind_a_framing_error_is_done(self):
        behind = self.post('{"name":"smuggled"}')
        for rows in (self.rows[n] for n in (15, 16, 17, 18, 20)):
            for row in rows:
                with self.wire(self.plain_url) as wire:
                    wire.send(row.raw + behind)
                    self.problem(wire.answer(), row)
                    self.assertTrue(wire.is_closed(), row.raw[:100])
        self.unchanged()

    def test_what_is_behind_a_refusal_is_served(self):
        with self.wire() as wire:
            wire.send(self.rows[8][0].raw + self.rows[1][0].raw + request("GET", "/healthz"))
            self.assertEqual([wire.answer().status for _ in range(3)], [400, 401, 200])

    def test_headers_that_would_speak_for_others_are_ignored(self):
        answer = self.ask("GET", "/api/v1/whoami", [
            ("X-HTTP-Method-Override", "DELETE"), ("X-Method-Override", "POST"),
            ("X-Forwarded-For", "10.0.0.1"), ("Forwarded", "for=10.0.0.1;host=evil"),
            ("X-Forwarded-Host", "evil"), ("X-Tenant", "other"), ("X-Project", "other"),
            ("X-Original-URL", "/api/v1/users"), ("Accept-Encoding", "gzip, br")],
            client=self.tenant)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.json()["project"], "demo")
        self.assertIsNone(answer.header("content-encoding"))
        self.unchanged()

    def test_pages_are_locked_down(self):
        answer = self.ask("GET", "/")
        policy = answer.header("content-security-policy")
        for part in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'none'"):
            self.assertIn(part, policy)
        self.assertEqual(answer.header("x-content-type-options"), "nosniff")
        self.assertEqual(answer.header("referrer-policy"), "no-referrer")
        self.assertEqual(answer.header("cache-control"), "no-store")
        self.assertIsNone(answer.header("strict-transport-security"))
        self.assertIsNone(answer.header("server"))

    def test_a_crowd_that_asks_the_same_is_answered_by_one_execution(self):
        raw = request("GET", "/api/v1/jobs?limit=3", [self.bearer(self.tenant)])
        with self.wire(self.plain_url) as wire:  # so that the token is known
            self.assertEqual(wire.send(raw).answer().status, 200)
        wires = [self.wire(self.plain_url) for _ in range(20)]
        try:
            for wire in wires:  # accepted and idle
                self.assertEqual(wire.send(request("GET", "/healthz")).answer().status, 200)
            before = self.metric("db_shared_total", self.plain_url)
            self.plain.process.send_signal(signal.SIGSTOP)
            try:
                for wire in wires:
                    wire.send(raw)
            finally:
                self.plain.process.send_signal(signal.SIGCONT)
            self.assertEqual(len({wire.answer().body for wire in wires}), 1)
            self.assertGreater(self.metric("db_shared_total", self.plain_url) - before, 10)
        finally:
            for wire in wires:
                wire.socket.close()

    def test_a_client_that_leaves_frees_its_stream(self):
        self.assertEqual(self.metric("streams", self.plain_url), 0)
        with self.wire(self.plain_url) as wire:
            wire.send(request("GET", f"/api/v1/jobs/{self.waiting}/events", [
                self.bearer(self.tenant), ("Accept", "text/event-stream")]))
            wire.until(b"event:")
            self.assertEqual(self.metric("streams", self.plain_url), 1)
        until("the stream is gone", lambda: self.metric("streams", self.plain_url) == 0, 10)

    def test_a_client_that_leaves_a_plan_frees_its_connection(self):
        process = self.pool.orchestrator.process
        self.ask("GET", "/api/v1/whoami", client=self.tenant, url=self.plain_url)
        gone = self.metric("http_gone_total", self.plain_url)
        process.send_signal(signal.SIGSTOP)
        try:
            with self.wire(self.plain_url) as wire:
                wire.send(self.post(json.dumps(SPEC), "/api/v1/plans", client=self.tenant))
                until("the plan is asked for",
                      lambda: self.metric("commands_waiting", self.plain_url), 10)
                self.assertEqual(self.metric("http_connections", self.plain_url), 2)
            until("the connection is gone",
                  lambda: self.metric("http_connections", self.plain_url) == 1, 10)
            self.assertEqual(self.metric("http_gone_total", self.plain_url), gone + 1)
        finally:
            process.send_signal(signal.SIGCONT)

    def test_connections_beyond_a_cap_are_told_so(self):
        def hold(wires, url, host):
            """A connection whose request is under way, so that it cannot make room."""
            wire = Wire(url.replace("127.0.0.1", host))
            wires.append(wire)
            return wire.send(b"GET /healthz HTTP/1.1\r\n")
        wires = []
        try:
            until("room", lambda: self.metric("http_connections", self.tight_url) <= 1, 10)
            for _ in range(12):
                hold(wires, self.tight_url, "127.0.0.1")
            last = hold(wires, self.tight_url, "127.0.0.1").send(b"Host: door\r\n\r\n")
            self.problem(last.answer(), Row(b"the address is full", 429, "rate-limited"))
            self.assertTrue(last.is_closed())
            wires.pop().socket.close()
            # The others finish their requests, then keep their connections.
            first = wires[0].send(b"Host: door\r\n\r\n").answer()
            self.assertEqual(first.status, 200)
        finally:
            for wire in wires:
                wire.socket.close()

    def test_five_hundred_slow_connections_do_not_slow_others(self):
        """Slowloris: heads that never end. An honest client's median stays within twice."""
        def median(count=60):
            taken = []
            for _ in range(count):
                began = time.monotonic()
                with self.wire(self.plain_url) as wire:
                    self.assertEqual(wire.send(request("GET", "/healthz")).answer().status, 200)
                taken.append(time.monotonic() - began)
            return sorted(taken)[len(taken) // 2]
        port = int(self.plain_url.rpartition(":")[2])
        alone, held = median(), []
        try:
            for index in range(500):
                sock = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(
                    f"127.0.1.{index % 10 + 1}", 0))
                sock.sendall(b"GET /healthz HTTP/1.1\r\nX-")
                held.append(sock)
            until("all are held",
                  lambda: self.metric("http_connections", self.plain_url) >= 500, 10)
            for sock in held:
                sock.sendall(b"a")
            self.assertLessEqual(median(), 2 * alone + 0.005)
        finally:
            for sock in held:
                sock.close()

    def test_the_catalogue_costs_little_and_leaves_nothing(self):
        """Each row 200 times: at most 10 ms of CPU time a request, and memory that settles."""
        pid, tick = self.plain.process.pid, os.sysconf("SC_CLK_TCK")

        def cpu():
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / tick

        def resident():
            with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        def replay(number, count):
            rows, wire = self.rows[number], None
            for index in range(count):
                row = rows[index % len(rows)]
                wire = wire or self.wire(self.plain_url)
                self.assertEqual(wire.send(row.raw).answer().status, row.status, row.raw[:100])
                if row.closes:
                    wire.socket.close()
                    wire = None
            if wire:
                wire.socket.close()
        for number in self.rows:
            replay(number, 40)
        settled, dear = resident(), {}
        for number in self.rows:
            before = cpu()
            replay(number, 200)
            dear[number] = (cpu() - before) / 200
        self.assertEqual({n: c for n, c in dear.items() if c > 0.010}, {})
        self.assertLess(resident() - settled, 4 << 20)
        self.unchanged()


if __name__ == "__main__":
    unittest.main()
