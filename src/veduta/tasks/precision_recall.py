"""Precision over recall, and the average precision that follows from all hits of a data set.

Everingham et al. 2010, sec. 4.2. Which detections hit is found image by image: average_precision for VOC, coco_ap.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# What is kept of an image's detections, and of those of its objects that are asked for. hits, ignored: bits, one for
# each way of counting.
DETECTION = np.dtype(
    [("image", np.int32), ("class", np.uint8), ("score", np.float32), ("hits", np.uint8), ("ignored", np.uint8)]
)
OBJECT = np.dtype([("image", np.int32), ("class", np.uint8), ("ignored", np.uint8)])


class BoxScores(NamedTuple):
    """As in Scores."""

    overall: dict[str, float]
    per_class: dict[str, NDArray[np.float64]]
    details: Mapping[str, float] = MappingProxyType({})


class Curves:
    """Precision over recall of every class in some ways to count, for images that count any number of times.

    All is sorted and looked up once; a sum over images then takes milliseconds, whatever their weights.

    detections, objects: structured, with the fields of DETECTION and OBJECT; of one class and score those that come
    first count first. ways: the bits of `hits` and `ignored`. recalls: as in VocRules. together: detections of one
    class and score count together, since no threshold tells them apart.
    """

    def __init__(
        self,
        detections: NDArray[Any],
        objects: NDArray[Any],
        *,
        num_classes: int,
        ways: Sequence[int] = (0,),
        recalls: NDArray[np.floating] | None,
        together: bool,
    ) -> None:
        self.shape, self.recalls = (len(ways), num_classes), recalls
        bits = np.array(ways, objects["ignored"].dtype)[:, None]
        way, asked = np.nonzero((objects["ignored"] >> bits & 1) == 0)
        self.object_cells = way * num_classes + objects["class"][asked]  # a cell is a class in a way to count
        self.object_images = objects["image"][asked].astype(np.intp)

        order = np.lexsort((-detections["score"], detections["class"]))
        classes, scores = detections["class"][order], detections["score"][order]
        self.images = detections["image"][order].astype(np.intp)
        count = len(order)
        ends = np.arange(count)
        if together:
            last = np.append((np.diff(classes) != 0) | (np.diff(scores) != 0), True)[:count]
            ends = np.flatnonzero(last)[np.cumsum(last) - last]
        starts = np.searchsorted(classes, classes)  # where a detection's class begins

        def places(flags: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            some = np.flatnonzero(flags)
            way, place = np.nonzero(flags[some] >> bits & 1)
            return way * count, some[place]

        hit_way, hits = places(detections["hits"][order])
        ignored_way, ignored = places(detections["ignored"][order])
        self.hit_images, self.ignored_images = self.images[hits], self.images[ignored]
        # A point of a curve is the end of a score that has a hit; sums up to there are differences of running sums.
        new = np.append((np.diff(hit_way + ends[hits]) != 0), True)[: len(hits)]
        hit_way, hits, self.hit_stops = hit_way[new], hits[new], np.flatnonzero(new) + 1
        self.stops, self.starts = ends[hits] + 1, starts[hits]
        self.ignored_stops = np.searchsorted(ignored_way + ignored, hit_way + ends[hits], side="right")
        self.ignored_starts = np.searchsorted(ignored_way + ignored, hit_way + starts[hits])
        self.cells = (hit_way // max(count, 1)) * num_classes + classes[hits]
        self.firsts = np.flatnonzero(np.diff(self.cells, prepend=-1))  # of each curve
        lengths = np.diff(self.firsts, append=len(self.cells))
        self.hit_starts = np.repeat(np.append(0, self.hit_stops)[self.firsts], lengths)

    def average_precisions(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """(ways, num_classes), 0..1; nan without objects, 0 where none was found. weights: (images,)."""
        counts = weights.astype(np.float64)  # whole numbers: their sums are exact

        def running(images: NDArray[np.intp]) -> NDArray[np.float64]:
            sums = np.zeros(len(images) + 1)
            np.cumsum(counts[images], out=sums[1:])
            return sums

        objects = np.bincount(self.object_cells, counts[self.object_images], self.shape[0] * self.shape[1])
        result = np.where(objects > 0, 0.0, np.nan)
        if not len(self.firsts):
            return result.reshape(self.shape)
        found, ranked, ignored = running(self.hit_images), running(self.images), running(self.ignored_images)
        hits = found[self.hit_stops] - found[self.hit_starts]
        counted = ranked[self.stops] - ranked[self.starts]
        counted -= ignored[self.ignored_stops] - ignored[self.ignored_starts]
        precision, recall = hits / np.maximum(counted, 1), hits / np.maximum(objects, 1)[self.cells]
        for first, stop in pairwise([*self.firsts.tolist(), len(hits)]):
            falling = precision[first:stop][::-1]
            np.maximum.accumulate(falling, out=falling)  # the best precision at this recall or a higher one
        # How much of the curve is reached: recall, or the part of the recalls that are read off.
        reached = recall
        if self.recalls is not None:
            reached = np.searchsorted(self.recalls, recall, side="right") / len(self.recalls)
        steps = np.diff(reached, prepend=0)
        steps[self.firsts] = reached[self.firsts]
        cells = self.cells[self.firsts]
        result[cells] = np.where(objects[cells] > 0, np.add.reduceat(steps * precision, self.firsts), np.nan)
        return result.reshape(self.shape)
