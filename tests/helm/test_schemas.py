"""Every mode renders with each version of Helm to objects that several versions of Kubernetes accept."""

import json
import os
import subprocess

import kubernetes_validate
import pytest
import yaml

import chart

# The oldest supported version, one in between, and the two newest.
VERSIONS = ["1.30", "1.33", "1.36", "1.37"]
CUSTOM = ("cert-manager.io", "gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com")

modes = pytest.mark.parametrize("mode", chart.MODES, ids=lambda path: path.stem.removesuffix("-values"))


def values(mode):
    return yaml.safe_load(mode.read_text())


def is_custom(document):
    return document["apiVersion"].split("/")[0] in CUSTOM


def test_there_are_enough_modes():
    assert len(chart.MODES) >= 8


@modes
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_the_objects(mode, version):
    documents = [d for d in chart.render(values(mode)) if not is_custom(d)]
    assert documents
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_refuse_a_wrong_field(version):
    statefulset = chart.only(chart.render({}), "StatefulSet")
    statefulset["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(statefulset, version, strict=True)


NUMERIC = {
    "nameOverride": "123", "clusterDomain": "123",
    "image": {"tag": "123", "pullSecrets": ["123"]},
    "persistence": {"storageClass": "123", "size": "10"},
    "service": {"appProtocol": "123"},
    "auth": {"tokens": {"existingSecret": "123", "key": "123"}, "jwksSecret": "123"},
    "config": {"auth": {"jwt": {"issuer": "https://idp.example", "audience": "123"},
                        "certificate": [{"subject": "123", "role": "viewer", "namespaces": ["*"]}]}},
    "tls": {"enabled": True, "clientCaSecret": "123", "clientCrlKey": "123",
            "certManager": {"enabled": True, "issuer": "123", "dnsNames": ["123"]}},
    "otel": {"endpoint": "http://collector:4317", "headersSecret": "123", "resourceAttributes": {"a": "123"}},
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"a": "123"}},
                "prometheusRule": {"enabled": True, "labels": {"a": "123"}},
                "dashboard": {"enabled": True, "labels": {"a": "123"}, "folder": "123"}},
    "keda": {"certificateSecret": "123", "scaledObjects": [
        {"name": "123", "target": "123", "pool": "123", "metric": "load", "value": 1, "maxReplicas": 1}]},
    "ingress": {"enabled": True, "host": "123", "tlsSecret": "123", "className": "123", "annotations": {"a": "123"}},
    "grpcRoute": {"enabled": True, "parentRefs": [{"name": "123"}], "hostnames": ["123"]},
    "podDisruptionBudget": {"enabled": True},
    "serviceAccount": {"name": "123", "annotations": {"a": "123"}},
    "podLabels": {"a": "123"}, "podAnnotations": {"a": "123"}, "nodeSelector": {"a": "123"}, "priorityClassName": "123",
    "test": {"tokenSecret": "123", "tokenKey": "123", "caSecret": "123", "certificateSecret": "123"},
}
# Instead of a volume and a Secret of the chart.
NUMERIC_NAMES = {"fullnameOverride": "123", "persistence": {"existingClaim": "123"}}


@pytest.mark.parametrize("digits", ["123", "1e3", "0x1f"])
@pytest.mark.parametrize("more", [{}, NUMERIC_NAMES], ids=["templates", "names"])
def test_texts_that_look_like_numbers_stay_texts(digits, more):
    values_of_digits = json.loads(json.dumps(chart.merge(NUMERIC, more)).replace("123", digits))
    documents = chart.render(values_of_digits, release=digits, namespace=digits)
    for document in documents:
        if not is_custom(document):
            kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
    done = check_custom([document for document in documents if is_custom(document)])
    assert done.returncode == 0, done.stderr


def check_custom(documents):
    command = ["node", os.environ["CRD_CHECKER"]]
    return subprocess.run(command, input=json.dumps(documents), capture_output=True, text=True, check=False)


def test_operators_accept_their_resources():
    documents = [d for mode in chart.MODES for d in chart.render(values(mode)) if is_custom(d)]
    kinds = {d["kind"] for d in documents}
    assert kinds == {
        "Certificate", "GRPCRoute", "PrometheusRule", "ScaledObject", "ServiceMonitor", "TriggerAuthentication"}
    done = check_custom(documents)
    assert done.returncode == 0, done.stderr


def test_the_operator_schemas_refuse_wrong_fields():
    monitor = next(d for d in chart.render({"metrics": {"serviceMonitor": {"enabled": True}}}) if is_custom(d))
    monitor["spec"]["endpoints"][0]["port"] = 7071
    assert "port must be string" in check_custom([monitor]).stderr
    monitor["spec"]["endpoints"][0] = {"port": "health", "pathh": "/metrics"}
    assert "'pathh\"' does not exist" in check_custom([monitor]).stderr.replace("'\"", "'")
    monitor["kind"] = "ServiceMonitors"
    assert "no schema" in check_custom([monitor]).stderr


@modes
def test_both_helms_render_the_same(mode):
    by_helm = [sorted((d["kind"], d["metadata"]["name"], chart.normal(d)) for d in chart.render(values(mode), helm))
               for helm in chart.HELMS]
    assert by_helm[0] == by_helm[1]
