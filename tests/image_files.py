"""Image files of every kind, in memory: what tests of reading are made of."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from layouts import TINY, paint
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

IMAGE, TRAIN_IDS = paint(0, TINY.num_classes)
FILE_IDS = TINY.decode(TRAIN_IDS)
COLORS = np.array([*(c.color for c in TINY.classes), (0, 0, 0)], np.uint8)[np.minimum(TRAIN_IDS, TINY.num_classes)]
SMOOTH = cv2.resize(IMAGE[::8, ::8], (61, 45), interpolation=cv2.INTER_CUBIC).astype(np.uint8)  # survives JPEG
ORIENTATION = 0x0112
QUARTER_TURN = 6  # shown upright after a quarter turn clockwise

# EXIF orientation -> how an upright array is stored.
STORED_AS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}


def encoded(image: Image.Image | Pixels, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(data, format=kind, **options)
    return data.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, *, bits: int, color: int, rows: bytes, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG of any header; rows are not compressed yet."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def exif(orientation: object) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()
