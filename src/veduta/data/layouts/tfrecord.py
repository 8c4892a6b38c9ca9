"""TFRecord files of DeepLab and of BlitzNet: Examples that hold an encoded image, its mask, its boxes. No TensorFlow.

    ROOT/SPLIT-00000-of-00004.tfrecord      DeepLab: image and mask, several files a split
    ROOT/voc12-train-segmentation           BlitzNet: image, boxes and mask; the split is called as the file
    ROOT/coco-seg-SPLIT-00000-of-00024      BlitzNet, several files: the split is called coco-seg-SPLIT
    ROOT/labels.json or ROOT/classes.csv    where the classes are not those of VOC, or of COCO in BlitzNet's order

A file is a run of records: 8 bytes of length, their masked CRC-32C, the data, its masked CRC-32C. Opening a split
checks the lengths and steps over the data, which is checked whenever its record is read. Boxes are shares of the width
and height of the image, as their writer made them.
"""

import itertools
import re
import reprlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.images import StoredPicture
from veduta.data.label_maps import COCO, VOC
from veduta.data.layout import Boxes, FileDataset, Layout, Record, unknown_split
from veduta.data.layouts.lists import has_label_map, label_map_of
from veduta.data.layouts.note import check_name
from veduta.data.stored import MAX_BYTES, Stored
from veduta.labels import LabelMap
from veduta.ops import wire
from veduta.ops.crc32c import masked_crc32c

IMAGE, FILENAME, HEIGHT, WIDTH = "image/encoded", "image/filename", "image/height", "image/width"
MASKS = ("image/segmentation/class/encoded", "image/segmentation/encoded")  # DeepLab's name, BlitzNet's name
CORNERS = tuple(f"image/object/bbox/{edge}" for edge in ("xmin", "ymin", "xmax", "ymax"))
CLASSES, DIFFICULT = "image/object/class/label", "image/object/difficulty"

_HEADER, _CHECKSUM = 12, 4  # bytes around the data
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # the field of a Feature that holds its values
_MOST_FIELDS = 20_000  # of a record; real ones have some dozens
_MOST_NUMBERS = 100_000  # bytes of one feature of numbers
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:\.tfrecord)?")
_VOC_NAME = re.compile(r"\d{4}_\d{6}|\d{6}")
_ENDINGS = (".jpg", ".jpeg", ".png")


