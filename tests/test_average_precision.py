"""Promises of the scores of boxes: VOC's rules to the last case, and boxes and masks scored in one pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import Picture, Thing
from writers.voc import annotation

from veduta.data.label_maps import VOC, numbered
from veduta.data.layout import Boxes
from veduta.data.layouts.voc import read_boxes
from veduta.data.sample import Sample
from veduta.tasks.average_precision import ELEVEN, find_hits, overlaps
from veduta.tasks.box_metric import BoxCounts, JointMetric
from veduta.tasks.metrics import BoxRules, Rules
from veduta.tasks.precision_recall import DETECTION, OBJECT, Curves
from veduta.tasks.prediction import Prediction

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


def joint(num_classes: int, rules: BoxRules = "voc12") -> JointMetric:
    return JointMetric(numbered(num_classes, images=False), Rules(boxes=rules))


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


def test_boxes_of_first_and_last_pixels_are_one_longer() -> None:
    one, other = np.array([[1, 1, 10, 10]], np.float32), np.array([[1, 1, 10, 5]], np.float32)
    assert overlaps(one, other, longer=1).item() == 0.5 and overlaps(one, other).item() == 9 * 4 / 81


def curve(scores: list[float], hits: list[bool], num_objects: int, *, together: bool = True) -> float:
    detections = np.zeros(len(scores), DETECTION)
    detections["score"], detections["hits"] = scores, hits
    curves = Curves(detections, np.zeros(num_objects, OBJECT), num_classes=1, recalls=None, together=together)
    return curves.average_precisions(np.ones(1, np.int64)).item()


def test_the_order_of_equal_scores_changes_nothing_where_they_count_together() -> None:
    scores, hits = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([True, False, True, False, True])
    for order in ([0, 1, 2, 3, 4], [0, 2, 1, 3, 4], [4, 3, 2, 1, 0]):
        # 1 of 1, then 2 of 4, then 3 of 5, which lifts the 2 of 4 before it
        assert curve(scores[order].tolist(), hits[order].tolist(), 4) == pytest.approx((1 + 0.6 + 0.6) / 4)


def test_elsewhere_the_first_of_equal_scores_counts_first() -> None:
    assert curve([0.5, 0.5], [True, False], 1, together=False) == 1
    assert curve([0.5, 0.5], [False, True], 1, together=False) == 0.5
    assert curve([0.5, 0.5], [True, False], 1) == 0.5


def test_at_eleven_points_the_best_precision_from_each_recall_on_is_read_off() -> None:
    counts = BoxCounts(2, Rules(boxes="voc07"))
    far = (50.0, 50.0, 60.0, 60.0)
    counts.update(predicted((1, 0.9, BOX), (1, 0.8, far)), truth((1, False, BOX), (1, False, far), (1, False, far)))
    # 2 of 2 at a recall of 2/3: that is at 0, 0.1, ... 0.6
    assert counts.compute().overall["ap50"] == pytest.approx(7 / 11)
    assert ELEVEN[3] > 0.3  # as in the reference, where 3 of 10 do not reach the fourth point


def read(thing_rows: list[Thing], folder: Path) -> Boxes:
    """Objects by way of an annotation file."""
    path = folder / "a.xml"
    path.write_text(annotation(Picture(name="a", jpeg=b"", size=(100, 100), things=tuple(thing_rows))))
    return read_boxes(path, VOC)


def run_kit(objects: list[Thing], detections: list[tuple[float, float, float, float, float]], *, points: bool) -> float:
    """VOCevaldet and VOCap of the development kit, in its own numbers: pixels from 1, the last one included."""
    taken, hits, counted = set(), [], []
    for _, left, top, right, bottom in sorted(detections, reverse=True):
        best, of = -1.0, -1
        for i, thing in enumerate(objects):
            xmin, ymin, xmax, ymax = thing.left + 1, thing.top + 1, thing.right, thing.bottom
            width, height = min(right, xmax) - max(left, xmin) + 1, min(bottom, ymax) - max(top, ymin) + 1
            if width > 0 and height > 0:
                union = (right - left + 1) * (bottom - top + 1) + (xmax - xmin + 1) * (ymax - ymin + 1) - width * height
                if width * height / union > best:
                    best, of = width * height / union, i
        if best >= 0.5 and objects[of].difficult:
            continue
        hits.append(best >= 0.5 and of not in taken)
        counted.append(1)
        taken |= {of} if best >= 0.5 else set()
    found = np.cumsum(hits)
    recall, precision = found / sum(not thing.difficult for thing in objects), found / np.cumsum(counted)
    if points:
        return float(sum(max(precision[recall >= t * 0.1], default=0) for t in range(11)) / 11)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * falling).sum())


@pytest.mark.parametrize("rules", ["voc12-kit", "voc07-kit"])
def test_by_the_kits_rules_the_score_is_that_of_the_kit_on_voc_files(rules: BoxRules, tmp_path: Path) -> None:
    """Annotations and lines of detections in the kit's numbers are read as edges, and score the same."""
    rng, differing = np.random.default_rng(0), 0
    for _ in range(40):
        corners = rng.integers(0, 70, (6, 2))
        ends = corners + rng.integers(4, 30, (6, 2))
        objects = [
            Thing(3, left, top, right, bottom, difficult=i > 3)
            for i, ((left, top), (right, bottom)) in enumerate(zip(corners.tolist(), ends.tolist(), strict=True))
        ]
        near = np.concatenate([corners, ends], axis=1)[rng.integers(0, 6, 15)] + rng.integers(-4, 5, (15, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        scores = rng.permutation(15) / 16
        lines = [(score, x0 + 1, y0 + 1, x1, y1) for score, (x0, y0, x1, y1) in zip(scores, near.tolist(), strict=True)]
        boxes, order = read(objects, tmp_path), np.argsort(-scores)
        sample = Sample(
            image=IMAGE, name="a", boxes=boxes.xyxy, box_classes=boxes.classes, box_difficult=boxes.difficult
        )
        prediction = Prediction(
            boxes=near[order].astype(np.float32),
            box_classes=np.full(15, 3),
            box_scores=scores[order].astype(np.float32),
        )
        found = BoxCounts(21, Rules(boxes=rules))
        expected = run_kit(objects, lines, points=rules == "voc07-kit")
        assert found.update(prediction, sample) == pytest.approx(expected, abs=1e-9)
        raw = replace(sample, boxes=boxes.xyxy + np.array([1, 1, 0, 0], np.float32))
        differing += abs(BoxCounts(21, Rules(boxes=rules)).update(prediction, raw) - expected) > 0.01
    assert differing > 10  # a pixel more or less would have been seen


def test_an_overlap_of_exactly_a_half_hits_by_the_kits_rules_alone() -> None:
    cases: dict[BoxRules, int] = {"voc12": 0, "voc12-kit": 1, "voc07": 0, "voc07-kit": 1}
    for rules, expected in cases.items():
        assert BoxCounts(2, Rules(boxes=rules)).update(predicted((1, 0.9, HALF)), truth((1, False, BOX))) == expected


def test_a_class_without_objects_is_left_out_and_one_that_is_not_found_counts_0() -> None:
    metric = joint(4)
    metric.update(predicted((1, 0.9, BOX), (3, 0.8, BOX)), truth((1, False, BOX), (2, False, BOX)))
    scores = metric.compute()
    np.testing.assert_array_equal(scores.per_class["ap50"], [np.nan, 1, 0, np.nan])
    assert scores.overall["ap50"] == 0.5 and scores.present.tolist() == [False, True, True, False]
    assert scores.facts["objects"] == 2 and scores.facts["difficult"] == 0


def test_an_image_has_scores_of_its_own() -> None:
    metric, mask = joint(3), np.array([[0, 1], [1, 1]], np.uint8)
    first = metric.update(predicted((1, 0.9, BOX), mask=mask), truth((1, False, BOX), mask=mask))
    second = metric.update(predicted((1, 0.8, BOX), mask=mask * 0), truth((2, False, BOX), mask=mask))
    assert first == {"ap50": 1, "mean_iou": 1} and second == {"ap50": 0, "mean_iou": 0.125}
    assert metric.compute().overall == {"ap50": 0.5, "mean_iou": pytest.approx((2 / 5 + 3 / 6) / 2)}


def test_by_cocos_rules_an_image_and_the_whole_start_with_the_mean_over_overlaps() -> None:
    metric, mask = joint(3, "coco"), np.array([[0, 1], [1, 1]], np.uint8)
    found = metric.update(predicted((1, 0.9, MOST), mask=mask), truth((1, False, BOX), mask=mask))
    assert found == {"ap": pytest.approx(0.3), "mean_iou": 1}  # 0.6 reaches 0.5, 0.55 and 0.6
    assert metric.compute().overall == {"ap": pytest.approx(0.3), "ap50": pytest.approx(1), "mean_iou": 1}


def test_an_image_without_a_mask_counts_for_its_boxes_alone() -> None:
    metric = joint(3)
    found = metric.update(predicted((1, 0.9, BOX), mask=np.zeros((4, 6), np.uint8)), truth((1, False, BOX)))
    assert found["ap50"] == 1 and np.isnan(found["mean_iou"])
    scores = metric.compute()
    assert np.isnan(scores.overall["mean_iou"]) and np.isnan(scores.facts["void_share"])


def test_an_image_with_neither_objects_nor_detections_is_neither_good_nor_bad() -> None:
    metric = joint(3)
    assert np.isnan(metric.update(predicted(), truth())["ap50"]) and np.isnan(metric.compute().overall["ap50"])
