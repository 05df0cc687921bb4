"""Programs that fork while their clients and workers make calls."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from conftest import Server, address

import lineshaft

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

BEGIN = """
import multiprocessing, os, threading, time, lineshaft
client = lineshaft.Client(ADDRESS)

def fork(function):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 7
        finally:
            os._exit(code)
    return child

def joined(child):
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7, status
"""


def run(server: Server, program: str) -> None:
    """Runs a program that forks."""
    text = f"ADDRESS = {address(server)!r}\n{BEGIN}{program}"
    # gRPC tells with this level that it was not ready for a fork.
    env = dict(os.environ, GRPC_VERBOSITY="info")
    command = [sys.executable, "-W", "ignore", "-c", text]
    done = subprocess.run(command, env=env, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert "skipping fork() handlers" not in done.stderr


def test_a_client_works_in_a_forked_process(server: Server) -> None:
    program = """
assert client.run("compute", 3)["n"] == 3
before = [client.submit("compute", number) for number in range(20)]
list(lineshaft.as_completed(before))
task = client.submit("compute", 5)
task.id

def child():
    assert client.run("compute", 4)["n"] == 4
    assert task.result()["n"] == 5
    tasks = [client.submit("compute", number) for number in range(50)]
    assert [task.result()["n"] for task in tasks] == list(range(50))
    client.close()

for _ in range(3):
    forked = fork(child)
    assert client.run("compute", 6)["n"] == 6
    joined(forked)
"""
    run(server, program)


def test_calls_that_are_under_way_survive_a_fork(server: Server) -> None:
    program = """
watched, label = [], f"fork-{time.time_ns()}"
late = client.submit("io", 1.5, labels={"fork": label})
late.id
results, errors = [], []

def watch():
    for event in client.watch(labels={"fork": label}, resume_token=late._resume):
        watched.append(str(event.state))
        if event.state.finished:
            return

def work(function):
    def body():
        try:
            function()
        except BaseException as error:
            errors.append(error)
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread

stop = threading.Event()

def submit():
    while not stop.is_set():
        results.append(client.run("compute", 7)["n"])

def child():
    assert client.run("compute", 4)["n"] == 4
    assert lineshaft.Client(ADDRESS).run("compute", 5)["n"] == 5

threads = [work(watch), work(lambda: results.append(late.result() and 7)), *(work(submit) for _ in range(3))]
for _ in range(8):
    joined(fork(child))
stop.set()
for thread in threads:
    thread.join()
assert not errors, errors
assert len(results) > 3 and set(results) == {7}, results
assert watched == ["QUEUED", "RUNNING", "COMPLETED"], watched
"""
    run(server, program)


def test_tasks_that_the_parent_submits_belong_to_it(server: Server) -> None:
    program = """
tasks = [client.submit("compute", number) for number in range(3000)]

def child():
    for task in tasks:
        try:
            assert task.id
        except lineshaft.ClientClosed:
            pass

joined(fork(child))
assert [task.result()["n"] for task in tasks] == list(range(3000))
"""
    run(server, program)


def test_multiprocessing_uses_the_client_of_its_parent(server: Server) -> None:
    program = """
tasks = [client.submit("compute", number) for number in range(100)]
list(lineshaft.as_completed(tasks))

def one(number):
    return client.run("compute", number)["n"]

with multiprocessing.get_context("fork").Pool(4) as pool:
    assert pool.map(one, range(40)) == list(range(40))
"""
    run(server, program)


def test_a_worker_and_its_forked_processes_work(remote_server: Server) -> None:
    program = """
worker = lineshaft.Worker(ADDRESS)

@worker.handler
def child(number, ctx):
    def body():
        assert ctx.client.run("compute", number)["n"] == number
    joined(fork(body))
    return number

with worker:
    assert worker.wait_ready(30)
    tasks = [client.submit("child", number) for number in range(1, 9)]
    assert [task.result() for task in tasks] == list(range(1, 9))
"""
    run(remote_server, program)


def test_a_forked_process_does_not_handle_signals_as_a_worker(remote_server: Server, tmp_path: pathlib.Path) -> None:
    (tmp_path / "forks.py").write_text(f"""
import lineshaft, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from worker_functions import end_child
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
worker = lineshaft.Worker({address(remote_server)!r})
worker.handler("child")(end_child)
worker.handler("parent", process=True)(end_child)
if __name__ == "__main__":
    worker.run()
""")
    worker = subprocess.Popen([sys.executable, "-W", "ignore", tmp_path / "forks.py"])
    try:
        with lineshaft.Client(address(remote_server)) as client:
            for handler in ("child", "parent"):
                assert client.run(handler, retry=1) == [-signal.SIGTERM, 130]
        worker.terminate()
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()
