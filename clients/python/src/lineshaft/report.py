"""Reports of a program that a process handler with `reports = true` starts.

Elsewhere a report does nothing, and the result goes to stdout.
"""

from __future__ import annotations

import os
import sys


def progress(fraction: float, note: str = "") -> None:
    """Shows the progress, 0 to 1, and a note."""
    _report(f"progress {fraction:.6f} {note}")


def result(data: bytes | str, content_type: str = "") -> None:
    """Writes the result. Several calls add to it. Without a content type it has that of the handler."""
    if content_type:
        _report(f"content-type {content_type}")
    encoded = data.encode() if isinstance(data, str) else data
    path = os.environ.get("LINESHAFT_RESULT")
    if path is None:
        sys.stdout.buffer.write(encoded)
        sys.stdout.buffer.flush()
        return
    with open(path, "wb") as pipe:
        pipe.write(encoded)


def error(message: str) -> None:
    """Sets the message of the failure if the program exits with another code than 0."""
    _report(f"error {message}")


def no_retry() -> None:
    """Prevents a retry if the program exits with another code than 0."""
    _report("no-retry")


def retry_after(seconds: float) -> None:
    """Sets the time of the retry if the program exits with another code than 0."""
    _report(f"retry-after {seconds:.6f}")


def _report(line: str) -> None:
    path = os.environ.get("LINESHAFT_REPORT")
    if path is None:
        return
    with open(path, "wb") as pipe:
        pipe.write(" ".join(line.split()).encode() + b"\n")
