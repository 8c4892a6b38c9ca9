"""COCO's average precision: Veduta's metric against pycocotools and faster-coco-eval.

    PYTHONPATH=src .bench/bin/python -m benchmarks.coco_ap

As large as COCO's val2017: 5,000 images, 80 classes, some 36,000 objects, 1 % of them crowds, and 100 detections in
each image. From objects and detections in memory to the twelve numbers; that all give the same ones is checked to 1e-9.
What only prepares is not timed: for the peers their index of annotations and results, for Veduta Predictions and
Samples. Veduta's time includes the scores of every single image, which the peers do not have. CPU time of all threads
of the process, in turns. Takes about six minutes, with --images 1000 one; docs/benchmarks.md says how to make .bench.
"""

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import faster_coco_eval
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
from numpy.typing import NDArray

from veduta.data.label_maps import COCO as LABELS
from veduta.data.sample import Sample
from veduta.tasks.box_metric import BoxCounts
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

NUM_OBJECTS, DETECTIONS, SIZE = 7.2, 100, 640.0
ROUNDS = 3
PHOTO = np.zeros((1, 1, 3), np.uint8)

Boxes = NDArray[np.float32]


@dataclass
class Scene:
    """Of one image. Boxes are xyxy; which of the objects are crowds."""

    objects: Boxes
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    boxes: Boxes
    box_classes: NDArray[np.int64]
    scores: NDArray[np.float32]


def draw_boxes(count: int, rng: np.random.Generator) -> Boxes:
    """Small, middling and large ones inside of the image."""
    sides = SIZE * np.exp(rng.uniform(np.log(0.02), np.log(0.8), (count, 2)))
    corner = rng.random((count, 2)) * (SIZE - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def draw_scene(rng: np.random.Generator) -> Scene:
    """Of every object some detections that are off by a few percent; the others are anywhere and of any class."""
    count = int(rng.poisson(NUM_OBJECTS))
    objects, classes = draw_boxes(count, rng), rng.choice(80, count, p=np.full(80, 1 / 80)) + 1
    copies = np.repeat(np.arange(count), rng.integers(0, 6, count))[:DETECTIONS]
    sides = np.tile(objects[copies, 2:] - objects[copies, :2], 2)
    near = objects[copies] + (rng.normal(0, 0.06, (len(copies), 4)) * sides).astype(np.float32)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    far = draw_boxes(DETECTIONS - len(copies), rng)
    scores = np.concatenate([rng.beta(3, 2, len(copies)), rng.beta(1, 8, len(far))])
    order = np.argsort(-scores.astype(np.float32), kind="stable")
    return Scene(
        objects=objects,
        classes=classes,
        crowd=rng.random(count) < 0.01,
        areas=(objects[:, 2:] - objects[:, :2]).astype(np.float64).prod(axis=1) * rng.uniform(0.4, 1, count),
        boxes=np.concatenate([near, far])[order],
        box_classes=np.concatenate([classes[copies], rng.integers(1, 81, len(far))])[order],
        scores=scores.astype(np.float32)[order],
    )


def to_coco(scenes: list[Scene]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations and results as in the JSON files."""

    def xywh(boxes: Boxes) -> list[list[float]]:
        exact = boxes.astype(np.float64)
        rows: list[list[float]] = np.concatenate([exact[:, :2], exact[:, 2:] - exact[:, :2]], axis=1).tolist()
        return rows

    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, scene in enumerate(scenes, start=1):
        columns = zip(
            xywh(scene.objects), scene.classes.tolist(), scene.crowd.tolist(), scene.areas.tolist(), strict=True
        )
        for box, category, crowd, area in columns:
            number = len(annotations) + 1
            annotations.append(
                {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": +crowd}
            )
        found = zip(xywh(scene.boxes), scene.box_classes.tolist(), scene.scores.tolist(), strict=True)
        results += [{"image_id": image, "category_id": c, "bbox": box, "score": score} for box, c, score in found]
    content = {
        "info": {},
        "images": [{"id": i, "height": int(SIZE), "width": int(SIZE)} for i in range(1, len(scenes) + 1)],
        "categories": [{"id": i, "name": LABELS.names[i]} for i in range(1, 81)],
        "annotations": annotations,
    }
    return content, results


def to_veduta(scenes: list[Scene]) -> list[tuple[Prediction, Sample]]:
    return [
        (
            Prediction(boxes=scene.boxes, box_classes=scene.box_classes, box_scores=scene.scores),
            Sample(
                image=PHOTO,
                name=f"{image:012}",
                boxes=scene.objects[~scene.crowd],
                box_classes=scene.classes[~scene.crowd],
                box_areas=scene.areas[~scene.crowd],
                crowd_boxes=scene.objects[scene.crowd],
                crowd_classes=scene.classes[scene.crowd],
            ),
        )
        for image, scene in enumerate(scenes, start=1)
    ]


def run_veduta(pairs: list[tuple[Prediction, Sample]]) -> list[float]:
    counts = BoxCounts(LABELS.num_classes, Rules(boxes="coco"))
    for prediction, sample in pairs:
        counts.update(prediction, sample)
    scores = counts.compute()
    return [*scores.overall.values(), *scores.details.values()]


def run_peer(evaluation: Callable[..., Any], truth: Any, results: Any) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        peer = evaluation(truth, results, "bbox")
        peer.evaluate()
        peer.accumulate()
        peer.summarize()
    return list(peer.stats[:12])


def main() -> None:
    parser = argparse.ArgumentParser(description="COCO's average precision: Veduta against its peers.")
    parser.add_argument("--images", type=int, default=5000)
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng) for _ in range(parser.parse_args().images)]
    content, results = to_coco(scenes)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = pycocotools.coco.COCO()
        truth.dataset = content
        truth.createIndex()
        found = truth.loadRes(results)
        fast_truth = faster_coco_eval.COCO(content)
        fast_found = fast_truth.loadRes(results)
    pairs = to_veduta(scenes)
    rivals: dict[str, Callable[[], list[float]]] = {
        "Veduta": lambda: run_veduta(pairs),
        "pycocotools": lambda: run_peer(pycocotools.cocoeval.COCOeval, truth, found),
        "faster-coco-eval": lambda: run_peer(faster_coco_eval.COCOeval_faster, fast_truth, fast_found),
    }
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(ROUNDS):
        numbers = {}
        for name in rng.permutation(list(rivals)).tolist():
            start = time.process_time()
            numbers[name] = rivals[name]()
            times[name].append(time.process_time() - start)
        for name in rivals:
            np.testing.assert_allclose(numbers[name], numbers["Veduta"], rtol=0, atol=1e-9, err_msg=name)
    print(
        f"{len(scenes):,} images, {ROUNDS} rounds, AP {numbers['Veduta'][0]:.4f}, numpy {version('numpy')}, "
        f"pycocotools {version('pycocotools')}, faster-coco-eval {version('faster-coco-eval')}"
    )
    print("\n| | median s | median ratio | ratios from to |\n|---|---:|---:|---:|")
    for name, seconds in times.items():
        ratios = np.array(seconds) / times["Veduta"]
        low, middle, high = ratios.min(), np.median(ratios), ratios.max()
        print(f"| {name} | {np.median(seconds):.2f} | {middle:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
