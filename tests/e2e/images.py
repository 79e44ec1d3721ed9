"""Images for tests: archives as `podman save` writes them, made by hand since a hostile
image is not what a tool would build; and a registry of our own, since no other is reachable."""
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import urllib.request

BUSYBOX = "/bin/busybox"
TOOLS = ("sh cat echo ls sleep env id touch mkdir rm dd head grep mount ps kill hostname sync awk wc "
         "tail ln nc").split()


def file_of(name, data=b"", mode=0o644, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type, info.linkname = len(data), mode, kind, link
    return info, io.BytesIO(data)


def layer(entries=(), shell=True):
    """A root file system: a static busybox and what else is asked for."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "etc", "srv"):
            tar.addfile(*file_of(folder, kind=tarfile.DIRTYPE, mode=0o755))
        if shell:
            with open(shutil.which("busybox") or BUSYBOX, "rb") as file:
                tar.addfile(*file_of("bin/busybox", file.read(), 0o755))
            for tool in TOOLS:
                tar.addfile(*file_of(f"bin/{tool}", kind=tarfile.SYMTYPE, link="busybox"))
        for entry in entries:
            tar.addfile(*file_of(*entry) if isinstance(entry, tuple) else file_of(**entry))
    return out.getvalue()


def machine():
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def archive(path, config=None, layers=None, architecture=None, count=1):
    """Writes a docker archive; `count` images of it share their layers."""
    layers = [layer()] if layers is None else layers
    manifest = []
    with tarfile.open(path, "w") as tar:
        for index in range(count):
            body = json.dumps({
                "architecture": architecture or machine(), "os": "linux",
                "config": {**(config or {}), "Labels": {"number": str(index)}},
                "rootfs": {"type": "layers", "diff_ids": [
                    "sha256:" + hashlib.sha256(data).hexdigest() for data in layers]},
            }).encode()
            name = hashlib.sha256(body).hexdigest() + ".json"
            tar.addfile(*file_of(name, body))
            manifest.append({"Config": name, "RepoTags": [f"localhost/app:{index}"],
                             "Layers": [f"{number}.tar" for number in range(len(layers))]})
        for number, data in enumerate(layers):
            tar.addfile(*file_of(f"{number}.tar", data))
        tar.addfile(*file_of("manifest.json", json.dumps(manifest).encode()))
    return path


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """A registry of this machine, over plain HTTP."""

    def __init__(self, folder, port):
        self.host, self.log = f"127.0.0.1:{port}", open(folder + ".log", "wb")
        config = folder + ".yml"
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\n"
                       f"http: {{addr: '{self.host}'}}\n")
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=self.log,
                                        stderr=self.log)

    def _call(self, method, path, data=None, kind="application/octet-stream"):
        url = path if path.startswith("http") else f"http://{self.host}/v2/{path}"
        request = urllib.request.Request(url, data=data, method=method,
                                         headers={"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers

    def answers(self):
        try:
            return self._call("GET", "") is not None
        except OSError:
            return False

    def push(self, name, config=None, layers=None):
        """Stores an image; its reference by digest."""
        layers = [layer()] if layers is None else layers
        body = json.dumps({"architecture": machine(), "os": "linux", "config": config or {},
                           "rootfs": {"type": "layers", "diff_ids": [digest_of(x) for x in layers]},
                           }).encode()
        for data in [body, *layers]:
            where = self._call("POST", f"{name}/blobs/uploads/", b"")["Location"]
            mark = "&" if "?" in where else "?"
            self._call("PUT", f"{where}{mark}digest={digest_of(data)}", data)
        kind = "application/vnd.oci.image.{}"

        def part(of, data):
            return {"mediaType": kind.format(of), "digest": digest_of(data), "size": len(data)}
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": kind.format("manifest.v1+json"),
            "config": part("config.v1+json", body),
            "layers": [part("layer.v1.tar", data) for data in layers]}).encode()
        self._call("PUT", f"{name}/manifests/latest", manifest, kind.format("manifest.v1+json"))
        return f"{self.host}/{name}@{digest_of(manifest)}"

    def stop(self):
        self.process.kill()
        self.process.wait(10)
        self.log.close()
