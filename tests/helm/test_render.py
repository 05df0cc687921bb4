"""The rendered objects have the properties that the documentation describes."""

import base64
import hashlib
import json
import pathlib
import re
import subprocess
import tomllib
import urllib.parse

import pytest
import yaml

import chart
from chart import BINARY, MODES, OPEN, ROOT, merge, only, render, server
from test_values import CERT, JWT, KEDA, KNOWN, OTLP, PEER, SCALED, TLS

DOCKERFILE = (chart.CHART / "Dockerfile").read_text()

modes = pytest.mark.parametrize("mode", MODES, ids=lambda path: path.stem.removesuffix("-values"))


def values(mode):
    return yaml.safe_load(mode.read_text())


def settings(documents):
    return tomllib.loads(only(documents, "ConfigMap", "lineshaft")["data"]["lineshaft.toml"])


@modes
def test_pods_are_unprivileged(mode):
    documents = render(values(mode))
    pods = [d["spec"]["template"]["spec"] if d["kind"] == "StatefulSet" else d["spec"]
            for d in documents if d["kind"] in ("StatefulSet", "Pod")]
    assert pods
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["runAsNonRoot"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_only_the_server_is_root_and_only_if_handlers_have_users():
    documents = render({"securityContext": {"handlerUsers": True}})
    pod, container = server(documents)
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    security = container["securityContext"]
    assert (security["runAsUser"], security["runAsNonRoot"]) == (0, False)
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN", "KILL", "SETGID", "SETUID"]}
    unprivileged = server(render({}))[1]["securityContext"]
    kept = ["allowPrivilegeEscalation", "readOnlyRootFilesystem", "seccompProfile"]
    assert {key: security[key] for key in kept} == {key: unprivileged[key] for key in kept}
    assert only(documents, "Pod")["spec"]["containers"][0]["securityContext"] == unprivileged


@modes
def test_probes_use_grpc_on_the_health_port(mode):
    documents = render(values(mode))
    _, container = server(documents)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 7070, "health": 7071}
    for probe in ("startup", "liveness", "readiness"):
        assert container[f"{probe}Probe"]["grpc"] == {"port": 7071, "service": probe}
    listen = settings(documents)["server"]
    assert listen["listen"].rsplit(":", 1)[1] == "7070"
    assert listen["health_listen"].rsplit(":", 1)[1] == "7071"


@modes
def test_mounts_and_volumes_match(mode):
    documents = render(values(mode))
    pod, container = server(documents)
    volumes = [volume["name"] for volume in pod["spec"]["volumes"]]
    claims = only(documents, "StatefulSet")["spec"].get("volumeClaimTemplates", [])
    volumes += [claim["metadata"]["name"] for claim in claims]
    assert len(volumes) == len(set(volumes))
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)


@modes
def test_every_configured_path_is_mounted(mode):
    documents = render(values(mode))
    _, container = server(documents)
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]

    def paths(part):
        for value in part.values() if isinstance(part, dict) else []:
            if isinstance(value, str) and value.startswith("/"):
                yield value
            yield from paths(value)

    configured = settings(documents)
    configured.pop("handler", None)
    found = list(paths(configured))
    assert "/var/lib/lineshaft" in found
    for path in found:
        assert any(path == mount or path.startswith(mount + "/") for mount in mounts), path


@modes
def test_services_select_only_the_server(mode):
    documents = render(values(mode))
    pod, _ = server(documents)
    services = [d for d in documents if d["kind"] == "Service"]
    assert len(services) == 2
    for service in services:
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert all(port["appProtocol"] for port in service["spec"]["ports"])
    for test in (d for d in documents if d["kind"] == "Pod"):
        assert not services[0]["spec"]["selector"].items() <= test["metadata"]["labels"].items()


