"""The values files and helm commands of docs/kubernetes.md are ones that work."""

import re
import shlex
import subprocess
import tomllib

import kubernetes_validate
import pytest
import yaml

import chart
from chart import MODES, ROOT

GUIDE = (ROOT / "docs/kubernetes.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
FILES = {text.splitlines()[0].removeprefix("# "): yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"}
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
INSTALLS = [line for line in COMMANDS if re.match(r"helm (install|upgrade)", line)]


LINKS = re.findall(r"\]\(([^)#:]+)\)", GUIDE)
PODS = {name: FILES.pop(name) for name in list(FILES) if name.endswith(".pod.yaml")}


def test_there_are_files_and_commands():
    assert set(FILES) >= {"single.yaml", "secure.yaml", "observed.yaml", "keda.yaml"}
    assert len(INSTALLS) >= 4


def test_links_lead_somewhere():
    assert LINKS
    assert not [link for link in LINKS if not (ROOT / "docs" / link).exists()]


def test_the_key_of_the_guide_can_be_made(tmp_path):
    command = next(line for line in COMMANDS if line.startswith("lineshaft token create"))
    done = subprocess.run([chart.BINARY, *shlex.split(command)[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lineshaft_")
    assert tomllib.loads((tmp_path / "tokens.toml").read_text())["token"][0]["name"] == "nightly-import"


@pytest.mark.parametrize("name", FILES)
def test_a_values_file_renders(name):
    assert chart.render(FILES[name])


@pytest.mark.parametrize("name", PODS)
def test_a_pod_of_the_guide_is_one(name):
    assert PODS[name]["kind"] == "Pod"
    kubernetes_validate.validate(PODS[name], "1.37", strict=True)
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in PODS[name]["spec"]["volumes"]]
    statefulset = chart.only(chart.render({"fullnameOverride": "lineshaft"}), "StatefulSet")
    claim = statefulset["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    assert f"{claim}-{statefulset['metadata']['name']}-0" in claims


def test_the_script_that_restores_swaps_the_files(tmp_path):
    script = PODS["restore.pod.yaml"]["spec"]["containers"][0]["command"][-1]
    for name, text in {"data/journal.db": "old", "data/work/x": "old", "copies/monday/journal.db": "new"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for folder in ("data", "copies"):
        script = script.replace(f"/{folder}", f"{tmp_path}/{folder}")
    subprocess.run(["sh", "-euc", script], check=True)
    left = {str(path.relative_to(tmp_path / "data")): path.read_text()
            for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert left == {"journal.db": "new", "replaced/journal.db": "old", "replaced/work/x": "old"}


@pytest.mark.parametrize("line", INSTALLS)
def test_a_helm_command_would_install(line, tmp_path):
    for name, values in FILES.items():
        (tmp_path / name).write_text(yaml.safe_dump(values))
    # An upgrade asks the cluster what there is; its values are checked as for a first installation.
    line = re.sub(r"^helm upgrade (--install )?", "helm install ", line)
    words = [str(chart.CHART) if word == "./helm" else word for word in shlex.split(line)]
    command = [chart.HELMS[-1], *words[1:], "--dry-run=client"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", MODES, ids=lambda path: path.stem.removesuffix("-values"))
def test_the_notes_have_a_first_task_to_copy(mode):
    notes = chart.notes(yaml.safe_load(mode.read_text()))
    assert "lineshaft task run compute --json" in notes
    assert "export LINESHAFT_SERVER=http" in notes
    assert ("LINESHAFT_TOKEN" in notes) != ("auth.insecure is true" in notes)
