"""An upgrade keeps the existing keys. A fake API server answers the requests of Helm."""

import base64
import http.server
import json
import os
import subprocess
import threading

import pytest
import yaml

import chart
from chart import only

KEYS = {"tokens": "hashes, one added by hand", "admin-token": "key of the callers"}


def resources(group_version, *kinds):
    known = [{"name": kind.lower() + "s", "kind": kind, "namespaced": True, "verbs": ["get"]} for kind in kinds]
    return {"kind": "APIResourceList", "groupVersion": group_version, "resources": known}


def group(name):
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


RESPONSES = {
    "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": resources("v1", "ConfigMap", "Pod", "Secret", "Service", "ServiceAccount"),
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group("apps"), group("networking.k8s.io")]},
    "/apis/apps/v1": resources("apps/v1", "StatefulSet"),
    "/apis/networking.k8s.io/v1": resources("networking.k8s.io/v1", "NetworkPolicy"),
    "/api/v1/namespaces/work/secrets/demo-lineshaft-tokens": {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo-lineshaft-tokens", "namespace": "work"},
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in KEYS.items()}},
}


class Cluster(http.server.BaseHTTPRequestHandler):
    """A fake API server with one Secret, of the release `demo` in the namespace `work`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        response = RESPONSES.get(self.path.split("?")[0])
        body = json.dumps(response or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}).encode()
        self.send_response(200 if response else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cluster) as api:
        threading.Thread(target=api.serve_forever, args=[0.02], daemon=True).start()
        yield f"http://127.0.0.1:{api.server_port}"
        api.shutdown()


@pytest.mark.parametrize("helm", chart.HELMS, ids=["helm3", "helm4"])
@pytest.mark.parametrize(("release", "kept"), [("demo", True), ("another", False)])
def test_an_upgrade_keeps_the_keys_and_an_installation_creates_them(cluster, tmp_path, helm, release, kept):
    command = [helm, "template", release, str(chart.CHART), "--namespace", "work", "--dry-run=server",
               "--kube-apiserver", cluster, "--is-upgrade", "--disable-openapi-validation"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60,
                          env=os.environ | {"KUBECONFIG": "/dev/null", "HELM_CACHE_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    secret = only([document for document in yaml.safe_load_all(done.stdout) if document], "Secret")
    found = {name: base64.b64decode(text).decode() for name, text in secret["data"].items()}
    assert (found == KEYS) == kept
    assert set(found) == set(KEYS)
