"""Payloads and results: bytes as they are, everything else as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lineshaft.v1 import task_pb2

JSON = "application/json"
BYTES = "application/octet-stream"
TEXT = "text/plain"  # what a program wrote that the server runs

_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


@dataclass(frozen=True)
class Payload:
    """Bytes with a content type of your own. A result with another type than JSON, text or bytes arrives like this."""

    data: bytes
    content_type: str


def text(value: str) -> str:
    """A text as a message can carry it: lone surrogates, such as those of file names that are not UTF-8, become `\\udcff`."""
    return value.encode(errors="backslashreplace").decode()


class _Missing:
    """The type of `MISSING`."""

    def __repr__(self) -> str:
        return "no payload"


MISSING = _Missing()
"""No payload at all; `None` is the JSON value `null`."""


def encode(value: Any) -> tuple[bytes, str]:
    """The bytes and the content type of a value."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), BYTES
    if isinstance(value, Payload):
        return value.data, value.content_type
    try:
        return _to_json(value).encode(), JSON
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError  # Others take other arguments.
        raise kind(f"cannot encode the value as JSON: {error}; pass JSON values, bytes or a Payload") from None


def decode(data: bytes, content_type: str) -> Any:
    """The value of a payload or result; None if it has no content type, as an absent one."""
    if content_type == JSON:
        return json.loads(data)
    if content_type == BYTES:
        return data
    if content_type == TEXT:
        return data.decode(errors="replace")
    return Payload(data, content_type) if content_type else None


def decode_any(data: bytes, content_type: str) -> Any:
    """The same, but as a `Payload` if it is not the JSON that it should be."""
    try:
        return decode(data, content_type)
    except (ValueError, RecursionError):
        return Payload(data, content_type)


def message(value: Any) -> task_pb2.Payload | None:
    """The protobuf message of a value; None for `MISSING`."""
    if value is MISSING:
        return None
    data, content_type = encode(value)
    return task_pb2.Payload(data=data, content_type=content_type)