def open_tfrecord(root: Path, split: str) -> FileDataset[int]:
    """The records of one split, in the order of its files.

    Raises FileNotFoundError for missing files, ValueError for damaged ones and where nobody says what the classes are.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"folder {root} not found. --data must be the folder that holds the TFRecord files.")
    known = _files_by_split(root)
    if split not in known:
        raise unknown_split(str(root), split, list(known))
    files = known[split]
    places = [
        (int(shard[2]), int(shard[3])) if shard else (0, 1) for shard in (_SHARD.fullmatch(f.name) for f in files)
    ]
    expected = places[0][1]
    if places != [(number, expected) for number in range(expected)]:
        raise FileNotFoundError(
            f"{root} holds {len(files)} files of split '{split}', and {expected} by the name of {files[0].name}, each "
            f"number once; here they are {reprlib.repr([number for number, _ in places])}. Copy those that are "
            "missing, move those away that do not belong to it."
        )
    rows = np.concatenate([_scan(path, number) for number, path in enumerate(files)])
    if not len(rows):
        raise ValueError(f"{files[0]}: split '{split}' has no records.")
    example = _read(files, rows[0])
    labels = _label_map(root, split, example)
    split_records = SplitRecords(files, rows, labels, masked=_mask_of(example) is not None, boxed=_has_boxes(example))
    return FileDataset(labels, range(len(rows)), split_records.record)


@dataclass(frozen=True)
class SplitRecords:
    """Where the records of a split lie. rows: (N, 4) int64: file, number in it, offset and size of its data.

    masked, boxed: whether the first record, and so every one, has a mask, and boxes (though it may be none).
    """

    files: list[Path]
    rows: NDArray[np.int64]
    labels: LabelMap
    masked: bool
    boxed: bool

    def record(self, index: int) -> Record:
        """Raises ValueError for a record that is damaged, and for one that is no Example with an image."""
        example = _read(self.files, self.rows[index])
        image, mask = example.stored(IMAGE), _mask_of(example)
        if image is None:
            raise ValueError(
                f"{example.where}: no {IMAGE}; it has {', '.join(example.features) or 'nothing'}. Written by another "
                "program? Expected are the records of DeepLab or BlitzNet."
            )
        boxes = _boxes_of(example, image, self.labels)
        for what, there, expected in (("mask", mask, self.masked), ("boxes", boxes, self.boxed)):
            if (there is not None) != expected:
                this, first = ("without", "with") if expected else ("with", "without")
                raise ValueError(
                    f"{example.where}: a record {this} {what}, the first of the split is {first}. Make files of one "
                    "kind of record."
                )
        return Record(name=_name_of(example), image=image, mask=mask, boxes=boxes)


@dataclass(frozen=True)
class Example:
    """One record: its features, still encoded, with the place of each in the file. where: file, record and byte."""

    path: Path
    part: str
    where: str
    features: dict[str, tuple[memoryview, int]]

    def values(self, name: str, kind: int) -> Iterator[tuple[wire.Field, int]]:
        """The values of a feature and their places in the file; none where there is no such feature."""
        data, start = self.features.get(name, (memoryview(b""), 0))
        where = f"{self.where}, {name}"
        fields = _limited(where)
        for values in fields(data):
            if values.number == kind:
                for value in fields(wire.message(values, where)):
                    if value.number == 1:
                        yield value, start + values.start + value.start

    def stored(self, name: str) -> Stored | None:
        """The bytes of a feature, as they lie in the file; None where there are none."""
        found = [(value, place) for value, place in self.values(name, _BYTES_LIST)]
        if len(found) > 1:
            raise ValueError(f"{self.where}, {name}: {len(found)} values, expected one. Damaged file?")
        if not found or not found[0][0].value:
            return None
        value, place = found[0]
        size = len(wire.message(value, self.where))
        return Stored(self.path, place, size, part=f"{self.part}, {name}")

    def integers(self, name: str) -> list[int]:
        """All values of a feature of integers; none where there is no such feature."""
        return self._numbers(name, _INT64_LIST, wire.integers)

    def floats(self, name: str) -> list[float]:
        """All values of a feature of floats; none where there is no such feature."""
        return self._numbers(name, _FLOAT_LIST, wire.floats)

    def _numbers(self, name: str, kind: int, read: Callable[[wire.Field, str], list[Any]]) -> list[Any]:
        found: list[Any] = []
        size = 0
        for value, _ in self.values(name, kind):
            size += len(value.value) if isinstance(value.value, memoryview) else 1
            if size > _MOST_NUMBERS:
                raise ValueError(f"{self.where}, {name}: more than {_MOST_NUMBERS:,} bytes of numbers. Damaged file?")
            found += read(value, f"{self.where}, {name}")
        return found


def _limited(where: str) -> Callable[[memoryview], Iterator[wire.Field]]:
    """`wire.fields` that give up after `_MOST_FIELDS` in all messages together: a large record must not take hours."""
    count = itertools.count()

    def fields(data: memoryview) -> Iterator[wire.Field]:
        for field in wire.fields(data, where):
            if next(count) == _MOST_FIELDS:
                raise ValueError(f"{where}: more than {_MOST_FIELDS:,} fields. Damaged, or no record of images.")
            yield field

    return fields


def _read(files: list[Path], row: NDArray[np.int64]) -> Example:
    """Check the data of one record and find its features: Example {1 features {1 entry {1 name, 2 feature}}}."""
    path, (number, offset, size) = files[row[0]], row[1:].tolist()
    part = f"record {number}"
    where = f"{path}, {part} (byte {offset - _HEADER:,})"
    data = Stored(path, offset, size + _CHECKSUM, part=part).read()
    view = memoryview(data)[:size]
    if masked_crc32c(view) != int.from_bytes(data[size:], "little"):
        raise ValueError(f"{where}: its data does not fit its checksum. The file is damaged; copy or make it again.")
    features: dict[str, tuple[memoryview, int]] = {}
    fields = _limited(where)
    for outer in fields(view):
        if outer.number != 1:
            continue
        for entry in fields(wire.message(outer, where)):
            if entry.number != 1:
                continue
            name, feature, start = "", memoryview(b""), 0
            for field in fields(wire.message(entry, where)):
                if field.number == 1:
                    name = wire.text(field, where)
                elif field.number == 2:
                    feature, start = wire.message(field, where), field.start
            features[name] = (feature, offset + outer.start + entry.start + start)
    return Example(path, part, where, features)


def _mask_of(example: Example) -> Stored | None:
    return next((stored for name in MASKS if (stored := example.stored(name))), None)


def _name_of(example: Example) -> str:
    found = [wire.text(value, f"{example.where}, {FILENAME}") for value, _ in example.values(FILENAME, _BYTES_LIST)]
    if len(found) != 1 or not found[0]:
        raise ValueError(f"{example.where}: no {FILENAME}, which names the sample.")
    check_name(found[0], example.where)
    name = PurePosixPath(found[0])
    return str(name.with_suffix("") if name.suffix.lower() in _ENDINGS else name)


def _has_boxes(example: Example) -> bool:
    return CLASSES in example.features or CORNERS[0] in example.features


def _boxes_of(example: Example, image: Stored, labels: LabelMap) -> Boxes | None:
    if not _has_boxes(example):
        return None
    classes, difficult = example.integers(CLASSES), example.integers(DIFFICULT)
    corners = [example.floats(name) for name in CORNERS]
    difficult = difficult or [0] * len(classes)
    lengths = [len(classes), len(difficult), *map(len, corners)]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"{example.where}: {lengths[0]} classes, {lengths[1]} difficulties and {lengths[2:]} corners of boxes "
            "(xmin, ymin, xmax, ymax); they must be as many. Make the file anew."
        )
    shares = np.array(corners, np.float64).T.reshape(-1, 4)
    if not np.isfinite(shares).all():
        raise ValueError(f"{example.where}: a corner of a box is no finite number. Make the file anew.")
    train_ids = {label.file_id: train_id for train_id, label in enumerate(labels.classes)}
    foreign = sorted(set(classes) - train_ids.keys())
    if foreign:
        raise ValueError(
            f"{example.where}: a box of class {foreign[0]}, which label map '{labels.name}' does not have. Put the "
            "labels.json or classes.csv that fits beside the files."
        )
    height, width = StoredPicture(image).size
    said = (example.integers(HEIGHT) or [height], example.integers(WIDTH) or [width])
    if said != ([height], [width]):
        raise ValueError(
            f"{example.where}: {HEIGHT} and {WIDTH} are {said[0]} and {said[1]}, the image is {height} x {width} "
            "(height x width), so its boxes cannot be trusted. Make the file anew."
        )
    return Boxes(
        xyxy=(shares * [width, height, width, height]).astype(np.float32),
        classes=np.array([train_ids[i] for i in classes], np.int64),
        difficult=np.array(difficult, np.int64) != 0,
        source=example.path,
    )


def _label_map(root: Path, split: str, example: Example) -> LabelMap:
    """From a file beside the records, else from the names of published ones; other masks would be read as VOC's."""
    if has_label_map(root):
        return label_map_of(root)
    if split.startswith("coco-seg-"):
        return COCO
    if _VOC_NAME.fullmatch(_name_of(example)):
        return VOC
    raise ValueError(
        f"{example.where}: image '{_name_of(example)}' is not named as those of PASCAL VOC, so nothing says what the "
        f"values of masks mean. Put a labels.json or classes.csv into {root}."
    )


