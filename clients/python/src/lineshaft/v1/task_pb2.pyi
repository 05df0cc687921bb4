from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_LOW: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_HIGH: _ClassVar[Priority]
    PRIORITY_CRITICAL: _ClassVar[Priority]

class TaskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_STATE_UNSPECIFIED: _ClassVar[TaskState]
    TASK_STATE_WAITING: _ClassVar[TaskState]
    TASK_STATE_QUEUED: _ClassVar[TaskState]
    TASK_STATE_RUNNING: _ClassVar[TaskState]
    TASK_STATE_COMPLETED: _ClassVar[TaskState]
    TASK_STATE_FAILED: _ClassVar[TaskState]
    TASK_STATE_CANCELLED: _ClassVar[TaskState]

class FailureReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_REASON_UNSPECIFIED: _ClassVar[FailureReason]
    FAILURE_REASON_HANDLER_ERROR: _ClassVar[FailureReason]
    FAILURE_REASON_TIMEOUT: _ClassVar[FailureReason]
    FAILURE_REASON_PANIC: _ClassVar[FailureReason]
    FAILURE_REASON_KILLED: _ClassVar[FailureReason]
    FAILURE_REASON_OUT_OF_MEMORY: _ClassVar[FailureReason]
    FAILURE_REASON_WORKER_LOST: _ClassVar[FailureReason]
    FAILURE_REASON_EXPIRED: _ClassVar[FailureReason]
    FAILURE_REASON_DEPENDENCY_FAILED: _ClassVar[FailureReason]
    FAILURE_REASON_RESULT_TOO_LARGE: _ClassVar[FailureReason]
    FAILURE_REASON_INVALID_PAYLOAD: _ClassVar[FailureReason]
    FAILURE_REASON_STACK_OVERFLOW: _ClassVar[FailureReason]

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_FSYNC: _ClassVar[Durability]
    DURABILITY_MEMORY: _ClassVar[Durability]

class CancelMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_MODE_UNSPECIFIED: _ClassVar[CancelMode]
    CANCEL_MODE_GRACEFUL: _ClassVar[CancelMode]
    CANCEL_MODE_FORCE: _ClassVar[CancelMode]

class StopMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_METHOD_UNSPECIFIED: _ClassVar[StopMethod]
    STOP_METHOD_NEVER_STARTED: _ClassVar[StopMethod]
    STOP_METHOD_TOKEN: _ClassVar[StopMethod]
    STOP_METHOD_SIGNAL_TERM: _ClassVar[StopMethod]
    STOP_METHOD_SIGNAL_KILL: _ClassVar[StopMethod]
    STOP_METHOD_ABORT: _ClassVar[StopMethod]
    STOP_METHOD_FINISHED: _ClassVar[StopMethod]

class TraceMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRACE_MODE_UNSPECIFIED: _ClassVar[TraceMode]
    TRACE_MODE_AUTO: _ClassVar[TraceMode]
    TRACE_MODE_PARENT: _ClassVar[TraceMode]
    TRACE_MODE_LINK: _ClassVar[TraceMode]

class OnParentFailure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_PARENT_FAILURE_UNSPECIFIED: _ClassVar[OnParentFailure]
    ON_PARENT_FAILURE_FAIL: _ClassVar[OnParentFailure]
    ON_PARENT_FAILURE_RUN: _ClassVar[OnParentFailure]
    ON_PARENT_FAILURE_CANCEL: _ClassVar[OnParentFailure]

