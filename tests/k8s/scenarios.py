"""The scenarios, each in a namespace of its own; see README.md for what each is to show."""

import json
import pathlib
import subprocess
import time

from load import Load, ROOT, kvctl

CHART = ROOT / "helm/kvd"
# Small, so that five fit beside each other.
VALUES = {
    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    "persistence": {"size": "1Gi"},
    "minReadySeconds": 0,
}
PATIENCE = 300  # Seconds; a bound of the test, not a measure.


class Skipped(Exception):
    pass


class Failed(Exception):
    pass


def sh(*command, check=True, stdin=None):
    result = subprocess.run([str(part) for part in command], input=stdin, capture_output=True,
                            text=True)
    if check and result.returncode != 0:
        raise Failed(f"{' '.join(str(part) for part in command)}: {result.stderr.strip()}")
    return result


def kubectl_json(*arguments):
    return json.loads(sh("kubectl", *arguments, "-o", "json").stdout)


def await_condition(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    last = None
    while time.monotonic() < deadline:
        last = condition()
        if last is True:
            return
        time.sleep(0.5)
    raise Failed(f"waited {patience} s in vain for {what}: {last}")


class Release:
    """One installation in a namespace of its own."""

    def __init__(self, options, namespace):
        self.options = options
        self.namespace = namespace
        self.helm = options.helm

    def __enter__(self):
        sh("kubectl", "delete", "namespace", self.namespace, "--ignore-not-found", "--wait")
        sh("kubectl", "create", "namespace", self.namespace)
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.story(), flush=True)
            if self.options.keep:
                return
        sh("kubectl", "delete", "namespace", self.namespace, "--wait=false", check=False)

    def k(self, *arguments, check=True):
        return sh("kubectl", "-n", self.namespace, *arguments, check=check)

    def get(self, *arguments):
        return kubectl_json("-n", self.namespace, "get", *arguments)

    def values(self, overrides):
        repository, tag = self.options.image.rsplit(":", 1)
        return json.dumps({**VALUES, "image": {"repository": repository, "tag": tag}, **overrides})

    def install(self, *flags, wait=True, **overrides):
        waits = ("--wait", "--timeout", "5m") if wait else ()
        sh(self.helm, "upgrade", "--install", "kvd", CHART, "-n", self.namespace, "-f", "-", *waits,
           *flags, stdin=self.values(overrides))
        return self

    def uninstall(self):
        sh(self.helm, "uninstall", "kvd", "-n", self.namespace, "--wait", "--timeout", "5m")

    def scale(self, count):
        self.k("scale", "statefulset/kvd", f"--replicas={count}")

    def endpoint(self):
        address = self.get("service", "kvd")["spec"]["clusterIP"]
        return f"{address}:2379"

    def pods(self):
        pods = self.get("pods", "-l", "app.kubernetes.io/component=server")["items"]
        return {pod["metadata"]["name"]: pod for pod in pods}

    def restarts(self):
        return sum(status["restartCount"] for pod in self.pods().values()
                   for status in pod["status"].get("containerStatuses", []))

    def ready(self, count):
        # From the pods themselves: right after a deletion the StatefulSet's own count is an old one.
        def all_ready():
            ready = [name for name, pod in self.pods().items()
                     if "deletionTimestamp" not in pod["metadata"] and any(
                         c["type"] == "Ready" and c["status"] == "True"
                         for c in pod["status"].get("conditions", []))]
            return True if len(ready) == count == len(self.pods()) else f"ready: {ready}"
        await_condition(f"{count} ready pods", all_ready)

    def members(self):
        result = kvctl(self.endpoint(), "member", "list", "-w", "json")
        return json.loads(result.stdout).get("members", []) if result.returncode == 0 else []

    def ids(self):
        return {member["name"]: member["ID"] for member in self.members()}

    def await_members(self, count, patience=PATIENCE):
        wanted = sorted(f"kvd-{n}" for n in range(count))

        def equal():
            members = self.members()
            names = sorted(member.get("name", "?") for member in members)
            voters = [m for m in members if not m.get("isLearner")]
            return True if names == wanted and len(voters) == count else names
        began = time.monotonic()
        await_condition(f"members {wanted}", equal, patience)
        return time.monotonic() - began

    def cluster_id(self):
        result = kvctl(self.endpoint(), "member", "list", "-w", "json", timeout="30s")
        if result.returncode != 0:
            raise Failed(f"no member list: {result.stderr}")
        return json.loads(result.stdout)["header"]["cluster_id"]

    def leader(self):
        """The name of the pod that leads."""
        statuses = kvctl(self.endpoint(), "endpoint", "status", "-w", "json").stdout
        leader = json.loads(statuses)[0]["Status"]["leader"]
        return next(m["name"] for m in self.members() if m["ID"] == leader)

    def log(self, pod):
        return self.k("logs", pod, "--tail=200", check=False).stdout

    def story(self):
        lines = [self.k("get", "pods,pvc", "-o", "wide", check=False).stdout]
        for pod in self.pods():
            lines.append(f"--- {pod}\n{self.log(pod)}")
        return "\n".join(lines)

    def load(self):
        return Load(self.endpoint())


