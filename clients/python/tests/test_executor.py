"""The executor against a real server."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import executor_functions as functions
import pytest
from conftest import Server, address

import lineshaft
from lineshaft import Client, Executor, Worker
from lineshaft.executor import RemoteError


@pytest.fixture
def executor(remote_server: Server) -> Iterator[Executor]:
    with Executor(4, address=address(remote_server), name="calls.test") as made:
        yield made


def test_calls_return_what_the_functions_return(executor: Executor) -> None:
    assert executor.submit(pow, 2, 10).result() == 1024
    assert executor.submit(functions.whole, 1, *(2, 3), four=4).result(timeout=30) == (1, (2, 3), {"four": 4})
    assert list(executor.map(functions.square, range(100))) == [number * number for number in range(100)]
    assert list(executor.map(pow, [2, 3], [3, 2])) == [8, 9]


def test_the_functions_of_concurrent_futures_accept_the_futures(executor: Executor) -> None:
    futures = {executor.submit(functions.square, number): number for number in range(20)}
    for future in concurrent.futures.as_completed(futures):
        assert future.result() == futures[future] ** 2
    done, left = concurrent.futures.wait(futures)
    assert len(done) == 20 and not left
    called: list[int] = []
    future = executor.submit(functions.square, 3)
    future.add_done_callback(lambda one: called.append(one.result()))
    assert future.result() == 9 and future.task.id
    assert future.exception() is None and future.done()


def test_exceptions_keep_their_class_and_text(executor: Executor) -> None:
    with pytest.raises(ValueError, match="^no 3$") as met:
        executor.submit(functions.refuse, 3).result()
    assert isinstance(met.value.__cause__, RemoteError) and "in refuse" in str(met.value.__cause__)
    with pytest.raises(functions.OwnError, match="mine"):
        executor.submit(functions.refuse_in_my_way).result()
    assert isinstance(executor.submit(functions.refuse_strangely).exception(), lineshaft.TaskFailed)


def test_what_cannot_be_a_task_is_an_error_that_says_so(executor: Executor) -> None:
    def inner() -> None: ...

    with pytest.raises(TypeError, match="a lambda cannot be a task"):
        executor.submit(lambda: 1)
    with pytest.raises(TypeError, match="inner cannot be sent to a worker; use a function of a module"):
        executor.submit(inner)
    with pytest.raises(TypeError, match="argument 2 cannot be sent to a worker"):
        executor.submit(pow, 1, threading.Lock())
    with pytest.raises(TypeError, match="argument lock cannot be sent"):
        executor.submit(functions.whole, 1, lock=threading.Lock())
    with pytest.raises(TypeError, match="is not callable"):
        executor.submit(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        executor.submit(functions.generate).result()
    with pytest.raises(ValueError, match="initializer"):
        Executor(initializer=print)  # type: ignore[arg-type]


def test_a_timeout_leaves_the_call_and_cancel_ends_it(executor: Executor) -> None:
    future = executor.submit(functions.sleep, 100)
    with pytest.raises(TimeoutError if sys.version_info >= (3, 11) else concurrent.futures.TimeoutError):
        future.result(timeout=0.05)
    assert not future.done() and future.cancel() and future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    other = executor.submit(functions.sleep, 100)
    other.task.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        other.result()
    assert other.cancelled() and other.cancel(), "the task was cancelled without the future"
    ended = executor.submit(functions.square, 1)
    ended.result()
    assert not ended.cancel()


def test_other_programs_run_the_calls(remote_server: Server) -> None:
    worker = Worker(address(remote_server), concurrency=2)
    worker.calls("calls.elsewhere")
    with worker:
        assert worker.wait_ready(30)
        with Executor(0, address=address(remote_server), name="calls.elsewhere") as executor:
            assert executor.submit(functions.square, 5).result() == 25


def test_calls_run_in_processes(remote_server: Server) -> None:
    with Executor(2, processes=True, address=address(remote_server), name="calls.processes") as executor:
        assert executor.submit(functions.process_id).result() != os.getpid()
        future = executor.submit(functions.spin)
        while future.task.refresh() != "RUNNING":
            pass
        assert future.cancel()


def test_shutdown_waits_and_refuses_further_calls(remote_server: Server) -> None:
    executor = Executor(2, address=address(remote_server), name="calls.shutdown")
    futures = [executor.submit(functions.sleep, 0.1) for _ in range(4)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(functions.square, 1)
    executor = Executor(1, address=address(remote_server), name="calls.shutdown")
    futures = [executor.submit(functions.sleep, 100) for _ in range(4)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_one_changed_import_moves_a_program(remote_server: Server, tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
from lineshaft import Executor as ThreadPoolExecutor
from concurrent.futures import as_completed


def double(number):
    print("doubling", number)
    return number * 2


with ThreadPoolExecutor(max_workers=3) as pool:
    print(sorted(pool.map(double, range(5))))
    print(sorted(future.result() for future in as_completed([pool.submit(double, 5), pool.submit(double, 6)])))
"""
    )
    env = dict(os.environ, LINESHAFT_ADDRESS=address(remote_server))
    done = subprocess.run([sys.executable, program], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("doubling") == 7, done
    assert "[0, 2, 4, 6, 8]\n" in done.stdout and "[10, 12]\n" in done.stdout
    with Client(address(remote_server)) as client:
        assert sum(1 for _ in client.list(handler="calls.program", states=["COMPLETED"])) == 7
