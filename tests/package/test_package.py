"""The .deb files on bare Debian 12 roots: installed by a stranger's one line, used, and taken away
without a trace. The pool is a real one, of the programs that the packages hold.
"""
import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
os.environ["SHEAF_BIN"] = os.path.join(ROOT, "build", "release", "bin")
sys.path[:0] = [os.path.join(ROOT, "tests", "e2e"), HERE]

from machine import Machine, base  # noqa: E402
from pool import Client, Pool, until  # noqa: E402

PACKAGES = os.path.join(ROOT, "build", "release", "packages")
NAMES = ("sheaf", "sheaf-worker", "sheaf-gateway", "sheaf-orchestrator")
# A cable of four addresses, unlikely to be anybody's.
NET = f"10.213.{os.getpid() % 250}."
HERE_IP, THERE_IP = NET + "1", NET + "2"
DEVICE = {"POCL_DEVICES": "basic", "POCL_MEMORY_LIMIT": "1"}


def package(name):
    return glob.glob(os.path.join(PACKAGES, f"{name}_*_amd64.deb"))[0]


def left_over(before, after):
    """What is there now and was not, or is otherwise than it was."""
    return {path: facts for path, facts in after.items() if before.get(path) != facts}


class Case(unittest.TestCase):
    maxDiff = 4000


class Notified:
    """What a daemon tells its service manager, on a socket inside a machine."""

    def __init__(self, machine):
        self.path = machine.path("/notify")
        self.inside = "/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if os.path.exists(self.path):
            os.remove(self.path)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o666)
        self.socket.settimeout(60)

    def until(self, wanted):
        while True:
            text = self.socket.recv(4096).decode()
            if wanted in text.split("\n"):
                return text

    def close(self):
        self.socket.close()
        os.remove(self.path)


class Files(Case):
    """The packages themselves."""

    def test_lintian_finds_no_error(self):
        subprocess.run(["lintian", "--fail-on", "error", "--allow-root",
                        *(package(name) for name in NAMES)], check=True)

    def test_the_worker_needs_no_database_and_no_console(self):
        depends = subprocess.run(["dpkg-deb", "-f", package("sheaf-worker"), "Depends"],
                                 capture_output=True, text=True, check=True).stdout
        self.assertIn("libzmq5", depends)
        for foreign in ("libpq", "postgres", "node", "chromium"):
            self.assertNotIn(foreign, depends)

    def test_scripts_are_plain_shell(self):
        subprocess.run(["shellcheck", os.path.join(ROOT, "orchestrator/gateway/join.sh"),
                        os.path.join(ROOT, "deploy/package"),
                        os.path.join(ROOT, "deploy/debian/made"),
                        *glob.glob(os.path.join(ROOT, "build/release/deploy/*/p[or]*"))],
                       check=True)


