from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lineshaft.v1 import task_pb2 as _task_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EstimateBasis(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ESTIMATE_BASIS_UNSPECIFIED: _ClassVar[EstimateBasis]
    ESTIMATE_BASIS_FREE_SLOT: _ClassVar[EstimateBasis]
    ESTIMATE_BASIS_DELAY: _ClassVar[EstimateBasis]
    ESTIMATE_BASIS_RUN_TIMES: _ClassVar[EstimateBasis]
ESTIMATE_BASIS_UNSPECIFIED: EstimateBasis
ESTIMATE_BASIS_FREE_SLOT: EstimateBasis
ESTIMATE_BASIS_DELAY: EstimateBasis
ESTIMATE_BASIS_RUN_TIMES: EstimateBasis

class SubmitTaskRequest(_message.Message):
    __slots__ = ("handler", "payload", "priority", "task_id", "request_id", "pool", "display_name", "labels", "timeout", "retry", "args", "delay", "at_most_once", "durability", "namespace", "expires_after", "trace_mode", "batch_id", "traceparent", "tracestate", "dependencies", "limits", "unique_key", "on_unique_conflict", "reuse_result_within", "fairness_key")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_ONCE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AFTER_FIELD_NUMBER: _ClassVar[int]
    TRACE_MODE_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_KEY_FIELD_NUMBER: _ClassVar[int]
    ON_UNIQUE_CONFLICT_FIELD_NUMBER: _ClassVar[int]
    REUSE_RESULT_WITHIN_FIELD_NUMBER: _ClassVar[int]
    FAIRNESS_KEY_FIELD_NUMBER: _ClassVar[int]
    handler: str
    payload: _task_pb2.Payload
    priority: _task_pb2.Priority
    task_id: str
    request_id: str
    pool: str
    display_name: str
    labels: _containers.ScalarMap[str, str]
    timeout: _duration_pb2.Duration
    retry: _task_pb2.RetryPolicy
    args: _containers.RepeatedScalarFieldContainer[str]
    delay: _duration_pb2.Duration
    at_most_once: bool
    durability: _task_pb2.Durability
    namespace: str
    expires_after: _duration_pb2.Duration
    trace_mode: _task_pb2.TraceMode
    batch_id: str
    traceparent: str
    tracestate: str
    dependencies: Dependencies
    limits: _containers.RepeatedCompositeFieldContainer[_task_pb2.TaskLimit]
    unique_key: str
    on_unique_conflict: _task_pb2.OnUniqueConflict
    reuse_result_within: _duration_pb2.Duration
    fairness_key: str
    def __init__(self, handler: _Optional[str] = ..., payload: _Optional[_Union[_task_pb2.Payload, _Mapping]] = ..., priority: _Optional[_Union[_task_pb2.Priority, str]] = ..., task_id: _Optional[str] = ..., request_id: _Optional[str] = ..., pool: _Optional[str] = ..., display_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., retry: _Optional[_Union[_task_pb2.RetryPolicy, _Mapping]] = ..., args: _Optional[_Iterable[str]] = ..., delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., at_most_once: bool = ..., durability: _Optional[_Union[_task_pb2.Durability, str]] = ..., namespace: _Optional[str] = ..., expires_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., trace_mode: _Optional[_Union[_task_pb2.TraceMode, str]] = ..., batch_id: _Optional[str] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., dependencies: _Optional[_Union[Dependencies, _Mapping]] = ..., limits: _Optional[_Iterable[_Union[_task_pb2.TaskLimit, _Mapping]]] = ..., unique_key: _Optional[str] = ..., on_unique_conflict: _Optional[_Union[_task_pb2.OnUniqueConflict, str]] = ..., reuse_result_within: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., fairness_key: _Optional[str] = ...) -> None: ...

class Dependencies(_message.Message):
    __slots__ = ("task_ids", "batch_indices", "on_parent_failure")
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    BATCH_INDICES_FIELD_NUMBER: _ClassVar[int]
    ON_PARENT_FAILURE_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    batch_indices: _containers.RepeatedScalarFieldContainer[int]
    on_parent_failure: _task_pb2.OnParentFailure
    def __init__(self, task_ids: _Optional[_Iterable[str]] = ..., batch_indices: _Optional[_Iterable[int]] = ..., on_parent_failure: _Optional[_Union[_task_pb2.OnParentFailure, str]] = ...) -> None: ...

class SubmitTaskResponse(_message.Message):
    __slots__ = ("task_id", "state", "revision", "duplicate", "durability", "resume_token")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    state: _task_pb2.TaskState
    revision: int
    duplicate: bool
    durability: _task_pb2.Durability
    resume_token: str
    def __init__(self, task_id: _Optional[str] = ..., state: _Optional[_Union[_task_pb2.TaskState, str]] = ..., revision: _Optional[int] = ..., duplicate: bool = ..., durability: _Optional[_Union[_task_pb2.Durability, str]] = ..., resume_token: _Optional[str] = ...) -> None: ...

class BatchSubmitTasksRequest(_message.Message):
    __slots__ = ("tasks", "batch_id")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[SubmitTaskRequest]
    batch_id: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[SubmitTaskRequest, _Mapping]]] = ..., batch_id: _Optional[str] = ...) -> None: ...

