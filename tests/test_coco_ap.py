"""Promises of COCO's average precision: crowds, areas, limits, ties, and the numbers of pycocotools on random sets."""

import contextlib
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from writers.coco import content, write

from veduta.data.layouts.coco import open_coco
from veduta.data.layouts.shards import open_shards
from veduta.data.pack import pack
from veduta.data.sample import Sample
from veduta.tasks.box_metric import BoxCounts
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

IMAGE = np.zeros((2, 2, 3), np.uint8)
RULES = Rules(boxes="coco")

Rows = list[tuple[float, ...]]


def predicted(*rows: tuple[float, ...]) -> Prediction:
    """Rows of score, x0, y0, x1, y1, and the class where it is not 1; best first."""
    return Prediction(
        boxes=np.array([row[1:5] for row in rows], np.float32).reshape(-1, 4),
        box_classes=np.array([row[5] if len(row) > 5 else 1 for row in rows], np.int64),
        box_scores=np.array([row[0] for row in rows], np.float32),
    )


def truth(*boxes: tuple[float, ...], crowds: Rows | None = None, areas: list[float] | None = None) -> Sample:
    """Objects and crowds of class 1."""
    crowds = crowds or []
    return Sample(
        image=IMAGE,
        name="a",
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        box_classes=np.ones(len(boxes), np.int64),
        box_areas=None if areas is None else np.array(areas),
        crowd_boxes=np.array(crowds, np.float32).reshape(-1, 4),
        crowd_classes=np.ones(len(crowds), np.int64),
    )


def numbers(*pairs: tuple[Prediction, Sample]) -> dict[str, float]:
    """All twelve."""
    counts = BoxCounts(3, RULES)
    for prediction, sample in pairs:
        counts.update(prediction, sample)
    scores = counts.compute()
    return {**scores.overall, **scores.details}


BOX = (0.0, 0.0, 100.0, 100.0)
LOW = (0.1, *BOX)


def test_a_crowd_takes_its_detections_out_of_the_count_however_many() -> None:
    inside = [(0.9 - i / 100, 200.0 + i, 200.0, 240.0 + i, 240.0) for i in range(5)]
    found = numbers((predicted(*inside, LOW), truth(BOX, crowds=[(190, 190, 400, 400)])))
    assert found["ap"] == pytest.approx(1)
    assert numbers((predicted(*inside, LOW), truth(BOX)))["ap"] == pytest.approx(1 / 6)


def test_a_detection_is_given_to_an_object_rather_than_to_the_crowd_around_it() -> None:
    found = numbers((predicted((0.9, *BOX)), truth(BOX, crowds=[(-50, -50, 300, 300)])))
    assert found["ap"] == pytest.approx(1) and found["ar1"] == 1


def test_of_an_area_count_its_objects_and_what_claims_them() -> None:
    small, large = (0.0, 0.0, 20.0, 20.0), (100.0, 100.0, 300.0, 300.0)
    found = numbers((predicted((0.9, *large), (0.8, *small), (0.7, 400, 0, 410, 10)), truth(small, large)))
    assert found["ap_small"] == found["ap_large"] == pytest.approx(1) and np.isnan(found["ap_medium"])
    # The area of an object is its own where that is known, and not that of its box.
    found = numbers((predicted((0.9, *large)), truth(large, areas=[1000.0])))
    assert found["ap_small"] == pytest.approx(1) and np.isnan(found["ap_large"])
    # 32 x 32 is both small and medium.
    found = numbers((predicted((0.9, 0, 0, 32, 32)), truth((0, 0, 32, 32))))
    assert found["ap_small"] == found["ap_medium"] == pytest.approx(1)


def test_recall_takes_the_best_detections_of_each_image_and_no_more_than_100_count() -> None:
    things = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0) for i in range(130)]
    found = numbers((predicted(*((1 - i / 200, *box) for i, box in enumerate(things))), truth(*things)))
    assert [found[name] for name in ("ar1", "ar10", "ar100")] == pytest.approx([1 / 130, 10 / 130, 100 / 130])
    assert found["ap"] == pytest.approx(77 / 101)  # precision is 1 at the recalls up to 0.76


