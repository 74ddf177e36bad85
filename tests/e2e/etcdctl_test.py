"""Stock etcdctl notices no difference: the same commands against kvd and against etcd.

Every etcdctl found on this machine (the distribution's, and the one that KVD_ETCDCTL or the folder
of peers names) runs the table below against kvd. What must come back was recorded from a real etcd,
per version of etcdctl, in golden/. KVD_REWRITE=1 records anew from the etcd that KVD_ETCD or the
folder of peers names.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest

from cluster import Cluster, await_condition, free_ports

GOLDEN = pathlib.Path(__file__).parent / "golden"
PEERS = pathlib.Path.home() / ".cache/kvd-peers/bin"

# Arguments, and what is typed in. Run in order on an empty store.
TABLE = [
    ("get nothing", None),
    ("put foo bar", None),
    ("put foo", "from stdin"),
    ("get foo", None),
    ("get foo -w json", None),
    ("get foo -w fields", None),
    ("get foo --hex", None),
    ("put foo bar2 --prev-kv", None),
    ("put foo bar3 --prev-kv -w json", None),
    ("put foo --ignore-value", None),
    ("put foo x --ignore-lease", None),
    ("put absent --ignore-value", None),
    ("put foo x --lease 1234", None),
    ("put a 1", None), ("put b 2", None), ("put c 3", None), ("put d 4", None), ("put ab 5", None),
    ("put b 22", None), ("put c 33", None), ("put c 333", None),
    ("get a d", None),
    ("get a --prefix", None),
    ("get a --from-key", None),
    ("get --prefix ''", None),
    ("get --prefix '' --keys-only", None),
    ("get --prefix '' --count-only -w fields", None),
    ("get --prefix '' --limit 2 -w json", None),
    ("get --prefix '' --limit 2 --keys-only -w json", None),
    ("get --prefix '' --order DESCEND", None),
    ("get --prefix '' --sort-by VERSION --order DESCEND -w json", None),
    ("get --prefix '' --sort-by CREATE", None),
    ("get --prefix '' --sort-by MODIFY --order DESCEND", None),
    ("get --prefix '' --sort-by VALUE --order ASCEND", None),
    ("get --prefix '' --sort-by KEY --order DESCEND --limit 1", None),
    ("get --prefix '' --sort-by NONSENSE", None),
    ("get c --rev 6 -w json", None),
    ("get --prefix '' --rev 7", None),
    ("get c --rev 1000", None),
    ("get c --print-value-only", None),
    ("get c --consistency s", None),
    ("get c --consistency x", None),
    ("get d a", None),
    ("get a d --prefix", None),
    ("get", None),
    ("put", None),
    ("put '' x", None),
    ("get ''", None),
    ("del ''", None),
    ("del nothing", None),
    ("del d --prev-kv", None),
    ("del a c -w json", None),
    ("del c --prefix --prev-kv -w json", None),
    ("put k1 v1", None), ("put k2 v2", None), ("put k3 v3", None),
    ("txn", 'value("k1") = "v1"\n\nput k1 won\nget k1\n\nput k1 lost\n\n'),
    ("txn", 'value("k1") = "v1"\n\nput k1 won\n\nget k1\ndel k2\n\n'),
    ("txn -w json", 'mod("k1") > "0"\nversion("k1") < "9"\ncreate("zz") = "0"\n\nget k --prefix\n\n\n'),
    ("txn -w fields", '\nput n1 x\nput n2 y\ndel k3\n\n\n'),
    ("txn", '\nput same x\nput same y\n\n\n'),
    ("txn", 'nonsense("k1") = "x"\n\n\n\n'),
    ("get --prefix '' -w json", None),
    ("compaction 1000", None),
    ("compaction 8", None),
    ("compaction 8", None),
    ("compaction 3", None),
    ("get foo --rev 3", None),
    ("get foo --rev 8 -w json", None),
    ("compaction 12 --physical", None),
    ("get k1 --rev 11", None),
    ("compaction nonsense", None),
    ("endpoint health", None),
    ("member list --consistency x", None),
    ("alarm list", None),
]


def normalize(text):
    """What must differ between two clusters: ids, terms, times, ports."""
    text = re.sub(r'"(cluster_id|member_id|raft_term)":\d+', r'"\1":N', text)
    text = re.sub(r'"(ClusterID|MemberID|RaftTerm)" : \d+', r'"\1" : N', text)
    text = re.sub(r"127\.0\.0\.1:\d+", "ENDPOINT", text)
    text = re.sub(r"took = [\d.]+(µs|ms|s)|took \d+[\d.]*(µs|ms|s)", "took TIME", text)
    # The client's own log lines are not the server's answer.
    return "".join(l for l in text.splitlines(keepends=True) if not l.startswith('{"level"'))


def run(etcdctl, endpoint, arguments, typed):
    result = subprocess.run(
        [etcdctl, f"--endpoints={endpoint}", *shlex.split(arguments)],
        input=typed if typed is not None else "", capture_output=True, text=True,
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin"})
    return {"command": arguments, "exit": result.returncode, "stdout": normalize(result.stdout),
            "stderr": normalize(result.stderr)}


def version_of(etcdctl):
    out = subprocess.run([etcdctl, "version"], capture_output=True, text=True,
                         env={"ETCDCTL_API": "3", "PATH": "/usr/bin"}).stdout
    return re.search(r"etcdctl version: (\d+\.\d+)", out).group(1)


def programs():
    found = {}
    for place in (os.environ.get("KVD_ETCDCTL"), PEERS / "etcdctl", shutil.which("etcdctl")):
        if place and os.access(place, os.X_OK):
            found.setdefault(version_of(place), str(place))
    return found


def record(etcdctl):
    etcd = os.environ.get("KVD_ETCD") or PEERS / "etcd"
    folder = tempfile.mkdtemp(prefix="kvd-e2e-")
    client, peer = free_ports(2)
    server = subprocess.Popen(
        [etcd, f"--data-dir={folder}/d", f"--listen-client-urls=http://127.0.0.1:{client}",
         f"--advertise-client-urls=http://127.0.0.1:{client}",
         f"--listen-peer-urls=http://127.0.0.1:{peer}",
         f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
         f"--initial-cluster=default=http://127.0.0.1:{peer}"],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        endpoint = f"127.0.0.1:{client}"
        await_condition("etcd", lambda: run(etcdctl, endpoint, "get x", None)["exit"] == 0)
        return [run(etcdctl, endpoint, *row) for row in TABLE]
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


class EtcdctlTest(unittest.TestCase):
    def test_every_command_answers_as_etcd_does(self):
        self.maxDiff = None
        clients = programs()
        if not clients:
            self.skipTest("SKIPPED: no etcdctl on this machine (package etcd-client)")
        compared = 0
        for version, etcdctl in sorted(clients.items()):
            golden = GOLDEN / f"etcdctl-{version}.json"
            if os.environ.get("KVD_REWRITE"):
                GOLDEN.mkdir(exist_ok=True)
                golden.write_text(json.dumps(record(etcdctl), indent=1) + "\n")
            if not golden.exists():
                print(f"SKIPPED: nothing was recorded for etcdctl {version}")
                continue
            expected = json.loads(golden.read_text())
            self.assertEqual([row["command"] for row in expected], [row[0] for row in TABLE],
                             "the record is older than the table; record anew")
            with Cluster(3) as cluster:
                cluster.start()
                # Through one member that follows: every write goes through its leader.
                member = next(m for m in cluster.members if m is not cluster.leader())
                for row, want in zip(TABLE, expected):
                    with self.subTest(etcdctl=version, command=row[0]):
                        self.assertEqual(run(etcdctl, member.endpoint, *row), want)
                        compared += 1
        self.assertGreater(compared, 0, "no etcdctl of a recorded version was found")
        print(f"{compared} commands compared, etcdctl {', '.join(sorted(clients))}")


if __name__ == "__main__":
    unittest.main()
