"""Runs examples/media with the package as a user installs it: `media.py BIN`, the `bin` folder of its environment."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import re
import shutil
import struct
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
            env = dict(os.environ, LINESHAFT_SERVER="{}:{}".format(*server.address), PYTHONDONTWRITEBYTECODE="1")
            run(python, folder, env)
            if shutil.which("go"):
                run_wasm(python, folder, env)
            else:
                print("skipped media.py --wasm: Go was not found")
        finally:
            server.end()


def run(python: pathlib.Path, folder: pathlib.Path, env: dict[str, str]) -> None:
    workers = [start([python, EXAMPLE / "worker.py", pool], folder, env) for pool in ("images", "files")]
    photos = folder / "photos"
    compare(python, env, [photos, "--create", str(IMAGES)], tasks=3 * IMAGES)

    paths = sorted(photos.iterdir())
    lines = "".join(json.dumps(str(path)) + "\n" for path in paths)

    results = [json.loads(line) for line in lineshaft(env, "map", "--json", "thumbnail", text=lines).splitlines()]
    assert [result["artifact"] for result in results] == [f"{path.stem}.thumbnail.jpg" for path in paths], results
    (newest,) = lineshaft(
        env, "task", "list", "--handler", "thumbnail", "-n", "1", "--columns", "id", "--no-headers"
    ).splitlines()
    (name,) = {result["artifact"] for result in results} & set(
        lineshaft(env, "artifact", "list", newest.decode(), "--columns", "name", "--no-headers").decode().split()
    )
    content = lineshaft(env, "artifact", "get", newest.decode(), name, "--to", "-")
    assert content.startswith(b"\xff\xd8") and len(content) == dict((r["artifact"], r["bytes"]) for r in results)[name]
    print("ok lineshaft map")
    for worker in workers:
        worker.terminate()
        assert worker.wait(30) == 0, worker.returncode


def run_wasm(python: pathlib.Path, folder: pathlib.Path, env: dict[str, str]) -> None:
    module = folder / "image.wasm"
    target = dict(os.environ, GOOS="wasip1", GOARCH="wasm", GOTOOLCHAIN="local")
    subprocess.run(["go", "build", "-o", module, "."], cwd=EXAMPLE / "wasm", env=target, check=True, timeout=600)
    lineshaft(
        env, "handler", "put", "image", "--wasm", str(module), "--pool", "guests", "--content-type", "application/json"
    )
    photos = folder / "photos"
    compare(python, env, [photos, "--wasm"], tasks=IMAGES)
    photo = min(photos.iterdir())
    result = json.loads(lineshaft(env, "task", "run", "image", "--payload", f"@{photo}"))
    size, thumbnail = (result["format"], result["width"], result["height"]), base64.b64decode(result["thumbnail"])
    assert size == ("JPEG", 3200, 2400), size
    # The sizes in its JPEG frame header, which follows the quantization tables.
    frame = thumbnail.index(b"\xff\xc0")
    assert struct.unpack(">HH", thumbnail[frame + 5 : frame + 9]) == (192, 256), thumbnail[frame : frame + 9]
    (folder / "none.jpg").write_bytes(b"no image")
    failed = lineshaft(env, "task", "run", "image", "--payload", f"@{folder / 'none.jpg'}", "--attempts", "1", code=1)
    assert b"FAILED HANDLER_ERROR" in failed, failed


def compare(python: pathlib.Path, env: dict[str, str], arguments: list[str | pathlib.Path], tasks: int) -> None:
    """Runs the program and checks what it prints."""
    command = [python, EXAMPLE / "media.py", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    wanted = rf"{IMAGES} images with \d+ megapixels\nsequential .* images/s\nparallel .* times as fast\n"
    if done.returncode != 0 or not re.fullmatch(wanted, done.stdout):
        sys.exit(f"media.py printed\n{done.stdout}{done.stderr}")
    assert done.stderr.endswith(f"{tasks} of {tasks} tasks\n"), done.stderr
    print(f"ok {' '.join(['media.py', *map(str, arguments[1:])])}")


def lineshaft(env: dict[str, str], *arguments: str, text: str = "", code: int = 0) -> bytes:
    done = subprocess.run(
        [env["LINESHAFT_BINARY"], *arguments], env=env, input=text.encode(), capture_output=True, timeout=300
    )
    assert done.returncode == code, (arguments, done)
    return done.stderr if code else done.stdout


if __name__ == "__main__":
    main()
