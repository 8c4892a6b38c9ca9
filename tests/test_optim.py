"""Promises of optimizers, parameter groups and moving average."""

import copy
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn

from veduta.config import Optim
from veduta.engine.optim import MovingAverage, TensorFlowAdam, build_optimizer
from veduta.models import build_model


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_weights_decay(name: Literal["sgd", "adamw"], fused: bool) -> None:
    model = small_model()
    optimizer = build_optimizer(model, Optim(name=name, lr=0.1, momentum=0, weight_decay=0.5), fused=fused)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shrunk = {n for n, p in model.named_parameters() if (p != before[n]).any()}
    assert shrunk == {"0.weight", "3.weight"}
    torch.testing.assert_close(model.get_parameter("0.weight"), 0.95 * before["0.weight"])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_frozen_parameters_are_left_out(name: Literal["sgd", "adam", "adamw"]) -> None:
    model = small_model()
    model.get_parameter("0.weight").requires_grad_(False)
    optimizer = build_optimizer(model, Optim(name=name, lr=0.1), fused=False)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(trained) == 5 and not any(p is model.get_parameter("0.weight") for p in trained)


@pytest.mark.parametrize(
    ("optim", "momentum", "nesterov"),
    [(Optim(lr=1, momentum=0), 0, False), (Optim(lr=1), 0.9, False), (Optim(lr=1, nesterov=True), 0.9, True)],
)
def test_momentum_is_plain_unless_nesterovs_is_asked_for(optim: Optim, momentum: float, nesterov: bool) -> None:
    (group, _) = build_optimizer(small_model(), optim, fused=True).param_groups
    assert group["momentum"] == momentum and group["nesterov"] == nesterov


def test_momentum_is_adamws_first_beta() -> None:
    (group, _) = build_optimizer(small_model(), Optim(name="adamw", lr=0.1, momentum=0.8), fused=True).param_groups
    assert group["betas"] == (0.8, 0.999)


def published_model() -> nn.Module:
    """Names as in a backbone with heads: a plain and a depthwise convolution, BatchNorm with and without bn in it."""
    return nn.ModuleDict(
        {
            "backbone": nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3, bias=False), "bn1": nn.BatchNorm2d(4)}),
            "aspp": nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4)),
            "head": nn.Conv2d(4, 2, 1),
        }
    )


def groups_of(model: nn.Module, optim: Optim) -> dict[str, tuple[float, float]]:
    """Name -> (rate, weight decay)."""
    rates = {}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in build_optimizer(model, optim, fused=False).param_groups:
        assert group["lr"] == optim.lr * group["lr_multiplier"]
        rates.update({names[p]: (group["lr"], group["weight_decay"]) for p in group["params"]})
    return rates


@pytest.mark.parametrize(
    ("rule", "decayed"),
    [
        ("kernels", {"backbone.conv1.weight", "aspp.0.weight", "head.weight"}),
        ("full-kernels", {"backbone.conv1.weight", "head.weight"}),
        ("names", {"backbone.conv1.weight", "aspp.0.weight", "aspp.1.weight", "head.weight"}),
        ("all", {name for name, _ in published_model().named_parameters()}),
    ],
)
def test_the_rule_says_which_parameters_decay(
    rule: Literal["all", "names", "full-kernels", "kernels"], decayed: set[str]
) -> None:
    groups = groups_of(published_model(), Optim(lr=0.1, weight_decay=0.01, weight_decay_on=rule))
    assert {name for name, (_, decay) in groups.items() if decay == 0.01} == decayed
    assert groups.keys() == {name for name, _ in published_model().named_parameters()}


def built(name: str, num_classes: int) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, num_classes)


@pytest.mark.parametrize(
    ("name", "num_classes", "rule", "tensors"),
    [
        ("resnest50", 1000, "names", 94),  # zhanghang1989/ResNeSt
        ("deeplabv3plus_xception65", 21, "full-kernels", 79),  # research/deeplab
        ("blitznet300", 21, "kernels", 112),  # dvornikita/blitznet, with stride 4
    ],
)
def test_as_many_tensors_decay_as_in_the_references(
    name: str, num_classes: int, rule: Literal["names", "full-kernels", "kernels"], tensors: int
) -> None:
    groups = groups_of(built(name, num_classes), Optim(lr=0.1, weight_decay_on=rule))
    assert sum(decay > 0 for _, decay in groups.values()) == tensors


def test_the_convolutions_that_mindspores_refinenet_freezes_can_be_named() -> None:
    model = built("refinenet_resnet101", 21)
    parts = [f"backbone.layer{i}.0.{part}" for i in (1, 2) for part in ("conv1", "conv2", "conv3", "downsample.0")]
    groups_of(model, Optim(lr=0.1, weight_decay_on="all", lr_multipliers=dict.fromkeys(parts, 0)))
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert len(frozen) == 8
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 117_601_877


