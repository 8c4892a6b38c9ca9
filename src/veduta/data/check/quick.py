"""The short check before training: every mask is read, of an image its header only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from veduta.data.check.cache import Cache, cache_file
from veduta.data.check.faults import UNREADABLE, Fault, group
from veduta.data.check.survey import Survey
from veduta.data.layout import FileDataset
from veduta.data.sample import InMemory, SampleDataset
from veduta.labels import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """What a split holds. pixels: (num_classes,) int64 per class; void: of no class. doubts: what may be wrong."""

    num_samples: int
    pixels: NDArray[np.int64]
    void: int
    doubts: tuple[Fault, ...] = ()


def check_samples(
    dataset: SampleDataset,
    *,
    name: str,
    progress: Callable[[int, int], None],
    unreadable: Literal["stop", "replace"] = "stop",
) -> SplitSummary:
    """Judge every sample of a split.

    Raises ValueError listing the errors with their files and repairs; samples that cannot be read are none with
    unreadable="replace". Samples that are made, not read, are looked at one by one.
    """
    files = dataset.dataset if isinstance(dataset, InMemory) else dataset
    if not isinstance(files, FileDataset):
        return _count_made(dataset, progress)
    survey = Survey()
    with Cache(cache_file()) as cache:
        survey.examine(name, files, cache, decode=False, progress=lambda _, done, total: progress(done, total))
    card = survey.cards[name]
    errors: list[Fault] = []
    doubts: list[Fault] = []
    for fault in group(survey.findings()):
        stops = fault.severity == "error" and not (unreadable == "replace" and fault.id in UNREADABLE)
        (errors if stops else doubts).append(fault)
    if errors:
        told = "\n".join(map(str, errors))
        raise ValueError(f"split '{name}' cannot be used:\n{told}\n`veduta data check` tells it for all splits.")
    doubts = [fault for fault in doubts if fault.severity != "note"]
    return SplitSummary(num_samples=len(card), pixels=card.pixels, void=card.void, doubts=tuple(doubts))


def _count_made(dataset: SampleDataset, progress: Callable[[int, int], None]) -> SplitSummary:
    counts = np.zeros(256, np.int64)
    for index in range(len(dataset)):
        mask = dataset[index].mask
        if mask is not None:
            counts += np.bincount(mask.reshape(-1), minlength=256)
        progress(index + 1, len(dataset))
    pixels = counts[: dataset.labels.num_classes]
    return SplitSummary(num_samples=len(dataset), pixels=pixels, void=int(counts[IGNORE_INDEX]))
