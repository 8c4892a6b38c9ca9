"""Average precision of boxes as COCO counts it: twelve numbers, and one per class.

Lin et al. 2014, https://arxiv.org/abs/1405.0312; the rules are those of pycocotools. Ten overlaps from 0.5 to 0.95,
four ranges of area; of each image the MOST best detections of a class. An object outside of the range, a difficult one
and a crowd are ignored, and so is a detection that matches one, or that matches nothing and is outside of the range.
"""

from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.tasks.metrics import mean_defined
from veduta.tasks.precision_recall import BoxScores, Curves
from veduta.tasks.prediction import Prediction

MOST = 100  # detections of a class in an image
OVERLAPS = np.linspace(0.5, 0.95, 10)  # from which on a detection matches
RECALLS = np.linspace(0, 1, 101)  # at which precision is read off
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}

# The way of counting that is overlap i with area range j is bit i * len(AREAS) + j.
WAYS = len(OVERLAPS) * len(AREAS)
ALL_WAYS = 2**WAYS - 1
ALL_OVERLAPS = sum(1 << i * len(AREAS) for i in range(len(OVERLAPS)))  # times the bits of area ranges

# As in precision_recall; place: among the detections of its class in its image, the best is 0.
DETECTION = np.dtype(
    [
        *(("image", np.int32), ("class", np.uint8), ("score", np.float32)),
        *(("place", np.uint8), ("hits", np.uint64), ("ignored", np.uint64)),
    ]
)
OBJECT = np.dtype([("image", np.int32), ("class", np.uint8), ("ignored", np.uint64)])

Boxes = NDArray[np.float64]


def outside(areas: NDArray[np.float64]) -> NDArray[np.uint64]:
    """The ways of counting in which objects of such areas (n,) do not count: (n,) bits."""
    bits = [(areas < low) | (areas > high) for low, high in AREAS.values()]
    return np.uint64(ALL_OVERLAPS) * sum(
        (flags.astype(np.uint64) << np.uint64(i) for i, flags in enumerate(bits)), start=np.zeros(len(areas), np.uint64)
    )


def area_of(boxes: Boxes) -> NDArray[np.float64]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


class Coco:
    """Counting by COCO's rules, in all WAYS at once."""

    first = "ap"
    detection_type, object_type = DETECTION, OBJECT

    def match(self, prediction: Prediction, sample: Sample) -> tuple[NDArray[Any], NDArray[Any]]:
        """One image's DETECTIONs, the MOST best of each class, and OBJECTs."""
        assert prediction.boxes is not None and prediction.box_classes is not None
        assert prediction.box_scores is not None
        order = np.lexsort((-prediction.box_scores, prediction.box_classes))
        classes = prediction.box_classes[order]
        places = np.arange(len(order)) - np.searchsorted(classes, classes)
        best = places < MOST
        order, detections = order[best], np.zeros(int(best.sum()), DETECTION)
        detections["class"], detections["score"] = classes[best], prediction.box_scores[order]
        detections["place"] = places[best]
        boxes = prediction.boxes[order].astype(np.float64)
        truth = _truth_of(sample)
        hits, ignored = _match(boxes, detections["class"], truth)
        left = ~(hits | ignored)
        detections["hits"], detections["ignored"] = hits, ignored | (outside(area_of(boxes)) & left)
        asked = truth.ignored != ALL_WAYS
        objects = np.zeros(int(asked.sum()), OBJECT)
        objects["class"], objects["ignored"] = truth.classes[asked], truth.ignored[asked]
        return detections, objects

    def curves(self, detections: NDArray[Any], objects: NDArray[Any], num_classes: int) -> Curves:
        """Those whose mean average precision is the first score."""
        return self._curves(detections, objects, num_classes, "all")

    def _curves(self, detections: NDArray[Any], objects: NDArray[Any], num_classes: int, area: str) -> Curves:
        return Curves(detections, objects, num_classes=num_classes, ways=_ways(area), recalls=RECALLS, together=False)

    def scores(self, detections: NDArray[Any], objects: NDArray[Any], num_classes: int, images: int) -> BoxScores:
        """The twelve numbers of COCO: AP and AP50 for the headline, the others as details."""
        once = np.ones(images, np.int64)
        precisions = {
            area: self._curves(detections, objects, num_classes, area).average_precisions(once) for area in AREAS
        }
        of_all = precisions["all"]
        details = {"ap75": mean_defined(of_all[5])}
        details |= {f"ap_{area}": mean_defined(precisions[area]) for area in AREAS if area != "all"}
        details |= {f"ar{most}": _recall(detections, objects, num_classes, "all", most) for most in (1, 10, MOST)}
        details |= {
            f"ar_{area}": _recall(detections, objects, num_classes, area, MOST) for area in AREAS if area != "all"
        }
        return BoxScores(
            overall={"ap": mean_defined(of_all), "ap50": mean_defined(of_all[0])},
            per_class={"ap": of_all.mean(axis=0), "ap50": of_all[0]},
            details=details,
        )


