"""Promises of the losses: torch's own cross-entropy in value and gradient, void that weighs nothing, and several ranks
that learn what one with all their images would."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crew import run_ranks
from layouts import TINY
from torch import Tensor

from veduta import ranks
from veduta.config import Loss
from veduta.data.batch import Batch
from veduta.labels import IGNORE_INDEX
from veduta.models import build_model
from veduta.tasks import TASKS
from veduta.tasks.classify import Classify
from veduta.tasks.losses import cross_entropy, dice, soft_cross_entropy
from veduta.tasks.metrics import Rules
from veduta.tasks.mixup import Mixup, mix_batch
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
    assert task.class_weights is not None and np.isfinite(task.class_weights).all()
    assert task.class_weights[1] > task.class_weights[2] > task.class_weights[0] > 0
    assert float((task.class_weights * (counts / 10_000)).sum()) == pytest.approx(1)
    logits, masks = drawn()
    expected = cross_entropy(logits, masks, torch.from_numpy(task.class_weights))
    torch.testing.assert_close(task.losses({"mask_logits": logits}, batch(masks))["mask"], expected)


def test_without_class_weights_the_counts_play_no_part() -> None:
    task = Segment(TINY, Loss())
    task.fit_classes(np.array([1, 2, 3]))
    assert task.class_weights is None


@pytest.mark.parametrize(("name", "model"), [("classify", "resnest14"), ("detect_segment", "blitznet_tiny")])
def test_a_task_reads_what_its_models_give(name: str, model: str) -> None:
    task = TASKS[name](TINY, Loss())
    with torch.inference_mode():
        (prediction,) = task.predict(build_model(model, TINY.num_classes).eval()(torch.rand(1, 3, 40, 50)))
    if name == "classify":
        assert prediction.class_scores is not None and prediction.class_scores.sum() == pytest.approx(1)
    else:
        assert prediction.mask is not None and prediction.mask.shape == (40, 50)
        assert prediction.boxes is not None and prediction.boxes[:, 2:].max(initial=0) <= 50


def test_the_mean_with_the_mirror_image_is_one_of_probabilities() -> None:
    one, other = torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, 0.0]])
    task = TASKS["classify"](TINY, Loss())
    assert isinstance(task, Classify)
    averaged = task.average_mirrored({"class_logits": one}, {"class_logits": other})["class_logits"].softmax(1)
    torch.testing.assert_close(averaged, (one.softmax(1) + other.softmax(1)) / 2)


def test_segment_predicts_train_ids_and_makes_a_metric_of_its_classes() -> None:
    task = Segment(TINY, Loss())
    logits, _ = drawn()
    for prediction, expected in zip(task.predict({"mask_logits": logits}), logits.argmax(dim=1), strict=True):
        assert prediction.mask is not None and prediction.mask.dtype == np.uint8
        assert (prediction.mask == expected.numpy()).all()
    assert task.metric(Rules()).matrix.num_classes == TINY.num_classes


def test_coarser_logits_meet_the_mask_pixels_under_them_with_corners_aligned() -> None:
    logits, _ = drawn()  # 9 x 11
    masks = torch.randint(0, 5, (2, 17, 21), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert cross_entropy(logits, masks) == cross_entropy(logits, masks[:, ::2, ::2])
    sixteenth = logits[..., :3, :4]
    masks = torch.randint(0, 5, (2, 33, 49), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert cross_entropy(sixteenth, masks) == cross_entropy(sixteenth, masks[:, ::16, ::16])


def test_a_weighted_loss_may_be_divided_by_the_number_of_pixels_not_void() -> None:
    logits, masks = drawn()
    ours = cross_entropy(logits, masks, WEIGHTS, divided_by="pixels")
    torchs = F.cross_entropy(logits, masks.long(), WEIGHTS, ignore_index=IGNORE_INDEX, reduction="sum")
    torchs = torchs / (masks != IGNORE_INDEX).sum()
    torch.testing.assert_close(ours, torchs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient(ours, logits), gradient(torchs, logits), rtol=1e-6, atol=1e-6)
    unweighted = cross_entropy(logits, masks, divided_by="pixels")
    torch.testing.assert_close(unweighted, cross_entropy(logits, masks, divided_by="weights"))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_only_the_hardest_pixels_count_and_only_they_learn(weights: Tensor | None) -> None:
    logits, masks = drawn()
    ours = cross_entropy(logits, masks, weights, hardest=0.25)
    each = F.cross_entropy(logits, masks.long(), weights, ignore_index=IGNORE_INDEX, reduction="none")
    hardest = each.flatten().sort(descending=True).values[: int(0.25 * masks.numel())]
    torch.testing.assert_close(ours, hardest.mean(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient(ours, logits), gradient(hardest.mean(), logits), rtol=1e-6, atol=1e-6)
    taught = gradient(cross_entropy(logits, masks, weights, hardest=0.25), logits).any(dim=1)
    assert int(taught.sum()) == int(0.25 * masks.numel())


def test_among_the_hardest_pixels_void_is_not_counted() -> None:
    logits, masks = drawn(void=0.9)
    seen = int((masks != IGNORE_INDEX).sum())
    assert seen < 0.5 * masks.numel()
    torch.testing.assert_close(cross_entropy(logits, masks, hardest=0.5), cross_entropy(logits, masks))
    loss = cross_entropy(logits, masks.fill_(IGNORE_INDEX), hardest=0.5)
    assert float(loss.detach()) == 0 and not gradient(loss, logits).any()


def test_a_tiny_share_of_the_pixels_is_still_one_pixel() -> None:
    logits, masks = drawn(void=0.0)
    each = F.cross_entropy(logits, masks.long(), reduction="none")
    torch.testing.assert_close(cross_entropy(logits, masks, hardest=1e-9), each.max())


def test_the_segmentation_task_passes_on_what_its_loss_says() -> None:
    logits, masks = drawn()
    task = Segment(TINY, Loss(class_weights="log", divided_by="pixels"))
    task.fit_classes(np.array([9, 0, 1, 0, 0]))
    loss = task.losses({"mask_logits": logits}, batch(masks))["mask"]
    assert task.class_weights is not None
    weights = torch.from_numpy(task.class_weights)
    assert loss == cross_entropy(logits, masks, weights, divided_by="pixels")
    assert loss != cross_entropy(logits, masks, weights)
    mined = Segment(TINY, Loss(hardest=0.1)).losses({"mask_logits": logits}, batch(masks))["mask"]
    assert mined == cross_entropy(logits, masks, hardest=0.1)


def dice_by_loops(logits: Tensor, masks: Tensor) -> float:
    shares = logits.detach().softmax(dim=1).numpy()
    losses = []
    for number in range(logits.shape[1]):
        overlap, sizes = 0.0, 0.0
        for share, mask in zip(shares[:, number].ravel(), masks.numpy().ravel(), strict=True):
            truth = float(mask == number)
            if mask != IGNORE_INDEX:
                overlap, sizes = overlap + share * truth, sizes + share**2 + truth
        if (masks == number).any():
            losses.append(1 - 2 * overlap / sizes)
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("shown", [5, 2])
def test_dice_is_that_of_plain_loops_over_the_classes_that_are_shown(shown: int) -> None:
    logits, masks = drawn()
    masks[masks == 0] = 1
    masks[(masks >= shown) & (masks != IGNORE_INDEX)] = IGNORE_INDEX
    assert dice(logits, masks).item() == pytest.approx(dice_by_loops(logits, masks), rel=1e-5)


def test_the_gradient_of_dice_is_that_of_differences() -> None:
    logits, masks = drawn()
    double = logits.detach()[:, :, :3, :3].requires_grad_()
    found = gradient(dice(double, masks[:, :3, :3]), double)
    for place in [(0, 1, 2, 1), (1, 4, 0, 0)]:
        step = torch.zeros_like(double)
        step[place] = 1e-1
        with torch.no_grad():
            rise = dice(double + step, masks[:, :3, :3]) - dice(double - step, masks[:, :3, :3])
        assert float(3 * rise / 2e-1) == pytest.approx(float(found[place]), abs=1e-4)


def test_dice_is_0_where_all_is_right_or_void_and_1_where_all_is_wrong() -> None:
    masks = torch.randint(0, 5, (2, 9, 11), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    right = 50 * F.one_hot(masks.long(), 5).permute(0, 3, 1, 2).float()
    assert dice(right, masks).item() == pytest.approx(0, abs=1e-5)
    assert dice(right.roll(1, dims=1), masks).item() == pytest.approx(1, abs=1e-5)
    logits, _ = drawn()
    loss = dice(logits, torch.full_like(masks, IGNORE_INDEX))
    assert loss.item() == 0 and not gradient(loss, logits).any()


def test_dice_takes_coarse_and_short_logits_and_leaves_void_alone() -> None:
    logits, _ = drawn()
    masks = torch.randint(0, 5, (2, 17, 21), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert dice(logits, masks) == dice(logits, masks[:, ::2, ::2])
    assert dice(logits.bfloat16(), masks).dtype == torch.float32
    logits, masks = drawn()
    found = gradient(dice(logits, masks), logits).permute(0, 2, 3, 1)
    assert not found[masks == IGNORE_INDEX].any()


OVER_RANKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plain": cross_entropy,
    "weights": partial(cross_entropy, class_weights=WEIGHTS),
    "pixels": partial(cross_entropy, class_weights=WEIGHTS, divided_by="pixels"),
    "dice": dice,
}


def drawn_for_ranks(masks_of: str) -> tuple[Tensor, Tensor]:
    """Of two ranks with one image each: with unlike numbers of pixels, without any on the second, without any."""
    logits, masks = drawn()
    masks[1, :7] = IGNORE_INDEX
    if masks_of != "unlike":
        masks[1 if masks_of == "one" else slice(None)] = IGNORE_INDEX
    return logits, masks


def losses_of_a_rank() -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Value and gradient of one rank's image, for every loss and kind of masks."""
    me = ranks.rank()
    found = {}
    for masks_of in ("unlike", "one", "none"):
        logits, masks = drawn_for_ranks(masks_of)
        for name, loss_of in OVER_RANKS.items():
            own = logits.detach()[me : me + 1].requires_grad_()
            loss = loss_of(own, masks[me : me + 1])
            found[masks_of, name] = loss.detach(), gradient(loss, own)
    return found


