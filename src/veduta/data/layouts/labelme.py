"""LabelMe: one JSON of drawn shapes beside every image.

As the annotation tool saves them (Wada, https://github.com/wkentaro/labelme):
    ROOT/train/NAME.json      shapes, imagePath, imageHeight, imageWidth; a copy of the image inside of it is not used
    ROOT/train/NAME.jpg       the image that imagePath names, relative to the JSON
    ROOT/labels.json or ROOT/classes.csv     the classes in your order (docs/data.md)
Polygons, rectangles and circles are painted, later ones over earlier ones. Every shape has a box, and shapes of one
label and one group_id have one together. Without a label file the classes are background and the labels of all files,
sorted. What no shape covers is background, or void where no class is called so.
"""

import os
import reprlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.label_maps import with_background
from veduta.data.layout import Boxes, FileDataset, Layout, Record, unknown_split
from veduta.data.layouts.json_file import number_at, read_json, text_at
from veduta.data.layouts.lists import has_label_map, label_map_of
from veduta.data.layouts.paint import PaintedObjects, read_polygon
from veduta.data.stored import Stored
from veduta.labels import IGNORE_INDEX, MAX_CLASSES, VOID_NAMES, LabelMap

BACKGROUND = ("background", "_background_")  # the second is the name in LabelMe's own exports
VOID = (*VOID_NAMES, "__ignore__")

CIRCLE = np.linspace(0, 2 * np.pi, 256, endpoint=False)  # a circle is painted as a polygon of so many corners
SNIFFED = 4096  # bytes within which a file of LabelMe comes to its shapes


@dataclass(frozen=True)
class Shape:
    """A drawn outline. corners: (N, 2) x, y pixels. group: of the parts of one object."""

    label: str
    corners: NDArray[np.float32]
    group: int | None


@dataclass(frozen=True)
class Drawing:
    """The content of one file. size: height and width that its image should have."""

    source: Path
    image: Path
    size: tuple[int, int]
    shapes: tuple[Shape, ...]


def open_labelme(root: Path, split: str) -> FileDataset[int]:
    """The images of ROOT/SPLIT that have a JSON file, sorted; a sample has the name of that file."""
    if not any((root / split).glob("*.json")):
        known = _splits(root)
        if known:
            raise unknown_split(f"{root}", split, known)
        raise FileNotFoundError(f"no {root / split / 'NAME.json'} found. --data must hold a folder for every split.")
    drawings = _read_folder(root, split)
    if has_label_map(root):
        labels = label_map_of(root)
    else:
        others = [drawing for other in _splits(root) if other != split for drawing in _read_folder(root, other)]
        labels = _labels_of([*drawings, *others], root.resolve().name)
    ids = {name: i for i, name in enumerate(labels.names)}
    ground = next((ids[name] for name in BACKGROUND if name in ids), IGNORE_INDEX)
    ids = dict.fromkeys(VOID, IGNORE_INDEX) | dict.fromkeys(BACKGROUND, ground) | ids
    for drawing in drawings:
        for number, shape in enumerate(drawing.shapes):
            if shape.label not in ids:
                raise ValueError(
                    f"{drawing.source}: shape {number}, label: '{shape.label}' is no class of {root} "
                    f"({', '.join(labels.names)})."
                )
    return FileDataset(labels, range(len(drawings)), partial(_record, drawings, ids, ground))


def _record(drawings: list[Drawing], ids: dict[str, int], ground: int, index: int) -> Record:
    drawing = drawings[index]
    parts: dict[tuple[str, int, bool], list[NDArray[np.float32]]] = {}  # of the objects
    for number, shape in enumerate(drawing.shapes):
        if ids[shape.label] not in (ground, IGNORE_INDEX):
            key = (shape.label, number, False) if shape.group is None else (shape.label, shape.group, True)
            parts.setdefault(key, []).append(shape.corners)
    corners = [np.concatenate(part) for part in parts.values()]
    return Record(
        name=drawing.source.stem,
        image=Stored(drawing.image),
        mask=PaintedObjects(
            drawing.source,
            drawing.size,
            tuple((ids[shape.label], (shape.corners,)) for shape in drawing.shapes),
            ground=ground,
        ),
        boxes=Boxes(
            xyxy=np.array([(*c.min(axis=0), *c.max(axis=0)) for c in corners], np.float32).reshape(-1, 4),
            classes=np.array([ids[label] for label, _, _ in parts], np.int64),
            difficult=np.zeros(len(parts), np.bool_),
            source=drawing.source,
        ),
    )


