"""Prediction: what a model says about one image, in the image's own pixels; and how it is drawn."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.labels import IGNORE_INDEX, LabelMap

OPACITY = 0.6  # of class colours over the photo


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """mask: (H, W) uint8 train ids of the image's own size."""

    mask: NDArray[np.uint8]


def draw_mask(image: NDArray[np.uint8], mask: NDArray[np.uint8], labels: LabelMap) -> NDArray[np.uint8]:
    """Overlay: class colours over the photo, void left as it is, a fine dark line between classes.

    image: (H, W, 3) uint8 RGB. mask: (H, W) uint8 train ids. Returns (H, W, 3) uint8 RGB.
    """
    colors = labels.palette[mask]
    overlay = cv2.addWeighted(image, 1 - OPACITY, colors, OPACITY, 0)
    overlay[mask == IGNORE_INDEX] = image[mask == IGNORE_INDEX]
    border = np.zeros(mask.shape, bool)
    border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    border[1:] |= mask[1:] != mask[:-1]
    overlay[border] = overlay[border] // 2
    return overlay


def draw_boxes(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], box_classes: NDArray[np.int64], labels: LabelMap
) -> NDArray[np.uint8]:
    """Boxes (N, 4) xyxy pixels in their class colours, outlined in white. Returns a new (H, W, 3) uint8 RGB."""
    canvas = image.copy()
    for (x0, y0, x1, y1), train_id in zip(boxes.round().astype(int).tolist(), box_classes.tolist(), strict=True):
        color = labels.palette[train_id].tolist()
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), (255, 255, 255), 2)
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), color, 1)
    return canvas
