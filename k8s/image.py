#!/usr/bin/env python3
"""What the container image holds: kvd, kvctl, their library closure, names, certificates, licences.

    k8s/image.py root BIN FOLDER            lays the image's root out in FOLDER (the Dockerfile does it)
    k8s/image.py archive BIN TAG FILE       the same as an archive that docker and podman load

Both are the same layout; the second needs no container tool. Reproducible: files in order, without
times, owners or whatever the machine adds.
"""

import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

PROGRAMS = ("kvd", "kvctl")
USER = "65532:65532"
PORTS = (2379, 2380, 2381)
BUNDLE = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def closure(binary):
    """Every shared library that the binary needs, the loader included, as the loader finds them."""
    libraries = set()
    for line in run("ldd", str(binary)).splitlines():
        if "not found" in line:
            raise SystemExit(f"k8s/image.py: {binary}: {line.strip()}")
        match = re.search(r"(/\S+)", line.split("=>")[-1])
        if match:
            libraries.add(match.group(1))
    return libraries


def package_of(path):
    """The Debian package of a file, so that its licence goes along."""
    for candidate in (path, os.path.realpath(path), path.removeprefix("/usr"), "/usr" + path):
        found = subprocess.run(["dpkg-query", "-S", candidate], capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.split(":")[0]
    raise SystemExit(f"k8s/image.py: no package owns {path}")


def put(source, root, path, mode):
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def lay_out(binaries, root):
    root.mkdir(parents=True, exist_ok=True)
    libraries = set()
    for program in PROGRAMS:
        binary = pathlib.Path(binaries) / program
        put(binary, root, f"/usr/bin/{program}", 0o755)
        run("strip", "--strip-all", str(root / "usr/bin" / program))
        libraries |= closure(binary)
    packages = set()
    for library in sorted(libraries):
        put(os.path.realpath(library), root, library, 0o755)
        packages.add(package_of(library))
    for package in sorted(packages):
        licence = pathlib.Path("/usr/share/doc") / package / "copyright"
        if licence.exists():
            put(licence, root, str(licence), 0o644)
    put(pathlib.Path(__file__).resolve().parent.parent / "LICENSE", root,
        "/usr/share/doc/kvd/LICENSE", 0o644)
    if BUNDLE.exists():
        put(BUNDLE, root, str(BUNDLE), 0o644)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    for folder, mode in (("tmp", 0o1777), ("var/lib/kvd", 0o775)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).chmod(mode)


def layer_of(root):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            entry = tar.gettarinfo(str(path), str(path.relative_to(root)))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            if path.is_file():
                with path.open("rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)
    return buffer.getvalue()


def architecture():
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def archive(root, tag, target):
    layer = layer_of(root)
    config = json.dumps({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": USER,
            "WorkingDir": "/",
            "Entrypoint": ["/usr/bin/kvd"],
            "Env": ["PATH=/usr/bin"],
            "ExposedPorts": {f"{port}/tcp": {} for port in PORTS},
            "StopSignal": "SIGTERM",
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created_by": "k8s/image.py"}],
    }, sort_keys=True).encode()
    name = hashlib.sha256(config).hexdigest()
    manifest = json.dumps([{"Config": f"{name}.json", "RepoTags": [tag],
                            "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for path, content in ((f"{name}.json", config), ("layer.tar", layer),
                              ("manifest.json", manifest)):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    print(f"{target}: {tag}, {len(layer) / 2**20:.0f} MiB unpacked")


def main(arguments):
    if len(arguments) == 3 and arguments[0] == "root":
        lay_out(arguments[1], pathlib.Path(arguments[2]))
    elif len(arguments) == 4 and arguments[0] == "archive":
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder) / "root"
            lay_out(arguments[1], root)
            archive(root, arguments[2], arguments[3])
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
