"""Promises of the losses: torch's own cross-entropy in value and gradient, and void that weighs nothing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from layouts import TINY
from torch import Tensor

from veduta.config import Loss
from veduta.data.sample import Batch
from veduta.labels import IGNORE_INDEX
from veduta.tasks import TASKS
from veduta.tasks.losses import cross_entropy
from veduta.tasks.segment import Segment

WEIGHTS = torch.tensor([0.3, 1.0, 2.5, 0.0, 4.0])


def drawn(seed: int = 0, *, void: float = 0.2) -> tuple[Tensor, Tensor]:
    """Logits (2, 5, 9, 11) that want a gradient, and uint8 masks."""
    rng = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(2, 5, 9, 11, generator=rng)
    masks = torch.randint(0, 5, (2, 9, 11), generator=rng)
    masks[torch.rand(masks.shape, generator=rng) < void] = IGNORE_INDEX
    return logits.requires_grad_(), masks.to(torch.uint8)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(3 * loss, logits)  # 3: the gradient that comes from above is used
    return found


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("void", [0.0, 0.2, 0.99])
def test_value_and_gradient_are_torchs(weights: Tensor | None, void: float) -> None:
    logits, masks = drawn(void=void)
    ours = cross_entropy(logits, masks, weights)
    torchs = F.cross_entropy(logits, masks.long(), weights, ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(ours, torchs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient(ours, logits), gradient(torchs, logits), rtol=1e-6, atol=1e-6)


def test_the_gradient_is_that_of_differences() -> None:
    logits, masks = drawn()
    found = gradient(cross_entropy(logits, masks, WEIGHTS), logits)
    for place in [(0, 1, 3, 4), (1, 4, 8, 10), (0, 0, 0, 0)]:
        step = torch.zeros_like(logits)
        step[place] = 1e-2
        with torch.no_grad():
            rise = cross_entropy(logits + step, masks, WEIGHTS) - cross_entropy(logits - step, masks, WEIGHTS)
        assert float(3 * rise / 2e-2) == pytest.approx(float(found[place]), abs=1e-4)


def test_a_batch_that_is_all_void_costs_nothing_and_teaches_nothing() -> None:
    logits, masks = drawn()
    loss = cross_entropy(logits, masks.fill_(IGNORE_INDEX))
    assert float(loss.detach()) == 0
    assert not gradient(loss, logits).any()


def test_void_pixels_get_no_gradient() -> None:
    logits, masks = drawn()
    found = gradient(cross_entropy(logits, masks), logits).permute(0, 2, 3, 1)
    assert not found[masks == IGNORE_INDEX].any()
    assert found[masks != IGNORE_INDEX].any(dim=1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_logits_are_summed_in_float32_and_get_a_gradient_of_their_type(dtype: torch.dtype) -> None:
    logits, masks = drawn()
    short = logits.detach().to(dtype).requires_grad_()
    long = short.detach().float().requires_grad_()
    ours = cross_entropy(short, masks, WEIGHTS)
    torchs = F.cross_entropy(long, masks.long(), WEIGHTS, ignore_index=IGNORE_INDEX)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, torchs, rtol=1e-6, atol=1e-6)
    found = gradient(ours, short)
    assert found.dtype == dtype
    torch.testing.assert_close(found, gradient(torchs, long).to(dtype))


def test_huge_logits_stay_finite() -> None:
    logits, masks = drawn()
    loss = cross_entropy(1e4 * logits, masks)
    assert loss.isfinite() and gradient(loss, logits).isfinite().all()


def batch(masks: Tensor) -> Batch:
    return Batch(torch.zeros(2, 3, 9, 11, dtype=torch.uint8), masks, ("a", "b"))


def test_the_auxiliary_head_counts_with_its_weight_where_there_is_one() -> None:
    logits, masks = drawn()
    task = Segment(TINY, Loss(auxiliary=0.4))
    losses = task.losses({"mask_logits": logits, "aux_mask_logits": logits}, batch(masks))
    assert losses.keys() == {"mask", "aux_mask"}
    torch.testing.assert_close(losses["aux_mask"], 0.4 * losses["mask"])
    assert task.losses({"mask_logits": logits}, batch(masks)).keys() == {"mask"}
    off = Segment(TINY, Loss()).losses({"mask_logits": logits, "aux_mask_logits": logits}, batch(masks))
    assert off.keys() == {"mask"}


def test_log_weights_favour_rare_classes_and_leave_the_mean_weight_of_a_pixel_at_1() -> None:
    counts = np.array([9_000, 0, 1_000, 0, 0])
    task = Segment(TINY, Loss(class_weights="log"))
    task.fit_classes(counts)
    assert task.class_weights is not None and task.class_weights.isfinite().all()
    assert task.class_weights[1] > task.class_weights[2] > task.class_weights[0] > 0
    assert float((task.class_weights.double() * torch.from_numpy(counts / 10_000)).sum()) == pytest.approx(1)
    logits, masks = drawn()
    expected = cross_entropy(logits, masks, task.class_weights)
    torch.testing.assert_close(task.losses({"mask_logits": logits}, batch(masks))["mask"], expected)


def test_without_class_weights_the_counts_play_no_part() -> None:
    task = Segment(TINY, Loss())
    task.fit_classes(np.array([1, 2, 3]))
    assert task.class_weights is None


@pytest.mark.parametrize("name", TASKS)
def test_every_task_predicts_train_ids_and_makes_a_metric_of_its_classes(name: str) -> None:
    task = TASKS[name](TINY, Loss())
    logits, _ = drawn()
    masks = task.predict({"mask_logits": logits})
    assert masks.dtype == torch.uint8 and (masks == logits.argmax(dim=1)).all()
    assert task.metric().num_classes == TINY.num_classes


def test_coarser_logits_meet_the_mask_pixels_under_them_with_corners_aligned() -> None:
    logits, _ = drawn()  # 9 x 11
    masks = torch.randint(0, 5, (2, 17, 21), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert cross_entropy(logits, masks) == cross_entropy(logits, masks[:, ::2, ::2])
    sixteenth = logits[..., :3, :4]
    masks = torch.randint(0, 5, (2, 33, 49), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert cross_entropy(sixteenth, masks) == cross_entropy(sixteenth, masks[:, ::16, ::16])
