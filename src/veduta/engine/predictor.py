"""Predictor: the one road from images to predictions. What is measured here is what users get."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from veduta.backends import Backend
from veduta.config import Loss
from veduta.data.fit import CentralSquare, Pixels, Size
from veduta.data.sample import Sample
from veduta.tasks import TASKS, Task
from veduta.tasks.detect_segment import DetectSegment
from veduta.tasks.prediction import Prediction


class Predictor:
    """A backend and the task that reads its outputs.

    Whole images are shown to the model, except where its recipe trains on ImageNet's crops: such a model sees the
    central square that the authors of ResNeSt validate on, or all of an image that has the size of the crops.
    """

    def __init__(self, backend: Backend) -> None:
        recipe = backend.info.recipe
        self.backend = backend
        self.labels = backend.info.labels
        self.task: Task = TASKS[recipe.task](self.labels, Loss())
        self.flip = recipe.protocol == "mirrored"
        crops = recipe.protocol == "resnest-validation"
        self.square = CentralSquare(recipe.data.crop_size[0], "bilinear") if crops else None

    @property
    def sha256(self) -> str:
        return self.backend.info.weights_sha256

    @property
    def proof(self) -> str:
        return f"weights {self.sha256[:12]} at step {self.backend.info.step:,}"

    @property
    def protocol(self) -> str:
        """How images are shown to the model, in words that go beside every score."""
        shown = "whole images"
        if self.square:
            side = self.square.crop
            shown = f"central {side}/{side + 32} of the shorter side as {side} x {side}, images of that size whole"
        return f"{shown}, single scale" + (", averaged with the mirror image" if self.flip else "")

    def shown_size(self, image: Pixels) -> Size:
        """The size in which the model sees an image (H, W, 3); images of one such size make a batch."""
        return (self.square.crop,) * 2 if self.square else image.shape[:2]

    def __call__(self, images: Sequence[Pixels]) -> list[Prediction]:
        """Images (H, W, 3) uint8 RGB of one shown size -> their predictions, in order."""
        batch = torch.from_numpy(np.stack([self._show(image) for image in images])).permute(0, 3, 1, 2)
        outputs = self.backend(batch)
        if self.flip:
            assert not isinstance(self.task, DetectSegment)  # a recipe refuses it
            outputs = self.task.average_mirrored(outputs, self.backend(batch.flip(-1)))
        return self.task.predict(outputs)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """As a Source: of samples of one shown size."""
        return self([sample.image for sample in samples])

    def _show(self, image: Pixels) -> Pixels:
        return image if self.square is None or image.shape[:2] == self.shown_size(image) else self.square(image)


def batches_by_size(
    samples: Iterable[tuple[int, Sample]], batch_size: int, size_of: Callable[[Pixels], Size]
) -> Iterator[list[tuple[int, Sample]]]:
    """Group (index, sample) that follow each other with images of one size into lists of at most `batch_size`."""
    batch: list[tuple[int, Sample]] = []
    for index, sample in samples:
        if batch and (len(batch) == batch_size or size_of(sample.image) != size_of(batch[0][1].image)):
            yield batch
            batch = []
        batch.append((index, sample))
    if batch:
        yield batch
