from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lineshaft.v1 import system_service_pb2 as _system_service_pb2
from lineshaft.v1 import task_pb2 as _task_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PoolKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POOL_KIND_UNSPECIFIED: _ClassVar[PoolKind]
    POOL_KIND_THREADS: _ClassVar[PoolKind]
    POOL_KIND_ASYNC: _ClassVar[PoolKind]
    POOL_KIND_REMOTE: _ClassVar[PoolKind]

class PoolCharge(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POOL_CHARGE_UNSPECIFIED: _ClassVar[PoolCharge]
    POOL_CHARGE_TASKS: _ClassVar[PoolCharge]
    POOL_CHARGE_SLOT_TIME: _ClassVar[PoolCharge]

class DecisionReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_REASON_UNSPECIFIED: _ClassVar[DecisionReason]
    DECISION_REASON_TURN: _ClassVar[DecisionReason]
    DECISION_REASON_TRIAL: _ClassVar[DecisionReason]
    DECISION_REASON_PROMOTED: _ClassVar[DecisionReason]
POOL_KIND_UNSPECIFIED: PoolKind
POOL_KIND_THREADS: PoolKind
POOL_KIND_ASYNC: PoolKind
POOL_KIND_REMOTE: PoolKind
POOL_CHARGE_UNSPECIFIED: PoolCharge
POOL_CHARGE_TASKS: PoolCharge
POOL_CHARGE_SLOT_TIME: PoolCharge
DECISION_REASON_UNSPECIFIED: DecisionReason
DECISION_REASON_TURN: DecisionReason
DECISION_REASON_TRIAL: DecisionReason
DECISION_REASON_PROMOTED: DecisionReason

class Pool(_message.Message):
    __slots__ = ("name", "description", "kind", "size", "paused", "queue_limit", "default_timeout", "durability", "etag", "max_running_per_namespace", "namespaces", "weights", "charge", "max_wait", "autoscale")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_PER_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    CHARGE_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALE_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    kind: PoolKind
    size: int
    paused: bool
    queue_limit: int
    default_timeout: _duration_pb2.Duration
    durability: _task_pb2.Durability
    etag: str
    max_running_per_namespace: int
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    weights: _containers.RepeatedCompositeFieldContainer[PoolWeight]
    charge: PoolCharge
    max_wait: _duration_pb2.Duration
    autoscale: PoolAutoscale
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., kind: _Optional[_Union[PoolKind, str]] = ..., size: _Optional[int] = ..., paused: bool = ..., queue_limit: _Optional[int] = ..., default_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., durability: _Optional[_Union[_task_pb2.Durability, str]] = ..., etag: _Optional[str] = ..., max_running_per_namespace: _Optional[int] = ..., namespaces: _Optional[_Iterable[str]] = ..., weights: _Optional[_Iterable[_Union[PoolWeight, _Mapping]]] = ..., charge: _Optional[_Union[PoolCharge, str]] = ..., max_wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., autoscale: _Optional[_Union[PoolAutoscale, _Mapping]] = ...) -> None: ...

