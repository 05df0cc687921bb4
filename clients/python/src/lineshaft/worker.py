"""The worker: runs the tasks of its functions in this program."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any, TypeVar, overload

import grpc

from lineshaft import _capture, _fork, errors, model
from lineshaft._attempt import Attempt, Handler, describe, unreported
from lineshaft._chunks import IncomingPayloads, announced, checked
from lineshaft._connection import Backoff, Connection
from lineshaft._outbox import Outbox
from lineshaft._process import Processes
from lineshaft._threads import Threads
from lineshaft._version import __version__
from lineshaft.client import Client
from lineshaft.v1 import task_pb2, worker_service_pb2
from lineshaft.v1.worker_service_pb2 import AttemptAssigned, AttemptFinished, ServerMessage, WorkerMessage, WorkRequest

logger = logging.getLogger("lineshaft")

WELCOME_SECONDS = 30.0
READY_SECONDS = 30.0
"""How long `with worker` waits for the server, as long as a client for a call."""
SILENT_INTERVALS_MAX = 3
"""A server that sends nothing for this many intervals is not alive."""
FORCE_SECONDS = 2.0
"""Time in which functions that are stopped by force are waited for."""
END_SECONDS = 5.0
"""Time for the server to end a stream that the worker has ended."""

Function = TypeVar("Function", bound=Callable[..., Any])
_FINAL = (
    grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION,
)  # fmt: skip


class Worker:
    """Connects to a server and runs the tasks of the registered functions.

    `concurrency` is the number of tasks that run at a time, `pool` a pool of kind `remote` (default: the first one),
    `worker_id` the name of this program, unique while it runs. The arguments for the connection are those of `Client`.
    `capture`: whether what the functions print and log is also kept as output of their tasks.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        concurrency: int = 10,
        pool: str = "",
        worker_id: str = "",
        labels: Mapping[str, str] | None = None,
        capture: bool = True,
        token: str | Callable[[], str] | None = None,
        tls: bool | None = None,
        ca: bytes | str | os.PathLike[str] | None = None,
        cert: bytes | str | os.PathLike[str] | None = None,
        key: bytes | str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(concurrency, int):
            raise TypeError(f"concurrency is {concurrency!r}; it must be an integer")
        if not 1 <= concurrency <= 10_000:
            raise ValueError(f"concurrency is {concurrency}; it must be 1 to 10000")
        self.id = worker_id or f"{_host_name()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.concurrency = concurrency
        self._pool = pool
        self._labels = dict(model.labels(labels) or {})
        self._capture = capture
        self._connect_options: dict[str, Any] = {
            "address": address, "token": token, "tls": tls, "ca": ca, "cert": cert, "key": key,
        }  # fmt: skip
        self._handlers: dict[str, Handler] = {}
        self._outbox = Outbox()
        self._lock = threading.Lock()
        self._running: dict[str, Attempt] = {}
        self._unsettled: dict[str, AttemptFinished] = {}
        self._incoming = IncomingPayloads()
        self._chunked_bytes_max = 0  # of a result that the server receives in chunks; 0: it receives none
        self._threads = Threads()
        self._processes = Processes(self._connect_options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self._thread: threading.Thread | None = None
        self._call: Any = None
        self._heard = 0.0
        self._interval = WELCOME_SECONDS
        self._announces = False
        self._draining = False
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._ready = threading.Event()
        self._error: BaseException | None = None

    @overload
    def handler(self, function: Function, /) -> Function: ...

    @overload
    def handler(
        self,
        name: str | None = None,
        /,
        *,
        description: str | None = None,
        process: bool = False,
        no_retry: type[BaseException] | tuple[type[BaseException], ...] = (),
    ) -> Callable[[Function], Function]: ...

    def handler(
        self,
        name: Any = None,
        /,
        *,
        description: str | None = None,
        process: bool = False,
        no_retry: type[BaseException] | tuple[type[BaseException], ...] = (),
    ) -> Any:
        """Registers a function, as `@worker.handler` under its own name or `@worker.handler("name")`.

        A function with one parameter gets the payload; one with several gets the members of an object or an array. A
        parameter `ctx` gets the `Context`. What it returns is the result: bytes as they are, any other value as JSON.

        Plain functions run in threads, coroutine functions on one event loop, and with `process=True` plain functions in
        processes of their own, which use all cores and are killed when the task is cancelled. `no_retry` is an exception class
        or a tuple of them: after such an exception no further attempt is made, as after `PermanentError`.
        """
        if callable(name):
            self._register(describe(name, None, None, False, ()))
            return name

        def register(function: Function) -> Function:
            self._register(describe(function, name, description, process, no_retry))
            return function

        return register

    def calls(self, name: str, *, process: bool = False) -> None:
        """Runs the calls of `Executor(name=name)`, also of other programs; the modules of their functions must be here.

        The calls come with pickle: whoever may submit tasks to this handler can run any code in this program.
        """
        from lineshaft.executor import call

        self._register(describe(call, name, "Calls of Python functions", process, ()))

    def _register(self, handler: Handler) -> None:
        if self._thread is not None:
            raise RuntimeError(f"handler {handler.name}: the worker has started")
        if handler.name in self._handlers:
            raise ValueError(f"handler {handler.name} has a function already")
        self._handlers[handler.name] = handler
        with contextlib.suppress(AttributeError):  # Built-in functions have no room for it.
            handler.function.__lineshaft_handler__ = handler.name  # type: ignore[attr-defined]

    @property
    def client(self) -> Client:
        """A client of the same server."""
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = Client(**self._connect_options)
        return self._client

    # Starting and stopping.

    def run(self) -> None:
        """Runs tasks until SIGTERM, SIGINT or `stop`, then finishes those that run. A second signal ends them.

        After a broken connection it connects again, without a limit. Raises a `ServerError` if the server refuses the worker.
        """
        self._announces = not logger.isEnabledFor(logging.INFO)
        self.start()
        with _signals(self):
            self.join()

    def start(self) -> None:
        """Begins to run tasks in the background."""
        if self._thread is not None:
            raise RuntimeError("a worker runs once; make another one")
        if not self._handlers:
            raise RuntimeError("the worker has no function; register one with @worker.handler")
        self._processes.check([one for one in self._handlers.values() if one.process])
        if any(one.is_async for one in self._handlers.values()):
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="lineshaft-async", daemon=True).start()
        if self._capture:
            _capture.start()
        self._thread = threading.Thread(target=self._connect, name="lineshaft-worker", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits until the server has accepted the worker. Raises if it refuses it."""
        ready = self._ready.wait(timeout)
        if self._error is not None:
            raise self._error
        return ready

    def stop(self, *, force: bool = False) -> None:
        """Accepts no more tasks. `force`: also stops those that run; they start again elsewhere."""
        with self._lock:
            first, self._draining = not self._draining, True
            running = list(self._running.values()) if force else []
        if first:
            self._outbox.push(WorkerMessage(draining=worker_service_pb2.WorkerDraining()))
        for attempt in running:
            attempt.cancel(worker_service_pb2.STOP_REASON_CANCEL, 0.0)
        if force:
            # The server learns at once which attempts have stopped; the others end with the lease.
            timer = threading.Timer(FORCE_SECONDS, self._leave)
            timer.daemon = True
            timer.start()
        self._end_if_drained()

    def _leave(self) -> None:
        """Ends the connection, whatever still runs."""
        self._stopping.set()
        call = self._call
        if call is not None:
            call.cancel()

    def join(self, timeout: float | None = None) -> bool:
        """Waits until the worker has stopped. Raises the error that ended it."""
        ended = self._ended.wait(timeout)
        if self._error is not None:
            raise self._error
        return ended

    def __enter__(self) -> Worker:
        """Starts the worker and waits until the server has accepted it. Raises TimeoutError after 30 seconds."""
        self.start()
        try:
            if not self.wait_ready(READY_SECONDS):
                raise TimeoutError(
                    f"worker {self.id}: no server has accepted it within {READY_SECONDS:g} s; `start` does not wait for one"
                )
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(force=kind is not None)
        self.join()

    # The connection.

    def _connect(self) -> None:
        connection = Connection(**self._connect_options, timeout=WELCOME_SECONDS, user_agent=_version())
        try:
            self._connect_until_stopped(connection)
        except BaseException as error:
            self._error = error
        finally:
            connection.close()
            self._processes.close()
            for attempt in list(self._running.values()):
                attempt.context._stop.set()
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
            if self._client is not None:
                self._client.close()
            if self._capture:
                _capture.end()
            self._ended.set()
            self._ready.set()

    def _connect_until_stopped(self, connection: Connection) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            welcomed, forks = self._ready.is_set(), connection.forks
            try:
                self._stream(connection, backoff)
                met: errors.ServerError = errors.Unavailable("the server ended the stream")
            except grpc.RpcError as error:
                met = errors.from_rpc_error(error)
            except errors.InternalError as error:
                met = error
            finally:
                self._call = None
                self._outbox.close()
            if self._stopping.is_set() or self._is_done():
                return
            if connection.was_forked(met, forks):
                continue
            if met.reason == "WORKER_REPLACED" or (met.code in _FINAL and not welcomed):
                raise met
            pause = backoff.pause(met) or 1.0
            logger.warning("worker %s: not connected, trying again: %s", self.id, met.message)
            self._stopping.wait(pause)

    def _stream(self, connection: Connection, backoff: Backoff) -> None:
        self._heard = time.monotonic()
        self._interval = WELCOME_SECONDS / SILENT_INTERVALS_MAX
        begun = threading.Event()  # set by `welcome`: nothing but `hello` may be sent before
        over = threading.Event()

        def requests() -> Iterator[bytes]:
            yield WorkRequest(hello=self._hello()).SerializeToString()
            while not begun.wait(1.0):
                if over.is_set() or not self._is_alive():
                    return
            for messages in self._outbox.read(lambda: self._interval / 3, self._is_alive):
                yield WorkRequest(messages=messages).SerializeToString()

        work = connection.bidirectional("WorkerService/Work", worker_service_pb2.WorkResponse)
        call = self._call = work(requests(), metadata=connection.metadata())
        if self._stopping.is_set():
            call.cancel()
        try:
            for response in call:
                self._heard = time.monotonic()
                if response.HasField("welcome"):
                    backoff.reset()
                    self._welcome(response.welcome)
                    begun.set()
                    self._end_if_drained()
                self._messages(response.messages)
        finally:
            over.set()
            begun.set()
            call.cancel()

    def _is_alive(self) -> bool:
        """Ends the stream if the server is silent. Called by the thread that sends, at least once in a second."""
        if time.monotonic() - self._heard < self._interval * SILENT_INTERVALS_MAX:
            return True
        call = self._call
        if call is not None:
            logger.warning("worker %s: the server has sent nothing for too long", self.id)
            call.cancel()
        return False

    def _hello(self) -> worker_service_pb2.WorkerHello:
        with self._lock:
            unfinished = [*self._running, *self._unsettled]
        return worker_service_pb2.WorkerHello(
            worker_id=self.id,
            pool=self._pool,
            handlers=[
                worker_service_pb2.WorkerHandler(name=one.name, description=one.description)
                for one in self._handlers.values()
            ],
            slots=self.concurrency,
            labels=self._labels,
            version=_version(),
            unfinished=unfinished,
            chunks=True,
        )

    def _welcome(self, welcome: worker_service_pb2.WorkerWelcome) -> None:
        self._interval = model.from_duration(welcome.heartbeat_interval) or WELCOME_SECONDS
        self._incoming.clear()
        self._chunked_bytes_max = welcome.max_result_bytes
        self._outbox.drop(welcome.stale)
        with self._lock:
            for token in welcome.stale:
                self._unsettled.pop(token, None)
            first = [WorkerMessage(draining=worker_service_pb2.WorkerDraining())] if self._draining else []
            first += [message for attempt in self._running.values() for message in attempt.slot_messages()]
            first += [self._finished_message(finished) for finished in self._unsettled.values()]
            stale = [self._running[token] for token in welcome.stale if token in self._running]
            self._outbox.begin(first)
        for attempt in stale:
            attempt.cancel(worker_service_pb2.STOP_REASON_STALE, 0.0)
        text = f"worker {self.id} runs {', '.join(self._handlers)} in pool {welcome.pool}"
        logger.info("%s", text)
        if self._announces:
            # Otherwise a program without logging would show nothing.
            self._announces = False
            print(f"lineshaft: {text}", file=sys.stderr, flush=True)
        self._ready.set()

    def _messages(self, messages: Iterable[ServerMessage]) -> None:
        assigned: list[Attempt] = []
        for message in messages:
            attempt: Attempt | None = None
            if message.HasField("assigned"):
                attempt = self._assigned(message.assigned)
            elif message.HasField("chunk"):
                complete = self._incoming.add(message.chunk)
                attempt = self._complete(complete) if complete is not None else None
            else:
                # In this order: a cancel can follow its attempt in the same message.
                self._begin(assigned)
                assigned.clear()
                self._message(message)
            if attempt is not None:
                assigned.append(attempt)
        self._begin(assigned)

    def _begin(self, attempts: list[Attempt]) -> None:
        """Accepts attempts and starts them."""
        if not attempts:
            return
        with self._lock:
            self._running.update((attempt.token, attempt) for attempt in attempts)
        self._outbox.push(
            *(WorkerMessage(accepted=worker_service_pb2.AttemptAccepted(token=attempt.token)) for attempt in attempts)
        )
        self._threads.run(attempt for attempt in attempts if not attempt.handler.is_async)
        coroutines = [attempt for attempt in attempts if attempt.handler.is_async]
        if coroutines and self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_async, coroutines)

    def _begin_async(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            attempt.start_async()

    def _message(self, message: ServerMessage) -> None:
        kind = message.WhichOneof("kind")
        if kind == "settled":
            with self._lock:
                for token in message.settled.tokens:
                    self._unsettled.pop(token, None)
            self._end_if_drained()
        elif kind == "cancel":
            cancel = message.cancel
            acknowledged = worker_service_pb2.CancelAcknowledged(token=cancel.token)
            self._outbox.push(WorkerMessage(cancel_acknowledged=acknowledged))
            attempt = self._running.get(cancel.token)
            if attempt is not None:
                attempt.cancel(cancel.reason, model.from_duration(cancel.grace))
            elif self._incoming.remove(cancel.token) and cancel.reason != worker_service_pb2.STOP_REASON_STALE:
                stopped = worker_service_pb2.AttemptStopped(method=task_pb2.STOP_METHOD_NEVER_STARTED)
                self._report(AttemptFinished(token=cancel.token, stopped=stopped))
        elif kind == "result_requested":
            with self._lock:
                finished = self._unsettled.get(message.result_requested.token)
            if finished is not None:
                self._outbox.transfer(finished.token, finished.result.data)
        elif kind == "resumed":
            attempt = self._running.get(message.resumed.token)
            if attempt is not None:
                attempt.resumed()
        elif kind == "draining":
            logger.info("worker %s: the server is about to stop", self.id)

    def _assigned(self, assigned: AttemptAssigned) -> Attempt | None:
        if assigned.payload_bytes and assigned.handler in self._handlers and not self._draining:
            self._incoming.begin(assigned)
            return None
        return self._complete(assigned)

    def _complete(self, assigned: AttemptAssigned) -> Attempt | None:
        """The payload has arrived."""
        handler = self._handlers.get(assigned.handler)
        if handler is None or self._draining:
            not_started = worker_service_pb2.AttemptNotStarted()
            self._report(AttemptFinished(token=assigned.token, not_started=not_started))
            return None
        return Attempt(self, assigned, handler)

    def _finished(self, attempt: Attempt) -> None:
        """Nothing of the attempt runs any more."""
        if attempt.stale:
            with self._lock:
                self._running.pop(attempt.token, None)
            self._end_if_drained()
            return
        if attempt.finished.WhichOneof("outcome") is None:
            attempt.finished.failure.CopyFrom(unreported("the worker cannot tell how the attempt has ended"))
        self._report(attempt.finished)

    def _report(self, finished: AttemptFinished) -> None:
        finished = checked(finished, self._chunked_bytes_max)
        message = self._finished_message(finished)
        with self._lock:
            self._running.pop(finished.token, None)
            self._unsettled[finished.token] = finished
            self._outbox.push(message)

    def _finished_message(self, finished: AttemptFinished) -> WorkerMessage:
        return WorkerMessage(finished=announced(finished, self._chunked_bytes_max))

    def _is_done(self) -> bool:
        with self._lock:
            return self._draining and not self._running and not self._unsettled

    def _end_if_drained(self) -> None:
        if not self._is_done():
            return
        self._outbox.finish()
        call = self._call
        if call is not None:
            # The server ends the stream in turn; the worker does not depend on that.
            timer = threading.Timer(END_SECONDS, call.cancel)
            timer.daemon = True
            timer.start()
        else:
            self._stopping.set()


@contextlib.contextmanager
def _signals(worker: Worker) -> Iterator[None]:
    """Within, the first SIGTERM or SIGINT drains the worker and the second one stops it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        # In a thread: the main thread may hold a lock that `stop` needs.
        threading.Thread(target=worker.stop, kwargs={"force": count > 1}).start()
        name = signal.Signals(number).name
        text = "no new tasks are started; signal again to stop immediately" if count == 1 else "stopping immediately"
        os.write(2, f"lineshaft: {name}: {text}\n".encode())

    _fork.handle_signals({signal.SIGTERM: stop, signal.SIGINT: stop})
    try:
        yield
    finally:
        _fork.restore_signals()


def _host_name() -> str:
    name = "".join(one if one.isalnum() and one.isascii() else "-" for one in socket.gethostname().partition(".")[0])
    return name[:40] or "worker"


def _version() -> str:
    return f"lineshaft-python/{__version__}"
