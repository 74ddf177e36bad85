"""Members come and go by the API while clients write: a learner is added, promoted, another removed."""

import json
import re
import threading
import unittest

from cluster import PATIENCE, Cluster, Member, await_condition


class Writer(threading.Thread):
    """Puts one key after the other and keeps what was acknowledged."""

    def __init__(self, cluster):
        super().__init__()
        self.cluster = cluster
        self.acknowledged = []
        self.ended = threading.Event()
        self.start()

    def run(self):
        number = 0
        while not self.ended.is_set():
            number += 1
            put = self.cluster.kvctl("put", f"load/{number:06}", str(number), check=False)
            if put.returncode == 0:
                self.acknowledged.append(number)

    def end(self):
        self.ended.set()
        self.join()


def members(cluster, **options):
    return json.loads(cluster.kvctl("member", "list", "-w", "json", **options).stdout)["members"]


def ids_by_name(cluster):
    return {m.get("name", ""): m["ID"] for m in members(cluster)}


def join(cluster, name, *flags):
    """Adds a member by the API and starts its process with what the answer says; returns both."""
    member = Member(cluster, name)
    added = cluster.kvctl("member", "add", name, f"--peer-urls=http://127.0.0.1:{member.peer_port}",
                          *flags)
    listed = re.search(r'^KVD_INITIAL_CLUSTER="(.*)"$', added.stdout, re.MULTILINE).group(1)
    member.arguments_of = member.arguments
    member.arguments = lambda: [
        *[a for a in member.arguments_of() if not a.startswith("--initial-cluster=")],
        f"--initial-cluster={listed}", "--initial-cluster-state=existing"]
    cluster.members.append(member)
    member.start()
    return member, added.stdout


