"""Audit: does a published mean follow from the values that were published with it?

Every number is taken as rounded to the digits that are printed. What `veduta evaluate --json` wrote is held against
itself: images, means, and what follows from the confusion matrix.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.layouts.json_file import read_json
from veduta.engine.printed_lists import PrintedList, find_lists
from veduta.labels import ENCODING
from veduta.tasks.confusion import scores_of
from veduta.tasks.evaluation import WORDS, percent
from veduta.tasks.metrics import mean_defined

MAX_BYTES = 1 << 24  # of a text
EXACT = 1e-9  # numbers of a JSON are not rounded


@dataclass(frozen=True)
class Finding:
    """What was held against what, and whether it agrees."""

    where: str
    words: str
    agrees: bool

    def __str__(self) -> str:
        return f"{'agrees ' if self.agrees else 'DIFFERS'}  {self.where}: {self.words}"


def audit(path: Path) -> list[Finding]:
    """Raises FileNotFoundError, and ValueError where the file holds nothing that could be held against a mean."""
    if path.suffix.lower() == ".json":
        return list(_audit_evaluation(read_json(path), path))
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Expected a text with lists of values, or an evaluation as JSON.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path}: {size:,} bytes, the limit is {MAX_BYTES:,}. Cut the lists out of it.")
    try:
        lists = find_lists(path.read_text(encoding=ENCODING))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from error
    if not lists:
        raise ValueError(
            f"{path}: no list of values with a mean in it. Expected numbers in [] with a line `mean ...` beside them, "
            "or a table with a row or a column called mean, mIoU, average or the like."
        )
    return [_audit_list(found, path) for found in lists]


# Means of other things than all values, as they get printed.
OTHER_MEANS: dict[str, Callable[[Sequence[float]], float]] = {
    "the mean without the first value": lambda values: statistics.fmean(values[1:]),
    "the mean without the last value": lambda values: statistics.fmean(values[:-1]),
    "the mean of the values that are not 0": lambda values: statistics.fmean([v for v in values if v] or [0.0]),
    "the median": statistics.median,
    "the harmonic mean": lambda values: statistics.harmonic_mean([max(v, 0.0) for v in values]),
    "the largest value": max,
}


def _audit_list(found: PrintedList, path: Path) -> Finding:
    values = [value.value for value in found.values if value is not None]
    scale = _scale(values, found.mean.value)
    mean, printed = statistics.fmean(values), found.mean.value * scale
    unit = found.mean.unit * scale
    bound = (unit + found.unit) / 2 + EXACT
    decimals = max(0, found.mean.decimals - round(math.log10(scale)))
    undefined = len(found.values) - len(values)
    said = (
        f"{len(values)} values{f' and {undefined} undefined ones' if undefined else ''} average {mean:.{decimals}f}, "
        f"printed is {found.mean.text}"
    )
    where = ", ".join(filter(None, (f"{path}, line {found.line}", found.name)))
    if abs(printed - mean) <= bound:
        return Finding(where, said, True)
    if 0 < mean - printed < unit + bound:
        return Finding(where, f"{said}, cut off where it should be rounded", True)
    others = {words: of(values) for words, of in OTHER_MEANS.items()}
    if undefined:
        others["the mean with undefined values as 0"] = sum(values) / len(found.values)
    why = next((words for words, other in others.items() if abs(printed - other) <= bound), None)
    edited = _same_ending(f"{mean / scale:.{max(0, found.mean.decimals)}f}", found.mean.text)
    hint = ""
    if why:
        hint = f"; it is {why}"
    elif edited:
        hint = f"; its last {edited} digits are those of the mean: edited?"
    off = f"off by {printed - mean:+.{decimals}f}, where rounding explains {bound:.1g}"
    return Finding(where, f"{said}: {off}{hint}", False)


def _scale(values: Sequence[float], mean: float) -> float:
    """By what a mean is to be multiplied where it is in percent and the values are not, or the other way round."""
    average = statistics.fmean(values)
    if average <= 0 or mean <= 0:
        return 1.0
    return min((1.0, 100.0, 0.01), key=lambda scale: abs(math.log(mean * scale / average)))


def _same_ending(one: str, other: str) -> int:
    """How many digits at the end of two numbers are the same; 0 where that may be chance."""
    pairs = zip(reversed(one.replace(".", "")), reversed(other.rstrip("% ").replace(".", "")), strict=False)
    same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return same if same >= 2 else 0


def _audit_evaluation(content: Any, path: Path) -> Iterator[Finding]:
    """What `veduta evaluate --json` wrote, held against itself. Raises ValueError for what is none."""
    try:
        yield _images(content, path)
        confusion = np.array(content["confusion"], np.int64)
        columns = {name: _column(content["classes"], name) for name in content["classes"][0] if name != "name"}
        yield from _classes(columns, confusion, content["confusion_of"], path)
        yield from _means(content, columns, confusion, path)
        yield _headline(content, path)
    except (AttributeError, KeyError, IndexError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not what --json of `veduta evaluate` or `veduta score` wrote ({type(error).__name__}: {error})."
        ) from error


def _column(classes: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if row[name] is None else row[name] for row in classes], np.float64)


def _images(content: Mapping[str, Any], path: Path) -> Finding:
    counted, total, failed = content["images_counted"], content["images_total"], len(content["failed"])
    names = [image["name"] for image in content["per_image"]]
    values = [value for image in content["per_image"] for name, value in image.items() if name != "name"]
    odd = sum(value is not None and not math.isfinite(value) for value in values)
    words = f"{counted:,} of {total:,} counted, {len(set(names)):,} names of {len(names):,}, {failed} failed"
    words += f", {odd:,} figures that are no numbers" if odd else ""
    whole = len(set(names)) == len(names) == counted == total and not failed and not odd
    return Finding(f"{path}, images", words, whole and content["proved"] is True)


def _classes(
    columns: Mapping[str, NDArray[np.float64]], confusion: NDArray[np.int64], of: str, path: Path
) -> Iterator[Finding]:
    """The columns that follow from the confusion matrix."""
    if of == "images":
        images = confusion.sum(axis=1)
        with np.errstate(invalid="ignore"):
            follows = {"accuracy": np.diagonal(confusion) / images, "images": images}
    else:
        scores = scores_of(confusion)
        follows = {"iou": scores.iou, "share": scores.share}
    for name, expected in follows.items():
        differing = ~np.isclose(columns[name], expected, rtol=0, atol=EXACT, equal_nan=True)
        words = f"{len(expected) - differing.sum()} of {len(expected)} classes as the confusion matrix says"
        yield Finding(f"{path}, {WORDS[name]} of classes", words, not differing.any())


def _means(
    content: Mapping[str, Any], columns: Mapping[str, NDArray[np.float64]], confusion: NDArray[np.int64], path: Path
) -> Iterator[Finding]:
    """The scores that are a mean of a column, or of all images."""
    follows = {f"mean_{name}": mean_defined(column) for name, column in columns.items()}
    follows |= {name: mean_defined(column) for name, column in columns.items() if name.startswith("ap")}
    if content["confusion_of"] == "pixels":
        scores = scores_of(confusion)
        for name in ("pixel_accuracy", "frequency_weighted_iou", "mean_iou_present", "mean_iou_all"):
            follows[name] = getattr(scores, name)
    for name in ("top1", "top5"):
        if name in content:
            follows[name] = statistics.fmean(image[name] for image in content["per_image"])
    for name, expected in follows.items():
        if name in content:
            found = math.nan if content[name] is None else content[name]
            agrees = bool(np.isclose(found, expected, rtol=0, atol=EXACT, equal_nan=True))
            yield Finding(f"{path}, {WORDS[name]}", f"{percent(found)}, its parts say {percent(expected)}", agrees)


def _headline(content: Mapping[str, Any], path: Path) -> Finding:
    """Its scores, which stand before the proof with two spaces between."""
    told = content["headline"].partition("  (")[0].split("  ")
    expected = {
        f"{WORDS[name]} {percent(math.nan if content[name] is None else content[name])}"
        for name in WORDS
        if isinstance(content.get(name, ""), float | None)
    }
    interval = content["interval"] and "{}, {}]".format(*map(percent, content["interval"]))
    parts = [part.partition(" [") for part in told]
    right = [words for words, bracket, ends in parts if words in expected and (not bracket or ends == interval)]
    counts = f"{content['images_counted']:,} of {content['images_total']:,} images"
    agrees = len(right) == len(told) and f": {counts}" in content["headline"]
    return Finding(f"{path}, headline", f"{len(right)} of {len(told)} scores as they are in the file; {counts}", agrees)
