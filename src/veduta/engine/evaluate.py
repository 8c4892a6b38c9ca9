"""Evaluate: one split through the Predictor, counted image by image, into a score that proves itself."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from veduta.data.loader import share_of_rank
from veduta.data.sample import Sample, SampleDataset
from veduta.engine.predictor import batches_by_size
from veduta.engine.sources import Source
from veduta.ranks import gathered, rank, world_size
from veduta.tasks.evaluation import Evaluation, Example, ImageScore
from veduta.tasks.metrics import Metric
from veduta.tasks.prediction import Prediction

READERS = 2  # threads that decode images ahead of the network
NUM_EXAMPLES = 4  # best and worst pictures that are kept for the report

Progress = Callable[[int, int], None]  # (images done, images in all)


def read_ahead(
    dataset: SampleDataset, indices: Iterable[int], depth: int
) -> Iterator[tuple[int, Sample] | tuple[int, str]]:
    """(index, sample) in order, decoded in threads, at most `depth` waiting; (index, why) for an unreadable one."""

    def read(index: int) -> tuple[int, Sample] | tuple[int, str]:
        try:
            return index, dataset[index]
        except (ValueError, OSError) as error:
            return index, str(error)

    with ThreadPoolExecutor(READERS) as pool:
        left = iter(indices)
        waiting: deque[Future[tuple[int, Sample] | tuple[int, str]]] = deque()
        waiting.extend(pool.submit(read, index) for index in islice(left, depth))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(read, index) for index in islice(left, 1))


@dataclass(frozen=True)
class Scored:
    """An image of the split, and its own scores."""

    index: int
    score: ImageScore

    @property
    def order(self) -> tuple[float, ...]:
        """Better images have the larger one: by their first score, where these are equal by the next one, and so on."""
        return tuple(-1.0 if math.isnan(value) else value for value in self.score.scores.values())


def best_of(images: Iterable[Scored]) -> list[Scored]:
    return sorted(images, key=lambda image: (image.order, -image.index), reverse=True)[:NUM_EXAMPLES]


def worst_of(images: Iterable[Scored]) -> list[Scored]:
    return sorted(images, key=lambda image: (image.order, image.index))[:NUM_EXAMPLES]


@dataclass
class Share:
    """What one process has counted of a split. predictions: by index, of `best` and `worst` alone."""

    metric: Metric
    images: list[Scored] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)
    best: list[Scored] = field(default_factory=list)
    worst: list[Scored] = field(default_factory=list)
    predictions: dict[int, Prediction] = field(default_factory=dict)
    without_truth: str | None = None  # the image that ended it
    seconds: float = 0.0

    def add(self, index: int, sample: Sample, prediction: Prediction) -> None:
        image = Scored(index, ImageScore(name=sample.name, scores=self.metric.update(prediction, sample)))
        self.images.append(image)
        if not math.isnan(next(iter(image.score.scores.values()))):  # else it is neither good nor bad
            self.predictions[index] = prediction
            self._keep([*self.best, image], [*self.worst, image])

    def merge(self, other: "Share") -> None:
        self.metric.merge(other.metric)
        self.images = sorted(self.images + other.images, key=lambda image: image.index)
        self.failed = sorted(self.failed + other.failed)
        self.predictions |= other.predictions
        self._keep(self.best + other.best, self.worst + other.worst)
        self.without_truth = self.without_truth or other.without_truth
        self.seconds = max(self.seconds, other.seconds)

    def _keep(self, best: list[Scored], worst: list[Scored]) -> None:
        self.best, self.worst = best_of(best), worst_of(worst)
        self.predictions = {image.index: self.predictions[image.index] for image in (*self.best, *self.worst)}


def score_share(
    source: Source, dataset: SampleDataset, indices: range, *, batch_size: int, progress: Progress
) -> Share:
    """Score some samples of a split; ends at the first one without what the task is scored with."""
    started, share = time.perf_counter(), Share(source.task.metric())

    def readable() -> Iterator[tuple[int, Sample]]:
        for index, read in read_ahead(dataset, indices, depth=2 * batch_size):
            if isinstance(read, Sample):
                yield index, read
            else:
                share.failed.append((index, read))

    for batch in batches_by_size(readable(), batch_size, source.shown_size):
        missing = [sample.name for _, sample in batch if getattr(sample, source.task.truth) is None]
        if missing:
            share.without_truth = missing[0]
            break
        predictions = source.predict([sample for _, sample in batch])
        for (index, sample), prediction in zip(batch, predictions, strict=True):
            share.add(index, sample, prediction)
        progress(len(share.images) + len(share.failed), len(indices))
    progress(len(indices), len(indices))  # also where the last samples failed
    share.seconds = time.perf_counter() - started
    return share


def evaluate(
    source: Source,
    dataset: SampleDataset,
    *,
    name: str,
    split: str,
    batch_size: int,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score a split, each process its share of it; all of them return the same.

    Unreadable samples are counted as failed and named, never skipped in silence. Raises ValueError where the data's
    classes are not the model's, or where a sample has nothing to compare with.
    """
    labels = source.labels
    if dataset.labels.names != labels.names:
        raise ValueError(
            f"the model knows {labels.num_classes} classes ({', '.join(labels.names)}), the data "
            f"{dataset.labels.num_classes} ({', '.join(dataset.labels.names)}). They must be the same, in order."
        )
    indices = share_of_rank(len(dataset), rank(), world_size())
    whole, *others = gathered(score_share(source, dataset, indices, batch_size=batch_size, progress=progress))
    for share in others:
        whole.merge(share)
    if whole.without_truth is not None:
        what = source.task.truth.replace("_", " ")
        raise ValueError(
            f"{whole.without_truth} of split '{split}' has no {what} to compare with. Choose another split."
        )

    def examples(images: list[Scored]) -> tuple[Example, ...]:
        return tuple(
            Example(score=image.score, sample=dataset[image.index], prediction=whole.predictions[image.index])
            for image in images
        )

    return Evaluation(
        dataset=name,
        split=split,
        labels=labels,
        protocol=source.protocol,
        proof=source.proof,
        sha256=source.sha256,
        images_total=len(dataset),
        images_counted=len(whole.images),
        failed=tuple((f"sample {index}", why) for index, why in whole.failed),
        scores=whole.metric.compute(),
        per_image=tuple(image.score for image in whole.images),
        seconds=whole.seconds,
        best=examples(whole.best),
        worst=examples(whole.worst),
    )