class MembersTest(unittest.TestCase):
    def test_a_learner_joins_is_promoted_and_replaces_a_member_under_load(self):
        with Cluster(3) as cluster:
            cluster.start()
            first = list(cluster.members)
            old = ",".join(m.endpoint for m in first)
            writer = Writer(cluster)
            try:
                await_condition("some load", lambda: len(writer.acknowledged) > 20)
                joined, text = join(cluster, "m4", "--learner")
                # Short ids are padded, as etcdctl does it.
                self.assertRegex(text, r"^Member [ 0-9a-f]{16} added as learner to cluster [0-9a-f]+\n")
                self.assertIn('KVD_INITIAL_CLUSTER_STATE="existing"', text)
                await_condition("the learner's name",
                                lambda: "m4" in [m.get("name") for m in members(cluster, endpoints=old)])
                learner = next(m for m in members(cluster, endpoints=old) if m.get("name") == "m4")
                self.assertTrue(learner["isLearner"])
                refused = cluster.kvctl("put", "x", "y", endpoints=joined.endpoint, check=False)
                self.assertIn("etcdserver: rpc not supported for learner", refused.stderr)
                too_many = cluster.kvctl("member", "add", "m5", "--learner",
                                         "--peer-urls=http://127.0.0.1:1", check=False)
                self.assertIn("etcdserver: too many learner members in cluster", too_many.stderr)

                promote = ("member", "promote", f"{learner['ID']:x}")
                await_condition("the promotion", lambda: cluster.kvctl(
                    *promote, endpoints=old, check=False).returncode == 0)
                again = cluster.kvctl(*promote, endpoints=old, check=False)
                self.assertIn("etcdserver: can only promote a learner member", again.stderr)
                cluster.await_healthy()

                gone = cluster.leader()
                if gone is joined:
                    gone = first[0]
                gone_id = ids_by_name(cluster)[gone.name]
                rest = [m for m in cluster.members if m is not gone]
                removed = cluster.kvctl("member", "remove", f"{gone_id:x}",
                                        endpoints=",".join(m.endpoint for m in rest))
                self.assertRegex(removed.stdout, r"^Member +[0-9a-f]+ removed from cluster +[0-9a-f]+\n$")
                self.assertEqual(gone.await_exit(), 1)
                self.assertIn("this member was removed from its cluster", gone.log())
                started_with = gone.arguments()
                gone.arguments = lambda: started_with
                cluster.members = rest
                cluster.await_healthy()
                more = len(writer.acknowledged)
                await_condition("more load", lambda: len(writer.acknowledged) > more + 20)
            finally:
                writer.end()

            gone.start()
            self.assertEqual(gone.await_exit(), 1)
            self.assertIn("was removed from its cluster and cannot come back", gone.log())
            self.assertEqual(sorted(ids_by_name(cluster)), sorted(m.name for m in rest))
            self.assertFalse(any(m.get("isLearner") for m in members(cluster)))
            got = cluster.kvctl("get", "--prefix", "load/", "--print-value-only").stdout.split()
            lost = set(map(str, writer.acknowledged)) - set(got)
            self.assertEqual(lost, set())
            cluster.await_caught_up()
            self.assertEqual(len(set(cluster.hashes())), 1)

    def test_one_member_grows_to_three_and_shrinks_again(self):
        with Cluster(1) as cluster:
            cluster.start()
            for name in ("m2", "m3"):
                joined, _ = join(cluster, name)
                listed = {m.get("name", ""): m for m in members(cluster, endpoints=cluster.members[0].endpoint)}
                self.assertFalse(any(m.get("isLearner") for m in listed.values()))
                await_condition(f"{name} to serve", lambda: cluster.kvctl(
                    "endpoint", "health", endpoints=joined.endpoint, check=False).returncode == 0)
            cluster.kvctl("put", "k", "v")
            cluster.kvctl("move-leader", f"{ids_by_name(cluster)['m3']:x}")
            self.assertEqual(cluster.leader().name, "m3")
            # Through whom it concerns itself: it answers before it ends.
            while len(cluster.members) > 1:
                gone = cluster.members.pop(0)
                cluster.kvctl("member", "remove", f"{ids_by_name(cluster)[gone.name]:x}")
                self.assertEqual(gone.await_exit(), 1)
            last = cluster.kvctl("member", "remove", f"{ids_by_name(cluster)['m3']:x}", check=False)
            self.assertIn("re-configuration failed due to not enough started members", last.stderr)
            self.assertEqual(cluster.kvctl("get", "k").stdout, "k\nv\n")

    def test_changes_that_would_cost_the_quorum_are_refused(self):
        with Cluster(3) as cluster:
            cluster.start()
            leader = cluster.leader()
            down = next(m for m in cluster.members if m is not leader)
            other = next(m for m in cluster.members if m not in (leader, down))
            ids = ids_by_name(cluster)
            down.kill()
            up = f"{leader.endpoint},{other.endpoint}"
            await_condition("the loss", lambda: "lost the connection to" in leader.log())
            added = cluster.kvctl("member", "add", "m4", "--peer-urls=http://127.0.0.1:1",
                                  endpoints=up, check=False)
            self.assertIn("etcdserver: unhealthy cluster", added.stderr)
            refused = cluster.kvctl("member", "remove", f"{ids[other.name]:x}", endpoints=up, check=False)
            self.assertIn("etcdserver: unhealthy cluster", refused.stderr)
            # Who is down is no loss, and learns of it when it comes back.
            cluster.kvctl("member", "remove", f"{ids[down.name]:x}", endpoints=up)
            down.start()
            self.assertEqual(down.await_exit(), 1)
            self.assertIn("this member was removed from its cluster", down.log())

    def test_an_address_changes_and_the_member_comes_back_there(self):
        with Cluster(3) as cluster:
            cluster.start()
            moved = next(m for m in cluster.members if m is not cluster.leader())
            identity = ids_by_name(cluster)[moved.name]
            self.assertEqual(moved.stop(), 0)
            old, moved.peer_port = moved.peer_port, Member(cluster, "spare").peer_port
            rest = ",".join(m.endpoint for m in cluster.members if m is not moved)
            taken = cluster.kvctl("member", "update", f"{identity:x}", endpoints=rest, check=False)
            self.assertIn("member peer urls not provided", taken.stderr)
            self.assertEqual(taken.returncode, 128)
            cluster.kvctl("member", "update", f"{identity:x}",
                          f"--peer-urls=http://127.0.0.1:{moved.peer_port}", endpoints=rest)
            moved.start()
            cluster.await_healthy()
            urls = [url for m in members(cluster) for url in m["peerURLs"]]
            self.assertIn(f"http://127.0.0.1:{moved.peer_port}", urls)
            self.assertNotIn(f"http://127.0.0.1:{old}", urls)


if __name__ == "__main__":
    unittest.main()
