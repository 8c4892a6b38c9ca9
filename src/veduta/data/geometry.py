"""Geometry of a training sample: scale, crop and flip as one affine warp of image, mask and boxes.

One resampling instead of three is faster and keeps the image sharper; mask and boxes follow the very same matrix.
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX

MEAN_COLOR = (124, 116, 104)  # ImageNet's mean: what a network sees as "nothing here"


def draw_matrix(
    size: tuple[int, int],
    crop_size: tuple[int, int],
    *,
    scale: tuple[float, float],
    flip: float,
    rng: np.random.Generator,
    focus: tuple[int, int] | None = None,
) -> NDArray[np.float64]:
    """A random scale, crop and flip as a 2x3 matrix from source to crop pixels.

    size, crop_size: (height, width). Where the scaled image is smaller than the crop it is placed at random inside it.
    focus: (row, column) of a source pixel that the crop must hold, anywhere in it.
    Coordinates are pixel edges: source x of an edge maps to matrix[0, 0] * x + matrix[0, 2].
    """
    zoom = np.exp(rng.uniform(*np.log(scale)))
    mirrored = rng.random() < flip
    room = np.array(crop_size) - zoom * np.array(size)  # negative where the image is larger than the crop
    low, high = np.minimum(room, 0), np.maximum(room, 0)
    if focus is None:
        top, left = rng.uniform(low, high)
    else:
        top, left = np.clip(rng.uniform(size=2) * crop_size - zoom * (np.array(focus) + 0.5), low, high)
    matrix = np.array([[zoom, 0, left], [0, zoom, top]])
    if mirrored:
        matrix[0] = [-zoom, 0, crop_size[1] - left]
    return matrix


def draw_focus(mask: NDArray[np.uint8], rng: np.random.Generator) -> tuple[int, int] | None:
    """(row, column) of a random pixel of a random class of the mask, each class as likely; None where all is void."""
    counts = np.bincount(mask.reshape(-1), minlength=256)[:IGNORE_INDEX]
    classes = np.flatnonzero(counts)
    if not len(classes):
        return None
    train_id = rng.choice(classes)
    nth = rng.integers(counts[train_id])
    row, column = divmod(int(np.flatnonzero(mask.reshape(-1) == train_id)[nth]), mask.shape[1])
    return row, column


def warp(sample: Sample, matrix: NDArray[np.float64], crop_size: tuple[int, int]) -> Sample:
    """Apply `matrix` (source to crop, pixel edges): bilinear image, nearest mask, clipped boxes.

    Outside of the image: mean colour and void. Boxes that leave the crop are dropped.
    """
    height, width = crop_size
    # OpenCV puts coordinates at pixel centres: edge = centre + 0.5 on both sides.
    centers = matrix.copy()
    centers[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    image = cv2.warpAffine(sample.image, centers, (width, height), flags=cv2.INTER_LINEAR, borderValue=MEAN_COLOR)
    mask, boxes, box_classes = sample.mask, sample.boxes, sample.box_classes
    if mask is not None:
        mask = cv2.warpAffine(mask, centers, (width, height), flags=cv2.INTER_NEAREST, borderValue=(IGNORE_INDEX,))
    if boxes is not None and box_classes is not None:
        boxes, keep = warp_boxes(boxes, matrix, crop_size)
        box_classes = box_classes[keep]
    return replace(sample, image=image, mask=mask, boxes=boxes, box_classes=box_classes)


def warp_boxes(
    boxes: NDArray[np.float32], matrix: NDArray[np.float64], crop_size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes (N, 4) xyxy through `matrix`, clipped to the crop, and which of the N have more than one pixel left."""
    height, width = crop_size
    corners = boxes.reshape(-1, 2, 2) * matrix[[0, 1], [0, 1]] + matrix[:, 2]
    low = np.clip(corners.min(axis=1), 0, (width, height))
    high = np.clip(corners.max(axis=1), 0, (width, height))
    keep = ((high - low) > 1).all(axis=1)
    return np.concatenate([low, high], axis=1)[keep].astype(np.float32), keep
