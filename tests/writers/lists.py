"""Image-mask lists: train.txt with a space between image and mask, val.txt with a tab, and labels.json."""

from pathlib import Path

from pictures import LABELS, PICTURES
from PIL import Image
from pydantic import TypeAdapter

from veduta.labels import LabelMap


def write(root: Path) -> Path:
    (root / "photos").mkdir(parents=True)
    (root / "labels").mkdir()
    for split, pictures in PICTURES.items():
        for picture in pictures:
            (root / f"photos/{picture.name}.jpg").write_bytes(picture.jpeg)
            Image.fromarray(LABELS.decode(picture.mask)).save(root / f"labels/{picture.name}.png")
        between = {"train": " ", "val": "\t"}[split]
        lines = (f"photos/{picture.name}.jpg{between}labels/{picture.name}.png\n" for picture in pictures)
        (root / f"{split}.txt").write_text("".join(lines))
    (root / "labels.json").write_bytes(TypeAdapter(LabelMap).dump_json(LABELS))
    return root
