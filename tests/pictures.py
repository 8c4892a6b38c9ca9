"""The same few pictures for every layout: photos as JPEG bytes, objects that are rectangles, VOC's classes.

What a layout reads back must equal `expected` for all of them; no layout has a say in what the truth is.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veduta.data.label_maps import VOC
from veduta.data.sample import Sample


@dataclass(frozen=True)
class Thing:
    """An object: the pixels [top, bottom) x [left, right) are of class `train_id` (1..20), and so is its box."""

    train_id: int
    left: int
    top: int
    right: int
    bottom: int
    difficult: bool = False


@dataclass(frozen=True)
class Picture:
    """name: as VOC's, no ending. jpeg: the encoded photo. things: they do not overlap; in the order of the file."""

    name: str
    jpeg: bytes
    size: tuple[int, int]  # height, width
    things: tuple[Thing, ...]

    @property
    def mask(self) -> NDArray[np.uint8]:
        """(H, W) uint8 train ids of VOC; 0 background, no void."""
        mask = np.zeros(self.size, np.uint8)
        for thing in self.things:
            mask[thing.top : thing.bottom, thing.left : thing.right] = thing.train_id
        return mask

    @property
    def expected(self) -> Sample:
        with Image.open(io.BytesIO(self.jpeg)) as image:
            pixels = np.asarray(image.convert("RGB"))
        corners = [(thing.left, thing.top, thing.right, thing.bottom) for thing in self.things]
        return Sample(
            image=pixels,
            name=self.name,
            mask=self.mask,
            boxes=np.array(corners, np.float32).reshape(-1, 4),
            box_classes=np.array([thing.train_id for thing in self.things], np.int64),
            box_difficult=np.array([thing.difficult for thing in self.things], np.bool_),
        )


def _photo(seed: int, size: tuple[int, int]) -> bytes:
    """A smooth random photo: decoders agree on it to a grey level or two."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8))
    data = io.BytesIO()
    small.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(data, format="JPEG", quality=92)
    return data.getvalue()


def _picture(name: str, seed: int, size: tuple[int, int], *things: Thing) -> Picture:
    return Picture(name=name, jpeg=_photo(seed, size), size=size, things=things)


PICTURES: dict[str, tuple[Picture, ...]] = {
    "train": (
        _picture("2008_000001", 1, (48, 64), Thing(15, 4, 6, 20, 40), Thing(7, 30, 10, 62, 30, difficult=True)),
        _picture("2008_000002", 2, (60, 45), Thing(1, 0, 0, 45, 20)),
        _picture("2008_000003", 3, (40, 56)),
        _picture(
            "2008_000004", 4, (48, 64), Thing(20, 50, 30, 64, 48), Thing(20, 1, 1, 9, 9), Thing(12, 20, 20, 40, 33)
        ),
    ),
    "val": (
        _picture("2009_000001", 5, (56, 48), Thing(12, 8, 8, 40, 50)),
        _picture("2009_000002", 6, (48, 64), Thing(15, 0, 12, 10, 48), Thing(2, 12, 0, 33, 21)),
    ),
}

LABELS = VOC
