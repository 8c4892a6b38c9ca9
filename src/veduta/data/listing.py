"""List files of a split: which samples it has, in its order, for people and for other programs."""

import os
from pathlib import Path
from typing import Any

from veduta.data.layout import FileDataset, Record
from veduta.data.stored import Stored


def list_lines(dataset: FileDataset[Any], root: Path) -> list[str]:
    """One line a sample, tab-separated: the image, then its mask or the index of its class. Paths are relative to root.

    Where samples lie inside record files, or masks are painted from polygons, there is no file to name: then the lines
    are the names of the samples.
    """
    names: list[str] = []
    lines: list[str] = []
    for index in range(len(dataset)):
        record = dataset.record(index)
        names.append(record.name)
        if len(lines) == index and not record.image.part and (record.mask is None or isinstance(record.mask, Stored)):
            lines.append("\t".join(_words(record, root)))
    return lines if len(lines) == len(names) else names


def _words(record: Record, root: Path) -> list[str]:
    words = [os.path.relpath(record.image.path, root)]
    if isinstance(record.mask, Stored):
        words.append(os.path.relpath(record.mask.path, root))
    if record.scene_class is not None:
        words.append(str(record.scene_class))
    return words
