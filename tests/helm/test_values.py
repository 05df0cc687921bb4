"""Every value in values.yaml has an effect."""

import re

import pytest
import yaml

import chart
import generate_schema
from chart import CHART, merge, tree

PEER = [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]
GRANT = {"claim": "groups", "value": "team", "role": "submitter", "namespaces": ["*"]}
ISSUER = {"issuer": "https://id.example", "audience": "lineshaft", "grant": [GRANT]}
JWT = {"config": {"auth": {"jwt": ISSUER | {"jwks_url": "https://id.example/keys"}}}}
JWKS = {"config": {"auth": {"jwt": ISSUER}}, "auth": {"jwksSecret": "jwks"}}
TLS = {"tls": {"enabled": True, "existingSecret": "cert"}}
CERT = {"tls": {"enabled": True, "certManager": {"enabled": True, "issuer": "ca"}}}
OTLP = {"otel": {"endpoint": "http://collector.watch:4317"}}
INGRESS = {"ingress": {"enabled": True, "host": "tasks.example", "tlsSecret": "edge"}}
ROUTE = {"grpcRoute": {"enabled": True, "parentRefs": [{"name": "edge"}]}}
BUDGET = {"podDisruptionBudget": {"enabled": True}}
MONITOR = {"metrics": {"serviceMonitor": {"enabled": True}}}
RULES = {"metrics": {"prometheusRule": {"enabled": True}}}
DASHBOARD = {"metrics": {"dashboard": {"enabled": True}}}
VIEWER = {"subject": "keda-operator", "role": "viewer", "namespaces": ["*"]}
KNOWN = {"tls": TLS["tls"] | {"clientCaSecret": "callers"}, "config": {"auth": {"certificate": [VIEWER]}}}
SCALED = {"name": "render", "target": "render", "pool": "reports", "metric": "queued", "value": 5, "maxReplicas": 4}

KEDA = {"keda": {"scaledObjects": [SCALED]}}

# For each value: another setting, the values under which it has an effect, and values that must change with it.
FLIPS = {
    "nameOverride": ("other", {}),
    "fullnameOverride": ("other", {}),
    "clusterDomain": ("corp.local", CERT),
    "image.repository": ("registry.example/lineshaft", {}),
    "image.tag": ("0.1.0-rc1", {}),
    "image.digest": ("sha256:" + "ab" * 32, {}),
    "image.pullPolicy": ("Always", {}),
    "image.pullSecrets": (["registry"], {}),
    "replicas": (0, {}),
    "drain.limitSeconds": (120, {}),
    "drain.preStopSeconds": (0, {}),
    "config": ({"pool": [{"name": "default", "size": 3}]}, {}),
    "listenAddress": ("::", {}),
    "persistence.enabled": (False, {}),
    "persistence.size": ("1Ti", {}),
    "persistence.storageClass": ("fast", {}),
    "persistence.accessMode": ("ReadWriteOnce", {}),
    "persistence.existingClaim": ("kept", {}),
    "persistence.annotations": ({"backup": "nightly"}, {}),
    "persistence.whenDeleted": ("Delete", {}),
    "service.type": ("LoadBalancer", {}),
    "service.port": (443, {}),
    "service.appProtocol": ("kubernetes.io/h2c", {}),
    "service.annotations": ({"a": "b"}, {}),
    "auth.insecure": (True, {}, {"auth": {"tokens": {"enabled": False}}}),
    "auth.tokens.enabled": (False, JWT),
    "auth.tokens.existingSecret": ("keys", {}),
    "auth.tokens.key": ("hashes", {"auth": {"tokens": {"existingSecret": "keys"}}}),
    "auth.jwksSecret": ("other", JWKS),
    "tls.enabled": (True, {}, {"tls": {"existingSecret": "cert"}}),
    "tls.existingSecret": ("other", TLS),
    "tls.clientCaSecret": ("ca", TLS),
    "tls.clientCrlKey": ("lists.pem", KNOWN),
    "tls.certManager.enabled": (True, merge(TLS, {"tls": {"certManager": {"issuer": "ca"}}}), tree("tls.existingSecret", "")),
    "tls.certManager.issuer": ("other", CERT),
    "tls.certManager.issuerKind": ("Issuer", CERT),
    "tls.certManager.dnsNames": (["tasks.example"], CERT),
    "tls.certManager.duration": ("24h", CERT),
    "tls.certManager.renewBefore": ("8h", CERT),
    "otel.endpoint": ("https://collector.watch", {}),
    "otel.protocol": ("http/protobuf", OTLP),
    "otel.headersSecret": ("collector", OTLP),
    "otel.resourceAttributes": ({"deployment.environment.name": "test"}, OTLP),
    "metrics.serviceMonitor.enabled": (True, {}),
    "metrics.serviceMonitor.interval": ("1m", MONITOR),
    "metrics.serviceMonitor.labels": ({"release": "prometheus"}, MONITOR),
    "metrics.prometheusRule.enabled": (True, {}),
    "metrics.prometheusRule.labels": ({"release": "prometheus"}, RULES),
    "metrics.dashboard.enabled": (True, {}),
    "metrics.dashboard.labels": ({"grafana_dashboard": "yes"}, DASHBOARD),
    "metrics.dashboard.folder": ("Tasks", DASHBOARD),
    "keda.scaledObjects": ([SCALED], {}),
    "keda.certificateSecret": ("caller", merge(KNOWN, KEDA)),
    "networkPolicy.enabled": (False, {}),
    "networkPolicy.callersFrom": (PEER, {}),
    "networkPolicy.monitoringFrom": (PEER, {}),
    "networkPolicy.kedaFrom": (PEER, KEDA),
    "networkPolicy.egress": ([{"ports": [{"port": 443}]}], {}),
    "ingress.enabled": (True, {"ingress": {"host": "tasks.example", "tlsSecret": "edge"}}),
    "ingress.className": ("nginx", INGRESS),
    "ingress.host": ("other.example", INGRESS),
    "ingress.tlsSecret": ("other", INGRESS),
    "ingress.annotations": ({"a": "b"}, INGRESS),
    "grpcRoute.enabled": (True, {"grpcRoute": {"parentRefs": [{"name": "edge"}]}}),
    "grpcRoute.parentRefs": ([{"name": "other"}], ROUTE),
    "grpcRoute.hostnames": (["tasks.example"], ROUTE),
    "podDisruptionBudget.enabled": (True, {}),
    "podDisruptionBudget.maxUnavailable": (1, BUDGET),
    "probes.startup.periodSeconds": (7, {}),
    "probes.startup.failureThreshold": (7, {}),
    "probes.liveness.periodSeconds": (7, {}),
    "probes.liveness.failureThreshold": (7, {}),
    "probes.readiness.periodSeconds": (7, {}),
    "probes.readiness.failureThreshold": (7, {}),
    "resources": ({"requests": {"cpu": "2"}}, {}),
    "securityContext.runAsUser": (1000, {}),
    "securityContext.runAsGroup": (1000, {}),
    "securityContext.fsGroup": (None, {}),
    "securityContext.handlerUsers": (True, {}),
    "tmpSize": ("8Gi", {}),
    "serviceAccount.create": (False, {}),
    "serviceAccount.name": ("other", {}),
    "serviceAccount.annotations": ({"a": "b"}, {}),
    "podLabels": ({"team": "a"}, {}),
    "podAnnotations": ({"a": "b"}, {}),
    "extraEnv": ([{"name": "TOKEN", "value": "x"}], {}),
    "extraEnvFrom": ([{"secretRef": {"name": "more"}}], {}),
    "extraVolumes": ([{"name": "programs", "emptyDir": {}}], {}),
    "extraVolumeMounts": ([{"name": "tmp", "mountPath": "/more"}], {}),
    "nodeSelector": ({"disk": "nvme"}, {}),
    "tolerations": ([{"operator": "Exists"}], {}),
    "affinity": ({"nodeAffinity": {}}, {}),
    "priorityClassName": ("high", {}),
    "test.tokenSecret": ("mine", {}),
    "test.tokenKey": ("key", {}),
    "test.caSecret": ("ca", {}),
    "test.certificateSecret": ("caller", {}),
}

