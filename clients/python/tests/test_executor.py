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
from lineshaft import Client, Executor, Worker, _exceptions
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


def look(error: BaseException) -> object:
    """What a program can see of an exception."""
    names = ("code", "errno", "filename", "returncode", "cmd", "object", "start", "doc", "lineno", "text", "exceptions")
    seen = {name: getattr(error, name, None) for name in names}
    seen["exceptions"] = [look(one) for one in seen["exceptions"] or ()]  # type: ignore[attr-defined]
    return type(error), str(error), repr(error), seen


@pytest.mark.parametrize("name", functions.RAISING)
def test_exceptions_are_those_that_the_functions_raise(executor: Executor, name: str) -> None:
    with pytest.raises(BaseException) as expected:
        functions.raise_one(name)
    made = executor.submit(functions.raise_one, name).exception()
    assert made is not None and look(made) == look(expected.value)
    assert isinstance(made.__cause__, RemoteError) and "in raise_one" in str(made.__cause__)
    assert "exception for the caller" not in str(made.__cause__)


def test_exceptions_keep_their_causes(executor: Executor) -> None:
    made = executor.submit(functions.raise_with_causes).exception()
    assert isinstance(made, RuntimeError) and isinstance(made.__context__, KeyError)
    cause = made.__context__.__cause__
    assert isinstance(cause, functions.Coded) and cause.code == 1
    made = executor.submit(functions.raise_long_cause).exception()
    assert repr(made) == "ValueError('short')" and isinstance(made.__cause__, RemoteError), "the cause was too long"


def test_an_exception_that_cannot_be_carried_has_its_class_and_text_or_is_a_failure(executor: Executor) -> None:
    with pytest.raises(ValueError, match="^[0-9a-f]{900,}$"):
        executor.submit(functions.raise_long).result()
    failed = executor.submit(functions.raise_fragile).exception()
    assert isinstance(failed, lineshaft.TaskFailed) and "executor_functions.Fragile: fragile" in str(failed)
    failed = executor.submit(functions.raise_imitation).exception()
    assert isinstance(failed, lineshaft.TaskFailed), "text of an exception must not be unpickled"


def test_an_exception_is_only_taken_from_the_line_with_the_key_of_the_call() -> None:
    line = _exceptions.dump(KeyError("k"), "one")
    made, rest = _exceptions.load(line + "Traceback", "one")
    assert repr(made) == "KeyError('k')" and rest == "Traceback"
    for detail, key in ((line, "two"), (line, ""), ("Traceback\n" + line, "one"), (line.strip(), "one")):
        assert _exceptions.load(detail, key) == (None, detail)
    assert _exceptions.load("exception for the caller one ~\nTraceback", "one") == (None, "Traceback")


def test_a_future_knows_that_its_call_runs(executor: Executor) -> None:
    future = executor.submit(functions.sleep, 100)
    while future.task.refresh() != "RUNNING":
        pass
    assert future.running() and not future.done()
    assert future.cancel() and not future.running()


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
        made = executor.submit(functions.raise_one, "coded").exception()
        assert isinstance(made, functions.Coded) and made.code == 404
        future = executor.submit(functions.spin)
        while future.task.refresh() != "RUNNING":
            pass
        assert future.cancel()


def test_a_program_without_a_main_guard_learns_why_its_processes_end(
    remote_server: Server, tmp_path: pathlib.Path
) -> None:
    program = tmp_path / "unguarded.py"
    program.write_text(
        """
from lineshaft import Executor
with Executor(1, processes=True, name="calls.program") as executor:
    print(executor.submit(pow, 2, 3).exception())
"""
    )
    env = dict(os.environ, LINESHAFT_SERVER=address(remote_server))
    done = subprocess.run([sys.executable, program], env=env, capture_output=True, text=True, timeout=60)
    assert 'start workers and executors under `if __name__ == "__main__":`' in done.stdout, done


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
    env = dict(os.environ, LINESHAFT_SERVER=address(remote_server))
    done = subprocess.run([sys.executable, program], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("doubling") == 7, done
    assert "[0, 2, 4, 6, 8]\n" in done.stdout and "[10, 12]\n" in done.stdout
    with Client(address(remote_server)) as client:
        assert sum(1 for _ in client.list(handler="calls.program", states=["COMPLETED"])) == 7
