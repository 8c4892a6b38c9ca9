"""LabelMe's layout, with classes.csv: objects in turns as a polygon and as a rectangle drawn from below."""

import json
from pathlib import Path
from typing import Any

from pictures import LABELS, PICTURES, Picture, Thing


def write(root: Path) -> Path:
    for split, pictures in PICTURES.items():
        (root / split).mkdir(parents=True)
        for picture in pictures:
            (root / split / f"{picture.name}.jpg").write_bytes(picture.jpeg)
            (root / split / f"{picture.name}.json").write_text(json.dumps(content(picture)))
    rows = (f"{entry.file_id},{entry.name},{','.join(map(str, entry.color))}\n" for entry in LABELS.classes)
    (root / "classes.csv").write_text("index,name,r,g,b\n" + "".join(rows))
    return root


def content(picture: Picture) -> dict[str, Any]:
    """The JSON of a picture."""
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [_shape(i, thing) for i, thing in enumerate(picture.things)],
        "imagePath": f"{picture.name}.jpg",
        "imageData": None,
        "imageHeight": picture.size[0],
        "imageWidth": picture.size[1],
    }


def _shape(index: int, thing: Thing) -> dict[str, Any]:
    left, top, right, bottom = map(float, (thing.left, thing.top, thing.right, thing.bottom))
    kind = ("polygon", "rectangle")[index % 2]
    points = {
        "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]],
        "rectangle": [[right, bottom], [left, top]],
    }
    name = LABELS.names[thing.train_id]
    return {"label": name, "points": points[kind], "group_id": None, "shape_type": kind, "flags": {}}
