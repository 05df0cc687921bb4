"""Values that cannot work are refused before anything is installed, and the message says which."""

import pytest

import chart
from chart import OPEN, laid_over
from test_values import CERT, INGRESS, ISSUER, JWKS, JWT, KEDA, KNOWN, SCALED, TLS

REFUSED = {
    "two servers on one embedded store": ({"replicas": 2}, "replicas"),
    "a typing error": ({"replicaCount": 1}, "replicaCount"),
    "a typing error in a group": ({"persistence": {"sise": "1Gi"}}, "sise"),
    "nobody is let in and nobody said that all are": ({"auth": {"tokens": {"enabled": False}}}, "insecure"),
    "everybody is let in although tokens are checked": ({"auth": {"insecure": True}}, "insecure"),
    "everybody of the whole world is let in": (laid_over(OPEN, {"service": {"type": "LoadBalancer"}}), "type"),
    "tokens of a Secret although tokens are off": (
        laid_over(JWT, {"auth": {"tokens": {"enabled": False, "existingSecret": "keys"}}}), "existingSecret"),
    "a JWT without keys": ({"config": {"auth": {"jwt": ISSUER}}}, "jwks_url"),
    "keys from two places": (laid_over(JWT, JWKS), "jwt"),
    "keys of nobody": ({"auth": {"jwksSecret": "jwks"}}, "config"),
    "callers' certificates that nobody checks": (
        {"config": {"auth": {"certificate": [{"subject": "*", "role": "viewer", "namespaces": ["*"]}]}}},
        "clientCaSecret"),
    "TLS without a certificate": ({"tls": {"enabled": True}}, "existingSecret"),
    "a certificate that is not used": ({"tls": {"existingSecret": "cert"}}, "existingSecret"),
    "callers' certificates without TLS": ({"tls": {"clientCaSecret": "ca"}}, "clientCaSecret"),
    "revocation lists of no CA": (laid_over(TLS, {"tls": {"clientCrlKey": "ca.crl"}}), "clientCaSecret"),
    "revocation lists from two places": (
        laid_over(KNOWN, {"tls": {"clientCrlKey": "ca.crl"}, "config": {"tls": {"client_crl": "/x"}}}), "not"),
    "two certificates": (laid_over(CERT, TLS), "existingSecret"),
    "cert-manager without an issuer": ({"tls": {"enabled": True, "certManager": {"enabled": True}}}, "issuer"),
    "a claim that is not mounted": ({"persistence": {"enabled": False, "existingClaim": "kept"}}, "existingClaim"),
    "an Ingress without a host": ({"ingress": {"enabled": True, "tlsSecret": "edge"}}, "host"),
    "an Ingress without a certificate": ({"ingress": {"enabled": True, "host": "a.example"}}, "tlsSecret"),
    "a route of no gateway": ({"grpcRoute": {"enabled": True}}, "parentRefs"),
    "headers to nowhere": ({"otel": {"headersSecret": "collector"}}, "endpoint"),
    "an unknown metric": ({"keda": {"scaledObjects": [SCALED | {"metric": "mood"}]}}, "metric"),
    "scaling without a bound": (
        {"keda": {"scaledObjects": [{k: v for k, v in SCALED.items() if k != "maxReplicas"}]}}, "maxReplicas"),
    "a certificate for KEDA that nobody checks": (
        laid_over(KEDA, {"keda": {"certificateSecret": "keda"}}), "clientCaSecret"),
    "a certificate for KEDA, which scales nothing": (
        laid_over(KNOWN, {"keda": {"certificateSecret": "keda"}}), "scaledObjects"),
    "a setting that the server does not know": ({"config": {"pool": [{"name": "a", "sise": 4}]}}, "sise"),
    "a setting that the chart owns": ({"config": {"server": {"listen": "127.0.0.1:1"}}}, "listen"),
    "a file that the chart mounts": ({"config": {"auth": {"tokens_file": "/x"}}}, "tokens_file"),
    "a wrong kind of setting": ({"config": {"pool": [{"name": "a", "size": "many"}]}}, "size"),
    "root": ({"securityContext": {"runAsUser": 0}}, "runAsUser"),
    "half a digest": ({"image": {"digest": "sha256:12"}}, "digest"),
    "a grace of days": ({"drain": {"limitSeconds": 1_000_000}}, "limitSeconds"),
}


@pytest.mark.parametrize("helm", chart.HELMS, ids=["helm3", "helm4"])
@pytest.mark.parametrize("what", REFUSED)
def test_is_refused(what, helm):
    values, named = REFUSED[what]
    with pytest.raises(chart.Refused) as refused:
        chart.render(values, helm)
    assert named in str(refused.value)
    assert "schema" in str(refused.value)


def test_what_is_refused_is_so_for_that_reason_alone():
    """The bases of the refusals above do render."""
    for values in (OPEN, JWT, JWKS, TLS, CERT, INGRESS, KEDA, KNOWN, laid_over(KNOWN, KEDA)):
        assert chart.render(values)
