"""Runs the rendered pod with the files of the image and the user, capabilities, mounts, arguments and environment of
the pod.

`run_container.py` acts as the container runtime, so no cluster and no image builder is needed. It needs root, or a
kernel that allows user namespaces.
"""

import base64
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

import chart
import run_container
from chart import BINARY, OPEN, merge, only, render, server
from guide import COMMANDS, FILES, PODS

TIMEOUT = 60
HERE = pathlib.Path(__file__).parent


class Machine:
    """A node with a directory for root file systems and volumes, and one network for all containers."""

    def __init__(self, folder):
        self.folder = folder
        self.serving = None
        # Secrets that the chart does not create, by name.
        self.secrets = {}

    def spec(self, documents, pod, container):
        """Writes the specification of one container, as the kubelet would."""
        name = container["name"]
        tree = self.folder / f"tree-{name}"
        shutil.rmtree(tree, ignore_errors=True)
        services = [f"{d['metadata']['name']}.work.svc" for d in documents if d["kind"] == "Service"]
        run_container.build_tree(tree, BINARY, services)
        # Settings of the container override those of the pod.
        security = pod["securityContext"] | container.get("securityContext", {})
        mounts = []
        for wanted in container.get("volumeMounts", []):
            source, read_only = self.volume(documents, pod, wanted["name"], security)
            if "subPath" in wanted:
                source = source / wanted["subPath"]
            mounts.append([str(source), wanted["mountPath"], wanted.get("readOnly", read_only)])
        spec = {"tree": str(tree), "mounts": mounts, "user": security["runAsUser"], "group": security["runAsGroup"],
                "capabilities": security["capabilities"].get("add", []), "args": container["args"], "env": self.variables(container)}
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(spec))
        return file

    def volume(self, documents, pod, name, security):
        folder = self.folder / f"volume-{pod['containers'][0]['name']}-{name}"
        volume = next((v for v in pod.get("volumes", []) if v["name"] == name), {})
        if "persistentVolumeClaim" in volume:
            folder = self.claim(volume["persistentVolumeClaim"]["claimName"])
        elif not volume:
            folder = self.claim(f"{name}-{only(documents, 'StatefulSet')['metadata']['name']}-0")
        if "configMap" in volume:
            data, read_only = only(documents, "ConfigMap", volume["configMap"]["name"])["data"], True
        elif "secret" in volume:
            wanted = volume["secret"]
            secret = self.secrets.get(wanted["secretName"]) or texts(only(documents, "Secret", wanted["secretName"]))
            items = {item["key"]: item["path"] for item in wanted.get("items", [])} or {key: key for key in secret}
            data = {path: secret[key] for key, path in items.items()}
            read_only = True
        else:
            data, read_only = {}, False
        folder.mkdir(exist_ok=True)
        for key, value in data.items():
            (folder / key).write_text(value)
        for path in (folder, *folder.iterdir()):
            os.chown(path, 0 if read_only else security["runAsUser"], security["fsGroup"])
            path.chmod((0o2775 if not read_only else 0o750) if path.is_dir() else 0o640)
        return folder, read_only

    def claim(self, name):
        """The directory of a claim."""
        return self.folder / f"claim-{name}"

    def variables(self, container):
        env = {}
        for variable in container.get("env", []):
            if "value" in variable:
                env[variable["name"]] = variable["value"]
            else:
                env[variable["name"]] = {"metadata.name": "demo-lineshaft-0", "spec.nodeName": "node"}[
                    variable["valueFrom"]["fieldRef"]["fieldPath"]]
        return env

    def serve(self, documents):
        pod, container = server(documents)
        file = self.spec(documents, pod["spec"], container)
        command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", sys.executable,
                   str(HERE / "run_container.py"), str(file)]
        self.log = (self.folder / "log").open("a+")
        self.serving = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        return pod["spec"], container

    def init(self):
        """The process id on this machine of process 1 in the server's container."""
        until = time.monotonic() + TIMEOUT
        children = pathlib.Path(f"/proc/{self.serving.pid}/task/{self.serving.pid}/children")
        while not children.read_text().split():
            assert time.monotonic() < until and self.serving.poll() is None, self.log_text()
            time.sleep(0.01)
        return int(children.read_text().split()[0])

    def log_text(self):
        return (self.folder / "log").read_text()

    def client(self, *arguments, env=None):
        """Runs the client in the network of the pod."""
        command = ["nsenter", f"--net=/proc/{self.init()}/ns/net", BINARY, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=env or {}, timeout=TIMEOUT)

    def execute(self, *command):
        """Runs a process in the container, as `kubectl exec` does."""
        inside = ["nsenter", f"--target={self.init()}", "--mount", "--net", "--root", "--wd", "--setuid=65532", "--setgid=65532"]
        return subprocess.run([*inside, *command], capture_output=True, text=True, check=False, timeout=TIMEOUT, env={})

    def run_beside(self, documents, pod):
        """Runs the container of another pod in the same network until it exits."""
        file = self.spec(documents, pod["spec"], pod["spec"]["containers"][0])
        command = ["nsenter", f"--net=/proc/{self.init()}/ns/net", "unshare", "--mount", "--pid", "--fork",
                   "--kill-child", sys.executable, str(HERE / "run_container.py"), str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)

    def run_with_the_tools_of_this_machine(self, pod):
        """Runs a pod with an ordinary image (a shell and the usual commands) on its claims."""
        container, security = pod["spec"]["containers"][0], pod["spec"]["securityContext"]
        tree = self.folder / "tree-tools"
        for folder in ("usr", "proc", "dev", "tmp"):
            (tree / folder).mkdir(parents=True)
        for link in ("bin", "lib", "lib64"):
            (tree / link).symlink_to(f"usr/{link}")
        for device in ("null", "zero", "urandom", "random"):
            (tree / "dev" / device).touch()
        claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["spec"]["volumes"]}
        mounts = [[str(self.claim(claims[m["name"]])), m["mountPath"], False] for m in container["volumeMounts"]]
        program, *args = container["command"]
        file = self.folder / "tools.json"
        file.write_text(json.dumps({
            "tree": str(tree), "mounts": [["/usr", "/usr", True], *mounts], "directory": "/",
            "program": f"/usr/bin/{program}", "args": args, "env": {"PATH": "/usr/bin"},
            "user": security["runAsUser"], "group": security["runAsGroup"]}))
        command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", sys.executable, str(HERE / "run_container.py"), str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)

    def probe(self, container, name):
        """Runs a probe as the kubelet does: its service on its port."""
        probe = container[f"{name}Probe"]["grpc"]
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.init()}/ns/net", sys.executable, str(HERE / "probe.py"),
             str(probe["port"]), probe["service"]], capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr

    def until_ready(self, container):
        until = time.monotonic() + TIMEOUT
        while (found := self.probe(container, "readiness")) != "SERVING":
            assert self.serving.poll() is None and time.monotonic() < until, found + self.log_text()
            time.sleep(0.05)

    def stop(self, grace):
        """Stops the pod as the kubelet does after preStop: SIGTERM to process 1, then at most the grace period."""
        began = time.monotonic()
        os.kill(self.init(), signal.SIGTERM)
        code = self.serving.wait(timeout=grace)
        return code, time.monotonic() - began

    def end(self):
        if self.serving and self.serving.poll() is None:
            # Process 1 changed its user, so it does not die with its parent; unshare waits for it.
            os.kill(self.init(), signal.SIGKILL)
            self.serving.wait()


