"""Average precision of boxes by PASCAL VOC's rules.

Everingham et al. 2010, sec. 4.2; Dvornik et al. 2017, https://arxiv.org/abs/1708.02813, by its code. Boxes here are
edges: an object whose annotation says pixels 1 to 10 has the edges 0 and 10 and is 10 wide.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.tasks.metrics import BoxRules, mean_defined
from veduta.tasks.precision_recall import DETECTION, OBJECT, BoxScores, Curves
from veduta.tasks.prediction import Prediction

HIT_IOU = 0.5  # a detection has to overlap its object by more

Boxes = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class VocRules:
    """A way of VOC to count.

    recalls: where precision is read off and averaged; None: the area under it. kit: as VOC's development kit, which
    numbers pixels, from the first of a box to the last, and adds 1 to the difference: of boxes that were read as edges
    the sides come out the same. For it an overlap of exactly HIT_IOU hits, for BlitzNet it does not.
    """

    recalls: NDArray[np.floating] | None = None
    kit: bool = False


ELEVEN = np.arange(11) * 0.1
VOC_RULES: dict[BoxRules, VocRules] = {
    "voc12": VocRules(),
    "voc07": VocRules(recalls=ELEVEN),
    "voc12-kit": VocRules(kit=True),
    "voc07-kit": VocRules(recalls=ELEVEN, kit=True),
}


def overlaps(first: Boxes, second: Boxes, *, longer: float = 0.0) -> NDArray[np.float64]:
    """IoU of every box of `first` with every one of `second`: (n, 4), (m, 4) xyxy -> (n, m); 0 for two of no area.

    longer: what is added to the difference for every side: 1 where boxes are their first and their last pixels.
    """
    one, other = first.astype(np.float64)[:, None], second.astype(np.float64)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2]) + longer
    intersection = sides.clip(min=0).prod(axis=-1)
    union = sum((boxes[..., 2:] - boxes[..., :2] + longer).prod(axis=-1) for boxes in (one, other)) - intersection
    result: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return result


def overlapped_objects(
    boxes: Boxes, objects: Boxes, same: Flags | None = None, *, kit: bool = False
) -> NDArray[np.int64]:
    """For each of boxes (n, 4) the one of objects (m, 4) that it overlaps most, or -1 where it hits none: (n,).

    same: (n, m), which of them are of one class, where they are of several.
    """
    if len(boxes) == 0 or len(objects) == 0:
        return np.full(len(boxes), -1)
    overlap = overlaps(_pixels(boxes), _pixels(objects), longer=1) if kit else overlaps(boxes, objects)
    if same is not None:
        overlap *= same
    most = overlap.max(axis=1)
    return np.where(most >= HIT_IOU if kit else most > HIT_IOU, overlap.argmax(axis=1), -1)


def _pixels(edges: Boxes) -> Boxes:
    """First and last pixels, counted from 1 as in VOC's files."""
    return edges + np.array([1, 1, 0, 0], np.float32)


def find_hits(
    boxes: Boxes, objects: Boxes, difficult: Flags, same: Flags | None = None, *, kit: bool = False
) -> tuple[Flags, Flags]:
    """Which detections in one image hit an object, and which count at all: (n,) bool twice.

    boxes: (n, 4), best first. objects: (m, 4), of which some are difficult (m,). same: as in `overlapped_objects`. The
    object that a detection overlaps most decides: no hit where another detection came first; one that is difficult
    takes the detection out of the count.
    """
    found = overlapped_objects(boxes, objects, same, kit=kit)
    counted = ~np.append(difficult, False)[found]  # at -1 stands: hits none
    hits = np.zeros(len(boxes), bool)
    hits[np.unique(found, return_index=True)[1]] = True  # the first detection of each object
    return hits & (found >= 0) & counted, counted


class Voc:
    """Counting by VOC's rules: in one way, bit 0. Detections of one class and score count together."""

    first = "ap50"
    detection_type, object_type = DETECTION, OBJECT

    def __init__(self, rules: VocRules) -> None:
        self.rules = rules

    def match(self, prediction: Prediction, sample: Sample) -> tuple[NDArray[Any], NDArray[Any]]:
        """One image's DETECTIONs and OBJECTs."""
        assert prediction.boxes is not None and prediction.box_classes is not None
        assert sample.boxes is not None and sample.box_classes is not None
        difficult = sample.box_difficult
        if difficult is None:
            difficult = np.zeros(len(sample.boxes), bool)
        detections = np.zeros(len(prediction.boxes), DETECTION)
        detections["class"], detections["score"] = prediction.box_classes, prediction.box_scores
        same = prediction.box_classes[:, None] == sample.box_classes
        hits, counted = find_hits(prediction.boxes, sample.boxes, difficult, same, kit=self.rules.kit)
        detections["hits"], detections["ignored"] = hits, ~counted
        objects = np.zeros(int((~difficult).sum()), OBJECT)
        objects["class"] = sample.box_classes[~difficult]
        return detections, objects

    def curves(self, detections: NDArray[Any], objects: NDArray[Any], num_classes: int) -> Curves:
        """Those whose mean average precision is the first score."""
        return Curves(detections, objects, num_classes=num_classes, recalls=self.rules.recalls, together=True)

    def scores(self, detections: NDArray[Any], objects: NDArray[Any], num_classes: int, images: int) -> BoxScores:
        curves = self.curves(detections, objects, num_classes)
        (precisions,) = curves.average_precisions(np.ones(images, np.int64))
        return BoxScores(overall={"ap50": mean_defined(precisions)}, per_class={"ap50": precisions})
