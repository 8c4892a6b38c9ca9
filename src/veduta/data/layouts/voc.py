"""PASCAL VOC, any year: photos, boxes in XML, palette masks, and a list of names for each split.

Everingham et al. 2010, "The PASCAL visual object classes challenge". ROOT is the folder of a year, or holds it:
    VOC2012/JPEGImages/NAME.jpg
    VOC2012/Annotations/NAME.xml              boxes in pixels counted from 1, the last one included
    VOC2012/SegmentationClass/NAME.png        palette PNG: class indices, 255 along the borders of objects
    VOC2012/ImageSets/Segmentation/train.txt  names; ImageSets/Main/train.txt: the names for detection
    VOC2012/labels.txt                        class names, background first, where they are not VOC's own
and for split train_aug, whose masks were made of SBD's:
    VOC2012/SegmentationClassAug/NAME.png     VOC2012/ImageSets/Segmentation/train_aug.txt
"""

import os
import re
from functools import partial
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from veduta.data.label_maps import VOC, with_background
from veduta.data.layout import (
    Boxes,
    FileDataset,
    Layout,
    NoMask,
    Painted,
    Record,
    read_lines,
    refuse_repeats,
    unknown_split,
)
from veduta.data.stored import Stored
from veduta.labels import LabelMap

LISTS = ("train", "val", "trainval", "test")
AUGMENTED = ("Segmentation/train_aug.txt", "Segmentation/trainaug.txt", "SegmentationAug/train_aug.txt")
MASKS = ("SegmentationClass", "SegmentationClassAug")  # an image's mask is looked for in this order
SPLIT = re.compile(r"(\d{4}/)?(main-)?(train|val|trainval|test|train_aug)(?::(.+))?")

MAX_XML = 1 << 21  # bytes, thousands of objects; VOC's largest has some 20,000
MAX_PIXEL = 1e6  # a coordinate beyond it is no pixel
MAX_FOLDERS = 1000  # a folder of more entries does not hold data sets, it is one


def open_voc(root: Path, split: str) -> FileDataset[str]:
    """One split, in the order of its list.

    train, val, trainval, test: the lists for segmentation, with masks, and boxes where there are annotations.
    main-train and so on: the lists for detection, with boxes; an image without a mask is all void.
    main-train:person: of main-train the images that show a person, be it a difficult one (1 and 0 in the class's list).
    train_aug: VOC's train and SBD without VOC's val; where an image has two masks, VOC's.
    Lists named test have boxes if any image has, and masks if the first has. With several years below `root`:
    2007/main-trainval.
    """
    years = find_years(root)
    if not years:
        raise FileNotFoundError(
            f"{root} holds no year of VOC. --data must be a folder VOC<year> with ImageSets, or the folder above it."
        )
    match = SPLIT.fullmatch(split)
    folder = years.get(match[1] or "") if match else None
    if match is None or folder is None:
        raise unknown_split(f"VOC in {root}", split, _splits(root))
    _, main, name, of_class = match.groups()
    labels = _read_labels(folder)
    if name == "train_aug" and not main and not of_class:
        index = _augmented_list(folder)
    else:
        stem = f"{of_class}_{name}" if of_class else name
        index = folder / "ImageSets" / ("Main" if main else "Segmentation") / f"{stem}.txt"
    if not index.is_file() or (of_class and of_class not in labels.names[1:]):
        raise unknown_split(f"{index} is no list of a split. VOC in {root}", split, _splits(root))
    names = read_names(index, of_class=bool(of_class))
    first_mask = folder / MASKS[0] / f"{names[0]}.png"
    annotated = any((folder / "Annotations" / f"{n}.xml").is_file() for n in names)  # where one is, all must be
    has_boxes = annotated or (bool(main) and name != "test")
    has_masks = (has_boxes and first_mask.parent.is_dir()) if main else (first_mask.is_file() or name != "test")
    masks = MASKS[: 2 if name == "train_aug" else 1] if has_masks else ()
    record_of = partial(_record, folder, labels, masks=masks, void_without_mask=bool(main), has_boxes=has_boxes)
    return FileDataset(labels, names, record_of)


