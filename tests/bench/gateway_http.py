"""gateway-http: the API under load, beside a bare evhttp, PostgreSQL inserts and OpenSSL's own server."""
import json
import os
import re
import socket
import subprocess
import time
import uuid

from probes import Scratch, books, percentile

from pool import BIN, Pool, Program, until
from wire import Wire, request

CONNECTIONS = 16
SECONDS = 2
JOBS = 100000
SPEC = {"version": 1, "name": "bench", "resources": {"gpu": "cpu:256MB:1"},
        "budget": {"max_total": "0.000001"}, "max_duration": "1m", "commands": ["true"]}
TESTS = os.path.join(BIN, "..", "tests")

# Each thread of wrk numbers its own requests; no key comes twice.
POST_LUA = """
local thread = 0
function setup(t) thread = thread + 1; t:set("id", thread) end
function init() n = 0 end
wrk.method = "POST"
wrk.body = [[%s]]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
function request()
  n = n + 1
  wrk.headers["Idempotency-Key"] = "%s-" .. id .. "-" .. n
  return wrk.format()
end
"""


def wrk(url, *words, seconds=SECONDS):
    """Requests per second and the 99th percentile in ms; anything but 2xx fails it."""
    out = subprocess.run(["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s",
                          "--latency", *words, url], capture_output=True, text=True,
                         check=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", out).groups()
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", out)
    return rate, float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit], \
        "ok" if not bad else bad.group(0)


def handshakes(port, seconds=SECONDS):
    """Full TLS handshakes per second of wall time, each with a small request."""
    out = subprocess.run(["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-time",
                          str(seconds), "-www", "/healthz"], capture_output=True, text=True,
                         check=True).stdout
    count, real = re.search(r"(\d+) connections in (\d+) real seconds", out).groups()
    return int(count) / int(real)


class Echo:
    """The bare server, with the gateway's own certificate when it has one."""

    def __init__(self, pool, tls):
        state = os.path.join(pool.dir, "gateway")
        flags = ["--tls", os.path.join(state, "server.pem"), os.path.join(state, "server.key")]
        self.program = Program("echo_http", [os.path.join(TESTS, "echo_http"),
                                             *(flags if tls else [])],
                               os.path.join(pool.dir, "echo.log"))
        port = self.program.start("ready", 20).split()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    def __enter__(self):
        return self.url

    def __exit__(self, *what):
        self.program.stop()


def many_jobs(pool, count):
    """Copies of one ended job; their ids lie far above those that the orchestrator gives."""
    columns = pool.sql("SELECT string_agg(quote_ident(column_name), ', ') FROM"
                       " information_schema.columns WHERE table_name = 'job'"
                       " AND column_name NOT IN ('id', 'uid', 'hold', 'attempt')")
    folder = os.path.join(pool.state, "database")
    with open(os.path.join(folder, "sheaf_admin.pass"), encoding="utf-8") as file:
        password = file.read().strip().rpartition(":")[2]
    subprocess.run(["psql", "-h", os.path.join(folder, "run"), "-U", "sheaf_admin", "sheaf", "-qXc",
                    f"INSERT INTO job (id, uid, {columns}) SELECT 1000000000000 + g,"
                    f" gen_random_uuid(), {columns} FROM job, generate_series(1, {count}) g"
                    " WHERE state = 'cancelled'", "-c", "ANALYZE job"], check=True,
                   env=dict(os.environ, PGPASSWORD=password), stdout=subprocess.DEVNULL)


def honest(pool, seconds):
    """Latencies, in ms, of one client that asks for a job every few ms over one connection."""
    taken, until_s = [], time.monotonic() + seconds
    raw = request("GET", "/api/v1/whoami", [("Authorization", "Bearer " + pool.tenant.token)])
    with Wire(pool.url, pool.ca) as wire:
        while time.monotonic() < until_s:
            began = time.perf_counter()
            answer = wire.send(raw).answer()
            if answer.status != 200:
                raise AssertionError(f"an honest client was refused: {answer}")
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(0.005)
    return taken


def open_connections(pool):
    page = ask(pool, "/metrics").decode()
    return int(re.search(r"^sheaf_gateway_http_connections (\d+)$", page, re.M).group(1))