def settle(load):
    """Some writes, so that there is something to lose."""
    least = len(load.acknowledged) + 20
    await_condition("twenty more writes", lambda: len(load.acknowledged) >= least or "few")


def judge(release, load, cluster_id, members):
    if load.faults:
        raise Failed("; ".join(load.faults))
    if release.cluster_id() != cluster_id:
        raise Failed("this is another cluster")
    release.await_members(members)


def s01(options):
    """install n=1,3,5 with --wait"""
    said = []
    for count in (1, 3, 5):
        times = []
        for n in range(options.times):
            with Release(options, f"kvd-s01-{count}-{n}") as release:
                began = time.monotonic()
                release.install(replicaCount=count)
                times.append(time.monotonic() - began)
                release.await_members(count)
                if release.restarts():
                    raise Failed(f"{release.restarts()} restarts")
        said.append(f"{count}: {len(times)} of {len(times)}, ready after "
                    f"{min(times):.0f} to {max(times):.0f} s")
    return said


def s04(options):
    """one founder Pending for a while: nothing is founded, and then it is"""
    with Release(options, "kvd-s04") as release:
        release.k("create", "quota", "two", "--hard=pods=2")
        release.install(wait=False)
        await_condition("two pods that wait for kvd-2", lambda: len(release.pods()) == 2 and all(
            "kvd-2" in release.log(pod) for pod in release.pods()))
        if kvctl(release.endpoint(), "endpoint", "health", timeout="2s").returncode == 0:
            raise Failed("two of three founded a cluster")
        release.k("delete", "quota", "two")
        release.ready(3)
        release.await_members(3)
        return [f"{release.restarts()} restarts"]


def scale_steps(release, load, steps, scale):
    times = []
    for count in steps:
        scale(count)
        times.append(f"{count}: {release.await_members(count):.0f} s")
        release.ready(count)
        settle(load)
    return times


def s05(options):
    """1->3->5->3->1 with kubectl, then with helm, writes going on"""
    said = []
    for way in ("kubectl", "helm"):
        with Release(options, f"kvd-s05-{way}") as release:
            release.install(replicaCount=1)
            cluster = release.cluster_id()
            with release.load() as load:
                settle(load)
                scale = release.scale if way == "kubectl" else (
                    lambda count: release.install(replicaCount=count, wait=False))
                times = scale_steps(release, load, (3, 5, 3, 1), scale)
            judge(release, load, cluster, 1)
            said.append(f"{way}: members after {', '.join(times)}; {load.report()}")
    return said


def s06(options):
    """5->1 in one step"""
    with Release(options, "kvd-s06") as release:
        release.install(replicaCount=5)
        cluster = release.cluster_id()
        with release.load() as load:
            settle(load)
            release.scale(1)
            took = release.await_members(1)
            settle(load)
        judge(release, load, cluster, 1)
        return [f"members after {took:.0f} s", load.report()]


def s07(options):
    """3->0->3 and 3->0->5: nobody leaves, the data is there"""
    with Release(options, "kvd-s07") as release:
        release.install()
        cluster, ids = release.cluster_id(), release.ids()
        kvctl(release.endpoint(), "put", "kept", "yes")
        for count in (3, 5):
            release.scale(0)
            await_condition("no pod", lambda: not release.pods() or "pods are left")
            release.scale(count)
            release.await_members(count)
            if release.cluster_id() != cluster or not ids.items() <= release.ids().items():
                raise Failed("members came back as others")
            if "yes" not in kvctl(release.endpoint(), "get", "kept").stdout:
                raise Failed("the data is gone")
        return []


