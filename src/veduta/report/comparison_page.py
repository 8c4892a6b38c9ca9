"""The page of a comparison: by how much B differs from A, whether that is more than chance, where, and at what cost."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veduta import __version__
from veduta.report.examples import show_pair
from veduta.report.html import Detail, load_template, write_page
from veduta.report.page import find_doubts
from veduta.report.tables import flatten
from veduta.tasks.comparison import Comparison, signed
from veduta.tasks.evaluation import WORDS

MARGIN = 1.15  # of an axis beyond what is drawn on it


@dataclass(frozen=True)
class Axis:
    """An axis around zero. reach: the difference at its end."""

    reach: float

    def place(self, difference: float) -> float:
        """Where a difference stands, as a part of the axis from the left: 0..1."""
        return 0.5 + 0.5 * difference / self.reach


@dataclass(frozen=True)
class FactRow:
    """What is told of A and of B beside each other. code: in letters of one width."""

    title: str
    a: str
    b: str
    code: bool = False


def write_comparison(comparison: Comparison, path: Path, *, environment: Mapping[str, Any] | None = None) -> None:
    """Write the page. environment: the machine on which both were scored."""
    write_page(path, lambda detail: render(comparison, environment=environment or {}, detail=detail))


def render(comparison: Comparison, *, environment: Mapping[str, Any], detail: Detail) -> str:
    """The page as text."""
    a, b = comparison.a, comparison.b
    changed = [show_pair(pair, a.labels, score=comparison.score, side=detail.side) for pair in comparison.changed]
    return load_template("comparison_template.html", quality=detail.quality).render(
        comparison=comparison,
        of_images=a.scores.confusion_of == "images",
        has_boxes="objects" in a.scores.facts,
        word=WORDS[comparison.score],
        column=WORDS[next(iter(a.scores.per_class))],
        doubts=[f"{letter}: {doubt}" for letter, e in (("A", a), ("B", b)) for doubt in find_doubts(e)],
        interval_axis=axis_around(comparison.difference, *(comparison.interval or ())),
        class_axis=axis_around(*(pair.difference for pair in comparison.per_class)),
        classes=sorted(
            comparison.per_class,
            key=lambda pair: math.inf if math.isnan(pair.difference) else -pair.difference,
        ),
        facts=fact_rows(comparison),
        changed=changed,
        environment=list(flatten(environment)),
        signed=signed,
        version=__version__,
    )


def axis_around(*differences: float) -> Axis:
    """An axis on which all of these find room."""
    reach = max((abs(value) for value in differences if not math.isnan(value)), default=0)
    return Axis(MARGIN * reach or 1)


def fact_rows(comparison: Comparison) -> list[FactRow]:
    """Speed and size, protocol and proof; what neither of them tells is left out."""
    evaluations, costs = (comparison.a, comparison.b), comparison.cost
    columns = {
        "Images per second": [_told(cost.images_per_second, "{:,.1f}") for cost in costs],
        "Parameters": [_told(cost.parameters, "{:,}") for cost in costs],
        "Size of the file": [_told(cost.file_bytes and cost.file_bytes / 1e6, "{:,.1f} MB") for cost in costs],
        "Images counted": [f"{e.images_counted:,} of {e.images_total:,}" for e in evaluations],
        "Failed": [f"{len(e.failed):,}" for e in evaluations],
        "Protocol": [e.protocol for e in evaluations],
        "Predicted by": [e.proof for e in evaluations],
    }
    rows = [FactRow(title, a, b) for title, (a, b) in columns.items() if a or b]
    return [*rows, FactRow("sha256 of it", comparison.a.sha256, comparison.b.sha256, code=True)]


def _told(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
