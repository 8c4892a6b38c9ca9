"""Calibration error: how far a model's confidence is from how often it is right.

Guo et al. 2017, https://arxiv.org/abs/1706.04599, sec. 2 (ECE).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX
from veduta.ops.arrays import Array, largest_share
from veduta.tasks.metrics import State
from veduta.tasks.prediction import CONFIDENCE_STEP, Prediction

BINS = 15
UNIT = 2.0**-30  # confidences are added up as whole numbers of it: so the sum is the same in any order


def mask_confidence(mask_logits: Array) -> NDArray[np.float32]:
    """Probability of the predicted class, of every CONFIDENCE_STEP-th pixel and row: (N, C, H, W) -> (N, h, w)."""
    return largest_share(mask_logits[:, :, ::CONFIDENCE_STEP, ::CONFIDENCE_STEP])


class Calibration:
    """Guesses counted in BINS bins of equal width by their confidence; a bin holds its upper end and not its lower."""

    def __init__(self) -> None:
        self.bins: NDArray[np.int64] = np.zeros((3, BINS), np.int64)  # guesses, right ones, sum of confidences in UNITs

    @property
    def any(self) -> bool:
        """Whether a guess came with its confidence."""
        return bool(self.bins[0].any())

    def add(self, confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> None:
        """Count guesses: confidence (n,) in 0..1 of the class that was guessed, and whether it was the true one."""
        exact = confidence.astype(np.float64)
        places = np.clip(np.ceil(exact * BINS).astype(np.int64) - 1, 0, BINS - 1)
        units = np.rint(exact / UNIT)  # of one image their sum is below 2**53, so float64 adds them exactly
        rows: tuple[NDArray[Any] | None, ...] = (None, right, units)
        self.bins += np.array([np.bincount(places, row, BINS) for row in rows]).astype(np.int64)

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Count the pixels of a mask that have a confidence and are not void in the truth."""
        if prediction.confidence is not None:
            assert prediction.mask is not None and sample.mask is not None
            guess, truth = (m[::CONFIDENCE_STEP, ::CONFIDENCE_STEP] for m in (prediction.mask, sample.mask))
            counts = truth != IGNORE_INDEX
            self.add(prediction.confidence[counts], guess[counts] == truth[counts])

    def merge(self, other: "Calibration") -> None:
        self.bins += other.bins

    def error(self) -> float:
        """ECE: the gap between mean confidence and accuracy of a bin, averaged over the guesses; nan without any."""
        count, right, confidence = self.bins.astype(np.float64)
        return float(np.abs(right - confidence * UNIT).sum() / count.sum()) if count.any() else float("nan")

    def state(self) -> State:
        return {"calibration": self.bins}

    def restore(self, state: State) -> None:
        self.bins = state["calibration"].copy()