def texts(secret):
    plain = dict(secret.get("stringData", {}))
    return plain | {key: base64.b64decode(value).decode() for key, value in secret.get("data", {}).items()}


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    # Root sets up the mounts, so only root must be able to reach the volumes.
    tmp_path.chmod(0o755)
    yield machine
    machine.end()


def install(machine, values):
    documents = render(merge(values, {"drain": {"limitSeconds": 5, "preStopSeconds": 0}}))
    pod, container = machine.serve(documents)
    machine.until_ready(container)
    return documents, pod


def test_the_pod_runs_a_task_stops_in_time_and_keeps_the_task(machine):
    documents, pod = install(machine, OPEN)
    for name in ("startup", "liveness"):
        assert machine.probe(server(documents)[1], name) == "SERVING", name
    done = machine.client("task", "run", "compute", "--json", "1000", "--id", "kept")
    assert done.returncode == 0, done.stderr + machine.log_text()
    code, seconds = machine.stop(pod["terminationGracePeriodSeconds"])
    assert code == 0, machine.log_text()
    assert seconds < pod["terminationGracePeriodSeconds"] - 10
    # The next pod uses the same volume.
    _, container = machine.serve(documents)
    machine.until_ready(container)
    found = machine.client("task", "get", "kept")
    assert "COMPLETED" in found.stdout, found.stdout + found.stderr
    assert machine.stop(20)[0] == 0


