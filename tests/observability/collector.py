"""Runs the server with real collectors and checks what they receive."""

import asyncio
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import rotel
from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

LINESHAFT = os.environ["LINESHAFT_BINARY"]
AGENT = pathlib.Path(rotel.__file__).parent / "rotel-agent"
OTELTAP = pathlib.Path(sys.executable).parent / "oteltap"
TIMEOUT = 60
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, look):
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"timeout: {what}")


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Running:
    """A process whose output is written to a file."""

    def __init__(self, command, log, **variables):
        self.log = log
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**inherited, **variables})

    def text(self):
        return self.log.read_text(errors="replace")

    def stop(self, number=signal.SIGTERM):
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(TIMEOUT)
        return time.monotonic() - began


class Server(Running):
    def __init__(self, folder, **variables):
        ready = folder / "ready"
        ready.unlink(missing_ok=True)
        command = [LINESHAFT, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder / "data", "--ready-file", ready]
        super().__init__(command, folder / "server.log", **variables)
        until("the server is ready", ready.exists)
        self.address = ready.read_text().strip()

    def call(self, method, message, **headers):
        request = urllib.request.Request(
            f"http://{self.address}/lineshaft.v1.TaskService/{method}", json.dumps(message).encode(),
            {"content-type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)


def agent(folder, grpc, http):
    command = [AGENT, "start", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}",
               "--debug-log", "traces", "--debug-log", "logs", "--debug-log-verbosity", "detailed",
               "--exporter", "blackhole"]
    started = Running(command, folder / "agent.log")
    until("the collector listens", lambda: is_listening(grpc) and is_listening(http))
    return started


CERTIFICATES = """
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $new -keyout ca.key -out ca.pem -days 2 -subj "/CN=collectors" \\
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
for name in collector lineshaft; do
  openssl req $new -keyout $name.key -out $name.csr -subj /CN=$name
  printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > $name.ext
  openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
done
"""


class TlsProxy:
    """A TLS proxy that requires client certificates, in front of a collector without TLS."""

    def __init__(self, folder, behind):
        subprocess.run(["bash", "-euc", CERTIFICATES], cwd=folder, check=True, capture_output=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "collector.pem", folder / "collector.key")
        self.context.load_verify_locations(folder / "ca.pem")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        self.behind = behind
        self.port = free_port()
        threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True).start()
        until("TLS listens", lambda: is_listening(self.port))

    async def serve(self):
        server = await asyncio.start_server(self.connected, "127.0.0.1", self.port, ssl=self.context)
        await server.serve_forever()

    async def connected(self, reader, writer):
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self.behind)
        await asyncio.gather(self.pump(reader, behind_writer), self.pump(behind_reader, writer))

    @staticmethod
    async def pump(reader, writer):
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass  # One side closed; close the other.
        writer.close()


def spans(text):
    """Parses the spans in the debug output of the collector: name → fields."""
    found = {}
    for part in re.split(r"\n\s*(?:Span|ResourceSpans|ScopeSpans) #\d+", text):
        fields = dict(re.findall(r"^\s*(Trace ID|Parent ID|ID|Name|Kind)\s*: (.*)$", part, re.M))
        if "Name" in fields:
            found.setdefault(fields["Name"].strip(), []).append({key: value.strip() for key, value in fields.items()})
    return found


def one_trace(folder, protocol, private=False):
    folder.mkdir()
    grpc, http = free_port(), free_port()
    collector = agent(folder, grpc, http)
    port = grpc if protocol == "grpc" else http
    where = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    if private:
        where = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{TlsProxy(folder, port).port}",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(folder / "ca.pem"),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(folder / "lineshaft.pem"),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(folder / "lineshaft.key"),
        }
    server = Server(folder, OTEL_EXPORTER_OTLP_PROTOCOL=protocol, OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
                    OTEL_SERVICE_NAME="tasks", **where)
    submitted = server.call("SubmitTask", {"handler": "compute", "payload": {"json": 1000}},
                            traceparent=f"00-{TRACE}-{CALLER}-01")
    server.call("WaitTask", {"taskId": submitted["taskId"]})
    assert server.stop() < 5, server.text()
    dump = until("all spans", lambda: "process default" in collector.text() and collector.text())
    collector.stop()
    tree = spans(dump)
    call = tree["lineshaft.v1.TaskService/SubmitTask"][0]
    send, run = tree["send default"][0], tree["process default"][0]
    assert [span["Trace ID"] for span in (call, send, run)] == [TRACE] * 3, tree
    assert call["Parent ID"] == CALLER and send["Parent ID"] == call["ID"] and run["Parent ID"] == send["ID"], tree
    assert "service.name" in dump and "tasks" in dump and "serving" in dump, "resource attributes and log records"
    assert "telemetry was lost" not in server.text(), server.text()
    print(f"ok: one trace over {protocol}{' with TLS' if private else ''}")


