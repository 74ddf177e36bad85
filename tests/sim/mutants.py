"""Puts every known bug back, one at a time, and asks the tests for it.

Without arguments all of them, which takes a while; `--sample N` a few that follow from the tree's
hash. Prints a table; fails when one survives.
"""

import os
import pathlib
import random
import re
import resource
import subprocess
import sys

from source import names, tree_seed

BIN = pathlib.Path("build/release/bin")
SEEDS = 6000

# What random runs of whole members come near too seldom: a directed test, or the explorer of bare
# cores, whose schedules are wilder than any network's, is asked first. The rest falls to kvsim.
DIRECTED = {
    "acknowledged.unheeded",
    "raft.acknowledge_the_whole_log",
    "raft.commit_past_the_append",
    "raft.old_vote_replies_count",
    "raft.snapshot_forgets_outgoing",
    "replica.recover_by_index_alone",
}
# These rules have scripts and explorers of their own: what a leader does about members by itself,
# and how members find each other, where kvsim's clusters are founded by a list, in calm.
EXPLORED_APART = ("join.", "upkeep.", "permit.", "founding.", "forming.")

DIRECTED_TESTS = ("upkeep_test", "kv_maintenance_sim", "founding_rules_sim", "raft_rules_sim",
                  "replica_recovery_sim", "raft_explore_test", "sim_scenario_test")


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def kill(name):
    """How many seeds it took, by what, and what was said; nothing: it lives."""
    before = children_seconds()
    directed = name in DIRECTED or name.startswith(EXPLORED_APART)
    for killer in (by_directed_test, by_simulation)[:: 1 if directed else -1]:
        if killed := killer(name):
            seeds, by, what = killed
            return seeds, by, children_seconds() - before, what
    return None


def by_simulation(name):
    result = subprocess.run(
        [BIN / "kvsim", "--mutant", name, "--seeds", f"0..{SEEDS}", "--failures", "1"],
        capture_output=True, text=True)
    if result.returncode == 0:
        return None
    seeds = re.search(r"^(\d+) seeds,", result.stdout, re.M)
    said = re.search(r"^seed \d+ FAILED.*?check failed: (.*)$", result.stdout, re.M)
    return int(seeds.group(1)) + 1, "kvsim", said.group(1) if said else "the run ends"


def by_directed_test(name):
    for test in DIRECTED_TESTS:
        tried = subprocess.run([BIN / test], capture_output=True, text=True,
                               env={**os.environ, "KVD_MUTANT": name})
        if tried.returncode != 0:
            return None, test, "the test fails"
    return None


def main():
    mutants = sorted(names("MUTANT"))
    if "--sample" in sys.argv:
        count = int(sys.argv[sys.argv.index("--sample") + 1])
        mutants = sorted(random.Random(tree_seed()).sample(mutants, count))
    print("| mutant | seeds | CPU s | killed by | the verdict |\n|---|---:|---:|---|---|")
    alive = []
    for name in mutants:
        killed = kill(name)
        if killed is None:
            alive.append(name)
            print(f"| `{name}` | {SEEDS} | | nobody | |", flush=True)
            continue
        seeds, by, seconds, what = killed
        what = re.sub(r"^a law is broken: ", "", what)
        what = re.sub(r"\b[0-9a-f]{12,16}\b", "M", what)[:90].replace("|", "/")
        print(f"| `{name}` | {seeds if seeds else ''} | {seconds:.1f} | {by} | {what} |", flush=True)
    print(f"{len(mutants)} mutants, {len(alive)} alive: {' '.join(alive)}")
    sys.exit(1 if alive else 0)


main()
