"""Promises of every metric: exact counts of any size, parts that add up to the whole in any order, a way to disk."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from layouts import TINY
from numpy.typing import NDArray

from veduta.data.label_maps import CITYSCAPES, numbered
from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX
from veduta.tasks import confusion
from veduta.tasks.box_metric import JointMetric
from veduta.tasks.class_metric import ClassMetric
from veduta.tasks.confusion import ConfusionMatrix, SegmentationScores, count_pairs
from veduta.tasks.mask_metric import MaskMetric
from veduta.tasks.metrics import Metric, Rules, Scores
from veduta.tasks.prediction import Prediction

Ids = NDArray[np.uint8]
Pair = tuple[Prediction, Sample]

SIZE = (12, 15)


def random_ids(seed: int, shape: tuple[int, ...], num_classes: int) -> Ids:
    """Train ids with void among them."""
    ids = np.random.default_rng(seed).integers(0, num_classes + 1, shape).astype(np.uint8)
    return np.where(ids == num_classes, IGNORE_INDEX, ids).astype(np.uint8)


def scores(num_classes: int, predictions: Ids, targets: Ids) -> SegmentationScores:
    metric = ConfusionMatrix(num_classes)
    metric.update(predictions, targets)
    return metric.compute()


def brute_force(predictions: Ids, targets: Ids, num_classes: int) -> list[list[int]]:
    counts = np.zeros((num_classes, num_classes + 1), int)
    for target, prediction in zip(targets.reshape(-1).tolist(), predictions.reshape(-1).tolist(), strict=True):
        if target < num_classes:
            counts[target, min(prediction, num_classes)] += 1
    return counts.tolist()


@pytest.mark.parametrize("num_classes", [1, 2, 5, 254, 255])
def test_counts_are_those_of_a_plain_loop(num_classes: int) -> None:
    predictions, targets = (random_ids(seed, (2, 17, 23), num_classes) for seed in (0, 1))
    found = count_pairs(predictions, targets, num_classes)
    assert found.dtype == np.int64 and found.tolist() == brute_force(predictions, targets, num_classes)


def test_counting_in_pieces_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, targets = (random_ids(seed, (19, 31), 4) for seed in (0, 1))
    whole = count_pairs(predictions, targets, 4)
    for piece in (1, 7, 19 * 31 - 1, 19 * 31):
        monkeypatch.setattr(confusion, "PIECE", piece)
        assert (count_pairs(predictions, targets, 4) == whole).all()


def test_a_piece_full_of_one_class_is_counted_exactly() -> None:
    """float32 counts, as OpenCV makes them, end at 2**24: one more and they would stand still."""
    pixels = np.ones(2**24 + 3, np.uint8)
    assert count_pairs(pixels, pixels, 2).tolist() == [[0, 0, 0], [0, 2**24 + 3, 0]]


def test_billions_of_pixels_stay_exact() -> None:
    tile = ConfusionMatrix(2)
    tile.update(np.zeros(30_001, np.uint8), np.zeros(30_001, np.uint8))
    total = ConfusionMatrix(2)
    for _ in range(100_000):
        total.merge(tile)
    total.update(np.array([1], np.uint8), np.array([0], np.uint8))
    assert total.counts.tolist() == [[3_000_100_000, 1, 0], [0, 0, 0]]
    assert total.compute().pixel_accuracy == 3_000_100_000 / 3_000_100_001


def test_billions_of_pixels_stay_exact_when_images_are_drawn_anew() -> None:
    """Of one image of 3e9 pixels, of which one is wrong."""
    right, metric = 3_000_000_000, MaskMetric(numbered(2, images=False), Rules())
    metric.restore(
        {
            "counts": np.array([[right, 1, 0], [0, 0, 0]]),
            "void": np.array(0),
            "of_images": np.array([[[right, 0], [right + 1, 0], [right, 1]]]),
        }
    )
    assert metric.compute().overall["mean_iou"] == right / (right + 1) / 2
    assert metric.resampled(np.array([1000])) == metric.resampled(np.array([1])) == right / (right + 1) / 2


def test_merge_equals_one_metric_that_saw_both() -> None:
    parts = [tuple(random_ids(seed + i, (9, 11), 3) for i in (0, 50)) for seed in (0, 1)]
    one, first, second = ConfusionMatrix(3), ConfusionMatrix(3), ConfusionMatrix(3)
    for part, metric in zip(parts, (first, second), strict=True):
        one.update(*part)
        metric.update(*part)
    first.merge(second)
    assert (first.counts == one.counts).all() and first.void == one.void == sum((t == 255).sum() for _, t in parts)


def test_update_returns_the_counts_of_its_own_pixels() -> None:
    metric = ConfusionMatrix(3)
    first = metric.update(random_ids(0, (5, 5), 3), random_ids(1, (5, 5), 3))
    second = metric.update(random_ids(2, (5, 5), 3), random_ids(3, (5, 5), 3))
    assert (first + second == metric.counts).all() and (first != metric.counts).any()


def test_any_memory_layout_counts_the_same() -> None:
    predictions, targets = random_ids(0, (12, 14), 3), random_ids(1, (12, 14), 3)
    assert (count_pairs(predictions.T, targets.T, 3) == count_pairs(predictions, targets, 3)).all()
    assert (
        count_pairs(predictions[::2, ::2], targets[::2, ::2], 3)
        == count_pairs(predictions[::2, ::2].copy(), targets[::2, ::2].copy(), 3)
    ).all()


def test_a_prediction_of_void_is_a_miss_and_a_true_void_is_nothing() -> None:
    targets, predictions = np.array([[0, 0, 255, 1]], np.uint8), np.array([[0, 255, 0, 1]], np.uint8)
    found = scores(2, predictions, targets)
    assert found.iou.tolist() == [0.5, 1.0]
    assert found.pixel_accuracy == 2 / 3


def test_an_absent_class_is_undefined_and_a_class_that_is_only_predicted_is_0() -> None:
    found = scores(4, np.array([[0, 2]], np.uint8), np.array([[0, 0]], np.uint8))
    assert found.iou[[0, 2]].tolist() == [0.5, 0.0] and np.isnan(found.iou[[1, 3]]).all()
    assert (found.mean_iou, found.mean_iou_present, found.mean_iou_all) == (0.25, 0.5, 0.125)
    assert found.present.tolist() == [True, False, False, False] and found.share.tolist() == [1, 0, 0, 0]


def test_frequent_classes_weigh_more_in_frequency_weighted_iou() -> None:
    found = scores(2, np.array([[0, 0, 0, 0]], np.uint8), np.array([[0, 0, 0, 1]], np.uint8))
    assert found.iou.tolist() == [0.75, 0] and found.frequency_weighted_iou == 0.75 * 0.75


def test_scores_of_nothing_are_undefined_rather_than_0() -> None:
    void = np.full((3, 3), 255, np.uint8)
    found = scores(2, np.zeros((3, 3), np.uint8), void)
    undefined = (found.mean_iou, found.mean_iou_present, found.frequency_weighted_iou, found.pixel_accuracy)
    assert np.isnan([*undefined, *found.iou, *found.share]).all()
    assert found.mean_iou_tensorflow == 0 and np.isnan(ConfusionMatrix(2).compute().mean_iou)


# All metrics.


def draw_masks(count: int, num_classes: int) -> list[Pair]:
    """Pairs that agree in about half of their pixels."""
    rng = np.random.default_rng(count)
    pairs = []
    for i in range(count):
        truth, noise = random_ids(i, SIZE, num_classes), random_ids(1000 + i, SIZE, num_classes)
        mask = np.where(rng.random(SIZE) < 0.5, truth, noise).astype(np.uint8)
        mask[mask == IGNORE_INDEX] = 0
        confidence = rng.random((3, 4)).astype(np.float32)
        pairs.append(
            (
                Prediction(mask=mask, confidence=confidence),
                Sample(image=np.zeros((*SIZE, 3), np.uint8), name=f"image{i:02}", mask=truth),
            )
        )
    return pairs


def draw_scenes(count: int) -> list[Pair]:
    """Masks, and boxes with objects that are difficult, crowds, scores that tie, and images without either."""
    rng, pairs = np.random.default_rng(7), []
    for i, (prediction, sample) in enumerate(draw_masks(count, TINY.num_classes)):
        objects, found = (0, 0) if i % 5 == 4 else (int(rng.integers(5)), int(rng.integers(9)))
        corners = rng.integers(0, 100, (objects + 1, 2))
        boxes = np.concatenate([corners, corners + rng.integers(10, 90, (objects + 1, 2))], axis=1)
        near = boxes[rng.integers(0, objects + 1, found)] + rng.integers(-6, 7, (found, 4))
        pairs.append(
            (
                replace(
                    prediction,
                    boxes=near.astype(np.float32),
                    box_classes=rng.integers(0, 3, found),
                    box_scores=np.sort(rng.integers(1, 9, found) / 10)[::-1].astype(np.float32),
                ),
                replace(
                    sample,
                    boxes=boxes[:-1].astype(np.float32),
                    box_classes=rng.integers(0, 3, objects),
                    box_difficult=rng.random(objects) < 0.2,
                    crowd_boxes=boxes[-1:].astype(np.float32),
                    crowd_classes=rng.integers(0, 3, 1),
                    mask=sample.mask if i % 3 else None,
                ),
            )
        )
    return pairs


def draw_classes(count: int) -> list[Pair]:
    rng = np.random.default_rng(3)
    return [
        (
            Prediction(class_scores=rng.dirichlet(np.ones(9)).astype(np.float32)),
            Sample(image=np.zeros((1, 1, 3), np.uint8), name=str(i), scene_class=int(rng.integers(9))),
        )
        for i in range(count)
    ]


FULL, STREETS = Rules(full=True), CITYSCAPES
METRICS: dict[str, tuple[Callable[[], Metric], list[Pair]]] = {
    "masks": (lambda: MaskMetric(TINY, Rules()), draw_masks(17, 3)),
    "masks, full": (lambda: MaskMetric(TINY, FULL), draw_masks(17, 3)),
    "streets, full": (lambda: MaskMetric(STREETS, FULL), draw_masks(17, 19)),
    "classes": (lambda: ClassMetric(9, Rules()), draw_classes(17)),
    "classes, full": (lambda: ClassMetric(9, FULL), draw_classes(17)),
    "joint": (lambda: JointMetric(TINY, Rules()), draw_scenes(17)),
    "joint, 11 points": (lambda: JointMetric(TINY, Rules(boxes="voc07-kit")), draw_scenes(17)),
    "joint, COCO, full": (lambda: JointMetric(TINY, Rules(boxes="coco", full=True)), draw_scenes(17)),
}


def counted(name: str, pairs: Sequence[Pair]) -> Metric:
    metric = METRICS[name][0]()
    for pair in pairs:
        metric.update(*pair)
    return metric


def assert_same(found: Scores, expected: Scores) -> None:
    """Bit for bit."""
    for field in ("overall", "per_class", "facts", "details"):
        one, other = getattr(found, field), getattr(expected, field)
        assert list(one) == list(other)
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=f"{field} {key}")
    assert (found.confusion == expected.confusion).all() and (found.present == expected.present).all()


@pytest.mark.parametrize("name", METRICS)
def test_shares_merged_in_any_order_are_the_whole_bit_for_bit(name: str) -> None:
    pairs, rng = METRICS[name][1], np.random.default_rng(0)
    for count in (1, 2, 3, 7, 16, 17):
        whole = counted(name, pairs[:count]).compute()
        for parts in range(1, 5):
            shares = [counted(name, pairs[:count][part::parts]) for part in rng.permutation(parts)]
            for share in shares[1:]:
                shares[0].merge(share)
            assert shares[0].images == count
            assert_same(shares[0].compute(), whole)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_goes_on_from_what_it_left_on_disk(name: str) -> None:
    pairs, file, again = METRICS[name][1], io.BytesIO(), METRICS[name][0]()
    arrays: dict[str, Any] = counted(name, pairs[:9]).state()
    np.savez(file, **arrays)
    file.seek(0)
    with np.load(file) as loaded:  # which refuses pickles
        again.restore(dict(loaded))
    assert again.images == 9
    for pair in pairs[9:]:
        again.update(*pair)
    whole = counted(name, pairs)
    assert_same(again.compute(), whole.compute())
    weights = np.arange(len(pairs)) % 3
    assert again.resampled(weights) == whole.resampled(weights)


@pytest.mark.parametrize("name", METRICS)
def test_what_is_left_on_disk_does_not_change_when_counting_goes_on(name: str) -> None:
    pairs = METRICS[name][1]
    metric, again = counted(name, pairs[:9]), METRICS[name][0]()
    again.restore(metric.state())
    for pair in pairs[9:]:
        metric.update(*pair)
    assert again.images == 9
    assert_same(again.compute(), counted(name, pairs[:9]).compute())


@pytest.mark.parametrize("name", METRICS)
def test_resampled_is_the_score_of_images_that_are_there_so_often(name: str) -> None:
    pairs, rng = METRICS[name][1], np.random.default_rng(1)
    metric = counted(name, pairs)
    first = next(iter(metric.compute().overall.values()))
    assert metric.resampled(np.ones(len(pairs), np.int64)) == pytest.approx(first, abs=1e-12)
    for _ in range(5):
        weights = np.bincount(rng.integers(len(pairs), size=len(pairs)), minlength=len(pairs))
        again = counted(name, [pair for pair, times in zip(pairs, weights, strict=True) for _ in range(times)])
        expected = next(iter(again.compute().overall.values()))
        assert metric.resampled(weights) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(metric.resampled(np.zeros(len(pairs), np.int64)))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_that_counted_nothing_says_so(name: str) -> None:
    metric = METRICS[name][0]()
    assert metric.images == 0 and np.isnan(list(metric.compute().overall.values())).all()
    other = METRICS[name][0]()
    metric.merge(other)
    metric.restore(other.state())
    assert metric.images == 0


def test_full_rules_add_scores_and_change_none() -> None:
    quick, full = (counted(name, METRICS["masks"][1]).compute() for name in ("masks", "masks, full"))
    assert full.overall == quick.overall and not quick.details
    assert list(full.details) == [
        *("boundary_iou", "frequency_weighted_iou", "mean_iou_present", "mean_iou_all", "calibration_error")
    ]


def test_of_cityscapes_classes_the_categories_are_scored_and_without_instances_no_iiou() -> None:
    details = counted("streets, full", METRICS["streets, full"][1]).compute().details
    assert 0 < details["category_iou"] < 1 and "iiou" not in details


def test_a_prediction_without_confidence_has_no_calibration_error() -> None:
    pairs = [(replace(prediction, confidence=None), sample) for prediction, sample in draw_masks(2, 3)]
    assert "calibration_error" not in counted("masks, full", pairs).compute().details


def test_top_5_counts_equal_scores_by_their_class() -> None:
    scores = np.full(9, 0.1, np.float32)
    metric = ClassMetric(9, Rules())
    found = [
        metric.update(
            Prediction(class_scores=scores), Sample(image=np.zeros((1, 1, 3), np.uint8), name="a", scene_class=i)
        )
        for i in range(9)
    ]
    assert [image["top1"] for image in found] == [1] + [0] * 8
    assert [image["top5"] for image in found] == [1] * 5 + [0] * 4
    assert metric.compute().overall == {"top1": 1 / 9, "top5": 5 / 9}
