"""Exceptions. An error of the server keeps its reason, metadata, invalid fields and retry delay."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import grpc
from google.protobuf.message import DecodeError

from lineshaft import _details_pb2 as details


class FailureReason(str, enum.Enum):
    """Why an attempt or a task failed."""

    UNSPECIFIED = "UNSPECIFIED"
    HANDLER_ERROR = "HANDLER_ERROR"
    TIMEOUT = "TIMEOUT"
    PANIC = "PANIC"
    KILLED = "KILLED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    WORKER_LOST = "WORKER_LOST"
    EXPIRED = "EXPIRED"
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"
    RESULT_TOO_LARGE = "RESULT_TOO_LARGE"
    INVALID_PAYLOAD = "INVALID_PAYLOAD"
    STACK_OVERFLOW = "STACK_OVERFLOW"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Failure:
    """The failure of one attempt."""

    reason: FailureReason
    message: str
    detail: str
    """Further text, such as a traceback or the last lines of stderr; can be empty."""
    attempt: int
    """Number of the failed attempt; 0 if no attempt ran."""
    retryable: bool
    exit_code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" if self.message else str(self.reason)


class LineshaftError(Exception):
    """Base of all exceptions of this package."""


class ClientClosed(LineshaftError):
    """The client was closed before or during the call."""


class TaskFailed(LineshaftError):
    """The task ended as FAILED."""

    def __init__(self, task_id: str, failure: Failure) -> None:
        super().__init__(task_id, failure)
        self.task_id = task_id
        self.failure = failure

    @property
    def reason(self) -> FailureReason:
        return self.failure.reason

    def __str__(self) -> str:
        text = f"task {self.task_id} failed: {self.failure}"
        return f"{text}\n{self.failure.detail.rstrip()}" if self.failure.detail else text


class TaskCancelled(LineshaftError):
    """The task ended as CANCELLED."""

    def __init__(self, task_id: str, reason: str, method: str) -> None:
        super().__init__(task_id, reason, method)
        self.task_id = task_id
        self.reason = reason
        """Reason given by the caller; can be empty."""
        self.method = method
        """What stopped the work, such as `TOKEN` or `NEVER_STARTED`."""

    def __str__(self) -> str:
        return f"task {self.task_id} was cancelled" + (f": {self.reason}" if self.reason else "")


class TaskDeleted(LineshaftError):
    """The task has finished, but its result was deleted, by retention or on request, before it was read."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"task {self.task_id} was deleted before its result was read"


class ChecksumMismatch(LineshaftError):
    """What was read of an artifact does not have its SHA-256."""

    def __init__(self, task_id: str, name: str, found: str, expected: str) -> None:
        super().__init__(task_id, name, found, expected)
        self.task_id = task_id
        self.name = name
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        return f"artifact {self.name!r} of task {self.task_id} has SHA-256 {self.found}, must have {self.expected}"


@dataclass(frozen=True)
class FieldViolation:
    """One invalid field of a request."""

    field: str
    description: str


class ServerError(LineshaftError):
    """A call failed. The subclass tells the gRPC code, `reason` the exact cause (docs/errors.md lists all)."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.message = message
        self.reason = reason
        """For example `UNKNOWN_HANDLER`; empty if the error does not come from a Lineshaft server."""
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_after = retry_after
        """Seconds after which a retry can succeed; None if a retry would fail again."""

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.code.name})"


class InvalidArgument(ServerError):
    """The request is wrong; `violations` lists the fields."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(ServerError):
    """There is no such task, handler or pool."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(ServerError):
    """The task ID or request ID was used with different content."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(ServerError):
    """The state does not allow the call, such as cancelling a finished task."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(ServerError):
    """Another client or worker was faster."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(ServerError):
    """The events after the resume token are not stored any more."""

    code = grpc.StatusCode.OUT_OF_RANGE


class ResourceExhausted(ServerError):
    """A queue, a quota or the memory is full; see `reason` and `retry_after`."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unauthenticated(ServerError):
    """The token is missing, wrong, expired or revoked."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(ServerError):
    """The token does not allow the call."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unavailable(ServerError):
    """The server could not be reached, or not in time."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ServerError, TimeoutError):
    """The call took longer than the timeout of the client. It may have taken effect."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class InternalError(ServerError):
    """A bug in the server; its log has details under `metadata["incident"]`."""

    code = grpc.StatusCode.INTERNAL


class Unimplemented(ServerError):
    """The server does not have this call: it is older than the client."""

    code = grpc.StatusCode.UNIMPLEMENTED


_CLASSES: dict[grpc.StatusCode, type[ServerError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument, NotFound, AlreadyExists, FailedPrecondition, Aborted, OutOfRange, ResourceExhausted,
        Unauthenticated, PermissionDenied, Unavailable, DeadlineExceeded, InternalError, Unimplemented,
    )
}  # fmt: skip


class _Ended(Protocol):
    """What a call that has failed offers."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Any: ...


def from_rpc_error(error: grpc.RpcError) -> ServerError:
    """The exception for a failed call, with the details of its status."""
    call = cast(_Ended, error)
    code = call.code()
    message, reason = _plain(call.details() or code.name), ""
    metadata: dict[str, str] = {}
    violations: list[FieldViolation] = []
    retry_after: float | None = None
    for any_ in _status_details(call):
        kind = any_.type_url.rpartition("/")[2]
        try:
            if kind == "google.rpc.ErrorInfo":
                info = details.ErrorInfo.FromString(any_.value)
                reason, metadata = info.reason, dict(info.metadata)
            elif kind == "google.rpc.RetryInfo":
                delay = details.RetryInfo.FromString(any_.value).retry_delay
                retry_after = delay.seconds + delay.nanos / 1e9
            elif kind == "google.rpc.BadRequest":
                bad = details.BadRequest.FromString(any_.value)
                violations += [FieldViolation(one.field, one.description) for one in bad.field_violations]
        except DecodeError:
            continue
    return _CLASSES.get(code, ServerError)(
        message, code=code, reason=reason, metadata=metadata, violations=tuple(violations), retry_after=retry_after
    )


def _plain(text: str) -> str:
    """Replaces texts of OpenSSL whose cause is known."""
    if "SSL" in text and "WRONG_VERSION_NUMBER" in text:
        return "the server does not use TLS; write its address with http:// instead of https://, or remove tls, ca and cert"
    if "SSL" in text and "CERTIFICATE_VERIFY_FAILED" in text:
        return "the certificate of the server is not trusted; `ca` must be that of the CA which has signed it"
    return text


def _status_details(call: _Ended) -> list[Any]:
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                return list(details.Status.FromString(value).details)
            except DecodeError:
                return []
    return []