def _labels_of(drawings: list[Drawing], name: str) -> LabelMap:
    found = {shape.label for drawing in drawings for shape in drawing.shapes}
    names = sorted(found - {*BACKGROUND, *VOID})
    if len(names) >= MAX_CLASSES:
        raise ValueError(f"{name}: {len(names)} labels, the limit is {MAX_CLASSES - 1}: masks have 8 bits.")
    return with_background(name, tuple(names))


def _read_folder(root: Path, split: str) -> list[Drawing]:
    drawing_of: dict[Path, Drawing] = {}
    for path in sorted((root / split).glob("*.json")):
        drawing = _read_drawing(root, path)
        first = drawing_of.setdefault(drawing.image, drawing)
        if first is not drawing:
            raise ValueError(
                f"{path}: imagePath: {drawing.image} is the image of {first.source} already; every image counts once. "
                "Correct one, or take it out."
            )
    return list(drawing_of.values())


def _read_drawing(root: Path, path: Path) -> Drawing:
    content = read_json(path)
    try:
        shapes = content.get("shapes") if isinstance(content, dict) else None
        if not isinstance(shapes, list):
            raise ValueError("shapes: expected a list. Is it a file of LabelMe?")
        image = PureWindowsPath(text_at(content, "imagePath"))  # it may come from Windows
        place = Path(os.path.normpath(path.parent / image.as_posix()))
        if image.anchor or not _absolute(place).is_relative_to(_absolute(root)):
            raise ValueError(f"imagePath: {image} is not below {root}. Put the image beside the JSON.")
        if not place.is_file():
            raise FileNotFoundError(f"{path}: imagePath: {place} not found. Put the image there.")
        size = number_at(content, "imageHeight"), number_at(content, "imageWidth")
        return Drawing(path, place, size, tuple(_shape(number, fields) for number, fields in enumerate(shapes)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _absolute(path: Path) -> Path:
    """A path that begins at the root and has no `..`; links stay."""
    return Path(os.path.normpath(path.absolute()))


def _shape(number: int, fields: object) -> Shape:
    try:
        if not isinstance(fields, dict):
            raise ValueError(f"expected label and points, found {reprlib.repr(fields)}.")
        group = fields.get("group_id")
        if type(group) not in (int, type(None)):
            raise ValueError(f"group_id: expected a whole number or null, found {reprlib.repr(group)}.")
        return Shape(text_at(fields, "label"), _corners(fields), group)
    except ValueError as error:
        raise ValueError(f"shape {number}, {error}") from error


def _corners(fields: dict[str, Any]) -> NDArray[np.float32]:
    points = fields.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise ValueError(f"points: expected a list of [x, y], found {reprlib.repr(points)}.")
    match fields.get("shape_type", "polygon"), points:
        case "rectangle", [[x1, y1], [x2, y2]]:
            return _polygon([x1, y1, x2, y1, x2, y2, x1, y2])
        case "polygon" | "rectangle", _:
            return _polygon([value for point in points for value in point])
        case "circle", [[x, y], [edge_x, edge_y]]:
            center, edge, _ = _polygon([x, y, edge_x, edge_y, edge_x, edge_y])
            return center + np.hypot(*(edge - center)) * np.stack([np.cos(CIRCLE), np.sin(CIRCLE)], 1, dtype=np.float32)
        case kind, _:
            raise ValueError(
                f"shape_type: {reprlib.repr(kind)} of {len(points)} points has no area that is read. Draw a polygon, a "
                "rectangle or a circle, or take it out."
            )


def _polygon(numbers: list[object]) -> NDArray[np.float32]:
    try:
        return read_polygon(numbers)
    except ValueError as error:
        raise ValueError(f"points: {error}") from error


def _splits(root: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir() and _is_labelme(folder)))
    except OSError:
        return ()


def _is_labelme(folder: Path) -> bool:
    """Whether the first JSON file in a folder begins as LabelMe's do."""
    path = next(folder.glob("*.json"), None)
    if path is None:
        return False
    with path.open("rb") as file:
        return b'"shapes"' in file.read(SNIFFED)


LAYOUT = Layout(open=open_labelme, splits=_splits, about="LabelMe: a JSON of drawn shapes beside every image")
