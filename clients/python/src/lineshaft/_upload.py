"""Uploads the files that attempts of a worker leave."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, BinaryIO

import grpc

from lineshaft import errors
from lineshaft._connection import Backoff
from lineshaft.v1 import task_pb2
from lineshaft.v1.worker_service_pb2 import UploadArtifactRequest, UploadArtifactResponse

if TYPE_CHECKING:
    from lineshaft.client import Client

UPLOAD_BYTES = 256 << 10
"""Of an artifact in one message."""
PROGRESS_PARTS = 4
"""A server that reads nothing gets fewer: it has received something when as many were sent."""
MEMORY_BYTES = 1 << 20
"""Of a content that can be read once; more is kept in a temporary file."""


def upload(
    client: Client,
    task_id: str,
    token: str,
    name: str,
    content: bytes | str | os.PathLike[str] | BinaryIO,
    content_type: str,
) -> task_pb2.Artifact:
    """Stores a file that an attempt of a worker leaves.

    Begins anew when the connection breaks, and gives up when it makes no progress for the timeout of the client.
    """
    first = UploadArtifactRequest(task_id=task_id, token=token, name=name, content_type=content_type)
    connection = client._connection
    send = connection.client_stream("WorkerService/UploadArtifact", UploadArtifactResponse)
    backoff, failing_since = Backoff(), 0.0
    with contextlib.ExitStack() as opened:
        if isinstance(content, (bytes, bytearray)):
            file: BinaryIO = io.BytesIO(content)
        elif isinstance(content, (str, os.PathLike)):
            file = opened.enter_context(open(content, "rb"))
        else:
            file = content
        parts: _Parts
        if _is_seekable(file):
            parts = _Seekable(file)
        else:
            parts = _Spooled(file, opened.enter_context(tempfile.SpooledTemporaryFile(MEMORY_BYTES)))
        while True:
            forks, parts.sent = connection.forks, 0
            try:
                return send(parts.requests(first), metadata=connection.metadata()).artifact
            except grpc.RpcError as error:
                met = errors.from_rpc_error(error)
            if parts.failure is not None:
                raise parts.failure
            if not parts.can_repeat:
                raise met
            if connection.was_forked(met, forks):
                continue
            now, pause = time.monotonic(), backoff.pause(met)
            if not failing_since or parts.sent >= PROGRESS_PARTS:
                failing_since = now
            if pause is None or now + pause >= failing_since + client.timeout:
                raise met
            connection.warn(met)
            time.sleep(pause)


def _is_seekable(file: BinaryIO) -> bool:
    seekable = getattr(file, "seekable", None)
    return seekable is not None and bool(seekable())


class _Parts:
    """A content that may have to be sent again."""

    def __init__(self) -> None:
        self.sent = 0
        """Number of parts in the present try."""
        self.failure: Exception | None = None
        """Why the content could not be read."""
        self.can_repeat = True
        # The thread of a try that has failed may still wait for the content.
        self._lock = threading.Lock()

    def requests(self, first: UploadArtifactRequest) -> Iterator[bytes]:
        yield first.SerializeToString()
        at = 0
        while True:
            try:
                with self._lock:
                    data = self.read(at)
            except Exception as error:
                self.failure = error
                raise
            if not data:
                return
            at += len(data)
            yield UploadArtifactRequest(data=data).SerializeToString()
            # It is sent: gRPC asks for the next one.
            self.sent += 1

    def read(self, at: int) -> bytes:
        """A part from this place on; empty at the end."""
        raise NotImplementedError


class _Seekable(_Parts):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._start = file.tell()

    def read(self, at: int) -> bytes:
        self._file.seek(self._start + at)
        return self._file.read(UPLOAD_BYTES)


class _Spooled(_Parts):
    """A content that can be read once, such as a pipe: what was read is kept."""

    def __init__(self, file: BinaryIO, kept: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._kept = kept

    def read(self, at: int) -> bytes:
        self._kept.seek(at)
        data = self._kept.read(UPLOAD_BYTES)
        if not data:
            data = self._file.read(UPLOAD_BYTES)
            if self.can_repeat:
                try:
                    self._kept.write(data)
                except OSError:  # There is no room for it. The upload goes on, but cannot begin anew.
                    self.can_repeat = False
        return data
