"""A server that speaks WorkerService as a test tells it, for what the real server does only by chance."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from lineshaft import Worker
from lineshaft.v1.task_pb2 import Payload
from lineshaft.v1.worker_service_pb2 import (
    AttemptAssigned,
    AttemptCancel,
    AttemptChunk,
    AttemptsSettled,
    ResultRequested,
    ServerMessage,
    WorkerHello,
    WorkerMessage,
    WorkerWelcome,
    WorkRequest,
    WorkResponse,
)

WAIT_SECONDS = 10


class Stream:
    """One stream of a worker, from the server's side."""

    def __init__(self, hello: WorkerHello, messages: Iterator[WorkRequest], context: grpc.ServicerContext) -> None:
        self.hello = hello
        self._context = context
        self._out: queue.SimpleQueue[WorkResponse | None] = queue.SimpleQueue()
        self._in: queue.SimpleQueue[WorkerMessage | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(messages,), daemon=True).start()

    def _read(self, requests: Iterator[WorkRequest]) -> None:
        with contextlib.suppress(Exception):  # when the stream breaks
            for request in requests:
                for message in request.messages:
                    self._in.put(message)
        self._in.put(None)
        self._out.put(None)

    def responses(self) -> Iterator[WorkResponse]:
        while (response := self._out.get()) is not None:
            yield response

    def welcome(self, stale: list[str] | None = None, interval: float = 10.0, max_result_bytes: int = 0) -> None:
        welcome = WorkerWelcome(pool="remote", stale=stale, max_result_bytes=max_result_bytes)
        welcome.lease.FromSeconds(30)
        welcome.heartbeat_interval.FromMilliseconds(int(interval * 1000))
        self._out.put(WorkResponse(welcome=welcome))

    def send(self, *messages: ServerMessage) -> None:
        self._out.put(WorkResponse(messages=messages))

    def assign(
        self, token: str, handler: str, payload: bytes = b"null", content_type: str = "application/json", **fields: Any
    ) -> None:
        assigned = AttemptAssigned(
            token=token, task_id="task-" + token, handler=handler, attempt=1,
            payload=Payload(data=payload, content_type=content_type), **fields,
        )  # fmt: skip
        self.send(ServerMessage(assigned=assigned))

    def assign_large(self, token: str, handler: str, payload_bytes: int) -> None:
        """Assigns an attempt whose payload follows in chunks."""
        payload = Payload(content_type="application/octet-stream")
        assigned = AttemptAssigned(token=token, handler=handler, payload=payload, payload_bytes=payload_bytes)
        self.send(ServerMessage(assigned=assigned))

    def chunk(self, token: str, offset: int, data: bytes) -> None:
        self.send(ServerMessage(chunk=AttemptChunk(token=token, offset=offset, data=data)))

    def request_result(self, token: str) -> None:
        self.send(ServerMessage(result_requested=ResultRequested(token=token)))

    def cancel(self, token: str, grace: float = 60.0, reason: int = 1) -> None:
        cancel = AttemptCancel(token=token, reason=reason)
        cancel.grace.FromMilliseconds(int(grace * 1000))
        self.send(ServerMessage(cancel=cancel))

    def settle(self, *tokens: str) -> None:
        self.send(ServerMessage(settled=AttemptsSettled(tokens=tokens)))

    def next(self, kind: str) -> Any:
        """The next report of a kind; skips heartbeats and, if they are not asked for, acceptances."""
        skipped = {"heartbeat", "accepted"} - {kind}
        while True:
            message = self._in.get(timeout=WAIT_SECONDS)
            assert message is not None, f"the stream has ended; {kind} was expected"
            if message.WhichOneof("kind") not in skipped:
                assert message.WhichOneof("kind") == kind, message
                return getattr(message, kind)

    def ended(self) -> list[WorkerMessage]:
        """Waits until the worker has ended the stream; returns what was not read."""
        rest = []
        while (message := self._in.get(timeout=WAIT_SECONDS)) is not None:
            rest.append(message)
        return rest

    def end(self) -> None:
        self._out.put(None)


class FakeServer:
    """Accepts workers and gives their streams to the test."""

    def __init__(self) -> None:
        self._streams: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self._all: list[Stream] = []
        self._refusals: queue.SimpleQueue[tuple[grpc.StatusCode, str]] = queue.SimpleQueue()
        self._server = grpc.server(ThreadPoolExecutor(50))
        work = grpc.stream_stream_rpc_method_handler(self._work, WorkRequest.FromString, WorkResponse.SerializeToString)
        handlers = grpc.method_handlers_generic_handler("lineshaft.v1.WorkerService", {"Work": work})
        self._server.add_generic_rpc_handlers((handlers,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _work(self, requests: Iterator[WorkRequest], context: grpc.ServicerContext) -> Iterator[WorkResponse]:
        first = next(requests)
        with contextlib.suppress(queue.Empty):
            context.abort(*self._refusals.get_nowait())
        stream = Stream(first.hello, requests, context)
        self._streams.put(stream)
        self._all.append(stream)
        yield from stream.responses()

    def refuse(self, code: grpc.StatusCode, message: str) -> None:
        """The next worker gets this error."""
        self._refusals.put((code, message))

    def next(self) -> Stream:
        return self._streams.get(timeout=WAIT_SECONDS)

    def close(self) -> None:
        for stream in self._all:
            stream.end()
        self._server.stop(None)


def begin(fake: FakeServer, worker: Worker) -> Stream:
    worker.start()
    stream = fake.next()
    stream.welcome()
    return stream