def slowloris(pool, emit, count=500, seconds=6):
    """slowhttptest's slow heads over TLS, looked at while all of its connections are held."""
    alone = honest(pool, seconds)
    with open(os.path.join(pool.dir, "slowhttptest.log"), "wb") as log, subprocess.Popen(
            ["slowhttptest", "-H", "-c", str(count), "-r", str(count // 2), "-i", "5", "-x", "10",
             "-l", "60", "-u", pool.url + "/healthz"], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log) as attacker:
        try:
            until("slow connections are held", lambda: open_connections(pool) >= count * 0.9, 30)
            under, held = honest(pool, seconds), open_connections(pool)
        finally:
            attacker.kill()
    p99 = percentile(alone, 0.99)
    emit("gateway-http", f"slowloris-{count}-honest-p99", percentile(under, 0.99), "ms",
         "the same client alone, p99", p99, "ok", f"{len(under)} requests, {held} connections held "
         f"at their end; p50 {percentile(under, 0.5):.2f} ms, alone {percentile(alone, 0.5):.2f} ms")


def paired(measure, baseline, rate=lambda result: result, rounds=5):
    """Both in turn, several times; the round whose ratio is the median. Others use the machine too:
    what they take from one measure they take from its neighbour."""
    taken = [(measure(), baseline()) for _ in range(rounds)]
    return sorted(taken, key=lambda pair: rate(pair[0]) / rate(pair[1]))[rounds // 2]


def bench_reads(pool, emit):
    auth = ("-H", "Authorization: Bearer " + pool.tenant.token)
    job = json.loads(ask(pool, "/api/v1/jobs?limit=1"))["items"][0]["id"]
    for name, path, data in (
            ("get-version", "/version", "no database"),
            ("get-job", f"/api/v1/jobs/{job}", "one job by id"),
            ("get-page", "/api/v1/jobs?limit=100", f"100 of {JOBS} jobs")):
        size = len(ask(pool, path))
        with Echo(pool, True) as url:
            (rate, p99, gate), (bare, bare_p99, _) = paired(
                lambda path=path: wrk(pool.url + path, *auth),
                lambda url=url, size=size: wrk(f"{url}/{size}"), lambda result: result[0])
        emit("gateway-http", name, rate, "requests/s", "bare evhttp over TLS, same size", bare, gate,
             f"{data}, {size} bytes, {CONNECTIONS} connections; p99 {p99:.1f} ms, bare "
             f"{bare_p99:.1f} ms")


def ask(pool, path):
    with Wire(pool.url, pool.ca) as wire:
        return wire.send(request("GET", path, [
            ("Authorization", "Bearer " + pool.tenant.token)])).answer().body


def bench_posts(pool, emit):
    scratch = Scratch()
    try:
        inserts = scratch.pgbench("INSERT INTO job(body) VALUES ('x');", CONNECTIONS, 4)
    finally:
        scratch.close()
    script = os.path.join(pool.dir, "post.lua")
    with open(script, "w", encoding="utf-8") as file:
        file.write(POST_LUA % (json.dumps(SPEC), pool.tenant.token, uuid.uuid4().hex))
    before = int(pool.sql("SELECT count(*) FROM job"))
    rate, p99, gate = wrk(pool.url + "/api/v1/jobs", "-s", script, seconds=4)
    made = int(pool.sql("SELECT count(*) FROM job")) - before
    if gate == "ok" and made < rate * 4 * 0.95:
        gate = f"{made} rows for {rate * 4:.0f} answers"
    emit("gateway-http", "post-job", rate, "jobs/s",
         f"PostgreSQL inserts/s, {CONNECTIONS} clients, durable", inserts,
         gate if gate != "ok" else books(pool), f"{made} jobs; p99 {p99:.1f} ms")


def bench_handshakes(pool, emit):
    state = os.path.join(pool.dir, "gateway")
    port = pool.ports.take()
    with open(os.devnull, "wb") as null, subprocess.Popen(
            ["openssl", "s_server", "-accept", str(port), "-cert", os.path.join(state, "server.pem"),
             "-key", os.path.join(state, "server.key"), "-www", "-quiet"], stdin=subprocess.PIPE,
            stdout=null, stderr=null) as server:
        try:
            until("s_server listens", lambda: not socket.socket().connect_ex(("127.0.0.1", port)),
                  10)
            rate, bare = paired(lambda: handshakes(pool.port["https"]), lambda: handshakes(port))
        finally:
            server.kill()
    emit("gateway-http", "handshakes", rate, "connections/s", "openssl s_server, one client", bare,
         "ok", "full TLS 1.3 handshake and one small answer each, openssl s_time")


def bench_gateway_http(args, emit):
    del args
    pool = Pool()
    pool.gateway.argv += ["--rate-per-address", "0", "--rate-per-token", "0", "--max-per-address",
                          "0", "--max-connections", "2048"]
    pool.start()
    try:
        pool.tenant("cancel", pool.tenant.submit(SPEC))
        many_jobs(pool, JOBS)
        bench_reads(pool, emit)
        bench_handshakes(pool, emit)
        slowloris(pool, emit)
        bench_posts(pool, emit)
    finally:
        pool.stop()
