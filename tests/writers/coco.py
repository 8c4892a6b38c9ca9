"""COCO's layout: outlines in turns as a polygon, as run lengths and as compressed run lengths; ids with gaps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pictures import LABELS, PICTURES, Picture, Thing


def write(root: Path) -> Path:
    (root / "annotations").mkdir(parents=True)
    for split in PICTURES:
        (root / split).mkdir()
        for picture in PICTURES[split]:
            (root / split / f"{picture.name}.jpg").write_bytes(picture.jpeg)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content(split)))
    return root


def content(split: str) -> dict[str, Any]:
    """The JSON of a split; annotations come before the images that they belong to."""
    pictures = PICTURES[split]
    pairs = [(number, thing) for number, picture in enumerate(pictures) for thing in picture.things]
    return {
        "annotations": [_annotation(i, number, pictures[number], thing) for i, (number, thing) in enumerate(pairs)],
        "categories": [{"id": 3 * i + 1, "name": name} for i, name in reversed([*enumerate(LABELS.names)][1:])],
        "images": [
            {"id": 10 + i, "file_name": f"{p.name}.jpg", "height": p.size[0], "width": p.size[1]}
            for i, p in enumerate(pictures)
        ],
    }


def _annotation(index: int, number: int, picture: Picture, thing: Thing) -> dict[str, Any]:
    width, height = thing.right - thing.left, thing.bottom - thing.top
    mask = np.zeros(picture.size, np.bool_)
    mask[thing.top : thing.bottom, thing.left : thing.right] = True
    corners = [thing.left, thing.top, thing.right, thing.top, thing.right, thing.bottom, thing.left, thing.bottom]
    outlines = ([corners], runs(mask), {**runs(mask), "counts": compressed(runs(mask)["counts"])})
    return {
        "id": 500 + index,
        "image_id": 10 + number,
        "category_id": 3 * thing.train_id + 1,
        "bbox": [thing.left, thing.top, width, height],
        "area": width * height,
        "iscrowd": 0,
        "segmentation": outlines[index % 3],
    }


def runs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Run lengths of a mask (H, W), down its columns, outside first."""
    pixels = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(pixels, append=not pixels[-1])) + 1
    counts = np.diff(ends, prepend=0).tolist()
    return {"counts": [0, *counts] if pixels[0] else counts, "size": list(mask.shape)}


def compressed(counts: list[int]) -> str:
    """Run lengths as text: from the fourth on the difference to the last but one, five bits a character."""
    text = ""
    for i, count in enumerate(counts):
        rest = count - counts[i - 2] if i > 2 else count
        while True:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text
