"""Boundary IoU: IoU of the strips along the outlines of the true and of the predicted regions.

Cheng et al. 2021, https://arxiv.org/abs/2103.16562. Large regions cannot hide their edges in it.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX
from veduta.tasks.confusion import PIECE, iou_of
from veduta.tasks.metrics import State
from veduta.tasks.prediction import Prediction

WIDTH = 0.02  # of a strip, as a part of the image's diagonal

Ids = NDArray[np.uint8]


def strip_width(height: int, width: int) -> int:
    """In pixels, at least one."""
    return max(1, round(WIDTH * float(np.hypot(height, width))))


def strips(mask: Ids, width: int) -> NDArray[np.bool_]:
    """Which pixels of (H, W) are no more than `width` rows and columns away from another value, or from the outside.

    The paper erodes the mask of each class by 3 x 3 so many times; this is what all the erosions take off.
    """
    square = np.ones((3, 3), np.uint8)
    edges = (cv2.dilate(mask, square) != cv2.erode(mask, square)).view(np.uint8)  # next to another value
    reach = 2 * width - 1
    found = cv2.dilate(edges, np.ones((reach, reach), np.uint8)).view(np.bool_)
    found[:width], found[-width:], found[:, :width], found[:, -width:] = True, True, True, True
    return found


def bands(height: int, width: int, halo: int) -> Iterator[tuple[slice, slice]]:
    """Rows that go through an image piece by piece: those to look at, and which of them, counted from there, are new.

    Pieces see up to `halo` rows more than their own on either side.
    """
    rows = max(1, PIECE // width)
    for start in range(0, height, rows):
        stop, first = min(start + rows, height), max(0, start - halo)
        yield slice(first, min(stop + halo, height)), slice(start - first, stop - first)


class BoundaryCounts:
    """Pixels of the strips by class, summed over images: in both strips, in the true one, in the predicted one.

    Where the truth is void the prediction is taken as void, too: nothing is counted there, and the outline that ends at
    a void region ends there on both sides.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((3, num_classes), np.int64)

    def update(self, prediction: Prediction, sample: Sample) -> None:
        assert prediction.mask is not None and sample.mask is not None
        size = sample.mask.shape[0], sample.mask.shape[1]
        width = strip_width(*size)
        for seen, new in bands(*size, width):
            truth, guess = sample.mask[seen], prediction.mask[seen].copy()
            guess[truth == IGNORE_INDEX] = IGNORE_INDEX
            true_strip, guessed_strip = _strips_alone(truth, width)[new], _strips_alone(guess, width)[new]
            both = np.where(true_strip == guessed_strip, true_strip, np.uint8(IGNORE_INDEX))
            self.counts += [self._count(part) for part in (both, true_strip, guessed_strip)]

    def _count(self, ids: Ids) -> NDArray[np.int64]:
        num_classes = self.counts.shape[1]
        return cv2.calcHist([ids], [0], None, [num_classes], [0, num_classes]).reshape(-1).astype(np.int64)

    def merge(self, other: "BoundaryCounts") -> None:
        self.counts += other.counts

    def iou(self) -> NDArray[np.float64]:
        """(num_classes,); nan for a class that is in neither truth nor prediction."""
        return iou_of(*self.counts.astype(np.float64))

    def state(self) -> State:
        return {"boundaries": self.counts}

    def restore(self, state: State) -> None:
        self.counts = state["boundaries"].copy()


def _strips_alone(mask: Ids, width: int) -> Ids:
    """The mask (H, W) where its strips are, void elsewhere."""
    return np.where(strips(mask, width), mask, np.uint8(IGNORE_INDEX))
