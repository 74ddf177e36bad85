"""kvctl lock and elect on real processes, as scripts use them."""

import signal
import subprocess
import unittest

from cluster import BIN, PATIENCE, Cluster, await_condition


class Holder:
    """A kvctl that goes on until it is ended."""

    def __init__(self, cluster, *arguments):
        self.process = subprocess.Popen(
            [str(BIN / "kvctl"), f"--endpoints={cluster.endpoints}", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def line(self):
        return self.process.stdout.readline()

    def end(self, number):
        """Its exit status, and what it complained of."""
        self.process.send_signal(number)
        _, complaint = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, complaint


def keys(cluster, prefix):
    return cluster.kvctl("get", prefix, "--prefix", "--keys-only", "--sort-by=CREATE").stdout.split()


class LocksTest(unittest.TestCase):
    def test_locks_and_elections(self):
        with Cluster(3) as cluster:
            cluster.start()
            self.a_program_runs_under_the_lock(cluster)
            self.a_lock_is_handed_on(cluster)
            self.who_is_killed_loses_the_lock(cluster)
            self.an_election_is_heard_of(cluster)

    def a_program_runs_under_the_lock(self, cluster):
        done = cluster.kvctl("lock", "job", "--", "sh", "-c",
                             "echo $ETCD_LOCK_KEY at $ETCD_LOCK_REV; exit 7", check=False)
        self.assertEqual(done.returncode, 7)
        self.assertRegex(done.stdout, r"^job/[0-9a-f]+ at [0-9]+\n$")
        self.assertEqual(done.stderr, "Error: exit status 7\n")
        self.assertEqual(cluster.kvctl("lock", "job", "true").stdout, "")
        self.assertEqual(keys(cluster, "job/"), [])
        missing = cluster.kvctl("lock", "job", "no-such-program", check=False)
        self.assertEqual(missing.returncode, 1)
        self.assertEqual(keys(cluster, "job/"), [])
        self.assertEqual(cluster.kvctl("lock", check=False).returncode, 128)

    def a_lock_is_handed_on(self, cluster):
        with Holder(cluster, "lock", "door") as first:
            key = first.line().strip()
            self.assertTrue(key.startswith("door/"), key)
            self.assertEqual(first.line(), "\n")  # Its value.
            with Holder(cluster, "lock", "door") as leaves, Holder(cluster, "lock", "door") as second:
                await_condition("three in the line", lambda: len(keys(cluster, "door/")) == 3)
                self.assertEqual(leaves.end(signal.SIGINT), (1, "Error: context canceled\n"))
                self.assertEqual(len(keys(cluster, "door/")), 2)
                self.assertEqual(first.end(signal.SIGTERM), (0, ""))
                self.assertEqual([second.line().strip()], keys(cluster, "door/"))
                self.assertEqual(second.end(signal.SIGINT), (0, ""))
        self.assertEqual(keys(cluster, "door/"), [])

    def who_is_killed_loses_the_lock(self, cluster):
        with Holder(cluster, "lock", "gate", "--ttl=2") as first:
            lost = first.line().strip()
            with Holder(cluster, "lock", "gate") as second:
                await_condition("two in the line", lambda: len(keys(cluster, "gate/")) == 2)
                first.end(signal.SIGKILL)
                self.assertNotEqual(second.line().strip(), lost)
                # A holder goes on through the death of a leader.
                leader = cluster.leader()
                leader.kill()
                cluster.leader()
                self.assertEqual(len(keys(cluster, "gate/")), 1)
                self.assertEqual(second.end(signal.SIGTERM), (0, ""))
                leader.start()
                cluster.await_healthy()

    def an_election_is_heard_of(self, cluster):
        self.assertEqual(cluster.kvctl("elect", "boss", check=False).returncode, 128)
        self.assertEqual(cluster.kvctl("elect", "boss", "x", "-l", check=False).returncode, 128)
        with Holder(cluster, "elect", "-l", "boss") as listener:
            with Holder(cluster, "elect", "boss", "one") as first:
                key = first.line()
                self.assertEqual(first.line(), "one\n")
                self.assertEqual([listener.line(), listener.line()], [key, "one\n"])
                with Holder(cluster, "elect", "boss", "two") as second:
                    await_condition("two candidates", lambda: len(keys(cluster, "boss/")) == 2)
                    leader = cluster.leader()
                    leader.kill()
                    cluster.leader()
                    self.assertEqual(first.end(signal.SIGINT), (0, ""))
                    key = second.line()
                    self.assertEqual(second.line(), "two\n")
                    self.assertEqual([listener.line(), listener.line()], [key, "two\n"])
                    self.assertEqual(second.end(signal.SIGTERM), (0, ""))
                    leader.start()
            self.assertEqual(listener.end(signal.SIGTERM), (0, ""))


if __name__ == "__main__":
    unittest.main()
