"""A real server for the tests: `LINESHAFT_BINARY`, started once, on a free port; some tests start their own."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator

import pytest
from fake_server import FakeServer

import lineshaft

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "clients"))
from harness import CERTIFICATES, Proxy, SecureServer, Server, address_of  # noqa: E402, F401

CONFIG = """
[[pool]]
name = "default"
size = 2

[[pool]]
name = "narrow"
size = 1
queue_limit = 5

[[handler]]
name = "cat"
runner = "process"
argv = ["/bin/cat"]

[[handler]]
name = "talk"
runner = "process"
argv = ["/bin/sh", "-c", "echo begin; echo complaint >&2; cat"]

[[handler]]
name = "break"
runner = "process"
argv = ["/bin/sh", "-c", "echo broken >&2; exit 3"]

[[pool]]
name = "naps"
size = 1
queue_limit = 5

[[handler]]
name = "narrow-nap"
runner = "process"
pool = "naps"
argv = ["/bin/sh", "-c", "exec sleep $(cat)"]

[[handler]]
name = "narrow"
runner = "process"
pool = "narrow"
argv = ["/bin/cat"]
"""

# The functions of the tests of workers and executors.
REMOTE_HANDLERS = """
add concat bytes flaky hopeless talk patient child parent async_child async_parent wait_here wait_there
join async_join process_join program_add program_wait calls.test calls.elsewhere calls.processes calls.shutdown calls.program
""".split()
REMOTE_CONFIG = """
[[pool]]
name = "default"

[[pool]]
name = "remote"
kind = "remote"
""" + "".join(f'\n[[handler]]\nname = "{name}"\nrunner = "remote"\n' for name in REMOTE_HANDLERS)


def binary() -> str:
    found = os.environ.get("LINESHAFT_BINARY")
    if not found:
        pytest.exit("LINESHAFT_BINARY must name the server to test with; run clients/python/test.sh", 2)
    return found


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(binary(), tmp_path_factory.mktemp("server") / "run", CONFIG)
    yield started
    started.end()


@pytest.fixture(scope="session")
def remote_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a pool for remote workers."""
    started = Server(binary(), tmp_path_factory.mktemp("server") / "run", REMOTE_CONFIG)
    yield started
    started.end()


@pytest.fixture
def own_remote_server(tmp_path: pathlib.Path) -> Iterator[Server]:
    """The same, for a test that kills it."""
    started = Server(binary(), tmp_path / "run", REMOTE_CONFIG)
    yield started
    started.end()


@pytest.fixture
def own_server(tmp_path: pathlib.Path) -> Iterator[Server]:
    """A server that the test may kill."""
    started = Server(binary(), tmp_path / "run", CONFIG)
    yield started
    started.end()


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """A server that the test plays."""
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def worker(fake: FakeServer) -> Iterator[lineshaft.Worker]:
    """A worker of that server."""
    made = lineshaft.Worker(fake.address, concurrency=4)
    yield made
    made._leave()
    if made._thread is not None:
        made._ended.wait(20)


def address(of: Server) -> str:
    return "{}:{}".format(*of.address)


@pytest.fixture
def client(server: Server) -> Iterator[lineshaft.Client]:
    made = lineshaft.Client(address(server))
    yield made
    made.close()
