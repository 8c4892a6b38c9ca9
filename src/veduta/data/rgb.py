"""Pillow's images of any mode -> RGB arrays, without its doubles of large ones."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIECE = 1 << 22  # pixels of a large image that are converted at a time


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image of 8 bits per channel, what is transparent on white.

    Large ones are converted in pieces: Pillow takes four bytes for a pixel, and six more for a moment.
    """
    width, height = image.size
    if width * height <= PIECE:
        return _to_rgb(image)
    image.load()
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, PIECE // width)
    for top in range(0, height, rows):
        pixels[top : top + rows] = _to_rgb(image.crop((0, top, width, min(top + rows, height))))
    return pixels


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
