from google.protobuf import duration_pb2 as _duration_pb2
from lineshaft.v1 import task_pb2 as _task_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Handler(_message.Message):
    __slots__ = ("name", "runner", "description", "payload_description", "pool", "allowed_pools", "timeout", "retry", "arg_pattern", "grace", "source", "payload_schema", "module_sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUNNER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_POOLS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    ARG_PATTERN_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODULE_SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    runner: str
    description: str
    payload_description: str
    pool: str
    allowed_pools: _containers.RepeatedScalarFieldContainer[str]
    timeout: _duration_pb2.Duration
    retry: _task_pb2.RetryPolicy
    arg_pattern: str
    grace: _duration_pb2.Duration
    source: str
    payload_schema: str
    module_sha256: str
    def __init__(self, name: _Optional[str] = ..., runner: _Optional[str] = ..., description: _Optional[str] = ..., payload_description: _Optional[str] = ..., pool: _Optional[str] = ..., allowed_pools: _Optional[_Iterable[str]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., retry: _Optional[_Union[_task_pb2.RetryPolicy, _Mapping]] = ..., arg_pattern: _Optional[str] = ..., grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., source: _Optional[str] = ..., payload_schema: _Optional[str] = ..., module_sha256: _Optional[str] = ...) -> None: ...

class ListHandlersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListHandlersResponse(_message.Message):
    __slots__ = ("handlers",)
    HANDLERS_FIELD_NUMBER: _ClassVar[int]
    handlers: _containers.RepeatedCompositeFieldContainer[Handler]
    def __init__(self, handlers: _Optional[_Iterable[_Union[Handler, _Mapping]]] = ...) -> None: ...

class GetHandlerRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetHandlerResponse(_message.Message):
    __slots__ = ("handler",)
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    handler: Handler
    def __init__(self, handler: _Optional[_Union[Handler, _Mapping]] = ...) -> None: ...

class WasmHandler(_message.Message):
    __slots__ = ("name", "module_bytes", "description", "pool", "timeout", "argv", "arg_pattern", "content_type", "memory_bytes", "clock", "payload_schema")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODULE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ARG_PATTERN_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    name: str
    module_bytes: int
    description: str
    pool: str
    timeout: _duration_pb2.Duration
    argv: _containers.RepeatedScalarFieldContainer[str]
    arg_pattern: str
    content_type: str
    memory_bytes: int
    clock: bool
    payload_schema: str
    def __init__(self, name: _Optional[str] = ..., module_bytes: _Optional[int] = ..., description: _Optional[str] = ..., pool: _Optional[str] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., argv: _Optional[_Iterable[str]] = ..., arg_pattern: _Optional[str] = ..., content_type: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., clock: bool = ..., payload_schema: _Optional[str] = ...) -> None: ...

class PutHandlerRequest(_message.Message):
    __slots__ = ("handler", "module")
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    MODULE_FIELD_NUMBER: _ClassVar[int]
    handler: WasmHandler
    module: bytes
    def __init__(self, handler: _Optional[_Union[WasmHandler, _Mapping]] = ..., module: _Optional[bytes] = ...) -> None: ...

class PutHandlerResponse(_message.Message):
    __slots__ = ("handler",)
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    handler: Handler
    def __init__(self, handler: _Optional[_Union[Handler, _Mapping]] = ...) -> None: ...

class DeleteHandlerRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteHandlerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
