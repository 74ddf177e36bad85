"""helm and kubeconform: from the environment, the path, a cache, or built where their sources are."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "helm/kvd"
PEERS = pathlib.Path(os.environ.get("PEERS_BIN", pathlib.Path.home() / ".cache/kvd-peers/bin"))
BUILDER = ROOT.parent / "shared/peers/build"


def skip(reason):
    print(f"SKIPPED: {reason}", flush=True)
    sys.exit(77)


def tool(name):
    """The program's path, or None with the reason said."""
    given = os.environ.get(f"KVD_{name.upper()}")
    for candidate in (given, shutil.which(name), PEERS / name):
        if candidate and pathlib.Path(candidate).exists():
            return str(candidate)
    if not BUILDER.exists():
        return None
    print(f"building {name}, once; it takes some minutes", flush=True)
    wanted = [name, "schemas"] if name == "kubeconform" else [name]
    built = subprocess.run([BUILDER, *wanted], capture_output=True, text=True)
    if built.returncode != 0 or not (PEERS / name).exists():
        print(f"{name} cannot be built: {built.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    return str(PEERS / name)


class Refused(Exception):
    pass


class Helm:
    def __init__(self, program):
        self.program = program

    def template(self, values=None, files=(), chart=CHART, name="kvd", namespace="default",
                 extra=()):
        """What the chart comes to, as text. Refused: with helm's own words."""
        # A helm that was built plainly takes Kubernetes for the oldest that it knows.
        command = [self.program, "template", name, str(chart), "--namespace", namespace,
                   "--kube-version", "1.34.0", *extra]
        for file in files:
            command += ["--values", str(file)]
        command += ["--values", "-"]
        result = subprocess.run(command, input=json.dumps(values or {}), capture_output=True,
                                text=True)
        if result.returncode != 0:
            raise Refused(result.stderr)
        return result.stdout

    def objects(self, *arguments, **options):
        """By (kind, name)."""
        rendered = yaml.safe_load_all(self.template(*arguments, **options))
        return {(o["kind"], o["metadata"]["name"]): o for o in rendered if o}
