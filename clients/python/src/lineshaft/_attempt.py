"""One attempt of a worker: calls the function in a thread or on the event loop, and stops it."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import inspect
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lineshaft import _codec, model
from lineshaft._trace import task_span
from lineshaft.context import Cancelled, Context, PermanentError, Reporter, _current
from lineshaft.v1 import task_pb2, worker_service_pb2
from lineshaft.v1.worker_service_pb2 import AttemptAssigned, AttemptFinished, WorkerMessage

if TYPE_CHECKING:
    from lineshaft.client import Client
    from lineshaft.worker import Worker

MESSAGE_BYTES_MAX = 1_000
DETAIL_BYTES_MAX = 8_000


class InvalidPayload(Exception):
    """The payload does not fit the parameters of the function."""


@dataclass(frozen=True)
class Handler:
    """A registered function."""

    name: str
    function: Callable[..., Any]
    description: str
    process: bool
    no_retry: tuple[type[BaseException], ...]
    takes_context: bool
    parameters: int | None
    """Number of parameters without the context; None: any number by name."""
    is_async: bool
    has_default: bool
    """Whether the only parameter has one."""

    def arguments(self, payload: _codec.Payload) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the function: one parameter gets the payload, several its members."""
        try:
            value = _codec.decode(payload.data, payload.content_type)
        except ValueError as error:
            raise InvalidPayload(f"payload: is not valid JSON: {error}") from None
        # A task without a payload arrives like one with empty bytes.
        is_empty = not payload.data and payload.content_type in ("", _codec.BYTES)
        if self.parameters == 0 or (is_empty and self.has_default):
            return [], {}
        if self.parameters == 1:
            return [value], {}
        if is_empty:
            value = []
        if isinstance(value, dict):
            arguments: tuple[list[Any], dict[str, Any]] = ([], value)
        elif isinstance(value, list):
            arguments = (value, {})
        else:
            raise InvalidPayload(
                f"payload: is {_kind(value)}; {self.name} has several parameters and needs an object or an array"
            )
        try:
            context = {"ctx": None} if self.takes_context else {}
            inspect.signature(self.function).bind(*arguments[0], **arguments[1], **context)
        except TypeError as error:
            raise InvalidPayload(f"payload: does not fit the parameters of {self.name}: {error}") from None
        return arguments


