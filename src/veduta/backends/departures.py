"""Departures: how far the outputs of a backend are from those that are expected of it, output by output."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.config import Loss
from veduta.model_info import OF_TRAINING, Bounds, Departure, ModelInfo
from veduta.ops.arrays import numpy
from veduta.ops.detections import KEPT_PER_IMAGE
from veduta.tasks import TASKS
from veduta.tasks.prediction import DRAWN, MOST_CLASSES, Prediction

Array = NDArray[Any]

FOUND = ("boxes", "box_classes", "box_scores", "box_counts")  # padded to a length that is the same for all images
TIE = 1e-5  # of the range: which of two such logits is the larger one is up to rounding, and nobody is asked


@dataclass(frozen=True)
class Expected:
    """What is kept of one output.

    values: of a tensor of float32 every step-th of the flattened, with the span (highest - lowest) of all; of whole
    numbers all. classes: of logits, which one is the largest, of all places. Where classes are as good as equal, the
    highest number of the type stands for any.
    """

    shape: tuple[int, ...]
    values: Array
    step: int = 1
    span: float = 0.0
    classes: Array | None = None

    @classmethod
    def of(cls, name: str, tensor: Array, *, most: int | None = None) -> "Expected":
        """most: values that are kept, spread evenly; all by default, and of boxes and of whole numbers always."""
        if tensor.dtype.kind != "f":
            return cls(tensor.shape, tensor)
        flat = tensor.ravel()
        finite = flat[np.isfinite(flat)]
        span = float(finite.max() - finite.min()) if finite.size else 0.0
        step = 1 if most is None or name in FOUND else _coprime(-(-flat.size // most), flat.size)
        classes = _classes(tensor, TIE * span) if name.endswith("logits") else None
        return cls(tensor.shape, flat[::step], step, span, classes)


def outputs_of(info: ModelInfo, outputs: Mapping[str, Any]) -> dict[str, Array]:
    """A backend's outputs as arrays of NumPy, without OF_TRAINING; a detector's with the boxes that its task finds."""
    arrays = {name: numpy(value) for name, value in outputs.items() if name not in OF_TRAINING}
    if info.recipe.task == "detect_segment" and "boxes" not in arrays:
        arrays |= _boxes_of(_predictions(info, outputs))
    return arrays


def decoded_of(info: ModelInfo, outputs: Mapping[str, Any]) -> dict[str, Array]:
    """The network's own outputs as a decoded file has to give them, see export/decode.py; ties as in Expected."""
    decoded = as_arrays(_predictions(info, outputs))
    if "mask" in decoded:
        logits = numpy(outputs["mask_logits"])
        tied = _classes(logits, TIE * float(logits.max() - logits.min())) == _any_of(np.uint16)
        decoded["mask"] = np.where(tied, _any_of(np.uint8), decoded["mask"])
    if "top_classes" in decoded:
        best = -np.sort(-decoded["class_scores"], axis=1)
        near = np.pad(best[:, :-1] - best[:, 1:] < TIE, ((0, 0), (1, 1)))  # before each, and after the last
        tied = (near[:, :-1] | near[:, 1:])[:, :MOST_CLASSES]
        decoded["top_classes"] = np.where(tied, _any_of(np.int64), decoded["top_classes"])
    return decoded


def as_arrays(predictions: Sequence[Prediction]) -> dict[str, Array]:
    """Predictions of images of one size, named as the outputs of a decoded file."""
    decoded: dict[str, Array] = {}
    if predictions[0].class_scores is not None:
        scores = np.stack([each.class_scores for each in predictions if each.class_scores is not None])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :MOST_CLASSES]
        decoded = {"class_scores": scores, "top_classes": best, "top_scores": np.take_along_axis(scores, best, axis=1)}
    if predictions[0].boxes is not None:
        decoded |= _boxes_of(predictions)
    if predictions[0].mask is not None:
        decoded["mask"] = np.stack([each.mask for each in predictions if each.mask is not None])
    return decoded


def measured(case: str, expected: Mapping[str, Expected], found: Mapping[str, Array]) -> Iterator[Departure]:
    """One for each expected output; of boxes one for all that belongs to them.

    largest: difference as a share of the expected span; of whole numbers 0 where agreement says it all; of boxes, of
    their scores. Infinite where an output is missing, has another shape, or one of both is no number.
    """
    for name, kept in expected.items():
        if name in FOUND[1:]:
            continue
        if name not in found or found[name].shape != kept.shape:
            yield Departure(case=case, output=name, largest=math.inf)
        elif name == "boxes":
            yield _boxes_apart(case, {each: _whole(expected[each]) for each in FOUND}, found)
        elif kept.values.dtype.kind != "f":
            yield Departure(case=case, output=name, largest=0.0, agreement=_agreement(kept.values, found[name]))
        else:
            agreement = (
                None if kept.classes is None else _agreement(kept.classes, found[name].argmax(_class_axis(found[name])))
            )
            largest = _largest(kept.values, found[name].ravel()[:: kept.step], kept.span)
            yield Departure(case=case, output=name, largest=largest, agreement=agreement)


