"""The scenarios, each in a namespace of its own; see README.md for what each is to show."""

import contextlib
import json
import pathlib
import subprocess
import time

from load import Load, ROOT, kvctl
from prober import Prober

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
        """Of this container and of the one before it."""
        return "".join(self.k("logs", pod, "--tail=200", *which, check=False).stdout
                       for which in (("--previous",), ()))

    def node_of(self, pod):
        return self.pods()[pod]["spec"]["nodeName"]

    def hold_down(self, pod):
        """The pod stays, its container ends: there is no such image. Deleting the pod undoes it."""
        self.k("patch", "pod", pod, "-p", json.dumps(
            {"spec": {"containers": [{"name": "kvd", "image": "localhost/none:1"}]}}))
        await_condition(f"{pod} down", lambda: not any(
            "running" in status["state"]
            for status in self.pods()[pod]["status"]["containerStatuses"]) or "up")

    def in_volume(self, pod, command):
        """Runs a shell command in the volume of a pod that is down, at /volume."""
        claim = f"data-{pod}"
        spec = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hand"}, "spec": {
            "restartPolicy": "Never",
            "nodeName": self.node_of_claim(claim),
            "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [{"name": "hand", "image": self.options.hand_image,
                            "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", command],
                            "volumeMounts": [{"name": "volume", "mountPath": "/volume"}]}]}}
        sh("kubectl", "-n", self.namespace, "create", "-f", "-", stdin=json.dumps(spec))

        def over():
            phase = self.get("pod", "hand")["status"].get("phase")
            if phase == "Failed":
                raise Failed(f"{command} in {claim}: {self.k('logs', 'hand', check=False).stdout}")
            return phase == "Succeeded" or phase
        await_condition(f"{command!r} in {claim}", over)
        self.k("delete", "pod", "hand", "--grace-period=0", "--force")
        await_condition("the hand to be gone", lambda: self.k(
            "get", "pod", "hand", check=False).returncode != 0 or "there")

    def node_of_claim(self, claim):
        volume = kubectl_json("get", "pv", self.get("pvc", claim)["spec"]["volumeName"])
        terms = volume["spec"].get("nodeAffinity", {}).get("required", {}).get(
            "nodeSelectorTerms", [])
        names = [value for term in terms for expression in term.get("matchExpressions", [])
                 if expression["key"] == "kubernetes.io/hostname"
                 for value in expression["values"]]
        return names[0] if names else None

    def story(self):
        lines = [self.k("get", "pods,pvc", "-o", "wide", check=False).stdout]
        for pod in self.pods():
            lines.append(f"--- {pod}\n{self.log(pod)}")
        return "\n".join(lines)

    def load(self):
        return Load(self.endpoint())

    def lasting_endpoint(self):
        """Of a Service that is not the chart's, and outlives an uninstallation."""
        spec = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lasting"}, "spec": {
            "selector": {"app.kubernetes.io/instance": "kvd",
                         "app.kubernetes.io/component": "server"},
            "ports": [{"name": "client", "port": 2379}]}}
        sh("kubectl", "-n", self.namespace, "apply", "-f", "-", stdin=json.dumps(spec))
        return f"{self.get('service', 'lasting')['spec']['clusterIP']}:2379"


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


def installs(options):
    """install three members, twenty times over: one cluster and no restart each time"""
    times = []
    for n in range(20):
        with Release(options, f"kvd-installs-{n}") as release:
            began = time.monotonic()
            release.install()
            times.append(time.monotonic() - began)
            release.await_members(3)
            if release.restarts():
                raise Failed(f"{release.restarts()} restarts in run {n + 1}")
        # Pods that are still going would make the next run slower than it is.
        await_condition(f"the end of run {n + 1}", lambda: sh(
            "kubectl", "get", "namespace", release.namespace, check=False).returncode != 0
            or "its namespace is there")
    return [f"{len(times)} of 20, ready after {', '.join(f'{one:.0f}' for one in times)} s"]