class Hold(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOLD_UNSPECIFIED: _ClassVar[Hold]
    HOLD_DELAY: _ClassVar[Hold]
    HOLD_BACK_OFF: _ClassVar[Hold]
    HOLD_PARENTS: _ClassVar[Hold]
    HOLD_LIMIT: _ClassVar[Hold]

class OutputStream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_STREAM_UNSPECIFIED: _ClassVar[OutputStream]
    OUTPUT_STREAM_STDOUT: _ClassVar[OutputStream]
    OUTPUT_STREAM_STDERR: _ClassVar[OutputStream]

class OnUniqueConflict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_UNIQUE_CONFLICT_UNSPECIFIED: _ClassVar[OnUniqueConflict]
    ON_UNIQUE_CONFLICT_FAIL: _ClassVar[OnUniqueConflict]
    ON_UNIQUE_CONFLICT_USE_EXISTING: _ClassVar[OnUniqueConflict]
    ON_UNIQUE_CONFLICT_REPLACE_QUEUED: _ClassVar[OnUniqueConflict]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_LOW: Priority
PRIORITY_NORMAL: Priority
PRIORITY_HIGH: Priority
PRIORITY_CRITICAL: Priority
TASK_STATE_UNSPECIFIED: TaskState
TASK_STATE_WAITING: TaskState
TASK_STATE_QUEUED: TaskState
TASK_STATE_RUNNING: TaskState
TASK_STATE_COMPLETED: TaskState
TASK_STATE_FAILED: TaskState
TASK_STATE_CANCELLED: TaskState
FAILURE_REASON_UNSPECIFIED: FailureReason
FAILURE_REASON_HANDLER_ERROR: FailureReason
FAILURE_REASON_TIMEOUT: FailureReason
FAILURE_REASON_PANIC: FailureReason
FAILURE_REASON_KILLED: FailureReason
FAILURE_REASON_OUT_OF_MEMORY: FailureReason
FAILURE_REASON_WORKER_LOST: FailureReason
FAILURE_REASON_EXPIRED: FailureReason
FAILURE_REASON_DEPENDENCY_FAILED: FailureReason
FAILURE_REASON_RESULT_TOO_LARGE: FailureReason
FAILURE_REASON_INVALID_PAYLOAD: FailureReason
FAILURE_REASON_STACK_OVERFLOW: FailureReason
DURABILITY_UNSPECIFIED: Durability
DURABILITY_FSYNC: Durability
DURABILITY_MEMORY: Durability
CANCEL_MODE_UNSPECIFIED: CancelMode
CANCEL_MODE_GRACEFUL: CancelMode
CANCEL_MODE_FORCE: CancelMode
STOP_METHOD_UNSPECIFIED: StopMethod
STOP_METHOD_NEVER_STARTED: StopMethod
STOP_METHOD_TOKEN: StopMethod
STOP_METHOD_SIGNAL_TERM: StopMethod
STOP_METHOD_SIGNAL_KILL: StopMethod
STOP_METHOD_ABORT: StopMethod
STOP_METHOD_FINISHED: StopMethod
TRACE_MODE_UNSPECIFIED: TraceMode
TRACE_MODE_AUTO: TraceMode
TRACE_MODE_PARENT: TraceMode
TRACE_MODE_LINK: TraceMode
ON_PARENT_FAILURE_UNSPECIFIED: OnParentFailure
ON_PARENT_FAILURE_FAIL: OnParentFailure
ON_PARENT_FAILURE_RUN: OnParentFailure
ON_PARENT_FAILURE_CANCEL: OnParentFailure
HOLD_UNSPECIFIED: Hold
HOLD_DELAY: Hold
HOLD_BACK_OFF: Hold
HOLD_PARENTS: Hold
HOLD_LIMIT: Hold
OUTPUT_STREAM_UNSPECIFIED: OutputStream
OUTPUT_STREAM_STDOUT: OutputStream
OUTPUT_STREAM_STDERR: OutputStream
ON_UNIQUE_CONFLICT_UNSPECIFIED: OnUniqueConflict
ON_UNIQUE_CONFLICT_FAIL: OnUniqueConflict
ON_UNIQUE_CONFLICT_USE_EXISTING: OnUniqueConflict
ON_UNIQUE_CONFLICT_REPLACE_QUEUED: OnUniqueConflict

class Payload(_message.Message):
    __slots__ = ("data", "json", "content_type")
    DATA_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    json: _struct_pb2.Value
    content_type: str
    def __init__(self, data: _Optional[bytes] = ..., json: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., content_type: _Optional[str] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("max_attempts", "delay", "factor", "max_delay", "jitter")
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    MAX_DELAY_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    max_attempts: int
    delay: _duration_pb2.Duration
    factor: float
    max_delay: _duration_pb2.Duration
    jitter: float
    def __init__(self, max_attempts: _Optional[int] = ..., delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., factor: _Optional[float] = ..., max_delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., jitter: _Optional[float] = ...) -> None: ...

class TaskLimit(_message.Message):
    __slots__ = ("name", "key", "max_running", "rate")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    key: str
    max_running: int
    rate: StartRate
    def __init__(self, name: _Optional[str] = ..., key: _Optional[str] = ..., max_running: _Optional[int] = ..., rate: _Optional[_Union[StartRate, _Mapping]] = ...) -> None: ...

class StartRate(_message.Message):
    __slots__ = ("starts", "interval", "burst")
    STARTS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    starts: int
    interval: _duration_pb2.Duration
    burst: int
    def __init__(self, starts: _Optional[int] = ..., interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., burst: _Optional[int] = ...) -> None: ...

class LimitHold(_message.Message):
    __slots__ = ("name", "key", "places", "rate", "not_configured")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    NOT_CONFIGURED_FIELD_NUMBER: _ClassVar[int]
    name: str
    key: str
    places: PlacesTaken
    rate: RateReached
    not_configured: bool
    def __init__(self, name: _Optional[str] = ..., key: _Optional[str] = ..., places: _Optional[_Union[PlacesTaken, _Mapping]] = ..., rate: _Optional[_Union[RateReached, _Mapping]] = ..., not_configured: bool = ...) -> None: ...

class PlacesTaken(_message.Message):
    __slots__ = ("taken", "max")
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    taken: int
    max: int
    def __init__(self, taken: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...

class RateReached(_message.Message):
    __slots__ = ("until",)
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    until: _timestamp_pb2.Timestamp
    def __init__(self, until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("reason", "message", "detail", "attempt", "exit_code", "signal", "retryable")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    reason: FailureReason
    message: str
    detail: str
    attempt: int
    exit_code: int
    signal: int
    retryable: bool
    def __init__(self, reason: _Optional[_Union[FailureReason, str]] = ..., message: _Optional[str] = ..., detail: _Optional[str] = ..., attempt: _Optional[int] = ..., exit_code: _Optional[int] = ..., signal: _Optional[int] = ..., retryable: bool = ...) -> None: ...

class ResourceUsage(_message.Message):
    __slots__ = ("queue_time", "run_time", "cpu_time", "peak_memory_bytes", "output_bytes", "result_bytes", "output_incomplete")
    QUEUE_TIME_FIELD_NUMBER: _ClassVar[int]
    RUN_TIME_FIELD_NUMBER: _ClassVar[int]
    CPU_TIME_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INCOMPLETE_FIELD_NUMBER: _ClassVar[int]
    queue_time: _duration_pb2.Duration
    run_time: _duration_pb2.Duration
    cpu_time: _duration_pb2.Duration
    peak_memory_bytes: int
    output_bytes: int
    result_bytes: int
    output_incomplete: bool
    def __init__(self, queue_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., run_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., cpu_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., peak_memory_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., result_bytes: _Optional[int] = ..., output_incomplete: bool = ...) -> None: ...

class CancelReceipt(_message.Message):
    __slots__ = ("requested_at", "stopped_at", "method", "reason", "requested_by")
    REQUESTED_AT_FIELD_NUMBER: _ClassVar[int]
    STOPPED_AT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    requested_at: _timestamp_pb2.Timestamp
    stopped_at: _timestamp_pb2.Timestamp
    method: StopMethod
    reason: str
    requested_by: str
    def __init__(self, requested_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., stopped_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., method: _Optional[_Union[StopMethod, str]] = ..., reason: _Optional[str] = ..., requested_by: _Optional[str] = ...) -> None: ...

class TaskDependencies(_message.Message):
    __slots__ = ("parent_ids", "parents", "on_parent_failure", "unfinished_parents", "unfinished_parent_ids")
    PARENT_IDS_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    ON_PARENT_FAILURE_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_PARENTS_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_PARENT_IDS_FIELD_NUMBER: _ClassVar[int]
    parent_ids: _containers.RepeatedScalarFieldContainer[str]
    parents: int
    on_parent_failure: OnParentFailure
    unfinished_parents: int
    unfinished_parent_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, parent_ids: _Optional[_Iterable[str]] = ..., parents: _Optional[int] = ..., on_parent_failure: _Optional[_Union[OnParentFailure, str]] = ..., unfinished_parents: _Optional[int] = ..., unfinished_parent_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("task_id", "namespace", "handler", "pool", "priority", "state", "display_name", "labels", "batch_id", "request_id", "attempt", "retry", "timeout", "submitted_at", "eligible_at", "started_at", "finished_at", "expires_at", "revision", "submitted_by", "worker", "failure", "payload", "result", "resource_usage", "cancel", "progress", "progress_note", "at_most_once", "durability", "stdout_bytes", "stderr_bytes", "args", "retry_of", "dependencies", "limits", "limit_hold", "trace_id", "unique_key", "artifacts", "fairness_key", "output")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_BY_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_USAGE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_NOTE_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_ONCE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    STDOUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STDERR_BYTES_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    RETRY_OF_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_HOLD_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_KEY_FIELD_NUMBER: _ClassVar[int]
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    FAIRNESS_KEY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    namespace: str
    handler: str
    pool: str
    priority: Priority
    state: TaskState
    display_name: str
    labels: _containers.ScalarMap[str, str]
    batch_id: str
    request_id: str
    attempt: int
    retry: RetryPolicy
    timeout: _duration_pb2.Duration
    submitted_at: _timestamp_pb2.Timestamp
    eligible_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    revision: int
    submitted_by: str
    worker: str
    failure: Failure
    payload: Payload
    result: Payload
    resource_usage: ResourceUsage
    cancel: CancelReceipt
    progress: float
    progress_note: str
    at_most_once: bool
    durability: Durability
    stdout_bytes: int
    stderr_bytes: int
    args: _containers.RepeatedScalarFieldContainer[str]
    retry_of: str
    dependencies: TaskDependencies
    limits: _containers.RepeatedCompositeFieldContainer[TaskLimit]
    limit_hold: LimitHold
    trace_id: str
    unique_key: str
    artifacts: _containers.RepeatedCompositeFieldContainer[Artifact]
    fairness_key: str
    output: OutputExcerpt
    def __init__(self, task_id: _Optional[str] = ..., namespace: _Optional[str] = ..., handler: _Optional[str] = ..., pool: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ..., state: _Optional[_Union[TaskState, str]] = ..., display_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., batch_id: _Optional[str] = ..., request_id: _Optional[str] = ..., attempt: _Optional[int] = ..., retry: _Optional[_Union[RetryPolicy, _Mapping]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., submitted_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., eligible_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., submitted_by: _Optional[str] = ..., worker: _Optional[str] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ..., result: _Optional[_Union[Payload, _Mapping]] = ..., resource_usage: _Optional[_Union[ResourceUsage, _Mapping]] = ..., cancel: _Optional[_Union[CancelReceipt, _Mapping]] = ..., progress: _Optional[float] = ..., progress_note: _Optional[str] = ..., at_most_once: bool = ..., durability: _Optional[_Union[Durability, str]] = ..., stdout_bytes: _Optional[int] = ..., stderr_bytes: _Optional[int] = ..., args: _Optional[_Iterable[str]] = ..., retry_of: _Optional[str] = ..., dependencies: _Optional[_Union[TaskDependencies, _Mapping]] = ..., limits: _Optional[_Iterable[_Union[TaskLimit, _Mapping]]] = ..., limit_hold: _Optional[_Union[LimitHold, _Mapping]] = ..., trace_id: _Optional[str] = ..., unique_key: _Optional[str] = ..., artifacts: _Optional[_Iterable[_Union[Artifact, _Mapping]]] = ..., fairness_key: _Optional[str] = ..., output: _Optional[_Union[OutputExcerpt, _Mapping]] = ...) -> None: ...

class OutputExcerpt(_message.Message):
    __slots__ = ("attempt", "stdout", "stderr")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    stdout: StreamExcerpt
    stderr: StreamExcerpt
    def __init__(self, attempt: _Optional[int] = ..., stdout: _Optional[_Union[StreamExcerpt, _Mapping]] = ..., stderr: _Optional[_Union[StreamExcerpt, _Mapping]] = ...) -> None: ...

class StreamExcerpt(_message.Message):
    __slots__ = ("head", "omitted_bytes", "tail")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    OMITTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    head: str
    omitted_bytes: int
    tail: str
    def __init__(self, head: _Optional[str] = ..., omitted_bytes: _Optional[int] = ..., tail: _Optional[str] = ...) -> None: ...

class Artifact(_message.Message):
    __slots__ = ("name", "content_type", "size_bytes", "sha256", "link")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    name: str
    content_type: str
    size_bytes: int
    sha256: str
    link: str
    def __init__(self, name: _Optional[str] = ..., content_type: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., link: _Optional[str] = ...) -> None: ...

class TaskEvent(_message.Message):
    __slots__ = ("revision", "time", "task_id", "state", "previous_state", "attempt", "failure", "worker", "not_before", "cancel", "handler", "pool", "priority", "batch_id", "namespace", "deleted", "labels", "resource_usage", "resume_token", "limit_hold", "updated", "holds")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_USAGE_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LIMIT_HOLD_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    time: _timestamp_pb2.Timestamp
    task_id: str
    state: TaskState
    previous_state: TaskState
    attempt: int
    failure: Failure
    worker: str
    not_before: _timestamp_pb2.Timestamp
    cancel: CancelReceipt
    handler: str
    pool: str
    priority: Priority
    batch_id: str
    namespace: str
    deleted: bool
    labels: _containers.ScalarMap[str, str]
    resource_usage: ResourceUsage
    resume_token: str
    limit_hold: LimitHold
    updated: bool
    holds: _containers.RepeatedScalarFieldContainer[Hold]
    def __init__(self, revision: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., task_id: _Optional[str] = ..., state: _Optional[_Union[TaskState, str]] = ..., previous_state: _Optional[_Union[TaskState, str]] = ..., attempt: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., worker: _Optional[str] = ..., not_before: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., cancel: _Optional[_Union[CancelReceipt, _Mapping]] = ..., handler: _Optional[str] = ..., pool: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ..., batch_id: _Optional[str] = ..., namespace: _Optional[str] = ..., deleted: bool = ..., labels: _Optional[_Mapping[str, str]] = ..., resource_usage: _Optional[_Union[ResourceUsage, _Mapping]] = ..., resume_token: _Optional[str] = ..., limit_hold: _Optional[_Union[LimitHold, _Mapping]] = ..., updated: bool = ..., holds: _Optional[_Iterable[_Union[Hold, str]]] = ...) -> None: ...

class TaskFilter(_message.Message):
    __slots__ = ("task_ids", "batch_id", "labels", "states", "pool", "handler", "namespace", "priorities", "submitted_after", "submitted_before", "failure_group", "texts")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PRIORITIES_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AFTER_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_GROUP_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    batch_id: str
    labels: _containers.ScalarMap[str, str]
    states: _containers.RepeatedScalarFieldContainer[TaskState]
    pool: str
    handler: str
    namespace: str
    priorities: _containers.RepeatedScalarFieldContainer[Priority]
    submitted_after: _timestamp_pb2.Timestamp
    submitted_before: _timestamp_pb2.Timestamp
    failure_group: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, task_ids: _Optional[_Iterable[str]] = ..., batch_id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., states: _Optional[_Iterable[_Union[TaskState, str]]] = ..., pool: _Optional[str] = ..., handler: _Optional[str] = ..., namespace: _Optional[str] = ..., priorities: _Optional[_Iterable[_Union[Priority, str]]] = ..., submitted_after: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., submitted_before: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., failure_group: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class FailureGroup(_message.Message):
    __slots__ = ("id", "handler", "reason", "message", "count", "first_at", "last_at", "example_task_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    handler: str
    reason: FailureReason
    message: str
    count: int
    first_at: _timestamp_pb2.Timestamp
    last_at: _timestamp_pb2.Timestamp
    example_task_id: str
    def __init__(self, id: _Optional[str] = ..., handler: _Optional[str] = ..., reason: _Optional[_Union[FailureReason, str]] = ..., message: _Optional[str] = ..., count: _Optional[int] = ..., first_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., last_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., example_task_id: _Optional[str] = ...) -> None: ...
