"""Promises of the multibox loss and of the joint task: what counts, what it is divided by, and what void costs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crew import run_ranks
from torch import Tensor

from veduta import ranks
from veduta.config import Loss
from veduta.data.batch import Batch
from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap
from veduta.models import build_model
from veduta.ops.priors import prior_boxes
from veduta.tasks.detect_segment import DetectSegment
from veduta.tasks.multibox import assign, multibox_loss

LABELS = LabelMap(
    name="three",
    classes=tuple(
        LabelClass(name=name, file_id=i, color=(i, i, i)) for i, name in enumerate(("ground", "car", "tree"))
    ),
)


def drawn(images: int, priors: int, *, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Class logits and box deltas that want a gradient, and target deltas."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, priors, classes, generator=rng).requires_grad_()
    deltas, targets = torch.randn(2, images, priors, 4, generator=rng)
    return logits, deltas.requires_grad_(), targets


def loss_by_loops(logits: Tensor, deltas: Tensor, classes: Tensor, targets: Tensor) -> tuple[float, float]:
    positives: list[float] = []
    negatives: list[float] = []
    boxes = 0.0
    for image, labels in enumerate(classes.tolist()):
        for prior, label in enumerate(labels):
            loss = F.cross_entropy(logits[image, prior], torch.tensor(label)).item()
            (positives if label else negatives).append(loss)
            if label:
                boxes += F.smooth_l1_loss(deltas[image, prior], targets[image, prior], reduction="sum").item()
    count = max(min(3 * len(positives), classes.shape[1] - len(positives)), 0)
    divisor = max(len(positives), 1)
    return (sum(positives) + sum(sorted(negatives)[::-1][:count])) / divisor, boxes / divisor


POSITIVES = (0, 1, 5, 9, 25, 39, 40, 55)


def classes_with(positives: int) -> Tensor:
    """(3, 40): of so many positives, none is in the last image unless they are more than the others hold."""
    classes = torch.zeros(120, dtype=torch.int64)
    among = 80 if positives < 40 else 120
    classes[torch.randperm(among, generator=torch.Generator().manual_seed(1))[:positives]] = 2
    return classes.view(3, 40)


@pytest.mark.parametrize("positives", POSITIVES)
def test_loss_is_that_of_plain_loops(positives: int) -> None:
    """Three images of 40 priors: from 11 positives on the cap of one image decides, from 40 on no negative is left."""
    logits, deltas, targets = drawn(3, 40)
    classes = classes_with(positives)
    found = multibox_loss(logits, deltas, classes, targets)
    assert [loss.item() for loss in found] == pytest.approx(loss_by_loops(logits, deltas, classes, targets), rel=1e-5)


Trained = tuple[Tensor, Tensor, Tensor]  # the two losses (2,), and their gradients by logits and deltas


def trained(images: slice, positives: int, *, equal: bool = False) -> Trained:
    """equal: all negatives are as hard as each other, so which of them count is a matter of order."""
    logits, deltas, targets = drawn(3, 40)
    if equal:
        logits = torch.zeros_like(logits)
    logits, deltas = (x.detach()[images].requires_grad_() for x in (logits, deltas))
    losses = torch.stack(multibox_loss(logits, deltas, classes_with(positives)[images], targets[images]))
    losses.sum().backward()
    assert logits.grad is not None and deltas.grad is not None
    return losses.detach(), logits.grad, deltas.grad


def losses_of_a_rank() -> dict[tuple[int, bool], Trained]:
    own = slice(ranks.rank(), ranks.rank() + 1)
    return {(count, equal): trained(own, count, equal=equal) for count in POSITIVES for equal in (False, True)}


@pytest.fixture(scope="module")
def three() -> list[dict[tuple[int, bool], Trained]]:
    """Of three ranks with one image each."""
    return run_ranks(losses_of_a_rank, 3)


@pytest.mark.parametrize("positives", POSITIVES)
def test_the_mean_over_ranks_is_the_loss_of_the_whole_batch(
    three: list[dict[tuple[int, bool], Trained]], positives: int
) -> None:
    losses, *gradients = trained(slice(None), positives)
    found = [result[positives, False] for result in three]
    torch.testing.assert_close(torch.stack([part[0] for part in found]).mean(dim=0), losses, rtol=1e-6, atol=1e-6)
    for place, whole in enumerate(gradients, start=1):
        together = torch.cat([part[place] for part in found]) / 3
        torch.testing.assert_close(together, whole, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("positives", POSITIVES)
def test_of_equally_hard_negatives_of_several_ranks_no_more_count_than_of_one(
    three: list[dict[tuple[int, bool], Trained]], positives: int
) -> None:
    losses, of_logits, _ = trained(slice(None), positives, equal=True)
    found = [result[positives, True] for result in three]
    torch.testing.assert_close(torch.stack([part[0] for part in found]).mean(dim=0), losses, rtol=1e-6, atol=1e-6)
    together = torch.cat([part[1] for part in found])
    assert together.any(dim=2).sum() == of_logits.any(dim=2).sum()


def test_only_what_counts_has_a_gradient() -> None:
    logits, deltas, targets = drawn(2, 30)
    classes = torch.zeros(2, 30, dtype=torch.int64)
    classes[0, 3], classes[1, 7] = 1, 3
    sum(multibox_loss(logits, deltas, classes, targets)).backward()  # type: ignore[union-attr]
    assert logits.grad is not None and deltas.grad is not None
    assert logits.grad.any(dim=2).sum() == 2 + 6
    assert logits.grad[0, 3].any() and logits.grad[1, 7].any()
    assert deltas.grad.any(dim=2).nonzero().tolist() == [[0, 3], [1, 7]]


def test_without_positives_nothing_is_learnt() -> None:
    logits, deltas, targets = drawn(2, 30)
    losses = multibox_loss(logits, deltas, torch.zeros(2, 30, dtype=torch.int64), targets)
    sum(losses).backward()  # type: ignore[union-attr]
    assert [loss.item() for loss in losses] == [0, 0]
    assert logits.grad is not None and not logits.grad.any()


def test_priors_take_the_class_of_their_object() -> None:
    priors = prior_boxes([4, 1], (0.25, 0.8, 1.0))
    square = torch.tensor([[0.0, 0.25, 0.25, 0.5]])
    classes, deltas = assign(
        priors, [square, torch.empty(0, 4)], [torch.tensor([2]), torch.empty(0, dtype=torch.int64)]
    )
    assert classes.shape == (2, len(priors)) and deltas.shape == (2, len(priors), 4)
    assert not classes[1].any() and not deltas[1].any()
    exact = 6 * 4  # first cell of the second row, first shape
    assert classes[0, exact] == 2
    torch.testing.assert_close(deltas[0, exact], torch.zeros(4), atol=1e-5, rtol=0)
    assert not deltas[0, classes[0] == 0].any()


def batch_of(masks: Tensor | None) -> Batch:
    return Batch(
        images=torch.zeros(2, 3, 40, 80, dtype=torch.uint8),
        masks=masks,
        names=("a", "b"),
        boxes=(torch.tensor([[8.0, 8.0, 40.0, 30.0]]), torch.empty(0, 4)),
        box_classes=(torch.tensor([2]), torch.empty(0, dtype=torch.int64)),
    )


@pytest.mark.parametrize(
    "masks", [None, torch.full((2, 40, 80), IGNORE_INDEX, dtype=torch.uint8)], ids=["none", "void"]
)
def test_a_batch_without_masks_has_a_mask_loss_of_zero_and_trains_its_boxes(masks: Tensor | None) -> None:
    torch.manual_seed(0)
    model = build_model("blitznet_tiny", 3)
    losses = DetectSegment(LABELS, Loss()).losses(model(torch.rand(2, 3, 40, 80)), batch_of(masks))
    assert set(losses) == {"class", "box", "mask"}
    assert losses["mask"].item() == 0 and losses["class"].item() > 0 and losses["box"].item() > 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_boxes_are_read_in_pixels_of_the_image() -> None:
    priors = prior_boxes([4, 1], (0.25, 0.8, 1.0))
    batch = batch_of(torch.zeros(2, 40, 80, dtype=torch.uint8))
    assert batch.boxes is not None and batch.box_classes is not None
    relative = [boxes / torch.tensor([80, 40, 80, 40]) for boxes in batch.boxes]
    targets = assign(priors, relative, batch.box_classes)
    outputs = {
        "class_logits": F.one_hot(targets[0], 3) * 50.0,
        "box_deltas": targets[1],
        "priors": priors,
        "mask_logits": torch.tensor([50.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(2, 3, 10, 20),
    }
    losses = DetectSegment(LABELS, Loss()).losses(outputs, batch)
    assert [loss.item() for loss in losses.values()] == pytest.approx([0, 0, 0], abs=1e-6)


def test_predictions_are_in_pixels_of_the_image() -> None:
    priors = prior_boxes([4, 1], (0.25, 0.8, 1.0))
    class_logits = torch.zeros(2, len(priors), 3)
    class_logits[..., 0] = 20
    class_logits[0, 6 * 4] = torch.tensor([0.0, 0.0, 20.0])
    outputs = {
        "class_logits": class_logits,
        "box_deltas": torch.zeros(2, len(priors), 4),
        "priors": priors,
        "mask_logits": torch.rand(2, 3, 40, 80),
    }
    one, none = DetectSegment(LABELS, Loss()).predict(outputs)
    assert one.boxes is not None and one.box_classes is not None and one.box_scores is not None
    np.testing.assert_allclose(one.boxes, [[0, 10, 20, 20]], atol=1e-4)
    assert one.box_classes.tolist() == [2] and one.box_scores[0] > 0.99
    assert one.boxes.dtype == np.float32 and one.box_classes.dtype == np.int64
    assert one.mask is not None and one.mask.shape == (40, 80) and one.mask.dtype == np.uint8
    assert none.boxes is not None and none.boxes.shape == (0, 4)
