"""From a painted canvas to image, mask and boxes."""

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.data.scenes.canvas import FIRST_OBJECT, HEIGHT, SCALE, WIDTH, Canvas
from veduta.data.scenes.kinds import Kind
from veduta.labels import IGNORE_INDEX

SIZE = WIDTH // SCALE, HEIGHT // SCALE  # of the image, as OpenCV wants it
MIN_PIXELS = 12  # objects of which less is visible become void
GRAIN = np.zeros(256, np.int16)  # how strongly the surface of each class is grained, by train id
GRAIN[: len(Kind)] = (2, 7, 7, 6, 13, 4, 3, 4, 4, 6, 5)


def read_image(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: shrunk, then mottled and grained by class, so that no surface is uniform."""
    small = cv2.cvtColor(cv2.resize(canvas.pixels, SIZE, interpolation=cv2.INTER_AREA), cv2.COLOR_RGBA2RGB)
    fine = rng.integers(0, 256, small.shape[:2], np.uint8)
    coarse = cv2.resize(rng.integers(0, 256, (24, 32), np.uint8), SIZE, interpolation=cv2.INTER_LINEAR_EXACT)
    strength = cv2.LUT(_owners(canvas), GRAIN[_kinds(canvas)])
    noise = (fine.astype(np.int16) + coarse - 255) * strength >> 7
    return cv2.add(small, cv2.merge([noise] * 3), dtype=cv2.CV_8U)


def read_owners(canvas: Canvas) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """mask (H, W) uint8 train ids, boxes (N, 4) float32 xyxy, box_classes (N,) int64.

    Void, as in PASCAL VOC: the pixels around each object; also the specks of objects too small for a box.
    """
    owners, kinds = _owners(canvas), _kinds(canvas)
    objects = cv2.subtract(owners, (FIRST_OBJECT - 1,))
    owners[cv2.dilate(objects, np.ones((3, 3), np.uint8)) > objects] = IGNORE_INDEX  # beside something nearer
    sizes = np.bincount(owners.reshape(-1), minlength=256)
    boxes, box_classes = [], []
    for owner, kind in enumerate(canvas.objects, start=FIRST_OBJECT):
        if sizes[owner] < MIN_PIXELS:
            kinds[owner] = IGNORE_INDEX
        else:
            x, y, width, height = cv2.boundingRect(cv2.compare(owners, (owner,), cv2.CMP_EQ))
            boxes.append((x, y, x + width, y + height))
            box_classes.append(int(kind))
    mask = cv2.LUT(owners, kinds)
    return mask, np.array(boxes, np.float32).reshape(-1, 4), np.array(box_classes, np.int64)


def _owners(canvas: Canvas) -> NDArray[np.uint8]:
    """The owner of each pixel, (H, W) uint8."""
    return canvas.pixels[1::SCALE, 1::SCALE, 3].copy()


def _kinds(canvas: Canvas) -> NDArray[np.uint8]:
    """Owner -> train id, (256,) uint8."""
    kinds = np.arange(256, dtype=np.uint8)
    kinds[FIRST_OBJECT : FIRST_OBJECT + len(canvas.objects)] = canvas.objects
    return kinds
