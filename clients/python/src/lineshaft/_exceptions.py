"""Carries the exceptions of an executor's calls from its workers to the caller, in the detail of the failure.

The detail begins with a line that has the pickled exception. It starts with a key that only the payload of the call has: a text
in an exception, which anyone may have sent, is never taken for it.
"""

from __future__ import annotations

import base64
import contextlib
import io
import pickle
import types
import zlib
from collections.abc import Callable
from typing import Any

PROTOCOL = 4
"""Of pickle; all supported versions of Python read it."""
LINE_BYTES_MAX = 4_000
"""Of the 8,000 bytes of a detail; the traceback has the rest."""
PICKLE_BYTES_MAX = 1 << 20

_LABEL = "exception for the caller"


def dump(error: BaseException, key: str) -> str:
    """The line for an exception with its causes, or without them if they cannot be carried; empty if it cannot either."""
    for with_causes in (True, False):
        try:
            data = _dumps(error, with_causes)
            if len(data) > PICKLE_BYTES_MAX or not _is_same(pickle.loads(data), error):
                continue
            line = f"{_LABEL} {key} {base64.b85encode(zlib.compress(data)).decode()}\n"
        except Exception:  # Code of any class runs here.
            continue
        if len(line) <= LINE_BYTES_MAX:
            return line
    return ""


def load(detail: str, key: str) -> tuple[BaseException | None, str]:
    """The exception of a detail, if it has that of this call and it can be made here; and the rest of the detail."""
    line, end, rest = detail.partition("\n")
    start = f"{_LABEL} {key} "
    if not end or not line.startswith(start):
        return None, detail
    try:
        data = zlib.decompressobj().decompress(base64.b85decode(line.removeprefix(start)), PICKLE_BYTES_MAX)
        made = pickle.loads(data)
        str(made)
    except Exception:  # Its class may be missing here, or fail.
        return None, rest
    return made if isinstance(made, BaseException) else None, rest


def _dumps(error: BaseException, with_causes: bool) -> bytes:
    file = io.BytesIO()
    _Pickler(file, with_causes).dump(error)
    return file.getvalue()


def _is_same(made: Any, error: BaseException) -> bool:
    return type(made) is type(error) and str(made) == str(error)


class _Pickler(pickle.Pickler):
    """Adds to exceptions what pickle leaves out, and leaves out what keeps them from being pickled."""

    def __init__(self, file: io.BytesIO, with_causes: bool) -> None:
        super().__init__(file, PROTOCOL)
        self._with_causes = with_causes

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, BaseException):
            return NotImplemented
        causes = (value.__cause__, value.__context__, value.__suppress_context__) if self._with_causes else None
        made: Callable[..., Any]
        if _survives(value) and isinstance(reduced := value.__reduce_ex__(PROTOCOL), tuple):
            made, arguments = reduced[:2]
            state = reduced[2] if len(reduced) > 2 else None
        elif (members := getattr(value, "exceptions", None)) and hasattr(value, "derive"):
            made, arguments, state = type(value), (value.args[0], list(members)), _attributes(value)
        else:
            # Its class takes other arguments than `args`, or has attributes that cannot be pickled.
            made, arguments, state = _without_init, (type(value),), {"args": value.args, **_attributes(value)}
        return made, arguments, (state, causes), None, None, _set_state


def _survives(value: Any) -> bool:
    """Whether pickle alone makes the same value again."""
    try:
        made = pickle.loads(pickle.dumps(value, PROTOCOL))
        return not isinstance(value, BaseException) or (_is_same(made, value) and bool(made.args == value.args))
    except Exception:
        return False


def _attributes(error: BaseException) -> dict[str, Any]:
    """The attributes that can be pickled, also those of built-in classes, such as `errno`."""
    found = {
        name: getattr(error, name, None)
        for kind in type(error).__mro__
        for name, member in vars(kind).items()
        if isinstance(member, types.MemberDescriptorType) and not name.startswith("__")
    }
    found.update(vars(error))
    return {name: value for name, value in found.items() if value is not None and _survives(value)}


def _without_init(kind: type[BaseException]) -> BaseException:
    builtin: Any = next(one for one in kind.__mro__ if one.__module__ == "builtins")
    made: BaseException = builtin.__new__(kind)
    return made


def _set_state(error: BaseException, state: tuple[Any, tuple[Any, Any, bool] | None]) -> None:
    own, causes = state
    if isinstance(own, dict):
        for name, value in own.items():
            with contextlib.suppress(AttributeError, TypeError):  # Read-only.
                setattr(error, name, value)
    elif own is not None:
        error.__setstate__(own)
    if causes is not None:
        error.__cause__, error.__context__, error.__suppress_context__ = causes
