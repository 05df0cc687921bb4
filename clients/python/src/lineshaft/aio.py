"""The client for asyncio: the same calls, with `await`.

It shares the threads of `lineshaft.Client`, so that the event loop only waits. Submissions that are made at the same time
share batches here, too: `await asyncio.gather(*(client.run("add", n) for n in range(1000)))`.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import lineshaft
from lineshaft import _codec, errors, model
from lineshaft._submit import PENDING_BYTES_MAX, PENDING_TASKS_MAX
from lineshaft.client import MAP_WINDOW, Subscription
from lineshaft.context import waiting
from lineshaft.task import ACCEPTED, DONE

__all__ = ["Client", "Task", "as_completed"]

Item = TypeVar("Item")

ARTIFACT_PARTS_AHEAD = 8
"""A thread reads at most this many parts of an artifact before they are used."""


class Client:
    """A connection to a Lineshaft server; its arguments are those of `lineshaft.Client`. Use it with `async with`."""

    def __init__(self, address: str | None = None, **options: Any) -> None:
        self._client = lineshaft.Client(address, **options)

    @classmethod
    def _of(cls, client: lineshaft.Client) -> Client:
        """The same client for coroutines."""
        made = cls.__new__(cls)
        made._client = client
        return made

    @property
    def address(self) -> str:
        return self._client.address

    async def submit(self, handler: str | Callable[..., Any], payload: Any = _codec.MISSING, **options: Any) -> Task:
        """Submits a task and waits until it is accepted; the options are those of `lineshaft.Client.submit`."""
        submitter = self._client._submitter
        has_room = submitter.pending < PENDING_TASKS_MAX and submitter.pending_bytes < PENDING_BYTES_MAX
        if has_room and self._client._results.has_room():
            task = self._client.submit(handler, payload, **options)
        else:
            # It waits for room.
            task = await asyncio.to_thread(self._client.submit, handler, payload, **options)
        await _reached(task, ACCEPTED)
        task.accepted()
        return Task(task)

    async def run(self, handler: str | Callable[..., Any], payload: Any = _codec.MISSING, **options: Any) -> Any:
        """Submits a task, waits for its end, and returns its result."""
        return await (await self.submit(handler, payload, **options)).result()

    async def map(
        self, handler: str | Callable[..., Any], payloads: Iterable[Any], **options: Any
    ) -> AsyncIterator[Any]:
        """Submits a task for each payload, as one batch, and yields the results in this order.

        Up to 2,000 tasks are under way at a time.
        """
        options["batch_id"] = options.get("batch_id") or str(uuid.uuid4())
        under_way: collections.deque[asyncio.Task[Task]] = collections.deque()
        source = iter(payloads)
        try:
            while True:
                for payload in source:
                    under_way.append(asyncio.ensure_future(self.submit(handler, payload, **options)))
                    if len(under_way) >= MAP_WINDOW:
                        break
                if not under_way:
                    return
                task = await under_way.popleft()
                yield await task.result()
        finally:
            for submission in under_way:
                submission.cancel()

    async def batch(self, tasks: Iterable[tuple[Any, ...] | Mapping[str, Any]], *, batch_id: str = "") -> list[Task]:
        """Submits up to 10,000 tasks as a batch, in one durable commit, all or none."""
        made = await asyncio.to_thread(self._client.batch, tasks, batch_id=batch_id)
        return [Task(task) for task in made]

    def task(self, task_id: str) -> Task:
        """The handle of a task by its ID; makes no call."""
        return Task(self._client.task(task_id))

    async def get(self, task_id: str, *, payload: bool = False) -> model.TaskInfo:
        """One task, with its result; `payload`: also with its input."""
        return await asyncio.to_thread(self._client.get, task_id, payload=payload)

    def list(self, **wanted: Any) -> AsyncIterator[model.TaskInfo]:
        """Yields the tasks that match; the arguments are those of `lineshaft.Client.list`."""
        return _pumped(self._client.list(**wanted), None)

    def watch(self, **wanted: Any) -> AsyncIterator[model.Event]:
        """Yields the state changes of the tasks that match; the arguments are those of `lineshaft.Client.watch`."""
        token = wanted.pop("resume_token", "")
        return _watched(self._client, self._client._filter(**wanted), token)

    async def cancel(
        self, task_id: str, mode: str = "graceful", reason: str = "", grace: model.Seconds | None = None
    ) -> bool:
        """Cancels a task. Returns False if it had already completed or failed."""
        return await asyncio.to_thread(self._client.cancel, task_id, mode, reason, grace)

    async def delete(self, **wanted: Any) -> int:
        """Deletes the finished tasks that match; the arguments are those of `lineshaft.Client.delete`."""
        return await asyncio.to_thread(self._client.delete, **wanted)

    async def close(self) -> None:
        """Waits until all submissions are accepted or refused, and closes the connection."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Task:
    """One accepted task."""

    __slots__ = ("_task",)

    def __init__(self, task: lineshaft.Task) -> None:
        self._task = task

    def __repr__(self) -> str:
        return repr(self._task)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and other._task is self._task

    def __hash__(self) -> int:
        return hash(self._task)

    @property
    def id(self) -> str:
        return self._task.id

    def done(self) -> bool:
        """Whether this client knows that the task has finished; makes no call."""
        return self._task.done()

    async def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end of the task, also if it fails. Returns False if the timeout expires first."""
        self._task._client._results.want([self._task])
        if self._task.done():
            return self._task.wait()
        try:
            async with waiting():
                await asyncio.wait_for(_reached(self._task, DONE), timeout)
        except (TimeoutError, asyncio.TimeoutError):
            return False
        return self._task.wait()

    async def result(self, timeout: float | None = None) -> Any:
        """Waits for the end of the task and returns its result; raises as `lineshaft.Task.result` does."""
        if not await self.wait(timeout):
            raise TimeoutError(f"task {self.id} has not finished within {timeout} s")
        return self._task.result()

    async def exception(self, timeout: float | None = None) -> errors.LineshaftError | None:
        """Waits for the end of the task and returns what `result` would raise, or None."""
        try:
            await self.result(timeout)
        except errors.LineshaftError as error:
            return error
        return None

    async def info(self, *, payload: bool = False) -> model.TaskInfo:
        """Asks the server for the present state of the task."""
        return await asyncio.to_thread(self._task.info, payload=payload)

    async def refresh(self) -> model.State:
        """Asks the server for the present state."""
        return (await self.info()).state

    async def cancel(self, mode: str = "graceful", reason: str = "", grace: model.Seconds | None = None) -> bool:
        """Cancels the task. Returns False if it had already completed or failed."""
        return await asyncio.to_thread(self._task.cancel, mode, reason, grace)

    def watch(self) -> AsyncIterator[model.Event]:
        """Yields the state changes of the task until it has finished, those from its submission on first."""
        subscription = Subscription()
        return _pumped(self._task._watch(subscription), subscription)

    async def output(self, stream: str = "stdout", attempt: int = 0) -> bytes:
        """What the task has written to `stdout` or `stderr` so far."""
        return await asyncio.to_thread(self._task.output, stream, attempt)

    def follow(self, stream: str = "stdout", attempt: int = 0) -> AsyncIterator[bytes]:
        """Yields the output as it is written, until the task has finished."""
        subscription = Subscription()
        return _pumped(self._task._output(stream, attempt, True, subscription), subscription)

    async def artifacts(self) -> list[model.Artifact]:
        """The files that the task has left, by name. There are none unless it has completed."""
        return await asyncio.to_thread(self._task.artifacts)

    def read_artifact(self, name: str) -> AsyncIterator[bytes]:
        """Yields the content of a file that the task has left, as `lineshaft.Task.read_artifact` does."""
        subscription = Subscription()
        client = self._task._client
        return _pumped(client._read_artifact(self.id, name, subscription), subscription, ahead=ARTIFACT_PARTS_AHEAD)


async def as_completed(tasks: Sequence[Task], timeout: float | None = None) -> AsyncIterator[Task]:
    """Yields the tasks as they finish, whatever their end. Raises TimeoutError after `timeout` seconds in all."""
    finished: asyncio.Queue[Task] = asyncio.Queue()
    mailbox = _mailbox()
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    unique = list(dict.fromkeys(tasks))

    def listener(task: Task) -> Callable[[], None]:
        return lambda: mailbox.put(lambda: finished.put_nowait(task))

    for task in unique:
        task._task._client._results.want([task._task])
        if not task._task._listen(DONE, listener(task)):
            finished.put_nowait(task)
    for number in range(len(unique)):
        left = None if deadline is None else max(0.0, deadline - loop.time())
        try:
            yield await asyncio.wait_for(finished.get(), left)
        except (TimeoutError, asyncio.TimeoutError):
            count = f"{len(unique) - number} of {len(unique)} tasks"
            raise TimeoutError(f"{count} have not finished within {timeout} s") from None


class _Mailbox:
    """Calls functions in the thread of an event loop, all that have gathered with one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._calls: list[Callable[[], None]] = []

    def put(self, call: Callable[[], None]) -> None:
        with self._lock:
            self._calls.append(call)
            if len(self._calls) > 1:
                return
        with contextlib.suppress(RuntimeError):  # The loop is closed, and no one waits.
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, []
        for call in calls:
            call()


