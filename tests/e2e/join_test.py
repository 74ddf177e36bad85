"""Members that find each other by --join: nobody is told whether there is a cluster already."""

import json
import re
import shutil
import unittest

from cluster import Cluster, Member, await_condition


class Joiner(Member):
    """Started with --join and nothing else about the others."""

    def arguments(self):
        listed = ",".join(f"{m.name}=127.0.0.1:{m.peer_port}" for m in self.cluster.members
                          if m.name in self.cluster.listed)
        return [*[a for a in super().arguments() if not a.startswith("--initial-cluster=")],
                f"--join={listed}"]


def joiners(members=3, **options):
    """A cluster that is not started, of members that all have one --join."""
    cluster = Cluster(0, **options)
    cluster.listed = [f"m{number}" for number in range(1, members + 1)]
    cluster.members = [Joiner(cluster, name) for name in cluster.listed]
    return cluster


def identity(member):
    """Cluster and member id, as the process said them when it became a member last."""
    said = re.findall(r"member of the cluster: cluster=([0-9a-f]+) member=([0-9a-f]+)", member.log())
    return said[-1] if said else None


def await_said(member, pattern, times=1):
    await_condition(f"{member.name} to say {pattern!r}",
                    lambda: len(re.findall(pattern, member.log())) >= times)


def voters(cluster):
    listed = cluster.kvctl("member", "list", "-w", "json", check=False, timeout="5s")
    if listed.returncode != 0:
        return None
    members = json.loads(listed.stdout)["members"]
    return sorted(m.get("name", "") for m in members if not m.get("isLearner"))


