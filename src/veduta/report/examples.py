"""Pictures of single images: the truth, what was predicted, and where these differ."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.labels import IGNORE_INDEX, LabelMap
from veduta.report.boxes import BoxLabel, label_boxes
from veduta.tasks.average_precision import find_hits, overlapped_objects
from veduta.tasks.evaluation import WORDS, Example, percent
from veduta.tasks.prediction import DRAWN, draw_mask

PICTURE_SIZE = (480, 480)  # width and height that example pictures are shrunk to
WRONG = (214, 0, 90)  # RGB of wrong pixels; dark on the pale photo, so that it does not take colour to see them
HATCH = 6  # pixels from one line over void to the next

Pixels = NDArray[np.uint8]
BoxLabels = tuple[BoxLabel, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with its words. boxes: in pixels of an image of `size` (height, width)."""

    title: str
    alt: str
    pixels: Pixels
    size: tuple[int, int]
    boxes: BoxLabels = ()


@dataclass(frozen=True, kw_only=True)
class ShownExample:
    """An image with what is said about it."""

    name: str
    words: str
    pictures: tuple[Picture, ...]


def show_example(example: Example, labels: LabelMap) -> ShownExample:
    """Photo, truth, prediction and errors; of an image that is classified as a whole the photo and its classes."""
    name, sample = example.score.name, example.sample
    photo, size = shrink(sample.image, PICTURE_SIZE), (sample.image.shape[0], sample.image.shape[1])
    views: tuple[tuple[str, str, Pixels, BoxLabels], ...]
    if sample.scene_class is not None and example.prediction.class_scores is not None:
        words = _classes_in_words(sample.scene_class, example.prediction.class_scores, labels)
        views = (("Photo", f"Photo {name}", photo, ()),)
    else:
        words = ", ".join(f"{WORDS[key]} {percent(value)} %" for key, value in example.score.scores.items())
        # Drawn at their final size, so that lines stay fine; an image without a mask is all void.
        void = np.full(size, IGNORE_INDEX, np.uint8)
        masks = (void if mask is None else mask for mask in (sample.mask, example.prediction.mask))
        truth, prediction = (shrink_mask(mask, photo) for mask in masks)
        true, found, wrong = _boxes(example, labels)
        views = (
            ("Photo", f"Photo {name}", photo, ()),
            ("Truth", f"True classes of {name}", draw_mask(photo, truth, labels), true),
            ("Prediction", f"Predicted classes of {name}", draw_mask(photo, prediction, labels), found),
            ("Errors", f"Wrong pixels of {name}", draw_errors(photo, truth, prediction), wrong),
        )
    pictures = (Picture(title=title, alt=alt, pixels=p, size=size, boxes=boxes) for title, alt, p, boxes in views)
    return ShownExample(name=name, words=words, pictures=tuple(pictures))


def draw_errors(image: Pixels, truth: Pixels, prediction: Pixels) -> Pixels:
    """Wrong pixels in a strong colour over a pale grey photo, void hatched.

    image: (H, W, 3) uint8 RGB; truth, prediction: (H, W) uint8 train ids.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    void = truth == IGNORE_INDEX
    wrong = (prediction != truth) & ~void
    rows, columns = np.indices(truth.shape)
    errors = cv2.addWeighted(grey, 0.4, np.full_like(grey, 255), 0.6, 0)
    errors[wrong] = (0.2 * grey[wrong] + 0.8 * np.array(WRONG)).astype(np.uint8)
    errors[void & ((rows + columns) % HATCH < 2)] = 90
    return errors.astype(np.uint8)


def shrink(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Shrink to fit into (width, height); smaller images stay as they are."""
    height, width = image.shape[:2]
    factor = min(1.0, size[0] / width, size[1] / height)
    fitted = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, fitted, interpolation=cv2.INTER_AREA).astype(np.uint8)


def shrink_mask(mask: Pixels, image: Pixels) -> Pixels:
    """Train ids (h, w) at the size of `image` (H, W, 3)."""
    size = (image.shape[1], image.shape[0])
    return cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)


def _classes_in_words(truth: int, scores: NDArray[np.float32], labels: LabelMap) -> str:
    guess = int(scores.argmax())
    words = f"{labels.names[truth]} {percent(float(scores[truth]))} %"
    return words if guess == truth else f"{words}, taken for {labels.names[guess]} {percent(float(scores[guess]))} %"


def _boxes(example: Example, labels: LabelMap) -> tuple[BoxLabels, BoxLabels, BoxLabels]:
    """The true boxes, those predicted ones that people are shown, and what is wrong.

    Wrong are objects that no such box hits, save for difficult ones, and, dashed, boxes that hit no object.
    """
    sample, prediction = example.sample, example.prediction
    if sample.boxes is None or prediction.boxes is None:
        return (), (), ()
    assert sample.box_classes is not None
    assert prediction.box_classes is not None and prediction.box_scores is not None
    objects, true_classes = sample.boxes, sample.box_classes
    shown = prediction.box_scores >= DRAWN
    boxes, classes = prediction.boxes[shown], prediction.box_classes[shown]
    difficult = np.zeros(len(objects), bool) if sample.box_difficult is None else sample.box_difficult
    missed, false = ~difficult, np.zeros(len(boxes), bool)
    for train_id in np.union1d(classes, true_classes):
        own, true = np.flatnonzero(classes == train_id), np.flatnonzero(true_classes == train_id)
        hits, counted = find_hits(boxes[own], objects[true], difficult[true])
        false[own] = counted & ~hits
        found = overlapped_objects(boxes[own], objects[true])
        missed[true[found[found >= 0]]] = False
    return (
        label_boxes(objects, true_classes, labels),
        label_boxes(boxes, classes, labels),
        label_boxes(objects[missed], true_classes[missed], labels, color=WRONG)
        + label_boxes(boxes[false], classes[false], labels, color=WRONG, dashed=True),
    )
