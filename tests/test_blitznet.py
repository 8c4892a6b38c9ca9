"""Promises of BlitzNet: any image size, the published sizes, and a small form in which everything learns."""

import pytest
import torch
from torch import nn

from veduta.models import build_model, build_skeleton
from veduta.models.blitznet import BlitzNet
from veduta.tasks.losses import cross_entropy
from veduta.tasks.multibox import assign, multibox_loss

PUBLISHED = [  # model, classes, options -> trainable values, all values, variables, priors
    ("blitznet300", 21, {}, (59_379_951, 59_480_175, 494, 45_390)),
    ("blitznet300", 21, {"stride4": False}, (58_330_841, 58_429_529, 473, 11_640)),
    ("blitznet512", 21, {}, (68_534_511, 68_647_023, 524, 32_766)),
    ("blitznet512", 81, {"stride4": True}, (83_134_081, 83_248_129, 545, 131_070)),
    ("blitznet300", 81, {"shared_head": True}, (57_133_071, 57_233_295, 470, 45_390)),
]


def on_meta(name: str, num_classes: int, **options: bool) -> BlitzNet:
    model = build_skeleton(name, num_classes, **options).to("meta").eval()
    assert isinstance(model, BlitzNet)
    return model


@pytest.mark.parametrize(("name", "num_classes", "options", "expected"), PUBLISHED)
def test_networks_have_the_published_sizes(
    name: str, num_classes: int, options: dict[str, bool], expected: tuple[int, int, int, int]
) -> None:
    model = on_meta(name, num_classes, **options)
    variables = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    trainable = sum(p.numel() for p in model.parameters())
    assert (trainable, sum(v.numel() for v in variables.values()), len(variables), len(model.priors)) == expected


def test_the_parts_have_the_published_sizes() -> None:
    model = on_meta("blitznet300", 21)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert parts["backbone"] == 23_508_032
    assert parts["extra"] == 26_775_552
    assert parts["up"] == 3_942_400
    assert parts["box_heads"] + parts["class_heads"] == 4_839_450
    assert parts["mask_convs"] + parts["mask_head"] == 314_517


@pytest.mark.parametrize("name", ["blitznet300", "blitznet512", "blitznet_tiny"])
@pytest.mark.parametrize("size", [(33, 33), (64, 47), (129, 300)])
def test_images_of_any_size_give_masks_of_that_size(name: str, size: tuple[int, int]) -> None:
    model = on_meta(name, 5)
    outputs = model(torch.rand(2, 3, *size, device="meta"))
    count = len(model.priors)
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "class_logits": (2, count, 5),
        "box_deltas": (2, count, 4),
        "priors": (count, 4),
        "mask_logits": (2, 5, *size),
    }


@pytest.mark.parametrize(("name", "grid"), [("blitznet300", 75), ("blitznet512", 64), ("blitznet_tiny", 32)])
def test_in_training_masks_stay_on_the_finest_grid(name: str, grid: int) -> None:
    outputs = on_meta(name, 5).train()(torch.rand(2, 3, 65, 97, device="meta"))
    assert outputs["mask_logits"].shape == (2, 5, grid, grid)


def test_priors_travel_with_the_model_and_are_no_weights() -> None:
    model = build_model("blitznet_tiny", 5)
    assert "priors" in dict(model.named_buffers())
    assert "priors" not in model.state_dict()


def test_detection_heads_start_small_and_bottlenecks_whole() -> None:
    torch.manual_seed(0)
    model = build_model("blitznet_tiny", 21)
    variance = {"extra.block5.0.conv2": 2.0, "up.rev3.conv1.0": 2.0, "class_heads.shared": 0.1, "box_heads.shared": 0.1}
    for name, factor in variance.items():
        weight = model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        assert weight.var().item() * weight[0].numel() == pytest.approx(factor, rel=0.15)
    gamma = model.get_submodule("extra.block5.0.bn3").weight
    assert isinstance(gamma, torch.Tensor) and gamma.eq(1).all()


def test_tiny_is_tiny_and_gives_every_parameter_a_gradient() -> None:
    torch.manual_seed(0)
    model = build_model("blitznet_tiny", 5)
    assert sum(p.numel() for p in model.parameters()) < 600_000
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # a zero gamma hides the rest of its block in the first step
    outputs = model(torch.rand(2, 3, 65, 97))
    boxes = [torch.tensor([[0.1, 0.2, 0.5, 0.9]]), torch.tensor([[0.3, 0.3, 0.4, 0.4], [0.0, 0.0, 1.0, 1.0]])]
    targets = assign(outputs["priors"], boxes, [torch.tensor([1]), torch.tensor([4, 2])])
    losses = multibox_loss(outputs["class_logits"], outputs["box_deltas"], *targets)
    masks = torch.randint(0, 5, outputs["mask_logits"][:, 0].shape).to(torch.uint8)
    (losses[0] + losses[1] + cross_entropy(outputs["mask_logits"], masks)).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
