"""Values that describe tasks: states, priorities, retry policies, events, snapshots."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lineshaft import _codec
from lineshaft.errors import Failure, FailureReason
from lineshaft.v1 import task_pb2

Seconds: TypeAlias = float | timedelta
"""A time span: seconds or a `timedelta`."""


class State(str, enum.Enum):
    """State of a task."""

    UNSPECIFIED = "UNSPECIFIED"
    WAITING = "WAITING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    def __str__(self) -> str:
        return self.value

    @property
    def finished(self) -> bool:
        return self in (State.COMPLETED, State.FAILED, State.CANCELLED)


class Priority(str, enum.Enum):
    """Priority of a task; everywhere the plain string, in any case, does as well."""

    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Retry:
    """When a failed attempt is retried. Unset fields take the values of the handler."""

    max_attempts: int = 0
    """1 to 100, with the first; 1: no retries."""
    delay: Seconds | None = None
    """Before the second attempt."""
    factor: float = 0.0
    """By which the delay grows with each further attempt, 1 to 10."""
    max_delay: Seconds | None = None
    jitter: float | None = None
    """Maximum random increase of each delay, as a fraction, 0 to 1."""


@dataclass(frozen=True)
class Limit:
    """How many tasks with the same key run at once, how many start in an interval, or both."""

    key: str = ""
    max_running: int = 0
    starts: int = 0
    """Number of tasks that start in `interval`."""
    interval: Seconds = 1.0
    burst: int = 0
    """Number of tasks that start at once after a pause."""
    name: str = ""
    """A limit in the configuration of the server, which then sets the numbers."""


@dataclass(frozen=True)
class Event:
    """One state change of a task."""

    task_id: str
    state: State
    previous_state: State
    time: datetime | None
    attempt: int
    worker: str
    failure: Failure | None
    deleted: bool
    revision: int
    resume_token: str = field(repr=False)
    """A watch with this token continues after this event."""


@dataclass(frozen=True)
class TaskInfo:
    """A task as the server had it at the time of the call."""

    task_id: str
    handler: str
    state: State
    pool: str
    priority: Priority
    name: str
    namespace: str
    labels: Mapping[str, str]
    batch_id: str
    request_id: str
    attempt: int
    worker: str
    progress: float
    progress_note: str
    submitted_at: datetime | None
    eligible_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    failure: Failure | None
    payload: Any = field(repr=False)
    """Only if it was asked for."""
    result: Any = field(repr=False)
    message: task_pb2.Task = field(repr=False, compare=False)
    """Everything, as the contract has it."""


@dataclass(frozen=True)
class Parent:
    """A task that had to end before the one that a function runs."""

    task_id: str
    state: State
    result: Any = field(repr=False)
    """None unless it is COMPLETED."""


@dataclass(frozen=True)
class Artifact:
    """A file that a task has left."""

    name: str
    content_type: str
    size: int
    """In bytes."""
    sha256: str
    """Of the content, 64 hexadecimal digits."""
    link: str = field(repr=False)
    """Path and query, below the address of the server, at which anyone can download it with GET for an hour."""


STATES: dict[int, State] = {
    int(number): State(name.removeprefix("TASK_STATE_")) for name, number in task_pb2.TaskState.items()
}
_REASONS: dict[int, FailureReason] = {
    number: FailureReason(name.removeprefix("FAILURE_REASON_")) for name, number in task_pb2.FailureReason.items()
}
_PRIORITIES: dict[int, Priority] = {
    number: Priority(name.removeprefix("PRIORITY_").replace("UNSPECIFIED", "NORMAL"))
    for name, number in task_pb2.Priority.items()
}


def strings(values: Iterable[str], argument: str) -> list[str]:
    """Refuses a single string, which would be taken for its letters."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{argument} is {values!r}; it must be a list of strings: write {argument}=[{values!r}]")
    found = list(values)
    for number, value in enumerate(found):
        text(value, f"{argument}[{number}]")
    return found


def labels(values: Mapping[str, str] | None) -> Mapping[str, str] | None:
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise TypeError(f"labels is {values!r}; it must be a mapping of strings to strings")
    for name, value in values.items():
        text(name, "the name of a label")
        text(value, f"labels[{name!r}]")
    return values


def text(value: object, argument: str) -> None:
    """Refuses what is not a text that a message can carry."""
    if not isinstance(value, str):
        raise TypeError(f"{argument} is {value!r}; it must be a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{argument} is {value!r}; it must be valid Unicode") from None


def enum_number(kind: Any, prefix: str, value: str | None, argument: str) -> Any:
    """The number of a protobuf enum value that is given by its name, in any case."""
    if value is None:
        return 0
    name = str(value).upper()
    try:
        return kind.Value(prefix + name)
    except ValueError:
        names = ", ".join(one.removeprefix(prefix) for one in kind.keys() if not one.endswith("UNSPECIFIED"))
        raise ValueError(f"{argument} is {value!r}; it must be one of {names}") from None


