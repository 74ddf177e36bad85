"""What kvctl does besides single requests: looking around, editing, mirroring, checking."""

import base64
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile
import unittest

from cluster import BIN, Cluster, await_condition


def base64_of(text):
    return base64.b64encode(text.encode()).decode()


def revision(cluster):
    return json.loads(cluster.kvctl("get", "x", "-w", "json").stdout)["header"]["revision"]


def pairs(cluster, prefix=""):
    lines = cluster.kvctl("get", prefix, "--prefix").stdout.split("\n")[:-1]
    return dict(zip(lines[::2], lines[1::2]))


class ToolsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = cls.enterClassContext(Cluster(1)).start()

    def test_tree_and_diff_read_more_than_a_page(self):
        cluster = self.cluster
        many = {f"big/{n % 7}/{n:05}": "x" * 500 for n in range(12_000)}
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "pairs"
            file.write_text("".join(json.dumps({"key": base64_of(k), "value": base64_of(v)}) + "\n"
                                    for k, v in many.items()))
            cluster.kvctl("import", str(file))
        before = revision(cluster)
        tree = json.loads(cluster.kvctl("tree", "big/", "--depth=1", "--sizes", "-w", "json").stdout)
        self.assertEqual(tree["keys"], len(many))
        self.assertEqual(tree["bytes"], sum(len(k) + len(v) for k, v in many.items()))
        self.assertEqual({c["name"]: c["keys"] for c in tree["children"]},
                         {f"{n}/": sum(k.startswith(f"big/{n}/") for k in many) for n in range(7)})
        whole = cluster.kvctl("tree", "big/")
        self.assertLessEqual(len(whole.stdout.splitlines()), 10_001)
        self.assertIn("depth 1", whole.stderr)

        cluster.kvctl("put", "big/3/00003", "y")
        cluster.kvctl("put", "big/3/zzz", "new")
        cluster.kvctl("put", "big/4/00004", "x" * 500)  # As it was.
        cluster.kvctl("del", "big/0/00000")
        cluster.kvctl("del", "big/6/", "--prefix")
        changes = [json.loads(line) for line in
                   cluster.kvctl("diff", "big/", f"--rev={before}", "-w", "json").stdout.splitlines()]
        counts = {kind: sum(c["change"] == kind for c in changes)
                  for kind in ("added", "removed", "changed")}
        self.assertEqual(counts, {"added": 1, "changed": 1,
                                  "removed": 1 + sum(k.startswith("big/6/") for k in many)})
        again = cluster.kvctl("diff", "big/4/", f"--rev={before}", "--keys-only").stdout
        self.assertEqual(again, '~ "big/4/00004"\n')
        self.assertEqual(cluster.kvctl("diff", f"--rev={before}", f"--rev2={before}").stdout, "")

    def edit(self, key, script):
        """With an editor that does `script` to the file "$1"."""
        with tempfile.TemporaryDirectory() as folder:
            editor = pathlib.Path(folder) / "editor"
            editor.write_text(f"#!/bin/sh\n{script}\n")
            editor.chmod(editor.stat().st_mode | stat.S_IEXEC)
            environment = {**os.environ, "EDITOR": str(editor), "TMPDIR": folder}
            environment.pop("VISUAL", None)
            result = subprocess.run(
                [BIN / "kvctl", f"--endpoints={self.cluster.endpoints}", "edit", key],
                env=environment, capture_output=True, text=True)
            left = [p.read_text() for p in pathlib.Path(folder).glob("kvctl-edit-*")]
            return result, left

    def test_an_edit_never_overwrites_what_somebody_else_put(self):
        cluster = self.cluster
        lease = json.loads(cluster.kvctl("lease", "grant", "1000", "-w", "json").stdout)["ID"]
        cluster.kvctl("put", "edit/k", "before", f"--lease={lease:x}")
        result, left = self.edit("edit/k", 'echo after > "$1"')
        self.assertEqual((result.returncode, left), (0, []), result.stderr)
        found = json.loads(cluster.kvctl("get", "edit/k", "-w", "json").stdout)["kvs"][0]
        self.assertEqual((found["value"], found["lease"]), ("YWZ0ZXI=", lease))

        at = revision(cluster)
        result, left = self.edit("edit/k", "true")
        self.assertEqual((result.returncode, left, revision(cluster)), (0, [], at))

        theirs = f"{BIN / 'kvctl'} --endpoints={cluster.endpoints} put edit/k theirs"
        result, left = self.edit("edit/k", f'{theirs} && echo mine > "$1"')
        self.assertEqual((result.returncode, left), (1, ["mine\n"]))
        self.assertIn("changed meanwhile", result.stderr)
        self.assertEqual(pairs(cluster, "edit/k"), {"edit/k": "theirs"})

        result, left = self.edit("edit/k", 'echo half > "$1"; exit 1')
        self.assertEqual((result.returncode, left), (1, ["half\n"]))
        self.assertEqual(pairs(cluster, "edit/k"), {"edit/k": "theirs"})

        result, left = self.edit("edit/new", 'echo made > "$1"')
        self.assertEqual((result.returncode, left), (0, []))
        self.assertEqual(pairs(cluster, "edit/new"), {"edit/new": "made"})

    def test_a_mirror_goes_on_where_it_ended(self):
        cluster = self.cluster
        for n in range(30):
            cluster.kvctl("put", f"mirror/{n:03}", str(n))
        with Cluster(1) as other:
            other.start()

            def mirror(*flags):
                process = subprocess.Popen(
                    [BIN / "kvctl", f"--endpoints={cluster.endpoints}", "make-mirror", "--prefix=mirror/",
                     "--dest-prefix=copy/", "--max-txn-ops=7", *flags, other.endpoints],
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                self.addCleanup(process.stderr.close)
                self.addCleanup(process.wait)
                self.addCleanup(process.kill)
                return process

            def same():
                here = {k.removeprefix("mirror/"): v for k, v in pairs(cluster, "mirror/").items()}
                there = {k.removeprefix("copy/"): v for k, v in pairs(other).items()}
                return here == there

            process = mirror()
            await_condition("the copy", same)
            cluster.kvctl("put", "mirror/005", "changed")
            cluster.kvctl("del", "mirror/01", "--prefix")  # More than one transaction there.
            cluster.kvctl("put", "elsewhere", "x")
            await_condition("the changes", same)
            process.kill()
            process.wait()

            at = revision(cluster)
            cluster.kvctl("put", "mirror/new", "x")
            cluster.kvctl("del", "mirror/002")
            process = mirror(f"--rev={at + 1}")
            await_condition("the rest", same)
            process.kill()
            process.wait()

            # What is compacted cannot be followed, and it is said what can be done.
            cluster.kvctl("compaction", str(revision(cluster)))
            process = mirror(f"--rev={at + 1}")
            _, said = process.communicate(timeout=120)
            self.assertEqual(process.returncode, 1)
            self.assertIn("required revision has been compacted; run it again without --rev", said)

    def test_a_check_cleans_up_and_its_verdict_is_its_exit_code(self):
        cluster = self.cluster
        member = cluster.members[0]
        result = cluster.kvctl("check", "perf", "--duration=1s", "--prefix=check/", check=False)
        lines = result.stdout.splitlines()
        self.assertEqual(len(lines), 4, result)
        self.assertIn(lines[-1], ("PASS", "FAIL"))
        self.assertEqual(result.returncode == 0, lines[-1] == "PASS")
        self.assertRegex(lines[0], r"^(PASS: Throughput is|FAIL: Throughput too low:) \d+ writes/s$")
        self.assertEqual(pairs(cluster, "check/"), {})

        url = f"http://127.0.0.1:{member.admin_port}/metrics"
        result = cluster.kvctl("check", "datascale", f"--metrics-url={url}", "--auto-compact",
                               "--auto-defrag", "--prefix=check/")
        self.assertRegex(result.stdout, r"PASS: Approximate system memory used : -?\d+\.\d\d MB\.\n$")
        self.assertIn("Start data scale check for work load [10000 key-value pairs, 1024 bytes per "
                      "key-value, 50 concurrent clients].", result.stdout)
        self.assertRegex(result.stdout, r"Compacting with revision (\d+)\nCompacted with revision \1\n")
        self.assertEqual(pairs(cluster, "check/"), {})

        cluster.kvctl("put", "check/mine", "precious")
        for kind in ("perf", "datascale"):
            self.assertEqual(cluster.kvctl("check", kind, "--prefix=check/", check=False).returncode, 3)
        self.assertEqual(pairs(cluster, "check/"), {"check/mine": "precious"})

    def test_a_whole_cluster_passes_its_check_and_one_that_lacks_a_member_fails(self):
        with Cluster(3) as cluster:
            cluster.start()
            cluster.await_healthy()
            result = cluster.kvctl("check", "cluster", "--members=3")
            self.assertEqual(result.stdout.splitlines()[-1], "PASS", result.stdout)
            self.assertEqual(result.stdout.count("PASS: read it at "), 3)
            self.assertIn("PASS: a watcher heard of both\n", result.stdout)
            self.assertEqual(pairs(cluster, "/kvctl-check-cluster/"), {})
            result = cluster.kvctl("check", "cluster", "--members=4", check=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn("FAIL: 3 of 4 wanted members vote\n", result.stdout)
            follower = next(m for m in cluster.members if m is not cluster.leader())
            follower.kill()
            result = cluster.kvctl("check", "cluster", check=False)
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stdout, r"FAIL: no status of .* at 127\.0\.0\.1:")
            self.assertEqual(result.stdout.splitlines()[-1], "FAIL")

    def test_top_counts_the_writes_between_two_looks(self):
        cluster = self.cluster
        process = subprocess.Popen(
            [BIN / "kvctl", f"--endpoints={cluster.endpoints}", "top", "--interval=100ms"],
            stdout=subprocess.PIPE, text=True)
        try:
            busy = False
            for line in process.stdout:
                cells = line.split()
                if cells and cells[0] == "m1":
                    self.assertEqual(cells[1], "leader")
                    if float(cells[3]) > 0:
                        busy = True
                        break
                cluster.kvctl("put", "top", "x")
            self.assertTrue(busy)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        once = cluster.kvctl("top", "--count=2", "--interval=100ms").stdout
        self.assertEqual(len(re.findall(r"^NAME ", once, re.M)), 2)
        self.assertNotIn("\033", once)

    def test_shells_read_their_completions(self):
        for shell, check in (("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")):
            if not shutil.which(shell):
                print(f"SKIPPED: no {shell} on this machine")
                continue
            script = subprocess.run([BIN / "kvctl", "completion", shell], capture_output=True).stdout
            self.assertEqual(subprocess.run([shell, check], input=script).returncode, 0, shell)
        complete = ('source <("$0" completion bash); COMP_WORDS=("${@}"); COMP_CWORD=$(($# - 1)); '
                    '_kvctl; echo "${COMPREPLY[@]}"')
        for words, wanted in ((["kvctl", "end"], "endpoint"),
                              (["kvctl", "endpoint", "h"], "health hashkv"),
                              (["kvctl", "get", "-w", "j"], "json"),
                              (["kvctl", "make-mirror", "--dest-p"], "--dest-prefix --dest-password")):
            out = subprocess.run(["bash", "-c", complete, str(BIN / "kvctl"), *words],
                                 capture_output=True, text=True).stdout
            self.assertEqual(sorted(out.split()), sorted(wanted.split()), words)


if __name__ == "__main__":
    unittest.main()
