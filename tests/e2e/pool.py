"""A real pool on this machine for end-to-end tests: orchestrator with its private PostgreSQL,
gateway, workers in bubblewrap, all over loopback, each in a folder below one temporary folder.

Nothing waits by sleeping blindly: programs say when they are ready, jobs are followed by their
event stream, and `until` polls a condition under a deadline.
"""
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("SHEAF_BIN", os.path.join(ROOT, "build", "dev", "bin"))


class Ports:
    """A block of ports of this machine's own: locked against other pools that run meanwhile, and
    below the range that outgoing connections take theirs from."""
    FIRST, SIZE, BLOCKS = 20000, 200, 60

    def __init__(self):
        for i in range(self.BLOCKS):
            block = (os.getpid() + i) % self.BLOCKS
            self.lock = open(f"/tmp/sheaf-e2e-ports-{block}.lock", "a", encoding="utf-8")
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.next = self.FIRST + block * self.SIZE
                self.end = self.next + self.SIZE
                return
            except OSError:
                self.lock.close()
        raise AssertionError("every block of test ports is in use")

    def take(self, span=1):
        """The first of `span` consecutive free ports."""
        while self.next + span <= self.end:
            first, self.next = self.next, self.next + span
            if all(self._is_free(port) for port in range(first, first + span)):
                return first
        raise AssertionError("no free ports are left in this block")

    @staticmethod
    def _is_free(port):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError:
                    return False
        return True

    def close(self):
        self.lock.close()