def test_an_object_is_hit_once() -> None:
    assert numbers((predicted((0.9, *BOX), (0.8, *BOX)), truth(BOX)))["ap"] == pytest.approx(1)
    assert numbers((predicted((0.9, *BOX), (0.8, *BOX)), truth(BOX, (500, 0, 600, 100))))["ar100"] == 0.5


def test_a_difficult_object_is_asked_of_nobody_and_matched_once() -> None:
    sample = Sample(
        image=IMAGE,
        name="a",
        boxes=np.array([BOX, (300, 0, 400, 100)], np.float32),
        box_classes=np.ones(2, np.int64),
        box_difficult=np.array([True, False]),
    )
    last = (0.1, 300.0, 0.0, 400.0, 100.0)
    assert numbers((predicted((0.9, *BOX), last), sample))["ap"] == pytest.approx(1)
    assert numbers((predicted((0.9, *BOX), (0.8, *BOX), last), sample))["ap"] == pytest.approx(1 / 2)


def test_of_equal_scores_the_image_whose_name_comes_first_counts_first_in_whatever_order_they_came() -> None:
    def named(name: str, *, hit: bool) -> tuple[Prediction, Sample]:
        sample = truth(BOX) if hit else truth()
        return predicted((0.5, *BOX)), Sample(**{**vars(sample), "name": name})

    first_hits = [named("000001", hit=True), named("000002", hit=False)]
    assert numbers(*first_hits)["ap"] == numbers(*first_hits[::-1])["ap"] == pytest.approx(1)
    last_hits = [named("000001", hit=False), named("000002", hit=True)]
    assert numbers(*last_hits)["ap"] == numbers(*last_hits[::-1])["ap"] == pytest.approx(1 / 2)


def test_areas_and_crowds_come_with_the_samples_of_the_layout(tmp_path: Path) -> None:
    root, new = write(tmp_path), content("train")
    first, second = new["annotations"][:2]  # the objects of the first image
    first["area"] = 7.5
    del second["area"]
    new["annotations"].append({**second, "id": 99, "iscrowd": 1, "bbox": [1, 2, 30, 40], "area": 1})
    path = root / "annotations/instances_train.json"
    path.write_text(json.dumps(new))
    sample = open_coco(root, "train")[0]
    assert sample.box_areas is not None and sample.box_areas.tolist() == [7.5, 640]  # else that of the box
    assert sample.crowd_boxes is not None and sample.crowd_boxes.tolist() == [[1, 2, 31, 42]]
    assert sample.crowd_classes is not None and sample.box_classes is not None
    assert sample.crowd_classes.tolist() == sample.box_classes[1:].tolist()
    first["area"] = "7.5"
    path.write_text(json.dumps(new))
    with pytest.raises(ValueError, match=r"annotation 500, area: expected square pixels, found '7\.5'"):
        open_coco(root, "train")


def test_areas_and_crowds_outlast_packing(tmp_path: Path) -> None:
    root, new = write(tmp_path), content("train")
    new["annotations"][0]["area"] = 7.25
    new["annotations"].append({**new["annotations"][0], "id": 99, "iscrowd": 1})
    (root / "annotations/instances_train.json").write_text(json.dumps(new))
    original = open_coco(root, "train")
    pack(original, tmp_path / "shards", split="train", workers=1, progress=lambda done, total: None)
    packed = open_shards(tmp_path / "shards", "train")
    assert len(packed) == len(original) > 0
    for index in range(len(packed)):
        for field in ("boxes", "box_areas", "crowd_boxes", "crowd_classes"):
            np.testing.assert_array_equal(getattr(packed[index], field), getattr(original[index], field))