@contextlib.contextmanager
def name_server(release):
    """A way to the cluster's name server for this release alone, not open yet: a Service without
    addresses. Yields what the pods need, and the function that opens it."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "names"}, "spec": {
        "ports": [{"name": name, "port": 53, "protocol": protocol}
                  for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))]}}
    sh("kubectl", "-n", release.namespace, "create", "-f", "-", stdin=json.dumps(service))
    address = release.get("service", "names")["spec"]["clusterIP"]
    slices = kubectl_json("-n", "kube-system", "get", "endpointslices", "-l",
                          "kubernetes.io/service-name=kube-dns")["items"]
    if not slices:
        raise Skipped("kube-system has no endpoints of kube-dns")

    def open_it():
        for n, one in enumerate(slices):
            mine = {"apiVersion": one["apiVersion"], "kind": "EndpointSlice",
                    "metadata": {"name": f"names-{n}",
                                 "labels": {"kubernetes.io/service-name": "names"}},
                    "addressType": one["addressType"], "ports": one["ports"],
                    "endpoints": [{"addresses": endpoint["addresses"]}
                                  for endpoint in one["endpoints"]]}
            sh("kubectl", "-n", release.namespace, "create", "-f", "-", stdin=json.dumps(mine))
    suffix = "svc.cluster.local"
    yield {"dnsPolicy": "None", "dnsConfig": {
        "nameservers": [address], "options": [{"name": "ndots", "value": "5"}],
        "searches": [f"{release.namespace}.{suffix}", suffix, "cluster.local"]}}, open_it


def s02(options):
    """installed while no name can be resolved; a minute later names are there"""
    with Release(options, "kvd-s02") as release, name_server(release) as (pod_names, open_it):
        began = time.monotonic()
        release.install(wait=False, podTemplate={"merge": {"spec": pod_names}})
        # Each says it every ten seconds: six times are the minute.
        await_condition("three pods that have said six times whom they wait for", lambda: (
            len(release.pods()) == 3 and all(release.log(pod).count("waiting for: ") >= 6
                                             for pod in release.pods())) or "not yet")
        if kvctl(release.endpoint(), "endpoint", "health", timeout="2s").returncode == 0:
            raise Failed("a cluster was founded without names")
        outage = time.monotonic() - began
        open_it()
        release.ready(3)
        release.await_members(3)
        if release.restarts():
            raise Failed(f"{release.restarts()} restarts")
        return [f"ready {time.monotonic() - began - outage:.0f} s after an outage of {outage:.0f} s"]


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
        times.append(f"{count}: {release.await_members(count, release.options.scale_within):.0f} s")
        release.ready(count)
        settle(load)
    return times


def upgrades_keep_the_scale(release, helm):
    """After kubectl scale, an upgrade that changes something else: Helm 4 refuses to take the count
    back, Helm 3 takes it; said or not, the members follow the count and nothing is lost."""
    release.scale(3)
    release.await_members(3)
    release.ready(3)
    upgraded = sh(helm, "upgrade", "kvd", CHART, "-n", release.namespace, "-f", "-", check=False,
                  stdin=release.values({"replicaCount": 1, "podAnnotations": {"changed": "yes"}}))
    count = release.get("statefulset", "kvd")["spec"]["replicas"]
    release.await_members(count)
    release.ready(count)
    if upgraded.returncode == 0:
        return f"another upgrade sets the count to {count}"
    if "conflict" not in upgraded.stderr or count != 3:
        raise Failed(f"the upgrade failed, and {count} are wanted: {upgraded.stderr}")
    # The way out that the chart's notes give.
    release.install(replicaCount=3, wait=False, podAnnotations={"changed": "yes"})
    release.await_members(3)
    release.ready(3)
    return "another upgrade is refused as a conflict; with replicaCount=3 it goes through"


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
    helms = [("helm", options.helm), *([("the other helm", options.other_helm)]
                                       if options.other_helm else [])]
    for n, (name, helm) in enumerate(helms):
        with Release(options, f"kvd-s05-upgrade{n}") as release:
            release.helm = helm
            release.install(replicaCount=1)
            cluster = release.cluster_id()
            with release.load() as load:
                settle(load)
                said.append(f"{name}: {upgrades_keep_the_scale(release, helm)}")
                settle(load)
            judge(release, load, cluster, release.get("statefulset", "kvd")["spec"]["replicas"])
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


def s06b(options):
    """3->1 while kvd-0 is on a new disk, and back to 3"""
    with Release(options, "kvd-s06b") as release:
        # A learner for as long as it takes to scale.
        release.install(persistence={"size": "1Gi"})
        cluster = release.cluster_id()
        with release.load() as load:
            settle(load)
            lose_volume(release, "kvd-0")
            release.scale(1)
            release.await_members(1)
            settle(load)
            release.scale(3)
            release.await_members(3)
            release.ready(3)
            settle(load)
        judge(release, load, cluster, 3)
        return [load.report()]


def s07(options):
    """3->0->3 and 3->0->5: nobody leaves, the data is there"""
    with Release(options, "kvd-s07") as release:
        release.install()
        cluster, ids = release.cluster_id(), release.ids()
        with release.load() as load:
            for count in (3, 5):
                settle(load)
                release.scale(0)
                await_condition("no pod", lambda: not release.pods() or "pods are left")
                release.scale(count)
                release.await_members(count)
                release.ready(count)
                if release.cluster_id() != cluster or not ids.items() <= release.ids().items():
                    raise Failed("members came back as others")
            settle(load)
        judge(release, load, cluster, 5)
        return [load.report()]


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


def chaos(options, command, node, *others):
    """Does something to a machine. Skipped: there is no driver for it."""
    if not options.chaos:
        raise Skipped(f"nodes cannot be made to {command} without --chaos")
    number = node.removeprefix("node")
    sh(pathlib.Path(options.chaos) / "node", command, number,
       *(other.removeprefix("node") for other in others))


@contextlib.contextmanager
def trouble(options, command, remedy, node, *others):
    """The remedy comes also after a failure: the next scenario needs the node."""
    try:
        for other in others or [None]:
            chaos(options, command, node, *([other] if other else []))
        yield
    finally:
        if options.chaos:
            chaos(options, remedy, node)
            await_node(node, True)


def await_node(node, ready):
    def is_so():
        got = sh("kubectl", "get", "node", node, "-o", "json", check=False)
        conditions = json.loads(got.stdout)["status"]["conditions"] if got.returncode == 0 else []
        status = next((c["status"] for c in conditions if c["type"] == "Ready"), "not there")
        return (status == "True") == ready or status
    await_condition(f"{node} {'ready' if ready else 'missed'}", is_so)


def gateway():
    """The node through which this machine reaches Services, if there is one: without it the clients
    of a scenario reach nobody."""
    address = kubectl_json("get", "service", "kubernetes", "-n", "default")["spec"]["clusterIP"]
    route = sh("ip", "route", "get", address, check=False).stdout.split()
    via = route[route.index("via") + 1] if "via" in route else None
    return next((node["metadata"]["name"] for node in kubectl_json("get", "nodes")["items"]
                 if any(one["address"] == via for one in node["status"]["addresses"])), None)


@contextlib.contextmanager
def cordoned(nodes):
    """No pod is put there meanwhile."""
    try:
        for node in nodes:
            sh("kubectl", "cordon", node)
        yield
    finally:
        for node in nodes:
            sh("kubectl", "uncordon", node)


def install_apart(release):
    """Each of three pods on a node of its own, kvd-0 not on the gateway. The nodes, by pod."""
    behind = gateway()
    with cordoned([behind] if behind else []):
        release.k("create", "quota", "one", "--hard=pods=1")
        release.install(wait=False, spread={"mode": "hard"})
        await_condition("kvd-0 to have a node", lambda: "kvd-0" in release.pods() and
                        "nodeName" in release.pods()["kvd-0"]["spec"] or "none")
    release.k("delete", "quota", "one")
    release.ready(3)
    release.await_members(3)
    return {pod: release.node_of(pod) for pod in release.pods()}


def s09(options):
    """a lost volume while the others cannot be reached: it waits, and founds nothing"""
    if not options.chaos:
        raise Skipped("nodes cannot be cut off without --chaos")
    with Release(options, "kvd-s09") as release:
        nodes = install_apart(release)
        cluster, ids = release.cluster_id(), release.ids()
        others = [nodes[pod] for pod in ("kvd-1", "kvd-2")]
        with release.load() as load:
            settle(load)
            # The new volume is to be made where the old one was.
            with cordoned(others), trouble(options, "isolate", "heal", nodes["kvd-0"], *others):
                lose_volume(release, "kvd-0")
                await_condition("kvd-0 to say whom it waits for", lambda: all(
                    "waiting for: " in release.log("kvd-0") and other in release.log("kvd-0")
                    for other in ("kvd-1", "kvd-2")) or "silent")
                settle(load)
                if release.ids() != ids:
                    raise Failed("members changed while it was cut off")
            await_condition("a new member id", lambda: release.ids().get("kvd-0") not in
                            (ids["kvd-0"], None) or release.ids())
            release.ready(3)
            settle(load)
        judge(release, load, cluster, 3)
        return [load.report()]


def transfers(release):
    terms = json.loads(kvctl(release.endpoint(), "endpoint", "status", "-w", "json").stdout)
    return terms[0]["Status"]["raftTerm"]


def s12(options):
    """a rolling restart under load, with fifty probes a second"""
    with Release(options, "kvd-s12") as release:
        release.install()
        cluster, ids = release.cluster_id(), release.ids()
        with release.load() as load, Prober(release.endpoint()) as prober:
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
        moved = transfers(release) - before
        said = [f"{took:.0f} s, {moved} transfers", prober.report(), load.report()]
        if moved > 2:
            raise Failed(f"leadership moved more than twice: {'; '.join(said)}")
        if prober.silence() >= options.gaps_within:
            raise Failed(f"gaps of {options.gaps_within} s or more in all: {'; '.join(said)}")
        return said


def s13(options):
    """a rolling restart while another pod is down: the permit keeps the quorum"""
    with Release(options, "kvd-s13") as release:
        release.install(shutdown={"quorumGuardMaxWait": "60s"})
        cluster = release.cluster_id()
        with release.load() as load:
            settle(load)
            release.hold_down("kvd-0")
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


def drain(node):
    return subprocess.Popen(["kubectl", "drain", node, "--ignore-daemonsets",
                             "--delete-emptydir-data", "--timeout=60s"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def s15(options):
    """two nodes are drained at once: the budget lets one member go at a time, and nobody is removed"""
    with Release(options, "kvd-s15") as release:
        release.install(spread={"mode": "hard"})
        cluster, ids = release.cluster_id(), release.ids()
        nodes = sorted({release.node_of(pod) for pod in ids})
        if len(nodes) < 3:
            raise Skipped("the three pods share nodes")
        least = 3
        with release.load() as load:
            settle(load)
            drains = [drain(node) for node in nodes[:2]]
            try:
                while any(one.poll() is None for one in drains):
                    bound = [pod for pod in release.pods().values()
                             if "deletionTimestamp" not in pod["metadata"] and any(
                                 c["type"] == "Ready" and c["status"] == "True"
                                 for c in pod["status"].get("conditions", []))]
                    least = min(least, len(bound))
                    time.sleep(0.5)
            finally:
                for node in nodes[:2]:
                    sh("kubectl", "uncordon", node)
            release.ready(3)
            settle(load)
        judge(release, load, cluster, 3)
        if release.ids() != ids:
            raise Failed("members changed")
        if least < 2:
            raise Failed(f"{least} pods were ready at one moment")
        refused = sum(one.returncode != 0 for one in drains)
        return [f"{refused} of 2 drains had to wait for the other node", load.report()]


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


def leader_that_may_fail(release, load, nodes):
    """Its name. A leader on the gateway is restarted: that hands the leadership to another machine."""
    behind = gateway()
    for _ in nodes:
        leader = release.leader()
        if nodes[leader] != behind:
            return leader
        release.k("delete", "pod", leader)
        release.ready(3)
        settle(load)
    raise Failed(f"the leadership comes back to {leader}, on the node that clients come through")


def without_a_machine(options, name, command, remedy):
    """The leader's machine."""
    if not options.chaos:
        raise Skipped(f"no machine can be made to {command} without --chaos")
    with Release(options, name) as release:
        nodes = install_apart(release)
        cluster, ids = release.cluster_id(), release.ids()
        with release.load() as load:
            settle(load)
            pod = leader_that_may_fail(release, load, nodes)
            with trouble(options, command, remedy, nodes[pod]):
                settle(load)
                # Until it is missed its pod counts as ready, and would once more afterwards.
                await_node(nodes[pod], False)
                settle(load)
            release.ready(3)
            settle(load)
        judge(release, load, cluster, 3)
        if release.ids() != ids:
            raise Failed("members changed")
        return [f"it was {pod}, the leader", load.report()]


