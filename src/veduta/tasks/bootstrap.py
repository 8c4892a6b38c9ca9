"""Bootstrap: how far a score would move with other images of the same kind.

Efron 1979; the percentile method. Images are drawn with replacement, as many as there are, and the score of the whole
is computed anew; so images, and not pixels or boxes, are what is taken to be independent.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from veduta.tasks.metrics import Metric

PERCENTILES = (2.5, 97.5)  # 95 % lie between them
ROUNDS = 1000


def interval(
    metric: Metric,
    *,
    seed: int = 0,
    rounds: int = ROUNDS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[float, float]:
    """Between which values the first overall score lies in 95 % of the draws; nan twice for less than two images.

    progress: (rounds done, rounds in all), of which each may take a while where boxes are many.
    """
    if metric.images < 2:
        return float("nan"), float("nan")
    values = []
    for number, weights in enumerate(draws(metric.images, seed=seed, rounds=rounds), start=1):
        values.append(metric.resampled(weights))
        progress(number, rounds)
    return _percentiles(values)


def paired_interval(
    a: Metric, b: Metric, order_a: Sequence[int], order_b: Sequence[int], *, seed: int = 0, rounds: int = ROUNDS
) -> tuple[float, float]:
    """Between which values b's score less a's lies in 95 % of the draws, which take the same images for both.

    order_a, order_b: which image of the data set each metric counted first, second, ...; the same images in all.
    """
    assert sorted(order_a) == sorted(order_b) and len(order_a) == a.images and len(order_b) == b.images
    if a.images < 2:
        return float("nan"), float("nan")
    places_a, places_b = (np.argsort(np.argsort(order)) for order in (order_a, order_b))
    drawn = draws(a.images, seed=seed, rounds=rounds)
    return _percentiles([b.resampled(weights[places_b]) - a.resampled(weights[places_a]) for weights in drawn])


def draws(images: int, *, seed: int, rounds: int) -> Iterator[NDArray[np.int64]]:
    """How often each image is drawn, (images,), once per round."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        yield np.bincount(rng.integers(images, size=images), minlength=images)


def _percentiles(values: list[float]) -> tuple[float, float]:
    """Of those that are numbers: a draw may leave out all images that have something to score."""
    defined = [value for value in values if not np.isnan(value)]
    if not defined:
        return float("nan"), float("nan")
    low, high = np.percentile(defined, PERCENTILES).tolist()
    return low, high
