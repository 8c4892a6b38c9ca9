"""Resizes, pools, losses and optimizers compute what those of TensorFlow, MindSpore and PyTorch references computed."""

from typing import Any

import numpy as np
import pytest
import rule
import torch
import torch.nn.functional as F
from golden_data import Golden
from torch import Tensor, nn

from veduta.config import Optim
from veduta.engine.optim import build_optimizer
from veduta.models.resnest import SplitAttention
from veduta.ops.resize import max_pool_same, resize_aligned_nearest, resize_legacy, resize_legacy_nearest
from veduta.tasks.losses import cross_entropy, soft_cross_entropy
from veduta.tasks.mixup import Mixup

OPERATORS, TENSORFLOW = Golden("operators"), Golden("tf_ops")
RESIZES = TENSORFLOW.meta["resize"]


def agree(found: Tensor, expected: np.ndarray, *, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=atol)


def picture(seed: int, shape: tuple[int, int, int, int]) -> Tensor:
    """(N, C, H, W) from the rule; `shape` is in this order too."""
    return torch.from_numpy(rule.image(seed, shape))


def thinned(x: Tensor, kept: str) -> np.ndarray:
    """(1, C, H, W) -> (h, w, C), with the rows and columns that `kept` says in words."""
    steps = [int(word.split("-")[0]) for word in kept.split() if word[0].isdigit()]
    return x[0, :, :: steps[0], :: steps[-1]].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("case", RESIZES, ids=lambda case: f"{case['size_in']}-{case['size_out']}")
@pytest.mark.parametrize("kind", ["legacy", "aligned"])
def test_bilinear_resizes_are_tensorflows(kind: str, case: dict[str, Any]) -> None:
    x = picture(300 + case["case"], (1, 2, *case["size_in"]))
    if kind == "legacy":
        y = resize_legacy(x, case["size_out"])
    else:
        y = F.interpolate(x, case["size_out"], mode="bilinear", align_corners=True)
    expected = TENSORFLOW.arrays[f"resize{case['case']}_bilinear_{kind}"]
    np.testing.assert_allclose(thinned(y, case["kept"]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", RESIZES, ids=lambda case: f"{case['size_in']}-{case['size_out']}")
@pytest.mark.parametrize("kind", ["legacy", "aligned"])
def test_nearest_resizes_pick_tensorflows_pixels(kind: str, case: dict[str, Any]) -> None:
    resize = {"legacy": resize_legacy_nearest, "aligned": resize_aligned_nearest}[kind]
    rows, columns = (torch.arange(length) for length in case["size_in"])
    found = resize(1000 * rows[:, None] + columns, case["size_out"])
    names = (f"resize{case['case']}_nearest_{kind}_{axis}" for axis in ("rows", "cols"))
    expected_rows, expected_columns = (torch.from_numpy(TENSORFLOW.arrays[name]).long() for name in names)
    assert torch.equal(found, 1000 * expected_rows[:, None] + expected_columns)


@pytest.mark.parametrize("case", TENSORFLOW.meta["max_pool_same"], ids=lambda case: str(case["case"]))
def test_same_max_pools_are_tensorflows(case: dict[str, Any]) -> None:
    sizes = {0: 150, 1: 256, 2: 75, 3: 38, 4: 19, 5: 7, 6: 8}
    size = sizes[case["case"]]
    assert f"(1, {size}, {size}, 1)" in case["input"]
    y = max_pool_same(picture(340 + case["case"], (1, 1, size, size)), case["kernel"], case["stride"])
    np.testing.assert_array_equal(thinned(y, case["kept"])[..., 0], TENSORFLOW.arrays[f"maxpool{case['case']}"])


def test_resizes_are_mindspores() -> None:
    x = picture(95, (1, 2, 7, 9))
    for name, size in {"asym_up": (20, 33), "asym_4x": (28, 36), "asym_same": (7, 9)}.items():
        agree(resize_legacy(x, size), OPERATORS.arrays[f"resize:{name}"])
    agree(F.interpolate(x, (20, 33), mode="bilinear", align_corners=True), OPERATORS.arrays["resize:corner"])


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (5, 1)])
def test_same_max_pools_are_mindspores(kernel_size: int, stride: int) -> None:
    y = max_pool_same(picture(96, (1, 3, 12, 15)), kernel_size, stride)
    agree(y, OPERATORS.arrays[f"maxpool{kernel_size}s{stride}_same"], atol=0)


