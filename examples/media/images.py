"""What is done with one image. Knows nothing of tasks."""

import hashlib
import io

from PIL import Image, ImageOps

THUMBNAIL_PIXELS = 256


def thumbnail(path):
    """A JPEG that fits into a square, upright."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * THUMBNAIL_PIXELS, 2 * THUMBNAIL_PIXELS))
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    return content.getvalue()


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def metadata(path):
    with Image.open(path) as image:
        return {"format": image.format, "width": image.width, "height": image.height, "mode": image.mode}
