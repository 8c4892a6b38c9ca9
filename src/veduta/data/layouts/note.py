"""Note: what is known of a sample besides its pixels, as JSON beside them: its name, its boxes, its class.

{"name": "2008_000001", "boxes": [{"box": [4.0, 6.0, 20.0, 40.0], "class": "person", "difficult": false}]}
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from veduta.data.layout import Boxes
from veduta.labels import LabelMap

_CONFIG = ConfigDict(extra="ignore", allow_inf_nan=False)  # other programs add fields of their own
_Class = Annotated[int, Field(strict=True, ge=0)]


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class NotedBox:
    """box: xyxy in pixels of the upright image. label: the name of its class. area: of the object itself.

    crowd: a group that was not told apart, which is no object.
    """

    box: tuple[float, float, float, float]
    label: str = Field(alias="class")
    difficult: bool = False
    area: float | None = None
    crowd: bool | None = None


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Note:
    """boxes: None where nobody looked for objects. scene_class: train id of the whole image."""

    name: str | None = None
    boxes: tuple[NotedBox, ...] | None = None
    scene_class: _Class | None = None


_WRITTEN = TypeAdapter(Note)
_READ: TypeAdapter[Note | int] = TypeAdapter(Note | _Class)


def write_note(name: str, boxes: Boxes | None, scene_class: int | None, labels: LabelMap) -> bytes:
    """The JSON of a sample. Numbers come back exactly. Raises ValueError for a name that `check_name` refuses."""
    check_name(name, "this sample")
    noted = None
    if boxes is not None:
        areas = [None] * len(boxes.xyxy) if boxes.areas is None else boxes.areas.tolist()
        columns = (boxes.xyxy.tolist(), boxes.classes.tolist(), boxes.difficult.tolist(), areas)
        noted = [
            {"box": xyxy, "class": labels.names[train_id], "difficult": difficult, "area": area}
            for xyxy, train_id, difficult, area in zip(*columns, strict=True)
        ]
        if boxes.crowds is not None and boxes.crowd_classes is not None:
            noted += [
                {"box": xyxy, "class": labels.names[train_id], "crowd": True}
                for xyxy, train_id in zip(boxes.crowds.tolist(), boxes.crowd_classes.tolist(), strict=True)
            ]
    note = _WRITTEN.validate_python({"name": name, "boxes": noted, "scene_class": scene_class})
    return _WRITTEN.dump_json(note, by_alias=True, exclude_none=True)


def read_note(
    data: bytes, labels: LabelMap, *, source: Path, where: object
) -> tuple[str | None, Boxes | None, int | None]:
    """Name, boxes and class of a sample; a number alone, as other programs write it, is the class.

    source: what the boxes come from. Raises ValueError naming `where`: no JSON of this form, a class that is unknown, a
    name that `check_name` refuses.
    """
    try:
        note = _READ.validate_json(data)
    except ValidationError as error:
        first = error.errors()[0 if b"{" in data else -1]  # why it is no Note, or why it is no class
        at = ".".join(str(part) for part in first["loc"][1:])
        raise ValueError(f"{where}: {f'{at}: ' if at else ''}{first['msg']}. Damaged, or of another form?") from error
    if isinstance(note, int):
        note = Note(scene_class=note)
    if note == Note():
        raise ValueError(f"{where}: none of name, boxes and scene_class is in it. Of another form? Then leave it out.")
    check_name(note.name or "", where)
    if note.scene_class is not None and labels.of == "images" and not 0 <= note.scene_class < labels.num_classes:
        raise ValueError(
            f"{where}: class {note.scene_class}, but label map '{labels.name}' has {labels.num_classes}, from 0. Put "
            "the label map that fits beside it."
        )
    if note.boxes is None:
        return note.name, None, note.scene_class
    train_ids = {name: train_id for train_id, name in enumerate(labels.names)}
    foreign = sorted({box.label for box in note.boxes} - train_ids.keys())
    if foreign:
        raise ValueError(
            f"{where}: a box of class '{foreign[0]}', which label map '{labels.name}' does not have "
            f"({', '.join(labels.names)}). Put the label map that fits beside it."
        )
    objects, crowds = ([box for box in note.boxes if bool(box.crowd) == crowd] for crowd in (False, True))
    areas = [box.area for box in objects if box.area is not None]
    boxes = Boxes(
        xyxy=_corners(objects),
        classes=np.array([train_ids[box.label] for box in objects], np.int64),
        difficult=np.array([box.difficult for box in objects], np.bool_),
        source=source,
        areas=np.array(areas, np.float64) if len(areas) == len(objects) else None,
        crowds=_corners(crowds),
        crowd_classes=np.array([train_ids[box.label] for box in crowds], np.int64),
    )
    return note.name, boxes, note.scene_class


def _corners(boxes: Sequence[NotedBox]) -> NDArray[np.float32]:
    return np.array([box.box for box in boxes], np.float32).reshape(-1, 4)


def check_name(name: str, where: object) -> None:
    """Raises ValueError for a sample's name that leads out of a folder: predictions are written under it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{where}: its name '{name}' leads out of the folder it would be written to. Rename it.")
