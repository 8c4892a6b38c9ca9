"""The report: one HTML page with a score, its proof and its pictures. It needs no network and no other file."""

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray
from PIL import Image

from veduta import __version__
from veduta.data.images import read_rgb
from veduta.files import write_text
from veduta.report.examples import show_example, shrink
from veduta.tasks.evaluation import WORDS, Evaluation, in_cell, percent

MAX_BYTES = 5_000_000  # of the page
QUALITIES = (85, 70, 50, 30, 15)  # of JPEG; the first one that keeps the page small enough
BATCH_SIZE = (1400, 1400)  # width and height that the first training batch is shrunk to
MAX_FAILED = 100  # names listed on the page; `to_json` has all of them
MOST_CONFUSED = 30  # classes up to which the whole confusion is shown
BARS = ("ap50", "iou", "accuracy")  # scores of a class that are drawn


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One line of the class table. scores: as in `Evaluation.rows`, of which those in `bars` are drawn.

    confused: the class that takes most of what is missed of it, and which part of that.
    """

    name: str
    color: tuple[int, int, int]
    scores: dict[str, float]
    present: bool
    predicted: bool
    confused: tuple[str, float] | None


def write_report(evaluation: Evaluation, path: Path, *, run: Path | None) -> None:
    """Write the page. `run` is the folder of the training run; what it holds of curves, batch and recipe is shown."""
    for quality in QUALITIES:
        page = render(evaluation, run=run, quality=quality)
        if len(page.encode()) <= MAX_BYTES:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def load_template(name: str, *, quality: int) -> Template:
    """A page of this folder; it escapes everything that comes from data. quality: of the JPEGs in it, 1 to 95."""
    environment = Environment(
        loader=PackageLoader("veduta", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["cell"] = in_cell
    environment.filters["jpeg"] = partial(to_jpeg, quality=quality)
    return environment.get_template(name)


def render(evaluation: Evaluation, *, run: Path | None, quality: int) -> str:
    """The page as text."""
    template = load_template("template.html", quality=quality)
    examples = (("Best", evaluation.best), ("Worst", evaluation.worst))
    batch, curves = _find(run, "first_batch.png"), _find(run, "curves.png")
    page = template.render(
        evaluation=evaluation,
        doubts=list(find_doubts(evaluation)),
        failed=evaluation.failed[:MAX_FAILED],
        rows=class_rows(evaluation),
        num_present=int(evaluation.scores.present.sum()),
        columns=list(evaluation.scores.per_class),
        bars=[column for column in evaluation.scores.per_class if column in BARS],
        confusion=confusion_rows(evaluation),
        of_images=evaluation.scores.confusion_of == "images",
        words=WORDS,
        examples=[(title, [show_example(e, evaluation.labels) for e in es]) for title, es in examples if es],
        run=run.resolve().name if run else None,
        curves=_data_uri("image/png", curves.read_bytes()) if curves else None,
        first_batch=shrink(read_rgb(batch), BATCH_SIZE) if batch else None,
        texts=[
            (title, file.read_text(encoding="utf-8", errors="replace"))
            for title, name in (("Recipe", "recipe.json"), ("Environment", "environment.json"))
            if (file := _find(run, name))
        ],
        version=__version__,
    )
    return page.encode(errors="replace").decode()  # file names may hold bytes that are not UTF-8


def find_doubts(evaluation: Evaluation) -> Iterable[str]:
    """Why `evaluation.proved` is False, in words."""
    if evaluation.failed:
        yield f"{len(evaluation.failed):,} of {evaluation.images_total:,} images failed and are not in these numbers."
    elif evaluation.images_counted != evaluation.images_total:
        yield f"{evaluation.images_counted:,} images were counted, the split has {evaluation.images_total:,}."
    repeated = len(evaluation.per_image) - len({score.name for score in evaluation.per_image})
    if repeated:
        yield f"{repeated:,} of the images counted had a name that had been counted before."
    if evaluation.images_counted != len(evaluation.per_image):
        yield f"{evaluation.images_counted:,} images were counted, {len(evaluation.per_image):,} have their own scores."


def class_rows(evaluation: Evaluation) -> list[ClassRow]:
    """Best first by the first of their scores, then by the next; undefined ones last."""
    confusion, names = evaluation.scores.confusion, (*evaluation.labels.names, "no class")
    rows = []
    for train_id, (name, scores, present) in enumerate(evaluation.rows()):
        missed = confusion[train_id].copy()
        missed[train_id] = 0
        taken, total = int(missed.argmax()), int(missed.sum())
        rows.append(
            ClassRow(
                name=name,
                color=evaluation.labels.classes[train_id].color,
                scores=scores,
                present=present,
                predicted=bool(confusion[:, train_id].any()),
                confused=(names[taken], float(missed[taken] / total)) if total else None,
            )
        )
    return sorted(rows, key=lambda row: [-1 if math.isnan(v) else v for v in row.scores.values()], reverse=True)


def confusion_rows(evaluation: Evaluation) -> list[list[tuple[int, float]]] | None:
    """Guesses of the images of each class: their number and share, in the order of the label map.

    None where pixels are counted, or too many classes for a table that people read.
    """
    scores = evaluation.scores
    if scores.confusion_of != "images" or len(scores.confusion) > MOST_CONFUSED:
        return None
    shares = scores.confusion / scores.confusion.sum(axis=1, keepdims=True).clip(min=1)
    cells = zip(scores.confusion[:, :-1].tolist(), shares[:, :-1].tolist(), strict=True)
    return [list(zip(counts, parts, strict=True)) for counts, parts in cells]


def to_jpeg(pixels: NDArray[np.uint8], *, quality: int) -> str:
    """(H, W, 3) uint8 RGB -> data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling=0)  # 0: sharp borders of colour
    return _data_uri("image/jpeg", buffer.getvalue())


def _data_uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _find(run: Path | None, name: str) -> Path | None:
    return run / name if run and (run / name).is_file() else None
