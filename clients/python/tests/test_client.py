"""The client against a real server."""

from __future__ import annotations

import collections
import logging
import pathlib
import subprocess
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from conftest import Proxy, SecureServer, Server, address, address_of, binary

import lineshaft
from lineshaft import Client, Limit, Payload, Retry, State, _results
from lineshaft.v1 import batch_service_pb2, task_service_pb2

LONG = 60


def calls(client: Client, monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """Counts the calls of a client by method."""
    counted: collections.Counter[str] = collections.Counter()
    inner = client._connection._callable

    def count(kind: str, method: str, response: object) -> object:
        counted[method] += 1
        return inner(kind, method, response)

    monkeypatch.setattr(client._connection, "_callable", count)
    return counted


def batch(client: Client, batch_id: str) -> batch_service_pb2.Batch:
    request = batch_service_pb2.GetBatchRequest(batch_id=batch_id)
    return client._connection.call("BatchService/GetBatch", request, batch_service_pb2.GetBatchResponse).batch


def unique(name: str) -> str:
    return f"{name}-{time.time_ns()}"


def test_a_value_is_sent_as_json_and_its_result_comes_back(client: Client) -> None:
    assert client.run("compute", 100)["value"] == 4950
    text = {"expression": "'grün' + a", "variables": {"a": " ☂"}}
    assert client.run("expression", text) == "grün ☂"


def test_bytes_are_sent_as_they_are(client: Client) -> None:
    task = client.submit("cat", b"\x00\xff")
    assert task.info(payload=True).payload == b"\x00\xff"
    assert client.submit("cat", Payload(b"<a/>", "text/xml")).info(payload=True).payload == Payload(b"<a/>", "text/xml")
    assert client.submit("cat").info(payload=True).payload == b""
    assert client.run("cat", None) == "null"


def test_a_value_that_is_not_json_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(TypeError, match="pass JSON values, bytes or a Payload"):
        client.submit("cat", {1, 2})
    with pytest.raises(ValueError, match="JSON"):
        client.submit("cat", float("nan"))


def test_options_reach_the_server(client: Client) -> None:
    task = client.submit(
        "io", 0, priority="high", labels={"a": "b"}, timeout=timedelta(minutes=2), retry=Retry(max_attempts=7, delay=1.5),
        delay=0.01, name="a name", at_most_once=False, durability="memory", task_id="", expires_after=3600,
        limits=[Limit("k", max_running=3), Limit("r", starts=100, interval=0.5, burst=2)], fairness_key="customer:42",
    )  # fmt: skip
    task.wait()
    info = task.info()
    assert info.state is State.COMPLETED and info.priority == "HIGH" and info.labels == {"a": "b"}
    assert info.name == "a name" and info.attempt == 1 and info.message.fairness_key == "customer:42"
    assert info.message.timeout.seconds == 120 and info.message.retry.max_attempts == 7
    assert info.message.retry.delay.ToMilliseconds() == 1500
    places, rate = info.message.limits
    assert places.key == "k" and places.max_running == 3 and not places.HasField("rate")
    assert rate.key == "r" and rate.max_running == 0 and rate.rate.starts == 100 and rate.rate.burst == 2
    assert rate.rate.interval.ToMilliseconds() == 500
    with pytest.raises(ValueError, match="must be one of LOW, NORMAL, HIGH, CRITICAL"):
        client.submit("io", 0, priority="urgent")


def test_a_result_is_used_again(client: Client) -> None:
    first = client.submit("compute", 5, unique_key="sum:5", reuse_result_within=3600)
    result = first.result()
    again = client.submit("compute", 5, unique_key="sum:5", reuse_result_within=3600)
    assert again.result() == result and again.id == first.id


def test_a_unique_key_is_used_once_or_replaced(client: Client) -> None:
    first = client.submit("io", LONG, unique_key="u")
    assert client.submit("io", LONG, unique_key="u", on_unique_conflict="use_existing").id == first.id
    taken = client.submit("io", LONG, unique_key="u")
    with pytest.raises(lineshaft.AlreadyExists) as refused:
        _ = taken.id
    assert refused.value.reason == "UNIQUE_KEY_TAKEN"
    first.cancel()
    first.wait()
    last = client.submit("io", 0, unique_key="u", on_unique_conflict="replace_queued")
    last.wait()
    assert last.info().state is State.COMPLETED and last.info().message.unique_key == "u"
    together = [client.submit("io", 0, unique_key="v", on_unique_conflict="use_existing", delay=1) for _ in range(50)]
    assert len({task.id for task in together}) == 1, "submissions at the same time follow the rule"
    for task in together:
        task.wait()
        assert task.info().state is State.COMPLETED
    replacing = [
        client.submit("io", number, unique_key="w", on_unique_conflict="replace_queued", delay=LONG)
        for number in range(50)
    ]
    client.flush()
    waiting = [task.id for task in replacing if task.info().state is State.WAITING]
    assert waiting == [replacing[-1].id], "only the last one is left"
    replacing[-1].cancel()


def test_a_loop_of_submissions_becomes_few_batches_in_order(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = calls(client, monkeypatch)
    tasks = [client.submit("compute", number) for number in range(3_000)]
    client.flush()
    assert counted["TaskService/BatchSubmitTasks"] < 300
    listed = [task.task_id for task in client.list(batch_id=tasks[0].info().batch_id)]
    assert listed == [task.id for task in reversed(tasks)]


def test_many_results_need_few_calls(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = calls(client, monkeypatch)
    tasks = [client.submit("compute", number) for number in range(3_000)]
    assert [task.result()["n"] for task in tasks] == list(range(3_000))
    assert sum(counted.values()) < 1_500, counted


def test_no_result_is_lost_of_more_tasks_than_the_server_keeps(own_server: Server) -> None:
    with Client(address(own_server)) as client:
        tasks = [client.submit("compute", number) for number in range(10_500)]
        assert [task.result()["n"] for task in tasks] == list(range(10_500))
        assert sum(1 for _ in client.list()) <= 10_000


def test_as_completed_yields_each_task_once_as_it_ends(client: Client) -> None:
    slow = client.submit("io", LONG)
    quick = [client.submit("compute", 1) for _ in range(20)]
    seen = []
    for task in lineshaft.as_completed([slow, *quick]):
        seen.append(task)
        if len(seen) == len(quick):
            assert set(seen) == set(quick)
            slow.cancel()
    assert seen[-1] is slow and len(seen) == len(quick) + 1
    with pytest.raises(lineshaft.TaskCancelled):
        slow.result()


def test_as_completed_and_result_observe_their_timeouts(client: Client) -> None:
    slow = client.submit("io", LONG)
    with pytest.raises(TimeoutError, match="1 of 1 tasks"):
        list(lineshaft.as_completed([slow], timeout=0.05))
    with pytest.raises(TimeoutError, match="has not finished within 0.05 s"):
        slow.result(timeout=0.05)
    assert not slow.wait(timeout=0) and not slow.done()
    assert slow.cancel("force") and isinstance(slow.exception(), lineshaft.TaskCancelled)


def test_map_yields_results_in_order(client: Client) -> None:
    assert [value["n"] for value in client.map("compute", range(500))] == list(range(500))
    assert list(client.map("compute", [])) == []


def test_the_tasks_of_a_map_are_one_batch(client: Client) -> None:
    for count in (3, 60, 5_000):
        batch_id = unique("map")
        results = client.map("compute", range(count), batch_id=batch_id)
        assert [value["n"] for value in results] == list(range(count))
        found = batch(client, batch_id)
        assert found.state == batch_service_pb2.BATCH_STATE_FINISHED and found.counts.completed == found.total == count
    assert len(list(client.map("compute", range(7), labels={"run": unique("map")}))) == 7
    newest = client._connection.call(
        "BatchService/ListBatches",
        batch_service_pb2.ListBatchesRequest(page_size=1),
        batch_service_pb2.ListBatchesResponse,
    ).batches[0]
    assert newest.total == 7, "a map without a batch ID is a batch, too"


def test_maps_and_submissions_at_the_same_time_do_not_mix(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # With a busy processor, the tasks would be read one by one.
    monkeypatch.setattr(_results, "LIST_SECONDS", LONG)
    counted = calls(client, monkeypatch)
    ids = [unique(f"map-{number}") for number in range(4)]
    found: dict[str, list[int]] = {}

    def work(batch_id: str) -> None:
        found[batch_id] = [value["n"] for value in client.map("compute", range(400), batch_id=batch_id)]

    threads = [threading.Thread(target=work, args=(batch_id,)) for batch_id in ids]
    for thread in threads:
        thread.start()
    tasks = [client.submit("compute", number) for number in range(400)]
    joined = [client.submit("compute", number, batch_id=ids[0]) for number in range(10)]
    assert [task.result()["n"] for task in (*tasks, *joined)] == [*range(400), *range(10)]
    for thread in threads:
        thread.join()
    assert found == {batch_id: list(range(400)) for batch_id in ids}
    assert [batch(client, batch_id).counts.completed for batch_id in ids] == [410, 400, 400, 400]
    assert sum(counted.values()) < 1_000, counted


def test_a_map_whose_batch_is_cancelled_ends(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = unique("cancelled")
    results = client.map("io", [LONG] * 100, batch_id=batch_id)
    client.flush()
    request = batch_service_pb2.CancelBatchRequest(batch_id=batch_id, reason="not needed")
    client._connection.call("BatchService/CancelBatch", request, batch_service_pb2.CancelBatchResponse)
    with pytest.raises(lineshaft.TaskCancelled, match="not needed"):
        next(results)
    counted = calls(client, monkeypatch)
    late = [client.submit("io", 0, batch_id=batch_id) for _ in range(500)]
    for task in late:
        with pytest.raises(lineshaft.FailedPrecondition) as met:
            task.accepted()
        assert met.value.reason == "BATCH_CLOSED"
    assert sum(counted.values()) < 100, counted


def test_a_batch_is_accepted_whole_or_not_at_all(client: Client) -> None:
    tasks = client.batch([("compute", 1), {"handler": "compute", "payload": 2, "labels": {"batch": "whole"}}])
    assert [task.result()["n"] for task in tasks] == [1, 2]
    with pytest.raises(lineshaft.NotFound) as met:
        client.batch([{"handler": "compute", "payload": 1, "labels": {"batch": "half"}}, ("nosuch", 1)])
    assert met.value.metadata["field"] == "tasks[1].handler"
    assert not list(client.list(labels={"batch": "half"}))
    assert client.batch([]) == []


def test_a_batch_is_a_batch_of_the_server(client: Client) -> None:
    batch_id = unique("own")
    own = client.batch([("compute", number) for number in range(3_000)], batch_id=batch_id)
    assert [task.result()["n"] for task in own] == list(range(3_000))
    assert batch(client, batch_id).counts.completed == 3_000
    (task,) = client.batch([("compute", 1)])
    assert batch(client, task.info().batch_id).total == 1


def test_a_refused_run_raises_what_a_submission_does(client: Client) -> None:
    with pytest.raises(lineshaft.NotFound) as met:
        client.run("nosuch", 1)
    assert met.value.reason == "UNKNOWN_HANDLER" and met.value.metadata["handler"] == "nosuch"
    with pytest.raises(lineshaft.InvalidArgument) as bad:
        client.run("compute", 1, labels={"": "x"})
    assert [one.field for one in bad.value.violations] == ['labels[""]']


def test_a_run_goes_on_over_a_killed_server_and_may_take_longer_than_a_call(own_server: Server) -> None:
    proxy = Proxy(own_server)
    with Client(address_of(proxy.listener)) as client, Client(client.address, timeout=1) as impatient:
        assert impatient.run("io", 1.5) is not None
        met: list[object] = []
        running = threading.Thread(target=lambda: met.append(client.run("io", 1, name="killed")))
        running.start()
        while not any(info.state is State.RUNNING for info in client.list(handler="io")):
            pass
        own_server.crash()
        proxy.cut()
        own_server.start_again()
        proxy.cut()
        running.join()
        assert len(met) == 1
        assert sum(1 for info in client.list(handler="io") if info.name == "killed") == 1


def test_a_refused_task_raises_where_its_id_is_needed(client: Client) -> None:
    task = client.submit("nosuch", 1)
    for use in (lambda: task.id, task.result, task.wait, task.accepted):
        with pytest.raises(lineshaft.NotFound) as met:
            use()
        assert met.value.reason == "UNKNOWN_HANDLER" and met.value.metadata["handler"] == "nosuch"
    assert task.exception() is not None
    with pytest.raises(lineshaft.InvalidArgument) as bad:
        client.submit("compute", 1, labels={"": "x"}).id  # noqa: B018
    assert [one.field for one in bad.value.violations] == ['labels[""]'], bad.value.violations


def test_refused_tasks_do_not_disturb_those_that_are_sent_with_them(client: Client) -> None:
    tasks = []
    for number in range(200):
        bad = {50: {"labels": {"": "x"}}, 51: {"name": "x" * 200}}.get(number, {})
        tasks.append(client.submit("nosuch" if number in (7, 150) else "compute", number, **bad))
    for number, task in enumerate(tasks):
        if number in (7, 150):
            assert isinstance(task.exception(), lineshaft.NotFound)
        elif number in (50, 51):
            error = task.exception()
            assert isinstance(error, lineshaft.InvalidArgument)
            assert {50: 'labels[""]', 51: "display_name"}[number] == error.violations[0].field
        else:
            assert task.result()["n"] == number


def test_a_refused_task_that_no_one_looks_at_is_logged_and_raised_at_the_end(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        pytest.raises(lineshaft.NotFound),
        caplog.at_level(logging.ERROR, "lineshaft"),
        Client(address(server)) as client,
    ):
        client.submit("nosuch", 1)
    assert "was not accepted" in caplog.text and "nosuch" in caplog.text


def test_a_full_queue_delays_only_its_own_tasks(client: Client) -> None:
    client_pool = [client.submit("narrow", str(number).encode()) for number in range(40)]
    others = [client.submit("compute", number) for number in range(40)]
    assert [task.result()["n"] for task in others] == list(range(40))
    assert [task.result() for task in client_pool] == [str(number) for number in range(40)]


def test_a_full_queue_is_an_error_after_the_timeout_of_the_client(server: Server) -> None:
    with Client(address(server), timeout=3) as client:
        tasks = [client.submit("narrow-nap", str(LONG).encode()) for _ in range(8)]
        refused = []
        for task in tasks:
            try:
                task.accepted()
            except lineshaft.ResourceExhausted as error:
                assert error.reason == "QUEUE_FULL" and error.metadata["pool"] == "naps" and error.retry_after
                refused.append(task)
        for task in tasks:
            assert task in refused or task.cancel("force")
        assert 1 <= len(refused) <= 3


def test_a_failed_task_raises_with_its_failure(client: Client) -> None:
    with pytest.raises(lineshaft.TaskFailed) as met:
        client.run("break", retry=1)
    failure = met.value.failure
    assert failure.reason == "HANDLER_ERROR" and failure.exit_code == 3 and failure.detail == "broken\n"
    assert "broken" in str(met.value)


def test_cancel_reports_whether_it_came_in_time(client: Client) -> None:
    task = client.submit("io", LONG)
    assert task.cancel(reason="not needed")
    with pytest.raises(lineshaft.TaskCancelled) as met:
        task.result()
    assert met.value.reason == "not needed"
    finished = client.submit("compute", 1)
    finished.wait()
    assert not finished.cancel()


def test_a_handle_by_id_waits_like_the_first_one(client: Client) -> None:
    task = client.submit("io", 0.2)
    again = client.task(task.id)
    with Client(client.address) as other:
        assert other.task(task.id).result() == again.result() == task.result()
        assert other.task(task.id).result() == task.result()
        ids = [client.submit("compute", number).id for number in range(50)]
        handles = [other.task(one) for one in ids]
        assert {task.result()["n"] for task in lineshaft.as_completed(handles)} == set(range(50))
        with pytest.raises(lineshaft.LineshaftError):
            other.task("nosuch").result()


def test_the_same_request_id_is_the_same_task(client: Client) -> None:
    request_id = f"same-{time.time_ns()}"
    first, second = (client.submit("io", 0.1, request_id=request_id) for _ in range(2))
    assert first.id == second.id
    assert first.result() == second.result()
    assert client.submit("io", 0.1, request_id=request_id).result() == first.result()
    with pytest.raises(lineshaft.AlreadyExists):
        client.submit("io", 0.2, request_id=request_id).id  # noqa: B018


def test_a_result_that_was_deleted_is_an_error(client: Client) -> None:
    task = client.submit("compute", 1)
    client.task(task.id)
    while not task.refresh().finished:
        pass
    assert client.delete(task_ids=[task.id]) == 1
    with pytest.raises(lineshaft.TaskDeleted):
        task.result()


def test_many_threads_wait_at_the_same_time(client: Client) -> None:
    results: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            results.append(client.run("compute", number)["n"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(list(range(50)) * 5)


def test_output_is_read_and_followed(client: Client) -> None:
    task = client.submit("talk", b"and end")
    assert b"".join(task.follow()) == b"begin\nand end"
    assert task.output() == b"begin\nand end" and task.output("stderr") == b"complaint\n"


def test_watch_yields_the_changes_of_a_task_from_the_first(client: Client) -> None:
    task = client.submit("compute", 1)
    assert [event.state for event in task.watch()] == [State.QUEUED, State.RUNNING, State.COMPLETED]
    with Client(client.address) as other:
        assert list(other.task(task.id).watch()) == []


def test_done_callbacks_are_called_once(client: Client) -> None:
    called = threading.Semaphore(0)
    task = client.submit("io", 0.05)
    task.add_done_callback(lambda done: called.release() if done is task else None)
    assert called.acquire(timeout=20)
    task.add_done_callback(lambda _: called.release())
    assert called.acquire(timeout=0)


def test_a_killed_server_loses_and_repeats_nothing(own_server: Server) -> None:
    proxy = Proxy(own_server)
    with Client(address_of(proxy.listener)) as client:
        tasks = [client.submit("io", 0.01) for _ in range(10)]
        assert len({task.id for task in tasks}) == 10
        watched = client.submit("io", 0.3)
        events = watched.watch()
        assert next(events).state is State.QUEUED
        own_server.crash()
        proxy.cut()
        restart = threading.Thread(target=own_server.start_again)
        restart.start()
        tasks += [client.submit("io", 0.01) for _ in range(500)]
        assert len({task.id for task in tasks}) == 510
        restart.join()
        proxy.cut()
        for task in tasks:
            task.wait()
        assert list(events)[-1].state is State.COMPLETED
        assert sum(1 for _ in client.list()) == 511


def test_without_a_server_the_call_fails_after_the_timeout(caplog: pytest.LogCaptureFixture) -> None:
    client = Client("127.0.0.1:1", timeout=0.3)
    with caplog.at_level(logging.WARNING, "lineshaft"), pytest.raises(lineshaft.Unavailable, match="127.0.0.1:1"):
        client.submit("compute", 1).id  # noqa: B018
    with pytest.raises(lineshaft.Unavailable):
        client.get("some")
    client.close()


def test_a_closed_client_ends_waits_and_refuses_submissions(server: Server) -> None:
    client = Client(address(server))
    task = client.submit("io", LONG)
    met: list[BaseException | None] = []
    waiting = threading.Thread(target=lambda: met.append(task.exception()))
    many = [client.submit("io", LONG) for _ in range(20)]
    ended: list[BaseException | None] = []
    more = threading.Thread(target=lambda: ended.append(many[0].exception()))
    waiting.start()
    more.start()
    for one in (task, *many):
        one.cancel()
    waiting.join()
    more.join()
    hanging = client.submit("io", LONG)

    def wait() -> None:
        with pytest.raises(lineshaft.ClientClosed):
            hanging.result()
        met.append(None)

    last = threading.Thread(target=wait)
    last.start()
    hanging_id = hanging.id
    client.close()
    last.join()
    assert len(met) == 2 and len(ended) == 1
    with pytest.raises(lineshaft.ClientClosed):
        client.submit("io", 0)
    with Client(address(server)) as other:
        other.cancel(hanging_id)


def test_submissions_before_the_end_of_the_program_are_sent(server: Server, client: Client) -> None:
    label = f"exit-{time.time_ns()}"
    program = f"""
import lineshaft
client = lineshaft.Client({address(server)!r})
for _ in range(100):
    client.submit("compute", 1, labels={{"run": {label!r}}})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert sum(1 for _ in client.list(labels={"run": label})) == 100


def test_tls_and_tokens(tmp_path: pathlib.Path) -> None:
    class Options:
        scratch = tmp_path

    Options.binary = binary()
    secure = SecureServer(Options)
    try:
        at = address(secure.server)
        with Client(at, ca=secure.authority, token=secure.tokens["submitter"]) as client:
            assert client.run("compute", 10)["n"] == 10
        with Client("https://" + at, ca=str(secure.authority), token=lambda: secure.tokens["viewer"]) as client:
            with pytest.raises(lineshaft.PermissionDenied) as met:
                client.submit("compute", 10).id  # noqa: B018
            assert met.value.reason == "PERMISSION_DENIED" and met.value.metadata["role"] == "submitter"
        with Client(at, ca=secure.authority) as client, pytest.raises(lineshaft.Unauthenticated):
            client.run("compute", 10)
    finally:
        secure.server.end()


def test_the_address_and_the_token_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    for name in ("LINESHAFT_SERVER", "LINESHAFT_TOKEN", "LINESHAFT_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert Client().address == "127.0.0.1:7070"
    monkeypatch.setenv("LINESHAFT_SERVER", "https://example:1/")
    assert Client().address == "example:1" and Client()._connection.tls
    monkeypatch.setenv("LINESHAFT_SERVER", "localhost:2")
    assert Client().address == "localhost:2" and not Client()._connection.tls
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("LINESHAFT_TOKEN_FILE", str(tmp_path / "token"))
    assert Client()._connection.metadata() == (("authorization", "Bearer secret"),)
    with pytest.raises(ValueError, match="without TLS"):
        Client("example:7070")


def test_a_batch_of_serialized_tasks_is_the_message_of_the_contract() -> None:
    from lineshaft._submit import frame

    tasks = [task_service_pb2.SubmitTaskRequest(handler="h" * size) for size in (1, 200, 20_000)]
    data = frame([task.SerializeToString() for task in tasks], "batch")
    assert task_service_pb2.BatchSubmitTasksRequest.FromString(data) == task_service_pb2.BatchSubmitTasksRequest(
        tasks=tasks, batch_id="batch"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"args": "echo hi"}, r"args is 'echo hi'; it must be a list of strings: write args=\['echo hi'\]"),
        ({"args": 5}, "args is 5; it must be a list of strings"),
        ({"args": [1]}, r"args\[0\] is 1; it must be a string"),
        ({"after": "an-id"}, r"after is 'an-id'; .* write after=\['an-id'\]"),
        ({"labels": {"a": 1}}, r"labels\['a'\] is 1; it must be a string"),
        ({"labels": {1: "a"}}, "the name of a label is 1; it must be a string"),
        ({"labels": "ab"}, "labels is 'ab'; it must be a mapping"),
        ({"labels": {"a": "\udcff"}}, r"labels\['a'\] is '\\udcff'; it must be valid Unicode"),
        ({"limits": [{"key": "k"}]}, r"limits\[0\] is {'key': 'k'}; it must be a lineshaft.Limit"),
        (
            {"limits": [Limit("k", starts=1, interval="1s")]},
            r"limits\[0\].interval is '1s'; it must be a number of seconds",
        ),
        ({"retry": "3"}, "retry is '3'; it must be a number of attempts or a lineshaft.Retry"),
        ({"retry": Retry(delay=float("nan"))}, "retry.delay is nan; it must be a finite number of seconds"),
        ({"timeout": float("inf")}, "timeout is inf; it must be a finite number of seconds"),
        ({"delay": "5"}, "delay is '5'; it must be a number of seconds or a timedelta"),
        ({"pool": 5}, "pool is 5; it must be a string"),
        ({"request_id": 5}, "request_id is 5; it must be a string"),
        ({"batch_id": 5}, "batch_id is 5; it must be a string"),
        ({"at_most_once": "no"}, "at_most_once is 'no'; it must be True or False"),
        ({"payload": "\udcff"}, "cannot encode the value as JSON: .*surrogates not allowed; pass JSON values"),
    ],
)
def test_a_wrong_argument_is_named(client: Client, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        client.submit("cat", **options)
    with pytest.raises((TypeError, ValueError), match=message):
        if "batch_id" in options:
            client.map("cat", [1], **options)
        else:
            client.batch([{"handler": "cat", **options}])


def test_a_wrong_argument_of_other_calls_is_named(client: Client) -> None:
    for item in ("cat", 5, ("cat", 1, 2), {"payload": 1}):
        with pytest.raises(
            TypeError, match=r"tasks\[0\] is .*; it must be a tuple \(handler, payload\) or a mapping with"
        ):
            client.batch([item])  # type: ignore[list-item]
    for options in ({"states": "FAILED"}, {"task_ids": "an-id"}, {"priorities": "high"}):
        (name,) = options
        with pytest.raises(TypeError, match=f"{name} is .*; it must be a list of strings"):
            client.list(**options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout is '5'; it must be a number of seconds"):
        Client(timeout="5")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="address is 5; it must be a string"):
        Client(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"labels\['a'\] is 1"):
        lineshaft.Worker(labels={"a": 1})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="concurrency is '4'; it must be an integer"):
        lineshaft.Worker(concurrency="4")  # type: ignore[arg-type]


def test_an_address_has_a_port() -> None:
    for wrong in ("localhost", "dns:///localhost", "[::1]"):
        with pytest.raises(ValueError, match=r"address is '.*'; it has no port: write '.*:7070'"):
            Client(wrong)
    for given, wanted in (
        ("localhost:1", "localhost:1"),
        ("dns:///localhost:1", "dns:///localhost:1"),
        ("http://localhost:1/", "localhost:1"),
        ("https://localhost", "localhost:443"),
        ("unix:/tmp/socket", "unix:/tmp/socket"),
    ):
        with Client(given) as client:
            assert client.address == wanted


def test_tls_to_a_server_without_it_is_an_error_that_says_so(server: Server) -> None:
    with Client(f"https://{address(server)}", timeout=0.5) as client:
        with pytest.raises(lineshaft.Unavailable, match="the server does not use TLS; write its address with http://"):
            client.get("a")


def test_a_payload_that_is_not_the_json_it_should_be_is_returned_as_it_is(client: Client) -> None:
    broken = Payload(b"{", "application/json")
    task = client.submit("cat", broken)
    task.wait()
    assert client.get(task.id, payload=True).payload == broken
    assert task.info().payload is None
    assert client.get(task.id).state is State.COMPLETED
    assert [one.task_id for one in client.list(task_ids=[task.id], results=True)] == [task.id]