@pytest.fixture(scope="module")
def two() -> list[dict[tuple[str, str], tuple[Tensor, Tensor]]]:
    return run_ranks(losses_of_a_rank, 2)


@pytest.mark.parametrize("name", OVER_RANKS)
@pytest.mark.parametrize("masks_of", ["unlike", "one", "none"])
def test_the_mean_over_ranks_is_the_loss_of_the_whole_batch(
    two: list[dict[tuple[str, str], tuple[Tensor, Tensor]]], masks_of: str, name: str
) -> None:
    logits, masks = drawn_for_ranks(masks_of)
    whole = OVER_RANKS[name](logits, masks)
    values, gradients = zip(*(found[masks_of, name] for found in two), strict=True)
    torch.testing.assert_close(torch.stack(values).mean(), whole.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.cat(gradients) / 2, gradient(whole, logits), rtol=1e-6, atol=1e-7)


def drawn_classes() -> tuple[Tensor, Tensor]:
    """Logits (6, 5) that want a gradient, and the classes of 6 images."""
    rng = torch.Generator().manual_seed(2)
    return (4 * torch.randn(6, 5, generator=rng)).requires_grad_(), torch.tensor([0, 1, 2, 3, 4, 4])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothing_over_all_classes_is_torchs_in_value_and_gradient_for_hard_and_soft_targets(smoothing: float) -> None:
    logits, classes = drawn_classes()
    for targets in (classes, F.one_hot(classes, 5).float()):
        torchs = F.cross_entropy(logits, classes, label_smoothing=smoothing)
        ours = soft_cross_entropy(logits, targets, smoothing=smoothing)
        torch.testing.assert_close(ours, torchs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradient(ours, logits), gradient(torchs, logits), rtol=1e-6, atol=1e-6)