def test_the_pod_has_no_capabilities(machine):
    install(machine, OPEN)
    status = pathlib.Path(f"/proc/{machine.init()}/status").read_text()
    held = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    assert held["NSpid"].split()[-1] == "1"
    assert set(held["Uid"].split()) == set(held["Gid"].split()) == {"65532"}
    assert int(held["CapEff"], 16) == int(held["CapBnd"], 16) == 0
    assert held["NoNewPrivs"].strip() == "1"


def test_a_server_for_handlers_with_users_has_only_the_capabilities_for_them(machine):
    handler = {"name": "version", "runner": "process", "argv": ["/usr/local/bin/lineshaft", "--version"],
               "user": "2000", "group": "2000", "retry": {"attempts": 1}}
    users = {"config": {"handler": [handler]}, "securityContext": {"handlerUsers": True}}
    documents, _ = install(machine, merge(OPEN, users))
    status = pathlib.Path(f"/proc/{machine.init()}/status").read_text()
    held = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    mask = sum(1 << number for number in run_container.CAPABILITIES.values())
    assert int(held["CapEff"], 16) == int(held["CapBnd"], 16) == mask
    assert (set(held["Uid"].split()), held["NoNewPrivs"].strip()) == ({"0"}, "1")
    for _ in range(2):
        done = machine.client("task", "run", "version")
        assert done.returncode == 0 and "lineshaft" in done.stdout, done.stdout + done.stderr + machine.log_text()
    # The server gives the directories of the user to it, and takes them back.
    assert machine.stop(20)[0] == 0
    _, container = machine.serve(documents)
    machine.until_ready(container)
    assert "failed to remove" not in machine.log_text(), machine.log_text()


def test_helm_test_and_the_doctor_command_of_the_guide_pass(machine):
    documents, _ = install(machine, {})
    test = only(documents, "Pod")
    done = machine.run_beside(documents, test)
    assert done.returncode == 0, done.stdout + done.stderr + machine.log_text()
    assert done.stdout.strip()
    line = next(line for line in COMMANDS if " doctor " in line)
    done = machine.execute(*line.split(" -- ")[1].split())
    assert done.returncode == 0 and "/var/lib/lineshaft is in use by a server" in done.stdout, done.stdout + done.stderr


def test_helm_test_passes_over_tls_with_a_client_certificate(machine):
    authority, callers = trustme.CA(), trustme.CA()
    served = authority.issue_cert("demo-lineshaft.work.svc")
    caller = callers.issue_cert("helm-test")
    machine.secrets = {
        "cert": pair(served) | {"ca.crt": authority.cert_pem.bytes().decode()},
        "callers": {"ca.crt": callers.cert_pem.bytes().decode()},
        "me": pair(caller),
    }
    grant = {"subject": "*", "role": "submitter", "namespaces": ["*"]}
    documents, _ = install(machine, {
        "auth": {"tokens": {"enabled": False}},
        "tls": {"enabled": True, "existingSecret": "cert", "clientCaSecret": "callers"},
        "config": {"auth": {"certificate": [grant]}},
        "test": {"certificateSecret": "me", "caSecret": "cert"},
    })
    done = machine.run_beside(documents, only(documents, "Pod"))
    assert done.returncode == 0, done.stdout + done.stderr + machine.log_text()
    without_tls = machine.client("task", "list", "--server", "http://localhost:7070")
    assert without_tls.returncode == 4, without_tls.stdout + without_tls.stderr


def test_only_revoked_certificates_are_refused(machine, tmp_path):
    authority, callers = trustme.CA(), trustme.CA()
    served = authority.issue_cert("localhost")
    known, revoked = (callers.issue_cert(name) for name in ("known", "revoked"))
    machine.secrets = {
        "cert": pair(served),
        "callers": {"ca.crt": callers.cert_pem.bytes().decode(), "lists.pem": revocation_list(callers, revoked)},
    }
    grant = {"subject": "*", "role": "submitter", "namespaces": ["*"]}
    install(machine, {
        "auth": {"tokens": {"enabled": False}},
        "tls": {"enabled": True, "existingSecret": "cert", "clientCaSecret": "callers", "clientCrlKey": "lists.pem"},
        "config": {"auth": {"certificate": [grant]}},
    })
    for caller, code in ((known, 0), (revoked, 4)):
        files = {"ca.pem": authority.cert_pem.bytes(), "me.pem": caller.cert_chain_pems[0].bytes(),
                 "me.key": caller.private_key_pem.bytes()}
        for name, text in files.items():
            (tmp_path / name).write_bytes(text)
        shown = ("--tls-ca", tmp_path / "ca.pem", "--tls-cert", tmp_path / "me.pem", "--tls-key", tmp_path / "me.key")
        done = machine.client("task", "list", "--server", "https://localhost:7070", *shown)
        assert done.returncode == code, done.stdout + done.stderr + machine.log_text()


