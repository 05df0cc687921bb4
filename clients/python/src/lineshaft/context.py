"""What a function of a worker knows about its task, and what it can report."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO

from lineshaft import _codec
from lineshaft._upload import upload
from lineshaft.errors import LineshaftError

if TYPE_CHECKING:
    from lineshaft import aio
    from lineshaft.client import Client, Subscription
    from lineshaft.model import Parent
    from lineshaft.v1.task_pb2 import Artifact


LINE_CHARACTERS_MAX = 8_000


class Cancelled(BaseException):
    """Raised in a function whose task is cancelled or has run for too long.

    A BaseException, like `asyncio.CancelledError`, so that `except Exception` does not hide it.
    """


class PermanentError(LineshaftError):
    """Raise it in a function to fail the task without further attempts."""


class Reporter:
    """Where the reports of an attempt go."""

    def progress(self, fraction: float, note: str) -> None:
        raise NotImplementedError

    def output(self, stream: str, data: bytes) -> None:
        raise NotImplementedError

    def suspend(self) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        """Returns when the attempt has a slot again."""
        raise NotImplementedError

    def client(self) -> Client:
        raise NotImplementedError


class Context:
    """The task that the present function runs. A parameter named `ctx` gets it; `lineshaft.current()` returns it, too."""

    def __init__(
        self,
        reporter: Reporter,
        *,
        token: str,
        task_id: str,
        namespace: str,
        handler: str,
        attempt: int,
        priority: str,
        labels: Mapping[str, str],
        payload: _codec.Payload,
        timeout: float,
    ) -> None:
        self.task_id = task_id
        self.namespace = namespace
        self.handler = handler
        self.attempt = attempt
        """Number of the attempt, from 1."""
        self.priority = priority
        self.labels = labels
        self.payload = payload
        """The payload as it was submitted."""
        self.timeout = timeout
        """Seconds after which the attempt is cancelled, from its start."""
        self._reporter = reporter
        self._token = token
        self._stop = threading.Event()
        self._suspended = 0
        self._slot_lock = threading.Lock()
        self._output_lock = threading.Lock()
        self._artifacts: dict[str, Artifact] = {}
        self._exception = ""  # for the caller; the first line of the detail of the failure
        self._partial: dict[str, str] = {}  # the line that is being written, by stream

    def __repr__(self) -> str:
        return f"<Context of task {self.task_id}, handler {self.handler}, attempt {self.attempt}>"

    @property
    def cancelled(self) -> bool:
        """Whether the function should stop."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raises `Cancelled` if the function should stop."""
        if self._stop.is_set():
            raise Cancelled

    def sleep(self, seconds: float) -> None:
        """Sleeps, and raises `Cancelled` as soon as the function should stop."""
        self._stop.wait(seconds)
        self.check()

    def progress(self, fraction: float, note: str = "") -> None:
        """Reports progress, 0 to 1, and the current activity."""
        self._reporter.progress(min(1.0, max(0.0, float(fraction))), _codec.text(str(note)))

    def log(self, text: str) -> None:
        """Writes a line to the output of the task, stream `stderr`, and not to that of the program."""
        self._reporter.output("stderr", (_codec.text(str(text)) + "\n").encode())

    def _write(self, stream: str, text: str) -> None:
        """Adds printed text to the output, in whole lines: `print` writes the end of a line separately."""
        with self._output_lock:
            text = self._partial.pop(stream, "") + text
            if not text.endswith("\n") and len(text) < LINE_CHARACTERS_MAX:
                self._partial[stream] = text
            else:
                self._reporter.output(stream, _codec.text(text).encode())

    def _flush(self) -> None:
        with self._output_lock:
            for stream, text in self._partial.items():
                self._reporter.output(stream, _codec.text(text).encode())
            self._partial.clear()

    @property
    def client(self) -> Client:
        """A client of the same server, for tasks that this one submits."""
        return self._reporter.client()

    @property
    def aio(self) -> aio.Client:
        """The same for coroutines."""
        from lineshaft import aio

        return aio.Client._of(self.client)

    def parents(self) -> Parents:
        """The tasks that had to end before this one, in the order of the submission: for `for`, or `async for` in coroutines.

        Each result is read when the loop asks for it, so that they need not fit into memory together.
        """
        return Parents(self)

    def artifact(
        self, name: str, content: bytes | str | os.PathLike[str] | BinaryIO, content_type: str | None = None
    ) -> None:
        """Uploads a file that the task leaves: bytes, a file or pipe that is open for reading, or the path of a file.

        It becomes an artifact of the task if the function returns. Without a content type it gets that of the extension of its
        name. A name that was used before is replaced. Blocks: in a coroutine, use `asyncio.to_thread`.

        After a broken connection the upload begins anew, until nothing was sent for 30 seconds. For this, what was read of a pipe
        is kept in a temporary file.
        """
        uploaded = upload(self.client, self.task_id, self._token, name, content, content_type or "")
        with self._output_lock:
            self._artifacts[name] = uploaded

    def suspended(self) -> Suspension:
        """Gives the slot of this task to others, with `with` or `async with`, while it waits for something.

        Waits for results of tasks do so by themselves.
        """
        return Suspension(self)


class Parents:
    """The parents of a task, with their results."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __iter__(self) -> Iterator[Parent]:
        from lineshaft.client import Subscription

        return self._read(Subscription())

    def __aiter__(self) -> AsyncIterator[Parent]:
        from lineshaft import aio
        from lineshaft.client import Subscription

        subscription = Subscription()
        return aio._pumped(self._read(subscription), subscription, ahead=1)

    def _read(self, subscription: Subscription) -> Iterator[Parent]:
        context = self._context
        return context.client._parents(context.task_id, context._token, subscription)


class Suspension:
    """A part of a function that needs no slot."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        context = self._context
        with context._slot_lock:
            context._suspended += 1
            if context._suspended == 1:
                context._reporter.suspend()

    def __exit__(self, *_: object) -> None:
        context = self._context
        with context._slot_lock:
            context._suspended -= 1
            if context._suspended == 0:
                context._reporter.resume()

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        # Not in the thread of the event loop: it returns when the server has given a slot.
        await asyncio.to_thread(self.__exit__)


_current: contextvars.ContextVar[Context | None] = contextvars.ContextVar("lineshaft_context", default=None)


def current() -> Context | None:
    """The task that the present function runs; None outside of a worker, and in a process that the function has forked."""
    return _current.get()


def _after_fork_in_child() -> None:
    """The parent runs the task. Otherwise waits in the child would wait for a slot of the worker."""
    _current.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def waiting() -> Suspension | contextlib.nullcontext[None]:
    """Around a wait for other tasks: within a task, its slot is free for others meanwhile."""
    context = _current.get()
    return contextlib.nullcontext() if context is None else context.suspended()
