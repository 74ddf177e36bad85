"""The examples of kvd.v1 do what they say: examples.py cpp|python|go

Code is generated from our proto file on the way. Skipped as compat.py skips.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from compat import HERE, prepare, tool

from cluster import BIN, Cluster

ROOT = HERE.parent.parent
SOURCE = ROOT / "client/examples"
PROTO = "kvd/v1/kv.proto"


def make_cpp(_):
    return [str(BIN / "greet")], "C++", {}


def make_python(folder):
    prepare([tool("python3"), "-m", "venv", "environment"], folder, "a virtual environment")
    python = str(folder / "environment/bin/python")
    prepare([python, "-m", "pip", "install", "--quiet", "-r", str(SOURCE / "requirements.txt")], folder,
            "the packages of requirements.txt")
    subprocess.run([python, "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto"), "--python_out=.",
                    "--grpc_python_out=.", PROTO], cwd=folder, check=True)
    return [python, str(SOURCE / "greet.py")], "Python", {"PYTHONPATH": str(folder)}


def make_go(folder):
    go, protoc = tool("go"), tool("protoc")
    source = shutil.copytree(SOURCE / "go", folder / "go")
    prepare([go, "mod", "download"], source, "the modules of go.mod")
    environment = os.environ | {"GOBIN": str(folder / "bin")}
    subprocess.run([go, "install", "google.golang.org/protobuf/cmd/protoc-gen-go",
                    "google.golang.org/grpc/cmd/protoc-gen-go-grpc"], cwd=source, env=environment, check=True)
    options = [f"--{kind}_{option}" for kind in ("go", "go-grpc")
               for option in ("out=.", f"opt=M{PROTO}=example/kvdv1", "opt=module=example")]
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([protoc, "-I", str(ROOT / "proto"), *options, PROTO], cwd=source,
                   env=os.environ | {"PATH": path}, check=True)
    subprocess.run([go, "build", "-o", "greet", "."], cwd=source, check=True)
    return [str(source / "greet")], "Go", {}


MAKE = {"cpp": make_cpp, "python": make_python, "go": make_go}


def main():
    with tempfile.TemporaryDirectory(prefix="kvd-example-") as made:
        command, language, environment = MAKE[sys.argv[1]](pathlib.Path(made))
        with Cluster(1) as cluster:
            cluster.start()
            environment = os.environ | environment | {"KVD_ENDPOINT": cluster.members[0].endpoint}
            said = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert (said.returncode, said.stdout) == (0, f"hello from {language}\n"), said
            assert cluster.kvctl("get", "greeting").stdout == f"greeting\n{said.stdout}"


if __name__ == "__main__":
    main()
