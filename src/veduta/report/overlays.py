"""What lies over a photo: the classes of its pixels, and where these are wrong. In colours, and in lines and words.

Masks are (H, W) uint8 train ids. Overlays are (H, W, 4) uint8 RGBA, nothing where the last is 0.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.labels import IGNORE_INDEX, LabelMap
from veduta.tasks.prediction import OPACITY

WRONG = (214, 0, 90)  # RGB; dark on the pale photo, so that it does not take colour to see it
GAINED = (0, 112, 104)  # in stripes
NEITHER = (40, 40, 40)  # wrong before and after; in dots
BLACK = 90  # opacity, of 255
HATCH = 6  # pixels from one line over void to the next, and from one stripe to the next
LETTER = 0.028  # height of the letters, of the longer side
COARSE = 160  # rows that are enough to find a place for a name
MOST_NAMED = 12  # classes of a picture, the largest ones

Pixels = NDArray[np.uint8]
Size = tuple[int, int]  # height and width


@dataclass(frozen=True)
class Word:
    """The name of a class, centred at a place of the whole image."""

    x: float
    y: float
    text: str


def shrink(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Shrink to fit into (width, height); smaller images stay as they are."""
    height, width = image.shape[:2]
    factor = min(1.0, size[0] / width, size[1] / height)
    fitted = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, fitted, interpolation=cv2.INTER_AREA).astype(np.uint8)


def shrink_mask(mask: Pixels, image: Pixels) -> Pixels:
    """Train ids (h, w) at the size of `image` (H, W, 3)."""
    size = (image.shape[1], image.shape[0])
    return cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)


def lay_classes(mask: Pixels, labels: LabelMap) -> Pixels:
    """The colours of the classes, nothing over void, a fine dark line between two of them."""
    colors = np.full((256, 4), round(255 * OPACITY), np.uint8)
    colors[:, :3] = labels.palette
    colors[(labels.palette == 0).all(axis=1), 3] = BLACK  # else nobody sees the photo below VOC's background
    colors[IGNORE_INDEX] = 0
    overlay = colors[mask]
    border = np.zeros(mask.shape, bool)
    border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    border[1:] |= mask[1:] != mask[:-1]
    overlay[border] = (0, 0, 0, 170)
    return overlay


def lay_errors(truth: Pixels, prediction: Pixels) -> Pixels:
    """Wrong pixels in a strong colour, void hatched."""
    return _lay(truth, (prediction != truth, (*WRONG, 205)))


def lay_changes(truth: Pixels, before: Pixels, after: Pixels) -> Pixels:
    """What was right and is wrong in a strong colour, what was wrong and is right striped, wrong both times dotted."""
    lost, gained = (before == truth) & (after != truth), (before != truth) & (after == truth)
    rows, columns = np.indices(truth.shape)
    stripe, dot = rows % HATCH < HATCH // 2, (rows % HATCH < 2) & (columns % HATCH < 2)
    return _lay(
        truth,
        ((before != truth) & (after != truth) & dot, (*NEITHER, 255)),
        (lost, (*WRONG, 205)),
        (gained & stripe, (*GAINED, 235)),
        (gained & ~stripe, (*GAINED, 70)),
    )


def name_regions(mask: Pixels, labels: LabelMap, size: Size) -> tuple[Word, ...]:
    """The names of the largest classes, each where it is widest, if there is room. size: of the whole image."""
    mask = mask[:: max(1, len(mask) // COARSE), :: max(1, len(mask) // COARSE)]
    letter, scale = LETTER * max(mask.shape), max(size) / max(mask.shape)
    counts = np.bincount(mask.reshape(-1), minlength=256)[:IGNORE_INDEX]
    named: list[tuple[float, float, float]] = []  # x, y, half of the width
    words = []
    for train_id in np.argsort(-counts, kind="stable")[: min(MOST_NAMED, np.count_nonzero(counts))].tolist():
        inside = np.pad((mask == train_id).astype(np.uint8), 1)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        deepest = np.argwhere(depth >= 0.9 * depth.max())
        y, x = deepest[np.abs(deepest - deepest.mean(axis=0)).sum(axis=1).argmin()].tolist()
        half = 0.3 * letter * len(labels.names[train_id])
        free = all(abs(y - v) > 1.2 * letter or abs(x - u) > half + other for u, v, other in named)
        if depth[y, x] > 0.7 * letter and 2 * half < mask.shape[1] and free:
            middle = float(np.clip(x, half, mask.shape[1] - half))
            named.append((middle, y, half))
            words.append(Word(round(scale * middle, 1), round(scale * y, 1), labels.names[train_id]))
    return tuple(words)


def _lay(truth: Pixels, *layers: tuple[NDArray[np.bool_], tuple[int, int, int, int]]) -> Pixels:
    """Each layer's pixels in its colour, where the truth is no void; void hatched."""
    void = truth == IGNORE_INDEX
    rows, columns = np.indices(truth.shape)
    overlay = np.zeros((*truth.shape, 4), np.uint8)
    for pixels, color in layers:
        overlay[pixels & ~void] = color
    overlay[void & ((rows + columns) % HATCH < 2)] = (70, 70, 70, 255)
    return overlay
