"""Functions that the tests call by an executor."""

from __future__ import annotations

import os
from collections.abc import Iterator

import lineshaft


class OwnError(Exception):
    pass


class StrangeError(Exception):
    def __new__(cls, first: str, second: str) -> StrangeError:
        return super().__new__(cls, first, second)


def whole(first: int, *more: int, **named: object) -> tuple[object, ...]:
    return first, more, named


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> None:
    raise ValueError(f"no {number}")


def refuse_in_my_way() -> None:
    raise OwnError("mine")


def refuse_strangely() -> None:
    raise StrangeError("a", "b")


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
