"""Leases on real processes: they outlive leaders, and end everywhere at once."""

import json
import time
import unittest

from cluster import Cluster, await_condition


def grant(cluster, ttl):
    answer = json.loads(cluster.kvctl("lease", "grant", str(ttl), "-w", "json").stdout)
    return f"{answer['ID']:016x}"


def left(cluster, lease, **options):
    """Seconds; -1: there is no such lease."""
    return json.loads(cluster.kvctl("lease", "timetolive", lease, "-w", "json", **options).stdout)["ttl"]


def look(cluster, *arguments, **options):
    return json.loads(cluster.kvctl("get", "k", "--prefix", "-w", "json", *arguments, **options).stdout)


class LeasesTest(unittest.TestCase):
    def test_a_lease_outlives_its_leader_and_ends_everywhere_at_one_revision(self):
        ttl = 6
        with Cluster(3) as cluster:
            cluster.start()
            lease = grant(cluster, ttl)
            for key in ("k1", "k2", "k3"):
                cluster.kvctl("put", key, "x", f"--lease={lease}")
            cluster.kvctl("put", "k4", "stays")
            before = look(cluster)["header"]["revision"]
            leader = cluster.leader()
            renewed = time.monotonic()
            cluster.kvctl("lease", "keep-alive", "--once", lease)
            leader.kill()
            rest = ",".join(m.endpoint for m in cluster.members if m is not leader)

            def gone():
                asked = time.monotonic()
                if look(cluster, endpoints=rest).get("count") == 1:
                    return asked
                self.assertEqual(look(cluster, f"--rev={before}", endpoints=rest)["count"], 4)
                return None

            # The answer may be late, so what it says held by the time it came.
            await_condition("the end of the lease", gone)
            self.assertGreaterEqual(time.monotonic() - renewed, ttl)
            leader.start()
            cluster.await_healthy()
            cluster.await_caught_up()
            for member in cluster.members:
                for revision, count in ((before, 4), (before + 1, 1)):
                    found = look(cluster, f"--rev={revision}", "--consistency=s",
                                 endpoints=member.endpoint)
                    self.assertEqual(found["count"], count, f"{member.name} at {revision}")
                self.assertEqual(left(cluster, lease, endpoints=member.endpoint), -1)
            self.assertEqual(len(set(cluster.hashes())), 1)

    def test_every_member_renews_and_tells_what_is_left(self):
        with Cluster(3) as cluster:
            cluster.start()
            lease = grant(cluster, 100)
            cluster.kvctl("put", "k", "x", f"--lease={lease}")
            for member in cluster.members:
                at = {"endpoints": member.endpoint}
                self.assertEqual(cluster.kvctl("lease", "keep-alive", "--once", lease, **at).stdout,
                                 f"lease {lease} keepalived with TTL(100)\n")
                self.assertIn(f"lease {lease} granted with TTL(100s), remaining(",
                              cluster.kvctl("lease", "timetolive", lease, **at).stdout)
                self.assertIn("attached keys([k])",
                              cluster.kvctl("lease", "timetolive", lease, "--keys", **at).stdout)
                self.assertEqual(cluster.kvctl("lease", "list", **at).stdout,
                                 f"found 1 leases\n{lease}\n")
                self.assertEqual(cluster.kvctl("lease", "keep-alive", "77", **at).stdout,
                                 "lease 0000000000000077 expired or revoked.\n")
            follower = next(m for m in cluster.members if m is not cluster.leader())
            cluster.kvctl("lease", "revoke", lease, endpoints=follower.endpoint)
            self.assertNotIn("kvs", look(cluster))

    def test_leases_and_their_keys_survive_the_death_of_all_members(self):
        with Cluster(3) as cluster:
            cluster.start()
            lease = grant(cluster, 3000)
            short = grant(cluster, 2)
            cluster.kvctl("put", "k1", "x", f"--lease={lease}")
            cluster.kvctl("put", "k2", "x", f"--lease={short}")
            for member in cluster.members:
                member.kill()
            for member in cluster.members:
                member.start()
            cluster.await_healthy()
            await_condition("the end of the short lease", lambda: look(cluster)["count"] == 1)
            self.assertGreater(left(cluster, lease), 2900)
            self.assertIn("attached keys([k1])",
                          cluster.kvctl("lease", "timetolive", lease, "--keys").stdout)


if __name__ == "__main__":
    unittest.main()
