"""The asyncio client against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from conftest import Server, address

import lineshaft
from lineshaft import State, aio

LONG = 60


def with_client(server: Server, body: Callable[[aio.Client], Awaitable[None]]) -> None:
    async def main() -> None:
        async with aio.Client(address(server)) as client:
            await body(client)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_submissions_at_the_same_time_share_calls(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: aio.Client) -> None:
        calls: list[str] = []
        inner = client._client._connection._callable

        def count(kind: str, method: str, response: object) -> object:
            calls.append(method)
            return inner(kind, method, response)

        monkeypatch.setattr(client._client._connection, "_callable", count)
        results = await asyncio.gather(*(client.run("compute", number) for number in range(1_000)))
        assert [result["n"] for result in results] == list(range(1_000))
        assert len(calls) < 500, len(calls)

    with_client(server, body)


def test_results_come_in_both_orders(server: Server) -> None:
    async def body(client: aio.Client) -> None:
        assert [result["n"] async for result in client.map("compute", range(100))] == list(range(100))
        async for _ in client.map("compute", range(30), batch_id="aio-map"):
            pass
        assert len([info async for info in client.list(batch_id="aio-map")]) == 30
        tasks = await client.batch([("io", LONG), *(("compute", number) for number in range(10))])
        seen = []
        async for task in aio.as_completed(tasks):
            seen.append(task)
            if len(seen) == 10:
                assert await tasks[0].cancel()
        assert seen[-1] == tasks[0] and set(seen) == set(tasks)
        assert isinstance(await tasks[0].exception(), lineshaft.TaskCancelled)

    with_client(server, body)


def test_errors_and_timeouts_are_exceptions(server: Server) -> None:
    async def body(client: aio.Client) -> None:
        with pytest.raises(lineshaft.NotFound):
            await client.submit("nosuch")
        with pytest.raises(lineshaft.TaskFailed):
            await client.run("break", retry=1)
        task = await client.submit("io", LONG)
        with pytest.raises(TimeoutError):
            await task.result(timeout=0.05)
        with pytest.raises(TimeoutError):
            async for _ in aio.as_completed([task], timeout=0.05):
                pass
        waiting = asyncio.ensure_future(task.result())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await task.refresh() in (State.RUNNING, State.QUEUED)
        assert await client.cancel(task.id, "force") and await task.wait(30)

    with_client(server, body)


def test_streams_are_read_and_ended(server: Server) -> None:
    async def body(client: aio.Client) -> None:
        task = await client.submit("talk", b"end")
        assert b"".join([chunk async for chunk in task.follow()]) == b"begin\nend"
        assert await task.output("stderr") == b"complaint\n"
        states = [event.state async for event in task.watch()]
        assert states == [State.QUEUED, State.RUNNING, State.COMPLETED]
        watch = client.watch(handler="compute")
        following = asyncio.ensure_future(anext(watch))
        while not following.done():
            await client.run("compute", 5)
        assert following.result().state in State
        await watch.aclose()
        assert [info.task_id async for info in client.list(task_ids=[task.id])] == [task.id]
        assert (await client.task(task.id).info()).state is State.COMPLETED
        assert await client.delete(task_ids=[task.id]) == 1

    with_client(server, body)
