"""Pictures of a prediction, written while its bands come: the mask pixel by pixel, the overlay in a size to look at."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veduta.data.bands import Rows, mask_writer
from veduta.files import replacing
from veduta.labels import LabelMap
from veduta.tasks.prediction import Prediction, draw

OVERLAY = 1 << 24  # pixels: overlays of larger images are smaller
PIECE = 1 << 22  # pixels that are counted at a time: numpy takes eight bytes for each

Progress = Callable[[int, int], None]  # (rows done, rows in all), while some are left


def write_pictures(
    bands: Iterable[Prediction],
    image: Rows,
    out: Path,
    name: str,
    labels: LabelMap,
    progress: Progress,
    *,
    confidence: bool = False,
) -> tuple[Prediction, NDArray[np.int64]]:
    """Write out/masks/NAME.png and out/overlays/NAME.jpg of an image, if its prediction has a mask.

    bands: of the rows of the image (H, W, 3) from the top to the bottom. The mask holds file ids, with the palette.
    Returns the last band, which is all of it where there is one, and how many pixels each class has (num_classes,).
    confidence: that of all bands is in the returned one.
    """
    height, width = image.shape[:2]
    step = math.ceil(math.sqrt(height * width / OVERLAY))  # every so many pixels are in the overlay
    counts = np.zeros(labels.num_classes, np.int64)
    photo, seen, confidences, top = [], [], [], 0
    with ExitStack() as stack:
        for band in bands:
            if band.mask is None:
                return band, counts
            if top == 0:
                path = out / "masks" / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write = stack.enter_context(mask_writer(path, (height, width), _palette(labels)))
            rows = max(1, PIECE // width)
            for first in range(0, len(band.mask), rows):
                piece = band.mask[first : first + rows]
                write(labels.decode(piece))
                counts += np.bincount(piece.reshape(-1), minlength=len(counts))
            place = slice(-top % step, None, step), slice(None, None, step)
            photo.append(image[top : top + len(band.mask)][place].copy())  # a view would keep the whole band
            seen.append(band.mask[place].copy())
            if confidence and band.confidence is not None:
                confidences.append(band.confidence)
            top += len(band.mask)
            if top < height:
                progress(top, height)
    small = dataclasses.replace(band, mask=np.concatenate(seen))
    if band.boxes is not None:
        small = dataclasses.replace(small, boxes=band.boxes / np.float32(step))
    _save_photo(out / "overlays" / f"{name}.jpg", draw(np.concatenate(photo), small, labels))
    if confidences:
        band = dataclasses.replace(band, confidence=np.concatenate(confidences))
    return band, counts


def _palette(labels: LabelMap) -> NDArray[np.uint8]:
    """(256, 3): the colour of every file id."""
    palette = np.zeros((256, 3), np.uint8)
    for label in labels.classes:
        palette[label.file_id] = label.color
    return palette


def _save_photo(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="JPEG", quality=92)
