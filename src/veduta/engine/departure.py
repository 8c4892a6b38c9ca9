"""Departure: of all tensors of two backends, in the order in which they come about, the first that they disagree on."""

import json
import math
from dataclasses import dataclass
from typing import Any

VALUES = 2**17  # of a module's tensor that are compared; larger ones are sampled
JUMP = 10  # rounding grows from module to module by less than this
AROUND, WORST = 3, 10  # modules that the table shows: on each side of the first that departs, and of the worst


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of one tensor, over all images. Relative to A, and infinite where shapes differ or one of both is no number.

    name: a module, with [key] of what it returns and #2 of its second call; or an output. largest: max |a - b| /
    max |a|. rms: that of a - b / that of a. agreement: share of equal arg-max over the classes, of logits.
    """

    name: str
    kind: str  # class of the module, "output" of an output
    shapes: tuple[tuple[int, ...], tuple[int, ...]]  # in the first image
    largest: float
    rms: float
    agreement: float | None = None

    def in_words(self) -> tuple[str, ...]:
        """The cells of a table's row."""
        a, b = ("x".join(map(str, shape)) for shape in self.shapes)
        agreement = "" if self.agreement is None else f"{100 * self.agreement:.4f} %"
        return self.name, self.kind, a if a == b else f"{a} | {b}", f"{self.largest:.1e}", f"{self.rms:.1e}", agreement

    def to_json(self) -> dict[str, Any]:
        figures = {"largest": self.largest, "rms": self.rms}
        return {
            "name": self.name,
            "kind": self.kind,
            "shapes": self.shapes,
            **{name: value if math.isfinite(value) else None for name, value in figures.items()},
            "agreement": self.agreement,
        }


@dataclass(frozen=True, kw_only=True)
class OutputComparison:
    """modules: in the order in which A runs them; empty where outputs alone are compared, for the reason `why_none`."""

    names: tuple[str, str]
    images: int
    tolerance: float
    modules: tuple[Difference, ...]
    outputs: tuple[Difference, ...]
    sampled: int = 0  # modules whose tensors were too large to be compared whole
    why_none: str = ""

    @property
    def departing(self) -> Difference | None:
        """The first that differs by more than the tolerance, and by JUMP times more than everything before it."""
        noise = 0.0
        for difference in (*self.modules, *self.outputs):
            if difference.largest > max(self.tolerance, JUMP * noise):
                return difference
            noise = max(noise, difference.largest)
        return None

    def headline(self) -> str:
        departing = self.departing
        everything = (*self.modules, *self.outputs)
        if departing is not None:
            before = everything[: everything.index(departing)]
            noise = max((difference.largest for difference in before), default=0.0)
            rest = f"; all that ran before it differs by at most {noise:.1e}" if before else ""
            return f"{departing.name} is the first that departs: it differs by {departing.largest:.1e}{rest}"
        worst = max(everything, key=lambda difference: difference.largest)
        above = next((difference for difference in everything if difference.largest > self.tolerance), None)
        if above is None:
            return f"nothing departs: the largest difference is {worst.largest:.1e}, of {worst.name}"
        return (
            f"nothing departs: differences grow from module to module, to {worst.largest:.1e} of {worst.name}; "
            f"{above.name} is the first above the tolerance"
        )

    def table(self) -> str:
        """The outputs, the modules around the first that departs, and those that differ most."""
        blocks = [("outputs", self.outputs)]
        departing = self.departing
        if departing in self.modules:
            place = self.modules.index(departing)
            around = self.modules[max(place - AROUND, 0) : place + AROUND + 1]
            blocks.append((f"around {departing.name}, as they run", around))
        worst = sorted(self.modules, key=lambda difference: difference.largest, reverse=True)[:WORST]
        if worst:
            blocks.append(("modules that differ most", tuple(worst)))
        head = ("", "", "shape", "max |a-b| / max |a|", "rms", "same arg-max")
        rows = [row.in_words() for _, differences in blocks for row in differences]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

        def line(cells: tuple[str, ...]) -> str:
            return "  ".join(
                f"{cell:{width}}" if i < 3 else f"{cell:>{width}}"
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ).rstrip()

        compared = f"{len(self.modules):,} modules" if self.modules else f"outputs alone ({self.why_none})"
        lines = [
            *(f"{letter}  {name}" for letter, name in zip("AB", self.names, strict=True)),
            f"{compared} on {self.images:,} images, tolerance {self.tolerance:g}",
        ]
        if self.sampled:
            lines.append(f"of {self.sampled:,} modules at most {VALUES:,} values are compared, spread evenly")
        for title, differences in blocks:
            lines += ["", line((title, *head[1:])), *(line(row.in_words()) for row in differences)]
        return "\n".join(lines)

    def to_json(self) -> str:
        content = {
            "headline": self.headline(),
            "a": self.names[0],
            "b": self.names[1],
            "images": self.images,
            "tolerance": self.tolerance,
            "departing": None if self.departing is None else self.departing.name,
            "outputs": [difference.to_json() for difference in self.outputs],
            "modules": [difference.to_json() for difference in self.modules],
            "modules_sampled": self.sampled,
            "why_no_modules": self.why_none,
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"
