"""Single images to look at: the photo, and what lies over it: truth, predictions, and where these differ."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX, LabelMap
from veduta.report.boxes import BoxLabel, label_boxes, name_boxes
from veduta.report.overlays import (
    GAINED,
    WRONG,
    Pixels,
    Size,
    Word,
    lay_changes,
    lay_classes,
    lay_errors,
    name_regions,
    shrink,
    shrink_mask,
)
from veduta.tasks.average_precision import HIT_IOU, find_hits, overlapped_objects
from veduta.tasks.comparison import ClassPair, signed
from veduta.tasks.evaluation import WORDS, Example, percent
from veduta.tasks.prediction import DRAWN, Prediction

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class View:
    """What lies over the photo. overlay: as the photo, RGBA; pale: the photo is shown pale and grey below it.

    boxes, names: in pixels of the whole image. alt: says the view in words.
    """

    title: str
    alt: str
    overlay: Pixels | None = None
    pale: bool = False
    boxes: tuple[BoxLabel, ...] = ()
    names: tuple[Word, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ShownExample:
    """An image with what is said about it. figure: its score, in short. size: of the image; `photo` may be smaller."""

    group: str
    name: str
    figure: str
    words: str
    photo: Pixels
    size: Size
    views: tuple[View, ...]


@dataclass(frozen=True)
class BoxFaults:
    """Which boxes people are shown (n,), which of these hit no object (n,), which objects no such box hits (m,).

    A difficult object is no fault, whether hit or not, nor is a box that lies in a crowd.
    """

    shown: Flags
    false: Flags
    missed: Flags


def show_example(example: Example, labels: LabelMap, *, group: str, side: int) -> ShownExample:
    """Photo, truth, prediction and errors; of an image that is classified as a whole the photo and its classes."""
    name, sample, prediction = example.score.name, example.sample, example.prediction
    photo, size = shrink(sample.image, (side, side)), sample.image.shape[:2]
    if sample.scene_class is not None and prediction.class_scores is not None:
        words = _classes_in_words(sample.scene_class, prediction.class_scores, labels)
        views: tuple[View, ...] = ()
    else:
        words = ", ".join(f"{WORDS[key]} {percent(value)} %" for key, value in example.score.scores.items())
        truth, found = (_mask(of, photo) for of in (sample, prediction))
        views = (
            View(title="Photo", alt=f"Photo {name}"),
            _of_truth(sample, truth, labels),
            _of_prediction("Prediction", name, prediction, found, labels, size),
            View(
                title="Errors",
                alt=f"What is wrong in {name}",
                overlay=lay_errors(truth, found),
                pale=True,
                boxes=_wrong_boxes(sample, prediction, labels),
            ),
        )
    figure = f"{percent(next(iter(example.score.scores.values())))} %"
    return ShownExample(group=group, name=name, figure=figure, words=words, photo=photo, size=size, views=views)


def show_pair(pair: tuple[Example, Example], labels: LabelMap, *, score: str, side: int) -> ShownExample:
    """A, B, the truth, and what changed from A to B; of an image that is classified as a whole its three classes."""
    a, b = pair
    name, sample = a.score.name, a.sample
    photo, size = shrink(sample.image, (side, side)), sample.image.shape[:2]
    scores_a, scores_b = a.prediction.class_scores, b.prediction.class_scores
    if sample.scene_class is not None and scores_a is not None and scores_b is not None:
        told = (_classes_in_words(sample.scene_class, scores, labels) for scores in (scores_a, scores_b))
        words = "; ".join(f"{letter}: {classes}" for letter, classes in zip("AB", told, strict=True))
        views: tuple[View, ...] = ()
    else:
        words = f"{WORDS[score]} of A {percent(a.score.scores[score])} %, of B {percent(b.score.scores[score])} %"
        truth, before, after = (_mask(of, photo) for of in (sample, a.prediction, b.prediction))
        views = (
            _of_prediction("A", name, a.prediction, before, labels, size),
            _of_prediction("B", name, b.prediction, after, labels, size),
            _of_truth(sample, truth, labels),
            View(
                title="Difference",
                alt=f"What changes from A to B in {name}",
                overlay=lay_changes(truth, before, after),
                pale=True,
                boxes=_changed_objects(sample, a.prediction, b.prediction),
            ),
        )
    change = ClassPair(name=score, a=a.score.scores[score], b=b.score.scores[score])
    figure = f"{change.arrow} {signed(change.difference)}".strip()
    return ShownExample(group="", name=name, figure=figure, words=words, photo=photo, size=size, views=views)


def find_faults(sample: Sample, prediction: Prediction) -> BoxFaults:
    """Compare the boxes that people are shown with the objects of the image."""
    assert sample.boxes is not None and sample.box_classes is not None
    assert prediction.boxes is not None
    assert prediction.box_classes is not None and prediction.box_scores is not None
    objects, true_classes = sample.boxes, sample.box_classes
    shown = prediction.box_scores >= DRAWN
    difficult = np.zeros(len(objects), bool) if sample.box_difficult is None else sample.box_difficult
    missed, false = ~difficult, np.zeros(len(shown), bool)
    for train_id in np.union1d(prediction.box_classes[shown], true_classes):
        own = np.flatnonzero(shown & (prediction.box_classes == train_id))
        true = np.flatnonzero(true_classes == train_id)
        hits, counted = find_hits(prediction.boxes[own], objects[true], difficult[true])
        false[own] = counted & ~hits
        found = overlapped_objects(prediction.boxes[own], objects[true])
        missed[true[found[found >= 0]]] = False
    return BoxFaults(shown, false & ~_in_crowd(sample, prediction), missed)


def _in_crowd(sample: Sample, prediction: Prediction) -> Flags:
    """Which boxes lie in a crowd of their class with more than HIT_IOU of their area: (n,)."""
    assert prediction.boxes is not None and prediction.box_classes is not None
    if sample.crowd_boxes is None or sample.crowd_classes is None:
        return np.zeros(len(prediction.boxes), bool)
    one, other = prediction.boxes[:, None], sample.crowd_boxes
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    area = (one[..., 2:] - one[..., :2]).prod(axis=-1)
    inside = sides.clip(min=0).prod(axis=-1) > HIT_IOU * area
    same = prediction.box_classes[:, None] == sample.crowd_classes
    return (inside & same).any(axis=1)


def _classes_in_words(truth: int, scores: NDArray[np.float32], labels: LabelMap) -> str:
    guess = int(scores.argmax())
    words = f"{labels.names[truth]} {percent(float(scores[truth]))} %"
    return words if guess == truth else f"{words}, taken for {labels.names[guess]} {percent(float(scores[guess]))} %"


def _mask(of: Sample | Prediction, photo: Pixels) -> Pixels:
    """At the size of the photo, so that lines stay fine; what has no mask is all void."""
    mask = np.full(photo.shape[:2], IGNORE_INDEX, np.uint8) if of.mask is None else of.mask
    return shrink_mask(mask, photo)


def _of_truth(sample: Sample, mask: Pixels, labels: LabelMap) -> View:
    boxes: tuple[BoxLabel, ...] = ()
    if sample.boxes is not None and sample.box_classes is not None:
        boxes = label_boxes(sample.boxes, sample.box_classes, labels)
    if sample.crowd_boxes is not None and sample.crowd_classes is not None:
        boxes += label_boxes(sample.crowd_boxes, sample.crowd_classes, labels, dashed=True)
    return View(
        title="Truth",
        alt=f"True classes of {sample.name}",
        overlay=lay_classes(mask, labels),
        boxes=boxes,
        names=() if boxes else name_regions(mask, labels, sample.image.shape[:2]),
    )


def _of_prediction(title: str, name: str, prediction: Prediction, mask: Pixels, labels: LabelMap, size: Size) -> View:
    boxes: tuple[BoxLabel, ...] = ()
    if prediction.boxes is not None and prediction.box_classes is not None and prediction.box_scores is not None:
        shown = prediction.box_scores >= DRAWN
        boxes = label_boxes(prediction.boxes[shown], prediction.box_classes[shown], labels)
    by = f" by {title}" if len(title) == 1 else ""
    return View(
        title=title,
        alt=f"Predicted classes of {name}{by}",
        overlay=lay_classes(mask, labels),
        boxes=boxes,
        names=() if boxes else name_regions(mask, labels, size),
    )


def _wrong_boxes(sample: Sample, prediction: Prediction, labels: LabelMap) -> tuple[BoxLabel, ...]:
    """Objects that no box hits, and, dashed, boxes that hit no object."""
    if sample.boxes is None or prediction.boxes is None:
        return ()
    assert sample.box_classes is not None and prediction.box_classes is not None
    faults = find_faults(sample, prediction)
    missed, false = faults.missed, faults.false
    return label_boxes(sample.boxes[missed], sample.box_classes[missed], labels, color=WRONG) + label_boxes(
        prediction.boxes[false], prediction.box_classes[false], labels, color=WRONG, dashed=True
    )


def _changed_objects(sample: Sample, before: Prediction, after: Prediction) -> tuple[BoxLabel, ...]:
    """Objects that only one of the two has found, named by which."""
    if sample.boxes is None or before.boxes is None or after.boxes is None:
        return ()
    missed_before, missed_after = (find_faults(sample, prediction).missed for prediction in (before, after))
    lost, gained = sample.boxes[missed_after & ~missed_before], sample.boxes[missed_before & ~missed_after]
    return name_boxes(lost, "only A", WRONG) + name_boxes(gained, "only B", GAINED)
