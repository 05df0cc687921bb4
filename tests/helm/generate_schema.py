#!/usr/bin/env python3
"""Makes what is made of helm/values.yaml: helm/values.schema.json and the table in helm/README.md.

Types come from the defaults, texts from the comments, bounds from the tables below, and the part under
`config` from `lineshaft config schema`, so that a typing error in a pool is refused before anything is
installed. Without `--write` it only compares, and fails when something would change.

    generate_schema.py [--write] LINESHAFT
"""

import json
import pathlib
import re
import subprocess
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parents[2] / "helm"
BEGIN, END = "<!-- values: made by tests/helm/generate_schema.py -->", "<!-- end of values -->"

# Settings that hang on ports, mounts and the grace period: the chart writes them.
OWNED = {
    "Server": ["listen", "health_listen", "insecure", "drain_limit"], "Store": ["directory", "memory"],
    "Tls": ["certificate", "key", "client_ca"], "Auth": ["tokens_file"], "Jwt": ["keys_file"],
}

NAME = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
OPTIONAL_NAME = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
SPAN = r"^([0-9]+(h|m|s|ms))+$"
URL = "^(https?://.+)?$"


def text(**more):
    return {"type": "string", **more}


def whole(low, high):
    return {"type": "integer", "minimum": low, "maximum": high}


def items_of(schema, **more):
    return {"type": "array", "items": schema, **more}


OBJECT = {"type": "object"}
# A reference to a part of a Kubernetes object: the cluster knows its shape.
OBJECTS = items_of(OBJECT)
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}

SCALED_OBJECT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "target", "pool", "metric", "value", "maxReplicas"],
    "properties": {
        "name": text(pattern=NAME, maxLength=40),
        "target": text(pattern=NAME),
        "pool": text(minLength=1, maxLength=64),
        "metric": {"enum": ["load", "queued", "oldest_wait", "utilization"]},
        "value": {"type": "number", "exclusiveMinimum": 0},
        "minReplicas": whole(0, 10000),
        "maxReplicas": whole(1, 10000),
        "cooldownSeconds": whole(1, 86400),
    },
}

# What a value may be, where its default does not tell.
BOUNDS = {
    "nameOverride": text(pattern=OPTIONAL_NAME),
    "fullnameOverride": text(pattern=OPTIONAL_NAME),
    "clusterDomain": text(pattern=NAME),
    "image.repository": text(minLength=1),
    "image.digest": text(pattern="^(sha256:[0-9a-f]{64})?$"),
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.pullSecrets": items_of(text(pattern=NAME)),
    "replicas": whole(0, 1),
    "drain.limitSeconds": whole(0, 86400),
    "drain.preStopSeconds": whole(0, 300),
    "listenAddress": {"enum": ["0.0.0.0", "::"]},
    "persistence.size": text(pattern=QUANTITY),
    "persistence.accessMode": {"enum": ["ReadWriteOncePod", "ReadWriteOnce"]},
    "persistence.whenDeleted": {"enum": ["Retain", "Delete"]},
    "persistence.annotations": STRINGS,
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "service.port": whole(1, 65535),
    "service.annotations": STRINGS,
    "auth.tokens.key": text(minLength=1),
    "tls.clientCrlKey": text(pattern="^[-._A-Za-z0-9]*$", maxLength=253),
    "tls.certManager.issuerKind": {"enum": ["Issuer", "ClusterIssuer"]},
    "tls.certManager.dnsNames": items_of(text(minLength=1)),
    "tls.certManager.duration": text(pattern=SPAN),
    "tls.certManager.renewBefore": text(pattern=SPAN),
    "otel.endpoint": text(pattern=URL),
    "otel.protocol": {"enum": ["grpc", "http/protobuf"]},
    "otel.resourceAttributes": STRINGS,
    "metrics.serviceMonitor.interval": text(pattern=SPAN),
    "metrics.serviceMonitor.labels": STRINGS,
    "metrics.prometheusRule.labels": STRINGS,
    "metrics.dashboard.labels": STRINGS,
    "keda.scaledObjects": items_of(SCALED_OBJECT),
    "keda.certificateSecret": text(pattern=OPTIONAL_NAME),
    "networkPolicy.callersFrom": OBJECTS,
    "networkPolicy.monitoringFrom": OBJECTS,
    "networkPolicy.kedaFrom": OBJECTS,
    "networkPolicy.egress": OBJECTS,
    "ingress.annotations": STRINGS,
    "grpcRoute.parentRefs": OBJECTS,
    "grpcRoute.hostnames": items_of(text(minLength=1)),
    "podDisruptionBudget.maxUnavailable": whole(0, 1),
    "resources": OBJECT,
    "securityContext.runAsUser": {"type": ["integer", "null"], "minimum": 1},
    "securityContext.runAsGroup": {"type": ["integer", "null"], "minimum": 1},
    "securityContext.fsGroup": {"type": ["integer", "null"], "minimum": 1},
    "tmpSize": text(pattern=QUANTITY),
    "serviceAccount.annotations": STRINGS,
    "podLabels": STRINGS,
    "podAnnotations": STRINGS,
    "extraEnv": OBJECTS,
    "extraEnvFrom": OBJECTS,
    "extraVolumes": OBJECTS,
    "extraVolumeMounts": OBJECTS,
    "nodeSelector": STRINGS,
    "tolerations": OBJECTS,
    "affinity": OBJECT,
    "test.tokenKey": text(minLength=1),
} | {f"probes.{probe}.{key}": whole(1, 3600)
     for probe in ("startup", "liveness", "readiness") for key in ("periodSeconds", "failureThreshold")}


