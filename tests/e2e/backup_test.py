"""Backups: taken from members under load, refused when damaged, restored into a new cluster."""

import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import unittest

from cluster import BIN, Cluster, Member, await_condition

KEYS = 3000
BUMP = 1000000000


def find_etcdctl():
    """$KVD_ETCDCTL, else the distribution's."""
    return os.environ.get("KVD_ETCDCTL") or shutil.which("etcdctl")


class Load(threading.Thread):
    """Writes the same number under two keys in one transaction, over and over."""

    def __init__(self, cluster):
        super().__init__()
        self.cluster = cluster
        self.written = 0
        self.ended = threading.Event()
        self.start()

    def run(self):
        while not self.ended.is_set():
            number = self.written + 1
            txn = f"\n\nput pair/left {number}\nput pair/right {number}\n\n\n"
            if self.cluster.kvctl("txn", stdin=txn[1:], check=False).returncode == 0:
                self.written = number

    def end(self):
        self.ended.set()
        self.join()


def fill(cluster):
    def text(value):
        return base64.b64encode(value.encode()).decode()

    lines = "".join(
        json.dumps({"key": text(f"data/{i:06}"), "value": text(f"value {i} " + "x" * (i % 300))}) + "\n"
        for i in range(KEYS)
    )
    path = cluster.folder / "keys.txt"
    path.write_text(lines)
    return path


def content(cluster, endpoint):
    """Every key with its value, lease, version and both revisions, as the API gives them."""
    answer = cluster.kvctl("get", "", "--prefix", "-w", "json", endpoints=endpoint)
    return json.loads(answer.stdout)


def restore(backup, data_dir, *flags):
    return subprocess.run(
        [str(BIN / "kvctl"), "snapshot", "restore", str(backup), f"--data-dir={data_dir}", *flags],
        capture_output=True, text=True,
    )


def join(cluster, name):
    member = Member(cluster, name)
    added = cluster.kvctl("member", "add", name, f"--peer-urls=http://127.0.0.1:{member.peer_port}",
                          endpoints=cluster.members[0].endpoint)
    listed = re.search(r'^KVD_INITIAL_CLUSTER="(.*)"$', added.stdout, re.MULTILINE).group(1)
    arguments = member.arguments()
    member.arguments = lambda: [
        *[a for a in arguments if not a.startswith("--initial-cluster=")],
        f"--initial-cluster={listed}", "--initial-cluster-state=existing"]
    cluster.members.append(member)
    member.start()
    return member