def revocation_list(authority, *certificates):
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    now = datetime.datetime.now(datetime.timezone.utc)
    made = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    made = made.last_update(now - datetime.timedelta(days=1)).next_update(now + datetime.timedelta(days=1))
    for certificate in certificates:
        number = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes()).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now - datetime.timedelta(hours=1))
        made = made.add_revoked_certificate(entry.build())
    made = made.add_extension(x509.CRLNumber(1), critical=False).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def pair(certificate):
    return {"tls.crt": certificate.cert_chain_pems[0].bytes().decode(),
            "tls.key": certificate.private_key_pem.bytes().decode()}


def test_the_first_task_of_the_notes_runs(machine):
    documents, _ = install(machine, {})
    notes = chart.notes({})
    command = re.search(r"^  lineshaft (task run .*)$", notes, re.MULTILINE)[1]
    server_url = re.search(r"export LINESHAFT_SERVER=(\S+)", notes)[1]
    key = texts(only(documents, "Secret"))["admin-token"]
    done = machine.client(*command.split(), env={"LINESHAFT_SERVER": server_url, "LINESHAFT_TOKEN": key})
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_call_without_a_key_is_refused(machine):
    documents, _ = install(machine, {})
    done = machine.client("task", "run", "compute", "--json", "1", env={})
    assert done.returncode == 3, done.stdout + done.stderr
    assert "UNAUTHENTICATED" in done.stderr.upper() or "API key" in done.stderr, done.stderr


def test_the_root_file_system_has_only_the_files_of_the_image(machine):
    """The tests are meaningful only if nothing else is there, for example no shell."""
    handler = {"name": "shell", "runner": "process", "argv": ["/bin/sh", "-c", "true"], "retry": {"attempts": 1}}
    install(machine, merge(OPEN, {"config": {"handler": [handler]}}))
    done = machine.client("task", "run", "shell")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No such file" in done.stdout + done.stderr


def keda_trigger(machine, documents):
    """The trigger that KEDA derives from the ScaledObject, its TriggerAuthentication and its Service."""
    [trigger] = only(documents, "ScaledObject")["spec"]["triggers"]
    parameters = {}
    if "authenticationRef" in trigger:
        authentication = only(documents, "TriggerAuthentication", trigger["authenticationRef"]["name"])
        for wanted in authentication["spec"]["secretTargetRef"]:
            parameters[wanted["parameter"]] = machine.secrets[wanted["name"]][wanted["key"]]
    host, port = trigger["metadata"]["scalerAddress"].split(":")
    service = only(documents, "Service", host.split(".")[0])
    assert host == f"{service['metadata']['name']}.work.svc"
    [target] = [p["targetPort"] for p in service["spec"]["ports"] if p["port"] == int(port)]
    _, container = server(documents)
    [number] = [p["containerPort"] for p in container["ports"] if p["name"] == target]
    return {"address": f"127.0.0.1:{number}", "authority": f"{host}:{port}", "metadata": trigger["metadata"],
            "parameters": parameters}


