"""Boxes over a picture: lines apart from its pixels, so that they and their names stay sharp at any size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veduta.labels import LabelMap

Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class BoxLabel:
    """A box in pixels of the whole image, with its class and colour."""

    left: float
    top: float
    width: float
    height: float
    name: str
    color: Color
    dashed: bool = False


def label_boxes(
    boxes: NDArray[np.float32],
    box_classes: NDArray[np.int64],
    labels: LabelMap,
    *,
    color: Color | None = None,
    dashed: bool = False,
) -> tuple[BoxLabel, ...]:
    """Boxes (n, 4) xyxy with their classes (n,), in the colours of these unless one is given."""
    return tuple(
        _around(box, labels.names[train_id], color or labels.classes[train_id].color, dashed=dashed)
        for box, train_id in zip(boxes.tolist(), box_classes.tolist(), strict=True)
    )


def name_boxes(boxes: NDArray[np.float32], name: str, color: Color) -> tuple[BoxLabel, ...]:
    """Boxes (n, 4) xyxy, all of one name."""
    return tuple(_around(box, name, color) for box in boxes.tolist())


def _around(box: list[float], name: str, color: Color, *, dashed: bool = False) -> BoxLabel:
    x0, y0, x1, y1 = box
    return BoxLabel(left=x0, top=y0, width=x1 - x0, height=y1 - y0, name=name, color=color, dashed=dashed)
