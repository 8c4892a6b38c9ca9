"""Sample: what a dataset gives. A dataset turns files into `Sample`s; it does not augment and makes no tensors."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from veduta.data.stored import Stored
from veduta.labels import LabelMap


@dataclass(frozen=True)
class Sample:
    """One image with what is known about it.

    image: (H, W, 3) uint8 RGB. mask: (H, W) uint8 train ids, 255 void. boxes: (N, 4) float32 xyxy pixels.
    box_classes: (N,) int64 train ids. box_difficult: (N,) bool, boxes that training sees and scores leave out.
    scene_class: class of the whole image. name: unique inside its split, no ending.

    For scores alone: box_areas: (N,) float64 square pixels of the objects themselves, where known. crowd_boxes: (K, 4)
    float32 and crowd_classes: (K,) int64, groups of objects that were not told apart. instances: the file of
    Cityscapes' instance ids, not decoded.
    """

    image: NDArray[np.uint8]
    name: str
    mask: NDArray[np.uint8] | None = None
    boxes: NDArray[np.float32] | None = None
    box_classes: NDArray[np.int64] | None = None
    box_difficult: NDArray[np.bool_] | None = None
    scene_class: int | None = None
    box_areas: NDArray[np.float64] | None = None
    crowd_boxes: NDArray[np.float32] | None = None
    crowd_classes: NDArray[np.int64] | None = None
    instances: Stored | None = None


class SampleDataset(Protocol):
    """What every entry of DATASETS gives: samples by index, the one label map, no augmentation, no tensors."""

    labels: LabelMap

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class InMemory:
    """A data set whose samples are decoded once, at their first use, and then kept, read-only.

    Threads may share it: at worst two of them decode the same sample. Worker processes share what was read before they
    started.
    """

    def __init__(self, dataset: SampleDataset) -> None:
        self.dataset, self.labels = dataset, dataset.labels
        self.samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        if index not in self.samples:
            sample = self.dataset[index]
            for array in vars(sample).values():
                if isinstance(array, np.ndarray):
                    array.flags.writeable = False
            self.samples[index] = sample
        return self.samples[index]


class Thinned:
    """Every so many-th sample of a data set, from the first on."""

    def __init__(self, dataset: SampleDataset, every: int) -> None:
        self.dataset, self.every, self.labels = dataset, every, dataset.labels

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.every)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index * self.every]