def until(what, condition, seconds=30, every=0.05):
    """The first true value of condition(); an assertion naming `what` when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(every)


class Program:
    """A daemon: its output is kept in a file and searched for the ready line."""

    def __init__(self, name, argv, log, env=None, prefix=()):
        self.name, self.argv, self.log_path = name, argv, log
        self.env = dict(os.environ, **(env or {}))
        self.prefix = list(prefix)
        self.lines, self.process, self.reader = [], None, None

    def start(self, ready, seconds=60):
        """Returns the line that matches; ready=None waits for none."""
        self.lines = []
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.prefix + self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=log, env=self.env, text=True, start_new_session=True)
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()

        def is_ready():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n"
                                     + self.log()[-3000:])
            return next((line for line in self.lines if re.search(ready, line)), None)
        if ready is None:
            return None
        return until(f"{self.name} says '{ready}'", is_ready, seconds)

    def _read(self, pipe):
        for line in pipe:
            self.lines.append(line.rstrip("\n"))
            with open(self.log_path, "a", encoding="utf-8") as log:
                log.write(line)
        pipe.close()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def kill(self, number=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.reader.join(5)

    def stop(self):
        self.kill(signal.SIGTERM)


class Result:
    def __init__(self, completed):
        self.code, self.out, self.err = (completed.returncode, completed.stdout, completed.stderr)

    def json(self):
        return json.loads(self.out)


class Client:
    """The sheaf command line with a credential of its own."""

    def __init__(self, pool, token, name):
        self.pool, self.token = pool, token
        self.home = os.path.join(pool.dir, "home-" + name)
        os.makedirs(self.home, exist_ok=True)

    def env(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SHEAF_", "XDG_"))}
        env.update(HOME=self.home, SHEAF_URL=self.pool.url, SHEAF_CA=self.pool.ca,
                   SHEAF_TOKEN=self.token)
        return env

    def __call__(self, *words, code=0, stdin="", seconds=120):
        completed = subprocess.run([os.path.join(BIN, "sheaf"), *words], env=self.env(),
                                   input=stdin, capture_output=True, text=True, timeout=seconds,
                                   cwd=self.home, check=False)
        result = Result(completed)
        if code is not None and result.code != code:
            raise AssertionError(f"sheaf {' '.join(words)}: exit {result.code}, not {code}\n"
                                 f"{result.out}\n{result.err}")
        return result

    def json(self, *words, **kw):
        return self(*words, "-o", "json", **kw).json()

    def submit(self, spec, **kw):
        """Submits a job (dict) detached; its id."""
        spec = {"version": 1, "budget": {"max_total": "1"}, "max_duration": "10m", **spec}
        answer = self("apply", "-f", "-", "--yes", "--detach", "-o", "json", stdin=json.dumps(spec),
                      **kw)
        return answer.json()["id"]

    def job(self, job):
        return self.json("show", job)

    def until_state(self, job, *states, seconds=60):
        final = {"succeeded", "failed", "cancelled", "expired", "rejected"}

        def reached():
            seen = self.job(job)
            if seen["state"] not in states and seen["state"] in final:
                raise AssertionError(f"job is {seen['state']}, not {states}: "
                                     f"{seen['reason']} {seen['detail']}")
            return seen if seen["state"] in states else None
        return until(f"job in {states}", reached, seconds)

    def wait(self, job, seconds=120):
        self("wait", job, "--timeout", f"{seconds}s", code=None, seconds=seconds + 30)
        return self.job(job)


class Worker:
    def __init__(self, pool, name, price="0.40", region="eu", extra=(), devices=2, prefix=(),
                 env=None, address=None, images=None):
        self.pool, self.name = pool, name
        self.state = os.path.join(pool.dir, name)
        low = pool.ports.take(10)
        self.common = ["--state", self.state]
        self.join_flags = ["--name", name, "--address", address or pool.host, "--port-range",
                           f"{low}-{low + 8}", "--probe-port", str(low + 9), "--price", price,
                           "--region", region,
                           "--image-cache", images or "0B", *extra]
        machine = os.path.join(pool.dir, name + ".machine-id")  # one machine each, as it were
        with open(machine, "w", encoding="utf-8") as file:
            file.write(uuid.uuid4().hex + "\n")
        self.join_flags += ["--machine-id", machine]
        env = {"POCL_DEVICES": " ".join(["basic"] * devices), "POCL_MEMORY_LIMIT": "1",
               "SHEAF_DEVICE_SALT": name, **(env or {})}
        self.env = env
        self.prefix = list(prefix)
        self.program = Program(name, [os.path.join(BIN, "sheaf-worker"), "run", *self.common,
                                      *self.join_flags],
                               os.path.join(pool.dir, name + ".log"), env, self.prefix)

    def join(self, token, code=0):
        completed = subprocess.run(
            self.prefix + [os.path.join(BIN, "sheaf-worker"), "join", token, *self.common,
                           *self.join_flags],
            env=dict(os.environ, **self.env), capture_output=True, text=True, timeout=120,
            check=False)
        with open(self.program.log_path, "a", encoding="utf-8") as log:
            log.write(completed.stdout + completed.stderr)
        if code is not None and completed.returncode != code:
            raise AssertionError(f"{self.name} join: exit {completed.returncode}\n"
                                 f"{completed.stdout}\n{completed.stderr}")
        return completed

    def start(self):
        if self not in self.pool.workers:
            self.pool.workers.append(self)
        self.program.start(r"sheaf-worker ready", 60)

    def verb(self, *words):
        """What the machine's owner types."""
        return subprocess.run([os.path.join(BIN, "sheaf-worker"), *words, *self.common],
                              capture_output=True, text=True, timeout=60, check=True).stdout

    def lose(self):
        """The machine is gone: the worker, its supervisors and all that they run, at once."""
        self.program.kill(signal.SIGKILL)
        children, doomed = {}, []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                    if f"{self.state}/" in file.read():
                        doomed.append(int(pid))
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(pid))
            except OSError:
                pass  # it ended meanwhile
        for pid in doomed:
            doomed += [child for child in children.get(pid, []) if child not in doomed]
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Pool:
    """An orchestrator and a gateway; workers are added."""

    PACKAGE = "sheaf-worker_0.1.0_amd64.deb"

    def __init__(self, flags=(), host="127.0.0.1"):
        self.dir = tempfile.mkdtemp(prefix="sheaf-e2e-", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.workers = []
        self.host = host
        self.ports = Ports()
        self.port = {name: self.ports.take() for name in
                     ("control", "command", "hints", "metrics", "https", "bulk")}
        state = os.path.join(self.dir, "orchestrator")
        self.control = f"tcp://{host}:{self.port['control']}"
        self.bulk = f"tcp://{host}:{self.port['bulk']}"
        self.orchestrator = Program("orchestrator", [
            os.path.join(BIN, "sheaf-orchestrator"), "run", "--state", state,
            "--worker-bind", self.control, "--advertise", self.control,
            "--command-bind", f"tcp://127.0.0.1:{self.port['command']}",
            "--hint-bind", f"tcp://127.0.0.1:{self.port['hints']}",
            "--metrics-bind", f"127.0.0.1:{self.port['metrics']}", "--operator-token-file",
            os.path.join(self.dir, "operator.token"), *flags],
            os.path.join(self.dir, "orchestrator.log"))
        self.url = f"https://{host}:{self.port['https']}"
        self.gateway = self.make_gateway(self.bulk)
        self.state = state
        self.ca = None

    def make_gateway(self, bulk):
        return Program("gateway", [
            os.path.join(BIN, "sheaf-gateway"), "--link",
            os.path.join(self.dir, "orchestrator", "gateway.link"), "--state",
            os.path.join(self.dir, "gateway"), "--bind", self.url, "--bulk-bind", bulk, "--url",
            self.url, "--bulk-url", bulk, "--packages", self.make_package()],
            os.path.join(self.dir, "gateway.log"))

    def make_package(self):
        """What the gateway hands out beside /join.sh; that it installs is tests/package's matter."""
        folder = os.path.join(self.dir, "packages")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, self.PACKAGE), "w", encoding="ascii") as file:
            file.write("not to be installed")
        return folder

    def start(self):
        self.orchestrator.start("sheaf-orchestrator ready", 120)
        ready = self.gateway.start("sheaf-gateway ready", 60)
        ca = re.search(r"ca=(\S+)", ready).group(1)
        if ca != "-":  # a certificate of the test's own: it says what to trust
            self.ca = ca
        with open(os.path.join(self.dir, "operator.token"), encoding="utf-8") as file:
            token = file.read().strip()
        self.operator = Client(self, token, "operator")
        self.operator("admin", "project", "create", "demo")
        self.operator("admin", "deposit", "demo", "100")
        self.tenant = self.make_tenant("demo")
        return self

    def make_tenant(self, project):
        made = self.operator.json("token", "create", "--role", "tenant", "--project", project)
        return Client(self, made["secret"], "tenant-" + project)

    def join_token(self, provider="p-eu"):
        return self.operator.json("token", "join", "--provider", provider)["token"]

    def add_worker(self, name, region="eu", start=True, **kw):
        worker = Worker(self, name, region=region, **kw)
        self.workers.append(worker)
        worker.join(self.join_token("p-" + region))
        if start:
            worker.start()
        return worker

    def node(self, name):
        """A node by its name, or None."""
        return next((n for n in self.operator.json("node", "ls") if n["name"] == name), None)

    def metric(self, name):
        """The sum of a metric of the orchestrator over its labels."""
        page = subprocess.run(
            ["curl", "-s", f"http://127.0.0.1:{self.port['metrics']}/metrics"],
            capture_output=True, text=True, check=True).stdout
        return sum(float(line.split()[-1]) for line in page.splitlines()
                   if line.split("{")[0].split(" ")[0] == name)

    def until_ready(self, count, seconds=60):
        def ready():
            nodes = self.operator.json("node", "ls")
            good = [n for n in nodes if n["state"] == "ready" and not n["conditions"]]
            return len(good) >= count
        until(f"{count} nodes ready", ready, seconds)
        if count > 1:
            pairs = count * (count - 1) // 2
            until("links measured", lambda: len(
                [p for p in self.operator.json("net")
                 if p["rtt_p95_us"] and p["reach_ab"] and p["reach_ba"]]) >= pairs, seconds)

    def sql(self, statement):
        """One value, read as the owner of all tables: what a gateway sees is row by row."""
        database = os.path.join(self.state, "database")
        conninfo = (f"host='{database}/run' dbname=sheaf user=sheaf_owner "
                    f"passfile='{database}/sheaf_owner.pass'")
        return subprocess.run(["psql", conninfo, "-XAtqc", statement], capture_output=True,
                              text=True, check=True).stdout.strip()

    def ledger_sum(self):
        return self.sql("SELECT coalesce(sum(balance), 0) FROM account")

    def stop(self, keep=False):
        for worker in self.workers:
            worker.program.stop()
        self.gateway.stop()
        self.orchestrator.stop()
        self.ports.close()
        if keep:
            print("kept:", self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