def s16_power(options):
    """the machine of a member loses its power, and gets it back"""
    return without_a_machine(options, "kvd-s16-power", "stop", "start")


def s16_pause(options):
    """the machine of a member hangs, is given up by the others, and goes on where it was"""
    return without_a_machine(options, "kvd-s16-pause", "pause", "resume")


def s08_machine(options):
    """a machine is lost with its disk; an empty one of the same name takes its place"""
    if not options.chaos:
        raise Skipped("no machine can be wiped without --chaos")
    with Release(options, "kvd-s08-machine") as release:
        nodes = install_apart(release)
        cluster, ids = release.cluster_id(), release.ids()
        with release.load() as load:
            settle(load)
            with trouble(options, "stop", "start", nodes["kvd-0"]):
                chaos(options, "wipe", nodes["kvd-0"])
                sh("kubectl", "delete", "node", nodes["kvd-0"])
                release.k("delete", "pvc", "data-kvd-0", "--wait=false")
                release.k("delete", "pod", "kvd-0", "--force", "--grace-period=0")
                settle(load)
            await_condition("a new member id", lambda: release.ids().get("kvd-0") not in
                            (ids["kvd-0"], None) or release.ids())
            release.ready(3)
            settle(load)
        judge(release, load, cluster, 3)
        after = release.ids()
        if any(after.get(pod) != ids[pod] for pod in ("kvd-1", "kvd-2")):
            raise Failed(f"others were replaced too: {ids}, then {after}")
        return [load.report()]


