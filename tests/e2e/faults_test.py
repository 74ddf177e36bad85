"""Processes, disks and memories that fail under a running cluster."""

import os
import signal
import subprocess
import threading
import unittest

from cluster import Cluster, await_condition, kvctl


class Writer(threading.Thread):
    """Puts unique keys one after another and remembers which were acknowledged."""

    def __init__(self, endpoints):
        super().__init__()
        self.endpoints = endpoints
        self.acknowledged = []
        self.stopping = threading.Event()

    def run(self):
        number = 0
        while not self.stopping.is_set():
            number += 1
            result = kvctl("put", f"w/{number:06}", str(number), endpoints=self.endpoints,
                           check=False, timeout="5s")
            if result.returncode == 0:
                self.acknowledged.append(number)

    def finish(self):
        self.stopping.set()
        self.join()
        return self.acknowledged


def assert_acknowledged(test, cluster, acknowledged):
    got = cluster.kvctl("get", "w/", "--prefix", "--keys-only").stdout.split()
    missing = {f"w/{number:06}" for number in acknowledged} - set(got)
    test.assertEqual(missing, set(), "acknowledged writes are missing")


class FaultsTest(unittest.TestCase):
    def test_nothing_acknowledged_is_lost_when_leaders_are_killed(self):
        with Cluster(3) as cluster:
            cluster.start()
            writer = Writer(cluster.endpoints)
            writer.start()
            for _ in range(4):
                target = len(writer.acknowledged) + 20
                await_condition("writes", lambda t=target: len(writer.acknowledged) >= t)
                leader = cluster.leader()
                leader.kill()
                leader.start()
            acknowledged = writer.finish()
            cluster.await_healthy()
            assert_acknowledged(self, cluster, acknowledged)

    def test_all_members_killed_at_once_lose_nothing(self):
        with Cluster(3) as cluster:
            cluster.start()
            writer = Writer(cluster.endpoints)
            writer.start()
            for _ in range(3):
                target = len(writer.acknowledged) + 20
                await_condition("writes", lambda t=target: len(writer.acknowledged) >= t)
                for member in cluster.members:
                    member.signal(signal.SIGKILL)
                for member in cluster.members:
                    member.await_exit()
                for member in cluster.members:
                    member.start()
                cluster.await_healthy()
            assert_acknowledged(self, cluster, writer.finish())

    def test_a_paused_leader_does_not_answer_from_the_past(self):
        with Cluster(3) as cluster:
            cluster.start()
            cluster.kvctl("put", "x", "old")
            paused = cluster.leader()
            paused.signal(signal.SIGSTOP)
            rest = [m for m in cluster.members if m is not paused]
            cluster.leader(but=[paused])
            await_condition("a put without the old leader", lambda: kvctl(
                "put", "x", "new", endpoints=rest[0].endpoint, check=False).returncode == 0)
            paused.signal(signal.SIGCONT)
            self.assertEqual(
                cluster.kvctl("get", "x", "--print-value-only", endpoints=paused.endpoint).stdout,
                "new\n")

    def test_a_member_far_behind_is_sent_a_snapshot(self):
        with Cluster(3) as cluster:
            cluster.start()
            behind = next(m for m in cluster.members if m is not cluster.leader())
            behind.kill()
            rest = [m for m in cluster.members if m is not behind]
            value = os.urandom(384 * 1024).hex()  # 768 KiB.
            for number in range(120):
                cluster.kvctl("put", f"big/{number}", stdin=value, endpoints=rest[0].endpoint)
            behind.start()
            cluster.await_caught_up()
            self.assertEqual(len(set(cluster.hashes())), 1)
            self.assertRegex(behind.log(), r"snapshot")
            behind.kill()  # And what it adopted is durable.
            behind.start()
            cluster.await_caught_up()
            self.assertEqual(len(set(cluster.hashes())), 1)

    def test_a_rotten_log_is_refused_with_file_and_next_step(self):
        with Cluster(3) as cluster:
            cluster.start()
            for number in range(50):
                cluster.kvctl("put", f"k{number}", "v" * 1000)
            victim = cluster.members[1]
            self.assertEqual(victim.stop(), 0)
            logs = sorted(victim.data_dir.glob("**/log/*.log"), key=lambda p: p.stat().st_size)
            self.assertTrue(logs, "no write-ahead log found in the data directory")
            data = bytearray(logs[-1].read_bytes())
            data[len(data) // 3] ^= 0x40
            logs[-1].write_bytes(data)
            victim.start()
            self.assertNotEqual(victim.await_exit(), 0)
            self.assertRegex(victim.log(), r"cannot start: .*/log.* (remove this member|check)")
            cluster.await_healthy([m for m in cluster.members if m is not victim])

    def test_a_full_disk_stops_the_member_and_space_brings_it_back(self):
        mount = None
        with Cluster(3) as cluster:
            full = cluster.members[2]
            full.data_dir.mkdir()
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", full.data_dir],
                capture_output=True)
            if mounted.returncode != 0:
                self.skipTest("SKIPPED: a small file system cannot be mounted here (root is needed)")
            mount = full.data_dir
            try:
                cluster.start()
                filler = mount / "filler"
                free = os.statvfs(mount)
                filler.write_bytes(b"x" * (free.f_bavail * free.f_bsize - (4 << 20)))
                value = os.urandom(256 * 1024).hex()
                rest = [m for m in cluster.members if m is not full]
                ends = ",".join(m.endpoint for m in rest)

                def put_until_it_stops():
                    # Where the full disk is the leader's, the put that fills it may go unanswered.
                    cluster.kvctl("put", f"fill/{put_until_it_stops.count}", stdin=value,
                                  endpoints=ends, check=False)
                    put_until_it_stops.count += 1
                    return full.process.poll() is not None

                put_until_it_stops.count = 0
                await_condition("the member on the full disk stops", put_until_it_stops)
                self.assertNotEqual(full.await_exit(), 0)
                self.assertRegex(full.log(), r"(?i)no space|disk")
                cluster.await_healthy(rest)
                filler.unlink()
                full.start()
                await_condition("it is back", lambda: full.process.poll() is not None or full.status())
                cluster.await_caught_up()
                self.assertEqual(len(set(cluster.hashes())), 1)
            finally:
                if full.process is not None:
                    full.kill()
                subprocess.run(["umount", mount], check=True)


if __name__ == "__main__":
    unittest.main()
