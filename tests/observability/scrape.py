"""Starts the server and a Prometheus, runs tasks, and checks what Prometheus has scraped."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
OBSERVABILITY = ROOT / "docs" / "observability"
TIMEOUT = 60
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CONFIG = """
[server]
health_listen = "127.0.0.1:0"

[[pool]]
name = "default"
size = 2

[[handler]]
name = "fails"
runner = "process"
argv = ["/bin/false"]
retry = { attempts = 2, delay = "10ms" }
"""
# Exemplars for all measurements, and a separate port for Prometheus.
EAGER = {
    "OTEL_METRICS_EXEMPLAR_FILTER": "always_on",
    "OTEL_METRICS_EXPORTER": "prometheus",
    "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
    "OTEL_EXPORTER_PROMETHEUS_PORT": "0",
}
# Names from the semantic conventions of OpenTelemetry; promtool reserves this suffix for histograms.
TOLERATED = re.compile(r'^\S+_count non-histogram and non-summary metrics should not have "_count" suffix$')


def get(url, headers=None):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as response:
        return response.read().decode()


def call(address, method, body, headers=None):
    """Calls an RPC with JSON."""
    url = f"http://{address}/lineshaft.v1.TaskService/{method}"
    headers = {"content-type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=90) as response:
        return json.load(response)


def until(what, question):
    """Waits until `question` returns a value that is not empty."""
    end = time.monotonic() + TIMEOUT
    while True:
        response = question()
        if response:
            return response
        if time.monotonic() > end:
            raise SystemExit(f"timeout: {what}")
        time.sleep(0.1)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_server(folder, message="health endpoint listening", variables=None):
    """Starts a server; returns its process, its address, and the address in the log line with this message."""
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(CONFIG)
    ready, log = folder / "ready", folder / "server.log"
    arguments = ["serve", "--listen", "127.0.0.1:0", "--config", folder / "config.toml"]
    arguments += ["--data-dir", folder / "data", "--ready-file", ready]
    with log.open("w") as err:
        command = [os.environ["LINESHAFT_BINARY"], *arguments]
        server = subprocess.Popen(command, stdout=err, stderr=err, env={**os.environ, **(variables or {})})

    def addresses():
        if server.poll() is not None:
            raise SystemExit(log.read_text())
        found = re.search(rf'"{message}","address":"([^"]+)"', log.read_text())
        return found and ready.exists() and (ready.read_text().strip(), found[1])

    return server, *until("the server is ready", addresses)


def start_prometheus(folder, targets):
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(OBSERVABILITY / "alerts.yaml")],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [target]}]} for name, target in targets.items()
        ],
    }
    # JSON is valid YAML.
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    port = free_port()
    arguments = [f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    arguments += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"]
    with (folder / "prometheus.log").open("w") as err:
        prometheus = subprocess.Popen(["prometheus", *arguments], stderr=err, stdout=err)
    return prometheus, f"http://127.0.0.1:{port}/api/v1"


class Prometheus:
    """Client of the Prometheus API."""

    def __init__(self, url):
        self.url = url

    def ask(self, path, **query):
        try:
            return json.loads(get(f"{self.url}/{path}?{urllib.parse.urlencode(query)}"))["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # Prometheus is starting.
                return None
            raise SystemExit(f"{path} {query}: {error.read().decode()}") from error
        except OSError:
            return None

    def value(self, expression):
        """The sum of an expression, or None without results."""
        found = self.ask("query", query=f"sum({expression})")
        return float(found["result"][0]["value"][1]) if found and found["result"] else None

    def traces(self, series):
        """The trace ids of the exemplars of a series; None for an exemplar without a trace id."""
        query = {"query": series, "start": time.time() - 300, "end": time.time() + 300}
        seen = until(f"an exemplar of {series}", lambda: self.ask("query_exemplars", **query))
        return {exemplar["labels"].get("trace_id") for found in seen for exemplar in found["exemplars"]}


def do_work(address):
    trace = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    for number in range(20):
        call(address, "SubmitTask", {"handler": "compute", "taskId": f"t-{number}", "payload": {"json": 1000}}, trace)
    call(address, "SubmitTask", {"handler": "fails", "taskId": "bad"})
    for name in [f"t-{number}" for number in range(20)] + ["bad"]:
        until(f"{name} ends", lambda: call(address, "WaitTask", {"taskId": name})["finished"])


def check_exposition(address, with_traces=True):
    for accept in ("text/plain", "application/openmetrics-text"):
        text = get(f"http://{address}/metrics", {"accept": accept})
        if accept == "text/plain":
            check = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
            faults = [line for line in check.stderr.splitlines() if not TOLERATED.match(line)]
            if faults or check.returncode not in (0, 3):
                raise SystemExit("promtool check metrics:\n" + "\n".join(faults))
        elif not text.endswith("# EOF\n") or (TRACE in text) != with_traces:
            raise SystemExit("the OpenMetrics text has no exemplar or no `# EOF`")


def expressions_of_dashboard():
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    variables = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*", "$pool": ".*"}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in variables.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression


def check_expressions(api):
    """Checks that every expression is valid and, unless listed in `empty`, has results."""
    # Panels that have no data on a healthy server that was not paused, resized or disconnected.
    empty = {"Oldest queued by pool", "Watches caught up from the journal", "Commit duration", "Failed calls"}
    count = 0
    for title, expression in expressions_of_dashboard():
        found = api.ask("query", query=expression)
        count += 1
        may_be_empty = title in empty or "> 0" in expression or "== 1" in expression
        if not found["result"] and not may_be_empty:
            raise SystemExit(f"the panel {title!r} has no data: {expression}")
    rules = api.ask("rules")["groups"][0]["rules"]
    broken = [rule["name"] for rule in rules if rule["health"] == "err"]
    if broken:
        raise SystemExit(f"alerts with evaluation errors: {broken}")
    return count, len(rules)


def main():
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        try:
            server, address, probes = start_server(folder)
            processes.append(server)
            eager, its_address, its_port = start_server(folder / "eager", "Prometheus endpoint listening", EAGER)
            processes.append(eager)
            prometheus, url = start_prometheus(folder, {"lineshaft": probes, "eager": its_port})
            processes.append(prometheus)
            api = Prometheus(url)
            for name in ("lineshaft", "eager"):
                until(f"the first scrape of {name}", lambda: api.value(f'up{{job="{name}"}}') == 1)
            do_work(address)
            check_exposition(address)
            check_exposition(probes)
            done = 'lineshaft_task_finished_total{result="completed"}'
            until("20 tasks are seen", lambda: api.value(done) == 20)
            failed = 'lineshaft_task_finished_total{result="failed",error_type="HANDLER_ERROR"}'
            until("the failure is seen", lambda: api.value(failed) == 1)
            until("rates can be computed", lambda: api.value("rate(lineshaft_task_submitted_total[1m])") is not None)
            for what in ("rpc_server_call", "lineshaft_task", "lineshaft_task_wait"):
                traces = api.traces(f'{what}_duration_seconds_bucket{{job="lineshaft"}}')
                if traces != {TRACE}:
                    raise SystemExit(f"exemplars with unexpected traces: {what} {traces}")
            # A call without a trace.
            check_exposition(its_port, with_traces=False)
            call(its_address, "ListTasks", {})
            traces = api.traces('rpc_server_call_duration_seconds_bucket{job="eager"}')
            if traces != {None} or api.value('up{job="eager"}') != 1:
                raise SystemExit(f"Prometheus did not accept exemplars without a trace: {traces}")
            panels, rules = check_expressions(api)
            print(f"20 tasks, 1 failure, exemplars; {panels} expressions of the dashboard and {rules} alerts evaluated")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(timeout=30)


if __name__ == "__main__":
    sys.exit(main())
