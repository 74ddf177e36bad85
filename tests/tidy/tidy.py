"""The arrows between the rooms, checked over the includes: the only style rule that a test enforces.

A room is the longest prefix below that a file's path starts with. It may include itself, the
listed rooms, and libraries; nothing else of ours. CMake's link lists hold the same arrows for
what must link; this holds them for headers.
"""

import pathlib
import re
import sys

ARROWS = {
    "proto": [],
    "storage": [],
    "server/raft": ["storage/entry.h", "storage/check.h", "storage/mark.h"],
    "server/replica": ["server/raft", "storage", "proto/internal"],
    "server/kv": [
        *(f"server/replica/{part}.h" for part in ("caller", "door", "machine", "result", "runtime")),
        "server/raft/members.h",
        "storage",
        "proto",
    ],
    "server/watch": [
        "server/kv",
        "server/replica/door.h",
        "server/replica/runtime.h",
        "storage",
        "proto",
    ],
    "server/cluster": ["server/raft", "server/replica", "storage", "proto/internal"],
    "server/kube": ["server/cluster/outside.h", "server/replica/runtime.h", "storage"],
    "server/api": ["server/replica", "server/raft", "server/kv", "server/watch", "storage", "proto"],
    "server": ["server", "storage", "proto"],
    "client": ["proto", *(f"storage/{part}.h" for part in ("backup", "restore", "status"))],
    "tests": [""],
}

# What decides may not reach for time, chance or threads: they come in through constructors.
PURE = ("server/raft", "server/kv", "server/watch", "server/cluster")
POISON = re.compile(
    r"\b(absl::Now|std::random_device|std::mt19937|std::chrono|std::thread|sleep_for|"
    r"std::uniform_\w+_distribution|gettimeofday|clock_gettime)\b"
)

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


def room_of(path):
    return max((room for room in ARROWS if path.startswith(room + "/")), key=len)


def check(files):
    faults = []
    for path, text in files:
        room = room_of(path)
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{path}:{number}"
            if match := INCLUDE.match(line):
                target = match.group(1)
                if not target.startswith(tuple(f"{room}/" for room in ARROWS)):
                    if "/" in target and not target.startswith("absl/"):
                        faults.append(f"{where}: libraries are included as <{target}>")
                    continue
                allowed = [room, *ARROWS[room]]
                if not any(target == a or a == "" or target.startswith(a + "/") for a in allowed):
                    faults.append(f"{where}: {room} may not include {target}")
            elif room.startswith(PURE) and (match := POISON.search(line.split("//")[0])):
                faults.append(f"{where}: {match.group(1)} in {room}; it comes in through Runtime")
    return faults


def self_check():
    """The rules bite: each bad line below must be found."""
    bad = [
        ("server/raft/x.cc", '#include "storage/database.h"'),
        ("storage/x.h", '#include "server/raft/core.h"'),
        ("server/kv/x.cc", '#include "server/replica/replica.h"'),
        ("client/x.cc", '#include "server/config.h"'),
        ("server/raft/x.cc", "auto t = absl::Now();"),
        ("storage/x.cc", '#include "rocksdb/db.h"'),
    ]
    good = [
        ("server/raft/x.cc", '#include "storage/entry.h"'),
        ("tests/kv/x.cc", '#include "server/kv/kv_machine.h"'),
        ("server/kv/x.cc", "// std::thread is not used here"),
        ("storage/x.cc", '#include "absl/status/status.h"'),
    ]
    missed = [case for case in bad if not check([case])] + [case for case in good if check([case])]
    if missed:
        sys.exit(f"tidy: its own rules do not hold for {missed}")


def main():
    self_check()
    files = [
        (str(path), path.read_text())
        for top in ("proto", "storage", "server", "client", "tests")
        for path in sorted(pathlib.Path(top).rglob("*"))
        if path.suffix in (".h", ".cc")
    ]
    if not files:
        sys.exit("tidy: no sources here; run it from the top of the project")
    faults = check(files)
    print("\n".join(faults))
    print(f"tidy: {len(files)} files, {len(faults)} faults")
    sys.exit(bool(faults))


main()
