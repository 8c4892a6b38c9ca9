"""PASCAL VOC's layout: VOCdevkit/VOC2012 with the lists for segmentation, for detection and of classes."""

from pathlib import Path

from pictures import LABELS, PICTURES, Picture, Thing
from PIL import Image


def write(root: Path) -> Path:
    write_year(root / "VOCdevkit" / "VOC2012")
    return root


def write_year(folder: Path) -> Path:
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    for split, pictures in PICTURES.items():
        names = "".join(f"{picture.name}\n" for picture in pictures)
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text(names)
        (folder / f"ImageSets/Main/{split}.txt").write_text(names)
        for train_id, name in enumerate(LABELS.names[1:], start=1):
            lines = (f"{picture.name} {_flag(picture, train_id):2d}\n" for picture in pictures)
            (folder / f"ImageSets/Main/{name}_{split}.txt").write_text("".join(lines))
        for picture in pictures:
            (folder / f"JPEGImages/{picture.name}.jpg").write_bytes(picture.jpeg)
            (folder / f"Annotations/{picture.name}.xml").write_text(annotation(picture))
            mask = Image.fromarray(picture.mask)
            mask.putpalette(LABELS.palette.tobytes())
            mask.save(folder / f"SegmentationClass/{picture.name}.png")
    return folder


def annotation(picture: Picture) -> str:
    height, width = picture.size
    objects = "".join(_object(thing) for thing in picture.things)
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{picture.name}.jpg</filename>{size}{objects}</annotation>"


def _object(thing: Thing) -> str:
    head = f"<part><name>head</name>{_box(0, 0, 2, 2)}</part>"
    box = _box(thing.left, thing.top, thing.right, thing.bottom)
    name, difficult = LABELS.names[thing.train_id], int(thing.difficult)
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>{head}{box}</object>"


def _box(left: int, top: int, right: int, bottom: int) -> str:
    rows, columns = f"<ymin>{top + 1}</ymin><ymax>{bottom}</ymax>", f"<xmax>{right}</xmax><xmin>{left + 1}</xmin>"
    return f"<bndbox>{columns}{rows}</bndbox>"


def _flag(picture: Picture, train_id: int) -> int:
    difficult = [thing.difficult for thing in picture.things if thing.train_id == train_id]
    return -1 if not difficult else 0 if all(difficult) else 1