def s16_twin(options):
    """a machine is given up while it lives: its pod begins anew elsewhere, the old member is nobody"""
    if not options.chaos:
        raise Skipped("nodes cannot be cut off without --chaos")
    with Release(options, "kvd-s16-twin") as release:
        nodes = install_apart(release)
        # Two members on one machine are better than one on none.
        release.install(wait=False, spread={"mode": "soft"})
        release.k("rollout", "status", "statefulset/kvd", "--timeout=10m")
        cluster, ids = release.cluster_id(), release.ids()
        claim = release.get("pvc", "data-kvd-0")["metadata"]["uid"]
        with release.load() as load:
            settle(load)
            with trouble(options, "isolate", "heal", nodes["kvd-0"]):
                await_node(nodes["kvd-0"], False)
                release.k("delete", "pvc", "data-kvd-0", "--wait=false")
                release.k("delete", "pod", "kvd-0", "--force", "--grace-period=0")
                await_condition("another claim", lambda: release.k(
                    "get", "pvc", "data-kvd-0", "-o", "jsonpath={.metadata.uid}",
                    check=False).stdout not in ("", claim) or "the old one, or none")
                await_condition("a new member id", lambda: release.ids().get("kvd-0") not in
                                (ids["kvd-0"], None) or release.ids())
                release.ready(3)
                settle(load)
                after = release.ids()
            # The old one speaks again until its machine hears that it is to end.
            settle(load)
            release.await_members(3)
        judge(release, load, cluster, 3)
        if release.ids() != after:
            raise Failed("the old member came back")
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
        with Load(release.lasting_endpoint()) as load:
            settle(load)
            began = time.monotonic()
            release.uninstall()
            await_condition("no pod", lambda: not release.pods() or "pods are left")
            took = time.monotonic() - began
            release.install()
            settle(load)
        judge(release, load, cluster, 3)
        if release.ids() != ids:
            raise Failed("other members")
        if took >= options.uninstall_within:
            raise Failed(f"uninstalling took {took:.0f} s")
        return [f"uninstalled in {took:.0f} s", load.report()]


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