@modes
def test_the_binary_accepts_the_configuration(mode, tmp_path):
    text = only(render(values(mode)), "ConfigMap", "lineshaft")["data"]["lineshaft.toml"]
    file = tmp_path / "lineshaft.toml"
    file.write_text(text)
    done = subprocess.run([BINARY, "config", "dump", "--config", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + text
    # The configured pools are in effect.
    dumped = tomllib.loads(done.stdout)
    assert dumped["server"]["drain_limit"]
    for pool in tomllib.loads(text).get("pool", []):
        assert pool["name"] in [known["name"] for known in dumped["pool"]]


def test_any_value_becomes_valid_toml():
    config = {
        "builtins": False,
        "pool": [{"name": "default", "size": 4, "queue_limit": 100_000_000}],
        "handler": [{
            "name": "odd", "runner": "process", "argv": ["/bin/x", "a \"b\" <c> & \\ 'd'\nnext ü"], "arg_pattern": r"[^-]\w*",
            "env": {"A.B C": "ä", "EMPTY": ""}, "env_pass": [], "retry": {"factor": 1.5, "attempts": 2},
        }],
        "limits": {"queued_payload_bytes": 1_099_511_627_776},
    }
    for helm in chart.HELMS:
        documents = render({"config": config}, helm)
        got = settings(documents)
        assert got["builtins"] is False
        assert got["pool"] == config["pool"]
        assert got["handler"] == config["handler"]
        assert got["limits"] == config["limits"]
        assert all(isinstance(got["pool"][0][key], int) for key in ("size", "queue_limit"))


@pytest.mark.parametrize(("pre_stop", "limit"), [(5, 30), (0, 0), (20, 3600)])
def test_the_grace_period_covers_the_drain(pre_stop, limit):
    documents = render({"drain": {"limitSeconds": limit, "preStopSeconds": pre_stop}})
    pod, container = server(documents)
    # 15 s: 5 s for interrupted tasks, 2 s for open calls, the rest for writing.
    assert pod["spec"]["terminationGracePeriodSeconds"] == pre_stop + limit + 15
    assert settings(documents)["server"]["drain_limit"] == f"{limit}s"
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert sleep == pre_stop


def test_only_a_changed_setting_replaces_the_pod():
    checksum = lambda values: server(render(values))[0]["metadata"]["annotations"]["checksum/config"]
    assert checksum({}) == checksum({"service": {"port": 443}})
    assert checksum({}) == checksum({"config": {"pool": [{"name": "a"}], "handler": [{"name": "h", "runner": "remote"}]}})
    schedule = {"id": "s", "every": "1h", "handler": "compute"}
    connection = {"name": "c", "sqlite": "/data/c.db"}
    assert checksum({}) == checksum({"config": {"schedule": [schedule], "connection": [connection]}})
    assert checksum({}) != checksum({"config": {"log": {"filter": "debug"}}})
    assert checksum({}) != checksum({"drain": {"limitSeconds": 31}})


def test_the_volume_belongs_to_one_pod_and_outlives_the_release():
    spec = only(render({}), "StatefulSet")["spec"]
    assert spec["replicas"] == 1
    assert spec["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_an_upgrade_replaces_a_pod_that_never_became_ready():
    assert only(render({}), "StatefulSet")["spec"]["podManagementPolicy"] == "Parallel"


@pytest.mark.parametrize("callers", [{}, {"networkPolicy": {"callersFrom": PEER}}], ids=["anyone", "named"])
def test_the_network_policy_admits_helm_test(callers):
    documents = render(callers)
    labels = only(documents, "Pod")["metadata"]["labels"]
    [rule] = [r for r in only(documents, "NetworkPolicy")["spec"]["ingress"] if r["ports"] == [{"port": "grpc"}]]
    near = [peer["podSelector"].get("matchLabels", {}) for peer in rule["from"] if "namespaceSelector" not in peer]
    assert [wanted for wanted in near if wanted.items() <= labels.items()]


def test_only_the_hashes_of_keys_reach_the_server():
    pod, _ = server(render({}))
    tokens = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "tokens")
    assert tokens["secret"]["items"] == [{"key": "tokens", "path": "tokens"}]


def test_the_created_key_is_random_and_stored_as_a_hash():
    def made():
        secret = only(chart.fresh({}), "Secret")["data"]
        return {key: base64.b64decode(value).decode() for key, value in secret.items()}

    first, second = made(), made()
    key = first["admin-token"]
    assert re.fullmatch(r"lineshaft_[0-9a-f]{12}_[0-9a-f]{64}", key)
    assert key != second["admin-token"]
    [entry] = tomllib.loads(first["tokens"])["token"]
    assert entry["id"] == key.split("_")[1]
    assert entry["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert (entry["role"], entry["namespaces"]) == ("admin", ["*"])
    assert key not in first["tokens"]


def test_an_existing_secret_is_used_instead_of_creating_one():
    documents = render({"auth": {"tokens": {"existingSecret": "keys"}}})
    assert not [d for d in documents if d["kind"] == "Secret"]
    pod, _ = server(documents)
    tokens = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "tokens")
    assert tokens["secret"]["secretName"] == "keys"


def test_the_server_is_insecure_only_if_requested():
    assert settings(render({}))["server"]["insecure"] is False
    assert settings(render(OPEN))["server"]["insecure"] is True


def test_the_certificate_contains_the_names_of_the_services():
    documents = render(CERT)
    names = only(documents, "Certificate")["spec"]["dnsNames"]
    assert {"demo-lineshaft", "demo-lineshaft.work.svc", "demo-lineshaft.work.svc.cluster.local",
            "demo-lineshaft-headless.work.svc"} <= set(names)
    pod, _ = server(documents)
    mounted = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "tls")
    assert mounted["secret"]["secretName"] == only(documents, "Certificate")["spec"]["secretName"]


def test_the_network_policy_allows_only_configured_egress():
    ports = lambda values: sorted(
        port["port"] for rule in only(render(values), "NetworkPolicy")["spec"]["egress"] for port in rule["ports"])
    assert ports({}) == [53, 53]
    assert ports(OTLP) == [53, 53, 4317]
    assert ports(JWT) == [53, 53, 443]
    assert ports({"otel": {"endpoint": "https://collector"}}) == [53, 53, 443]
    assert ports({"otel": {"endpoint": "http://[2001:db8::1]"}}) == [53, 53, 80]


def test_the_monitor_and_scalers_find_the_health_port():
    documents = render({"metrics": {"serviceMonitor": {"enabled": True}}, "keda": {"scaledObjects": [SCALED]}})
    headless = only(documents, "Service", "-headless")
    ports = {port["name"]: port["port"] for port in headless["spec"]["ports"]}
    monitor = only(documents, "ServiceMonitor")["spec"]
    matched = [d for d in documents if d["kind"] == "Service"
               and monitor["selector"]["matchLabels"].items() <= d["metadata"]["labels"].items()]
    assert matched == [headless]
    assert monitor["endpoints"][0]["port"] in ports
    trigger = only(documents, "ScaledObject")["spec"]["triggers"][0]
    assert trigger["metadata"]["scalerAddress"] == f"{headless['metadata']['name']}.work.svc:{ports['health']}"


def test_the_network_policy_admits_keda_on_its_port():
    def asked(values):
        documents = render(values)
        rules = only(documents, "NetworkPolicy")["spec"]["ingress"]
        [port] = rules[2]["ports"]
        [peer] = rules[2]["from"]
        trigger = only(documents, "ScaledObject")["spec"]["triggers"][0]
        return port["port"], peer, trigger["metadata"]["scalerAddress"]

    home = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
    assert asked(KEDA) == ("health", home, "demo-lineshaft-headless.work.svc:7071")
    known = merge(merge(KNOWN, KEDA), {"keda": {"certificateSecret": "me"}, "service": {"port": 443}})
    assert asked(known) == ("grpc", home, "demo-lineshaft.work.svc:443")
    assert asked(merge(known, {"networkPolicy": {"kedaFrom": PEER}}))[1] == PEER[0]
    assert len(only(render({}), "NetworkPolicy")["spec"]["ingress"]) == 2


def test_keda_gets_the_certificate_under_its_parameter_names():
    known = merge(merge(KNOWN, KEDA), {"keda": {"certificateSecret": "me"}})
    documents = render(known)
    authentication = only(documents, "TriggerAuthentication")
    trigger = only(documents, "ScaledObject")["spec"]["triggers"][0]
    assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    assert trigger["metadata"]["enableTLS"] == "true"
    parameters = {ref["parameter"]: (ref["name"], ref["key"]) for ref in authentication["spec"]["secretTargetRef"]}
    # The parameter names of KEDA's external scaler.
    assert parameters == {
        "caCert": ("me", "ca.crt"), "tlsClientCert": ("me", "tls.crt"), "tlsClientKey": ("me", "tls.key")}
    assert not [d for d in render(KEDA) if d["kind"] == "TriggerAuthentication"]


def test_rules_and_dashboard_are_installed_unchanged():
    documents = render({"metrics": {"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}})
    rules = (ROOT / "docs/observability/alerts.yaml").read_text()
    assert only(documents, "PrometheusRule")["spec"] == yaml.safe_load(rules)
    shown = (ROOT / "docs/observability/dashboard.json").read_text()
    assert json.loads(only(documents, "ConfigMap", "-dashboard")["data"]["lineshaft.json"]) == json.loads(shown)


def test_helm_test_submits_a_task_through_the_service():
    documents = render(merge(OPEN, {"service": {"port": 443}}))
    container = only(documents, "Pod")["spec"]["containers"][0]
    assert container["args"][:3] == ["task", "run", "compute"]
    assert container["env"] == [{"name": "LINESHAFT_SERVER", "value": "http://demo-lineshaft.work.svc:443"}]


def test_helm_test_exists_only_with_credentials():
    def secrets(values):
        pods = [d["spec"] for d in render(values) if d["kind"] == "Pod"]
        return [volume["secret"]["secretName"] for pod in pods for volume in pod["volumes"]]

    own = {"auth": {"tokens": {"existingSecret": "keys"}}}
    assert secrets({}) == ["demo-lineshaft-tokens"]
    assert secrets(own) == []
    assert secrets(merge(own, {"test": {"tokenSecret": "mine"}})) == ["mine"]
    assert secrets(CERT) == ["demo-lineshaft-tokens", "demo-lineshaft-tls"]
    asked = merge(TLS, {"tls": {"clientCaSecret": "callers"}})
    assert secrets(asked) == []
    assert secrets(merge(asked, {"config": {"tls": {"client_certificate": "optional"}}})) == ["demo-lineshaft-tokens"]
    assert secrets(merge(asked, {"test": {"certificateSecret": "me"}})) == ["demo-lineshaft-tokens", "me"]


def test_long_names_are_truncated():
    documents = render({"fullnameOverride": "a" * 63, "keda": {"scaledObjects": [SCALED | {"name": "b" * 40}]}})
    for document in documents:
        assert len(document["metadata"]["name"]) <= 63
        for value in document["metadata"]["labels"].values():
            assert len(value) <= 63


def test_long_names_of_scaled_objects_stay_different():
    names = ["b" * 39 + last for last in "xy"]
    objects = render({"fullnameOverride": "a" * 52, "keda": {"scaledObjects": [SCALED | {"name": n} for n in names]}})
    found = {document["metadata"]["name"] for document in objects if document["kind"] == "ScaledObject"}
    assert len(found) == 2 and all(len(name) <= 63 for name in found), found


@pytest.mark.parametrize("tag, label", [
    ("1.2@sha256:" + "a" * 64, "1.2-sha256-" + "a" * 52),
    ("b" * 70, "b" * 63),
    ("c" * 62 + "-" + "c" * 7, "c" * 62),
    ("_._", ""),
])
def test_any_tag_of_the_image_gives_a_label(tag, label):
    documents = render({"image": {"tag": tag}})
    assert len(documents) >= 8
    for document in documents:
        assert document["metadata"]["labels"]["app.kubernetes.io/version"] == label
    assert server(documents)[1]["image"].endswith(":" + tag)


@pytest.mark.parametrize("release, name", [
    ("123", "lineshaft-123-lineshaft"), ("1e3", "lineshaft-1e3-lineshaft"), ("true", "true-lineshaft"),
    ("a.b", "a-b-lineshaft"), ("my-lineshaft.1", "my-lineshaft-1"),
])
def test_any_name_of_a_release_gives_names_of_objects(release, name):
    documents = render({}, release=release, namespace="123")
    for document in documents:
        assert document["metadata"]["namespace"] == "123"
        assert document["metadata"]["labels"]["app.kubernetes.io/instance"] == release
    assert only(documents, "StatefulSet")["metadata"]["name"] == name


def test_resource_attributes_are_encoded():
    attributes = {"team": "a,b=c d", "$(HOME)": "100%+é"}
    environment = {variable["name"]: variable.get("value") for variable in server(render(
        {"otel": {"endpoint": "http://collector:4317", "resourceAttributes": attributes}}))[1]["env"]}
    pairs = [pair.split("=") for pair in environment["OTEL_RESOURCE_ATTRIBUTES"].split(",")]
    assert all(len(pair) == 2 for pair in pairs), pairs
    decoded = {urllib.parse.unquote(key): urllib.parse.unquote(value) for key, value in pairs}
    assert attributes.items() <= decoded.items()
    # Kubernetes replaces the names of variables, which are not encoded.
    assert dict(pairs)["k8s.pod.name"] == "$(LINESHAFT_POD_NAME)" and "$(HOME)" not in dict(pairs)


def test_the_chart_has_the_version_of_the_binary():
    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert about["appVersion"] == cargo["package"]["version"]


def test_the_image_build_includes_every_source_of_the_binary():
    """Compares the files that the compiler read with those in the Dockerfile and .dockerignore."""
    read = sources_of_the_binary()
    copied = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    ignored = (chart.CHART / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored, "all other files must be excluded"
    assert sorted(copied) == sorted(let_in)
    assert all((ROOT / name).exists() for name in copied)
    assert len(read) > 50 and "proto" in read
    # Also the files that cargo reads and the compiler does not list.
    for file in [*read, "Cargo.toml", "Cargo.lock", ".cargo/config.toml"]:
        assert file.split("/")[0] in copied, f"{file} is not in the image's build"


def test_the_image_uses_the_required_compiler_and_a_matching_base():
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    version, release = re.search(r"^FROM rust:([0-9.]+)-(\w+) AS build$", DOCKERFILE, re.MULTILINE).groups()
    assert version == cargo["package"]["rust-version"]
    base = re.search(r"^FROM gcr.io/distroless/cc-debian(\d+):nonroot$", DOCKERFILE, re.MULTILINE)[1]
    # A binary linked to a newer libc does not start with an older one.
    assert release == {"12": "bookworm", "13": "trixie"}[base]
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE).groups()
    security = server(render({}))[0]["spec"]["securityContext"]
    assert user == (str(security["runAsUser"]), str(security["runAsGroup"]))


def sources_of_the_binary():
    """The files that the compiler lists beside the binary, relative to the root of the repository."""
    listed = pathlib.Path(BINARY + ".d").read_text().split(": ", 1)[1].split()
    root = next(file for file in listed if file.endswith("/build.rs")).removesuffix("build.rs")
    return [file.removeprefix(root) for file in listed if file.startswith(root) and "/target" not in file]
