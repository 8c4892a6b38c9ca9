"""The scores are those that the reference programs gave, to 1e-9: VOC, COCO, TensorFlow and Cityscapes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import Golden
from numpy.typing import NDArray

from veduta.data.label_maps import CITYSCAPES as LABELS
from veduta.data.sample import Sample
from veduta.tasks.box_metric import BoxCounts
from veduta.tasks.cityscapes import CATEGORIES, InstanceCounts, category_iou, weighted_counts
from veduta.tasks.confusion import ConfusionMatrix, count_pairs
from veduta.tasks.metrics import BoxRules, Rules, mean_defined
from veduta.tasks.prediction import Prediction

VOC, COCO = Golden("metrics_voc_ap"), Golden("metrics_coco_ap")
MIOU, CITYSCAPES = Golden("metrics_miou"), Golden("metrics_cityscapes")
PHOTO = np.zeros((2, 2, 3), np.uint8)


def of_case(golden: Golden, key: str, case: int) -> NDArray[np.float64]:
    rows = golden.arrays[key]
    return rows[rows[:, 0] == case]


def corners(xywh: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)


def predicted(rows: NDArray[np.float64]) -> Prediction:
    """Recorded detections of an image: case, image, class, score, x, y, w, h."""
    rows = rows[np.argsort(-rows[:, 3], kind="stable")]
    return Prediction(
        boxes=corners(rows[:, 4:]), box_classes=rows[:, 2].astype(np.int64), box_scores=rows[:, 3].astype(np.float32)
    )


def voc_counts(case: int, rules: BoxRules) -> BoxCounts:
    objects, detections, counts = of_case(VOC, "gt", case), of_case(VOC, "det", case), BoxCounts(5, Rules(boxes=rules))
    for image in np.union1d(objects[:, 1], detections[:, 1]):
        here = objects[objects[:, 1] == image]
        true = Sample(
            image=PHOTO,
            name=str(image),
            boxes=corners(here[:, 4:]),
            box_classes=here[:, 2].astype(np.int64),
            box_difficult=here[:, 3] > 0,
        )
        counts.update(predicted(detections[detections[:, 1] == image]), true)
    return counts


@pytest.mark.parametrize(("rules", "column"), [("voc12", 5), ("voc07", 4)])
def test_average_precision_is_blitznets(rules: BoxRules, column: int) -> None:
    """No two of its detections score the same, so how ties count does not matter here."""
    checked = 0
    for case in range(VOC.meta["cases"]):
        counts = voc_counts(case, rules)
        found = counts.compute().per_class["ap50"]
        for row in of_case(VOC, "expected", case):
            train_id, num_objects, num_detections = row[1:4].astype(int)
            assert counts.objects_by_class()[train_id] == num_objects
            if num_objects == 0:
                assert np.isnan(found[train_id])
            else:  # where there is no detection the reference cannot say; we say 0
                assert found[train_id] == pytest.approx(0 if num_detections == 0 else row[column], abs=1e-9)
                checked += 1
    assert checked > 500


def coco_counts(case: int, num_categories: int) -> BoxCounts:
    objects, detections = of_case(COCO, "gt", case), of_case(COCO, "det", case)
    counts = BoxCounts(num_categories + 1, Rules(boxes="coco"))
    for image in np.union1d(objects[:, 1], detections[:, 1]):
        here = objects[objects[:, 1] == image]
        things, crowds = here[here[:, 3] == 0], here[here[:, 3] == 1]
        true = Sample(
            image=PHOTO,
            name=f"{int(image):012}",
            boxes=corners(things[:, 5:]),
            box_classes=things[:, 2].astype(np.int64),
            box_areas=things[:, 4],
            crowd_boxes=corners(crowds[:, 5:]),
            crowd_classes=crowds[:, 2].astype(np.int64),
        )
        counts.update(predicted(detections[detections[:, 1] == image]), true)
    return counts


def test_the_twelve_numbers_and_those_of_each_class_are_pycocotools() -> None:
    crowds = 0
    for case, (expected, (_, num_categories)) in enumerate(
        zip(COCO.arrays["stats"], COCO.arrays["images_categories"].tolist(), strict=True)
    ):
        counts = coco_counts(case, num_categories)
        found = counts.compute()
        crowds += int(counts.left_out[1])
        numbers = np.array([*found.overall.values(), *found.details.values()])
        np.testing.assert_allclose(np.nan_to_num(numbers, nan=-1), expected, rtol=0, atol=1e-9)
        for _, category, ap, ap50 in of_case(COCO, "per_category", case):
            of_class = [found.per_class[name][int(category)] for name in ("ap", "ap50")]
            np.testing.assert_allclose(np.nan_to_num(of_class, nan=-1), [ap, ap50], rtol=0, atol=1e-9)
    assert list(found.details) == [
        *("ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")
    ]
    assert crowds > 50


def test_every_meaning_of_mean_iou_is_the_recorded_one() -> None:
    predictions, targets = MIOU.arrays["predictions"], MIOU.arrays["labels"]
    end, all_void, differing = 0, 0, 0
    for row, per_class in zip(MIOU.arrays["rows"], MIOU.arrays["per_class_iou"], strict=True):
        num_classes, start, end = int(row[0]), end, end + int(row[1])
        matrix = ConfusionMatrix(num_classes)
        matrix.update(predictions[start:end], targets[start:end])
        found = matrix.compute()
        np.testing.assert_allclose(found.iou, per_class[:num_classes], rtol=0, atol=1e-9)
        means = [found.mean_iou, found.mean_iou_present, found.mean_iou_all, found.pixel_accuracy]
        np.testing.assert_allclose(means, row[3:], rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.mean_iou_tensorflow, row[2], rtol=0, atol=1e-6)  # it divides in float32
        all_void += np.isnan(row[3])
        differing += len(set(means[:3])) == 3
    assert end == len(targets) and 0 < all_void < 20 and differing > 20


def encoded(kind: str, case: int) -> NDArray[np.uint8]:
    ids = CITYSCAPES.arrays[kind][2 * case : 2 * case + 2]
    return np.stack([LABELS.encode(mask, path=Path("cityscapes")) for mask in ids])


def test_cityscapes_label_table_is_ours() -> None:
    table: list[list[Any]] = CITYSCAPES.meta["label_table"]
    evaluated = [row for row in table if not row[5]]
    assert [(c.file_id, c.name, list(c.color)) for c in LABELS.classes] == [(r[0], r[2], r[6]) for r in evaluated]
    assert {name: tuple(r[2] for r in evaluated if r[3] == name) for name in CATEGORIES} == CATEGORIES
    assert set(CATEGORIES) == {row[3] for row in evaluated}


def test_iou_and_iiou_of_classes_and_categories_are_cityscapesscripts() -> None:
    """Ids that are not evaluated are void: in the truth they count for nothing, in a prediction they are misses."""
    columns = [CITYSCAPES.meta["categories"].index(name) for name in CATEGORIES]
    for case, averages in enumerate(CITYSCAPES.arrays["averages"]):
        guesses, truths, instances = encoded("predictions", case), encoded("labels", case), InstanceCounts()
        counts = count_pairs(guesses, truths, LABELS.num_classes)
        for guess, ids in zip(guesses, CITYSCAPES.arrays["instances"][2 * case : 2 * case + 2], strict=True):
            instances.rows.add(weighted_counts(guess, ids.astype(np.uint16))[None])
        matrix = ConfusionMatrix(LABELS.num_classes)
        matrix.update(guesses, truths)
        found = {
            "class_iou": matrix.compute().iou,
            "class_iiou": instances.class_iou(counts),
            "category_iou": category_iou(counts),
            "category_iiou": instances.category_iou(counts),
        }
        for name, values in found.items():
            expected = CITYSCAPES.arrays[name][case]
            expected = expected[columns] if name.startswith("category") else expected
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9, err_msg=name)
        means = [mean_defined(values) for values in found.values()]
        np.testing.assert_allclose(means, averages, rtol=0, atol=1e-9)
