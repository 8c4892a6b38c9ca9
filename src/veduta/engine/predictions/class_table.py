"""A CSV of whole images: `name,class` with one class for each, or `name` and a column of scores for every class."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path, PurePath
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from veduta.config import Loss
from veduta.data.images import IMAGE_ENDINGS
from veduta.data.sample import Sample, SampleDataset
from veduta.engine.predictions.names import match, names_of
from veduta.engine.predictions.source import Predictions, Progress, hash_files
from veduta.errors import BadPrediction
from veduta.labels import ENCODING, LabelMap
from veduta.tasks.class_metric import ClassMetric
from veduta.tasks.classify import Classify
from veduta.tasks.metrics import Rules, Scores
from veduta.tasks.prediction import Prediction

MAX_BYTES = 1 << 31  # of a table; as numbers it takes twice as much memory at most
SHOWN_EVERY = 1000  # rows

NAME, CLASS = "name", "class"


class GuessMetric(ClassMetric):
    """Of programs that tell a class and no scores: nobody knows what their second guess was, or how sure they were."""

    def update(self, prediction: Prediction, sample: Sample) -> dict[str, float]:
        return {"top1": super().update(prediction, sample)["top1"]}

    def compute(self) -> Scores:
        scores = super().compute()
        return dataclasses.replace(scores, overall={"top1": scores.overall["top1"]})


class Guess(Classify):
    scores: ClassVar[tuple[str, ...]] = ("top1",)

    def metric(self, rules: Rules) -> GuessMetric:
        return GuessMetric(self.labels.num_classes, dataclasses.replace(rules, full=False))


def open_class_table(path: Path, dataset: SampleDataset, *, logits: bool, progress: Progress) -> Predictions:
    """logits: the scores are those before the soft-max. Classes are told by name, or as train ids.

    Raises BadPrediction naming the line at fault.
    """
    labels = dataset.labels
    if (size := path.stat().st_size) > MAX_BYTES:
        raise BadPrediction(f"{path}: {size:,} bytes, the limit is {MAX_BYTES:,}. Score the split in parts.")
    rows: dict[str, NDArray[np.float32]] = {}
    try:
        with path.open("rb") as file:
            table = csv.reader(TextIOWrapper(file, encoding=ENCODING, newline=""))
            header = next(table, [])
            guesses = header == [NAME, CLASS]
            read = partial(_guess, _rows_by_class(labels))
            if not guesses:
                read = partial(_scores, _columns(header, labels), logits)
            for cells in filter(None, table):
                name = _without_ending(cells[0])
                try:
                    if len(cells) != len(header):
                        raise ValueError(f"{len(cells)} cells, the header has {len(header)}.")
                    if name in rows:
                        raise ValueError("listed before. Which one counts?")
                    rows[name] = read(cells[1:])
                except ValueError as error:
                    raise ValueError(f"line {table.line_num}, {cells[0]}: {error}") from error
                if len(rows) % SHOWN_EVERY == 0:
                    progress("reading a table", file.tell(), size)
        progress("reading a table", size, size)
    except (csv.Error, ValueError) as error:
        raise BadPrediction(f"{path}: {error}") from error
    keys, left_over = match(names_of(dataset, progress), rows, labels, source=path)
    sha256 = hash_files([path], progress)
    return Predictions(
        labels=labels,
        task=(Guess if guesses else Classify)(labels, Loss()),
        protocol="classes as they were written",
        rules=Rules(),
        proof=f"{len(keys):,} rows of {path.name}, sha256 {sha256[:12]}",
        sha256=sha256,
        find=partial(_find, {name: rows[key] for name, key in keys.items()}),
        left_over=left_over,
    )


def _find(rows: dict[str, NDArray[np.float32]], sample: Sample) -> Prediction:
    return Prediction(class_scores=rows[sample.name])


def _without_ending(name: str) -> str:
    path = PurePath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in IMAGE_ENDINGS else path.as_posix()


def _columns(header: Sequence[str], labels: LabelMap) -> NDArray[np.intp]:
    """For each class, in the order of the label map, which of the columns after the name has its scores."""
    numbers = tuple(map(str, range(labels.num_classes)))
    for names in (labels.names, numbers):
        if header[:1] == [NAME] and sorted(header[1:]) == sorted(names):
            return np.array([header.index(name) - 1 for name in names])
    missing = [name for name in labels.names if name not in header[1:]]
    raise ValueError(
        f"its header has {len(header)} columns, beginning with {', '.join(header[:3])}. Expected `{NAME},{CLASS}`, or "
        f"`{NAME}` and a column for each of the {labels.num_classes} classes by its name"
        + (f"; {len(missing)} are missing, such as {missing[0]}." if missing else ", once.")
    )


def _rows_by_class(labels: LabelMap) -> dict[str, NDArray[np.float32]]:
    """All of the score for one class, by its number and by its name, which goes first."""
    rows = list(np.eye(labels.num_classes, dtype=np.float32))
    return {str(number): row for number, row in enumerate(rows)} | dict(zip(labels.names, rows, strict=True))


def _guess(by_class: Mapping[str, NDArray[np.float32]], cells: Sequence[str]) -> NDArray[np.float32]:
    (cell,) = cells
    if cell not in by_class:
        raise ValueError(f"'{cell}' is neither the name of a class nor its number.")
    return by_class[cell]


def _scores(columns: NDArray[np.intp], logits: bool, cells: Sequence[str]) -> NDArray[np.float32]:
    row = np.array(cells, np.float64)[columns]
    if not np.isfinite(row).all():
        raise ValueError("a score is no finite number.")
    if logits:
        row = np.exp(row - row.max())
        return (row / row.sum()).astype(np.float32)
    if row.min() < 0 or row.max() > 1:
        raise ValueError("scores are between 0 and 1. Are these outputs from before the soft-max? Add --logits.")
    return row.astype(np.float32)
