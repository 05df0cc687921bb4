"""A worker reports the end of every attempt, whatever its function raises. The test plays the server."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import pytest
import worker_functions
from fake_server import FakeServer, Stream, begin

import lineshaft
from lineshaft import Context, Payload, Worker, _capture
from lineshaft.v1 import task_pb2

SURROGATE = b"\xff".decode(errors="surrogateescape")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Cruel(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class NamelessType(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__qualname__":
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=NamelessType):
    pass


UNUSUAL: dict[str, BaseException] = {
    f"OSError: bad {SURROGATE} name": OSError(f"bad {SURROGATE} name"),
    "Mute: <exception str() failed>": Mute(),
    "Cruel, which cannot be described because of KeyboardInterrupt": Cruel(),
    "Nameless, which cannot be described because of RuntimeError": Nameless(),
    "SystemExit: 3": SystemExit(3),
    "ValueError: first": ValueError("\n\nfirst\nsecond"),
    "AssertionError": AssertionError(),
    "SyntaxError: invalid syntax (x.py, line 1)": SyntaxError("invalid syntax", ("x.py", 1, 5, "def (:", 1, 6)),
    "lineshaft.PermanentError: no use": lineshaft.PermanentError("no use"),
}


def reported(stream: Stream, handler: str, payload: bytes = b"null") -> task_pb2.Failure:
    stream.assign("t", handler, payload)
    finished = stream.next("finished")
    assert finished.WhichOneof("outcome") == "failure", finished
    return finished.failure


def test_an_exception_that_cannot_be_described_is_reported(fake: FakeServer, worker: Worker) -> None:
    errors = list(UNUSUAL.values())

    @worker.handler
    def work(number: int) -> None:
        raise errors[number]

    @worker.handler
    async def async_work(number: int) -> None:
        raise errors[number]

    stream = begin(fake, worker)
    for handler in ("work", "async_work"):
        for number, message in enumerate(UNUSUAL):
            failure = reported(stream, handler, str(number).encode())
            assert failure.message.endswith(message.replace(SURROGATE, r"\udcff")), failure
            assert failure.reason == task_pb2.FAILURE_REASON_HANDLER_ERROR
    stream.settle("t")
    worker.stop()
    assert worker.join(20)


def test_a_process_reports_a_text_that_is_not_unicode(fake: FakeServer, worker: Worker) -> None:
    worker.handler(process=True)(worker_functions.fail_with_surrogate)
    assert reported(begin(fake, worker), "fail_with_surrogate").message == r"OSError: bad \udcff name"


def test_every_text_of_a_function_can_be_reported(fake: FakeServer, worker: Worker, monkeypatch: Any) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), errors="replace"))

    @worker.handler
    def work(ctx: Context) -> None:
        _capture._log_handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("wrong",)}))
        print(SURROGATE)
        ctx.log(SURROGATE)
        ctx.progress(0.5, SURROGATE)

    worker.handler("result")(lambda: SURROGATE)
    worker.handler("typed")(lambda: Payload(b"", SURROGATE))
    worker.handler("untyped")(lambda: Payload("text", "text/plain"))  # type: ignore[arg-type]
    stream = begin(fake, worker)
    stream.assign("t", "work")
    assert [stream.next("output").data for _ in range(2)] == [b"\\udcff\n"] * 2
    assert stream.next("progress").note == r"\udcff"
    assert stream.next("finished").WhichOneof("outcome") == "result"
    for handler in ("result", "typed", "untyped"):
        failure = reported(stream, handler)
        assert "lineshaft.PermanentError: result: " in failure.message and not failure.retryable, failure


def test_a_long_failure_keeps_its_end(fake: FakeServer, worker: Worker) -> None:
    @worker.handler
    def work() -> None:
        raise ValueError("一" * 10_000 + " the end")

    failure = reported(begin(fake, worker), "work")
    assert failure.detail.endswith("the end\n") and len(failure.detail.encode()) <= 8_192
    assert failure.message.startswith("ValueError: 一一") and len(failure.message.encode()) <= 1_024


def test_no_retry_is_a_class_or_a_tuple_of_classes(fake: FakeServer, worker: Worker) -> None:
    @worker.handler(no_retry=ValueError)
    def once() -> None:
        raise ValueError

    @worker.handler(no_retry=(KeyError, LookupError))
    def again() -> None:
        raise ValueError

    for wrong in ("ValueError", [ValueError], (ValueError, 5), int, ValueError()):
        with pytest.raises(TypeError, match=r"no_retry is .*; it must be an exception class or a tuple of them"):
            worker.handler("wrong", no_retry=wrong)(lambda: None)  # type: ignore[arg-type]
    stream = begin(fake, worker)
    assert not reported(stream, "once").retryable
    assert reported(stream, "again").retryable