class Worker(Case):
    """From a bare machine to a job on it and back to a bare machine."""

    @classmethod
    def setUpClass(cls):
        cls.machine = Machine("worker")
        shutil.copy(package("sheaf-worker"), cls.machine.path("/tmp/worker.deb"))
        cls.machine.fetch("--no-install-recommends", "/tmp/worker.deb", "nftables",
                          "pocl-opencl-icd")
        os.remove(cls.machine.path("/tmp/worker.deb"))
        cls.machine.start(THERE_IP, HERE_IP)
        cls.before, cls.accounts = cls.machine.files(), cls.machine.accounts()
        cls.packages = cls.machine.path("/../") + f"{cls.machine.name}-packages"
        os.makedirs(cls.packages)
        shutil.copy(package("sheaf-worker"), cls.packages)
        cls.pool = Pool(host=HERE_IP)
        cls.pool.gateway.argv += ["--packages", cls.packages]  # the later one counts
        cls.pool.start()

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")
        cls.machine.stop()
        shutil.rmtree(cls.packages, ignore_errors=True)

    def line(self, provider="p"):
        """What is pasted, as root types it."""
        made = self.pool.operator.json("token", "join", "--provider", provider)
        self.assertTrue(made["install"].startswith("curl -fsS -k --pinnedpubkey 'sha256//"), made)
        return made["install"].replace("| sudo sh", "| sh")

    def worker(self, *words, **kw):
        return self.machine.run("sheaf-worker", *words, env=DEVICE, **kw)

    def start_worker(self):
        notified = Notified(self.machine)
        log = open(os.path.join(self.pool.dir, "packaged.log"), "ab")
        process = subprocess.Popen(
            self.machine.command("sheaf-worker", "run"), stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, env=self.machine.env(NOTIFY_SOCKET=notified.inside, **DEVICE))
        log.close()
        notified.until("READY=1")
        return process, notified

    def test_1_what_does_not_fit_is_refused_and_nothing_is_installed(self):
        line = self.line()
        before = self.machine.files()
        script = line.split(" | ")[0]

        def refused(command, reason):
            said = self.machine.sh(command, code=1, env=DEVICE)
            self.assertIn(reason, said)
            self.assertEqual(left_over(before, self.machine.files()), {})

        def with_fake(program, prints):
            """The machine says something else of itself."""
            return (f"mkdir -p /tmp/fake; printf '#!/bin/sh\\necho {prints}\\n' >/tmp/fake/{program};"
                    f" chmod +x /tmp/fake/*; export PATH=/tmp/fake:$PATH; {line}")
        refused(with_fake("uname", "Linux aarch64"), "built for Linux on x86-64")
        self.machine.sh("rm -r /tmp/fake")
        refused(with_fake("getconf", "glibc 2.31"), "glibc is 2.31 here")
        self.machine.sh("rm -r /tmp/fake")
        refused(f"{script} | sh", "no token")
        refused(f"{script} | sh -s -- sheaf-join-1.eyJjYSI6ICJmZiJ9", "of another pool")
        refused(f"{script} | sh -s -- sheaf-join-1.xxx", "damaged")
        refused(f"{line.replace('| sh', '| sed s/^sha256=.*/sha256=00/ | sh')}", "SHA-256 differs")
        refused(f"{line.replace('| sh', '| sed /^url=/s/https/http/ | sh')}", "cannot fetch")
        # Another server's key: curl itself ends, and the shell gets nothing to run.
        pin = re.search(r"sha256//\S+", line).group(0)[:-1]
        self.assertIn("(90)", self.machine.sh(
            script.replace(pin, "sha256//" + "A" * 43 + "="), code=90))
        self.assertEqual(left_over(before, self.machine.files()), {})
        # A gateway with nothing to hand out says what is missing and where.
        deb = glob.glob(self.packages + "/*.deb")[0]
        os.rename(deb, deb + ".away")
        missing = self.machine.sh(script.replace("-fsS", "-sS"))
        self.assertIn('"status":404', missing.replace(" ", ""))
        self.assertIn(self.packages, missing)
        self.assertIsNone(self.pool.operator.json("token", "join", "--provider", "p")["install"])
        os.rename(deb + ".away", deb)

    def test_2_a_worker_that_its_pool_does_not_hear_goes_only_by_force(self):
        machine, pool = self.machine, self.pool
        machine.sh(self.line() + " --name stubborn", env=DEVICE, seconds=300)
        process, notified = self.start_worker()
        pool.until_ready(1)
        job = pool.tenant.submit({"name": "long", "resources": {"gpu": "cpu:512MB:1"},
                                  "commands": ["sleep 600"]})
        pool.tenant.until_state(job, "running")
        pool.orchestrator.kill()
        state = machine.path("/var/lib/sheaf/worker")
        until("the worker notices", lambda: not machine_connected(self.worker), 60)
        self.assertIn("--force", self.worker("uninstall", code=9))
        self.assertTrue(os.path.exists(os.path.join(state, "identity")))
        self.assertIn("sheaf-superviso", machine.processes())  # as the kernel cuts it
        self.assertIn("no worker's state folder",
                      self.worker("--state", "/etc", "uninstall", "--force", code=5))
        self.assertIn("write: sheaf-worker uninstall", self.worker("uninstall", "--now", code=2))
        # A removal without uninstall ends what runs and keeps who this machine is …
        machine.run("apt-get", "remove", "-y", "sheaf-worker")
        self.assertEqual(process.wait(30), 0)
        notified.close()
        self.assertEqual(machine.processes(), [])
        self.assertTrue(os.path.exists(os.path.join(state, "identity")))
        self.assertNotIn("sheaf", machine.run("nft", "list", "ruleset"))
        # … and a purge keeps nothing.
        machine.run("apt-get", "purge", "-y", "sheaf-worker")
        self.assertEqual([path for path in machine.files() if "sheaf" in path], [])
        pool.orchestrator.start("sheaf-orchestrator ready", 120)
        until("the gateway hears it", lambda: pool.operator(
            "token", "join", "--provider", "p", code=None).code == 0, 60)

    def test_3_one_line_installs_joins_runs_and_goes(self):
        machine, pool = self.machine, self.pool
        # For the pool the machine that went by force is still its: this one is another.
        machine.sh("rm -f /etc/machine-id")
        line = self.line() + " --name packaged --price 0.30"
        said = machine.sh(line, env=DEVICE, seconds=300)
        self.assertIn("joined as packaged", said)
        self.assertIn("start it yourself: sheaf-worker run", said)
        again = machine.sh(line, env=DEVICE)
        self.assertIn("is installed", again)
        self.assertIn("joined already: packaged", again)

        doctor = self.worker("doctor", code=None)
        self.assertNotIn("sheaf-supervisor is not in", doctor)
        self.assertIn("bwrap", doctor)
        self.assertIn("offer this machine", machine.sh(
            "zcat /usr/share/man/man8/sheaf-worker.8.gz"))

        process, notified = self.start_worker()
        pool.until_ready(1)
        job = pool.tenant.submit({"name": "hello", "resources": {"gpu": "cpu:512MB:1"},
                                  "placement": {"exclude_nodes": ["stubborn"]},
                                  "commands": ["echo made by a package; id -u; echo kept >/out/x"],
                                  "outputs": ["/out"]})
        ended = pool.tenant.wait(job)
        self.assertEqual(ended["state"], "succeeded", ended)
        self.assertIn("made by a package", pool.tenant("logs", job).out)
        self.assertIn("sheaf_alone", machine.run("nft", "list", "tables"))

        said = self.worker("uninstall")
        self.assertIn("removed /var/lib/sheaf/worker", said)
        self.assertIn("apt-get purge sheaf-worker", said)
        notified.until("STOPPING=1")
        notified.close()
        self.assertEqual(process.wait(30), 0)
        self.assertIsNone(pool.node("packaged"))
        self.assertFalse(os.path.exists(machine.path("/var/lib/sheaf")))
        self.assertEqual(machine.sh("ls /run | grep sheaf || true"), "")
        self.assertEqual(machine.run("nft", "list", "ruleset"), "")
        self.assertEqual(machine.processes(), [])
        machine.run("apt-get", "purge", "-y", "--autoremove", "sheaf-worker")
        self.assertEqual(left_over(self.before, machine.files()), {})
        self.assertEqual(left_over(machine.files(), self.before), {})
        self.assertEqual(machine.accounts(), self.accounts)


