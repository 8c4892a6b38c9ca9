"""Promises of the calibration error: the published definition, exact sums, confidence that comes with a prediction."""

import numpy as np
import pytest
import torch
from layouts import TINY
from numpy.typing import NDArray

from veduta.config import Loss
from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX
from veduta.tasks.calibration import BINS, Calibration, mask_confidence
from veduta.tasks.classify import Classify
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction
from veduta.tasks.segment import Segment


def published(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Guo et al.: bins (0, 1/15], (1/15, 2/15], ..."""
    error, exact = 0.0, confidence.astype(np.float64)
    for i in range(BINS):
        inside = (exact > i / BINS) & (exact <= (i + 1) / BINS)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - exact[inside].mean())
    return error


@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_the_published_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1, 4000).astype(np.float32)
    right = rng.random(4000) < confidence**2
    calibration = Calibration()
    for part in range(4):
        calibration.add(confidence[part::4], right[part::4])
    assert calibration.error() == pytest.approx(published(confidence, right), abs=1e-9)


def test_the_ends_of_the_range_have_a_bin() -> None:
    calibration = Calibration()
    calibration.add(np.array([0, 1, 1], np.float32), np.array([False, True, False]))
    assert calibration.bins[0].tolist() == [1, *[0] * 13, 2] and calibration.error() == pytest.approx(1 / 3)


def test_billions_of_guesses_add_up_exactly() -> None:
    calibration, other = Calibration(), Calibration()
    calibration.add(np.full(3, 0.75, np.float32), np.array([True, True, False]))
    calibration.bins *= 1_000_000_000
    other.add(np.array([1], np.float32), np.array([False]))
    calibration.merge(other)
    assert calibration.bins.sum(axis=1).tolist() == [3_000_000_001, 2_000_000_000, 9 * 10**9 * 2**28 + 2**30]


def test_without_a_guess_there_is_no_error() -> None:
    assert np.isnan(Calibration().error()) and not Calibration().any


def test_confidence_of_a_mask_is_the_soft_max_of_every_fourth_pixel() -> None:
    logits = torch.randn(2, 5, 13, 18, generator=torch.Generator().manual_seed(0)) * 4
    expected = logits.softmax(dim=1).amax(dim=1)[:, ::4, ::4]
    np.testing.assert_allclose(mask_confidence(logits), expected, rtol=1e-6)
    for prediction, row in zip(Segment(TINY, Loss()).predict({"mask_logits": logits}), expected, strict=True):
        assert prediction.confidence is not None and prediction.confidence.dtype == np.float32
        np.testing.assert_allclose(prediction.confidence, row, rtol=1e-6)


def test_logits_of_probability_0_and_logits_that_are_no_numbers_have_a_confidence() -> None:
    logits = torch.full((1, 3, 4, 8), float("-inf"))
    logits[:, 1] = 2
    logits[..., 4:] = float("nan")
    assert mask_confidence(logits).tolist() == [[[1, 0]]]


def test_the_calibration_of_masks_leaves_out_what_is_void() -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[0, 0] = IGNORE_INDEX
    mask = truth * 0
    mask[4, 4] = 1
    prediction = Prediction(mask=mask, confidence=np.array([[0.9, 0.5], [0.5, 1]], np.float32))
    metric = Segment(TINY, Loss()).metric(Rules(full=True))
    metric.update(prediction, Sample(image=np.zeros((8, 8, 3), np.uint8), name="a", mask=truth))
    # Two right ones at 0.5 and a wrong one at 1.
    assert metric.compute().details["calibration_error"] == pytest.approx((2 * 0.5 + 1) / 3)


def test_the_calibration_of_classes_is_that_of_the_first_guess() -> None:
    metric = Classify(TINY, Loss()).metric(Rules(full=True))
    for truth in (0, 0, 0, 2):
        sample = Sample(image=np.zeros((1, 1, 3), np.uint8), name="a", scene_class=truth)
        metric.update(Prediction(class_scores=np.array([0.5, 0.25, 0.25], np.float32)), sample)
    assert metric.compute().details == {"calibration_error": pytest.approx(0.25)}
