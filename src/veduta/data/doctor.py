"""The check before training: every sample is read once, so that bad data stops a run before its first step."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import SampleDataset
from veduta.labels import IGNORE_INDEX

MOST_SHOWN = 5  # faults that an error spells out; the rest is counted


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """What a split holds. pixels: (num_classes,) int64 per class; void: pixels of no class."""

    num_samples: int
    pixels: NDArray[np.int64]
    void: int


def check_samples(dataset: SampleDataset, *, name: str, progress: Callable[[int, int], None]) -> SplitSummary:
    """Read every image and mask of a split, in threads.

    Raises ValueError listing the faults with their files: unreadable images, values outside of the label map, masks of
    another size, and a split without a single counted pixel.
    """

    def read(index: int) -> NDArray[np.int64] | str:
        try:
            mask = dataset[index].mask
        except (ValueError, OSError) as error:
            return str(error)
        return np.bincount(mask.reshape(-1), minlength=256) if mask is not None else np.zeros(256, np.int64)

    counts, faults = np.zeros(256, np.int64), []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, result in enumerate(pool.map(read, range(len(dataset))), start=1):
            if isinstance(result, str):
                faults.append(result)
            else:
                counts += result
            progress(done, len(dataset))
    if faults:
        more = f"\n  ... and {len(faults) - MOST_SHOWN} more" if len(faults) > MOST_SHOWN else ""
        listed = "\n  ".join(faults[:MOST_SHOWN])
        raise ValueError(f"{len(faults)} of {len(dataset)} samples of {name} cannot be used:\n  {listed}{more}")
    pixels = counts[: dataset.labels.num_classes]
    if not pixels.sum():
        raise ValueError(f"{name} has no pixel of any class in {len(dataset)} samples: everything is void.")
    return SplitSummary(num_samples=len(dataset), pixels=pixels, void=int(counts[IGNORE_INDEX]))
