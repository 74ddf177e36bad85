"""kvctl prints what etcdctl prints: the same command lines by both programs, against kvd.

compare/table.jsonl holds one command line for each line of it: `argv`; what is typed in (`stdin`);
a name for the id that the answer makes known (`save`, for `$NAME` in later lines); after how many
lines of output it is ended (`lines`); why the two must differ (`differs`). They run in this order on
an empty store, each program against a member of its own. Exit codes and standard output are
compared byte by byte; what goes to standard error is each program's own, but an error is never
silent.

compare/golden.json is what etcdctl printed, compare/flags.json which commands and flags it has.
KVD_REWRITE=1 records both anew; wherever that etcdctl is found, the records are checked, too. The
exceptions are the lines with `differs`, and MISSING.
"""

import json
import os
import pathlib
import re
import subprocess
import threading
import unittest

from cluster import BIN, PATIENCE, Cluster

HERE = pathlib.Path(__file__).parent / "compare"
ETCDCTL = pathlib.Path(os.environ.get("KVD_ETCDCTL") or pathlib.Path.home() / ".cache/kvd-peers/bin/etcdctl")
VERSION = "3.7.3"

# Commands of etcdctl that kvctl does not have (yet).
MISSING = {
    "auth": "kvd has no authentication",
    "role": "kvd has no authentication",
    "user": "kvd has no authentication",
}

# What two members, or two moments, need not have in common.
MASKS = [
    (r'"(raft_term|raftIndex|raftAppliedIndex|raftTerm|dbSize|dbSizeInUse)":\d+', r'"\1":N'),
    (r'"(RaftTerm|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse)" : \d+', r'"\1" : N'),
    (r'"(ttl)":\d+', r'"\1":N'),  # Runs down.
    (r'"(TTL)" : \d+', r'"\1" : N'),
    (r"remaining\(\d+s\)", "remaining(Ns)"),
    (r"took = [\d.]+(µs|ms|s)|took [\d.]+(µs|ms|s)|\"took\":\"[^\"]*\"|\"Took\" : \"[^\"]*\"", "took TIME"),
    (r"\d+\.\d+(µs|ms|s)", "TIME"),
    (r"─+", "─"),  # Boxes are as wide as what stands in them.
    (r"  +", " "),  # So are ids that are padded to sixteen digits.
]


def table():
    return [json.loads(line) for line in (HERE / "table.jsonl").read_text().splitlines()]


class Names:
    """Ids as the names that they have in the record."""

    def __init__(self, member):
        header = member.status()["header"]
        self.ids = {"CLUSTER": header["cluster_id"], "MEMBER": header["member_id"]}
        self.texts = {member.endpoint: "ENDPOINT", f"127.0.0.1:{member.peer_port}": "PEER"}

    def save(self, name, output):
        found = re.search(r'"ID":(\d+)', output) or re.search(r'"ID" : (\d+)', output)
        member = re.search(r'"member":\{"ID":(\d+)', output)
        if member or found:
            self.ids[name] = int((member or found).group(1))
        elif found := re.search(r"(?:lease|Member)\s+([0-9a-f]{8,16})", output):
            self.ids[name] = int(found.group(1), 16)

    def fill(self, word):
        return re.sub(r"\$([A-Z]\w*)", lambda match: f"{self.ids[match.group(1)]:x}", word)

    def mask(self, output):
        text = output.decode("utf-8", "backslashreplace")
        for found, name in self.texts.items():
            text = text.replace(found, name)
        for name, number in self.ids.items():
            text = re.sub(rf"(?<![0-9a-f]){number}(?![0-9a-f])", name, text)
            text = re.sub(rf"(?<![0-9a-f])0*{number:x}(?![0-9a-f])", name, text)
        for pattern, replacement in MASKS:
            text = re.sub(pattern, replacement, text)
        # Members come in the order of their ids.
        text = re.sub(r'("members":\[\{)(.*)(\}\])',
                      lambda m: m[1] + "},{".join(sorted(m[2].split("},{"))) + m[3], text)
        return re.sub(r'(_INITIAL_CLUSTER=")(.*)"',
                      lambda m: m[1] + ",".join(sorted(m[2].split(","))) + '"', text)


