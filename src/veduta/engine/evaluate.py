"""Evaluate: one split through the Predictor, counted image by image, into a score that proves itself."""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice

import numpy as np

from veduta.data.sample import Sample, SampleDataset
from veduta.engine.predictor import Predictor, batches_by_size
from veduta.tasks import Task
from veduta.tasks.evaluation import Evaluation, Example, ImageScore
from veduta.tasks.metrics import scores_of
from veduta.tasks.segment import Segment

READERS = 2  # threads that decode images ahead of the network
NUM_EXAMPLES = 4  # best and worst pictures that are kept for the report

Progress = Callable[[int, int], None]  # (images done, images in all)


def read_ahead(dataset: SampleDataset, depth: int) -> Iterator[Sample | tuple[str, str]]:
    """All samples in order, decoded in threads, at most `depth` waiting; (index, why) in place of an unreadable one."""

    def read(index: int) -> Sample | tuple[str, str]:
        try:
            return dataset[index]
        except (ValueError, OSError) as error:
            return f"sample {index}", str(error)

    with ThreadPoolExecutor(READERS) as pool:
        indices = iter(range(len(dataset)))
        waiting: deque[Future[Sample | tuple[str, str]]] = deque(pool.submit(read, i) for i in islice(indices, depth))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(read, i) for i in islice(indices, 1))


class _Examples:
    """The best and the worst pictures so far, a few of each."""

    def __init__(self) -> None:
        self.best: list[tuple[float, int, Example]] = []
        self.worst: list[tuple[float, int, Example]] = []
        self.tie = count()

    def offer(self, example: Example) -> None:
        score = example.score.mean_iou
        if np.isnan(score):
            return
        for heap, key in ((self.best, score), (self.worst, -score)):
            heapq.heappush(heap, (key, next(self.tie), example))
            if len(heap) > NUM_EXAMPLES:
                heapq.heappop(heap)

    @staticmethod
    def ordered(heap: list[tuple[float, int, Example]]) -> tuple[Example, ...]:
        return tuple(example for _, _, example in sorted(heap, key=lambda entry: -entry[0]))


def check_scored(task: Task, name: str) -> None:
    """Raises ValueError where no metric exists for a task yet."""
    if not isinstance(task, Segment):
        raise ValueError(
            f"task '{name}' has no scores yet, so it is neither trained nor evaluated. "
            "`veduta predict` runs it; task 'segment' can be trained and evaluated."
        )


def evaluate(
    predictor: Predictor,
    dataset: SampleDataset,
    *,
    name: str,
    split: str,
    batch_size: int,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score a split. Unreadable samples are counted as failed and named, never skipped in silence.

    Raises ValueError where the data's classes are not the model's.
    """
    task, labels = predictor.task, predictor.labels
    check_scored(task, predictor.backend.info.recipe.task)
    assert isinstance(task, Segment)
    if dataset.labels.names != labels.names:
        raise ValueError(
            f"the model knows {labels.num_classes} classes ({', '.join(labels.names)}), the data "
            f"{dataset.labels.num_classes} ({', '.join(dataset.labels.names)}). They must be the same, in order."
        )
    started = time.perf_counter()
    metric, examples = task.metric(), _Examples()
    per_image: list[ImageScore] = []
    failed: list[tuple[str, str]] = []

    def readable() -> Iterator[Sample]:
        for sample in read_ahead(dataset, depth=2 * batch_size):
            if isinstance(sample, Sample):
                yield sample
            else:
                failed.append(sample)

    for batch in batches_by_size(readable(), batch_size):
        predictions = predictor([sample.image for sample in batch])
        for sample, prediction in zip(batch, predictions, strict=True):
            if sample.mask is None:
                raise ValueError(f"{sample.name} of split '{split}' has no mask to compare with. Choose another split.")
            assert prediction.mask is not None
            scores = scores_of(metric.update(prediction.mask, sample.mask))
            score = ImageScore(name=sample.name, mean_iou=scores.mean_iou, pixel_accuracy=scores.pixel_accuracy)
            per_image.append(score)
            examples.offer(Example(score=score, image=sample.image, truth=sample.mask, prediction=prediction.mask))
        progress(len(per_image) + len(failed), len(dataset))
    progress(len(dataset), len(dataset))  # also where the last samples failed
    seen = metric.void + int(metric.counts.sum())
    return Evaluation(
        dataset=name,
        split=split,
        labels=labels,
        protocol=predictor.protocol,
        weights_sha256=predictor.backend.info.weights_sha256,
        step=predictor.backend.info.step,
        images_total=len(dataset),
        images_counted=len(per_image),
        failed=tuple(failed),
        void_share=metric.void / seen if seen else float("nan"),
        scores=metric.compute(),
        confusion=metric.counts,
        per_image=tuple(per_image),
        seconds=time.perf_counter() - started,
        best=examples.ordered(examples.best),
        worst=examples.ordered(examples.worst),
    )