@pytest.mark.parametrize("radix", [1, 2, 4])
@pytest.mark.parametrize("cardinality", [1, 2, 4])
def test_split_attention_is_the_authors(radix: int, cardinality: int) -> None:
    module = SplitAttention(16, radix=radix, cardinality=cardinality, dilation=1).eval()
    weights = {
        name: torch.from_numpy(rule.fill(f"splat.r{radix}.c{cardinality}.{name}", tuple(value.shape)))
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(weights)
    y = module(picture(97, (2, 16, 9, 11)))
    agree(y[:, :, ::2, ::2], OPERATORS.arrays[f"splat:r{radix}_c{cardinality}"])


def test_class_losses_are_the_references() -> None:
    logits = torch.from_numpy(rule.fill("loss/logits.weight", (6, 20), fan_in=0.1))
    targets = torch.tensor([3, 7, 7, 0, 19, 12])
    mixed = Mixup(0.3, torch.arange(6).flip(0))(F.one_hot(targets, 20).float())
    agree(soft_cross_entropy(logits, targets, smoothing=0.1), OPERATORS.arrays["zh_smooth"])
    agree(soft_cross_entropy(logits, mixed, smoothing=0.1), OPERATORS.arrays["zh_mixup_smooth"])
    others = soft_cross_entropy(logits, targets, smoothing=0.1, smoothing_over="others")
    agree(others, OPERATORS.arrays["ms_resnest_smooth"])


def test_the_pixel_loss_is_mindspores() -> None:
    logits = torch.from_numpy(rule.fill("loss/seg.weight", (2, 21, 24, 32), fan_in=0.1))
    masks = torch.from_numpy(np.stack([rule.labels(seed, (24, 32), 21) for seed in (91, 92)]))
    agree(cross_entropy(logits, masks), OPERATORS.arrays["ms_refinenet_ce"])


@pytest.mark.parametrize("case", TENSORFLOW.meta["loss"]["cases"], ids=lambda case: f"{case['case']}")
def test_the_pixel_loss_and_its_gradient_are_deeplabs(case: dict[str, Any]) -> None:
    options = case["options"]
    logits = torch.cat([2 * picture(380 + k, (1, 21, 9, 9)) for k in (0, 1)]).requires_grad_()
    masks = torch.from_numpy(np.stack([rule.labels(384 + k, (33, 33), 21) for k in (0, 1)]))
    if case["labels"] == "all 255":
        masks.fill_(255)
    large = logits
    if options.get("upsample_logits", True):
        large = F.interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=True)
    weights = torch.tensor(options["loss_weight"]) if "loss_weight" in options else None
    loss = cross_entropy(large, masks, weights, divided_by="pixels", hardest=options.get("top_k_percent_pixels", 1.0))
    loss.backward()
    assert logits.grad is not None
    assert float(loss.detach()) == pytest.approx(case["value"], rel=1e-6)
    expected = TENSORFLOW.arrays[f"loss{case['case']}_gradient"]
    agree(logits.grad.permute(0, 2, 3, 1), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "optim"),
    [
        ("momentum", Optim(lr=0.01, weight_decay=0)),
        ("nesterov", Optim(lr=0.01, nesterov=True, weight_decay=0)),
        ("adam", Optim(name="adam", lr=1e-4, weight_decay=0)),
    ],
)
def test_optimizers_are_tensorflows(name: str, optim: Optim) -> None:
    model = nn.ParameterDict({"weights": torch.from_numpy(rule.fill("opt/weights", (6,)))})
    optimizer = build_optimizer(model, optim, fused=False)
    for k, expected in enumerate(TENSORFLOW.arrays[f"optimizer_{name}"]):
        model["weights"].grad = torch.from_numpy(rule.fill(f"opt/g{k}/biases", (6,))) * 10.0 ** (k - 3)
        optimizer.step()
        np.testing.assert_allclose(model["weights"].detach().numpy(), expected, rtol=1e-6, atol=1e-8)
