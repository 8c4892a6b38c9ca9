"""What a proof found, as a table for people and as rows for machines."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from veduta.backends.departures import broken
from veduta.model_info import Bounds, Departure


def table(departures: Sequence[Departure]) -> str:
    """A line for each case: the output that differs most, the least agreement and the largest shift of its boxes."""
    rows = [("", "differs most", "of its range", "same class", "boxes, pixels")]
    for case in dict.fromkeys(departure.case for departure in departures):
        own = [departure for departure in departures if departure.case == case]
        worst = max(own, key=lambda each: (each.largest, -1.0 if each.agreement is None else -each.agreement))
        agreement = min((each.agreement for each in own if each.agreement is not None), default=None)
        shift = max((each.box_shift for each in own if each.box_shift is not None), default=None)
        rows.append(
            (
                case,
                worst.output if worst.largest or agreement not in (None, 1) else "nothing",
                _size(worst.largest),
                "" if agreement is None else f"{math.floor(1e6 * agreement) / 1e4:.4f} %",
                "" if shift is None else f"{shift:.4f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:{width}}" if place < 2 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def first_broken(departures: Sequence[Departure], bounds: Bounds) -> str:
    """Which output breaks a bound, on what, and by how much; empty where all are within them."""
    found = [(departure, why) for departure in departures if (why := broken(departure, bounds))]
    if not found:
        return ""
    (first, why), others = found[0], len(found) - 1
    more = f" ({others} more {'rows' if others > 1 else 'row'} of the table, too)" if others else ""
    return f"on {first.case} output {first.output} {why}{more}"


def headline(departures: Sequence[Departure], bounds: Bounds) -> str:
    """One line that says what was compared, and how far it is apart at most."""
    cases = len({departure.case for departure in departures})
    worst = max(departures, key=lambda departure: departure.largest)
    agreements = [departure.agreement for departure in departures if departure.agreement is not None]
    shifts = [departure.box_shift for departure in departures if departure.box_shift is not None]
    said = [
        f"outputs differ by {_size(worst.largest)} of their range at most ({worst.output}; "
        f"{bounds.largest:.2g} is allowed)"
    ]
    if agreements:
        said.append(f"the class is the same in {math.floor(1e6 * min(agreements)) / 1e4:.4f} % of the places or more")
    if shifts:
        said.append(f"boxes are {max(shifts):.4f} pixels apart at most")
    return f"compared in {cases} {'cases' if cases > 1 else 'case'}: {'; '.join(said)}"


def to_rows(departures: Sequence[Departure]) -> list[dict[str, Any]]:
    """For JSON; what is infinite or cannot be told is null."""
    return [
        {
            name: value if not isinstance(value, float) or math.isfinite(value) else None
            for name, value in dataclasses.asdict(departure).items()
        }
        for departure in departures
    ]


def _size(largest: float) -> str:
    return f"{largest:.1e}" if largest else "0"
