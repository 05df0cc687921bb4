"""Runs the clients in other languages against the real server.

Each language gets a scratch directory with a copy of its files and of `proto/`, a server of its own, and a TCP proxy
in front of this server. The harness runs the commands of the language's section in docs/clients.md in this directory:
they install, generate, build and run the first program. Then it runs the scenario, which prints `ok NAME` for each
check and must print every name in checks.txt.

If the checks of a language contain `spread`, it gets two more servers, which it may drain: LINESHAFT_TWINS has their
addresses, separated by a comma.

One more server for all languages requires TLS and tokens: LINESHAFT_SECURE (address), LINESHAFT_CA (file),
LINESHAFT_SUBMITTER and LINESHAFT_VIEWER (tokens with these roles).

A scenario sends a command to LINESHAFT_CONTROL to break something: `cut` resets every connection of the proxy, `crash`
kills the server with SIGKILL and restarts it on the same directory. Both respond with `done`.
"""

import argparse
import functools
import http.server
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
START_SECONDS_MAX = 60
COMMAND_SECONDS_MAX = 900
LOOPBACK = "127.0.0.1"
COLOUR = re.compile("\x1b\\[[0-9;]*m")


class Server:
    """A server process with its own data directory; it can be killed and restarted."""

    running = set()

    def __init__(self, binary, directory, config):
        self.binary = binary
        self.directory = directory
        self.ended = False
        self.lock = threading.Lock()
        directory.mkdir(parents=True)
        (directory / "config.toml").write_text(config)
        self.start()

    def start(self):
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        plain = {name: value for name, value in os.environ.items() if not name.startswith("LINESHAFT_")}
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--listen", f"{LOOPBACK}:0", "--ready-file", ready,
                 "--config", self.directory / "config.toml", "--data-dir", self.directory / "data"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=plain)
        Server.running.add(self.process)
        until = time.monotonic() + START_SECONDS_MAX
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not start: {self.log()}")
            time.sleep(0.01)
        host, port = ready.read_text().strip().rsplit(":", 1)
        self.address = (host, int(port))

    def start_again(self):
        with self.lock:
            if not self.ended:
                self.start()

    def end(self):
        """Kills the server; it cannot be restarted."""
        with self.lock:
            self.ended = True
            self.crash()

    def crash(self):
        Server.running.discard(self.process)
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Stops the server with SIGTERM; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(START_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def log(self):
        return (self.directory / "log").read_text(errors="replace")[-4000:]


class Proxy:
    """Forwards connections to a server until they are cut."""

    def __init__(self, server):
        self.server = server
        self.pairs = set()
        self.lock = threading.Lock()
        self.listener = socket.create_server((LOOPBACK, 0))
        self.control = socket.create_server((LOOPBACK, 0))
        threading.Thread(target=self.accept, daemon=True).start()
        threading.Thread(target=self.serve_control, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                upstream = socket.create_connection(self.server.address)
            except OSError:
                reset(client)
                continue
            for end in (client, upstream):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (client, upstream)
            with self.lock:
                self.pairs.add(pair)
            for source, target in (pair, pair[::-1]):
                threading.Thread(target=self.pump, args=(source, target, pair), daemon=True).start()

    def pump(self, source, target, pair):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        self.forget(pair)

    def forget(self, pair):
        with self.lock:
            if pair not in self.pairs:
                return
            self.pairs.remove(pair)
        for end in pair:
            reset(end)

    def cut(self):
        with self.lock:
            pairs = list(self.pairs)
        for pair in pairs:
            self.forget(pair)
        return len(pairs)

    def serve_control(self):
        while True:
            caller, _ = self.control.accept()
            with caller, caller.makefile("rw") as lines:
                word = lines.readline().strip()
                if word == "crash":
                    self.server.crash()
                # Fails a check that had no connection to lose.
                lines.write("done\n" if self.cut() or word == "crash" else "there was no connection\n")
            if word == "crash":
                self.server.start_again()


def reset(end):
    """Closes a connection with a reset."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()


def address_of(listening):
    host, port = listening.getsockname()[:2]
    return f"{host}:{port}"


class Pages(http.server.SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, *_):
        pass


def serve_pages(directory):
    """Starts a web server with another origin than the API; returns its address."""
    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), functools.partial(Pages, directory=directory))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return address_of(server.socket)


def documented_commands(language):
    """The shell commands of a language's section in docs/clients.md, without the first, which copies the files."""
    text = (ROOT / "docs" / "clients.md").read_text()
    section = re.search(rf"<!-- client: {language} -->\n```sh\n(.*?)```", text, re.DOTALL)
    if section is None:
        raise RuntimeError(f"docs/clients.md has no commands for {language}")
    first, commands = section.group(1).split("\n", 1)
    if not first.startswith(f"cp -r tests/clients/{language} "):
        raise RuntimeError(f"the commands for {language} in docs/clients.md must start by copying its files")
    return commands


CERTIFICATES = """
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $new -keyout ca.key -out ca.pem -days 2 -subj "/CN=clients test" \\
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl req $new -keyout server.key -out server.csr -subj /CN=localhost
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem
"""


class SecureServer:
    """A server that requires TLS and tokens."""

    def __init__(self, options):
        keys = options.scratch / "keys"
        shutil.rmtree(keys, ignore_errors=True)
        keys.mkdir(parents=True)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": keys, "check": True}
        subprocess.run(["bash", "-euc", CERTIFICATES], **quiet)
        self.tokens = {role: self.token(options.binary, keys, role) for role in ("submitter", "viewer")}
        self.authority = keys / "ca.pem"
        config = (HERE / "secure.toml").read_text().replace("KEYS", str(keys))
        shutil.rmtree(options.scratch / "secure", ignore_errors=True)
        self.server = Server(options.binary, options.scratch / "secure", config)

    @staticmethod
    def token(binary, keys, role):
        create = [binary, "token", "create", f"the-{role}", "--role", role, "--namespace", "default"]
        made = subprocess.run([*create, "--file", "tokens.toml"], cwd=keys, check=True, text=True, capture_output=True)
        return made.stdout.strip()

    def environment(self):
        return {
            "LINESHAFT_SECURE": "{}:{}".format(*self.server.address),
            "LINESHAFT_CA": str(self.authority),
            "LINESHAFT_SUBMITTER": self.tokens["submitter"],
            "LINESHAFT_VIEWER": self.tokens["viewer"],
        }


class Run:
    """One language: its directory, servers and proxy."""

    def __init__(self, language, options, secure):
        self.language = language
        self.secure = secure
        self.directory = options.scratch / language
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(HERE / language, self.directory)
        shutil.copytree(ROOT / "proto", self.directory / "proto")
        shutil.copytree(HERE / "third_party", self.directory / "third_party")
        shutil.copy(ROOT / "docs" / "service-config.json", self.directory)
        self.page = serve_pages(self.directory / "page")
        config = (HERE / "server.toml").read_text().replace("PAGE", self.page)
        self.server = Server(options.binary, self.directory / "server", config)
        checks = HERE / language / "checks.txt"
        self.wanted = (checks if checks.exists() else HERE / "checks.txt").read_text().split()
        twins = ("twin-1", "twin-2") if "spread" in self.wanted else ()
        self.twins = [Server(options.binary, self.directory / twin, config) for twin in twins]
        self.proxy = Proxy(self.server)
        self.printed = []

    def environment(self):
        return dict(
            os.environ,
            LINESHAFT_SERVER="{}:{}".format(*self.server.address),
            LINESHAFT_PROXY=address_of(self.proxy.listener),
            LINESHAFT_CONTROL=address_of(self.proxy.control),
            LINESHAFT_PAGE=self.page,
            LINESHAFT_TWINS=",".join("{}:{}".format(*twin.address) for twin in self.twins),
            **self.secure.environment(),
        )

    def command(self, what, script):
        """Runs shell commands in the directory and returns their output; raises an error with it if they fail."""
        begin = time.monotonic()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.directory, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_SECONDS_MAX)
        report(f"{self.language}: {what} took {time.monotonic() - begin:.1f} s")
        if done.returncode != 0:
            raise RuntimeError(f"{what} failed with exit code {done.returncode}:\n{done.stdout[-6000:]}")
        return COLOUR.sub("", done.stdout)

    def all(self):
        output = self.command("install, generate, first task", documented_commands(self.language))
        look = HERE / self.language / "first.sh"
        if look.exists():
            output += self.command("first page", look.read_text())
        if "TASK_STATE_COMPLETED" not in output or "348513" not in output:
            raise RuntimeError(f"the first program did not print the result of its task:\n{output[-3000:]}")
        output = self.command("scenario", (HERE / self.language / "scenario.sh").read_text())
        passed = re.findall(r"^ok (\S+)", output, re.MULTILINE)
        for name in passed:
            report(f"{self.language}: ok {name}")
        missing = [name for name in self.wanted if name not in passed]
        if missing:
            raise RuntimeError(f"missing checks: {', '.join(missing)}\n{output[-6000:]}")
        for server in (self.server, *self.twins):
            code = server.stop()
            if code != 0:
                raise RuntimeError(f"the server exited with {code}: {server.log()}")
        return len(passed)

    def end(self):
        for server in (self.server, *self.twins):
            server.end()


output_lock = threading.Lock()


def report(line):
    with output_lock:
        print(line, flush=True)


def run(language, options, secure):
    """Returns the number of passed checks, or None after printing a failure."""
    started = None
    try:
        started = Run(language, options, secure)
        return started.all()
    except Exception as error:  # The other languages must still run.
        report(f"{language}: FAILED: {error}")
        if started:
            report(f"{language}: end of the server's log:\n{started.server.log()}")
        return None
    finally:
        if started:
            started.end()


def end(*_):
    """Signal handler: kills all servers and exits."""
    for process in list(Server.running):
        process.kill()
    os._exit(1)


def main():
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", type=pathlib.Path, required=True)
    options.add_argument("--scratch", type=pathlib.Path, required=True)
    options.add_argument("--at-once", type=int, default=2)
    options.add_argument("languages", nargs="+")
    options = options.parse_args()
    secure = SecureServer(options)
    try:
        with ThreadPoolExecutor(options.at_once) as threads:
            results = list(threads.map(lambda one: run(one, options, secure), options.languages))
    finally:
        secure.server.end()
    for language, passed in zip(options.languages, results):
        report(f"{language}: " + ("FAILED" if passed is None else f"{passed} checks passed"))
    return 1 if None in results else 0


if __name__ == "__main__":
    sys.exit(main())
