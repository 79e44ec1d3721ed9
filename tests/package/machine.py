"""A bare Debian 12 of its own: a debootstrap root with its own processes, network, mounts and /run,
joined to this machine by one cable (a veth pair). Enough of a machine for packages to be installed
on it, and gone without a trace.
"""
import os
import shutil
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CACHE = os.path.join(ROOT, "build", "package")

# A root of its own as `/`, so that bubblewrap can make its sandboxes in it: it needs pivot_root.
START = r"""
set -e
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs sys sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir -p .old
pivot_root . .old
umount -l .old
rmdir .old
echo up
while :; do sleep 1000 & wait; done
"""

# What differs from one look to the next without anybody having left it there.
PASSING = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/cache", "/var/log", "/var/lib/apt",
           "/var/lib/dpkg", "/etc/ld.so.cache", "/etc/machine-id", "/root/.bash_history",
           # made by dpkg and adduser as their own backups
           "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-",
           "/etc/subgid-", "/etc/.pwd.lock", "/var/lib/systemd", "/etc/systemd")


def mirror():
    """The Debian mirror that this machine uses."""
    listing = subprocess.run(["apt-cache", "policy", "bash"], capture_output=True, text=True,
                             check=True).stdout
    for word in listing.split():
        if word.startswith("http") and word.rstrip("/").endswith("/debian"):
            return word
    return "http://deb.debian.org/debian"


def base():
    """A minimal root with curl, made once."""
    root = os.path.join(CACHE, "base")
    if not os.path.exists(os.path.join(root, "made")):
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(CACHE, exist_ok=True)
        subprocess.run(["debootstrap", "--variant=minbase", "--include=curl,ca-certificates",
                        "bookworm", root, mirror()], check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(root, "made"), "w", encoding="utf-8"):
            pass
    return root


class Machine:
    def __init__(self, name):
        self.name = f"{name}{os.getpid() % 100000}"
        self.root = tempfile.mkdtemp(prefix=f"sheaf-package-{name}-", dir="/tmp")
        os.chmod(self.root, 0o755)
        subprocess.run(["cp", "-a", base() + "/.", self.root], check=True)
        os.remove(self.path("made"))
        shutil.copy("/etc/resolv.conf", self.path("/etc/resolv.conf"))
        # dpkg syncs every file; this root is not kept.
        with open(self.path("/etc/dpkg/dpkg.cfg.d/package-test"), "w", encoding="utf-8") as file:
            file.write("force-unsafe-io\n")
        self.unshare, self.pid = None, 0

    def path(self, path):
        return os.path.join(self.root, path.lstrip("/"))

    def fetch(self, *packages):
        """Puts packages and all they depend on into apt's cache, over this machine's network."""
        for words in (["update"], ["install", "-y", "--download-only", *packages]):
            subprocess.run(["chroot", self.root, "apt-get", "-q", *words], check=True,
                           stdout=subprocess.DEVNULL, env=self.env(),
                           stdin=subprocess.DEVNULL)

    @staticmethod
    def env(**more):
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C",
                "DEBIAN_FRONTEND": "noninteractive", **more}

    def start(self, address=None, peer=None):
        """Its own network: loopback, and with `address` a cable to `peer` on this machine."""
        self.unshare = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc",
             "--propagation", "private", "sh", "-c", START, "machine", self.root],
            stdout=subprocess.PIPE, text=True)
        if self.unshare.stdout.readline() != "up\n":
            raise AssertionError("the machine did not start")
        with open(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children",
                  encoding="utf-8") as file:
            self.pid = int(file.read().split()[0])
        subprocess.run(["nsenter", "-t", str(self.pid), "-n", "ip", "link", "set", "lo", "up"],
                       check=True)
        if address:
            here, there = f"sp{self.pid % 1000000}a", f"sp{self.pid % 1000000}b"
            ip = lambda *words: subprocess.run(["ip", *words], check=True)
            inside = lambda *words: subprocess.run(
                ["nsenter", "-t", str(self.pid), "-n", "ip", *words], check=True)
            ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", str(self.pid))
            ip("address", "add", f"{peer}/30", "dev", here)
            ip("link", "set", here, "up")
            inside("address", "add", f"{address}/30", "dev", there)
            inside("link", "set", there, "up")
        return self

    def command(self, *words):
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-i", "-r", "-w", *words]

    def run(self, *words, code=0, env=None, seconds=180, stdin=""):
        """Output and errors together."""
        done = subprocess.run(self.command(*words), env=self.env(**(env or {})), input=stdin,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=seconds, check=False)
        if code is not None and done.returncode != code:
            raise AssertionError(f"{' '.join(words)}: exit {done.returncode}, not {code}\n"
                                 f"{done.stdout}")
        return done.stdout

    def sh(self, script, **kw):
        return self.run("sh", "-c", script, **kw)

    def files(self):
        """Every path of it that somebody could have left, with mode and owner."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            here = "/" + os.path.relpath(folder, self.root)
            here = "/" if here == "/." else here
            folders[:] = [f for f in folders if os.path.join(here, f) not in PASSING]
            for name in folders + files:
                path = os.path.join(here, name)
                if path not in PASSING and not path.endswith(".pyc"):
                    status = os.lstat(os.path.join(folder, name))
                    found[path] = (oct(status.st_mode), status.st_uid, status.st_gid)
        return found

    def accounts(self):
        text = ""
        for name in ("passwd", "group", "shadow", "gshadow"):
            with open(self.path("/etc/" + name), encoding="utf-8") as file:
                text += file.read()
        return text

    def processes(self):
        """Programs of ours, and sandboxes, that run on it."""
        names = self.sh("cat /proc/[0-9]*/comm 2>/dev/null", code=None).split()
        return [name for name in names if name.startswith(("sheaf", "bwrap"))]

    def stop(self):
        if self.unshare:
            self.unshare.kill()  # and with it the first process, and with that all others
            self.unshare.wait()
            self.unshare.stdout.close()
        shutil.rmtree(self.root, ignore_errors=True)
