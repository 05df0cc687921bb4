"""Runs examples/media with the package as a user installs it: `media.py BIN`, the `bin` folder of its environment."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "media"
IMAGES = 6
sys.path.insert(0, str(ROOT / "tests" / "clients"))
from documents import start  # noqa: E402
from harness import Server  # noqa: E402


def main() -> None:
    python = pathlib.Path(sys.argv[1]) / "python"
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        server = Server(os.environ["LINESHAFT_BINARY"], folder / "server", (EXAMPLE / "lineshaft.toml").read_text())
        try:
            env = dict(os.environ, LINESHAFT_ADDRESS="{}:{}".format(*server.address), PYTHONDONTWRITEBYTECODE="1")
            run(python, folder, env)
        finally:
            server.end()


def run(python: pathlib.Path, folder: pathlib.Path, env: dict[str, str]) -> None:
    workers = [start([python, EXAMPLE / "worker.py", pool], folder, env) for pool in ("images", "files")]
    photos = folder / "photos"
    command = [python, EXAMPLE / "media.py", photos, "--create", str(IMAGES)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    wanted = rf"{IMAGES} images with \d+ megapixels\nsequential .* images/s\nparallel .* times as fast\n"
    if done.returncode != 0 or not re.fullmatch(wanted, done.stdout):
        sys.exit(f"media.py printed\n{done.stdout}{done.stderr}")
    assert done.stderr.endswith(f"{3 * IMAGES} of {3 * IMAGES} tasks\n"), done.stderr
    print("ok media.py")

    paths = sorted(photos.iterdir())
    lines = "".join(json.dumps(str(path)) + "\n" for path in paths)

    def lineshaft(*arguments: str, text: str = "") -> bytes:
        command = [env["LINESHAFT_BINARY"], *arguments]
        call = dict(env, LINESHAFT_SERVER=env["LINESHAFT_ADDRESS"])
        return subprocess.run(
            command, env=call, input=text.encode(), capture_output=True, check=True, timeout=60
        ).stdout

    results = [json.loads(line) for line in lineshaft("map", "--json", "thumbnail", text=lines).splitlines()]
    assert [result["artifact"] for result in results] == [f"{path.stem}.thumbnail.jpg" for path in paths], results
    (newest,) = lineshaft(
        "task", "list", "--handler", "thumbnail", "-n", "1", "--columns", "id", "--no-headers"
    ).splitlines()
    (name,) = {result["artifact"] for result in results} & set(
        lineshaft("artifact", "list", newest.decode(), "--columns", "name", "--no-headers").decode().split()
    )
    content = lineshaft("artifact", "get", newest.decode(), name, "--to", "-")
    assert content.startswith(b"\xff\xd8") and len(content) == dict((r["artifact"], r["bytes"]) for r in results)[name]
    print("ok lineshaft map")
    for worker in workers:
        worker.terminate()
        assert worker.wait(30) == 0, worker.returncode


if __name__ == "__main__":
    main()