class BackupTest(unittest.TestCase):
    def save(self, cluster, path, tool="kvctl"):
        endpoint = cluster.members[1].endpoint
        if tool == "kvctl":
            saved = cluster.kvctl("snapshot", "save", str(path), endpoints=endpoint)
            self.assertEqual(saved.stdout, f"Snapshot saved at {path}\nServer version kvd-1\n")
        else:
            subprocess.run([tool, f"--endpoints={endpoint}", "snapshot", "save", str(path)],
                           check=True, capture_output=True, env={**os.environ, "ETCDCTL_API": "3"})
        self.assertEqual(path.stat().st_size % 512, 32)
        self.assertFalse(pathlib.Path(f"{path}.part").exists())

    def test_three_members_are_lost_and_come_back_from_one_file(self):
        with Cluster(3) as cluster:
            cluster.start()
            cluster.kvctl("import", str(fill(cluster)))
            lease = re.search(r"lease (\w+)", cluster.kvctl("lease", "grant", "3600").stdout).group(1)
            cluster.kvctl("put", "leased", "value", f"--lease={lease}")
            load = Load(cluster)
            try:
                await_condition("some load", lambda: load.written > 5)
                ours = cluster.folder / "ours.db"
                self.save(cluster, ours)
                files = [ours]
                if etcdctl := find_etcdctl():
                    files.append(cluster.folder / "theirs.db")
                    self.save(cluster, files[-1], etcdctl)
            finally:
                load.end()
            status = json.loads(
                cluster.kvctl("snapshot", "status", str(files[-1]), "-w", "json").stdout)
            self.assertEqual(status["totalKey"], KEYS + 3)
            before = content(cluster, cluster.members[0].endpoint)
            old_id = before["header"]["cluster_id"]

            # A quiet store: the last backup is what the cluster holds to the byte.
            last = cluster.folder / "last.db"
            self.save(cluster, last)
            for member in cluster.members:
                member.kill()
                shutil.rmtree(member.data_dir)
            for backup in [*files, last]:
                self.restored(cluster, backup, before if backup == last else None, old_id, lease)

    def restored(self, cluster, backup, before, old_id, lease):
        first = cluster.members[0]
        done = restore(backup, first.data_dir)
        self.assertEqual(done.returncode, 0, done.stderr)
        again = restore(backup, first.data_dir)
        self.assertEqual(again.returncode, 1)
        self.assertIn("is not empty", again.stderr)
        del cluster.members[1:]
        first.start()
        cluster.await_healthy()
        after = content(cluster, first.endpoint)
        self.assertNotEqual(after["header"]["cluster_id"], old_id)
        values = {pair["key"]: pair["value"] for pair in after["kvs"]}
        self.assertEqual(values["cGFpci9sZWZ0"], values["cGFpci9yaWdodA=="])  # pair/left, pair/right
        self.assertEqual(after["count"], KEYS + 3)
        if before:
            self.assertEqual(after["kvs"], before["kvs"])
            self.assertEqual(after["header"]["revision"], before["header"]["revision"] + BUMP)
        left = cluster.kvctl("lease", "timetolive", lease, "--keys", endpoints=first.endpoint).stdout
        self.assertIn("attached keys([leased])", left)

        old = after["header"]["revision"] - BUMP
        refused = cluster.kvctl("get", "leased", f"--rev={old}", check=False)
        self.assertIn("required revision has been compacted", refused.stderr)
        watched = cluster.kvctl("watch", "leased", f"--rev={old}", check=False)
        self.assertIn("required revision has been compacted", watched.stdout + watched.stderr)
        put = json.loads(cluster.kvctl("put", "new", "value", "-w", "json").stdout)
        self.assertEqual(put["header"]["revision"], after["header"]["revision"] + 1)

        if before:
            self.joined(cluster)
        for member in cluster.members:
            member.kill()
        for member in cluster.members[1:]:
            shutil.rmtree(member.folder)
        shutil.rmtree(first.data_dir)

    def joined(self, cluster):
        """Two blank members join; everything is the same on all, and one may be lost."""
        first = cluster.members[0]
        for name in ("b", "c"):
            join(cluster, name)
            await_condition(f"{name} votes", lambda: sum(
                not m.get("isLearner") and m.get("name", "") != "" for m in json.loads(
                    cluster.kvctl("member", "list", "-w", "json", endpoints=first.endpoint).stdout
                )["members"]) == len(cluster.members))
            cluster.await_healthy()
        cluster.await_caught_up()
        self.assertEqual(len(set(cluster.hashes())), 1)
        expected = content(cluster, first.endpoint)["kvs"]
        for member in cluster.members:
            self.assertEqual(content(cluster, member.endpoint)["kvs"], expected)
        # Nothing hangs on the member that was restored.
        cluster.leader()
        first.kill()
        rest = ",".join(m.endpoint for m in cluster.members[1:])
        await_condition("a write without the first", lambda: cluster.kvctl(
            "put", "newer", "value", endpoints=rest, check=False).returncode == 0)
        first.start()

    def test_what_is_no_whole_backup_is_refused_with_a_sentence(self):
        with Cluster(1) as cluster:
            cluster.start()
            cluster.kvctl("put", "key", "value")
            good = cluster.folder / "good.db"
            cluster.kvctl("snapshot", "save", str(good))
            bytes_ = good.read_bytes()
            flipped = bytearray(bytes_)
            flipped[len(bytes_) // 2] ^= 4
            bad = {
                "flipped": (bytes(flipped), "is damaged: its SHA-256 is"),
                "cut": (bytes_[: len(bytes_) - 100], "no backup with its sum has that size"),
                "block": (bytes_[: len(bytes_) - 512], "is damaged"),
                "empty": (b"", "it is empty"),
                "foreign": (os.urandom(8192 + 32), "is not a backup of kvd"),
            }
            for name, (content_, words) in bad.items():
                path = cluster.folder / name
                path.write_bytes(content_)
                target = cluster.folder / f"{name}-data"
                with self.subTest(name):
                    done = restore(path, target)
                    self.assertEqual(done.returncode, 1)
                    self.assertIn(words, done.stderr)
                    self.assertFalse(target.exists())
                    status = cluster.kvctl("snapshot", "status", str(path), check=False)
                    self.assertEqual(status.returncode, 1)
                    self.assertIn(words, status.stderr)
            flagged = restore(good, cluster.folder / "x", "--wal-dir=/tmp/x")
            self.assertEqual(flagged.returncode, 128)
            flagged = restore(good, cluster.folder / "x", "--bump-revision=5", "--mark-compacted=false")
            self.assertEqual(flagged.returncode, 128)
            plain = restore(good, cluster.folder / "plain", "--bump-revision=0",
                            "--initial-cluster=default=http://localhost:2380")
            self.assertEqual(plain.returncode, 0, plain.stderr)
            self.assertEqual(plain.stderr.count("Warning:"), 1)
            self.assertEqual(oct(good.stat().st_mode & 0o777), "0o600")


if __name__ == "__main__":
    unittest.main()
