"""Promises of the scores of boxes: BlitzNet's rules to the last case, and parts that add up to the whole."""

import numpy as np
import pytest
from golden_data import Golden
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.tasks.average_precision import BoxCounts, JointMetric, average_precision, find_hits
from veduta.tasks.prediction import Prediction

VOC = Golden("metrics_voc_ap")
IMAGE = np.zeros((4, 6, 3), np.uint8)


def predicted(*rows: tuple[int, float, tuple[float, ...]], mask: NDArray[np.uint8] | None = None) -> Prediction:
    """Rows of (class, score, box), best first."""
    return Prediction(
        boxes=np.array([box for _, _, box in rows], np.float32).reshape(-1, 4),
        box_classes=np.array([train_id for train_id, _, _ in rows], np.int64),
        box_scores=np.array([score for _, score, _ in rows], np.float32),
        mask=mask,
    )


def truth(*rows: tuple[int, bool, tuple[float, ...]], mask: NDArray[np.uint8] | None = None) -> Sample:
    """Rows of (class, difficult, box)."""
    return Sample(
        image=IMAGE,
        name="a",
        boxes=np.array([box for _, _, box in rows], np.float32).reshape(-1, 4),
        box_classes=np.array([train_id for train_id, _, _ in rows], np.int64),
        box_difficult=np.array([difficult for _, difficult, _ in rows], bool),
        mask=mask,
    )


def corners(xywh: NDArray[np.float64]) -> list[tuple[float, ...]]:
    return [(x, y, x + w, y + h) for x, y, w, h in xywh.tolist()]


def golden_case(case: int) -> list[tuple[Prediction, Sample]]:
    """The images of a recorded case."""
    objects, detections = (VOC.arrays[key][VOC.arrays[key][:, 0] == case] for key in ("gt", "det"))
    images = []
    for image in np.union1d(objects[:, 1], detections[:, 1]):
        here, found = objects[objects[:, 1] == image], detections[detections[:, 1] == image]
        found = found[np.argsort(-found[:, 3], kind="stable")]
        true = zip(here[:, 2].astype(int), here[:, 3] > 0, corners(here[:, 4:]), strict=True)
        guesses = zip(found[:, 2].astype(int), found[:, 3], corners(found[:, 4:]), strict=True)
        images.append((predicted(*guesses), truth(*true)))
    return images


def counts_of(images: list[tuple[Prediction, Sample]]) -> BoxCounts:
    counts = BoxCounts(5)
    for prediction, sample in images:
        counts.update(prediction, sample)
    return counts


def test_average_precision_is_blitznets() -> None:
    checked = 0
    for case in range(300):
        counts = counts_of(golden_case(case))
        found = counts.average_precisions()
        for _, train_id, num_objects, num_detections, _, area in VOC.arrays["expected"][
            VOC.arrays["expected"][:, 0] == case
        ]:
            train_id = int(train_id)
            assert counts.objects[train_id] == num_objects
            if num_objects == 0:
                assert np.isnan(found[train_id])
            else:  # where there is no detection the reference cannot say; we say 0
                assert found[train_id] == pytest.approx(0 if num_detections == 0 else area, abs=1e-9)
                checked += 1
    assert checked > 500


def test_any_split_over_processes_gives_the_same_bit_for_bit() -> None:
    images = [pair for case in range(6) for pair in golden_case(case)][:17]
    for count in range(1, len(images) + 1):
        whole = counts_of(images[:count])
        for parts in range(1, 5):
            first, *others = [counts_of(images[:count][part::parts]) for part in range(parts)]
            for other in others:
                first.merge(other)
            np.testing.assert_array_equal(first.average_precisions(), whole.average_precisions())
            assert (first.objects == whole.objects).all() and first.difficult == whole.difficult


BOX = (0.0, 0.0, 10.0, 10.0)
HALF = (0.0, 0.0, 10.0, 5.0)  # IoU with BOX is exactly 0.5
MOST = (0.0, 0.0, 10.0, 6.0)


