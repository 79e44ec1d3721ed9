"""A real pool on this machine for end-to-end tests: orchestrator with its private PostgreSQL,
gateway, workers in bubblewrap, all over loopback, each in a folder below one temporary folder.

Nothing waits by sleeping blindly: programs say when they are ready, jobs are followed by their
event stream, and `until` polls a condition under a deadline.
"""
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


def free_ports(count, span=1, above=0):
    """The first of `span` consecutive free TCP ports, `count` times, none of them below `above`."""
    found, at = [], above or 20000 + (os.getpid() * 97) % 20000
    while len(found) < count:
        sockets = []
        try:
            for port in range(at, at + span):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    sock = socket.socket(socket.AF_INET, kind)
                    sockets.append(sock)
                    sock.bind(("127.0.0.1", port))
            found.append(at)
        except OSError:
            pass
        finally:
            for sock in sockets:
                sock.close()
        at += span
    return found


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
    def __init__(self, pool, name, index, price, region, extra, devices, prefix, env):
        self.pool, self.name = pool, name
        self.state = os.path.join(pool.dir, name)
        low = pool.worker_ports[index]
        self.common = ["--state", self.state]
        self.join_flags = ["--name", name, "--address", "127.0.0.1", "--port-range",
                           f"{low}-{low + 8}", "--probe-port", str(low + 9), "--price", price,
                           "--region", region, *extra]
        machine = os.path.join(pool.dir, name + ".machine-id")  # one machine each, as it were
        with open(machine, "w", encoding="utf-8") as file:
            file.write(uuid.uuid4().hex + "\n")
        self.join_flags += ["--machine-id", machine]
        env = {"POCL_DEVICES": " ".join(["basic"] * devices), "POCL_MEMORY_LIMIT": "1",
               "SHEAF_DEVICE_SALT": name, **env}
        self.env = env
        self.prefix = prefix
        self.program = Program(name, [os.path.join(BIN, "sheaf-worker"), "run", *self.common,
                                      *self.join_flags],
                               os.path.join(pool.dir, name + ".log"), env, prefix)

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
        self.program.start(r"sheaf-worker ready", 60)


class Pool:
    """An orchestrator and a gateway; workers are added."""

    def __init__(self, flags=()):
        self.dir = tempfile.mkdtemp(prefix="sheaf-e2e-", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.workers = []
        ports = free_ports(6)
        self.worker_ports = free_ports(12, span=10, above=max(ports) + 1)
        control, command, hints, metrics, https, bulk = ports
        self.metrics_port = metrics
        state = os.path.join(self.dir, "orchestrator")
        self.control = f"tcp://127.0.0.1:{control}"
        self.bulk = f"tcp://127.0.0.1:{bulk}"
        self.ports = {"control": control, "bulk": bulk, "command": command, "https": https}
        self.orchestrator = Program("orchestrator", [
            os.path.join(BIN, "sheaf-orchestrator"), "run", "--state", state,
            "--worker-bind", self.control, "--advertise", self.control,
            "--command-bind", f"tcp://127.0.0.1:{command}",
            "--hint-bind", f"tcp://127.0.0.1:{hints}",
            "--metrics-bind", f"127.0.0.1:{metrics}", "--operator-token-file",
            os.path.join(self.dir, "operator.token"), *flags],
            os.path.join(self.dir, "orchestrator.log"))
        self.url = f"https://127.0.0.1:{https}"
        gateway_state = os.path.join(self.dir, "gateway")
        self.gateway = Program("gateway", [
            os.path.join(BIN, "sheaf-gateway"), "--link", os.path.join(state, "gateway.link"),
            "--state", gateway_state, "--bind", f"https://127.0.0.1:{https}", "--bulk-bind", self.bulk,
            "--url", self.url, "--bulk-url", self.bulk],
            os.path.join(self.dir, "gateway.log"))
        self.state = state
        self.ca = None

    def start(self):
        self.orchestrator.start("sheaf-orchestrator ready", 120)
        ready = self.gateway.start("sheaf-gateway ready", 60)
        self.ca = re.search(r"ca=(\S+)", ready).group(1)
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

    def add_worker(self, name, price="0.40", region="eu", extra=(), devices=2, prefix=(), env=None,
                   start=True):
        worker = Worker(self, name, len(self.workers), price, region, list(extra), devices,
                        list(prefix), env or {})
        self.workers.append(worker)
        token = self.operator.json("token", "join", "--provider", "p-" + region)["token"]
        worker.join(token)
        if start:
            worker.start()
        return worker

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
        """One value, read by the gateway's role."""
        with open(os.path.join(self.state, "gateway.link"), encoding="utf-8") as link:
            conninfo = re.search(r'^database:\s*"?(.*?)"?\s*$', link.read(), re.M).group(1)
        return subprocess.run(["psql", conninfo, "-XAtqc", statement], capture_output=True,
                              text=True, check=True).stdout.strip()

    def ledger_sum(self):
        return self.sql("SELECT coalesce(sum(balance), 0) FROM account")

    def stop(self, keep=False):
        for worker in self.workers:
            worker.program.stop()
        self.gateway.stop()
        self.orchestrator.stop()
        if keep:
            print("kept:", self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
