"""Training samples drawn as the network sees them: each photo, and below it the same with its labels."""

import dataclasses
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veduta.config import Recipe
from veduta.data import open_dataset
from veduta.data.batch import Batch
from veduta.data.loader import TrainLoader
from veduta.files import replacing
from veduta.labels import LabelMap
from veduta.tasks.prediction import draw_boxes, draw_mask, write_words

COLUMNS = 6


def draw_batch(batch: Batch, labels: LabelMap, path: Path, *, most: int = 8) -> None:
    """A PNG of the first `most` samples of a batch: rows of photos, each above a row of the same with their labels."""
    images = batch.images[:most].permute(0, 2, 3, 1).contiguous().numpy()
    labelled = [_with_labels(image, batch, i, labels) for i, image in enumerate(images)]
    columns = math.ceil(len(images) / math.ceil(len(images) / COLUMNS))  # rows of about the same length
    blank = np.full_like(images[0], 255)
    rows = []
    for start in range(0, len(images), columns):
        for pictures in (list(images[start : start + columns]), labelled[start : start + columns]):
            rows.append(np.concatenate(pictures + [blank] * (columns - len(pictures)), axis=1))
    picture = Image.fromarray(np.concatenate(rows, axis=0))
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _with_labels(image: NDArray[np.uint8], batch: Batch, index: int, labels: LabelMap) -> NDArray[np.uint8]:
    if batch.masks is not None:
        image = draw_mask(image, batch.masks[index].numpy(), labels)
    if batch.boxes is not None and batch.box_classes is not None:
        image = draw_boxes(image, batch.boxes[index].numpy(), batch.box_classes[index].numpy(), labels)
    if batch.scene_classes is not None and labels.of == "images":
        image = write_words(image, labels.names[int(batch.scene_classes[index])])
    return image


def show(recipe: Recipe, split: str, path: Path, *, count: int) -> int:
    """Draw the first `count` samples that training by `recipe` would see in its first epoch; returns how many it drew.

    Raises ValueError where one of them cannot be read, and what `open_dataset` raises.
    """
    dataset = open_dataset(recipe.data, split)
    count = min(count, len(dataset))
    data = dataclasses.replace(recipe.data, batch_size=count, workers=0)
    batch = next(iter(TrainLoader(dataset, data, steps=1, seed=recipe.seed, pin_memory=False)))
    draw_batch(batch, dataset.labels, path, most=count)
    return count
