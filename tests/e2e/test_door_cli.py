"""Bad input at the programs' own doors: command lines, files, servers that are not ours, terminals,
configuration, databases. One test per row C1-C12 of the catalogue; C8 and C13-C15 are in C.
"""
import base64
import fcntl
import json
import os
import pty
import pwd
import signal
import socket
import ssl
import stat
import struct
import subprocess
import tempfile
import termios
import threading
import time
import unittest

from pool import BIN, Client, Pool, Ports, Worker, until

GPU = "cpu:512MB:1"
PG = "/usr/lib/postgresql/15/bin"
NOBODY = 65534


def program(name):
    return os.path.join(BIN, name)


def call(*argv, env=None, seconds=60, stdin="", **kw):
    """A program's (exit code, stdout, stderr)."""
    done = subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True,
                          timeout=seconds, check=False, errors="replace", **kw)
    return done.returncode, done.stdout, done.stderr


def write(path, text, mode=0o644):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


class Impostor:
    """A TLS server that answers every request with the same bytes."""

    def __init__(self, certificate, key, answer):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.context, self.answer = context, answer
        self.asked = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(plain, server_side=True) as peer:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        piece = peer.recv(4096)
                        if not piece:
                            break
                        head += piece
                    if head:
                        self.asked.append(head)
                    peer.sendall(self.answer)
            except OSError:
                pass  # it did not like our certificate
            finally:
                plain.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def http(status, kind, body):
    return (f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n").encode() + body


class Certificates:
    """A CA and what it signs, by openssl's own command line."""

    def __init__(self, folder):
        self.dir = folder
        self.ca = self.path("ca.pem")
        self.new_key("ca")
        self.openssl("req", "-x509", "-key", self.path("ca.key"), "-out", self.ca, "-days", "2",
                     "-subj", "/CN=test authority")

    def path(self, name):
        return os.path.join(self.dir, name)

    def openssl(self, *words):
        subprocess.run(["openssl", *words], check=True, capture_output=True)

    def new_key(self, name):
        self.openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out",
                     self.path(name + ".key"))

    def server(self, name, subject="IP:127.0.0.1", days="2", own=False):
        """Certificate and key; `own`: signed by itself."""
        key, cert = self.path(name + ".key"), self.path(name + ".pem")
        self.new_key(name)
        if own:
            self.openssl("req", "-x509", "-key", key, "-out", cert, "-days", days, "-subj",
                         "/CN=x", "-addext", f"subjectAltName={subject}")
            return cert, key
        extensions = write(self.path(name + ".ext"), f"subjectAltName={subject}\n")
        self.openssl("req", "-new", "-key", key, "-out", self.path(name + ".csr"), "-subj",
                     "/CN=x")
        self.openssl("x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.ca, "-CAkey",
                     self.path("ca.key"), "-days", days, "-extfile", extensions, "-out", cert)
        return cert, key


