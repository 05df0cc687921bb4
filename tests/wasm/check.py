"""Runs guests in C, Go and Python as tasks of a server, and checks what comes of them.

`check.py BINARY DIRECTORY`; the directory has `c.wasm`, `go.wasm` and `python.wasm`.
"""

import base64
import json
import pathlib
import subprocess
import sys
import time
import urllib.request

# Seconds. A server with a compiler that is hardly optimized needs half a minute for the guests, and more on a busy machine.
TIMEOUT = 300

# A handler for each guest, and one that can see the time.
HANDLER = """
[[handler]]
name = "{name}"
runner = "wasm"
module = {module}
argv = ["{guest}"]
arg_pattern = "[a-z]+"
clock = {clock}
retry = {{ attempts = 1 }}
timeout = "20s"
env = {{ CUSTOMER = "no 7" }}
permanent_exit_codes = ["64-78"]
limits = {{ memory = "{memory}" }}
"""

# Name, guest, clock, memory.
HANDLERS = [
    ("c", "c", "false", "32MiB"),
    ("go", "go", "false", "32MiB"),
    ("go-clock", "go", "true", "32MiB"),
    ("python", "python", "false", "64MiB"),
]

# Handler, argument, payload, result or failure: reason, and texts in its message and detail.
CASES = [
    ("c", "upper", b"quiet", b"QUIET"),
    ("c", "upper", b"x" * 300_000, b"X" * 300_000),
    ("c", "escape", b"", b"nothing reached"),
    ("c", "allocate", b"", ("OUT_OF_MEMORY", "33554432 bytes", "no memory")),
    ("c", "recurse", b"", ("STACK_OVERFLOW", "call stack exhausted", "recurse")),
    ("c", "abort", b"", ("PANIC", "unreachable", "abort")),
    ("c", "exit", b"", ("HANDLER_ERROR", "exited with code 75", "")),
    ("c", "time", b"", b"1"),
    ("go", "count", b'{"text":"a b a"}', b'{"a":2,"b":1}\n'),
    ("go", "count", b"no JSON", ("HANDLER_ERROR", "exited with code 65", "not JSON")),
    ("go", "panic", b"", ("HANDLER_ERROR", "exited with code 2", "out of order")),
    ("go", "escape", b"", b"nothing reached"),
    ("go", "allocate", b"", ("OUT_OF_MEMORY", "33554432 bytes", "goroutine")),
    ("go-clock", "sleep", b"", b"true"),
    ("python", "count", b'{"text":"a b a"}', b'{"a": 2, "b": 1} no 7'),
    ("python", "fail", b"", ("HANDLER_ERROR", "exited with code 1", "not today")),
    ("python", "allocate", b"", ("OUT_OF_MEMORY", "67108864 bytes", "")),
    ("python", "escape", b"", b"nothing reached"),
]


class Server:
    def __init__(self, binary, directory):
        config = "".join(
            HANDLER.format(name=n, guest=g, module=json.dumps(str(directory / f"{g}.wasm")), clock=c, memory=m)
            for n, g, c, m in HANDLERS
        )
        (directory / "lineshaft.toml").write_text(config)
        self.log = directory / "log"
        ready = directory / "ready"
        ready.unlink(missing_ok=True)
        command = [binary, "serve", "--config", directory / "lineshaft.toml", "--data-dir", directory / "data"]
        command += ["--listen", "127.0.0.1:0", "--ready-file", ready]
        began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > began + TIMEOUT:
                sys.exit(f"the server did not start:\n{self.log.read_text()}")
            time.sleep(0.01)
        self.start_time = time.monotonic() - began
        self.address = ready.read_text().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(TIMEOUT)

    def call(self, method, message):
        url = f"http://{self.address}/lineshaft.v1.TaskService/{method}"
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(url, json.dumps(message).encode(), headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)

    def submit(self, handler, argument, payload):
        data = base64.b64encode(payload).decode()
        return self.call("SubmitTask", {"handler": handler, "args": [argument], "payload": {"data": data}})["taskId"]

    def ended(self, task):
        return self.call("WaitTask", {"taskId": task, "timeout": "60s"})["task"]


def fault(expected, task):
    """What is wrong with a task that has ended; None if it is as expected."""
    failure = task.get("failure", {})
    if isinstance(expected, bytes):
        found = base64.b64decode(task.get("result", {}).get("data", ""))
        return None if not failure and found == expected else f"{failure or found[:200]}"
    reason, message, detail = expected
    is_right = failure.get("reason") == f"FAILURE_REASON_{reason}" and message in failure["message"]
    return None if is_right and detail in failure.get("detail", "") else f"{failure}"


def main(binary, directory):
    faults = []
    with Server(binary, directory) as server:
        compiled = server.start_time
        tasks = [(case, server.submit(*case[:3])) for case in CASES]
        for (handler, argument, _, expected), task in tasks:
            if found := fault(expected, server.ended(task)):
                faults.append(f"{handler} {argument}: expected {expected}, found {found}")
        # It uses all of the CPU that it gets, and ends when it is told to.
        spinning = server.submit("go", "spin", b"")
        while server.call("GetTask", {"taskId": spinning})["task"]["state"] != "TASK_STATE_RUNNING":
            time.sleep(0.01)
        server.call("CancelTask", {"taskId": spinning})
        if (ended := server.ended(spinning))["state"] != "TASK_STATE_CANCELLED":
            faults.append(f"go spin: {ended}")
    with Server(binary, directory) as server:
        print(f"start: {compiled:.1f}s with compilation, {server.start_time:.1f}s from the cache")
        if found := fault(b"A", server.ended(server.submit("c", "upper", b"a"))):
            faults.append(f"after a restart: {found}")
        if "compiled again" in server.log.read_text():
            faults.append("the cache was not used")
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(CASES) + 2} tasks of guests in C, Go and Python are as expected")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
