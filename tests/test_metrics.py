"""Promises of the metric: the published numbers, exact counts of any size, and parts that add up to the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import Golden
from numpy.typing import NDArray

from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap
from veduta.tasks import metrics
from veduta.tasks.metrics import ConfusionMatrix, SegmentationScores, count_pairs

Ids = NDArray[np.uint8]

MIOU = Golden("metrics_miou")
CITYSCAPES = Golden("metrics_cityscapes")


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
        monkeypatch.setattr(metrics, "PIECE", piece)
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
    assert found.mean_iou == 0.25
    assert found.present.tolist() == [True, False, False, False] and found.share.tolist() == [1, 0, 0, 0]


def test_scores_of_nothing_are_undefined_rather_than_0() -> None:
    void = np.full((3, 3), 255, np.uint8)
    found = scores(2, np.zeros((3, 3), np.uint8), void)
    assert np.isnan([found.mean_iou, found.pixel_accuracy, *found.iou, *found.share]).all()
    assert np.isnan(ConfusionMatrix(2).compute().mean_iou)


def test_scores_agree_with_tensorflows_evaluation() -> None:
    """tf.metrics.mean_iou means over the same classes; it differs from us only where all is void: 0, we say nan."""
    predictions, targets = MIOU.arrays["predictions"], MIOU.arrays["labels"]
    cases = zip(MIOU.arrays["rows"], MIOU.arrays["per_class_iou"], strict=True)
    end, all_void = 0, 0
    for (classes, pictures, tf_mean, mean_iou, _, _, accuracy), per_class in cases:
        num_classes, start, end = int(classes), end, end + int(pictures)
        found = scores(num_classes, predictions[start:end], targets[start:end])
        np.testing.assert_allclose(found.iou, per_class[:num_classes], rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.mean_iou, mean_iou, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.pixel_accuracy, accuracy, rtol=0, atol=1e-9)
        if np.isnan(mean_iou):
            assert tf_mean == 0
            all_void += 1
        else:
            np.testing.assert_allclose(found.mean_iou, tf_mean, rtol=0, atol=1e-6)
    assert end == len(targets) and all_void < 20


def cityscapes_labels(table: list[list[Any]]) -> LabelMap:
    evaluated = [row for row in table if not row[5]]
    return LabelMap(
        name="cityscapes",
        classes=tuple(LabelClass(file_id=row[0], name=row[2], color=row[6]) for row in evaluated),
        void_ids=tuple(row[0] for row in table if row[5] and row[0] >= 0),
    )


def test_scores_agree_with_cityscapes_own_evaluation() -> None:
    """Ids that are not evaluated are void: in the truth they count for nothing, in a prediction they are misses."""
    labels = cityscapes_labels(CITYSCAPES.meta["label_table"])
    assert [c.file_id for c in labels.classes] == CITYSCAPES.meta["evaluated_ids"]

    def encoded(kind: str, case: int) -> Ids:
        ids: Ids = CITYSCAPES.arrays[kind][2 * case : 2 * case + 2]
        return np.stack([labels.encode(mask, path=Path("cityscapes")) for mask in ids])

    cases = zip(CITYSCAPES.arrays["class_iou"], CITYSCAPES.arrays["averages"][:, 0], strict=True)
    for case, (class_iou, average) in enumerate(cases):
        found = scores(labels.num_classes, encoded("predictions", case), encoded("labels", case))
        np.testing.assert_allclose(found.iou, class_iou, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.mean_iou, average, rtol=0, atol=1e-9)
