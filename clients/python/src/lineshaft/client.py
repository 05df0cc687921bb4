"""The client: submits tasks and follows them."""

from __future__ import annotations

import atexit
import hashlib
import itertools
import os
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

import grpc

from lineshaft import _codec, errors, model
from lineshaft._connection import Backoff, Connection
from lineshaft._results import Results
from lineshaft._submit import Request, Submitter, frame
from lineshaft._trace import trace_fields
from lineshaft._version import __version__
from lineshaft.task import Task
from lineshaft.v1 import artifact_service_pb2, task_pb2, task_service_pb2, worker_service_pb2

MAP_WINDOW = 2_000
"""`map` has at most this many tasks under way: the server keeps a limited number of finished tasks, by default 10,000."""


class Client:
    """A connection to a Lineshaft server, for any number of threads.

    `address` is `HOST:PORT`, or `dns:///NAME:PORT` for all servers of a name; default: `LINESHAFT_SERVER`, then
    `127.0.0.1:7070`. `token` is an API key or JWT, or a function that returns one (default:
    `LINESHAFT_TOKEN`, or the file `LINESHAFT_TOKEN_FILE`). `tls=True` encrypts with the public CAs; `ca`, `cert` and `key`
    are PEM files, or their bytes (default: `LINESHAFT_TLS_CA`, `LINESHAFT_TLS_CERT`, `LINESHAFT_TLS_KEY`). `timeout` is
    the number of seconds after which a call or a submission fails; meanwhile it is repeated as long as that is safe.

    Use it as a context manager, or call `close`: both wait until all submissions are accepted.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | Callable[[], str] | None = None,
        tls: bool | None = None,
        ca: bytes | str | os.PathLike[str] | None = None,
        cert: bytes | str | os.PathLike[str] | None = None,
        key: bytes | str | os.PathLike[str] | None = None,
        namespace: str = "",
        timeout: float = 30.0,
    ) -> None:
        self.timeout = timeout = model.seconds(timeout, "timeout")
        model.text(namespace, "namespace")
        self.namespace = namespace
        self._connection = Connection(
            address, token=token, tls=tls, ca=ca, cert=cert, key=key, timeout=timeout,
            user_agent=f"lineshaft-python/{__version__}",
        )  # fmt: skip
        self._closed = False
        self._start()
        _clients.add(self)

    def _start(self) -> None:
        self._numbers_lock = threading.Lock()
        self._number = 0
        self._submitter = Submitter(self)
        self._results = Results(self)
        self._failed: dict[Task, None] = {}

    def __repr__(self) -> str:
        return f"<Client {self._connection.address}>"

    @property
    def address(self) -> str:
        return self._connection.address

    # Submitting.

    def submit(
        self,
        handler: str | Callable[..., Any],
        payload: Any = _codec.MISSING,
        *,
        pool: str = "",
        priority: str | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: model.Seconds | None = None,
        retry: model.Retry | int | None = None,
        delay: model.Seconds | None = None,
        expires_after: model.Seconds | None = None,
        name: str = "",
        args: Sequence[str] = (),
        task_id: str = "",
        request_id: str = "",
        at_most_once: bool = False,
        durability: str | None = None,
        trace_mode: str | None = None,
        batch_id: str = "",
        after: Sequence[str] = (),
        on_parent_failure: str | None = None,
        limits: Sequence[model.Limit] = (),
        fairness_key: str = "",
        unique_key: str = "",
        on_unique_conflict: str | None = None,
        reuse_result_within: model.Seconds | None = None,
    ) -> Task:
        """Submits a task and returns its handle at once.

        Submissions that are made while others are under way share the next call, in their order. `task.id` waits until
        the task is accepted and stored, and raises if it is refused; so do `flush` and the end of the `with` block.

        `payload`: bytes are sent as they are, any other value as JSON. `timeout` is that of each attempt, `retry` a `Retry`
        or the number of attempts, `delay` the least time before the start, `expires_after` the longest. All times are in
        seconds, or a `timedelta`. `batch_id` is the batch that the task joins; it is created unless it exists. `after`: IDs of
        tasks that have to end first; `on_parent_failure`, "fail", "run" or "cancel", is what happens when one of these has
        failed or was cancelled. `limits`: the limits that the task shares with others. `fairness_key`: such as the customer for
        whom the task is; tasks with different keys take turns.
        `unique_key`: at most one task with this key waits for its first start; `on_unique_conflict`, "fail", "use_existing" or
        "replace_queued", is what happens when a task with the same key has not ended. `reuse_result_within`: returns the newest
        completed task with the key instead, if it was submitted with this option as well and ended at most this long ago.
        """
        handler = handler_name(handler)
        chosen = tuple(one for one in (task_id, request_id) if one)
        if not request_id:
            request_id = self._next_request_id()
        if (
            pool
            or priority
            or labels
            or timeout is not None
            or retry is not None
            or delay is not None
            or (
                expires_after is not None
                or name
                or args
                or task_id
                or at_most_once
                or durability
                or trace_mode
                or after
                or limits
                or fairness_key
                or unique_key
                or reuse_result_within is not None
            )
        ):
            request = self._request(
                handler, payload, pool=pool, priority=priority, labels=labels, timeout=timeout, retry=retry, delay=delay,
                expires_after=expires_after, name=name, args=args, task_id=task_id, request_id=request_id,
                at_most_once=at_most_once, durability=durability, trace_mode=trace_mode, after=after,
                on_parent_failure=on_parent_failure, limits=limits, fairness_key=fairness_key, unique_key=unique_key,
                on_unique_conflict=on_unique_conflict, reuse_result_within=reuse_result_within,
            )  # fmt: skip
        else:
            model.text(handler, "handler")
            model.text(request_id, "request_id")
            request = task_service_pb2.SubmitTaskRequest(
                handler=handler, payload=_codec.message(payload), request_id=request_id, namespace=self.namespace,
                **trace_fields(),
            )  # fmt: skip
        model.text(batch_id, "batch_id")
        task = Task(self, session="" if batch_id else self._submitter.batch_id)
        task._request = Request(
            request.SerializeToString(), chosen, (handler, pool), time.monotonic() + self.timeout,
            batch_id or self._submitter.batch_id,
        )  # fmt: skip
        self._submitter.add(task)
        return task

    def run(self, handler: str | Callable[..., Any], payload: Any = _codec.MISSING, **options: Any) -> Any:
        """Submits a task, waits for its end, and returns its result; the options are those of `submit`."""
        return self.submit(handler, payload, **options).result()

    def map(
        self,
        handler: str | Callable[..., Any],
        payloads: Iterable[Any],
        *,
        result_timeout: float | None = None,
        batch_id: str = "",
        **options: Any,
    ) -> Iterator[Any]:
        """Submits a task for each payload and yields the results in this order; the options are those of `submit`.

        The tasks are one batch. Up to 2,000 are under way at a time, and the first ones are submitted at once. A failed task
        raises when its turn comes; `result_timeout` is the number of seconds to wait for all of them.
        """
        source = iter(payloads)
        options["batch_id"] = batch_id or str(uuid.uuid4())
        deadline = None if result_timeout is None else time.monotonic() + result_timeout
        under_way: deque[Task] = deque()

        def refill() -> None:
            for payload in itertools.islice(source, MAP_WINDOW - len(under_way)):
                under_way.append(self.submit(handler, payload, **options))

        refill()

        def results() -> Iterator[Any]:
            while under_way:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                yield under_way.popleft().result(left)
                refill()

        return results()

    def batch(self, tasks: Iterable[tuple[Any, ...] | Mapping[str, Any]], *, batch_id: str = "") -> list[Task]:
        """Submits up to 10,000 tasks as a batch, in one durable commit, all or none, and waits until they are accepted.

        Each item has the arguments of `submit`: a tuple `(handler, payload)`, or a mapping with further options. The batch is
        a new one, or has the ID `batch_id`.
        """
        requests: list[bytes] = []
        for item in tasks:
            if isinstance(item, Mapping):
                options = dict(item)
            elif isinstance(item, (tuple, list)) and len(item) in (1, 2):
                options = dict(zip(("handler", "payload"), item, strict=False))
            else:
                options = {}
            if "handler" not in options:
                raise TypeError(
                    f"tasks[{len(requests)}] is {item!r}; it must be a tuple (handler, payload) or a mapping with a handler"
                )
            options["handler"] = handler_name(options["handler"])
            options.setdefault("payload", _codec.MISSING)
            options["request_id"] = options.get("request_id") or self._next_request_id()
            requests.append(self._request(**options).SerializeToString())
        if not requests:
            return []
        response = self._connection.send(
            "TaskService/BatchSubmitTasks", frame(requests, batch_id),
            task_service_pb2.BatchSubmitTasksResponse, time.monotonic() + self.timeout,
        )  # fmt: skip
        made = [Task(self) for _ in requests]
        self._results.accepted(
            made, response.task_ids, response.revision, response.resume_token, bool(response.duplicates)
        )
        return made

    def flush(self, timeout: float | None = None) -> None:
        """Waits until every submission is accepted, and raises the error of one that was refused and not looked at.

        Raises TimeoutError if that takes longer than `timeout` seconds (default: the timeout of the client limits it).
        """
        if not self._submitter.flush(None if timeout is None else time.monotonic() + timeout):
            raise TimeoutError(f"{self._submitter.pending} submissions are not accepted yet")
        failed, self._failed = self._failed, {}
        for task in failed:
            if task._error is not None:
                raise task._error

    def _request(
        self, handler: str, payload: Any, *, pool: str = "", priority: str | None = None,
        labels: Mapping[str, str] | None = None, timeout: model.Seconds | None = None,
        retry: model.Retry | int | None = None, delay: model.Seconds | None = None,
        expires_after: model.Seconds | None = None, name: str = "", args: Sequence[str] = (), task_id: str = "",
        request_id: str = "", at_most_once: bool = False, durability: str | None = None, trace_mode: str | None = None,
        after: Sequence[str] = (), on_parent_failure: str | None = None, limits: Sequence[model.Limit] = (),
        fairness_key: str = "", unique_key: str = "", on_unique_conflict: str | None = None,
        reuse_result_within: model.Seconds | None = None,
    ) -> task_service_pb2.SubmitTaskRequest:  # fmt: skip
        texts = {
            "handler": handler, "pool": pool, "name": name, "task_id": task_id, "request_id": request_id,
            "fairness_key": fairness_key, "unique_key": unique_key, "namespace": self.namespace,
        }  # fmt: skip
        for option, value in texts.items():
            model.text(value, option)
        if not isinstance(at_most_once, int):
            raise TypeError(f"at_most_once is {at_most_once!r}; it must be True or False")
        after = model.strings(after, "after")
        rule = model.enum_number(task_pb2.OnParentFailure, "ON_PARENT_FAILURE_", on_parent_failure, "on_parent_failure")
        parents = task_service_pb2.Dependencies(task_ids=after, on_parent_failure=rule) if after else None
        return task_service_pb2.SubmitTaskRequest(
            handler=handler,
            payload=_codec.message(payload),
            priority=model.enum_number(task_pb2.Priority, "PRIORITY_", priority, "priority"),
            task_id=task_id,
            request_id=request_id,
            pool=pool,
            display_name=name,
            labels=model.labels(labels),
            timeout=model.duration(timeout, "timeout"),
            retry=model.retry_policy(retry),
            args=model.strings(args, "args"),
            delay=model.duration(delay, "delay"),
            at_most_once=at_most_once,
            durability=model.enum_number(task_pb2.Durability, "DURABILITY_", durability, "durability"),
            namespace=self.namespace,
            expires_after=model.duration(expires_after, "expires_after"),
            trace_mode=model.enum_number(task_pb2.TraceMode, "TRACE_MODE_", trace_mode, "trace_mode"),
            dependencies=parents,
            limits=[model.task_limit(limit, f"limits[{number}]") for number, limit in enumerate(limits)],
            fairness_key=fairness_key,
            unique_key=unique_key,
            on_unique_conflict=model.enum_number(
                task_pb2.OnUniqueConflict, "ON_UNIQUE_CONFLICT_", on_unique_conflict, "on_unique_conflict"
            ),
            reuse_result_within=model.duration(reuse_result_within, "reuse_result_within"),
            **trace_fields(),
        )

    def _next_request_id(self) -> str:
        with self._numbers_lock:
            self._number += 1
            return f"{self._submitter.session}.{self._number}"

    # Tasks that exist.

    def task(self, task_id: str) -> Task:
        """The handle of a task by its ID; makes no call."""
        if not task_id:
            raise ValueError("the task ID is empty")
        return self._results.known(task_id) or Task(self, task_id)

    def get(self, task_id: str, *, payload: bool = False) -> model.TaskInfo:
        """One task, with its result; `payload`: also with its input."""
        request = task_service_pb2.GetTaskRequest(task_id=task_id, include_payload=payload)
        response = self._connection.call("TaskService/GetTask", request, task_service_pb2.GetTaskResponse)
        return model.task_info(response.task)

    def list(
        self,
        *,
        task_ids: Sequence[str] = (),
        batch_id: str = "",
        labels: Mapping[str, str] | None = None,
        states: Sequence[model.State | str] = (),
        pool: str = "",
        handler: str = "",
        priorities: Sequence[str] = (),
        submitted_after: datetime | None = None,
        submitted_before: datetime | None = None,
        results: bool = False,
    ) -> Iterator[model.TaskInfo]:
        """Yields the tasks that match all of the arguments, the newest first; `results`: with their results."""
        wanted = self._filter(
            task_ids=task_ids, batch_id=batch_id, labels=labels, states=states, pool=pool, handler=handler,
            priorities=priorities, submitted_after=submitted_after, submitted_before=submitted_before,
        )  # fmt: skip
        request = task_service_pb2.ListTasksRequest(filter=wanted, page_size=1_000, include_results=results)
        return (model.task_info(task) for task in self._pages(request))

    def watch(
        self,
        *,
        task_ids: Sequence[str] = (),
        batch_id: str = "",
        labels: Mapping[str, str] | None = None,
        states: Sequence[model.State | str] = (),
        pool: str = "",
        handler: str = "",
        priorities: Sequence[str] = (),
        resume_token: str = "",
    ) -> Iterator[model.Event]:
        """Yields the state changes of the tasks that match, from now on or after `resume_token`, each once and in order.

        It goes on over broken connections and restarts of the server. `OutOfRange` means that the events after the token
        are not stored any more.
        """
        wanted = self._filter(
            task_ids=task_ids, batch_id=batch_id, labels=labels, states=states, pool=pool, handler=handler,
            priorities=priorities,
        )  # fmt: skip
        return self._watch(wanted, resume_token)

    def cancel(
        self, task_id: str, mode: str = "graceful", reason: str = "", grace: model.Seconds | None = None
    ) -> bool:
        """Cancels a task. Returns False if it had already completed or failed; see `Task.cancel`."""
        request = task_service_pb2.CancelTaskRequest(
            task_id=task_id,
            reason=reason,
            mode=model.enum_number(task_pb2.CancelMode, "CANCEL_MODE_", mode, "mode"),
            grace=model.duration(grace, "grace"),
        )
        try:
            self._connection.call("TaskService/CancelTask", request, task_service_pb2.CancelTaskResponse)
        except errors.FailedPrecondition as error:
            if error.reason == "TASK_FINISHED":
                return False
            raise
        return True

    def delete(
        self,
        *,
        task_ids: Sequence[str] = (),
        batch_id: str = "",
        labels: Mapping[str, str] | None = None,
        states: Sequence[model.State | str] = (),
        pool: str = "",
        handler: str = "",
        submitted_before: datetime | None = None,
    ) -> int:
        """Deletes the finished tasks that match all of the arguments (without any: all finished tasks)."""
        wanted = self._filter(
            task_ids=task_ids, batch_id=batch_id, labels=labels, states=states, pool=pool, handler=handler,
            submitted_before=submitted_before,
        )  # fmt: skip
        request = task_service_pb2.DeleteTasksRequest(filter=wanted)
        response = self._connection.call("TaskService/DeleteTasks", request, task_service_pb2.DeleteTasksResponse)
        return response.deleted

    def _filter(
        self, *, task_ids: Sequence[str] = (), batch_id: str = "", labels: Mapping[str, str] | None = None,
        states: Sequence[model.State | str] = (), pool: str = "", handler: str = "", priorities: Sequence[str] = (),
        submitted_after: datetime | None = None, submitted_before: datetime | None = None,
    ) -> task_pb2.TaskFilter:  # fmt: skip
        return task_pb2.TaskFilter(
            task_ids=model.strings(task_ids, "task_ids"),
            batch_id=batch_id,
            labels=model.labels(labels),
            states=[model.state_number(state) for state in model.strings(states, "states")],
            pool=pool,
            handler=handler,
            namespace=self.namespace,
            priorities=[
                model.enum_number(task_pb2.Priority, "PRIORITY_", one, "priorities")
                for one in model.strings(priorities, "priorities")
            ],
            submitted_after=model.timestamp(submitted_after),
            submitted_before=model.timestamp(submitted_before),
        )

    def _pages(self, request: task_service_pb2.ListTasksRequest) -> Iterator[task_pb2.Task]:
        while True:
            page = self._connection.call("TaskService/ListTasks", request, task_service_pb2.ListTasksResponse)
            yield from page.tasks
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _watch(
        self, wanted: task_pb2.TaskFilter, token: str, subscription: Subscription | None = None
    ) -> Iterator[model.Event]:
        request = task_service_pb2.WatchTasksRequest(filter=wanted, resume_token=token)
        for message in self._resumed(
            "TaskService/WatchTasks", request, task_service_pb2.WatchTasksResponse, subscription
        ):
            kind = message.WhichOneof("kind")
            if kind == "event":
                request.resume_token = message.event.resume_token
                yield model.event(message.event)
            elif kind == "progress":
                request.resume_token = message.progress.resume_token

    def _read_output(
        self, request: task_service_pb2.ReadOutputRequest, subscription: Subscription | None
    ) -> Iterator[task_service_pb2.ReadOutputResponse]:
        for message in self._resumed(
            "TaskService/ReadOutput", request, task_service_pb2.ReadOutputResponse, subscription
        ):
            # After a break, the rest of this attempt, or all of a later one if the caller follows them.
            request.offset = message.offset + len(message.data)
            yield message

    def _resumed(self, method: str, request: Any, response: Any, subscription: Subscription | None) -> Iterator[Any]:
        """The messages of a stream, which is opened again with the changed request when it breaks."""
        backoff = Backoff()
        deadline: float | None = time.monotonic() + self.timeout
        subscription = subscription or Subscription()
        while True:
            forks = self._connection.forks
            call = self._connection.server_stream(method, response)(
                request.SerializeToString(), metadata=self._connection.metadata()
            )
            subscription.begin(call)
            try:
                for message in call:
                    backoff, deadline = Backoff(), None
                    yield message
                if method.endswith(("ReadArtifact", "ReadOutput", "ReadParentResults")):
                    return
                pause = 0.1
            except grpc.RpcError as error:
                if subscription.cancelled:
                    return
                met = errors.from_rpc_error(error)
                if self._connection.was_forked(met, forks):
                    continue
                if met.reason == "DRAINING" and met.metadata.get("resume_token"):
                    request.resume_token = met.metadata["resume_token"]
                delay = backoff.pause(met)
                # A stream that has worked is resumed for any time, a first try only for that of the client.
                if delay is None or (deadline is not None and time.monotonic() + delay > deadline):
                    raise met from None
                self._connection.warn(met)
                pause = delay
            finally:
                call.cancel()
            time.sleep(pause)

    def _parents(self, task_id: str, token: str, subscription: Subscription) -> Iterator[model.Parent]:
        """The parents of the task of an attempt of a worker."""
        request = worker_service_pb2.ReadParentResultsRequest(task_id=task_id, token=token)
        response = worker_service_pb2.ReadParentResultsResponse
        first, parts = worker_service_pb2.ParentResult(), list[bytes]()
        for message in self._resumed("WorkerService/ReadParentResults", request, response, subscription):
            for part in message.results:
                # Another parent, or after a break the same one again.
                if part.task_id:
                    first, parts = part, []
                parts.append(part.result.data)
                if not part.has_more:
                    request.skip += 1
                    result = _codec.decode(b"".join(parts), first.result.content_type)
                    yield model.Parent(first.task_id, model.STATES[first.state], result)

    def _artifacts(self, task_id: str) -> artifact_service_pb2.ListArtifactsResponse:
        request = artifact_service_pb2.ListArtifactsRequest(task_id=task_id)
        response = artifact_service_pb2.ListArtifactsResponse
        return self._connection.call("ArtifactService/ListArtifacts", request, response)

    def _read_artifact(self, task_id: str, name: str, subscription: Subscription | None) -> Iterator[bytes]:
        request = artifact_service_pb2.ReadArtifactRequest(task_id=task_id, name=name)
        response = artifact_service_pb2.ReadArtifactResponse
        expected, checksum = "", hashlib.sha256()
        for message in self._resumed("ArtifactService/ReadArtifact", request, response, subscription):
            expected = expected or message.artifact.sha256
            if message.data:
                checksum.update(message.data)
                request.offset += len(message.data)
                yield message.data
        if subscription is not None and subscription.cancelled:
            return
        if checksum.hexdigest() != expected:
            raise errors.ChecksumMismatch(task_id, name, checksum.hexdigest(), expected)

    # The end.

    def close(self) -> None:
        """Waits until all submissions are accepted or refused, and closes the connection.

        Waits for results in other threads end with `ClientClosed`. Tasks go on.
        """
        if self._closed:
            return
        try:
            self._submitter.flush(time.monotonic() + self.timeout)
        finally:
            self._closed = True
            self._submitter.close()
            self._results.close()
            self._connection.close()
            _clients.discard(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def _after_fork(self) -> None:
        """In a forked process: a new connection on the next call. What the parent was sending, it sends itself."""
        unfinished = self._results.abandon()
        self._start()
        for task in unfinished:
            task._listeners = None
            task._watched = task._direct = False


class Subscription:
    """A stream of the server that another thread may end."""

    def __init__(self) -> None:
        self.cancelled = False
        self._call: Any = None

    def begin(self, call: Any) -> None:
        self._call = call
        if self.cancelled:
            call.cancel()

    def cancel(self) -> None:
        self.cancelled = True
        if self._call is not None:
            self._call.cancel()


def handler_name(handler: str | Callable[..., Any]) -> str:
    """The name of a handler, or of a function that is registered as one."""
    if isinstance(handler, str):
        return handler
    name = getattr(handler, "__lineshaft_handler__", None)
    if not isinstance(name, str):
        raise TypeError(f"{handler!r} is not a handler name and not a function registered with `Worker.handler`")
    return name


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    for client in list(_clients):
        client._submitter.flush(time.monotonic() + client.timeout)


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