class Door(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = Pool().start()
        cls.worker = cls.pool.add_worker("door")
        cls.pool.until_ready(1)
        cls.tenant = cls.pool.tenant
        cls.certificates = Certificates(cls.pool.dir)

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")

    def setUp(self):
        self.dir = tempfile.mkdtemp(dir=self.pool.dir)
        os.chmod(self.dir, 0o755)

    def path(self, name):
        return os.path.join(self.dir, name)

    def jobs(self):
        return sorted(job["id"] for job in self.tenant.json("ps", "--all"))

    def client_of(self, url, ca, token="sht_test"):
        client = Client(self.pool, token, "impostor")
        env = client.env()
        env.update(SHEAF_URL=url, SHEAF_CA=ca)
        return env

    # -- command lines and files ---------------------------------------------------------------

    def test_c01_a_wrong_option_is_answered_with_the_nearest_and_the_usage(self):
        before = self.jobs()
        cases = [
            (("sheaf", "ps", "--al"), ("'--al'", "did you mean '--all'?", "usage: sheaf ps")),
            (("sheaf", "run", "--gpus=2", "--", "true"),
             ("did you mean '--gpu'?", "usage: sheaf run")),
            (("sheaf", "run", "--gpu=", "--", "true"),
             ("--gpu wants SPEC, not nothing", "usage:")),
            (("sheaf", "run", "--gpu"), ("--gpu wants SPEC", "usage: sheaf run")),
            (("sheaf", "ps", "--all=yes"), ("--all takes no value", "usage: sheaf ps")),
            (("sheaf", "show"), ("something is missing", "usage: sheaf show JOB")),
            (("sheaf", "show", "a", "b"), ("'b' is too much", "usage: sheaf show JOB")),
            (("sheaf", "pss"), ("did you mean 'ps'?",)),
            (("sheaf", "logs", "x", "--rank", "two"), ("a whole number", "'two'")),
            (("sheaf-worker", "run", "--pric", "1"), ("unknown option --pric", "--price?")),
            (("sheaf-worker", "run", "--price"), ("--price needs a value",)),
            (("sheaf-worker", "jion", "x"), ("unknown verb jion",)),
            (("sheaf-orchestrator", "--stat=/x"), ("unknown option --stat", "--state?")),
            (("sheaf-orchestrator", "migrate", "sideways"), ("--help",)),
            (("sheaf-gateway", "--lnk", "/x"), ("unknown option --lnk", "--link?")),
            (("sheaf-gateway", "serve"), ("no word serve",)),
        ]
        for (name, *words), told in cases:
            code, out, err = call(program(name), *words, env=self.tenant.env())
            self.assertEqual((code, out), (2, ""), (name, words, err))
            for text in told:
                self.assertIn(text, err, (name, words))
        self.assertEqual(self.jobs(), before)

    def test_c02_a_job_file_that_is_none_is_named(self):
        before = self.jobs()
        os.mkfifo(self.path("fifo"))
        os.symlink(self.path("loop"), self.path("loop"))
        with open(self.path("huge"), "wb") as file:
            file.truncate(1 << 30)
        closed = write(self.path("closed.yaml"), "version: 1\n", 0o000)
        cases = [(self.path("absent.yaml"), "No such file"), (self.dir, "not a regular file"),
                 ("/dev/zero", "not a regular file"), (self.path("fifo"), "not a regular file"),
                 (self.path("loop"), "symbolic links"), (self.path("huge"), "at most 65536 bytes")]
        for path, told in cases:
            for verb in (("plan",), ("apply", "--yes")):
                began = time.monotonic()
                result = self.tenant(*verb, "-f", path, code=2, seconds=20)
                self.assertIn(told, result.err)
                self.assertIn(path, result.err)
                self.assertLess(time.monotonic() - began, 10)
        with open("/dev/zero", "rb") as zero:
            done = subprocess.run([program("sheaf"), "plan", "-f", "-"], stdin=zero, check=False,
                                  env=self.tenant.env(), capture_output=True, timeout=20)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(b"at most 65536 bytes", done.stderr)
        if os.geteuid() == 0:  # root reads everything: ask as somebody who may not
            os.chmod(self.dir, 0o777)
            code, _, err = call(program("sheaf"), "plan", "-f", closed, user=NOBODY,
                                env=dict(self.tenant.env(), HOME=self.dir))
            self.assertEqual(code, 2)
            self.assertIn("Permission denied", err)
        self.assertEqual(self.jobs(), before)

    def test_c03_a_credential_that_others_may_read_is_refused(self):
        home = self.path("home")
        os.mkdir(home)
        env = dict(self.tenant.env(), HOME=home)
        for name in ("SHEAF_URL", "SHEAF_CA", "SHEAF_TOKEN"):
            del env[name]
        token = write(self.path("token"), self.tenant.token + "\n", 0o644)
        login = (program("sheaf"), "login", self.pool.url, "--ca", self.pool.ca, "--token-file",
                 token)
        contexts = os.path.join(home, ".config", "sheaf", "contexts.json")
        for mode in (0o644, 0o640, 0o604, 0o620, 0o602):
            os.chmod(token, mode)
            code, _, err = call(*login, env=env)
            self.assertEqual(code, 4, err)
            self.assertIn(f"mode {mode:04o}; run: chmod 600 {token}", err)
            self.assertIn("credential-exposed", err)
            self.assertNotIn(self.tenant.token, err)
        self.assertFalse(os.path.exists(contexts))
        os.chmod(token, 0o600)
        if os.geteuid() == 0:
            os.chown(token, NOBODY, NOBODY)
            code, _, err = call(*login, env=env)
            self.assertEqual(code, 4, err)
            self.assertIn(f"belongs to user {NOBODY}; run: chown 0 {token}", err)
            os.chown(token, 0, 0)
        self.assertEqual(call(*login, env=env)[0], 0)
        self.assertEqual(stat.S_IMODE(os.stat(contexts).st_mode), 0o600)
        self.assertEqual(call(program("sheaf"), "ps", env=env)[0], 0)
        os.chmod(contexts, 0o644)
        code, _, err = call(program("sheaf"), "ps", env=env)
        self.assertEqual(code, 4, err)
        self.assertIn(f"chmod 600 {contexts}", err)

    # -- servers ---------------------------------------------------------------------------------

    def test_c04_a_certificate_that_does_not_verify_ends_it(self):
        made = self.certificates
        good = http(200, "application/json", b'{"items": [], "next_cursor": null}')
        cases = {
            "valid": (made.server("valid"), 0),
            "expired": (made.server("expired", days="-1"), 9),
            "other-name": (made.server("other", subject="DNS:pool.example"), 9),
            "self-signed": (made.server("own", own=True), 9),
        }
        for name, ((cert, key), wanted) in cases.items():
            with Impostor(cert, key, good) as server:
                code, _, err = call(program("sheaf"), "ps", env=self.client_of(server.url, made.ca))
                self.assertEqual(code, wanted, (name, err))
                if wanted:
                    self.assertIn("tls-verify", err, name)
                # Not a word was said, the token least of all, and no option goes on regardless.
                self.assertEqual(len(server.asked) > 0, wanted == 0, name)
        for word in ("--insecure", "-k", "--no-verify", "--tls-verify=false"):
            self.assertEqual(call(program("sheaf"), word, "ps", env=self.tenant.env())[0], 2)
        # The same for a machine that joins: another CA than the one in its token.
        stranger = Worker(self.pool, "misled", devices=1)
        token = self.pool.join_token()
        cert, key = made.server("front")
        with open(made.ca, "rb") as file:
            ca = file.read()
        with Impostor(cert, key, http(200, "application/x-pem-file", ca)) as server:
            joined = stranger.join(self.retold(token, server.url), code=None)
            self.assertEqual(joined.returncode, 9, joined.stderr)
            self.assertIn("tls-verify", joined.stderr)
            self.assertTrue(all(b"Authorization" not in head for head in server.asked))
        self.assertIsNone(self.pool.node("misled"))

    @staticmethod
    def retold(token, url):
        """The join token with another URL in it."""
        head, _, body = token.partition(".")
        value = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        value["url"] = url
        text = base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode())
        return head + "." + text.decode().rstrip("=")

    def test_c05_an_answer_that_is_none_is_shown_harmlessly(self):
        cert, key = self.certificates.server("garbled")
        page = b"<html>\x1b[2J\x1b]0;owned\x07<h1>502 Bad Gateway</h1>" + b"x" * 5000
        cases = [
            (http(200, "text/html", page),
             "HTTP 200 text/html: <html>\\x1b[2J\\x1b]0;owned\\x07<h1>"),
            (http(502, "text/html", page), "HTTP 502 text/html: <html>\\x1b[2J"),
            (http(200, "application/json", b'{"items": [}'),
             'HTTP 200 application/json: {"items": [}'),
            (http(200, "application/json", b"[1, 2]"), "[1, 2]"),
            (http(200, "application/json", b'{"items": 7, "next_cursor": null}'),
             "a list without items"),
            (http(200, "application/json", b"\xff\xfe\x00\x80"), "\\xff\\xfe\\x00\\x80"),
            (http(500, "application/json", "a\u202eb\x9bc".encode()),
             "a\\u{202e}b\\u{9b}c"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "unexpected-response"),
        ]
        for answer, told in cases:
            with Impostor(cert, key, answer) as server:
                code, out, err = call(program("sheaf"), "ps",
                                      env=self.client_of(server.url, self.certificates.ca))
            self.assertEqual((code, out), (9, ""), (answer, err))
            self.assertIn(told, err)
            self.assertIn("unexpected-response", err)
            self.assertNotIn("x" * 200, err)
            controls = [c for c in err if (ord(c) < 32 and c != "\n") or 0x7f <= ord(c) < 0xa0]
            self.assertEqual(controls, [], err)

    # -- terminals and pipes -----------------------------------------------------------------------

    def endless(self, name):
        job = self.tenant.submit({"name": name, "resources": {"gpu": GPU},
                                  "commands": ["while :; do echo tick; sleep 0.1; done"]})
        self.tenant.until_state(job, "running")
        return job

    def on_terminal(self, *words, env=None, size=(0, 0)):
        """What the command writes to a terminal of that size (rows, columns), and its exit code."""
        leader, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        with subprocess.Popen([program("sheaf"), *words], stdin=subprocess.DEVNULL, stdout=terminal,
                              stderr=terminal, env={**self.tenant.env(), **(env or {})}) as process:
            os.close(terminal)
            text = b""
            while True:
                try:
                    piece = os.read(leader, 65536)
                except OSError:  # the other end is closed
                    break
                text += piece
                if not piece:
                    break
            code = process.wait(60)
        os.close(leader)
        return code, text.decode(errors="replace")

    def test_c06_whatever_its_output_goes_to_it_ends_cleanly(self):
        job = self.endless("ticking")
        sheaf, env = program("sheaf"), self.tenant.env()
        # Nobody reads: closed from the start, full, or left after the first line.
        for verb in (("ps",), ("help",), ("man",), ("show", job), ("node", "ls")):
            done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", sheaf, *verb], check=False,
                                  env=env, capture_output=True, text=True, timeout=30)
            self.assertEqual((done.returncode, done.stderr), (0, ""), verb)
            with open("/dev/full", "w", encoding="utf-8") as full:
                done = subprocess.run([sheaf, *verb], stdout=full, stderr=subprocess.PIPE,
                                      check=False, env=env, text=True, timeout=30)
            self.assertEqual(done.returncode, 2, verb)
            self.assertIn("standard output could not be written", done.stderr)
        for verb in (("man",), ("logs", "-f", job), ("events", "-f", job)):
            with subprocess.Popen([sheaf, *verb], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, env=env, text=True) as process:
                self.assertTrue(process.stdout.readline())
                process.stdout.close()
                if verb[0] == "events":  # a quiet stream: the next move wakes it
                    self.tenant("cancel", job)
                err = process.stderr.read()
                self.assertEqual((process.wait(30), err), (0, ""), verb)
        # No home, no terminal to speak of.
        code, out, err = call(sheaf, "ps", env={"PATH": env["PATH"]})
        self.assertEqual((code, out), (2, ""))
        self.assertIn("neither XDG_CONFIG_HOME nor HOME is set", err)
        bare = {name: env[name] for name in ("PATH", "SHEAF_URL", "SHEAF_CA", "SHEAF_TOKEN")}
        self.assertEqual(call(sheaf, "ps", env=bare)[0], 0)
        for size in ((0, 0), (24, 1), (24, 65535)):
            code, text = self.on_terminal("ps", "--all", size=size)
            self.assertEqual(code, 0, text)
            self.assertIn("ticking", text)
        follow = ("apply", "-f", self.quick(), "--yes")
        for plain in ({"TERM": "dumb"}, {"TERM": "", "NO_COLOR": "1"}):
            for words in (("ps", "--all"), ("show", job), follow):
                code, text = self.on_terminal(*words, env=plain)
                self.assertEqual(code, 0, text)
                self.assertNotIn("\x1b", text, (plain, words))
        code, text = self.on_terminal("ps", "--all", env={"TERM": "xterm"})
        self.assertIn("\x1b[", text)
        code, text = self.on_terminal("ps", "--all", env={"TERM": "xterm", "NO_COLOR": "1"})
        self.assertNotIn("\x1b[", text)
        self.interrupted()

    def quick(self):
        return write(self.path("quick.yaml"), "version: 1\nname: quick\nbudget: {max_total: '1'}\n"
                     f"resources: {{gpu: '{GPU}'}}\ncommands: ['echo quick']\n")

    def interrupted(self):
        """Ctrl-C detaches; it cancels nothing and says nothing strange."""
        path = write(self.path("long.yaml"), "version: 1\nname: long\nbudget: {max_total: '1'}\n"
                     f"resources: {{gpu: '{GPU}'}}\ncommands: ['echo here; sleep 300']\n")
        with subprocess.Popen([program("sheaf"), "apply", "-f", path, "--yes"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=self.tenant.env(), text=True) as process:
            self.assertIn("here\n", iter(process.stdout.readline, ""))
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 130, err)
            self.assertIn("detached; the job goes on", err)
        job = next(one for one in self.tenant.json("ps") if one["name"] == "long")
        self.assertEqual(job["state"], "running")
        with subprocess.Popen([program("sheaf"), "logs", "-f", job["id"]],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=self.tenant.env(), text=True) as process:
            self.assertEqual(process.stdout.readline(), "here\n")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            self.assertEqual((process.returncode, out, err), (130, "", ""))
        self.tenant("cancel", job["id"], "--wait", code=None)

    # -- the daemons' own ground ---------------------------------------------------------------

    def test_c07_a_second_program_on_a_state_folder_is_refused(self):
        for running in (self.worker.program, self.pool.orchestrator, self.pool.gateway):
            pid = running.process.pid
            code, out, err = call(*running.argv, env=running.env)
            self.assertEqual(code, 5, (running.name, err))
            self.assertIn("already-running", err)
            self.assertIn(f"process {pid} holds", err)
            self.assertNotIn("ready", out)
            self.assertIsNone(running.process.poll())
        node = self.pool.node("door")
        self.assertEqual((node["state"], node["conditions"]), ("ready", []))
        # The lock is the process's, not the file's: what a killed one leaves holds nobody up.
        self.worker.program.kill()
        self.worker.start()
        self.pool.until_ready(1)

    def test_c09_a_machine_without_devices_says_what_was_probed(self):
        bare = Worker(self.pool, "bare", devices=1, env={"OCL_ICD_VENDORS": self.path("none")})
        token = self.pool.join_token()
        joined = bare.join(token, code=None)
        self.assertEqual(joined.returncode, 5, joined.stderr)
        self.assertIn("no device was found by NVML, AMD's sysfs or OpenCL", joined.stderr)
        self.assertIsNone(self.pool.node("bare"))
        # The token is as good as before; a dry run shows all, tells nobody and makes nothing.
        rich = Worker(self.pool, "rich", devices=2)
        argv = [program("sheaf-worker"), "join", token, "--dry-run", *rich.common, *rich.join_flags]
        code, out, err = call(*argv, env=dict(os.environ, **rich.env))
        self.assertEqual(code, 0, err)
        self.assertIn(f"would join {self.pool.url} as rich", out)
        self.assertEqual(out.count("  cpu  "), 2, out)
        self.assertFalse(os.path.exists(rich.state))
        code, out, err = call(*[word for word in argv if word != token],
                              env=dict(os.environ, **bare.env))
        self.assertEqual(code, 5, out)
        self.assertIn("no device was found", err)
        self.assertIsNone(self.pool.node("rich"))
        rich.join(token)

    CONFIG = {  # program: (a file's lines, what the error must say)
        "sheaf-orchestrator": [
            ("state: /x\nadvertize: tcp://a:1",
             ":2:advertize: unknown key; did you mean advertise?"),
            ("heartbeat: 5 fortnights", ":1:heartbeat: not a time with a unit"),
            ("heartbeat: 5", ":1:heartbeat: not a time with a unit"),
            ("heartbeat: 100h", ":1:heartbeat: out of range"),
            ("# x\n\nfee-ppm: 1010000", ":3:fee-ppm: out of range (0 to 1000000)"),
            ("lost-after: 1s", ":1:lost-after: lost-after is shorter than 3 heartbeats"),
            ("hint-bind: tcp://0.0.0.0:7602",
             ":1:hint-bind: tcp://0.0.0.0:7602 is taken by command-bind"),
            ("metrics-bind: 127.0.0.1:7601",
             ":1:metrics-bind: 127.0.0.1:7601 is taken by worker-bind"),
            ("worker-bind: tcp://0.0.0.0:0\nadvertise: tcp://a.example:7601",
             ":1:worker-bind: port 0 is another"),
            ("worker-bind: 0.0.0.0:7601", ":1:worker-bind: 0.0.0.0:7601 is not tcp://HOST:PORT"),
            ("worker-bind: tcp://0.0.0.0:70000", ":1:worker-bind: a port is at most 65535"),
            ("log-level: loud", ":1:log-level: debug, info, warn or error"),
            ("paranoid: maybe", ":1:paranoid: not true or false"),
            ("state: [a, b]", ":1:state: one value is wanted"),
        ],
        "sheaf-gateway": [
            ("lnk: /x", ":1:lnk: unknown key; did you mean link?"),
            ("link: /x\nbulk-bind: tcp://0.0.0.0:7443",
             ":2:bulk-bind: tcp://0.0.0.0:7443 is taken by bind"),
            ("link: /x\nbind: https://0.0.0.0:0\nurl: https://a.example",
             ":2:bind: port 0 is another"),
            ("link: /x\nurl: ftp://a.example", ":2:url: does not start with https://"),
            ("link: /x\ntls-cert: /y", ":2:tls-cert: tls-cert and tls-key go together"),
            ("link: /x\nmax-connections: 1e9", ":2:max-connections: not a whole number"),
            ("link: /x\nlink: /y", ":2:1: this key stands twice"),
        ],
        "sheaf-worker": [
            ("prise: '1'", ":1:prise: unknown key; did you mean price?"),
            ("notice: 5 fortnights", ":1:notice: not a time with a unit"),
            ("price: '-1'", ":1:price:"),
            ("port-range: 7700-7800", "default:probe-port: 7800 is taken by port-range"),
            ("probe-port: 7750", ":1:probe-port: 7750 is taken by port-range"),
            ("probe-port: 0", ":1:probe-port: out of range (1 to 65535)"),
            ("port-range: 9-1", ":1:port-range: '9-1' is not LOW-HIGH"),
            ("country: Norway", ":1:country: not two capital letters"),
            ("name: No Name", ":1:name: 'No Name' is not"),
            ("orphan-policy: eat", ":1:orphan-policy: neither"),
        ],
    }

    def test_c10_a_wrong_configuration_names_file_line_and_key(self):
        for name, cases in self.CONFIG.items():
            for text, told in cases:
                path = write(self.path("wrong.yaml"), text + "\n")
                code, out, err = call(program(name), "--config", path, "--check-config")
                self.assertEqual((code, out), (2, ""), (name, text, err))
                self.assertIn(path + told if told.startswith(":") else told, err, (name, text))
                # Whoever starts it instead of asking is refused in the same words.
                self.assertEqual(call(program(name), "--config", path, "run")[0], 2, (name, text))

    def test_c11_a_file_that_cannot_be_one_is_refused(self):
        key = self.path("identity")
        with open(self.path("huge.yaml"), "wb") as file:
            file.truncate(1 << 30)
        os.mkfifo(self.path("fifo.yaml"))
        write(self.path("deep.yaml"), "state: " + "[" * 50000)
        write(self.path("bomb.yaml"), "state: &a [x, x]\nname: [*a, *a]\n")
        # There are no includes: a loop of them cannot be.
        write(self.path("include.yaml"), f"include: {self.path('include.yaml')}\n")
        cases = {"huge.yaml": "is larger than", "fifo.yaml": "not a regular file",
                 "absent.yaml": "No such file", "deep.yaml": "deep.yaml", "bomb.yaml": "bomb.yaml",
                 "include.yaml": "include.yaml:1:include: unknown key"}
        for name in ("sheaf-worker", "sheaf-orchestrator", "sheaf-gateway"):
            for file, told in cases.items():
                began = time.monotonic()
                code, _, err = call(program(name), "--config", self.path(file), "--check-config")
                self.assertEqual(code, 2, (name, file, err))
                self.assertIn(told, err)
                self.assertLess(time.monotonic() - began, 5, (name, file))
        # Keys that others may change or read: each program that holds one.
        link = write(self.path("gateway.link"), "x: y\n", 0o666)
        code, _, err = call(program("sheaf-gateway"), "--link", link, "--state", self.path("gw"))
        self.assertEqual(code, 4, err)
        self.assertIn(f"mode 0666; run: chmod 640 {link}", err)
        self.assertFalse(os.path.exists(self.path("gw")))
        cert, key = self.certificates.server("exposed")
        os.chmod(key, 0o646)
        code, _, err = call(*self.pool.gateway.argv, "--state", self.path("gw2"), "--tls-cert",
                            cert, "--tls-key", key)
        self.assertEqual(code, 4, err)
        self.assertIn(f"mode 0646; run: chmod 640 {key}", err)
        os.makedirs(self.path("orc"))
        identity = write(os.path.join(self.path("orc"), "identity"), "x\n", 0o602)
        code, _, err = call(program("sheaf-orchestrator"), "run", "--state", self.path("orc"))
        self.assertEqual(code, 4, err)
        self.assertIn(f"mode 0602; run: chmod 600 {identity}", err)

    # -- databases ---------------------------------------------------------------------------------

    def orchestrate(self, conninfo, *words):
        """Starts an orchestrator on that database; its code and all that it said."""
        code, out, err = call(
            program("sheaf-orchestrator"), *(words or ("run",)), "--state",
            self.path("orchestrator"), "--database", conninfo, "--gateway-database", conninfo)
        self.assertNotIn("CANARY", out + err)
        return code, out + err

    def test_c12_a_database_that_cannot_be_used_is_named_without_its_password(self):
        ports = Ports()
        self.addCleanup(ports.close)
        port = ports.take()
        code, said = self.orchestrate(
            f"host=127.0.0.1 port={port} user=sheaf password=CANARY-1 dbname=sheaf")
        self.assertEqual(code, 9, said)
        self.assertIn("database:", said)
        self.assertIn("Connection refused", said)
        self.serve_postgres(port)
        base = f"host=127.0.0.1 port={port} user=postgres"
        code, said = self.orchestrate(f"{base} password=CANARY-wrong dbname=postgres")
        self.assertEqual(code, 9, said)
        self.assertIn("password authentication failed", said)
        code, said = self.orchestrate(f"{base} password=CANARY dbname=nowhere")
        self.assertEqual(code, 9, said)
        self.assertIn('database "nowhere" does not exist', said)
        code, said = self.orchestrate(f"{base} password=CANARY dbname=postgres")
        self.assertEqual(code, 5, said)  # it is there, and empty
        self.assertIn("the database has schema version 0, this program needs", said)
        for setting, told in (("fsync=off", "fsync is off"),
                              ("full_page_writes=off", "full_page_writes is off")):
            self.psql(port, f"ALTER SYSTEM SET {setting.replace('=', ' = ')}")
            self.psql(port, "SELECT pg_reload_conf()")
            name = setting.split("=")[0]
            until(f"{name} is off", lambda n=name: self.psql(port, f"SHOW {n}") == "off")
            code, said = self.orchestrate(f"{base} password=CANARY dbname=postgres", "migrate",
                                          "up")
            self.assertEqual(code, 9, said)
            self.assertIn(told, said)
            self.psql(port, f"ALTER SYSTEM RESET {name}")
            self.psql(port, "SELECT pg_reload_conf()")
            until(f"{name} is on", lambda n=name: self.psql(port, f"SHOW {n}") == "on")
        self.psql(port, "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'"
                        " LC_COLLATE 'C' LC_CTYPE 'C'")
        code, said = self.orchestrate(f"{base} password=CANARY dbname=latin", "migrate", "up")
        self.assertEqual(code, 9, said)
        self.assertIn("encoding is not UTF8", said)
        self.assertEqual(self.psql(port, "SELECT to_regclass('schema_version') IS NULL"), "t")
        code, said = self.orchestrate("nonsense password=CANARY")
        self.assertEqual(code, 9, said)
        # No such server is in Debian 12: the greeting of one, as the protocol has it.
        with AncientServer() as ancient:
            for words in (("run",), ("migrate", "up")):
                code, said = self.orchestrate(
                    f"host=127.0.0.1 port={ancient.port} user=x password=CANARY dbname=x"
                    " sslmode=disable", *words)
                self.assertEqual(code, 9, said)
                self.assertIn("the server is PostgreSQL 11.22, 15 is wanted at least", said)
            self.assertEqual(ancient.queries, 0)

    def serve_postgres(self, port):
        """A PostgreSQL that wants a password, on TCP alone."""
        data = self.path("pg")
        word = write(self.path("pg.password"), "CANARY\n", 0o644)
        os.makedirs(data)
        prefix = []
        if os.geteuid() == 0:
            os.chown(data, *self.postgres_ids())
            prefix = ["runuser", "-u", "postgres", "--"]
        subprocess.run([*prefix, f"{PG}/initdb", "-D", data, "-U", "postgres", "--pwfile", word,
                        "-A", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "-N"],
                       check=True, capture_output=True, cwd="/")
        server = subprocess.Popen(
            [*prefix, f"{PG}/postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", ""],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            cwd="/", start_new_session=True)
        self.addCleanup(self.end, server)
        self.assertTrue(any("ready to accept connections" in line
                            for line in iter(server.stderr.readline, "")))
        threading.Thread(target=server.stderr.read, daemon=True).start()

    @staticmethod
    def end(process):
        os.killpg(process.pid, signal.SIGINT)  # fast shutdown, through runuser too
        process.wait(30)
        process.stderr.close()

    @staticmethod
    def postgres_ids():
        entry = pwd.getpwnam("postgres")
        return entry.pw_uid, entry.pw_gid

    @staticmethod
    def psql(port, statement):
        return subprocess.run(["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres",
                               "-XAtqc", statement], check=True, capture_output=True, text=True,
                              env=dict(os.environ, PGPASSWORD="CANARY")).stdout.strip()


class AncientServer:
    """Greets like PostgreSQL 11.22 and counts what is asked of it."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.queries = 0
        threading.Thread(target=self.serve, daemon=True).start()

    @staticmethod
    def message(kind, body):
        return kind + struct.pack("!I", len(body) + 4) + body

    def serve(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.greet, args=(peer,), daemon=True).start()

    def greet(self, peer):
        with peer:
            size, = struct.unpack("!I", peer.recv(4, socket.MSG_WAITALL))
            peer.recv(size - 4, socket.MSG_WAITALL)
            parameters = b"".join(
                self.message(b"S", f"{key}\0{value}\0".encode()) for key, value in
                (("server_version", "11.22"), ("client_encoding", "UTF8"),
                 ("standard_conforming_strings", "on")))
            peer.sendall(self.message(b"R", struct.pack("!I", 0)) + parameters
                         + self.message(b"K", struct.pack("!II", 1, 1)) + self.message(b"Z", b"I"))
            while peer.recv(1) not in (b"", b"X"):
                self.queries += 1
                size, = struct.unpack("!I", peer.recv(4, socket.MSG_WAITALL))
                peer.recv(size - 4, socket.MSG_WAITALL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
