"""Policies: the published sets of strong changes of an image, RandAugment and AutoAugment, as fast array operations.

RandAugment: Cubuk et al. 2019, https://arxiv.org/abs/1909.13719, as the authors of ResNeSt ran it. AutoAugment: Cubuk
et al. 2018, https://arxiv.org/abs/1805.09501, the ImageNet policy of its appendix. Both were written with Pillow, and
every operation gives what Pillow gives; `color`, `contrast`, `sharpness` and the shears to one level, where a sum lies
next to a whole one.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB; the operations leave their input as it is
Operation = Callable[..., Pixels]  # image, magnitude in units of the operation; of a cutout its place, too

LEVELS = np.arange(256)
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
HOLE_COLOR = (125, 123, 114)  # of a cutout
FLOAT_ERROR = 2**-14  # more than that of float32 sums: added before a value that may be whole is rounded down


def auto_contrast(image: Pixels, _: float) -> Pixels:
    """Each channel stretched to 0..255."""
    tables = []
    for channel in cv2.split(image):
        low, high, *_places = cv2.minMaxLoc(channel)
        scale = 255 / (high - low) if high > low else 1.0
        tables.append(np.clip((LEVELS * scale - (low * scale if high > low else 0)).astype(int), 0, 255))
    return _look_up(image, np.stack(tables, axis=-1))


def equalize(image: Pixels, _: float) -> Pixels:
    """Each channel with as flat a histogram as a table can make it."""
    tables = []
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).reshape(-1).astype(int)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = np.cumsum(counts) - counts
        tables.append(np.minimum((step // 2 + below) // step, 255) if step else LEVELS)
    return _look_up(image, np.stack(tables, axis=-1))


def invert(image: Pixels, _: float) -> Pixels:
    return cv2.bitwise_not(image)


def posterize(image: Pixels, bits: float) -> Pixels:
    """Only the first `bits` bits of each value, rounded down."""
    return image & np.uint8(256 - (1 << 8 - int(bits)))


def solarize(image: Pixels, threshold: float) -> Pixels:
    """Values from `threshold` on inverted."""
    return _look_up(image, np.where(threshold > LEVELS, LEVELS, 255 - LEVELS))


def solarize_add(image: Pixels, amount: float) -> Pixels:
    """Brightened by `amount` levels, then values from 128 on inverted."""
    levels = np.minimum(LEVELS + int(amount), 255)
    return _look_up(image, np.where(levels < 128, levels, 255 - levels))


def brightness(image: Pixels, factor: float) -> Pixels:
    return _look_up(image, _away_from(0, factor))


def contrast(image: Pixels, factor: float) -> Pixels:
    """Away from the mean grey of the image."""
    red, green, blue, _ = cv2.mean(image)
    return _look_up(image, _away_from(int(0.299 * red + 0.587 * green + 0.114 * blue + 0.5), factor))


def color(image: Pixels, factor: float) -> Pixels:
    """Away from grey: the saturation."""
    grey = np.asarray(Image.fromarray(image).convert("L"))  # OpenCV rounds the weights of its own otherwise
    return _blend(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), image, factor)


def sharpness(image: Pixels, factor: float) -> Pixels:
    """Away from a smooth version; the outermost pixels stay."""
    smooth = image.copy()
    smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, SMOOTH)[1:-1, 1:-1]
    return _blend(smooth, image, factor)


def rotate(image: Pixels, degrees: float) -> Pixels:
    """Counter-clockwise, nearest neighbours, black outside."""
    return np.asarray(Image.fromarray(image).rotate(degrees))


def translate_x(image: Pixels, pixels: float) -> Pixels:
    """The content to the left by whole pixels, black behind it."""
    shift = round(pixels)
    moved = np.zeros_like(image)
    if shift >= 0:
        moved[:, : max(image.shape[1] - shift, 0)] = image[:, shift:]
    else:
        moved[:, -shift:] = image[:, :shift]
    return moved


def translate_y(image: Pixels, pixels: float) -> Pixels:
    """The content upwards by whole pixels, black behind it."""
    return cv2.transpose(translate_x(cv2.transpose(image), pixels))


def shear_x(image: Pixels, slope: float) -> Pixels:
    """Row y takes its content from `slope` * y further right: cubic (a = -1), edges repeated, black outside.

    Each row moves by one distance of its own, so it needs four neighbours and no grid of coordinates: several times as
    fast as the affine resampling of Pillow that it equals.
    """
    height, width = image.shape[:2]
    shift = slope * (np.arange(height) + 0.5)
    whole = np.floor(shift)
    d = (shift - whole)[:, None].astype(np.float32)
    whole = np.clip(whole, -width - 1, width + 1).astype(int)  # further is all outside, and takes no memory
    weights = (-d + 2 * d**2 - d**3, 1 - 2 * d**2 + d**3, d + d**2 - d**3, -(d**2) + d**3)
    margin = int(np.abs(whole).max()) + 2
    padded = cv2.copyMakeBorder(image, 0, 0, margin, margin, cv2.BORDER_REPLICATE).reshape(height, -1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3 * (width + 3), axis=1)
    places = np.arange(height), 3 * (margin + whole - 1)  # from one pixel before the first to two after the last
    sheared = np.empty((height, 3 * width), np.uint8)
    for first in range(0, height, 32):  # few rows at a time: they stay in the cache
        some = slice(first, first + 32)
        rows = windows[places[0][some], places[1][some]].astype(np.float32)
        total = weights[0][some] * rows[:, : 3 * width] + FLOAT_ERROR
        for i in (1, 2, 3):
            total += weights[i][some] * rows[:, 3 * i : 3 * (i + width)]
        sheared[some] = np.clip(total, 0, 255, out=total)
    sheared, columns = sheared.reshape(image.shape), np.arange(width)
    inside = (columns >= -0.5 - shift[:, None]) & (columns < width - 0.5 - shift[:, None])
    return cv2.bitwise_and(sheared, sheared, mask=inside.view(np.uint8))


def shear_y(image: Pixels, slope: float) -> Pixels:
    return cv2.transpose(shear_x(cv2.transpose(image), slope))


def cutout(image: Pixels, side: float, column: float, row: float) -> Pixels:
    """A square hole around a place; DeVries 2017, https://arxiv.org/abs/1708.04552."""
    left, top = (int(max(0, centre - side / 2)) for centre in (column, row))
    holed = image.copy()
    holed[top : int(top + side) + 1, left : int(left + side) + 1] = HOLE_COLOR
    return holed


