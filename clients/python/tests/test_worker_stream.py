"""The worker against a server that the test plays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
import time

import grpc
import pytest
import worker_functions
from fake_server import FakeServer, begin

import lineshaft
import lineshaft.worker as worker_module
from lineshaft import Cancelled, Context, PermanentError, Worker
from lineshaft.v1 import task_pb2


def result(finished: object) -> object:
    assert finished.WhichOneof("outcome") == "result", finished
    return json.loads(finished.result.data)


def test_hello_introduces_the_worker(fake: FakeServer) -> None:
    worker = Worker(fake.address, concurrency=3, pool="machines", worker_id="w.1", labels={"zone": "a"})

    @worker.handler
    def add(a: int, b: int) -> int:
        """Adds two numbers.

        More about it.
        """
        return a + b

    stream = begin(fake, worker)
    try:
        hello = stream.hello
        assert (hello.worker_id, hello.pool, hello.slots) == ("w.1", "machines", 3)
        assert [(one.name, one.description) for one in hello.handlers] == [("add", "Adds two numbers.")]
        assert hello.labels == {"zone": "a"} and hello.version.startswith("lineshaft-python/")
        assert worker.wait_ready(20)
    finally:
        worker.stop()
    assert worker.join(20)
    stream.next("draining")
    assert not stream.ended()


def test_the_payload_fits_the_parameters(fake: FakeServer, worker: Worker) -> None:
    worker.handler("whole")(lambda payload: payload)
    worker.handler("none")(lambda: "nothing")
    worker.handler("several")(lambda a, b=2, *, c=3: [a, b, c])
    worker.handler("named")(lambda **named: sorted(named))
    worker.handler("context")(lambda payload, ctx: [payload, ctx.task_id])
    worker.handler("default")(lambda size=5, *, ctx: size)
    worker.handler("defaults")(lambda a=1, b=2: [a, b])
    worker.handler("length")(lambda payload: len(payload))
    stream = begin(fake, worker)
    for handler, payload, wanted in (
        ("whole", b'{"a": 1}', {"a": 1}),
        ("none", b"5", "nothing"),
        ("several", b'{"a": 1, "c": 9}', [1, 2, 9]),
        ("several", b"[7, 8]", [7, 8, 3]),
        ("named", b'{"y": 1, "x": 1}', ["x", "y"]),
        ("context", b"1", [1, "task-t"]),
    ):
        stream.assign("t", handler, payload)
        assert result(stream.next("finished")) == wanted
    # A task without a payload arrives like this.
    for handler, wanted in (("default", 5), ("defaults", [1, 2]), ("named", []), ("none", "nothing"), ("length", 0)):
        stream.assign("t", handler, b"", "application/octet-stream")
        assert result(stream.next("finished")) == wanted
    stream.assign("t", "several", b"", "application/octet-stream")
    failure = stream.next("finished").failure
    assert failure.message.endswith("several: missing a required argument: 'a'"), failure
    for handler, payload in (("several", b"5"), ("several", b'{"d": 1}'), ("whole", b"{")):
        stream.assign("t", handler, payload)
        failure = stream.next("finished").failure
        assert failure.reason == task_pb2.FAILURE_REASON_INVALID_PAYLOAD and not failure.retryable, failure


def test_a_task_is_accepted_before_it_reports(fake: FakeServer, worker: Worker) -> None:
    @worker.handler
    def work(payload: int, ctx: Context) -> int:
        assert lineshaft.current() is ctx and not ctx.cancelled
        print("printed")
        logging.getLogger("mine").warning("logged")
        ctx.log("noted")
        ctx.progress(0.4, "almost")
        return payload

    stream = begin(fake, worker)
    stream.assign("t", "work", b"7")
    assert stream.next("accepted").token == "t"
    printed = stream.next("output")
    assert printed.data == b"printed\n" and printed.stream == task_pb2.OUTPUT_STREAM_STDOUT
    noted = stream.next("output")
    while not noted.data.endswith(b"noted\n"):
        noted.data += stream.next("output").data
    assert noted.data == b"WARNING mine: logged\nnoted\n" and noted.stream == task_pb2.OUTPUT_STREAM_STDERR
    assert stream.next("progress").fraction == 0.4
    assert result(stream.next("finished")) == 7
    assert lineshaft.current() is None


def test_an_exception_becomes_a_failure_with_its_traceback(fake: FakeServer, worker: Worker) -> None:
    class Final(Exception):
        pass

    @worker.handler("work", no_retry=(Final,))
    def work(payload: str) -> object:
        if payload == "permanent":
            raise PermanentError("no use")
        if payload == "final":
            raise Final("no use either")
        if payload == "unfit":
            return {1, 2}
        raise ValueError("a reason\nsecond line")

    stream = begin(fake, worker)
    stream.assign("t", "work", b'"once"')
    failure = stream.next("finished").failure
    assert failure.message == "ValueError: a reason" and failure.retryable
    assert "in work" in failure.detail and "_attempt.py" not in failure.detail, failure.detail
    for payload, message in (
        (b'"permanent"', "lineshaft.PermanentError: no use"),
        (b'"final"', "Final: no use either"),
        (b'"unfit"', "cannot encode"),
    ):
        stream.assign("t", "work", payload)
        failure = stream.next("finished").failure
        assert message in failure.message and not failure.retryable, failure


def test_tasks_run_at_the_same_time(fake: FakeServer, worker: Worker) -> None:
    meet = threading.Barrier(4)
    worker.handler("meet")(lambda: meet.wait(20) * 0)
    stream = begin(fake, worker)
    for number in range(4):
        stream.assign(str(number), "meet")
    assert {stream.next("finished").token for _ in range(4)} == {"0", "1", "2", "3"}


def test_a_coroutine_is_cancelled(fake: FakeServer, worker: Worker) -> None:
    cleaned = threading.Event()

    @worker.handler
    async def work(payload: float) -> str:
        try:
            await asyncio.sleep(payload)
        finally:
            cleaned.set()
        return "slept"

    stream = begin(fake, worker)
    stream.assign("a", "work", b"0.01")
    assert result(stream.next("finished")) == "slept"
    cleaned.clear()
    stream.assign("b", "work", b"100")
    stream.next("accepted")
    stream.cancel("b")
    stream.next("cancel_acknowledged")
    assert stream.next("finished").stopped.method == task_pb2.STOP_METHOD_TOKEN


def test_a_thread_is_asked_to_stop_and_then_interrupted(fake: FakeServer, worker: Worker) -> None:
    @worker.handler
    def polite(ctx: Context) -> None:
        ctx.sleep(100)

    @worker.handler
    def busy() -> None:
        while True:
            with contextlib.suppress(Exception):
                pass

    @worker.handler
    def quick(ctx: Context) -> str:
        while not ctx.cancelled:
            ctx._stop.wait(1)
        return "finished anyway"

    stream = begin(fake, worker)
    stream.assign("a", "polite")
    stream.next("accepted")
    stream.cancel("a")
    stream.next("cancel_acknowledged")
    assert stream.next("finished").stopped.method == task_pb2.STOP_METHOD_TOKEN
    stream.assign("b", "busy")
    stream.next("accepted")
    stream.cancel("b", grace=0.05)
    stream.next("cancel_acknowledged")
    assert stream.next("finished").stopped.method == task_pb2.STOP_METHOD_ABORT
    stream.assign("c", "quick")
    stream.next("accepted")
    stream.cancel("c", grace=0)
    stream.next("cancel_acknowledged")
    # Stopped or finished, according to which comes first; the next task in this thread is not affected.
    assert stream.next("finished").WhichOneof("outcome") in ("result", "stopped")
    stream.assign("d", "quick")
    stream.cancel("d")
    stream.next("cancel_acknowledged")
    assert stream.next("finished").WhichOneof("outcome") in ("result", "stopped")


def test_a_function_runs_in_a_process_that_is_reused(fake: FakeServer, worker: Worker) -> None:
    worker.handler(process=True)(worker_functions.square)
    stream = begin(fake, worker)
    pids = set()
    for number in range(3):
        stream.assign("t", "square", str(number).encode())
        assert stream.next("output").data == b"squaring\n"
        finished = stream.next("finished")
        value = result(finished)
        assert value["square"] == number * number
        assert finished.HasField("cpu_time") and finished.peak_memory_bytes > 1 << 20
        pids.add(value["pid"])
    assert len(pids) == 1 and os.getpid() not in pids


def test_a_cancelled_process_is_killed(fake: FakeServer, worker: Worker) -> None:
    worker.handler(process=True)(worker_functions.spin)
    worker.handler(process=True)(worker_functions.stubborn)
    stream = begin(fake, worker)
    stream.assign("a", "spin")
    pid = int(stream.next("progress").note)
    stream.cancel("a")
    stream.next("cancel_acknowledged")
    assert stream.next("finished").stopped.method == task_pb2.STOP_METHOD_SIGNAL_TERM
    wait_until_gone(pid)
    stream.assign("b", "stubborn")
    beside = int(stream.next("progress").note)
    stream.cancel("b", grace=0.1)
    stream.next("cancel_acknowledged")
    assert stream.next("finished").stopped.method == task_pb2.STOP_METHOD_SIGNAL_KILL
    wait_until_gone(beside)


def wait_until_gone(pid: int) -> None:
    until = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        with open(f"/proc/{pid}/stat") as stat:
            if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                return
        assert time.monotonic() < until, f"process {pid} is still there"
        time.sleep(0.01)


def test_a_process_that_dies_fails_its_task_only(fake: FakeServer, worker: Worker) -> None:
    worker.handler(process=True)(worker_functions.die)
    worker.handler(process=True)(worker_functions.leave)
    worker.handler(process=True)(worker_functions.square)
    stream = begin(fake, worker)
    stream.assign("a", "die")
    failure = stream.next("finished").failure
    assert failure.reason == task_pb2.FAILURE_REASON_KILLED and failure.signal == 11 and failure.retryable
    stream.assign("b", "leave")
    failure = stream.next("finished").failure
    assert failure.message == "the process exited with code 3" and failure.exit_code == 3
    stream.assign("c", "square", b"3")
    stream.next("output")
    assert result(stream.next("finished"))["square"] == 9


def test_a_function_that_a_process_cannot_find_is_refused_at_the_start(fake: FakeServer) -> None:
    worker = Worker(fake.address)
    worker.handler("inner", process=True)(lambda: None)
    with pytest.raises(TypeError, match="top level of a module"):
        worker.start()
    with pytest.raises(TypeError, match="only a plain function"):

        @worker.handler("other", process=True)
        async def other() -> None: ...


def test_unfinished_attempts_go_on_over_a_broken_stream(fake: FakeServer, worker: Worker) -> None:
    release = threading.Event()
    worker.handler("wait")(lambda: release.wait(20))
    worker.handler("quick")(lambda: 1)
    stream = begin(fake, worker)
    stream.assign("running", "wait")
    stream.assign("stale", "wait")
    stream.assign("ended", "quick")
    assert stream.next("finished").token == "ended"
    stream.end()
    stream = fake.next()
    assert sorted(stream.hello.unfinished) == ["ended", "running", "stale"]
    stream.welcome(stale=["stale"])
    assert stream.next("finished").token == "ended"
    release.set()
    finished = stream.next("finished")
    assert finished.token == "running" and result(finished) is True
    stream.settle("ended", "running")
    stream.end()
    # Nothing of the stale attempt is reported.
    assert list(fake.next().hello.unfinished) == []


def test_heartbeats_are_sent_and_a_silent_server_is_left(fake: FakeServer, worker: Worker) -> None:
    worker.handler("quick")(lambda: 1)
    worker.start()
    first = fake.next()
    first.welcome(interval=0.3)
    first.next("heartbeat")
    first.next("heartbeat")
    # The fake server sends nothing.
    fake.next().welcome()


def test_draining_finishes_what_runs_and_returns_what_does_not(fake: FakeServer, worker: Worker) -> None:
    release = threading.Event()
    worker.handler("wait")(lambda: release.wait(20))
    stream = begin(fake, worker)
    stream.assign("running", "wait")
    stream.next("accepted")
    worker.stop()
    stream.next("draining")
    stream.assign("late", "wait")
    late = stream.next("finished")
    assert late.token == "late" and late.HasField("not_started")
    stream.settle("late")
    release.set()
    assert stream.next("finished").token == "running"
    assert not worker.join(timeout=0)
    stream.settle("running")
    assert not stream.ended()
    stream.end()
    assert worker.join(timeout=20)


def test_a_wait_for_other_tasks_gives_the_slot_back(fake: FakeServer, worker: Worker) -> None:
    go = threading.Event()

    @worker.handler
    def parent(ctx: Context) -> str:
        with ctx.suspended():
            go.wait(20)
        return "resumed"

    stream = begin(fake, worker)
    stream.assign("p", "parent")
    assert stream.next("suspended").token == "p"
    go.set()
    assert stream.next("resuming").token == "p"
    stream.end()
    stream = fake.next()
    stream.welcome()
    assert stream.next("suspended").token == "p"
    assert stream.next("resuming").token == "p"
    from lineshaft.v1.worker_service_pb2 import AttemptResumed, ServerMessage

    stream.send(ServerMessage(resumed=AttemptResumed(token="p")))
    assert result(stream.next("finished")) == "resumed"


def test_a_refused_worker_raises_and_an_absent_server_does_not(fake: FakeServer, worker: Worker) -> None:
    worker.handler("quick")(lambda: 1)
    fake.refuse(grpc.StatusCode.UNAVAILABLE, "come back")
    fake.refuse(grpc.StatusCode.PERMISSION_DENIED, "not you")
    worker.start()
    with pytest.raises(lineshaft.PermissionDenied, match="not you"):
        worker.join(timeout=20)


def test_functions_are_registered_once_and_before_the_start(fake: FakeServer, worker: Worker) -> None:
    with pytest.raises(RuntimeError, match="no function"):
        worker.start()
    worker.handler("quick")(lambda: 1)
    with pytest.raises(ValueError, match="has a function already"):
        worker.handler("quick")(lambda: 2)
    begin(fake, worker)
    with pytest.raises(RuntimeError, match="has started"):
        worker.handler("more")(lambda: 1)
    with pytest.raises(ValueError, match="concurrency"):
        Worker(concurrency=0)
    assert issubclass(Cancelled, BaseException) and not issubclass(Cancelled, Exception)


def test_a_large_payload_is_whole_before_the_task_begins_and_a_large_result_follows_on_request(
    fake: FakeServer, worker: Worker
) -> None:
    worker.handler("reverse")(lambda payload: bytes(payload)[::-1])
    worker.start()
    stream = fake.next()
    assert stream.hello.chunks
    stream.welcome(max_result_bytes=8 << 20)
    sent = bytes(at % 251 for at in range((1 << 20) + 10))
    for token in ("t1", "t2"):
        stream.assign_large(token, "reverse", len(sent))
        stream.chunk(token, 0, sent[: 1 << 20])
    stream.chunk("unknown", 5, b"x")
    stream.cancel("t2")
    assert stream.next("cancel_acknowledged").token == "t2"
    assert stream.next("finished").stopped.method == task_pb2.STOP_METHOD_NEVER_STARTED
    stream.chunk("t2", 1 << 20, sent[1 << 20 :])
    stream.chunk("t1", 1 << 20, sent[1 << 20 :])
    announced = stream.next("finished")
    assert (announced.token, announced.result_bytes, announced.result.data) == ("t1", len(sent), b"")
    stream.request_result("t1")
    received = b""
    while len(received) < len(sent):
        chunk = stream.next("chunk")
        assert (chunk.token, chunk.offset) == ("t1", len(received))
        received += chunk.data
    assert received == sent[::-1]


def test_a_chunk_that_does_not_follow_the_one_before_it_ends_the_stream(fake: FakeServer, worker: Worker) -> None:
    worker.handler("h")(lambda payload: payload)
    stream = begin(fake, worker)
    stream.assign_large("t1", "h", 10)
    stream.chunk("t1", 3, b"abc")
    again = fake.next()
    assert list(again.hello.unfinished) == []


def test_a_result_beyond_the_limit_of_the_server_is_a_failure(fake: FakeServer, worker: Worker) -> None:
    worker.handler("large")(lambda: bytes((2 << 20) + 1))
    worker.start()
    stream = fake.next()
    stream.welcome(max_result_bytes=2 << 20)
    stream.assign("t1", "large")
    failure = stream.next("finished").failure
    assert failure.reason == task_pb2.FAILURE_REASON_RESULT_TOO_LARGE
    assert failure.message == "result has 2097153 bytes, at most 2097152 are allowed"


def test_a_worker_in_a_with_block_is_ready(fake: FakeServer) -> None:
    worker = Worker(fake.address)
    worker.handler("add")(lambda a, b: a + b)
    welcomed = threading.Event()

    def welcome() -> None:
        stream = fake.next()
        welcomed.set()
        stream.welcome()

    threading.Thread(target=welcome).start()
    with worker:
        assert welcomed.is_set() and worker.wait_ready(0)


def test_a_with_block_does_not_wait_forever_for_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "READY_SECONDS", 0.1)
    worker = Worker("127.0.0.1:1")
    worker.handler("add")(lambda a, b: a + b)
    with pytest.raises(TimeoutError, match=r"no server has accepted it within 0.1 s; `start` does not wait"):
        worker.__enter__()
    assert worker.join(20), "it has stopped"