def start_keda(machine, trigger):
    command = ["nsenter", f"--net=/proc/{machine.init()}/ns/net", sys.executable, str(HERE / "keda.py"), json.dumps(trigger)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def assert_scaled(machine, documents, env):
    """Checks the readings before and after a task is submitted."""
    with start_keda(machine, keda_trigger(machine, documents)) as keda:
        first = json.loads(keda.stdout.readline())
        changes = {"target": 4, "changes": "UNIMPLEMENTED"}
        assert first == {"pushed": False, "active": False, "value": 0, **changes}, first
        done = machine.client("task", "submit", "io", "--json", "600", "--pool", "render", env=env)
        assert done.returncode == 0, done.stderr
        second = json.loads(keda.stdout.readline())
        assert second == {"pushed": True, "active": True, "value": 1, **changes}, second
        assert keda.wait(TIMEOUT) == 0


def test_keda_scales_with_the_values_of_the_guide(machine):
    documents, _ = install(machine, FILES["keda.yaml"])
    key = texts(only(documents, "Secret"))["admin-token"]
    assert_scaled(machine, documents, {"LINESHAFT_TOKEN": key, "LINESHAFT_SERVER": "http://localhost:7070"})


def test_keda_scales_with_a_certificate_as_in_the_guide(machine, tmp_path):
    ours, callers = trustme.CA(), trustme.CA()
    name = "demo-lineshaft.work.svc"
    keda = pair(callers.issue_cert("keda-operator")) | {"ca.crt": ours.cert_pem.bytes().decode()}
    made = subprocess.run([BINARY, "token", "create", "ci", "--role", "submitter", "--namespace", "default", "--file", "t"],
                          cwd=tmp_path, capture_output=True, text=True, check=True)
    machine.secrets = {
        "lineshaft-certificate": pair(ours.issue_cert(name, "localhost")), "lineshaft-keda": keda,
        "lineshaft-callers": {"ca.crt": callers.cert_pem.bytes().decode()},
        "lineshaft-keys": {"tokens": (tmp_path / "t").read_text()},
    }
    documents, _ = install(machine, FILES["keda-tls.yaml"])
    (tmp_path / "ca").write_text(keda["ca.crt"])
    assert_scaled(machine, documents, {"LINESHAFT_TOKEN": made.stdout.strip(), "LINESHAFT_TLS_CA": str(tmp_path / "ca"),
                                       "LINESHAFT_SERVER": "https://localhost:7070"})
    # Without its certificate KEDA is not authenticated.
    trigger = keda_trigger(machine, documents)
    trigger["parameters"] = {"caCert": keda["ca.crt"]}
    with start_keda(machine, trigger) as unauthenticated:
        assert json.loads(unauthenticated.stdout.readline()) == {"refused": "UNAUTHENTICATED"}


def submit_until_ended(machine, acknowledged, ended):
    number = 0
    while not ended.is_set():
        done = machine.client("task", "submit", "io", "--json", "0.01", "--id", f"load-{number}")
        if done.returncode == 0:
            acknowledged.append(f"load-{number}")
        number += 1


def test_backup_and_restore_of_the_guide_keep_every_task(machine):
    """Runs the commands of docs/kubernetes.md in order on their claims."""
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in PODS["restore.pod.yaml"]["spec"]["volumes"]]
    data, copies = (machine.claim(claim) for claim in claims)
    values = merge(merge(OPEN, FILES["backup.yaml"]), {"fullnameOverride": "lineshaft"})
    documents, pod = install(machine, values)
    assert (data / "journal.db").exists() and copies.exists(), "the restore must use the claims of the chart"
    kept = machine.client("task", "submit", "io", "--json", "1", "--delay", "1h", "--id", "kept")
    assert kept.returncode == 0, kept.stderr
    acknowledged, ended = [], threading.Event()
    load = threading.Thread(target=submit_until_ended, args=(machine, acknowledged, ended))
    load.start()
    try:
        until = time.monotonic() + TIMEOUT
        while len(acknowledged) < 5:
            assert time.monotonic() < until, machine.log_text()
            time.sleep(0.01)
        before = list(acknowledged)
        executed = [line.split(" -- ")[1] for line in COMMANDS if "store " in line and " exec " in line]
        assert [words.split()[2] for words in executed] == ["backup", "check"]
        for words in executed:
            done = machine.execute(*words.split())
            assert done.returncode == 0 and "all checksums match" in done.stdout, done.stdout + done.stderr
    finally:
        ended.set()
        load.join()
    assert len(acknowledged) > len(before), "the server must accept tasks during the backup"
    assert machine.stop(pod["terminationGracePeriodSeconds"])[0] == 0, machine.log_text()

    restored = machine.run_with_the_tools_of_this_machine(PODS["restore.pod.yaml"])
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert len(list(data.glob("replaced-*/journal.db"))) == 1
    machine.serve(documents)
    machine.until_ready(server(documents)[1])
    for task in before:
        done = machine.client("task", "wait", task)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "WAITING" in machine.client("task", "get", "kept").stdout
    checked = machine.execute("/usr/local/bin/lineshaft", "store", "check", "/var/lib/lineshaft")
    assert checked.returncode == 0 and "a server is using the store" in checked.stdout, checked.stdout + checked.stderr
    assert machine.stop(20)[0] == 0