RANDAUGMENT: dict[Operation, tuple[float, float]] = {  # with the ranges of the magnitudes
    auto_contrast: (0, 1),
    equalize: (0, 1),
    invert: (0, 1),
    rotate: (0, 30),
    posterize: (0, 4),
    solarize: (0, 256),
    solarize_add: (0, 110),
    color: (0.1, 1.9),
    contrast: (0.1, 1.9),
    brightness: (0.1, 1.9),
    sharpness: (0.1, 1.9),
    shear_x: (0, 0.3),
    shear_y: (0, 0.3),
    cutout: (0, 40),
    translate_x: (0, 100),
    translate_y: (0, 100),
}
EITHER_WAY = (rotate, shear_x, shear_y, translate_x, translate_y)


def randaugment(image: Pixels, rng: np.random.Generator, *, holes: bool = True) -> Pixels:
    """RandAugment(2, 12): two operations, each done about half of the time, at 12/30 of its range.

    holes: whether a cutout is among the operations.
    """
    operations = [operation for operation in RANDAUGMENT if holes or operation is not cutout]
    for index in rng.integers(len(operations), size=2):
        operation = operations[index]
        if rng.random() > rng.uniform(0.2, 0.8):
            continue
        low, high = RANDAUGMENT[operation]
        magnitude = low + 12 / 30 * (high - low)
        if operation in EITHER_WAY and rng.random() > 0.5:
            magnitude = -magnitude
        height, width = image.shape[:2]
        place = (rng.uniform(1, width), rng.uniform(1, height)) if operation is cutout else ()
        image = operation(image, magnitude, *place)
    return image


