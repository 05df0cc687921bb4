"""Runs the programs of documents with the package as a user installs it: `documents.py BIN`, the `bin` folder of its environment.

`<!-- program: NAME -->` before a block of Python makes it a program. A text block after it is what it must print.
`<!-- worker: NAME -->` makes it a worker, which runs beside them and must end on SIGTERM.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
DOCUMENTS = ("clients/python/README.md", "docs/moving.md")
sys.path.insert(0, str(ROOT / "tests" / "clients"))
from harness import Server  # noqa: E402

PROGRAM = re.compile(
    r"<!-- program: (\S+) -->\n```python\n(.*?)```\n(?:(?!<!-- program|^## ).)*?```text\n(.*?)```",
    re.DOTALL | re.MULTILINE,
)
WORKER = re.compile(r"<!-- worker: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def main() -> None:
    python = pathlib.Path(sys.argv[1]) / "python"
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        server = Server(os.environ["LINESHAFT_BINARY"], folder / "server", "")
        try:
            env = dict(os.environ, LINESHAFT_SERVER="{}:{}".format(*server.address))
            for document in DOCUMENTS:
                run(document, python, folder, env)
        finally:
            server.end()


def run(document: str, python: pathlib.Path, folder: pathlib.Path, env: dict[str, str]) -> None:
    text = (ROOT / document).read_text()
    programs, workers = PROGRAM.findall(text), WORKER.findall(text)
    if not programs or not workers:
        sys.exit(f"{document} has no programs")
    for name, program in workers:
        (folder / name).write_text(program)
    running = [start([python, name], folder, env) for name, _ in workers]
    for name, text, wanted in programs:
        (folder / name).write_text(text)
        done = subprocess.run([python, name], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
        if done.returncode != 0 or done.stdout != wanted:
            sys.exit(f"{name} of {document} printed\n{done.stdout}{done.stderr}\ninstead of\n{wanted}")
        print(f"ok {name}")
    for worker in running:
        worker.terminate()
        if worker.wait(30) != 0:
            sys.exit(f"a worker of {document} exited with {worker.returncode}")


def start(command: list[str | pathlib.Path], folder: pathlib.Path, env: dict[str, str]) -> subprocess.Popen[str]:
    """Starts a worker and waits until it is connected."""
    worker = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    for line in worker.stderr:
        if " runs " in line:
            return worker
    sys.exit(f"{command} has ended")


if __name__ == "__main__":
    main()