def describe(
    function: Callable[..., Any],
    name: str | None,
    description: str | None,
    process: bool,
    no_retry: type[BaseException] | tuple[type[BaseException], ...],
) -> Handler:
    """Reads what a worker needs to know from a function."""
    classes = no_retry if isinstance(no_retry, tuple) else (no_retry,)
    if not all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
        raise TypeError(f"no_retry is {no_retry!r}; it must be an exception class or a tuple of them")
    parameters = list(inspect.signature(function).parameters.values())
    plain = [one for one in parameters if one.name != "ctx"]
    counted = [one for one in plain if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    is_async = inspect.iscoroutinefunction(function)
    if process and is_async:
        raise TypeError(f"{function!r} is a coroutine function; only a plain function can run in a process")
    text = inspect.getdoc(function) or ""
    only_one = len(counted) == 1 and len(plain) == 1 and counted[0].kind is not counted[0].KEYWORD_ONLY
    return Handler(
        name=name or function.__name__,
        function=function,
        description=_codec.text(text.split("\n", 1)[0] if description is None else description),
        process=process,
        no_retry=classes,
        takes_context=len(plain) < len(parameters),
        parameters=0 if not plain else 1 if only_one else None,
        is_async=is_async,
        has_default=only_one and counted[0].default is not counted[0].empty,
    )


def _kind(value: Any) -> str:
    return {str: "a string", bool: "a boolean", int: "a number", float: "a number", bytes: "bytes"}.get(
        type(value), "null" if value is None else "text"
    )


class Attempt(Reporter):
    """An attempt that this worker was assigned and has accepted."""

    def __init__(self, worker: Worker, assigned: AttemptAssigned, handler: Handler) -> None:
        self.token = assigned.token
        self.handler = handler
        self.worker = worker
        self.stale = False
        self.assigned = assigned
        self.context = Context(
            self,
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
        self._lock = threading.Lock()
        self._thread = 0  # that runs the function
        self._task: asyncio.Task[Any] | None = None
        self._forced = False
        self._slot = "held"
        self._resumed = threading.Event()
        self._entered = False
        self.terminate: Callable[[], None] = lambda: None
        """Asks the function to stop, in a way that depends on where it runs."""
        self.force: Callable[[], None] = self._raise_in_thread
        """Stops the function by force."""

    # What the function reports.

    def progress(self, fraction: float, note: str) -> None:
        self.worker._outbox.progress(self.token, fraction, note)

    def output(self, stream: str, data: bytes) -> None:
        self.worker._outbox.output(self.token, stream, data)

    def client(self) -> Client:
        return self.worker.client

    def suspend(self) -> None:
        self._slot = "released"
        self.worker._outbox.push(self._message_suspended())

    def resume(self) -> None:
        self._resumed.clear()
        self._slot = "requested"
        self.worker._outbox.push(self._message_resuming())
        self._resumed.wait()

    def resumed(self) -> None:
        """The server has given a slot."""
        self._slot = "held"
        self._resumed.set()

    def slot_messages(self) -> list[WorkerMessage]:
        """What a new stream has to know."""
        if self._slot == "held":
            return []
        first = [self._message_suspended()]
        return first if self._slot == "released" else [*first, self._message_resuming()]

    def _message_suspended(self) -> WorkerMessage:
        return WorkerMessage(suspended=worker_service_pb2.AttemptSuspended(token=self.token))

    def _message_resuming(self) -> WorkerMessage:
        return WorkerMessage(resuming=worker_service_pb2.AttemptResuming(token=self.token))

    # Running.

    def run(self) -> None:
        """Runs the attempt to its end, in this thread or a process."""
        if self.handler.process:
            self.worker._processes.run(self)
        else:
            self._run_here()

    def _run_here(self) -> None:
        started = time.thread_time()
        self.finished = AttemptFinished(token=self.token)
        try:
            try:
                contextvars.copy_context().run(self._call)
            except BaseException as error:  # `Cancelled`, raised after the function had returned
                fail(self.finished, error, self.handler, self.context, forced=self._forced)
            self.context._flush()
            self.finished.cpu_time.FromNanoseconds(int((time.thread_time() - started) * 1e9))
        finally:
            self.worker._finished(self)

    def _call(self) -> None:
        _current.set(self.context)
        try:
            with self._lock:
                self._thread = threading.get_ident()
            try:
                arguments, named = self.handler.arguments(self.context.payload)
                if self.handler.takes_context:
                    named["ctx"] = self.context
                self.context.check()
                with task_span(self.assigned):
                    value = self.handler.function(*arguments, **named)
            finally:
                with self._lock:
                    self._thread = 0
                    if self._forced:
                        # It may not have been raised yet, and must not be raised here or in the next task.
                        _set_async_exception(threading.get_ident(), None)
            complete(self.finished, value, self.context)
        except BaseException as error:
            fail(self.finished, error, self.handler, self.context, forced=self._forced)

    async def run_async(self) -> None:
        self._entered = True
        _current.set(self.context)
        self.finished = AttemptFinished(token=self.token)
        try:
            arguments, named = self.handler.arguments(self.context.payload)
            if self.handler.takes_context:
                named["ctx"] = self.context
            self.context.check()
            with task_span(self.assigned):
                value = await self.handler.function(*arguments, **named)
            complete(self.finished, value, self.context)
        except BaseException as error:
            fail(self.finished, error, self.handler, self.context, forced=False)
        try:
            self.context._flush()
        finally:
            self.worker._finished(self)

    def start_async(self) -> None:
        """In the thread of the event loop."""
        self._task = asyncio.get_running_loop().create_task(self.run_async())

    # Stopping.

    def cancel(self, reason: int, grace: float) -> None:
        """Asks the function to stop, and stops it by force after `grace` seconds if that is possible."""
        self.stale = self.stale or reason == worker_service_pb2.STOP_REASON_STALE
        self.context._stop.set()
        if self.handler.is_async:
            loop = self.worker._loop
            if loop is not None:
                loop.call_soon_threadsafe(self._cancel_async)
            return
        with self._lock:
            self.terminate()
        if grace <= 0:
            self.force()
        else:
            timer = threading.Timer(grace, lambda: self.force())
            timer.daemon = True
            timer.start()

    def _cancel_async(self) -> None:
        # A coroutine that has not begun sees the cancel by itself; asyncio would end it without a report.
        if self._task is not None and self._entered:
            self._task.cancel()

    def _raise_in_thread(self) -> None:
        """Raises `Cancelled` in the thread of the function; takes effect when Python code runs there."""
        with self._lock:
            if self._thread and not self._forced:
                self._forced = True
                _set_async_exception(self._thread, Cancelled)


def complete(finished: AttemptFinished, value: Any, context: Context) -> None:
    """Reports the value that the function returned, and the files that it has left."""
    try:
        data, content_type = _codec.encode(value)
        finished.result.data = data
        finished.result.content_type = content_type
    except (TypeError, ValueError) as error:
        raise PermanentError(f"result: {error}") from None
    finished.artifacts.extend(context._artifacts.values())


def fail(finished: AttemptFinished, error: BaseException, handler: Handler, context: Context, forced: bool) -> None:
    """Reports the exception that the function raised. Does not fail itself: the server would wait for the report."""
    try:
        stopped = isinstance(error, (Cancelled, asyncio.CancelledError))
        if context.cancelled and (stopped or not isinstance(error, InvalidPayload)):
            finished.stopped.method = task_pb2.STOP_METHOD_ABORT if forced else task_pb2.STOP_METHOD_TOKEN
            return
        finished.failure.CopyFrom(_failure(error, handler, context))
    except BaseException as met:  # Code of the exception runs here, such as its `__str__`.
        message = f"{_plain_name(error)}, which cannot be described because of {_plain_name(met)}"
        finished.failure.CopyFrom(unreported(message))


def unreported(message: str) -> task_pb2.Failure:
    """The failure of an attempt about which no more is known."""
    return task_pb2.Failure(
        reason=task_pb2.FAILURE_REASON_HANDLER_ERROR, message=_first_bytes(message, MESSAGE_BYTES_MAX), retryable=True
    )


def _failure(error: BaseException, handler: Handler, context: Context) -> task_pb2.Failure:
    if isinstance(error, InvalidPayload):
        message = _first_bytes(str(error), MESSAGE_BYTES_MAX)
        return task_pb2.Failure(reason=task_pb2.FAILURE_REASON_INVALID_PAYLOAD, message=message)
    # Without the frames of this package.
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__package__") == "lineshaft":
        trace = trace.tb_next
    detail = "".join(traceback.format_exception(type(error), error, trace))
    return task_pb2.Failure(
        reason=task_pb2.FAILURE_REASON_HANDLER_ERROR,
        message=_first_bytes(_one_line(error), MESSAGE_BYTES_MAX),
        detail=context._exception + _last_bytes(detail, DETAIL_BYTES_MAX - len(context._exception)),
        retryable=not isinstance(error, (PermanentError, *handler.no_retry)),
    )


def _one_line(error: BaseException) -> str:
    """The name of the class and the first line of the text that is not empty."""
    kind = type(error)
    is_known_module = kind.__module__ in ("builtins", "__main__", "__mp_main__")
    name = kind.__qualname__ if is_known_module else f"{kind.__module__}.{kind.__qualname__}"
    try:
        lines = (line.strip() for line in str(error).splitlines())
    except Exception:  # from its `__str__`
        return f"{name}: <exception str() failed>"
    line = next(filter(None, lines), "")
    return f"{name}: {line}" if line else name


def _plain_name(value: object) -> str:
    """The name of the class of any object, without code of this class."""
    return str(type.__dict__["__name__"].__get__(type(value)))


def _first_bytes(text: str, bytes_max: int) -> str:
    return _codec.text(text[:bytes_max]).encode()[:bytes_max].decode(errors="ignore")


def _last_bytes(text: str, bytes_max: int) -> str:
    """The end of a long traceback, where the cause is."""
    return _codec.text(text[-bytes_max:]).encode()[-bytes_max:].decode(errors="ignore")


def _set_async_exception(thread: int, exception: type[BaseException] | None) -> None:
    value = ctypes.py_object(exception) if exception is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
