"""Rows of a page's tables: classes, confusion, the data of a run, its machine."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from veduta.tasks.calibration import UNIT
from veduta.tasks.evaluation import Evaluation

MOST_CONFUSED = 30  # classes up to which the whole confusion is shown
MOST_PAIRS = 30  # of classes, that are shown where there are more
NO_CLASS = "no class"


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One line of the class table. scores: as in `Evaluation.rows`.

    confused: the class that takes most of what is missed of it, and which part of that.
    """

    name: str
    color: tuple[int, int, int]
    scores: dict[str, float]
    present: bool
    predicted: bool
    confused: tuple[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Confused:
    """How much of one class was taken for another. count: images or pixels; share: of all that the first one has."""

    truth: str
    taken_for: str
    count: int
    share: float


def class_rows(evaluation: Evaluation) -> list[ClassRow]:
    """Best first by the first of their scores, then by the next; undefined ones last."""
    confusion, names = evaluation.scores.confusion, (*evaluation.labels.names, NO_CLASS)
    rows = []
    for train_id, (name, scores, present) in enumerate(evaluation.rows()):
        missed = confusion[train_id].copy()
        missed[train_id] = 0
        taken, total = int(missed.argmax()), int(missed.sum())
        rows.append(
            ClassRow(
                name=name,
                color=evaluation.labels.classes[train_id].color,
                scores=scores,
                present=present,
                predicted=bool(confusion[:, train_id].any()),
                confused=(names[taken], float(missed[taken] / total)) if total else None,
            )
        )
    return sorted(rows, key=lambda row: [-1 if math.isnan(v) else v for v in row.scores.values()], reverse=True)


def confusion_rows(evaluation: Evaluation) -> list[list[Confused]] | None:
    """What was taken for what, a row for each true class; a column for each class, and for none where that occurs.

    None where there are too many classes for a table that people read.
    """
    confusion, names = evaluation.scores.confusion, evaluation.labels.names
    if len(names) > MOST_CONFUSED:
        return None
    columns = (*names, NO_CLASS) if confusion[:, -1].any() else names
    shares = confusion / confusion.sum(axis=1, keepdims=True).clip(min=1)
    return [
        [
            Confused(truth=truth, taken_for=column, count=int(confusion[i, j]), share=float(shares[i, j]))
            for j, column in enumerate(columns)
        ]
        for i, truth in enumerate(names)
    ]


def confused_pairs(evaluation: Evaluation) -> list[Confused]:
    """The pairs of classes that most was confused of, first by count."""
    confusion, names = evaluation.scores.confusion, (*evaluation.labels.names, NO_CLASS)
    totals = confusion.sum(axis=1)
    errors = confusion.copy()
    errors[range(len(errors)), range(len(errors))] = 0
    most = (-errors).argsort(axis=None, kind="stable")[: min(MOST_PAIRS, int((errors > 0).sum()))]
    return [
        Confused(truth=names[i], taken_for=names[j], count=int(errors[i, j]), share=float(errors[i, j] / totals[i]))
        for i, j in (divmod(place, errors.shape[1]) for place in most.tolist())
    ]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Guesses of about the same confidence, from `low` to `high`; all 0..1. share: of all guesses.

    confidence, right: how certain they were on average, and which part was right; nan of a bin without any.
    """

    low: float
    high: float
    share: float
    confidence: float
    right: float


def calibration_bins(evaluation: Evaluation) -> list[Bin]:
    """What the metric has counted of confidence; nothing where it has not."""
    counted = evaluation.metric.state().get("calibration")
    if counted is None or not counted[0].any():
        return []
    guesses, right, units = counted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        columns = guesses / guesses.sum(), units * UNIT / guesses, right / guesses
    ends = np.linspace(0, 1, len(guesses) + 1).tolist()
    return [
        Bin(low=low, high=high, share=share, confidence=confidence, right=part)
        for low, high, share, confidence, part in zip(
            ends[:-1], ends[1:], *(column.tolist() for column in columns), strict=True
        )
    ]


def overconfidence(bins: list[Bin]) -> float:
    """By how much guesses are more certain than right, on average over all of them."""
    return sum(b.share * (b.confidence - b.right) for b in bins if b.share)


@dataclass(frozen=True, kw_only=True)
class SplitCard:
    """What a run has counted in a split before it started. shares: of each class among the pixels that are not void."""

    name: str
    samples: int
    void_share: float
    shares: Mapping[str, float]


def data_card(text: str) -> list[SplitCard]:
    """The splits of a run's data.json; of images without masks nothing but their number."""
    cards = []
    for name, split in json.loads(text).items():
        counted = sum(split["pixels"].values())
        seen = counted + split["void_pixels"]
        cards.append(
            SplitCard(
                name=name,
                samples=split["samples"],
                void_share=split["void_pixels"] / seen if seen else math.nan,
                shares={of: pixels / counted for of, pixels in split["pixels"].items()} if counted else {},
            )
        )
    return cards


def flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of nested JSON as lines."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", str(value)