class PoolAutoscale(_message.Message):
    __slots__ = ("min", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: int
    max: int
    def __init__(self, min: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...

class PoolWeight(_message.Message):
    __slots__ = ("namespace", "fairness_key", "weight")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FAIRNESS_KEY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    fairness_key: str
    weight: float
    def __init__(self, namespace: _Optional[str] = ..., fairness_key: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class PriorityDepth(_message.Message):
    __slots__ = ("priority", "queued", "oldest_wait")
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAIT_FIELD_NUMBER: _ClassVar[int]
    priority: _task_pb2.Priority
    queued: int
    oldest_wait: _duration_pb2.Duration
    def __init__(self, priority: _Optional[_Union[_task_pb2.Priority, str]] = ..., queued: _Optional[int] = ..., oldest_wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Percentiles(_message.Message):
    __slots__ = ("count", "p50", "p90", "p99", "max")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    P50_FIELD_NUMBER: _ClassVar[int]
    P90_FIELD_NUMBER: _ClassVar[int]
    P99_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    count: int
    p50: _duration_pb2.Duration
    p90: _duration_pb2.Duration
    p99: _duration_pb2.Duration
    max: _duration_pb2.Duration
    def __init__(self, count: _Optional[int] = ..., p50: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., p90: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., p99: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("name", "pool", "alive", "busy", "current_task_id", "current_handler", "completed", "failed", "busy_time", "idle_time", "remote")
    NAME_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    CURRENT_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    CURRENT_HANDLER_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    BUSY_TIME_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIME_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    name: str
    pool: str
    alive: bool
    busy: bool
    current_task_id: str
    current_handler: str
    completed: int
    failed: int
    busy_time: _duration_pb2.Duration
    idle_time: _duration_pb2.Duration
    remote: RemoteWorker
    def __init__(self, name: _Optional[str] = ..., pool: _Optional[str] = ..., alive: bool = ..., busy: bool = ..., current_task_id: _Optional[str] = ..., current_handler: _Optional[str] = ..., completed: _Optional[int] = ..., failed: _Optional[int] = ..., busy_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., idle_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., remote: _Optional[_Union[RemoteWorker, _Mapping]] = ...) -> None: ...

class RemoteWorker(_message.Message):
    __slots__ = ("connected", "slots", "running", "handlers", "labels", "version")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    HANDLERS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    connected: bool
    slots: int
    running: int
    handlers: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    version: str
    def __init__(self, connected: bool = ..., slots: _Optional[int] = ..., running: _Optional[int] = ..., handlers: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., version: _Optional[str] = ...) -> None: ...

class PoolMetrics(_message.Message):
    __slots__ = ("pool", "time", "size", "busy", "idle", "paused", "queued", "waiting", "running", "priorities", "oldest_wait", "counters_since", "submitted", "completed", "failed", "cancelled", "retried", "attempts", "success_rate", "submit_rate", "finish_rate", "wait_time", "run_time", "utilization", "workers", "deleted", "without_worker")
    POOL_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PRIORITIES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAIT_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_SINCE_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_RATE_FIELD_NUMBER: _ClassVar[int]
    FINISH_RATE_FIELD_NUMBER: _ClassVar[int]
    WAIT_TIME_FIELD_NUMBER: _ClassVar[int]
    RUN_TIME_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_WORKER_FIELD_NUMBER: _ClassVar[int]
    pool: str
    time: _timestamp_pb2.Timestamp
    size: int
    busy: int
    idle: int
    paused: bool
    queued: int
    waiting: int
    running: int
    priorities: _containers.RepeatedCompositeFieldContainer[PriorityDepth]
    oldest_wait: _duration_pb2.Duration
    counters_since: _timestamp_pb2.Timestamp
    submitted: int
    completed: int
    failed: int
    cancelled: int
    retried: int
    attempts: int
    success_rate: float
    submit_rate: float
    finish_rate: float
    wait_time: Percentiles
    run_time: Percentiles
    utilization: float
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    deleted: int
    without_worker: int
    def __init__(self, pool: _Optional[str] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., size: _Optional[int] = ..., busy: _Optional[int] = ..., idle: _Optional[int] = ..., paused: bool = ..., queued: _Optional[int] = ..., waiting: _Optional[int] = ..., running: _Optional[int] = ..., priorities: _Optional[_Iterable[_Union[PriorityDepth, _Mapping]]] = ..., oldest_wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., counters_since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., submitted: _Optional[int] = ..., completed: _Optional[int] = ..., failed: _Optional[int] = ..., cancelled: _Optional[int] = ..., retried: _Optional[int] = ..., attempts: _Optional[int] = ..., success_rate: _Optional[float] = ..., submit_rate: _Optional[float] = ..., finish_rate: _Optional[float] = ..., wait_time: _Optional[_Union[Percentiles, _Mapping]] = ..., run_time: _Optional[_Union[Percentiles, _Mapping]] = ..., utilization: _Optional[float] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., deleted: _Optional[int] = ..., without_worker: _Optional[int] = ...) -> None: ...

class ListPoolsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoolsResponse(_message.Message):
    __slots__ = ("pools", "revision")
    POOLS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    pools: _containers.RepeatedCompositeFieldContainer[Pool]
    revision: int
    def __init__(self, pools: _Optional[_Iterable[_Union[Pool, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class GetPoolRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetPoolResponse(_message.Message):
    __slots__ = ("pool", "revision")
    POOL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    pool: Pool
    revision: int
    def __init__(self, pool: _Optional[_Union[Pool, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class UpdatePoolRequest(_message.Message):
    __slots__ = ("name", "size", "paused", "queue_limit", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    paused: bool
    queue_limit: int
    etag: str
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., paused: bool = ..., queue_limit: _Optional[int] = ..., etag: _Optional[str] = ...) -> None: ...

class UpdatePoolResponse(_message.Message):
    __slots__ = ("pool", "revision")
    POOL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    pool: Pool
    revision: int
    def __init__(self, pool: _Optional[_Union[Pool, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class GetPoolMetricsRequest(_message.Message):
    __slots__ = ("name", "include_workers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_WORKERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    include_workers: bool
    def __init__(self, name: _Optional[str] = ..., include_workers: bool = ...) -> None: ...

class GetPoolMetricsResponse(_message.Message):
    __slots__ = ("metrics", "revision")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    metrics: PoolMetrics
    revision: int
    def __init__(self, metrics: _Optional[_Union[PoolMetrics, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class StreamPoolMetricsRequest(_message.Message):
    __slots__ = ("pools", "interval", "include_workers")
    POOLS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_WORKERS_FIELD_NUMBER: _ClassVar[int]
    pools: _containers.RepeatedScalarFieldContainer[str]
    interval: _duration_pb2.Duration
    include_workers: bool
    def __init__(self, pools: _Optional[_Iterable[str]] = ..., interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., include_workers: bool = ...) -> None: ...

class StreamPoolMetricsResponse(_message.Message):
    __slots__ = ("pools", "system", "revision", "commit_time")
    POOLS_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    pools: _containers.RepeatedCompositeFieldContainer[PoolMetrics]
    system: _system_service_pb2.SystemHealth
    revision: int
    commit_time: Percentiles
    def __init__(self, pools: _Optional[_Iterable[_Union[PoolMetrics, _Mapping]]] = ..., system: _Optional[_Union[_system_service_pb2.SystemHealth, _Mapping]] = ..., revision: _Optional[int] = ..., commit_time: _Optional[_Union[Percentiles, _Mapping]] = ...) -> None: ...

class GetPoolHistoryRequest(_message.Message):
    __slots__ = ("pool", "after")
    POOL_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    pool: str
    after: _timestamp_pb2.Timestamp
    def __init__(self, pool: _Optional[str] = ..., after: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PoolSample(_message.Message):
    __slots__ = ("time", "submit_rate", "complete_rate", "fail_rate", "cancel_rate", "queued", "waiting", "running", "busy", "slots", "oldest_wait")
    TIME_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_RATE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_RATE_FIELD_NUMBER: _ClassVar[int]
    FAIL_RATE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_RATE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAIT_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    submit_rate: float
    complete_rate: float
    fail_rate: float
    cancel_rate: float
    queued: _containers.RepeatedScalarFieldContainer[int]
    waiting: int
    running: int
    busy: int
    slots: int
    oldest_wait: _duration_pb2.Duration
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., submit_rate: _Optional[float] = ..., complete_rate: _Optional[float] = ..., fail_rate: _Optional[float] = ..., cancel_rate: _Optional[float] = ..., queued: _Optional[_Iterable[int]] = ..., waiting: _Optional[int] = ..., running: _Optional[int] = ..., busy: _Optional[int] = ..., slots: _Optional[int] = ..., oldest_wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetPoolHistoryResponse(_message.Message):
    __slots__ = ("samples", "interval")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    samples: _containers.RepeatedCompositeFieldContainer[PoolSample]
    interval: _duration_pb2.Duration
    def __init__(self, samples: _Optional[_Iterable[_Union[PoolSample, _Mapping]]] = ..., interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ("pool", "page_size", "page_token")
    POOL_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pool: str
    page_size: int
    page_token: str
    def __init__(self, pool: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers", "revision", "next_page_token")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    revision: int
    next_page_token: str
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., revision: _Optional[int] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListDecisionsRequest(_message.Message):
    __slots__ = ("pool", "namespace", "task_id", "handler", "fairness_key", "page_size", "page_token")
    POOL_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    FAIRNESS_KEY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pool: str
    namespace: str
    task_id: str
    handler: str
    fairness_key: str
    page_size: int
    page_token: str
    def __init__(self, pool: _Optional[str] = ..., namespace: _Optional[str] = ..., task_id: _Optional[str] = ..., handler: _Optional[str] = ..., fairness_key: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDecisionsResponse(_message.Message):
    __slots__ = ("decisions", "next_page_token", "revision")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    next_page_token: str
    revision: int
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("time", "task_id", "attempt", "handler", "priority", "namespace", "fairness_key", "wait", "reason", "other_namespaces", "other_fairness_keys", "started_at", "worker", "expected_time")
    TIME_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FAIRNESS_KEY_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OTHER_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    OTHER_FAIRNESS_KEYS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_TIME_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    task_id: str
    attempt: int
    handler: str
    priority: _task_pb2.Priority
    namespace: str
    fairness_key: str
    wait: _duration_pb2.Duration
    reason: DecisionReason
    other_namespaces: int
    other_fairness_keys: int
    started_at: _timestamp_pb2.Timestamp
    worker: str
    expected_time: _duration_pb2.Duration
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., handler: _Optional[str] = ..., priority: _Optional[_Union[_task_pb2.Priority, str]] = ..., namespace: _Optional[str] = ..., fairness_key: _Optional[str] = ..., wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[_Union[DecisionReason, str]] = ..., other_namespaces: _Optional[int] = ..., other_fairness_keys: _Optional[int] = ..., started_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., worker: _Optional[str] = ..., expected_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ResetPoolCountersRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResetPoolCountersResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...
