"""Whether Kubernetes' own schemas know every field that the chart and k8s/ make."""

import subprocess
import unittest

from cases import CASES
from helm import PEERS, ROOT, Helm, skip, tool

# Kinds of others, which the schemas do not know.
FOREIGN = "ServiceMonitor,PodMonitor,Kustomization"


class FieldsTest(unittest.TestCase):
    def conform(self, text):
        schemas = (f"{PEERS}/schemas/standalone{{{{.StrictSuffix}}}}/"
                   "{{.ResourceKind}}{{.KindSuffix}}.json")
        result = subprocess.run(
            [KUBECONFORM, "-strict", "-summary", "-skip", FOREIGN, "-schema-location", schemas],
            input=text, capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_of_the_chart(self):
        for case, (values, files) in CASES.items():
            with self.subTest(case):
                self.conform(Helm(HELM).template(values, files=files))

    def test_of_the_plain_manifests(self):
        paths = sorted((ROOT / "k8s").glob("*/*.yaml"))
        self.assertTrue(paths)
        for path in paths:
            with self.subTest(path):
                self.conform(path.read_text())


HELM = tool("helm")
KUBECONFORM = tool("kubeconform")
if HELM is None or KUBECONFORM is None or not (PEERS / "schemas").exists():
    skip("fields are not checked against Kubernetes' schemas: no helm, kubeconform or schemas")

if __name__ == "__main__":
    unittest.main(verbosity=2)
