"""Functions for processes, which must find them in a module."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import lineshaft


def shown(parent: lineshaft.Parent) -> list[object]:
    result = parent.result
    return [parent.task_id, parent.state, f"{len(result)} bytes" if isinstance(result, bytes) else result]


def join(ctx: lineshaft.Context) -> list[list[object]]:
    return [shown(parent) for parent in ctx.parents()]


def leave_artifact(ctx: lineshaft.Context) -> None:
    ctx.artifact("x.txt", b"x")


def square(x: int) -> dict[str, int]:
    print("squaring", flush=True)
    return {"square": x * x, "pid": os.getpid()}


def spin(ctx: lineshaft.Context) -> None:
    ctx.progress(0.5, f"{os.getpid()}")
    while True:
        pass


def stubborn(ctx: lineshaft.Context) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    beside = subprocess.Popen(["sleep", "100"])
    ctx.progress(0.5, f"{beside.pid}")
    time.sleep(100)


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(3)


def fail_with_surrogate() -> None:
    raise OSError("bad \udcff name")


def end_child() -> list[int]:
    """How processes end that this one forks and then signals."""
    codes = []
    for number in (signal.SIGTERM, signal.SIGINT):
        sleeps, is_child = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(is_child, b"x")
                for _ in range(10_000):  # Python may miss a signal between its last check and a sleep.
                    time.sleep(0.01)
            except KeyboardInterrupt:
                os._exit(130)
            finally:
                os._exit(9)
        if number == signal.SIGINT:  # Its exception must not hit the start of the child.
            os.read(sleeps, 1)
        os.kill(child, number)
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            time.sleep(0.01)
        codes.append(os.waitstatus_to_exitcode(ended[1]))
    return codes
