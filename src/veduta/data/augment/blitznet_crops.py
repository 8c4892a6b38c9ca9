"""BlitzNet's training augmentation: colour, zoom-out, a crop around an object, flip, and a square of a fixed size.

Dvornik et al. 2017, https://arxiv.org/abs/1708.02813; numbers and order are those of its code and of the operators of
TensorFlow that it calls. Crop, flip and resize are one resampling, equal to that of the steps one after the other.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from veduta.data.augment.geometry import keep_boxes
from veduta.data.augment.photometric import ADJUST
from veduta.data.sample import Sample
from veduta.ops.resize import resize_legacy_nearest

ORDERS = (
    ("brightness", "saturation", "hue", "contrast"),
    ("saturation", "brightness", "contrast", "hue"),
    ("contrast", "hue", "brightness", "saturation"),
    ("hue", "saturation", "contrast", "brightness"),
)
AMOUNTS = {"brightness": (-0.125, 0.125), "saturation": (0.5, 1.5), "contrast": (0.5, 1.5), "hue": (-0.07, 0.07)}

ZOOM_OUT = (1.05, 4.0)  # how much larger than the image its canvas is
CANVAS_COLOR = tuple(level / 255 for level in (123.151630838, 115.902882574, 103.062623801))
BACKGROUND = 0  # the canvas is background, not void

MIN_COVERED = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # of at least one object
ASPECTS = (0.5, 2.0)  # width / height of a crop
AREAS = (0.3, 1.0)  # share of the canvas
ATTEMPTS = 50

MIN_SIDE = 2  # pixels of a box that is kept


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Rows from `top` and columns from `left` on, in pixels of the image; where it is not there, there is canvas."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def blitznet(sample: Sample, size: int, rng: np.random.Generator) -> Sample:
    """The whole augmentation: image and mask (size, size). The mask is shrunk to the network's finest grid in the task.

    Boxes are kept whose centre is in the crop and of which two pixels are left in both directions.
    """
    image = recolor(sample.image, rng)
    return cut(sample, image, draw_crop(sample, rng), size)


def recolor(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Brightness, saturation, hue and contrast, always all four, in one of four orders: (H, W, 3) float32 in [0, 1]."""
    colored = np.multiply(image, np.float32(1 / 255), dtype=np.float32)
    for change in ORDERS[rng.integers(len(ORDERS))]:
        ADJUST[change](colored, rng.uniform(*AMOUNTS[change]))
    return np.clip(colored, 0, 1, out=colored)


def draw_crop(sample: Sample, rng: np.random.Generator) -> Crop:
    """In one case of two the image lies somewhere on a larger canvas. Of that a crop is taken, or all of it."""
    assert sample.boxes is not None
    image_size = np.array(sample.image.shape[:2])
    canvas, offset = image_size, np.zeros(2, np.int64)  # height, width; row, column of the image
    if rng.random() < 0.5:
        canvas = (image_size * rng.uniform(*ZOOM_OUT)).astype(np.int64)
        offset = rng.integers(canvas - image_size + 1)
    boxes = sample.boxes[:, [1, 0, 3, 2]].reshape(-1, 2, 2).astype(np.float64) + offset  # y, x
    found = draw_covering_crop(canvas, boxes, rng)
    top, left, height, width = (0, 0, *canvas) if found is None else found
    flip = bool(rng.random() < 0.5)
    return Crop(top=int(top - offset[0]), left=int(left - offset[1]), height=int(height), width=int(width), flip=flip)


