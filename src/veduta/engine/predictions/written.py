"""The folder that `veduta predict` writes: predictions.json, masks of file ids, and the scores of whole images."""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from veduta.config import Loss, TaskName
from veduta.data.fit import Size
from veduta.data.images import read_mask
from veduta.data.layouts.json_file import number_at, read_json, text_at
from veduta.data.sample import Sample, SampleDataset
from veduta.engine.predictions.class_scores import CLASS_SCORES, read_rows
from veduta.engine.predictions.names import match, names_of
from veduta.engine.predictions.source import Predictions, Progress, check_size, hash_files
from veduta.errors import BadPrediction
from veduta.labels import LabelMap
from veduta.tasks import TASKS
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import CONFIDENCE_STEP, Prediction

CONTENT, CONFIDENCE = "predictions.json", "confidence"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="ignore"))
class About:
    """What predictions.json says of all of them together: who made them, and how. proof: see Source."""

    task: TaskName
    protocol: str
    rules: Rules
    proof: str
    labels: LabelMap


ABOUT = TypeAdapter(About)


class Row(NamedTuple):
    """What predictions.json says of an image. boxes: (n, 4) float32 xyxy, best first, with scores and train ids."""

    place: int  # in the list of images
    size: Size
    boxes: NDArray[np.float32] | None = None
    box_scores: NDArray[np.float32] | None = None
    box_classes: NDArray[np.int64] | None = None


class Written:
    """Finds the prediction of a sample. rows: by the name of its image in the folder; keys: by that of the sample."""

    def __init__(self, folder: Path, about: About, rows: Mapping[str, Row], keys: Mapping[str, str]) -> None:
        self.folder, self.labels, self.rows, self.keys = folder, about.labels, rows, keys
        self.masks = {key: folder / "masks" / f"{key}.png" for key in keys.values() if about.task != "classify"}
        self.scores: NDArray[np.float32] | None = None
        if about.task == "classify":
            self.scores = read_rows(folder / CLASS_SCORES, (len(rows), about.labels.num_classes))
        self.confidences: dict[str, Path] = {}
        if (folder / CONFIDENCE).is_dir():
            self.confidences = {key: folder / CONFIDENCE / f"{key}.npy" for key in self.masks}
        for files in (self.masks, self.confidences):
            missing = [path for path in files.values() if not path.is_file()]
            if missing:
                raise BadPrediction(f"{missing[0]} not found: {len(missing):,} of {len(files):,} files are missing.")

    @property
    def files(self) -> list[Path]:
        scores = [self.folder / CLASS_SCORES] if self.scores is not None else []
        return [self.folder / CONTENT, *scores, *self.masks.values(), *self.confidences.values()]

    def __call__(self, sample: Sample) -> Prediction:
        key = self.keys[sample.name]
        row = self.rows[key]
        check_size(row.size, sample, f"{self.folder / CONTENT}, image {key}")
        if self.scores is not None:
            scores = np.array(self.scores[row.place])
            _check_probabilities(scores, f"{self.folder / CLASS_SCORES}, image {key}")
            return Prediction(class_scores=scores)
        mask = read_mask(self.masks[key], self.labels)
        check_size((mask.shape[0], mask.shape[1]), sample, self.masks[key])
        confidence = None
        if self.confidences:
            rows, columns = mask[::CONFIDENCE_STEP, ::CONFIDENCE_STEP].shape
            confidence = np.array(read_rows(self.confidences[key], (rows, columns)))
            _check_probabilities(confidence, str(self.confidences[key]))
        return Prediction(
            mask=mask,
            confidence=confidence,
            boxes=row.boxes,
            box_scores=row.box_scores,
            box_classes=row.box_classes,
        )


def _check_probabilities(values: NDArray[np.float32], where: str) -> None:
    if not ((values >= 0) & (values <= 1)).all():
        raise BadPrediction(f"{where}: numbers beyond 0 and 1, where probabilities are expected. Predict again.")


def open_written(folder: Path, dataset: SampleDataset, *, progress: Progress) -> Predictions:
    """Raises BadPrediction where a file is missing, damaged, or does not say what it should."""
    path = folder / CONTENT
    try:
        content = read_json(path, _shrink)
        about = ABOUT.validate_python(content)
        rows = _rows(content, about)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadPrediction(
            f"{path}: {where}: {first['msg']}. It is not as this `veduta predict` writes it: predict again."
        ) from error
    except ValueError as error:
        raise BadPrediction(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    keys, left_over = match(names_of(dataset, progress), rows, about.labels, source=path)
    written = Written(folder, about, rows, keys)
    sha256 = hash_files(written.files, progress)
    return Predictions(
        labels=about.labels,
        task=TASKS[about.task](about.labels, Loss()),
        protocol=about.protocol,
        rules=about.rules,
        proof=f"{about.proof}; {len(keys):,} predictions of {folder.name}, sha256 {sha256[:12]}",
        sha256=sha256,
        find=written,
        left_over=left_over,
    )


def _shrink(fields: dict[str, Any]) -> object:
    """A box as a tuple, as soon as it is parsed: as objects those of many images would fill the memory."""
    match fields:
        case {"xyxy": [x1, y1, x2, y2], "score": score, "class": str(name)}:
            return x1, y1, x2, y2, score, name
    return fields


def _rows(content: dict[str, Any], about: About) -> dict[str, Row]:
    """By the name of the image. Raises ValueError."""
    train_ids = {name: train_id for train_id, name in enumerate(about.labels.names)}
    rows: dict[str, Row] = {}
    images = content.get("images")
    if not isinstance(images, list) or not all(isinstance(fields, dict) for fields in images):
        raise ValueError("images: expected a list of objects.")
    for place, fields in enumerate(images):
        name = text_at(fields, "name")
        if name in rows:
            raise ValueError(f"image {name} is listed twice.")
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"image {name}: its files would not lie in this folder.")
        size = number_at(fields, "height"), number_at(fields, "width")
        if about.task == "detect_segment":
            rows[name] = Row(place, size, *_boxes(fields.get("boxes"), train_ids, name))
        else:
            rows[name] = Row(place, size)
    return rows


def _boxes(
    found: object, train_ids: dict[str, int], image: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """(n, 4) xyxy, (n,) scores, (n,) train ids."""
    boxes: list[Any] = found if isinstance(found, list) else [found]
    for box in boxes:
        numbers_only = isinstance(box, tuple) and all(type(value) in (int, float) for value in box[:5])
        if not numbers_only or box[5] not in train_ids:
            raise ValueError(f"image {image}, boxes: expected class, score, xyxy of each, found {reprlib.repr(box)}.")
    numbers = np.array([box[:5] for box in boxes], np.float32).reshape(-1, 5)
    if not np.isfinite(numbers).all():
        raise ValueError(f"image {image}, boxes: a number is missing or infinite.")
    train_id = np.array([train_ids[box[5]] for box in boxes], np.int64)
    best_first = np.argsort(-numbers[:, 4], kind="stable")
    return numbers[best_first, :4], numbers[best_first, 4], train_id[best_first]
