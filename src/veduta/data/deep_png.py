"""PNGs of 16 bits per channel -> 8 bits: their standard says what is black (0) and white (65535)."""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veduta.data.rgb import PIECE, to_rgb

STEP = 257  # 65535 / 255


def read_deep_png(data: bytes) -> NDArray[np.uint8]:
    """A PNG file of grey, grey with alpha, RGB or RGBA of 16 bits -> (H, W, 3) uint8 RGB, as stored.

    Every value v becomes round(v / 257); the rest is as of an 8-bit PNG. Raises ValueError or OSError if it is damaged.
    """
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        transparent = image.info.get("transparency") if image.mode == "I;16" else None  # OpenCV leaves grey opaque
        image.verify()  # Pillow says what is damaged; it would cut colours off at 8 bits, OpenCV gives them all
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if deep is None or deep.dtype != np.uint16:
        raise ValueError("its pixels are damaged")
    if deep.ndim == 3:
        deep = deep[..., [2, 1, 0, 3][: deep.shape[2]]]
    pixels = np.empty((*deep.shape[:2], 3), np.uint8)
    rows = max(1, PIECE // deep.shape[1])
    for top in range(0, len(deep), rows):
        piece = deep[top : top + rows]
        if transparent is not None:
            piece = np.dstack([piece, np.where(piece == transparent, 0, 65535)])
        shallow = ((piece.astype(np.uint32) + STEP // 2) // STEP).astype(np.uint8)
        pixels[top : top + rows] = to_rgb(Image.fromarray(shallow))
    return pixels