def state_number(state: State | str) -> Any:
    return task_pb2.TaskState.Value("TASK_STATE_" + State(str(state).upper()))


def seconds(value: Seconds, argument: str) -> float:
    try:
        number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None or isinstance(value, (str, bytes)):
        raise TypeError(f"{argument} is {value!r}; it must be a number of seconds or a timedelta")
    if not math.isfinite(number):
        raise ValueError(f"{argument} is {value!r}; it must be a finite number of seconds")
    return number


def duration(value: Seconds | None, argument: str) -> Duration | None:
    if value is None:
        return None
    nanos = round(seconds(value, argument) * 1e9)
    whole = abs(nanos) // 1_000_000_000
    rest = abs(nanos) % 1_000_000_000
    return Duration(seconds=whole, nanos=rest) if nanos >= 0 else Duration(seconds=-whole, nanos=-rest)


def from_duration(value: Duration) -> float:
    """Seconds of a duration."""
    return value.seconds + value.nanos / 1e9


def timestamp(value: datetime | None) -> Timestamp | None:
    """A `datetime` without a time zone is local time."""
    if value is None:
        return None
    made = Timestamp()
    made.FromDatetime(value.astimezone(timezone.utc))
    return made


def retry_policy(retry: Retry | int | None) -> task_pb2.RetryPolicy | None:
    if retry is None:
        return None
    if isinstance(retry, int):
        return task_pb2.RetryPolicy(max_attempts=retry)
    if not isinstance(retry, Retry):
        raise TypeError(f"retry is {retry!r}; it must be a number of attempts or a lineshaft.Retry")
    return task_pb2.RetryPolicy(
        max_attempts=retry.max_attempts,
        delay=duration(retry.delay, "retry.delay"),
        factor=retry.factor,
        max_delay=duration(retry.max_delay, "retry.max_delay"),
        jitter=retry.jitter,
    )


def task_limit(limit: Limit, argument: str) -> task_pb2.TaskLimit:
    if not isinstance(limit, Limit):
        raise TypeError(f"{argument} is {limit!r}; it must be a lineshaft.Limit")
    has_rate = limit.starts != 0 or limit.burst != 0
    rate = task_pb2.StartRate(
        starts=limit.starts, interval=duration(limit.interval, f"{argument}.interval"), burst=limit.burst
    )
    return task_pb2.TaskLimit(
        name=limit.name, key=limit.key, max_running=limit.max_running, rate=rate if has_rate else None
    )


def failure(message: task_pb2.Failure) -> Failure:
    return Failure(
        reason=_REASONS.get(message.reason, FailureReason.UNSPECIFIED),
        message=message.message,
        detail=message.detail,
        attempt=message.attempt,
        retryable=message.retryable,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
    )


def artifact(message: task_pb2.Artifact) -> Artifact:
    return Artifact(message.name, message.content_type, message.size_bytes, message.sha256, message.link)


def event(message: task_pb2.TaskEvent) -> Event:
    return Event(
        task_id=message.task_id,
        state=STATES.get(message.state, State.UNSPECIFIED),
        previous_state=STATES.get(message.previous_state, State.UNSPECIFIED),
        time=_time(message, "time"),
        attempt=message.attempt,
        worker=message.worker,
        failure=failure(message.failure) if message.HasField("failure") else None,
        deleted=message.deleted,
        revision=message.revision,
        resume_token=message.resume_token,
    )


def task_info(message: task_pb2.Task) -> TaskInfo:
    return TaskInfo(
        task_id=message.task_id,
        handler=message.handler,
        state=STATES.get(message.state, State.UNSPECIFIED),
        pool=message.pool,
        priority=_PRIORITIES.get(message.priority, Priority.NORMAL),
        name=message.display_name,
        namespace=message.namespace,
        labels=dict(message.labels),
        batch_id=message.batch_id,
        request_id=message.request_id,
        attempt=message.attempt,
        worker=message.worker,
        progress=message.progress,
        progress_note=message.progress_note,
        submitted_at=_time(message, "submitted_at"),
        eligible_at=_time(message, "eligible_at"),
        started_at=_time(message, "started_at"),
        finished_at=_time(message, "finished_at"),
        failure=failure(message.failure) if message.HasField("failure") else None,
        payload=_codec.decode_any(message.payload.data, message.payload.content_type),
        result=_codec.decode_any(message.result.data, message.result.content_type),
        message=message,
    )


def _time(message: Any, name: str) -> datetime | None:
    return getattr(message, name).ToDatetime(tzinfo=timezone.utc) if message.HasField(name) else None
