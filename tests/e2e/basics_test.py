"""A cluster is founded, serves, stops, starts again; what must not start says why."""

import json
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.request

from cluster import BIN, PATIENCE, Cluster, await_condition, free_ports


def fetch(member, path):
    """(status, body) of the member's admin port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{member.admin_port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (urllib.error.URLError, OSError):
        return 0, ""


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        return True
    except OSError:
        return False


IPV6 = has_ipv6()
if not IPV6:
    print("SKIPPED: this machine has no IPv6", flush=True)


class BasicsTest(unittest.TestCase):
    def test_three_members_serve_and_keep_everything_over_restarts(self):
        with Cluster(3) as cluster:
            cluster.start()
            members = json.loads(cluster.kvctl("member", "list", "-w", "json").stdout)
            ids = [m["ID"] for m in members["members"]]
            self.assertEqual(len(set(ids)), 3)
            for number, member in enumerate(cluster.members):
                put = cluster.kvctl("put", f"key{number}", f"value{number}", endpoints=member.endpoint)
                self.assertEqual(put.stdout, "OK\n")
                for other in cluster.members:
                    got = cluster.kvctl("get", f"key{number}", endpoints=other.endpoint)
                    self.assertEqual(got.stdout, f"key{number}\nvalue{number}\n")

            for member in cluster.members:
                self.assertEqual(member.stop(), 0, member.log())
            for member in cluster.members:
                member.start()
            cluster.await_healthy()
            again = json.loads(cluster.kvctl("member", "list", "-w", "json").stdout)
            self.assertEqual([m["ID"] for m in again["members"]], ids)
            for member in cluster.members:
                member.kill()
            for member in cluster.members:
                member.start()
            cluster.await_healthy()
            for number in range(3):
                self.assertEqual(cluster.kvctl("get", f"key{number}", "--print-value-only").stdout,
                                 f"value{number}\n")
            cluster.await_caught_up()
            self.assertEqual(len(set(cluster.hashes())), 1)

    def test_a_stopping_leader_hands_over_and_exits_0(self):
        with Cluster(3) as cluster:
            cluster.start()
            leader = cluster.leader()
            writer = subprocess.Popen(
                ["bash", "-c", f"for i in $(seq 300); do {BIN}/kvctl --endpoints={cluster.endpoints}"
                 " put k$i v || exit 1; done"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            await_condition("some writes", lambda: leader.status()["header"]["revision"] > 20)
            self.assertEqual(leader.stop(), 0, leader.log())
            rest = [m for m in cluster.members if m is not leader]
            self.assertIsNotNone(cluster.leader())
            _, errors = writer.communicate(timeout=PATIENCE)
            self.assertEqual(writer.returncode, 0, errors)
            cluster.await_healthy(rest)
            count = cluster.kvctl("get", "k", "--prefix", "--count-only", "-w", "fields",
                                  endpoints=rest[0].endpoint)
            self.assertIn('"Count" : 300', count.stdout)

    def test_a_cluster_of_one_needs_no_list(self):
        folder = tempfile.mkdtemp(prefix="kvd-e2e-")
        self.addCleanup(shutil.rmtree, folder)
        client, peer = free_ports(2)
        urls = [f"--listen-client-urls=http://127.0.0.1:{client}",
                f"--advertise-client-urls=http://127.0.0.1:{client}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}"]
        process = subprocess.Popen([BIN / "kvd", *urls], cwd=folder, stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, text=True)
        self.addCleanup(process.kill)
        put = ["--command-timeout=5s", f"--endpoints=127.0.0.1:{client}", "put", "a", "b"]
        await_condition("a put", lambda: subprocess.run(
            [BIN / "kvctl", *put], capture_output=True).returncode == 0)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0, log)
        self.assertIn("ready to serve client requests", log)

    @unittest.skipUnless(IPV6, "no IPv6")
    def test_addresses_of_both_families_are_served(self):
        with Cluster(1) as cluster:
            member = cluster.members[0]
            # Each other's family: every address is every address.
            member.start(f"--listen-client-urls=http://0.0.0.0:{member.client_port}",
                         f"--listen-metrics-urls=http://[::]:{member.admin_port}",
                         f"--listen-peer-urls=http://0.0.0.0:{member.peer_port}",
                         f"--initial-advertise-peer-urls=http://[::1]:{member.peer_port}",
                         f"--initial-cluster=m1=http://[::1]:{member.peer_port}")
            cluster.await_healthy()
            six = f"[::1]:{member.client_port}"
            cluster.kvctl("put", "k", "v", endpoints=six)
            self.assertEqual(cluster.kvctl("get", "k", "--print-value-only").stdout, "v\n")
            self.assertEqual(fetch(member, "/livez")[0], 200)
            with urllib.request.urlopen(f"http://[::1]:{member.admin_port}/livez") as answer:
                self.assertEqual(answer.status, 200)
            for host in ("127.0.0.1", "::1"):
                socket.create_connection((host, member.peer_port), timeout=10).close()

    @unittest.skipUnless(IPV6, "no IPv6")
    def test_three_members_on_ipv6_alone(self):
        with Cluster(3) as cluster:
            listed = ",".join(f"{m.name}=http://[::1]:{m.peer_port}" for m in cluster.members)
            for member in cluster.members:
                member.start(f"--listen-client-urls=http://[::1]:{member.client_port}",
                             f"--advertise-client-urls=http://[::1]:{member.client_port}",
                             f"--listen-peer-urls=http://[::1]:{member.peer_port}",
                             f"--initial-advertise-peer-urls=http://[::1]:{member.peer_port}",
                             f"--initial-cluster={listed}")
            endpoints = ",".join(f"[::1]:{m.client_port}" for m in cluster.members)
            await_condition("health", lambda: cluster.kvctl(
                "endpoint", "health", endpoints=endpoints, check=False).returncode == 0)
            cluster.kvctl("put", "k", "v", endpoints=endpoints)
            got = cluster.kvctl("endpoint", "status", "--cluster", endpoints=endpoints)
            self.assertEqual(len(got.stdout.splitlines()), 3)

    def test_the_admin_port_tells_health_and_metrics(self):
        with Cluster(3) as cluster:
            first = cluster.members[0]
            first.start()
            await_condition("the admin port", lambda: fetch(first, "/livez")[0] == 200)
            self.assertEqual(fetch(first, "/readyz")[0], 503)  # Alone of three: no cluster yet.
            for member in cluster.members[1:]:
                member.start()
            cluster.await_healthy()
            for member in cluster.members:
                await_condition("readiness", lambda m=member: fetch(m, "/readyz")[0] == 200)
                self.assertEqual(fetch(member, "/startupz")[0], 200)
                self.assertEqual(json.loads(fetch(member, "/health")[1])["health"], "true")
                self.assertIn("etcdserver", json.loads(fetch(member, "/version")[1]))
            cluster.kvctl("put", "a", "b")
            text = fetch(cluster.leader(), "/metrics")[1]
            for name in ("etcd_server_has_leader 1", "etcd_server_is_leader 1",
                         "etcd_server_proposals_committed_total", "etcd_mvcc_put_total",
                         "etcd_disk_wal_fsync_duration_seconds_bucket",
                         "etcd_mvcc_db_total_size_in_bytes", "process_resident_memory_bytes",
                         "grpc_server_handled_total"):
                self.assertIn(name, text)

    def test_two_of_three_wait_for_the_third_and_name_it(self):
        with Cluster(3) as cluster:
            for member in cluster.members[:2]:
                member.start()
            await_condition("the missing name in the log", lambda: any(
                re.search(r"m3", m.log()) and "waiting" in m.log() for m in cluster.members[:2]))
            self.assertFalse((cluster.members[0].status() or {}).get("leader"))
            cluster.members[2].start()
            cluster.await_healthy()

    def test_an_emptied_disk_neither_returns_nor_founds_anew(self):
        with Cluster(3) as cluster:
            cluster.start()
            cluster.kvctl("put", "a", "b")
            lost = cluster.members[0]
            lost.kill()
            shutil.rmtree(lost.data_dir)
            lost.start()
            self.assertNotEqual(lost.await_exit(), 0)
            self.assertIn("member remove", lost.log())
            rest = cluster.members[1:]
            cluster.await_healthy(rest)
            self.assertEqual(cluster.kvctl("get", "a", endpoints=rest[0].endpoint).stdout, "a\nb\n")

    def test_a_data_directory_of_another_cluster_is_refused(self):
        with Cluster(3) as ours, Cluster(3) as theirs:
            ours.start()
            theirs.start()
            theirs.kvctl("put", "foreign", "x")
            for cluster in (ours, theirs):
                self.assertEqual(cluster.members[0].stop(), 0)
            shutil.rmtree(ours.members[0].data_dir)
            shutil.copytree(theirs.members[0].data_dir, ours.members[0].data_dir)
            ours.members[0].start()
            # Nobody there talks to it: it never serves, and the cluster goes on without it.
            ours.await_healthy(ours.members[1:])
            ours.kvctl("put", "a", "b", endpoints=ours.members[1].endpoint)
            await_condition("a refusal in the log",
                            lambda: "cluster" in ours.members[0].log() and
                            re.search(r"refus|another cluster|differs", ours.members[0].log()))
            got = ours.kvctl("get", "foreign", endpoints=ours.members[1].endpoint)
            self.assertEqual(got.stdout, "")

    def test_a_wrong_flag_is_named_before_anything_is_touched(self):
        folder = tempfile.mkdtemp(prefix="kvd-e2e-")
        self.addCleanup(shutil.rmtree, folder)
        for flags, words in (
            (["--election-timeout=1"], ["election-timeout", "1"]),
            (["--listen-client-urls=nonsense"], ["listen-client-urls", "nonsense"]),
            (["--no-such-flag=1"], ["no-such-flag"]),
            (["--max-txn-ops=-1"], ["max-txn-ops"]),
            (["--name=a", "--initial-cluster=b=http://127.0.0.1:1"], ["initial-cluster", "a"]),
        ):
            result = subprocess.run([BIN / "kvd", f"--data-dir={folder}/data", *flags],
                                    capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(result.returncode, 2, f"{flags}: {result.stderr}")
            for word in words:
                self.assertIn(word, result.stderr)
            self.assertEqual(subprocess.run(["ls", "-A", folder], capture_output=True,
                                            text=True).stdout, "")

    def test_a_port_in_use_is_a_sentence(self):
        with Cluster(1) as cluster, socket.socket() as taken:
            member = cluster.members[0]
            taken.bind(("127.0.0.1", member.client_port))
            taken.listen()
            member.start()
            self.assertEqual(member.await_exit(), 1, member.log())
            self.assertIn(str(member.client_port), member.log())
            self.assertNotIn("member of the cluster", member.log())  # Nothing is founded before.

    def test_quota_and_log_level_change_while_it_runs(self):
        with Cluster(1) as cluster:
            member = cluster.members[0]
            settings = member.folder / "runtime.yaml"
            settings.write_text("log-level: info\n")
            member.start(f"--runtime-config-file={settings}")
            cluster.await_healthy()

            def told(text):
                settings.write_text(text)
                member.signal(signal.SIGHUP)

            def quota():
                status = json.loads(cluster.kvctl("endpoint", "status", "-w", "json").stdout)
                return status[0]["Status"].get("dbSizeQuota", 0)
            told("quota-backend-bytes: 1\nlog-level: debug\n")
            await_condition("the quota", lambda: quota() == 1)
            put = cluster.kvctl("put", "k", "v", check=False)
            self.assertIn("etcdserver: mvcc: database space exceeded", put.stderr)
            # What is wrong changes nothing, and is said.
            told("quota-backend-bytes: many\n")
            await_condition("a complaint", lambda: re.search(
                r'the settings stay as they are: .*runtime.yaml:1: quota-backend-bytes="many": must '
                r'be a whole number', member.log()))
            self.assertEqual(quota(), 1)
            # Without a signal, a little later.
            settings.write_text("")
            await_condition("no quota", lambda: quota() == 0)
            self.assertIn("log-level changes: info to debug", member.log())
            cluster.kvctl("alarm", "disarm")
            cluster.kvctl("put", "k", "v")
            self.assertEqual(member.stop(), 0)

    def test_a_second_signal_ends_a_stop_that_waits(self):
        # With its followers paused a leader waits for one to take over: here for ten seconds.
        with Cluster(3, flags=["--heartbeat-interval=1000", "--election-timeout=10000"]) as cluster:
            cluster.start()
            leader = cluster.leader()
            for member in cluster.members:
                if member is not leader:
                    member.signal(signal.SIGSTOP)
            leader.signal(signal.SIGTERM)
            await_condition("it begins to stop", lambda: "stopping:" in leader.log())
            leader.signal(signal.SIGTERM)
            self.assertEqual(leader.await_exit(), 0)
            self.assertIn("second signal", leader.log())
            self.assertNotIn("info stopped", leader.log())


if __name__ == "__main__":
    unittest.main()