class JoinTest(unittest.TestCase):
    def test_three_processes_found_one_cluster(self):
        with joiners() as cluster:
            cluster.start()
            self.assertEqual(len({identity(m)[0] for m in cluster.members}), 1)
            members = json.loads(cluster.kvctl("member", "list", "-w", "json").stdout)["members"]
            self.assertEqual(sorted(m["name"] for m in members), cluster.listed)
            self.assertFalse(any(m.get("isLearner") for m in members))
            cluster.kvctl("put", "k", "v")
            before = {m.name: identity(m) for m in cluster.members}
            for member in cluster.members:
                self.assertEqual(member.stop(), 0)
            cluster.start()
            self.assertEqual({m.name: identity(m) for m in cluster.members}, before)
            self.assertEqual(cluster.kvctl("get", "k", "--print-value-only").stdout, "v\n")

    def test_nothing_is_founded_without_all_of_the_list(self):
        with joiners() as cluster:
            first, second, third = cluster.members
            first.start()
            second.start()
            missing = rf"waiting for: m3 \(http://127.0.0.1:{third.peer_port}\): \w"
            await_said(first, missing, times=2)
            await_said(second, missing, times=2)
            self.assertEqual((identity(first), identity(second)), (None, None))
            third.start()
            cluster.await_healthy()

    def test_lost_disks_found_nothing_beside_a_member_that_cannot_be_reached(self):
        with joiners() as cluster:
            cluster.start()
            cluster.kvctl("put", "k", "v")
            founded = identity(cluster.members[2])[0]
            for member in cluster.members:
                member.kill()
            for member in cluster.members[:2]:
                shutil.rmtree(member.data_dir)
                (member.folder / "log").unlink()
                member.start()
            for member in cluster.members[:2]:
                await_said(member, r"waiting for: m3 \(", times=2)
                self.assertIsNone(identity(member))
            # It comes back without a quorum: they want to join it, and still found nothing.
            cluster.members[2].start()
            for member in cluster.members[:2]:
                await_said(member, r'waiting for: "m3"', times=1)
                self.assertIsNone(identity(member))
            self.assertEqual(identity(cluster.members[2])[0], founded)

    def test_a_fourth_joins_and_is_promoted_and_a_lost_disk_comes_back_as_another_member(self):
        with joiners() as cluster:
            cluster.start()
            cluster.kvctl("put", "k", "v")
            fourth = Joiner(cluster, "m4")
            cluster.members.append(fourth)
            fourth.start("--initial-advertise-peer-urls=http://127.0.0.1:%d" % fourth.peer_port)
            await_condition("four voters", lambda: voters(cluster) == ["m1", "m2", "m3", "m4"])
            cluster.await_healthy()
            self.assertEqual(identity(fourth)[0], identity(cluster.members[0])[0])

            lost = cluster.members[0]
            before = identity(lost)
            lost.kill()
            shutil.rmtree(lost.data_dir)
            lost.start("--log-level=debug")
            await_condition("another member id", lambda: identity(lost) != before)
            await_condition("four voters", lambda: voters(cluster) == ["m1", "m2", "m3", "m4"])
            self.assertEqual(identity(lost)[0], before[0])
            self.assertNotEqual(identity(lost)[1], before[1])
            cluster.await_healthy()
            got = cluster.kvctl("get", "k", "--print-value-only", endpoints=lost.endpoint)
            self.assertEqual(got.stdout, "v\n")

    def test_an_old_copy_of_a_disk_takes_no_part_and_comes_back_as_another_member(self):
        with joiners() as cluster:
            cluster.start()
            old = cluster.members[2]
            before = identity(old)
            cluster.kvctl("put", "k", "v1")
            self.assertEqual(old.stop(), 0)
            shutil.copytree(old.data_dir, old.folder / "copy")
            old.start()
            cluster.await_healthy()
            cluster.kvctl("put", "k", "v2")
            cluster.kvctl("get", "k", endpoints=old.endpoint)  # It has acknowledged that by now.
            self.assertEqual(old.stop(), 0)
            shutil.rmtree(old.data_dir)
            (old.folder / "copy").rename(old.data_dir)
            old.start()
            self.assertEqual(old.await_exit(), 1)
            self.assertRegex(old.log(), r"this disk is older than what its member acknowledged: its "
                                        r"log ends at entry \d+, and member [0-9a-f]+ knows of entry")
            self.assertTrue((old.data_dir / "member").exists())
            old.start()
            await_condition("another member id", lambda: identity(old) not in (None, before))
            self.assertEqual(identity(old)[0], before[0])
            await_condition("it serves again", lambda: cluster.kvctl(  # As a voter: learners do not.
                "get", "k", "--print-value-only", endpoints=old.endpoint, check=False).stdout == "v2\n")
            self.assertEqual(voters(cluster), ["m1", "m2", "m3"])

    def test_another_members_volume_halts_the_process_and_does_not_end_it(self):
        with joiners() as cluster:
            cluster.start()
            first, second = cluster.members[:2]
            first.stop()
            second.stop()
            for member in (first, second):
                member.data_dir.rename(member.folder / "aside")
            (second.folder / "aside").rename(first.data_dir)
            first.start()
            await_said(first, r'HALTED: .* holds the data of "m2", and this is "m1"', times=2)
            self.assertIsNone(first.process.poll())
            self.assertEqual(first.stop(), 0)
            # Given back, all is as before.
            first.data_dir.rename(second.data_dir)
            (first.folder / "aside").rename(first.data_dir)
            first.start()
            second.start()
            cluster.await_healthy()

    def test_a_list_of_one_is_founded_only_when_told_that_it_is_new(self):
        with joiners(1) as cluster:
            alone = cluster.members[0]
            alone.start()
            await_said(alone, r"would found alone.*start it once with --initial-cluster-state=new")
            self.assertIsNone(identity(alone))
            self.assertEqual(alone.stop(), 0)
            alone.start("--initial-cluster-state=new")
            cluster.await_healthy()
            self.assertEqual(alone.stop(), 0)
            alone.start()
            cluster.await_healthy()


if __name__ == "__main__":
    unittest.main()
