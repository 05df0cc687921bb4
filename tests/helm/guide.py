"""The commands, values files and objects in docs/kubernetes.md."""

import re

import yaml

from chart import ROOT

GUIDE = (ROOT / "docs/kubernetes.md").read_text()
_BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
_YAML = {text.splitlines()[0].removeprefix("# "): yaml.safe_load(text) for kind, text in _BLOCKS if kind == "yaml"}

COMMANDS = [line for kind, text in _BLOCKS if kind == "sh" for line in text.splitlines()]
DEPLOYMENTS = {name: document for name, document in _YAML.items() if name.endswith(".deployment.yaml")}
PODS = {name: document for name, document in _YAML.items() if name.endswith(".pod.yaml")}
FILES = {name: values for name, values in _YAML.items() if name not in PODS | DEPLOYMENTS}
