"""`concurrent.futures` on a Lineshaft server: the calls are tasks, stored, and run here or on other machines."""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import dataclasses
import importlib
import os
import pickle
import secrets
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, TypeVar

from lineshaft import _exceptions, errors, model
from lineshaft._codec import Payload
from lineshaft._exceptions import PROTOCOL
from lineshaft.client import Client
from lineshaft.context import Cancelled, current
from lineshaft.task import Task
from lineshaft.worker import Worker

CONTENT_TYPE = "application/x-python-pickle"

Result = TypeVar("Result")


class RemoteError(Exception):
    """The first cause of an exception that was raised in a worker; its text is the traceback there."""


class Executor(concurrent.futures.Executor):
    """Runs calls as tasks of a server, with the interface of `ThreadPoolExecutor`.

    `max_workers` threads of this program run them (default: as `ThreadPoolExecutor`); with `processes=True` as many
    processes. With 0 only other programs do: workers that call `Worker.calls(name)`. `name` is the handler of the calls; by
    default it is made of the name of the main program, so that all copies of a program help each other. The arguments for
    the connection are those of `Client`; `retry` is the number of attempts, `timeout` that of each attempt.

    Functions are sent by module and name, arguments and results with pickle: what cannot be sent is an error of `submit`.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: None = None,
        initargs: tuple[Any, ...] = (),
        *,
        processes: bool = False,
        name: str = "",
        address: str | None = None,
        pool: str = "",
        retry: model.Retry | int = 1,
        timeout: model.Seconds | None = None,
        **connection: Any,
    ) -> None:
        if initializer is not None or initargs:
            raise ValueError("initializer: tasks can run in any program; prepare what they need in their module")
        if max_workers is None:
            max_workers = os.cpu_count() or 1 if processes else min(32, (os.cpu_count() or 1) + 4)
        if max_workers < 0:
            raise ValueError(f"max_workers is {max_workers}; it must be at least 0")
        self.name = name or _default_name()
        self._options: dict[str, Any] = {"pool": pool, "retry": retry, "timeout": timeout}
        self._client = Client(address, **connection)
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._shutdown = False
        if max_workers > 0:
            self._worker = Worker(address, concurrency=max_workers, pool=pool, **connection)
            self._worker.calls(self.name, process=processes)
            self._worker.start()
            try:
                self._worker.wait_ready()
            except BaseException:
                self._client.close()
                raise

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Submits the call as a task, and returns at once."""
        key = secrets.token_hex(8)
        data = _dump(fn, args, kwargs, key, local=self._worker is not None)
        with self._lock:
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Result] = Future()
        future.task = self._client.submit(
            self.name, Payload(data, CONTENT_TYPE), name=getattr(fn, "__qualname__", "")[:128], **self._options
        )
        with self._lock:
            self._open.add(future)
        future.task.add_done_callback(lambda task: self._done(future, task, key))
        return future

    def _done(self, future: Future[Any], task: Task, key: str) -> None:
        with self._lock:
            self._open.discard(future)
        error = task.exception()
        if isinstance(error, errors.TaskCancelled):
            # Also if it was cancelled by other means than the future, or before `cancel` has the answer.
            super(Future, future).cancel()
        if not future.set_running_or_notify_cancel():
            return
        if error is not None:
            future.set_exception(_original(error, key) if isinstance(error, errors.TaskFailed) else error)
        else:
            try:
                future.set_result(pickle.loads(task.result().data))
            except BaseException as met:  # Any class of the result may fail to load.
                future.set_exception(met)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuses further calls, and with `wait` returns when all have ended.

        Without `wait`, calls that have not ended are left to the server, and run where a worker for them is.
        """
        with self._lock:
            self._shutdown = True
            left = list(self._open)
        if cancel_futures:
            for future in left:
                future.cancel()
        if wait:
            concurrent.futures.wait([future for future in left if not future.cancelled()])
        if self._worker is not None:
            self._worker.stop()
            if wait:
                self._worker.join()
        if wait:
            self._client.close()
        else:
            self._client._submitter.flush(None)


class Future(concurrent.futures.Future[Result]):
    """The future of a call; `task` is its task."""

    task: Task

    def cancel(self) -> bool:
        """Cancels the call, also if it runs: then its function is asked to stop."""
        if self.done():
            return self.cancelled()
        try:
            if not self.task.cancel():
                return False
        except errors.LineshaftError:
            return False
        return super().cancel()

    def running(self) -> bool:
        """Asks the server whether the call runs."""
        try:
            return not self.done() and self.task.refresh() is model.State.RUNNING
        except errors.LineshaftError:
            return False


def call(payload: Payload) -> Payload:
    """Runs a call, in a worker."""
    function, args, kwargs, key = pickle.loads(payload.data)
    try:
        return Payload(pickle.dumps(function(*args, **kwargs), PROTOCOL), CONTENT_TYPE)
    except (Cancelled, asyncio.CancelledError):
        raise
    except BaseException as error:
        context = current()
        if context is not None:
            context._exception = _exceptions.dump(error, key)
        raise


def _dump(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: str, local: bool) -> bytes:
    if not callable(function):
        raise TypeError(f"{function!r} is not callable")
    if isinstance(function, types.LambdaType) and function.__name__ == "<lambda>":
        raise TypeError(
            "a lambda cannot be a task, because a worker finds functions by name; use a function of a module"
        )
    if not local and getattr(function, "__module__", None) == "__main__":
        raise TypeError(
            f"{function.__qualname__} is defined in the main program, which other programs cannot import; "
            "move it to a module, or let this program run calls with max_workers"
        )
    try:
        return pickle.dumps((function, args, kwargs, key), PROTOCOL)
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        for what, value in [(f"function {name}", function), *_named(args, kwargs)]:
            try:
                pickle.dumps(value, PROTOCOL)
            except Exception as met:
                hint = "; use a function of a module" if value is function else ""
                raise TypeError(f"{what} cannot be sent to a worker{hint}: {met}") from error
        raise TypeError(f"the call of {name} cannot be sent to a worker: {error}") from error


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(f"argument {number}", value) for number, value in enumerate(args, 1)] + [
        (f"argument {name}", value) for name, value in kwargs.items()
    ]


def _original(failed: errors.TaskFailed, key: str) -> BaseException:
    """The exception that the function raised, with the traceback in the worker as its first cause; the failure if that is not
    possible."""
    made, detail = _exceptions.load(failed.failure.detail, key)
    failed = errors.TaskFailed(failed.task_id, dataclasses.replace(failed.failure, detail=detail))
    if failed.reason != errors.FailureReason.HANDLER_ERROR:
        return failed
    if made is None:
        made = _made_of_text(failed.failure.message)
        if made is None:
            return failed
    first, seen = made, {id(made)}
    while first.__cause__ is not None and id(first.__cause__) not in seen:
        first = first.__cause__
        seen.add(id(first))
    first.__cause__ = RemoteError(f"\n{detail}")
    return made


def _made_of_text(message: str) -> BaseException | None:
    """An exception of which only the class and the first line of its text are known."""
    name, _, text = message.partition(": ")
    found = _class(name)
    if found is None:
        return None
    try:
        made = found.__new__(found, text) if issubclass(found, OSError) else found.__new__(found)
        made.args = (text,) if text else ()
        str(made)
    except Exception:  # A class may demand more arguments, or show an attribute that is missing.
        return None
    return made


def _class(name: str) -> type[BaseException] | None:
    module, _, own = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module) if module else builtins, own, None)
        if found is None and not module:
            found = getattr(sys.modules.get("__main__"), own, None)
    except ImportError:
        return None
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _default_name() -> str:
    """The name of the main program. An interactive one shares its calls with no other, because their functions differ."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    path = getattr(main, "__file__", None)
    if spec is not None:
        name = str(spec.name)
    elif path:
        name = os.path.splitext(os.path.basename(path))[0]
    else:
        name = f"interactive-{os.getpid()}"
    return "calls." + "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "-" for one in name)[:50]
