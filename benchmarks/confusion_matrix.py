"""Counting a confusion matrix: Veduta's `count_pairs` against torchmetrics' `MulticlassConfusionMatrix.update`.

    PYTHONPATH=src .bench/bin/python -m benchmarks.confusion_matrix

One pair of 1024 x 2048 predictions and targets, 19 classes, some of the targets void (255); one thread on both sides.
Veduta reads uint8. torchmetrics reads int64, which is what `logits.argmax(1)` gives, with its default validation and
without; uint8, where validation is cheaper, has rows of its own. First both must give the same counts, and do. Takes
about 40 seconds; docs/benchmarks.md says how to make .bench.
"""

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassConfusionMatrix

from benchmarks.timing import Round, compare
from veduta.labels import IGNORE_INDEX
from veduta.tasks.confusion import count_pairs

HEIGHT, WIDTH, NUM_CLASSES = 1024, 2048, 19
ROUNDS, WARMUP = 50, 3

Ids = NDArray[np.uint8]


def paint(rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Predictions and targets of coherent regions: borders a few pixels off, some regions confused, some void."""
    regions = rng.integers(0, NUM_CLASSES, (HEIGHT // 64, WIDTH // 64), dtype=np.uint8)
    confused = np.where(
        rng.random(regions.shape) < 0.1, rng.permutation(regions.ravel()).reshape(regions.shape), regions
    )
    void = np.where(rng.random(regions.shape) < 0.05, np.uint8(IGNORE_INDEX), regions)
    predictions, targets = (
        cv2.resize(ids, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST) for ids in (confused, void)
    )
    return np.roll(predictions, (3, 5), axis=(0, 1)), targets


def build(*, validate_args: bool) -> MulticlassConfusionMatrix:
    return MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=IGNORE_INDEX, validate_args=validate_args)


def check(predictions: Ids, targets: Ids) -> None:
    """Both count the same pairs. Veduta's last column, predictions of no class, has nothing to hold here."""
    counts = count_pairs(predictions, targets, NUM_CLASSES)
    peer = build(validate_args=True)
    peer.update(torch.from_numpy(predictions).long(), torch.from_numpy(targets).long())
    assert (counts[:, :-1] == peer.compute().numpy()).all() and not counts[:, -1].any()
    assert 0 < counts.sum() < targets.size  # some are counted, some are void


def draw_rounds(predictions: Ids, targets: Ids) -> Iterator[Round]:
    validating, trusting = build(validate_args=True), build(validate_args=False)
    short = torch.from_numpy(predictions), torch.from_numpy(targets)
    long = short[0].long(), short[1].long()
    for _ in range(WARMUP + ROUNDS):
        yield {
            "Veduta": partial(count_pairs, predictions, targets, NUM_CLASSES),
            "torchmetrics": partial(validating.update, *long),
            "torchmetrics, validate_args=False": partial(trusting.update, *long),
            "torchmetrics, uint8": partial(validating.update, *short),
            "torchmetrics, uint8, validate_args=False": partial(trusting.update, *short),
        }


if __name__ == "__main__":
    predictions, targets = paint(np.random.default_rng(0))
    check(predictions, targets)
    compare(draw_rounds(predictions, targets), warmup=WARMUP)
