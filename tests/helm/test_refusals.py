"""Invalid values are refused before anything is installed, and the message names them."""

import pytest

import chart
from chart import OPEN, merge
from test_values import CERT, INGRESS, ISSUER, JWKS, JWT, KEDA, KNOWN, SCALED, TLS

PROCESS = {"name": "a", "runner": "process", "argv": ["/bin/true"]}
REFUSED = {
    "two servers on one embedded store": ({"replicas": 2}, "replicas"),
    "a mistyped value": ({"replicaCount": 1}, "replicaCount"),
    "a mistyped value in a group": ({"persistence": {"sise": "1Gi"}}, "sise"),
    "no authentication without auth.insecure": ({"auth": {"tokens": {"enabled": False}}}, "insecure"),
    "auth.insecure together with tokens": ({"auth": {"insecure": True}}, "insecure"),
    "no authentication on a load balancer": (merge(OPEN, {"service": {"type": "LoadBalancer"}}), "type"),
    "a token Secret although tokens are off": (
        merge(JWT, {"auth": {"tokens": {"enabled": False, "existingSecret": "keys"}}}), "existingSecret"),
    "a JWT without keys": ({"config": {"auth": {"jwt": ISSUER}}}, "jwks_url"),
    "JWT keys from two sources": (merge(JWT, JWKS), "jwt"),
    "JWT keys without JWT settings": ({"auth": {"jwksSecret": "jwks"}}, "config"),
    "roles for client certificates without a client CA": (
        {"config": {"auth": {"certificate": [{"subject": "*", "role": "viewer", "namespaces": ["*"]}]}}},
        "clientCaSecret"),
    "TLS without a certificate": ({"tls": {"enabled": True}}, "existingSecret"),
    "a certificate without TLS": ({"tls": {"existingSecret": "cert"}}, "existingSecret"),
    "a client CA without TLS": ({"tls": {"clientCaSecret": "ca"}}, "clientCaSecret"),
    "revocation lists without a client CA": (merge(TLS, {"tls": {"clientCrlKey": "ca.crl"}}), "clientCaSecret"),
    "revocation lists from two sources": (
        merge(KNOWN, {"tls": {"clientCrlKey": "ca.crl"}, "config": {"tls": {"client_crl": "/x"}}}), "not"),
    "two certificates": (merge(CERT, TLS), "existingSecret"),
    "cert-manager without an issuer": ({"tls": {"enabled": True, "certManager": {"enabled": True}}}, "issuer"),
    "an existing claim without persistence": ({"persistence": {"enabled": False, "existingClaim": "kept"}}, "existingClaim"),
    "an Ingress without a host": ({"ingress": {"enabled": True, "tlsSecret": "edge"}}, "host"),
    "an Ingress without a certificate": ({"ingress": {"enabled": True, "host": "a.example"}}, "tlsSecret"),
    "a route without a gateway": ({"grpcRoute": {"enabled": True}}, "parentRefs"),
    "headers without an endpoint": ({"otel": {"headersSecret": "collector"}}, "endpoint"),
    "an unknown metric": ({"keda": {"scaledObjects": [SCALED | {"metric": "unknown"}]}}, "metric"),
    "scaling without a maximum": (
        {"keda": {"scaledObjects": [{k: v for k, v in SCALED.items() if k != "maxReplicas"}]}}, "maxReplicas"),
    "a certificate for KEDA without a client CA": (
        merge(KEDA, {"keda": {"certificateSecret": "keda"}}), "clientCaSecret"),
    "a certificate for KEDA without ScaledObjects": (
        merge(KNOWN, {"keda": {"certificateSecret": "keda"}}), "scaledObjects"),
    "an unknown setting of the server": ({"config": {"pool": [{"name": "a", "sise": 4}]}}, "sise"),
    "a setting that the chart sets": ({"config": {"server": {"listen": "127.0.0.1:1"}}}, "listen"),
    "a path that the chart sets": ({"config": {"auth": {"tokens_file": "/x"}}}, "tokens_file"),
    "a setting of the wrong type": ({"config": {"pool": [{"name": "a", "size": "many"}]}}, "size"),
    "the root user": ({"securityContext": {"runAsUser": 0}}, "runAsUser"),
    "a user of a handler without the capabilities for it": ({"config": {"handler": [PROCESS | {"user": "2000"}]}}, "user"),
    "a program that would run as root": (
        {"config": {"handler": [PROCESS]}, "securityContext": {"handlerUsers": True}}, "user"),
    "a tag that no image can have": ({"image": {"tag": "1.0 rc"}}, "tag"),
    "a variable whose value is a number": ({"extraEnv": [{"name": "LIMIT", "value": 5}]}, "value"),
    "an incomplete digest": ({"image": {"digest": "sha256:12"}}, "digest"),
    "a grace period of days": ({"drain": {"limitSeconds": 1_000_000}}, "limitSeconds"),
}


@pytest.mark.parametrize("helm", chart.HELMS, ids=["helm3", "helm4"])
@pytest.mark.parametrize("what", REFUSED)
def test_invalid_values_are_refused(what, helm):
    values, named = REFUSED[what]
    with pytest.raises(chart.Refused) as refused:
        chart.render(values, helm)
    assert named in str(refused.value)
    assert "schema" in str(refused.value)


def test_the_base_values_render():
    """So the cases above are refused only for the stated reason."""
    for values in (OPEN, JWT, JWKS, TLS, CERT, INGRESS, KEDA, KNOWN, merge(KNOWN, KEDA)):
        assert chart.render(values)
