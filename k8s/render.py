#!/usr/bin/env python3
"""Writes the objects in k8s/*/, the chart rendered for `kubectl apply -k`; --check only compares.

helm: KVD_HELM, or the one in the path.
"""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE.parent / "helm/kvd"
FILES = {
    "base/kvd.yaml": (),
    "dev/kvd.yaml": ("--values", CHART / "values-dev.yaml"),
    "production/kvd.yaml": ("--values", CHART / "values-production.yaml"),
    # By itself: on a cluster without the kind, it would keep the rest from being applied.
    "monitoring/servicemonitor.yaml": ("--set", "metrics.serviceMonitor.enabled=true",
                                       "--show-only", "templates/servicemonitor.yaml"),
}


def render(helm, options):
    # A helm that was built plainly takes Kubernetes for the oldest that it knows.
    command = [helm, "template", "kvd", CHART, "--namespace", "kvd", "--skip-tests",
               "--kube-version", "1.34.0", *options]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "# Made from helm/kvd by k8s/render.py; change the chart instead.\n" + text


def lines(text):
    """Without the empty ones, in which Helm 3 and Helm 4 differ."""
    return [line for line in text.splitlines() if line]


def main():
    helm = os.environ.get("KVD_HELM") or shutil.which("helm")
    if helm is None:
        raise SystemExit("k8s/render.py: there is no helm")
    stale = []
    for file, options in FILES.items():
        path = HERE / file
        text = render(helm, options)
        if "--check" not in sys.argv:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif not path.exists() or lines(path.read_text()) != lines(text):
            stale.append(str(path.relative_to(HERE.parent)))
    if stale:
        raise SystemExit(f"not what the chart makes; run k8s/render.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