VALUES = (CHART / "values.yaml").read_text()
DEFAULTS = {path: default for path, default, _ in generate_schema.leaves(VALUES)}
ITEM = generate_schema.SCALED_OBJECT["properties"]
SCALED_FLIPS = {
    "name": "other", "target": "other", "pool": "other", "metric": "oldest_wait", "value": 0.5, "minReplicas": 1,
    "maxReplicas": 5, "cooldownSeconds": 30,
}


def test_every_value_is_tested():
    assert set(FLIPS) == set(DEFAULTS)
    assert set(SCALED_FLIPS) == set(ITEM)


@pytest.mark.parametrize("path", FLIPS)
def test_a_value_changes_the_rendered_objects(path):
    value, base, *also = FLIPS[path]
    assert value != DEFAULTS[path]
    flipped = merge(base, tree(path, value))
    for more in also:
        flipped = merge(flipped, more)
    before, after = chart.text(base), chart.text(flipped)
    assert before != after, f"{path} = {value!r} has no effect"


@pytest.mark.parametrize("key", SCALED_FLIPS)
def test_a_key_of_a_scaled_object_changes_the_rendered_objects(key):
    with_items = lambda item: chart.text(tree("keda.scaledObjects", [item]))
    assert with_items(SCALED) != with_items(SCALED | {key: SCALED_FLIPS[key]})


def test_templates_use_only_values_that_exist():
    """Compares `.Values.a.b` in every template with values.yaml."""
    values = yaml.safe_load(VALUES)
    asked = set()
    for template in CHART.glob("templates/**/*"):
        if template.is_file():
            asked |= set(re.findall(r"\.Values\.([A-Za-z.]*[A-Za-z])", template.read_text()))
    assert len(asked) > 50
    for path in sorted(asked):
        node = values
        for key in path.split("."):
            if path.startswith("config."):
                break
            assert isinstance(node, dict) and key in node, f".Values.{path} is not in values.yaml"
            node = node[key]
