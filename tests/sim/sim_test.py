"""The simulation as a test: regressions, a thousand seeds, determinism, marks, speed.

The seeds follow from the tree's hash, so that a rare old failure does not block unrelated work;
--fresh draws new ones. KVD_SIM_SEEDS sets how many are explored.
"""

import os
import pathlib
import random
import re
import subprocess
import sys
import time

from source import names, tree_seed

BINARY = pathlib.Path("build/release/bin/kvsim")
OTHER_BINARY = pathlib.Path("build/dev/bin/kvsim")  # Another compiler, with sanitizers.
HITS_WANTED_FROM = 1000  # Fewer seeds than these cannot be asked for every mark.


def run(*arguments, binary=BINARY, check=True):
    result = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if check and result.returncode != 0:
        print(result.stdout[-20000:] + result.stderr[-4000:])
        failed = re.findall(r"^seed (\d+) FAILED", result.stdout, re.M)
        sys.exit(f"sim: failed; replay with {binary} --seed {failed[0] if failed else 'N'}")
    return result.stdout


def digest_of(output):
    return re.search(r"digest ([0-9a-f]{16})", output).group(1)


def first_seed(fresh):
    if fresh:
        return random.SystemRandom().randrange(1 << 40)
    return tree_seed()


def check_marks(output):
    hit = dict(re.findall(r"^mark (\S+) (\d+)$", output, re.M))
    wanted = names("MARK")
    missing = sorted(wanted - hit.keys())
    if missing:
        sys.exit("sim: never reached: " + " ".join(missing))
    print(f"sim: {len(wanted)} marks, all reached; the rarest:",
          ", ".join(f"{n} {h}" for n, h in sorted(hit.items(), key=lambda i: int(i[1]))[:5]))


def check_determinism(first):
    """A hundred seeds twice; and, where it is built, with another compiler."""
    seeds = f"{first}..{first + 99}"
    one = digest_of(run("--seeds", seeds))
    two = digest_of(run("--seeds", seeds, "--workers", 1))
    if one != two:
        sys.exit(f"sim: seeds {seeds} twice: digests {one} and {two}")
    # An older one is of other sources.
    if OTHER_BINARY.exists() and OTHER_BINARY.stat().st_mtime >= BINARY.stat().st_mtime:
        other = digest_of(run("--seeds", seeds, binary=OTHER_BINARY))
        if other != one:
            sys.exit(f"sim: seeds {seeds}: digests {one} of g++ and {other} of clang")
        print(f"sim: 100 seeds twice and with clang: digest {one}", flush=True)
    else:
        print(f"sim: 100 seeds twice: digest {one}; {OTHER_BINARY} is not built", flush=True)


def check_product():
    """No name of a mark or a mutant in what is shipped."""
    for name in ("kvd", "kvctl"):
        path = BINARY.parent / name
        if not path.exists():
            continue
        text = path.read_bytes()
        for each in sorted(names("MARK") | names("MUTANT")):
            if each.encode() in text:
                sys.exit(f"sim: {path} contains {each}")
        if b"TheMutant" in text or b"HitMark" in text:
            sys.exit(f"sim: {path} contains the machinery of mutants")
    # The check can fail: the simulation does contain them.
    if b"raft.commit_of_an_old_term" not in BINARY.read_bytes():
        sys.exit("sim: even kvsim contains no mutant")


def main():
    fresh = "--fresh" in sys.argv
    begun = time.monotonic()
    first = first_seed(fresh)
    count = int(os.environ.get("KVD_SIM_SEEDS", 1000))
    check_product()
    print("sim: regressions:", run("--list", "tests/sim/regressions.txt").strip())
    check_determinism(first)
    output = run("--seeds", f"{first}..{first + count - 1}", "--marks")
    print(f"sim: seeds {first}..{first + count - 1}:", output.splitlines()[0])
    if count >= HITS_WANTED_FROM:
        check_marks(output)
    print("sim:", run("--bench").strip())
    print(f"sim: {time.monotonic() - begun:.0f} s")


main()
