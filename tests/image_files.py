"""Image files of every kind, in memory: what tests of reading are made of."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from layouts import TINY, paint
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from veduta.data.bands import ENCODING

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


def encode_part(pixels: Pixels, compression: str) -> tuple[bytes, dict[int, Any]]:
    """A strip as libtiff encodes it, and the tags that belong to it."""
    height = pixels.shape[0]
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "TIFF", compression=compression, tiffinfo={Tag.RowsPerStrip: height})
    with Image.open(data) as image:
        tags: dict[int, Any] = {tag: image.tag_v2[tag] for tag in ENCODING if tag in image.tag_v2}  # type: ignore[attr-defined]
        (start,), (size,) = image.tag_v2[Tag.StripOffsets], image.tag_v2[Tag.StripByteCounts]  # type: ignore[attr-defined]
    return data.getvalue()[start : start + size], tags


def tiled(pixels: Pixels, tile: tuple[int, int], compression: str = "tiff_adobe_deflate") -> bytes:
    """A tiled TIFF. At the right and the bottom tiles reach beyond the image, as they do in files."""
    height, width = pixels.shape[:2]
    down, across = -(-height // tile[0]), -(-width // tile[1])
    beyond = ((0, down * tile[0] - height), (0, across * tile[1] - width), (0, 0))[: pixels.ndim]
    padded = np.pad(pixels, beyond, mode="edge")
    tiles: list[bytes] = []
    tags: dict[int, Any] = {}
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            data, tags = encode_part(padded[top : top + tile[0], left : left + tile[1]], compression)
            tiles.append(data)
    return assembled(tags, (height, width), tile, tiles)


def assembled(tags: dict[int, Any], size: tuple[int, int], tile: tuple[int, int], tiles: list[bytes]) -> bytes:
    directory = ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
    directory[Tag.ImageLength], directory[Tag.ImageWidth] = size
    directory[Tag.TileLength], directory[Tag.TileWidth] = tile
    directory[Tag.TileByteCounts] = tuple(len(data) for data in tiles)
    starts = np.cumsum([0, *map(len, tiles)])[:-1]
    directory[Tag.TileOffsets] = tuple(starts.tolist())
    length = 8 + len(directory.tobytes(8))
    directory[Tag.TileOffsets] = tuple((starts + length).tolist())
    file = io.BytesIO()
    directory.save(file)
    return file.getvalue() + b"".join(tiles)