def lose_volume(release, pod):
    claim = f"data-{pod}"
    before = release.get("pvc", claim)["metadata"]["uid"]
    release.k("delete", "pvc", claim, "--wait=false")
    release.k("delete", "pod", pod, "--grace-period=1", "--wait=false")

    def replaced():
        result = release.k("get", "pvc", claim, "-o", "jsonpath={.metadata.uid}", check=False)
        return result.returncode == 0 and result.stdout != before
    await_condition("another volume", lambda: replaced() or "the old one")


def s08(options):
    """the volume of a follower, of the leader, of pod 0 is lost"""
    said = []
    with Release(options, "kvd-s08") as release:
        release.install()
        cluster = release.cluster_id()
        with release.load() as load:
            settle(load)
            for victim in ("follower", "leader", "kvd-0"):
                leader = release.leader()
                pod = {"leader": leader, "kvd-0": "kvd-0"}.get(victim) or next(
                    name for name in release.ids() if name not in (leader, "kvd-0"))
                old = release.ids()[pod]
                began = time.monotonic()
                lose_volume(release, pod)
                await_condition("a new member id", lambda: release.ids().get(pod) not in (old, None)
                                or release.ids())
                release.await_members(3)
                release.ready(3)
                said.append(f"{victim} replaced in {time.monotonic() - began:.0f} s")
                settle(load)
        judge(release, load, cluster, 3)
        return [*said, load.report()]


def transfers(release):
    terms = json.loads(kvctl(release.endpoint(), "endpoint", "status", "-w", "json").stdout)
    return terms[0]["Status"]["raftTerm"]


def s12(options):
    """a rolling restart under load"""
    with Release(options, "kvd-s12") as release:
        release.install()
        cluster, ids = release.cluster_id(), release.ids()
        with release.load() as load:
            settle(load)
            before = transfers(release)
            began = time.monotonic()
            release.k("rollout", "restart", "statefulset/kvd")
            release.k("rollout", "status", "statefulset/kvd", "--timeout=10m")
            took = time.monotonic() - began
            settle(load)
        judge(release, load, cluster, 3)
        if release.ids() != ids:
            raise Failed("members changed")
        return [f"{took:.0f} s, {transfers(release) - before} terms", load.report()]


def s13(options):
    """a rolling restart while another pod is down: the permit keeps the quorum"""
    with Release(options, "kvd-s13") as release:
        release.install(shutdown={"quorumGuardMaxWait": "60s"})
        cluster = release.cluster_id()
        with release.load() as load:
            settle(load)
            # A pod that cannot start: its image is not there.
            release.k("patch", "pod", "kvd-0", "-p", json.dumps(
                {"spec": {"containers": [{"name": "kvd", "image": "localhost/none:1"}]}}))
            await_condition("kvd-0 down", lambda: not all(
                s["ready"] for s in release.pods()["kvd-0"]["status"]["containerStatuses"]) or "up")
            release.k("rollout", "restart", "statefulset/kvd")
            await_condition("a pod that waits for its permit", lambda: any(
                "waits for the permit" in release.log(pod) for pod in release.pods()) or "none")
            settle(load)
            release.k("delete", "pod", "kvd-0", "--grace-period=0", "--force")
            release.k("rollout", "status", "statefulset/kvd", "--timeout=10m")
        judge(release, load, cluster, 3)
        return [load.report()]


def s14(options):
    """kubectl delete pod --all"""
    with Release(options, "kvd-s14") as release:
        release.install()
        cluster, ids = release.cluster_id(), release.ids()
        with release.load() as load:
            settle(load)
            release.k("delete", "pod", "-l", "app.kubernetes.io/component=server")
            release.ready(3)
            settle(load)
        judge(release, load, cluster, 3)
        if release.ids() != ids:
            raise Failed("members changed")
        return [load.report()]


def s16(options):
    """SIGKILL of each member in turn, by force"""
    with Release(options, "kvd-s16") as release:
        release.install()
        cluster, ids = release.cluster_id(), release.ids()
        with release.load() as load:
            for pod in ("kvd-0", "kvd-1", "kvd-2", release.leader()):
                settle(load)
                release.k("delete", "pod", pod, "--force", "--grace-period=0")
                release.ready(3)
        judge(release, load, cluster, 3)
        if release.ids() != ids:
            raise Failed("members changed")
        return [load.report()]