class BatchSubmitTasksResponse(_message.Message):
    __slots__ = ("batch_id", "task_ids", "revision", "durability", "resume_token", "duplicates")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    durability: _task_pb2.Durability
    resume_token: str
    duplicates: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, batch_id: _Optional[str] = ..., task_ids: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ..., durability: _Optional[_Union[_task_pb2.Durability, str]] = ..., resume_token: _Optional[str] = ..., duplicates: _Optional[_Iterable[bool]] = ...) -> None: ...

class SubmitTasksRequest(_message.Message):
    __slots__ = ("sequence", "task")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    task: SubmitTaskRequest
    def __init__(self, sequence: _Optional[int] = ..., task: _Optional[_Union[SubmitTaskRequest, _Mapping]] = ...) -> None: ...

class SubmitTasksResponse(_message.Message):
    __slots__ = ("sequence", "accepted", "rejected")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    accepted: SubmitTaskResponse
    rejected: Rejection
    def __init__(self, sequence: _Optional[int] = ..., accepted: _Optional[_Union[SubmitTaskResponse, _Mapping]] = ..., rejected: _Optional[_Union[Rejection, _Mapping]] = ...) -> None: ...

class Rejection(_message.Message):
    __slots__ = ("code", "reason", "message", "field", "retry_after", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    field: str
    retry_after: _duration_pb2.Duration
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., field: _Optional[str] = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RunTaskRequest(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: SubmitTaskRequest
    def __init__(self, task: _Optional[_Union[SubmitTaskRequest, _Mapping]] = ...) -> None: ...

class RunTaskResponse(_message.Message):
    __slots__ = ("accepted", "event", "task")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    accepted: SubmitTaskResponse
    event: _task_pb2.TaskEvent
    task: _task_pb2.Task
    def __init__(self, accepted: _Optional[_Union[SubmitTaskResponse, _Mapping]] = ..., event: _Optional[_Union[_task_pb2.TaskEvent, _Mapping]] = ..., task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ...) -> None: ...

class GetTaskRequest(_message.Message):
    __slots__ = ("task_id", "include_payload", "include_output")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    include_payload: bool
    include_output: bool
    def __init__(self, task_id: _Optional[str] = ..., include_payload: bool = ..., include_output: bool = ...) -> None: ...

class GetTaskResponse(_message.Message):
    __slots__ = ("task", "revision")
    TASK_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    task: _task_pb2.Task
    revision: int
    def __init__(self, task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class ExplainTaskRequest(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    def __init__(self, task_id: _Optional[str] = ...) -> None: ...

class ExplainTaskResponse(_message.Message):
    __slots__ = ("task_id", "state", "blockers", "position", "estimated_start", "estimate_basis", "revision")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BLOCKERS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_START_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_BASIS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    state: _task_pb2.TaskState
    blockers: _containers.RepeatedCompositeFieldContainer[Blocker]
    position: QueuePosition
    estimated_start: _timestamp_pb2.Timestamp
    estimate_basis: EstimateBasis
    revision: int
    def __init__(self, task_id: _Optional[str] = ..., state: _Optional[_Union[_task_pb2.TaskState, str]] = ..., blockers: _Optional[_Iterable[_Union[Blocker, _Mapping]]] = ..., position: _Optional[_Union[QueuePosition, _Mapping]] = ..., estimated_start: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., estimate_basis: _Optional[_Union[EstimateBasis, str]] = ..., revision: _Optional[int] = ...) -> None: ...

class Blocker(_message.Message):
    __slots__ = ("delayed_until", "retries_at", "parents", "paused_pool", "missing_pool", "handler_without_worker", "pool_slots", "namespace_slots", "trial", "draining", "limit", "low_memory")
    DELAYED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    RETRIES_AT_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_POOL_FIELD_NUMBER: _ClassVar[int]
    MISSING_POOL_FIELD_NUMBER: _ClassVar[int]
    HANDLER_WITHOUT_WORKER_FIELD_NUMBER: _ClassVar[int]
    POOL_SLOTS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    TRIAL_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    LOW_MEMORY_FIELD_NUMBER: _ClassVar[int]
    delayed_until: _timestamp_pb2.Timestamp
    retries_at: _timestamp_pb2.Timestamp
    parents: UnfinishedParents
    paused_pool: str
    missing_pool: str
    handler_without_worker: str
    pool_slots: TakenSlots
    namespace_slots: TakenSlots
    trial: bool
    draining: bool
    limit: LimitBlocker
    low_memory: bool
    def __init__(self, delayed_until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., retries_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., parents: _Optional[_Union[UnfinishedParents, _Mapping]] = ..., paused_pool: _Optional[str] = ..., missing_pool: _Optional[str] = ..., handler_without_worker: _Optional[str] = ..., pool_slots: _Optional[_Union[TakenSlots, _Mapping]] = ..., namespace_slots: _Optional[_Union[TakenSlots, _Mapping]] = ..., trial: bool = ..., draining: bool = ..., limit: _Optional[_Union[LimitBlocker, _Mapping]] = ..., low_memory: bool = ...) -> None: ...

class LimitBlocker(_message.Message):
    __slots__ = ("hold", "before", "at_least")
    HOLD_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    hold: _task_pb2.LimitHold
    before: int
    at_least: bool
    def __init__(self, hold: _Optional[_Union[_task_pb2.LimitHold, _Mapping]] = ..., before: _Optional[int] = ..., at_least: bool = ...) -> None: ...

class UnfinishedParents(_message.Message):
    __slots__ = ("count", "task_ids")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    count: int
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, count: _Optional[int] = ..., task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class TakenSlots(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: int
    def __init__(self, slots: _Optional[int] = ...) -> None: ...

class QueuePosition(_message.Message):
    __slots__ = ("more_urgent", "before", "at_least", "other_namespaces", "dispatched", "other_fairness_keys")
    MORE_URGENT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    OTHER_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    DISPATCHED_FIELD_NUMBER: _ClassVar[int]
    OTHER_FAIRNESS_KEYS_FIELD_NUMBER: _ClassVar[int]
    more_urgent: int
    before: int
    at_least: bool
    other_namespaces: int
    dispatched: bool
    other_fairness_keys: int
    def __init__(self, more_urgent: _Optional[int] = ..., before: _Optional[int] = ..., at_least: bool = ..., other_namespaces: _Optional[int] = ..., dispatched: bool = ..., other_fairness_keys: _Optional[int] = ...) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token", "include_results")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_RESULTS_FIELD_NUMBER: _ClassVar[int]
    filter: _task_pb2.TaskFilter
    page_size: int
    page_token: str
    include_results: bool
    def __init__(self, filter: _Optional[_Union[_task_pb2.TaskFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., include_results: bool = ...) -> None: ...

class ListTasksResponse(_message.Message):
    __slots__ = ("tasks", "next_page_token", "revision", "resume_token")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[_task_pb2.Task]
    next_page_token: str
    revision: int
    resume_token: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[_task_pb2.Task, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ..., resume_token: _Optional[str] = ...) -> None: ...

class ListFailureGroupsRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: _task_pb2.TaskFilter
    def __init__(self, filter: _Optional[_Union[_task_pb2.TaskFilter, _Mapping]] = ...) -> None: ...

class ListFailureGroupsResponse(_message.Message):
    __slots__ = ("groups", "tasks", "at_least", "revision")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[_task_pb2.FailureGroup]
    tasks: int
    at_least: bool
    revision: int
    def __init__(self, groups: _Optional[_Iterable[_Union[_task_pb2.FailureGroup, _Mapping]]] = ..., tasks: _Optional[int] = ..., at_least: bool = ..., revision: _Optional[int] = ...) -> None: ...

class ListLimitsRequest(_message.Message):
    __slots__ = ("namespace", "only_waiting", "page_size", "page_token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ONLY_WAITING_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    only_waiting: bool
    page_size: int
    page_token: str
    def __init__(self, namespace: _Optional[str] = ..., only_waiting: bool = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListLimitsResponse(_message.Message):
    __slots__ = ("limits", "next_page_token", "revision")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    limits: _containers.RepeatedCompositeFieldContainer[Limit]
    next_page_token: str
    revision: int
    def __init__(self, limits: _Optional[_Iterable[_Union[Limit, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("namespace", "name", "key", "max_running", "rate", "unfinished", "taken", "waiting", "tokens", "next_token_at")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEXT_TOKEN_AT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    key: str
    max_running: int
    rate: _task_pb2.StartRate
    unfinished: int
    taken: int
    waiting: int
    tokens: int
    next_token_at: _timestamp_pb2.Timestamp
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., key: _Optional[str] = ..., max_running: _Optional[int] = ..., rate: _Optional[_Union[_task_pb2.StartRate, _Mapping]] = ..., unfinished: _Optional[int] = ..., taken: _Optional[int] = ..., waiting: _Optional[int] = ..., tokens: _Optional[int] = ..., next_token_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WaitTaskRequest(_message.Message):
    __slots__ = ("task_id", "timeout")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    timeout: _duration_pb2.Duration
    def __init__(self, task_id: _Optional[str] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WaitTaskResponse(_message.Message):
    __slots__ = ("task", "finished", "revision")
    TASK_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    task: _task_pb2.Task
    finished: bool
    revision: int
    def __init__(self, task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ..., finished: bool = ..., revision: _Optional[int] = ...) -> None: ...

class WatchTasksRequest(_message.Message):
    __slots__ = ("filter", "resume_token", "include_snapshot", "progress_interval")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    filter: _task_pb2.TaskFilter
    resume_token: str
    include_snapshot: bool
    progress_interval: _duration_pb2.Duration
    def __init__(self, filter: _Optional[_Union[_task_pb2.TaskFilter, _Mapping]] = ..., resume_token: _Optional[str] = ..., include_snapshot: bool = ..., progress_interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchTasksResponse(_message.Message):
    __slots__ = ("snapshot_entry", "snapshot_complete", "event", "progress")
    SNAPSHOT_ENTRY_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    snapshot_entry: _task_pb2.Task
    snapshot_complete: SnapshotComplete
    event: _task_pb2.TaskEvent
    progress: WatchProgress
    def __init__(self, snapshot_entry: _Optional[_Union[_task_pb2.Task, _Mapping]] = ..., snapshot_complete: _Optional[_Union[SnapshotComplete, _Mapping]] = ..., event: _Optional[_Union[_task_pb2.TaskEvent, _Mapping]] = ..., progress: _Optional[_Union[WatchProgress, _Mapping]] = ...) -> None: ...

class SnapshotComplete(_message.Message):
    __slots__ = ("revision", "resume_token")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    revision: int
    resume_token: str
    def __init__(self, revision: _Optional[int] = ..., resume_token: _Optional[str] = ...) -> None: ...

class WatchProgress(_message.Message):
    __slots__ = ("revision", "resume_token")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    revision: int
    resume_token: str
    def __init__(self, revision: _Optional[int] = ..., resume_token: _Optional[str] = ...) -> None: ...

class CancelTaskRequest(_message.Message):
    __slots__ = ("task_id", "reason", "mode", "grace")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    reason: str
    mode: _task_pb2.CancelMode
    grace: _duration_pb2.Duration
    def __init__(self, task_id: _Optional[str] = ..., reason: _Optional[str] = ..., mode: _Optional[_Union[_task_pb2.CancelMode, str]] = ..., grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CancelTaskResponse(_message.Message):
    __slots__ = ("state", "revision")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    state: _task_pb2.TaskState
    revision: int
    def __init__(self, state: _Optional[_Union[_task_pb2.TaskState, str]] = ..., revision: _Optional[int] = ...) -> None: ...

class UpdateTaskRequest(_message.Message):
    __slots__ = ("task_id", "update")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    update: TaskUpdate
    def __init__(self, task_id: _Optional[str] = ..., update: _Optional[_Union[TaskUpdate, _Mapping]] = ...) -> None: ...

class TaskUpdate(_message.Message):
    __slots__ = ("priority", "timeout", "labels", "remove_labels", "delay", "expires_after")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_LABELS_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AFTER_FIELD_NUMBER: _ClassVar[int]
    priority: _task_pb2.Priority
    timeout: _duration_pb2.Duration
    labels: _containers.ScalarMap[str, str]
    remove_labels: _containers.RepeatedScalarFieldContainer[str]
    delay: _duration_pb2.Duration
    expires_after: _duration_pb2.Duration
    def __init__(self, priority: _Optional[_Union[_task_pb2.Priority, str]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., remove_labels: _Optional[_Iterable[str]] = ..., delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expires_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class UpdateTaskResponse(_message.Message):
    __slots__ = ("state", "revision")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    state: _task_pb2.TaskState
    revision: int
    def __init__(self, state: _Optional[_Union[_task_pb2.TaskState, str]] = ..., revision: _Optional[int] = ...) -> None: ...

class RetryTaskRequest(_message.Message):
    __slots__ = ("task_id", "request_id", "payload", "priority")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    request_id: str
    payload: _task_pb2.Payload
    priority: _task_pb2.Priority
    def __init__(self, task_id: _Optional[str] = ..., request_id: _Optional[str] = ..., payload: _Optional[_Union[_task_pb2.Payload, _Mapping]] = ..., priority: _Optional[_Union[_task_pb2.Priority, str]] = ...) -> None: ...

class RetryTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: SubmitTaskResponse
    def __init__(self, task: _Optional[_Union[SubmitTaskResponse, _Mapping]] = ...) -> None: ...

class CancelTasksRequest(_message.Message):
    __slots__ = ("filter", "reason", "mode", "grace", "validate_only")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    filter: _task_pb2.TaskFilter
    reason: str
    mode: _task_pb2.CancelMode
    grace: _duration_pb2.Duration
    validate_only: bool
    def __init__(self, filter: _Optional[_Union[_task_pb2.TaskFilter, _Mapping]] = ..., reason: _Optional[str] = ..., mode: _Optional[_Union[_task_pb2.CancelMode, str]] = ..., grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., validate_only: bool = ...) -> None: ...

class CancelTasksResponse(_message.Message):
    __slots__ = ("matched", "cancelled", "stopping", "skipped")
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    STOPPING_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    matched: int
    cancelled: int
    stopping: int
    skipped: int
    def __init__(self, matched: _Optional[int] = ..., cancelled: _Optional[int] = ..., stopping: _Optional[int] = ..., skipped: _Optional[int] = ...) -> None: ...

class UpdateTasksRequest(_message.Message):
    __slots__ = ("filter", "update", "validate_only")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    filter: _task_pb2.TaskFilter
    update: TaskUpdate
    validate_only: bool
    def __init__(self, filter: _Optional[_Union[_task_pb2.TaskFilter, _Mapping]] = ..., update: _Optional[_Union[TaskUpdate, _Mapping]] = ..., validate_only: bool = ...) -> None: ...

class UpdateTasksResponse(_message.Message):
    __slots__ = ("matched", "updated", "skipped")
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    matched: int
    updated: int
    skipped: int
    def __init__(self, matched: _Optional[int] = ..., updated: _Optional[int] = ..., skipped: _Optional[int] = ...) -> None: ...

class RetryTasksRequest(_message.Message):
    __slots__ = ("filter", "request_id", "payload", "priority", "validate_only")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    filter: _task_pb2.TaskFilter
    request_id: str
    payload: _task_pb2.Payload
    priority: _task_pb2.Priority
    validate_only: bool
    def __init__(self, filter: _Optional[_Union[_task_pb2.TaskFilter, _Mapping]] = ..., request_id: _Optional[str] = ..., payload: _Optional[_Union[_task_pb2.Payload, _Mapping]] = ..., priority: _Optional[_Union[_task_pb2.Priority, str]] = ..., validate_only: bool = ...) -> None: ...

class RetryTasksResponse(_message.Message):
    __slots__ = ("matched", "retried", "skipped", "task_ids")
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    matched: int
    retried: int
    skipped: int
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, matched: _Optional[int] = ..., retried: _Optional[int] = ..., skipped: _Optional[int] = ..., task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteTasksRequest(_message.Message):
    __slots__ = ("filter", "validate_only")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    filter: _task_pb2.TaskFilter
    validate_only: bool
    def __init__(self, filter: _Optional[_Union[_task_pb2.TaskFilter, _Mapping]] = ..., validate_only: bool = ...) -> None: ...

class DeleteTasksResponse(_message.Message):
    __slots__ = ("deleted", "revision")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    revision: int
    def __init__(self, deleted: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class ReadOutputRequest(_message.Message):
    __slots__ = ("task_id", "stream", "offset", "follow", "attempt")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    stream: _task_pb2.OutputStream
    offset: int
    follow: bool
    attempt: int
    def __init__(self, task_id: _Optional[str] = ..., stream: _Optional[_Union[_task_pb2.OutputStream, str]] = ..., offset: _Optional[int] = ..., follow: bool = ..., attempt: _Optional[int] = ...) -> None: ...

class ReadOutputResponse(_message.Message):
    __slots__ = ("data", "offset", "skipped", "attempt")
    DATA_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    offset: int
    skipped: int
    attempt: int
    def __init__(self, data: _Optional[bytes] = ..., offset: _Optional[int] = ..., skipped: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...
