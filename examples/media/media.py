"""Processes a folder of images in this process and then as tasks, and compares the times: `media.py FOLDER`.

`media.py FOLDER --create 24` first fills the folder with images. With `--wasm` a WebAssembly module processes them, first one
after the other and then at the same time.
"""

import argparse
import pathlib
import sys
import time

import images
import lineshaft
from PIL import Image

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--create", type=int, default=0, metavar="N", help="first create N images")
    parser.add_argument("--wasm", action="store_true", help="use the handler of wasm/main.go")
    arguments = parser.parse_args()
    create(arguments.folder, arguments.create)
    paths = sorted(str(path.resolve()) for path in arguments.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        sys.exit(f"{arguments.folder} has no images; --create 24 creates some")

    (compare_wasm if arguments.wasm else compare)(paths)


def compare(paths):
    start = time.monotonic()
    expected = [(len(images.thumbnail(path)), images.digest(path), images.metadata(path)) for path in paths]
    sequential = time.monotonic() - start

    start = time.monotonic()
    found = process(paths)
    parallel = time.monotonic() - start

    if found != expected:
        sys.exit("the tasks have other results")
    report([metadata for _, _, metadata in found], sequential, parallel)


def process(paths):
    """The results of all tasks: three for each image."""
    with lineshaft.Client() as client:
        tasks = {
            handler: [client.submit(handler, path) for path in paths] for handler in ("thumbnail", "digest", "metadata")
        }
        show_progress([task for some in tasks.values() for task in some])
        results = ([task.result() for task in some] for some in tasks.values())
        return [(thumbnail["bytes"], digest, metadata) for thumbnail, digest, metadata in zip(*results)]


def compare_wasm(paths):
    with lineshaft.Client() as client:

        def submit(path):
            # The module returns the same again: a retry does not help.
            return client.submit("image", pathlib.Path(path).read_bytes(), retry=1)

        start = time.monotonic()
        expected = [submit(path).result() for path in paths]
        sequential = time.monotonic() - start

        start = time.monotonic()
        tasks = [submit(path) for path in paths]
        show_progress(tasks)
        found = [task.result() for task in tasks]
        parallel = time.monotonic() - start

    if found != expected or [one["sha256"] for one in found] != [images.digest(path) for path in paths]:
        sys.exit("the tasks have other results")
    report(found, sequential, parallel)


def show_progress(tasks):
    for done, _ in enumerate(lineshaft.as_completed(tasks), 1):
        print(
            f"\r{done} of {len(tasks)} tasks", end="\n" if done == len(tasks) else "", file=sys.stderr, flush=True
        )


def report(metadata, sequential, parallel):
    pixels = sum(one["width"] * one["height"] for one in metadata)
    print(f"{len(metadata)} images with {pixels / 1e6:.0f} megapixels")
    print(f"sequential  {sequential:6.2f} s  {len(metadata) / sequential:6.1f} images/s")
    print(
        f"parallel    {parallel:6.2f} s  {len(metadata) / parallel:6.1f} images/s  {sequential / parallel:.1f} times as fast"
    )


def create(folder, number):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        size = (3200 + 16 * index, 2400)
        gray = Image.effect_noise(size, 64 + index)
        Image.merge("RGB", (gray, gray.rotate(180), Image.linear_gradient("L").resize(size))).save(
            folder / f"image-{index:03}.jpg"
        )


if __name__ == "__main__":
    main()
