"""Curves as pictures: one run's losses, learning rate and scores; two runs' losses and their difference."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from veduta.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by people who see few colours, too (Okabe and Ito 2008, "Color universal design")
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
GREY = "#555555"

WIDE_RANGE = 50  # from the smallest to the largest loss; beyond it the axis is logarithmic
SMOOTHED_FROM = 60  # rows; below them a line through their running mean says no more
WINDOW = 15  # rows of the running mean

Row = dict[str, Any]


def new_figure(height: float, shares: Sequence[float]) -> "tuple[Figure, list[Axes]]":
    """A figure of panels below each other over one axis of steps; `shares` are their relative heights."""
    # Late: it is slow to import, and it keeps a cache of fonts, which must not land in the user's home.
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MPLCONFIGDIR"] = cache
        from matplotlib.figure import Figure
        from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(9, height), layout="constrained")
    panels = figure.subplots(len(shares), 1, sharex=True, height_ratios=shares, squeeze=False)[:, 0]
    for axes in panels:
        axes.grid(color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#999999")
        axes.tick_params(colors=GREY)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panels[-1].set_xlabel("step")
    return figure, list(panels)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def plot_losses(
    axes: "Axes", steps: NDArray[Any], values: NDArray[Any], *, color: str, label: str, width: float = 1.8
) -> None:
    """A line; where there are many points it is pale, and their running mean stands before it."""
    if len(values) < SMOOTHED_FROM:
        axes.plot(steps, values, color=color, linewidth=width, label=label, marker="." if len(values) < 3 else "")
        return
    axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
    padded = np.pad(values, (WINDOW // 2, WINDOW // 2), mode="reflect")
    axes.plot(steps, np.convolve(padded, np.ones(WINDOW) / WINDOW, "valid"), color=color, linewidth=width, label=label)


def scale_losses(axes: "Axes", values: NDArray[Any]) -> None:
    """From zero, or logarithmic where the values range too widely to be read."""
    if len(values) and values.min() > 0 and values.max() / values.min() > WIDE_RANGE:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=min(0, values.min(initial=0)))


def draw_run(rows: list[Row], path: Path, *, losses: Sequence[str], scores: Sequence[str]) -> None:
    """Losses (the parts where there are several), learning rate and validation scores of one run."""
    figure, (top, middle, bottom) = new_figure(8.5, (3, 1, 2))
    trained = [row for row in rows if "loss" in row]
    steps = np.array([row["step"] for row in trained])
    drawn = {"loss": "loss", **{f"loss_{name}": name.replace("_", " ") for name in losses}}
    for (column, label), color in zip(drawn.items(), COLORS * len(drawn), strict=False):
        values = np.array([row[column] for row in trained])
        plot_losses(top, steps, values, color=color, label=label)
    scale_losses(top, np.array([row[column] for row in trained for column in drawn]))
    skipped = [row["step"] for row in rows if "skipped" in row]
    if skipped:
        top.plot(
            skipped,
            [0] * len(skipped),
            "|",
            color="#c00000",
            markersize=14,
            label="step left out",
            transform=top.get_xaxis_transform(),
        )
    top.set_ylabel("training loss")
    if losses or skipped:
        top.legend(loc="upper right", frameon=False)
    middle.plot(steps, [row["lr"] for row in trained], color=GREY, linewidth=1.4)
    middle.set_ylabel("learning rate")
    middle.set_ylim(bottom=0)
    middle.ticklabel_format(axis="y", scilimits=(-3, 3))
    _draw_scores(bottom, [row for row in rows if any(name.startswith("val_") for name in row)], scores)
    if len(trained) > 1 and trained[-1]["epoch"] >= 1:
        _add_epochs(top, trained[-1]["epoch"] / trained[-1]["step"])
    save_figure(figure, path)


def _draw_scores(axes: "Axes", validated: list[Row], scores: Sequence[str]) -> None:
    """Scores in percent; the best of the first one, which chooses the checkpoint, has a ring and its value."""
    steps = np.array([row["step"] for row in validated])
    for number, (name, color) in enumerate(zip(scores, COLORS, strict=False)):
        values = np.array([100 * row.get(f"val_{name}", np.nan) for row in validated])
        axes.plot(steps, values, marker="osD^"[number % 4], markersize=4, color=color, label=name.replace("_", " "))
        if number == 0 and np.isfinite(values).any():
            best = int(np.nanargmax(values))
            axes.plot(steps[best], values[best], "o", markersize=11, markerfacecolor="none", color=color)
            below = values[best] > 85  # of the axis there is no room above
            axes.annotate(
                f"best {values[best]:.2f}",
                (steps[best], values[best]),
                xytext=(0, -18 if below else 10),
                textcoords="offset points",
                ha="right" if best == len(values) - 1 else "center",
                color=color,
                fontweight="bold",
            )
    axes.set(ylabel="validation, %", ylim=(0, 100))
    if len(scores) > 1:
        axes.legend(loc="lower right", frameon=False)


def _add_epochs(axes: "Axes", epochs_per_step: float) -> None:
    def epoch_of(step: Any) -> Any:
        return step * epochs_per_step

    def step_of(epoch: Any) -> Any:
        return epoch / epochs_per_step

    above = axes.secondary_xaxis("top", functions=(epoch_of, step_of))
    above.set_xlabel("epoch", color=GREY)
    above.tick_params(colors=GREY)
    above.spines["top"].set_visible(False)