def draw_set(rng: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Annotations, results and the number of classes, as in COCO's files, all in float32.

    Small numbers are likely: overlaps of exactly 0.5, areas of exactly 32 x 32, equal scores, several overlaps alike.
    """
    images, classes = int(rng.integers(1, 7)), int(rng.integers(1, 4))
    grid = rng.choice([0.0, 4.0, 16.0])  # to which corners are rounded, if at all

    def boxes(count: int) -> NDArray[np.float64]:
        corner, sides = rng.uniform(0, 150, (count, 2)), np.exp(rng.uniform(np.log(8), np.log(160), (count, 2)))
        drawn = np.concatenate([corner, corner + sides], axis=1)
        drawn = np.round(drawn / grid) * grid if grid else drawn
        drawn[:, 2:] = np.maximum(drawn[:, 2:], drawn[:, :2] + 4)
        return drawn.astype(np.float32).astype(np.float64)

    def xywh(box: NDArray[np.float64]) -> list[float]:
        found: list[float] = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
        return found

    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        objects = boxes(int(rng.integers(0, 9)))
        for box in objects:
            _, _, width, height = xywh(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, classes + 1)),
                    "bbox": xywh(box),
                    "area": width * height * rng.choice([1.0, 0.6]),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
        near = (
            objects[rng.integers(0, len(objects), 12)] + rng.integers(-2, 3, (12, 4)) * 4 if len(objects) else objects
        )
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 4)
        for box in np.concatenate([near.astype(np.float32).astype(np.float64), boxes(int(rng.integers(0, 140)))]):
            score = rng.integers(1, 20) / 20 if rng.random() < 0.5 else rng.random()
            results.append(
                {
                    "image_id": image,
                    "category_id": int(rng.integers(1, classes + 1)),
                    "bbox": xywh(box),
                    "score": float(np.float32(score)),
                }
            )
    everything = {
        "info": {},
        "images": [{"id": i, "height": 400, "width": 400} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": str(i)} for i in range(1, classes + 1)],
        "annotations": annotations,
    }
    return everything, results, classes


def xyxy(rows: list[dict[str, Any]]) -> NDArray[np.float32]:
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)


def ids(rows: list[dict[str, Any]]) -> NDArray[np.int64]:
    return np.array([row["category_id"] for row in rows], np.int64)


def ours(everything: dict[str, Any], results: list[dict[str, Any]], classes: int) -> BoxCounts:
    counts = BoxCounts(classes + 1, RULES)
    for image in reversed(everything["images"]):
        own, found = (
            [r for r in rows if r["image_id"] == image["id"]] for rows in (everything["annotations"], results)
        )
        things, crowds = ([row for row in own if row["iscrowd"] == crowd] for crowd in (0, 1))
        sample = Sample(
            image=IMAGE,
            name=f"{image['id']:012}",
            boxes=xyxy(things),
            box_classes=ids(things),
            box_areas=np.array([row["area"] for row in things]),
            crowd_boxes=xyxy(crowds),
            crowd_classes=ids(crowds),
        )
        scores = np.array([row["score"] for row in found], np.float32)
        order = np.argsort(-scores, kind="stable")
        counts.update(
            Prediction(boxes=xyxy(found)[order], box_classes=ids(found)[order], box_scores=scores[order]), sample
        )
    return counts


@pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="pycocotools is not installed")
@pytest.mark.parametrize("seed", range(10))
def test_twenty_random_sets_score_as_in_pycocotools(seed: int) -> None:
    from pycocotools.coco import COCO  # noqa: PLC0415
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    for _ in range(20):
        everything, results, classes = draw_set(rng)
        if not results:
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = everything
            truth.createIndex()
            peer = COCOeval(truth, truth.loadRes(results), "bbox")
            peer.evaluate()
            peer.accumulate()
            peer.summarize()
        found = ours(everything, results, classes).compute()
        values = np.nan_to_num([*found.overall.values(), *found.details.values()], nan=-1)
        np.testing.assert_allclose(values, peer.stats, rtol=0, atol=1e-9)
        precision = peer.eval["precision"][:, :, :, 0, 2]  # overlaps, recalls, classes
        expected = np.where(precision.max(axis=(0, 1)) < 0, -1, precision.mean(axis=(0, 1)))
        np.testing.assert_allclose(np.nan_to_num(found.per_class["ap"][1:], nan=-1), expected, rtol=0, atol=1e-9)
