"""The report: one HTML page with a score, its proof and its pictures. It needs no network and no other file."""

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray
from PIL import Image

from veduta import __version__
from veduta.data.images import read_rgb
from veduta.files import write_text
from veduta.labels import IGNORE_INDEX, LabelMap
from veduta.tasks.evaluation import Evaluation, Example, percent
from veduta.tasks.prediction import draw_mask

MAX_BYTES = 5_000_000  # of the page
QUALITIES = (85, 70, 50, 30, 15)  # of JPEG; the first one that keeps the page small enough
PICTURE_SIZE = (480, 480)  # width and height that example pictures are shrunk to
BATCH_SIZE = (1400, 1400)  # and the first training batch
MAX_FAILED = 100  # names listed on the page; `to_json` has all of them
WRONG = (214, 0, 90)  # RGB of wrong pixels; dark on the pale photo, so that it does not take colour to see them
HATCH = 6  # pixels from one line over void to the next


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One line of the class table. confused: the class that takes most of its missed pixels, and which part of them."""

    name: str
    color: tuple[int, int, int]
    iou: float
    share: float
    present: bool
    confused: tuple[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with its words."""

    title: str
    alt: str
    pixels: NDArray[np.uint8]


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
        examples=[(title, [(e, draw_example(e, evaluation.labels)) for e in es]) for title, es in examples if es],
        run=run.resolve().name if run else None,
        curves=_data_uri("image/png", curves.read_bytes()) if curves else None,
        first_batch=_shrink(read_rgb(batch), BATCH_SIZE) if batch else None,
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
    """Best IoU first, undefined ones last."""
    scores, names = evaluation.scores, (*evaluation.labels.names, "no class")
    rows = []
    for train_id, label in enumerate(evaluation.labels.classes):
        missed = evaluation.confusion[train_id].copy()
        missed[train_id] = 0
        taken, total = int(missed.argmax()), int(missed.sum())
        rows.append(
            ClassRow(
                name=label.name,
                color=label.color,
                iou=float(scores.iou[train_id]),
                share=float(scores.share[train_id]),
                present=bool(scores.present[train_id]),
                confused=(names[taken], float(missed[taken] / total)) if total else None,
            )
        )
    return sorted(rows, key=lambda row: -math.inf if math.isnan(row.iou) else row.iou, reverse=True)


def draw_example(example: Example, labels: LabelMap) -> tuple[Picture, ...]:
    """Photo, truth, prediction and error. They are drawn at their final size, so that lines stay fine."""
    image = _shrink(example.image, PICTURE_SIZE)
    size = (image.shape[1], image.shape[0])
    truth, prediction = (
        cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
        for mask in (example.truth, example.prediction)
    )
    name = example.score.name
    return (
        Picture(title="Photo", alt=f"Photo {name}", pixels=image),
        Picture(title="Truth", alt=f"True classes of {name}", pixels=draw_mask(image, truth, labels)),
        Picture(title="Prediction", alt=f"Predicted classes of {name}", pixels=draw_mask(image, prediction, labels)),
        Picture(title="Errors", alt=f"Wrong pixels of {name}", pixels=draw_errors(image, truth, prediction)),
    )


def draw_errors(image: NDArray[np.uint8], truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Wrong pixels in a strong colour over a pale grey photo, void hatched. Shapes as in `Example`."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    void = truth == IGNORE_INDEX
    wrong = (prediction != truth) & ~void
    rows, columns = np.indices(truth.shape)
    errors = cv2.addWeighted(grey, 0.4, np.full_like(grey, 255), 0.6, 0)
    errors[wrong] = (0.2 * grey[wrong] + 0.8 * np.array(WRONG)).astype(np.uint8)
    errors[void & ((rows + columns) % HATCH < 2)] = 90
    return errors.astype(np.uint8)


def to_jpeg(pixels: NDArray[np.uint8], *, quality: int) -> str:
    """(H, W, 3) uint8 RGB -> data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling=0)  # 0: sharp borders of colour
    return _data_uri("image/jpeg", buffer.getvalue())


def _data_uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _shrink(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink to fit into (width, height); smaller images stay as they are."""
    height, width = image.shape[:2]
    factor = min(1.0, size[0] / width, size[1] / height)
    fitted = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, fitted, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _find(run: Path | None, name: str) -> Path | None:
    return run / name if run and (run / name).is_file() else None
