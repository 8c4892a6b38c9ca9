"""Promises of detections from arrays: what is found is what the same way finds from tensors."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from veduta.ops import boxes, detections
from veduta.ops.priors import SCALES, level_sizes, prior_boxes

Floats = NDArray[np.float32]
PRIORS = prior_boxes(level_sizes(300, 8, 6), SCALES[300, 8])[::3].numpy()

CASES = ("background", "just below", "few", "realistic", "everything", "ties", "all equal", "one class", "huge boxes")


def outputs(case: str, seed: int) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    num_classes = 2 if case == "one class" else 21
    logits = rng.normal(size=(len(PRIORS), num_classes)).astype(np.float32)
    deltas = rng.normal(size=(len(PRIORS), 4)).astype(np.float32)
    if case in ("realistic", "few", "background"):
        logits[:, 0] += {"realistic": 5, "few": 8, "background": 20}[case]
    if case == "just below":  # near enough to be looked at, and no detection
        logits[:] = -20
        logits[:, 0], logits[0, 1] = 0, np.log(detections.MIN_SCORE) - 0.05
    if case == "ties":
        logits, deltas = logits[np.arange(len(PRIORS)) % 40], deltas.round()
    if case == "all equal":
        logits, deltas = logits * 0, deltas * 0
    if case == "huge boxes":
        deltas *= 20
    return logits, deltas, PRIORS


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_what_is_found_in_arrays_is_what_is_found_in_tensors(case: str, seed: int) -> None:
    arrays = outputs(case, seed)
    found, expected = detections.detect(*arrays), boxes.detect(*(torch.from_numpy(x) for x in arrays))
    assert (len(found.scores) == 0) == (case in ("background", "just below"))
    assert [x.dtype for x in found] == [np.float32, np.int64, np.float32]
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_suppression_keeps_the_same_boxes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = rng.random((5, 200, 2), np.float32) * np.float32(0.6)
    found = np.concatenate([start, start + rng.random((5, 200, 2), np.float32) * np.float32(0.4)], axis=2)
    found[0, 50:] = found[0, 49]  # of which one is kept
    found[1, :, 2:] = found[1, :, :2]  # without an area: all are kept
    alive = rng.random((5, 200)) < 0.9
    alive[2] = False
    ours = detections.suppress(found, alive, limit=50, suppressing_iou=0.45)
    theirs = boxes.suppress(torch.from_numpy(found), torch.from_numpy(alive), limit=50, suppressing_iou=0.45)
    np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_array_equal(ours[0][ours[1]], theirs[0].numpy()[ours[1]])
