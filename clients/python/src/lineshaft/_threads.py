"""Threads for functions, as many as are needed at a time: a task that waits for others keeps its thread.

To wake a thread costs more than to run a function that does little. So the functions that have been quick lately share one
thread, and are taken from it again when one of them is not quick.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable

from lineshaft._attempt import Attempt

logger = logging.getLogger("lineshaft")

QUICK_SECONDS = 0.0002
WINDOW = 16
"""Calls after which a function is judged again, by the shortest of them: others may have waited for the interpreter."""
STUCK_SECONDS = 0.002
SLOW_CALLS = 1_000
"""Calls for which a function that has kept others waiting is not trusted to be quick."""


class _Pace:
    """How long the calls of one function take."""

    __slots__ = ("_calls", "_distrust", "_least", "is_quick")

    def __init__(self) -> None:
        self.is_quick = False
        self._calls = 0
        self._least = float("inf")
        self._distrust = 0

    def add(self, seconds: float) -> None:
        # Calls in several threads may lose an update of these numbers, which does no harm.
        self._calls += 1
        self._least = min(self._least, seconds)
        if self._calls >= WINDOW:
            self._distrust -= self._calls
            self.is_quick = self._least < QUICK_SECONDS and self._distrust <= 0
            self._calls, self._least = 0, float("inf")

    def distrust(self) -> None:
        self.is_quick = False
        self._distrust = SLOW_CALLS


class Threads:
    """Runs attempts of plain functions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle = 0
        self._attempts: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        self._paces: dict[str, _Pace] = {}
        self._quick: deque[Attempt] = deque()
        self._quick_work = threading.Event()
        self._quick_backlog = threading.Event()
        self._quick_started = False
        self._quick_runs: tuple[Attempt, float] | None = None

    def run(self, attempts: Iterable[Attempt]) -> None:
        """Starts attempts; each begins at once."""
        quick: list[Attempt] = []
        for attempt in attempts:
            pace = self._paces.get(attempt.handler.name)
            if pace is not None and pace.is_quick and not attempt.handler.process:
                quick.append(attempt)
            else:
                self._start(attempt)
        if quick:
            self._quick.extend(quick)
            if not self._quick_started:
                self._quick_started = True
                threading.Thread(target=self._run_quick, name="lineshaft-quick", daemon=True).start()
                threading.Thread(target=self._free_those_behind, name="lineshaft-watch-quick", daemon=True).start()
            if not self._quick_work.is_set():
                self._quick_work.set()
            if not self._quick_backlog.is_set():
                self._quick_backlog.set()

    def _start(self, attempt: Attempt) -> None:
        with self._lock:
            start = self._idle == 0
            if not start:
                self._idle -= 1
        self._attempts.put(attempt)
        if start:
            threading.Thread(target=self._work, name="lineshaft-task", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._call(self._attempts.get())
            with self._lock:
                self._idle += 1

    def _call(self, attempt: Attempt) -> None:
        begin = time.monotonic()
        try:
            attempt.run()
        except BaseException:
            logger.exception("an attempt could not be reported")
        name = attempt.handler.name
        pace = self._paces.get(name)
        if pace is None:
            pace = self._paces.setdefault(name, _Pace())
        pace.add(time.monotonic() - begin)

    def _run_quick(self) -> None:
        while True:
            self._quick_work.wait()
            self._quick_work.clear()
            while True:
                try:
                    attempt = self._quick.popleft()
                except IndexError:
                    break
                self._quick_runs = (attempt, time.monotonic())
                self._call(attempt)
                self._quick_runs = None

    def _free_those_behind(self) -> None:
        """Gives what waits behind a function that is not quick this time to other threads."""
        while True:
            self._quick_backlog.wait()
            self._quick_backlog.clear()
            while self._quick:
                time.sleep(STUCK_SECONDS)
                running = self._quick_runs
                if running is None or time.monotonic() - running[1] < STUCK_SECONDS:
                    continue
                self._paces[running[0].handler.name].distrust()
                while self._quick:
                    try:
                        self._start(self._quick.popleft())
                    except IndexError:
                        break
