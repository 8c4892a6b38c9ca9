"""Reading images and masks: encoded bytes -> arrays, within limits, whatever odd file it is."""

import io
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from veduta.data.stored import Stored
from veduta.labels import LabelMap

MAX_PIXELS = 178_956_970  # decoded images beyond this are refused before any memory is taken (0.5 GiB of RGB)

DEEP_MODES = ("I", "F")  # Pillow's 32-bit greys; its 16-bit ones begin with I;16


class Picture(Protocol):
    """An image whose size is known before its pixels are decoded. size: (height, width), upright."""

    size: tuple[int, int]

    def pixels(self, *, shrink: int = 1) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB; where that is cheaper, smaller by up to `shrink` (1, 2, 4 or 8) on each side."""
        ...


class StoredPicture:
    """A Picture on disk. Raises ValueError for what is no image or too large, from its header alone."""

    def __init__(self, source: Stored) -> None:
        self.source = source
        with _open(source) as image:
            upright = image.getexif().get(0x0112, 1) < 5
            self.size = (image.height, image.width) if upright else (image.width, image.height)

    def pixels(self, *, shrink: int = 1) -> NDArray[np.uint8]:
        return read_rgb(self.source)


class DecodedPicture:
    """A Picture that is an array (H, W, 3) uint8 already."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.image = image
        self.size = (image.shape[0], image.shape[1])

    def pixels(self, *, shrink: int = 1) -> NDArray[np.uint8]:
        return self.image


def _open(source: Stored) -> Image.Image:
    """Open lazily: the header is read and judged, no pixel is decoded yet."""
    try:
        image = Image.open(io.BytesIO(source.read()))
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{source}: not a readable image ({error}). Replace the file or take it off the list."
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{source}: {image.width} x {image.height} pixels, the limit is {MAX_PIXELS:,}. Cut it into tiles."
        )
    return image


def read_rgb(source: Stored | Path) -> NDArray[np.uint8]:
    """Image file -> (H, W, 3) uint8 RGB, upright by its EXIF orientation. Grey, palette and CMYK are converted.

    Raises ValueError for what is no readable image, is too large or has more than 8 bits of grey, naming the file.
    """
    source = Stored(source) if isinstance(source, Path) else source
    with _open(source) as image:
        if image.mode in DEEP_MODES or image.mode.startswith("I;16"):
            raise ValueError(
                f"{source}: one channel of more than 8 bits (mode {image.mode}); conversion would cut its values off "
                "at 255. Scale it to 8 bits first."
            )
        try:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"{source}: cannot be decoded ({error}). Replace the file or take it off the list."
            ) from error


def read_mask(source: Stored | Path, labels: LabelMap) -> NDArray[np.uint8]:
    """Index mask file (8-bit grey or palette) -> (H, W) uint8 train ids, void as 255.

    Raises ValueError for colour masks, 16-bit masks and values outside the label map, naming the file.
    """
    source = Stored(source) if isinstance(source, Path) else source
    with _open(source) as image:
        if image.mode not in ("L", "P"):
            raise ValueError(
                f"{source}: a mask must hold one 8-bit class index per pixel (grey or palette PNG), this one is of "
                f"mode {image.mode}. Convert colours to the indices of label map '{labels.name}' first."
            )
        if isinstance(image, ImageFile.ImageFile) and image.tile and image.tile[0][3] in ("L;2", "L;4"):
            raise ValueError(
                f"{source}: a grey mask of 2 or 4 bits, whose values reading stretches to 0..255. Save it with 8 bits."
            )
        try:
            ids = np.asarray(ImageOps.exif_transpose(image))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"{source}: cannot be decoded ({error}). Replace the file or take it off the list."
            ) from error
    return labels.encode(ids, path=source)
