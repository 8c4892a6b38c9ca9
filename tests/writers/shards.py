"""Shards as another program writes them, with Python's tarfile, and the index that Veduta makes for them."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from pictures import LABELS, PICTURES, Picture
from pydantic import TypeAdapter

from veduta.data.layouts.shards import index_shards
from veduta.labels import LabelMap
from writers.tfrecord import png


def save(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar of these files, in Python's default format: with extended headers, because a time has fractions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000.25
            tar.addfile(info, io.BytesIO(data))
    return path


def files_of(picture: Picture) -> dict[str, bytes]:
    boxes = [
        {
            "box": [thing.left, thing.top, thing.right, thing.bottom],
            "class": LABELS.names[thing.train_id],
            "difficult": thing.difficult,
        }
        for thing in picture.things
    ]
    return {
        f"{picture.name}.jpg": picture.jpeg,
        f"{picture.name}.mask.png": png(picture.mask),
        f"{picture.name}.json": json.dumps({"name": picture.name, "boxes": boxes}).encode(),
    }


def write(root: Path) -> Path:
    """Two shards a split."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.json").write_bytes(TypeAdapter(LabelMap).dump_json(LABELS))
    for split, pictures in PICTURES.items():
        for shard in range(2):
            files = {name: data for picture in pictures[shard::2] for name, data in files_of(picture).items()}
            save(root / f"{split}-{shard:06d}.tar", files)
        index_shards(root, split, lambda done, total: None)
    return root