def trace_from_python(folder):
    """A caller with its own OpenTelemetry SDK and the same collector gets one trace from its span to the attempt."""
    folder.mkdir()
    grpc, http = free_port(), free_port()
    collector = agent(folder, grpc, http)
    server = Server(folder, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{grpc}", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"http://127.0.0.1:{http}/v1/traces")))
    with provider.get_tracer("shop").start_as_current_span("place an order", kind=SpanKind.CLIENT):
        headers = {}
        propagate.inject(headers)
        submitted = server.call("SubmitTask", {"handler": "compute", "payload": {"json": 1000}}, **headers)
    server.call("WaitTask", {"taskId": submitted["taskId"]})
    server.stop()
    provider.shutdown()
    everything = ("place an order", "process default")
    dump = until("spans of both programs", lambda: all(name in collector.text() for name in everything) and collector.text())
    collector.stop()
    tree = spans(dump)
    line = [tree[name][0] for name in ("place an order", "lineshaft.v1.TaskService/SubmitTask", "send default", "process default")]
    assert not line[0].get("Parent ID"), line
    for parent, child in itertools.pairwise(line):
        assert child["Parent ID"] == parent["ID"] and child["Trace ID"] == parent["Trace ID"], line
    print("ok: one trace from a Python program to the attempt of its task")


def second_collector(folder):
    """Another collector, with HTTP only, waits for a span."""
    folder.mkdir()
    port = free_port()
    collector = Running([OTELTAP, "--port", port, "--await-span", "^process default$"], folder / "oteltap.log")
    until("the collector listens", lambda: is_listening(port))
    server = Server(folder, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}", OTEL_BSP_SCHEDULE_DELAY="100")
    server.call("SubmitTask", {"handler": "compute", "payload": {"json": 1000}})
    assert collector.process.wait(TIMEOUT) == 0, collector.text()
    server.stop()
    print("ok: a second collector received the span")


def killed_under_load(folder):
    folder.mkdir()
    grpc, http = free_port(), free_port()
    collector = agent(folder, grpc, http)
    server = Server(folder, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{grpc}", OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
                    OTEL_BSP_SCHEDULE_DELAY="100", OTEL_EXPORTER_OTLP_TIMEOUT="1000")
    ids = []

    def load():
        batch = {"tasks": [{"handler": "compute", "payload": {"json": 1}}] * 500}
        ids.extend(server.call("BatchSubmitTasks", batch)["taskIds"])

    load()
    until("spans arrive", lambda: "process default" in collector.text())
    collector.stop(signal.SIGKILL)
    for _ in range(6):
        load()
    for task in ids[::100] + ids[-1:]:
        state = server.call("WaitTask", {"taskId": task})["task"]["state"]
        assert state == "TASK_STATE_COMPLETED", state
    before = len(collector.text())
    again = agent(folder, grpc, http)

    def arrives():
        load()
        return "process default" in again.text()[before:]

    until("spans arrive again", arrives)
    left = server.call("ListTasks", {"filter": {"states": ["TASK_STATE_FAILED", "TASK_STATE_CANCELLED"]}})
    assert not left.get("tasks"), left
    assert server.stop() < 5, server.text()
    again.stop()
    assert "telemetry was lost" in server.text(), "the log must report lost telemetry"
    print(f"ok: killing a collector under load lost none of {len(ids)} tasks")


def main():
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        one_trace(folder / "grpc", "grpc")
        one_trace(folder / "http", "http/protobuf")
        one_trace(folder / "grpc-tls", "grpc", private=True)
        one_trace(folder / "http-tls", "http/protobuf", private=True)
        trace_from_python(folder / "python")
        second_collector(folder / "awaited")
        killed_under_load(folder / "killed")


if __name__ == "__main__":
    main()
