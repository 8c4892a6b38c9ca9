"""Compare the loss curves of two runs, step by step: the check that a port from one device to another needs."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.config import differing_fields, read_recipe
from veduta.engine.curves import COLORS, GREY, new_figure, plot_losses, save_figure, scale_losses
from veduta.engine.runlog import Row, read_rows

Values = NDArray[np.float64]

LIMITS = (1e-3, 1e-2)  # relative differences whose first step is told
A_PORT_CHANGES = (  # fields of a recipe
    "name",
    "device",
    "precision",
    "compile",
    "loss_scale",
    "data.root",
    "data.workers",
    "data.in_memory",
    "keep.every",
    "keep.multiples",
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One column of both runs over the common steps. one, other: (N,) means since the common step before."""

    one: Values
    other: Values

    @property
    def absolute(self) -> Values:
        return self.other - self.one

    @property
    def relative(self) -> Values:
        """Against the larger of the two, 0..2."""
        largest = np.maximum(np.abs(self.one), np.abs(self.other))
        return np.divide(np.abs(self.absolute), largest, out=np.zeros_like(largest), where=largest > 0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs over the steps that both have in their logs.

    columns: "loss" and its parts, "lr". scores: of the last validation of each run, with its step as "step".
    differing: fields of the recipes that a port changes, with both values; `warnings` are about all else.
    """

    runs: tuple[Path, Path]
    steps: NDArray[np.int64]
    columns: dict[str, Difference]
    scores: tuple[dict[str, float], dict[str, float]]
    differing: tuple[str, ...]
    warnings: tuple[str, ...]

    def first_above(self, column: str, limit: float) -> int | None:
        """The first common step whose relative difference is larger than `limit`."""
        above = np.flatnonzero(self.columns[column].relative > limit)
        return int(self.steps[above[0]]) if len(above) else None

    def table(self) -> str:
        """A few lines for people."""
        count, first, last = len(self.steps), self.steps[0], self.steps[-1]
        lines = [
            *(f"{letter}  {run}" for letter, run in zip("AB", self.runs, strict=True)),
            *(f"   {text}" for text in self.differing),
            f"{count:,} steps compared, {first:,} to {last:,}; differences are relative to the larger value",
            f"{'':16} {'mean':>9} {'largest':>9} at step" + "".join(f"  first > {100 * x:g} %" for x in LIMITS),
        ]
        for name, column in self.columns.items():
            worst = int(column.relative.argmax())
            firsts = [self.first_above(name, limit) for limit in LIMITS]
            lines.append(
                f"{name:16} {column.relative.mean():9.2e} {column.relative[worst]:9.2e} {self.steps[worst]:7,}"
                + "".join(f"  {'never' if step is None else f'{step:,}':>13}" for step in firsts)
            )
        one, other = self.scores
        for name in [name for name in one if name in other and name != "step"]:
            lines.append(
                f"{name:16} A {100 * one[name]:.2f} at step {one['step']:,}, B {100 * other[name]:.2f} at step "
                f"{other['step']:,}: {100 * (other[name] - one[name]):+.2f}"
            )
        return "\n".join(lines)

    def to_json(self) -> str:
        """Every figure: the summary, then both curves and their difference."""
        content: dict[str, Any] = {
            "runs": [str(run) for run in self.runs],
            "steps_compared": len(self.steps),
            "differing": list(self.differing),
            "warnings": list(self.warnings),
            "scores": list(self.scores),
            "columns": {
                name: {
                    "mean_relative": float(column.relative.mean()),
                    "largest_relative": float(column.relative.max()),
                    "largest_at_step": int(self.steps[column.relative.argmax()]),
                    "first_step_above": {f"{limit:g}": self.first_above(name, limit) for limit in LIMITS},
                }
                for name, column in self.columns.items()
            },
            "steps": self.steps.tolist(),
            "curves": {name: [column.one.tolist(), column.other.tolist()] for name, column in self.columns.items()},
        }
        return json.dumps(content, indent=1) + "\n"

    def draw(self, path: Path) -> None:
        """A PNG: both losses, their difference absolute and relative, both learning rates."""
        figure, (losses, absolute, relative, rates) = new_figure(10, (3, 1.4, 1.4, 1))
        loss, rate = self.columns["loss"], self.columns["lr"]
        # A is wide and lies below, so that both are seen where they are equal.
        plot_losses(losses, self.steps, loss.one, color=COLORS[5], label=f"A  {self.runs[0].name}", width=5)
        plot_losses(losses, self.steps, loss.other, color=COLORS[1], label=f"B  {self.runs[1].name}", width=1.4)
        scale_losses(losses, np.concatenate([loss.one, loss.other]))
        losses.set_ylabel("training loss")
        losses.legend(loc="upper right", frameon=False)
        absolute.axhline(0, color="#999999", linewidth=0.8)
        absolute.plot(self.steps, loss.absolute, color=GREY, linewidth=1)
        absolute.set_ylabel("B - A")
        absolute.ticklabel_format(axis="y", scilimits=(-3, 3))
        shown = np.where(loss.relative > 0, loss.relative, np.nan)  # a logarithm has no place for equal losses
        relative.plot(self.steps, shown, ".", markersize=3, color=GREY)
        for limit in LIMITS:
            relative.axhline(limit, color="#c00000", linewidth=0.8, linestyle=":")
        relative.set_yscale("log")
        relative.set_ylabel("|B - A| / larger")
        if not np.isfinite(shown).any():
            relative.text(0.5, 0.5, "equal at every step", transform=relative.transAxes, ha="center", color=GREY)
        rates.plot(self.steps, rate.one, color=COLORS[5], linewidth=5)
        rates.plot(self.steps, rate.other, color=COLORS[1], linewidth=1.4)
        rates.set_ylabel("learning rate")
        rates.set_ylim(bottom=0)
        rates.ticklabel_format(axis="y", scilimits=(-3, 3))
        save_figure(figure, path)


def compare_curves(one: Path, other: Path) -> Comparison:
    """Compare two run folders. Raises ValueError or FileNotFoundError where there is nothing to compare."""
    logs = [_training_rows(run) for run in (one, other)]
    steps = sorted({row["step"] for row in logs[0]} & {row["step"] for row in logs[1]})
    if not steps:
        ranges = " and ".join(f"{log[0]['step']:,} to {log[-1]['step']:,}" for log in logs)
        raise ValueError(
            f"{one} and {other} have no step in common: their logs have rows of the steps {ranges}. A run has a row "
            "every steps/400 steps, so give both recipes the same number of steps."
        )
    names = [name for name in logs[0][0] if name.startswith("loss") and name in logs[1][0]]
    columns = {name: Difference(one=_means(logs[0], name, steps), other=_means(logs[1], name, steps)) for name in names}
    rates = [{row["step"]: row["lr"] for row in log} for log in logs]
    columns["lr"] = Difference(
        one=np.array([rates[0][step] for step in steps]), other=np.array([rates[1][step] for step in steps])
    )
    differing, others = _compare_recipes(one, other)
    warnings = [f"another recipe, {difference}" for difference in others]
    epochs = [next(row["epoch"] for row in log if row["step"] == steps[-1]) for log in logs]
    if epochs[0] != epochs[1]:
        warnings.append(
            f"step {steps[-1]:,} is epoch {epochs[0]:g} of A and {epochs[1]:g} of B: another data set, or another "
            "number of processes"
        )
    scores = (_last_scores(one), _last_scores(other))
    return Comparison(
        runs=(one, other),
        steps=np.array(steps),
        columns=columns,
        scores=scores,
        differing=tuple(differing),
        warnings=tuple(warnings),
    )


def _training_rows(run: Path) -> list[Row]:
    if not run.is_dir():
        raise FileNotFoundError(f"{run} is no folder. Give the run folders of two `veduta train`.")
    stages = sorted(path.name for path in run.glob("stage-*") if (path / "metrics.jsonl").is_file())
    if not (run / "metrics.jsonl").is_file():
        hint = f" It has the stages {', '.join(stages)}: give one of them." if stages else ""
        raise FileNotFoundError(f"{run / 'metrics.jsonl'} not found; every run folder has one.{hint}")
    rows = [row for row in read_rows(run) if "loss" in row]
    if not rows:
        raise ValueError(f"{run / 'metrics.jsonl'} has no row with a loss. Has the run made a step yet?")
    return rows


def _means(rows: list[Row], name: str, steps: list[int]) -> Values:
    """Of a column, since the common step before: a row holds the mean since the row before it."""
    weights = [row["step"] - before["step"] for before, row in pairwise([{"step": 0}, *rows])]
    means = []
    for first, last in pairwise([0, *steps]):
        inside = [(w, row[name]) for w, row in zip(weights, rows, strict=True) if first < row["step"] <= last]
        means.append(math.fsum(w * value for w, value in inside) / sum(w for w, _ in inside))
    return np.array(means)


def _compare_recipes(one: Path, other: Path) -> tuple[list[str], list[str]]:
    """(what differs as a port may make it, the rest), each as `field: A -> B`."""
    recipes = [read_recipe(run / "recipe.json") for run in (one, other)]
    of_a_port: list[str] = []
    others: list[str] = []
    for field in differing_fields(*recipes):
        first, second = (_value(recipe, field) for recipe in recipes)
        (of_a_port if field in A_PORT_CHANGES else others).append(f"{field}: {first} -> {second}")
    return of_a_port, others


def _value(recipe: Any, path: str) -> Any:
    for name in path.split("."):
        recipe = recipe.get(name, "-") if isinstance(recipe, dict) else getattr(recipe, name)
    return recipe


def _last_scores(run: Path) -> dict[str, float]:
    validated = [row for row in read_rows(run) if any(name.startswith("val_") for name in row)]
    return validated[-1] if validated else {}
