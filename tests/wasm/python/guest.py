"""A guest in Python. Its first argument says what it does."""

import collections
import json
import os
import socket
import sys

from componentize_py_types import Err
from wit_world import exports


class Run(exports.Run):
    def run(self) -> None:
        action = {"count": count, "fail": fail, "allocate": allocate, "escape": escape}[sys.argv[1]]
        action()
        sys.stdout.flush()


def count():
    words = json.load(sys.stdin)["text"].split()
    print(json.dumps(collections.Counter(words)), os.environ["CUSTOMER"], end="")


def fail():
    print("not today", file=sys.stderr, flush=True)
    raise Err(None)


def allocate():
    blocks = []
    while True:
        blocks.append(bytearray(1 << 20))


def escape():
    """Succeeds if nothing outside can be reached."""
    for path in ("/etc/passwd", "/", ".", "../../etc/passwd"):
        try:
            os.stat(path)
        except OSError:
            continue
        sys.exit(f"reached {path}")
    try:
        socket.socket().connect(("127.0.0.1", 80))
    except OSError:
        print("nothing reached", end="")
