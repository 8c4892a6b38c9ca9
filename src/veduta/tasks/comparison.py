"""Comparison: two evaluations of the same images, paired image by image, and what their difference is worth."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from veduta.tasks.evaluation import WORDS, Evaluation, Example, ImageScore, or_null, percent

ARROWS = {-1: "↓", 0: "=", 1: "↑"}
FEWEST = 6  # images that show a difference: of less, all may be on one side by chance in more than 5 % of all cases
LISTED = 5  # images that changed most, of which the table tells
PICTURES = 20  # of which JSON tells and the report shows pictures


@dataclass(frozen=True, kw_only=True)
class ClassPair:
    """One class, and what both score on it, 0..1; nan where undefined."""

    name: str
    a: float
    b: float

    @property
    def difference(self) -> float:
        return self.b - self.a

    @property
    def arrow(self) -> str:
        """Where B stands against A; none where one of them has no score."""
        return "" if math.isnan(self.difference) else ARROWS[(self.b > self.a) - (self.b < self.a)]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What both say of one image. index: in the data set. Of an image without anything to count nothing is said."""

    index: int
    a: ImageScore
    b: ImageScore

    @property
    def differences(self) -> tuple[float, ...]:
        """B - A of each score, the first one first; 0 where both are undefined."""
        shared = (name for name in self.a.scores if name in self.b.scores)  # a table of classes has the first alone
        return tuple(_or_0(self.b.scores[name]) - _or_0(self.a.scores[name]) for name in shared)

    @property
    def change(self) -> tuple[float, ...]:
        """Pairs that changed more have the larger one: by the first score, where these are equal by the next one."""
        return tuple(map(abs, self.differences))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What predictions take. None where files predict, or where it cannot be told.

    images_per_second: as it ran here, both in turn: the network and all that the protocol does, without decoding.
    file_bytes: of the model file.
    """

    images_per_second: float | None = None
    parameters: int | None = None
    file_bytes: int | None = None

    def in_words(self) -> str:
        words = []
        if self.images_per_second is not None:
            words.append(f"{self.images_per_second:,.1f} images/s")
        if self.parameters is not None:
            words.append(f"{self.parameters:,} parameters")
        if self.file_bytes is not None:
            words.append(f"{self.file_bytes / 1e6:,.1f} MB")
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of `veduta compare`. All differences are B - A, of scores 0..1.

    Both evaluations are of the same images. names: what A and B are called. score: name of the overall score that is
    compared, the first one. interval: of its difference, 95 %, over images drawn anew, the same for both; None where
    there are too few. pairs: all images, the most changed first. wins, losses, same: images on which the own score of
    B is higher, lower, equal. per_class: by the column that ranks classes. changed: pictures of A and of B for the
    first PICTURES pairs that differ at all; none until they are asked for.
    """

    names: tuple[str, str]
    a: Evaluation
    b: Evaluation
    score: str
    difference: float
    interval: tuple[float, float] | None
    pairs: tuple[Pair, ...] = field(repr=False)
    per_class: tuple[ClassPair, ...]
    cost: tuple[Cost, Cost]
    warnings: tuple[str, ...] = ()
    changed: tuple[tuple[Example, Example], ...] = field(default=(), repr=False)

    @property
    def wins(self) -> int:
        return sum(pair.differences[0] > 0 for pair in self.pairs)

    @property
    def losses(self) -> int:
        return sum(pair.differences[0] < 0 for pair in self.pairs)

    @property
    def same(self) -> int:
        return len(self.pairs) - self.wins - self.losses

    @property
    def most_changed(self) -> tuple[Pair, ...]:
        """At most PICTURES pairs that differ in any score."""
        return tuple(pair for pair in self.pairs[:PICTURES] if any(pair.change))

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        if self.interval is None or len(self.pairs) < FEWEST:
            return "too few images to show a difference"
        low, high = self.interval
        if low > 0:
            return "B is better"
        if high < 0:
            return "A is better"
        return "no difference shown"

    def headline(self) -> str:
        """One line: images, the difference with its interval, and what may be said."""
        images = f"B beats A on {self.wins:,} images, loses on {self.losses:,}, same {self.same:,}"
        interval = "" if self.interval is None else " [{}, {}]".format(*map(signed, self.interval))
        return f"{images}; {WORDS[self.score]} {signed(self.difference)}{interval}: {self.verdict}"

    def sides(self) -> list[str]:
        """A line for A and one for B: score, cost, protocol and proof."""
        lines = []
        for letter, name, evaluation, cost in zip("AB", self.names, (self.a, self.b), self.cost, strict=True):
            score = f"{WORDS[self.score]} {percent(evaluation.scores.overall[self.score])}"
            facts = [score, cost.in_words(), evaluation.protocol, evaluation.proof]
            lines.append(f"{letter}  {name}: {'; '.join(fact for fact in facts if fact)}")
        return lines

    def table(self) -> str:
        """Both sides, then the scores of each class, in the order of the label map."""
        width = max(len(pair.name) for pair in self.per_class)
        column = WORDS[next(iter(self.a.scores.per_class))]
        lines = [*self.sides(), "", f"{column:{width}}  {'A':>6}  {'B':>6}    {'B - A':>6}"]
        for pair in self.per_class:
            figures = f"{percent(pair.a):>6}  {percent(pair.b):>6}  {pair.arrow:1} {signed(pair.difference):>6}"
            lines.append(f"{pair.name:{width}}  {figures}")
        for number, changed in enumerate(self.most_changed[:LISTED]):
            name = next(iter(changed.a.scores))
            a, b = (percent(image.scores[name]) for image in (changed.a, changed.b))
            lines += [] if number else ["", f"images that changed most, by their own {WORDS[name]}"]
            lines.append(f"  {changed.a.name}: {a} -> {b}, {signed(changed.differences[0])}")
        return "\n".join(lines)

    def to_json(self, environment: Mapping[str, Any] | None = None) -> str:
        """Every figure, and on what machine; A and B hold what `Evaluation.to_json` says of each. Undefined is null."""
        content: dict[str, Any] = {
            "headline": self.headline(),
            "verdict": self.verdict,
            "warnings": list(self.warnings),
            "score": self.score,
            "difference": or_null(self.difference),
            "interval": None if self.interval is None else [or_null(value) for value in self.interval],
            "wins": self.wins,
            "losses": self.losses,
            "same": self.same,
            "classes": [
                {"name": p.name, "a": or_null(p.a), "b": or_null(p.b), "difference": or_null(p.difference)}
                for p in self.per_class
            ],
            "changed": [pair.a.name for pair in self.most_changed],
        }
        for letter, name, evaluation, cost in zip("ab", self.names, (self.a, self.b), self.cost, strict=True):
            content[letter] = {"given": name, **vars(cost), **json.loads(evaluation.to_json())}
        if environment is not None:
            content["environment"] = environment
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def signed(value: float) -> str:
    """A difference of scores 0..1 -> '+0.42' in points of percent, undefined -> '-'."""
    return "-" if math.isnan(value) else f"{100 * value:+.2f}"


def _or_0(value: float) -> float:
    return 0.0 if math.isnan(value) else value
