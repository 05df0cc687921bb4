"""Copies what the functions of a worker print and log into the output of their tasks."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any, TextIO

from lineshaft import _codec
from lineshaft.context import current

_lock = threading.Lock()
_users = 0


class _Tee:
    """`sys.stdout` or `sys.stderr` while a worker runs: writes on, and to the task of the present function."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        context = current()
        # The logging handler below has its own way: a log line that another handler prints is not output twice.
        if context is not None and text and sys._getframe(1).f_code.co_filename != logging.__file__:
            context._write(self._name, text)
        return self._stream.write(text)

    def flush(self) -> None:
        context = current()
        if context is not None:
            context._flush()
        self._stream.flush()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _LogHandler(logging.Handler):
    """Writes log records to the task of the present function."""

    def emit(self, record: logging.LogRecord) -> None:
        context = current()
        if context is not None:
            try:
                line = self.format(record)
            except Exception:  # from a wrong record
                self.handleError(record)
                return
            context._reporter.output("stderr", (_codec.text(line) + "\n").encode())
        if len(logging.root.handlers) == 1 and record.levelno >= logging.WARNING and logging.lastResort is not None:
            # As if this handler, the only one, was not there.
            logging.lastResort.handle(record)


_log_handler = _LogHandler()
_log_handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))


def start() -> None:
    """Begins to copy; several workers may do so."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            sys.stdout = _Tee(sys.stdout, "stdout")
            sys.stderr = _Tee(sys.stderr, "stderr")
            logging.root.addHandler(_log_handler)


def end() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            if isinstance(sys.stdout, _Tee):
                sys.stdout = sys.stdout._stream
            if isinstance(sys.stderr, _Tee):
                sys.stderr = sys.stderr._stream
            logging.root.removeHandler(_log_handler)
