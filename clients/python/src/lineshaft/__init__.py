"""Client and worker of Lineshaft, a service that stores tasks and runs them."""

from lineshaft._codec import Payload
from lineshaft._version import __version__
from lineshaft.client import Client
from lineshaft.errors import (
    Aborted,
    AlreadyExists,
    ClientClosed,
    DeadlineExceeded,
    FailedPrecondition,
    Failure,
    FailureReason,
    FieldViolation,
    InternalError,
    InvalidArgument,
    LineshaftError,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    ServerError,
    TaskCancelled,
    TaskDeleted,
    TaskFailed,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from lineshaft.model import Event, Priority, Retry, State, TaskInfo
from lineshaft.task import Task, as_completed

__all__ = [
    "Aborted", "AlreadyExists", "Client", "ClientClosed", "DeadlineExceeded", "Event", "FailedPrecondition", "Failure",
    "FailureReason", "FieldViolation", "InternalError", "InvalidArgument", "LineshaftError", "NotFound", "OutOfRange",
    "Payload", "PermissionDenied", "Priority", "ResourceExhausted", "Retry", "ServerError", "State", "Task",
    "TaskCancelled", "TaskDeleted", "TaskFailed", "TaskInfo", "Unauthenticated", "Unavailable", "Unimplemented",
    "__version__", "as_completed",
]  # fmt: skip
