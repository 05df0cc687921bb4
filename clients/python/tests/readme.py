"""Runs the programs of README.md with the package as a user installs it: `readme.py BIN`, the `bin` folder of its environment.

`<!-- program: NAME -->` before a block of Python makes it a program. A text block after it is what it must print.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tests" / "clients"))
from harness import Server  # noqa: E402

PROGRAM = re.compile(
    r"<!-- program: (\S+) -->\n```python\n(.*?)```\n(?:(?!<!-- program|^## ).)*?```text\n(.*?)```",
    re.DOTALL | re.MULTILINE,
)


def main() -> None:
    python = pathlib.Path(sys.argv[1]) / "python"
    programs = PROGRAM.findall((HERE.parent / "README.md").read_text())
    if not programs:
        sys.exit("README.md has no programs")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        server = Server(os.environ["LINESHAFT_BINARY"], folder / "server", "")
        try:
            env = dict(os.environ, LINESHAFT_ADDRESS="{}:{}".format(*server.address))
            for name, text, wanted in programs:
                (folder / name).write_text(text)
                done = subprocess.run([python, name], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
                if done.returncode != 0 or done.stdout != wanted:
                    sys.exit(f"{name} of README.md printed\n{done.stdout}{done.stderr}\ninstead of\n{wanted}")
                print(f"ok {name}")
        finally:
            server.end()


if __name__ == "__main__":
    main()
