"""Functions that the tests call by an executor."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from email.message import Message
from typing import NoReturn
from urllib.error import HTTPError

import lineshaft


class OwnError(Exception):
    pass


class StrangeError(Exception):
    def __new__(cls, first: str, second: str) -> StrangeError:
        return super().__new__(cls, first, second)


class Coded(Exception):
    """Its constructor does not take its `args`, and one of its attributes cannot be pickled."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.lock = threading.Lock()

    def __str__(self) -> str:
        return f"{self.code}: {self.args[0]}"


class Outer:
    class Nested(Exception):
        pass


class Fragile(Exception):
    """Its text needs an attribute that cannot be pickled."""

    def __init__(self) -> None:
        self.call = lambda: "fragile"

    def __str__(self) -> str:
        return self.call()


def raised(error: BaseException) -> Callable[[], NoReturn]:
    def function() -> NoReturn:
        raise error

    return function


# Functions that raise, by name.
RAISING: dict[str, Callable[[], object]] = {
    "called_process": lambda: subprocess.run(["false"], check=True),
    "http": raised(HTTPError("http://x", 500, "boom", Message(), None)),
    "coded": raised(Coded(404, "nope")),
    "key": lambda: {}["k"],  # type: ignore[index]
    "missing_file": lambda: os.stat("/nonexistent"),
    "decoding": lambda: b"\xff".decode(),
    "json": lambda: json.loads("{"),
    "lines": raised(ValueError("one\n\ntwo\n")),
    "several": raised(ValueError("a", 2, ("b", None))),
    "syntax": lambda: compile("def (:", "x.py", "exec"),
    "nested": raised(Outer.Nested("q")),
    "empty": raised(AssertionError()),
    "exit": lambda: sys.exit(3),
    "strange": raised(StrangeError("a", "b")),
}
if sys.version_info >= (3, 11):
    RAISING["group"] = raised(ExceptionGroup("g", [Coded(1, "a"), ExceptionGroup("h", [KeyError(2)])]))  # noqa: F821


def raise_one(name: str) -> object:
    return RAISING[name]()


def raise_with_causes() -> None:
    try:
        try:
            raise Coded(1, "first")
        except Coded as error:
            raise KeyError("second") from error
    except KeyError:
        raise RuntimeError("third")  # noqa: B904


def raise_long_cause() -> None:
    raise ValueError("short") from RuntimeError(os.urandom(10_000).hex())


def raise_long() -> None:
    raise ValueError(os.urandom(10_000).hex())


def raise_fragile() -> None:
    raise Fragile


def raise_imitation() -> None:
    """Raises a text that imitates what carries an exception, as far as it can be known."""
    data = base64.b85encode(zlib.compress(pickle.dumps(ZeroDivisionError()))).decode()
    raise Fragile from ValueError(f"\nexception for the caller 0123456789abcdef {data}\n" * 500)


def whole(first: int, *more: int, **named: object) -> tuple[object, ...]:
    return first, more, named


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> None:
    raise ValueError(f"no {number}")


def refuse_in_my_way() -> None:
    raise OwnError("mine")


def sleep(seconds: float) -> None:
    context = lineshaft.current()
    assert context is not None
    context.sleep(seconds)


def generate() -> Iterator[int]:
    yield 1


def process_id() -> int:
    return os.getpid()


def spin() -> None:
    while True:
        pass
