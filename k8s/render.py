#!/usr/bin/env python3
"""Writes k8s/*/kvd.yaml, the chart rendered for `kubectl apply -k`; --check only compares.

helm: KVD_HELM, or the one in the path.
"""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE.parent / "helm/kvd"
FOLDERS = {"base": None, "dev": "values-dev.yaml", "production": "values-production.yaml"}


def render(helm, values):
    command = [helm, "template", "kvd", str(CHART), "--namespace", "kvd", "--skip-tests"]
    if values:
        command += ["--values", str(CHART / values)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "# Made from helm/kvd by k8s/render.py; change the chart instead.\n" + text


def main():
    helm = os.environ.get("KVD_HELM") or shutil.which("helm")
    if helm is None:
        raise SystemExit("k8s/render.py: there is no helm")
    stale = []
    for folder, values in FOLDERS.items():
        path = HERE / folder / "kvd.yaml"
        text = render(helm, values)
        if "--check" not in sys.argv:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(str(path.relative_to(HERE.parent)))
    if stale:
        raise SystemExit(f"not what the chart makes; run k8s/render.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
