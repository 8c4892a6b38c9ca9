"""Metrics as streams: update with an image, merge over processes, compute once. Counts are int64 and exact."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.tasks.prediction import Prediction

BoxRules = Literal["voc12", "voc07", "voc12-kit", "voc07-kit", "coco"]
State = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """By which rules a task's metric counts.

    boxes: what average precision means, see `average_precision.VOC_RULES` and `coco_ap`. full: also the scores that
    take their time or need more than the first ones do: boundary IoU, calibration, Cityscapes' categories.
    """

    boxes: BoxRules = "voc12"
    full: bool = False


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a metric says in the end. Scores and shares are 0..1, nan where undefined.

    overall: by name, the one that chooses the best checkpoint first. per_class: columns (num_classes,) by name, float64
    shares or int64 counts, the one that ranks the classes first. present: (num_classes,), which classes occur in the
    truth. confusion: (num_classes, num_classes + 1) int64 of [truth, prediction]; the last column is "no class".
    confusion_of: what it counts. facts: what else was counted, by name: objects, difficult, crowds, void_share.
    details: further scores by name, too many for a headline.
    """

    overall: Mapping[str, float]
    per_class: Mapping[str, NDArray[Any]]
    present: NDArray[np.bool_]
    confusion: NDArray[np.int64]
    confusion_of: Literal["pixels", "images"]
    facts: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)


class Metric(Protocol):
    """What `task.metric(rules)` gives. It keeps some numbers of every image, in the order of updates and merges."""

    @property
    def images(self) -> int:
        """How many were counted so far."""
        ...

    def update(self, prediction: Prediction, sample: Sample, /) -> dict[str, float]:
        """Count one image; returns its own scores by name, the ones that rank images first."""
        ...

    def merge(self, other: Any, /) -> None:
        """Add what a metric of the same kind has counted in another process or shard; its images come after mine."""
        ...

    def compute(self) -> Scores: ...

    def state(self) -> State:
        """All that was counted, under flat names, as arrays that an .npz holds without pickle; they are no copies."""
        ...

    def restore(self, state: State, /) -> None:
        """Go on from what `state` gave; only a metric that has not counted yet, of the same classes and rules."""
        ...

    def resampled(self, weights: NDArray[np.int64], /) -> float:
        """The first overall score, were image i counted weights[i] times: (images,) -> 0..1, or nan."""
        ...


def mean_defined(values: NDArray[np.float64]) -> float:
    """The mean of those that are numbers; nan where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


class Rows:
    """An array that grows at its end: blocks (n, ...) of one type, joined when somebody looks at them."""

    def __init__(self, empty: NDArray[Any]) -> None:
        self.blocks, self.length = [empty], 0

    def __len__(self) -> int:
        return self.length

    def add(self, block: NDArray[Any]) -> None:
        self.blocks.append(block)
        self.length += len(block)

    def joined(self) -> NDArray[Any]:
        """All rows. The same object until something is added."""
        if len(self.blocks) > 1:
            self.blocks = [np.concatenate(self.blocks)]
        return self.blocks[0]