def at(path, schema):
    """The schema, said of the value at the path."""
    for key in reversed(path.split(".")):
        schema = {"properties": {key: schema}, "required": [key]}
    return schema


IS_TRUE, IS_FALSE, EMPTY, GIVEN = {"const": True}, {"const": False}, {"const": ""}, {"minLength": 1}


def both(*schemas):
    return {"allOf": list(schemas)}


def when(condition, then, otherwise=None):
    rule = {"if": condition, "then": then}
    return rule if otherwise is None else rule | {"else": otherwise}


HAS_JWT = at("config.auth.jwt", {"type": "object"})
HAS_CERTIFICATES = at("config.auth.certificate", {"minItems": 1})

# Combinations that cannot work. The path in the message is that of the value to change.
RULES = [
    # Nobody may call it, or everybody may: the second has to be said.
    when({"anyOf": [at("auth.tokens.enabled", IS_TRUE), HAS_JWT, HAS_CERTIFICATES]},
         at("auth.insecure", IS_FALSE), at("auth.insecure", IS_TRUE)),
    when(at("auth.insecure", IS_TRUE), at("service.type", {"const": "ClusterIP"})),
    when(at("auth.tokens.enabled", IS_FALSE), at("auth.tokens.existingSecret", EMPTY)),
    when(at("auth.jwksSecret", GIVEN), at("config.auth.jwt", {"not": {"required": ["jwks_url"]}})),
    when(both(HAS_JWT, at("auth.jwksSecret", EMPTY)), at("config.auth.jwt.jwks_url", GIVEN)),
    when(HAS_CERTIFICATES, at("tls.clientCaSecret", GIVEN)),
    when(at("tls.enabled", IS_FALSE), both(
        at("tls.existingSecret", EMPTY), at("tls.clientCaSecret", EMPTY), at("tls.certManager.enabled", IS_FALSE))),
    when(both(at("tls.enabled", IS_TRUE), at("tls.certManager.enabled", IS_FALSE)), at("tls.existingSecret", GIVEN)),
    when(at("tls.certManager.enabled", IS_TRUE), both(at("tls.existingSecret", EMPTY), at("tls.certManager.issuer", GIVEN))),
    when(at("tls.clientCrlKey", GIVEN), both(
        at("tls.clientCaSecret", GIVEN), {"not": at("config.tls.client_crl", GIVEN)})),
    when(at("persistence.enabled", IS_FALSE), at("persistence.existingClaim", EMPTY)),
    when(at("ingress.enabled", IS_TRUE), both(at("ingress.host", GIVEN), at("ingress.tlsSecret", GIVEN))),
    when(at("grpcRoute.enabled", IS_TRUE), at("grpcRoute.parentRefs", {"minItems": 1})),
    when(at("otel.headersSecret", GIVEN), at("otel.endpoint", GIVEN)),
    when(at("keda.certificateSecret", GIVEN), both(
        at("keda.scaledObjects", {"minItems": 1}), at("tls.clientCaSecret", GIVEN),
        at("config.auth.certificate", {"minItems": 1}))),
]


