"""The package index of this machine, loaded while members fail.

The leader is killed three times and a follower is stopped for thirty seconds during one import.
Afterwards nothing is missing, on any member.
"""

import base64
import json
import re
import shutil
import signal
import subprocess
import threading
import time
import unittest

from cluster import BIN, PATIENCE, Cluster, await_condition

STOPPED_SECONDS = 30


def package_index():
    """{key: stanza} of every package that the machine's package index knows."""
    text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True).stdout
    stanzas = {}
    for stanza in text.split(b"\n\n"):
        fields = {}
        for line in stanza.split(b"\n"):
            name, _, value = line.partition(b": ")
            if name in (b"Package", b"Version"):
                fields[name] = value
        if len(fields) == 2:
            key = b"/debian/" + fields[b"Package"] + b"/" + fields[b"Version"]
            stanzas[key] = stanza.strip(b"\n")
    return stanzas


def read_back(member):
    """Everything below /debian/ as this member alone has applied it."""
    result = subprocess.run(
        [str(BIN / "kvctl"), f"--endpoints={member.endpoint}", "--command-timeout=120s", "get",
         "/debian/", "--prefix", "--consistency=s", "-w", "json"],
        capture_output=True,
        check=True,
    )
    answer = json.loads(result.stdout)
    pairs = {
        base64.b64decode(kv["key"]): (base64.b64decode(kv.get("value", "")), kv)
        for kv in answer["kvs"]
    }
    return answer, pairs


class ImportTest(unittest.TestCase):
    def test_a_package_index_survives_killed_leaders_and_a_stopped_follower(self):
        if shutil.which("apt-cache") is None:
            self.skipTest("SKIPPED: this machine has no apt-cache, so there is no package index")
        stanzas = package_index()
        self.assertGreater(len(stanzas), 10_000, "the package index is empty; run apt-get update")

        with Cluster(3) as cluster:
            source = cluster.folder / "packages.jsonl"
            with source.open("w") as out:
                for key, value in stanzas.items():
                    pair = {"key": base64.b64encode(key).decode(),
                            "value": base64.b64encode(value).decode()}
                    out.write(json.dumps(pair) + "\n")
            cluster.start()
            loader = subprocess.Popen(
                [str(BIN / "kvctl"), f"--endpoints={cluster.endpoints}", "import", str(source)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.addCleanup(loader.kill)

            stopped = [None]

            def revision():
                seen = [s["header"]["revision"] for m in cluster.members
                        if m.process and m is not stopped[0] and (s := m.status())]
                return max(seen, default=0)

            def await_revision(target):
                await_condition(f"revision {target}", lambda: revision() >= target)

            # Fractions of the load at which something fails.
            await_revision(len(stanzas) // 20)
            leader = cluster.leader()
            follower = next(m for m in cluster.members if m is not leader)
            stopped[0] = follower
            follower.signal(signal.SIGSTOP)
            stopped_at = time.monotonic()
            resume = threading.Timer(
                STOPPED_SECONDS, lambda: follower.signal(signal.SIGCONT))
            resume.start()
            self.addCleanup(resume.cancel)

            killed = []
            for share in (0.15, 0.3, 0.45):
                await_revision(int(len(stanzas) * share))
                victim = cluster.leader(but=[follower])
                killed.append(victim.name)
                victim.kill()
                victim.start()
            resume.join()
            self.assertGreaterEqual(time.monotonic() - stopped_at, STOPPED_SECONDS)

            output, _ = loader.communicate(timeout=10 * PATIENCE)
            print(f"{len(stanzas)} keys; leaders killed: {killed}; {output.splitlines()[-1]}")
            self.assertEqual(loader.returncode, 0, output)

            cluster.await_healthy()
            cluster.await_caught_up()
            for member in cluster.members:
                answer, pairs = read_back(member)
                self.assertEqual(answer["count"], len(stanzas))
                for key, value in stanzas.items():
                    self.assertEqual(pairs[key][0], value, f"{key} on {member.name}")
                # Every put made one revision and nothing else did: the versions add up to them.
                versions = [kv["version"] for _, kv in pairs.values()]
                self.assertEqual(sum(versions), answer["header"]["revision"] - 1)
                revisions = {kv["mod_revision"] for _, kv in pairs.values()}
                self.assertEqual(len(revisions), len(pairs), "two keys share a revision")
                repeated = int(re.search(r"(\d+) puts sent again", output).group(1))
                self.assertLessEqual(sum(versions) - len(pairs), repeated)
            self.assertEqual(len(set(cluster.hashes())), 1)


if __name__ == "__main__":
    unittest.main()
