"""etcdctl and kvctl watch kvd: the same output as over etcd, across members, compaction, restarts."""

import contextlib
import pathlib
import shutil
import subprocess
import unittest

from cluster import BIN, Cluster, await_condition

PEERS = pathlib.Path.home() / ".cache/kvd-peers/bin"


def programs():
    """Our own; the distribution's, and the peers' newer one, where they are."""
    found = [shutil.which("etcdctl"), shutil.which("etcdctl", path=str(PEERS))]
    return [str(BIN / "kvctl")] + [program for program in found if program]


class Watch:
    """A running `watch`, whose output and complaints go to files."""

    def __init__(self, program, endpoint, folder, *arguments):
        self.output = folder / f"watch-{id(self)}"
        self.errors = folder / f"watch-{id(self)}-errors"
        with open(self.output, "wb") as output, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [program, f"--endpoints={endpoint}", "watch", *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
                env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def text(self):
        return self.output.read_text()

    def await_text(self, expected):
        await_condition(f"{expected!r} of a watch", lambda: self.text() == expected)


class WatchTest(unittest.TestCase):
    def test_past_and_present(self):
        with Cluster(1) as cluster:
            cluster.start()
            for key, value in [("a", "1"), ("b", "2"), ("a", "3")]:
                cluster.kvctl("put", key, value)
            cluster.kvctl("del", "a")
            past = "PUT\na\n1\nPUT\nb\n2\nPUT\na\n1\na\n3\nDELETE\na\n3\na\n\n"
            for number, program in enumerate(programs()):
                folder, endpoint = cluster.folder, cluster.endpoints
                with Watch(program, endpoint, folder, "", "--prefix", "--rev=2", "--prev-kv") as all_, \
                        Watch(program, endpoint, folder, "b", "--rev=2") as one:
                    if number == 0:
                        all_.await_text(past)
                        one.await_text("PUT\nb\n2\n")
                    before = await_condition("the past", all_.text)
                    one_before = await_condition("the past", one.text)
                    cluster.kvctl("put", "b", f"now{number}")
                    previous = "2" if number == 0 else f"now{number - 1}"
                    await_condition(
                        "the present",
                        lambda: all_.text().endswith(f"PUT\nb\n{previous}\nb\nnow{number}\n"))
                    await_condition("the present", lambda: one.text().endswith(f"PUT\nb\nnow{number}\n"))
                    self.assertTrue(all_.text().startswith(before))
                    self.assertTrue(one.text().startswith(one_before))

    def test_compacted(self):
        with Cluster(1) as cluster:
            cluster.start()
            for value in range(5):
                cluster.kvctl("put", "a", str(value))
            cluster.kvctl("compaction", "5")
            for program in programs():
                with Watch(program, cluster.endpoints, cluster.folder, "a", "--rev=2") as watch:
                    self.assertNotEqual(watch.process.wait(timeout=60), 0)
                    self.assertIn("required revision has been compacted", watch.errors.read_text())
                with Watch(program, cluster.endpoints, cluster.folder, "a", "--rev=5") as watch:
                    watch.await_text("PUT\na\n3\nPUT\na\n4\n")

    def test_members_that_come_and_go(self):
        """Watchers of all endpoints miss nothing and hear nothing twice."""
        with Cluster(3) as cluster:
            cluster.start()
            cluster.kvctl("put", "k", "0")
            watches = [Watch(program, cluster.endpoints, cluster.folder, "k", "--rev=2")
                       for program in programs()]
            with contextlib.ExitStack() as stack:
                for watch in watches:
                    stack.enter_context(watch)
                expected = "PUT\nk\n0\n"
                for watch in watches:
                    watch.await_text(expected)
                for round_, member in enumerate(cluster.members, 1):
                    member.kill()
                    others = ",".join(m.endpoint for m in cluster.members if m is not member)
                    cluster.leader(but=(member,))
                    for part in range(3):
                        value = f"{round_}.{part}"
                        cluster.kvctl("put", "k", value, endpoints=others)
                        expected += f"PUT\nk\n{value}\n"
                    for watch in watches:
                        watch.await_text(expected)
                    member.start()
                    cluster.await_healthy()
                cluster.await_caught_up()
                for member in cluster.members:
                    with Watch(programs()[0], member.endpoint, cluster.folder, "k", "--rev=2") as again:
                        again.await_text(expected)


if __name__ == "__main__":
    unittest.main()
