"""Promises of boundary IoU: the paper's strips to the pixel, void that hides both sides, memory that does not grow."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX
from veduta.tasks import boundaries
from veduta.tasks.boundaries import BoundaryCounts, strip_width, strips
from veduta.tasks.prediction import Prediction

Ids = NDArray[np.uint8]


def blobs(seed: int, size: tuple[int, int], num_classes: int, *, void: float = 0.0) -> Ids:
    """Regions with ragged outlines, some as thin as a pixel."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, num_classes, (max(2, size[0] // 12), max(2, size[1] // 12)), dtype=np.uint8)
    mask = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)
    mask[rng.random(size) < 0.01] = rng.integers(0, num_classes)
    mask[:: size[0] // 3] = rng.integers(0, num_classes)
    mask[cv2.blur(rng.random(size), (5, 5)) < void * 0.5] = IGNORE_INDEX
    return mask


def paper(mask: Ids, width: int) -> Ids:
    """What so many erosions of a binary mask by 3 x 3 take off; outside of the image is not the object."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)
    return mask - eroded[1:-1, 1:-1]


def paper_counts(guess: Ids, truth: Ids, num_classes: int) -> list[list[int]]:
    """In both strips, in the true one, in the predicted one."""
    counts = []
    for train_id in range(num_classes):
        width = strip_width(*truth.shape)
        one, other = (paper((mask == train_id).astype(np.uint8), width) for mask in (truth, guess))
        counts.append([int((one & other).sum()), int(one.sum()), int(other.sum())])
    return np.transpose(counts).tolist()


def counted(guess: Ids, truth: Ids, num_classes: int) -> BoundaryCounts:
    counts = BoundaryCounts(num_classes)
    counts.update(Prediction(mask=guess), Sample(image=np.zeros((*truth.shape, 3), np.uint8), name="a", mask=truth))
    return counts


def test_a_strip_is_2_percent_of_the_diagonal_wide_and_at_least_a_pixel() -> None:
    assert [strip_width(*size) for size in ((1024, 2048), (375, 500), (10, 10), (1, 1))] == [46, 12, 1, 1]


@pytest.mark.parametrize("width", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("size", [(37, 50), (9, 80), (1, 30), (64, 64)])
def test_strips_are_what_the_papers_erosions_take_off(width: int, size: tuple[int, int]) -> None:
    mask = blobs(width, size, 4) if min(size) > 3 else np.arange(size[1], dtype=np.uint8)[None] // 7
    found = strips(mask, width)
    for train_id in np.unique(mask):
        expected = paper((mask == train_id).astype(np.uint8), width)
        assert (found[mask == train_id] == expected[mask == train_id]).all()


@pytest.mark.parametrize("size", [(200, 320), (61, 47), (30, 400)])
def test_counts_are_those_of_each_class_by_itself(size: tuple[int, int]) -> None:
    truth, guess = blobs(0, size, 5), blobs(1, size, 5)
    guess = np.where(np.random.default_rng(0).random(size) < 0.995, truth, guess).astype(np.uint8)
    found = counted(guess, truth, 5)
    assert found.counts.tolist() == paper_counts(guess, truth, 5)
    hit, true, predicted = found.counts
    np.testing.assert_array_equal(found.iou(), hit / (true + predicted - hit))


def test_a_perfect_prediction_scores_1_also_along_void() -> None:
    truth = blobs(3, (90, 130), 4, void=0.9)
    guess = truth.copy()
    guess[truth == IGNORE_INDEX] = 2  # a model says something there
    assert (truth == IGNORE_INDEX).mean() > 0.05
    found = counted(guess, truth, 4)
    assert (found.iou()[~np.isnan(found.iou())] == 1).all() and found.counts.any()


def test_what_is_predicted_in_void_counts_for_nothing() -> None:
    truth = blobs(3, (90, 130), 4, void=0.9)
    guess = blobs(4, (90, 130), 4)
    other = np.where(truth == IGNORE_INDEX, 3, guess).astype(np.uint8)
    assert counted(guess, truth, 4).counts.tolist() == counted(other, truth, 4).counts.tolist()


def test_large_images_are_counted_in_bands_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, guess = blobs(0, (120, 70), 4, void=0.8), blobs(1, (120, 70), 4)
    whole = counted(guess, truth, 4).counts.tolist()
    for pixels in (1, 70, 5 * 70 + 3, 100 * 70):
        monkeypatch.setattr(boundaries, "PIECE", pixels)
        assert counted(guess, truth, 4).counts.tolist() == whole


def test_a_prediction_off_by_some_pixels_loses_more_along_outlines_than_inside() -> None:
    truth = np.zeros((200, 200), np.uint8)
    truth[50:150, 50:150] = 1
    found = counted(np.roll(truth, 3, axis=1), truth, 2).iou()
    assert found[1] < 0.65 < 97 / 103  # which is its IoU


def test_a_class_that_is_in_neither_is_undefined_and_one_that_is_in_one_alone_is_0() -> None:
    found = counted(np.full((20, 20), 1, np.uint8), np.zeros((20, 20), np.uint8), 3).iou()
    assert found[:2].tolist() == [0, 0] and np.isnan(found[2])
