"""COCO: the objects of a split in one JSON file; masks are painted from their outlines.

Lin et al. 2014, https://arxiv.org/abs/1405.0312; other sets of categories in the same format are read as well.
    ROOT/annotations/instances_SPLIT.json    SPLIT is train2017, val2017, train, ...
    ROOT/SPLIT/NAME.jpg                      photos; or in images/SPLIT, images, ROOT itself, VOCdevkit/VOC*/JPEGImages
Smaller objects are painted over larger ones. A crowd is no object: its box is kept apart, for COCO's own scores, and
what it covers is void where no object is.
"""

import reprlib
from array import array
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.label_maps import COCO, with_background
from veduta.data.layout import Boxes, FileDataset, Layout, Record, refuse_repeats, unknown_split
from veduta.data.layouts.json_file import number_at, read_json, text_at
from veduta.data.layouts.paint import MAX_COORDINATE, Outline, PaintedObjects, area_of, read_polygon, read_runs
from veduta.data.stored import Stored
from veduta.labels import IGNORE_INDEX, MAX_CLASSES, LabelMap

# BlitzNet's parts of val2014, whose photos lie with the others.
FOLDERS = {"minival2014": "val2014", "valminusminival2014": "val2014"}


class Annotations:
    """The objects of a file in flat arrays, taken one by one while the JSON is parsed.

    As Python objects those of train2017 would need 2 GB, and every worker a copy of millions of small parts.
    """

    def __init__(self) -> None:
        self.ids, self.images, self.categories, self.crowd = array("q"), array("q"), array("q"), array("b")
        self.boxes = array("f")  # x1, y1, x2, y2 of each
        self.areas = array("d")  # of the object itself; that of its box where the file does not say
        self.corners = array("f")  # x, y of those of all polygons
        self.polygon_ends = array("q", [0])  # in `corners`
        self.outline_ends = array("q", [0])  # in `polygon_ends`
        self.runs: dict[int, tuple[tuple[int, int], NDArray[np.uint32]]] = {}  # size, lengths; in COCO crowds only

    def take(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Keep an annotation and leave {} in its place; let every other object be."""
        if "segmentation" not in fields:
            return fields
        try:
            self.ids.append(number_at(fields, "id"))
            self.images.append(number_at(fields, "image_id"))
            self.categories.append(number_at(fields, "category_id"))
            self.boxes.extend(_xyxy(fields.get("bbox")))
            self.areas.append(_area(fields))
            if fields.get("iscrowd", 0) not in (0, 1):
                raise ValueError(f"iscrowd: expected 0 or 1, found {reprlib.repr(fields['iscrowd'])}.")
            self.crowd.append(int(fields.get("iscrowd", 0)))
            self._take_outline(fields["segmentation"])
        except ValueError as error:
            raise ValueError(f"annotation {reprlib.repr(fields.get('id'))}, {error}") from error
        return {}

    def _take_outline(self, outline: object) -> None:
        try:
            match outline:
                case {"counts": counts, "size": [int(height), int(width)]}:
                    runs = read_runs(counts, (height, width)).astype(np.uint32)
                    self.runs[len(self.outline_ends) - 1] = (height, width), runs
                case [_, *_] as polygons:
                    for polygon in polygons:
                        self.corners.frombytes(read_polygon(polygon).tobytes())
                        self.polygon_ends.append(len(self.corners))
                case _:
                    raise ValueError(f"expected polygons, or counts and size, found {reprlib.repr(outline)}. Draw it.")
        except ValueError as error:
            raise ValueError(f"segmentation: {error}") from error
        self.outline_ends.append(len(self.polygon_ends) - 1)

    def corners_of(self, indices: list[int]) -> NDArray[np.float32]:
        """The boxes (n, 4) of some."""
        return np.array([self.boxes[4 * i : 4 * i + 4] for i in indices], np.float32).reshape(-1, 4)

    def outline(self, index: int) -> Outline:
        """What the object at `index` covers."""
        if index in self.runs:
            return self.runs[index][1].astype(np.int64)
        ends = self.polygon_ends[self.outline_ends[index] : self.outline_ends[index + 1] + 1]
        return tuple(np.array(self.corners[a:b], np.float32).reshape(-1, 2) for a, b in pairwise(ends))


def _xyxy(box: object) -> tuple[float, float, float, float]:
    if isinstance(box, list) and len(box) == 4 and set(map(type, box)) <= {int, float}:
        x, y, width, height = box
        corner = abs(x) <= MAX_COORDINATE and abs(y) <= MAX_COORDINATE  # NaN is not, wherever it stands
        if corner and 0 <= width <= MAX_COORDINATE and 0 <= height <= MAX_COORDINATE:
            return x, y, x + width, y + height
    raise ValueError(f"bbox: expected x, y, width, height in pixels, found {reprlib.repr(box)}.")


def _area(fields: dict[str, Any]) -> float:
    area = fields.get("area")
    if area is None:
        _, _, width, height = fields["bbox"]
        return float(width * height)
    if type(area) not in (int, float) or not 0 <= area <= MAX_COORDINATE**2:
        raise ValueError(f"area: expected square pixels, found {reprlib.repr(area)}.")
    return float(area)


@dataclass(frozen=True)
class Instances:
    """A split, images in the order of the file. The annotations of image i are of_image[first[i] : first[i + 1]]."""

    source: Path
    folder: Path
    files: list[str]
    sizes: list[tuple[int, int]]  # height, width
    first: NDArray[np.int64]
    of_image: NDArray[np.int64]
    train_ids: NDArray[np.uint8]  # of the annotations
    annotations: Annotations

    def record(self, index: int) -> Record:
        found = self.annotations
        mine = self.of_image[self.first[index] : self.first[index + 1]].tolist()
        things, groups = ([i for i in mine if found.crowd[i] == crowd] for crowd in (0, 1))
        objects = [(int(self.train_ids[i]), found.outline(i)) for i in things]
        crowds = [(IGNORE_INDEX, found.outline(i)) for i in groups]
        objects.sort(key=lambda thing: area_of(thing[1]), reverse=True)  # stable: of equal ones the later is on top
        return Record(
            name=_name(self.files[index]),
            image=Stored(self.folder / self.files[index]),
            mask=PaintedObjects(self.source, self.sizes[index], (*crowds, *objects)),
            boxes=Boxes(
                xyxy=found.corners_of(things),
                classes=self.train_ids[things].astype(np.int64),
                difficult=np.zeros(len(things), np.bool_),
                source=self.source,
                areas=np.array([found.areas[i] for i in things], np.float64),
                crowds=found.corners_of(groups),
                crowd_classes=self.train_ids[groups].astype(np.int64),
            ),
        )


def _name(file: str) -> str:
    return PurePosixPath(file).with_suffix("").as_posix()


class CocoSplit(FileDataset[int]):
    """A split, and the ids by which results in COCO's format call its images and its classes.

    names: of the samples, by image id. train_ids: by category id.
    """

    def __init__(self, labels: LabelMap, found: Instances, names: dict[int, str], train_ids: dict[int, int]) -> None:
        super().__init__(labels, range(len(found.files)), found.record)
        self.names, self.train_ids = names, train_ids


def open_coco(root: Path, split: str) -> CocoSplit:
    """All images of a split, those without objects too, in the order of the file; a name is a file name, no ending."""
    path = root / "annotations" / f"instances_{split}.json"
    if not path.is_file():
        known = _splits(root)
        if known:
            raise unknown_split(f"{root / 'annotations'}", split, known)
        raise FileNotFoundError(f"{path} not found. --data must be the folder that holds annotations/, got {root}.")
    found = Annotations()
    content = read_json(path, found.take)
    try:
        labels, train_id_of = _read_categories(_list(content, "categories"), root.resolve().name)
        files, sizes, index_of = _read_images(_list(content, "images"))
        annotations = _list(content, "annotations")
        for left in filter(None, annotations):
            raise ValueError(f"annotation {reprlib.repr(left.get('id'))}, segmentation: missing. Outline the object.")
        if len(annotations) != len(found.ids):
            raise ValueError(f"annotations: {len(annotations)} are listed, {len(found.ids)} are in the file.")
        images = np.array([index_of.get(number, -1) for number in found.images], np.int64)
        train_ids = np.array([train_id_of.get(number, -1) for number in found.categories], np.int64)
        for key, ids, given in (("image_id", images, found.images), ("category_id", train_ids, found.categories)):
            for i in np.flatnonzero(ids < 0)[:1].tolist():
                raise ValueError(f"annotation {found.ids[i]}, {key}: {given[i]} is not in the file.")
        for i, (size, _) in found.runs.items():
            if size != (expected := sizes[images[i]]):
                raise ValueError(f"annotation {found.ids[i]}, segmentation: size: {size}, its image has {expected}.")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    refuse_repeats([_name(file) for file in files], path)
    of_image = np.argsort(images, kind="stable")
    instances = Instances(
        source=path,
        folder=_image_folder(root, split, files[0]),
        files=files,
        sizes=sizes,
        first=np.searchsorted(images[of_image], np.arange(len(files) + 1)),
        of_image=of_image,
        train_ids=train_ids.astype(np.uint8),
        annotations=found,
    )
    names = {number: _name(files[index]) for number, index in index_of.items()}
    return CocoSplit(labels, instances, names, train_id_of)


def _list(content: object, key: str) -> list[dict[str, Any]]:
    values = content.get(key) if isinstance(content, dict) else None
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{key}: expected a list of objects. Is it an instances file of COCO?")
    return values


def _read_categories(categories: list[dict[str, Any]], name: str) -> tuple[LabelMap, dict[int, int]]:
    """The label map, and the train id of every category."""
    names: dict[int, str] = {}
    for category in categories:
        names[number_at(category, "id")] = text_at(category, "name")
    names = dict(sorted(names.items()))
    if len({"background", *names.values()}) < len(categories) + 1 or not names:
        raise ValueError("categories: expected ids and names that differ, none called background.")
    if len(names) >= MAX_CLASSES:
        raise ValueError(f"categories: {len(names)}, the limit is {MAX_CLASSES - 1}: masks have 8 bits.")
    if set(names.values()) == set(COCO.names[1:]):
        return COCO, {number: COCO.names.index(category) for number, category in names.items()}
    labels = with_background(name, tuple(names.values()))
    return labels, {number: i for i, number in enumerate(names, start=1)}


def _read_images(images: list[dict[str, Any]]) -> tuple[list[str], list[tuple[int, int]], dict[int, int]]:
    """Files, sizes (height, width), and the index of every image id."""
    files, sizes, index_of = [], [], {}
    for index, image in enumerate(images):
        try:
            number, file = number_at(image, "id"), text_at(image, "file_name")
            if number in index_of:
                raise ValueError("id: listed twice.")
            parts = PurePosixPath(file).parts
            if not parts or parts[0] == "/" or ".." in parts:
                raise ValueError(f"file_name: expected a file below the folder of the photos, found {file}.")
            sizes.append((number_at(image, "height"), number_at(image, "width")))
        except ValueError as error:
            raise ValueError(f"image {reprlib.repr(image.get('id'))}, {error}") from error
        files.append(file)
        index_of[number] = index
    if not files:
        raise ValueError("images: none are listed.")
    return files, sizes, index_of


def _image_folder(root: Path, split: str, file: str) -> Path:
    """The folder of the photos: the first that has the first of them."""
    photos = FOLDERS.get(split, split)
    folders = (root / photos, root / "images" / photos, root / "images", root, *root.glob("VOCdevkit/VOC*/JPEGImages"))
    for folder in folders:
        if (folder / file).is_file():
            return folder
    raise FileNotFoundError(f"{file} not found in {', '.join(map(str, folders))}. Put the photos into one of them.")


def _splits(root: Path) -> tuple[str, ...]:
    names = (path.stem for path in (root / "annotations").glob("instances_*.json"))
    return tuple(sorted(name.removeprefix("instances_") for name in names))


LAYOUT = Layout(
    open=open_coco, splits=_splits, about="COCO, or your own objects in its format: annotations/instances_SPLIT.json"
)
