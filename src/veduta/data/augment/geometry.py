"""Geometry of a training sample: scale, crop and flip in one resampling of image, mask and boxes.

A window of the image is cut out first and resized once, so only pixels that are kept are ever computed. Windows have
whole source pixels as bounds: image, mask and boxes follow the very same mapping, without a shift between them.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX

MEAN_COLOR = (124, 116, 104)  # ImageNet's mean: what a network sees as "nothing here"

Interval = tuple[int, int]  # first pixel, pixel after the last


@dataclass(frozen=True, kw_only=True)
class Window:
    """Where a crop looks: rows and columns of the image, and those of the crop that they fill; then the flip."""

    rows: Interval
    columns: Interval
    to_rows: Interval
    to_columns: Interval
    flip: bool


def draw_window(
    size: tuple[int, int],
    crop_size: tuple[int, int],
    *,
    scale: tuple[float, float],
    flip: float,
    rng: np.random.Generator,
    focus: tuple[int, int] | None = None,
) -> Window:
    """A random zoom (log-uniform in `scale`), place and flip.

    size, crop_size: (height, width). Where the zoomed image is smaller than the crop, it is placed at random inside it.
    focus: (row, column) of a source pixel that the crop must hold, anywhere in it.
    """
    zoom = float(np.exp(rng.uniform(*np.log(scale))))
    mirrored = bool(rng.random() < flip)
    rows, to_rows = _draw_interval(size[0], crop_size[0], zoom, rng, None if focus is None else focus[0])
    columns, to_columns = _draw_interval(size[1], crop_size[1], zoom, rng, None if focus is None else focus[1])
    return Window(rows=rows, columns=columns, to_rows=to_rows, to_columns=to_columns, flip=mirrored)


def _draw_interval(
    length: int, crop: int, zoom: float, rng: np.random.Generator, focus: int | None
) -> tuple[Interval, Interval]:
    """One axis: which source pixels, and which pixels of the crop they become."""
    if zoom * length <= crop:
        filled = max(1, round(zoom * length))
        start = int(rng.integers(crop - filled + 1))
        return (0, length), (start, start + filled)
    span = min(length, max(1, round(crop / zoom)))
    start = int(rng.integers(length - span + 1) if focus is None else focus - rng.integers(span))
    start = min(max(start, 0), length - span)
    return (start, start + span), (0, crop)


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


def warp(sample: Sample, window: Window, crop_size: tuple[int, int]) -> Sample:
    """The sample through `window`: bilinear image, nearest mask, clipped boxes.

    Outside of the image: mean colour and void. Boxes of which no more than a pixel is left are dropped.
    """
    image = _resample(sample.image, window, crop_size, cv2.INTER_LINEAR, MEAN_COLOR)
    mask = sample.mask
    if mask is not None:
        mask = _resample(mask, window, crop_size, cv2.INTER_NEAREST_EXACT, (IGNORE_INDEX,))
    warped = replace(sample, image=image, mask=mask)
    return warped if sample.boxes is None else keep_boxes(warped, *warp_boxes(sample.boxes, window, crop_size))


def keep_boxes(sample: Sample, boxes: NDArray[np.float32], keep: NDArray[np.bool_]) -> Sample:
    """The sample with `boxes`, which are what became of those of its boxes that `keep` (N,) marks."""
    assert sample.box_classes is not None
    difficult = None if sample.box_difficult is None else sample.box_difficult[keep]
    return replace(sample, boxes=boxes, box_classes=sample.box_classes[keep], box_difficult=difficult)


def _resample(
    pixels: NDArray[np.uint8],
    window: Window,
    crop_size: tuple[int, int],
    interpolation: int,
    outside: tuple[int, ...],
) -> NDArray[np.uint8]:
    (top, bottom), (left, right) = window.to_rows, window.to_columns
    view = pixels[slice(*window.rows), slice(*window.columns)]
    if view.shape[:2] != (bottom - top, right - left):
        view = cv2.resize(view, (right - left, bottom - top), interpolation=interpolation)
    if view.shape[:2] != crop_size:
        borders = (top, crop_size[0] - bottom, left, crop_size[1] - right)
        view = cv2.copyMakeBorder(view, *borders, cv2.BORDER_CONSTANT | cv2.BORDER_ISOLATED, value=outside)
    return cv2.flip(view, 1) if window.flip else view


def warp_boxes(
    boxes: NDArray[np.float32], window: Window, crop_size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes (N, 4) xyxy through `window`, clipped to the crop, and which of the N have more than one pixel left."""
    source = np.array([window.columns, window.rows], np.float64)  # x, then y
    target = np.array([window.to_columns, window.to_rows], np.float64)
    zoom = (target[:, 1] - target[:, 0]) / (source[:, 1] - source[:, 0])
    corners = (boxes.reshape(-1, 2, 2) - source[:, 0]) * zoom + target[:, 0]
    corners = np.clip(corners, target[:, 0], target[:, 1])
    if window.flip:
        corners[..., 0] = crop_size[1] - corners[:, ::-1, 0]
    keep: NDArray[np.bool_] = np.all(corners[:, 1] - corners[:, 0] > 1, axis=1)
    return corners.reshape(-1, 4)[keep].astype(np.float32), keep
