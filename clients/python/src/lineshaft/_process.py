"""Functions in processes of their own: they use all cores, and a cancelled one is really killed.

A process runs one attempt after the other. The main thread of the process runs the function, so that SIGTERM can raise
`Cancelled` there; after the grace period the whole process group is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection as Pipe
from types import FrameType
from typing import TYPE_CHECKING, Any

from lineshaft import _capture, _codec, _fork
from lineshaft._attempt import Attempt, Handler, complete, fail
from lineshaft._trace import task_span
from lineshaft.context import Cancelled, Context, Reporter, _current
from lineshaft.v1 import task_pb2
from lineshaft.v1.worker_service_pb2 import AttemptAssigned, AttemptFinished

if TYPE_CHECKING:
    from lineshaft.client import Client

_CHILD_NAME = "lineshaft-task"


class Processes:
    """The processes of a worker."""

    def __init__(self, connect_options: dict[str, Any]) -> None:
        self._connect_options = connect_options
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._closed = False

    def check(self, handlers: Iterable[Handler]) -> None:
        """Raises an error if a function cannot be found by another process."""
        if multiprocessing.current_process().name == _CHILD_NAME:
            raise RuntimeError('a worker with process=True must be started under `if __name__ == "__main__":`')
        for handler in handlers:
            try:
                pickle.dumps(handler.function)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise TypeError(f"handler {handler.name}: define it at the top level of a module: {error}") from None

    def run(self, attempt: Attempt) -> None:
        """Runs an attempt to its end, in the calling thread."""
        attempt.finished = AttemptFinished(token=attempt.token)
        child = None
        try:
            child = self._take()
            child.run(attempt)
        except BaseException as error:
            fail(attempt.finished, error, attempt.handler, attempt.context, forced=False)
        finally:
            try:
                if child is not None:
                    self._put(child)
            finally:
                attempt.worker._finished(attempt)

    def _take(self) -> _Child:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        child = _Child(self._connect_options)
        with self._lock:
            self._all.add(child)
            if self._closed:
                child.kill()
        return child

    def _put(self, child: _Child) -> None:
        with self._lock:
            if child.usable and not self._closed:
                self._idle.append(child)
            else:
                self._all.discard(child)
                child.kill()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for child in self._all:
                child.kill()
            self._idle.clear()


class _Child:
    """One process, seen by the worker."""

    def __init__(self, connect_options: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_main, args=(other, _picklable(connect_options)), name=_CHILD_NAME, daemon=True
        )
        self._process.start()
        other.close()
        self.usable = True
        self._started = False

    def run(self, attempt: Attempt) -> None:
        handler = attempt.handler
        try:
            self._pipe.send((handler, attempt.assigned.SerializeToString()))
            with attempt._lock:
                attempt.terminate, attempt.force = self.terminate, self.kill
                if attempt.context.cancelled:
                    self.terminate()
            while True:
                kind, *values = self._pipe.recv()
                if kind == "started":
                    self._started = True
                elif kind == "done":
                    attempt.finished.MergeFromString(values[0])
                    break
                elif kind == "output":
                    attempt.output(*values)
                elif kind == "progress":
                    attempt.progress(*values)
                elif kind == "suspend":
                    attempt.suspend()
                elif kind == "resume":
                    attempt.resume()
                    self._pipe.send("resumed")
        except (EOFError, OSError):
            self.usable = False
            self._died(attempt)
        except BaseException:
            self.usable = False  # It may still run the function.
            raise
        finally:
            with attempt._lock:
                attempt.terminate = attempt.force = lambda: None
                # `Cancelled` may have left the process in any state.
                self.usable = self.usable and not attempt.context.cancelled

    def terminate(self) -> None:
        """Raises `Cancelled` in the function."""
        if self._process.pid is not None and self._process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)

    def _died(self, attempt: Attempt) -> None:
        self._process.join(5)
        code = self._process.exitcode
        if attempt.context.cancelled:
            killed = code == -signal.SIGKILL
            attempt.finished.stopped.method = (
                task_pb2.STOP_METHOD_SIGNAL_KILL if killed else task_pb2.STOP_METHOD_SIGNAL_TERM
            )
            return
        failure = attempt.finished.failure
        failure.retryable = True
        if code is not None and code < 0:
            failure.reason = task_pb2.FAILURE_REASON_KILLED
            failure.signal = -code
            failure.message = f"the process was killed by signal {-code}"
        else:
            failure.reason = task_pb2.FAILURE_REASON_HANDLER_ERROR
            failure.message = f"the process exited with code {code}"
            if not self._started:
                failure.message += (
                    " before it could run a function: it imports the main program, which must start workers and executors"
                    ' under `if __name__ == "__main__":`; the cause is on the stderr of the worker'
                )
            if code is not None:
                failure.exit_code = code

    def kill(self) -> None:
        """Kills the process and what it has started."""
        self.usable = False
        pid = self._process.pid
        if pid is None or self._process.exitcode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # Before the process has its own group, the group does not exist.
            os.killpg(pid, signal.SIGKILL)
        self._process.kill()


def _picklable(options: dict[str, Any]) -> dict[str, Any] | None:
    try:
        pickle.dumps(options)
    except Exception:  # Any object may be the token.
        return None
    return options


# What follows runs in the process.


class _ChildReporter(Reporter):
    def __init__(self, pipe: Pipe, connect_options: dict[str, Any] | None) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._connect_options = connect_options
        self._client: Client | None = None

    def send(self, *message: Any) -> None:
        with self._lock:
            self._pipe.send(message)

    def progress(self, fraction: float, note: str) -> None:
        self.send("progress", fraction, note)

    def output(self, stream: str, data: bytes) -> None:
        self.send("output", stream, data)

    def suspend(self) -> None:
        self.send("suspend")

    def resume(self) -> None:
        self.send("resume")
        self._pipe.recv()

    def client(self) -> Client:
        from lineshaft.client import Client

        if self._connect_options is None:
            raise RuntimeError("a token that is a function cannot be passed to another process; make a Client here")
        if self._client is None:
            self._client = Client(**self._connect_options)
        return self._client


def _main(pipe: Pipe, connect_options: dict[str, Any] | None) -> None:
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    running = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal running
        if running:
            running = False
            context._stop.set()
            raise Cancelled

    # Not SIG_IGN, which the programs that the function starts would inherit.
    _fork.handle_signals({signal.SIGTERM: stop, signal.SIGINT: lambda number, frame: None})
    reporter = _ChildReporter(pipe, connect_options)
    _capture.start()
    reporter.send("started")
    while True:
        try:
            handler, data = pipe.recv()
        except (EOFError, OSError):
            return
        assigned = AttemptAssigned.FromString(data)
        context = _context(reporter, assigned)
        finished = AttemptFinished(token=assigned.token)
        _current.set(context)
        started = time.process_time()
        try:
            try:
                arguments, named = handler.arguments(context.payload)
                if handler.takes_context:
                    named["ctx"] = context
                with task_span(assigned):
                    running = True
                    value = handler.function(*arguments, **named)
            finally:
                running = False
            complete(finished, value, context)
        except BaseException as error:
            fail(finished, error, handler, context, forced=False)
            if finished.HasField("stopped"):
                finished.stopped.method = task_pb2.STOP_METHOD_SIGNAL_TERM
        finally:
            _current.set(None)
        context._flush()
        with contextlib.suppress(Exception):  # The function may have closed or replaced it.
            sys.stdout.flush()
        spent = time.process_time() - started
        finished.cpu_time.FromNanoseconds(int(spent * 1e9))
        finished.peak_memory_bytes = _peak_memory_bytes()
        try:
            reporter.send("done", finished.SerializeToString())
        except OSError:
            return


def _peak_memory_bytes() -> int:
    import resource  # not on Windows, where only the client works

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _context(reporter: Reporter, assigned: AttemptAssigned) -> Context:
    from lineshaft import model

    return Context(
        reporter,
        token=assigned.token,
        task_id=assigned.task_id,
        namespace=assigned.namespace,
        handler=assigned.handler,
        attempt=assigned.attempt,
        priority=task_pb2.Priority.Name(assigned.priority).removeprefix("PRIORITY_"),
        labels=dict(assigned.labels),
        payload=_codec.Payload(assigned.payload.data, assigned.payload.content_type),
        timeout=model.from_duration(assigned.timeout),
    )


def _end_with_parent() -> None:
    """Ends this process, also within a function, when the worker has died."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