def machine_connected(worker):
    return '"connected":true' in worker("status", "-o", "json").replace(" ", "")


class Server(Case):
    """Orchestrator and gateway as their packages' users, with what their units give them."""

    @classmethod
    def setUpClass(cls):
        cls.machine = Machine("server")
        for name in NAMES:
            shutil.copy(package(name), cls.machine.path(f"/tmp/{name}.deb"))
        debs = [f"/tmp/{name}.deb" for name in NAMES]
        # Of what they recommend only the database is wanted here; the unit checker is systemd's.
        cls.wanted = ["--no-install-recommends", *debs, "postgresql-15"]
        os.makedirs(cls.machine.path("/etc/postgresql-common"))
        with open(cls.machine.path("/etc/postgresql-common/createcluster.conf"), "w",
                  encoding="utf-8") as file:
            file.write("create_main_cluster = false\n")
        cls.machine.fetch(*cls.wanted)
        cls.machine.fetch("--no-install-recommends", "systemd", "postgresql-15")
        cls.machine.start()
        cls.machine.run("apt-get", "install", "-y", "--no-install-recommends", "systemd",
                        "postgresql-15")

    @classmethod
    def tearDownClass(cls):
        cls.machine.stop()

    def unit(self, name):
        """[Service] of a unit: its variables, its user, and what it starts."""
        with open(self.machine.path(f"/lib/systemd/system/sheaf-{name}.service"),
                  encoding="utf-8") as file:
            text = file.read()
        env = dict(line.split("=", 2)[1:] for line in text.splitlines()
                   if line.startswith("Environment="))
        env = {key: value.replace("%S", "/var/lib") for key, value in env.items()}
        user = re.search(r"^User=(.*)$", text, re.M).group(1)
        return env, user, re.search(r"^ExecStart=(.*)$", text, re.M).group(1).split()

    def start(self, name):
        env, user, words = self.unit(name)
        notified = Notified(self.machine)
        process = subprocess.Popen(
            self.machine.command("setpriv", "--reuid", user, "--regid", "sheaf", "--clear-groups",
                                 "--no-new-privs", *words),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            env=self.machine.env(NOTIFY_SOCKET=notified.inside, **env))
        self.addCleanup(process.wait, 60)
        self.addCleanup(self.machine.sh, f"kill -KILL $(pidof sheaf-{name})", code=None)
        notified.until("READY=1")
        notified.close()
        return process

    def test_a_pool_starts_from_its_packages_and_goes(self):
        machine = self.machine
        before, accounts = machine.files(), machine.accounts()
        machine.run("apt-get", "install", "-y", *self.wanted)
        machine.run("systemd-analyze", "verify", "--man=no",
                    *(f"/lib/systemd/system/sheaf-{name}.service"
                      for name in ("gateway", "orchestrator", "worker")))
        self.assertIn("sheaf", machine.sh("bash -c '. /usr/share/bash-completion/completions/sheaf;"
                                          " complete -p sheaf'"))
        for page in ("man1/sheaf.1", "man8/sheaf-gateway.8", "man8/sheaf-orchestrator.8"):
            self.assertTrue(os.path.exists(machine.path(f"/usr/share/man/{page}.gz")), page)
        for name in ("gateway", "orchestrator"):
            self.assertIn("ok", machine.run(f"sheaf-{name}", "--check-config",
                                            env=self.unit(name)[0]))
        orchestrator = self.start("orchestrator")
        gateway = self.start("gateway")
        until("the gateway hears the orchestrator", lambda: "ready" in machine.sh(
            "curl -s --cacert /var/lib/sheaf/gateway/ca.pem https://localhost:7443/readyz",
            code=None), 60)
        # The one that faces the world reads what it was given and nothing else of the other.
        for secret in ("identity", "operator.token", "database/data/PG_VERSION"):
            path = f"/var/lib/sheaf/orchestrator/{secret}"
            self.assertTrue(os.path.exists(machine.path(path)), path)
            machine.run("setpriv", "--reuid", "sheaf-gateway", "--regid", "sheaf",
                        "--clear-groups", "cat", path, code=1)
        # It carries the worker's package, so a bare machine can join without anything further.
        token = machine.sh("cat /var/lib/sheaf/orchestrator/operator.token").strip()
        made = machine.run("sheaf", "token", "join", "--provider", "p", env={
            "SHEAF_URL": "https://localhost:7443", "SHEAF_CA": "/var/lib/sheaf/gateway/ca.pem",
            "SHEAF_TOKEN": token})
        self.assertIn("/join.sh | sudo sh -s -- sheaf-join-1.", made)
        for name, process in (("gateway", gateway), ("orchestrator", orchestrator)):
            machine.sh(f"kill $(pidof sheaf-{name})")
            self.assertEqual(process.wait(60), 0)
        machine.run("apt-get", "purge", "-y", "--autoremove", *NAMES)
        self.assertEqual(machine.processes(), [])
        self.assertEqual(left_over(before, machine.files()), {})
        self.assertEqual(machine.accounts(), accounts)