def _files_by_split(root: Path) -> dict[str, list[Path]]:
    """Files that may be of this format, by their names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
        shard = _SHARD.fullmatch(path.name)
        if (shard or path.suffix in ("", ".tfrecord")) and path.is_file():
            found.setdefault(shard[1] if shard else path.stem, []).append(path)
    return found


def _scan(path: Path, file_number: int) -> NDArray[np.int64]:
    """The rows of all records of a file, from the headers alone."""
    rows = array("q")
    with path.open("rb", buffering=0) as file:
        end, position = file.seek(0, 2), 0
        for number in itertools.count():
            if position == end:
                break
            where = f"{path}, record {number} (byte {position:,})"
            file.seek(position)
            size = _length(file.read(_HEADER))
            if size is None:
                raise ValueError(
                    f"{where}: its length does not fit its checksum. Not a TFRecord file, cut off or damaged."
                )
            if size > MAX_BYTES:
                raise ValueError(f"{where}: {size:,} bytes of data, the limit is {MAX_BYTES:,}.")
            position += _HEADER + size + _CHECKSUM
            if position > end:
                raise ValueError(f"{where}: the file ends {position - end:,} bytes early. Cut off? Copy it again.")
            rows.extend((file_number, number, position - _CHECKSUM - size, size))
    return np.array(rows, np.int64).reshape(-1, 4)


def _length(header: bytes) -> int | None:
    """The length in the header of a record; None where it does not fit its checksum."""
    if len(header) < _HEADER or masked_crc32c(header[:8]) != int.from_bytes(header[8:], "little"):
        return None
    return int.from_bytes(header[:8], "little")


def _splits(root: Path) -> tuple[str, ...]:
    try:
        return tuple(split for split, files in _files_by_split(root).items() if _starts_as_record(files[0]))
    except OSError:
        return ()


def _starts_as_record(path: Path) -> bool:
    with path.open("rb") as file:
        return _length(file.read(_HEADER)) is not None


LAYOUT = Layout(open=open_tfrecord, splits=_splits, about="TFRecord files as DeepLab and BlitzNet make them")
