"""Cityscapes' further scores: IoU of categories, and IoU in which every instance weighs the same (iIoU).

Cordts et al. 2016, https://arxiv.org/abs/1604.01685, sec. 4.1, by the code of cityscapesScripts.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.data.images import read_header
from veduta.data.label_maps import CITYSCAPES
from veduta.data.sample import Sample
from veduta.data.stored import Stored
from veduta.errors import Unreadable
from veduta.labels import IGNORE_INDEX
from veduta.tasks.metrics import Rows, State
from veduta.tasks.prediction import Prediction

CATEGORIES = {  # of the classes that are scored
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
AVERAGE_SIZES = {  # of an instance, in pixels: that of larger ones counts less, that of smaller ones more
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}

NAMES = CITYSCAPES.names
FIRST_INSTANCE = 1000  # instance ids are label id * 1000 + number; smaller ones are of what was not told apart

Grid = NDArray[np.uint16]


def _members(names: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.isin(NAMES, names)


# Things are the classes with instances; their categories have no other classes.
THINGS = tuple(NAMES.index(name) for name in AVERAGE_SIZES)
MEMBERS = np.array([_members(names) for names in CATEGORIES.values()])  # (categories, classes)
OF_THINGS = tuple(i for i, members in enumerate(MEMBERS) if members[list(THINGS)].any())

TRAIN_ID = np.full(2**16, IGNORE_INDEX, np.uint8)  # of an instance id
for _train_id in THINGS:
    _first = CITYSCAPES.classes[_train_id].file_id * FIRST_INSTANCE
    TRAIN_ID[_first : _first + FIRST_INSTANCE] = _train_id
CATEGORY = np.full(256, IGNORE_INDEX, np.uint8)  # of a train id
CATEGORY[: len(NAMES)] = MEMBERS.argmax(axis=0)


def category_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of CATEGORIES by the (19, 20) counts of a confusion matrix; confused within its category a pixel is right."""
    hit, missed, wrong = _of_categories(counts)
    return _ratio(hit, hit + missed + wrong)


def _of_categories(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Pixels that are hits, misses and false, of each category."""
    truth = MEMBERS.astype(np.int64) @ counts  # (categories, 20)
    hit = (truth[:, :-1] * MEMBERS).sum(axis=1)
    predicted = MEMBERS @ counts[:, :-1].sum(axis=0)
    return hit.astype(np.float64), (truth.sum(axis=1) - hit).astype(np.float64), (predicted - hit).astype(np.float64)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def read_instances(stored: Stored, size: tuple[int, int]) -> Grid:
    """gtFine_instanceIds.png -> (H, W) uint16. Raises ValueError naming a file that is none of this size."""
    header = read_header(stored)
    if header.format != "PNG" or (header.height, header.width) != size:
        raise ValueError(
            f"{stored}: {header.format}, {header.width} x {header.height}; expected the instance ids of its mask, a "
            f"PNG of {size[1]} x {size[0]} (width x height). Unpack gtFine_trainvaltest.zip again."
        )
    pixels = cv2.imdecode(np.frombuffer(stored.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 2:
        raise ValueError(f"{stored}: not readable as instance ids, one channel of 16 bits. Unpack its zip again.")
    return pixels.astype(np.uint16)


class InstanceCounts:
    """Per image the weighted hits and misses of things and of their categories.

    A pixel of an instance weighs the average size of its class over the instance's own. False pixels belong to no
    instance and weigh 1. Where instances were not told apart, no pixel is a hit or a miss.
    """

    def __init__(self) -> None:
        self.rows = Rows(np.zeros((0, 2, len(THINGS) + len(OF_THINGS)), np.float64))  # hits and misses
        self.without = 0  # images whose instances are not known

    @property
    def of_all_images(self) -> bool:
        return not self.without and len(self.rows) > 0

    def update(self, prediction: Prediction, sample: Sample) -> None:
        assert prediction.mask is not None and sample.mask is not None
        if sample.instances is None:
            self.without += 1
            return
        try:
            instances = read_instances(sample.instances, sample.mask.shape)
        except (ValueError, OSError) as error:
            raise Unreadable(str(error)) from error
        self.rows.add(weighted_counts(prediction.mask, instances)[None])

    def merge(self, other: "InstanceCounts") -> None:
        self.rows.add(other.rows.joined())
        self.without += other.without

    def class_iou(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """iIoU of the 19 classes, nan for those that are no things. counts: (19, 20), of the confusion matrix."""
        hit, missed = self._sums()[:, : len(THINGS)]
        wrong = (counts[:, :-1].sum(axis=0) - np.diagonal(counts))[list(THINGS)]
        result = np.full(len(NAMES), np.nan)
        result[list(THINGS)] = _ratio(hit, hit + missed + wrong)
        return result

    def category_iou(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """iIoU of CATEGORIES, nan for those without things."""
        hit, missed = self._sums()[:, len(THINGS) :]
        wrong = _of_categories(counts)[2][list(OF_THINGS)]
        result = np.full(len(CATEGORIES), np.nan)
        result[list(OF_THINGS)] = _ratio(hit, hit + missed + wrong)
        return result

    def _sums(self) -> NDArray[np.float64]:
        """(2, things + categories), exact before they are rounded: so the same in whatever order images came."""
        rows = self.rows.joined()
        return np.array([[math.fsum(values) for values in part.T.tolist()] for part in rows.transpose(1, 0, 2)])

    def state(self) -> State:
        return {"instances": self.rows.joined(), "without_instances": np.array(self.without)}

    def restore(self, state: State) -> None:
        self.rows.add(state["instances"])
        self.without = int(state["without_instances"])


def weighted_counts(guess: NDArray[np.uint8], instances: Grid) -> NDArray[np.float64]:
    """Hits and misses of one image: train ids (H, W) and instance ids (H, W) -> (2, things + categories)."""
    inside = TRAIN_ID[instances] != IGNORE_INDEX
    ids, guessed = instances[inside], guess[inside]
    truth = TRAIN_ID[ids]
    present, sizes = np.unique(ids, return_counts=True)
    right = np.bincount(ids[guessed == truth], minlength=2**16)[present]
    right_category = np.bincount(ids[CATEGORY[guessed] == CATEGORY[truth]], minlength=2**16)[present]
    train_ids = TRAIN_ID[present]
    weights = np.array([AVERAGE_SIZES[NAMES[i]] for i in train_ids.tolist()]) / sizes
    result = np.zeros((2, len(THINGS) + len(OF_THINGS)))
    groups = (*(train_ids == i for i in THINGS), *(CATEGORY[train_ids] == i for i in OF_THINGS))
    for column, group in enumerate(groups):
        hits = (right if column < len(THINGS) else right_category)[group]
        result[:, column] = (hits * weights[group]).sum(), ((sizes[group] - hits) * weights[group]).sum()
    return result