def _mailbox() -> _Mailbox:
    loop: Any = asyncio.get_running_loop()
    try:
        found = loop.__lineshaft_mailbox__
    except AttributeError:
        found = _Mailbox(loop)
        with contextlib.suppress(AttributeError):  # A loop without room for it gets a mailbox each time.
            loop.__lineshaft_mailbox__ = found
    return found  # type: ignore[no-any-return]


async def _reached(task: lineshaft.Task, phase: int) -> None:
    """Waits until a task has reached a phase."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    mailbox = _mailbox()

    def resolve() -> None:
        if not future.done():
            future.set_result(None)

    def listener() -> None:
        mailbox.put(resolve)

    if not task._listen(phase, listener):
        return
    try:
        await future
    finally:
        if future.cancelled():
            task._unlisten(listener)


def _watched(client: lineshaft.Client, wanted: Any, token: str) -> AsyncIterator[model.Event]:
    subscription = Subscription()
    return _pumped(client._watch(wanted, token, subscription), subscription)


async def _pumped(source: Iterator[Item], subscription: Subscription | None, ahead: int = 1_000) -> AsyncIterator[Item]:
    """The items of an iterator that blocks, read by a thread, which is at most so many items `ahead`."""
    items: asyncio.Queue[tuple[Item | None, BaseException | None, bool]] = asyncio.Queue()
    mailbox = _mailbox()
    room = threading.Semaphore(ahead)
    over = threading.Event()

    def pump() -> None:
        last: tuple[Item | None, BaseException | None, bool] = (None, None, True)
        try:
            for item in source:
                room.acquire()
                if over.is_set():
                    return
                mailbox.put(lambda entry=(item, None, False): items.put_nowait(entry))  # type: ignore[misc]
        except BaseException as error:
            last = (None, error, True)
        mailbox.put(lambda: items.put_nowait(last))

    threading.Thread(target=pump, name="lineshaft-pump", daemon=True).start()
    try:
        while True:
            item, error, ended = await items.get()
            if error is not None:
                raise error
            if ended:
                return
            room.release()
            yield item  # type: ignore[misc]
    finally:
        over.set()
        room.release()
        if subscription is not None:
            subscription.cancel()