def draw_covering_crop(
    size: NDArray[np.int64], boxes: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64] | None:
    """Top, left, height and width of a crop of the canvas that covers enough of an object, as
    `tf.image.sample_distorted_bounding_box` draws it: the first of ATTEMPTS that fits, None where none does.

    size: (2,) height, width. boxes: (N, 2, 2) corners as y, x; without any the canvas is the object.
    """
    covered = rng.choice(MIN_COVERED)
    aspects = rng.uniform(*ASPECTS, ATTEMPTS)
    smallest, largest = np.array(AREAS) * size.prod()
    tallest = np.minimum(np.rint(np.sqrt(largest / aspects)), np.minimum(size[0], (size[1] + 0.5) // aspects))
    shortest = np.minimum(np.rint(np.sqrt(smallest / aspects)), tallest)
    heights = rng.integers(shortest.astype(np.int64), tallest.astype(np.int64) + 1)
    heights += heights * np.rint(heights * aspects) < smallest  # rounding of the width has made it too small
    shapes = np.stack([heights, np.rint(heights * aspects).astype(np.int64)], axis=1)
    areas = shapes.prod(axis=1)
    starts = rng.integers(np.maximum(size - shapes, 1))
    fits = (smallest <= areas) & (areas <= largest) & (shapes <= size).all(axis=1)

    objects = boxes if len(boxes) else np.array([[(0, 0), size]], np.float64)
    sides = np.minimum(objects[:, 1], (starts + shapes)[:, None]) - np.maximum(objects[:, 0], starts[:, None])
    inside = sides.clip(min=0).prod(axis=2)  # (ATTEMPTS, N)
    whole = (objects[:, 1] - objects[:, 0]).prod(axis=1)
    fits &= ((inside >= covered * whole) & (whole >= 1)).any(axis=1)
    return np.concatenate([starts[fits][0], shapes[fits][0]]) if fits.any() else None


def cut(sample: Sample, image: NDArray[np.float32], crop: Crop, size: int) -> Sample:
    """The sample through `crop`, with `image` (H, W, 3) float32 in [0, 1] in place of its own, as (size, size)."""
    view, (top, left) = _part(image, crop, CANVAS_COLOR)
    step = np.array([crop.width, crop.height]) / size  # x, y: the resize keeps the first pixel in its place
    x, x_step = (crop.width - 1, -step[0]) if crop.flip else (0, step[0])
    matrix = np.array([[x_step, 0, x + left], [0, step[1], top]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(view, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    mask = sample.mask
    if mask is not None:
        part, (top, left) = _part(mask, crop, (BACKGROUND,))
        rows, columns = _places(crop.height, size), _places(crop.width, size)
        columns = crop.width - 1 - columns if crop.flip else columns
        rows, columns = (rows + top).clip(0, part.shape[0] - 1), (columns + left).clip(0, part.shape[1] - 1)
        mask = part[rows].take(columns, axis=1)
    result = replace(sample, image=cv2.convertScaleAbs(warped, alpha=255), mask=mask)

    assert sample.boxes is not None
    shape = np.array([crop.width, crop.height], np.float64)
    corners = sample.boxes.reshape(-1, 2, 2) - (crop.left, crop.top)
    centres = corners.mean(axis=1)
    corners = corners.clip(0, shape) * (size / shape)
    if crop.flip:
        corners[..., 0] = size - corners[:, ::-1, 0]
    keep = ((centres > 0) & (centres < shape) & (corners[:, 1] - corners[:, 0] >= MIN_SIDE)).all(axis=1)
    return keep_boxes(result, corners[keep].reshape(-1, 4).astype(np.float32), keep)


def _part(pixels: NDArray[Any], crop: Crop, outside: tuple[float, ...]) -> tuple[NDArray[Any], tuple[int, int]]:
    """The pixels of the crop that the image has, and row and column of the crop's first pixel in them.

    Where there is canvas beside them, one pixel of it is there too: with edges repeated, that is all of the canvas.
    """
    height, width = pixels.shape[:2]
    top, left, bottom, right = crop.top, crop.left, crop.top + crop.height, crop.left + crop.width
    if top < 0 or left < 0 or bottom > height or right > width:
        pixels = cv2.copyMakeBorder(pixels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=outside)
        top, left, bottom, right = top + 1, left + 1, bottom + 1, right + 1
        height, width = height + 2, width + 2
    first_row, first_column = min(max(top, 0), height - 1), min(max(left, 0), width - 1)
    view = pixels[first_row : max(bottom, first_row + 1), first_column : max(right, first_column + 1)]
    return view, (top - first_row, left - first_column)


def _places(length: int, size: int) -> NDArray[np.int64]:
    return resize_legacy_nearest(torch.arange(length)[None], (1, size))[0].numpy()