def s20(options):
    """an old copy of a volume is put back: of one member, then of all at once"""
    with Release(options, "kvd-s20") as release:
        release.install()
        cluster, ids = release.cluster_id(), release.ids()
        with release.load() as load:
            settle(load)
            release.hold_down("kvd-2")
            release.in_volume("kvd-2", "cp -a /volume/data /volume/copy")
            release.k("delete", "pod", "kvd-2")
            release.ready(3)
            settle(load)
            release.hold_down("kvd-2")
            release.in_volume("kvd-2", "rm -r /volume/data && mv /volume/copy /volume/data")
            release.k("delete", "pod", "kvd-2")
            await_condition("the old copy to be found out", lambda: (
                "is older than what its member acknowledged" in release.log("kvd-2")) or "silent")
            await_condition("a new member id", lambda: release.ids().get("kvd-2") not in
                            (ids["kvd-2"], None) or release.ids())
            release.ready(3)
            settle(load)
        judge(release, load, cluster, 3)

        # All of them: nobody is left who knows better, and nothing is thrown away.
        ids = release.ids()
        kvctl(release.endpoint(), "put", "before", "yes")
        claims = sorted(ids)

        def with_all_down(command):
            release.scale(0)
            await_condition("no pod", lambda: not release.pods() or "pods are left")
            for pod in claims:
                release.in_volume(pod, command)
            release.scale(3)
            release.ready(3)
        with_all_down("cp -a /volume/data /volume/copy")
        kvctl(release.endpoint(), "put", "after", "yes")
        with_all_down("rm -r /volume/data && mv /volume/copy /volume/data")
        release.await_members(3)
        if release.cluster_id() != cluster or release.ids() != ids:
            raise Failed("another cluster, or other members")
        if "yes" not in kvctl(release.endpoint(), "get", "before").stdout:
            raise Failed("what the copies held is gone")
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
        cluster = release.cluster_id()
        with release.load() as load:
            settle(load)
            release.scale(5)
            await_condition("pods that are not wanted", lambda: all(
                "not wanted" in release.log(pod) for pod in ("kvd-3", "kvd-4")) or "silent")
            release.await_members(3)
            settle(load)
            release.install(replicaCount=5, wait=False, **file)
            release.await_members(5)
            release.ready(5)
            settle(load)
        judge(release, load, cluster, 5)
        return [load.report()]


def not_yet(reason):
    def scenario(_):
        raise Skipped(reason)
    scenario.__doc__ = f"not yet: {reason}"
    return scenario


ALL = {
    "S01": s01,
    "installs": installs,
    "S02": s02,
    "S03": not_yet("failpoints are not built yet; the crash points of founding run in simulation"),
    "S04": s04, "S05": s05, "S06": s06, "S06b": s06b, "S07": s07, "S08": s08,
    "S08-machine": s08_machine,
    "S09": s09,
    "S10": not_yet("kvctl recover plan is not there yet"),
    "S11": not_yet("kvctl cluster forget is not there yet"),
    "S12": s12, "S13": s13, "S14": s14,
    "S15": s15, "S16": s16, "S16-power": s16_power, "S16-pause": s16_pause,
    "S16-twin": s16_twin,
    "S17": s17, "S18": s18, "S19": s19,
    "S20": s20, "S21": s21, "S22": s22,
}


def run(name, options):
    if sh("kubectl", "version", check=False).returncode != 0:
        raise Skipped("no cluster answers; set KUBECONFIG")
    return ALL[name](options)
