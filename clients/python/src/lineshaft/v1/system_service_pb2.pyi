from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Limits(_message.Message):
    __slots__ = ("payload_bytes", "result_bytes", "batch_tasks", "labels", "label_key_bytes", "label_value_bytes", "display_name_bytes", "name_bytes", "args", "arg_bytes", "page_size", "filter_values", "timeout", "delay", "attempts", "grace", "wait", "message_bytes", "output_bytes", "retained_tasks", "retained_age", "remembered_request_ids", "remembered_request_id_age", "request_memory_bytes", "payload_memory_bytes", "retained_bytes")
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BATCH_TASKS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LABEL_KEY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LABEL_VALUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    NAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    ARG_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    FILTER_VALUES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RETAINED_TASKS_FIELD_NUMBER: _ClassVar[int]
    RETAINED_AGE_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_REQUEST_ID_AGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RETAINED_BYTES_FIELD_NUMBER: _ClassVar[int]
    payload_bytes: int
    result_bytes: int
    batch_tasks: int
    labels: int
    label_key_bytes: int
    label_value_bytes: int
    display_name_bytes: int
    name_bytes: int
    args: int
    arg_bytes: int
    page_size: int
    filter_values: int
    timeout: _duration_pb2.Duration
    delay: _duration_pb2.Duration
    attempts: int
    grace: _duration_pb2.Duration
    wait: _duration_pb2.Duration
    message_bytes: int
    output_bytes: int
    retained_tasks: int
    retained_age: _duration_pb2.Duration
    remembered_request_ids: int
    remembered_request_id_age: _duration_pb2.Duration
    request_memory_bytes: int
    payload_memory_bytes: int
    retained_bytes: int
    def __init__(self, payload_bytes: _Optional[int] = ..., result_bytes: _Optional[int] = ..., batch_tasks: _Optional[int] = ..., labels: _Optional[int] = ..., label_key_bytes: _Optional[int] = ..., label_value_bytes: _Optional[int] = ..., display_name_bytes: _Optional[int] = ..., name_bytes: _Optional[int] = ..., args: _Optional[int] = ..., arg_bytes: _Optional[int] = ..., page_size: _Optional[int] = ..., filter_values: _Optional[int] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., attempts: _Optional[int] = ..., grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., message_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., retained_tasks: _Optional[int] = ..., retained_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., remembered_request_ids: _Optional[int] = ..., remembered_request_id_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., request_memory_bytes: _Optional[int] = ..., payload_memory_bytes: _Optional[int] = ..., retained_bytes: _Optional[int] = ...) -> None: ...

class ComponentHealth(_message.Message):
    __slots__ = ("name", "healthy", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    healthy: bool
    detail: str
    def __init__(self, name: _Optional[str] = ..., healthy: bool = ..., detail: _Optional[str] = ...) -> None: ...

class SystemHealth(_message.Message):
    __slots__ = ("cpu_percent", "memory_used_bytes", "memory_total_bytes", "memory_percent", "process_memory_bytes", "process_threads", "process_cpu_percent", "cores")
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PERCENT_FIELD_NUMBER: _ClassVar[int]
    PROCESS_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_THREADS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    cpu_percent: float
    memory_used_bytes: int
    memory_total_bytes: int
    memory_percent: float
    process_memory_bytes: int
    process_threads: int
    process_cpu_percent: float
    cores: int
    def __init__(self, cpu_percent: _Optional[float] = ..., memory_used_bytes: _Optional[int] = ..., memory_total_bytes: _Optional[int] = ..., memory_percent: _Optional[float] = ..., process_memory_bytes: _Optional[int] = ..., process_threads: _Optional[int] = ..., process_cpu_percent: _Optional[float] = ..., cores: _Optional[int] = ...) -> None: ...

class Caller(_message.Message):
    __slots__ = ("name", "methods")
    NAME_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    name: str
    methods: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., methods: _Optional[_Iterable[str]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "instance_id", "started_at", "uptime", "limits", "capabilities", "store", "revision", "oldest_revision", "oldest_resume_token", "caller", "trace_url")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    OLDEST_REVISION_FIELD_NUMBER: _ClassVar[int]
    OLDEST_RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    TRACE_URL_FIELD_NUMBER: _ClassVar[int]
    version: str
    instance_id: str
    started_at: _timestamp_pb2.Timestamp
    uptime: _duration_pb2.Duration
    limits: Limits
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    store: str
    revision: int
    oldest_revision: int
    oldest_resume_token: str
    caller: Caller
    trace_url: str
    def __init__(self, version: _Optional[str] = ..., instance_id: _Optional[str] = ..., started_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., uptime: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., capabilities: _Optional[_Iterable[str]] = ..., store: _Optional[str] = ..., revision: _Optional[int] = ..., oldest_revision: _Optional[int] = ..., oldest_resume_token: _Optional[str] = ..., caller: _Optional[_Union[Caller, _Mapping]] = ..., trace_url: _Optional[str] = ...) -> None: ...

class GetSystemHealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSystemHealthResponse(_message.Message):
    __slots__ = ("system", "components", "draining", "cleaned_files")
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    CLEANED_FILES_FIELD_NUMBER: _ClassVar[int]
    system: SystemHealth
    components: _containers.RepeatedCompositeFieldContainer[ComponentHealth]
    draining: bool
    cleaned_files: int
    def __init__(self, system: _Optional[_Union[SystemHealth, _Mapping]] = ..., components: _Optional[_Iterable[_Union[ComponentHealth, _Mapping]]] = ..., draining: bool = ..., cleaned_files: _Optional[int] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: _duration_pb2.Duration
    def __init__(self, limit: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("running",)
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    running: int
    def __init__(self, running: _Optional[int] = ...) -> None: ...
