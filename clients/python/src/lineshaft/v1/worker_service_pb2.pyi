from google.protobuf import duration_pb2 as _duration_pb2
from lineshaft.v1 import task_pb2 as _task_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StopReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_REASON_UNSPECIFIED: _ClassVar[StopReason]
    STOP_REASON_CANCEL: _ClassVar[StopReason]
    STOP_REASON_TIMEOUT: _ClassVar[StopReason]
    STOP_REASON_STALE: _ClassVar[StopReason]
STOP_REASON_UNSPECIFIED: StopReason
STOP_REASON_CANCEL: StopReason
STOP_REASON_TIMEOUT: StopReason
STOP_REASON_STALE: StopReason

class WorkRequest(_message.Message):
    __slots__ = ("hello", "messages")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    hello: WorkerHello
    messages: _containers.RepeatedCompositeFieldContainer[WorkerMessage]
    def __init__(self, hello: _Optional[_Union[WorkerHello, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[WorkerMessage, _Mapping]]] = ...) -> None: ...

class WorkResponse(_message.Message):
    __slots__ = ("welcome", "messages")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    welcome: WorkerWelcome
    messages: _containers.RepeatedCompositeFieldContainer[ServerMessage]
    def __init__(self, welcome: _Optional[_Union[WorkerWelcome, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[ServerMessage, _Mapping]]] = ...) -> None: ...

class WorkerHello(_message.Message):
    __slots__ = ("worker_id", "pool", "handlers", "slots", "labels", "version", "unfinished", "chunks")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    HANDLERS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    pool: str
    handlers: _containers.RepeatedCompositeFieldContainer[WorkerHandler]
    slots: int
    labels: _containers.ScalarMap[str, str]
    version: str
    unfinished: _containers.RepeatedScalarFieldContainer[str]
    chunks: bool
    def __init__(self, worker_id: _Optional[str] = ..., pool: _Optional[str] = ..., handlers: _Optional[_Iterable[_Union[WorkerHandler, _Mapping]]] = ..., slots: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., version: _Optional[str] = ..., unfinished: _Optional[_Iterable[str]] = ..., chunks: bool = ...) -> None: ...

