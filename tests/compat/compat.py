"""Clients that others wrote, against three real members: compat.py go|python|node

A client's program does what users of it do and ends with an error where it finds something else
than etcd would give. When it prints `kill`, the leader is killed; it hears an empty line when that
is done. Without the toolchain, or the packages, the test says so and exits 77: skipped.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from cluster import Cluster  # noqa: E402

SKIPPED = 77


def skip(reason):
    print(f"SKIPPED: {reason}", flush=True)
    sys.exit(SKIPPED)


def tool(name):
    """Its path; also where Go's own installer leaves it."""
    found = shutil.which(name, path=os.environ["PATH"] + os.pathsep + "/usr/local/go/bin")
    return found or skip(f"{name} is not installed")


def prepare(arguments, folder, what):
    """What may fail for want of a network, and then proves nothing about kvd."""
    result = subprocess.run(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode != 0:
        skip(f"{what} cannot be installed:\n{result.stdout[-2000:]}")


def prepare_go(folder):
    go = tool("go")
    source = shutil.copytree(HERE / "go", folder / "go")
    prepare([go, "mod", "download"], source, "the modules of go.mod")
    subprocess.run([go, "build", "-o", "client", "."], cwd=source, check=True)
    return [str(source / "client")], {}


def prepare_python(folder):
    python = tool("python3")
    prepare([python, "-m", "venv", "environment"], folder, "a virtual environment")
    pip = [str(folder / "environment/bin/pip"), "install", "--quiet", "-r"]
    prepare([*pip, str(HERE / "python/requirements.txt")], folder, "the packages of requirements.txt")
    # The package's generated code is older than the compiled protobuf takes.
    return ([str(folder / "environment/bin/python"), str(HERE / "python/client.py")],
            {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"})


def prepare_node(folder):
    node, npm = tool("node"), tool("npm")
    source = shutil.copytree(HERE / "node", folder / "node")
    prepare([npm, "ci", "--no-audit", "--no-fund"], source, "the packages of package-lock.json")
    return [node, str(source / "client.js")], {}


PREPARE = {"go": prepare_go, "python": prepare_python, "node": prepare_node}


def run(command, environment):
    with Cluster(3) as cluster:
        cluster.start()
        client = subprocess.Popen(
            command,
            env=os.environ | environment | {"KVD_ENDPOINTS": cluster.endpoints},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        killed = 0
        for line in client.stdout:
            print(line, end="", flush=True)
            if line.strip() == "kill":
                cluster.leader().kill()
                killed += 1
                client.stdin.write("\n")
                client.stdin.flush()
        assert client.wait() == 0, f"the client ended with {client.returncode}"
        assert killed == 1, "the client did without the death of a leader"
        for member in cluster.members:
            if member.process is None:
                member.start()
        cluster.await_healthy()
        cluster.await_caught_up()
        assert len(set(cluster.hashes())) == 1, "the members differ"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="kvd-compat-") as made:
        run(*PREPARE[sys.argv[1]](pathlib.Path(made)))
