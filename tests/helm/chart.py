"""Helpers that render the chart with each supported version of Helm."""

import functools
import json
import os
import pathlib
import re
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm"
MODES = sorted((CHART / "ci").glob("*.yaml"))
HELMS = [os.environ["HELM3"], os.environ["HELM4"]]
BINARY = os.environ["LINESHAFT_BINARY"]

# Minimal values with which the chart renders.
OPEN = {"auth": {"insecure": True, "tokens": {"enabled": False}}}


class Refused(Exception):
    """Helm does not render these values."""


def merge(base, more):
    """Merges `more` over `base` as Helm merges values."""
    merged = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def tree(path, value):
    """Turns `a.b` and 1 into {a: {b: 1}}."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


@functools.cache
def _render(helm, values, release="demo", namespace="work"):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(values)
        file.flush()
        command = [helm, "template", release, str(CHART), "--namespace", namespace, "--values", file.name,
                   "--api-versions", "monitoring.coreos.com/v1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def text(values, helm=HELMS[-1]):
    """The rendered text, with random values masked."""
    return re.sub(r'(?m)^(  "[a-z-]+": )"[A-Za-z0-9+/]{80,}=*"$', r"\1…", _render(helm, json.dumps(values)))


def render(values, helm=HELMS[-1], **names):
    """The rendered objects; `names` are those of the release and the namespace."""
    return [document for document in yaml.safe_load_all(_render(helm, json.dumps(values), **names)) if document]


def fresh(values):
    """Renders again instead of using the cache."""
    _render.cache_clear()
    return render(values)


def notes(values):
    """The notes that Helm prints after an installation."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(values))
        file.flush()
        command = [HELMS[-1], "install", "demo", str(CHART), "--namespace", "work", "--dry-run=client", "--values", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split("\nNOTES:\n")[1]


def only(documents, kind, suffix=""):
    """The only object of this kind whose name ends with `suffix`."""
    found = [d for d in documents if d["kind"] == kind and d["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, f"{len(found)} of {kind} …{suffix}"
    return found[0]


def server(documents):
    """The pod template and container of the server."""
    pod = only(documents, "StatefulSet")["spec"]["template"]
    return pod, pod["spec"]["containers"][0]


def normal(document):
    """Serializes a document without key order and random values."""
    return json.dumps(document | {"data": None} if document["kind"] == "Secret" else document, sort_keys=True)
