"""Detections in COCO's format for results: one list of {"image_id", "category_id", "bbox", "score"}.

Lin et al. 2014, https://cocodataset.org/#format-results. bbox: x, y, width, height in pixels.
"""

import reprlib
from array import array
from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.config import Loss
from veduta.data.label_maps import COCO
from veduta.data.layouts.coco import CocoSplit
from veduta.data.layouts.json_file import read_json
from veduta.data.layouts.paint import MAX_COORDINATE
from veduta.data.sample import InMemory, Sample, SampleDataset
from veduta.engine.predictions.names import names_of
from veduta.engine.predictions.source import Predictions, Progress, hash_files
from veduta.errors import BadPrediction
from veduta.tasks.detect_segment import DetectSegment
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

FIELDS = ("image_id", "category_id", "bbox", "score")


class Detections:
    """The detections of a file in flat arrays, taken one by one while the JSON is parsed.

    names: samples by image id. train_ids: by category id.
    """

    def __init__(self, names: Mapping[Any, str], train_ids: Mapping[Any, int]) -> None:
        self.names, self.train_ids = names, train_ids
        self.samples = {name: index for index, name in enumerate(dict.fromkeys(names.values()))}
        self.images, self.classes, self.numbers = array("q"), array("B"), array("d")  # x, y, width, height, score
        self.foreign: dict[str, None] = {}  # image ids

    def take(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        """Keep a detection, None stays in its place; let every other object be."""
        if not {*FIELDS} <= fields.keys():
            return fields
        image, category, box, score = (fields[name] for name in FIELDS)
        where = f"a detection of image {reprlib.repr(image)}"
        numbers = [*box, score] if isinstance(box, list) else []
        if len(numbers) != 5 or not {*map(type, numbers)} <= {int, float}:
            raise ValueError(f"{where}: expected x, y, width, height and a score, found {reprlib.repr([box, score])}.")
        if not all(abs(v) <= MAX_COORDINATE for v in numbers) or min(numbers[2:4]) < 0:  # NaN is not, either
            raise ValueError(f"{where}: bbox {box} with score {score} is no box of pixels.")
        if not isinstance(category, Hashable) or category not in self.train_ids:
            known = ", ".join(map(str, self.train_ids))
            raise ValueError(f"{where}: category_id {reprlib.repr(category)} is no class. There are {known}.")
        if not isinstance(image, Hashable) or image not in self.names:
            self.foreign[str(image)] = None
            return None
        self.images.append(self.samples[self.names[image]])
        self.classes.append(self.train_ids[category])
        self.numbers.extend(numbers)
        return None

    def by_name(self) -> dict[str, Prediction]:
        """Of every sample, best first; a sample that nothing was found in has none of them."""
        images = np.frombuffer(self.images, np.int64)
        classes = np.frombuffer(self.classes, np.uint8).astype(np.int64)
        numbers = np.frombuffer(self.numbers, np.float64).reshape(-1, 5)
        _refuse_doubles(images, classes, numbers, list(self.samples))
        boxes, scores = numbers[:, :4].copy(), numbers[:, 4].astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        order = np.lexsort((-numbers[:, 4], images))  # stable: of equal scores the first in the file comes first
        ends = np.searchsorted(images[order], np.arange(len(self.samples) + 1))
        of_sample = {}
        for index, name in enumerate(self.samples):
            mine = order[ends[index] : ends[index + 1]]
            of_sample[name] = Prediction(
                boxes=boxes[mine].astype(np.float32), box_classes=classes[mine], box_scores=scores[mine]
            )
        return of_sample


def open_coco_results(path: Path, dataset: SampleDataset, *, progress: Progress) -> Predictions:
    """Ids are those of the data set; in data without ids, image_id is the name of a sample and category_id a file id.

    Raises BadPrediction for a detection that is none, or of a class or image that the data has not.
    """
    labels = dataset.labels
    names, train_ids = _ids(dataset, progress)
    found = Detections(names, train_ids)
    try:
        left = read_json(path, found.take)
        if not isinstance(left, list) or any(entry is not None for entry in left):
            wrong = next((e for e in left if e is not None), None) if isinstance(left, list) else left
            raise ValueError(f"expected a list of objects with {', '.join(FIELDS)}, found {reprlib.repr(wrong)}.")
        predictions = found.by_name()
    except ValueError as error:
        raise BadPrediction(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    with_boxes = sum(len(p.box_scores) > 0 for p in predictions.values() if p.box_scores is not None)
    if found.foreign and not with_boxes:
        raise BadPrediction(
            f"{path}: none of its images is in the split. image_id is {next(iter(found.foreign))} in the first, in the "
            f"split {next(iter(names))}."
        )
    sha256 = hash_files([path], progress)
    return Predictions(
        labels=labels,
        task=DetectSegment(labels, Loss()),
        protocol="boxes as they were written",
        rules=Rules(boxes="coco"),
        proof=f"{len(found.images):,} boxes in {with_boxes:,} images by {path.name}, sha256 {sha256[:12]}",
        sha256=sha256,
        find=partial(_find, predictions),
        left_over=tuple(found.foreign),
    )


def _find(predictions: dict[str, Prediction], sample: Sample) -> Prediction:
    return predictions[sample.name]


def _ids(dataset: SampleDataset, progress: Progress) -> tuple[Mapping[Any, str], Mapping[Any, int]]:
    """The name of a sample by image id, the train id of a class by category id."""
    if isinstance(dataset, InMemory):
        dataset = dataset.dataset
    if isinstance(dataset, CocoSplit):
        return {**dataset.names}, {**dataset.train_ids}
    if dataset.labels is COCO:
        raise ValueError(
            "these data have COCO's classes, but no category ids: results in COCO's format are scored with --data of "
            "layout coco, one split at a time."
        )
    names: dict[Any, str] = {named.name: named.name for named in names_of(dataset, progress)}
    numbers: dict[Any, str] = {int(name): name for name in names.values() if name.isdecimal()}
    classes = enumerate(dataset.labels.classes[1:], start=1)  # the first is the background, which has no boxes
    return {**names, **numbers}, {entry.file_id: train_id for train_id, entry in classes}


def _refuse_doubles(
    images: NDArray[np.int64], classes: NDArray[np.int64], numbers: NDArray[np.float64], names: list[str]
) -> None:
    """Raises ValueError where one detection is listed twice, as of parts that were joined twice."""
    rows = np.column_stack([images, classes, numbers])
    rows = rows[np.lexsort(rows.T)]
    twice = np.flatnonzero((rows[1:] == rows[:-1]).all(axis=1))
    if len(twice):
        box, image = rows[twice[0], 2:].tolist(), names[int(rows[twice[0], 0])]
        raise ValueError(
            f"{len(twice):,} detections are listed twice, such as {box} (x, y, width, height, score) of {image}. "
            "Was a part added twice? Each counts against the score; take them out."
        )
