"""Sends submissions: those that are made while a call is under way share the next one.

One thread makes one call at a time, so that the server gets the tasks of a client in their order; tasks of another batch wait for
a call of their own. The tasks of a call are stored together or not at all. If the server refuses them because of some, they are
divided until the cause is found.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc

from lineshaft import errors
from lineshaft._connection import Backoff
from lineshaft.v1 import task_service_pb2

if TYPE_CHECKING:
    from lineshaft.client import Client
    from lineshaft.task import Task

TASKS_MAX = 2_000
BYTES_MAX = 3 << 20
PENDING_TASKS_MAX = 4_000
PENDING_BYTES_MAX = 32 << 20
ROOM_EVERY = 1_000
"""Number of submissions after which the client looks whether its results are fetched as fast as its tasks finish."""
_ITEM = re.compile(r"^tasks\[(\d+)\]\.?")
_UNCLEAR = (
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED,
)  # fmt: skip


class Request:
    """What a task needs until it is accepted."""

    __slots__ = ("batch_id", "data", "deadline", "ids", "key", "refusal")

    def __init__(
        self,
        data: bytes,
        ids: tuple[str, ...],
        key: tuple[str, str],
        deadline: float,
        batch_id: str,
    ) -> None:
        self.data = data
        self.ids = ids  # those that the caller has chosen: none may be twice in a batch
        self.key = key  # handler and pool: tasks with the same key meet the same queue limit
        self.deadline = deadline
        self.batch_id = batch_id
        self.refusal: errors.ServerError | None = None  # why it was not accepted yet


def frame(tasks: Iterable[bytes], batch_id: str) -> bytes:
    """A BatchSubmitTasksRequest of tasks that are serialized already."""
    parts: list[bytes] = []
    for data in tasks:
        size = len(data)
        head = bytearray(b"\x0a")
        while size > 0x7F:
            head.append(size & 0x7F | 0x80)
            size >>= 7
        head.append(size)
        parts += (bytes(head), data)
    parts.append(task_service_pb2.BatchSubmitTasksRequest(batch_id=batch_id).SerializeToString())
    return b"".join(parts)


class Submitter:
    """The queue of submissions and its thread, which starts with the first one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        # The start of every request ID; with a number behind it, it is as unique as a UUID and cheaper.
        self.session = secrets.token_urlsafe(15)
        # The batch by which this client watches its tasks; the server does not list it.
        self.batch_id = f"session:{self.session}"
        self.sending = False
        """A batch is under way: its tasks may finish before their handles know their IDs."""
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._space = threading.Condition(self._lock)
        self._queue: deque[Task] = deque()
        # Tasks of a handler and pool whose queue is full, and when to try them again.
        self._held: dict[tuple[str, str], tuple[float, deque[Task]]] = {}
        self._limit = TASKS_MAX
        self._pending = 0
        self._pending_bytes = 0
        self._since_room = 0
        self._idle = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, task: Task) -> None:
        """Queues a task. Waits while too many are queued; at most until its deadline."""
        request: Request = task._request
        self._since_room += 1
        if self._since_room >= ROOM_EVERY:
            self._since_room = 0
            self._client._results.wait_for_room(request.deadline - self._client.timeout / 2)
        with self._lock:
            while self._pending >= PENDING_TASKS_MAX or self._pending_bytes >= PENDING_BYTES_MAX:
                left = request.deadline - time.monotonic()
                if self._closed or not self._space.wait(left):
                    break
            if self._closed:
                raise errors.ClientClosed("the client is closed")
            if time.monotonic() >= request.deadline:
                raise errors.DeadlineExceeded("too many submissions wait for the server")
            self._queue.append(task)
            self._pending += 1
            self._pending_bytes += len(request.data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lineshaft-submit", daemon=True)
                self._thread.start()
            elif self._idle:
                self._work.notify()

    def flush(self, deadline: float | None) -> bool:
        """Waits until every submission is accepted or refused; False if the deadline passes first."""
        with self._lock:
            return self._space.wait_for(
                lambda: self._pending == 0, None if deadline is None else max(0.0, deadline - time.monotonic())
            )

    @property
    def pending(self) -> int:
        """Number of tasks that are not accepted yet."""
        return self._pending

    @property
    def pending_bytes(self) -> int:
        return self._pending_bytes

    def close(self) -> None:
        """Ends the thread. What is still queued fails."""
        with self._lock:
            self._closed = True
            self._work.notify_all()
            self._space.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(self._client.timeout)

    def _run(self) -> None:
        while True:
            tasks = self._take()
            if tasks is None:
                return
            if tasks:
                try:
                    self._send(tasks)
                except Exception as error:  # A fault here must not leave callers waiting forever.
                    self._fail(tasks, errors.InternalError(f"the submission failed: {error!r}"))

    def _take(self) -> list[Task] | None:
        """Waits for tasks and takes those of the next batch; None when the client is closed."""
        with self._lock:
            while True:
                now = time.monotonic()
                for key in [key for key, (until, _) in self._held.items() if until <= now]:
                    self._queue.extendleft(reversed(self._held.pop(key)[1]))
                if self._closed:
                    left = [*self._queue, *(task for _, held in self._held.values() for task in held)]
                    self._queue.clear()
                    self._held.clear()
                    break
                if self._queue:
                    return self._next_batch(now)
                until = min((until for until, _ in self._held.values()), default=None)
                self._idle = True
                self._work.wait(None if until is None else until - now)
                self._idle = False
        self._fail(left, errors.ClientClosed("the client was closed before the task was accepted"))
        return None

    def _next_batch(self, now: float) -> list[Task]:
        batch: list[Task] = []
        size = 0
        ids: set[str] = set()
        others: list[Task] = []
        queue, held = self._queue, self._held
        while queue and len(batch) < self._limit:
            task = queue[0]
            request: Request = task._request
            if held and request.key in held:
                held[request.key][1].append(queue.popleft())
                continue
            if batch and request.batch_id != batch[0]._request.batch_id:
                others.append(queue.popleft())
                continue
            if batch and size + len(request.data) > BYTES_MAX:
                break
            if request.ids:
                if not ids.isdisjoint(request.ids):
                    break
                ids.update(request.ids)
            size += len(request.data)
            batch.append(queue.popleft())
        queue.extendleft(reversed(others))
        return batch

    def _send(self, tasks: list[Task]) -> None:
        backoff = Backoff()
        repeated = False
        connection = self._client._connection
        while True:
            now = time.monotonic()
            deadline = max(task._request.deadline for task in tasks)
            self._client._results.expect()
            self.sending = True
            try:
                send = connection.unary("TaskService/BatchSubmitTasks", task_service_pb2.BatchSubmitTasksResponse)
                response = send(
                    frame([task._request.data for task in tasks], tasks[0]._request.batch_id),
                    timeout=max(0.0, deadline - now),
                    metadata=connection.metadata(),
                )
            except grpc.RpcError as error:
                met = errors.from_rpc_error(error)
            else:
                self._accept(tasks, response, repeated)
                return
            if met.code not in _UNCLEAR and met.reason != "OVERLOADED":
                self._refused(tasks, met)
                return
            pause = backoff.pause(met)
            late = time.monotonic() + (pause or 0.0)
            expired = [task for task in tasks if pause is None or task._request.deadline <= late]
            self._fail(expired, met)
            tasks = [task for task in tasks if task not in expired] if expired else tasks
            if not tasks or pause is None or self._closed:
                self._fail(tasks, met)
                return
            connection.warn(met)
            repeated = True
            time.sleep(pause)

    def _accept(self, tasks: list[Task], response: task_service_pb2.BatchSubmitTasksResponse, repeated: bool) -> None:
        size = sum(len(task._request.data) for task in tasks)
        self._client._results.accepted(
            tasks, response.task_ids, response.revision, response.resume_token, repeated or bool(response.duplicates)
        )
        self.sending = False
        if self._limit < TASKS_MAX:
            self._limit = min(TASKS_MAX, self._limit * 2)
        self._settled(len(tasks), size)

    def _refused(self, tasks: list[Task], error: errors.ServerError) -> None:
        """Finds the tasks that the server does not accept; the others are sent again."""
        self.sending = False
        if error.code is grpc.StatusCode.UNAUTHENTICATED or error.reason == "BATCH_CLOSED":
            self._fail(tasks, error)
        elif len(tasks) > 1:
            named = {} if error.retry_after is not None else _errors_of_items(error, len(tasks))
            for index, own in named.items():
                self._fail([tasks[index]], own)
            self._limit = max(1, len(tasks) // 2)
            with self._lock:
                self._queue.extendleft(task for index, task in reversed(list(enumerate(tasks))) if index not in named)
        elif error.retry_after is None or time.monotonic() + error.retry_after >= tasks[0]._request.deadline:
            self._fail(tasks, _errors_of_items(error, 1).get(0, error))
        elif error.reason == "QUEUE_FULL":
            # Only the tasks of this queue wait; those of other queues go on.
            tasks[0]._request.refusal = error
            with self._lock:
                self._held[tasks[0]._request.key] = (time.monotonic() + error.retry_after, deque(tasks))
        else:
            with self._lock:
                self._queue.extendleft(tasks)
                self._work.wait_for(lambda: self._closed, error.retry_after)

    def _fail(self, tasks: list[Task], error: errors.LineshaftError) -> None:
        size = sum(len(task._request.data) for task in tasks)
        is_late = isinstance(error, errors.DeadlineExceeded)
        for task in tasks:
            task._fail(task._request.refusal or error if is_late else error)
        self._settled(len(tasks), size)

    def _settled(self, count: int, size: int) -> None:
        if count == 0:
            return
        with self._lock:
            self._pending -= count
            self._pending_bytes -= size
            self._space.notify_all()


def _errors_of_items(error: errors.ServerError, count: int) -> dict[int, errors.ServerError]:
    """The errors of single tasks, by their place in the batch, as if each had been submitted alone."""
    violations: dict[int, list[errors.FieldViolation]] = {}
    for one in error.violations:
        if (found := _ITEM.match(one.field)) and int(found[1]) < count:
            violations.setdefault(int(found[1]), []).append(replace(one, field=one.field[found.end() :]))
    if found := _ITEM.match(error.metadata.get("field", "")):
        violations.setdefault(int(found[1]), [])
    made: dict[int, errors.ServerError] = {}
    for index, own in violations.items():
        message = error.message.replace(f"tasks[{index}].", "")
        if len(violations) > 1:
            message = "; ".join(f"`{one.field}` {one.description}" for one in own)
        metadata = {key: text.replace(f"tasks[{index}].", "") for key, text in error.metadata.items()}
        made[index] = type(error)(
            message, code=error.code, reason=error.reason, metadata=metadata, violations=tuple(own),
            retry_after=error.retry_after,
        )  # fmt: skip
    return made
