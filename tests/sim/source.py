"""What the simulation's tests read from the source tree: its hash, and the names in it."""

import hashlib
import pathlib
import re
import subprocess


def tree_seed():
    """A number that follows from the tree's hash; 1 where nothing tells it, as in an archive."""
    try:
        tree = subprocess.run(["git", "rev-parse", "HEAD^{tree}"], capture_output=True, text=True)
    except FileNotFoundError:  # No git on this machine.
        return 1
    if tree.returncode != 0:
        return 1
    return int(hashlib.sha256(tree.stdout.strip().encode()).hexdigest()[:10], 16)


def names(macro):
    """Of all marks (MARK) or mutants (MUTANT)."""
    pattern = re.compile(r"\b" + macro + r'\("([^"]+)"\)')
    return {
        name
        for room in ("server", "storage")
        for path in pathlib.Path(room).rglob("*")
        if path.suffix in (".h", ".cc")
        for name in pattern.findall(path.read_text())
    }