def find_years(root: Path) -> dict[str, Path]:
    """What goes before the name of a split -> folder VOC<year>: "" for a single year, else "2007/", "2012/"."""
    if (root / "ImageSets").is_dir():
        return {"": root}
    below = [path for folder in (root, root / "VOCdevkit") for path in folders_in(folder)]
    years = {p.name[3:]: p for p in below if re.fullmatch(r"VOC\d{4}", p.name) and (p / "ImageSets").is_dir()}
    return {f"{year}/" if len(years) > 1 else "": path for year, path in sorted(years.items())}


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in `folder`, sorted; none where it cannot be read or holds too much to be a wrapper."""
    try:
        with os.scandir(folder) as entries:
            found = list(islice(entries, MAX_FOLDERS + 1))
    except OSError:
        return []
    return sorted(Path(entry.path) for entry in found if entry.is_dir()) if len(found) <= MAX_FOLDERS else []


def read_names(index: Path, *, of_class: bool = False) -> list[str]:
    """A list of names, one in each line; those of a class have flags: 1 shows it, 0 only difficult ones, -1 not at all.

    Names with -1 are left out. Raises ValueError naming the line that is none, a repeat, or an empty list.
    """
    names = []
    for number, line in read_lines(index):
        match line.split(), of_class:
            case ([name], False) | ([name, "1" | "0"], True):
                names.append(name)
            case [_, "-1"], True:
                pass
            case _:
                expected = "`name flag` with flag 1, 0 or -1" if of_class else "one name"
                raise ValueError(f"{index}, line {number}: expected {expected}, found '{line}'.")
    if not names:
        raise ValueError(f"{index} lists no images.")
    refuse_repeats(names, index)
    return names


def _augmented_list(folder: Path) -> Path:
    found = [path for path in (folder / "ImageSets" / name for name in AUGMENTED) if path.is_file()]
    if not found or not (folder / MASKS[1]).is_dir():
        missing = folder / MASKS[1] if found else folder / "ImageSets" / AUGMENTED[0]
        raise FileNotFoundError(
            f"{missing} not found. Split train_aug needs a list of its names and SBD's masks as PNG in {MASKS[1]}. "
            "Data set sbd has the same split made of SBD's own .mat files, with VOC2012 beside them."
        )
    return found[0]


def _read_labels(folder: Path) -> LabelMap:
    path = folder / "labels.txt"
    if not path.is_file():
        return VOC
    background, *names = [line for _, line in read_lines(path)] or [""]
    if background != "background" or not names:
        raise ValueError(
            f"{path}: expected background in the first line and a class in each other, got '{background}'."
        )
    try:
        return VOC if tuple(names) == VOC.names[1:] else with_background(folder.name, tuple(names))
    except ValueError as error:
        raise ValueError(f"{path}: {len(names)} names are no label map ({error}).") from error


def _record(
    folder: Path, labels: LabelMap, name: str, *, masks: tuple[str, ...], void_without_mask: bool, has_boxes: bool
) -> Record:
    paths = [folder / part / f"{name}.png" for part in masks]
    mask: Stored | Painted | None = next((Stored(path) for path in paths if path.is_file()), None)
    if paths and mask is None:
        mask = NoMask(paths[0]) if void_without_mask else Stored(paths[-1])
    return Record(
        name=name,
        image=Stored(folder / "JPEGImages" / f"{name}.jpg"),
        mask=mask,
        boxes=read_boxes(folder / "Annotations" / f"{name}.xml", labels) if has_boxes else None,
    )


class _Tree(ElementTree.TreeBuilder):
    def doctype(self, name: str, public_id: str | None, system: str | None) -> None:
        raise ValueError("it declares a DOCTYPE, and entities are not read")


def read_boxes(path: Path, labels: LabelMap) -> Boxes:
    """The objects of an annotation file; their parts (head, hand, foot) are none. Pixels count from 0 in what it gives.

    Raises FileNotFoundError, and ValueError naming the file for what is no annotation and for a class not in `labels`.
    """
    if path.is_file() and (size := path.stat().st_size) > MAX_XML:
        raise ValueError(f"{path}: {size:,} bytes, the limit is {MAX_XML:,}. Is it the right file?")
    data = Stored(path).read()
    try:
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_Tree()))
    except (SyntaxError, LookupError, ValueError) as error:  # a ParseError is a SyntaxError
        raise ValueError(f"{path}: not readable XML ({error}). Copy it again.") from error
    if root.tag != "annotation":
        raise ValueError(f"{path}: expected <annotation>, found <{root.tag}>. Is it an annotation of VOC?")
    train_ids = {name: train_id for train_id, name in enumerate(labels.names) if train_id}  # 0 is the background
    corners, classes, difficult = [], [], []
    for number, element in enumerate(root.findall("object"), start=1):
        name, flag = _text(element, "name"), _text(element, "difficult") or "0"
        if name not in train_ids or flag not in ("0", "1"):
            raise ValueError(
                f"{path}, object {number}: class '{name}', difficult '{flag}'. Expected difficult 0 or 1, and one of "
                f"the classes {', '.join(train_ids)}. Other classes are listed in a labels.txt beside Annotations."
            )
        box = [_pixel(_text(element, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
        if None in box:
            raise ValueError(f"{path}, object {number}: expected a <bndbox> with numbers as xmin, ymin, xmax, ymax.")
        corners.append(box)
        classes.append(train_ids[name])
        difficult.append(flag == "1")
    return Boxes(
        xyxy=np.array(corners, np.float32).reshape(-1, 4) - np.array([1, 1, 0, 0], np.float32),
        classes=np.array(classes, np.int64),
        difficult=np.array(difficult, np.bool_),
        source=path,
    )


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _pixel(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < MAX_PIXEL else None


def _splits(root: Path) -> tuple[str, ...]:
    found = []
    for prefix, folder in find_years(root).items():
        sets = folder / "ImageSets"
        found += [f"{prefix}{name}" for name in LISTS if (sets / "Segmentation" / f"{name}.txt").is_file()]
        if (folder / MASKS[1]).is_dir() and any((sets / name).is_file() for name in AUGMENTED):
            found.append(f"{prefix}train_aug")
        found += [f"{prefix}main-{name}" for name in LISTS if (sets / "Main" / f"{name}.txt").is_file()]
    return tuple(found)


LAYOUT = Layout(open=open_voc, splits=_splits, about="PASCAL VOC 2007 to 2012, or any VOC<year>: masks and boxes")
