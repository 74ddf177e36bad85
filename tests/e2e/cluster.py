"""Real kvd processes on loopback, for end-to-end tests.

A Cluster owns its processes, ports and data folders, and ends exactly those processes. Waiting is
always for a condition, with a generous bound that only a real fault reaches.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(os.environ.get("KVD_BIN", "build/release/bin")).resolve()
# The tests name endpoints by flags, and kvctl refuses a flag and its variable together.
for name in [name for name in os.environ if name.startswith("KVCTL_")]:
    del os.environ[name]
PATIENCE = 120.0  # Seconds; a bound for conditions, not a measure of speed.


def await_condition(what, condition, patience=PATIENCE):
    """Polls until `condition` returns something true, and returns it."""
    deadline = time.monotonic() + patience
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:.0f} s in vain for: {what}")
        time.sleep(0.05)


given_ports = set()


def free_ports(count):
    """Never the same twice, and below those that the kernel gives to outgoing connections."""
    ports = []
    while len(ports) < count:
        port = random.randrange(10000, 32000)
        if port in given_ports:
            continue
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        given_ports.add(port)
        ports.append(port)
    return ports


class Member:
    def __init__(self, cluster, name):
        self.cluster = cluster
        self.name = name
        self.client_port, self.peer_port, self.admin_port = free_ports(3)
        self.folder = cluster.folder / name
        self.folder.mkdir()
        self.process = None

    @property
    def endpoint(self):
        return f"127.0.0.1:{self.client_port}"

    @property
    def data_dir(self):
        return self.folder / "data"

    def arguments(self):
        return [
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls=http://{self.endpoint}",
            f"--advertise-client-urls=http://{self.endpoint}",
            f"--listen-peer-urls=http://127.0.0.1:{self.peer_port}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self.peer_port}",
            f"--listen-metrics-urls=http://127.0.0.1:{self.admin_port}",
            f"--initial-cluster={self.cluster.initial_cluster()}",
            *self.cluster.flags,
        ]

    def start(self, *extra, prefix=()):
        assert self.process is None, f"{self.name} already runs"
        log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            [*prefix, str(BIN / "kvd"), *self.arguments(), *extra], stdout=log, stderr=log
        )
        log.close()

    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self):
        """SIGTERM; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.await_exit()

    def await_exit(self):
        status = self.process.wait(timeout=PATIENCE)
        self.process = None
        return status

    def status(self):
        """This member's Status answer, or None when it does not answer."""
        result = kvctl(
            "endpoint", "status", "-w", "json", endpoints=self.endpoint, check=False, timeout="2s"
        )
        if result.returncode != 0:
            return None
        return json.loads(result.stdout)[0]["Status"]


def kvctl(*arguments, endpoints, check=True, timeout="20s", stdin=None, text=True):
    result = subprocess.run(
        [str(BIN / "kvctl"), f"--endpoints={endpoints}", f"--command-timeout={timeout}", *arguments],
        input=stdin,
        capture_output=True,
        text=text,
    )
    if check and result.returncode != 0:
        raise AssertionError(f"kvctl {' '.join(arguments)} exited {result.returncode}: {result.stderr}")
    return result


class Cluster:
    def __init__(self, members=3, flags=()):
        base = os.environ.get("KVD_E2E_DIR")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kvd-e2e-", dir=base))
        self.flags = list(flags)
        self.members = []
        for number in range(1, members + 1):
            self.members.append(Member(self, f"m{number}"))
        self.passed = False

    def initial_cluster(self):
        return ",".join(f"{m.name}=http://127.0.0.1:{m.peer_port}" for m in self.members)

    @property
    def endpoints(self):
        return ",".join(m.endpoint for m in self.members)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for member in self.members:
            if member.process is not None:
                member.process.kill()  # Works on a stopped process too.
                member.process.wait()
        if kind is None:
            shutil.rmtree(self.folder)
        else:
            print(f"data and logs are kept in {self.folder}", file=sys.stderr)
            for member in self.members:
                tail = member.log().splitlines()[-15:]
                print(f"--- {member.name}", *tail, sep="\n", file=sys.stderr)

    def start(self):
        for member in self.members:
            member.start()
        self.await_healthy()
        return self

    def await_healthy(self, members=None):
        endpoints = ",".join(m.endpoint for m in members or self.members)

        def healthy():
            result = kvctl("endpoint", "health", endpoints=endpoints, check=False, timeout="2s")
            return result.returncode == 0

        await_condition(f"health of {endpoints}", healthy)

    def leader(self, but=()):
        """The member (not one of `but`) that leads, once one does and says so itself."""

        def find():
            for member in self.members:
                if member.process is None or member in but:
                    continue
                status = member.status()
                if status and status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return member
            return None

        return await_condition("a leader", find)

    def kvctl(self, *arguments, **options):
        return kvctl(*arguments, endpoints=options.pop("endpoints", self.endpoints), **options)

    def hashes(self):
        answer = self.kvctl("endpoint", "hashkv", "-w", "json")
        return [entry["HashKV"]["hash"] for entry in json.loads(answer.stdout)]

    def await_caught_up(self):
        """All members have applied the same last revision."""

        def same():
            revisions = set()
            for member in self.members:
                status = member.status()
                if not status:
                    return False
                revisions.add(status["header"]["revision"])
            return len(revisions) == 1

        await_condition("all members at one revision", same)