def _ways(area: str) -> range:
    return range(list(AREAS).index(area), WAYS, len(AREAS))


def _recall(detections: NDArray[Any], objects: NDArray[Any], num_classes: int, area: str, most: int) -> float:
    """Part of the objects that the `most` best detections of each image and class find, mean over classes, overlaps."""
    ways = np.array(_ways(area), np.uint64)
    asked = np.bincount(objects["class"][objects["ignored"] >> ways[0] & np.uint64(1) == 0], minlength=num_classes)
    some = detections[(detections["hits"] > 0) & (detections["place"] < most)]
    way, hit = np.nonzero(some["hits"] >> ways[:, None] & np.uint64(1))
    found = np.bincount(way * num_classes + some["class"][hit], minlength=len(ways) * num_classes)
    return mean_defined((found.reshape(len(ways), num_classes)[:, asked > 0] / asked[asked > 0]).ravel())


class Truth(NamedTuple):
    """An image's objects: boxes (m, 4), classes (m,), which are crowds (m,), and in which ways they do not count."""

    boxes: Boxes
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.uint64]


def _truth_of(sample: Sample) -> Truth:
    assert sample.boxes is not None and sample.box_classes is not None
    boxes = sample.boxes.astype(np.float64)
    ignored = outside(area_of(boxes) if sample.box_areas is None else sample.box_areas)
    if sample.box_difficult is not None:
        ignored[sample.box_difficult] = ALL_WAYS
    truth = Truth(boxes, sample.box_classes, np.zeros(len(boxes), bool), ignored)
    if sample.crowd_boxes is None or sample.crowd_classes is None:
        return truth
    count = len(sample.crowd_boxes)
    crowds = Truth(
        sample.crowd_boxes.astype(np.float64),
        sample.crowd_classes,
        np.ones(count, bool),
        np.full(count, ALL_WAYS, np.uint64),
    )
    return Truth(*(np.concatenate(columns) for columns in zip(truth, crowds, strict=True)))


def _match(boxes: Boxes, classes: NDArray[np.uint8], truth: Truth) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """In which ways each detection (n, 4), best first within its class, hits an object or is ignored with one: bits.

    A detection takes the object of its class that it overlaps most, of equals the last, among those that are free and
    count; else, likewise, among the ignored ones, of which a crowd is never taken.
    """
    hits, ignored, free = [0] * len(boxes), [0] * len(boxes), [ALL_WAYS] * len(boxes)
    taken, crowd, excluded = [0] * len(truth.boxes), truth.crowd.tolist(), truth.ignored.tolist()
    detection, thing = np.nonzero(classes[:, None] == truth.classes)
    overlap = _overlaps(boxes[detection], truth.boxes[thing], truth.crowd[thing])
    near = overlap >= OVERLAPS[0]
    detection, thing, overlap = detection[near], thing[near], overlap[near]
    order = np.lexsort((-thing, -overlap, detection))
    # Overlap i reaches the ways of the overlaps up to i, which are the lower bits.
    reached = np.searchsorted(OVERLAPS, overlap, side="right") * len(AREAS)
    pairs = list(zip(*(column[order].tolist() for column in (detection, thing, reached)), strict=True))
    for _, group in groupby(pairs, itemgetter(0)):
        same = list(group)
        for found, counts in ((hits, True), (ignored, False)):
            for d, t, reach in same:
                ways = free[d] & (1 << reach) - 1 & ~taken[t] & (~excluded[t] if counts else excluded[t])
                free[d] &= ~ways
                found[d] |= ways
                if not crowd[t]:
                    taken[t] |= ways
    return np.array(hits, np.uint64), np.array(ignored, np.uint64)


def _overlaps(boxes: Boxes, objects: Boxes, crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU of pairs of boxes, (p, 4) twice; with a crowd the part of the box that lies in it: (p,)."""
    sides = np.minimum(boxes[:, 2:], objects[:, 2:]) - np.maximum(boxes[:, :2], objects[:, :2])
    intersection = sides.clip(min=0).prod(axis=1)
    whole = np.where(crowd, area_of(boxes), area_of(boxes) + area_of(objects) - intersection)
    return np.divide(intersection, whole, out=np.zeros(len(boxes)), where=whole > 0)