def run(command, row):
    """Exit code, standard output, standard error, as bytes; of a command that is ended no code."""
    env = {"PATH": "/usr/bin:/bin"}
    if "lines" not in row:
        result = subprocess.run(command, input=row.get("stdin", "").encode(), capture_output=True,
                                env=env, timeout=120)
        return result.returncode, result.stdout, result.stderr
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    rescue = threading.Timer(PATIENCE, process.kill)
    rescue.start()
    try:
        out = b"".join(process.stdout.readline() for _ in range(row["lines"]))
        return None, out, b""
    finally:
        rescue.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def run_table(program):
    """What it printed, line by line of the table."""
    outcomes = []
    with Cluster(1) as cluster:
        cluster.start()
        member = cluster.members[0]
        names = Names(member)
        for row in table():
            arguments = [names.fill(word) for word in row["argv"]]
            code, out, err = run([program, f"--endpoints={member.endpoint}", *arguments], row)
            if "save" in row:
                names.save(row["save"], out.decode())
            outcomes.append({"argv": row["argv"], "exit": code, "stdout": names.mask(out),
                             "told": bool(err.strip())})
    return outcomes


def etcdctl():
    if not os.access(ETCDCTL, os.X_OK):
        return None
    out = subprocess.run([ETCDCTL, "version"], capture_output=True, text=True).stdout
    return str(ETCDCTL) if f"etcdctl version: {VERSION}" in out else None


def help_of(program, path):
    out = subprocess.run([program, *path, "--help"], capture_output=True, text=True).stdout
    flags = re.findall(r"^ +(?:-(\w), )?--([a-z-]+)(?: (\w+))?  ", out, re.M)
    listed = out.partition("\n\nUsage:")[2].partition("\nFlags:")[0].partition("\n\n")[2]
    commands = re.findall(r"^  (?!etcdctl )([a-z-]+) +\S", listed, re.M)  # Not the examples.
    return {name: [letter, kind] for letter, name, kind in flags if name != "help"}, commands


def tree_of(program, path=()):
    """The flags of each command, by its path."""
    flags, commands = help_of(program, path)
    found = {" ".join(path): flags} if path else {}
    if path in ((), ("lease",), ("member",), ("endpoint",), ("alarm",), ("downgrade",), ("check",),
                ("snapshot",)):
        for command in commands:
            found |= tree_of(program, (*path, command))
    return found


class CompareTest(unittest.TestCase):
    maxDiff = None

    def golden(self):
        record = json.loads((HERE / "golden.json").read_text())
        self.assertEqual([row["argv"] for row in record], [row["argv"] for row in table()],
                         "the record is older than the table; record anew")
        return record

    def test_the_record_is_what_etcdctl_prints(self):
        program = etcdctl()
        if not program:
            self.skipTest(f"SKIPPED: no etcdctl {VERSION} (KVD_ETCDCTL names it)")
        printed = run_table(program)
        for row in printed:
            del row["told"]
        if os.environ.get("KVD_REWRITE"):
            (HERE / "golden.json").write_text(
                "[\n" + ",\n".join(json.dumps(row) for row in printed) + "\n]\n")
        for row, want in zip(printed, self.golden()):
            with self.subTest(argv=row["argv"]):
                self.assertEqual(row, want)

    def test_kvctl_takes_every_command_and_flag(self):
        if (program := etcdctl()) and os.environ.get("KVD_REWRITE"):
            (HERE / "flags.json").write_text(json.dumps(tree_of(program), indent=1) + "\n")
        record = json.loads((HERE / "flags.json").read_text())
        if program:
            self.assertEqual(record, tree_of(program))
        taken = 0
        for path, flags in record.items():
            if path.split()[0] in MISSING:
                result = subprocess.run([BIN / "kvctl", path.split()[0]], capture_output=True)
                self.assertEqual(result.returncode, 1, f"no longer missing: {path}")
                continue
            mine, _ = help_of(BIN / "kvctl", path.split())
            for name, (letter, kind) in flags.items():
                with self.subTest(command=path, flag=name):
                    self.assertIn(name, mine)
                    self.assertEqual(mine[name], [letter, {"uint": "int"}.get(kind, kind)])
                    taken += 1
        self.assertGreaterEqual(taken, 50)

    def test_kvctl_prints_the_same(self):
        compared = 0
        rows = table()
        for row, got, want in zip(rows, run_table(str(BIN / "kvctl")), self.golden()):
            with self.subTest(argv=row["argv"], stdin=row.get("stdin")):
                if got["exit"]:
                    self.assertTrue(got["told"], "an error without a word")
                same = (got["exit"], got["stdout"]) == (want["exit"], want["stdout"])
                if "differs" in row:
                    self.assertFalse(same, "no longer an exception: " + row["differs"])
                    continue
                self.assertEqual((got["exit"], got["stdout"]), (want["exit"], want["stdout"]))
                compared += 1
        print(f"{compared} command lines compared, {len(rows) - compared} differ as they must")
        self.assertGreaterEqual(compared, 100)


if __name__ == "__main__":
    unittest.main()
