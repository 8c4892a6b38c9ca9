"""Counting: one process's share of a split, read ahead, predicted and counted image by image, in order."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from veduta.data.sample import Sample, SampleDataset
from veduta.engine.pipeline import in_threads
from veduta.engine.predictor import MOST_PIXELS, batches_by_size
from veduta.engine.sources import Source
from veduta.errors import Unreadable
from veduta.tasks.evaluation import ImageScore
from veduta.tasks.metrics import Metric
from veduta.tasks.prediction import Prediction

READERS = min(8, max(2, (os.cpu_count() or 1) // 2))  # threads that decode images ahead of the network

Progress = Callable[[int, int], None]  # (images done, images in all)
Read = tuple[int, Sample] | tuple[int, str]  # index, and the sample or why it cannot be read


@dataclass
class Share:
    """What one process has counted of a split: whole images, in the order of the data set.

    position: index of the first sample that is left. order: indices of the images counted. failed: (index, why).
    """

    metric: Metric
    position: int
    images: list[ImageScore] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)
    without_truth: str | None = None  # the image that ended it
    seconds: float = 0.0

    def add(self, index: int, sample: Sample, prediction: Prediction) -> None:
        self.position = index + 1
        try:
            scores = self.metric.update(prediction, sample)
        except Unreadable as error:  # a file that only a score opens, such as the instances of Cityscapes
            self.failed.append((index, str(error)))
            return
        self.images.append(ImageScore(name=sample.name, scores=scores))
        self.order.append(index)

    def merge(self, other: "Share") -> None:
        """Add the share that comes after this one."""
        self.metric.merge(other.metric)
        self.images += other.images
        self.order += other.order
        self.failed += other.failed
        self.without_truth = self.without_truth or other.without_truth
        self.seconds = max(self.seconds, other.seconds)


def read_ahead(dataset: SampleDataset, indices: Iterable[int], most: int) -> Iterator[Read]:
    """(index, sample) in order, decoded in threads; (index, why) for an unreadable one.

    At most `most` are waiting, and of large images fewer: MOST_PIXELS together, or one.
    """
    depth = 1

    def read(index: int) -> Read:
        try:
            return index, dataset[index]
        except (ValueError, OSError) as error:
            return index, str(error)

    def beside(found: Read) -> int:
        nonlocal depth
        if isinstance(found[1], Sample):  # the next ones will be about as large
            depth = max(1, min(most, MOST_PIXELS // math.prod(found[1].image.shape[:2])))
        return depth

    return in_threads((partial(read, index) for index in indices), READERS, beside)


def count_share(
    source: Source,
    dataset: SampleDataset,
    indices: range,
    share: Share,
    *,
    batch_size: int,
    progress: Progress,
    keep: Callable[[], None] = lambda: None,
) -> None:
    """Count what is left of `indices` into `share`; ends at the first sample without what the task is scored with.

    While a batch is counted, the network sees the next one. keep: called between batches, when the share is whole up
    to its position. `progress` may raise, which leaves the share so, too.
    """
    started, before = time.perf_counter(), share.seconds

    def readable() -> Iterator[tuple[int, Sample]]:
        for index, read in read_ahead(dataset, range(share.position, indices.stop), max(2 * batch_size, READERS)):
            if isinstance(read, Sample):
                yield index, read
            else:
                share.failed.append((index, read))

    def count(batch: list[tuple[int, Sample]], predictions: list[Prediction]) -> None:
        for (index, sample), prediction in zip(batch, predictions, strict=True):
            share.add(index, sample, prediction)
        share.seconds = before + time.perf_counter() - started

    def wait_for(counting: Future[None]) -> None:
        counting.result()
        keep()
        progress(share.position - indices.start, len(indices))

    with ThreadPoolExecutor(1) as counter:
        counting: Future[None] | None = None
        for batch in batches_by_size(readable(), batch_size, source.shown_size):
            missing = [sample.name for _, sample in batch if getattr(sample, source.task.truth) is None]
            if missing:
                share.without_truth = missing[0]
                break
            predictions = source.predict([sample for _, sample in batch])
            if counting is not None:
                wait_for(counting)
            counting = counter.submit(count, batch, predictions)
        if counting is not None:
            wait_for(counting)
    if share.without_truth is None:
        share.position = indices.stop
    share.seconds = before + time.perf_counter() - started
    progress(len(indices), len(indices))  # also where the last samples failed


def goodness(image: ImageScore) -> tuple[float, ...]:
    """Better images have the larger one: by their first score, where these are equal by the next one, and so on."""
    return tuple(-1.0 if math.isnan(value) else value for value in image.scores.values())
