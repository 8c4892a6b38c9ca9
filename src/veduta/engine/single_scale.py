"""Showing images once, whole or as the squares that classifiers see; and, if so wanted, their mirror images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from veduta.backends import Backend
from veduta.data.fit import Fit, Padded, Pixels, Size, stack
from veduta.ops.arrays import Array
from veduta.tasks import Task
from veduta.tasks.detect_segment import DetectSegment


@dataclass(frozen=True)
class Whole:
    """Images at their own size. mirrored: probabilities are averaged with those of the mirror image."""

    mirrored: bool = False

    def shown_size(self, size: Size) -> Size:
        return size

    def __call__(self, backend: Backend, task: Task, images: Sequence[Pixels]) -> Iterator[dict[str, Array]]:
        batch = stack(images)
        outputs = backend(batch)
        if self.mirrored:
            assert not isinstance(task, DetectSegment)  # it is not among the protocol's tasks
            outputs = task.average_mirrored(outputs, backend(batch[..., ::-1]))
        yield outputs


@dataclass(frozen=True)
class Square:
    """A square of every image, of side `side`."""

    fit: Fit
    side: int

    def shown_size(self, size: Size) -> Size:
        return self.side, self.side

    def __call__(self, backend: Backend, task: Task, images: Sequence[Pixels]) -> Iterator[dict[str, Array]]:
        yield backend(stack([self.fit(image) for image in images]))


@dataclass(frozen=True)
class DeepLab:
    """DeepLab's own single scale: images are padded, and what the padding is called is cut off."""

    fit: Padded

    def shown_size(self, size: Size) -> Size:
        return self.fit.fitted(size)

    def __call__(self, backend: Backend, task: Task, images: Sequence[Pixels]) -> Iterator[dict[str, Array]]:
        outputs = backend(stack([self.fit(image) for image in images]))
        name = "mask" if "mask" in outputs else "mask_logits"  # decoded inside the file or not
        for i, image in enumerate(images):
            yield {name: self.fit.restore(outputs[name][i : i + 1], (image.shape[0], image.shape[1]))}