def test_the_authors_names_decay_six_batch_norm_weights_of_resnest50() -> None:
    model = built("resnest50", 1000)
    groups = groups_of(model, Optim(lr=0.1, weight_decay_on="names"))
    decayed = [name for name, (_, decay) in groups.items() if decay]
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert (len(groups) - len(decayed), len(decayed)) == (169, 94)
    assert sum(sizes[name] for name in decayed) == 27_412_128
    assert [name for name in decayed if model.get_parameter(name).ndim == 1] == [
        "conv1.1.weight",
        "conv1.4.weight",
        *(f"layer{i}.0.downsample.2.weight" for i in range(1, 5)),
    ]


def test_rates_are_multiplied_by_parts_of_the_model_and_those_that_fit_together_multiply() -> None:
    optim = Optim(lr=0.1, lr_multipliers={"backbone": 0.5, "aspp": 10, "head": 10, "head.bias": 2})
    rates = {name: rate for name, (rate, _) in groups_of(published_model(), optim).items()}
    assert {rates[name] for name in rates if name.startswith("backbone.")} == {0.05}
    assert {rates[name] for name in rates if name.startswith("aspp.")} == {1.0}
    assert rates["head.weight"] == 1.0 and rates["head.bias"] == 2.0


def test_a_part_is_named_whole() -> None:
    model = nn.ModuleDict({"block1": nn.Linear(2, 2), "block10": nn.Linear(2, 2)})
    groups_of(model, Optim(lr=0.1, lr_multipliers={"block1": 0}))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["block10.weight", "block10.bias"]


def test_a_rate_multiplied_by_0_freezes() -> None:
    model = published_model()
    groups = groups_of(model, Optim(lr=0.1, lr_multipliers={"backbone.conv1": 0}))
    assert "backbone.conv1.weight" not in groups
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["backbone.conv1.weight"]


def test_a_multiplier_that_meets_no_parameter_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"'bakbone'.* start with backbone, aspp, head; the last one is head\.bias"):
        build_optimizer(published_model(), Optim(lr=0.1, lr_multipliers={"bakbone": 0.1}), fused=False)


def test_adams_decay_is_that_of_a_term_in_the_loss() -> None:
    decayed, penalised = small_model(), small_model()
    optim = Optim(name="adam", lr=0.01, weight_decay=0.1, weight_decay_on="all")
    with_decay = build_optimizer(decayed, optim, fused=False)
    without = build_optimizer(penalised, replace(optim, weight_decay=0), fused=False)
    for parameter in decayed.parameters():
        parameter.grad = torch.ones_like(parameter)
    (sum(p.sum() + 0.1 * p.square().sum() / 2 for p in penalised.parameters())).backward()  # type: ignore[union-attr]
    with_decay.step()
    without.step()
    for found, expected in zip(decayed.parameters(), penalised.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_adam_continues_from_its_state_as_if_it_had_never_stopped() -> None:
    models = [small_model(), small_model()]
    optim = Optim(name="adam", lr=0.01)
    optimizers = [build_optimizer(model, optim, fused=False) for model in models]
    assert all(isinstance(optimizer, TensorFlowAdam) for optimizer in optimizers)
    for step in range(6):
        if step == 3:
            fresh = build_optimizer(models[1], optim, fused=False)
            fresh.load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
            optimizers[1] = fresh
        for model, optimizer in zip(models, optimizers, strict=True):
            for parameter in model.parameters():
                parameter.grad = parameter.detach().sin() + step
            optimizer.step()
    for found, expected in zip(models[1].parameters(), models[0].parameters(), strict=True):
        assert torch.equal(found, expected)


def test_the_average_of_a_constant_model_is_the_model() -> None:
    model = small_model()
    average = MovingAverage(model, 0.9)
    for _ in range(50):
        average.update()
    for name, value in average.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_the_average_follows_with_its_decay_once_the_start_is_forgotten() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 0)
    average = MovingAverage(model, 0.9)
    for _ in range(200):
        average.update()
    nn.init.constant_(model.weight, 1)
    average.update()
    assert average.model.get_parameter("weight").item() == pytest.approx(0.1)
    average.update()
    assert average.model.get_parameter("weight").item() == pytest.approx(0.19)


def test_the_random_start_is_soon_forgotten() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 100)
    average = MovingAverage(model, 0.999)
    nn.init.constant_(model.weight, 1)
    for _ in range(60):
        average.update()
    assert average.model.get_parameter("weight").item() == pytest.approx(1, abs=0.01)


def test_the_average_has_running_statistics_and_counters_and_leaves_the_model_alone() -> None:
    model = small_model().train()
    average = MovingAverage(model, 0.9)
    model[0:2](torch.rand(2, 3, 5, 5))  # type: ignore[index]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average.update()
    found = average.model.state_dict()
    assert found["1.num_batches_tracked"] == 1
    assert (found["1.running_mean"] != 0).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(p.requires_grad for p in average.model.parameters())
