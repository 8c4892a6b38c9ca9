"""Learning-rate curves: those of the published systems, and what holds for all of them."""

from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from golden_data import Golden

from veduta.config import Optim
from veduta.engine.schedules import learning_rate

STEPS = 100
SCHEDULES = get_args(get_type_hints(Optim)["schedule"])

# Series of schedules.npz -> our fields; an epoch has 4 steps there.
SERIES: dict[str, dict[str, Any]] = {
    "resnest_cos": {"lr": 0.8, "schedule": "cosine", "warmup": "linear-from-0", "warmup_steps": 20},
    "encoding_poly": {"lr": 0.01, "schedule": "poly"},
    "ms_resnest_cosine": {"lr": 0.2, "schedule": "epoch-cosine", "hold_steps": 4, "warmup_steps": 4},
    "ms_resnest_cosine_w5": {"lr": 0.2, "schedule": "epoch-cosine", "hold_steps": 4, "warmup_steps": 20},
    "ms_refinenet_cos": {"lr": 0.0015, "schedule": "cosine"},
    "ms_refinenet_poly": {"lr": 0.0015, "schedule": "poly"},
    "ms_refinenet_exp": {"lr": 0.0015, "schedule": "staircase", "hold_steps": 100, "decay_factor": 0.8},
    "ms_refinenet_cos_warmup": {"lr": 0.0015, "schedule": "damped-cosine", "warmup_steps": 40},
}


def curve(**fields: Any) -> list[float]:
    optim = Optim(lr=0.5, **fields)
    return [learning_rate(optim, step, STEPS) for step in range(STEPS)]


def test_every_recorded_series_is_compared() -> None:
    assert SERIES.keys() == Golden("schedules").meta["series"].keys()


@pytest.mark.parametrize("series", SERIES)
def test_the_published_curves_are_met_at_every_step(series: str) -> None:
    expected = Golden("schedules").arrays[series]
    optim = Optim(**SERIES[series])
    found = [learning_rate(optim, step, len(expected)) for step in range(len(expected))]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("column", range(4))
def test_deeplabs_policies_are_met(column: int) -> None:
    golden = Golden("tf_ops")
    policy = golden.meta["learning_rate"]["policies"][column]
    optim = Optim(
        lr=policy["base"],
        schedule="poly" if policy["policy"] == "poly" else "staircase",
        hold_steps=policy["decay_step"],
        decay_factor=policy["decay_factor"],
        warmup="constant",
        warmup_steps=policy["slow_start_step"],
        warmup_lr=policy["slow_start_rate"],
    )
    table = golden.arrays["learning_rate"]
    found = [learning_rate(optim, int(step), policy["steps"]) for step in table[:, 0]]
    # TensorFlow subtracts in float32: near the end an absolute error of one rounding of the base is left.
    np.testing.assert_allclose(found, table[:, 1 + column], rtol=1e-6, atol=1e-7 * policy["base"])


def test_milestones_and_a_first_step_at_a_rate_of_its_own_are_blitznets() -> None:
    # tf.train.piecewise_constant with boundaries 0, 25,000, 35,000: a boundary still has the rate before it.
    optim = Optim(
        lr=1e-4,
        schedule="milestones",
        milestones=(25_000, 35_000),
        warmup="constant",
        warmup_steps=1,
        warmup_lr=1e-5,
    )
    expected = {0: 1e-5, 1: 1e-4, 25_000: 1e-4, 25_001: 1e-5, 35_000: 1e-5, 35_001: 1e-6, 40_000: 1e-6}
    assert {step: learning_rate(optim, step, 40_000) for step in expected} == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_the_rate_rises_in_a_line_to_its_peak_and_then_falls_to_nearly_nothing(schedule: Any) -> None:
    rates = curve(schedule=schedule, warmup_steps=10)
    assert rates[:10] == pytest.approx([0.05 * (i + 1) for i in range(10)])
    assert rates[9] == rates[10] == max(rates) == 0.5
    assert all(later < earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))
    assert 0 < rates[-1] < 0.02 * 0.5


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "damped-cosine"])
def test_without_warm_up_the_first_step_has_the_full_rate(schedule: Any) -> None:
    assert curve(schedule=schedule)[0] == 0.5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_as_long_as_the_run_or_longer_is_all_there_is(schedule: Any) -> None:
    assert curve(schedule=schedule, warmup_steps=STEPS)[-1] == 0.5
    assert curve(schedule=schedule, warmup_steps=2 * STEPS)[-1] == 0.25


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_rate_is_negative_not_even_after_the_last_step(schedule: Any) -> None:
    optim = Optim(lr=0.5, schedule=schedule, hold_steps=10, milestones=(50,), warmup_steps=3)
    assert all(0 <= learning_rate(optim, step, STEPS) <= 0.5 for step in range(STEPS + 2))
