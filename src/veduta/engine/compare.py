"""Compare: two sources of predictions on the same images, paired image by image."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from veduta.backends.torch import TorchBackend
from veduta.data.fit import Size
from veduta.data.sample import Sample, SampleDataset
from veduta.engine.evaluate import evaluate, example_of
from veduta.engine.predictor import MOST_PIXELS, Predictor
from veduta.engine.sources import Source
from veduta.errors import Unreadable
from veduta.tasks.bootstrap import ROUNDS, paired_interval
from veduta.tasks.comparison import ClassPair, Comparison, Cost, Pair
from veduta.tasks.evaluation import Evaluation

FEW = 30  # images: the interval over less of them is a rough one
TIMED_IMAGES, TURNS, MOST_SECONDS = 8, 3, 20.0  # of the measurement of speed

Progress = Callable[[str, int, int], None]  # (what, images done, images in all)


def check_comparable(a: Source, b: Source) -> None:
    """Raises ValueError where A and B know other classes, do another task, or are counted by other rules."""
    if a.labels.names != b.labels.names:
        raise ValueError(
            f"A knows {a.labels.num_classes} classes ({', '.join(a.labels.names)}), B {b.labels.num_classes} "
            f"({', '.join(b.labels.names)}). To be compared they must know the same ones, in order."
        )
    if a.task.truth != b.task.truth:
        one, other = (source.task.truth.replace("_", " ") for source in (a, b))
        raise ValueError(f"A is scored with the {one} of an image, B with its {other}. Compare two of one task.")
    if a.rules.boxes != b.rules.boxes:
        raise ValueError(
            f"the boxes of A are counted by the rules {a.rules.boxes}, those of B by {b.rules.boxes}: such scores are "
            "not of one kind. Give both the same protocol, such as --set-b protocol=NAME."
        )


def compare(
    a: Source,
    b: Source,
    dataset: SampleDataset,
    *,
    names: tuple[str, str],
    name: str,
    split: str,
    batch_size: int,
    file_bytes: tuple[int | None, int | None] = (None, None),
    progress: Progress = lambda what, done, total: None,
) -> Comparison:
    """Evaluate both on a split, one after the other, and pair what they say of each image.

    names, file_bytes: of what was opened as A and as B. name: of the data set. Raises ValueError where A and B cannot
    be compared, and as `evaluate` does; Unreadable where images failed for one of them alone.
    """
    check_comparable(a, b)
    one, other = (
        evaluate(source, dataset, name=name, split=split, batch_size=batch_size, progress=partial(progress, what))
        for what, source in (("evaluating A", a), ("evaluating B", b))
    )
    if one.order != other.order:
        raise Unreadable(
            f"{len(one.failed):,} images failed for A, {len(other.failed):,} for B, and not the same ones: the data "
            "changed while it was read. Compare again."
        )
    batch = _first_batch(a, b, dataset, one.order, min(batch_size, TIMED_IMAGES))
    costs = [
        Cost(images_per_second=speed, parameters=_parameters(source), file_bytes=size)
        for speed, source, size in zip(speeds(a, b, batch), (a, b), file_bytes, strict=True)
    ]
    images = zip(one.order, one.per_image, other.per_image, strict=True)
    pairs = (Pair(index=index, a=image_a, b=image_b) for index, image_a, image_b in images)
    progress("drawing images anew", 0, ROUNDS)  # of many boxes it takes a while
    interval = paired_interval(one.metric, other.metric, one.order, other.order)
    progress("drawing images anew", ROUNDS, ROUNDS)
    score = next(iter(one.scores.overall))
    return Comparison(
        names=names,
        a=one,
        b=other,
        score=score,
        difference=other.scores.overall[score] - one.scores.overall[score],
        interval=None if any(map(math.isnan, interval)) else interval,
        pairs=tuple(sorted(pairs, key=lambda pair: pair.change, reverse=True)),
        per_class=tuple(_class_pairs(one, other)),
        cost=(costs[0], costs[1]),
        warnings=tuple(_warnings(one, other)),
    )


def _first_batch(a: Source, b: Source, dataset: SampleDataset, order: Sequence[int], most: int) -> list[Sample]:
    """The first samples that go through both as one batch: of one shown size, and not too large together."""
    batch: list[Sample] = []
    sizes: set[tuple[Size, ...]] = set()
    for index in order[:most]:
        sample = dataset[index]
        sizes.add(tuple(source.shown_size(sample.image) for source in (a, b) if isinstance(source, Predictor)))
        if len(sizes) > 1 or (batch and (len(batch) + 1) * math.prod(sample.image.shape[:2]) > MOST_PIXELS):
            break
        batch.append(sample)
    return batch


def speeds(a: Source, b: Source, batch: Sequence[Sample]) -> list[float | None]:
    """Images per second of each, without decoding; None for files, which predict nothing.

    Both are shown the same samples in turn, and the fastest turn counts: what else the machine does slows down a
    turn, and seldom all turns of one of them.
    """
    seconds, started = [math.inf, math.inf], time.perf_counter()
    for _ in range(TURNS):
        for side, source in enumerate((a, b)):
            if batch and isinstance(source, Predictor):
                before = time.perf_counter()
                source.predict(batch)
                seconds[side] = min(seconds[side], time.perf_counter() - before)
        if time.perf_counter() - started > MOST_SECONDS:
            break
    return [None if math.isinf(one) else len(batch) / one for one in seconds]


def _parameters(source: Source) -> int | None:
    if isinstance(source, Predictor) and isinstance(source.backend, TorchBackend):
        return sum(parameter.numel() for parameter in source.backend.model.parameters())
    return None


def _class_pairs(a: Evaluation, b: Evaluation) -> Iterator[ClassPair]:
    column = next(iter(a.scores.per_class))
    scores = (e.scores.per_class[column].tolist() for e in (a, b))
    for name, one, other in zip(a.labels.names, *scores, strict=True):
        yield ClassPair(name=name, a=one, b=other)


def _warnings(a: Evaluation, b: Evaluation) -> Iterator[str]:
    """What a reader of the result has to know."""
    if (a.sha256, a.proof) == (b.sha256, b.proof):
        yield f"A and B are the same weights or files, {a.proof}: all that can differ is how they are run"
    if a.protocol != b.protocol:
        yield f"A is shown {a.protocol}; B {b.protocol}: the difference is that of models and protocols together"
    if a.failed:
        yield f"{len(a.failed):,} of {a.images_total:,} images failed and are left out"
    if 1 < a.images_counted < FEW:
        yield f"{a.images_counted} images are few: an interval drawn from them is a rough one"


def with_pictures(
    comparison: Comparison,
    a: Source,
    b: Source,
    dataset: SampleDataset,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """The same with the pictures that changed most, which are read and predicted once more, since none were kept."""
    changed, pairs = [], comparison.most_changed
    for done, pair in enumerate(pairs, start=1):
        sample = dataset[pair.index]
        of_a, of_b = (
            example_of(score, sample, *source.predict([sample])) for source, score in ((a, pair.a), (b, pair.b))
        )
        changed.append((of_a, of_b))
        progress(done, len(pairs))
    return replace(comparison, changed=tuple(changed))
