"""Values that the chart must take, by name: for the golden renders and what holds for all of them."""

from helm import CHART

CASES = {
    "default": ({}, ()),
    "dev": ({}, [CHART / "values-dev.yaml"]),
    "production": ({}, [CHART / "values-production.yaml"]),
    "file-source": ({"membership": {"desiredReplicas": {"source": "file"}},
                     "rbac": {"create": False}}, ()),
    "everything": ({
        "replicaCount": 5, "commonLabels": {"team": "storage"}, "commonAnnotations": {"note": "x"},
        "image": {"registry": "registry.example", "tag": "1.2.3"}, "bootstrap": {"token": "secret"},
        "podLabels": {"pod": "label"}, "podAnnotations": {"pod": "annotation"},
        "nodeSelector": {"disk": "fast"}, "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "high", "extraEnv": [{"name": "A", "value": "b"}],
        "service": {"type": "LoadBalancer", "annotations": {"lb": "y"}, "ipFamilies": ["IPv6"],
                    "ipFamilyPolicy": "PreferDualStack", "trafficDistribution": "PreferClose"},
        "networkPolicy": {"allowClientsFrom": [{"namespaceSelector": {}}]},
        "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
                    "podMonitor": {"enabled": True}},
        "config": {"max-txn-ops": 256}, "persistence": {"storageClass": "fast", "size": "100Gi"},
        "probes": {"readiness": {"periodSeconds": 2}},
        "podTemplate": {"merge": {"spec": {"hostNetwork": False}}},
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}}],
    }, ()),
}
