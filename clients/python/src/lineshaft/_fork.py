"""Keeps connections and signals usable in a process that forks.

gRPC supports a fork only while no thread is inside one of its calls. Otherwise the child gets a copy of its locks and queues
as that thread has left them, and crashes or hangs on its first call. So before a fork, new calls wait, calls under way get a
moment to end, and those that go on, such as a watch, are cancelled with their channel. Afterwards both processes open new
channels, and the parent repeats what was cancelled.

A forked process has the signal handlers of its parent. Those of a worker would keep it alive on SIGTERM, so it gets back the
ones from before.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

logger = logging.getLogger("lineshaft")

END_SECONDS = 1.0
"""How long a fork waits for calls to end by themselves."""
CANCEL_SECONDS = 5.0
"""How long it then waits for cancelled calls."""


class Calls:
    """The calls of one connection that are under way."""

    def __init__(self, close_channel: Callable[[], None], forget_channel: Callable[[], None]) -> None:
        self.forks = 0
        """Number of forks of this process so far."""
        self._close_channel = close_channel
        self._forget_channel = forget_channel
        self._reset()
        with _lock:
            _all.add(self)

    def _reset(self) -> None:
        # Its lock can be taken twice: a signal handler may fork.
        self._changed = threading.Condition()
        self._count = 0
        self._long = 0  # of these, calls that end only when something happens
        self._forking = 0  # thread that is about to fork

    def begin(self, is_long: bool = False) -> int:
        """Before a call: waits while the process forks. Returns the number of forks so far."""
        with self._changed:
            while self._forking not in (0, threading.get_ident()):
                self._changed.wait()
            self._count += 1
            self._long += is_long
            return self.forks

    def end(self, is_long: bool = False) -> None:
        with self._changed:
            self._count -= 1
            self._long -= is_long
            if self._forking:
                self._changed.notify_all()

    def _hold(self) -> None:
        with self._changed:
            self._forking = threading.get_ident()
            self.forks += 1

    def _wait(self, deadline: float, or_long: bool) -> bool:
        """Waits until no call is under way, or only long ones."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._count == (self._long if or_long else 0), max(0.0, deadline - time.monotonic())
            )

    def _release(self) -> None:
        with self._changed:
            self._forking = 0
            self._changed.notify_all()


_lock = threading.RLock()
_all: weakref.WeakSet[Calls] = weakref.WeakSet()
_held: list[Calls] = []


def _before() -> None:
    _lock.acquire()
    _held[:] = _all
    for calls in _held:
        calls._hold()
    deadline = time.monotonic() + END_SECONDS
    for calls in _held:
        calls._wait(deadline, or_long=True)
        calls._close_channel()
    deadline = time.monotonic() + CANCEL_SECONDS
    for calls in _held:
        if not calls._wait(deadline, or_long=False):
            logger.warning("a call has not ended before a fork: calls of the child process may crash or hang")


def _after_in_parent() -> None:
    for calls in _held:
        calls._release()
    _held.clear()
    _lock.release()


def _after_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for calls in _held:
        calls._reset()
        calls._forget_channel()
    _held.clear()


_signals: dict[int, tuple[Any, Any]] = {}  # by number: the handler of the worker, and the one from before


def handle_signals(handlers: Mapping[int, Callable[[int, FrameType | None], None]]) -> None:
    """Installs signal handlers that forked processes do not inherit. In the main thread."""
    with _lock:  # No fork sees a handler that is not noted yet.
        for number, handler in handlers.items():
            _signals[number] = (handler, signal.signal(number, handler))


def restore_signals() -> None:
    """Installs the handlers from before again, except where the program has installed its own meanwhile."""
    with _lock:
        for number, (handler, before) in _signals.items():
            if signal.getsignal(number) is handler:
                # None: not installed from Python.
                signal.signal(number, signal.SIG_DFL if before is None else before)
        _signals.clear()


_mask: set[int] | None = None


def _block_signals() -> None:
    """Until the child has its own handlers: the one of the worker would swallow a signal that comes before."""
    global _mask
    _mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, _signals)) if _signals else None


def _unblock_signals() -> None:
    if _mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask)


def _restore_signals_in_child() -> None:
    restore_signals()  # The forked thread is the main thread of its process.
    _unblock_signals()


if hasattr(os, "register_at_fork"):
    # The last one registered runs first before a fork, and last after it: `_before` keeps other forks away meanwhile.
    os.register_at_fork(
        before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_restore_signals_in_child
    )
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