class WorkerHandler(_message.Message):
    __slots__ = ("name", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class WorkerWelcome(_message.Message):
    __slots__ = ("pool", "lease", "heartbeat_interval", "stale", "max_result_bytes")
    POOL_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULT_BYTES_FIELD_NUMBER: _ClassVar[int]
    pool: str
    lease: _duration_pb2.Duration
    heartbeat_interval: _duration_pb2.Duration
    stale: _containers.RepeatedScalarFieldContainer[str]
    max_result_bytes: int
    def __init__(self, pool: _Optional[str] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., heartbeat_interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., stale: _Optional[_Iterable[str]] = ..., max_result_bytes: _Optional[int] = ...) -> None: ...

class WorkerMessage(_message.Message):
    __slots__ = ("accepted", "progress", "output", "finished", "cancel_acknowledged", "suspended", "resuming", "draining", "heartbeat", "chunk")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    CANCEL_ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    RESUMING_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    accepted: AttemptAccepted
    progress: AttemptProgress
    output: AttemptOutput
    finished: AttemptFinished
    cancel_acknowledged: CancelAcknowledged
    suspended: AttemptSuspended
    resuming: AttemptResuming
    draining: WorkerDraining
    heartbeat: Heartbeat
    chunk: AttemptChunk
    def __init__(self, accepted: _Optional[_Union[AttemptAccepted, _Mapping]] = ..., progress: _Optional[_Union[AttemptProgress, _Mapping]] = ..., output: _Optional[_Union[AttemptOutput, _Mapping]] = ..., finished: _Optional[_Union[AttemptFinished, _Mapping]] = ..., cancel_acknowledged: _Optional[_Union[CancelAcknowledged, _Mapping]] = ..., suspended: _Optional[_Union[AttemptSuspended, _Mapping]] = ..., resuming: _Optional[_Union[AttemptResuming, _Mapping]] = ..., draining: _Optional[_Union[WorkerDraining, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., chunk: _Optional[_Union[AttemptChunk, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("assigned", "cancel", "settled", "resumed", "draining", "heartbeat", "chunk", "result_requested")
    ASSIGNED_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    RESULT_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    assigned: AttemptAssigned
    cancel: AttemptCancel
    settled: AttemptsSettled
    resumed: AttemptResumed
    draining: ServerDraining
    heartbeat: Heartbeat
    chunk: AttemptChunk
    result_requested: ResultRequested
    def __init__(self, assigned: _Optional[_Union[AttemptAssigned, _Mapping]] = ..., cancel: _Optional[_Union[AttemptCancel, _Mapping]] = ..., settled: _Optional[_Union[AttemptsSettled, _Mapping]] = ..., resumed: _Optional[_Union[AttemptResumed, _Mapping]] = ..., draining: _Optional[_Union[ServerDraining, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., chunk: _Optional[_Union[AttemptChunk, _Mapping]] = ..., result_requested: _Optional[_Union[ResultRequested, _Mapping]] = ...) -> None: ...

class AttemptAssigned(_message.Message):
    __slots__ = ("token", "task_id", "namespace", "handler", "attempt", "payload", "timeout", "traceparent", "tracestate", "priority", "labels", "payload_bytes")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    token: str
    task_id: str
    namespace: str
    handler: str
    attempt: int
    payload: _task_pb2.Payload
    timeout: _duration_pb2.Duration
    traceparent: str
    tracestate: str
    priority: _task_pb2.Priority
    labels: _containers.ScalarMap[str, str]
    payload_bytes: int
    def __init__(self, token: _Optional[str] = ..., task_id: _Optional[str] = ..., namespace: _Optional[str] = ..., handler: _Optional[str] = ..., attempt: _Optional[int] = ..., payload: _Optional[_Union[_task_pb2.Payload, _Mapping]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., priority: _Optional[_Union[_task_pb2.Priority, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., payload_bytes: _Optional[int] = ...) -> None: ...

class AttemptChunk(_message.Message):
    __slots__ = ("token", "offset", "data")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    token: str
    offset: int
    data: bytes
    def __init__(self, token: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ResultRequested(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class AttemptCancel(_message.Message):
    __slots__ = ("token", "reason", "grace")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    token: str
    reason: StopReason
    grace: _duration_pb2.Duration
    def __init__(self, token: _Optional[str] = ..., reason: _Optional[_Union[StopReason, str]] = ..., grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AttemptAccepted(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class AttemptProgress(_message.Message):
    __slots__ = ("token", "fraction", "note")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    token: str
    fraction: float
    note: str
    def __init__(self, token: _Optional[str] = ..., fraction: _Optional[float] = ..., note: _Optional[str] = ...) -> None: ...

class AttemptOutput(_message.Message):
    __slots__ = ("token", "stream", "data")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    token: str
    stream: _task_pb2.OutputStream
    data: bytes
    def __init__(self, token: _Optional[str] = ..., stream: _Optional[_Union[_task_pb2.OutputStream, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class AttemptFinished(_message.Message):
    __slots__ = ("token", "result", "failure", "stopped", "not_started", "cpu_time", "peak_memory_bytes", "result_bytes", "artifacts")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    NOT_STARTED_FIELD_NUMBER: _ClassVar[int]
    CPU_TIME_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    token: str
    result: _task_pb2.Payload
    failure: _task_pb2.Failure
    stopped: AttemptStopped
    not_started: AttemptNotStarted
    cpu_time: _duration_pb2.Duration
    peak_memory_bytes: int
    result_bytes: int
    artifacts: _containers.RepeatedCompositeFieldContainer[_task_pb2.Artifact]
    def __init__(self, token: _Optional[str] = ..., result: _Optional[_Union[_task_pb2.Payload, _Mapping]] = ..., failure: _Optional[_Union[_task_pb2.Failure, _Mapping]] = ..., stopped: _Optional[_Union[AttemptStopped, _Mapping]] = ..., not_started: _Optional[_Union[AttemptNotStarted, _Mapping]] = ..., cpu_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., peak_memory_bytes: _Optional[int] = ..., result_bytes: _Optional[int] = ..., artifacts: _Optional[_Iterable[_Union[_task_pb2.Artifact, _Mapping]]] = ...) -> None: ...

class AttemptStopped(_message.Message):
    __slots__ = ("method",)
    METHOD_FIELD_NUMBER: _ClassVar[int]
    method: _task_pb2.StopMethod
    def __init__(self, method: _Optional[_Union[_task_pb2.StopMethod, str]] = ...) -> None: ...

class AttemptNotStarted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CancelAcknowledged(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class AttemptSuspended(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class AttemptResuming(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class AttemptResumed(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class AttemptsSettled(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class WorkerDraining(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerDraining(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadParentResultsRequest(_message.Message):
    __slots__ = ("task_id", "token", "skip")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    token: str
    skip: int
    def __init__(self, task_id: _Optional[str] = ..., token: _Optional[str] = ..., skip: _Optional[int] = ...) -> None: ...

class ReadParentResultsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ParentResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ParentResult, _Mapping]]] = ...) -> None: ...

class UploadArtifactRequest(_message.Message):
    __slots__ = ("task_id", "token", "name", "content_type", "data")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    token: str
    name: str
    content_type: str
    data: bytes
    def __init__(self, task_id: _Optional[str] = ..., token: _Optional[str] = ..., name: _Optional[str] = ..., content_type: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadArtifactResponse(_message.Message):
    __slots__ = ("artifact",)
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    artifact: _task_pb2.Artifact
    def __init__(self, artifact: _Optional[_Union[_task_pb2.Artifact, _Mapping]] = ...) -> None: ...

class ParentResult(_message.Message):
    __slots__ = ("task_id", "state", "result", "has_more")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    state: _task_pb2.TaskState
    result: _task_pb2.Payload
    has_more: bool
    def __init__(self, task_id: _Optional[str] = ..., state: _Optional[_Union[_task_pb2.TaskState, str]] = ..., result: _Optional[_Union[_task_pb2.Payload, _Mapping]] = ..., has_more: bool = ...) -> None: ...
