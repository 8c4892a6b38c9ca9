"""TFRecord files with Examples, as DeepLab and BlitzNet write them; no TensorFlow."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from checkpoint_writers import part, varint
from numpy.typing import NDArray
from pictures import PICTURES, Picture
from PIL import Image

from veduta.ops.crc32c import masked_crc32c

Values = bytes | str | Sequence[int] | Sequence[float]


def example(features: Mapping[str, Values]) -> bytes:
    """An Example: bytes and text become a list of one, numbers are packed."""
    entries = (part(1, part(1, name.encode()) + part(2, _feature(values))) for name, values in features.items())
    return part(1, b"".join(entries))


def _feature(values: Values) -> bytes:
    if isinstance(values, str | bytes):
        return part(1, part(1, values if isinstance(values, bytes) else values.encode()))
    if any(isinstance(value, float) for value in values):
        return part(2, part(1, np.array(values, "<f4").tobytes()))
    return part(3, part(1, b"".join(varint(int(value)) for value in values)))


def framed(data: bytes) -> bytes:
    """A record: length and data, each with its checksum."""
    length = len(data).to_bytes(8, "little")
    return b"".join((length, _checksum(length), data, _checksum(data)))


def _checksum(data: bytes) -> bytes:
    return masked_crc32c(data).to_bytes(4, "little")


def save(path: Path, examples: Iterable[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(framed, examples)))
    return path


def png(mask: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(mask).save(data, format="PNG")
    return data.getvalue()


def deeplab_features(picture: Picture) -> dict[str, Values]:
    height, width = picture.size
    return {
        "image/encoded": picture.jpeg,
        "image/filename": picture.name,
        "image/format": "jpeg",
        "image/height": [height],
        "image/width": [width],
        "image/channels": [3],
        "image/segmentation/class/encoded": png(picture.mask),
        "image/segmentation/class/format": "png",
    }


def blitznet_features(picture: Picture) -> dict[str, Values]:
    height, width = picture.size
    things = picture.things
    return {
        "image/encoded": picture.jpeg,
        "image/format": "JPEG",
        "image/filename": f"{picture.name}.jpg",
        "image/height": [height],
        "image/width": [width],
        "image/object/bbox/xmin": [thing.left / width for thing in things],
        "image/object/bbox/ymin": [thing.top / height for thing in things],
        "image/object/bbox/xmax": [thing.right / width for thing in things],
        "image/object/bbox/ymax": [thing.bottom / height for thing in things],
        "image/object/class/label": [thing.train_id for thing in things],
        "image/object/difficulty": [int(thing.difficult) for thing in things],
        "image/segmentation/encoded": png(picture.mask),
        "image/segmentation/format": "PNG",
    }


def write_deeplab(root: Path) -> Path:
    """Two files a split."""
    for split, pictures in PICTURES.items():
        for shard in range(2):
            examples = (example(deeplab_features(picture)) for picture in pictures[shard::2])
            save(root / f"{split}-{shard:05d}-of-00002.tfrecord", examples)
    return root


def write_blitznet(root: Path) -> Path:
    """One file a split, without an ending."""
    for split, pictures in PICTURES.items():
        save(root / split, (example(blitznet_features(picture)) for picture in pictures))
    return root
