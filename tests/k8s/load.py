"""Clients of a release while a scenario does things to it: a writer of unique keys, a reader that
knows what it must see, a watcher that counts, and a prober of gaps."""

import base64
import json
import os
import pathlib
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KVCTL = pathlib.Path(os.environ.get("KVD_BIN", ROOT / "build/release/bin")) / "kvctl"


def kvctl(endpoint, *arguments, timeout="5s"):
    return subprocess.run([KVCTL, f"--endpoints={endpoint}", f"--command-timeout={timeout}",
                           *arguments], capture_output=True, text=True)


def key_of(number):
    return f"/w/{number:08}"


class Load:
    """As a context: runs until the block ends, then judges."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.acknowledged = []       # Numbers, in order.
        self.attempted = -1
        self.errors = {}             # Text of what clients were told: count.
        self.faults = []             # Laws that were broken.
        self.reads = 0
        self.gaps = []               # Seconds between two reads that succeeded, above a tenth.
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=run, daemon=True)
                        for run in (self.write, self.read)]
        self.watcher = None
        self.heard = []

    def __enter__(self):
        self.watcher = subprocess.Popen(
            [KVCTL, f"--endpoints={self.endpoint}", "watch", "/w/", "--prefix", "--rev=1",
             "-w", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.threads.append(threading.Thread(target=self.listen, daemon=True))
        for thread in self.threads:
            thread.start()
        return self

    def note(self, result):
        text = (result.stderr.strip().splitlines() or ["?"])[-1]
        text = text.split("rpc error: ")[-1]
        self.errors[text] = self.errors.get(text, 0) + 1
        # Where nobody answers, errors come at once; new processes without end would slow the pods.
        self.stopping.wait(0.2)

    def write(self):
        while not self.stopping.is_set():
            number = self.attempted + 1
            self.attempted = number
            result = kvctl(self.endpoint, "put", key_of(number), str(number))
            if result.returncode == 0:
                self.acknowledged.append(number)
            else:
                self.note(result)

    def read(self):
        last_good = time.monotonic()
        while not self.stopping.is_set():
            least = self.acknowledged[-1] if self.acknowledged else -1
            result = kvctl(self.endpoint, "get", "/w/", "--prefix", "--limit=1", "--order=DESCEND",
                           "--keys-only")
            if result.returncode != 0:
                self.note(result)
                continue
            now = time.monotonic()
            if now - last_good > 0.1:
                self.gaps.append(now - last_good)
            last_good = now
            self.reads += 1
            seen = int(result.stdout.split("/")[-1]) if result.stdout.strip() else -1
            if not least <= seen <= self.attempted:
                self.faults.append(f"a read saw {seen} when {least} was acknowledged")

    def listen(self):
        for line in self.watcher.stdout:
            for event in json.loads(line).get("Events") or []:
                key = base64.b64decode(event["kv"]["key"]).decode()
                self.heard.append((event["kv"]["mod_revision"], int(key.split("/")[-1])))

    def __exit__(self, kind, *_):
        self.stopping.set()
        for thread in self.threads[:2]:
            thread.join()
        if kind is None:
            self.judge()
        self.watcher.terminate()
        self.watcher.wait()

    def judge(self):
        result = kvctl(self.endpoint, "get", "/w/", "--prefix", "-w", "json", timeout="60s")
        if result.returncode != 0:
            self.faults.append(f"the keys cannot be read in the end: {result.stderr}")
            return
        kvs = json.loads(result.stdout).get("kvs", [])
        stored = {int(base64.b64decode(kv["key"]).decode().split("/")[-1]): kv for kv in kvs}
        lost = [number for number in self.acknowledged if number not in stored]
        if lost:
            self.faults.append(f"{len(lost)} acknowledged writes are lost: {lost[:10]}")
        wanted = sorted((kv["mod_revision"], number) for number, kv in stored.items())
        deadline = time.monotonic() + 120
        while len(self.heard) < len(wanted) and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.heard != wanted:
            self.faults.append(f"the watcher heard {len(self.heard)} events, in another order or "
                               f"number than the {len(wanted)} that there were")

    def report(self):
        gaps = sum(gap - 0.1 for gap in self.gaps)
        told = "; ".join(f"{count}x {text}" for text, count in sorted(self.errors.items()))
        return (f"{len(self.acknowledged)} writes, {self.reads} reads, gaps {gaps:.1f} s in all"
                f" (longest {max(self.gaps, default=0):.1f} s), errors: {told or 'none'}")