class Images(Case):
    """The images, from a base that needs no registry of images; runc, for crun refuses a machine with
    both versions of control groups."""
    LIMITS = ["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096"]

    @classmethod
    def setUpClass(cls):
        cls.store = tempfile.mkdtemp(prefix="sheaf-package-images-", dir="/tmp")
        cls.running = []
        tar = subprocess.Popen(["tar", "-C", base(), "-c", "."], stdout=subprocess.PIPE)
        cls.podman("import", "-", "localhost/base", stdin=tar.stdout)
        tar.stdout.close()
        tar.wait()

    @classmethod
    def tearDownClass(cls):
        for name in cls.running:
            cls.podman("rm", "-f", "-t", "5", name)
        cls.podman("system", "reset", "-f", stdin=subprocess.DEVNULL)
        shutil.rmtree(cls.store, ignore_errors=True)

    @classmethod
    def podman(cls, *words, stdin=None):
        done = subprocess.run(
            ["podman", "--root", cls.store + "/images", "--runroot", cls.store + "/run",
             "--runtime", "runc", *words], stdin=stdin, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"podman {' '.join(words)}: {done.stdout}")
        return done.stdout

    def build(self, target):
        self.podman("build", "--isolation", "chroot", "--network", "host", "--build-arg",
                    "BASE=localhost/base", "-f", os.path.join(ROOT, "deploy/oci/Containerfile"),
                    "--target", target, "-t", "localhost/" + target, PACKAGES)

    def start(self, target, *words):
        self.build(target)
        self.running.insert(0, target)
        self.podman("run", "-d", "--name", target, *self.LIMITS, *words, "localhost/" + target)
        return until(f"{target} is ready", lambda: re.search(
            rf"sheaf-{target} ready.*", self.podman("logs", target)), 90).group(0)

    def test_a_pool_of_containers_and_a_worker_image(self):
        state = self.store + "/state:/var/lib/sheaf/orchestrator:U"
        os.mkdir(self.store + "/state")
        os.chmod(self.store, 0o755)
        self.start("orchestrator", "--network", "none", "-v", state)
        self.start("gateway", "--network", "container:orchestrator", "-v", state[:-2])
        until("the gateway hears the orchestrator", lambda: "ready" in self.podman(
            "exec", "gateway", "sh", "-c", "curl -s --cacert /var/lib/sheaf/gateway/ca.pem "
            "https://localhost:7443/readyz || true"), 60)
        self.build("worker")
        self.assertIn("sheaf-worker", self.podman("run", "--rm", "--network", "none", *self.LIMITS,
                                                  "localhost/worker", "--version"))


if __name__ == "__main__":
    if os.getuid() != 0:
        sys.exit("tests/package: needs root: it makes root folders, namespaces and a cable")
    unittest.main()
