"""The handle of a task."""

from __future__ import annotations

import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from lineshaft import _codec, errors, model
from lineshaft.context import waiting
from lineshaft.v1 import task_pb2, task_service_pb2

if TYPE_CHECKING:
    from lineshaft.client import Client, Subscription

logger = logging.getLogger("lineshaft")

SENDING, ACCEPTED, DONE = 0, 1, 2
FAILED_MAX = 1_000
"""A client keeps this many refused tasks for `flush`."""
Listener = Callable[[], None]

# Guards the listeners of all tasks. It is held for a few instructions only.
_listeners_lock = threading.Lock()
# The forks between the first process and this one.
_generation = 0


def _after_fork_in_child() -> None:
    global _listeners_lock, _generation
    # Another thread of the parent may have held it.
    _listeners_lock = threading.Lock()
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Task:
    """One task: wait for its result, watch it, cancel it, read its output and its artifacts.

    `submit` returns it before the server has the task. `id` waits until the task is accepted and stored.
    """

    __slots__ = (
        "__weakref__",
        "_client",
        "_content_type",
        "_direct",
        "_ending",
        "_error",
        "_generation",
        "_id",
        "_listeners",
        "_phase",
        "_request",
        "_result",
        "_resume",
        "_session",
        "_state",
        "_twin",
        "_watched",
    )  # fmt: skip

    def __init__(self, client: Client, task_id: str = "", session: str = "") -> None:
        self._client = client
        self._id = task_id
        self._phase = ACCEPTED if task_id else SENDING
        self._listeners: list[tuple[int, Listener]] | None = None
        self._error: errors.LineshaftError | None = None
        self._request: Any = None  # what is needed to send it, until it is accepted
        self._twin: Task | None = None  # the first handle of the same task
        self._session = session  # session batch by which the client watches it; empty: it is watched by its own ID
        self._generation = _generation
        self._watched = False
        self._direct = False  # a thread waits for it with a call of its own
        self._resume = ""
        self._state = 0
        self._result = b""
        self._content_type = ""
        self._ending: errors.LineshaftError | None = None

    def __repr__(self) -> str:
        state = model.STATES.get(self._state, model.State.UNSPECIFIED)
        known = "" if state is model.State.UNSPECIFIED else f" {state}"
        return f"<Task {self._id or 'being submitted'}{known}>"

    @property
    def id(self) -> str:
        """The task ID. Waits until the server has accepted the task; raises why it has not."""
        if not self._id:
            self.accepted()
        return self._id

    def accepted(self, timeout: float | None = None) -> bool:
        """Waits until the server has accepted the task and returns True, or False if the timeout expires first.

        Raises the error with which the server refused the task.
        """
        if not self._wait(ACCEPTED, timeout):
            return False
        if not self._id and self._error is not None:
            self._raise()
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end of the task, also if it fails. Returns False if the timeout, in seconds, expires first.

        Raises the error with which the server refused the task.
        """
        if not self._wait_for_end(timeout):
            return False
        if self._error is not None:
            self._raise()
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Waits for the end of the task and returns its result.

        Raises `TaskFailed`, `TaskCancelled`, `TimeoutError` after `timeout` seconds, or the error with which the server
        refused the task.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"task {self._id or '(being submitted)'} has not finished within {timeout} s")
        if self._ending is not None:
            raise self._ending
        return _codec.decode(self._result, self._content_type)

    def exception(self, timeout: float | None = None) -> errors.LineshaftError | None:
        """Waits for the end of the task and returns what `result` would raise, or None."""
        if not self._wait_for_end(timeout):
            raise TimeoutError(f"task {self._id or '(being submitted)'} has not finished within {timeout} s")
        self._client._failed.pop(self, None)
        return self._error or self._ending

    def done(self) -> bool:
        """Whether this client knows that the task has finished; makes no call. Use `refresh` or `wait` to find out."""
        return self._phase == DONE

    def add_done_callback(self, callback: Callable[[Task], object]) -> None:
        """Calls `callback(task)` when the task has finished, in a thread of the client; at once if it has."""

        def call() -> None:
            try:
                callback(self)
            except Exception:
                logger.exception("a callback of task %s failed", self._id)

        self._client._results.want([self])
        if not self._listen(DONE, call):
            call()

    def info(self, *, payload: bool = False) -> model.TaskInfo:
        """Asks the server for the present state of the task. `payload`: also for its input."""
        return self._client.get(self.id, payload=payload)

    def refresh(self) -> model.State:
        """Asks the server for the present state."""
        return self.info().state

    def cancel(self, mode: str = "graceful", reason: str = "", grace: model.Seconds | None = None) -> bool:
        """Cancels the task. Returns False if it had already completed or failed.

        A task that has not started never starts. A running one is asked to stop and is stopped by force after `grace`
        (default: that of the handler); with the mode `force` at once.
        """
        return self._client.cancel(self.id, mode, reason, grace)

    def watch(self) -> Iterator[model.Event]:
        """Yields the state changes of the task until it has finished, those from its submission on first.

        A broken connection is resumed without losing or repeating an event.
        """
        return self._watch()

    def _watch(self, subscription: Subscription | None = None) -> Iterator[model.Event]:
        wanted = task_pb2.TaskFilter(task_ids=[self.id])
        resume, state = self._resume, self.refresh() if not self._resume else model.State.UNSPECIFIED
        if state.finished:
            return
        for event in self._client._watch(wanted, resume, subscription):
            yield event
            if event.state.finished or event.deleted:
                return

    def output(self, stream: str = "stdout", attempt: int = 0) -> bytes:
        """What the task has written to `stdout` or `stderr` so far (the first and last 64 KiB are kept).

        `attempt` 0: that of the current or last attempt.
        """
        return b"".join(self._output(stream, attempt, follow=False))

    def follow(self, stream: str = "stdout", attempt: int = 0) -> Iterator[bytes]:
        """Yields the output as it is written, until the task has finished; `attempt` 0: also that of later attempts."""
        return self._output(stream, attempt, follow=True)

    def _output(
        self, stream: str, attempt: int, follow: bool, subscription: Subscription | None = None
    ) -> Iterator[bytes]:
        number = model.enum_number(task_pb2.OutputStream, "OUTPUT_STREAM_", stream, "stream")
        request = task_service_pb2.ReadOutputRequest(task_id=self.id, stream=number, follow=follow, attempt=attempt)
        for chunk in self._client._read_output(request, subscription):
            if chunk.data:
                yield chunk.data

    def artifacts(self) -> list[model.Artifact]:
        """The files that the task has left, by name. There are none unless it has completed."""
        return [model.artifact(one) for one in self._client._artifacts(self.id).artifacts]

    def read_artifact(self, name: str) -> Iterator[bytes]:
        """Yields the content of a file that the task has left. After a broken connection it continues where it was.

        Raises `ChecksumMismatch` at the end if the content does not have the SHA-256 of the artifact.
        """
        return self._client._read_artifact(self.id, name, None)

    # The following is for the other modules of this package.

    def _wait_for_end(self, timeout: float | None) -> bool:
        if self._phase == DONE:
            return True
        with waiting():
            return self._client._results.wait(self, timeout)

    def _raise(self) -> NoReturn:
        self._client._failed.pop(self, None)
        assert self._error is not None
        raise self._error

    def _wait(self, phase: int, timeout: float | None) -> bool:
        if self._phase >= phase:
            return True
        event = threading.Event()
        listener = event.set
        if not self._listen(phase, listener):
            return True
        if event.wait(timeout):
            return True
        self._unlisten(listener)
        return self._phase >= phase

    def _listen(self, phase: int, listener: Listener) -> bool:
        """Registers a listener for a phase; False, and without effect, if the task has reached it."""
        if self._phase == SENDING and self._generation != _generation:
            self._error = errors.ClientClosed("the task was submitted by the parent process")
            self._listeners, self._phase = None, DONE
        with _listeners_lock:
            if self._phase >= phase:
                return False
            if self._listeners is None:
                self._listeners = []
            self._listeners.append((phase, listener))
            # `_advance` takes the lock only if it sees a listener: it may just have missed this one.
            if self._phase < phase:
                return True
            self._listeners = [one for one in self._listeners if one[1] is not listener] or None
            return False

    def _unlisten(self, listener: Listener) -> None:
        with _listeners_lock:
            self._listeners = [one for one in self._listeners or () if one[1] is not listener] or None

    def _advance(self, phase: int) -> None:
        """Moves on to a phase and calls those who wait for it."""
        self._phase = phase
        if self._listeners is None:
            return
        with _listeners_lock:
            listeners = self._listeners or ()
            self._listeners = [one for one in listeners if one[0] > phase] or None
        for wanted, listener in listeners:
            if wanted <= phase:
                listener()

    def _accept(self) -> None:
        self._request = None
        self._advance(ACCEPTED)

    def _fail(self, error: errors.LineshaftError) -> None:
        """Ends every wait for the task with an error of the client or the server."""
        if self._phase == DONE:
            return
        if self._phase == SENDING and self._listeners is None:
            # Without this line, a refused task that nobody waits for would leave no trace.
            logger.error("a task for the handler %s was not accepted: %s", self._request.key[0], error)
            if len(self._client._failed) < FAILED_MAX:
                self._client._failed[self] = None
        self._error = error
        self._request = None
        self._advance(DONE)

    def _copy(self, other: Task) -> None:
        """Takes over the end from another handle of the task."""
        if self._phase != DONE:
            self._state, self._result, self._content_type = other._state, other._result, other._content_type
            self._error, self._ending = other._error, other._ending
            self._advance(DONE)

    def _finish(self, task: task_pb2.Task) -> None:
        """Takes over the end of the task."""
        if self._phase == DONE:
            return
        self._state = task.state
        if task.state == task_pb2.TASK_STATE_COMPLETED:
            self._result = task.result.data
            self._content_type = task.result.content_type
        elif task.state == task_pb2.TASK_STATE_FAILED:
            self._ending = errors.TaskFailed(task.task_id, model.failure(task.failure))
        else:
            method = task_pb2.StopMethod.Name(task.cancel.method).removeprefix("STOP_METHOD_")
            self._ending = errors.TaskCancelled(task.task_id, task.cancel.reason, method)
        self._advance(DONE)


def as_completed(tasks: Iterable[Task], timeout: float | None = None) -> Iterator[Task]:
    """Yields the tasks as they finish, whatever their end. Raises TimeoutError after `timeout` seconds in all."""
    wanted = list(dict.fromkeys(tasks))
    deadline = None if timeout is None else time.monotonic() + timeout
    finished: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for client in {task._client for task in wanted}:
        client._results.want([task for task in wanted if task._client is client])
    for task in wanted:
        if not task._listen(DONE, functools.partial(finished.put, task)):
            finished.put(task)
    for number in range(len(wanted)):
        try:
            task = finished.get_nowait()
        except queue.Empty:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                with waiting():
                    task = finished.get(timeout=left)
            except queue.Empty:
                count = f"{len(wanted) - number} of {len(wanted)} tasks"
                raise TimeoutError(f"{count} have not finished within {timeout} s") from None
        yield task
