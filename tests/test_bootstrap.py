"""Promises of the interval: the same every time, honest about its width, paired where two are compared, and quick."""

import time

import numpy as np
import pytest
from layouts import TINY

from veduta.data.label_maps import VOC
from veduta.data.sample import Sample
from veduta.tasks.bootstrap import interval, paired_interval
from veduta.tasks.box_metric import BoxCounts
from veduta.tasks.class_metric import ClassMetric
from veduta.tasks.mask_metric import MaskMetric
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

PHOTO = np.zeros((1, 1, 3), np.uint8)


def guesses(right: list[bool]) -> ClassMetric:
    metric = ClassMetric(2, Rules())
    for hit in right:
        scores = np.array([0.9, 0.1] if hit else [0.1, 0.9], np.float32)
        metric.update(Prediction(class_scores=scores), Sample(image=PHOTO, name="a", scene_class=0))
    return metric


def test_the_interval_is_that_of_a_share_and_the_same_every_time() -> None:
    metric = guesses([i % 5 > 0 for i in range(400)])  # 80 %: the deviation of such a share is 2 %
    low, high = interval(metric)
    assert (low, high) == interval(metric) != interval(metric, seed=1)
    assert (low, high) == pytest.approx((0.8 - 1.96 * 0.02, 0.8 + 1.96 * 0.02), abs=0.006)


def test_95_of_100_intervals_hold_the_truth() -> None:
    rng, inside = np.random.default_rng(0), 0
    for _ in range(100):
        low, high = interval(guesses((rng.random(200) < 0.7).tolist()), rounds=200)
        inside += low <= 0.7 <= high
    assert 88 <= inside <= 99


def test_less_than_two_images_have_no_interval() -> None:
    assert np.isnan(interval(guesses([True]))).all() and np.isnan(interval(guesses([]))).all()


def test_a_score_that_no_image_moves_has_an_interval_of_no_width() -> None:
    assert interval(guesses([True] * 9)) == (1, 1)


def test_draws_without_anything_to_score_are_left_out() -> None:
    metric, void = MaskMetric(TINY, Rules()), np.full((2, 2), 255, np.uint8)
    for mask in (void, void, void, np.zeros((2, 2), np.uint8)):
        metric.update(Prediction(mask=mask * 0), Sample(image=PHOTO, name="a", mask=mask))
    assert interval(metric) == (1, 1)


def test_a_difference_is_drawn_in_pairs_whatever_the_order_of_the_images() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(300) < 0.6).tolist()
    better = [hit or i % 30 == 0 for i, hit in enumerate(right)]
    order = rng.permutation(300).tolist()
    a, b = guesses(right), guesses([better[i] for i in order])
    low, high = paired_interval(a, b, range(300), order)
    gain = (sum(better) - sum(right)) / 300
    assert 0 <= low < gain < high < 0.04  # alone each would move by 0.11
    assert paired_interval(b, a, order, list(range(300))) == (-high, -low)
    assert paired_interval(a, guesses([right[i] for i in order]), range(300), order) == (0, 0)


def test_images_may_have_any_numbers() -> None:
    a, b = guesses([True, False, True, True]), guesses([True, True, True, False])
    assert paired_interval(a, b, [3, 70, 8, 9], [3, 8, 9, 70]) == (0, 0)


def test_1000_rounds_of_1449_masks_take_less_than_a_second() -> None:
    metric, rng = MaskMetric(VOC, Rules()), np.random.default_rng(0)
    counts = rng.integers(0, 10_000, (1449, 21))
    rows = np.stack([counts, counts + rng.integers(0, 900, counts.shape), counts + 400], axis=1)
    metric.restore({"counts": np.zeros((21, 22), np.int64), "void": np.array(0), "of_images": rows})
    started = time.thread_time()
    low, high = interval(metric)
    assert 0 < low < high < 1 and time.thread_time() - started < 1


def test_1000_rounds_of_150000_detections_take_seconds() -> None:
    rng, counts = np.random.default_rng(0), BoxCounts(21, Rules())
    for name in range(100):
        boxes = rng.integers(0, 400, (1500, 2)).astype(np.float32)
        near = np.concatenate([boxes, boxes + 40], axis=1)
        counts.update(
            Prediction(
                boxes=near, box_classes=rng.integers(1, 21, 1500), box_scores=rng.random(1500).astype(np.float32)
            ),
            Sample(image=PHOTO, name=str(name), boxes=near[:120], box_classes=rng.integers(1, 21, 120)),
        )
    started = time.thread_time()
    values = [counts.resampled(np.bincount(rng.integers(100, size=100), minlength=100)) for _ in range(100)]
    assert 0 < min(values) < max(values) < 1 and time.thread_time() - started < 1  # of a tenth of the rounds
