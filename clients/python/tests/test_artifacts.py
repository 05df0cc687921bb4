"""Artifacts of functions, with a real server."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

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


@pytest.fixture
def leave_with(proxy: Proxy, client: Client) -> Iterator[Callable[[Callable[[Context], None]], Task]]:
    """Runs a task with this function. Its uploads can be cut off."""
    worker = Worker(address_of(proxy.listener), worker_id="uploads")
    functions: list[Callable[[Context], None]] = []

    @worker.handler("leave_with", no_retry=(Exception,))
    def leave_with(ctx: Context) -> None:
        functions.pop()(ctx)

    def run(function: Callable[[Context], None]) -> Task:
        functions.append(function)
        task = client.submit("leave_with")
        task.result(60)
        return task

    with worker:
        assert worker.wait_ready(30)
        yield run


def test_a_pipe_is_uploaded_also_over_a_broken_connection(
    leave_with: Callable[[Callable[[Context], None]], Task], proxy: Proxy
) -> None:
    cuts: list[int] = []

    def write(end: int) -> None:
        with open(end, "wb") as file:
            file.write(LARGE[: len(LARGE) // 2])
            cuts.append(proxy.cut())
            file.write(LARGE[len(LARGE) // 2 :])

    def function(ctx: Context) -> None:
        reading, writing = os.pipe()
        writer = threading.Thread(target=write, args=(writing,))
        writer.start()
        with open(reading, "rb") as pipe:
            ctx.artifact("pipe.bin", pipe)
        writer.join()
        with subprocess.Popen(["echo", "from a program"], stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            ctx.artifact("program.txt", program.stdout)

    task = leave_with(function)
    assert cuts[0] > 0
    assert b"".join(task.read_artifact("pipe.bin")) == LARGE
    assert b"".join(task.read_artifact("program.txt")) == b"from a program\n"


def test_a_pipe_is_uploaded_once_if_it_cannot_be_kept(
    leave_with: Callable[[Callable[[Context], None]], Task], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self, cut: bool) -> None:
            self._content, self._cut = io.BytesIO(LARGE), cut

        def read(self, size: int = -1) -> bytes:
            if self._cut and self._content.tell() >= len(LARGE) // 2:
                proxy.cut()
                self._cut = False
            return self._content.read(size)

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)

    def function(ctx: Context) -> None:
        ctx.artifact("whole.bin", cast(BinaryIO, Pipe(cut=False)))
        with pytest.raises(lineshaft.Unavailable):
            ctx.artifact("cut.bin", cast(BinaryIO, Pipe(cut=True)))

    assert [one.name for one in leave_with(function).artifacts()] == ["whole.bin"]


class Interrupted(io.BytesIO):
    """A file whose connection is cut in the middle, after a longer time than the timeout of the client."""

    def __init__(self, ctx: Context, cut: Callable[[], int]) -> None:
        super().__init__(LARGE)
        self._timeout, self._cut, self.cuts = ctx.client.timeout, cut, 0

    def read(self, size: int | None = -1, /) -> bytes:
        if self.cuts < 2 and self.tell() >= len(LARGE) // 2:
            time.sleep(self._timeout)
            self.cuts += self._cut() > 0
        return super().read(size)


def test_an_upload_that_makes_progress_is_repeated_beyond_the_timeout(
    leave_with: Callable[[Callable[[Context], None]], Task], proxy: Proxy
) -> None:
    def function(ctx: Context) -> None:
        ctx.client.timeout = 0.3
        file = Interrupted(ctx, proxy.cut)
        ctx.artifact("file.bin", file)
        assert file.cuts == 2

    assert b"".join(leave_with(function).read_artifact("file.bin")) == LARGE


def test_content_that_cannot_be_read_is_an_error(leave_with: Callable[[Callable[[Context], None]], Task]) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("the disk is broken")

    def function(ctx: Context) -> None:
        with pytest.raises(OSError, match="the disk is broken"):
            ctx.artifact("x", Broken())

    assert leave_with(function).artifacts() == []


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
