"""Large payloads and results of a worker, which travel in chunks among its other messages."""

from __future__ import annotations

from lineshaft import errors
from lineshaft.v1 import task_pb2, worker_service_pb2
from lineshaft.v1.worker_service_pb2 import AttemptAssigned, AttemptFinished

INLINE_BYTES_MAX = 1 << 20
"""Of a result that is sent as a whole."""
WHOLE_RESULT_BYTES_MAX = 15 << 20
"""Of a result for a server that receives no chunks."""


class IncomingPayloads:
    """Attempts whose payload has not arrived completely on the stream of the moment."""

    def __init__(self) -> None:
        self._attempts: dict[str, tuple[AttemptAssigned, bytearray]] = {}

    def clear(self) -> None:
        self._attempts.clear()

    def begin(self, assigned: AttemptAssigned) -> None:
        self._attempts[assigned.token] = (assigned, bytearray())

    def add(self, chunk: worker_service_pb2.AttemptChunk) -> AttemptAssigned | None:
        """Adds a part; returns the attempt if it was the last one. A part for an attempt that was cancelled is ignored."""
        if (found := self._attempts.get(chunk.token)) is None:
            return None
        assigned, data = found
        end = len(data) + len(chunk.data)
        if chunk.offset != len(data) or end > assigned.payload_bytes:
            raise errors.InternalError(
                f"the server sent bytes {chunk.offset} to {end} of a payload after {len(data)} bytes"
            )
        data += chunk.data
        if end < assigned.payload_bytes:
            return None
        del self._attempts[chunk.token]
        assigned.payload.data = bytes(data)
        return assigned

    def remove(self, token: str) -> bool:
        """Whether the payload of the attempt had not arrived completely."""
        return self._attempts.pop(token, None) is not None


def checked(finished: AttemptFinished, chunked_bytes_max: int) -> AttemptFinished:
    """The end of an attempt, or its failure if the result is too large. The limit is 0 if the server receives no chunks."""
    bytes_max = chunked_bytes_max or WHOLE_RESULT_BYTES_MAX
    size = len(finished.result.data)
    if size <= bytes_max:
        return finished
    failure = task_pb2.Failure(
        reason=task_pb2.FAILURE_REASON_RESULT_TOO_LARGE,
        message=f"result has {size} bytes, at most {bytes_max} are allowed",
    )
    return AttemptFinished(token=finished.token, failure=failure)


def announced(finished: AttemptFinished, chunked_bytes_max: int) -> AttemptFinished:
    """The report of an end. The bytes of a large result follow when the server requests them."""
    size = len(finished.result.data)
    if size <= INLINE_BYTES_MAX or not chunked_bytes_max:
        return finished
    report = AttemptFinished(token=finished.token, result_bytes=size)
    report.result.content_type = finished.result.content_type
    if finished.HasField("cpu_time"):
        report.cpu_time.CopyFrom(finished.cpu_time)
    if finished.HasField("peak_memory_bytes"):
        report.peak_memory_bytes = finished.peak_memory_bytes
    return report