@pytest.mark.parametrize(
    ("boxes", "objects", "difficult", "hits", "counted"),
    [
        ([BOX], [BOX], [False], [True], [True]),
        ([HALF], [BOX], [False], [False], [True]),  # half is not enough
        ([MOST], [BOX], [False], [True], [True]),
        ([MOST, BOX], [BOX], [False], [True, False], [True, True]),  # first come, first served
        ([BOX], [BOX], [True], [False], [False]),  # a difficult object takes its detection out
        ([BOX, MOST], [BOX, MOST], [True, False], [False, True], [False, True]),  # the one overlapped most decides
        ([BOX], [], [], [False], [True]),
        ([], [BOX], [False], [], []),
        ([(3.0, 3.0, 3.0, 3.0)], [(3.0, 3.0, 3.0, 3.0)], [False], [False], [True]),  # no area: no number, no hit
    ],
)
def test_which_detections_hit(
    boxes: list[object], objects: list[object], difficult: list[bool], hits: list[bool], counted: list[bool]
) -> None:
    first, second = (np.array(values, np.float32).reshape(-1, 4) for values in (boxes, objects))
    found = find_hits(first, second, np.array(difficult, bool))
    assert [flags.tolist() for flags in found] == [hits, counted]


def test_the_order_of_equal_scores_changes_nothing() -> None:
    scores, hits = np.array([0.9, 0.5, 0.5, 0.5, 0.1], np.float32), np.array([True, False, True, False, True])
    for order in ([0, 1, 2, 3, 4], [0, 2, 1, 3, 4], [4, 3, 2, 1, 0]):
        # 1 of 1, then 2 of 4, then 3 of 5, which lifts the 2 of 4 before it
        assert average_precision(scores[order], hits[order], 4) == pytest.approx((1 + 0.6 + 0.6) / 4)


def test_a_class_without_objects_is_left_out_and_one_that_is_not_found_counts_0() -> None:
    metric = JointMetric(4)
    metric.update(predicted((1, 0.9, BOX), (3, 0.8, BOX)), truth((1, False, BOX), (2, False, BOX)))
    scores = metric.compute()
    np.testing.assert_array_equal(scores.per_class["ap50"], [np.nan, 1, 0, np.nan])
    assert scores.overall["ap50"] == 0.5 and scores.present.tolist() == [False, True, True, False]
    assert scores.facts["objects"] == 2 and scores.facts["difficult"] == 0


def test_an_image_has_scores_of_its_own() -> None:
    metric, mask = JointMetric(3), np.array([[0, 1], [1, 1]], np.uint8)
    first = metric.update(predicted((1, 0.9, BOX), mask=mask), truth((1, False, BOX), mask=mask))
    second = metric.update(predicted((1, 0.8, BOX), mask=mask * 0), truth((2, False, BOX), mask=mask))
    assert first == {"ap50": 1, "mean_iou": 1} and second == {"ap50": 0, "mean_iou": 0.125}
    assert metric.compute().overall == {"ap50": 0.5, "mean_iou": pytest.approx((2 / 5 + 3 / 6) / 2)}


def test_an_image_without_a_mask_counts_for_its_boxes_alone() -> None:
    metric = JointMetric(3)
    found = metric.update(predicted((1, 0.9, BOX), mask=np.zeros((4, 6), np.uint8)), truth((1, False, BOX)))
    assert found["ap50"] == 1 and np.isnan(found["mean_iou"])
    scores = metric.compute()
    assert np.isnan(scores.overall["mean_iou"]) and np.isnan(scores.facts["void_share"])


def test_an_image_with_neither_objects_nor_detections_is_neither_good_nor_bad() -> None:
    metric = JointMetric(3)
    assert np.isnan(metric.update(predicted(), truth())["ap50"]) and np.isnan(metric.compute().overall["ap50"])
