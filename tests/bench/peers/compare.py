"""Runs the same functions through Lineshaft and through its peers, in turn, and prints a table. See README.md."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
START_SECONDS_MAX = 30
MEASURE_SECONDS_MAX = 60
# Handlers that accept tasks before a worker has connected; results that are not deleted during a run.
CONFIGURATION = "[retention]\ncount = 1000000\n" + "".join(
    f'[[handler]]\nname = "{name}"\nrunner = "remote"\n' for name in ("noop", "sleep", "true")
)

# System: its server. The first one is compared with the others.
LANGUAGES = {
    "python": {"lineshaft": "lineshaft", "celery": "redis", "dramatiq": "redis", "huey": "redis"},
    "node": {"lineshaft": "lineshaft", "bullmq": "redis"},
    "go": {"lineshaft": "lineshaft", "asynq": "redis", "river": "postgres"},
}
# Name, arguments, whether a worker runs. Less is better for those that end with "p50".
MEASUREMENTS = [
    ("submit, 1 caller", ["submit", "1", "SECONDS"], False),
    ("submit, {callers} callers", ["submit", "CALLERS", "SECONDS"], False),
    ("end to end, no-op", ["run", "noop", "CALLERS", "SECONDS"], True),
    ("end to end, 5 ms of sleep", ["run", "sleep", "CALLERS", "SECONDS"], True),
    ("end to end, /bin/true", ["run", "true", "CALLERS", "SECONDS"], True),
    ("one at a time, no-op, p50", ["call", "noop", "SECONDS"], True),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("language", choices=LANGUAGES)
    parser.add_argument("--binary", required=True, help="the lineshaft binary")
    parser.add_argument("--program", required=True, help="command of the language's program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    parser.add_argument("--callers", type=int, default=32, help="callers that submit at the same time")
    parser.add_argument("--concurrency", type=int, default=32, help="tasks that a worker runs at a time")
    parser.add_argument("--appendfsync", choices=["everysec", "always"], default="everysec", help="setting of Redis")
    parser.add_argument("--only", help="systems, separated by commas")
    parser.add_argument("--measure", default="", help="regular expression for the names of the measurements")
    parser.add_argument("--json", type=pathlib.Path, help="write all values to this file")
    options = parser.parse_args()
    systems = LANGUAGES[options.language]
    if options.only:
        systems = {name: systems[name] for name in options.only.split(",")}

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("stopped"))  # so that servers and workers end too
    values = {}
    names = list(systems)
    for number in range(options.rounds):
        for system in names if number % 2 == 0 else reversed(names):
            for name, value in measure(system, systems[system], options).items():
                values.setdefault(name, {}).setdefault(system, []).append(value)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(values, indent=1))
    report(names, values)


def measure(system, kind, options):
    """One round of a system: fresh servers, and a worker for the measurements that need one."""
    results = {}
    for with_worker in (False, True):
        with tempfile.TemporaryDirectory(prefix="peers-") as folder, contextlib.ExitStack() as stack:
            done = pathlib.Path(folder, "done")
            done.touch()
            address = stack.enter_context(SERVERS[kind](pathlib.Path(folder, "server"), options))
            environment = {
                **os.environ, "PEER_ADDRESS": address, "PEER_DONE": str(done),
                "PEER_CONCURRENCY": str(options.concurrency),
            }
            program = [*shlex.split(options.program), system]
            if with_worker:
                stack.enter_context(process([*program, "work"], folder, environment))
            for template, arguments, needs_worker in MEASUREMENTS:
                name = template.format(callers=options.callers)
                if needs_worker != with_worker or not re.search(options.measure, name):
                    continue
                filled = [
                    {"CALLERS": str(options.callers), "SECONDS": str(options.seconds)}.get(one, one) for one in arguments
                ]
                try:
                    run = subprocess.run(
                        [*program, *filled], env=environment, capture_output=True, text=True, timeout=MEASURE_SECONDS_MAX
                    )
                except subprocess.TimeoutExpired:
                    if kind == "lineshaft":
                        raise
                    # Seen of BullMQ, which can miss the end of a job that it waits for. The other rounds count.
                    print(f"{system}: {' '.join(filled)} did not end; its round does not count", file=sys.stderr)
                    results[name] = None
                    continue
                if run.returncode != 0 or not run.stdout.strip():
                    logs = "".join(one.read_text(errors="replace")[-2000:] for one in pathlib.Path(folder).rglob("log"))
                    sys.exit(f"{system}: {' '.join(filled)} failed: {run.stderr[-2000:]}\n{logs}")
                results[name] = json.loads(run.stdout.splitlines()[-1])
    return results


@contextlib.contextmanager
def process(command, folder, environment=None, user=None):
    """Runs a process group in the background, and kills it at the end."""
    with open(pathlib.Path(folder, "log"), "ab") as log:
        child = subprocess.Popen(
            command, cwd=folder, env=environment, user=user, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            process_group=0,  # not a session: the scheduler would treat it as another group than the callers
        )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def free_port():
    with socket.create_server((LOOPBACK, 0)) as listener:
        return listener.getsockname()[1]


def wait_until_reachable(port):
    until = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            return socket.create_connection((LOOPBACK, port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                sys.exit(f"nothing listens on port {port}")
            time.sleep(0.01)


@contextlib.contextmanager
def lineshaft(folder, options):
    folder.mkdir()
    port = free_port()
    (folder / "config.toml").write_text(CONFIGURATION)
    command = [options.binary, "serve", "--listen", f"{LOOPBACK}:{port}", "--config", "config.toml", "--data-dir", "data"]
    with process(command, folder):
        wait_until_reachable(port)
        yield f"{LOOPBACK}:{port}"


@contextlib.contextmanager
def redis(folder, options):
    folder.mkdir()
    port = free_port()
    command = [
        "redis-server", "--bind", LOOPBACK, "--port", str(port), "--dir", str(folder), "--save", "",
        "--appendonly", "yes", "--appendfsync", options.appendfsync,
    ]
    with process(command, folder):
        wait_until_reachable(port)
        yield f"{LOOPBACK}:{port}"


@contextlib.contextmanager
def postgres(folder, options):
    folder.mkdir()
    port = free_port()
    program = shutil.which("initdb") or max(map(str, pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    bin_folder = pathlib.Path(program).resolve().parent
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root.
        user = "postgres"
        folder.parent.chmod(0o755)
        shutil.chown(folder, user)
    data = folder / "data"
    initialize = [bin_folder / "initdb", "--username", "postgres", "--auth", "trust", "--pgdata", data]
    subprocess.run(initialize, cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL)
    settings = {"listen_addresses": LOOPBACK, "port": port, "unix_socket_directories": "", "max_connections": 200}
    command = [bin_folder / "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())]
    with process(command, folder, user=user):
        until = time.monotonic() + START_SECONDS_MAX
        while subprocess.run([bin_folder / "pg_isready", "--quiet", "--host", LOOPBACK, "--port", str(port)]).returncode:
            if time.monotonic() > until:
                sys.exit(f"PostgreSQL does not start on port {port}")
            time.sleep(0.05)
        yield f"{LOOPBACK}:{port}"


SERVERS = {"lineshaft": lineshaft, "redis": redis, "postgres": postgres}


def report(names, values):
    """Medians, and the median of the ratios within a round. A ratio above 1 is in favour of Lineshaft."""
    ours, peers = names[0], names[1:]
    print("| | " + " | ".join([ours, *(cell for peer in peers for cell in (peer, "ratio"))]) + " |")
    print("|---" * (2 + 2 * len(peers)) + "|")
    for name, of in values.items():
        is_time = name.endswith("p50")
        cells = [show(statistics.median(of[ours]), is_time)]
        for peer in peers:
            rounds = [(a, b) for a, b in zip(of[ours], of[peer]) if b is not None]
            if not rounds:
                cells += ["–", "–"]
                continue
            ratios = [b / a if is_time else a / b for a, b in rounds]
            cells += [show(statistics.median(b for _, b in rounds), is_time), f"× {statistics.median(ratios):.2f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")


def show(value, is_time):
    return f"{value:.2f} ms" if is_time else f"{float(f'{value:.3g}'):,.0f} /s"


if __name__ == "__main__":
    main()
