"""Runs the functions of images.py as tasks: `worker.py images` and `worker.py files`, on as many machines as you like."""

import os
import pathlib
import sys

import images
import lineshaft

pool = sys.argv[1]
cores = os.cpu_count() or 1
worker = lineshaft.Worker(pool=pool, concurrency=cores if pool == "images" else 4 * cores)

if pool == "images":

    @worker.handler
    def thumbnail(path, ctx):
        content = images.thumbnail(path)
        ctx.progress(0.9, "storing")
        name = pathlib.Path(path).stem + ".thumbnail.jpg"
        ctx.artifact(name, content)
        return {"artifact": name, "bytes": len(content)}

else:
    worker.handler("digest")(images.digest)
    worker.handler("metadata")(images.metadata)


if __name__ == "__main__":
    worker.run()
