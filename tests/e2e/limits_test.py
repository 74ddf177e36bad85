"""What clients ask for that they should not: the contract's errors, bounded memory, nobody disturbed."""

import base64
import contextlib
import os
import pathlib
import re
import resource
import socket
import unittest
import urllib.error
import urllib.request

from cluster import Cluster, await_condition, kvctl

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"  # And empty SETTINGS.


def frame(kind, flags, stream, payload):
    return (len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)


def range_request(key, range_end):
    """One whole gRPC call of KV.Range on stream 1, as bytes on the wire."""
    headers = b""
    for name, value in ((b":method", b"POST"), (b":scheme", b"http"),
                        (b":path", b"/etcdserverpb.KV/Range"), (b":authority", b"kvd"),
                        (b"content-type", b"application/grpc"), (b"te", b"trailers")):
        headers += b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
    message = bytes([0x0A, len(key)]) + key + bytes([0x12, len(range_end)]) + range_end
    body = b"\0" + len(message).to_bytes(4, "big") + message
    return PREFACE + frame(1, 4, 1, headers) + frame(0, 1, 1, body)


def rss_bytes(member):
    status = pathlib.Path(f"/proc/{member.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) * 1024


def ranges_begun(member):
    with urllib.request.urlopen(f"http://127.0.0.1:{member.admin_port}/metrics", timeout=60) as answer:
        found = re.search(r'grpc_server_started_total\{[^}]*grpc_method="Range"[^}]*\} (\d+)',
                          answer.read().decode())
    return int(found.group(1)) if found else 0


class LimitsTest(unittest.TestCase):
    def assert_serves(self, cluster, member):
        await_condition("a put", lambda: kvctl("put", "alive", "yes", endpoints=member.endpoint,
                                               check=False).returncode == 0)
        self.assertEqual(cluster.kvctl("get", "alive", endpoints=member.endpoint).stdout, "alive\nyes\n")

    def test_too_large_requests_are_refused_by_the_contract(self):
        with Cluster(1) as cluster:
            cluster.start()
            ends = cluster.endpoints
            below = "x" * (1572864 - 1024)
            self.assertEqual(kvctl("put", "big", stdin=below, endpoints=ends).stdout, "OK\n")
            got = kvctl("get", "big", "--print-value-only", endpoints=ends).stdout
            self.assertEqual(len(got.rstrip("\n")), len(below))
            above = kvctl("put", "big", stdin="x" * 1572900, endpoints=ends, check=False)
            self.assertNotEqual(above.returncode, 0)
            self.assertIn("etcdserver: request is too large", above.stderr)
            far = kvctl("put", "big", stdin="x" * (3 << 20), endpoints=ends, check=False)
            self.assertNotEqual(far.returncode, 0)
            ops = "".join(f"put k{n} v\n" for n in range(129))
            many = kvctl("txn", stdin=f"\n{ops}\n\n", endpoints=ends, check=False)
            self.assertIn("etcdserver: too many operations in txn request", many.stderr)
            self.assert_serves(cluster, cluster.members[0])

    def test_ten_thousand_connections_disturb_nobody(self):
        wanted = 10_000
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < wanted + 1000:
            self.skipTest(f"SKIPPED: at most {hard} open files are allowed here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with Cluster(1) as cluster:
            cluster.start()
            member = cluster.members[0]
            before = rss_bytes(member)
            connections = []
            try:
                for _ in range(wanted):
                    connection = socket.create_connection(("127.0.0.1", member.client_port), timeout=60)
                    connection.sendall(PREFACE)
                    connections.append(connection)
                self.assert_serves(cluster, member)
                grown = rss_bytes(member) - before
                print(f"{wanted} connections cost {grown >> 20} MiB")
                self.assertLess(grown, 1 << 30)
            finally:
                for connection in connections:
                    connection.close()
            self.assert_serves(cluster, member)

    def test_readers_that_stop_reading_cost_bounded_memory(self):
        with Cluster(1) as cluster:
            cluster.start()
            member = cluster.members[0]
            value = os.urandom(512 * 1024).hex()
            for number in range(40):  # 40 MiB in all.
                cluster.kvctl("put", f"bulk/{number}", stdin=value)
            before = rss_bytes(member)
            begun = ranges_begun(member)
            with contextlib.ExitStack() as stack:
                for _ in range(60):  # They ask for 2.4 GiB together and read none of it.
                    reader = stack.enter_context(
                        socket.create_connection(("127.0.0.1", member.client_port), timeout=60))
                    reader.sendall(range_request(b"bulk/", b"bulk0"))
                await_condition("60 ranges begun", lambda: ranges_begun(member) >= begun + 60)
                self.assert_serves(cluster, member)
                grown = rss_bytes(member) - before
                print(f"60 readers of 40 MiB that do not read cost {grown >> 20} MiB")
                self.assertLess(grown, 1 << 30)
            self.assert_serves(cluster, member)

    def test_a_full_quota_stops_writes_everywhere_until_it_is_disarmed(self):
        with Cluster(3, flags=["--quota-backend-bytes=33554432"]) as cluster:
            cluster.start()
            refused = None
            for number in range(120):
                value = base64.b64encode(os.urandom(750_000)).decode()  # Files are compressed.
                put = cluster.kvctl("put", f"bulk/{number}", stdin=value, check=False)
                if put.returncode != 0:
                    refused = put
                    break
            self.assertIn("etcdserver: mvcc: database space exceeded", refused.stderr)
            alarms = cluster.kvctl("alarm", "list").stdout
            self.assertRegex(alarms, r"^(memberID:\d+  alarm:NOSPACE\n)+$")
            for member in cluster.members:
                put = cluster.kvctl("put", "small", "x", endpoints=member.endpoint, check=False)
                self.assertIn("etcdserver: mvcc: database space exceeded", put.stderr)
                cluster.kvctl("get", "bulk/0", "--keys-only", endpoints=member.endpoint)
                health = urllib.request.Request(f"http://127.0.0.1:{member.admin_port}/health")
                with self.assertRaises(urllib.error.HTTPError) as answer:
                    urllib.request.urlopen(health, timeout=60)
                self.assertEqual(answer.exception.read().decode(),
                                 '{"health":"false","reason":"ALARM NOSPACE"}\n')
            self.assertEqual(cluster.kvctl("del", "bulk/0").stdout, "1\n")
            # Whoever else found its own disk full has raised another one meanwhile.
            disarmed = cluster.kvctl("alarm", "disarm").stdout
            self.assertLessEqual(set(alarms.splitlines()), set(disarmed.splitlines()))
            self.assertEqual(cluster.kvctl("alarm", "list").stdout, "")

    def test_bytes_that_are_no_protocol_end_only_their_connection(self):
        with Cluster(1) as cluster:
            cluster.start()
            member = cluster.members[0]
            for junk in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(4096), PREFACE + os.urandom(4096),
                         b"\x16\x03\x01\x02\x00\x01\x00", PREFACE[:10]):
                for port in (member.client_port, member.peer_port, member.admin_port):
                    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                        connection.sendall(junk)
            self.assert_serves(cluster, member)
            self.assertIsNone(member.process.poll())


if __name__ == "__main__":
    unittest.main()
