"""Image archives as `podman save` writes them, made by hand: no registry is reachable from a test,
and a hostile image is not what a tool would build."""
import hashlib
import io
import json
import os
import shutil
import tarfile

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


def archive(path, config=None, layers=None, architecture=None, count=1):
    """Writes a docker archive; `count` images of it share their layers."""
    layers = [layer()] if layers is None else layers
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    manifest = []
    with tarfile.open(path, "w") as tar:
        for index in range(count):
            body = json.dumps({
                "architecture": architecture or machine, "os": "linux",
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
