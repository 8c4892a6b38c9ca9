"""Lists of values that somebody published with their mean: found in Markdown, CSV, or what a program printed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

FEWEST = 3  # values; fewer are no list

NUMBER = re.compile(r"[-+]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})(e[-+]?\d{1,2})?\s*%?", re.IGNORECASE)
ALONE = re.compile(rf"(?<![\w.])({NUMBER.pattern})(?![\w.])", re.IGNORECASE)  # a number in running text
UNDEFINED = re.compile(r"nan|n/?a|-+|–|—", re.IGNORECASE)
MEAN = re.compile(r"(?<![a-z])(m[ _-]?(iou|ap|acc)|mean|average|avg|overall)(?![a-z])", re.IGNORECASE)
BRACKETS = re.compile(r"\[([^][]+)\]")


@dataclass(frozen=True)
class Printed:
    """A number as it is printed, with a % or without."""

    text: str

    @property
    def value(self) -> float:
        return float(self.text.rstrip("% "))

    @property
    def decimals(self) -> int:
        mantissa, _, exponent = self.text.rstrip("% ").lower().partition("e")
        return len(mantissa.partition(".")[2]) - int(exponent or 0)

    @property
    def unit(self) -> float:
        """Of the last digit."""
        return 10.0**-self.decimals


Value = Printed | None  # None: undefined, such as nan


@dataclass(frozen=True, kw_only=True)
class PrintedList:
    """Values and what is printed as their mean. line: of the mean, from 1. name: of the list, where it has one.

    unit: of the last digit of the values, on average.
    """

    line: int
    name: str
    values: tuple[Value, ...]
    unit: float
    mean: Printed


Row = tuple[int, list[str]]  # line from 1, cells


def find_lists(text: str) -> list[PrintedList]:
    """In the order of their means.

    Either numbers in brackets, with a mean in the lines after or, if there is none, before them; or a table with a row
    or a column called mean, mIoU, average, ...; lines `name: value` are rows, too.
    """
    return sorted((*_in_brackets(text), *_in_tables(text.split("\n"))), key=lambda found: found.line)


def _read(text: str) -> Value:
    """Raises ValueError for what is neither a number nor undefined."""
    if NUMBER.fullmatch(text):
        return Printed(text)
    if UNDEFINED.fullmatch(text):
        return None
    raise ValueError(text)


def _read_all(texts: Sequence[str]) -> tuple[Value, ...]:
    """None at all where one is neither, or where they are too few for a list."""
    try:
        values = tuple(_read(text) for text in texts)
    except ValueError:
        return ()
    return values if sum(value is not None for value in values) >= FEWEST else ()


def _in_brackets(text: str) -> Iterator[PrintedList]:
    lines = BRACKETS.sub(lambda found: "\n" * found[0].count("\n"), text).split("\n")
    places = []
    for found in BRACKETS.finditer(text):
        if values := _read_all(re.split(r"[\s,;]+", found[1].strip(" \n,;"))):
            places.append((text.count("\n", 0, found.start()), text.count("\n", 0, found.end()), values))
    for number, (first, last, values) in enumerate(places):
        end = places[number + 1][0] if number + 1 < len(places) else len(lines)
        start = places[number - 1][1] + 1 if number else 0
        for line in (*range(last, end), *range(first - 1, start - 1, -1)):
            word = MEAN.search(lines[line])
            mean = ALONE.search(lines[line], word.end()) if word else None
            if mean:
                unit = min(value.unit for value in values if value)  # programs print arrays without zeros at the end
                name = lines[first].strip(" :=")
                yield PrintedList(line=line + 1, name=name, values=values, unit=unit, mean=Printed(mean[1]))
                break


def _in_tables(lines: Sequence[str]) -> Iterator[PrintedList]:
    rows = [(number, _cells(line)) for number, line in enumerate(lines, start=1)]
    for width, block in groupby(rows, key=lambda row: len(row[1])):
        table = [row for row in block if not all(UNDEFINED.fullmatch(cell.strip(":")) for cell in row[1])]
        if width > 1 and len(table) > 1:
            yield from _down(table) or _across(table)


def _cells(line: str) -> list[str]:
    for sign in ("|", "\t", ","):
        if sign in line:
            return [cell.strip(" *_`") for cell in line.strip().strip("|").split(sign)]
    *name, number = re.split(r"[\s:=]+", line.strip().removesuffix("%").strip())
    named = any(re.search("[a-z]", part, re.IGNORECASE) for part in name) or (name and (":" in line or "=" in line))
    return [" ".join(name), number] if named and _is_value(number) else []


def _down(table: Sequence[Row]) -> list[PrintedList]:
    """Lists in the columns: the mean of all other rows or, where there are several, of those since the one before."""
    found = []
    means = [place for place, (_, cells) in enumerate(table) if MEAN.search(cells[0])]
    for before, place in zip([-1, *means], means, strict=False):
        line, cells = table[place]
        others = [row for row in (table if len(means) == 1 else table[before + 1 : place]) if row[0] != line]
        for column in range(1, len(cells)):
            texts = [row[column] for _, row in others]
            title = texts.pop(0) if texts and not _is_value(texts[0]) else ""
            found += _list(line, title, texts, cells[column])
    return found


def _across(table: Sequence[Row]) -> list[PrintedList]:
    """Lists in the rows: a column is called the mean of the others."""
    found = []
    for column in (column for column, title in enumerate(table[0][1]) if MEAN.search(title)):
        for line, cells in table[1:]:
            others = [cell for place, cell in enumerate(cells) if place != column]
            name = "" if _is_value(others[0]) else others.pop(0)
            found += _list(line, name, others, cells[column])
    return found


def _list(line: int, name: str, texts: Sequence[str], mean: str) -> list[PrintedList]:
    values = _read_all(texts)
    if not values or not _number(mean):
        return []
    unit = fmean(value.unit for value in values if value)
    return [PrintedList(line=line, name=name, values=values, unit=unit, mean=Printed(mean))]


def _number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None


def _is_value(text: str) -> bool:
    return _number(text) or UNDEFINED.fullmatch(text) is not None
