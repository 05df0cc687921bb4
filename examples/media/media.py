"""Processes a folder of images in this process and then as tasks, and compares the times: `media.py FOLDER`.

`media.py FOLDER --create 24` first fills the folder with images.
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
    arguments = parser.parse_args()
    create(arguments.folder, arguments.create)
    paths = sorted(str(path.resolve()) for path in arguments.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        sys.exit(f"{arguments.folder} has no images; --create 24 creates some")

    start = time.monotonic()
    expected = [(len(images.thumbnail(path)), images.digest(path), images.metadata(path)) for path in paths]
    sequential = time.monotonic() - start

    start = time.monotonic()
    found = process(paths)
    parallel = time.monotonic() - start

    if found != expected:
        sys.exit("the tasks have other results")
    pixels = sum(metadata["width"] * metadata["height"] for _, _, metadata in found)
    print(f"{len(paths)} images with {pixels / 1e6:.0f} megapixels")
    print(f"sequential  {sequential:6.2f} s  {len(paths) / sequential:6.1f} images/s")
    print(
        f"parallel    {parallel:6.2f} s  {len(paths) / parallel:6.1f} images/s  {sequential / parallel:.1f} times as fast"
    )


def process(paths):
    """The results of all tasks: three for each image."""
    with lineshaft.Client() as client:
        tasks = {
            handler: [client.submit(handler, path) for path in paths] for handler in ("thumbnail", "digest", "metadata")
        }
        everything = [task for some in tasks.values() for task in some]
        for done, _ in enumerate(lineshaft.as_completed(everything), 1):
            print(
                f"\r{done} of {len(everything)} tasks",
                end="\n" if done == len(everything) else "",
                file=sys.stderr,
                flush=True,
            )
        results = ([task.result() for task in some] for some in tasks.values())
        return [(thumbnail["bytes"], digest, metadata) for thumbnail, digest, metadata in zip(*results)]


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
