"""The values files and commands in docs/kubernetes.md and in the notes of the chart work."""

import base64
import json
import os
import re
import shlex
import subprocess
import tomllib

import kubernetes_validate
import pytest
import yaml

import chart
from chart import MODES, ROOT
from guide import COMMANDS, DEPLOYMENTS, FILES, GUIDE, PODS

INSTALLS = [line for line in COMMANDS if re.match(r"helm (install|upgrade)", line)]
LINKS = re.findall(r"\]\(([^)#:]+)\)", GUIDE)
# Also commands within the text.
CLUSTER = sorted({line for line in COMMANDS if line.startswith("kubectl ")} | set(re.findall(r"`(kubectl [^`\s]+ [^`\n]+)`", GUIDE)))


def test_the_guide_has_files_and_commands():
    assert set(FILES) >= {"single.yaml", "secure.yaml", "observed.yaml", "keda.yaml"}
    assert len(INSTALLS) >= 4


def test_links_of_the_guide_are_valid():
    assert LINKS
    assert not [link for link in LINKS if not (ROOT / "docs" / link).exists()]


def test_the_token_command_of_the_guide_works(tmp_path):
    command = next(line for line in COMMANDS if line.startswith("lineshaft token create"))
    done = subprocess.run([chart.BINARY, *shlex.split(command)[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lineshaft_")
    assert tomllib.loads((tmp_path / "tokens.toml").read_text())["token"][0]["name"] == "nightly-import"


@pytest.mark.parametrize("name", FILES)
def test_a_values_file_renders(name):
    assert chart.render(FILES[name])


@pytest.mark.parametrize("name", PODS)
def test_a_pod_of_the_guide_is_valid(name):
    assert PODS[name]["kind"] == "Pod"
    kubernetes_validate.validate(PODS[name], "1.37", strict=True)
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in PODS[name]["spec"]["volumes"]]
    statefulset = chart.only(chart.render({"fullnameOverride": "lineshaft"}), "StatefulSet")
    claim = statefulset["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    assert f"{claim}-{statefulset['metadata']['name']}-0" in claims


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_of_workers_is_valid_and_scaled_by_its_pool(name):
    deployment = DEPLOYMENTS[name]
    kubernetes_validate.validate(deployment, "1.37", strict=True)
    rendered = chart.render(FILES["workers.yaml"] | {"fullnameOverride": "lineshaft"})
    scaled = chart.only(rendered, "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"] == {"kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert "replicas" not in deployment["spec"]
    services = {f"{item['metadata']['name']}:{item['spec']['ports'][0]['port']}"
                for item in rendered if item["kind"] == "Service"}
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["LINESHAFT_SERVER"]["value"] in services
    secret = variables["LINESHAFT_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert any(f"create secret generic {secret['name']} --from-file={secret['key']}=" in line for line in COMMANDS)
    pools = {pool["name"]: pool for pool in FILES["workers.yaml"]["config"]["pool"]}
    assert pools[scaled["triggers"][0]["metadata"]["pool"]]["kind"] == "remote"


def kubectl(line, cwd, *more):
    """Runs a kubectl command without a cluster."""
    words = shlex.split(line)
    command = [os.environ["KUBECTL"], "--kubeconfig=/dev/null", "--server=http://127.0.0.1:1", *more, *words[1:]]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def notes_for_the_cluster():
    """The `kubectl` commands in the notes, without pipes and redirections."""
    all_notes = [chart.notes(yaml.safe_load(mode.read_text())) for mode in MODES]
    return sorted({re.sub(r" [|>&].*", "", line) for notes in all_notes
                   for line in re.findall(r"kubectl -n work [^\n]*", notes)})


@pytest.mark.parametrize("line", CLUSTER + notes_for_the_cluster())
def test_kubectl_accepts_the_command(line, tmp_path):
    """kubectl checks arguments before it connects; there is no cluster here, so the connection is refused."""
    for name, document in (PODS | DEPLOYMENTS).items():
        (tmp_path / name).write_text(yaml.safe_dump(document))
    for name in ("tokens.toml", "image-worker.token", "count.wasm"):
        (tmp_path / name).write_text("")
    done = kubectl(line, tmp_path)
    assert "127.0.0.1:1" in done.stderr and "refused" in done.stderr, done.stdout + done.stderr


def test_kubectl_refuses_wrong_arguments(tmp_path):
    assert "unknown flag: --cascad" in kubectl("kubectl delete statefulset x --cascad=orphan", tmp_path).stderr
    assert "unexpected path string" in kubectl("kubectl wait --for=jsonpath=x{y pod/x", tmp_path).stderr


def test_the_chart_reads_the_secret_of_the_guide(tmp_path):
    (tmp_path / "tokens.toml").write_text("hashes")
    line = next(line for line in COMMANDS if "create secret generic lineshaft-keys" in line)
    done = kubectl(f"{line} --dry-run=client --output=json", tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    pod, _ = chart.server(chart.render(FILES["secure.yaml"]))
    wanted = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "tokens")["secret"]
    assert made["metadata"]["name"] == wanted["secretName"]
    assert base64.b64decode(made["data"][wanted["items"][0]["key"]]) == b"hashes"


def test_the_notes_read_the_key_created_by_the_chart(tmp_path):
    """Checks the escaping of dots and dashes in `-o jsonpath`."""
    option = re.search(r"(-o jsonpath='[^']+')", chart.notes({}))[1]
    done = kubectl(f"kubectl create secret generic x --from-literal=admin-token=key --dry-run=client {option}", tmp_path)
    assert base64.b64decode(done.stdout) == b"key", done.stderr


def test_the_restore_script_swaps_the_files_except_artifacts_and_can_be_repeated(tmp_path):
    script = PODS["restore.pod.yaml"]["spec"]["containers"][0]["command"][-1]
    # A volume can have a directory that the script must not move.
    (tmp_path / "data/lost+found").mkdir(parents=True)
    for name, text in {"data/journal.db": "old", "data/work/x": "old", "data/artifacts/x": "kept",
                       "copies/monday/journal.db": "new"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for folder in ("data", "copies"):
        script = script.replace(f"/{folder}", f"{tmp_path}/{folder}")
    # The script names its directory by the current second.
    for second in ("1", "2"):
        subprocess.run(["sh", "-euc", script.replace("$(date +%s)", second)], check=True)
    left = {str(path.relative_to(tmp_path / "data")): path.read_text()
            for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert left == {"journal.db": "new", "artifacts/x": "kept", "replaced-1/journal.db": "old", "replaced-1/work/x": "old",
                    "replaced-2/journal.db": "new"}
    assert (tmp_path / "data/lost+found").exists()


@pytest.mark.parametrize("line", INSTALLS)
def test_a_helm_command_of_the_guide_renders(line, tmp_path):
    for name, values in FILES.items():
        (tmp_path / name).write_text(yaml.safe_dump(values))
    # An upgrade would need a cluster, so its values are checked as for an installation.
    line = re.sub(r"^helm upgrade (--install )?", "helm install ", line)
    words = [str(chart.CHART) if word == "./helm" else word for word in shlex.split(line)]
    command = [chart.HELMS[-1], *words[1:], "--dry-run=client"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", MODES, ids=lambda path: path.stem.removesuffix("-values"))
def test_the_notes_contain_a_first_task(mode):
    notes = chart.notes(yaml.safe_load(mode.read_text()))
    assert "lineshaft task run compute --json" in notes
    assert "export LINESHAFT_SERVER=http" in notes
    assert ("LINESHAFT_TOKEN" in notes or "LINESHAFT_TLS_CERT" in notes) != ("auth.insecure is true" in notes)


def test_the_notes_name_the_required_credentials():
    def shown(name):
        notes = chart.notes(yaml.safe_load((chart.CHART / f"ci/{name}-values.yaml").read_text()))
        return [word for word in ("_TOKEN", "_TLS_CERT", "_TLS_KEY", "_TLS_CA") if f"LINESHAFT{word}=" in notes]

    assert shown("default") == ["_TOKEN"]
    assert shown("tls-tokens") == ["_TOKEN", "_TLS_CA"]
    assert shown("keda-mtls") == ["_TLS_CERT", "_TLS_KEY", "_TLS_CA"]
    # Where both are accepted, the notes use tokens.
    assert shown("jwt-mtls") == ["_TOKEN", "_TLS_CA"]
    assert shown("try-it") == []
