"""Prediction: what a model says about one image, in the image's own pixels; and how it is drawn."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.labels import IGNORE_INDEX, LabelMap

OPACITY = 0.6  # of class colours over the photo
MOST_CLASSES = 5  # of a whole image that are named, best first
DRAWN = 0.5  # score from which a box is drawn
CONFIDENCE_STEP = 4  # a mask's confidence is kept of every fourth pixel of every fourth row


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a task does not say is None.

    mask: (H, W) uint8 train ids of the image's own size. confidence: float32, the probability in 0..1 of the predicted
    class at mask[::CONFIDENCE_STEP, ::CONFIDENCE_STEP]. boxes: (n, 4) float32 xyxy pixels, best first, with
    box_classes (n,) int64 train ids and box_scores (n,) float32 in 0..1. class_scores: (num_classes,) float32 in 0..1.
    """

    mask: NDArray[np.uint8] | None = None
    confidence: NDArray[np.float32] | None = None
    boxes: NDArray[np.float32] | None = None
    box_classes: NDArray[np.int64] | None = None
    box_scores: NDArray[np.float32] | None = None
    class_scores: NDArray[np.float32] | None = None


def draw(image: NDArray[np.uint8], prediction: Prediction, labels: LabelMap) -> NDArray[np.uint8]:
    """Masks, and boxes that score DRAWN or more, over the photo. image: (H, W, 3) uint8 RGB; returns a new one."""
    if prediction.mask is not None:
        image = draw_mask(image, prediction.mask, labels)
    if prediction.boxes is not None:
        assert prediction.box_classes is not None and prediction.box_scores is not None
        drawn = prediction.box_scores >= DRAWN
        image = draw_boxes(image, prediction.boxes[drawn], prediction.box_classes[drawn], labels)
    return image


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


def write_words(image: NDArray[np.uint8], words: str) -> NDArray[np.uint8]:
    """Words in white on black at the bottom left. image: (H, W, 3) uint8 RGB; returns a new one."""
    canvas = image.copy()
    size = min(0.5, 3 * image.shape[1] / (25 * max(len(words), 6)))  # so that they fit
    place = (3, image.shape[0] - 5)
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(canvas, words, place, cv2.FONT_HERSHEY_SIMPLEX, size, color, width, cv2.LINE_AA)
    return canvas
