"""Evaluation: a score with its proof: what was counted, what failed, what was void, by which weights."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from veduta.data.sample import Sample
from veduta.labels import LabelMap
from veduta.tasks.metrics import Scores
from veduta.tasks.prediction import Prediction

WORDS = {  # names of scores and of columns, for people
    "mean_iou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "ap50": "AP50",
    "top1": "top-1",
    "top5": "top-5",
    "true_class_score": "score of the true class",
    "iou": "IoU",
    "share": "share",
    "accuracy": "accuracy",
    "images": "images",
    "objects": "objects",
}


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """The scores of one image by name, 0..1; nan where the image has nothing to count."""

    name: str
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One picture to look at."""

    score: ImageScore
    sample: Sample
    prediction: Prediction


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `veduta evaluate`. per_image: in the order of the data set."""

    dataset: str
    split: str
    labels: LabelMap
    protocol: str
    proof: str  # which weights or files predicted, in words
    sha256: str  # of these
    images_total: int
    images_counted: int
    failed: tuple[tuple[str, str], ...]  # (name, why)
    scores: Scores
    per_image: tuple[ImageScore, ...]
    seconds: float
    best: tuple[Example, ...] = field(default=(), repr=False)
    worst: tuple[Example, ...] = field(default=(), repr=False)

    @property
    def proved(self) -> bool:
        """Every image was counted, once, and none failed."""
        names = {score.name for score in self.per_image}
        return self.images_counted == self.images_total == len(names) and not self.failed

    def headline(self) -> str:
        """One line that proves itself."""
        present = int(self.scores.present.sum())
        scores = "  ".join(f"{WORDS[name]} {percent(value)}" for name, value in self.scores.overall.items())
        proof = [
            f"{self.dataset} {self.split}: {self.images_counted:,} of {self.images_total:,} images"
            f"{', each once' if self.proved else ''}, {len(self.failed)} failed",
            f"{present} of {self.labels.num_classes} classes present",
            *facts_in_words(self.scores.facts),
            self.protocol,
            self.proof,
        ]
        return f"{scores}  ({'; '.join(proof)})"

    def table(self) -> str:
        """The scores of each class, in the order of the label map."""
        width = max(len(name) for name in self.labels.names)
        widths = {column: max(6, len(WORDS[column])) for column in self.scores.per_class}
        lines = ["  ".join([f"{'class':{width}}", *(f"{WORDS[c]:>{w}}" for c, w in widths.items())])]
        for name, values, present in self.rows():
            cells = [f"{in_cell(value):>{widths[column]}}" for column, value in values.items()]
            lines.append("  ".join([f"{name:{width}}", *cells, *([] if present else [" absent from the truth"])]))
        return "\n".join(lines)

    def rows(self) -> Iterator[tuple[str, dict[str, float], bool]]:
        """For each class its name, its scores and counts by column, and whether the truth has it."""
        columns = self.scores.per_class
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        for name, row, present in zip(self.labels.names, values, self.scores.present.tolist(), strict=True):
            yield name, dict(zip(columns, row, strict=True)), present

    def to_json(self) -> str:
        """Every figure, per class and per image; undefined ones are null."""
        scores = self.scores
        classes = [
            {"name": name, **{column: _number(value) for column, value in values.items()}, "present": present}
            for name, values, present in self.rows()
        ]
        content: dict[str, Any] = {
            "headline": self.headline(),
            "proved": self.proved,
            "dataset": self.dataset,
            "split": self.split,
            "protocol": self.protocol,
            "proof": self.proof,
            "sha256": self.sha256,
            "images_total": self.images_total,
            "images_counted": self.images_counted,
            "failed": [{"name": name, "why": why} for name, why in self.failed],
            **{name: _number(value) for name, value in {**scores.facts, **scores.overall}.items()},
            "classes": classes,
            "confusion": scores.confusion.tolist(),
            "per_image": [
                {"name": image.name, **{name: _number(value) for name, value in image.scores.items()}}
                for image in self.per_image
            ],
            "seconds": round(self.seconds, 3),
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def facts_in_words(facts: Mapping[str, float]) -> Iterator[str]:
    """What else a metric has counted."""
    if "objects" in facts:
        yield f"{facts['objects']:,} objects, {facts['difficult']:,} difficult ones left out"
    if "void_share" in facts:
        yield f"{percent(facts['void_share'])} % void"


def percent(value: float) -> str:
    """0..1 -> '12.34', undefined -> '-'."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def in_cell(value: float) -> str:
    """A number of a table: a share in percent, a count as it is."""
    return f"{value:,}" if isinstance(value, int) else percent(value)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
