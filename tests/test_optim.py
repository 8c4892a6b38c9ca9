"""Promises of optimizer, learning-rate curve and moving average."""

import math
from typing import Literal

import pytest
import torch
from torch import nn

from veduta.config import Optim
from veduta.engine.optim import MovingAverage, build_optimizer, learning_rate

STEPS = 100

Schedule = Literal["poly", "cosine"]


def curve(schedule: Schedule, warmup_steps: int = 10) -> list[float]:
    optim = Optim(lr=0.5, schedule=schedule, warmup_steps=warmup_steps)
    return [learning_rate(optim, step, STEPS) for step in range(STEPS)]


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_the_rate_rises_in_a_line_to_its_peak_and_then_falls_to_nearly_nothing(schedule: Schedule) -> None:
    rates = curve(schedule)
    assert rates[:10] == pytest.approx([0.05 * (i + 1) for i in range(10)])
    assert rates[9] == rates[10] == max(rates) == 0.5
    assert all(later < earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))
    assert 0 < rates[-1] < 0.02 * 0.5


def test_the_curves_are_the_published_ones() -> None:
    left = 1 / 90  # of the way, at the last step
    assert curve("poly")[-1] == pytest.approx(0.5 * left**0.9)
    assert curve("poly")[55] == pytest.approx(0.5 * 0.5**0.9)
    assert curve("cosine")[-1] == pytest.approx(0.25 * (1 - math.cos(math.pi * left)))
    assert curve("cosine")[55] == pytest.approx(0.25)


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_without_warm_up_the_first_step_has_the_full_rate(schedule: Schedule) -> None:
    assert curve(schedule, warmup_steps=0)[0] == 0.5


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_a_warm_up_as_long_as_the_run_or_longer_is_all_there_is(schedule: Schedule) -> None:
    assert curve(schedule, warmup_steps=STEPS)[-1] == 0.5
    assert curve(schedule, warmup_steps=2 * STEPS)[-1] == 0.25


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


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_frozen_parameters_are_left_out(name: Literal["sgd", "adamw"]) -> None:
    model = small_model()
    model.get_parameter("0.weight").requires_grad_(False)
    optimizer = build_optimizer(model, Optim(name=name, lr=0.1), fused=False)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(trained) == 5 and not any(p is model.get_parameter("0.weight") for p in trained)


def test_momentum_0_is_plain_sgd() -> None:
    (group, _) = build_optimizer(small_model(), Optim(lr=0.1, momentum=0), fused=True).param_groups
    assert group["momentum"] == 0 and not group["nesterov"]
    (group, _) = build_optimizer(small_model(), Optim(lr=0.1), fused=True).param_groups
    assert group["momentum"] == 0.9 and group["nesterov"]


def test_momentum_is_adamws_first_beta() -> None:
    (group, _) = build_optimizer(small_model(), Optim(name="adamw", lr=0.1, momentum=0.8), fused=True).param_groups
    assert group["betas"] == (0.8, 0.999)


def test_the_average_of_a_constant_model_is_the_model() -> None:
    model = small_model()
    average = MovingAverage(model, 0.9)
    for _ in range(50):
        average.update(model)
    for name, value in average.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_the_average_follows_with_its_decay_once_the_start_is_forgotten() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 0)
    average = MovingAverage(model, 0.9)
    for _ in range(200):
        average.update(model)
    nn.init.constant_(model.weight, 1)
    average.update(model)
    assert average.model.get_parameter("weight").item() == pytest.approx(0.1)
    average.update(model)
    assert average.model.get_parameter("weight").item() == pytest.approx(0.19)


def test_the_random_start_is_soon_forgotten() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 100)
    average = MovingAverage(model, 0.999)
    nn.init.constant_(model.weight, 1)
    for _ in range(60):
        average.update(model)
    assert average.model.get_parameter("weight").item() == pytest.approx(1, abs=0.01)


def test_the_average_has_running_statistics_and_counters_and_leaves_the_model_alone() -> None:
    model = small_model().train()
    average = MovingAverage(model, 0.9)
    model[0:2](torch.rand(2, 3, 5, 5))  # type: ignore[index]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average.update(model)
    found = average.model.state_dict()
    assert found["1.num_batches_tracked"] == 1
    assert (found["1.running_mean"] != 0).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(p.requires_grad for p in average.model.parameters())
