"""The score of an exported file beside that of its network, on the same images: a proof that people understand."""

import dataclasses
from typing import Any

from veduta.backends import Backend
from veduta.engine.evaluate import evaluate
from veduta.engine.predictor import Predictor
from veduta.engine.progress import ProgressLine
from veduta.export.request import Labelled
from veduta.tasks.evaluation import WORDS, Evaluation, or_null, percent

SAME = 0.01  # points (of 100) that scores in fp32 may be apart


@dataclasses.dataclass(frozen=True)
class Scored:
    """Two evaluations of the same images."""

    network: Evaluation
    exported: Evaluation

    def points(self) -> dict[str, float]:
        """How much higher each overall score of the exported file is, in points of 100; nan where undefined."""
        one, other = self.network.scores.overall, self.exported.scores.overall
        return {name: 100 * (other[name] - one[name]) for name in one}

    def broken(self, max_drop: float | None) -> str:
        """Which score is too far away, in words; empty where none is. max_drop: points; else none may change."""
        for name, points in self.points().items():
            if max_drop is None and abs(points) > SAME:
                return f"its {WORDS[name]} is {points:+.3f} points away from the network's, {SAME} is allowed"
            if max_drop is not None and points < -max_drop:
                return f"its {WORDS[name]} is {-points:.2f} points lower than the network's, {max_drop:g} is allowed"
        return ""

    def table(self) -> str:
        one, other = self.network, self.exported
        names = list(one.scores.overall)
        split = f"{one.dataset} {one.split}, {one.images_counted:,} images"
        rows = [
            (split, *(WORDS[name] for name in names)),
            *(
                (title, *(percent(e.scores.overall[name]) for name in names))
                for title, e in (("network", one), ("exported file", other))
            ),
            ("difference", *(f"{round(points, 2) + 0:+.2f}" for points in self.points().values())),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([f"{row[0]:{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        return "\n".join([*lines, f"({one.protocol})"])

    def to_json(self) -> dict[str, Any]:
        sides = (("network", self.network), ("exported", self.exported))
        return {
            "dataset": self.network.dataset,
            "split": self.network.split,
            "images": self.network.images_counted,
            "protocol": self.network.protocol,
            **{title: {name: or_null(v) for name, v in each.scores.overall.items()} for title, each in sides},
            "points": {name: or_null(points) for name, points in self.points().items()},
        }


def score(what: str, backend: Backend, data: Labelled, line: ProgressLine) -> Evaluation:
    """By the protocol of the recipe."""
    return evaluate(
        Predictor(backend),
        data.samples,
        name=data.name,
        split=data.split,
        batch_size=data.batch_size,
        progress=lambda done, total: line.count(f"scoring the {what}", done, total),
        full=False,
    )