def s17(options):
    """a rollout of an image that is not there, and the way back"""
    with Release(options, "kvd-s17") as release:
        release.install()
        cluster = release.cluster_id()
        with release.load() as load:
            settle(load)
            release.install(wait=False, image={"repository": "localhost/none", "tag": "1"})
            await_condition("a pod without its image", lambda: any(
                "waiting" in s.get("state", {}) for pod in release.pods().values()
                for s in pod["status"].get("containerStatuses", [])) or "none")
            settle(load)
            sh(release.helm, "rollback", "kvd", "1", "-n", release.namespace)
            release.ready(3)
        judge(release, load, cluster, 3)
        return [load.report()]


def s18(options):
    """helm uninstall and install, volumes kept"""
    with Release(options, "kvd-s18") as release:
        release.install()
        cluster, ids = release.cluster_id(), release.ids()
        kvctl(release.endpoint(), "put", "kept", "yes")
        began = time.monotonic()
        release.uninstall()
        await_condition("no pod", lambda: not release.pods() or "pods are left")
        took = time.monotonic() - began
        release.install()
        if release.cluster_id() != cluster or release.ids() != ids:
            raise Failed("another cluster, or other members")
        if "yes" not in kvctl(release.endpoint(), "get", "kept").stdout:
            raise Failed("the data is gone")
        return [f"uninstalled in {took:.0f} s"]


def s19(options):
    """scale down and up again with kept volumes: old disks begin anew"""
    with Release(options, "kvd-s19") as release:
        release.install()
        cluster, ids = release.cluster_id(), release.ids()
        with release.load() as load:
            settle(load)
            release.scale(1)
            release.await_members(1)
            await_condition("one pod", lambda: len(release.pods()) == 1 or "more")
            settle(load)
            release.scale(3)
            release.await_members(3)
        judge(release, load, cluster, 3)
        again = release.ids()
        if any(again[f"kvd-{n}"] == ids[f"kvd-{n}"] for n in (1, 2)):
            raise Failed("a removed id came back")
        return [load.report()]


def s21(options):
    """the right to read the count is gone during a scale-down: nobody is removed; then it is back"""
    with Release(options, "kvd-s21") as release:
        release.install()
        cluster, ids = release.cluster_id(), release.ids()
        with release.load() as load:
            settle(load)
            binding = release.k("get", "rolebinding", "kvd", "-o", "json").stdout
            release.k("delete", "rolebinding", "kvd")
            release.scale(1)
            await_condition("one pod", lambda: len(release.pods()) == 1 or "more")
            sh("kubectl", "apply", "-f", "-", stdin=binding)
            # One of three has no quorum: it serves again only with the others.
            release.scale(3)
            release.ready(3)
        judge(release, load, cluster, 3)
        if release.ids() != ids:
            raise Failed("somebody was removed, or came anew")
        return [load.report()]


def s22(options):
    """source=file: helm scales, pods that only kubectl asked for are not taken in"""
    with Release(options, "kvd-s22") as release:
        file = {"membership": {"desiredReplicas": {"source": "file", "pollInterval": "2s"},
                               "stabilityWindow": "5s", "unreachableBeforeRemove": "5s"}}
        release.install(**file)
        release.scale(5)
        await_condition("pods that are not wanted", lambda: all(
            "not wanted" in release.log(pod) for pod in ("kvd-3", "kvd-4")) or "silent")
        release.await_members(3)
        release.install(replicaCount=5, wait=False, **file)
        release.await_members(5)
        return []


def not_yet(reason):
    def scenario(options):
        raise Skipped(reason)
    return scenario


ALL = {
    "S01": s01,
    "S02": not_yet("DNS outage: no driver for it yet"),
    "S03": not_yet("failpoints are not built yet; the crash points of founding run in simulation"),
    "S04": s04, "S05": s05, "S06": s06, "S07": s07, "S08": s08,
    "S09": not_yet("a partition of a replaced pod: needs --chaos, not written yet"),
    "S10": not_yet("kvctl recover plan is not there yet"),
    "S11": not_yet("kvctl cluster forget is not there yet"),
    "S12": s12, "S13": s13, "S14": s14,
    "S15": not_yet("drains: not written yet"),
    "S16": s16, "S17": s17, "S18": s18, "S19": s19,
    "S20": not_yet("a volume restored from a copy: the rollback guard is not there yet"),
    "S21": s21, "S22": s22,
}


def run(name, options):
    if sh("kubectl", "version", check=False).returncode != 0:
        raise Skipped("no cluster answers; set KUBECONFIG")
    return ALL[name](options)
