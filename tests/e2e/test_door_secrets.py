"""Secrets are planted, everything that the programs produce is searched for them.

The pool runs on a database with passwords in its connection strings, one given by flag and one by
environment, with a TLS key of the operator's own, and a worker that joined and went on in one go.
"""
import base64
import glob
import http.client
import json
import os
import re
import signal
import ssl
import stat
import subprocess
import unittest

from pool import Client, Pool, Program, Worker, until

WORD = "CANARY-8c1f27-env"


class Secrets(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = Pool(["--keep-database"])
        cls.addClassCleanup(cls.close)
        cls.database = os.path.join(cls.pool.state, "database")
        cls.secrets = {"word in the job's environment": WORD}
        cls.use_passwords()
        cls.use_own_certificate()
        cls.produced = {}
        cls.pool.start()
        cls.join_and_run()
        cls.know_keys()
        cls.live()

    @classmethod
    def close(cls):
        for worker in cls.pool.workers:
            worker.program.stop()
        cls.pool.gateway.stop()
        cls.pool.orchestrator.stop()
        with open(os.path.join(cls.database, "data", "postmaster.pid"), encoding="utf-8") as file:
            server = int(file.readline())
        os.kill(server, signal.SIGINT)
        until("the database stops", lambda: not os.path.exists(f"/proc/{server}"))
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")

    # -- planting -----------------------------------------------------------------------------

    @classmethod
    def use_passwords(cls):
        """The private server, used as somebody's own: connection strings with passwords."""
        pool = cls.pool
        pool.orchestrator.start("sheaf-orchestrator ready", 120)
        pool.orchestrator.stop()
        connection = {}
        for role in ("orchestrator", "gateway"):
            with open(f"{cls.database}/sheaf_{role}.pass", encoding="utf-8") as file:
                password = file.read().strip().rpartition(":")[2]
            cls.secrets[f"password of {role}"] = password
            connection[role] = (f"host='{cls.database}/run' dbname=sheaf user=sheaf_{role} "
                                f"password={password}")
        pool.orchestrator.argv += ["--database", connection["orchestrator"]]
        pool.orchestrator.env["SHEAF_ORCHESTRATOR_GATEWAY_DATABASE"] = connection["gateway"]

    @classmethod
    def use_own_certificate(cls):
        cert, key = (os.path.join(cls.pool.dir, "own." + kind) for kind in ("pem", "key"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=own", "-days", "2",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
                       check=True, capture_output=True)
        cls.pool.gateway.argv += ["--tls-cert", cert, "--tls-key", key]
        cls.pool.ca = cert

    @classmethod
    def join_and_run(cls):
        """The line that `sheaf token join` prints, typed as it is."""
        token = cls.pool.join_token()
        cls.secrets["join token"] = token
        inside = base64.urlsafe_b64decode(token.partition(".")[2] + "===").decode(errors="replace")
        cls.secrets["secret of the join token"] = re.search(r"shj_[\w-]{20,}", inside).group()
        worker = Worker(cls.pool, "w1", devices=1)
        worker.program = Program("w1", [worker.program.argv[0], "join", token, "--run",
                                        *worker.common, *worker.join_flags],
                                 worker.program.log_path, worker.env)
        worker.start()
        cls.worker = worker
        cls.pool.until_ready(1)

    @classmethod
    def know_keys(cls):
        """Tokens and private keys, from the files that hold them."""
        state = cls.pool.state
        cls.secrets["operator's token"] = cls.pool.operator.token
        cls.secrets["tenant's token"] = cls.pool.tenant.token
        with open(os.path.join(state, "gateway.link"), encoding="utf-8") as file:
            cls.secrets["gateway's token"] = re.search(r"shg_[\w-]{20,}", file.read()).group()
        for path in (f"{state}/identity", f"{state}/gateway.link", f"{cls.worker.state}/identity",
                     f"{cls.pool.dir}/gateway/bulk.keys"):
            with open(path, encoding="utf-8") as file:
                found = re.findall(r'^(\w+_secret): *"?([0-9a-f]{64})', file.read(), re.M)
            assert found, path
            for name, value in found:
                cls.secrets[f"{name} of {path}"] = value
        keys = glob.glob(f"{cls.pool.dir}/**/*.key", recursive=True)
        assert f"{cls.pool.dir}/own.key" in keys
        for path in keys:
            with open(path, encoding="utf-8") as file:
                cls.secrets[f"key of {path}"] = file.read().split("\n")[1]

    # -- living -------------------------------------------------------------------------------

    @classmethod
    def live(cls):
        """A job from its file to its bill, and requests that are refused; looks while it runs."""
        pool = cls.pool
        job = pool.tenant.submit({
            "name": "canary", "resources": {"gpu": "cpu:512MB:1"}, "env": ["HIDDEN=" + WORD],
            "commands": ["test ${#HIDDEN} = 17; while ! test -e /job/go; do sleep 0.1; done",
                         "exit 3"]})
        pool.tenant.until_state(job, "running")
        cls.look_at_processes()
        for folder in glob.glob(f"{cls.worker.state}/tasks/*/job"):
            with open(os.path.join(folder, "go"), "w", encoding="utf-8"):
                pass
        assert pool.tenant.wait(job)["state"] == "failed"
        for words in (("events", job), ("why", job), ("cost", job), ("logs", job), ("ps",),
                      ("account",), ("node", "ls")):
            done = pool.tenant(*words, code=None)
            cls.produced["sheaf " + words[0]] = done.out + done.err
        wrong = Client(pool, pool.operator.token + "x", "wrong")
        done = wrong("ps", code=4)
        cls.produced["sheaf with a wrong token"] = done.out + done.err
        spent = Worker(pool, "w2", devices=1).join(cls.secrets["join token"], code=None)
        assert spent.returncode != 0
        cls.produced["join with a spent token"] = spent.stdout + spent.stderr
        cls.ask_wrongly(job)
        pool.orchestrator.process.send_signal(signal.SIGHUP)
        until("settings were read again", lambda: "event=reloaded" in pool.orchestrator.log())

    @classmethod
    def ask_wrongly(cls, job):
        """Problem documents for requests that carry a secret where it does not belong."""
        pool = cls.pool
        host, port = pool.url.removeprefix("https://").split(":")
        token = pool.tenant.token
        bearer = {"Authorization": "Bearer " + token}
        key = {**bearer, "Idempotency-Key": "k", "Content-Type": "application/json"}
        spec = {"version": 1, "env": ["HIDDEN=" + WORD], "commands": ["true"], "nodes": "many"}
        requests = [
            ("GET", f"/api/v1/jobs?token={token}", None, {}),
            ("GET", f"/api/v1/jobs?access_token={token}", None, bearer),
            ("GET", "/api/v1/jobs/" + token, None, bearer),
            ("GET", "/api/v1/jobs", None, {"Authorization": "Basic " + token}),
            ("GET", "/api/v1/jobs", None, {"Authorization": "Bearer " + token + "?"}),
            ("GET", "/api/v1/jobs?cursor=" + token, None, bearer),
            ("DELETE", "/api/v1/jobs/" + job, None, bearer),
            ("POST", "/api/v1/jobs", json.dumps(spec), key),
            ("POST", "/api/v1/jobs", json.dumps(spec)[:-9], key),
            ("POST", "/api/v1/plans", json.dumps({**spec, "nodes": 1, "max_duration": 5}), key),
            ("POST", "/api/v1/join", "{}", {**key, "Authorization": "Bearer "
                                            + cls.secrets["secret of the join token"]}),
        ]
        connection = http.client.HTTPSConnection(
            host, int(port), context=ssl.create_default_context(cafile=cls.pool.ca), timeout=20)
        for method, path, body, headers in requests:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status >= 400, (method, path, answer.status)
            cls.produced[f"problem of {method} {path[:24]} {json.loads(text)['code']}"] = (
                f"{text} {answer.headers}")
        for path in ("/metrics", "/openapi.json", "/", "/readyz", "/version"):
            connection.request("GET", path)
            cls.produced[path] = connection.getresponse().read().decode()
        connection.close()
        cls.produced["orchestrator's metrics"] = subprocess.run(
            ["curl", "-s", f"http://127.0.0.1:{pool.port['metrics']}/metrics"],
            capture_output=True, text=True, check=True).stdout

    @classmethod
    def ours(cls):
        """Process ids that name this pool's folder, and what runs under them."""
        children, found = {}, []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                    if cls.pool.dir in file.read():
                        found.append(pid)
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                    children.setdefault(file.read().rpartition(")")[2].split()[1], []).append(pid)
            except OSError:
                pass  # it ended meanwhile
        for pid in found:
            found += [child for child in children.get(pid, ()) if child not in found]
        return found

    @classmethod
    def look_at_processes(cls):
        cls.arguments, cls.environments, cls.limits = {}, {}, {}
        for pid in cls.ours():
            try:
                with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                    words = file.read().split("\0")
                name = f"{os.path.basename(words[0])} {pid}"
                cls.arguments[name] = " ".join(words)
                with open(f"/proc/{pid}/environ", encoding="utf-8", errors="replace") as file:
                    cls.environments[name] = file.read()
                with open(f"/proc/{pid}/limits", encoding="utf-8") as file:
                    cls.limits[name] = next(line for line in file if "core file" in line).split()
            except OSError:
                pass

    # -- searching ----------------------------------------------------------------------------

    def search(self, where, text, but=()):
        for what, secret in self.secrets.items():
            if what not in but:
                self.assertNotIn(secret, text, f"{where} shows the {what}")

    def test_the_secrets_are_known(self):
        self.assertGreaterEqual(len(self.secrets), 16)
        self.assertEqual(len(set(self.secrets.values())), len(self.secrets))
        self.assertTrue(all(len(secret) >= 17 for secret in self.secrets.values()))

    def test_no_log_shows_one(self):
        logs = {program.name: program.log() for program in (
            self.pool.orchestrator, self.pool.gateway, self.worker.program)}
        with open(f"{self.database}/run/server.log", encoding="utf-8") as file:
            logs["the database's log"] = file.read()
        for path in glob.glob(f"{self.worker.state}/tasks/*/supervisor.log"):
            with open(path, encoding="utf-8") as file:
                logs[path] = file.read()
        for where, text in logs.items():
            self.search(where, text)
        self.assertGreater(len("".join(logs.values())), 2000)

    def test_no_answer_shows_one(self):
        self.assertGreater(len(self.produced), 20)
        for where, text in self.produced.items():
            self.assertTrue(text or where == "sheaf logs", where)
            self.search(where, text)

    def test_no_argument_of_a_process_shows_one(self):
        programs = {name.split()[0] for name in self.arguments}
        self.assertLessEqual({"sheaf-orchestrator", "sheaf-gateway", "sheaf-worker", "bwrap",
                              "sheaf-supervisor"}, programs)
        for where, text in self.arguments.items():
            self.search("ps of " + where, text)
        orchestrator = next(t for n, t in self.arguments.items() if "orchestrator" in n)
        self.assertRegex(orchestrator, r"--database \*{20,}")
        self.assertRegex(next(t for n, t in self.arguments.items() if "sheaf-worker" in n),
                         r"join \*{20,} --run")

    def test_no_environment_of_a_daemon_shows_one(self):
        for where, text in self.environments.items():
            if where.startswith("sheaf-"):
                self.search("environment of " + where, text)
        # The task itself has its own, and it alone.
        having = {where.split()[0] for where, text in self.environments.items() if WORD in text}
        self.assertLessEqual(having, {"sh", "sleep", "test"})
        self.assertIn("sh", having)

    def test_nothing_that_holds_keys_dumps_core(self):
        self.assertGreater(len(self.limits), 5)
        for where, words in self.limits.items():
            if where.split()[0].startswith("postgres"):
                continue
            self.assertEqual(words[4:6], ["0", "0"], where)

    def test_files_that_hold_one_are_closed(self):
        holding = 0
        for folder, folders, files in os.walk(self.pool.dir):
            if folder == self.database:
                folders.remove("data")  # the server's own, 0700
                self.assertEqual(stat.S_IMODE(os.stat(f"{folder}/data").st_mode), 0o700)
            for name in folders + files:
                path = os.path.join(folder, name)
                mode = os.lstat(path).st_mode
                if not stat.S_ISSOCK(mode) and not stat.S_ISLNK(mode):
                    self.assertFalse(mode & stat.S_IWOTH, f"{path} is writable by everybody")
                if not stat.S_ISREG(mode):
                    continue
                with open(path, encoding="utf-8", errors="replace") as file:
                    text = file.read()
                held = [what for what, secret in self.secrets.items() if secret in text]
                if held:
                    holding += 1
                    self.assertFalse(mode & 0o077, f"{path} ({mode:o}) holds the {held}")
        self.assertGreater(holding, 8)

    def test_the_database_holds_hashes(self):
        """What is stored for good: no token, no key; of a job its file alone, with what is in it."""
        conninfo = (f"host='{self.database}/run' dbname=sheaf user=sheaf_owner "
                    f"passfile='{self.database}/sheaf_owner.pass'")
        dump = subprocess.run(["/usr/lib/postgresql/15/bin/pg_dump", "--data-only", "--inserts",
                               conninfo], capture_output=True, text=True, check=True).stdout
        self.assertIn("INSERT INTO public.token", dump)
        self.search("the database", dump, but=("word in the job's environment",))
        for line in dump.splitlines():
            if WORD in line:
                self.assertRegex(line, r"^INSERT INTO public\.(job|journal\w*) ")


if __name__ == "__main__":
    unittest.main(verbosity=2)
