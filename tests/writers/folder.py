"""The folder layout with labels.json: images and index masks side by side."""

from pathlib import Path

from pictures import LABELS, PICTURES
from PIL import Image
from pydantic import TypeAdapter

from veduta.labels import LabelMap


def write(root: Path) -> Path:
    for split, pictures in PICTURES.items():
        (root / "images" / split).mkdir(parents=True)
        (root / "masks" / split).mkdir(parents=True)
        for picture in pictures:
            (root / "images" / split / f"{picture.name}.jpg").write_bytes(picture.jpeg)
            Image.fromarray(LABELS.decode(picture.mask)).save(root / "masks" / split / f"{picture.name}.png")
    (root / "labels.json").write_bytes(TypeAdapter(LabelMap).dump_json(LABELS))
    return root
