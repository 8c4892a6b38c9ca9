"""From BlitzNet300's outputs to detections: Veduta's `detect` against torchvision's `batched_nms` and a Python loop.

    PYTHONPATH=src .bench/bin/python -m benchmarks.nms

One image, 45,390 priors, 21 classes. "Realistic": background almost everywhere, some hundred priors around a dozen
objects. "Everything": every score of every prior above the threshold. All rivals do the same from soft-max to the 200
best; the loop keeps one box at a time and computes its overlaps with one call of numpy, as most published code does.
First all must find the same, and do. Then CPU time in one thread, and the time on the clock with two: the promise is
less than 30 ms there. Takes about a minute; docs/benchmarks.md says how to make .bench.
"""

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from benchmarks.timing import Round, compare
from veduta.ops import detections as ours
from veduta.ops.boxes import Detections, corners, decode, detect, encode, iou
from veduta.ops.priors import SCALES, level_sizes, prior_boxes

NUM_CLASSES, NUM_OBJECTS = 21, 12
ROUNDS, WARMUP = 40, 3

Outputs = tuple[Tensor, Tensor, Tensor]


def draw_realistic(priors: Tensor, rng: torch.Generator) -> Outputs:
    """Confident where a prior overlaps an object, the more the closer; deltas that nearly point at it."""
    start = 0.7 * torch.rand(NUM_OBJECTS, 2, generator=rng)
    objects = torch.cat([start, start + 0.05 + 0.25 * torch.rand(NUM_OBJECTS, 2, generator=rng)], dim=1)
    classes = torch.randint(1, NUM_CLASSES, (NUM_OBJECTS,), generator=rng)
    overlaps, nearest = iou(corners(priors), objects).max(dim=1)
    logits = torch.randn(len(priors), NUM_CLASSES, generator=rng)
    logits[:, 0] += 8
    logits[torch.arange(len(priors)), classes[nearest]] += 14 * overlaps
    deltas = encode(objects[nearest], priors).where(overlaps[:, None] > 0.2, 0)
    return logits, deltas + 0.3 * torch.randn(len(priors), 4, generator=rng), priors


def draw_everything(priors: Tensor, rng: torch.Generator) -> Outputs:
    logits = 0.1 * torch.randn(len(priors), NUM_CLASSES, generator=rng)
    assert logits.softmax(dim=1).min() > ours.MIN_SCORE
    return logits, torch.randn(len(priors), 4, generator=rng), priors


def candidates(class_logits: Tensor, box_deltas: Tensor, priors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels of the best of every class, class after class, best first."""
    scores = class_logits.softmax(dim=1)
    seen = scores[:, 1:].amax(dim=1) > ours.MIN_SCORE
    scores, boxes = scores[seen], decode(box_deltas[seen], priors[seen])
    best, places = scores[:, 1:].topk(min(ours.CANDIDATES_PER_CLASS, len(scores)), dim=0)
    chosen = best.T > ours.MIN_SCORE
    labels = torch.arange(1, NUM_CLASSES)[:, None].expand_as(chosen)
    return boxes[places.T[chosen]], best.T[chosen], labels[chosen]


def best_of_all(boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
    order = scores.argsort(descending=True)[: ours.KEPT_PER_IMAGE]
    return Detections(boxes[order], labels[order], scores[order])


def torchvisions(class_logits: Tensor, box_deltas: Tensor, priors: Tensor) -> Detections:
    boxes, scores, labels = candidates(class_logits, box_deltas, priors)
    kept = batched_nms(boxes, scores, labels, ours.SUPPRESSING_IOU)
    earlier = torch.nn.functional.one_hot(labels[kept], NUM_CLASSES).cumsum(dim=0)  # of the same class, itself included
    kept = kept[earlier.gather(1, labels[kept][:, None])[:, 0] <= ours.KEPT_PER_CLASS]
    return best_of_all(boxes[kept], scores[kept], labels[kept])


def suppress_by_loop(boxes: NDArray[np.float32]) -> list[int]:
    """Places of what is kept; boxes are best first."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = np.arange(len(boxes)), list[int]()
    while len(order) and len(kept) < ours.KEPT_PER_CLASS:
        first, order = order[0], order[1:]
        kept.append(int(first))
        start = np.maximum(boxes[first, :2], boxes[order, :2])
        end = np.minimum(boxes[first, 2:], boxes[order, 2:])
        both = np.clip(end - start, 0, None).prod(axis=1)
        order = order[both / (areas[first] + areas[order] - both) <= ours.SUPPRESSING_IOU]
    return kept


def loops(class_logits: Tensor, box_deltas: Tensor, priors: Tensor) -> Detections:
    boxes, scores, labels = candidates(class_logits, box_deltas, priors)
    kept = []
    for label in range(1, NUM_CLASSES):
        rows = (labels == label).nonzero()[:, 0]
        kept.append(rows[suppress_by_loop(boxes[rows].numpy())])
    chosen = torch.cat(kept)
    return best_of_all(boxes[chosen], scores[chosen], labels[chosen])


RIVALS = {"Veduta": detect, "torchvision": torchvisions, "Python loop": loops}


def check(outputs: Outputs) -> None:
    """All find the same. Soft-max along another axis may differ in the last bit, so scores are compared loosely."""
    found = {name: rival(*outputs) for name, rival in RIVALS.items()}
    for other in found.values():
        torch.testing.assert_close(other.scores, found["Veduta"].scores, rtol=1e-5, atol=1e-7)
        assert (other.labels == found["Veduta"].labels).float().mean() > 0.98  # neighbours of equal score may swap
    print(f"{len(found['Veduta'].scores)} detections")


def draw_rounds(outputs: Outputs) -> Iterator[Round]:
    for _ in range(WARMUP + ROUNDS):
        yield {name: partial(rival, *outputs) for name, rival in RIVALS.items()}


def print_time_on_the_clock(rounds: Iterator[Round], *, threads: int) -> None:
    """What a user waits for; other work on the machine counts here, so the fastest call says most."""
    torch.set_num_threads(threads)
    times: dict[str, list[float]] = {name: [] for name in RIVALS}
    for calls in rounds:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    print(f"\n| on the clock, {threads} threads | fastest ms | median ms |\n|---|---:|---:|")
    for name, row in times.items():
        print(f"| {name} | {min(row):.1f} | {np.median(row[WARMUP:]):.1f} |")


if __name__ == "__main__":
    rng = torch.Generator().manual_seed(0)
    priors = prior_boxes(level_sizes(300, 4, 7), SCALES[300, 4])
    for case, draw in (("Realistic", draw_realistic), ("Everything", draw_everything)):
        print(f"\n{case}: ", end="")
        outputs = draw(priors, rng)
        check(outputs)
        compare(draw_rounds(outputs), warmup=WARMUP)
        print_time_on_the_clock(draw_rounds(outputs), threads=2)
