"""A program that reports, run by a server."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import Server, address, binary

import lineshaft

SOURCES = pathlib.Path(lineshaft.__file__).parents[1]

PROGRAM = """
import os, sys
from lineshaft import report
word = sys.stdin.read()
report.progress(0.5, "half\\n way")
if word == "never":
    report.error("no such customer")
    report.no_retry()
    sys.exit(1)
if word == "later" and os.environ["LINESHAFT_ATTEMPT"] == "1":
    report.retry_after(0.01)
    sys.exit(1)
print("not the result")
report.result(word.upper(), "text/x-upper")
report.result(b"!")
"""


@pytest.fixture
def client(tmp_path: pathlib.Path) -> Iterator[lineshaft.Client]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    config = f"""
[[handler]]
name = "shout"
runner = "process"
argv = ["{sys.executable}", "{program}"]
env = {{ PYTHONPATH = "{SOURCES}" }}
reports = true
retry = {{ attempts = 3, delay = "10m" }}
"""
    server = Server(binary(), tmp_path / "run", config)
    with lineshaft.Client(address(server)) as made:
        yield made
    server.end()


def test_a_program_reports_its_progress_its_result_and_retries(client: lineshaft.Client) -> None:
    task = client.submit("shout", b"later")
    result = task.result(timeout=60)
    info = task.info()
    assert result == lineshaft.Payload(b"LATER!", "text/x-upper")
    # The note of the progress is in the log of the attempt.
    assert (info.attempt, task.output("stderr")) == (2, b"half way\n")
    with pytest.raises(lineshaft.TaskFailed) as met:
        client.run("shout", b"never")
    assert "no such customer" in str(met.value)


def test_without_a_server_the_result_goes_to_stdout() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=b"x", capture_output=True, env={"PYTHONPATH": str(SOURCES)}
    )
    assert run.returncode == 0 and run.stdout == b"X!not the result\n", run