def leaves(text_of_values):
    """Path, default and comment of each value, in the order of the file."""
    values = yaml.safe_load(text_of_values)
    found, stack, comment = [], [], None
    for line in text_of_values.splitlines():
        said = re.match(r"\s*# (-- )?(.*)", line)
        if said:
            if said[1]:
                comment = said[2]
            elif comment is not None:
                comment += " " + said[2]
            continue
        key = re.match(r"( *)([A-Za-z]\w*):", line)
        if not key:
            comment = None
            continue
        depth = len(key[1]) // 2
        # What a described value holds is its default, not further values.
        if found and len(stack) >= depth and ".".join(stack[:depth]).startswith(found[-1][0] + ".") or (
                found and depth and ".".join(stack[:depth]) == found[-1][0]):
            continue
        stack = stack[:depth] + [key[2]]
        if comment is not None:
            default = values
            for part in stack:
                default = default[part]
            found.append((".".join(stack), default, comment))
            comment = None
    return found


def undescribed(values, described, path=""):
    for key, value in values.items():
        here = f"{path}.{key}".lstrip(".")
        if here in described:
            continue
        if isinstance(value, dict) and value:
            yield from undescribed(value, described, here)
        else:
            yield here


def inferred(default):
    if isinstance(default, bool):
        return {"type": "boolean"}
    if isinstance(default, str):
        return {"type": "string"}
    raise SystemExit(f"the table BOUNDS must say what may be in place of {default!r}")


def config_schema(lineshaft):
    schema = json.loads(subprocess.run([lineshaft, "config", "schema"], check=True, capture_output=True).stdout)
    definitions = schema.pop("$defs")

    def plain(part, names=False):
        """Without defaults, which the server knows, and formats, which Helm does not."""
        if isinstance(part, list):
            return [plain(value) for value in part]
        if not isinstance(part, dict):
            return part
        kept = part if names else {key: value for key, value in part.items() if key not in ("default", "format")}
        return {key: plain(value, names=key == "properties" and not names) for key, value in kept.items()}

    top = schema["properties"]
    for section, keys in OWNED.items():
        for key in keys:
            del definitions[section]["properties"][key]
    config = {"type": "object", "additionalProperties": False, "properties": plain(top, names=True)}
    return config, plain(definitions, names=True)


def make_schema(found, lineshaft):
    config, definitions = config_schema(lineshaft)
    root = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the Lineshaft chart",
            "type": "object", "additionalProperties": False, "properties": {}}
    for path, default, comment in found:
        schema = config if path == "config" else BOUNDS.get(path) or inferred(default)
        node = root
        *parents, last = path.split(".")
        for parent in parents:
            node = node["properties"].setdefault(
                parent, {"type": "object", "additionalProperties": False, "properties": {}})
        node["properties"][last] = {"description": comment, **schema}
    # Charts that include this one set it.
    root["properties"]["global"] = {"type": "object"}
    root["allOf"] = RULES
    used = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps([config, definitions])))
    root["$defs"] = {name: definitions[name] for name in sorted(used)}
    return json.dumps(root, indent=2, ensure_ascii=False) + "\n"


def make_readme(found, readme):
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, comment in found:
        shown = json.dumps(default, ensure_ascii=False).replace("|", "\\|")
        rows.append(f"| `{path}` | `{shown}` | {comment} |".replace("{{", "{ {"))
    head, rest = readme.split(BEGIN)
    tail = rest.split(END)[1]
    return f"{head}{BEGIN}\n" + "\n".join(rows) + f"\n{END}{tail}"


def main():
    arguments = sys.argv[1:]
    write = "--write" in arguments
    lineshaft = [argument for argument in arguments if argument != "--write"][0]
    text_of_values = (CHART / "values.yaml").read_text()
    found = leaves(text_of_values)
    bare = list(undescribed(yaml.safe_load(text_of_values), {path for path, _, _ in found}))
    if bare:
        raise SystemExit(f"values.yaml says nothing about {', '.join(bare)}")
    unknown = BOUNDS.keys() - {path for path, _, _ in found}
    if unknown:
        raise SystemExit(f"BOUNDS has what values.yaml has not: {', '.join(sorted(unknown))}")
    stale = []
    for name, made in (("values.schema.json", make_schema(found, lineshaft)),
                       ("README.md", make_readme(found, (CHART / "README.md").read_text()))):
        path = CHART / name
        if path.exists() and path.read_text() == made:
            continue
        if write:
            path.write_text(made)
            print(f"wrote helm/{name}")
        else:
            stale.append(f"helm/{name}")
    if stale:
        raise SystemExit(f"{' and '.join(stale)} are not what values.yaml and the server's settings make of them; "
                         "run tests/helm/run.sh --write")
    print(f"{len(found)} values are described")


if __name__ == "__main__":
    main()
