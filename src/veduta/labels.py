"""LabelMap: file id -> train id -> name -> colour, with exactly one void rule.

A dataset declares its label map once; loader, loss, metric, head size and overlay all read this one object.
The class count is derived from it, never typed twice.
"""

import csv
import json
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

IGNORE_INDEX = 255  # the train id of void; no loss and no metric sees it
MAX_CLASSES = IGNORE_INDEX  # train ids travel as uint8, so 0..254 are left for classes
VOID_NAMES = ("void", "unlabelled", "unlabeled", "ignore")  # what a classes.csv calls its void row

ENCODING = "utf-8-sig"  # spreadsheets put a byte-order mark before UTF-8

FROZEN = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=FROZEN)
class LabelClass:
    """One class: the value its pixels have in mask files, its name, its overlay colour (RGB, 0..255)."""

    file_id: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, config=FROZEN)
class LabelMap:
    """The classes of a dataset. The train id of a class is its position in `classes`.

    `void_ids` is the void rule: the mask values that belong to no class; they become `IGNORE_INDEX`.
    `of` says what is classified: pixels and boxes, whose ids fit into 8-bit masks, or whole images.
    """

    name: str
    classes: tuple[LabelClass, ...]
    void_ids: tuple[int, ...] = ()
    of: Literal["pixels", "images"] = "pixels"

    @model_validator(mode="after")
    def _consistent(self) -> "LabelMap":
        ids = [c.file_id for c in self.classes] + list(self.void_ids)
        names = [c.name for c in self.classes]
        if not self.classes or (self.of == "pixels" and len(self.classes) > MAX_CLASSES):
            raise ValueError(f"a label map needs 1 to {MAX_CLASSES} classes, got {len(self.classes)}")
        if len(set(ids)) < len(ids):
            raise ValueError(f"file ids must differ, classes and void together, got {sorted(ids)}")
        if len(set(names)) < len(names):
            raise ValueError(f"class names must differ, got {names}")
        if nameless := [name for name in names if not name.strip() or not name.isprintable()]:
            raise ValueError(f"class names must be printable text, got {nameless}")
        if self.of == "pixels" and not all(0 <= i <= 255 for i in ids):
            raise ValueError(f"file ids are values of 8-bit masks, 0 to 255, got {sorted(ids)}")
        if not all(0 <= v <= 255 for c in self.classes for v in c.color):
            raise ValueError("colours are RGB values from 0 to 255")
        return self

    @property
    def num_classes(self) -> int:
        """Number of train ids; background included where the dataset has one."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def listed(self) -> str:
        """The names, one a line, in the order of their train ids."""
        return "".join(f"{name}\n" for name in self.names)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """(256, 3) uint8 RGB: row = train id; void and unused rows are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: self.num_classes] = [c.color for c in self.classes]
        return palette

    def encode(self, mask: NDArray[np.uint8], *, path: object) -> NDArray[np.uint8]:
        """File ids (H, W) uint8 -> train ids (H, W) uint8, void as `IGNORE_INDEX`.

        Raises ValueError naming `path`, the first foreign value, its pixel count and its place.
        """
        known = [c.file_id for c in self.classes]
        train_ids, foreign = np.full(256, IGNORE_INDEX, np.uint8), np.ones(256, np.uint8)
        train_ids[known] = np.arange(self.num_classes)
        foreign[[*known, *self.void_ids]] = 0
        if cv2.LUT(mask, foreign).any():
            raise self._foreign(mask, foreign, path)
        return cv2.LUT(mask, train_ids)

    def _foreign(self, mask: NDArray[np.uint8], foreign: NDArray[np.uint8], path: object) -> ValueError:
        values = np.flatnonzero(foreign & (np.bincount(mask.reshape(-1), minlength=256) > 0)).tolist()
        row, column = (int(v) for v in np.argwhere(mask == values[0])[0])
        count = int((mask == values[0]).sum())
        known = ", ".join(f"{c.file_id} {c.name}" for c in self.classes)
        return ValueError(
            f"{path}: value {values[0]} at row {row}, column {column} ({count:,} pixels"
            f"{f'; also {values[1:]}' if values[1:] else ''}) is not in label map '{self.name}' "
            f"({known}; void {list(self.void_ids)}). Correct the mask, or add the value to the label map as a "
            "class or as void."
        )

    def decode(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Train ids (H, W) uint8 -> file ids (H, W) uint8; void takes the first void id."""
        table = np.full(256, self.void_ids[0] if self.void_ids else IGNORE_INDEX, np.uint8)
        table[: self.num_classes] = [c.file_id for c in self.classes]
        return table[mask]


def read_label_map(path: Path, *, of: Literal["pixels", "images"] = "pixels") -> LabelMap:
    """Read `labels.json` (a LabelMap as JSON) or `classes.csv` (columns index, name, r, g, b; void by its name).

    Raises ValueError with the file and the row or field at fault.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Expected a label map: labels.json or classes.csv.")
    try:
        if path.suffix.lower() == ".json":
            content = _parse_json(path)
            named = {"name": path.parent.name, "of": of, **content} if isinstance(content, dict) else content
            labels = TypeAdapter(LabelMap).validate_python(named)
            if labels.of != of:
                raise ValueError(f"{path}: it names classes of {labels.of}, here {of} are classified.")
            return labels
        return _from_csv(path, of)
    except ValidationError as error:
        first = error.errors()[0]
        where, what = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path}: {where} {what}.".replace("  ", " ")) from error
    except csv.Error as error:
        raise ValueError(f"{path}: not a readable table: {error}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from error


def _parse_json(path: Path) -> Any:
    text = path.read_text(encoding=ENCODING)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also for a number of thousands of digits
        raise ValueError(f"{path}: not valid JSON: {error}.") from error


def _from_csv(path: Path, of: Literal["pixels", "images"]) -> LabelMap:
    classes, void_ids = [], []
    with path.open(newline="", encoding=ENCODING) as file:
        reader = csv.DictReader(file)
        missing = {"index", "name", "r", "g", "b"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: columns {sorted(missing)} are missing; expected index,name,r,g,b.")
        for row in reader:
            try:
                index, color = int(row["index"]), (int(row["r"]), int(row["g"]), int(row["b"]))
                name = row["name"].strip()
            except (TypeError, ValueError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected a name, and whole numbers as index, r, g, b, got {row}."
                ) from error
            if name.lower() in VOID_NAMES:
                void_ids.append(index)
            else:
                classes.append(LabelClass(file_id=index, name=name, color=color))
    return LabelMap(name=path.parent.name, classes=tuple(classes), void_ids=tuple(void_ids), of=of)
