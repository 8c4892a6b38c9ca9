"""Evaluation: a score with its proof: what was counted, what failed, what was void, by which weights."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from veduta.config import nearest
from veduta.data.sample import Sample
from veduta.labels import LabelMap
from veduta.tasks.metrics import Metric, Rules, Scores
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
    "mean_iou_present": "mIoU of the classes present",
    "mean_iou_all": "mIoU with absent classes as 0",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "boundary_iou": "boundary IoU",
    "category_iou": "category IoU",
    "iiou": "iIoU",
    "category_iiou": "category iIoU",
    "calibration_error": "calibration error",
    "ap": "AP",
    "ap75": "AP75",
    **{f"ap_{area}": f"AP {area}" for area in ("small", "medium", "large")},
    **{f"ar{most}": f"AR with {most} boxes" for most in (1, 10, 100)},
    **{f"ar_{area}": f"AR {area}" for area in ("small", "medium", "large")},
}
CLASS = "class"  # the first column of a table, which holds names


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
    """The result of `veduta evaluate`.

    order: for each image that was counted its index in the data set, rising; `per_image` and the images of `metric`
    are in this order. interval: of the first overall score, 95 %, over images drawn anew; None where it was not asked
    for or there are less than two images. best, typical, worst: pictures of a report, none until they are asked for.
    """

    dataset: str
    split: str
    labels: LabelMap
    protocol: str
    rules: Rules
    proof: str  # which weights or files predicted, in words
    sha256: str  # of these
    images_total: int
    images_counted: int
    failed: tuple[tuple[str, str], ...]  # (name, why)
    scores: Scores
    interval: tuple[float, float] | None = None
    per_image: tuple[ImageScore, ...]
    order: tuple[int, ...] = field(repr=False)
    metric: Metric = field(repr=False)
    seconds: float
    best: tuple[Example, ...] = field(default=(), repr=False)
    typical: tuple[Example, ...] = field(default=(), repr=False)
    worst: tuple[Example, ...] = field(default=(), repr=False)

    @property
    def proved(self) -> bool:
        """Every image was counted, once, and none failed."""
        names = {score.name for score in self.per_image}
        return self.images_counted == self.images_total == len(names) and not self.failed

    def headline(self) -> str:
        """One line that proves itself."""
        present = int(self.scores.present.sum())
        first, *others = (f"{WORDS[name]} {percent(value)}" for name, value in self.scores.overall.items())
        if self.interval is not None:
            first = "{} [{}, {}]".format(first, *map(percent, self.interval))
        proof = [
            f"{self.dataset} {self.split}: {self.images_counted:,} of {self.images_total:,} images"
            f"{', each once' if self.proved else ''}, {len(self.failed)} failed",
            f"{present} of {self.labels.num_classes} classes present",
            *facts_in_words(self.scores.facts),
            self.protocol,
            self.proof,
            *(["[]: 95 % by bootstrap over images"] if self.interval is not None else []),
        ]
        return f"{'  '.join([first, *others])}  ({'; '.join(proof)})"

    def table(self, sort: str | None = None) -> str:
        """The scores of each class: in the order of the label map, or by a column (see `find_column`), best first."""
        rows = list(self.rows())
        if sort == CLASS:
            rows.sort(key=lambda row: row[0])
        elif sort is not None:
            rows.sort(key=lambda row: -1 if math.isnan(row[1][sort]) else row[1][sort], reverse=True)
        width = max(len(name) for name in (CLASS, *self.labels.names))
        widths = {column: max(6, len(WORDS[column])) for column in self.scores.per_class}
        lines = ["  ".join([f"{CLASS:{width}}", *(f"{WORDS[c]:>{w}}" for c, w in widths.items())])]
        for name, values, present in rows:
            cells = [f"{in_cell(value):>{widths[column]}}" for column, value in values.items()]
            lines.append("  ".join([f"{name:{width}}", *cells, *([] if present else [" absent from the truth"])]))
        return "\n".join(lines)

    def details(self) -> str:
        """The scores that are too many for the headline, in a line; empty where there are none."""
        return "  ".join(f"{WORDS[name]} {percent(value)}" for name, value in self.scores.details.items())

    def rows(self) -> Iterator[tuple[str, dict[str, float], bool]]:
        """For each class its name, its scores and counts by column, and whether the truth has it."""
        columns = self.scores.per_class
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        for name, row, present in zip(self.labels.names, values, self.scores.present.tolist(), strict=True):
            yield name, dict(zip(columns, row, strict=True)), present

    def to_json(self, environment: Mapping[str, Any] | None = None) -> str:
        """Every figure, per class and per image, and on what machine; undefined ones are null."""
        scores = self.scores
        classes = [
            {"name": name, **{column: or_null(value) for column, value in values.items()}, "present": present}
            for name, values, present in self.rows()
        ]
        content: dict[str, Any] = {
            "headline": self.headline(),
            "proved": self.proved,
            "dataset": self.dataset,
            "split": self.split,
            "protocol": self.protocol,
            "rules": asdict(self.rules),
            "proof": self.proof,
            "sha256": self.sha256,
            "images_total": self.images_total,
            "images_counted": self.images_counted,
            "failed": [{"name": name, "why": why} for name, why in self.failed],
            **{name: or_null(value) for name, value in {**scores.facts, **scores.overall, **scores.details}.items()},
            "interval": None if self.interval is None else [or_null(value) for value in self.interval],
            "classes": classes,
            "confusion": scores.confusion.tolist(),
            "confusion_of": scores.confusion_of,
            "per_image": [
                {"name": image.name, **{name: or_null(value) for name, value in image.scores.items()}}
                for image in self.per_image
            ],
            "seconds": round(self.seconds, 3),
            **({} if environment is None else {"environment": environment}),
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def find_column(name: str, columns: Iterable[str]) -> str:
    """The column of a class table that people mean by its name or its word, such as iou or IoU; CLASS sorts by name.

    Raises ValueError with the names that there are.
    """
    meant = {word.lower(): column for column in columns for word in (column, WORDS[column])} | {CLASS: CLASS}
    if name.lower() not in meant:
        raise ValueError(f"--sort {name}: the table has no such column.{nearest(name, dict.fromkeys(meant.values()))}")
    return meant[name.lower()]


def facts_in_words(facts: Mapping[str, float]) -> Iterator[str]:
    """What else a metric has counted."""
    if "objects" in facts:
        crowds = f", {facts['crowds']:,} crowds" if facts.get("crowds") else ""
        yield f"{facts['objects']:,} objects, {facts['difficult']:,} difficult ones left out{crowds}"
    if not math.isnan(facts.get("void_share", math.nan)):
        yield f"{percent(facts['void_share'])} % void"


def percent(value: float) -> str:
    """0..1 -> '12.34', undefined -> '-'."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def in_cell(value: float) -> str:
    """A number of a table: a share in percent, a count as it is."""
    return f"{value:,}" if isinstance(value, int) else percent(value)


def or_null(value: float) -> float | None:
    """A number as strict JSON has it, undefined -> None."""
    return None if math.isnan(value) else value