AUTOAUGMENT: tuple[tuple[tuple[Operation, float, int], ...], ...] = (  # operation, probability, magnitude of 0 to 9
    ((posterize, 0.4, 8), (rotate, 0.6, 9)),
    ((solarize, 0.6, 5), (auto_contrast, 0.6, 5)),
    ((equalize, 0.8, 8), (equalize, 0.6, 3)),
    ((posterize, 0.6, 7), (posterize, 0.6, 6)),
    ((equalize, 0.4, 7), (solarize, 0.2, 4)),
    ((equalize, 0.4, 4), (rotate, 0.8, 8)),
    ((solarize, 0.6, 3), (equalize, 0.6, 7)),
    ((posterize, 0.8, 5), (equalize, 1.0, 2)),
    ((rotate, 0.2, 3), (solarize, 0.6, 8)),
    ((equalize, 0.6, 8), (posterize, 0.4, 6)),
    ((rotate, 0.8, 8), (color, 0.4, 0)),
    ((rotate, 0.4, 9), (equalize, 0.6, 2)),
    ((equalize, 0.0, 7), (equalize, 0.8, 8)),
    ((invert, 0.6, 4), (equalize, 1.0, 8)),
    ((color, 0.6, 4), (contrast, 1.0, 8)),
    ((rotate, 0.8, 8), (color, 1.0, 2)),
    ((color, 0.8, 8), (solarize, 0.8, 7)),
    ((sharpness, 0.4, 7), (invert, 0.6, 8)),
    ((shear_x, 0.6, 5), (equalize, 1.0, 9)),
    ((color, 0.4, 0), (equalize, 0.6, 3)),
    ((equalize, 0.4, 7), (solarize, 0.2, 4)),
    ((solarize, 0.6, 5), (auto_contrast, 0.6, 5)),
    ((invert, 0.6, 4), (equalize, 1.0, 8)),
    ((color, 0.6, 4), (contrast, 1.0, 8)),
    ((equalize, 0.8, 8), (equalize, 0.6, 3)),
)
REACH: dict[Operation, tuple[float, float, bool]] = {  # at magnitude 0; how far from there 9 is; whether either way
    rotate: (0, 30, True),
    shear_x: (0, 0.3, True),
    color: (1, 0.9, True),
    contrast: (1, 0.9, True),
    sharpness: (1, 0.9, True),
    posterize: (8.5, -4, False),  # from 8 bits to 4, rounded
    solarize: (256, -256, False),
    auto_contrast: (0, 0, False),
    equalize: (0, 0, False),
    invert: (0, 0, False),
}


def autoaugment(image: Pixels, rng: np.random.Generator) -> Pixels:
    """One of the 25 pairs of operations, each of the two with its own probability and magnitude."""
    for operation, probability, magnitude in AUTOAUGMENT[rng.integers(len(AUTOAUGMENT))]:
        if rng.random() < probability:
            start, reach, either_way = REACH[operation]
            sign = -1 if either_way and rng.random() < 0.5 else 1
            image = operation(image, start + sign * reach * magnitude / 9)
    return image


POLICIES: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "none": lambda image, rng: image,
    "randaugment": randaugment,
    "randaugment-no-holes": partial(randaugment, holes=False),  # MindSpore's ResNeSt
    "autoaugment": autoaugment,
}


def _look_up(image: Pixels, table: NDArray[np.integer]) -> Pixels:
    """table: (256,) for all channels, or (256, 3)."""
    return cv2.LUT(image, table.astype(np.uint8)[None] if table.ndim == 2 else table.astype(np.uint8))


def _away_from(level: int, factor: float) -> NDArray[np.integer]:
    """The table of a blend between one level (factor 0) and the image (1), cut off to whole levels as Pillow does."""
    levels = level + np.float32(factor) * (LEVELS - level).astype(np.float32)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _blend(plain: Pixels, image: Pixels, factor: float) -> Pixels:
    """Between `plain` (factor 0) and `image` (1) or beyond, cut off to whole levels as Pillow does."""
    return cv2.addWeighted(plain, 1 - factor, image, factor, FLOAT_ERROR - 0.5)
