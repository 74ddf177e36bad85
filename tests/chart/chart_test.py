"""What the chart promises, checked over what helm makes of it.

KVD_REWRITE=1 writes the golden renders anew; read the difference before you keep it.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

from bad_values import BAD
from cases import CASES
from helm import CHART, ROOT, Helm, Refused, skip, tool

BIN = pathlib.Path(os.environ.get("KVD_BIN", ROOT / "build/release/bin"))
GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"


def pod_of(objects, name="kvd"):
    return objects["StatefulSet", name]["spec"]["template"]


def settings_of(objects, name="kvd"):
    return yaml.safe_load(objects["ConfigMap", name]["data"]["kvd.yaml"])


def runtime_settings_of(objects, name="kvd"):
    return yaml.safe_load(objects["ConfigMap", f"{name}-runtime"]["data"]["kvd.yaml"])


def flags_of_kvd():
    """Those that do something."""
    said = subprocess.run([BIN / "kvd", "--help"], capture_output=True, text=True).stdout
    return set(re.findall(r"^  --([a-z-]+)", said.split("Other:")[0], re.M))


def lines(text):
    """Without the empty ones, in which Helm 3 and Helm 4 differ."""
    return [line for line in text.splitlines() if line]


class ChartTest(unittest.TestCase):
    def setUp(self):
        self.helm = Helm(HELM)

    def render(self, values=None, **options):
        return self.helm.objects(values, **options)

    def test_the_renders_are_those_that_were_read(self):
        for case, (values, files) in CASES.items():
            with self.subTest(case):
                text = self.helm.template(values, files=files)
                golden = GOLDEN / f"{case}.yaml"
                if os.environ.get("KVD_REWRITE"):
                    golden.write_text(text)
                self.assertEqual(lines(text), lines(golden.read_text()))

    def test_two_renders_are_the_same(self):
        for values, files in CASES.values():
            self.assertEqual(self.helm.template(values, files=files),
                             self.helm.template(values, files=files))

    def test_members_that_are_not_ready_are_found_by_members_only(self):
        objects = self.render()
        self.assertTrue(objects["Service", "kvd-peer"]["spec"]["publishNotReadyAddresses"])
        self.assertEqual(objects["StatefulSet", "kvd"]["spec"]["serviceName"], "kvd-peer")
        for service in ("kvd", "kvd-headless"):
            self.assertNotIn("publishNotReadyAddresses", objects["Service", service]["spec"])

    def test_the_rights_are_two_named_objects(self):
        rules = self.render()["Role", "kvd"]["rules"]
        self.assertEqual(rules, [
            {"apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": ["kvd"],
             "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["kvd-cluster"],
             "verbs": ["get", "patch"]}])

    def test_who_does_not_ask_the_api_server_gets_no_token(self):
        for source in ("file", "none"):
            objects = self.render({"membership": {"desiredReplicas": {"source": source}},
                                   "rbac": {"create": False}})
            self.assertNotIn("serviceAccountToken", yaml.dump(pod_of(objects)))
            self.assertFalse([key for key in objects if key[0] in ("Role", "RoleBinding")])
        objects = self.render()
        self.assertFalse(pod_of(objects)["spec"]["automountServiceAccountToken"])
        self.assertIn("serviceAccountToken", yaml.dump(pod_of(objects)))

    def test_scaling_restarts_nobody(self):
        for source in ("apiserver", "file"):
            pods = [pod_of(self.render({"replicaCount": count,
                                        "membership": {"desiredReplicas": {"source": source}}}))
                    for count in (0, 1, 3, 5, 7)]
            for pod in pods:
                self.assertEqual(pod, pods[0])

    def test_a_changed_setting_restarts_the_members(self):
        annotations = [pod_of(self.render(values))["metadata"]["annotations"]["checksum/config"]
                       for values in ({}, {"raft": {"electionTimeout": 2000}})]
        self.assertNotEqual(*annotations)

    def test_quota_and_log_level_restart_nobody(self):
        plain = self.render()
        changed = self.render({"logLevel": "debug", "storage": {"quotaBackendBytes": "1Gi"}})
        self.assertEqual(pod_of(plain), pod_of(changed))
        self.assertEqual(runtime_settings_of(changed),
                         {"log-level": "debug", "quota-backend-bytes": 2**30})

    def test_the_budget_is_one_whatever_the_count(self):
        for count in (1, 3, 5):
            budget = self.render({"replicaCount": count})["PodDisruptionBudget", "kvd"]["spec"]
            self.assertEqual(budget["maxUnavailable"], 1)

    def test_no_file_is_mounted_by_subpath(self):
        for values, files in CASES.values():
            self.assertNotIn("subPath", self.helm.template(values, files=files))

    def test_the_selector_never_changes(self):
        wanted = {"app.kubernetes.io/name": "kvd", "app.kubernetes.io/instance": "kvd",
                  "app.kubernetes.io/component": "server"}
        for values, files in CASES.values():
            objects = self.render(values, files=files)
            spec = objects["StatefulSet", "kvd"]["spec"]
            self.assertEqual(spec["selector"]["matchLabels"], wanted)
            self.assertLessEqual(wanted.items(), spec["template"]["metadata"]["labels"].items())
            for (kind, _), thing in objects.items():
                if kind == "Service":
                    self.assertEqual(thing["spec"]["selector"], wanted)

    def test_volume_claims_carry_nothing_that_changes(self):
        claim = self.render()["StatefulSet", "kvd"]["spec"]["volumeClaimTemplates"][0]
        self.assertEqual(claim["metadata"], {"name": "data"})

    def test_names_stay_short_and_apart(self):
        long = [{"name": "r" * 53}, {"name": "r" * 52 + "q"}, {"name": "r" * 53, "other": "x" * 63},
                {"name": "r" * 53, "other": "x" * 62 + "y"}]
        seen = set()
        for one in long:
            values = {"fullnameOverride": one["other"]} if "other" in one else {}
            objects = self.helm.objects(values, name=one["name"])
            for kind, name in objects:
                self.assertLessEqual(len(name), 52, (kind, name))
            self.assertFalse(seen & set(objects))
            seen |= set(objects)

    def test_a_name_that_no_service_may_have_is_refused(self):
        for release in ("1kvd", "my.kvd"):
            with self.assertRaises(Refused) as refused:
                self.helm.template(name=release)
            self.assertIn("set fullnameOverride", str(refused.exception))

    def test_the_test_pod_reaches_the_members(self):
        objects = self.render({"networkPolicy": {"allowClientsFrom": [{"podSelector": {}}]}})
        labels = objects["Pod", "kvd-test"]["metadata"]["labels"]
        allowed = [peer for rule in objects["NetworkPolicy", "kvd"]["spec"]["ingress"]
                   for peer in rule.get("from", [])]
        self.assertIn({"podSelector": {"matchLabels": labels}}, allowed)
        everybody = self.render()["NetworkPolicy", "kvd"]["spec"]["ingress"]
        self.assertIn([{"port": "client", "protocol": "TCP"}],
                      [rule["ports"] for rule in everybody if "from" not in rule])

    def test_the_namespace_can_be_another(self):
        for (kind, name), thing in self.render({"namespaceOverride": "other"}).items():
            self.assertEqual(thing["metadata"].get("namespace"), "other", (kind, name))
        settings = settings_of(self.render({"namespaceOverride": "other"}))
        self.assertEqual(settings["kubernetes-namespace"], "other")

    def test_address_families_reach_every_service(self):
        objects = self.render({"service": {"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}})
        for (kind, _), thing in objects.items():
            if kind == "Service":
                self.assertEqual(thing["spec"]["ipFamilies"], ["IPv6"])
                self.assertEqual(thing["spec"]["ipFamilyPolicy"], "SingleStack")

    def test_the_marker_has_no_data(self):
        for values, files in CASES.values():
            marker = self.render(values, files=files).get(("ConfigMap", "kvd-cluster"))
            if marker is not None:
                self.assertNotIn("data", marker)

    def test_there_is_no_hook_but_the_test(self):
        for values, files in CASES.values():
            for (kind, name), thing in self.render(values, files=files).items():
                hook = thing["metadata"].get("annotations", {}).get("helm.sh/hook")
                self.assertEqual(hook, "test" if kind == "Pod" else None, (kind, name))

    def test_every_value_is_used(self):
        text = "".join(path.read_text() for path in (CHART / "templates").rglob("*.*"))
        used = set(re.findall(r"(?:\.Values|\$v|\$root\.Values)\.([A-Za-z.]+)", text))
        for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
            parents = [path[:n] for n in range(1, len(path) + 1)]
            self.assertTrue(any(".".join(p) in used for p in parents), ".".join(path))

    def test_every_setting_is_one_of_kvd(self):
        known = flags_of_kvd()
        for values, files in CASES.values():
            objects = self.render(values, files=files)
            for settings in (settings_of(objects), runtime_settings_of(objects)):
                self.assertLessEqual(set(settings), known)

    def test_every_setting_of_kvd_has_one_place(self):
        for flag in sorted(flags_of_kvd()):
            with self.subTest(flag):
                try:
                    settings = settings_of(self.render({"config": {flag: "1"}}))
                    self.assertEqual(settings[flag], "1")
                    self.assertNotIn(flag, settings_of(self.render()))
                except Refused as refused:
                    self.assertRegex(str(refused), f"config.{flag}: (set [a-zA-Z. ]+ instead"
                                                   "|the chart sets it by itself)")

    def test_retention_is_what_was_meant(self):
        for values, retention in (({}, "1h"), ({"retention": 2}, "2"), ({"retention": "90m"}, "90m"),
                                  ({"mode": "revision", "retention": 10_000_000}, "10000000")):
            settings = settings_of(self.render({"compaction": values}))
            self.assertEqual(settings["auto-compaction-retention"], retention)

    def test_the_quota_is_two_fifths_of_the_volume_unless_said_otherwise(self):
        for values, bytes_ in (({}, 4 * 2**30), ({"persistence": {"size": "1Ti"}}, 2**40 * 2 // 5),
                               ({"storage": {"quotaBackendBytes": "4Gi"}}, 4 * 2**30),
                               ({"storage": {"quotaBackendBytes": 0}}, 0),
                               ({"storage": {"quotaBackendBytes": 2**32}}, 2**32),
                               ({"persistence": {"enabled": False}}, 0)):
            self.assertEqual(runtime_settings_of(self.render(values))["quota-backend-bytes"], bytes_,
                             values)

    def test_without_a_volume_a_lost_cluster_begins_anew(self):
        loss = "bootstrap-on-total-loss"
        self.assertEqual(settings_of(self.render())[loss], "halt")
        self.assertEqual(settings_of(self.render({"persistence": {"enabled": False}}))[loss],
                         "reinitialize")

    def test_the_token_comes_from_a_secret_or_is_the_name(self):
        self.assertEqual(settings_of(self.render())["initial-cluster-token"], "default/kvd")
        for values, secret, key in (
                ({"bootstrap": {"token": "x"}}, "kvd-bootstrap", "token"),
                ({"bootstrap": {"tokenSecret": {"name": "mine", "key": "k"}}}, "mine", "k")):
            objects = self.render(values)
            self.assertNotIn("initial-cluster-token", settings_of(objects))
            env = {e["name"]: e for e in pod_of(objects)["spec"]["containers"][0]["env"]}
            self.assertEqual(env["KVD_INITIAL_CLUSTER_TOKEN"]["valueFrom"]["secretKeyRef"],
                             {"name": secret, "key": key})
            self.assertEqual(("Secret", secret) in objects, secret == "kvd-bootstrap")

    def test_pods_fit_the_restricted_security_level(self):
        for values, files in CASES.values():
            objects = self.render(values, files=files)
            specs = [pod_of(objects)["spec"], objects["Pod", "kvd-test"]["spec"]]
            for spec in specs:
                self.assertTrue(spec["securityContext"]["runAsNonRoot"])
                self.assertEqual(spec["securityContext"]["seccompProfile"]["type"],
                                 "RuntimeDefault")
                self.assertNotIn("hostPID", spec)
                self.assertNotIn("hostPath", yaml.dump(spec))
                self.assertFalse(spec.get("hostNetwork", False))
                for container in spec["containers"]:
                    context = container["securityContext"]
                    self.assertFalse(context["allowPrivilegeEscalation"])
                    self.assertTrue(context["readOnlyRootFilesystem"])
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]})

    def test_bad_values_are_refused_by_name(self):
        self.assertGreaterEqual(len(BAD), 40)
        for values, name in BAD:
            with self.subTest(values):
                with self.assertRaises(Refused) as refused:
                    self.helm.template(values)
                said = str(refused.exception).replace("\n", " ")
                wanted = name if " " in name or "=" in name else name.replace("/", "[/.]")
                self.assertRegex(said, wanted if wanted != name else re.escape(name))

    def test_it_works_below_another_chart(self):
        with tempfile.TemporaryDirectory() as folder:
            parent = pathlib.Path(folder) / "parent"
            (parent / "charts").mkdir(parents=True)
            (parent / "charts/kvd").symlink_to(CHART)
            (parent / "Chart.yaml").write_text(
                "apiVersion: v2\nname: parent\nversion: 1.0.0\n"
                "dependencies: [{name: kvd, version: 0.1.0, condition: kvd.enabled}]\n")
            values = {"global": {"imageRegistry": "r.example", "other": 1},
                      "kvd": {"enabled": True, "replicaCount": 1}}
            objects = self.helm.objects(values, chart=parent)
            image = pod_of(objects)["spec"]["containers"][0]["image"]
            self.assertTrue(image.startswith("r.example/kvd:"), image)
            values["kvd"]["enabled"] = False
            self.assertEqual(self.helm.objects(values, chart=parent), {})

    def test_helm_finds_nothing_to_complain_about(self):
        result = subprocess.run([HELM, "lint", "--strict", "--kube-version", "1.34.0", CHART],
                                capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_the_plain_manifests_need_nothing_that_a_plain_cluster_lacks(self):
        for path in (ROOT / "k8s").glob("*/kvd.yaml"):
            for thing in yaml.safe_load_all(path.read_text()):
                self.assertNotIn("monitoring.coreos.com", thing["apiVersion"], path)

    def test_the_plain_manifests_are_what_the_chart_makes(self):
        result = subprocess.run([sys.executable, ROOT / "k8s/render.py", "--check"],
                                capture_output=True, text=True, env=os.environ | {"KVD_HELM": HELM})
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


def leaves(values, path=()):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


HELM = tool("helm")
if HELM is None:
    skip("there is no helm, and nothing to build it from")

if __name__ == "__main__":
    unittest.main(verbosity=2)
