"""Artifacts of functions, with a real server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator

import pytest
from conftest import Proxy, Server, address, address_of

import lineshaft
from lineshaft import Artifact, Client, Context, Task, Worker, aio

LARGE = bytes(range(256)) * 65_536
"""It does not fit into the buffers between a server and a client."""


@pytest.fixture
def proxy(remote_server: Server) -> Proxy:
    return Proxy(remote_server)


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Client]:
    with Client(address_of(proxy.listener)) as made:
        yield made


@pytest.fixture
def leave(remote_server: Server, client: Client) -> Iterator[Callable[..., Task]]:
    """Runs a task that leaves files with these names and contents."""
    worker = Worker(address(remote_server))

    @worker.handler("leave_artifacts")
    def leave(ctx: Context, large: int, small: str) -> None:
        if large:
            ctx.artifact("large.bin", LARGE[:large])
        if small:
            ctx.artifact("一.csv", small.encode())

    def run(large: int = 0, small: str = "") -> Task:
        task = client.submit("leave_artifacts", {"large": large, "small": small})
        task.result(60)
        return task

    with worker:
        assert worker.wait_ready(30)
        yield run


def test_artifacts_are_listed_and_read(leave: Callable[..., Task]) -> None:
    task = leave(large=len(LARGE), small="a,b")
    large, small = task.artifacts()
    assert small == Artifact("一.csv", "text/csv", 3, hashlib.sha256(b"a,b").hexdigest(), small.link)
    assert (large.name, large.size, large.sha256) == ("large.bin", len(LARGE), hashlib.sha256(LARGE).hexdigest())
    assert small.link.startswith("/artifacts/")
    assert b"".join(task.read_artifact("large.bin")) == LARGE
    assert b"".join(task.read_artifact("一.csv")) == b"a,b"
    with pytest.raises(lineshaft.NotFound, match="has no artifact"):
        next(task.read_artifact("x"))
    assert leave().artifacts() == []


def test_a_download_continues_after_a_broken_connection(leave: Callable[..., Task], proxy: Proxy) -> None:
    content, cuts = b"", 0
    for part in leave(large=len(LARGE)).read_artifact("large.bin"):
        content += part
        if not cuts and len(content) >= len(LARGE) // 2:
            cuts = proxy.cut()
    assert cuts and content == LARGE


def test_a_damaged_artifact_is_an_error(leave: Callable[..., Task], remote_server: Server) -> None:
    task = leave(small="the only content of its kind")
    files = [path for path in (remote_server.directory / "data" / "artifacts").rglob("*") if path.is_file()]
    (damaged,) = (path for path in files if path.read_bytes() == b"the only content of its kind")
    damaged.write_bytes(b"not the same content as then")
    with pytest.raises(lineshaft.ChecksumMismatch, match="artifact '一.csv' of task .* must have"):
        list(task.read_artifact("一.csv"))


def test_a_coroutine_lists_and_reads_artifacts(leave: Callable[..., Task], proxy: Proxy) -> None:
    known = leave(large=len(LARGE))

    async def body() -> None:
        async with aio.Client(address_of(proxy.listener)) as client:
            task = client.task(known.id)
            assert [one.size for one in await task.artifacts()] == [len(LARGE)]
            assert b"".join([part async for part in task.read_artifact("large.bin")]) == LARGE
            async for _ in task.read_artifact("large.bin"):
                break
            with pytest.raises(lineshaft.NotFound):
                async for _ in task.read_artifact("x"):
                    pass

    asyncio.run(body())
