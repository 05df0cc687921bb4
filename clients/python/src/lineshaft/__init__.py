"""Client and worker of Lineshaft, a service that stores tasks and runs them."""

from lineshaft._codec import Payload
from lineshaft._version import __version__
from lineshaft.client import Client
from lineshaft.context import Cancelled, Context, PermanentError, current
from lineshaft.errors import (
    Aborted,
    AlreadyExists,
    ChecksumMismatch,
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
from lineshaft.executor import Executor
from lineshaft.model import Artifact, Event, Limit, Parent, Priority, Retry, State, TaskInfo
from lineshaft.task import Task, as_completed
from lineshaft.worker import Worker

__all__ = [
    "Aborted", "AlreadyExists", "Artifact", "Cancelled", "ChecksumMismatch", "Client", "ClientClosed", "Context",
    "DeadlineExceeded", "Event", "Executor", "FailedPrecondition", "Failure", "FailureReason", "FieldViolation",
    "InternalError", "InvalidArgument", "Limit", "LineshaftError", "NotFound", "OutOfRange", "Parent", "Payload",
    "PermanentError", "PermissionDenied", "Priority", "ResourceExhausted", "Retry", "ServerError", "State", "Task",
    "TaskCancelled", "TaskDeleted", "TaskFailed", "TaskInfo", "Unauthenticated", "Unavailable", "Unimplemented",
    "Worker", "__version__", "as_completed", "current",
]  # fmt: skip


for _exported in [*globals().values()]:
    if isinstance(_exported, type) and issubclass(_exported, BaseException):
        _exported.__module__ = __name__  # The name that failures and tracebacks show.
