"""Predictor: the one road from images to predictions. What is measured here is what users get."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from veduta.backends import Backend
from veduta.config import Loss
from veduta.data.sample import Sample
from veduta.tasks import TASKS, Task
from veduta.tasks.detect_segment import DetectSegment
from veduta.tasks.prediction import Prediction


class Predictor:
    """A backend and the task that reads its outputs."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.labels = backend.info.labels
        self.task: Task = TASKS[backend.info.recipe.task](self.labels, Loss())
        self.flip = backend.info.recipe.flip_test

    @property
    def protocol(self) -> str:
        """How images are shown to the model, in words that go beside every score."""
        return "whole images, single scale" + (", averaged with the mirror image" if self.flip else "")

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Images (H, W, 3) uint8 RGB of one size -> their predictions, in order."""
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        outputs = self.backend(batch)
        if self.flip:
            assert not isinstance(self.task, DetectSegment)  # a recipe refuses it
            outputs = self.task.average_mirrored(outputs, self.backend(batch.flip(-1)))
        return self.task.predict(outputs)


def batches_by_size(samples: Iterable[Sample], batch_size: int) -> Iterator[list[Sample]]:
    """Group samples that follow each other with one image size into lists of at most `batch_size`."""
    batch: list[Sample] = []
    for sample in samples:
        if batch and (len(batch) == batch_size or sample.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch
