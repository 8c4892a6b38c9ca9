"""Masks that show each class in its colour: colours -> train ids, exactly or not at all."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.data.label_maps import bit_reversed_color
from veduta.labels import IGNORE_INDEX, LabelMap


def decode_colors(colors: NDArray[np.uint8], labels: LabelMap, *, path: object) -> NDArray[np.uint8]:
    """A mask of class colours (H, W, 3) uint8 RGB -> (H, W) uint8 train ids, void as 255. Only exact colours count.

    A label map knows no colour of void. It is black where no class is black; and where the classes have VOC's palette,
    so has void: (224, 224, 192) for 255. Raises ValueError for a colour that is no class, or two classes of one colour.
    """
    known = dict.fromkeys(_void_colors(labels), IGNORE_INDEX)
    for train_id, entry in enumerate(labels.classes):
        if known.get(entry.color, IGNORE_INDEX) != IGNORE_INDEX:
            other = labels.classes[known[entry.color]].name
            raise ValueError(
                f"{path}: a mask of colours, but label map '{labels.name}' gives '{other}' and '{entry.name}' the same "
                f"colour {entry.color}. Give every class a colour of its own, or write masks of class indices."
            )
        known[entry.color] = train_id
    codes = cv2.cvtColor(colors, cv2.COLOR_RGB2RGBA).view("<u4")[..., 0] & 0xFFFFFF  # a pixel's bytes as one number
    ids = _color_table(tuple(known.items())).take(codes)  # train ids + 1
    if not ids.all():
        row, column = (int(v) for v in np.argwhere(ids == 0)[0])
        count = int((codes == codes[row, column]).sum())
        others = len(np.unique(codes[ids == 0])) - 1
        raise ValueError(
            f"{path}: colour {tuple(colors[row, column].tolist())} at row {row}, column {column} ({count:,} pixels"
            f"{f'; also {others:,} other colours' if others else ''}) is no class of label map '{labels.name}' "
            f"({', '.join(f'{c.color} {c.name}' for c in labels.classes)}). Correct the mask or the colours, or write "
            "masks of class indices."
        )
    return (ids - 1).astype(np.uint8)


@lru_cache(maxsize=1)  # the masks of a run have one label map
def _color_table(known: tuple[tuple[tuple[int, int, int], int], ...]) -> NDArray[np.uint16]:
    """A colour as a number (red + 256 green + 65536 blue) -> train id + 1, 0 for a colour that is not known."""
    table = np.zeros(1 << 24, np.uint16)
    for (red, green, blue), train_id in known:
        table[red | green << 8 | blue << 16] = train_id + 1
    return table


def _void_colors(labels: LabelMap) -> list[tuple[int, int, int]]:
    """Black, unless the palette says it; a class of the same colour goes first."""
    if all(c.color == bit_reversed_color(c.file_id) for c in labels.classes):
        return [bit_reversed_color(i) for i in labels.void_ids]
    return [(0, 0, 0)] if labels.void_ids else []
