"""kvd and a real etcd side by side: the same loads, interleaved, ratios of medians.

A round starts each server in turn on fresh folders of one disk, runs every load, and stops it; who
goes first alternates. Without an etcd program kvd's figures stand alone.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from cluster import free_ports  # noqa: E402

BIN = pathlib.Path("build/release/bin").resolve()
KEYS = 100_000
RANGE_KEYS = 900_000
MEMORY_KEYS = 1_000_000
SNAPSHOT_KEYS = 1_250_000  # Of 16 and 256 bytes: what etcd's file of them holds is about 376 MB.


def find_etcd():
    named = os.environ.get("KVD_ETCD")
    places = [named] if named else ["~/.cache/kvd-peers/bin/etcd", shutil.which("etcd")]
    for place in places:
        if place and os.access(os.path.expanduser(place), os.X_OK):
            return os.path.expanduser(place)
    return None


class Servers:
    """`count` members of one store, on fresh folders."""

    def __init__(self, kind, program, count, folder):
        self.kind = kind
        self.program = program
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"kvd-bench-{kind}-", dir=folder))
        ports = free_ports(2 * count)
        self.client, self.peer = ports[:count], ports[count:]
        self.processes = [None] * count
        for number in range(count):
            self.start(number)

    def start(self, number):
        cluster = ",".join(f"m{n}=http://127.0.0.1:{p}" for n, p in enumerate(self.peer))
        command = [
            self.program, f"--name=m{number}", f"--data-dir={self.folder}/m{number}",
            f"--listen-client-urls=http://127.0.0.1:{self.client[number]}",
            f"--advertise-client-urls=http://127.0.0.1:{self.client[number]}",
            f"--listen-peer-urls=http://127.0.0.1:{self.peer[number]}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self.peer[number]}",
            f"--initial-cluster={cluster}", "--quota-backend-bytes=8589934592",
        ]
        log = open(self.folder / f"m{number}.log", "ab")
        self.processes[number] = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()

    @property
    def endpoints(self):
        return ",".join(f"127.0.0.1:{port}" for port in self.client)

    @property
    def pids(self):
        return ",".join(str(p.pid) for p in self.processes)

    def await_serving(self):
        deadline = time.monotonic() + 60
        while subprocess.run([BIN / "kvctl", f"--endpoints={self.endpoints}", "--command-timeout=2s",
                              "endpoint", "health"], capture_output=True).returncode != 0:
            if time.monotonic() > deadline:
                sys.exit(f"{self.kind} does not serve; see {self.folder}")
            time.sleep(0.1)

    def spawn(self, *arguments):
        return subprocess.Popen(
            [BIN / "kvbench", arguments[0], f"--endpoints={self.endpoints}",
             f"--pids={self.pids}", *map(str, arguments[1:])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, process):
        output, complaint = process.communicate()
        if process.returncode != 0:
            sys.exit(f"{' '.join(map(str, process.args))} on {self.kind}: {complaint}")
        return json.loads(output)

    def bench(self, *arguments):
        return self.finish(self.spawn(*arguments))

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.folder)
        os.sync()


def steal():
    fields = open("/proc/stat").readline().split()[1:]
    return int(fields[7]), sum(map(int, fields))


def loads(seconds):
    """(name, figure to compare, kvbench arguments)"""
    timed = [f"--duration={seconds}", f"--warmup={min(2, seconds / 4)}", f"--key-space={KEYS}"]
    wide = ["--conns=100", "--streams=10", "--target=leader", *timed]
    return [
        ("put 100x10", "per_second", ["put", *wide]),
        ("put 1x1", "per_second", ["put", "--target=leader", *timed]),
        ("put 4000/s open loop, p99", "p99",
         ["put", "--rate=4000", "--conns=10", "--streams=100", "--target=leader", *timed]),
        ("linearizable get 100x10", "per_second", ["range", *wide]),
        ("linearizable get 10x10", "per_second",
         ["range", "--conns=10", "--streams=10", "--target=leader", *timed]),
        ("serializable get 10x10", "per_second",
         ["range", "--serializable", "--conns=10", "--streams=10", "--target=leader", *timed]),
        ("txn 10x10", "per_second", ["txn", "--conns=10", "--streams=10", "--target=leader", *timed]),
        ("mixed 90/10 10x10", "per_second",
         ["mixed", "--conns=10", "--streams=10", "--target=leader", *timed]),
    ]


def figure(result, name):
    return result["latency_ms"]["p99"] if name == "p99" else result[name]


def fill(servers, keys):
    servers.bench("put", "--conns=10", "--streams=20", "--target=leader", "--sequential",
                  f"--key-space={keys}", f"--total={keys}")


def row(result, which):
    return (figure(result, which), result.get("server_cpu_us_per_op"), result["latency_ms"]["p99"],
            result["answers"])


def ordinary_round(servers, seconds):
    servers.await_serving()
    fill(servers, KEYS)
    return {name: row(servers.bench(*arguments), which) for name, which, arguments in loads(seconds)}


def api_round(servers, seconds):
    """Watchers, leases, transactions, and a backup while puts go on."""
    servers.await_serving()
    # Memory first: what the later loads leave behind would hide it.
    idle = servers.bench("range", "--total=1", "--serializable", "--watchers=100000",
                         "--watch-streams=1000", "--watch-conns=10")
    answers = {"RSS with 100000 idle watchers, MiB": (idle["rss_bytes"][0] / (1 << 20), None, None, {})}
    fill(servers, KEYS)
    common = ["--conns=10", "--streams=10", f"--duration={seconds}", f"--warmup={min(2, seconds / 4)}"]
    watchers = ["--watchers=1000", "--watch-streams=100", "--watch-conns=10"]
    wide = [*common, f"--key-space={KEYS}"]
    for name, which, arguments in [
            ("watch fan-out, events/s", "events_per_second",
             ["put", *common, "--key-space=1", *watchers, "--watched=written"]),
            ("lease grant", "per_second", ["lease-grant", *common]),
            ("txn (compare, put)", "per_second", ["txn", *wide]),
            ("put", "per_second", ["put", *wide]),
            ("put, 1000 watchers of others", "per_second", ["put", *wide, *watchers]),
            ("put again", "per_second", ["put", *wide])]:
        answers[name] = row(servers.bench(*arguments), which)
    fill(servers, SNAPSHOT_KEYS)
    # An open loop of puts that outlasts the backup: their worst is what the backup does to others.
    puts = servers.spawn("put", "--conns=4", "--streams=10", "--rate=500", "--duration=25",
                         "--warmup=1", f"--key-space={SNAPSHOT_KEYS}")
    time.sleep(3)
    backup = servers.bench("snapshot", "--total=1")
    answers["snapshot, s"] = (backup["latency_ms"]["max"] / 1000, None, None, backup["answers"])
    meanwhile = servers.finish(puts)
    answers["worst put meanwhile, ms"] = (meanwhile["latency_ms"]["max"], None, None, meanwhile["answers"])
    return answers


def big_round(servers, seconds, idle):
    """A large store: paged ranges, memory, restart."""
    servers.await_serving()
    fill(servers, RANGE_KEYS)
    answers = {}
    page = ["range", "--whole-range", "--limit=1000", "--conns=2", "--streams=2", "--target=leader",
            f"--duration={seconds}", "--warmup=0.5"]
    result = servers.bench(*page)
    answers[f"range limit=1000 of {RANGE_KEYS} keys"] = row(result, "per_second")
    result = servers.bench(*page[:2], "--count-only", *page[3:])
    answers[f"count of {RANGE_KEYS} keys"] = row(result, "per_second")
    fill(servers, MEMORY_KEYS)
    time.sleep(idle)
    rss = statistics.median(
        servers.bench("range", "--total=1", "--serializable")["rss_bytes"]) / (1 << 20)
    answers[f"RSS with {MEMORY_KEYS} keys, MiB"] = (rss, None, None, {})
    number = len(servers.processes) - 1
    servers.processes[number].kill()
    servers.processes[number].wait()
    began = time.monotonic()
    servers.start(number)
    probe = [BIN / "kvbench", "range", f"--endpoints=127.0.0.1:{servers.client[number]}", "--total=1",
             "--serializable"]
    while True:
        result = subprocess.run(probe, capture_output=True, text=True)
        if result.returncode == 0 and json.loads(result.stdout)["answers"].get("0") == 1:
            break
        time.sleep(0.005)
    answers["kill -9 to first read, s"] = (time.monotonic() - began, None, None, {})
    return answers


def main():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6, help="of each load")
    parser.add_argument("--members", type=int, default=None,
                        help="3 by default, 1 with --api")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--big", action="store_true",
                      help="instead: a store of a million keys (ranges, memory, restart)")
    kind.add_argument("--api", action="store_true",
                      help="instead: watchers, leases, transactions, backup")
    parser.add_argument("--idle", type=float, default=60, help="seconds before memory is read")
    parser.add_argument("--only-kvd", action="store_true")
    parser.add_argument("--dir", default=None, help="where the data goes (default: the temp folder)")
    parser.add_argument("--json", default=None, help="write every figure here")
    options = parser.parse_args()
    options.members = options.members or (1 if options.api else 3)

    etcd = None if options.only_kvd else find_etcd()
    if etcd is None and not options.only_kvd:
        print("no etcd program found (KVD_ETCD names one): kvd's figures alone", file=sys.stderr)
    kinds = [("kvd", str(BIN / "kvd"))] + ([("etcd", etcd)] if etcd else [])
    rounds = []
    for number in range(options.rounds):
        order = kinds if number % 2 == 0 else kinds[::-1]
        answers = {}
        for kind, program in order:
            stolen, all_ticks = steal()
            servers = Servers(kind, program, options.members, options.dir)
            try:
                if options.big:
                    answers[kind] = big_round(servers, options.seconds, options.idle)
                elif options.api:
                    answers[kind] = api_round(servers, options.seconds)
                else:
                    answers[kind] = ordinary_round(servers, options.seconds)
            finally:
                servers.stop()
            stolen_now, all_now = steal()
            share = 100 * (stolen_now - stolen) / max(1, all_now - all_ticks)
            print(f"round {number + 1}/{options.rounds} {kind}: done, {share:.1f} % steal",
                  file=sys.stderr)
        rounds.append(answers)
    report(rounds, options)


def report(rounds, options):
    names = list(rounds[0]["kvd"])
    print(f"{options.members} members on one machine, {options.rounds} interleaved rounds; medians [min..max]")
    print(f"{'load':38} {'kvd':>26} {'etcd':>26} {'kvd/etcd':>20} {'cpu us/op':>17}")
    for name in names:
        columns, cpu = [], []
        for kind in ("kvd", "etcd"):
            values = [r[kind][name][0] for r in rounds if kind in r]
            columns.append(f"{statistics.median(values):.4g} [{min(values):.4g}..{max(values):.4g}]"
                           if values else "-")
            spent = [r[kind][name][1] for r in rounds if kind in r and r[kind][name][1]]
            cpu.append(f"{statistics.median(spent):.1f}" if spent else "-")
        ratios = [r["kvd"][name][0] / r["etcd"][name][0] for r in rounds if "etcd" in r]
        ratio = (f"{statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]"
                 if ratios else "-")
        print(f"{name:38} {columns[0]:>26} {columns[1]:>26} {ratio:>20} {' / '.join(cpu):>17}")
        bad = [code for r in rounds for kind in r for code in r[kind][name][3] if code != "0"]
        if bad:
            print(f"  answers with errors, gRPC codes {sorted(set(bad))}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rounds, indent=1))


main()