def test_smoothing_over_the_others_leaves_the_target_its_share() -> None:
    logits, classes = drawn_classes()
    shares = torch.full((6, 5), 0.1 / 4)
    shares[torch.arange(6), classes] = 0.9
    found = soft_cross_entropy(logits, classes, smoothing=0.1, smoothing_over="others")
    torch.testing.assert_close(found, F.cross_entropy(logits, shares), rtol=1e-6, atol=1e-6)


def test_short_class_logits_are_summed_in_float32() -> None:
    logits, classes = drawn_classes()
    assert soft_cross_entropy(logits.bfloat16(), classes).dtype == torch.float32


def test_mixup_blends_every_sample_with_its_partner_and_targets_still_sum_to_1() -> None:
    mix = Mixup(0.3, torch.tensor([2, 0, 1]))
    images = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mix(images)[1], 0.3 * images[1] + 0.7 * images[0])
    targets = mix(F.one_hot(torch.tensor([4, 1, 1]), 5).float())
    torch.testing.assert_close(targets[0], torch.tensor([0.0, 0.7, 0.0, 0.0, 0.3]))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(3))
    assert torch.equal(Mixup(1.0, mix.partners)(images), images)


def test_mixup_draws_from_the_generator_it_is_given() -> None:
    draws = [Mixup.draw(16, 0.2, np.random.default_rng(seed)) for seed in (7, 7, 8)]
    assert draws[0].share == draws[1].share != draws[2].share
    assert torch.equal(draws[0].partners, draws[1].partners)
    assert torch.equal(draws[0].partners.sort().values, torch.arange(16))
    rng = np.random.default_rng(0)
    shares = np.array([Mixup.draw(2, 0.2, rng).share for _ in range(2000)])
    assert shares.min() >= 0 and shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(0.25 / 1.4, abs=0.01)  # of Beta(a, a): 1 / (4 (2 a + 1))


