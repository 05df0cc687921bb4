"""The worker against a real server."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import worker_functions
from conftest import REMOTE_CONFIG, Proxy, Server, address, address_of, binary

import lineshaft
from lineshaft import Client, Context, State, Worker
from lineshaft.v1 import task_service_pb2

PROGRAM = """
import logging, time
import lineshaft

logging.basicConfig(level=logging.INFO)

worker = lineshaft.Worker(concurrency=4, worker_id="program")

@worker.handler
def program_add(a, b):
    return a + b

@worker.handler
def program_wait(seconds, ctx):
    ctx.progress(0.5, "waiting")
    print("waiting", flush=True)
    time.sleep(seconds)
    return "waited"

if __name__ == "__main__":
    worker.run()
"""


@pytest.fixture
def client(remote_server: Server) -> Iterator[Client]:
    with Client(address(remote_server)) as made:
        yield made


@pytest.fixture
def worker(remote_server: Server) -> Iterator[Worker]:
    made = Worker(address(remote_server), concurrency=8)
    yield made
    made.stop(force=True)
    if made._thread is not None:
        made._ended.wait(20)


def begin(worker: Worker) -> None:
    worker.start()
    assert worker.wait_ready(30)


def until(task: lineshaft.Task, note: str) -> lineshaft.TaskInfo:
    """Waits until a task has reported this activity."""
    while (info := task.info()).progress_note != note:
        assert not info.state.finished, info
    return info


def test_a_function_is_a_task(client: Client, worker: Worker) -> None:
    @worker.handler
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @worker.handler
    async def concat(payload: list[str], ctx: Context) -> str:
        assert ctx.labels == {"a": "b"} and ctx.attempt == 1 and ctx.priority == "HIGH"
        return "".join(payload)

    @worker.handler("bytes")
    def reverse(payload: bytes) -> bytes:
        return payload[::-1]

    begin(worker)
    assert client.run("add", {"a": 1, "b": 2}) == 3
    assert client.run(add, [3, 4]) == 7
    assert client.run("concat", ["a", "b"], labels={"a": "b"}, priority="high") == "ab"
    assert client.run("bytes", b"\x00\x01") == b"\x01\x00"
    assert list(client.map("add", ([number, 1] for number in range(300)))) == list(range(1, 301))
    with pytest.raises(lineshaft.TaskFailed) as met:
        client.run("add", {"a": 1})
    assert met.value.reason == "INVALID_PAYLOAD"


def test_failures_are_retried_unless_they_are_permanent(client: Client, worker: Worker) -> None:
    @worker.handler
    def flaky(ctx: Context) -> int:
        if ctx.attempt < 3:
            raise RuntimeError("not yet")
        return ctx.attempt

    @worker.handler
    def hopeless() -> None:
        raise lineshaft.PermanentError("no use")

    begin(worker)
    assert client.run("flaky", retry=lineshaft.Retry(max_attempts=5, delay=0.01)) == 3
    with pytest.raises(lineshaft.TaskFailed, match="no use") as met:
        client.run("hopeless", retry=lineshaft.Retry(max_attempts=5, delay=0.01))
    assert met.value.failure.attempt == 1 and "in hopeless" in met.value.failure.detail


def test_progress_and_output_arrive_while_a_task_runs(client: Client, worker: Worker) -> None:
    release = threading.Event()

    @worker.handler
    def talk(ctx: Context) -> None:
        print("hello")
        ctx.log("noted")
        ctx.progress(0.4, "half way")
        release.wait(30)
        print("bye")

    begin(worker)
    task = client.submit("talk")
    assert until(task, "half way").progress == pytest.approx(0.4)
    follow = task.follow()
    assert next(follow) == b"hello\n"
    release.set()
    assert b"".join(follow) == b"bye\n"
    assert b"noted\n" in task.output("stderr")


def test_cancel_and_timeout_stop_the_function(client: Client, worker: Worker) -> None:
    stopped = threading.Semaphore(0)

    @worker.handler
    def patient(ctx: Context) -> None:
        ctx.progress(0.1, "running")
        try:
            ctx.sleep(100)
        finally:
            stopped.release()

    begin(worker)
    task = client.submit("patient")
    until(task, "running")
    assert task.cancel()
    with pytest.raises(lineshaft.TaskCancelled) as met:
        task.result()
    assert met.value.method == "TOKEN" and stopped.acquire(timeout=20)
    with pytest.raises(lineshaft.TaskFailed) as late:
        client.run("patient", timeout=0.1, retry=1)
    assert late.value.reason == "TIMEOUT" and stopped.acquire(timeout=20)


def test_a_task_waits_for_its_children_without_a_slot(client: Client, remote_server: Server) -> None:
    worker = Worker(address(remote_server), concurrency=1)

    @worker.handler
    def child(payload: int) -> int:
        return payload * 2

    @worker.handler
    def parent(ctx: Context) -> int:
        tasks = [ctx.client.submit("child", number) for number in range(10)]
        return sum(task.result() for task in tasks)

    with worker:
        assert client.run("parent") == 90


def test_a_coroutine_waits_for_its_children_without_a_slot(client: Client, remote_server: Server) -> None:
    worker = Worker(address(remote_server), concurrency=1)

    @worker.handler
    async def async_child(payload: int) -> int:
        return payload * 2

    @worker.handler
    async def async_parent(ctx: Context) -> int:
        return sum(await asyncio.gather(*(ctx.aio.run("async_child", number) for number in range(10))))

    with worker:
        assert client.run("async_parent") == 90


def test_a_function_reads_the_results_of_its_parents(client: Client, worker: Worker) -> None:
    @worker.handler
    def add(a: int, b: int) -> int:
        return a + b

    @worker.handler("bytes")
    def large() -> bytes:
        return bytes(1_000_000)

    @worker.handler
    def hopeless() -> None:
        raise lineshaft.PermanentError("never")

    worker.handler(worker_functions.join)
    worker.handler("process_join", process=True)(worker_functions.join)

    @worker.handler
    async def async_join(ctx: Context) -> list[list[object]]:
        return [worker_functions.shown(parent) async for parent in ctx.parents()]

    begin(worker)
    parents = [
        client.submit("add", [1, 2]),
        client.submit("bytes"),
        client.submit("hopeless"),
        client.submit("add", [3, 4]),
    ]
    states_and_results = [["COMPLETED", 3], ["COMPLETED", "1000000 bytes"], ["FAILED", None], ["COMPLETED", 7]]
    expected = [[parent.id, *found] for parent, found in zip(parents, states_and_results, strict=True)]
    for handler in ["join", "process_join", "async_join"]:
        assert client.run(handler, after=[parent.id for parent in parents], on_parent_failure="run") == expected
        assert client.run(handler) == []


def test_a_function_leaves_artifacts_that_are_larger_than_results(
    client: Client, worker: Worker, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(bytes(range(256)) * 10_000)

    @worker.handler
    def leave(ctx: Context) -> str:
        ctx.artifact("large.bin", file)
        ctx.artifact("一.csv", b"first")
        ctx.artifact("一.csv", io.BytesIO(b"second"), "text/x-csv")
        with pytest.raises(lineshaft.ServerError, match="`name` contains the character '/'"):
            ctx.artifact("../x", b"")
        return "left"

    @worker.handler
    def fail(ctx: Context) -> None:
        ctx.artifact("lost", b"x")
        raise lineshaft.PermanentError("no")

    worker.handler("in_process", process=True)(worker_functions.leave_artifact)
    begin(worker)

    def left(handler: str) -> list[tuple[str, str, int, str]]:
        task = client.submit(handler)
        task.wait()
        request = task_service_pb2.GetTaskRequest(task_id=task.id)
        found = client._connection.call("TaskService/GetTask", request, task_service_pb2.GetTaskResponse).task
        return [(one.name, one.content_type, one.size_bytes, one.sha256) for one in found.artifacts]

    def sha256(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    assert left("leave") == [
        ("large.bin", "application/octet-stream", 2_560_000, sha256(file.read_bytes())),
        ("一.csv", "text/x-csv", 6, sha256(b"second")),
    ]
    assert left("in_process") == [("x.txt", "text/plain", 1, sha256(b"x"))]
    assert left("fail") == []


def test_a_broken_connection_does_not_disturb_running_tasks(client: Client, remote_server: Server) -> None:
    proxy = Proxy(remote_server)
    worker = Worker(address_of(proxy.listener), concurrency=2)
    release = threading.Event()

    @worker.handler
    def wait_here(ctx: Context) -> int:
        ctx.progress(0.5, "running")
        release.wait(30)
        return ctx.attempt

    with worker:
        task = client.submit("wait_here")
        until(task, "running")
        proxy.cut()
        release.set()
        assert task.result() == 1


def start_program(tmp_path: pathlib.Path, server: Server) -> subprocess.Popen[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    env = dict(os.environ, LINESHAFT_SERVER=address(server))
    program = subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, env=env, text=True, stderr=subprocess.PIPE)
    assert program.stderr is not None
    while " runs program_add" not in (line := program.stderr.readline()):
        assert line, "the program has ended"
    return program


def test_sigterm_finishes_what_runs(client: Client, remote_server: Server, tmp_path: pathlib.Path) -> None:
    program = start_program(tmp_path, remote_server)
    task = client.submit("program_wait", 0.5)
    until(task, "waiting")
    program.send_signal(signal.SIGTERM)
    assert task.result() == "waited"
    _, errors = program.communicate(timeout=30)
    assert program.returncode == 0 and "SIGTERM: no new tasks are started" in errors, errors


def test_a_second_signal_stops_at_once(client: Client, remote_server: Server, tmp_path: pathlib.Path) -> None:
    program = start_program(tmp_path, remote_server)
    task = client.submit("program_wait", 100)
    until(task, "waiting")
    program.send_signal(signal.SIGTERM)
    assert program.stderr is not None
    while "no new tasks" not in program.stderr.readline():
        pass
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=30)
    task.cancel("force")


def test_a_killed_worker_leaves_its_tasks_to_another(own_remote_server: Server, tmp_path: pathlib.Path) -> None:
    with Client(address(own_remote_server)) as client:
        program = start_program(tmp_path, own_remote_server)
        task = client.submit("program_wait", 0.3)
        until(task, "waiting")
        program.kill()
        program.wait()
        again = start_program(tmp_path, own_remote_server)
        assert task.result(timeout=60) == "waited"
        assert client.run("program_add", [1, 2]) == 3
        again.send_signal(signal.SIGTERM)
        again.communicate(timeout=30)


def test_a_killed_server_finds_its_worker_again(own_remote_server: Server) -> None:
    # The new server has another port.
    proxy = Proxy(own_remote_server)
    worker = Worker(address_of(proxy.listener), concurrency=2)
    release = threading.Event()
    runs: list[int] = []

    @worker.handler
    def wait_there(ctx: Context) -> str:
        runs.append(ctx.attempt)
        ctx.progress(0.5, "running")
        release.wait(60)
        return "done"

    with worker, Client(address_of(proxy.listener)) as client:
        task = client.submit("wait_there")
        until(task, "running")
        own_remote_server.crash()
        proxy.cut()
        own_remote_server.start_again()
        proxy.cut()
        release.set()
        assert task.result(timeout=60) == "done"
        assert runs == [1] and task.refresh() is State.COMPLETED


def test_of_two_workers_with_one_id_the_newer_one_works(remote_server: Server, client: Client) -> None:
    first, second = (Worker(address(remote_server), worker_id="twin") for _ in range(2))
    first.handler("add")(lambda a, b: "first")
    second.handler("add")(lambda a, b: "second")
    first.start()
    assert first.wait_ready(30) and client.run("add", [1, 2]) == "first"
    with second:
        with pytest.raises(lineshaft.Aborted) as met:
            first.join(30)
        assert met.value.reason == "WORKER_REPLACED"
        assert client.run("add", [1, 2]) == "second"


def test_the_tasks_of_a_frozen_worker_go_to_another(tmp_path: pathlib.Path) -> None:
    server = Server(binary(), tmp_path / "run", REMOTE_CONFIG + '\n[server]\nworker_lease = "3s"\n')
    try:
        program = start_program(tmp_path, server)
        with Client(address(server)) as client:
            task = client.submit("program_wait", 0.1)
            until(task, "waiting")
            program.send_signal(signal.SIGSTOP)
            worker = Worker(address(server))
            worker.handler("program_wait")(lambda seconds: "by another")
            with worker:
                assert task.result(timeout=60) == "by another"
            # The frozen worker finds that it was replaced, and connects again.
            program.send_signal(signal.SIGCONT)
            assert client.run("program_add", [2, 3]) == 5
            assert task.info().result == "by another"
            program.send_signal(signal.SIGTERM)
            program.communicate(timeout=30)
            assert program.returncode == 0
    finally:
        server.end()