def broken(departure: Departure, bounds: Bounds) -> str:
    """What a departure is beyond the bounds, in words; empty where it is within them."""
    if not departure.largest <= bounds.largest:
        return f"differs by {departure.largest:.2g} of its range, {bounds.largest:.2g} is allowed"
    if departure.agreement is not None and departure.agreement < bounds.agreement:
        return f"agrees on {100 * departure.agreement:.4f} % of the places, {100 * bounds.agreement:.6g} % is asked for"
    if departure.box_shift is not None and not departure.box_shift <= bounds.box_shift:
        if math.isinf(departure.box_shift):
            return f"lacks all boxes of a class of which one scores {DRAWN:g} or more, or has it too much"
        return f"has a box that is {departure.box_shift:.2g} pixels from the nearest, {bounds.box_shift:.2g} is allowed"
    return ""


def _boxes_apart(case: str, expected: Mapping[str, Array], found: Mapping[str, Array]) -> Departure:
    """Boxes that score DRAWN or more, on either side: how far is the nearest one of its class on the other side?

    The other one may score anything, so that a score of DRAWN sharp decides nothing. box_shift: pixels between corners,
    infinite where the other side has none of the class; None where there are no such boxes.
    """
    scores, shifts = [0.0], []
    for one, other in ((expected, found), (found, expected)):
        for image in range(len(one["boxes"])):
            mine, theirs = (
                [side[name][image][: side["box_counts"][image]] for name in FOUND[:3]] for side in (one, other)
            )
            for box, label, score in zip(*mine, strict=True):
                if score < DRAWN:
                    continue
                apart = np.where(theirs[1] == label, np.abs(theirs[0] - box).max(axis=1), np.inf)
                nearest = int(apart.argmin()) if apart.size else 0
                shifts.append(float(apart[nearest]) if apart.size else math.inf)
                if math.isfinite(shifts[-1]):
                    scores.append(float(abs(score - theirs[2][nearest])))
    return Departure(case=case, output="boxes", largest=max(scores), box_shift=max(shifts) if shifts else None)


def _largest(expected: Array, found: Array, span: float) -> float:
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    if same.all():
        return 0.0
    difference = np.abs(expected[~same].astype(np.float64) - found[~same])
    if not np.isfinite(difference).all():
        return math.inf
    return float(difference.max() / span) if span else math.inf


def _agreement(expected: Array, found: Array) -> float:
    asked = expected != _any_of(expected.dtype)
    return float((expected == found)[asked].mean()) if asked.any() else 1.0


def _any_of(dtype: Any) -> Any:
    """What stands for any class."""
    return np.iinfo(dtype).max


def _classes(logits: Array, tie: float) -> NDArray[np.uint16]:
    axis = _class_axis(logits)
    best = logits.argmax(axis=axis, keepdims=True)
    highest = np.take_along_axis(logits, best, axis=axis)
    rest = logits.copy()
    np.put_along_axis(rest, best, -np.inf, axis=axis)
    tied = highest - rest.max(axis=axis, keepdims=True) <= tie
    return np.where(tied, _any_of(np.uint16), best).squeeze(axis).astype(np.uint16)


def _class_axis(logits: Array) -> int:
    """Of (N, C), (N, C, H, W) or (N, P, C)."""
    return 2 if logits.ndim == 3 else 1


def _coprime(step: int, size: int) -> int:
    """Not less than step: else every step could meet the same columns, or one channel."""
    while math.gcd(step, size) > 1 < step:
        step += 1
    return max(step, 1)


def _whole(kept: Expected) -> Array:
    return kept.values.reshape(kept.shape)


def _predictions(info: ModelInfo, outputs: Mapping[str, Any]) -> list[Prediction]:
    return TASKS[info.recipe.task](info.labels, Loss()).predict(dict(outputs))


def _boxes_of(predictions: Sequence[Prediction]) -> dict[str, Array]:
    """FOUND of a detector's predictions; rows beyond the counts are 0."""
    images = len(predictions)
    boxes, scores = np.zeros((images, KEPT_PER_IMAGE, 4), np.float32), np.zeros((images, KEPT_PER_IMAGE), np.float32)
    classes, counts = np.zeros((images, KEPT_PER_IMAGE), np.int64), np.zeros(images, np.int64)
    for image, each in enumerate(predictions):
        assert each.boxes is not None and each.box_classes is not None and each.box_scores is not None
        count = counts[image] = len(each.boxes)
        boxes[image, :count], classes[image, :count] = each.boxes, each.box_classes
        scores[image, :count] = each.box_scores
    return dict(zip(FOUND, (boxes, classes, scores, counts), strict=True))