def test_the_classification_task_takes_classes_and_what_mixup_makes_of_them() -> None:
    logits, classes = drawn_classes()
    task = Classify(TINY, Loss(smoothing=0.1, smoothing_over="others"))
    images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    mixed = Mixup(0.3, torch.arange(6).flip(0))(F.one_hot(classes, 5).float())
    for targets in (classes, mixed):
        losses = task.losses({"class_logits": logits}, Batch(images, None, tuple("abcdef"), scene_classes=targets))
        assert losses == {"class": soft_cross_entropy(logits, targets, smoothing=0.1, smoothing_over="others")}


def test_images_and_classes_of_a_batch_are_mixed_alike() -> None:
    images = torch.rand(6, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(6)
    batch = Batch(torch.zeros(6, 3, 4, 5, dtype=torch.uint8), None, tuple("abcdef"), scene_classes=classes)
    mixed, soft = mix_batch(images, batch, 6, mixup=0.2, cutmix=0, rng=np.random.default_rng(3))
    assert soft.scene_classes is not None
    torch.testing.assert_close(mixed, torch.einsum("nk,kchw->nchw", soft.scene_classes, images))
    assert not torch.equal(soft.scene_classes, F.one_hot(classes).float())
    assert torch.equal(batch.scene_classes, classes)  # type: ignore[arg-type]  # the batch given is as it was


def numbered_batch(size: int) -> tuple[Tensor, Batch]:
    """Images whose every value is their number, so that a pixel tells where it comes from."""
    images = torch.arange(float(size))[:, None, None, None].expand(size, 3, 24, 32).clone()
    batch = Batch(torch.zeros(size, 3, 24, 32, dtype=torch.uint8), None, ("",) * size, scene_classes=torch.arange(size))
    return images, batch


@pytest.mark.parametrize("seed", range(12))
def test_cutmix_pastes_one_rectangle_of_each_partner_and_the_classes_have_its_true_share(seed: int) -> None:
    images, batch = numbered_batch(6)
    before = images.clone()
    mixed, soft = mix_batch(images, batch, 6, mixup=0, cutmix=1.0, rng=np.random.default_rng(seed))
    assert torch.equal(images, before) and soft.scene_classes is not None
    foreign = mixed != before
    changed = foreign.flatten(1).any(dim=1)
    for image, number, shares in zip(mixed[:, 0], range(6), soft.scene_classes, strict=True):
        found = torch.tensor([(image == other).float().mean() for other in range(6)])  # share of pixels, by sample
        torch.testing.assert_close(shares, found)
        rows, columns = torch.nonzero(foreign[number, 0], as_tuple=True)
        if changed[number]:
            height, width = (int(x.max() - x.min()) + 1 for x in (rows, columns))
            assert len(rows) == height * width  # a full rectangle
    assert len({mask.numpy().tobytes() for mask in foreign[changed]}) <= 1  # at one place for the whole batch


def test_cutmix_takes_shares_of_all_sizes() -> None:
    images, batch = numbered_batch(2)
    found = []
    for seed in range(400):
        soft = mix_batch(images, batch, 2, mixup=0, cutmix=1.0, rng=np.random.default_rng(seed))[1].scene_classes
        assert soft is not None
        found.append(float(soft.diag().min()))  # 1 where each is its own partner
    mixed = np.array([share for share in found if share < 1])
    assert mixed.min() < 0.3 and mixed.max() > 0.9 and 0.5 < mixed.mean() < 0.75  # the edges cut patches off


def test_with_both_alphas_a_batch_gets_mixup_or_cutmix_each_half_of_the_time() -> None:
    images, batch = numbered_batch(4)
    blended = []
    for seed in range(100):
        mixed, _ = mix_batch(images, batch, 4, mixup=0.4, cutmix=1.0, rng=np.random.default_rng(seed))
        blended.append(bool((mixed != mixed.round()).any()))
    assert sum(blended) / len(blended) == pytest.approx(0.5, abs=0.15)
