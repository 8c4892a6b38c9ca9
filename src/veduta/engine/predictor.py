"""Predictor: the one road from images to predictions. What is measured here is what users get."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from veduta.backends import Backend
from veduta.config import Loss
from veduta.data.bands import Rows
from veduta.data.fit import Pixels, Size
from veduta.data.sample import Sample
from veduta.engine.protocols import averages_logits, in_words, open_protocol
from veduta.engine.windows import Windows
from veduta.errors import RunStopped, is_out_of_memory
from veduta.tasks import TASKS, Task
from veduta.tasks.decoded import read_decoded
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

MOST_PIXELS = 1 << 26  # of the images of a batch, if they are more than one


class Predictor:
    """A backend, the protocol by which it is shown images, and the task that reads its outputs.

    Raises ValueError where the recipe's protocol is not one for its task or its crop.
    """

    def __init__(self, backend: Backend) -> None:
        recipe, exported = backend.info.recipe, backend.info.exported
        self.backend = backend
        self.labels = backend.info.labels
        self.task: Task = TASKS[recipe.task](self.labels, Loss())
        self.chosen, self.show = open_protocol(recipe)
        self.rules = Rules(boxes=self.chosen.boxes)
        self.read = self.task.predict
        if exported is not None and exported.full:
            if averages_logits(self.show):
                raise ValueError(
                    f"protocol '{recipe.protocol}' averages logits, and this file decodes them inside: it was "
                    "exported with --full. Open one that was exported without it, or use --set protocol=whole."
                )
            self.read = read_decoded

    @property
    def sha256(self) -> str:
        return self.backend.info.weights_sha256

    @property
    def proof(self) -> str:
        """The weights; of an exported file, which holds them in a form of its own, also what runs it."""
        info = self.backend.info
        weights = f"weights {self.sha256[:12]} at step {info.step:,}"
        if info.exported is None:
            return weights
        return f"{weights}, exported as {info.exported.precision}, in {self.backend.runtime}"

    @property
    def protocol(self) -> str:
        """How images are shown to the model, in words that go beside every score."""
        return in_words(self.chosen, self.show, self.backend.info.recipe)

    def shown_size(self, image: Pixels) -> Size:
        """The size in which the model sees an image (H, W, 3); images of one such size make a batch."""
        return self.show.shown_size((image.shape[0], image.shape[1]))

    def __call__(self, images: Sequence[Pixels]) -> list[Prediction]:
        """Images (H, W, 3) uint8 RGB of one shown size -> their predictions, in order.

        Raises RunStopped where the device's memory is too small.
        """
        if isinstance(self.show, Windows):
            return [_join(list(self.bands(image))) for image in images]
        with self._enough_memory("data.batch_size lower, or protocol=windows for masks of large images"):
            outputs = self.show(self.backend, self.task, images)
            return [prediction for part in outputs for prediction in self.read(part)]

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """As a Source: of samples of one shown size, as many at once as an exported file takes."""
        exported = self.backend.info.exported
        most = (exported.images[0] if exported else None) or len(samples)
        return [
            prediction
            for first in range(0, len(samples), most)
            for prediction in self([sample.image for sample in samples[first : first + most]])
        ]

    @property
    def by_bands(self) -> bool:
        """Whether memory does not grow with the height of an image that is read by rows."""
        return isinstance(self.show, Windows)

    def bands(self, image: Rows) -> Iterator[Prediction]:
        """Predictions of an image's rows, from the top to the bottom.

        Protocol windows reads and predicts a band at a time; for all others the image is one band.
        """
        if not isinstance(self.show, Windows):
            yield from self([image[: image.shape[0]]])
            return
        bands = self.show.bands(self.backend, image)
        while True:
            with self._enough_memory("the device to one with more memory"):
                logits = next(bands, None)
                if logits is None:
                    return
                (prediction,) = self.task.predict({"mask_logits": logits})
            yield prediction

    @contextmanager
    def _enough_memory(self, advice: str) -> Iterator[None]:
        """Raises RunStopped where the memory is too small for the work, with the advice."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunStopped(
                f"the memory of {self.backend.device} is too small: {str(error).splitlines()[0]}\nSet {advice}."
            ) from error


def _join(bands: Sequence[Prediction]) -> Prediction:
    """Masks of the rows of one image, and their confidence, from the top to the bottom -> those of the image."""
    return Prediction(
        mask=np.concatenate([band.mask for band in bands if band.mask is not None]),
        confidence=np.concatenate([band.confidence for band in bands if band.confidence is not None]),
    )


def batches_by_size(
    samples: Iterable[tuple[int, Sample]], batch_size: int, size_of: Callable[[Pixels], Size]
) -> Iterator[list[tuple[int, Sample]]]:
    """Group (index, sample) that follow each other with images of one size into lists of at most `batch_size`.

    Of large images they are fewer: no more than MOST_PIXELS together, or one.
    """
    batch: list[tuple[int, Sample]] = []
    size, pixels = (0, 0), 0
    for index, sample in samples:
        own, more = size_of(sample.image), sample.image.shape[0] * sample.image.shape[1]
        if batch and (len(batch) == batch_size or own != size or pixels + more > MOST_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append((index, sample))
        size, pixels = own, pixels + more
    if batch:
        yield batch
