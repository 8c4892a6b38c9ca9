"""The curve of a sweep: the score over the steps, with its intervals, the best checkpoint and the average."""

from pathlib import Path

import numpy as np

from veduta.engine.curves import COLORS, GREY, new_figure, save_figure
from veduta.engine.sweep import Sweep, first_score
from veduta.tasks.evaluation import WORDS, percent


def draw_sweep(sweep: Sweep, path: Path) -> None:
    """Write a PNG of the first overall score, in percent."""
    figure, (axes,) = new_figure(4.5, (1,))
    color, other = COLORS[:2]
    steps = np.array([step for step, _ in sweep.checkpoints])
    scores = np.array([100 * first_score(entry) for _, entry in sweep.checkpoints])
    spans = [entry.evaluation.interval or (np.nan, np.nan) for _, entry in sweep.checkpoints]
    low, high = 100 * np.array(spans).T
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0, label="95 % by bootstrap over images")
    axes.plot(steps, scores, marker="o", markersize=4, color=color, label="checkpoints")
    best = [entry for _, entry in sweep.checkpoints].index(sweep.best)
    axes.plot(steps[best], scores[best], "o", markersize=11, markerfacecolor="none", color=color)
    axes.annotate(
        f"best {scores[best]:.2f}",
        (steps[best], scores[best]),
        xytext=(0, 10),
        textcoords="offset points",
        ha="center",
        color=color,
        fontweight="bold",
    )
    if sweep.average is not None:
        value = first_score(sweep.average)
        axes.axhline(100 * value, color=other, linestyle="--", label=f"{sweep.average.name}: {percent(value)}")
    evaluation = sweep.best.evaluation
    axes.set_title(f"{evaluation.dataset} {evaluation.split}, {evaluation.protocol}", fontsize=10, color=GREY)
    axes.set_ylabel(f"{WORDS[next(iter(evaluation.scores.overall))]}, %")
    axes.margins(y=0.15)
    axes.legend(loc="best", frameon=False)
    save_figure(figure, path)
