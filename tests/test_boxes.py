"""Promises of the box functions: exact ties, exact suppression, codes that come back, and no surprise at the edges."""

import pytest
import torch
from torch import Tensor

from veduta.ops.boxes import Detections, corners, decode, detect, encode, iou, match, suppress
from veduta.ops.detections import (
    CANDIDATES_PER_CLASS,
    KEPT_PER_CLASS,
    KEPT_PER_IMAGE,
    MIN_SCORE,
    SUPPRESSING_IOU,
)
from veduta.ops.priors import SCALES, level_sizes, prior_boxes


@pytest.fixture(scope="module")
def priors() -> Tensor:
    return prior_boxes(level_sizes(300, 8, 6), SCALES[300, 8])


def random_boxes(count: int, *, seed: int = 0, side: float = 0.4) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=rng) * (1 - side)
    return torch.cat([start, start + 0.02 + torch.rand(count, 2, generator=rng) * (side - 0.02)], dim=1)


def overlap(a: list[float], b: list[float]) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def greedy(boxes: list[list[float]], limit: int) -> list[int]:
    """Suppression as in every textbook."""
    kept: list[int] = []
    for i, box in enumerate(boxes):
        if len(kept) < limit and all(overlap(box, boxes[j]) <= SUPPRESSING_IOU for j in kept):
            kept.append(i)
    return kept


def detect_by_loops(class_logits: Tensor, box_deltas: Tensor, priors: Tensor) -> Detections:
    scores, boxes = class_logits.T.contiguous().softmax(dim=0).T, decode(box_deltas, priors)
    found = []
    for label in range(1, scores.shape[1]):
        order = sorted(
            (i for i, s in enumerate(scores[:, label].tolist()) if s > MIN_SCORE),
            key=scores[:, label].neg().__getitem__,
        )
        order = order[:CANDIDATES_PER_CLASS]
        for i in greedy(boxes[order].double().tolist(), KEPT_PER_CLASS):
            found.append((-scores[order[i], label].item(), label, i, order[i]))
    found = sorted(found)[:KEPT_PER_IMAGE]
    rows = [row for *_, row in found]
    labels = torch.tensor([label for _, label, _, _ in found], dtype=torch.int64)
    return Detections(boxes[rows].reshape(-1, 4), labels, torch.tensor([-score for score, *_ in found]))


def test_iou_of_known_boxes() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 6.0, 6.0]])
    expected = torch.tensor([[1, 1 / 7, 0], [1 / 7, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(iou(boxes, boxes), expected)


def test_codes_come_back_as_the_boxes_they_were_made_of(priors: Tensor) -> None:
    boxes = random_boxes(len(priors))
    torch.testing.assert_close(decode(encode(boxes, priors), priors), boxes, rtol=1e-4, atol=1e-5)


def test_a_box_that_sticks_out_is_moved_at_the_left_and_cut_at_the_right() -> None:
    prior = torch.tensor([[0.1, 0.9, 0.4, 0.4]])
    torch.testing.assert_close(decode(torch.zeros(1, 4), prior), torch.tensor([[0.0, 0.7, 0.4, 1.0]]))


def test_nothing_is_matched_where_there_is_nothing(priors: Tensor) -> None:
    assert match(priors, torch.empty(0, 4)).tolist() == [-1] * len(priors)


def test_an_object_claims_its_best_prior_however_little_they_overlap(priors: Tensor) -> None:
    tiny = torch.tensor([[0.501, 0.501, 0.503, 0.503]])
    matched = match(priors, tiny)
    assert iou(tiny, corners(priors)).max() < 0.5
    assert (matched == 0).sum() == 1


def test_ties_of_matching_go_to_the_lowest_index() -> None:
    priors = torch.tensor([[0.5, 0.5, 0.4, 0.4]] * 3)
    same = corners(priors[:2])
    assert match(priors, same).tolist() == [0, 0, 0]  # both objects claim prior 0, object 0 gets it and the others too
    far = torch.tensor([[0.0, 0.0, 0.05, 0.05], [0.31, 0.3, 0.7, 0.7]])
    assert match(priors, far.flip(0)).tolist() == [0, 0, 0]
    # Without any overlap the first prior is as good as all others; the claim comes before a better match.
    assert match(priors, far).tolist() == [0, 1, 1]


@pytest.mark.parametrize("case", ["apart", "crowded", "duplicates", "chain", "dead"])
def test_suppression_is_the_greedy_one(case: str) -> None:
    boxes = torch.stack([random_boxes(120, seed=seed, side=0.9 if case == "crowded" else 0.3) for seed in range(3)])
    alive = torch.ones(boxes.shape[:2], dtype=torch.bool)
    if case == "duplicates":
        boxes = boxes[:, torch.arange(120) // 7]
    if case == "chain":  # each suppresses the next, were it not suppressed itself
        places = torch.arange(120.0).expand(3, 120)[..., None] * 0.002
        boxes = torch.cat([places, places * 0, places + 0.01, places * 0 + 0.5], dim=2)
    if case == "dead":
        alive[0], alive[1, ::3] = False, False
    places, counts = suppress(boxes, alive, limit=50, suppressing_iou=SUPPRESSING_IOU)
    for label in range(3):
        rows = alive[label].nonzero()[:, 0]
        expected = rows[greedy(boxes[label, rows].double().tolist(), 50)].tolist()
        assert places[label, counts[label]].tolist() == expected


def test_suppression_ends_with_boxes_without_area() -> None:
    boxes = torch.full((1, 5, 4), 0.5)
    places, counts = suppress(boxes, torch.ones(1, 5, dtype=torch.bool), limit=50, suppressing_iou=0.45)
    assert places[counts].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("case", ["realistic", "everything", "ties", "all equal"])
def test_detection_is_what_plain_loops_find(priors: Tensor, case: str) -> None:
    rng = torch.Generator().manual_seed(1)
    priors = priors[::5]
    logits = torch.randn(len(priors), 6, generator=rng)
    deltas = torch.randn(len(priors), 4, generator=rng)
    if case == "realistic":
        logits[:, 0] += 5
    if case == "ties":
        logits, deltas = logits.round(), deltas.round()
    if case == "all equal":
        logits, deltas = logits * 0, deltas * 0
    found, expected = detect(logits, deltas, priors), detect_by_loops(logits, deltas, priors)
    assert len(found.scores) == len(expected.scores) > 20
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_an_image_of_background_has_no_detections(priors: Tensor) -> None:
    logits = torch.zeros(len(priors), 21)
    logits[:, 0] = 20
    found = detect(logits, torch.zeros(len(priors), 4), priors)
    assert [tuple(values.shape) for values in found] == [(0, 4), (0,), (0,)]
    assert found.labels.dtype == torch.int64


def test_scores_of_half_precision_are_read_as_well(priors: Tensor) -> None:
    logits = torch.zeros(len(priors), 3)
    logits[7, 1] = 6
    exact = detect(logits, torch.zeros(len(priors), 4), priors)
    half = detect(logits.bfloat16(), torch.zeros(len(priors), 4).bfloat16(), priors)
    assert all(torch.equal(a, b) for a, b in zip(exact, half, strict=True))
    assert exact.labels[0] == 1
