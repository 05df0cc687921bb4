"""Reports of a worker that wait to be sent. Those that gather while one message is on its way form the next one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from lineshaft.v1 import task_pb2, worker_service_pb2
from lineshaft.v1.worker_service_pb2 import WorkerMessage

MESSAGES_MAX = 5_000
BYTES_MAX = 4 << 20
"""Of results and output in one message; the server accepts 16 MiB."""
OUTPUT_BYTES_MAX = 8 << 20
"""Output that is kept while it cannot be sent. Beyond it, output is dropped."""
OUTPUT_CHUNK = 32 << 10
RESULT_CHUNK = 64 << 10

_STREAMS = {"stdout": task_pb2.OUTPUT_STREAM_STDOUT, "stderr": task_pb2.OUTPUT_STREAM_STDERR}


class Outbox:
    """A queue of reports for any number of threads, read by the stream of the moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._some = threading.Condition(self._lock)
        self._queue: deque[WorkerMessage] = deque()
        self._transfers: deque[tuple[str, bytes, int]] = deque()  # results that are sent in chunks, with the bytes sent
        self._output_bytes = 0
        self._reading = 0  # number of the stream that reads
        self._finishing = False
        self._is_waiting = False

    def push(self, *messages: WorkerMessage) -> None:
        with self._lock:
            self._queue.extend(messages)
            if self._is_waiting:
                self._some.notify()

    def transfer(self, token: str, data: bytes) -> None:
        """Sends a result in chunks, which other reports may pass."""
        with self._lock:
            if all(token != other for other, _, _ in self._transfers):
                self._transfers.append((token, data, 0))
            if self._is_waiting:
                self._some.notify()

    def output(self, token: str, stream: str, data: bytes) -> None:
        number = _STREAMS[stream]
        with self._lock:
            if self._output_bytes + len(data) > OUTPUT_BYTES_MAX:
                return
            self._output_bytes += len(data)
            last = self._queue[-1].output if self._queue and self._queue[-1].HasField("output") else None
            if (
                last is not None
                and last.token == token
                and last.stream == number
                and len(last.data) + len(data) <= OUTPUT_CHUNK
            ):
                last.data += data
                return
            for start in range(0, len(data), OUTPUT_CHUNK):
                chunk = worker_service_pb2.AttemptOutput(
                    token=token, stream=number, data=data[start : start + OUTPUT_CHUNK]
                )
                self._queue.append(WorkerMessage(output=chunk))
            if self._is_waiting:
                self._some.notify()

    def progress(self, token: str, fraction: float, note: str) -> None:
        """Replaces the last report of progress, if it has not left yet."""
        with self._lock:
            last = self._queue[-1].progress if self._queue and self._queue[-1].HasField("progress") else None
            if last is not None and last.token == token:
                last.fraction, last.note = fraction, note
                return
        progress = worker_service_pb2.AttemptProgress(token=token, fraction=fraction, note=note)
        self.push(WorkerMessage(progress=progress))

    def read(self, interval: Callable[[], float], check: Callable[[], bool]) -> Iterator[list[WorkerMessage]]:
        """Yields what is to be sent, at least once in each interval, until `close` or `finish`, or `check` returns False."""
        with self._lock:
            self._reading += 1
            mine = self._reading
        sent = time.monotonic()
        while True:
            with self._lock:
                while not (self._queue or self._transfers) and self._reading == mine and not self._finishing:
                    left = sent + interval() - time.monotonic()
                    if left <= 0 or not check():
                        break
                    self._is_waiting = True
                    self._some.wait(min(left, 1.0))
                    self._is_waiting = False
                if self._reading != mine or not check():
                    return
                messages = self._take()
                if not messages and self._finishing:
                    return
            sent = time.monotonic()
            yield messages or [WorkerMessage(heartbeat=worker_service_pb2.Heartbeat())]

    def _take(self) -> list[WorkerMessage]:
        queue = self._queue
        messages: list[WorkerMessage] = []
        size = 0
        while queue and len(messages) < MESSAGES_MAX and size < BYTES_MAX:
            message = queue.popleft()
            messages.append(message)
            kind = message.WhichOneof("kind")
            if kind == "output":
                self._output_bytes -= len(message.output.data)
                size += len(message.output.data)
            elif kind == "finished":
                size += len(message.finished.result.data)
        if self._transfers:
            token, data, offset = self._transfers.popleft()
            end = min(offset + RESULT_CHUNK, len(data))
            chunk = worker_service_pb2.AttemptChunk(token=token, offset=offset, data=data[offset:end])
            messages.append(WorkerMessage(chunk=chunk))
            if end < len(data):
                self._transfers.append((token, data, end))
        return messages

    def finish(self) -> None:
        """The stream ends when everything is sent."""
        with self._lock:
            self._finishing = True
            self._some.notify_all()

    def close(self) -> None:
        """The stream has ended. What the next one repeats is dropped; output and progress are kept."""
        with self._lock:
            self._reading += 1
            self._transfers.clear()
            self._keep(_is_kept)
            self._some.notify_all()

    def drop(self, tokens: Iterable[str]) -> None:
        """Drops the reports of attempts that are not the worker's any more."""
        gone = set(tokens)
        with self._lock:
            self._keep(lambda message: _token(message) not in gone)

    def begin(self, messages: Iterable[WorkerMessage]) -> None:
        """A new stream begins: after the output and progress that wait, it sends these reports."""
        with self._lock:
            self._finishing = False
            self._keep(_is_kept)
            self._queue.extend(messages)
            self._some.notify_all()

    def _keep(self, wanted: Callable[[WorkerMessage], bool]) -> None:
        kept = deque(message for message in self._queue if wanted(message))
        self._queue = kept
        self._output_bytes = sum(len(message.output.data) for message in kept if message.HasField("output"))


def _is_kept(message: WorkerMessage) -> bool:
    return message.WhichOneof("kind") in ("output", "progress")


def _token(message: WorkerMessage) -> str:
    kind = message.WhichOneof("kind")
    return str(getattr(getattr(message, kind), "token", "")) if kind else ""
